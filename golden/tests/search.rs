//! Searches with models.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use golden::ets::countdown::{Countdown, Problem};
use golden::ets::live::{
    Cast, Election, Embedding, Found, Method, Reward, ScoreHead, Settings, Sharing, search,
};
use golden::ets::{Layout, Rule, State, Temperature};
use golden::model::{ConfigHints, Model};

fn model(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../models/{name}.safetensors"));
    Model::open(&path, ConfigHints::default()).unwrap()
}

struct Models {
    policy: Model,
    reward: Model,
}

impl Models {
    fn open() -> Self {
        Self {
            policy: model("countdown-policy"),
            reward: model("countdown-prm"),
        }
    }

    fn search(&self, problem: &str, settings: &Settings) -> Found {
        let head = ScoreHead::of(&self.reward).unwrap();
        let reward = Reward::Scored(&self.reward, head);
        self.search_with(problem, settings, &reward)
    }

    fn search_with(&self, problem: &str, settings: &Settings, reward: &Reward<'_>) -> Found {
        let problem: Problem = problem.parse().unwrap();
        let cast = Cast {
            policy: &self.policy,
            reward,
            embedding: Embedding::Reward,
            task: &Countdown,
        };
        search(cast, settings, &problem.tokens(), |_| ()).unwrap().0
    }
}

#[test]
fn scratch() {
    let models = Models::open();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/countdown-problems.txt")).unwrap();
    let n: usize = std::env::var("N").map_or(5, |n| n.parse().unwrap());
    let w: u32 = std::env::var("W").map_or(16, |n| n.parse().unwrap());
    let sharing = if std::env::var("STEPS").is_ok() { Sharing::Steps } else { Sharing::Tokens };
    for (name, method, election) in [
        ("ets", Method::Ets(Rule::published(w)), Election::Weighted),
        ("rebase", Method::Rebase(Temperature::PUBLISHED), Election::Weighted),
        ("beam", Method::Beam(None), Election::Weighted),
        ("dvts", Method::Dvts(None), Election::Weighted),
        ("best", Method::Samples, Election::Best),
        ("majority", Method::Samples, Election::Majority),
    ] {
        let begun = std::time::Instant::now();
        let mut cost = golden::ets::live::Cost::default();
        let (mut right, mut any) = (0, 0);
        for line in text.lines().take(n) {
            let problem: Problem = line.parse().unwrap();
            let settings = Settings { sharing, step_tokens: 32, ..Settings::new(method, w) };
            let found = models.search(line, &settings);
            cost.add(&found.cost);
            let solved = |t: &golden::ets::live::Trajectory| problem.is_solved_by(t.steps.iter().map(String::as_str));
            right += usize::from(found.elect(election).is_some_and(solved));
            any += usize::from(found.trajectories.iter().any(solved));
        }
        println!("{name} {right} {any} of {n} {:?} {cost:?}", begun.elapsed());
    }
}
