//! The exporter for PyTorch against the pass, on a model that both read. Needs PyTorch, so only with `FGMP_FULL=1`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod random;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use fisher::{Options, Outcome, run, windows};
use golden::fisher::{FisherInformation, site_name};
use golden::model::{Config, ConfigHints, Model};
use random::{random_tensors, random_tokens};
use serde_json::json;

const MODULES: [&str; 4] = ["torch", "transformers", "safetensors", "numpy"];

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The system's Python if it has PyTorch, or one of the test's own: the packages are some gigabytes.
fn python() -> PathBuf {
    let import = format!("import {}", MODULES.join(", "));
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-exporter");
    let candidates = [PathBuf::from("python3"), own.join("bin/python")];
    let has_all = |python: &&PathBuf| succeeds(Command::new(python).args(["-c", &import]));
    if let Some(python) = candidates.iter().find(has_all) {
        return python.clone();
    }
    assert!(succeeds(
        Command::new("python3").args(["-m", "venv"]).arg(&own)
    ));
    let output = Command::new(&candidates[1])
        .args(["-m", "pip", "install", "-q"])
        .args(MODULES)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    candidates[1].clone()
}

/// Both compute in FP32, so each value is good to some 10⁻⁵ of its tensor's largest; squared, twice that.
fn assert_close(name: &str, ours: &[f32], theirs: &[f32]) {
    let largest = ours.iter().copied().fold(0f32, f32::max);
    assert!(largest > 0.0, "{name} has no gradient: the test is blind");
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (ours - theirs).abs() <= 2e-4 * ours + 4e-6 * largest,
            "{name} [{index}]: {ours:e}, PyTorch {theirs:e}, largest {largest:e}"
        );
    }
}

#[test]
fn pytorch_exports_what_the_pass_computes() {
    if std::env::var_os("FGMP_FULL").is_none_or(|value| value != "1") {
        eprintln!("skipped: PyTorch is installed with FGMP_FULL=1");
        return;
    }
    let python = python();
    let config = Config {
        hidden: 48,
        layers: 3,
        repetitions: 1,
        heads: 6,
        kv_heads: 2,
        head_width: 8,
        ffn: 80,
        vocabulary: 97,
        context: 32,
        rope_base: 10000.0,
        rms_eps: 1e-5,
    };
    for tied in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut file = random_tensors(&config, tied, 0.1, 12);
        file.metadata = None;
        file.save(&path.join("model.safetensors")).unwrap();
        let description = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": config.hidden, "intermediate_size": config.ffn,
            "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads, "head_dim": config.head_width,
            "vocab_size": config.vocabulary, "max_position_embeddings": config.context,
            "rms_norm_eps": config.rms_eps, "rope_theta": config.rope_base,
            "tie_word_embeddings": tied, "attention_bias": false, "mlp_bias": false,
            "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32",
        });
        fs::write(path.join("config.json"), description.to_string()).unwrap();
        let tokens = random_tokens(config.vocabulary, 4 * 32 + 1, 12);
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        fs::write(path.join("tokens.u32"), bytes).unwrap();

        let exported = path.join("fisher.safetensors");
        let output = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("exporters/fisher_torch.py"))
            .arg(path)
            .arg(path.join("tokens.u32"))
            .args(["4", "32"])
            .arg(&exported)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let theirs = FisherInformation::open(&exported, &config).unwrap();

        let model = Model::from_tensors(file, ConfigHints::of(&config)).unwrap();
        let outcome = run(
            &model,
            &windows(&tokens, 32, 4),
            &Options::default(),
            &mut |_| ControlFlow::Continue(()),
        );
        let Outcome::Complete(ours) = outcome.unwrap() else {
            panic!("nothing asked it to stop");
        };
        assert_eq!(
            (ours.tokens, ours.windows, ours.window),
            (theirs.tokens, theirs.windows, theirs.window)
        );
        let ratio = theirs.loss / ours.loss;
        assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
        for (name, ours) in &ours.weights {
            assert_close(name, ours, &theirs.weights[name]);
        }
        for (site, (ours, theirs)) in config
            .all_sites()
            .zip(ours.activations.iter().zip(&theirs.activations))
        {
            assert_close(&site_name(site), ours, theirs);
        }
    }
}
