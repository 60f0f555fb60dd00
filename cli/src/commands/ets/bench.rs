//! `fgmp ets --bench`: all methods on many problems.

use std::sync::Mutex;
use std::time::Instant;

use golden::ets::countdown::{self, Countdown, Problem};
use golden::ets::live::{Aggregate, Cost, Election, Found, Method, Searches, Trajectory, search};
use golden::ets::{Lambda, NodePrice, Prices, Rule, Temperature};
use rayon::prelude::*;
use serde::Serialize;

use super::{Engines, problems, settings};
use crate::arguments::{Arithmetic, Ets, SearchMethod};
use crate::output::{Interrupt, Outcome, Output, count};

/// A mean, and how far it may be off: 95 % of the time, by the normal approximation.
#[derive(Clone, Copy, Debug, Serialize)]
struct Estimate {
    value: f64,
    off: f64,
}

impl Estimate {
    fn mean(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let value = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - value).powi(2)).sum();
        Self {
            value,
            off: 1.96 * (squares / (n - 1.0).max(1.0) / n).sqrt(),
        }
    }

    /// The ratio of two sums over the same problems.
    fn ratio(above: &[f64], below: &[f64]) -> Self {
        let sum: f64 = below.iter().sum();
        let value = above.iter().sum::<f64>() / sum;
        let squares: f64 = above
            .iter()
            .zip(below)
            .map(|(a, b)| (a - value * b).powi(2))
            .sum();
        Self {
            value,
            off: 1.96 * squares.sqrt() / sum,
        }
    }

    fn text(self, digits: usize) -> String {
        format!("{:.digits$} ± {:.digits$}", self.value, self.off)
    }
}

/// A share of problems, with Wilson's interval of 95 %.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    of_hundred: f64,
    from: f64,
    to: f64,
}

impl Rate {
    fn of(right: usize, all: usize) -> Self {
        const Z: f64 = 1.96;
        let n = all.max(1) as f64;
        let p = right as f64 / n;
        let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self {
            of_hundred: 100.0 * p,
            from: 100.0 * (middle - half).max(0.0),
            to: 100.0 * (middle + half).min(1.0),
        }
    }
}

/// What a method did at a width.
#[derive(Serialize)]
struct Line {
    method: String,
    solved: Rate,
    /// Percentage points more than REBASE, on the same problems.
    more_than_rebase: Estimate,
    /// Problems with a right trajectory, elected or not.
    any: Rate,
    kv_tokens: Estimate,
    kv_peak: Estimate,
    /// Of these, times less than REBASE.
    less_kv: Estimate,
    held_tokens: Estimate,
    held_peak: Estimate,
    less_held: Estimate,
    calls: Estimate,
    tokens: Estimate,
    selection_ms: f64,
    longest_selection_ms: f64,
    unproved: u64,
}

/// How long the engine took.
#[derive(Serialize)]
struct Timing {
    method: String,
    /// Pages of keys and values; none if there were enough.
    pages: Option<usize>,
    seconds: Estimate,
    /// Times as many problems a second as REBASE with the same pages.
    throughput: Estimate,
    cost: Cost,
}

#[derive(Serialize)]
struct Width {
    width: u32,
    problems: usize,
    lines: Vec<Line>,
    timed_problems: usize,
    timings: Vec<Timing>,
}

#[derive(Serialize)]
struct Report {
    arithmetic: &'static str,
    seed: u64,
    widths: Vec<Width>,
}

/// A method with its name.
struct Peer {
    name: String,
    method: Method,
    election: Election,
    /// Its trajectories are another's: only the vote differs.
    same_search: bool,
}

fn peers(arguments: &Ets, width: u32) -> anyhow::Result<Vec<Peer>> {
    let peer = |name: &str, method, election| Peer {
        name: name.to_owned(),
        method,
        election,
        same_search: false,
    };
    let own = |method: SearchMethod| -> anyhow::Result<Peer> {
        Ok(peer(
            method.name(),
            method.method(arguments, width)?,
            method.election(),
        ))
    };
    let mut peers = vec![own(SearchMethod::Rebase)?];
    if arguments.lambda_b.len() * arguments.lambda_d.len() > 1 {
        let temperature = Temperature::new(arguments.score_temperature)?;
        for &budget in &arguments.lambda_b {
            for &diversity in &arguments.lambda_d {
                let prices = Prices {
                    budget: Lambda::new(budget)?,
                    diversity: Lambda::new(diversity)?,
                    node: NodePrice::Nodes,
                };
                let rule = Rule {
                    temperature,
                    prices,
                    ..Rule::published(width)
                };
                let name = format!("ETS, λ_b {budget}, λ_d {diversity}");
                peers.push(peer(&name, Method::Ets(rule), Election::Weighted));
            }
        }
    } else {
        peers.push(own(SearchMethod::Ets)?);
    }
    peers.extend([
        peer(
            "ETS, published λ",
            Method::Ets(Rule::published(width)),
            Election::Weighted,
        ),
        own(SearchMethod::Beam)?,
        own(SearchMethod::Dvts)?,
        own(SearchMethod::BestOfN)?,
        own(SearchMethod::Majority)?,
    ]);
    if let Some(last) = peers.last_mut() {
        last.same_search = true;
    }
    Ok(peers)
}

/// Runs the bench.
pub fn run(arguments: &Ets, seed: u64, output: &Output) -> anyhow::Result<Outcome> {
    let arithmetic = arguments.arithmetic.unwrap_or(Arithmetic::Fp32);
    let engines = Engines::open(arguments, arithmetic, output)?;
    let problems = if arguments.drawn {
        let shipped = problems(None, usize::MAX)?;
        countdown::problems(arguments.count, seed, &shipped)
    } else {
        problems(arguments.problems.as_deref(), arguments.count)?
    };
    let interrupt = Interrupt::graceful();
    let mut report = Report {
        arithmetic: arithmetic.name(),
        seed,
        widths: Vec::new(),
    };
    output.line(format!(
        "{} problems, {} arithmetic, seed {seed}; ± and intervals: 95 %",
        problems.len(),
        arithmetic.name()
    ));
    for &width in &arguments.widths {
        let peers = peers(arguments, width)?;
        let Some(lines) = quality(
            arguments, &engines, &problems, width, &peers, seed, &interrupt, output,
        )?
        else {
            return Ok(Outcome::Interrupted);
        };
        print_quality(width, &lines, output);
        let timed = &problems[..arguments.timed.min(problems.len())];
        let Some(timings) = timing(
            arguments, &engines, timed, width, &peers, seed, &interrupt, output,
        )?
        else {
            return Ok(Outcome::Interrupted);
        };
        if !timed.is_empty() {
            print_timings(&timings, timed.len(), output);
        }
        report.widths.push(Width {
            width,
            problems: problems.len(),
            lines,
            timed_problems: timed.len(),
            timings,
        });
    }
    output.line("\nkv: unique tokens of all candidates' paths before pruning, summed over the steps, and its largest term (as published). held: the same with tokens that siblings have in common from their beginning on counted once, which is what the engine holds. Nothing of this is an estimate; seconds are this machine's.");
    output.json(&report)?;
    Ok(Outcome::Done)
}

/// What came of one problem by one method.
struct Trial {
    cost: Cost,
    solved: bool,
    any: bool,
}

impl Trial {
    fn of(found: &Found, problem: &Problem, election: Election, aggregate: Aggregate) -> Self {
        let solved = |trajectory: &Trajectory| {
            problem.is_solved_by(trajectory.steps.iter().map(String::as_str))
        };
        Self {
            cost: found.cost.clone(),
            solved: found.elect(election, aggregate).is_some_and(solved),
            any: found.trajectories.iter().any(solved),
        }
    }
}

/// All methods on all problems. Continuations that several methods ask for are generated once: trees and answers are the same as by themselves, and memory and time are measured elsewhere.
#[expect(
    clippy::too_many_arguments,
    reason = "what both parts of the bench need"
)]
fn quality(
    arguments: &Ets,
    engines: &Engines,
    problems: &[Problem],
    width: u32,
    peers: &[Peer],
    seed: u64,
    interrupt: &Interrupt,
    output: &Output,
) -> anyhow::Result<Option<Vec<Line>>> {
    let reward = engines.reward();
    let progress = Mutex::new(output.progress(&format!("width {width}"), problems.len() as u64));
    let trials: Vec<Option<Vec<Trial>>> = problems
        .par_iter()
        .map(|problem| -> anyhow::Result<Option<Vec<Trial>>> {
            if interrupt.asked() {
                return Ok(None);
            }
            let task = Countdown::of(problem);
            let mut searches = Searches::new(engines.cast(&reward, &task), &problem.tokens());
            let trials = peers
                .iter()
                .map(|peer| {
                    let settings = settings(arguments, peer.method, width, seed);
                    let found = searches.search(&settings, |_| ())?;
                    Ok(Trial::of(
                        &found,
                        problem,
                        peer.election,
                        arguments.aggregate.into(),
                    ))
                })
                .collect::<anyhow::Result<_>>()?;
            if let Ok(progress) = progress.lock() {
                progress.inc(1);
            }
            Ok(Some(trials))
        })
        .collect::<anyhow::Result<_>>()?;
    if let Ok(progress) = progress.lock() {
        progress.finish_and_clear();
    }
    let Some(trials) = trials.into_iter().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let of = |peer: usize, figure: &dyn Fn(&Trial) -> f64| -> Vec<f64> {
        trials.iter().map(|trials| figure(&trials[peer])).collect()
    };
    let lines = peers
        .iter()
        .enumerate()
        .map(|(place, peer)| {
            let mean = |figure: &dyn Fn(&Trial) -> f64| Estimate::mean(&of(place, figure));
            let less = |figure: &dyn Fn(&Trial) -> f64| {
                Estimate::ratio(&of(0, figure), &of(place, figure))
            };
            let number = |test: &dyn Fn(&Trial) -> bool| {
                trials.iter().filter(|trials| test(&trials[place])).count()
            };
            let difference: Vec<f64> = trials
                .iter()
                .map(|trials| {
                    let points = |place: usize| if trials[place].solved { 100.0 } else { 0.0 };
                    points(place) - points(0)
                })
                .collect();
            let mut cost = Cost::default();
            trials
                .iter()
                .for_each(|trials| cost.add(&trials[place].cost));
            Line {
                method: peer.name.clone(),
                solved: Rate::of(number(&|it| it.solved), trials.len()),
                more_than_rebase: Estimate::mean(&difference),
                any: Rate::of(number(&|it| it.any), trials.len()),
                kv_tokens: mean(&|it| it.cost.kv_tokens as f64),
                kv_peak: mean(&|it| it.cost.kv_peak as f64),
                less_kv: less(&|it| it.cost.kv_tokens as f64),
                held_tokens: mean(&|it| it.cost.held_tokens as f64),
                held_peak: mean(&|it| it.cost.held_peak as f64),
                less_held: less(&|it| it.cost.held_tokens as f64),
                calls: mean(&|it| it.cost.calls as f64),
                tokens: mean(&|it| it.cost.tokens as f64),
                selection_ms: cost.selection_ns as f64 / 1e6 / f64::from(cost.depth.max(1)),
                longest_selection_ms: cost.longest_selection_ns as f64 / 1e6,
                unproved: cost.unproved,
            }
        })
        .collect();
    Ok(Some(lines))
}

fn print_quality(width: u32, lines: &[Line], output: &Output) {
    output.line(format!("\nwidth {width}"));
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.method.clone(),
                format!(
                    "{:.1} ({:.1} to {:.1})",
                    line.solved.of_hundred, line.solved.from, line.solved.to
                ),
                if line.method == "REBASE" {
                    "-".into()
                } else {
                    line.more_than_rebase.text(1)
                },
                format!("{:.1}", line.any.of_hundred),
                line.kv_tokens.text(0),
                format!("{:.0}", line.kv_peak.value),
                line.less_kv.text(2),
                line.held_tokens.text(0),
                format!("{:.0}", line.held_peak.value),
                line.less_held.text(2),
                format!("{:.0}", line.calls.value),
                format!("{:.0}", line.tokens.value),
                format!("{:.2}, {:.1}", line.selection_ms, line.longest_selection_ms),
            ]
        })
        .collect();
    output.table(
        &[
            "method",
            "solved, %",
            "points over REBASE",
            "any right, %",
            "kv tokens",
            "peak",
            "times less",
            "held tokens",
            "peak",
            "times less",
            "calls",
            "tokens written",
            "choosing, ms: mean, longest",
        ],
        &rows,
    );
    let unproved: u64 = lines.iter().map(|line| line.unproved).sum();
    if unproved > 0 {
        output.line(format!(
            "{} selections were not proved to be the best",
            count(unproved)
        ));
    }
}

/// Each method's search by itself: with all the pages that it wants, and with as few for all methods.
#[expect(
    clippy::too_many_arguments,
    reason = "what both parts of the bench need"
)]
fn timing(
    arguments: &Ets,
    engines: &Engines,
    problems: &[Problem],
    width: u32,
    peers: &[Peer],
    seed: u64,
    interrupt: &Interrupt,
    output: &Output,
) -> anyhow::Result<Option<Vec<Timing>>> {
    let reward = engines.reward();
    let peers: Vec<&Peer> = peers.iter().filter(|peer| !peer.same_search).collect();
    let rounds = 2 * problems.len() * peers.len();
    let progress = output.progress(&format!("width {width}, times"), rounds as u64);
    let mut timings = Vec::new();
    let mut few = None;
    for short in [false, true] {
        let pages = if short { few } else { None };
        let mut seconds = vec![Vec::new(); peers.len()];
        let mut costs = vec![Cost::default(); peers.len()];
        for problem in problems {
            // One after the other on each problem, so that what else the machine does meets all alike.
            for (place, peer) in peers.iter().enumerate() {
                if interrupt.asked() {
                    return Ok(None);
                }
                let mut settings = settings(arguments, peer.method, width, seed);
                settings.pages = pages.unwrap_or(usize::MAX);
                let begun = Instant::now();
                let (found, _) = search(
                    engines.cast(&reward, &Countdown::of(problem)),
                    &settings,
                    &problem.tokens(),
                    |_| (),
                )?;
                seconds[place].push(begun.elapsed().as_secs_f64());
                costs[place].add(&found.cost);
                progress.inc(1);
            }
        }
        if !short {
            let most = costs.first().map_or(0, |cost| cost.pages_peak as usize);
            few = Some(arguments.pages.unwrap_or(most.div_ceil(2)));
        }
        for (place, peer) in peers.iter().enumerate() {
            timings.push(Timing {
                method: peer.name.clone(),
                pages,
                seconds: Estimate::mean(&seconds[place]),
                throughput: Estimate::ratio(&seconds[0], &seconds[place]),
                cost: std::mem::take(&mut costs[place]),
            });
        }
    }
    progress.finish_and_clear();
    Ok(Some(timings))
}

fn print_timings(timings: &[Timing], problems: usize, output: &Output) {
    let rows: Vec<Vec<String>> = timings
        .iter()
        .map(|timing| {
            let name = if timing.method == "best of N" {
                "samples"
            } else {
                &timing.method
            };
            vec![
                name.to_owned(),
                timing
                    .pages
                    .map_or_else(|| "enough".into(), |pages| count(pages as u64)),
                timing.seconds.text(3),
                timing.throughput.text(2),
                count(timing.cost.passes.rows / problems.max(1) as u64),
                count(timing.cost.pages_peak),
                count(timing.cost.recomputed / problems.max(1) as u64),
                count(timing.cost.preempted),
                count(timing.cost.starved),
                format!(
                    "{:.2}",
                    timing.cost.passes.tokens_read_alone as f64
                        / timing.cost.passes.tokens_read.max(1) as f64
                ),
            ]
        })
        .collect();
    output.line(format!(
        "the engine's time, {problems} problems, each search by itself"
    ));
    output.table(
        &[
            "method",
            "pages",
            "seconds a problem",
            "times REBASE's throughput",
            "rows a problem",
            "most pages used",
            "computed again",
            "waits",
            "given up",
            "reads saved by sharing, times",
        ],
        &rows,
    );
}
