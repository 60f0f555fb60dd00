//! Choices of leaves that the tests of the tree search make.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::ets::samples;
use golden::ets::{Lambda, NodeId, NodePrice, Prices, Programme, SearchTree};

pub use golden::ets::samples::draw;

pub fn full() -> bool {
    std::env::var_os("FGMP_FULL").is_some_and(|value| value == "1")
}

/// A choice to be made.
pub struct Choice {
    pub tree: SearchTree,
    pub leaves: Vec<NodeId>,
    pub weights: Vec<u32>,
    pub clusters: Vec<u32>,
}

impl Choice {
    pub fn programme(&self, prices: Prices) -> Programme {
        Programme::new(
            &self.tree,
            &self.leaves,
            &self.weights,
            Some(&self.clusters),
            prices,
        )
        .unwrap()
    }
}

impl From<samples::Choice> for Choice {
    fn from(choice: samples::Choice) -> Self {
        let samples::Choice {
            tree,
            leaves,
            weights,
            clusters,
        } = choice;
        Self {
            tree,
            leaves,
            weights,
            clusters,
        }
    }
}

pub fn grown(state: &mut u64, width: u32, depth: u32, ideas: u64) -> Choice {
    samples::grown(state, width, depth, ideas, None)
        .unwrap()
        .into()
}

pub fn tied(state: &mut u64, leaves: usize) -> Choice {
    samples::tied(state, leaves).unwrap().into()
}

pub fn prices(state: &mut u64) -> Prices {
    let of = |state: &mut u64| {
        Lambda::new([0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0][draw(state, 7) as usize]).unwrap()
    };
    Prices {
        budget: of(state),
        diversity: of(state),
        node: [NodePrice::Nodes, NodePrice::Tokens][draw(state, 2) as usize],
    }
}

pub fn covering(
    state: &mut u64,
    parents: usize,
    children: usize,
    clusters: u64,
    most: u64,
) -> Choice {
    samples::covering(state, parents, children, clusters, most)
        .unwrap()
        .into()
}
