//! `fgmp synth`: the table of parts, or cells of the emitted core.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::bail;
use hdl::build::{PREFIX, TOP, emit_accelerator, emit_core};
use hdl::config::ArrayConfig;
use hdl::emit::Bundle;
use serde::Serialize;
use synth::nextpnr::{Conditions, TABLE_CONDITIONS};
use synth::peers::Peer;
use synth::table::{Bar, Build, Measure, Row, measure, parts};
use synth::yosys::{Hierarchy, Mapping, Multipliers, SynthReport, Target, cells};

use crate::arguments::{Synth, TargetName};
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    parameters: ArrayConfig,
    seconds: f64,
    total: u64,
    #[serde(flatten)]
    synthesis: SynthReport,
}

/// Runs the command.
pub fn run(arguments: &Synth, output: &Output) -> anyhow::Result<Outcome> {
    let config = arguments.array.config()?;
    if arguments.asic.energy {
        return super::synth_energy::run(&arguments.asic, config, output);
    }
    if arguments.target == Some(TargetName::Asic) {
        return super::synth_asic::run(arguments, config, output);
    }
    let asks_for_cells =
        arguments.target.is_some() || arguments.module.is_some() || arguments.no_dsp;
    if asks_for_cells {
        count_cells(arguments, config, output)
    } else {
        table(arguments, config, output)
    }
}

#[derive(Serialize)]
struct Table {
    parameters: ArrayConfig,
    conditions: Option<Conditions>,
    parts: Vec<Row>,
    seconds: f64,
}

/// The parts of a processing element beside their bars and peers.
fn table(arguments: &Synth, config: ArrayConfig, output: &Output) -> anyhow::Result<Outcome> {
    let mut wanted = parts(config.pipeline);
    if let Some(unknown) = arguments
        .part
        .iter()
        .find(|name| wanted.iter().all(|part| part.name != name.as_str()))
    {
        let names: Vec<&str> = wanted.iter().map(|part| part.name).collect();
        bail!(
            "--part {unknown}: there is no such part; there are {}",
            names.join(", ")
        );
    }
    if !arguments.part.is_empty() {
        wanted.retain(|part| arguments.part.iter().any(|name| name == part.name));
    }
    let conditions = (!arguments.no_route).then_some(TABLE_CONDITIONS);
    if conditions.is_some() {
        // Not after minutes of synthesis.
        synth::nextpnr::find()?;
    }
    let start = Instant::now();
    let progress = output.progress("synthesizing parts", 2 * wanted.len() as u64);
    progress.tick();
    let rows = measure(&wanted, conditions.as_ref(), |name, multipliers| {
        progress.set_message(format!("{name} ({})", multipliers_name(multipliers)));
        progress.inc(1);
    })?;
    progress.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();

    let cells: Vec<Vec<String>> = rows.iter().flat_map(lines).collect();
    output.table(
        &[
            "part",
            "by",
            "build",
            "LUT4",
            "tables",
            "carries",
            "registers",
            "blocks",
            "MHz",
            "bar",
            "status",
        ],
        &cells,
    );
    if let Some(row) = rows.first() {
        output.line(format!(
            "ECP5; {}; {}; in {seconds:.0} s",
            row.tool,
            conditions.as_ref().map_or_else(
                || "not placed".to_owned(),
                |conditions| format!("nextpnr-ecp5 {}", conditions.arguments().join(" "))
            )
        ));
    }
    output.line(
        "LUT4: tables and two for each carry cell, those of the harness (a shift register before, a parity behind) included; blocks: multipliers of 18 x 18 bits",
    );
    output.line(
        "not measured: energy, any board; peers: measured in the same way, but not pipelined",
    );
    output.json(&Table {
        parameters: config,
        conditions,
        parts: rows,
        seconds,
    })?;
    Ok(Outcome::Done)
}

const fn multipliers_name(multipliers: Multipliers) -> &'static str {
    match multipliers {
        Multipliers::Logic => "LUT",
        Multipliers::Blocks => "DSP",
    }
}

/// A row's lines: ours without and with multiplier blocks, the bars beside the first, then the peers.
fn lines(row: &Row) -> Vec<Vec<String>> {
    let none = || "-".to_owned();
    let bars: Vec<String> = row.bars.iter().map(|verdict| bound(&verdict.bar)).collect();
    let states: Vec<String> = row
        .bars
        .iter()
        .map(|verdict| {
            let status = verdict
                .status
                .map_or("not measured", |status| status.name());
            match (verdict.bar.measure, verdict.value) {
                (Measure::Ratio, Some(value)) => format!("{status} ({value:.3})"),
                _ => status.to_owned(),
            }
        })
        .collect();
    let mut lines = Vec::new();
    for build in &row.builds {
        let ours = build.multipliers == Multipliers::Logic;
        lines.push(vec![
            if ours {
                row.name.to_owned()
            } else {
                String::new()
            },
            match row.stages {
                None => "fgmp".to_owned(),
                Some(1) => "fgmp, not pipelined".to_owned(),
                Some(stages) => format!("fgmp, {stages} stages"),
            },
            multipliers_name(build.multipliers).to_owned(),
            count(build.lut4),
            count(build.tables),
            count(build.carry_cells),
            count(build.registers),
            count(build.multiplier_blocks),
            clock(build),
            if ours { bars.join("; ") } else { String::new() },
            if ours {
                states.join("; ")
            } else {
                String::new()
            },
        ]);
    }
    for peer in &row.peers {
        let Peer {
            name,
            unit,
            lut4,
            mhz,
            with_blocks,
            ..
        } = peer;
        let line = |build: &str, lut4: u64, blocks: u64, mhz: Option<f64>| {
            vec![
                String::new(),
                format!("{name}: {unit}"),
                build.to_owned(),
                count(lut4),
                none(),
                none(),
                none(),
                count(blocks),
                mhz.map_or_else(none, |mhz| format!("{mhz:.1}")),
                String::new(),
                String::new(),
            ]
        };
        lines.push(line("LUT", *lut4, 0, *mhz));
        if let Some((lut4, blocks)) = with_blocks {
            lines.push(line("DSP", *lut4, *blocks, None));
        }
    }
    lines
}

fn clock(build: &Build) -> String {
    build
        .routed
        .as_ref()
        .map_or_else(|| "-".to_owned(), |routed| format!("{:.1}", routed.mhz))
}

fn bound(bar: &Bar) -> String {
    match (bar.measure, bar.to) {
        (Measure::Lut4, _) => format!("<= {} LUT4", count(bar.bound as u64)),
        (Measure::Mhz, _) => format!(">= {} MHz", bar.bound),
        (Measure::Ratio, to) => format!("<= {} x {}", bar.bound, to.unwrap_or("")),
    }
}

/// The module that is asked for, and the bundle that has it.
pub fn module_of(wanted: Option<&str>, config: ArrayConfig) -> anyhow::Result<(Bundle, String)> {
    let wanted = wanted.unwrap_or(TOP);
    // `pe` is as good as `fgmp_pe`.
    let prefixed = format!("{PREFIX}{wanted}");
    let holds = |bundle: &Bundle, name: &str| bundle.modules.iter().any(|it| it.name == name);
    let mut bundle = emit_core(config)?;
    if !holds(&bundle, wanted) && !holds(&bundle, &prefixed) {
        bundle = emit_accelerator(config)?;
    }
    let named = |name: &str| holds(&bundle, name);
    let module = match (named(wanted), named(&prefixed)) {
        (true, _) => wanted.to_owned(),
        (false, true) => prefixed,
        (false, false) => {
            let names: Vec<&str> = bundle
                .modules
                .iter()
                .map(|module| module.name.as_str())
                .collect();
            bail!(
                "--module {wanted}: neither core nor accelerator has such a module; the accelerator has {}",
                names.join(", ")
            )
        }
    };
    Ok((bundle, module))
}

/// Cells of one module of the core.
fn count_cells(arguments: &Synth, config: ArrayConfig, output: &Output) -> anyhow::Result<Outcome> {
    let target = match arguments.target.unwrap_or(TargetName::Generic) {
        // Asic has a command of its own.
        TargetName::Generic | TargetName::Asic => Target::Generic,
        TargetName::Ice40 => Target::Ice40,
        TargetName::Ecp5 => Target::Ecp5,
        TargetName::Gowin => Target::Gowin,
    };
    let (bundle, module) = module_of(arguments.module.as_deref(), config)?;
    let spinner = output.spinner("yosys");
    let start = Instant::now();
    let mapping = Mapping {
        // Module by module: each distinct module is mapped once, however many instances the array has.
        hierarchy: Hierarchy::Kept,
        multipliers: if arguments.no_dsp {
            Multipliers::Logic
        } else {
            Multipliers::Blocks
        },
    };
    let synthesis = cells(&bundle.concatenated(), &module, target, mapping)?;
    let seconds = start.elapsed().as_secs_f64();
    spinner.finish_and_clear();

    output.line(format!(
        "{} ({} x {} array) for {}, module by module, {}",
        module,
        config.rows,
        config.cols,
        target.name(),
        synthesis.tool
    ));
    let instances = instance_counts(&bundle, &module);
    let rows: Vec<Vec<String>> = synthesis
        .modules
        .iter()
        .map(|(module, cells)| {
            let own: u64 = cells.values().sum();
            let times = instances.get(module).copied().unwrap_or(1);
            vec![module.clone(), count(own), count(times), count(own * times)]
        })
        .collect();
    output.table(&["module", "own cells", "instances", "cells"], &rows);
    let mut kinds: Vec<(&String, &u64)> = synthesis.cells.iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let rows: Vec<Vec<String>> = kinds
        .iter()
        .map(|(kind, number)| vec![(*kind).clone(), count(**number)])
        .collect();
    output.table(&["cell", "number"], &rows);
    let total = synthesis.total();
    output.line(format!(
        "{} cells in {seconds:.1} s; not measured: clock, energy",
        count(total)
    ));
    output.json(&Report {
        parameters: config,
        seconds,
        total,
        synthesis,
    })?;
    Ok(Outcome::Done)
}

/// How often each module occurs below a top.
fn instance_counts(bundle: &Bundle, top: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::from([(top.to_owned(), 1)]);
    // The top stands last and leaves first, so going backwards every parent is counted before its children.
    for module in bundle.modules.iter().rev() {
        let times = counts.get(&module.name).copied().unwrap_or(0);
        for (_, child) in &module.instances {
            *counts.entry(child.clone()).or_insert(0) += times;
        }
    }
    counts
}
