//! The `fgmp` command: argument parsing, progress, tables. No numerics here.

mod arguments;
mod commands;
mod diagram;
mod hardware;
mod model;
mod output;
mod plot;

use std::process::ExitCode;

use arguments::{Cli, Command, ReportCommand};
use clap::Parser;
use output::{Outcome, Output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = match Output::new(cli.global.json.as_deref()) {
        Ok(output) => output,
        Err(error) => return fail(&error),
    };
    if let Err(error) = output::remove_partial_files_on_interrupt() {
        return fail(&error);
    }
    match run(cli, &output) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => fail(&error),
    }
}

fn run(cli: Cli, output: &Output) -> anyhow::Result<Outcome> {
    let seed = cli.global.seed;
    match cli.command {
        Command::Demo(arguments) => commands::demo::run(&arguments, seed, output),
        Command::Quantize(arguments) => commands::quantize::run(&arguments, seed, output),
        Command::Dequantize(arguments) => commands::dequantize::run(&arguments, output),
        Command::Eval(arguments) => commands::eval::run(&arguments, seed, output),
        Command::Matmul(arguments) => commands::matmul::run(&arguments, output),
        Command::Emit(arguments) => commands::emit::run(&arguments, seed, output),
        Command::Cosim(arguments) => commands::cosim::run(&arguments, seed, output),
        Command::Synth(arguments) => commands::synth::run(&arguments, seed, output),
        Command::Estimate(arguments) => commands::estimate::run(&arguments, seed, output),
        Command::Board(arguments) => commands::board::run(&arguments, seed, output),
        Command::Speed(arguments) => commands::speed::run(&arguments, seed, output),
        Command::Ets(arguments) => commands::ets::run(&arguments, seed, output),
        Command::Fisher(arguments) => commands::fisher::run(&arguments, output),
        Command::Report(arguments) => match &arguments.command {
            ReportCommand::Quant(arguments) => commands::report::quant(arguments, seed, output),
        },
    }
}

/// Bad usage or bad input: the whole chain of reasons, exit status 2.
fn fail(error: &anyhow::Error) -> ExitCode {
    // Libraries' messages already hold their causes, which are not said twice.
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // A closed standard error leaves nobody to tell.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("fgmp: {text}\n").as_bytes());
    ExitCode::from(2)
}
