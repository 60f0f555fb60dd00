//! The `rows x cols` array of processing elements. Twin of [`mod@golden::matmul`].

use crate::config::Multiplier;
use crate::decoder::{BLOCK_BITS, BlockDecoder, LaneInteger};
use crate::mac::{BOUNDARIES, Pe, boundaries};
use crate::prelude::*;
use crate::requantizer::{Requantizer, TILE_BITS};
use golden::format::BLOCK;

/// Output-stationary array: a row a weight row, a column an activation row (a token).
///
/// A transfer on both input streams is one step: every PE multiplies its row's weight block by its
/// column's activation block. The step with `last` ends the tile; its `rows * cols` results
/// leave through the requantizer, token by token, while the next tile is computed.
#[derive(LogicBlock, PortAccess)]
pub struct PeArray<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// FP32 bits of M (numerics §5), constant while results leave.
    pub output_scale: Signal<In, Bits<32>>,
    /// Weight blocks are valid.
    pub weight_valid: Signal<In, Bit>,
    /// Weight blocks are taken.
    pub weight_ready: Signal<Out, Bit>,
    /// Last blocks of the reduction dimension.
    pub weight_last: Signal<In, Bit>,
    /// One packed weight block a row.
    pub weight_data: Vec<Signal<In, Bits<BLOCK_BITS>>>,
    /// Activation blocks are valid.
    pub act_valid: Signal<In, Bit>,
    /// Activation blocks are taken.
    pub act_ready: Signal<Out, Bit>,
    /// Last blocks of the reduction dimension.
    pub act_last: Signal<In, Bit>,
    /// One packed activation block a column.
    pub act_data: Vec<Signal<In, Bits<BLOCK_BITS>>>,
    /// What is to travel with the tile; taken with its last step.
    pub tile: Signal<In, Bits<TILE_BITS>>,
    /// What came with the tile whose result `output_scale` multiplies in this cycle.
    pub scaling_tile: Signal<Out, Bits<TILE_BITS>>,
    /// Result is valid.
    pub out_valid: Signal<Out, Bit>,
    /// Result is taken.
    pub out_ready: Signal<In, Bit>,
    /// Last result of the tile.
    pub out_last: Signal<Out, Bit>,
    /// The result, BF16.
    pub out_data: Signal<Out, Bits<16>>,
    /// Its accumulator, two's complement in units of 2^-20.
    pub out_acc: Signal<Out, Bits<ACC>>,
    /// The result is NaN.
    pub out_nan: Signal<Out, Bit>,
    /// What came with its tile.
    pub out_tile: Signal<Out, Bits<TILE_BITS>>,
    /// Sticky: the two input streams disagreed on `last`. A step ends the tile if either says so.
    pub last_mismatch: Signal<Out, Bit>,

    row: Vec<BlockDecoder>,
    column: Vec<BlockDecoder>,
    /// For [`Multiplier::Dsp`]: 16 a row and 16 a column, else none.
    weight_integer: Vec<LaneInteger>,
    act_integer: Vec<LaneInteger>,
    pe: Vec<Pe<ACC>>,

    // Pipeline control, shared by all PEs.
    step: Signal<Local, Bit>,
    step_last: Signal<Local, Bit>,
    advance: Signal<Local, Bit>,
    capture: Signal<Local, Bit>,
    tile_start: Register<Bit>,
    mismatch: Register<Bit>,
    fresh: Register<Bit>,
    valid_moves: Signal<Local, Bit>,
    valid: [PipelineRegister<Bit>; BOUNDARIES],
    first: [PipelineRegister<Bit>; BOUNDARIES],
    last: [PipelineRegister<Bit>; BOUNDARIES],
    tiles: [PipelineRegister<Bits<TILE_BITS>>; BOUNDARIES],

    // Draining of a finished tile.
    draining: Register<Bit>,
    draining_tile: DataRegister<Bits<TILE_BITS>>,
    drain_index: Register<Bits<16>>,
    final_index: Constant<Bits<16>>,
    drain_final: Signal<Local, Bit>,
    result: MuxN<Bits<ACC>, 16>,
    result_nan: MuxN<Bits<1>, 16>,
    drain_ready: Signal<Local, Bit>,
    /// One, or none: then results leave as accumulators, and `out_data` is 0.
    requantizer: Vec<Requantizer<ACC>>,

    _requantizers: usize,
    _rows: usize,
    _cols: usize,
    _shifting: usize,
    _integer: usize,
}

impl<const ACC: usize> PeArray<ACC> {
    /// An array of `rows` x `cols` PEs of so many `stages` ([`boundaries`]); the caller has validated both sides to be at least
    /// one and their product to be at most 2^16.
    #[must_use]
    pub fn new(rows: usize, cols: usize, stages: usize, multiplier: Multiplier) -> Self {
        Self::with_units(rows, cols, stages, multiplier, BLOCK, 1)
    }

    /// The same for a small device: with `lanes` below 16 the others are fed zeros, which synthesis of the flat design removes; with 0 `requantizers` in
    /// place of 1 results are accumulators only, and `output_scale` means nothing.
    #[must_use]
    pub fn with_units(
        rows: usize,
        cols: usize,
        stages: usize,
        multiplier: Multiplier,
        lanes: usize,
        requantizers: usize,
    ) -> Self {
        let (shifting, integer) = match multiplier {
            Multiplier::Lut => (BLOCK, 0),
            Multiplier::Dsp => (0, BLOCK),
        };
        let chain = || boundaries(stages).map(PipelineRegister::new);
        Self {
            clock: Default::default(),
            reset: Default::default(),
            output_scale: Default::default(),
            weight_valid: Default::default(),
            weight_ready: Default::default(),
            weight_last: Default::default(),
            weight_data: (0..rows).map(|_| Default::default()).collect(),
            act_valid: Default::default(),
            act_ready: Default::default(),
            act_last: Default::default(),
            act_data: (0..cols).map(|_| Default::default()).collect(),
            tile: Default::default(),
            scaling_tile: Default::default(),
            out_valid: Default::default(),
            out_ready: Default::default(),
            out_last: Default::default(),
            out_data: Default::default(),
            out_acc: Default::default(),
            out_nan: Default::default(),
            out_tile: Default::default(),
            last_mismatch: Default::default(),
            row: (0..rows).map(|_| BlockDecoder::with_lanes(lanes)).collect(),
            column: (0..cols).map(|_| BlockDecoder::with_lanes(lanes)).collect(),
            weight_integer: (0..rows * integer).map(|_| Default::default()).collect(),
            act_integer: (0..cols * integer).map(|_| Default::default()).collect(),
            pe: (0..rows * cols)
                .map(|_| Pe::new(stages, multiplier))
                .collect(),
            step: Default::default(),
            step_last: Default::default(),
            advance: Default::default(),
            capture: Default::default(),
            tile_start: Register::new(true),
            mismatch: Default::default(),
            fresh: Register::new(true),
            valid_moves: Default::default(),
            valid: chain(),
            first: chain(),
            last: chain(),
            tiles: boundaries(stages).map(PipelineRegister::new),
            draining: Default::default(),
            draining_tile: Default::default(),
            drain_index: Default::default(),
            final_index: Constant::new((rows as u64 * cols as u64 - 1).into()),
            drain_final: Default::default(),
            result: MuxN::new(rows * cols),
            result_nan: MuxN::new(rows * cols),
            drain_ready: Default::default(),
            requantizer: (0..requantizers)
                .map(|_| Requantizer::new(multiplier))
                .collect(),
            _requantizers: requantizers,
            _rows: rows,
            _cols: cols,
            _shifting: shifting,
            _integer: integer,
        }
    }
}

/// rows x cols PEs fed by one weight block a row and one activation block a column a step;
/// any of the four modes in every PE at every step.
///
/// Results leave token by token: column 0 from row 0 on, then column 1.
#[kernel]
impl<const ACC: usize> Logic for PeArray<ACC> {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            tile_start,
            mismatch,
            fresh,
            draining,
            drain_index
        );
        data_registers!(self, clock, draining_tile);

        self.drain_ready.next = self.out_ready.val();
        for i in 0..self._requantizers {
            self.drain_ready.next = self.requantizer[i].in_ready.val();
        }
        // A step needs both streams. It waits only when a finished tile reaches the result
        // registers while the one before it has not left them.
        self.drain_final.next = self.draining.q.val()
            && self.drain_ready.val()
            && self.drain_index.q.val() == self.final_index.val();
        self.advance.next = !(self.valid[7].q.val()
            && self.last[7].q.val()
            && self.draining.q.val()
            && !self.drain_final.val());
        self.weight_ready.next = self.act_valid.val() && self.advance.val();
        self.act_ready.next = self.weight_valid.val() && self.advance.val();
        self.step.next = self.weight_valid.val() && self.act_valid.val() && self.advance.val();
        self.step_last.next = self.weight_last.val() || self.act_last.val();
        self.capture.next = self.valid[7].q.val() && self.last[7].q.val() && self.advance.val();

        if self.step.val() {
            self.tile_start.d.next = self.step_last.val();
            if self.weight_last.val() != self.act_last.val() {
                self.mismatch.d.next = true;
            }
        }
        self.last_mismatch.next = self.mismatch.q.val();
        if self.valid[7].q.val() {
            self.fresh.d.next = false;
        }
        // A valid bit goes with every pair through the PEs; reset clears them all.
        self.valid_moves.next = self.advance.val() || self.reset.val();
        for i in 0..BOUNDARIES {
            pipeline_registers!(self, clock, valid_moves, valid[i]);
            pipeline_registers!(self, clock, advance, first[i], last[i], tiles[i]);
        }
        self.valid[0].d.next = self.step.val() && !self.reset.val();
        self.first[0].d.next = self.tile_start.q.val();
        self.last[0].d.next = self.step_last.val();
        self.tiles[0].d.next = self.tile.val();
        for i in 1..BOUNDARIES {
            self.valid[i].d.next = self.valid[i - 1].q.val() && !self.reset.val();
            self.first[i].d.next = self.first[i - 1].q.val();
            self.last[i].d.next = self.last[i - 1].q.val();
            self.tiles[i].d.next = self.tiles[i - 1].q.val();
        }

        for r in 0..self._rows {
            self.row[r].block.next = self.weight_data[r].val();
        }
        for c in 0..self._cols {
            self.column[c].block.next = self.act_data[c].val();
        }
        for i in 0..self._integer {
            for r in 0..self._rows {
                self.weight_integer[r * BLOCK + i].lane.next = self.row[r].lane[i].val();
            }
            for c in 0..self._cols {
                self.act_integer[c * BLOCK + i].lane.next = self.column[c].lane[i].val();
            }
        }
        for rows in self._rows..(self._rows + 1) {
            for cols in self._cols..(self._cols + 1) {
                for r in 0..self._rows {
                    for c in 0..self._cols {
                        self.pe[r * cols + c].clock.next = self.clock.val();
                        self.pe[r * cols + c].enable[0].next = self.step.val();
                        for i in 1..BOUNDARIES {
                            self.pe[r * cols + c].enable[i].next =
                                self.valid[i - 1].q.val() && self.advance.val();
                        }
                        self.pe[r * cols + c].fresh.next = self.fresh.q.val();
                        self.pe[r * cols + c].accumulate.next =
                            self.valid[7].q.val() && self.advance.val();
                        self.pe[r * cols + c].first.next = self.first[7].q.val();
                        self.pe[r * cols + c].capture.next = self.last[7].q.val();
                        self.pe[r * cols + c].weight_fp8.next = self.row[r].fp8.val();
                        self.pe[r * cols + c].weight_nan.next = self.row[r].nan.val();
                        self.pe[r * cols + c].weight_scale.next = self.row[r].scale.val();
                        self.pe[r * cols + c].act_fp8.next = self.column[c].fp8.val();
                        self.pe[r * cols + c].act_nan.next = self.column[c].nan.val();
                        self.pe[r * cols + c].act_scale.next = self.column[c].scale.val();
                        self.result.a[c * rows + r].next = self.pe[r * cols + c].result.val();
                        self.result_nan.a[c * rows + r].next =
                            self.pe[r * cols + c].result_nan.val().into();
                    }
                }
            }
        }
        for r in 0..self._rows {
            for c in 0..self._cols {
                for cols in self._cols..(self._cols + 1) {
                    for i in 0..self._shifting {
                        self.pe[r * cols + c].weight[i].next = self.row[r].lane[i].val();
                        self.pe[r * cols + c].act[i].next = self.column[c].lane[i].val();
                    }
                    for i in 0..self._integer {
                        self.pe[r * cols + c].weight_integer[i].next =
                            self.weight_integer[r * BLOCK + i].value.val();
                        self.pe[r * cols + c].act_integer[i].next =
                            self.act_integer[c * BLOCK + i].value.val();
                    }
                }
            }
        }

        // Draining.
        self.result.select.next = self.drain_index.q.val();
        self.result_nan.select.next = self.drain_index.q.val();
        if self.draining.q.val() && self.drain_ready.val() {
            self.drain_index.d.next = self.drain_index.q.val() + 1;
        }
        if self.drain_final.val() {
            self.drain_index.d.next = 0.into();
            self.draining.d.next = false;
        }
        if self.capture.val() {
            self.draining.d.next = true;
            self.draining_tile.d.next = self.tiles[7].q.val();
        }

        self.out_valid.next = self.draining.q.val();
        self.out_last.next = self.drain_index.q.val() == self.final_index.val();
        self.out_data.next = 0.into();
        self.out_acc.next = self.result.y.val();
        self.out_nan.next = self.result_nan.y.val().any();
        self.out_tile.next = self.draining_tile.q.val();
        self.scaling_tile.next = self.draining_tile.q.val();
        for i in 0..self._requantizers {
            self.requantizer[i].clock.next = self.clock.val();
            self.requantizer[i].reset.next = self.reset.val();
            self.requantizer[i].output_scale.next = self.output_scale.val();
            self.requantizer[i].in_valid.next = self.draining.q.val();
            self.requantizer[i].in_last.next = self.drain_index.q.val() == self.final_index.val();
            self.requantizer[i].in_acc.next = self.result.y.val();
            self.requantizer[i].in_nan.next = self.result_nan.y.val().any();
            self.requantizer[i].in_tile.next = self.draining_tile.q.val();
            self.requantizer[i].out_ready.next = self.out_ready.val();
            self.out_valid.next = self.requantizer[i].out_valid.val();
            self.out_last.next = self.requantizer[i].out_last.val();
            self.out_data.next = self.requantizer[i].out_data.val();
            self.out_acc.next = self.requantizer[i].out_acc.val();
            self.out_nan.next = self.requantizer[i].out_nan.val();
            self.out_tile.next = self.requantizer[i].out_tile.val();
            self.scaling_tile.next = self.requantizer[i].scaling_tile.val();
        }
    }
}
