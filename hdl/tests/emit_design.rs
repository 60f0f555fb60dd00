//! The real design: emitted, linted, and quick to emit.
mod support;

use hdl::array::PeArray;
use hdl::emit::{EmitOptions, emit};
use hdl::prelude::Block as _;
use hdl::quantizer::{ActQuantizer, emit_alone};
use support::assert_lint_clean;

#[test]
fn the_array_is_lint_clean() {
    let array = PeArray::<56>::new(2, 3, 5);
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
    let array = PeArray::<56>::new(16, 16, 9);
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
