//! `fgmp quantize`: models or plain tensors to packed tensors.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail};
use checkpoints::Checkpoint;
use checkpoints::nvfp4::{Export, Layout, llama_config};
use checkpoints::streaming::{self, Job, StreamError};
use golden::Scheme;
use golden::model::Matrix;
use golden::packed::{PackedFile, PackedTensor};
use golden::quantizer::WeightOptions;
use safetensors::Dtype;
use serde::Serialize;

use crate::arguments::{FormatName, Quantize, Refinement, SchemeName};
use crate::model::{self, Prepared};
use crate::output::{Interrupt, Outcome, Output, check_writable, count, percent};

#[derive(Serialize)]
struct TensorReport {
    name: String,
    shape: Vec<usize>,
    tensor_scale: f32,
    blocks: usize,
    fp8_blocks: usize,
    bits_per_element: f64,
    mse: f64,
}

#[derive(Serialize)]
struct Report {
    input: String,
    output: Option<String>,
    scheme: &'static str,
    fp8_share: f64,
    bits_per_element: f64,
    tensors: Vec<TensorReport>,
}

/// Mean squared error of the decoded values; sums in FP64.
fn mse(original: &[f32], packed: &PackedTensor) -> f64 {
    let sum: f64 = original
        .iter()
        .zip(packed.decode())
        .map(|(&x, y)| (f64::from(x) - f64::from(y)).powi(2))
        .sum();
    sum / original.len() as f64
}

/// Quantizes a model that fits in memory, activations and all. `None` if the user stopped it.
fn quantize_model(
    arguments: &Quantize,
    options: WeightOptions,
    output: &Output,
) -> anyhow::Result<Option<(Vec<TensorReport>, String)>> {
    let prepared = Prepared::open(arguments.input.as_deref(), &arguments.model)?;
    let calibrated = prepared.calibrate(output)?;
    let spinner = output.spinner("quantizing");
    let mut quantized = prepared.quantize(options, &calibrated)?;
    spinner.finish_and_clear();
    let done = prepared.refine(
        &mut quantized,
        arguments.refinement,
        options.clip,
        &calibrated,
        output,
    )?;
    if !done {
        return Ok(None);
    }
    let packed = quantized.to_packed_file();
    let config = *prepared.model.config();
    let tensors = (0..config.layers)
        .flat_map(|layer| Matrix::ALL.map(|matrix| (layer, matrix)))
        .filter_map(|(layer, matrix)| {
            let tensor = quantized.packed(layer, matrix)?;
            let original = prepared.model.matrix(layer, matrix)?;
            Some(TensorReport {
                name: matrix.tensor_name(layer),
                shape: tensor.shape().to_vec(),
                tensor_scale: tensor.scale().get(),
                blocks: tensor.block_count(),
                fp8_blocks: tensor.fp8_blocks(),
                bits_per_element: tensor.bits_per_element(),
                mse: mse(original, tensor),
            })
        })
        .collect();
    match (&arguments.output, arguments.format.layout()) {
        (None, _) => {}
        (Some(path), None) => packed.save(path)?,
        (Some(folder), Some(layout)) => {
            let tied = !packed.plain.contains_key("lm_head.weight");
            let dtype = packed
                .plain
                .values()
                .map(|tensor| tensor.dtype)
                .next()
                .unwrap_or(Dtype::BF16);
            export(
                &packed,
                layout,
                &llama_config(&config, tied, dtype)?,
                folder,
            )?;
        }
    }
    Ok(Some((tensors, prepared.name)))
}

/// Writes a folder that NVFP4 readers load.
fn export(
    packed: &PackedFile,
    layout: Layout,
    config: &serde_json::Map<String, serde_json::Value>,
    folder: &Path,
) -> anyhow::Result<()> {
    let export = Export::new(packed, layout, &BTreeMap::new())?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: can't be made", folder.display()))?;
    Ok(export.save(folder, config)?)
}

/// Quantizes the weights of a file of any size, tensor by tensor. `None` if the user stopped it.
fn quantize_weights(
    arguments: &Quantize,
    options: WeightOptions,
    output: &Output,
) -> anyhow::Result<Option<(Vec<TensorReport>, String)>> {
    let Some(path) = &arguments.input else {
        bail!("--weights-only: takes a file; the embedded models fit in memory");
    };
    if arguments.refinement != Refinement::default() {
        bail!(
            "--compensate and --distill need a model in memory and calibration; leave --weights-only away"
        );
    }
    let checkpoint = Checkpoint::open(path)?;
    let sensitivity = arguments
        .model
        .fisher
        .as_ref()
        .map(|path| Checkpoint::open(path))
        .transpose()?;
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let in_scratch = scratch.path().join("packed.safetensors");
    let target = match (&arguments.output, arguments.format.layout()) {
        (Some(path), None) => path,
        _ => &in_scratch,
    };
    let job = Job {
        checkpoint: &checkpoint,
        sensitivity: sensitivity.as_ref(),
        options,
        output: target,
    };
    let interrupt = Interrupt::graceful();
    let progress = output.progress("quantizing", 1);
    let result = streaming::quantize(job, &mut |step| {
        progress.set_length(step.all);
        progress.set_position(step.done);
        progress.set_message(format!("{} {}", step.stage, shortened(step.tensor)));
        if interrupt.asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    progress.finish_and_clear();
    let tensors = match result {
        Err(StreamError::Interrupted) => {
            output.line(format!("{}: {}", path.display(), StreamError::Interrupted));
            return Ok(None);
        }
        // Those name the file themselves.
        Err(error @ (StreamError::Checkpoint(_) | StreamError::Io { .. })) => {
            return Err(error.into());
        }
        Err(error) => return Err(anyhow::anyhow!("{}: {error}", path.display())),
        Ok(tensors) => tensors,
    };
    if let (Some(folder), Some(layout)) = (&arguments.output, arguments.format.layout()) {
        let packed = PackedFile::open(&in_scratch)?;
        export(&packed, layout, &serde_json::Map::new(), folder)?;
    }
    let tensors = tensors
        .into_iter()
        .map(|tensor| TensorReport {
            name: tensor.name,
            shape: tensor.shape,
            tensor_scale: tensor.scale.get(),
            blocks: tensor.blocks,
            fp8_blocks: tensor.fp8_blocks,
            bits_per_element: tensor.bits_per_element,
            mse: tensor.mse,
        })
        .collect();
    Ok(Some((tensors, path.display().to_string())))
}

/// The end of a long name.
fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth_back(17)
        .and_then(|(start, _)| name.get(start..))
        .unwrap_or(name)
}

/// Runs the command.
pub fn run(arguments: &Quantize, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if let (Some(path), FormatName::Packed) = (&arguments.output, arguments.format) {
        check_writable(path)?;
    }
    if arguments.scheme == SchemeName::Bf16 {
        bail!("--scheme bf16: full precision has no packed form; expected fp8, nvfp4 or fgmp");
    }
    let scheme = arguments.scheme.scheme(arguments.fp8_share);
    let options = WeightOptions {
        clip: arguments.clip,
        selection: arguments.selection.selection(seed),
        profile: arguments.profile,
        ..WeightOptions::new(scheme)
    };
    options.check()?;
    let input = arguments.input.as_deref();
    if model::is_packed(input)? {
        bail!(
            "{}: is already packed",
            input.unwrap_or(Path::new("")).display()
        );
    }
    let quantized = if model::is_model(input)? && !arguments.weights_only {
        quantize_model(arguments, options, output)?
    } else {
        quantize_weights(arguments, options, output)?
    };
    let Some((tensors, name)) = quantized else {
        return Ok(Outcome::Interrupted);
    };

    let blocks: usize = tensors.iter().map(|tensor| tensor.blocks).sum();
    let fp8_blocks: usize = tensors.iter().map(|tensor| tensor.fp8_blocks).sum();
    let fp8_share = fp8_blocks as f64 / blocks as f64;
    let elements: usize = tensors
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum();
    let bits: f64 = tensors
        .iter()
        .map(|tensor| tensor.bits_per_element * tensor.shape.iter().product::<usize>() as f64)
        .sum();
    let report = Report {
        input: name,
        output: arguments
            .output
            .as_ref()
            .map(|path| path.display().to_string()),
        scheme: scheme.name(),
        fp8_share,
        bits_per_element: bits / elements as f64,
        tensors,
    };
    let rows: Vec<Vec<String>> = report
        .tensors
        .iter()
        .map(|tensor| {
            vec![
                tensor.name.clone(),
                tensor
                    .shape
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" x "),
                format!("{:.6e}", tensor.tensor_scale),
                count(tensor.blocks as u64),
                percent(tensor.fp8_blocks as f64 / tensor.blocks as f64),
                format!("{:.4}", tensor.bits_per_element),
                format!("{:.3e}", tensor.mse),
            ]
        })
        .collect();
    output.table(
        &[
            "tensor",
            "shape",
            "S",
            "blocks",
            "FP8",
            "bits/element",
            "MSE",
        ],
        &rows,
    );
    let saved = match scheme {
        Scheme::Fp8 => String::new(),
        _ => format!(
            ", {:.2} % below FP8's 8",
            (1.0 - report.bits_per_element / 8.0) * 100.0
        ),
    };
    output.line(format!(
        "{}: {} blocks, {} FP8, {:.4} bits an element{saved}",
        report.input,
        count(blocks as u64),
        percent(fp8_share),
        report.bits_per_element
    ));
    if let Some(path) = &report.output {
        output.line(format!("wrote {path}"));
    }
    output.json(&report)?;
    Ok(Outcome::Done)
}
