//! Plays a pass's program: the jobs of all matrices of the group of layers, once for all rows in flight.

use super::bus::LiteMaster;
use super::program::{END, OPERATION, PLACE, START, STEP, WRITE};
use crate::accelerator::registers::{AXIL_ADDRESS, mask, place};
use crate::memory::{ADDRESS, Ram};
use crate::prelude::*;

/// What the player does. One step is one access of the bus, or one look at the program.
mod step {
    pub const IDLE: u64 = 0;
    pub const TOKENS: u64 = 1;
    pub const POLL: u64 = 2;
    pub const CHECK: u64 = 3;
    pub const FETCH: u64 = 4;
    pub const HEADER: u64 = 5;
    pub const DATA: u64 = 6;
    pub const START: u64 = 7;
}

const IDLE: u64 = step::IDLE;
const TOKENS: u64 = step::TOKENS;
const POLL: u64 = step::POLL;
const CHECK: u64 = step::CHECK;
const FETCH: u64 = step::FETCH;
const HEADER: u64 = step::HEADER;
const DATA: u64 = step::DATA;
const STARTING: u64 = step::START;

const OP_END: u64 = END as u64;
const OP_WRITE: u64 = WRITE as u64;
const OP_START: u64 = START as u64;

const TOKENS_PLACE: u64 = place::TOKENS as u64;
const STATUS_PLACE: u64 = place::STATUS as u64;
const ERROR_PLACE: u64 = place::ERROR as u64;
const CONTROL_PLACE: u64 = place::CONTROL as u64;
const CONTROL_START: u64 = mask(place::CONTROL, "START") as u64;
const STATUS_BUSY: usize = mask(place::STATUS, "BUSY").trailing_zeros() as usize;
const STATUS_FULL: usize = mask(place::STATUS, "FULL").trailing_zeros() as usize;
const STATUS_CHECKING: usize = mask(place::STATUS, "CHECKING").trailing_zeros() as usize;

/// Replays a program of register writes and job starts, with as many tokens a job as the pass has rows.
#[derive(LogicBlock, PortAccess)]
pub struct PassPlayer {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Play the program; ignored while it is played.
    pub start: Signal<In, Bit>,
    /// Rows of the pass: tokens of its jobs.
    pub rows: Signal<In, Bits<16>>,
    /// Stop behind the access under way.
    pub cancel: Signal<In, Bit>,
    /// The program is being played, or its jobs are not done.
    pub busy: Signal<Out, Bit>,
    /// The player stops because of a fault.
    pub failed: Signal<Out, Bit>,
    /// The accelerator's `ERROR`, since the last start.
    pub job_error: Signal<Out, Bits<8>>,
    /// The accelerator answered an access with an error.
    pub bus_error: Signal<Out, Bit>,
    /// The program has no such operation, a write of no words, or no end.
    pub program_error: Signal<Out, Bit>,
    /// Write the program memory.
    pub program_write: Signal<In, Bit>,
    /// Its word.
    pub program_address: Signal<In, Bits<ADDRESS>>,
    /// What.
    pub program_data: Signal<In, Bits<32>>,
    /// AXI4-Lite master: write address is valid.
    pub awvalid: Signal<Out, Bit>,
    /// It is taken.
    pub awready: Signal<In, Bit>,
    /// Write data is valid.
    pub wvalid: Signal<Out, Bit>,
    /// It is taken.
    pub wready: Signal<In, Bit>,
    /// The data.
    pub wdata: Signal<Out, Bits<32>>,
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
    /// Byte address of the write or the read.
    pub address: Signal<Out, Bits<AXIL_ADDRESS>>,
    /// Read data is valid.
    pub rvalid: Signal<In, Bit>,
    /// It is taken.
    pub rready: Signal<Out, Bit>,
    /// The data.
    pub rdata: Signal<In, Bits<32>>,
    /// 0 is OKAY.
    pub rresp: Signal<In, Bits<2>>,

    master: LiteMaster,
    memory: Ram<32>,
    words: Constant<Bits<ADDRESS>>,
    state: Register<Bits<3>>,
    stopping: Register<Bit>,
    last: DataRegister<Bit>,
    rows_kept: DataRegister<Bits<16>>,
    at: DataRegister<Bits<ADDRESS>>,
    left: DataRegister<Bits<16>>,
    register: DataRegister<Bits<6>>,
    counts_up: DataRegister<Bit>,
    error_seen: Register<Bits<8>>,
    bus_seen: Register<Bit>,
    program_seen: Register<Bit>,
    word: Signal<Local, Bits<32>>,
    operation: Signal<Local, Bits<4>>,
    place: Signal<Local, Bits<6>>,
    access: Signal<Local, Bit>,
    in_memory: Signal<Local, Bit>,
    advance: Signal<Local, Bit>,
    fault: Signal<Local, Bit>,
    job_fault: Signal<Local, Bit>,
    program_fault: Signal<Local, Bit>,
    stop: Signal<Local, Bit>,
}

impl PassPlayer {
    /// With a program memory of so many words, a power of two from 2 to 2^15.
    #[must_use]
    pub fn new(program_words: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            rows: Default::default(),
            cancel: Default::default(),
            busy: Default::default(),
            failed: Default::default(),
            job_error: Default::default(),
            bus_error: Default::default(),
            program_error: Default::default(),
            program_write: Default::default(),
            program_address: Default::default(),
            program_data: Default::default(),
            awvalid: Default::default(),
            awready: Default::default(),
            wvalid: Default::default(),
            wready: Default::default(),
            wdata: Default::default(),
            bvalid: Default::default(),
            bready: Default::default(),
            bresp: Default::default(),
            arvalid: Default::default(),
            arready: Default::default(),
            address: Default::default(),
            rvalid: Default::default(),
            rready: Default::default(),
            rdata: Default::default(),
            rresp: Default::default(),
            master: Default::default(),
            memory: Ram::new(program_words),
            words: Constant::new((program_words as u64).into()),
            state: Default::default(),
            stopping: Default::default(),
            last: Default::default(),
            rows_kept: Default::default(),
            at: Default::default(),
            left: Default::default(),
            register: Default::default(),
            counts_up: Default::default(),
            error_seen: Default::default(),
            bus_seen: Default::default(),
            program_seen: Default::default(),
            word: Default::default(),
            operation: Default::default(),
            place: Default::default(),
            access: Default::default(),
            in_memory: Default::default(),
            advance: Default::default(),
            fault: Default::default(),
            job_fault: Default::default(),
            program_fault: Default::default(),
            stop: Default::default(),
        }
    }
}

/// Plays a pass: writes the number of rows to the accelerator's TOKENS, then replays the program of register writes and job starts, and waits until all jobs are done.
///
/// Before the first job and behind each start it reads STATUS until another job can be queued, and then ERROR: so no start is refused for a full queue, register writes never meet a job
/// that is still being checked, and a refused job ends the pass with its code instead of a wait for results that never come.
#[kernel]
impl Logic for PassPlayer {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            state,
            stopping,
            error_seen,
            bus_seen,
            program_seen
        );
        data_registers!(self, clock, last, rows_kept, at, left, register, counts_up);

        // The program.
        self.memory.clock.next = self.clock.val();
        self.memory.write.next = self.program_write.val();
        self.memory.write_address.next = self.program_address.val();
        self.memory.write_data.next = self.program_data.val();
        self.memory.read_address.next = self.at.q.val();
        self.word.next = self.memory.read_data.val();
        self.operation.next = self.word.val().get_bits::<4>(OPERATION);
        // `at` is the word behind the one that was read.
        self.in_memory.next = self.at.q.val() <= self.words.val();

        // The bus.
        self.master.clock.next = self.clock.val();
        self.master.reset.next = self.reset.val();
        self.master.write.next = self.state.q.val() == TOKENS
            || self.state.q.val() == STARTING
            || (self.state.q.val() == DATA && self.in_memory.val());
        self.master.read.next = self.state.q.val() == POLL || self.state.q.val() == CHECK;
        self.access.next = self.master.done.val();
        self.master.awready.next = self.awready.val();
        self.master.wready.next = self.wready.val();
        self.master.bvalid.next = self.bvalid.val();
        self.master.bresp.next = self.bresp.val();
        self.master.arready.next = self.arready.val();
        self.master.rvalid.next = self.rvalid.val();
        self.master.rresp.next = self.rresp.val();
        self.awvalid.next = self.master.awvalid.val();
        self.wvalid.next = self.master.wvalid.val();
        self.bready.next = self.master.bready.val();
        self.arvalid.next = self.master.arvalid.val();
        self.rready.next = self.master.rready.val();
        self.place.next = self.register.q.val();
        self.wdata.next = self.word.val();
        if self.state.q.val() == TOKENS {
            self.place.next = TOKENS_PLACE.into();
            self.wdata.next = bit_cast::<32, 16>(self.rows_kept.q.val());
        }
        if self.state.q.val() == STARTING {
            self.place.next = CONTROL_PLACE.into();
            self.wdata.next = CONTROL_START.into();
        }
        if self.state.q.val() == POLL {
            self.place.next = STATUS_PLACE.into();
        }
        if self.state.q.val() == CHECK {
            self.place.next = ERROR_PLACE.into();
        }
        self.address.next = bit_cast::<AXIL_ADDRESS, 6>(self.place.val()) << 2;

        // The steps.
        self.advance.next = self.state.q.val() == FETCH
            || (self.state.q.val() == HEADER && self.operation.val() == OP_WRITE)
            || (self.state.q.val() == DATA && self.access.val());
        self.memory.read.next = self.advance.val();
        if self.advance.val() {
            self.at.d.next = self.at.q.val() + 1;
        }
        self.program_fault.next = false;
        self.job_fault.next = false;
        if self.state.q.val() == TOKENS && self.access.val() {
            self.state.d.next = POLL.into();
        }
        if self.state.q.val() == POLL
            && self.access.val()
            && !self.rdata.val().get_bit(STATUS_FULL)
            && !self.rdata.val().get_bit(STATUS_CHECKING)
            && (!self.last.q.val() || !self.rdata.val().get_bit(STATUS_BUSY))
        {
            self.state.d.next = CHECK.into();
        }
        if self.state.q.val() == CHECK && self.access.val() {
            self.job_fault.next = self.rdata.val().get_bits::<8>(0).any();
            self.state.d.next = FETCH.into();
            if self.last.q.val() {
                self.state.d.next = IDLE.into();
            }
        }
        if self.state.q.val() == FETCH {
            self.state.d.next = HEADER.into();
        }
        if self.state.q.val() == HEADER {
            self.register.d.next = self.word.val().get_bits::<6>(PLACE);
            self.counts_up.d.next = self.word.val().get_bit(STEP);
            self.left.d.next = self.word.val().get_bits::<16>(0);
            if self.operation.val() == OP_WRITE && self.word.val().get_bits::<16>(0).any() {
                self.state.d.next = DATA.into();
            } else if self.operation.val() == OP_START {
                self.state.d.next = STARTING.into();
            } else if self.operation.val() == OP_END {
                self.last.d.next = true;
                self.state.d.next = POLL.into();
            } else {
                self.program_fault.next = true;
            }
        }
        if self.state.q.val() == DATA && self.access.val() {
            self.left.d.next = self.left.q.val() - 1;
            if self.counts_up.q.val() {
                self.register.d.next = self.register.q.val() + 1;
            }
            if self.left.q.val() == 1 {
                self.state.d.next = HEADER.into();
            }
        }
        if self.state.q.val() == STARTING && self.access.val() {
            self.state.d.next = POLL.into();
        }
        if !self.in_memory.val() && (self.state.q.val() == HEADER || self.state.q.val() == DATA) {
            self.program_fault.next = true;
        }

        // Faults and aborts.
        self.fault.next = self.program_fault.val()
            || self.job_fault.val()
            || (self.access.val() && self.master.error.val());
        self.failed.next = self.fault.val();
        if self.program_fault.val() {
            self.program_seen.d.next = true;
        }
        if self.job_fault.val() {
            self.error_seen.d.next = self.rdata.val().get_bits::<8>(0);
        }
        if self.access.val() && self.master.error.val() {
            self.bus_seen.d.next = true;
        }
        self.job_error.next = self.error_seen.q.val();
        self.bus_error.next = self.bus_seen.q.val();
        self.program_error.next = self.program_seen.q.val();
        self.busy.next = self.state.q.val() != IDLE;
        self.stop.next = (self.cancel.val() || self.stopping.q.val())
            && (self.access.val() || (!self.master.write.val() && !self.master.read.val()));
        if self.cancel.val() && self.state.q.val() != IDLE {
            self.stopping.d.next = true;
        }
        if self.state.q.val() == IDLE && self.start.val() {
            self.state.d.next = TOKENS.into();
            self.rows_kept.d.next = self.rows.val();
            self.at.d.next = 0.into();
            self.last.d.next = false;
            self.error_seen.d.next = 0.into();
            self.bus_seen.d.next = false;
            self.program_seen.d.next = false;
        }
        if self.fault.val() || self.stop.val() {
            self.state.d.next = IDLE.into();
            self.stopping.d.next = false;
        }
    }
}
