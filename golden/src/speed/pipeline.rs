//! The state machine of one sequence: which tokens are in flight, and what a pass changes.

use serde::Serialize;

use super::MOST_REPETITIONS;

/// What bounds a sequence's decoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Limits {
    /// Repetitions G of the group of layers: stages of the pipeline.
    pub repetitions: usize,
    /// The token that ends the sequence once it is committed.
    pub end: Option<u32>,
    /// Positions of the sequence, prompt included: nothing is predicted for this position or beyond.
    pub positions: usize,
}

/// Why a pipeline can't be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LimitsError {
    /// The number of stages.
    #[error("{0} repetitions: a pipeline has 1 to {MOST_REPETITIONS}")]
    Repetitions(usize),
    /// Nothing can be predicted.
    #[error("no position is left behind {last}, the prompt's last, of {positions}")]
    Positions {
        /// Position of the first entry.
        last: usize,
        /// Positions of the sequence.
        positions: usize,
    },
}

/// A token in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Entry {
    /// Its position in the sequence; what is predicted from it belongs to the next one.
    pub position: usize,
    /// The token itself.
    pub token: u32,
    /// What the classifier said after its last repetition; nothing before the first.
    pub class: Option<u32>,
}

/// What a pass changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Resolution {
    /// Stage of the oldest entry whose class is another than a pass ago. All younger ones were dropped.
    pub flip: Option<usize>,
    /// Entries dropped, those behind the end of the sequence included.
    pub flushed: usize,
    /// After a flip: positions whose keys and values still hold, in all repetitions. What lies behind is dead.
    pub kept: Option<usize>,
    /// The token that left the last stage, and its position.
    pub committed: Option<(usize, u32)>,
}

/// Speculative decoding of one sequence. Twin of the hardware's `SpeedPipeline`.
///
/// Stage s holds the entry that makes its (s + 1)-th trip through the group in the next pass. A pass gives each entry a class; [`Pipeline::resolve`] compares it with
/// the one before, drops what was built on a class that changed, and moves all entries on by a stage; then [`Pipeline::launch`] lets the next token in. The
/// algorithm is the paper's algorithm 1 with two corrections: the first entry is in flight before the first pass (as printed, the first token is never read), and a stage without an entry launches
/// nothing (as printed, at the sequence's greatest length a token of position 0 comes back).
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Pipeline {
    stages: Vec<Option<Slot>>,
    /// The youngest entry that still holds, or the last that was committed: what comes next is its class at the position behind.
    tip: (usize, u32),
    end: Option<u32>,
    positions: usize,
    done: bool,
}

/// An [`Entry`] that can be a key of a set of states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
struct Slot {
    position: usize,
    token: u32,
    class: Option<u32>,
}

impl Pipeline {
    /// A sequence whose last known token, at `position`, has been launched.
    ///
    /// # Errors
    /// There are not 1 to 8 repetitions, or nothing is left to predict.
    pub fn new(limits: Limits, position: usize, token: u32) -> Result<Self, LimitsError> {
        let Limits {
            repetitions,
            end,
            positions,
        } = limits;
        if !(1..=MOST_REPETITIONS).contains(&repetitions) {
            return Err(LimitsError::Repetitions(repetitions));
        }
        if position.checked_add(1).is_none_or(|next| next >= positions) {
            return Err(LimitsError::Positions {
                last: position,
                positions,
            });
        }
        let mut stages = vec![None; repetitions];
        stages[0] = Some(Slot {
            position,
            token,
            class: None,
        });
        Ok(Self {
            stages,
            tip: (position, token),
            end,
            positions,
            done: false,
        })
    }

    /// Repetitions G.
    pub const fn repetitions(&self) -> usize {
        self.stages.len()
    }

    /// The end was committed, or the last position.
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// The entry of each stage.
    pub fn stages(&self) -> impl Iterator<Item = Option<Entry>> {
        self.stages.iter().map(|slot| {
            slot.map(|slot| Entry {
                position: slot.position,
                token: slot.token,
                class: slot.class,
            })
        })
    }

    /// Entries in flight.
    pub fn in_flight(&self) -> usize {
        self.stages.iter().flatten().count()
    }

    /// Stage of the youngest entry.
    pub fn youngest(&self) -> Option<usize> {
        self.stages.iter().position(Option::is_some)
    }

    /// Takes the classes of a pass, by stage (those of stages without an entry don't matter), and moves all entries on. Stage 0 is empty then.
    pub fn resolve(&mut self, classes: &[u32]) -> Resolution {
        let mut resolution = Resolution::default();
        if self.done {
            return resolution;
        }
        for (stage, slot) in self.stages.iter_mut().enumerate() {
            let (Some(slot), Some(&class)) = (slot.as_mut(), classes.get(stage)) else {
                continue;
            };
            if slot.class.is_some_and(|before| before != class) {
                resolution.flip = Some(stage);
            }
            slot.class = Some(class);
        }
        if let Some(oldest) = resolution.flip {
            for slot in &mut self.stages[..oldest] {
                resolution.flushed += usize::from(slot.take().is_some());
            }
            resolution.kept = self.stages[oldest].map(|slot| slot.position + 1);
        }
        if let Some(Slot {
            position,
            class: Some(class),
            ..
        }) = self.stages.iter().find_map(|slot| *slot)
        {
            self.tip = (position, class);
        }
        if let Some(Slot {
            position,
            class: Some(class),
            ..
        }) = self.stages.last_mut().and_then(Option::take)
        {
            resolution.committed = Some((position + 1, class));
            if self.end == Some(class) || position + 2 >= self.positions {
                self.done = true;
                resolution.flushed += self.in_flight();
                self.stages.fill(None);
            }
        }
        self.stages.rotate_right(1);
        resolution
    }

    /// What would be launched next: a token and its position. Nothing if stage 0 is taken, the sequence is done, or all positions are in flight.
    pub fn candidate(&self) -> Option<(usize, u32)> {
        let (position, token) = (self.tip.0 + 1, self.tip.1);
        let free = self.stages.first().is_some_and(Option::is_none);
        (free && !self.done && position + 1 < self.positions).then_some((position, token))
    }

    /// Launches [`Pipeline::candidate`]; false if there is none.
    pub fn launch(&mut self) -> bool {
        let Some((position, token)) = self.candidate() else {
            return false;
        };
        self.stages[0] = Some(Slot {
            position,
            token,
            class: None,
        });
        true
    }
}
