//! One element: both codes, and its part of the score.

use super::{
    E2m1Align, E2m1Select, E4m3Round, ErrorSquare, ExcessError, ExcessOperands, ScaleMultiples,
};
use crate::prelude::*;

/// Register stages of a [`QuantizerLane`].
pub const LANE_STAGES: usize = 7;

/// Places that a term's low 25 bits can stand at, eight bits from one to the next.
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
    /// Its exponent, before stage 0.
    pub align_exponent: Signal<Out, Bits<4>>,
    /// Its significand, before stage 1.
    pub select_significand: Signal<Out, Bits<4>>,
    /// Three times that.
    pub select_triple: Signal<Out, Bits<6>>,
    /// Five times that.
    pub select_quintuple: Signal<Out, Bits<7>>,
    /// Seven times that.
    pub select_septuple: Signal<Out, Bits<7>>,
    /// Its significand, before stage 2.
    pub excess_significand: Signal<Out, Bits<4>>,
    /// Three times that.
    pub excess_triple: Signal<Out, Bits<6>>,
    /// Its exponent, before stage 2.
    pub excess_exponent: Signal<Out, Bits<4>>,
    /// Its exponent, before stage 4.
    pub term_exponent: Signal<Out, Bits<4>>,
    /// The code, behind the last stage.
    pub behind: Signal<Out, Bits<7>>,
    multiples: ScaleMultiples,
    significand: [PipelineRegister<Bits<4>>; 2],
    triple: [PipelineRegister<Bits<6>>; 2],
    quintuple: PipelineRegister<Bits<7>>,
    septuple: PipelineRegister<Bits<7>>,
    exponent: [PipelineRegister<Bits<4>>; 4],
    codes: [PipelineRegister<Bits<7>>; LANE_STAGES],
}

/// Decodes the scale once and passes on what later stages need.
#[kernel]
impl Logic for LaneScale {
    fn update(&mut self) {
        self.multiples.code.next = self.code.val();
        self.align_exponent.next = self.multiples.exponent.val();
        pipeline_registers!(
            self,
            clock,
            enable[0],
            significand[0],
            triple[0],
            quintuple,
            septuple,
            codes[0]
        );
        self.significand[0].d.next = self.multiples.significand.val();
        self.triple[0].d.next = self.multiples.triple.val();
        self.quintuple.d.next = self.multiples.quintuple.val();
        self.septuple.d.next = self.multiples.septuple.val();
        self.exponent[0].d.next = self.multiples.exponent.val();
        self.codes[0].d.next = self.code.val();
        self.select_significand.next = self.significand[0].q.val();
        self.select_triple.next = self.triple[0].q.val();
        self.select_quintuple.next = self.quintuple.q.val();
        self.select_septuple.next = self.septuple.q.val();
        pipeline_registers!(self, clock, enable[1], significand[1], triple[1]);
        self.significand[1].d.next = self.significand[0].q.val();
        self.triple[1].d.next = self.triple[0].q.val();
        self.excess_significand.next = self.significand[1].q.val();
        self.excess_triple.next = self.triple[1].q.val();
        for i in 0..4 {
            pipeline_registers!(self, clock, enable[i], exponent[i]);
        }
        for i in 0..3 {
            self.exponent[i + 1].d.next = self.exponent[i].q.val();
        }
        self.excess_exponent.next = self.exponent[1].q.val();
        self.term_exponent.next = self.exponent[3].q.val();
        for i in 0..6 {
            pipeline_registers!(self, clock, enable[i + 1], codes[i + 1]);
            self.codes[i + 1].d.next = self.codes[i].q.val();
        }
        self.behind.next = self.codes[6].q.val();
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
    /// From [`LaneScale`], as are the next eight.
    pub align_exponent: Signal<In, Bits<4>>,
    /// The scale's significand, before stage 1.
    pub select_significand: Signal<In, Bits<4>>,
    /// Three times that.
    pub select_triple: Signal<In, Bits<6>>,
    /// Five times that.
    pub select_quintuple: Signal<In, Bits<7>>,
    /// Seven times that.
    pub select_septuple: Signal<In, Bits<7>>,
    /// The scale's significand, before stage 2.
    pub excess_significand: Signal<In, Bits<4>>,
    /// Three times that.
    pub excess_triple: Signal<In, Bits<6>>,
    /// The scale's exponent, before stage 2.
    pub excess_exponent: Signal<In, Bits<4>>,
    /// The scale's exponent, before stage 4.
    pub term_exponent: Signal<In, Bits<4>>,
    /// E2M1 code. Of a zero scale every code is 0; of NaN it is, too.
    pub q4: Signal<Out, Bits<4>>,
    /// E4M3 code.
    pub q8: Signal<Out, Bits<8>>,
    /// F * d^2 in units of 2^-29, below 2^52; of NaN any number.
    pub term: Signal<Out, Bits<52>>,

    codes8: [PipelineRegister<Bits<8>>; 7],
    codes4: [PipelineRegister<Bits<4>>; 6],
    sensitivities: [PipelineRegister<Bits<7>>; 4],

    // 0: E4M3; 4 |z| in units of the scale's last place.
    magnitude: Signal<Local, Bits<12>>,
    align: E2m1Align,
    e4m3: E4m3Round,
    quarters: PipelineRegister<Bits<9>>,
    sticky: PipelineRegister<Bit>,
    // 1: E2M1.
    select: E2m1Select,
    sign4: Signal<Local, Bits<4>>,
    // 2 and 3: excess error.
    operands: ExcessOperands,
    four_bit: PipelineRegister<Bits<8>>,
    eight_bit: PipelineRegister<Bits<8>>,
    depth: [PipelineRegister<Bits<2>>; 2],
    excess: ExcessError,
    error: PipelineRegister<Bits<7>>,
    // 4: its square, once for each bit of the sensitivity's significand; where the product will stand.
    squarer: ErrorSquare,
    sensitivity_field: Signal<Local, Bits<4>>,
    sensitivity_exponent: Signal<Local, Bits<6>>,
    sensitivity_significand: Signal<Local, Bits<4>>,
    partial: [PipelineRegister<Bits<14>>; 4],
    shift: [PipelineRegister<Bits<6>>; 2],
    // 5: their product.
    low: Signal<Local, Bits<18>>,
    high: Signal<Local, Bits<18>>,
    product: PipelineRegister<Bits<18>>,
    // 6: shifted; at its place it stands in one of the registers, the others are zero.
    shifted: Signal<Local, Bits<25>>,
    place: [PipelineRegister<Bits<25>>; PLACES],
}

/// Quantizes one element both ways and weighs what going from FP8 to FP4 changes (numerics §3 steps 2 to 5).
///
/// |d| is a 7-bit number e in units of 2^(scale exponent - 12 - 4 depth), F a 4-bit one f in units of
/// 2^(sensitivity exponent - 10): the term is e^2 f, 18 bits, to be shifted by
/// 2 * scale exponent + sensitivity exponent - 8 * depth - 5. Where that is negative, the bits below are zero.
#[kernel]
impl Logic for QuantizerLane {
    fn update(&mut self) {
        // 0.
        self.magnitude.next = self.z.val().get_bits::<12>(0);
        self.align.magnitude.next = self.magnitude.val();
        self.align.scale_exponent.next = self.align_exponent.val();
        self.e4m3.magnitude.next = self.magnitude.val();
        pipeline_registers!(
            self,
            clock,
            enable[0],
            quarters,
            sticky,
            codes8[0],
            sensitivities[0]
        );
        self.quarters.d.next = self.align.quarters.val();
        self.sticky.d.next = self.align.sticky.val();
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
        self.select.quarters.next = self.quarters.q.val();
        self.select.sticky.next = self.sticky.q.val();
        self.select.significand.next = self.select_significand.val();
        self.select.triple.next = self.select_triple.val();
        self.select.quintuple.next = self.select_quintuple.val();
        self.select.septuple.next = self.select_septuple.val();
        self.sign4.next = bit_cast::<4, 1>(self.codes8[0].q.val().get_bits::<1>(7)) << 3;
        self.codes4[0].d.next = bit_cast::<4, 3>(self.select.code.val()) | self.sign4.val();
        if !self.select_significand.val().any() {
            self.codes4[0].d.next = 0.into();
        }

        // 2.
        self.operands.q4.next = self.codes4[0].q.val().get_bits::<3>(0);
        self.operands.q8.next = self.codes8[1].q.val().get_bits::<7>(0);
        self.operands.significand.next = self.excess_significand.val();
        self.operands.triple.next = self.excess_triple.val();
        self.operands.scale_exponent.next = self.excess_exponent.val();
        pipeline_registers!(self, clock, enable[2], four_bit, eight_bit, depth[0]);
        self.four_bit.d.next = self.operands.four_bit.val();
        self.eight_bit.d.next = self.operands.eight_bit.val();
        self.depth[0].d.next = self.operands.depth.val();

        // 3.
        self.excess.four_bit.next = self.four_bit.q.val();
        self.excess.eight_bit.next = self.eight_bit.q.val();
        pipeline_registers!(self, clock, enable[3], error, depth[1]);
        self.error.d.next = self.excess.error.val();
        self.depth[1].d.next = self.depth[0].q.val();

        // 4.
        self.squarer.error.next = self.error.q.val();
        self.sensitivity_field.next = self.sensitivities[3].q.val().get_bits::<4>(3);
        self.sensitivity_exponent.next = bit_cast::<6, 4>(self.sensitivity_field.val());
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
        // Four above the shift of the term: nothing is negative, and the low four bits are dropped at the end.
        self.shift[0].d.next = (bit_cast::<6, 4>(self.term_exponent.val()) << 1)
            + self.sensitivity_exponent.val()
            - 1
            - (bit_cast::<6, 2>(self.depth[1].q.val()) << 3);

        // 5.
        pipeline_registers!(self, clock, enable[5], product, shift[1]);
        self.low.next = bit_cast::<18, 14>(self.partial[0].q.val())
            + (bit_cast::<18, 14>(self.partial[1].q.val()) << 1);
        self.high.next = bit_cast::<18, 14>(self.partial[2].q.val())
            + (bit_cast::<18, 14>(self.partial[3].q.val()) << 1);
        self.product.d.next = self.low.val() + (self.high.val() << 2);
        self.shift[1].d.next = self.shift[0].q.val();

        // 6.
        self.shifted.next =
            bit_cast::<25, 18>(self.product.q.val()) << self.shift[1].q.val().get_bits::<3>(0);
        for i in 0..PLACES {
            pipeline_registers!(self, clock, enable[6], place[i]);
            self.place[i].d.next = 0.into();
            if self.shift[1].q.val().get_bits::<3>(3).index() == i {
                self.place[i].d.next = self.shifted.val();
            }
        }
        self.term.next = (bit_cast::<52, 25>(self.place[0].q.val()) >> 4)
            | (bit_cast::<52, 25>(self.place[1].q.val()) << 4)
            | (bit_cast::<52, 25>(self.place[2].q.val()) << 12)
            | (bit_cast::<52, 25>(self.place[3].q.val()) << 20)
            | (bit_cast::<52, 25>(self.place[4].q.val()) << 28)
            | (bit_cast::<52, 25>(self.place[5].q.val()) << 36);
        self.q4.next = self.codes4[5].q.val();
        self.q8.next = self.codes8[6].q.val();
    }
}
