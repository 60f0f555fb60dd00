//! AXI4-Lite inside: a master for one access at a time, and the switch between host and player.

use crate::accelerator::registers::AXIL_ADDRESS;
use crate::prelude::*;

/// Bits of the host's byte address: the accelerator's registers, and as much again.
pub const HOST_ADDRESS: usize = AXIL_ADDRESS + 1;
/// The bit that is set for this design's own registers.
pub const OWN_BIT: usize = AXIL_ADDRESS;

/// Makes one AXI4-Lite access at a time.
///
/// `write` or `read` stays high, with address and data, until `done`.
#[derive(LogicBlock, PortAccess, Default)]
pub struct LiteMaster {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A write is wanted.
    pub write: Signal<In, Bit>,
    /// A read is wanted; never together with a write.
    pub read: Signal<In, Bit>,
    /// The access is answered in this cycle.
    pub done: Signal<Out, Bit>,
    /// The answer is an error.
    pub error: Signal<Out, Bit>,
    /// Write address is valid.
    pub awvalid: Signal<Out, Bit>,
    /// It is taken.
    pub awready: Signal<In, Bit>,
    /// Write data is valid.
    pub wvalid: Signal<Out, Bit>,
    /// It is taken.
    pub wready: Signal<In, Bit>,
    /// Write response is valid.
    pub bvalid: Signal<In, Bit>,
    /// It is taken.
    pub bready: Signal<Out, Bit>,
    /// 0 is OKAY.
    pub bresp: Signal<In, Bits<2>>,
    /// Read address is valid.
    pub arvalid: Signal<Out, Bit>,
    /// It is taken.
    pub arready: Signal<In, Bit>,
    /// Read data is valid.
    pub rvalid: Signal<In, Bit>,
    /// It is taken.
    pub rready: Signal<Out, Bit>,
    /// 0 is OKAY.
    pub rresp: Signal<In, Bits<2>>,

    address_taken: Register<Bit>,
    data_taken: Register<Bit>,
}

/// One AXI4-Lite access at a time: `write` or `read` stays high, with address and data, until `done`.
#[kernel]
impl Logic for LiteMaster {
    fn update(&mut self) {
        registers!(self, clock, reset, address_taken, data_taken);
        self.awvalid.next = self.write.val() && !self.address_taken.q.val();
        self.wvalid.next = self.write.val() && !self.data_taken.q.val();
        self.arvalid.next = self.read.val() && !self.address_taken.q.val();
        self.bready.next = self.write.val();
        self.rready.next = self.read.val();
        self.done.next =
            (self.write.val() && self.bvalid.val()) || (self.read.val() && self.rvalid.val());
        self.error.next = (self.write.val() && self.bresp.val().any())
            || (self.read.val() && self.rresp.val().any());
        if (self.write.val() && self.awready.val()) || (self.read.val() && self.arready.val()) {
            self.address_taken.d.next = true;
        }
        if self.write.val() && self.wready.val() {
            self.data_taken.d.next = true;
        }
        if self.done.val() {
            self.address_taken.d.next = false;
            self.data_taken.d.next = false;
        }
    }
}

/// Leads one direction of the host's accesses to this design's own registers or to the accelerator's, which it shares with the player.
///
/// `SwitchPath` is used twice, for writes and for reads: it moves handshakes only, and tells by `to_own` and `to_player` whose address and data count.
#[derive(LogicBlock, PortAccess, Default)]
pub struct SwitchPath {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// The player has the accelerator's registers.
    pub playing: Signal<In, Bit>,
    /// The host's access is valid: for a write, address and data.
    pub host_valid: Signal<In, Bit>,
    /// It is for this design's own registers.
    pub host_own: Signal<In, Bit>,
    /// It is taken.
    pub host_ready: Signal<Out, Bit>,
    /// The host's response is valid.
    pub host_done: Signal<Out, Bit>,
    /// It is taken.
    pub host_done_ready: Signal<In, Bit>,
    /// The response comes from the own registers.
    pub from_own: Signal<Out, Bit>,
    /// The response is SLVERR of this switch.
    pub from_none: Signal<Out, Bit>,
    /// Access to the own registers.
    pub own_valid: Signal<Out, Bit>,
    /// It is taken.
    pub own_ready: Signal<In, Bit>,
    /// Their response is valid.
    pub own_done: Signal<In, Bit>,
    /// It is taken.
    pub own_done_ready: Signal<Out, Bit>,
    /// Access to the accelerator's registers from the host.
    pub window_valid: Signal<Out, Bit>,
    /// It is taken.
    pub window_ready: Signal<In, Bit>,
    /// Their response is valid.
    pub window_done: Signal<In, Bit>,
    /// The host takes it.
    pub window_done_ready: Signal<Out, Bit>,
    /// The player's turn: nothing of the host's is under way in the window.
    pub player_turn: Signal<Out, Bit>,

    open: Register<Bit>,
    own: DataRegister<Bit>,
    none: DataRegister<Bit>,
    refuse: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
}

/// Leads the host's accesses in one direction, one at a time, to the own registers or through the window to the accelerator's.
///
/// While the player has the window, an access to it answers SLVERR instead of waiting: a host that waited on the bus could not bring the data that the pass waits for.
#[kernel]
impl Logic for SwitchPath {
    fn update(&mut self) {
        registers!(self, clock, reset, open);
        data_registers!(self, clock, own, none);
        self.own_valid.next = self.host_valid.val() && self.host_own.val() && !self.open.q.val();
        self.window_valid.next = self.host_valid.val()
            && !self.host_own.val()
            && !self.open.q.val()
            && !self.playing.val();
        self.refuse.next = self.host_valid.val()
            && !self.host_own.val()
            && !self.open.q.val()
            && self.playing.val();
        self.take.next = (self.own_valid.val() && self.own_ready.val())
            || (self.window_valid.val() && self.window_ready.val())
            || self.refuse.val();
        self.host_ready.next = self.take.val();
        self.host_done.next = self.open.q.val()
            && (self.none.q.val()
                || (self.own.q.val() && self.own_done.val())
                || (!self.own.q.val() && self.window_done.val()));
        self.from_own.next = self.own.q.val();
        self.from_none.next = self.none.q.val();
        self.own_done_ready.next =
            self.open.q.val() && self.own.q.val() && self.host_done_ready.val();
        self.window_done_ready.next = self.open.q.val()
            && !self.own.q.val()
            && !self.none.q.val()
            && self.host_done_ready.val();
        self.player_turn.next =
            self.playing.val() && (!self.open.q.val() || self.own.q.val() || self.none.q.val());
        if self.host_done.val() && self.host_done_ready.val() {
            self.open.d.next = false;
        }
        if self.take.val() {
            self.open.d.next = true;
            self.own.d.next = self.host_own.val();
            self.none.d.next = self.refuse.val();
        }
    }
}
