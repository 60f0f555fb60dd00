//! What the proofs share.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use synth::yosys::YOSYS;

/// Puts properties into the last module of a text, and has yosys prove those of these names by induction. Whether it could, and what it says.
pub fn prove(
    text: &str,
    properties: &str,
    prepare: &str,
    names: &[&str],
    steps: usize,
) -> (bool, String) {
    let output = run(text, properties, prepare, names, steps, "");
    (output.contains("Induction step proven: SUCCESS!"), output)
}

/// Whether yosys finds inputs for which one of these properties fails within so many cycles from the reset.
#[allow(dead_code, reason = "not every file of proofs uses both")]
pub fn refute(text: &str, properties: &str, prepare: &str, names: &[&str], steps: usize) -> bool {
    let only = "-tempinduct-baseonly";
    is_refuted(&run(text, properties, prepare, names, steps, only))
}

fn run(
    text: &str,
    properties: &str,
    prepare: &str,
    names: &[&str],
    steps: usize,
    options: &str,
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let head = text.rfind("endmodule").unwrap();
    let design = format!("{}{properties}endmodule\n", &text[..head]);
    std::fs::write(folder.path().join("design.v"), design).unwrap();
    let defines: String = names.iter().map(|name| format!(" -D{name}")).collect();
    let script = format!(
        "read_verilog -formal{defines} design.v; {prepare}; opt -full; \
         sat -tempinduct {options} -prove-asserts -set-assumes -maxsteps {steps}"
    );
    let output = Command::new(YOSYS.find().unwrap())
        .args(["-p", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// Yosys found inputs for which a property fails.
pub fn is_refuted(output: &str) -> bool {
    output.contains("model found for base case: FAIL!")
}
