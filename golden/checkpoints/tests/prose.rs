//! Tree search on text: with a stand-in for the sentence encoder, and with MiniLM where it is installed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use checkpoints::{Encoder, Prose, Remembering, Tokenizer};
use golden::ets::live::{
    Aggregate, Cast, Election, Embedding, Ending, Found, Method, Reward, Settings, Task, search,
};
use golden::ets::{Rule, State, Temperature, cluster};
use golden::model::{ConfigHints, Model};
use support::full;

/// The token that begins a document.
const BEGIN: u32 = 0;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&models().join("tokenizer.json")).unwrap()
}

/// A leaf's text and its cluster.
type Leaf = (String, Option<u32>);

struct Writers {
    policy: Model,
    judge: Model,
    tokenizer: Tokenizer,
}

impl Writers {
    fn open() -> Self {
        let model = |name: &str| Model::open(&models().join(name), ConfigHints::default()).unwrap();
        Self {
            policy: model("base-4.safetensors"),
            judge: model("shared-4x3.safetensors"),
            tokenizer: tokenizer(),
        }
    }

    /// A search; of its steps, the clusters of the leaves with their texts.
    fn search(&self, settings: &Settings, embedding: Embedding<'_>) -> (Found, Vec<Vec<Leaf>>) {
        let task = Prose::new(&self.tokenizer, settings.depth).unwrap();
        let reward = Reward::Likelihood(&self.judge);
        let cast = Cast {
            policy: &self.policy,
            reward: &reward,
            embedding,
            task: &task,
        };
        let prompt = self.tokenizer.encode("<|bos|>Return a list of").unwrap();
        assert_eq!(prompt[0], BEGIN);
        let mut clusters = Vec::new();
        let (found, _) = search(cast, settings, &prompt, |event| {
            let of = |&leaf: &usize| (leaf, event.tree.cluster(leaf).unwrap());
            clusters.push(event.tree.frontier().iter().map(of).collect::<Vec<_>>());
        })
        .unwrap();
        let clusters = clusters.into_iter().map(|leaves| {
            let text = |leaf: usize| found.texts[leaf].clone();
            leaves
                .into_iter()
                .map(|(leaf, it)| (text(leaf), it))
                .collect()
        });
        let clusters = clusters.collect();
        (found, clusters)
    }
}

fn settings(method: Method, width: u32) -> Settings {
    Settings {
        step_tokens: 12,
        depth: 3,
        seed: 7,
        ..Settings::new(method, width)
    }
}

/// Of a text the direction of its first letter.
fn by_first_letter(texts: &[String]) -> Vec<Vec<f32>> {
    let direction = |text: &String| {
        let first = text.chars().find(|it| it.is_alphanumeric()).unwrap_or(' ');
        (0..64)
            .map(|place| f32::from(u8::from(first as u32 % 64 == place)))
            .collect()
    };
    texts.iter().map(direction).collect()
}

#[test]
fn tokens_of_the_embedded_vocabulary_end_steps() {
    let tokenizer = tokenizer();
    let task = Prose::new(&tokenizer, 4).unwrap();
    let word = tokenizer.encode("word").unwrap()[0];
    let ends: BTreeSet<String> = (0..tokenizer.vocabulary() as u32)
        .filter(|&token| task.ends_step(&[word, token]))
        .map(|token| tokenizer.decode(&[token]).unwrap())
        .collect();
    let expected = [
        "\n", " .", "!", "().", ").", ".", ".\"", ".'", ".)", "..", "...", ".]", "<|bos|>", "?",
    ];
    assert_eq!(ends, expected.map(str::to_owned).into());
    assert!(!task.ends_step(&[word, u32::MAX]) && !task.ends_step(&[]));
    // A line without anything is no step.
    let blank = tokenizer.encode("\n \n").unwrap();
    assert!(!task.ends_step(&blank) && !task.ends_step(&blank[..1]));
    assert!(task.ends_step(&tokenizer.encode("\nword\n").unwrap()));
    // The special token ends a text, and isn't part of it.
    let tokens = tokenizer.encode(" A list of names.<|bos|>").unwrap();
    assert_eq!(tokens.last(), Some(&BEGIN));
    assert_eq!(task.text(&tokens), " A list of names.");
    assert_eq!(task.ending(&tokens), Ending::Answers);
    assert_eq!(task.ending(&tokens[..tokens.len() - 1]), Ending::Continues);
    assert_eq!(
        (task.text(&[BEGIN]), task.text(&[])),
        (String::new(), String::new())
    );
}

#[test]
fn a_search_completes_texts_and_encodes_each_step_once() {
    let writers = Writers::open();
    let seen = RefCell::new(Vec::new());
    let memory = Remembering::new(|texts: &[String]| {
        seen.borrow_mut().extend_from_slice(texts);
        Ok(by_first_letter(texts))
    });
    let settings = settings(Method::Ets(Rule::published(16)), 16);
    let embed = |texts: &[String]| memory.vectors(texts);
    let (found, steps) = writers.search(&settings, Embedding::Text(&embed));

    // Every trajectory completes, after three steps or with its document, and answers with its text.
    assert_eq!(found.trajectories.len(), 16);
    assert!(found.tree.leaves(State::OverLong).is_empty());
    for trajectory in &found.trajectories {
        assert_eq!(trajectory.answer, Some(trajectory.steps.concat()));
        let steps = trajectory.steps.len();
        assert!((1..=3).contains(&steps));
        assert_eq!(found.tree.depth(trajectory.node).unwrap() as usize, steps);
        assert!(
            trajectory
                .scores
                .iter()
                .all(|score| (0.0..=1.0).contains(score))
        );
        for step in &trajectory.steps[..steps - 1] {
            let tokens = writers.tokenizer.encode(step).unwrap();
            let ends = step.contains('\n') || step.trim_end().ends_with(['.', '?', '!']);
            assert!(ends || tokens.len() >= 8, "{step:?} ends early");
        }
    }
    // The elected one's worst step is the best.
    let least = |it: &[f32]| Aggregate::Least.of(it);
    let elected = found.elect(Election::Best, Aggregate::Least).unwrap();
    let best = found.trajectories.iter().map(|it| least(&it.scores));
    assert!(best.fold(0f32, f32::max) - least(&elected.scores) < 1e-4);

    // Steps are clusters by their first letters, and each text was encoded once.
    let mut asked = BTreeSet::new();
    for leaves in &steps[1..] {
        for (text, label) in leaves {
            asked.insert(text.trim().to_owned());
            for (other, other_label) in leaves {
                let [a, b] = [text, other].map(|it| by_first_letter(std::slice::from_ref(it)));
                assert_eq!(a == b, label == other_label, "{text:?} {other:?}");
            }
        }
    }
    let mut seen = seen.take();
    let times = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((times, memory.encoded()), (seen.len(), seen.len()));
    assert!(seen.iter().all(|text| asked.contains(text)));
}

#[test]
fn a_search_repeats_and_all_methods_complete() {
    let writers = Writers::open();
    let temperature = Temperature::new(0.2).unwrap();
    let of = |method: Method| writers.search(&settings(method, 6), Embedding::Reward).0;
    for method in [
        Method::Ets(Rule::published(6)),
        Method::Rebase(temperature),
        Method::Beam(None),
        Method::Dvts(None),
        Method::Samples,
    ] {
        let found = of(method);
        assert!((1..=6).contains(&found.trajectories.len()), "{method:?}");
        assert_eq!(found.trajectories, of(method).trajectories, "{method:?}");
    }
}

#[test]
fn what_the_encoder_has_against_a_text_ends_the_search() {
    let writers = Writers::open();
    let calls = Cell::new(0);
    let failing = |_: &[String]| {
        calls.set(calls.get() + 1);
        Err("no vectors today".to_owned())
    };
    let task = Prose::new(&writers.tokenizer, 3).unwrap();
    let cast = Cast {
        policy: &writers.policy,
        reward: &Reward::Likelihood(&writers.judge),
        embedding: Embedding::Text(&failing),
        task: &task,
    };
    let settings = settings(Method::Ets(Rule::published(4)), 4);
    let error = search(cast, &settings, &[BEGIN, 300], |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "embeddings: no vectors today");
    assert_eq!(calls.get(), 1);
}

/// The encoder, which is too large to come with the project.
fn minilm() -> Option<Encoder> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/models/all-MiniLM-L6-v2");
    let folder = std::env::var_os("FGMP_MINILM").map_or(own, PathBuf::from);
    if folder.is_dir() {
        return Some(Encoder::open(&folder).unwrap());
    }
    assert!(
        !full(),
        "all-MiniLM-L6-v2 is missing; ./setup --models installs it, or FGMP_MINILM names its folder"
    );
    // Past the harness, which hides what tests print that pass.
    std::io::stderr()
        .write_all(b"SKIPPED: all-MiniLM-L6-v2 is not installed (./setup --models)\n")
        .unwrap();
    None
}

#[test]
fn minilm_finds_the_clusters_of_a_search() {
    let Some(encoder) = minilm() else { return };
    let writers = Writers::open();
    let memory = Remembering::new(|texts: &[String]| {
        encoder.embed(texts).map_err(|error| error.to_string())
    });
    let embed = |texts: &[String]| memory.vectors(texts);
    let settings = Settings {
        cut: 0.1,
        // At 1 the small model hardly ever says a thing twice.
        temperature: Some(0.6),
        ..settings(Method::Ets(Rule::published(32)), 32)
    };
    let (found, steps) = writers.search(&settings, Embedding::Text(&embed));
    assert_eq!(found.trajectories.len(), 32);
    let mut fewer = false;
    for leaves in &steps[1..] {
        // As by encoding each text by itself, all of them anew.
        let (texts, labels): (Vec<String>, Vec<Option<u32>>) = leaves.iter().cloned().unzip();
        let alone: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| encoder.embed(&[text.trim()]).unwrap().remove(0))
            .collect();
        let expected = cluster(&alone, 0.1).unwrap();
        assert_eq!(
            labels,
            expected.iter().copied().map(Some).collect::<Vec<_>>()
        );
        let clusters = expected.iter().collect::<BTreeSet<_>>().len();
        let different: BTreeSet<&str> = texts.iter().map(|text| text.trim()).collect();
        fewer |= clusters < different.len();
    }
    // Some steps say the same in other words.
    assert!(fewer);
}
