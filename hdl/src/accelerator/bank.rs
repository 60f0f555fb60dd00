//! On-chip memory of packed blocks.

use crate::decoder::{BLOCK_BITS, SCALE_BIT, TAG_BIT};
use crate::memory::{ADDRESS, Ram};
use crate::prelude::*;

/// Two halves of packed blocks in the dense layout of numerics §2: one is read while the other is filled.
///
/// Payload words lie in two memories, the even and the odd ones, so that the two words of an FP8 block are read in one cycle
/// wherever they begin. Writing and reading take one block a cycle at any mix of FP4 and FP8.
#[derive(LogicBlock, PortAccess)]
pub struct PackedBank {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Write a block.
    pub write: Signal<In, Bit>,
    /// The half to write to.
    pub write_half: Signal<In, Bit>,
    /// This block is the first in its half.
    pub write_first: Signal<In, Bit>,
    /// The block, as on a stream of the array.
    pub write_block: Signal<In, Bits<BLOCK_BITS>>,
    /// Its payload words are exchanged; an FP4 block's then is the high one.
    pub write_exchanged: Signal<In, Bit>,
    /// First stage of a read: the block's tag.
    pub read_tag: Signal<In, Bit>,
    /// Number of the block in its half.
    pub read_index: Signal<In, Bits<ADDRESS>>,
    /// The half it is in.
    pub read_half: Signal<In, Bit>,
    /// Second stage, at least a cycle later: its scale and payload. Blocks are read in the order in which they were written.
    pub read_block: Signal<In, Bit>,
    /// It is the first in its half.
    pub block_first: Signal<In, Bit>,
    /// The half it is in.
    pub block_half: Signal<In, Bit>,
    /// The block that the last second stage read.
    pub block: Signal<Out, Bits<BLOCK_BITS>>,

    even: Ram<64>,
    odd: Ram<64>,
    scales: Ram<8>,
    tags: Ram<1>,
    half: Constant<Bits<ADDRESS>>,

    // Writing.
    write_fp8: Signal<Local, Bit>,
    write_offset: Signal<Local, Bits<ADDRESS>>,
    write_word: Signal<Local, Bits<ADDRESS>>,
    write_scale: Signal<Local, Bits<ADDRESS>>,
    write_index: Signal<Local, Bits<ADDRESS>>,
    write_odd: Signal<Local, Bit>,
    low_word: Signal<Local, Bits<64>>,
    high_word: Signal<Local, Bits<64>>,
    write_word_after: AddCarry<ADDRESS, 17>,
    write_scale_after: AddCarry<ADDRESS, 17>,
    word_written: DataRegister<Bits<ADDRESS>>,
    scale_written: DataRegister<Bits<ADDRESS>>,
    block_written: DataRegister<Bits<ADDRESS>>,

    // Reading.
    fp8: Signal<Local, Bit>,
    tag_offset: Signal<Local, Bits<ADDRESS>>,
    block_offset: Signal<Local, Bits<ADDRESS>>,
    word: Signal<Local, Bits<ADDRESS>>,
    scale: Signal<Local, Bits<ADDRESS>>,
    word_after: AddCarry<ADDRESS, 17>,
    scale_after: AddCarry<ADDRESS, 17>,
    next_word: DataRegister<Bits<ADDRESS>>,
    next_scale: DataRegister<Bits<ADDRESS>>,
    begins_odd: DataRegister<Bit>,
    block_fp8: DataRegister<Bit>,
    first_word: Signal<Local, Bits<64>>,
    second_word: Signal<Local, Bits<64>>,
    tag_bits: Signal<Local, Bits<BLOCK_BITS>>,
}

impl PackedBank {
    /// A bank whose halves hold `blocks` blocks each, even if all are FP8; a power of two.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self {
            clock: Default::default(),
            write: Default::default(),
            write_half: Default::default(),
            write_first: Default::default(),
            write_block: Default::default(),
            write_exchanged: Default::default(),
            read_tag: Default::default(),
            read_index: Default::default(),
            read_half: Default::default(),
            read_block: Default::default(),
            block_first: Default::default(),
            block_half: Default::default(),
            block: Default::default(),
            even: Ram::new(2 * blocks),
            odd: Ram::new(2 * blocks),
            scales: Ram::new(2 * blocks),
            tags: Ram::new(2 * blocks),
            half: Constant::new((blocks as u64).into()),
            write_fp8: Default::default(),
            write_offset: Default::default(),
            write_word: Default::default(),
            write_scale: Default::default(),
            write_index: Default::default(),
            write_odd: Default::default(),
            low_word: Default::default(),
            high_word: Default::default(),
            write_word_after: Default::default(),
            write_scale_after: Default::default(),
            word_written: Default::default(),
            scale_written: Default::default(),
            block_written: Default::default(),
            fp8: Default::default(),
            tag_offset: Default::default(),
            block_offset: Default::default(),
            word: Default::default(),
            scale: Default::default(),
            word_after: Default::default(),
            scale_after: Default::default(),
            next_word: Default::default(),
            next_scale: Default::default(),
            begins_odd: Default::default(),
            block_fp8: Default::default(),
            first_word: Default::default(),
            second_word: Default::default(),
            tag_bits: Default::default(),
        }
    }
}

/// Memory of packed blocks in two halves, dense as in numerics §2: 64-bit payload words, one for an FP4 block and two
/// for an FP8 block; scale bytes of FP4 blocks; tag bits. One block a cycle in, one out.
///
/// A half holds HALF blocks even if all are FP8, a power of two from 2 to 2^14. Blocks are written from `write_first` on and read in the same
/// order, in two stages: first the tag, at least a cycle later scale and payload.
#[kernel]
impl Logic for PackedBank {
    fn update(&mut self) {
        data_registers!(
            self,
            clock,
            word_written,
            scale_written,
            block_written,
            next_word,
            next_scale,
            begins_odd,
            block_fp8
        );
        self.even.clock.next = self.clock.val();
        self.odd.clock.next = self.clock.val();
        self.scales.clock.next = self.clock.val();
        self.tags.clock.next = self.clock.val();

        // Writing. A half's place is a bit of the address above those of the words, so that `|` adds it.
        self.write_fp8.next = self.write_block.val().get_bit(TAG_BIT);
        self.write_offset.next = 0.into();
        if self.write_half.val() {
            self.write_offset.next = self.half.val();
        }
        self.write_word.next = self.word_written.q.val();
        self.write_scale.next = self.scale_written.q.val();
        self.write_index.next = self.block_written.q.val();
        if self.write_first.val() {
            self.write_word.next = 0.into();
            self.write_scale.next = 0.into();
            self.write_index.next = 0.into();
        }
        self.write_odd.next = self.write_word.val().get_bit(0);
        self.low_word.next = self.write_block.val().get_bits::<64>(0);
        self.high_word.next = self.write_block.val().get_bits::<64>(64);
        self.even.write.next = self.write.val() && (!self.write_odd.val() || self.write_fp8.val());
        self.even.write_address.next = self.write_offset.val() | ((self.write_word.val() + 1) >> 1);
        self.odd.write.next = self.write.val() && (self.write_odd.val() || self.write_fp8.val());
        self.odd.write_address.next = self.write_offset.val() | (self.write_word.val() >> 1);
        self.even.write_data.next = self.low_word.val();
        self.odd.write_data.next = self.high_word.val();
        if self.write_odd.val() ^ self.write_exchanged.val() {
            self.even.write_data.next = self.high_word.val();
            self.odd.write_data.next = self.low_word.val();
        }
        self.scales.write.next = self.write.val() && !self.write_fp8.val();
        self.scales.write_address.next = self.write_offset.val() | self.write_scale.val();
        self.scales.write_data.next = self.write_block.val().get_bits::<8>(SCALE_BIT);
        self.tags.write.next = self.write.val();
        self.tags.write_address.next = self.write_offset.val() | self.write_index.val();
        self.tags.write_data.next = self.write_fp8.val().into();
        self.write_word_after.a.next = self.write_word.val();
        self.write_word_after.b.next = 1.into();
        self.write_word_after.carry.next = self.write_fp8.val();
        self.write_scale_after.a.next = self.write_scale.val();
        self.write_scale_after.b.next = 0.into();
        self.write_scale_after.carry.next = !self.write_fp8.val();
        if self.write.val() {
            self.block_written.d.next = self.write_index.val() + 1;
            self.scale_written.d.next = self.write_scale_after.sum.val().get_bits::<ADDRESS>(0);
            self.word_written.d.next = self.write_word_after.sum.val().get_bits::<ADDRESS>(0);
        }

        // Reading: the tag says how far the next block's words are.
        self.tag_offset.next = 0.into();
        if self.read_half.val() {
            self.tag_offset.next = self.half.val();
        }
        self.tags.read.next = self.read_tag.val();
        self.tags.read_address.next = self.tag_offset.val() | self.read_index.val();
        self.fp8.next = self.tags.read_data.val().any();
        self.block_offset.next = 0.into();
        if self.block_half.val() {
            self.block_offset.next = self.half.val();
        }
        self.word.next = self.next_word.q.val();
        self.scale.next = self.next_scale.q.val();
        if self.block_first.val() {
            self.word.next = 0.into();
            self.scale.next = 0.into();
        }
        self.even.read.next =
            self.read_block.val() && (!self.word.val().get_bit(0) || self.fp8.val());
        self.even.read_address.next = self.block_offset.val() | ((self.word.val() + 1) >> 1);
        self.odd.read.next =
            self.read_block.val() && (self.word.val().get_bit(0) || self.fp8.val());
        self.odd.read_address.next = self.block_offset.val() | (self.word.val() >> 1);
        self.scales.read.next = self.read_block.val() && !self.fp8.val();
        self.scales.read_address.next = self.block_offset.val() | self.scale.val();
        self.word_after.a.next = self.word.val();
        self.word_after.b.next = 1.into();
        self.word_after.carry.next = self.fp8.val();
        self.scale_after.a.next = self.scale.val();
        self.scale_after.b.next = 0.into();
        self.scale_after.carry.next = !self.fp8.val();
        if self.read_block.val() {
            self.begins_odd.d.next = self.word.val().get_bit(0);
            self.block_fp8.d.next = self.fp8.val();
            self.next_word.d.next = self.word_after.sum.val().get_bits::<ADDRESS>(0);
            self.next_scale.d.next = self.scale_after.sum.val().get_bits::<ADDRESS>(0);
        }

        self.first_word.next = self.even.read_data.val();
        self.second_word.next = self.odd.read_data.val();
        if self.begins_odd.q.val() {
            self.first_word.next = self.odd.read_data.val();
            self.second_word.next = self.even.read_data.val();
        }
        self.tag_bits.next = bit_cast::<BLOCK_BITS, 8>(self.scales.read_data.val()) << 128;
        if self.block_fp8.q.val() {
            self.tag_bits.next = (bit_cast::<BLOCK_BITS, 64>(self.second_word.val()) << 64)
                | (bit_cast::<BLOCK_BITS, 1>(self.block_fp8.q.val().into()) << 136);
        }
        self.block.next = bit_cast::<BLOCK_BITS, 64>(self.first_word.val()) | self.tag_bits.val();
    }
}
