//! Distillation against finite differences, what it leaves alone, and what it is good for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod random;
mod straight;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fisher::{
    DistillationError, DistillationOptions, DistillationReport, DistillationStep, PassError,
    distill, windows,
};
use golden::model::{
    Calibration, CalibrationWindows, Config, ConfigHints, KvCache, LanguageModel, Model,
    QuantizedModel, Tally, forward,
};
use golden::packed::PackedFile;
use golden::quantizer::WeightOptions;
use golden::tensors::{RawTensor, TensorFile, read_tokens};
use golden::{Scheme, Share, eval};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use safetensors::Dtype;

/// Two layers run twice, two query heads to a key head, widths that are no whole blocks.
const TINY: Config = Config {
    hidden: 20,
    layers: 2,
    repetitions: 2,
    heads: 4,
    kv_heads: 2,
    head_width: 6,
    ffn: 28,
    vocabulary: 23,
    context: 16,
    rope_base: 100.0,
    rms_eps: 1e-5,
};

const FGMP: Scheme = Scheme::Fgmp {
    fp8_share: Share::FGMP,
};

fn tiny_tensors(tied: bool, seed: u64) -> TensorFile {
    random::random_tensors(&TINY, tied, 0.5, seed)
}

fn model(file: TensorFile) -> Model {
    Model::from_tensors(file, ConfigHints::default()).unwrap()
}

fn tokens(count: usize, seed: u64) -> Vec<u32> {
    random::random_tokens(TINY.vocabulary, count, seed)
}

fn quantize(model: &Model, scheme: Scheme, tokens: &[u32], window: usize) -> QuantizedModel {
    let windows = CalibrationWindows::new(window, 4);
    let calibration = Calibration::run(model, tokens, windows, None, &|_, _| ()).unwrap();
    QuantizedModel::new(model, WeightOptions::new(scheme), None, &calibration).unwrap()
}

/// A tiny model, quantized, and six windows of eight tokens.
fn tiny(tied: bool, seed: u64) -> (Model, QuantizedModel, Vec<Vec<u32>>) {
    let full = model(tiny_tensors(tied, seed));
    let tokens = tokens(49, seed);
    let quantized = quantize(&full, FGMP, &tokens, 8);
    let share = quantized.weight_fp8_share();
    assert!(share > 0.2 && share <= 0.3, "{share}");
    (full, quantized, windows(&tokens, 8, 6))
}

fn run(
    full: &Model,
    quantized: &mut QuantizedModel,
    windows: &[Vec<u32>],
    options: &DistillationOptions,
) -> Result<DistillationReport, DistillationError> {
    distill(full, quantized, windows, options, &mut |_| {
        ControlFlow::Continue(())
    })
}

/// The loss of a model over windows: that of a step which changes nothing.
fn loss(full: &Model, quantized: &QuantizedModel, windows: &[Vec<u32>]) -> f64 {
    let options = DistillationOptions {
        steps: 1,
        batch: windows.len(),
        learning_rate: 0.0,
        ..DistillationOptions::default()
    };
    let mut copy = quantized.clone();
    let report = run(full, &mut copy, windows, &options).unwrap();
    assert_eq!(report.largest_change, 0.0);
    assert_eq!(gains(&copy), gains(quantized));
    report.losses[0]
}

fn gains(model: &QuantizedModel) -> Vec<Vec<f64>> {
    straight::gains(model)
}

/// Adam's first step is rate · g / (|g| + ε), of which g can be had again.
#[test]
fn gains_move_by_the_straight_through_gradient() {
    const EPSILON: f64 = 0.05;
    for (tied, seed) in [(false, 1), (true, 2)] {
        let (full, quantized, windows) = tiny(tied, seed);
        let options = DistillationOptions {
            steps: 1,
            batch: windows.len(),
            learning_rate: 1.0,
            epsilon: EPSILON,
            ..DistillationOptions::default()
        };
        let mut changed = quantized.clone();
        let report = run(&full, &mut changed, &windows, &options).unwrap();
        let pair = straight::Pair::new(&full, &quantized);
        let read: Vec<&[u32]> = windows.iter().map(|w| &w[..w.len() - 1]).collect();
        let expected = pair.loss(&read);
        assert!(
            (report.losses[0] / expected - 1.0).abs() < 1e-5,
            "{} {expected}",
            report.losses[0]
        );

        let frozen = pair.frozen(&read);
        let original = gains(&quantized);
        assert!((frozen(&original) / expected - 1.0).abs() < 1e-12);
        let places: Vec<(usize, usize)> = (0..original.len())
            .flat_map(|norm| (0..TINY.hidden).map(move |channel| (norm, channel)))
            .collect();
        let differences: Vec<f64> = places
            .par_iter()
            .map(|&(norm, channel)| {
                let at = |change: f64| {
                    let mut gains = original.clone();
                    gains[norm][channel] *= 1.0 + change;
                    frozen(&gains)
                };
                // Good to step² from what the difference leaves out, 10⁻¹⁶ / step from rounding.
                (at(1e-4) - at(-1e-4)) / 2e-4
            })
            .collect();
        let changed = gains(&changed);
        for norm in 0..original.len() {
            let of_norm = |all: &[f64]| all[norm * TINY.hidden..][..TINY.hidden].to_vec();
            let differences = of_norm(&differences);
            let largest = differences.iter().fold(0f64, |most, g| most.max(g.abs()));
            assert!(largest > 1e-3, "norm {norm} has no gradient");
            for (channel, expected) in differences.iter().enumerate() {
                let change = changed[norm][channel] / original[norm][channel] - 1.0;
                let found = -EPSILON * change / (1.0 - change.abs());
                // FP32 gradients, and gains of FP32.
                assert!(
                    (found - expected).abs() <= 2e-5 * largest + 1e-6,
                    "norm {norm}, channel {channel}: {found:e}, by differences {expected:e}, largest {largest:e}"
                );
            }
        }
    }
}

/// FP32 sums may round to the BF16 beside that of the exact ones, now and then.
#[test]
fn the_loss_is_that_of_the_hardwares_arithmetic() {
    let (full, quantized, windows) = tiny(false, 3);
    let mut expected = 0.0;
    for window in &windows {
        let (_, read) = window.split_last().unwrap();
        let logits = |model: &dyn LanguageModel| {
            let mut tally = Tally::new(&TINY);
            let rows = forward(model, read, &mut KvCache::new(), &mut tally, |_, _| ()).unwrap();
            let logits = model.trunk().logits(&rows);
            logits
                .chunks_exact(TINY.vocabulary)
                .map(|row| {
                    let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                    row.iter().map(|&x| f64::from(x) - total.ln()).collect()
                })
                .collect::<Vec<Vec<f64>>>()
        };
        for (p, q) in logits(&full).iter().zip(logits(&quantized)) {
            let terms = p.iter().zip(q);
            expected += terms.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        }
    }
    expected /= (windows.len() * 8) as f64;
    let found = loss(&full, &quantized, &windows);
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
}

#[test]
fn only_the_norms_change_and_the_packed_file_has_them() {
    let mut file = tiny_tensors(true, 4);
    // As many models have it: then the tuned gains need more bits than the file's had.
    for (name, tensor) in &mut file.tensors {
        if name.contains("norm") {
            let values = tensor.to_f32().unwrap().data;
            let values: Vec<_> = values.into_iter().map(half::bf16::from_f32).collect();
            *tensor = RawTensor::from_bf16(vec![TINY.hidden], &values);
        }
    }
    let full = model(file);
    let tokens = tokens(49, 4);
    let mut quantized = quantize(&full, FGMP, &tokens, 8);
    let before = quantized.to_packed_file();
    let options = DistillationOptions {
        steps: 3,
        ..DistillationOptions::default()
    };
    let report = run(&full, &mut quantized, &windows(&tokens, 8, 6), &options).unwrap();
    assert_eq!(report.losses.len(), 3);
    let after = quantized.to_packed_file();
    assert_eq!(after.packed, before.packed);
    assert_eq!(after.model, before.model);
    let names = |file: &PackedFile| file.plain.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&after), names(&before));
    let mut largest = 0f64;
    for (name, tensor) in &after.plain {
        let original = &before.plain[name];
        if !name.contains("norm") {
            assert_eq!(tensor, original);
            continue;
        }
        assert_eq!(tensor.dtype, Dtype::F32);
        assert_eq!(tensor.shape, original.shape);
        let values = |tensor: &RawTensor| tensor.to_f32().unwrap().data;
        for (new, old) in values(tensor).into_iter().zip(values(original)) {
            assert_ne!(new, old, "{name}");
            largest = largest.max((f64::from(new) / f64::from(old) - 1.0).abs());
        }
    }
    assert!((largest - report.largest_change).abs() < 1e-6);
    // Adam's steps are no longer than the rate, nearly.
    assert!(largest < 3.0 * 2e-3, "{largest}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tuned.safetensors");
    after.save(&path).unwrap();
    let read = QuantizedModel::open(&path).unwrap();
    assert_eq!(gains(&read), gains(&quantized));
    let rows = |model: &QuantizedModel| {
        let mut tally = Tally::new(&TINY);
        let (tokens, cache) = (&tokens[..9], &mut KvCache::new());
        let rows = forward(model, tokens, cache, &mut tally, |_, _| ()).unwrap();
        (model.trunk().logits(&rows), tally)
    };
    assert_eq!(rows(&read), rows(&quantized));
    // A tuned model is still one of the full model.
    run(&full, &mut quantized, &windows(&tokens, 8, 6), &options).unwrap();
}

#[test]
fn neither_interruptions_nor_windows_at_a_time_change_a_bit() {
    let (full, quantized, windows) = tiny(false, 5);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let options = |parallel| DistillationOptions {
        steps: 5,
        parallel,
        ..DistillationOptions::default()
    };
    let mut through = quantized.clone();
    let report = run(&full, &mut through, &windows, &options(4)).unwrap();
    assert_ne!(gains(&through), gains(&quantized));

    let mut told = Vec::new();
    let mut parts = quantized.clone();
    for stop in [2, 3, 9] {
        let options = DistillationOptions {
            state: Some(path.clone()),
            ..options(stop % 3)
        };
        let result = distill(&full, &mut parts, &windows, &options, &mut |step| {
            told.push(step);
            if step.done == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match result {
            Err(DistillationError::Interrupted { done, steps: 5 }) => {
                assert_eq!(done, stop);
                assert_eq!(gains(&parts), gains(&quantized));
            }
            Ok(found) => {
                assert_eq!(stop, 9);
                assert_eq!(found, report);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gains(&parts), gains(&through));
    let expected = |done: usize| DistillationStep {
        done,
        steps: 5,
        loss: done.checked_sub(1).map(|step| report.losses[step]),
    };
    assert_eq!(told, [0, 1, 2, 2, 3, 3, 4, 5].map(expected));

    // A finished state is only read; another distillation's is refused.
    let mut again = quantized.clone();
    let with_state = |seed| DistillationOptions {
        state: Some(path.clone()),
        seed,
        ..options(2)
    };
    assert_eq!(
        run(&full, &mut again, &windows, &with_state(0)).unwrap(),
        report
    );
    assert_eq!(gains(&again), gains(&through));
    let mut other = quantized.clone();
    for (model, windows, seed) in [
        (&other, &windows[..], 1),
        (&again, &windows[..], 0),
        (&other, &windows[1..], 0),
    ] {
        match run(&full, &mut model.clone(), windows, &with_state(seed)) {
            Err(DistillationError::Pass(PassError::State { reason, .. })) => {
                assert_eq!(reason, "it is of other models, windows or options");
            }
            other => panic!("{other:?}"),
        }
    }
    TensorFile::new(&path).save(&path).unwrap();
    let refused = run(&full, &mut other, &windows, &with_state(0)).unwrap_err();
    let message = refused.to_string();
    assert!(
        message.contains("it is no state of a distillation"),
        "{message}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let (full, quantized, good) = tiny(false, 6);
    let default = DistillationOptions::default();
    let refusal =
        |full: &Model, windows: &[Vec<u32>], options: &DistillationOptions, expected: &str| {
            let mut copy = quantized.clone();
            let message = run(full, &mut copy, windows, options)
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(gains(&copy), gains(&quantized));
        };
    let once = Config {
        repetitions: 1,
        ..TINY
    };
    let other = model(random::random_tensors(&once, false, 0.5, 6));
    refusal(&other, &good, &default, "repetitions: 1");
    for (name, message) in [
        ("model.embed_tokens.weight", "their embeddings differ"),
        ("lm_head.weight", "their heads differ"),
    ] {
        let mut file = tiny_tensors(false, 6);
        let tensor = file.tensors.get_mut(name).unwrap();
        let mut values = tensor.to_f32().unwrap().data;
        values[5] += 1.0;
        *tensor = RawTensor::from_f32(tensor.shape.clone(), &values);
        refusal(&model(file), &good, &default, message);
    }
    refusal(&full, &[], &default, "at least one window");
    refusal(&full, &[vec![1, 2, 3], vec![4]], &default, "window 1 has 1");
    refusal(&full, &[vec![1, 23, 2]], &default, "token 23 at position 1");
    let zero = DistillationOptions {
        batch: 0,
        ..default.clone()
    };
    refusal(&full, &good, &zero, "at least one window");
    let rate = DistillationOptions {
        learning_rate: -1.0,
        ..default.clone()
    };
    refusal(&full, &good, &rate, "learning rate");
    let betas = DistillationOptions {
        betas: [0.9, 1.0],
        ..default.clone()
    };
    refusal(&full, &good, &betas, "betas");
    let epsilon = DistillationOptions {
        epsilon: 0.0,
        ..default.clone()
    };
    refusal(&full, &good, &epsilon, "epsilon");
    let wild = DistillationOptions {
        learning_rate: 1e300,
        ..default
    };
    refusal(&full, &good, &wild, "is not finite");
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(name)
}

/// Every gain off by up to a sixth, as far as Adam can take it back in these steps; loss and perplexity are of text that the tuning didn't see.
#[test]
fn a_trained_model_with_disturbed_gains_finds_its_way_back() {
    const WINDOW: usize = 128;
    let full = Model::open(&shipped("base-4.safetensors"), ConfigHints::default()).unwrap();
    let calibration = read_tokens(&shipped("calibration.u16")).unwrap();
    let valid = read_tokens(&shipped("valid.u16")).unwrap();
    let mut quantized = quantize(&full, FGMP, &calibration, WINDOW);
    let unseen = windows(&valid, WINDOW, 6);
    let measure = |model: &QuantizedModel| {
        let options = eval::Options {
            window: WINDOW,
            windows: Some(6),
            exits: false,
        };
        let evaluation = eval::perplexity(model, &valid, options, &|_, _| ()).unwrap();
        (loss(&full, model, &unseen), evaluation.perplexity)
    };
    let start = measure(&quantized);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut disturb = |gains: &[f32]| -> Vec<f32> {
        let factors = gains
            .iter()
            .map(|gain| gain * random.random_range(0.85..1.17));
        factors.collect()
    };
    let trunk = quantized.trunk();
    let norms = trunk.norms().iter();
    let norms = norms
        .map(|[attention, mlp]| [disturb(attention), disturb(mlp)])
        .collect();
    let last = disturb(trunk.final_norm());
    quantized.set_norms(norms, last).unwrap();
    let disturbed = measure(&quantized);
    let options = DistillationOptions {
        steps: 12,
        batch: 3,
        learning_rate: 1.5e-2,
        ..DistillationOptions::default()
    };
    let seen = windows(&calibration, WINDOW, 36);
    run(&full, &mut quantized, &seen, &options).unwrap();
    let tuned = measure(&quantized);
    let left = |of: fn((f64, f64)) -> f64| (of(tuned) - of(start)) / (of(disturbed) - of(start));
    assert!(disturbed.0 > 1.2 * start.0);
    assert!(left(|x| x.0) < 0.5, "{start:?} {disturbed:?} {tuned:?}");
    assert!(left(|x| x.1) < 0.5, "{start:?} {disturbed:?} {tuned:?}");
}
