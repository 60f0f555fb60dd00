//! Choices of leaves that the tests of the tree search make.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use golden::ets::{
    Lambda, NodeId, NodePrice, Prices, Programme, Scores, SearchTree, State, Temperature, allocate,
};

/// A number below `bound` from a counter of numbers drawn.
pub fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ z >> 31) % bound
}

pub fn unit(state: &mut u64) -> f32 {
    draw(state, 1 << 24) as f32 / (1 << 24) as f32
}

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

/// A tree as REBASE grows it: the width shared by score at each step, scores that wander, a few ideas for each step that siblings and cousins share.
pub fn grown(state: &mut u64, width: u32, depth: u32, ideas: u64) -> Choice {
    let mut tree = SearchTree::new(width, 3);
    let temperature = Temperature::PUBLISHED;
    let mut scores = vec![0.5f32];
    let mut clusters = vec![0u32];
    for _ in 0..depth {
        let leaves = tree.frontier();
        let of: Vec<f32> = leaves.iter().map(|&leaf| scores[leaf]).collect();
        let counts = allocate(&Scores::new(&of), None, temperature, tree.remaining()).counts;
        for (&leaf, &count) in leaves.iter().zip(&counts) {
            if count == 0 {
                tree.decide(leaf, State::Pruned).unwrap();
            }
            for _ in 0..count {
                let score = (scores[leaf] + 0.3 * (unit(state) - 0.5)).clamp(0.0, 1.0);
                tree.add(leaf, 20 + draw(state, 80) as u32, score).unwrap();
                scores.push(score);
                // Siblings are likelier to say the same than cousins.
                let family = if draw(state, 3) > 0 { leaf as u64 } else { 0 };
                clusters.push((family * ideas + draw(state, ideas)) as u32);
            }
        }
    }
    let leaves = tree.frontier();
    let of: Vec<f32> = leaves.iter().map(|&leaf| scores[leaf]).collect();
    let weights = allocate(&Scores::new(&of), None, temperature, width).counts;
    let clusters = leaves.iter().map(|&leaf| clusters[leaf]).collect();
    Choice {
        tree,
        leaves,
        weights,
        clusters,
    }
}

/// A tree of any shape, with few different weights and clusters: many sets are worth the same.
pub fn tied(state: &mut u64, leaves: usize) -> Choice {
    let mut tree = SearchTree::new(leaves as u32, 1);
    let inner = 1 + draw(state, 1 + leaves as u64) as usize;
    let mut parents = vec![0];
    for _ in 0..inner {
        let parent = parents[draw(state, parents.len() as u64) as usize];
        parents.push(tree.add(parent, 1 + draw(state, 2) as u32, 0.0).unwrap());
    }
    let leaves: Vec<NodeId> = (0..leaves)
        .map(|_| {
            let parent = parents[draw(state, parents.len() as u64) as usize];
            tree.add(parent, 1 + draw(state, 2) as u32, 0.0).unwrap()
        })
        .collect();
    let most = 1 + draw(state, 3);
    let weights = leaves.iter().map(|_| draw(state, most) as u32).collect();
    let kinds = 1 + draw(state, leaves.len() as u64);
    let clusters = leaves.iter().map(|_| draw(state, kinds) as u32).collect();
    Choice {
        tree,
        leaves,
        weights,
        clusters,
    }
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

/// Parents that each cover a few clusters, among them clusters that others cover: a set cover with prices, what makes the programme hard.
pub fn covering(
    state: &mut u64,
    parents: usize,
    children: usize,
    clusters: u64,
    most: u64,
) -> Choice {
    let mut tree = SearchTree::new(256, 1);
    let mut choice = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..parents {
        let parent = tree.add(0, 1, 0.0).unwrap();
        for _ in 0..children {
            choice.0.push(tree.add(parent, 1, 0.0).unwrap());
            choice.1.push(draw(state, most) as u32);
            choice.2.push(draw(state, clusters) as u32);
        }
    }
    let (leaves, weights, clusters) = choice;
    Choice {
        tree,
        leaves,
        weights,
        clusters,
    }
}
