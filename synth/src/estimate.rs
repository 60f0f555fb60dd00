//! Area of an accelerator without synthesis: a linear model, fitted to accelerators that were synthesized.
//!
//! Area is a sum over the accelerator's units, and the numbers and widths of these follow from the configuration: so many processing
//! elements, decoders, banks, readers. A model has one coefficient for each such [`term`](terms), found by least squares of
//! the relative error over measured configurations. Those that come with the program are lines of a [`Store`]; the user's own
//! are added. [`Model::left_out`] tells how well it predicts what it has not seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use golden::mac::Mode;
use hdl::build::{ACCELERATOR_TOP, emit_accelerator};
use hdl::config::{ArrayConfig, Multiplier};
use hdl::emit::{Bundle, Module};
use hdl::mac::{MAX_STAGES, MIN_STAGES};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};
use serde_json::json;
use testbench::cache::digest;

use crate::asic::Goal;
use crate::energy::Report;
use crate::parallel;
use crate::store::{Entry, Store, StoreError};
use crate::table::{Spread, TableError};
use crate::yosys::{self, Hierarchy, Mapping, Multipliers, Target, cells_without};

/// Kind of the store's lines that models are fitted to.
pub const KIND: &str = "accelerator";

/// Measured configurations that come with the program, a line each as [`Store`] writes them.
const SHIPPED: &str = include_str!("../data/accelerators.jsonl");

/// What an accelerator takes of an FPGA.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Tables of four inputs, those in carry cells and distributed memories included.
    pub lut4: f64,
    /// Registers.
    pub registers: f64,
    /// Multiplier blocks.
    pub multipliers: f64,
    /// Block memories.
    pub memories: f64,
}

/// Names of the resources, in the order of [`Resources::values`].
pub const RESOURCES: [&str; 4] = ["LUT4", "registers", "multipliers", "memories"];

impl Resources {
    /// The figures, in the order of [`RESOURCES`].
    #[must_use]
    pub const fn values(&self) -> [f64; 4] {
        [self.lut4, self.registers, self.multipliers, self.memories]
    }
}

/// What a model is for: another one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Family.
    pub target: Target,
    /// What multiplications become.
    pub multipliers: Multipliers,
}

/// A measured accelerator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its configuration.
    pub config: ArrayConfig,
    /// How it was mapped.
    pub flow: Flow,
    /// What it took.
    pub resources: Resources,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    module: String,
    parameters: ArrayConfig,
    #[serde(flatten)]
    flow: Flow,
}

/// Synthesizes accelerators module by module, and adds up. Modules and accelerators that the store has are taken from there;
/// most modules are the same in many accelerators. `done` is told how many modules are mapped, and of how many.
///
/// # Errors
/// [`TableError`].
pub fn measure(
    configs: &[ArrayConfig],
    flow: Flow,
    store: &Store,
    done: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Resources>, TableError> {
    let yosys = yosys::version()?;
    let bundles: Vec<Bundle> = configs
        .iter()
        .map(|&config| emit_accelerator(config))
        .collect::<Result<_, _>>()?;
    let parts = [yosys.as_str(), flow.target.name(), flow.multipliers.name()];
    let key = |module: &Module| {
        let children = module.instances.iter().map(|(_, child)| child.as_str());
        let whole = ["module 1", module.source.as_str()];
        digest(whole.into_iter().chain(parts).chain(children))
    };
    let mut missing: Vec<(String, &Module, &Bundle)> = Vec::new();
    for bundle in &bundles {
        for module in &bundle.modules {
            let key = key(module);
            if store.get::<Resources>(&key).is_none()
                && missing.iter().all(|(known, ..)| *known != key)
            {
                missing.push((key, module, bundle));
            }
        }
    }
    let mapped = AtomicUsize::new(0);
    let results = parallel::map(&missing, |(key, module, bundle)| {
        let resources = map_module(module, bundle, flow)?;
        let subject = json!({ "module": module.name, "flow": flow });
        store.put(key.clone(), "module", subject, &resources)?;
        done(mapped.fetch_add(1, Ordering::Relaxed) + 1, missing.len());
        Ok::<(), TableError>(())
    });
    results.into_iter().collect::<Result<(), TableError>>()?;
    let mut all = Vec::new();
    for (&parameters, bundle) in configs.iter().zip(&bundles) {
        let mut sum = [0.0; 4];
        let times = bundle.instance_counts(ACCELERATOR_TOP);
        for module in &bundle.modules {
            let count = times.get(&module.name).copied().unwrap_or(0) as f64;
            let Some(resources) = store.get::<Resources>(&key(module)) else {
                continue;
            };
            for (sum, value) in sum.iter_mut().zip(resources.values()) {
                *sum += count * value;
            }
        }
        let [lut4, registers, multipliers, memories] = sum;
        let resources = Resources {
            lut4,
            registers,
            multipliers,
            memories,
        };
        let subject = Subject {
            module: ACCELERATOR_TOP.to_owned(),
            parameters,
            flow,
        };
        let text = bundle.concatenated();
        let key = digest(["accelerator 1", &text].into_iter().chain(parts));
        if store.get::<Resources>(&key).is_none() {
            store.put(key, KIND, json!(subject), &resources)?;
        }
        all.push(resources);
    }
    Ok(all)
}

/// One module, those in it left out.
fn map_module(module: &Module, bundle: &Bundle, flow: Flow) -> Result<Resources, TableError> {
    let mut children: Vec<&Module> = Vec::new();
    for (_, name) in &module.instances {
        if children.iter().all(|child| child.name != *name) {
            children.extend(bundle.modules.iter().find(|it| it.name == *name));
        }
    }
    let names: Vec<&str> = children.iter().map(|child| child.name.as_str()).collect();
    let text: String = children
        .iter()
        .map(|child| child.source.as_str())
        .chain([module.source.as_str()])
        .collect();
    let mapping = Mapping {
        hierarchy: Hierarchy::Kept,
        multipliers: flow.multipliers,
    };
    let report = cells_without(&text, &module.name, &names, flow.target, mapping)?;
    let counts = flow.target.resources();
    Ok(Resources {
        lut4: report.lut4() as f64,
        registers: report.count(counts.registers) as f64,
        multipliers: report.exactly(counts.multipliers) as f64,
        memories: report.exactly(counts.memories) as f64,
    })
}

/// The samples among a store's lines.
pub fn samples<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Sample> {
    entries
        .into_iter()
        .filter(|entry| entry.kind == KIND)
        .filter_map(|entry| {
            let subject = Subject::deserialize(&entry.subject).ok()?;
            Some(Sample {
                config: subject.parameters,
                flow: subject.flow,
                resources: Resources::deserialize(&entry.result).ok()?,
            })
        })
        .collect()
}

/// The lines of a store that comes with the program.
fn entries_of(text: &str) -> Vec<Entry> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The samples that come with the program.
#[must_use]
pub fn shipped() -> Vec<Sample> {
    samples(&entries_of(SHIPPED))
}

/// Placed processing elements that come with the program.
const SHIPPED_CLOCKS: &str = include_str!("../data/clocks.jsonl");

/// The clock of a processing element alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clock {
    /// Device, as [`crate::device::Device`] prints it.
    pub device: String,
    /// What multiplications became.
    pub multipliers: Multipliers,
    /// Its stages.
    pub stages: usize,
    /// MHz over the placer's seeds.
    pub mhz: Spread,
    /// Number of seeds.
    pub seeds: usize,
}

/// The clocks of processing elements among a store's lines.
pub fn clocks<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Clock> {
    #[derive(Deserialize)]
    struct Placed {
        part: String,
        stages: usize,
        device: String,
        multipliers: Multipliers,
    }
    let mut groups: BTreeMap<(String, bool, usize), Vec<f64>> = BTreeMap::new();
    for entry in entries.into_iter().filter(|entry| entry.kind == "routed") {
        let Ok(placed) = Placed::deserialize(&entry.subject) else {
            continue;
        };
        if let (true, Some(mhz)) = (placed.part == "pe", entry.result["mhz"].as_f64()) {
            let blocks = placed.multipliers == Multipliers::Blocks;
            let group = groups.entry((placed.device, blocks, placed.stages));
            group.or_default().push(mhz);
        }
    }
    groups
        .into_iter()
        .filter_map(|((device, blocks, stages), mhz)| {
            Some(Clock {
                device,
                multipliers: if blocks {
                    Multipliers::Blocks
                } else {
                    Multipliers::Logic
                },
                stages,
                seeds: mhz.len(),
                mhz: Spread::of(mhz)?,
            })
        })
        .collect()
}

/// The clocks that come with the program.
#[must_use]
pub fn shipped_clocks() -> Vec<Clock> {
    clocks(&entries_of(SHIPPED_CLOCKS))
}

/// Kind of the store's lines that hold measured energies.
pub const ENERGY_KIND: &str = "energy";

/// Energies that come with the program.
const SHIPPED_ENERGIES: &str = include_str!("../data/energies.jsonl");

/// What a processing element costs, as [`crate::energy::measure`] found it or between two such findings. Pairs of figures are
/// without and with glitches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairEnergy {
    /// The library.
    pub library: String,
    /// Its operating conditions.
    pub corner: String,
    /// Whose blocks ran.
    pub model: String,
    /// What the share of FP8 blocks was a share of.
    pub selection: String,
    /// What the mapping was for.
    pub goal: Goal,
    /// fF of the wire to each pin.
    pub wire_ff: f64,
    /// Whether registers that don't load are not clocked.
    pub clock_gating: bool,
    /// Stages of the processing element.
    pub stages: usize,
    /// Whether another number of stages lay on either side, and this one is the line between.
    #[serde(default)]
    pub interpolated: bool,
    /// pJ a pair by mode, weight first, then of a model at 30 % FP8.
    pub pair_pj: [[f64; 2]; 5],
    /// pJ a pair of a processing element of FP8 alone.
    pub fp8_alone_pj: [f64; 2],
}

/// Names of the streams of [`PairEnergy::pair_pj`].
pub const ENERGY_STREAMS: [&str; 5] = [
    Mode::Fp4Fp4.name(),
    Mode::Fp4Fp8.name(),
    Mode::Fp8Fp4.name(),
    Mode::Fp8Fp8.name(),
    "30 % FP8",
];

impl PairEnergy {
    /// What a measurement says, with and without gated clocks.
    #[must_use]
    pub fn of(report: &Report, goal: Goal, stages: usize) -> Vec<Self> {
        let lines = report.variants.iter().filter_map(|variant| {
            let energy = |part: &str, stream: &str| {
                let mut rows = variant.streams.iter();
                let row = rows.find(|row| row.part == part && row.stream == stream)?;
                Some([row.energy.zero_delay.median, row.energy.timed.median])
            };
            let mut pair_pj = [[0.0; 2]; 5];
            for (pair, stream) in pair_pj.iter_mut().zip(ENERGY_STREAMS) {
                *pair = energy("pe", stream)?;
            }
            Some(Self {
                library: report.library.clone(),
                corner: report.corner.clone(),
                model: report.model.clone(),
                selection: report.selection.to_owned(),
                goal,
                wire_ff: report.conditions.wire_ff_per_sink,
                clock_gating: variant.clock_gating,
                stages,
                interpolated: false,
                pair_pj,
                fp8_alone_pj: energy("fp8_pe", Mode::Fp8Fp8.name())?,
            })
        });
        lines.collect()
    }

    /// Puts it into a store, where it replaces what was measured under the same conditions before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep(&self, store: &Store) -> Result<(), StoreError> {
        let subject = json!({
            "library": self.library, "corner": self.corner, "model": self.model,
            "selection": self.selection, "goal": self.goal, "wire_ff": self.wire_ff, "clock_gating": self.clock_gating, "stages": self.stages,
        });
        let key = digest(["energy 1", &subject.to_string()]);
        store.put(key, ENERGY_KIND, subject, self)
    }

    fn same_conditions(&self, other: &Self) -> bool {
        (
            &self.library,
            &self.corner,
            &self.model,
            &self.selection,
            self.goal,
            self.wire_ff,
            self.clock_gating,
        ) == (
            &other.library,
            &other.corner,
            &other.model,
            &other.selection,
            other.goal,
            other.wire_ff,
            other.clock_gating,
        )
    }

    /// On the line to another, at `stages`.
    fn towards(&self, other: &Self, stages: usize) -> Self {
        let along = (stages - self.stages) as f64 / (other.stages - self.stages) as f64;
        let between = |a: [f64; 2], b: [f64; 2]| [0, 1].map(|i| a[i] + (b[i] - a[i]) * along);
        Self {
            stages,
            interpolated: true,
            pair_pj: [0, 1, 2, 3, 4].map(|i| between(self.pair_pj[i], other.pair_pj[i])),
            fp8_alone_pj: between(self.fp8_alone_pj, other.fp8_alone_pj),
            ..self.clone()
        }
    }
}

/// The energies among a store's lines.
pub fn energies<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<PairEnergy> {
    entries
        .into_iter()
        .filter(|entry| entry.kind == ENERGY_KIND)
        .filter_map(|entry| PairEnergy::deserialize(&entry.result).ok())
        .collect()
}

/// The energies that come with the program.
#[must_use]
pub fn shipped_energies() -> Vec<PairEnergy> {
    energies(&entries_of(SHIPPED_ENERGIES))
}

/// Energies at a number of stages, for each library and other condition that has been measured at it or on both sides of it. The
/// last measurement counts.
#[must_use]
pub fn energies_at(known: &[PairEnergy], stages: usize) -> Vec<PairEnergy> {
    let mut conditions: Vec<&PairEnergy> = Vec::new();
    for it in known {
        if conditions.iter().all(|other| !other.same_conditions(it)) {
            conditions.push(it);
        }
    }
    let found = conditions.into_iter().filter_map(|condition| {
        let of = known
            .iter()
            .rev()
            .filter(|it| it.same_conditions(condition));
        // `min_by_key` and `max_by_key` differ in which of equals they give; reversed, the last measured comes first.
        let above = of
            .clone()
            .filter(|it| it.stages >= stages)
            .min_by_key(|it| it.stages)?;
        if above.stages == stages {
            return Some(above.clone());
        }
        let below = of
            .filter(|it| it.stages < stages)
            .min_by_key(|it| stages - it.stages)?;
        Some(below.towards(above, stages))
    });
    found.collect()
}

/// A memory of `width` bits by `depth` words: block memories and tables that ECP5 holds it in. Distributed memory has cells of 4 bits by 16 words
/// that take 6 tables each; it is what yosys takes for small ones.
fn memory(width: usize, depth: usize) -> (f64, f64) {
    let blocks = [
        (36, 512),
        (18, 1024),
        (9, 2048),
        (4, 4096),
        (2, 8192),
        (1, 16384),
    ]
    .map(|(w, d)| width.div_ceil(w) * depth.div_ceil(d))
    .into_iter()
    .min()
    .unwrap_or(1);
    let tables = 6 * width.div_ceil(4) * depth.div_ceil(16);
    // One block memory is worth some twenty cells to yosys.
    if tables < 128 * blocks {
        (0.0, tables as f64)
    } else {
        (blocks as f64, 0.0)
    }
}

/// The terms of a model: name and value of each for a configuration.
#[must_use]
pub fn terms(config: ArrayConfig) -> Vec<(&'static str, f64)> {
    let (rows, cols) = (config.rows as f64, config.cols as f64);
    let pes = rows * cols;
    let blocks_multiply = f64::from(u8::from(config.multiplier == Multiplier::Dsp));
    let parallel = f64::from(u8::from(config.quantizer_lanes > 1));
    let bank = |depth: usize| {
        [64, 64, 8, 1]
            .map(|width| memory(width, 2 * depth))
            .into_iter()
            .fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    };
    let (weight_blocks, weight_tables) = bank(config.weight_blocks);
    let (act_blocks, act_tables) = bank(config.act_blocks);
    let (result_blocks, result_tables) = memory(16, config.result_elements);
    let (sensitivity_blocks, sensitivity_tables) = if config.quantizer_lanes > 1 {
        let (blocks, tables) = memory(32, 2 * config.weight_blocks);
        (4.0 * blocks, 4.0 * tables)
    } else {
        memory(32, 8 * config.weight_blocks)
    };
    let mut terms: Vec<(&'static str, f64)> = [
        "processing element of 3 stages",
        "of 4 stages",
        "of 5 stages",
        "of 6 stages",
        "of 7 stages",
        "of 8 stages",
        "of 9 stages",
    ]
    .into_iter()
    .zip(MIN_STAGES..=MAX_STAGES)
    // Each number of stages has its own places for registers.
    .map(|(name, stages)| (name, if stages == config.pipeline { pes } else { 0.0 }))
    .collect();
    terms.extend([
        ("all", 1.0),
        ("its accumulator's bits", pes * config.acc_bits() as f64),
        ("its multiplications in blocks", pes * blocks_multiply),
        ("row", rows),
        ("column", cols),
        ("weight port", config.weight_ports as f64),
        ("parallel quantizer", parallel),
        (
            "address bits",
            rows * config.weight_blocks.ilog2() as f64 + cols * config.act_blocks.ilog2() as f64,
        ),
        (
            "block memories",
            rows * weight_blocks + cols * act_blocks + result_blocks + sensitivity_blocks,
        ),
        (
            "tables of distributed memories",
            rows * weight_tables + cols * act_tables + result_tables + sensitivity_tables,
        ),
    ]);
    terms
}

/// Fitted to samples of one flow.
#[derive(Clone, Debug)]
pub struct Model {
    samples: Vec<Sample>,
    coefficients: [DVector<f64>; 4],
}

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EstimateError {
    /// Too few samples.
    #[error(
        "{have} accelerators were synthesized for {target} with multiplications in {multipliers}; a model needs {need}: fgmp estimate --measure {more} makes more"
    )]
    TooFew {
        /// Family.
        target: &'static str,
        /// What multiplications became.
        multipliers: &'static str,
        /// Samples that are there.
        have: usize,
        /// Samples that it takes.
        need: usize,
        /// The difference.
        more: usize,
    },
    /// The equations have no solution.
    #[error("the model can't be fitted: {0}")]
    Singular(&'static str),
}

impl Model {
    /// Fits a model to the samples of a flow.
    ///
    /// # Errors
    /// [`EstimateError`]: there are fewer samples than half as many again as terms.
    pub fn fit(samples: &[Sample], flow: Flow) -> Result<Self, EstimateError> {
        let mut of_flow: Vec<Sample> = Vec::new();
        // The last measurement of a configuration counts.
        for sample in samples.iter().rev().filter(|sample| sample.flow == flow) {
            if of_flow.iter().all(|known| known.config != sample.config) {
                of_flow.push(*sample);
            }
        }
        let need = terms(ArrayConfig::default()).len() * 3 / 2;
        if of_flow.len() < need {
            return Err(EstimateError::TooFew {
                target: flow.target.name(),
                multipliers: flow.multipliers.name(),
                have: of_flow.len(),
                need,
                more: need - of_flow.len(),
            });
        }
        let [lut4, registers, multipliers, memories] =
            [0, 1, 2, 3].map(|resource| solve(&of_flow, resource));
        Ok(Self {
            samples: of_flow,
            coefficients: [lut4?, registers?, multipliers?, memories?],
        })
    }

    /// What an accelerator will take.
    #[must_use]
    pub fn predict(&self, config: ArrayConfig) -> Resources {
        let values = terms(config);
        let [lut4, registers, multipliers, memories] = [0, 1, 2, 3].map(|resource: usize| {
            let sum: f64 = values
                .iter()
                .zip(self.coefficients[resource].iter())
                .map(|((_, value), coefficient)| value * coefficient)
                .sum();
            sum.max(0.0)
        });
        Resources {
            lut4,
            registers,
            multipliers: multipliers.round(),
            memories: memories.round(),
        }
    }

    /// Samples that it was fitted to.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Relative errors of LUT4 and registers when each sample in turn is predicted by the others: least, middle and largest magnitude.
    #[must_use]
    pub fn left_out(&self) -> [Option<Spread>; 2] {
        [0, 1].map(|resource: usize| {
            Spread::of(
                self.samples
                    .iter()
                    .enumerate()
                    .filter_map(|(index, sample)| {
                        let mut others = self.samples.clone();
                        others.remove(index);
                        let coefficients = solve(&others, resource).ok()?;
                        let predicted: f64 = terms(sample.config)
                            .iter()
                            .zip(coefficients.iter())
                            .map(|((_, value), coefficient)| value * coefficient)
                            .sum();
                        let measured = sample.resources.values()[resource];
                        Some((predicted / measured - 1.0).abs())
                    }),
            )
        })
    }
}

/// Least squares of the relative error, by singular values: a term that no sample varies gets no coefficient.
fn solve(samples: &[Sample], resource: usize) -> Result<DVector<f64>, EstimateError> {
    let rows: Vec<Vec<f64>> = samples
        .iter()
        .map(|sample| {
            terms(sample.config)
                .into_iter()
                .map(|(_, value)| value)
                .collect()
        })
        .collect();
    let columns = rows.first().map_or(0, Vec::len);
    let weight = |index: usize| 1.0 / samples[index].resources.values()[resource].max(1.0);
    // Terms differ by orders of magnitude; their largest values become one.
    let scales: Vec<f64> = (0..columns)
        .map(|term| {
            let largest = rows.iter().map(|row| row[term].abs()).fold(0.0, f64::max);
            if largest > 0.0 { largest } else { 1.0 }
        })
        .collect();
    let matrix = DMatrix::from_fn(samples.len(), columns, |row, term| {
        rows[row][term] / scales[term] * weight(row)
    });
    let values = DVector::from_fn(samples.len(), |row, _| {
        samples[row].resources.values()[resource] * weight(row)
    });
    let solution = matrix
        .svd(true, true)
        .solve(&values, 1e-9)
        .map_err(EstimateError::Singular)?;
    Ok(DVector::from_fn(columns, |term, _| {
        solution[term] / scales[term]
    }))
}

/// Configurations drawn at random, the same for the same seed: what models are fitted to and tried on. Multiplications of 18 × 18 bits are only
/// drawn where blocks do them; as logic they would take four times a whole element.
#[must_use]
pub fn random_configs(seed: u64, count: usize, flow: Flow) -> Vec<ArrayConfig> {
    let multipliers: &[Multiplier] = match flow.multipliers {
        Multipliers::Logic => &[Multiplier::Lut],
        Multipliers::Blocks => &[Multiplier::Lut, Multiplier::Dsp],
    };
    // SplitMix64: a stream that no library's next version changes.
    let mut state = seed;
    let mut below = move |bound: u64| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    };
    (0..count)
        .map(|_| {
            let rows = 1 + below(8) as usize;
            let ports: Vec<usize> = (1..=rows).filter(|n| rows.is_multiple_of(*n)).collect();
            ArrayConfig {
                rows,
                cols: 1 + below(8) as usize,
                max_k: 16 << below(17),
                pipeline: 3 + below(7) as usize,
                multiplier: multipliers[below(multipliers.len() as u64) as usize],
                quantizer_lanes: [1, 1, 16][below(3) as usize],
                weight_ports: ports[below(ports.len() as u64) as usize],
                weight_blocks: 8 << below(8),
                act_blocks: 8 << below(9),
                result_elements: 64 << below(9),
                ..ArrayConfig::default()
            }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        target: Target::Ecp5,
        multipliers: Multipliers::Logic,
    };

    fn made_up(config: ArrayConfig) -> Sample {
        let cost = |each: f64| {
            terms(config)
                .iter()
                .enumerate()
                .map(|(i, (_, value))| each * (1.0 + i as f64) * value)
                .sum()
        };
        Sample {
            config,
            flow: FLOW,
            resources: Resources {
                lut4: cost(3.0),
                registers: cost(1.5),
                multipliers: 0.0,
                memories: 7.0,
            },
        }
    }

    #[test]
    fn a_linear_cost_is_found_again() {
        let samples: Vec<Sample> = random_configs(1, 40, FLOW)
            .into_iter()
            .map(made_up)
            .collect();
        let model = Model::fit(&samples, FLOW).unwrap();
        for config in random_configs(2, 20, FLOW) {
            let (found, made) = (model.predict(config), made_up(config).resources);
            assert!((found.lut4 / made.lut4 - 1.0).abs() < 1e-6, "{config:?}");
            assert!((found.registers / made.registers - 1.0).abs() < 1e-6);
            assert_eq!((found.multipliers, found.memories), (0.0, 7.0));
        }
        assert!(model.left_out()[0].unwrap().max < 1e-6);
    }

    #[test]
    fn too_few_samples_are_refused_and_the_last_one_counts() {
        let few: Vec<Sample> = random_configs(1, 5, FLOW)
            .into_iter()
            .map(made_up)
            .collect();
        let error = Model::fit(&few, FLOW).unwrap_err();
        assert!(error.to_string().contains("5 accelerators"), "{error}");
        let mut twice: Vec<Sample> = random_configs(1, 40, FLOW)
            .into_iter()
            .map(made_up)
            .collect();
        let mut old = twice.clone();
        for sample in &mut old {
            sample.resources.lut4 = 1.0;
        }
        old.append(&mut twice);
        let model = Model::fit(&old, FLOW).unwrap();
        assert_eq!(model.samples().len(), 40);
        assert!(model.predict(ArrayConfig::default()).lut4 > 100.0);
    }

    fn energy(stages: usize, pj: f64) -> PairEnergy {
        PairEnergy {
            library: "lib".into(),
            corner: "typical".into(),
            model: "model".into(),
            selection: "global".into(),
            goal: Goal::Area,
            wire_ff: 2.0,
            clock_gating: false,
            stages,
            interpolated: false,
            pair_pj: [[pj, 2.0 * pj]; 5],
            fp8_alone_pj: [pj, pj],
        }
    }

    #[test]
    fn energies_lie_on_the_line_between_measurements() {
        let gated = PairEnergy {
            clock_gating: true,
            ..energy(3, 9.0)
        };
        let other_wires = PairEnergy {
            wire_ff: 10.0,
            ..energy(7, 50.0)
        };
        assert_eq!(
            energies_at(&[energy(3, 10.0), other_wires], 4),
            [],
            "no line between different conditions"
        );
        // The second measurement at seven stages counts.
        let known = [
            energy(3, 10.0),
            energy(7, 99.0),
            gated.clone(),
            energy(7, 30.0),
            energy(9, 40.0),
        ];
        let at = |stages| energies_at(&known, stages);
        assert_eq!(at(7), [energy(7, 30.0)]);
        assert_eq!(at(3), [energy(3, 10.0), gated]);
        let between = at(4);
        assert_eq!(between[0].pair_pj, [[15.0, 30.0]; 5]);
        assert!(between[0].interpolated);
        assert_eq!(between.len(), 1);
        // Nothing is known beyond the ends.
        assert!(energies_at(&known[..1], 4).is_empty());
    }

    #[test]
    fn measured_energies_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store.jsonl")).unwrap();
        energy(7, 1.0).keep(&store).unwrap();
        energy(7, 2.0).keep(&store).unwrap();
        energy(8, 3.0).keep(&store).unwrap();
        let again = Store::open(store.path()).unwrap();
        let mut found = energies(&again.entries());
        found.sort_by_key(|it| it.stages);
        assert_eq!(found, [energy(7, 2.0), energy(8, 3.0)]);
    }

    #[test]
    fn memories_are_counted_as_yosys_maps_them() {
        // From `stat` of yosys 0.23 over accelerators.
        for ((width, depth), blocks) in [
            ((64, 128), 2.0),
            ((64, 512), 2.0),
            ((8, 128), 0.0),
            ((8, 512), 1.0),
            ((1, 128), 0.0),
            ((1, 512), 1.0),
            ((16, 4096), 4.0),
            ((32, 32), 0.0),
            ((32, 64), 1.0),
            ((64, 32), 0.0),
            ((64, 64), 2.0),
            ((64, 1024), 4.0),
        ] {
            assert_eq!(memory(width, depth).0, blocks, "{width} x {depth}");
        }
    }
}
