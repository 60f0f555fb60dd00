//! `fgmp speed --bench`: speculative decoding beside its peers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use golden::eval::{Options, perplexity};
use golden::model::Config;
use golden::speed::{Choice, Counters, ModelDecoder, Start, decode, draft, sequential};
use serde::Serialize;

use super::cosim::{Cosimulation, Hardware, Job};
use super::{Engine, Traffic, choice, quantize};
use crate::arguments::{Arithmetic, ModelArguments, Speed};
use crate::model::Prepared;
use crate::output::{Outcome, Output, count, percent};

/// Bars of the model that is shipped: most passes a token, least savings of passes and of weight bytes, least savings of time.
const MOST_PASSES: f64 = 1.45;
const LEAST_SAVING: f64 = 2.0;
const LEAST_SPEED: f64 = 1.5;
const FASTER: &str = "times faster than token by token";

#[derive(Serialize)]
struct Report {
    model: String,
    draft: String,
    prompts: usize,
    prompt_tokens: usize,
    tokens: usize,
    perplexity_windows: usize,
    arithmetics: Vec<Table>,
    cosimulation: Option<Cosimulation>,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Table {
    arithmetic: &'static str,
    rows: Vec<Row>,
}

/// A way of decoding.
#[derive(Serialize)]
struct Row {
    way: String,
    #[serde(skip)]
    kind: Kind,
    /// What the model took.
    counters: Counters,
    /// What the drafting model took; nothing if none drafts.
    draft: Counters,
    passes_per_token: f64,
    draft_passes_per_token: f64,
    weight_bytes_per_token: f64,
    classifier_bytes_per_token: f64,
    tokens_per_second: f64,
    /// Passes, each with the cycles that the hardware took for one with as many rows; with --cosim, of models with the co-simulated one's shape.
    cycles_per_token: Option<f64>,
    /// Share of tokens that are the model's own, on the model's own text.
    agreement: f64,
    perplexity: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Sequential,
    Speculative,
    Interleaved,
    EarlyExit(f32),
    Draft(usize),
    Alone,
}

/// A figure that has to be reached.
#[derive(Serialize)]
struct Bar {
    what: String,
    found: f64,
    bar: f64,
    reached: bool,
    /// It depends on what else the machine does; missing it fails no check.
    timed: bool,
}

/// What a way has taken so far.
struct Account {
    kind: Kind,
    counters: Counters,
    draft: Counters,
    time: Duration,
    agreeing: u64,
    compared: u64,
    perplexity: f64,
}

impl Account {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            counters: Counters::default(),
            draft: Counters::default(),
            time: Duration::ZERO,
            agreeing: 0,
            compared: 0,
            perplexity: f64::NAN,
        }
    }

    fn agree(&mut self, found: &[u32], expected: &[u32]) {
        self.compared += found.len().max(expected.len()) as u64;
        self.agreeing += found.iter().zip(expected).filter(|(a, b)| a == b).count() as u64;
    }

    fn row(self, names: [&str; 2], traffic: [Traffic; 2], cycles: Option<&[f64]>) -> Row {
        let tokens = self.counters.committed.max(1) as f64;
        let [model, drafting] = traffic;
        // A model that decodes alone stands in the place of the model.
        let (own, name) = match self.kind {
            Kind::Alone => (drafting, names[1]),
            _ => (model, names[0]),
        };
        let bytes = |own_passes: u64, draft_passes: u64, of: fn(Traffic) -> u64| {
            (own_passes * of(own) + draft_passes * of(drafting)) as f64 / tokens
        };
        let of = |counters: &Counters| -> Option<f64> {
            let passes = counters.passes_by_rows.iter().enumerate();
            passes
                .filter(|(_, passes)| **passes > 0)
                .map(|(rows, &passes)| Some(passes as f64 * cycles?.get(rows)?))
                .sum()
        };
        let cycles = of(&self.counters).zip(of(&self.draft));
        Row {
            cycles_per_token: cycles.map(|(own, draft)| (own + draft) / tokens),
            way: match self.kind {
                Kind::Sequential => format!("{name}, token by token"),
                Kind::Speculative => format!("{name}, speculative"),
                Kind::Interleaved => format!("{name}, speculative, prompts interleaved"),
                Kind::EarlyExit(lead) => format!("{name}, early exit at {lead}"),
                Kind::Draft(ahead) => format!("{name}, {} drafts {ahead}", names[1]),
                Kind::Alone => format!("{name} alone"),
            },
            kind: self.kind,
            passes_per_token: self.counters.passes as f64 / tokens,
            draft_passes_per_token: self.draft.passes as f64 / tokens,
            weight_bytes_per_token: bytes(self.counters.passes, self.draft.passes, |t| t.group),
            classifier_bytes_per_token: bytes(
                self.counters.classified,
                self.draft.classified,
                |t| t.classifier,
            ),
            tokens_per_second: tokens / self.time.as_secs_f64().max(1e-9),
            agreement: self.agreeing as f64 / self.compared.max(1) as f64,
            perplexity: self.perplexity,
            counters: self.counters,
            draft: self.draft,
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Speed, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let target = Prepared::open(arguments.model.as_deref(), &arguments.model_arguments)?;
    let drafting = Prepared::open(Some(&arguments.draft), &ModelArguments::default())?;
    let config = *target.model.config();
    if drafting.model.config().vocabulary != config.vocabulary {
        bail!(
            "--draft {}: has another vocabulary than the model",
            arguments.draft.display()
        );
    }
    let length = arguments.prompt_tokens + arguments.tokens;
    let context = config.context.min(drafting.model.config().context);
    if arguments.tokens == 0 || length > context {
        bail!(
            "--prompt-tokens {} and --tokens {}: expected at least 1 token, and together no more than the models' context of {context}",
            arguments.prompt_tokens,
            arguments.tokens
        );
    }
    let stream = target.reader.read("test")?;
    let prompts: Vec<&[u32]> = stream
        .chunks_exact(context)
        .take(arguments.prompts)
        .map(|window| &window[..arguments.prompt_tokens])
        .collect();
    if prompts.len() < arguments.prompts {
        bail!(
            "--prompts {}: the stream has {} of {context} tokens",
            arguments.prompts,
            prompts.len()
        );
    }
    let valid = target.reader.read("valid")?;
    let names = [short(&target.name), short(&drafting.name)];
    let end = target.reader.begin_token();
    let mut report = Report {
        model: target.name.clone(),
        draft: drafting.name.clone(),
        prompts: prompts.len(),
        prompt_tokens: arguments.prompt_tokens,
        tokens: arguments.tokens,
        perplexity_windows: arguments.windows,
        arithmetics: Vec::new(),
        cosimulation: None,
        bars: Vec::new(),
    };
    let shipped = arguments.model.is_none();
    let quantized = [quantize(&target, output)?, quantize(&drafting, output)?];
    let [quantized_target, quantized_draft] = quantized.map(Box::new);
    let pairs = [
        (
            Arithmetic::Fp32,
            Engine::Full(Box::new(target)),
            Engine::Full(Box::new(drafting)),
        ),
        (
            Arithmetic::Fgmp,
            Engine::Quantized(quantized_target),
            Engine::Quantized(quantized_draft),
        ),
    ];
    for (arithmetic, target, drafting) in &pairs {
        let bench = Bench {
            engines: [target, drafting],
            choice: choice(arguments, seed),
            end,
            arguments,
        };
        let accounts = bench.run(&prompts, &valid, arithmetic.name(), output)?;
        if let (true, Engine::Quantized(model)) = (arguments.cosim, target) {
            let hardware = Hardware::new(arguments, model, output)?;
            let rows = model.config().repetitions.max(arguments.ahead + 1);
            let job = Job {
                prompt: prompts[0],
                tokens: arguments.cosim_tokens,
                end,
                choice: bench.choice,
            };
            report.cosimulation = Some(hardware.run(model, job, rows, output)?);
        }
        let traffic = [Traffic::of(target), Traffic::of(drafting)];
        // A drafting model of another shape takes other cycles, which were not measured.
        let shape = |engine: &Engine| Config {
            repetitions: 1,
            ..*engine.model().trunk().config()
        };
        let cycles = report
            .cosimulation
            .as_ref()
            .filter(|_| shape(target) == shape(drafting))
            .map(|cosimulation| cosimulation.cycles_by_rows.as_slice());
        let rows: Vec<Row> = accounts
            .into_iter()
            .map(|account| account.row([&names[0], &names[1]], traffic, cycles))
            .collect();
        output.line(format!("\n{} arithmetic", arithmetic.name()));
        print(&rows, output);
        report.bars.extend(bars(&rows, arithmetic.name(), shipped));
        report.arithmetics.push(Table {
            arithmetic: arithmetic.name(),
            rows,
        });
    }
    if let Some(cosimulation) = &report.cosimulation {
        cosimulation.print(output);
        let mut add = |what: &str, found: f64, bar: f64, reached: bool| {
            report.bars.push(Bar {
                what: format!("hardware: {what}"),
                found,
                bar,
                reached,
                timed: false,
            });
        };
        let equal = f64::from(u8::from(cosimulation.agrees()));
        add(
            "tokens and results are the golden model's",
            equal,
            1.0,
            equal == 1.0,
        );
        if shipped {
            for (what, found) in [
                ("times fewer cycles", cosimulation.fewer_cycles),
                ("times fewer weight bytes", cosimulation.fewer_weight_bytes),
            ] {
                add(what, found, LEAST_SAVING, found >= LEAST_SAVING);
            }
        }
    }
    output.line("");
    for bar in &report.bars {
        output.line(format!(
            "{}: {:.3} (bar {}) {}",
            bar.what,
            bar.found,
            bar.bar,
            match (bar.reached, bar.timed) {
                (true, _) => "reached",
                (false, true) => "MISSED (a time: fails no check)",
                (false, false) => "MISSED",
            }
        ));
    }
    output.line(
        "bytes of layers: packed matrices of each pass; of the classifier: BF16, once a pass that asks for a class; keys and values are not in them",
    );
    output.json(&report)?;
    Ok(Outcome::of_check(
        report.bars.iter().all(|bar| bar.reached || bar.timed),
    ))
}

/// The name of an embedded model without what it says of that.
fn short(name: &str) -> String {
    name.trim_end_matches(" (embedded)").to_owned()
}

struct Bench<'a> {
    /// The model and the one that drafts.
    engines: [&'a Engine; 2],
    choice: Choice,
    end: Option<u32>,
    arguments: &'a Speed,
}

impl Bench<'_> {
    fn decoder(&self, which: usize) -> ModelDecoder<'_> {
        ModelDecoder::new(self.engines[which].model(), self.choice)
    }

    fn run(
        &self,
        prompts: &[&[u32]],
        valid: &[u32],
        arithmetic: &str,
        output: &Output,
    ) -> anyhow::Result<Vec<Account>> {
        let ahead = self.arguments.ahead;
        let kinds = [Kind::Sequential, Kind::Speculative, Kind::Interleaved]
            .into_iter()
            .chain(
                self.arguments
                    .confidence
                    .iter()
                    .map(|&lead| Kind::EarlyExit(lead)),
            )
            .chain([Kind::Draft(ahead), Kind::Alone]);
        let mut accounts: Vec<Account> = kinds.map(Account::new).collect();
        let progress = output.progress(arithmetic, prompts.len() as u64);
        let mut expected = Vec::new();
        for prompt in prompts {
            let mut own = None;
            for account in &mut accounts {
                let tokens = self.one(account, prompt, own.as_ref())?;
                if account.kind == Kind::Sequential {
                    own = Some(tokens);
                }
            }
            expected.extend(own);
            progress.inc(1);
        }
        progress.finish_and_clear();
        for account in &mut accounts {
            if account.kind == Kind::Interleaved {
                self.interleaved(account, prompts, &expected)?;
            }
            account.perplexity = self.perplexity(account.kind, valid)?;
        }
        Ok(accounts)
    }

    /// Decodes a prompt in one way; `expected` are the tokens of decoding one by one.
    fn one(
        &self,
        account: &mut Account,
        prompt: &[u32],
        expected: Option<&Vec<u32>>,
    ) -> anyhow::Result<Vec<u32>> {
        let tokens = self.arguments.tokens;
        let which = usize::from(account.kind == Kind::Alone);
        let mut decoder = self.decoder(which);
        let start = decoder.add(prompt, tokens)?;
        let repetitions = self.engines[which].model().trunk().config().repetitions;
        let begun = Instant::now();
        let (found, counters) = match account.kind {
            Kind::Interleaved => return Ok(Vec::new()),
            Kind::Sequential | Kind::Alone => {
                let run = sequential(&mut decoder, &[start], self.end, 1)?;
                (run.tokens.concat(), run.counters)
            }
            Kind::Speculative => {
                let run = decode(&mut decoder, &[start], self.end, repetitions, |_| ())?;
                (run.tokens.concat(), run.counters)
            }
            Kind::EarlyExit(lead) => {
                let run = decoder.early_exit(0, start, self.end, lead, None)?;
                (run.tokens, run.counters)
            }
            Kind::Draft(ahead) => {
                let mut drafting = self.decoder(1);
                let starts = [start, drafting.add(prompt, tokens)?];
                let run = draft(&mut decoder, &mut drafting, 0, starts, self.end, ahead)?;
                account.draft.add(&run.draft);
                (run.tokens, run.target)
            }
        };
        account.time += begun.elapsed();
        account.counters.add(&counters);
        // Ways that may give other tokens are compared on the model's own text: one token that differs would lead to another text.
        let compared = match (account.kind, expected) {
            (Kind::EarlyExit(lead), Some(expected)) => self.follow(0, lead, prompt, expected)?,
            (Kind::Alone, Some(expected)) => self.follow(1, 1.0, prompt, expected)?,
            _ => found.clone(),
        };
        account.agree(&compared, expected.unwrap_or(&found));
        Ok(found)
    }

    /// What a model with early exits says behind each token of a text.
    fn follow(
        &self,
        which: usize,
        lead: f32,
        prompt: &[u32],
        text: &[u32],
    ) -> anyhow::Result<Vec<u32>> {
        let mut decoder = self.decoder(which);
        let start = decoder.add(prompt, text.len())?;
        Ok(decoder.early_exit(0, start, None, lead, Some(text))?.tokens)
    }

    /// All prompts through one pipeline.
    fn interleaved(
        &self,
        account: &mut Account,
        prompts: &[&[u32]],
        expected: &[Vec<u32>],
    ) -> anyhow::Result<()> {
        let mut decoder = self.decoder(0);
        let starts = prompts
            .iter()
            .map(|prompt| decoder.add(prompt, self.arguments.tokens))
            .collect::<Result<Vec<_>, _>>()?;
        let slots = self.engines[0].model().trunk().config().repetitions;
        let begun = Instant::now();
        let run = decode(&mut decoder, &starts, self.end, slots, |_| ())?;
        account.time += begun.elapsed();
        account.counters.add(&run.counters);
        for (found, expected) in run.tokens.iter().zip(expected) {
            account.agree(found, expected);
        }
        Ok(())
    }

    fn perplexity(&self, kind: Kind, valid: &[u32]) -> anyhow::Result<f64> {
        let which = usize::from(kind == Kind::Alone);
        let model = self.engines[which].model();
        let window = model.trunk().config().context;
        let windows = self.arguments.windows;
        let Kind::EarlyExit(lead) = kind else {
            let options = Options {
                windows: Some(windows),
                ..Options::new(model.trunk().config())
            };
            return Ok(perplexity(model, valid, options, &|_, _| ())?.perplexity);
        };
        let (mut sum, mut tokens) = (0.0, 0);
        for first in (0..windows).map(|index| index * window) {
            let text = valid
                .get(first..=first + window)
                .context("--windows: more than the stream has")?;
            let mut decoder = self.decoder(which);
            decoder.add(&text[..1], window)?;
            // One position more than the context: the last token is predicted, not read.
            let start = Start {
                position: 0,
                token: text[0],
                positions: window + 1,
            };
            let run = decoder.early_exit(0, start, None, lead, Some(&text[1..]))?;
            sum += run.negative_log_likelihood;
            tokens += window;
        }
        Ok((sum / tokens as f64).exp())
    }
}

fn print(rows: &[Row], output: &Output) {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.way.clone(),
                count(row.counters.committed),
                format!("{:.3}", row.passes_per_token),
                format!("{:.3}", row.draft_passes_per_token),
                format!(
                    "{:.2}",
                    row.counters.rows as f64 / row.counters.passes.max(1) as f64
                ),
                count(row.weight_bytes_per_token.round() as u64),
                count(row.classifier_bytes_per_token.round() as u64),
                row.cycles_per_token
                    .map_or_else(|| "-".to_owned(), |cycles| count(cycles.round() as u64)),
                format!("{:.0}", row.tokens_per_second),
                percent(row.agreement),
                format!("{:.3}", row.perplexity),
            ]
        })
        .collect();
    output.table(
        &[
            "decoding",
            "tokens",
            "passes a token",
            "of the drafting model",
            "rows a pass",
            "bytes of layers a token",
            "of the classifier",
            "cycles a token",
            "tokens/s",
            "same token",
            "perplexity",
        ],
        &cells,
    );
}

/// The bars of the shipped model; of any other only that its tokens are those of decoding one by one.
fn bars(rows: &[Row], arithmetic: &str, shipped: bool) -> Vec<Bar> {
    let find = |kind: Kind| rows.iter().find(|row| row.kind == kind);
    let mut bars = Vec::new();
    let mut add = |what: &str, found: f64, bar: f64, reached: bool| {
        bars.push(Bar {
            timed: what == FASTER,
            what: format!("{arithmetic}: {what}"),
            found,
            bar,
            reached,
        });
    };
    for row in rows {
        if matches!(
            row.kind,
            Kind::Speculative | Kind::Interleaved | Kind::Draft(_)
        ) {
            let what = format!("share of tokens that are the model's, {}", row.way);
            add(&what, row.agreement, 1.0, row.agreement == 1.0);
        }
    }
    if let (Some(plain), Some(fast), true) =
        (find(Kind::Sequential), find(Kind::Speculative), shipped)
    {
        let passes = fast.passes_per_token;
        add("passes a token", passes, MOST_PASSES, passes <= MOST_PASSES);
        for (what, saving, least) in [
            (
                "times fewer passes",
                plain.passes_per_token / passes,
                LEAST_SAVING,
            ),
            (
                "times fewer bytes of layers",
                plain.weight_bytes_per_token / fast.weight_bytes_per_token,
                LEAST_SAVING,
            ),
            (
                FASTER,
                fast.tokens_per_second / plain.tokens_per_second,
                LEAST_SPEED,
            ),
        ] {
            add(what, saving, least, saving >= least);
        }
    }
    bars
}
