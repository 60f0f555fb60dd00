//! The file of Fisher information: what is written comes back, what doesn't fit a model is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::path::Path;

use golden::fisher::{FisherError, FisherInformation, site_name};
use golden::model::{Config, Matrix};
use golden::tensors::{RawTensor, TensorFile};
use proptest::prelude::*;
use serde_json::json;

const CONFIG: Config = Config {
    hidden: 8,
    layers: 2,
    repetitions: 3,
    heads: 4,
    kv_heads: 2,
    head_width: 4,
    ffn: 12,
    vocabulary: 10,
    context: 16,
    rope_base: 10000.0,
    rms_eps: 1e-5,
};

fn information() -> FisherInformation {
    let mut next = 0u16;
    let mut values = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| {
                next += 1;
                f32::from(next) * 1e-9
            })
            .collect()
    };
    FisherInformation {
        weights: (0..CONFIG.layers)
            .flat_map(|layer| Matrix::ALL.map(|matrix| (layer, matrix)))
            .map(|(layer, matrix)| {
                let [rows, columns] = CONFIG.matrix_shape(matrix);
                (matrix.tensor_name(layer), values(rows * columns))
            })
            .collect(),
        activations: CONFIG
            .all_sites()
            .map(|site| values(CONFIG.input_width(site.input)))
            .collect(),
        tokens: 24,
        windows: 3,
        window: 8,
        loss: 2.5,
    }
}

fn file() -> TensorFile {
    information()
        .to_file(Path::new("fisher.safetensors"), &CONFIG)
        .unwrap()
}

#[test]
fn what_is_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fisher.safetensors");
    information().save(&path, &CONFIG).unwrap();
    assert_eq!(
        FisherInformation::open(&path, &CONFIG).unwrap(),
        information()
    );
}

#[test]
fn sites_are_named_as_their_inputs() {
    for site in CONFIG.all_sites() {
        let input = serde_json::to_value(site.input).unwrap();
        let expected = format!(
            "activations.{}.{}.{}",
            site.repetition,
            site.layer,
            input.as_str().unwrap()
        );
        assert_eq!(site_name(site), expected);
        assert!(file().tensors.contains_key(&expected));
    }
}

#[test]
fn values_that_no_mean_of_squares_has_are_refused() {
    for bad in [-1e-30, f32::NAN, f32::INFINITY] {
        let mut wrong = information();
        wrong.activations[5][3] = bad;
        match wrong.check(&CONFIG) {
            Err(FisherError::Value { tensor, index, .. }) => {
                assert_eq!(
                    (tensor.as_str(), index),
                    ("activations.0.1.attention-output", 3)
                );
            }
            other => panic!("{other:?}"),
        }
        let mut wrong = information();
        let name = Matrix::Down.tensor_name(1);
        wrong.weights.get_mut(&name).unwrap()[95] = bad;
        assert!(
            matches!(wrong.check(&CONFIG), Err(FisherError::Value { tensor, index: 95, .. }) if tensor == name)
        );
    }
    for loss in [-0.1, f64::NAN, f64::INFINITY] {
        let wrong = FisherInformation {
            loss,
            ..information()
        };
        assert!(matches!(wrong.check(&CONFIG), Err(FisherError::Summary(_))));
    }
    for (windows, window, tokens) in [(0, 8, 0), (3, 8, 25), (usize::MAX, 2, usize::MAX - 1)] {
        let wrong = FisherInformation {
            windows,
            window,
            tokens,
            ..information()
        };
        assert!(matches!(wrong.check(&CONFIG), Err(FisherError::Summary(_))));
    }
}

#[test]
fn another_models_information_is_refused() {
    let others = [
        Config {
            layers: 1,
            ..CONFIG
        },
        Config {
            layers: 3,
            ..CONFIG
        },
        Config {
            repetitions: 2,
            ..CONFIG
        },
        Config { ffn: 16, ..CONFIG },
        // As many elements in another shape.
        Config {
            hidden: 16,
            head_width: 2,
            ffn: 6,
            ..CONFIG
        },
    ];
    for other in others {
        assert!(information().check(&other).is_err(), "{other:?}");
        assert!(
            FisherInformation::from_file(file(), &other).is_err(),
            "{other:?}"
        );
    }
}

#[test]
fn messages_name_file_tensor_and_difference() {
    let refused = |change: &dyn Fn(&mut TensorFile)| {
        let mut file = file();
        change(&mut file);
        FisherInformation::from_file(file, &CONFIG)
            .unwrap_err()
            .to_string()
    };
    let name = Matrix::Query.tensor_name(1);
    assert_eq!(
        refused(&|file| drop(file.tensors.remove(&name))),
        format!("fisher.safetensors: tensor {name} is missing")
    );
    assert_eq!(
        refused(&|file| {
            let raw = RawTensor::from_f32(vec![8, 16], &[0.0; 128]);
            file.tensors.insert(name.clone(), raw);
        }),
        format!(
            "fisher.safetensors: tensor {name}: expected F32 of shape [16, 8], found F32 of shape [8, 16]"
        )
    );
    assert_eq!(
        refused(&|file| {
            let raw = RawTensor::from_f32(vec![1], &[0.0]);
            file.tensors.insert("lm_head.weight".into(), raw);
        }),
        "Fisher information has lm_head.weight, which the model doesn't have"
    );
    assert_eq!(
        refused(&|file| file.metadata = None),
        "fisher.safetensors: metadata `fgmp`: `fisher` is missing: this is no Fisher file"
    );
    assert_eq!(
        refused(&|file| file.metadata = Some(json!({ "fisher": { "version": 2 } }))),
        "fisher.safetensors: metadata `fgmp`: fisher: expected version 1, found 2"
    );
    assert_eq!(
        refused(&|file| {
            file.metadata = Some(json!({ "fisher": {
                "version": 1, "tokens": 24, "windows": -3, "window": 8, "loss": 2.5,
            } }));
        }),
        "fisher.safetensors: metadata `fgmp`: fisher: invalid value: integer `-3`, expected usize"
    );
}

proptest! {
    /// Whatever bytes a file has, it is taken or refused.
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), end in any::<prop::sample::Index>()) {
        let mut bytes = file().to_bytes().unwrap();
        // Most faults are in the header.
        for (index, value) in changes {
            let position = index.index(4096.min(bytes.len()));
            bytes[position] = value;
        }
        if end.index(4) == 0 {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(file) = TensorFile::parse(Path::new("changed"), &bytes)
            && let Ok(information) = FisherInformation::from_file(file, &CONFIG)
        {
            prop_assert!(information.check(&CONFIG).is_ok());
        }
    }
}
