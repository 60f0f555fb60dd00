//! `fgmp board`: open FPGA boards.

use serde::Serialize;

use crate::arguments::{Board, BoardCommand};
use crate::output::{Outcome, Output};

#[derive(Serialize)]
struct Report {
    boards: Vec<&'static fpga::Board>,
}

/// Runs the command.
pub fn run(arguments: &Board, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if let BoardCommand::Run(arguments) = &arguments.command {
        return super::board_run::run(arguments, seed, output);
    }
    let boards: Vec<_> = fpga::boards().iter().collect();
    let rows: Vec<Vec<String>> = boards
        .iter()
        .map(|board| {
            vec![
                board.name.to_string(),
                board.vendor.to_string(),
                board.device.to_string(),
                board.package.to_string(),
                format!("{:.1} MHz", f64::from(board.clock_hz) / 1e6),
            ]
        })
        .collect();
    output.table(&["board", "vendor", "device", "package", "clock"], &rows);
    output.json(&Report { boards })?;
    Ok(Outcome::Done)
}
