//! Other ways to decode with fewer passes: leaving a token's last repetitions out, and letting a smaller model draft.

use serde::Serialize;

use super::{Counters, Decoder, ModelDecoder, Row, Start};
use crate::model::ModelError;

/// What decoding with early exits gave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EarlyExits {
    /// The tokens behind the prompt, the end included.
    pub tokens: Vec<u32>,
    /// What it took.
    pub counters: Counters,
    /// Tokens that were taken after each repetition.
    pub exits: Vec<u64>,
    /// Sum of −ln p of the tokens that were given; 0 if none were.
    pub negative_log_likelihood: f64,
}

impl ModelDecoder<'_> {
    /// Decodes a sequence token by token, and takes what the classifier says after a repetition as soon as its largest probability is ahead of the second by more than `confidence`
    /// (CALM, arXiv 2207.07061: softmax response). Tokens after it see, in the repetitions that were left out, keys and values of the residual stream that it stopped with; they are
    /// made together with the next token's first repetition, whose weights are at hand.
    ///
    /// `given` tokens, if there are any, are followed instead of the chosen ones, so as to measure how well they are predicted. Then decoding ends with them.
    ///
    /// # Errors
    /// A token is outside the vocabulary.
    pub fn early_exit(
        &mut self,
        sequence: usize,
        start: Start,
        end: Option<u32>,
        confidence: f32,
        given: Option<&[u32]>,
    ) -> Result<EarlyExits, ModelError> {
        let config = *self.config();
        let repetitions = config.repetitions;
        let mut run = EarlyExits {
            tokens: Vec::new(),
            counters: Counters::new(repetitions),
            exits: vec![0; repetitions],
            negative_log_likelihood: 0.0,
        };
        let (mut position, mut token) = (start.position, start.token);
        // Rows that stopped, and what with.
        let (mut fills, mut stopped) = (Vec::new(), Vec::new());
        while position + 1 < start.positions {
            let mut class = 0;
            for repetition in 0..repetitions {
                let row = Row {
                    sequence,
                    repetition,
                    position,
                    token,
                    classify: true,
                };
                run.counters.pass(&[row], 1);
                let x = self.run(&[row], &fills, &stopped)?;
                run.counters.positions_written += fills.len() as u64;
                (fills, stopped) = (Vec::new(), Vec::new());
                let logits = self.logits(&x);
                let last = repetition + 1 == repetitions;
                if !last && lead(&logits) <= confidence {
                    continue;
                }
                run.exits[repetition] += 1;
                class = self.choice.token(&logits, sequence, position + 1);
                if let Some(&given) = given.and_then(|given| given.get(run.tokens.len())) {
                    run.negative_log_likelihood += surprise(&logits, given);
                }
                for repetition in repetition + 1..repetitions {
                    fills.push(Row { repetition, ..row });
                    stopped.extend_from_slice(&x);
                }
                break;
            }
            run.tokens.push(class);
            run.counters.committed += 1;
            position += 1;
            token = class;
            if let Some(given) = given {
                match given.get(run.tokens.len() - 1) {
                    Some(&given) => token = given,
                    None => break,
                }
                if run.tokens.len() == given.len() {
                    break;
                }
            } else if end == Some(class) {
                break;
            }
        }
        Ok(run)
    }
}

/// How far the largest probability is ahead of the second.
fn lead(logits: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &logit in logits {
        if logit > first {
            (first, second) = (logit, first);
        } else if logit > second {
            second = logit;
        }
    }
    let sum: f32 = logits.iter().map(|logit| (logit - first).exp()).sum();
    (1.0 - (second - first).exp()) / sum
}

/// −ln p of a token.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .sum();
    let own = logits.get(token as usize).copied().unwrap_or(f32::NAN);
    sum.ln() - f64::from(own - largest)
}

/// What drafting and verifying gave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Drafted {
    /// The tokens behind the prompt, the end included.
    pub tokens: Vec<u32>,
    /// What the model took.
    pub target: Counters,
    /// What the drafting model took.
    pub draft: Counters,
    /// Tokens that were drafted.
    pub proposed: u64,
    /// Of them accepted.
    pub accepted: u64,
}

/// Decodes a sequence with another model's drafts: it guesses `ahead` tokens one after the other, the model runs them and the token before them as rows of one pass for each repetition, and takes
/// those that it would have chosen, and its own choice behind them (speculative decoding, arXiv 2211.17192, in the form that gives exactly the model's own tokens).
///
/// `starts` are the sequence's in the model and in the drafting one; both chose alike.
///
/// # Errors
/// A token is outside a vocabulary.
pub fn draft(
    target: &mut ModelDecoder<'_>,
    draft: &mut ModelDecoder<'_>,
    sequence: usize,
    starts: [Start; 2],
    end: Option<u32>,
    ahead: usize,
) -> Result<Drafted, ModelError> {
    let [start, draft_start] = starts;
    let mut run = Drafted {
        tokens: Vec::new(),
        target: Counters::new(target.repetitions()),
        draft: Counters::new(draft.repetitions()),
        proposed: 0,
        accepted: 0,
    };
    let mut position = start.position;
    // Known tokens that the drafting model has not read yet; the last of them is at `position`.
    let mut unread = vec![start.token];
    while position + 1 < start.positions {
        // Behind the last position nothing needs be guessed.
        let room = start.positions.min(draft_start.positions) - position - 1;
        let count = ahead.min(room.saturating_sub(1));
        let mut tokens = vec![unread[unread.len() - 1]];
        for _ in 0..count {
            let first = position + tokens.len() - unread.len();
            let classes = draft.verify(sequence, first, &unread, &mut run.draft)?;
            let Some(&guess) = classes.last() else {
                break;
            };
            tokens.push(guess);
            unread = vec![guess];
        }
        run.proposed += tokens.len() as u64 - 1;
        let classes = target.verify(sequence, position, &tokens, &mut run.target)?;
        let right = tokens[1..]
            .iter()
            .zip(&classes)
            .take_while(|(guess, class)| guess == class)
            .count();
        run.accepted += right as u64;
        let mut ended = false;
        for &class in &classes[..=right] {
            run.tokens.push(class);
            run.target.committed += 1;
            position += 1;
            ended = end == Some(class);
            if ended {
                break;
            }
        }
        if ended {
            break;
        }
        // If all were right, the drafting model has not read its own last guess.
        let last = classes[right];
        unread = if right + 1 == tokens.len() && count > 0 {
            vec![tokens[right], last]
        } else if count == 0 {
            unread.push(last);
            unread
        } else {
            vec![last]
        };
    }
    Ok(run)
}
