//! What moves bytes.

use std::time::Duration;

/// Why no byte moves.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The port can't be opened.
    #[error("{port} can't be opened: {reason}")]
    Open {
        /// Its path.
        port: String,
        /// The system's reason, and what to do about it.
        reason: String,
    },
    /// The port was open, and is gone: the cable was pulled, or the device behind it was reset.
    #[error("{port} is gone: {reason}")]
    Gone {
        /// Its path.
        port: String,
        /// The system's reason.
        reason: String,
    },
}

/// A line to a board, bytes in order in both directions. Nothing else is promised: bytes may be lost, changed, repeated or invented.
pub trait Transport {
    /// Gives all bytes to the line, or to buffers in front of it.
    ///
    /// # Errors
    /// The line is gone until [`Transport::reopen`].
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError>;

    /// Takes what has come, after waiting for it as long as `patience`; 0 if nothing came.
    ///
    /// # Errors
    /// The line is gone until [`Transport::reopen`].
    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError>;

    /// Closes the line and opens it again, and forgets what was under way.
    ///
    /// # Errors
    /// It can't be opened (yet).
    fn reopen(&mut self) -> Result<(), TransportError>;

    /// Bits a second on the line.
    fn rate(&self) -> u32;

    /// What messages call it.
    fn name(&self) -> String;
}

/// A line whose far end can be reset by the host: simulated boards, for trying out what a button does.
pub trait Resettable: Transport {
    /// Presses the board's reset button.
    fn reset_board(&mut self);
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        (**self).write_all(bytes)
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError> {
        (**self).read(buffer, patience)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        (**self).reopen()
    }

    fn rate(&self) -> u32 {
        (**self).rate()
    }

    fn name(&self) -> String {
        (**self).name()
    }
}

/// Time that bytes take on a line: ten bits each.
pub(super) fn line_time(bytes: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 10.0 / f64::from(rate.max(1)))
}
