//! What every simulator of a design can do.

use std::path::{Path, PathBuf};

use crate::design::{Port, PortId};
use crate::stream::{RunStats, StreamJob, StreamRule};
use crate::tool::ToolMissing;

/// A simulated design: its ports, one evaluation at a time or a whole [`StreamJob`].
pub trait Simulator {
    /// Name and version for reports, for example `Verilator 5.006`.
    fn name(&self) -> &str;

    /// The top module's ports in [`PortId`] order.
    fn ports(&self) -> &[Port];

    /// Gives an input port a value: [`Port::words`] words, least significant first; bits beyond the width are ignored. It
    /// takes effect with the next [`Simulator::eval`]. A port or length that doesn't fit is ignored.
    fn poke(&mut self, port: PortId, words: &[u64]);

    /// Reads a port as the last [`Simulator::eval`] left it, into [`Port::words`] words. A port or length that doesn't fit
    /// leaves `words` as they are.
    fn peek(&self, port: PortId, words: &mut [u64]);

    /// Lets the design settle; a rising edge of a clock is a clock port at 0 in one call and at 1 in the next.
    ///
    /// # Errors
    /// [`SimError::Fatal`] when the design doesn't settle or stops itself.
    fn eval(&mut self) -> Result<(), SimError>;

    /// Runs a job to its end and fills in what the outputs gave (also when it fails).
    ///
    /// # Errors
    /// [`SimError`]: the job doesn't fit the design, a stream rule is broken, nothing moves, or the design stops itself.
    fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError>;
}

impl<S: Simulator + ?Sized> Simulator for Box<S> {
    fn name(&self) -> &str {
        self.as_ref().name()
    }

    fn ports(&self) -> &[Port] {
        self.as_ref().ports()
    }

    fn poke(&mut self, port: PortId, words: &[u64]) {
        self.as_mut().poke(port, words);
    }

    fn peek(&self, port: PortId, words: &mut [u64]) {
        self.as_ref().peek(port, words);
    }

    fn eval(&mut self) -> Result<(), SimError> {
        self.as_mut().eval()
    }

    fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError> {
        self.as_mut().run(job)
    }
}

/// Why a simulation could not be made or did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A program is missing.
    #[error(transparent)]
    ToolMissing(#[from] ToolMissing),
    /// The simulator's compiler refused the design.
    #[error("{tool} could not build `{top}`:\n{diagnostic}")]
    Build {
        /// The simulator.
        tool: String,
        /// The top module.
        top: String,
        /// What the tool said, without its progress lines.
        diagnostic: String,
    },
    /// A port's name can't be used from C++ as it stands.
    #[error("`{name}` of `{top}` is a name that the Verilator driver can't bind; {reason}")]
    PortName {
        /// The top module.
        top: String,
        /// The port (or the top itself).
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A compiled model can't be loaded.
    #[error("the compiled model {} could not be loaded: {reason}", path.display())]
    Load {
        /// The shared object.
        path: PathBuf,
        /// The loader's message.
        reason: String,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// The job doesn't fit the design.
    #[error("the job doesn't fit the design: {reason}")]
    InvalidJob {
        /// What doesn't fit.
        reason: String,
    },
    /// The design broke a rule of the streams.
    #[error("stream `{stream}`, cycle {cycle}: {rule}")]
    Rule {
        /// The output stream.
        stream: String,
        /// Clock cycle, counted from the end of the reset (within the reset for [`StreamRule::ValidInReset`]).
        cycle: u64,
        /// The rule.
        rule: StreamRule,
    },
    /// No stream moved for too long.
    #[error("deadlock in cycle {cycle}: no transfer for {quiet} cycles ({progress})")]
    Deadlock {
        /// Clock cycle at which the run gave up.
        cycle: u64,
        /// The limit, in cycles.
        quiet: u64,
        /// How far each stream came.
        progress: String,
    },
    /// The run took more cycles than it may.
    #[error("not finished after {cycle} cycles ({progress})")]
    OutOfCycles {
        /// The limit, in cycles.
        cycle: u64,
        /// How far each stream came.
        progress: String,
    },
    /// The simulated design stopped itself, or doesn't settle.
    #[error("the simulated design stopped: {message}")]
    Fatal {
        /// The simulator's message.
        message: String,
    },
}

impl SimError {
    /// An [`std::io::Error`] with the file that it is about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}
