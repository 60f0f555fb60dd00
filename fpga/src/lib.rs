//! Where it runs: open FPGA boards as data, and the driver that makes one of them multiply.
//!
//! A [`Board`] says which device it carries, which pins lead to its clock, LEDs, button and UART, how its clock is made, which
//! bridge its serial line goes through, and which program writes a bitstream to it. From that follow the text that
//! the place-and-route program reads ([`Board::constraints`]) and the module around the engine ([`Board::top`]). To add a board,
//! add a file in `boards/` and name it in [`boards()`].
//! [`link`] talks to a board that runs the project's engine, real or [`simulated`].

pub mod bitstream;
mod boards;
mod constraints;
pub mod flash;
pub mod flow;
pub mod link;
mod pll;
pub mod simulated;
pub mod sizing;
mod tools;
mod top;
mod usb;

use std::fmt;

use hdl::board::BoardConfig;
use hdl::config::ArrayConfig;
use serde::{Deserialize, Serialize, Serializer};

pub use constraints::ConstraintError;
pub use pll::{MODELS, Pll, PllError};
pub use tools::ICEBOX_VLOG;
pub use top::{ENGINE, Top};
pub use usb::{UsbDevice, UsbIds, UsbName};

/// What a pin of a board is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// The board's oscillator.
    Clock,
    /// A light, counted from 0.
    Led(u8),
    /// A push button, counted from 0.
    Button(u8),
    /// Serial data from the host into the device.
    UartRx,
    /// Serial data from the device to the host.
    UartTx,
    /// An output that has to stay at its active level for the board to work, counted from 0.
    Hold(u8),
}

/// `clock`, `led0`, `button0`, `uart-rx`, `uart-tx`, `hold0`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock => f.write_str("clock"),
            Self::Led(number) => write!(f, "led{number}"),
            Self::Button(number) => write!(f, "button{number}"),
            Self::UartRx => f.write_str("uart-rx"),
            Self::UartTx => f.write_str("uart-tx"),
            Self::Hold(number) => write!(f, "hold{number}"),
        }
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The level at which a light shines or a button counts as pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    /// At 1. Also for pins that aren't active at either level, as a clock.
    High,
    /// At 0.
    Low,
}

/// The resistor inside the device that a pin is held with where nothing drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// None.
    None,
    /// To 1.
    Up,
    /// To 0.
    Down,
}

/// A pin of a board's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BoardPin {
    /// What it is for.
    pub role: Pin,
    /// The package's name of it, as the place-and-route program spells it.
    pub site: &'static str,
    /// Its active level.
    pub active: Active,
    /// What the board calls it.
    pub label: &'static str,
    /// Its electrical standard, as the constraint file spells it. iCE40's follows from the board's supply and isn't written.
    pub standard: &'static str,
    /// Its resistor.
    pub pull: Pull,
}

/// Standard of nearly all pins.
const LVCMOS33: &str = "LVCMOS33";

impl BoardPin {
    /// A pin at 3.3 V, active at 1, without a resistor.
    const fn new(role: Pin, site: &'static str, label: &'static str) -> Self {
        Self {
            role,
            site,
            active: Active::High,
            label,
            standard: LVCMOS33,
            pull: Pull::None,
        }
    }

    /// The same, active at 0.
    const fn low(self) -> Self {
        Self {
            active: Active::Low,
            ..self
        }
    }

    /// The same, with a resistor.
    const fn pulled(self, pull: Pull) -> Self {
        Self { pull, ..self }
    }

    /// The same, by another standard.
    const fn at(self, standard: &'static str) -> Self {
        Self { standard, ..self }
    }
}

/// The device families that the project builds for; each has its tools and its format of constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Lattice iCE40: `synth_ice40`, `nextpnr-ice40`, PCF, `icepack`.
    Ice40,
    /// Lattice ECP5: `synth_ecp5`, `nextpnr-ecp5`, LPF, `ecppack`.
    Ecp5,
    /// Gowin GW1N and GW2A: `synth_gowin`, `nextpnr-himbaechel-gowin`, CST, `gowin_pack`.
    Gowin,
}

impl Family {
    /// What a bitstream's file is called: its ending.
    #[must_use]
    pub const fn bitstream_extension(self) -> &'static str {
        match self {
            Self::Ice40 => "bin",
            Self::Ecp5 => "bit",
            Self::Gowin => "fs",
        }
    }

    /// What a constraint file is called: its ending.
    #[must_use]
    pub const fn constraints_extension(self) -> &'static str {
        match self {
            Self::Ice40 => "pcf",
            Self::Ecp5 => "lpf",
            Self::Gowin => "cst",
        }
    }
}

/// `ice40`, `ecp5`, `gowin`.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ice40 => "ice40",
            Self::Ecp5 => "ecp5",
            Self::Gowin => "gowin",
        })
    }
}

/// Which light shows what the engine tells of itself. A board with fewer lights shows less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StatusLights {
    /// A session is open: a host is there.
    pub ok: Option<Pin>,
    /// The engine computes.
    pub busy: Option<Pin>,
    /// A damaged frame came lately.
    pub fault: Option<Pin>,
}

/// What is between the device's serial pins and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Uart {
    /// The chip or adapter, for people.
    pub bridge: &'static str,
    /// The bridge is on the board (or the board that it is plugged into); else the two serial pins lead to a header, and an adapter for 3.3 V is needed.
    pub on_board: bool,
    /// USB interface of the bridge that carries the serial line. No meaning for an adapter.
    pub interface: u8,
    /// Rate that boards are built for unless another is asked for, in baud.
    pub baud: u32,
    /// Highest rate that the bridge is made for, in baud.
    pub max_baud: u32,
}

/// A program that writes bitstreams to boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Programmer {
    /// Project IceStorm's.
    Iceprog,
    /// openFPGALoader.
    OpenFpgaLoader,
    /// dfu-util, for boards with a bootloader.
    DfuUtil,
}

/// How a bitstream gets to one of a board's memories: the program, and the words before the bitstream's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Programming {
    /// The program.
    pub tool: Programmer,
    /// Its arguments, without those that verify.
    pub arguments: &'static [&'static str],
    /// What checks that the bitstream arrived.
    pub verification: Verification,
}

/// What checks that a bitstream arrived as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "by", content = "arguments")]
pub enum Verification {
    /// The program always reads back what it wrote.
    Always,
    /// The program reads it back with these arguments.
    Asked(&'static [&'static str]),
    /// Nothing is read back; the device, or its bootloader, checks the sums inside the bitstream when it loads it.
    Device,
}

/// What a board's engine is unless something else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EngineShape {
    /// Rows and columns of the array: the largest that `fgmp board build` gets onto the board. Simulated boards have as many.
    pub rows: usize,
    /// See `rows`.
    pub cols: usize,
    /// Lanes of a processing element: 16, or 8 where one of 16 doesn't fit.
    pub lanes: usize,
    /// Stages of a processing element.
    pub stages: usize,
    /// Blocks of a row's memory.
    pub weight_blocks: usize,
    /// Blocks of a column's memory.
    pub act_blocks: usize,
    /// With a requantizer and a quantizer; small boards leave both to the host.
    pub units: bool,
}

impl EngineShape {
    /// One processing element with memories of so many blocks, without units.
    const fn small(lanes: usize, stages: usize, blocks: usize) -> Self {
        Self {
            rows: 1,
            cols: 1,
            lanes,
            stages,
            weight_blocks: blocks,
            act_blocks: blocks,
            units: false,
        }
    }

    /// An array with units.
    const fn whole(rows: usize, cols: usize, stages: usize, blocks: usize) -> Self {
        Self {
            rows,
            cols,
            lanes: golden::format::BLOCK,
            stages,
            weight_blocks: blocks,
            act_blocks: blocks,
            units: true,
        }
    }
}

/// An FPGA board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Board {
    /// What the command line calls it.
    pub name: &'static str,
    /// Its maker's name for it.
    pub title: &'static str,
    /// Its maker.
    pub vendor: &'static str,
    /// Family of its device.
    pub family: Family,
    /// The device, by a short name: `up5k`, `85k`, `gw1nr-9`.
    pub device: &'static str,
    /// The device's package.
    pub package: &'static str,
    /// The maker's number of the part, speed grade included.
    pub part: &'static str,
    /// The device, as its bitstreams name it.
    pub configuration: bitstream::Device,
    /// Options of the family's command in yosys.
    pub yosys: &'static [&'static str],
    /// Arguments of nextpnr that choose device, package and speed grade.
    pub nextpnr: &'static [&'static str],
    /// Arguments of the program that packs the bitstream.
    pub pack: &'static [&'static str],
    /// Logic cells of the device: one four-input table and one flip-flop each.
    pub logic_cells: u32,
    /// Block memories of the device: 4 kbit each in iCE40, 18 kbit in the others.
    pub block_memories: u32,
    /// Hard multipliers of the device, 16 x 16 in iCE40, 18 x 18 in the others.
    pub multipliers: u32,
    /// Frequency of the oscillator at [`Pin::Clock`], in hertz.
    pub clock_hz: u32,
    /// Its engine.
    pub engine: EngineShape,
    /// What makes the engine's clock of it; without, the oscillator is the clock.
    pub pll: Option<Pll>,
    /// Its pins, each role and each site once.
    pub pins: &'static [BoardPin],
    /// Its lights' meaning.
    pub status: StatusLights,
    /// Its serial line.
    pub uart: Uart,
    /// The USB device that the board is programmed through.
    pub usb: UsbIds,
    /// How the device's own memory is written: lost with power. None where the board has no way.
    pub sram: Option<Programming>,
    /// How the configuration flash is written.
    pub flash: Programming,
    /// What somebody who uses the board should know.
    pub notes: &'static str,
}

/// All boards.
#[must_use]
pub fn boards() -> &'static [Board] {
    &boards::ALL
}

/// No board has the name asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no board is called `{name}`; there are: {}", names())]
pub struct UnknownBoard {
    /// The name asked for.
    pub name: String,
}

/// The names of all boards, comma-separated.
fn names() -> String {
    boards()
        .iter()
        .map(|board| board.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The board of this name, in upper or lower case.
///
/// # Errors
/// [`UnknownBoard`], which lists the names, when there is none.
pub fn board(name: &str) -> Result<&'static Board, UnknownBoard> {
    boards()
        .iter()
        .find(|board| board.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| UnknownBoard {
            name: name.to_owned(),
        })
}

/// Why a rate can't be had on a board.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaudError {
    /// The clock is too slow for it.
    #[error(
        "{baud} baud is too fast for {board}: a bit takes at least {MIN_CLOCKS_PER_BIT} cycles of its clock of {clock_hz} Hz, so at most {} baud",
        clock_hz / MIN_CLOCKS_PER_BIT
    )]
    TooFast {
        /// The board.
        board: &'static str,
        /// The rate.
        baud: u32,
        /// The engine's clock.
        clock_hz: u32,
    },
    /// The bridge is.
    #[error("{baud} baud is too fast for the {bridge} of {board}: at most {max_baud} baud")]
    Bridge {
        /// The board.
        board: &'static str,
        /// Its bridge.
        bridge: &'static str,
        /// The rate.
        baud: u32,
        /// The bridge's highest.
        max_baud: u32,
    },
    /// The clock isn't near a multiple of it.
    #[error(
        "{baud} baud can't be made from the clock of {board}, {clock_hz} Hz: the nearest rates are {above} and {below} baud"
    )]
    Uneven {
        /// The board.
        board: &'static str,
        /// The rate.
        baud: u32,
        /// The engine's clock.
        clock_hz: u32,
        /// Nearest rate above.
        above: u32,
        /// Nearest rate below.
        below: u32,
    },
}

/// Fewest clock cycles of a bit on the serial line.
pub const MIN_CLOCKS_PER_BIT: u32 = hdl::board::MIN_CLOCKS_PER_BIT as u32;

/// Largest deviation of a bit's length that is accepted, in thousandths. A frame of ten bits is sampled at its bits' middles, so that both sides together may
/// be off by 5 % of a bit's length over ten bits, less the receiver's own uncertainty of a cycle.
const BAUD_TOLERANCE: u64 = 10;

impl Board {
    /// The pin of a role, if the board has one.
    #[must_use]
    pub fn pin(&self, role: Pin) -> Option<&'static BoardPin> {
        self.pins.iter().find(|pin| pin.role == role)
    }

    /// Frequency of the engine's clock, in hertz.
    #[must_use]
    pub fn system_hz(&self) -> u32 {
        self.pll.map_or(self.clock_hz, |pll| pll.output_hz())
    }

    /// The board's engine at a rate in baud.
    ///
    /// # Errors
    /// As [`Board::clocks_per_bit`].
    pub fn engine(&self, baud: u32) -> Result<BoardConfig, BaudError> {
        let shape = self.engine;
        Ok(BoardConfig {
            array: ArrayConfig {
                rows: shape.rows,
                cols: shape.cols,
                lanes: shape.lanes,
                pipeline: shape.stages,
                weight_blocks: shape.weight_blocks,
                act_blocks: shape.act_blocks,
                ..ArrayConfig::default()
            },
            clocks_per_bit: self.clocks_per_bit(baud)?,
            requantizer: shape.units,
            quantizer: shape.units,
        })
    }

    /// Cycles of the engine's clock that a bit takes on the serial line at a rate in baud.
    ///
    /// # Errors
    /// [`BaudError`]: clock or bridge is too slow, or the clock isn't within 1 % of a multiple.
    pub fn clocks_per_bit(&self, baud: u32) -> Result<usize, BaudError> {
        let (board, clock_hz) = (self.name, self.system_hz());
        if baud > self.uart.max_baud {
            return Err(BaudError::Bridge {
                board,
                bridge: self.uart.bridge,
                baud,
                max_baud: self.uart.max_baud,
            });
        }
        let rounded = (clock_hz + baud / 2).checked_div(baud).unwrap_or(0);
        let off = u64::from((rounded * baud).abs_diff(clock_hz)) * 1000;
        if rounded < MIN_CLOCKS_PER_BIT {
            Err(BaudError::TooFast {
                board,
                baud,
                clock_hz,
            })
        } else if off > u64::from(clock_hz) * BAUD_TOLERANCE {
            let cycles = clock_hz / baud;
            Err(BaudError::Uneven {
                board,
                baud,
                clock_hz,
                above: clock_hz / cycles.max(MIN_CLOCKS_PER_BIT),
                below: clock_hz / (cycles + 1),
            })
        } else {
            Ok(rounded as usize)
        }
    }
}

/// The boards as a table in Markdown, which the documentation holds.
#[must_use]
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut text = String::from(
        "| board | what it is | device | logic cells | block memories | engine's clock | link | through | programmer |\n\
         |---|---|---|---:|---:|---|---|---|---|\n",
    );
    let millions = |number: u32| f64::from(number) / 1e6;
    for board in boards() {
        let clock = match board.pll {
            Some(_) => format!(
                "{} MHz from {}",
                millions(board.system_hz()),
                millions(board.clock_hz)
            ),
            None => format!("{} MHz", millions(board.clock_hz)),
        };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {}, {} | {} | {} | {} | {clock} | {} Mbaud, {} cycles a bit | {} | {} |",
            board.name,
            board.title,
            board.vendor,
            board.part,
            board.logic_cells,
            board.block_memories,
            millions(board.uart.baud),
            board.system_hz() / board.uart.baud,
            board.uart.bridge,
            board.flash.tool.tool().name,
        );
    }
    text
}
