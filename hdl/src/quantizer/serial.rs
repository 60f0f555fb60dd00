//! The serial build: one element a cycle.

use super::{
    AmaxScale, LANE_STAGES, LaneScale, QuantizerLane, RESCALER_STAGES, Rescaler, ScaleExponent,
};
use crate::memory::BlockBuffer;
use crate::prelude::*;

/// Register stages from the buffer's output to the accumulator: the scale, then the lane.
const STAGES: usize = LANE_STAGES + 2;

/// Activation quantization unit, serial build: one element a cycle in, decided blocks out.
#[derive(LogicBlock, PortAccess, Default)]
pub struct SerialQuantizer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M, constant while elements are inside.
    pub input_scale: Signal<In, Bits<32>>,
    /// T: a block becomes FP8 when its score is above it; constant while elements are inside.
    pub threshold: Signal<In, Bits<64>>,
    /// Element is valid.
    pub x_valid: Signal<In, Bit>,
    /// Element is taken.
    pub x_ready: Signal<Out, Bit>,
    /// Last element of the row; the rest of its block counts as zero.
    pub x_last: Signal<In, Bit>,
    /// BF16 element.
    pub x_data: Signal<In, Bits<16>>,
    /// UE4M3 sensitivity of the element's channel.
    pub x_sensitivity: Signal<In, Bits<8>>,
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

    // Front.
    front_advance: Signal<Local, Bit>,
    scale_exponent: ScaleExponent,
    rescaler: Rescaler,
    front_valid: [Register<Bit>; RESCALER_STAGES],
    front_take: [Signal<Local, Bit>; RESCALER_STAGES],
    front_last: [PipelineRegister<Bit>; RESCALER_STAGES],
    front_sensitivity: [PipelineRegister<Bits<7>>; RESCALER_STAGES],

    // Fill: the buffer, amax and NaN of the block so far.
    buffer: BlockBuffer<20, 4>,
    element_last: Signal<Local, Bit>,
    element_nan: Signal<Local, Bit>,
    fill: Signal<Local, Bit>,
    fill_end: Signal<Local, Bit>,
    fill_index: Register<Bits<4>>,
    fill_amax: Register<Bits<12>>,
    fill_nan: Register<Bit>,
    block_amax: Signal<Local, Bits<12>>,
    block_nan: Signal<Local, Bit>,

    // Replay: the block that is read, and how far.
    replaying: Register<Bit>,
    replay_index: Register<Bits<4>>,
    replay_amax: DataRegister<Bits<12>>,
    replay_nan: DataRegister<Bit>,
    replay_last: DataRegister<Bit>,
    replay_final: DataRegister<Bits<4>>,
    issue: Signal<Local, Bit>,

    // Stages behind the buffer; number 0 stands beside its output register.
    advance: Signal<Local, Bit>,
    stage_valid: [Register<Bit>; STAGES],
    take: [Signal<Local, Bit>; STAGES],
    first: [PipelineRegister<Bit>; STAGES],
    ending: [PipelineRegister<Bit>; STAGES],
    nan: [PipelineRegister<Bit>; LANE_STAGES + 1],
    last: [PipelineRegister<Bit>; LANE_STAGES + 1],
    padded: PipelineRegister<Bit>,
    // 1: the scale.
    amax_scale: AmaxScale,
    z: PipelineRegister<Bits<13>>,
    sensitivity: PipelineRegister<Bits<7>>,
    scale: PipelineRegister<Bits<7>>,
    // 2 on: the lane.
    lane_scale: LaneScale,
    lane: QuantizerLane,

    // Score and codes gathered.
    never: Signal<Local, Bit>,
    gather: Signal<Local, Bit>,
    score_base: Signal<Local, Bits<57>>,
    score: DataRegister<Bits<57>>,
    codes4: DataRegister<Bits<64>>,
    codes8: DataRegister<Bits<128>>,
    code4_bits: Signal<Local, Bits<64>>,
    code8_bits: Signal<Local, Bits<128>>,
    complete: Register<Bit>,
    complete_nan: DataRegister<Bit>,
    complete_last: DataRegister<Bit>,
    complete_scale: DataRegister<Bits<7>>,

    // The decided block.
    choose_fp8: Signal<Local, Bit>,
    decide: Signal<Local, Bit>,
    out_free: Signal<Local, Bit>,
    out_valid: Register<Bit>,
    out_last: PipelineRegister<Bit>,
    out_fp8: PipelineRegister<Bit>,
    out_scale: PipelineRegister<Bits<7>>,
    out_low: PipelineRegister<Bits<64>>,
    out_high: PipelineRegister<Bits<64>>,
}

/// BF16 activations and their channels' sensitivities in, FP4 or FP8 blocks out, decided block
/// by block: FP8 when the weighted squared change of going from FP8 to FP4 is above the
/// threshold, or when an element is NaN (numerics §3). Sustains one element a cycle.
///
/// A block is buffered while its amax is found, then read again while the next one is written behind the reading.
#[kernel]
impl Logic for SerialQuantizer {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            fill_index,
            fill_amax,
            fill_nan,
            replaying,
            replay_index,
            complete,
            out_valid
        );
        data_registers!(
            self,
            clock,
            replay_amax,
            replay_nan,
            replay_last,
            replay_final,
            score,
            codes4,
            codes8,
            complete_nan,
            complete_last,
            complete_scale
        );

        // What is behind the buffer steps together, unless a complete block waits for the output registers.
        self.out_free.next = !self.out_valid.q.val() || self.block_ready.val();
        self.advance.next = !self.complete.q.val() || self.out_free.val();

        // Fill. A word is written behind the reading. A block ends only when the one before has been read and has left the
        // output of the buffer, because the registers of the replay then change.
        self.element_last.next = self.front_last[4].q.val();
        self.fill_end.next = self.fill_index.q.val().all() || self.element_last.val();
        self.fill.next = self.front_valid[4].q.val();
        if self.fill_end.val() {
            if self.replaying.q.val() || !self.advance.val() {
                self.fill.next = false;
            }
        } else if self.replaying.q.val() && self.fill_index.q.val() >= self.replay_index.q.val() {
            self.fill.next = false;
        }
        self.front_advance.next = self.fill.val() || !self.front_valid[4].q.val();
        self.x_ready.next = self.front_advance.val();

        // Front.
        for i in 0..5 {
            registers!(self, clock, reset, front_valid[i]);
        }
        self.front_take[0].next = self.front_advance.val() && self.x_valid.val();
        if self.front_advance.val() {
            self.front_valid[0].d.next = self.x_valid.val();
        }
        for i in 0..4 {
            self.front_take[i + 1].next = self.front_advance.val() && self.front_valid[i].q.val();
            if self.front_advance.val() {
                self.front_valid[i + 1].d.next = self.front_valid[i].q.val();
            }
        }
        self.scale_exponent.scale.next = self.input_scale.val();
        self.rescaler.clock.next = self.clock.val();
        self.rescaler.x.next = self.x_data.val();
        self.rescaler.scale.next = self.input_scale.val();
        self.rescaler.scale_offset.next = self.scale_exponent.offset.val();
        self.rescaler.scale_zero.next = self.scale_exponent.zero.val();
        for i in 0..5 {
            self.rescaler.enable[i].next = self.front_take[i].val();
            pipeline_registers!(
                self,
                clock,
                front_take[i],
                front_last[i],
                front_sensitivity[i]
            );
        }
        self.front_last[0].d.next = self.x_last.val();
        self.front_sensitivity[0].d.next = self.x_sensitivity.val().get_bits::<7>(0);
        for i in 0..4 {
            self.front_last[i + 1].d.next = self.front_last[i].q.val();
            self.front_sensitivity[i + 1].d.next = self.front_sensitivity[i].q.val();
        }
        self.element_nan.next =
            !self.rescaler.z.val().get_bits::<5>(7).any() && self.rescaler.z.val().get_bit(0);
        self.block_amax.next = self.fill_amax.q.val();
        // A NaN counts as next to nothing: the scale of it is zero, as that of zero.
        if self.rescaler.z.val().get_bits::<12>(0) > self.fill_amax.q.val() {
            self.block_amax.next = self.rescaler.z.val().get_bits::<12>(0);
        }
        self.block_nan.next = self.fill_nan.q.val() || self.element_nan.val();
        self.buffer.clock.next = self.clock.val();
        self.buffer.write.next = self.fill.val();
        self.buffer.write_address.next = self.fill_index.q.val();
        self.buffer.write_data.next = (bit_cast::<20, 7>(self.front_sensitivity[4].q.val()) << 13)
            | bit_cast::<20, 13>(self.rescaler.z.val());

        // Replay. The first word of a whole block is read in the cycle that writes its last.
        self.issue.next = self.advance.val()
            && (self.replaying.q.val() || (self.fill.val() && self.fill_index.q.val().all()));
        self.buffer.read.next = self.issue.val();
        self.buffer.read_address.next = self.replay_index.q.val();
        if self.issue.val() {
            self.replay_index.d.next = self.replay_index.q.val() + 1;
            if self.replay_index.q.val().all() {
                self.replaying.d.next = false;
            }
        }
        if self.fill.val() {
            self.fill_index.d.next = self.fill_index.q.val() + 1;
            self.fill_amax.d.next = self.block_amax.val();
            self.fill_nan.d.next = self.block_nan.val();
            if self.fill_end.val() {
                self.fill_index.d.next = 0.into();
                self.fill_amax.d.next = 0.into();
                self.fill_nan.d.next = false;
                self.replaying.d.next = true;
                self.replay_amax.d.next = self.block_amax.val();
                self.replay_nan.d.next = self.block_nan.val();
                self.replay_last.d.next = self.element_last.val();
                self.replay_final.d.next = self.fill_index.q.val();
            }
        }

        // Stages.
        for i in 0..9 {
            registers!(self, clock, reset, stage_valid[i]);
        }
        self.take[0].next = self.issue.val();
        if self.advance.val() {
            self.stage_valid[0].d.next = self.issue.val();
        }
        for i in 0..8 {
            self.take[i + 1].next = self.advance.val() && self.stage_valid[i].q.val();
            if self.advance.val() {
                self.stage_valid[i + 1].d.next = self.stage_valid[i].q.val();
            }
        }
        for i in 0..9 {
            pipeline_registers!(self, clock, take[i], first[i], ending[i]);
        }
        self.first[0].d.next = !self.replay_index.q.val().any();
        self.ending[0].d.next = self.replay_index.q.val().all();
        for i in 0..8 {
            self.first[i + 1].d.next = self.first[i].q.val();
            self.ending[i + 1].d.next = self.ending[i].q.val();
            pipeline_registers!(self, clock, take[i + 1], nan[i], last[i]);
        }
        // The registers of the replay hold for a block from the cycle in which its first element is in stage 0 to the one in
        // which its last leaves it.
        self.nan[0].d.next = self.replay_nan.q.val();
        self.last[0].d.next = self.replay_last.q.val();
        for i in 0..7 {
            self.nan[i + 1].d.next = self.nan[i].q.val();
            self.last[i + 1].d.next = self.last[i].q.val();
        }
        pipeline_registers!(self, clock, take[0], padded);
        self.padded.d.next =
            self.replaying.q.val() && self.replay_index.q.val() > self.replay_final.q.val();

        // 1.
        self.amax_scale.amax.next = self.replay_amax.q.val();
        pipeline_registers!(self, clock, take[1], z, sensitivity, scale);
        self.z.d.next = self.buffer.read_data.val().get_bits::<13>(0);
        self.sensitivity.d.next = self.buffer.read_data.val().get_bits::<7>(13);
        if self.padded.q.val() {
            self.z.d.next = 0.into();
            self.sensitivity.d.next = 0.into();
        }
        self.scale.d.next = self.amax_scale.code.val();

        // 2 on.
        self.lane_scale.clock.next = self.clock.val();
        self.lane_scale.code.next = self.scale.q.val();
        self.lane.clock.next = self.clock.val();
        self.lane.z.next = self.z.q.val();
        self.lane.sensitivity.next = self.sensitivity.q.val();
        for i in 0..7 {
            self.lane_scale.enable[i].next = self.take[i + 2].val();
            self.lane.enable[i].next = self.take[i + 2].val();
        }
        self.lane.middle_point.next = self.lane_scale.middle_point.val();
        for i in 0..7 {
            self.lane.points[i].next = self.lane_scale.points[i].val();
        }
        self.lane.scale_zero.next = self.lane_scale.zero.val();
        self.lane.scale_exponent.next = self.lane_scale.exponent.val();
        self.lane.subnormal.next = self.lane_scale.subnormal.val();
        self.lane.twofold.next = self.lane_scale.twofold.val();
        self.lane.threefold.next = self.lane_scale.threefold.val();
        self.lane.top_twofold.next = self.lane_scale.top_twofold.val();
        self.lane.top_threefold.next = self.lane_scale.top_threefold.val();

        // Score and codes gathered, the first element in the lowest place. The sum starts from 2^56 - 1 - T: it reaches 2^56
        // when the score is above T. No score reaches 2^56.
        self.never.next = self.threshold.val().get_bits::<8>(56).any();
        self.gather.next = self.advance.val() && self.stage_valid[8].q.val();
        self.score_base.next = self.score.q.val();
        if self.first[8].q.val() {
            self.score_base.next = bit_cast::<57, 56>(!self.threshold.val().get_bits::<56>(0));
        }
        self.code4_bits.next = bit_cast::<64, 4>(self.lane.q4.val()) << 60;
        self.code8_bits.next = bit_cast::<128, 8>(self.lane.q8.val()) << 120;
        if self.advance.val() {
            self.complete.d.next = self.stage_valid[8].q.val() && self.ending[8].q.val();
        }
        if self.gather.val() {
            self.score.d.next = self.score_base.val() + bit_cast::<57, 52>(self.lane.term.val());
            self.codes4.d.next = (self.codes4.q.val() >> 4) | self.code4_bits.val();
            self.codes8.d.next = (self.codes8.q.val() >> 8) | self.code8_bits.val();
            self.complete_nan.d.next = self.nan[7].q.val();
            self.complete_last.d.next = self.last[7].q.val();
            self.complete_scale.d.next = self.lane_scale.behind.val();
        }

        // Decision.
        self.choose_fp8.next =
            self.complete_nan.q.val() || (self.score.q.val().get_bit(56) && !self.never.val());
        self.decide.next = self.complete.q.val() && self.out_free.val();
        if self.out_free.val() {
            self.out_valid.d.next = self.complete.q.val();
        }
        pipeline_registers!(
            self, clock, decide, out_last, out_fp8, out_scale, out_low, out_high
        );
        self.out_last.d.next = self.complete_last.q.val();
        self.out_fp8.d.next = self.choose_fp8.val();
        self.out_scale.d.next = self.complete_scale.q.val();
        self.out_low.d.next = self.codes4.q.val();
        self.out_high.d.next = 0.into();
        if self.choose_fp8.val() {
            self.out_low.d.next = self.codes8.q.val().get_bits::<64>(0);
            self.out_high.d.next = self.codes8.q.val().get_bits::<64>(64);
        }
        self.block_valid.next = self.out_valid.q.val();
        self.block_last.next = self.out_last.q.val();
        self.block_fp8.next = self.out_fp8.q.val();
        self.block_scale.next = bit_cast::<8, 7>(self.out_scale.q.val());
        self.block_payload.next = bit_cast::<128, 64>(self.out_low.q.val())
            | (bit_cast::<128, 64>(self.out_high.q.val()) << 64);
    }
}
