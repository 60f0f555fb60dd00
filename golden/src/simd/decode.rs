//! Packed streams to values.

use multiversion::multiversion;

use super::block::scale_value;
use crate::format::{BLOCK, E4M3};

/// Values of an FP4 block without the tensor's scale.
#[inline(always)]
fn fp4_values(word: u64, scale: f32) -> [f32; BLOCK] {
    let mut values = [0f32; BLOCK];
    for (values, half) in values
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip([word as u32, (word >> 32) as u32])
    {
        for (i, value) in values.iter_mut().enumerate() {
            let code = half >> (4 * i);
            let magnitude = code & 7;
            // Exponent and mantissa of a normal E2M1 number in FP32's place, the bias corrected from 1 to 127.
            let normal = f32::from_bits((magnitude << 22) + (126 << 23));
            let number = if magnitude < 2 {
                // 0 and 0.5.
                f32::from_bits(magnitude * 0.5f32.to_bits())
            } else {
                normal
            };
            let signed = f32::from_bits(number.to_bits() | (code & 8) << 28);
            *value = signed * scale;
        }
    }
    values
}

/// Values of an FP8 block without the tensor's scale.
#[inline(always)]
fn fp8_values(low: u64, high: u64) -> [f32; BLOCK] {
    let mut values = [0f32; BLOCK];
    for (values, word) in values.as_chunks_mut::<8>().0.iter_mut().zip([low, high]) {
        for (value, byte) in values.iter_mut().zip(word.to_le_bytes()) {
            let code = u32::from(byte);
            let magnitude = code & 0x7F;
            let normal = f32::from_bits((magnitude << 20) + ((127 - E4M3.bias as u32) << 23));
            let subnormal = magnitude as f32 / 512.0;
            let number = if magnitude < 8 { subnormal } else { normal };
            let signed = f32::from_bits(number.to_bits() | (code & 0x80) << 24);
            *value = if magnitude > E4M3.max_code() {
                f32::NAN
            } else {
                signed
            };
        }
    }
    values
}

/// Streams of a packed tensor, as [`PackedTensor`](crate::packed::PackedTensor) has checked them.
#[derive(Clone, Copy)]
pub(crate) struct Streams<'a> {
    pub(crate) tags: &'a [u8],
    pub(crate) scales: &'a [u8],
    pub(crate) payload: &'a [u64],
}

#[inline(always)]
fn for_each_block(streams: Streams<'_>, blocks: usize, mut f: impl FnMut([f32; BLOCK])) {
    let mut scales = streams.scales.iter();
    let mut payload = streams.payload.iter();
    let mut next = || payload.next().copied().unwrap_or_default();
    for index in 0..blocks {
        let fp8 = streams.tags.get(index / 8).unwrap_or(&0) >> (index % 8) & 1 == 1;
        let low = next();
        f(if fp8 {
            fp8_values(low, next())
        } else {
            let code = scales.next().copied().unwrap_or_default();
            fp4_values(low, scale_value(code))
        });
    }
}

/// Values times `factor`, each product rounded once; with factor 1 the values themselves.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn to_f32(streams: Streams<'_>, factor: f32, out: &mut [[f32; BLOCK]]) {
    let blocks = out.len();
    let mut out = out.iter_mut();
    for_each_block(streams, blocks, |values| {
        if let Some(out) = out.next() {
            for (out, value) in out.iter_mut().zip(values) {
                *out = value * factor;
            }
        }
    });
}

/// Values without the tensor's scale.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn to_f64(streams: Streams<'_>, out: &mut [[f64; BLOCK]]) {
    let blocks = out.len();
    let mut out = out.iter_mut();
    for_each_block(streams, blocks, |values| {
        if let Some(out) = out.next() {
            for (out, value) in out.iter_mut().zip(values) {
                *out = value.into();
            }
        }
    });
}

/// The largest magnitude; NaN is left out.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn largest_magnitude(values: &[f64]) -> f64 {
    let larger = |largest: f64, v: f64| if v.abs() > largest { v.abs() } else { largest };
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [0f64; 16];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, v);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(0.0, |largest, &v| larger(largest, v))
}
