//! Process reward models.

use crate::model::{LanguageModel, ModelError};
use crate::tensors::RawTensor;

/// A linear layer on a model's last, normed residual stream, whose sigmoid is a score.
#[derive(Clone, Debug)]
pub struct ScoreHead(Vec<f32>);

/// Why a model is no reward model.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// No layer of its own for scores.
    #[error("the model has no tensor `score.weight`: it is no reward model")]
    NoHead,
    /// One of another shape.
    #[error("tensor `score.weight`: expected [1, {width}] of F32, F16 or BF16, found {shape:?}")]
    Shape {
        /// Width of the residual stream.
        width: usize,
        /// What was found.
        shape: Vec<usize>,
    },
    /// The model itself.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl ScoreHead {
    /// The tensor `score.weight` among a model's plain ones.
    ///
    /// # Errors
    /// There is none, or it doesn't fit the model.
    pub fn of(model: &dyn LanguageModel) -> Result<Self, RewardError> {
        let trunk = model.trunk();
        let width = trunk.config().hidden;
        let raw = trunk
            .plain()
            .get("score.weight")
            .ok_or(RewardError::NoHead)?;
        let values = RawTensor::to_f32(raw)
            .map(|tensor| tensor.data)
            .filter(|values| values.len() == width);
        values.map(Self).ok_or_else(|| RewardError::Shape {
            width,
            shape: raw.shape.clone(),
        })
    }
}

/// How steps are scored.
pub enum Reward<'a> {
    /// By a model with a head for it, at the step's last token: the sigmoid.
    Scored(&'a dyn LanguageModel, ScoreHead),
    /// By a language model: the geometric mean of the probabilities that it gives the step's tokens.
    Likelihood(&'a dyn LanguageModel),
    /// By such, and then by a function of the score: to see what a search does with a reward model that fails.
    Tampered(&'a Reward<'a>, &'a (dyn Fn(f32) -> f32 + Sync)),
}

impl<'a> Reward<'a> {
    /// The model that is asked.
    pub fn model(&self) -> &'a dyn LanguageModel {
        match self {
            Self::Scored(model, _) | Self::Likelihood(model) => *model,
            Self::Tampered(reward, _) => reward.model(),
        }
    }

    /// Whether the model's logits are needed at every token.
    pub(super) fn judges_tokens(&self) -> bool {
        match self {
            Self::Scored(..) => false,
            Self::Likelihood(_) => true,
            Self::Tampered(reward, _) => reward.judges_tokens(),
        }
    }

    /// The score of a step: from the normed residual stream behind it, and from its tokens' log-probabilities.
    pub(super) fn score(&self, normed: &[f32], likelihood: f64, tokens: usize) -> f32 {
        match self {
            Self::Scored(_, head) => {
                let logit: f32 = head.0.iter().zip(normed).map(|(w, x)| w * x).sum();
                1.0 / (1.0 + (-logit).exp())
            }
            Self::Likelihood(_) => (likelihood / tokens.max(1) as f64).exp() as f32,
            Self::Tampered(reward, tamper) => tamper(reward.score(normed, likelihood, tokens)),
        }
    }
}

/// log softmax of a token.
pub(super) fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
    let sum: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
    logits
        .get(token as usize)
        .map_or(f64::NEG_INFINITY, |&l| f64::from(l - largest) - sum.ln())
}
