//! rust-hdl's own simulator behind the same face: slower by two orders of magnitude, there when Verilator isn't.
//!
//! Where the two disagree the Verilog is what gets built, so Verilator is right about the design.

use hdl::sim::Model;

use crate::design::{Direction, Port, PortId};
use crate::simulator::{SimError, Simulator};
use crate::stream::{RunStats, StreamJob, engine};

/// A rust-hdl module and its ports.
pub struct RustSim {
    model: Box<dyn Model>,
    ports: Vec<Port>,
}

impl RustSim {
    /// Powers the module up. `ports` are its ports in declaration order, the order of the emitted top's.
    ///
    /// # Errors
    /// [`SimError::InvalidJob`] when the module has another number of ports; [`SimError::Fatal`] when it doesn't settle.
    pub fn new(mut model: Box<dyn Model>, ports: Vec<Port>) -> Result<Self, SimError> {
        if model.port_count() != ports.len() {
            return Err(SimError::InvalidJob {
                reason: format!(
                    "the rust-hdl module has {} ports, the list {}",
                    model.port_count(),
                    ports.len()
                ),
            });
        }
        if !model.power_up() {
            return Err(unstable());
        }
        Ok(Self { model, ports })
    }

    fn fits(&self, port: PortId, words: usize) -> Option<&Port> {
        self.ports.get(port.0).filter(|port| port.words() == words)
    }
}

fn unstable() -> SimError {
    SimError::Fatal {
        message: "the rust-hdl design doesn't settle: it has a combinational loop".to_owned(),
    }
}

impl Simulator for RustSim {
    fn name(&self) -> &str {
        "rust-hdl 0.46"
    }

    fn ports(&self) -> &[Port] {
        &self.ports
    }

    fn poke(&mut self, port: PortId, words: &[u64]) {
        if self
            .fits(port, words.len())
            .is_some_and(|port| port.direction == Direction::Input)
        {
            self.model.poke(port.0, words);
        }
    }

    fn peek(&self, port: PortId, words: &mut [u64]) {
        if self.fits(port, words.len()).is_some() {
            self.model.peek(port.0, words);
        }
    }

    fn eval(&mut self) -> Result<(), SimError> {
        if self.model.settle() {
            Ok(())
        } else {
            Err(unstable())
        }
    }

    fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError> {
        engine::run(self, job)
    }
}
