//! `fgmp board flash`: a bitstream to a board.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fpga::flash::{self, Host, Memory, Plan, Request};
use fpga::{Board, Programmer, Verification};
use serde::Serialize;

use crate::arguments::BoardFlash;
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    plan: Plan,
    written: bool,
}

/// The bitstream in a build's folder, or the file itself. dfu-util wants the one with a suffix.
fn bitstream(board: &Board, path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let stem = format!("fgmp_{}", board.name.replace('-', "_"));
    let extension = match board.flash.tool {
        Programmer::DfuUtil => "dfu",
        Programmer::Iceprog | Programmer::OpenFpgaLoader => board.family.bitstream_extension(),
    };
    let file = path.join(format!("{stem}.{extension}"));
    if !file.is_file() {
        bail!(
            "{}: holds no bitstream for {} (no {stem}.{extension}); `fgmp board build {} -o {}` makes one",
            path.display(),
            board.name,
            board.name,
            path.display()
        );
    }
    Ok(file)
}

/// Runs the command.
pub fn run(arguments: &BoardFlash, output: &Output) -> anyhow::Result<Outcome> {
    let board = fpga::board(&arguments.board)?;
    let file = bitstream(board, &arguments.bitstream)?;
    let request = Request {
        board,
        bitstream: &file,
        memory: if arguments.sram {
            Memory::Sram
        } else {
            Memory::Flash
        },
        verify: arguments.verify,
    };
    let plan = flash::plan(&request, &Host::default(), !arguments.dry_run)?;
    output.line(format!(
        "{}: {} bytes for {}",
        plan.bitstream.display(),
        count(plan.bytes),
        plan.device
    ));
    output.line(format!("to        {}, {}", board.title, plan.memory));
    output.line(match &plan.usb {
        Some(usb) => format!(
            "attached  \"{}\" {:04x}:{:04x}, bus {} device {}",
            usb.name, usb.vendor, usb.product, usb.bus, usb.address
        ),
        None if arguments.dry_run => "attached  no such board was seen".to_owned(),
        None => "attached  not known: this system lists no USB devices".to_owned(),
    });
    output.line(match plan.verification {
        Verification::Always | Verification::Asked(_) => {
            "verified  by reading back what was written"
        }
        Verification::Device => {
            "verified  by the bitstream's own checksums when it is loaded; nothing is read back"
        }
    });
    output.line(format!("command   {}", plan.command.join(" ")));
    if arguments.dry_run {
        output.line("nothing was written (--dry-run)");
        output.json(&Report {
            plan,
            written: false,
        })?;
        return Ok(Outcome::Done);
    }
    flash::run(board, &plan, std::io::stderr())?;
    output.line("written");
    output.json(&Report {
        plan,
        written: true,
    })?;
    Ok(Outcome::Done)
}
