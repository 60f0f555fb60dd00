//! `fgmp quantize`: models or plain tensors to packed tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use golden::Scheme;
use golden::model::{Matrix, Model};
use golden::packed::{PackedFile, PackedTensor, Profile};
use golden::quantizer::{WeightOptions, WeightTensor, quantize_weights};
use golden::tensors::{Tensor, TensorFile};
use safetensors::Dtype;
use serde::Serialize;

use crate::arguments::{ProfileName, Quantize, SchemeName};
use crate::model::{self, Prepared};
use crate::output::{Outcome, Output, check_writable, count, percent};

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

/// What packed tensors are compared with.
enum Originals {
    Model(Box<Model>),
    Tensors(TensorFile),
}

impl Originals {
    fn data(&self, name: &str) -> anyhow::Result<Cow<'_, [f32]>> {
        match self {
            Self::Tensors(file) => Ok(Cow::Owned(file.tensor(name)?.data)),
            Self::Model(model) => (0..model.config().layers)
                .flat_map(|layer| Matrix::ALL.map(|matrix| (layer, matrix)))
                .find(|(layer, matrix)| matrix.tensor_name(*layer) == name)
                .and_then(|(layer, matrix)| model.matrix(layer, matrix))
                .map(Cow::Borrowed)
                .with_context(|| format!("the model has no matrix {name}")),
        }
    }
}

/// Whether a type holds integers or booleans, which are copied as they are.
fn is_integer(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::U32
            | Dtype::I32
            | Dtype::U64
            | Dtype::I64
    )
}

/// Packs every float tensor of at least two dimensions; the others are kept as they are.
fn quantize_tensors(
    file: &TensorFile,
    path: &Path,
    options: WeightOptions,
) -> anyhow::Result<PackedFile> {
    let mut floats: Vec<(String, Tensor)> = Vec::new();
    let mut plain = BTreeMap::new();
    for (name, raw) in &file.tensors {
        match raw.to_f32() {
            Some(tensor) if tensor.shape.len() >= 2 => floats.push((name.clone(), tensor)),
            None if !is_integer(raw.dtype) => bail!(
                "{}: tensor {name}: expected F32, F16 or BF16, found {:?}",
                path.display(),
                raw.dtype
            ),
            // Vectors, and integers such as positions.
            _ => {
                plain.insert(name.clone(), raw.clone());
            }
        }
    }
    if floats.is_empty() {
        let found: Vec<String> = plain
            .iter()
            .map(|(name, raw)| format!("{name} ({:?}, shape {:?})", raw.dtype, raw.shape))
            .collect();
        bail!(
            "{}: nothing to quantize: expected F32, F16 or BF16 tensors of two or more dimensions, found {}",
            path.display(),
            if found.is_empty() {
                "none at all".to_owned()
            } else {
                found.join(", ")
            }
        );
    }
    if let Some((name, tensor)) = floats.iter().find(|(_, tensor)| tensor.shape.contains(&0)) {
        bail!(
            "{}: tensor {name}: has shape {:?}; the reduction dimension K and all others must be at least 1",
            path.display(),
            tensor.shape
        );
    }
    let weights: Vec<WeightTensor<'_>> = floats
        .iter()
        .map(|(name, tensor)| WeightTensor {
            name,
            shape: &tensor.shape,
            data: &tensor.data,
            sensitivity: None,
        })
        .collect();
    let quantized = quantize_weights(&weights, options)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let packed = floats
        .iter()
        .map(|(name, _)| name.clone())
        .zip(quantized.tensors)
        .collect();
    Ok(PackedFile {
        packed,
        plain,
        model: serde_json::Map::new(),
    })
}

/// Runs the command.
pub fn run(arguments: &Quantize, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if let Some(path) = &arguments.output {
        check_writable(path)?;
    }
    if arguments.scheme == SchemeName::Bf16 {
        bail!("--scheme bf16: full precision has no packed form; expected fp8, nvfp4 or fgmp");
    }
    let scheme = arguments.scheme.scheme(arguments.fp8_share);
    let options = WeightOptions {
        clip: arguments.clip,
        selection: arguments.selection.selection(seed),
        profile: match arguments.profile {
            ProfileName::Fgmp => Profile::Fgmp,
            ProfileName::Nvfp4 => Profile::Nvfp4,
        },
        ..WeightOptions::new(scheme)
    };
    let input = arguments.input.as_deref();
    let (packed, originals, path) = if model::is_model(input)? {
        let prepared = Prepared::open(input, &arguments.model)?;
        let calibrated = prepared.calibrate(output)?;
        let spinner = output.spinner("quantizing");
        let packed = prepared.quantize(options, &calibrated)?.to_packed_file();
        spinner.finish_and_clear();
        (
            packed,
            Originals::Model(Box::new(prepared.model)),
            PathBuf::from(prepared.name),
        )
    } else {
        let (file, path) = model::tensors(input)?;
        if PackedFile::is_packed(&file) {
            bail!("{}: is already packed", path.display());
        }
        let spinner = output.spinner("quantizing");
        let packed = quantize_tensors(&file, &path, options)?;
        spinner.finish_and_clear();
        (packed, Originals::Tensors(file), path)
    };

    let tensors = packed
        .packed
        .iter()
        .map(|(name, tensor)| {
            Ok(TensorReport {
                name: name.clone(),
                shape: tensor.shape().to_vec(),
                tensor_scale: tensor.scale().get(),
                blocks: tensor.block_count(),
                fp8_blocks: tensor.fp8_blocks(),
                bits_per_element: tensor.bits_per_element(),
                mse: mse(&originals.data(name)?, tensor),
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &arguments.output {
        packed.save(path)?;
    }

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
        input: path.display().to_string(),
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
