//! The reference: FP32 arithmetic on the weights as the file holds them.

use std::path::Path;
use std::sync::OnceLock;

use super::{Config, ConfigHints, Input, LanguageModel, Matrix, ModelError, Site, Tally, Trunk};
use crate::gemm::{View, multiply_transposed};
use crate::simd::panels::Panels;
use crate::tensors::TensorFile;

/// Rows up to which matrices are kept arranged for the kernel: decoding's. Whole windows arrange them as they go, and need no second copy.
const FEW_ROWS: usize = 256;

/// A model in full precision.
#[derive(Clone, Debug)]
pub struct Model {
    trunk: Trunk,
    /// For each layer the matrices in the order of [`Matrix::ALL`], outputs × inputs.
    layers: Vec<[Vec<f32>; 7]>,
    /// The same matrices as the kernel wants them, made when they are first needed.
    panels: Vec<[OnceLock<Panels>; 7]>,
}

impl Model {
    /// Reads a model. `hints` win over the file's own metadata.
    ///
    /// # Errors
    /// The file is wrong, or its shapes contradict one another.
    pub fn open(path: &Path, hints: ConfigHints) -> Result<Self, ModelError> {
        Self::from_tensors(TensorFile::open(path)?, hints)
    }

    /// Takes a model's tensors. `hints` win over the file's own metadata.
    ///
    /// # Errors
    /// A tensor is missing or wrong, or the shapes contradict one another.
    pub fn from_tensors(mut file: TensorFile, hints: ConfigHints) -> Result<Self, ModelError> {
        let hints = match file
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.get("config"))
        {
            Some(json) => {
                let own = serde_json::from_value(json.clone())
                    .map_err(|e| file.metadata_fault(format!("config: {e}")))?;
                hints.or(own)
            }
            None => hints,
        };
        let mut layers = Vec::new();
        let mut shapes = Vec::new();
        while file
            .tensors
            .contains_key(&Matrix::Query.tensor_name(layers.len()))
        {
            let mut matrices: [Vec<f32>; 7] = Default::default();
            for (matrix, data) in Matrix::ALL.into_iter().zip(&mut matrices) {
                let name = matrix.tensor_name(layers.len());
                let tensor = file.tensor(&name)?;
                file.tensors.remove(&name);
                shapes.push((name, tensor.shape));
                *data = tensor.data;
            }
            layers.push(matrices);
        }
        let path = file.path().to_owned();
        Ok(Self {
            trunk: Trunk::new(&path, file.tensors, shapes, hints)?,
            panels: layers.iter().map(|_| Default::default()).collect(),
            layers,
        })
    }

    /// Shape of the model.
    pub const fn config(&self) -> &Config {
        self.trunk.config()
    }

    /// Number of parameters, those of the trunk included.
    pub fn parameters(&self) -> usize {
        let matrices: usize = self.layers.iter().flatten().map(Vec::len).sum();
        let trunk: usize = self
            .trunk
            .plain()
            .values()
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum();
        matrices + trunk
    }

    /// A matrix of a layer, outputs × inputs in row-major order; `None` beyond the last layer.
    pub fn matrix(&self, layer: usize, matrix: Matrix) -> Option<&[f32]> {
        self.layers
            .get(layer)
            .map(|matrices| matrices[matrix as usize].as_slice())
    }
}

impl LanguageModel for Model {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        self.project_rows(site.layer, site.input, &[], x, tally)
    }

    fn project_rows(
        &self,
        layer: usize,
        input: Input,
        _: &[usize],
        x: &[f32],
        _: &mut Tally,
    ) -> Vec<Vec<f32>> {
        let width = self.config().input_width(input);
        if x.len() <= FEW_ROWS * width && Panels::are_exact() {
            let panels = |&matrix: &Matrix| {
                let weights = self.matrix(layer, matrix)?;
                let panels = self.panels.get(layer)?.get(matrix as usize)?;
                Some(panels.get_or_init(|| Panels::new(weights, width)))
            };
            let panels = input.matrices().iter().filter_map(panels);
            return panels.map(|panels| panels.multiply(x)).collect();
        }
        let x = View::dense(x, width);
        input
            .matrices()
            .iter()
            .filter_map(|&matrix| self.matrix(layer, matrix))
            .map(|weights| {
                let outputs = weights.len() / width;
                let mut y = vec![0.0; x.rows() * outputs];
                multiply_transposed(x, View::dense(weights, width), &mut y, outputs);
                y
            })
            .collect()
    }
}
