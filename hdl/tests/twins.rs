//! Each module against its golden twin, in rust-hdl's simulator.
#![allow(clippy::unwrap_used, clippy::panic)]

use golden::block::Block as GoldenBlock;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::mac::{Accumulator, pair};
use golden::quantizer::{InputScale, decide, rescale};
use golden::requantize::{OutputScale, requantize};
use half::bf16;
use hdl::config::Multiplier;
use hdl::decoder::{BlockDecoder, LaneInteger};
use hdl::mac::{
    AlignedProduct, BOUNDARIES, IntegerLane, Lane, MAX_STAGES, MIN_STAGES, Pe, SignedProduct,
    boundaries,
};
use hdl::prelude::*;
use hdl::quantizer::{ActQuantizer, AmaxScale, E2m1Round, E4m3Round, Rescaler};
use hdl::requantizer::Requantizer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn settle(module: &mut impl Block) {
    assert!(simulate(module, 1000), "the module does not settle");
}

/// Drives `clock` low and high once; the macro reaches the field of any module.
macro_rules! cycle {
    ($module:expr) => {
        $module.clock.next = Clock { clk: false };
        settle(&mut $module);
        $module.clock.next = Clock { clk: true };
        settle(&mut $module);
    };
}

fn packed(block: &GoldenBlock) -> Bits<137> {
    let packed = block.pack();
    Bits::from_words(&[
        packed.payload as u64,
        (packed.payload >> 64) as u64,
        u64::from(packed.scale) | u64::from(packed.tag) << 8,
    ])
}

fn random_block(rng: &mut ChaCha8Rng, fp8: bool, nan: bool) -> GoldenBlock {
    if fp8 {
        GoldenBlock::Fp8 {
            elements: std::array::from_fn(|_| {
                loop {
                    let element = E4m3::from_bits(rng.random());
                    if nan || !element.is_nan() {
                        break element;
                    }
                }
            }),
        }
    } else {
        GoldenBlock::Fp4 {
            scale: Ue4m3::from_bits(rng.random_range(0..=0x7E)).unwrap(),
            elements: std::array::from_fn(|_| E2m1::from_bits(rng.random_range(0..16)).unwrap()),
        }
    }
}

/// Sign-extends the low `bits` bits.
fn signed(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

/// The lane form of every element of both formats, from the decoder, sixteen at a time, with its value in units of 2^-9 or 2^-1.
fn lane_forms() -> [Vec<(i64, Bits<9>)>; 2] {
    let mut decoder = BlockDecoder::default();
    let mut decoded = |block: GoldenBlock| {
        decoder.block.next = packed(&block);
        settle(&mut decoder);
        assert_eq!(decoder.fp8.val(), matches!(block, GoldenBlock::Fp8 { .. }));
        assert_eq!(decoder.nan.val(), block.has_nan());
        decoder.lane.each_ref().map(|lane| lane.val())
    };
    let mut fp8 = Vec::new();
    for high in 0..16_u8 {
        let elements: [E4m3; BLOCK] = std::array::from_fn(|i| E4m3::from_bits(high * 16 + i as u8));
        let lanes = decoded(GoldenBlock::Fp8 { elements });
        let units = elements.iter().map(|e| e.units().map(i64::from));
        fp8.extend(
            units
                .zip(lanes)
                .filter_map(|(units, lane)| Some((units?, lane))),
        );
    }
    let elements: [E2m1; BLOCK] = std::array::from_fn(|i| E2m1::from_bits(i as u8).unwrap());
    let lanes = decoded(GoldenBlock::Fp4 {
        scale: Ue4m3::MAX,
        elements,
    });
    let fp4 = elements.iter().map(|e| i64::from(e.half_units()));
    [fp8, fp4.zip(lanes).collect()]
}

#[test]
fn a_lane_multiplies_every_pair_of_all_modes() {
    let mut lane = Lane::default();
    let mut align = AlignedProduct::default();
    let forms = lane_forms();
    let all = || forms.iter().flatten();
    assert_eq!(all().count(), 254 + 16);
    for &(w, weight) in all() {
        for &(a, act) in all() {
            lane.weight.next = weight;
            lane.act.next = act;
            settle(&mut lane);
            align.product.next = lane.product.val();
            align.negative.next = lane.negative.val();
            align.shift.next = lane.shift.val();
            settle(&mut align);
            let missing = i64::from(lane.negative.val());
            assert_eq!(
                signed(align.aligned.val().to_u64(), 37) + missing,
                w * a,
                "{w} * {a}"
            );
        }
    }
}

#[test]
fn an_integer_lane_multiplies_every_pair_of_all_modes() {
    let mut integer = LaneInteger::default();
    let forms = lane_forms().map(|form| {
        form.into_iter()
            .map(|(value, lane)| {
                integer.lane.next = lane;
                settle(&mut integer);
                (value, integer.value.val())
            })
            .collect::<Vec<_>>()
    });
    let mut lane = IntegerLane::default();
    let mut sign = SignedProduct::default();
    for &(w, weight) in forms.iter().flatten() {
        for &(a, act) in forms.iter().flatten() {
            lane.weight.next = weight;
            lane.act.next = act;
            settle(&mut lane);
            sign.product.next = lane.product.val();
            sign.negative.next = lane.negative.val();
            settle(&mut sign);
            let found = signed(sign.aligned.val().to_u64(), 37);
            assert_eq!(found + i64::from(lane.negative.val()), w * a, "{w} * {a}");
        }
    }
}

const MULTIPLIERS: [Multiplier; 2] = [Multiplier::Lut, Multiplier::Dsp];

/// A PE of any depth behind its decoders, driven as the array drives it.
struct Bench<const ACC: usize> {
    row: BlockDecoder,
    column: BlockDecoder,
    integer: LaneInteger,
    pe: Pe<ACC>,
    present: [bool; BOUNDARIES],
    /// Of the pair before each boundary that has a register, and before the accumulator: first, last.
    pairs: Vec<Option<(bool, bool)>>,
}

impl<const ACC: usize> Bench<ACC> {
    fn new(stages: usize, multiplier: Multiplier) -> Self {
        Self {
            row: BlockDecoder::default(),
            column: BlockDecoder::default(),
            integer: LaneInteger::default(),
            pe: {
                let mut pe = Pe::new(stages, multiplier);
                pe.fresh.next = true;
                pe
            },
            present: boundaries(stages),
            pairs: vec![None; stages],
        }
    }

    /// One cycle, with a pair or without; true if a result was captured.
    fn cycle(&mut self, pair: Option<(&GoldenBlock, &GoldenBlock, bool, bool)>) -> bool {
        if let Some((w, a, ..)) = pair {
            self.row.block.next = packed(w);
            self.column.block.next = packed(a);
            settle(&mut self.row);
            settle(&mut self.column);
        }
        let pe = &mut self.pe;
        pe.weight_fp8.next = self.row.fp8.val();
        pe.weight_nan.next = self.row.nan.val();
        pe.weight_scale.next = self.row.scale.val();
        pe.act_fp8.next = self.column.fp8.val();
        pe.act_nan.next = self.column.nan.val();
        pe.act_scale.next = self.column.scale.val();
        for (decoder, lanes, integers) in [
            (&self.row, &mut pe.weight, &mut pe.weight_integer),
            (&self.column, &mut pe.act, &mut pe.act_integer),
        ] {
            assert_eq!(lanes.len() + integers.len(), BLOCK);
            for (lane, decoded) in lanes.iter_mut().zip(&decoder.lane) {
                lane.next = decoded.val();
            }
            for (lane, decoded) in integers.iter_mut().zip(&decoder.lane) {
                self.integer.lane.next = decoded.val();
                settle(&mut self.integer);
                lane.next = self.integer.value.val();
            }
        }
        self.pairs[0] = pair.map(|(_, _, first, last)| (first, last));
        let mut stage = 0;
        for (enable, present) in pe.enable.iter_mut().zip(self.present) {
            enable.next = self.pairs[stage].is_some();
            stage += usize::from(present);
        }
        let before_accumulator = self.pairs[stage];
        let (first, last) = before_accumulator.unwrap_or_default();
        pe.accumulate.next = before_accumulator.is_some();
        pe.first.next = first;
        pe.capture.next = last;
        cycle!(self.pe);
        if before_accumulator.is_some() {
            self.pe.fresh.next = false;
        }
        self.pairs.rotate_right(1);
        last
    }
}

#[test]
fn processing_element_accumulates_exactly_in_all_modes_at_every_depth() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let depths = MIN_STAGES..=MAX_STAGES;
    for (stages, multiplier) in depths.flat_map(|s| MULTIPLIERS.map(|m| (s, m))) {
        let mut bench = Bench::<56>::new(stages, multiplier);
        let mut expected = std::collections::VecDeque::new();
        let mut results = 0;
        for tile in 0..24 {
            let mut golden = Accumulator::new();
            let steps = rng.random_range(1..12);
            let mut step = 0;
            // After the last tile the pipeline runs empty.
            let idle = if tile == 23 { stages } else { 0 };
            while step < steps + idle {
                let (w, a);
                let pair = if step < steps && rng.random_bool(0.8) {
                    let (fp8_w, fp8_a) = (rng.random(), rng.random());
                    let nan = tile % 8 == 7;
                    w = random_block(&mut rng, fp8_w, nan);
                    a = random_block(&mut rng, fp8_a, nan);
                    golden.add(&w, &a);
                    if step + 1 == steps {
                        expected.push_back(golden);
                    }
                    step += 1;
                    Some((&w, &a, step == 1, step == steps))
                } else {
                    step += usize::from(step >= steps);
                    None
                };
                if !bench.cycle(pair) {
                    continue;
                }
                let golden: Accumulator = expected.pop_front().unwrap();
                results += 1;
                assert_eq!(
                    bench.pe.result_nan.val(),
                    golden.is_nan(),
                    "{stages} stages"
                );
                if !golden.is_nan() {
                    let found = signed(bench.pe.result.val().to_u64(), 56);
                    assert_eq!(i128::from(found), golden.value(), "{stages} stages");
                }
            }
        }
        assert_eq!(results, 24, "{stages} stages");
    }
}

#[test]
fn processing_element_holds_the_extremes() {
    // The largest pair of each mode, and the most negative one.
    let fp8 = |code| GoldenBlock::Fp8 {
        elements: [E4m3::from_bits(code); BLOCK],
    };
    let fp4 = |code| GoldenBlock::Fp4 {
        scale: Ue4m3::MAX,
        elements: [E2m1::from_bits(code).unwrap(); BLOCK],
    };
    for multiplier in MULTIPLIERS {
        let mut bench = Bench::<52>::new(MAX_STAGES, multiplier);
        for w in [fp8(0x7E), fp8(0xFE), fp4(7), fp4(15)] {
            for a in [fp8(0x7E), fp8(0xFE), fp4(7), fp4(15)] {
                let mut feed = Some((&w, &a, true, true));
                while !bench.cycle(feed.take()) {}
                let result = signed(bench.pe.result.val().to_u64(), 52);
                assert_eq!(result, pair(&w, &a).unwrap());
            }
        }
    }
}

#[test]
fn block_scale_of_every_amax() {
    let mut module = AmaxScale::default();
    for bits in 0..=bf16::from_f32(448.0).to_bits() {
        let amax = bf16::from_bits(bits);
        // Subnormal BF16 magnitudes are flushed before they reach the unit.
        if bits != 0 && bits < 0x80 {
            continue;
        }
        module.amax.next = u64::from(bits).into();
        settle(&mut module);
        assert_eq!(
            module.code.val().to_u8(),
            Ue4m3::of_amax(amax.to_f32()).to_bits(),
            "amax {amax}"
        );
    }
}

#[test]
fn e4m3_code_of_every_bf16_in_range() {
    let mut module = E4m3Round::default();
    for bits in (0x80..=bf16::from_f32(448.0).to_bits()).chain([0]) {
        let z = bf16::from_bits(bits);
        module.zero.next = bits >> 7 == 0;
        module.exponent.next = u64::from(bits >> 7).into();
        module.significand.next = (u64::from(bits & 0x7F) << 4 | 0x800).into();
        settle(&mut module);
        assert_eq!(
            module.code.val().to_u8(),
            E4m3::quantize(z.to_f32()).to_bits(),
            "z {z}"
        );
    }
}

#[test]
fn e2m1_code_on_every_tie_and_around_it() {
    let mut module = E2m1Round::default();
    for scale in Ue4m3::all() {
        if scale.to_f32() > 80.0 {
            continue;
        }
        for quarters in golden::format::E2M1_DECISION_QUARTERS {
            let tie = bf16::from_f32(scale.to_f32() * quarters as f32 / 4.0);
            if tie.to_f32() > 440.0 {
                continue;
            }
            for delta in -2_i32..=2 {
                let Ok(bits) = u16::try_from(i32::from(tie.to_bits()) + delta) else {
                    continue;
                };
                for sign in [0, 0x8000_u16] {
                    let z = bf16::from_bits(bits | sign);
                    if bits != 0 && bits < 0x80 {
                        continue;
                    }
                    module.z.next = u64::from(bits | sign).into();
                    module.scale.next = u64::from(scale.units()).into();
                    settle(&mut module);
                    let expected = E2m1::quantize_scaled(z.to_f32(), scale);
                    assert_eq!(
                        module.code.val().to_u8(),
                        expected.to_bits(),
                        "{z} / {}",
                        scale.to_f32()
                    );
                }
            }
        }
    }
}

#[test]
fn rescaler_rounds_twice_and_clamps() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut module = Rescaler::default();
    module.advance.next = true;
    let special = [
        0_u16, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x0001, 0x007F, 0x0080, 0x7F7F, 0x43E0,
        0x43E1,
    ];
    for round in 0..6000 {
        let x = bf16::from_bits(if round % 4 == 0 {
            special[rng.random_range(0..special.len())]
        } else {
            rng.random()
        });
        let m = match round % 5 {
            0 => 0.0,
            1 => 1.0 / 3.0,
            _ => {
                f32::from_bits(rng.random_range(0x2180_0000..0x5D80_0000))
                    * if rng.random() { 1.0 } else { -1.0 }
            }
        };
        module.x.next = u64::from(x.to_bits()).into();
        module.scale.next = u64::from(m.to_bits()).into();
        cycle!(module);
        cycle!(module);
        let expected = rescale(x, InputScale::new(m).unwrap());
        assert_eq!(
            module.z.val().to_u16(),
            expected.to_bits(),
            "{x:?} ({:04x}) * {m:e}",
            x.to_bits()
        );
    }
}

#[test]
fn requantizer_agrees_on_random_and_tie_accumulators() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut module = Requantizer::<56>::default();
    module.reset.next = true;
    cycle!(module);
    module.reset.next = false;
    module.out_ready.next = true;
    for round in 0..3000_u32 {
        let width = rng.random_range(1..56);
        let mut acc = (rng.random::<i64>() >> (64 - width)).clamp(-(1 << 55), (1 << 55) - 1);
        if round % 3 == 0 {
            // Ties of the first and second rounding: few bits set, one of them at the guard position.
            let top = rng.random_range(25..55);
            acc = (1 << top) | (1 << (top - 24)) | (i64::from(rng.random::<bool>()) << (top - 23));
        }
        if round % 97 == 0 {
            acc = 0;
        }
        let nan = round % 50 == 49;
        let m = if round % 4 == 0 {
            1.0
        } else {
            f32::from_bits(rng.random_range(0x2180_0000..0x5D80_0000))
        };
        let m = if rng.random() { m } else { -m };
        module.output_scale.next = u64::from(m.to_bits()).into();
        module.in_valid.next = true;
        module.in_acc.next = (acc as u64 & ((1 << 56) - 1)).into();
        module.in_nan.next = nan;
        for _ in 0..4 {
            cycle!(module);
        }
        assert!(module.out_valid.val());
        let expected = requantize(i128::from(acc), nan, OutputScale::new(m).unwrap());
        assert_eq!(
            module.out_data.val().to_u16(),
            expected.to_bits(),
            "{acc} * {m:e}"
        );
        assert_eq!(signed(module.out_acc.val().to_u64(), 56), acc);
    }
}

/// Feeds rows through the unit, all outputs always ready, and returns the three streams.
fn quantize_rows(
    unit: &mut ActQuantizer,
    rows: &[Vec<(bf16, Ue4m3)>],
) -> (Vec<u64>, Vec<u8>, Vec<bool>, usize) {
    let (mut payload, mut scales, mut tags) = (Vec::new(), Vec::new(), Vec::new());
    let beats: Vec<(bf16, Ue4m3, bool)> = rows
        .iter()
        .flat_map(|row| {
            row.iter()
                .enumerate()
                .map(|(i, &(x, f))| (x, f, i + 1 == row.len()))
        })
        .collect();
    let blocks: usize = rows.iter().map(|row| row.len().div_ceil(BLOCK)).sum();
    unit.payload_ready.next = true;
    unit.scale_ready.next = true;
    unit.tag_ready.next = true;
    let (mut sent, mut cycles) = (0, 0);
    while tags.len() < blocks || cycles < 10 {
        unit.clock.next = Clock { clk: false };
        unit.x_valid.next = sent < beats.len();
        if let Some(&(x, f, last)) = beats.get(sent) {
            unit.x_data.next = u64::from(x.to_bits()).into();
            unit.x_sensitivity.next = u64::from(f.to_bits()).into();
            unit.x_last.next = last;
        }
        settle(unit);
        let taken = unit.x_valid.val() && unit.x_ready.val();
        if unit.payload_valid.val() {
            payload.push(unit.payload_data.val().to_u64());
        }
        if unit.scale_valid.val() {
            scales.push(unit.scale_data.val().to_u8());
        }
        if unit.tag_valid.val() {
            tags.push(unit.tag_data.val().any());
        }
        unit.clock.next = Clock { clk: true };
        settle(unit);
        sent += usize::from(taken);
        cycles += 1;
        assert!(
            cycles < beats.len() * 20 + 400,
            "the unit hangs after {sent} elements and {} blocks",
            tags.len()
        );
    }
    // The second word of a last FP8 block follows its tag.
    for _ in 0..2 {
        unit.clock.next = Clock { clk: false };
        settle(unit);
        if unit.payload_valid.val() {
            payload.push(unit.payload_data.val().to_u64());
        }
        unit.clock.next = Clock { clk: true };
        settle(unit);
    }
    (payload, scales, tags, cycles)
}

#[test]
fn quantization_unit_decides_as_the_golden_model() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut unit = ActQuantizer::default();
    unit.reset.next = true;
    cycle!(unit);
    unit.reset.next = false;
    let m = 0.75_f32;
    unit.input_scale.next = u64::from(m.to_bits()).into();
    let mut seen = [0; 2];
    for round in 0..12 {
        let rows: Vec<Vec<(bf16, Ue4m3)>> = (0..3)
            .map(|_| {
                let length = if round % 2 == 0 {
                    32
                } else {
                    rng.random_range(1..40)
                };
                let spread = rng.random_range(-3.0..8.0_f32).exp2();
                (0..length)
                    .map(|_| {
                        let x = bf16::from_f32(rng.random_range(-1.0..1.0_f32).powi(3) * spread);
                        let x = if round == 10 && rng.random_range(0..40) == 0 {
                            bf16::NAN
                        } else {
                            x
                        };
                        (x, Ue4m3::from_bits(rng.random_range(0..=0x7E)).unwrap())
                    })
                    .collect()
            })
            .collect();
        // Expected blocks; the threshold is one of the scores, so that a block stands exactly on it.
        let blocks: Vec<([bf16; BLOCK], [Ue4m3; BLOCK])> = rows
            .iter()
            .flat_map(|row| {
                row.chunks(BLOCK).map(|chunk| {
                    let mut z = [bf16::ZERO; BLOCK];
                    let mut f = [Ue4m3::ZERO; BLOCK];
                    for (i, &(x, sensitivity)) in chunk.iter().enumerate() {
                        z[i] = rescale(x, InputScale::new(m).unwrap());
                        f[i] = sensitivity;
                    }
                    (z, f)
                })
            })
            .collect();
        let threshold = decide(&blocks[blocks.len() / 2].0, &blocks[blocks.len() / 2].1, 0).score;
        unit.threshold.next = Bits::from_words(&[threshold]);
        let (mut payload, mut scales, mut tags) = (Vec::new(), Vec::new(), Vec::new());
        for (z, f) in &blocks {
            let block = decide(z, f, threshold).block.pack();
            tags.push(block.tag);
            seen[usize::from(block.tag)] += 1;
            payload.push(block.payload as u64);
            if block.tag {
                payload.push((block.payload >> 64) as u64);
            } else {
                scales.push(block.scale);
            }
        }
        let got = quantize_rows(&mut unit, &rows);
        assert_eq!(got.2, tags, "tags of round {round}");
        assert_eq!(got.1, scales, "scales of round {round}");
        assert_eq!(got.0, payload, "payload of round {round}");
    }
    assert!(
        seen[0] > 10 && seen[1] > 10,
        "both kinds of block must occur: {seen:?}"
    );
}

#[test]
fn quantization_unit_sustains_one_element_a_cycle() {
    let mut unit = ActQuantizer::default();
    unit.reset.next = true;
    cycle!(unit);
    unit.reset.next = false;
    unit.input_scale.next = u64::from(1_f32.to_bits()).into();
    let row: Vec<(bf16, Ue4m3)> = (0..256)
        .map(|i| (bf16::from_f32(i as f32 / 16.0), Ue4m3::ONE))
        .collect();
    let (_, _, tags, cycles) = quantize_rows(&mut unit, &[row]);
    assert_eq!(tags.len(), 16);
    assert!(cycles < 256 + 32, "256 elements took {cycles} cycles");
}
