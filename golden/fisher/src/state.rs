//! Sums over windows, and the file that lets a pass go on where it stopped.

use std::collections::BTreeMap;
use std::path::Path;

use golden::fisher::{FisherInformation, site_name};
use golden::model::{Config, LanguageModel, Matrix, Model};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::pass::PassError;

/// Version of the state file's layout and of what its fingerprint covers.
const STATE_VERSION: u32 = 1;

/// Sums over the windows done.
pub(crate) struct Sums {
    /// Squared gradients of each layer's matrices, in the order of [`Matrix::ALL`].
    ///
    /// FP32: a sum of n terms of one sign is off by less than n · 2⁻²⁴, far below what n windows can say of a mean.
    pub(crate) weights: Vec<[Vec<f32>; 7]>,
    /// Squared gradients of each site's channels over all tokens.
    pub(crate) activations: Vec<Vec<f64>>,
    /// Mean negative log-likelihoods.
    pub(crate) loss: f64,
    /// Windows done.
    pub(crate) windows: usize,
}

impl Sums {
    /// No windows done.
    pub(crate) fn new(config: &Config) -> Self {
        let zeros = |matrix| {
            let [rows, columns] = config.matrix_shape(matrix);
            vec![0.0; rows * columns]
        };
        Self {
            weights: (0..config.layers).map(|_| Matrix::ALL.map(zeros)).collect(),
            activations: config
                .all_sites()
                .map(|site| vec![0.0; config.input_width(site.input)])
                .collect(),
            loss: 0.0,
            windows: 0,
        }
    }

    /// The means.
    pub(crate) fn information(mut self, window: usize) -> FisherInformation {
        let windows = self.windows.max(1);
        let tokens = windows * window;
        for sum in self.weights.iter_mut().flatten().flatten() {
            *sum /= windows as f32;
        }
        let weights: BTreeMap<_, _> = self
            .weights
            .into_iter()
            .enumerate()
            .flat_map(|(layer, matrices)| {
                Matrix::ALL
                    .into_iter()
                    .zip(matrices)
                    .map(move |(matrix, data)| (matrix.tensor_name(layer), data))
            })
            .collect();
        let mean = |sum: &f64| (sum / tokens as f64) as f32;
        FisherInformation {
            weights,
            activations: self
                .activations
                .iter()
                .map(|sums| sums.iter().map(mean).collect())
                .collect(),
            tokens,
            windows,
            window,
            loss: self.loss / windows as f64,
        }
    }
}

/// What a state belongs to: a hash of the model, to which the tokens of the windows done are added.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Hashes a model: configuration, matrices and all else.
    pub(crate) fn new(model: &Model) -> Self {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let config = *model.config();
        add(&STATE_VERSION.to_le_bytes());
        add(json!(config).to_string().as_bytes());
        for (name, tensor) in model.trunk().plain() {
            add(name.as_bytes());
            add(format!("{:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
            add(&tensor.bytes);
        }
        let mut bytes = Vec::new();
        for layer in 0..config.layers {
            for matrix in Matrix::ALL {
                bytes.clear();
                let data = model.matrix(layer, matrix).unwrap_or_default();
                bytes.extend(data.iter().flat_map(|x| x.to_le_bytes()));
                add(&bytes);
            }
        }
        Self(hash)
    }

    /// The fingerprint of a state after `windows`.
    pub(crate) fn after(&self, windows: &[Vec<u32>]) -> String {
        let mut hash = self.0.clone();
        for window in windows {
            hash.update((window.len() as u64).to_le_bytes());
            for token in window {
                hash.update(token.to_le_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// What the state's metadata says under `fisher-state`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    fingerprint: String,
    windows: usize,
}

/// The one tensor without a name of the model's.
const LOSS: &str = "loss";

/// Writes a state, whole or not at all.
pub(crate) fn save(
    path: &Path,
    sums: &Sums,
    config: &Config,
    fingerprint: &Fingerprint,
    windows: &[Vec<u32>],
) -> Result<(), PassError> {
    let mut file = TensorFile::new(path);
    for (layer, matrices) in sums.weights.iter().enumerate() {
        for (matrix, data) in Matrix::ALL.into_iter().zip(matrices) {
            let shape = config.matrix_shape(matrix).into();
            file.tensors
                .insert(matrix.tensor_name(layer), RawTensor::from_f32(shape, data));
        }
    }
    let f64s = |values: &[f64]| RawTensor {
        dtype: Dtype::F64,
        shape: vec![values.len()],
        bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    for (site, values) in config.all_sites().zip(&sums.activations) {
        file.tensors.insert(site_name(site), f64s(values));
    }
    file.tensors.insert(LOSS.into(), f64s(&[sums.loss]));
    let header = Header {
        version: STATE_VERSION,
        fingerprint: fingerprint.after(windows.get(..sums.windows).unwrap_or(windows)),
        windows: sums.windows,
    };
    file.metadata = Some(json!({ "fisher-state": header }));
    Ok(file.save(path)?)
}

/// What a state file says of itself under `key`, if it is one of `what` and of this version.
pub(crate) fn header<T: for<'de> Deserialize<'de>>(
    file: &TensorFile,
    key: &str,
    version: u32,
    what: &str,
) -> Result<T, String> {
    let header = file
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.get(key))
        .ok_or_else(|| format!("it is no state of {what}"))?;
    if header.get("version").and_then(serde_json::Value::as_u64) != Some(version.into()) {
        return Err("it was written by another version".into());
    }
    T::deserialize(header).map_err(|e| format!("its metadata: {e}"))
}

/// Reads the state of a pass over these windows, or over more of them.
pub(crate) fn load(
    path: &Path,
    config: &Config,
    fingerprint: &Fingerprint,
    windows: &[Vec<u32>],
) -> Result<Sums, PassError> {
    let mut file = TensorFile::open(path)?;
    let fault = |reason: String| PassError::State {
        path: path.into(),
        reason,
    };
    let header: Header =
        header(&file, "fisher-state", STATE_VERSION, "a Fisher pass").map_err(fault)?;
    let done = windows.get(..header.windows).ok_or_else(|| {
        fault(format!(
            "it holds {} windows, {} are wanted",
            header.windows,
            windows.len()
        ))
    })?;
    if header.fingerprint != fingerprint.after(done) {
        return Err(fault("it is of another model or of other windows".into()));
    }
    let mut take = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<RawTensor, PassError> {
        let raw = file.raw(name)?;
        if raw.dtype != dtype || raw.shape != shape {
            return Err(fault(format!(
                "tensor {name}: expected {dtype:?} of shape {shape:?}, found {:?} of shape {:?}",
                raw.dtype, raw.shape
            )));
        }
        file.tensors
            .remove(name)
            .ok_or_else(|| fault(format!("tensor {name} is missing")))
    };
    let sum = |name: &str, values: Vec<f64>| -> Result<Vec<f64>, PassError> {
        if values
            .iter()
            .all(|value| value.is_finite() && *value >= 0.0)
        {
            Ok(values)
        } else {
            let reason = format!("tensor {name}: a sum of squares is negative or not finite");
            Err(fault(reason))
        }
    };
    let mut sums = Sums::new(config);
    for (layer, matrices) in sums.weights.iter_mut().enumerate() {
        for (matrix, data) in Matrix::ALL.into_iter().zip(matrices) {
            let name = matrix.tensor_name(layer);
            let raw = take(&name, Dtype::F32, &config.matrix_shape(matrix))?;
            for (to, chunk) in data.iter_mut().zip(raw.bytes.as_chunks().0) {
                *to = f32::from_le_bytes(*chunk);
                if !to.is_finite() || *to < 0.0 {
                    sum(&name, vec![f64::from(*to)])?;
                }
            }
        }
    }
    let f64s = |raw: RawTensor| -> Vec<f64> {
        let chunks = raw.bytes.as_chunks().0;
        chunks
            .iter()
            .map(|&chunk| f64::from_le_bytes(chunk))
            .collect()
    };
    for (site, data) in config.all_sites().zip(&mut sums.activations) {
        let name = site_name(site);
        *data = sum(&name, f64s(take(&name, Dtype::F64, &[data.len()])?))?;
    }
    let loss = sum(LOSS, f64s(take(LOSS, Dtype::F64, &[1])?))?;
    sums.loss = loss.first().copied().unwrap_or_default();
    sums.windows = header.windows;
    if let Some(name) = file.tensors.keys().next() {
        return Err(fault(format!("tensor {name} has no place in it")));
    }
    Ok(sums)
}
