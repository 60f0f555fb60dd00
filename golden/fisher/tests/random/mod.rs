//! Models and tokens that a seed reproduces.

use golden::model::{Config, ConfigHints, Matrix};
use golden::tensors::{RawTensor, TensorFile};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A model's tensors; those of the matrices are evenly spread up to `spread` in magnitude.
pub fn random_tensors(config: &Config, tied: bool, spread: f32, seed: u64) -> TensorFile {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut file = TensorFile::new("random");
    let mut add = |name: String, shape: Vec<usize>, centre: f32, spread: f32| {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| centre + random.random_range(-spread..spread))
            .collect();
        file.tensors
            .insert(name, RawTensor::from_f32(shape, &values));
    };
    let table = vec![config.vocabulary, config.hidden];
    add("model.embed_tokens.weight".into(), table.clone(), 0.0, 1.0);
    if !tied {
        add("lm_head.weight".into(), table, 0.0, spread);
    }
    add("model.norm.weight".into(), vec![config.hidden], 1.0, 0.5);
    for layer in 0..config.layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let name = format!("model.layers.{layer}.{norm}.weight");
            add(name, vec![config.hidden], 1.0, 0.5);
        }
        for matrix in Matrix::ALL {
            let shape = config.matrix_shape(matrix).to_vec();
            add(matrix.tensor_name(layer), shape, 0.0, spread);
        }
    }
    file.metadata = Some(serde_json::json!({ "config": ConfigHints::of(config) }));
    file
}

/// Tokens of a vocabulary, all alike in frequency.
pub fn random_tokens(vocabulary: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| random.random_range(0..vocabulary as u32))
        .collect()
}
