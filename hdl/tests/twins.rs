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
use hdl::quantizer::{
    ActQuantizer, AmaxScale, E2m1Points, E2m1Select, E4m3Round, ErrorSquare, ExcessError,
    ExcessOperands, LaneScale, ParallelQuantizer, ProductTable, QuantizerLane, Rescaler,
    ScaleExponent, ScaleMultiples, SerialQuantizer, TABLE_CYCLES, TABLE_RESCALER_STAGES,
    TableRescaler,
};
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

/// Largest BF16 magnitude behind the clamp.
const LARGEST: u16 = 0x43E0;
/// Magnitudes below 2^-11 are flushed to zero.
const SMALLEST: u16 = 116 << 7;

/// The quantizer's 13-bit form of a rescaled element.
fn element(z: bf16) -> u64 {
    let (sign, magnitude) = (z.to_bits() >> 15, z.to_bits() & 0x7FFF);
    if z.is_nan() {
        1
    } else if magnitude < SMALLEST {
        u64::from(sign) << 12
    } else {
        u64::from(sign << 12 | (magnitude - (115 << 7)))
    }
}

/// Every magnitude that the parts behind the rescaler can meet.
fn magnitudes() -> impl Iterator<Item = bf16> {
    (SMALLEST..=LARGEST).chain([0]).map(bf16::from_bits)
}

#[test]
fn block_scale_of_every_amax() {
    let mut module = AmaxScale::default();
    for amax in magnitudes() {
        module.amax.next = element(amax).into();
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
    for z in magnitudes() {
        module.magnitude.next = element(z).into();
        settle(&mut module);
        assert_eq!(
            module.code.val().to_u8(),
            E4m3::quantize(z.to_f32()).to_bits(),
            "z {z}"
        );
    }
}

/// What a flush to zero must not change: the codes of everything that it flushes, under every scale.
#[test]
fn what_the_rescaler_flushes_rounds_to_zero_under_every_scale() {
    for bits in 0..=SMALLEST {
        let z = bf16::from_bits(bits).to_f32();
        assert_eq!(E4m3::quantize(z).to_bits(), 0);
        assert_eq!(Ue4m3::of_amax(z), Ue4m3::ZERO);
        let smallest = Ue4m3::from_bits(1).unwrap();
        assert_eq!(E2m1::quantize_scaled(z, smallest).to_bits(), 0);
        assert_eq!(E2m1::quantize_scaled(-z, smallest).to_bits(), 8);
    }
}

/// The largest amax of each scale that a block can have.
fn scales() -> std::collections::BTreeMap<u8, bf16> {
    magnitudes()
        .filter(|amax| *amax != bf16::ZERO)
        .map(|amax| (Ue4m3::of_amax(amax.to_f32()).to_bits(), amax))
        .collect()
}

/// The parts between an element and |d|, without the registers between them.
#[derive(Default)]
struct Codes {
    points: E2m1Points,
    multiples: ScaleMultiples,
    select: E2m1Select,
    operands: ExcessOperands,
    error: ExcessError,
}

impl Codes {
    fn set_scale(&mut self, scale: Ue4m3) {
        self.points.scale.next = u64::from(scale.to_bits()).into();
        settle(&mut self.points);
        self.multiples.code.next = u64::from(scale.to_bits()).into();
        settle(&mut self.multiples);
        for (to, from) in self.select.points.iter_mut().zip(&self.points.points) {
            to.next = from.val();
        }
        self.operands.scale_exponent.next = self.multiples.exponent.val();
        self.operands.subnormal.next = self.multiples.subnormal.val();
        self.operands.twofold.next = self.multiples.twofold.val();
        self.operands.threefold.next = self.multiples.threefold.val();
        self.operands.top_twofold.next = self.multiples.top_twofold.val();
        self.operands.top_threefold.next = self.multiples.top_threefold.val();
    }

    /// E2M1 code without its sign, and |d| in units of 2^-10.
    fn of(&mut self, z: bf16) -> (u8, f64) {
        self.select.magnitude.next = element(z).into();
        self.select.high.next = self.points.points[3].val().to_u64() <= element(z);
        settle(&mut self.select);
        self.operands.q4.next = self.select.code.val();
        self.operands.q8.next = u64::from(E4m3::quantize(z.to_f32()).to_bits()).into();
        settle(&mut self.operands);
        self.error.four_bit.next = self.operands.four_bit.val();
        self.error.eight_bit.next = self.operands.eight_bit.val();
        settle(&mut self.error);
        let exponent = i32::from(self.operands.exponent.val().to_u8()) - 1;
        (
            self.select.code.val().to_u8(),
            f64::from(self.error.error.val().to_u8()) * 2_f64.powi(exponent),
        )
    }
}

#[test]
fn e2m1_code_and_excess_error_on_every_tie_and_around_it() {
    let mut codes = Codes::default();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (scale, amax) in scales() {
        let scale = Ue4m3::from_bits(scale).unwrap();
        codes.set_scale(scale);
        let quarters = golden::format::E2M1_DECISION_QUARTERS;
        let ties = quarters.map(|quarters| scale.to_f32() * quarters as f32 / 4.0);
        // Halfway between E4M3 codes, too: |d| jumps there.
        let middles = (0..0x7D_u8).step_by(3).map(|code| {
            let value = |code| Ue4m3::from_bits(code).unwrap().to_f32();
            (value(code) + value(code + 1)) / 2.0
        });
        let around = ties.into_iter().chain(middles).flat_map(|tie| {
            let bits = bf16::from_f32(tie).to_bits();
            [bits.saturating_sub(1), bits, bits + 1].map(bf16::from_bits)
        });
        let random: Vec<bf16> = (0..20)
            .map(|_| bf16::from_bits(rng.random_range(SMALLEST..=amax.to_bits())))
            .collect();
        for z in around.chain(random).chain([amax, bf16::ZERO]) {
            if z > amax || (z.to_bits() < SMALLEST && z != bf16::ZERO) {
                continue;
            }
            let q4 = E2m1::quantize_scaled(z.to_f32(), scale);
            let q8 = E4m3::quantize(z.to_f32());
            let d = i64::from(scale.units()) * i64::from(q4.half_units())
                - 2 * i64::from(q8.units().unwrap());
            let found = codes.of(z);
            let expected = (q4.to_bits(), d.unsigned_abs() as f64);
            assert_eq!(found, expected, "{z} / {}", scale.to_f32());
        }
    }
}

#[test]
fn square_of_every_error() {
    let mut module = ErrorSquare::default();
    for error in 0..16_u64 {
        module.error.next = error.into();
        settle(&mut module);
        assert_eq!(module.square.val().to_u64(), error * error);
    }
}

#[test]
fn a_lane_gives_codes_and_term_of_elements_under_changing_scales() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut lane = QuantizerLane::default();
    let mut shared = LaneScale::default();
    for enable in lane.enable.iter_mut().chain(&mut shared.enable) {
        enable.next = true;
    }
    let scales: Vec<(u8, bf16)> = scales().into_iter().collect();
    let mut under_way = std::collections::VecDeque::new();
    for round in 0..4000 {
        let (scale, amax) = scales[rng.random_range(0..scales.len())];
        let scale = Ue4m3::from_bits(scale).unwrap();
        let bits = match round % 4 {
            0 => rng.random_range(SMALLEST..=amax.to_bits()),
            // On a decision point.
            1 => bf16::from_f32(scale.to_f32() * f32::from(rng.random_range(1..=20_u8)) / 4.0)
                .to_bits()
                .min(amax.to_bits()),
            2 => 0,
            _ => amax.to_bits(),
        };
        let bits = if bits < SMALLEST { 0 } else { bits };
        let z = bf16::from_bits(bits | u16::from(rng.random::<bool>()) << 15);
        let sensitivity = Ue4m3::from_bits(rng.random_range(0..=0x7E)).unwrap();
        lane.z.next = element(z).into();
        lane.sensitivity.next = u64::from(sensitivity.to_bits()).into();
        shared.code.next = u64::from(scale.to_bits()).into();
        settle(&mut shared);
        lane.middle_point.next = shared.middle_point.val();
        for (to, from) in lane.points.iter_mut().zip(&shared.points) {
            to.next = from.val();
        }
        lane.scale_zero.next = shared.zero.val();
        lane.scale_exponent.next = shared.exponent.val();
        lane.subnormal.next = shared.subnormal.val();
        lane.twofold.next = shared.twofold.val();
        lane.threefold.next = shared.threefold.val();
        lane.top_twofold.next = shared.top_twofold.val();
        lane.top_threefold.next = shared.top_threefold.val();
        // The inputs as they are before the edge.
        settle(&mut lane);
        cycle!(shared);
        cycle!(lane);
        let q4 = E2m1::quantize_scaled(z.to_f32(), scale);
        let q8 = E4m3::quantize(z.to_f32());
        let d = i64::from(scale.units()) * i64::from(q4.half_units())
            - 2 * i64::from(q8.units().unwrap());
        let term = d.unsigned_abs().pow(2) * u64::from(sensitivity.units());
        under_way.push_back((q4.to_bits(), q8.to_bits(), term, scale));
        if under_way.len() < hdl::quantizer::LANE_STAGES {
            continue;
        }
        let (q4, q8, term, scale) = under_way.pop_front().unwrap();
        assert_eq!(lane.q4.val().to_u8(), q4, "E2M1 code");
        assert_eq!(lane.q8.val().to_u8(), q8, "E4M3 code");
        assert_eq!(lane.term.val().to_u64(), term, "term");
        assert_eq!(shared.behind.val().to_u8(), scale.to_bits());
    }
}

#[test]
fn rescaler_rounds_twice_and_clamps() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut module = Rescaler::default();
    let mut exponent = ScaleExponent::default();
    for enable in &mut module.enable {
        enable.next = true;
    }
    let special = [
        0_u16, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x0001, 0x007F, 0x0080, 0x7F7F, 0x43E0,
        0x43E1,
    ];
    let mut seen = [0; 3];
    for round in 0..6000 {
        let mut x = bf16::from_bits(if round % 4 == 0 {
            special[rng.random_range(0..special.len())]
        } else {
            rng.random()
        });
        let m = match round % 6 {
            0 => 0.0,
            1 => 1.0 / 3.0,
            2 => f32::from_bits(rng.random_range(0x2180_0000..0x5D80_0000)),
            // A product in range, near a tie of the second rounding if x is a power of two: half a step of BF16, and
            // a few steps of FP32.
            _ => {
                if rng.random() {
                    x = bf16::from_bits(x.to_bits() & 0xFF80);
                }
                let exponent = (254 + rng.random_range(-12..10)
                    - (i32::from(x.to_bits() >> 7) & 0xFF))
                    .clamp(67, 187) as u32;
                let near = rng.random_range(-3..=3) + 0x8000_i32;
                f32::from_bits(exponent << 23 | rng.random_range(0..128) << 16)
                    + f32::from_bits(exponent << 23 | near as u32)
                    - f32::from_bits(exponent << 23)
            }
        };
        let m = if rng.random() { m } else { -m };
        let Ok(checked) = InputScale::new(m) else {
            continue;
        };
        exponent.scale.next = u64::from(m.to_bits()).into();
        settle(&mut exponent);
        module.x.next = u64::from(x.to_bits()).into();
        module.scale.next = u64::from(m.to_bits()).into();
        module.scale_offset.next = exponent.offset.val();
        module.scale_zero.next = exponent.zero.val();
        for _ in 0..hdl::quantizer::RESCALER_STAGES {
            cycle!(module);
        }
        let expected = rescale(x, checked);
        seen[match expected.to_bits() & 0x7FFF {
            0x7FC0 => 0,
            SMALLEST..LARGEST => 1,
            _ => 2,
        }] += 1;
        assert_eq!(
            module.z.val().to_u64(),
            element(expected),
            "{x:?} ({:04x}) * {m:e}",
            x.to_bits()
        );
    }
    assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
}

/// Both roundings, where a single one would differ: the significands of a product are given, and M is made so that x * M has them.
#[test]
fn rescaler_rounds_as_two_steps_where_one_would_differ() {
    let mut module = Rescaler::default();
    let mut exponent = ScaleExponent::default();
    for enable in &mut module.enable {
        enable.next = true;
    }
    let mut differ = 0;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    while differ < 200 {
        let x = bf16::from_bits(0x3F80 | rng.random_range(0..128));
        // x * M just below a tie of BF16, as near as M's 24 bits allow.
        let tie = 1.0 + (f64::from(rng.random_range(0..128_u16)) + 0.5) / 128.0;
        let m = (tie / f64::from(x)) as f32;
        let m = f32::from_bits(m.to_bits() - rng.random_range(0..2));
        let exact = f64::from(x) * f64::from(m);
        let expected = rescale(x, InputScale::new(m).unwrap());
        if exact != f64::from(bf16::from_f64(exact)) && bf16::from_f64(exact) != expected {
            differ += 1;
        } else if rng.random_range(0..16) != 0 {
            continue;
        }
        exponent.scale.next = u64::from(m.to_bits()).into();
        settle(&mut exponent);
        module.x.next = u64::from(x.to_bits()).into();
        module.scale.next = u64::from(m.to_bits()).into();
        module.scale_offset.next = exponent.offset.val();
        module.scale_zero.next = exponent.zero.val();
        for _ in 0..hdl::quantizer::RESCALER_STAGES {
            cycle!(module);
        }
        assert_eq!(module.z.val().to_u64(), element(expected), "{x} * {m:e}");
    }
}

/// A rescaler with the table that it reads.
struct Tabled {
    products: ProductTable,
    exponent: ScaleExponent,
    rescaler: TableRescaler,
}

impl Tabled {
    fn new() -> Self {
        let mut this = Self {
            products: ProductTable::default(),
            exponent: ScaleExponent::default(),
            rescaler: TableRescaler::default(),
        };
        for enable in &mut this.rescaler.enable {
            enable.next = true;
        }
        this.reset();
        this
    }

    fn reset(&mut self) {
        self.products.reset.next = true;
        self.cycle();
        self.products.reset.next = false;
        settle(&mut self.products);
    }

    fn cycle(&mut self) {
        settle(&mut self.products);
        self.rescaler.run_write.next = self.products.run_write.val();
        self.rescaler.run_address.next = self.products.run_address.val();
        self.rescaler.run_data.next = self.products.run_data.val();
        self.rescaler.step_write.next = self.products.step_write.val();
        self.rescaler.step_address.next = self.products.step_address.val();
        self.rescaler.step_data.next = self.products.step_data.val();
        // The inputs as they are before the edge.
        settle(&mut self.rescaler);
        cycle!(self.rescaler);
        cycle!(self.products);
    }

    /// Sets M and returns the cycles until the table is ready.
    fn set_scale(&mut self, m: f32) -> usize {
        self.exponent.scale.next = u64::from(m.to_bits()).into();
        settle(&mut self.exponent);
        self.products.scale.next = u64::from(m.to_bits()).into();
        self.rescaler.scale_sign.next = m.is_sign_negative();
        self.rescaler.scale_offset.next = self.exponent.offset.val();
        self.rescaler.scale_zero.next = self.exponent.zero.val();
        settle(&mut self.products);
        let mut cycles = 0;
        while !self.products.ready.val() {
            self.cycle();
            cycles += 1;
            assert!(cycles <= TABLE_CYCLES, "the table is never ready");
        }
        cycles
    }

    /// One element after another, each compared with golden's.
    fn check(&mut self, m: f32, elements: impl Iterator<Item = bf16>) {
        let scale = InputScale::new(m).unwrap();
        let elements: Vec<bf16> = elements.collect();
        for (at, x) in elements.iter().enumerate() {
            self.rescaler.x.next = u64::from(x.to_bits()).into();
            cycle!(self.rescaler);
            let Some(at) = (at + 1).checked_sub(TABLE_RESCALER_STAGES) else {
                continue;
            };
            let x = elements[at];
            assert_eq!(
                self.rescaler.z.val().to_u64(),
                element(rescale(x, scale)),
                "{x:?} ({:04x}) * {m:e}",
                x.to_bits()
            );
        }
    }
}

/// Significands of M: the ends, those with products on ties of either rounding, those that reach 2 at the end of a run, random ones.
fn significands(rng: &mut ChaCha8Rng, random: usize) -> Vec<u32> {
    let mut all = vec![
        0, 1, 2, 0x7F_FFFF, 0x7F_FFFE, 0x40_0000, 0x3F_FFFF, 0x55_5555,
    ];
    for fraction in [0_u32, 1, 7, 8, 9, 64, 119, 120, 127] {
        // The smallest significand with which the product is at least 2.
        let reaches = (1_u64 << 31).div_ceil(u64::from(128 + fraction)) as u32;
        all.extend([reaches - 1, reaches].map(|m| m & 0x7F_FFFF));
        // Products next to a tie.
        let tie = 1.0 + (f64::from(rng.random_range(0..128_u16)) + 0.5) / 128.0;
        let m = (tie / (1.0 + f64::from(fraction) / 128.0)) as f32;
        all.extend([m.to_bits() - 1, m.to_bits(), m.to_bits() + 1].map(|m| m & 0x7F_FFFF));
    }
    all.extend((0..random).map(|_| rng.random_range(0..1 << 23)));
    all
}

#[test]
fn a_rescaler_with_a_table_gives_every_product_of_changing_scales() {
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let mut module = Tabled::new();
    let special = [
        0_u16, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x0001, 0x007F, 0x0080, 0x7F7F, 0x43E0,
        0x43E1,
    ];
    for (round, significand) in significands(&mut rng, 20).into_iter().enumerate() {
        let exponent = [127, 120, 127 + 60, 127 - 60][round % 4];
        let sign = (round as u32 & 1) << 31;
        let m = f32::from_bits(sign | exponent << 23 | significand);
        let Ok(_) = InputScale::new(m) else { continue };
        module.set_scale(m);
        // Every fraction, so that the product is in range, clamped, or flushed.
        let middle =
            254 - exponent as u16 + [0, 0, 8, 9, 0][round % 5] - [0, 0, 0, 0, 12][round % 5];
        let fractions = (0..128).map(|fraction| bf16::from_bits(middle << 7 | fraction));
        let random: Vec<bf16> = (0..20).map(|_| bf16::from_bits(rng.random())).collect();
        module.check(
            m,
            fractions
                .chain(special.map(bf16::from_bits))
                .chain(random)
                .chain([bf16::ZERO; TABLE_RESCALER_STAGES]),
        );
    }
}

#[test]
fn a_table_is_filled_once_for_each_significand_and_again_after_a_reset() {
    let mut module = Tabled::new();
    let fractions = || (0..128 + 4).map(|bits| bf16::from_bits(0x3F80 | (bits % 128)));
    assert_eq!(module.set_scale(1.3), TABLE_CYCLES);
    module.check(1.3, fractions());
    // The same significand with another exponent or sign, and zero, need no other table.
    assert_eq!(module.set_scale(-2.6), 0);
    module.check(-2.6, fractions());
    assert_eq!(module.set_scale(1.0), TABLE_CYCLES);
    assert_eq!(module.set_scale(0.0), 0);
    module.check(0.0, fractions());
    // A change on the way, and a reset on the way.
    for cycles in [1, 7, 8, 9, 70, 135, 136, 137] {
        for reset in [false, true] {
            module.set_scale(1.1);
            module.products.scale.next = u64::from(1.7_f32.to_bits()).into();
            for _ in 0..cycles {
                module.cycle();
            }
            assert!(!module.products.ready.val());
            let m = if reset { 1.7 } else { 1.2 };
            if reset {
                module.reset();
            }
            assert_eq!(module.set_scale(m), TABLE_CYCLES - usize::from(reset));
            module.check(m, fractions());
        }
    }
}

/// What the table relies on, for the significands of M in arithmetic alone: all of them with `FGMP_FULL`.
#[test]
fn products_rise_by_steps_and_at_most_one_more_in_every_run() {
    let stride = if std::env::var_os("FGMP_FULL").is_some() {
        1
    } else {
        997
    };
    let rounded = |product: u64| {
        // To 24 bits, then to 8, ties to even.
        let wide = u32::from(product >= 1 << 31);
        let round = |value: u64, bits: u32| {
            let (kept, rest) = (value >> bits, value & ((1 << bits) - 1));
            kept + u64::from(rest > 1 << (bits - 1) || (rest == 1 << (bits - 1) && kept & 1 == 1))
        };
        round(round(product, 7 + wide), 16) + 128 * u64::from(wide) - 128
    };
    for significand in (1_u64 << 23..1 << 24).step_by(stride) {
        for run in 0..16 {
            let product = |position: u64| significand * (128 + 8 * run + position);
            let wide = |position| product(position) >= 1 << 31;
            let start = rounded(product(0));
            for position in 0..8 {
                let rise = rounded(product(position)) - start;
                if wide(0) == wide(7) {
                    let step = (significand * position) >> (23 + u32::from(wide(0)));
                    assert!(rise == step || rise == step + 1, "{significand:x}");
                    assert_eq!(start >= 128, wide(0), "{significand:x}");
                } else {
                    assert!(rise < 16, "{significand:x}");
                }
            }
        }
    }
}

#[test]
fn requantizer_agrees_on_random_and_tie_accumulators() {
    for multiplier in [Multiplier::Lut, Multiplier::Dsp] {
        requantizer_agrees(multiplier);
    }
}

fn requantizer_agrees(multiplier: Multiplier) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut module = Requantizer::<56>::new(multiplier);
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
    assert!(cycles < 256 + 40, "256 elements took {cycles} cycles");
}

#[test]
fn latencies_are_those_of_the_documentation() {
    /// Cycles from the transfer of the last beat to the first cycle in which `$valid` is high.
    macro_rules! latency {
        ($unit:expr, $beats:expr, $valid:ident) => {{
            let mut unit = $unit;
            unit.reset.next = true;
            cycle!(unit);
            unit.reset.next = false;
            unit.input_scale.next = u64::from(1_f32.to_bits()).into();
            unit.clock.next = Clock { clk: false };
            settle(&mut unit);
            while !unit.x_ready.val() {
                cycle!(unit);
                unit.clock.next = Clock { clk: false };
                settle(&mut unit);
            }
            unit.x_valid.next = true;
            for _ in 0..$beats {
                unit.clock.next = Clock { clk: false };
                settle(&mut unit);
                assert!(unit.x_ready.val());
                unit.clock.next = Clock { clk: true };
                settle(&mut unit);
            }
            unit.x_valid.next = false;
            let mut cycles = 1;
            while !unit.$valid.val() {
                cycle!(unit);
                cycles += 1;
                assert!(cycles < 100, "nothing comes");
            }
            cycles
        }};
    }
    assert_eq!(latency!(ActQuantizer::default(), BLOCK, tag_valid), 32);
    assert_eq!(latency!(SerialQuantizer::default(), BLOCK, block_valid), 31);
    assert_eq!(latency!(ParallelQuantizer::default(), 1, block_valid), 19);
}

/// One block for a unit, with what golden makes of it.
struct Expected {
    x: [bf16; BLOCK],
    sensitivity: [Ue4m3; BLOCK],
    block: GoldenBlock,
    last: bool,
}

/// Blocks of every kind with a threshold that is the score of one of them.
fn blocks_of_every_kind(rng: &mut ChaCha8Rng, m: f32, count: usize) -> (Vec<Expected>, u64) {
    let scale = InputScale::new(m).unwrap();
    let inputs: Vec<([bf16; BLOCK], [Ue4m3; BLOCK])> = (0..count)
        .map(|at| {
            let code = Ue4m3::from_bits(rng.random_range(1..=0x68))
                .unwrap()
                .to_f32();
            let width = rng.random_range(-13.0..9.0_f32).exp2();
            let mut x: [bf16; BLOCK] = std::array::from_fn(|i| {
                let z = match at % 6 {
                    0 | 1 => rng.random_range(-1.0..1.0_f32).powi(3) * width,
                    // On decision points of the scale that the last element gives.
                    2 if i == 15 => 6.0 * code,
                    2 => code * f32::from(rng.random_range(0..=24_u8)) / 4.0,
                    3 => [0.0, -0.0, 448.0, 464.0, f32::INFINITY, 1e-40, 2e-3][i % 7],
                    // Scales that are zero or subnormal.
                    4 => rng.random_range(-1.0..1.0_f32) / 64.0,
                    _ if rng.random_range(0..8) == 0 => f32::NAN,
                    _ => rng.random_range(-9.0..9.0),
                };
                bf16::from_f32(z / m)
            });
            if at % 12 == 4 {
                x = x.map(|x| bf16::from_f32(x.to_f32() / 8.0));
            }
            let same = rng.random_range(0..=0x7E);
            let sensitivity = std::array::from_fn(|_| {
                let code = if at % 5 == 0 {
                    same
                } else {
                    rng.random_range(0..=0x7E)
                };
                Ue4m3::from_bits(code).unwrap()
            });
            (x, sensitivity)
        })
        .collect();
    let z = |x: &[bf16; BLOCK]| x.map(|x| rescale(x, scale));
    let (x, f) = &inputs[rng.random_range(0..count)];
    let threshold = decide(&z(x), f, 0).score;
    let expected = inputs
        .into_iter()
        .map(|(x, sensitivity)| Expected {
            block: decide(&z(&x), &sensitivity, threshold).block,
            x,
            sensitivity,
            last: rng.random_range(0..4) == 0,
        })
        .collect();
    (expected, threshold)
}

/// Drives a build of the unit with whole blocks; `$beats` says in how many beats a block comes, `$offer` puts one on the inputs.
macro_rules! quantize_blocks {
    ($unit:expr, $rng:expr, $expected:expr, $hold:expr, $beats:expr, $offer:expr) => {{
        let (unit, expected, beats): (_, &[Expected], usize) = ($unit, $expected, $beats);
        let (mut sent, mut got, mut cycles) = (0, 0, 0_usize);
        while got < expected.len() {
            unit.clock.next = Clock { clk: false };
            unit.x_valid.next = sent < expected.len() * beats;
            if let Some(block) = expected.get(sent / beats) {
                $offer(unit, block, sent % beats);
            }
            unit.block_ready.next = !$rng.random_bool($hold);
            settle(unit);
            let taken = unit.x_valid.val() && unit.x_ready.val();
            if unit.block_valid.val() && unit.block_ready.val() {
                let packed = expected[got].block.pack();
                assert_eq!(unit.block_fp8.val(), packed.tag, "tag of block {got}");
                let words = [packed.payload as u64, (packed.payload >> 64) as u64];
                assert_eq!(
                    unit.block_payload.val(),
                    Bits::from_words(&words),
                    "block {got}"
                );
                if !packed.tag {
                    assert_eq!(unit.block_scale.val().to_u8(), packed.scale, "block {got}");
                }
                assert_eq!(unit.block_last.val(), expected[got].last, "block {got}");
                got += 1;
            }
            unit.clock.next = Clock { clk: true };
            settle(unit);
            sent += usize::from(taken);
            cycles += 1;
            assert!(
                cycles < expected.len() * $beats * 20 + 400,
                "hangs at block {got}"
            );
        }
        cycles
    }};
}

fn offer_element(unit: &mut SerialQuantizer, block: &Expected, at: usize) {
    unit.x_data.next = u64::from(block.x[at].to_bits()).into();
    unit.x_sensitivity.next = u64::from(block.sensitivity[at].to_bits()).into();
    unit.x_last.next = block.last && at + 1 == BLOCK;
}

fn offer_block(unit: &mut ParallelQuantizer, block: &Expected, _: usize) {
    for i in 0..BLOCK {
        unit.x_data[i].next = u64::from(block.x[i].to_bits()).into();
        unit.x_sensitivity[i].next = u64::from(block.sensitivity[i].to_bits()).into();
    }
    unit.x_last.next = block.last;
}

#[test]
fn serial_and_parallel_builds_decide_as_the_golden_model() {
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let mut serial = SerialQuantizer::default();
    let mut parallel = ParallelQuantizer::default();
    serial.reset.next = true;
    parallel.reset.next = true;
    cycle!(serial);
    cycle!(parallel);
    serial.reset.next = false;
    parallel.reset.next = false;
    let mut fp8 = 0;
    for (round, m) in [1.0, -0.75, 1.0 / 3.0, 3e5].into_iter().enumerate() {
        let (expected, threshold) = blocks_of_every_kind(&mut rng, m, 48);
        fp8 += expected.iter().filter(|e| e.block.is_fp8()).count();
        for (scale, t) in [
            (&mut serial.input_scale, &mut serial.threshold),
            (&mut parallel.input_scale, &mut parallel.threshold),
        ] {
            scale.next = u64::from(m.to_bits()).into();
            t.next = Bits::from_words(&[threshold]);
        }
        let hold = [0.0, 0.5, 0.9, 0.0][round];
        let cycles = quantize_blocks!(&mut serial, rng, &expected, hold, BLOCK, offer_element);
        if hold == 0.0 {
            assert!(cycles <= 48 * BLOCK + 40, "{cycles} cycles");
        }
        let cycles = quantize_blocks!(&mut parallel, rng, &expected, hold, 1, offer_block);
        if hold == 0.0 {
            assert!(cycles <= TABLE_CYCLES + 48 + 30, "{cycles} cycles");
        }
    }
    assert!((40..150).contains(&fp8), "{fp8} of 192 blocks are FP8");
}
