//! From ports and roles to the constraint file of a board.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::{Board, Pin};

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
    /// The constraint file (PCF) that places ports on pins: a header and one `set_io` line a port, in the order given. A bit of
    /// a wide port is written `led[0]`.
    ///
    /// # Errors
    /// [`ConstraintError`]: a role that the board hasn't got, two ports on one pin, one port on two pins, or a name that is
    /// none.
    pub fn constraints(&self, ports: &[(&str, Pin)]) -> Result<String, ConstraintError> {
        let mut text = format!("# {} ({} {})\n", self.title, self.device, self.package);
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
            // Writing to a String can't fail.
            let _ = writeln!(text, "set_io {port} {}", pin.site);
        }
        Ok(text)
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
