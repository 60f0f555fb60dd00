//! The steps of a product: which blocks of the memories meet in which cycle.

use crate::memory::ADDRESS;
use crate::prelude::*;

/// Walks tiles of weights, in them tiles of activations, in them K, one step a cycle.
///
/// The tiles of weights lie one behind the other in the rows' memories, those of activations in the columns'.
#[derive(LogicBlock, PortAccess, Default)]
pub struct StepSequencer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Begin; the numbers below hold until the last step. None of the counts is zero.
    pub start: Signal<In, Bit>,
    /// Address of the first tile of weights.
    pub weight_first: Signal<In, Bits<ADDRESS>>,
    /// Address of the first tile of activations.
    pub act_first: Signal<In, Bits<ADDRESS>>,
    /// Blocks of a row, K / 16.
    pub blocks: Signal<In, Bits<16>>,
    /// Tiles of weights.
    pub weight_tiles: Signal<In, Bits<8>>,
    /// Tiles of activations.
    pub act_tiles: Signal<In, Bits<8>>,
    /// Steps are still to come.
    pub busy: Signal<Out, Bit>,
    /// Read the memories.
    pub read: Signal<Out, Bit>,
    /// Address in the rows' memories.
    pub weight_address: Signal<Out, Bits<ADDRESS>>,
    /// Address in the columns' memories.
    pub act_address: Signal<Out, Bits<ADDRESS>>,
    /// What was read is a step.
    pub step_valid: Signal<Out, Bit>,
    /// It is the last of its tile.
    pub step_last: Signal<Out, Bit>,
    /// The array takes it.
    pub step_ready: Signal<In, Bit>,

    active: Register<Bit>,
    valid: Register<Bit>,
    last: DataRegister<Bit>,
    weight_base: DataRegister<Bits<ADDRESS>>,
    weight_at: DataRegister<Bits<ADDRESS>>,
    act_at: DataRegister<Bits<ADDRESS>>,
    blocks_left: DataRegister<Bits<16>>,
    weights_left: DataRegister<Bits<8>>,
    acts_left: DataRegister<Bits<8>>,
    advance: Signal<Local, Bit>,
    issue: Signal<Local, Bit>,
    last_block: Signal<Local, Bit>,
}

/// One block of each memory a cycle, as long as the array takes them.
#[kernel]
impl Logic for StepSequencer {
    fn update(&mut self) {
        registers!(self, clock, reset, active, valid);
        data_registers!(
            self,
            clock,
            last,
            weight_base,
            weight_at,
            act_at,
            blocks_left,
            weights_left,
            acts_left
        );
        self.advance.next = !self.valid.q.val() || self.step_ready.val();
        self.issue.next = self.active.q.val() && self.advance.val();
        self.last_block.next = self.blocks_left.q.val() == 1;
        self.read.next = self.issue.val();
        self.weight_address.next = self.weight_at.q.val();
        self.act_address.next = self.act_at.q.val();
        self.step_valid.next = self.valid.q.val();
        self.step_last.next = self.last.q.val();
        self.busy.next = self.active.q.val() || self.valid.q.val();
        if self.advance.val() {
            self.valid.d.next = self.issue.val();
        }
        if self.issue.val() {
            self.last.d.next = self.last_block.val();
            self.weight_at.d.next = self.weight_at.q.val() + 1;
            self.act_at.d.next = self.act_at.q.val() + 1;
            self.blocks_left.d.next = self.blocks_left.q.val() - 1;
            if self.last_block.val() {
                self.blocks_left.d.next = self.blocks.val();
                self.acts_left.d.next = self.acts_left.q.val() - 1;
                self.weight_at.d.next = self.weight_base.q.val();
                if self.acts_left.q.val() == 1 {
                    self.acts_left.d.next = self.act_tiles.val();
                    self.act_at.d.next = self.act_first.val();
                    self.weight_at.d.next = self.weight_at.q.val() + 1;
                    self.weight_base.d.next = self.weight_at.q.val() + 1;
                    self.weights_left.d.next = self.weights_left.q.val() - 1;
                    if self.weights_left.q.val() == 1 {
                        self.active.d.next = false;
                    }
                }
            }
        }
        if self.start.val() {
            self.active.d.next = true;
            self.weight_base.d.next = self.weight_first.val();
            self.weight_at.d.next = self.weight_first.val();
            self.act_at.d.next = self.act_first.val();
            self.blocks_left.d.next = self.blocks.val();
            self.weights_left.d.next = self.weight_tiles.val();
            self.acts_left.d.next = self.act_tiles.val();
        }
    }
}
