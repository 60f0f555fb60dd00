//! How a product of any size is cut to the measure of a board, as data.
//!
//! Row group g are the weight rows g·R to g·R + R − 1, tile t the tokens t·C to t·C + C − 1 of a pass. A pass has activations in the columns' memories: some tokens, and the
//! blocks of one chunk of K. K is cut into chunks where the memories or the accumulator are too small for it; sums are integers, so that partial sums add up exactly.

use std::ops::Range;

use hdl::board::protocol::{ACCUMULATOR_BYTES, BF16_BYTES, MAX_REPLY_BODY};

/// What a board holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Rows R of the array.
    pub rows: usize,
    /// Columns C.
    pub cols: usize,
    /// Blocks of a row's memory.
    pub weight_blocks: usize,
    /// Blocks of a column's memory.
    pub act_blocks: usize,
    /// Block pairs that an accumulator sums without overflow.
    pub sum_blocks: usize,
}

/// Shape of weights: output features × blocks of K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows N.
    pub features: usize,
    /// Blocks of a row.
    pub blocks: usize,
}

impl Shape {
    /// Groups of as many rows as the array has.
    #[must_use]
    pub const fn groups(&self, rows: usize) -> usize {
        self.features.div_ceil(rows)
    }
}

/// Where the rows' memories hold weights that stay.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Placement {
    /// Row groups that stay, from the first on.
    pub groups: usize,
    /// For each chunk of K the address of the first group; the others follow.
    pub bases: Vec<usize>,
}

/// How the rows' memories are used: from 0 on weights that stay, behind them a scratch region for those that come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the board holds.
    pub geometry: Geometry,
    /// Where the scratch region begins.
    pub scratch: usize,
    /// Of each tensor that was to be kept, in their order.
    pub placements: Vec<Placement>,
}

impl Memory {
    /// Keeps nothing.
    #[must_use]
    pub const fn scratch_only(geometry: Geometry) -> Self {
        Self {
            geometry,
            scratch: 0,
            placements: Vec::new(),
        }
    }

    /// Keeps as many row groups of these tensors as fit, first come.
    #[must_use]
    pub fn keeping(geometry: Geometry, shapes: &[Shape]) -> Self {
        let depth = geometry.weight_blocks;
        let longest = shapes.iter().map(|it| it.blocks).max().unwrap_or_default();
        let total: usize = shapes
            .iter()
            .map(|it| it.groups(geometry.rows) * it.blocks)
            .sum();
        // Either everything stays beside room for one group, or a part comes and goes: then a quarter at least, so that not every group takes a round trip, and K
        // in one piece if three quarters hold it.
        let scratch = if total + longest <= depth {
            depth - total
        } else {
            (depth / 4).max(longest.min(depth * 3 / 4)).max(1)
        };
        let mut memory = Self {
            geometry,
            scratch: depth - scratch,
            placements: Vec::new(),
        };
        let mut next = 0;
        for shape in shapes {
            let free = memory.scratch - next;
            let groups = free
                .checked_div(shape.blocks)
                .unwrap_or_default()
                .min(shape.groups(geometry.rows));
            let bases = memory
                .chunks(shape.blocks)
                .iter()
                .map(|chunk| {
                    let base = next;
                    next += groups * chunk.len();
                    base
                })
                .collect();
            memory.placements.push(Placement { groups, bases });
        }
        memory
    }

    /// Longest chunk of K.
    #[must_use]
    pub fn longest_chunk(&self) -> usize {
        let it = &self.geometry;
        (it.weight_blocks - self.scratch)
            .min(it.act_blocks)
            .min(it.sum_blocks)
    }

    /// Chunks of K, as even as they can be.
    #[must_use]
    pub fn chunks(&self, blocks: usize) -> Vec<Range<usize>> {
        let count = blocks.div_ceil(self.longest_chunk().max(1)).max(1);
        let length = blocks.div_ceil(count).max(1);
        (0..blocks)
            .step_by(length)
            .map(|start| start..(start + length).min(blocks))
            .collect()
    }
}

/// Activations that are in the columns' memories at the same time. Tile t lies at address t · `blocks.len()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Which tokens.
    pub tokens: Range<usize>,
    /// Which chunk of K.
    pub chunk: usize,
    /// Its blocks.
    pub blocks: Range<usize>,
}

/// Where weights of a task are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Where they stay: the row groups of the task have to be loaded if they were not before.
    Kept,
    /// In the scratch region, which these row groups fill from its beginning on.
    Scratch(Range<usize>),
}

/// One multiplication: row groups × tiles of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which pass.
    pub pass: usize,
    /// Which weights of those that meet the activations.
    pub weights: usize,
    /// Row groups.
    pub groups: Range<usize>,
    /// Where they come from.
    pub source: Source,
    /// Address of the first of them.
    pub address: usize,
    /// Tiles of the pass's tokens.
    pub tiles: Range<usize>,
}

/// A product of activations with the weights of one or more tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the board gives BF16 results.
    pub bf16: bool,
    /// What is in the columns' memories, one after the other.
    pub passes: Vec<Pass>,
    /// What is multiplied, in this order.
    pub tasks: Vec<Task>,
}

/// A tensor of weights in a plan: its shape, and where it stays if it does.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Its shape.
    pub shape: Shape,
    /// Where it stays.
    pub placement: Option<&'a Placement>,
}

/// Plans the products of `tokens` rows of activations with weights of the same K.
///
/// BF16 results are only possible if no sum is cut into chunks.
#[must_use]
pub fn plan(
    memory: &Memory,
    operands: &[Operand<'_>],
    blocks: usize,
    tokens: usize,
    bf16: bool,
) -> Plan {
    let geometry = &memory.geometry;
    let chunks = memory.chunks(blocks);
    let bf16 = bf16 && chunks.len() == 1;
    let bytes = if bf16 { BF16_BYTES } else { ACCUMULATOR_BYTES };
    let most = (MAX_REPLY_BODY / (geometry.rows * geometry.cols * bytes)).clamp(1, 255);
    let longest = chunks.iter().map(Range::len).max().unwrap_or(1);
    let tiles_at_once = (geometry.act_blocks / longest).clamp(1, 255);
    let mut plan = Plan {
        bf16,
        passes: Vec::new(),
        tasks: Vec::new(),
    };
    for first in (0..tokens).step_by(tiles_at_once * geometry.cols) {
        let tokens = first..(first + tiles_at_once * geometry.cols).min(tokens);
        for (chunk, range) in chunks.iter().enumerate() {
            let pass = plan.passes.len();
            let tiles = tokens.len().div_ceil(geometry.cols);
            for (weights, operand) in operands.iter().enumerate() {
                let groups = operand.shape.groups(geometry.rows);
                let kept = operand.placement.map_or(0, |it| it.groups.min(groups));
                let mut fill = |groups: Range<usize>, source: Source, address: usize| {
                    let (across, down) = (tiles.min(most), (most / tiles.min(most)).max(1));
                    for group in groups.clone().step_by(down) {
                        for tile in (0..tiles).step_by(across) {
                            plan.tasks.push(Task {
                                pass,
                                weights,
                                groups: group..(group + down).min(groups.end),
                                source: source.clone(),
                                address: address + (group - groups.start) * range.len(),
                                tiles: tile..(tile + across).min(tiles),
                            });
                        }
                    }
                };
                if let Some(&base) = operand.placement.and_then(|it| it.bases.get(chunk)) {
                    fill(0..kept, Source::Kept, base);
                }
                let room = ((geometry.weight_blocks - memory.scratch) / range.len()).max(1);
                for group in (kept..groups).step_by(room) {
                    let part = group..(group + room).min(groups);
                    fill(part.clone(), Source::Scratch(part), memory.scratch);
                }
            }
            plan.passes.push(Pass {
                tokens: tokens.clone(),
                chunk,
                blocks: range.clone(),
            });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry() -> impl Strategy<Value = Geometry> {
        (1usize..=7, 1usize..=9, 1u32..7, 1u32..7, 0u32..8).prop_map(|(rows, cols, w, a, sum)| {
            Geometry {
                rows,
                cols: cols.min(63 / rows),
                weight_blocks: 1 << w,
                act_blocks: 1 << a,
                sum_blocks: 1 << sum,
            }
        })
    }

    proptest! {
        #[test]
        fn every_pair_is_multiplied_once(
            geometry in geometry(),
            kept in prop::collection::vec((1usize..40, 1usize..20), 0..4),
            once in prop::option::of(1usize..30),
            pick in any::<prop::sample::Index>(),
            tokens in 1usize..40,
            bf16 in any::<bool>(),
        ) {
            let shapes: Vec<Shape> = kept.iter().map(|&(features, blocks)| Shape { features, blocks }).collect();
            let memory = if shapes.is_empty() {
                Memory::scratch_only(geometry)
            } else {
                Memory::keeping(geometry, &shapes)
            };
            // Kept weights overlap neither one another nor the scratch region.
            let mut used = vec![false; geometry.weight_blocks];
            for (shape, placement) in shapes.iter().zip(&memory.placements) {
                for (chunk, base) in memory.chunks(shape.blocks).iter().zip(&placement.bases) {
                    let end = base + placement.groups * chunk.len();
                    prop_assert!(end <= memory.scratch);
                    prop_assert!(!used[*base..end].contains(&true));
                    used[*base..end].fill(true);
                }
            }
            let blocks = if shapes.is_empty() { 13 } else { shapes[pick.index(shapes.len())].blocks };
            let mut operands: Vec<Operand<'_>> = shapes
                .iter()
                .zip(&memory.placements)
                .filter(|(shape, _)| shape.blocks == blocks)
                .map(|(&shape, placement)| Operand { shape, placement: Some(placement) })
                .collect();
            operands.extend(once.map(|features| Operand { shape: Shape { features, blocks }, placement: None }));
            let plan = plan(&memory, &operands, blocks, tokens, bf16);
            prop_assert!(bf16 || !plan.bf16);
            let bytes = if plan.bf16 { 2 } else { 8 };
            let mut seen: Vec<Vec<u8>> = operands.iter().map(|it| vec![0; it.shape.features * tokens * blocks]).collect();
            for task in &plan.tasks {
                let pass = &plan.passes[task.pass];
                let length = pass.blocks.len();
                prop_assert!(length <= geometry.sum_blocks);
                prop_assert!(!plan.bf16 || length == blocks);
                let tiles = task.groups.len() * task.tiles.len();
                prop_assert!(tiles > 0 && tiles * geometry.rows * geometry.cols * bytes <= MAX_REPLY_BODY);
                prop_assert!(task.tiles.end * length <= geometry.act_blocks);
                prop_assert!(task.tiles.end <= pass.tokens.len().div_ceil(geometry.cols));
                let operand = &operands[task.weights];
                match &task.source {
                    Source::Kept => {
                        let placement = operand.placement.unwrap();
                        prop_assert!(task.groups.end <= placement.groups);
                        prop_assert_eq!(task.address, placement.bases[pass.chunk] + task.groups.start * length);
                    }
                    Source::Scratch(loaded) => {
                        prop_assert!(loaded.start <= task.groups.start && task.groups.end <= loaded.end);
                        prop_assert!(memory.scratch + loaded.len() * length <= geometry.weight_blocks);
                        prop_assert_eq!(task.address, memory.scratch + (task.groups.start - loaded.start) * length);
                    }
                }
                let features = operand.shape.features;
                for row in task.groups.start * geometry.rows..(task.groups.end * geometry.rows).min(features) {
                    let first = pass.tokens.start + task.tiles.start * geometry.cols;
                    for token in first..(pass.tokens.start + task.tiles.end * geometry.cols).min(pass.tokens.end) {
                        for block in pass.blocks.clone() {
                            seen[task.weights][(row * tokens + token) * blocks + block] += 1;
                        }
                    }
                }
            }
            prop_assert!(seen.iter().flatten().all(|&count| count == 1));
        }
    }
}
