//! `fgmp ets`: efficient tree search.

mod bench;
mod drawing;
mod text;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use golden::ets::countdown::{self, Countdown, Problem};
use golden::ets::live::{
    Aggregate, Cast, Cost, Election, Embedding, Found, Method, Reward, ScoreHead, Settings,
    Sharing, Trajectory, search,
};
use golden::ets::{Effort, Lambda, Prices, Rule, Temperature};
use golden::model::{Calibration, CalibrationWindows, LanguageModel, QuantizedModel};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};
use serde::Serialize;
use testbench::ets::SelectionReport;
use testbench::verilator::Verilator;

use crate::arguments::{AggregateName, Arithmetic, Ets, ModelArguments, SearchMethod, SharingName};
use crate::model::Prepared;
use crate::output::{Outcome, Output, check_writable, count};

/// Most tokens of a step: the longest right one has 31.
const STEP_TOKENS: usize = 32;

/// Tokens of a model of Countdown: padding, the characters, and what fills them up.
const VOCABULARY: std::ops::RangeInclusive<usize> = 21..=64;

/// Rounds of the hardware's pruning engine.
const ENGINE_ROUNDS: u8 = 16;

/// Width up to which searches are repeated twice as wide.
const MOST_WIDTH: u32 = 256;

/// Problems whose trajectories activations are calibrated on, and tokens of each that are.
const CALIBRATION: (usize, usize) = (96, 72);

/// Of the calibration's problems and their trajectories: of no search's.
const CALIBRATION_SEED: u64 = 0x0CA1_1B8A;

#[derive(Serialize)]
struct Report {
    problem: String,
    arithmetic: &'static str,
    method: String,
    settings: Settings,
    /// What the vote elected.
    answer: Option<Trajectory>,
    solved: bool,
    /// The same selections on the hardware, if asked for.
    cosimulation: Option<SelectionReport>,
    /// Trajectories that completed, and how many of them are right.
    completed: usize,
    right: usize,
    nodes: usize,
    #[serde(flatten)]
    bill: Bill,
}

/// What a search took.
#[derive(Serialize)]
struct Bill {
    cost: Cost,
    page_tokens: usize,
    token_bytes: usize,
    seconds: f64,
}

/// Of the table of a search's steps: what [`progress`] gives.
const STEPS_HEADER: [&str; 7] = [
    "step",
    "leaves",
    "that say different things",
    "go on",
    "continuations",
    "best score",
    "tokens of keys and values",
];

/// Models in one of the two arithmetics.
struct Engines {
    policy: Box<dyn LanguageModel>,
    reward: Box<dyn LanguageModel>,
    head: ScoreHead,
}

impl Engines {
    fn open(arguments: &Ets, arithmetic: Arithmetic, output: &Output) -> anyhow::Result<Self> {
        let open = |given: Option<&Path>, name: &str| {
            Prepared::open(
                Some(given.unwrap_or(Path::new(name))),
                &ModelArguments::default(),
            )
        };
        let policy = open(arguments.policy.as_deref(), "countdown-policy")?;
        let reward = open(arguments.reward.as_deref(), "countdown-prm")?;
        for (prepared, flag) in [(&policy, "--policy"), (&reward, "--reward")] {
            let vocabulary = prepared.model.config().vocabulary;
            if !VOCABULARY.contains(&vocabulary) {
                bail!(
                    "{flag} {}: a vocabulary of {vocabulary} is not that of the Countdown models",
                    prepared.name
                );
            }
        }
        let head = ScoreHead::of(&reward.model).with_context(|| reward.name.clone())?;
        Ok(match arithmetic {
            Arithmetic::Fp32 => Self {
                policy: Box::new(policy.model),
                reward: Box::new(reward.model),
                head,
            },
            Arithmetic::Fgmp => {
                let stream = calibration_stream(&policy, &reward, &head)?;
                let quantize = |prepared: &Prepared| -> anyhow::Result<Box<dyn LanguageModel>> {
                    let progress = output.progress("calibrating", 1);
                    let windows = stream.len() / CALIBRATION.1;
                    let windows = CalibrationWindows {
                        window: CALIBRATION.1,
                        ranges: windows,
                        scores: windows,
                    };
                    let calibration =
                        Calibration::run(&prepared.model, &stream, windows, None, &|done, all| {
                            progress.set_length(all as u64);
                            progress.set_position(done as u64);
                        })
                        .with_context(|| format!("calibration of {}", prepared.name))?;
                    progress.finish_and_clear();
                    let scheme = Scheme::Fgmp {
                        fp8_share: Share::FGMP,
                    };
                    let options = WeightOptions::new(scheme);
                    let model = QuantizedModel::new(&prepared.model, options, None, &calibration)?;
                    Ok(Box::new(model))
                };
                Self {
                    policy: quantize(&policy)?,
                    reward: quantize(&reward)?,
                    head,
                }
            }
        })
    }

    fn reward(&self) -> Reward<'_> {
        Reward::Scored(&*self.reward, self.head.clone())
    }

    fn cast<'a>(&'a self, reward: &'a Reward<'a>, task: &'a Countdown) -> Cast<'a> {
        Cast {
            policy: &*self.policy,
            reward,
            embedding: Embedding::Reward,
            task,
        }
    }
}

/// Bytes of a token's keys and values in all models: FP32, as the engine holds them.
fn token_bytes(models: &[&dyn LanguageModel]) -> usize {
    let of = |model: &&dyn LanguageModel| {
        let config = model.trunk().config();
        8 * config.repetitions * config.layers * config.kv_heads * config.head_width
    };
    models.iter().map(of).sum()
}

/// Beginnings of trajectories that the models themselves write in full precision, one behind the other.
fn calibration_stream(
    policy: &Prepared,
    reward: &Prepared,
    head: &ScoreHead,
) -> anyhow::Result<Vec<u32>> {
    let reward = Reward::Scored(&reward.model, head.clone());
    let mut stream = Vec::new();
    let shipped = problems(None, usize::MAX)?;
    for problem in countdown::problems(CALIBRATION.0, CALIBRATION_SEED, &shipped) {
        let settings = Settings {
            step_tokens: STEP_TOKENS,
            seed: CALIBRATION_SEED,
            ..Settings::new(Method::Samples, 1)
        };
        let cast = Cast {
            policy: &policy.model,
            reward: &reward,
            embedding: Embedding::Reward,
            task: &Countdown::of(&problem),
        };
        let (found, _) = search(cast, &settings, &problem.tokens(), |_| ())?;
        let text: String = found.texts.concat();
        let tokens = countdown::encode(&text);
        stream.extend(tokens.get(..CALIBRATION.1).unwrap_or_default());
    }
    Ok(stream)
}

/// Problems of a file, or those that come with the models; at most `most`.
fn problems(file: Option<&Path>, most: usize) -> anyhow::Result<Vec<Problem>> {
    static SHIPPED: &str = include_str!("../../../../models/countdown-problems.txt");
    let (text, name) = match file {
        None => (SHIPPED.to_owned(), "the problems of the models".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
            (text, name)
        }
    };
    let found: Vec<Problem> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(most)
        .map(|(place, line)| {
            line.parse()
                .with_context(|| format!("{name}, line {}", place + 1))
        })
        .collect::<anyhow::Result<_>>()?;
    if found.is_empty() {
        bail!("{name}: there is no problem");
    }
    Ok(found)
}

impl From<AggregateName> for Aggregate {
    fn from(name: AggregateName) -> Self {
        match name {
            AggregateName::Last => Self::Last,
            AggregateName::Least => Self::Least,
            AggregateName::Product => Self::Product,
            AggregateName::Mean => Self::Mean,
        }
    }
}

impl SearchMethod {
    const fn name(self) -> &'static str {
        match self {
            Self::Ets => "ETS",
            Self::Rebase => "REBASE",
            Self::Beam => "beam search",
            Self::Dvts => "DVTS",
            Self::BestOfN => "best of N",
            Self::Majority => "majority",
        }
    }

    const fn election(self) -> Election {
        match self {
            Self::BestOfN => Election::Best,
            Self::Majority => Election::Majority,
            _ => Election::Weighted,
        }
    }

    fn method(self, arguments: &Ets, width: u32) -> anyhow::Result<Method> {
        let temperature =
            Temperature::new(arguments.score_temperature).context("--score-temperature")?;
        Ok(match self {
            Self::Ets => {
                let chosen = countdown::prices(width)?;
                let lambda = |given: &[f64], chosen, flag: &'static str| match *given {
                    [] => Ok(chosen),
                    [given] => Lambda::new(given).context(flag),
                    _ => bail!("{flag}: several are compared with --bench only"),
                };
                Method::Ets(Rule {
                    temperature,
                    prices: Prices {
                        budget: lambda(&arguments.lambda_b, chosen.budget, "--lambda-b")?,
                        diversity: lambda(&arguments.lambda_d, chosen.diversity, "--lambda-d")?,
                        node: chosen.node,
                    },
                    effort: Effort::default(),
                })
            }
            Self::Rebase => Method::Rebase(temperature),
            Self::Beam => Method::Beam(arguments.beams),
            Self::Dvts => Method::Dvts(arguments.beams),
            Self::BestOfN | Self::Majority => Method::Samples,
        })
    }
}

fn settings(arguments: &Ets, method: Method, width: u32, seed: u64) -> Settings {
    let mut settings = Settings {
        temperature: Some(arguments.temperature),
        seed,
        step_tokens: STEP_TOKENS,
        sharing: match arguments.sharing {
            SharingName::Tokens => Sharing::Tokens,
            SharingName::Steps => Sharing::Steps,
        },
        cut: arguments.cut,
        check_steps: arguments.calculator,
        ..Settings::new(method, width)
    };
    if let Some(pages) = arguments.pages {
        settings.pages = pages;
    }
    settings
}

/// Runs the command.
pub fn run(arguments: &Ets, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    if let Some(file) = &arguments.tree {
        check_writable(file)?;
    }
    if arguments.bench {
        return bench::run(arguments, seed, output);
    }
    if let Some(text) = &arguments.prose.text {
        return text::run(arguments, text, seed, output);
    }
    let problem: Problem = arguments.problem.parse().context("--problem")?;
    if arguments.cosim && arguments.method != SearchMethod::Ets {
        bail!("--cosim: the hardware makes the selections of --method ets");
    }
    let arithmetic = arguments.arithmetic.unwrap_or(Arithmetic::Fgmp);
    let engines = Engines::open(arguments, arithmetic, output)?;
    let mut again = arguments.clone();
    let mut tries = Vec::new();
    for number in 0..arguments.tries {
        let seed = seed.wrapping_add(number as u64);
        if number > 0 {
            again.width = (2 * again.width).min(MOST_WIDTH.max(arguments.width));
            // A reward model that misled once is trusted half as much.
            again.score_temperature *= 2.0;
            again.calculator = true;
            output.line("");
        }
        let report = attempt(&again, &engines, &problem, arithmetic, seed, output)?;
        let solved = report.solved;
        tries.push(report);
        if solved {
            break;
        }
    }
    let solved = tries.last().is_some_and(|report| report.solved);
    let agrees = |report: &Report| {
        let hardware = report.cosimulation.as_ref();
        hardware.is_none_or(|hardware| hardware.mismatches == 0)
    };
    output.json(&tries)?;
    Ok(Outcome::of_check(solved && tries.iter().all(agrees)))
}

/// One search.
fn attempt(
    arguments: &Ets,
    engines: &Engines,
    problem: &Problem,
    arithmetic: Arithmetic,
    seed: u64,
    output: &Output,
) -> anyhow::Result<Report> {
    let method = arguments.method.method(arguments, arguments.width)?;
    let settings = settings(arguments, method, arguments.width, seed);
    output.line(format!(
        "{problem}: {} at width {}, {} arithmetic, seed {seed}{}",
        arguments.method.name(),
        arguments.width,
        arithmetic.name(),
        if arguments.calculator {
            format!(
                ", score temperature {}, with a calculator",
                arguments.score_temperature
            )
        } else {
            String::new()
        }
    ));
    if !problem.is_like_the_trained_ones() {
        output.line("the models were trained on five numbers from 1 to 20 and targets from 10 to 200: this one is another");
    }
    if !problem.is_reachable_from(problem.numbers()) {
        output.line("no order of operations solves it: all answers will be wrong");
    }
    output.line("");
    let reward = engines.reward();
    let task = Countdown::of(problem);
    let begun = Instant::now();
    let mut drawing = drawing::Drawing::default();
    let spinner = output.spinner("searching");
    let mut lines = Vec::new();
    let mut selections = Vec::new();
    let (found, _) = search(
        engines.cast(&reward, &task),
        &settings,
        &problem.tokens(),
        |event| {
            drawing.record(event);
            let line = progress(event);
            spinner.set_message(format!(
                "step {}: {} leaves, {} go on",
                event.depth + 1,
                line[1],
                line[3]
            ));
            lines.push(line);
            if let (true, Method::Ets(rule), true) = (arguments.cosim, method, event.depth > 0) {
                selections.push((event.tree.clone(), rule));
            }
        },
    )?;
    spinner.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    output.table(&STEPS_HEADER, &lines);
    let cosimulation = if arguments.cosim {
        let spinner = output.spinner("compiling and simulating the hardware");
        let report = testbench::ets::cosim(&Verilator::find()?, &selections, ENGINE_ROUNDS)?;
        spinner.finish_and_clear();
        Some(report)
    } else {
        None
    };
    let solved =
        |trajectory: &Trajectory| problem.is_solved_by(trajectory.steps.iter().map(String::as_str));
    let answer = found
        .elect(arguments.method.election(), arguments.aggregate.into())
        .cloned();
    let report = Report {
        problem: problem.to_string(),
        arithmetic: arithmetic.name(),
        method: arguments.method.name().to_owned(),
        settings,
        solved: answer.as_ref().is_some_and(solved),
        completed: found.trajectories.len(),
        right: found.trajectories.iter().filter(|it| solved(it)).count(),
        nodes: found.tree.len(),
        bill: Bill {
            cost: found.cost.clone(),
            page_tokens: golden::model::PAGE_TOKENS,
            token_bytes: token_bytes(&[&*engines.policy, &*engines.reward]),
            seconds,
        },
        cosimulation,
        answer,
    };
    print(&report, output);
    if let Some(hardware) = &report.cosimulation {
        print_cosimulation(hardware, output);
    }
    if let Some(file) = &arguments.tree {
        let title = problem.to_string();
        let svg = drawing.to_svg(&title, &found, report.answer.as_ref(), Some(&solved))?;
        golden::tensors::write_atomically(file, svg.as_bytes())
            .with_context(|| format!("{}: can't be written", file.display()))?;
        output.line(format!("wrote {}", file.display()));
    }
    Ok(report)
}

/// What the hardware made of the same selections.
fn print_cosimulation(hardware: &SelectionReport, output: &Output) {
    output.line(format!(
        "on the hardware: {} selections, {} mismatches; {} at the optimum, largest gap {:.4}; {:.0} cycles on the average, at most {}, with the reads {}",
        hardware.instances,
        hardware.mismatches,
        hardware.at_optimum,
        hardware.largest_gap,
        hardware.mean_cycles,
        count(hardware.most_cycles),
        count(hardware.most_cycles_with_reads),
    ));
    if let Some(difference) = &hardware.first_mismatch {
        output.line(format!("THE HARDWARE DIFFERS: {difference}"));
    }
    if let Some(reason) = &hardware.first_refusal {
        output.line(format!(
            "{} selections don't fit the hardware: {reason}",
            hardware.refused
        ));
    }
}

/// A step as a line of the table.
fn progress(event: &golden::ets::live::Event<'_>) -> Vec<String> {
    let frontier = event.tree.frontier();
    let score = |&leaf: &usize| event.tree.score(leaf).ok().filter(|score| !score.is_nan());
    let best = frontier.iter().filter_map(score).reduce(f32::max);
    let mut clusters: Vec<Option<u32>> = frontier
        .iter()
        .map(|&leaf| event.tree.cluster(leaf).ok().flatten())
        .collect();
    clusters.sort_unstable();
    clusters.dedup();
    vec![
        (event.depth + 1).to_string(),
        frontier.len().to_string(),
        if event.selection.is_some() {
            clusters.len().to_string()
        } else {
            "-".into()
        },
        event.plan.len().to_string(),
        event
            .plan
            .iter()
            .map(|(_, count)| count)
            .sum::<u32>()
            .to_string(),
        best.filter(|_| event.depth > 0)
            .map_or_else(|| "-".into(), |best| format!("{best:.3}")),
        event
            .tree
            .unique_tokens(&frontier)
            .map_or_else(|_| "-".into(), count),
    ]
}

fn print(report: &Report, output: &Output) {
    output.line("");
    match &report.answer {
        None => output.line("no trajectory has an answer"),
        Some(answer) => {
            for (step, score) in answer.steps.iter().zip(&answer.scores) {
                output.line(format!("    {:28} score {score:.3}", step.trim_end()));
            }
            output.line(if report.solved {
                "solved: every step is right, and every number used once"
            } else {
                "NOT SOLVED: this is what the vote elected"
            });
        }
    }
    report.bill.print(
        &format!(
            "{} of {} trajectories that completed are right",
            report.right, report.completed
        ),
        report.nodes,
        output,
    );
}

impl Bill {
    /// `came` says what came of the search, of so many nodes.
    fn print(&self, came: &str, nodes: usize, output: &Output) {
        let cost = &self.cost;
        output.line(format!(
        "\n{came}; {} nodes, {} continuations, {} tokens written, of which {} were computed ({} passes of up to {} rows)",
        count(nodes as u64),
        count(cost.calls),
        count(cost.tokens),
        count(cost.passes.rows),
        count(cost.passes.passes),
        cost.passes.most_rows,
    ));
        output.line(format!(
        "keys and values: {} unique tokens in the largest step, {} summed over all; with equal beginnings of siblings once {} and {}",
        count(cost.kv_peak),
        count(cost.kv_tokens),
        count(cost.held_peak),
        count(cost.held_tokens),
    ));
        output.line(format!(
        "in memory: at most {} pages of {} tokens, {:.1} MB; attention read {:.2} times fewer tokens than row by row",
        count(cost.pages_peak),
        self.page_tokens,
        (cost.pages_peak as usize * self.page_tokens * self.token_bytes) as f64 / 1e6,
        cost.passes.tokens_read_alone as f64 / cost.passes.tokens_read.max(1) as f64,
    ));
        for (number, what) in [
            (
                cost.recomputed,
                "tokens computed again, since memory was short",
            ),
            (cost.preempted, "times continuations had to wait for memory"),
            (
                cost.starved,
                "CONTINUATIONS GIVEN UP: memory doesn't hold even one by itself",
            ),
            (
                cost.unclustered,
                "selections without clusters: an embedding was not finite",
            ),
            (cost.unproved, "selections whose optimum was not proved"),
        ] {
            if number > 0 {
                output.line(format!("{} {what}", count(number)));
            }
        }
        output.line(format!(
            "{:.2} s, {:.1} ms of them clustering and choosing",
            self.seconds,
            cost.selection_ns as f64 / 1e6
        ));
    }
}

/// What a search found, for those who draw it.
fn is_pruned(found: &Found, node: usize) -> bool {
    matches!(found.tree.state(node), Ok(golden::ets::State::Pruned))
}
