//! Finding the programs that the benches call.
//!
//! A program is looked for in its own environment variable (`VERILATOR`, `YOSYS`, …), on `PATH`, and in the project's
//! tool folder `.tools/bin` (of the working directory or any folder above it), in this order.

use std::path::PathBuf;

/// A program that the project calls, and what to tell somebody who hasn't got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its executable's name, for example `verilator`.
    pub name: &'static str,
    /// The environment variable that overrides where it is found.
    pub variable: &'static str,
    /// What the project needs it for.
    pub purpose: &'static str,
    /// The one command that installs it.
    pub install: &'static str,
}

/// The Verilog simulator that compiles a design to C++.
pub const VERILATOR: Tool = Tool {
    name: "verilator",
    variable: "VERILATOR",
    purpose: "simulate the emitted Verilog",
    install: "apt-get install -y verilator",
};

/// Verilator's generated makefile is run by this.
pub const MAKE: Tool = Tool {
    name: "make",
    variable: "MAKE",
    purpose: "compile Verilator's C++ model",
    install: "apt-get install -y make",
};

/// Verilator's generated C++ is compiled by this.
pub const CXX: Tool = Tool {
    name: "g++",
    variable: "CXX",
    purpose: "compile Verilator's C++ model",
    install: "apt-get install -y g++",
};

/// A program is missing: which, what for, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{tool}` was not found; it is needed to {purpose}. Install it with: {install}")]
pub struct ToolMissing {
    /// The executable that was looked for (the override's value when one was set).
    pub tool: String,
    /// What it is needed for.
    pub purpose: String,
    /// The command that installs it.
    pub install: String,
}

impl Tool {
    /// The executable's path.
    ///
    /// # Errors
    /// [`ToolMissing`] when neither the override, nor `PATH`, nor `.tools/bin` has it.
    pub fn find(&self) -> Result<PathBuf, ToolMissing> {
        let wanted = std::env::var(self.variable)
            .ok()
            .filter(|value| !value.trim().is_empty());
        self.find_as(wanted.as_deref())
    }

    /// [`Tool::find`] with the override given instead of read from the environment. A `name with spaces` is taken
    /// as a path, never split into arguments.
    ///
    /// # Errors
    /// [`ToolMissing`], as [`Tool::find`].
    pub fn find_as(&self, wanted: Option<&str>) -> Result<PathBuf, ToolMissing> {
        let name = wanted.unwrap_or(self.name);
        which::which(name)
            .ok()
            .or_else(|| project_tool(name))
            .ok_or_else(|| ToolMissing {
                tool: name.to_owned(),
                purpose: self.purpose.to_owned(),
                install: self.install.to_owned(),
            })
    }
}

/// `.tools/bin/<name>` in the working directory or the nearest folder above it that has it.
fn project_tool(name: &str) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|folder| folder.join(".tools/bin").join(name))
        .find(|path| which::which(path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_says_what_it_is_for_and_how_to_get_it() {
        let error = VERILATOR
            .find_as(Some("no-such-verilator"))
            .expect_err("this program must not exist");
        assert_eq!(error.tool, "no-such-verilator");
        let text = error.to_string();
        assert!(text.contains("simulate the emitted Verilog"), "{text}");
        assert!(text.contains("apt-get install -y verilator"), "{text}");
    }

    #[test]
    fn an_override_is_a_path_too() {
        let make = MAKE.find_as(None).expect("make is installed");
        let again = MAKE
            .find_as(make.to_str())
            .expect("the path of a found tool is found");
        assert_eq!(make, again);
    }
}
