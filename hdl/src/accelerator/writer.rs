//! From blocks to the three dense streams of a packed tensor, in 64-bit words.

use crate::decoder::{BLOCK_BITS, SCALE_BIT, TAG_BIT};
use crate::prelude::*;

/// Writes blocks as a packed tensor: payload words, scale bytes eight a word, tag bits 64 a word (numerics §2).
///
/// The reverse of [`super::reader::BlockReader`]. What is left of a word when the tensor ends is zero.
#[derive(LogicBlock, PortAccess, Default)]
pub struct PackedWriter {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A block is offered.
    pub block_valid: Signal<In, Bit>,
    /// It is taken.
    pub block_ready: Signal<Out, Bit>,
    /// It is the last of its tensor.
    pub block_last: Signal<In, Bit>,
    /// The block, as on a stream of the array.
    pub block: Signal<In, Bits<BLOCK_BITS>>,
    /// Payload word is valid.
    pub payload_valid: Signal<Out, Bit>,
    /// It is taken.
    pub payload_ready: Signal<In, Bit>,
    /// It is the tensor's last.
    pub payload_last: Signal<Out, Bit>,
    /// One word of an FP4 block, or one of the two of an FP8 block.
    pub payload_data: Signal<Out, Bits<64>>,
    /// Scale word is valid.
    pub scale_valid: Signal<Out, Bit>,
    /// It is taken.
    pub scale_ready: Signal<In, Bit>,
    /// It is the tensor's last word. A tensor that ends with a full word and FP8 blocks behind it has none so marked.
    pub scale_last: Signal<Out, Bit>,
    /// Eight scale bytes, the first lowest.
    pub scale_data: Signal<Out, Bits<64>>,
    /// Tag word is valid.
    pub tag_valid: Signal<Out, Bit>,
    /// It is taken.
    pub tag_ready: Signal<In, Bit>,
    /// It is the tensor's last.
    pub tag_last: Signal<Out, Bit>,
    /// 64 tag bits, the first lowest.
    pub tag_data: Signal<Out, Bits<64>>,

    payload: DataRegister<Bits<128>>,
    words_left: Register<Bits<2>>,
    last: DataRegister<Bit>,
    scales: DataRegister<Bits<64>>,
    scale_count: Register<Bits<3>>,
    scale_full: Register<Bit>,
    tags: DataRegister<Bits<64>>,
    tag_count: Register<Bits<6>>,
    tag_full: Register<Bit>,

    take: Signal<Local, Bit>,
    fp8: Signal<Local, Bit>,
    scale_base: Signal<Local, Bits<64>>,
    tag_base: Signal<Local, Bits<64>>,
    scale_shift: Signal<Local, Bits<6>>,
    scale_placed: Signal<Local, Bits<64>>,
    tag_placed: Signal<Local, Bits<64>>,
}

/// Splits blocks into payload words, gathers scale bytes and tag bits to words of 64 bits, and marks the tensor's end (numerics §2).
///
/// An FP4 block gives one payload word and a scale byte, an FP8 block two payload words; each gives a tag bit. What is left of a word at the end is zero.
#[kernel]
impl Logic for PackedWriter {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            words_left,
            scale_count,
            scale_full,
            tag_count,
            tag_full
        );
        data_registers!(self, clock, payload, last, scales, tags);

        self.block_ready.next =
            !self.words_left.q.val().any() && !self.scale_full.q.val() && !self.tag_full.q.val();
        self.take.next = self.block_valid.val()
            && !self.words_left.q.val().any()
            && !self.scale_full.q.val()
            && !self.tag_full.q.val();
        self.fp8.next = self.block.val().get_bit(TAG_BIT);

        self.payload_valid.next = self.words_left.q.val().any();
        self.payload_last.next = self.last.q.val() && self.words_left.q.val() == 1;
        self.payload_data.next = self.payload.q.val().get_bits::<64>(0);
        self.scale_valid.next = self.scale_full.q.val();
        self.scale_last.next = self.last.q.val();
        self.scale_data.next = self.scales.q.val();
        self.tag_valid.next = self.tag_full.q.val();
        self.tag_last.next = self.last.q.val();
        self.tag_data.next = self.tags.q.val();

        if self.words_left.q.val().any() && self.payload_ready.val() {
            self.words_left.d.next = self.words_left.q.val() - 1;
            self.payload.d.next = self.payload.q.val() >> 64;
        }
        if self.scale_full.q.val() && self.scale_ready.val() {
            self.scale_full.d.next = false;
        }
        if self.tag_full.q.val() && self.tag_ready.val() {
            self.tag_full.d.next = false;
        }

        self.scale_base.next = self.scales.q.val();
        if !self.scale_count.q.val().any() {
            self.scale_base.next = 0.into();
        }
        self.tag_base.next = self.tags.q.val();
        if !self.tag_count.q.val().any() {
            self.tag_base.next = 0.into();
        }
        self.scale_shift.next = bit_cast::<6, 3>(self.scale_count.q.val()) << 3;
        self.scale_placed.next = self.scale_base.val()
            | (bit_cast::<64, 8>(self.block.val().get_bits::<8>(SCALE_BIT))
                << self.scale_shift.val());
        self.tag_placed.next = self.tag_base.val()
            | (bit_cast::<64, 1>(self.fp8.val().into()) << self.tag_count.q.val());
        if self.take.val() {
            self.last.d.next = self.block_last.val();
            self.payload.d.next = self.block.val().get_bits::<128>(0);
            self.words_left.d.next = 2.into();
            self.tags.d.next = self.tag_placed.val();
            self.tag_count.d.next = self.tag_count.q.val() + 1;
            self.tag_full.d.next = self.tag_count.q.val().all() || self.block_last.val();
            if !self.fp8.val() {
                self.words_left.d.next = 1.into();
                self.scales.d.next = self.scale_placed.val();
                self.scale_count.d.next = self.scale_count.q.val() + 1;
                self.scale_full.d.next = self.scale_count.q.val().all() || self.block_last.val();
            } else if self.block_last.val() {
                self.scale_full.d.next = self.scale_count.q.val().any();
            }
            if self.block_last.val() {
                self.scale_count.d.next = 0.into();
                self.tag_count.d.next = 0.into();
            }
        }
    }
}
