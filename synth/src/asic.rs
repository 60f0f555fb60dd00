//! Mapping to the cells of a Liberty library: area, critical path, and proof that the cells compute what the Verilog says.
//!
//! Yosys maps, with scripts of our own for abc: its default script for Liberty spins for minutes on a flat tree of multipliers and
//! adders. The netlist has no wires, no clock tree and no floorplan.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use gates::energy::Tally;
use gates::liberty::{Direction, LibertyError, Library};
use gates::netlist::{Netlist, NetlistError, OPEN};
use gates::sim::DesignError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use testbench::tool::{Tool, ToolMissing};

use crate::yosys::{Hierarchy, YOSYS};

/// The static timing analyser.
pub const STA: Tool = Tool {
    name: "sta",
    variable: "STA",
    purpose: "analyse the timing and the power of a mapped netlist",
    install: "apt-get install -y opensta",
};

/// Abc, which decides equivalence; Debian's yosys and others' bring it under this name.
pub const ABC: Tool = Tool {
    name: "yosys-abc",
    variable: "YOSYS_ABC",
    purpose: "prove that a mapped netlist equals its Verilog",
    install: "apt-get install -y yosys",
};

/// Where Debian's package `qflow-tech-osu018` puts its library.
pub const OSU018: &str = "/usr/share/qflow/tech/osu018/osu018_stdcells.lib";
/// The same library's cells in Verilog.
pub const OSU018_VERILOG: &str = "/usr/share/qflow/tech/osu018/osu018_stdcells.v";

/// Name of the cell that gates a clock, where a library has none that yosys could take.
const GATE_CELL: &str = gates::netlist::CLOCK_GATE;

/// What abc optimises for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Few and small cells.
    #[default]
    Area,
    /// A short critical path.
    Speed,
}

impl Goal {
    const fn script(self) -> &'static str {
        match self {
            Self::Area => include_str!("area.abc"),
            Self::Speed => include_str!("speed.abc"),
        }
    }
}

/// How a module is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// What abc optimises for.
    pub goal: Goal,
    /// Whether modules stay apart while they are mapped.
    pub hierarchy: Hierarchy,
    /// Whether registers with an enable keep it, as a gate of their clock; else the enable becomes a multiplexer before the
    /// register, whose clock always runs.
    pub clock_gating: bool,
}

/// What mapping a module gave.
#[derive(Debug, Clone, Serialize)]
pub struct MappedReport {
    /// The module.
    pub top: String,
    /// The library and its corner.
    pub library: String,
    /// Its operating conditions.
    pub corner: String,
    /// How it was mapped.
    #[serde(flatten)]
    pub options: Options,
    /// Cells by kind.
    pub cells: BTreeMap<String, u64>,
    /// All cells.
    pub total: u64,
    /// Area in the library's unit, usually um2.
    pub area: f64,
    /// Area by register or module.
    pub area_by_group: BTreeMap<String, f64>,
    /// ns of the slowest path through the logic as abc computes it, without registers.
    pub abc_ns: Option<f64>,
    /// Yosys's version line.
    pub tool: String,
    /// Wall time.
    pub seconds: f64,
}

/// A mapped module.
#[derive(Debug, Clone)]
pub struct Mapped {
    /// Its figures.
    pub report: MappedReport,
    /// The netlist.
    pub netlist: Netlist,
    /// The netlist in Verilog, one net a wire.
    pub verilog: String,
    json: String,
    library: PathBuf,
}

/// Why an ASIC flow failed.
#[derive(Debug, thiserror::Error)]
pub enum AsicError {
    /// A program is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// There is no library.
    #[error("there is no Liberty library at {}; name one, or install Debian's: apt-get install -y qflow-tech-osu018", .0.display())]
    NoLibrary(PathBuf),
    /// The library has no meaning.
    #[error(transparent)]
    Liberty(#[from] LibertyError),
    /// The netlist has no meaning.
    #[error("the mapped netlist of `{top}`: {source}")]
    Netlist {
        /// The module.
        top: String,
        /// What is wrong.
        source: NetlistError,
    },
    /// The netlist can't be simulated.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// The name of a top module is no plain identifier.
    #[error("`{0}` can't be a top module's name: it must be letters, digits and _")]
    Name(String),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// A program refused its input.
    #[error("{tool} failed on `{top}`:\n{message}")]
    Failed {
        /// The program.
        tool: &'static str,
        /// The module.
        top: String,
        /// Its last lines.
        message: String,
    },
    /// A program's output isn't what this understands.
    #[error("{tool}'s output on `{top}` can't be read: {message}")]
    Output {
        /// The program.
        tool: &'static str,
        /// The module.
        top: String,
        /// What was expected.
        message: String,
    },
}

/// Debian's library, if it is installed.
///
/// # Errors
/// [`AsicError::NoLibrary`] says how to get it.
pub fn default_library() -> Result<PathBuf, AsicError> {
    let path = PathBuf::from(OSU018);
    if path.is_file() {
        Ok(path)
    } else {
        Err(AsicError::NoLibrary(path))
    }
}

/// Runs a program in a folder; its output, or its last lines as an error.
fn run(tool: &Tool, folder: &Path, arguments: &[&str], top: &str) -> Result<String, AsicError> {
    let program = tool.find()?;
    let output = Command::new(&program)
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| AsicError::File {
            path: program,
            source,
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let start = lines
        .iter()
        .position(|line| line.contains("ERROR"))
        .unwrap_or(lines.len().saturating_sub(10));
    Err(AsicError::Failed {
        tool: tool.name,
        top: top.to_owned(),
        message: lines[start..].join("\n"),
    })
}

/// A temporary folder in which every file has a name without a path: some builds of yosys see another file system.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Result<Self, AsicError> {
        tempfile::tempdir()
            .map(Self)
            .map_err(|source| AsicError::File {
                path: PathBuf::from("a temporary folder"),
                source,
            })
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> Result<(), AsicError> {
        let path = self.path().join(name);
        fs::write(&path, text).map_err(|source| AsicError::File { path, source })
    }

    fn read(&self, name: &str) -> Result<String, AsicError> {
        let path = self.path().join(name);
        fs::read_to_string(&path).map_err(|source| AsicError::File { path, source })
    }

    fn copy(&self, from: &Path, name: &str) -> Result<(), AsicError> {
        fs::copy(from, self.path().join(name))
            .map(drop)
            .map_err(|source| AsicError::File {
                path: from.to_owned(),
                source,
            })
    }
}

fn check_name(top: &str) -> Result<(), AsicError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if top.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && top.chars().all(plain) {
        Ok(())
    } else {
        Err(AsicError::Name(top.to_owned()))
    }
}

/// Registers with an enable become plain ones behind a gate of their clock.
const GATING: &str = r"
module \$_DFFE_PP_ (input D, input C, input E, output Q);
  wire gated;
  fgmp_clock_gate gate (.C(C), .E(E), .G(gated));
  \$_DFF_P_ register (.D(D), .C(gated), .Q(Q));
endmodule
module \$_DFFE_PN_ (input D, input C, input E, output Q);
  wire gated;
  fgmp_clock_gate gate (.C(C), .E(!E), .G(gated));
  \$_DFF_P_ register (.D(D), .C(gated), .Q(Q));
endmodule
";

/// What yosys has to know of the gate.
const GATE_BOX: &str =
    "(* blackbox *) module fgmp_clock_gate (input C, input E, output G); endmodule\n";

/// Maps the module `top` of a Verilog text (all modules) to a library.
///
/// # Errors
/// [`AsicError`]: a program is missing or fails, or the netlist has no meaning with this library.
pub fn map(
    text: &str,
    top: &str,
    path: &Path,
    library: &Library,
    options: Options,
) -> Result<Mapped, AsicError> {
    check_name(top)?;
    let start = Instant::now();
    let folder = Folder::new()?;
    folder.write("design.v", text)?;
    folder.write("goal.abc", options.goal.script())?;
    folder.write("gating.v", GATING)?;
    folder.write("box.v", GATE_BOX)?;
    folder.copy(path, "cells.lib")?;
    let flat = options.hierarchy == Hierarchy::Flat;
    let gating = if options.clock_gating {
        // Only whole-word enables are left as such; resets stay in the logic.
        "read_verilog box.v; dfflegalize -cell $_DFFE_PP_ x -cell $_DFF_P_ x; techmap -map gating.v; opt_clean; "
    } else {
        ""
    };
    let script = format!(
        "read_verilog design.v; hierarchy -check -top {top}; synth{} -noabc -top {top}; {gating}\
         dfflibmap -liberty cells.lib; tee -q -o abc.txt abc -liberty cells.lib -script goal.abc; \
         opt_clean -purge; write_verilog -noattr net.v",
        if flat { " -flatten" } else { "" },
    );
    let log = run(&YOSYS, folder.path(), &["-p", &script], top)?;
    // Verilog first, and the JSON from what is read back, so that names agree.
    let second = format!(
        "read_liberty -lib cells.lib; read_verilog box.v; read_verilog net.v; hierarchy -top {top}; flatten; \
         splitnets; opt_clean -purge; write_verilog -noattr flat.v; design -reset; \
         read_verilog flat.v; hierarchy -top {top}; \
         write_json net.json"
    );
    run(&YOSYS, folder.path(), &["-q", "-p", &second], top)?;
    let json = folder.read("net.json")?;
    let netlist = Netlist::parse(&json, top, library).map_err(|source| AsicError::Netlist {
        top: top.to_owned(),
        source,
    })?;
    let abc_ns = folder
        .read("abc.txt")
        .ok()
        .and_then(|text| abc_delay(&text));
    let cells = netlist.cells_by_kind();
    let report = MappedReport {
        top: top.to_owned(),
        library: library.name.clone(),
        corner: library.corner.clone(),
        options,
        total: cells.values().sum(),
        cells,
        area: netlist.area(),
        area_by_group: netlist.area_by_group(),
        abc_ns,
        tool: log
            .lines()
            .find_map(|line| {
                line.trim_matches(['|', ' '])
                    .strip_prefix("Yosys ")
                    .map(|v| format!("Yosys {v}"))
            })
            .unwrap_or_else(|| "yosys".to_owned()),
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok(Mapped {
        report,
        netlist,
        verilog: folder.read("flat.v")?,
        json,
        library: path.to_owned(),
    })
}

/// The largest `Delay = 123.45 ps` of abc's `stime`: with modules kept apart there is one for each.
fn abc_delay(text: &str) -> Option<f64> {
    text.lines()
        .filter(|line| line.contains("Gates =") && line.contains("Delay ="))
        .filter_map(|line| {
            let number = line.split("Delay =").nth(1)?.split_whitespace().next()?;
            number.parse::<f64>().ok()
        })
        .reduce(f64::max)
        .map(|ps| ps * 1e-3)
}

/// What the timing analyser says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// ns that were asked for.
    pub period_ns: f64,
    /// ns that are left on the worst path, setup time included; negative if the period is too short.
    pub slack_ns: f64,
    /// The shortest period in ns.
    pub shortest_ns: f64,
    /// Where the worst path begins.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

/// Static timing by OpenSTA at a clock period in ns: inputs arrive with the clock's edge, no wires.
///
/// # Errors
/// OpenSTA is missing, or refuses the netlist.
pub fn time(mapped: &Mapped, period_ns: f64) -> Result<Timing, AsicError> {
    let report = &mapped.report;
    let folder = mapped.for_analysis()?;
    let script = format!(
        "{}report_checks -path_delay max -digits 6\nreport_worst_slack -digits 6\n",
        mapped.analysis_start(period_ns)
    );
    folder.write("run.tcl", &script)?;
    let arguments = ["-no_init", "-no_splash", "-exit", "run.tcl"];
    let text = run(&STA, folder.path(), &arguments, &report.top)?;
    let unreadable = || AsicError::Output {
        tool: STA.name,
        top: report.top.clone(),
        message: format!("no path and slack in:\n{text}"),
    };
    let after = |label: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .map(|rest| rest.split_whitespace().next().unwrap_or("").to_owned())
    };
    let slack_ns: f64 = after("worst slack")
        .and_then(|slack| slack.parse().ok())
        .ok_or_else(unreadable)?;
    Ok(Timing {
        period_ns,
        slack_ns,
        shortest_ns: period_ns - slack_ns,
        from: after("Startpoint:").ok_or_else(unreadable)?,
        to: after("Endpoint:").ok_or_else(unreadable)?,
    })
}

/// Power by OpenSTA, in mW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Power {
    /// Within flip-flops.
    pub sequential_internal: f64,
    /// Of the nets that flip-flops drive.
    pub sequential_switching: f64,
    /// Within other cells.
    pub combinational_internal: f64,
    /// Of the nets that other cells drive.
    pub combinational_switching: f64,
    /// Of all cells at rest.
    pub leakage: f64,
}

/// Power by OpenSTA with the activities of a simulation, at a clock period in ns: a second opinion on our energies.
///
/// OpenSTA 2.0 takes activities of flip-flops as they are given, but derives those of other cells' outputs from their inputs by its own rules, so
/// that only its figures for flip-flops and leakage are about the same activities.
///
/// # Errors
/// OpenSTA is missing, or refuses the netlist.
pub fn power(mapped: &Mapped, tally: &Tally, period_ns: f64) -> Result<Power, AsicError> {
    let report = &mapped.report;
    let netlist = &mapped.netlist;
    let folder = mapped.for_analysis()?;
    let mut script = mapped.analysis_start(period_ns);
    // Activities that are set before the first report are lost.
    script += "report_power\n";
    let cycles = tally.cycles.max(1) as f64;
    let activity = |net: u32| {
        if Some(net) == netlist.clock {
            2.0
        } else {
            tally.toggles.get(net as usize).copied().unwrap_or(0) as f64 / cycles
        }
    };
    for instance in &netlist.instances {
        for (pin, &net) in netlist.cell(instance).pins.iter().zip(&instance.pins) {
            if net != OPEN && matches!(pin.direction, Direction::Input | Direction::Output) {
                // Writing to a string can't fail.
                let _ = writeln!(
                    script,
                    "sta::set_power_pin_activity [sta::get_pins {{{}/{}}}] {:.6} 0.5",
                    instance.name,
                    pin.name,
                    activity(net)
                );
            }
        }
    }
    script += "puts second\nreport_power -digits 8\n";
    folder.write("run.tcl", &script)?;
    let arguments = ["-no_init", "-no_splash", "-exit", "run.tcl"];
    let text = run(&STA, folder.path(), &arguments, &report.top)?;
    let last = text.split("second\n").last().unwrap_or("");
    let row = |label: &str| -> Option<[f64; 3]> {
        let line = last.lines().find_map(|line| line.strip_prefix(label))?;
        let words: Vec<f64> = line
            .split_whitespace()
            .take(3)
            .filter_map(|word| word.parse().ok())
            .collect();
        <[f64; 3]>::try_from(words).ok()
    };
    let rows = row("Sequential ")
        .zip(row("Combinational "))
        .zip(row("Total "));
    let Some(((sequential, combinational), total)) = rows else {
        return Err(AsicError::Output {
            tool: STA.name,
            top: report.top.clone(),
            message: format!("no power in:\n{text}"),
        });
    };
    Ok(Power {
        sequential_internal: sequential[0] * 1e3,
        sequential_switching: sequential[1] * 1e3,
        combinational_internal: combinational[0] * 1e3,
        combinational_switching: combinational[1] * 1e3,
        leakage: total[2] * 1e3,
    })
}

impl Mapped {
    /// The folder for the timing analyser.
    fn for_analysis(&self) -> Result<Folder, AsicError> {
        let folder = Folder::new()?;
        folder.copy(&self.library, "cells.lib")?;
        // OpenSTA 2.0 doesn't know signed ports.
        folder.write("net.v", &self.verilog.replace(" signed ", " "))?;
        Ok(folder)
    }

    fn analysis_start(&self, period_ns: f64) -> String {
        let clock = self.netlist.clock.and_then(|net| {
            let ports = self.netlist.inputs.iter();
            ports
                .filter(|port| port.bits.contains(&net))
                .map(|port| &port.name)
                .next()
        });
        let clock = match clock {
            Some(name) => format!("create_clock -name {name} -period {period_ns} {{{name}}}"),
            None => format!("create_clock -name clock -period {period_ns}"),
        };
        let inputs = self
            .netlist
            .inputs
            .iter()
            .filter(|port| port.bits.iter().any(|&bit| Some(bit) != self.netlist.clock));
        let inputs: Vec<String> = inputs
            .flat_map(|port| {
                (0..port.bits.len()).map(|bit| {
                    if port.bits.len() > 1 {
                        format!("{{{}[{bit}]}}", port.name)
                    } else {
                        port.name.clone()
                    }
                })
            })
            .collect();
        let name = if self.netlist.clock.is_some() {
            "[all_clocks]"
        } else {
            "clock"
        };
        format!(
            "read_liberty cells.lib\nread_verilog net.v\nlink_design {}\n{clock}\n\
             set_input_delay 0 -clock {name} [get_ports [list {}]]\n",
            self.report.top,
            inputs.join(" ")
        )
    }
}

/// What a proof was about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The module.
    pub top: String,
    /// Registers of the Verilog that the netlist has, too, each with the same next state.
    pub registers: usize,
    /// Registers of the Verilog that the netlist does without: constant, unread, or equal to another.
    pub without_partner: usize,
    /// Wall time.
    pub seconds: f64,
}

/// Proves that the mapped netlist computes what the Verilog says: both are cut at their registers, which the mapping keeps by name, and abc
/// decides whether all next states and outputs are the same functions of states and inputs.
///
/// # Errors
/// A program fails, or they differ.
pub fn prove(text: &str, mapped: &Mapped) -> Result<Proof, AsicError> {
    let top = &mapped.report.top;
    let start = Instant::now();
    let folder = Folder::new()?;
    folder.write("design.v", text)?;
    folder.copy(&mapped.library, "cells.lib")?;
    folder.write("mapped.json", &mapped.json)?;
    // Gates with a constant are folded before registers are looked for: a bit of `{a, 7'd0} | b` is the register `a` by another name.
    let gold = format!(
        "read_verilog design.v; hierarchy -check -top {top}; proc; flatten; opt_expr; memory_map; opt_clean; \
         dffunmap; techmap; simplemap; opt_expr; opt_clean; write_json gold.json"
    );
    run(&YOSYS, folder.path(), &["-q", "-p", &gold], top)?;
    let gate = format!(
        "read_liberty -ignore_miss_func cells.lib; read_json mapped.json; hierarchy -top {top}; \
         proc; flatten; dffunmap; techmap; simplemap; opt_clean; write_json gate.json"
    );
    run(&YOSYS, folder.path(), &["-q", "-p", &gate], top)?;
    let unreadable = |message: String| AsicError::Output {
        tool: YOSYS.name,
        top: top.clone(),
        message,
    };
    let mut gold = Cut::read(&folder.read("gold.json")?, top).map_err(unreadable)?;
    let mut gate = Cut::read(&folder.read("gate.json")?, top).map_err(unreadable)?;
    let mut registers = 0;
    let mut gates: HashMap<String, usize> = HashMap::new();
    for (index, register) in gate.registers.iter().enumerate() {
        for name in &register.names {
            gates.insert(name.clone(), index);
        }
    }
    let mut without_partner = 0;
    let mut seen = vec![false; gate.registers.len()];
    let pairs: Vec<Option<usize>> = gold
        .registers
        .iter()
        .map(|register| {
            let partner = register
                .names
                .iter()
                .find_map(|name| gates.get(name))
                .copied();
            partner.filter(|&p| !std::mem::replace(&mut seen[p], true))
        })
        .collect();
    for (index, partner) in pairs.into_iter().enumerate() {
        match partner {
            Some(partner) => {
                gold.cut(index, registers);
                gate.cut(partner, registers);
                registers += 1;
            }
            None => without_partner += 1,
        }
    }
    if let Some(index) = seen.iter().position(|&seen| !seen) {
        let names = gate.registers[index]
            .names
            .first()
            .cloned()
            .unwrap_or_default();
        return Err(unreadable(format!(
            "register `{names}` of the netlist is none of the Verilog"
        )));
    }
    folder.write("gold.cut.json", &gold.json())?;
    folder.write("gate.cut.json", &gate.json())?;
    for name in ["gold", "gate"] {
        // Registers without partner are gone if nothing reads them; else abc sees them as latches, and refuses.
        let script = format!(
            "read_json {name}.cut.json; hierarchy -top {top}; opt_clean -purge; opt_expr; opt_merge; opt_dff; opt_clean -purge; \
             aigmap; clean; write_aiger -symbols {name}.aig"
        );
        run(&YOSYS, folder.path(), &["-q", "-p", &script], top)?;
    }
    let verdict = run(
        &ABC,
        folder.path(),
        &["-c", "cec -n gold.aig gate.aig"],
        top,
    )?;
    if !verdict.contains("Networks are equivalent") {
        return Err(AsicError::Failed {
            tool: ABC.name,
            top: top.clone(),
            message: verdict,
        });
    }
    Ok(Proof {
        top: top.clone(),
        registers,
        without_partner,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A register of a netlist in yosys's JSON.
struct Register {
    cell: String,
    /// All names of its output, with bit numbers.
    names: Vec<String>,
    d: Value,
    q: Value,
    /// What gates its clock.
    enable: Option<Value>,
}

/// A module whose registers become ports.
struct Cut {
    top: String,
    file: Map<String, Value>,
    registers: Vec<Register>,
    ports: Map<String, Value>,
    removed: Vec<String>,
    added: Map<String, Value>,
    next_bit: u64,
}

impl Cut {
    fn read(text: &str, top: &str) -> Result<Self, String> {
        let file: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let module = &file
            .get("modules")
            .and_then(|modules| modules.get(top))
            .ok_or_else(|| format!("no module `{top}`"))?;
        let empty = Map::new();
        let object = |key: &str| module.get(key).and_then(Value::as_object).unwrap_or(&empty);
        let mut names: HashMap<u64, Vec<String>> = HashMap::new();
        let mut next_bit = 2;
        for (name, net) in object("netnames") {
            let Some(bits) = net.get("bits").and_then(Value::as_array) else {
                continue;
            };
            for (index, bit) in bits.iter().enumerate() {
                if let Some(bit) = bit.as_u64() {
                    next_bit = next_bit.max(bit + 1);
                    // A split net has its index in its name.
                    let full = if bits.len() > 1 {
                        format!("{name}[{index}]")
                    } else {
                        name.clone()
                    };
                    names.entry(bit).or_default().push(full);
                }
            }
        }
        let bit = |cell: &Value, pin: &str| cell.pointer(&format!("/connections/{pin}/0")).cloned();
        let kind = |cell: &Value| {
            cell.get("type")
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        let gates: HashMap<u64, Value> = object("cells")
            .values()
            .filter(|cell| kind(cell) == GATE_CELL)
            .filter_map(|cell| Some((bit(cell, "G")?.as_u64()?, bit(cell, "E")?)))
            .collect();
        let mut registers = Vec::new();
        let mut removed = Vec::new();
        for (name, cell) in object("cells") {
            match kind(cell).as_str() {
                GATE_CELL => removed.push(name.clone()),
                "$_DFF_P_" => {
                    let (Some(d), Some(q), Some(c)) =
                        (bit(cell, "D"), bit(cell, "Q"), bit(cell, "C"))
                    else {
                        return Err(format!("register `{name}` has no D, Q or C"));
                    };
                    registers.push(Register {
                        cell: name.clone(),
                        names: q
                            .as_u64()
                            .and_then(|q| names.get(&q).cloned())
                            .unwrap_or_default(),
                        d,
                        q,
                        enable: c.as_u64().and_then(|c| gates.get(&c).cloned()),
                    });
                }
                other if other.contains("DFF") || other.contains("DLATCH") => {
                    return Err(format!("`{name}` is a `{other}`, expected $_DFF_P_ alone"));
                }
                _ => (),
            }
        }
        Ok(Self {
            top: top.to_owned(),
            ports: object("ports").clone(),
            file,
            registers,
            removed,
            added: Map::new(),
            next_bit,
        })
    }

    /// Replaces a register by an input, its state, and an output, its next state.
    fn cut(&mut self, index: usize, number: usize) {
        let register = &self.registers[index];
        self.removed.push(register.cell.clone());
        let mut next = register.d.clone();
        if let Some(enable) = &register.enable {
            let bit = json!(self.next_bit);
            self.next_bit += 1;
            let cell = json!({
                "hide_name": 1, "type": "$_MUX_", "parameters": {}, "attributes": {},
                "port_directions": {"A": "input", "B": "input", "S": "input", "Y": "output"},
                "connections": {"A": [register.q], "B": [next], "S": [enable], "Y": [bit]},
            });
            self.added.insert(format!("enable_{number}"), cell);
            next = bit;
        }
        self.ports.insert(
            format!("state_{number:06}"),
            json!({"direction": "input", "bits": [register.q]}),
        );
        self.ports.insert(
            format!("next_{number:06}"),
            json!({"direction": "output", "bits": [next]}),
        );
    }

    fn json(mut self) -> String {
        if let Some(Value::Object(modules)) = self.file.get_mut("modules") {
            modules.retain(|name, _| *name == self.top);
            if let Some(Value::Object(module)) = modules.get_mut(&self.top) {
                if let Some(Value::Object(cells)) = module.get_mut("cells") {
                    let removed: std::collections::HashSet<&String> = self.removed.iter().collect();
                    cells.retain(|name, _| !removed.contains(name));
                    cells.extend(self.added);
                }
                // Names of inner nets would only be in the way of the ports'.
                module.insert("netnames".to_owned(), json!({}));
                module.insert("ports".to_owned(), Value::Object(self.ports));
            }
        }
        Value::Object(self.file).to_string()
    }
}
