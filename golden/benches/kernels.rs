//! Speed of the quantizers and of the exact matrix product.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench has nobody to report an error to, and criterion writes its main"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use golden::Scheme;
use golden::format::Ue4m3;
use golden::matmul::{matmul, matmul_integer};
use golden::packed::{PackedTensor, TensorScale};
use golden::quantizer::{
    ActivationQuantizer, ChannelSensitivity, Policy, WeightOptions, WeightTensor, decide,
    quantize_weights,
};
use half::bf16;

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

fn packed(rows: usize, k: usize, scheme: Scheme) -> PackedTensor {
    let data = values(rows * k);
    let tensor = WeightTensor {
        name: "bench",
        shape: &[rows, k],
        data: &data,
        sensitivity: None,
    };
    quantize_weights(&[tensor], WeightOptions::new(scheme))
        .unwrap()
        .tensors
        .remove(0)
}

fn quantizers(c: &mut Criterion) {
    let mut group = c.benchmark_group("quantizer");
    let row = values(4096);
    group.throughput(Throughput::Elements(row.len() as u64));

    let z: Vec<bf16> = row.iter().map(|&x| bf16::from_f32(x)).collect();
    group.bench_function("online, by the definition", |b| {
        b.iter(|| {
            for z in z.as_chunks::<16>().0 {
                black_box(decide(black_box(z), &[Ue4m3::ONE; 16], 1 << 30));
            }
        });
    });
    let sensitivity = ChannelSensitivity::uniform(row.len());
    let quantizer =
        ActivationQuantizer::new(TensorScale::ONE, sensitivity, Policy::Threshold(1 << 30))
            .unwrap();
    let mut out = vec![0f64; row.len()];
    group.bench_function("online, by the row", |b| {
        b.iter(|| quantizer.quantize_row(black_box(&row), &mut out))
    });

    for clip in [false, true] {
        let options = WeightOptions {
            clip,
            ..WeightOptions::new(Scheme::Nvfp4)
        };
        let tensor = WeightTensor {
            name: "bench",
            shape: &[4096],
            data: &row,
            sensitivity: None,
        };
        let name = if clip {
            "offline, scale searched"
        } else {
            "offline, scale of amax"
        };
        group.bench_function(name, |b| {
            b.iter(|| quantize_weights(black_box(&[tensor]), options).unwrap())
        });
    }
    group.finish();
}

fn products(c: &mut Criterion) {
    let (m, n, k) = (64, 256, 256);
    let mut group = c.benchmark_group("product 64x256x256");
    group.throughput(Throughput::Elements((m * n * k) as u64));
    group.sample_size(20);
    let (w, a) = (packed(n, k, Scheme::Nvfp4), packed(m, k, Scheme::Fp8));
    group.bench_function("FP64", |b| {
        b.iter(|| matmul(black_box(&w), black_box(&a)).unwrap())
    });
    group.bench_function("integers", |b| {
        b.iter(|| matmul_integer(black_box(&w), black_box(&a)))
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = quantizers, products
}
criterion_main!(kernels);
