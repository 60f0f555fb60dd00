//! A module's pins by name, and its clock.

use crate::design::{Direction, PortError, PortId, PortLookup};
use crate::simulator::{SimError, Simulator};

/// A simulated module with a clock and a reset.
pub(super) struct Pins<S> {
    simulator: S,
    clock: PortId,
    reset: PortId,
    cycles: u64,
}

impl<S: Simulator> Pins<S> {
    /// Resets the module; all inputs are 0.
    pub(super) fn new(simulator: S) -> Result<Self, super::EtsError> {
        let clock = simulator.ports().port("clock", Direction::Input, Some(1))?;
        let reset = simulator.ports().port("reset", Direction::Input, Some(1))?;
        let inputs: Vec<PortId> = (0..simulator.ports().len())
            .filter(|&port| simulator.ports()[port].direction == Direction::Input)
            .map(PortId)
            .collect();
        let mut pins = Self {
            simulator,
            clock,
            reset,
            cycles: 0,
        };
        for port in inputs {
            pins.set(port, 0);
        }
        pins.reset()?;
        Ok(pins)
    }

    /// Resets the module and the count of cycles.
    pub(super) fn reset(&mut self) -> Result<(), super::EtsError> {
        self.set(self.reset, 1);
        self.cycle()?;
        self.cycle()?;
        self.set(self.reset, 0);
        self.settle()?;
        self.cycles = 0;
        Ok(())
    }

    pub(super) fn input(&self, name: &str) -> Result<PortId, PortError> {
        self.simulator.ports().port(name, Direction::Input, None)
    }

    pub(super) fn output(&self, name: &str) -> Result<PortId, PortError> {
        self.simulator.ports().port(name, Direction::Output, None)
    }

    pub(super) fn set(&mut self, port: PortId, value: u64) {
        self.simulator.poke(port, &[value]);
    }

    pub(super) fn get(&self, port: PortId) -> u64 {
        let mut word = [0];
        self.simulator.peek(port, &mut word);
        word[0]
    }

    /// Lets outputs follow inputs.
    pub(super) fn settle(&mut self) -> Result<(), SimError> {
        self.set(self.clock, 0);
        self.simulator.eval()
    }

    /// One clock cycle with the inputs as they are; outputs are then those behind the edge.
    pub(super) fn cycle(&mut self) -> Result<(), SimError> {
        for level in [0, 1] {
            self.set(self.clock, level);
            self.simulator.eval()?;
        }
        self.cycles += 1;
        Ok(())
    }

    /// Cycles since the reset.
    pub(super) const fn cycles(&self) -> u64 {
        self.cycles
    }
}
