//! From Verilog of an engine to a bitstream of a board that meets its clock.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use synth::nextpnr::{OnBoard, RouteError, Routed, Usage, pack_on_board, place_on_board};
use synth::yosys::{self, Hierarchy, Mapping, Multipliers, SynthError, SynthReport, Target};
use testbench::tool::{Tool, ToolMissing};

use crate::tools::{ECPPACK, ECPUNPACK, GOWIN_PACK, GOWIN_UNPACK, ICEPACK, ICEUNPACK, find};
use crate::{Board, ConstraintError, Family, Top};

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effort {
    /// Seed of the first placing.
    pub first_seed: u32,
    /// Placings at most, each with the next seed; the first that meets the clock is taken.
    pub seeds: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            first_seed: 1,
            seeds: 4,
        }
    }
}

/// What the flow is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Yosys maps the design.
    Synthesis,
    /// nextpnr places and routes it, with this seed.
    Placing {
        /// The seed.
        seed: u32,
    },
    /// It did.
    Placed {
        /// The seed.
        seed: u32,
        /// The clock that was reached, MHz.
        mhz: f64,
    },
    /// The wires found no way from this placing.
    Unroutable {
        /// The seed.
        seed: u32,
    },
    /// The bitstream is packed.
    Packing,
}

/// A placing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// Its seed.
    pub seed: u32,
    /// The clock that it reached, MHz; none if it couldn't be routed.
    pub mhz: Option<f64>,
}

/// `seed 3: 11.20 MHz`.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mhz {
            Some(mhz) => write!(f, "seed {}: {mhz:.2} MHz", self.seed),
            None => write!(f, "seed {}: not routed", self.seed),
        }
    }
}

/// A netlist mapped to a board's family, not yet placed.
#[derive(Debug)]
pub struct Netlist {
    folder: tempfile::TempDir,
    top: Top,
    constraints: String,
    /// Its cells, as yosys counts them.
    pub cells: SynthReport,
}

/// A bitstream and how it came about.
pub struct Built {
    /// The bitstream: BIN of iCE40, BIT of ECP5, FS of Gowin.
    pub bitstream: Vec<u8>,
    /// What the packer read: ASC, configuration or JSON.
    pub placed: Vec<u8>,
    /// The top around the engine.
    pub top: Top,
    /// The constraint file.
    pub constraints: String,
    /// Cells as yosys counts them.
    pub cells: SynthReport,
    /// Clock and cells as nextpnr tells them.
    pub routed: Routed,
    /// All placings, the last of which was taken.
    pub attempts: Vec<Attempt>,
}

/// Without the bytes.
impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("bytes", &self.bitstream.len())
            .field("routed", &self.routed)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// What reading a bitstream back showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was done.
    pub method: &'static str,
    /// Bytes that were compared.
    pub bytes: usize,
}

/// Why there is no bitstream.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A program is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// The design can't be mapped.
    #[error(transparent)]
    Synthesis(#[from] SynthError),
    /// It can't be placed or routed, or doesn't fit.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A port of the top has no pin.
    #[error(transparent)]
    Constraints(#[from] ConstraintError),
    /// No placing was fast enough.
    #[error(
        "the clock of {board}, {needed:.2} MHz, is not met: {} ({})",
        attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        "more pipeline stages make it faster, a smaller array makes routing easier"
    )]
    TooSlow {
        /// The board.
        board: &'static str,
        /// Its clock, MHz.
        needed: f64,
        /// The placings.
        attempts: Vec<Attempt>,
    },
    /// A packer or unpacker failed.
    #[error("{program} failed:\n{message}")]
    Program {
        /// The program.
        program: String,
        /// Its last lines.
        message: String,
    },
    /// A bitstream isn't the same after it was read back and packed again.
    #[error("the bitstream is another one after {0}")]
    Changed(&'static str),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
}

/// Makes a system's error one of a file.
fn file(path: &Path) -> impl FnOnce(std::io::Error) -> FlowError + use<> {
    let path = path.to_owned();
    move |source| FlowError::File { path, source }
}

impl Family {
    /// The family as yosys's flows name it.
    #[must_use]
    pub const fn target(self) -> Target {
        match self {
            Self::Ice40 => Target::Ice40,
            Self::Ecp5 => Target::Ecp5,
            Self::Gowin => Target::Gowin,
        }
    }
}

/// Whether all programs of the flow are there.
///
/// # Errors
/// The first that is missing.
pub fn tools(board: &Board) -> Result<(), ToolMissing> {
    yosys::find_for(board.family.target())?;
    synth::nextpnr::find_for(board.family.target())?;
    find(packer(board.family)).map(|_| ())
}

const fn packer(family: Family) -> &'static Tool {
    match family {
        Family::Ice40 => &ICEPACK,
        Family::Ecp5 => &ECPPACK,
        Family::Gowin => &GOWIN_PACK,
    }
}

/// Maps an engine (Verilog of [`crate::ENGINE`] and what is in it) with the board's top around it.
///
/// # Errors
/// [`FlowError`]: a program is missing or refuses the design.
pub fn synthesize(board: &Board, engine: &str, hierarchy: Hierarchy) -> Result<Netlist, FlowError> {
    let top = board.top();
    let constraints = top.constraints(board)?;
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    let mapping = Mapping {
        hierarchy,
        // Products of four bits are small as logic, and quick; devices have too few blocks for all of an array's, and nextpnr knows no delays of
        // Gowin's.
        multipliers: Multipliers::Logic,
    };
    let text = format!("{engine}\n{}", top.verilog);
    let netlist = folder.path().join("netlist.json");
    let cells = yosys::board_netlist(
        &text,
        &top.name,
        board.family.target(),
        mapping,
        board.yosys,
        &netlist,
    )?;
    Ok(Netlist {
        folder,
        top,
        constraints,
        cells,
    })
}

impl Netlist {
    /// How it is placed on a board, but for the clock and the seed.
    fn on_board<'a>(&'a self, board: &'a Board, mhz: f64, seed: u32) -> OnBoard<'a> {
        OnBoard {
            target: board.family.target(),
            device: board.part,
            icetime: (board.family == Family::Ice40).then_some(board.device),
            arguments: board.nextpnr,
            constraints: &self.constraints,
            mhz,
            seed,
        }
    }

    /// Cells that it takes of a board's device, by nextpnr's names, without placing it.
    ///
    /// # Errors
    /// [`FlowError`]: nextpnr is missing or refuses the design.
    pub fn usage(&self, board: &Board) -> Result<BTreeMap<String, Usage>, FlowError> {
        let netlist = self.folder.path().join("netlist.json");
        Ok(pack_on_board(&netlist, &self.on_board(board, 1.0, 1))?)
    }
}

/// Places, routes and packs a netlist. The clock is that of the board.
///
/// # Errors
/// [`FlowError`]: among others the design doesn't fit, or no placing meets the clock.
pub fn implement(
    board: &Board,
    netlist: Netlist,
    effort: Effort,
    mut step: impl FnMut(Step),
) -> Result<Built, FlowError> {
    let needed = f64::from(board.system_hz()) / 1e6;
    let mut attempts = Vec::new();
    let folder = netlist.folder.path();
    for seed in (0..effort.seeds.max(1)).map(|it| effort.first_seed.saturating_add(it)) {
        step(Step::Placing { seed });
        let placed = folder.join("placed");
        let routed = place_on_board(
            &folder.join("netlist.json"),
            &netlist.on_board(board, needed, seed),
            &placed,
        );
        let routed = match routed {
            Err(RouteError::Unroutable { .. }) => {
                attempts.push(Attempt { seed, mhz: None });
                step(Step::Unroutable { seed });
                continue;
            }
            routed => routed?,
        };
        let mhz = routed.mhz;
        attempts.push(Attempt {
            seed,
            mhz: Some(mhz),
        });
        step(Step::Placed { seed, mhz });
        if mhz < needed {
            continue;
        }
        step(Step::Packing);
        let placed = fs::read(&placed).map_err(file(&placed))?;
        let bitstream = pack(board, &placed)?;
        return Ok(Built {
            bitstream,
            placed,
            top: netlist.top,
            constraints: netlist.constraints,
            cells: netlist.cells,
            routed,
            attempts,
        });
    }
    Err(FlowError::TooSlow {
        board: board.name,
        needed,
        attempts,
    })
}

/// Runs a program in a folder on relative names: the wheels' programs see another temporary folder.
fn call(tool: &Tool, folder: &Path, arguments: &[&str]) -> Result<(), FlowError> {
    let program = find(tool)?;
    let output = Command::new(&program)
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(file(&program))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    Err(FlowError::Program {
        program: tool.name.to_owned(),
        message: lines[lines.len().saturating_sub(10)..].join("\n"),
    })
}

/// Turns a placed design into a bitstream.
///
/// # Errors
/// [`FlowError`]: the packer is missing or fails.
pub fn pack(board: &Board, placed: &[u8]) -> Result<Vec<u8>, FlowError> {
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("placed"), placed).map_err(file(&path("placed")))?;
    let mut arguments = board.pack.to_vec();
    match board.family {
        Family::Ice40 | Family::Ecp5 => arguments.extend(["placed", "bitstream"]),
        Family::Gowin => arguments.extend(["-o", "bitstream", "placed"]),
    }
    call(packer(board.family), folder.path(), &arguments)?;
    fs::read(path("bitstream")).map_err(file(&path("bitstream")))
}

/// Reads a bitstream back and packs it again, where the family's programs can do that, which must give the same bytes. Gowin's unpacker gives Verilog, so there the
/// placed design is packed a second time, and the unpacker must read the result.
///
/// # Errors
/// [`FlowError::Changed`], or a program is missing or fails.
pub fn check(board: &Board, bitstream: &[u8], placed: &[u8]) -> Result<Check, FlowError> {
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    let path = |name: &str| folder.path().join(name);
    fs::write(path("bitstream"), bitstream).map_err(file(&path("bitstream")))?;
    let (method, again) = match board.family {
        Family::Ice40 | Family::Ecp5 => {
            let unpacker = match board.family {
                Family::Ice40 => &ICEUNPACK,
                _ => &ECPUNPACK,
            };
            call(unpacker, folder.path(), &["bitstream", "unpacked"])?;
            let unpacked = fs::read(path("unpacked")).map_err(file(&path("unpacked")))?;
            ("unpacked and packed again", pack(board, &unpacked)?)
        }
        Family::Gowin => {
            let mut arguments = board.pack.to_vec();
            arguments.extend(["-o", "unpacked.v", "bitstream"]);
            call(&GOWIN_UNPACK, folder.path(), &arguments)?;
            let unpacked = path("unpacked.v");
            let text = fs::read_to_string(&unpacked).map_err(file(&unpacked))?;
            if !text.contains("LUT4") || !text.contains("endmodule") {
                return Err(FlowError::Program {
                    program: GOWIN_UNPACK.name.to_owned(),
                    message: "its Verilog has no logic".to_owned(),
                });
            }
            (
                "packed again, and unpacked to Verilog",
                pack(board, placed)?,
            )
        }
    };
    if again == bitstream {
        Ok(Check {
            method,
            bytes: bitstream.len(),
        })
    } else {
        Err(FlowError::Changed(method))
    }
}
