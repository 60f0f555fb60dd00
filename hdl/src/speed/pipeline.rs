//! The state machine of one sequence: which tokens are in flight, and what a pass changes.

use super::counters::EventCounters;
use crate::prelude::*;

/// Bits of a stage's number: at most eight stages.
pub const STAGE: usize = 3;
/// Bits of a number of entries, 0 to 8.
pub const ENTRIES: usize = 4;

/// Places of the counters: passes begun.
pub const COUNT_PASSES: usize = 0;
/// Rows in them.
pub const COUNT_ROWS: usize = 1;
/// Stages without an entry in them.
pub const COUNT_BUBBLES: usize = 2;
/// Entries dropped.
pub const COUNT_FLUSHED: usize = 3;
/// Tokens committed.
pub const COUNT_COMMITTED: usize = 4;
/// Passes in which an entry of stage s was the oldest whose class changed: this + s - 1; none at stage 0.
pub const COUNT_FLIPS: usize = 5;

/// Speculative decoding of one sequence. Twin of `golden::speed::Pipeline`.
///
/// `P` bits of a position, `T` bits of a token; the number of stages is chosen when the design is built.
#[derive(LogicBlock, PortAccess)]
pub struct SpeedPipeline<const P: usize, const T: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Begin a sequence; what follows counts in this cycle only.
    pub start: Signal<In, Bit>,
    /// Position of the prompt's last token.
    pub start_position: Signal<In, Bits<P>>,
    /// That token.
    pub start_token: Signal<In, Bits<T>>,
    /// Last position that gets a token: the sequence's positions, less one.
    pub start_limit: Signal<In, Bits<P>>,
    /// A token ends the sequence when it is committed.
    pub start_end_enable: Signal<In, Bit>,
    /// That one.
    pub start_end_token: Signal<In, Bits<T>>,
    /// The start is refused: a sequence is under way, or no position is left.
    pub refused: Signal<Out, Bit>,
    /// Drop the sequence. A row on offer stays until it is taken.
    pub cancel: Signal<In, Bit>,
    /// The pass is still under way elsewhere: don't end it.
    pub hold: Signal<In, Bit>,
    /// A sequence is under way.
    pub active: Signal<Out, Bit>,
    /// The last sequence came to its end.
    pub done: Signal<Out, Bit>,
    /// A pass begins.
    pub pass_start: Signal<Out, Bit>,
    /// With so many rows.
    pub pass_rows: Signal<Out, Bits<ENTRIES>>,
    /// A row of the pass is offered.
    pub row_valid: Signal<Out, Bit>,
    /// It is taken.
    pub row_ready: Signal<In, Bit>,
    /// Its repetition.
    pub row_repetition: Signal<Out, Bits<STAGE>>,
    /// Its position.
    pub row_position: Signal<Out, Bits<P>>,
    /// Its token.
    pub row_token: Signal<Out, Bits<T>>,
    /// It is the pass's last.
    pub row_last: Signal<Out, Bit>,
    /// A row's class is offered, in the order of the rows.
    pub class_valid: Signal<In, Bit>,
    /// It is taken.
    pub class_ready: Signal<Out, Bit>,
    /// It.
    pub class_data: Signal<In, Bits<T>>,
    /// A token is committed.
    pub commit_valid: Signal<Out, Bit>,
    /// It is taken.
    pub commit_ready: Signal<In, Bit>,
    /// Its position.
    pub commit_position: Signal<Out, Bits<P>>,
    /// It.
    pub commit_token: Signal<Out, Bits<T>>,
    /// It is the sequence's last.
    pub commit_last: Signal<Out, Bit>,
    /// By repetition: positions whose keys and values hold, from 0 on.
    pub tails: Vec<Signal<Out, Bits<P>>>,
    /// A pass ends; what follows says what it changed.
    pub resolved: Signal<Out, Bit>,
    /// An entry's class was another than a pass ago.
    pub flip: Signal<Out, Bit>,
    /// Stage of the oldest of them.
    pub flip_stage: Signal<Out, Bits<STAGE>>,
    /// Entries dropped, those behind the sequence's end included.
    pub flushed: Signal<Out, Bits<ENTRIES>>,
    /// A token was committed.
    pub committed: Signal<Out, Bit>,
    /// Set the counters to 0.
    pub clear_counters: Signal<In, Bit>,
    /// Counters, by place: [`COUNT_PASSES`] and the following.
    pub counts: Vec<Signal<Out, Bits<32>>>,

    counters: EventCounters,
    stage_count: Constant<Bits<ENTRIES>>,
    // What the pass does: rows leave, classes arrive, all entries move on.
    sending: Register<Bit>,
    taking: Register<Bit>,
    settling: Register<Bit>,
    opening: Register<Bit>,
    stopping: Register<Bit>,
    finished: Register<Bit>,
    limit: DataRegister<Bits<P>>,
    end_enable: DataRegister<Bit>,
    end_token: DataRegister<Bits<T>>,
    // By stage.
    valid: Vec<Register<Bit>>,
    left: Vec<Register<Bit>>,
    position: Vec<DataRegister<Bits<P>>>,
    token: Vec<DataRegister<Bits<T>>>,
    class: Vec<DataRegister<Bits<T>>>,
    tail: Vec<DataRegister<Bits<P>>>,
    // What comes behind the youngest entry that holds.
    first: DataRegister<Bit>,
    next_position: DataRegister<Bits<P>>,
    next_token: DataRegister<Bits<T>>,
    changed: DataRegister<Bit>,
    changed_stage: DataRegister<Bits<STAGE>>,
    // The committed token until it is taken.
    full: Register<Bit>,
    full_position: DataRegister<Bits<P>>,
    full_token: DataRegister<Bits<T>>,
    full_last: DataRegister<Bit>,

    here: Vec<Signal<Local, Bit>>,
    found: Signal<Local, Bit>,
    more: Signal<Local, Bit>,
    at_stage: Signal<Local, Bits<STAGE>>,
    at_position: Signal<Local, Bits<P>>,
    at_token: Signal<Local, Bits<T>>,
    at_class: Signal<Local, Bits<T>>,
    behind: Signal<Local, Bits<P>>,
    row_taken: Signal<Local, Bit>,
    class_taken: Signal<Local, Bit>,
    differs: Signal<Local, Bit>,
    young: Vec<Signal<Local, Bit>>,
    kept: Vec<Signal<Local, Bit>>,
    leaving: Signal<Local, Bit>,
    ending: Signal<Local, Bit>,
    launching: Signal<Local, Bit>,
    settle: Signal<Local, Bit>,
    idle: Signal<Local, Bit>,
    starting: Signal<Local, Bit>,
    stop: Signal<Local, Bit>,
    dropped: Signal<Local, Bits<ENTRIES>>,
    in_flight: Signal<Local, Bits<ENTRIES>>,
    _stages: usize,
    _older: usize,
    _counters: usize,
}

impl<const P: usize, const T: usize> SpeedPipeline<P, T> {
    /// A pipeline of 1 to 8 stages, one for each repetition of the group of layers.
    #[must_use]
    pub fn new(repetitions: usize) -> Self {
        fn each<S: Default>(count: usize) -> Vec<S> {
            (0..count).map(|_| S::default()).collect()
        }
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            start_position: Default::default(),
            start_token: Default::default(),
            start_limit: Default::default(),
            start_end_enable: Default::default(),
            start_end_token: Default::default(),
            refused: Default::default(),
            cancel: Default::default(),
            hold: Default::default(),
            active: Default::default(),
            done: Default::default(),
            pass_start: Default::default(),
            pass_rows: Default::default(),
            row_valid: Default::default(),
            row_ready: Default::default(),
            row_repetition: Default::default(),
            row_position: Default::default(),
            row_token: Default::default(),
            row_last: Default::default(),
            class_valid: Default::default(),
            class_ready: Default::default(),
            class_data: Default::default(),
            commit_valid: Default::default(),
            commit_ready: Default::default(),
            commit_position: Default::default(),
            commit_token: Default::default(),
            commit_last: Default::default(),
            tails: each(repetitions),
            resolved: Default::default(),
            flip: Default::default(),
            flip_stage: Default::default(),
            flushed: Default::default(),
            committed: Default::default(),
            clear_counters: Default::default(),
            counts: each(COUNT_FLIPS + repetitions - 1),
            counters: EventCounters::new(COUNT_FLIPS + repetitions - 1),
            stage_count: Constant::new((repetitions as u64).into()),
            sending: Default::default(),
            taking: Default::default(),
            settling: Default::default(),
            opening: Default::default(),
            stopping: Default::default(),
            finished: Default::default(),
            limit: Default::default(),
            end_enable: Default::default(),
            end_token: Default::default(),
            valid: each(repetitions),
            left: each(repetitions),
            position: each(repetitions),
            token: each(repetitions),
            class: each(repetitions),
            tail: each(repetitions),
            first: Default::default(),
            next_position: Default::default(),
            next_token: Default::default(),
            changed: Default::default(),
            changed_stage: Default::default(),
            full: Default::default(),
            full_position: Default::default(),
            full_token: Default::default(),
            full_last: Default::default(),
            here: each(repetitions),
            found: Default::default(),
            more: Default::default(),
            at_stage: Default::default(),
            at_position: Default::default(),
            at_token: Default::default(),
            at_class: Default::default(),
            behind: Default::default(),
            row_taken: Default::default(),
            class_taken: Default::default(),
            differs: Default::default(),
            young: each(repetitions),
            kept: each(repetitions),
            leaving: Default::default(),
            ending: Default::default(),
            launching: Default::default(),
            settle: Default::default(),
            idle: Default::default(),
            starting: Default::default(),
            stop: Default::default(),
            dropped: Default::default(),
            in_flight: Default::default(),
            _stages: repetitions,
            _older: repetitions - 1,
            _counters: COUNT_FLIPS + repetitions - 1,
        }
    }
}

/// Speculative decoding of one sequence: which tokens are in flight, what is dropped when a prediction changes, what is committed.
///
/// Stage s holds the entry that makes its (s + 1)-th trip through the group of layers. A pass offers the entries as rows, youngest first, takes a class
/// for each in the same order, and ends with one cycle in which all entries move on a stage, the last one's class is committed, and the next token enters stage 0.
/// An entry whose class is another than a pass ago drops all younger ones. Classes arrive youngest first, so one comparator serves all stages and
/// the last difference is the oldest entry's. There is a valid, position, token, class and tail for each stage.
#[kernel]
impl<const P: usize, const T: usize> Logic for SpeedPipeline<P, T> {
    fn update(&mut self) {
        registers!(
            self, clock, reset, sending, taking, settling, opening, stopping, finished, full
        );
        data_registers!(
            self,
            clock,
            limit,
            end_enable,
            end_token,
            first,
            next_position,
            next_token,
            changed,
            changed_stage,
            full_position,
            full_token,
            full_last
        );
        for i in 0..self._stages {
            registers!(self, clock, reset, valid[i], left[i]);
            data_registers!(self, clock, position[i], token[i], class[i], tail[i]);
        }

        // The youngest entry whose row, or whose class, has not moved.
        self.found.next = false;
        self.more.next = false;
        self.at_stage.next = 0.into();
        self.at_position.next = 0.into();
        self.at_token.next = 0.into();
        self.at_class.next = 0.into();
        for i in 0..self._stages {
            self.here[i].next = self.left[i].q.val() && !self.found.val();
            if self.left[i].q.val() && self.found.val() {
                self.more.next = true;
            }
            if self.here[i].val() {
                self.at_stage.next = i.to_bits();
                self.at_position.next = self.position[i].q.val();
                self.at_token.next = self.token[i].q.val();
                self.at_class.next = self.class[i].q.val();
                self.found.next = true;
            }
        }
        self.behind.next = self.at_position.val() + 1;

        // Rows leave.
        self.row_valid.next = self.sending.q.val();
        self.row_repetition.next = self.at_stage.val();
        self.row_position.next = self.at_position.val();
        self.row_token.next = self.at_token.val();
        self.row_last.next = !self.more.val();
        self.row_taken.next = self.sending.q.val() && self.row_ready.val();
        if self.row_taken.val() && !self.more.val() {
            self.sending.d.next = false;
            self.taking.d.next = true;
            self.first.d.next = true;
            self.changed.d.next = false;
        }

        // Classes arrive. An entry of stage 0 has none yet.
        self.class_ready.next = self.taking.q.val();
        self.class_taken.next = self.taking.q.val() && self.class_valid.val();
        self.differs.next =
            self.at_stage.val().any() && self.at_class.val() != self.class_data.val();
        if self.class_taken.val() {
            self.first.d.next = false;
            if self.first.q.val() || self.differs.val() {
                self.next_position.d.next = self.behind.val();
                self.next_token.d.next = self.class_data.val();
            }
            if self.differs.val() {
                self.changed.d.next = true;
                self.changed_stage.d.next = self.at_stage.val();
            }
            if !self.more.val() {
                self.taking.d.next = false;
                self.settling.d.next = true;
            }
        }
        for i in 0..self._stages {
            if self.here[i].val() && (self.row_taken.val() || self.class_taken.val()) {
                self.left[i].d.next = false;
            }
            if self.row_taken.val() && !self.more.val() {
                self.left[i].d.next = self.valid[i].q.val();
            }
            if self.here[i].val() && self.class_taken.val() {
                self.class[i].d.next = self.class_data.val();
                self.tail[i].d.next = self.behind.val();
            }
        }

        // What the pass changed. Of the entries that hold, the youngest is where the next token comes from.
        self.in_flight.next = 0.into();
        for i in 0..self._stages {
            self.young[i].next = false;
            self.in_flight.next =
                self.in_flight.val() + bit_cast::<ENTRIES, 1>(self.valid[i].q.val().into());
            self.tails[i].next = self.tail[i].q.val();
        }
        for i in 0..self._older {
            self.young[i].next = self.changed.q.val() && self.changed_stage.q.val() > i.to_bits();
        }
        for i in 0..self._stages {
            self.kept[i].next = self.valid[i].q.val() && !self.young[i].val();
        }
        self.leaving.next = false;
        self.ending.next = false;
        for stages in self._stages..(self._stages + 1) {
            self.leaving.next = self.kept[stages - 1].val();
            // The last stage's tail lies behind its entry: it is the position of the token that is committed.
            self.ending.next = self.kept[stages - 1].val()
                && (self.tail[stages - 1].q.val() == self.limit.q.val()
                    || (self.end_enable.q.val()
                        && self.class[stages - 1].q.val() == self.end_token.q.val()));
        }
        self.launching.next =
            !self.ending.val() && self.next_position.q.val() != self.limit.q.val();
        self.dropped.next = 0.into();
        for i in 0..self._stages {
            if self.valid[i].q.val() && self.young[i].val() {
                self.dropped.next = self.dropped.val() + 1;
            }
        }
        for i in 0..self._older {
            if self.kept[i].val() && self.ending.val() {
                self.dropped.next = self.dropped.val() + 1;
            }
        }

        // An abort waits for the row on offer.
        self.idle.next = !self.sending.q.val() && !self.taking.q.val() && !self.settling.q.val();
        self.active.next = !self.idle.val();
        self.stop.next = (self.cancel.val() || self.stopping.q.val())
            && (!self.sending.q.val() || self.row_taken.val());
        if self.cancel.val() && !self.idle.val() {
            self.stopping.d.next = true;
        }
        self.settle.next = self.settling.q.val()
            && !self.hold.val()
            && !self.stop.val()
            && (!self.leaving.val() || !self.full.q.val() || self.commit_ready.val());

        // The token that leaves waits until it is taken.
        self.commit_valid.next = self.full.q.val();
        self.commit_position.next = self.full_position.q.val();
        self.commit_token.next = self.full_token.q.val();
        self.commit_last.next = self.full_last.q.val();
        if self.commit_ready.val() {
            self.full.d.next = false;
        }
        if self.settle.val() && self.leaving.val() {
            self.full.d.next = true;
            self.full_last.d.next = self.ending.val();
            for stages in self._stages..(self._stages + 1) {
                self.full_position.d.next = self.tail[stages - 1].q.val();
                self.full_token.d.next = self.class[stages - 1].q.val();
            }
        }

        // All entries move on.
        self.opening.d.next = false;
        if self.settle.val() {
            self.settling.d.next = false;
            self.sending.d.next = !self.ending.val();
            self.opening.d.next = !self.ending.val();
            self.finished.d.next = self.ending.val();
            self.valid[0].d.next = self.launching.val();
            self.left[0].d.next = self.launching.val();
            self.position[0].d.next = self.next_position.q.val();
            self.token[0].d.next = self.next_token.q.val();
        }
        for i in 0..self._older {
            if self.settle.val() {
                self.valid[i + 1].d.next = self.kept[i].val() && !self.ending.val();
                self.left[i + 1].d.next = self.kept[i].val() && !self.ending.val();
                self.position[i + 1].d.next = self.position[i].q.val();
                self.token[i + 1].d.next = self.token[i].q.val();
                self.class[i + 1].d.next = self.class[i].q.val();
            }
        }
        for i in 0..self._stages {
            if self.settle.val() && self.young[i].val() {
                self.tail[i].d.next = self.next_position.q.val();
            }
        }
        self.resolved.next = self.settle.val();
        self.flip.next = self.changed.q.val();
        self.flip_stage.next = self.changed_stage.q.val();
        self.flushed.next = self.dropped.val();
        self.committed.next = self.leaving.val();
        self.pass_start.next = self.opening.q.val();
        self.pass_rows.next = self.in_flight.val();
        self.done.next = self.finished.q.val();

        // Counters.
        self.counters.clock.next = self.clock.val();
        self.counters.reset.next = self.reset.val();
        self.counters.clear.next = self.clear_counters.val();
        for i in 0..self._counters {
            self.counters.amount[i].next = 0.into();
            self.counts[i].next = self.counters.count[i].val();
        }
        if self.opening.q.val() {
            self.counters.amount[COUNT_PASSES].next = 1.into();
            self.counters.amount[COUNT_ROWS].next = self.in_flight.val();
            self.counters.amount[COUNT_BUBBLES].next =
                self.stage_count.val() - self.in_flight.val();
        }
        if self.settle.val() {
            self.counters.amount[COUNT_FLUSHED].next = self.dropped.val();
            if self.leaving.val() {
                self.counters.amount[COUNT_COMMITTED].next = 1.into();
            }
        }
        for i in 0..self._older {
            if self.settle.val()
                && self.changed.q.val()
                && self.changed_stage.q.val() == (i + 1).to_bits()
            {
                self.counters.amount[COUNT_FLIPS + i].next = 1.into();
            }
        }

        // A sequence begins, or is dropped.
        self.starting.next = self.start.val()
            && self.idle.val()
            && !self.cancel.val()
            && self.start_position.val() < self.start_limit.val();
        self.refused.next = self.start.val() && !self.starting.val();
        if self.starting.val() {
            self.sending.d.next = true;
            self.opening.d.next = true;
            self.finished.d.next = false;
            self.limit.d.next = self.start_limit.val();
            self.end_enable.d.next = self.start_end_enable.val();
            self.end_token.d.next = self.start_end_token.val();
            self.valid[0].d.next = true;
            self.left[0].d.next = true;
            self.position[0].d.next = self.start_position.val();
            self.token[0].d.next = self.start_token.val();
        }
        for i in 0..self._stages {
            if self.starting.val() {
                self.tail[i].d.next = self.start_position.val();
            }
        }
        if self.stop.val() {
            self.sending.d.next = false;
            self.taking.d.next = false;
            self.settling.d.next = false;
            self.stopping.d.next = false;
        }
        for i in 0..self._stages {
            if self.stop.val() {
                self.valid[i].d.next = false;
                self.left[i].d.next = false;
            }
        }
    }
}
