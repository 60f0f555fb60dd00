//! What the boards are, and the constraint files that they give.

use std::collections::HashSet;

use fpga::{Active, ConstraintError, Family, Pin, board, boards};

#[test]
fn every_board_is_consistent() {
    let mut names = HashSet::new();
    for board in boards() {
        let name = board.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(
            name.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{name} is awkward to type"
        );
        let roles: HashSet<_> = board.pins.iter().map(|pin| pin.role).collect();
        let sites: HashSet<_> = board.pins.iter().map(|pin| pin.site).collect();
        assert_eq!(roles.len(), board.pins.len(), "{name}: a role twice");
        assert_eq!(sites.len(), board.pins.len(), "{name}: a site twice");
        for needed in [Pin::Clock, Pin::UartRx, Pin::UartTx, Pin::Led(0)] {
            assert!(board.pin(needed).is_some(), "{name} has no {needed}");
        }
        assert!(board.clock_hz > 0 && board.logic_cells > 0, "{name}");
        assert!(!board.programmer.is_empty(), "{name} can't be programmed");
    }
}

#[test]
fn boards_are_found_by_name() {
    let icebreaker = board("iCEBreaker").expect("case does not matter");
    assert_eq!(
        (icebreaker.family, icebreaker.device, icebreaker.package),
        (Family::Ice40, "up5k", "sg48")
    );
    let breakout = board("hx8k-breakout").expect("it is listed");
    assert_eq!((breakout.device, breakout.package), ("hx8k", "ct256"));
}

#[test]
fn an_unknown_board_is_answered_with_the_known_ones() {
    let error = board("ulx3s").expect_err("not described yet");
    assert_eq!(
        error.to_string(),
        "no board is called `ulx3s`; there are: icebreaker, hx8k-breakout"
    );
}

#[test]
fn icebreaker_constraints() {
    let text = board("icebreaker")
        .expect("it is listed")
        .constraints(&[
            ("clk", Pin::Clock),
            ("din", Pin::UartRx),
            ("dout", Pin::UartTx),
            ("load", Pin::Button(0)),
            ("led[0]", Pin::Led(2)),
            ("led[1]", Pin::Led(3)),
            ("led[2]", Pin::Led(4)),
            ("error_n", Pin::Led(0)),
            ("heartbeat_n", Pin::Led(1)),
        ])
        .expect("all roles exist");
    assert_eq!(
        text,
        "# iCEBreaker (up5k sg48)\n\
         set_io clk 35\n\
         set_io din 6\n\
         set_io dout 9\n\
         set_io load 10\n\
         set_io led[0] 39\n\
         set_io led[1] 40\n\
         set_io led[2] 41\n\
         set_io error_n 11\n\
         set_io heartbeat_n 37\n"
    );
}

#[test]
fn hx8k_breakout_constraints() {
    let names: Vec<String> = (0..8).map(|i| format!("led[{i}]")).collect();
    let mut ports = vec![
        ("clk", Pin::Clock),
        ("rx", Pin::UartRx),
        ("tx", Pin::UartTx),
    ];
    ports.extend(
        (0u8..)
            .zip(&names)
            .map(|(i, name)| (name.as_str(), Pin::Led(i))),
    );
    let text = board("hx8k-breakout")
        .expect("it is listed")
        .constraints(&ports)
        .expect("all roles exist");
    assert_eq!(
        text,
        "# iCE40-HX8K Breakout Board (hx8k ct256)\n\
         set_io clk J3\n\
         set_io rx B10\n\
         set_io tx B12\n\
         set_io led[0] B5\n\
         set_io led[1] B4\n\
         set_io led[2] A2\n\
         set_io led[3] A1\n\
         set_io led[4] C5\n\
         set_io led[5] C4\n\
         set_io led[6] B3\n\
         set_io led[7] C3\n"
    );
}

#[test]
fn a_role_that_the_board_has_not_got_is_refused() {
    let error = board("hx8k-breakout")
        .expect("it is listed")
        .constraints(&[("reset", Pin::Button(0))])
        .expect_err("the board has no button");
    assert!(matches!(
        error,
        ConstraintError::UnknownRole {
            role: Pin::Button(0),
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "hx8k-breakout has no button0; it has: clock, uart-rx, uart-tx, \
         led0, led1, led2, led3, led4, led5, led6, led7"
    );
}

#[test]
fn a_pin_holds_one_port_and_a_port_stands_on_one_pin() {
    let icebreaker = board("icebreaker").expect("it is listed");
    let shared = icebreaker
        .constraints(&[("a", Pin::Led(0)), ("b", Pin::Led(0))])
        .expect_err("two ports on one pin");
    assert_eq!(
        shared.to_string(),
        "ports `a` and `b` are both placed on led0, pin 11 of icebreaker"
    );
    let split = icebreaker
        .constraints(&[("a", Pin::Led(0)), ("a", Pin::Led(1))])
        .expect_err("one port on two pins");
    assert_eq!(
        split,
        ConstraintError::DuplicatePort {
            port: "a".to_owned(),
            first: Pin::Led(0),
            second: Pin::Led(1),
        }
    );
}

#[test]
fn a_name_cannot_smuggle_in_a_line() {
    let error = board("icebreaker")
        .expect("it is listed")
        .constraints(&[("a\nset_io b", Pin::Led(0))])
        .expect_err("no identifier");
    assert!(matches!(error, ConstraintError::PortName { .. }));
}

#[test]
fn boards_serialize_with_roles_as_words() {
    let json = serde_json::to_value(boards()).expect("plain data");
    assert_eq!(json[0]["name"], "icebreaker");
    assert_eq!(json[0]["family"], "ice40");
    assert_eq!(json[0]["clock_hz"], 12_000_000);
    assert_eq!(
        json[0]["pins"][3],
        serde_json::json!({"role": "button0", "site": "10", "active": "low", "label": "BTN_N"})
    );
    assert_eq!(
        board("icebreaker").map(|b| b.pin(Pin::Led(0)).map(|pin| pin.active)),
        Ok(Some(Active::Low))
    );
    assert_eq!(json[1]["programmer"], serde_json::json!(["iceprog"]));
}
