//! Blocks and tiles to feed the array with, reproducible from a seed.

use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::packed::PackedTensor;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Every code equally likely, NaN excepted.
    Codes,
    /// One to three powers of two whose distance puts sums exactly between two BF16 results.
    Ties,
    /// Largest, smallest normal, smallest subnormal and zero, of both signs; scales likewise.
    Extremes,
    /// Zeros of both signs.
    Zeros,
}

impl BlockKind {
    /// How often each kind is drawn, in parts of 16.
    const SHARES: [(Self, u32); 4] = [
        (Self::Codes, 8),
        (Self::Ties, 4),
        (Self::Extremes, 3),
        (Self::Zeros, 1),
    ];

    /// Draws a kind.
    pub fn draw<R: Rng>(rng: &mut R) -> Self {
        let mut left = rng.random_range(0..16);
        for (kind, share) in Self::SHARES {
            if left < share {
                return kind;
            }
            left -= share;
        }
        Self::Codes
    }
}

const SIGN_FP4: u8 = 0x8;
const SIGN_FP8: u8 = 0x80;

/// A block of this kind without NaN, FP8 or FP4.
pub fn block<R: Rng>(rng: &mut R, kind: BlockKind, fp8: bool) -> Block {
    if fp8 {
        Block::Fp8 {
            elements: fp8_codes(rng, kind).map(E4m3::from_bits),
        }
    } else {
        let (scale, codes) = fp4_codes(rng, kind);
        Block::Fp4 {
            // Every code drawn is at most 0x7E.
            scale: Ue4m3::from_bits(scale).unwrap_or(Ue4m3::ONE),
            elements: codes.map(E2m1::from_low_nibble),
        }
    }
}

/// The same block with one NaN; an FP4 block can't hold one and stays as it is.
pub fn with_nan<R: Rng>(rng: &mut R, block: &Block) -> Block {
    match block {
        Block::Fp8 { elements } => {
            let mut elements = *elements;
            let sign = if rng.random() { SIGN_FP8 } else { 0 };
            elements[rng.random_range(0..BLOCK)] = E4m3::from_bits(0x7f | sign);
            Block::Fp8 { elements }
        }
        Block::Fp4 { .. } => *block,
    }
}

fn fp8_codes<R: Rng>(rng: &mut R, kind: BlockKind) -> [u8; BLOCK] {
    let mut codes = [0; BLOCK];
    match kind {
        BlockKind::Codes => codes.fill_with(|| rng.random_range(0..=0x7e) | sign(rng, SIGN_FP8)),
        BlockKind::Ties => {
            // Exponent field e, mantissa 0 is 2^(e-7). BF16 keeps 8 bits, so 2^x + 2^(x-8) is a tie that goes down,
            // with 2^(x-7) one that goes up; a third power below decides it.
            if rng.random() {
                let high = rng.random_range(9..=15u8);
                codes[0] = high << 3;
                codes[1] = (high - 8) << 3;
                if rng.random() {
                    codes[2] = (high - 7) << 3;
                }
                if rng.random() {
                    codes[3] = 1 | sign(rng, SIGN_FP8);
                }
            } else {
                codes.fill(rng.random_range(1..=15u8) << 3);
            }
        }
        BlockKind::Extremes => codes.fill_with(|| {
            pick(rng, &[0x7e, 0x7e, 0x78, 0x08, 0x07, 0x01, 0x00]) | sign(rng, SIGN_FP8)
        }),
        BlockKind::Zeros => codes.fill_with(|| sign(rng, SIGN_FP8)),
    }
    codes
}

fn fp4_codes<R: Rng>(rng: &mut R, kind: BlockKind) -> (u8, [u8; BLOCK]) {
    let mut codes = [0; BLOCK];
    let scale = match kind {
        BlockKind::Codes | BlockKind::Zeros => rng.random_range(0..=0x7e),
        BlockKind::Ties => rng.random_range(1..=15u8) << 3,
        BlockKind::Extremes => pick(rng, &[0x7e, 0x7e, 0x78, 0x38, 0x08, 0x07, 0x01, 0x00]),
    };
    match kind {
        BlockKind::Codes => codes.fill_with(|| rng.random_range(0..16)),
        BlockKind::Ties => codes.fill(pick(rng, &[0x1, 0x2, 0x4, 0x6])),
        BlockKind::Extremes => {
            codes.fill_with(|| pick(rng, &[0x7, 0x7, 0x1, 0x2, 0x0]) | sign(rng, SIGN_FP4));
        }
        BlockKind::Zeros => codes.fill_with(|| sign(rng, SIGN_FP4)),
    }
    (scale, codes)
}

fn sign<R: Rng>(rng: &mut R, bit: u8) -> u8 {
    if rng.random() { bit } else { 0 }
}

fn pick<R: Rng>(rng: &mut R, codes: &[u8]) -> u8 {
    codes.choose(rng).copied().unwrap_or(0)
}

/// One output tile of the array: `rows × cols` results, each the sum over `steps` block pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Weight blocks, step by step, `rows` blocks each.
    pub weight: Vec<Block>,
    /// Activation blocks, step by step, `cols` blocks each.
    pub act: Vec<Block>,
    /// Steps along the reduction dimension, in blocks.
    pub steps: usize,
    /// Rows that aren't padding.
    pub live_rows: usize,
    /// Columns that aren't padding.
    pub live_cols: usize,
}

/// Endless-looking random tiles in which each of the four modes gets exactly the same number of block pairs.
///
/// Steps come in groups of four: a random split of the rows and one of the columns into FP4 and FP8, and the three others with
/// the rows', the columns', and both splits inverted, in random order. So four steps hold `rows · cols` pairs of each mode.
#[derive(Debug, Clone)]
pub struct RandomTiles {
    rng: ChaCha8Rng,
    rows: usize,
    cols: usize,
    groups_left: u64,
    longest: usize,
    waiting: Vec<(u64, u64)>,
}

/// In one of so many tiles an element is NaN.
const NAN_TILES: u32 = 16;

impl RandomTiles {
    /// Tiles for a `rows × cols` array (at most 64 each) with at least `pairs_per_mode` block pairs of every mode, rounded up to a
    /// multiple of `rows · cols`; a tile has at most `longest` steps.
    pub fn new(rows: usize, cols: usize, pairs_per_mode: u64, longest: usize, seed: u64) -> Self {
        let (rows, cols) = (rows.clamp(1, 64), cols.clamp(1, 64));
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            rows,
            cols,
            groups_left: pairs_per_mode.div_ceil((rows * cols) as u64),
            longest: longest.max(1),
            waiting: Vec::new(),
        }
    }

    fn next_split(&mut self) -> Option<(u64, u64)> {
        if self.waiting.is_empty() && self.groups_left > 0 {
            self.groups_left -= 1;
            let (w, a) = (self.rng.random(), self.rng.random());
            self.waiting = vec![(w, a), (!w, a), (w, !a), (!w, !a)];
            self.waiting.shuffle(&mut self.rng);
        }
        self.waiting.pop()
    }

    /// Mostly long enough that results leave while the next tile is computed, some as short as one step.
    fn draw_steps(&mut self) -> usize {
        let steps = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(1..=4),
            1 | 2 => self.rng.random_range(8..=32),
            _ => self.rng.random_range(16..=64),
        };
        steps.min(self.longest)
    }
}

impl Iterator for RandomTiles {
    type Item = Tile;

    fn next(&mut self) -> Option<Tile> {
        let wanted = self.draw_steps();
        let mut tile = Tile {
            weight: Vec::with_capacity(wanted * self.rows),
            act: Vec::with_capacity(wanted * self.cols),
            steps: 0,
            live_rows: self.rows,
            live_cols: self.cols,
        };
        while tile.steps < wanted {
            let Some((w, a)) = self.next_split() else {
                break;
            };
            for row in 0..self.rows {
                let kind = BlockKind::draw(&mut self.rng);
                tile.weight
                    .push(block(&mut self.rng, kind, w >> row & 1 == 1));
            }
            for col in 0..self.cols {
                let kind = BlockKind::draw(&mut self.rng);
                tile.act.push(block(&mut self.rng, kind, a >> col & 1 == 1));
            }
            tile.steps += 1;
        }
        if tile.steps == 0 {
            return None;
        }
        if self.rng.random_range(0..NAN_TILES) == 0 {
            let side = if self.rng.random() {
                &mut tile.weight
            } else {
                &mut tile.act
            };
            let fp8: Vec<usize> = (0..side.len()).filter(|at| side[*at].is_fp8()).collect();
            if let Some(at) = fp8.choose(&mut self.rng) {
                side[*at] = with_nan(&mut self.rng, &side[*at]);
            }
        }
        Some(tile)
    }
}

/// The tiles of a layer: `weights` (output features × K) times `activations` (tokens × K), both packed, cut to the array's
/// shape; rows and columns beyond the edge are FP4 zero blocks. Features advance fastest.
///
/// Both tensors must have the same blocks in a row; otherwise there are no tiles.
pub fn layer_tiles<'a>(
    weights: &'a PackedTensor,
    activations: &'a PackedTensor,
    rows: usize,
    cols: usize,
) -> impl Iterator<Item = Tile> + 'a {
    let steps = weights.row_blocks();
    let fits = steps == activations.row_blocks() && rows > 0 && cols > 0;
    let weight: Vec<Block> = weights.blocks().collect();
    let act: Vec<Block> = activations.blocks().collect();
    let (features, tokens) = if fits {
        (weights.rows(), activations.rows())
    } else {
        (0, 0)
    };
    let gather = move |blocks: &[Block], from: usize, count: usize, all: usize| {
        let mut gathered = Vec::with_capacity(steps * count);
        for step in 0..steps {
            for row in from..from + count {
                gathered.push(if row < all {
                    blocks[row * steps + step]
                } else {
                    Block::ZERO
                });
            }
        }
        gathered
    };
    let starts = move || {
        (0..tokens).step_by(cols.max(1)).flat_map(move |token| {
            (0..features)
                .step_by(rows.max(1))
                .map(move |feature| (feature, token))
        })
    };
    starts().map(move |(feature, token)| Tile {
        weight: gather(&weight, feature, rows, features),
        act: gather(&act, token, cols, tokens),
        steps,
        live_rows: rows.min(features - feature),
        live_cols: cols.min(tokens - token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use golden::mac::Mode;
    use std::collections::HashMap;

    #[test]
    fn every_mode_gets_exactly_the_same_number_of_pairs() {
        let mut pairs: HashMap<Mode, u64> = HashMap::new();
        let mut nan = 0;
        for tile in RandomTiles::new(3, 5, 10_000, 64, 11) {
            assert_eq!(tile.weight.len(), tile.steps * 3);
            assert_eq!(tile.act.len(), tile.steps * 5);
            for (w, a) in tile.weight.chunks(3).zip(tile.act.chunks(5)) {
                for w in w {
                    for a in a {
                        *pairs.entry(Mode::of(w, a)).or_default() += 1;
                    }
                }
            }
            nan += usize::from(tile.weight.iter().chain(&tile.act).any(Block::has_nan));
        }
        // 10000 rounded up to a multiple of 15.
        assert!(
            Mode::ALL.iter().all(|mode| pairs[mode] == 10_005),
            "{pairs:?}"
        );
        assert!(nan > 0, "no tile has a NaN");
    }

    #[test]
    fn a_seed_gives_the_same_tiles_and_another_gives_others() {
        let tiles = |seed| RandomTiles::new(2, 2, 100, 8, seed).collect::<Vec<_>>();
        assert_eq!(tiles(1), tiles(1));
        assert_ne!(tiles(1), tiles(2));
        assert!(tiles(1).iter().all(|tile| tile.steps <= 8));
    }

    #[test]
    fn kinds_hold_what_they_say() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for fp8 in [false, true] {
            for _ in 0..200 {
                assert!(
                    block(&mut rng, BlockKind::Zeros, fp8)
                        .values()
                        .iter()
                        .all(|v| *v == 0.0)
                );
                for kind in [BlockKind::Codes, BlockKind::Ties, BlockKind::Extremes] {
                    let block = block(&mut rng, kind, fp8);
                    assert!(!block.has_nan());
                    assert_eq!(block.is_fp8(), fp8);
                }
            }
        }
        let fp8 = block(&mut rng, BlockKind::Codes, true);
        assert!(with_nan(&mut rng, &fp8).has_nan());
    }
}
