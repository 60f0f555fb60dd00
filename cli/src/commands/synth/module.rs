//! One module: mapped and counted, or placed and routed on a device.

use std::time::Instant;

use anyhow::bail;
use clap::ValueEnum;
use hdl::build::{PREFIX, TOP};
use hdl::bundle::{Parameters, Top};
use hdl::emit::Bundle;
use hdl::speed::SpeedConfig;
use serde::Serialize;
use serde_json::json;
use synth::device::Device;
use synth::harness;
use synth::harness::Harness;
use synth::table::{Build, Options, implement};
use synth::yosys::{Hierarchy, Mapping, Multipliers, SynthReport, Target, cells};

use super::{clock, multipliers_name, placement};
use crate::arguments::{DesignArguments, Synth, TopName};
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Mapped {
    parameters: Parameters,
    seconds: f64,
    total: u64,
    #[serde(flatten)]
    synthesis: SynthReport,
}

#[derive(Serialize)]
struct Placed {
    parameters: Parameters,
    module: String,
    device: &'static Device,
    target_mhz: u32,
    harness_lut4: u64,
    harness_registers: u64,
    #[serde(flatten)]
    build: Build,
}

/// A module, and the first top that has it.
pub struct Found {
    /// The module's full name.
    pub name: String,
    /// All modules of the top.
    pub bundle: Bundle,
    /// The top's parameters.
    pub parameters: Parameters,
    /// The part of them that people are told.
    pub sizes: String,
}

/// Looks for a module in all tops: core, accelerator, SPEED, and tree search's.
pub fn find(wanted: &str, design: DesignArguments) -> anyhow::Result<Found> {
    // `pe` is as good as `fgmp_pe`.
    let prefixed = format!("{PREFIX}{wanted}");
    let mut known = Vec::new();
    for name in TopName::value_variants() {
        let top = design.top(*name)?;
        let bundle = top.emit()?;
        for name in [wanted, prefixed.as_str()] {
            if bundle.modules.iter().any(|it| it.name == name) {
                return Ok(Found {
                    name: name.to_owned(),
                    bundle,
                    parameters: top.parameters(),
                    sizes: sizes(top),
                });
            }
        }
        for module in bundle.modules {
            let plain = module.name.trim_start_matches(PREFIX).to_owned();
            // Memories are named for their sizes.
            if !plain.contains("ram_w") && !known.contains(&plain) {
                known.push(plain);
            }
        }
    }
    bail!(
        "--module {wanted}: no top has such a module; beside memories there are {}",
        known.join(", ")
    )
}

/// How large a top is.
fn sizes(top: Top) -> String {
    match top {
        Top::Core(array) | Top::Accelerator(array) | Top::Speed(SpeedConfig { array, .. }) => {
            format!("{} x {} array", array.rows, array.cols)
        }
        Top::TreeSelector(config) => {
            format!("{} leaves, {} nodes", config.built_leaves(), config.nodes)
        }
        Top::PageTable(config) => {
            format!(
                "{} segments, {} pages",
                config.built_segments(),
                config.pages
            )
        }
    }
}

const fn multipliers(arguments: &Synth) -> Multipliers {
    if arguments.no_dsp {
        Multipliers::Logic
    } else {
        Multipliers::Blocks
    }
}

/// Clock and cells on a device, in the harness of the table.
pub fn place(arguments: &Synth, options: &Options<'_>, output: &Output) -> anyhow::Result<Outcome> {
    let device = options.device;
    if !options.seeds.is_empty() {
        synth::nextpnr::find(device)?;
    }
    let Found {
        name,
        mut bundle,
        parameters,
        sizes,
    } = find(arguments.module.as_deref().unwrap_or(TOP), arguments.design)?;
    // The wanted module stands last, without what it does not hold.
    let used = bundle.instance_counts(&name);
    bundle
        .modules
        .retain(|module| used.contains_key(&module.name));
    let Some(module) = bundle.modules.last() else {
        bail!("--module {name}: it is empty")
    };
    let harness = Harness::of(module);
    let text = bundle.concatenated() + &harness.text;
    let progress = output.progress("mapping", 1 + options.seeds.len() as u64);
    progress.tick();
    let subject = json!({ "module": name, "parameters": parameters });
    let build = implement(
        &text,
        harness::TOP,
        multipliers(arguments),
        options,
        subject,
        |seed| {
            progress.set_message(format!("placed with seed {seed}"));
            progress.inc(1);
        },
    )?;
    progress.finish_and_clear();

    output.line(format!(
        "{name} ({sizes}) on {device} ({}), multipliers: {}; {}; {}",
        device.part,
        multipliers_name(build.multipliers),
        build.tool,
        placement(options)
    ));
    output.table(
        &[
            "LUT4",
            "tables",
            "carries",
            "registers",
            "multipliers",
            "memories",
            "MHz",
        ],
        &[vec![
            count(build.lut4),
            count(build.tables),
            count(build.carry_cells),
            count(build.registers),
            count(build.multiplier_blocks),
            count(build.memory_blocks),
            clock(&build),
        ]],
    );
    if let Some(routed) = build.routed.first() {
        let rows: Vec<Vec<String>> = routed
            .used
            .iter()
            .map(|(kind, &used)| {
                let available = routed.available.get(kind).copied().unwrap_or(0);
                let share = used as f64 / available.max(1) as f64;
                vec![
                    kind.clone(),
                    count(used),
                    count(available),
                    crate::output::percent(share),
                ]
            })
            .collect();
        output.table(&["cell", "used", "available", "share"], &rows);
        if let Some(path) = &routed.critical_path {
            output.line(format!(
                "slowest path of seed {}: {:.2} ns, {:.2} of it in wires, through {} cells, from {} to {}",
                routed.seed, path.delay_ns, path.routing_ns, path.cells, path.from, path.to
            ));
        }
        if let Some(mhz) = routed.icetime_mhz {
            output.line(format!("icetime, seed {}: {mhz:.1} MHz", routed.seed));
        }
    }
    output.line(format!(
        "harness included: {} LUT4, {} registers; in {:.0} s; not measured: energy, any board",
        count(harness.lut4()),
        count(harness.registers()),
        build.seconds
    ));
    output.json(&Placed {
        parameters,
        module: name,
        device,
        target_mhz: options.target_mhz,
        harness_lut4: harness.lut4(),
        harness_registers: harness.registers(),
        build,
    })?;
    Ok(Outcome::Done)
}

/// Cells of one module, module by module.
pub fn map(arguments: &Synth, target: Target, output: &Output) -> anyhow::Result<Outcome> {
    let Found {
        name: module,
        bundle,
        parameters,
        sizes,
    } = find(arguments.module.as_deref().unwrap_or(TOP), arguments.design)?;
    let spinner = output.spinner("yosys");
    let start = Instant::now();
    let mapping = Mapping {
        // Module by module: each distinct module is mapped once, however many instances the array has.
        hierarchy: Hierarchy::Kept,
        multipliers: multipliers(arguments),
    };
    let synthesis = cells(&bundle.concatenated(), &module, target, mapping)?;
    let seconds = start.elapsed().as_secs_f64();
    spinner.finish_and_clear();

    output.line(format!(
        "{module} ({sizes}) for {}, module by module, {}",
        target.name(),
        synthesis.tool
    ));
    let instances = bundle.instance_counts(&module);
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
    output.json(&Mapped {
        parameters,
        seconds,
        total,
        synthesis,
    })?;
    Ok(Outcome::Done)
}
