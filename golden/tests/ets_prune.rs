//! The pruning engine's twin against the exact method: how often it finds the best set, and what it misses.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::ets::samples::{Choice, covering, draw, tied};
use golden::ets::{
    Effort, Lambda, NodePrice, Prices, PruneJob, Pruned, ROUNDS, depth_first, prune,
};

fn full() -> bool {
    std::env::var_os("FGMP_FULL").is_some_and(|value| value == "1")
}

/// The figures of docs/tree-search-hardware.md, with `--nocapture`.
#[test]
fn the_best_set_is_found_nearly_always() {
    let trials = if full() { 2000 } else { 100 };
    for (width, rounds, least) in [
        (16u32, ROUNDS, [98, 98, 98, 98]),
        (64, ROUNDS, [99, 97, 90, 97]),
        (64, 12, [99, 97, 85, 97]),
        (256, ROUNDS, [97, 93, 70, 93]),
    ] {
        for (kind, least) in ["grown", "scattered", "tied", "covering"].iter().zip(least) {
            let mut state = 3;
            let (mut best, mut proved, mut gap, mut halves, mut bits, mut vertices) =
                (0, 0, 0f64, 0, 0, 0);
            for trial in 0..trials {
                let choice = Choice::of_kind(&mut state, kind, width, trial).unwrap();
                let prices = Prices::published(width);
                let programme = choice.programme(prices).unwrap();
                let job = choice.job(prices).unwrap();
                let found = prune(&job, rounds);
                let evaluation = programme.evaluate(&found.kept);
                let tie = programme.node_count() as i64 + 1;
                assert_eq!(
                    found.worth,
                    evaluation.objective * tie - i64::from(evaluation.nodes)
                );
                let exact = programme.solve(Effort::default());
                assert!(evaluation.order(&exact.evaluation).is_le());
                if found.proved {
                    assert_eq!(evaluation, exact.evaluation);
                    proved += 1;
                }
                best += usize::from(evaluation.objective == exact.evaluation.objective);
                gap = gap.max(programme.value(exact.evaluation.objective - evaluation.objective));
                halves += found.halves;
                bits = bits.max(job.bits());
                vertices = vertices.max(job.vertices());
            }
            eprintln!(
                "width {width}, {rounds} rounds, {kind}: {best} of {trials} at the optimum, largest gap {gap:.4}; {proved} proved, {:.1} halves; numbers of {bits} bits, {vertices} vertices",
                f64::from(halves) / trials as f64
            );
            assert!(best * 100 >= least * trials, "width {width}, {kind}");
        }
    }
}

#[test]
fn small_choices_of_all_kinds() {
    let mut state = 9;
    let trials = 2000;
    let mut best = 0;
    for trial in 0..trials {
        let leaves = 1 + draw(&mut state, 12) as usize;
        let choice = if trial % 20 == 0 {
            covering(&mut state, 4, 3, 7, 2)
        } else {
            tied(&mut state, leaves)
        }
        .unwrap();
        let mut of =
            || Lambda::new([0.0, 0.5, 1.0, 1.25, 2.0, 3.0][draw(&mut state, 6) as usize]).unwrap();
        let prices = Prices {
            budget: of(),
            diversity: of(),
            node: [NodePrice::Nodes, NodePrice::Tokens][trial % 2],
        };
        let programme = choice.programme(prices).unwrap();
        let (_, exact) = programme.enumerate().unwrap();
        let Pruned {
            kept,
            worth,
            proved,
            ..
        } = prune(&choice.job(prices).unwrap(), ROUNDS);
        let found = programme.evaluate(&kept);
        assert!(kept.contains(&true));
        let tie = programme.node_count() as i64 + 1;
        assert_eq!(worth, found.objective * tie - i64::from(found.nodes));
        assert!(found.order(&exact).is_le());
        assert!(!proved || found == exact);
        best += usize::from(found.objective == exact.objective);
    }
    eprintln!("{best} of {trials} small choices at the optimum");
    assert!(best * 100 >= 97 * trials);
}

/// More rounds are never worse, and one is enough for a choice without clusters.
#[test]
fn rounds() {
    let mut state = 17;
    for trial in 0..40 {
        let choice = Choice::of_kind(&mut state, "tied", 64, trial).unwrap();
        let prices = Prices::published(64);
        let whole = choice.job(prices).unwrap();
        let mut last = i64::MIN;
        for rounds in [0, 1, 2, 4, 16, 40] {
            let worth = prune(&whole, rounds).worth;
            assert!(worth >= last);
            last = worth;
        }
        let alone = PruneJob::new(&choice.tree, &choice.leaves, &choice.weights, None, prices);
        let alone = alone.unwrap();
        if choice.weights.iter().any(|&weight| weight > 0) {
            assert_eq!(prune(&alone, 1), prune(&alone, 16));
        }
    }
}

#[test]
fn depth_first_order_is_of_subtrees() {
    let mut state = 23;
    for trial in 0..40 {
        let Choice { tree, leaves, .. } = Choice::of_kind(&mut state, "tied", 16, trial).unwrap();
        let visits = depth_first(&tree, &leaves).unwrap();
        let mut nodes: Vec<_> = visits.iter().map(|visit| visit.node).collect();
        for (place, visit) in visits.iter().enumerate().skip(1) {
            // The parent is the last on the way that is higher up.
            let parent = tree.parent(visit.node).unwrap().unwrap();
            let depth = tree.depth(visit.node).unwrap();
            let above = visits[..place]
                .iter()
                .rev()
                .find(|other| tree.depth(other.node).unwrap() < depth)
                .unwrap();
            assert_eq!(above.node, parent);
            assert_eq!(visit.depth, above.depth + u32::from(!above.single));
            assert_eq!(visit.leaf, leaves.contains(&visit.node));
        }
        nodes.sort_unstable();
        assert_eq!(nodes, tree.union(&leaves).unwrap());
    }
}
