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
    use golden::ets::live::{Cost, Searches, Trajectory};
    use golden::ets::{Lambda, NodePrice, Prices};
    use rayon::prelude::*;
    let models = Models::open();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/countdown-problems.txt")).unwrap();
    let test: Vec<Problem> = text.lines().map(|l| l.parse().unwrap()).collect();
    let n: usize = std::env::var("N").map_or(5, |n| n.parse().unwrap());
    let w: u32 = std::env::var("W").map_or(16, |n| n.parse().unwrap());
    let problems = golden::ets::countdown::problems(n, 77, &test);
    let mut methods: Vec<(String, Method, Election, f64)> = vec![
        ("rebase".into(), Method::Rebase(Temperature::PUBLISHED), Election::Weighted, 0.05),
        ("beam".into(), Method::Beam(None), Election::Weighted, 0.05),
        ("dvts".into(), Method::Dvts(None), Election::Weighted, 0.05),
        ("best".into(), Method::Samples, Election::Best, 0.05),
        ("samples-weighted".into(), Method::Samples, Election::Weighted, 0.05),
        ("majority".into(), Method::Samples, Election::Majority, 0.05),
        ("ets published".into(), Method::Ets(Rule::published(w)), Election::Weighted, 0.05),
    ];
    for node in [NodePrice::Nodes] {
        for b in [2.0, 3.0, 5.0, 8.0] {
            for d in [1.0, 2.0, 4.0] {
                for cut in [0.05] {
                    let prices = Prices { budget: Lambda::new(b).unwrap(), diversity: Lambda::new(d).unwrap(), node };
                    let rule = Rule { prices, ..Rule::published(w) };
                    methods.push((format!("ets {node:?} {b} {d} cut {cut}"), Method::Ets(rule), Election::Weighted, cut));
                }
            }
        }
    }
    let head = ScoreHead::of(&models.reward).unwrap();
    let reward = Reward::Scored(&models.reward, head);
    let begun = std::time::Instant::now();
    let results: Vec<Vec<(Cost, bool, bool, (usize, usize, usize))>> = problems.par_iter().map(|problem| {
        let cast = Cast { policy: &models.policy, reward: &reward, embedding: Embedding::Reward, task: &Countdown };
        let mut searches = Searches::new(cast, &problem.tokens());
        methods.iter().map(|(_, method, election, cut)| {
            let settings = Settings { step_tokens: 32, cut: *cut, ..Settings::new(*method, w) };
            let mut clusters = (0, 0, 0);
            let found = searches.search(&settings, |event| {
                if let Some(s) = event.selection {
                    let mut ids: Vec<_> = s.leaves.iter().filter_map(|&l| event.tree.cluster(l).unwrap()).collect();
                    ids.sort(); ids.dedup();
                    clusters.0 += ids.len(); clusters.1 += s.leaves.len(); clusters.2 += s.solution.kept.iter().filter(|k| **k).count();
                }
            }).unwrap();
            let solved = |t: &Trajectory| problem.is_solved_by(t.steps.iter().map(String::as_str));
            (found.cost.clone(), found.elect(*election).is_some_and(solved), found.trajectories.iter().any(solved), clusters)
        }).collect()
    }).collect();
    println!("{:?}", begun.elapsed());
    let total = |m: usize| { let mut c = Cost::default(); for r in &results { c.add(&r[m].0); } c };
    let base = total(0);
    for (m, (name, ..)) in methods.iter().enumerate() {
        let c = total(m);
        let right = results.iter().filter(|r| r[m].1).count();
        let any = results.iter().filter(|r| r[m].2).count();
        let k: (usize, usize, usize) = results.iter().fold((0,0,0), |a, r| (a.0 + r[m].3.0, a.1 + r[m].3.1, a.2 + r[m].3.2));
        println!("{name:32} {:.1} any {:.1} kv {:.3} held {:.3} peak {} {} sel {:.1}us longest {} clusters {k:?}", 100.0*right as f64/n as f64, 100.0*any as f64/n as f64, base.kv_tokens as f64/c.kv_tokens as f64, base.held_tokens as f64/c.held_tokens as f64, c.kv_peak, c.held_peak, c.selection_ns as f64/1e3/c.depth.max(1) as f64, c.longest_selection_ns);
    }
}
