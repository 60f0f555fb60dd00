//! The hardware for efficient tree search in Verilator against its golden twins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{is_full, verilator_for_short_runs};
use golden::ets::countdown::{self, Countdown, Problem};
use golden::ets::live::{Cast, Embedding, Method, Reward, ScoreHead, Settings, search};
use golden::ets::samples::{Choice, draw, grown, tied};
use golden::ets::{
    Effort, Lambda, NodePrice, PoolError, Prices, ROUNDS, Rule, Scores, SearchTree, State,
    Temperature, allocate, prune, select, select_by_engine,
};
use golden::model::{ConfigHints, Model};
use hdl::build::emit_module;
use hdl::ets::{Allocator, PageTable, PruningEngine};
use hdl::prelude::*;
use testbench::design::Design;
use testbench::ets::{
    AllocatorBench, PageAnswer, PageBench, PageCommand, PruneBench, SelectorBench, cosim,
    twin_answer,
};
use testbench::verilator::VerilatorSim;

fn simulate(module: impl Block) -> VerilatorSim {
    let design = Design::from(&emit_module(module).unwrap());
    verilator_for_short_runs().lint(&design).unwrap();
    verilator_for_short_runs().simulate(&design).unwrap()
}

/// Whatever it is doing when another choice is to be made: that is the twin's.
#[test]
fn the_engine_drops_what_is_under_way() {
    let mut bench = PruneBench::new(simulate(PruningEngine::<3, 2>::default()), 8).unwrap();
    let mut state = 47;
    let mut cycles = 0;
    for trial in 0..if is_full() { 40 } else { 4 } {
        let mut job = || {
            let leaves = 2 + draw(&mut state, 7) as usize;
            let choice = tied(&mut state, leaves).unwrap();
            choice.job(Prices::published(16)).unwrap()
        };
        let (first, second) = (job(), job());
        let most = bench.run(&first, 3).unwrap().cycles;
        for left_after in 0..=most {
            bench.abandon(&first, 3, left_after).unwrap();
            let run = bench.run(&second, 3).unwrap();
            assert_eq!(run.pruned, prune(&second, 3), "{trial}, after {left_after}");
        }
        cycles += most;
    }
    assert!(cycles > 100, "{cycles}");
}

#[test]
fn the_allocator_drops_what_is_under_way() {
    let mut bench = AllocatorBench::new(simulate(Allocator::<2>::default()), 4).unwrap();
    let mut state = 53;
    for _ in 0..if is_full() { 40 } else { 6 } {
        let mut leaves = || {
            let scores: Vec<f32> = (0..1 + draw(&mut state, 4))
                .map(|_| draw(&mut state, 9) as f32 / 8.0)
                .collect();
            Scores::new(&scores)
        };
        let (first, second) = (leaves(), leaves());
        let temperature = Temperature::PUBLISHED;
        let most = bench.run(&first, None, temperature, 9).unwrap().cycles;
        for left_after in 0..=most {
            bench.abandon(&first, temperature, 9, left_after).unwrap();
            let run = bench.run(&second, None, temperature, 7).unwrap();
            let twin = allocate(&second, None, temperature, 7);
            assert_eq!(run.allocation, twin, "after {left_after}");
        }
    }
}

/// Cycles and shares, with `--nocapture`: what docs/tree-search-hardware.md says of them.
#[test]
fn the_engine_chooses_as_its_twin() {
    let mut benches = [
        PruneBench::new(simulate(PruningEngine::<6, 5>::default()), 64).unwrap(),
        PruneBench::new(simulate(PruningEngine::<8, 7>::default()), 256).unwrap(),
    ];
    let trials = if is_full() { 500 } else { 24 };
    for (width, bench) in [(16u32, 0), (64, 0), (256, 1)] {
        for kind in ["grown", "scattered", "tied", "covering"] {
            let mut state = 41;
            let (mut best, mut most, mut sum, mut proved) = (0, 0, 0, 0);
            for trial in 0..trials {
                let choice = Choice::of_kind(&mut state, kind, width, trial).unwrap();
                let prices = Prices {
                    node: [NodePrice::Nodes, NodePrice::Tokens][trial / 3 % 2],
                    ..Prices::published(width)
                };
                let job = choice.job(prices).unwrap();
                let run = benches[bench].run(&job, ROUNDS as u8).unwrap();
                assert_eq!(run.pruned, prune(&job, ROUNDS), "{width} {kind} {trial}");
                let programme = choice.programme(prices).unwrap();
                let exact = programme.solve(Effort::default()).evaluation.objective;
                best += usize::from(programme.evaluate(&run.pruned.kept).objective == exact);
                proved += usize::from(run.pruned.proved);
                most = most.max(run.cycles);
                sum += run.cycles;
            }
            eprintln!(
                "width {width}, {kind}: {trials} choices as the twin's, {best} at the optimum, {proved} proved; {} cycles on the average, {most} at most",
                sum / trials as u64
            );
            assert!(width > 64 || most <= 10_000);
        }
    }
    // All kinds of small ones, other prices, rounds and gaps.
    let mut state = 43;
    for trial in 0..if is_full() { 4000 } else { 400 } {
        let leaves = 1 + draw(&mut state, 64) as usize;
        let choice = tied(&mut state, leaves).unwrap();
        let mut of =
            || Lambda::new([0.0, 0.5, 1.0, 1.25, 2.0, 3.0][draw(&mut state, 6) as usize]).unwrap();
        let prices = Prices {
            budget: of(),
            diversity: of(),
            node: [NodePrice::Nodes, NodePrice::Tokens][trial % 2],
        };
        let rounds = draw(&mut state, 24) as u8;
        let job = choice.job(prices).unwrap();
        let gaps = draw(&mut state, 3);
        let run = benches[0]
            .run_with_gaps(&job, rounds, |_| draw(&mut state, 1 + gaps) as u32)
            .unwrap();
        assert_eq!(run.pruned, prune(&job, u32::from(rounds)), "{trial}");
    }
}

#[test]
fn the_allocator_shares_as_its_twin() {
    let mut bench = AllocatorBench::new(simulate(Allocator::<6>::default()), 64).unwrap();
    let mut state = 47;
    let mut most = [0; 2];
    for trial in 0..if is_full() { 20_000 } else { 1500 } {
        let leaves = match trial % 4 {
            0 => 1 + draw(&mut state, 5),
            1 => 64,
            _ => 1 + draw(&mut state, 64),
        };
        let spread = [1 << 10, 1 << 16, 1 << 20, 1 << 32][draw(&mut state, 4) as usize];
        let kinds = [3, 40, u64::MAX][draw(&mut state, 3) as usize];
        let scores: Vec<Option<i32>> = (0..leaves)
            .map(|_| {
                let score = draw(&mut state, kinds) % spread;
                let extreme = [i32::MIN, i32::MAX, -1, 0];
                match draw(&mut state, 24) {
                    0 => None,
                    1 => Some(extreme[draw(&mut state, 4) as usize]),
                    _ => Some((score as u32 as i32).wrapping_sub(1 << 9)),
                }
            })
            .collect();
        let scores = Scores::from_fixed(if trial % 50 == 0 {
            vec![None; scores.len()]
        } else {
            scores
        });
        let mask: Vec<bool> = (0..leaves).map(|_| draw(&mut state, 3) > 0).collect();
        let mask = (trial % 2 == 0).then_some(mask.as_slice());
        let width = match trial % 3 {
            0 => 64,
            1 => draw(&mut state, 10) as u32,
            _ => draw(&mut state, 1 << 16) as u32,
        };
        let temperature = match trial % 5 {
            0 => Temperature::new(1.0 / 32768.0),
            1 => Temperature::new(32768.0),
            2 => Temperature::new(1.0 + draw(&mut state, 100) as f64 / 17.0),
            _ => Ok(Temperature::PUBLISHED),
        }
        .unwrap();
        let run = bench.run(&scores, mask, temperature, width).unwrap();
        let twin = allocate(&scores, mask, temperature, width);
        assert_eq!(run.allocation, twin, "{trial}");
        // What isn't given is left: all of it if no leaf is kept, else nothing.
        assert_eq!(u64::from(run.left) + twin.total(), u64::from(width));
        let place = usize::from(width > 64);
        most[place] = run.cycles.max(most[place]);
    }
    eprintln!(
        "64 leaves: at most {} cycles for widths to 64, {} for any",
        most[0], most[1]
    );
}

/// Selections of whole searches with scores from a hat, and of grown trees.
fn selections(
    state: &mut u64,
    width: u32,
    searches: usize,
    trees: usize,
) -> Vec<(SearchTree, Rule)> {
    let mut recorded = Vec::new();
    let rule = Rule::published(width);
    for _ in 0..searches {
        let mut tree = SearchTree::new(width, 30);
        while let Some(selection) = select(&tree, rule).unwrap() {
            recorded.push((tree.clone(), rule));
            for (&leaf, &count) in selection.leaves.iter().zip(&selection.allocation.counts) {
                if count == 0 {
                    tree.decide(leaf, State::Pruned).unwrap();
                }
                for _ in 0..count {
                    let score = match draw(state, 20) {
                        0 => f32::NAN,
                        1 => 0.5,
                        _ => draw(state, 1000) as f32 / 1000.0,
                    };
                    let tokens = draw(state, 60) as u32;
                    let child = tree.add(leaf, tokens, score).unwrap();
                    let cluster = draw(state, 1 + u64::from(width) / 2) as u32;
                    tree.set_cluster(child, Some(cluster)).unwrap();
                    if draw(state, 6) == 0 {
                        let ended = [State::Completed, State::OverLong];
                        tree.decide(child, ended[draw(state, 2) as usize]).unwrap();
                    }
                }
            }
        }
        recorded.push((tree, rule));
    }
    for trial in 0..trees {
        let choice = Choice::of_kind(
            state,
            ["grown", "scattered", "tied"][trial % 3],
            width,
            trial,
        )
        .unwrap();
        let node = [NodePrice::Nodes, NodePrice::Tokens][trial % 2];
        let prices = Prices {
            node,
            ..rule.prices
        };
        recorded.push((choice.tree, Rule { prices, ..rule }));
    }
    recorded
}

#[test]
fn whole_selections_are_as_the_twins() {
    let scale = if is_full() { 20 } else { 1 };
    for (width, searches, trees, rounds) in [(64, 3, 30, 12), (64, 0, 12, 16), (256, 1, 6, 16)] {
        let mut state = 53;
        let recorded = selections(&mut state, width, searches * scale, trees * scale);
        let report = cosim(&verilator_for_short_runs(), &recorded, rounds).unwrap();
        eprintln!("width {width}: {report:?}");
        assert_eq!((report.mismatches, report.refused), (0, 0));
        assert_eq!(report.instances + report.ended, recorded.len());
        assert_eq!(report.exact, report.instances);
        assert!(report.share_at_optimum >= 0.9 && report.instances > trees / 2);
        // Not all trees have a node for each cycle: a reader that is slow gets the same.
        if width == 64 {
            let mut bench = SelectorBench::build(&verilator_for_short_runs(), 64, 1024).unwrap();
            for (tree, rule) in recorded.iter().take(20) {
                let Some(twin) = select_by_engine(tree, *rule, 3).unwrap() else {
                    continue;
                };
                let run = bench
                    .run(tree, *rule, &twin, 3, || draw(&mut state, 3) == 0)
                    .unwrap();
                assert_eq!(run.pruned, twin.pruned);
                assert_eq!(run.counts, twin.allocation.counts);
                let tables = twin.tables(tree).unwrap();
                assert!(run.marked && run.reads == tables.reads);
            }
        }
    }
}

/// Random commands to handles that are alive, freed, or never were.
#[test]
fn the_page_table_answers_as_its_twin() {
    let mut state = 59;
    let steps = if is_full() { 200_000 } else { 12_000 };
    let mut refusals = [0; 5];
    for (segments, pages, page_tokens) in [(16, 11, 3), (64, 256, 4), (16, 16, 1)] {
        let table = |bench| -> VerilatorSim {
            match bench {
                (16, 11, 3) => simulate(PageTable::<4, 4>::new(11, 3)),
                (16, ..) => simulate(PageTable::<4, 4>::new(16, 1)),
                _ => simulate(PageTable::<6, 8>::new(256, 4)),
            }
        };
        let mut bench =
            PageBench::new(table((segments, pages, page_tokens)), segments, pages).unwrap();
        let mut twin = golden::ets::PageTable::new(segments, pages, page_tokens).unwrap();
        let mut handles = Vec::new();
        let (mut longest, mut largest) = (0, 0);
        for step in 0..steps {
            // Times of growth and times of pruning.
            let growing = step / 300 % 2 == 0;
            let which = draw(&mut state, handles.len() as u64 + 1) as usize;
            let recent = handles.len().saturating_sub(1 + which % 8);
            let place = if draw(&mut state, 2) == 0 {
                which
            } else {
                recent
            };
            let handle = handles.get(place).copied().unwrap_or(golden::ets::Handle {
                segment: draw(&mut state, segments as u64) as u32,
                generation: draw(&mut state, 256) as u8,
            });
            let asked = match draw(&mut state, if growing { 16 } else { 24 }) {
                0 => PageCommand::Root,
                1..=5 => PageCommand::Fork(handle),
                6..=12 => PageCommand::Append(handle),
                13 => PageCommand::Walk(handle),
                14 => PageCommand::Pages(handle),
                15..=20 => PageCommand::Release(handle),
                _ => PageCommand::Prune(handle),
            };
            let (answer, cycles) = bench.ask(asked, || draw(&mut state, 4) > 0).unwrap();
            let expected = twin_answer(&mut twin, asked);
            assert_eq!(answer, expected, "{segments}, {step}: {asked:?}");
            let usage = twin.usage();
            assert_eq!(bench.used(), (usage.pages, usage.segments));
            longest = longest.max(cycles);
            largest = largest.max(usage.segments);
            match expected {
                PageAnswer::Segment(handle) => handles.push(handle),
                PageAnswer::Refused(error) => {
                    refusals[match error {
                        PoolError::Full { .. } => 0,
                        PoolError::Freed => 1,
                        PoolError::Released => 2,
                        PoolError::Frozen => 3,
                        _ => 4,
                    }] += 1;
                }
                _ => {}
            }
            if handles.len() > 3 * segments {
                // Mostly those that are alive; some that aren't.
                handles.retain(|&handle| draw(&mut state, 8) == 0 || twin.walk(handle).is_ok());
            }
        }
        eprintln!(
            "{segments} segments, {pages} pages: {steps} commands as the twin's, at most {longest} cycles, {largest} segments at once"
        );
    }
    assert!(refusals.iter().all(|&count| count > 20), "{refusals:?}");
}

/// Selector and page table together: when the pruned leaves are released, the kept nodes' pages in the order of the reads are exactly the pages in use, each once, a node's one behind the other.
#[test]
fn every_page_in_use_is_read_once() {
    let mut state = 61;
    let mut bench =
        PageBench::new(simulate(PageTable::<10, 12>::new(4096, 16)), 1024, 4096).unwrap();
    let mut selector = SelectorBench::build(&verilator_for_short_runs(), 64, 1024).unwrap();
    for depth in [2, 6, 9] {
        let mut twin = golden::ets::PageTable::new(1024, 4096, 16).unwrap();
        let choice = grown(&mut state, 64, depth, 3, None).unwrap();
        let tree = &choice.tree;
        let mut ask = |asked| {
            let (answer, _) = bench.ask(asked, || true).unwrap();
            assert_eq!(answer, twin_answer(&mut twin, asked));
            answer
        };
        let mut handles = Vec::new();
        for node in 0..tree.len() {
            let begun = match tree.parent(node).unwrap() {
                Some(parent) => ask(PageCommand::Fork(handles[parent])),
                None => ask(PageCommand::Root),
            };
            let PageAnswer::Segment(handle) = begun else {
                panic!("{begun:?}");
            };
            handles.push(handle);
            for _ in 0..tree.tokens(node).unwrap() {
                assert!(matches!(
                    ask(PageCommand::Append(handle)),
                    PageAnswer::Slot(..)
                ));
            }
        }
        let rule = Rule::published(64);
        let selection = select_by_engine(tree, rule, ROUNDS).unwrap().unwrap();
        let run = selector
            .run(tree, rule, &selection, ROUNDS as u8, || true)
            .unwrap();
        assert_eq!(run.pruned, selection.pruned);
        // Whoever isn't a kept leaf lives on for those below it alone.
        for (node, &handle) in handles.iter().enumerate() {
            let place = selection.leaves.iter().position(|&leaf| leaf == node);
            if !place.is_some_and(|place| run.pruned.kept[place]) {
                assert_eq!(ask(PageCommand::Release(handle)), PageAnswer::Done);
            }
        }
        let mut read = Vec::new();
        let tables = selection.tables(tree).unwrap();
        for kept in &run.reads {
            let node = tables.nodes[kept.node as usize].id;
            let PageAnswer::List(pages) = ask(PageCommand::Pages(handles[node])) else {
                panic!("{node} isn't alive");
            };
            let tokens = tree.tokens(node).unwrap() as usize;
            assert_eq!(pages.len(), tokens.div_ceil(16));
            read.extend(pages);
        }
        assert_eq!((read.len(), run.reads.len()), bench.used());
        read.sort_unstable();
        read.dedup();
        assert_eq!(read.len(), bench.used().0);
        // The table is empty again when the kept leaves are released, too.
        for (place, &leaf) in selection.leaves.iter().enumerate() {
            if run.pruned.kept[place] {
                bench
                    .ask(PageCommand::Release(handles[leaf]), || true)
                    .unwrap();
            }
        }
        assert_eq!(bench.used(), (0, 0));
        bench.reset().unwrap();
    }
}

/// Searches of problems with the models that come with the project: every selection made again on the hardware.
#[test]
fn selections_of_real_searches_are_as_the_twins() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let open = |name: &str| Model::open(&folder.join(name), ConfigHints::default()).unwrap();
    let (policy, reward) = (
        open("countdown-policy.safetensors"),
        open("countdown-prm.safetensors"),
    );
    let reward = Reward::Scored(&reward, ScoreHead::of(&reward).unwrap());
    let problems = std::fs::read_to_string(folder.join("countdown-problems.txt")).unwrap();
    let problems: Vec<Problem> = problems
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.parse().ok())
        .collect();
    let runs: &[(u32, usize, &[u8])] = if is_full() {
        &[
            (16, 60, &[16]),
            (64, 60, &[12, 16]),
            (256, 20, &[16, 32, 64]),
        ]
    } else {
        &[(16, 2, &[16])]
    };
    for &(width, searches, rounds) in runs {
        let rule = Rule::published(width);
        let mut recorded = Vec::new();
        for problem in &problems[..searches] {
            let settings = Settings {
                cut: countdown::CUT,
                ..Settings::new(Method::Ets(rule), width)
            };
            let cast = Cast {
                policy: &policy,
                reward: &reward,
                embedding: Embedding::Reward,
                task: &Countdown::of(problem),
            };
            search(cast, &settings, &problem.tokens(), |event| {
                recorded.push((event.tree.clone(), rule));
            })
            .unwrap();
        }
        assert!(recorded.len() >= searches);
        for &rounds in rounds {
            let report = cosim(&verilator_for_short_runs(), &recorded, rounds).unwrap();
            eprintln!("{searches} searches of width {width}: {report:?}");
            assert_eq!((report.mismatches, report.refused), (0, 0));
            // Many leaves take more rounds.
            assert!(report.share_at_optimum >= if width > 64 { 0.9 } else { 0.97 });
        }
    }
}
