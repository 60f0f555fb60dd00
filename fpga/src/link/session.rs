//! Commands that are executed once and in order: go-back-N over frames.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use hdl::board::protocol::{
    Deframer, MAX_COMMAND_BODY, MAX_REPLY_BODY, MAX_WINDOW, Operation, REPLY_HEADER, Received,
    Status, encode,
};
use rand::Rng;

use super::transport::{Transport, TransportError, line_time};

/// Bytes of a frame beyond its header and body: check and flags. Escapes come on top.
const FRAME_BYTES: usize = 4 + 2;

/// How patient a session is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkOptions {
    /// Added to the time that bytes take on the line: buffers of operating systems and USB bridges, and the longest product of the array.
    pub slack: Duration,
    /// Times that commands are repeated without any of them being answered, before a session is given up.
    pub tries: u32,
    /// Time that commands under way ahead of their replies may take on the line; at least two commands are. It should be longer than a round trip, so that the line
    /// is never idle, and not much longer, because whatever is behind a damaged frame is sent again.
    pub ahead: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            slack: Duration::from_millis(300),
            tries: 8,
            ahead: Duration::from_millis(40),
        }
    }
}

/// What came from the line since the last progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes.
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// What lies between two flags and is no frame.
    pub damaged: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes == 0 {
            f.write_str(
                "not a byte came back: is it the right port, is the board flashed, and is its reset released?",
            )
        } else if self.frames == 0 {
            write!(
                f,
                "{} bytes came back, but no intact frame among them: is it the right baud rate, and the right program on the board?",
                self.bytes
            )
        } else {
            write!(
                f,
                "{} intact frames and {} damaged ones came back, but none that goes on: the line loses too much",
                self.frames, self.damaged
            )
        }
    }
}

/// Why commands are not executed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The line.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Commands were repeated, and none was answered.
    #[error("{port} at {rate} baud does not answer, {tries} times: {seen}")]
    NoAnswer {
        /// The port.
        port: String,
        /// Bits a second.
        rate: u32,
        /// How often commands were sent.
        tries: u32,
        /// What came instead.
        seen: Seen,
    },
    /// The board was reset, and has lost its memories.
    #[error("the board was reset")]
    BoardReset,
    /// The board's sequence number is none that this session can explain.
    #[error(
        "the board expects command {expected}, and {first} to {last} are under way: another program talks to it"
    )]
    Astray {
        /// What it expects.
        expected: u8,
        /// The first command that has no answer.
        first: u8,
        /// The next command that would be sent.
        last: u8,
    },
    /// The board takes a command for one that it doesn't have, or that is wrong.
    #[error("the board answers {operation:?} with {status:?}: {}", status.meaning())]
    Rejected {
        /// The command.
        operation: Operation,
        /// The answer.
        status: Status,
    },
    /// A reply whose check is right says what no board says.
    #[error("the board's answer to {operation:?} has {found} bytes instead of {expected}")]
    Length {
        /// The command.
        operation: Operation,
        /// Bytes of the body expected.
        expected: usize,
        /// Bytes of the body found.
        found: usize,
    },
    /// A command longer than a frame.
    #[error("{operation:?} has a body of {bytes} bytes, and a frame takes {MAX_COMMAND_BODY}")]
    TooLong {
        /// The command.
        operation: Operation,
        /// Bytes of its body.
        bytes: usize,
    },
}

impl LinkError {
    /// Whether a new session can go on where this one ended.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Transport(_) | Self::NoAnswer { .. } | Self::BoardReset | Self::Astray { .. } => {
                true
            }
            Self::Rejected { .. } | Self::Length { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// What went over the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes to the board, repetitions included.
    pub bytes_sent: u64,
    /// Bytes from the board.
    pub bytes_received: u64,
    /// Frames sent, repetitions included.
    pub frames_sent: u64,
    /// Commands that were answered.
    pub commands: u64,
    /// Of the frames sent: repetitions.
    pub repeated: u64,
    /// Times that nothing came although something was due.
    pub timeouts: u64,
    /// Frames from the board that were none.
    pub damaged: u64,
    /// Replies that said that a frame was damaged, out of order or had no place to wait.
    pub complaints: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Time in which this program waited for the line.
    pub waiting: Duration,
}

/// A command that has no answer yet.
struct Outstanding {
    operation: Operation,
    /// As it goes over the line.
    frame: Vec<u8>,
    /// Bytes that its reply's body has.
    reply: usize,
}

/// What became of a reply.
enum Progress {
    None,
    Acknowledged,
    Body(Vec<u8>),
}

/// A session with a board.
///
/// Commands are sent ahead of their replies. A reply is taken only if it is intact, of this session, answers a command under way and has the length that is due. A reply to
/// a later command answers the ones before it as well: what they could say beside `Done` depends only on their content, which is checked before they are sent.
pub struct Session<T> {
    transport: T,
    options: LinkOptions,
    /// 0 while none is open.
    id: u8,
    previous_id: u8,
    /// Number of the first command in `outstanding`.
    first: u8,
    outstanding: VecDeque<Outstanding>,
    deframer: Deframer,
    received: VecDeque<Received>,
    /// After going back: frames sent before that, whose complaints are still to come and say nothing new.
    stale: Option<usize>,
    tries: u32,
    seen: Seen,
    statistics: Statistics,
}

impl<T: Transport> Session<T> {
    /// On a line, no session open.
    pub fn new(transport: T, options: LinkOptions) -> Self {
        Self {
            transport,
            options,
            id: 0,
            previous_id: 0,
            first: 0,
            outstanding: VecDeque::new(),
            deframer: Deframer::new(REPLY_HEADER + MAX_REPLY_BODY),
            received: VecDeque::new(),
            stale: None,
            tries: 0,
            seen: Seen::default(),
            statistics: Statistics::default(),
        }
    }

    /// The line.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// The line, to do something to it.
    pub const fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// What went over the line.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Closes the line and opens it again. Then a session is to be opened.
    ///
    /// # Errors
    /// It can't be opened (yet).
    pub fn reopen(&mut self) -> Result<(), LinkError> {
        self.id = 0;
        self.outstanding.clear();
        self.received.clear();
        self.deframer = Deframer::new(REPLY_HEADER + MAX_REPLY_BODY);
        Ok(self.transport.reopen()?)
    }

    /// Opens a session; what was under way is forgotten.
    ///
    /// # Errors
    /// The board doesn't answer.
    pub fn open(&mut self) -> Result<(), LinkError> {
        self.outstanding.clear();
        self.stale = None;
        self.forget_seen();
        // A session of an earlier program may still be open under the number that chance gives, and an `Open` that changes nothing says another number.
        for _ in 0..=self.options.tries {
            self.id = self.fresh_id();
            self.previous_id = self.id;
            if self.try_open()? {
                self.statistics.sessions += 1;
                return Ok(());
            }
        }
        Err(self.no_answer())
    }

    fn fresh_id(&self) -> u8 {
        let mut random = rand::rng();
        loop {
            let id = random.random_range(1..=u8::MAX);
            if id != self.previous_id {
                return id;
            }
        }
    }

    fn try_open(&mut self) -> Result<bool, LinkError> {
        let sequence: u8 = rand::rng().random();
        let frame = encode(&[self.id, sequence, Operation::Open as u8]);
        self.first = sequence.wrapping_add(1);
        for attempt in 0..=self.options.tries {
            self.statistics.repeated += u64::from(attempt > 0);
            self.send(&frame, 1)?;
            let mut patience = self.patience(frame.len());
            loop {
                let Some(received) = self.receive(&mut patience)? else {
                    self.statistics.timeouts += 1;
                    break;
                };
                let Received::Frame(reply) = received else {
                    continue;
                };
                // Whatever else comes answers frames of an earlier session, or says that this one was damaged.
                match *reply.as_slice() {
                    [id, number, status, expected]
                        if id == self.id && number == sequence && status == Status::Done as u8 =>
                    {
                        self.forget_seen();
                        return Ok(expected == self.first);
                    }
                    [_, _, status, _] if status == Status::Damaged as u8 => {
                        self.statistics.complaints += 1;
                        break;
                    }
                    _ => {}
                }
            }
        }
        Err(self.no_answer())
    }

    fn no_answer(&self) -> LinkError {
        LinkError::NoAnswer {
            port: self.transport.name(),
            rate: self.transport.rate(),
            tries: self.options.tries + 1,
            seen: self.seen,
        }
    }

    fn forget_seen(&mut self) {
        self.tries = 0;
        self.seen = Seen::default();
    }

    /// Sends a command whose reply has no body, ahead of its reply.
    ///
    /// # Errors
    /// This command or one before it can't be executed.
    pub fn post(&mut self, operation: Operation, body: &[u8]) -> Result<(), LinkError> {
        self.enqueue(operation, body, 0)
    }

    /// Sends a command and returns the `reply` bytes of its reply's body, when all commands before it are executed, too.
    ///
    /// # Errors
    /// This command or one before it can't be executed.
    pub fn call(
        &mut self,
        operation: Operation,
        body: &[u8],
        reply: usize,
    ) -> Result<Vec<u8>, LinkError> {
        self.enqueue(operation, body, reply)?;
        loop {
            if let Progress::Body(body) = self.pump()? {
                return Ok(body);
            }
            if reply == 0 && self.outstanding.is_empty() {
                return Ok(Vec::new());
            }
        }
    }

    /// Waits until all commands are executed.
    ///
    /// # Errors
    /// One of them can't be executed.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        while !self.outstanding.is_empty() {
            self.pump()?;
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        operation: Operation,
        body: &[u8],
        reply: usize,
    ) -> Result<(), LinkError> {
        if body.len() > MAX_COMMAND_BODY {
            return Err(LinkError::TooLong {
                operation,
                bytes: body.len(),
            });
        }
        if self.id == 0 {
            return Err(LinkError::BoardReset);
        }
        let under_way = |outstanding: &VecDeque<Outstanding>| {
            outstanding.iter().map(|it| it.frame.len()).sum::<usize>()
        };
        loop {
            let count = self.outstanding.len();
            let next = body.len() + FRAME_BYTES;
            let time = line_time(under_way(&self.outstanding) + next, self.transport.rate());
            let room = count < 2 || (count < MAX_WINDOW && time <= self.options.ahead);
            // Nothing goes behind a command whose reply has a body.
            if room && self.outstanding.back().is_none_or(|it| it.reply == 0) {
                break;
            }
            self.pump()?;
        }
        let sequence = self.first.wrapping_add(self.outstanding.len() as u8);
        let mut content = vec![self.id, sequence, operation as u8];
        content.extend_from_slice(body);
        let frame = encode(&content);
        self.outstanding.push_back(Outstanding {
            operation,
            frame: frame.clone(),
            reply,
        });
        self.send(&frame, 1)
    }

    fn send(&mut self, bytes: &[u8], frames: u64) -> Result<(), LinkError> {
        self.statistics.bytes_sent += bytes.len() as u64;
        self.statistics.frames_sent += frames;
        let start = Instant::now();
        let result = self.transport.write_all(bytes);
        self.statistics.waiting += start.elapsed();
        Ok(result?)
    }

    /// How long an answer may take when so many bytes are on their way to the board.
    fn patience(&self, under_way: usize) -> Duration {
        let replies: usize = self
            .outstanding
            .iter()
            // Every byte of a body could be escaped.
            .map(|it| 2 * it.reply + REPLY_HEADER + FRAME_BYTES)
            .sum();
        self.options.slack + line_time(under_way + replies, self.transport.rate())
    }

    /// The next thing between two flags. The time that it takes is taken from `patience`; `None` if that runs out.
    fn receive(&mut self, patience: &mut Duration) -> Result<Option<Received>, LinkError> {
        loop {
            if let Some(received) = self.received.pop_front() {
                match received {
                    Received::Frame(_) => self.seen.frames += 1,
                    Received::Damaged => {
                        self.seen.damaged += 1;
                        self.statistics.damaged += 1;
                    }
                }
                return Ok(Some(received));
            }
            if patience.is_zero() {
                return Ok(None);
            }
            let mut buffer = [0; 1024];
            let start = Instant::now();
            let result = self.transport.read(&mut buffer, *patience);
            let waited = start.elapsed();
            self.statistics.waiting += waited;
            let count = result?;
            if count == 0 {
                return Ok(None);
            }
            self.seen.bytes += count as u64;
            self.statistics.bytes_received += count as u64;
            // A line that never falls silent ends the patience, too.
            let used = waited.max(line_time(count, self.transport.rate()));
            *patience = patience.saturating_sub(used);
            for &byte in &buffer[..count] {
                self.received.extend(self.deframer.push(byte));
            }
        }
    }

    /// Waits for the next reply, and does what it asks for.
    fn pump(&mut self) -> Result<Progress, LinkError> {
        let under_way = self.outstanding.iter().map(|it| it.frame.len()).sum();
        let mut patience = self.patience(under_way);
        loop {
            let Some(received) = self.receive(&mut patience)? else {
                self.statistics.timeouts += 1;
                self.go_back(0)?;
                return Ok(Progress::None);
            };
            match received {
                Received::Frame(reply) => {
                    let progress = self.take(&reply)?;
                    if !matches!(progress, Progress::None) {
                        return Ok(progress);
                    }
                }
                // The only reply that is due was hurt: it is asked for at once, the first time. Otherwise a later reply tells what was executed, or the time runs out.
                Received::Damaged if self.outstanding.len() == 1 && self.stale.is_none() => {
                    self.go_back(0)?;
                    return Ok(Progress::None);
                }
                Received::Damaged => {}
            }
        }
    }

    /// Sends everything again that has no answer. `stale` complaints about what was sent before are still to come.
    fn go_back(&mut self, stale: usize) -> Result<(), LinkError> {
        if self.tries >= self.options.tries {
            return Err(self.no_answer());
        }
        self.tries += 1;
        self.stale = Some(stale);
        let frames = self.outstanding.len() as u64;
        let line: Vec<u8> = self
            .outstanding
            .iter()
            .flat_map(|it| it.frame.iter().copied())
            .collect();
        self.statistics.repeated += frames;
        self.send(&line, frames)
    }

    fn take(&mut self, reply: &[u8]) -> Result<Progress, LinkError> {
        let &[session, sequence, status, expected, ref body @ ..] = reply else {
            return Ok(Progress::None);
        };
        let Some(status) = Status::from_code(status) else {
            return Ok(Progress::None);
        };
        if session != self.id {
            // Our session is not the board's any more. Answers to frames of sessions before ours have come before it was opened.
            self.id = 0;
            return Err(LinkError::BoardReset);
        }
        let count = self.outstanding.len();
        let executed = usize::from(expected.wrapping_sub(self.first));
        let place = usize::from(sequence.wrapping_sub(self.first));
        match status {
            Status::Done | Status::Unknown | Status::Refused if place < count => {
                if executed != place + 1 {
                    return Err(self.astray(expected));
                }
                self.answered(place, status, body)
            }
            Status::Damaged | Status::Overrun => {
                self.statistics.complaints += 1;
                self.complain(executed, expected, 0)
            }
            Status::OutOfOrder if place < count => {
                self.statistics.complaints += 1;
                self.complain(executed, expected, place)
            }
            // Repeats of what was answered already; and `Closed` of our own session answers a frame of another one.
            Status::Done
            | Status::Unknown
            | Status::Refused
            | Status::OutOfOrder
            | Status::Closed => Ok(Progress::None),
        }
    }

    fn astray(&self, expected: u8) -> LinkError {
        LinkError::Astray {
            expected,
            first: self.first,
            last: self.first.wrapping_add(self.outstanding.len() as u8),
        }
    }

    /// A reply to the command at `place` came.
    fn answered(
        &mut self,
        place: usize,
        status: Status,
        body: &[u8],
    ) -> Result<Progress, LinkError> {
        let Some(command) = self.outstanding.get(place) else {
            return Ok(Progress::None);
        };
        let operation = command.operation;
        if status != Status::Done {
            return Err(LinkError::Rejected { operation, status });
        }
        if body.len() != command.reply {
            return Err(LinkError::Length {
                operation,
                expected: command.reply,
                found: body.len(),
            });
        }
        self.advance(place + 1);
        Ok(if body.is_empty() {
            Progress::Acknowledged
        } else {
            Progress::Body(body.to_vec())
        })
    }

    /// The first `count` commands are executed.
    fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.outstanding.drain(..count);
        self.first = self.first.wrapping_add(count as u8);
        self.statistics.commands += count as u64;
        self.stale = None;
        self.forget_seen();
    }

    /// The board executed `executed` commands of those under way, and something behind them went wrong: the command at `place` was out of order, or some frame is lost.
    fn complain(
        &mut self,
        executed: usize,
        expected: u8,
        place: usize,
    ) -> Result<Progress, LinkError> {
        let count = self.outstanding.len();
        if executed > count {
            // What was said before the last replies is old; anything else nobody can explain.
            return if executed > usize::from(u8::MAX) - MAX_WINDOW {
                Ok(Progress::None)
            } else {
                Err(self.astray(expected))
            };
        }
        // A command whose reply has a body is answered by that only.
        let bodies = self.outstanding.iter().filter(|it| it.reply > 0).count();
        let done = executed.min(count - bodies);
        self.advance(done);
        if done < count {
            match self.stale {
                // Frames that were under way when we went back.
                Some(stale) if stale > 0 => self.stale = Some(stale - 1),
                _ => self.go_back((count - done - 1).saturating_sub(place.saturating_sub(done)))?,
            }
        }
        Ok(if done > 0 {
            Progress::Acknowledged
        } else {
            Progress::None
        })
    }
}
