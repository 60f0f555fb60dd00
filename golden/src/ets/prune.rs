//! Which leaves are kept, as hardware finds it: a fixed number of passes over the tree instead of a search.
//!
//! The tree is a list of vertices in depth-first order; a chain is one vertex. Objective and tie rule are one number as in the exact method: F · (nodes + 1) − nodes. Each round has two halves, and each half
//! is a pass from the last vertex to the first, which says what is worth keeping if what is above it is kept, and one from the first to the last, which keeps it.
//!
//! 1. **Prices**: a leaf earns its cluster's multiplier μ, 0 ≤ μ ≤ C, and C − μ is earned in any case. No set is worth more than this: it is a bound. Of each cluster an owner is chosen:
//!    the leaf of the largest own value among those that are kept, or else the leaf that costs least to add.
//! 2. **Owners**: the owner of a cluster earns C, other leaves nothing. What is kept is worth at least as much as it counts here, and nothing that was kept before counts less.
//!
//! Then μ rises by the step if the first half kept no leaf of the cluster, and falls if it kept two; steps begin at C / 2 and lose a quarter a round. The best set of all halves is the result; it is proved to be
//! the best of all if it reaches the bound, which also ends the work.

use serde::Serialize;

use super::select::Candidates;
use super::{
    Allocation, NodeId, NodePrice, Prices, Programme, ProgrammeError, Rule, Scores, SearchTree,
    TreeError, Visit, allocate, depth_first,
};

/// Rounds that reach the best set nearly always.
pub const ROUNDS: u32 = 16;

/// A leaf as the engine takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PruneLeaf {
    /// Its place in the list of leaves.
    pub number: u32,
    /// Its cluster, below [`PruneJob::clusters`].
    pub cluster: u32,
    /// Its weight.
    pub weight: u32,
}

/// A node as the engine takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PruneStep {
    /// How many nodes above it have more than one child.
    pub depth: u32,
    /// It has exactly one child, the next step.
    pub single: bool,
    /// What it costs, in nodes or tokens.
    pub cost: u32,
    /// What it is as a leaf.
    pub leaf: Option<PruneLeaf>,
}

/// A choice as the engine takes it: nodes in depth-first order, and three factors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PruneJob {
    /// All nodes on the leaves' paths, depth first.
    pub steps: Vec<PruneStep>,
    /// Leaves.
    pub leaves: u32,
    /// Clusters, at least 1.
    pub clusters: u32,
    /// What one of the weight is worth.
    pub gain: u64,
    /// What one of the cost takes. Each node takes one more, for the tie rule.
    pub price: u64,
    /// What a cluster is worth.
    pub cover: u64,
}

/// What the engine chose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pruned {
    /// By leaf.
    pub kept: Vec<bool>,
    /// F · (nodes + 1) − nodes of what is kept.
    pub worth: i64,
    /// No set is worth more.
    pub proved: bool,
    /// Halves of rounds.
    pub halves: u32,
}

impl PruneJob {
    /// The choice of [`Programme::new`] with these arguments, for the engine.
    ///
    /// # Errors
    /// Those of [`Programme::new`].
    pub fn new(
        tree: &SearchTree,
        leaves: &[NodeId],
        weights: &[u32],
        clusters: Option<&[u32]>,
        prices: Prices,
    ) -> Result<Self, ProgrammeError> {
        let programme = Programme::new(tree, leaves, weights, clusters, prices)?;
        let mut numbers = vec![None; tree.len()];
        for (number, &leaf) in leaves.iter().enumerate() {
            numbers[leaf] = Some(number);
        }
        let cost = |node: NodeId| match prices.node {
            NodePrice::Nodes => Ok(1),
            NodePrice::Tokens => tree.tokens(node),
        };
        let mut steps = Vec::with_capacity(programme.node_count());
        for visit in depth_first(tree, leaves)? {
            steps.push(PruneStep {
                depth: visit.depth,
                single: visit.single,
                cost: cost(visit.node)?,
                leaf: numbers[visit.node].map(|number| PruneLeaf {
                    number: number as u32,
                    cluster: programme.clusters[number] as u32,
                    weight: weights[number],
                }),
            });
        }
        // All gains are the same multiple of the weights, all costs of what they count.
        let tie = programme.node_count() as u64 + 1;
        let gain = programme
            .gains
            .iter()
            .zip(weights)
            .find(|&(_, &weight)| weight > 0)
            .map_or(0, |(&gain, &weight)| gain as u64 / u64::from(weight));
        let mut price = 0;
        for (vertex, &leaf) in programme.leaves.iter().zip(leaves) {
            price = price.max(vertex.cost as u64 / u64::from(cost(leaf)?.max(1)));
        }
        let mut above = programme.ancestors.iter();
        for node in tree.union(leaves)? {
            if numbers[node].is_none()
                && let Some(vertex) = above.next()
            {
                price = price.max(vertex.cost as u64 / u64::from(cost(node)?.max(1)));
            }
        }
        Ok(Self {
            steps,
            leaves: leaves.len() as u32,
            clusters: programme.cluster_count.max(1) as u32,
            gain: gain * tie,
            price: price * tie,
            cover: programme.cover as u64 * tie,
        })
    }

    /// Vertices: nodes that don't have exactly one child.
    pub fn vertices(&self) -> usize {
        self.steps.iter().filter(|step| !step.single).count()
    }

    /// Bits of a two's complement number that holds every sum: of all that is gained, all that is paid, and all clusters twice.
    pub fn bits(&self) -> u32 {
        let paid = |step: &PruneStep| u128::from(step.cost) * u128::from(self.price) + 1;
        let gained = |leaf: PruneLeaf| u128::from(leaf.weight) * u128::from(self.gain);
        let sum: u128 = self
            .steps
            .iter()
            .map(|step| paid(step) + step.leaf.map_or(0, gained))
            .sum();
        let all = sum + 2 * u128::from(self.clusters) * u128::from(self.cover);
        u128::BITS - all.leading_zeros() + 1
    }
}

/// A chain of nodes as one.
struct Vertex {
    depth: usize,
    value: i64,
    leaf: Option<PruneLeaf>,
}

/// How many leaves of a cluster a pass has seen and kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tally {
    Unseen,
    NoneKept,
    OneKept,
    MoreKept,
}

struct Engine<'a> {
    job: &'a PruneJob,
    vertices: Vec<Vertex>,
    keep: Vec<bool>,
    tallies: Vec<Tally>,
    /// Of each cluster's owner: its value if it is kept, or else what adding it brings.
    ranks: Vec<i64>,
    owners: Vec<u32>,
    best: Option<i64>,
    kept: Vec<bool>,
}

/// Chooses by at most so many rounds. All sums must fit 63 bits, which [`Programme::new`] makes sure of.
pub fn prune(job: &PruneJob, rounds: u32) -> Pruned {
    let mut engine = Engine::new(job);
    let cover = job.cover as i64;
    let mut multipliers = vec![cover / 2; engine.tallies.len()];
    let mut step = cover / 2;
    let mut bound = i64::MAX;
    let mut halves = 0;
    for round in 0..rounds.max(1) {
        let late = round % 2 == 1;
        let top = engine.up(|leaf| multipliers[leaf.cluster as usize]);
        engine.down(late);
        halves += 1;
        let slack: i64 = multipliers
            .iter()
            .map(|multiplier| cover - multiplier)
            .sum();
        bound = bound.min(top + slack);
        if engine.best >= Some(bound) {
            break;
        }
        for (multiplier, tally) in multipliers.iter_mut().zip(&engine.tallies) {
            *multiplier = match tally {
                Tally::Unseen | Tally::NoneKept => (*multiplier + step).min(cover),
                Tally::OneKept => *multiplier,
                Tally::MoreKept => (*multiplier - step).max(0),
            };
        }
        step -= step / 4;
        let owners = engine.owners.clone();
        engine.up(|leaf| {
            if owners[leaf.cluster as usize] == leaf.number {
                cover
            } else {
                0
            }
        });
        engine.down(late);
        halves += 1;
        if engine.best >= Some(bound) {
            break;
        }
    }
    Pruned {
        worth: engine.best.unwrap_or(0),
        proved: engine.best >= Some(bound),
        kept: engine.kept,
        halves,
    }
}

impl<'a> Engine<'a> {
    fn new(job: &'a PruneJob) -> Self {
        let mut vertices = Vec::new();
        let mut value = 0;
        for step in &job.steps {
            value -= i64::from(step.cost) * job.price as i64 + 1;
            if let Some(leaf) = step.leaf {
                value += i64::from(leaf.weight) * job.gain as i64;
            }
            if !step.single {
                vertices.push(Vertex {
                    depth: step.depth as usize,
                    value,
                    leaf: step.leaf,
                });
                value = 0;
            }
        }
        let clusters = job.clusters as usize;
        Self {
            job,
            keep: vec![false; vertices.len()],
            vertices,
            tallies: vec![Tally::Unseen; clusters],
            ranks: vec![0; clusters],
            owners: vec![0; clusters],
            best: None,
            kept: vec![false; job.leaves as usize],
        }
    }

    /// Decides from the last vertex to the first which are worth keeping; leaves earn a bonus. What the root and all that is kept below it contribute is returned.
    fn up(&mut self, bonus: impl Fn(PruneLeaf) -> i64) -> i64 {
        let deepest = self.vertices.iter().map(|vertex| vertex.depth).max();
        // What is worth keeping at each depth, since the last vertex above.
        let mut sums = vec![0; deepest.unwrap_or(0) + 2];
        let mut top = 0;
        for (vertex, keep) in self.vertices.iter().zip(&mut self.keep).rev() {
            let below = std::mem::take(&mut sums[vertex.depth + 1]);
            top = vertex.value + vertex.leaf.map_or(below, &bonus);
            *keep = top > 0;
            sums[vertex.depth] += top.max(0);
        }
        top
    }

    /// Keeps what is worth it below what is kept, the root in any case; notes it if it is the best set so far.
    fn down(&mut self, late: bool) {
        self.tallies.fill(Tally::Unseen);
        let deepest = self.vertices.iter().map(|vertex| vertex.depth).max();
        // On the path to a vertex: kept, and what adding all that isn't brings.
        let mut path = vec![(true, 0); deepest.unwrap_or(0) + 1];
        let mut kept = vec![false; self.job.leaves as usize];
        let mut worth = 0;
        let mut any = false;
        let mut alone: Option<(i64, u32)> = None;
        for (place, vertex) in self.vertices.iter().enumerate() {
            let (selected, missing) = if vertex.depth == 0 {
                (true, 0)
            } else {
                let (above, missing) = path[vertex.depth - 1];
                if above && self.keep[place] {
                    (true, 0)
                } else {
                    (false, missing + vertex.value)
                }
            };
            path[vertex.depth] = (selected, missing);
            if selected {
                worth += vertex.value;
            }
            let Some(leaf) = vertex.leaf else { continue };
            kept[leaf.number as usize] = selected;
            any |= selected;
            if alone.is_none_or(|(most, _)| missing > most) {
                alone = Some((missing, leaf.number));
            }
            let cluster = leaf.cluster as usize;
            let tally = self.tallies[cluster];
            let covered = matches!(tally, Tally::OneKept | Tally::MoreKept);
            if selected && !covered {
                worth += self.job.cover as i64;
            }
            let rank = if selected { vertex.value } else { missing };
            let better = match tally {
                Tally::Unseen => true,
                _ if covered != selected => selected,
                _ => rank > self.ranks[cluster] || (late && rank == self.ranks[cluster]),
            };
            if better {
                self.ranks[cluster] = rank;
                self.owners[cluster] = leaf.number;
            }
            self.tallies[cluster] = match (tally, selected) {
                (Tally::Unseen, false) => Tally::NoneKept,
                (tally, false) => tally,
                (Tally::Unseen | Tally::NoneKept, true) => Tally::OneKept,
                (_, true) => Tally::MoreKept,
            };
        }
        // Nothing is worth it: the leaf that costs least, alone.
        if !any && let Some((missing, number)) = alone {
            worth += missing + self.job.cover as i64;
            kept[number as usize] = true;
        }
        if self.best.is_none_or(|best| worth > best) {
            self.best = Some(worth);
            self.kept = kept;
        }
    }
}

/// What hardware selects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSelection {
    /// The tree's live leaves.
    pub leaves: Vec<NodeId>,
    /// Their scores.
    pub scores: Scores,
    /// The choice that is made.
    pub job: PruneJob,
    /// Which leaves are kept.
    pub pruned: Pruned,
    /// How often each is continued.
    pub allocation: Allocation,
    /// The kept leaves' nodes in the order in which their keys and values are read.
    pub reads: Vec<Visit>,
}

/// A node as the host of the hardware writes it; its number is its place in [`Tables::nodes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TableNode {
    /// The tree's node.
    pub id: NodeId,
    /// Its parent's number.
    pub parent: Option<u32>,
    /// What it costs, in nodes or tokens.
    pub cost: u32,
}

/// A live leaf as the host writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TableLeaf {
    /// Its node's number.
    pub node: u32,
    /// Its cluster, 0 if there are none.
    pub cluster: u32,
    /// Its score with 16 fractional bits.
    pub score: Option<i32>,
}

/// A kept node as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TableRead {
    /// Its number.
    pub node: u32,
    /// How many kept nodes above it have more than one kept child.
    pub depth: u32,
    /// It has exactly one kept child, which is read next.
    pub single: bool,
    /// A leaf's place in the list of leaves.
    pub leaf: Option<u32>,
}

/// A selection in the numbers of the hardware: what the host writes, and what is read. Nodes are those on the live leaves' paths, in the tree's order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tables {
    /// The nodes.
    pub nodes: Vec<TableNode>,
    /// The leaves.
    pub leaves: Vec<TableLeaf>,
    /// The kept nodes, depth first.
    pub reads: Vec<TableRead>,
}

impl EngineSelection {
    /// The selection in the numbers of the hardware.
    ///
    /// # Errors
    /// The tree is another one.
    pub fn tables(&self, tree: &SearchTree) -> Result<Tables, TreeError> {
        let union = tree.union(&self.leaves)?;
        let number = |node: NodeId| union.binary_search(&node).map_or(0, |place| place as u32);
        let mut nodes = Vec::with_capacity(union.len());
        for &node in &union {
            nodes.push(TableNode {
                id: node,
                parent: tree.parent(node)?.map(number),
                cost: 0,
            });
        }
        let mut clusters = vec![0; self.leaves.len()];
        for (visit, step) in depth_first(tree, &self.leaves)?.iter().zip(&self.job.steps) {
            nodes[number(visit.node) as usize].cost = step.cost;
            if let Some(leaf) = step.leaf {
                clusters[leaf.number as usize] = leaf.cluster;
            }
        }
        let leaves = self.leaves.iter().zip(&clusters).zip(self.scores.fixed());
        let leaves = leaves.map(|((&leaf, &cluster), &score)| TableLeaf {
            node: number(leaf),
            cluster,
            score,
        });
        let reads = self.reads.iter().map(|visit| {
            let leaf = self.leaves.iter().position(|&leaf| leaf == visit.node);
            TableRead {
                node: number(visit.node),
                depth: visit.depth,
                single: visit.single,
                leaf: leaf.filter(|_| visit.leaf).map(|place| place as u32),
            }
        });
        Ok(Tables {
            leaves: leaves.collect(),
            reads: reads.collect(),
            nodes,
        })
    }

    /// The choice as an integer programme, for the exact method.
    ///
    /// # Errors
    /// Those of [`Programme::new`].
    pub fn programme(
        &self,
        tree: &SearchTree,
        prices: Prices,
    ) -> Result<Programme, ProgrammeError> {
        let mut weights = vec![0; self.leaves.len()];
        for leaf in self.job.steps.iter().filter_map(|step| step.leaf) {
            weights[leaf.number as usize] = leaf.weight;
        }
        let mut clusters = Vec::with_capacity(self.leaves.len());
        for &leaf in &self.leaves {
            clusters.extend(tree.cluster(leaf)?);
        }
        let clusters =
            Some(clusters.as_slice()).filter(|clusters| clusters.len() == self.leaves.len());
        Programme::new(tree, &self.leaves, &weights, clusters, prices)
    }
}

/// One step of a search as hardware makes it: [`super::select()`] with [`prune`] instead of the exact method, and the way through what is kept. The rule's effort doesn't count.
///
/// # Errors
/// Those of [`Programme::new`].
pub fn select_by_engine(
    tree: &SearchTree,
    rule: Rule,
    rounds: u32,
) -> Result<Option<EngineSelection>, ProgrammeError> {
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
    let job = PruneJob::new(tree, &leaves, &weights, clusters.as_deref(), rule.prices)?;
    let pruned = prune(&job, rounds);
    let allocation = allocate(&scores, Some(&pruned.kept), rule.temperature, width);
    let kept: Vec<NodeId> = leaves
        .iter()
        .zip(&pruned.kept)
        .filter_map(|(&leaf, &kept)| kept.then_some(leaf))
        .collect();
    let reads = depth_first(tree, &kept)?;
    Ok(Some(EngineSelection {
        leaves,
        scores,
        job,
        pruned,
        allocation,
        reads,
    }))
}
