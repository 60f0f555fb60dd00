//! A language model whose linear layers run on the accelerator.
//!
//! The golden engine computes what lies between the linear layers, and every product comes from the simulated hardware, which quantizes its own input. So an error in one layer would reach all that follow. Each result is compared with the golden model's
//! on the same input as well.

use std::sync::{Mutex, mpsc};

use golden::model::{
    KvCache, LanguageModel, Matrix, ModelError, QuantizedModel, Site, Tally, Trunk, forward,
};
use golden::requantize::OutputScale;
use half::bf16;
use hdl::accelerator::registers::place;

use super::{AcceleratorBench, AcceleratorError, CounterValues, Job, Sink, Source, packed_words};
use crate::simulator::Simulator;

/// What one product, or one input's quantization, took.
#[derive(Debug, Clone)]
pub struct LayerRun {
    /// Where in the model.
    pub site: Site,
    /// Which matrix; none for the quantization of the site's input.
    pub matrix: Option<Matrix>,
    /// Tokens M.
    pub tokens: usize,
    /// Output features N; 0 for a quantization.
    pub features: usize,
    /// Elements of a row, K.
    pub k: usize,
    /// The hardware's counters.
    pub counters: CounterValues,
    /// Results compared: elements, or words of the packed streams.
    pub results: u64,
    /// Of them differ.
    pub mismatches: u64,
}

/// Cycles and work of one run or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Cycles with a job outstanding.
    pub busy: u64,
    /// Steps of the array.
    pub steps: u64,
    /// Cycles before the first step.
    pub fills: u64,
    /// Cycles between first and last step that waited: for weights, for activations, for results to leave.
    pub waits: [u64; 3],
    /// Block pairs: FP4 × FP4, FP4 × FP8, FP8 × FP4, FP8 × FP8, weight first.
    pub pairs: [u64; 4],
    /// Blocks that the quantizer made FP4 and FP8.
    pub quantized: [u64; 2],
    /// Bytes of weights, packed activations, BF16 activations, results, packed output.
    pub bytes: [u64; 5],
}

impl Effort {
    /// Adds what the counters say.
    pub fn add(&mut self, counters: &CounterValues) {
        self.busy += counters.get(place::CYCLES_BUSY);
        self.steps += counters.get(place::STEPS);
        self.fills += counters.get(place::FILLS);
        for (total, place) in self.waits.iter_mut().zip([
            place::WAITS_WEIGHTS,
            place::WAITS_ACTS,
            place::WAITS_RESULTS,
        ]) {
            *total += counters.get(place);
        }
        for (i, total) in self.pairs.iter_mut().enumerate() {
            *total += counters.get(place::PAIRS_FP4_FP4 + i);
        }
        self.quantized[0] += counters.get(place::QUANTIZED_FP4);
        self.quantized[1] += counters.get(place::QUANTIZED_FP8);
        for (i, total) in self.bytes.iter_mut().enumerate() {
            *total += counters.get(place::BYTES_WEIGHTS + i);
        }
    }

    /// Share of the processing elements' cycles between first and last step in which they had a block pair.
    pub fn sustained(&self, elements: usize) -> f64 {
        share(
            self.pairs.iter().sum(),
            elements,
            self.steps + self.waits.iter().sum::<u64>(),
        )
    }

    /// The same of all cycles with a job outstanding: fill and drain included.
    pub fn overall(&self, elements: usize) -> f64 {
        share(self.pairs.iter().sum(), elements, self.busy)
    }
}

fn share(pairs: u64, elements: usize, cycles: u64) -> f64 {
    if cycles == 0 {
        return 0.0;
    }
    pairs as f64 / (elements as f64 * cycles as f64)
}

/// What a model's run gave.
pub struct ModelRun<S> {
    /// The bench, for more.
    pub bench: AcceleratorBench<S>,
    /// Every product and quantization in the order in which they ran.
    pub runs: Vec<LayerRun>,
    /// The input of each site, as the hardware was given it.
    pub inputs: Vec<(Site, Vec<bf16>)>,
    /// The last hidden state, a row a token.
    pub hidden: Vec<f32>,
}

/// Why a model could not run on the accelerator.
#[derive(Debug, thiserror::Error)]
pub enum ModelRunError {
    /// The accelerator or its simulation.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// The model itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The golden engine's thread ended by a panic.
    #[error("the golden engine stopped")]
    Engine,
}

/// A site's input on its way to the hardware, and where the products go.
struct Request {
    site: Site,
    x: Vec<f32>,
    golden: Vec<Vec<f32>>,
    reply: mpsc::Sender<Vec<Vec<f32>>>,
}

/// The model as the golden engine sees it: products are asked for elsewhere.
struct Remote<'a> {
    model: &'a QuantizedModel,
    requests: Mutex<mpsc::Sender<Request>>,
}

impl LanguageModel for Remote<'_> {
    fn trunk(&self) -> &Trunk {
        self.model.trunk()
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        let golden = self.model.project(site, x, tally);
        let (reply, answer) = mpsc::channel();
        let request = Request {
            site,
            x: x.to_vec(),
            golden: golden.clone(),
            reply,
        };
        let sent = match self.requests.lock() {
            Ok(requests) => requests.send(request).is_ok(),
            Err(_) => false,
        };
        // After an error nobody answers any more: the run's result is that error.
        match answer.recv() {
            Ok(products) if sent => products,
            _ => golden,
        }
    }
}

/// Runs a model on some tokens with its linear layers on the accelerator; `progress` is called after each site.
///
/// The golden engine runs in a thread of its own, the simulation stays in this one.
///
/// # Errors
/// The accelerator's or the model's.
pub fn run_model<S: Simulator>(
    model: &QuantizedModel,
    tokens: &[u32],
    bench: AcceleratorBench<S>,
    mut progress: impl FnMut(),
) -> Result<ModelRun<S>, ModelRunError> {
    let (requests, served) = mpsc::channel::<Request>();
    let config = *model.config();
    let mut hardware = Hardware {
        model,
        bench,
        runs: Vec::new(),
        inputs: Vec::new(),
    };
    let hidden = std::thread::scope(|scope| {
        let engine = scope.spawn(move || {
            let remote = Remote {
                model,
                requests: Mutex::new(requests),
            };
            forward(
                &remote,
                tokens,
                &mut KvCache::new(),
                &mut Tally::new(&config),
                |_, _| (),
            )
        });
        let mut failed = None;
        for request in served {
            match hardware.products(request.site, &request.x, &request.golden) {
                // The engine may have ended; then nobody wants the answer.
                Ok(products) => drop(request.reply.send(products)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            progress();
        }
        let hidden = engine.join();
        match (failed, hidden) {
            (Some(error), _) => Err(ModelRunError::from(error)),
            (None, Ok(hidden)) => Ok(hidden?),
            (None, Err(_)) => Err(ModelRunError::Engine),
        }
    })?;
    Ok(ModelRun {
        bench: hardware.bench,
        runs: hardware.runs,
        inputs: hardware.inputs,
        hidden,
    })
}

struct Hardware<'a, S> {
    model: &'a QuantizedModel,
    bench: AcceleratorBench<S>,
    runs: Vec<LayerRun>,
    inputs: Vec<(Site, Vec<bf16>)>,
}

impl<S: Simulator> Hardware<'_, S> {
    /// Quantizes a site's input on the hardware and multiplies it with each of the site's matrices.
    fn products(
        &mut self,
        site: Site,
        x: &[f32],
        golden: &[Vec<f32>],
    ) -> Result<Vec<Vec<f32>>, AcceleratorError> {
        let Some(quantizer) = self.model.quantizer(site) else {
            return Ok(Vec::new());
        };
        let k = quantizer.channels();
        let tokens = x.len() / k;
        let x16: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let bench = &mut self.bench;
        let unit = OutputScale::ONE;
        let load = Job {
            tokens,
            k,
            source: Source::Elements { x: &x16, quantizer },
            weights: None,
            output_scale: unit,
            sink: Sink::Stream,
            send_packed: true,
            align: (0, 0, 0),
        };
        bench.clear_counters()?;
        bench.run(std::slice::from_ref(&load))?;
        let counters = bench.counters()?;
        let (mut results, mut mismatches) = (0, 0);
        let packed = self.model.quantize_input(site, x);
        let expected = packed.as_ref().map(packed_words).unwrap_or_default();
        for (words, expected) in bench.take_packed().iter().zip(&expected) {
            results += expected.len() as u64;
            mismatches += words.len().abs_diff(expected.len()) as u64
                + words
                    .iter()
                    .zip(expected)
                    .filter(|(word, expected)| word.data != **expected)
                    .count() as u64;
        }
        self.runs.push(LayerRun {
            site,
            matrix: None,
            tokens,
            features: 0,
            k,
            counters,
            results,
            mismatches,
        });
        let mut outputs = Vec::new();
        for (&matrix, golden) in site.input.matrices().iter().zip(golden) {
            let job = Job {
                source: Source::Reuse,
                weights: self.model.packed(site.layer, matrix),
                output_scale: self.model.output_scale(site, matrix).unwrap_or(unit),
                send_packed: false,
                ..load.clone()
            };
            bench.clear_counters()?;
            bench.run(std::slice::from_ref(&job))?;
            let counters = bench.counters()?;
            let words = bench.take_results();
            let values: Vec<Option<u64>> = bench.arrange(&job, &words);
            let mismatches = values
                .iter()
                .zip(golden)
                .filter(|(value, golden)| {
                    **value != Some(u64::from(bf16::from_f32(**golden).to_bits()))
                })
                .count() as u64
                + values.len().abs_diff(golden.len()) as u64;
            outputs.push(
                values
                    .iter()
                    .map(|value| bf16::from_bits(value.map_or(0x7FC0, |v| v as u16)).to_f32())
                    .collect(),
            );
            self.runs.push(LayerRun {
                site,
                matrix: Some(matrix),
                tokens,
                features: job.features(),
                k,
                counters,
                results: golden.len() as u64,
                mismatches,
            });
        }
        self.inputs.push((site, x16));
        Ok(outputs)
    }
}

/// Runs all products of given inputs one behind the other, as fast as the job queue takes them, and compares every result.
///
/// # Errors
/// A job is refused, something gets stuck, or the simulation fails.
pub fn back_to_back<S: Simulator>(
    model: &QuantizedModel,
    bench: &mut AcceleratorBench<S>,
    inputs: &[(Site, Vec<bf16>)],
) -> Result<BackToBack, AcceleratorError> {
    let mut jobs = Vec::new();
    let mut golden = Vec::new();
    let config = *model.config();
    for (site, x) in inputs {
        let Some(quantizer) = model.quantizer(*site) else {
            continue;
        };
        let k = quantizer.channels();
        let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
        let products = model.project(*site, &wide, &mut Tally::new(&config));
        for (index, (&matrix, product)) in site.input.matrices().iter().zip(products).enumerate() {
            jobs.push(Job {
                tokens: x.len() / k,
                k,
                source: if index == 0 {
                    Source::Elements { x, quantizer }
                } else {
                    Source::Reuse
                },
                weights: model.packed(site.layer, matrix),
                output_scale: model
                    .output_scale(*site, matrix)
                    .unwrap_or(OutputScale::ONE),
                sink: Sink::Stream,
                send_packed: false,
                align: (0, 0, 0),
            });
            golden.push(product);
        }
    }
    bench.take_results();
    bench.clear_counters()?;
    bench.run(&jobs)?;
    let counters = bench.counters()?;
    let words = bench.take_results();
    let mut rest = words.as_slice();
    let mut outcome = BackToBack {
        jobs: jobs.len(),
        effort: Effort::default(),
        results: 0,
        mismatches: 0,
    };
    outcome.effort.add(&counters);
    for (job, golden) in jobs.iter().zip(&golden) {
        let (mine, others) = rest.split_at(job.streamed_results().div_ceil(4).min(rest.len()));
        rest = others;
        let values = bench.arrange(job, mine);
        outcome.results += golden.len() as u64;
        outcome.mismatches += values
            .iter()
            .zip(golden)
            .filter(|(value, golden)| {
                **value != Some(u64::from(bf16::from_f32(**golden).to_bits()))
            })
            .count() as u64;
    }
    outcome.mismatches += rest.len() as u64;
    Ok(outcome)
}

/// What a run of products one behind the other took.
#[derive(Debug, Clone, Copy)]
pub struct BackToBack {
    /// Jobs.
    pub jobs: usize,
    /// Cycles and work.
    pub effort: Effort,
    /// Results compared.
    pub results: u64,
    /// Of them differ.
    pub mismatches: u64,
}
