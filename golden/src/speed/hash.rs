//! A decoder made of hashes, in which every wrong read shows.

use super::choice::mix;
use super::{Decoder, Row, Start};

/// A model without arithmetic: what it says of a token depends, through hashes, on every key and value that it sees, and on nothing else.
///
/// So decoding that reads a stale or a missing entry goes another way at once, which a trained model would often hide. How readily classes change from one repetition to the next is a parameter.
#[derive(Clone, Debug)]
pub struct HashDecoder {
    repetitions: usize,
    vocabulary: u32,
    /// Of 256: how often a repetition draws a new class.
    restless: u8,
    seed: u64,
    dead: Dead,
    sequences: Vec<Sequence>,
}

/// What becomes of keys and values whose token was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dead {
    /// They stay until they are overwritten; nobody may read them.
    Stay,
    /// They are cut off; a write must come at the end of what is left.
    Cut,
}

#[derive(Clone, Debug)]
struct Sequence {
    /// By repetition and position.
    entries: Vec<Vec<u64>>,
    /// What each repetition begins with, and the class so far.
    streams: Vec<(u64, u32)>,
}

/// A row that no right schedule has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashError {
    /// No such sequence or repetition.
    #[error("there is no sequence {0} with this repetition")]
    Unknown(usize),
    /// Keys and values would be left out or, where dead ones are cut, overwritten.
    #[error("position {position} is written where {held} are held")]
    Position {
        /// The row's.
        position: usize,
        /// Positions held in its repetition.
        held: usize,
    },
}

impl HashDecoder {
    /// A decoder without sequences, of at least one repetition and a vocabulary of at least one token.
    pub fn new(repetitions: usize, vocabulary: u32, restless: u8, seed: u64, dead: Dead) -> Self {
        Self {
            repetitions: repetitions.max(1),
            vocabulary: vocabulary.max(1),
            restless,
            seed,
            dead,
            sequences: Vec::new(),
        }
    }

    /// Adds a sequence; at most `tokens` will be decoded. An empty prompt is one of token 0.
    pub fn add(&mut self, prompt: &[u32], tokens: usize) -> Start {
        let (&token, before) = prompt.split_last().unwrap_or((&0, &[]));
        let sequence = self.sequences.len();
        self.sequences.push(Sequence {
            entries: vec![Vec::new(); self.repetitions],
            streams: vec![(0, 0); self.repetitions + 1],
        });
        for (position, &token) in before.iter().enumerate() {
            for repetition in 0..self.repetitions {
                let row = Row {
                    sequence,
                    repetition,
                    position,
                    token,
                    classify: false,
                };
                // Positions one behind the other are always in place.
                let _ = self.row(&row);
            }
        }
        Start {
            position: before.len(),
            token,
            positions: before.len() + 1 + tokens,
        }
    }

    fn row(&mut self, row: &Row) -> Result<u32, HashError> {
        let unknown = HashError::Unknown(row.sequence);
        let sequence = self.sequences.get_mut(row.sequence).ok_or(unknown)?;
        let entries = sequence.entries.get_mut(row.repetition).ok_or(unknown)?;
        let (input, mut class) = if row.repetition == 0 {
            (mix(self.seed, u64::from(row.token)), 0)
        } else {
            sequence.streams[row.repetition]
        };
        let entry = mix(mix(input, row.repetition as u64), row.position as u64);
        let held = entries.len();
        if row.position == held {
            entries.push(entry);
        } else if row.position < held && self.dead == Dead::Stay {
            entries[row.position] = entry;
        } else {
            let position = row.position;
            return Err(HashError::Position { position, held });
        }
        let output = entries[..=row.position]
            .iter()
            .fold(input, |seen, &entry| mix(seen, entry));
        if row.repetition == 0 || (mix(output, 1) as u8) < self.restless {
            class = (mix(output, 2) % u64::from(self.vocabulary)) as u32;
        }
        sequence.streams[row.repetition + 1] = (output, class);
        Ok(class)
    }
}

impl Decoder for HashDecoder {
    type Error = HashError;

    fn repetitions(&self) -> usize {
        self.repetitions
    }

    fn pass(&mut self, rows: &[Row]) -> Result<Vec<Option<u32>>, HashError> {
        let mut classes = vec![None; rows.len()];
        // The latest repetition first: what a row leaves behind is read by the next pass, not by this one.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(rows[index].repetition));
        for index in order {
            let class = self.row(&rows[index])?;
            classes[index] = rows[index].classify.then_some(class);
        }
        Ok(classes)
    }

    fn truncate(&mut self, sequence: usize, kept: usize) {
        if self.dead == Dead::Cut
            && let Some(sequence) = self.sequences.get_mut(sequence)
        {
            for entries in &mut sequence.entries {
                entries.truncate(kept);
            }
        }
    }
}
