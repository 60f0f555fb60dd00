//! `fgmp demo`: the main job, end to end.

use std::time::Instant;

use golden::model::{Input, LanguageModel, Matrix, Site};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use hdl::config::ArrayConfig;
use serde::Serialize;
use testbench::array::Drive;

use super::eval::{self, ALL, Row, Stream, evaluate};
use crate::arguments::{Demo, ModelArguments, SchemeName};
use crate::hardware::{self, Hardware, Part, verdict};
use crate::model;
use crate::output::{Outcome, Output, count, percent};

/// What runs in each simulator, sized so that the demonstration stays under a minute.
struct Effort {
    random_pairs: u64,
    stalled_pairs: u64,
    layer_tokens: usize,
    layers: &'static [(usize, Matrix, usize)],
    quantizer_tokens: usize,
    quantizer_blocks: u64,
}

/// One matrix of each shape, in different layers and repetitions.
const LAYERS: &[(usize, Matrix, usize)] = &[
    (0, Matrix::Query, 0),
    (1, Matrix::Output, 1),
    (2, Matrix::Up, 2),
    (3, Matrix::Down, 2),
];

const VERILATOR: Effort = Effort {
    random_pairs: 400_000,
    stalled_pairs: 40_000,
    layer_tokens: 16,
    layers: LAYERS,
    quantizer_tokens: 16,
    quantizer_blocks: 2_000,
};

const RUST_HDL: Effort = Effort {
    random_pairs: 2_000,
    stalled_pairs: 500,
    layer_tokens: 1,
    layers: &[(0, Matrix::Query, 0)],
    quantizer_tokens: 1,
    quantizer_blocks: 16,
};

#[derive(Serialize)]
struct Report {
    model: &'static str,
    parameters: usize,
    calibration_windows: usize,
    weight_fp8_share: f64,
    bits_per_element: f64,
    evaluations: Vec<Row>,
    array: ArrayConfig,
    modules: usize,
    verilog_bytes: usize,
    compile_seconds: Option<f64>,
    cosimulation: Vec<Part>,
    mismatches: u64,
    seconds: f64,
}

/// Runs the command.
pub fn run(arguments: &Demo, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let calibration_windows = 8;
    let prepared = model::embedded(&ModelArguments {
        calibration_windows: Some(calibration_windows),
        ..Default::default()
    })?;
    let full = &prepared.model;
    let config = *full.trunk().config();
    output.line(format!(
        "1. {}: {} parameters, {} layers run {} times",
        model::EMBEDDED,
        count(full.parameters() as u64),
        config.layers,
        config.repetitions
    ));
    let spinner = output.spinner("calibrating and quantizing");
    let calibrated = prepared.calibrate(output)?;
    let quantize = |scheme: SchemeName| match scheme.scheme(Share::FGMP) {
        Scheme::Bf16 => Ok(None),
        scheme => prepared
            .quantize(WeightOptions::new(scheme), &calibrated)
            .map(Some),
    };
    let fgmp = quantize(SchemeName::Fgmp)?;
    let quantized = fgmp
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("FGMP is a quantized scheme"))?;
    spinner.finish_and_clear();
    let (elements, bits) =
        quantized
            .packed_tensors()
            .fold((0.0, 0.0), |(elements, bits), (_, tensor)| {
                let n = (tensor.rows() * tensor.k()) as f64;
                (elements + n, bits + n * tensor.bits_per_element())
            });
    let bits_per_element = bits / elements;
    output.line(format!(
        "   quantized to {} FP8 and {} FP4 weight blocks: {bits_per_element:.4} bits an element, {:.2} % below FP8",
        percent(quantized.weight_fp8_share()),
        percent(1.0 - quantized.weight_fp8_share()),
        (1.0 - bits_per_element / 8.0) * 100.0
    ));

    let stream = Stream {
        name: "valid".to_owned(),
        tokens: prepared.reader.read("valid")?,
    };
    output.line(format!(
        "\n2. perplexity with the exact arithmetic, {} windows of {}",
        arguments.windows, config.context
    ));
    let mut evaluations = Vec::new();
    for scheme in ALL {
        let other = if scheme == SchemeName::Fgmp {
            None
        } else {
            quantize(scheme)?
        };
        let engine = if scheme == SchemeName::Fgmp {
            Some(quantized)
        } else {
            other.as_ref()
        };
        let run: &dyn LanguageModel = match engine {
            Some(engine) => engine,
            None => full,
        };
        evaluations.push(evaluate(
            run,
            engine,
            scheme.scheme(Share::FGMP),
            &stream,
            Some(arguments.windows),
            output,
        )?);
    }
    eval::table(&evaluations, output);

    let array = ArrayConfig::default();
    output.line(format!(
        "\n3. Verilog of the core with a {} x {} array",
        array.rows, array.cols
    ));
    let emission = Instant::now();
    let hardware = Hardware::new(array, arguments.simulator, output)?;
    output.line(format!(
        "   {} modules, {} bytes, emitted in {:.2} s",
        hardware.modules(),
        count(hardware.bytes() as u64),
        emission.elapsed().as_secs_f64()
    ));
    let compile_seconds = hardware.compile(output)?;
    if let Some(seconds) = compile_seconds {
        output.line(format!(
            "   compiled by Verilator in {seconds:.1} s (kept for the next time)"
        ));
    }

    output.line("\n4. co-simulation against the golden model");
    let effort = if hardware.is_fast() {
        VERILATOR
    } else {
        RUST_HDL
    };
    let mut parts = vec![hardware.random(effort.random_pairs, Drive::FULL_SPEED, seed, output)?];
    parts.push(hardware.random(
        effort.stalled_pairs,
        Drive::stalling(seed),
        seed.wrapping_add(1),
        output,
    )?);
    for &(layer, matrix, repetition) in effort.layers {
        let tokens = &stream.tokens[..effort.layer_tokens];
        parts.push(hardware.layer(quantized, layer, matrix, repetition, tokens, output)?);
    }
    let site = Site {
        repetition: 0,
        layer: 0,
        input: Input::MlpDown,
    };
    parts.push(hardware.quantizer_site(
        quantized,
        site,
        &stream.tokens[..effort.quantizer_tokens],
        output,
    )?);
    parts.push(hardware.quantizer(effort.quantizer_blocks, seed, output)?);
    hardware::table(&parts, output);
    let mismatches: u64 = parts.iter().map(|part| part.mismatches).sum();
    let seconds = start.elapsed().as_secs_f64();
    output.line(format!(
        "\n{} ({}; {seconds:.1} s)",
        verdict(&parts),
        parts[0].simulator
    ));
    // The last line is the result.
    output.line(format!("{mismatches} mismatches"));
    output.json(&Report {
        model: model::EMBEDDED,
        parameters: full.parameters(),
        calibration_windows,
        weight_fp8_share: quantized.weight_fp8_share(),
        bits_per_element,
        evaluations,
        array,
        modules: hardware.modules(),
        verilog_bytes: hardware.bytes(),
        compile_seconds,
        cosimulation: parts,
        mismatches,
        seconds,
    })?;
    Ok(Outcome::of_check(mismatches == 0))
}
