//! Weights as large as a 7-billion-parameter model's, on an ordinary machine. With `FGMP_FULL=1`: it takes minutes and about 25 GB of disk.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use checkpoints::Checkpoint;
use golden::packed::{PackedTensor, TensorScale};
use golden::quantizer::score_rows;

/// Llama-2-7B's shapes.
const LAYERS: usize = 32;
const HIDDEN: usize = 4096;
const FEED_FORWARD: usize = 11_008;
const VOCABULARY: usize = 32_000;
/// The bound that the project promises.
const BYTES_IN_MEMORY: u64 = 2 << 30;

/// BF16 values of a bell's shape, as many as the largest tensor has, to be used again at other offsets.
fn values() -> Vec<u8> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..1 << 22)
        .flat_map(|_| {
            let x = 0.04 * (uniform() + uniform() + uniform() + uniform());
            ((x.to_bits() >> 16) as u16).to_le_bytes()
        })
        .collect()
}

/// One shard a layer, in Hugging Face's layout.
fn write_model(folder: &Path) -> u64 {
    let pool = values();
    let square = [HIDDEN, HIDDEN];
    let mut shards: Vec<Vec<(String, [usize; 2])>> = (0..LAYERS)
        .map(|layer| {
            let name = |part: &str| format!("model.layers.{layer}.{part}_proj.weight");
            let mut tensors: Vec<_> = ["q", "k", "v", "o"]
                .iter()
                .map(|part| (name(&format!("self_attn.{part}")), square))
                .collect();
            tensors.push((name("mlp.gate"), [FEED_FORWARD, HIDDEN]));
            tensors.push((name("mlp.up"), [FEED_FORWARD, HIDDEN]));
            tensors.push((name("mlp.down"), [HIDDEN, FEED_FORWARD]));
            tensors
        })
        .collect();
    let table = [VOCABULARY, HIDDEN];
    shards.push(vec![
        ("model.embed_tokens.weight".to_owned(), table),
        ("lm_head.weight".to_owned(), table),
    ]);
    let mut map = serde_json::Map::new();
    let mut parameters = 0;
    for (index, tensors) in shards.iter().enumerate() {
        let file = format!("model-{index:05}.safetensors");
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += 2 * shape[0] * shape[1];
            let entry =
                serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
            header.insert(name.clone(), entry);
            map.insert(name.clone(), file.clone().into());
        }
        parameters += end as u64 / 2;
        let header = serde_json::Value::Object(header).to_string();
        let mut file = File::create(folder.join(&file)).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        // Each shard begins elsewhere in the pool, by an odd number of values.
        let mut at = (index * 2 * 130_003) % pool.len();
        while end > 0 {
            let take = end.min(pool.len() - at);
            file.write_all(&pool[at..at + take]).unwrap();
            end -= take;
            at = 0;
        }
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    parameters
}

fn start(model: &Path, output: &Path, json: &Path) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("fgmp"))
        .args(["quantize", "--weights-only"])
        .arg(model)
        .arg("-o")
        .arg(output)
        .arg("--json")
        .arg(json)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for the end, or for `files` with this ending in the work folder; answers the peak of memory meanwhile.
fn watch(child: &mut Child, work: &Path, ending: &str, files: usize) -> u64 {
    let mut peak = 0;
    loop {
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let line = status.lines().find(|line| line.starts_with("VmHWM"));
            let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
            peak = peak.max(kilobytes.map_or(0, |k| k.parse().unwrap()) * 1024);
        }
        let found = fs::read_dir(work).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().ends_with(ending))
                .count()
        });
        if found >= files || child.try_wait().unwrap().is_some() {
            return peak;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn seven_billion_parameters_need_two_gigabytes_and_survive_interruptions() {
    if std::env::var_os("FGMP_FULL").is_none() {
        eprintln!("skipped: weights of 7 billion parameters are quantized with FGMP_FULL=1");
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let parameters = write_model(&model);
    assert!(parameters > 6_700_000_000);
    let output = folder.path().join("packed.safetensors");
    let work = folder.path().join("packed.safetensors.partial");
    let json = folder.path().join("figures.json");
    let begun = Instant::now();

    // Ctrl-C while blocks are scored.
    let mut child = start(&model, &output, &json);
    let mut peak = watch(&mut child, &work, ".scored", 60);
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!output.exists());
    let scored: Vec<_> = fs::read_dir(&work)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".scored"))
        .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
        .collect();
    assert!(scored.len() >= 60);

    // Killed while they are packed, without a chance to tidy up.
    let mut child = start(&model, &output, &json);
    peak = peak.max(watch(&mut child, &work, ".packed", 40));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!output.exists());
    for (path, modified) in scored {
        let now = fs::metadata(&path).map(|m| m.modified().unwrap());
        assert!(
            now.is_ok_and(|now| now == modified),
            "scored again: {path:?}"
        );
    }

    // To the end.
    let mut child = start(&model, &output, &json);
    peak = peak.max(watch(&mut child, &work, "", usize::MAX));
    assert!(child.wait().unwrap().success());
    assert!(!work.exists());
    let seconds = begun.elapsed().as_secs();
    eprintln!(
        "{parameters} parameters in {seconds} s and {} MiB",
        peak >> 20
    );
    assert!(peak > 0 && peak < BYTES_IN_MEMORY, "{peak} bytes");

    // One tensor is looked at whole: its values, and that the threshold parts its blocks' scores.
    let (packed, source) = (
        Checkpoint::open(&output).unwrap(),
        Checkpoint::open(&model).unwrap(),
    );
    let name = "model.layers.31.mlp.down_proj.weight";
    let stream = |stream: &str| packed.read_raw(&format!("{name}.{stream}")).unwrap().bytes;
    let scale = f32::from_le_bytes(stream("tensor_scale").try_into().unwrap());
    let tensor = PackedTensor::from_streams(
        &[HIDDEN, FEED_FORWARD],
        TensorScale::new(scale).unwrap(),
        stream("tags"),
        stream("scales"),
        &stream("payload"),
    )
    .unwrap();
    let exact = source.read_rows(name, 0..HIDDEN).unwrap();
    let (mut squares, mut error) = (0.0, 0.0);
    for (x, y) in exact.iter().zip(tensor.decode()) {
        squares += f64::from(*x).powi(2);
        error += f64::from(x - y).powi(2);
    }
    assert!(error < 0.01 * squares, "{error} of {squares}");
    let scored = score_rows(&exact, FEED_FORWARD, None, tensor.scale(), false).unwrap();
    let (mut highest_fp4, mut lowest_fp8) = (f64::NEG_INFINITY, f64::INFINITY);
    for (candidates, block) in scored.iter().zip(tensor.packed_blocks()) {
        if block.tag {
            lowest_fp8 = lowest_fp8.min(candidates.score);
        } else {
            highest_fp4 = highest_fp4.max(candidates.score);
        }
    }
    assert!(highest_fp4 < lowest_fp8, "{highest_fp4} {lowest_fp8}");
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let sum = |field: &str| -> u64 {
        let tensors = figures["tensors"].as_array().unwrap();
        tensors.iter().map(|t| t[field].as_u64().unwrap()).sum()
    };
    let share = sum("fp8_blocks") as f64 / sum("blocks") as f64;
    assert!((share - 0.3).abs() < 1e-4, "{share}");
}
