//! The sequencer: walks a job's tiles and asks the memories for a block pair a cycle.

use crate::prelude::*;
use crate::requantizer::TILE_BITS;

/// Order of tiles: for each tile of output features, each tile of tokens; K runs innermost.
///
/// A step is asked for in three stages: tags are read, then scales and payload, then the blocks are shown to the array. All stages wait
/// together when the array does. Between blocks, between tiles there is no gap.
#[derive(LogicBlock, PortAccess)]
pub struct Sequencer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A job waits.
    pub job_valid: Signal<In, Bit>,
    /// Its slot, which travels with its results.
    pub job_slot: Signal<In, Bit>,
    /// The memories' half that holds its activations.
    pub job_act_half: Signal<In, Bit>,
    /// Tokens M.
    pub tokens: Signal<In, Bits<16>>,
    /// Output features N; 0 for a job that only loads activations.
    pub features: Signal<In, Bits<16>>,
    /// Blocks of a row, K / 16.
    pub blocks: Signal<In, Bits<16>>,
    /// All steps of the job have been asked for.
    pub job_issued: Signal<Out, Bit>,
    /// The job had no features and its activations are there: it is done.
    pub load_done: Signal<Out, Bit>,
    /// Token tiles of this job that are in the memory.
    pub act_tiles: Signal<In, Bits<16>>,
    /// All of them are.
    pub act_complete: Signal<In, Bit>,
    /// The weight blocks that `weight_index` and `weight_half` name are in the memory.
    pub weights_ready: Signal<In, Bit>,
    /// The array takes what it is shown.
    pub array_ready: Signal<In, Bit>,

    /// Stage 1: read tags.
    pub read_tag: Signal<Out, Bit>,
    /// Number of the weight block in its row.
    pub weight_index: Signal<Out, Bits<16>>,
    /// Number of the activation block in its column's half.
    pub act_index: Signal<Out, Bits<16>>,
    /// The weights' half.
    pub weight_half: Signal<Out, Bit>,
    /// The activations' half.
    pub act_half: Signal<Out, Bit>,
    /// Stage 2: read scales and payload.
    pub read_block: Signal<Out, Bit>,
    /// The weight block is the first of its row.
    pub weight_first: Signal<Out, Bit>,
    /// The activation block is the first in its column's half.
    pub act_first: Signal<Out, Bit>,
    /// The weights' half in stage 2.
    pub block_weight_half: Signal<Out, Bit>,
    /// The activations' half in stage 2.
    pub block_act_half: Signal<Out, Bit>,
    /// Stage 3: the blocks are shown to the array.
    pub step_valid: Signal<Out, Bit>,
    /// They are the last of the tile.
    pub step_last: Signal<Out, Bit>,
    /// `{job_last, slot, cols, rows}`: rows and columns of the tile that count, and whether it is the job's last tile.
    pub step_tile: Signal<Out, Bits<TILE_BITS>>,
    /// The array has read the last of a weight tile.
    pub freed: Signal<Out, Bit>,
    /// Its half.
    pub freed_half: Signal<Out, Bit>,

    /// A job is under way and a step was asked for.
    pub issued: Signal<Out, Bit>,
    /// None was, nor has been before: memories and quantizer fill.
    pub fills: Signal<Out, Bit>,
    /// None was, because the array waits for its results to leave.
    pub waits_results: Signal<Out, Bit>,
    /// None was, because the weight tile is not there.
    pub waits_weights: Signal<Out, Bit>,
    /// None was, because the activations are not there.
    pub waits_acts: Signal<Out, Bit>,

    active: Register<Bit>,
    begun: DataRegister<Bit>,
    slot: DataRegister<Bit>,
    acts: DataRegister<Bit>,
    half: Register<Bit>,
    blocks_left: DataRegister<Bits<16>>,
    tokens_left: DataRegister<Bits<16>>,
    features_left: DataRegister<Bits<16>>,
    weight_at: DataRegister<Bits<16>>,
    act_at: DataRegister<Bits<16>>,
    token_tile: DataRegister<Bits<16>>,

    /// The half's tile has been asked for to its end, but is still being read.
    leaving: [Register<Bit>; 2],
    frees: Signal<Local, Bit>,

    two_valid: Register<Bit>,
    two_weight_first: DataRegister<Bit>,
    two_act_first: DataRegister<Bit>,
    two_half: DataRegister<Bit>,
    two_acts: DataRegister<Bit>,
    two_last: DataRegister<Bit>,
    two_frees: DataRegister<Bit>,
    two_tile: DataRegister<Bits<TILE_BITS>>,
    three_valid: Register<Bit>,
    three_half: DataRegister<Bit>,
    three_last: DataRegister<Bit>,
    three_frees: DataRegister<Bit>,
    three_tile: DataRegister<Bits<TILE_BITS>>,

    rows: Constant<Bits<16>>,
    cols: Constant<Bits<16>>,
    advance: Signal<Local, Bit>,
    weights_there: Signal<Local, Bit>,
    acts_there: Signal<Local, Bit>,
    issue: Signal<Local, Bit>,
    last_block: Signal<Local, Bit>,
    last_tokens: Signal<Local, Bit>,
    last_features: Signal<Local, Bit>,
    rows_used: Signal<Local, Bits<TILE_BITS>>,
    cols_used: Signal<Local, Bits<TILE_BITS>>,
    slot_bits: Signal<Local, Bits<TILE_BITS>>,
    last_bits: Signal<Local, Bits<TILE_BITS>>,
    load_only: Signal<Local, Bit>,
}

impl Sequencer {
    /// For an array of so many rows and columns.
    #[must_use]
    pub fn new(rows: usize, cols: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            job_valid: Default::default(),
            job_slot: Default::default(),
            job_act_half: Default::default(),
            tokens: Default::default(),
            features: Default::default(),
            blocks: Default::default(),
            job_issued: Default::default(),
            load_done: Default::default(),
            act_tiles: Default::default(),
            act_complete: Default::default(),
            weights_ready: Default::default(),
            array_ready: Default::default(),
            read_tag: Default::default(),
            weight_index: Default::default(),
            act_index: Default::default(),
            weight_half: Default::default(),
            act_half: Default::default(),
            read_block: Default::default(),
            weight_first: Default::default(),
            act_first: Default::default(),
            block_weight_half: Default::default(),
            block_act_half: Default::default(),
            step_valid: Default::default(),
            step_last: Default::default(),
            step_tile: Default::default(),
            freed: Default::default(),
            freed_half: Default::default(),
            issued: Default::default(),
            fills: Default::default(),
            begun: Default::default(),
            waits_results: Default::default(),
            waits_weights: Default::default(),
            waits_acts: Default::default(),
            active: Default::default(),
            slot: Default::default(),
            acts: Default::default(),
            half: Default::default(),
            blocks_left: Default::default(),
            tokens_left: Default::default(),
            features_left: Default::default(),
            weight_at: Default::default(),
            act_at: Default::default(),
            token_tile: Default::default(),
            leaving: Default::default(),
            frees: Default::default(),
            two_valid: Default::default(),
            two_weight_first: Default::default(),
            two_act_first: Default::default(),
            two_half: Default::default(),
            two_acts: Default::default(),
            two_last: Default::default(),
            two_frees: Default::default(),
            two_tile: Default::default(),
            three_valid: Default::default(),
            three_half: Default::default(),
            three_last: Default::default(),
            three_frees: Default::default(),
            three_tile: Default::default(),
            rows: Constant::new((rows as u64).into()),
            cols: Constant::new((cols as u64).into()),
            advance: Default::default(),
            weights_there: Default::default(),
            acts_there: Default::default(),
            issue: Default::default(),
            last_block: Default::default(),
            last_tokens: Default::default(),
            last_features: Default::default(),
            rows_used: Default::default(),
            cols_used: Default::default(),
            slot_bits: Default::default(),
            last_bits: Default::default(),
            load_only: Default::default(),
        }
    }
}

/// Walks the tiles of a matrix product and addresses the weight and activation memories, one block pair for each processing
/// element a cycle.
///
/// For each tile of ROWS output features, each tile of COLS tokens; K innermost. Three stages: tags are read, then scales and payload, then the blocks
/// stand before the array; all wait together when it does. No gap between blocks or tiles. 1 to 65535 tokens and features, 1 to 4096 blocks.
#[kernel]
impl Logic for Sequencer {
    fn update(&mut self) {
        registers!(self, clock, reset, active, half, two_valid, three_valid);
        for i in 0..2 {
            registers!(self, clock, reset, leaving[i]);
        }
        data_registers!(
            self,
            clock,
            begun,
            slot,
            acts,
            blocks_left,
            tokens_left,
            features_left,
            weight_at,
            act_at,
            token_tile,
            two_weight_first,
            two_act_first,
            two_half,
            two_acts,
            two_last,
            two_frees,
            two_tile,
            three_half,
            three_last,
            three_frees,
            three_tile
        );

        self.advance.next = !self.three_valid.q.val() || self.array_ready.val();
        self.weights_there.next = self.weights_ready.val() && !self.leaving[0].q.val();
        if self.half.q.val() {
            self.weights_there.next = self.weights_ready.val() && !self.leaving[1].q.val();
        }
        self.acts_there.next =
            self.act_complete.val() || self.act_tiles.val() > self.token_tile.q.val();
        self.issue.next = self.active.q.val()
            && self.advance.val()
            && self.weights_there.val()
            && self.acts_there.val();
        self.issued.next = self.issue.val();
        self.fills.next = self.active.q.val() && !self.issue.val() && !self.begun.q.val();
        self.waits_results.next = self.active.q.val() && self.begun.q.val() && !self.advance.val();
        self.waits_weights.next = self.active.q.val()
            && self.begun.q.val()
            && self.advance.val()
            && !self.weights_there.val();
        self.waits_acts.next = self.active.q.val()
            && self.begun.q.val()
            && self.advance.val()
            && self.weights_there.val()
            && !self.acts_there.val();

        self.last_block.next = self.blocks_left.q.val() == 1;
        self.last_tokens.next = self.tokens_left.q.val() <= self.cols.val();
        self.last_features.next = self.features_left.q.val() <= self.rows.val();
        self.job_issued.next = self.issue.val()
            && self.last_block.val()
            && self.last_tokens.val()
            && self.last_features.val();
        self.rows_used.next = bit_cast::<TILE_BITS, 16>(self.rows.val());
        if self.last_features.val() {
            self.rows_used.next = bit_cast::<TILE_BITS, 16>(self.features_left.q.val());
        }
        self.cols_used.next = bit_cast::<TILE_BITS, 16>(self.cols.val());
        if self.last_tokens.val() {
            self.cols_used.next = bit_cast::<TILE_BITS, 16>(self.tokens_left.q.val());
        }
        self.slot_bits.next = bit_cast::<TILE_BITS, 1>(self.slot.q.val().into());
        self.last_bits.next = 0.into();
        if self.last_tokens.val() && self.last_features.val() {
            self.last_bits.next = 0x8000.into();
        }

        // Stage 1.
        self.read_tag.next = self.issue.val();
        self.weight_index.next = self.weight_at.q.val();
        self.act_index.next = self.act_at.q.val();
        self.weight_half.next = self.half.q.val();
        self.act_half.next = self.acts.q.val();
        if self.issue.val() {
            self.begun.d.next = true;
            self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            self.weight_at.d.next = self.weight_at.q.val() + 1;
            self.act_at.d.next = self.act_at.q.val() + 1;
            if self.last_block.val() {
                self.blocks_left.d.next = self.blocks.val();
                self.weight_at.d.next = 0.into();
                self.tokens_left.d.next = self.tokens_left.q.val() - self.cols.val();
                self.token_tile.d.next = self.token_tile.q.val() + 1;
                if self.last_tokens.val() {
                    self.tokens_left.d.next = self.tokens.val();
                    self.token_tile.d.next = 0.into();
                    self.act_at.d.next = 0.into();
                    self.half.d.next = !self.half.q.val();
                    self.features_left.d.next = self.features_left.q.val() - self.rows.val();
                    if self.last_features.val() {
                        self.active.d.next = false;
                    }
                }
            }
        }
        self.load_only.next = !self.features.val().any();
        self.load_done.next = self.job_valid.val()
            && !self.active.q.val()
            && self.load_only.val()
            && self.act_complete.val();
        if self.job_valid.val() && !self.active.q.val() && !self.load_only.val() {
            self.active.d.next = true;
            self.begun.d.next = false;
            self.slot.d.next = self.job_slot.val();
            self.acts.d.next = self.job_act_half.val();
            self.blocks_left.d.next = self.blocks.val();
            self.tokens_left.d.next = self.tokens.val();
            self.features_left.d.next = self.features.val();
            self.weight_at.d.next = 0.into();
            self.act_at.d.next = 0.into();
            self.token_tile.d.next = 0.into();
        }

        // Stage 2.
        self.read_block.next = self.two_valid.q.val() && self.advance.val();
        self.weight_first.next = self.two_weight_first.q.val();
        self.act_first.next = self.two_act_first.q.val();
        self.block_weight_half.next = self.two_half.q.val();
        self.block_act_half.next = self.two_acts.q.val();
        if self.advance.val() {
            self.two_valid.d.next = self.issue.val();
            self.three_valid.d.next = self.two_valid.q.val();
        }
        if self.issue.val() {
            self.two_weight_first.d.next = !self.weight_at.q.val().any();
            self.two_act_first.d.next = !self.act_at.q.val().any();
            self.two_half.d.next = self.half.q.val();
            self.two_acts.d.next = self.acts.q.val();
            self.two_last.d.next = self.last_block.val();
            self.two_frees.d.next = self.last_block.val() && self.last_tokens.val();
            self.two_tile.d.next = self.rows_used.val()
                | (self.cols_used.val() << 7)
                | (self.slot_bits.val() << 14)
                | self.last_bits.val();
        }

        // Stage 3.
        if self.two_valid.q.val() && self.advance.val() {
            self.three_half.d.next = self.two_half.q.val();
            self.three_last.d.next = self.two_last.q.val();
            self.three_frees.d.next = self.two_frees.q.val();
            self.three_tile.d.next = self.two_tile.q.val();
        }
        self.step_valid.next = self.three_valid.q.val();
        self.step_last.next = self.three_last.q.val();
        self.step_tile.next = self.three_tile.q.val();
        self.frees.next =
            self.three_valid.q.val() && self.array_ready.val() && self.three_frees.q.val();
        self.freed.next = self.frees.val();
        if self.frees.val() {
            if self.three_half.q.val() {
                self.leaving[1].d.next = false;
            } else {
                self.leaving[0].d.next = false;
            }
        }
        if self.issue.val() && self.last_block.val() && self.last_tokens.val() {
            if self.half.q.val() {
                self.leaving[1].d.next = true;
            } else {
                self.leaving[0].d.next = true;
            }
        }
        self.freed_half.next = self.three_half.q.val();
    }
}
