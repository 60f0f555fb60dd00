//! The hardware for efficient tree search in Verilator against its golden twins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{is_full, verilator_for_short_runs};
use golden::ets::samples::{Choice, covering, draw, grown, tied};
use golden::ets::{Effort, Lambda, NodePrice, Prices, PruneJob, ROUNDS, prune};
use hdl::build::emit_module;
use hdl::ets::PruningEngine;
use hdl::prelude::*;
use testbench::design::Design;
use testbench::ets::PruneBench;
use testbench::verilator::VerilatorSim;

fn simulate(module: impl Block) -> VerilatorSim {
    let design = Design::from(&emit_module(module).unwrap());
    verilator_for_short_runs().lint(&design).unwrap();
    verilator_for_short_runs().simulate(&design).unwrap()
}

fn job(choice: &Choice, prices: Prices) -> PruneJob {
    PruneJob::new(
        &choice.tree,
        &choice.leaves,
        &choice.weights,
        Some(&choice.clusters),
        prices,
    )
    .unwrap()
}

/// One of four kinds, as `golden/tests/ets.rs` has them.
fn choice(state: &mut u64, kind: &str, width: u32, trial: usize) -> Choice {
    let depth = [5, 10, 25, 40][trial % 4];
    let ideas = 1 + trial as u64 % 5;
    let kinds = u64::from(width) / [1, 2, 4, 8][trial / 4 % 4];
    match kind {
        "grown" => grown(state, width, depth, ideas, None),
        "scattered" => grown(state, width, depth, ideas, Some(kinds)),
        "tied" => tied(state, width as usize),
        _ => covering(state, width as usize / 4, 4, u64::from(width) / 3, 3),
    }
    .unwrap()
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
                let choice = choice(&mut state, kind, width, trial);
                let prices = Prices {
                    node: [NodePrice::Nodes, NodePrice::Tokens][trial / 3 % 2],
                    ..Prices::published(width)
                };
                let job = job(&choice, prices);
                let run = benches[bench].run(&job, ROUNDS as u8).unwrap();
                assert_eq!(run.pruned, prune(&job, ROUNDS), "{width} {kind} {trial}");
                let programme = choice.programme(prices).unwrap();
                let exact = programme.solve(Effort::default()).evaluation.objective;
                best +=
                    usize::from(programme.evaluate(&run.pruned.kept).objective == exact);
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
        let job = job(&choice, prices);
        let gaps = draw(&mut state, 3);
        let run = benches[0]
            .run_with_gaps(&job, rounds, |_| draw(&mut state, 1 + gaps) as u32)
            .unwrap();
        assert_eq!(run.pruned, prune(&job, u32::from(rounds)), "{trial}");
    }
}
