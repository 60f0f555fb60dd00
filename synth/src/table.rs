//! The parts of a processing element, each with its bars and peers.
//!
//! Every part is mapped twice, to LUT4 alone and with multiplier blocks, in the same [`Harness`], which is included in all
//! figures. **LUT4** is what nextpnr prints as "Total LUT4s": yosys's LUT4, two for every carry cell CCU2C, and six for every
//! distributed memory DPR16X4.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hdl::build::{BuildError, emit_module};
use hdl::config::Multiplier;
use hdl::emit::{Bundle, EmitError};
use hdl::mac::Pe;
use hdl::mac::reduced::{Fp4Sum, Fp8Pe, Fp8Sum, Nvfp4Pair};
use hdl::quantizer::{ParallelQuantizer, SerialQuantizer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testbench::cache::digest;
use testbench::tool::ToolMissing;

use crate::device::{Device, ECP5_85};
use crate::harness::{Harness, TOP};
use crate::nextpnr::{self, RouteError, Routed, place_and_route_seeds};
use crate::parallel;
use crate::peers::{PEERS, Peer};
use crate::store::{Store, StoreError};
use crate::yosys::{self, Hierarchy, Mapping, Multipliers, SynthError, SynthReport, netlist};

/// Width of the accumulators, for K up to 4096.
const ACC: usize = 56;

/// What a bar bounds. Bars hold for the build without multiplier blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// LUT4, at most so many.
    Lut4,
    /// Clock in MHz, at least so high.
    Mhz,
    /// LUT4 by those of another part, at most so much.
    Ratio,
}

/// A figure to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// What is bounded.
    pub measure: Measure,
    /// The bound.
    pub bound: f64,
    /// The other part of a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<&'static str>,
}

const fn lut4(bound: f64) -> Bar {
    Bar {
        measure: Measure::Lut4,
        bound,
        to: None,
    }
}

const fn mhz(bound: f64) -> Bar {
    Bar {
        measure: Measure::Mhz,
        bound,
        to: None,
    }
}

const fn ratio(to: &'static str, bound: f64) -> Bar {
    Bar {
        measure: Measure::Ratio,
        bound,
        to: Some(to),
    }
}

/// How a figure stands to its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Reached.
    Green,
    /// Missed by at most a tenth of the bar.
    Amber,
    /// Missed by more.
    Red,
}

impl Status {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Amber => "amber",
            Self::Red => "red",
        }
    }
}

impl Bar {
    /// How a value stands to it.
    #[must_use]
    pub fn status(&self, value: f64) -> Status {
        let within = |bound: f64| match self.measure {
            Measure::Lut4 | Measure::Ratio => value <= bound,
            Measure::Mhz => value >= bound,
        };
        let tenth_off = match self.measure {
            Measure::Lut4 | Measure::Ratio => 1.1,
            Measure::Mhz => 0.9,
        };
        if within(self.bound) {
            Status::Green
        } else if within(self.bound * tenth_off) {
            Status::Amber
        } else {
            Status::Red
        }
    }
}

/// A row of the table.
pub struct Part {
    /// Its short name.
    pub name: &'static str,
    /// What it computes.
    pub title: &'static str,
    /// Stages from the register before it to the register behind it; none of a unit with streams of its own.
    pub stages: Option<usize>,
    /// What it has to reach.
    pub bars: Vec<Bar>,
    emit: Box<dyn Fn(Multipliers) -> Result<Bundle, EmitError> + Send + Sync>,
}

impl Part {
    /// A part and the module that makes it, which may be another one where there are multiplier blocks.
    pub fn new(
        name: &'static str,
        title: &'static str,
        stages: Option<usize>,
        bars: &[Bar],
        emit: impl Fn(Multipliers) -> Result<Bundle, EmitError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            title,
            stages,
            bars: bars.to_vec(),
            emit: Box::new(emit),
        }
    }
}

/// The parts, those of the processing elements with so many stages ([`hdl::mac::boundaries`]).
///
/// To add a part, add a line.
#[must_use]
pub fn parts(stages: usize) -> Vec<Part> {
    vec![
        Part::new(
            "fp4_sum",
            "FP4 x FP4, 16 lanes, exact sum",
            Some(1),
            &[lut4(650.0)],
            |_| emit_module(Fp4Sum::new(false)),
        ),
        Part::new(
            "nvfp4_pair",
            "pair of NVFP4 blocks with both scales, exact",
            Some(6),
            &[lut4(1_800.0), mhz(100.0)],
            |_| emit_module(Nvfp4Pair::new(true)),
        ),
        Part::new(
            "fp8_sum",
            "FP8 x FP8, 16 lanes, exact sum",
            Some(4),
            &[lut4(5_000.0), mhz(80.0)],
            |_| emit_module(Fp8Sum::new(true)),
        ),
        Part::new(
            "fp8_pe",
            "processing element, FP8 alone",
            Some(stages),
            &[],
            move |_| emit_module(Fp8Pe::<ACC>::new(stages)),
        ),
        Part::new(
            "pe",
            "processing element, all four modes",
            Some(stages),
            &[ratio("fp8_pe", 1.15)],
            move |multipliers| {
                let multiplier = match multipliers {
                    Multipliers::Logic => Multiplier::Lut,
                    Multipliers::Blocks => Multiplier::Dsp,
                };
                emit_module(Pe::<ACC>::new(stages, multiplier))
            },
        ),
        Part::new(
            "serial_quantizer",
            "activation quantizer, one element a cycle",
            None,
            &[lut4(1_500.0)],
            |_| emit_module(SerialQuantizer::default()),
        ),
        Part::new(
            "parallel_quantizer",
            "activation quantizer, a block of 16 a cycle",
            None,
            &[lut4(9_000.0)],
            |_| emit_module(ParallelQuantizer::default()),
        ),
    ]
}

/// One mapping of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// What multiplications became.
    pub multipliers: Multipliers,
    /// LUT4 in all.
    pub lut4: u64,
    /// Of these, tables of logic.
    pub tables: u64,
    /// Carry cells CCU2C, two LUT4 each.
    pub carry_cells: u64,
    /// Registers.
    pub registers: u64,
    /// Multiplier blocks MULT18X18D.
    pub multiplier_blocks: u64,
    /// Block memories DP16KD.
    pub memory_blocks: u64,
    /// Clock and placed cells by seed, if it was placed and routed.
    pub routed: Vec<Routed>,
    /// Yosys's version line.
    pub tool: String,
    /// Wall time.
    pub seconds: f64,
}

impl Build {
    /// The clocks of all seeds in MHz; none if it was not placed.
    #[must_use]
    pub fn clock(&self) -> Option<Spread> {
        Spread::of(self.routed.iter().map(|routed| routed.mhz))
    }
}

/// Least, middle and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the lower of the two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: *values.get((values.len() - 1) / 2)?,
            max: *values.last()?,
        })
    }
}

/// A bar and how it was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The bar.
    #[serde(flatten)]
    pub bar: Bar,
    /// What was measured; absent if that was left out.
    pub value: Option<f64>,
    /// How it stands.
    pub status: Option<Status>,
}

/// A row as measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// [`Part::name`].
    pub name: &'static str,
    /// [`Part::title`].
    pub title: &'static str,
    /// [`Part::stages`].
    pub stages: Option<usize>,
    /// LUT4 of the harness, included in the figures.
    pub harness_lut4: u64,
    /// Registers of the harness, included in the figures.
    pub harness_registers: u64,
    /// Without multiplier blocks, and with them.
    pub builds: Vec<Build>,
    /// The part's bars.
    pub bars: Vec<Verdict>,
    /// Peers.
    pub peers: Vec<Peer>,
    /// Yosys's version line.
    pub tool: String,
}

/// Why a table could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A module can't be emitted.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// A configuration can't be built.
    #[error(transparent)]
    Configuration(#[from] BuildError),
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolMissing),
    /// Yosys failed.
    #[error(transparent)]
    Synth(#[from] SynthError),
    /// Nextpnr failed.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The store of results can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A temporary folder can't be made.
    #[error("a temporary folder: {0}")]
    Folder(std::io::Error),
}

/// How parts are measured.
pub struct Options<'a> {
    /// Device that they are mapped for and placed on.
    pub device: &'static Device,
    /// Clock that the placer aims at, MHz.
    pub target_mhz: u32,
    /// Seeds of the placer; without any, parts are mapped and not placed.
    pub seeds: &'a [u32],
    /// Where results are looked for and kept.
    pub store: Option<&'a Store>,
}

/// Measures all parts, several at a time. `done` is told each part's name and mapping when it is measured.
///
/// # Errors
/// The first part that fails.
pub fn measure(
    parts: &[Part],
    options: &Options<'_>,
    done: impl Fn(&str, Multipliers) + Sync,
) -> Result<Vec<Row>, TableError> {
    let mut mappings = vec![Multipliers::Logic];
    if options.device.target.has_multiplier_switch() {
        mappings.push(Multipliers::Blocks);
    }
    let jobs: Vec<(&Part, Multipliers)> = parts
        .iter()
        .flat_map(|part| mappings.iter().map(move |&multipliers| (part, multipliers)))
        .collect();
    let failed = AtomicBool::new(false);
    let results = parallel::map(&jobs, |&(part, multipliers)| {
        // After a failure what is left would be in vain.
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = build(part, multipliers, options);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        done(part.name, multipliers);
        Some(result)
    });
    let mut rows: Vec<Row> = Vec::new();
    // Only what follows a failure is missing, so the failure is met first or among what is there.
    for ((part, _), result) in jobs.iter().zip(results) {
        let Some(result) = result else { continue };
        let (harness, build) = result?;
        match rows.iter_mut().find(|row| row.name == part.name) {
            Some(row) => row.builds.push(build),
            None => rows.push(Row {
                name: part.name,
                title: part.title,
                stages: part.stages,
                harness_lut4: harness.lut4(),
                harness_registers: harness.registers(),
                tool: build.tool.clone(),
                builds: vec![build],
                bars: Vec::new(),
                peers: PEERS
                    .into_iter()
                    .filter(|peer| peer.part == part.name)
                    .collect(),
            }),
        }
    }
    // Bars and peers' figures were taken on one device.
    if options.device == ECP5_85 {
        let judged: Vec<Vec<Verdict>> = parts
            .iter()
            .map(|part| {
                part.bars
                    .iter()
                    .map(|bar| verdict(*bar, part.name, &rows))
                    .collect()
            })
            .collect();
        for (row, verdicts) in rows.iter_mut().zip(judged) {
            row.bars = verdicts;
        }
    } else {
        for row in &mut rows {
            row.peers.clear();
        }
    }
    Ok(rows)
}

fn verdict(bar: Bar, name: &str, rows: &[Row]) -> Verdict {
    let logic = |name: &str| {
        let row = rows.iter().find(|row| row.name == name)?;
        row.builds
            .iter()
            .find(|build| build.multipliers == Multipliers::Logic)
    };
    let value = logic(name).and_then(|build| match bar.measure {
        Measure::Lut4 => Some(build.lut4 as f64),
        Measure::Mhz => build.clock().map(|clock| clock.median),
        Measure::Ratio => Some(build.lut4 as f64 / logic(bar.to?)?.lut4 as f64),
    });
    Verdict {
        bar,
        value,
        status: value.map(|value| bar.status(value)),
    }
}

/// One part in its harness, mapped one way.
///
/// # Errors
/// [`TableError`].
pub fn build(
    part: &Part,
    multipliers: Multipliers,
    options: &Options<'_>,
) -> Result<(Harness, Build), TableError> {
    let bundle = (part.emit)(multipliers)?;
    // The top stands last.
    let harness = bundle.modules.last().map(Harness::of).unwrap_or(Harness {
        text: String::new(),
        inputs: 0,
        outputs: 0,
    });
    let text = bundle.concatenated() + &harness.text;
    let subject = json!({ "part": part.name, "stages": part.stages });
    let build = implement(&text, TOP, multipliers, options, subject, |_| ())?;
    Ok((harness, build))
}

/// Maps a design flat, and places and routes it with every seed. What the store has is taken from there.
///
/// # Errors
/// [`TableError`].
pub fn implement(
    text: &str,
    top: &str,
    multipliers: Multipliers,
    options: &Options<'_>,
    mut subject: Value,
    routed: impl Fn(u32) + Sync,
) -> Result<Build, TableError> {
    let start = Instant::now();
    let device = options.device;
    let mapping = Mapping {
        hierarchy: Hierarchy::Flat,
        multipliers,
    };
    let yosys = yosys::version()?;
    let settings = [
        yosys.as_str(),
        device.target.name(),
        multipliers.name(),
        top,
        text,
    ];
    let folder = tempfile::tempdir().map_err(TableError::Folder)?;
    let file = folder.path().join("netlist.json");
    if let Value::Object(subject) = &mut subject {
        subject.insert("target".into(), json!(device.target));
        subject.insert("multipliers".into(), json!(multipliers));
    }
    let map = || netlist(text, top, device.target, mapping, &file);
    let key = digest(["mapped 1"].into_iter().chain(settings));
    let report: SynthReport = match options.store {
        Some(store) => store.get_or(key, "mapped", subject.clone(), || {
            map().map_err(TableError::from)
        })?,
        None => map()?,
    };
    let mut runs = Vec::new();
    if !options.seeds.is_empty() {
        let nextpnr = nextpnr::version(&nextpnr::find(device)?);
        if let Value::Object(subject) = &mut subject {
            subject.insert("device".into(), json!(device));
            subject.insert("target_mhz".into(), json!(options.target_mhz));
        }
        let key = |seed: u32| {
            let numbers = format!("{device} {} {seed}", options.target_mhz);
            digest(["routed 1", &nextpnr, &numbers].into_iter().chain(settings))
        };
        let known = |seed: u32| options.store?.get::<Routed>(&key(seed));
        let missing: Vec<u32> = options
            .seeds
            .iter()
            .copied()
            .filter(|&seed| known(seed).is_none())
            .collect();
        if !missing.is_empty() && !file.is_file() {
            map()?;
        }
        let fresh = place_and_route_seeds(&file, device, options.target_mhz, &missing, &routed)?;
        if let Some(store) = options.store {
            for run in &fresh {
                store.put(key(run.seed), "routed", subject.clone(), run)?;
            }
        }
        runs = options
            .seeds
            .iter()
            .filter_map(|&seed| {
                let measured = fresh.iter().find(|run| run.seed == seed).cloned();
                measured.or_else(|| known(seed))
            })
            .collect();
    }
    let resources = device.target.resources();
    Ok(Build {
        multipliers,
        lut4: report.lut4(),
        tables: report.exactly(resources.tables),
        carry_cells: report.exactly(resources.carries),
        registers: report.count(resources.registers),
        multiplier_blocks: report.exactly(resources.multipliers),
        memory_blocks: report.exactly(resources.memories),
        routed: runs,
        tool: report.tool,
        seconds: start.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_missed_by_a_tenth_or_by_more() {
        for (bar, green, amber, red) in [
            (lut4(1_000.0), 1_000.0, 1_100.0, 1_101.0),
            (mhz(100.0), 100.0, 90.0, 89.9),
            (ratio("pe", 1.0), 1.0, 1.05, 1.2),
        ] {
            assert_eq!(bar.status(green), Status::Green);
            assert_eq!(bar.status(amber), Status::Amber);
            assert_eq!(bar.status(red), Status::Red);
        }
    }

    #[test]
    fn every_peer_and_every_ratio_names_a_part() {
        let parts = parts(7);
        let known = |name: &str| parts.iter().any(|part| part.name == name);
        for peer in PEERS {
            assert!(known(peer.part), "{}", peer.part);
        }
        for bar in parts.iter().flat_map(|part| &part.bars) {
            assert!(bar.to.is_none_or(known), "{bar:?}");
        }
    }
}
