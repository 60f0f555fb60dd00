//! Which leaves are kept: ETS's cost model as an integer programme in integers.
//!
//! Of a set S of leaves, with the weights w, the clusters and all nodes V_S on their paths,
//!
//! F(S) = q · T · K · Σ w  −  b · W · K · cost(V_S)  +  c · W · T · (clusters in S)
//!
//! where W, T and K are the weights, the cost and the clusters of all leaves together, b / q = λ_b and c / q = λ_d. F / (q · T · K · W) is the published objective. The best S, never empty, has the largest F;
//! of equals the fewest nodes; of equals the smallest leaves: the set that holds the smallest leaf in which the two differ. (Neither of two such sets holds the other: it would have fewer nodes.)

use std::cmp::Ordering;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::{NodeId, SearchTree, TreeError};

/// λ_b and λ_d are integers of this many to one.
pub const LAMBDA_RESOLUTION: u32 = 1000;

/// Most leaves that [`Programme::enumerate`] takes.
pub const MOST_ENUMERATED: usize = 20;

/// A factor of the objective in thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lambda(u32);

/// A factor that is negative, too large or not a number.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("factor {0}: it must be from 0 to 1000")]
pub struct LambdaError(pub f64);

impl Lambda {
    /// The nearest number of thousandths.
    ///
    /// # Errors
    /// It is negative, above 1000 or not a number.
    pub fn new(lambda: f64) -> Result<Self, LambdaError> {
        if !(0.0..=1000.0).contains(&lambda) {
            return Err(LambdaError(lambda));
        }
        Ok(Self(
            (lambda * f64::from(LAMBDA_RESOLUTION)).round_ties_even() as u32,
        ))
    }

    /// Thousandths.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

/// What a node of the tree costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodePrice {
    /// One each, as published.
    #[default]
    Nodes,
    /// Its tokens: what its keys and values take.
    Tokens,
}

/// The objective's factors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prices {
    /// λ_b: the price of all keys and values.
    pub budget: Lambda,
    /// λ_d: what covering all clusters is worth.
    pub diversity: Lambda,
    /// What a node costs.
    pub node: NodePrice,
}

impl Prices {
    /// Of the published runs: λ_b = 1; λ_d = 1.5, 1.4 and 1.45 at widths 16, 64 and 256 (1.45 at any other).
    pub const fn published(width: u32) -> Self {
        Self {
            budget: Lambda(1000),
            diversity: Lambda(match width {
                16 => 1500,
                64 => 1400,
                _ => 1450,
            }),
            node: NodePrice::Nodes,
        }
    }
}

/// Leaves that can't be chosen among.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProgrammeError {
    /// There must be one.
    #[error("there is no leaf to choose")]
    Empty,
    /// A list that isn't as long as the leaves.
    #[error("{leaves} leaves have {given} {what}")]
    Length {
        /// Leaves.
        leaves: usize,
        /// Entries of the list.
        given: usize,
        /// What it lists.
        what: &'static str,
    },
    /// Each leaf is listed once, and none stands above another.
    #[error("node {0} is listed twice or stands above another listed leaf")]
    NotALeaf(NodeId),
    /// Beyond 64 bits with the tie rule.
    #[error("the objective needs more than 63 bits: weights and costs must be coarser")]
    Range,
    /// For plain enumeration.
    #[error("{0} leaves are too many to enumerate (at most {MOST_ENUMERATED})")]
    TooMany(usize),
    /// The tree's own.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What a set of leaves is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Evaluation {
    /// F, divided by [`Programme::divisor`].
    pub objective: i64,
    /// Nodes on the paths, leaves included.
    pub nodes: u32,
}

impl Evaluation {
    /// Which is better: by objective, then by fewer nodes.
    pub fn order(&self, other: &Self) -> Ordering {
        self.objective
            .cmp(&other.objective)
            .then(other.nodes.cmp(&self.nodes))
    }
}

/// A leaf or an ancestor: its own part of F.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vertex {
    /// Ancestors stand before their descendants.
    pub(super) parent: Option<usize>,
    /// b · W · K · cost.
    pub(super) cost: i64,
}

/// A choice of leaves. All numbers are integers, divided by the largest that divides them all.
#[derive(Clone, Debug)]
pub struct Programme {
    /// Ancestors of leaves, root first.
    pub(super) ancestors: Vec<Vertex>,
    /// The leaves, in their own order.
    pub(super) leaves: Vec<Vertex>,
    /// q · T · K · w of each leaf.
    pub(super) gains: Vec<i64>,
    /// Of each leaf: below the number of clusters.
    pub(super) clusters: Vec<usize>,
    /// Clusters K; 0 if there is no term for them.
    pub(super) cluster_count: usize,
    /// c · W · T: what a cluster is worth.
    pub(super) cover: i64,
    divisor: i64,
    scale: f64,
}

impl Programme {
    /// The choice among `leaves` of a tree, none of which stands above another.
    ///
    /// `weights` are in the order of the leaves: the continuations that each would get (the published choice: a weight's resolution is then 1/width), or any other integers, as
    /// the softmax's weights rounded to as many bits as are wanted. `clusters` are labels of any kind; K is the number of different ones, so that no cluster is empty. Without
    /// them nothing is paid for diversity.
    ///
    /// # Errors
    /// There is no leaf, a list has another length, a leaf is unknown, listed twice or above another, or the objective doesn't fit 63 bits.
    pub fn new(
        tree: &SearchTree,
        leaves: &[NodeId],
        weights: &[u32],
        clusters: Option<&[u32]>,
        prices: Prices,
    ) -> Result<Self, ProgrammeError> {
        if leaves.is_empty() {
            return Err(ProgrammeError::Empty);
        }
        let length = |given, what| ProgrammeError::Length {
            leaves: leaves.len(),
            given,
            what,
        };
        if weights.len() != leaves.len() {
            return Err(length(weights.len(), "weights"));
        }
        if let Some(clusters) = clusters
            && clusters.len() != leaves.len()
        {
            return Err(length(clusters.len(), "clusters"));
        }
        let mut is_leaf = vec![false; tree.len()];
        for &leaf in leaves {
            match is_leaf.get_mut(leaf) {
                None => return Err(TreeError::Unknown(leaf).into()),
                Some(true) => return Err(ProgrammeError::NotALeaf(leaf)),
                Some(listed) => *listed = true,
            }
        }
        let union = tree.union(leaves)?;
        // Keeps all products below within 128 bits.
        if leaves.len() > 1 << 16 || union.len() > 1 << 24 {
            return Err(ProgrammeError::Range);
        }
        let mut places = vec![0; tree.len()];
        let mut ancestors: Vec<(Option<usize>, u32)> = Vec::new();
        for &id in &union {
            let parent = tree.parent(id)?;
            if let Some(parent) = parent
                && is_leaf[parent]
            {
                return Err(ProgrammeError::NotALeaf(parent));
            }
            if !is_leaf[id] {
                places[id] = ancestors.len();
                ancestors.push((parent.map(|parent| places[parent]), tree.tokens(id)?));
            }
        }
        let mut tips: Vec<(Option<usize>, u32)> = Vec::with_capacity(leaves.len());
        for &leaf in leaves {
            let parent = tree.parent(leaf)?.map(|parent| places[parent]);
            tips.push((parent, tree.tokens(leaf)?));
        }
        let mut labels: Vec<u32> = clusters.unwrap_or_default().to_vec();
        labels.sort_unstable();
        labels.dedup();
        let cluster_of = |leaf: usize| {
            clusters
                .and_then(|clusters| labels.binary_search(&clusters[leaf]).ok())
                .unwrap_or(0)
        };
        let cost = |tokens: u32| match prices.node {
            NodePrice::Nodes => 1i128,
            NodePrice::Tokens => i128::from(tokens),
        };
        let total_cost: i128 = ancestors.iter().chain(&tips).map(|&(_, t)| cost(t)).sum();
        let total_weight: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
        // A sum of 0 leaves nothing to divide by and all of its terms 0.
        let t = total_cost.max(1);
        let w = total_weight.max(1);
        let k = labels.len().max(1) as i128;
        let (b, c) = (prices.budget.0, prices.diversity.0);
        let of_weight = i128::from(LAMBDA_RESOLUTION) * t * k;
        let of_cost = i128::from(b) * w * k;
        let of_cluster = if labels.is_empty() {
            0
        } else {
            i128::from(c) * w * t
        };
        let divisor = gcd(gcd(of_weight, of_cost), of_cluster);
        let [of_weight, of_cost, of_cluster] =
            [of_weight, of_cost, of_cluster].map(|factor| factor / divisor);
        // With all that is gained, all that is paid and the tie rule, every sum and every bound stays below.
        let nodes = union.len() as i128 + 1;
        let largest = of_weight
            .checked_mul(w)
            .zip(of_cost.checked_mul(t))
            .zip(of_cluster.checked_mul(2 * k))
            .and_then(|((gain, cost), cover)| gain.checked_add(cost)?.checked_add(cover))
            .and_then(|sum| sum.checked_mul(4)?.checked_mul(nodes));
        if largest.is_none_or(|largest| largest > i128::from(i64::MAX)) {
            return Err(ProgrammeError::Range);
        }
        let vertex = |&(parent, tokens): &(Option<usize>, u32)| Vertex {
            parent,
            cost: (of_cost * cost(tokens)) as i64,
        };
        Ok(Self {
            ancestors: ancestors.iter().map(vertex).collect(),
            leaves: tips.iter().map(vertex).collect(),
            gains: weights
                .iter()
                .map(|&weight| of_weight as i64 * i64::from(weight))
                .collect(),
            clusters: (0..leaves.len())
                .map(|leaf| if of_cluster == 0 { 0 } else { cluster_of(leaf) })
                .collect(),
            cluster_count: if of_cluster == 0 { 0 } else { labels.len() },
            cover: of_cluster as i64,
            divisor: i64::try_from(divisor).map_err(|_| ProgrammeError::Range)?,
            scale: (of_weight * w) as f64,
        })
    }

    /// Leaves to choose among.
    pub const fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Never: there is a leaf.
    pub const fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// All nodes: leaves and what stands above them.
    pub const fn node_count(&self) -> usize {
        self.leaves.len() + self.ancestors.len()
    }

    /// Clusters that are worth something.
    pub const fn cluster_count(&self) -> usize {
        self.cluster_count
    }

    /// What F and all its factors were divided by.
    pub const fn divisor(&self) -> i64 {
        self.divisor
    }

    /// The published objective of a number [`Evaluation::objective`].
    pub fn value(&self, objective: i64) -> f64 {
        objective as f64 / self.scale
    }

    /// The programme for other solvers: of each ancestor and then of each leaf its parent (an ancestor) and its cost; of each leaf its gain and its cluster; what a cluster is worth.
    pub fn parts(&self) -> Parts<'_> {
        Parts { programme: self }
    }

    /// What a set of leaves is worth; a mask that is too short holds nothing behind its end.
    pub fn evaluate(&self, kept: &[bool]) -> Evaluation {
        let mut objective = 0;
        let mut nodes = 0;
        let mut paid = vec![false; self.ancestors.len()];
        let mut covered = vec![false; self.cluster_count];
        for (leaf, _) in kept
            .iter()
            .zip(&self.leaves)
            .enumerate()
            .filter(|(_, (kept, _))| **kept)
        {
            objective += self.gains[leaf] - self.leaves[leaf].cost;
            nodes += 1;
            let mut next = self.leaves[leaf].parent;
            while let Some(ancestor) = next
                && !paid[ancestor]
            {
                paid[ancestor] = true;
                objective -= self.ancestors[ancestor].cost;
                nodes += 1;
                next = self.ancestors[ancestor].parent;
            }
            if let Some(covered) = covered.get_mut(self.clusters[leaf])
                && !*covered
            {
                *covered = true;
                objective += self.cover;
            }
        }
        Evaluation { objective, nodes }
    }

    /// The best set by trying all of them.
    ///
    /// # Errors
    /// There are more than [`MOST_ENUMERATED`] leaves.
    pub fn enumerate(&self) -> Result<(Vec<bool>, Evaluation), ProgrammeError> {
        let count = self.leaves.len();
        if count > MOST_ENUMERATED {
            return Err(ProgrammeError::TooMany(count));
        }
        let set =
            |mask: u32| -> Vec<bool> { (0..count).map(|leaf| mask >> leaf & 1 == 1).collect() };
        let mut best: Option<(u32, Evaluation)> = None;
        for mask in 1..1u32 << count {
            let found = self.evaluate(&set(mask));
            let better = best.is_none_or(|(other, value)| {
                found
                    .order(&value)
                    .then_with(|| smaller_leaves(mask, other))
                    .is_gt()
            });
            if better {
                best = Some((mask, found));
            }
        }
        best.map(|(mask, value)| (set(mask), value))
            .ok_or(ProgrammeError::Empty)
    }
}

/// Greater: the set `a` holds the smallest leaf in which they differ.
fn smaller_leaves(a: u32, b: u32) -> Ordering {
    let difference = a ^ b;
    if difference == 0 {
        Ordering::Equal
    } else if a >> difference.trailing_zeros() & 1 == 1 {
        Ordering::Greater
    } else {
        Ordering::Less
    }
}

/// A programme's numbers, for solvers of others.
///
/// As JSON, for those in other languages: `ancestors` (a list of \[parent, cost\], the parent null at a root), `leaves` (of \[parent, cost, gain, cluster\]), `clusters` (their number) and `cover`.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    programme: &'a Programme,
}

impl Parts<'_> {
    /// Parent (place among the ancestors) and cost of each ancestor, root first.
    pub fn ancestors(&self) -> impl Iterator<Item = (Option<usize>, i64)> {
        self.programme.ancestors.iter().map(|v| (v.parent, v.cost))
    }

    /// Parent, cost, gain and cluster of each leaf.
    pub fn leaves(&self) -> impl Iterator<Item = (Option<usize>, i64, i64, usize)> {
        let programme = self.programme;
        (0..programme.len()).map(|leaf| {
            let vertex = programme.leaves[leaf];
            (
                vertex.parent,
                vertex.cost,
                programme.gains[leaf],
                programme.clusters[leaf],
            )
        })
    }

    /// What covering a cluster is worth.
    pub const fn cover(&self) -> i64 {
        self.programme.cover
    }
}

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_struct("Parts", 4)?;
        parts.serialize_field("ancestors", &self.ancestors().collect::<Vec<_>>())?;
        parts.serialize_field("leaves", &self.leaves().collect::<Vec<_>>())?;
        parts.serialize_field("clusters", &self.programme.cluster_count)?;
        parts.serialize_field("cover", &self.cover())?;
        parts.end()
    }
}

const fn gcd(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
