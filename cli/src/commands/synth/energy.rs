//! `fgmp synth --energy`: what block pairs, quantized blocks, layers and a model cost.

use std::time::Instant;

use anyhow::bail;
use gates::liberty::Library;
use golden::Selection;
use golden::model::LanguageModel;
use hdl::config::ArrayConfig;
use serde::Serialize;
use synth::asic::default_library;
use synth::energy::{Coefficients, Options, Report, Variant, Workload, measure};
use synth::estimate::PairEnergy;
use synth::store::Store;

use super::asic::goal;
use crate::arguments::{AsicArguments, ModelArguments};
use crate::model::Prepared;
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Json<'a> {
    parameters: ArrayConfig,
    seconds: f64,
    #[serde(flatten)]
    report: &'a Report,
}

/// Runs the command.
pub fn run(
    arguments: &AsicArguments,
    selection: Selection,
    seeds: Option<u32>,
    config: ArrayConfig,
    store: &Store,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let liberty = match &arguments.liberty {
        Some(path) => path.clone(),
        None => default_library()?,
    };
    // What is wrong is said at once, not after a minute of calibration.
    Library::open(&liberty)?;
    synth::yosys::YOSYS.find()?;
    let start = Instant::now();
    let prepared = Prepared::open(arguments.model.as_deref(), &ModelArguments::default())?;
    let calibrated = prepared.calibrate(output)?;
    let tokens = prepared.reader.read("test")?;
    let context = prepared.model.trunk().config().context;
    if arguments.tokens > context.min(tokens.len()) {
        bail!(
            "--tokens {}: the model's context is {context} tokens",
            arguments.tokens
        );
    }
    let mut options = Options::new(liberty)?;
    options.goal = goal(arguments.goal);
    options.conditions.wire_ff_per_sink = arguments.wire_ff;
    options.stages = config.pipeline;
    options.rows = config.rows;
    options.cols = config.cols;
    options.batch = arguments.batch;
    options.seeds = seeds.unwrap_or(5) as usize;
    options.parallel_quantizer = !arguments.no_parallel_quantizer;
    if let Some(path) = &arguments.memory {
        options.coefficients = Coefficients::open(path)?;
    }
    let workload = Workload {
        name: prepared.name.clone(),
        model: &prepared.model,
        calibration: &calibrated.calibration,
        selection,
        tokens: &tokens[..arguments.tokens],
    };
    let progress = output.progress("mapping and simulating", 1);
    let report = measure(&workload, &options, &|done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
    })?;
    progress.finish_and_clear();
    for energy in PairEnergy::of(&report, options.goal, options.stages) {
        energy.keep(store)?;
    }
    let seconds = start.elapsed().as_secs_f64();

    for variant in &report.variants {
        print(variant, output);
    }
    output.line(format!(
        "{} ({}, {} V); {}, {} tokens, selection {}, {} slices; {} fF a pin for wires; array {} x {}, weights read once for {} tokens; in {seconds:.0} s",
        report.library,
        report.corner,
        report.voltage,
        report.model,
        report.tokens,
        report.selection,
        report.seeds,
        report.conditions.wire_ff_per_sink,
        report.array[0],
        report.array[1],
        report.batch,
    ));
    output.line(format!(
        "memory: {} (buffer x {:.1} for the library's node)",
        report.coefficients.name, report.memory_scale
    ));
    output.line("a..b: without glitches..with the library's delays; pJ; not in it: clock tree, placed wires");
    output.json(&Json {
        parameters: config,
        seconds,
        report: &report,
    })?;
    Ok(Outcome::Done)
}

fn range(value: [f64; 2]) -> String {
    format!("{:.1}..{:.1}", value[0], value[1])
}

fn percent_range(value: [f64; 2]) -> String {
    format!("{:.1}..{:.1} %", value[0] * 100.0, value[1] * 100.0)
}

fn print(variant: &Variant, output: &Output) {
    output.line(if variant.clock_gating {
        "with gated clocks: a register that doesn't load is not clocked"
    } else {
        "without gated clocks: every register is clocked in every cycle"
    });
    let rows: Vec<Vec<String>> = variant
        .parts
        .iter()
        .map(|part| {
            vec![
                part.name.to_owned(),
                count(part.mapped.total),
                format!("{:.0}", part.mapped.area),
                format!("{:.2}", part.critical_path_ns),
                part.clock_gates.to_string(),
            ]
        })
        .collect();
    output.table(&["part", "cells", "area", "path ns", "clock gates"], &rows);
    let rows: Vec<Vec<String>> = variant
        .streams
        .iter()
        .map(|row| {
            let energy = row.energy;
            let medians = [energy.zero_delay.median, energy.timed.median];
            vec![
                row.part.to_owned(),
                row.stream.clone(),
                row.unit.to_owned(),
                range(medians),
                range([energy.zero_delay.min, energy.zero_delay.max]),
                range([energy.timed.min, energy.timed.max]),
                range([row.zero_delay.internal, row.timed.internal]),
                range([row.zero_delay.switching, row.timed.switching]),
                format!("{:.1}", row.timed.clock),
                count(row.units_zero_delay),
                count(row.units_timed),
            ]
        })
        .collect();
    output.table(
        &[
            "part",
            "stream",
            "unit",
            "pJ",
            "min..max",
            "min..max (glitches)",
            "internal",
            "switching",
            "clock",
            "units",
            "units (glitches)",
        ],
        &rows,
    );
    let rows: Vec<Vec<String>> = variant
        .shares
        .iter()
        .map(|row| {
            vec![
                format!("{:.0} %", row.share * 100.0),
                percent_range(row.fp8_blocks),
                percent_range([row.modes[2] + row.modes[3], row.modes[1] + row.modes[3]]),
                range(row.datapath),
                range(row.decoder),
                range(row.quantizer),
                format!("{:.1}", row.buffer),
                format!("{:.1}", row.dram),
                range(row.total),
                percent_range(row.datapath_saving),
                percent_range(row.total_saving),
                percent_range(row.same_machine_saving),
            ]
        })
        .collect();
    output.table(
        &[
            "FP8",
            "FP8 blocks: weights..activations",
            "pairs with FP8 weight..activation",
            "datapath",
            "decoder",
            "quantizer",
            "buffer",
            "DRAM",
            "all, pJ a pair",
            "datapath below FP8 machine",
            "all below FP8 machine",
            "all below itself at 100 %",
        ],
        &rows,
    );
    let [datapath, decoder, buffer, dram] = variant.baseline;
    output.line(format!(
        "machine of FP8 alone: datapath {}, decoder {}, buffer {:.1}, DRAM {:.1} pJ a pair; a mixed stream costs {:.3}..{:.3} of the sum of its modes",
        range(datapath),
        range(decoder),
        buffer[0],
        dram[0],
        variant.mixing[0],
        variant.mixing[1],
    ));
    let rows: Vec<Vec<String>> = variant
        .layers
        .iter()
        .map(|row| {
            vec![
                row.layer.to_string(),
                format!("{:?}", row.matrix).to_lowercase(),
                count(row.pairs as u64),
                percent_range([
                    1.0 - row.modes[0] / row.pairs.max(1.0),
                    row.modes[3] / row.pairs.max(1.0),
                ]),
                range(row.datapath_nj),
                percent_range(row.datapath_saving),
                percent_range(row.total_saving),
            ]
        })
        .collect();
    output.table(
        &[
            "layer",
            "matrix",
            "pairs a token",
            "with FP8..FP8 x FP8",
            "datapath nJ a token",
            "below FP8 machine",
            "with memory",
        ],
        &rows,
    );
    for bar in &variant.bars {
        output.line(format!(
            "{}: {} ({}); least..largest over the seeds {}, with glitches {}",
            bar.text,
            percent_range(bar.value),
            bar.status.name(),
            percent_range([bar.over_seeds[0].min, bar.over_seeds[0].max]),
            percent_range([bar.over_seeds[1].min, bar.over_seeds[1].max]),
        ));
    }
    output.line("");
}
