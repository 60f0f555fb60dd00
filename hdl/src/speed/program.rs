//! The program of a pass: what the player writes to the accelerator's registers, in plain Rust.
//!
//! A program is words of 32 bits. A header says what to do, and words of data may follow it:
//!
//! | bits | of a header |
//! |---|---|
//! | 31:28 | 0 end, 1 write, 2 start |
//! | 22 | write: every further word goes to the register behind; else all go to the same |
//! | 21:16 | write: place of the first register (address / 4) |
//! | 15:0 | write: words of data that follow, at least 1 |

use crate::accelerator::registers::place;

/// The pass ends when all jobs are done.
pub const END: u32 = 0;
/// Words follow that are written to registers.
pub const WRITE: u32 = 1;
/// A job is started, and the player waits until another can be queued.
pub const START: u32 = 2;
/// Lowest bit of the operation.
pub const OPERATION: usize = 28;
/// The bit that makes places count up.
pub const STEP: usize = 22;
/// Lowest bit of a write's place.
pub const PLACE: usize = 16;
/// Most words of one write.
pub const MOST_WORDS: usize = 0xFFFF;

/// Where a job's activations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations<'a> {
    /// BF16 elements, through the quantizer.
    Elements {
        /// FP32 bits of M of numerics §3.
        input_scale: u32,
        /// Threshold T.
        threshold: u64,
        /// UE4M3 code of each channel.
        sensitivities: &'a [u8],
    },
    /// Those of the job before.
    Reuse,
}

/// Builds the program of a pass, job by job, in the order of execution.
///
/// The player itself writes `TOKENS`. Results go to the stream as BF16.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    words: Vec<u32>,
    bank: bool,
    jobs: usize,
}

impl Program {
    /// No jobs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs so far.
    #[must_use]
    pub const fn jobs(&self) -> usize {
        self.jobs
    }

    /// The words, the end included.
    #[must_use]
    pub fn words(&self) -> Vec<u32> {
        let mut words = self.words.clone();
        words.push(END << OPERATION);
        words
    }

    fn write(&mut self, place: usize, step: bool, values: &[u32]) {
        for values in values.chunks(MOST_WORDS) {
            let header = WRITE << OPERATION
                | u32::from(step) << STEP
                | (place as u32) << PLACE
                | values.len() as u32;
            self.words.push(header);
            self.words.extend(values);
        }
    }

    /// A product with `features` output features, of activations of `blocks` blocks a row; `output_scale` is FP32 bits of M of numerics §5.
    ///
    /// Sensitivities go to the bank that the elements before did not use: when the player writes them, one job at most is outstanding, and that one's elements came before those.
    pub fn job(
        &mut self,
        features: u32,
        blocks: u32,
        output_scale: u32,
        activations: Activations<'_>,
    ) {
        match activations {
            Activations::Reuse => {
                self.write(place::FEATURES, true, &[features, blocks, 3, output_scale]);
            }
            Activations::Elements {
                input_scale,
                threshold,
                sensitivities,
            } => {
                self.bank = !self.bank;
                let bank = u32::from(self.bank);
                let codes: Vec<u32> = sensitivities
                    .chunks(4)
                    .map(|four| {
                        four.iter()
                            .rev()
                            .fold(0, |word, &code| word << 8 | u32::from(code))
                    })
                    .collect();
                self.write(place::SENSITIVITY_ADDRESS, false, &[bank << 15]);
                self.write(place::SENSITIVITY_DATA, false, &codes);
                self.write(
                    place::FEATURES,
                    true,
                    &[
                        features,
                        blocks,
                        1 | bank << 5,
                        output_scale,
                        input_scale,
                        threshold as u32,
                        (threshold >> 32) as u32,
                    ],
                );
            }
        }
        self.words.push(START << OPERATION);
        self.jobs += 1;
    }
}

const _: () = assert!(
    place::BLOCKS == place::FEATURES + 1
        && place::FLAGS == place::FEATURES + 2
        && place::OUTPUT_SCALE == place::FEATURES + 3
        && place::INPUT_SCALE == place::FEATURES + 4
        && place::THRESHOLD_LOW == place::FEATURES + 5
        && place::THRESHOLD_HIGH == place::FEATURES + 6,
    "programs count on the order of the job registers"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_its_jobs_and_an_end() {
        let mut program = Program::new();
        assert_eq!(program.words(), [0]);
        program.job(
            5,
            2,
            7,
            Activations::Elements {
                input_scale: 8,
                threshold: 0x9_0000_000A,
                sensitivities: &[1, 2, 3, 4, 5, 6],
            },
        );
        program.job(6, 2, 11, Activations::Reuse);
        assert_eq!(program.jobs(), 2);
        let write = |place: usize, step: u32, count: u32| {
            1 << 28 | step << 22 | (place as u32) << 16 | count
        };
        assert_eq!(
            program.words(),
            [
                write(place::SENSITIVITY_ADDRESS, 0, 1),
                1 << 15,
                write(place::SENSITIVITY_DATA, 0, 2),
                0x0403_0201,
                0x0605,
                write(place::FEATURES, 1, 7),
                5,
                2,
                0x21,
                7,
                8,
                10,
                9,
                2 << 28,
                write(place::FEATURES, 1, 4),
                6,
                2,
                3,
                11,
                2 << 28,
                0
            ]
        );
    }

    #[test]
    fn banks_take_turns() {
        let mut program = Program::new();
        for _ in 0..2 {
            program.job(
                1,
                1,
                0,
                Activations::Elements {
                    input_scale: 0,
                    threshold: 0,
                    sensitivities: &[0; 16],
                },
            );
        }
        let addresses: Vec<u32> = program
            .words()
            .windows(2)
            .filter(|pair| pair[0] == 1 << 28 | (place::SENSITIVITY_ADDRESS as u32) << 16 | 1)
            .map(|pair| pair[1])
            .collect();
        assert_eq!(addresses, [1 << 15, 0]);
    }
}
