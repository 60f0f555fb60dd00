//! From ports and roles to the constraint file of a board.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::{Board, BoardPin, Family, Pin, Pull};

/// Why ports can't be placed on a board.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The board has no pin of this role.
    #[error("{board} has no {role}; it has: {available}")]
    UnknownRole {
        /// The board.
        board: &'static str,
        /// The role asked for.
        role: Pin,
        /// The roles that there are, comma-separated.
        available: String,
    },
    /// Two ports on one pin.
    #[error("ports `{first}` and `{second}` are both placed on {role}, pin {site} of {board}")]
    DuplicatePin {
        /// The board.
        board: &'static str,
        /// The role given twice.
        role: Pin,
        /// Its pin.
        site: &'static str,
        /// The port placed there first.
        first: String,
        /// The port placed there again.
        second: String,
    },
    /// One port on two pins.
    #[error("port `{port}` is placed twice, on {first} and on {second}")]
    DuplicatePort {
        /// The port.
        port: String,
        /// The role that it was given first.
        first: Pin,
        /// The role that it was given again.
        second: Pin,
    },
    /// A name that a constraint file can't hold.
    #[error(
        "`{port}` is no name of a port: expected a Verilog identifier, or a bit of one such as `led[0]`"
    )]
    PortName {
        /// The name.
        port: String,
    },
}

impl Board {
    /// The constraint file that places ports on pins: a header, then the statements of each port, in the order given. A bit of
    /// a wide port is written `led[0]`. The format is that of the device's family: PCF for iCE40, LPF for ECP5, CST for Gowin. Where the
    /// format knows frequencies, the clock's is that of the board's oscillator.
    ///
    /// # Errors
    /// [`ConstraintError`]: a role that the board hasn't got, two ports on one pin, one port on two pins, or a name that is
    /// none.
    pub fn constraints(&self, ports: &[(&str, Pin)]) -> Result<String, ConstraintError> {
        let comment = match self.family {
            Family::Gowin => "//",
            Family::Ice40 | Family::Ecp5 => "#",
        };
        let mut text = format!(
            "{comment} {} ({} {})\n",
            self.title, self.device, self.package
        );
        let mut port_at = HashMap::new();
        let mut role_of = HashMap::new();
        for &(port, role) in ports {
            if !is_port_name(port) {
                return Err(ConstraintError::PortName {
                    port: port.to_owned(),
                });
            }
            let pin = self.pin(role).ok_or_else(|| ConstraintError::UnknownRole {
                board: self.name,
                role,
                available: self
                    .pins
                    .iter()
                    .map(|pin| pin.role.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            if let Some(first) = role_of.insert(port, role) {
                return Err(ConstraintError::DuplicatePort {
                    port: port.to_owned(),
                    first,
                    second: role,
                });
            }
            if let Some(first) = port_at.insert(pin.site, port) {
                return Err(ConstraintError::DuplicatePin {
                    board: self.name,
                    role,
                    site: pin.site,
                    first: first.to_owned(),
                    second: port.to_owned(),
                });
            }
            self.place(&mut text, port, pin);
        }
        Ok(text)
    }

    /// The statements of one port.
    fn place(&self, text: &mut String, port: &str, pin: &BoardPin) {
        let site = pin.site;
        let pull = match (self.family, pin.pull) {
            (_, Pull::None) => "",
            (Family::Ice40, Pull::Up) => "-pullup yes ",
            // iCE40's pins have no resistor to 0.
            (Family::Ice40, Pull::Down) => "",
            (Family::Ecp5, Pull::Up) => " PULLMODE=UP",
            (Family::Ecp5, Pull::Down) => " PULLMODE=DOWN",
            (Family::Gowin, Pull::Up) => " PULL_MODE=UP",
            (Family::Gowin, Pull::Down) => " PULL_MODE=DOWN",
        };
        let standard = pin.standard;
        let mhz = (pin.role == Pin::Clock).then(|| f64::from(self.clock_hz) / 1e6);
        // Writing to a String can't fail.
        let _ = match self.family {
            Family::Ice40 => writeln!(text, "set_io {pull}{port} {site}"),
            Family::Ecp5 => writeln!(
                text,
                "LOCATE COMP \"{port}\" SITE \"{site}\";\nIOBUF PORT \"{port}\" IO_TYPE={standard}{pull};"
            ),
            // One statement a line: nextpnr reads no more than that.
            Family::Gowin => writeln!(
                text,
                "IO_LOC \"{port}\" {site};\nIO_PORT \"{port}\" IO_TYPE={standard}{pull};"
            ),
        };
        let _ = match (self.family, mhz) {
            (Family::Ice40, Some(mhz)) => writeln!(text, "set_frequency {port} {mhz}"),
            (Family::Ecp5, Some(mhz)) => writeln!(text, "FREQUENCY PORT \"{port}\" {mhz} MHZ;"),
            // The CST format has no frequencies.
            _ => Ok(()),
        };
    }
}

/// Whether a name is a plain Verilog identifier, with or without a bit index.
fn is_port_name(name: &str) -> bool {
    let (identifier, index) = match name.strip_suffix(']') {
        Some(open) => match open.split_once('[') {
            Some((identifier, index)) => (identifier, Some(index)),
            None => return false,
        },
        None => (name, None),
    };
    let starts = identifier.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let continues = identifier
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_');
    let indexed =
        index.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    starts && continues && indexed
}

#[cfg(test)]
mod tests {
    use super::is_port_name;

    #[test]
    fn port_names_are_identifiers_with_an_optional_bit() {
        for name in ["clk", "_x", "LED_RGB[2]", "a1", "led[10]"] {
            assert!(is_port_name(name), "{name}");
        }
        for name in [
            "",
            "1a",
            "a b",
            "a#",
            "a\nset_io b",
            "led[",
            "led]",
            "led[]",
            "led[a]",
            "[0]",
            "a[0]b",
            "a[0][1]",
            "a$0",
            "ü",
        ] {
            assert!(!is_port_name(name), "{name}");
        }
    }
}
