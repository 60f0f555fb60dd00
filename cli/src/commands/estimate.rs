//! `fgmp estimate`: what an accelerator will take, without synthesis.

use std::time::Instant;

use hdl::config::ArrayConfig;
use serde::Serialize;
use synth::estimate::{
    Clock, ENERGY_STREAMS, Flow, Model, PairEnergy, RESOURCES, Resources, clocks, energies,
    energies_at, measure, random_configs, samples, shipped, shipped_clocks, shipped_energies,
};
use synth::store::Store;
use synth::table::{Spread, TableError};
use synth::yosys::Multipliers;

use crate::arguments::Estimate;
use crate::output::{Outcome, Output, count, percent};

/// Largest relative error that a check accepts.
const BOUND: f64 = 0.15;

#[derive(Serialize)]
struct Report {
    parameters: ArrayConfig,
    #[serde(flatten)]
    flow: Flow,
    resources: Resources,
    samples: usize,
    left_out_lut4: Option<Spread>,
    left_out_registers: Option<Spread>,
    clocks: Vec<Clock>,
    energies: Vec<PairEnergy>,
}

#[derive(Serialize)]
struct Trial {
    parameters: ArrayConfig,
    measured: Resources,
    estimated: Resources,
    lut4_error: f64,
    registers_error: f64,
}

#[derive(Serialize)]
struct Check {
    #[serde(flatten)]
    flow: Flow,
    bound: f64,
    trials: Vec<Trial>,
}

/// Runs the command.
pub fn run(arguments: &Estimate, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let config = arguments.array.config()?;
    let flow = Flow {
        target: arguments.target.into(),
        multipliers: if arguments.no_dsp {
            Multipliers::Logic
        } else {
            Multipliers::Blocks
        },
    };
    let store = Store::open(arguments.store.clone().unwrap_or_else(Store::default_path))?;
    if let Some(number) = arguments.measure {
        let configs = random_configs(seed, number, flow);
        synthesize(&configs, flow, &store, output)?;
        output.line(format!(
            "{number} accelerators are in {}",
            store.path().display()
        ));
    }
    let mut known = shipped();
    let entries = store.entries();
    known.extend(samples(&entries));
    let model = if let Some(number) = arguments.check {
        // What is tried must not have been seen.
        let configs = random_configs(!seed, number, flow);
        known.retain(|sample| !configs.contains(&sample.config));
        let model = Model::fit(&known, flow)?;
        return check(&model, &configs, flow, &store, output);
    } else {
        Model::fit(&known, flow)?
    };
    let resources = model.predict(config);
    let [left_out_lut4, left_out_registers] = model.left_out();
    output.line(format!(
        "accelerator of {} x {}, {} stages, for {}, multiplications in {}",
        config.rows,
        config.cols,
        config.pipeline,
        flow.target.name(),
        flow.multipliers.name()
    ));
    let rows: Vec<Vec<String>> = RESOURCES
        .iter()
        .zip(resources.values())
        .map(|(name, value)| vec![(*name).to_owned(), count(value.round() as u64)])
        .collect();
    output.table(&["resource", "estimate"], &rows);
    let spread = |spread: Option<Spread>| {
        spread.map_or_else(String::new, |it| {
            format!("{} (at most {})", percent(it.median), percent(it.max))
        })
    };
    output.line(format!(
        "fitted to {} accelerators synthesized module by module; each predicted by the others is off by {} in LUT4, {} in registers",
        model.samples().len(),
        spread(left_out_lut4),
        spread(left_out_registers)
    ));
    let mut measured = shipped_clocks();
    measured.extend(clocks(&entries));
    measured.retain(|clock| {
        clock.stages == config.pipeline && clock.device.starts_with(flow.target.name())
    });
    if !measured.is_empty() {
        let rows: Vec<Vec<String>> = measured
            .iter()
            .map(|clock| {
                vec![
                    clock.device.clone(),
                    clock.multipliers.name().to_owned(),
                    format!("{:.1}", clock.mhz.min),
                    format!("{:.1}", clock.mhz.median),
                    format!("{:.1}", clock.mhz.max),
                    count(clock.seeds as u64),
                ]
            })
            .collect();
        output.table(
            &[
                "PE on",
                "multiplications",
                "least MHz",
                "middle",
                "largest",
                "seeds",
            ],
            &rows,
        );
    }
    let mut known = shipped_energies();
    known.extend(energies(&entries));
    let energies = energies_at(&known, config.pipeline);
    if !energies.is_empty() {
        let bracket = |pj: [f64; 2]| format!("{:.1}..{:.1}", pj[0], pj[1]);
        let rows: Vec<Vec<String>> = energies
            .iter()
            .map(|it| {
                let gated = if it.clock_gating { "gated" } else { "plain" };
                let source = if it.interpolated {
                    "between two"
                } else {
                    "measured"
                };
                let wires = format!("{} fF", it.wire_ff);
                [
                    it.library.clone(),
                    wires,
                    gated.into(),
                    it.selection.clone(),
                ]
                .into_iter()
                .chain(it.pair_pj.iter().map(|&pj| bracket(pj)))
                .chain([bracket(it.fp8_alone_pj), source.into()])
                .collect()
            })
            .collect();
        let header: Vec<&str> = [
            "pJ a block pair: library",
            "a pin's wire",
            "clocks",
            "share of",
        ]
        .into_iter()
        .chain(ENERGY_STREAMS)
        .chain(["FP8 element", "from"])
        .collect();
        output.table(&header, &rows);
    }
    output.line("not estimated: the clock of the whole accelerator, placement");
    output.json(&Report {
        parameters: config,
        flow,
        resources,
        samples: model.samples().len(),
        left_out_lut4,
        left_out_registers,
        clocks: measured,
        energies,
    })?;
    Ok(Outcome::Done)
}

fn synthesize(
    configs: &[ArrayConfig],
    flow: Flow,
    store: &Store,
    output: &Output,
) -> Result<Vec<Resources>, TableError> {
    let progress = output.progress("mapping modules", 1);
    progress.tick();
    let results = measure(configs, flow, store, |mapped, all| {
        progress.set_length(all as u64);
        progress.set_position(mapped as u64);
    });
    progress.finish_and_clear();
    results
}

/// Accelerators that the model has not seen, estimated and then synthesized.
fn check(
    model: &Model,
    configs: &[ArrayConfig],
    flow: Flow,
    store: &Store,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let measured = synthesize(configs, flow, store, output)?;
    let trials: Vec<Trial> = configs
        .iter()
        .zip(measured)
        .map(|(&parameters, measured)| {
            let estimated = model.predict(parameters);
            Trial {
                parameters,
                measured,
                estimated,
                lut4_error: estimated.lut4 / measured.lut4 - 1.0,
                registers_error: estimated.registers / measured.registers - 1.0,
            }
        })
        .collect();
    let rows: Vec<Vec<String>> = trials
        .iter()
        .map(|trial| {
            let it = &trial.parameters;
            vec![
                format!(
                    "{} x {}, {} stages, K {}, {} ports, {} quantizer lanes, memories {} / {} / {}",
                    it.rows,
                    it.cols,
                    it.pipeline,
                    it.max_k,
                    it.weight_ports,
                    it.quantizer_lanes,
                    it.weight_blocks,
                    it.act_blocks,
                    it.result_elements
                ),
                count(trial.measured.lut4 as u64),
                count(trial.estimated.lut4.round() as u64),
                signed_percent(trial.lut4_error),
                count(trial.measured.registers as u64),
                count(trial.estimated.registers.round() as u64),
                signed_percent(trial.registers_error),
            ]
        })
        .collect();
    output.table(
        &[
            "accelerator",
            "LUT4",
            "estimate",
            "off by",
            "registers",
            "estimate",
            "off by",
        ],
        &rows,
    );
    let worst = trials
        .iter()
        .flat_map(|trial| [trial.lut4_error.abs(), trial.registers_error.abs()])
        .fold(0.0, f64::max);
    output.line(format!(
        "{} accelerators that the model has not seen: off by {} at most, {} allowed; in {:.0} s",
        trials.len(),
        percent(worst),
        percent(BOUND),
        start.elapsed().as_secs_f64()
    ));
    output.json(&Check {
        flow,
        bound: BOUND,
        trials,
    })?;
    Ok(Outcome::of_check(worst <= BOUND))
}

fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}
