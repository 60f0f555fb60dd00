//! Weights quantized as a stream are those quantized in memory, however often the run is interrupted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use checkpoints::Checkpoint;
use checkpoints::streaming::{Job, StreamError, quantize};
use golden::packed::{PackedFile, Profile};
use golden::quantizer::{WeightOptions, WeightTensor, quantize_weights};
use golden::tensors::{RawTensor, TensorFile};
use golden::{Scheme, Selection, Share};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SHAPES: [(&str, &[usize]); 5] = [
    ("a", &[7, 33]),
    ("b", &[130, 64]),
    ("c", &[3, 5, 16]),
    ("d", &[1, 1]),
    ("zero", &[4, 20]),
];

fn values(rng: &mut ChaCha8Rng, name: &str, count: usize) -> Vec<f32> {
    let size = if name == "b" { 100.0 } else { 1.0 };
    (0..count)
        .map(|_| {
            let x: f32 = rng.random_range(-1.0..1.0);
            // What BF16 holds, so that its file holds the same.
            bf16::from_f32(x * x * x * size).to_f32()
        })
        .map(|x| if name == "zero" { 0.0 } else { x })
        .collect()
}

struct Files {
    folder: tempfile::TempDir,
    data: BTreeMap<&'static str, Vec<f32>>,
    sensitivity: BTreeMap<&'static str, Vec<f32>>,
}

impl Files {
    fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let folder = tempfile::tempdir().unwrap();
        let (mut data, mut sensitivity) = (BTreeMap::new(), BTreeMap::new());
        let mut weights = TensorFile::new("weights");
        let mut gradients = TensorFile::new("gradients");
        for (name, shape) in SHAPES {
            let count = shape.iter().product();
            let x = values(&mut rng, name, count);
            let raw = if name == "b" {
                let x: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
                RawTensor::from_bf16(shape.to_vec(), &x)
            } else {
                RawTensor::from_f32(shape.to_vec(), &x)
            };
            weights.tensors.insert(name.into(), raw);
            data.insert(name, x);
            if name != "a" {
                let f: Vec<f32> = (0..count)
                    .map(|_| rng.random_range(0f32..1.0).powi(8))
                    .collect();
                gradients
                    .tensors
                    .insert(name.into(), RawTensor::from_f32(shape.to_vec(), &f));
                sensitivity.insert(name, f);
            }
        }
        weights.tensors.insert(
            "norm".into(),
            RawTensor::from_f32(vec![3], &[1.0, 2.0, 3.0]),
        );
        let files = Self {
            folder,
            data,
            sensitivity,
        };
        weights.save(&files.path("weights.safetensors")).unwrap();
        gradients.save(&files.path("fisher.safetensors")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The packed file that the in-memory quantizer makes.
    fn expected(&self, options: WeightOptions, weighted: bool) -> Vec<u8> {
        let tensors: Vec<WeightTensor<'_>> = SHAPES
            .iter()
            .map(|(name, shape)| WeightTensor {
                name,
                shape,
                data: &self.data[name],
                sensitivity: self
                    .sensitivity
                    .get(name)
                    .filter(|_| weighted)
                    .map(Vec::as_slice),
            })
            .collect();
        let quantized = quantize_weights(&tensors, options).unwrap();
        let norm = TensorFile::open(&self.path("weights.safetensors"))
            .unwrap()
            .tensors["norm"]
            .clone();
        PackedFile {
            packed: SHAPES
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .zip(quantized.tensors)
                .collect(),
            plain: [("norm".to_owned(), norm)].into(),
            model: serde_json::Map::new(),
        }
        .to_tensors(Path::new("expected"))
        .unwrap()
        .to_bytes()
        .unwrap()
    }
}

fn fgmp(share: f64) -> Scheme {
    Scheme::Fgmp {
        fp8_share: Share::new(share).unwrap(),
    }
}

#[test]
fn the_stream_is_the_file_made_in_memory() {
    let files = Files::new();
    let checkpoint = Checkpoint::open(&files.path("weights.safetensors")).unwrap();
    let fisher = Checkpoint::open(&files.path("fisher.safetensors")).unwrap();
    let output = files.path("packed.safetensors");
    let base = WeightOptions::new(fgmp(0.3));
    let mut cases = vec![
        WeightOptions::new(Scheme::Fp8),
        WeightOptions::new(Scheme::Nvfp4),
        WeightOptions {
            profile: Profile::Nvfp4,
            ..WeightOptions::new(Scheme::Nvfp4)
        },
        WeightOptions {
            profile: Profile::Torchao,
            ..WeightOptions::new(Scheme::Nvfp4)
        },
        WeightOptions {
            clip: true,
            ..WeightOptions::new(Scheme::Nvfp4)
        },
        WeightOptions {
            clip: true,
            selection: Selection::PerLayer,
            ..base
        },
        WeightOptions {
            selection: Selection::Random(9),
            ..base
        },
    ];
    for share in [0.0, 0.001, 0.1, 0.3, 0.999, 1.0] {
        for clip in [false, true] {
            cases.push(WeightOptions {
                clip,
                ..WeightOptions::new(fgmp(share))
            });
        }
    }
    for options in cases {
        for weighted in [false, true] {
            let job = Job {
                checkpoint: &checkpoint,
                sensitivity: weighted.then_some(&fisher),
                options,
                output: &output,
            };
            let tensors = quantize(job, &mut |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(
                std::fs::read(&output).unwrap(),
                files.expected(options, weighted),
                "{options:?}, weighted {weighted}"
            );
            let packed = PackedFile::open(&output).unwrap();
            for tensor in tensors {
                let found = &packed.packed[&tensor.name];
                assert_eq!(found.fp8_blocks(), tensor.fp8_blocks);
                assert!((found.bits_per_element() - tensor.bits_per_element).abs() < 1e-9);
                let errors = found.decode();
                let squares: f64 = errors
                    .iter()
                    .zip(&files.data[tensor.name.as_str()])
                    .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
                    .sum();
                assert!((squares / errors.len() as f64 - tensor.mse).abs() <= 1e-12 * tensor.mse);
            }
            assert!(!files.path("packed.safetensors.partial").exists());
        }
    }
}

#[test]
fn a_run_may_be_interrupted_at_every_step() {
    let files = Files::new();
    let checkpoint = Checkpoint::open(&files.path("weights.safetensors")).unwrap();
    let fisher = Checkpoint::open(&files.path("fisher.safetensors")).unwrap();
    let output = files.path("packed.safetensors");
    let options = WeightOptions {
        clip: true,
        ..WeightOptions::new(fgmp(0.3))
    };
    let job = Job {
        checkpoint: &checkpoint,
        sensitivity: Some(&fisher),
        options,
        output: &output,
    };
    // Two tensors a stage each time; what the last run finished is not done again.
    let mut runs = 0;
    loop {
        runs += 1;
        let mut steps = 0;
        let result = quantize(job, &mut |_| {
            steps += 1;
            if steps > 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match result {
            Ok(_) => break,
            Err(StreamError::Interrupted) => {
                assert!(!output.exists());
                assert!(files.path("packed.safetensors.partial").exists());
            }
            Err(other) => panic!("{other}"),
        }
        assert!(runs < 30, "no progress");
    }
    assert!(runs > 5, "{runs}");
    assert_eq!(
        std::fs::read(&output).unwrap(),
        files.expected(options, true)
    );
}

#[test]
fn another_job_does_not_take_what_an_interrupted_one_left() {
    let files = Files::new();
    let checkpoint = Checkpoint::open(&files.path("weights.safetensors")).unwrap();
    let output = files.path("packed.safetensors");
    let job = |options| Job {
        checkpoint: &checkpoint,
        sensitivity: None,
        options,
        output: &output,
    };
    let mut steps = 0;
    let stopped = quantize(job(WeightOptions::new(fgmp(0.5))), &mut |_| {
        steps += 1;
        if steps > 7 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(StreamError::Interrupted)));
    let options = WeightOptions::new(fgmp(0.25));
    quantize(job(options), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(
        std::fs::read(&output).unwrap(),
        files.expected(options, false)
    );

    // A folder of somebody else's is not touched.
    let foreign = files.path("packed.safetensors.partial");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "mine").unwrap();
    let error = quantize(job(options), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("remove it"), "{error}");
    assert!(foreign.join("thesis.txt").exists());
}

#[test]
fn bad_weights_and_gradients_are_named() {
    let files = Files::new();
    let refused = |tensor: RawTensor, gradient: Option<RawTensor>, expected: &str| {
        let mut weights = TensorFile::new("weights");
        weights.tensors.insert("w".into(), tensor);
        weights.save(&files.path("bad.safetensors")).unwrap();
        let fisher = gradient.map(|gradient| {
            let mut file = TensorFile::new("fisher");
            file.tensors.insert("w".into(), gradient);
            file.save(&files.path("badfisher.safetensors")).unwrap();
            Checkpoint::open(&files.path("badfisher.safetensors")).unwrap()
        });
        let checkpoint = Checkpoint::open(&files.path("bad.safetensors")).unwrap();
        let output = files.path("never.safetensors");
        let job = Job {
            checkpoint: &checkpoint,
            sensitivity: fisher.as_ref(),
            options: WeightOptions::new(fgmp(0.3)),
            output: &output,
        };
        let error = quantize(job, &mut |_| ControlFlow::Continue(()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!output.exists());
        let _ = std::fs::remove_dir_all(files.path("never.safetensors.partial"));
    };
    let matrix = |data: &[f32]| RawTensor::from_f32(vec![2, data.len() / 2], data);
    refused(
        matrix(&[1.0, 2.0, f32::NAN, 4.0]),
        None,
        "tensor w: element 2 is NaN",
    );
    refused(matrix(&[]), None, "must be at least 1");
    refused(
        RawTensor::from_f32(vec![4], &[1.0; 4]),
        None,
        "tensors of two or more dimensions, found w (F32, shape [4])",
    );
    refused(
        matrix(&[1.0; 4]),
        Some(matrix(&[1.0, 1.0, -1.0, 1.0])),
        "squared gradient -1",
    );
    refused(
        matrix(&[1.0; 4]),
        Some(matrix(&[1.0; 6])),
        "its squared gradients [2, 3]",
    );
}
