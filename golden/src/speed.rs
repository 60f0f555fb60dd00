//! SPEED: speculative pipelined decoding of models that run one group of layers several times (arXiv 2310.12072).
//!
//! A model with shared layers runs its group of layers G times for each token. Tokens in different repetitions need the same weights, so that one
//! fetch of them serves up to G tokens, if the later tokens are known. They are guessed: the classifier is run after each repetition, and what it says after the first is
//! taken for the next token at once. Where a later repetition says otherwise, all that was built on the guess is dropped. What comes out is what decoding token by token gives.
//!
//! * [`Pipeline`] is the state machine of one sequence, twin of `hdl::speed`. It knows no model.
//! * [`Decoder`] is a model that runs rows of several repetitions in one pass; [`decode`] drives any of them, one or several sequences at a time.
//! * [`ModelDecoder`] is the language models'.
//! * [`HashDecoder`] is a decoder in which every wrong read shows.
//! * [`ModelDecoder::early_exit`] and [`draft`] are other ways to take fewer passes.
//! * [`sequential`] decodes token by token: what all else is compared with.

mod choice;
mod decode;
mod hash;
mod model;
mod peers;
mod pipeline;

pub use choice::Choice;
pub(crate) use choice::mix;
pub use decode::{
    Counters, DecodeError, Decoder, Passage, Row, Run, Start, decode, passes_from_exits, sequential,
};
pub use hash::{Dead, HashDecoder, HashError};
pub use model::ModelDecoder;
pub use peers::{Drafted, EarlyExits, draft};
pub use pipeline::{Entry, Limits, LimitsError, Pipeline, Resolution};

/// Most repetitions that a pipeline has stages for.
pub const MOST_REPETITIONS: usize = 8;
