//! Memory and time of the pass on a model of 135 million parameters with random weights. Only with `FGMP_FULL=1`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod random;

use std::fs;
use std::ops::ControlFlow;
use std::time::Instant;

use fisher::{Options, Outcome, run, windows};
use golden::model::{Config, ConfigHints, Model};
use random::{random_tensors, random_tokens};

/// The shape of SmolLM2-135M.
const CONFIG: Config = Config {
    hidden: 576,
    layers: 30,
    repetitions: 1,
    heads: 9,
    kv_heads: 3,
    head_width: 64,
    ffn: 1536,
    vocabulary: 49152,
    context: 512,
    rope_base: 100_000.0,
    rms_eps: 1e-5,
};

/// Highest resident memory of this process in GiB so far, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

#[test]
fn a_model_of_135_million_parameters_needs_less_than_4_gib() {
    if std::env::var_os("FGMP_FULL").is_none_or(|value| value != "1") {
        eprintln!("skipped: 135 million parameters are run with FGMP_FULL=1");
        return;
    }
    let file = random_tensors(&CONFIG, true, 0.05, 1);
    let model = Model::from_tensors(file, ConfigHints::of(&CONFIG)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        parallel: 2,
        state: Some(folder.path().join("state.safetensors")),
        ..Options::default()
    };
    let windows = windows(&random_tokens(49152, 4 * 512 + 1, 1), 512, 4);
    let start = Instant::now();
    let outcome = run(&model, &windows, &options, &mut |_| {
        ControlFlow::Continue(())
    });
    let seconds = start.elapsed().as_secs_f64() / windows.len() as f64;
    let Outcome::Complete(information) = outcome.unwrap() else {
        panic!("nothing asked it to stop");
    };
    assert_eq!(information.weights.len(), 30 * 7);
    let peak = peak_memory();
    eprintln!("{seconds:.1} s a window of 512, two at a time; at most {peak:?} GiB");
    assert!(peak.is_none_or(|peak| peak < 4.0), "{peak:?} GiB");
}
