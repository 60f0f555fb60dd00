//! Frames: from bytes of the line to a command in memory, from a reply in memory to bytes of the line. Twin of [`super::protocol::Deframer`] and [`super::protocol::encode`].

use super::protocol::{
    CHECK_BYTES, COMMAND_HEADER, CRC_POLYNOMIAL, CRC_RESIDUE, ESCAPE, ESCAPE_XOR, FLAG,
    MAX_COMMAND, REPLY_HEADER,
};
use crate::prelude::*;

/// Bits of a place within a frame.
pub const FRAME_ADDRESS: usize = 9;
/// Bits of a length: a frame may fill its memory.
pub const FRAME_LENGTH: usize = 10;

/// The register of CRC-32, a bit a cycle.
#[derive(LogicBlock, PortAccess)]
pub struct CrcRegister {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Begin anew.
    pub clear: Signal<In, Bit>,
    /// Take a byte, which may not come while another is being taken.
    pub take: Signal<In, Bit>,
    /// It.
    pub data: Signal<In, Bits<8>>,
    /// Bits of the last byte are still to be taken.
    pub busy: Signal<Out, Bit>,
    /// The register, not inverted.
    pub value: Signal<Out, Bits<32>>,

    remainder: DataRegister<Bits<32>>,
    pending: DataRegister<Bits<8>>,
    left: DataRegister<Bits<4>>,
    polynomial: Constant<Bits<32>>,
    feedback: Signal<Local, Bit>,
}

impl Default for CrcRegister {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            clear: Default::default(),
            take: Default::default(),
            data: Default::default(),
            busy: Default::default(),
            value: Default::default(),
            remainder: Default::default(),
            pending: Default::default(),
            left: Default::default(),
            polynomial: Constant::new(u64::from(CRC_POLYNOMIAL).into()),
            feedback: Default::default(),
        }
    }
}

/// CRC-32 of IEEE 802.3 over bytes, eight cycles each.
#[kernel]
impl Logic for CrcRegister {
    fn update(&mut self) {
        data_registers!(self, clock, remainder, pending, left);
        self.value.next = self.remainder.q.val();
        self.busy.next = self.left.q.val().any();
        self.feedback.next = self.remainder.q.val().get_bit(0) ^ self.pending.q.val().get_bit(0);
        if self.left.q.val().any() {
            self.left.d.next = self.left.q.val() - 1;
            self.pending.d.next = self.pending.q.val() >> 1;
            self.remainder.d.next = self.remainder.q.val() >> 1;
            if self.feedback.val() {
                self.remainder.d.next = (self.remainder.q.val() >> 1) ^ self.polynomial.val();
            }
        }
        if self.take.val() {
            self.left.d.next = 8.into();
            self.pending.d.next = self.data.val();
        }
        if self.clear.val() {
            self.remainder.d.next = 0xFFFF_FFFF_u64.into();
            self.left.d.next = 0.into();
        }
    }
}

/// Finds frames among the line's bytes and puts their contents into one half of the command memory.
///
/// A frame is only announced when it is intact; a half that holds an announced frame is free again when `retire` says so.
#[derive(LogicBlock, PortAccess)]
pub struct FrameReceiver {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A byte has come.
    pub valid: Signal<In, Bit>,
    /// It.
    pub data: Signal<In, Bits<8>>,
    /// A byte without a stop bit has come.
    pub broken: Signal<In, Bit>,
    /// Write a byte of content to the command memory.
    pub write: Signal<Out, Bit>,
    /// Half and place.
    pub write_address: Signal<Out, Bits<10>>,
    /// The byte.
    pub write_data: Signal<Out, Bits<8>>,
    /// An intact frame waits or is executed.
    pub waiting: Signal<Out, Bit>,
    /// Half of the oldest one.
    pub half: Signal<Out, Bit>,
    /// Bytes of its content.
    pub length: Signal<Out, Bits<FRAME_LENGTH>>,
    /// It is executed; its half is free.
    pub retire: Signal<In, Bit>,
    /// An intact frame has come.
    pub good: Signal<Out, Bit>,
    /// A frame was damaged.
    pub damaged: Signal<Out, Bit>,
    /// A frame came while both halves were in use.
    pub overrun: Signal<Out, Bit>,

    crc: CrcRegister,
    count: Register<Bits<FRAME_LENGTH>>,
    begun: Register<Bit>,
    escaped: Register<Bit>,
    spoiled: Register<Bit>,
    dropped: Register<Bit>,
    waits: [Register<Bit>; 2],
    lengths: [DataRegister<Bits<FRAME_LENGTH>>; 2],
    fill: Register<Bit>,
    oldest: Register<Bit>,
    residue: Constant<Bits<32>>,
    most: Constant<Bits<FRAME_LENGTH>>,
    check_bytes: Constant<Bits<FRAME_LENGTH>>,
    least: Constant<Bits<FRAME_LENGTH>>,
    flag: Signal<Local, Bit>,
    escape: Signal<Local, Bit>,
    plain: Signal<Local, Bits<8>>,
    content: Signal<Local, Bit>,
    room: Signal<Local, Bit>,
    intact: Signal<Local, Bit>,
    accept: Signal<Local, Bit>,
    full: Signal<Local, Bit>,
    half_bits: Signal<Local, Bits<10>>,
}

impl Default for FrameReceiver {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            valid: Default::default(),
            data: Default::default(),
            broken: Default::default(),
            write: Default::default(),
            write_address: Default::default(),
            write_data: Default::default(),
            waiting: Default::default(),
            half: Default::default(),
            length: Default::default(),
            retire: Default::default(),
            good: Default::default(),
            damaged: Default::default(),
            overrun: Default::default(),
            crc: CrcRegister::default(),
            count: Default::default(),
            begun: Default::default(),
            escaped: Default::default(),
            spoiled: Default::default(),
            dropped: Default::default(),
            waits: Default::default(),
            lengths: Default::default(),
            fill: Default::default(),
            oldest: Default::default(),
            residue: Constant::new(u64::from(CRC_RESIDUE).into()),
            most: Constant::new(((MAX_COMMAND + CHECK_BYTES) as u64).into()),
            check_bytes: Constant::new((CHECK_BYTES as u64).into()),
            least: Constant::new(((COMMAND_HEADER + CHECK_BYTES) as u64).into()),
            flag: Default::default(),
            escape: Default::default(),
            plain: Default::default(),
            content: Default::default(),
            room: Default::default(),
            intact: Default::default(),
            accept: Default::default(),
            full: Default::default(),
            half_bits: Default::default(),
        }
    }
}

/// Frames from a serial line: flags and escapes undone, CRC-32 checked, content in the half of the command memory whose turn it is.
#[kernel]
impl Logic for FrameReceiver {
    fn update(&mut self) {
        registers!(
            self, clock, reset, count, begun, escaped, spoiled, dropped, waits[0], waits[1], fill,
            oldest
        );
        data_registers!(self, clock, lengths[0], lengths[1]);

        self.flag.next = self.valid.val() && self.data.val() == FLAG.to_bits::<8>();
        self.escape.next = self.valid.val() && self.data.val() == ESCAPE.to_bits::<8>();
        self.plain.next = self.data.val();
        if self.escaped.q.val() {
            self.plain.next = self.data.val() ^ ESCAPE_XOR.to_bits::<8>();
        }
        self.content.next = self.valid.val() && !self.flag.val() && !self.escape.val();
        self.room.next = self.count.q.val() != self.most.val();
        self.full.next = self.waits[0].q.val() && self.waits[1].q.val();

        // A frame for which no half is free is dropped as a whole.
        self.half_bits.next = bit_cast::<10, 1>(self.fill.q.val().into()) << 9;
        self.write.next = self.content.val()
            && self.room.val()
            && !self.dropped.q.val()
            && (self.begun.q.val() || !self.full.val());
        self.write_address.next = self.half_bits.val()
            | bit_cast::<10, FRAME_ADDRESS>(self.count.q.val().get_bits::<FRAME_ADDRESS>(0));
        self.write_data.next = self.plain.val();
        self.crc.clock.next = self.clock.val();
        self.crc.clear.next = self.flag.val() || self.reset.val();
        self.crc.take.next = self.content.val();
        self.crc.data.next = self.plain.val();

        self.intact.next = self.crc.value.val() == self.residue.val()
            && !self.escaped.q.val()
            && !self.spoiled.q.val()
            && self.count.q.val() >= self.least.val();
        self.accept.next =
            self.flag.val() && self.begun.q.val() && self.intact.val() && !self.dropped.q.val();
        self.good.next = self.accept.val();
        self.damaged.next = self.flag.val() && self.begun.q.val() && !self.intact.val();
        self.overrun.next =
            self.flag.val() && self.begun.q.val() && self.intact.val() && self.dropped.q.val();

        if self.content.val() {
            self.escaped.d.next = false;
            if self.room.val() {
                self.count.d.next = self.count.q.val() + 1;
            } else {
                self.spoiled.d.next = true;
            }
        }
        if self.escape.val() {
            self.escaped.d.next = true;
            if self.escaped.q.val() {
                self.spoiled.d.next = true;
            }
        }
        if self.broken.val() {
            self.spoiled.d.next = true;
        }
        if self.content.val() || self.escape.val() || self.broken.val() {
            self.begun.d.next = true;
            if !self.begun.q.val() && self.full.val() {
                self.dropped.d.next = true;
            }
        }
        if self.flag.val() {
            self.count.d.next = 0.into();
            self.begun.d.next = false;
            self.escaped.d.next = false;
            self.spoiled.d.next = false;
            self.dropped.d.next = false;
        }

        self.waiting.next = self.waits[0].q.val();
        self.length.next = self.lengths[0].q.val();
        if self.oldest.q.val() {
            self.waiting.next = self.waits[1].q.val();
            self.length.next = self.lengths[1].q.val();
        }
        self.half.next = self.oldest.q.val();
        if self.retire.val() {
            self.oldest.d.next = !self.oldest.q.val();
            if self.oldest.q.val() {
                self.waits[1].d.next = false;
            } else {
                self.waits[0].d.next = false;
            }
        }
        if self.accept.val() {
            self.fill.d.next = !self.fill.q.val();
            if self.fill.q.val() {
                self.waits[1].d.next = true;
                self.lengths[1].d.next = self.count.q.val() - self.check_bytes.val();
            } else {
                self.waits[0].d.next = true;
                self.lengths[0].d.next = self.count.q.val() - self.check_bytes.val();
            }
        }
    }
}

/// Sends a reply: its header from ports, its body from the reply memory.
#[derive(LogicBlock, PortAccess)]
pub struct FrameSender {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Send a reply; for one cycle.
    pub start: Signal<In, Bit>,
    /// Nothing is being sent.
    pub idle: Signal<Out, Bit>,
    /// Session, sequence, status, expected, the first lowest.
    pub header: Signal<In, Bits<32>>,
    /// Bytes of the body.
    pub body_length: Signal<In, Bits<FRAME_LENGTH>>,
    /// Place in the reply memory that is read in this cycle.
    pub read_address: Signal<Out, Bits<FRAME_ADDRESS>>,
    /// What was read in the cycle before.
    pub read_data: Signal<In, Bits<8>>,
    /// Byte for the line is valid.
    pub valid: Signal<Out, Bit>,
    /// It is taken.
    pub ready: Signal<In, Bit>,
    /// It.
    pub data: Signal<Out, Bits<8>>,

    crc: CrcRegister,
    sending: Register<Bit>,
    first_flag: Register<Bit>,
    last_flag: Register<Bit>,
    fetched: Register<Bit>,
    escaping: Register<Bit>,
    checking: Register<Bit>,
    index: DataRegister<Bits<FRAME_LENGTH>>,
    check_index: DataRegister<Bits<2>>,
    current: DataRegister<Bits<8>>,
    head: DataRegister<Bits<32>>,
    content_length: DataRegister<Bits<FRAME_LENGTH>>,
    check: Signal<Local, Bits<32>>,
    check_shift: Signal<Local, Bits<5>>,
    check_byte: Signal<Local, Bits<32>>,
    header_bytes: Constant<Bits<FRAME_LENGTH>>,
    in_header: Signal<Local, Bit>,
    special: Signal<Local, Bit>,
    fetch: Signal<Local, Bit>,
    sent: Signal<Local, Bit>,
}

impl Default for FrameSender {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            idle: Default::default(),
            header: Default::default(),
            body_length: Default::default(),
            read_address: Default::default(),
            read_data: Default::default(),
            valid: Default::default(),
            ready: Default::default(),
            data: Default::default(),
            crc: CrcRegister::default(),
            sending: Default::default(),
            first_flag: Default::default(),
            last_flag: Default::default(),
            fetched: Default::default(),
            escaping: Default::default(),
            checking: Default::default(),
            index: Default::default(),
            check_index: Default::default(),
            current: Default::default(),
            head: Default::default(),
            content_length: Default::default(),
            check: Default::default(),
            check_shift: Default::default(),
            check_byte: Default::default(),
            header_bytes: Constant::new((REPLY_HEADER as u64).into()),
            in_header: Default::default(),
            special: Default::default(),
            fetch: Default::default(),
            sent: Default::default(),
        }
    }
}

/// A reply as a frame: flag, header, body, CRC-32, flag, with escapes.
///
/// A byte is fetched when the one before it has left and its eight bits are in the CRC.
#[kernel]
impl Logic for FrameSender {
    fn update(&mut self) {
        registers!(
            self, clock, reset, sending, first_flag, last_flag, fetched, escaping, checking
        );
        data_registers!(
            self,
            clock,
            index,
            check_index,
            current,
            head,
            content_length
        );

        self.idle.next = !self.sending.q.val();
        self.in_header.next = self.index.q.val() < self.header_bytes.val();
        self.read_address.next =
            (self.index.q.val() - self.header_bytes.val()).get_bits::<FRAME_ADDRESS>(0);
        self.special.next = self.current.q.val() == FLAG.to_bits::<8>()
            || self.current.q.val() == ESCAPE.to_bits::<8>();

        self.valid.next = self.first_flag.q.val() || self.last_flag.q.val() || self.fetched.q.val();
        self.data.next = self.current.q.val();
        if self.fetched.q.val() && self.special.val() {
            self.data.next = ESCAPE.to_bits::<8>();
        }
        if self.escaping.q.val() {
            self.data.next = self.current.q.val() ^ ESCAPE_XOR.to_bits::<8>();
        }
        if self.first_flag.q.val() || self.last_flag.q.val() {
            self.data.next = FLAG.to_bits::<8>();
        }
        self.sent.next = self.valid.val() && self.ready.val();

        self.check.next = !self.crc.value.val();
        self.check_shift.next = bit_cast::<5, 2>(self.check_index.q.val()) << 3;
        self.check_byte.next = self.check.val() >> self.check_shift.val();

        // A byte of the body stands at `read_data` a cycle after its address did.
        self.fetch.next = self.sending.q.val()
            && !self.first_flag.q.val()
            && !self.last_flag.q.val()
            && !self.fetched.q.val()
            && !self.crc.busy.val();
        self.crc.clock.next = self.clock.val();
        self.crc.clear.next = self.first_flag.q.val();
        self.crc.take.next = false;
        self.crc.data.next = self.current.q.val();

        if self.sent.val() {
            if self.first_flag.q.val() {
                self.first_flag.d.next = false;
            } else if self.last_flag.q.val() {
                self.last_flag.d.next = false;
                self.sending.d.next = false;
            } else if self.special.val() && !self.escaping.q.val() {
                self.escaping.d.next = true;
            } else {
                self.escaping.d.next = false;
                self.fetched.d.next = false;
                if self.checking.q.val() {
                    self.check_index.d.next = self.check_index.q.val() + 1;
                    if self.check_index.q.val().all() {
                        self.checking.d.next = false;
                        self.last_flag.d.next = true;
                    }
                } else {
                    self.crc.take.next = true;
                    self.index.d.next = self.index.q.val() + 1;
                    self.head.d.next = self.head.q.val() >> 8;
                }
            }
        }
        if self.fetch.val() {
            self.fetched.d.next = true;
            self.current.d.next = self.read_data.val();
            if self.in_header.val() {
                self.current.d.next = self.head.q.val().get_bits::<8>(0);
            }
            if self.index.q.val() == self.content_length.q.val() {
                self.checking.d.next = true;
                self.current.d.next = self.check_byte.val().get_bits::<8>(0);
            }
        }
        if self.start.val() {
            self.sending.d.next = true;
            self.first_flag.d.next = true;
            self.index.d.next = 0.into();
            self.check_index.d.next = 0.into();
            self.head.d.next = self.header.val();
            self.content_length.d.next = self.body_length.val() + self.header_bytes.val();
        }
    }
}
