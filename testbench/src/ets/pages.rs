//! The page table.

use golden::ets::{Handle, PoolError};
use hdl::ets::pages::{command, status};

use super::EtsError;
use super::pins::Pins;
use crate::design::PortId;
use crate::simulator::Simulator;

/// More cycles than any command takes.
const PATIENCE: u64 = 1 << 16;

/// What is asked of a page table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageCommand {
    /// Begin a branch of its own.
    Root,
    /// Begin a segment behind another.
    Fork(Handle),
    /// Make room for one more token.
    Append(Handle),
    /// Give a segment up.
    Release(Handle),
    /// Free a segment and all behind it.
    Prune(Handle),
    /// List the segments from one up to its root.
    Walk(Handle),
    /// List a segment's pages.
    Pages(Handle),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageAnswer {
    /// It is done.
    Done,
    /// A new segment.
    Segment(Handle),
    /// A token's page and its place there.
    Slot(usize, usize),
    /// Segments or pages; markers of the first and the last were where they belong.
    List(Vec<usize>),
    /// It is refused.
    Refused(PoolError),
    /// Something that no twin answers: the status.
    Unexpected(u64),
}

struct Ports {
    valid: PortId,
    ready: PortId,
    command: PortId,
    segment: PortId,
    generation: PortId,
    answer_valid: PortId,
    answer_status: PortId,
    answer_segment: PortId,
    answer_generation: PortId,
    answer_page: PortId,
    answer_place: PortId,
    item_valid: PortId,
    item_ready: PortId,
    item_segment: PortId,
    item_page: PortId,
    item_first: PortId,
    item_last: PortId,
    pages_used: PortId,
    segments_used: PortId,
}

/// Drives `hdl::ets::PageTable`.
pub struct PageBench<S> {
    pins: Pins<S>,
    ports: Ports,
    segments: u64,
    pages: usize,
}

impl<S: Simulator> PageBench<S> {
    /// A bench for a table of so many segments and pages.
    ///
    /// # Errors
    /// The design has other ports, or the simulation fails.
    pub fn new(simulator: S, segments: usize, pages: usize) -> Result<Self, EtsError> {
        let pins = Pins::new(simulator)?;
        let ports = Ports {
            valid: pins.input("command_valid")?,
            ready: pins.output("command_ready")?,
            command: pins.input("command")?,
            segment: pins.input("segment")?,
            generation: pins.input("generation")?,
            answer_valid: pins.output("answer_valid")?,
            answer_status: pins.output("answer_status")?,
            answer_segment: pins.output("answer_segment")?,
            answer_generation: pins.output("answer_generation")?,
            answer_page: pins.output("answer_page")?,
            answer_place: pins.output("answer_place")?,
            item_valid: pins.output("item_valid")?,
            item_ready: pins.input("item_ready")?,
            item_segment: pins.output("item_segment")?,
            item_page: pins.output("item_page")?,
            item_first: pins.output("item_first")?,
            item_last: pins.output("item_last")?,
            pages_used: pins.output("pages_used")?,
            segments_used: pins.output("segments_used")?,
        };
        Ok(Self {
            pins,
            ports,
            segments: segments as u64,
            pages,
        })
    }

    /// Asks one thing; items are taken in the cycles for which `ready` says so. With the answer the cycles from the command to it.
    ///
    /// # Errors
    /// The handle is beyond the table, or the simulation fails.
    pub fn ask(
        &mut self,
        asked: PageCommand,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(PageAnswer, u64), EtsError> {
        let nobody = Handle {
            segment: 0,
            generation: 0,
        };
        let (code, handle) = match asked {
            PageCommand::Root => (command::ROOT, nobody),
            PageCommand::Fork(handle) => (command::FORK, handle),
            PageCommand::Append(handle) => (command::APPEND, handle),
            PageCommand::Release(handle) => (command::RELEASE, handle),
            PageCommand::Prune(handle) => (command::PRUNE, handle),
            PageCommand::Walk(handle) => (command::WALK, handle),
            PageCommand::Pages(handle) => (command::PAGES, handle),
        };
        super::within("the segment", u64::from(handle.segment), self.segments - 1)?;
        let pins = &mut self.pins;
        let ports = &self.ports;
        pins.set(ports.command, code);
        pins.set(ports.segment, u64::from(handle.segment));
        pins.set(ports.generation, u64::from(handle.generation));
        pins.set(ports.valid, 1);
        pins.settle()?;
        let begin = pins.cycles();
        while pins.get(ports.ready) == 0 {
            pins.cycle()?;
            pins.settle()?;
            if pins.cycles() - begin > PATIENCE {
                return Err(EtsError::Endless(PATIENCE));
            }
        }
        pins.cycle()?;
        pins.set(ports.valid, 0);
        let mut list = Vec::new();
        let mut marked = true;
        let mut ended = false;
        loop {
            let take = ready();
            pins.set(ports.item_ready, u64::from(take));
            pins.settle()?;
            if pins.get(ports.answer_valid) == 1 {
                break;
            }
            if take && pins.get(ports.item_valid) == 1 {
                marked &= !ended && (pins.get(ports.item_first) == 1) == list.is_empty();
                ended = pins.get(ports.item_last) == 1;
                let item = match asked {
                    PageCommand::Walk(_) => ports.item_segment,
                    _ => ports.item_page,
                };
                list.push(pins.get(item) as usize);
            }
            pins.cycle()?;
            if pins.cycles() - begin > PATIENCE {
                return Err(EtsError::Endless(PATIENCE));
            }
        }
        let answer = match (pins.get(ports.answer_status), asked) {
            (status::OK, PageCommand::Root | PageCommand::Fork(_)) => PageAnswer::Segment(Handle {
                segment: pins.get(ports.answer_segment) as u32,
                generation: pins.get(ports.answer_generation) as u8,
            }),
            (status::OK, PageCommand::Append(_)) => PageAnswer::Slot(
                pins.get(ports.answer_page) as usize,
                pins.get(ports.answer_place) as usize,
            ),
            (status::OK, PageCommand::Walk(_) | PageCommand::Pages(_))
                if marked && (ended || list.is_empty()) =>
            {
                PageAnswer::List(list)
            }
            (status::OK, PageCommand::Release(_) | PageCommand::Prune(_)) => PageAnswer::Done,
            (status::FULL, _) => PageAnswer::Refused(PoolError::Full {
                capacity: self.pages,
            }),
            (status::FREED, _) => PageAnswer::Refused(PoolError::Freed),
            (status::RELEASED, _) => PageAnswer::Refused(PoolError::Released),
            (status::FROZEN, _) => PageAnswer::Refused(PoolError::Frozen),
            (status::SEGMENTS, _) => PageAnswer::Refused(PoolError::Segments),
            (status, _) => PageAnswer::Unexpected(status),
        };
        let cycles = pins.cycles() - begin;
        pins.cycle()?;
        Ok((answer, cycles))
    }

    /// Frees everything, as if nothing had been in use.
    ///
    /// # Errors
    /// The simulation fails.
    pub fn reset(&mut self) -> Result<(), EtsError> {
        self.pins.reset()
    }

    /// Pages and segments in use.
    pub fn used(&self) -> (usize, usize) {
        (
            self.pins.get(self.ports.pages_used) as usize,
            self.pins.get(self.ports.segments_used) as usize,
        )
    }
}

/// What the twin answers.
pub fn twin_answer(table: &mut golden::ets::PageTable, asked: PageCommand) -> PageAnswer {
    let answer = match asked {
        PageCommand::Root => table.root().map(PageAnswer::Segment),
        PageCommand::Fork(handle) => table.fork(handle).map(PageAnswer::Segment),
        PageCommand::Append(handle) => table
            .append(handle)
            .map(|(page, place)| PageAnswer::Slot(page, place)),
        PageCommand::Release(handle) => table.release(handle).map(|()| PageAnswer::Done),
        PageCommand::Prune(handle) => table.prune(handle).map(|()| PageAnswer::Done),
        PageCommand::Walk(handle) => table.walk(handle).map(|walk| {
            PageAnswer::List(walk.into_iter().map(|segment| segment as usize).collect())
        }),
        PageCommand::Pages(handle) => table.pages(handle).map(PageAnswer::List),
    };
    answer.unwrap_or_else(PageAnswer::Refused)
}
