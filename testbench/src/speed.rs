//! Speculative decoding on the simulated hardware.
//!
//! [`SpeedBench`] is the driver of SPEED's top. The hardware decides which rows a pass has, starts the jobs of the group of layers, and commits tokens; the golden engine, in a thread of its
//! own, computes what lies between the linear layers and the classifier, from the hardware's own results. Every result, every row and every change is compared with the golden model's as well.
//!
//! * [`decode`] decodes speculatively: the hardware's pipeline holds the tokens in flight.
//! * [`play`] runs any schedule of passes: it gives a `golden::speed::Decoder` whose passes are run by the same hardware without its pipeline, so that `golden::speed::sequential` and
//!   `golden::speed::decode` of several sequences can be timed on it.

use std::sync::{Mutex, mpsc};

use golden::format::BLOCK;
use golden::model::{Config, Input, LanguageModel, ModelError, QuantizedModel, Site, Tally, Trunk};
use golden::requantize::OutputScale;
use golden::speed::{
    Choice, Counters, Decoder, Limits, LimitsError, ModelDecoder, Pipeline, Resolution, Row, Start,
};
use half::bf16;
use hdl::accelerator::registers::place as counters;
use hdl::speed::SpeedConfig;
use hdl::speed::program::{Activations, Program};
use hdl::speed::registers::{REGISTERS, address, bits, place};

use crate::accelerator::model::Effort;
use crate::accelerator::{AcceleratorBench, AcceleratorError, Job, Sink, Source, Stalls, Word};
use crate::simulator::Simulator;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// The accelerator or its simulation.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// The model itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The sequence can't be decoded.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The inputs' quantizers differ between repetitions.
    #[error(
        "layer {layer}, input {input:?}: repetition {repetition} is quantized otherwise than the first; a job has one quantizer for all its rows, so all repetitions need one calibration (Calibration::run_alike)"
    )]
    NotAlike {
        /// Layer of the group.
        layer: usize,
        /// Its input.
        input: Input,
        /// The repetition that differs.
        repetition: usize,
    },
    /// The model has another number of repetitions than the hardware has stages.
    #[error("the model has {model} repetitions, the hardware {hardware} stages")]
    Repetitions {
        /// The model's.
        model: usize,
        /// The hardware's.
        hardware: usize,
    },
    /// The program doesn't fit.
    #[error("the program of a pass takes {words} words, the memory has {memory}")]
    Program {
        /// Words of the program.
        words: usize,
        /// Words of the memory.
        memory: usize,
    },
    /// A number doesn't fit the hardware's entries.
    #[error("{what} {value} is too large for the hardware's {bits} bits")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// It.
        value: usize,
        /// Bits as built.
        bits: usize,
    },
    /// The player stopped.
    #[error("the player stopped: ERROR is {0:#x}")]
    Fault(u32),
    /// The hardware refused to start.
    #[error("the hardware refused to start: something is under way, or no position is left")]
    Refused,
    /// The golden engine's thread ended by a panic, or without an answer.
    #[error("the golden engine stopped")]
    Engine,
}

/// A pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassRecord {
    /// Its rows.
    pub rows: usize,
    /// Stage of the oldest entry whose class changed.
    pub flip: Option<usize>,
    /// Entries dropped.
    pub flushed: usize,
    /// Clock cycles since the pass before, or the run's begin.
    pub cycles: u64,
    /// Of them those in which the accelerator had a job.
    pub busy: u64,
    /// Bytes of weights fetched.
    pub weight_bytes: u64,
}

/// What a run gave.
#[derive(Debug, Clone, Default)]
pub struct SpeedRun<T> {
    /// What came out: tokens that the hardware committed, or what a schedule's driver returned.
    pub output: T,
    /// Every pass.
    pub passes: Vec<PassRecord>,
    /// The hardware's counters of passes; only of a run of its pipeline, and without positions written and read.
    pub counters: Counters,
    /// The accelerator's cycles, steps, waits and bytes.
    pub effort: Effort,
    /// Clock cycles of the whole run.
    pub cycles: u64,
    /// Results compared.
    pub results: u64,
    /// Results, rows, changes and tokens that differ from the golden model's.
    pub mismatches: u64,
}

/// Drives SPEED's top with one model.
pub struct SpeedBench<'a, S> {
    bench: AcceleratorBench<S>,
    config: SpeedConfig,
    model: &'a QuantizedModel,
    rows: usize,
    classes: usize,
    commits: usize,
}

impl<'a, S: Simulator> SpeedBench<'a, S> {
    /// Finds the ports, resets the design, and writes the program of the model's group of layers.
    ///
    /// # Errors
    /// The design or the model doesn't fit, or the simulation fails.
    pub fn new(
        simulator: S,
        config: SpeedConfig,
        model: &'a QuantizedModel,
        stalls: Stalls,
    ) -> Result<Self, SpeedError> {
        let repetitions = model.config().repetitions;
        if repetitions != config.repetitions {
            return Err(SpeedError::Repetitions {
                model: repetitions,
                hardware: config.repetitions,
            });
        }
        let (value, bits) = (model.config().vocabulary, config.entry_bits());
        if value > 1 << bits {
            let what = "vocabulary";
            return Err(SpeedError::TooLarge { what, value, bits });
        }
        let mut bench = AcceleratorBench::new(simulator, config.array, stalls)?;
        let mut bench = Self {
            rows: bench.add_output("m_axis_row")?,
            classes: bench.add_input("s_axis_class")?,
            commits: bench.add_output("m_axis_commit")?,
            bench,
            config,
            model,
        };
        bench.bench.reset()?;
        bench.load(&program(model)?)?;
        Ok(bench)
    }

    /// The driver of the accelerator inside.
    pub const fn accelerator(&mut self) -> &mut AcceleratorBench<S> {
        &mut self.bench
    }

    /// Writes a program into the memory.
    ///
    /// # Errors
    /// It doesn't fit, or the simulation fails.
    pub fn load(&mut self, program: &Program) -> Result<(), SpeedError> {
        let words = program.words();
        if words.len() > self.config.program_words {
            return Err(SpeedError::Program {
                words: words.len(),
                memory: self.config.program_words,
            });
        }
        self.write(place::PROGRAM_ADDRESS, 0)?;
        for word in words {
            self.write(place::PROGRAM_DATA, word)?;
        }
        Ok(())
    }

    /// Reads a register of the top's own.
    ///
    /// # Errors
    /// The bus or the simulation.
    pub fn read(&mut self, place: usize) -> Result<u32, SpeedError> {
        Ok(self.bench.read_address(address(place))?)
    }

    /// Writes one.
    ///
    /// # Errors
    /// The bus or the simulation.
    pub fn write(&mut self, place: usize, value: u32) -> Result<(), SpeedError> {
        Ok(self.bench.write_bytes(address(place), value, 0xF)?)
    }

    fn status(&mut self, field: &str) -> Result<bool, SpeedError> {
        Ok(bits(place::STATUS, field, self.read(place::STATUS)?) == 1)
    }

    /// A command in `CONTROL`.
    ///
    /// # Errors
    /// The bus or the simulation.
    pub fn command(&mut self, field: &str) -> Result<(), SpeedError> {
        let bit = REGISTERS[place::CONTROL]
            .fields
            .iter()
            .find(|f| f.name == field)
            .map_or(0, |f| 1 << f.low);
        self.write(place::CONTROL, bit)
    }

    /// Begins a sequence.
    ///
    /// # Errors
    /// A number is too large for the hardware, it refuses, or the simulation fails.
    pub fn start(&mut self, start: &Start, end: Option<u32>) -> Result<(), SpeedError> {
        let bits = self.config.entry_bits();
        let last = start.positions.saturating_sub(1);
        for (what, value) in [
            ("token", start.token as usize),
            ("position", last),
            ("end token", end.unwrap_or(0) as usize),
        ] {
            if value >> bits != 0 {
                return Err(SpeedError::TooLarge { what, value, bits });
            }
        }
        self.write(place::POSITION, start.position as u32)?;
        self.write(place::TOKEN, start.token)?;
        self.write(place::LAST_POSITION, last as u32)?;
        self.write(place::END_TOKEN, end.map_or(0, |end| end | 1 << 31))?;
        self.command("START")?;
        if self.status("REFUSED")? {
            return Err(SpeedError::Refused);
        }
        Ok(())
    }

    /// Has the program played once for so many rows.
    ///
    /// # Errors
    /// The hardware refuses, or the simulation fails.
    pub fn play(&mut self, rows: usize) -> Result<(), SpeedError> {
        self.write(place::ROWS, rows as u32)?;
        self.command("PLAY")?;
        if self.status("REFUSED")? {
            return Err(SpeedError::Refused);
        }
        self.queue_weights();
        Ok(())
    }

    /// Waits until the player is idle.
    ///
    /// # Errors
    /// The player stopped because of a fault, nothing moves, or the simulation fails.
    pub fn wait_for_player(&mut self) -> Result<(), SpeedError> {
        while self.status("PLAYING")? {
            self.tick("the program is played")?;
        }
        if self.status("FAULT")? {
            return Err(SpeedError::Fault(self.read(place::ERROR)?));
        }
        Ok(())
    }

    fn tick(&mut self, what: &'static str) -> Result<(), SpeedError> {
        match self.bench.tick_while(what) {
            Err(stuck @ AcceleratorError::Stuck { .. }) => {
                // The player says more, if it was it.
                if self.status("FAULT")? {
                    return Err(SpeedError::Fault(self.read(place::ERROR)?));
                }
                Err(stuck.into())
            }
            other => Ok(other?),
        }
    }

    /// Puts the weights of the whole group on the streams, in the order of the program.
    fn queue_weights(&mut self) {
        let config = *self.model.config();
        for (layer, input) in inputs(&config) {
            for &matrix in input.matrices() {
                let job = Job {
                    tokens: 0,
                    k: config.input_width(input),
                    source: Source::Reuse,
                    weights: self.model.packed(layer, matrix),
                    output_scale: OutputScale::ONE,
                    sink: Sink::Stream,
                    send_packed: false,
                    align: (0, 0, 0),
                };
                self.bench.queue_beats(&job);
            }
        }
    }

    /// Waits for a pass's rows; nothing if the sequence's last token was committed instead.
    fn next_rows(&mut self) -> Result<Option<Vec<Row>>, SpeedError> {
        self.bench.restart_clock();
        let ends = |words: &[Word]| words.last().is_some_and(|word| word.last);
        loop {
            if ends(self.bench.collected(self.rows)) {
                break;
            }
            if ends(self.bench.collected(self.commits)) {
                return Ok(None);
            }
            self.tick("rows are awaited")?;
        }
        self.queue_weights();
        Ok(Some(
            self.bench
                .take_collected(self.rows)
                .iter()
                .map(|word| Row {
                    sequence: 0,
                    repetition: (word.data >> 56) as usize,
                    position: (word.data >> 32 & 0xFF_FFFF) as usize,
                    token: word.data as u32,
                    classify: true,
                })
                .collect(),
        ))
    }

    /// Brings an input's rows, and waits for its products.
    fn products(
        &mut self,
        layer: usize,
        input: Input,
        x: &[f32],
        comparison: &mut Comparison,
        golden: &[Vec<f32>],
    ) -> Result<Vec<Vec<f32>>, SpeedError> {
        let site = Site {
            repetition: 0,
            layer,
            input,
        };
        let Some(quantizer) = self.model.quantizer(site) else {
            return Ok(Vec::new());
        };
        let k = quantizer.channels();
        let x: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let elements = Job {
            tokens: x.len() / k,
            k,
            source: Source::Elements { x: &x, quantizer },
            weights: None,
            output_scale: OutputScale::ONE,
            sink: Sink::Stream,
            send_packed: false,
            align: (0, 0, 0),
        };
        self.bench.restart_clock();
        self.bench.queue_beats(&elements);
        let jobs: Vec<Job<'_>> = input
            .matrices()
            .iter()
            .map(|&matrix| Job {
                weights: self.model.packed(layer, matrix),
                source: Source::Reuse,
                ..elements.clone()
            })
            .collect();
        let words_of = |job: &Job<'_>| job.streamed_results().div_ceil(4);
        let needed = jobs.iter().map(words_of).sum();
        while self.bench.results() < needed {
            self.tick("results are awaited")?;
        }
        let words = self.bench.take_results();
        let mut rest = words.as_slice();
        let mut outputs = Vec::new();
        for (job, golden) in jobs.iter().zip(golden) {
            let (mine, others) = rest.split_at(words_of(job).min(rest.len()));
            rest = others;
            let values = self.bench.arrange(job, mine);
            comparison.results += golden.len() as u64;
            comparison.mismatches += values
                .iter()
                .zip(golden)
                .filter(|(value, golden)| {
                    **value != Some(u64::from(bf16::from_f32(**golden).to_bits()))
                })
                .count() as u64
                + values.len().abs_diff(golden.len()) as u64
                + mine
                    .iter()
                    .rev()
                    .enumerate()
                    .filter(|(behind, word)| word.last != (*behind == 0))
                    .count() as u64;
            outputs.push(
                values
                    .iter()
                    .map(|value| bf16::from_bits(value.map_or(0x7FC0, |v| v as u16)).to_f32())
                    .collect(),
            );
        }
        comparison.mismatches += rest.len() as u64;
        Ok(outputs)
    }

    /// Compares what the last pass changed with what it should have.
    fn compare_change(
        &mut self,
        expected: &Change,
        comparison: &mut Comparison,
    ) -> Result<(), SpeedError> {
        let last = self.read(place::LAST_PASS)?;
        let flip = (bits(place::LAST_PASS, "FLIP", last) == 1)
            .then(|| bits(place::LAST_PASS, "STAGE", last) as usize);
        let Change { resolution, tails } = expected;
        let same = flip == resolution.flip
            && bits(place::LAST_PASS, "FLUSHED", last) as usize == resolution.flushed
            && (bits(place::LAST_PASS, "COMMITTED", last) == 1) == resolution.committed.is_some();
        comparison.mismatches += u64::from(!same);
        for (repetition, &tail) in tails.iter().enumerate() {
            let held = self.read(place::TAIL_0 + repetition)?;
            comparison.mismatches += u64::from(held as usize != tail);
        }
        Ok(())
    }

    fn pass_counters(&mut self) -> Result<Counters, SpeedError> {
        let mut counters = Counters {
            passes: self.read(place::PASSES)?.into(),
            rows: self.read(place::ROWS_RUN)?.into(),
            bubbles: self.read(place::BUBBLES)?.into(),
            flushed: self.read(place::FLUSHED)?.into(),
            flips: vec![0],
            committed: self.read(place::COMMITTED)?.into(),
            ..Counters::default()
        };
        for stage in 1..self.config.repetitions {
            let flips = self.read(place::FLIPS_1 + stage - 1)?;
            counters.flips.push(flips.into());
        }
        Ok(counters)
    }
}

/// Inputs of the group's linear layers, in the order of execution.
fn inputs(config: &Config) -> impl Iterator<Item = (usize, Input)> {
    (0..config.layers).flat_map(|layer| Input::ALL.map(|input| (layer, input)))
}

/// The program of a pass over a model's group of layers.
///
/// # Errors
/// The inputs' quantizers differ between repetitions.
pub fn program(model: &QuantizedModel) -> Result<Program, SpeedError> {
    let config = *model.config();
    let mut program = Program::new();
    for (layer, input) in inputs(&config) {
        let site = |repetition| Site {
            repetition,
            layer,
            input,
        };
        let Some(quantizer) = model.quantizer(site(0)) else {
            continue;
        };
        for repetition in 1..config.repetitions {
            let alike = model.quantizer(site(repetition)).is_some_and(|other| {
                other.scale() == quantizer.scale()
                    && other.policy() == quantizer.policy()
                    && other.sensitivity() == quantizer.sensitivity()
            });
            if !alike {
                return Err(SpeedError::NotAlike {
                    layer,
                    input,
                    repetition,
                });
            }
        }
        let mut sensitivities: Vec<u8> = quantizer
            .sensitivity()
            .codes
            .iter()
            .map(|code| code.to_bits())
            .collect();
        sensitivities.resize(sensitivities.len().next_multiple_of(BLOCK), 0);
        let blocks = quantizer.channels().div_ceil(BLOCK) as u32;
        for (index, &matrix) in input.matrices().iter().enumerate() {
            let scale = model
                .output_scale(site(0), matrix)
                .unwrap_or(OutputScale::ONE);
            let activations = if index == 0 {
                Activations::Elements {
                    input_scale: quantizer.input_scale().get().to_bits(),
                    threshold: quantizer.policy().threshold(),
                    sensitivities: &sensitivities,
                }
            } else {
                Activations::Reuse
            };
            let features = config.matrix_shape(matrix)[0] as u32;
            program.job(features, blocks, scale.get().to_bits(), activations);
        }
    }
    Ok(program)
}

/// What passes take, by the differences of counters.
struct Meter {
    cycle: u64,
    busy: u32,
    weight_bytes: u32,
}

impl Meter {
    /// The pass that just ended; the player must be idle.
    fn pass<S: Simulator>(
        &mut self,
        bench: &mut AcceleratorBench<S>,
        rows: usize,
        resolution: &Resolution,
    ) -> Result<PassRecord, SpeedError> {
        let busy = bench.read(counters::CYCLES_BUSY)?;
        let weight_bytes = bench.read(counters::BYTES_WEIGHTS)?;
        let cycle = bench.cycles();
        let record = PassRecord {
            rows,
            flip: resolution.flip,
            flushed: resolution.flushed,
            cycles: cycle - self.cycle,
            busy: busy.wrapping_sub(self.busy).into(),
            weight_bytes: weight_bytes.wrapping_sub(self.weight_bytes).into(),
        };
        *self = Self {
            cycle,
            busy,
            weight_bytes,
        };
        Ok(record)
    }
}

#[derive(Default)]
struct Comparison {
    results: u64,
    mismatches: u64,
}

/// What a pass should have changed.
struct Change {
    resolution: Resolution,
    tails: Vec<usize>,
}

/// What the golden engine asks of the simulation.
enum Message {
    /// Begin a sequence.
    Begin(Start, Option<u32>),
    /// The rows of the next pass; none if the sequence is done.
    Rows(mpsc::Sender<Option<Vec<Row>>>),
    /// Run a pass of so many rows without the pipeline.
    Play(usize),
    /// The products of an input.
    Products {
        layer: usize,
        input: Input,
        x: Vec<f32>,
        golden: Vec<Vec<f32>>,
        reply: mpsc::Sender<Vec<Vec<f32>>>,
    },
    /// A pass of so many rows has been played.
    Played(usize),
    /// The classes of a pass's rows, and what they change.
    Classes(Vec<u32>, Change),
    /// Rows other than the golden pipeline's came.
    Mismatch,
}

/// The model as the golden engine sees it: products of rows in flight are asked for elsewhere; those of prompts are the golden model's own.
struct Remote<'a> {
    model: &'a QuantizedModel,
    messages: Mutex<mpsc::Sender<Message>>,
}

impl Remote<'_> {
    fn send(&self, message: Message) -> bool {
        match self.messages.lock() {
            Ok(messages) => messages.send(message).is_ok(),
            Err(_) => false,
        }
    }
}

impl LanguageModel for Remote<'_> {
    fn trunk(&self) -> &Trunk {
        self.model.trunk()
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        self.model.project(site, x, tally)
    }

    fn project_rows(
        &self,
        layer: usize,
        input: Input,
        repetitions: &[usize],
        x: &[f32],
        tally: &mut Tally,
    ) -> Vec<Vec<f32>> {
        let golden = self.model.project_rows(layer, input, repetitions, x, tally);
        let (reply, answer) = mpsc::channel();
        let sent = self.send(Message::Products {
            layer,
            input,
            x: x.to_vec(),
            golden: golden.clone(),
            reply,
        });
        // After an error nobody answers any more: the run's result is that error.
        match answer.recv() {
            Ok(products) if sent => products,
            _ => golden,
        }
    }
}

/// Serves the golden engine until it ends.
fn serve<S: Simulator, T: Default + Send>(
    bench: &mut SpeedBench<'_, S>,
    mut progress: impl FnMut(&PassRecord),
    engine: impl FnOnce(&Remote<'_>) -> Result<T, SpeedError> + Send,
) -> Result<SpeedRun<T>, SpeedError> {
    let (messages, served) = mpsc::channel();
    let mut run = SpeedRun::default();
    let mut comparison = Comparison::default();
    bench.bench.clear_counters()?;
    bench.command("CLEAR_COUNTERS")?;
    bench.bench.take_results();
    bench.bench.take_collected(bench.commits);
    let model = bench.model;
    let began = bench.bench.cycles();
    let mut meter = Meter {
        cycle: began,
        busy: 0,
        weight_bytes: 0,
    };
    run.output = std::thread::scope(|scope| {
        let engine = scope.spawn(move || {
            engine(&Remote {
                model,
                messages: Mutex::new(messages),
            })
        });
        let mut serve_one = |message: Message| -> Result<(), SpeedError> {
            match message {
                Message::Begin(start, end) => bench.start(&start, end)?,
                Message::Rows(reply) => {
                    // An engine that has ended wants no answer.
                    drop(reply.send(bench.next_rows()?));
                }
                Message::Play(rows) => bench.play(rows)?,
                Message::Products {
                    layer,
                    input,
                    x,
                    golden,
                    reply,
                } => {
                    let products = bench.products(layer, input, &x, &mut comparison, &golden)?;
                    drop(reply.send(products));
                }
                Message::Played(rows) => {
                    bench.wait_for_player()?;
                    let pass = meter.pass(&mut bench.bench, rows, &Resolution::default())?;
                    progress(&pass);
                    run.passes.push(pass);
                }
                Message::Classes(classes, change) => {
                    bench.wait_for_player()?;
                    let pass = meter.pass(&mut bench.bench, classes.len(), &change.resolution)?;
                    let passes = bench.read(place::PASSES)?;
                    for class in classes {
                        bench.bench.push(bench.classes, class.into());
                    }
                    bench.bench.restart_clock();
                    // The next pass has begun, or this was the last.
                    while bench.read(place::PASSES)? == passes && bench.status("ACTIVE")? {
                        bench.tick("a pass is resolved")?;
                    }
                    bench.compare_change(&change, &mut comparison)?;
                    progress(&pass);
                    run.passes.push(pass);
                }
                Message::Mismatch => comparison.mismatches += 1,
            }
            Ok(())
        };
        let mut failed = None;
        for message in served {
            if let Err(error) = serve_one(message) {
                failed = Some(error);
                break;
            }
        }
        match (failed, engine.join()) {
            (Some(error), _) => Err(error),
            (None, Ok(output)) => output,
            (None, Err(_)) => Err(SpeedError::Engine),
        }
    })?;
    run.cycles = bench.bench.cycles() - began;
    bench.wait_for_player()?;
    run.effort.add(&bench.bench.counters()?);
    run.counters = bench.pass_counters()?;
    if run.counters.passes > 0 {
        // Every row asks for its class.
        run.counters.classified = run.counters.passes;
        for pass in &run.passes {
            let by_rows = &mut run.counters.passes_by_rows;
            by_rows.resize(by_rows.len().max(pass.rows + 1), 0);
            if let Some(passes) = by_rows.get_mut(pass.rows) {
                *passes += 1;
            }
        }
    }
    run.results = comparison.results;
    // Every beat that was brought must have been taken.
    run.mismatches = comparison.mismatches + bench.bench.waiting_beats() as u64;
    Ok(run)
}

/// Decodes speculatively: the hardware's pipeline holds the tokens in flight, commits, and flushes. `progress` sees each pass.
///
/// All of the prompt but its last token is run by the golden engine alone. At most `tokens` are decoded. The output is what the hardware committed.
///
/// # Errors
/// The prompt is empty or too long, the hardware fails, or the simulation.
pub fn decode<S: Simulator>(
    bench: &mut SpeedBench<'_, S>,
    prompt: &[u32],
    tokens: usize,
    end: Option<u32>,
    choice: Choice,
    progress: impl FnMut(&PassRecord),
) -> Result<SpeedRun<Vec<u32>>, SpeedError> {
    let repetitions = bench.config.repetitions;
    let run = serve(bench, progress, move |remote| {
        let mut decoder = ModelDecoder::new(remote, choice);
        let start = decoder.add(prompt, tokens)?;
        let limits = Limits {
            repetitions,
            end,
            positions: start.positions,
        };
        let mut twin = Pipeline::new(limits, start.position, start.token)?;
        let mut tails = vec![start.position; repetitions];
        let mut committed: Vec<(usize, u32)> = Vec::new();
        remote.send(Message::Begin(start, end));
        loop {
            let (reply, answer) = mpsc::channel();
            remote.send(Message::Rows(reply));
            let Ok(Some(rows)) = answer.recv() else {
                return Ok(committed);
            };
            let expected = twin.stages().enumerate().filter_map(|(stage, entry)| {
                entry.map(|entry| (stage, entry.position, entry.token))
            });
            if !expected.eq(rows
                .iter()
                .map(|row| (row.repetition, row.position, row.token)))
            {
                remote.send(Message::Mismatch);
            }
            let classes: Vec<u32> = decoder
                .pass(&rows)?
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect();
            let mut by_stage = vec![0; repetitions];
            for (row, &class) in rows.iter().zip(&classes) {
                if let (Some(of), Some(tail)) = (
                    by_stage.get_mut(row.repetition),
                    tails.get_mut(row.repetition),
                ) {
                    *of = class;
                    *tail = row.position + 1;
                }
            }
            let resolution = twin.resolve(&by_stage);
            if let Some(kept) = resolution.kept {
                tails.iter_mut().for_each(|tail| *tail = kept.min(*tail));
                decoder.truncate(0, kept);
            }
            committed.extend(resolution.committed);
            twin.launch();
            remote.send(Message::Classes(
                classes,
                Change {
                    resolution,
                    tails: tails.clone(),
                },
            ));
        }
    })?;
    let words = bench.bench.take_collected(bench.commits);
    let hardware: Vec<(usize, u32)> = words
        .iter()
        .map(|word| ((word.data >> 32) as usize, word.data as u32))
        .collect();
    let ends = words
        .iter()
        .rev()
        .enumerate()
        .all(|(behind, word)| word.last == (behind == 0));
    let same = hardware == run.output && ends;
    Ok(SpeedRun {
        output: hardware.into_iter().map(|(_, token)| token).collect(),
        mismatches: run.mismatches + u64::from(!same),
        passes: run.passes,
        counters: run.counters,
        effort: run.effort,
        cycles: run.cycles,
        results: run.results,
    })
}

/// A decoder whose passes are run on the hardware, one PLAY each.
pub struct PlayedDecoder<'a> {
    remote: &'a Remote<'a>,
    inner: ModelDecoder<'a>,
}

impl PlayedDecoder<'_> {
    /// Adds a sequence, as [`ModelDecoder::add`].
    ///
    /// # Errors
    /// As there.
    pub fn add(&mut self, prompt: &[u32], tokens: usize) -> Result<Start, ModelError> {
        self.inner.add(prompt, tokens)
    }
}

impl Decoder for PlayedDecoder<'_> {
    type Error = ModelError;

    fn repetitions(&self) -> usize {
        self.inner.repetitions()
    }

    fn pass(&mut self, rows: &[Row]) -> Result<Vec<Option<u32>>, ModelError> {
        self.remote.send(Message::Play(rows.len()));
        let classes = self.inner.pass(rows)?;
        self.remote.send(Message::Played(rows.len()));
        Ok(classes)
    }

    fn truncate(&mut self, sequence: usize, kept: usize) {
        self.inner.truncate(sequence, kept);
    }
}

/// Runs a schedule of passes on the hardware without its pipeline: `schedule` gets a decoder whose passes are played, for example to hand it to `golden::speed::sequential`.
///
/// # Errors
/// The schedule's, the hardware's, or the simulation's.
pub fn play<S: Simulator, T: Default + Send>(
    bench: &mut SpeedBench<'_, S>,
    choice: Choice,
    progress: impl FnMut(&PassRecord),
    schedule: impl FnOnce(&mut PlayedDecoder<'_>) -> Result<T, SpeedError> + Send,
) -> Result<SpeedRun<T>, SpeedError> {
    serve(bench, progress, move |remote| {
        schedule(&mut PlayedDecoder {
            remote,
            inner: ModelDecoder::new(remote, choice),
        })
    })
}
