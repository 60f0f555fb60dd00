//! From the bytes of a frame to blocks.

use crate::decoder::{BLOCK_BITS, SCALE_BIT, TAG_BIT};
use crate::prelude::*;

/// Shifts count in `u64`.
const SCALE_AT: u64 = SCALE_BIT as u64;
/// Likewise.
const TAG_AT: u64 = TAG_BIT as u64;

/// Blocks from bytes: groups of up to eight, each a byte of tags and then the blocks, 9 or 16 bytes each.
///
/// With its bit of the tags a block takes exactly what numerics §2 gives it: 73 or 129 bits.
#[derive(LogicBlock, PortAccess, Default)]
pub struct BlockUnpacker {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Begin with a group; drops what has come of a block.
    pub clear: Signal<In, Bit>,
    /// A byte has come.
    pub valid: Signal<In, Bit>,
    /// It.
    pub data: Signal<In, Bits<8>>,
    /// A block is complete; for one cycle.
    pub block_valid: Signal<Out, Bit>,
    /// It, as on a port of the array. The upper half of an FP4 block's payload means nothing.
    pub block: Signal<Out, Bits<BLOCK_BITS>>,
    /// Some bytes of a block have come.
    pub partial: Signal<Out, Bit>,

    in_group: DataRegister<Bit>,
    in_block: DataRegister<Bit>,
    complete: DataRegister<Bit>,
    tags: DataRegister<Bits<8>>,
    group_left: DataRegister<Bits<3>>,
    left: DataRegister<Bits<4>>,
    tag: DataRegister<Bit>,
    scale: DataRegister<Bits<8>>,
    low: DataRegister<Bits<64>>,
    high: DataRegister<Bits<64>>,
    starts: Signal<Local, Bit>,
    payload: Signal<Local, Bit>,
    fp8: Signal<Local, Bit>,
    low_byte: Signal<Local, Bits<8>>,
}

/// Groups of blocks as a frame carries them, to one block at a time.
///
/// Payload bytes are shifted in from the top: sixteen through both halves, eight into the low one.
#[kernel]
impl Logic for BlockUnpacker {
    fn update(&mut self) {
        data_registers!(
            self, clock, in_group, in_block, complete, tags, group_left, left, tag, scale, low,
            high
        );
        self.starts.next = self.valid.val() && self.in_group.q.val() && !self.in_block.q.val();
        self.fp8.next = self.tag.q.val();
        if self.starts.val() {
            self.fp8.next = self.tags.q.val().get_bit(0);
        }
        self.payload.next = self.valid.val()
            && self.in_group.q.val()
            && (self.in_block.q.val() || self.tags.q.val().get_bit(0));
        self.complete.d.next = false;
        if self.valid.val() && !self.in_group.q.val() {
            self.tags.d.next = self.data.val();
            self.group_left.d.next = 7.into();
            self.in_group.d.next = true;
        }
        if self.starts.val() {
            self.in_block.d.next = true;
            self.tag.d.next = self.fp8.val();
            self.left.d.next = 15.into();
            if !self.fp8.val() {
                self.scale.d.next = self.data.val();
                self.left.d.next = 8.into();
            }
        }
        self.low_byte.next = self.data.val();
        if self.fp8.val() {
            self.low_byte.next = self.high.q.val().get_bits::<8>(0);
        }
        if self.payload.val() {
            self.low.d.next =
                (self.low.q.val() >> 8) | (bit_cast::<64, 8>(self.low_byte.val()) << 56);
            if self.fp8.val() {
                self.high.d.next =
                    (self.high.q.val() >> 8) | (bit_cast::<64, 8>(self.data.val()) << 56);
            }
        }
        if self.valid.val() && self.in_block.q.val() {
            self.left.d.next = self.left.q.val() - 1;
            if self.left.q.val() == 1 {
                self.complete.d.next = true;
                self.in_block.d.next = false;
                self.tags.d.next = self.tags.q.val() >> 1;
                self.group_left.d.next = self.group_left.q.val() - 1;
                if !self.group_left.q.val().any() {
                    self.in_group.d.next = false;
                }
            }
        }
        if self.clear.val() {
            self.in_group.d.next = false;
            self.in_block.d.next = false;
            self.complete.d.next = false;
        }
        self.block_valid.next = self.complete.q.val();
        self.partial.next = self.in_block.q.val();
        self.block.next = bit_cast::<BLOCK_BITS, 64>(self.low.q.val())
            | (bit_cast::<BLOCK_BITS, 64>(self.high.q.val()) << 64)
            | (bit_cast::<BLOCK_BITS, 8>(self.scale.q.val()) << SCALE_AT)
            | (bit_cast::<BLOCK_BITS, 1>(self.tag.q.val().into()) << TAG_AT);
    }
}
