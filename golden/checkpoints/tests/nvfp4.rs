//! NVFP4 checkpoints: what is written is read back, by this crate and by Python, and what can't be written is named.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use checkpoints::nvfp4::{Export, ExportError, Layout, fused_with_different_scales, llama_config};
use checkpoints::{Checkpoint, CheckpointError};
use golden::format::BLOCK;
use golden::model::{ConfigHints, LanguageModel, Matrix, Model};
use golden::packed::{PackedFile, PackedTensor, TensorScale};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;
use serde_json::{Value, json};
use support::{Llama, numbers, python, run_python};

/// A tensor of random codes and random valid scales, FP8 where `fp8` says so.
fn random_packed(
    seed: u64,
    shape: &[usize],
    scale: f32,
    fp8: impl Fn(usize) -> bool,
) -> PackedTensor {
    let k = *shape.last().unwrap();
    let blocks: usize = shape[..shape.len() - 1].iter().product::<usize>() * k.div_ceil(BLOCK);
    let mut noise = numbers(seed, 64 * blocks)
        .into_iter()
        .map(|x| ((x + 0.5) * 256.0) as u8);
    let mut tags = vec![0u8; blocks.div_ceil(8)];
    let (mut scales, mut payload) = (Vec::new(), Vec::new());
    for block in 0..blocks {
        // What pads a row is zero.
        let used = if block % k.div_ceil(BLOCK) == k / BLOCK {
            k % BLOCK
        } else {
            BLOCK
        };
        let element = |index: usize, code: u8| if index < used { code } else { 0 };
        if fp8(block) {
            tags[block / 8] |= 1 << (block % 8);
            // 0x7F is NaN, which doesn't equal itself.
            payload.extend((0..BLOCK).map(|i| element(i, noise.next().unwrap() & 0xbf)));
        } else {
            scales.push(noise.next().unwrap() % 0x7f);
            payload.extend((0..BLOCK / 2).map(|i| {
                let byte = noise.next().unwrap();
                element(2 * i, byte & 15) | element(2 * i + 1, byte >> 4) << 4
            }));
        }
    }
    PackedTensor::from_streams(
        shape,
        TensorScale::new(scale).unwrap(),
        tags,
        scales,
        &payload,
    )
    .unwrap()
}

/// A model whose matrices are packed and whose other tensors are not.
fn packed_model() -> PackedFile {
    let model = Llama::new();
    let mut file = PackedFile::default();
    for (index, (name, raw)) in model.file.tensors.iter().enumerate() {
        if name.ends_with("_proj.weight") {
            // Scales with and without an FP32 number that they are the reciprocal of.
            let scale = 1e-4 * (1.0 + index as f32 / 20.0);
            let tensor = random_packed(index as u64, &raw.shape, scale, |_| false);
            file.packed.insert(name.clone(), tensor);
        } else {
            file.plain.insert(name.clone(), raw.clone());
        }
    }
    file
}

fn config() -> serde_json::Map<String, Value> {
    let model = Model::from_tensors(
        Llama::new().file,
        ConfigHints {
            heads: Some(support::HEADS),
            kv_heads: Some(support::KV_HEADS),
            rms_eps: Some(1e-6),
            ..ConfigHints::default()
        },
    )
    .unwrap();
    llama_config(model.config(), false, Dtype::F32).unwrap()
}

const LAYOUTS: [Layout; 2] = [Layout::CompressedTensors, Layout::ModelOpt];

fn save(file: &PackedFile, layout: Layout, inputs: bool) -> tempfile::TempDir {
    let scales: BTreeMap<String, TensorScale> = file
        .packed
        .keys()
        .filter(|_| inputs)
        .map(|name| (name.clone(), TensorScale::new(0.01).unwrap()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    Export::new(file, layout, &scales)
        .unwrap()
        .save(folder.path(), &config())
        .unwrap();
    folder
}

#[test]
fn both_layouts_are_read_back() {
    let file = packed_model();
    for layout in LAYOUTS {
        for inputs in [false, true] {
            let folder = save(&file, layout, inputs);
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            let names: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
            let mut expected: Vec<&str> = file
                .packed
                .keys()
                .chain(file.plain.keys())
                .map(String::as_str)
                .collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{layout:?}");
            let mut exact = 0;
            for (name, packed) in &file.packed {
                let found = checkpoint.read_packed(name).unwrap().unwrap();
                assert_eq!(found.shape(), packed.shape());
                assert_eq!(found.tags(), packed.tags());
                assert_eq!(found.scales(), packed.scales());
                assert_eq!(found.payload(), packed.payload());
                let [a, b] = [&found, packed].map(|tensor| tensor.scale().get().to_bits());
                match layout {
                    Layout::ModelOpt => assert_eq!(a, b),
                    Layout::CompressedTensors => assert!(a.abs_diff(b) <= 1),
                }
                exact += usize::from(a == b);
                let values = found.decode();
                let rows = checkpoint.tensor(name).unwrap().rows();
                assert_eq!(checkpoint.read_rows(name, 0..rows).unwrap(), values);
                let width = values.len() / rows;
                assert_eq!(
                    checkpoint.read_rows(name, 3..7).unwrap(),
                    values[3 * width..7 * width]
                );
            }
            assert!(exact > file.packed.len() / 2);
            for (name, raw) in &file.plain {
                assert_eq!(&checkpoint.read_raw(name).unwrap(), raw);
                assert_eq!(checkpoint.read_packed(name).unwrap(), None);
            }
            // The configuration says of the model what it was made from.
            let model =
                Model::from_tensors(checkpoint.to_tensor_file().unwrap(), ConfigHints::default())
                    .unwrap();
            assert_eq!(model.trunk().config().heads, support::HEADS);
            assert_eq!(model.trunk().config().rms_eps, 1e-6);
            assert_eq!(
                model.matrix(0, Matrix::Query).unwrap(),
                checkpoint
                    .read_packed(&Matrix::Query.tensor_name(0))
                    .unwrap()
                    .unwrap()
                    .decode()
            );
        }
    }
}

#[test]
fn files_hold_what_readers_look_for() {
    let file = packed_model();
    let stem = "model.layers.0.mlp.up_proj";
    let shape = [support::FFN, support::HIDDEN];
    let header = |folder: &Path| {
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        metadata
            .tensors()
            .into_iter()
            .filter(|(name, _)| name.starts_with(stem))
            .map(|(name, info)| {
                (
                    name[stem.len()..].to_owned(),
                    (info.dtype, info.shape.clone()),
                )
            })
            .collect::<BTreeMap<_, _>>()
    };
    let json = |folder: &Path, name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let [rows, k] = shape;
    let scale = (Dtype::F8_E4M3, vec![rows, k / 16]);
    let codes = (Dtype::U8, vec![rows, k / 2]);

    let folder = save(&file, Layout::CompressedTensors, true);
    assert_eq!(
        header(folder.path()),
        BTreeMap::from([
            (".input_global_scale".into(), (Dtype::F32, vec![1])),
            (".weight_global_scale".into(), (Dtype::F32, vec![1])),
            (".weight_packed".into(), codes.clone()),
            (".weight_scale".into(), scale.clone()),
        ])
    );
    let config = &json(folder.path(), "config.json")["quantization_config"];
    assert_eq!(config["quant_method"], "compressed-tensors");
    assert_eq!(config["format"], "nvfp4-pack-quantized");
    assert_eq!(config["quantization_status"], "compressed");
    assert_eq!(config["ignore"], json!(["lm_head"]));
    let group = &config["config_groups"]["group_0"];
    assert_eq!(group["weights"]["group_size"], 16);
    assert_eq!(group["weights"]["strategy"], "tensor_group");
    assert_eq!(group["input_activations"]["dynamic"], "local");
    assert!(!folder.path().join("hf_quant_config.json").exists());
    let folder = save(&file, Layout::CompressedTensors, false);
    let config = &json(folder.path(), "config.json")["quantization_config"];
    assert!(config["config_groups"]["group_0"]["input_activations"].is_null());

    let folder = save(&file, Layout::ModelOpt, true);
    assert_eq!(
        header(folder.path()),
        BTreeMap::from([
            (".input_scale".into(), (Dtype::F32, vec![])),
            (".weight".into(), codes),
            (".weight_scale".into(), scale),
            (".weight_scale_2".into(), (Dtype::F32, vec![])),
        ])
    );
    let config = &json(folder.path(), "config.json")["quantization_config"];
    assert_eq!(config["quant_method"], "modelopt");
    assert_eq!(config["quant_algo"], "NVFP4");
    let hf = &json(folder.path(), "hf_quant_config.json")["quantization"];
    assert_eq!(hf["quant_algo"], "NVFP4");
    assert_eq!(hf["group_size"], 16);
    assert_eq!(hf["exclude_modules"], json!(["lm_head"]));
    let folder = save(&file, Layout::ModelOpt, false);
    let hf = &json(folder.path(), "hf_quant_config.json")["quantization"];
    assert_eq!(hf["quant_algo"], "W4A16_NVFP4");
}

#[test]
fn a_matrix_left_out_is_named_to_readers() {
    let mut file = packed_model();
    let name = Matrix::Down.tensor_name(1);
    let packed = file.packed.remove(&name).unwrap();
    file.plain.insert(
        name.clone(),
        RawTensor::from_f32(packed.shape().to_vec(), &packed.decode()),
    );
    let export = Export::new(&file, Layout::ModelOpt, &BTreeMap::new()).unwrap();
    assert_eq!(
        export.quantization_config["ignore"],
        json!(["model.layers.1.mlp.down_proj", "lm_head"])
    );
}

#[test]
fn what_can_t_be_written_is_named() {
    let export = |name: &str, tensor: PackedTensor, layout| {
        let mut file = PackedFile::default();
        file.packed.insert(name.into(), tensor);
        Export::new(&file, layout, &BTreeMap::new()).unwrap_err()
    };
    for layout in LAYOUTS {
        let mixed = random_packed(1, &[4, 32], 1.0, |block| block == 5);
        assert_eq!(
            export("a.weight", mixed, layout),
            ExportError::Fp8Blocks {
                name: "a.weight".into(),
                fp8: 1,
                blocks: 8
            }
        );
        for shape in [&[4, 24][..], &[32], &[2, 2, 16]] {
            let tensor = random_packed(1, shape, 1.0, |_| false);
            assert_eq!(
                export("a.weight", tensor, layout),
                ExportError::Shape {
                    name: "a.weight".into(),
                    shape: shape.to_vec()
                }
            );
        }
        let tensor = random_packed(1, &[4, 16], 1.0, |_| false);
        assert_eq!(export("a", tensor, layout), ExportError::Name("a".into()));
        assert_eq!(
            Export::new(&PackedFile::default(), layout, &BTreeMap::new()).unwrap_err(),
            ExportError::Nothing
        );
        let mut file = packed_model();
        file.plain.insert(
            format!("{}_scale", Matrix::Up.tensor_name(0)),
            RawTensor::from_f32(vec![1], &[1.0]),
        );
        assert!(matches!(
            Export::new(&file, layout, &BTreeMap::new()),
            Err(ExportError::Twice(_))
        ));
        let one = BTreeMap::from([(Matrix::Up.tensor_name(0), TensorScale::ONE)]);
        assert!(matches!(
            Export::new(&packed_model(), layout, &one),
            Err(ExportError::InputScales(_))
        ));
        let other = BTreeMap::from([("x".into(), TensorScale::ONE)]);
        assert!(matches!(
            Export::new(&packed_model(), layout, &other),
            Err(ExportError::InputScales(_))
        ));
    }
    let tensor = random_packed(1, &[4, 16], 1e-40, |_| false);
    assert!(matches!(
        export("a.weight", tensor, Layout::CompressedTensors),
        ExportError::Reciprocal { .. }
    ));
}

#[test]
fn joined_matrices_with_different_scales_are_found() {
    let mut packed = BTreeMap::new();
    for (name, scale) in [
        ("model.layers.0.self_attn.q_proj.weight", 1.0),
        ("model.layers.0.self_attn.k_proj.weight", 1.0),
        ("model.layers.0.self_attn.v_proj.weight", 0.5),
        ("model.layers.0.mlp.gate_proj.weight", 1.0),
        ("model.layers.0.mlp.up_proj.weight", 1.0),
        ("model.layers.0.mlp.down_proj.weight", 3.0),
        ("model.layers.1.mlp.up_proj.weight", 2.0),
    ] {
        packed.insert(name.into(), random_packed(1, &[1, 16], scale, |_| false));
    }
    assert_eq!(
        fused_with_different_scales(&packed),
        [["k", "q", "v"].map(|m| format!("model.layers.0.self_attn.{m}_proj.weight"))]
    );
}

#[test]
fn what_is_wrong_in_a_checkpoint_is_named() {
    let name = Matrix::Up.tensor_name(0);
    let stem = name.strip_suffix(".weight").unwrap();
    for (layout, changed, change, expected) in [
        (Layout::ModelOpt, "weight_scale_2", 0.0, "weight_scale_2"),
        (
            Layout::ModelOpt,
            "weight_scale_2",
            f32::NAN,
            "positive and finite",
        ),
        (
            Layout::CompressedTensors,
            "weight_global_scale",
            -1.0,
            "positive and finite",
        ),
        (
            Layout::CompressedTensors,
            "weight_global_scale",
            0.0,
            "positive and finite",
        ),
    ] {
        let folder = save(&packed_model(), layout, false);
        let path = folder.path().join("model.safetensors");
        let mut file = TensorFile::open(&path).unwrap();
        let tensor = file.tensors.get_mut(&format!("{stem}.{changed}")).unwrap();
        tensor.bytes = change.to_le_bytes().to_vec();
        fs::write(&path, file.to_bytes().unwrap()).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(stem), "{error}");
        assert!(
            error.contains(expected) || error.contains("positive"),
            "{error}"
        );
    }
    for layout in LAYOUTS {
        let folder = save(&packed_model(), layout, false);
        let path = folder.path().join("model.safetensors");
        let good = TensorFile::open(&path).unwrap();
        let scale = format!("{stem}.weight_scale");
        // NaN and negative scales are found when they are read.
        for code in [0x7f, 0x80, 0xff] {
            let mut file = good.clone();
            file.tensors.get_mut(&scale).unwrap().bytes[9] = code;
            fs::write(&path, file.to_bytes().unwrap()).unwrap();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            let expected = format!("{code:#04x}");
            for error in [
                checkpoint.read_rows(&name, 0..support::FFN).unwrap_err(),
                checkpoint.read_packed(&name).unwrap_err(),
            ] {
                assert!(matches!(error, CheckpointError::Tensor { .. }));
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
        let mut file = good.clone();
        let tensor = file.tensors.get_mut(&scale).unwrap();
        tensor.shape = vec![support::HIDDEN / 16, support::FFN];
        fs::write(&path, file.to_bytes().unwrap()).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(&scale) && error.contains("expected F8_E4M3"),
            "{error}"
        );
        let mut file = good.clone();
        file.tensors
            .retain(|name, _| !name.ends_with("weight_scale_2") && !name.ends_with("global_scale"));
        fs::write(&path, file.to_bytes().unwrap()).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Missing { .. }));
    }
}

/// What Python made of a file.
fn decoded_by_python(python: &Path, file: &Path) -> TensorFile {
    let target = tempfile::NamedTempFile::new().unwrap();
    run_python(python, "read_nvfp4.py", &[file, target.path()]);
    TensorFile::open(target.path()).unwrap()
}

#[test]
fn python_reads_the_same_values() {
    let Some(python) = python("nvfp4", &["safetensors", "numpy"], &["safetensors.numpy"]) else {
        return;
    };
    let same = |found: &TensorFile, name: &str, expected: &[f32]| {
        let found = found.tensor(name).unwrap().data;
        assert_eq!(found.len(), expected.len());
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{name} {index}: {a} {b}");
        }
    };
    let file = packed_model();
    for layout in LAYOUTS {
        let folder = save(&file, layout, true);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let found = decoded_by_python(&python, &folder.path().join("model.safetensors"));
        assert_eq!(found.tensors.len(), file.packed.len());
        for name in file.packed.keys() {
            let packed = checkpoint.read_packed(name).unwrap().unwrap();
            same(&found, name, &packed.decode());
        }
    }
    // The project's own layout, with FP8 blocks and padded rows.
    let mut file = PackedFile::default();
    for (name, shape, every) in [
        ("a", &[5, 40][..], 3),
        ("b", &[64, 64], 2),
        ("c", &[2, 3, 16], 1),
        ("d", &[7, 128], usize::MAX),
    ] {
        let tensor = random_packed(7, shape, 0.3, |block| block % every == 0 && every < 9);
        file.packed.insert(name.into(), tensor);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    file.save(&path).unwrap();
    let found = decoded_by_python(&python, &path);
    for (name, packed) in &file.packed {
        same(&found, name, &packed.decode());
    }
}
