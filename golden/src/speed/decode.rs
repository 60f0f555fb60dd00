//! Driving a model: several sequences through one pass, and token by token.

use serde::Serialize;

use super::pipeline::{Limits, LimitsError, Pipeline, Resolution};

/// Where a sequence's decoding begins. All earlier tokens are in the model's keys and values already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Position of the prompt's last token.
    pub position: usize,
    /// That token.
    pub token: u32,
    /// Positions of the sequence at most, prompt included.
    pub positions: usize,
}

/// One token's trip through the group of layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// Number of its sequence.
    pub sequence: usize,
    /// Which repetition, from 0.
    pub repetition: usize,
    /// Its position in the sequence.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Whether its class is asked for.
    pub classify: bool,
}

/// A model whose group of layers is run on rows of several repetitions at once.
pub trait Decoder {
    /// Why a pass fails.
    type Error;

    /// Repetitions G of the group.
    fn repetitions(&self) -> usize;

    /// Runs the group on each row, and the classifier on those that ask for it; classes in the rows' order.
    ///
    /// A row of repetition 0 begins with its token's embedding, any other with what its sequence's row of the same position left one repetition before. A row writes its keys and
    /// values at its position in its own repetition and sees those up to there. At most one row of a sequence is in each repetition. A row's class must not depend on the pass's other rows.
    ///
    /// # Errors
    /// The model's.
    fn pass(&mut self, rows: &[Row]) -> Result<Vec<Option<u32>>, Self::Error>;

    /// What a sequence's positions from `kept` on hold, in all repetitions, is dead: later rows overwrite it.
    fn truncate(&mut self, sequence: usize, kept: usize) {
        let _ = (sequence, kept);
    }
}

/// What decoding took.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Runs of the group of layers: fetches of its weights.
    pub passes: u64,
    /// Of them with so many rows; index 0 is none.
    pub passes_by_rows: Vec<u64>,
    /// Of them with a row that asked for its class: fetches of the classifier's weights.
    pub classified: u64,
    /// Rows in them.
    pub rows: u64,
    /// Rows that there was room for and no token.
    pub bubbles: u64,
    /// Entries dropped.
    pub flushed: u64,
    /// Passes in which an entry of this stage was the oldest whose class changed; none at stage 0.
    pub flips: Vec<u64>,
    /// Tokens committed.
    pub committed: u64,
    /// Positions written to keys and values, each in one repetition.
    pub positions_written: u64,
    /// Positions read from them.
    pub positions_read: u64,
}

impl Counters {
    pub(super) fn new(repetitions: usize) -> Self {
        Self {
            flips: vec![0; repetitions],
            ..Self::default()
        }
    }

    pub(super) fn pass(&mut self, rows: &[Row], slots: usize) {
        self.passes += 1;
        if self.passes_by_rows.len() <= rows.len() {
            self.passes_by_rows.resize(rows.len() + 1, 0);
        }
        self.passes_by_rows[rows.len()] += 1;
        self.classified += u64::from(rows.iter().any(|row| row.classify));
        self.rows += rows.len() as u64;
        self.bubbles += slots.saturating_sub(rows.len()) as u64;
        self.positions_written += rows.len() as u64;
        self.positions_read += rows.iter().map(|row| row.position as u64 + 1).sum::<u64>();
    }

    fn resolved(&mut self, resolution: &Resolution) {
        self.flushed += resolution.flushed as u64;
        if let Some(flips) = resolution.flip.and_then(|stage| self.flips.get_mut(stage)) {
            *flips += 1;
        }
        self.committed += u64::from(resolution.committed.is_some());
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.passes += other.passes;
        self.classified += other.classified;
        self.rows += other.rows;
        self.bubbles += other.bubbles;
        self.flushed += other.flushed;
        self.committed += other.committed;
        self.positions_written += other.positions_written;
        self.positions_read += other.positions_read;
        for (sums, terms) in [
            (&mut self.flips, &other.flips),
            (&mut self.passes_by_rows, &other.passes_by_rows),
        ] {
            sums.resize(sums.len().max(terms.len()), 0);
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term;
            }
        }
    }
}

/// A pass, for those who watch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Passage<'a> {
    /// The rows that it ran.
    pub rows: &'a [Row],
    /// Their classes.
    pub classes: &'a [Option<u32>],
    /// What it changed, by sequence; nothing for those that have not begun or are done.
    pub resolutions: &'a [Resolution],
}

/// What decoding gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The tokens of each sequence behind its prompt, the end included.
    pub tokens: Vec<Vec<u32>>,
    /// What it took.
    pub counters: Counters,
}

/// Why decoding stopped.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError<E> {
    /// A sequence can't be decoded.
    #[error("sequence {sequence}: {source}")]
    Limits {
        /// Its number.
        sequence: usize,
        /// The reason.
        source: LimitsError,
    },
    /// No row may be run.
    #[error("a pass of no rows decodes nothing")]
    NoSlots,
    /// The model.
    #[error(transparent)]
    Model(E),
}

/// Decodes sequences speculatively, at most `slots` rows a pass; `watch` sees each pass.
///
/// A sequence by itself fills G slots. Of several, the one whose next token is surest is served first: one that has none in flight, then the one whose youngest token has come furthest,
/// then the first. So with G sequences nothing need be guessed, and with fewer only what would leave a slot empty.
///
/// # Errors
/// A sequence is out of bounds, there are no slots, or the model's.
pub fn decode<D: Decoder>(
    decoder: &mut D,
    starts: &[Start],
    end: Option<u32>,
    slots: usize,
    mut watch: impl FnMut(&Passage<'_>),
) -> Result<Run, DecodeError<D::Error>> {
    let repetitions = decoder.repetitions();
    if slots == 0 {
        return Err(DecodeError::NoSlots);
    }
    let mut sequences = starts
        .iter()
        .enumerate()
        .map(|(sequence, start)| {
            let limits = Limits {
                repetitions,
                end,
                positions: start.positions,
            };
            Pipeline::new(limits, start.position, start.token)
                .map_err(|source| DecodeError::Limits { sequence, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut waiting = sequences.split_off(slots.min(sequences.len())).into_iter();
    let mut run = Run {
        tokens: vec![Vec::new(); starts.len()],
        counters: Counters::new(repetitions),
    };
    let mut resolutions = vec![Resolution::default(); starts.len()];
    let (mut rows, mut classes_of_stages) = (Vec::new(), vec![0; repetitions]);
    loop {
        rows.clear();
        for (sequence, pipeline) in sequences.iter().enumerate() {
            rows.extend(pipeline.stages().enumerate().filter_map(|(stage, entry)| {
                entry.map(|entry| Row {
                    sequence,
                    repetition: stage,
                    position: entry.position,
                    token: entry.token,
                    classify: true,
                })
            }));
        }
        if rows.is_empty() {
            return Ok(run);
        }
        run.counters.pass(&rows, slots);
        let classes = decoder.pass(&rows).map_err(DecodeError::Model)?;
        let mut answered = rows.iter().zip(&classes).peekable();
        resolutions.fill(Resolution::default());
        for (sequence, pipeline) in sequences.iter_mut().enumerate() {
            while let Some((row, class)) = answered.next_if(|(row, _)| row.sequence == sequence) {
                classes_of_stages[row.repetition] = class.unwrap_or_default();
            }
            let resolution = pipeline.resolve(&classes_of_stages);
            run.counters.resolved(&resolution);
            if let Some(kept) = resolution.kept {
                decoder.truncate(sequence, kept);
            }
            if let Some((_, token)) = resolution.committed {
                run.tokens[sequence].push(token);
            }
            resolutions[sequence] = resolution;
        }
        watch(&Passage {
            rows: &rows,
            classes: &classes,
            resolutions: &resolutions,
        });
        let mut free = slots.saturating_sub(sequences.iter().map(Pipeline::in_flight).sum());
        // Stable: of equals the first.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&sequence| {
            std::cmp::Reverse(sequences[sequence].youngest().unwrap_or(repetitions))
        });
        for sequence in order {
            if free == 0 {
                break;
            }
            // A sequence that has not begun is as sure as one without a token in flight, and comes behind those.
            if sequences[sequence].youngest().is_some()
                && let Some(next) = waiting.next()
            {
                sequences.push(next);
                free -= 1;
                if free == 0 {
                    break;
                }
            }
            free -= usize::from(sequences[sequence].launch());
        }
        while free > 0
            && let Some(next) = waiting.next()
        {
            sequences.push(next);
            free -= 1;
        }
    }
}

/// Decodes token by token: G passes for each, the classifier after the last. Of several sequences `slots` go side by side.
///
/// # Errors
/// As [`decode`].
pub fn sequential<D: Decoder>(
    decoder: &mut D,
    starts: &[Start],
    end: Option<u32>,
    slots: usize,
) -> Result<Run, DecodeError<D::Error>> {
    let repetitions = decoder.repetitions();
    if slots == 0 {
        return Err(DecodeError::NoSlots);
    }
    let mut run = Run {
        tokens: vec![Vec::new(); starts.len()],
        counters: Counters::new(repetitions),
    };
    let mut waiting = starts.iter().enumerate();
    let mut active: Vec<(usize, Start)> = Vec::new();
    loop {
        let room = slots - active.len();
        for (sequence, start) in waiting.by_ref().take(room) {
            if start.position + 1 >= start.positions {
                let (last, positions) = (start.position, start.positions);
                let source = LimitsError::Positions { last, positions };
                return Err(DecodeError::Limits { sequence, source });
            }
            active.push((sequence, *start));
        }
        if active.is_empty() {
            return Ok(run);
        }
        let mut classes = Vec::new();
        for repetition in 0..repetitions {
            let rows: Vec<Row> = active
                .iter()
                .map(|&(sequence, at)| Row {
                    sequence,
                    repetition,
                    position: at.position,
                    token: at.token,
                    classify: repetition + 1 == repetitions,
                })
                .collect();
            run.counters.pass(&rows, slots);
            classes = decoder.pass(&rows).map_err(DecodeError::Model)?;
        }
        for ((sequence, at), class) in active.iter_mut().zip(classes) {
            let token = class.unwrap_or_default();
            run.tokens[*sequence].push(token);
            run.counters.committed += 1;
            (at.position, at.token) = (at.position + 1, token);
        }
        active.retain(|(_, at)| end != Some(at.token) && at.position + 1 < at.positions);
    }
}

/// Passes that speculative decoding of one sequence takes, from the classes of every exit of the right tokens: G + Σ (1 + s), the last token's left out of the sum, where s is the last exit (from 1)
/// whose class differs from the exit's before, 0 if none does.
pub fn passes_from_exits<'a>(exits: impl IntoIterator<Item = &'a [u32]>) -> u64 {
    let mut passes = 0;
    let mut behind = 0;
    for exits in exits {
        let last_change = (1..exits.len()).rev().find(|&i| exits[i] != exits[i - 1]);
        passes += behind;
        if passes == 0 {
            passes = exits.len() as u64;
        }
        behind = 1 + last_change.unwrap_or(0) as u64;
    }
    passes
}
