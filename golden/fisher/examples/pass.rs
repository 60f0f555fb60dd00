//! Fisher information of a model file over windows of a stream of 16-bit tokens.
//!
//! `cargo run --release -p fgmp-fisher --example pass -- MODEL.safetensors TOKENS.u16 WINDOWS WINDOW OUT`

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use fisher::{Options, Outcome, run, windows};
use golden::model::{ConfigHints, Model};
use golden::tensors::read_tokens;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokens, count, window, out] = arguments.as_slice() else {
        return Err("usage: pass MODEL.safetensors TOKENS.u16 WINDOWS WINDOW OUT".into());
    };
    let model = Model::open(Path::new(model), ConfigHints::default())?;
    let tokens = read_tokens(Path::new(tokens))?;
    let windows = windows(&tokens, window.parse()?, count.parse()?);
    let options = Options {
        state: Some(format!("{out}.state").into()),
        ..Options::default()
    };
    let start = Instant::now();
    let mut first = None;
    let outcome = run(&model, &windows, &options, &mut |progress| {
        let first = *first.get_or_insert(progress.done);
        let seconds = start.elapsed().as_secs_f64();
        let each = seconds / (progress.done - first).max(1) as f64;
        eprintln!(
            "{} of {} windows, loss {:.4}, {seconds:.1} s, {each:.2} s a window",
            progress.done, progress.windows, progress.loss
        );
        ControlFlow::Continue(())
    })?;
    if let Outcome::Complete(information) = outcome {
        information.save(Path::new(out), model.config())?;
    }
    Ok(())
}
