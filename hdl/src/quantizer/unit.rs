//! The unit: rescale, buffer, replay, decide, pack.

use super::{
    AmaxScale, BlockPacker, E2m1Round, E4m3Round, ExcessError, ScaleDecoder, WeightedSquare,
};
use crate::float::FloatScale;
use crate::memory::BlockBuffer;
use crate::prelude::*;

/// BF16 x to z = clamp(RNE_BF16(RNE_FP32(x * M)), -448, 448), two cycles later.
#[derive(LogicBlock, Default)]
pub struct Rescaler {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Step the pipeline.
    pub advance: Signal<In, Bit>,
    /// BF16 element.
    pub x: Signal<In, Bits<16>>,
    /// FP32 bits of M.
    pub scale: Signal<In, Bits<32>>,
    /// Rescaled and clamped BF16 element.
    pub z: Signal<Out, Bits<16>>,
    exponent: Signal<Local, Bits<8>>,
    fraction: Signal<Local, Bits<7>>,
    special: Signal<Local, Bit>,
    scaler: FloatScale,
    magnitude: Signal<Local, Bits<15>>,
    clamped: Signal<Local, Bits<15>>,
    sign: Signal<Local, Bits<16>>,
}

/// Rescales one activation for quantization (numerics §3). NaN passes the clamp;
/// a subnormal x counts as zero of its sign.
#[kernel]
impl Logic for Rescaler {
    fn update(&mut self) {
        self.exponent.next = self.x.val().get_bits::<8>(7);
        self.fraction.next = self.x.val().get_bits::<7>(0);
        self.special.next = self.exponent.val().all();
        self.scaler.clock.next = self.clock.val();
        self.scaler.advance.next = self.advance.val();
        self.scaler.sign.next = self.x.val().get_bit(15);
        self.scaler.zero.next = !self.exponent.val().any();
        self.scaler.infinite.next = self.special.val() && !self.fraction.val().any();
        self.scaler.nan.next = self.special.val() && self.fraction.val().any();
        self.scaler.exponent.next = bit_cast::<10, 8>(self.exponent.val());
        self.scaler.significand.next = (bit_cast::<24, 7>(self.fraction.val()) << 16) | 0x80_0000;
        self.scaler.scale.next = self.scale.val();

        self.magnitude.next = self.scaler.y.val().get_bits::<15>(0);
        self.clamped.next = self.magnitude.val();
        // 448 is 0x43E0; NaN stands above infinity, 0x7F80.
        if self.magnitude.val() > 0x43E0 && self.magnitude.val() <= 0x7F80 {
            self.clamped.next = 0x43E0.into();
        }
        self.sign.next = 0.into();
        if self.scaler.y.val().get_bit(15) {
            self.sign.next = 0x8000.into();
        }
        self.z.next = bit_cast::<16, 15>(self.clamped.val()) | self.sign.val();
    }
}

/// Activation quantization unit, serial build: one element a cycle.
#[derive(LogicBlock, PortAccess, Default)]
pub struct ActQuantizer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M, constant while elements are inside.
    pub input_scale: Signal<In, Bits<32>>,
    /// T: a block becomes FP8 when its score is above it.
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
    /// Payload word is valid.
    pub payload_valid: Signal<Out, Bit>,
    /// Payload word is taken.
    pub payload_ready: Signal<In, Bit>,
    /// Last word of the row.
    pub payload_last: Signal<Out, Bit>,
    /// Payload word: one for an FP4 block, two for an FP8 block.
    pub payload_data: Signal<Out, Bits<64>>,
    /// Scale byte is valid.
    pub scale_valid: Signal<Out, Bit>,
    /// Scale byte is taken.
    pub scale_ready: Signal<In, Bit>,
    /// Last block of the row, when it is an FP4 block.
    pub scale_last: Signal<Out, Bit>,
    /// Scale byte; FP4 blocks only.
    pub scale_data: Signal<Out, Bits<8>>,
    /// Tag bit is valid.
    pub tag_valid: Signal<Out, Bit>,
    /// Tag bit is taken.
    pub tag_ready: Signal<In, Bit>,
    /// Last block of the row.
    pub tag_last: Signal<Out, Bit>,
    /// Tag bit: 1 is FP8.
    pub tag_data: Signal<Out, Bits<1>>,

    // Front: two stages of the rescaler.
    front_advance: Signal<Local, Bit>,
    rescaler: Rescaler,
    front_valid: [Register<Bit>; 2],
    front_last: [DataRegister<Bit>; 2],
    front_sensitivity: [DataRegister<Bits<7>>; 2],

    // Fill: one bank of the buffer, amax and NaN of the block so far.
    buffer: BlockBuffer<23, 5>,
    fill: Signal<Local, Bit>,
    fill_end: Signal<Local, Bit>,
    fill_bank: Register<Bit>,
    fill_index: Register<Bits<4>>,
    fill_amax: Register<Bits<15>>,
    fill_nan: Register<Bit>,
    element_magnitude: Signal<Local, Bits<15>>,
    element_nan: Signal<Local, Bit>,
    block_amax: Signal<Local, Bits<15>>,
    block_nan: Signal<Local, Bit>,
    buffer_word: Signal<Local, Bits<23>>,
    bank_bits: Signal<Local, Bits<5>>,
    bank_full: [Register<Bit>; 2],
    bank_amax: [DataRegister<Bits<15>>; 2],
    bank_nan: [DataRegister<Bit>; 2],
    bank_last: [DataRegister<Bit>; 2],
    bank_final: [DataRegister<Bits<4>>; 2],

    // Replay.
    replay_advance: Signal<Local, Bit>,
    issue: Signal<Local, Bit>,
    replay_bank: Register<Bit>,
    replay_index: Register<Bits<4>>,
    replay_amax: Signal<Local, Bits<15>>,
    replay_nan: Signal<Local, Bit>,
    replay_last: Signal<Local, Bit>,
    replay_final: Signal<Local, Bits<4>>,
    replay_full: Signal<Local, Bit>,
    replay_bank_bits: Signal<Local, Bits<5>>,

    // Stages behind the buffer's output register: flags of each.
    stage_valid: [Register<Bit>; 6],
    stage_first: [DataRegister<Bit>; 6],
    stage_end: [DataRegister<Bit>; 6],
    stage_nan: [DataRegister<Bit>; 6],
    stage_last: [DataRegister<Bit>; 6],
    stage_sensitivity: [DataRegister<Bits<7>>; 4],
    stage_scale: [DataRegister<Bits<7>>; 5],
    stage_q4: [DataRegister<Bits<4>>; 4],
    stage_q8: [DataRegister<Bits<8>>; 4],

    // 0: buffer output; the scale is computed.
    amax: DataRegister<Bits<15>>,
    padded: DataRegister<Bit>,
    amax_scale: AmaxScale,
    // 1: both codes.
    z: DataRegister<Bits<16>>,
    scale_units: ScaleDecoder,
    e2m1: E2m1Round,
    e4m3: E4m3Round,
    z_nan: Signal<Local, Bit>,
    z_sign: Signal<Local, Bits<8>>,
    q8_magnitude: Signal<Local, Bits<7>>,
    // 2: excess error.
    excess_units: ScaleDecoder,
    excess: ExcessError,
    // 3: square.
    error: DataRegister<Bits<17>>,
    squarer: MulU<17, 17, 34>,
    // 4: weighted.
    square: DataRegister<Bits<34>>,
    weighted: WeightedSquare,
    // 5: score and codes gathered.
    term: DataRegister<Bits<52>>,
    score: DataRegister<Bits<64>>,
    score_base: Signal<Local, Bits<64>>,
    codes4: DataRegister<Bits<64>>,
    codes8: DataRegister<Bits<128>>,
    code4_bits: Signal<Local, Bits<64>>,
    code8_bits: Signal<Local, Bits<128>>,

    // Decision.
    decided: Register<Bit>,
    decided_nan: DataRegister<Bit>,
    decided_last: DataRegister<Bit>,
    decided_scale: DataRegister<Bits<7>>,
    choose_fp8: Signal<Local, Bit>,
    packer: BlockPacker,
}

/// BF16 activations and their channels' sensitivities in, FP4 or FP8 blocks out, decided block
/// by block: FP8 when the weighted squared change of going from FP8 to FP4 is above the
/// threshold, or when an element is NaN (numerics §3). Sustains one element a cycle.
#[kernel]
impl Logic for ActQuantizer {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            fill_bank,
            fill_index,
            fill_amax,
            fill_nan,
            replay_bank,
            replay_index,
            decided
        );
        data_registers!(
            self,
            clock,
            amax,
            padded,
            z,
            error,
            square,
            term,
            score,
            codes4,
            codes8,
            decided_nan,
            decided_last,
            decided_scale
        );
        for i in 0..2 {
            registers!(self, clock, reset, front_valid[i], bank_full[i]);
            data_registers!(
                self,
                clock,
                front_last[i],
                front_sensitivity[i],
                bank_amax[i],
                bank_nan[i],
                bank_last[i],
                bank_final[i]
            );
        }
        for i in 0..4 {
            data_registers!(self, clock, stage_sensitivity[i], stage_q4[i], stage_q8[i]);
        }
        for i in 0..5 {
            data_registers!(self, clock, stage_scale[i]);
        }
        for i in 0..6 {
            registers!(self, clock, reset, stage_valid[i]);
            data_registers!(
                self,
                clock,
                stage_first[i],
                stage_end[i],
                stage_nan[i],
                stage_last[i]
            );
        }

        // Front.
        self.fill.next = self.front_valid[1].q.val();
        if self.fill_bank.q.val() {
            if self.bank_full[1].q.val() {
                self.fill.next = false;
            }
        } else if self.bank_full[0].q.val() {
            self.fill.next = false;
        }
        self.front_advance.next = self.fill.val() || !self.front_valid[1].q.val();
        self.x_ready.next = self.front_advance.val();
        self.rescaler.clock.next = self.clock.val();
        self.rescaler.advance.next = self.front_advance.val();
        self.rescaler.x.next = self.x_data.val();
        self.rescaler.scale.next = self.input_scale.val();
        if self.front_advance.val() {
            self.front_valid[0].d.next = self.x_valid.val();
            self.front_valid[1].d.next = self.front_valid[0].q.val();
            self.front_last[0].d.next = self.x_last.val();
            self.front_last[1].d.next = self.front_last[0].q.val();
            self.front_sensitivity[0].d.next = self.x_sensitivity.val().get_bits::<7>(0);
            self.front_sensitivity[1].d.next = self.front_sensitivity[0].q.val();
        }

        // Fill.
        self.element_magnitude.next = self.rescaler.z.val().get_bits::<15>(0);
        self.element_nan.next = self.element_magnitude.val() > 0x7F80;
        self.block_amax.next = self.fill_amax.q.val();
        if self.element_magnitude.val() > self.fill_amax.q.val() && !self.element_nan.val() {
            self.block_amax.next = self.element_magnitude.val();
        }
        self.block_nan.next = self.fill_nan.q.val() || self.element_nan.val();
        self.fill_end.next = self.fill_index.q.val().all() || self.front_last[1].q.val();
        self.buffer_word.next = (bit_cast::<23, 7>(self.front_sensitivity[1].q.val()) << 16)
            | bit_cast::<23, 16>(self.rescaler.z.val());
        self.bank_bits.next = 0.into();
        if self.fill_bank.q.val() {
            self.bank_bits.next = 16.into();
        }
        self.buffer.clock.next = self.clock.val();
        self.buffer.write.next = self.fill.val();
        self.buffer.write_address.next =
            self.bank_bits.val() | bit_cast::<5, 4>(self.fill_index.q.val());
        self.buffer.write_data.next = self.buffer_word.val();
        if self.fill.val() {
            self.fill_index.d.next = self.fill_index.q.val() + 1;
            self.fill_amax.d.next = self.block_amax.val();
            self.fill_nan.d.next = self.block_nan.val();
            if self.fill_end.val() {
                self.fill_index.d.next = 0.into();
                self.fill_amax.d.next = 0.into();
                self.fill_nan.d.next = false;
                self.fill_bank.d.next = !self.fill_bank.q.val();
                if self.fill_bank.q.val() {
                    self.bank_full[1].d.next = true;
                    self.bank_amax[1].d.next = self.block_amax.val();
                    self.bank_nan[1].d.next = self.block_nan.val();
                    self.bank_last[1].d.next = self.front_last[1].q.val();
                    self.bank_final[1].d.next = self.fill_index.q.val();
                } else {
                    self.bank_full[0].d.next = true;
                    self.bank_amax[0].d.next = self.block_amax.val();
                    self.bank_nan[0].d.next = self.block_nan.val();
                    self.bank_last[0].d.next = self.front_last[1].q.val();
                    self.bank_final[0].d.next = self.fill_index.q.val();
                }
            }
        }

        // Replay.
        self.replay_full.next = self.bank_full[0].q.val();
        self.replay_amax.next = self.bank_amax[0].q.val();
        self.replay_nan.next = self.bank_nan[0].q.val();
        self.replay_last.next = self.bank_last[0].q.val();
        self.replay_final.next = self.bank_final[0].q.val();
        self.replay_bank_bits.next = 0.into();
        if self.replay_bank.q.val() {
            self.replay_full.next = self.bank_full[1].q.val();
            self.replay_amax.next = self.bank_amax[1].q.val();
            self.replay_nan.next = self.bank_nan[1].q.val();
            self.replay_last.next = self.bank_last[1].q.val();
            self.replay_final.next = self.bank_final[1].q.val();
            self.replay_bank_bits.next = 16.into();
        }
        self.replay_advance.next = !self.decided.q.val() || self.packer.block_ready.val();
        self.issue.next = self.replay_full.val() && self.replay_advance.val();
        self.buffer.read.next = self.issue.val();
        self.buffer.read_address.next =
            self.replay_bank_bits.val() | bit_cast::<5, 4>(self.replay_index.q.val());
        if self.issue.val() {
            self.replay_index.d.next = self.replay_index.q.val() + 1;
            self.amax.d.next = self.replay_amax.val();
            self.padded.d.next = self.replay_index.q.val() > self.replay_final.val();
            self.stage_first[0].d.next = !self.replay_index.q.val().any();
            self.stage_end[0].d.next = self.replay_index.q.val().all();
            self.stage_nan[0].d.next = self.replay_nan.val();
            self.stage_last[0].d.next = self.replay_last.val();
            if self.replay_index.q.val().all() {
                self.replay_bank.d.next = !self.replay_bank.q.val();
                if self.replay_bank.q.val() {
                    self.bank_full[1].d.next = false;
                } else {
                    self.bank_full[0].d.next = false;
                }
            }
        }
        if self.replay_advance.val() {
            self.stage_valid[0].d.next = self.issue.val();
            for i in 1..6 {
                self.stage_valid[i].d.next = self.stage_valid[i - 1].q.val();
                if self.stage_valid[i - 1].q.val() {
                    self.stage_first[i].d.next = self.stage_first[i - 1].q.val();
                    self.stage_end[i].d.next = self.stage_end[i - 1].q.val();
                    self.stage_nan[i].d.next = self.stage_nan[i - 1].q.val();
                    self.stage_last[i].d.next = self.stage_last[i - 1].q.val();
                }
            }
            for i in 1..5 {
                if self.stage_valid[i].q.val() {
                    self.stage_scale[i].d.next = self.stage_scale[i - 1].q.val();
                }
            }
            for i in 1..4 {
                if self.stage_valid[i].q.val() {
                    self.stage_sensitivity[i].d.next = self.stage_sensitivity[i - 1].q.val();
                }
                if self.stage_valid[i + 1].q.val() {
                    self.stage_q4[i].d.next = self.stage_q4[i - 1].q.val();
                    self.stage_q8[i].d.next = self.stage_q8[i - 1].q.val();
                }
            }
        }

        // Stage 0: the scale.
        self.amax_scale.amax.next = self.amax.q.val();
        if self.replay_advance.val() && self.stage_valid[0].q.val() {
            self.z.d.next = self.buffer.read_data.val().get_bits::<16>(0);
            self.stage_sensitivity[0].d.next = self.buffer.read_data.val().get_bits::<7>(16);
            self.stage_scale[0].d.next = self.amax_scale.code.val();
            if self.padded.q.val() {
                self.z.d.next = 0.into();
                self.stage_sensitivity[0].d.next = 0.into();
            }
        }

        // Stage 1: both codes.
        self.scale_units.code.next = self.stage_scale[0].q.val();
        self.e2m1.z.next = self.z.q.val();
        self.e2m1.scale.next = self.scale_units.units.val();
        self.e4m3.zero.next = !self.z.q.val().get_bits::<8>(7).any();
        self.e4m3.exponent.next = self.z.q.val().get_bits::<8>(7);
        self.e4m3.significand.next =
            (bit_cast::<12, 7>(self.z.q.val().get_bits::<7>(0)) << 4) | 0x800;
        self.z_nan.next = self.z.q.val().get_bits::<15>(0) > 0x7F80;
        self.z_sign.next = 0.into();
        self.q8_magnitude.next = self.e4m3.code.val();
        if self.z_nan.val() {
            self.q8_magnitude.next = 0x7F.into();
        } else if self.z.q.val().get_bit(15) {
            self.z_sign.next = 0x80.into();
        }
        if self.replay_advance.val() && self.stage_valid[1].q.val() {
            self.stage_q4[0].d.next = self.e2m1.code.val();
            self.stage_q8[0].d.next = self.z_sign.val() | bit_cast::<8, 7>(self.q8_magnitude.val());
        }

        // Stage 2: excess error.
        self.excess_units.code.next = self.stage_scale[1].q.val();
        self.excess.q4.next = self.stage_q4[0].q.val().get_bits::<3>(0);
        self.excess.q8.next = self.stage_q8[0].q.val().get_bits::<7>(0);
        self.excess.scale.next = self.excess_units.units.val();
        if self.replay_advance.val() && self.stage_valid[2].q.val() {
            self.error.d.next = self.excess.error.val();
        }

        // Stage 3: square.
        self.squarer.a.next = self.error.q.val();
        self.squarer.b.next = self.error.q.val();
        if self.replay_advance.val() && self.stage_valid[3].q.val() {
            self.square.d.next = self.squarer.p.val();
        }

        // Stage 4: weighted.
        self.weighted.square.next = self.square.q.val();
        self.weighted.sensitivity.next = self.stage_sensitivity[3].q.val();
        if self.replay_advance.val() && self.stage_valid[4].q.val() {
            self.term.d.next = self.weighted.term.val();
        }

        // Stage 5: score and codes gathered, the first element in the lowest place.
        self.score_base.next = self.score.q.val();
        if self.stage_first[5].q.val() {
            self.score_base.next = 0.into();
        }
        self.code4_bits.next = bit_cast::<64, 4>(self.stage_q4[3].q.val()) << 60;
        self.code8_bits.next = bit_cast::<128, 8>(self.stage_q8[3].q.val()) << 120;
        if self.replay_advance.val() {
            self.decided.d.next = false;
            if self.stage_valid[5].q.val() {
                self.score.d.next = self.score_base.val() + bit_cast::<64, 52>(self.term.q.val());
                self.codes4.d.next = (self.codes4.q.val() >> 4) | self.code4_bits.val();
                self.codes8.d.next = (self.codes8.q.val() >> 8) | self.code8_bits.val();
                if self.stage_end[5].q.val() {
                    self.decided.d.next = true;
                    self.decided_nan.d.next = self.stage_nan[5].q.val();
                    self.decided_last.d.next = self.stage_last[5].q.val();
                    self.decided_scale.d.next = self.stage_scale[4].q.val();
                }
            }
        }

        // Decision.
        self.choose_fp8.next =
            self.score.q.val() > self.threshold.val() || self.decided_nan.q.val();
        self.packer.clock.next = self.clock.val();
        self.packer.reset.next = self.reset.val();
        self.packer.block_valid.next = self.decided.q.val();
        self.packer.block_last.next = self.decided_last.q.val();
        self.packer.block_fp8.next = self.choose_fp8.val();
        self.packer.block_scale.next = bit_cast::<8, 7>(self.decided_scale.q.val());
        self.packer.block_payload.next = bit_cast::<128, 64>(self.codes4.q.val());
        if self.choose_fp8.val() {
            self.packer.block_payload.next = self.codes8.q.val();
        }

        // Streams.
        self.payload_valid.next = self.packer.payload_valid.val();
        self.payload_last.next = self.packer.payload_last.val();
        self.payload_data.next = self.packer.payload_data.val();
        self.packer.payload_ready.next = self.payload_ready.val();
        self.scale_valid.next = self.packer.scale_valid.val();
        self.scale_last.next = self.packer.scale_last.val();
        self.scale_data.next = self.packer.scale_data.val();
        self.packer.scale_ready.next = self.scale_ready.val();
        self.tag_valid.next = self.packer.tag_valid.val();
        self.tag_last.next = self.packer.tag_last.val();
        self.tag_data.next = self.packer.tag_data.val();
        self.packer.tag_ready.next = self.tag_ready.val();
    }
}
