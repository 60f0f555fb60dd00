//! `fgmp synth`: cells of the emitted core.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::bail;
use hdl::build::{PREFIX, emit_core};
use hdl::config::ArrayConfig;
use hdl::emit::Bundle;
use hdl::quantizer::emit_alone;
use serde::Serialize;
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
    let target = match arguments.target {
        TargetName::Generic => Target::Generic,
        TargetName::Ice40 => Target::Ice40,
        TargetName::Ecp5 => Target::Ecp5,
        TargetName::Gowin => Target::Gowin,
    };
    let core = emit_core(config)?;
    // `pe` is as good as `fgmp_pe`.
    let prefixed = format!("{PREFIX}{}", arguments.module);
    let holds = |bundle: &Bundle, name: &str| bundle.modules.iter().any(|it| it.name == name);
    // The core holds the serial quantization unit; the other build stands alone.
    let unit = emit_alone(config.quantizer_lanes)?;
    let in_core = holds(&core, &arguments.module) || holds(&core, &prefixed);
    let in_unit = holds(&unit, &arguments.module) || holds(&unit, &prefixed);
    let bundle = if in_unit && !in_core { unit } else { core };
    let named = |name: &str| holds(&bundle, name);
    let module = match (named(&arguments.module), named(&prefixed)) {
        (true, _) => arguments.module.clone(),
        (false, true) => prefixed,
        (false, false) => {
            let names: Vec<&str> = bundle
                .modules
                .iter()
                .map(|module| module.name.as_str())
                .collect();
            bail!(
                "--module {}: the core has no such module; it has {}",
                arguments.module,
                names.join(", ")
            )
        }
    };
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
