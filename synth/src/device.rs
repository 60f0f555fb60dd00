//! FPGA devices: what nextpnr has to be told of each.

use std::fmt;

use serde::{Serialize, Serializer};
use testbench::tool::Tool;

use crate::nextpnr;
use crate::yosys::Target;

/// An FPGA that designs can be placed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Device {
    /// Its family.
    pub target: Target,
    /// Its name within the family, `85`.
    pub name: &'static str,
    /// Maker's name, package and speed grade.
    pub part: &'static str,
    /// The kind of cell, by nextpnr's name, that holds a table of four inputs.
    pub table_cell: &'static str,
    /// Arguments that choose it.
    pub(crate) arguments: &'static [&'static str],
    /// Pins for the harness's ports, where nextpnr doesn't choose them itself.
    pub(crate) pins: &'static [(&'static str, &'static str)],
}

/// All devices, the largest of each family first.
pub const DEVICES: [Device; 7] = [
    Device {
        target: Target::Ice40,
        name: "hx8k",
        part: "iCE40HX8K, CT256",
        table_cell: "ICESTORM_LC",
        arguments: &["--hx8k", "--package", "ct256"],
        pins: &[],
    },
    Device {
        target: Target::Ice40,
        name: "up5k",
        part: "iCE40UP5K, SG48",
        table_cell: "ICESTORM_LC",
        arguments: &["--up5k", "--package", "sg48"],
        pins: &[],
    },
    Device {
        target: Target::Ecp5,
        name: "85",
        part: "LFE5U-85F, CABGA756, speed 6",
        table_cell: "TRELLIS_COMB",
        arguments: &["--85k", "--package", "CABGA756", "--speed", "6"],
        pins: &[],
    },
    Device {
        target: Target::Ecp5,
        name: "45",
        part: "LFE5U-45F, CABGA554, speed 6",
        table_cell: "TRELLIS_COMB",
        arguments: &["--45k", "--package", "CABGA554", "--speed", "6"],
        pins: &[],
    },
    Device {
        target: Target::Ecp5,
        name: "25",
        part: "LFE5U-25F, CABGA381, speed 6",
        table_cell: "TRELLIS_COMB",
        arguments: &["--25k", "--package", "CABGA381", "--speed", "6"],
        pins: &[],
    },
    Device {
        target: Target::Gowin,
        name: "gw2a-18",
        part: "GW2AR-LV18QN88C8/I7",
        table_cell: "LUT4",
        arguments: &[
            "--device",
            "GW2AR-LV18QN88C8/I7",
            "--vopt",
            "family=GW2A-18C",
        ],
        pins: &[("clock", "4"), ("serial", "70"), ("parity", "15")],
    },
    Device {
        target: Target::Gowin,
        name: "gw1n-9",
        part: "GW1NR-LV9QN88PC6/I5",
        table_cell: "LUT4",
        arguments: &[
            "--device",
            "GW1NR-LV9QN88PC6/I5",
            "--vopt",
            "family=GW1N-9C",
        ],
        pins: &[("clock", "52"), ("serial", "18"), ("parity", "10")],
    },
];

/// The device of the tables of parts.
pub const ECP5_85: &Device = &DEVICES[2];

impl Device {
    /// The device `FAMILY:NAME`, or the largest of `FAMILY`.
    #[must_use]
    pub fn named(text: &str) -> Option<&'static Self> {
        let (family, name) = match text.split_once(':') {
            Some((family, name)) => (family, Some(name)),
            None => (text, None),
        };
        DEVICES.iter().find(|device| {
            device.target.name() == family && name.is_none_or(|name| device.name == name)
        })
    }

    /// The program that places designs on it.
    #[must_use]
    pub const fn tool(&self) -> &'static Tool {
        nextpnr::tool(self.target)
    }
}

/// `ecp5:85`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target.name(), self.name)
    }
}

/// As [`Device`]'s `Display`.
impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_its_name_and_a_family_its_largest() {
        for device in &DEVICES {
            assert_eq!(Device::named(&device.to_string()), Some(device));
        }
        assert_eq!(Device::named("ecp5"), Some(ECP5_85));
        assert_eq!(Device::named("ice40").map(|it| it.name), Some("hx8k"));
        for none in ["", "ecp5:", "ecp5:12", "generic", "ice40:85"] {
            assert_eq!(Device::named(none), None, "{none}");
        }
    }
}
