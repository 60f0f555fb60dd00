//! The one place that crosses into compiled models: loads a shared object made by [`crate::verilator`] and calls it.
//!
//! Everything unsafe of the crate stands here. The C side is `verilator/engine.inc`; its structures are declared a second
//! time below and must be changed together with these. The cache key of a model contains that file's text, so a stale
//! shared object is never loaded.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr::NonNull;

use libloading::{Library, Symbol};

use crate::design::{Direction, Port, PortId};
use crate::simulator::SimError;
use crate::stream::{Outcome, RunStats, StreamJob, StreamPorts, StreamRule, StreamStats};

/// A port number that stands for none.
const NO_PORT: u32 = u32::MAX;

/// The C++ model; only pointers to it exist here.
#[repr(C)]
struct RawModel {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawStream {
    valid: u32,
    ready: u32,
    data: *const u32,
    data_ports: u64,
    beats: *mut u64,
    beat_count: u64,
    beat_words: u64,
    stall_seed: u64,
    stall_chance: u32,
    reserved: u32,
    transfers: u64,
    stalled: u64,
    idle: u64,
}

#[repr(C)]
struct RawJob {
    clock: u32,
    reset: u32,
    inputs: *mut RawStream,
    input_count: u64,
    outputs: *mut RawStream,
    output_count: u64,
    max_cycles: u64,
    quiet_cycles: u64,
    reset_cycles: u64,
    drain_cycles: u64,
    check_combinational: u32,
    fault_stream: u32,
    cycles: u64,
    fault_cycle: u64,
}

/// Ten levels of a device's output as the line's receiver sampled them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The cycle in which the start bit was first seen.
    pub(crate) start: u64,
    /// Start bit in bit 0, data in bits 1 to 8, stop bit in bit 9.
    pub(crate) levels: u32,
    reserved: u32,
}

/// What a serial line remembers between calls. It holds no pointers; its fields are
/// written by the C side and by [`SerialLine::cut`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SerialLine {
    cycle: u64,
    last_active: u64,
    send_at: u64,
    send_unit: u64,
    take_at: u64,
    take_start: u64,
    false_starts: u64,
    send_fraction: u32,
    sending: u32,
    send_levels: u32,
    send_left: u32,
    take_fraction: u32,
    taking: u32,
    take_levels: u32,
    take_count: u32,
}

impl SerialLine {
    /// Clock cycles since the line was made.
    pub(crate) fn cycle(&self) -> u64 {
        self.cycle
    }

    /// Low levels of the device's output that were over before the middle of a start bit.
    pub(crate) fn false_starts(&self) -> u64 {
        self.false_starts
    }

    /// Whether a symbol is on its way to the device.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending != 0
    }

    /// The cycle until which all that the device sent has become frames.
    pub(crate) fn known_until(&self) -> u64 {
        if self.taking == 0 {
            self.cycle
        } else {
            self.take_start
        }
    }

    /// Forgets what is on its way to the device; the line is idle from the next cycle on.
    pub(crate) fn cut(&mut self) {
        self.send_left = 0;
        self.send_at = self.cycle;
    }
}

/// One call of [`Model::serial_run`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SerialCall<'a> {
    pub(crate) clock: PortId,
    pub(crate) rx: PortId,
    pub(crate) tx: PortId,
    pub(crate) busy: Option<PortId>,
    /// Evaluates the falling edge, too, where it could be left out.
    pub(crate) both_edges: bool,
    /// Returns when the last symbol has been sent.
    pub(crate) stop_when_sent: bool,
    /// Cycles a bit in units of 2⁻³², at least 4 cycles.
    pub(crate) bit: u64,
    /// What to send: levels, first in bit 0 (bits 0 to 31), their number (32 to 39), the cycles that each lasts (40 to 63;
    /// 0 for the length of a bit).
    pub(crate) symbols: &'a [u64],
    /// The most frames to receive, at least 1.
    pub(crate) frames: usize,
    pub(crate) max_cycles: u64,
    /// Returns when nothing has moved for so many cycles; 0 for never.
    pub(crate) quiet_cycles: u64,
}

/// Why [`Model::serial_run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SerialStop {
    Cycles,
    Frames,
    Quiet,
    Sent,
}

#[repr(C)]
struct RawSerial {
    clock: u32,
    rx: u32,
    tx: u32,
    busy: u32,
    both_edges: u32,
    stop_when_sent: u32,
    bit: u64,
    symbols: *const u64,
    symbol_count: u64,
    frames: *mut Frame,
    frame_capacity: u64,
    max_cycles: u64,
    quiet_cycles: u64,
    symbols_used: u64,
    frame_count: u64,
    line: SerialLine,
}

type NewFn = unsafe extern "C" fn(u32) -> *mut RawModel;
type DeleteFn = unsafe extern "C" fn(*mut RawModel);
type MessageFn = unsafe extern "C" fn(*mut RawModel) -> *const c_char;
type PokeFn = unsafe extern "C" fn(*mut RawModel, u32, *const u64);
type PeekFn = unsafe extern "C" fn(*mut RawModel, u32, *mut u64);
type EvalFn = unsafe extern "C" fn(*mut RawModel) -> c_int;
type RunFn = unsafe extern "C" fn(*mut RawModel, *mut RawJob) -> c_int;
type SerialFn = unsafe extern "C" fn(*mut RawModel, *mut RawSerial) -> c_int;
type TraceOpenFn = unsafe extern "C" fn(*mut RawModel, *const c_char) -> c_int;
type TraceCloseFn = unsafe extern "C" fn(*mut RawModel);
type PortCountFn = unsafe extern "C" fn() -> u32;

/// One instance of a compiled model.
///
/// Invariants: `raw` came from this library's `fgmp_new` and is freed once, in `drop`; the functions are those of
/// `library`, which outlives them; `ports` are the ones that the model was generated for. The raw pointer makes the type
/// neither `Send` nor `Sync`.
pub(crate) struct Model {
    raw: NonNull<RawModel>,
    delete: DeleteFn,
    message: MessageFn,
    poke: PokeFn,
    peek: PeekFn,
    eval: EvalFn,
    run: RunFn,
    serial: SerialFn,
    trace_open: TraceOpenFn,
    trace_close: TraceCloseFn,
    ports: Vec<Port>,
    _library: Library,
}

impl Model {
    /// Loads the shared object and makes one instance, its registers without an initial value drawn from `seed`.
    ///
    /// `ports` must be the ports that the object was generated for (their number is checked; names and widths are part of
    /// the object's cache key).
    pub(crate) fn load(object: &Path, ports: Vec<Port>, seed: u32) -> Result<Self, SimError> {
        let failed = |reason: String| SimError::Load {
            path: object.to_owned(),
            reason,
        };
        // SAFETY: the object was built by this crate's Verilator driver from its own shim, whose only initialisers are
        // those of Verilator's run time; it is taken from the user's own cache folder.
        let library = unsafe { Library::new(object) }.map_err(|error| failed(error.to_string()))?;
        macro_rules! function {
            ($name:literal as $kind:ty) => {{
                // SAFETY: `engine.inc` exports this name with the C signature that `$kind` spells.
                let symbol: Symbol<'_, $kind> =
                    unsafe { library.get($name) }.map_err(|error| failed(error.to_string()))?;
                *symbol
            }};
        }
        let port_count = function!(b"fgmp_port_count\0" as PortCountFn);
        let new = function!(b"fgmp_new\0" as NewFn);
        let delete = function!(b"fgmp_delete\0" as DeleteFn);
        let message = function!(b"fgmp_message\0" as MessageFn);
        let poke = function!(b"fgmp_poke\0" as PokeFn);
        let peek = function!(b"fgmp_peek\0" as PeekFn);
        let eval = function!(b"fgmp_eval\0" as EvalFn);
        let run = function!(b"fgmp_run\0" as RunFn);
        let serial = function!(b"fgmp_serial_run\0" as SerialFn);
        let trace_open = function!(b"fgmp_trace_open\0" as TraceOpenFn);
        let trace_close = function!(b"fgmp_trace_close\0" as TraceCloseFn);
        // SAFETY: takes nothing and returns a constant.
        let found = unsafe { port_count() };
        if found as usize != ports.len() {
            return Err(failed(format!(
                "it has {found} ports, the design has {}",
                ports.len()
            )));
        }
        // SAFETY: takes a number; returns a fresh model, or null when it could not be made.
        let raw = NonNull::new(unsafe { new(seed) })
            .ok_or_else(|| failed("the model could not be constructed".to_owned()))?;
        let mut model = Self {
            raw,
            delete,
            message,
            poke,
            peek,
            eval,
            run,
            serial,
            trace_open,
            trace_close,
            ports,
            _library: library,
        };
        // Inputs would start with random bits too; one that a job doesn't drive, as another unit's valid, must be low.
        for index in 0..model.ports.len() {
            let zeros = vec![0; model.ports[index].words()];
            if model.ports[index].direction == Direction::Input {
                model.poke(PortId(index), &zeros);
            }
        }
        Ok(model)
    }

    /// The ports that the model was generated for.
    pub(crate) fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// See [`crate::simulator::Simulator::poke`].
    pub(crate) fn poke(&mut self, port: PortId, words: &[u64]) {
        if self.fits(port, words.len()) {
            // SAFETY: the port exists and `words` has all its words (checked in the line above); the model is alive.
            unsafe { (self.poke)(self.raw.as_ptr(), port.0 as u32, words.as_ptr()) }
        }
    }

    /// See [`crate::simulator::Simulator::peek`].
    pub(crate) fn peek(&self, port: PortId, words: &mut [u64]) {
        if self.fits(port, words.len()) {
            // SAFETY: as in `poke`; the C side writes exactly the port's words.
            unsafe { (self.peek)(self.raw.as_ptr(), port.0 as u32, words.as_mut_ptr()) }
        }
    }

    fn fits(&self, port: PortId, words: usize) -> bool {
        self.ports
            .get(port.0)
            .is_some_and(|port| port.words() == words)
    }

    /// See [`crate::simulator::Simulator::eval`].
    pub(crate) fn eval(&mut self) -> Result<(), SimError> {
        // SAFETY: the model is alive and nothing else uses it (`&mut self`).
        let status = unsafe { (self.eval)(self.raw.as_ptr()) };
        self.check(status)
    }

    /// Records every evaluation from now on into `file`.
    pub(crate) fn trace_open(&mut self, file: &Path) -> Result<(), SimError> {
        let path = file
            .to_str()
            .and_then(|text| CString::new(text).ok())
            .ok_or_else(|| SimError::Fatal {
                message: format!("the waveform's name {} isn't plain text", file.display()),
            })?;
        // SAFETY: the model is alive; `path` is a terminated string that outlives the call, which copies it.
        let status = unsafe { (self.trace_open)(self.raw.as_ptr(), path.as_ptr()) };
        self.check(status)
    }

    /// Ends the recording and completes the file.
    pub(crate) fn trace_close(&mut self) {
        // SAFETY: the model is alive; without an open recording this does nothing.
        unsafe { (self.trace_close)(self.raw.as_ptr()) }
    }

    /// See [`crate::simulator::Simulator::run`].
    pub(crate) fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError> {
        // Establishes what the C side relies on: port numbers, directions, word counts, whole beats.
        job.validate(&self.ports)?;
        for (port, value) in &job.constants {
            self.poke(*port, value);
        }
        let input_data: Vec<Vec<u32>> = job.inputs.iter().map(|s| numbers(&s.ports)).collect();
        let output_data: Vec<Vec<u32>> = job.outputs.iter().map(|s| numbers(&s.ports)).collect();
        let mut inputs: Vec<RawStream> = job
            .inputs
            .iter()
            .zip(&input_data)
            .map(|(stream, data)| {
                let words = stream.ports.beat_words();
                RawStream {
                    // The C side never writes through the `beats` of an input.
                    beats: stream.beats.as_ptr().cast_mut(),
                    beat_count: (stream.beats.len() / words.max(1)) as u64,
                    ..raw_stream(&stream.ports, data, stream.stall)
                }
            })
            .collect();
        let mut outputs: Vec<RawStream> = job
            .outputs
            .iter_mut()
            .zip(&output_data)
            .map(|(stream, data)| {
                stream.collected.clear();
                stream
                    .collected
                    .resize(stream.expected * stream.ports.beat_words(), 0);
                RawStream {
                    beats: stream.collected.as_mut_ptr(),
                    beat_count: stream.expected as u64,
                    ..raw_stream(&stream.ports, data, stream.stall)
                }
            })
            .collect();
        let mut raw = RawJob {
            clock: job.clock.0 as u32,
            reset: number(job.reset),
            inputs: inputs.as_mut_ptr(),
            input_count: inputs.len() as u64,
            outputs: outputs.as_mut_ptr(),
            output_count: outputs.len() as u64,
            max_cycles: job.limits.max_cycles,
            quiet_cycles: job.limits.quiet_cycles,
            reset_cycles: job.limits.reset_cycles,
            drain_cycles: job.limits.drain_cycles,
            check_combinational: u32::from(job.check_combinational),
            fault_stream: 0,
            cycles: 0,
            fault_cycle: 0,
        };
        // SAFETY: the model is alive and used by nobody else. Every pointer in `raw` points into a vector of this function
        // or of `job` that isn't moved or touched before the call returns, and nothing is kept by the C side afterwards.
        // Output beats are written only below `beat_count * beat_words`, the length that they were resized to; inputs are
        // only read within theirs. Port numbers and word counts were validated against the ports the model was generated for.
        let status = unsafe { (self.run)(self.raw.as_ptr(), &raw mut raw) };
        let (cycle, stream) = (raw.fault_cycle, raw.fault_stream as usize);
        let stats = RunStats {
            cycles: raw.cycles,
            inputs: inputs.iter().map(counters).collect(),
            outputs: outputs.iter().map(counters).collect(),
        };
        for (stream, did) in job.outputs.iter_mut().zip(&stats.outputs) {
            let words = stream.ports.beat_words();
            stream.collected.truncate(did.transfers as usize * words);
        }
        let broken = |rule| Outcome::Broken {
            rule,
            cycle,
            stream,
        };
        let outcome = match status {
            0 => Outcome::Done,
            1 => Outcome::OutOfCycles { cycle },
            2 => Outcome::Deadlock { cycle },
            3 => broken(StreamRule::ValidDropped),
            4 => broken(StreamRule::DataChanged),
            5 => broken(StreamRule::ValidWaitsForReady),
            6 => broken(StreamRule::ValidInReset),
            7 => broken(StreamRule::Surplus),
            _ => return Err(self.fatal()),
        };
        job.conclude(outcome, stats)
    }

    /// Runs clock cycles with a serial line at the model's pins, `line` going on from where it was. What the device sent is
    /// appended to `frames`. Returns why it stopped and how many symbols were taken.
    ///
    /// # Errors
    /// [`SimError::InvalidJob`] when a port isn't there, has another direction or isn't one bit wide, or a bit is shorter
    /// than 4 cycles; [`SimError::Fatal`].
    pub(crate) fn serial_run(
        &mut self,
        line: &mut SerialLine,
        call: &SerialCall<'_>,
        frames: &mut Vec<Frame>,
    ) -> Result<(SerialStop, usize), SimError> {
        let invalid = |reason: String| Err(SimError::InvalidJob { reason });
        for (name, port, direction) in [
            ("clock", Some(call.clock), Direction::Input),
            ("rx", Some(call.rx), Direction::Input),
            ("tx", Some(call.tx), Direction::Output),
            ("busy", call.busy, Direction::Output),
        ] {
            let Some(port) = port else { continue };
            let fits = self
                .ports
                .get(port.0)
                .is_some_and(|port| port.width == 1 && port.direction == direction);
            if !fits {
                return invalid(format!(
                    "the serial line's `{name}` must be an {direction} of one bit"
                ));
            }
        }
        if call.bit < 4 << 32 {
            return invalid("a bit of a serial line lasts 4 cycles or more".to_owned());
        }
        let before = frames.len();
        let capacity = call.frames.max(1);
        frames.resize(before + capacity, Frame::default());
        let mut raw = RawSerial {
            clock: call.clock.0 as u32,
            rx: call.rx.0 as u32,
            tx: call.tx.0 as u32,
            busy: number(call.busy),
            both_edges: u32::from(call.both_edges),
            stop_when_sent: u32::from(call.stop_when_sent),
            bit: call.bit,
            symbols: call.symbols.as_ptr(),
            symbol_count: call.symbols.len() as u64,
            frames: frames[before..].as_mut_ptr(),
            frame_capacity: capacity as u64,
            max_cycles: call.max_cycles,
            quiet_cycles: call.quiet_cycles,
            symbols_used: 0,
            frame_count: 0,
            line: *line,
        };
        // SAFETY: the model is alive and used by nobody else. The ports exist and are one bit wide (checked above), so the C
        // side may access each of them as a byte. It reads `symbol_count` symbols, the length of the borrowed slice, and
        // writes at most `frame_capacity` frames, which `frames` was extended by; neither moves before the call returns, and
        // nothing is kept afterwards. The line is one that an earlier call left, or the default, which is an idle line.
        let status = unsafe { (self.serial)(self.raw.as_ptr(), &raw mut raw) };
        *line = raw.line;
        frames.truncate(before + raw.frame_count as usize);
        let stop = match status {
            0 => SerialStop::Cycles,
            1 => SerialStop::Frames,
            2 => SerialStop::Quiet,
            3 => SerialStop::Sent,
            _ => return Err(self.fatal()),
        };
        Ok((stop, raw.symbols_used as usize))
    }

    fn check(&self, status: c_int) -> Result<(), SimError> {
        if status == 0 {
            Ok(())
        } else {
            Err(self.fatal())
        }
    }

    fn fatal(&self) -> SimError {
        // SAFETY: the model is alive; it returns a terminated string of its own that stays until the next failing call.
        let message = unsafe { CStr::from_ptr((self.message)(self.raw.as_ptr())) };
        SimError::Fatal {
            message: message.to_string_lossy().into_owned(),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the model is alive until here and freed only here; the library is dropped after this body.
        unsafe { (self.delete)(self.raw.as_ptr()) }
    }
}

fn number(port: Option<PortId>) -> u32 {
    port.map_or(NO_PORT, |port| port.0 as u32)
}

fn numbers(ports: &StreamPorts) -> Vec<u32> {
    ports.data.iter().map(|port| port.0 as u32).collect()
}

/// A stream without its beats; `data` must outlive the call that uses it.
fn raw_stream(ports: &StreamPorts, data: &[u32], stall: crate::stream::Stall) -> RawStream {
    RawStream {
        valid: ports.valid.0 as u32,
        ready: number(ports.ready),
        data: data.as_ptr(),
        data_ports: data.len() as u64,
        beats: std::ptr::null_mut(),
        beat_count: 0,
        beat_words: ports.beat_words() as u64,
        stall_seed: stall.seed,
        stall_chance: u32::from(stall.chance),
        reserved: 0,
        transfers: 0,
        stalled: 0,
        idle: 0,
    }
}

fn counters(stream: &RawStream) -> StreamStats {
    StreamStats {
        transfers: stream.transfers,
        stalled: stream.stalled,
        idle: stream.idle,
    }
}
