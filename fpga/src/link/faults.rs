//! A line on which everything goes wrong that can.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::transport::{Resettable, Transport, TransportError};

/// How often what happens, in both directions alike. All are chances: of a byte, unless something else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// A bit of it flips.
    pub flip: f64,
    /// It is lost.
    pub lose: f64,
    /// It comes twice.
    pub repeat: f64,
    /// Up to twenty invented bytes come before it.
    pub burst: f64,
    /// Of a reading: nothing comes, what is under way comes later. Of a writing: it leaves with the next one.
    pub stall: f64,
    /// Of a writing: in the middle of it the board is reset.
    pub reset: f64,
    /// Of a writing: in the middle of it the cable is pulled, and nothing goes before the line is opened again.
    pub pull: f64,
}

impl FaultRates {
    /// Noise: one byte in `bytes` is hurt in some way; resets and pulled cables are left out.
    #[must_use]
    pub fn noise(bytes: f64) -> Self {
        let each = 0.25 / bytes;
        Self {
            flip: each,
            lose: each,
            repeat: each,
            burst: each,
            stall: 0.01,
            ..Self::default()
        }
    }
}

/// What was done to the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultsDone {
    /// Bits flipped.
    pub flips: u64,
    /// Bytes lost.
    pub losses: u64,
    /// Bytes repeated.
    pub repeats: u64,
    /// Bursts of invented bytes.
    pub bursts: u64,
    /// Readings and writings held back.
    pub stalls: u64,
    /// Resets of the board.
    pub resets: u64,
    /// Cables pulled.
    pub pulls: u64,
}

/// A line that does to bytes what [`FaultRates`] say; the same seed does the same to the same bytes.
pub struct Faulty<T> {
    inner: T,
    rates: FaultRates,
    random: ChaCha8Rng,
    done: FaultsDone,
    pulled: bool,
    /// Written, not yet given to the line.
    held: Vec<u8>,
    /// Read from the line, not yet given to the reader.
    heard: VecDeque<u8>,
}

impl<T: Resettable> Faulty<T> {
    /// Wraps a line.
    pub fn new(inner: T, rates: FaultRates, seed: u64) -> Self {
        Self {
            inner,
            rates,
            random: ChaCha8Rng::seed_from_u64(seed),
            done: FaultsDone::default(),
            pulled: false,
            held: Vec::new(),
            heard: VecDeque::new(),
        }
    }

    /// What was done so far.
    pub const fn done(&self) -> FaultsDone {
        self.done
    }

    /// The line itself.
    pub const fn inner(&self) -> &T {
        &self.inner
    }

    /// Other chances from now on.
    pub fn set_rates(&mut self, rates: FaultRates) {
        self.rates = rates;
    }

    /// Presses the board's reset button now.
    pub fn reset_board(&mut self) {
        self.done.resets += 1;
        self.inner.reset_board();
    }

    /// Pulls the cable now.
    pub fn pull_cable(&mut self) {
        self.done.pulls += 1;
        self.pulled = true;
        self.held.clear();
        self.heard.clear();
    }

    fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.random.random_bool(chance.min(1.0))
    }

    /// Whether any byte may be hurt; a clean line is not slowed down.
    fn hurts(&self) -> bool {
        let it = &self.rates;
        [it.flip, it.lose, it.repeat, it.burst]
            .iter()
            .any(|&chance| chance > 0.0)
    }

    fn hurt(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        if !self.hurts() {
            to.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            if self.happens(self.rates.burst) {
                self.done.bursts += 1;
                for _ in 0..self.random.random_range(1..=20) {
                    to.push(self.random.random());
                }
            }
            if self.happens(self.rates.lose) {
                self.done.losses += 1;
                continue;
            }
            let mut byte = byte;
            if self.happens(self.rates.flip) {
                self.done.flips += 1;
                byte ^= 1 << self.random.random_range(0..8);
            }
            to.push(byte);
            if self.happens(self.rates.repeat) {
                self.done.repeats += 1;
                to.push(byte);
            }
        }
    }

    fn gone(&self) -> TransportError {
        TransportError::Gone {
            port: self.name(),
            reason: "the cable was pulled".into(),
        }
    }
}

impl<T: Resettable> Transport for Faulty<T> {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        if self.pulled {
            return Err(self.gone());
        }
        let mut line = std::mem::take(&mut self.held);
        self.hurt(bytes, &mut line);
        if self.happens(self.rates.stall) {
            self.done.stalls += 1;
            self.held = line;
            return Ok(());
        }
        let cut = self.random.random_range(0..=line.len());
        if self.happens(self.rates.reset) {
            self.inner.write_all(&line[..cut])?;
            self.reset_board();
            return self.inner.write_all(&line[cut..]);
        }
        if self.happens(self.rates.pull) {
            self.inner.write_all(&line[..cut])?;
            self.pull_cable();
            return Err(self.gone());
        }
        self.inner.write_all(&line)
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError> {
        if self.pulled {
            return Err(self.gone());
        }
        if self.happens(self.rates.stall) {
            self.done.stalls += 1;
            return Ok(0);
        }
        if self.heard.is_empty() {
            let mut fresh = vec![0; buffer.len()];
            let count = self.inner.read(&mut fresh, patience)?;
            let mut hurt = Vec::with_capacity(count);
            self.hurt(&fresh[..count], &mut hurt);
            self.heard.extend(hurt);
        }
        let count = buffer.len().min(self.heard.len());
        for (place, byte) in buffer.iter_mut().zip(self.heard.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        self.inner.reopen()?;
        self.pulled = false;
        self.held.clear();
        self.heard.clear();
        Ok(())
    }

    fn rate(&self) -> u32 {
        self.inner.rate()
    }

    fn name(&self) -> String {
        format!("{} with faults", self.inner.name())
    }
}
