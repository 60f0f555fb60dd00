//! Sessions and sequence numbers: which waiting frame is executed, and what each is answered.

use super::frame::{FRAME_ADDRESS, FRAME_LENGTH};
use super::protocol::{COMMAND_HEADER, Operation, Status};
use crate::prelude::*;

const OPEN: u8 = Operation::Open as u8;
const DAMAGED: u8 = Status::Damaged as u8;
const OUT_OF_ORDER: u8 = Status::OutOfOrder as u8;
const CLOSED: u8 = Status::Closed as u8;
const OVERRUN: u8 = Status::Overrun as u8;
const REFUSED: u8 = Status::Refused as u8;

/// Takes waiting frames one by one, has the expected one executed, and answers each.
#[derive(LogicBlock, PortAccess)]
pub struct LinkControl {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// An intact frame waits.
    pub waiting: Signal<In, Bit>,
    /// Half of the command memory in which it is.
    pub half: Signal<In, Bit>,
    /// Bytes of its content.
    pub length: Signal<In, Bits<FRAME_LENGTH>>,
    /// It is answered.
    pub retire: Signal<Out, Bit>,
    /// A damaged frame came.
    pub damaged: Signal<In, Bit>,
    /// A frame came while both halves were in use.
    pub overrun: Signal<In, Bit>,
    /// Half and place of the command memory that are read in this cycle.
    pub read_address: Signal<Out, Bits<10>>,
    /// What was read in the cycle before.
    pub read_data: Signal<In, Bits<8>>,

    /// Execute a command; for one cycle.
    pub start: Signal<Out, Bit>,
    /// Its operation.
    pub operation: Signal<Out, Bits<8>>,
    /// Bytes of its body.
    pub body_length: Signal<Out, Bits<FRAME_LENGTH>>,
    /// A byte of its body is there; as long as there are any.
    pub body_valid: Signal<Out, Bit>,
    /// It is taken.
    pub body_ready: Signal<In, Bit>,
    /// It.
    pub body_data: Signal<Out, Bits<8>>,
    /// The command is executed; for one cycle.
    pub done: Signal<In, Bit>,
    /// How it fared.
    pub status: Signal<In, Bits<8>>,
    /// Bytes of the reply's body.
    pub reply_length: Signal<In, Bits<FRAME_LENGTH>>,

    /// Send a reply.
    pub send: Signal<Out, Bit>,
    /// Nothing is being sent.
    pub sender_idle: Signal<In, Bit>,
    /// Session, sequence, status, expected, the first lowest.
    pub send_header: Signal<Out, Bits<32>>,
    /// Bytes of its body.
    pub send_length: Signal<Out, Bits<FRAME_LENGTH>>,

    /// A session is open.
    pub open: Signal<Out, Bit>,
    /// A command is executed.
    pub executing: Signal<Out, Bit>,
    /// An executed command is counted.
    pub count_frame: Signal<Out, Bit>,
    /// A frame that is not executed is counted.
    pub count_refused: Signal<Out, Bit>,

    session: Register<Bits<8>>,
    expected: Register<Bits<8>>,
    last_status: DataRegister<Bits<8>>,
    last_length: DataRegister<Bits<FRAME_LENGTH>>,
    notice_damaged: Register<Bit>,
    notice_overrun: Register<Bit>,

    reading: Register<Bit>,
    deciding: Register<Bit>,
    run: Register<Bit>,
    answer: Register<Bit>,
    position: DataRegister<Bits<FRAME_LENGTH>>,
    frame_session: DataRegister<Bits<8>>,
    frame_sequence: DataRegister<Bits<8>>,
    frame_operation: DataRegister<Bits<8>>,
    answer_status: DataRegister<Bits<8>>,
    answer_length: DataRegister<Bits<FRAME_LENGTH>>,

    header_bytes: Constant<Bits<FRAME_LENGTH>>,
    next_position: Signal<Local, Bits<FRAME_LENGTH>>,
    half_bits: Signal<Local, Bits<10>>,
    free: Signal<Local, Bit>,
    notice: Signal<Local, Bit>,
    take: Signal<Local, Bit>,
    more: Signal<Local, Bit>,
    this_session: Signal<Local, Bit>,
    opens: Signal<Local, Bit>,
    is_open: Signal<Local, Bit>,
    executes: Signal<Local, Bit>,
    repeats: Signal<Local, Bit>,
    following: Signal<Local, Bits<8>>,
    reply_sequence: Signal<Local, Bits<8>>,
    reply_status: Signal<Local, Bits<8>>,
}

impl Default for LinkControl {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            waiting: Default::default(),
            half: Default::default(),
            length: Default::default(),
            retire: Default::default(),
            damaged: Default::default(),
            overrun: Default::default(),
            read_address: Default::default(),
            read_data: Default::default(),
            start: Default::default(),
            operation: Default::default(),
            body_length: Default::default(),
            body_valid: Default::default(),
            body_ready: Default::default(),
            body_data: Default::default(),
            done: Default::default(),
            status: Default::default(),
            reply_length: Default::default(),
            send: Default::default(),
            sender_idle: Default::default(),
            send_header: Default::default(),
            send_length: Default::default(),
            open: Default::default(),
            executing: Default::default(),
            count_frame: Default::default(),
            count_refused: Default::default(),
            session: Default::default(),
            expected: Default::default(),
            last_status: Default::default(),
            last_length: Default::default(),
            notice_damaged: Default::default(),
            notice_overrun: Default::default(),
            reading: Default::default(),
            deciding: Default::default(),
            run: Default::default(),
            answer: Default::default(),
            position: Default::default(),
            frame_session: Default::default(),
            frame_sequence: Default::default(),
            frame_operation: Default::default(),
            answer_status: Default::default(),
            answer_length: Default::default(),
            header_bytes: Constant::new((COMMAND_HEADER as u64).into()),
            next_position: Default::default(),
            half_bits: Default::default(),
            free: Default::default(),
            notice: Default::default(),
            take: Default::default(),
            more: Default::default(),
            this_session: Default::default(),
            opens: Default::default(),
            is_open: Default::default(),
            executes: Default::default(),
            repeats: Default::default(),
            following: Default::default(),
            reply_sequence: Default::default(),
            reply_status: Default::default(),
        }
    }
}

/// Executes each command of the open session once and in order, and answers every frame (the rules are in the page on the link).
///
/// One frame at a time: read its header, decide, execute, answer. The reply memory holds the last executed command's reply until the next one is executed,
/// so that it can be sent again.
#[kernel]
impl Logic for LinkControl {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            session,
            expected,
            notice_damaged,
            notice_overrun,
            reading,
            deciding,
            run,
            answer
        );
        data_registers!(
            self,
            clock,
            last_status,
            last_length,
            position,
            frame_session,
            frame_sequence,
            frame_operation,
            answer_status,
            answer_length
        );

        self.free.next = !self.reading.q.val()
            && !self.deciding.q.val()
            && !self.run.q.val()
            && !self.answer.q.val()
            && self.sender_idle.val();
        // Commands first: what tells of frames that were none can wait.
        self.notice.next = self.free.val()
            && !self.waiting.val()
            && (self.notice_damaged.q.val() || self.notice_overrun.q.val());

        // Bytes of the frame: the memory shows the one at `position`.
        self.more.next = self.position.q.val() != self.length.val();
        self.body_valid.next = self.run.q.val() && self.more.val();
        self.body_data.next = self.read_data.val();
        self.take.next =
            self.reading.q.val() || (self.run.q.val() && self.more.val() && self.body_ready.val());
        self.next_position.next = self.position.q.val();
        if self.take.val() {
            self.next_position.next = self.position.q.val() + 1;
        }
        if self.free.val() {
            self.next_position.next = 0.into();
        }
        self.position.d.next = self.next_position.val();
        self.half_bits.next = bit_cast::<10, 1>(self.half.val().into()) << 9;
        self.read_address.next = self.half_bits.val()
            | bit_cast::<10, FRAME_ADDRESS>(self.next_position.val().get_bits::<FRAME_ADDRESS>(0));

        // The header.
        if self.free.val() && self.waiting.val() {
            self.reading.d.next = true;
        }
        if self.reading.q.val() {
            self.frame_session.d.next = self.frame_sequence.q.val();
            self.frame_sequence.d.next = self.frame_operation.q.val();
            self.frame_operation.d.next = self.read_data.val();
            if self.next_position.val() == self.header_bytes.val() {
                self.reading.d.next = false;
                self.deciding.d.next = true;
            }
        }
        self.operation.next = self.frame_operation.q.val();
        self.body_length.next = self.length.val() - self.header_bytes.val();

        // The decision.
        self.this_session.next =
            self.session.q.val().any() && self.frame_session.q.val() == self.session.q.val();
        self.is_open.next =
            self.frame_operation.q.val() == OPEN.to_bits::<8>() && self.frame_session.q.val().any();
        self.opens.next = self.deciding.q.val()
            && self.is_open.val()
            && !self.this_session.val()
            && self.length.val() == self.header_bytes.val();
        self.following.next = self.frame_sequence.q.val() + 1;
        self.executes.next = self.deciding.q.val()
            && self.this_session.val()
            && !self.is_open.val()
            && self.frame_sequence.q.val() == self.expected.q.val();
        self.repeats.next = self.deciding.q.val()
            && self.this_session.val()
            && !self.is_open.val()
            && self.following.val() == self.expected.q.val();
        self.start.next = self.executes.val();
        self.executing.next = self.run.q.val();
        self.count_frame.next = (self.run.q.val() && self.done.val()) || self.opens.val();
        self.count_refused.next =
            (self.deciding.q.val() && !self.executes.val() && !self.opens.val())
                || self.overrun.val();
        if self.deciding.q.val() {
            self.deciding.d.next = false;
            self.answer.d.next = true;
            self.answer_length.d.next = 0.into();
            self.answer_status.d.next = 0.into();
            if self.is_open.val() {
                if self.length.val() != self.header_bytes.val() {
                    self.answer_status.d.next = REFUSED.to_bits::<8>();
                }
            } else if !self.this_session.val() {
                self.answer_status.d.next = CLOSED.to_bits::<8>();
            } else {
                self.answer_status.d.next = OUT_OF_ORDER.to_bits::<8>();
            }
            if self.opens.val() {
                self.session.d.next = self.frame_session.q.val();
                self.expected.d.next = self.following.val();
                self.last_status.d.next = 0.into();
                self.last_length.d.next = 0.into();
            }
            if self.repeats.val() {
                self.answer_status.d.next = self.last_status.q.val();
                self.answer_length.d.next = self.last_length.q.val();
            }
            if self.executes.val() {
                self.answer.d.next = false;
                self.run.d.next = true;
            }
        }
        if self.run.q.val() && self.done.val() {
            self.run.d.next = false;
            self.answer.d.next = true;
            self.expected.d.next = self.expected.q.val() + 1;
            self.last_status.d.next = self.status.val();
            self.answer_status.d.next = self.status.val();
            self.last_length.d.next = self.reply_length.val();
            self.answer_length.d.next = self.reply_length.val();
        }

        // The answer.
        self.retire.next = self.answer.q.val();
        self.send.next = self.answer.q.val() || self.notice.val();
        self.reply_sequence.next = self.frame_sequence.q.val();
        self.reply_status.next = self.answer_status.q.val();
        self.send_length.next = self.answer_length.q.val();
        if self.answer.q.val() {
            self.answer.d.next = false;
        } else {
            self.reply_sequence.next = self.expected.q.val();
            self.send_length.next = 0.into();
            self.reply_status.next = OVERRUN.to_bits::<8>();
            if self.notice_damaged.q.val() {
                self.reply_status.next = DAMAGED.to_bits::<8>();
            }
        }
        self.send_header.next = bit_cast::<32, 8>(self.session.q.val())
            | (bit_cast::<32, 8>(self.reply_sequence.val()) << 8)
            | (bit_cast::<32, 8>(self.reply_status.val()) << 16)
            | (bit_cast::<32, 8>(self.expected.q.val()) << 24);
        if self.notice.val() {
            self.notice_damaged.d.next = false;
            if !self.notice_damaged.q.val() {
                self.notice_overrun.d.next = false;
            }
        }
        if self.damaged.val() {
            self.notice_damaged.d.next = true;
        }
        if self.overrun.val() {
            self.notice_overrun.d.next = true;
        }
        self.open.next = self.session.q.val().any();
    }
}
