//! What the boards are, and the constraint files that they give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use fpga::{
    Active, BaudError, ConstraintError, Family, MIN_CLOCKS_PER_BIT, Pin, Verification, board,
    boards,
};

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
        let status = [board.status.ok, board.status.busy, board.status.fault];
        assert!(status[0].is_some(), "{name} shows nothing");
        for light in status.into_iter().flatten() {
            assert!(board.pin(light).is_some(), "{name} has no {light}");
        }
        if let Some(pll) = board.pll {
            assert_eq!(pll.input_hz(), board.clock_hz, "{name}");
        }
        assert_eq!(board.block_memories > 0, board.logic_cells > 0, "{name}");
        // The rate that it is built for is exact, so that nothing of the line's margin is lost.
        let clocks = board.clocks_per_bit(board.uart.baud).expect(name);
        assert!(clocks >= MIN_CLOCKS_PER_BIT as usize, "{name}");
        assert_eq!(
            clocks * board.uart.baud as usize,
            board.system_hz() as usize,
            "{name}"
        );
        assert!(board.system_hz() <= 50_000_000, "{name}: slow to simulate");
        // The Tang Nano 9K's flash is inside the device and OrangeCrab's behind its bootloader: neither is read back.
        let read_back = board.flash.verification != Verification::Device;
        assert_eq!(
            read_back,
            !["tang-nano-9k", "orangecrab"].contains(&name),
            "{name}"
        );
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
    let error = board("ulx3s").expect_err("there are two");
    assert_eq!(
        error.to_string(),
        "no board is called `ulx3s`; there are: icebreaker, hx8k-breakout, ulx3s-85f, ulx3s-25f, orangecrab, \
         colorlight-i5, colorlight-i9, tang-nano-9k, tang-nano-20k"
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
         set_frequency clk 12\n\
         set_io -pullup yes din 6\n\
         set_io dout 9\n\
         set_io -pullup yes load 10\n\
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
         set_frequency clk 12\n\
         set_io -pullup yes rx B10\n\
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
        serde_json::json!({"role": "button0", "site": "10", "active": "low", "label": "BTN_N", "standard": "LVCMOS33", "pull": "up"})
    );
    assert_eq!(
        board("icebreaker").map(|b| b.pin(Pin::Led(0)).map(|pin| pin.active)),
        Ok(Some(Active::Low))
    );
    assert_eq!(json[1]["pll"]["primitive"], "SB_PLL40_CORE");
    assert_eq!(json[1]["flash"]["tool"], "iceprog");
}

#[test]
fn ecp5_constraints() {
    let text = board("orangecrab")
        .expect("it is listed")
        .constraints(&[
            ("clk", Pin::Clock),
            ("rx", Pin::UartRx),
            ("button", Pin::Button(0)),
        ])
        .expect("all roles exist");
    assert_eq!(
        text,
        "# OrangeCrab r0.2.1 (25k CSFBGA285)\n\
         LOCATE COMP \"clk\" SITE \"A9\";\n\
         IOBUF PORT \"clk\" IO_TYPE=LVCMOS33;\n\
         FREQUENCY PORT \"clk\" 48 MHZ;\n\
         LOCATE COMP \"rx\" SITE \"N17\";\n\
         IOBUF PORT \"rx\" IO_TYPE=LVCMOS33 PULLMODE=UP;\n\
         LOCATE COMP \"button\" SITE \"J17\";\n\
         IOBUF PORT \"button\" IO_TYPE=SSTL135_I;\n"
    );
}

#[test]
fn gowin_constraints_have_a_statement_a_line() {
    let text = board("tang-nano-9k")
        .expect("it is listed")
        .constraints(&[
            ("clk", Pin::Clock),
            ("rx", Pin::UartRx),
            ("led[1]", Pin::Led(1)),
        ])
        .expect("all roles exist");
    assert_eq!(
        text,
        "// Tang Nano 9K (gw1nr-9 QN88P)\n\
         IO_LOC \"clk\" 52;\n\
         IO_PORT \"clk\" IO_TYPE=LVCMOS33;\n\
         IO_LOC \"rx\" 18;\n\
         IO_PORT \"rx\" IO_TYPE=LVCMOS33 PULL_MODE=UP;\n\
         IO_LOC \"led[1]\" 11;\n\
         IO_PORT \"led[1]\" IO_TYPE=LVCMOS18;\n"
    );
}

#[test]
fn rates_that_a_board_cannot_have_are_refused_with_those_that_it_can() {
    let icebreaker = board("icebreaker").expect("it is listed");
    assert_eq!(icebreaker.clocks_per_bit(3_000_000), Ok(4));
    assert_eq!(
        icebreaker.clocks_per_bit(115_200),
        Ok(104),
        "0.16 % off is near enough"
    );
    let error = icebreaker
        .clocks_per_bit(4_000_000)
        .expect_err("three cycles");
    assert!(
        error.to_string().contains("at most 3000000 baud"),
        "{error}"
    );
    let error = icebreaker
        .clocks_per_bit(1_750_000)
        .expect_err("6.86 cycles");
    assert_eq!(
        error,
        BaudError::Uneven {
            board: "icebreaker",
            baud: 1_750_000,
            clock_hz: 12_000_000,
            above: 2_000_000,
            below: 1_714_285,
        }
    );
    let error = board("colorlight-i5")
        .expect("it is listed")
        .clocks_per_bit(2_000_000)
        .expect_err("beyond the bridge");
    assert!(
        error.to_string().contains("at most 1000000 baud"),
        "{error}"
    );
    for odd in [0, 1, u32::MAX] {
        let _ = icebreaker.clocks_per_bit(odd);
        let _ = board("ulx3s-85f")
            .expect("it is listed")
            .clocks_per_bit(odd);
    }
    assert!(icebreaker.clocks_per_bit(0).is_err());
}

#[test]
fn udev_rules_name_the_boards_usb_device() {
    assert_eq!(
        board("orangecrab").expect("it is listed").udev_rule(),
        "SUBSYSTEM==\"usb|hidraw\", ATTRS{idVendor}==\"1209\", ATTRS{idProduct}==\"5af0\", MODE=\"0660\", TAG+=\"uaccess\""
    );
}

/// `FGMP_WRITE_DOCS=1` prints what the page should hold.
#[test]
fn the_documentation_holds_the_boards_and_their_rules() {
    let page = include_str!("../../docs/boards.md");
    let table = fpga::markdown();
    if std::env::var_os("FGMP_WRITE_DOCS").is_some() {
        println!("{table}");
    }
    assert!(
        page.contains(&table),
        "docs/boards.md should hold:\n{table}"
    );
    for board in boards() {
        assert!(
            page.contains(&board.udev_rule()),
            "docs/boards.md should hold the rule {}",
            board.udev_rule()
        );
        assert!(
            page.contains(&format!("**{}**", board.title)),
            "docs/boards.md should say what is special about {}",
            board.title
        );
    }
}
