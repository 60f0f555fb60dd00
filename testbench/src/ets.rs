//! The hardware for efficient tree search on the simulator, against `golden::ets` bit for bit. Twin of `hdl::ets`.

mod allocate;
mod pages;
mod pins;
mod prune;
mod select;

pub use allocate::{AllocatorBench, AllocatorRun};
pub use pages::{PageAnswer, PageBench, PageCommand, twin_answer};
pub use prune::{EngineRun, PruneBench};
pub use select::{SelectionReport, SelectorBench, SelectorRun, cosim};

use golden::ets::ProgrammeError;
use hdl::emit::EmitError;

use crate::design::PortError;
use crate::simulator::SimError;

/// Why hardware can't take something, or a run failed.
#[derive(Debug, thiserror::Error)]
pub enum EtsError {
    /// The simulator's.
    #[error(transparent)]
    Simulator(#[from] SimError),
    /// The design isn't the one that the bench drives.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The hardware can't be written down.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// A selection that isn't one.
    #[error(transparent)]
    Programme(#[from] ProgrammeError),
    /// Something is too large for the hardware's words or memories.
    #[error("{what}: {found}, the hardware takes at most {most}")]
    Capacity {
        /// What it is.
        what: &'static str,
        /// What was asked for.
        found: u64,
        /// Most.
        most: u64,
    },
    /// The hardware doesn't end.
    #[error("the hardware has not ended after {0} cycles")]
    Endless(u64),
}

/// That a number is within what the hardware takes.
fn within(what: &'static str, found: u64, most: u64) -> Result<(), EtsError> {
    if found > most {
        return Err(EtsError::Capacity { what, found, most });
    }
    Ok(())
}
