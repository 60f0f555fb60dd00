//! From a wrong result to the smallest case that still fails.

use std::fmt;

use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::{self, ACC_UNIT_EXPONENT, Mode};
use half::bf16;

use super::{ArrayBench, ArrayResult, Drive};
use crate::simulator::{SimError, Simulator};
use crate::stimulus::Tile;

/// Single pairs of a long tile that are tried at once.
const CANDIDATES: usize = 4096;

/// The smallest case found.
#[derive(Debug, Clone)]
pub struct MinimalCase {
    /// One tile; outside `row` and `col` its blocks are zero, if the failure allows it.
    pub tile: Tile,
    /// Row of the wrong result.
    pub row: usize,
    /// Column of the wrong result.
    pub col: usize,
    /// Rows of the array.
    pub rows: usize,
    /// Columns of the array.
    pub cols: usize,
    /// How the streams were driven when it failed.
    pub drive: Drive,
    /// What the golden model gives.
    pub expected: ArrayResult,
    /// What the design gave.
    pub actual: ArrayResult,
    /// False when the failure needs more than this tile alone, so that running it again agrees.
    pub reproducible: bool,
}

/// A failing pair of results: expected, actual.
type Failure = (ArrayResult, ArrayResult);

/// A block pair: weight, activation.
type Pair = (Block, Block);

impl<S: Simulator> ArrayBench<S> {
    /// Shrinks: single pairs first, then fewer steps, then elements to zero, while the same result stays wrong. Each try starts
    /// with a reset.
    pub(super) fn shrink(
        &mut self,
        tile: &Tile,
        row: usize,
        col: usize,
        expected: ArrayResult,
        actual: ArrayResult,
    ) -> Result<MinimalCase, SimError> {
        let mut case = MinimalCase {
            tile: tile.clone(),
            row,
            col,
            rows: self.ports.rows,
            cols: self.ports.cols,
            drive: Drive {
                check_combinational: false,
                ..Drive::FULL_SPEED
            },
            expected,
            actual,
            reproducible: true,
        };
        let mut pairs: Vec<Pair> = (0..tile.steps)
            .map(|step| {
                (
                    tile.weight[step * self.ports.rows + row],
                    tile.act[step * self.ports.cols + col],
                )
            })
            .collect();
        let Some(failure) = self.fails(&pairs, row, col)? else {
            // Not this row and column alone: keep the whole tile, at least with the streams at full speed.
            match self.tile_fails(tile, row, col)? {
                Some((expected, actual)) => (case.expected, case.actual) = (expected, actual),
                None => case.reproducible = false,
            }
            return Ok(case);
        };
        (case.expected, case.actual) = failure;

        if let Some((pair, failure)) = self.single(&pairs, row, col)? {
            pairs = vec![pair];
            (case.expected, case.actual) = failure;
        } else {
            (case.expected, case.actual) = self.fewer_steps(&mut pairs, row, col, failure)?;
        }
        let failure = (case.expected, case.actual);
        (case.expected, case.actual) = self.simpler_blocks(&mut pairs, row, col, failure)?;
        case.tile = self.alone(&pairs, row, col);
        Ok(case)
    }

    /// A tile with these pairs in one row and column and zero blocks elsewhere.
    fn alone(&self, pairs: &[Pair], row: usize, col: usize) -> Tile {
        let spread = |count: usize, at: usize, block: fn(&Pair) -> Block| {
            let mut blocks = vec![Block::ZERO; pairs.len() * count];
            for (step, pair) in pairs.iter().enumerate() {
                blocks[step * count + at] = block(pair);
            }
            blocks
        };
        Tile {
            weight: spread(self.ports.rows, row, |pair| pair.0),
            act: spread(self.ports.cols, col, |pair| pair.1),
            steps: pairs.len(),
            live_rows: self.ports.rows,
            live_cols: self.ports.cols,
        }
    }

    fn fails(
        &mut self,
        pairs: &[Pair],
        row: usize,
        col: usize,
    ) -> Result<Option<Failure>, SimError> {
        let tile = self.alone(pairs, row, col);
        self.tile_fails(&tile, row, col)
    }

    /// Runs one tile after a reset and compares one of its results.
    fn tile_fails(
        &mut self,
        tile: &Tile,
        row: usize,
        col: usize,
    ) -> Result<Option<Failure>, SimError> {
        Ok(self
            .run_fresh(std::slice::from_ref(tile))?
            .get(col * self.ports.rows + row)
            .map(|actual| (self.expected(tile, row, col), *actual))
            .filter(|(expected, actual)| !expected.allows(actual)))
    }

    /// The results of some tiles after a reset, or none when the design doesn't get through them.
    fn run_fresh(&mut self, tiles: &[Tile]) -> Result<Vec<ArrayResult>, SimError> {
        let mut job = self.job(tiles, Drive::FULL_SPEED)?;
        match self.simulator.run(&mut job) {
            Ok(_) => Ok(self.results(&job)),
            Err(
                SimError::Rule { .. } | SimError::Deadlock { .. } | SimError::OutOfCycles { .. },
            ) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The first pair that fails on its own.
    fn single(
        &mut self,
        pairs: &[Pair],
        row: usize,
        col: usize,
    ) -> Result<Option<(Pair, Failure)>, SimError> {
        let per_tile = self.ports.rows * self.ports.cols;
        for some in pairs.chunks(CANDIDATES) {
            // All at once to find candidates, then each from a reset of its own.
            let tiles: Vec<Tile> = some
                .iter()
                .map(|pair| self.alone(std::slice::from_ref(pair), row, col))
                .collect();
            let results = self.run_fresh(&tiles)?;
            let candidates = results
                .iter()
                .skip(col * self.ports.rows + row)
                .step_by(per_tile)
                .zip(&tiles)
                .zip(some)
                .filter(|((actual, tile), _)| !self.expected(tile, row, col).allows(actual))
                .map(|(_, pair)| *pair)
                .collect::<Vec<_>>();
            for pair in candidates {
                if let Some(failure) = self.fails(&[pair], row, col)? {
                    return Ok(Some((pair, failure)));
                }
            }
        }
        Ok(None)
    }

    /// Drops ever smaller runs of steps while the rest still fails.
    fn fewer_steps(
        &mut self,
        pairs: &mut Vec<Pair>,
        row: usize,
        col: usize,
        mut failure: Failure,
    ) -> Result<Failure, SimError> {
        let mut run = pairs.len() / 2;
        while run > 0 {
            let mut at = 0;
            while at < pairs.len() && pairs.len() > run {
                let mut fewer = pairs.clone();
                fewer.drain(at..(at + run).min(pairs.len()));
                match self.fails(&fewer, row, col)? {
                    Some(again) => (*pairs, failure) = (fewer, again),
                    None => at += run,
                }
            }
            run /= 2;
        }
        Ok(failure)
    }

    /// Sets elements to zero and scales to one, one by one, while it still fails; again and again, because what had to stay
    /// for another element's sake (errors can cancel) may go once that one is gone.
    fn simpler_blocks(
        &mut self,
        pairs: &mut [Pair],
        row: usize,
        col: usize,
        mut failure: Failure,
    ) -> Result<Failure, SimError> {
        let mut simpler = true;
        while simpler {
            simpler = false;
            for step in 0..pairs.len() {
                for change in 0..2 * (BLOCK + 1) {
                    let before = pairs[step];
                    let what = change / 2;
                    if change % 2 == 0 {
                        pairs[step].0 = simplified(&before.0, what);
                    } else {
                        pairs[step].1 = simplified(&before.1, what);
                    }
                    if pairs[step] == before {
                        continue;
                    }
                    match self.fails(pairs, row, col)? {
                        Some(again) => {
                            failure = again;
                            simpler = true;
                        }
                        None => pairs[step] = before,
                    }
                }
            }
        }
        Ok(failure)
    }
}

/// The block with element `what` at zero; beyond the elements, with its scale at one.
fn simplified(block: &Block, what: usize) -> Block {
    let mut simpler = *block;
    match &mut simpler {
        Block::Fp4 { scale, elements } => match elements.get_mut(what) {
            Some(element) => *element = E2m1::ZERO,
            None => *scale = Ue4m3::ONE,
        },
        Block::Fp8 { elements } => {
            if let Some(element) = elements.get_mut(what) {
                *element = E4m3::ZERO;
            }
        }
    }
    simpler
}

/// A result in hex: accumulator, NaN flag, BF16.
pub(super) fn hex(result: &ArrayResult) -> String {
    format!(
        "acc {} nan {} bf16 {:#06x}",
        signed_hex(result.acc),
        u8::from(result.nan),
        result.bf16
    )
}

fn signed_hex(value: i128) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{:#x}", value.unsigned_abs())
}

fn decoded(result: &ArrayResult) -> String {
    let acc = result.acc as f64 * f64::from(ACC_UNIT_EXPONENT).exp2();
    format!(
        "acc {} × 2^-20 = {acc:e}, {}, BF16 {:e}{}",
        result.acc,
        if result.nan { "NaN" } else { "no NaN" },
        bf16::from_bits(result.bf16).to_f32(),
        if result.last { ", last" } else { "" }
    )
}

fn describe(block: &Block) -> String {
    let packed = block.pack();
    let values = |codes: &mut dyn Iterator<Item = f32>| {
        codes
            .map(|value| value.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    match block {
        Block::Fp4 { scale, elements } => format!(
            "FP4 payload {:#018x} scale {:#04x} = {} × [{}]",
            packed.payload,
            packed.scale,
            scale.to_f32(),
            values(&mut elements.iter().map(|e| e.to_f32()))
        ),
        Block::Fp8 { elements } => format!(
            "FP8 payload {:#034x} = [{}]",
            packed.payload,
            values(&mut elements.iter().map(|e| e.to_f32()))
        ),
    }
}

impl fmt::Display for MinimalCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "row {}, column {}: {} block pair{}{}",
            self.row,
            self.col,
            self.tile.steps,
            if self.tile.steps == 1 { "" } else { "s" },
            if self.reproducible {
                ""
            } else {
                " (agrees when run alone: the failure needs what came before, or the stalls)"
            }
        )?;
        for step in 0..self.tile.steps {
            let weight = &self.tile.weight[step * self.rows + self.row];
            let act = &self.tile.act[step * self.cols + self.col];
            let result = match mac::pair(weight, act) {
                Some(units) => format!("{} × 2^-20", units),
                None => "NaN".to_owned(),
            };
            writeln!(
                f,
                "  pair {step}, {}: {result}",
                Mode::of(weight, act).name()
            )?;
            writeln!(f, "    weight     {}", describe(weight))?;
            writeln!(f, "    activation {}", describe(act))?;
        }
        writeln!(
            f,
            "  expected {} ({})",
            hex(&self.expected),
            decoded(&self.expected)
        )?;
        writeln!(
            f,
            "  actual   {} ({})",
            hex(&self.actual),
            decoded(&self.actual)
        )
    }
}
