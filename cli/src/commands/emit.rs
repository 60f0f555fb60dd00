//! `fgmp emit`: the core, or the complete accelerator, as a bundle of Verilog.

use std::time::Instant;

use anyhow::Context;
use hdl::bundle::{self, Manifest, Top};
use serde::Serialize;

use crate::arguments::{Emit, TopName};
use crate::output::{Outcome, Output, count};

#[derive(Serialize)]
struct Report {
    folder: String,
    seconds: f64,
    #[serde(flatten)]
    manifest: Manifest,
}

impl From<TopName> for Top {
    fn from(name: TopName) -> Self {
        match name {
            TopName::Core => Self::Core,
            TopName::Accelerator => Self::Accelerator,
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Emit, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let config = arguments.array.config()?;
    let start = Instant::now();
    let manifest = bundle::write(&arguments.folder(), arguments.top.into(), config, seed)?;
    let seconds = start.elapsed().as_secs_f64();
    let folder = arguments.folder().display().to_string();
    output.line(format!(
        "{folder}: {} with a {} x {} array, {}-bit accumulators (K up to {})",
        manifest.top, config.rows, config.cols, manifest.parameters.acc_bits, config.max_k
    ));
    let rows: Vec<Vec<String>> = manifest
        .modules
        .iter()
        .map(|module| {
            let bytes = std::fs::metadata(arguments.folder().join(&module.file))
                .with_context(|| format!("{folder}/{}", module.file))?
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
        "{} modules, {} files in {seconds:.2} s; {folder}/README.md tells how to lint and simulate them",
        manifest.modules.len(),
        manifest.files.len()
    ));
    output.json(&Report {
        folder,
        seconds,
        manifest,
    })?;
    Ok(Outcome::Done)
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
