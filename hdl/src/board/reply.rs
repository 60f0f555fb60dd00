//! The body of a reply.

use super::frame::{FRAME_ADDRESS, FRAME_LENGTH};
use super::protocol::MAX_REPLY_BODY;
use crate::prelude::*;

/// Writes values of up to eight bytes, low byte first, one behind the other into the reply memory.
#[derive(LogicBlock, PortAccess)]
pub struct ReplyWriter {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Begin an empty body.
    pub clear: Signal<In, Bit>,
    /// A value is offered.
    pub valid: Signal<In, Bit>,
    /// It is taken.
    pub ready: Signal<Out, Bit>,
    /// It.
    pub value: Signal<In, Bits<64>>,
    /// Its bytes.
    pub bytes: Signal<In, Bits<4>>,
    /// Bytes are still to be written.
    pub busy: Signal<Out, Bit>,
    /// Bytes of the body so far.
    pub length: Signal<Out, Bits<FRAME_LENGTH>>,
    /// The body was to become longer than a reply; what didn't fit is lost.
    pub overflow: Signal<Out, Bit>,
    /// Write the reply memory.
    pub write: Signal<Out, Bit>,
    /// Place in it.
    pub write_address: Signal<Out, Bits<FRAME_ADDRESS>>,
    /// The byte.
    pub write_data: Signal<Out, Bits<8>>,

    shift: DataRegister<Bits<64>>,
    left: DataRegister<Bits<4>>,
    place: DataRegister<Bits<FRAME_LENGTH>>,
    over: DataRegister<Bit>,
    most: Constant<Bits<FRAME_LENGTH>>,
    some: Signal<Local, Bit>,
    full: Signal<Local, Bit>,
}

impl Default for ReplyWriter {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            clear: Default::default(),
            valid: Default::default(),
            ready: Default::default(),
            value: Default::default(),
            bytes: Default::default(),
            busy: Default::default(),
            length: Default::default(),
            overflow: Default::default(),
            write: Default::default(),
            write_address: Default::default(),
            write_data: Default::default(),
            shift: Default::default(),
            left: Default::default(),
            place: Default::default(),
            over: Default::default(),
            most: Constant::new((MAX_REPLY_BODY as u64).into()),
            some: Default::default(),
            full: Default::default(),
        }
    }
}

/// Values to bytes of the reply memory, one a cycle.
#[kernel]
impl Logic for ReplyWriter {
    fn update(&mut self) {
        data_registers!(self, clock, shift, left, place, over);
        self.some.next = self.left.q.val().any();
        self.full.next = self.place.q.val() == self.most.val();
        self.busy.next = self.some.val();
        self.ready.next = !self.some.val();
        self.length.next = self.place.q.val();
        self.overflow.next = self.over.q.val();
        self.write.next = self.some.val() && !self.full.val();
        self.write_address.next = self.place.q.val().get_bits::<FRAME_ADDRESS>(0);
        self.write_data.next = self.shift.q.val().get_bits::<8>(0);
        if self.some.val() {
            self.left.d.next = self.left.q.val() - 1;
            self.shift.d.next = self.shift.q.val() >> 8;
            if self.full.val() {
                self.over.d.next = true;
            } else {
                self.place.d.next = self.place.q.val() + 1;
            }
        } else if self.valid.val() {
            self.left.d.next = self.bytes.val();
            self.shift.d.next = self.value.val();
        }
        if self.clear.val() {
            self.left.d.next = 0.into();
            self.place.d.next = 0.into();
            self.over.d.next = false;
        }
    }
}
