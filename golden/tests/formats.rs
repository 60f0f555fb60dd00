//! Encoders and decoders against exhaustive search over the code tables, in exact arithmetic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::format::{E2m1, E4m3, FORMATS, Ue4m3};
use half::bf16;
use microfloat::{f4e2m1fn, f8e4m3fn};
use rayon::prelude::*;

/// Values of the magnitude codes, written out from the layouts instead of derived from the table.
const E2M1_VALUES: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn e4m3_values() -> Vec<f64> {
    (0..0x7F)
        .map(|code| {
            let (exponent, mantissa) = (code >> 3, f64::from(code & 7));
            if exponent == 0 {
                mantissa / 8.0 * 2f64.powi(-6)
            } else {
                (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7)
            }
        })
        .collect()
}

/// |x| in units of 2⁻⁹⁰, cut at 2²⁰; exact above 2⁻⁶⁰, and below that no closer to a decision point than it was.
fn fixed(x: f64) -> i128 {
    (x.abs().min(1048576.0) * 2f64.powi(90)) as i128
}

/// The code of the value nearest to |x|: the even one of two that are equally far.
fn nearest(x: f64, values: &[f64]) -> u8 {
    nearest_quotient(fixed(x), 1, values)
}

/// The code of the value v nearest to numerator / denominator: the smallest |numerator − v · denominator|.
fn nearest_quotient(numerator: i128, denominator: i128, values: &[f64]) -> u8 {
    let distance = |value: &f64| (numerator - fixed(*value) * denominator).abs();
    let closest = values.iter().map(distance).min().unwrap();
    let codes: Vec<u8> = (0u8..)
        .zip(values)
        .filter(|(_, value)| distance(value) == closest)
        .map(|(code, _)| code)
        .collect();
    match codes[..] {
        [only] => only,
        [low, high] => {
            if low % 2 == 0 {
                low
            } else {
                high
            }
        }
        _ => panic!("{codes:?} are equally far"),
    }
}

#[test]
fn the_table_agrees_with_the_values_written_out() {
    for code in 0..8u8 {
        assert_eq!(
            E2m1::from_bits(code).unwrap().to_f64(),
            E2M1_VALUES[usize::from(code)]
        );
        assert_eq!(
            E2m1::from_bits(code | 8).unwrap().to_f64(),
            -E2M1_VALUES[usize::from(code)]
        );
        assert_eq!(
            f64::from(E2m1::from_bits(code | 8).unwrap().half_units()),
            -2.0 * E2M1_VALUES[usize::from(code)]
        );
    }
    assert_eq!(E2m1::from_bits(16), None);
    for (code, value) in (0u8..).zip(e4m3_values()) {
        assert_eq!(E4m3::from_bits(code).to_f64(), value);
        assert_eq!(E4m3::from_bits(code | 0x80).to_f64(), -value);
        assert_eq!(
            f64::from(E4m3::from_bits(code).units().unwrap()),
            value * 512.0
        );
        assert_eq!(
            E4m3::from_bits(code | 0x80).units(),
            E4m3::from_bits(code).units().map(|units| -units)
        );
        assert_eq!(Ue4m3::from_bits(code).unwrap().to_f64(), value);
        assert_eq!(
            f64::from(Ue4m3::from_bits(code).unwrap().units()),
            value * 512.0
        );
    }
    for code in [0x7F, 0xFF] {
        assert!(E4m3::from_bits(code).is_nan() && E4m3::from_bits(code).units().is_none());
        assert!(E4m3::from_bits(code).to_f32().is_nan());
        assert_eq!(Ue4m3::from_bits(code), None);
    }
    for format in FORMATS {
        let bits = if format.name == "UE4M3" {
            7
        } else {
            format.bits()
        };
        assert!([4, 7, 8, 16, 32].contains(&bits), "{}", format.name);
        if bits <= 8 {
            assert_eq!(
                f64::from(format.magnitude_units(format.max_code()))
                    * 2f64.powi(format.unit_exponent()),
                format.max
            );
        }
    }
    assert!(E2m1::from_bits(8).unwrap().to_f32().is_sign_negative());
    assert!(E4m3::from_bits(0x80).to_f32().is_sign_negative());
}

#[test]
fn every_bf16_quantizes_to_the_nearest_code() {
    let e4m3_values = e4m3_values();
    for bits in 0..=u16::MAX {
        let x = bf16::from_bits(bits).to_f32();
        if x.is_nan() {
            assert_eq!(E2m1::quantize(x), None);
            assert_eq!(E4m3::quantize(x).to_bits(), 0x7F);
            continue;
        }
        let sign = (bits >> 15) as u8;
        assert_eq!(
            E2m1::quantize(x).unwrap().to_bits(),
            sign << 3 | nearest(x.into(), &E2M1_VALUES),
            "{x:e}"
        );
        assert_eq!(
            E4m3::quantize(x).to_bits(),
            sign << 7 | nearest(x.into(), &e4m3_values),
            "{x:e}"
        );
        assert_eq!(
            Ue4m3::quantize(x).to_bits(),
            nearest(x.into(), &e4m3_values),
            "{x:e}"
        );
    }
}

#[test]
fn every_bf16_agrees_with_another_crate() {
    for bits in 0..=u16::MAX {
        let x = bf16::from_bits(bits).to_f32();
        if x.is_nan() {
            continue;
        }
        assert_eq!(
            E2m1::quantize(x).unwrap().to_bits(),
            f4e2m1fn::from_f32(x).to_bits(),
            "{x:e}"
        );
        // That crate's cast doesn't saturate.
        assert_eq!(
            E4m3::quantize(x).to_bits(),
            f8e4m3fn::from_f32(x.clamp(-448.0, 448.0)).to_bits(),
            "{x:e}"
        );
    }
}

/// Decision points of a table: (the largest magnitude that still gets the code below, as bits).
fn last_bits_of_each_code(values: &[f64]) -> Vec<u32> {
    (0..values.len() - 1)
        .map(|code| {
            let tie = (values[code] + values[code + 1]) / 2.0;
            let tie_bits = (tie as f32).to_bits();
            assert_eq!(
                f64::from(tie as f32),
                tie,
                "decision points are FP32 numbers"
            );
            // The tie itself belongs to the even code.
            if code % 2 == 0 {
                tie_bits
            } else {
                tie_bits - 1
            }
        })
        .collect()
}

/// Checks the magnitudes from `first` to `last` in steps, with both signs.
fn check_range(first: u32, last: u32, step: usize, e2m1: &[u32], e4m3: &[u32]) {
    for bits in (first..=last).step_by(step) {
        let e2m1_code = e2m1.partition_point(|&last| last < bits) as u8;
        let e4m3_code = e4m3.partition_point(|&last| last < bits) as u8;
        for sign in [0, 1] {
            let x = f32::from_bits(bits | sign << 31);
            assert_eq!(
                E2m1::quantize(x).unwrap().to_bits(),
                e2m1_code | (sign << 3) as u8,
                "{x:e}"
            );
            assert_eq!(
                E4m3::quantize(x).to_bits(),
                e4m3_code | (sign << 7) as u8,
                "{x:e}"
            );
        }
    }
}

/// All 2³² FP32 inputs with `FGMP_FULL=1`; else every 9973rd and 1000 around each decision point and binade.
#[test]
fn fp32_inputs_quantize_to_the_nearest_code() {
    let e2m1 = last_bits_of_each_code(&E2M1_VALUES);
    let e4m3 = last_bits_of_each_code(&e4m3_values());
    let infinity = f32::INFINITY.to_bits();
    if std::env::var_os("FGMP_FULL").is_some_and(|value| value == "1") {
        const CHUNK: u32 = 1 << 20;
        (0..=infinity / CHUNK).into_par_iter().for_each(|chunk| {
            check_range(
                chunk * CHUNK,
                (chunk * CHUNK + (CHUNK - 1)).min(infinity),
                1,
                &e2m1,
                &e4m3,
            );
        });
        // What is left are the NaNs.
        (infinity + 1..=u32::MAX >> 1)
            .into_par_iter()
            .for_each(|bits| {
                for sign in [0, 1 << 31] {
                    assert_eq!(E2m1::quantize(f32::from_bits(bits | sign)), None);
                    assert_eq!(E4m3::quantize(f32::from_bits(bits | sign)), E4m3::NAN);
                }
            });
        println!("all 2^32 FP32 inputs checked");
        return;
    }
    check_range(0, infinity, 9973, &e2m1, &e4m3);
    let binades = (0u32..255).map(|exponent| exponent << 23);
    for center in e2m1.iter().chain(&e4m3).copied().chain(binades) {
        check_range(center.saturating_sub(500), center + 500, 1, &e2m1, &e4m3);
    }
    println!("a sample of the FP32 inputs checked; FGMP_FULL=1 checks all 2^32");
}

#[test]
fn every_bf16_amax_gives_the_nearest_scale() {
    let values = e4m3_values();
    for bits in 0..0x7F80u16 {
        let amax = bf16::from_bits(bits).to_f32();
        assert_eq!(
            Ue4m3::of_amax(amax).to_bits(),
            nearest_quotient(fixed(amax.into()), 6, &values),
            "{amax:e}"
        );
    }
    assert_eq!(Ue4m3::of_amax(f32::INFINITY), Ue4m3::MAX);
    assert_eq!(Ue4m3::of_amax(f32::NAN), Ue4m3::ZERO);
}

#[test]
fn fp32_amax_beside_each_decision_point_gives_the_nearest_scale() {
    let values = e4m3_values();
    for code in 0..0x7E {
        let decision = (6.0 * (values[code] + values[code + 1]) / 2.0) as f32;
        for bits in decision.to_bits() - 3..=decision.to_bits() + 3 {
            let amax = f32::from_bits(bits);
            let expected = nearest_quotient(fixed(amax.into()), 6, &values);
            assert_eq!(Ue4m3::of_amax(amax).to_bits(), expected, "{amax:e}");
        }
    }
}

#[test]
fn every_bf16_over_every_scale_rounds_the_exact_quotient_once() {
    let mut ties = 0;
    for scale in Ue4m3::all() {
        let unit = fixed(scale.to_f64());
        // Decision points of the magnitude, from the values alone.
        let quotients: Vec<i128> = E2M1_VALUES
            .iter()
            .map(|value| (value * 2.0) as i128 * unit)
            .collect();
        for bits in 0..0x7F80u16 {
            let x = bf16::from_bits(bits).to_f32();
            let twice = 2 * fixed(x.into());
            let expected = if unit == 0 {
                0
            } else {
                let distances = quotients.iter().map(|quotient| (twice - quotient).abs());
                let closest = distances.clone().min().unwrap();
                let mut codes = (0u8..)
                    .zip(distances)
                    .filter(|(_, d)| *d == closest)
                    .map(|(code, _)| code);
                let first = codes.next().unwrap();
                codes.next().map_or(first, |second| {
                    ties += 1;
                    if first % 2 == 0 { first } else { second }
                })
            };
            let sign = if unit == 0 { 0 } else { 8 };
            assert_eq!(
                E2m1::quantize_scaled(x, scale).to_bits(),
                expected,
                "{x:e} / {}",
                scale.to_f32()
            );
            assert_eq!(
                E2m1::quantize_scaled(-x, scale).to_bits(),
                expected | sign,
                "-{x:e} / {}",
                scale.to_f32()
            );
        }
        assert_eq!(E2m1::quantize_scaled(f32::NAN, scale), E2m1::ZERO);
    }
    assert_eq!(
        ties,
        126 * 7,
        "each scale but 0 has seven ties, all of them BF16 numbers"
    );
}
