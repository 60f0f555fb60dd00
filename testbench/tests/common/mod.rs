//! What the bench's tests share.
// Not every test uses all of it, and a helper may fail its test.
#![allow(dead_code, clippy::panic, clippy::expect_used)]

use std::sync::OnceLock;

use testbench::design::{Design, Port, SourceFile};
use testbench::verilator::Verilator;

/// The installed Verilator; a test that needs one fails with the way to install it.
pub fn verilator() -> &'static Verilator {
    static FOUND: OnceLock<Verilator> = OnceLock::new();
    FOUND.get_or_init(|| Verilator::find().unwrap_or_else(|error| panic!("{error}")))
}

/// The same for large designs that run for some thousands of cycles: most of their time is the C++ compiler's.
pub fn verilator_for_short_runs() -> Verilator {
    verilator().clone().for_short_runs()
}

/// Whether long runs were asked for with `FGMP_FULL=1`.
pub fn is_full() -> bool {
    std::env::var("FGMP_FULL").is_ok_and(|value| value == "1")
}

/// The same; if they were not, says what is left out.
pub fn full(what: &str) -> bool {
    let wanted = is_full();
    if !wanted {
        eprintln!("left out without FGMP_FULL=1: {what}");
    }
    wanted
}

/// A design of one file; its ports are read from the ANSI port list, one port a line.
pub fn design(top: &str, text: &str) -> Design {
    let header = text
        .split_once(&format!("module {top} ("))
        .expect("the module is there")
        .1;
    let header = header.split_once(");").expect("the port list ends").0;
    let ports = header
        .lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let width = words
                .iter()
                .find_map(|word| word.strip_prefix('[')?.strip_suffix(":0]"))
                .map_or(1, |high| high.parse::<usize>().expect("a number") + 1);
            let name = *words.last().expect("a port has a name");
            match words[0] {
                "input" => Port::input(name, width),
                "output" => Port::output(name, width),
                other => panic!("{other} is no direction"),
            }
        })
        .collect();
    Design {
        top: top.into(),
        sources: vec![SourceFile {
            name: format!("{top}.v"),
            text: text.into(),
        }],
        ports,
    }
}

/// The same text with its one occurrence of `from` changed.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}
