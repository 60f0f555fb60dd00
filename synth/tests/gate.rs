//! Area may not grow unnoticed: the parts of the table against the figures in `data/gate.json`.
//!
//! After a change that is meant, `FGMP_WRITE_GATE=1 cargo test -p fgmp-synth --test gate` writes the file again.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use synth::device::ECP5_85;
use synth::parallel;
use synth::table::{Options, Part, build, parts};
use synth::yosys::Multipliers;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Gate {
    /// Version that mapped them. Another one maps otherwise, so its figures may differ more.
    yosys: String,
    /// Rise that is let through, of the figure.
    tolerance: f64,
    /// The same with another yosys.
    tolerance_elsewhere: f64,
    parts: BTreeMap<String, Figures>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Figures {
    lut4: u64,
    registers: u64,
}

impl Gate {
    /// What rose, in words.
    fn risen(&self, now: &Gate) -> Vec<String> {
        let tolerance = if self.yosys == now.yosys {
            self.tolerance
        } else {
            self.tolerance_elsewhere
        };
        let mut risen = Vec::new();
        for (name, now) in &now.parts {
            let Some(then) = self.parts.get(name) else {
                risen.push(format!("{name} has no figures yet"));
                continue;
            };
            for (what, then, now) in [
                ("LUT4", then.lut4, now.lut4),
                ("registers", then.registers, now.registers),
            ] {
                if now as f64 > then as f64 * (1.0 + tolerance) {
                    risen.push(format!(
                        "{name}: {now} {what}, {then} before, {:.0} % let through",
                        100.0 * tolerance
                    ));
                }
            }
        }
        risen
    }
}

fn measured(names: &[&str]) -> Gate {
    let wanted: Vec<Part> = parts(7)
        .into_iter()
        .filter(|part| names.contains(&part.name))
        .collect();
    let options = Options {
        device: ECP5_85,
        target_mhz: 100,
        seeds: &[],
        store: None,
    };
    let builds = parallel::map(&wanted, |part| {
        build(part, Multipliers::Logic, &options).unwrap().1
    });
    Gate {
        yosys: builds[0].tool.clone(),
        tolerance: 0.02,
        tolerance_elsewhere: 0.15,
        parts: wanted
            .iter()
            .zip(builds)
            .map(|(part, build)| {
                let figures = Figures {
                    lut4: build.lut4,
                    registers: build.registers,
                };
                (part.name.to_owned(), figures)
            })
            .collect(),
    }
}

#[test]
fn no_part_has_grown() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/gate.json");
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let write = std::env::var_os("FGMP_WRITE_GATE").is_some();
    let mut names = vec!["fp4_sum", "nvfp4_pair", "pe", "serial_quantizer"];
    if full || write {
        names.extend(["fp8_sum", "fp8_pe", "parallel_quantizer"]);
    } else {
        eprintln!("left out without FGMP_FULL=1: the FP8-only parts and the parallel quantizer");
    }
    let now = measured(&names);
    if write {
        let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let gate: Gate = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let risen = gate.risen(&now);
    assert!(risen.is_empty(), "{}", risen.join("\n"));
}

#[test]
fn a_rise_above_the_tolerance_is_told() {
    let gate = |yosys: &str, lut4: u64| Gate {
        yosys: yosys.to_owned(),
        tolerance: 0.02,
        tolerance_elsewhere: 0.15,
        parts: BTreeMap::from([("pe".to_owned(), Figures { lut4, registers: 5 })]),
    };
    let then = gate("Yosys 1", 100);
    assert!(then.risen(&gate("Yosys 1", 102)).is_empty());
    assert_eq!(
        then.risen(&gate("Yosys 1", 103)),
        ["pe: 103 LUT4, 100 before, 2 % let through"]
    );
    assert!(then.risen(&gate("Yosys 2", 110)).is_empty());
    assert_eq!(then.risen(&gate("Yosys 2", 120)).len(), 1);
    let empty = Gate {
        parts: BTreeMap::new(),
        ..gate("Yosys 1", 1)
    };
    assert_eq!(empty.risen(&then), ["pe has no figures yet"]);
}
