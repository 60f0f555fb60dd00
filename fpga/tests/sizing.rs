//! Estimates of engines and what is chosen by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fpga::sizing::{Model, Sample, Size, SizingError, largest, shipped};
use fpga::{Family, board, boards};
use hdl::board::BoardConfig;

#[test]
fn shipped_engines_fit_a_line_that_predicts_those_left_out() {
    let samples = shipped();
    for family in [Family::Ice40, Family::Ecp5, Family::Gowin] {
        let model = Model::of(family).expect("there are samples");
        for sample in samples.iter().filter(|it| it.family == family) {
            let predicted = model.predict(&sample.config);
            let error = (predicted.logic / sample.size.logic - 1.0).abs();
            assert!(error < 0.06, "{family}: {:?} {predicted:?}", sample.size);
            assert!(
                (predicted.memories - sample.size.memories).abs() < 8.0,
                "{family}: {:?} {predicted:?}",
                sample.size
            );
        }
    }
}

#[test]
fn larger_devices_hold_larger_arrays() {
    let elements = |name: &str| {
        let board = board(name).expect("it is listed");
        let model = Model::of(board.family).expect("there are samples");
        largest(board, &BoardConfig::default(), &model).map(|found| {
            let array = found[0].0.array;
            assert!(array.rows >= array.cols, "{name}");
            let sizes: Vec<usize> = found
                .iter()
                .map(|(config, _)| config.array.rows * config.array.cols)
                .collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b), "{name}: {sizes:?}");
            array.rows * array.cols
        })
    };
    for board in boards() {
        match elements(board.name) {
            Ok(count) => eprintln!("{}: {count} processing elements", board.name),
            Err(error) => eprintln!("{error}"),
        }
    }
    assert_eq!(elements("hx8k-breakout").expect("it fits"), 1);
    let [small, middle, large] =
        ["ulx3s-25f", "colorlight-i9", "ulx3s-85f"].map(|it| elements(it).expect("it fits"));
    assert!(small >= 4 && middle > small && large > middle);
    assert!(
        elements("tang-nano-20k").expect("it fits") > elements("tang-nano-9k").expect("it fits")
    );
}

#[test]
fn what_is_not_known_or_does_not_fit_is_said() {
    assert!(matches!(
        Model::fit(&[], Family::Ecp5),
        Err(SizingError::NoSamples(Family::Ecp5))
    ));
    // An engine ten times as large as the device.
    let sample = Sample {
        family: Family::Ice40,
        config: BoardConfig::default(),
        size: Size {
            logic: 52_800.0,
            registers: 0.0,
            memories: 3.0,
        },
    };
    let model = Model::fit(&[sample], Family::Ice40).expect("one sample");
    let icebreaker = board("icebreaker").expect("it is listed");
    let error = largest(icebreaker, &BoardConfig::default(), &model).expect_err("too large");
    assert!(
        error
            .to_string()
            .contains("icebreaker doesn't hold even a 1 x 1 array"),
        "{error}"
    );
}

#[test]
fn boards_have_the_largest_array_of_the_estimate() {
    for board in boards() {
        let mine = board.engine(board.uart.baud).unwrap();
        let model = Model::of(board.family).expect("there are samples");
        let found = largest(board, &mine, &model).expect(board.name);
        let sides = |config: &BoardConfig| (config.array.rows, config.array.cols);
        assert_eq!(sides(&mine), sides(&found[0].0), "{}", board.name);
    }
}
