//! The unit with its packer.

use super::{BlockPacker, SerialQuantizer};
use crate::prelude::*;

/// Activation quantization unit, serial build, with the three streams of a packed tensor behind it.
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

    quantizer: SerialQuantizer,
    packer: BlockPacker,
}

/// BF16 activations and their channels' sensitivities in, one a cycle; the three dense streams of a packed tensor out
/// (numerics §2 and §3).
#[kernel]
impl Logic for ActQuantizer {
    fn update(&mut self) {
        self.quantizer.clock.next = self.clock.val();
        self.quantizer.reset.next = self.reset.val();
        self.quantizer.input_scale.next = self.input_scale.val();
        self.quantizer.threshold.next = self.threshold.val();
        self.quantizer.x_valid.next = self.x_valid.val();
        self.quantizer.x_last.next = self.x_last.val();
        self.quantizer.x_data.next = self.x_data.val();
        self.quantizer.x_sensitivity.next = self.x_sensitivity.val();
        self.x_ready.next = self.quantizer.x_ready.val();

        self.packer.clock.next = self.clock.val();
        self.packer.reset.next = self.reset.val();
        self.packer.block_valid.next = self.quantizer.block_valid.val();
        self.packer.block_last.next = self.quantizer.block_last.val();
        self.packer.block_fp8.next = self.quantizer.block_fp8.val();
        self.packer.block_scale.next = self.quantizer.block_scale.val();
        self.packer.block_payload.next = self.quantizer.block_payload.val();
        self.quantizer.block_ready.next = self.packer.block_ready.val();

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
