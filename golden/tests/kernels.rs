//! The fast quantizers and decoders against the definitions, block by block.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::block::Block;
use golden::format::{BLOCK, E2M1_DECISION_QUARTERS, Ue4m3};
use golden::packed::{PackedTensor, Profile, TensorScale};
use golden::quantizer::{
    ActivationQuantizer, ChannelSensitivity, Policy, RowsError, SCORE_UNIT_EXPONENT, UNIFORM,
    WeightOptions, WeightTensor, candidates, choose, clipped_scale_by_trial, decide, pack_rows,
    quantize_weights, score_rows,
};
use golden::{Scheme, Share, strategies};
use half::bf16;
use proptest::prelude::*;

/// Numbers of a generator; some on decision points of E2M1 for a common scale, some zero, some far smaller.
fn weights(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        state >> 8
    };
    (0..count)
        .map(|_| {
            let uniform = next() as f32 / (1 << 23) as f32 - 1.0;
            match next() % 16 {
                0 => 0.0f32.copysign(uniform),
                1 => uniform * 1e-6,
                2..8 => {
                    let point = E2M1_DECISION_QUARTERS[next() as usize % 7] as f32;
                    point.copysign(uniform) * 0.03125
                }
                8 => 0.75f32.copysign(uniform),
                _ => uniform * uniform * uniform,
            }
        })
        .collect()
}

/// A row's blocks, zero-padded, and 1 where `values` are absent.
fn blocks<T: Copy>(values: &[T], k: usize, padding: T) -> Vec<[T; BLOCK]> {
    let pad = |chunk: &[T]| std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(padding));
    values
        .chunks(k)
        .flat_map(|row| row.chunks(BLOCK).map(pad).collect::<Vec<_>>())
        .collect()
}

/// numerics §3 block by block with the functions that define it.
fn by_the_definition(
    tensor: &WeightTensor<'_>,
    options: WeightOptions,
    threshold: f64,
) -> PackedTensor {
    let amax = tensor.data.iter().fold(0f32, |amax, x| amax.max(x.abs()));
    let scale = TensorScale::of_amax(amax, options.profile).unwrap();
    let s = f64::from(scale.get());
    let k = *tensor.shape.last().unwrap();
    let f = match tensor.sensitivity {
        Some(f) => blocks(f, k, 0.0).iter().map(|f| f.map(f64::from)).collect(),
        None => vec![UNIFORM; blocks(tensor.data, k, 0.0).len()],
    };
    let quantized = blocks(tensor.data, k, 0.0)
        .into_iter()
        .zip(f)
        .map(|(x, f)| {
            let z = x.map(|x| x / scale.get());
            let mut candidates = candidates(&z, &f, options.clip);
            if options.clip {
                assert_eq!(candidates.scale, clipped_scale_by_trial(&z, &f));
            }
            candidates.score *= s * s;
            choose(&z, &candidates, threshold)
        });
    PackedTensor::from_blocks(tensor.shape, scale, quantized).unwrap()
}

#[test]
fn weights_quantized_fast_are_weights_quantized_by_the_definition() {
    let fgmp = |share| Scheme::Fgmp {
        fp8_share: Share::new(share).unwrap(),
    };
    let schemes = [Scheme::Nvfp4, Scheme::Fp8, fgmp(0.3), fgmp(0.9), fgmp(0.0)];
    // Rows with and without padding, and more blocks than one task takes.
    let shapes: [&[usize]; 6] = [
        &[7, 64],
        &[5, 3, 21],
        &[1, 1],
        &[40, 15],
        &[9, 48],
        &[2, 4096 * 9 + 3],
    ];
    for (seed, shape) in (1..).zip(shapes) {
        let count = shape.iter().product();
        let data = weights(count, seed);
        let sensitivity: Vec<f32> = weights(count, seed + 100).iter().map(|x| x * x).collect();
        let large = count > 10_000;
        for sensitivity in [None, Some(sensitivity.as_slice())] {
            let tensor = WeightTensor {
                name: "w",
                shape,
                data: &data,
                sensitivity,
            };
            for scheme in schemes {
                for clip in [false, true] {
                    if clip && large && scheme != fgmp(0.3) {
                        continue;
                    }
                    let options = WeightOptions {
                        clip,
                        ..WeightOptions::new(scheme)
                    };
                    let fast = quantize_weights(&[tensor], options).unwrap();
                    let threshold = fast.thresholds[0];
                    assert_eq!(
                        fast.tensors[0],
                        by_the_definition(&tensor, options, threshold),
                        "{shape:?} {options:?}"
                    );
                }
            }
            let options = WeightOptions {
                profile: Profile::Nvfp4,
                ..WeightOptions::new(Scheme::Nvfp4)
            };
            let fast = quantize_weights(&[tensor], options).unwrap();
            assert_eq!(
                fast.tensors[0],
                by_the_definition(&tensor, options, f64::INFINITY)
            );
        }
    }
}

#[test]
fn rows_in_parts_are_the_tensor() {
    let (k, rows) = (37, 24);
    let data = weights(k * rows, 5);
    let sensitivity: Vec<f32> = data.iter().map(|x| x * x).collect();
    let tensor = WeightTensor {
        name: "w",
        shape: &[rows, k],
        data: &data,
        sensitivity: Some(&sensitivity),
    };
    let share = Share::new(0.4).unwrap();
    let options = WeightOptions {
        clip: true,
        ..WeightOptions::new(Scheme::Fgmp { fp8_share: share })
    };
    let whole = quantize_weights(&[tensor], options).unwrap();
    let scale = whole.tensors[0].scale();
    let unit = f64::from(scale.get()).powi(2);
    let (mut tags, mut scales, mut payload) =
        (Vec::<u8>::new(), Vec::<u8>::new(), Vec::<u64>::new());
    for (data, f) in data.chunks(8 * k).zip(sensitivity.chunks(8 * k)) {
        let candidates = score_rows(data, k, Some(f), scale, true).unwrap();
        let chosen = candidates
            .iter()
            .map(|c| (c.score * unit <= whole.thresholds[0]).then_some(c.scale));
        let part = pack_rows(data, k, scale, &chosen.collect::<Vec<_>>()).unwrap();
        tags.extend(part.tags());
        scales.extend(part.scales());
        payload.extend(part.payload());
    }
    assert!(whole.tensors[0].fp8_blocks() > 0);
    assert_eq!(tags, whole.tensors[0].tags());
    assert_eq!(scales, whole.tensors[0].scales());
    assert_eq!(payload, whole.tensors[0].payload());

    let one = TensorScale::ONE;
    let length = |result: Result<(), RowsError>| matches!(result, Err(RowsError::Length { .. }));
    assert!(length(score_rows(&data, 36, None, one, false).map(drop)));
    assert!(length(score_rows(&data, 0, None, one, false).map(drop)));
    assert!(length(
        score_rows(&data, k, Some(&[1.0]), one, false).map(drop)
    ));
    assert!(length(pack_rows(&data, k, one, &[None]).map(drop)));
    assert!(matches!(
        pack_rows(&[], k, one, &[]),
        Err(RowsError::Packed(_))
    ));
    let nan = score_rows(&[f32::NAN], 1, None, one, false);
    assert_eq!(nan, Err(RowsError::NonFinite));
    let negative = score_rows(&[1.0], 1, Some(&[-1.0]), one, false);
    assert_eq!(negative, Err(RowsError::Sensitivity));
    assert_eq!(score_rows(&[], 5, None, one, false), Ok(vec![]));
}

#[test]
fn the_smallest_and_largest_weights_are_quantized_by_the_definition() {
    let tiny: Vec<f32> = (0..64).map(|i| f32::from_bits(i * 37)).collect();
    let huge: Vec<f32> = (0..64).map(|i| f32::MAX / (i as f32 + 1.0)).collect();
    let one = [&[0.0; 15][..], &[-1e-30]].concat();
    for data in [tiny, huge, one, vec![0.0; 32], vec![-0.0; 16]] {
        let shape = [1, data.len()];
        let tensor = WeightTensor {
            name: "w",
            shape: &shape,
            data: &data,
            sensitivity: None,
        };
        for scheme in [
            Scheme::Nvfp4,
            Scheme::Fp8,
            Scheme::Fgmp {
                fp8_share: Share::FGMP,
            },
        ] {
            let options = WeightOptions::new(scheme);
            let fast = quantize_weights(&[tensor], options).unwrap();
            assert_eq!(
                fast.tensors[0],
                by_the_definition(&tensor, options, fast.thresholds[0])
            );
        }
    }
}

fn quantizer(codes: Vec<Ue4m3>, scale: f32, policy: Policy) -> ActivationQuantizer {
    let sensitivity = ChannelSensitivity { codes, factor: 1.0 };
    ActivationQuantizer::new(TensorScale::new(scale).unwrap(), sensitivity, policy).unwrap()
}

/// Rows packed fast against the blocks of the definition, scores against its scores.
fn check_rows(quantizer: &ActivationQuantizer, rows: &[bf16]) {
    let channels = quantizer.channels();
    let wide: Vec<f32> = rows.iter().map(|x| x.to_f32()).collect();
    let packed = quantizer.pack(&wide).unwrap();
    let blocks = rows.chunks(channels).flat_map(|row| quantizer.blocks(row));
    let expected = PackedTensor::from_blocks(
        &[rows.len() / channels, channels],
        quantizer.scale(),
        blocks,
    );
    assert_eq!(packed, expected.unwrap());
    for (row, values) in wide
        .chunks(channels)
        .zip(packed.unscaled_values_f64().chunks(quantizer.padded()))
    {
        let mut found = vec![0.0; quantizer.padded()];
        quantizer.quantize_row(row, &mut found);
        let bits = |values: &[f64]| {
            values
                .iter()
                .map(|v| if v.is_nan() { 0 } else { v.to_bits() })
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&found), bits(values));
    }
}

proptest! {
    #![proptest_config(strategies::config(256))]

    #[test]
    fn rows_packed_fast_are_rows_packed_by_the_definition(
        blocks in prop::collection::vec(strategies::z_block(), 1..6),
        rest in prop::collection::vec(strategies::any_bf16(), 0..15),
        sensitivity in strategies::sensitivity(),
        scale in prop_oneof![Just(1f32), 1e-3f32..1e3],
        threshold in strategies::threshold(),
        kind in 0usize..3,
    ) {
        let row: Vec<bf16> = blocks.into_iter().flatten().chain(rest).collect();
        let codes = sensitivity.into_iter().cycle().take(row.len()).collect();
        let policy = [Policy::Fp8, Policy::Fp4, Policy::Threshold(threshold)][kind];
        check_rows(&quantizer(codes, scale, policy), &[row.as_slice(), &row].concat());
    }

    #[test]
    fn values_decoded_fast_are_the_blocks_values(
        blocks in prop::collection::vec(strategies::block(), 1..40), rows in 1usize..4, scale in 1e-6f32..1e6
    ) {
        let k = blocks.len() * BLOCK;
        let blocks: Vec<Block> = blocks.iter().cycle().take(blocks.len() * rows).copied().collect();
        let tensor = PackedTensor::from_blocks(&[rows, k], TensorScale::new(scale).unwrap(), blocks.clone()).unwrap();
        let expected: Vec<f32> = blocks.iter().flat_map(Block::values).collect();
        let bits = |values: &[f32]| values.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect::<Vec<_>>();
        prop_assert_eq!(bits(&tensor.unscaled_values()), bits(&expected));
        let wide: Vec<f32> = tensor.unscaled_values_f64().iter().map(|&v| v as f32).collect();
        prop_assert_eq!(bits(&wide), bits(&expected));
        let scaled: Vec<f32> = expected.iter().map(|v| v * scale).collect();
        prop_assert_eq!(bits(&tensor.decode()), bits(&scaled));
    }
}

#[test]
fn every_code_is_decoded() {
    use golden::format::{E2m1, E4m3};
    let elements = |first: u8| std::array::from_fn(|i| E4m3::from_bits(first + i as u8));
    let fp8 = (0..16).map(|i| Block::Fp8 {
        elements: elements(i * 16),
    });
    let fp4 = Ue4m3::all().map(|scale| Block::Fp4 {
        scale,
        elements: std::array::from_fn(|i| E2m1::from_low_nibble(i as u8)),
    });
    let blocks: Vec<Block> = fp8.chain(fp4).collect();
    let tensor =
        PackedTensor::from_blocks(&[blocks.len() * BLOCK], TensorScale::ONE, blocks.clone())
            .unwrap();
    for (found, block) in tensor
        .unscaled_values()
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(blocks)
    {
        for (found, expected) in found.iter().zip(block.values()) {
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{block:?}"
            );
        }
    }
}

/// A score of 2⁵³ or more is not exact in FP64, but decisions are.
#[test]
fn decisions_on_large_scores_are_exact() {
    let mut z = [bf16::from_f32(360.0); BLOCK];
    z[0] = bf16::from_f32(448.0);
    z[1] = bf16::from_f32(0.0625);
    let codes = vec![Ue4m3::MAX; BLOCK];
    let score = decide(&z, &[Ue4m3::MAX; BLOCK], 0).score;
    assert!(score > 1 << 53, "{score}");
    for threshold in [
        score - 1,
        score,
        score + 1,
        1 << 53,
        (1 << 53) - 1,
        u64::MAX,
    ] {
        let quantizer = quantizer(codes.clone(), 1.0, Policy::Threshold(threshold));
        check_rows(&quantizer, &z);
        assert_eq!(
            quantizer.pack(&z.map(bf16::to_f32)).unwrap().fp8_blocks(),
            usize::from(score > threshold)
        );
    }
    let quantizer = quantizer(codes, 1.0, Policy::Fp4);
    let found: Vec<f64> = quantizer.scores(&z.map(bf16::to_f32)).collect();
    assert_eq!(found, [score as f64 * 2f64.powi(SCORE_UNIT_EXPONENT)]);
}

#[test]
fn rows_that_are_none_are_refused() {
    let quantizer = quantizer(vec![Ue4m3::ONE; 20], 1.0, Policy::Fp4);
    assert!(quantizer.pack(&[]).is_err());
    assert!(quantizer.pack(&[1.0; 19]).is_err());
    assert_eq!(quantizer.pack(&[1.0; 40]).unwrap().shape(), [2, 20]);
}
