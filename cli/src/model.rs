//! The embedded model and streams, and models from files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use golden::model::{Calibration, ConfigHints, LanguageModel, Model, QuantizedModel};
use golden::packed::PackedFile;
use golden::quantizer::WeightOptions;
use golden::tensors::{TensorFile, read_tokens};

use crate::arguments::ModelArguments;

static MODEL: &[u8] = include_bytes!("../../models/shared-4x3.safetensors");
static CALIBRATION: &[u8] = include_bytes!("../../models/calibration.u16");
static VALID: &[u8] = include_bytes!("../../models/valid.u16");
static TEST: &[u8] = include_bytes!("../../models/test.u16");

/// How messages call the embedded model.
pub const EMBEDDED: &str = "shared-4x3 (embedded)";

fn tokens_of(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&pair| u16::from_le_bytes(pair).into())
        .collect()
}

/// A token stream: `valid`, `test` or a file.
pub fn tokens(name: &str) -> anyhow::Result<Vec<u32>> {
    match name {
        "valid" => Ok(tokens_of(VALID)),
        "test" => Ok(tokens_of(TEST)),
        file => Ok(read_tokens(Path::new(file))?),
    }
}

/// The calibration stream of the arguments.
pub fn calibration_tokens(arguments: &ModelArguments) -> anyhow::Result<Vec<u32>> {
    match &arguments.calibration {
        Some(file) => Ok(read_tokens(file)?),
        None => Ok(tokens_of(CALIBRATION)),
    }
}

/// The tensors of a file, or of the embedded model; and the name that messages give them.
pub fn tensors(input: Option<&Path>) -> anyhow::Result<(TensorFile, PathBuf)> {
    match input {
        Some(path) => {
            if path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
            {
                anyhow::bail!(
                    "{}: GGUF files are not read by this version; expected safetensors",
                    path.display()
                );
            }
            Ok((TensorFile::open(path)?, path.to_owned()))
        }
        None => {
            let path = PathBuf::from(EMBEDDED);
            Ok((TensorFile::parse(&path, MODEL)?, path))
        }
    }
}

/// What the arguments say of a model's shape.
pub fn hints(arguments: &ModelArguments) -> ConfigHints {
    ConfigHints {
        repetitions: arguments.repetitions,
        heads: arguments.heads,
        kv_heads: arguments.kv_heads,
        context: arguments.context,
        ..ConfigHints::default()
    }
}

/// A model as it was found.
pub enum Found {
    /// In full precision.
    Full(Box<Model>),
    /// Already quantized.
    Packed(Box<QuantizedModel>),
}

/// Opens a model, packed or not.
pub fn open(input: Option<&Path>, arguments: &ModelArguments) -> anyhow::Result<Found> {
    let (file, path) = tensors(input)?;
    if PackedFile::is_packed(&file) {
        let packed = PackedFile::from_tensors(file)?;
        Ok(Found::Packed(Box::new(QuantizedModel::from_packed_file(
            &path, packed,
        )?)))
    } else {
        let model = Model::from_tensors(file, hints(arguments))
            .with_context(|| format!("{}", path.display()))?;
        Ok(Found::Full(Box::new(model)))
    }
}

/// The embedded model in full precision.
pub fn embedded() -> anyhow::Result<Model> {
    let (file, _) = tensors(None)?;
    Ok(Model::from_tensors(file, ConfigHints::default())?)
}

/// Activation ranges and scores of a model on the arguments' calibration stream.
pub fn calibrate(model: &Model, arguments: &ModelArguments) -> anyhow::Result<Calibration> {
    let tokens = calibration_tokens(arguments)?;
    let windows = arguments.calibration_windows.unwrap_or(8);
    let source = arguments.calibration.as_ref().map_or_else(
        || {
            "the embedded calibration stream (give one that fits the model with --calibration)"
                .to_owned()
        },
        |path| path.display().to_string(),
    );
    Calibration::run(
        model,
        &tokens,
        model.trunk().config().context,
        windows,
        None,
    )
    .with_context(|| format!("calibration on {source}"))
}

/// A model quantized with uniform sensitivity.
pub fn quantize(
    model: &Model,
    options: WeightOptions,
    calibration: &Calibration,
) -> anyhow::Result<QuantizedModel> {
    Ok(QuantizedModel::new(model, options, None, calibration)?)
}
