//! Loaders: from a block stream to the halves of the on-chip memories.

use super::reader::BlockReader;
use crate::decoder::BLOCK_BITS;
use crate::prelude::*;

/// Loads the weights of one port: tile by tile, the rows `port`, `port + ports`, … of each.
///
/// The weight memory has two halves; a loader fills one while the array reads the other.
#[derive(LogicBlock, PortAccess)]
pub struct WeightLoader {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A job waits for this loader.
    pub job_valid: Signal<In, Bit>,
    /// The job's last block has been written: the next one may be shown.
    pub job_done: Signal<Out, Bit>,
    /// Output features N of the job.
    pub features: Signal<In, Bits<16>>,
    /// Blocks of a row, K / 16, at least one.
    pub blocks: Signal<In, Bits<16>>,
    /// Words of the first payload beat that precede the tensor.
    pub payload_skip: Signal<In, Bit>,
    /// Bytes of the first scale beat that precede it.
    pub scale_skip: Signal<In, Bits<3>>,
    /// Bits of the first tag beat that precede it.
    pub tag_skip: Signal<In, Bits<6>>,
    /// Payload beat is valid.
    pub payload_valid: Signal<In, Bit>,
    /// Payload beat is taken.
    pub payload_ready: Signal<Out, Bit>,
    /// Two payload words.
    pub payload_data: Signal<In, Bits<128>>,
    /// Scale beat is valid.
    pub scale_valid: Signal<In, Bit>,
    /// Scale beat is taken.
    pub scale_ready: Signal<Out, Bit>,
    /// Eight scale bytes.
    pub scale_data: Signal<In, Bits<64>>,
    /// Tag beat is valid.
    pub tag_valid: Signal<In, Bit>,
    /// Tag beat is taken.
    pub tag_ready: Signal<Out, Bit>,
    /// 64 tag bits.
    pub tag_data: Signal<In, Bits<64>>,
    /// The half whose tile the array has finished reading.
    pub freed_half: Signal<In, Bit>,
    /// It has.
    pub freed: Signal<In, Bit>,
    /// The half that the array wants to read from.
    pub asked_half: Signal<In, Bit>,
    /// Number of the block that it wants in each row.
    pub asked_block: Signal<In, Bits<16>>,
    /// That block is there in all rows of this port: the tile is complete, or its last row has come so far.
    pub there: Signal<Out, Bit>,
    /// Write a block.
    pub write: Signal<Out, Bit>,
    /// The array's row.
    pub write_row: Signal<Out, Bits<7>>,
    /// The half.
    pub write_half: Signal<Out, Bit>,
    /// It is the first block of its row.
    pub write_first: Signal<Out, Bit>,
    /// The block.
    pub write_block: Signal<Out, Bits<BLOCK_BITS>>,
    /// Its payload words are exchanged: see [`BlockReader::exchanged`].
    pub write_exchanged: Signal<Out, Bit>,

    reader: BlockReader,
    active: Register<Bit>,
    half: Register<Bit>,
    half_full: [Register<Bit>; 2],
    row: DataRegister<Bits<16>>,
    row_started: Register<Bit>,
    written: DataRegister<Bits<16>>,
    blocks_left: DataRegister<Bits<16>>,
    features_left: DataRegister<Bits<16>>,

    rows: Constant<Bits<16>>,
    port: Constant<Bits<16>>,
    ports: Constant<Bits<16>>,
    rows_and_port: Constant<Bits<16>>,

    row_exists: Signal<Local, Bit>,
    next_row: Signal<Local, Bits<16>>,
    next_in_tile: Signal<Local, Bit>,
    more_tiles: Signal<Local, Bit>,
    more_rows: Signal<Local, Bit>,
    room: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    row_end: Signal<Local, Bit>,
    tile_end: Signal<Local, Bit>,
    this_row: Signal<Local, Bits<4>>,
    one_more: Signal<Local, Bits<4>>,
    to_come: Signal<Local, Bits<4>>,
    starts: Signal<Local, Bit>,
    nothing: Signal<Local, Bit>,
}

impl WeightLoader {
    /// The loader of one port of so many, for an array of so many rows; ports divide rows.
    #[must_use]
    pub fn new(rows: usize, port: usize, ports: usize) -> Self {
        let constant = |value: usize| Constant::new((value as u64).into());
        Self {
            clock: Default::default(),
            reset: Default::default(),
            job_valid: Default::default(),
            job_done: Default::default(),
            features: Default::default(),
            blocks: Default::default(),
            payload_skip: Default::default(),
            scale_skip: Default::default(),
            tag_skip: Default::default(),
            payload_valid: Default::default(),
            payload_ready: Default::default(),
            payload_data: Default::default(),
            scale_valid: Default::default(),
            scale_ready: Default::default(),
            scale_data: Default::default(),
            tag_valid: Default::default(),
            tag_ready: Default::default(),
            tag_data: Default::default(),
            freed_half: Default::default(),
            freed: Default::default(),
            asked_half: Default::default(),
            asked_block: Default::default(),
            there: Default::default(),
            written: Default::default(),
            write: Default::default(),
            write_row: Default::default(),
            write_half: Default::default(),
            write_first: Default::default(),
            write_block: Default::default(),
            write_exchanged: Default::default(),
            reader: Default::default(),
            active: Default::default(),
            half: Default::default(),
            half_full: Default::default(),
            row: Default::default(),
            row_started: Default::default(),
            blocks_left: Default::default(),
            features_left: Default::default(),
            rows: constant(rows),
            port: constant(port),
            ports: constant(ports),
            rows_and_port: constant(rows + port),
            row_exists: Default::default(),
            next_row: Default::default(),
            next_in_tile: Default::default(),
            more_tiles: Default::default(),
            more_rows: Default::default(),
            room: Default::default(),
            take: Default::default(),
            row_end: Default::default(),
            tile_end: Default::default(),
            this_row: Default::default(),
            one_more: Default::default(),
            to_come: Default::default(),
            starts: Default::default(),
            nothing: Default::default(),
        }
    }
}

/// Takes a packed weight tensor from its three streams and writes it, tile by tile, to the row memories: one block a cycle at any mix.
///
/// It is the port PORT of PORTS, and PORTS divides ROWS: it fills the rows PORT, PORT + PORTS, ... of each tile of ROWS output features. One half of
/// the memories is filled while the array reads the other. Up to 65535 features; K is 16 `blocks`, at most what half a row's memory holds.
#[kernel]
impl Logic for WeightLoader {
    fn update(&mut self) {
        registers!(self, clock, reset, active, half, row_started);
        for i in 0..2 {
            registers!(self, clock, reset, half_full[i]);
        }
        data_registers!(self, clock, row, written, blocks_left, features_left);

        // Where in the tile, and what is still to come.
        self.row_exists.next = self.row.q.val() < self.features_left.q.val();
        self.next_row.next = self.row.q.val() + self.ports.val();
        self.next_in_tile.next = self.next_row.val() < self.rows.val()
            && self.next_row.val() < self.features_left.q.val();
        self.more_tiles.next = self.features_left.q.val() > self.rows.val();
        self.more_rows.next =
            self.next_in_tile.val() || self.features_left.q.val() > self.rows_and_port.val();
        self.room.next = !self.half_full[0].q.val();
        if self.half.q.val() {
            self.room.next = !self.half_full[1].q.val();
        }

        self.there.next = self.half_full[0].q.val();
        if self.asked_half.val() {
            self.there.next = self.half_full[1].q.val();
        }
        if self.active.q.val()
            && self.room.val()
            && self.row_exists.val()
            && !self.next_in_tile.val()
            && self.half.q.val() == self.asked_half.val()
            && self.written.q.val() > self.asked_block.val()
        {
            self.there.next = true;
        }

        // Reader.
        self.reader.clock.next = self.clock.val();
        self.reader.reset.next = self.reset.val();
        self.reader.payload_skip.next = self.payload_skip.val();
        self.reader.scale_skip.next = self.scale_skip.val();
        self.reader.tag_skip.next = self.tag_skip.val();
        self.reader.payload_valid.next = self.payload_valid.val();
        self.reader.payload_data.next = self.payload_data.val();
        self.payload_ready.next = self.reader.payload_ready.val();
        self.reader.scale_valid.next = self.scale_valid.val();
        self.reader.scale_data.next = self.scale_data.val();
        self.scale_ready.next = self.reader.scale_ready.val();
        self.reader.tag_valid.next = self.tag_valid.val();
        self.reader.tag_data.next = self.tag_data.val();
        self.tag_ready.next = self.reader.tag_ready.val();
        // A job without features has no weights.
        self.starts.next =
            self.job_valid.val() && !self.active.q.val() && self.features.val().any();
        self.nothing.next =
            self.job_valid.val() && !self.active.q.val() && !self.features.val().any();
        self.reader.start.next = self.starts.val();
        // Blocks to come: those of this row, and of one more if there is one.
        self.this_row.next = 0.into();
        if self.row_exists.val() {
            self.this_row.next = 7.into();
            if self.blocks_left.q.val() < 7 {
                self.this_row.next = bit_cast::<4, 16>(self.blocks_left.q.val());
            }
        }
        self.one_more.next = 0.into();
        if self.more_rows.val() {
            self.one_more.next = 7.into();
            if self.blocks.val() < 7 {
                self.one_more.next = bit_cast::<4, 16>(self.blocks.val());
            }
        }
        self.to_come.next = self.this_row.val() + self.one_more.val();
        self.reader.left.next = 0.into();
        if self.active.q.val() {
            self.reader.left.next = 7.into();
            if self.to_come.val() < 7 {
                self.reader.left.next = self.to_come.val().get_bits::<3>(0);
            }
        }
        self.reader.block_ready.next =
            self.active.q.val() && self.row_exists.val() && self.room.val();
        self.take.next = self.reader.block_valid.val()
            && self.active.q.val()
            && self.row_exists.val()
            && self.room.val();

        self.write.next = self.take.val();
        self.write_row.next = self.row.q.val().get_bits::<7>(0);
        self.write_half.next = self.half.q.val();
        self.write_first.next = !self.row_started.q.val();
        self.write_block.next = self.reader.block.val();
        self.write_exchanged.next = self.reader.exchanged.val();

        self.row_end.next = self.take.val() && self.blocks_left.q.val() == 1;
        // A port may have no row in the last tile.
        self.tile_end.next = (self.row_end.val() && !self.next_in_tile.val())
            || (self.active.q.val() && !self.row_exists.val() && self.room.val());
        self.job_done.next = self.nothing.val() || (self.tile_end.val() && !self.more_tiles.val());
        if self.take.val() {
            self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            self.written.d.next = self.written.q.val() + 1;
            self.row_started.d.next = true;
        }
        if self.row_end.val() {
            self.blocks_left.d.next = self.blocks.val();
            self.written.d.next = 0.into();
            self.row_started.d.next = false;
            self.row.d.next = self.next_row.val();
        }
        if self.freed.val() {
            if self.freed_half.val() {
                self.half_full[1].d.next = false;
            } else {
                self.half_full[0].d.next = false;
            }
        }
        if self.tile_end.val() {
            self.row.d.next = self.port.val();
            self.features_left.d.next = self.features_left.q.val() - self.rows.val();
            self.half.d.next = !self.half.q.val();
            if self.half.q.val() {
                self.half_full[1].d.next = true;
            } else {
                self.half_full[0].d.next = true;
            }
            if !self.more_tiles.val() {
                self.active.d.next = false;
            }
        }
        if self.starts.val() {
            self.active.d.next = true;
            self.row.d.next = self.port.val();
            self.row_started.d.next = false;
            self.written.d.next = 0.into();
            self.blocks_left.d.next = self.blocks.val();
            self.features_left.d.next = self.features.val();
        }
    }
}

/// Loads the activations of a job: row by row, token t into column t mod columns.
#[derive(LogicBlock, PortAccess)]
pub struct ActLoader {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A job waits for this loader.
    pub job_valid: Signal<In, Bit>,
    /// A job is under way.
    pub busy: Signal<Out, Bit>,
    /// The job's last block is being written.
    pub job_done: Signal<Out, Bit>,
    /// Tokens M of the job, at least one.
    pub tokens: Signal<In, Bits<16>>,
    /// Blocks of a row, K / 16, at least one.
    pub blocks: Signal<In, Bits<16>>,
    /// Blocks that have not come; 7 stands for seven and more.
    pub left: Signal<Out, Bits<3>>,
    /// A block is offered.
    pub block_valid: Signal<In, Bit>,
    /// It is taken.
    pub block_ready: Signal<Out, Bit>,
    /// The next block is the job's last.
    pub last_block: Signal<Out, Bit>,
    /// Token tiles that are complete.
    pub tiles: Signal<Out, Bits<16>>,
    /// Write the block.
    pub write: Signal<Out, Bit>,
    /// The array's column.
    pub write_col: Signal<Out, Bits<7>>,
    /// It is the first block in its column's half.
    pub write_first: Signal<Out, Bit>,

    active: Register<Bit>,
    first_tile: DataRegister<Bit>,
    row_started: DataRegister<Bit>,
    col: DataRegister<Bits<7>>,
    tokens_left: DataRegister<Bits<16>>,
    blocks_left: DataRegister<Bits<16>>,
    tiles_done: Register<Bits<16>>,
    last_col: Constant<Bits<7>>,
    take: Signal<Local, Bit>,
    row_end: Signal<Local, Bit>,
    last_row: Signal<Local, Bit>,
    this_row: Signal<Local, Bits<4>>,
    one_more: Signal<Local, Bits<4>>,
    to_come: Signal<Local, Bits<4>>,
}

impl ActLoader {
    /// For an array of so many columns.
    #[must_use]
    pub fn new(cols: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            job_valid: Default::default(),
            busy: Default::default(),
            job_done: Default::default(),
            tokens: Default::default(),
            blocks: Default::default(),
            left: Default::default(),
            block_valid: Default::default(),
            block_ready: Default::default(),
            last_block: Default::default(),
            tiles: Default::default(),
            write: Default::default(),
            write_col: Default::default(),
            write_first: Default::default(),
            active: Default::default(),
            first_tile: Default::default(),
            row_started: Default::default(),
            col: Default::default(),
            tokens_left: Default::default(),
            blocks_left: Default::default(),
            tiles_done: Default::default(),
            last_col: Constant::new((cols as u64 - 1).into()),
            take: Default::default(),
            row_end: Default::default(),
            last_row: Default::default(),
            this_row: Default::default(),
            one_more: Default::default(),
            to_come: Default::default(),
        }
    }
}

/// Distributes the rows of an activation matrix over the column memories and counts complete token tiles: token t goes to column t mod (LAST_COL + 1).
///
/// One block a cycle; 1 to 65535 tokens of `blocks` blocks. Whether they fit the memory was checked when the job was accepted.
#[kernel]
impl Logic for ActLoader {
    fn update(&mut self) {
        registers!(self, clock, reset, active, tiles_done);
        data_registers!(
            self,
            clock,
            first_tile,
            row_started,
            col,
            tokens_left,
            blocks_left
        );
        self.busy.next = self.active.q.val();
        self.tiles.next = self.tiles_done.q.val();
        self.last_row.next = self.tokens_left.q.val() == 1;
        self.this_row.next = 7.into();
        if self.blocks_left.q.val() < 7 {
            self.this_row.next = bit_cast::<4, 16>(self.blocks_left.q.val());
        }
        self.one_more.next = 0.into();
        if !self.last_row.val() {
            self.one_more.next = 7.into();
            if self.blocks.val() < 7 {
                self.one_more.next = bit_cast::<4, 16>(self.blocks.val());
            }
        }
        self.to_come.next = self.this_row.val() + self.one_more.val();
        self.left.next = 0.into();
        if self.active.q.val() {
            self.left.next = 7.into();
            if self.to_come.val() < 7 {
                self.left.next = self.to_come.val().get_bits::<3>(0);
            }
        }
        self.block_ready.next = self.active.q.val();
        self.last_block.next = self.last_row.val() && self.blocks_left.q.val() == 1;
        self.take.next = self.active.q.val() && self.block_valid.val();
        self.write.next = self.take.val();
        self.write_col.next = self.col.q.val();
        self.write_first.next = self.first_tile.q.val() && !self.row_started.q.val();
        self.row_end.next = self.take.val() && self.blocks_left.q.val() == 1;
        self.job_done.next = self.row_end.val() && self.last_row.val();
        if self.take.val() {
            self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            self.row_started.d.next = true;
        }
        if self.row_end.val() {
            self.blocks_left.d.next = self.blocks.val();
            self.row_started.d.next = false;
            self.tokens_left.d.next = self.tokens_left.q.val() - 1;
            self.col.d.next = self.col.q.val() + 1;
            if self.col.q.val() == self.last_col.val() {
                self.col.d.next = 0.into();
                self.first_tile.d.next = false;
                self.tiles_done.d.next = self.tiles_done.q.val() + 1;
            }
            if self.last_row.val() {
                self.active.d.next = false;
            }
        }
        if self.job_valid.val() && !self.active.q.val() {
            self.active.d.next = true;
            self.first_tile.d.next = true;
            self.row_started.d.next = false;
            self.col.d.next = 0.into();
            self.tokens_left.d.next = self.tokens.val();
            self.blocks_left.d.next = self.blocks.val();
            self.tiles_done.d.next = 0.into();
        }
    }
}
