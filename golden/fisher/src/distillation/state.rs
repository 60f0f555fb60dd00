//! The file that lets a distillation go on where it stopped.

use std::path::Path;

use golden::model::{LanguageModel, Model, QuantizedModel};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{DistillationOptions, Tuning};
use crate::pass::PassError;
use crate::state;

/// Version of the file's layout and of what its fingerprint covers.
const STATE_VERSION: u32 = 1;

/// What a state belongs to: a hash of both models, the windows and the options.
pub(super) struct Fingerprint(String);

impl Fingerprint {
    pub(super) fn new(
        full: &Model,
        quantized: &QuantizedModel,
        windows: &[Vec<u32>],
        options: &DistillationOptions,
    ) -> Self {
        let DistillationOptions {
            steps,
            batch,
            learning_rate,
            betas,
            epsilon,
            seed,
            parallel: _,
            state: _,
        } = options;
        let mut hash = Sha256::new();
        hash.update(STATE_VERSION.to_le_bytes());
        hash.update(state::Fingerprint::new(full).after(windows));
        let options = json!([steps, batch, learning_rate, betas, epsilon, seed]);
        hash.update(options.to_string());
        for (name, packed) in quantized.packed_tensors() {
            hash.update(name);
            hash.update(packed.scale().get().to_le_bytes());
            hash.update(packed.tags());
            hash.update(packed.scales());
            for word in packed.payload() {
                hash.update(word.to_le_bytes());
            }
        }
        for site in quantized.config().all_sites() {
            if let Some(quantizer) = quantized.quantizer(site) {
                let parameters = json!([
                    quantizer.scale(),
                    quantizer.policy(),
                    quantizer.sensitivity()
                ]);
                hash.update(parameters.to_string());
            }
        }
        let trunk = quantized.trunk();
        let norms = trunk.norms().iter().flatten().flatten();
        for gain in norms.chain(trunk.final_norm()) {
            hash.update(gain.to_le_bytes());
        }
        let digest = hash.finalize();
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What the file's metadata says under `distillation-state`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    fingerprint: String,
}

const CHANGE: &str = "change";
const MEAN: &str = "mean";
const SQUARE: &str = "square";
const LOSSES: &str = "losses";

/// Writes a state, whole or not at all. `norms` share the changes.
pub(super) fn save(
    path: &Path,
    tuning: &Tuning,
    fingerprint: &Fingerprint,
    norms: usize,
) -> Result<(), PassError> {
    let mut file = TensorFile::new(path);
    let mut insert = |name: &str, shape: Vec<usize>, values: &[f64]| {
        let tensor = RawTensor {
            dtype: Dtype::F64,
            shape,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        file.tensors.insert(name.into(), tensor);
    };
    let shape = vec![norms, tuning.change.len() / norms.max(1)];
    insert(CHANGE, shape.clone(), &tuning.change);
    insert(MEAN, shape.clone(), &tuning.mean);
    insert(SQUARE, shape, &tuning.square);
    insert(LOSSES, vec![tuning.losses.len()], &tuning.losses);
    let header = Header {
        version: STATE_VERSION,
        fingerprint: fingerprint.0.clone(),
    };
    file.metadata = Some(json!({ "distillation-state": header }));
    Ok(file.save(path)?)
}

/// Reads the state of a distillation with `norms` of `width` gains each.
pub(super) fn load(
    path: &Path,
    fingerprint: &Fingerprint,
    norms: usize,
    width: usize,
) -> Result<Tuning, PassError> {
    let file = TensorFile::open(path)?;
    let fault = |reason: String| PassError::State {
        path: path.into(),
        reason,
    };
    let header: Header =
        state::header(&file, "distillation-state", STATE_VERSION, "a distillation")
            .map_err(fault)?;
    if header.fingerprint != fingerprint.0 {
        let message = "it is of other models, windows or options";
        return Err(fault(message.into()));
    }
    let values = |name: &str, shape: Option<&[usize]>| -> Result<Vec<f64>, PassError> {
        let raw = file.raw(name)?;
        if raw.dtype != Dtype::F64 || shape.is_some_and(|shape| raw.shape != shape) {
            return Err(fault(format!(
                "tensor {name}: expected F64 of shape {:?}, found {:?} of shape {:?}",
                shape.unwrap_or(&raw.shape),
                raw.dtype,
                raw.shape
            )));
        }
        let chunks = raw.bytes.as_chunks().0;
        let values: Vec<f64> = chunks.iter().map(|&x| f64::from_le_bytes(x)).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(fault(format!("tensor {name}: a value is not finite")))
        }
    };
    let shape = [norms, width];
    Ok(Tuning {
        change: values(CHANGE, Some(&shape))?,
        mean: values(MEAN, Some(&shape))?,
        square: values(SQUARE, Some(&shape))?,
        losses: values(LOSSES, None)?,
    })
}
