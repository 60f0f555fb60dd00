//! `fgmp matmul`: the exact product of two packed tensors.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use golden::matmul::{matmul, output_scale};
use golden::model::{Capture, Input, KvCache, LanguageModel, Matrix, Site, Tally, forward};
use golden::packed::{PackedFile, PackedTensor};
use golden::quantizer::WeightOptions;
use golden::tensors::{RawTensor, TensorFile};
use golden::{Scheme, Share};
use safetensors::Dtype;
use serde::Serialize;

use crate::arguments::{Matmul, ModelArguments};
use crate::model;
use crate::output::{Outcome, Output, check_writable, count, percent};

#[derive(Serialize)]
struct Report {
    weights: String,
    activations: String,
    output: Option<String>,
    k: usize,
    shape: [usize; 2],
    output_scale: f32,
    weight_fp8_share: f64,
    activation_fp8_share: f64,
    nan_outputs: usize,
    accumulator_min: i64,
    accumulator_max: i64,
    sample: Vec<f32>,
}

/// A packed tensor named `FILE` or `FILE:TENSOR`.
fn operand(argument: &str) -> anyhow::Result<(String, PackedTensor)> {
    let (path, wanted) = if Path::new(argument).exists() {
        (PathBuf::from(argument), None)
    } else {
        match argument.rsplit_once(':') {
            Some((path, tensor)) if Path::new(path).exists() => (PathBuf::from(path), Some(tensor)),
            _ => (PathBuf::from(argument), None),
        }
    };
    let mut file = PackedFile::open(&path)?;
    let names = || file.packed.keys().cloned().collect::<Vec<_>>().join(", ");
    let name = match wanted {
        Some(name) if file.packed.contains_key(name) => name.to_owned(),
        Some(name) => bail!(
            "{}: tensor {name} is missing; it holds {}",
            path.display(),
            names()
        ),
        None if file.packed.len() == 1 => names(),
        None if file.packed.is_empty() => bail!("{}: holds no packed tensor", path.display()),
        None => bail!(
            "{}: holds {} packed tensors; choose one as {}:TENSOR from {}",
            path.display(),
            file.packed.len(),
            path.display(),
            names()
        ),
    };
    let tensor = file
        .packed
        .remove(&name)
        .context("the tensor was just found")?;
    Ok((format!("{}:{name}", path.display()), tensor))
}

/// The inputs of one site of a model for the first tokens of a stream, row after row.
pub fn site_input(
    model: &dyn LanguageModel,
    site: Site,
    tokens: &[u32],
    rows: usize,
) -> anyhow::Result<Vec<f32>> {
    let seen = std::sync::Mutex::new(Vec::new());
    let capture = Capture::new(model, |at: Site, x: &[f32]| {
        if at == site
            && let Ok(mut seen) = seen.lock()
        {
            seen.extend_from_slice(x);
        }
    });
    let read = &tokens[..rows.min(tokens.len())];
    let config = *model.trunk().config();
    forward(
        &capture,
        read,
        &mut KvCache::new(),
        &mut Tally::new(&config),
        |_, _| (),
    )?;
    Ok(seen.into_inner().unwrap_or_default())
}

/// A layer of the embedded model, quantized, and real activations for it.
fn embedded_operands(output: &Output) -> anyhow::Result<[(String, PackedTensor); 2]> {
    let prepared = model::embedded(&ModelArguments {
        calibration_windows: Some(1),
        ..Default::default()
    })?;
    let calibrated = prepared.calibrate(output)?;
    let options = WeightOptions::new(Scheme::Fgmp {
        fp8_share: Share::FGMP,
    });
    let quantized = prepared.quantize(options, &calibrated)?;
    let site = Site {
        repetition: 0,
        layer: 0,
        input: Input::Mlp,
    };
    let x = site_input(&quantized, site, &prepared.reader.read("valid")?, 64)?;
    let activations = quantized
        .quantize_input(site, &x)
        .context("the embedded model has this site")?;
    let weights = quantized
        .packed(0, Matrix::Up)
        .context("the embedded model has this matrix")?
        .clone();
    Ok([
        (
            format!("{}:{}", model::EMBEDDED, Matrix::Up.tensor_name(0)),
            weights,
        ),
        (
            format!("{}: its input for 64 tokens", model::EMBEDDED),
            activations,
        ),
    ])
}

/// Runs the command.
pub fn run(arguments: &Matmul, output: &Output) -> anyhow::Result<Outcome> {
    if let Some(path) = &arguments.output {
        check_writable(path)?;
    }
    let [(weights_name, weights), (activations_name, activations)] =
        match (&arguments.weights, &arguments.activations) {
            (Some(weights), Some(activations)) => [operand(weights)?, operand(activations)?],
            _ => embedded_operands(output)?,
        };
    let product = matmul(&weights, &activations)
        .with_context(|| format!("{weights_name} x {activations_name}"))?;
    let scale = output_scale(&weights, &activations)
        .with_context(|| format!("S of {weights_name} times S of {activations_name}"))?;
    let results = product.requantized(scale);
    let accumulators = product
        .accumulators
        .iter()
        .map(|accumulator| {
            i64::try_from(accumulator.value()).with_context(|| {
                format!("an accumulator of {weights_name} x {activations_name} is beyond 64 bits: K = {} is too large", weights.k())
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shape = vec![product.rows, product.columns];
    if let Some(path) = &arguments.output {
        let mut file = TensorFile::new(path);
        file.tensors
            .insert("y".into(), RawTensor::from_bf16(shape.clone(), &results));
        if arguments.raw {
            file.tensors.insert(
                "accumulator".into(),
                RawTensor {
                    dtype: Dtype::I64,
                    shape: shape.clone(),
                    bytes: accumulators
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                },
            );
            file.tensors.insert(
                "nan".into(),
                RawTensor {
                    dtype: Dtype::U8,
                    shape,
                    bytes: product
                        .accumulators
                        .iter()
                        .map(|accumulator| accumulator.is_nan().into())
                        .collect(),
                },
            );
        }
        file.save(path)?;
    }
    let report = Report {
        weights: weights_name,
        activations: activations_name,
        output: arguments
            .output
            .as_ref()
            .map(|path| path.display().to_string()),
        k: weights.k(),
        shape: [product.rows, product.columns],
        output_scale: scale.get(),
        weight_fp8_share: weights.fp8_share(),
        activation_fp8_share: activations.fp8_share(),
        nan_outputs: product
            .accumulators
            .iter()
            .filter(|accumulator| accumulator.is_nan())
            .count(),
        accumulator_min: accumulators.iter().copied().min().unwrap_or_default(),
        accumulator_max: accumulators.iter().copied().max().unwrap_or_default(),
        sample: results.iter().take(4).map(|y| y.to_f32()).collect(),
    };
    output.line(format!(
        "weights      {} ({} FP8 blocks)",
        report.weights,
        percent(report.weight_fp8_share)
    ));
    output.line(format!(
        "activations  {} ({} FP8 blocks)",
        report.activations,
        percent(report.activation_fp8_share)
    ));
    output.line(format!(
        "y            {} x {} BF16, K = {}, {} exact products summed",
        report.shape[0],
        report.shape[1],
        report.k,
        count((report.shape[0] * report.shape[1] * report.k) as u64)
    ));
    output.line(format!(
        "accumulators {} ... {} units of 2^-20, {} NaN; M = {:e}",
        report.accumulator_min, report.accumulator_max, report.nan_outputs, report.output_scale
    ));
    output.line(format!("first y      {:?}", report.sample));
    if let Some(path) = &report.output {
        output.line(format!("wrote {path}"));
    }
    output.json(&report)?;
    Ok(Outcome::Done)
}
