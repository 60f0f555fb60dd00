//! Perplexity of a model under every scheme, with the times.
//!
//! `cargo run --release -p fgmp-golden --example perplexity -- models/shared-4x3.safetensors models/valid.u16 models/calibration.u16 [windows] [repetitions] [clip]`
//!
//! `windows` 0 means all of them.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use golden::eval::{Options, perplexity};
use golden::model::{
    Calibration, CalibrationWindows, ConfigHints, LanguageModel, Model, QuantizedModel,
};
use golden::quantizer::WeightOptions;
use golden::tensors::read_tokens;
use golden::{Scheme, Share};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokens, calibration, rest @ ..] = arguments.as_slice() else {
        return Err("expected MODEL TOKENS CALIBRATION [windows] [repetitions] [clip]".into());
    };
    let number = |index: usize| {
        rest.get(index)
            .map(|text| text.parse::<usize>())
            .transpose()
    };
    let windows = number(0)?.filter(|&windows| windows > 0);
    let hints = ConfigHints {
        repetitions: number(1)?,
        ..ConfigHints::default()
    };
    let clip = rest.get(2).is_some_and(|word| word == "clip");

    let model = Model::open(Path::new(model), hints)?;
    let tokens = read_tokens(Path::new(tokens))?;
    let options = Options {
        windows,
        ..Options::new(model.config())
    };
    let report = |scheme: Scheme,
                  engine: &dyn LanguageModel,
                  weight_share: f64|
     -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let evaluation = perplexity(engine, &tokens, options, &|_, _| ())?;
        println!(
            "{:6} perplexity {:.4}  tokens {}  FP8 weights {:.4}  FP8 activations {:.4}  {:.1} s",
            scheme.name(),
            evaluation.perplexity,
            evaluation.tokens,
            weight_share,
            evaluation.activation_fp8_share,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    };
    report(Scheme::Bf16, &model, 0.0)?;

    let start = Instant::now();
    let calibration = Calibration::run(
        &model,
        &read_tokens(Path::new(calibration))?,
        CalibrationWindows::new(model.config().context, 8),
        None,
        &|_, _| (),
    )?;
    println!(
        "calibrated on 8 windows in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    for scheme in [
        Scheme::Fp8,
        Scheme::Nvfp4,
        Scheme::Fgmp {
            fp8_share: Share::FGMP,
        },
    ] {
        let options = WeightOptions {
            clip,
            ..WeightOptions::new(scheme)
        };
        let start = Instant::now();
        let quantized = QuantizedModel::new(&model, options, None, &calibration)?;
        println!(
            "{:6} weights quantized in {:.1} s",
            scheme.name(),
            start.elapsed().as_secs_f64()
        );
        report(scheme, &quantized, quantized.weight_fp8_share())?;
    }
    Ok(())
}
