//! What a block pair, a quantized block, a layer and a model cost in energy.
//!
//! Parts are mapped to a library ([`crate::asic`]) and simulated with the blocks of a real model, as the array drives them. Each
//! figure is a bracket: without delays no glitch happens, with the library's delays and no wires' each does. All results of the netlists are compared with
//! the golden model on the way.

mod data;
mod drive;
mod report;

pub use data::Workload;
pub use report::{
    Bar, Bracket, Coefficients, CoefficientsError, LayerRow, LibraryNode, Part, Report, ShareRow,
    Spread, StreamRow, Variant,
};

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use gates::energy::{Conditions, Energy, Tally};
use gates::liberty::Library;
use gates::sim::{Design, Timed, ZeroDelay};
use golden::mac::Mode;
use golden::model::{ModelError, QuantizedModelError};
use hdl::build::emit_module;
use hdl::config::Multiplier;
use hdl::decoder::BlockDecoder;
use hdl::emit::{Bundle, EmitError};
use hdl::mac::Pe;
use hdl::mac::reduced::{Fp8Pe, Nvfp4Pair};
use hdl::quantizer::{ParallelQuantizer, SerialQuantizer};
use rayon::prelude::*;

use crate::asic::{self, AsicError, Mapped};
use data::{Blocks, Sample};
use drive::{Bench, Harness};

/// Width of the accumulators, for K up to 4096.
const ACC: usize = 56;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The library.
    pub liberty: PathBuf,
    /// What abc optimises for.
    pub goal: asic::Goal,
    /// With gated clocks, without, or both.
    pub clock_gating: Vec<bool>,
    /// Wires, slews, loads. The period counts only where `period_ns` says so.
    pub conditions: Conditions,
    /// Clock period in ns; the part's own critical path if absent.
    pub period_ns: Option<f64>,
    /// Stages of the processing elements.
    pub stages: usize,
    /// Rows of the array: how many elements share an activation block.
    pub rows: usize,
    /// Columns of the array: how many elements share a weight block.
    pub cols: usize,
    /// Tokens that share one reading of the weights from DRAM.
    pub batch: usize,
    /// Repetitions on other slices of the data.
    pub seeds: usize,
    /// Cycles of the 64 streams without delays.
    pub cycles: usize,
    /// Streams that run with delays.
    pub timed_streams: u32,
    /// Cycles of each.
    pub timed_cycles: usize,
    /// Shares of FP8 blocks, both sides, 0 to 1.
    pub shares: Vec<f64>,
    /// Also the quantizer that takes a block a cycle, whose mapping takes minutes.
    pub parallel_quantizer: bool,
    /// What memory costs.
    pub coefficients: Coefficients,
}

impl Options {
    /// The defaults with this library.
    ///
    /// # Errors
    /// The coefficients that come with the program are broken.
    pub fn new(liberty: PathBuf) -> Result<Self, CoefficientsError> {
        Ok(Self {
            liberty,
            goal: asic::Goal::Area,
            clock_gating: vec![false, true],
            conditions: Conditions::default(),
            period_ns: None,
            stages: 7,
            rows: 8,
            cols: 8,
            batch: 64,
            seeds: 5,
            cycles: 64,
            timed_streams: 4,
            timed_cycles: 64,
            shares: (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect(),
            parallel_quantizer: true,
            coefficients: Coefficients::embedded()?,
        })
    }
}

/// Why energy can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum EnergyError {
    /// Mapping, or the library.
    #[error(transparent)]
    Asic(#[from] AsicError),
    /// A module can't be emitted.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The model can't run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model can't be quantized.
    #[error(transparent)]
    Quantized(#[from] QuantizedModelError),
    /// The netlist computed something else than the golden model.
    #[error(
        "{part}, cycle {cycle}, stream {stream}: `{port}` should be {expected:#x}, the netlist has {found:#x}"
    )]
    Mismatch {
        /// The part.
        part: &'static str,
        /// When.
        cycle: usize,
        /// In which stream.
        stream: u32,
        /// Which output.
        port: &'static str,
        /// By the golden model.
        expected: u128,
        /// By the netlist.
        found: u128,
    },
    /// A part lacks a port.
    #[error("{part}: the netlist has no port `{port}`")]
    Port {
        /// The part.
        part: &'static str,
        /// The port.
        port: String,
    },
    /// Options without meaning.
    #[error("{what}: expected {expected}, found {found}")]
    Option {
        /// Which.
        what: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
}

impl From<gates::liberty::LibertyError> for EnergyError {
    fn from(error: gates::liberty::LibertyError) -> Self {
        Self::Asic(error.into())
    }
}

impl From<gates::sim::DesignError> for EnergyError {
    fn from(error: gates::sim::DesignError) -> Self {
        Self::Asic(error.into())
    }
}

/// A part to map.
struct Plan {
    name: &'static str,
    harness: Harness,
    bundle: Bundle,
}

fn plans(options: &Options) -> Result<Vec<Plan>, EmitError> {
    let plan = |name, harness, bundle: Bundle| Plan {
        name,
        harness,
        bundle,
    };
    let stages = options.stages;
    let mut plans = Vec::new();
    // The longest to map goes first.
    if options.parallel_quantizer {
        let bundle = emit_module(ParallelQuantizer::default())?;
        plans.push(plan("parallel_quantizer", Harness::Parallel, bundle));
    }
    let bundle = emit_module(Pe::<ACC>::new(stages, Multiplier::Lut))?;
    plans.push(plan("pe", Harness::Pe { stages }, bundle));
    let bundle = emit_module(Fp8Pe::<ACC>::new(stages))?;
    plans.push(plan("fp8_pe", Harness::Fp8Pe { stages }, bundle));
    let bundle = emit_module(SerialQuantizer::default())?;
    plans.push(plan("serial_quantizer", Harness::Serial, bundle));
    let bundle = emit_module(Nvfp4Pair::new(true))?;
    plans.push(plan("nvfp4_pair", Harness::Nvfp4, bundle));
    let bundle = emit_module(BlockDecoder::default())?;
    plans.push(plan("decoder", Harness::Decoder, bundle));
    Ok(plans)
}

/// One netlist, ready to run.
struct Ready {
    name: &'static str,
    harness: Harness,
    gated: bool,
    mapped: Mapped,
    conditions: Conditions,
}

/// A stream to run on a part.
struct Job<'a> {
    ready: &'a Ready,
    name: String,
    weights: &'a Blocks,
    acts: &'a Blocks,
}

/// What one seed of a stream gave.
struct Run {
    zero: Tally,
    timed: Tally,
}

/// Maps the parts and measures them on a model.
///
/// `progress` is told, from any thread, how many of how many steps are done.
///
/// # Errors
/// [`EnergyError`]: a program or the library is missing, options have no meaning, or a netlist computes something else than the
/// golden model.
pub fn measure(
    workload: &Workload<'_>,
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, EnergyError> {
    check(options)?;
    let library = Library::open(&options.liberty)?;
    let plans = plans(options)?;
    let gatings: Vec<bool> = {
        let mut all = options.clock_gating.clone();
        all.dedup();
        all
    };
    // A share's streams on each variant, four pure modes, and the other parts.
    let steps = gatings.len() * (plans.len() + (options.shares.len() + 9) * options.seeds);
    let done = AtomicUsize::new(0);
    let step = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, steps);

    let wanted: Vec<(&Plan, bool)> = plans
        .iter()
        .flat_map(|plan| gatings.iter().map(move |&gated| (plan, gated)))
        .collect();
    let ready: Vec<Ready> = wanted
        .into_par_iter()
        .with_max_len(1)
        .map(|(plan, gated)| {
            let mapping = asic::Options {
                goal: options.goal,
                clock_gating: gated,
                ..asic::Options::default()
            };
            let text = plan.bundle.concatenated();
            let mapped = asic::map(&text, &plan.bundle.top, &options.liberty, &library, mapping)?;
            let mut conditions = options.conditions;
            conditions.period_ns = match options.period_ns {
                Some(period) => period,
                None => Design::new(&mapped.netlist, conditions)?.critical_path_ns(),
            };
            step();
            Ok(Ready {
                name: plan.name,
                harness: plan.harness,
                gated,
                mapped,
                conditions,
            })
        })
        .collect::<Result<_, EnergyError>>()?;

    let sample = Sample::new(workload)?;
    let fp4 = sample.blocks(workload, 0.0)?;
    let fp8 = sample.blocks(workload, 1.0)?;
    let mixed = options
        .shares
        .iter()
        .map(|&share| sample.blocks(workload, share))
        .collect::<Result<Vec<_>, _>>()?;
    let at_30 = sample.blocks(workload, 0.3)?;

    let basis = report::Basis {
        options,
        library: &library,
        sample: &sample,
        mixed: &mixed,
        fp8: &fp8,
        at_30: &at_30,
    };
    let mut variants = Vec::new();
    for gated in gatings {
        let mut jobs = Vec::new();
        for ready in ready.iter().filter(|ready| ready.gated == gated) {
            let mut job = |name: String, weights, acts| {
                jobs.push(Job {
                    ready,
                    name,
                    weights,
                    acts,
                });
            };
            match ready.harness {
                Harness::Pe { .. } => {
                    for mode in Mode::ALL {
                        let of = |is_fp8: bool| if is_fp8 { &fp8 } else { &fp4 };
                        let [weight, act] = mode.tags();
                        job(mode.name().to_owned(), of(weight), of(act));
                    }
                    for (share, blocks) in options.shares.iter().zip(&mixed) {
                        job(share_name(*share), blocks, blocks);
                    }
                }
                Harness::Fp8Pe { .. } => job(Mode::Fp8Fp8.name().to_owned(), &fp8, &fp8),
                Harness::Nvfp4 => job(Mode::Fp4Fp4.name().to_owned(), &fp4, &fp4),
                Harness::Serial | Harness::Parallel => job(share_name(0.3), &at_30, &at_30),
                Harness::Decoder => {
                    job(share_name(0.3), &at_30, &at_30);
                    job(share_name(1.0), &fp8, &fp8);
                }
            }
        }
        let rows: Vec<(StreamRow, &'static str)> = jobs
            .par_iter()
            .with_max_len(1)
            .map(|job| {
                let runs = (0..options.seeds)
                    .map(|seed| {
                        let run = run(job, &sample, options, seed)?;
                        step();
                        Ok(run)
                    })
                    .collect::<Result<Vec<Run>, EnergyError>>()?;
                Ok((stream_row(job, &runs), job.ready.name))
            })
            .collect::<Result<_, EnergyError>>()?;
        let parts = ready
            .iter()
            .filter(|ready| ready.gated == gated)
            .map(|ready| Part {
                name: ready.name,
                mapped: ready.mapped.report.clone(),
                critical_path_ns: ready.conditions.period_ns,
                clock_gates: ready.mapped.netlist.clock_gates.len(),
            })
            .collect();
        let streams = rows.into_iter().map(|(row, _)| row).collect();
        variants.push(report::variant(gated, parts, streams, &basis));
    }
    progress(steps, steps);
    Ok(Report {
        model: workload.name.clone(),
        tokens: workload.tokens.len(),
        selection: workload.selection.name(),
        library: library.name.clone(),
        corner: library.corner.clone(),
        voltage: library.voltage,
        conditions: options.conditions,
        array: [options.rows, options.cols],
        batch: options.batch,
        seeds: options.seeds,
        coefficients: options.coefficients.clone(),
        memory_scale: options.coefficients.scale(&library),
        variants,
    })
}

fn check(options: &Options) -> Result<(), EnergyError> {
    let wrong = |what, expected, found| {
        Err(EnergyError::Option {
            what,
            expected,
            found,
        })
    };
    for (what, found) in [
        ("seeds", options.seeds),
        ("cycles", options.cycles),
        ("timed cycles", options.timed_cycles),
        ("rows", options.rows),
        ("columns", options.cols),
        ("batch", options.batch),
        ("variants", options.clock_gating.len()),
    ] {
        if found == 0 {
            return wrong(what, "at least 1", 0.0);
        }
    }
    if !(1..=64).contains(&options.timed_streams) {
        return wrong("timed streams", "1 to 64", f64::from(options.timed_streams));
    }
    if let Some(&share) = options.shares.iter().find(|s| !(0.0..=1.0).contains(*s)) {
        return wrong("share", "0 to 1", share);
    }
    Ok(())
}

/// How reports call a stream with this share of FP8 blocks on both sides.
fn share_name(share: f64) -> String {
    format!("{:.0} % FP8", share * 100.0)
}

fn run(job: &Job<'_>, sample: &Sample, options: &Options, seed: usize) -> Result<Run, EnergyError> {
    let ready = job.ready;
    let netlist = &ready.mapped.netlist;
    let design = Design::new(netlist, ready.conditions)?;
    let slots = ready.harness.cycles_per_unit();
    let bench = Bench::new(
        ready.name,
        ready.harness,
        netlist,
        sample,
        job.weights,
        job.acts,
        (seed, options.seeds),
        options.cycles.max(options.timed_cycles) * slots,
    )?;
    let warm = ready.harness.warm_up();
    let mut simulation = ZeroDelay::new(&design);
    for cycle in 0..warm + options.cycles * slots {
        if cycle == warm {
            simulation.clear();
        }
        simulation.cycle(bench.inputs(cycle));
        for stream in 0..64 {
            bench.check(cycle, stream, |port| simulation.output(port, stream))?;
        }
    }
    let zero = simulation.tally().clone();
    let mut timed: Option<Tally> = None;
    for stream in 0..options.timed_streams {
        let mut simulation = Timed::new(&design);
        for cycle in 0..warm + options.timed_cycles * slots {
            if cycle == warm {
                simulation.clear();
            }
            simulation.cycle(bench.inputs(cycle), stream);
            bench.check(cycle, stream, |port| simulation.output(port))?;
        }
        match &mut timed {
            Some(sum) => sum.add(simulation.tally()),
            None => timed = Some(simulation.tally().clone()),
        }
    }
    Ok(Run {
        timed: timed.unwrap_or_else(|| zero.clone()),
        zero,
    })
}

fn stream_row(job: &Job<'_>, runs: &[Run]) -> StreamRow {
    let slots = job.ready.harness.cycles_per_unit() as f64;
    let spread = |pick: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(pick).collect());
    let total = |tally: &Tally| tally.per_cycle().total() * slots;
    let mean = |pick: &dyn Fn(&Run) -> Energy| {
        let mut sum = Energy::default();
        for run in runs {
            sum += pick(run);
        }
        sum.times(1.0 / runs.len().max(1) as f64)
    };
    let groups = &job.ready.mapped.netlist.groups;
    let names = groups
        .iter()
        .map(String::as_str)
        .chain(["(inputs and clock)"]);
    let by_group = names
        .enumerate()
        .map(|(index, name)| {
            let of = |run: &Run| {
                let tally = &run.timed;
                let energy = tally.groups.get(index).copied().unwrap_or_default();
                energy.times(slots / tally.cycles.max(1) as f64)
            };
            (name.to_owned(), mean(&of))
        })
        .filter(|(_, energy)| energy.total() > 0.0)
        .collect();
    StreamRow {
        part: job.ready.name,
        stream: job.name.clone(),
        unit: job.ready.harness.unit(),
        units_zero_delay: runs
            .iter()
            .map(|r| (r.zero.cycles as f64 / slots) as u64)
            .sum(),
        units_timed: runs
            .iter()
            .map(|r| (r.timed.cycles as f64 / slots) as u64)
            .sum(),
        energy: Bracket {
            zero_delay: spread(&|run| total(&run.zero)),
            timed: spread(&|run| total(&run.timed)),
        },
        by_seed: runs
            .iter()
            .map(|run| [total(&run.zero), total(&run.timed)])
            .collect(),
        zero_delay: mean(&|run| run.zero.per_cycle().times(slots)),
        timed: mean(&|run| run.timed.per_cycle().times(slots)),
        toggles: [
            runs.iter()
                .map(|r| r.zero.toggles_per_cycle() * slots)
                .sum::<f64>()
                / runs.len().max(1) as f64,
            runs.iter()
                .map(|r| r.timed.toggles_per_cycle() * slots)
                .sum::<f64>()
                / runs.len().max(1) as f64,
        ],
        by_group,
    }
}
