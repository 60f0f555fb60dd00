//! `fgmp fisher`: mean squared loss gradients.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use fisher::{Options, windows};
use golden::fisher::FisherInformation;
use golden::model::Model;
use serde::Serialize;

use crate::arguments::Fisher;
use crate::model::Prepared;
use crate::output::{Interrupt, Outcome, Output, check_writable, count};

/// A pass and where its result goes.
pub struct Pass<'a> {
    /// The stream.
    pub tokens: Vec<u32>,
    /// Windows from its start.
    pub windows: usize,
    /// Tokens of a window.
    pub window: usize,
    /// The result; while the pass runs, its state has the same name with `.state` appended.
    pub output: &'a Path,
}

#[derive(Serialize)]
struct Report {
    model: String,
    output: String,
    windows: usize,
    window: usize,
    tokens: usize,
    loss: f64,
    perplexity: f64,
    seconds: f64,
}

fn state_file(output: &Path) -> PathBuf {
    let mut name: OsString = output.into();
    name.push(".state");
    name.into()
}

/// The information that the file holds if it is of as many windows as asked for, or else that of a new pass, which writes it.
pub fn information(
    model: &Model,
    pass: &Pass<'_>,
    output: &Output,
) -> anyhow::Result<Option<FisherInformation>> {
    if pass.output.exists()
        && let Ok(found) = FisherInformation::open(pass.output, model.config())
        && (found.windows, found.window) == (pass.windows, pass.window)
    {
        output.line(format!("{}: used as it is", pass.output.display()));
        return Ok(Some(found));
    }
    compute(model, pass, output)
}

/// Runs a pass, or goes on with an interrupted one, and writes the result; `None` if it was interrupted.
fn compute(
    model: &Model,
    pass: &Pass<'_>,
    output: &Output,
) -> anyhow::Result<Option<FisherInformation>> {
    let windows = windows(&pass.tokens, pass.window, pass.windows);
    if windows.len() < pass.windows {
        bail!(
            "--windows {}: the stream has {} tokens, which are {} windows of {} and a token behind each",
            pass.windows,
            pass.tokens.len(),
            windows.len(),
            pass.window
        );
    }
    let state = state_file(pass.output);
    let interrupt = Interrupt::graceful();
    let options = Options {
        state: Some(state.clone()),
        ..Options::default()
    };
    let progress = output.progress("squaring gradients", windows.len() as u64);
    let mut first = true;
    let outcome = fisher::run(model, &windows, &options, &mut |step| {
        if first && step.done > 0 {
            output.line(format!(
                "{}: goes on after {} windows",
                state.display(),
                step.done
            ));
            progress.reset_eta();
        }
        first = false;
        progress.set_position(step.done as u64);
        if step.done > 0 {
            progress.set_message(format!("squaring gradients, {:.3}", step.loss));
        }
        if interrupt.asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    progress.finish_and_clear();
    match outcome {
        fisher::Outcome::Complete(information) => {
            information.save(pass.output, model.config())?;
            // Its sums are in the result now; a second run would begin anew without it.
            let _ = std::fs::remove_file(&state);
            Ok(Some(information))
        }
        fisher::Outcome::Interrupted(step) => {
            output.line(format!(
                "interrupted after {} of {} windows; the same command goes on from {}",
                step.done,
                step.windows,
                state.display()
            ));
            Ok(None)
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Fisher, output: &Output) -> anyhow::Result<Outcome> {
    check_writable(&arguments.output)?;
    check_writable(&state_file(&arguments.output))?;
    let prepared = Prepared::open(arguments.input.as_deref(), &arguments.model)?;
    let tokens = match &arguments.tokens {
        Some(path) => prepared.reader.read(&path.to_string_lossy())?,
        None => prepared.calibration_tokens()?,
    };
    let start = Instant::now();
    let pass = Pass {
        tokens,
        windows: arguments.windows,
        window: arguments.window,
        output: &arguments.output,
    };
    let Some(information) = compute(&prepared.model, &pass, output)? else {
        return Ok(Outcome::Interrupted);
    };
    let report = Report {
        model: prepared.name,
        output: arguments.output.display().to_string(),
        windows: information.windows,
        window: information.window,
        tokens: information.tokens,
        loss: information.loss,
        perplexity: information.loss.exp(),
        seconds: start.elapsed().as_secs_f64(),
    };
    output.line(format!(
        "{}: mean squared gradients over {} windows of {} tokens ({} tokens, perplexity {:.4}) in {:.1} s",
        report.model,
        report.windows,
        report.window,
        count(report.tokens as u64),
        report.perplexity,
        report.seconds
    ));
    output.line(format!("wrote {}", report.output));
    output.json(&report)?;
    Ok(Outcome::Done)
}
