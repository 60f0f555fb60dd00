//! The group of layers on rows of different sequences, repetitions and positions.

use super::forward::{Between, Rotation, add, embed, gated};
use super::{Config, Input, KvCache, LanguageModel, ModelError, Tally};

/// A token that runs through the group of layers once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupRow {
    /// Index of its sequence's keys and values.
    pub(crate) sequence: usize,
    /// Which repetition of the group.
    pub(crate) repetition: usize,
    /// Its position in the sequence.
    pub(crate) position: usize,
}

/// Rows of embeddings.
pub(crate) fn embed_row(model: &dyn LanguageModel, token: u32) -> Result<Vec<f32>, ModelError> {
    embed(model.trunk(), &[token])
}

/// Runs the group once on rows of the residual stream `x`, in place.
///
/// Each row writes its keys and values at its position in the caches of its sequence and repetition, and sees those up to there, whatever lies behind. Its result has the bits that
/// [`forward`](super::forward) gives the same token by itself. Several rows of one sequence and repetition come in the order of their positions.
///
/// `fills` are rows that stopped before this repetition and leave no more than keys and values in it, made of the residual stream that they stopped with: `stopped`.
pub(crate) fn run_group(
    model: &dyn LanguageModel,
    rows: &[GroupRow],
    fills: &[GroupRow],
    caches: &mut [KvCache],
    x: &mut [f32],
    stopped: &[f32],
    tally: &mut Tally,
) {
    let trunk = model.trunk();
    let config = *trunk.config();
    let both = || rows.iter().chain(fills);
    let repetitions: Vec<usize> = both().map(|row| row.repetition).collect();
    let rotations: Vec<Rotation> = both()
        .map(|row| Rotation::new(&config, row.position, 1))
        .collect();
    for layer in 0..config.layers {
        // Norms don't know of positions; rotation and attention are each row's own.
        let between = |rotation, past| Between {
            trunk,
            layer,
            rotation,
            past,
        };
        let Some(first) = rotations.first() else {
            return;
        };
        let whole = between(first, 0);
        let mut project = |input, x: &[f32], count: usize| {
            model.project_rows(layer, input, &repetitions[..count], x, tally)
        };
        let mut input = whole.attention_input(x);
        input.extend(whole.attention_input(stopped));
        let all = repetitions.len();
        let qkv = project(Input::Attention, &input, all);
        let mut mixed = Vec::with_capacity(rows.len() * config.heads * config.head_width);
        for (index, (row, rotation)) in both().zip(&rotations).enumerate() {
            let Some(cache) = caches.get_mut(row.sequence) else {
                continue;
            };
            let own: Vec<Vec<f32>> = qkv
                .iter()
                .map(|products| {
                    let width = products.len() / all;
                    products[index * width..(index + 1) * width].to_vec()
                })
                .collect();
            let kv = cache.at(&config, row.repetition, layer, row.position);
            let between = between(rotation, row.position);
            if index < rows.len() {
                mixed.extend(between.mix(own, kv));
            } else {
                between.remember(own, kv);
            }
        }
        for output in project(Input::AttentionOutput, &mixed, rows.len()) {
            add(x, &output);
        }
        let gate_up = project(Input::Mlp, &whole.mlp_input(x), rows.len());
        for output in project(Input::MlpDown, &gated(gate_up), rows.len()) {
            add(x, &output);
        }
    }
}

impl KvCache {
    /// Keys and values of a layer in a repetition, cut so that those of `position` come next.
    fn at(
        &mut self,
        config: &Config,
        repetition: usize,
        layer: usize,
        position: usize,
    ) -> &mut (Vec<f32>, Vec<f32>) {
        let sites = config.repetitions * config.layers;
        self.layers.resize_with(sites, Default::default);
        let kv = &mut self.layers[repetition * config.layers + layer];
        let width = config.kv_heads * config.head_width;
        kv.0.truncate(position * width);
        kv.1.truncate(position * width);
        kv
    }
}
