//! Language models as decoders.

use super::{Choice, Counters, Decoder, Row, Start};
use crate::model::{
    Config, GroupRow, KvCache, LanguageModel, ModelError, Tally, embed_row, forward, run_group,
};

/// A language model that decodes several sequences.
pub struct ModelDecoder<'a> {
    model: &'a dyn LanguageModel,
    pub(super) choice: Choice,
    tally: Tally,
    caches: Vec<KvCache>,
    /// By sequence and repetition: what the next row of that repetition begins with. Rows of repetition 0 begin with an embedding.
    streams: Vec<Vec<Vec<f32>>>,
}

impl<'a> ModelDecoder<'a> {
    /// A decoder without sequences.
    pub fn new(model: &'a dyn LanguageModel, choice: Choice) -> Self {
        Self {
            model,
            choice,
            tally: Tally::new(model.trunk().config()),
            caches: Vec::new(),
            streams: Vec::new(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        self.model.trunk().config()
    }

    /// Adds a sequence: runs all of the prompt but its last token, each repetition's rows at once, and says where decoding begins. At most `tokens` will be decoded.
    ///
    /// The number of the sequence is how many were added before.
    ///
    /// # Errors
    /// The prompt is empty, holds a token outside the vocabulary, or leaves no room in the context.
    pub fn add(&mut self, prompt: &[u32], tokens: usize) -> Result<Start, ModelError> {
        let config = *self.config();
        let Some((&token, before)) = prompt.split_last() else {
            return Err(ModelError::Config("the prompt is empty".into()));
        };
        if prompt.len() >= config.context {
            return Err(ModelError::Config(format!(
                "a prompt of {} tokens leaves no room in the context of {}",
                prompt.len(),
                config.context
            )));
        }
        let mut cache = KvCache::new();
        forward(self.model, before, &mut cache, &mut self.tally, |_, _| ())?;
        self.caches.push(cache);
        self.streams.push(vec![Vec::new(); config.repetitions + 1]);
        Ok(Start {
            position: before.len(),
            token,
            positions: prompt.len().saturating_add(tokens).min(config.context),
        })
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        self.caches.clear();
        self.streams.clear();
    }

    /// Activation blocks quantized so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A row's logits from the residual stream.
    pub(super) fn logits(&self, x: &[f32]) -> Vec<f32> {
        self.model.trunk().logits(x)
    }

    /// Runs rows of one sequence through all repetitions, from position `first` on, and gives the class of each.
    pub(super) fn verify(
        &mut self,
        sequence: usize,
        first: usize,
        tokens: &[u32],
        counters: &mut Counters,
    ) -> Result<Vec<u32>, ModelError> {
        let config = *self.config();
        let mut x = Vec::with_capacity(tokens.len() * config.hidden);
        for &token in tokens {
            x.extend(embed_row(self.model, token)?);
        }
        for repetition in 0..config.repetitions {
            let rows: Vec<Row> = tokens
                .iter()
                .zip(first..)
                .map(|(&token, position)| Row {
                    sequence,
                    repetition,
                    position,
                    token,
                    classify: repetition + 1 == config.repetitions,
                })
                .collect();
            counters.pass(&rows, rows.len());
            let caches = &mut self.caches;
            run_group(
                self.model,
                &group(&rows),
                &[],
                caches,
                &mut x,
                &[],
                &mut self.tally,
            );
        }
        let logits = self.logits(&x);
        Ok(logits
            .chunks_exact(config.vocabulary)
            .zip(first..)
            .map(|(logits, position)| self.choice.token(logits, sequence, position + 1))
            .collect())
    }

    /// Runs rows through the group and gives the residual stream behind it, a row of `hidden` elements each. `fills` are rows that stopped before, with `stopped`.
    pub(super) fn run(
        &mut self,
        rows: &[Row],
        fills: &[Row],
        stopped: &[f32],
    ) -> Result<Vec<f32>, ModelError> {
        let hidden = self.config().hidden;
        let mut x = Vec::with_capacity(rows.len() * hidden);
        for row in rows {
            if row.repetition == 0 {
                x.extend(embed_row(self.model, row.token)?);
            } else {
                let stream = self
                    .streams
                    .get(row.sequence)
                    .and_then(|streams| streams.get(row.repetition))
                    .filter(|stream| stream.len() == hidden)
                    .ok_or_else(|| {
                        ModelError::Config(format!(
                            "sequence {} has no token behind repetition {}",
                            row.sequence, row.repetition
                        ))
                    })?;
                x.extend_from_slice(stream);
            }
        }
        run_group(
            self.model,
            &group(rows),
            &group(fills),
            &mut self.caches,
            &mut x,
            stopped,
            &mut self.tally,
        );
        for (row, x) in rows.iter().zip(x.chunks_exact(hidden)) {
            let stream = self
                .streams
                .get_mut(row.sequence)
                .and_then(|streams| streams.get_mut(row.repetition + 1));
            if let Some(stream) = stream {
                stream.clear();
                stream.extend_from_slice(x);
            }
        }
        Ok(x)
    }
}

fn group(rows: &[Row]) -> Vec<GroupRow> {
    rows.iter()
        .map(|row| GroupRow {
            sequence: row.sequence,
            repetition: row.repetition,
            position: row.position,
        })
        .collect()
}

impl Decoder for ModelDecoder<'_> {
    type Error = ModelError;

    fn repetitions(&self) -> usize {
        self.config().repetitions
    }

    fn pass(&mut self, rows: &[Row]) -> Result<Vec<Option<u32>>, ModelError> {
        let x = self.run(rows, &[], &[])?;
        let config = *self.config();
        let asking: Vec<f32> = rows
            .iter()
            .zip(x.chunks_exact(config.hidden))
            .filter(|(row, _)| row.classify)
            .flat_map(|(_, x)| x)
            .copied()
            .collect();
        let logits = self.logits(&asking);
        let mut logits = logits.chunks_exact(config.vocabulary);
        Ok(rows
            .iter()
            .map(|row| {
                let logits = row.classify.then(|| logits.next()).flatten()?;
                Some(self.choice.token(logits, row.sequence, row.position + 1))
            })
            .collect())
    }
}
