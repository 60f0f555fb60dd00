//! Packed tensors: round trips, and files that lie.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::path::Path;

use golden::block::{Block, BlockError, PackedBlock};
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::packed::{PackedError, PackedFile, PackedTensor, TensorScale};
use golden::strategies;
use golden::tensors::{FileError, RawTensor, TensorFile, read_tokens, write_atomically};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

fn tensor() -> impl Strategy<Value = PackedTensor> {
    (1usize..5, 1usize..5)
        .prop_flat_map(|(rows, row_blocks)| {
            let blocks = prop::collection::vec(strategies::block(), rows * row_blocks);
            (Just([rows, row_blocks * BLOCK]), blocks, 1e-6f32..1e6)
        })
        .prop_map(|(shape, blocks, scale)| {
            PackedTensor::from_blocks(&shape, TensorScale::new(scale).unwrap(), blocks).unwrap()
        })
}

fn sample() -> PackedFile {
    let blocks = [
        Block::Fp4 {
            scale: Ue4m3::ONE,
            elements: std::array::from_fn(|i| E2m1::from_low_nibble(i as u8)),
        },
        Block::Fp8 {
            elements: std::array::from_fn(|i| E4m3::from_bits(i as u8 * 3)),
        },
        Block::ZERO,
    ];
    let tensor =
        PackedTensor::from_blocks(&[3, 16], TensorScale::new(0.25).unwrap(), blocks).unwrap();
    let mut file = PackedFile::default();
    file.packed.insert("w".into(), tensor);
    file.plain
        .insert("norm".into(), RawTensor::from_f32(vec![2], &[1.0, 2.0]));
    file
}

fn path() -> &'static Path {
    Path::new("sample.safetensors")
}

proptest! {
    #![proptest_config(strategies::config(256))]

    #[test]
    fn blocks_survive_packing(block in strategies::block()) {
        let packed = block.pack();
        prop_assert_eq!(packed.tag, block.is_fp8());
        prop_assert_eq!(Block::unpack(&packed), Ok(block));
    }

    #[test]
    fn whatever_unpacks_packs_to_the_same(tag: bool, scale: u8, payload: u128, narrow: bool) {
        let packed = PackedBlock { tag, scale, payload: if narrow { payload >> 64 } else { payload } };
        if let Ok(block) = Block::unpack(&packed) {
            prop_assert_eq!(block.pack(), packed);
        }
    }

    #[test]
    fn tensors_survive_streams_and_files(tensor in tensor()) {
        let payload: Vec<u8> = tensor.payload().iter().flat_map(|word| word.to_le_bytes()).collect();
        let streams = (tensor.tags().to_vec(), tensor.scales().to_vec());
        let again = PackedTensor::from_streams(tensor.shape(), tensor.scale(), streams.0, streams.1, &payload);
        prop_assert_eq!(again.as_ref(), Ok(&tensor));
        prop_assert_eq!(tensor.blocks().count(), tensor.block_count());
        let fp8 = tensor.blocks().filter(Block::is_fp8).count();
        prop_assert_eq!(fp8, tensor.fp8_blocks());
        let p = fp8 as f64 / tensor.block_count() as f64;
        prop_assert!((tensor.bits_per_element() - (8.0 * p + 4.5 * (1.0 - p) + 1.0 / 16.0)).abs() < 1e-12);

        let mut file = PackedFile::default();
        file.packed.insert("a.weight".into(), tensor);
        let bytes = file.to_tensors(path()).unwrap().to_bytes().unwrap();
        prop_assert_eq!(&bytes, &file.to_tensors(path()).unwrap().to_bytes().unwrap(), "the same bytes each time");
        let read = PackedFile::from_tensors(TensorFile::parse(path(), &bytes).unwrap()).unwrap();
        prop_assert_eq!(read, file);
    }

    #[test]
    fn damaged_files_are_refused_or_still_consistent(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index, truncate: bool) {
        let mut bytes = sample().to_tensors(path()).unwrap().to_bytes().unwrap();
        for (index, byte) in flips {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(file) = TensorFile::parse(path(), &bytes).and_then(PackedFile::from_tensors) {
            for tensor in file.packed.values() {
                prop_assert_eq!(tensor.blocks().count(), tensor.block_count());
                prop_assert_eq!(tensor.decode().len(), tensor.rows() * tensor.k());
            }
        }
    }

    #[test]
    fn noise_is_no_file(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(TensorFile::parse(path(), &bytes).is_err());
    }
}

#[test]
fn bits_stand_where_the_layout_says() {
    let file = sample();
    let tensor = &file.packed["w"];
    assert_eq!(tensor.tags(), [0b010]);
    assert_eq!(tensor.scales(), [0x38, 0x00]);
    assert_eq!(
        tensor.payload(),
        [
            0xFEDC_BA98_7654_3210,
            0x1512_0F0C_0906_0300,
            0x2D2A_2724_211E_1B18,
            0
        ]
    );
    assert_eq!(tensor.decode()[..4], [0.0, 0.125, 0.25, 0.375]);
    let tensors = file.to_tensors(path()).unwrap();
    let names: Vec<&str> = tensors.tensors.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["norm", "w.payload", "w.scales", "w.tags", "w.tensor_scale"]
    );
    assert_eq!(tensors.metadata.unwrap()["shapes"], json!({ "w": [3, 16] }));
}

#[test]
fn blocks_that_are_none() {
    let block = |tag, scale, payload| {
        Block::unpack(&PackedBlock {
            tag,
            scale,
            payload,
        })
    };
    assert_eq!(block(false, 0x7F, 0), Err(BlockError::Scale(0x7F)));
    assert_eq!(block(false, 0x80, 0), Err(BlockError::Scale(0x80)));
    assert_eq!(block(true, 0x01, 0), Err(BlockError::UnexpectedScale(0x01)));
    assert_eq!(
        block(false, 0, 1 << 64),
        Err(BlockError::WidePayload(1 << 64))
    );
}

/// Every lie about a tensor's streams, and what the message must name.
#[test]
fn files_that_lie_are_refused_by_name() {
    type Damage = fn(&mut TensorFile);
    fn stream<'a>(file: &'a mut TensorFile, name: &str) -> &'a mut RawTensor {
        file.tensors.get_mut(name).unwrap()
    }
    fn shapes(file: &mut TensorFile, shape: serde_json::Value) {
        file.metadata.as_mut().unwrap()["shapes"]["w"] = shape;
    }
    fn replace(file: &mut TensorFile, name: &str, bytes: &[u8]) {
        let tensor = stream(file, name);
        tensor.bytes = bytes.into();
        tensor.shape = vec![bytes.len()];
    }
    let cases: &[(&str, Damage)] = &[
        ("w.tags is missing", |file| {
            drop(file.tensors.remove("w.tags"))
        }),
        ("w.scales is missing", |file| {
            drop(file.tensors.remove("w.scales"))
        }),
        ("w.payload is missing", |file| {
            drop(file.tensors.remove("w.payload"))
        }),
        ("w.tensor_scale is missing", |file| {
            drop(file.tensors.remove("w.tensor_scale"))
        }),
        ("w.scales: expected F8_E4M3, found U8", |file| {
            stream(file, "w.scales").dtype = Dtype::U8
        }),
        ("w.payload: expected U8, found I8", |file| {
            stream(file, "w.payload").dtype = Dtype::I8
        }),
        ("tensor w: tags stream: expected 1 bytes, found 2", |file| {
            replace(file, "w.tags", &[0b010, 0])
        }),
        ("tensor w: tags stream: a bit behind", |file| {
            replace(file, "w.tags", &[0b1010])
        }),
        (
            "tensor w: scales stream: expected 3 bytes, found 2",
            |file| replace(file, "w.tags", &[0]),
        ),
        (
            "tensor w: scales stream: expected 2 bytes, found 0",
            |file| replace(file, "w.scales", &[]),
        ),
        (
            "tensor w: scales stream: code 0x7f of FP4 block 1",
            |file| replace(file, "w.scales", &[0, 0x7F]),
        ),
        (
            "tensor w: payload stream: expected 32 bytes, found 31",
            |file| replace(file, "w.payload", &[0; 31]),
        ),
        ("w.tensor_scale: a tensor's scale is positive", |file| {
            stream(file, "w.tensor_scale").bytes = f32::NAN.to_le_bytes().into();
        }),
        ("w.tensor_scale: a tensor's scale is positive", |file| {
            stream(file, "w.tensor_scale").bytes = (-1f32).to_le_bytes().into();
        }),
        ("w.tensor_scale: expected one element", |file| {
            let scale = stream(file, "w.tensor_scale");
            scale.shape = vec![2];
            scale.bytes = vec![0; 8];
        }),
        ("tensor w: shape [] is empty", |file| {
            shapes(file, json!([]))
        }),
        ("tensor w: shape [3, 0] is empty", |file| {
            shapes(file, json!([3, 0]))
        }),
        ("is empty or too large", |file| {
            shapes(file, json!([u64::MAX, 16]))
        }),
        ("is empty or too large", |file| {
            shapes(file, json!([1u64 << 32, 1u64 << 32]))
        }),
        ("is empty or too large", |file| {
            shapes(file, json!([1, u64::MAX]))
        }),
        ("tensor w: tags stream: expected 2", |file| {
            shapes(file, json!([9, 16]))
        }),
        ("tensor w: block 0 pads its row", |file| {
            shapes(file, json!([3, 15]))
        }),
        ("metadata `fgmp`: not that of a packed file", |file| {
            shapes(file, json!([-1]))
        }),
        (
            "metadata `fgmp`: expected numerics version 1, found 2",
            |file| {
                file.metadata.as_mut().unwrap()["numerics_version"] = json!(2);
            },
        ),
        ("it is no packed file", |file| file.metadata = None),
    ];
    for (message, damage) in cases {
        let mut file = sample().to_tensors(path()).unwrap();
        damage(&mut file);
        let bytes = file.to_bytes().unwrap();
        let error = TensorFile::parse(path(), &bytes)
            .and_then(PackedFile::from_tensors)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "expected {message:?} in {error:?}");
        assert!(error.starts_with("sample.safetensors: "), "{error}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let file = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        TensorFile::parse(path(), &bytes).unwrap_err().to_string()
    };
    assert!(file("[]").contains("not a JSON object"));
    let huge = u64::MAX;
    assert!(
        file(&format!(
            r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#
        ))
        .contains("tensor a")
    );
    assert!(file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,-1]}}"#).contains("tensor a"));
    let error = TensorFile::parse(path(), &u64::MAX.to_le_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("longer than the file"), "{error}");
    assert!(TensorFile::parse(path(), &[0; 7]).is_err());
}

#[test]
fn wrong_numbers_of_blocks_are_refused() {
    let build = |shape: &[usize], blocks: usize| {
        PackedTensor::from_blocks(shape, TensorScale::ONE, vec![Block::ZERO; blocks])
    };
    assert!(build(&[2, 17], 4).is_ok());
    assert!(matches!(
        build(&[2, 17], 3),
        Err(PackedError::Blocks {
            expected: 4,
            found: 3,
            ..
        })
    ));
    assert!(matches!(
        build(&[2, 17], 5),
        Err(PackedError::Blocks { .. })
    ));
    assert!(matches!(build(&[0, 16], 0), Err(PackedError::Shape(_))));
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out.safetensors");
    sample().save(&target).unwrap();
    assert_eq!(PackedFile::open(&target).unwrap(), sample());
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["out.safetensors"], "no temporary file is left");

    assert!(write_atomically(&folder.path().join("missing/out"), b"x").is_err());
    assert!(write_atomically(Path::new("/"), b"x").is_err());
    let occupied = folder.path().join("folder");
    std::fs::create_dir_all(occupied.join("inside")).unwrap();
    assert!(write_atomically(&occupied, b"x").is_err());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "a failed write leaves nothing"
    );

    let mut clash = sample();
    clash
        .plain
        .insert("w.tags".into(), RawTensor::from_f32(vec![1], &[0.0]));
    let error = clash.save(&target).unwrap_err();
    assert!(error.to_string().contains("w.tags: two tensors"), "{error}");
    assert_eq!(
        PackedFile::open(&target).unwrap(),
        sample(),
        "the old file is untouched"
    );
}

#[test]
fn plain_tensors_are_read_in_fp32() {
    let mut file = TensorFile::new(path());
    file.tensors
        .insert("f32".into(), RawTensor::from_f32(vec![2], &[1.5, -0.0]));
    file.tensors.insert(
        "bf16".into(),
        RawTensor::from_bf16(vec![1], &[half::bf16::from_f32(3.0)]),
    );
    let f16 = half::f16::from_f32(0.1).to_le_bytes().to_vec();
    file.tensors.insert(
        "f16".into(),
        RawTensor {
            dtype: Dtype::F16,
            shape: vec![1],
            bytes: f16,
        },
    );
    file.tensors.insert(
        "i8".into(),
        RawTensor {
            dtype: Dtype::I8,
            shape: vec![1],
            bytes: vec![1],
        },
    );
    assert_eq!(file.tensor("f32").unwrap().data, [1.5, -0.0]);
    assert_eq!(file.tensor("bf16").unwrap().data, [3.0]);
    assert_eq!(
        file.tensor("f16").unwrap().data,
        [half::f16::from_f32(0.1).to_f32()]
    );
    assert!(
        file.tensor("i8")
            .unwrap_err()
            .to_string()
            .contains("tensor i8: expected F32, F16 or BF16, found I8")
    );
    assert!(matches!(
        file.tensor("none"),
        Err(FileError::Missing { .. })
    ));
}

#[test]
fn token_streams_have_whole_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let stream = folder.path().join("t.u16");
    std::fs::write(&stream, [1, 0, 0, 1]).unwrap();
    assert_eq!(read_tokens(&stream).unwrap(), [1, 256]);
    std::fs::write(&stream, [1, 0, 0]).unwrap();
    assert!(
        read_tokens(&stream)
            .unwrap_err()
            .to_string()
            .contains("16-bit tokens has a multiple of 2 bytes, this one has 3")
    );
    let stream = folder.path().join("t.u32");
    std::fs::write(&stream, [1, 0, 1, 0]).unwrap();
    assert_eq!(read_tokens(&stream).unwrap(), [65537]);
    std::fs::write(&stream, [1, 0, 1, 0, 0, 0]).unwrap();
    assert!(
        read_tokens(&stream)
            .unwrap_err()
            .to_string()
            .contains("32-bit tokens has a multiple of 4 bytes, this one has 6")
    );
}
