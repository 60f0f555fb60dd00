//! `fgmp cosim`: the emitted core against the golden model.

use golden::model::{Matrix, QuantizedModel};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use hdl::config::ArrayConfig;
use serde::Serialize;
use testbench::array::Drive;
use testbench::report::{Coverage, PairsByMode};

use crate::arguments::{Cosim, ModelArguments};
use crate::hardware::{Hardware, Part, find_matrix, table, verdict};
use crate::model;
use crate::output::{Outcome, Output, check_writable};

#[derive(Serialize)]
struct Report {
    parameters: ArrayConfig,
    acc_bits: usize,
    simulator: String,
    /// Random block pairs through the array.
    vectors: u64,
    /// Of all parts.
    mismatches: u64,
    /// Of all parts.
    cycles: u64,
    cycles_per_second: f64,
    pairs_per_second: f64,
    pairs_by_mode: Option<PairsByMode>,
    coverage: Option<Coverage>,
    coverage_holes: Vec<String>,
    seed: u64,
    parts: Vec<Part>,
    trace: Option<String>,
}

/// Of the random pairs, one in so many runs with stalled streams and every stream rule checked.
const STALLED_SHARE: u64 = 10;

/// The matrices asked for and real activations for them.
struct Layers {
    model: QuantizedModel,
    matrices: Vec<(usize, Matrix)>,
    tokens: Vec<u32>,
}

impl Layers {
    fn find(arguments: &Cosim, output: &Output) -> anyhow::Result<Self> {
        let prepared = model::embedded(&ModelArguments {
            calibration_windows: Some(2),
            ..Default::default()
        })?;
        let mut tokens = prepared.reader.read("valid")?;
        if arguments.layer_tokens > tokens.len() {
            anyhow::bail!(
                "--layer-tokens {}: the stream has {} tokens",
                arguments.layer_tokens,
                tokens.len()
            );
        }
        tokens.truncate(arguments.layer_tokens);
        let matrices = arguments
            .layer
            .iter()
            .map(|name| find_matrix(prepared.model.config(), name))
            .collect::<anyhow::Result<_>>()?;
        let calibrated = prepared.calibrate(output)?;
        let options = WeightOptions::new(Scheme::Fgmp {
            fp8_share: Share::FGMP,
        });
        Ok(Self {
            model: prepared.quantize(options, &calibrated)?,
            matrices,
            tokens,
        })
    }
}

/// Runs the command.
pub fn run(arguments: &Cosim, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if arguments.top {
        return super::cosim_top::run(arguments, seed, output);
    }
    let config = arguments.array.config()?;
    if let Some(file) = &arguments.trace {
        check_writable(file)?;
    }
    if arguments.vectors == 0 && arguments.quantizer_blocks == 0 && arguments.layer.is_empty() {
        anyhow::bail!(
            "nothing to run: --vectors and --quantizer-blocks are 0 and no --layer is given"
        );
    }
    // Names are checked before the Verilog is compiled, which takes longest.
    let layers = if arguments.layer.is_empty() {
        None
    } else {
        Some(Layers::find(arguments, output)?)
    };
    let hardware = Hardware::new(config, arguments.simulator, output)?;
    if let Some(seconds) = hardware.compile(output)? {
        output.line(format!(
            "compiled the Verilog in {seconds:.1} s (kept for the next time)"
        ));
    }
    let mut parts = Vec::new();
    let stalled = arguments.vectors / STALLED_SHARE;
    if arguments.vectors > 0 {
        parts.push(hardware.random(
            arguments.vectors - stalled,
            Drive::FULL_SPEED,
            seed,
            output,
        )?);
    }
    if stalled > 0 {
        parts.push(hardware.random(
            stalled,
            Drive::stalling(seed),
            seed.wrapping_add(1),
            output,
        )?);
    }
    if let Some(Layers {
        model,
        matrices,
        tokens,
    }) = &layers
    {
        for &(layer, matrix) in matrices {
            parts.push(hardware.layer(model, layer, matrix, 0, tokens, output)?);
        }
    }
    if arguments.quantizer_blocks > 0 {
        parts.push(hardware.quantizer(arguments.quantizer_blocks, seed, output)?);
    }
    if let Some(file) = &arguments.trace {
        hardware.trace(file, seed)?;
        output.line(format!("wrote {}", file.display()));
    }

    table(&parts, output);
    let random: Vec<&Part> = parts
        .iter()
        .filter(|part| part.name.starts_with("random"))
        .collect();
    let first = random.first();
    let coverage = first.and_then(|part| part.coverage);
    let holes = coverage
        .map(|coverage| coverage.holes())
        .unwrap_or_default();
    if !holes.is_empty() {
        output.line(format!("not seen in so few vectors: {}", holes.join(", ")));
    }
    output.line(verdict(&parts));
    let mismatches: u64 = parts.iter().map(|part| part.mismatches).sum();
    output.json(&Report {
        parameters: config,
        acc_bits: config.acc_bits(),
        simulator: parts
            .first()
            .map(|part| part.simulator.clone())
            .unwrap_or_default(),
        vectors: random.iter().map(|part| part.vectors).sum(),
        mismatches,
        cycles: parts.iter().map(|part| part.cycles).sum(),
        cycles_per_second: first.map_or(0.0, |part| part.cycles_per_second),
        pairs_per_second: first.map_or(0.0, |part| part.vectors_per_second),
        pairs_by_mode: first.and_then(|part| part.pairs_by_mode),
        coverage,
        coverage_holes: holes,
        seed,
        trace: arguments
            .trace
            .as_ref()
            .map(|file| file.display().to_string()),
        parts,
    })?;
    Ok(Outcome::of_check(mismatches == 0))
}
