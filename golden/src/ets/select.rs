//! One step of a search: which leaves are kept, and how often each is continued.

use serde::Serialize;

use super::{
    Allocation, Effort, NodeId, Prices, Programme, ProgrammeError, Scores, SearchTree, Solution,
    Temperature, allocate,
};

/// How a search selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Rule {
    /// Of the softmax of scores.
    pub temperature: Temperature,
    /// Of the objective.
    pub prices: Prices,
    /// Of the exact method.
    pub effort: Effort,
}

impl Rule {
    /// That of the published runs at a width.
    pub fn published(width: u32) -> Self {
        Self {
            temperature: Temperature::PUBLISHED,
            prices: Prices::published(width),
            effort: Effort::default(),
        }
    }
}

/// What was selected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Selection {
    /// The tree's live leaves.
    pub leaves: Vec<NodeId>,
    /// Their weights: what each would be continued if all were kept.
    pub weights: Vec<u32>,
    /// Which of them are kept.
    pub solution: Solution,
    /// How often each is continued; a kept leaf may be continued 0 times.
    pub allocation: Allocation,
}

/// A tree's live leaves with what a selection weighs.
pub(super) struct Candidates {
    pub(super) leaves: Vec<NodeId>,
    pub(super) scores: Scores,
    /// What each would be continued if all were kept.
    pub(super) weights: Vec<u32>,
    /// By leaf; none unless each has one.
    pub(super) clusters: Option<Vec<u32>>,
    /// What is left of the width.
    pub(super) width: u32,
}

impl Candidates {
    /// `None` if no leaf is live or nothing is left of the width.
    pub(super) fn of(
        tree: &SearchTree,
        temperature: Temperature,
    ) -> Result<Option<Self>, ProgrammeError> {
        let leaves = tree.frontier();
        let width = tree.remaining();
        if leaves.is_empty() || width == 0 {
            return Ok(None);
        }
        let mut scores = Vec::with_capacity(leaves.len());
        let mut clusters = Vec::with_capacity(leaves.len());
        for &leaf in &leaves {
            scores.push(tree.score(leaf)?);
            clusters.extend(tree.cluster(leaf)?);
        }
        let scores = Scores::new(&scores);
        let weights = allocate(&scores, None, temperature, width).counts;
        Ok(Some(Self {
            clusters: Some(clusters).filter(|clusters| clusters.len() == leaves.len()),
            leaves,
            scores,
            weights,
            width,
        }))
    }
}

/// Selects among a tree's live leaves: shares what is left of the width, chooses by these weights, and shares the same among those that are kept.
///
/// Clusters count if each of the leaves has one. Nothing is selected if no leaf is live or nothing is left of the width: the search is over.
///
/// # Errors
/// The objective doesn't fit 63 bits.
pub fn select(tree: &SearchTree, rule: Rule) -> Result<Option<Selection>, ProgrammeError> {
    let Some(candidates) = Candidates::of(tree, rule.temperature)? else {
        return Ok(None);
    };
    let Candidates {
        leaves,
        scores,
        weights,
        clusters,
        width,
    } = candidates;
    let programme = Programme::new(tree, &leaves, &weights, clusters.as_deref(), rule.prices)?;
    let solution = programme.solve(rule.effort);
    let allocation = allocate(&scores, Some(&solution.kept), rule.temperature, width);
    Ok(Some(Selection {
        leaves,
        weights,
        solution,
        allocation,
    }))
}
