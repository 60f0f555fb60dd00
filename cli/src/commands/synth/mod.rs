//! `fgmp synth`: the table of parts, and modules mapped, placed and routed.

mod asic;
mod energy;
mod module;

use std::time::Instant;

use anyhow::bail;
use hdl::config::ArrayConfig;
use serde::Serialize;
use synth::device::{Device, ECP5_85};
use synth::peers::Peer;
use synth::store::{Entry, Store};
use synth::table::{Bar, Build, Measure, Options, Row, measure, parts};
use synth::yosys::Multipliers;

use crate::arguments::{Synth, TargetName};
use crate::output::{Outcome, Output, count};

/// Runs the command.
pub fn run(arguments: &Synth, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let config = arguments.design.array.config()?;
    let path = arguments.store.clone().unwrap_or_else(Store::default_path);
    let store = if arguments.fresh {
        Store::anew(path)
    } else {
        Store::open(path)?
    };
    if arguments.list {
        return list(&store, output);
    }
    if arguments.asic.energy {
        let selection = arguments.asic.selection.selection(seed);
        let seeds = arguments.seeds;
        return energy::run(&arguments.asic, selection, seeds, config, &store, output);
    }
    let asks_for_module =
        arguments.target.is_some() || arguments.module.is_some() || arguments.no_dsp;
    let asks_for_table = arguments.table || !arguments.part.is_empty();
    let seeds: Vec<u32> = if arguments.no_route {
        Vec::new()
    } else {
        (1..=arguments.seeds.unwrap_or(1)).collect()
    };
    let options = |device| Options {
        device,
        target_mhz: arguments.mhz,
        seeds: &seeds,
        store: Some(&store),
    };
    if asks_for_table || !asks_for_module {
        let device = match &arguments.target {
            None => ECP5_85,
            Some(TargetName::Device(device)) => device,
            Some(TargetName::Family(family)) => bail!(
                "--table needs a device, such as {}, not a family",
                Device::named(family.name()).unwrap_or(ECP5_85)
            ),
            Some(TargetName::Asic(_)) => bail!("--table needs a device, such as {ECP5_85}"),
        };
        return table(arguments, config, &options(device), output);
    }
    match &arguments.target {
        Some(TargetName::Device(device)) => module::place(arguments, &options(device), output),
        Some(TargetName::Family(family)) => module::map(arguments, *family, output),
        Some(TargetName::Asic(library)) => asic::run(arguments, library.as_deref(), output),
        None => module::map(arguments, synth::yosys::Target::Generic, output),
    }
}

/// What the store has, a line each.
fn list(store: &Store, output: &Output) -> anyhow::Result<Outcome> {
    let entries = store.entries();
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.kind.clone(),
                entry.subject.to_string(),
                summary(entry),
            ]
        })
        .collect();
    output.table(&["kind", "of", "result"], &rows);
    output.line(format!(
        "{} results in {}",
        entries.len(),
        store.path().display()
    ));
    output.json(&entries)?;
    Ok(Outcome::Done)
}

fn summary(entry: &Entry) -> String {
    if let Some(mhz) = entry.result["mhz"].as_f64() {
        return format!("{mhz:.1} MHz, seed {}", entry.result["seed"]);
    }
    let cells = entry.result["cells"].as_object();
    let cells = cells.map(|cells| {
        let total: u64 = cells.values().filter_map(serde_json::Value::as_u64).sum();
        format!("{} cells", count(total))
    });
    cells.unwrap_or_default()
}

#[derive(Serialize)]
struct Conditions {
    device: &'static Device,
    part: &'static str,
    target_mhz: u32,
    seeds: Vec<u32>,
}

#[derive(Serialize)]
struct Table {
    parameters: ArrayConfig,
    conditions: Option<Conditions>,
    parts: Vec<Row>,
    seconds: f64,
}

/// The parts of a processing element beside their bars and peers.
fn table(
    arguments: &Synth,
    config: ArrayConfig,
    options: &Options<'_>,
    output: &Output,
) -> anyhow::Result<Outcome> {
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
    let device = options.device;
    if !options.seeds.is_empty() {
        // Not after minutes of synthesis.
        synth::nextpnr::find(device)?;
    }
    let start = Instant::now();
    let builds = if device.target.has_multiplier_switch() {
        2
    } else {
        1
    };
    let progress = output.progress("synthesizing parts", builds * wanted.len() as u64);
    progress.tick();
    let rows = measure(&wanted, options, |name, multipliers| {
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
            "{device} ({}); {}; {}; in {seconds:.0} s",
            device.part,
            row.tool,
            placement(options)
        ));
    }
    output.line(
        "LUT4: tables and what carry cells take of their places, the harness (a shift register before, a parity behind) included; blocks: multipliers",
    );
    output.line(
        "not measured: any board (energy: fgmp synth --energy); peers: measured in the same way, but not pipelined",
    );
    output.json(&Table {
        parameters: config,
        conditions: (!options.seeds.is_empty()).then(|| Conditions {
            device,
            part: device.part,
            target_mhz: options.target_mhz,
            seeds: options.seeds.to_vec(),
        }),
        parts: rows,
        seconds,
    })?;
    Ok(Outcome::Done)
}

/// How it was placed, for people.
fn placement(options: &Options<'_>) -> String {
    match options.seeds {
        [] => "not placed".to_owned(),
        [seed] => format!("nextpnr aiming at {} MHz, seed {seed}", options.target_mhz),
        seeds => format!(
            "nextpnr aiming at {} MHz, {} seeds: least, middle and largest clock",
            options.target_mhz,
            seeds.len()
        ),
    }
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

/// MHz; of several seeds the least, the middle one and the largest.
fn clock(build: &Build) -> String {
    match (build.clock(), build.routed.len()) {
        (None, _) => "-".to_owned(),
        (Some(clock), 1) => format!("{:.1}", clock.median),
        (Some(clock), _) => format!("{:.1} / {:.1} / {:.1}", clock.min, clock.median, clock.max),
    }
}

fn bound(bar: &Bar) -> String {
    match (bar.measure, bar.to) {
        (Measure::Lut4, _) => format!("<= {} LUT4", count(bar.bound as u64)),
        (Measure::Mhz, _) => format!(">= {} MHz", bar.bound),
        (Measure::Ratio, to) => format!("<= {} x {}", bar.bound, to.unwrap_or("")),
    }
}
