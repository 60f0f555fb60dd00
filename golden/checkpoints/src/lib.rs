//! Model files that people have, in and out: GGUF, Hugging Face safetensors, NVFP4 checkpoints, tokenizers.
//!
//! A [`Checkpoint`] knows the names, shapes and types of its tensors without reading them, and gives any rows of
//! any of them in FP32 under Hugging Face's names and in the order of rows that `golden::model` expects.
//! An [`Encoder`] makes vectors of sentences, [`Prose`] is text as a task of tree search.
//! Every file is taken to be hostile: nothing is allocated or read before its length allows it.

mod checkpoint;
mod encoder;
pub mod encoding;
mod error;
pub mod gguf;
mod huggingface;
mod llama;
pub mod nvfp4;
mod prose;
pub mod streaming;
mod tokenizer;

pub use checkpoint::{Checkpoint, TensorInfo};
pub use encoder::{EmbedError, Encoder};
pub use encoding::Encoding;
pub use error::CheckpointError;
pub use prose::{Prose, Remembering};
pub use tokenizer::{EncodeError, Tokenizer};
