//! Segments of keys and values, and the pages they lie in.

use crate::memory::LutRam;
use crate::prelude::*;

/// Bits of a generation.
pub const GENERATION: usize = 8;
/// Bits of a number of segments or pages.
const COUNT: usize = 16;

/// What can be asked of a page table.
pub mod command {
    /// Begin a branch of its own.
    pub const ROOT: u64 = 0;
    /// Begin a segment behind another.
    pub const FORK: u64 = 1;
    /// Make room for one more token.
    pub const APPEND: u64 = 2;
    /// Give a segment up.
    pub const RELEASE: u64 = 3;
    /// Free a segment and all behind it.
    pub const PRUNE: u64 = 4;
    /// List the segments from one up to its root.
    pub const WALK: u64 = 5;
    /// List a segment's pages.
    pub const PAGES: u64 = 6;
}

/// What it answers.
pub mod status {
    /// It is done.
    pub const OK: u64 = 0;
    /// All pages are in use.
    pub const FULL: u64 = 1;
    /// The segment has been freed.
    pub const FREED: u64 = 2;
    /// The segment has been released.
    pub const RELEASED: u64 = 3;
    /// The segment has descendants.
    pub const FROZEN: u64 = 4;
    /// All segments are in use.
    pub const SEGMENTS: u64 = 5;
    /// There is no such command.
    pub const UNKNOWN: u64 = 6;
    /// The tables contradict each other; nothing is done until the reset.
    pub const FAULT: u64 = 7;
}

/// What the table does.
mod state {
    pub const IDLE: u64 = 0;
    pub const CHECK: u64 = 1;
    pub const TAKE: u64 = 2;
    pub const LINK: u64 = 3;
    pub const PAGE: u64 = 4;
    pub const PLACE: u64 = 5;
    pub const COLLECT: u64 = 6;
    pub const GIVE: u64 = 7;
    pub const DROP: u64 = 8;
    pub const UNLINK: u64 = 9;
    pub const GROW: u64 = 10;
    pub const ADD: u64 = 11;
    pub const SHRINK: u64 = 12;
    pub const LIST: u64 = 13;
    pub const ANSWER: u64 = 14;
    pub const BROKEN: u64 = 15;
}

const ROOT: u64 = command::ROOT;
const FORK: u64 = command::FORK;
const APPEND: u64 = command::APPEND;
const RELEASE: u64 = command::RELEASE;
const PRUNE: u64 = command::PRUNE;
const WALK: u64 = command::WALK;
const PAGES: u64 = command::PAGES;
const OK: u64 = status::OK;
const FULL: u64 = status::FULL;
const FREED: u64 = status::FREED;
const RELEASED: u64 = status::RELEASED;
const FROZEN: u64 = status::FROZEN;
const SEGMENTS: u64 = status::SEGMENTS;
const UNKNOWN: u64 = status::UNKNOWN;
const FAULT: u64 = status::FAULT;
const IDLE: u64 = state::IDLE;
const CHECK: u64 = state::CHECK;
const TAKE: u64 = state::TAKE;
const LINK: u64 = state::LINK;
const PAGE: u64 = state::PAGE;
const PLACE: u64 = state::PLACE;
const COLLECT: u64 = state::COLLECT;
const GIVE: u64 = state::GIVE;
const DROP: u64 = state::DROP;
const UNLINK: u64 = state::UNLINK;
const GROW: u64 = state::GROW;
const ADD: u64 = state::ADD;
const SHRINK: u64 = state::SHRINK;
const LIST: u64 = state::LIST;
const ANSWER: u64 = state::ANSWER;
const BROKEN: u64 = state::BROKEN;

/// Up to 2^S segments, 2 to 4096, and 2^P pages, 2 to 4096.
#[derive(LogicBlock, PortAccess)]
pub struct PageTable<const S: usize, const P: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high: all segments and pages are free.
    pub reset: Signal<In, Bit>,
    /// A command is offered.
    pub command_valid: Signal<In, Bit>,
    /// It is taken.
    pub command_ready: Signal<Out, Bit>,
    /// Which.
    pub command: Signal<In, Bits<3>>,
    /// For which segment.
    pub segment: Signal<In, Bits<S>>,
    /// Its generation.
    pub generation: Signal<In, Bits<GENERATION>>,
    /// A command is answered, for one cycle.
    pub answer_valid: Signal<Out, Bit>,
    /// How.
    pub answer_status: Signal<Out, Bits<3>>,
    /// The new segment.
    pub answer_segment: Signal<Out, Bits<S>>,
    /// Its generation.
    pub answer_generation: Signal<Out, Bits<GENERATION>>,
    /// The token's page.
    pub answer_page: Signal<Out, Bits<P>>,
    /// The token's place in it.
    pub answer_place: Signal<Out, Bits<8>>,
    /// A segment or a page is listed.
    pub item_valid: Signal<Out, Bit>,
    /// It is taken.
    pub item_ready: Signal<In, Bit>,
    /// The segment.
    pub item_segment: Signal<Out, Bits<S>>,
    /// The page.
    pub item_page: Signal<Out, Bits<P>>,
    /// It is the first.
    pub item_first: Signal<Out, Bit>,
    /// It is the last.
    pub item_last: Signal<Out, Bit>,
    /// Pages in use.
    pub pages_used: Signal<Out, Bits<COUNT>>,
    /// Segments in use.
    pub segments_used: Signal<Out, Bits<COUNT>>,

    alive: LutRam<1, S>,
    held: LutRam<1, S>,
    generations: LutRam<GENERATION, S>,
    /// A segment has a parent.
    rooted: LutRam<1, S>,
    parents: LutRam<S, S>,
    /// How many segments have it as their parent, and the first and last of them.
    children: LutRam<S, S>,
    first_child: LutRam<S, S>,
    last_child: LutRam<S, S>,
    /// Neighbours among them.
    earlier: LutRam<S, S>,
    later: LutRam<S, S>,
    /// How many pages it has, the first and the last, and the places used there.
    page_counts: LutRam<COUNT, S>,
    first_page: LutRam<P, S>,
    last_page: LutRam<P, S>,
    filled: LutRam<8, S>,
    /// The page behind each.
    page_behind: LutRam<P, P>,
    /// A page is in use, and whose it is.
    owned: LutRam<1, P>,
    owners: LutRam<S, P>,
    /// Free ones that have been in use before.
    free_pages: LutRam<P, P>,
    free_segments: LutRam<S, S>,
    /// A segment and all behind it.
    subtree: LutRam<S, S>,
    page_limit: Constant<Bits<COUNT>>,
    segment_limit: Constant<Bits<COUNT>>,
    page_tokens: Constant<Bits<8>>,
    state: Register<Bits<4>>,
    free_page_count: Register<Bits<COUNT>>,
    fresh_pages: Register<Bits<COUNT>>,
    free_segment_count: Register<Bits<COUNT>>,
    fresh_segments: Register<Bits<COUNT>>,
    asked: DataRegister<Bits<3>>,
    asked_generation: DataRegister<Bits<GENERATION>>,
    /// The segment at hand.
    at: DataRegister<Bits<S>>,
    /// The one that is new, a child, or a parent.
    other: DataRegister<Bits<S>>,
    page: DataRegister<Bits<P>>,
    place: DataRegister<Bits<8>>,
    answer: DataRegister<Bits<3>>,
    new_generation: DataRegister<Bits<GENERATION>>,
    /// A cycle ago: there was room for a segment, the segment and the page that were next. What is in use doesn't change between a command and the step behind its check.
    had_room: DataRegister<Bit>,
    new_segment: DataRegister<Bits<S>>,
    new_page: DataRegister<Bits<P>>,
    first: DataRegister<Bit>,
    /// The segment at hand is one of a subtree, not one above it.
    sweeping: DataRegister<Bit>,
    /// In a subtree: the segment whose children are next, and one behind the last.
    head: DataRegister<Bits<COUNT>>,
    tail: DataRegister<Bits<COUNT>>,
    is_alive: Signal<Local, Bit>,
    is_held: Signal<Local, Bit>,
    has_children: Signal<Local, Bit>,
    room: Signal<Local, Bit>,
    page_room: Signal<Local, Bit>,
    reuse: Signal<Local, Bit>,
    error: Signal<Local, Bits<3>>,
    opens: Signal<Local, Bit>,
    own_page: Signal<Local, Bit>,
    top: Signal<Local, Bit>,
    frees: Signal<Local, Bit>,
}

impl<const S: usize, const P: usize> PageTable<S, P> {
    /// With so many pages, at most 2^P, of so many tokens, at least one.
    #[must_use]
    pub fn new(pages: u16, page_tokens: u8) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            command_valid: Default::default(),
            command_ready: Default::default(),
            command: Default::default(),
            segment: Default::default(),
            generation: Default::default(),
            answer_valid: Default::default(),
            answer_status: Default::default(),
            answer_segment: Default::default(),
            answer_generation: Default::default(),
            answer_page: Default::default(),
            answer_place: Default::default(),
            item_valid: Default::default(),
            item_ready: Default::default(),
            item_segment: Default::default(),
            item_page: Default::default(),
            item_first: Default::default(),
            item_last: Default::default(),
            pages_used: Default::default(),
            segments_used: Default::default(),
            alive: Default::default(),
            held: Default::default(),
            generations: Default::default(),
            rooted: Default::default(),
            parents: Default::default(),
            children: Default::default(),
            first_child: Default::default(),
            last_child: Default::default(),
            earlier: Default::default(),
            later: Default::default(),
            page_counts: Default::default(),
            first_page: Default::default(),
            last_page: Default::default(),
            filled: Default::default(),
            page_behind: Default::default(),
            owned: Default::default(),
            owners: Default::default(),
            free_pages: Default::default(),
            free_segments: Default::default(),
            subtree: Default::default(),
            page_limit: Constant::new(u64::from(pages.min(1 << P.min(12))).into()),
            segment_limit: Constant::new((1_u64 << S).into()),
            page_tokens: Constant::new(u64::from(page_tokens.max(1)).into()),
            state: Default::default(),
            free_page_count: Default::default(),
            fresh_pages: Default::default(),
            free_segment_count: Default::default(),
            fresh_segments: Default::default(),
            asked: Default::default(),
            asked_generation: Default::default(),
            at: Default::default(),
            other: Default::default(),
            page: Default::default(),
            place: Default::default(),
            answer: Default::default(),
            new_generation: Default::default(),
            had_room: Default::default(),
            new_segment: Default::default(),
            new_page: Default::default(),
            first: Default::default(),
            sweeping: Default::default(),
            head: Default::default(),
            tail: Default::default(),
            is_alive: Default::default(),
            is_held: Default::default(),
            has_children: Default::default(),
            room: Default::default(),
            page_room: Default::default(),
            reuse: Default::default(),
            error: Default::default(),
            opens: Default::default(),
            own_page: Default::default(),
            top: Default::default(),
            frees: Default::default(),
        }
    }
}

/// Segments that build upon each other, reference-counted, and their pages (`golden::ets::PageTable` is its twin). A segment lives while it is held or another builds upon it.
///
/// A segment's children are a list, in the order in which they were forked; its pages are one, too. Free segments and free pages lie on stacks. A page also tells whose it is, and a segment counts its pages and its children: a page is given back
/// only by the segment that owns it, and a segment is freed only without pages and children. Where lists and counts contradict each other, the table stops.
#[kernel]
impl<const S: usize, const P: usize> Logic for PageTable<S, P> {
    fn update(&mut self) {
        registers!(
            self,
            clock,
            reset,
            state,
            free_page_count,
            fresh_pages,
            free_segment_count,
            fresh_segments
        );
        data_registers!(
            self,
            clock,
            asked,
            asked_generation,
            at,
            other,
            page,
            place,
            answer,
            new_generation,
            had_room,
            new_segment,
            new_page,
            first,
            sweeping,
            head,
            tail
        );
        self.alive.clock.next = self.clock.val();
        self.held.clock.next = self.clock.val();
        self.generations.clock.next = self.clock.val();
        self.rooted.clock.next = self.clock.val();
        self.parents.clock.next = self.clock.val();
        self.children.clock.next = self.clock.val();
        self.first_child.clock.next = self.clock.val();
        self.last_child.clock.next = self.clock.val();
        self.earlier.clock.next = self.clock.val();
        self.later.clock.next = self.clock.val();
        self.page_counts.clock.next = self.clock.val();
        self.first_page.clock.next = self.clock.val();
        self.last_page.clock.next = self.clock.val();
        self.filled.clock.next = self.clock.val();
        self.page_behind.clock.next = self.clock.val();
        self.owned.clock.next = self.clock.val();
        self.owners.clock.next = self.clock.val();
        self.free_pages.clock.next = self.clock.val();
        self.free_segments.clock.next = self.clock.val();
        self.subtree.clock.next = self.clock.val();

        // The segment at hand. A place that was never used holds no segment.
        self.alive.read_address.next = self.at.q.val();
        self.held.read_address.next = self.at.q.val();
        self.rooted.read_address.next = self.at.q.val();
        self.parents.read_address.next = self.at.q.val();
        self.page_counts.read_address.next = self.at.q.val();
        self.first_page.read_address.next = self.at.q.val();
        self.last_page.read_address.next = self.at.q.val();
        self.filled.read_address.next = self.at.q.val();
        self.earlier.read_address.next = self.at.q.val();
        self.later.read_address.next = self.at.q.val();
        self.children.read_address.next = self.at.q.val();
        self.first_child.read_address.next = self.at.q.val();
        self.last_child.read_address.next = self.at.q.val();
        if self.state.q.val() == UNLINK {
            // Its parent.
            self.children.read_address.next = self.other.q.val();
            self.first_child.read_address.next = self.other.q.val();
            self.last_child.read_address.next = self.other.q.val();
        }
        if self.state.q.val() == ADD {
            // A child.
            self.later.read_address.next = self.other.q.val();
        }
        self.page_behind.read_address.next = self.page.q.val();
        self.owned.read_address.next = self.page.q.val();
        self.owners.read_address.next = self.page.q.val();
        self.free_pages.read_address.next = bit_cast::<P, COUNT>(self.free_page_count.q.val() - 1);
        self.free_segments.read_address.next =
            bit_cast::<S, COUNT>(self.free_segment_count.q.val() - 1);
        self.subtree.read_address.next = bit_cast::<S, COUNT>(self.head.q.val());
        if self.state.q.val() == SHRINK {
            self.subtree.read_address.next = bit_cast::<S, COUNT>(self.tail.q.val() - 1);
        }

        // What is free.
        self.reuse.next = self.free_segment_count.q.val().any();
        self.room.next =
            self.reuse.val() || self.fresh_segments.q.val() != self.segment_limit.val();
        self.had_room.d.next = self.room.val();
        self.new_segment.d.next = bit_cast::<S, COUNT>(self.fresh_segments.q.val());
        if self.reuse.val() {
            self.new_segment.d.next = self.free_segments.read_data.val();
        }
        self.generations.read_address.next = self.at.q.val();
        if self.state.q.val() == TAKE {
            self.generations.read_address.next = self.new_segment.q.val();
        }
        self.page_room.next =
            self.free_page_count.q.val().any() || self.fresh_pages.q.val() != self.page_limit.val();
        self.new_page.d.next = bit_cast::<P, COUNT>(self.fresh_pages.q.val());
        if self.free_page_count.q.val().any() {
            self.new_page.d.next = self.free_pages.read_data.val();
        }
        self.pages_used.next = self.fresh_pages.q.val() - self.free_page_count.q.val();
        self.segments_used.next = self.fresh_segments.q.val() - self.free_segment_count.q.val();

        // Is the command allowed?
        self.is_alive.next = self.alive.read_data.val().any()
            && bit_cast::<COUNT, S>(self.at.q.val()) < self.fresh_segments.q.val();
        self.is_held.next = self.held.read_data.val().any();
        self.has_children.next = self.children.read_data.val().any();
        self.opens.next = !self.page_counts.read_data.val().any()
            || self.filled.read_data.val() == self.page_tokens.val();
        self.error.next = OK.into();
        if self.asked.q.val() == APPEND && self.has_children.val() {
            self.error.next = FROZEN.into();
        }
        if !self.is_held.val()
            && (self.asked.q.val() == APPEND
                || self.asked.q.val() == FORK
                || self.asked.q.val() == RELEASE)
        {
            self.error.next = RELEASED.into();
        }
        if !self.is_alive.val() || self.generations.read_data.val() != self.asked_generation.q.val()
        {
            self.error.next = FREED.into();
        }
        if self.asked.q.val() == ROOT {
            self.error.next = OK.into();
        }
        if (self.asked.q.val() == ROOT || self.asked.q.val() == FORK) && !self.had_room.q.val() {
            self.error.next = SEGMENTS.into();
        }
        if self.asked.q.val() > PAGES {
            self.error.next = UNKNOWN.into();
        }

        // Nothing is written unless a step says so.
        self.alive.write.next = false;
        self.alive.write_address.next = self.at.q.val();
        self.alive.write_data.next = 0.into();
        self.held.write.next = false;
        self.held.write_address.next = self.at.q.val();
        self.held.write_data.next = 0.into();
        self.generations.write.next = false;
        self.generations.write_address.next = self.new_segment.q.val();
        self.generations.write_data.next = 0.into();
        self.rooted.write.next = false;
        self.rooted.write_address.next = self.new_segment.q.val();
        self.rooted.write_data.next = (self.asked.q.val() == FORK).into();
        self.parents.write.next = false;
        self.parents.write_address.next = self.new_segment.q.val();
        self.parents.write_data.next = self.at.q.val();
        self.children.write.next = false;
        self.children.write_address.next = self.at.q.val();
        self.children.write_data.next = 0.into();
        self.first_child.write.next = false;
        self.first_child.write_address.next = self.at.q.val();
        self.first_child.write_data.next = self.other.q.val();
        self.last_child.write.next = false;
        self.last_child.write_address.next = self.at.q.val();
        self.last_child.write_data.next = self.other.q.val();
        self.earlier.write.next = false;
        self.earlier.write_address.next = self.other.q.val();
        self.earlier.write_data.next = self.last_child.read_data.val();
        self.later.write.next = false;
        self.later.write_address.next = self.last_child.read_data.val();
        self.later.write_data.next = self.other.q.val();
        self.page_counts.write.next = false;
        self.page_counts.write_address.next = self.at.q.val();
        self.page_counts.write_data.next = self.page_counts.read_data.val() + 1;
        self.first_page.write.next = false;
        self.first_page.write_address.next = self.at.q.val();
        self.first_page.write_data.next = self.new_page.q.val();
        self.last_page.write.next = false;
        self.last_page.write_address.next = self.at.q.val();
        self.last_page.write_data.next = self.new_page.q.val();
        self.filled.write.next = false;
        self.filled.write_address.next = self.at.q.val();
        self.filled.write_data.next = self.filled.read_data.val() + 1;
        self.page_behind.write.next = false;
        self.page_behind.write_address.next = self.last_page.read_data.val();
        self.page_behind.write_data.next = self.new_page.q.val();
        self.owned.write.next = false;
        self.owned.write_address.next = self.new_page.q.val();
        self.owned.write_data.next = 1.into();
        self.owners.write.next = false;
        self.owners.write_address.next = self.new_page.q.val();
        self.owners.write_data.next = self.at.q.val();
        self.free_pages.write.next = false;
        self.free_pages.write_address.next = bit_cast::<P, COUNT>(self.free_page_count.q.val());
        self.free_pages.write_data.next = self.page.q.val();
        self.free_segments.write.next = false;
        self.free_segments.write_address.next =
            bit_cast::<S, COUNT>(self.free_segment_count.q.val());
        self.free_segments.write_data.next = self.at.q.val();
        self.subtree.write.next = false;
        self.subtree.write_address.next = bit_cast::<S, COUNT>(self.tail.q.val());
        self.subtree.write_data.next = self.other.q.val();

        // A command.
        self.command_ready.next = self.state.q.val() == IDLE;
        if self.state.q.val() == IDLE && self.command_valid.val() {
            self.state.d.next = CHECK.into();
            self.asked.d.next = self.command.val();
            self.asked_generation.d.next = self.generation.val();
            self.at.d.next = self.segment.val();
            self.answer.d.next = OK.into();
        }
        if self.state.q.val() == CHECK {
            self.answer.d.next = self.error.val();
            self.head.d.next = 0.into();
            self.tail.d.next = 0.into();
            self.first.d.next = true;
            self.sweeping.d.next = false;
            self.page.d.next = self.first_page.read_data.val();
            self.other.d.next = self.at.q.val();
            self.state.d.next = ANSWER.into();
            if self.error.val() == OK {
                if self.asked.q.val() == ROOT || self.asked.q.val() == FORK {
                    self.state.d.next = TAKE.into();
                }
                if self.asked.q.val() == APPEND {
                    self.state.d.next = PLACE.into();
                    if self.opens.val() {
                        self.state.d.next = PAGE.into();
                    }
                }
                if self.asked.q.val() == RELEASE {
                    self.held.write.next = true;
                    self.state.d.next = COLLECT.into();
                }
                if self.asked.q.val() == PRUNE {
                    self.subtree.write.next = true;
                    self.subtree.write_data.next = self.at.q.val();
                    self.subtree.write_address.next = 0.into();
                    self.tail.d.next = 1.into();
                    self.state.d.next = GROW.into();
                }
                if self.asked.q.val() == WALK {
                    self.state.d.next = LIST.into();
                }
                if self.asked.q.val() == PAGES && self.page_counts.read_data.val().any() {
                    self.state.d.next = LIST.into();
                }
            }
        }

        // A segment begins.
        if self.state.q.val() == TAKE {
            self.other.d.next = self.new_segment.q.val();
            self.alive.write.next = true;
            self.alive.write_address.next = self.new_segment.q.val();
            self.alive.write_data.next = 1.into();
            self.held.write.next = true;
            self.held.write_address.next = self.new_segment.q.val();
            self.held.write_data.next = 1.into();
            self.generations.write.next = true;
            self.new_generation.d.next = 0.into();
            if self.reuse.val() {
                self.generations.write_data.next = self.generations.read_data.val() + 1;
                self.new_generation.d.next = self.generations.read_data.val() + 1;
                self.free_segment_count.d.next = self.free_segment_count.q.val() - 1;
            } else {
                self.fresh_segments.d.next = self.fresh_segments.q.val() + 1;
            }
            self.rooted.write.next = true;
            self.parents.write.next = true;
            self.children.write.next = true;
            self.children.write_address.next = self.new_segment.q.val();
            self.page_counts.write.next = true;
            self.page_counts.write_address.next = self.new_segment.q.val();
            self.page_counts.write_data.next = 0.into();
            self.state.d.next = ANSWER.into();
            if self.asked.q.val() == FORK {
                self.state.d.next = LINK.into();
            }
        }
        if self.state.q.val() == LINK {
            self.children.write.next = true;
            self.children.write_data.next = self.children.read_data.val() + 1;
            self.first_child.write.next = !self.has_children.val();
            self.last_child.write.next = true;
            self.earlier.write.next = self.has_children.val();
            self.later.write.next = self.has_children.val();
            self.state.d.next = ANSWER.into();
        }

        // A token comes.
        if self.state.q.val() == PAGE {
            self.state.d.next = ANSWER.into();
            self.page.d.next = self.new_page.q.val();
            self.place.d.next = 0.into();
            self.answer.d.next = FULL.into();
            if self.page_room.val() {
                self.answer.d.next = OK.into();
                if self.free_page_count.q.val().any() {
                    self.free_page_count.d.next = self.free_page_count.q.val() - 1;
                } else {
                    self.fresh_pages.d.next = self.fresh_pages.q.val() + 1;
                }
                self.page_counts.write.next = true;
                self.first_page.write.next = !self.page_counts.read_data.val().any();
                self.page_behind.write.next = self.page_counts.read_data.val().any();
                self.last_page.write.next = true;
                self.filled.write.next = true;
                self.filled.write_data.next = 1.into();
                self.owned.write.next = true;
                self.owners.write.next = true;
            }
        }
        if self.state.q.val() == PLACE {
            self.state.d.next = ANSWER.into();
            self.page.d.next = self.last_page.read_data.val();
            self.place.d.next = self.filled.read_data.val();
            self.filled.write.next = true;
        }

        // A segment that nobody needs is freed: its pages, and then itself.
        self.frees.next = false;
        if self.state.q.val() == COLLECT {
            if self.is_held.val() || self.has_children.val() {
                self.state.d.next = ANSWER.into();
                if self.sweeping.q.val() {
                    self.state.d.next = BROKEN.into();
                }
            } else {
                self.frees.next = true;
            }
        }
        self.own_page.next = self.owned.read_data.val().any()
            && bit_cast::<COUNT, P>(self.page.q.val()) < self.fresh_pages.q.val()
            && self.owners.read_data.val() == self.at.q.val();
        if self.state.q.val() == GIVE {
            self.page.d.next = self.page_behind.read_data.val();
            if self.own_page.val() {
                self.owned.write.next = true;
                self.owned.write_address.next = self.page.q.val();
                self.owned.write_data.next = 0.into();
                self.free_pages.write.next = true;
                self.free_page_count.d.next = self.free_page_count.q.val() + 1;
                self.page_counts.write.next = true;
                self.page_counts.write_data.next = self.page_counts.read_data.val() - 1;
                if self.page_counts.read_data.val() == 1 {
                    self.state.d.next = DROP.into();
                }
            } else {
                self.state.d.next = BROKEN.into();
            }
        }
        self.top.next = self.asked.q.val() == RELEASE || !self.tail.q.val().any();
        if self.state.q.val() == DROP {
            self.alive.write.next = true;
            self.free_segments.write.next = true;
            self.free_segment_count.d.next = self.free_segment_count.q.val() + 1;
            self.other.d.next = self.parents.read_data.val();
            self.state.d.next = ANSWER.into();
            if self.rooted.read_data.val().any() {
                self.state.d.next = UNLINK.into();
            }
        }
        if self.state.q.val() == UNLINK {
            self.children.write.next = true;
            self.children.write_address.next = self.other.q.val();
            self.children.write_data.next = self.children.read_data.val() - 1;
            self.first_child.write.next = self.first_child.read_data.val() == self.at.q.val();
            self.first_child.write_address.next = self.other.q.val();
            self.first_child.write_data.next = self.later.read_data.val();
            self.last_child.write.next = self.last_child.read_data.val() == self.at.q.val();
            self.last_child.write_address.next = self.other.q.val();
            self.last_child.write_data.next = self.earlier.read_data.val();
            self.later.write.next = self.first_child.read_data.val() != self.at.q.val();
            self.later.write_address.next = self.earlier.read_data.val();
            self.later.write_data.next = self.later.read_data.val();
            self.earlier.write.next = self.last_child.read_data.val() != self.at.q.val();
            self.earlier.write_address.next = self.later.read_data.val();
            self.earlier.write_data.next = self.earlier.read_data.val();
            self.state.d.next = SHRINK.into();
            if self.top.val() {
                self.at.d.next = self.other.q.val();
                self.sweeping.d.next = false;
                self.state.d.next = COLLECT.into();
            }
        }

        // All behind a segment, and then from the last one back to itself.
        if self.state.q.val() == GROW {
            self.at.d.next = self.subtree.read_data.val();
            self.state.d.next = ADD.into();
            self.first.d.next = true;
            if self.head.q.val() == self.tail.q.val() {
                self.state.d.next = SHRINK.into();
            }
        }
        if self.state.q.val() == ADD {
            self.first.d.next = false;
            self.other.d.next = self.later.read_data.val();
            if self.first.q.val() {
                self.other.d.next = self.first_child.read_data.val();
                if !self.has_children.val() {
                    self.head.d.next = self.head.q.val() + 1;
                    self.state.d.next = GROW.into();
                }
            } else {
                self.subtree.write.next = true;
                self.tail.d.next = self.tail.q.val() + 1;
                if self.other.q.val() == self.last_child.read_data.val() {
                    self.head.d.next = self.head.q.val() + 1;
                    self.state.d.next = GROW.into();
                }
                if self.tail.q.val() == self.segment_limit.val() {
                    self.state.d.next = BROKEN.into();
                }
            }
        }
        if self.state.q.val() == SHRINK {
            self.tail.d.next = self.tail.q.val() - 1;
            self.at.d.next = self.subtree.read_data.val();
            self.held.write.next = true;
            self.held.write_address.next = self.subtree.read_data.val();
            self.sweeping.d.next = true;
            self.state.d.next = COLLECT.into();
        }
        if self.frees.val() {
            self.page.d.next = self.first_page.read_data.val();
            self.state.d.next = DROP.into();
            if self.page_counts.read_data.val().any() {
                self.state.d.next = GIVE.into();
            }
            if !self.is_alive.val() {
                self.state.d.next = BROKEN.into();
            }
        }

        // Lists.
        self.item_valid.next = self.state.q.val() == LIST;
        self.item_segment.next = self.at.q.val();
        self.item_page.next = self.page.q.val();
        self.item_first.next = self.first.q.val();
        self.item_last.next = !self.rooted.read_data.val().any();
        if self.asked.q.val() == PAGES {
            self.item_last.next = self.page.q.val() == self.last_page.read_data.val();
        }
        if self.state.q.val() == LIST && self.item_ready.val() {
            self.first.d.next = false;
            self.page.d.next = self.page_behind.read_data.val();
            if self.asked.q.val() == WALK {
                self.at.d.next = self.parents.read_data.val();
            }
            if self.item_last.val() {
                self.state.d.next = ANSWER.into();
            }
        }

        // The answer.
        self.answer_valid.next = self.state.q.val() == ANSWER;
        self.answer_status.next = self.answer.q.val();
        self.answer_segment.next = self.other.q.val();
        self.answer_generation.next = self.new_generation.q.val();
        self.answer_page.next = self.page.q.val();
        self.answer_place.next = self.place.q.val();
        if self.state.q.val() == ANSWER {
            self.state.d.next = IDLE.into();
        }
        if self.state.q.val() == BROKEN {
            self.answer_valid.next = self.command_valid.val();
            self.answer_status.next = FAULT.into();
            self.command_ready.next = true;
        }
    }
}
