//! The modules of efficient tree search: emitted text, lint, and against their golden twins in rust-hdl's simulation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use golden::ets::samples::{draw, tied};
use golden::ets::{Prices, PruneJob, Scores, Temperature, prune};
use hdl::build::emit_module;
use hdl::ets::{
    Allocator, ClusterTable, DownPass, ENTRY, LeafSorter, PageTable, PowerTable, PruneLoader,
    PruningEngine, ShareServer, TreeSelector, TreeWalker, UpPass, WeightPipe,
};
use hdl::prelude::*;
use support::assert_lint_clean;

#[test]
fn small_modules_read_as_they_did() {
    let text = |bundle: Result<hdl::emit::Bundle, hdl::emit::EmitError>| {
        bundle
            .unwrap_or_else(|error| panic!("{error}"))
            .concatenated()
    };
    insta::assert_snapshot!("prune_loader", text(emit_module(PruneLoader::default())));
    insta::assert_snapshot!("up_pass", text(emit_module(UpPass::<5>::default())));
    insta::assert_snapshot!("down_pass", text(emit_module(DownPass::<6>::default())));
    insta::assert_snapshot!(
        "cluster_table",
        text(emit_module(ClusterTable::<6>::default()))
    );
    insta::assert_snapshot!(
        "share_server",
        text(emit_module(ShareServer::<16, 31, 39, 47, 55>::default()))
    );
    insta::assert_snapshot!("tree_walker", text(emit_module(TreeWalker::new(1024))));
    insta::assert_snapshot!(
        "page_table",
        text(emit_module(PageTable::<4, 6>::new(64, 16)))
    );
}

#[test]
fn modules_are_lint_clean() {
    assert_lint_clean(&emit_module(PruningEngine::<2, 1>::default()).unwrap());
    assert_lint_clean(&emit_module(PruningEngine::<8, 7>::default()).unwrap());
    assert_lint_clean(&emit_module(Allocator::<2>::default()).unwrap());
    assert_lint_clean(&emit_module(LeafSorter::<8>::default()).unwrap());
    assert_lint_clean(&emit_module(PageTable::<1, 12>::new(4096, 255)).unwrap());
    assert_lint_clean(&emit_module(PageTable::<6, 3>::new(7, 1)).unwrap());
    assert_lint_clean(&emit_module(TreeWalker::new(2)).unwrap());
    assert_lint_clean(&emit_module(TreeSelector::<6, 5>::new(4096)).unwrap());
}

fn edge<B: Block>(block: &mut B, clock: impl Fn(&mut B, Clock)) {
    // Inputs first, then the edge.
    for clk in [false, true, false] {
        clock(block, Clock { clk });
        assert!(simulate(block, 1000), "it does not settle");
    }
}

#[test]
fn the_table_holds_every_power() {
    let mut powers = PowerTable::default();
    powers.connect_all();
    let table = golden::ets::allocate::table();
    for k in 0..256_usize {
        powers.index.next = (k as u64).into();
        edge(&mut powers, |block, clock| block.clock.next = clock);
        let word = powers.power.val().to_u64();
        assert_eq!(word & 0x7FFF_FFFF, u64::from(table[k]));
        assert_eq!(word >> 31, u64::from(table[k] - table[k + 1]));
    }
}

#[test]
fn weights_are_the_twin_s() {
    let mut pipe = WeightPipe::default();
    pipe.connect_all();
    let mut state = 3;
    let entry = |score: Option<i32>| -> Bits<ENTRY> {
        let key = score.map_or(0, |score| 1 << 32 | u64::from(score as u32 ^ 1 << 31));
        (key << 9 | 1 << 8).into()
    };
    for temperature in [0.05, 0.2, 3.0] {
        let temperature = Temperature::new(temperature).unwrap();
        let scores: Vec<Option<i32>> = (0..300)
            .map(|i| match i % 10 {
                0 => None,
                1 => Some(100_000 - i),
                2 => Some(draw(&mut state, 1 << 32) as u32 as i32 >> (i % 13)),
                _ => Some(100_000 - draw(&mut state, 70_000) as i32),
            })
            .collect();
        let largest = scores.iter().flatten().max().copied();
        let expected = Scores::from_fixed(scores.clone()).weights(temperature);
        pipe.best.next = entry(largest);
        pipe.rate.next = u64::from(temperature.rate()).into();
        pipe.leaf_valid.next = true;
        let mut found = Vec::new();
        for place in 0..scores.len() + 5 {
            pipe.leaf.next = entry(scores.get(place).copied().flatten());
            edge(&mut pipe, |block, clock| block.clock.next = clock);
            if place >= 4 {
                found.push(pipe.weight.val().to_u32());
            }
        }
        assert_eq!(found[..expected.len()], expected);
    }
}

#[test]
fn every_small_share_is_rounded_up() {
    let mut server = ShareServer::<4, 3, 4, 7, 8>::default();
    server.connect_all();
    for width in 0..16_u64 {
        for total in 1..16_u64 {
            for weight in 0..=total.min(7) {
                server.width.next = width.into();
                server.total.next = total.into();
                server.start.next = true;
                edge(&mut server, |block, clock| block.clock.next = clock);
                server.start.next = false;
                server.leaf_weight.next = weight.into();
                server.leaf_valid.next = true;
                edge(&mut server, |block, clock| block.clock.next = clock);
                server.leaf_valid.next = false;
                for _ in 0..8 {
                    if server.given.val() {
                        break;
                    }
                    edge(&mut server, |block, clock| block.clock.next = clock);
                }
                assert!(server.given.val());
                let share = (width * weight).div_ceil(total);
                assert_eq!(server.share.val().to_u64(), share);
                edge(&mut server, |block, clock| block.clock.next = clock);
                assert_eq!(server.left.val().to_u64(), width - share);
            }
        }
    }
}

#[test]
fn small_choices_are_the_twin_s() {
    let mut engine = PruningEngine::<3, 2>::default();
    engine.connect_all();
    let mut state = 5;
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    for trial in 0..if full { 200 } else { 12 } {
        let leaves = 1 + draw(&mut state, 8) as usize;
        let choice = tied(&mut state, leaves).unwrap();
        let job = PruneJob::new(
            &choice.tree,
            &choice.leaves,
            &choice.weights,
            Some(&choice.clusters),
            Prices::published(16),
        )
        .unwrap();
        let expected = prune(&job, 3);
        engine.gain.next = job.gain.into();
        engine.price.next = job.price.into();
        engine.cover_worth.next = job.cover.into();
        engine.last_cluster.next = u64::from(job.clusters - 1).into();
        engine.rounds.next = 3.into();
        engine.start.next = true;
        edge(&mut engine, |block, clock| block.clock.next = clock);
        engine.start.next = false;
        engine.node_valid.next = true;
        for (place, step) in job.steps.iter().enumerate() {
            engine.node_single.next = step.single;
            engine.node_depth.next = u64::from(step.depth).into();
            engine.node_cost.next = u64::from(step.cost).into();
            engine.node_leaf.next = step.leaf.is_some();
            if let Some(leaf) = step.leaf {
                engine.node_number.next = u64::from(leaf.number).into();
                engine.node_cluster.next = u64::from(leaf.cluster).into();
                engine.node_weight.next = u64::from(leaf.weight).into();
            }
            engine.node_last.next = place + 1 == job.steps.len();
            assert!(simulate(&mut engine, 1000));
            while !engine.node_ready.val() {
                edge(&mut engine, |block, clock| block.clock.next = clock);
            }
            edge(&mut engine, |block, clock| block.clock.next = clock);
        }
        engine.node_valid.next = false;
        for _ in 0..2000 {
            if engine.done.val() {
                break;
            }
            edge(&mut engine, |block, clock| block.clock.next = clock);
        }
        assert!(engine.done.val());
        assert_eq!(engine.proved.val(), expected.proved, "{trial}");
        assert_eq!(engine.halves.val().to_u32(), expected.halves);
        for (leaf, &kept) in expected.kept.iter().enumerate() {
            engine.leaf.next = (leaf as u64).into();
            assert!(simulate(&mut engine, 1000));
            assert_eq!(engine.kept.val(), kept, "{trial}");
        }
    }
}
