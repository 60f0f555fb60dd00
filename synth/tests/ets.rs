//! What is proved of the emitted page table and share server: for all inputs and without a bound on time, by induction over cycles in yosys's SAT solver.
//!
//! The properties are put into the emitted module; memories of the page table show all of their words for it. All of a module's properties are asserted together, and are inductive together. Each one is also shown to fail in a module
//! with a fault.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use hdl::build::emit_module;
use hdl::ets::{PageTable, ShareServer};

use common::{prove, refute};

/// A page table as emitted, with the words of its memories on nets `NAME_every`.
struct Table {
    segments: usize,
    pages: usize,
    text: String,
    /// Bits of a word of each memory.
    widths: BTreeMap<String, usize>,
}

/// A number in a line, behind `before` and up to `after`.
fn number(line: &str, before: &str, after: &str) -> Option<usize> {
    let rest = line.split_once(before)?.1;
    rest.split_once(after)?.0.parse().ok()
}

impl Table {
    fn new<const S: usize, const P: usize>(pages: u16, page_tokens: u8) -> Self {
        let text = emit_module(PageTable::<S, P>::new(pages, page_tokens))
            .unwrap()
            .concatenated();
        let words = 1 << S;
        assert_eq!(S, P, "one kind of memory for each width");
        let mut shown = String::new();
        let mut widths = BTreeMap::new();
        let mut by_module = BTreeMap::new();
        let mut module = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("module fgmp_lut_ram") {
                module = format!("fgmp_lut_ram{}", rest.trim_end_matches(" ("));
            } else if line.starts_with("module ") {
                module.clear();
            }
            if !module.is_empty() && line.contains("words [0:") {
                let width = number(line, "reg [", ":0]").unwrap() + 1;
                by_module.insert(module.clone(), width);
                let all: Vec<String> = (0..words).rev().map(|i| format!("words[{i}]")).collect();
                writeln!(shown, "{line}\n  assign every = {{{}}};", all.join(", ")).unwrap();
                continue;
            }
            let instance = by_module.iter().find_map(|(module, &width)| {
                let name = line.strip_prefix(&format!("  {module} "))?;
                Some((name.trim_end_matches(" (").to_owned(), width))
            });
            if let Some((name, width)) = instance {
                writeln!(shown, "  wire [{}:0] {name}_every;", width * words - 1).unwrap();
                writeln!(shown, "{line}\n    .every({name}_every),").unwrap();
                widths.insert(name, width);
                continue;
            }
            writeln!(shown, "{line}").unwrap();
        }
        for (module, width) in by_module {
            let head = format!("module {module} (\n");
            let port = format!("{head}  output wire [{}:0] every,\n", width * words - 1);
            shown = shown.replace(&head, &port);
        }
        assert_eq!(widths.len(), 20, "{widths:?}");
        Self {
            segments: words,
            pages: usize::from(pages),
            text: shown,
            widths,
        }
    }

    fn word(&self, name: &str, place: usize) -> String {
        let width = self.widths[name];
        format!(
            "{name}_every[{}:{}]",
            width * (place + 1) - 1,
            width * place
        )
    }

    /// The text that goes into the module.
    fn properties(&self) -> String {
        let count = self.segments;
        let bits = count.ilog2() as usize;
        let mut text = String::new();
        let mut line = |of: std::fmt::Arguments<'_>| {
            text.write_fmt(of).unwrap();
            text.push('\n');
        };
        macro_rules! v { ($($arg:tt)*) => { line(format_args!($($arg)*)) }; }
        let sum = |of: &dyn Fn(usize) -> String| {
            (0..count)
                .map(|i| format!("{{15'd0, {}}}", of(i)))
                .collect::<Vec<_>>()
                .join(" + ")
        };
        v!("  reg f_first = 1;");
        v!("  always @(posedge clock) f_first <= 0;");
        v!("  always @* assume (!f_first || reset);");
        // A place that was never used holds anything.
        v!("  wire [{0}:0] f_live; wire [{0}:0] f_own;", count - 1);
        for i in 0..count {
            let (alive, owned) = (self.word("alive", i), self.word("owned", i));
            v!("  assign f_live[{i}] = {alive} && 16'd{i} < fresh_segments_q;");
            v!("  assign f_own[{i}] = {owned} && 16'd{i} < fresh_pages_q;");
        }
        v!(
            "  wire [15:0] f_lives = {};",
            sum(&|i| format!("f_live[{i}]"))
        );
        v!(
            "  wire [15:0] f_owns = {};",
            sum(&|i| format!("f_own[{i}]"))
        );
        for s in 0..count {
            let child = |t| {
                let (rooted, parent) = (self.word("rooted", t), self.word("parents", t));
                format!("(f_live[{t}] && {rooted} && {parent} == {s})")
            };
            let page = |p| format!("(f_own[{p}] && {} == {s})", self.word("owners", p));
            v!("  wire [15:0] f_children{s} = {};", sum(&child));
            v!("  wire [15:0] f_pages{s} = {};", sum(&page));
        }
        let writes: Vec<String> = self
            .widths
            .keys()
            .map(|name| format!("{name}_write"))
            .collect();
        v!("  reg f_wrote;");
        v!(
            "  always @(posedge clock) f_wrote <= state_q != IDLE && (f_wrote || {});",
            writes.join(" || ")
        );
        v!("  always @* if (!f_first) begin");
        // What was found a cycle ago still holds.
        let top = |name: &str| self.widths[name] - 1;
        v!(
            "    if (state_q == CHECK || state_q == TAKE) assert (had_room_q == room && new_segment_q == (reuse ? free_segments_read_data : fresh_segments_q[{}:0]));",
            top("free_segments")
        );
        v!(
            "    if (state_q == CHECK || state_q == PAGE) assert (new_page_q == (|free_page_count_q ? free_pages_read_data : fresh_pages_q[{}:0]));",
            top("free_pages")
        );

        let zeros = 16 - bits;
        let stack = |name: &str, used: &str, fresh: &str, free: &str| {
            let mut text = String::new();
            for i in 0..count {
                let word = self.word(name, i);
                writeln!(text, "    if ({i} < {used}) assert ({{{zeros}'d0, {word}}} < {fresh} && !{free}[{word}]);").unwrap();
                for j in i + 1..count {
                    let other = self.word(name, j);
                    writeln!(text, "    if ({j} < {used}) assert ({word} != {other});").unwrap();
                }
            }
            text
        };
        v!("`ifdef SEGMENTS");
        v!("    assert (fresh_segments_q <= {count} && free_segment_count_q <= fresh_segments_q);");
        v!(
            "{}",
            stack(
                "free_segments",
                "free_segment_count_q",
                "fresh_segments_q",
                "f_live"
            )
        );
        v!("    assert (f_lives + free_segment_count_q == fresh_segments_q);");
        v!(
            "    if (state_q == TAKE) assert (room && (asked_q == 0 || (asked_q == 1 && f_live[at_q])));"
        );
        v!("    if (state_q == LINK) assert (asked_q == 1);");
        v!(
            "    if (state_q == PAGE || state_q == PLACE || state_q == GIVE || state_q == DROP) assert (f_live[at_q]);"
        );
        v!("`endif");

        v!("`ifdef PAGES");
        v!(
            "    assert (fresh_pages_q <= {} && free_page_count_q <= fresh_pages_q);",
            self.pages
        );
        v!(
            "{}",
            stack("free_pages", "free_page_count_q", "fresh_pages_q", "f_own")
        );
        v!("    assert (f_owns + free_page_count_q == fresh_pages_q);");
        for p in 0..count {
            v!(
                "    if (f_own[{p}]) assert (f_live[{}]);",
                self.word("owners", p)
            );
        }
        for s in 0..count {
            v!(
                "    if (f_live[{s}]) assert ({} == f_pages{s});",
                self.word("page_counts", s)
            );
        }
        v!("    if (state_q == GIVE) assert (page_counts_read_data != 0);");
        v!("    if (state_q == DROP) assert (page_counts_read_data == 0);");
        v!("`endif");

        v!("`ifdef CHILDREN");
        for s in 0..count {
            let (children, parent) = (self.word("children", s), self.word("parents", s));
            // One is linked a cycle after it begins, and unlinked a cycle after it ends.
            v!(
                "    if (f_live[{s}]) assert ({{{zeros}'d0, {children}}} + (state_q == LINK && at_q == {s}) == f_children{s} + (state_q == UNLINK && other_q == {s}));"
            );
            v!("    if (!f_live[{s}]) assert (f_children{s} == 0);");
            v!(
                "    if (f_live[{s}] && {}) assert ({parent} != {s});",
                self.word("rooted", s)
            );
            v!(
                "    if (state_q == LINK && other_q == {s}) assert ({} && {parent} == at_q);",
                self.word("rooted", s)
            );
            v!(
                "    if ((state_q == GIVE || state_q == DROP) && at_q == {s}) assert ({children} == 0 && !{});",
                self.word("held", s)
            );
        }
        v!("    if (state_q == LINK) assert (f_live[at_q] && f_live[other_q] && at_q != other_q);");
        v!("    if (state_q == UNLINK) assert (f_live[other_q] && !f_live[at_q]);");
        v!("`endif");

        v!("`ifdef REFUSED");
        v!("    if (state_q == CHECK || state_q == PAGE) assert (!f_wrote);");
        v!("    if (state_q != ANSWER && state_q != IDLE) assert (answer_q == OK);");
        v!("    if (state_q == ANSWER && answer_q != OK) assert (!f_wrote);");
        v!("`endif");
        v!("  end");

        // Each page's place among its segment's, and how many have been given back.
        v!("  reg [15:0] f_base;");
        for p in 0..count {
            v!("  reg [15:0] f_rank{p};");
            v!(
                "  always @(posedge clock) if (state_q == PAGE && page_room && new_page_q == {p}) f_rank{p} <= page_counts_read_data;"
            );
        }
        v!(
            "  always @(posedge clock) if (frees) f_base <= 0; else if (state_q == GIVE) f_base <= f_base + 1;"
        );
        for s in 0..count {
            let pages = self.word("page_counts", s);
            v!("  wire [15:0] f_low{s} = state_q == GIVE && at_q == {s} ? f_base : 16'd0;");
            v!("  wire [15:0] f_high{s} = f_low{s} + {pages};");
        }
        v!("  always @* if (!f_first) begin");
        v!("`ifdef CHAIN");
        for s in 0..count {
            let owns = |p: usize| format!("f_own[{p}] && {} == {s}", self.word("owners", p));
            for p in 0..count {
                let (own, behind) = (owns(p), self.word("page_behind", p));
                v!("    if ({own}) assert (f_low{s} <= f_rank{p} && f_rank{p} < f_high{s});");
                for q in 0..count {
                    let other = owns(q);
                    if p < q {
                        v!("    if ({own} && {other}) assert (f_rank{p} != f_rank{q});");
                    }
                    v!(
                        "    if ({own} && f_rank{p} + 16'd1 < f_high{s} && {behind} == {q}) assert ({other} && f_rank{q} == f_rank{p} + 16'd1);"
                    );
                }
                let (first, last) = (self.word("first_page", s), self.word("last_page", s));
                let some = format!("f_live[{s}] && {} != 0", self.word("page_counts", s));
                v!(
                    "    if ({some} && f_low{s} == 0 && {first} == {p}) assert ({own} && f_rank{p} == 0);"
                );
                v!(
                    "    if ({some} && {last} == {p}) assert ({own} && f_rank{p} == f_high{s} - 16'd1);"
                );
                v!(
                    "    if (state_q == GIVE && at_q == {s} && page_q == {p}) assert ({own} && f_rank{p} == f_base);"
                );
            }
        }
        v!("    if (state_q == GIVE) assert (own_page);");
        v!("    if (state_q == COLLECT && !sweeping_q) assert (f_live[at_q]);");
        v!(
            "    if (state_q == GROW || state_q == ADD || state_q == SHRINK || state_q == BROKEN) assert (asked_q == 4);"
        );
        v!(
            "    if (state_q == COLLECT || state_q == GIVE || state_q == DROP || state_q == UNLINK) assert (asked_q == 4 || (asked_q == 3 && !sweeping_q && tail_q == 0));"
        );
        v!("`endif");
        v!("  end");
        text
    }

    fn check(&self, names: &[&str], steps: usize) -> (bool, String) {
        prove(&self.text, &self.properties(), PREPARE, names, steps)
    }
}

const PREPARE: &str = "hierarchy -top page_table; proc; flatten; memory";

/// What is said of the page table.
const TABLE: [(&str, &str); 5] = [
    (
        "SEGMENTS",
        "each segment was never used, lies on the stack of free ones once, or is alive",
    ),
    (
        "PAGES",
        "each page was never used, lies on the stack of free ones once, or is owned by exactly one live segment, which counts it",
    ),
    (
        "CHILDREN",
        "a segment counts the live ones that have it as their parent; only one that isn't held and has none is freed",
    ),
    ("REFUSED", "a refused command writes nothing"),
    (
        "CHAIN",
        "a segment's list of pages holds those that it owns, each once; no command but prune can stop the table",
    ),
];

#[test]
fn no_page_is_leaked_or_freed_twice() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let names = TABLE.map(|(name, _)| name);
    // Lists take longer than the rest.
    let mut proofs = vec![
        (Table::new::<2, 2>(4, 2), &names[..4]),
        (Table::new::<1, 1>(2, 2), &names[..]),
    ];
    if full {
        proofs.push((Table::new::<2, 2>(3, 2), &names[..]));
        proofs.push((Table::new::<3, 3>(8, 2), &names[..4]));
    } else {
        eprintln!("left out without FGMP_FULL=1: proofs for eight segments, and of lists for four");
    }
    for (table, names) in proofs {
        let start = Instant::now();
        let (proved, output) = table.check(names, 4);
        assert!(proved, "{}", &output[output.len().saturating_sub(6000)..]);
        println!(
            "{} segments, {} pages, {names:?}: proved in {:.1} s",
            table.segments,
            table.pages,
            start.elapsed().as_secs_f64()
        );
    }
    // Two segments and a page are enough for what goes wrong here, and are searched faster.
    let table = Table::new::<1, 1>(1, 1);
    let two_pages = Table::new::<1, 1>(2, 1);
    for (property, from, to) in [
        // A freed segment is forgotten.
        (
            "SEGMENTS",
            "free_segment_count_q <= free_segment_count_q + 16'd1",
            "free_segment_count_q <= free_segment_count_q",
        ),
        // A page goes back and is still somebody's.
        (
            "PAGES",
            "if (own_page) owned_write_data = 1'd0",
            "if (own_page) owned_write_data = 1'd1",
        ),
        // The last page of a freed segment is forgotten.
        (
            "PAGES",
            "if (|page_counts_read_data) state_q <= GIVE",
            "if (page_counts_read_data > 16'd1) state_q <= GIVE",
        ),
        // A page that comes from the stack stays there: it is given out twice. It takes the longest to find.
        (
            "PAGES",
            "if (|free_page_count_q) free_page_count_q <= free_page_count_q - 16'd1",
            "",
        ),
        // A child that is freed is still counted.
        (
            "CHILDREN",
            "children_write_data = children_read_data - 1'd1",
            "children_write_data = children_read_data",
        ),
        // A segment is freed although it has children.
        (
            "CHILDREN",
            "if (!(is_held | has_children)) frees",
            "if (!is_held) frees",
        ),
        // No page is free, and a place is taken in the page that there is.
        (
            "REFUSED",
            "if (page_room) filled_write = 1'd1",
            "filled_write = 1'd1",
        ),
        // A segment's second page is not noted behind the first.
        (
            "CHAIN",
            "if (page_room) page_behind_write = |page_counts_read_data",
            "",
        ),
    ] {
        if to.is_empty() && property == "PAGES" && !full {
            eprintln!("left out without FGMP_FULL=1: the fault without {from}");
            continue;
        }
        let table = if property == "CHAIN" {
            &two_pages
        } else {
            &table
        };
        assert_eq!(table.text.matches(from).count(), 1, "{property}: {from}");
        let faulty = Table {
            text: table.text.replace(from, to),
            widths: table.widths.clone(),
            ..*table
        };
        let start = Instant::now();
        assert!(
            refute(&faulty.text, &faulty.properties(), PREPARE, &[property], 30),
            "{property}: the fault {from} -> {to} is not found"
        );
        println!(
            "{property}: a fault found in {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
}

/// What is said of the share server: the environment offers no weight above the sum of those that are left; all else is arbitrary.
const SERVER: &str = "
  reg f_first = 1;
  always @(posedge clock) f_first <= 0;
  always @* assume (!f_first || reset);
  always @* assume (!(leaf_valid && state_q == IDLE) || {1'd0, leaf_weight} <= sum_q);
  reg [2:0] f_width; reg [3:0] f_given; reg [9:0] f_product; reg [9:0] f_number; reg f_last;
  always @(posedge clock) begin
    if (leaf_valid && leaf_ready) begin
      f_product <= rest_q * leaf_weight;
      f_number <= rest_q * leaf_weight + sum_q - 1;
      f_last <= {1'd0, leaf_weight} == sum_q;
    end
    if (given) f_given <= f_given + share;
    if (start || reset) begin f_given <= 0; f_width <= reset ? 0 : width; end
  end
  wire [9:0] f_done = quotient_q * sum_q;
  wire f_some = weight_q != 0 && rest_q != 0;
  always @* if (!f_first) begin
`ifdef DIVIDES
    if (state_q == MULTIPLY) assert (multiplied_q == f_product && quotient_q == 0);
    if (state_q == MULTIPLY && f_some) assert (f_number == f_product + sum_q - 1);
    if (state_q == MULTIPLY) assert (at_q < 3 && {1'd0, rest_q} < (4'd2 << at_q));
    if (state_q != IDLE) assert ({1'd0, weight_q} <= sum_q && f_product == rest_q * weight_q);
    if (state_q != IDLE) assert (f_last == ({1'd0, weight_q} == sum_q));
    if (state_q == DIVIDE || (state_q == GIVE && f_some)) assert (f_some && f_number == f_product + sum_q - 1);
    if (state_q == DIVIDE) assert (at_q < 3 && divisor_q == ({6'd0, sum_q} << at_q));
    if (state_q == DIVIDE) assert (f_number == (f_done << (at_q + 1)) + remainder_q);
    if (state_q == DIVIDE) assert (remainder_q < ({6'd0, sum_q} << (at_q + 1)));
    if (state_q == GIVE && f_some) assert (f_number == f_done + remainder_q && remainder_q < sum_q);
    if (state_q == GIVE && !f_some) assert (quotient_q == 0);
`endif
`ifdef BUDGET
    assert (f_given + left == f_width);
    if (given) assert (share <= left);
`endif
`ifdef SHARE
    if (given) assert (f_done >= f_product && (share == 0 || f_done < f_product + sum_q));
`endif
`ifdef LAST
    if (given && f_last && weight_q != 0) assert (share == left);
`endif
  end
";

#[test]
fn the_budget_is_never_exceeded() {
    let text = emit_module(ShareServer::<3, 3, 4, 6, 7>::default())
        .unwrap()
        .concatenated();
    let prepare = "hierarchy -top share_server; proc; flatten";
    let check =
        |text: &str, names: &[&str], steps: usize| prove(text, SERVER, prepare, names, steps);
    let start = Instant::now();
    let (proved, output) = check(&text, &["DIVIDES", "BUDGET", "SHARE", "LAST"], 4);
    assert!(proved, "{}", &output[output.len().saturating_sub(6000)..]);
    println!(
        "share server: proved in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    for (property, from, to) in [
        // A bit of the quotient is found, and its multiple not taken away.
        ("DIVIDES", "if (fits) remainder_q <= trial;", ""),
        // What was given is left.
        (
            "BUDGET",
            "rest_q <= rest_q - quotient_q",
            "rest_q <= rest_q",
        ),
        // Rounded down.
        (
            "SHARE",
            "({1'd0, multiplied_q} + {3'd0, sum_q}) - 7'd1",
            "{1'd0, multiplied_q}",
        ),
        // A bit of the quotient is left out.
        ("LAST", "if (rest_q[2]) top = 5'd2;", ""),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{property}: {from}");
        assert!(
            refute(&text.replace(from, to), SERVER, prepare, &[property], 20),
            "{property}: the fault {from} -> {to} is not found"
        );
    }
}
