//! Choices to be made, for tests and benches of every crate and for the testbenches of bundles: trees as searches grow them, and such that are hard.

use super::{
    NodeId, Prices, Programme, ProgrammeError, PruneJob, Scores, SearchTree, State, Temperature,
    TreeError, allocate,
};

/// A number below `bound` (1 at least) from a counter of numbers drawn.
pub const fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ z >> 31) % if bound == 0 { 1 } else { bound }
}

/// A number from 0 up to 1.
pub fn unit(state: &mut u64) -> f32 {
    draw(state, 1 << 24) as f32 / (1 << 24) as f32
}

/// A choice to be made.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its live leaves have a cluster each, and scores unless they are made of ties.
    pub tree: SearchTree,
    /// The live leaves.
    pub leaves: Vec<NodeId>,
    /// Their weights.
    pub weights: Vec<u32>,
    /// Their clusters.
    pub clusters: Vec<u32>,
}

impl Choice {
    fn new(
        mut tree: SearchTree,
        leaves: Vec<NodeId>,
        weights: Vec<u32>,
        clusters: Vec<u32>,
    ) -> Result<Self, TreeError> {
        for (&leaf, &cluster) in leaves.iter().zip(&clusters) {
            tree.set_cluster(leaf, Some(cluster))?;
        }
        Ok(Self {
            tree,
            leaves,
            weights,
            clusters,
        })
    }

    /// One of four kinds at a width: `grown` as REBASE grows trees, `scattered` with clusters at random, `tied` with many ties, else `covering`. `trial` varies depth and clusters.
    ///
    /// # Errors
    /// Never: trees are well made.
    pub fn of_kind(
        state: &mut u64,
        kind: &str,
        width: u32,
        trial: usize,
    ) -> Result<Self, TreeError> {
        let depth = [5, 10, 25, 40][trial % 4];
        let ideas = 1 + trial as u64 % 5;
        let kinds = u64::from(width) / [1, 2, 4, 8][trial / 4 % 4];
        match kind {
            "grown" => grown(state, width, depth, ideas, None),
            "scattered" => grown(state, width, depth, ideas, Some(kinds)),
            "tied" => tied(state, width as usize),
            _ => covering(state, width as usize / 4, 4, u64::from(width) / 3, 3),
        }
    }

    /// The engine's job at these prices.
    ///
    /// # Errors
    /// Words are too small for it.
    pub fn job(&self, prices: Prices) -> Result<PruneJob, ProgrammeError> {
        PruneJob::new(
            &self.tree,
            &self.leaves,
            &self.weights,
            Some(&self.clusters),
            prices,
        )
    }

    /// The integer programme at these prices.
    ///
    /// # Errors
    /// It doesn't fit 63 bits.
    pub fn programme(&self, prices: Prices) -> Result<Programme, ProgrammeError> {
        Programme::new(
            &self.tree,
            &self.leaves,
            &self.weights,
            Some(&self.clusters),
            prices,
        )
    }
}

/// A tree as REBASE grows it: the width shared by score at each step, scores that wander, a few ideas for each step that siblings and cousins share. With `kinds`, clusters are drawn
/// among so many instead, whatever is akin.
///
/// # Errors
/// None: what it does to the tree can be done.
pub fn grown(
    state: &mut u64,
    width: u32,
    depth: u32,
    ideas: u64,
    kinds: Option<u64>,
) -> Result<Choice, TreeError> {
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
                tree.decide(leaf, State::Pruned)?;
            }
            for _ in 0..count {
                let score = (scores[leaf] + 0.3 * (unit(state) - 0.5)).clamp(0.0, 1.0);
                tree.add(leaf, 20 + draw(state, 80) as u32, score)?;
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
    let clusters = leaves
        .iter()
        .map(|&leaf| kinds.map_or(clusters[leaf], |kinds| draw(state, kinds) as u32))
        .collect();
    Choice::new(tree, leaves, weights, clusters)
}

/// A tree of any shape, with few different weights and clusters: many sets are worth the same. All scores are equal.
///
/// # Errors
/// None: what it does to the tree can be done.
pub fn tied(state: &mut u64, leaves: usize) -> Result<Choice, TreeError> {
    let mut tree = SearchTree::new(leaves as u32, 1);
    let inner = 1 + draw(state, 1 + leaves as u64) as usize;
    let mut parents = vec![0];
    for _ in 0..inner {
        let parent = parents[draw(state, parents.len() as u64) as usize];
        parents.push(tree.add(parent, 1 + draw(state, 2) as u32, 0.0)?);
    }
    let leaves: Vec<NodeId> = (0..leaves)
        .map(|_| {
            let parent = parents[draw(state, parents.len() as u64) as usize];
            tree.add(parent, 1 + draw(state, 2) as u32, 0.0)
        })
        .collect::<Result<_, _>>()?;
    for &parent in &parents {
        // An inner node that nothing was hung below.
        if tree.frontier().binary_search(&parent).is_ok() {
            tree.decide(parent, State::Pruned)?;
        }
    }
    let most = 1 + draw(state, 3);
    let weights = leaves.iter().map(|_| draw(state, most) as u32).collect();
    let kinds = 1 + draw(state, leaves.len() as u64);
    let clusters = leaves.iter().map(|_| draw(state, kinds) as u32).collect();
    Choice::new(tree, leaves, weights, clusters)
}

/// Parents that each cover a few clusters, among them clusters that others cover: a set cover with prices, what makes the programme hard. All scores are equal.
///
/// # Errors
/// None: what it does to the tree can be done.
pub fn covering(
    state: &mut u64,
    parents: usize,
    children: usize,
    kinds: u64,
    most: u64,
) -> Result<Choice, TreeError> {
    let mut tree = SearchTree::new((parents * children) as u32, 1);
    let (mut leaves, mut weights, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..parents {
        let parent = tree.add(0, 1, 0.0)?;
        for _ in 0..children {
            leaves.push(tree.add(parent, 1, 0.0)?);
            weights.push(draw(state, most) as u32);
            clusters.push(draw(state, kinds) as u32);
        }
    }
    Choice::new(tree, leaves, weights, clusters)
}
