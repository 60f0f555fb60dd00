//! How fast the rows of a checkpoint are read and decoded.
//!
//! `cargo run --release -p fgmp-checkpoints --example throughput -- MODEL [rows at a time]`

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use checkpoints::Checkpoint;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rest @ ..] = arguments.as_slice() else {
        return Err("expected MODEL [rows at a time]".into());
    };
    let step = match rest.first() {
        Some(text) => text.parse::<usize>()?.max(1),
        None => 256,
    };
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let start = Instant::now();
    let (mut stored, mut elements, mut sum) = (0, 0, 0f64);
    for info in checkpoint.tensors().filter(|info| info.stored.is_float()) {
        let mut row = 0;
        while row < info.rows() {
            let end = info.rows().min(row + step);
            let values = checkpoint.read_rows(&info.name, row..end)?;
            elements += values.len();
            // Something of it has to be used.
            sum += values.first().copied().map_or(0.0, f64::from);
            row = end;
        }
        stored += info.bytes;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{elements} elements of {stored} bytes in {seconds:.2} s: {:.0} MB/s stored, {:.0} MB/s decoded, {step} rows at a time ({sum:e})",
        stored as f64 / seconds / 1e6,
        4.0 * elements as f64 / seconds / 1e6
    );
    // On Linux, what the process has had in memory at most.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(line) = status.lines().find(|line| line.starts_with("VmHWM"))
    {
        println!("{line}");
    }
    Ok(())
}
