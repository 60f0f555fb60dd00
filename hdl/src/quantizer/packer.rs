//! Blocks to the three dense streams of a packed tensor.

use crate::prelude::*;

/// One block in, its payload words, scale byte and tag bit out, in packed order (numerics §2).
#[derive(LogicBlock, Default)]
pub struct BlockPacker {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A block is offered.
    pub block_valid: Signal<In, Bit>,
    /// The block is taken.
    pub block_ready: Signal<Out, Bit>,
    /// It is the last block of its row.
    pub block_last: Signal<In, Bit>,
    /// The block is FP8.
    pub block_fp8: Signal<In, Bit>,
    /// UE4M3 scale of an FP4 block.
    pub block_scale: Signal<In, Bits<8>>,
    /// Payload; an FP4 block's stands in the low 64 bits.
    pub block_payload: Signal<In, Bits<128>>,
    /// Payload word is valid.
    pub payload_valid: Signal<Out, Bit>,
    /// Payload word is taken.
    pub payload_ready: Signal<In, Bit>,
    /// Last word of the last block.
    pub payload_last: Signal<Out, Bit>,
    /// Payload word: one for an FP4 block, two for an FP8 block.
    pub payload_data: Signal<Out, Bits<64>>,
    /// Scale byte is valid.
    pub scale_valid: Signal<Out, Bit>,
    /// Scale byte is taken.
    pub scale_ready: Signal<In, Bit>,
    /// The last block, when it is an FP4 block.
    pub scale_last: Signal<Out, Bit>,
    /// Scale byte; FP4 blocks only.
    pub scale_data: Signal<Out, Bits<8>>,
    /// Tag bit is valid.
    pub tag_valid: Signal<Out, Bit>,
    /// Tag bit is taken.
    pub tag_ready: Signal<In, Bit>,
    /// Last block.
    pub tag_last: Signal<Out, Bit>,
    /// Tag bit: 1 is FP8.
    pub tag_data: Signal<Out, Bits<1>>,

    first_word: Register<Bit>,
    second_word: Register<Bit>,
    scale_pending: Register<Bit>,
    tag_pending: Register<Bit>,
    payload: DataRegister<Bits<128>>,
    scale: DataRegister<Bits<8>>,
    fp8: DataRegister<Bit>,
    last: DataRegister<Bit>,
    empty: Signal<Local, Bit>,
}

/// Holds one block until each of the three streams has taken its part.
#[kernel]
impl Logic for BlockPacker {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            first_word,
            second_word,
            scale_pending,
            tag_pending
        );
        data_registers!(self, clock, payload, scale, fp8, last);
        self.empty.next = !self.first_word.q.val()
            && !self.second_word.q.val()
            && !self.scale_pending.q.val()
            && !self.tag_pending.q.val();
        self.block_ready.next = self.empty.val();

        // The second word is sent first_word cleared: the payload has moved down by then.
        self.payload_valid.next = self.first_word.q.val() || self.second_word.q.val();
        self.payload_data.next = self.payload.q.val().get_bits::<64>(0);
        self.payload_last.next =
            self.last.q.val() && !(self.first_word.q.val() && self.second_word.q.val());
        self.scale_valid.next = self.scale_pending.q.val();
        self.scale_data.next = self.scale.q.val();
        self.scale_last.next = self.last.q.val();
        self.tag_valid.next = self.tag_pending.q.val();
        self.tag_data.next = self.fp8.q.val().into();
        self.tag_last.next = self.last.q.val();

        if self.empty.val() {
            if self.block_valid.val() {
                self.first_word.d.next = true;
                self.second_word.d.next = self.block_fp8.val();
                self.scale_pending.d.next = !self.block_fp8.val();
                self.tag_pending.d.next = true;
                self.payload.d.next = self.block_payload.val();
                self.scale.d.next = self.block_scale.val();
                self.fp8.d.next = self.block_fp8.val();
                self.last.d.next = self.block_last.val();
            }
        } else {
            if self.payload_ready.val() {
                if self.first_word.q.val() {
                    self.first_word.d.next = false;
                    if self.second_word.q.val() {
                        self.payload.d.next = self.payload.q.val() >> 64;
                    }
                } else {
                    self.second_word.d.next = false;
                }
            }
            if self.scale_ready.val() {
                self.scale_pending.d.next = false;
            }
            if self.tag_ready.val() {
                self.tag_pending.d.next = false;
            }
        }
    }
}
