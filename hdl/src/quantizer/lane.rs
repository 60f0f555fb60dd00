//! One element: both codes, and its part of the score.

use super::{
    E2m1Points, E2m1Select, E4m3Round, ErrorSquare, ExcessError, ExcessOperands, ScaleMultiples,
};
use crate::prelude::*;

/// Register stages of a [`QuantizerLane`].
pub const LANE_STAGES: usize = 7;

/// Places that a term's low 19 bits can stand at, eight bits from one to the next.
const PLACES: usize = 6;

/// The block's scale at each stage where a lane needs it. One serves all lanes.
#[derive(LogicBlock, Default)]
pub struct LaneScale {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// As of the lanes.
    pub enable: [Signal<In, Bit>; LANE_STAGES],
    /// UE4M3 code of the scale of the elements before stage 0.
    pub code: Signal<In, Bits<7>>,
    /// Its middle decision point ([`E2m1Points`]), before stage 0.
    pub middle_point: Signal<Out, Bits<12>>,
    /// Its decision points, before stage 1.
    pub points: [Signal<Out, Bits<12>>; 7],
    /// It is zero, before stage 1.
    pub zero: Signal<Out, Bit>,
    /// Its exponent, before stage 2, as are the next five ([`ScaleMultiples`]).
    pub exponent: Signal<Out, Bits<4>>,
    /// It is subnormal.
    pub subnormal: Signal<Out, Bit>,
    /// For the E2M1 codes 1, 2 and 4.
    pub twofold: Signal<Out, Bits<5>>,
    /// For the E2M1 codes 3 and 5.
    pub threefold: Signal<Out, Bits<5>>,
    /// For the E2M1 code 6.
    pub top_twofold: Signal<Out, Bits<5>>,
    /// For the E2M1 code 7.
    pub top_threefold: Signal<Out, Bits<5>>,
    /// The code, behind the last stage.
    pub behind: Signal<Out, Bits<7>>,
    decision: E2m1Points,
    decision_wait: [PipelineRegister<Bits<12>>; 7],
    multiples: ScaleMultiples,
    exponent_wait: PipelineRegister<Bits<4>>,
    subnormal_wait: PipelineRegister<Bit>,
    twofold_wait: PipelineRegister<Bits<5>>,
    threefold_wait: PipelineRegister<Bits<5>>,
    top_twofold_wait: PipelineRegister<Bits<5>>,
    top_threefold_wait: PipelineRegister<Bits<5>>,
    codes: [PipelineRegister<Bits<7>>; LANE_STAGES],
}

/// Decodes the scale once and passes on what later stages need.
#[kernel]
impl Logic for LaneScale {
    fn update(&mut self) {
        for i in 0..7 {
            pipeline_registers!(self, clock, enable[i], codes[i]);
        }
        self.codes[0].d.next = self.code.val();
        for i in 0..6 {
            self.codes[i + 1].d.next = self.codes[i].q.val();
        }
        self.behind.next = self.codes[6].q.val();

        self.decision.scale.next = self.code.val();
        self.middle_point.next = self.decision.points[3].val();
        for i in 0..7 {
            pipeline_registers!(self, clock, enable[0], decision_wait[i]);
            self.decision_wait[i].d.next = self.decision.points[i].val();
            self.points[i].next = self.decision_wait[i].q.val();
        }
        self.zero.next = !self.codes[0].q.val().any();

        self.multiples.code.next = self.codes[0].q.val();
        pipeline_registers!(
            self,
            clock,
            enable[1],
            exponent_wait,
            subnormal_wait,
            twofold_wait,
            threefold_wait,
            top_twofold_wait,
            top_threefold_wait
        );
        self.exponent_wait.d.next = self.multiples.exponent.val();
        self.subnormal_wait.d.next = self.multiples.subnormal.val();
        self.twofold_wait.d.next = self.multiples.twofold.val();
        self.threefold_wait.d.next = self.multiples.threefold.val();
        self.top_twofold_wait.d.next = self.multiples.top_twofold.val();
        self.top_threefold_wait.d.next = self.multiples.top_threefold.val();
        self.exponent.next = self.exponent_wait.q.val();
        self.subnormal.next = self.subnormal_wait.q.val();
        self.twofold.next = self.twofold_wait.q.val();
        self.threefold.next = self.threefold_wait.q.val();
        self.top_twofold.next = self.top_twofold_wait.q.val();
        self.top_threefold.next = self.top_threefold_wait.q.val();
    }
}

/// An element and its sensitivity to its codes and its part of the score, [`LANE_STAGES`] cycles later.
#[derive(LogicBlock, Default)]
pub struct QuantizerLane {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Each stage takes what is before it.
    pub enable: [Signal<In, Bit>; LANE_STAGES],
    /// Element, as a [`super::Rescaler`] gives it.
    pub z: Signal<In, Bits<13>>,
    /// UE4M3 sensitivity of its channel.
    pub sensitivity: Signal<In, Bits<7>>,
    /// From [`LaneScale`], before stage 0.
    pub middle_point: Signal<In, Bits<12>>,
    /// From [`LaneScale`], before stage 1.
    pub points: [Signal<In, Bits<12>>; 7],
    /// The scale is zero, before stage 1.
    pub scale_zero: Signal<In, Bit>,
    /// From [`LaneScale`], before stage 2, as are the next five.
    pub scale_exponent: Signal<In, Bits<4>>,
    /// The scale is subnormal.
    pub subnormal: Signal<In, Bit>,
    /// For the E2M1 codes 1, 2 and 4.
    pub twofold: Signal<In, Bits<5>>,
    /// For the E2M1 codes 3 and 5.
    pub threefold: Signal<In, Bits<5>>,
    /// For the E2M1 code 6.
    pub top_twofold: Signal<In, Bits<5>>,
    /// For the E2M1 code 7.
    pub top_threefold: Signal<In, Bits<5>>,
    /// E2M1 code. Of a zero scale every code is 0; of NaN it is, too.
    pub q4: Signal<Out, Bits<4>>,
    /// E4M3 code.
    pub q8: Signal<Out, Bits<8>>,
    /// F * d^2 in units of 2^-29, below 2^52; of NaN any number.
    pub term: Signal<Out, Bits<52>>,

    codes8: [PipelineRegister<Bits<8>>; 7],
    codes4: [PipelineRegister<Bits<4>>; 6],
    sensitivities: [PipelineRegister<Bits<7>>; 4],

    // 0: E4M3; the first bit of E2M1.
    magnitude: Signal<Local, Bits<12>>,
    e4m3: E4m3Round,
    waiting: PipelineRegister<Bits<12>>,
    high: PipelineRegister<Bit>,
    // 1: the rest of E2M1.
    select: E2m1Select,
    sign4: Signal<Local, Bits<4>>,
    // 2 and 3: excess error.
    operands: ExcessOperands,
    four_bit: PipelineRegister<Bits<5>>,
    eight_bit: PipelineRegister<Bits<5>>,
    exponent: [PipelineRegister<Bits<4>>; 2],
    excess: ExcessError,
    error: PipelineRegister<Bits<4>>,
    // 4: its square, once for each bit of the sensitivity's significand; where the product will stand.
    squarer: ErrorSquare,
    sensitivity_field: Signal<Local, Bits<4>>,
    sensitivity_exponent: Signal<Local, Bits<4>>,
    sensitivity_significand: Signal<Local, Bits<4>>,
    halved: Signal<Local, Bits<5>>,
    partial: [PipelineRegister<Bits<8>>; 4],
    shift: [PipelineRegister<Bits<6>>; 2],
    // 5: their product.
    low: Signal<Local, Bits<12>>,
    high_half: Signal<Local, Bits<12>>,
    product: PipelineRegister<Bits<12>>,
    // 6: shifted; at its place it stands in one of the registers, the others are zero.
    shifted: Signal<Local, Bits<19>>,
    place: [PipelineRegister<Bits<19>>; PLACES],
}

/// Quantizes one element both ways and weighs what going from FP8 to FP4 changes (numerics §3 steps 2 to 5).
///
/// |d| is a 4-bit number e in units of 2^(exponent - 11), F a 4-bit one f in units of
/// 2^(sensitivity exponent - 10): the term is e^2 f, 12 bits, to be shifted by
/// 2 * exponent + sensitivity exponent - 3. Where that is negative, the bits below are zero.
#[kernel]
impl Logic for QuantizerLane {
    fn update(&mut self) {
        // 0.
        self.magnitude.next = self.z.val().get_bits::<12>(0);
        self.e4m3.magnitude.next = self.magnitude.val();
        pipeline_registers!(
            self,
            clock,
            enable[0],
            waiting,
            high,
            codes8[0],
            sensitivities[0]
        );
        self.waiting.d.next = self.magnitude.val();
        self.high.d.next = self.magnitude.val() >= self.middle_point.val();
        self.codes8[0].d.next = bit_cast::<8, 7>(self.e4m3.code.val())
            | (bit_cast::<8, 1>(self.z.val().get_bits::<1>(12)) << 7);
        if !self.magnitude.val().get_bits::<5>(7).any() && self.magnitude.val().get_bit(0) {
            self.codes8[0].d.next = 0x7F.into();
        }
        self.sensitivities[0].d.next = self.sensitivity.val();
        for i in 0..3 {
            pipeline_registers!(self, clock, enable[i + 1], sensitivities[i + 1]);
            self.sensitivities[i + 1].d.next = self.sensitivities[i].q.val();
        }
        for i in 0..6 {
            pipeline_registers!(self, clock, enable[i + 1], codes8[i + 1], codes4[i]);
            self.codes8[i + 1].d.next = self.codes8[i].q.val();
        }
        for i in 0..5 {
            self.codes4[i + 1].d.next = self.codes4[i].q.val();
        }

        // 1.
        self.select.magnitude.next = self.waiting.q.val();
        self.select.high.next = self.high.q.val();
        for i in 0..7 {
            self.select.points[i].next = self.points[i].val();
        }
        self.sign4.next = bit_cast::<4, 1>(self.codes8[0].q.val().get_bits::<1>(7)) << 3;
        self.codes4[0].d.next = bit_cast::<4, 3>(self.select.code.val()) | self.sign4.val();
        if self.scale_zero.val() {
            self.codes4[0].d.next = 0.into();
        }

        // 2.
        self.operands.q4.next = self.codes4[0].q.val().get_bits::<3>(0);
        self.operands.q8.next = self.codes8[1].q.val().get_bits::<7>(0);
        self.operands.scale_exponent.next = self.scale_exponent.val();
        self.operands.subnormal.next = self.subnormal.val();
        self.operands.twofold.next = self.twofold.val();
        self.operands.threefold.next = self.threefold.val();
        self.operands.top_twofold.next = self.top_twofold.val();
        self.operands.top_threefold.next = self.top_threefold.val();
        pipeline_registers!(self, clock, enable[2], four_bit, eight_bit, exponent[0]);
        self.four_bit.d.next = self.operands.four_bit.val();
        self.eight_bit.d.next = self.operands.eight_bit.val();
        self.exponent[0].d.next = self.operands.exponent.val();

        // 3.
        self.excess.four_bit.next = self.four_bit.q.val();
        self.excess.eight_bit.next = self.eight_bit.q.val();
        pipeline_registers!(self, clock, enable[3], error, exponent[1]);
        self.error.d.next = self.excess.error.val();
        self.exponent[1].d.next = self.exponent[0].q.val();

        // 4.
        self.squarer.error.next = self.error.q.val();
        self.sensitivity_field.next = self.sensitivities[3].q.val().get_bits::<4>(3);
        self.sensitivity_exponent.next = self.sensitivity_field.val();
        self.sensitivity_significand.next =
            bit_cast::<4, 3>(self.sensitivities[3].q.val().get_bits::<3>(0)) | 8;
        if !self.sensitivity_field.val().any() {
            self.sensitivity_exponent.next = 1.into();
            self.sensitivity_significand.next =
                bit_cast::<4, 3>(self.sensitivities[3].q.val().get_bits::<3>(0));
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable[4], partial[i]);
            self.partial[i].d.next = 0.into();
            if self.sensitivity_significand.val().get_bit(i) {
                self.partial[i].d.next = self.squarer.square.val();
            }
        }
        pipeline_registers!(self, clock, enable[4], shift[0]);
        // Three above the shift of the term: nothing is negative, and the low three bits are dropped at the end.
        self.halved.next = bit_cast::<5, 4>(self.exponent[1].q.val())
            + bit_cast::<5, 3>(self.sensitivity_exponent.val().get_bits::<3>(1));
        self.shift[0].d.next = (bit_cast::<6, 5>(self.halved.val()) << 1)
            | bit_cast::<6, 1>(self.sensitivity_exponent.val().get_bits::<1>(0));

        // 5.
        pipeline_registers!(self, clock, enable[5], product, shift[1]);
        self.low.next = bit_cast::<12, 8>(self.partial[0].q.val())
            + (bit_cast::<12, 8>(self.partial[1].q.val()) << 1);
        self.high_half.next = bit_cast::<12, 8>(self.partial[2].q.val())
            + (bit_cast::<12, 8>(self.partial[3].q.val()) << 1);
        self.product.d.next = self.low.val() + (self.high_half.val() << 2);
        self.shift[1].d.next = self.shift[0].q.val();

        // 6.
        self.shifted.next =
            bit_cast::<19, 12>(self.product.q.val()) << self.shift[1].q.val().get_bits::<3>(0);
        for i in 0..PLACES {
            pipeline_registers!(self, clock, enable[6], place[i]);
            self.place[i].d.next = 0.into();
            if self.shift[1].q.val().get_bits::<3>(3).index() == i {
                self.place[i].d.next = self.shifted.val();
            }
        }
        self.term.next = (bit_cast::<52, 19>(self.place[0].q.val()) >> 3)
            | (bit_cast::<52, 19>(self.place[1].q.val()) << 5)
            | (bit_cast::<52, 19>(self.place[2].q.val()) << 13)
            | (bit_cast::<52, 19>(self.place[3].q.val()) << 21)
            | (bit_cast::<52, 19>(self.place[4].q.val()) << 29)
            | (bit_cast::<52, 19>(self.place[5].q.val()) << 37);
        self.q4.next = self.codes4[5].q.val();
        self.q8.next = self.codes8[6].q.val();
    }
}
