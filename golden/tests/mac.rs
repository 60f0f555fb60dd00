//! The exact dot product, all products of codes and scales, and the FP64 path of the matrix product.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::{Accumulator, Mode, PAIR_BITS, acc_bits, pair};
use golden::matmul::{MatmulError, matmul, matmul_integer, output_scale};
use golden::packed::{PackedTensor, TensorScale};
use golden::requantize::requantize;
use golden::strategies;
use proptest::prelude::*;

const UNIT: f64 = 1048576.0;

fn fp4(scale: Ue4m3, position: usize, element: E2m1) -> Block {
    let mut elements = [E2m1::ZERO; BLOCK];
    elements[position] = element;
    Block::Fp4 { scale, elements }
}

fn fp8(position: usize, element: E4m3) -> Block {
    let mut elements = [E4m3::ZERO; BLOCK];
    elements[position] = element;
    Block::Fp8 { elements }
}

/// FP64 holds products of two elements exactly: 4 + 4 significant bits, twice that with scales.
fn expected(w: f64, a: f64) -> Option<i64> {
    let product = w * a * UNIT;
    (!product.is_nan()).then(|| {
        assert_eq!(product, product.trunc(), "the unit divides every product");
        product as i64
    })
}

#[test]
fn all_products_of_e4m3_codes() {
    for (i, w) in E4m3::all().enumerate() {
        for (j, a) in E4m3::all().enumerate() {
            let position = (i + j) % BLOCK;
            assert_eq!(
                pair(&fp8(position, w), &fp8(position, a)),
                expected(w.to_f64(), a.to_f64()),
                "{w:?} {a:?}"
            );
        }
    }
}

#[test]
fn all_products_of_e2m1_codes_in_all_scales_against_all_codes() {
    for (i, w) in E2m1::all().enumerate() {
        for (j, a) in E2m1::all().enumerate() {
            let position = (i + j) % BLOCK;
            let (w_block, a_block) = (fp4(Ue4m3::ONE, position, w), fp4(Ue4m3::ONE, position, a));
            assert_eq!(
                pair(&w_block, &a_block),
                expected(w.to_f64(), a.to_f64()),
                "{w:?} {a:?}"
            );
        }
        for (j, e) in E4m3::all().enumerate() {
            let position = (i + j) % BLOCK;
            for scale in Ue4m3::all() {
                let (q_block, e_block) = (fp4(scale, position, w), fp8(position, e));
                let value = expected(w.to_f64() * scale.to_f64(), e.to_f64());
                assert_eq!(pair(&q_block, &e_block), value, "{scale:?} {w:?} {e:?}");
                assert_eq!(pair(&e_block, &q_block), value, "{e:?} {scale:?} {w:?}");
            }
        }
    }
}

#[test]
fn all_pairs_of_scales() {
    for sw in Ue4m3::all() {
        for sa in Ue4m3::all() {
            for code in [0x1, 0x7, 0xF] {
                let (w, a) = (E2m1::from_low_nibble(code), E2m1::from_low_nibble(0x5));
                let value = expected(w.to_f64() * sw.to_f64(), a.to_f64() * sa.to_f64());
                assert_eq!(pair(&fp4(sw, 3, w), &fp4(sa, 3, a)), value, "{sw:?} {sa:?}");
            }
        }
    }
}

#[test]
fn extremes_stay_within_the_widths_that_hardware_has() {
    let largest4 = Block::Fp4 {
        scale: Ue4m3::MAX,
        elements: [E2m1::from_low_nibble(0x7); BLOCK],
    };
    let largest8 = Block::Fp8 {
        elements: [E4m3::from_bits(0x7E); BLOCK],
    };
    let lowest8 = Block::Fp8 {
        elements: [E4m3::from_bits(0xFE); BLOCK],
    };
    assert_eq!(
        pair(&largest4, &largest4),
        Some((16 * 6 * 6 * 448 * 448) << 20)
    );
    for w in [largest4, largest8, lowest8] {
        for a in [largest4, largest8, lowest8] {
            let result = pair(&w, &a).unwrap();
            assert!(
                result.abs() < 1 << (PAIR_BITS - 1),
                "{:?}: {result}",
                Mode::of(&w, &a)
            );
        }
    }
    // The sums before the scales, as numerics §4 gives their widths.
    let sums = [
        (Mode::Fp4Fp4, 16 * 12 * 12),
        (Mode::Fp4Fp8, 16 * 12 * 229_376),
        (Mode::Fp8Fp8, 16 * 229_376i64.pow(2)),
    ];
    for (mode, largest) in sums {
        assert!(
            largest < 1 << (mode.sum_bits() - 1) && largest >= 1 << (mode.sum_bits() - 2),
            "{mode:?}"
        );
    }
}

#[test]
fn accumulator_width() {
    let widths = [
        (1, 48),
        (16, 48),
        (17, 49),
        (32, 49),
        (33, 50),
        (48, 50),
        (64, 50),
        (4096, 56),
        (4097, 57),
        (32768, 59),
    ];
    for (max_k, bits) in widths {
        assert_eq!(acc_bits(max_k), bits, "K = {max_k}");
    }
}

#[test]
fn modes_are_ordered_by_their_tags() {
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        assert_eq!(Mode::of_tags(index & 2 != 0, index & 1 != 0), mode);
        assert_eq!(mode.tags(), [index & 2 != 0, index & 1 != 0]);
    }
}

#[test]
fn a_nan_sticks() {
    let mut acc = Accumulator::new();
    let one = fp8(0, E4m3::from_bits(0x38));
    acc.add(&one, &fp8(5, E4m3::from_bits(0xFF)));
    acc.add(&one, &one);
    assert!(acc.is_nan());
    assert_eq!(acc.value(), 1 << 20, "a pair with NaN adds nothing");
    // Even where the other side is zero.
    let mut acc = Accumulator::new();
    acc.add(&Block::ZERO, &fp8(0, E4m3::NAN));
    assert!(acc.is_nan());
}

fn tensor(
    rows: usize,
    row_blocks: usize,
    block: impl Strategy<Value = Block>,
) -> impl Strategy<Value = PackedTensor> {
    prop::collection::vec(block, rows * row_blocks).prop_map(move |blocks| {
        PackedTensor::from_blocks(&[rows, row_blocks * BLOCK], TensorScale::ONE, blocks).unwrap()
    })
}

fn factors(
    block: fn() -> BoxedStrategy<Block>,
) -> impl Strategy<Value = (PackedTensor, PackedTensor)> {
    (1usize..12, 1usize..12, 1usize..6)
        .prop_flat_map(move |(m, n, k)| (tensor(n, k, block()), tensor(m, k, block())))
}

proptest! {
    #![proptest_config(strategies::config(256))]

    #[test]
    fn pairs_are_the_sums_of_their_products((w, a) in (strategies::finite_block(), strategies::finite_block())) {
        let sum: i128 = w
            .values()
            .iter()
            .zip(a.values())
            .map(|(&w, a)| i128::from(expected(w.into(), a.into()).unwrap()))
            .sum();
        prop_assert_eq!(pair(&w, &a).map(i128::from), Some(sum));
        prop_assert_eq!(pair(&w, &a), pair(&a, &w));
    }

    #[test]
    fn pairs_are_none_iff_there_is_a_nan((w, a) in strategies::block_pair()) {
        prop_assert_eq!(pair(&w, &a).is_none(), w.has_nan() || a.has_nan());
    }

    #[test]
    fn the_order_of_accumulation_does_not_matter(
        (pairs, shuffled) in prop::collection::vec(strategies::block_pair(), 1..20)
            .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle()))
    ) {
        let sum = |pairs: &[(Block, Block)]| {
            let mut acc = Accumulator::new();
            pairs.iter().for_each(|(w, a)| acc.add(w, a));
            acc
        };
        prop_assert_eq!(sum(&pairs), sum(&shuffled));
    }

    #[test]
    fn the_fp64_product_is_the_integer_product((w, a) in factors(|| strategies::block().boxed())) {
        prop_assert_eq!(matmul(&w, &a).unwrap(), matmul_integer(&w, &a));
    }

    #[test]
    fn requantized_products_follow_the_accumulators((w, a) in factors(|| strategies::finite_block().boxed())) {
        let product = matmul(&w, &a).unwrap();
        let scale = output_scale(&w, &a).unwrap();
        let results = product.requantized(scale);
        for (acc, result) in product.accumulators.iter().zip(results) {
            prop_assert_eq!(requantize(acc.value(), acc.is_nan(), scale), result);
        }
    }
}

/// FGMP blocks with |value| ≤ 448 up to the K that numerics §4 promises, all products of one sign and odd in their lowest bit.
#[test]
fn the_fp64_product_is_exact_at_its_bound() {
    let long = |first: u8, rest: u8, blocks: usize| {
        let blocks = (0..blocks).map(|index| Block::Fp8 {
            elements: [E4m3::from_bits(if index == 0 { first } else { rest }); BLOCK],
        });
        let blocks: Vec<Block> = blocks.collect();
        PackedTensor::from_blocks(&[1, blocks.len() * BLOCK], TensorScale::ONE, blocks).unwrap()
    };
    // 2¹⁵ elements are exact in FP64; 2¹⁶ go the integer way.
    for blocks in [1 << 11, 1 << 12] {
        let (w, a) = (long(0x01, 0x7E, blocks), long(0x01, 0x7E, blocks));
        let product = matmul(&w, &a).unwrap();
        assert_eq!(product, matmul_integer(&w, &a));
        let expected = 16 * 4 + (blocks as i128 - 1) * 16 * 448 * 448 * (1 << 20);
        assert_eq!(product.accumulators[0].value(), expected);
    }
}

#[test]
fn reductions_must_match() {
    let tensor = |k: usize| {
        let blocks = vec![Block::ZERO; k.div_ceil(BLOCK)];
        PackedTensor::from_blocks(&[1, k], TensorScale::ONE, blocks).unwrap()
    };
    let mismatch = MatmulError::ReductionMismatch {
        weights: 16,
        activations: 15,
    };
    assert_eq!(
        matmul(&tensor(16), &tensor(15)),
        Err(mismatch),
        "padded they would match"
    );
    assert!(
        PackedTensor::from_blocks(&[1, 0], TensorScale::ONE, []).is_err(),
        "K = 0"
    );
}
