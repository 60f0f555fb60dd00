//! Searches with models.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

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
