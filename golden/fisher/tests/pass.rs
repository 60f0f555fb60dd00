//! The pass against finite differences, and its state.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod random;
mod reference;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fisher::{Options, Outcome, PassError, Progress, run, windows};
use golden::eval;
use golden::fisher::FisherInformation;
use golden::model::{Config, ConfigHints, Matrix, Model};
use golden::tensors::{RawTensor, TensorFile, read_tokens};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use reference::{Nudge, Reference};

/// Two layers run twice, two query heads to a key head, widths that no power of two divides.
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

fn random_model(config: Config, tied: bool, seed: u64) -> Model {
    Model::from_tensors(
        random::random_tensors(&config, tied, 0.5, seed),
        ConfigHints::default(),
    )
    .unwrap()
}

fn random_tokens(count: usize, seed: u64) -> Vec<u32> {
    random::random_tokens(TINY.vocabulary, count, seed)
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(name)
}

fn options(parallel: usize) -> Options {
    Options {
        parallel,
        ..Options::default()
    }
}

fn complete(model: &Model, windows: &[Vec<u32>], options: &Options) -> FisherInformation {
    match run(model, windows, options, &mut |_| ControlFlow::Continue(())).unwrap() {
        Outcome::Complete(information) => information,
        other => panic!("{other:?}"),
    }
}

/// Mean over windows of the squared central difference of the loss.
fn mean_square(windows: &[Vec<u32>], step: f64, loss: impl Fn(&[u32], f64) -> f64) -> f64 {
    let squares = windows.iter().map(|window| {
        let gradient = (loss(window, step) - loss(window, -step)) / (2.0 * step);
        gradient * gradient
    });
    squares.sum::<f64>() / windows.len() as f64
}

/// The differences are good to about 10⁻⁶ of the largest gradient: step² from what they leave out, 10⁻¹⁶ / step from rounding.
const STEP: f64 = 1e-4;

/// FP32 gradients through four layers are good to some 10⁻⁵ of the tensor's largest; squaring doubles that. Small
/// values beside large ones are sums that cancel, hence the second term.
fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().copied().fold(0.0, f64::max);
    assert!(largest > 1e-9, "{what} has no gradient: the test is blind");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= 2e-4 * expected + 2e-6 * largest,
            "{what} [{index}]: {found:e}, by differences {expected:e}, largest {largest:e}"
        );
    }
}

#[test]
fn every_weight_and_channel_has_its_mean_squared_gradient() {
    for (tied, seed) in [(false, 1), (true, 2)] {
        let model = random_model(TINY, tied, seed);
        let windows = windows(&random_tokens(15, seed), 7, 2);
        assert_eq!(windows.len(), 2);
        let information = complete(&model, &windows, &options(2));
        let reference = Reference::new(&model);

        assert_eq!(information.weights.len(), 14);
        information.weights.par_iter().for_each(|(name, found)| {
            let mut changed = reference.clone();
            let expected: Vec<f64> = (0..found.len())
                .map(|index| {
                    let original = reference.tensors[name][index];
                    let loss = mean_square(&windows, STEP, {
                        let changed = std::cell::RefCell::new(&mut changed);
                        move |window, step| {
                            let mut changed = changed.borrow_mut();
                            changed.tensors.get_mut(name).unwrap()[index] = original + step;
                            changed.loss(window, None)
                        }
                    });
                    changed.tensors.get_mut(name).unwrap()[index] = original;
                    loss
                })
                .collect();
            assert_close(name, found, &expected);
        });

        let sites: Vec<_> = TINY.all_sites().zip(&information.activations).collect();
        sites.into_par_iter().for_each(|(site, found)| {
            let expected: Vec<f64> = (0..found.len())
                .map(|channel| {
                    let by_token = (0..7).map(|token| {
                        mean_square(&windows, STEP, |window, amount| {
                            let nudge = Nudge {
                                site,
                                token,
                                channel,
                                amount,
                            };
                            reference.loss(window, Some(nudge))
                        })
                    });
                    by_token.sum::<f64>() / 7.0
                })
                .collect();
            assert_close(&format!("{site:?}"), found, &expected);
        });
    }
}

#[test]
fn one_repetition_and_as_many_key_heads_as_query_heads() {
    let config = Config {
        repetitions: 1,
        kv_heads: 4,
        ..TINY
    };
    let model = random_model(config, true, 3);
    let windows = windows(&random_tokens(9, 3), 8, 1);
    let information = complete(&model, &windows, &options(1));
    let reference = Reference::new(&model);
    let name = Matrix::Key.tensor_name(1);
    let expected: Vec<f64> = (0..information.weights[&name].len())
        .map(|index| {
            mean_square(&windows, STEP, |window, step| {
                let mut changed = reference.clone();
                changed.tensors.get_mut(&name).unwrap()[index] += step;
                changed.loss(window, None)
            })
        })
        .collect();
    assert_close(&name, &information.weights[&name], &expected);
}

/// FP32 sums in another order: about 10⁻⁷ of the loss for each of them.
#[test]
fn the_loss_is_that_of_the_evaluation() {
    for tied in [false, true] {
        let model = random_model(TINY, tied, 4);
        let tokens = random_tokens(50, 4);
        let information = complete(&model, &windows(&tokens, 9, 5), &options(3));
        let evaluation = eval::perplexity(
            &model,
            &tokens,
            eval::Options {
                window: 9,
                windows: Some(5),
                exits: false,
            },
            &|_, _| (),
        )
        .unwrap();
        assert_eq!(information.tokens, evaluation.tokens);
        let ratio = information.loss / evaluation.perplexity.ln();
        assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
    }
}

/// On a trained model of 12 layers' depth: the most sensitive weight of each kind of matrix.
#[test]
fn a_trained_models_weights_have_their_mean_squared_gradient() {
    let model = Model::open(&shipped("shared-4x3.safetensors"), ConfigHints::default()).unwrap();
    let tokens = read_tokens(&shipped("calibration.u16")).unwrap();
    let windows = windows(&tokens, 24, 2);
    let information = complete(&model, &windows, &options(2));
    let reference = Reference::new(&model);
    let loss = windows
        .iter()
        .map(|window| reference.loss(window, None))
        .sum::<f64>()
        / 2.0;
    assert!((information.loss / loss - 1.0).abs() < 1e-6);
    Matrix::ALL.into_par_iter().for_each(|matrix| {
        let name = matrix.tensor_name(matrix as usize % 4);
        let found = &information.weights[&name];
        let (index, _) = found
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .unwrap();
        let mut changed = reference.clone();
        let original = changed.tensors[&name][index];
        let mut squares = 0.0;
        for window in &windows {
            let mut at = |step: f64| {
                changed.tensors.get_mut(&name).unwrap()[index] = original + step;
                changed.loss(window, None)
            };
            let gradient = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            squares += gradient * gradient / windows.len() as f64;
        }
        let ratio = f64::from(found[index]) / squares;
        // FP32 through 12 layers, and RoPE's angles rounded to FP32 in one of the two.
        assert!((ratio - 1.0).abs() < 1e-3, "{name} [{index}]: {ratio}");
    });
}

#[test]
fn windows_are_those_of_the_evaluation() {
    let tokens: Vec<u32> = (0..10).collect();
    assert_eq!(windows(&tokens, 3, 2), [[0, 1, 2, 3], [3, 4, 5, 6]]);
    assert_eq!(windows(&tokens, 3, 9).len(), 3);
    assert_eq!(windows(&tokens, 9, 9).len(), 1);
    assert!(windows(&tokens, 10, 9).is_empty());
    assert!(windows(&tokens, 0, 9).is_empty());
    assert!(windows(&[], 3, 9).is_empty());
    assert!(windows(&tokens, usize::MAX, 9).is_empty());
}

#[test]
fn windows_that_cannot_be_used_are_refused() {
    let model = random_model(TINY, true, 5);
    let refused = |windows: &[Vec<u32>]| {
        run(&model, windows, &options(1), &mut |_| {
            panic!("nothing may be run")
        })
        .unwrap_err()
        .to_string()
    };
    let short = "calibration windows: at least one window of two tokens is needed: one to read, one to predict";
    assert_eq!(refused(&[]), short);
    assert_eq!(refused(&[vec![1]]), short);
    assert_eq!(
        refused(&[vec![1, 2, 3], vec![1, 2]]),
        "calibration windows: window 1 has 2 tokens, the first has 3"
    );
    assert_eq!(
        refused(&[vec![1, 2, 3], vec![1, 23, 3]]),
        "window 1: token 23 at position 1 is outside the vocabulary of 23"
    );
}

#[test]
fn weights_of_no_working_model_are_refused() {
    let file = random::random_tensors(&TINY, true, 1e38, 6);
    let broken = Model::from_tensors(file, ConfigHints::default()).unwrap();
    let windows = windows(&random_tokens(20, 6), 6, 3);
    let error = run(&broken, &windows, &options(2), &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "window 0: the loss is not finite");
}

/// Options with a state file, saved after every step.
fn resumable(state: &Path, parallel: usize) -> Options {
    Options {
        parallel,
        state: Some(state.into()),
        save_every: Duration::ZERO,
    }
}

/// Runs until `stop` windows are done.
fn interrupted(model: &Model, windows: &[Vec<u32>], options: &Options, stop: usize) -> Progress {
    let outcome = run(model, windows, options, &mut |progress| {
        if progress.done >= stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    match outcome.unwrap() {
        Outcome::Interrupted(progress) => progress,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pass_that_goes_on_gives_the_bits_of_one_that_never_stopped() {
    let model = random_model(TINY, false, 7);
    let windows = windows(&random_tokens(60, 7), 8, 7);
    let through = complete(&model, &windows, &options(1));
    assert_eq!(complete(&model, &windows, &options(3)), through);

    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors");
    // The last run leaves the state to itself between two saves a long time apart.
    let stopped = interrupted(&model, &windows, &resumable(&state, 2), 2);
    assert_eq!((stopped.done, stopped.windows), (2, 7));
    let rarely = Options {
        save_every: Duration::from_secs(3600),
        ..resumable(&state, 1)
    };
    assert_eq!(interrupted(&model, &windows, &rarely, 5).done, 5);
    let mut seen = Vec::new();
    let outcome = run(&model, &windows, &resumable(&state, 4), &mut |progress| {
        seen.push(progress.done);
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap(), Outcome::Complete(through.clone()));
    assert_eq!(seen, [5, 7]);

    // All windows are in the state now.
    let again = run(&model, &windows, &resumable(&state, 1), &mut |progress| {
        assert_eq!(progress.done, 7);
        ControlFlow::Continue(())
    });
    assert_eq!(again.unwrap(), Outcome::Complete(through));
}

#[test]
fn more_windows_can_be_added_later() {
    let model = random_model(TINY, true, 8);
    let windows = windows(&random_tokens(60, 8), 8, 7);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors");
    complete(&model, &windows[..4], &resumable(&state, 2));
    assert_eq!(
        complete(&model, &windows, &resumable(&state, 2)),
        complete(&model, &windows, &options(2))
    );
}

#[test]
fn a_state_of_something_else_is_refused_and_left_alone() {
    let model = random_model(TINY, true, 9);
    let tokens = random_tokens(60, 9);
    let own = windows(&tokens, 8, 6);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    interrupted(&model, &own, &resumable(&path, 1), 4);
    let bytes = fs::read(&path).unwrap();
    let refused = |model: &Model, windows: &[Vec<u32>]| {
        let error = run(model, windows, &resumable(&path, 1), &mut |_| {
            panic!("nothing may be run")
        })
        .unwrap_err();
        assert!(matches!(error, PassError::State { .. }), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let message = error.to_string();
        assert!(message.starts_with(path.to_str().unwrap()), "{message}");
        message
    };
    let other = "it is of another model or of other windows";
    assert!(refused(&random_model(TINY, true, 10), &own).contains(other));
    let deeper = Config {
        repetitions: 3,
        ..TINY
    };
    assert!(refused(&random_model(deeper, true, 9), &own).contains(other));
    let mut changed = own.clone();
    changed[3][2] = (changed[3][2] + 1) % 23;
    assert!(refused(&model, &changed).contains(other));
    assert!(refused(&model, &windows(&tokens, 9, 6)).contains(other));
    assert!(refused(&model, &own[..3]).contains("it holds 4 windows, 3 are wanted"));
    // Windows that the state doesn't hold yet are free to change.
    let mut later = own.clone();
    later[5][2] = (later[5][2] + 1) % 23;
    interrupted(&model, &later, &resumable(&path, 1), 4);
}

#[test]
fn damaged_states_are_refused() {
    let model = random_model(TINY, true, 11);
    let own = windows(&random_tokens(30, 11), 8, 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    interrupted(&model, &own, &resumable(&path, 1), 2);
    let good = TensorFile::open(&path).unwrap();
    let attempt = || {
        run(&model, &own, &resumable(&path, 1), &mut |_| {
            ControlFlow::Break(())
        })
    };
    let refused = |change: &dyn Fn(&mut TensorFile)| {
        let mut file = good.clone();
        change(&mut file);
        file.save(&path).unwrap();
        attempt().unwrap_err().to_string()
    };
    let name = Matrix::Up.tensor_name(1);
    assert!(refused(&|file| file.metadata = None).contains("it is no state of a Fisher pass"));
    assert!(refused(&|file| drop(file.tensors.remove(&name))).contains("is missing"));
    assert!(
        refused(&|file| {
            let data = RawTensor::from_f32(vec![20, 28], &[0.0; 560]);
            file.tensors.insert(name.clone(), data);
        })
        .contains("expected F32 of shape [28, 20], found F32 of shape [20, 28]")
    );
    assert!(
        refused(&|file| {
            let mut values = [0.0; 560];
            values[559] = -1.0;
            let data = RawTensor::from_f32(vec![28, 20], &values);
            file.tensors.insert(name.clone(), data);
        })
        .contains("negative or not finite")
    );
    assert!(
        refused(&|file| {
            let data = RawTensor::from_f32(vec![1], &[0.0]);
            file.tensors.insert("more".into(), data);
        })
        .contains("tensor more has no place in it")
    );
    assert!(
        refused(&|file| {
            if let Some(metadata) = &mut file.metadata {
                metadata["fisher-state"]["version"] = 7.into();
            }
        })
        .contains("it was written by another version")
    );

    // Whatever single byte of the header changes, or wherever the file ends: refused or taken, never a panic.
    let bytes = good.to_bytes().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..200 {
        let mut bytes = bytes.clone();
        if random.random_ratio(1, 4) {
            bytes.truncate(random.random_range(0..bytes.len()));
        } else {
            let position = random.random_range(0..4000);
            bytes[position] ^= 1 << random.random_range(0..8);
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(outcome) = attempt() {
            assert!(matches!(outcome, Outcome::Interrupted(progress) if progress.done == 2));
        }
    }
}
