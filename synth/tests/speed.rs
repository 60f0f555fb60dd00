//! What is proved of the emitted pipeline and player: for all inputs and without a bound on time, by induction over cycles in yosys's SAT solver.
//!
//! The properties are put into the emitted module, beside registers that record what they speak of. All of them are asserted together, and are
//! inductive together. Each one is also shown to fail in a module with a fault.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fmt::Write;
use std::time::Instant;

use hdl::build::emit_module;
use hdl::speed::{PassPlayer, SpeedPipeline};

use common::{is_refuted, prove};

/// The properties by name; each stands behind a macro of its own.
const PROPERTIES: [(&str, &str); 8] = [
    (
        "PHASES",
        "a sequence under way is in one phase of a pass, and has an entry in flight",
    ),
    (
        "ORDER",
        "entries in flight have consecutive positions below the limit, older ones lower",
    ),
    (
        "COMMITS",
        "committed positions are consecutive from the prompt's end on; none is lost, none comes twice",
    ),
    (
        "CHAIN",
        "each entry's token is the class of the entry before it, the oldest's the last committed token",
    ),
    (
        "TAILS",
        "a row is written right behind what its repetition holds",
    ),
    (
        "COUNT",
        "what was launched is in flight, was committed, or was dropped; never more than G are in flight",
    ),
    (
        "PROGRESS",
        "every G passes commit a token, and a pass ends when the environment answers",
    ),
    ("STREAMS", "what is offered stays until it is taken"),
];

/// A pipeline as emitted.
struct Emitted {
    stages: usize,
    /// Bits of a position.
    position: usize,
    /// Bits of a token.
    token: usize,
    text: String,
}

fn emitted<const P: usize, const T: usize>(stages: usize) -> Emitted {
    Emitted {
        stages,
        position: P,
        token: T,
        text: emit_module(SpeedPipeline::<P, T>::new(stages))
            .unwrap()
            .concatenated(),
    }
}

/// The text that goes into the module.
fn properties(pipeline: &Emitted) -> String {
    let (stages, p) = (pipeline.stages, pipeline.position);
    let (high_p, high_t) = (p - 1, pipeline.token - 1);
    let mut text = String::new();
    let mut line = |of: std::fmt::Arguments<'_>| {
        text.write_fmt(of).unwrap();
        text.push('\n');
    };
    macro_rules! v { ($($arg:tt)*) => { line(format_args!($($arg)*)) }; }
    let all = |name: &str| {
        (0..stages)
            .rev()
            .map(|i| format!("{name}_{i}_q"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    // Yosys takes an initial value for the state of the first cycle; all other registers may hold anything then.
    v!("  reg f_first = 1;");
    v!("  always @(posedge clock) f_first <= 0;");
    v!("  always @* assume (!f_first || reset);");
    v!("  wire f_busy = !idle;");
    v!(
        "  wire [{0}:0] f_valid = {{{1}}};",
        stages - 1,
        all("valid")
    );
    v!("  wire [{0}:0] f_left = {{{1}}};", stages - 1, all("left"));
    let count = |of: &str| {
        (0..stages)
            .map(|i| format!("{{4'd0, {of}[{i}]}}"))
            .collect::<Vec<_>>()
            .join(" + ")
    };
    v!("  wire [4:0] f_valids = {};", count("f_valid"));
    v!("  wire [4:0] f_lefts = {};", count("f_left"));
    // The oldest entry.
    v!(
        "  reg [{high_p}:0] f_oldest_position; reg [{high_t}:0] f_oldest_token; reg [3:0] f_oldest;"
    );
    v!("  reg [{high_p}:0] f_youngest_position; reg [{high_t}:0] f_youngest_class;");
    v!("  always @* begin");
    v!(
        "    f_oldest = 0; f_oldest_position = 0; f_oldest_token = 0; f_youngest_position = 0; f_youngest_class = 0;"
    );
    for i in 0..stages {
        v!(
            "    if (valid_{i}_q) begin f_oldest = {i}; f_oldest_position = position_{i}_q; f_oldest_token = token_{i}_q; end"
        );
    }
    for i in (0..stages).rev() {
        v!(
            "    if (valid_{i}_q) begin f_youngest_position = position_{i}_q; f_youngest_class = class_{i}_q; end"
        );
    }
    v!("  end");
    // What has been committed.
    v!(
        "  reg [{high_p}:0] f_next; reg [{high_t}:0] f_token; reg [3:0] f_age; reg [4:0] f_entries;"
    );
    v!("  wire f_commit = settle && leaving;");
    v!("  always @(posedge clock) begin");
    v!(
        "    if (f_commit) begin f_next <= f_next + 1; f_token <= class_{}_q; end",
        stages - 1
    );
    v!("    if (settle) f_age <= leaving ? 0 : f_age + 1;");
    v!(
        "    if (settle) f_entries <= f_entries - flushed - (leaving ? 5'd1 : 5'd0) + (launching ? 5'd1 : 5'd0);"
    );
    v!(
        "    if (starting) begin f_next <= start_position + {p}'d1; f_token <= start_token; f_age <= 0; f_entries <= 1; end"
    );
    v!("  end");
    // What has left through the port: the position that comes next, unless a sequence was begun since.
    v!("  wire f_out = commit_valid && commit_ready;");
    v!("  reg f_fresh; reg f_restart; reg [{high_p}:0] f_out_next;");
    v!("  always @(posedge clock) begin");
    v!(
        "    if (f_out) begin f_out_next <= commit_position + {p}'d1; f_fresh <= f_restart; f_restart <= 0; end"
    );
    v!("    if (starting) begin");
    v!(
        "      if (full_q && !commit_ready) f_restart <= 1; else begin f_fresh <= 1; f_restart <= 0; end"
    );
    v!("    end");
    v!("    if (reset) begin f_fresh <= 1; f_restart <= 0; end");
    v!("  end");
    // The cycle before.
    v!(
        "  reg f_was_row; reg [{high_p}:0] f_was_row_position; reg [{high_t}:0] f_was_row_token; reg [2:0] f_was_row_repetition; reg f_was_row_last;"
    );
    v!(
        "  reg f_was_commit; reg [{high_p}:0] f_was_commit_position; reg [{high_t}:0] f_was_commit_token; reg f_was_commit_last;"
    );
    v!("  reg f_moved; reg [4:0] f_was_rank;");
    v!(
        "  wire [4:0] f_rank = sending_q ? 5'd{0} + f_lefts : taking_q ? 5'd1 + f_lefts : settling_q ? 5'd1 : 5'd0;",
        stages + 2
    );
    v!(
        "  wire f_answered = sending_q ? row_ready : taking_q ? class_valid : !hold && (commit_ready || !full_q);"
    );
    v!("  always @(posedge clock) begin");
    v!(
        "    f_was_row <= row_valid && !row_ready && !reset; f_was_row_position <= row_position; f_was_row_token <= row_token; f_was_row_repetition <= row_repetition; f_was_row_last <= row_last;"
    );
    v!(
        "    f_was_commit <= commit_valid && !commit_ready && !reset; f_was_commit_position <= commit_position; f_was_commit_token <= commit_token; f_was_commit_last <= commit_last;"
    );
    v!("    f_moved <= f_busy && f_answered && !settle && !stop && !reset; f_was_rank <= f_rank;");
    v!("  end");

    v!("  always @* if (!f_first) begin");
    v!("`ifdef PHASES");
    v!("    assert ({{1'b0, sending_q}} + {{1'b0, taking_q}} + {{1'b0, settling_q}} < 2'd2);");
    v!("    assert (f_busy ? f_valid != 0 : f_valid == 0);");
    v!("    assert ((f_left & ~f_valid) == 0);");
    v!("    assert ((sending_q || taking_q) == (f_left != 0));");
    v!("    assert (!opening_q || sending_q);");
    v!("    assert (!stopping_q || sending_q);");
    v!("    assert (!finished_q || idle);");
    v!("    if (taking_q) assert (first_q == (f_left == f_valid));");
    v!("    if (taking_q && first_q) assert (!changed_q);");
    for i in 0..stages {
        for j in i + 1..stages {
            // Rows and classes move youngest first.
            v!("    if (left_{i}_q && valid_{j}_q) assert (left_{j}_q);");
        }
    }
    v!("`endif");

    v!("`ifdef ORDER");
    for i in 0..stages {
        v!("    if (valid_{i}_q) assert (position_{i}_q < limit_q);");
        for j in i + 1..stages {
            v!("    if (valid_{i}_q && valid_{j}_q) assert (position_{i}_q > position_{j}_q);");
            let between = between(i, j);
            v!(
                "    if (valid_{i}_q && valid_{j}_q{between}) assert (position_{i}_q == position_{j}_q + {p}'d1);"
            );
        }
    }
    v!("`endif");

    v!("`ifdef COMMITS");
    v!("    if (f_busy) assert (f_oldest_position + {p}'d1 == f_next);");
    v!(
        "    if (f_commit) assert (tail_{}_q == f_next);",
        stages - 1
    );
    v!("    assert (!(f_commit && full_q && !commit_ready));");
    v!("    if (f_busy && full_q && !f_restart) assert (full_position_q + {p}'d1 == f_next);");
    v!("    if (f_busy && !full_q && !f_fresh) assert (f_out_next == f_next);");
    v!("    if (!full_q) assert (!f_restart);");
    v!("    if (f_out && !f_fresh) assert (commit_position == f_out_next);");
    v!("    if (full_q && !f_fresh) assert (full_position_q == f_out_next);");
    v!("`endif");

    v!("`ifdef CHAIN");
    v!("    if (f_busy) assert (f_oldest_token == f_token);");
    for i in 0..stages {
        for j in i + 1..stages {
            let between = between(i, j);
            v!(
                "    if (valid_{i}_q && valid_{j}_q{between}) assert (token_{i}_q == class_{j}_q || (!sending_q && changed_q && changed_stage_q >= {j}));"
            );
        }
    }
    for i in 0..stages {
        v!(
            "    if (((taking_q && !first_q) || settling_q) && changed_q && changed_stage_q == {i}) begin"
        );
        v!("      assert (valid_{i}_q && !left_{i}_q);");
        v!(
            "      assert (next_position_q == position_{i}_q + {p}'d1 && next_token_q == class_{i}_q);"
        );
        v!("    end");
    }
    v!(
        "    if (((taking_q && !first_q) || settling_q) && changed_q) assert (changed_stage_q < {stages} && changed_stage_q != 0);"
    );
    v!(
        "    if (((taking_q && !first_q) || settling_q) && !changed_q) assert (next_position_q == f_youngest_position + {p}'d1 && next_token_q == f_youngest_class);"
    );
    v!("`endif");

    v!("`ifdef TAILS");
    for g in 0..stages {
        v!("    if (row_valid && row_repetition == {g}) assert (row_position == tail_{g}_q);");
        // The next to come to this repetition.
        let mut next = format!("f_youngest_position + {p}'d1");
        for i in 0..=g {
            next = format!("valid_{i}_q ? position_{i}_q : ({next})");
            // An older one comes first.
        }
        v!(
            "    if (f_busy) assert (tail_{g}_q == ((valid_{g}_q && !left_{g}_q && !sending_q) ? position_{g}_q + {p}'d1 : ({next})));"
        );
    }
    v!("`endif");

    v!("`ifdef COUNT");
    v!("    if (f_busy) assert (f_entries == f_valids && f_entries <= {stages});");
    v!("    if (settle && ending) assert (f_entries == {{1'b0, flushed}} + 5'd1);");
    v!("`endif");

    v!("`ifdef PROGRESS");
    v!("    if (f_busy) assert (f_age <= f_oldest && f_age < {stages});");
    v!("    if (f_moved && f_busy) assert (f_rank < f_was_rank);");
    v!("    if (settling_q && f_answered && !stop) assert (settle);");
    v!("`endif");

    v!("`ifdef STREAMS");
    v!(
        "    if (f_was_row) assert (row_valid && row_position == f_was_row_position && row_token == f_was_row_token && row_repetition == f_was_row_repetition && row_last == f_was_row_last);"
    );
    v!(
        "    if (f_was_commit) assert (commit_valid && commit_position == f_was_commit_position && commit_token == f_was_commit_token && commit_last == f_was_commit_last);"
    );
    v!("`endif");
    v!("  end");
    text
}

/// That no stage between two is taken.
fn between(i: usize, j: usize) -> String {
    (i + 1..j).fold(String::new(), |text, k| text + &format!(" && !valid_{k}_q"))
}

/// What yosys says of a module's properties of these names.
fn check(pipeline: &Emitted, names: &[&str], steps: usize) -> (bool, String) {
    // The counters are read by nothing here.
    let prepare = "hierarchy -top speed_pipeline; proc; delete t:*event_counters; flatten";
    prove(&pipeline.text, &properties(pipeline), prepare, names, steps)
}

#[test]
fn the_pipelines_properties_hold_for_all_inputs() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    if !full {
        eprintln!("left out without FGMP_FULL=1: proofs of more than four stages");
    }
    let names = PROPERTIES.map(|(name, _)| name);
    // A limit of 15 is far enough for all stages to be full before it.
    let mut pipelines: Vec<Emitted> = (1..=if full { 8 } else { 4 })
        .map(emitted::<4, 2>)
        .collect();
    pipelines.push(emitted::<12, 12>(3));
    for pipeline in pipelines {
        let start = Instant::now();
        let (proved, text) = check(&pipeline, &names, 4);
        let Emitted {
            stages,
            position,
            token,
            ..
        } = pipeline;
        assert!(
            proved,
            "{stages} stages:\n{}",
            &text[text.len().saturating_sub(6000)..]
        );
        println!(
            "{stages} stages, positions of {position} bits, tokens of {token}: proved in {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn each_property_fails_in_a_pipeline_with_a_fault() {
    let whole = emitted::<3, 1>(3);
    for (property, from, to) in [
        // Entries are left behind when the sequence ends.
        (
            "PHASES",
            "valid_1_q <= kept_0 & (!ending)",
            "valid_1_q <= kept_0",
        ),
        // Behind the limit the next token is launched.
        ("ORDER", "(next_position_q != limit_q)", "1'd1"),
        // A flip at the last stage doesn't flush the stage before it.
        ("COMMITS", "(changed_stage_q > 3'd1)", "1'd0"),
        // The next token is the youngest's, whatever flipped.
        (
            "CHAIN",
            "if (first_q | differs) next_token_q",
            "if (first_q) next_token_q",
        ),
        // A flip leaves a tail where it was.
        (
            "TAILS",
            "if (settle & young_0) tail_0_q <= next_position_q;",
            "",
        ),
        // Entries that the end drops are counted wrongly.
        (
            "COUNT",
            "if (kept_1 & ending) dropped",
            "if (kept_0 & ending) dropped",
        ),
        // A pass waits for the last stage's token although there is none.
        (
            "PROGRESS",
            "(!leaving | (!full_q) | commit_ready)",
            "(full_q | commit_ready)",
        ),
        // The committed token goes although it was not taken.
        (
            "STREAMS",
            "if (commit_ready) full_q <= 1'd0",
            "if (1'd1) full_q <= 1'd0",
        ),
    ] {
        assert_eq!(whole.text.matches(from).count(), 1, "{property}: {from}");
        let faulty = Emitted {
            text: whole.text.replace(from, to),
            ..whole
        };
        let (proved, output) = check(&faulty, &[property], 40);
        assert!(
            !proved && is_refuted(&output),
            "{property}: the fault {from} -> {to} is not found:\n{}",
            &output[output.len().saturating_sub(3000)..]
        );
    }
}

/// What is said of the player: the program, what the accelerator answers and when, are arbitrary.
const PLAYER_PROPERTIES: &str = "
  reg f_first = 1;
  always @(posedge clock) f_first <= 0;
  always @* assume (!f_first || reset);
  // Since the last start of a job: STATUS was read with room for another; then ERROR was read as 0.
  reg f_room; reg f_clean;
  // Since the program's end: STATUS was read without a job.
  reg f_quiet;
  wire f_read = rvalid && rready;
  always @(posedge clock) begin
    if (f_read && address == 8'h18) f_room <= !rdata[1] && !rdata[2];
    if (f_read && address == 8'h18) f_quiet <= !rdata[0];
    if (f_read && address == 8'h1C) f_clean <= rdata[7:0] == 0;
    if (!busy || (state_q == STARTING && access)) begin f_room <= 0; f_clean <= 0; end
    if (state_q == HEADER) f_quiet <= 0;
  end
  reg f_was_busy; reg f_was_stopped;
  always @(posedge clock) begin
    f_was_busy <= busy && !reset;
    f_was_stopped <= failed || stop || reset;
  end
  always @* if (!f_first) begin
`ifdef ROOM
    if (state_q == STARTING) assert (f_room && f_clean);
    if (state_q == CHECK) assert (f_room);
    if (state_q == FETCH || state_q == HEADER || state_q == DATA) assert (f_room && f_clean);
`endif
`ifdef END
    if (state_q == CHECK && last_q) assert (f_quiet);
    if (f_was_busy && !busy && !f_was_stopped) assert (f_quiet && last_q);
    if (last_q && busy) assert (state_q == POLL || state_q == CHECK);
`endif
`ifdef ERROR
    if (state_q == CHECK && f_read && rdata[7:0] != 0) assert (failed);
    if (f_read && rresp != 0) assert (failed);
    if (bvalid && bready && bresp != 0) assert (failed);
`endif
  end
";

#[test]
fn the_player_starts_no_job_without_room_and_ends_no_pass_with_a_job() {
    let text = emit_module(PassPlayer::new(4)).unwrap().concatenated();
    let prepare = "hierarchy -top pass_player; proc; flatten; memory";
    let check = |text: &str, names: &[&str], steps: usize| {
        prove(text, PLAYER_PROPERTIES, prepare, names, steps)
    };
    let start = Instant::now();
    let (proved, output) = check(&text, &["ROOM", "END", "ERROR"], 4);
    assert!(proved, "{}", &output[output.len().saturating_sub(6000)..]);
    println!("player: proved in {:.1} s", start.elapsed().as_secs_f64());
    for (property, from, to) in [
        // The queue's room is not awaited; a job's check is not.
        (
            "ROOM",
            "access & (!rdata[1]) & (!rdata[2])",
            "access & (!rdata[2])",
        ),
        (
            "ROOM",
            "access & (!rdata[1]) & (!rdata[2])",
            "access & (!rdata[1])",
        ),
        // Behind a start nothing is read.
        (
            "ROOM",
            "if ((state_q == 3'd7) & access) state_q <= POLL",
            "if ((state_q == 3'd7) & access) state_q <= FETCH",
        ),
        // The last jobs are not awaited.
        ("END", "(!last_q | (!rdata[0]))", "1'd1"),
        // A refused job is not noticed.
        ("ERROR", "job_fault = |rdata[7:0];", "job_fault = 1'd0;"),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{property}: {from}");
        let (proved, output) = check(&text.replace(from, to), &[property], 40);
        assert!(
            !proved && is_refuted(&output),
            "{property}: the fault {from} -> {to} is not found"
        );
    }
}
