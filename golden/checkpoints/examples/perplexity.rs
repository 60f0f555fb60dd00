//! Perplexity in FP32 of a checkpoint on the first tokens of a text.
//!
//! `cargo run --release -p fgmp-checkpoints --example perplexity -- MODEL TEXT [tokens] [context]`
//!
//! Windows of `context` tokens (the model's own if absent) without overlap or a beginning-of-text token.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use checkpoints::Checkpoint;
use golden::eval::{Options, perplexity};
use golden::model::{ConfigHints, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, rest @ ..] = arguments.as_slice() else {
        return Err("expected MODEL TEXT [tokens] [context]".into());
    };
    let number = |index: usize| {
        rest.get(index)
            .map(|text| text.parse::<usize>())
            .transpose()
    };
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(model))?;
    println!(
        "opened in {:.3} s: {} tensors",
        start.elapsed().as_secs_f64(),
        checkpoint.tensors().count()
    );
    let start = Instant::now();
    let tokenizer = checkpoint
        .tokenizer()?
        .ok_or("the checkpoint has no tokenizer")?;
    let mut tokens = tokenizer.encode(&std::fs::read_to_string(text)?)?;
    println!(
        "{} tokens in {:.2} s, the first {:?}",
        tokens.len(),
        start.elapsed().as_secs_f64(),
        tokens.get(..8).unwrap_or(&tokens)
    );
    if let Some(count) = number(0)? {
        tokens.truncate(count);
    }
    let start = Instant::now();
    let hints = ConfigHints {
        context: number(1)?,
        ..ConfigHints::default()
    };
    let model = Model::from_tensors(checkpoint.to_tensor_file()?, hints)?;
    println!(
        "decoded {} parameters in {:.2} s",
        model.parameters(),
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    let evaluation = perplexity(&model, &tokens, Options::new(model.config()), &|_, _| ())?;
    println!(
        "perplexity {:.4} over {} tokens in {:.1} s",
        evaluation.perplexity,
        evaluation.tokens,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
