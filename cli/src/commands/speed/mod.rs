//! `fgmp speed`: speculative pipelined decoding.

mod bench;
mod cosim;

use std::time::Instant;

use anyhow::bail;
use golden::model::{LanguageModel, QuantizedModel};
use golden::quantizer::WeightOptions;
use golden::speed::{Choice, Counters, ModelDecoder, Run, decode, sequential};
use golden::{Scheme, Share};
use serde::Serialize;

use self::cosim::{Cosimulation, Hardware, Job};
use crate::arguments::{Arithmetic, Speed};
use crate::diagram::Diagram;
use crate::model::{Found, Prepared, TokenReader, open};
use crate::output::{Outcome, Output, check_writable, count};

/// Passes that are printed.
const PRINTED_PASSES: usize = 16;
/// Passes that are drawn.
const DRAWN_PASSES: usize = 40;

#[derive(Serialize)]
struct Report {
    model: String,
    arithmetic: &'static str,
    repetitions: usize,
    prompt: String,
    text: String,
    tokens: Vec<u32>,
    sequential_tokens: Vec<u32>,
    tokens_equal: bool,
    speculative: Figures,
    sequential: Figures,
    /// On the hardware, if asked for.
    cosimulation: Option<Cosimulation>,
}

/// What one way of decoding took.
#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    counters: Counters,
    passes_per_token: f64,
    /// Bytes of the layers' weights.
    weight_bytes: u64,
    /// Bytes of the classifier's weights.
    classifier_bytes: u64,
    /// Bytes of keys and values written and read.
    kv_bytes: u64,
    seconds: f64,
    tokens_per_second: f64,
}

/// Bytes that a model's passes move.
#[derive(Clone, Copy)]
struct Traffic {
    /// Of the group of layers.
    group: u64,
    /// Of the classifier: BF16, as model files hold it.
    classifier: u64,
    /// Of a position's keys and values in one repetition: FP32, as the engine holds them.
    position: u64,
}

impl Traffic {
    fn of(engine: &Engine) -> Self {
        let config = engine.model().trunk().config();
        let weights: usize = golden::model::Matrix::ALL
            .iter()
            .map(|&matrix| config.matrix_shape(matrix).iter().product::<usize>())
            .sum();
        let group = match engine {
            Engine::Full(_) => 2 * (config.layers * weights) as u64,
            Engine::Quantized(model) => model
                .packed_tensors()
                .map(|(_, t)| (t.tags().len() + t.scales().len() + 8 * t.payload().len()) as u64)
                .sum(),
        };
        Self {
            group,
            classifier: 2 * (config.vocabulary * config.hidden) as u64,
            position: 8 * (config.layers * config.kv_heads * config.head_width) as u64,
        }
    }

    fn figures(self, counters: &Counters, seconds: f64) -> Figures {
        let tokens = counters.committed.max(1) as f64;
        Figures {
            passes_per_token: counters.passes as f64 / tokens,
            weight_bytes: counters.passes * self.group,
            classifier_bytes: counters.classified * self.classifier,
            kv_bytes: (counters.positions_written + counters.positions_read) * self.position,
            seconds,
            tokens_per_second: counters.committed as f64 / seconds.max(1e-9),
            counters: counters.clone(),
        }
    }
}

/// A model in one of the two arithmetics.
enum Engine {
    Full(Box<Prepared>),
    Quantized(Box<QuantizedModel>),
}

impl Engine {
    fn model(&self) -> &dyn LanguageModel {
        match self {
            Self::Full(prepared) => &prepared.model,
            Self::Quantized(model) => &**model,
        }
    }
}

/// Quantizes a model as the hardware of speculative decoding does: all repetitions alike.
fn quantize(prepared: &Prepared, output: &Output) -> anyhow::Result<QuantizedModel> {
    let calibrated = prepared.calibrate_alike(output)?;
    let scheme = Scheme::Fgmp {
        fp8_share: Share::FGMP,
    };
    prepared.quantize(WeightOptions::new(scheme), &calibrated)
}

/// Runs the command.
pub fn run(arguments: &Speed, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if let Some(file) = &arguments.diagram {
        check_writable(file)?;
    }
    if arguments.cosim && !arguments.bench && arguments.arithmetic == Arithmetic::Fp32 {
        bail!("--cosim: the hardware's arithmetic is --arithmetic fgmp");
    }
    if arguments.bench {
        return bench::run(arguments, seed, output);
    }
    let (engine, reader, name) = engine(arguments, output)?;
    generate(arguments, &engine, &reader, name, seed, output)
}

/// The model in the arithmetic that is asked for.
fn engine(arguments: &Speed, output: &Output) -> anyhow::Result<(Engine, TokenReader, String)> {
    match open(arguments.model.as_deref(), &arguments.model_arguments)? {
        Found::Packed(model, reader) => {
            if arguments.arithmetic == Arithmetic::Fp32 {
                bail!("--arithmetic fp32: the model is packed; give it in full precision");
            }
            let name = arguments
                .model
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string());
            Ok((Engine::Quantized(model), *reader, name))
        }
        Found::Full(mut prepared) => {
            let name = prepared.name.clone();
            let engine = match arguments.arithmetic {
                Arithmetic::Fp32 => None,
                Arithmetic::Fgmp => Some(quantize(&prepared, output)?),
            };
            let reader = std::mem::take(&mut prepared.reader);
            let engine = match engine {
                None => Engine::Full(prepared),
                Some(model) => Engine::Quantized(Box::new(model)),
            };
            Ok((engine, reader, name))
        }
    }
}

/// How tokens are chosen.
fn choice(arguments: &Speed, seed: u64) -> Choice {
    arguments
        .temperature
        .map_or(Choice::Greedy, |temperature| Choice::Sampled {
            temperature,
            seed,
        })
}

fn generate(
    arguments: &Speed,
    engine: &Engine,
    reader: &TokenReader,
    name: String,
    seed: u64,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let model = engine.model();
    let config = *model.trunk().config();
    let prompt = reader.prompt(&arguments.prompt)?;
    let tokens = arguments.tokens;
    if prompt.is_empty() || tokens == 0 {
        bail!("--prompt and --tokens: expected at least one token of each");
    }
    if prompt.len() + tokens > config.context {
        bail!(
            "--tokens {tokens}: with the prompt's {} tokens more than the model's context of {}",
            prompt.len(),
            config.context
        );
    }
    let choice = choice(arguments, seed);
    let end = reader.begin_token();
    let mut decoder = ModelDecoder::new(model, choice);
    let start = decoder.add(&prompt, tokens)?;
    output.piece(&format!("\n{}", arguments.prompt));
    let mut diagram = Diagram::default();
    let mut shown = TextAsItComes::new(reader, prompt.clone())?;
    let mut failed = None;
    let begun = Instant::now();
    let speculative = decode(&mut decoder, &[start], end, config.repetitions, |passage| {
        diagram.record(passage);
        let committed = passage.resolutions.first().and_then(|r| r.committed);
        if let Some((_, token)) = committed.filter(|(_, token)| Some(*token) != end) {
            match shown.push(token) {
                Ok(piece) => output.piece(&piece),
                Err(error) => failed = Some(error),
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let seconds = begun.elapsed().as_secs_f64();
    output.piece("\n\n");
    let mut decoder = ModelDecoder::new(model, choice);
    let start = decoder.add(&prompt, tokens)?;
    let begun = Instant::now();
    let plain = sequential(&mut decoder, &[start], end, 1)?;
    let plain_seconds = begun.elapsed().as_secs_f64();

    let cosimulation = match (arguments.cosim, engine) {
        (true, Engine::Quantized(model)) => {
            let hardware = Hardware::new(arguments, model, output)?;
            let job = Job {
                prompt: &prompt,
                tokens: arguments.cosim_tokens.min(tokens),
                end,
                choice,
            };
            Some(hardware.run(model, job, 0, output)?)
        }
        _ => None,
    };
    let traffic = Traffic::of(engine);
    let first = |run: &Run| run.tokens.first().cloned().unwrap_or_default();
    let text_of = |token: u32| reader.text(&[token]).unwrap_or_else(|_| token.to_string());
    let decoded = first(&speculative);
    let words = decoded.strip_suffix(end.as_slice()).unwrap_or(&decoded);
    let report = Report {
        model: name,
        arithmetic: arguments.arithmetic.name(),
        repetitions: config.repetitions,
        prompt: arguments.prompt.clone(),
        text: reader.text(words)?,
        tokens_equal: speculative.tokens == plain.tokens,
        sequential_tokens: first(&plain),
        speculative: traffic.figures(&speculative.counters, seconds),
        sequential: traffic.figures(&plain.counters, plain_seconds),
        tokens: decoded,
        cosimulation,
    };
    print(&report, &diagram, text_of, output);
    let agrees = report.cosimulation.as_ref().is_none_or(|cosimulation| {
        cosimulation.print(output);
        let tokens = &cosimulation.speculative.tokens;
        let prefix = report.tokens.starts_with(tokens);
        if !prefix {
            output.line("THE HARDWARE'S TOKENS DIFFER from the golden engine's");
        }
        prefix && cosimulation.agrees()
    });
    if let Some(file) = &arguments.diagram {
        let svg = diagram.to_svg(DRAWN_PASSES, text_of)?;
        golden::tensors::write_atomically(file, svg.as_bytes())?;
        output.line(format!(
            "wrote {}: the first {} of {} passes",
            file.display(),
            DRAWN_PASSES.min(diagram.passes()),
            diagram.passes()
        ));
    }
    output.json(&report)?;
    Ok(Outcome::of_check(report.tokens_equal && agrees))
}

/// Text of tokens as they come: a character may need several.
struct TextAsItComes<'a> {
    reader: &'a TokenReader,
    tokens: Vec<u32>,
    /// Bytes of text that were handed out.
    shown: usize,
    /// The first token begins the document and is no text.
    skipped: usize,
}

impl<'a> TextAsItComes<'a> {
    fn new(reader: &'a TokenReader, prompt: Vec<u32>) -> anyhow::Result<Self> {
        let skipped = usize::from(reader.begin_token().is_some());
        let shown = reader.text(&prompt[skipped.min(prompt.len())..])?.len();
        Ok(Self {
            reader,
            tokens: prompt,
            shown,
            skipped,
        })
    }

    /// What a token adds, once that is whole characters.
    fn push(&mut self, token: u32) -> anyhow::Result<String> {
        self.tokens.push(token);
        let text = self.reader.text(&self.tokens[self.skipped..])?;
        let piece = text.get(self.shown..).unwrap_or_default();
        if piece.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.shown = text.len();
        Ok(piece.to_owned())
    }
}

fn print(report: &Report, diagram: &Diagram, name: impl Fn(u32) -> String, output: &Output) {
    let stages: Vec<String> = (1..=report.repetitions)
        .map(|repetition| format!("repetition {repetition}"))
        .collect();
    let header: Vec<&str> = ["pass"]
        .into_iter()
        .chain(stages.iter().map(String::as_str))
        .collect();
    let quoted = |token| format!("{:?}", name(token));
    output.table(&header, &diagram.to_text(PRINTED_PASSES, quoted));
    output.line("each cell: position and token predicted; ! class changed, x dropped behind this pass, = committed\n");
    let row = |way: &str, figures: &Figures| {
        let tokens = figures.counters.committed.max(1);
        vec![
            way.to_owned(),
            count(figures.counters.committed),
            count(figures.counters.passes),
            format!("{:.3}", figures.passes_per_token),
            count(figures.counters.rows),
            count(figures.counters.flushed),
            count(figures.weight_bytes / tokens),
            count(figures.classifier_bytes / tokens),
            count(figures.kv_bytes / tokens),
            format!("{:.0}", figures.tokens_per_second),
        ]
    };
    output.table(
        &[
            "decoding",
            "tokens",
            "passes",
            "passes a token",
            "rows",
            "dropped",
            "bytes of layers a token",
            "of the classifier",
            "of keys and values",
            "tokens/s",
        ],
        &[
            row("speculative", &report.speculative),
            row("token by token", &report.sequential),
        ],
    );
    let flips: Vec<String> = (1..report.repetitions)
        .map(|stage| {
            let flips = report.speculative.counters.flips.get(stage);
            format!(
                "{} behind repetition {}",
                flips.copied().unwrap_or(0),
                stage + 1
            )
        })
        .collect();
    output.line(format!(
        "{}, {} arithmetic: {} tokens in {} passes, classes changed: {}",
        report.model,
        report.arithmetic,
        report.speculative.counters.committed,
        report.speculative.counters.passes,
        if flips.is_empty() {
            "never".into()
        } else {
            flips.join(", ")
        },
    ));
    output.line(if report.tokens_equal {
        "the same tokens as decoding token by token"
    } else {
        "THE TOKENS DIFFER from decoding token by token"
    });
}
