//! Speculative pipelined decoding gives what decoding token by token gives.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::path::{Path, PathBuf};

use golden::model::{
    Calibration, CalibrationWindows, ConfigHints, KvCache, LanguageModel, Model, QuantizedModel,
    Tally, forward,
};
use golden::quantizer::WeightOptions;
use golden::speed::{
    Choice, Dead, Decoder, HashDecoder, Limits, LimitsError, ModelDecoder, Pipeline, Row, Start,
    decode, draft, passes_from_exits, sequential,
};
use golden::tensors::read_tokens;
use golden::{Scheme, Share};
use proptest::prelude::*;

/// Asks a decoder for every class, and keeps them.
struct Exits<'a, D>(&'a mut D, Vec<u32>);

impl<D: Decoder> Decoder for Exits<'_, D> {
    type Error = D::Error;

    fn repetitions(&self) -> usize {
        self.0.repetitions()
    }

    fn pass(&mut self, rows: &[Row]) -> Result<Vec<Option<u32>>, D::Error> {
        let rows: Vec<Row> = rows
            .iter()
            .map(|row| Row {
                classify: true,
                ..*row
            })
            .collect();
        let classes = self.0.pass(&rows)?;
        self.1.extend(classes.iter().flatten());
        Ok(classes)
    }
}

/// A number below `bound` from a counter of numbers drawn.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ z >> 31) % bound
}

/// What a trial found: tokens decoded, and whether a flip, an end and a limit with tokens in flight were seen.
fn trial(state: &mut u64) -> (usize, bool, bool) {
    let repetitions = 1 + draw(state, 8) as usize;
    let most = [2, 4, 16, 1000][draw(state, 4) as usize];
    let vocabulary = 1 + draw(state, most) as u32;
    let restless = [0, 20, 80, 200, 255][draw(state, 5) as usize];
    let dead = [Dead::Stay, Dead::Cut][draw(state, 2) as usize];
    let seed = draw(state, u64::MAX);
    let end = (draw(state, 2) == 0).then_some(0);
    let count = [1, 1, 1, 2, 3, 5][draw(state, 6) as usize];
    let prompts: Vec<(Vec<u32>, usize)> = (0..count)
        .map(|_| {
            let prompt = (0..1 + draw(state, 4))
                .map(|_| draw(state, vocabulary.into()) as u32)
                .collect();
            (prompt, 1 + draw(state, 14) as usize)
        })
        .collect();
    let prepare = || -> (HashDecoder, Vec<Start>) {
        let mut decoder = HashDecoder::new(repetitions, vocabulary, restless, seed, dead);
        let starts = prompts
            .iter()
            .map(|(prompt, tokens)| decoder.add(prompt, *tokens))
            .collect();
        (decoder, starts)
    };
    let (mut plain, starts) = prepare();
    let mut exits = Exits(&mut plain, Vec::new());
    let expected = sequential(&mut exits, &starts, end, 1).unwrap();
    let exits = exits.1;
    let (mut pipelined, starts) = prepare();
    let slots = if count == 1 {
        repetitions
    } else {
        1 + draw(state, 8) as usize
    };
    let mut widest = 0;
    let found = decode(&mut pipelined, &starts, end, slots, |passage| {
        widest = widest.max(passage.rows.len());
    })
    .unwrap();
    let about = || {
        format!(
            "G {repetitions}, vocabulary {vocabulary}, restless {restless}, {dead:?}, seed {seed}, end {end:?}, slots {slots}, {prompts:?}"
        )
    };
    assert_eq!(found.tokens, expected.tokens, "{}", about());
    assert!(widest <= slots, "{}", about());
    let tokens: usize = found.tokens.iter().map(Vec::len).sum();
    let counters = &found.counters;
    assert_eq!(counters.committed as usize, tokens);
    assert_eq!(
        counters.rows + counters.bubbles,
        counters.passes * slots as u64
    );
    assert_eq!(expected.counters.passes, (tokens * repetitions) as u64);
    if count == 1 {
        assert_eq!(
            counters.passes,
            passes_from_exits(exits.chunks(repetitions)),
            "{}",
            about()
        );
    }
    // The oldest token of each sequence never waits.
    assert!(counters.passes <= expected.counters.passes, "{}", about());
    let ended = end.is_some_and(|end| found.tokens.iter().any(|t| t.last() == Some(&end)));
    (tokens, counters.flips.iter().any(|&f| f > 0), ended)
}

#[test]
fn random_decoders_give_what_sequential_decoding_gives() {
    let trials = if std::env::var_os("FGMP_FULL").is_some() {
        1_000_000
    } else {
        30_000
    };
    let mut state = 1;
    let (mut tokens, mut flipped, mut ended) = (0, 0, 0);
    for _ in 0..trials {
        let (decoded, flips, end) = trial(&mut state);
        tokens += decoded;
        flipped += usize::from(flips);
        ended += usize::from(end);
    }
    println!("{trials} trials, {tokens} tokens, {flipped} with flips, {ended} ended");
    assert!(flipped > trials / 4 && ended > trials / 10);
}

/// Drives a pipeline with classes by pass and stage; gives what was committed.
fn drive(limits: Limits, passes: &[&[u32]]) -> (Pipeline, Vec<(usize, u32)>, Vec<Option<usize>>) {
    let mut pipeline = Pipeline::new(limits, 0, 9).unwrap();
    let (mut committed, mut flips) = (Vec::new(), Vec::new());
    for classes in passes {
        let resolution = pipeline.resolve(classes);
        committed.extend(resolution.committed);
        flips.push(resolution.flip);
        pipeline.launch();
    }
    (pipeline, committed, flips)
}

const fn limits(repetitions: usize, positions: usize) -> Limits {
    Limits {
        repetitions,
        end: Some(0),
        positions,
    }
}

#[test]
fn without_flips_a_token_a_pass_leaves() {
    let (_, committed, flips) = drive(
        limits(3, 100),
        &[&[1, 8, 8], &[2, 1, 8], &[3, 2, 1], &[4, 3, 2], &[5, 4, 3]],
    );
    assert_eq!(committed, [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(flips, [None; 5]);
}

#[test]
fn a_flip_drops_what_is_younger_and_costs_its_stage_in_passes() {
    // The first token says 1, then 1, and 7 at last.
    let (pipeline, committed, flips) = drive(limits(3, 100), &[&[1, 8, 8], &[2, 1, 8], &[3, 2, 7]]);
    assert_eq!(committed, [(1, 7)]);
    assert_eq!(flips, [None, None, Some(2)]);
    let stages: Vec<_> = pipeline
        .stages()
        .map(|entry| entry.map(|e| (e.position, e.token)))
        .collect();
    assert_eq!(stages, [Some((1, 7)), None, None]);
}

#[test]
fn of_two_flips_the_older_counts() {
    let (pipeline, _, flips) = drive(
        limits(4, 100),
        &[&[1, 8, 8, 8], &[2, 1, 8, 8], &[3, 5, 6, 8]],
    );
    assert_eq!(flips[2], Some(2));
    assert_eq!(pipeline.in_flight(), 2);
    assert_eq!(pipeline.candidate(), None);
}

#[test]
fn oscillation_flushes_twice() {
    let (_, committed, flips) = drive(
        limits(3, 100),
        &[&[1, 8, 8], &[2, 5, 8], &[3, 8, 1], &[4, 3, 8]],
    );
    assert_eq!(flips, [None, Some(1), Some(2), None]);
    assert_eq!(committed, [(1, 1)]);
}

#[test]
fn an_end_that_is_revoked_does_not_end() {
    let (pipeline, committed, _) = drive(limits(2, 100), &[&[0, 8], &[4, 3], &[5, 8]]);
    assert_eq!(committed, [(1, 3)]);
    assert!(!pipeline.is_done());
    let (pipeline, committed, _) = drive(limits(2, 100), &[&[0, 8], &[4, 0], &[5, 8]]);
    assert_eq!(committed, [(1, 0)]);
    assert!(pipeline.is_done() && pipeline.in_flight() == 0);
}

#[test]
fn nothing_is_launched_beyond_the_last_position() {
    // Positions 0 to 3, so three tokens. As the algorithm is printed, position 0 would come back.
    let (pipeline, committed, _) = drive(
        limits(3, 4),
        &[
            &[1, 8, 8],
            &[2, 1, 8],
            &[3, 2, 1],
            &[8, 3, 2],
            &[8, 8, 6],
            &[8, 8, 8],
        ],
    );
    assert_eq!(committed, [(1, 1), (2, 2), (3, 6)]);
    assert!(pipeline.is_done());
}

#[test]
fn limits_are_checked() {
    let new = |repetitions, position, positions| {
        Pipeline::new(limits(repetitions, positions), position, 1).map(|_| ())
    };
    assert_eq!(new(0, 0, 9), Err(LimitsError::Repetitions(0)));
    assert_eq!(new(9, 0, 9), Err(LimitsError::Repetitions(9)));
    let nothing_left = LimitsError::Positions {
        last: 8,
        positions: 9,
    };
    assert_eq!(new(3, 8, 9), Err(nothing_left));
    assert!(new(3, usize::MAX, usize::MAX).is_err());
    assert_eq!(new(3, 7, 9), Ok(()));
}

#[test]
fn passes_of_known_exits() {
    // Flips at the second and at the third exit; the last token's don't count.
    let exits: [&[u32]; 4] = [&[1, 1, 1], &[1, 2, 2], &[1, 1, 3], &[1, 2, 3]];
    assert_eq!(passes_from_exits(exits), 3 + 1 + 2 + 3);
    assert_eq!(passes_from_exits([[4u32].as_slice()]), 1);
    assert_eq!(passes_from_exits(std::iter::empty()), 0);
}

fn models(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
}

fn shared(repetitions: usize) -> Model {
    let hints = ConfigHints {
        repetitions: Some(repetitions),
        ..ConfigHints::default()
    };
    Model::open(&models("shared-4x3.safetensors"), hints).unwrap()
}

fn prompts(count: usize, length: usize) -> Vec<Vec<u32>> {
    let tokens = read_tokens(&models("test.u16")).unwrap();
    tokens
        .chunks_exact(512)
        .take(count)
        .map(|window| window[..length].to_vec())
        .collect()
}

/// Decodes prompts token by token and speculatively, and compares.
fn compare(
    model: &dyn LanguageModel,
    choice: Choice,
    prompts: &[Vec<u32>],
    tokens: usize,
    slots: usize,
) -> u64 {
    let run = |speculative: bool, slots: usize| {
        let mut decoder = ModelDecoder::new(model, choice);
        let starts: Vec<Start> = prompts
            .iter()
            .map(|prompt| decoder.add(prompt, tokens).unwrap())
            .collect();
        if speculative {
            decode(&mut decoder, &starts, Some(0), slots, |_| ()).unwrap()
        } else {
            sequential(&mut decoder, &starts, Some(0), slots).unwrap()
        }
    };
    let expected = run(false, 1);
    let found = run(true, slots);
    assert_eq!(found.tokens, expected.tokens);
    // Rows don't know of each other.
    assert_eq!(run(false, prompts.len()).tokens, expected.tokens);
    found.counters.passes
}

#[test]
fn a_model_decodes_the_same_text() {
    let model = shared(3);
    let prompts = prompts(3, 20);
    compare(&model, Choice::Greedy, &prompts[..1], 40, 3);
    compare(&model, Choice::Greedy, &prompts, 12, 4);
    let sampled = Choice::Sampled {
        temperature: 0.8,
        seed: 5,
    };
    compare(&model, sampled, &prompts[..2], 20, 3);
    for repetitions in [1, 2, 5] {
        compare(
            &shared(repetitions),
            Choice::Greedy,
            &prompts[..1],
            10,
            repetitions,
        );
    }
}

/// 200 prompts of the test stream, 500 tokens each, in both arithmetics; without `FGMP_FULL` a few.
#[test]
fn many_prompts_decode_the_same_text() {
    let full = std::env::var_os("FGMP_FULL").is_some();
    let (count, tokens) = if full { (200, 500) } else { (4, 24) };
    let model = shared(3);
    let calibration = read_tokens(&models("calibration.u16")).unwrap();
    let windows = CalibrationWindows::new(512, 2);
    let alike = Calibration::run_alike(&model, &calibration, windows, None, &|_, _| ()).unwrap();
    let options = WeightOptions::new(Scheme::Fgmp {
        fp8_share: Share::FGMP,
    });
    let quantized = QuantizedModel::new(&model, options, None, &alike).unwrap();
    let engines: [(&str, &dyn LanguageModel); 2] = [("FP32", &model), ("FGMP", &quantized)];
    for (name, engine) in engines {
        let (mut decoded, mut passes) = (0, 0);
        for prompts in prompts(count, 12).chunks(20) {
            let mut plain = ModelDecoder::new(engine, Choice::Greedy);
            let starts: Vec<Start> = prompts
                .iter()
                .map(|prompt| plain.add(prompt, tokens).unwrap())
                .collect();
            let expected = sequential(&mut plain, &starts, None, starts.len()).unwrap();
            for (prompt, expected) in prompts.iter().zip(&expected.tokens) {
                let mut decoder = ModelDecoder::new(engine, Choice::Greedy);
                let start = decoder.add(prompt, tokens).unwrap();
                let found = decode(&mut decoder, &[start], None, 3, |_| ()).unwrap();
                assert_eq!(&found.tokens[0], expected, "{name}, {prompt:?}");
                decoded += expected.len() as u64;
                passes += found.counters.passes;
            }
        }
        assert_eq!(decoded, (count * tokens) as u64);
        println!("{name}: {decoded} tokens in {passes} passes, all those of sequential decoding");
        assert!(passes < 2 * decoded);
    }
}

#[test]
fn sequential_decoding_is_the_forward_pass() {
    let model = shared(3);
    let config = *model.config();
    let prompt = &prompts(1, 30)[0];
    let mut decoder = ModelDecoder::new(&model, Choice::Greedy);
    let start = decoder.add(prompt, 12).unwrap();
    let run = sequential(&mut decoder, &[start], None, 1).unwrap();
    let mut cache = KvCache::new();
    let mut next = prompt.clone();
    let mut tokens = Vec::new();
    for _ in 0..12 {
        let x = forward(
            &model,
            &next,
            &mut cache,
            &mut Tally::new(&config),
            |_, _| (),
        )
        .unwrap();
        let logits = model.trunk().logits(&x[x.len() - config.hidden..]);
        let token = Choice::Greedy.token(&logits, 0, 0);
        tokens.push(token);
        next = vec![token];
    }
    assert_eq!(run.tokens[0], tokens);
}

#[test]
fn quantized_rows_of_several_repetitions_share_a_product() {
    let model = shared(3);
    let tokens = read_tokens(&models("calibration.u16")).unwrap();
    let windows = CalibrationWindows::new(512, 1);
    let options = WeightOptions::new(Scheme::Fgmp {
        fp8_share: Share::FGMP,
    });
    let none = |_, _| ();
    let own = Calibration::run(&model, &tokens, windows, None, &none).unwrap();
    let alike = Calibration::run_alike(&model, &tokens, windows, None, &none).unwrap();
    let own = QuantizedModel::new(&model, options, None, &own).unwrap();
    let alike = QuantizedModel::new(&model, options, None, &alike).unwrap();
    let sites: Vec<_> = model.config().all_sites().collect();
    let repeated = |q: &QuantizedModel| {
        sites
            .iter()
            .filter(|site| {
                let first = golden::model::Site {
                    repetition: 0,
                    ..**site
                };
                let parameters = |site| {
                    let quantizer = q.quantizer(site).unwrap();
                    (quantizer.scale(), quantizer.policy())
                };
                parameters(**site) == parameters(first)
            })
            .count()
    };
    assert_eq!(repeated(&alike), sites.len());
    assert!(repeated(&own) < sites.len());
    let prompts = prompts(2, 16);
    compare(&own, Choice::Greedy, &prompts[..1], 12, 3);
    compare(&alike, Choice::Greedy, &prompts, 8, 3);
}

#[test]
fn drafts_of_another_model_give_the_same_text() {
    let model = shared(3);
    let base = Model::open(&models("base-4.safetensors"), ConfigHints::default()).unwrap();
    for (choice, ahead) in [
        (Choice::Greedy, 1),
        (Choice::Greedy, 3),
        (
            Choice::Sampled {
                temperature: 0.7,
                seed: 2,
            },
            4,
        ),
        (Choice::Greedy, 0),
    ] {
        for prompt in &prompts(2, 24) {
            let tokens = 21;
            let mut plain = ModelDecoder::new(&model, choice);
            let start = plain.add(prompt, tokens).unwrap();
            let expected = sequential(&mut plain, &[start], Some(0), 1).unwrap();
            let mut target = ModelDecoder::new(&model, choice);
            let mut drafting = ModelDecoder::new(&base, choice);
            let starts = [&mut target, &mut drafting].map(|d| d.add(prompt, tokens).unwrap());
            let run = draft(&mut target, &mut drafting, 0, starts, Some(0), ahead).unwrap();
            assert_eq!(run.tokens, expected.tokens[0], "{choice:?}, {ahead} ahead");
            assert_eq!(run.target.committed as usize, run.tokens.len());
            if ahead > 0 {
                assert!(run.accepted > 0 && run.accepted < run.proposed);
                assert!(run.target.passes < expected.counters.passes);
            }
        }
    }
}

#[test]
fn early_exits_save_passes_and_none_changes_nothing() {
    let model = shared(3);
    let prompt = &prompts(1, 24)[0];
    let run = |confidence, given: Option<&[u32]>| {
        let mut decoder = ModelDecoder::new(&model, Choice::Greedy);
        let start = decoder.add(prompt, 30).unwrap();
        decoder
            .early_exit(0, start, Some(0), confidence, given)
            .unwrap()
    };
    let mut plain = ModelDecoder::new(&model, Choice::Greedy);
    let start = plain.add(prompt, 30).unwrap();
    let expected = sequential(&mut plain, &[start], Some(0), 1).unwrap();
    let never = run(1.0, None);
    assert_eq!(never.tokens, expected.tokens[0]);
    assert_eq!(never.counters.passes, expected.counters.passes);
    let some = run(0.5, None);
    assert!(some.counters.passes < never.counters.passes);
    assert!(some.exits.iter().all(|&exits| exits > 0));
    let always = run(-1.0, None);
    assert_eq!(always.counters.passes as usize, always.tokens.len());
    // Following the text that it gave, the model that never exits early is sure of it.
    let sure = run(1.0, Some(&never.tokens)).negative_log_likelihood;
    let unsure = run(-1.0, Some(&never.tokens)).negative_log_likelihood;
    assert!(sure < unsure, "{sure} {unsure}");
    assert_eq!(run(1.0, Some(&never.tokens)).tokens, never.tokens);
}

#[test]
fn hostile_starts_are_refused() {
    let model = shared(3);
    let mut decoder = ModelDecoder::new(&model, Choice::Greedy);
    assert!(decoder.add(&[], 3).is_err());
    assert!(decoder.add(&[5; 512], 3).is_err());
    assert!(decoder.add(&[5, 70_000, 1], 3).is_err());
    let start = decoder.add(&[5, 6], usize::MAX).unwrap();
    assert_eq!(start.positions, 512);
    assert!(decode(&mut decoder, &[start], None, 0, |_| ()).is_err());
    let beyond = Row {
        sequence: 0,
        repetition: 2,
        position: 1,
        token: 6,
        classify: true,
    };
    assert!(decoder.pass(&[beyond]).is_err());
}

proptest! {
    /// As the trials, with a case that shrinks.
    #[test]
    fn any_class_stream_keeps_the_rules(
        repetitions in 1usize..=8,
        positions in 2usize..20,
        classes in proptest::collection::vec(proptest::collection::vec(0u32..3, 8), 1..120),
    ) {
        let mut pipeline = Pipeline::new(limits(repetitions, positions), 0, 1).unwrap();
        let mut next = 1;
        for classes in &classes {
            let resolution = pipeline.resolve(classes);
            if let Some((position, _)) = resolution.committed {
                prop_assert_eq!(position, next);
                next += 1;
            }
            pipeline.launch();
            let flying: Vec<usize> = pipeline.stages().flatten().map(|e| e.position).collect();
            prop_assert!(flying.len() <= repetitions);
            prop_assert!(flying.windows(2).all(|pair| pair[0] == pair[1] + 1));
            prop_assert!(pipeline.is_done() || !flying.is_empty());
            prop_assert!(flying.iter().all(|&p| p + 1 < positions));
        }
    }
}
