//! Efficient tree search: the exact choice of leaves against plain enumeration and a solver of others, and the shared width against its definition.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::time::Duration;

use cpu_time::ThreadTime;

use golden::ets::published::{self, Pass};
use golden::ets::samples::unit;
use golden::ets::{
    Effort, Evaluation, Lambda, NodeId, NodePrice, Prices, Programme, ProgrammeError, Rule, Scores,
    SearchTree, Selection, State, Temperature, allocate, select,
};
use golden::strategies;
use good_lp::{
    Expression, ProblemVariables, Solution as _, SolverModel, Variable, constraint, microlp,
    variable,
};
use proptest::prelude::*;
use support::{Choice, covering, draw, full, grown, prices, tied};

#[test]
fn every_small_choice_is_the_best_of_all() {
    let mut state = 1;
    let trials = if full() { 20_000 } else { 2000 };
    let mut ties = 0;
    for trial in 0..trials {
        let choice = if trial % 40 == 0 {
            covering(&mut state, 5, 3, 7, 2)
        } else {
            let most = if trial % 20 == 10 { 14 } else { 9 };
            let count = 1 + draw(&mut state, most) as usize;
            tied(&mut state, count)
        };
        let count = choice.leaves.len();
        let prices = prices(&mut state);
        let programme = choice.programme(prices);
        let (kept, evaluation) = programme.enumerate().unwrap();
        let found = programme.solve(Effort::default());
        assert!(found.proved);
        assert_eq!(found.evaluation, evaluation, "trial {trial}");
        assert_eq!(found.kept, kept, "trial {trial}: {prices:?}");
        assert_eq!(found.bound, evaluation.objective);
        // The set from behind is as good as often as ties are there to be decided.
        let reversed: Vec<usize> = (0..count).rev().collect();
        let mirrored = Choice {
            tree: choice.tree.clone(),
            leaves: reversed.iter().map(|&leaf| choice.leaves[leaf]).collect(),
            weights: reversed.iter().map(|&leaf| choice.weights[leaf]).collect(),
            clusters: reversed.iter().map(|&leaf| choice.clusters[leaf]).collect(),
        };
        let other = mirrored.programme(prices).solve(Effort::default());
        assert_eq!(other.evaluation, evaluation);
        ties += usize::from(!other.kept.iter().rev().eq(&kept));
    }
    assert!(ties * 20 > trials, "{ties} ties");
}

/// The objective's largest value by another solver: its set, counted again in integers.
fn by_microlp(programme: &Programme) -> Evaluation {
    let parts = programme.parts();
    let mut variables = ProblemVariables::new();
    let ancestors: Vec<(Variable, Option<usize>, i64)> = parts
        .ancestors()
        .map(|(parent, cost)| (variables.add(variable().binary()), parent, cost))
        .collect();
    let leaves: Vec<(Variable, Option<usize>, i64, usize)> = parts
        .leaves()
        .map(|(parent, cost, gain, cluster)| {
            (
                variables.add(variable().binary()),
                parent,
                gain - cost,
                cluster,
            )
        })
        .collect();
    let clusters: Vec<Variable> = (0..programme.cluster_count())
        .map(|_| variables.add(variable().binary()))
        .collect();
    let scale = 1.0 / programme.value(1).recip().abs().max(1.0);
    let mut objective = Expression::from(0.0);
    for &(kept, _, cost) in &ancestors {
        objective -= kept * (cost as f64 * scale);
    }
    for &(kept, _, gain, _) in &leaves {
        objective += kept * (gain as f64 * scale);
    }
    for &covered in &clusters {
        objective += covered * (parts.cover() as f64 * scale);
    }
    let mut model = variables.maximise(objective).using(microlp);
    let below = ancestors
        .iter()
        .map(|&(kept, parent, _)| (kept, parent))
        .chain(leaves.iter().map(|&(kept, parent, ..)| (kept, parent)));
    for (kept, parent) in below {
        if let Some(parent) = parent {
            model = model.with(constraint!(kept <= ancestors[parent].0));
        }
    }
    for (cluster, &covered) in clusters.iter().enumerate() {
        let members: Expression = leaves
            .iter()
            .filter(|leaf| leaf.3 == cluster)
            .map(|leaf| leaf.0)
            .sum();
        model = model.with(constraint!(covered <= members));
    }
    let some: Expression = leaves.iter().map(|leaf| leaf.0).sum();
    model = model.with(constraint!(some >= 1.0));
    let solution = model.solve().unwrap();
    let kept: Vec<bool> = leaves
        .iter()
        .map(|leaf| solution.value(leaf.0) > 0.5)
        .collect();
    programme.evaluate(&kept)
}

#[test]
fn middling_choices_against_another_solver() {
    let mut state = 2;
    let mut times = [Duration::ZERO; 2];
    let trials = if full() { 300 } else { 40 };
    for trial in 0..trials {
        let (choice, prices) = if trial % 4 == 1 {
            (covering(&mut state, 14, 4, 18, 3), Prices::published(64))
        } else if trial % 4 == 0 {
            let count = 20 + draw(&mut state, 20) as usize;
            (tied(&mut state, count), prices(&mut state))
        } else {
            let widest = if full() { 4 } else { 3 };
            let width = [16, 32, 64, 256][draw(&mut state, widest) as usize];
            let depth = 3 + draw(&mut state, 12) as u32;
            let ideas = 1 + draw(&mut state, 4);
            (
                grown(&mut state, width, depth, ideas),
                Prices::published(width),
            )
        };
        let programme = choice.programme(prices);
        let start = ThreadTime::now();
        let found = programme.solve(Effort::default());
        times[0] += start.elapsed();
        assert!(found.proved, "trial {trial}");
        let start = ThreadTime::now();
        let theirs = by_microlp(&programme);
        times[1] += start.elapsed();
        assert_eq!(
            found.evaluation.objective, theirs.objective,
            "trial {trial}: {prices:?}"
        );
        assert_eq!(programme.evaluate(&found.kept), found.evaluation);
        // The tie rule by nodes doesn't depend on the order of the leaves.
        let mirrored = Choice {
            tree: choice.tree.clone(),
            leaves: choice.leaves.iter().rev().copied().collect(),
            weights: choice.weights.iter().rev().copied().collect(),
            clusters: choice.clusters.iter().rev().copied().collect(),
        };
        let other = mirrored.programme(prices).solve(Effort::default());
        assert_eq!(other.evaluation, found.evaluation);
    }
    let [own, others] = times.map(|time| time / trials as u32);
    eprintln!("middling: {own:.0?} a choice, microlp {others:.0?}");
}

/// Times, with `--nocapture`: what docs/tree-search.md says of them.
#[test]
fn wide_choices_are_proved() {
    let trials = if full() { 400 } else { 16 };
    for width in [16u32, 64, 256] {
        for kind in ["grown", "scattered", "tied", "covering"] {
            let mut state = 3;
            let mut times = Vec::new();
            let (mut nodes, mut passes, mut reduced) = (Vec::new(), 0, 0);
            for trial in 0..trials {
                let depth = [5, 10, 25, 40][trial % 4];
                let count = width as usize;
                let mut choice = match kind {
                    "grown" | "scattered" => grown(&mut state, width, depth, 1 + trial as u64 % 5),
                    "tied" => tied(&mut state, count),
                    _ => covering(&mut state, count / 4, 4, u64::from(width) / 3, 3),
                };
                if kind == "scattered" {
                    let kinds = u64::from(width) / [1, 2, 4, 8][trial / 4 % 4];
                    for cluster in &mut choice.clusters {
                        *cluster = draw(&mut state, kinds) as u32;
                    }
                }
                let programme = choice.programme(Prices::published(width));
                let start = ThreadTime::now();
                let found = programme.solve(Effort::default());
                times.push(start.elapsed());
                assert!(found.proved, "width {width}, {kind} {trial}");
                nodes.push(found.nodes);
                passes += found.relaxations;
                reduced += found.reduced;
            }
            times.sort_unstable();
            nodes.sort_unstable();
            let mean = times.iter().sum::<Duration>() / trials as u32;
            eprintln!(
                "width {width}, {kind}: {mean:.0?} a choice, median {:.0?}, 97 of 100 within {:.0?}, at most {:.0?}; {:.1} nodes, at most {}; {} passes, {} vertices left",
                times[trials / 2],
                times[trials * 97 / 100],
                times[trials - 1],
                nodes.iter().sum::<u64>() as f64 / trials as f64,
                nodes[trials - 1],
                passes / trials as u64,
                reduced / trials,
            );
        }
    }
}

#[test]
fn value_is_the_published_objective() {
    let mut state = 5;
    for width in [16, 64] {
        let choice = grown(&mut state, width, 8, 3);
        let prices = Prices::published(width);
        let programme = choice.programme(prices);
        let count = programme.len();
        let all = programme.evaluate(&vec![true; count]);
        let (budget, diversity) = (
            f64::from(prices.budget.thousandths()) / 1000.0,
            f64::from(prices.diversity.thousandths()) / 1000.0,
        );
        // Keeping everything is worth 1 − λ_b + λ_d.
        assert!((programme.value(all.objective) - (1.0 - budget + diversity)).abs() < 1e-12);
        assert_eq!(all.nodes as usize, programme.node_count());
        for _ in 0..50 {
            let kept: Vec<bool> = (0..count).map(|_| draw(&mut state, 3) == 0).collect();
            let set: Vec<usize> = (0..count).filter(|&leaf| kept[leaf]).collect();
            let of: Vec<NodeId> = set.iter().map(|&leaf| choice.leaves[leaf]).collect();
            let weight: u32 = set.iter().map(|&leaf| choice.weights[leaf]).sum();
            let mut covered: Vec<u32> = set.iter().map(|&leaf| choice.clusters[leaf]).collect();
            covered.sort_unstable();
            covered.dedup();
            let nodes = choice.tree.union(&of).unwrap().len();
            let expected = f64::from(weight) / f64::from(choice.weights.iter().sum::<u32>())
                - budget * nodes as f64 / programme.node_count() as f64
                + diversity * covered.len() as f64 / programme.cluster_count() as f64;
            let found = programme.evaluate(&kept);
            assert!((programme.value(found.objective) - expected).abs() < 1e-12);
            assert_eq!(found.nodes as usize, nodes);
        }
    }
}

#[test]
fn corner_cases() {
    let prices = Prices::published(16);
    let solve = |tree: &SearchTree, weights: &[u32], clusters: Option<&[u32]>| {
        Programme::new(tree, &tree.frontier(), weights, clusters, prices)
            .map(|programme| programme.solve(Effort::default()).kept)
    };
    // The root alone, whatever it weighs.
    let mut tree = SearchTree::new(1, 0);
    assert_eq!(solve(&tree, &[0], None), Ok(vec![true]));
    assert_eq!(solve(&tree, &[1], Some(&[7])), Ok(vec![true]));
    assert_eq!(tree.remaining(), 1);
    // All trajectories finished: nothing is left to choose.
    let a = tree.add(0, 5, f32::NAN).unwrap();
    tree.decide(a, State::Completed).unwrap();
    assert_eq!(solve(&tree, &[], None), Err(ProgrammeError::Empty));
    assert_eq!(tree.remaining(), 0);
    // One continuation: one leaf has it, and nothing else is worth its node but a cluster.
    let mut tree = SearchTree::new(1, 0);
    for _ in 0..3 {
        tree.add(0, 5, 0.5).unwrap();
    }
    assert_eq!(solve(&tree, &[0, 1, 0], None), Ok(vec![false, true, false]));
    let clusters = Some(&[9, 9, 4][..]);
    assert_eq!(
        solve(&tree, &[0, 1, 0], clusters),
        Ok(vec![false, true, true])
    );
    // No weight at all: the smallest of each cluster.
    assert_eq!(
        solve(&tree, &[0, 0, 0], clusters),
        Ok(vec![true, false, true])
    );
    assert_eq!(solve(&tree, &[0, 0, 0], None), Ok(vec![true, false, false]));
    assert!(matches!(
        solve(&tree, &[0], None),
        Err(ProgrammeError::Length { given: 1, .. })
    ));
    assert!(matches!(
        solve(&tree, &[0; 3], Some(&[])),
        Err(ProgrammeError::Length { given: 0, .. })
    ));
    let of = |leaves: &[NodeId], weights: &[u32]| {
        Programme::new(&tree, leaves, weights, None, prices).map(|programme| programme.len())
    };
    assert_eq!(of(&[1, 1], &[1, 1]), Err(ProgrammeError::NotALeaf(1)));
    assert_eq!(of(&[0, 1], &[1, 1]), Err(ProgrammeError::NotALeaf(0)));
    assert!(matches!(of(&[77], &[1]), Err(ProgrammeError::Tree(_))));
    // Steps of no tokens cost nothing, and the tie rule still prefers fewer of them.
    let mut tree = SearchTree::new(4, 0);
    for _ in 0..2 {
        tree.add(0, 0, 0.0).unwrap();
    }
    let tokens = Prices {
        node: NodePrice::Tokens,
        ..prices
    };
    let programme = Programme::new(&tree, &[1, 2], &[0, 3], None, tokens).unwrap();
    assert_eq!(programme.solve(Effort::default()).kept, [false, true]);
    // Too fine.
    let mut tree = SearchTree::new(4, u32::MAX);
    for _ in 0..200 {
        tree.add(0, u32::MAX, 0.0).unwrap();
    }
    let leaves = tree.frontier();
    let found = Programme::new(&tree, &leaves, &[u32::MAX - 1; 200], None, tokens);
    assert!(matches!(found.err(), Some(ProgrammeError::Range) | None));
    for wrong in [-0.1, f64::NAN, 1e9] {
        assert!(Lambda::new(wrong).is_err());
    }
    assert_eq!(Lambda::new(1.45).unwrap().thousandths(), 1450);
}

/// Whole searches with scores from a hat: the width is shared to the last, the tree stays within it, and what is kept needs fewer keys and values than everything would.
#[test]
fn searches_end() {
    let mut state = 11;
    let (mut kept_tokens, mut all_tokens) = (0, 0);
    for trial in 0..60 {
        let width = [1, 2, 16, 64][trial % 4];
        let mut tree = SearchTree::new(width, 30);
        let rule = Rule::published(width);
        let mut steps = 0;
        while let Some(selection) = select(&tree, rule).unwrap() {
            let Selection {
                leaves,
                solution,
                allocation,
                ..
            } = &selection;
            assert!(solution.proved);
            assert_eq!(allocation.total(), u64::from(tree.remaining()));
            let mut kept = Vec::new();
            for (place, &leaf) in leaves.iter().enumerate() {
                let count = allocation.counts[place];
                assert!(solution.kept[place] || count == 0);
                if solution.kept[place] {
                    kept.push(leaf);
                }
                if count == 0 {
                    tree.decide(leaf, State::Pruned).unwrap();
                }
                for _ in 0..count {
                    let score = if draw(&mut state, 20) == 0 {
                        f32::NAN
                    } else {
                        unit(&mut state)
                    };
                    let tokens = draw(&mut state, 60) as u32;
                    let child = tree.add(leaf, tokens, score).unwrap();
                    let cluster = draw(&mut state, 1 + u64::from(width) / 2) as u32;
                    tree.set_cluster(child, Some(cluster)).unwrap();
                    if draw(&mut state, 6) == 0 {
                        let ended = [State::Completed, State::OverLong];
                        tree.decide(child, ended[draw(&mut state, 2) as usize])
                            .unwrap();
                    }
                }
            }
            kept_tokens += tree.unique_tokens(&kept).unwrap();
            all_tokens += tree.unique_tokens(leaves).unwrap();
            steps += 1;
            assert!(steps < 1000);
        }
        let ended = tree.leaves(State::Completed).len() + tree.leaves(State::OverLong).len();
        assert_eq!(ended, width as usize);
        assert_eq!((tree.remaining(), tree.frontier().len()), (0, 0));
    }
    assert!(
        kept_tokens * 10 < all_tokens * 9,
        "{kept_tokens} {all_tokens}"
    );
}

/// Far beyond any search: a long trajectory, and more leaves than can be proved in a moment.
#[test]
fn large_trees() {
    let mut tree = SearchTree::new(4, 1);
    let mut tip = 0;
    let mut leaves = Vec::new();
    for step in 0..20_000 {
        if step % 5000 == 0 {
            leaves.push(tree.add(tip, 1, 0.0).unwrap());
        }
        tip = tree.add(tip, 1, 0.0).unwrap();
    }
    leaves.push(tip);
    let programme =
        Programme::new(&tree, &leaves, &[1, 1, 1, 1, 4], None, Prices::published(4)).unwrap();
    assert_eq!(programme.node_count(), 20_005);
    let found = programme.solve(Effort::default());
    assert_eq!(Ok((found.kept, found.evaluation)), programme.enumerate());
    let mut state = 13;
    let choice = tied(&mut state, 2000);
    let programme = choice.programme(Prices::published(256));
    let found = programme.solve(Effort { nodes: 20 });
    let all = programme.evaluate(&vec![true; programme.len()]);
    assert!(found.evaluation.objective >= all.objective);
    assert!(found.bound >= found.evaluation.objective);
}

#[test]
fn an_effort_that_ends_says_so() {
    let mut state = 7;
    let mut ended = 0;
    for _ in 0..50 {
        let choice = covering(&mut state, 16, 4, 20, 2);
        let programme = choice.programme(Prices::published(64));
        let best = programme.solve(Effort::default());
        let found = programme.solve(Effort { nodes: 1 });
        assert!(best.proved && best.bound == best.evaluation.objective);
        assert!(found.evaluation.objective <= best.evaluation.objective);
        assert!(found.bound >= best.evaluation.objective);
        if found.proved {
            assert_eq!(found.kept, best.kept);
        } else {
            ended += 1;
        }
    }
    assert!(ended > 0);
}

/// Scores, width, weights and continuations in integers, continuations in float32 of both passes; reckoned by a program of its own, in Python's whole numbers and with every float32 operation rounded from
/// float64.
type Vector = (
    &'static [f32],
    u32,
    &'static [u32],
    &'static [u32],
    &'static [u32],
    &'static [u32],
);

#[test]
fn known_shares() {
    let vectors: &[Vector] = &[
        (
            &[0.236, 0.103, 0.396, 0.155, 0.067],
            16,
            &[482457464, 248119465, 1073741824, 321798330, 207252909],
            &[4, 2, 8, 2, 0],
            &[4, 2, 8, 2, 0],
            &[4, 2, 8, 2, 0],
        ),
        (
            &[0.402, 0.918, 0.8, 0.765, 0.222, 0.537, 0.277, 0.173],
            64,
            &[
                81360056, 1073741824, 595220918, 499651990, 33079456, 159800316, 43548818, 25892090,
            ],
            &[2, 28, 15, 13, 1, 4, 1, 0],
            &[2, 28, 15, 13, 1, 4, 1, 0],
            &[2, 28, 15, 13, 1, 4, 1, 0],
        ),
        (
            &[
                0.106, 0.214, 0.927, 0.829, 0.807, 0.8, 0.193, 0.31, 0.627, 0.732, 0.855, 0.88,
            ],
            256,
            &[
                17706297, 30384410, 1073741824, 657779984, 589301711, 569022083, 27354266,
                49101776, 239580874, 404993431, 749104101, 848886468,
            ],
            &[0, 2, 53, 32, 29, 27, 1, 2, 12, 19, 37, 42],
            &[0, 2, 53, 32, 29, 27, 1, 2, 12, 19, 37, 42],
            &[0, 2, 53, 32, 29, 27, 1, 2, 12, 19, 37, 42],
        ),
        (
            &[0.625, 0.625, 0.625, 0.25, 0.25, 0.25, 0.25],
            16,
            &[
                1073741824, 1073741824, 1073741824, 164664431, 164664431, 164664431, 164664431,
            ],
            &[5, 5, 4, 1, 1, 0, 0],
            &[5, 5, 4, 1, 1, 0, 0],
            &[4, 5, 5, 0, 0, 1, 1],
        ),
        (
            &[0.18, 0.44, 0.59, 0.63, 0.2],
            64,
            &[113165623, 415255967, 879075043, 1073741824, 125070229],
            &[2, 10, 22, 27, 3],
            &[3, 10, 22, 27, 3],
            &[3, 10, 22, 27, 3],
        ),
    ];
    for (scores, width, weights, counts, first, second) in vectors {
        let fixed = Scores::new(scores);
        assert_eq!(fixed.weights(Temperature::PUBLISHED), *weights);
        assert_eq!(
            allocate(&fixed, None, Temperature::PUBLISHED, *width).counts,
            *counts
        );
        for (pass, expected) in [
            (Pass::Weights, first),
            (Pass::Continuations, second),
            (Pass::Rebase, second),
        ] {
            let found = published::allocate(scores, None, 0.2, *width, pass).unwrap();
            assert_eq!(found.counts, **expected);
        }
    }
}

fn scores() -> impl Strategy<Value = Vec<f32>> {
    let score = prop_oneof![
        8 => 0f32..1.0,
        2 => Just(0.5f32),
        1 => Just(f32::NAN),
        1 => -20f32..20.0,
    ];
    prop::collection::vec(score, 1..80)
}

proptest! {
    #![proptest_config(strategies::config(256))]

    #[test]
    fn total_is_the_width(scores in scores(), width in 0u32..=65_536, temperature in 0.05f64..2.0) {
        let temperature = Temperature::new(temperature).unwrap();
        let scores = Scores::new(&scores);
        let shared = allocate(&scores, None, temperature, width);
        prop_assert_eq!(shared.total(), u64::from(width));
        // By the definition, in numbers that can't overflow.
        let weights = scores.weights(temperature);
        let (mut left, mut sum) = (u128::from(width), weights.iter().map(|&w| u128::from(w)).sum::<u128>());
        let mut last = u32::MAX;
        for &leaf in &shared.order {
            let weight = u128::from(weights[leaf]);
            let count = if sum == 0 { 0 } else { (left * weight).div_ceil(sum) };
            prop_assert_eq!(u128::from(shared.counts[leaf]), count);
            prop_assert!(shared.counts[leaf] <= last);
            (left, sum, last) = (left - count, sum - weight, shared.counts[leaf]);
        }
    }

    #[test]
    fn pruned_leaves_get_nothing(scores in scores(), mask in any::<u64>(), width in 0u32..300) {
        let kept: Vec<bool> = (0..scores.len()).map(|leaf| mask >> (leaf % 64) & 1 == 1).collect();
        let shared = allocate(&Scores::new(&scores), Some(&kept), Temperature::PUBLISHED, width);
        let any = kept.iter().any(|&kept| kept);
        prop_assert_eq!(shared.total(), if any { u64::from(width) } else { 0 });
        for (count, kept) in shared.counts.iter().zip(&kept) {
            prop_assert!(*kept || *count == 0);
        }
        // As if the others weren't there.
        let alone: Vec<f32> = scores.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(&s, _)| s).collect();
        let alone = allocate(&Scores::new(&alone), None, Temperature::PUBLISHED, width).counts;
        let among: Vec<u32> = shared.counts.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(&c, _)| c).collect();
        prop_assert_eq!(alone, among);
    }

    /// Float32 and integers agree but for where a quotient is nearly whole.
    #[test]
    fn published_rule_is_near(scores in prop::collection::vec(0f32..1.0, 1..80), width in 1u32..300) {
        let integers = allocate(&Scores::new(&scores), None, Temperature::PUBLISHED, width);
        let floats = published::allocate(&scores, None, 0.2, width, Pass::Weights).unwrap();
        for (integer, float) in integers.counts.iter().zip(&floats.counts) {
            prop_assert!(integer.abs_diff(*float) <= 1);
        }
    }
}
