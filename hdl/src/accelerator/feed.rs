//! What goes into the quantizer: BF16 elements from the input stream or from the last results, with their channel's sensitivity.

use crate::memory::{ADDRESS, Ram};
use crate::prelude::*;
use golden::format::BLOCK;

/// Feeds a serial quantizer, one element a cycle, with rows of whole blocks.
///
/// The stream brings a block of sixteen elements a beat, rows padded with zeros to whole blocks. Results come from their memory, where a
/// row has the same length; what lies behind its last feature reads as zero. The sensitivity memory has two banks, so one can be written
/// while the other is in use.
#[derive(LogicBlock, PortAccess)]
pub struct ElementFeed {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A job's activations are to be quantized; to be shown until `job_done`.
    pub job_valid: Signal<In, Bit>,
    /// Its last element has left.
    pub job_done: Signal<Out, Bit>,
    /// They come from the result memory, not from the stream.
    pub from_results: Signal<In, Bit>,
    /// Features of a row of results.
    pub result_features: Signal<In, Bits<16>>,
    /// Tokens M.
    pub tokens: Signal<In, Bits<16>>,
    /// Blocks of a row.
    pub blocks: Signal<In, Bits<16>>,
    /// Bank of the sensitivity memory.
    pub sensitivity_bank: Signal<In, Bit>,
    /// Beat of elements is valid.
    pub x_valid: Signal<In, Bit>,
    /// It is taken.
    pub x_ready: Signal<Out, Bit>,
    /// Sixteen BF16 elements, the first lowest.
    pub x_data: Signal<In, Bits<256>>,
    /// Write the result memory.
    pub result_write: Signal<In, Bit>,
    /// Element of it.
    pub result_address: Signal<In, Bits<ADDRESS>>,
    /// Its value.
    pub result_data: Signal<In, Bits<16>>,
    /// Write the sensitivity memory.
    pub sensitivity_write: Signal<In, Bit>,
    /// Bank (top bit of the 16) and word of four channels.
    pub sensitivity_address: Signal<In, Bits<ADDRESS>>,
    /// Four UE4M3 codes, the first channel lowest.
    pub sensitivity_data: Signal<In, Bits<32>>,
    /// Element is valid.
    pub element_valid: Signal<Out, Bit>,
    /// It is taken.
    pub element_ready: Signal<In, Bit>,
    /// It is the last of its row.
    pub element_last: Signal<Out, Bit>,
    /// BF16.
    pub element: Signal<Out, Bits<16>>,
    /// UE4M3.
    pub sensitivity: Signal<Out, Bits<8>>,

    results: Ram<16>,
    sensitivities: Ram<32>,
    bank_words: Constant<Bits<ADDRESS>>,

    started: Register<Bit>,
    all_sent: Register<Bit>,
    address: DataRegister<Bits<ADDRESS>>,
    channel: DataRegister<Bits<16>>,
    blocks_left: DataRegister<Bits<16>>,
    tokens_left: DataRegister<Bits<16>>,

    staged: Register<Bit>,
    staged_element: DataRegister<Bits<16>>,
    staged_memory: DataRegister<Bit>,
    staged_zero: DataRegister<Bit>,
    staged_last: DataRegister<Bit>,
    staged_channel: DataRegister<Bits<2>>,

    advance: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    block_end: Signal<Local, Bit>,
    row_end: Signal<Local, Bit>,
    bank_offset: Signal<Local, Bits<ADDRESS>>,
    write_offset: Signal<Local, Bits<ADDRESS>>,
    shifted: Signal<Local, Bits<256>>,
    sensitivity_word: Signal<Local, Bits<32>>,
}

impl ElementFeed {
    /// With a result memory of so many elements, and sensitivities for rows of so many blocks.
    #[must_use]
    pub fn new(result_elements: usize, blocks: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            job_valid: Default::default(),
            job_done: Default::default(),
            from_results: Default::default(),
            result_features: Default::default(),
            tokens: Default::default(),
            blocks: Default::default(),
            sensitivity_bank: Default::default(),
            x_valid: Default::default(),
            x_ready: Default::default(),
            x_data: Default::default(),
            result_write: Default::default(),
            result_address: Default::default(),
            result_data: Default::default(),
            sensitivity_write: Default::default(),
            sensitivity_address: Default::default(),
            sensitivity_data: Default::default(),
            element_valid: Default::default(),
            element_ready: Default::default(),
            element_last: Default::default(),
            element: Default::default(),
            sensitivity: Default::default(),
            results: Ram::new(result_elements),
            sensitivities: Ram::new(8 * blocks),
            bank_words: Constant::new((4 * blocks as u64).into()),
            started: Default::default(),
            all_sent: Default::default(),
            address: Default::default(),
            channel: Default::default(),
            blocks_left: Default::default(),
            tokens_left: Default::default(),
            staged: Default::default(),
            staged_element: Default::default(),
            staged_memory: Default::default(),
            staged_zero: Default::default(),
            staged_last: Default::default(),
            staged_channel: Default::default(),
            advance: Default::default(),
            take: Default::default(),
            block_end: Default::default(),
            row_end: Default::default(),
            bank_offset: Default::default(),
            write_offset: Default::default(),
            shifted: Default::default(),
            sensitivity_word: Default::default(),
        }
    }
}

/// Sends the elements of a job's rows to the serial quantizer, one a cycle, each with its channel's sensitivity.
///
/// They come from the input stream, sixteen a beat, or from the result memory, where zeros stand behind a row's last feature. 1 to 65535 rows of
/// at most as many blocks as the weight memory holds; each bank of sensitivities has a UE4M3 code for every element of such a row.
#[kernel]
impl Logic for ElementFeed {
    fn update(&mut self) {
        registers!(self, clock, reset, started, all_sent, staged);
        data_registers!(
            self,
            clock,
            address,
            channel,
            blocks_left,
            tokens_left,
            staged_element,
            staged_memory,
            staged_zero,
            staged_last,
            staged_channel
        );

        self.advance.next = !self.staged.q.val() || self.element_ready.val();
        self.take.next = self.job_valid.val()
            && self.started.q.val()
            && !self.all_sent.q.val()
            && self.advance.val()
            && (self.from_results.val() || self.x_valid.val());
        self.block_end.next = self.channel.q.val().get_bits::<4>(0).all();
        self.row_end.next = self.block_end.val() && self.blocks_left.q.val() == 1;
        // The beat is taken with its last element.
        self.x_ready.next = self.take.val() && !self.from_results.val() && self.block_end.val();
        if self.take.val() {
            self.address.d.next = self.address.q.val() + 1;
            self.channel.d.next = self.channel.q.val() + 1;
            if self.block_end.val() {
                self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            }
            if self.row_end.val() {
                self.blocks_left.d.next = self.blocks.val();
                self.channel.d.next = 0.into();
                self.tokens_left.d.next = self.tokens_left.q.val() - 1;
                if self.tokens_left.q.val() == 1 {
                    self.all_sent.d.next = true;
                }
            }
        }
        self.job_done.next = self.all_sent.q.val() && self.advance.val();
        if self.all_sent.q.val() && self.advance.val() {
            self.started.d.next = false;
            self.all_sent.d.next = false;
        }
        if self.job_valid.val() && !self.started.q.val() {
            self.started.d.next = true;
            self.address.d.next = 0.into();
            self.channel.d.next = 0.into();
            self.blocks_left.d.next = self.blocks.val();
            self.tokens_left.d.next = self.tokens.val();
        }

        // Memories, read in the cycle in which the element is taken.
        self.results.clock.next = self.clock.val();
        self.results.write.next = self.result_write.val();
        self.results.write_address.next = self.result_address.val();
        self.results.write_data.next = self.result_data.val();
        self.results.read.next = self.take.val() && self.from_results.val();
        self.results.read_address.next = self.address.q.val();
        self.bank_offset.next = 0.into();
        if self.sensitivity_bank.val() {
            self.bank_offset.next = self.bank_words.val();
        }
        self.write_offset.next = 0.into();
        if self.sensitivity_address.val().get_bit(15) {
            self.write_offset.next = self.bank_words.val();
        }
        self.sensitivities.clock.next = self.clock.val();
        self.sensitivities.write.next = self.sensitivity_write.val();
        self.sensitivities.write_address.next = self.write_offset.val()
            + bit_cast::<ADDRESS, 15>(self.sensitivity_address.val().get_bits::<15>(0));
        self.sensitivities.write_data.next = self.sensitivity_data.val();
        self.sensitivities.read.next = self.take.val();
        self.sensitivities.read_address.next = self.bank_offset.val() + (self.channel.q.val() >> 2);

        // The element beside what the memories give.
        self.shifted.next =
            self.x_data.val() >> (bit_cast::<8, 4>(self.channel.q.val().get_bits::<4>(0)) << 4);
        if self.advance.val() {
            self.staged.d.next = self.take.val();
        }
        if self.take.val() {
            self.staged_element.d.next = self.shifted.val().get_bits::<16>(0);
            self.staged_memory.d.next = self.from_results.val();
            self.staged_zero.d.next = self.channel.q.val() >= self.result_features.val();
            self.staged_last.d.next = self.row_end.val();
            self.staged_channel.d.next = self.channel.q.val().get_bits::<2>(0);
        }
        self.element_valid.next = self.staged.q.val();
        self.element_last.next = self.staged_last.q.val();
        self.element.next = self.staged_element.q.val();
        if self.staged_memory.q.val() {
            self.element.next = self.results.read_data.val();
            if self.staged_zero.q.val() {
                self.element.next = 0.into();
            }
        }
        self.sensitivity_word.next = self.sensitivities.read_data.val()
            >> (bit_cast::<5, 2>(self.staged_channel.q.val()) << 3);
        self.sensitivity.next = self.sensitivity_word.val().get_bits::<8>(0);
    }
}

/// Feeds a parallel quantizer, one block a cycle from the stream; see [`ElementFeed`].
///
/// The result memory gives an element a cycle, so blocks of results take sixteen.
#[derive(LogicBlock, PortAccess)]
pub struct BlockFeed {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A job's activations are to be quantized; to be shown until `job_done`.
    pub job_valid: Signal<In, Bit>,
    /// Its last block has left.
    pub job_done: Signal<Out, Bit>,
    /// They come from the result memory, not from the stream.
    pub from_results: Signal<In, Bit>,
    /// Features of a row of results.
    pub result_features: Signal<In, Bits<16>>,
    /// Tokens M.
    pub tokens: Signal<In, Bits<16>>,
    /// Blocks of a row.
    pub blocks: Signal<In, Bits<16>>,
    /// Bank of the sensitivity memory.
    pub sensitivity_bank: Signal<In, Bit>,
    /// Beat of elements is valid.
    pub x_valid: Signal<In, Bit>,
    /// It is taken.
    pub x_ready: Signal<Out, Bit>,
    /// Sixteen BF16 elements, the first lowest.
    pub x_data: Signal<In, Bits<256>>,
    /// Write the result memory.
    pub result_write: Signal<In, Bit>,
    /// Element of it.
    pub result_address: Signal<In, Bits<ADDRESS>>,
    /// Its value.
    pub result_data: Signal<In, Bits<16>>,
    /// Write the sensitivity memory.
    pub sensitivity_write: Signal<In, Bit>,
    /// Bank (top bit of the 16) and word of four channels.
    pub sensitivity_address: Signal<In, Bits<ADDRESS>>,
    /// Four UE4M3 codes, the first channel lowest.
    pub sensitivity_data: Signal<In, Bits<32>>,
    /// Block is valid.
    pub element_valid: Signal<Out, Bit>,
    /// It is taken.
    pub element_ready: Signal<In, Bit>,
    /// It is the last of its row.
    pub element_last: Signal<Out, Bit>,
    /// BF16.
    pub element: [Signal<Out, Bits<16>>; BLOCK],
    /// UE4M3.
    pub sensitivity: [Signal<Out, Bits<8>>; BLOCK],

    results: Ram<16>,
    /// Four channels each.
    sensitivities: [Ram<32>; 4],
    bank_blocks: Constant<Bits<ADDRESS>>,

    started: Register<Bit>,
    all_sent: Register<Bit>,
    address: DataRegister<Bits<ADDRESS>>,
    block: DataRegister<Bits<12>>,
    blocks_left: DataRegister<Bits<16>>,
    tokens_left: DataRegister<Bits<16>>,

    // A block of results on its way.
    asked: Register<Bits<5>>,
    arriving: Register<Bit>,
    arriving_zero: DataRegister<Bit>,
    gathered: DataRegister<Bits<256>>,
    gathered_all: Signal<Local, Bit>,
    ask: Signal<Local, Bit>,
    arrived: Signal<Local, Bits<16>>,
    channel: Signal<Local, Bits<16>>,

    staged: Register<Bit>,
    staged_elements: DataRegister<Bits<256>>,
    staged_last: DataRegister<Bit>,

    advance: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    row_end: Signal<Local, Bit>,
    bank_offset: Signal<Local, Bits<ADDRESS>>,
    write_offset: Signal<Local, Bits<ADDRESS>>,
}

impl BlockFeed {
    /// With a result memory of so many elements, and sensitivities for rows of so many blocks.
    #[must_use]
    pub fn new(result_elements: usize, blocks: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            job_valid: Default::default(),
            job_done: Default::default(),
            from_results: Default::default(),
            result_features: Default::default(),
            tokens: Default::default(),
            blocks: Default::default(),
            sensitivity_bank: Default::default(),
            x_valid: Default::default(),
            x_ready: Default::default(),
            x_data: Default::default(),
            result_write: Default::default(),
            result_address: Default::default(),
            result_data: Default::default(),
            sensitivity_write: Default::default(),
            sensitivity_address: Default::default(),
            sensitivity_data: Default::default(),
            element_valid: Default::default(),
            element_ready: Default::default(),
            element_last: Default::default(),
            element: Default::default(),
            sensitivity: Default::default(),
            results: Ram::new(result_elements),
            sensitivities: std::array::from_fn(|_| Ram::new(2 * blocks)),
            bank_blocks: Constant::new((blocks as u64).into()),
            started: Default::default(),
            all_sent: Default::default(),
            address: Default::default(),
            block: Default::default(),
            blocks_left: Default::default(),
            tokens_left: Default::default(),
            asked: Default::default(),
            arriving: Default::default(),
            arriving_zero: Default::default(),
            gathered: Default::default(),
            gathered_all: Default::default(),
            ask: Default::default(),
            arrived: Default::default(),
            channel: Default::default(),
            staged: Default::default(),
            staged_elements: Default::default(),
            staged_last: Default::default(),
            advance: Default::default(),
            take: Default::default(),
            row_end: Default::default(),
            bank_offset: Default::default(),
            write_offset: Default::default(),
        }
    }
}

/// Sends the blocks of a job's rows to the parallel quantizer, each with its channels' sensitivities.
///
/// They come from the input stream, one a cycle, or from the result memory, one in sixteen cycles; zeros stand behind a row's last feature. 1 to
/// 65535 rows of at most as many blocks as the weight memory holds; each bank of sensitivities has a UE4M3 code for every element of such a row.
#[kernel]
impl Logic for BlockFeed {
    fn update(&mut self) {
        registers!(
            self, clock, reset, started, all_sent, asked, arriving, staged
        );
        data_registers!(
            self,
            clock,
            address,
            block,
            blocks_left,
            tokens_left,
            arriving_zero,
            gathered,
            staged_elements,
            staged_last
        );

        self.advance.next = !self.staged.q.val() || self.element_ready.val();
        self.gathered_all.next = self.asked.q.val().get_bit(4) && !self.arriving.q.val();
        self.take.next = self.job_valid.val()
            && self.started.q.val()
            && !self.all_sent.q.val()
            && self.advance.val()
            && ((self.from_results.val() && self.gathered_all.val())
                || (!self.from_results.val() && self.x_valid.val()));
        self.row_end.next = self.blocks_left.q.val() == 1;
        self.x_ready.next = self.take.val() && !self.from_results.val();

        // Results, one a cycle.
        self.ask.next = self.job_valid.val()
            && self.started.q.val()
            && !self.all_sent.q.val()
            && self.from_results.val()
            && !self.asked.q.val().get_bit(4);
        self.channel.next = (bit_cast::<16, 12>(self.block.q.val()) << 4)
            | bit_cast::<16, 4>(self.asked.q.val().get_bits::<4>(0));
        self.arriving.d.next = self.ask.val();
        if self.ask.val() {
            self.asked.d.next = self.asked.q.val() + 1;
            self.address.d.next = self.address.q.val() + 1;
            self.arriving_zero.d.next = self.channel.val() >= self.result_features.val();
        }
        self.results.clock.next = self.clock.val();
        self.results.write.next = self.result_write.val();
        self.results.write_address.next = self.result_address.val();
        self.results.write_data.next = self.result_data.val();
        self.results.read.next = self.ask.val();
        self.results.read_address.next = self.address.q.val();
        self.arrived.next = self.results.read_data.val();
        if self.arriving_zero.q.val() {
            self.arrived.next = 0.into();
        }
        if self.arriving.q.val() {
            self.gathered.d.next =
                (self.gathered.q.val() >> 16) | (bit_cast::<256, 16>(self.arrived.val()) << 240);
        }

        if self.take.val() {
            self.asked.d.next = 0.into();
            self.block.d.next = self.block.q.val() + 1;
            self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            if self.row_end.val() {
                self.block.d.next = 0.into();
                self.blocks_left.d.next = self.blocks.val();
                self.tokens_left.d.next = self.tokens_left.q.val() - 1;
                if self.tokens_left.q.val() == 1 {
                    self.all_sent.d.next = true;
                }
            }
        }
        self.job_done.next = self.all_sent.q.val() && self.advance.val();
        if self.all_sent.q.val() && self.advance.val() {
            self.started.d.next = false;
            self.all_sent.d.next = false;
        }
        if self.job_valid.val() && !self.started.q.val() {
            self.started.d.next = true;
            self.asked.d.next = 0.into();
            self.address.d.next = 0.into();
            self.block.d.next = 0.into();
            self.blocks_left.d.next = self.blocks.val();
            self.tokens_left.d.next = self.tokens.val();
        }

        // Sensitivities, read in the cycle in which the block is taken.
        self.bank_offset.next = 0.into();
        if self.sensitivity_bank.val() {
            self.bank_offset.next = self.bank_blocks.val();
        }
        self.write_offset.next = 0.into();
        if self.sensitivity_address.val().get_bit(15) {
            self.write_offset.next = self.bank_blocks.val();
        }
        for i in 0..4 {
            self.sensitivities[i].clock.next = self.clock.val();
            self.sensitivities[i].write.next = self.sensitivity_write.val()
                && self.sensitivity_address.val().get_bits::<2>(0) == i.to_bits();
            self.sensitivities[i].write_address.next = self.write_offset.val()
                + bit_cast::<ADDRESS, 13>(self.sensitivity_address.val().get_bits::<13>(2));
            self.sensitivities[i].write_data.next = self.sensitivity_data.val();
            self.sensitivities[i].read.next = self.take.val();
            self.sensitivities[i].read_address.next =
                self.bank_offset.val() + bit_cast::<ADDRESS, 12>(self.block.q.val());
            for j in 0..4 {
                self.sensitivity[4 * i + j].next =
                    self.sensitivities[i].read_data.val().get_bits::<8>(8 * j);
            }
        }

        if self.advance.val() {
            self.staged.d.next = self.take.val();
        }
        if self.take.val() {
            self.staged_elements.d.next = self.x_data.val();
            if self.from_results.val() {
                self.staged_elements.d.next = self.gathered.q.val();
            }
            self.staged_last.d.next = self.row_end.val();
        }
        self.element_valid.next = self.staged.q.val();
        self.element_last.next = self.staged_last.q.val();
        for i in 0..BLOCK {
            self.element[i].next = self.staged_elements.q.val().get_bits::<16>(16 * i);
        }
    }
}
