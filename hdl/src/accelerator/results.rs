//! Results: from the array's order to a stream, or to the memory that the next job's activations come from.

use crate::memory::LutRam;
use crate::prelude::*;
use crate::requantizer::TILE_BITS;

/// A short first-in, first-out memory of 64-bit words with their number of bytes and `last`.
#[derive(LogicBlock, PortAccess, Default)]
pub struct OutputFifo {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Word to take in.
    pub in_data: Signal<In, Bits<64>>,
    /// Which of its bytes count.
    pub in_keep: Signal<In, Bits<8>>,
    /// It is the last.
    pub in_last: Signal<In, Bit>,
    /// It is offered.
    pub in_valid: Signal<In, Bit>,
    /// It is taken.
    pub in_ready: Signal<Out, Bit>,
    /// Word that leaves.
    pub out_data: Signal<Out, Bits<64>>,
    /// Which of its bytes count.
    pub out_keep: Signal<Out, Bits<8>>,
    /// It is the last.
    pub out_last: Signal<Out, Bit>,
    /// It is valid.
    pub out_valid: Signal<Out, Bit>,
    /// It is taken.
    pub out_ready: Signal<In, Bit>,

    memory: LutRam<73, 3>,
    head: Register<Bits<3>>,
    tail: Register<Bits<3>>,
    count: Register<Bits<4>>,
    put: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    room: Signal<Local, Bit>,
    arriving: Signal<Local, Bits<73>>,
}

/// Eight 64-bit words, first in, first out. Neither side's handshake reaches the other combinationally.
#[kernel]
impl Logic for OutputFifo {
    fn update(&mut self) {
        registers!(self, clock, reset, head, tail, count);
        self.room.next = !self.count.q.val().get_bit(3);
        self.in_ready.next = self.room.val();
        self.put.next = self.in_valid.val() && self.room.val();
        self.out_valid.next = self.count.q.val().any();
        self.take.next = self.count.q.val().any() && self.out_ready.val();
        self.arriving.next = bit_cast::<73, 64>(self.in_data.val())
            | (bit_cast::<73, 8>(self.in_keep.val()) << 64)
            | (bit_cast::<73, 1>(self.in_last.val().into()) << 72);
        self.memory.clock.next = self.clock.val();
        self.memory.write.next = self.put.val();
        self.memory.write_address.next = self.tail.q.val();
        self.memory.write_data.next = self.arriving.val();
        self.memory.read_address.next = self.head.q.val();
        self.out_data.next = self.memory.read_data.val().get_bits::<64>(0);
        self.out_keep.next = self.memory.read_data.val().get_bits::<8>(64);
        self.out_last.next = self.memory.read_data.val().get_bit(72);
        if self.put.val() {
            self.tail.d.next = self.tail.q.val() + 1;
            self.count.d.next = self.count.q.val() + 1;
        }
        if self.take.val() {
            self.head.d.next = self.head.q.val() + 1;
            self.count.d.next = self.count.q.val() - 1;
            if self.put.val() {
                self.count.d.next = self.count.q.val();
            }
        }
    }
}

/// Where a job's results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To the output stream as BF16, four a word.
    Stream = 0,
    /// To the output stream as accumulators, one a word.
    Raw = 1,
    /// To the result memory, for the next job's activations.
    Memory = 2,
}

/// Drops what lies beyond the matrix's edge, packs what is left, or writes it to the result memory.
#[derive(LogicBlock, PortAccess)]
pub struct ResultWriter<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Result is valid.
    pub valid: Signal<In, Bit>,
    /// Result is taken.
    pub ready: Signal<Out, Bit>,
    /// Last result of its tile.
    pub last: Signal<In, Bit>,
    /// The result, BF16.
    pub data: Signal<In, Bits<16>>,
    /// Its accumulator.
    pub acc: Signal<In, Bits<ACC>>,
    /// It is NaN.
    pub nan: Signal<In, Bit>,
    /// The tile: see [`super::sequencer::Sequencer::step_tile`].
    pub tile: Signal<In, Bits<TILE_BITS>>,
    /// Where the results of this job go: see [`Sink`].
    pub sink: Signal<In, Bits<2>>,
    /// Tokens M of this job.
    pub tokens: Signal<In, Bits<16>>,
    /// Blocks of a row of results: N / 16, rounded up.
    pub result_blocks: Signal<In, Bits<16>>,
    /// Output word.
    pub out_data: Signal<Out, Bits<64>>,
    /// Which of its bytes count.
    pub out_keep: Signal<Out, Bits<8>>,
    /// It is the last of the job.
    pub out_last: Signal<Out, Bit>,
    /// It is valid.
    pub out_valid: Signal<Out, Bit>,
    /// It is taken.
    pub out_ready: Signal<In, Bit>,
    /// Write to the result memory.
    pub write: Signal<Out, Bit>,
    /// Element of it: token by token, each with its blocks.
    pub write_address: Signal<Out, Bits<16>>,
    /// The result.
    pub write_data: Signal<Out, Bits<16>>,
    /// A result of the matrix, not of its surroundings, was taken.
    pub counted: Signal<Out, Bit>,
    /// The job's last result was taken.
    pub job_done: Signal<Out, Bit>,

    row: Register<Bits<7>>,
    col: Register<Bits<7>>,
    final_row: Constant<Bits<7>>,
    rows: Constant<Bits<16>>,
    cols: Constant<Bits<16>>,

    packed: DataRegister<Bits<48>>,
    packed_count: Register<Bits<2>>,

    // Places in the result memory.
    job_started: Register<Bit>,
    tokens_left: DataRegister<Bits<16>>,
    feature: DataRegister<Bits<16>>,
    tile_base: DataRegister<Bits<16>>,
    column_base: DataRegister<Bits<16>>,
    first_tokens: Signal<Local, Bits<16>>,
    first_feature: Signal<Local, Bits<16>>,
    base: Signal<Local, Bits<16>>,
    column: Signal<Local, Bits<16>>,
    stride: Signal<Local, Bits<16>>,
    tile_stride: MulU<16, 16, 32>,

    rows_used: Signal<Local, Bits<7>>,
    cols_used: Signal<Local, Bits<7>>,
    job_last: Signal<Local, Bit>,
    in_matrix: Signal<Local, Bit>,
    final_one: Signal<Local, Bit>,
    to_memory: Signal<Local, Bit>,
    raw: Signal<Local, Bit>,
    word_complete: Signal<Local, Bit>,
    is_ready: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    placed: Signal<Local, Bits<64>>,
    extend: SignExtend<ACC, 64>,
}

impl<const ACC: usize> ResultWriter<ACC> {
    /// For an array of so many rows and columns.
    #[must_use]
    pub fn new(rows: usize, cols: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            valid: Default::default(),
            ready: Default::default(),
            last: Default::default(),
            data: Default::default(),
            acc: Default::default(),
            nan: Default::default(),
            tile: Default::default(),
            sink: Default::default(),
            tokens: Default::default(),
            result_blocks: Default::default(),
            out_data: Default::default(),
            out_keep: Default::default(),
            out_last: Default::default(),
            out_valid: Default::default(),
            out_ready: Default::default(),
            write: Default::default(),
            write_address: Default::default(),
            write_data: Default::default(),
            counted: Default::default(),
            job_done: Default::default(),
            row: Default::default(),
            col: Default::default(),
            final_row: Constant::new((rows as u64 - 1).into()),
            rows: Constant::new((rows as u64).into()),
            cols: Constant::new((cols as u64).into()),
            packed: Default::default(),
            packed_count: Default::default(),
            job_started: Default::default(),
            tokens_left: Default::default(),
            feature: Default::default(),
            tile_base: Default::default(),
            column_base: Default::default(),
            first_tokens: Default::default(),
            first_feature: Default::default(),
            base: Default::default(),
            column: Default::default(),
            stride: Default::default(),
            tile_stride: Default::default(),
            rows_used: Default::default(),
            cols_used: Default::default(),
            job_last: Default::default(),
            in_matrix: Default::default(),
            final_one: Default::default(),
            to_memory: Default::default(),
            raw: Default::default(),
            word_complete: Default::default(),
            is_ready: Default::default(),
            take: Default::default(),
            placed: Default::default(),
            extend: Default::default(),
        }
    }
}

/// Takes the results of tile after tile, drops those beyond the matrix's edge, and sends BF16 values four a word, or accumulators
/// one a word, or writes BF16 values to the result memory. A NaN's accumulator is sent as the most negative number.
///
/// A tile is ROWS features by COLS tokens, token by token; `tile` says how many of each count. At most one result a cycle.
#[kernel]
impl<const ACC: usize> Logic for ResultWriter<ACC> {
    fn update(&mut self) {
        registers!(self, clock, reset, row, col, packed_count, job_started);
        data_registers!(
            self,
            clock,
            packed,
            tokens_left,
            feature,
            tile_base,
            column_base
        );

        self.rows_used.next = self.tile.val().get_bits::<7>(0);
        self.cols_used.next = self.tile.val().get_bits::<7>(7);
        self.job_last.next = self.tile.val().get_bit(15);
        self.in_matrix.next =
            self.row.q.val() < self.rows_used.val() && self.col.q.val() < self.cols_used.val();
        self.final_one.next = self.job_last.val()
            && self.row.q.val() + 1 == self.rows_used.val()
            && self.col.q.val() + 1 == self.cols_used.val();
        self.to_memory.next = self.sink.val().get_bit(1);
        self.raw.next = self.sink.val().get_bit(0);
        self.word_complete.next =
            self.raw.val() || self.final_one.val() || self.packed_count.q.val().all();

        // The stream takes part only when a word is complete.
        self.out_valid.next = self.valid.val()
            && self.in_matrix.val()
            && !self.to_memory.val()
            && self.word_complete.val();
        self.is_ready.next = self.out_ready.val()
            || !self.in_matrix.val()
            || self.to_memory.val()
            || !self.word_complete.val();
        self.ready.next = self.is_ready.val();
        self.take.next = self.valid.val() && self.is_ready.val();
        self.counted.next = self.take.val() && self.in_matrix.val();
        self.job_done.next = self.take.val() && self.last.val() && self.job_last.val();

        // Packing.
        self.placed.next = bit_cast::<64, 16>(self.data.val());
        if self.packed_count.q.val().any() {
            self.placed.next = bit_cast::<64, 48>(self.packed.q.val())
                | (bit_cast::<64, 16>(self.data.val())
                    << (bit_cast::<6, 2>(self.packed_count.q.val()) << 4));
        }
        self.extend.a.next = self.acc.val();
        self.out_data.next = self.placed.val();
        self.out_keep.next = 0xFF.into();
        self.out_last.next = self.final_one.val();
        if self.raw.val() {
            self.out_data.next = self.extend.y.val();
            if self.nan.val() {
                self.out_data.next = 0x8000_0000_0000_0000_u64.into();
            }
        } else {
            match self.packed_count.q.val().index() {
                0 => self.out_keep.next = 0x03.into(),
                1 => self.out_keep.next = 0x0F.into(),
                2 => self.out_keep.next = 0x3F.into(),
                _ => self.out_keep.next = 0xFF.into(),
            }
        }
        if self.take.val() && self.in_matrix.val() && !self.to_memory.val() && !self.raw.val() {
            self.packed_count.d.next = self.packed_count.q.val() + 1;
            self.packed.d.next = self.placed.val().get_bits::<48>(0);
            if self.word_complete.val() {
                self.packed_count.d.next = 0.into();
            }
        }

        // Place in the tile.
        if self.take.val() {
            self.row.d.next = self.row.q.val() + 1;
            if self.row.q.val() == self.final_row.val() {
                self.row.d.next = 0.into();
                self.col.d.next = self.col.q.val() + 1;
            }
            if self.last.val() {
                self.row.d.next = 0.into();
                self.col.d.next = 0.into();
            }
        }

        // Place in the result memory. At a job's first result nothing is known of it yet.
        self.first_tokens.next = self.tokens_left.q.val();
        self.first_feature.next = self.feature.q.val();
        self.base.next = self.tile_base.q.val();
        self.column.next = self.column_base.q.val();
        if !self.job_started.q.val() {
            self.first_tokens.next = self.tokens.val();
            self.first_feature.next = 0.into();
            self.base.next = 0.into();
            self.column.next = 0.into();
        }
        self.stride.next = self.result_blocks.val() << 4;
        self.tile_stride.a.next = self.stride.val();
        self.tile_stride.b.next = self.cols.val();
        self.write.next = self.take.val() && self.in_matrix.val() && self.to_memory.val();
        self.write_address.next = self.column.val() + bit_cast::<16, 7>(self.row.q.val());
        self.write_data.next = self.data.val();
        if self.take.val() && self.to_memory.val() {
            self.job_started.d.next = true;
            self.tokens_left.d.next = self.first_tokens.val();
            self.feature.d.next = self.first_feature.val();
            self.tile_base.d.next = self.base.val();
            self.column_base.d.next = self.column.val();
            if self.row.q.val() == self.final_row.val() {
                self.column_base.d.next = self.column.val() + self.stride.val();
            }
            if self.last.val() {
                self.tokens_left.d.next = self.first_tokens.val() - self.cols.val();
                self.tile_base.d.next =
                    self.base.val() + self.tile_stride.p.val().get_bits::<16>(0);
                self.column_base.d.next =
                    self.base.val() + self.tile_stride.p.val().get_bits::<16>(0);
                if self.first_tokens.val() <= self.cols.val() {
                    self.tokens_left.d.next = self.tokens.val();
                    self.feature.d.next = self.first_feature.val() + self.rows.val();
                    self.tile_base.d.next = self.first_feature.val() + self.rows.val();
                    self.column_base.d.next = self.first_feature.val() + self.rows.val();
                }
                if self.job_last.val() {
                    self.job_started.d.next = false;
                }
            }
        }
    }
}
