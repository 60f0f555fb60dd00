//! `fgmp eval`: perplexity with the exact arithmetic.

use std::path::Path;
use std::time::Instant;

use golden::eval::{Evaluation, Options, perplexity, weight_fp8_share_by_layer};
use golden::model::{LanguageModel, QuantizedModel};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use serde::Serialize;

use crate::arguments::{Eval, SchemeName};
use crate::model::{self, Found};
use crate::output::{Outcome, Output, count, percent};

/// One evaluation.
#[derive(Serialize)]
pub struct Row {
    /// Stream.
    pub stream: String,
    /// Scheme.
    pub scheme: &'static str,
    /// Perplexity.
    pub perplexity: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Share of FP8 blocks among the weights; absent in full precision.
    pub weight_fp8_share: Option<f64>,
    /// Share of FP8 blocks among the activations; absent in full precision.
    pub activation_fp8_share: Option<f64>,
    /// By layer.
    pub weight_fp8_share_by_layer: Vec<f64>,
    /// By layer, repetitions one after the other.
    pub activation_fp8_share_by_layer: Vec<f64>,
    /// Wall time.
    pub seconds: f64,
}

#[derive(Serialize)]
struct Report {
    model: String,
    fp8_share: Option<f64>,
    evaluations: Vec<Row>,
}

/// A stream of tokens with its name.
pub struct Stream {
    /// How the user called it.
    pub name: String,
    /// The tokens.
    pub tokens: Vec<u32>,
}

/// Evaluates one engine on one stream.
pub fn evaluate(
    engine: &dyn LanguageModel,
    quantized: Option<&QuantizedModel>,
    scheme: Scheme,
    stream: &Stream,
    windows: Option<usize>,
    output: &Output,
) -> anyhow::Result<Row> {
    let options = Options {
        windows,
        ..Options::new(engine.trunk().config())
    };
    let progress = output.progress(&format!("{} {}", scheme.name(), stream.name), 1);
    let start = Instant::now();
    let Evaluation {
        perplexity,
        tokens,
        activation_fp8_share,
        activation_fp8_share_by_layer,
        ..
    } = perplexity(engine, &stream.tokens, options, &|done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
    })
    .map_err(|error| anyhow::anyhow!("{}: {error}", stream.name))?;
    progress.finish_and_clear();
    Ok(Row {
        stream: stream.name.clone(),
        scheme: scheme.name(),
        perplexity,
        tokens,
        weight_fp8_share: quantized.map(QuantizedModel::weight_fp8_share),
        activation_fp8_share: quantized.map(|_| activation_fp8_share),
        weight_fp8_share_by_layer: quantized.map(weight_fp8_share_by_layer).unwrap_or_default(),
        activation_fp8_share_by_layer: quantized
            .map(|_| activation_fp8_share_by_layer)
            .unwrap_or_default(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The rows as a table.
pub fn table(rows: &[Row], output: &Output) {
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.scheme.to_owned(),
                row.stream.clone(),
                count(row.tokens as u64),
                format!("{:.4}", row.perplexity),
                share(row.weight_fp8_share),
                share(row.activation_fp8_share),
                format!("{:.1}", row.seconds),
            ]
        })
        .collect();
    output.table(
        &[
            "scheme",
            "stream",
            "tokens",
            "perplexity",
            "FP8 weight blocks",
            "FP8 activation blocks",
            "seconds",
        ],
        &cells,
    );
}

/// All four schemes.
pub const ALL: [SchemeName; 4] = [
    SchemeName::Bf16,
    SchemeName::Fp8,
    SchemeName::Nvfp4,
    SchemeName::Fgmp,
];

/// Runs the command.
pub fn run(arguments: &Eval, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let names: Vec<String> = if arguments.tokens.is_empty() {
        vec!["valid".into(), "test".into()]
    } else {
        arguments.tokens.clone()
    };
    let found = model::open(arguments.input.as_deref(), &arguments.model)?;
    let (reader, name) = match &found {
        Found::Full(prepared) => (&prepared.reader, prepared.name.clone()),
        Found::Packed(_, reader) => (
            reader.as_ref(),
            arguments
                .input
                .as_deref()
                .unwrap_or(Path::new(model::EMBEDDED))
                .display()
                .to_string(),
        ),
    };
    let streams = names
        .into_iter()
        .map(|name| {
            Ok(Stream {
                tokens: reader.read(&name)?,
                name,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    match &found {
        Found::Packed(quantized, _) => {
            if !arguments.scheme.is_empty() {
                anyhow::bail!(
                    "{name}: is already quantized ({}), so --scheme can't choose; give the full-precision model",
                    quantized.scheme().name()
                );
            }
            output.line(format!("{name}: packed as {}", quantized.scheme().name()));
            for stream in &streams {
                rows.push(evaluate(
                    quantized.as_ref(),
                    Some(quantized),
                    quantized.scheme(),
                    stream,
                    arguments.windows,
                    output,
                )?);
            }
        }
        Found::Full(prepared) => {
            let full = &prepared.model;
            output.line(format!(
                "{name}: {} parameters",
                count(full.parameters() as u64)
            ));
            let schemes = if arguments.scheme.is_empty() {
                ALL.to_vec()
            } else {
                arguments.scheme.clone()
            };
            let calibration = if schemes.iter().any(|&scheme| scheme != SchemeName::Bf16) {
                Some(prepared.calibrate(output)?)
            } else {
                None
            };
            for scheme in schemes {
                let scheme = scheme.scheme(arguments.fp8_share);
                let quantized = match (&calibration, scheme) {
                    (Some(calibration), Scheme::Fp8 | Scheme::Nvfp4 | Scheme::Fgmp { .. }) => {
                        let options = WeightOptions {
                            clip: arguments.clip,
                            selection: arguments.selection.selection(seed),
                            ..WeightOptions::new(scheme)
                        };
                        let mut quantized = prepared.quantize(options, calibration)?;
                        if !prepared.refine(
                            &mut quantized,
                            arguments.refinement,
                            arguments.clip,
                            calibration,
                            output,
                        )? {
                            return Ok(Outcome::Interrupted);
                        }
                        Some(quantized)
                    }
                    _ => None,
                };
                for stream in &streams {
                    let engine: &dyn LanguageModel = match &quantized {
                        Some(quantized) => quantized,
                        None => full,
                    };
                    rows.push(evaluate(
                        engine,
                        quantized.as_ref(),
                        scheme,
                        stream,
                        arguments.windows,
                        output,
                    )?);
                }
            }
        }
    }
    table(&rows, output);
    let fp8_share = rows
        .iter()
        .any(|row| row.scheme == "fgmp")
        .then(|| Share::get(arguments.fp8_share));
    output.json(&Report {
        model: name,
        fp8_share,
        evaluations: rows,
    })?;
    Ok(Outcome::Done)
}
