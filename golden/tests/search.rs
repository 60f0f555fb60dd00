//! Searches with models.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use golden::ets::countdown::{self, Countdown, Problem, prices};
use golden::ets::live::{
    Aggregate, Cast, Cost, Election, Embedding, Found, Method, Reward, ScoreHead, SearchError,
    Searches, Settings, Sharing, search,
};
use golden::ets::{Lambda, Layout, NodePrice, Prices, Rule, State, Temperature};
use golden::model::{
    Calibration, CalibrationWindows, ConfigHints, LanguageModel, Model, PassCounters,
    QuantizedModel,
};
use golden::quantizer::WeightOptions;
use golden::{Scheme, Share};

fn model(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../models/{name}.safetensors"));
    Model::open(&path, ConfigHints::default()).unwrap()
}

const PROBLEM: &str = "2 12 13 16 16:188";

struct Models {
    policy: Box<dyn LanguageModel>,
    reward: Box<dyn LanguageModel>,
    head: ScoreHead,
}

impl Models {
    fn open() -> Self {
        let reward = model("countdown-prm");
        Self {
            policy: Box::new(model("countdown-policy")),
            head: ScoreHead::of(&reward).unwrap(),
            reward: Box::new(reward),
        }
    }

    /// In the arithmetic of the hardware, calibrated on problems.
    fn quantized() -> Self {
        let stream: Vec<u32> = golden::ets::countdown::problems(24, 3, &[])
            .iter()
            .flat_map(Problem::tokens)
            .collect();
        let quantize = |model: &Model| -> Box<dyn LanguageModel> {
            let windows = CalibrationWindows::new(48, stream.len() / 48);
            let calibration = Calibration::run(model, &stream, windows, None, &|_, _| ()).unwrap();
            let scheme = Scheme::Fgmp {
                fp8_share: Share::FGMP,
            };
            let options = WeightOptions::new(scheme);
            Box::new(QuantizedModel::new(model, options, None, &calibration).unwrap())
        };
        let reward = model("countdown-prm");
        Self {
            policy: quantize(&model("countdown-policy")),
            head: ScoreHead::of(&reward).unwrap(),
            reward: quantize(&reward),
        }
    }

    fn reward(&self) -> Reward<'_> {
        Reward::Scored(&*self.reward, self.head.clone())
    }

    fn cast<'a>(&'a self, reward: &'a Reward<'a>, task: &'a Countdown) -> Cast<'a> {
        Cast {
            policy: &*self.policy,
            reward,
            embedding: Embedding::Reward,
            task,
        }
    }

    fn search(&self, problem: &str, settings: &Settings) -> Found {
        self.search_with(problem, settings, &self.reward())
    }

    fn search_with(&self, problem: &str, settings: &Settings, reward: &Reward<'_>) -> Found {
        let problem: Problem = problem.parse().unwrap();
        let task = Countdown::of(&problem);
        search(
            self.cast(reward, &task),
            settings,
            &problem.tokens(),
            |_| (),
        )
        .unwrap()
        .0
    }
}

fn ets(width: u32) -> Method {
    Method::Ets(Rule {
        prices: prices(width).unwrap(),
        ..Rule::published(width)
    })
}

fn methods(width: u32) -> [Method; 6] {
    [
        ets(width),
        Method::Ets(Rule::published(width)),
        Method::Rebase(Temperature::PUBLISHED),
        Method::Beam(None),
        Method::Dvts(None),
        Method::Samples,
    ]
}

fn settings(method: Method, width: u32) -> Settings {
    Settings {
        step_tokens: 32,
        cut: countdown::CUT,
        ..Settings::new(method, width)
    }
}

/// A node: parent, state, score's bits, text.
type Essence = (Option<usize>, State, u32, String);

/// A tree with its texts, and what came of it: all that doesn't depend on how it was computed.
fn essence(found: &Found) -> (Vec<Essence>, Vec<String>, Cost) {
    let nodes = (0..found.tree.len())
        .map(|node| {
            (
                found.tree.parent(node).unwrap(),
                found.tree.state(node).unwrap(),
                found.tree.score(node).unwrap().to_bits(),
                found.texts[node].clone(),
            )
        })
        .collect();
    let answers = found
        .trajectories
        .iter()
        .map(|it| format!("{:?} {:?}", it.answer, it.scores))
        .collect();
    let cost = Cost {
        page_passes: 0,
        pages_peak: 0,
        passes: PassCounters::default(),
        recomputed: 0,
        preempted: 0,
        selection_ns: 0,
        longest_selection_ns: 0,
        ..found.cost.clone()
    };
    (nodes, answers, cost)
}

#[test]
fn a_search_finds_a_right_answer() {
    let models = Models::open();
    let text = "6 7 7 8 10:65";
    let problem: Problem = text.parse().unwrap();
    let found = models.search(text, &settings(ets(16), 16));
    let elected = found.elect(Election::Weighted, Aggregate::Product).unwrap();
    assert!(problem.is_solved_by(elected.steps.iter().map(String::as_str)));
    // Every answer is an expression, and makes the target if it is right.
    for trajectory in found.trajectories.iter().filter(|it| it.answer.is_some()) {
        assert_eq!(trajectory.steps.len(), 4);
        assert_eq!(trajectory.scores.len(), 4);
    }
    assert_eq!(found.cost.starved + found.cost.recomputed, 0);
    assert!(found.cost.held_tokens <= found.cost.kv_tokens);
    assert!(found.cost.passes.tokens_read < found.cost.passes.tokens_read_alone);
}

/// What siblings share, where branches begin in pages, and too little memory change no bit of a search.
#[test]
fn memory_changes_no_bit() {
    let models = Models::open();
    for method in methods(8) {
        let plenty = settings(method, 8);
        let expected = essence(&models.search(PROBLEM, &plenty));
        let mut peaks = Vec::new();
        for (sharing, layout) in [
            (Sharing::Tokens, Layout::CopyOnWrite),
            (Sharing::Tokens, Layout::NodeAligned),
            (Sharing::Steps, Layout::CopyOnWrite),
            (Sharing::Steps, Layout::NodeAligned),
        ] {
            let other = Settings {
                sharing,
                layout,
                ..plenty
            };
            let found = models.search(PROBLEM, &other);
            assert_eq!(found.cost.recomputed, 0);
            peaks.push(found.cost.pages_peak as usize);
            assert!(
                essence(&found) == expected,
                "{method:?} {sharing:?} {layout:?}"
            );
            // From scarce to hardly enough for one branch.
            for pages in [found.cost.pages_peak as usize * 2 / 3, 10] {
                let short = Settings { pages, ..other };
                let found = models.search(PROBLEM, &short);
                assert!(found.cost.pages_peak as usize <= pages);
                if found.cost.starved == 0 {
                    assert!(essence(&found) == expected, "{method:?} {pages}");
                }
            }
        }
        assert!(peaks[0] <= peaks[2], "{peaks:?}");
    }
}

/// Pages are fewer and fewer, until they don't hold the prompt: a search always ends, says what it gave up, and keeps its tree in order.
#[test]
fn too_small_a_pool_degrades_and_says_so() {
    let models = Models::open();
    let whole = models.search(PROBLEM, &settings(ets(8), 8));
    let mut starved = Vec::new();
    for pages in (2..14).rev() {
        let short = Settings {
            pages,
            layout: Layout::NodeAligned,
            ..settings(ets(8), 8)
        };
        let found = models.search(PROBLEM, &short);
        let cost = &found.cost;
        assert!(cost.pages_peak as usize <= pages);
        assert!(cost.recomputed > 0 || cost.starved > 0, "{pages}");
        assert_eq!(
            cost.calls,
            found.tree.len() as u64 - 1 + cost.starved,
            "{pages}"
        );
        if cost.starved == 0 {
            assert_eq!(found.texts, whole.texts, "{pages}");
        }
        // A leaf of which nothing fits isn't continued again.
        assert!(cost.depth <= whole.cost.depth, "{pages}: {cost:?}");
        starved.push(cost.starved);
    }
    assert_eq!(starved.first(), Some(&0));
    assert!(starved.last().is_some_and(|&last| last > 0), "{starved:?}");
    let problem: Problem = PROBLEM.parse().unwrap();
    let reward = models.reward();
    let task = Countdown::of(&problem);
    let none = Settings {
        pages: 1,
        ..settings(ets(8), 8)
    };
    let refused = search(
        models.cast(&reward, &task),
        &none,
        &problem.tokens(),
        |_| (),
    );
    assert!(matches!(
        refused,
        Err(SearchError::Memory {
            pages: 1,
            tokens: 18
        })
    ));
}

#[test]
fn searches_that_know_each_other_s_continuations_find_the_same() {
    let models = Models::open();
    let problem: Problem = PROBLEM.parse().unwrap();
    let reward = models.reward();
    let task = Countdown::of(&problem);
    let mut searches = Searches::new(models.cast(&reward, &task), &problem.tokens());
    for width in [12, 5] {
        for method in methods(width) {
            let settings = settings(method, width);
            let together = searches.search(&settings, |_| ()).unwrap();
            let alone = models.search(PROBLEM, &settings);
            assert!(essence(&together) == essence(&alone), "{method:?}");
        }
    }
    let other = Settings {
        seed: 9,
        ..settings(Method::Samples, 5)
    };
    let together = searches.search(&other, |_| ()).unwrap();
    assert!(essence(&together) == essence(&models.search(PROBLEM, &other)));
}

/// A calculator beside the reward model: what doesn't follow scores 0, and what is elected is right.
#[test]
fn wrong_steps_score_nothing_beside_a_calculator() {
    let models = Models::open();
    let problem: Problem = "3 6 8 11 20:195".parse().unwrap();
    let checked = Settings {
        check_steps: true,
        ..settings(ets(32), 32)
    };
    let found = models.search(&problem.to_string(), &checked);
    let mut wrong = 0;
    for trajectory in &found.trajectories {
        let right = problem.is_solved_by(trajectory.steps.iter().map(String::as_str));
        let sound = trajectory.scores.iter().all(|&score| score > 0.0);
        assert_eq!(right, sound && trajectory.answer.is_some());
        wrong += usize::from(!sound);
    }
    assert!(wrong > 0);
    assert_eq!(
        models
            .search(&problem.to_string(), &settings(ets(32), 32))
            .texts
            .len(),
        129
    );
}

/// The whole budget is handed out at every step, and no more.
#[test]
fn budgets_are_kept() {
    let models = Models::open();
    let reward = models.reward();
    let problem: Problem = "3 6 8 11 20:195".parse().unwrap();
    let task = Countdown::of(&problem);
    for width in [1, 2, 7, 16] {
        for method in [ets(width), Method::Rebase(Temperature::PUBLISHED)] {
            let mut steps = 0;
            let cast = models.cast(&reward, &task);
            let (found, _) = search(cast, &settings(method, width), &problem.tokens(), |event| {
                let asked: u32 = event.plan.iter().map(|(_, count)| count).sum();
                assert_eq!(asked, event.tree.remaining());
                if let Some(selection) = event.selection {
                    assert!(selection.solution.proved);
                    assert_eq!(u64::from(asked), selection.allocation.total());
                }
                steps += 1;
            })
            .unwrap();
            assert_eq!(u64::from(found.cost.depth), steps);
            assert!(found.trajectories.len() <= width as usize);
            assert_eq!(
                found.tree.remaining() as usize + found.trajectories.len(),
                width as usize
            );
        }
    }
}

/// A reward model that fails: no scores, now and then none, equal ones, or nonsense.
#[test]
fn a_reward_model_that_fails_ends_no_search() {
    let models = Models::open();
    let sound = models.reward();
    let calls = AtomicUsize::new(0);
    let nan = |_: f32| f32::NAN;
    let equal = |_: f32| 0.5;
    let sometimes = |score: f32| {
        if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            f32::NAN
        } else {
            score
        }
    };
    let infinite = |score: f32| {
        if score > 0.3 {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        }
    };
    let negative = |score: f32| -1e30 * score;
    let tampers: [&(dyn Fn(f32) -> f32 + Sync); 5] =
        [&nan, &equal, &sometimes, &infinite, &negative];
    for (place, tamper) in tampers.into_iter().enumerate() {
        let reward = Reward::Tampered(&sound, tamper);
        for method in methods(9) {
            let found = models.search_with(PROBLEM, &settings(method, 9), &reward);
            assert!(!found.trajectories.is_empty(), "{place} {method:?}");
            for election in [Election::Weighted, Election::Best, Election::Majority] {
                for aggregate in [
                    Aggregate::Last,
                    Aggregate::Least,
                    Aggregate::Product,
                    Aggregate::Mean,
                ] {
                    let answered = found.trajectories.iter().any(|it| it.answer.is_some());
                    let elected = found.elect(election, aggregate);
                    assert_eq!(elected.is_some(), answered, "{place} {method:?}");
                }
            }
        }
    }
}

/// Problems of one step, of two, and ones where all trajectories end at once; a prompt that is too long.
#[test]
fn short_problems_and_long_prompts() {
    let models = Models::open();
    for problem in ["7 8:15", "2 3 4:24", "1 1:50"] {
        for method in methods(6) {
            let found = models.search(problem, &settings(method, 6));
            assert!(found.cost.depth >= 1, "{problem}");
            assert!(found.trajectories.len() <= 36, "{problem}");
        }
    }
    let reward = models.reward();
    let problem: Problem = PROBLEM.parse().unwrap();
    let task = Countdown::of(&problem);
    let cast = models.cast(&reward, &task);
    let method = settings(ets(4), 4);
    for prompt in [vec![], vec![1; 112], vec![1; 4000]] {
        let refused = search(cast, &method, &prompt, |_| ());
        assert!(matches!(refused, Err(SearchError::Prompt(_))));
    }
    assert!(search(cast, &method, &[9999], |_| ()).is_err());
    // Steps that never end are cut off, and so are trajectories.
    let short = Settings {
        step_tokens: 3,
        trajectory_tokens: 30,
        ..method
    };
    let found = models.search(PROBLEM, &short);
    assert!(found.trajectories.is_empty());
    assert!(!found.tree.leaves(State::OverLong).is_empty());
    assert_eq!(found.elect(Election::Weighted, Aggregate::Last), None);
}

/// The hardware's arithmetic: the same whatever memory there is, and close to FP32 in what it finds.
#[test]
fn searches_in_the_hardware_s_arithmetic() {
    let models = Models::quantized();
    let method = settings(ets(16), 16);
    let expected = models.search(PROBLEM, &method);
    assert!(!expected.trajectories.is_empty());
    let short = Settings {
        pages: expected.cost.pages_peak as usize / 2,
        sharing: Sharing::Steps,
        ..method
    };
    let found = models.search(PROBLEM, &short);
    assert!(found.cost.recomputed > 0);
    assert!(essence(&found) == essence(&expected));
}

/// Pairs of leaves of one step whose texts differ.
#[derive(Default)]
struct Pairs {
    /// That reach the same numbers, and how many of those share a cluster.
    same: usize,
    same_together: usize,
    /// That reach other numbers, and how many of those share a cluster.
    other: usize,
    other_together: usize,
}

impl Pairs {
    fn add(&mut self, found: &Found) {
        let mut steps = std::collections::BTreeMap::<u32, Vec<(&str, Option<u32>)>>::new();
        let mut known = std::collections::BTreeSet::new();
        for node in 1..found.tree.len() {
            let text = found.texts[node].trim_end();
            // Siblings with the same text are one.
            if known.insert((found.tree.parent(node).unwrap(), text)) {
                let depth = found.tree.depth(node).unwrap();
                let leaf = (text, found.tree.cluster(node).unwrap());
                steps.entry(depth).or_default().push(leaf);
            }
        }
        let numbers = |text: &str| text.split_once(';').map(|(_, numbers)| numbers.to_owned());
        for leaves in steps.values() {
            for (place, &(text, cluster)) in leaves.iter().enumerate() {
                for &(other, other_cluster) in &leaves[..place] {
                    // What ended is in no cluster.
                    let (Some(cluster), Some(other_cluster)) = (cluster, other_cluster) else {
                        continue;
                    };
                    if text == other {
                        continue;
                    }
                    let together = usize::from(cluster == other_cluster);
                    if numbers(text) == numbers(other) {
                        self.same += 1;
                        self.same_together += together;
                    } else {
                        self.other += 1;
                        self.other_together += together;
                    }
                }
            }
        }
    }
}

/// Clusters are to be of steps that reach the same numbers; which cut makes them so. Prices of 0 keep every leaf that weighs anything, so that all cuts see the same trees.
#[test]
fn clusters_are_of_steps_that_reach_the_same_numbers() {
    let models = Models::open();
    let count = if std::env::var("FGMP_FULL").is_ok_and(|value| value == "1") {
        40
    } else {
        3
    };
    let problems = golden::ets::countdown::problems(count, 11, &[]);
    let nothing = Lambda::new(0.0).unwrap();
    let free = Method::Ets(Rule {
        prices: Prices {
            budget: nothing,
            diversity: nothing,
            node: NodePrice::Nodes,
        },
        ..Rule::published(64)
    });
    let mut chosen = None;
    for cut in [0.005, 0.01, 0.02, 0.03, 0.05, 0.1] {
        let mut pairs = Pairs::default();
        for problem in &problems {
            let settings = Settings {
                cut,
                ..settings(free, 64)
            };
            pairs.add(&models.search(&problem.to_string(), &settings));
        }
        println!(
            "cut {cut}: together {} of {} pairs that reach the same numbers, {} of {} that don't",
            pairs.same_together, pairs.same, pairs.other_together, pairs.other
        );
        if cut == countdown::CUT {
            chosen = Some(pairs);
        }
    }
    let chosen = chosen.unwrap();
    // Of what doesn't belong together little is together, and more than half of what does.
    assert!(chosen.other_together * 25 < chosen.other);
    assert!(chosen.same_together * 2 > chosen.same && chosen.same > 50);
}
