//! The quantizers against slow definitions that search the code tables.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::packed::{PackedTensor, Profile, TensorScale};
use golden::quantizer::{
    ActivationQuantizer, ChannelSensitivity, InputScale, Policy, QuantizeError, UNIFORM,
    WeightOptions, WeightTensor, clipped_scale, decide, quantize_weights, rescale,
};
use golden::requantize::{OutputScale, requantize};
use golden::{Scheme, Selection, Share, strategies};
use half::bf16;
use proptest::array::uniform16;
use proptest::prelude::*;

/// Finite BF16 up to 448 in units of 2⁻¹⁴⁰; 2¹⁴⁹ at most would overflow, so that the tiniest are cut: they decide nothing.
fn fixed(x: f32) -> i128 {
    (f64::from(x.abs()) * 2f64.powi(100)) as i128
}

/// numerics §3 word for word, in integers of 2⁻¹⁰⁰ and by search over all codes.
fn slow_decision(
    z: &[bf16; BLOCK],
    sensitivity: &[Ue4m3; BLOCK],
) -> (Ue4m3, [u8; BLOCK], [u8; BLOCK], u128) {
    let amax = z.iter().map(|z| fixed(z.to_f32())).max().unwrap();
    let tie_even = |low: (i128, u8), next: (i128, u8)| match next.0.cmp(&low.0) {
        std::cmp::Ordering::Less => next,
        std::cmp::Ordering::Equal if next.1.is_multiple_of(2) => next,
        _ => low,
    };
    let nearest =
        |distances: &mut dyn Iterator<Item = (i128, u8)>| distances.reduce(tie_even).unwrap().1;
    let scale_code =
        nearest(&mut Ue4m3::all().map(|s| ((amax - 6 * fixed(s.to_f32())).abs(), s.to_bits())));
    let scale = Ue4m3::from_bits(scale_code).unwrap();
    let mut fp4 = [0; BLOCK];
    let mut fp8 = [0; BLOCK];
    let mut score = 0u128;
    for i in 0..BLOCK {
        let magnitude = fixed(z[i].to_f32());
        let negative = z[i].is_sign_negative();
        if scale != Ue4m3::ZERO {
            let twice_s = fixed(scale.to_f32());
            let code = nearest(&mut (0..8).map(|code| {
                let half_units = i128::from(E2m1::from_bits(code).unwrap().half_units());
                ((2 * magnitude - half_units * twice_s).abs(), code)
            }));
            fp4[i] = code | u8::from(negative) << 3;
        }
        let code = nearest(&mut (0..=0x7E).map(|code| {
            (
                (magnitude - fixed(E4m3::from_bits(code).to_f32())).abs(),
                code,
            )
        }));
        fp8[i] = code | u8::from(negative) << 7;
        let d4 =
            fixed(scale.to_f32()) * i128::from(E2m1::from_low_nibble(fp4[i] & 7).half_units()) / 2;
        let d8 = fixed(E4m3::from_bits(code).to_f32());
        // 2⁻¹⁰ divides both.
        let d = (d4 - d8) >> 90;
        score += (d * d) as u128 * u128::from(sensitivity[i].units());
    }
    (scale, fp4, fp8, score)
}

proptest! {
    #![proptest_config(strategies::config(2000))]

    #[test]
    fn online_decisions_are_those_of_the_definition(
        z in strategies::finite_z_block(), sensitivity in strategies::sensitivity(), threshold in strategies::threshold()
    ) {
        let (scale, fp4, fp8, score) = slow_decision(&z, &sensitivity);
        let decision = decide(&z, &sensitivity, threshold);
        prop_assert_eq!(decision.fp4.1, scale);
        prop_assert_eq!(decision.fp4.0.map(E2m1::to_bits), fp4);
        prop_assert_eq!(decision.fp8.map(E4m3::to_bits), fp8);
        prop_assert_eq!(u128::from(decision.score), score);
        prop_assert!(decision.score < 1 << 56);
        prop_assert_eq!(decision.block.is_fp8(), score > u128::from(threshold));
        // The threshold itself doesn't make it FP8, one less does.
        prop_assert!(!decide(&z, &sensitivity, decision.score).block.is_fp8());
        if let Some(below) = decision.score.checked_sub(1) {
            prop_assert!(decide(&z, &sensitivity, below).block.is_fp8());
        }
        let expected = if score > u128::from(threshold) {
            Block::Fp8 { elements: fp8.map(E4m3::from_bits) }
        } else {
            Block::Fp4 { scale, elements: fp4.map(E2m1::from_low_nibble) }
        };
        prop_assert_eq!(decision.block, expected);
    }

    #[test]
    fn a_nan_makes_the_block_fp8_and_scores_nothing(
        z in strategies::finite_z_block(), sensitivity in strategies::sensitivity(), position in 0..BLOCK, payload in 1u16..0x80
    ) {
        let mut with_nan = z;
        with_nan[position] = bf16::from_bits(0x7F80 | payload);
        let mut with_zero = z;
        with_zero[position] = bf16::ZERO;
        let decision = decide(&with_nan, &sensitivity, u64::MAX);
        let Block::Fp8 { elements } = decision.block else { return Err(TestCaseError::fail("FP4 with NaN")) };
        prop_assert_eq!(elements[position].to_bits(), 0x7F);
        let without = decide(&with_zero, &sensitivity, u64::MAX);
        prop_assert_eq!(decision.score, without.score);
        prop_assert_eq!(decision.fp4, without.fp4);
    }

    #[test]
    fn rescaling_rounds_twice_and_clamps(x in strategies::any_bf16(), m in strategies::multiplier()) {
        let z = rescale(x, InputScale::new(m).unwrap());
        let x = x.to_f32();
        let flush = |x: f64| if x.abs() < 2f64.powi(-126) { 0f64.copysign(x) } else { x };
        let product = flush(f64::from(x)) * f64::from(m);
        if product.is_nan() {
            prop_assert_eq!(z.to_bits(), 0x7FC0);
        } else {
            // Rounded to 24 bits at the exponent that it would have without a lower bound.
            let scaled_up = if product.abs() < 1e-30 { (product * 2f64.powi(100)) as f32 } else { product as f32 };
            let fp32 = if product.abs() < 1e-30 { f64::from(scaled_up) / 2f64.powi(100) } else { f64::from(scaled_up) };
            let expected = bf16::from_f32(flush(fp32) as f32).to_f32().clamp(-448.0, 448.0);
            prop_assert_eq!(z.to_bits(), bf16::from_f32(expected).to_bits(), "{:e} * {:e}", x, m);
        }
    }

    #[test]
    fn rows_quantized_fast_are_rows_quantized_by_the_definition(
        blocks in prop::collection::vec(strategies::z_block(), 1..4),
        wild in prop::collection::vec(strategies::any_bf16(), 0..15),
        sensitivity in strategies::sensitivity(),
        scale in prop_oneof![Just(1f32), 1e-3f32..1e3, (-20i32..20).prop_map(|e| (e as f32).exp2())],
        threshold in strategies::threshold(),
        kind in 0usize..3,
    ) {
        let row: Vec<bf16> = blocks.into_iter().flatten().chain(wild).collect();
        let codes: Vec<Ue4m3> = sensitivity.into_iter().cycle().take(row.len()).collect();
        let policy = [Policy::Fp8, Policy::Fp4, Policy::Threshold(threshold)][kind];
        let sensitivity = ChannelSensitivity { codes, factor: 1.0 };
        let quantizer = ActivationQuantizer::new(TensorScale::new(scale).unwrap(), sensitivity.clone(), policy).unwrap();
        // As activations arrive: x, such that x · M falls where the codes differ.
        let x: Vec<f32> = row.iter().map(|z| bf16::from_f32(z.to_f32() * scale).to_f32()).collect();
        let x16: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let expected: Vec<Block> = quantizer.blocks(&x16).collect();

        let mut values = vec![0f64; quantizer.padded()];
        let fp8_blocks = quantizer.quantize_row(&x, &mut values);
        prop_assert_eq!(fp8_blocks, expected.iter().filter(|block| block.is_fp8()).count());
        let expected_values: Vec<f64> = expected.iter().flat_map(|block| block.values()).map(f64::from).collect();
        for (value, expected) in values.iter().zip(&expected_values) {
            prop_assert!(value == expected || value.is_nan() && expected.is_nan(), "{} {}", value, expected);
        }

        // And the definition is `rescale` then `decide`, whatever the policy.
        for (index, block) in expected.iter().enumerate() {
            let mut z = [bf16::ZERO; BLOCK];
            let mut f = [Ue4m3::ZERO; BLOCK];
            for (i, x) in x16.iter().skip(index * BLOCK).take(BLOCK).enumerate() {
                z[i] = rescale(*x, quantizer.input_scale());
                f[i] = sensitivity.codes[index * BLOCK + i];
            }
            let decision = decide(&z, &f, policy.threshold());
            let expected = if policy == Policy::Fp8 { Block::Fp8 { elements: decision.fp8 } } else { decision.block };
            prop_assert_eq!(*block, expected);
            if policy == Policy::Fp8 && !decision.block.is_fp8() {
                // T = 0 in hardware: the same values, where a sensitivity of 0 doesn't hide a difference.
                let same = decision.block.values() == expected.values() || f.contains(&Ue4m3::ZERO);
                prop_assert!(same);
            }
        }
        let scores: Vec<f64> = quantizer.scores(&x).collect();
        prop_assert_eq!(scores.len(), expected.len());
    }

    #[test]
    fn clipping_finds_the_smallest_error(z in uniform16(-448f32..448.0), f in prop_oneof![Just(UNIFORM), uniform16(0f64..2.0)]) {
        let error = |scale: Ue4m3| {
            z.iter().zip(&f).fold(0.0, |sum, (&z, f)| {
                let difference = scale.to_f64() * E2m1::quantize_scaled(z, scale).to_f64() - f64::from(z);
                sum + f * (difference * difference)
            })
        };
        let found = clipped_scale(&z, &f);
        for scale in Ue4m3::all().skip(1) {
            let better = if scale < found { error(scale) <= error(found) } else { error(scale) < error(found) };
            prop_assert!(!better, "{:?} is better than {:?}", scale, found);
        }
    }

    #[test]
    fn requantizing_rounds_to_fp32_twice_and_to_bf16_once(
        value in prop_oneof![any::<i64>().prop_map(|v| v >> 8), any::<i64>().prop_map(|v| v >> 40), -20i64..20], m in strategies::multiplier()
    ) {
        // 56 bits: the conversion to FP32 from the integer, by hand; then FP64 holds the product of 24 × 24 bits.
        let rounded = round_to_bits(value.unsigned_abs().into(), 24) as f64 * 2f64.powi(-20);
        let product = rounded * f64::from(m.abs());
        let mantissa = |x: f64, bits: i32| {
            if x == 0.0 { return 0.0 }
            let exponent = x.log2().floor() as i32 - bits + 1;
            let scaled = x / 2f64.powi(exponent);
            scaled.round_ties_even() * 2f64.powi(exponent)
        };
        let expected = mantissa(mantissa(product, 24), 8) as f32;
        let result = requantize(value.into(), false, OutputScale::new(m).unwrap());
        prop_assert_eq!(result.to_f32().abs(), expected, "{} {:e}", value, m);
        prop_assert_eq!(result.is_sign_negative(), (value < 0) != m.is_sign_negative());
        prop_assert_eq!(requantize(value.into(), true, OutputScale::new(m).unwrap()).to_bits(), 0x7FC0);
    }
}

/// Rounds an integer to its `bits` most significant ones, ties to even.
fn round_to_bits(value: u128, bits: u32) -> u128 {
    let length = 128 - value.leading_zeros();
    if length <= bits {
        return value;
    }
    let shift = length - bits;
    let (kept, rest, half) = (
        value >> shift,
        value & ((1 << shift) - 1),
        1u128 << (shift - 1),
    );
    (kept + u128::from(rest > half || rest == half && kept % 2 == 1)) << shift
}

#[test]
fn multipliers_outside_the_range_are_refused() {
    for good in [0.0, -0.0, 1.0, -3.5, 2f32.powi(-60), -(2f32.powi(60))] {
        assert!(
            InputScale::new(good).is_ok() && OutputScale::new(good).is_ok(),
            "{good:e}"
        );
    }
    let below = f32::from_bits(2f32.powi(-60).to_bits() - 1);
    let above = f32::from_bits(2f32.powi(60).to_bits() + 1);
    for bad in [
        below,
        -below,
        above,
        f32::INFINITY,
        f32::NAN,
        f32::from_bits(1),
    ] {
        assert!(
            InputScale::new(bad).is_err() && OutputScale::new(bad).is_err(),
            "{bad:e}"
        );
    }
}

#[test]
fn rescaling_corners() {
    let one = InputScale::ONE;
    let zero = InputScale::new(0.0).unwrap();
    assert_eq!(rescale(bf16::INFINITY, one), bf16::from_f32(448.0));
    assert_eq!(rescale(bf16::NEG_INFINITY, one), bf16::from_f32(-448.0));
    assert_eq!(rescale(bf16::INFINITY, zero).to_bits(), 0x7FC0);
    assert_eq!(rescale(bf16::from_bits(0xFF81), one).to_bits(), 0x7FC0);
    assert_eq!(
        rescale(bf16::from_bits(0x8001), one).to_bits(),
        0x8000,
        "subnormals are flushed, their sign stays"
    );
    assert_eq!(
        rescale(bf16::from_bits(0x0080), one).to_bits(),
        0x0080,
        "2^-126 is normal"
    );
    let almost = InputScale::new(f32::from_bits(1f32.to_bits() - 1)).unwrap();
    assert_eq!(
        rescale(bf16::from_bits(0x8080), almost).to_bits(),
        0x8000,
        "2^-126 (1 - 2^-24) has 24 bits and is too small"
    );
    let almost = InputScale::new(f32::from_bits(2f32.to_bits() - 1)).unwrap();
    assert_eq!(
        rescale(bf16::from_f32(224.5), almost),
        bf16::from_f32(448.0),
        "clamped after rounding"
    );
}

fn weights<'a>(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> WeightTensor<'a> {
    WeightTensor {
        name,
        shape,
        data,
        sensitivity: None,
    }
}

/// Data with a spread of scales from a multiplicative generator, so that scores differ.
fn spread(count: usize) -> Vec<f32> {
    let mut state = 12345u32;
    (0..count)
        .map(|index| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let uniform = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            uniform * uniform * uniform * ((index / 40 % 7) as f32).exp2()
        })
        .collect()
}

#[test]
fn one_threshold_serves_all_weights_and_keeps_the_share() {
    let (a, b) = (
        spread(3 * 160),
        spread(7 * 48).iter().map(|x| x * 100.0).collect::<Vec<_>>(),
    );
    let tensors = [weights("a", &[3, 160], &a), weights("b", &[7, 48], &b)];
    for share in [0.0, 0.1, 0.3, 0.5, 1.0] {
        let scheme = Scheme::Fgmp {
            fp8_share: Share::new(share).unwrap(),
        };
        let quantized = quantize_weights(&tensors, WeightOptions::new(scheme)).unwrap();
        let fp8: usize = quantized.tensors.iter().map(PackedTensor::fp8_blocks).sum();
        assert_eq!(
            fp8,
            (share * 51.0) as usize,
            "51 blocks of different scores, share {share}"
        );
        if share == 0.3 {
            // In original units the second tensor's errors are 10000 times as large.
            assert_eq!(quantized.tensors[0].fp8_blocks(), 0);
        }
    }
}

#[test]
fn padding_is_zero_and_dropped_again() {
    let data = spread(3 * 21);
    for scheme in [Scheme::Fp8, Scheme::Nvfp4] {
        let quantized =
            quantize_weights(&[weights("w", &[3, 21], &data)], WeightOptions::new(scheme)).unwrap();
        let tensor = &quantized.tensors[0];
        assert_eq!(
            (tensor.rows(), tensor.row_blocks(), tensor.block_count()),
            (3, 2, 6)
        );
        let decoded = tensor.decode();
        assert_eq!(decoded.len(), data.len());
        let amax = data.iter().fold(0f32, |amax, x| amax.max(x.abs()));
        for (x, y) in data.iter().zip(decoded) {
            assert!(
                (x - y).abs() <= amax * if scheme == Scheme::Fp8 { 0.04 } else { 0.2 },
                "{x} {y}"
            );
        }
    }
}

#[test]
fn clipping_lowers_the_error_of_fp4() {
    let data = spread(64 * 64);
    let error = |clip| {
        let options = WeightOptions {
            clip,
            ..WeightOptions::new(Scheme::Nvfp4)
        };
        let quantized = quantize_weights(&[weights("w", &[64, 64], &data)], options).unwrap();
        quantized.tensors[0]
            .decode()
            .iter()
            .zip(&data)
            .map(|(y, x)| f64::from(y - x).powi(2))
            .sum::<f64>()
    };
    assert!(error(true) < 0.95 * error(false));
}

#[test]
fn profiles_set_the_tensor_scale() {
    let data = [2688.0, 1.0, -3.0, 0.0];
    let options = |profile| WeightOptions {
        profile,
        ..WeightOptions::new(Scheme::Nvfp4)
    };
    let scale = |profile| {
        quantize_weights(&[weights("w", &[1, 4], &data)], options(profile))
            .unwrap()
            .tensors[0]
            .scale()
            .get()
    };
    assert_eq!(scale(Profile::Fgmp), 6.0);
    assert_eq!(scale(Profile::Nvfp4), 1.0);
    let zeros =
        quantize_weights(&[weights("w", &[1, 4], &[0.0; 4])], options(Profile::Fgmp)).unwrap();
    assert_eq!(zeros.tensors[0].scale(), TensorScale::ONE);
    let fp8 = WeightOptions {
        profile: Profile::Nvfp4,
        ..WeightOptions::new(Scheme::Fp8)
    };
    assert!(matches!(
        quantize_weights(&[weights("w", &[1, 4], &data)], fp8),
        Err(QuantizeError::Scheme { .. })
    ));
}

#[test]
fn bad_weights_are_named() {
    let options = WeightOptions::new(Scheme::Fp8);
    for value in [f32::NAN, f32::INFINITY] {
        let error = quantize_weights(&[weights("model.w", &[1, 3], &[0.0, 1.0, value])], options)
            .unwrap_err();
        assert!(error.to_string().contains("model.w: element 2"), "{error}");
    }
    assert!(matches!(
        quantize_weights(&[weights("w", &[2, 3], &[0.0; 5])], options),
        Err(QuantizeError::Length { .. })
    ));
    assert!(matches!(
        quantize_weights(&[weights("w", &[usize::MAX, 3], &[0.0; 5])], options),
        Err(QuantizeError::Length { .. })
    ));
    assert!(quantize_weights(&[weights("w", &[0, 3], &[])], options).is_err());
    let sensitivity = Some([-1.0f32].as_slice());
    let negative = WeightTensor {
        sensitivity,
        ..weights("w", &[1, 1], &[1.0])
    };
    assert!(matches!(
        quantize_weights(&[negative], options),
        Err(QuantizeError::Sensitivity { .. })
    ));
    assert!(matches!(
        quantize_weights(
            &[weights("w", &[1, 1], &[1.0])],
            WeightOptions::new(Scheme::Bf16)
        ),
        Err(QuantizeError::Scheme { .. })
    ));
}

#[test]
fn channel_sensitivities_keep_their_ratio_to_three_bits() {
    let sensitivity = ChannelSensitivity::of(&[1e-6, 4e-6, 0.0, 8e-6, f32::NAN]);
    let values: Vec<f64> = sensitivity
        .codes
        .iter()
        .map(|code| sensitivity.factor * code.to_f64())
        .collect();
    for (value, expected) in values.iter().zip([1e-6, 4e-6, 0.0, 8e-6, 0.0]) {
        assert!(
            (value - expected).abs() <= expected / 16.0,
            "{value} {expected}"
        );
    }
    assert_eq!(
        ChannelSensitivity::of(&[0.0; 3]),
        ChannelSensitivity::uniform(3)
    );
}

#[test]
fn thresholds_are_floored_in_the_units_of_the_hardware() {
    let scale = TensorScale::new(0.5).unwrap();
    let unit = 2f64.powi(-29) * 0.25;
    assert_eq!(
        Policy::of_original_units(7.9 * unit, scale, 1.0),
        Policy::Threshold(7)
    );
    assert_eq!(
        Policy::of_original_units(8.0 * unit, scale, 2.0),
        Policy::Threshold(4)
    );
    assert_eq!(
        Policy::of_original_units(f64::MAX, scale, 1.0),
        Policy::Threshold(u64::MAX)
    );
}

#[test]
fn thresholds_per_tensor_and_random_ones_keep_the_share_too() {
    let (a, b) = (
        spread(3 * 160),
        spread(7 * 48).iter().map(|x| x * 100.0).collect::<Vec<_>>(),
    );
    let tensors = [weights("a", &[3, 160], &a), weights("b", &[7, 48], &b)];
    let fp8_blocks = |selection| -> Vec<usize> {
        let options = WeightOptions {
            selection,
            ..WeightOptions::new(Scheme::Fgmp {
                fp8_share: Share::FGMP,
            })
        };
        let quantized = quantize_weights(&tensors, options).unwrap();
        quantized
            .tensors
            .iter()
            .map(PackedTensor::fp8_blocks)
            .collect()
    };
    // 30 blocks and 21.
    assert_eq!(fp8_blocks(Selection::Global), [0, 15]);
    assert_eq!(fp8_blocks(Selection::PerLayer), [9, 6]);
    let random = fp8_blocks(Selection::Random(1));
    assert_eq!(random.iter().sum::<usize>(), 15);
    assert!(random[0] > 0 && random[1] > 0);
    assert_eq!(random, fp8_blocks(Selection::Random(1)));
    let others: Vec<_> = (2..20)
        .map(|seed| fp8_blocks(Selection::Random(seed)))
        .collect();
    assert!(others.iter().any(|other| *other != random));
}
