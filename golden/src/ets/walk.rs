//! The nodes of some leaves' paths in depth-first order: how keys and values are read, and how hardware goes through a tree.

use serde::Serialize;

use super::{NodeId, SearchTree, TreeError};

/// A node on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Visit {
    /// The node.
    pub node: NodeId,
    /// How many nodes above it have more than one child on the paths.
    pub depth: u32,
    /// It has exactly one child on the paths, which is visited next.
    pub single: bool,
    /// It is one of the leaves.
    pub leaf: bool,
}

/// The union of the paths of `leaves`, depth first: each node directly before what is below it; of its children first the one whose last leaf comes first in the list. The leaves are different ones, none above another.
///
/// # Errors
/// There is no such node.
pub fn depth_first(tree: &SearchTree, leaves: &[NodeId]) -> Result<Vec<Visit>, TreeError> {
    let mut on_path = vec![false; tree.len()];
    let mut is_leaf = vec![false; tree.len()];
    let mut first_child: Vec<Option<NodeId>> = vec![None; tree.len()];
    let mut next_sibling: Vec<Option<NodeId>> = vec![None; tree.len()];
    let mut children = vec![0u32; tree.len()];
    let mut root = None;
    // The last one first, so that the first one's path is linked last and is the first to be followed.
    for &leaf in leaves.iter().rev() {
        let mut below = None;
        let mut next = Some(leaf);
        while let Some(node) = next {
            next = tree.parent(node)?;
            if let Some(child) = below {
                next_sibling[child] = first_child[node].replace(child);
                children[node] += 1;
            }
            if std::mem::replace(&mut on_path[node], true) {
                break;
            }
            if next.is_none() {
                root = Some(node);
            }
            below = Some(node);
        }
        is_leaf[leaf] = true;
    }
    let mut visits = Vec::new();
    let mut stack: Vec<(NodeId, u32)> = root.map(|root| (root, 0)).into_iter().collect();
    while let Some((node, depth)) = stack.pop() {
        visits.push(Visit {
            node,
            depth,
            single: children[node] == 1,
            leaf: is_leaf[node],
        });
        let below = depth + u32::from(children[node] > 1);
        let first = stack.len();
        let mut next = first_child[node];
        while let Some(child) = next {
            stack.push((child, below));
            next = next_sibling[child];
        }
        stack[first..].reverse();
    }
    Ok(visits)
}
