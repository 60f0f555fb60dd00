//! The complete accelerator: emission and lint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hdl::build::emit_accelerator;
use hdl::config::{ArrayConfig, Multiplier};
use support::Random;

fn random_config(random: &mut Random) -> ArrayConfig {
    let rows = 1 + random.below(6) as usize;
    let ports: Vec<usize> = (1..=rows)
        .filter(|ports| rows.is_multiple_of(*ports))
        .collect();
    let most_blocks = 1 << random.below(17);
    ArrayConfig {
        rows,
        cols: 1 + random.below(6) as usize,
        max_k: 16 * (1 + random.below(most_blocks) as usize).min(1 << 16),
        pipeline: 3 + random.below(7) as usize,
        multiplier: [Multiplier::Lut, Multiplier::Dsp][random.below(2) as usize],
        quantizer_lanes: [1, 16][random.below(2) as usize],
        weight_ports: ports[random.below(ports.len() as u64) as usize],
        weight_blocks: 2 << random.below(12),
        act_blocks: 2 << random.below(14),
        result_elements: 16 << random.below(13),
        ..ArrayConfig::default()
    }
}

#[test]
fn accelerators_of_random_configurations_are_lint_clean() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let count = if full { 200 } else { 3 };
    let mut random = Random(77);
    for _ in 0..count {
        let config = random_config(&mut random);
        let bundle = emit_accelerator(config).unwrap_or_else(|error| panic!("{config:?}: {error}"));
        support::assert_lint_clean(&bundle);
    }
}

#[test]
fn the_accelerator_is_lint_clean() {
    let bundle = emit_accelerator(ArrayConfig::default()).unwrap();
    support::assert_lint_clean(&bundle);
}
