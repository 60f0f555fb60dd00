//! The forward pass on branches of a tree: keys and values in pages that branches share, rows of many branches at once.
//!
//! Attention goes through the pages: a page's keys are read once for all rows whose branch holds it, then its values. A row's sums run over its branch from the root on, whatever other rows there
//! are, and fused as the matrix multiplication fuses them: a row has the bits that [`forward`](super::forward) gives its token, on processors with fused multiply-add and up to 256 positions (where
//! that multiplication begins a new sum).

use multiversion::multiversion;
use rayon::prelude::*;

use super::forward::{Between, Rotation, add, embed, gated, softmax};
use super::{Config, Input, LanguageModel, ModelError, Tally};
use crate::ets::{Layout, PagePool, PoolError, SegmentId, Usage};

/// Tokens of a page of keys and values: two vectors of eight.
pub const PAGE_TOKENS: usize = 16;

/// Rows that a thread takes at least.
const ROWS_OF_A_THREAD: usize = 24;

/// A page's keys and values, by model. Made when they are first written.
#[derive(Clone, Debug, Default)]
pub struct KvPage(Vec<Vec<f32>>);

/// A token that is appended to a branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BranchRow {
    /// The branch's last segment.
    pub segment: SegmentId,
    /// The token.
    pub token: u32,
}

/// What passes took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PassCounters {
    /// Passes through the models.
    pub passes: u64,
    /// Rows in them.
    pub rows: u64,
    /// Most rows of one.
    pub most_rows: u64,
    /// Tokens whose keys and values were read, each page once a pass for all rows that share it.
    pub tokens_read: u64,
    /// The same if each row had read its branch by itself.
    pub tokens_read_alone: u64,
}

impl PassCounters {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.passes += other.passes;
        self.rows += other.rows;
        self.most_rows = self.most_rows.max(other.most_rows);
        self.tokens_read += other.tokens_read;
        self.tokens_read_alone += other.tokens_read_alone;
    }
}

/// Why a pass can't be run.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The pool: the segment can't grow, or there is no page.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Models that see the same tokens, and their keys and values on branches that share pages.
pub struct Branches<'a> {
    models: Vec<Member<'a>>,
    pool: PagePool<KvPage>,
    counters: PassCounters,
}

struct Member<'a> {
    model: &'a dyn LanguageModel,
    /// Of all positions of the context.
    rotation: Rotation,
    tally: Tally,
}

impl Member<'_> {
    fn config(&self) -> &Config {
        self.model.trunk().config()
    }
}

/// A row of a pass with what its branch holds.
struct Placed {
    position: usize,
    page: usize,
    place: usize,
    /// Pages of the branch with the tokens that the row sees of each, itself included.
    seen: Vec<(usize, usize)>,
}

impl<'a> Branches<'a> {
    /// No branches yet; at most `pages` pages of [`PAGE_TOKENS`] tokens.
    ///
    /// # Errors
    /// Never for this size of pages.
    pub fn new(
        models: &[&'a dyn LanguageModel],
        pages: usize,
        layout: Layout,
    ) -> Result<Self, PoolError> {
        Ok(Self {
            models: models
                .iter()
                .map(|&model| {
                    let config = model.trunk().config();
                    Member {
                        model,
                        rotation: Rotation::new(config, 0, config.context),
                        tally: Tally::new(config),
                    }
                })
                .collect(),
            pool: PagePool::new(pages, PAGE_TOKENS, layout)?,
            counters: PassCounters::default(),
        })
    }

    /// Positions that all models have.
    pub fn context(&self) -> usize {
        let contexts = self.models.iter().map(|member| member.config().context);
        contexts.min().unwrap_or(0)
    }

    /// Bytes of a token's keys and values in all models.
    pub fn token_bytes(&self) -> usize {
        let floats = self.models.iter().map(|member| kv_floats(member.config()));
        4 * floats.sum::<usize>()
    }

    /// See [`PagePool::root`].
    ///
    /// # Errors
    /// The pool's.
    pub fn root(&mut self) -> Result<SegmentId, PoolError> {
        self.pool.root()
    }

    /// See [`PagePool::fork`].
    ///
    /// # Errors
    /// The pool's.
    pub fn fork(&mut self, id: SegmentId) -> Result<SegmentId, PoolError> {
        self.pool.fork(id)
    }

    /// See [`PagePool::release`].
    ///
    /// # Errors
    /// The pool's.
    pub fn release(&mut self, id: SegmentId) -> Result<(), PoolError> {
        self.pool.release(id)
    }

    /// Tokens of a branch.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn tokens(&self, id: SegmentId) -> Result<usize, PoolError> {
        self.pool.tokens(id)
    }

    /// What the pool holds.
    pub const fn usage(&self) -> Usage {
        self.pool.usage()
    }

    /// Pages that are not in use.
    pub fn free_pages(&self) -> usize {
        self.pool.capacity().saturating_sub(self.pool.usage().pages)
    }

    /// What passes took so far.
    pub const fn counters(&self) -> PassCounters {
        self.counters
    }

    /// Activation blocks that a model quantized so far.
    pub fn tally(&self, model: usize) -> Option<&Tally> {
        self.models.get(model).map(|member| &member.tally)
    }

    /// Makes room for a token, which the next [`Branches::pass`] must bring. `None` if no page is free: then nothing has changed.
    ///
    /// # Errors
    /// The segment can't grow, or its branch is as long as the context.
    pub fn reserve(&mut self, row: BranchRow) -> Result<Option<Reserved>, PassError> {
        let position = self.pool.tokens(row.segment)?;
        if position >= self.context() {
            return Err(ModelError::Config(format!(
                "a branch is longer than the context of {} tokens",
                self.context()
            ))
            .into());
        }
        match self.pool.append(row.segment) {
            Ok(slot) => Ok(Some(Reserved {
                row,
                position,
                page: slot.page,
                place: slot.place,
            })),
            Err(PoolError::Full { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs rows for which there is room, and gives each model's residual stream behind its last layer: rows of `hidden` elements.
    ///
    /// Several rows of one segment come in the order in which they were reserved. Keys and values of all that a branch held before must have been brought by earlier passes.
    ///
    /// # Errors
    /// A segment was freed, or a token is outside a vocabulary.
    pub fn pass(&mut self, rows: &[Reserved]) -> Result<Vec<Vec<f32>>, PassError> {
        let tokens: Vec<u32> = rows.iter().map(|reserved| reserved.row.token).collect();
        let mut placed = Vec::with_capacity(rows.len());
        for reserved in rows {
            let mut left = reserved.position + 1;
            let mut seen = Vec::new();
            for run in self.pool.table(reserved.row.segment)? {
                if left == 0 {
                    break;
                }
                // A branch's tokens lie in a page from its beginning on: what was before them was copied along, or is its own.
                let tokens = run.tokens.min(left);
                seen.push((run.page, tokens));
                left -= tokens;
            }
            placed.push(Placed {
                position: reserved.position,
                page: reserved.page,
                place: reserved.place,
                seen,
            });
        }
        self.count(&placed);
        let Self { models, pool, .. } = self;
        models
            .iter_mut()
            .enumerate()
            .map(|(index, member)| {
                let mut x = embed(member.model.trunk(), &tokens)?;
                run(member, index, pool, &placed, &mut x);
                Ok(x)
            })
            .collect()
    }

    fn count(&mut self, rows: &[Placed]) {
        let counters = &mut self.counters;
        counters.passes += 1;
        counters.rows += rows.len() as u64;
        counters.most_rows = counters.most_rows.max(rows.len() as u64);
        let mut pages: Vec<(usize, usize)> =
            rows.iter().flat_map(|row| &row.seen).copied().collect();
        counters.tokens_read_alone += pages.iter().map(|&(_, tokens)| tokens as u64).sum::<u64>();
        // Of a page that several rows see, the most that one sees.
        pages.sort_unstable_by_key(|&(page, tokens)| (page, std::cmp::Reverse(tokens)));
        pages.dedup_by_key(|&mut (page, _)| page);
        counters.tokens_read += pages.iter().map(|&(_, tokens)| tokens as u64).sum::<u64>();
    }
}

/// A row that has its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    row: BranchRow,
    position: usize,
    page: usize,
    place: usize,
}

impl Reserved {
    /// The token and its branch.
    pub const fn row(&self) -> BranchRow {
        self.row
    }
}

/// Floats of a token's keys and values.
const fn kv_floats(config: &Config) -> usize {
    2 * config.repetitions * config.layers * config.kv_heads * config.head_width
}

/// Where a layer's keys begin in a page; its values follow. Keys are channels × tokens, so that a channel of all tokens is a vector; values are tokens × channels.
const fn offset_of(config: &Config, run: usize) -> usize {
    run * 2 * config.kv_heads * config.head_width * PAGE_TOKENS
}

/// All repetitions and layers on rows of the residual stream, in place.
fn run(
    member: &mut Member<'_>,
    index: usize,
    pool: &mut PagePool<KvPage>,
    rows: &[Placed],
    x: &mut [f32],
) {
    let Member {
        model,
        rotation,
        tally,
    } = member;
    let (model, rotation) = (*model, &*rotation);
    let trunk = model.trunk();
    let config = *trunk.config();
    let hidden = config.hidden;
    let threads = rayon::current_num_threads();
    let part = rows.len().div_ceil(threads).max(ROWS_OF_A_THREAD);
    let kv_width = config.kv_heads * config.head_width;
    for repetition in 0..config.repetitions {
        for layer in 0..config.layers {
            let between = Between {
                trunk,
                layer,
                rotation,
                past: 0,
            };
            let project = |input, x: &[f32], count: usize, tally: &mut Tally| {
                model.project_rows(layer, input, &vec![repetition; count], x, tally)
            };
            let qkv: Vec<(Vec<Vec<f32>>, Tally)> = x
                .par_chunks(part * hidden)
                .zip(rows.par_chunks(part))
                .map(|(x, rows)| {
                    let mut tally = Tally::new(&config);
                    let input = between.attention_input(x);
                    let mut qkv = project(Input::Attention, &input, rows.len(), &mut tally);
                    let positions: Vec<usize> = rows.iter().map(|row| row.position).collect();
                    for rotated in qkv.iter_mut().take(2) {
                        rotation.apply_at(rotated, &positions);
                    }
                    (qkv, tally)
                })
                .collect();
            let run = repetition * config.layers + layer;
            let start = offset_of(&config, run);
            let mut placed = rows.iter();
            for (qkv, part) in &qkv {
                tally.add(part);
                let [_, keys, values] = qkv.as_slice() else {
                    continue;
                };
                for ((key, value), row) in keys
                    .chunks_exact(kv_width)
                    .zip(values.chunks_exact(kv_width))
                    .zip(&mut placed)
                {
                    let Some(page) = pool.page_mut(row.page) else {
                        continue;
                    };
                    let page = page.of(index, &config);
                    let (page_keys, page_values) =
                        page[start..].split_at_mut(kv_width * PAGE_TOKENS);
                    for (channel, key) in key.iter().enumerate() {
                        page_keys[channel * PAGE_TOKENS + row.place] = *key;
                    }
                    page_values[row.place * kv_width..][..kv_width].copy_from_slice(value);
                }
            }
            let pool = &*pool;
            let tallies: Vec<Tally> = x
                .par_chunks_mut(part * hidden)
                .zip(rows.par_chunks(part))
                .zip(&qkv)
                .map(|((x, rows), (qkv, _))| {
                    let mut tally = Tally::new(&config);
                    let query = qkv.first().map_or(&[][..], Vec::as_slice);
                    let mixed = attention(&config, index, pool, start, query, rows);
                    for output in project(Input::AttentionOutput, &mixed, rows.len(), &mut tally) {
                        add(x, &output);
                    }
                    let gate_up =
                        project(Input::Mlp, &between.mlp_input(x), rows.len(), &mut tally);
                    for output in project(Input::MlpDown, &gated(gate_up), rows.len(), &mut tally) {
                        add(x, &output);
                    }
                    tally
                })
                .collect();
            for part in &tallies {
                tally.add(part);
            }
        }
    }
}

impl KvPage {
    /// A model's part.
    fn of(&mut self, model: usize, config: &Config) -> &mut [f32] {
        if self.0.len() <= model {
            self.0.resize_with(model + 1, Vec::new);
        }
        let part = &mut self.0[model];
        part.resize(kv_floats(config) * PAGE_TOKENS, 0.0);
        part
    }
}

/// Attention of rows to their branches, page by page.
fn attention(
    config: &Config,
    model: usize,
    pool: &PagePool<KvPage>,
    start: usize,
    query: &[f32],
    rows: &[Placed],
) -> Vec<f32> {
    let heads = config.heads;
    let width = config.head_width;
    let kv_width = config.kv_heads * width;
    let row_width = heads * width;
    let scale = 1.0 / (width as f32).sqrt();
    let mut out = vec![0.0; rows.len() * row_width];
    // Rows in the order of their pages, so that those that share a page are side by side; then the n-th pages of all rows are gone through, for n from 0.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| rows[a].seen.cmp(&rows[b].seen));
    let levels = rows.iter().map(|row| row.seen.len()).max().unwrap_or(0);
    // By row and head: a score for each token, whole pages.
    let stride = levels * PAGE_TOKENS;
    let mut scores = vec![0f32; rows.len() * heads * stride];
    let shape = Shape {
        heads,
        width,
        group: heads / config.kv_heads,
    };
    let part = |page: usize, keys: bool| -> Option<&[f32]> {
        let page = pool.page(page)?.0.get(model)?.get(start..)?;
        let (of_keys, rest) = page.split_at_checked(kv_width * PAGE_TOKENS)?;
        if keys {
            Some(of_keys)
        } else {
            rest.get(..kv_width * PAGE_TOKENS)
        }
    };
    for level in 0..levels {
        for &row in &order {
            let Some(&(page, _)) = rows[row].seen.get(level) else {
                continue;
            };
            let Some(keys) = part(page, true) else {
                continue;
            };
            let scores = &mut scores[row * heads * stride + level * PAGE_TOKENS..];
            let query = &query[row * row_width..(row + 1) * row_width];
            score_page(shape, query, keys, scores, stride);
        }
    }
    for (row, placed) in rows.iter().enumerate() {
        for scores in
            scores[row * heads * stride..(row + 1) * heads * stride].chunks_exact_mut(stride)
        {
            // Tokens of a branch are not always the whole of its pages: they move together.
            let mut seen = 0;
            for (level, &(_, tokens)) in placed.seen.iter().enumerate() {
                let first = level * PAGE_TOKENS;
                scores.copy_within(first..first + tokens, seen);
                seen += tokens;
            }
            softmax(&mut scores[..seen], scale);
        }
    }
    let mut passed = vec![0usize; rows.len()];
    for level in 0..levels {
        for &row in &order {
            let Some(&(page, tokens)) = rows[row].seen.get(level) else {
                continue;
            };
            let Some(values) = part(page, false) else {
                continue;
            };
            let weights = &scores[row * heads * stride + passed[row]..];
            let out = &mut out[row * row_width..(row + 1) * row_width];
            sum_page(shape, weights, stride, values, tokens, out);
            passed[row] += tokens;
        }
    }
    out
}

/// Heads of an attention.
#[derive(Clone, Copy)]
struct Shape {
    /// Of queries.
    heads: usize,
    /// Channels of a head.
    width: usize,
    /// Query heads of a key and value head.
    group: usize,
}

/// Scores of a row's heads with all tokens of a page; a head's scores are `stride` apart.
#[multiversion(targets("x86_64+avx2+fma"))]
fn score_page(shape: Shape, query: &[f32], keys: &[f32], scores: &mut [f32], stride: usize) {
    for (head, query) in query.chunks_exact(shape.width).enumerate() {
        let keys = &keys[head / shape.group * shape.width * PAGE_TOKENS..];
        let mut sums = [0f32; PAGE_TOKENS];
        for (query, keys) in query.iter().zip(keys.as_chunks::<PAGE_TOKENS>().0) {
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = query.mul_add(*key, *sum);
            }
        }
        scores[head * stride..][..PAGE_TOKENS].copy_from_slice(&sums);
    }
}

/// Adds weighted values of a page's first tokens to a row's heads.
#[multiversion(targets("x86_64+avx2+fma"))]
fn sum_page(
    shape: Shape,
    weights: &[f32],
    stride: usize,
    values: &[f32],
    tokens: usize,
    out: &mut [f32],
) {
    let kv_width = shape.heads / shape.group * shape.width;
    for (head, out) in out.chunks_exact_mut(shape.width).enumerate() {
        let column = head / shape.group * shape.width;
        let weights = &weights[head * stride..][..tokens];
        for (weight, values) in weights.iter().zip(values.chunks_exact(kv_width)) {
            let values = &values[column..column + shape.width];
            for (out, value) in out.iter_mut().zip(values) {
                *out = weight.mul_add(*value, *out);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{ConfigHints, KvCache, Model, forward};

    fn model() -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shared-4x3.safetensors");
        Model::open(&path, ConfigHints::default()).unwrap()
    }

    /// Branches of a random tree, grown token by token in mixed passes, against each branch by itself.
    #[test]
    fn a_branch_has_the_bits_of_its_tokens_alone() {
        let model = model();
        for layout in [Layout::CopyOnWrite, Layout::NodeAligned] {
            let mut branches = Branches::new(&[&model, &model], 400, layout).unwrap();
            let mut state = 7u64;
            let mut draw = |below: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            let root = branches.root().unwrap();
            let prompt: Vec<u32> = (0..21).map(|_| draw(4096) as u32).collect();
            let rows: Vec<Reserved> = prompt
                .iter()
                .map(|&token| {
                    let row = BranchRow {
                        segment: root,
                        token,
                    };
                    branches.reserve(row).unwrap().unwrap()
                })
                .collect();
            branches.pass(&rows).unwrap();
            let mut live: Vec<(SegmentId, Vec<u32>)> = vec![(root, prompt)];
            let mut last = Vec::new();
            for step in 0..24 {
                // Some branches fork, some end.
                if step % 4 == 0 {
                    let (segment, tokens) = live[draw(live.len())].clone();
                    let at = live
                        .iter()
                        .position(|(other, _)| *other == segment)
                        .unwrap();
                    live.remove(at);
                    for _ in 0..3 {
                        live.push((branches.fork(segment).unwrap(), tokens.clone()));
                    }
                    branches.release(segment).unwrap();
                }
                if step % 7 == 6 {
                    let (segment, _) = live.remove(draw(live.len()));
                    branches.release(segment).unwrap();
                }
                let rows: Vec<Reserved> = live
                    .iter_mut()
                    .map(|(segment, tokens)| {
                        let token = draw(4096) as u32;
                        tokens.push(token);
                        let row = BranchRow {
                            segment: *segment,
                            token,
                        };
                        branches.reserve(row).unwrap().unwrap()
                    })
                    .collect();
                last = branches.pass(&rows).unwrap();
            }
            assert_eq!(last[0], last[1]);
            let hidden = model.config().hidden;
            for ((_, tokens), found) in live.iter().zip(last[0].chunks_exact(hidden)) {
                let mut cache = KvCache::new();
                let mut tally = Tally::new(model.config());
                let whole = forward(&model, tokens, &mut cache, &mut tally, |_, _| ()).unwrap();
                assert_eq!(found, &whole[whole.len() - hidden..]);
            }
            let counters = branches.counters();
            assert_eq!(counters.passes, 25);
            assert!(counters.tokens_read < counters.tokens_read_alone);
            for (segment, _) in live {
                branches.release(segment).unwrap();
            }
            assert_eq!(branches.usage().pages, 0);
        }
    }

    #[test]
    fn a_full_pool_changes_nothing() {
        let model = model();
        let mut branches = Branches::new(&[&model], 1, Layout::NodeAligned).unwrap();
        let segment = branches.root().unwrap();
        for token in 0..PAGE_TOKENS as u32 {
            let row = BranchRow { segment, token };
            let reserved = branches.reserve(row).unwrap().unwrap();
            branches.pass(&[reserved]).unwrap();
        }
        let row = BranchRow { segment, token: 1 };
        assert_eq!(branches.reserve(row).unwrap(), None);
        assert_eq!(branches.tokens(segment).unwrap(), PAGE_TOKENS);
        assert_eq!(branches.free_pages(), 0);
        branches.release(segment).unwrap();
        assert!(branches.reserve(row).is_err());
    }
}
