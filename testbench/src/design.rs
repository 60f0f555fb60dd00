//! The design under test: Verilog text, the name of its top module, and the top's ports.

use std::fmt;

/// Whether the design reads a port or drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Driven by the bench.
    Input,
    /// Driven by the design.
    Output,
}

/// One port of the top module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its name in the Verilog text.
    pub name: String,
    /// Width in bits, at least 1.
    pub width: usize,
    /// Who drives it.
    pub direction: Direction,
}

impl Port {
    /// A port that the bench drives, `width` bits wide.
    pub fn input(name: impl Into<String>, width: usize) -> Self {
        Self {
            name: name.into(),
            width,
            direction: Direction::Input,
        }
    }

    /// A port that the design drives, `width` bits wide.
    pub fn output(name: impl Into<String>, width: usize) -> Self {
        Self {
            name: name.into(),
            width,
            direction: Direction::Output,
        }
    }

    /// 64-bit words that hold a value of this port, least significant word first.
    pub fn words(&self) -> usize {
        self.width.div_ceil(64)
    }

    /// The bits of the most significant word that belong to the port.
    pub fn top_word_mask(&self) -> u64 {
        match self.width % 64 {
            0 => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }
}

/// A port's place in [`Design::ports`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub usize);

/// One Verilog source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// File name without folders, for example `pe.v`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Everything a simulator needs to know about a design.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Design {
    /// Name of the top module.
    pub top: String,
    /// Its sources; a module may use one of a later file.
    pub sources: Vec<SourceFile>,
    /// The top module's ports. [`PortId`] counts in this order.
    pub ports: Vec<Port>,
}

/// A port that was asked for by name isn't there, or points the other way, or has another width.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No port of this name.
    #[error("the design has no port `{name}`; it has: {available}")]
    Missing {
        /// The name asked for.
        name: String,
        /// All names, comma-separated.
        available: String,
    },
    /// The port has the other direction.
    #[error("port `{name}` is an {found}, an {expected} is needed")]
    Direction {
        /// The port.
        name: String,
        /// What the bench needs.
        expected: Direction,
        /// What the design has.
        found: Direction,
    },
    /// The port has another width.
    #[error("port `{name}` is {found} bits wide, {expected} are needed")]
    Width {
        /// The port.
        name: String,
        /// Bits that the bench needs.
        expected: usize,
        /// Bits that the design has.
        found: usize,
    },
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// Finds ports by name in any list of ports.
pub trait PortLookup {
    /// The ports in [`PortId`] order.
    fn port_list(&self) -> &[Port];

    /// The port called `name`, if there is one.
    fn find_port(&self, name: &str) -> Option<PortId> {
        self.port_list()
            .iter()
            .position(|port| port.name == name)
            .map(PortId)
    }

    /// The port called `name`, which must have this direction and, when `width` is given, this width in bits.
    ///
    /// # Errors
    /// [`PortError`] when it is missing or different.
    fn port(
        &self,
        name: &str,
        direction: Direction,
        width: Option<usize>,
    ) -> Result<PortId, PortError> {
        let id = self.find_port(name).ok_or_else(|| PortError::Missing {
            name: name.to_owned(),
            available: self
                .port_list()
                .iter()
                .map(|port| port.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        let port = &self.port_list()[id.0];
        if port.direction != direction {
            return Err(PortError::Direction {
                name: name.to_owned(),
                expected: direction,
                found: port.direction,
            });
        }
        match width {
            Some(expected) if expected != port.width => Err(PortError::Width {
                name: name.to_owned(),
                expected,
                found: port.width,
            }),
            _ => Ok(id),
        }
    }
}

impl PortLookup for Design {
    fn port_list(&self) -> &[Port] {
        &self.ports
    }
}

impl PortLookup for [Port] {
    fn port_list(&self) -> &[Port] {
        self
    }
}

impl Design {
    /// All sources as one text, in order.
    pub fn concatenated(&self) -> String {
        self.sources
            .iter()
            .flat_map(|file| [file.text.as_str(), "\n"])
            .collect()
    }
}

impl From<&hdl::emit::Port> for Port {
    fn from(port: &hdl::emit::Port) -> Self {
        Self {
            name: port.name.clone(),
            width: port.width,
            direction: match port.direction {
                hdl::emit::Direction::Input => Direction::Input,
                hdl::emit::Direction::Output => Direction::Output,
            },
        }
    }
}

impl From<&hdl::emit::Bundle> for Design {
    fn from(bundle: &hdl::emit::Bundle) -> Self {
        Self {
            top: bundle.top.clone(),
            sources: bundle
                .modules
                .iter()
                .map(|module| SourceFile {
                    name: format!("{}.v", module.name),
                    text: module.source.clone(),
                })
                .collect(),
            ports: bundle.top_module().ports.iter().map(Port::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_masks_follow_the_width() {
        for (width, words, mask) in [
            (1, 1, 1),
            (63, 1, u64::MAX >> 1),
            (64, 1, u64::MAX),
            (65, 2, 1),
            (137, 3, 0x1ff),
        ] {
            let port = Port::input("x", width);
            assert_eq!((port.words(), port.top_word_mask()), (words, mask));
        }
    }

    #[test]
    fn a_port_is_found_only_with_the_right_direction_and_width() {
        let ports = [Port::input("a", 8), Port::output("y", 3)];
        assert_eq!(ports.port("y", Direction::Output, Some(3)), Ok(PortId(1)));
        assert!(matches!(
            ports.port("y", Direction::Input, None),
            Err(PortError::Direction { .. })
        ));
        assert!(matches!(
            ports.port("a", Direction::Input, Some(9)),
            Err(PortError::Width { found: 8, .. })
        ));
        let error = ports
            .port("b", Direction::Input, None)
            .expect_err("no such port");
        assert!(error.to_string().contains("a, y"));
    }
}
