//! `fgmp report`: tables and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use golden::block::bits_per_element;
use golden::fisher::FisherInformation;
use golden::model::LanguageModel;
use golden::quantizer::WeightOptions;
use golden::tensors::write_atomically;
use golden::{Scheme, Selection, Share};
use serde::Serialize;

use super::eval::{self, Stream, evaluate};
use super::fisher;
use crate::arguments::{Refinement, ReportQuant};
use crate::model::{Calibrated, Prepared};
use crate::output::{Outcome, Output, check_writable, percent};
use crate::plot::{Curve, Plot};

/// What a row of the table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Group {
    /// The schemes without a choice of blocks.
    Reference,
    /// FGMP over the shares of FP8 blocks.
    Sweep,
    /// The same share of FP8 blocks, chosen or scaled otherwise.
    Alternative,
    /// The same share, and something more.
    Refinement,
}

/// A way to quantize the model.
struct Variant {
    name: String,
    group: Group,
    options: Option<WeightOptions>,
    /// Whether squared gradients weigh the errors of clipping and of scores.
    fisher: bool,
    /// What follows the rounding.
    refinement: Refinement,
}

#[derive(Serialize)]
struct QuantRow {
    name: String,
    group: Group,
    clip: bool,
    fisher: bool,
    /// Windows that rounding errors were compensated on.
    compensate: Option<usize>,
    /// Steps that norms were tuned in.
    distill: Option<usize>,
    selection: Option<&'static str>,
    /// Bits of a stored weight, scales and tags included; absent in full precision.
    weight_bits: Option<f64>,
    /// The same of the activations as they were quantized.
    activation_bits: Option<f64>,
    /// Share of the gap between NVFP4 without clipping and FP8 that is closed.
    gap_recovered: Option<f64>,
    #[serde(flatten)]
    evaluation: eval::Row,
}

#[derive(Serialize)]
struct QuantReport {
    model: String,
    stream: String,
    tokens: usize,
    calibration_windows: usize,
    fisher_windows: usize,
    fisher_tokens: usize,
    rows: Vec<QuantRow>,
    files: Vec<PathBuf>,
}

/// Every row of the table.
fn variants(arguments: &ReportQuant, seed: u64) -> Vec<Variant> {
    let fgmp = |fp8_share| Scheme::Fgmp { fp8_share };
    let options = |scheme, clip, selection| {
        Some(WeightOptions {
            clip,
            selection,
            ..WeightOptions::new(scheme)
        })
    };
    let reference = |name: &str, options, fisher| Variant {
        name: name.to_owned(),
        group: Group::Reference,
        options,
        fisher,
        refinement: Refinement::default(),
    };
    let global = Selection::Global;
    let mut variants = vec![
        reference("BF16 weights, FP32 arithmetic", None, false),
        reference("FP8", options(Scheme::Fp8, false, global), false),
        reference("NVFP4", options(Scheme::Nvfp4, false, global), false),
        reference("NVFP4, clipped", options(Scheme::Nvfp4, true, global), true),
    ];
    variants.extend(arguments.shares.iter().map(|&share| Variant {
        name: format!("FGMP {} %", rounded_percent(share)),
        group: Group::Sweep,
        options: options(fgmp(share), true, global),
        fisher: true,
        refinement: Refinement::default(),
    }));
    let share = arguments.fp8_share;
    let alternatives = [
        ("without clipping", false, true, global),
        ("without Fisher (error only)", true, false, global),
        ("without both", false, false, global),
        ("threshold per layer", true, true, Selection::PerLayer),
        ("random blocks", true, true, Selection::Random(seed)),
    ];
    variants.extend(
        alternatives
            .into_iter()
            .map(|(name, clip, fisher, selection)| Variant {
                name: format!("{} %, {name}", rounded_percent(share)),
                group: Group::Alternative,
                options: options(fgmp(share), clip, selection),
                fisher,
                refinement: Refinement::default(),
            }),
    );
    let asked = |count: usize| (count > 0).then_some(count);
    let (compensate, distill) = (asked(arguments.compensate), asked(arguments.distill));
    let refinements = [
        ("rounding compensated", compensate, None),
        ("norms tuned", None, distill),
        (
            "both",
            compensate.and(distill).and(compensate),
            compensate.and(distill),
        ),
    ];
    variants.extend(
        refinements
            .into_iter()
            .filter(|(_, compensate, distill)| compensate.or(*distill).is_some())
            .map(|(name, compensate, distill)| Variant {
                name: format!("{} %, {name}", rounded_percent(share)),
                group: Group::Refinement,
                options: options(fgmp(share), true, global),
                fisher: true,
                refinement: Refinement {
                    compensate,
                    distill,
                },
            }),
    );
    variants
}

fn rounded_percent(share: Share) -> f64 {
    (share.get() * 1e4).round() / 100.0
}

/// The squared gradients of the arguments, those of an earlier report, or new ones.
fn fisher_information(
    prepared: &mut Prepared,
    arguments: &ReportQuant,
    output: &Output,
) -> anyhow::Result<Option<FisherInformation>> {
    if let Some(fisher) = prepared.fisher.take() {
        return Ok(Some(fisher));
    }
    let file = arguments.output.join("fisher.safetensors");
    let pass = fisher::Pass {
        tokens: prepared.calibration_tokens()?,
        windows: arguments.fisher_windows,
        window: prepared.calibration_window(),
        output: &file,
    };
    fisher::information(&prepared.model, &pass, output)
}

/// Runs `fgmp report quant`.
pub fn quant(arguments: &ReportQuant, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("{}: can't be made", arguments.output.display()))?;
    let files: Vec<PathBuf> = ["quant.md", "quant.svg", "quant.json"]
        .into_iter()
        .map(|name| arguments.output.join(name))
        .collect();
    for file in &files {
        check_writable(file)?;
    }
    let mut prepared = Prepared::open(arguments.input.as_deref(), &arguments.model)?;
    let stream = Stream {
        tokens: prepared.reader.read(&arguments.tokens)?,
        name: arguments.tokens.clone(),
    };
    let Some(fisher) = fisher_information(&mut prepared, arguments, output)? else {
        return Ok(Outcome::Interrupted);
    };
    let (fisher_windows, fisher_tokens) = (fisher.windows, fisher.tokens);
    prepared.fisher = Some(fisher);
    let weighted = prepared.calibrate(output)?;
    let unweighted = prepared.unweighted(&weighted)?;

    let mut rows: Vec<QuantRow> = Vec::new();
    for variant in variants(arguments, seed) {
        let calibrated: &Calibrated = if variant.fisher {
            &weighted
        } else {
            &unweighted
        };
        let mut quantized = variant
            .options
            .map(|options| prepared.quantize(options, calibrated))
            .transpose()?;
        if let (Some(quantized), Some(options)) = (&mut quantized, variant.options)
            && !prepared.refine(
                quantized,
                variant.refinement,
                options.clip,
                calibrated,
                output,
            )?
        {
            return Ok(Outcome::Interrupted);
        }
        let engine: &dyn LanguageModel = match &quantized {
            Some(quantized) => quantized,
            None => &prepared.model,
        };
        let scheme = variant.options.map_or(Scheme::Bf16, |o| o.scheme);
        let evaluation = evaluate(
            engine,
            quantized.as_ref(),
            scheme,
            &stream,
            arguments.windows,
            output,
        )?;
        let row = QuantRow {
            clip: variant.options.is_some_and(|o| o.clip),
            fisher: variant.fisher,
            compensate: variant.refinement.compensate,
            distill: variant.refinement.distill,
            selection: variant.options.map(|o| o.selection.name()),
            weight_bits: quantized.as_ref().map(|q| q.bits_per_weight()),
            activation_bits: evaluation.activation_fp8_share.map(bits_per_element),
            gap_recovered: gap_recovered(&rows, evaluation.perplexity),
            name: variant.name,
            group: variant.group,
            evaluation,
        };
        output.line(format!("{:44} {:9.4}", row.name, row.evaluation.perplexity));
        rows.push(row);
    }
    let report = QuantReport {
        model: prepared.name.clone(),
        stream: stream.name.clone(),
        tokens: rows.first().map_or(0, |row| row.evaluation.tokens),
        calibration_windows: prepared.calibration_windows(),
        fisher_windows,
        fisher_tokens,
        rows,
        files: files.clone(),
    };
    let markdown = markdown(&report);
    output.line("");
    output.line(markdown.trim_end());
    let write = |path: &Path, text: &str| {
        write_atomically(path, text.as_bytes())
            .with_context(|| format!("{}: can't be written", path.display()))
    };
    if let [table, plot, json] = files.as_slice() {
        write(table, &markdown)?;
        write(plot, &picture(&report)?)?;
        let mut text =
            serde_json::to_string_pretty(&report).context("the figures don't serialize")?;
        text.push('\n');
        write(json, &text)?;
    }
    for file in &files {
        output.line(format!("wrote {}", file.display()));
    }
    output.json(&report)?;
    Ok(Outcome::Done)
}

/// How much of the way from NVFP4 without clipping back to FP8 a perplexity lies.
fn gap_recovered(rows: &[QuantRow], perplexity: f64) -> Option<f64> {
    let of = |scheme: &str| {
        rows.iter()
            .find(|row| row.evaluation.scheme == scheme)
            .map(|row| row.evaluation.perplexity)
    };
    let (fp8, nvfp4) = (of("fp8")?, of("nvfp4")?);
    Some((nvfp4 - perplexity) / (nvfp4 - fp8))
}

fn markdown(report: &QuantReport) -> String {
    let mut text = format!(
        "# Perplexity against bits: {}\n\nStream {}, {} tokens. Fisher information of {} windows ({} tokens), ranges of {} windows. \
         Scales of the weights are clipped by Fisher-weighted error and FP8 blocks chosen by one threshold on the Fisher-weighted \
         impact score, unless the name says otherwise. The gap is the one between NVFP4 and FP8.\n\n\
         | | perplexity | against FP8 | gap recovered | bits a weight | bits an activation | FP8 weight blocks | FP8 activation blocks |\n\
         |---|---|---|---|---|---|---|---|\n",
        report.model,
        report.stream,
        report.tokens,
        report.fisher_windows,
        report.fisher_tokens,
        report.calibration_windows,
    );
    let fp8 = report
        .rows
        .iter()
        .find(|row| row.evaluation.scheme == "fp8")
        .map(|row| row.evaluation.perplexity);
    for row in &report.rows {
        let perplexity = row.evaluation.perplexity;
        let optional = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        let bits = |bits: Option<f64>| optional(bits.map(|bits| format!("{bits:.4}")));
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | {perplexity:.4} | {} | {} | {} | {} | {} | {} |",
            row.name,
            optional(fp8.map(|fp8| format!("{:+.2} %", (perplexity / fp8 - 1.0) * 100.0))),
            optional(row.gap_recovered.map(percent)),
            bits(row.weight_bits),
            bits(row.activation_bits),
            optional(row.evaluation.weight_fp8_share.map(percent)),
            optional(row.evaluation.activation_fp8_share.map(percent)),
        );
    }
    text
}

fn picture(report: &QuantReport) -> anyhow::Result<String> {
    let point = |row: &QuantRow| {
        row.weight_bits
            .map(|bits| (bits, row.evaluation.perplexity))
    };
    let group = |group| report.rows.iter().filter(move |row| row.group == group);
    let mut sweep: Vec<(f64, f64)> = group(Group::Sweep).filter_map(point).collect();
    sweep.sort_by(|a, b| a.0.total_cmp(&b.0));
    let labelled = |row: &QuantRow| point(row).map(|point| (point, row.name.clone()));
    let full = report
        .rows
        .iter()
        .find(|row| row.weight_bits.is_none())
        .map(|row| row.evaluation.perplexity);
    Plot {
        title: format!("{}, {}", report.model, report.stream),
        x: "bits a weight, scales and tags included".to_owned(),
        y: "perplexity".to_owned(),
        level: full.map(|level| (level, "full precision".to_owned())),
        curve: Curve {
            name: "FGMP: Fisher, clipping, global threshold".to_owned(),
            points: sweep,
        },
        marks: group(Group::Reference)
            .chain(group(Group::Alternative))
            .chain(group(Group::Refinement))
            .filter_map(labelled)
            .collect(),
    }
    .to_svg()
}
