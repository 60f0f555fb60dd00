//! What a bench found out, for people and machines. The field names are stable.

use std::fmt;
use std::path::PathBuf;

use golden::block::Block;
use golden::format::{E2m1, E4m3, Ue4m3};
use golden::mac::Mode;
use serde::Serialize;

/// Block pairs of each mode, weight format first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PairsByMode {
    /// FP4 weights, FP4 activations.
    pub fp4_fp4: u64,
    /// FP4 weights, FP8 activations.
    pub fp4_fp8: u64,
    /// FP8 weights, FP4 activations.
    pub fp8_fp4: u64,
    /// FP8 weights, FP8 activations.
    pub fp8_fp8: u64,
}

impl PairsByMode {
    /// Pairs of one mode.
    pub fn get(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Fp4Fp4 => self.fp4_fp4,
            Mode::Fp4Fp8 => self.fp4_fp8,
            Mode::Fp8Fp4 => self.fp8_fp4,
            Mode::Fp8Fp8 => self.fp8_fp8,
        }
    }

    /// Counts one pair.
    pub fn add(&mut self, mode: Mode) {
        *match mode {
            Mode::Fp4Fp4 => &mut self.fp4_fp4,
            Mode::Fp4Fp8 => &mut self.fp4_fp8,
            Mode::Fp8Fp4 => &mut self.fp8_fp4,
            Mode::Fp8Fp8 => &mut self.fp8_fp8,
        } += 1;
    }

    /// Pairs of all modes.
    pub fn total(&self) -> u64 {
        self.fp4_fp4 + self.fp4_fp8 + self.fp8_fp4 + self.fp8_fp8
    }
}

/// How often each class of number occurred: block pairs in which the block holds at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Classes {
    /// ±0.
    pub zero: u64,
    /// Below the smallest normal number.
    pub subnormal: u64,
    /// Everything between.
    pub normal: u64,
    /// The largest finite magnitude.
    pub max: u64,
    /// NaN.
    pub nan: u64,
}

/// Classes present in something, one bit each, in the order of [`Classes`]' fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassSet(u8);

impl ClassSet {
    const ZERO: u8 = 1;
    const SUBNORMAL: u8 = 2;
    const NORMAL: u8 = 4;
    const MAX: u8 = 8;
    const NAN: u8 = 16;

    /// Classes of a block's elements.
    pub fn of_elements(block: &Block) -> Self {
        Self(match block {
            Block::Fp4 { elements, .. } => elements.iter().fold(0, |set, e| set | e2m1_class(*e)),
            Block::Fp8 { elements } => elements.iter().fold(0, |set, e| set | e4m3_class(*e)),
        })
    }

    /// Class of a block's scale; empty for FP8.
    pub fn of_scale(block: &Block) -> Self {
        Self(match block {
            Block::Fp4 { scale, .. } => ue4m3_class(*scale),
            Block::Fp8 { .. } => 0,
        })
    }
}

fn e2m1_class(code: E2m1) -> u8 {
    match code.to_bits() & 0x7 {
        0 => ClassSet::ZERO,
        1 => ClassSet::SUBNORMAL,
        7 => ClassSet::MAX,
        _ => ClassSet::NORMAL,
    }
}

fn e4m3_class(code: E4m3) -> u8 {
    match code.to_bits() & 0x7f {
        0 => ClassSet::ZERO,
        1..=7 => ClassSet::SUBNORMAL,
        0x7e => ClassSet::MAX,
        0x7f => ClassSet::NAN,
        _ => ClassSet::NORMAL,
    }
}

/// UE4M3 is E4M3 without a sign.
fn ue4m3_class(code: Ue4m3) -> u8 {
    e4m3_class(E4m3::from_bits(code.to_bits()))
}

impl Classes {
    /// Counts the classes of a set.
    pub fn add(&mut self, set: ClassSet) {
        for (bit, count) in [
            (ClassSet::ZERO, &mut self.zero),
            (ClassSet::SUBNORMAL, &mut self.subnormal),
            (ClassSet::NORMAL, &mut self.normal),
            (ClassSet::MAX, &mut self.max),
            (ClassSet::NAN, &mut self.nan),
        ] {
            *count += u64::from(set.0 & bit != 0);
        }
    }

    fn missing(&self, nan_possible: bool) -> impl Iterator<Item = &'static str> {
        [
            ("zero", self.zero),
            ("subnormal", self.subnormal),
            ("normal", self.normal),
            ("max", self.max),
            ("nan", if nan_possible { self.nan } else { 1 }),
        ]
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name)
    }
}

/// What occurred on both sides of the pairs of one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ModeCoverage {
    /// Weight elements.
    pub weight: Classes,
    /// Activation elements.
    pub act: Classes,
    /// Weight scales; all zero where weights are FP8.
    pub weight_scale: Classes,
    /// Activation scales; all zero where activations are FP8.
    pub act_scale: Classes,
}

/// Classes of elements and scales by mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Coverage {
    /// FP4 weights, FP4 activations.
    pub fp4_fp4: ModeCoverage,
    /// FP4 weights, FP8 activations.
    pub fp4_fp8: ModeCoverage,
    /// FP8 weights, FP4 activations.
    pub fp8_fp4: ModeCoverage,
    /// FP8 weights, FP8 activations.
    pub fp8_fp8: ModeCoverage,
}

impl Coverage {
    /// The entry of a mode.
    pub fn mode(&mut self, mode: Mode) -> &mut ModeCoverage {
        match mode {
            Mode::Fp4Fp4 => &mut self.fp4_fp4,
            Mode::Fp4Fp8 => &mut self.fp4_fp8,
            Mode::Fp8Fp4 => &mut self.fp8_fp4,
            Mode::Fp8Fp8 => &mut self.fp8_fp8,
        }
    }

    /// Classes that can occur and didn't, for example `FP4×FP8 weight subnormal`.
    pub fn holes(&self) -> Vec<String> {
        let modes = [
            (Mode::Fp4Fp4, &self.fp4_fp4, false, false),
            (Mode::Fp4Fp8, &self.fp4_fp8, false, true),
            (Mode::Fp8Fp4, &self.fp8_fp4, true, false),
            (Mode::Fp8Fp8, &self.fp8_fp8, true, true),
        ];
        let mut holes = Vec::new();
        for (mode, seen, weight_fp8, act_fp8) in modes {
            let mut note = |side: &str, classes: &Classes, nan: bool| {
                holes.extend(
                    classes
                        .missing(nan)
                        .map(|class| format!("{} {side} {class}", mode.name())),
                );
            };
            note("weight", &seen.weight, weight_fp8);
            note("act", &seen.act, act_fp8);
            if !weight_fp8 {
                note("weight scale", &seen.weight_scale, false);
            }
            if !act_fp8 {
                note("act scale", &seen.act_scale, false);
            }
        }
        holes
    }
}

/// The first mismatch of a run, as small as it could be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstMismatch {
    /// Everything about it as text: where, the blocks, the expected and the actual result, in hex and decoded.
    pub description: String,
    /// What the golden model gives, in hex.
    pub expected: String,
    /// What the design gave, in hex.
    pub actual: String,
    /// Block pairs (or blocks) that the smallest failing case needs.
    pub smallest_case: usize,
    /// The waveform of that case, when one was written.
    pub waveform: Option<PathBuf>,
}

/// What the quantizer's stimulus exercised, in blocks but for the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct QuantizerCoverage {
    /// Decided as FP4.
    pub fp4_blocks: u64,
    /// Decided as FP8 by their score.
    pub fp8_blocks: u64,
    /// Decided as FP8 because of a NaN.
    pub nan_blocks: u64,
    /// Impact score exactly at the threshold.
    pub score_equals_threshold: u64,
    /// The FP4 scale rounds to zero.
    pub zero_scale: u64,
    /// The FP4 scale is the largest that a clamped block can have.
    pub largest_scale: u64,
    /// Rows whose last block is padded.
    pub padded_rows: u64,
}

/// Result of a co-simulation; `C` is what its stimulus covered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report<C = Coverage> {
    /// What ran the design, with its version.
    pub simulator: String,
    /// Results compared with the golden model.
    pub vectors: u64,
    /// Results that differ.
    pub mismatches: u64,
    /// Clock cycles simulated, resets excluded.
    pub cycles: u64,
    /// Wall time of the whole run: stimulus, simulation, golden model.
    pub seconds: f64,
    /// Cycles per second of simulation alone.
    pub cycles_per_second: f64,
    /// Block pairs (array) or blocks (quantizer) per second of the whole run.
    pub pairs_per_second: f64,
    /// Block pairs by mode, padding excluded; zero for the quantizer.
    pub pairs_by_mode: PairsByMode,
    /// What the stimulus exercised.
    pub coverage: C,
    /// The first mismatch, if there is one.
    pub first_mismatch: Option<FirstMismatch>,
}

impl<C> Report<C> {
    /// Whether everything agreed.
    pub fn passed(&self) -> bool {
        self.mismatches == 0 && self.vectors > 0
    }
}

impl<C> fmt::Display for Report<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} results, {} mismatches, {} cycles ({:.0} cycles/s), {:.0} pairs/s",
            self.simulator,
            self.vectors,
            self.mismatches,
            self.cycles,
            self.cycles_per_second,
            self.pairs_per_second
        )?;
        if self.pairs_by_mode.total() > 0 {
            let modes =
                Mode::ALL.map(|mode| format!("{} {}", mode.name(), self.pairs_by_mode.get(mode)));
            writeln!(f, "block pairs: {}", modes.join(", "))?;
        }
        if let Some(first) = &self.first_mismatch {
            write!(f, "{}", first.description)?;
            if let Some(file) = &first.waveform {
                writeln!(f, "waveform: {}", file.display())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use golden::format::BLOCK;

    #[test]
    fn classes_of_every_code_are_right() {
        for code in E4m3::all() {
            let value = code.to_f32().abs();
            let class = match value {
                v if v.is_nan() => ClassSet::NAN,
                0.0 => ClassSet::ZERO,
                448.0 => ClassSet::MAX,
                v if v < 1.0 / 64.0 => ClassSet::SUBNORMAL,
                _ => ClassSet::NORMAL,
            };
            assert_eq!(e4m3_class(code), class, "{value}");
        }
        for code in E2m1::all() {
            let class = match code.to_f32().abs() {
                0.0 => ClassSet::ZERO,
                0.5 => ClassSet::SUBNORMAL,
                6.0 => ClassSet::MAX,
                _ => ClassSet::NORMAL,
            };
            assert_eq!(e2m1_class(code), class);
        }
    }

    #[test]
    fn holes_are_named_until_they_are_filled() {
        let mut coverage = Coverage::default();
        // 4 modes, 2 sides of 4 classes, NaN on 4 FP8 sides, 4 scales of 4 classes.
        assert_eq!(coverage.holes().len(), 4 * 2 * 4 + 4 + 4 * 4);
        let nan = Block::Fp8 {
            elements: [E4m3::NAN; BLOCK],
        };
        coverage
            .mode(Mode::Fp4Fp8)
            .act
            .add(ClassSet::of_elements(&nan));
        assert_eq!(coverage.holes().len(), 51);
        assert!(
            coverage
                .holes()
                .contains(&"FP4×FP4 act scale max".to_owned())
        );
    }
}
