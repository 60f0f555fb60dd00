//! `fgmp board`: open FPGA boards.

use serde::Serialize;

use super::{board_build as build, board_flash as flash, board_run};
use crate::arguments::{Board, BoardCommand};
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    boards: Vec<&'static fpga::Board>,
}

/// Runs the command.
pub fn run(arguments: &Board, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    match &arguments.command {
        BoardCommand::List => list(output),
        BoardCommand::Build(arguments) => build::run(arguments, seed, output),
        BoardCommand::Flash(arguments) => flash::run(arguments, output),
        BoardCommand::Measure(arguments) => build::measure(arguments, output),
        BoardCommand::Run(arguments) => board_run::run(arguments, seed, output),
    }
}

fn list(output: &Output) -> anyhow::Result<Outcome> {
    let boards: Vec<_> = fpga::boards().iter().collect();
    let mhz = |hz: u32| format!("{} MHz", f64::from(hz) / 1e6);
    let rows: Vec<Vec<String>> = boards
        .iter()
        .map(|board| {
            let clock = match board.pll {
                Some(_) => format!("{} from {}", mhz(board.system_hz()), mhz(board.clock_hz)),
                None => mhz(board.clock_hz),
            };
            vec![
                board.name.to_owned(),
                board.title.to_owned(),
                board.part.to_owned(),
                count(board.logic_cells.into()),
                board.block_memories.to_string(),
                clock,
                format!("{} Mbaud", f64::from(board.uart.baud) / 1e6),
                board.uart.bridge.to_owned(),
                board.flash.tool.tool().name.to_owned(),
            ]
        })
        .collect();
    output.table(
        &[
            "board",
            "what it is",
            "device",
            "cells",
            "memories",
            "clock",
            "link",
            "through",
            "programmer",
        ],
        &rows,
    );
    output.json(&Report { boards })?;
    Ok(Outcome::Done)
}
