//! The real design: emitted, linted, and quick to emit.
mod support;

use hdl::array::PeArray;
use hdl::build::emit_module;
use hdl::config::Multiplier;
use hdl::emit::{EmitOptions, emit};
use hdl::mac::reduced::{Fp4Sum, Fp8Pe, Fp8Sum, Nvfp4Pair};
use hdl::prelude::Block as _;
use hdl::quantizer::{ActQuantizer, emit_alone};
use support::assert_lint_clean;

#[test]
fn the_array_is_lint_clean() {
    for multiplier in [Multiplier::Lut, Multiplier::Dsp] {
        let array = PeArray::<56>::new(2, 3, 5, multiplier);
        let options = EmitOptions {
            top: "pe_array".to_owned(),
            keep_hierarchy: vec!["pe".to_owned()],
            ..EmitOptions::default()
        };
        let bundle = emit(&array, &options).unwrap_or_else(|error| panic!("{error}"));
        if let Ok(folder) = std::env::var("EMIT_TO") {
            bundle.write_rtl(std::path::Path::new(&folder)).unwrap();
        }
        assert_lint_clean(&bundle);
    }
}

#[test]
fn datapaths_of_one_format_are_lint_clean() {
    let bundles = [false, true]
        .into_iter()
        .flat_map(|pipelined| {
            [
                emit_module(Fp4Sum::new(pipelined)),
                emit_module(Nvfp4Pair::new(pipelined)),
                emit_module(Fp8Sum::new(pipelined)),
            ]
        })
        .chain([3, 7].map(|stages| emit_module(Fp8Pe::<56>::new(stages))));
    for bundle in bundles {
        assert_lint_clean(&bundle.unwrap_or_else(|error| panic!("{error}")));
    }
}

#[test]
fn both_builds_of_the_quantization_unit_are_lint_clean() {
    for lanes in [1, 16] {
        let bundle = emit_alone(lanes).unwrap_or_else(|error| panic!("{error}"));
        assert_lint_clean(&bundle);
        assert!(
            bundle.modules.len() < 20,
            "identical instances share a module"
        );
    }
    let mut unit = ActQuantizer::default();
    unit.connect_all();
    let bundle = emit(&unit, &EmitOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_lint_clean(&bundle);
}

#[test]
fn a_16_by_16_array_is_emitted_within_10_seconds() {
    let array = PeArray::<56>::new(16, 16, 9, Multiplier::Lut);
    let start = std::time::Instant::now();
    let bundle = emit(&array, &EmitOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < 10.0, "{seconds} s");
    assert!(
        bundle.modules.len() < 30,
        "identical instances share a module"
    );
    println!("{seconds:.2} s");
}
