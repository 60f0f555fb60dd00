//! The parallel build: one block a cycle.

use super::{
    AmaxScale, LANE_STAGES, LaneScale, ProductTable, QuantizerLane, ScaleExponent,
    TABLE_RESCALER_STAGES, TableRescaler,
};
use crate::prelude::*;
use golden::format::BLOCK;

/// Register stages from the input to the decided block: rescalers, two of amax, the scale, lanes, four of the score, the decision.
const STAGES: usize = TABLE_RESCALER_STAGES + 3 + LANE_STAGES + 5;

/// Larger of two magnitudes.
#[derive(LogicBlock, Default)]
pub struct LargerMagnitude {
    /// The one.
    pub a: Signal<In, Bits<12>>,
    /// The other.
    pub b: Signal<In, Bits<12>>,
    /// The larger.
    pub larger: Signal<Out, Bits<12>>,
}

/// One node of the tree that finds a block's amax.
#[kernel]
impl Logic for LargerMagnitude {
    fn update(&mut self) {
        self.larger.next = self.b.val();
        if self.a.val() > self.b.val() {
            self.larger.next = self.a.val();
        }
    }
}

/// Activation quantization unit, parallel build: one block a cycle in, one decided block a cycle out.
#[derive(LogicBlock, PortAccess, Default)]
pub struct ParallelQuantizer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M, constant while blocks are inside.
    pub input_scale: Signal<In, Bits<32>>,
    /// T: a block becomes FP8 when its score is above it; constant while blocks are inside.
    pub threshold: Signal<In, Bits<64>>,
    /// Elements are valid.
    pub x_valid: Signal<In, Bit>,
    /// They are taken. Low while the lanes' tables are filled for a new M ([`ProductTable::ready`]), whatever `x_valid` is.
    pub x_ready: Signal<Out, Bit>,
    /// Last block of the row.
    pub x_last: Signal<In, Bit>,
    /// BF16 elements of one block.
    pub x_data: [Signal<In, Bits<16>>; BLOCK],
    /// UE4M3 sensitivities of their channels.
    pub x_sensitivity: [Signal<In, Bits<8>>; BLOCK],
    /// Block is valid.
    pub block_valid: Signal<Out, Bit>,
    /// Block is taken.
    pub block_ready: Signal<In, Bit>,
    /// Last block of the row.
    pub block_last: Signal<Out, Bit>,
    /// The block is FP8.
    pub block_fp8: Signal<Out, Bit>,
    /// UE4M3 scale of an FP4 block; of an FP8 block unspecified.
    pub block_scale: Signal<Out, Bits<8>>,
    /// Payload; an FP4 block's stands in the low 64 bits, the others are zero then.
    pub block_payload: Signal<Out, Bits<128>>,

    advance: Signal<Local, Bit>,
    enter: Signal<Local, Bit>,
    take: [Signal<Local, Bit>; STAGES],
    stage_valid: [Register<Bit>; STAGES],
    last: [PipelineRegister<Bit>; STAGES],

    // 0 to 3: z.
    scale_exponent: ScaleExponent,
    products: ProductTable,
    rescaler: [TableRescaler; BLOCK],
    sensitivity: [[PipelineRegister<Bits<7>>; BLOCK]; TABLE_RESCALER_STAGES + 3],
    z: [[PipelineRegister<Bits<13>>; BLOCK]; 3],
    nan: [PipelineRegister<Bit>; LANE_STAGES + 7],
    any_nan: Signal<Local, Bit>,
    // 4 and 5: amax.
    larger: [LargerMagnitude; 15],
    maximum: [PipelineRegister<Bits<12>>; 4],
    amax: PipelineRegister<Bits<12>>,
    // 6: scale.
    amax_scale: AmaxScale,
    scale: PipelineRegister<Bits<7>>,
    // 7 to 13: lanes.
    lane_scale: LaneScale,
    lane: [QuantizerLane; BLOCK],
    // 14 to 17: score, while the codes wait.
    sum2: [PipelineRegister<Bits<53>>; 8],
    sum4: [PipelineRegister<Bits<54>>; 4],
    sum8: [PipelineRegister<Bits<55>>; 2],
    score: PipelineRegister<Bits<56>>,
    codes4: Signal<Local, Bits<64>>,
    codes8: Signal<Local, Bits<128>>,
    codes4_wait: [PipelineRegister<Bits<64>>; 4],
    codes8_wait: [PipelineRegister<Bits<128>>; 4],
    scale_wait: [PipelineRegister<Bits<7>>; 4],
    // 18: decision.
    choose_fp8: Signal<Local, Bit>,
    out_fp8: PipelineRegister<Bit>,
    out_scale: PipelineRegister<Bits<7>>,
    out_low: PipelineRegister<Bits<64>>,
    out_high: PipelineRegister<Bits<64>>,
}

/// Blocks of BF16 activations and their channels' sensitivities in, FP4 or FP8 blocks out: FP8 when the weighted
/// squared change of going from FP8 to FP4 is above the threshold, or when an element is NaN (numerics §3). Sustains one block
/// a cycle; all stages step together, unless a decided block waits to be taken. After a change of M's significand the lanes' tables are
/// filled first.
#[kernel]
impl Logic for ParallelQuantizer {
    fn update(&mut self) {
        self.advance.next = !self.stage_valid[18].q.val() || self.block_ready.val();
        self.enter.next = self.advance.val() && self.products.ready.val();
        self.x_ready.next = self.enter.val();
        for i in 0..19 {
            registers!(self, clock, reset, stage_valid[i]);
        }
        self.take[0].next = self.enter.val() && self.x_valid.val();
        if self.advance.val() {
            self.stage_valid[0].d.next = self.x_valid.val() && self.products.ready.val();
        }
        for i in 0..18 {
            self.take[i + 1].next = self.advance.val() && self.stage_valid[i].q.val();
            if self.advance.val() {
                self.stage_valid[i + 1].d.next = self.stage_valid[i].q.val();
            }
        }
        for i in 0..19 {
            pipeline_registers!(self, clock, take[i], last[i]);
        }
        self.last[0].d.next = self.x_last.val();
        for i in 0..18 {
            self.last[i + 1].d.next = self.last[i].q.val();
        }

        // 0 to 3.
        self.scale_exponent.scale.next = self.input_scale.val();
        self.products.clock.next = self.clock.val();
        self.products.reset.next = self.reset.val();
        self.products.scale.next = self.input_scale.val();
        self.any_nan.next = false;
        for i in 0..BLOCK {
            self.rescaler[i].clock.next = self.clock.val();
            self.rescaler[i].x.next = self.x_data[i].val();
            self.rescaler[i].scale_sign.next = self.input_scale.val().get_bit(31);
            self.rescaler[i].scale_offset.next = self.scale_exponent.offset.val();
            self.rescaler[i].scale_zero.next = self.scale_exponent.zero.val();
            self.rescaler[i].run_write.next = self.products.run_write.val();
            self.rescaler[i].run_address.next = self.products.run_address.val();
            self.rescaler[i].run_data.next = self.products.run_data.val();
            self.rescaler[i].step_write.next = self.products.step_write.val();
            self.rescaler[i].step_address.next = self.products.step_address.val();
            self.rescaler[i].step_data.next = self.products.step_data.val();
            for j in 0..4 {
                self.rescaler[i].enable[j].next = self.take[j].val();
            }
            self.any_nan.next = self.any_nan.val()
                || (!self.rescaler[i].z.val().get_bits::<5>(7).any()
                    && self.rescaler[i].z.val().get_bit(0));
            for j in 0..7 {
                pipeline_registers!(self, clock, take[j], sensitivity[j][i]);
            }
            self.sensitivity[0][i].d.next = self.x_sensitivity[i].val().get_bits::<7>(0);
            for j in 0..6 {
                self.sensitivity[j + 1][i].d.next = self.sensitivity[j][i].q.val();
            }
            for j in 0..3 {
                pipeline_registers!(self, clock, take[j + 4], z[j][i]);
            }
            self.z[0][i].d.next = self.rescaler[i].z.val();
            self.z[1][i].d.next = self.z[0][i].q.val();
            self.z[2][i].d.next = self.z[1][i].q.val();
        }
        for i in 0..14 {
            pipeline_registers!(self, clock, take[i + 4], nan[i]);
        }
        self.nan[0].d.next = self.any_nan.val();
        for i in 0..13 {
            self.nan[i + 1].d.next = self.nan[i].q.val();
        }

        // 4 and 5. A NaN counts as next to nothing: the scale of it is zero, as that of zero.
        for i in 0..8 {
            self.larger[i].a.next = self.rescaler[2 * i].z.val().get_bits::<12>(0);
            self.larger[i].b.next = self.rescaler[2 * i + 1].z.val().get_bits::<12>(0);
        }
        for i in 0..4 {
            self.larger[8 + i].a.next = self.larger[2 * i].larger.val();
            self.larger[8 + i].b.next = self.larger[2 * i + 1].larger.val();
            pipeline_registers!(self, clock, take[4], maximum[i]);
            self.maximum[i].d.next = self.larger[8 + i].larger.val();
        }
        for i in 0..2 {
            self.larger[12 + i].a.next = self.maximum[2 * i].q.val();
            self.larger[12 + i].b.next = self.maximum[2 * i + 1].q.val();
        }
        self.larger[14].a.next = self.larger[12].larger.val();
        self.larger[14].b.next = self.larger[13].larger.val();
        pipeline_registers!(self, clock, take[5], amax);
        self.amax.d.next = self.larger[14].larger.val();

        // 6.
        self.amax_scale.amax.next = self.amax.q.val();
        pipeline_registers!(self, clock, take[6], scale);
        self.scale.d.next = self.amax_scale.code.val();

        // 7 to 13.
        self.lane_scale.clock.next = self.clock.val();
        self.lane_scale.code.next = self.scale.q.val();
        for j in 0..7 {
            self.lane_scale.enable[j].next = self.take[j + 7].val();
        }
        self.codes4.next = 0.into();
        self.codes8.next = 0.into();
        for i in 0..BLOCK {
            self.lane[i].clock.next = self.clock.val();
            for j in 0..7 {
                self.lane[i].enable[j].next = self.take[j + 7].val();
            }
            self.lane[i].z.next = self.z[2][i].q.val();
            self.lane[i].sensitivity.next = self.sensitivity[6][i].q.val();
            self.lane[i].middle_point.next = self.lane_scale.middle_point.val();
            for j in 0..7 {
                self.lane[i].points[j].next = self.lane_scale.points[j].val();
            }
            self.lane[i].scale_zero.next = self.lane_scale.zero.val();
            self.lane[i].scale_exponent.next = self.lane_scale.exponent.val();
            self.lane[i].subnormal.next = self.lane_scale.subnormal.val();
            self.lane[i].twofold.next = self.lane_scale.twofold.val();
            self.lane[i].threefold.next = self.lane_scale.threefold.val();
            self.lane[i].top_twofold.next = self.lane_scale.top_twofold.val();
            self.lane[i].top_threefold.next = self.lane_scale.top_threefold.val();
        }
        // The first element in the lowest place.
        for i in 0..BLOCK {
            self.codes4.next =
                (self.codes4.val() << 4) | bit_cast::<64, 4>(self.lane[15 - i].q4.val());
            self.codes8.next =
                (self.codes8.val() << 8) | bit_cast::<128, 8>(self.lane[15 - i].q8.val());
        }

        // 14 to 17: a register behind each adder.
        for i in 0..8 {
            pipeline_registers!(self, clock, take[14], sum2[i]);
            self.sum2[i].d.next = bit_cast::<53, 52>(self.lane[2 * i].term.val())
                + bit_cast::<53, 52>(self.lane[2 * i + 1].term.val());
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, take[15], sum4[i]);
            self.sum4[i].d.next = bit_cast::<54, 53>(self.sum2[2 * i].q.val())
                + bit_cast::<54, 53>(self.sum2[2 * i + 1].q.val());
        }
        for i in 0..2 {
            pipeline_registers!(self, clock, take[16], sum8[i]);
            self.sum8[i].d.next = bit_cast::<55, 54>(self.sum4[2 * i].q.val())
                + bit_cast::<55, 54>(self.sum4[2 * i + 1].q.val());
        }
        pipeline_registers!(self, clock, take[17], score);
        self.score.d.next =
            bit_cast::<56, 55>(self.sum8[0].q.val()) + bit_cast::<56, 55>(self.sum8[1].q.val());
        for i in 0..4 {
            pipeline_registers!(
                self,
                clock,
                take[i + 14],
                codes4_wait[i],
                codes8_wait[i],
                scale_wait[i]
            );
        }
        self.codes4_wait[0].d.next = self.codes4.val();
        self.codes8_wait[0].d.next = self.codes8.val();
        self.scale_wait[0].d.next = self.lane_scale.behind.val();
        for i in 0..3 {
            self.codes4_wait[i + 1].d.next = self.codes4_wait[i].q.val();
            self.codes8_wait[i + 1].d.next = self.codes8_wait[i].q.val();
            self.scale_wait[i + 1].d.next = self.scale_wait[i].q.val();
        }

        // 18.
        self.choose_fp8.next =
            self.nan[13].q.val() || bit_cast::<64, 56>(self.score.q.val()) > self.threshold.val();
        pipeline_registers!(self, clock, take[18], out_fp8, out_scale, out_low, out_high);
        self.out_fp8.d.next = self.choose_fp8.val();
        self.out_scale.d.next = self.scale_wait[3].q.val();
        self.out_low.d.next = self.codes4_wait[3].q.val();
        self.out_high.d.next = 0.into();
        if self.choose_fp8.val() {
            self.out_low.d.next = self.codes8_wait[3].q.val().get_bits::<64>(0);
            self.out_high.d.next = self.codes8_wait[3].q.val().get_bits::<64>(64);
        }
        self.block_valid.next = self.stage_valid[18].q.val();
        self.block_last.next = self.last[18].q.val();
        self.block_fp8.next = self.out_fp8.q.val();
        self.block_scale.next = bit_cast::<8, 7>(self.out_scale.q.val());
        self.block_payload.next = bit_cast::<128, 64>(self.out_low.q.val())
            | (bit_cast::<128, 64>(self.out_high.q.val()) << 64);
    }
}
