//! Shards of any size are read in the memory of the rows asked for. A test of its own: it looks at the process's peak.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use checkpoints::Checkpoint;

/// Of each matrix; those of a 7-billion-parameter model's embedding.
const ROWS: usize = 32_000;
const WIDTH: usize = 4096;
const SHARDS: usize = 4;

/// Bytes that the process has had in memory at most.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Shards of BF16 zeros that take no room on disk, but for a last row of ones.
fn write_shards(folder: &Path) {
    let bytes = ROWS * WIDTH * 2;
    let mut map = serde_json::Map::new();
    for shard in 0..SHARDS {
        let name = format!("model-{shard}.safetensors");
        let header = format!(
            r#"{{"t{shard}":{{"dtype":"BF16","shape":[{ROWS},{WIDTH}],"data_offsets":[0,{bytes}]}}}}"#
        );
        let mut file = File::create(folder.join(&name)).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let end = 8 + header.len() + bytes;
        file.set_len(end as u64).unwrap();
        file.seek(SeekFrom::Start((end - 2 * WIDTH) as u64))
            .unwrap();
        file.write_all(&[0x80, 0x3f].repeat(WIDTH)).unwrap();
        map.insert(format!("t{shard}"), name.into());
    }
    let index = serde_json::json!({"weight_map": map});
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
}

#[test]
fn a_gigabyte_of_shards_needs_some_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path());
    let Some(before) = peak() else {
        eprintln!("skipped: the peak of memory is looked up in /proc, which is not there");
        return;
    };
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let stored: u64 = checkpoint.tensors().map(|info| info.bytes).sum();
    assert!(stored > 1_000_000_000);
    for info in checkpoint.tensors() {
        let mut row = 0;
        while row < ROWS {
            let end = ROWS.min(row + 512);
            let values = checkpoint.read_rows(&info.name, row..end).unwrap();
            let ones = values.iter().filter(|&&x| x == 1.0).count();
            assert_eq!(ones, if end == ROWS { WIDTH } else { 0 });
            row = end;
        }
    }
    // 512 rows are 8 MB of FP32; beside them a chunk of 1 MB.
    let grown = peak().unwrap() - before;
    assert!(grown < 32 << 20, "{grown} bytes");
}
