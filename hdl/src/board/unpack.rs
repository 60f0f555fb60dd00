//! From the bytes of a frame to blocks.

use crate::prelude::*;
use golden::format::BLOCK;

/// Bits of a word that are no payload: scale and tag.
pub(super) const SCALE_AND_TAG: usize = 9;

/// Blocks from bytes: groups of up to eight, each a byte of tags and then the blocks, 9 or 16 bytes each.
///
/// With its bit of the tags a block takes exactly what numerics §2 gives it: 73 or 129 bits. It leaves as the words that the memories hold, each what the array
/// multiplies in a step: `W` bits, of which `P` are payload, for 16 lanes 137 and 128, and for eight, which take a block in two steps, 73 and 64. `L` is half of `P`.
#[derive(LogicBlock, PortAccess)]
pub struct BlockUnpacker<const L: usize, const P: usize, const W: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Begin with a group; drops what has come of a block.
    pub clear: Signal<In, Bit>,
    /// A byte has come.
    pub valid: Signal<In, Bit>,
    /// It.
    pub data: Signal<In, Bits<8>>,
    /// A word is complete; for one cycle.
    pub word_valid: Signal<Out, Bit>,
    /// It: payload, scale, tag, the first lowest. The upper half of an FP4 word's payload means nothing, nor does an FP8 word's scale.
    pub word: Signal<Out, Bits<W>>,
    /// Some bytes of a block have come.
    pub partial: Signal<Out, Bit>,

    in_group: DataRegister<Bit>,
    in_block: DataRegister<Bit>,
    complete: DataRegister<Bit>,
    tags: DataRegister<Bits<8>>,
    group_left: DataRegister<Bits<3>>,
    left: DataRegister<Bits<4>>,
    words_left: DataRegister<Bits<1>>,
    tag: DataRegister<Bit>,
    scale: DataRegister<Bits<8>>,
    low: DataRegister<Bits<L>>,
    high: DataRegister<Bits<L>>,
    fp8_bytes: Constant<Bits<4>>,
    fp4_bytes: Constant<Bits<4>>,
    further_words: Constant<Bits<1>>,
    /// Places, as shifts.
    top_byte: Constant<Bits<8>>,
    high_at: Constant<Bits<8>>,
    label_at: Constant<Bits<8>>,
    starts: Signal<Local, Bit>,
    payload: Signal<Local, Bit>,
    fp8: Signal<Local, Bit>,
    low_byte: Signal<Local, Bits<8>>,
    low_place: Signal<Local, Bits<L>>,
    high_place: Signal<Local, Bits<L>>,
    label: Signal<Local, Bits<SCALE_AND_TAG>>,
}

impl<const L: usize, const P: usize, const W: usize> Default for BlockUnpacker<L, P, W> {
    fn default() -> Self {
        const {
            assert!(P == 2 * L && W == P + SCALE_AND_TAG && (L == 64 || L == 32));
        }
        // A word's bytes: of FP8 those of its elements, of FP4 half as many.
        let fp8_bytes = P as u64 / 8;
        let words = (BLOCK * 8 / P) as u64;
        Self {
            clock: Default::default(),
            clear: Default::default(),
            valid: Default::default(),
            data: Default::default(),
            word_valid: Default::default(),
            word: Default::default(),
            partial: Default::default(),
            in_group: Default::default(),
            in_block: Default::default(),
            complete: Default::default(),
            tags: Default::default(),
            group_left: Default::default(),
            left: Default::default(),
            words_left: Default::default(),
            tag: Default::default(),
            scale: Default::default(),
            low: Default::default(),
            high: Default::default(),
            fp8_bytes: Constant::new((fp8_bytes - 1).into()),
            fp4_bytes: Constant::new((fp8_bytes / 2).into()),
            further_words: Constant::new((words - 1).into()),
            top_byte: Constant::new((L as u64 - 8).into()),
            high_at: Constant::new((L as u64).into()),
            label_at: Constant::new((P as u64).into()),
            starts: Default::default(),
            payload: Default::default(),
            fp8: Default::default(),
            low_byte: Default::default(),
            low_place: Default::default(),
            high_place: Default::default(),
            label: Default::default(),
        }
    }
}

/// Groups of blocks as a frame carries them, to one word of the memories at a time.
///
/// Payload bytes are shifted in from the top: those of an FP8 word through both halves, those of an FP4 word into the low one.
#[kernel]
impl<const L: usize, const P: usize, const W: usize> Logic for BlockUnpacker<L, P, W> {
    fn update(&mut self) {
        data_registers!(
            self, clock, in_group, in_block, complete, tags, group_left, left, words_left, tag,
            scale, low, high
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
            // An FP8 block begins with payload, an FP4 block with its scale.
            self.in_block.d.next = true;
            self.tag.d.next = self.fp8.val();
            self.words_left.d.next = self.further_words.val();
            self.left.d.next = self.fp8_bytes.val();
            if !self.fp8.val() {
                self.scale.d.next = self.data.val();
                self.left.d.next = self.fp4_bytes.val();
            }
        }
        self.low_byte.next = self.data.val();
        if self.fp8.val() {
            self.low_byte.next = self.high.q.val().get_bits::<8>(0);
        }
        self.low_place.next = bit_cast::<L, 8>(self.low_byte.val()) << self.top_byte.val();
        self.high_place.next = bit_cast::<L, 8>(self.data.val()) << self.top_byte.val();
        if self.payload.val() {
            self.low.d.next = (self.low.q.val() >> 8) | self.low_place.val();
            if self.fp8.val() {
                self.high.d.next = (self.high.q.val() >> 8) | self.high_place.val();
            }
        }
        if self.valid.val() && self.in_block.q.val() {
            self.left.d.next = self.left.q.val() - 1;
            if self.left.q.val() == 1 {
                self.complete.d.next = true;
                self.words_left.d.next = self.words_left.q.val() - 1;
                // A word's first byte is payload from the second word on.
                self.left.d.next = self.fp4_bytes.val();
                if self.fp8.val() {
                    self.left.d.next = self.fp8_bytes.val() + 1;
                }
                if !self.words_left.q.val().any() {
                    self.in_block.d.next = false;
                    self.tags.d.next = self.tags.q.val() >> 1;
                    self.group_left.d.next = self.group_left.q.val() - 1;
                    if !self.group_left.q.val().any() {
                        self.in_group.d.next = false;
                    }
                }
            }
        }
        if self.clear.val() {
            self.in_group.d.next = false;
            self.in_block.d.next = false;
            self.complete.d.next = false;
        }
        self.word_valid.next = self.complete.q.val();
        self.partial.next = self.in_block.q.val();
        self.label.next = bit_cast::<SCALE_AND_TAG, 8>(self.scale.q.val())
            | (bit_cast::<SCALE_AND_TAG, 1>(self.tag.q.val().into()) << 8);
        self.word.next = bit_cast::<W, L>(self.low.q.val())
            | (bit_cast::<W, L>(self.high.q.val()) << self.high_at.val())
            | (bit_cast::<W, SCALE_AND_TAG>(self.label.val()) << self.label_at.val());
    }
}
