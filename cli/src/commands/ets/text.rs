//! `fgmp ets --text`: the search on language, its steps sentences.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use checkpoints::{Encoder, Prose, Remembering};
use golden::ets::cluster;
use golden::ets::live::{
    Aggregate, Cast, Election, Embedding, Reward, Settings, Trajectory, search,
};
use golden::model::LanguageModel;
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use serde::Serialize;

use super::drawing::Drawing;
use super::{Bill, STEPS_HEADER, progress, token_bytes};
use crate::arguments::{Arithmetic, Ets, ModelArguments, SearchMethod};
use crate::model::Prepared;
use crate::output::{Outcome, Output};

/// Where `./setup --models` puts the sentence encoder.
const ENCODER: &str = ".tools/models/all-MiniLM-L6-v2";

/// Names another place for it.
const ENCODER_VARIABLE: &str = "FGMP_MINILM";

/// Vectors of the reward model instead of an encoder's.
const REWARD: &str = "reward";

#[derive(Serialize)]
struct Report {
    prompt: String,
    policy: String,
    reward: String,
    /// Folder of the sentence encoder, or `reward`.
    embeddings: String,
    arithmetic: &'static str,
    method: String,
    settings: Settings,
    /// What is elected; its `answer` is the text behind the prompt.
    answer: Option<Trajectory>,
    /// Its steps' scores together.
    score: Option<f32>,
    completed: usize,
    /// Clusters of the completed trajectories' texts; none without an encoder.
    different: Option<usize>,
    texts: Vec<Text>,
    /// Texts that the encoder was given: each once.
    encoded: usize,
    nodes: usize,
    #[serde(flatten)]
    bill: Bill,
}

/// A completed trajectory.
#[derive(Serialize)]
struct Text {
    text: String,
    score: f32,
    cluster: Option<u32>,
}

/// The folder of the sentence encoder; none if the reward model's vectors are asked for.
fn encoder_folder(given: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if given == Some(Path::new(REWARD)) {
        return Ok(None);
    }
    let (folder, named) = match (given, std::env::var_os(ENCODER_VARIABLE)) {
        (Some(folder), _) => (folder.to_owned(), "--embeddings "),
        (None, Some(folder)) => (folder.into(), "FGMP_MINILM="),
        (None, None) => (ENCODER.into(), ""),
    };
    if !folder.is_dir() {
        bail!(
            "{named}{}: there is no such folder, and a sentence encoder is needed to find steps that say the same. \
             `./setup --models` installs all-MiniLM-L6-v2 (90 MB) into {ENCODER} of the checkout; --embeddings names another folder, \
             or `{REWARD}` for the reward model's own vectors",
            folder.display()
        );
    }
    Ok(Some(folder))
}

/// A model in one of the two arithmetics.
fn engine(
    prepared: Prepared,
    arithmetic: Arithmetic,
    output: &Output,
) -> anyhow::Result<Box<dyn LanguageModel>> {
    Ok(match arithmetic {
        Arithmetic::Fp32 => Box::new(prepared.model),
        Arithmetic::Fgmp => {
            let calibrated = prepared
                .calibrate(output)
                .with_context(|| prepared.name.clone())?;
            let options = WeightOptions::new(Scheme::Fgmp {
                fp8_share: Share::FGMP,
            });
            Box::new(prepared.quantize(options, &calibrated)?)
        }
    })
}

/// The two models, whose tokens are the same, and the prompt in them.
fn models(arguments: &Ets, text: &str) -> anyhow::Result<(Prepared, Prepared, Vec<u32>)> {
    let shape = ModelArguments {
        tokenizer: arguments.prose.tokenizer.clone(),
        calibration: arguments.prose.calibration.clone(),
        ..ModelArguments::default()
    };
    let open = |given: Option<&Path>, name: &str| {
        Prepared::open(Some(given.unwrap_or(Path::new(name))), &shape)
    };
    let policy = open(arguments.policy.as_deref(), "base-4").context("--policy")?;
    let reward = open(arguments.reward.as_deref(), "shared-4x3").context("--reward")?;
    let tokens = policy
        .reader
        .prompt(text)
        .with_context(|| format!("--policy {}", policy.name))?;
    let [written, judged] = [&policy, &reward].map(|it| it.model.config().vocabulary);
    if written != judged {
        bail!(
            "--reward {}: has a vocabulary of {judged} tokens, and --policy {} one of {written}; the reward model judges the policy's tokens, so both need the same",
            reward.name,
            policy.name
        );
    }
    // Of models that both know their tokenizers more can be seen than how many tokens there are.
    if reward.reader.tokenizer().is_some() && reward.reader.prompt(text)? != tokens {
        bail!(
            "--reward {}: its tokens are not those of --policy {}; the reward model judges the policy's tokens, so both need the same",
            reward.name,
            policy.name
        );
    }
    Ok((policy, reward, tokens))
}

/// Texts are hardly ever the same, so that votes have nothing to add up: the best is elected, by the majority's wish the most frequent.
const fn election(method: SearchMethod) -> Election {
    match method {
        SearchMethod::Majority => Election::Majority,
        _ => Election::Best,
    }
}

/// Runs the command.
pub fn run(arguments: &Ets, text: &str, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if text.trim().is_empty() {
        bail!("--text: it is empty; give the beginning of a text, like \"Return a list of\"");
    }
    let method = arguments.method.method(arguments, arguments.width)?;
    let folder = encoder_folder(arguments.prose.embeddings.as_deref())?;
    let encoder = folder.as_deref().map(Encoder::open).transpose()?;
    let (policy, reward, prompt) = models(arguments, text)?;
    let tokenizer = policy
        .reader
        .tokenizer()
        .cloned()
        .context("--policy: comes with no tokenizer")?;
    let (steps, step_tokens) = (arguments.prose.steps, arguments.prose.step_tokens);
    let [written, judged] = [&policy, &reward].map(|it| it.model.config().context);
    let context = written.min(judged);
    let longest = (steps as usize)
        .saturating_mul(step_tokens)
        .saturating_add(prompt.len());
    if longest > context {
        bail!(
            "--steps {steps} of up to --step-tokens {step_tokens} don't fit behind the {} tokens of --text: the models' context is {context}",
            prompt.len()
        );
    }
    let arithmetic = arguments.arithmetic.unwrap_or(Arithmetic::Fgmp);
    let names = [policy.name.clone(), reward.name.clone()];
    let policy = engine(policy, arithmetic, output)?;
    let reward = engine(reward, arithmetic, output)?;
    let settings = Settings {
        step_tokens,
        depth: steps,
        trajectory_tokens: context,
        ..super::settings(arguments, method, arguments.width, seed)
    };
    let embeddings = folder.map_or_else(|| REWARD.to_owned(), |it| it.display().to_string());
    output.line(format!(
        "{} at width {}, {} arithmetic: {} writes, {} judges, {embeddings} compares\n",
        arguments.method.name(),
        arguments.width,
        arithmetic.name(),
        names[0],
        names[1],
    ));

    let task = Prose::new(&tokenizer, steps)?;
    let memory = Remembering::new(|texts: &[String]| match &encoder {
        Some(encoder) => encoder.embed(texts).map_err(|error| error.to_string()),
        None => Err("there is no sentence encoder".to_owned()),
    });
    let vectors = |texts: &[String]| memory.vectors(texts);
    let judge = Reward::Likelihood(&*reward);
    let cast = Cast {
        policy: &*policy,
        reward: &judge,
        embedding: match encoder {
            Some(_) => Embedding::Text(&vectors),
            None => Embedding::Reward,
        },
        task: &task,
    };
    let begun = Instant::now();
    let mut drawing = Drawing::default();
    let spinner = output.spinner("searching");
    let mut lines = Vec::new();
    let (found, _) = search(cast, &settings, &prompt, |event| {
        drawing.record(event);
        let line = progress(event);
        spinner.set_message(format!("step {} of {steps}: {} leaves", line[0], line[1]));
        lines.push(line);
    })?;
    spinner.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    output.table(&STEPS_HEADER, &lines);

    let aggregate: Aggregate = arguments.aggregate.into();
    let answers: Vec<String> = found
        .trajectories
        .iter()
        .map(|it| it.answer.clone().unwrap_or_default())
        .collect();
    let clusters = match &encoder {
        Some(_) => {
            let vectors = memory.vectors(&answers).map_err(|error| anyhow!(error))?;
            Some(cluster(&vectors, settings.cut)?)
        }
        None => None,
    };
    let texts = found
        .trajectories
        .iter()
        .zip(answers)
        .enumerate()
        .map(|(place, (trajectory, text))| Text {
            text,
            score: aggregate.of(&trajectory.scores),
            cluster: clusters.as_ref().and_then(|it| it.get(place)).copied(),
        })
        .collect();
    let answer = found.elect(election(arguments.method), aggregate).cloned();
    let report = Report {
        prompt: text.to_owned(),
        policy: names[0].clone(),
        reward: names[1].clone(),
        embeddings,
        arithmetic: arithmetic.name(),
        method: arguments.method.name().to_owned(),
        settings,
        score: answer.as_ref().map(|it| aggregate.of(&it.scores)),
        completed: found.trajectories.len(),
        // Labels count from 0 without gaps.
        different: clusters.map(|it| it.iter().max().map_or(0, |&last| last as usize + 1)),
        texts,
        encoded: memory.encoded(),
        nodes: found.tree.len(),
        bill: Bill {
            cost: found.cost.clone(),
            page_tokens: golden::model::PAGE_TOKENS,
            token_bytes: token_bytes(&[&*policy, &*reward]),
            seconds,
        },
        answer,
    };
    print(&report, output);
    if let Some(file) = &arguments.tree {
        let svg = drawing.to_svg(text, &found, report.answer.as_ref(), None)?;
        golden::tensors::write_atomically(file, svg.as_bytes())
            .with_context(|| format!("{}: can't be written", file.display()))?;
        output.line(format!("wrote {}", file.display()));
    }
    output.json(&report)?;
    Ok(Outcome::Done)
}

/// A text without what would move a terminal's cursor elsewhere; on one line, or on its own ones.
fn printable(text: &str, one_line: bool) -> String {
    let clean = text.chars().map(|character| match character {
        '\n' if !one_line => '\n',
        it if it.is_whitespace() => ' ',
        it if it.is_control() => char::REPLACEMENT_CHARACTER,
        it => it,
    });
    clean.collect()
}

fn print(report: &Report, output: &Output) {
    output.line("");
    match (&report.answer, report.score) {
        (Some(answer), Some(score)) => {
            output.line("elected, with the steps' scores:\n");
            for (step, score) in answer.steps.iter().zip(&answer.scores) {
                let step = printable(step, true);
                let step = match step.trim() {
                    "" => "(the text ends)",
                    step => step,
                };
                output.line(format!("    {score:.3}  {step}"));
            }
            let text = answer.answer.as_deref().unwrap_or_default();
            output.line(format!(
                "\n{}{}\n\nits score, what its steps' come to: {score:.3}",
                printable(&report.prompt, false),
                printable(text, false).trim_end(),
            ));
        }
        _ => output.line("no text is complete"),
    }
    let different = match report.different {
        Some(different) => format!(
            "{} texts are complete and say {different} different things; {} texts were encoded, each once",
            report.completed, report.encoded
        ),
        None => format!("{} texts are complete", report.completed),
    };
    report.bill.print(&different, report.nodes, output);
}
