//! `fgmp cosim --top`: a language model whose linear layers run on the complete accelerator.

use std::time::Instant;

use anyhow::Context;
use golden::model::{KvCache, LanguageModel, Matrix, QuantizedModel, Site, Tally, forward};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use hdl::build::emit_accelerator;
use hdl::config::ArrayConfig;
use serde::Serialize;
use testbench::accelerator::model::{Effort, LayerRun, back_to_back, run_model};
use testbench::accelerator::{AcceleratorBench, Stalls};
use testbench::design::Design;
use testbench::verilator::{Verilator, VerilatorSim, Waveform};

use crate::arguments::{Cosim, ModelArguments};
use crate::model::Prepared;
use crate::output::{Outcome, Output, count, percent};

/// Most tokens of the matrix products, however many the memories hold.
const MOST_TOKENS: usize = 512;

#[derive(Serialize)]
struct Report {
    parameters: ArrayConfig,
    model: String,
    simulator: String,
    tokens: usize,
    passes: Vec<Pass>,
    back_to_back: Figures,
    back_to_back_jobs: usize,
    mismatches: u64,
}

/// One run of the model.
#[derive(Serialize)]
struct Pass {
    /// Chance that a stream stalls in a cycle, in percent.
    stalls: f64,
    cycles: u64,
    cycles_per_second: f64,
    seconds: f64,
    products: Figures,
    quantizations: Figures,
    layers: Vec<Layer>,
    logits: usize,
    logits_differ: usize,
}

/// A matrix, all repetitions together.
#[derive(Serialize)]
struct Layer {
    name: String,
    features: usize,
    k: usize,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize, Default)]
struct Figures {
    runs: usize,
    results: u64,
    mismatches: u64,
    cycles: u64,
    steps: u64,
    fills: u64,
    waits_weights: u64,
    waits_activations: u64,
    waits_results: u64,
    /// Of the processing elements between first and last step.
    utilisation: f64,
    /// Of the processing elements with fill and drain.
    utilisation_overall: f64,
    pairs_fp4_fp4: u64,
    pairs_fp4_fp8: u64,
    pairs_fp8_fp4: u64,
    pairs_fp8_fp8: u64,
    quantized_fp4: u64,
    quantized_fp8: u64,
    bytes_weights: u64,
    bytes_activations: u64,
    bytes_elements: u64,
    bytes_results: u64,
    bytes_packed: u64,
}

impl Figures {
    fn new(effort: &Effort, elements: usize, runs: usize, results: u64, mismatches: u64) -> Self {
        Self {
            runs,
            results,
            mismatches,
            cycles: effort.busy,
            steps: effort.steps,
            fills: effort.fills,
            waits_weights: effort.waits[0],
            waits_activations: effort.waits[1],
            waits_results: effort.waits[2],
            utilisation: effort.sustained(elements),
            utilisation_overall: effort.overall(elements),
            pairs_fp4_fp4: effort.pairs[0],
            pairs_fp4_fp8: effort.pairs[1],
            pairs_fp8_fp4: effort.pairs[2],
            pairs_fp8_fp8: effort.pairs[3],
            quantized_fp4: effort.quantized[0],
            quantized_fp8: effort.quantized[1],
            bytes_weights: effort.bytes[0],
            bytes_activations: effort.bytes[1],
            bytes_elements: effort.bytes[2],
            bytes_results: effort.bytes[3],
            bytes_packed: effort.bytes[4],
        }
    }

    fn of(runs: &[&LayerRun], elements: usize) -> Self {
        let mut effort = Effort::default();
        for run in runs {
            effort.add(&run.counters);
        }
        Self::new(
            &effort,
            elements,
            runs.len(),
            runs.iter().map(|run| run.results).sum(),
            runs.iter().map(|run| run.mismatches).sum(),
        )
    }

    fn cells(&self) -> Vec<String> {
        vec![
            count(self.steps),
            count(self.cycles),
            percent(self.utilisation),
            percent(self.utilisation_overall),
            count(self.waits_weights),
            count(self.waits_results),
            count(self.bytes_weights),
            count(self.bytes_results),
            self.mismatches.to_string(),
        ]
    }
}

const HEADER: [&str; 11] = [
    "matrix",
    "N x K",
    "steps",
    "cycles",
    "utilisation",
    "with fill and drain",
    "waits for weights",
    "for results",
    "bytes weights",
    "bytes results",
    "mismatches",
];

/// Runs the command.
pub fn run(arguments: &Cosim, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let config = arguments.array.config()?;
    let prepared = Prepared::open(
        arguments.model.as_deref(),
        &ModelArguments {
            calibration_windows: Some(2),
            ..Default::default()
        },
    )?;
    let shape = *prepared.model.config();
    let widest = shape.hidden.max(shape.ffn).div_ceil(golden::format::BLOCK);
    if widest > config.weight_blocks {
        anyhow::bail!(
            "--weight-blocks {}: the model's rows have up to {widest} blocks",
            config.weight_blocks
        );
    }
    let room = config.act_blocks / widest * config.cols;
    if arguments.tokens == 0 || arguments.tokens > room.min(MOST_TOKENS) {
        anyhow::bail!(
            "--tokens {}: the activation memory (--act-blocks {}) holds 1 to {} tokens of this model",
            arguments.tokens,
            config.act_blocks,
            room.min(MOST_TOKENS)
        );
    }
    let mut tokens = prepared.reader.read("valid")?;
    tokens.truncate(arguments.tokens);
    let name = prepared.name.clone();
    let calibrated = prepared.calibrate(output)?;
    let quantized = prepared.quantize(
        WeightOptions::new(Scheme::Fgmp {
            fp8_share: Share::FGMP,
        }),
        &calibrated,
    )?;

    let verilator = Verilator::find()?;
    let design = Design::from(&emit_accelerator(config)?);
    let spinner = output.spinner("compiling the Verilog");
    let start = Instant::now();
    let compiled = verilator.compile(&design, Waveform::None)?;
    spinner.finish_and_clear();
    if !compiled.from_cache {
        output.line(format!(
            "compiled the Verilog in {:.1} s (kept for the next time)",
            start.elapsed().as_secs_f64()
        ));
    }
    let simulator = verilator.name();
    output.line(format!(
        "{name}, {} tokens, every linear layer on {} x {} processing elements, {} weight port{}, quantizer of {} element{} a cycle",
        tokens.len(),
        config.rows,
        config.cols,
        config.weight_ports,
        if config.weight_ports == 1 { "" } else { "s" },
        config.quantizer_lanes,
        if config.quantizer_lanes == 1 { "" } else { "s" },
    ));

    let mut passes = Vec::new();
    let mut back = None;
    let chances = if arguments.stalls > 0.0 {
        vec![0.0, arguments.stalls]
    } else {
        vec![0.0]
    };
    for stalls in chances {
        let chance = (stalls / 100.0 * 256.0).round() as u8;
        let bench = AcceleratorBench::new(
            compiled.start(1)?,
            config,
            Stalls {
                inputs: chance,
                outputs: chance,
                seed,
            },
        )?;
        let (pass, mut bench, inputs) =
            one_pass(&quantized, &tokens, bench, config, stalls, output)?;
        print_pass(&pass, output);
        if stalls == 0.0 {
            let spinner = output.spinner("the same products back to back");
            let first: Vec<_> = inputs
                .into_iter()
                .filter(|(site, _)| site.repetition == 0)
                .collect();
            let outcome = back_to_back(&quantized, &mut bench, &first)?;
            spinner.finish_and_clear();
            back = Some(outcome);
        }
        passes.push(pass);
    }
    let back = back.context("the first pass runs without stalls")?;
    let elements = config.rows * config.cols;
    let back_figures = Figures::new(
        &back.effort,
        elements,
        back.jobs,
        back.results,
        back.mismatches,
    );
    output.line(format!(
        "\n{} products of one repetition back to back, inputs quantized on the way: {} cycles, {} of them steps ({}), {} mismatches",
        back.jobs,
        count(back_figures.cycles),
        count(back_figures.steps),
        percent(back_figures.utilisation_overall),
        back.mismatches
    ));
    let mismatches = back.mismatches
        + passes
            .iter()
            .map(|pass| {
                pass.products.mismatches + pass.quantizations.mismatches + pass.logits_differ as u64
            })
            .sum::<u64>();
    output.line(format!("{mismatches} mismatches"));
    output.json(&Report {
        parameters: config,
        model: name,
        simulator,
        tokens: tokens.len(),
        passes,
        back_to_back: back_figures,
        back_to_back_jobs: back.jobs,
        mismatches,
    })?;
    Ok(Outcome::of_check(mismatches == 0))
}

type Inputs = Vec<(Site, Vec<half::bf16>)>;

fn one_pass(
    model: &QuantizedModel,
    tokens: &[u32],
    bench: AcceleratorBench<VerilatorSim>,
    config: ArrayConfig,
    stalls: f64,
    output: &Output,
) -> anyhow::Result<(Pass, AcceleratorBench<VerilatorSim>, Inputs)> {
    let shape = *model.config();
    let progress = output.progress("inputs through the accelerator", shape.sites() as u64);
    let start = Instant::now();
    let run = run_model(model, tokens, bench, || progress.inc(1))?;
    progress.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let logits = model.trunk().logits(&run.hidden);
    let golden = forward(
        model,
        tokens,
        &mut KvCache::new(),
        &mut Tally::new(&shape),
        |_, _| (),
    )?;
    let expected = model.trunk().logits(&golden);
    let logits_differ = logits
        .iter()
        .zip(&expected)
        .filter(|(logit, expected)| logit.to_bits() != expected.to_bits())
        .count();

    let elements = config.rows * config.cols;
    let mut layers = Vec::new();
    for layer in 0..shape.layers {
        for matrix in Matrix::ALL {
            let runs: Vec<&LayerRun> = run
                .runs
                .iter()
                .filter(|run| run.site.layer == layer && run.matrix == Some(matrix))
                .collect();
            let Some(first) = runs.first() else { continue };
            layers.push(Layer {
                name: matrix
                    .tensor_name(layer)
                    .trim_start_matches("model.layers.")
                    .trim_end_matches(".weight")
                    .to_owned(),
                features: first.features,
                k: first.k,
                figures: Figures::of(&runs, elements),
            });
        }
    }
    let (products, quantizations): (Vec<&LayerRun>, Vec<&LayerRun>) =
        run.runs.iter().partition(|run| run.matrix.is_some());
    let cycles = run.bench.cycles();
    let pass = Pass {
        stalls,
        cycles,
        cycles_per_second: cycles as f64 / seconds,
        seconds,
        products: Figures::of(&products, elements),
        quantizations: Figures::of(&quantizations, elements),
        layers,
        logits: logits.len(),
        logits_differ: logits_differ + logits.len().abs_diff(expected.len()),
    };
    Ok((pass, run.bench, run.inputs))
}

fn print_pass(pass: &Pass, output: &Output) {
    output.line(if pass.stalls == 0.0 {
        "\nNo stalls".to_owned()
    } else {
        format!(
            "\nEvery stream stalls in {} % of the cycles, at random",
            pass.stalls
        )
    });
    let mut rows: Vec<Vec<String>> = pass
        .layers
        .iter()
        .map(|layer| {
            let mut cells = vec![
                layer.name.clone(),
                format!("{} x {}", layer.features, layer.k),
            ];
            cells.extend(layer.figures.cells());
            cells
        })
        .collect();
    let mut total = vec!["all".to_owned(), String::new()];
    total.extend(pass.products.cells());
    rows.push(total);
    output.table(&HEADER, &rows);
    let least = pass
        .layers
        .iter()
        .map(|layer| layer.figures.utilisation)
        .fold(1.0, f64::min);
    let products = &pass.products;
    let quantizations = &pass.quantizations;
    output.line(format!(
        "least utilisation of a layer {}; block pairs FP4xFP4 {}, FP4xFP8 {}, FP8xFP4 {}, FP8xFP8 {} (weight first)",
        percent(least),
        count(products.pairs_fp4_fp4),
        count(products.pairs_fp4_fp8),
        count(products.pairs_fp8_fp4),
        count(products.pairs_fp8_fp8),
    ));
    output.line(format!(
        "inputs quantized by the hardware: {} blocks FP4, {} FP8, in {} cycles; {} bytes in, {} bytes out packed, {} mismatches",
        count(quantizations.quantized_fp4),
        count(quantizations.quantized_fp8),
        count(quantizations.cycles),
        count(quantizations.bytes_elements),
        count(quantizations.bytes_packed),
        quantizations.mismatches
    ));
    output.line(format!(
        "{} results, {} logits, {} of them differ; {} cycles at {} cycles/s",
        count(products.results),
        count(pass.logits as u64),
        pass.logits_differ,
        count(pass.cycles),
        count(pass.cycles_per_second as u64)
    ));
}
