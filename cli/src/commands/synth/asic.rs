//! `fgmp synth --target asic`: one module in the cells of a Liberty library.

use std::path::Path;

use anyhow::Context;
use gates::liberty::Library;
use hdl::bundle::Parameters;
use serde::Serialize;
use synth::asic::{Goal, MappedReport, Options, Proof, Timing, default_library, map, prove, time};
use synth::yosys::Hierarchy;

use crate::arguments::{GoalName, Synth};
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    parameters: Parameters,
    #[serde(flatten)]
    mapped: MappedReport,
    timing: Option<Timing>,
    proof: Option<Proof>,
}

/// The goal of a name.
pub const fn goal(name: GoalName) -> Goal {
    match name {
        GoalName::Area => Goal::Area,
        GoalName::Speed => Goal::Speed,
    }
}

/// Runs the command.
pub fn run(arguments: &Synth, library: Option<&Path>, output: &Output) -> anyhow::Result<Outcome> {
    let asic = &arguments.asic;
    let liberty = match library.or(asic.liberty.as_deref()) {
        Some(path) => path.to_owned(),
        None => default_library()?,
    };
    let library = Library::open(&liberty)?;
    let super::module::Found {
        name: module,
        bundle,
        parameters,
        ..
    } = super::module::find(
        arguments.module.as_deref().unwrap_or("pe"),
        arguments.design,
    )?;
    let spinner = output.spinner("yosys");
    let options = Options {
        goal: goal(asic.goal),
        hierarchy: Hierarchy::Flat,
        clock_gating: asic.clock_gating,
    };
    let text = bundle.concatenated();
    let mapped = map(&text, &module, &liberty, &library, options)?;
    let proof = if asic.prove {
        Some(prove(&text, &mapped).with_context(|| format!("proof of {module}"))?)
    } else {
        None
    };
    // The timing analyser knows no gate of a clock, may not be installed, and finds no path where there is no register.
    let has_registers = mapped.netlist.clock.is_some();
    let analysed = (has_registers && !asic.clock_gating && synth::asic::STA.find().is_ok())
        .then(|| time(&mapped, mapped.report.abc_ns.unwrap_or(10.0)))
        .transpose()?;
    spinner.finish_and_clear();

    let report = &mapped.report;
    let rows: Vec<Vec<String>> = report
        .cells
        .iter()
        .map(|(cell, number)| vec![cell.clone(), count(*number)])
        .collect();
    output.table(&["cell", "number"], &rows);
    let rows: Vec<Vec<String>> = report
        .area_by_group
        .iter()
        .map(|(group, area)| vec![group.clone(), format!("{area:.0}")])
        .collect();
    output.table(&["register and the logic before it", "area"], &rows);
    output.line(format!(
        "{module} in {} ({}): {} cells, area {:.0}, slowest logic {} ns by abc, {}; {}",
        report.library,
        report.corner,
        count(report.total),
        report.area,
        report
            .abc_ns
            .map_or_else(|| "-".to_owned(), |ns| format!("{ns:.2}")),
        analysed.as_ref().map_or_else(
            || "not analysed by OpenSTA".to_owned(),
            |timing| format!("shortest period {:.2} ns by OpenSTA", timing.shortest_ns)
        ),
        report.tool,
    ));
    if let Some(proof) = &proof {
        output.line(format!(
            "proved equal to the Verilog, cut at {} registers, in {:.0} s",
            proof.registers, proof.seconds
        ));
    }
    output.line("not in it: wires, clock tree, floorplan");
    output.json(&Report {
        parameters,
        mapped: mapped.report.clone(),
        timing: analysed,
        proof,
    })?;
    Ok(Outcome::Done)
}
