//! A board that isn't there: its design in Verilator behind a pseudo-terminal.
//!
//! A [`SimulatedBoard`] runs a compiled model in a thread of its own. [`SimulatedBoard::path`] can be opened by any serial
//! program, as the port of a board can. Between the two lies a line with the faults of a [`FaultPlan`]. Simulated time passes
//! only while there is something to do: while bytes are on the line, and while the device is busy.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdl::emit::Bundle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};
use tempfile::TempDir;
use testbench::design::{Design, Direction, Port, PortError, PortLookup, SourceFile};
use testbench::serial::{
    BitLength, FaultError, FaultRates, Faults, Limits, LineCounts, ResetPort, SerialModel,
    SerialPorts, Stop,
};
use testbench::simulator::SimError;
use testbench::verilator::{CompiledModel, Verilator, Waveform};

/// Cycles simulated between two looks at the pseudo-terminal.
const SLICE_CYCLES: u64 = 4096;

/// Cycles simulated after power-up and after a reset before a byte is sent.
const SETTLE_CYCLES: u64 = 1024;

/// A design that has been quiet for so long has nothing to do, if it can say that it is busy.
const QUIET_CYCLES: u64 = 2048;

/// The same for a design that can't: it may compute for long before it answers.
const QUIET_CYCLES_WITHOUT_BUSY: u64 = 1 << 22;

/// The longest command of a board's engine: 63 results of the longest row that a frame can name, in steps of half a block.
const LONGEST_COMMAND: u64 = 63 * 2 * 4096;

/// Bytes read from the pseudo-terminal at once.
const READ_BYTES: usize = 4096;

/// With so many bytes that nobody reads simulated time stands still.
const UNREAD_BYTES: usize = 1 << 16;

/// How long an idle board waits before it looks around.
const IDLE: Duration = Duration::from_millis(20);

/// What goes wrong with a board and its cable. For the same seed and the same bytes it is always the same.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FaultPlan {
    /// Decides which bytes meet a fault.
    pub seed: u64,
    /// Faults by byte on the way to the device.
    pub to_device: FaultRates,
    /// Faults by byte on the way from the device.
    pub from_device: FaultRates,
    /// What happens at certain bytes.
    pub events: Vec<Event>,
}

/// Something that happens to a board as soon as the host has sent a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Bytes that the host has sent since the board was started.
    pub after_bytes: u64,
    /// What happens.
    pub kind: EventKind,
}

/// What may happen to a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Its reset is pressed.
    Reset,
    /// It loses power for a moment; the pseudo-terminal stays.
    PowerCycle,
    /// Its cable is pulled (the board keeps its power) and plugged in after this time.
    Pull(Duration),
}

/// What a simulated board has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Clock cycles simulated.
    pub cycles: u64,
    /// Bytes on the way to the device, and their faults.
    pub to_device: LineCounts,
    /// Bytes on the way from the device, and their faults.
    pub from_device: LineCounts,
    /// Bytes that were between the pseudo-terminal and the line, in either direction, when the cable was pulled. Those
    /// that the system held for the reader are lost, too, and can't be counted.
    pub lost_in_pulls: u64,
    /// How often the reset was pressed.
    pub resets: u64,
    /// How often the power was lost.
    pub power_cycles: u64,
    /// How often the cable was pulled.
    pub pulls: u64,
    /// Whether the cable is in.
    pub plugged_in: bool,
    /// Whether the board has nothing to do.
    pub idle: bool,
}

/// Why a board can't be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedBoardError {
    /// The design can't be compiled, or it stopped itself.
    #[error(transparent)]
    Simulation(#[from] SimError),
    /// The design has no serial line.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The line or its faults can't be.
    #[error(transparent)]
    Faults(#[from] FaultError),
    /// The system refuses something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's message.
        source: std::io::Error,
    },
    /// The board isn't running any more.
    #[error("the simulated board has stopped")]
    Stopped,
}

fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> SimulatedBoardError {
    move |source| SimulatedBoardError::System {
        what,
        source: source.into(),
    }
}

/// A board's pins and line, where they aren't as [`SimulatedBoard::start`] takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The design's pins.
    pub ports: SerialPorts,
    /// The length of a bit on the line.
    pub bit: BitLength,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// After how many cycles without a move the board counts as idle; at least some bytes' time.
    pub quiet_cycles: u64,
}

impl Setup {
    /// A setup for ports called as [`SerialPorts::of`] looks for them.
    ///
    /// # Errors
    /// [`SimulatedBoardError::Port`], [`SimulatedBoardError::Faults`].
    pub fn of(
        design: &Design,
        clocks_per_bit: usize,
        faults: FaultPlan,
    ) -> Result<Self, SimulatedBoardError> {
        let ports = SerialPorts::of(design)?;
        let cycles = match ports.busy {
            Some(_) => QUIET_CYCLES,
            None => QUIET_CYCLES_WITHOUT_BUSY,
        };
        Ok(Self {
            ports,
            bit: BitLength::new(clocks_per_bit, 0)?,
            faults,
            quiet_cycles: cycles.max(40 * clocks_per_bit as u64),
        })
    }
}

impl Setup {
    /// A setup for a board's whole design ([`crate::Board::design`]); its button resets it.
    ///
    /// # Errors
    /// As [`Setup::of`].
    pub fn of_board(
        board: &crate::Board,
        design: &Design,
        clocks_per_bit: usize,
        faults: FaultPlan,
    ) -> Result<Self, SimulatedBoardError> {
        let reset = design
            .find_port("button")
            .map(|_| design.port("button", Direction::Input, Some(1)))
            .transpose()?;
        let ports = SerialPorts {
            clock: design.port("clk", Direction::Input, Some(1))?,
            rx: design.port("rx", Direction::Input, Some(1))?,
            tx: design.port("tx", Direction::Output, Some(1))?,
            reset: reset.map(|port| ResetPort {
                port,
                active_low: board
                    .pin(crate::Pin::Button(0))
                    .is_some_and(|pin| pin.active == crate::Active::Low),
            }),
            // A board's light for it may be inverted, or missing.
            busy: None,
        };
        Ok(Self {
            ports,
            bit: BitLength::new(clocks_per_bit, 0)?,
            faults,
            quiet_cycles: LONGEST_COMMAND.max(40 * clocks_per_bit as u64),
        })
    }
}

impl crate::Board {
    /// The board's whole design for the simulator: the top that its bitstream has, with the engine in it, and a model of the loop that makes its clock. The
    /// model passes the clock through, so simulated time counts the engine's cycles.
    #[must_use]
    pub fn design(&self, engine: &Bundle) -> Design {
        let top = self.top();
        let mut design = Design::from(engine);
        design.top.clone_from(&top.name);
        design.sources.push(SourceFile {
            name: format!("{}.v", top.name),
            text: top.verilog.clone(),
        });
        if let Some(pll) = self.pll {
            design.sources.extend(
                crate::MODELS
                    .iter()
                    .filter(|(name, _)| *name == pll.model())
                    .map(|&(name, text)| SourceFile {
                        name: name.to_owned(),
                        text: text.to_owned(),
                    }),
            );
        }
        design.ports = top
            .ports
            .iter()
            .map(|(name, role)| match role {
                crate::Pin::Clock | crate::Pin::UartRx | crate::Pin::Button(_) => {
                    Port::input(name, 1)
                }
                _ => Port::output(name, 1),
            })
            .collect();
        design
    }
}

/// A board's design in Verilator behind a pseudo-terminal. It runs until it is stopped or dropped.
#[derive(Debug)]
pub struct SimulatedBoard {
    path: PathBuf,
    commands: Sender<(Command, SyncSender<()>)>,
    waker: UnixStream,
    shared: Arc<Mutex<Statistics>>,
    thread: Option<JoinHandle<Result<(), SimulatedBoardError>>>,
    // Dropped last: the link that `path` names lies in it.
    _folder: TempDir,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Reset,
    PowerCycle,
    Pull,
    PlugIn,
    Stop,
}

impl SimulatedBoard {
    /// Compiles a design, or takes it from the cache, powers it up and plugs it in. Its ports are called `clock`, `rx`, `tx`
    /// and, where it has them, `reset` and `busy`.
    ///
    /// # Errors
    /// [`SimulatedBoardError`].
    pub fn start(
        design: &Design,
        clocks_per_bit: usize,
        faults: FaultPlan,
    ) -> Result<Self, SimulatedBoardError> {
        Self::start_with(design, Setup::of(design, clocks_per_bit, faults)?)
    }

    /// [`SimulatedBoard::start`] with everything given.
    ///
    /// # Errors
    /// [`SimulatedBoardError`].
    pub fn start_with(design: &Design, setup: Setup) -> Result<Self, SimulatedBoardError> {
        let model = Verilator::find()?.compile(design, Waveform::None)?;
        let folder = tempfile::Builder::new()
            .prefix("fgmp-board-")
            .tempdir()
            .map_err(system("a temporary folder for the simulated board's port"))?;
        let path = folder.path().join("port");
        let cable = Cable::plug_in(&path)?;
        let (waker, woken) =
            UnixStream::pair().map_err(system("a socket to wake the simulated board"))?;
        for end in [&waker, &woken] {
            end.set_nonblocking(true)
                .map_err(system("a socket to wake the simulated board"))?;
        }
        let shared = Arc::new(Mutex::new(Statistics {
            plugged_in: true,
            ..Statistics::default()
        }));
        let (commands, orders) = channel();
        let (tell, told) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("simulated-board".to_owned())
            .spawn({
                let (path, shared) = (path.clone(), Arc::clone(&shared));
                move || {
                    // The model can't move between threads, so it is made in this one.
                    let board = Board::new(model, setup, cable, path, shared);
                    let (mut board, result) = match board {
                        Ok(board) => (board, Ok(())),
                        Err(error) => {
                            let _ = tell.send(Err(error));
                            return Ok(());
                        }
                    };
                    // The other end waits for this, and if it doesn't the first command is missing, too.
                    let _ = tell.send(result);
                    board.run(&orders, &woken)
                }
            })
            .map_err(system("a thread for the simulated board"))?;
        told.recv().map_err(|_| SimulatedBoardError::Stopped)??;
        Ok(Self {
            path,
            commands,
            waker,
            shared,
            thread: Some(thread),
            _folder: folder,
        })
    }

    /// The port: to be opened as that of a board, with any baud rate. It is a link that leads to the pseudo-terminal while
    /// the cable is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the board has done so far.
    pub fn statistics(&self) -> Statistics {
        *locked(&self.shared)
    }

    /// Presses the board's reset for a moment; a board without one loses its power instead. Returns when it is done.
    ///
    /// # Errors
    /// [`SimulatedBoardError::Stopped`].
    pub fn press_reset(&self) -> Result<(), SimulatedBoardError> {
        self.order(Command::Reset)
    }

    /// Takes the board's power away and gives it back; the pseudo-terminal stays. Returns when it is done.
    ///
    /// # Errors
    /// [`SimulatedBoardError::Stopped`].
    pub fn power_cycle(&self) -> Result<(), SimulatedBoardError> {
        self.order(Command::PowerCycle)
    }

    /// Pulls the cable: whoever has the port open gets an error, and the path leads nowhere. The board keeps its power.
    /// Returns when it is done.
    ///
    /// # Errors
    /// [`SimulatedBoardError::Stopped`].
    pub fn pull_cable(&self) -> Result<(), SimulatedBoardError> {
        self.order(Command::Pull)
    }

    /// Plugs the cable in, if it isn't; the port has the path that it had. Returns when it is done.
    ///
    /// # Errors
    /// [`SimulatedBoardError::Stopped`], also when the system has no pseudo-terminal left: then
    /// [`SimulatedBoard::stop`] tells.
    pub fn plug_in(&self) -> Result<(), SimulatedBoardError> {
        self.order(Command::PlugIn)
    }

    /// Ends the simulation and says what it did.
    ///
    /// # Errors
    /// Why it had ended before: [`SimulatedBoardError::Simulation`] when the design stopped itself,
    /// [`SimulatedBoardError::System`].
    pub fn stop(mut self) -> Result<Statistics, SimulatedBoardError> {
        // A board that has stopped says why below.
        let _ = self.order(Command::Stop);
        self.join()?;
        Ok(self.statistics())
    }

    fn order(&self, command: Command) -> Result<(), SimulatedBoardError> {
        let (done, is_done) = sync_channel(1);
        self.commands
            .send((command, done))
            .map_err(|_| SimulatedBoardError::Stopped)?;
        // A full socket has enough bytes to wake the thread.
        let _ = (&self.waker).write(&[0]);
        is_done.recv().map_err(|_| SimulatedBoardError::Stopped)
    }

    fn join(&mut self) -> Result<(), SimulatedBoardError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(SimulatedBoardError::Stopped),
            None => Ok(()),
        }
    }
}

impl Drop for SimulatedBoard {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Nobody is left to be told.
            let _ = self.order(Command::Stop);
            let _ = self.join();
        }
    }
}

fn locked(shared: &Mutex<Statistics>) -> MutexGuard<'_, Statistics> {
    // Plain numbers are whole at any time.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pseudo-terminal and the link that leads to it; both go when it is dropped.
#[derive(Debug)]
struct Cable {
    board: OwnedFd,
    /// Held open, so that the settings stay and reads at the board's end don't fail while no program has the port open.
    host: OwnedFd,
    link: PathBuf,
}

impl Cable {
    fn plug_in(link: &Path) -> Result<Self, SimulatedBoardError> {
        let failed = "a pseudo-terminal for the simulated board";
        let board = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(system(failed))?;
        rustix::io::fcntl_setfd(&board, rustix::io::FdFlags::CLOEXEC).map_err(system(failed))?;
        grantpt(&board).map_err(system(failed))?;
        unlockpt(&board).map_err(system(failed))?;
        let name = ptsname(&board, Vec::new()).map_err(system(failed))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let host = rustix::fs::open(&name, flags, Mode::empty()).map_err(system(failed))?;
        // All eight bits, no echo, no lines.
        let mut settings = tcgetattr(&host).map_err(system(failed))?;
        settings.make_raw();
        tcsetattr(&host, OptionalActions::Now, &settings).map_err(system(failed))?;
        rustix::io::ioctl_fionbio(&board, true).map_err(system(failed))?;
        let target = OsStr::from_bytes(name.to_bytes());
        std::os::unix::fs::symlink(target, link)
            .map_err(system("a link to the simulated board's port"))?;
        Ok(Self {
            board,
            host,
            link: link.to_owned(),
        })
    }

    /// A program that opens the port for itself alone leaves it locked when it goes, because this end stays open.
    fn unlock(&self) {
        // Where it can't be unlocked only the next program is refused.
        let _ = ioctl_tiocnxcl(&self.host);
    }

    /// Reads what there is; 0 bytes when there is nothing.
    fn read(&self, into: &mut [u8]) -> Result<usize, SimulatedBoardError> {
        match rustix::io::read(&self.board, into) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(system("reading from the pseudo-terminal")(error)),
        }
    }

    /// Writes what fits.
    fn write(&self, bytes: &[u8]) -> Result<usize, SimulatedBoardError> {
        match rustix::io::write(&self.board, bytes) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(system("writing to the pseudo-terminal")(error)),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // If it stays, it leads to nothing.
        let _ = std::fs::remove_file(&self.link);
    }
}

/// What the thread has.
struct Board {
    compiled: CompiledModel,
    /// Of the next model: each power-up finds other values in registers without an initial one.
    seed: u32,
    model: SerialModel,
    quiet_cycles: u64,
    events: VecDeque<Event>,
    cable: Option<Cable>,
    /// When the cable goes in by itself.
    plug_in_at: Option<Instant>,
    path: PathBuf,
    /// From the pseudo-terminal, not yet on the line.
    input: VecDeque<u8>,
    /// From the line, not yet in the pseudo-terminal.
    output: Vec<u8>,
    statistics: Statistics,
    shared: Arc<Mutex<Statistics>>,
}

impl Board {
    fn new(
        compiled: CompiledModel,
        setup: Setup,
        cable: Cable,
        path: PathBuf,
        shared: Arc<Mutex<Statistics>>,
    ) -> Result<Self, SimulatedBoardError> {
        let plan = setup.faults;
        let faults = |stream, rates| Faults::random(plan.seed.wrapping_mul(2) + stream, rates);
        let model = SerialModel::new(compiled.start(1)?, setup.ports, setup.bit)?
            .with_faults(faults(0, plan.to_device)?, faults(1, plan.from_device)?);
        let mut events = plan.events;
        events.sort_by_key(|event| event.after_bytes);
        let statistics = *locked(&shared);
        let mut board = Self {
            compiled,
            seed: 1,
            model,
            quiet_cycles: setup.quiet_cycles,
            events: events.into(),
            cable: Some(cable),
            plug_in_at: None,
            path,
            input: VecDeque::new(),
            output: Vec::new(),
            statistics,
            shared,
        };
        board.model.reset(&mut board.output)?;
        board.settle()?;
        Ok(board)
    }

    /// A board's top holds the engine in reset for a while after power-up and after its button; nobody is so quick as to send a byte before that ends.
    fn settle(&mut self) -> Result<(), SimulatedBoardError> {
        let limits = Limits::cycles(SETTLE_CYCLES);
        self.model.run(&[], &mut self.output, &limits)?;
        Ok(())
    }

    fn run(
        &mut self,
        orders: &Receiver<(Command, SyncSender<()>)>,
        woken: &UnixStream,
    ) -> Result<(), SimulatedBoardError> {
        let mut idle = false;
        let mut buffer = [0; READ_BYTES];
        loop {
            while let Ok((command, done)) = orders.try_recv() {
                idle = false;
                let stop = matches!(command, Command::Stop);
                if !stop {
                    self.obey(command)?;
                }
                self.publish(idle);
                // Whoever asked may have gone.
                let _ = done.send(());
                if stop {
                    return Ok(());
                }
            }
            if self.plug_in_at.is_some_and(|at| at <= Instant::now()) {
                self.obey(Command::PlugIn)?;
            }
            if let Some(cable) = &self.cable {
                cable.unlock();
                let written = cable.write(&self.output)?;
                self.output.drain(..written);
                if self.input.is_empty() {
                    let count = cable.read(&mut buffer)?;
                    self.input.extend(&buffer[..count]);
                }
            } else {
                self.statistics.lost_in_pulls += self.output.len() as u64;
                self.output.clear();
            }
            self.happen()?;

            let stalled = self.output.len() > UNREAD_BYTES;
            if stalled || idle && self.input.is_empty() {
                self.publish(idle);
                self.wait(woken)?;
                continue;
            }
            let mut next = Vec::new();
            if !self.model.is_sending() {
                let count = self.input.len().min(self.until_next_event());
                next.extend(self.input.drain(..count));
            }
            let limits = Limits {
                max_cycles: SLICE_CYCLES,
                quiet_cycles: Some(self.quiet_cycles),
                bytes: None,
                when_sent: !next.is_empty() || self.model.is_sending(),
            };
            let progress = self.model.run(&next, &mut self.output, &limits)?;
            idle = progress.stop == Stop::Quiet;
            self.publish(idle);
        }
    }

    /// Bytes that may be sent before something happens.
    fn until_next_event(&self) -> usize {
        self.events.front().map_or(usize::MAX, |event| {
            let left = event
                .after_bytes
                .saturating_sub(self.model.to_device().sent);
            usize::try_from(left).unwrap_or(usize::MAX)
        })
    }

    /// Lets happen what is due: the bytes before it have been sent.
    fn happen(&mut self) -> Result<(), SimulatedBoardError> {
        while !self.model.is_sending() && self.until_next_event() == 0 {
            let Some(event) = self.events.pop_front() else {
                break;
            };
            match event.kind {
                EventKind::Reset => self.obey(Command::Reset)?,
                EventKind::PowerCycle => self.obey(Command::PowerCycle)?,
                EventKind::Pull(time) => {
                    self.obey(Command::Pull)?;
                    self.plug_in_at = Some(Instant::now() + time);
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), SimulatedBoardError> {
        match command {
            Command::Reset => {
                if self.model.reset(&mut self.output)? {
                    self.settle()?;
                    self.statistics.resets += 1;
                } else {
                    self.obey(Command::PowerCycle)?;
                }
            }
            Command::PowerCycle => {
                self.seed = self.seed.wrapping_add(1);
                self.model.replace(self.compiled.start(self.seed)?)?;
                self.model.reset(&mut self.output)?;
                self.settle()?;
                self.statistics.power_cycles += 1;
            }
            Command::Pull => {
                self.plug_in_at = None;
                if self.cable.take().is_some() {
                    self.statistics.pulls += 1;
                    self.statistics.lost_in_pulls +=
                        self.model.cut() + (self.input.len() + self.output.len()) as u64;
                    self.input.clear();
                    self.output.clear();
                }
            }
            Command::PlugIn => {
                self.plug_in_at = None;
                if self.cable.is_none() {
                    self.cable = Some(Cable::plug_in(&self.path)?);
                }
            }
            Command::Stop => {}
        }
        Ok(())
    }

    fn publish(&mut self, idle: bool) {
        self.statistics.cycles = self.model.cycles();
        self.statistics.to_device = self.model.to_device();
        self.statistics.from_device = self.model.from_device();
        self.statistics.plugged_in = self.cable.is_some();
        self.statistics.idle = idle && self.input.is_empty() && self.output.is_empty();
        *locked(&self.shared) = self.statistics;
    }

    /// Waits for a byte from the host, room for one to it, or a command.
    fn wait(&self, mut woken: &UnixStream) -> Result<(), SimulatedBoardError> {
        let time = self.plug_in_at.map_or(IDLE, |at| {
            IDLE.min(at.saturating_duration_since(Instant::now()))
        });
        let time = Timespec::try_from(time).ok();
        let mut ends = vec![PollFd::new(woken, PollFlags::IN)];
        if let Some(cable) = &self.cable {
            let mut flags = PollFlags::empty();
            if self.input.is_empty() {
                flags |= PollFlags::IN;
            }
            if !self.output.is_empty() {
                flags |= PollFlags::OUT;
            }
            ends.push(PollFd::new(&cable.board, flags));
        }
        match poll(&mut ends, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("waiting for the pseudo-terminal")(error)),
        }
        // The bytes mean nothing, and an empty socket is as good.
        let _ = woken.read(&mut [0; 64]);
        Ok(())
    }
}
