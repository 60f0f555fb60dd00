//! Serial ports of the system.

use std::io::{self, Read, Write};
use std::time::Duration;

use serialport::{ClearBuffer, ErrorKind, SerialPort};

use super::transport::{Transport, TransportError};

/// How long a full buffer in front of the line may stand still.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A serial port, opened for this program alone: 8 data bits, no parity, one stop bit, no flow control.
pub struct SerialTransport {
    path: String,
    rate: u32,
    port: Option<Box<dyn SerialPort>>,
}

impl SerialTransport {
    /// Opens a port at any rate that its driver takes.
    ///
    /// # Errors
    /// [`TransportError::Open`], with what to do about it.
    pub fn open(path: &str, rate: u32) -> Result<Self, TransportError> {
        let mut transport = Self {
            path: path.to_owned(),
            rate,
            port: None,
        };
        transport.reopen()?;
        Ok(transport)
    }

    fn port(&mut self) -> Result<&mut Box<dyn SerialPort>, TransportError> {
        self.port.as_mut().ok_or_else(|| TransportError::Gone {
            port: self.path.clone(),
            reason: "it was not opened again".into(),
        })
    }

    fn gone(&mut self, reason: &dyn std::fmt::Display) -> TransportError {
        self.port = None;
        TransportError::Gone {
            port: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}

/// What the system says, and what to do about it.
fn advice(error: &serialport::Error) -> String {
    let text = error.to_string();
    let lower = text.to_lowercase();
    if matches!(error.kind(), ErrorKind::Io(io::ErrorKind::PermissionDenied)) {
        format!(
            "{text}. Ports belong to a group, `dialout` or `uucp`: add yourself to it (sudo usermod -a -G dialout $USER) and log in again"
        )
    } else if lower.contains("busy") || lower.contains("lock") {
        format!("{text}. Another program has it open, a terminal perhaps")
    } else if matches!(
        error.kind(),
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::NotFound)
    ) {
        format!(
            "{text}. Is the board connected? Ports of USB bridges are called /dev/ttyUSB0 or /dev/ttyACM0, and boards with two have the UART on the second"
        )
    } else {
        text
    }
}

impl Transport for SerialTransport {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let port = self.port()?;
        let result = port
            .set_timeout(WRITE_PATIENCE)
            .map_err(io::Error::from)
            .and_then(|()| port.write_all(bytes));
        result.map_err(|error| self.gone(&error))
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError> {
        let port = self.port()?;
        let result = port
            .set_timeout(patience)
            .map_err(io::Error::from)
            .and_then(|()| port.read(buffer));
        match result {
            Ok(0) => Err(self.gone(&"end of file")),
            Ok(count) => Ok(count),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut
                        | io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            Err(error) => Err(self.gone(&error)),
        }
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        self.port = None;
        let fault = |error: serialport::Error| TransportError::Open {
            port: self.path.clone(),
            reason: advice(&error),
        };
        let port = serialport::new(&self.path, self.rate)
            .exclusive(true)
            .open()
            .map_err(fault)?;
        port.clear(ClearBuffer::All).map_err(fault)?;
        self.port = Some(port);
        Ok(())
    }

    fn rate(&self) -> u32 {
        self.rate
    }

    fn name(&self) -> String {
        self.path.clone()
    }
}
