//! A checkpoint's layers quantized to NVFP4 and written for inference servers, weights alone.
//!
//! `cargo run --release -p fgmp-checkpoints --example nvfp4 -- MODEL FOLDER [compressed-tensors|modelopt]`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use checkpoints::Checkpoint;
use checkpoints::nvfp4::{Export, Layout, fused_with_different_scales, llama_config};
use golden::Scheme;
use golden::model::{ConfigHints, Model};
use golden::packed::{PackedFile, Profile};
use golden::quantizer::{WeightOptions, WeightTensor, quantize_weights};
use safetensors::Dtype;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, rest @ ..] = arguments.as_slice() else {
        return Err("expected MODEL FOLDER [compressed-tensors|modelopt]".into());
    };
    let layout = match rest.first().map(String::as_str) {
        None | Some("compressed-tensors") => Layout::CompressedTensors,
        Some("modelopt") => Layout::ModelOpt,
        Some(other) => return Err(format!("unknown layout {other}").into()),
    };
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let options = WeightOptions {
        profile: Profile::Nvfp4,
        ..WeightOptions::new(Scheme::Nvfp4)
    };
    let mut file = PackedFile::default();
    for info in checkpoint.tensors() {
        if !info.name.ends_with("_proj.weight") {
            let raw = checkpoint.read_raw(&info.name)?;
            file.plain.insert(info.name.clone(), raw);
            continue;
        }
        let data = checkpoint.read_rows(&info.name, 0..info.rows())?;
        let tensor = WeightTensor {
            name: &info.name,
            shape: &info.shape,
            data: &data,
            sensitivity: None,
        };
        for packed in quantize_weights(&[tensor], options)?.tensors {
            file.packed.insert(info.name.clone(), packed);
        }
    }
    for group in fused_with_different_scales(&file.packed).iter().take(1) {
        println!("different scales in {} and other groups", group.join(", "));
    }
    let tied = checkpoint.tensor("lm_head.weight").is_none();
    let model = Model::from_tensors(checkpoint.to_tensor_file()?, ConfigHints::default())?;
    let config = llama_config(model.config(), tied, Dtype::F32)?;
    Export::new(&file, layout, &BTreeMap::new())?.save(Path::new(folder), &config)?;
    println!("wrote {} packed tensors", file.packed.len());
    Ok(())
}
