//! What the profiles make of blocks on which they differ; with two file names, of the tensors of a safetensors file.
//!
//! ```sh
//! cargo run -p fgmp-golden --example profiles
//! cargo run -p fgmp-golden --example profiles -- IN.safetensors OUT.safetensors
//! ```
//!
//! OUT has, for each tensor and profile, `<tensor>.<profile>.codes` (one a byte), `.scales` and `.stored_scale`.

use std::error::Error;
use std::path::Path;

use golden::packed::Profile;
use golden::profiles::{quantize, quantize_with_amax};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;

/// Title, the tensor's largest magnitude, and the first elements of a block that is 0 otherwise.
const BLOCKS: [(&str, f32, &[f64]); 11] = [
    ("zero block", 1.0, &[]),
    (
        "ties, scale 448",
        6.0,
        &[
            0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, -6.0,
        ],
    ),
    (
        "-0 and small negatives",
        1.0,
        &[-0.0, -1e-6, -0.04, 0.04, -0.0416, 0.0417, 1.0, -1.0],
    ),
    ("scale 2^-9", 1.0, &[2.1799e-6]),
    ("scale underflows", 1.0, &[1.9e-6, -1.9e-6]),
    ("scale below 2^-6", 1.0, &[2e-5, -1e-5, 5e-6]),
    (
        "scale tie, A = 1.09375",
        1.09375,
        &[4.053_115_844_726_562_5e-5],
    ),
    (
        "scale tie, A = 1.015625",
        1.015625,
        &[4.649_162_292_480_469e-5],
    ),
    (
        "scale tie, A = 1.203125",
        1.203125,
        &[4.458_427_429_199_219e-5],
    ),
    (
        "code tie 1.75, scale 0x34",
        1.0,
        &[1.6741071e-3, 4.8828125e-4],
    ),
    (
        "code tie 3.5, scale 0x34",
        1.0,
        &[1.6741071e-3, 9.765625e-4],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => table(),
        [input, output] => files(Path::new(input), Path::new(output)),
        _ => Err("expected no file name, or two".into()),
    }
}

fn table() -> Result<(), Box<dyn Error>> {
    println!("scale:codes in hexadecimal, a block's trailing zeros left out");
    for (title, amax, first) in BLOCKS {
        println!("\n{title} (largest magnitude of the tensor {amax})");
        let first: Vec<f32> = first.iter().map(|&x| x as f32).collect();
        let x: Vec<f32> = first.iter().copied().chain([0.0; 16]).take(16).collect();
        for profile in Profile::ALL {
            let tensor = quantize_with_amax(title, &[16], &x, profile, amax)?.tensor;
            let codes: String = tensor
                .payload()
                .iter()
                .flat_map(|word| (0..first.len()).map(move |i| word >> (4 * i) & 0xF))
                .map(|code| format!("{code:X}"))
                .collect();
            println!("  {:26} {:02X}:{codes}", profile.name(), tensor.scales()[0]);
        }
    }
    Ok(())
}

fn files(input: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let input = TensorFile::open(input)?;
    let mut made = TensorFile::new(output);
    for (name, tensor) in &input.tensors {
        let data = input.tensor(name)?.data;
        for profile in Profile::ALL {
            let quantized = quantize(name, &tensor.shape, &data, profile)?;
            let packed = &quantized.tensor;
            let codes: Vec<u8> = packed
                .payload()
                .iter()
                .flat_map(|word| (0..16).map(move |i| (word >> (4 * i)) as u8 & 0xF))
                .collect();
            let mut insert = |what: &str, dtype, shape, bytes| {
                let name = format!("{name}.{}.{what}", profile.name());
                made.tensors.insert(
                    name,
                    RawTensor {
                        dtype,
                        shape,
                        bytes,
                    },
                );
            };
            insert("codes", Dtype::U8, vec![codes.len()], codes);
            let scales = packed.scales().to_vec();
            insert("scales", Dtype::U8, vec![scales.len()], scales);
            let stored = quantized.stored_scale.to_le_bytes().to_vec();
            insert("stored_scale", Dtype::F32, vec![1], stored);
        }
    }
    made.save(output)?;
    Ok(())
}
