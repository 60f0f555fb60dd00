//! `fgmp speed --cosim`: speculative decoding on the simulated hardware.

use std::time::Instant;

use anyhow::bail;
use golden::model::{ModelError, QuantizedModel};
use golden::speed::{Choice, DecodeError, sequential};
use hdl::build::emit_speed;
use hdl::speed::SpeedConfig;
use serde::Serialize;
use testbench::accelerator::Stalls;
use testbench::design::Design;
use testbench::speed::{PassRecord, PlayedDecoder, SpeedBench, SpeedError, decode, play, program};
use testbench::verilator::{CompiledModel, Verilator, VerilatorSim, Waveform};

use crate::arguments::Speed;
use crate::output::{Output, count};

/// What decoding on the hardware took.
#[derive(Serialize)]
pub(super) struct Cosimulation {
    pub(super) hardware: SpeedConfig,
    pub(super) simulator: String,
    pub(super) speculative: Run,
    pub(super) sequential: Run,
    /// Cycles of a pass by its rows, as measured in these and some more passes; index 0 is no row.
    pub(super) cycles_by_rows: Vec<f64>,
    pub(super) tokens_equal: bool,
    pub(super) mismatches: u64,
    pub(super) fewer_cycles: f64,
    pub(super) fewer_weight_bytes: f64,
    seconds: f64,
}

/// One way of decoding.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) tokens: Vec<u32>,
    pub(super) passes: usize,
    pub(super) rows: usize,
    /// Clock cycles.
    pub(super) cycles: u64,
    /// Of them with a job of the accelerator outstanding.
    pub(super) busy: u64,
    /// Bytes that the weight streams brought.
    pub(super) weight_bytes: u64,
    pub(super) results: u64,
}

impl Run {
    fn new(tokens: Vec<u32>, passes: &[PassRecord], cycles: u64, results: u64) -> Self {
        Self {
            tokens,
            passes: passes.len(),
            rows: passes.iter().map(|pass| pass.rows).sum(),
            cycles,
            busy: passes.iter().map(|pass| pass.busy).sum(),
            weight_bytes: passes.iter().map(|pass| pass.weight_bytes).sum(),
            results,
        }
    }

    fn per_token(&self, what: u64) -> f64 {
        what as f64 / self.tokens.len().max(1) as f64
    }

    pub(super) fn cycles_per_token(&self) -> f64 {
        self.per_token(self.cycles)
    }
}

fn speed_error(error: DecodeError<ModelError>) -> SpeedError {
    match error {
        DecodeError::Model(error) => error.into(),
        DecodeError::Limits { source, .. } => source.into(),
        DecodeError::NoSlots => ModelError::Config(error.to_string()).into(),
    }
}

/// What is to be decoded.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) tokens: usize,
    pub(super) end: Option<u32>,
    pub(super) choice: Choice,
}

/// The hardware, compiled.
pub(super) struct Hardware {
    config: SpeedConfig,
    simulator: String,
    compiled: CompiledModel,
}

impl Hardware {
    /// Emits and compiles the hardware for a model.
    pub(super) fn new(
        arguments: &Speed,
        model: &QuantizedModel,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let shape = model.config();
        let bits = |most: usize| (usize::BITS - most.saturating_sub(1).leading_zeros()).max(1);
        let config = SpeedConfig {
            array: arguments.array.config()?,
            repetitions: shape.repetitions,
            // A limit is one behind the last position.
            position_bits: bits(shape.context + 2) as usize,
            token_bits: bits(shape.vocabulary) as usize,
            program_words: program(model)?
                .words()
                .len()
                .next_power_of_two()
                .max(SpeedConfig::default().program_words),
        };
        let verilator = Verilator::find()?;
        let design = Design::from(&emit_speed(config)?);
        let spinner = output.spinner("compiling the Verilog");
        let begun = Instant::now();
        let compiled = verilator.compile(&design, Waveform::None)?;
        spinner.finish_and_clear();
        if !compiled.from_cache {
            output.line(format!(
                "compiled the Verilog in {:.1} s (kept for the next time)",
                begun.elapsed().as_secs_f64()
            ));
        }
        Ok(Self {
            config,
            simulator: verilator.name(),
            compiled,
        })
    }

    /// Decodes a prompt speculatively and token by token, and runs passes of 1 to `most_rows` rows.
    pub(super) fn run(
        &self,
        model: &QuantizedModel,
        job: Job<'_>,
        most_rows: usize,
        output: &Output,
    ) -> anyhow::Result<Cosimulation> {
        let Job {
            prompt,
            tokens,
            end,
            choice,
        } = job;
        let begun = Instant::now();
        let progress = output.progress("co-simulating", (4 * tokens + 3 * most_rows) as u64);
        let step = |_: &PassRecord| progress.inc(1);
        let simulator = self.compiled.start(1)?;
        let mut bench: SpeedBench<'_, VerilatorSim> =
            SpeedBench::new(simulator, self.config, model, Stalls::default())?;
        let fast = decode(&mut bench, prompt, tokens, end, choice, step)?;
        let alone = |decoder: &mut PlayedDecoder<'_>| {
            let start = decoder.add(prompt, tokens)?;
            let run = sequential(decoder, &[start], end, 1).map_err(speed_error)?;
            Ok(run.tokens.concat())
        };
        let plain = play(&mut bench, choice, step, alone)?;
        let mut records: Vec<PassRecord> = fast.passes.clone();
        records.extend(&plain.passes);
        let mut mismatches = fast.mismatches + plain.mismatches;
        for rows in 1..=most_rows {
            if records.iter().any(|pass| pass.rows == rows) {
                continue;
            }
            let side_by_side = play(&mut bench, choice, step, |decoder| {
                let starts = (0..rows)
                    .map(|_| decoder.add(prompt, 1))
                    .collect::<Result<Vec<_>, _>>()?;
                let run = sequential(decoder, &starts, end, rows).map_err(speed_error)?;
                Ok(run.tokens)
            })?;
            mismatches += side_by_side.mismatches;
            records.extend(side_by_side.passes);
        }
        progress.finish_and_clear();
        let cycles_by_rows = (0..=most_rows)
            .map(|rows| {
                let of: Vec<u64> = records
                    .iter()
                    .filter(|pass| pass.rows == rows)
                    .map(|pass| pass.cycles)
                    .collect();
                of.iter().sum::<u64>() as f64 / of.len().max(1) as f64
            })
            .collect();
        let speculative = Run::new(fast.output, &fast.passes, fast.cycles, fast.results);
        let sequential = Run::new(plain.output, &plain.passes, plain.cycles, plain.results);
        if sequential.tokens.is_empty() || speculative.cycles == 0 {
            bail!("nothing was decoded on the hardware");
        }
        Ok(Cosimulation {
            hardware: self.config,
            simulator: self.simulator.clone(),
            tokens_equal: speculative.tokens == sequential.tokens,
            mismatches,
            fewer_cycles: sequential.cycles_per_token() / speculative.cycles_per_token(),
            fewer_weight_bytes: sequential.per_token(sequential.weight_bytes)
                / speculative.per_token(speculative.weight_bytes),
            speculative,
            sequential,
            cycles_by_rows,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

impl Cosimulation {
    /// Whether everything agreed.
    pub(super) const fn agrees(&self) -> bool {
        self.tokens_equal && self.mismatches == 0
    }

    pub(super) fn print(&self, output: &Output) {
        let array = &self.hardware.array;
        output.line(format!(
            "\non the hardware: {} stages, {} x {} processing elements, quantizer of {} element{} a cycle, in {}",
            self.hardware.repetitions,
            array.rows,
            array.cols,
            array.quantizer_lanes,
            if array.quantizer_lanes == 1 { "" } else { "s" },
            self.simulator,
        ));
        let row = |way: &str, run: &Run| {
            vec![
                way.to_owned(),
                count(run.tokens.len() as u64),
                count(run.passes as u64),
                count(run.rows as u64),
                count(run.cycles),
                count(run.cycles_per_token().round() as u64),
                count(run.per_token(run.weight_bytes).round() as u64),
                count(run.results),
            ]
        };
        output.table(
            &[
                "decoding",
                "tokens",
                "passes",
                "rows",
                "cycles",
                "cycles a token",
                "weight bytes a token",
                "results compared",
            ],
            &[
                row("speculative", &self.speculative),
                row("token by token", &self.sequential),
            ],
        );
        output.line(format!(
            "{:.3} times fewer cycles, {:.3} times fewer weight bytes; {} mismatches, tokens {} ({:.1} s)",
            self.fewer_cycles,
            self.fewer_weight_bytes,
            self.mismatches,
            if self.tokens_equal { "equal" } else { "DIFFER" },
            self.seconds,
        ));
    }
}
