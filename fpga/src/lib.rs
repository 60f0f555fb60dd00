//! Where it runs: open FPGA boards as data, and the driver that makes one of them multiply.
//!
//! A [`Board`] says which device it carries, which pins lead to its clock, LEDs, button and UART, and which program
//! writes a bitstream to it. [`Board::constraints`] turns ports of a design and roles of pins into the text that
//! the place-and-route program reads. To add a board, add a file in `boards/` and name it in [`boards`].
//! [`link`] talks to a board that runs the project's engine.

mod boards;
mod constraints;
pub mod link;
pub mod simulated;

use std::fmt;

use serde::{Serialize, Serializer};

pub use constraints::ConstraintError;

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
}

/// `clock`, `led0`, `button0`, `uart-rx`, `uart-tx`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock => f.write_str("clock"),
            Self::Led(number) => write!(f, "led{number}"),
            Self::Button(number) => write!(f, "button{number}"),
            Self::UartRx => f.write_str("uart-rx"),
            Self::UartTx => f.write_str("uart-tx"),
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
}

/// The device families that the project builds for; each has its tools and its format of constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Lattice iCE40: `synth_ice40`, `nextpnr-ice40`, PCF.
    Ice40,
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
    /// The device, as the place-and-route program's option spells it.
    pub device: &'static str,
    /// The device's package, likewise.
    pub package: &'static str,
    /// Logic cells of the device: one four-input table and one flip-flop each.
    pub logic_cells: u32,
    /// Hard 16 x 16 multipliers of the device.
    pub multipliers: u32,
    /// Frequency of the oscillator at [`Pin::Clock`], in hertz.
    pub clock_hz: u32,
    /// Its pins, each role and each site once.
    pub pins: &'static [BoardPin],
    /// Words of the command that writes a bitstream; the bitstream's path follows.
    pub programmer: &'static [&'static str],
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

impl Board {
    /// The pin of a role, if the board has one.
    #[must_use]
    pub fn pin(&self, role: Pin) -> Option<&'static BoardPin> {
        self.pins.iter().find(|pin| pin.role == role)
    }
}
