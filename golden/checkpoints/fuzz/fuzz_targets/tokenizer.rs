//! The vocabulary of a GGUF file of anybody's. Slow: each one that is well-formed compiles regular expressions.
#![no_main]

use std::path::Path;

use checkpoints::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(checkpoint) = Checkpoint::parse(Path::new("fuzz"), data.into()) else {
        return;
    };
    if let Ok(Some(tokenizer)) = checkpoint.tokenizer()
        && let Ok(tokens) = tokenizer.encode("a b  ab<s>")
    {
        let _ = tokenizer.decode(&tokens);
    }
});
