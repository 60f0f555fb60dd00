//! Profiles against vectors of the libraries' arithmetic, and, on demand, against the libraries.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::path::Path;
use std::process::Command;

use golden::Scheme;
use golden::format::{E2M1_DECISION_QUARTERS, Ue4m3};
use golden::packed::{PackedTensor, Profile, TensorScale};
use golden::profiles::{quantize, quantize_with_amax};
use golden::quantizer::{QuantizeError, WeightOptions, WeightTensor, quantize_weights};
use serde::Deserialize;

/// One block in a tensor of this largest magnitude, and what each implementation makes of it.
#[derive(Deserialize)]
struct Case {
    name: String,
    tensor_amax: f32,
    x: [f32; 16],
    out: std::collections::BTreeMap<String, Out>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Out {
    scale: u8,
    codes: [u8; 16],
}

impl Out {
    fn of(tensor: &PackedTensor) -> Self {
        Self {
            scale: tensor.scales()[0],
            codes: std::array::from_fn(|i| (tensor.payload()[0] >> (4 * i)) as u8 & 0xF),
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("data/nvfp4-vectors.json")).unwrap()
}

fn quantized(case: &Case, profile: Profile) -> Out {
    let made = quantize_with_amax(&case.name, &[16], &case.x, profile, case.tensor_amax);
    Out::of(&made.unwrap().tensor)
}

#[test]
fn every_library_is_reproduced_on_every_vector() {
    for case in cases() {
        for profile in Profile::ALL {
            let Some(expected) = case.out.get(profile.name()) else {
                let without = [Profile::Fgmp, Profile::Nvfp4, Profile::Ggml];
                assert!(
                    without.contains(&profile),
                    "{} misses {profile:?}",
                    case.name
                );
                continue;
            };
            // The vector has the tensor's scale in FP32. The library on a BF16 tensor rounds that to BF16, too, and gives 9.
            if profile == Profile::CompressedTensorsBf16 && case.name == "scale_tie_A1.203125" {
                assert_eq!((quantized(&case, profile).scale, expected.scale), (9, 8));
                continue;
            }
            assert_eq!(
                &quantized(&case, profile),
                expected,
                "{} by {profile:?}",
                case.name
            );
        }
    }
}

/// Without any intermediate rounding: integers below 2⁵³ in suitable units, which FP64 holds, compared by multiplying out.
fn exact(case: &Case) -> Out {
    let amax = f64::from(case.tensor_amax);
    let block_amax = case.x.iter().fold(0f64, |a, x| a.max(f64::from(x.abs())));
    // scale ≈ 448 b / A, x / (scale · A / 2688).
    let value = |code: u8| Ue4m3::from_bits(code).map_or(480.0, Ue4m3::to_f64);
    let scale = (0..0x7E)
        .find(|&code| {
            let twice_middle = (value(code) + value(code + 1)) * amax;
            let twice = 2.0 * 448.0 * block_amax;
            twice < twice_middle || twice == twice_middle && code % 2 == 0
        })
        .unwrap_or(0x7E);
    let codes = case.x.map(|x| {
        let magnitude = f64::from(x.abs()) * 2688.0 * 4.0;
        let code = E2M1_DECISION_QUARTERS
            .iter()
            .enumerate()
            .filter(|(below, quarters)| {
                let decision = f64::from(**quarters) * amax * value(scale);
                magnitude > decision || magnitude == decision && magnitude > 0.0 && below % 2 == 1
            });
        code.count() as u8 | u8::from(x < 0.0) << 3
    });
    Out { scale, codes }
}

/// `nvfp4` rounds S, and each quotient by S, to FP32 (numerics §2), so that it misses ties of the exact quotients where S isn't exact;
/// it keeps the sign of −0, and has no codes for a scale of 0.
#[test]
fn what_the_exact_quotients_give_and_where_nvfp4_differs() {
    let mut different = Vec::new();
    for case in cases() {
        let exact = exact(&case);
        assert_eq!(case.out["exact"], exact, "{}", case.name);
        if quantized(&case, Profile::Nvfp4) != exact {
            different.push(case.name);
        }
    }
    assert_eq!(
        different,
        [
            "neg_zero_and_small_negs",
            "ladder_amax6_scale448",
            "ladder_ties_neg",
            "scale_half_ulp_underflow"
        ]
    );
}

#[test]
fn ggml_rounds_scales_up_and_elements_down_at_ties() {
    let block = |first: &[f32]| {
        let x: Vec<f32> = first.iter().copied().chain([0.0; 16]).take(16).collect();
        let made = quantize("w", &[16], &x, Profile::Ggml).unwrap();
        assert_eq!(
            (made.stored_scale, made.tensor.scale()),
            (1.0, TensorScale::ONE)
        );
        Out::of(&made.tensor)
    };
    // Scale 1: all decision points, both signs; small negatives lose their sign.
    let ladder = block(&[
        6.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -0.75, -1.25, -1.75, -2.5, -3.5, -5.0,
        -0.0,
    ]);
    assert_eq!(ladder.scale, 0x38);
    assert_eq!(
        ladder.codes,
        [7, 0, 1, 2, 3, 4, 5, 6, 0, 9, 10, 11, 12, 13, 14, 0]
    );
    for (quotient, code) in [
        (1.0625, 0x39),      // half-way up from an even code
        (1.1875, 0x3A),      // half-way up from an odd code
        (0.5 / 512.0, 0x01), // half the smallest
        (0.49 / 512.0, 0x00),
        (7.5 / 512.0, 0x07), // would round to 2⁻⁶
        (8.0 / 512.0, 0x08),
        (239.0, 0x77),
        (240.0, 0x77),
        (247.0, 0x77),
        (248.0, 0x7E), // rounds to 256, which ggml holds for too large
        (300.0, 0x7E),
        (1e6, 0x7E),
    ] {
        assert_eq!(block(&[6.0 * quotient]).scale, code, "{quotient}");
    }
    // Where the differences of all values from an element are the same in FP32, the first wins.
    assert_eq!(block(&[1e30, -1e30]).codes[..2], [0, 0]);
}

#[test]
fn zero_tensors_have_scale_1_and_the_recipes_zero_block() {
    for profile in Profile::ALL {
        let made = quantize("w", &[2, 20], &[0.0; 40], profile).unwrap();
        assert_eq!(made.tensor.scale(), TensorScale::ONE);
        assert_eq!(
            made.tensor.scales(),
            [profile.zero_block(); 4],
            "{profile:?}"
        );
        assert_eq!(made.tensor.payload(), [0; 4]);
        assert!(made.tensor.decode().iter().all(|v| v.to_bits() == 0));
    }
}

#[test]
fn the_names_are_those_of_files() {
    for profile in Profile::ALL {
        let json = serde_json::to_value(profile).unwrap();
        assert_eq!(json, profile.name());
        assert_eq!(serde_json::from_value::<Profile>(json).unwrap(), profile);
    }
}

/// A tensor's decoded values lie within half an E2M1 step of the block's largest, whatever the profile.
#[test]
fn every_profile_decodes_to_what_it_quantized() {
    let mut state = 1u32;
    let data: Vec<f32> = (0..48 * 37)
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0).powi(3) * 0.1
        })
        .collect();
    for profile in Profile::ALL {
        let made = quantize("w", &[48, 37], &data, profile).unwrap();
        let tensor = &made.tensor;
        assert_eq!(
            (tensor.shape(), tensor.fp8_blocks()),
            ([48, 37].as_slice(), 0)
        );
        let bytes = [made.stored_scale, tensor.scale().get()];
        match profile {
            Profile::TransformerEngine | Profile::TransformerEngineDivided => {
                assert_eq!(bytes[1], bytes[0] / 2688.0)
            }
            Profile::CompressedTensors
            | Profile::CompressedTensorsBf16
            | Profile::Vllm
            | Profile::VllmTriton => {
                assert_eq!(bytes[1], 1.0 / bytes[0]);
            }
            _ => assert_eq!(bytes[0], bytes[1]),
        }
        for (row, values) in data.chunks(37).zip(tensor.decode().chunks(37)) {
            for (x, y) in row.chunks(16).zip(values.chunks(16)) {
                let amax = x.iter().fold(0f32, |a, x| a.max(x.abs()));
                for (x, y) in x.iter().zip(y) {
                    // 1/6 of the largest, and the block scale's own rounding; ggml's scales below 2⁻⁶ are coarse.
                    let bound = if profile == Profile::Ggml {
                        amax.max(0.04)
                    } else {
                        amax
                    } * 0.21;
                    assert!((x - y).abs() <= bound, "{profile:?}: {x} {y} of {amax}");
                }
            }
        }
        // Quantizing weights under the profile is the same.
        let tensor = WeightTensor {
            name: "w",
            shape: &[48, 37],
            data: &data,
            sensitivity: None,
        };
        let options = WeightOptions {
            profile,
            ..WeightOptions::new(Scheme::Nvfp4)
        };
        assert_eq!(
            quantize_weights(&[tensor], options).unwrap().tensors[0],
            made.tensor
        );
    }
}

#[test]
fn what_no_library_can_do_is_refused() {
    let tiny = [f32::from_bits(1); 16];
    for profile in [
        Profile::Modelopt,
        Profile::TransformerEngine,
        Profile::Torchao,
        Profile::Vllm,
    ] {
        let error = quantize("w", &[16], &tiny, profile).unwrap_err();
        assert!(
            matches!(error, QuantizeError::Scale { .. }),
            "{profile:?}: {error}"
        );
    }
    for profile in Profile::ALL {
        let nan = quantize("model.w", &[16], &[f32::NAN; 16], profile).unwrap_err();
        assert!(nan.to_string().contains("model.w: element 0"), "{nan}");
        assert!(quantize("w", &[3, 16], &[0.0; 16], profile).is_err());
        assert!(quantize("w", &[], &[1.0], profile).is_err());
    }
    let tensor = WeightTensor {
        name: "w",
        shape: &[1, 16],
        data: &[1.0; 16],
        sensitivity: None,
    };
    let searched = WeightOptions {
        profile: Profile::Torchao,
        clip: true,
        ..WeightOptions::new(Scheme::Nvfp4)
    };
    assert!(matches!(
        quantize_weights(&[tensor], searched),
        Err(QuantizeError::Clip { .. })
    ));
}

/// Installs the libraries from the package index (about 6 GB with PyTorch) and compares with them.
#[test]
fn the_libraries_themselves_agree() {
    if std::env::var_os("FGMP_FULL").is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles_real.py");
    let status = Command::new("python3").arg(script).status().unwrap();
    assert!(status.success(), "{status}");
}
