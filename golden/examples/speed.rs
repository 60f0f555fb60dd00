//! Rates of one core for `benches/peers.py`, as JSON: million elements for each second of CPU time, the median of many runs.
//!
//! ```sh
//! RAYON_NUM_THREADS=1 cargo run --release -p fgmp-golden --example speed
//! ```

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use cpu_time::ProcessTime;
use golden::matmul::matmul;
use golden::packed::{PackedTensor, Profile, TensorScale};
use golden::profiles::{quantize, quantize_with_amax};
use golden::quantizer::{
    ActivationQuantizer, ChannelSensitivity, Policy, WeightOptions, WeightTensor, quantize_weights,
};
use golden::{Scheme, Share};

const SHAPE: [usize; 2] = [64, 4096];
const ELEMENTS: usize = SHAPE[0] * SHAPE[1];
/// Side of the matrices.
const SIDE: usize = 2048;

/// Million elements a second, by the median of many runs.
fn rate<T>(elements: usize, mut run: impl FnMut() -> T) -> f64 {
    const TOTAL: Duration = Duration::from_secs(2);
    let start = ProcessTime::now();
    let mut times = Vec::new();
    while start.elapsed() < TOTAL {
        let start = ProcessTime::now();
        black_box(run());
        times.push(start.elapsed());
    }
    let middle = times.len() / 2;
    let median = *times.select_nth_unstable(middle).1;
    elements as f64 / median.as_secs_f64() / 1e6
}

/// Numbers of a bell-like shape: sums of four uniform ones.
fn values(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| 100.0 * (uniform() + uniform() + uniform() + uniform()))
        .collect()
}

fn weights(shape: &[usize], data: &[f32], options: WeightOptions) -> Option<PackedTensor> {
    let tensor = WeightTensor {
        name: "w",
        shape,
        data,
        sensitivity: None,
    };
    quantize_weights(&[tensor], options).ok()?.tensors.pop()
}

fn main() -> Result<(), Box<dyn Error>> {
    let data = values(ELEMENTS);
    let amax = data.iter().fold(0f32, |amax, x| amax.max(x.abs()));
    let fgmp = WeightOptions::new(Scheme::Fgmp {
        fp8_share: Share::FGMP,
    });
    let clipped = WeightOptions {
        clip: true,
        ..WeightOptions::new(Scheme::Nvfp4)
    };
    let row = data.get(..SHAPE[1]).unwrap_or_default();
    let sensitivity = ChannelSensitivity::uniform(SHAPE[1]);
    let quantizer =
        ActivationQuantizer::new(TensorScale::ONE, sensitivity, Policy::Threshold(20 << 29))?;
    let mut out = vec![0.0; SHAPE[1]];
    let packed = quantize("w", &SHAPE, &data, Profile::Nvfp4)?.tensor;

    let square = values(SIDE * SIDE);
    let w = weights(&[SIDE, SIDE], &square, fgmp).ok_or("no weights")?;
    let a = weights(&[SIDE, SIDE], &square, WeightOptions::new(Scheme::Fp8)).ok_or("none")?;

    let rates = serde_json::json!({
        "elements": ELEMENTS,
        "side": SIDE,
        "nvfp4, largest magnitude given": rate(ELEMENTS, || quantize_with_amax("w", &SHAPE, &data, Profile::Nvfp4, amax)),
        "nvfp4": rate(ELEMENTS, || quantize("w", &SHAPE, &data, Profile::Nvfp4)),
        "torchao": rate(ELEMENTS, || quantize("w", &SHAPE, &data, Profile::Torchao)),
        "modelopt": rate(ELEMENTS, || quantize("w", &SHAPE, &data, Profile::Modelopt)),
        "compressed-tensors": rate(ELEMENTS, || quantize("w", &SHAPE, &data, Profile::CompressedTensors)),
        "ggml": rate(ELEMENTS, || quantize("w", &SHAPE, &data, Profile::Ggml)),
        "fgmp weights": rate(ELEMENTS, || weights(&SHAPE, &data, fgmp)),
        "nvfp4, scales searched": rate(ELEMENTS, || weights(&SHAPE, &data, clipped)),
        "fgmp activations, decoded": rate(row.len(), || quantizer.quantize_row(row, &mut out)),
        "fgmp activations, packed": rate(row.len(), || quantizer.pack(row)),
        "decode": rate(ELEMENTS, || packed.decode()),
        "product": rate(SIDE * SIDE * SIDE, || matmul(&w, &a)),
    });
    println!("{rates:#}");
    Ok(())
}
