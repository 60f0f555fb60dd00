//! Weights: scores and packed streams of many blocks.

use std::sync::atomic::{AtomicU32, Ordering};

use multiversion::multiversion;
use rayon::prelude::*;

use super::block::{
    amax_bits, for_each_block, fp4_magnitudes, fp4_word, fp8_magnitudes, fp8_words, scale_code,
    scale_value,
};
use super::clip;
use crate::format::{BLOCK, Ue4m3};
use crate::packed::{StreamBuilder, TensorScale};
use crate::quantizer::{Candidates, UNIFORM};

/// Bits of the largest magnitude in `data`, 0 for none; those of infinity or above if an element is not finite.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn largest_bits(data: &[f32]) -> u32 {
    let (blocks, rest) = data.as_chunks::<32>();
    let mut lanes = [0u32; 32];
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = (*lane).max(x.abs().to_bits());
        }
    }
    let lanes = lanes.into_iter();
    lanes
        .chain(rest.iter().map(|x| x.abs().to_bits()))
        .fold(0, u32::max)
}

/// Whether all are finite and none is below zero.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn are_sensitivities(data: &[f32]) -> bool {
    let bad = |f: &f32| u32::from(!(*f >= 0.0 && *f <= f32::MAX));
    let (blocks, rest) = data.as_chunks::<32>();
    let mut lanes = [0u32; 32];
    for block in blocks {
        for (lane, f) in lanes.iter_mut().zip(block) {
            *lane |= bad(f);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().map(bad))
        .all(|bad| bad == 0)
}

/// x / S in FP32.
#[inline(always)]
fn divided(x: &[f32; BLOCK], scale: f32) -> [f32; BLOCK] {
    let mut z = *x;
    for z in &mut z {
        *z /= scale;
    }
    z
}

/// Blocks that are scored together. A sum in index order is a chain of additions that wait for one another; those of several blocks
/// fill each other's waits, as do the steps from a block's amax to its scale.
const GROUP: usize = 8;

/// Blocks to be scored: what is divided by S, and F.
struct Group {
    z: [[f32; BLOCK]; GROUP],
    sensitivity: [[f64; BLOCK]; GROUP],
    held: usize,
}

impl Group {
    /// Scores the blocks into the next places of `out`, and holds none.
    #[inline(always)]
    fn score<'a>(&mut self, clip: bool, out: &mut impl Iterator<Item = &'a mut Candidates>) {
        let mut codes = [0u8; GROUP];
        for ((code, z), f) in codes.iter_mut().zip(&self.z).zip(&self.sensitivity) {
            *code = scale_code(f32::from_bits(amax_bits(z)));
            if clip {
                *code = clip::search(z, f, *code).to_bits();
            }
        }
        let mut terms = [[0f64; BLOCK]; GROUP];
        let blocks = self.z.iter().zip(&self.sensitivity).zip(codes);
        for (terms, ((z, f), code)) in terms.iter_mut().zip(blocks) {
            let (fp4, fp8) = (fp4_magnitudes(z, scale_value(code)), fp8_magnitudes(z));
            for (((term, fp4), fp8), f) in terms.iter_mut().zip(fp4).zip(fp8).zip(f) {
                // Multiples of 2⁻¹⁰ up to 2688 of the same sign: exact in FP32.
                let excess = f64::from(fp4 - fp8);
                *term = f * (excess * excess);
            }
        }
        let mut scores = [0f64; GROUP];
        for element in 0..BLOCK {
            for (score, terms) in scores.iter_mut().zip(&terms) {
                *score += terms[element];
            }
        }
        for ((score, code), out) in scores.into_iter().zip(codes).take(self.held).zip(out) {
            *out = Candidates {
                scale: Ue4m3::from_bits(code).unwrap_or(Ue4m3::MAX),
                score,
                nan: false,
            };
        }
        self.held = 0;
    }
}

/// Scores rows of `k` finite elements; as many blocks as `out` takes.
///
/// `sensitivity`, if any, is as long as `data`.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
fn score_chunk(
    data: &[f32],
    sensitivity: Option<&[f32]>,
    k: usize,
    scale: f32,
    clip: bool,
    out: &mut [Candidates],
) {
    let mut out = out.iter_mut();
    let mut group = Group {
        z: [[0.0; BLOCK]; GROUP],
        sensitivity: [UNIFORM; GROUP],
        held: 0,
    };
    // The end of a row is shorter; what pads it has no error, whatever its sensitivity.
    let mut sensitivity =
        sensitivity.map(|all| all.chunks(k.max(1)).flat_map(|row| row.chunks(BLOCK)));
    for_each_block(data, k, |x| {
        let (z, f) = (&mut group.z, &mut group.sensitivity);
        if let (Some(z), Some(f)) = (z.get_mut(group.held), f.get_mut(group.held)) {
            *z = divided(x, scale);
            if let Some(given) = sensitivity.as_mut().and_then(Iterator::next) {
                for (f, &given) in f.iter_mut().zip(given) {
                    *f = given.into();
                }
            }
        }
        group.held += 1;
        if group.held == GROUP {
            group.score(clip, &mut out);
        }
    });
    if group.held > 0 {
        group.score(clip, &mut out);
    }
}

/// Quantizes rows of `k` elements to FP4 with scales of amax. Returns [`largest_bits`] of `data`; what is not finite has no codes.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
fn pack_fp4_chunk(
    data: &[f32],
    k: usize,
    scale: f32,
    scales: &mut [u8],
    payload: &mut [u64],
) -> u32 {
    let mut out = scales.iter_mut().zip(payload);
    let mut largest = 0;
    for_each_block(data, k, |x| {
        if let Some((code, word)) = out.next() {
            let z = divided(x, scale);
            let amax = amax_bits(x);
            largest = largest.max(amax);
            // Division by one number is monotone, so that this is the largest quotient.
            *code = scale_code(f32::from_bits(amax) / scale);
            *word = fp4_word(&z, scale_value(*code));
        }
    });
    largest
}

/// Quantizes rows of `k` finite elements to the formats chosen: FP4 with this scale, or FP8.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
fn pack_chunk(
    data: &[f32],
    k: usize,
    scale: f32,
    choices: &[Option<Ue4m3>],
    streams: &mut StreamBuilder,
) {
    let mut choices = choices.iter();
    for_each_block(data, k, |x| {
        let z = divided(x, scale);
        match choices.next() {
            Some(Some(scale)) => {
                streams.push_fp4(scale.to_bits(), fp4_word(&z, scale.to_f32()));
            }
            Some(None) => streams.push_fp8(fp8_words(&z)),
            None => {}
        }
    });
}

/// How rows are dealt out to threads: elements and blocks of a part, and elements of a row within it. Parts are made of 8 blocks at least,
/// so that no byte of tags is shared.
fn parts(k: usize) -> (usize, usize, usize) {
    /// Enough for a part to be worth a task: 1/4 MiB of weights.
    const BLOCKS: usize = 4096;
    if k.is_multiple_of(BLOCK) {
        // Without padding rows don't matter.
        (BLOCKS * BLOCK, BLOCKS, BLOCKS * BLOCK)
    } else {
        let row_blocks = k.div_ceil(BLOCK);
        let rows = BLOCKS.div_ceil(row_blocks).next_multiple_of(8);
        (rows * k, rows * row_blocks, k)
    }
}

/// Blocks of rows of `k` elements.
fn block_count(elements: usize, k: usize) -> usize {
    elements.checked_div(k).unwrap_or_default() * k.div_ceil(BLOCK)
}

/// Scores whole rows of `k` finite elements under tensor scale S = `scale`; `sensitivity`, if any, is as long as `data`.
pub(crate) fn score(
    data: &[f32],
    sensitivity: Option<&[f32]>,
    k: usize,
    scale: TensorScale,
    clip: bool,
) -> Vec<Candidates> {
    let none = Candidates {
        scale: Ue4m3::ZERO,
        score: 0.0,
        nan: false,
    };
    let mut candidates = vec![none; block_count(data.len(), k)];
    let (elements, blocks, k) = parts(k);
    candidates
        .par_chunks_mut(blocks)
        .enumerate()
        .for_each(|(part, out)| {
            let range = part * elements..((part + 1) * elements).min(data.len());
            let data = data.get(range.clone()).unwrap_or_default();
            let sensitivity = sensitivity.and_then(|all| all.get(range));
            score_chunk(data, sensitivity, k, scale.get(), clip, out);
        });
    candidates
}

/// Quantizes whole rows of `k` finite elements to the formats chosen: FP4 with this scale, or FP8.
pub(crate) fn pack(
    data: &[f32],
    k: usize,
    scale: TensorScale,
    choices: &[Option<Ue4m3>],
) -> StreamBuilder {
    let (elements, blocks, k) = parts(k);
    let parts: Vec<StreamBuilder> = data
        .par_chunks(elements.max(1))
        .zip(choices.par_chunks(blocks.max(1)))
        .map(|(data, choices)| {
            let mut streams = StreamBuilder::with_capacity(choices.len());
            pack_chunk(data, k, scale.get(), choices, &mut streams);
            streams
        })
        .collect();
    let mut all = StreamBuilder::with_capacity(choices.len());
    for part in &parts {
        all.append(part);
    }
    all
}

/// Quantizes whole rows of `k` finite elements to FP8.
pub(crate) fn pack_fp8(data: &[f32], k: usize, scale: TensorScale) -> StreamBuilder {
    pack(data, k, scale, &vec![None; block_count(data.len(), k)])
}

/// Makes FP4 blocks of whole rows of `k` elements: `fill` gets a part of the rows, the elements of a row within it, and a scale and a word
/// for each of its blocks to write.
pub(crate) fn fill_fp4(
    data: &[f32],
    k: usize,
    fill: impl Fn(&[f32], usize, &mut [u8], &mut [u64]) + Sync,
) -> StreamBuilder {
    let count = block_count(data.len(), k);
    let (mut scales, mut payload) = (vec![0; count], vec![0; count]);
    let (elements, blocks, k) = parts(k);
    data.par_chunks(elements.max(1))
        .zip(scales.par_chunks_mut(blocks.max(1)))
        .zip(payload.par_chunks_mut(blocks.max(1)))
        .for_each(|((data, scales), payload)| fill(data, k, scales, payload));
    StreamBuilder::of_fp4(scales, payload)
}

/// Quantizes whole rows of `k` elements to FP4 with scales of amax; `None` if one is not finite.
pub(crate) fn pack_fp4(data: &[f32], k: usize, scale: TensorScale) -> Option<StreamBuilder> {
    let largest = AtomicU32::new(0);
    let streams = fill_fp4(data, k, |data, k, scales, payload| {
        let bits = pack_fp4_chunk(data, k, scale.get(), scales, payload);
        largest.fetch_max(bits, Ordering::Relaxed);
    });
    f32::from_bits(largest.into_inner())
        .is_finite()
        .then_some(streams)
}
