//! Blocks of a real model: which meet in a processing element, and how often.

use std::sync::Mutex;

use golden::block::PackedBlock;
use golden::model::{
    Calibration, Capture, Config, KvCache, LanguageModel, Matrix, Model, QuantizedModel, Site,
    Tally, forward,
};
use golden::quantizer::{ActivationQuantizer, WeightOptions};
use golden::{Scheme, Selection, Share};
use half::bf16;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::EnergyError;

/// What runs through the parts.
pub struct Workload<'a> {
    /// How reports call the model.
    pub name: String,
    /// The model in full precision.
    pub model: &'a Model,
    /// Ranges and scores of its activations.
    pub calibration: &'a Calibration,
    /// How its FP8 blocks are chosen.
    pub selection: Selection,
    /// What it reads, at most its context.
    pub tokens: &'a [u32],
}

/// Inputs of all linear layers.
pub(super) struct Sample {
    pub config: Config,
    pub tokens: usize,
    /// Rows by site.
    pub inputs: Vec<Vec<bf16>>,
}

impl Sample {
    pub fn new(workload: &Workload<'_>) -> Result<Self, EnergyError> {
        let config = *workload.model.config();
        if workload.tokens.is_empty() {
            return Err(EnergyError::Option {
                what: "tokens",
                expected: "at least 1",
                found: 0.0,
            });
        }
        let inputs = Mutex::new(vec![Vec::new(); config.sites()]);
        let capture = Capture::new(workload.model, |site: Site, x: &[f32]| {
            if let Ok(mut inputs) = inputs.lock() {
                inputs[site.index(&config)].extend(x.iter().map(|&x| bf16::from_f32(x)));
            }
        });
        forward(
            &capture as &dyn LanguageModel,
            workload.tokens,
            &mut KvCache::new(),
            &mut Tally::new(&config),
            |_, _| (),
        )?;
        Ok(Self {
            config,
            tokens: workload.tokens.len(),
            inputs: inputs.into_inner().unwrap_or_default(),
        })
    }

    /// All blocks with a share of FP8 blocks on both sides.
    pub fn blocks(&self, workload: &Workload<'_>, share: f64) -> Result<Blocks, EnergyError> {
        let scheme = if share <= 0.0 {
            Scheme::Nvfp4
        } else if share >= 1.0 {
            Scheme::Fp8
        } else {
            let fp8_share = Share::new(share).map_err(|_| EnergyError::Option {
                what: "share",
                expected: "0 to 1",
                found: share,
            })?;
            Scheme::Fgmp { fp8_share }
        };
        let options = WeightOptions {
            selection: workload.selection,
            ..WeightOptions::new(scheme)
        };
        let model = QuantizedModel::new(workload.model, options, None, workload.calibration)?;
        let config = self.config;
        let mut weights = Vec::new();
        for layer in 0..config.layers {
            for matrix in Matrix::ALL {
                let packed = model.packed(layer, matrix);
                weights.push(packed.map_or_else(Vec::new, |p| p.packed_blocks().collect()));
            }
        }
        let mut acts = Vec::new();
        let mut quantizers = Vec::new();
        for (site, x) in config.all_sites().zip(&self.inputs) {
            let Some(quantizer) = model.quantizer(site) else {
                continue;
            };
            let rows = x.chunks_exact(quantizer.channels());
            let blocks = rows.flat_map(|row| quantizer.blocks(row)).map(|b| b.pack());
            acts.push(blocks.collect());
            quantizers.push(quantizer.clone());
        }
        Ok(Blocks {
            config,
            weights,
            acts,
            quantizers,
        })
    }
}

/// All blocks of a quantized model and of its activations.
pub(super) struct Blocks {
    config: Config,
    /// Row by row, by layer and matrix.
    weights: Vec<Vec<PackedBlock>>,
    /// Row by row, by site.
    acts: Vec<Vec<PackedBlock>>,
    /// By site.
    pub quantizers: Vec<ActivationQuantizer>,
}

/// One step of a processing element.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub weight: PackedBlock,
    pub act: PackedBlock,
    /// Begins an output.
    pub first: bool,
    /// Ends it.
    pub last: bool,
}

/// A product of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub site: Site,
    pub matrix: Matrix,
    /// Outputs a token.
    pub rows: usize,
    /// Blocks of a row.
    pub row_blocks: usize,
}

/// All products of a model.
pub(super) fn products(config: &Config) -> Vec<Product> {
    let products = config.all_sites().flat_map(|site| {
        site.input.matrices().iter().map(move |&matrix| Product {
            site,
            matrix,
            rows: config.matrix_shape(matrix)[0],
            row_blocks: config.input_width(site.input).div_ceil(16),
        })
    });
    products.collect()
}

impl Blocks {
    /// The blocks of a product: weights, activations.
    pub fn of(&self, product: &Product) -> (&[PackedBlock], &[PackedBlock]) {
        let matrix = product.site.layer * Matrix::ALL.len() + product.matrix as usize;
        let weights = self.weights.get(matrix).map_or(&[][..], Vec::as_slice);
        let acts = self.acts.get(product.site.index(&self.config));
        (weights, acts.map_or(&[][..], Vec::as_slice))
    }

    /// Shares of FP8 blocks as memory holds them: of the weights, of the activations.
    pub fn fp8_shares(&self) -> [f64; 2] {
        [&self.weights, &self.acts].map(|all| {
            let blocks = || all.iter().flatten();
            blocks().filter(|block| block.tag).count() as f64 / blocks().count().max(1) as f64
        })
    }

    /// Pairs of a product for one token by mode, exactly: at each place of a row any weight block meets any activation block.
    pub fn modes(&self, product: &Product) -> [f64; 4] {
        let (weights, acts) = self.of(product);
        let tokens = (acts.len() / product.row_blocks).max(1) as f64;
        let mut modes = [0.0; 4];
        for k in 0..product.row_blocks {
            let fp8 = |blocks: &[PackedBlock]| {
                let column = blocks.iter().skip(k).step_by(product.row_blocks);
                column.filter(|block| block.tag).count() as f64
            };
            let rows = product.rows as f64;
            let (w, a) = (fp8(weights), fp8(acts) / tokens);
            modes[0] += (rows - w) * (1.0 - a);
            modes[1] += (rows - w) * a;
            modes[2] += w * (1.0 - a);
            modes[3] += w * a;
        }
        modes
    }

    /// Pairs for `length` cycles of one stream: whole outputs of the model one behind the other, each of its pairs as likely as any other.
    /// Tokens come from one slice of several.
    pub fn pairs(
        &self,
        rng: &mut ChaCha8Rng,
        length: usize,
        slice: std::ops::Range<usize>,
        weights_of: &Self,
    ) -> Vec<Pair> {
        let products = products(&self.config);
        let mut pairs = Vec::with_capacity(length);
        while pairs.len() < length {
            // Outputs are drawn by their number, so that pairs come out by theirs; only the first begins somewhere within.
            let begun = !pairs.is_empty();
            let weight = |p: &Product| (p.rows * if begun { 1 } else { p.row_blocks }) as u64;
            let all: u64 = products.iter().map(weight).sum();
            let mut at = rng.random_range(0..all.max(1));
            let Some(product) = products.iter().find(|p| {
                let mine = weight(p);
                let here = at < mine;
                at = at.saturating_sub(mine);
                here
            }) else {
                break;
            };
            let (weights, _) = weights_of.of(product);
            let (_, acts) = self.of(product);
            let row = rng.random_range(0..product.rows) * product.row_blocks;
            let token = rng.random_range(slice.clone()) * product.row_blocks;
            let start = if begun {
                0
            } else {
                rng.random_range(0..product.row_blocks)
            };
            for k in start..product.row_blocks {
                let (Some(&weight), Some(&act)) = (weights.get(row + k), acts.get(token + k))
                else {
                    break;
                };
                pairs.push(Pair {
                    weight,
                    act,
                    first: k == start,
                    last: k + 1 == product.row_blocks,
                });
            }
        }
        pairs.truncate(length);
        pairs
    }
}

/// A site and consecutive rows of its input.
pub(super) struct Rows {
    pub site: usize,
    pub rows: Vec<Vec<bf16>>,
}

impl Sample {
    /// Rows of at least `blocks` blocks of one site, each block of the model as likely as any other.
    pub fn rows(&self, rng: &mut ChaCha8Rng, blocks: usize, slice: std::ops::Range<usize>) -> Rows {
        let widths: Vec<usize> = self
            .config
            .all_sites()
            .map(|site| self.config.input_width(site.input))
            .collect();
        let mut at = rng.random_range(0..widths.iter().sum::<usize>().max(1));
        let site = widths
            .iter()
            .position(|&width| {
                let here = at < width;
                at = at.saturating_sub(width);
                here
            })
            .unwrap_or(0);
        let width = widths.get(site).copied().unwrap_or(16).max(1);
        let needed = blocks.div_ceil(width.div_ceil(16));
        let first = rng.random_range(slice.clone());
        let rows = (0..needed)
            .map(|row| {
                let token = slice.start + (first - slice.start + row) % slice.len();
                let input = self.inputs.get(site).map_or(&[][..], Vec::as_slice);
                input.chunks_exact(width).nth(token).unwrap_or(&[]).to_vec()
            })
            .collect();
        Rows { site, rows }
    }
}
