//! `fgmp emit`: the core, or the complete accelerator, as a bundle of Verilog.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use hdl::bundle::{self, Manifest, Top};
use hdl::config::ArrayConfig;
use serde::Serialize;

use crate::arguments::Emit;
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    folder: String,
    seconds: f64,
    #[serde(flatten)]
    manifest: Manifest,
}

/// Runs the command.
pub fn run(arguments: &Emit, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let top = arguments.design.top(arguments.top)?;
    let folder = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(top.name()));
    let start = Instant::now();
    let manifest = bundle::write(&folder, top, seed)?;
    let seconds = start.elapsed().as_secs_f64();
    let named = folder.display().to_string();
    output.line(format!("{named}: {} {}", manifest.top, sizes(top)));
    let rows: Vec<Vec<String>> = manifest
        .modules
        .iter()
        .map(|module| {
            let bytes = std::fs::metadata(folder.join(&module.file))
                .with_context(|| format!("{named}/{}", module.file))?
                .len();
            let purpose = first_sentence(&module.purpose);
            Ok(vec![
                module.file.clone(),
                count(bytes),
                module.instances.len().to_string(),
                purpose,
            ])
        })
        .collect::<anyhow::Result<_>>()?;
    output.table(&["file", "bytes", "instances", "purpose"], &rows);
    output.line(format!(
        "{} modules, {} files in {seconds:.2} s; {named}/README.md tells how to lint and simulate them",
        manifest.modules.len(),
        manifest.files.len()
    ));
    output.json(&Report {
        folder: named,
        seconds,
        manifest,
    })?;
    Ok(Outcome::Done)
}

/// How large it is.
fn sizes(top: Top) -> String {
    let array = |config: ArrayConfig| {
        format!(
            "with a {} x {} array, {}-bit accumulators (K up to {})",
            config.rows,
            config.cols,
            config.acc_bits(),
            config.max_k
        )
    };
    match top {
        Top::Core(config) | Top::Accelerator(config) => array(config),
        Top::Speed(config) => format!(
            "{}, a pipeline of {} stages for sequences of up to 2^{} positions",
            array(config.array),
            config.repetitions,
            config.position_bits
        ),
        Top::TreeSelector(config) => format!(
            "for up to {} leaves and {} nodes",
            config.built_leaves(),
            config.nodes
        ),
        Top::PageTable(config) => format!(
            "for up to {} segments and {} pages of {} tokens",
            config.built_segments(),
            config.pages,
            config.page_tokens
        ),
    }
}

/// The first sentence of a module's purpose, which may run over several lines, cut to fit a terminal.
fn first_sentence(purpose: &str) -> String {
    const WIDEST: usize = 80;
    let text = purpose.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = text
        .split(". ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    if sentence.chars().count() <= WIDEST {
        return sentence.to_owned();
    }
    let head: String = sentence.chars().take(WIDEST).collect();
    let words = head
        .rsplit_once(' ')
        .map_or(head.as_str(), |(words, _)| words);
    format!("{words} ...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_one_short_sentence() {
        assert_eq!(
            first_sentence("Adds\ntwo numbers. Slowly."),
            "Adds two numbers"
        );
        assert_eq!(first_sentence("Adds."), "Adds");
        assert_eq!(first_sentence(""), "");
        assert_eq!(
            first_sentence(&"word ".repeat(40)),
            format!("{} ...", ["word"; 16].join(" "))
        );
    }
}
