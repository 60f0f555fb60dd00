//! The benches on the hardware in rust-hdl's own simulator: what runs where Verilator is missing.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

use hdl::quantizer::ActQuantizer;
use testbench::design::Port;
use testbench::quantizer::QuantizerBench;
use testbench::rust_sim::RustSim;
use testbench::simulator::SimError;

/// The quantization unit's ports in declaration order.
fn quantizer_ports() -> Vec<Port> {
    let mut ports = vec![
        Port::input("clock", 1),
        Port::input("reset", 1),
        Port::input("input_scale", 32),
        Port::input("threshold", 64),
        Port::input("x_valid", 1),
        Port::output("x_ready", 1),
        Port::input("x_last", 1),
        Port::input("x_data", 16),
        Port::input("x_sensitivity", 8),
    ];
    for (name, width) in [("payload", 64), ("scale", 8), ("tag", 1)] {
        ports.extend([
            Port::output(format!("{name}_valid"), 1),
            Port::input(format!("{name}_ready"), 1),
            Port::output(format!("{name}_last"), 1),
            Port::output(format!("{name}_data"), width),
        ]);
    }
    ports
}

fn quantizer() -> QuantizerBench<RustSim> {
    let simulator = RustSim::new(Box::new(ActQuantizer::default()), quantizer_ports())
        .unwrap_or_else(|error| panic!("{error}"));
    QuantizerBench::new(simulator).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_quantization_unit_agrees_with_golden_at_full_speed_and_under_stalls() {
    for stalls in [[0; 4], [60, 90, 30, 120]] {
        let report = quantizer()
            .stalls(stalls)
            .random(150, 3, |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(report.passed(), "{stalls:?}: {report}");
        assert!(report.vectors >= 150);
        assert!(report.coverage.fp8_blocks > 0 && report.coverage.fp4_blocks > 0);
    }
}

#[test]
fn a_list_of_ports_that_is_not_the_modules_is_refused() {
    let mut ports = quantizer_ports();
    ports.pop();
    let error = RustSim::new(Box::new(ActQuantizer::default()), ports)
        .err()
        .expect("one port is missing");
    assert!(matches!(error, SimError::InvalidJob { .. }), "{error}");
}
