//! Fisher information of a model's weights and activations, and its file.
//!
//! F of a weight is the mean over calibration windows of the squared loss gradient (numerics §3); of a channel of
//! a linear layer's input it is the squared gradient averaged over all tokens of all windows. What computes
//! it is no business of this crate: any program that writes this file will do.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::{Config, Input, Matrix, Site};
use crate::tensors::{FileError, RawTensor, TensorFile};

/// Version of the file's layout.
pub const FISHER_VERSION: u32 = 1;

/// Squared loss gradients, averaged over calibration windows.
///
/// A common positive factor changes no decision that is made with them, as one threshold serves all weights and one all activations.
#[derive(Clone, PartialEq, Debug)]
pub struct FisherInformation {
    /// F of each weight of the layers' matrices by [`Matrix::tensor_name`], in the weights' own row-major order.
    pub weights: BTreeMap<String, Vec<f32>>,
    /// F of each channel of each site, in the order of [`Site::index`].
    pub activations: Vec<Vec<f32>>,
    /// Tokens predicted: `windows · window`.
    pub tokens: usize,
    /// Calibration windows.
    pub windows: usize,
    /// Tokens of a window.
    pub window: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub loss: f64,
}

/// Why Fisher information can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FisherError {
    /// Its file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor that the model has is not there.
    #[error("Fisher information of {tensor} is missing")]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the model doesn't have: the information is another model's.
    #[error("Fisher information has {tensor}, which the model doesn't have")]
    Unexpected {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another size than the model's.
    #[error("Fisher information of {tensor}: expected {expected} elements, found {found}")]
    Length {
        /// The tensor.
        tensor: String,
        /// Elements by the model's configuration.
        expected: usize,
        /// Elements there are.
        found: usize,
    },
    /// A number of sites other than the model's.
    #[error("Fisher information of activations: expected {expected} sites, found {found}")]
    Sites {
        /// Sites by the model's configuration.
        expected: usize,
        /// Sites there are.
        found: usize,
    },
    /// A value that no mean of squares can have.
    #[error("Fisher information of {tensor}: {value} of element {index} is negative or not finite")]
    Value {
        /// The tensor.
        tensor: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Counts or a loss that can't be.
    #[error("Fisher information: {0}")]
    Summary(String),
}

/// What the metadata says under `fisher`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summary {
    version: u32,
    tokens: usize,
    windows: usize,
    window: usize,
    loss: f64,
}

impl FisherInformation {
    /// Reads the file of a model with this configuration.
    ///
    /// # Errors
    /// The file can't be read, is no such file, or doesn't fit the model.
    pub fn open(path: &Path, config: &Config) -> Result<Self, FisherError> {
        Self::from_file(TensorFile::open(path)?, config)
    }

    /// Takes the tensors of such a file.
    ///
    /// # Errors
    /// The metadata or a tensor is missing or wrong, or doesn't fit the model.
    pub fn from_file(mut file: TensorFile, config: &Config) -> Result<Self, FisherError> {
        let summary = file
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.get("fisher"))
            .ok_or_else(|| file.metadata_fault("`fisher` is missing: this is no Fisher file"))?;
        let version = summary.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(FISHER_VERSION.into()) {
            return Err(file
                .metadata_fault(format!(
                    "fisher: expected version {FISHER_VERSION}, found {}",
                    version.map_or("none".into(), |version| version.to_string())
                ))
                .into());
        }
        let Summary {
            tokens,
            windows,
            window,
            loss,
            ..
        } = Summary::deserialize(summary)
            .map_err(|e| file.metadata_fault(format!("fisher: {e}")))?;
        let mut weights = BTreeMap::new();
        for (name, shape) in weight_shapes(config) {
            let data = take(&mut file, &name, &shape)?;
            weights.insert(name, data);
        }
        let activations = config
            .all_sites()
            .map(|site| {
                let width = config.input_width(site.input);
                take(&mut file, &site_name(site), &[width])
            })
            .collect::<Result<_, _>>()?;
        if let Some(tensor) = file.tensors.keys().next() {
            return Err(FisherError::Unexpected {
                tensor: tensor.clone(),
            });
        }
        let information = Self {
            weights,
            activations,
            tokens,
            windows,
            window,
            loss,
        };
        information.check(config)?;
        Ok(information)
    }

    /// Writes the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// The information doesn't fit the model, or the system refuses.
    pub fn save(&self, path: &Path, config: &Config) -> Result<(), FisherError> {
        Ok(self.to_file(path, config)?.save(path)?)
    }

    /// The tensors of its file; `path` is only used in messages.
    ///
    /// # Errors
    /// The information doesn't fit the model.
    pub fn to_file(&self, path: &Path, config: &Config) -> Result<TensorFile, FisherError> {
        self.check(config)?;
        let mut file = TensorFile::new(path);
        for ((name, shape), data) in weight_shapes(config).zip(self.weights_in_order(config)) {
            file.tensors
                .insert(name, RawTensor::from_f32(shape.into(), data));
        }
        for (site, data) in config.all_sites().zip(&self.activations) {
            file.tensors
                .insert(site_name(site), RawTensor::from_f32(vec![data.len()], data));
        }
        let summary = Summary {
            version: FISHER_VERSION,
            tokens: self.tokens,
            windows: self.windows,
            window: self.window,
            loss: self.loss,
        };
        file.metadata = Some(json!({ "fisher": summary }));
        Ok(file)
    }

    /// Whether this is the information of a model with this configuration: every tensor, every size, every value.
    ///
    /// # Errors
    /// The first thing that isn't so.
    pub fn check(&self, config: &Config) -> Result<(), FisherError> {
        if self.windows == 0 || self.windows.checked_mul(self.window) != Some(self.tokens) {
            return Err(FisherError::Summary(format!(
                "{} windows of {} tokens can't have {} tokens",
                self.windows, self.window, self.tokens
            )));
        }
        if !self.loss.is_finite() || self.loss < 0.0 {
            return Err(FisherError::Summary(format!(
                "a mean negative log-likelihood of {} can't be",
                self.loss
            )));
        }
        let mut expected = 0;
        for (name, [rows, columns]) in weight_shapes(config) {
            let data = self.weights.get(&name).ok_or(FisherError::Missing {
                tensor: name.clone(),
            })?;
            check_values(&name, rows * columns, data)?;
            expected += 1;
        }
        if self.weights.len() != expected {
            let known: BTreeMap<_, _> = weight_shapes(config).collect();
            if let Some(tensor) = self.weights.keys().find(|name| !known.contains_key(*name)) {
                return Err(FisherError::Unexpected {
                    tensor: tensor.clone(),
                });
            }
        }
        if self.activations.len() != config.sites() {
            return Err(FisherError::Sites {
                expected: config.sites(),
                found: self.activations.len(),
            });
        }
        for (site, data) in config.all_sites().zip(&self.activations) {
            check_values(&site_name(site), config.input_width(site.input), data)?;
        }
        Ok(())
    }

    /// The weights' information in the order of [`weight_shapes`].
    fn weights_in_order(&self, config: &Config) -> impl Iterator<Item = &[f32]> {
        weight_shapes(config)
            .map(|(name, _)| self.weights.get(&name).map_or(&[][..], Vec::as_slice))
    }
}

/// The name of a site's tensor in the file: `activations.<repetition>.<layer>.<input>`.
pub fn site_name(site: Site) -> String {
    let Site {
        repetition,
        layer,
        input,
    } = site;
    let input = match input {
        Input::Attention => "attention",
        Input::AttentionOutput => "attention-output",
        Input::Mlp => "mlp",
        Input::MlpDown => "mlp-down",
    };
    format!("activations.{repetition}.{layer}.{input}")
}

/// Names and shapes of the matrices of all layers.
fn weight_shapes(config: &Config) -> impl Iterator<Item = (String, [usize; 2])> {
    let config = *config;
    (0..config.layers).flat_map(move |layer| {
        Matrix::ALL
            .into_iter()
            .map(move |matrix| (matrix.tensor_name(layer), config.matrix_shape(matrix)))
    })
}

fn take(file: &mut TensorFile, name: &str, shape: &[usize]) -> Result<Vec<f32>, FisherError> {
    let raw = file.raw(name)?;
    if raw.dtype != Dtype::F32 || raw.shape != shape {
        let reason = format!(
            "expected F32 of shape {shape:?}, found {:?} of shape {:?}",
            raw.dtype, raw.shape
        );
        return Err(file.fault(name, reason).into());
    }
    let data = file.tensor(name)?.data;
    // A large model's file and its values should not both be in memory at the end.
    file.tensors.remove(name);
    Ok(data)
}

fn check_values(tensor: &str, expected: usize, data: &[f32]) -> Result<(), FisherError> {
    if data.len() != expected {
        return Err(FisherError::Length {
            tensor: tensor.into(),
            expected,
            found: data.len(),
        });
    }
    let wrong = |value: &f32| !value.is_finite() || *value < 0.0;
    match data.iter().enumerate().find(|(_, value)| wrong(value)) {
        Some((index, &value)) => Err(FisherError::Value {
            tensor: tensor.into(),
            index,
            value,
        }),
        None => Ok(()),
    }
}
