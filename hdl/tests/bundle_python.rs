//! The bundle in the hands of Python: the manifest against its published schema, and the core's cocotb example.
#![allow(clippy::unwrap_used, clippy::panic)]

use hdl::bundle::{self, MANIFEST_SCHEMA, Top};
use hdl::config::ArrayConfig;
use hdl::ets::{PageTableConfig, SelectorConfig};
use hdl::speed::SpeedConfig;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn config() -> ArrayConfig {
    ArrayConfig {
        rows: 1,
        cols: 2,
        weight_ports: 1,
        ..ArrayConfig::default()
    }
}

/// The Python of `.tools`, else the one on `PATH`: the first that can import a package.
fn python_with(package: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/python");
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("python3"));
    std::iter::once(tools)
        .chain(on_path)
        .find(|python| {
            Command::new(python)
                .args(["-c", &format!("import {package}")])
                .output()
                .is_ok_and(|output| output.status.success())
        })
        .unwrap_or_else(|| panic!("no Python has the package {package}; ./test installs it into .tools, or: pip install {package}"))
}

/// For each document, what the schema has against it; empty if it is valid.
fn complaints(documents: &[Value]) -> Vec<String> {
    const CHECK: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema, documents = (json.load(open(path)) for path in sys.argv[1:])
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(json.dumps([' | '.join(e.message for e in validator.iter_errors(d)) for d in documents]))
";
    let folder = tempfile::tempdir().unwrap();
    let (schema, list) = (folder.path().join("schema"), folder.path().join("list"));
    std::fs::write(&schema, MANIFEST_SCHEMA.1).unwrap();
    std::fs::write(&list, serde_json::to_string(documents).unwrap()).unwrap();
    let output = Command::new(python_with("jsonschema"))
        .args(["-c", CHECK])
        .args([schema, list])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let complaints: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(complaints.len(), documents.len());
    complaints
}

/// The manifest as it lies in a bundle, beside its schema.
fn manifest(top: Top) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("bundle");
    bundle::write(&folder, top, 1).unwrap();
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let schema = folder.join(manifest["$schema"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(schema).unwrap(), MANIFEST_SCHEMA.1);
    manifest
}

#[test]
fn manifests_follow_their_schema() {
    let speed = SpeedConfig {
        array: config(),
        ..SpeedConfig::default()
    };
    let manifests = [
        manifest(Top::Core(config())),
        manifest(Top::Accelerator(config())),
        manifest(Top::Speed(speed)),
        manifest(Top::TreeSelector(SelectorConfig::default())),
        manifest(Top::PageTable(PageTableConfig::default())),
    ];
    assert_eq!(complaints(&manifests), [""; 5]);
    // Each with another top's parameters is none.
    let strangers: Vec<Value> = (0..manifests.len())
        .map(|at| {
            let mut copy = manifests[at].clone();
            copy["parameters"] = manifests[(at + 2) % manifests.len()]["parameters"].clone();
            copy
        })
        .collect();
    let complaints = complaints(&strangers);
    assert!(complaints.iter().all(|it| !it.is_empty()), "{complaints:?}");
}

#[test]
fn the_schema_refuses_broken_manifests() {
    // A short one, since each of its copies is checked; valid as it is.
    let (core, mut accelerator) = (
        manifest(Top::Core(config())),
        manifest(Top::Accelerator(config())),
    );
    for list in ["ports", "registers", "modules", "files"] {
        accelerator[list].as_array_mut().unwrap().truncate(2);
    }
    assert_eq!(complaints(std::slice::from_ref(&accelerator)), [""]);
    let mut broken = Vec::new();
    // Each field of each object missing or renamed; each value of another type.
    let objects = [
        "",
        "/parameters",
        "/ports/0",
        "/registers/1",
        "/registers/1/fields/0",
        "/modules/0",
    ];
    for path in objects {
        let object = accelerator.pointer(path).unwrap().as_object().unwrap();
        for key in object.keys() {
            let mut copy = accelerator.clone();
            let object = copy.pointer_mut(path).unwrap().as_object_mut().unwrap();
            let value = object.remove(key).unwrap();
            broken.push((format!("{path}: {key} is missing"), copy.clone()));
            let object = copy.pointer_mut(path).unwrap().as_object_mut().unwrap();
            object.insert(key.clone(), json!({ "wrong": value.clone() }));
            broken.push((format!("{path}: {key} is an object"), copy.clone()));
            let object = copy.pointer_mut(path).unwrap().as_object_mut().unwrap();
            object.insert(key.clone(), value);
            object.insert("unknown".to_owned(), json!(1));
            broken.push((format!("{path}: has an unknown field"), copy));
        }
    }
    for (path, value) in [
        ("/top", json!("fgmp_pe")),
        ("/manifest_version", json!(2)),
        ("/ports/0/direction", json!("inout")),
        ("/ports/0/width", json!(0)),
        ("/parameters/rows", json!(65)),
        ("/parameters/multiplier", json!("other")),
        ("/registers/0/access", json!("readwrite")),
        ("/registers/0/address", json!(2)),
        ("/registers/1/fields/0/low", json!(32)),
        ("/registers", json!([])),
        ("/modules/0/file", json!("../rtl/fgmp_lane.v")),
        ("/modules/0/instances", json!([["name"]])),
        ("/modules/0/parameters", json!([["W", "1", "2"]])),
        ("/files", json!(["README.md", "README.md"])),
    ] {
        let mut copy = accelerator.clone();
        *copy.pointer_mut(path).unwrap() = value.clone();
        broken.push((format!("{path} = {value}"), copy));
    }
    let mut copy = core;
    copy["registers"] = accelerator["registers"].clone();
    broken.push(("the core with registers".to_owned(), copy));

    let (names, documents): (Vec<String>, Vec<Value>) = broken.into_iter().unzip();
    let accepted: Vec<&String> = names
        .iter()
        .zip(complaints(&documents))
        .filter(|(_, complaint)| complaint.is_empty())
        .map(|(name, _)| name)
        .collect();
    assert!(accepted.is_empty(), "accepted: {accepted:?}");
}

/// Runs the bundle's cocotb example as its README says.
fn cocotb(bundle: &Path) -> Output {
    let python = python_with("cocotb");
    let mut path = vec![python.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    Command::new("make")
        .args(["-C", "cocotb"])
        .current_dir(bundle)
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("COCOTB_RANDOM_SEED", "1")
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap_or_else(|error| panic!("make does not start ({error}); ./test installs it"))
}

#[test]
fn the_cocotb_example_passes_and_notices_a_changed_word() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("bundle");
    bundle::write(&folder, Top::Core(config()), 1).unwrap();
    let run = || {
        let output = cocotb(&folder);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (success, text) = run();
    assert!(success && text.contains("TESTS=1 PASS=1 FAIL=0"), "{text}");
    for stream in ["out", "payload", "scale", "tag"] {
        let vectors = std::fs::read_to_string(folder.join(format!("tb/{stream}.hex"))).unwrap();
        let all = format!("{stream}: {} beats agree", vectors.lines().count());
        assert!(text.contains(&all), "{all} is missing in:\n{text}");
    }

    // The lowest bit of one expected quantized word.
    let path = folder.join("tb/payload.hex");
    let vectors = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = vectors.lines().map(str::to_owned).collect();
    let digit = lines[100].pop().and_then(|digit| digit.to_digit(16));
    let digit = char::from_digit(digit.unwrap() ^ 1, 16).unwrap();
    lines[100].push(digit);
    std::fs::write(&path, lines.join("\n")).unwrap();
    let (success, text) = run();
    assert!(
        !success && text.contains("payload beat 100: found"),
        "{text}"
    );
}
