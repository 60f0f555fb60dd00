//! SPEED's modules: emitted text, lint, and the pipeline against its golden twin in rust-hdl's simulation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use golden::speed::{Limits, Pipeline};
use hdl::build::{emit_module, emit_speed};
use hdl::config::ArrayConfig;
use hdl::prelude::*;
use hdl::speed::bus::{LiteMaster, SwitchPath};
use hdl::speed::config::ENTRY_WIDTHS;
use hdl::speed::counters::EventCounters;
use hdl::speed::registers::SpeedRegisters;
use hdl::speed::{PassPlayer, SpeedConfig, SpeedPipeline};
use support::{Random, assert_lint_clean};

#[test]
fn small_modules_read_as_they_did() {
    let text = |bundle: Result<hdl::emit::Bundle, hdl::emit::EmitError>| {
        bundle
            .unwrap_or_else(|error| panic!("{error}"))
            .concatenated()
    };
    insta::assert_snapshot!(
        "speed_pipeline",
        text(emit_module(SpeedPipeline::<12, 12>::new(3)))
    );
    insta::assert_snapshot!("pass_player", text(emit_module(PassPlayer::new(4096))));
    insta::assert_snapshot!("switch_path", text(emit_module(SwitchPath::default())));
}

#[test]
fn modules_are_lint_clean() {
    for repetitions in 1..=8 {
        assert_lint_clean(&emit_module(SpeedPipeline::<8, 12>::new(repetitions)).unwrap());
    }
    assert_lint_clean(&emit_module(SpeedPipeline::<2, 1>::new(2)).unwrap());
    for words in [2, 1 << 15] {
        assert_lint_clean(&emit_module(PassPlayer::new(words)).unwrap());
    }
    assert_lint_clean(&emit_module(LiteMaster::default()).unwrap());
    assert_lint_clean(&emit_module(SwitchPath::default()).unwrap());
    assert_lint_clean(&emit_module(SpeedRegisters::default()).unwrap());
    assert_lint_clean(&emit_module(EventCounters::new(5)).unwrap());
}

#[test]
fn tops_are_lint_clean() {
    let array = ArrayConfig {
        rows: 2,
        cols: 2,
        ..ArrayConfig::default()
    };
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let widths = if full { &ENTRY_WIDTHS[..] } else { &[12] };
    for &bits in widths {
        for repetitions in if full { vec![1, 3, 8] } else { vec![3] } {
            let config = SpeedConfig {
                array,
                repetitions,
                position_bits: bits,
                token_bits: bits,
                ..SpeedConfig::default()
            };
            let bundle = emit_speed(config).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(bundle.top, "fgmp_speed");
            assert_lint_clean(&bundle);
        }
    }
}

fn settle(block: &mut impl Block) {
    assert!(simulate(block, 1000), "it does not settle");
}

fn edge(pipeline: &mut SpeedPipeline<8, 8>) {
    for clk in [true, false] {
        pipeline.clock.next = Clock { clk };
        settle(pipeline);
    }
}

#[test]
fn the_pipeline_is_its_golden_twin() {
    let mut random = Random(4);
    for repetitions in [1, 2, 3, 8] {
        let mut pipeline = SpeedPipeline::<8, 8>::new(repetitions);
        pipeline.connect_all();
        pipeline.reset.next = true;
        settle(&mut pipeline);
        edge(&mut pipeline);
        pipeline.reset.next = false;
        pipeline.row_ready.next = true;
        pipeline.commit_ready.next = true;
        let mut flips = 0;
        for _ in 0..12 {
            let vocabulary = 1 + random.below(4);
            let position = random.below(50) as usize;
            let positions = position + 2 + random.below(9) as usize;
            let end = (random.below(2) == 0).then(|| random.below(vocabulary) as u32);
            let limits = Limits {
                repetitions,
                end,
                positions,
            };
            let mut golden = Pipeline::new(limits, position, 1).unwrap();
            pipeline.start.next = true;
            pipeline.start_position.next = (position as u64).into();
            pipeline.start_token.next = 1.into();
            pipeline.start_limit.next = (positions as u64 - 1).into();
            pipeline.start_end_enable.next = end.is_some();
            pipeline.start_end_token.next = u64::from(end.unwrap_or(0)).into();
            settle(&mut pipeline);
            assert!(!pipeline.refused.val());
            edge(&mut pipeline);
            pipeline.start.next = false;
            settle(&mut pipeline);
            while !golden.is_done() {
                let mut stages = Vec::new();
                for (stage, entry) in golden.stages().enumerate() {
                    let Some(entry) = entry else { continue };
                    assert!(pipeline.row_valid.val());
                    assert_eq!(pipeline.row_repetition.val().index(), stage);
                    assert_eq!(pipeline.row_position.val().index(), entry.position);
                    assert_eq!(pipeline.row_token.val().index(), entry.token as usize);
                    stages.push(stage);
                    edge(&mut pipeline);
                }
                let mut classes = vec![0; repetitions];
                for &stage in &stages {
                    classes[stage] = random.below(vocabulary) as u32;
                    pipeline.class_valid.next = true;
                    pipeline.class_data.next = u64::from(classes[stage]).into();
                    settle(&mut pipeline);
                    assert!(pipeline.class_ready.val());
                    edge(&mut pipeline);
                }
                pipeline.class_valid.next = false;
                settle(&mut pipeline);
                let resolution = golden.resolve(&classes);
                assert!(pipeline.resolved.val());
                assert_eq!(pipeline.flip.val(), resolution.flip.is_some());
                if let Some(stage) = resolution.flip {
                    flips += 1;
                    assert_eq!(pipeline.flip_stage.val().index(), stage);
                }
                assert_eq!(pipeline.flushed.val().index(), resolution.flushed);
                assert_eq!(pipeline.committed.val(), resolution.committed.is_some());
                edge(&mut pipeline);
                if let Some((position, token)) = resolution.committed {
                    assert!(pipeline.commit_valid.val());
                    assert_eq!(pipeline.commit_position.val().index(), position);
                    assert_eq!(pipeline.commit_token.val().index(), token as usize);
                    assert_eq!(pipeline.commit_last.val(), golden.is_done());
                }
                golden.launch();
            }
            assert!(pipeline.done.val() && !pipeline.active.val());
        }
        assert!(repetitions == 1 || flips > 5);
    }
}

#[test]
fn the_master_makes_each_access_once_whatever_the_slave() {
    let mut random = Random(11);
    let mut master = LiteMaster::default();
    master.connect_all();
    let edge = |master: &mut LiteMaster| {
        for clk in [true, false] {
            master.clock.next = Clock { clk };
            settle(master);
        }
    };
    master.reset.next = true;
    settle(&mut master);
    edge(&mut master);
    master.reset.next = false;
    for _ in 0..400 {
        let write = random.below(2) == 0;
        let error = random.below(4) == 0;
        master.write.next = write;
        master.read.next = !write;
        // The slave takes address and data when it likes, and answers later.
        let (mut addresses, mut data, mut answers) = (0, 0, 0);
        let mut answering = false;
        while answers == 0 {
            let ready = [random.below(3) == 0, random.below(3) == 0];
            master.awready.next = write && ready[0];
            master.arready.next = !write && ready[0];
            master.wready.next = write && ready[1];
            if !answering && addresses == 1 && (data == 1 || !write) {
                answering = random.below(3) == 0;
            }
            master.bvalid.next = write && answering;
            master.rvalid.next = !write && answering;
            let response = if error { 2_u64 } else { 0 };
            master.bresp.next = if write { response } else { 1 }.into();
            master.rresp.next = if write { 1 } else { response }.into();
            settle(&mut master);
            // What is offered stays until it is taken.
            let address_valid = master.awvalid.val() || master.arvalid.val();
            assert_eq!(address_valid, addresses == 0);
            assert_eq!(master.wvalid.val(), write && data == 0);
            assert!(!(master.awvalid.val() && !write || master.arvalid.val() && write));
            addresses += u32::from(address_valid && ready[0]);
            data += u32::from(master.wvalid.val() && ready[1]);
            assert_eq!(master.done.val(), answering);
            if answering {
                assert!(master.bready.val() || !write);
                assert!(master.rready.val() || write);
                assert_eq!(master.error.val(), error);
                answers += 1;
            }
            edge(&mut master);
        }
        assert_eq!((addresses, data), (1, u32::from(write)));
        master.write.next = false;
        master.read.next = false;
        master.bvalid.next = false;
        master.rvalid.next = false;
        settle(&mut master);
        if random.below(2) == 0 {
            edge(&mut master);
        }
    }
}
