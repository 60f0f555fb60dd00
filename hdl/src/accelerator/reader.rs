//! From the three dense streams of a packed tensor to blocks.

use crate::decoder::BLOCK_BITS;
use crate::prelude::*;

/// Reads a tensor's payload, scale and tag streams (numerics §2) and gives one block a cycle at any mix of FP4 and FP8.
///
/// Payload comes in beats of two 64-bit words, scales and tags in beats of 64 bits. The tensor may begin inside its first beats.
/// It takes no beat that this tensor does not need, so the next tensor's may wait on the streams; and it looks some blocks ahead,
/// so that a stream may pause for a cycle or two without a block coming late.
#[derive(LogicBlock, PortAccess, Default)]
pub struct BlockReader {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A tensor begins in the next cycle: what is left of the last beats is dropped.
    pub start: Signal<In, Bit>,
    /// Words of the first payload beat that precede the tensor.
    pub payload_skip: Signal<In, Bit>,
    /// Bytes of the first scale beat that precede it.
    pub scale_skip: Signal<In, Bits<3>>,
    /// Bits of the first tag beat that precede it.
    pub tag_skip: Signal<In, Bits<6>>,
    /// Blocks of the tensor that have not been given out; 7 stands for seven and more.
    pub left: Signal<In, Bits<3>>,
    /// Payload beat is valid.
    pub payload_valid: Signal<In, Bit>,
    /// Payload beat is taken.
    pub payload_ready: Signal<Out, Bit>,
    /// Two payload words, the first in the low half.
    pub payload_data: Signal<In, Bits<128>>,
    /// Scale beat is valid.
    pub scale_valid: Signal<In, Bit>,
    /// Scale beat is taken.
    pub scale_ready: Signal<Out, Bit>,
    /// Eight scale bytes, the first lowest.
    pub scale_data: Signal<In, Bits<64>>,
    /// Tag beat is valid.
    pub tag_valid: Signal<In, Bit>,
    /// Tag beat is taken.
    pub tag_ready: Signal<Out, Bit>,
    /// 64 tag bits, the first lowest.
    pub tag_data: Signal<In, Bits<64>>,
    /// A block is given out.
    pub block_valid: Signal<Out, Bit>,
    /// It is taken.
    pub block_ready: Signal<In, Bit>,
    /// The block, as on a stream of the array.
    pub block: Signal<Out, Bits<BLOCK_BITS>>,

    // Up to five words, eleven scale bytes and 67 tags; behind what counts they are zero.
    words: DataRegister<Bits<320>>,
    word_count: Register<Bits<3>>,
    skip_word: Register<Bit>,
    scales: DataRegister<Bits<88>>,
    scale_count: Register<Bits<4>>,
    scale_drop: Register<Bits<3>>,
    tags: DataRegister<Bits<67>>,
    tag_count: Register<Bits<7>>,
    tag_drop: Register<Bits<6>>,

    has_tag: Signal<Local, Bit>,
    fp8: Signal<Local, Bit>,
    enough_words: Signal<Local, Bit>,
    has_scale: Signal<Local, Bit>,
    valid: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    left_after: Signal<Local, Bits<3>>,
    next_tag: Signal<Local, Bit>,

    words_after: Signal<Local, Bits<320>>,
    count_after: Signal<Local, Bits<3>>,
    accept_payload: Signal<Local, Bit>,
    arriving: Signal<Local, Bits<320>>,
    word_place: Signal<Local, Bits<9>>,
    known: Signal<Local, Bits<3>>,
    fp4_ahead: Signal<Local, Bits<4>>,
    scales_after: Signal<Local, Bits<88>>,
    scale_count_after: Signal<Local, Bits<4>>,
    scale_place: Signal<Local, Bits<6>>,
    accept_scale: Signal<Local, Bit>,
    drop_tag: Signal<Local, Bit>,
    tags_after: Signal<Local, Bits<67>>,
    tag_count_after: Signal<Local, Bits<7>>,
    accept_tag: Signal<Local, Bit>,
    fp8_parts: Signal<Local, Bits<BLOCK_BITS>>,
}

/// Assembles blocks from the dense streams of a packed tensor (numerics §2): payload words two a beat, scale bytes eight a beat, tag bits 64
/// a beat. One block a cycle at any mix of FP4 and FP8.
///
/// The tensor may begin inside its first beats: `..._skip` says how many words, bytes and bits come before it. No beat is taken that this tensor
/// does not need. It looks some blocks ahead, so that a stream may pause for a cycle or two without a block coming late.
#[kernel]
impl Logic for BlockReader {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            word_count,
            skip_word,
            scale_count,
            scale_drop,
            tag_count,
            tag_drop
        );
        data_registers!(self, clock, words, scales, tags);

        // The block in front.
        self.has_tag.next = self.tag_count.q.val().any() && !self.tag_drop.q.val().any();
        self.fp8.next = self.tags.q.val().get_bit(0);
        self.enough_words.next =
            self.word_count.q.val() > 1 || (self.word_count.q.val().any() && !self.fp8.val());
        self.has_scale.next = self.scale_count.q.val().any() && !self.scale_drop.q.val().any();
        self.valid.next = self.left.val().any()
            && self.has_tag.val()
            && self.enough_words.val()
            && (self.fp8.val() || self.has_scale.val());
        self.block_valid.next = self.valid.val();
        self.take.next = self.valid.val() && self.block_ready.val();
        self.fp8_parts.next =
            bit_cast::<BLOCK_BITS, 8>(self.scales.q.val().get_bits::<8>(0)) << 128;
        if self.fp8.val() {
            self.fp8_parts.next =
                (bit_cast::<BLOCK_BITS, 64>(self.words.q.val().get_bits::<64>(64)) << 64)
                    | (bit_cast::<BLOCK_BITS, 1>(self.fp8.val().into()) << 136);
        }
        self.block.next =
            bit_cast::<BLOCK_BITS, 64>(self.words.q.val().get_bits::<64>(0)) | self.fp8_parts.val();

        // What will be in front in the next cycle.
        self.drop_tag.next = self.tag_count.q.val().any() && self.tag_drop.q.val().any();
        self.left_after.next = self.left.val();
        self.tags_after.next = self.tags.q.val();
        self.tag_count_after.next = self.tag_count.q.val();
        if self.take.val() {
            // Of seven or more, six or more are left, which is all that counts here.
            self.left_after.next = self.left.val() - 1;
        }
        if self.drop_tag.val() || self.take.val() {
            self.tags_after.next = self.tags.q.val() >> 1;
            self.tag_count_after.next = self.tag_count.q.val() - 1;
        }
        self.known.next = self.left_after.val();
        if self.tag_count_after.val() < 7
            && self.tag_count_after.val().get_bits::<3>(0) < self.left_after.val()
        {
            self.known.next = self.tag_count_after.val().get_bits::<3>(0);
        }
        if self.tag_drop.q.val().any() {
            self.known.next = 0.into();
        }
        self.fp4_ahead.next = 0.into();
        for i in 0..7 {
            if self.known.val() > i.to_bits() && !self.tags_after.val().get_bit(i) {
                self.fp4_ahead.next = self.fp4_ahead.val() + 1;
            }
        }
        self.next_tag.next = self.known.val().any() && self.tags_after.val().get_bit(0);

        // Payload. A beat is taken only if blocks that are known to come need a word of it.
        self.words_after.next = self.words.q.val();
        self.count_after.next = self.word_count.q.val();
        if self.take.val() {
            if self.fp8.val() {
                self.words_after.next = self.words.q.val() >> 128;
                self.count_after.next = self.word_count.q.val() - 2;
            } else {
                self.words_after.next = self.words.q.val() >> 64;
                self.count_after.next = self.word_count.q.val() - 1;
            }
        }
        self.accept_payload.next = !self.start.val()
            && self.count_after.val() < 4
            && (self.left_after.val() > self.count_after.val()
                || (self.count_after.val() == 1 && self.next_tag.val()));
        self.payload_ready.next = self.accept_payload.val();
        self.word_count.d.next = self.count_after.val();
        self.arriving.next = bit_cast::<320, 128>(self.payload_data.val());
        if self.skip_word.q.val() {
            self.arriving.next = bit_cast::<320, 64>(self.payload_data.val().get_bits::<64>(64));
        }
        self.word_place.next = bit_cast::<9, 3>(self.count_after.val()) << 6;
        if self.take.val() {
            self.words.d.next = self.words_after.val();
        }
        if self.accept_payload.val() && self.payload_valid.val() {
            self.skip_word.d.next = false;
            self.word_count.d.next = self.count_after.val() + 2;
            if self.skip_word.q.val() {
                self.word_count.d.next = self.count_after.val() + 1;
            }
            self.words.d.next = self.arriving.val();
            if self.count_after.val().any() {
                self.words.d.next =
                    self.words_after.val() | (self.arriving.val() << self.word_place.val());
            }
        }

        // Scales.
        self.scales_after.next = self.scales.q.val();
        self.scale_count_after.next = self.scale_count.q.val();
        if self.scale_count.q.val().any()
            && (self.scale_drop.q.val().any() || (self.take.val() && !self.fp8.val()))
        {
            self.scales_after.next = self.scales.q.val() >> 8;
            self.scale_count_after.next = self.scale_count.q.val() - 1;
        }
        self.accept_scale.next = !self.start.val()
            && self.scale_count_after.val() < 4
            && self.fp4_ahead.val() > self.scale_count_after.val();
        self.scale_ready.next = self.accept_scale.val();
        self.scales.d.next = self.scales_after.val();
        self.scale_count.d.next = self.scale_count_after.val();
        self.scale_place.next = bit_cast::<6, 4>(self.scale_count_after.val()) << 3;
        if self.scale_count.q.val().any() && self.scale_drop.q.val().any() {
            self.scale_drop.d.next = self.scale_drop.q.val() - 1;
        }
        if self.accept_scale.val() && self.scale_valid.val() {
            self.scale_count.d.next = self.scale_count_after.val() + 8;
            self.scales.d.next = bit_cast::<88, 64>(self.scale_data.val());
            if self.scale_count_after.val().any() {
                self.scales.d.next = self.scales_after.val()
                    | (bit_cast::<88, 64>(self.scale_data.val()) << self.scale_place.val());
            }
        }

        // Tags.
        self.accept_tag.next = !self.start.val()
            && self.tag_count_after.val() < 4
            && bit_cast::<7, 3>(self.left_after.val()) > self.tag_count_after.val();
        self.tag_ready.next = self.accept_tag.val();
        self.tags.d.next = self.tags_after.val();
        self.tag_count.d.next = self.tag_count_after.val();
        if self.drop_tag.val() {
            self.tag_drop.d.next = self.tag_drop.q.val() - 1;
        }
        if self.accept_tag.val() && self.tag_valid.val() {
            self.tag_count.d.next = self.tag_count_after.val() + 64;
            self.tags.d.next = bit_cast::<67, 64>(self.tag_data.val());
            if self.tag_count_after.val().any() {
                self.tags.d.next = self.tags_after.val()
                    | (bit_cast::<67, 64>(self.tag_data.val())
                        << self.tag_count_after.val().get_bits::<2>(0));
            }
        }

        if self.start.val() {
            self.word_count.d.next = 0.into();
            self.skip_word.d.next = self.payload_skip.val();
            self.scale_count.d.next = 0.into();
            self.scale_drop.d.next = self.scale_skip.val();
            self.tag_count.d.next = 0.into();
            self.tag_drop.d.next = self.tag_skip.val();
        }
    }
}
