//! The engine of a board: emission and lint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hdl::board::{BoardConfig, BoardConfigError};
use hdl::build::emit_board;
use hdl::config::{ArrayConfig, Multiplier};
use support::Random;

#[test]
fn engines_of_boards_are_lint_clean() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let mut random = Random(7);
    for case in 0..if full { 40 } else { 6 } {
        let (rows, cols) = if case == 0 {
            (1, 1)
        } else {
            (1 + random.below(4) as usize, 1 + random.below(4) as usize)
        };
        let lanes = [8, 16][random.below(2) as usize];
        let config = BoardConfig {
            array: ArrayConfig {
                rows,
                cols,
                lanes,
                max_k: 16 << random.below(17),
                pipeline: 3 + random.below(7) as usize,
                multiplier: [Multiplier::Lut, Multiplier::Dsp][random.below(2) as usize],
                weight_blocks: 2 << random.below(12),
                act_blocks: 2 << random.below(14),
                ..ArrayConfig::default()
            },
            clocks_per_bit: 4 + random.below(300) as usize,
            requantizer: case > 0 && lanes == 16 && random.below(2) == 1,
            quantizer: case > 0 && lanes == 16 && random.below(2) == 1,
        };
        let bundle = emit_board(config).unwrap_or_else(|error| panic!("{config:?}: {error}"));
        support::assert_lint_clean(&bundle);
    }
}

#[test]
fn configurations_are_refused_with_the_reason() {
    let refuse = |config: BoardConfig| config.validate().unwrap_err();
    let short = BoardConfig {
        clocks_per_bit: 3,
        ..BoardConfig::default()
    };
    assert_eq!(refuse(short), BoardConfigError::ClocksPerBit(3));
    let mut large = BoardConfig::default();
    (large.array.rows, large.array.cols) = (8, 8);
    assert!(
        refuse(large)
            .to_string()
            .contains("8 x 8 results of 8 bytes")
    );
    let mut odd = BoardConfig::default();
    odd.array.lanes = 4;
    assert!(refuse(odd).to_string().contains("16 or 8"));
    let mut halved = BoardConfig {
        quantizer: true,
        ..BoardConfig::default()
    };
    halved.array.lanes = 8;
    assert_eq!(refuse(halved), BoardConfigError::HalfQuantizer);
    let mut none = BoardConfig::default();
    none.array.rows = 0;
    assert!(refuse(none).to_string().starts_with("rows = 0"));
}
