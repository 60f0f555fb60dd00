//! Speed of the quantizers, the decoder and the exact matrix product, and of plain code for the same, in one run.
//!
//! `RAYON_NUM_THREADS=1 cargo bench -p fgmp-golden`; `-- nvfp4` for one group. Times are the process's CPU time, not the clock's, so that other
//! programs disturb them little, and throughput is that of one core. It counts elements (Melem/s), in products multiply-adds: twice as many FLOP.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench has nobody to report an error to, and criterion writes its main"
)]

use std::hint::black_box;

use std::time::Duration;

use cpu_time::ProcessTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use golden::format::Ue4m3;
use golden::matmul::{matmul, matmul_integer};
use golden::packed::{PackedTensor, Profile, TensorScale};
use golden::profiles::quantize_with_amax;
use golden::quantizer::{
    ActivationQuantizer, ChannelSensitivity, Policy, UNIFORM, WeightOptions, WeightTensor,
    clipped_scale_by_trial, decide, quantize_weights,
};
use golden::{Scheme, Share};
use half::bf16;

/// CPU time of all threads.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = ProcessTime;
    type Value = Duration;

    fn start(&self) -> ProcessTime {
        ProcessTime::now()
    }

    fn end(&self, start: ProcessTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

type Group<'a> = BenchmarkGroup<'a, CpuTime>;

/// 1 MiB of FP32, which stays in the caches of a core.
const ELEMENTS: usize = 1 << 18;
const SHAPE: [usize; 2] = [ELEMENTS / 4096, 4096];

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

/// Plain code: an element at a time, as one would write it from the paper.
mod plain {
    /// Nearest E4M3 to a number that is not negative: code and value.
    pub fn e4m3(x: f32) -> (u8, f32) {
        if x == 0.0 {
            return (0, 0.0);
        }
        let exponent = x.log2().floor().clamp(-6.0, 8.0);
        let step = (exponent - 3.0).exp2();
        let value = ((x / step).round_ties_even() * step).min(448.0);
        let code = if value < 1.0 / 64.0 {
            (value * 512.0) as u8
        } else {
            let exponent = value.log2().floor();
            let mantissa = value / exponent.exp2() - 1.0;
            ((exponent + 7.0) as u8) << 3 | (mantissa * 8.0) as u8
        };
        (code, value)
    }

    /// Nearest E2M1 to a number: code and magnitude.
    pub fn e2m1(x: f32) -> (u8, f32) {
        let magnitude = x.abs();
        let (code, value) = if magnitude <= 0.25 {
            (0, 0.0)
        } else if magnitude < 0.75 {
            (1, 0.5)
        } else if magnitude <= 1.25 {
            (2, 1.0)
        } else if magnitude < 1.75 {
            (3, 1.5)
        } else if magnitude <= 2.5 {
            (4, 2.0)
        } else if magnitude < 3.5 {
            (5, 3.0)
        } else if magnitude <= 5.0 {
            (6, 4.0)
        } else {
            (7, 6.0)
        };
        (code | u8::from(x.is_sign_negative()) << 3, value)
    }

    /// NVFP4 of a tensor: scales and nibbles.
    pub fn nvfp4(data: &[f32]) -> (Vec<u8>, Vec<u8>) {
        let amax = data.iter().fold(0f32, |amax, x| amax.max(x.abs()));
        let tensor_scale = amax / 2688.0;
        let (mut scales, mut nibbles) = (Vec::new(), Vec::new());
        for block in data.chunks(16) {
            let z: Vec<f32> = block.iter().map(|x| x / tensor_scale).collect();
            let amax = z.iter().fold(0f32, |amax, z| amax.max(z.abs()));
            let (code, scale) = e4m3(amax / 6.0);
            scales.push(code);
            for pair in z.chunks(2) {
                let low = e2m1(pair[0] / scale).0;
                let high = e2m1(pair[1] / scale).0;
                nibbles.push(low | high << 4);
            }
        }
        (scales, nibbles)
    }

    /// A block in the format that its score chooses: whether it's FP8, its scale, its bytes.
    pub fn fgmp(z: &[f32], f: f64, threshold: f64) -> (bool, u8, Vec<u8>) {
        let amax = z.iter().fold(0f32, |amax, z| amax.max(z.abs()));
        let (code, scale) = e4m3(amax / 6.0);
        let mut score = 0.0;
        let (mut fp4, mut fp8) = (Vec::new(), Vec::new());
        for &z in z {
            let (code4, value4) = e2m1(z / scale);
            let (code8, value8) = e4m3(z.abs());
            let change = f64::from(value4 * scale - value8);
            score += f * change * change;
            fp4.push(code4);
            fp8.push(code8 | u8::from(z.is_sign_negative()) << 7);
        }
        if score > threshold {
            (true, 0, fp8)
        } else {
            let nibbles = fp4.chunks(2).map(|pair| pair[0] | pair[1] << 4);
            (false, code, nibbles.collect())
        }
    }

    /// NVFP4 back to FP32.
    pub fn decode(scales: &[u8], nibbles: &[u8], tensor_scale: f32) -> Vec<f32> {
        const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let mut out = Vec::new();
        for (&scale, bytes) in scales.iter().zip(nibbles.chunks(8)) {
            let (exponent, mantissa) = (i32::from(scale >> 3), f32::from(scale & 7) / 8.0);
            let scale = if exponent == 0 {
                mantissa * 2f32.powi(-6)
            } else {
                (1.0 + mantissa) * 2f32.powi(exponent - 7)
            };
            for &byte in bytes {
                for code in [byte & 15, byte >> 4] {
                    let value = VALUES[usize::from(code & 7)];
                    let signed = if code & 8 != 0 { -value } else { value };
                    out.push(signed * scale * tensor_scale);
                }
            }
        }
        out
    }
}

fn tensor(data: &[f32]) -> WeightTensor<'_> {
    WeightTensor {
        name: "bench",
        shape: &SHAPE,
        data,
        sensitivity: None,
    }
}

fn quantized(data: &[f32], scheme: Scheme) -> PackedTensor {
    let made = quantize_weights(&[tensor(data)], WeightOptions::new(scheme));
    made.unwrap().tensors.remove(0)
}

const FGMP: Scheme = Scheme::Fgmp {
    fp8_share: Share::FGMP,
};

fn group<'a>(c: &'a mut Criterion<CpuTime>, name: &str, elements: usize) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64));
    group
}

fn nvfp4(c: &mut Criterion<CpuTime>) {
    let data = values(ELEMENTS);
    let amax = data.iter().fold(0f32, |amax, x| amax.max(x.abs()));
    let mut group = group(c, "nvfp4", ELEMENTS);
    group.bench_function("largest magnitude given", |b| {
        b.iter(|| quantize_with_amax("w", &SHAPE, black_box(&data), Profile::Nvfp4, amax).unwrap())
    });
    group.bench_function("largest magnitude found first", |b| {
        b.iter(|| quantized(black_box(&data), Scheme::Nvfp4))
    });
    group.bench_function("plain code", |b| b.iter(|| plain::nvfp4(black_box(&data))));
    for profile in [Profile::Modelopt, Profile::Torchao, Profile::Ggml] {
        group.bench_function(format!("profile {}", profile.name()), |b| {
            b.iter(|| quantize_with_amax("w", &SHAPE, black_box(&data), profile, amax).unwrap())
        });
    }
}

fn weights(c: &mut Criterion<CpuTime>) {
    let data = values(ELEMENTS);
    let sensitivity: Vec<f32> = data.iter().map(|x| x * x).collect();
    let sensitive = WeightTensor {
        sensitivity: Some(&sensitivity),
        ..tensor(&data)
    };
    let options = WeightOptions::new(FGMP);
    let mut scored = group(c, "fgmp weights", ELEMENTS);
    scored.bench_function("scores, threshold and packing", |b| {
        b.iter(|| quantize_weights(black_box(&[sensitive]), options).unwrap())
    });
    scored.bench_function("plain code, threshold given", |b| {
        b.iter(|| {
            for z in data.chunks(16) {
                black_box(plain::fgmp(black_box(z), 1.0, 30.0));
            }
        })
    });
    scored.finish();

    let clipped = WeightOptions {
        clip: true,
        ..WeightOptions::new(Scheme::Nvfp4)
    };
    let mut searched = group(c, "scale searched", ELEMENTS);
    searched.sample_size(10);
    searched.bench_function("pruned, without sensitivity", |b| {
        b.iter(|| quantize_weights(black_box(&[tensor(&data)]), clipped).unwrap())
    });
    searched.bench_function("pruned, with sensitivity", |b| {
        b.iter(|| quantize_weights(black_box(&[sensitive]), clipped).unwrap())
    });
    let few = &data[..ELEMENTS / 64];
    searched.throughput(Throughput::Elements(few.len() as u64));
    searched.bench_function("by the definition", |b| {
        b.iter(|| {
            for z in few.as_chunks().0 {
                black_box(clipped_scale_by_trial(black_box(z), &UNIFORM));
            }
        })
    });
}

fn activations(c: &mut Criterion<CpuTime>) {
    let row = values(4096);
    let mut group = group(c, "fgmp activations", row.len());
    let sensitivity = ChannelSensitivity::uniform(row.len());
    // About 3 blocks in 10 are FP8.
    let policy = Policy::Threshold(20 << 29);
    let quantizer = ActivationQuantizer::new(TensorScale::ONE, sensitivity, policy).unwrap();
    let mut out = vec![0f64; row.len()];
    group.bench_function("to decoded values", |b| {
        b.iter(|| quantizer.quantize_row(black_box(&row), &mut out))
    });
    group.bench_function("to packed streams", |b| {
        b.iter(|| quantizer.pack(black_box(&row)).unwrap())
    });
    let z: Vec<bf16> = row.iter().map(|&x| bf16::from_f32(x)).collect();
    group.bench_function("by the definition", |b| {
        b.iter(|| {
            for z in z.as_chunks().0 {
                black_box(decide(black_box(z), &[Ue4m3::ONE; 16], 20 << 29));
            }
        })
    });
    group.bench_function("plain code", |b| {
        b.iter(|| {
            for z in row.chunks(16) {
                black_box(plain::fgmp(black_box(z), 1.0, 20.0));
            }
        })
    });
}

fn decoding(c: &mut Criterion<CpuTime>) {
    let data = values(ELEMENTS);
    let mut group = group(c, "decoding", ELEMENTS);
    for scheme in [Scheme::Nvfp4, Scheme::Fp8, FGMP] {
        let packed = quantized(&data, scheme);
        group.bench_function(format!("{} to FP32", scheme.name()), |b| {
            b.iter(|| black_box(&packed).decode())
        });
        group.bench_function(format!("{} to FP64", scheme.name()), |b| {
            b.iter(|| black_box(&packed).unscaled_values_f64())
        });
    }
    let (scales, nibbles) = plain::nvfp4(&data);
    group.bench_function("plain code, nvfp4 to FP32", |b| {
        b.iter(|| plain::decode(black_box(&scales), black_box(&nibbles), 0.5))
    });
}

fn products(c: &mut Criterion<CpuTime>) {
    let pack = |scheme, n: usize| {
        let data = values(n * n);
        let tensor = WeightTensor {
            shape: &[n, n],
            ..tensor(&data)
        };
        let made = quantize_weights(&[tensor], WeightOptions::new(scheme));
        made.unwrap().tensors.remove(0)
    };
    // The larger a product, the less its decoding and its fresh memory weigh.
    for n in [1024, 2048] {
        let (w, a) = (pack(FGMP, n), pack(Scheme::Fp8, n));
        let mut large = group(c, &format!("product {n}x{n}x{n}"), n * n * n);
        large.sample_size(10);
        large.bench_function("exact, decoding included", |b| {
            b.iter(|| matmul(black_box(&w), black_box(&a)).unwrap())
        });
        let (wide_w, wide_a) = (w.unscaled_values_f64(), a.unscaled_values_f64());
        large.bench_function("the crate's FP64 product", |b| {
            b.iter(|| dgemm(n, black_box(&wide_a), black_box(&wide_w)))
        });
        large.finish();
    }

    let (w, a) = (pack(FGMP, 256), pack(Scheme::Fp8, 256));
    let (m, n, k) = (64, 256, 256);
    let rows = |tensor: &PackedTensor, rows: usize| {
        let blocks = tensor.blocks().take(rows * k / 16);
        PackedTensor::from_blocks(&[rows, k], tensor.scale(), blocks).unwrap()
    };
    let (w, a) = (rows(&w, n), rows(&a, m));
    let mut small = group(c, "product 64x256x256", m * n * k);
    small.sample_size(10);
    small.bench_function("exact, decoding included", |b| {
        b.iter(|| matmul(black_box(&w), black_box(&a)).unwrap())
    });
    small.bench_function("integers", |b| {
        b.iter(|| matmul_integer(black_box(&w), black_box(&a)))
    });
}

/// a · bᵀ of square matrices by the crate that the exact product uses.
#[allow(unsafe_code, reason = "the crate's interface is of pointers")]
fn dgemm(n: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    assert!(a.len() == n * n && b.len() == n * n);
    let mut c = vec![0f64; n * n];
    let (row, column, stride) = (n as isize, 1, n as isize);
    // SAFETY: all three are square matrices of n × n elements, and c is no one else's.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            column,
            row,
            false,
            a.as_ptr(),
            column,
            row,
            b.as_ptr(),
            stride,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    c
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = nvfp4, weights, activations, decoding, products
}
criterion_main!(kernels);
