//! The emitted core in a simulator, and what is run through it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use golden::model::{Config, Matrix, QuantizedModel, Site};
use half::bf16;
use hdl::build::{emit_core, simulated_core};
use hdl::config::ArrayConfig;
use serde::Serialize;
use testbench::array::{ArrayBench, Drive, Waves};
use testbench::design::Design;
use testbench::quantizer::{Batch, QuantizerBench, Row};
use testbench::report::{Coverage, FirstMismatch, PairsByMode, QuantizerCoverage, Report};
use testbench::rust_sim::RustSim;
use testbench::simulator::{SimError, Simulator};
use testbench::tool;
use testbench::verilator::{Verilator, Waveform};

use crate::arguments::SimulatorName;
use crate::commands::matmul::site_input;
use crate::output::{Output, count};

/// Longest random tile in steps: enough to see long sums, short enough that results keep coming.
const LONGEST_TILE: usize = 64;

/// Chances of holding back, in 256ths, for the quantization unit's streams: elements, payload, scales, tags.
const QUANTIZER_STALLS: [u8; 4] = [30, 60, 60, 60];

/// The core of a configuration and what simulates it.
pub struct Hardware {
    config: ArrayConfig,
    design: Design,
    verilator: Option<Verilator>,
    modules: usize,
}

impl Hardware {
    /// Emits the core and chooses the simulator.
    pub fn new(
        config: ArrayConfig,
        simulator: SimulatorName,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let bundle = emit_core(config)?;
        let verilator = match simulator {
            SimulatorName::RustHdl => None,
            SimulatorName::Verilator => Some(Verilator::find()?),
            SimulatorName::Auto => match find_verilator_and_compiler() {
                Ok(verilator) => Some(verilator),
                Err(SimError::ToolMissing(missing)) => {
                    output.line(format!("{missing}; running in rust-hdl's own simulator instead: slower, the same checks"));
                    None
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Self {
            config,
            design: Design::from(&bundle),
            verilator,
            modules: bundle.modules.len(),
        })
    }

    /// Whether Verilator runs the design.
    pub fn is_fast(&self) -> bool {
        self.verilator.is_some()
    }

    /// Distinct modules of the core.
    pub fn modules(&self) -> usize {
        self.modules
    }

    /// Bytes of Verilog.
    pub fn bytes(&self) -> usize {
        self.design
            .sources
            .iter()
            .map(|source| source.text.len())
            .sum()
    }

    /// Builds the model if it is not in the cache; the seconds that it took, if it was built.
    pub fn compile(&self, output: &Output) -> anyhow::Result<Option<f64>> {
        let Some(verilator) = &self.verilator else {
            return Ok(None);
        };
        let spinner = output.spinner("compiling the Verilog");
        let start = std::time::Instant::now();
        let model = verilator.compile(&self.design, Waveform::None)?;
        spinner.finish_and_clear();
        Ok((!model.from_cache).then(|| start.elapsed().as_secs_f64()))
    }

    fn simulator(&self) -> anyhow::Result<Box<dyn Simulator>> {
        Ok(match &self.verilator {
            Some(verilator) => Box::new(verilator.simulate(&self.design)?),
            None => Box::new(RustSim::new(
                simulated_core(self.config)?,
                self.design.ports.clone(),
            )?),
        })
    }

    /// Where the waveform of a failing case goes: only Verilator records one.
    fn waves(&self, name: &str) -> Option<Waves> {
        let verilator = self.verilator.clone()?;
        let file = PathBuf::from(format!("fgmp-mismatch-{name}.fst"));
        Some(Waves {
            verilator,
            design: self.design.clone(),
            file,
        })
    }

    /// Random tiles with at least `pairs` block pairs, the same number of each mode.
    pub fn random(
        &self,
        pairs: u64,
        drive: Drive,
        seed: u64,
        output: &Output,
    ) -> anyhow::Result<Part> {
        let mut bench = ArrayBench::new(self.simulator()?)?.drive(drive);
        if let Some(waves) = self.waves("random") {
            bench = bench.waves(waves);
        }
        let progress = output.progress("random block pairs", pairs);
        let longest = LONGEST_TILE.min(self.config.max_k / golden::format::BLOCK);
        let report = bench.random(pairs.div_ceil(4), longest, seed, |done| {
            progress.set_position(done)
        })?;
        progress.finish_and_clear();
        let name = if drive.out_stall == 0 {
            "random, full speed"
        } else {
            "random, stalled streams"
        };
        Ok(Part::array(name.to_owned(), report))
    }

    /// A matrix of a model times the real activations of one site, both quantized.
    pub fn layer(
        &self,
        model: &QuantizedModel,
        layer: usize,
        matrix: Matrix,
        repetition: usize,
        tokens: &[u32],
        output: &Output,
    ) -> anyhow::Result<Part> {
        let site = Site {
            repetition,
            layer,
            input: matrix.input(),
        };
        let name = matrix.tensor_name(layer);
        let weights = model
            .packed(layer, matrix)
            .with_context(|| format!("{name}: the model has no such matrix"))?;
        let x = site_input(model, site, tokens, tokens.len())?;
        let activations = model
            .quantize_input(site, &x)
            .with_context(|| format!("{name}: the model has no such input"))?;
        let scale = model
            .output_scale(site, matrix)
            .with_context(|| format!("{name}: has no output scale"))?;
        let mut bench = ArrayBench::new(self.simulator()?)?.output_scale(scale);
        if let Some(waves) = self.waves("layer") {
            bench = bench.waves(waves);
        }
        let pairs = (weights.block_count() * activations.rows()) as u64;
        let short = name
            .trim_end_matches(".weight")
            .trim_start_matches("model.")
            .to_owned();
        let progress = output.progress(&short, pairs);
        let report = bench.layer(weights, &activations, |done| progress.set_position(done))?;
        progress.finish_and_clear();
        Ok(Part::array(short, report))
    }

    /// Random blocks through the quantization unit, streams stalled.
    pub fn quantizer(&self, blocks: u64, seed: u64, output: &Output) -> anyhow::Result<Part> {
        let mut bench = QuantizerBench::new(self.simulator()?)?.stalls(QUANTIZER_STALLS);
        if let Some(waves) = self.waves("quantizer") {
            bench = bench.waves(waves);
        }
        let progress = output.progress("quantizing random blocks", blocks);
        let report = bench.random(blocks, seed, |done| progress.set_position(done))?;
        progress.finish_and_clear();
        Ok(Part::quantizer("quantizer, random".to_owned(), report))
    }

    /// The real activations of one site through the quantization unit, at full speed.
    pub fn quantizer_site(
        &self,
        model: &QuantizedModel,
        site: Site,
        tokens: &[u32],
        output: &Output,
    ) -> anyhow::Result<Part> {
        let quantizer = model
            .quantizer(site)
            .context("the model has no such input")?;
        let x = site_input(model, site, tokens, tokens.len())?;
        let rows = x
            .chunks_exact(quantizer.channels())
            .map(|row| Row {
                x: row.iter().map(|&x| bf16::from_f32(x)).collect(),
                sensitivity: quantizer.sensitivity().codes.clone(),
            })
            .collect();
        let batch = Batch {
            scale: quantizer.input_scale(),
            threshold: quantizer.policy().threshold(),
            rows,
        };
        let mut bench = QuantizerBench::new(self.simulator()?)?;
        if let Some(waves) = self.waves("quantizer") {
            bench = bench.waves(waves);
        }
        let spinner = output.spinner("quantizing real activations");
        let report = bench.batches([batch], 1, |_| ())?;
        spinner.finish_and_clear();
        let name = format!("quantizer, layers.{} {}", site.layer, input_name(site));
        Ok(Part::quantizer(name, report))
    }

    /// Records a waveform of a few random tiles.
    pub fn trace(&self, file: &Path, seed: u64) -> anyhow::Result<()> {
        let Some(verilator) = &self.verilator else {
            bail!("--trace needs Verilator: rust-hdl's simulator records no waveform here");
        };
        let mut simulator = verilator
            .compile(&self.design, Waveform::of_file(file))?
            .start(1)?;
        simulator.start_trace(file)?;
        let pairs = 4 * (self.config.rows * self.config.cols) as u64;
        ArrayBench::new(simulator)?
            .drive(Drive::stalling(seed))
            .random(pairs, 4, seed, |_| ())?;
        Ok(())
    }
}

fn input_name(site: Site) -> &'static str {
    use golden::model::Input;
    match site.input {
        Input::Attention => "attention input",
        Input::AttentionOutput => "attention output",
        Input::Mlp => "feed-forward input",
        Input::MlpDown => "feed-forward hidden",
    }
}

/// Verilator with what it takes to build its models: without any of them the other simulator serves.
fn find_verilator_and_compiler() -> Result<Verilator, SimError> {
    let verilator = Verilator::find()?;
    tool::MAKE.find()?;
    tool::CXX.find()?;
    Ok(verilator)
}

/// One run of a bench.
#[derive(Serialize)]
pub struct Part {
    /// What was run.
    pub name: String,
    /// What ran the design.
    pub simulator: String,
    /// Block pairs (array) or blocks (quantization unit).
    pub vectors: u64,
    /// Results compared.
    pub results: u64,
    /// Results that differ.
    pub mismatches: u64,
    /// Clock cycles simulated.
    pub cycles: u64,
    /// Wall time, golden model included.
    pub seconds: f64,
    /// Cycles per second of simulation alone.
    pub cycles_per_second: f64,
    /// Block pairs or blocks per second of the whole run.
    pub vectors_per_second: f64,
    /// Array: pairs by mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs_by_mode: Option<PairsByMode>,
    /// Array: classes of elements and scales seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Quantization unit: kinds of block seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantizer_coverage: Option<QuantizerCoverage>,
    /// The smallest failing case.
    pub first_mismatch: Option<FirstMismatch>,
}

impl Part {
    fn array(name: String, report: Report) -> Self {
        Self {
            name,
            simulator: report.simulator,
            vectors: report.pairs_by_mode.total(),
            results: report.vectors,
            mismatches: report.mismatches,
            cycles: report.cycles,
            seconds: report.seconds,
            cycles_per_second: report.cycles_per_second,
            vectors_per_second: report.pairs_per_second,
            pairs_by_mode: Some(report.pairs_by_mode),
            coverage: Some(report.coverage),
            quantizer_coverage: None,
            first_mismatch: report.first_mismatch,
        }
    }

    fn quantizer(name: String, report: Report<QuantizerCoverage>) -> Self {
        Self {
            name,
            simulator: report.simulator,
            vectors: report.coverage.fp4_blocks
                + report.coverage.fp8_blocks
                + report.coverage.nan_blocks,
            results: report.vectors,
            mismatches: report.mismatches,
            cycles: report.cycles,
            seconds: report.seconds,
            cycles_per_second: report.cycles_per_second,
            vectors_per_second: report.pairs_per_second,
            pairs_by_mode: None,
            coverage: None,
            quantizer_coverage: Some(report.coverage),
            first_mismatch: report.first_mismatch,
        }
    }
}

/// The runs as a table, and the first failing case of each.
pub fn table(parts: &[Part], output: &Output) {
    let rows: Vec<Vec<String>> = parts
        .iter()
        .map(|part| {
            vec![
                part.name.clone(),
                count(part.vectors),
                count(part.results),
                count(part.cycles),
                count(part.cycles_per_second as u64),
                count(part.vectors_per_second as u64),
                part.mismatches.to_string(),
            ]
        })
        .collect();
    output.table(
        &[
            "run",
            "block pairs",
            "results",
            "cycles",
            "cycles/s",
            "pairs/s",
            "mismatches",
        ],
        &rows,
    );
    for part in parts {
        if let Some(first) = &part.first_mismatch {
            output.line(format!(
                "\n{}: first mismatch\n{}",
                part.name, first.description
            ));
            if let Some(file) = &first.waveform {
                output.line(format!("waveform: {}", file.display()));
            }
        }
    }
}

/// "0 mismatches", and in how much.
pub fn verdict(parts: &[Part]) -> String {
    let mismatches: u64 = parts.iter().map(|part| part.mismatches).sum();
    let vectors: u64 = parts.iter().map(|part| part.vectors).sum();
    let results: u64 = parts.iter().map(|part| part.results).sum();
    format!(
        "{} block pairs and blocks, {} results compared bit for bit: {mismatches} mismatches",
        count(vectors),
        count(results)
    )
}

/// The layer and matrix of a name such as `model.layers.0.mlp.up_proj`, with or without `model.` and `.weight`.
pub fn find_matrix(config: &Config, name: &str) -> anyhow::Result<(usize, Matrix)> {
    let plain = |name: &str| {
        name.trim_start_matches("model.")
            .trim_end_matches(".weight")
            .to_owned()
    };
    let layers = config.layers;
    for layer in 0..layers {
        for matrix in Matrix::ALL {
            if plain(&matrix.tensor_name(layer)) == plain(name) {
                return Ok((layer, matrix));
            }
        }
    }
    bail!(
        "--layer {name}: the model has no such matrix; it has model.layers.0 to {} with {}",
        layers.saturating_sub(1),
        Matrix::ALL
            .map(|matrix| plain(&matrix.tensor_name(0)).replace("layers.0.", ""))
            .join(", ")
    )
}
