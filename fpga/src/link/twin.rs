//! A board in this process.

use std::collections::VecDeque;
use std::time::Duration;

use hdl::board::{BoardConfig, BoardConfigError};
use testbench::board::DeviceTwin;

use super::transport::{Resettable, Transport, TransportError};

/// A line to a [`DeviceTwin`]: both directions run at the same rate, and no time passes.
pub struct TwinTransport {
    twin: DeviceTwin,
    rate: u32,
    /// Bytes that the board has said.
    heard: VecDeque<u8>,
}

impl TwinTransport {
    /// A line at `rate` bits a second, which only reports depend on.
    ///
    /// # Errors
    /// The configuration is out of range.
    pub fn new(config: BoardConfig, rate: u32) -> Result<Self, BoardConfigError> {
        Ok(Self {
            twin: DeviceTwin::new(config)?,
            rate,
            heard: VecDeque::new(),
        })
    }

    /// The board.
    #[must_use]
    pub const fn twin(&self) -> &DeviceTwin {
        &self.twin
    }
}

impl Transport for TwinTransport {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        for &byte in bytes {
            self.twin.receive(byte);
            self.heard.extend(self.twin.transmit());
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], _patience: Duration) -> Result<usize, TransportError> {
        self.heard
            .extend(std::iter::from_fn(|| self.twin.transmit()));
        let count = buffer.len().min(self.heard.len());
        for (place, byte) in buffer.iter_mut().zip(self.heard.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        while self.twin.transmit().is_some() {}
        self.heard.clear();
        Ok(())
    }

    fn rate(&self) -> u32 {
        self.rate
    }

    fn name(&self) -> String {
        "twin".into()
    }
}

impl Resettable for TwinTransport {
    fn reset_board(&mut self) {
        self.twin.reset();
        self.heard.clear();
    }
}
