//! From the three dense streams of a packed tensor to blocks.

use crate::decoder::BLOCK_BITS;
use crate::memory::LutRam;
use crate::prelude::*;

/// Reads a tensor's payload, scale and tag streams (numerics §2) and gives one block a cycle at any mix of FP4 and FP8.
///
/// Payload comes in beats of two 64-bit words, scales and tags in beats of 64 bits. The tensor may begin inside its first beats.
/// It takes no beat that this tensor does not need, so the next tensor's may wait on the streams; and it looks some blocks ahead,
/// so that a stream may pause for a cycle or two without a block coming late.
#[derive(LogicBlock, PortAccess)]
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
    /// The block: as on a stream of the array, but that the payload's words may be exchanged, and that an FP4 block's other word has no meaning.
    pub block: Signal<Out, Bits<BLOCK_BITS>>,
    /// They are: the first word is in the high half.
    pub exchanged: Signal<Out, Bit>,

    // Payload: the even and the odd words of up to three beats, of which up to five words count.
    even: LutRam<64, 2>,
    odd: LutRam<64, 2>,
    word_count: Register<Bits<3>>,
    front_word: Register<Bits<3>>,
    next_beat: Register<Bits<2>>,
    skip_word: Register<Bit>,
    // Scales: two beats, of which up to eleven bytes count.
    scales: [DataRegister<Bits<64>>; 2],
    scale_count: Register<Bits<4>>,
    front_scale: Register<Bits<4>>,
    next_scales: Register<Bit>,
    skip_scales: Register<Bits<3>>,
    // Tags: a beat, and up to three that were left when it came.
    tags: DataRegister<Bits<64>>,
    old_tags: DataRegister<Bits<3>>,
    old_count: Register<Bits<2>>,
    tag_count: Register<Bits<7>>,
    tag_drop: Register<Bits<6>>,

    has_tag: Signal<Local, Bit>,
    fp8: Signal<Local, Bit>,
    enough_words: Signal<Local, Bit>,
    valid: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    scale_mux: MuxN<Bits<8>, 4>,
    scale_or_tag: Signal<Local, Bits<BLOCK_BITS>>,

    dropping: Signal<Local, Bit>,
    drop_tag: Signal<Local, Bit>,
    next_tag: Signal<Local, Bit>,
    tags_now: Signal<Local, Bits<8>>,
    tags_after: Signal<Local, Bits<7>>,
    tag_count_after: Signal<Local, Bits<7>>,
    left_above: Signal<Local, Bits<7>>,
    tags_above: Signal<Local, Bits<7>>,
    fp4: Signal<Local, Bits<7>>,
    carries: [Signal<Local, Bit>; 3],
    sums: [Signal<Local, Bit>; 3],
    fp4_ahead: Signal<Local, Bits<3>>,

    count_after: Signal<Local, Bits<3>>,
    accept_payload: Signal<Local, Bit>,
    scale_count_after: Signal<Local, Bits<4>>,
    use_scale: Signal<Local, Bit>,
    accept_scale: Signal<Local, Bit>,
    accept_tag: Signal<Local, Bit>,
}

impl Default for BlockReader {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            payload_skip: Default::default(),
            scale_skip: Default::default(),
            tag_skip: Default::default(),
            left: Default::default(),
            payload_valid: Default::default(),
            payload_ready: Default::default(),
            payload_data: Default::default(),
            scale_valid: Default::default(),
            scale_ready: Default::default(),
            scale_data: Default::default(),
            tag_valid: Default::default(),
            tag_ready: Default::default(),
            tag_data: Default::default(),
            block_valid: Default::default(),
            block_ready: Default::default(),
            block: Default::default(),
            exchanged: Default::default(),
            even: Default::default(),
            odd: Default::default(),
            word_count: Default::default(),
            front_word: Default::default(),
            next_beat: Default::default(),
            skip_word: Default::default(),
            scales: Default::default(),
            scale_count: Default::default(),
            front_scale: Default::default(),
            next_scales: Default::default(),
            skip_scales: Default::default(),
            tags: Default::default(),
            old_tags: Default::default(),
            old_count: Default::default(),
            tag_count: Default::default(),
            tag_drop: Default::default(),
            has_tag: Default::default(),
            fp8: Default::default(),
            enough_words: Default::default(),
            valid: Default::default(),
            take: Default::default(),
            scale_mux: MuxN::new(16),
            scale_or_tag: Default::default(),
            dropping: Default::default(),
            drop_tag: Default::default(),
            next_tag: Default::default(),
            tags_now: Default::default(),
            tags_after: Default::default(),
            tag_count_after: Default::default(),
            left_above: Default::default(),
            tags_above: Default::default(),
            fp4: Default::default(),
            carries: Default::default(),
            sums: Default::default(),
            fp4_ahead: Default::default(),
            count_after: Default::default(),
            accept_payload: Default::default(),
            scale_count_after: Default::default(),
            use_scale: Default::default(),
            accept_scale: Default::default(),
            accept_tag: Default::default(),
        }
    }
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
            front_word,
            next_beat,
            skip_word,
            scale_count,
            front_scale,
            next_scales,
            skip_scales,
            old_count,
            tag_count,
            tag_drop
        );
        data_registers!(self, clock, scales[0], scales[1], tags, old_tags);
        self.even.clock.next = self.clock.val();
        self.odd.clock.next = self.clock.val();

        // The block in front.
        match self.old_count.q.val().index() {
            1 => {
                self.tags_now.next = (self.tags.q.val().get_bits::<8>(0) << 1)
                    | bit_cast::<8, 1>(self.old_tags.q.val().get_bits::<1>(0))
            }
            2 => {
                self.tags_now.next = (self.tags.q.val().get_bits::<8>(0) << 2)
                    | bit_cast::<8, 2>(self.old_tags.q.val().get_bits::<2>(0))
            }
            3 => {
                self.tags_now.next = (self.tags.q.val().get_bits::<8>(0) << 3)
                    | bit_cast::<8, 3>(self.old_tags.q.val())
            }
            _ => self.tags_now.next = self.tags.q.val().get_bits::<8>(0),
        }
        self.dropping.next = self.tag_drop.q.val().any();
        self.has_tag.next = self.tag_count.q.val().any() && !self.dropping.val();
        self.fp8.next = self.tags_now.val().get_bit(0);
        self.enough_words.next = self.word_count.q.val().get_bits::<2>(1).any()
            || (self.word_count.q.val().get_bit(0) && !self.fp8.val());
        self.valid.next = self.left.val().any()
            && self.has_tag.val()
            && self.enough_words.val()
            && (self.fp8.val() || self.scale_count.q.val().any());
        self.block_valid.next = self.valid.val();
        self.take.next = self.valid.val() && self.block_ready.val();
        self.odd.read_address.next = self.front_word.q.val().get_bits::<2>(1);
        self.even.read_address.next = self.front_word.q.val().get_bits::<2>(1);
        if self.front_word.q.val().get_bit(0) {
            self.even.read_address.next = self.front_word.q.val().get_bits::<2>(1) + 1;
        }
        self.scale_mux.select.next = self.front_scale.q.val();
        for i in 0..8 {
            self.scale_mux.a[i].next = self.scales[0].q.val().get_bits::<8>(8 * i);
            self.scale_mux.a[i + 8].next = self.scales[1].q.val().get_bits::<8>(8 * i);
        }
        self.scale_or_tag.next = bit_cast::<BLOCK_BITS, 8>(self.scale_mux.y.val()) << 128;
        if self.fp8.val() {
            self.scale_or_tag.next = bit_cast::<BLOCK_BITS, 1>(self.fp8.val().into()) << 136;
        }
        self.block.next = bit_cast::<BLOCK_BITS, 64>(self.even.read_data.val())
            | (bit_cast::<BLOCK_BITS, 64>(self.odd.read_data.val()) << 64)
            | self.scale_or_tag.val();
        self.exchanged.next = self.front_word.q.val().get_bit(0);

        // What will be in front in the next cycle. Bit i of `..._above`: there are more than i. Comparators would be chains of carries.
        match self.left.val().index() {
            1 => self.left_above.next = 0x01.into(),
            2 => self.left_above.next = 0x03.into(),
            3 => self.left_above.next = 0x07.into(),
            4 => self.left_above.next = 0x0F.into(),
            5 => self.left_above.next = 0x1F.into(),
            6 => self.left_above.next = 0x3F.into(),
            7 => self.left_above.next = 0x7F.into(),
            _ => self.left_above.next = 0.into(),
        }
        match self.tag_count.q.val().get_bits::<3>(0).index() {
            1 => self.tags_above.next = 0x01.into(),
            2 => self.tags_above.next = 0x03.into(),
            3 => self.tags_above.next = 0x07.into(),
            4 => self.tags_above.next = 0x0F.into(),
            5 => self.tags_above.next = 0x1F.into(),
            6 => self.tags_above.next = 0x3F.into(),
            7 => self.tags_above.next = 0x7F.into(),
            _ => self.tags_above.next = 0.into(),
        }
        self.tags_after.next = self.tags_now.val().get_bits::<7>(0);
        if self.take.val() {
            // Of seven or more, six or more are left, which is all that counts here.
            self.left_above.next = self.left_above.val() >> 1;
            self.tags_above.next = self.tags_above.val() >> 1;
        }
        self.drop_tag.next = self.dropping.val() && self.tag_count.q.val().any();
        if self.take.val() || self.drop_tag.val() {
            self.tags_after.next = self.tags_now.val().get_bits::<7>(1);
        }
        if self.tag_count.q.val().get_bits::<4>(3).any() {
            self.tags_above.next = 0x7F.into();
        }
        self.fp4.next = self.left_above.val() & self.tags_above.val() & !self.tags_after.val();
        self.next_tag.next = self.left_above.val().get_bit(0)
            && self.tags_above.val().get_bit(0)
            && self.tags_after.val().get_bit(0);
        if self.dropping.val() {
            self.fp4.next = 0.into();
            self.next_tag.next = false;
        }
        // How many of the seven are FP4: full adders.
        for i in 0..2 {
            self.sums[i].next = self.fp4.val().get_bit(3 * i)
                ^ self.fp4.val().get_bit(3 * i + 1)
                ^ self.fp4.val().get_bit(3 * i + 2);
            self.carries[i].next = (self.fp4.val().get_bit(3 * i)
                && self.fp4.val().get_bit(3 * i + 1))
                || (self.fp4.val().get_bit(3 * i + 2)
                    && (self.fp4.val().get_bit(3 * i) || self.fp4.val().get_bit(3 * i + 1)));
        }
        self.sums[2].next = self.sums[0].val() ^ self.sums[1].val() ^ self.fp4.val().get_bit(6);
        self.carries[2].next = (self.sums[0].val() && self.sums[1].val())
            || (self.fp4.val().get_bit(6) && (self.sums[0].val() || self.sums[1].val()));
        self.fp4_ahead.next = bit_cast::<3, 1>(self.sums[2].val().into())
            | (bit_cast::<3, 1>(
                (self.carries[0].val() ^ self.carries[1].val() ^ self.carries[2].val()).into(),
            ) << 1)
            | (bit_cast::<3, 1>(
                ((self.carries[0].val() && self.carries[1].val())
                    || (self.carries[2].val() && (self.carries[0].val() || self.carries[1].val())))
                .into(),
            ) << 2);

        // Payload. A beat is taken only if blocks that are known to come need a word of it.
        self.count_after.next = self.word_count.q.val();
        if self.take.val() {
            if self.fp8.val() {
                self.count_after.next = self.word_count.q.val() - 2;
                self.front_word.d.next = self.front_word.q.val() + 2;
            } else {
                self.count_after.next = self.word_count.q.val() - 1;
                self.front_word.d.next = self.front_word.q.val() + 1;
            }
        }
        match self.count_after.val().index() {
            0 => self.accept_payload.next = self.left_above.val().get_bit(0),
            1 => self.accept_payload.next = self.left_above.val().get_bit(1) || self.next_tag.val(),
            2 => self.accept_payload.next = self.left_above.val().get_bit(2),
            3 => self.accept_payload.next = self.left_above.val().get_bit(3),
            _ => self.accept_payload.next = false,
        }
        if self.start.val() {
            self.accept_payload.next = false;
        }
        self.payload_ready.next = self.accept_payload.val();
        self.even.write.next = self.accept_payload.val() && self.payload_valid.val();
        self.even.write_address.next = self.next_beat.q.val();
        self.even.write_data.next = self.payload_data.val().get_bits::<64>(0);
        self.odd.write.next = self.accept_payload.val() && self.payload_valid.val();
        self.odd.write_address.next = self.next_beat.q.val();
        self.odd.write_data.next = self.payload_data.val().get_bits::<64>(64);
        self.word_count.d.next = self.count_after.val();
        if self.accept_payload.val() && self.payload_valid.val() {
            self.skip_word.d.next = false;
            self.next_beat.d.next = self.next_beat.q.val() + 1;
            self.word_count.d.next = self.count_after.val() + 2;
            if self.skip_word.q.val() {
                // No word is there before a tensor's first beat.
                self.word_count.d.next = 1.into();
            }
        }

        // Scales.
        self.use_scale.next = self.take.val() && !self.fp8.val();
        self.scale_count_after.next = self.scale_count.q.val();
        if self.use_scale.val() {
            self.scale_count_after.next = self.scale_count.q.val() - 1;
            self.front_scale.d.next = self.front_scale.q.val() + 1;
        }
        match self.scale_count_after.val().index() {
            0 => self.accept_scale.next = self.fp4_ahead.val().any(),
            1 => self.accept_scale.next = self.fp4_ahead.val().get_bits::<2>(1).any(),
            2 => {
                self.accept_scale.next = self.fp4_ahead.val().get_bit(2)
                    || (self.fp4_ahead.val().get_bit(1) && self.fp4_ahead.val().get_bit(0))
            }
            3 => self.accept_scale.next = self.fp4_ahead.val().get_bit(2),
            _ => self.accept_scale.next = false,
        }
        if self.start.val() {
            self.accept_scale.next = false;
        }
        self.scale_ready.next = self.accept_scale.val();
        self.scale_count.d.next = self.scale_count_after.val();
        if self.accept_scale.val() && self.scale_valid.val() {
            self.next_scales.d.next = !self.next_scales.q.val();
            if self.next_scales.q.val() {
                self.scales[1].d.next = self.scale_data.val();
            } else {
                self.scales[0].d.next = self.scale_data.val();
            }
            self.skip_scales.d.next = 0.into();
            self.scale_count.d.next = self.scale_count_after.val() | 8;
            if self.skip_scales.q.val().any() {
                // None is there before a tensor's first beat.
                self.scale_count.d.next = bit_cast::<4, 3>(!self.skip_scales.q.val() + 1);
            }
        }

        // Tags. Those that are left when a beat comes go in front of it.
        self.tag_count_after.next = self.tag_count.q.val();
        if self.take.val() || self.drop_tag.val() {
            self.tag_count_after.next = self.tag_count.q.val() - 1;
            if self.old_count.q.val().any() {
                self.old_count.d.next = self.old_count.q.val() - 1;
                self.old_tags.d.next = self.old_tags.q.val() >> 1;
            } else {
                self.tags.d.next = self.tags.q.val() >> 1;
            }
        }
        if self.drop_tag.val() {
            self.tag_drop.d.next = self.tag_drop.q.val() - 1;
        }
        match self.tag_count_after.val().get_bits::<2>(0).index() {
            0 => self.accept_tag.next = self.left_above.val().get_bit(0),
            1 => self.accept_tag.next = self.left_above.val().get_bit(1),
            2 => self.accept_tag.next = self.left_above.val().get_bit(2),
            _ => self.accept_tag.next = self.left_above.val().get_bit(3),
        }
        if self.start.val() || self.tag_count_after.val().get_bits::<5>(2).any() {
            self.accept_tag.next = false;
        }
        self.tag_ready.next = self.accept_tag.val();
        self.tag_count.d.next = self.tag_count_after.val();
        if self.accept_tag.val() && self.tag_valid.val() {
            self.tag_count.d.next = self.tag_count_after.val() | 64;
            self.tags.d.next = self.tag_data.val();
            self.old_tags.d.next = self.tags_after.val().get_bits::<3>(0);
            self.old_count.d.next = self.tag_count_after.val().get_bits::<2>(0);
        }

        if self.start.val() {
            self.word_count.d.next = 0.into();
            self.front_word.d.next = bit_cast::<3, 1>(self.payload_skip.val().into());
            self.next_beat.d.next = 0.into();
            self.skip_word.d.next = self.payload_skip.val();
            self.scale_count.d.next = 0.into();
            self.front_scale.d.next = bit_cast::<4, 3>(self.scale_skip.val());
            self.next_scales.d.next = false;
            self.skip_scales.d.next = self.scale_skip.val();
            self.old_count.d.next = 0.into();
            self.tag_count.d.next = 0.into();
            self.tag_drop.d.next = self.tag_skip.val();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 24
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }
    }

    /// Beats of `per` items of `width` bits, the first lowest, behind `skip` others; whatever pads the last.
    fn beats(
        items: &[u64],
        skip: usize,
        per: usize,
        width: usize,
        random: &mut Random,
    ) -> Vec<u128> {
        let mut all: Vec<u64> = (0..skip).map(|_| random.next()).collect();
        all.extend(items);
        while !all.len().is_multiple_of(per) {
            all.push(random.next());
        }
        all.chunks(per)
            .map(|chunk| {
                chunk.iter().enumerate().fold(0, |beat, (i, item)| {
                    beat | (u128::from(*item) & ((1 << width) - 1)) << (i * width)
                })
            })
            .collect()
    }

    /// Reads one tensor and checks its blocks, and that exactly its beats were taken. Returns the cycles from its first block to its last.
    fn read(reader: &mut BlockReader, random: &mut Random, stalls: u64) -> (usize, usize) {
        let blocks = 1 + random.below(90) as usize;
        let fp8_share = random.below(5);
        let tags: Vec<u64> = (0..blocks)
            .map(|_| u64::from(random.below(4) < fp8_share))
            .collect();
        let fp8 = tags.iter().sum::<u64>() as usize;
        let words: Vec<u64> = (0..blocks + fp8)
            .map(|_| random.next() << 32 ^ random.next())
            .collect();
        let scales: Vec<u64> = (0..blocks - fp8).map(|_| random.below(256)).collect();
        let skips = [
            random.below(2) as usize,
            random.below(8) as usize,
            random.below(64) as usize,
        ];
        let streams = [
            beats(&words, skips[0], 2, 64, random),
            beats(&scales, skips[1], 8, 8, random),
            beats(&tags, skips[2], 64, 1, random),
        ];
        reader.start.next = true;
        reader.payload_skip.next = skips[0] == 1;
        reader.scale_skip.next = (skips[1] as u64).into();
        reader.tag_skip.next = (skips[2] as u64).into();
        let mut taken = [0; 3];
        let (mut given, mut word, mut scale) = (0, 0, 0);
        let (mut first, mut last) = (0, 0);
        let mut offered = [true; 3];
        let mut accepted = [true; 3];
        for cycle in 0..4000 {
            reader.clock.next = Clock { clk: false };
            reader.left.next = ((blocks - given).min(7) as u64).into();
            // Beats of the next tensor wait behind the last; an offer stands until it is taken.
            for i in 0..3 {
                offered[i] = (offered[i] && !accepted[i]) || random.below(100) >= stalls;
            }
            let beat = |i: usize| streams[i].get(taken[i]).copied().unwrap_or(u128::MAX);
            reader.payload_valid.next = offered[0];
            reader.payload_data.next = bit_cast::<128, 128>(
                bit_cast::<128, 64>(((beat(0) >> 64) as u64).into()) << 64
                    | bit_cast::<128, 64>((beat(0) as u64).into()),
            );
            reader.scale_valid.next = offered[1];
            reader.scale_data.next = (beat(1) as u64).into();
            reader.tag_valid.next = offered[2];
            reader.tag_data.next = (beat(2) as u64).into();
            reader.block_ready.next = random.below(100) >= stalls;
            assert!(simulate(reader, 20));
            let started = !reader.start.val();
            if started && reader.block_valid.val() && reader.block_ready.val() {
                let mut payload = [
                    reader.block.val().get_bits::<64>(0).to_u64(),
                    reader.block.val().get_bits::<64>(64).to_u64(),
                ];
                if reader.exchanged.val() {
                    payload.swap(0, 1);
                }
                assert_eq!(payload[0], words[word], "block {given}");
                assert_eq!(
                    reader.block.val().get_bit(136),
                    tags[given] == 1,
                    "block {given}"
                );
                let scale_bits = reader.block.val().get_bits::<8>(128).to_u64();
                if tags[given] == 1 {
                    assert_eq!((payload[1], scale_bits), (words[word + 1], 0));
                } else {
                    assert_eq!(scale_bits, scales[scale], "block {given}");
                    scale += 1;
                }
                word += 1 + tags[given] as usize;
                if given == 0 {
                    first = cycle;
                }
                last = cycle;
                given += 1;
            }
            accepted = [
                offered[0] && reader.payload_ready.val(),
                offered[1] && reader.scale_ready.val(),
                offered[2] && reader.tag_ready.val(),
            ];
            for i in 0..3 {
                taken[i] += usize::from(accepted[i]);
            }
            reader.clock.next = Clock { clk: true };
            assert!(simulate(reader, 20));
            reader.start.next = false;
            if given == blocks && cycle > last + 5 {
                break;
            }
        }
        assert_eq!(given, blocks);
        let needed = [0, 1, 2].map(|i| {
            if i == 1 && scales.is_empty() {
                0
            } else {
                streams[i].len()
            }
        });
        assert_eq!(
            taken, needed,
            "beats of {blocks} blocks, {fp8} FP8, {skips:?}"
        );
        (blocks, last - first + 1)
    }

    #[test]
    fn blocks_come_in_order_and_no_beat_of_the_next_tensor_is_taken() {
        let mut reader = BlockReader::default();
        let mut random = Random(5);
        for round in 0..60 {
            let stalls = [0, 10, 50][round % 3];
            let (blocks, cycles) = read(&mut reader, &mut random, stalls);
            if stalls == 0 {
                assert!(cycles <= blocks, "{blocks} blocks took {cycles} cycles");
            }
        }
    }
}
