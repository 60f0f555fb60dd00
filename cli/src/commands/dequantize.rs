//! `fgmp dequantize`: packed tensors to plain ones.

use golden::packed::PackedFile;
use golden::tensors::{RawTensor, TensorFile};
use half::bf16;
use serde::Serialize;

use crate::arguments::{Dequantize, DtypeName};
use crate::output::{Outcome, Output, check_writable};

#[derive(Serialize)]
struct Report {
    input: String,
    output: String,
    dtype: &'static str,
    decoded: Vec<String>,
    copied: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: &Dequantize, output: &Output) -> anyhow::Result<Outcome> {
    check_writable(&arguments.output)?;
    let packed = PackedFile::open(&arguments.input)?;
    let mut file = TensorFile::new(&arguments.output);
    for (name, tensor) in &packed.packed {
        let values = tensor.decode();
        let shape = tensor.shape().to_vec();
        let raw = match arguments.dtype {
            DtypeName::F32 => RawTensor::from_f32(shape, &values),
            DtypeName::Bf16 => {
                let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                RawTensor::from_bf16(shape, &values)
            }
        };
        file.tensors.insert(name.clone(), raw);
    }
    file.tensors.extend(packed.plain.clone());
    file.save(&arguments.output)?;
    let report = Report {
        input: arguments.input.display().to_string(),
        output: arguments.output.display().to_string(),
        dtype: match arguments.dtype {
            DtypeName::F32 => "f32",
            DtypeName::Bf16 => "bf16",
        },
        decoded: packed.packed.into_keys().collect(),
        copied: packed.plain.into_keys().collect(),
    };
    output.line(format!(
        "{}: {} tensors decoded to {}, {} copied",
        report.output,
        report.decoded.len(),
        report.dtype,
        report.copied.len()
    ));
    output.json(&report)?;
    Ok(Outcome::Done)
}
