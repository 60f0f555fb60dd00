//! Trajectories as a tree, and what their keys and values take.

use serde::{Deserialize, Serialize};

/// A node's place in its tree: nodes are numbered as they are added, the root is 0.
pub type NodeId = usize;

/// What may still become of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It can be continued, or has been.
    Live,
    /// It gave an answer.
    Completed,
    /// It reached the greatest length without an answer; takes budget, but no part in the vote.
    OverLong,
    /// It was not kept.
    Pruned,
}

#[derive(Clone, Debug)]
struct Node {
    parent: Option<NodeId>,
    depth: u32,
    tokens: u32,
    score: f32,
    state: State,
    cluster: Option<u32>,
    children: u32,
}

/// A tree of steps. A trajectory is the path from the root to a node.
#[derive(Clone, Debug)]
pub struct SearchTree {
    nodes: Vec<Node>,
    width: u32,
}

/// What can't be done with a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TreeError {
    /// No such node.
    #[error("there is no node {0}")]
    Unknown(NodeId),
    /// Only live nodes are continued.
    #[error("node {0} is {1:?} and can't be continued")]
    NotLive(NodeId, State),
    /// Only leaves change state.
    #[error("node {0} has been continued; only leaves are completed, cut off or pruned")]
    Inner(NodeId),
    /// A leaf that has an answer, or is cut off or pruned, stays so.
    #[error("node {0} is {1:?} already")]
    Decided(NodeId, State),
}

impl SearchTree {
    /// A tree of nothing but the question, of `tokens` tokens and score 1; the search may hold `width` trajectories.
    pub fn new(width: u32, tokens: u32) -> Self {
        Self {
            nodes: vec![Node {
                parent: None,
                depth: 0,
                tokens,
                score: 1.0,
                state: State::Live,
                cluster: None,
                children: 0,
            }],
            width,
        }
    }

    fn node(&self, id: NodeId) -> Result<&Node, TreeError> {
        self.nodes.get(id).ok_or(TreeError::Unknown(id))
    }

    /// Continues a live node by a step of `tokens` tokens that the reward model gave `score` (which may be NaN).
    ///
    /// # Errors
    /// There is no such node, or it isn't live.
    pub fn add(&mut self, parent: NodeId, tokens: u32, score: f32) -> Result<NodeId, TreeError> {
        let above = self.node(parent)?;
        if above.state != State::Live {
            return Err(TreeError::NotLive(parent, above.state));
        }
        let depth = above.depth + 1;
        self.nodes[parent].children += 1;
        self.nodes.push(Node {
            parent: Some(parent),
            depth,
            tokens,
            score,
            state: State::Live,
            cluster: None,
            children: 0,
        });
        Ok(self.nodes.len() - 1)
    }

    /// Completes, cuts off or prunes a live leaf. `State::Live` changes nothing.
    ///
    /// # Errors
    /// There is no such node, it has been continued, or its state is decided.
    pub fn decide(&mut self, id: NodeId, state: State) -> Result<(), TreeError> {
        let node = self.node(id)?;
        if node.children > 0 {
            return Err(TreeError::Inner(id));
        }
        if node.state != State::Live {
            return Err(TreeError::Decided(id, node.state));
        }
        self.nodes[id].state = state;
        Ok(())
    }

    /// Notes which cluster a node's step belongs to.
    ///
    /// # Errors
    /// There is no such node.
    pub fn set_cluster(&mut self, id: NodeId, cluster: Option<u32>) -> Result<(), TreeError> {
        self.node(id)?;
        self.nodes[id].cluster = cluster;
        Ok(())
    }

    /// Nodes, the root included.
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a tree has its root.
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whose continuation a node is; nothing for the root.
    ///
    /// # Errors
    /// There is no such node.
    pub fn parent(&self, id: NodeId) -> Result<Option<NodeId>, TreeError> {
        Ok(self.node(id)?.parent)
    }

    /// Steps between the root and a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn depth(&self, id: NodeId) -> Result<u32, TreeError> {
        Ok(self.node(id)?.depth)
    }

    /// Tokens of a node's own step.
    ///
    /// # Errors
    /// There is no such node.
    pub fn tokens(&self, id: NodeId) -> Result<u32, TreeError> {
        Ok(self.node(id)?.tokens)
    }

    /// The reward model's score of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn score(&self, id: NodeId) -> Result<f32, TreeError> {
        Ok(self.node(id)?.score)
    }

    /// A node's state.
    ///
    /// # Errors
    /// There is no such node.
    pub fn state(&self, id: NodeId) -> Result<State, TreeError> {
        Ok(self.node(id)?.state)
    }

    /// A node's cluster, if one was noted.
    ///
    /// # Errors
    /// There is no such node.
    pub fn cluster(&self, id: NodeId) -> Result<Option<u32>, TreeError> {
        Ok(self.node(id)?.cluster)
    }

    /// A node and all above it, the root last.
    ///
    /// # Errors
    /// There is no such node.
    pub fn path(&self, id: NodeId) -> Result<Vec<NodeId>, TreeError> {
        self.node(id)?;
        Ok(std::iter::successors(Some(id), |&id| self.nodes[id].parent).collect())
    }

    /// Tokens of a whole trajectory, the question's included.
    ///
    /// # Errors
    /// There is no such node.
    pub fn trajectory_tokens(&self, id: NodeId) -> Result<u64, TreeError> {
        Ok(self
            .path(id)?
            .iter()
            .map(|&id| u64::from(self.nodes[id].tokens))
            .sum())
    }

    /// Live nodes that haven't been continued, in the order in which they were added: what a selection chooses among.
    pub fn frontier(&self) -> Vec<NodeId> {
        self.leaves(State::Live)
    }

    /// Leaves of a state, in the order in which they were added.
    pub fn leaves(&self, state: State) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|&id| self.nodes[id].children == 0 && self.nodes[id].state == state)
            .collect()
    }

    /// Width that is left: each completed and each over-long leaf takes one.
    pub fn remaining(&self) -> u32 {
        let ended = self
            .nodes
            .iter()
            .filter(|node| matches!(node.state, State::Completed | State::OverLong))
            .count();
        self.width
            .saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX))
    }

    /// The union of the paths of `leaves`, in the order in which nodes were added.
    ///
    /// # Errors
    /// There is no such node.
    pub fn union(&self, leaves: &[NodeId]) -> Result<Vec<NodeId>, TreeError> {
        let mut kept = vec![false; self.nodes.len()];
        for &leaf in leaves {
            self.node(leaf)?;
            let mut next = Some(leaf);
            while let Some(id) = next
                && !kept[id]
            {
                kept[id] = true;
                next = self.nodes[id].parent;
            }
        }
        Ok((0..kept.len()).filter(|&id| kept[id]).collect())
    }

    /// Keys and values that `leaves` need, in tokens: each node on a path counts once, however many share it.
    ///
    /// # Errors
    /// There is no such node.
    pub fn unique_tokens(&self, leaves: &[NodeId]) -> Result<u64, TreeError> {
        Ok(self
            .union(leaves)?
            .iter()
            .map(|&id| u64::from(self.nodes[id].tokens))
            .sum())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_count_once() {
        let mut tree = SearchTree::new(4, 10);
        let a = tree.add(0, 3, 0.5).unwrap();
        let b = tree.add(0, 4, 0.5).unwrap();
        let c = tree.add(a, 5, 0.5).unwrap();
        let d = tree.add(a, 6, f32::NAN).unwrap();
        assert_eq!(tree.unique_tokens(&[c, d]).unwrap(), 10 + 3 + 5 + 6);
        assert_eq!(tree.unique_tokens(&[b, c, c]).unwrap(), 10 + 4 + 3 + 5);
        assert_eq!(tree.unique_tokens(&[]).unwrap(), 0);
        assert_eq!(tree.trajectory_tokens(d).unwrap(), 19);
        assert_eq!(tree.path(d).unwrap(), [d, a, 0]);
        assert_eq!(tree.union(&[d]).unwrap(), [0, a, d]);
        assert_eq!(tree.frontier(), [b, c, d]);
        assert_eq!(tree.depth(d).unwrap(), 2);
        assert!(tree.score(d).unwrap().is_nan());
    }

    #[test]
    fn states() {
        let mut tree = SearchTree::new(2, 1);
        let a = tree.add(0, 1, 0.1).unwrap();
        let b = tree.add(0, 1, 0.2).unwrap();
        let c = tree.add(0, 1, 0.3).unwrap();
        assert_eq!(tree.decide(0, State::Completed), Err(TreeError::Inner(0)));
        tree.decide(a, State::Completed).unwrap();
        assert_eq!(
            tree.decide(a, State::Pruned),
            Err(TreeError::Decided(a, State::Completed))
        );
        assert_eq!(
            tree.add(a, 1, 0.0),
            Err(TreeError::NotLive(a, State::Completed))
        );
        assert_eq!(tree.remaining(), 1);
        tree.decide(b, State::OverLong).unwrap();
        assert_eq!(tree.remaining(), 0);
        // More may have been forked than the width allows: nothing is left, not less than nothing.
        tree.decide(c, State::Completed).unwrap();
        assert_eq!(tree.remaining(), 0);
        assert!(tree.frontier().is_empty());
        assert_eq!(tree.leaves(State::Completed), [a, c]);
        assert_eq!(tree.add(9, 1, 0.0), Err(TreeError::Unknown(9)));
        tree.set_cluster(c, Some(4)).unwrap();
        assert_eq!(tree.cluster(c), Ok(Some(4)));
    }
}
