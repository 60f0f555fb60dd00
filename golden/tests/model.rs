//! The language-model engine on the shipped model.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use golden::eval::{Evaluation, Options, perplexity, weight_fp8_share_by_layer};
use golden::matmul::matmul;
use golden::model::{
    Calibration, CalibrationWindows, Capture, Compensation, Config, ConfigHints, GlobalPolicy,
    Input, KvCache, LanguageModel, Matrix, Model, ModelError, QuantizedModel, Site, Tally, forward,
};
use golden::packed::PackedFile;
use golden::quantizer::{Policy, WeightOptions};
use golden::tensors::{RawTensor, TensorFile, read_tokens};
use golden::{Scheme, Selection, Share};
use half::bf16;
use serde_json::json;

fn models(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::open(&models("shared-4x3.safetensors"), ConfigHints::default()).unwrap()
});
static VALID: LazyLock<Vec<u32>> = LazyLock::new(|| read_tokens(&models("valid.u16")).unwrap());
static CALIBRATION: LazyLock<Calibration> = LazyLock::new(|| {
    let tokens = read_tokens(&models("calibration.u16")).unwrap();
    calibrate(&MODEL, &tokens, 512, 2, None).unwrap()
});

fn calibrate(
    model: &Model,
    tokens: &[u32],
    window: usize,
    windows: usize,
    sensitivity: Option<&[Vec<f32>]>,
) -> Result<Calibration, ModelError> {
    let windows = CalibrationWindows::new(window, windows);
    Calibration::run(model, tokens, windows, sensitivity, &|_, _| ())
}

fn quantized(scheme: Scheme) -> QuantizedModel {
    QuantizedModel::new(&MODEL, WeightOptions::new(scheme), None, &CALIBRATION).unwrap()
}

fn fgmp() -> Scheme {
    Scheme::Fgmp {
        fp8_share: Share::FGMP,
    }
}

fn slice(model: &dyn LanguageModel, windows: usize) -> Evaluation {
    let options = Options {
        windows: Some(windows),
        ..Options::new(model.trunk().config())
    };
    perplexity(model, &VALID, options, &|_, _| ()).unwrap()
}

#[test]
fn the_configuration_comes_from_shapes_and_metadata() {
    let expected = Config {
        hidden: 256,
        layers: 4,
        repetitions: 3,
        heads: 4,
        kv_heads: 4,
        head_width: 64,
        ffn: 704,
        vocabulary: 4096,
        context: 512,
        rope_base: 10000.0,
        rms_eps: 1e-5,
    };
    assert_eq!(*MODEL.config(), expected);
    assert_eq!(MODEL.parameters(), 4_262_144);
}

/// The three figures are of an FP64 implementation in another language, written for this comparison.
#[test]
fn full_precision_has_the_reference_perplexity_at_every_exit() {
    let options = Options {
        windows: Some(2),
        exits: true,
        ..Options::new(MODEL.config())
    };
    let progress = Mutex::new(Vec::new());
    let evaluation = perplexity(&*MODEL, &VALID, options, &|done, all| {
        progress.lock().unwrap().push((done, all))
    })
    .unwrap();
    assert_eq!(evaluation.tokens, 1024);
    for (perplexity, reference) in
        evaluation
            .perplexity_by_exit
            .iter()
            .zip([20.79315376, 18.56805573, 18.86761662])
    {
        assert!(
            (perplexity / reference - 1.0).abs() < 2e-6,
            "{perplexity} {reference}"
        );
    }
    assert_eq!(evaluation.perplexity, evaluation.perplexity_by_exit[2]);
    assert_eq!(evaluation.activation_fp8_share, 0.0);
    let mut progress = progress.into_inner().unwrap();
    progress.sort_unstable();
    assert_eq!(progress, [(1, 2), (2, 2)]);
}

#[test]
fn schemes_keep_their_order_and_their_shares() {
    let full = slice(&*MODEL, 2).perplexity;
    let [fp8, mixed, fp4] = [Scheme::Fp8, fgmp(), Scheme::Nvfp4].map(|scheme| {
        let model = quantized(scheme);
        let evaluation = slice(&model, 2);
        let (weights, activations) = (model.weight_fp8_share(), evaluation.activation_fp8_share);
        match scheme {
            Scheme::Fp8 => assert_eq!((weights, activations), (1.0, 1.0)),
            Scheme::Nvfp4 => assert_eq!((weights, activations), (0.0, 0.0)),
            _ => {
                assert!(weights <= 0.3 && weights > 0.2999, "{weights}");
                assert!((activations - 0.3).abs() < 0.03, "{activations}");
                assert_eq!(weight_fp8_share_by_layer(&model).len(), 4);
                assert_eq!(evaluation.activation_fp8_share_by_layer.len(), 12);
            }
        }
        // 16 elements a block: four inputs of each layer in each repetition, every token.
        let blocks: u64 = evaluation.tally.blocks.iter().sum();
        assert_eq!(blocks, 2 * 512 * 12 * (3 * 256 + 704) / 16);
        evaluation.perplexity
    });
    assert!(
        full < fp8 && fp8 < mixed && mixed < fp4,
        "{full} {fp8} {mixed} {fp4}"
    );
    assert!(
        fp8 / full < 1.02 && fp4 / full < 1.2 && fp4 / full > 1.05,
        "{full} {fp8} {mixed} {fp4}"
    );
}

#[test]
fn threads_do_not_change_the_result() {
    let model = quantized(fgmp());
    let on = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| slice(&model, 2))
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn decoding_step_by_step_gives_the_window() {
    let tokens: Vec<u32> = VALID[..96].to_vec();
    let models: [&dyn LanguageModel; 2] = [&*MODEL, &quantized(Scheme::Fp8)];
    for model in models {
        let mut tally = Tally::new(model.trunk().config());
        let mut run = |tokens: &[u32], cache: &mut KvCache| {
            forward(model, tokens, cache, &mut tally, |_, _| ()).unwrap()
        };
        let whole = run(&tokens, &mut KvCache::new());
        let mut cache = KvCache::new();
        let mut steps = run(&tokens[..40], &mut cache);
        for token in &tokens[40..] {
            steps.extend(run(&[*token], &mut cache));
        }
        assert_eq!(cache.len(), 96);
        let worst = whole
            .iter()
            .zip(&steps)
            .map(|(a, b)| (a - b).abs())
            .fold(0f32, f32::max);
        let largest = whole.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        assert!(worst <= 1e-4 * largest, "{worst} of {largest}");

        // What is truncated is forgotten: the same token again gives the same row.
        cache.truncate(95);
        let again = run(&tokens[95..], &mut cache);
        let row = &steps[95 * 256..];
        assert_eq!(again, row);
    }
}

/// Real activations of a real layer: the engine's FP64 path, block by block through the definition.
#[test]
fn linear_layers_give_the_bits_of_the_definition() {
    let model = quantized(fgmp());
    let tokens: Vec<u32> = VALID[..24].to_vec();
    let mut modes = BTreeSet::new();
    for (input, repetition, layer) in [
        (Input::Attention, 0, 0),
        (Input::AttentionOutput, 1, 2),
        (Input::Mlp, 2, 1),
        (Input::MlpDown, 2, 3),
    ] {
        let site = Site {
            repetition,
            layer,
            input,
        };
        let seen = Mutex::new(Vec::new());
        let capture = Capture::new(&model, |at, x: &[f32]| {
            if at == site {
                seen.lock().unwrap().extend_from_slice(x);
            }
        });
        let mut tally = Tally::new(model.config());
        forward(
            &capture,
            &tokens,
            &mut KvCache::new(),
            &mut tally,
            |_, _| (),
        )
        .unwrap();
        let x = seen.into_inner().unwrap();
        let packed = model.quantize_input(site, &x).unwrap();
        modes.extend(packed.blocks().map(|block| (input, block.is_fp8())));
        assert_eq!(
            packed.fp8_blocks() as u64,
            tally.fp8_blocks[site.index(model.config())]
        );
        let outputs = model.project(site, &x, &mut tally);
        for (&matrix, output) in input.matrices().iter().zip(outputs) {
            let product = matmul(model.packed(layer, matrix).unwrap(), &packed).unwrap();
            let expected = product.requantized(model.output_scale(site, matrix).unwrap());
            assert_eq!(
                output,
                expected.into_iter().map(bf16::to_f32).collect::<Vec<_>>(),
                "{matrix:?}"
            );
        }
    }
    assert!(
        modes.len() >= 6,
        "most inputs hold blocks of both formats: {modes:?}"
    );
}

#[test]
fn packed_models_are_read_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let model = quantized(fgmp());
    model.to_packed_file().save(&file).unwrap();
    let read = QuantizedModel::open(&file).unwrap();
    assert_eq!(read.to_packed_file(), model.to_packed_file());
    assert_eq!(slice(&read, 1), slice(&model, 1));
    // 5.6125 bits for the matrices' elements.
    let bits: f64 = read
        .packed_tensors()
        .map(|(_, t)| t.bits_per_element() * (t.rows() * t.k()) as f64)
        .sum();
    let elements: usize = read.packed_tensors().map(|(_, t)| t.rows() * t.k()).sum();
    assert!((bits / elements as f64 - 5.6125).abs() < 1e-3);

    let mut without = model.to_packed_file();
    without.packed.remove("model.layers.2.mlp.up_proj.weight");
    without.save(&file).unwrap();
    assert!(
        QuantizedModel::open(&file)
            .unwrap_err()
            .to_string()
            .contains("model.layers.2.mlp.up_proj.weight is missing")
    );
    let mut without = model.to_packed_file();
    without.model.clear();
    without.save(&file).unwrap();
    assert!(
        QuantizedModel::open(&file)
            .unwrap_err()
            .to_string()
            .contains("holds no model")
    );
    let mut short = model.to_packed_file();
    short.model["activations"].as_array_mut().unwrap().pop();
    short.save(&file).unwrap();
    assert!(
        QuantizedModel::open(&file)
            .unwrap_err()
            .to_string()
            .contains("activation parameters")
    );
    // A packed file is no full-precision model, and the other way round.
    assert!(Model::open(&file, ConfigHints::default()).is_err());
    assert!(QuantizedModel::open(&models("shared-4x3.safetensors")).is_err());
}

/// A model of one small layer whose widths are no multiples of 16, with grouped heads.
fn tiny(hints: serde_json::Value) -> TensorFile {
    let mut file = TensorFile::new("tiny.safetensors");
    let mut state = 1u32;
    let mut add = |name: String, shape: Vec<usize>| {
        let data: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect();
        file.tensors.insert(name, RawTensor::from_f32(shape, &data));
    };
    add("model.embed_tokens.weight".into(), vec![11, 20]);
    add("model.norm.weight".into(), vec![20]);
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        add(format!("model.layers.0.{norm}.weight"), vec![20]);
    }
    for (matrix, shape) in Matrix::ALL.into_iter().zip([
        [24, 20],
        [12, 20],
        [12, 20],
        [20, 24],
        [30, 20],
        [30, 20],
        [20, 30],
    ]) {
        add(matrix.tensor_name(0), shape.into());
    }
    file.metadata = Some(json!({ "config": hints }));
    file
}

#[test]
fn widths_need_not_be_whole_blocks_and_heads_may_be_grouped() {
    let model = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    assert_eq!(
        (
            model.config().heads,
            model.config().kv_heads,
            model.config().head_width
        ),
        (4, 2, 6)
    );
    let stream: Vec<u32> = (0..41).map(|i| i * 7 % 11).collect();
    let calibration = calibrate(&model, &stream, 10, 4, None).unwrap();
    let options = Options {
        window: 10,
        windows: None,
        exits: false,
    };
    let full = perplexity(&model, &stream, options, &|_, _| ()).unwrap();
    for scheme in [Scheme::Fp8, fgmp()] {
        let quantized =
            QuantizedModel::new(&model, WeightOptions::new(scheme), None, &calibration).unwrap();
        let evaluation = perplexity(&quantized, &stream, options, &|_, _| ()).unwrap();
        assert!((evaluation.perplexity / full.perplexity - 1.0).abs() < 0.1);
        let bytes = quantized
            .to_packed_file()
            .to_tensors(Path::new("t"))
            .unwrap()
            .to_bytes()
            .unwrap();
        let file =
            PackedFile::from_tensors(TensorFile::parse(Path::new("t"), &bytes).unwrap()).unwrap();
        let read =
            QuantizedModel::from_packed_file(Path::new("t"), file, ConfigHints::default()).unwrap();
        assert_eq!(
            perplexity(&read, &stream, options, &|_, _| ()).unwrap(),
            evaluation
        );
    }
}

#[test]
fn sensitivities_steer_the_choice() {
    let model = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    let stream: Vec<u32> = (0..41).map(|i| i * 7 % 11).collect();
    let calibrated =
        |sensitivity: Option<&[Vec<f32>]>| calibrate(&model, &stream, 10, 4, sensitivity).unwrap();
    // All the weight on the last site: no other block reaches the threshold.
    let sensitivity: Vec<Vec<f32>> = model
        .config()
        .all_sites()
        .map(|site| {
            vec![
                if site.input == Input::MlpDown {
                    1e6
                } else {
                    1e-6
                };
                model.config().input_width(site.input)
            ]
        })
        .collect();
    let calibration = calibrated(Some(&sensitivity));
    let only: BTreeMap<String, Vec<f32>> = Matrix::ALL
        .into_iter()
        .map(|m| {
            let [rows, k] = model.config().matrix_shape(m);
            (
                m.tensor_name(0),
                vec![if m == Matrix::Up { 1.0 } else { 0.0 }; rows * k],
            )
        })
        .collect();
    let share = Scheme::Fgmp {
        fp8_share: Share::new(0.1).unwrap(),
    };
    let quantized =
        QuantizedModel::new(&model, WeightOptions::new(share), Some(&only), &calibration).unwrap();
    let options = Options {
        window: 10,
        windows: None,
        exits: false,
    };
    let tally = perplexity(&quantized, &stream, options, &|_, _| ())
        .unwrap()
        .tally;
    assert!(tally.fp8_blocks[3] > 0);
    assert_eq!(tally.fp8_blocks[..3], [0, 0, 0]);
    for (name, tensor) in quantized.packed_tensors() {
        assert_eq!(tensor.fp8_blocks() > 0, name.contains("up_proj"), "{name}");
    }
    assert!(calibrate(&model, &stream, 10, 4, Some(&sensitivity[1..])).is_err());
}

#[test]
fn activations_have_a_threshold_for_each_input_or_random_positions() {
    let model = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    let stream: Vec<u32> = (0..401).map(|i| i * 7 % 11).collect();
    let calibration = calibrate(&model, &stream, 10, 40, None).unwrap();
    let shares = |selection| -> Vec<f64> {
        let options = WeightOptions {
            selection,
            ..WeightOptions::new(fgmp())
        };
        let quantized = QuantizedModel::new(&model, options, None, &calibration).unwrap();
        let options = Options {
            window: 10,
            windows: None,
            exits: false,
        };
        let tally = perplexity(&quantized, &stream, options, &|_, _| ())
            .unwrap()
            .tally;
        tally
            .blocks
            .iter()
            .zip(&tally.fp8_blocks)
            .map(|(&all, &fp8)| fp8 as f64 / all as f64)
            .collect()
    };
    let spread = |shares: &[f64]| {
        shares.iter().copied().fold(0.0, f64::max) - shares.iter().copied().fold(1.0, f64::min)
    };
    let (global, per_layer) = (shares(Selection::Global), shares(Selection::PerLayer));
    // The quantized model's own activations differ a little from those that were calibrated on.
    assert!(spread(&per_layer) < 0.2, "{per_layer:?}");
    assert!(spread(&global) > 0.5, "{global:?}");
    // The first block of each input at least, a position of its own for each seed.
    let seeds = 40;
    let mean = (0..seeds)
        .flat_map(|seed| shares(Selection::Random(seed)))
        .sum::<f64>()
        / (seeds as usize * calibration.scales().len()) as f64;
    assert!((0.2..0.4).contains(&mean), "{mean}");
}

#[test]
fn a_share_of_the_pairs_counts_a_block_as_often_as_it_is_used() {
    let model = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    let config = *model.config();
    let stream: Vec<u32> = (0..401).map(|i| i * 7 % 11).collect();
    let calibration = calibrate(&model, &stream, 10, 40, None).unwrap();
    // Of the calibration's own blocks, so that the share is exact but for one block.
    let share = |selection, weighted: bool| {
        let policy = GlobalPolicy::Share(Share::FGMP, selection);
        let quantizers = calibration.quantizers(policy).unwrap();
        let (mut above, mut all) = (0, 0);
        for ((site, quantizer), scores) in config
            .all_sites()
            .zip(&quantizers)
            .zip(calibration.scores())
        {
            let rows: usize = site
                .input
                .matrices()
                .iter()
                .map(|&matrix| config.matrix_shape(matrix)[0])
                .sum();
            let uses = if weighted { rows } else { 1 };
            let (scale, factor) = (quantizer.scale(), quantizer.sensitivity().factor);
            let threshold = quantizer.policy().threshold();
            let in_unit = |score| Policy::of_original_units(score, scale, factor).threshold();
            let fp8 = |&&score: &&f64| in_unit(score) > threshold;
            above += uses * scores.iter().filter(fp8).count();
            all += uses * scores.len();
        }
        above as f64 / all as f64
    };
    let close = |share: f64| (share - 0.3).abs() < 0.02;
    assert!(close(share(Selection::Global, false)));
    assert!(close(share(Selection::Pairs, true)));
    // The two differ, or this would show nothing.
    assert!(!close(share(Selection::Global, true)));
    assert!(!close(share(Selection::Pairs, false)));
}

#[test]
fn bad_models_and_bad_tokens_are_refused() {
    let refused = |file: TensorFile, what: &str| {
        let error = Model::from_tensors(file, ConfigHints::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(what), "expected {what:?} in {error:?}");
    };
    refused(tiny(json!({})), "query rows and heads");
    refused(tiny(json!({ "heads": 0 })), "query rows and heads");
    refused(tiny(json!({ "heads": 5 })), "not a multiple");
    refused(tiny(json!({ "heads": 8 })), "even for the rotary embedding");
    refused(
        tiny(json!({ "heads": 4, "kv_heads": 3 })),
        "heads and key/value heads",
    );
    refused(tiny(json!({ "heads": 4, "repetitions": 0 })), "at least 1");
    refused(
        tiny(json!({ "heads": 4, "repetitions": 1u64 << 62 })),
        "too many repetitions",
    );
    refused(tiny(json!({ "heads": 4, "depth": 3 })), "unknown field");
    for (name, shape) in [
        ("model.norm.weight", vec![21]),
        ("model.layers.0.mlp.up_proj.weight", vec![30, 21]),
    ] {
        let mut file = tiny(json!({ "heads": 4 }));
        let elements = shape.iter().product();
        file.tensors.insert(
            name.into(),
            RawTensor::from_f32(shape, &vec![0.0; elements]),
        );
        refused(file, name);
    }
    let mut file = tiny(json!({ "heads": 4 }));
    file.tensors.remove("model.layers.0.mlp.down_proj.weight");
    refused(file, "model.layers.0.mlp.down_proj.weight is missing");

    let model = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    let options = Options {
        window: 4,
        windows: None,
        exits: false,
    };
    let evaluate =
        |tokens: &[u32]| perplexity(&model, tokens, options, &|_, _| ()).map(|e| e.tokens);
    assert!(
        evaluate(&[1, 2, 3, 11, 0])
            .unwrap_err()
            .to_string()
            .contains("token 11 at position")
    );
    assert!(
        evaluate(&[1, 2, 3, 0, 11])
            .unwrap_err()
            .to_string()
            .contains("token 11"),
        "as a target too"
    );
    assert!(
        evaluate(&[1, 2, 3, 4]).is_err(),
        "no token behind the window"
    );
    assert_eq!(evaluate(&[1, 2, 3, 4, 5]).unwrap(), 4);
    assert!(calibrate(&model, &[1, 2, 3], 4, 1, None).is_err());

    let mut file = tiny(json!({ "heads": 4 }));
    let mut data = vec![0.5; 24 * 20];
    data[7] = f32::NAN;
    file.tensors.insert(
        Matrix::Query.tensor_name(0),
        RawTensor::from_f32(vec![24, 20], &data),
    );
    let broken = Model::from_tensors(file, ConfigHints::default()).unwrap();
    let calibration = calibrate(&model, &[1; 8], 4, 1, None).unwrap();
    let error = QuantizedModel::new(&broken, WeightOptions::new(Scheme::Fp8), None, &calibration)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model.layers.0.self_attn.q_proj.weight: element 7"),
        "{error}"
    );
    let error = calibrate(&broken, &[1; 8], 4, 1, None).unwrap_err();
    assert!(error.to_string().contains("activations"), "{error}");
}

/// Everything but codes and scales of FP4 blocks.
fn formats(model: &QuantizedModel) -> Vec<(String, Vec<u8>, f32)> {
    model
        .packed_tensors()
        .map(|(name, tensor)| (name, tensor.tags().to_vec(), tensor.scale().get()))
        .collect()
}

#[test]
fn compensation_lowers_perplexity_and_keeps_formats() {
    let base = Model::open(&models("base-4.safetensors"), ConfigHints::default()).unwrap();
    let tokens = read_tokens(&models("calibration.u16")).unwrap();
    let windows: Vec<&[u32]> = tokens.chunks_exact(512).take(6).collect();
    let calibration = calibrate(&base, &tokens, 512, 4, None).unwrap();
    let options = WeightOptions {
        clip: true,
        ..WeightOptions::new(fgmp())
    };
    let rounded = QuantizedModel::new(&base, options, None, &calibration).unwrap();
    let perplexity_of = |model: &QuantizedModel| {
        let options = Options {
            windows: Some(4),
            ..Options::new(model.config())
        };
        perplexity(model, &VALID, options, &|_, _| ())
            .unwrap()
            .perplexity
    };
    let before = perplexity_of(&rounded);
    for pull in [0.0, 0.5] {
        let mut compensated = rounded.clone();
        let compensation = Compensation {
            pull,
            ..Compensation::default()
        };
        let mut steps = Vec::new();
        compensated
            .compensate(&base, &windows, compensation, None, &mut |done, all| {
                steps.push((done, all));
            })
            .unwrap();
        assert_eq!(steps.last(), Some(&(16, 16)));
        assert_eq!(formats(&compensated), formats(&rounded));
        let after = perplexity_of(&compensated);
        assert!(after < before, "pull {pull}: {before} became {after}");
    }
}

#[test]
fn compensation_of_repeated_layers_keeps_formats() {
    let rounded = quantized(fgmp());
    let tokens = read_tokens(&models("calibration.u16")).unwrap();
    let windows = [&tokens[..64], &tokens[64..128]];
    let mut compensated = rounded.clone();
    let compensation = Compensation {
        clip: false,
        ..Compensation::default()
    };
    compensated
        .compensate(&MODEL, &windows, compensation, None, &mut |_, _| ())
        .unwrap();
    assert_eq!(formats(&compensated), formats(&rounded));
    let codes = |model: &QuantizedModel| -> Vec<u64> {
        model
            .packed_tensors()
            .flat_map(|(_, tensor)| tensor.payload().to_vec())
            .collect()
    };
    assert_ne!(codes(&compensated), codes(&rounded));

    let none = compensated.compensate(&MODEL, &[], compensation, None, &mut |_, _| ());
    assert!(none.is_err());
    let uneven = [&tokens[..64], &tokens[64..100]];
    let uneven = compensated.compensate(&MODEL, &uneven, compensation, None, &mut |_, _| ());
    assert!(uneven.is_err());
    let other = Model::from_tensors(tiny(json!({ "heads": 4 })), ConfigHints::default()).unwrap();
    let other = compensated.compensate(&other, &windows, compensation, None, &mut |_, _| ());
    assert!(other.is_err());
}
