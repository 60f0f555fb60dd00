//! The datapaths of one format against their golden twins, in rust-hdl's simulator.
#![allow(clippy::unwrap_used, clippy::panic)]

use golden::block::Block as GoldenBlock;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::{Accumulator, pair, sum_fp4_fp4, sum_fp8_fp8};
use hdl::decoder::{BlockDecoder, MagnitudeDecoder};
use hdl::mac::reduced::{Fp4Product, Fp4Sum, Fp8Pe, Fp8Sum, Nvfp4Pair};
use hdl::mac::{MAX_STAGES, MIN_STAGES, ScaleProduct, boundaries};
use hdl::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::array::from_fn;

fn settle(module: &mut impl Block) {
    assert!(simulate(module, 1000), "the module does not settle");
}

macro_rules! cycle {
    ($module:expr) => {
        $module.clock.next = Clock { clk: false };
        settle(&mut $module);
        $module.clock.next = Clock { clk: true };
        settle(&mut $module);
    };
}

/// Sign-extends the low `bits` bits.
fn signed(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

fn e2m1(code: u8) -> E2m1 {
    E2m1::from_bits(code).unwrap()
}

/// Elements of every kind of sum: all of one code in turn, then random ones.
fn fp4_blocks(rng: &mut ChaCha8Rng) -> Vec<[E2m1; BLOCK]> {
    let equal = (0..16).map(|code| [e2m1(code); BLOCK]);
    let random = (0..60).map(|_| from_fn(|_| e2m1(rng.random_range(0..16))));
    equal.chain(random).collect()
}

fn fp8_blocks(rng: &mut ChaCha8Rng) -> Vec<[E4m3; BLOCK]> {
    let extremes = [0x7E, 0xFE, 0x00, 0x80, 0x01, 0x81, 0x08, 0x07].into_iter();
    let equal = extremes.map(|code| [E4m3::from_bits(code); BLOCK]);
    let random = (0..60).map(|_| {
        from_fn(|_| {
            let code = rng.random_range(0..0x7F_u8) | u8::from(rng.random::<bool>()) << 7;
            E4m3::from_bits(code)
        })
    });
    equal.chain(random).collect()
}

#[test]
fn every_pair_of_e2m1_codes_is_multiplied() {
    let mut product = Fp4Product::default();
    for w in 0..16_u8 {
        for a in 0..16_u8 {
            product.weight.next = u64::from(w).into();
            product.act.next = u64::from(a).into();
            settle(&mut product);
            let expected = i64::from(e2m1(w).half_units()) * i64::from(e2m1(a).half_units());
            let found = signed(product.product.val().to_u64(), 9);
            assert_eq!(
                found + i64::from(product.negative.val()),
                expected,
                "{w:x} * {a:x}"
            );
        }
    }
}

#[test]
fn every_magnitude_is_decoded() {
    let mut decoder = MagnitudeDecoder::default();
    for scale in Ue4m3::all() {
        decoder.code.next = u64::from(scale.to_bits()).into();
        settle(&mut decoder);
        let value = decoder.significand.val().to_u64() << decoder.shift.val().to_u64();
        assert_eq!(value, u64::from(scale.units()));
    }
}

#[test]
fn every_significand_multiplies_every_13_bit_value() {
    let mut product = ScaleProduct::<13, 15, 17>::default();
    for value in -4096..4096_i64 {
        // All significands for some values, some for all.
        for significand in (0..16).filter(|s| value % 16 == 0 || (value & 15) == *s) {
            product.value.next = (value as u64 & 0x1FFF).into();
            product.significand.next = (significand as u64).into();
            settle(&mut product);
            let found = signed(product.product.val().to_u64(), 17);
            assert_eq!(found, value * significand, "{value} * {significand}");
        }
    }
}

#[test]
fn fp4_sums_are_exact() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let blocks = fp4_blocks(&mut rng);
    for pipelined in [false, true] {
        let mut module = Fp4Sum::new(pipelined);
        module.enable.next = true;
        for w in &blocks {
            let a = &blocks[rng.random_range(0..blocks.len())];
            for i in 0..BLOCK {
                module.weight[i].next = u64::from(w[i].to_bits()).into();
                module.act[i].next = u64::from(a[i].to_bits()).into();
            }
            for _ in 0..=Fp4Sum::latency(pipelined) {
                cycle!(module);
            }
            let found = signed(module.sum.val().to_u64(), 13);
            assert_eq!(found, sum_fp4_fp4(w, a), "{w:?} * {a:?}");
        }
    }
}

#[test]
fn nvfp4_pairs_are_exact() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let elements = fp4_blocks(&mut rng);
    let mut block = |elements: &[E2m1; BLOCK]| {
        let scale = match rng.random_range(0..4) {
            0 => 0x7E,
            1 => rng.random_range(0..8),
            _ => rng.random_range(0..=0x7E),
        };
        GoldenBlock::Fp4 {
            scale: Ue4m3::from_bits(scale).unwrap(),
            elements: *elements,
        }
    };
    let pairs: Vec<(GoldenBlock, GoldenBlock)> = elements
        .iter()
        .flat_map(|w| [7, 15, 16, 40].map(|a| (block(w), block(&elements[a]))))
        .collect();
    for pipelined in [false, true] {
        let mut module = Nvfp4Pair::new(pipelined);
        module.enable.next = true;
        let latency = Nvfp4Pair::latency(pipelined);
        for cycle in 0..pairs.len() + latency {
            let (w, a) = &pairs[cycle.min(pairs.len() - 1)];
            for (block, scale, lanes) in [
                (w, &mut module.weight_scale, &mut module.weight),
                (a, &mut module.act_scale, &mut module.act),
            ] {
                let packed = block.pack();
                scale.next = u64::from(packed.scale).into();
                for (i, lane) in lanes.iter_mut().enumerate() {
                    lane.next = ((packed.payload >> (4 * i)) as u64 & 15).into();
                }
            }
            module.clock.next = Clock { clk: false };
            settle(&mut module);
            if cycle >= latency {
                let (w, a) = &pairs[cycle - latency];
                let found = signed(module.term.val().to_u64(), 48);
                assert_eq!(found, pair(w, a).unwrap(), "{w:?} * {a:?}");
            }
            module.clock.next = Clock { clk: true };
            settle(&mut module);
        }
    }
}

#[test]
fn fp8_sums_are_exact() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let blocks = fp8_blocks(&mut rng);
    let pairs: Vec<(&[E4m3; BLOCK], &[E4m3; BLOCK])> = blocks
        .iter()
        .flat_map(|w| [0, 1, 20].map(|a| (w, &blocks[a])))
        .collect();
    for pipelined in [false, true] {
        let mut module = Fp8Sum::new(pipelined);
        module.enable.next = true;
        let latency = Fp8Sum::latency(pipelined);
        for cycle in 0..pairs.len() + latency {
            let (w, a) = pairs[cycle.min(pairs.len() - 1)];
            for i in 0..BLOCK {
                module.weight[i].next = u64::from(w[i].to_bits()).into();
                module.act[i].next = u64::from(a[i].to_bits()).into();
            }
            module.clock.next = Clock { clk: false };
            settle(&mut module);
            if cycle >= latency {
                let (w, a) = pairs[cycle - latency];
                let found = signed(module.sum.val().to_u64(), 41);
                assert_eq!(found, sum_fp8_fp8(w, a).unwrap());
            }
            module.clock.next = Clock { clk: true };
            settle(&mut module);
        }
    }
}

#[test]
fn an_fp8_processing_element_accumulates_exactly_at_every_depth() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let mut decoder = BlockDecoder::default();
    for stages in MIN_STAGES..=MAX_STAGES {
        let mut pe = Fp8Pe::<56>::new(stages);
        let present = boundaries(stages);
        for tile in 0..6 {
            let mut golden = Accumulator::new();
            let steps = rng.random_range(1..6);
            // One pair after another, each through the whole pipeline: what overlaps is the four-mode element's test.
            for step in 0..steps {
                let blocks: [GoldenBlock; 2] = from_fn(|_| GoldenBlock::Fp8 {
                    elements: from_fn(|_| {
                        loop {
                            let element = E4m3::from_bits(rng.random());
                            if tile == 5 || !element.is_nan() {
                                break element;
                            }
                        }
                    }),
                });
                golden.add(&blocks[0], &blocks[1]);
                for (block, lanes, nan) in [
                    (&blocks[0], &mut pe.weight, &mut pe.weight_nan),
                    (&blocks[1], &mut pe.act, &mut pe.act_nan),
                ] {
                    let packed = block.pack();
                    decoder.block.next = Bits::from_words(&[
                        packed.payload as u64,
                        (packed.payload >> 64) as u64,
                        u64::from(packed.tag) << 8,
                    ]);
                    settle(&mut decoder);
                    nan.next = decoder.nan.val();
                    for (lane, decoded) in lanes.iter_mut().zip(&decoder.lane) {
                        lane.next = decoded.val();
                    }
                }
                pe.first.next = step == 0;
                pe.capture.next = step + 1 == steps;
                for boundary in (0..present.len()).filter(|b| present[*b]) {
                    for (i, enable) in pe.enable.iter_mut().enumerate() {
                        enable.next = i == boundary;
                    }
                    cycle!(pe);
                }
                for enable in &mut pe.enable {
                    enable.next = false;
                }
                pe.accumulate.next = true;
                cycle!(pe);
                pe.accumulate.next = false;
            }
            assert_eq!(pe.result_nan.val(), golden.is_nan(), "{stages} stages");
            if !golden.is_nan() {
                let found = signed(pe.result.val().to_u64(), 56);
                assert_eq!(i128::from(found), golden.value(), "{stages} stages");
            }
        }
    }
}
