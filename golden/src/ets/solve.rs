//! The exact method: Lagrangian bounds by dynamic programming on the tree, and branch and bound on nodes.
//!
//! Objective and tie rule are one number, F · (nodes + 1) − nodes in use. What makes the programme hard is that a cluster is paid for once. So each cluster gets a multiplier μ of 0 to C, the
//! worth of a cluster: each leaf of it earns μ, and C − μ is earned in any case. That is never less than what a set of leaves really earns, and the best set of the relaxed problem is found by one pass over
//! the tree from the leaves up, as a node is kept if what is kept below it pays for it. Whatever the multipliers are, the sum is a bound, in integers; they are moved by subgradients.
//!
//! * Before: chains become one node, and a leaf is struck out if another of its cluster, at most as deep on the same path, serves as well.
//! * Each bound also fixes nodes: those that would lower it below the best known set if they were kept, or if they weren't.
//! * Branching is on the node that the relaxed sets agree least about, and that has most below it. A cluster with one leaf left, or one leaf kept, has an exact multiplier, so that the bound becomes exact.
//! * Parts that don't touch, below vertices that are kept and with no open cluster in common, are searched by themselves.
//! * Of equal sets, the leaves are gone through in order, each is asked for if the best known set doesn't have it, and kept if there is a set as good.

mod core;
mod descent;

use serde::Serialize;

use self::core::{Core, Growth};
use super::cluster::Joined;
use super::{Evaluation, Programme};

/// What a search may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Effort {
    /// Most nodes of branch and bound.
    pub nodes: u64,
}

impl Default for Effort {
    /// 100 000 nodes; a programme of 256 leaves takes some tens, one made of ties up to thousands.
    fn default() -> Self {
        Self { nodes: 100_000 }
    }
}

/// The leaves to keep.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Solution {
    /// By leaf.
    pub kept: Vec<bool>,
    /// What they are worth.
    pub evaluation: Evaluation,
    /// No set is better by objective, nodes and leaves; false if the effort ended before that was known.
    pub proved: bool,
    /// No set has a larger objective than this.
    pub bound: i64,
    /// Nodes of branch and bound.
    pub nodes: u64,
    /// Passes over the tree.
    pub relaxations: u64,
    /// Vertices of the tree after reduction.
    pub reduced: usize,
}

impl Programme {
    /// The best set of leaves.
    pub fn solve(&self, effort: Effort) -> Solution {
        let core = Core::new(self);
        let mut tally = Tally {
            effort,
            nodes: 0,
            relaxations: 0,
        };
        let found = Search::new(&core).run(&mut tally, DEEPEST, true);
        let kept = core.leaves_of(&found.set, self.len());
        let evaluation = self.evaluate(&kept);
        Solution {
            kept,
            evaluation,
            proved: found.proved,
            bound: found.bound.div_euclid(core.scale)
                + i64::from(found.bound.rem_euclid(core.scale) != 0),
            nodes: tally.nodes,
            relaxations: tally.relaxations,
            reduced: core.len(),
        }
    }
}

/// Below every sum that a programme has (it keeps them under 2⁶¹).
const NEVER: i64 = -(1 << 62);
/// Sums with a `NEVER` in them are below this, others above.
const IMPOSSIBLE: i64 = -(1 << 61);
/// Passes at the first node, and at the others.
const FIRST_PASSES: u32 = 250;
const PASSES: u32 = 40;
/// Passes without a lower bound until steps are halved.
const PATIENCE: u32 = 8;
/// How often a part may be split again; deeper parts are searched as they are.
const DEEPEST: u32 = 48;

/// What a search took so far.
struct Tally {
    effort: Effort,
    nodes: u64,
    relaxations: u64,
}

/// What is decided about a vertex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fix {
    Free,
    In,
    Out,
}

/// A node of branch and bound.
#[derive(Clone)]
struct Branch {
    fixes: Vec<Fix>,
    multipliers: Vec<i64>,
    /// Multipliers that are exact: of clusters with a leaf kept, and with at most one left.
    exact: Vec<bool>,
}

/// What a search below a node is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Sets better than the best known.
    Better,
    /// A set that is worth this.
    Equal(i64),
}

/// What became of a node.
enum Outcome {
    /// Nothing below it serves.
    Closed,
    /// A set as good as was wanted is the best now.
    Found,
    /// A vertex to decide about, and whether it is more likely kept.
    Open(usize, bool),
}

/// What a search found.
struct Found {
    set: Vec<bool>,
    /// The set is the best.
    proved: bool,
    bound: i64,
}

/// What is left of a choice when much of it is decided: parts that don't touch each other.
struct Parts {
    taken: Vec<bool>,
    base: i64,
    /// Each with the vertices that its own were.
    parts: Vec<(Core, Vec<usize>)>,
}

struct Search<'a> {
    core: &'a Core,
    /// The best set known, and its worth.
    best: Vec<bool>,
    worth: i64,
    /// Of the last pass: what each vertex and all below it contribute if it is kept.
    gains: Vec<i64>,
    /// Children that are kept because they pay, or must be.
    contributing: Vec<u32>,
    /// Largest and second largest gain of the other children.
    others: Vec<[i64; 2]>,
    /// The one with the largest.
    leading: Vec<usize>,
    selected: Vec<bool>,
    counts: Vec<i64>,
    /// What is lost if a vertex has to be kept, or mustn't be.
    losses: Vec<[i64; 2]>,
}

impl<'a> Search<'a> {
    fn new(core: &'a Core) -> Self {
        let count = core.len();
        let mut best = vec![true; count];
        core.improve(&mut best);
        Self {
            core,
            worth: core.worth(&best),
            best,
            gains: vec![0; count],
            contributing: vec![0; count],
            others: vec![[NEVER; 2]; count],
            leading: vec![0; count],
            selected: vec![false; count],
            counts: vec![0; core.covers.len()],
            losses: vec![[0; 2]; count],
        }
    }

    /// The best set; with `ties`, the one with the smallest leaves of all that are worth as much.
    fn run(mut self, tally: &mut Tally, depth: u32, ties: bool) -> Found {
        let start = Branch {
            fixes: self
                .core
                .forced
                .iter()
                .map(|&forced| if forced { Fix::In } else { Fix::Free })
                .collect(),
            multipliers: self.core.covers.iter().map(|cover| cover / 2).collect(),
            exact: vec![false; self.core.covers.len()],
        };
        let mut root = start.clone();
        let mut bound = self.upper_bound();
        let outcome = self.explore(&mut root, Goal::Better, FIRST_PASSES, &mut bound, tally, 0);
        let open = match outcome {
            Outcome::Open(vertex, keep) => Some((vertex, keep)),
            Outcome::Closed | Outcome::Found => None,
        };
        if open.is_none() {
            bound = self.worth;
        }
        if open.is_some() || ties {
            // What was fixed for better sets doesn't hold for equal ones: here, all as good as the best known survive.
            let mut equal = start;
            equal.multipliers.clone_from(&root.multipliers);
            let worth = self.worth;
            self.tighten(&mut equal, worth, tally);
            if depth > 0
                && let Some(parts) = self.split(&equal)
            {
                let mut found = self.by_parts(parts, tally, depth - 1, ties);
                found.bound = found.bound.min(bound);
                return found;
            }
            let finished =
                open.is_none_or(|open| self.branch(root, Some(open), Goal::Better, tally, depth));
            if finished {
                bound = self.worth;
            }
            let proved = finished && (!ties || self.first_of_equals(equal, tally, depth));
            return self.found(proved, bound);
        }
        self.found(true, bound)
    }

    fn found(self, proved: bool, bound: i64) -> Found {
        Found {
            set: self.best,
            proved,
            bound: bound.max(self.worth),
        }
    }

    /// Fixes what is alike in all sets that are worth this.
    fn tighten(&mut self, at: &mut Branch, worth: i64, tally: &mut Tally) {
        while self.propagate(at) && self.relax(at, tally) >= worth && self.fix(at, worth) {}
    }

    /// The best set by the best of each part. The best known set stays if the effort ends.
    fn by_parts(&self, parts: Parts, tally: &mut Tally, depth: u32, ties: bool) -> Found {
        let mut set = parts.taken;
        let mut bound = parts.base;
        let mut proved = true;
        for (core, names) in &parts.parts {
            let found = Search::new(core).run(tally, depth, ties);
            proved &= found.proved;
            bound += found.bound;
            for (vertex, &name) in names.iter().enumerate() {
                if core.leaves[vertex].is_none() || !found.set[vertex] {
                    continue;
                }
                let mut above = name;
                while !std::mem::replace(&mut set[above], true) {
                    above = self.core.parents[above];
                }
            }
        }
        if !proved && self.core.worth(&set) < self.worth {
            set.clone_from(&self.best);
        }
        Found { set, proved, bound }
    }

    /// Takes apart what doesn't touch: below vertices that are kept anyway, and with leaves of clusters that are covered anyway. Nothing if it is one part, not much smaller.
    fn split(&self, at: &Branch) -> Option<Parts> {
        let core = self.core;
        let count = core.len();
        let mut settled = vec![false; count];
        for vertex in (0..count).rev() {
            if at.fixes[vertex] == Fix::In {
                settled[vertex] |= core.leaves[vertex].is_some();
                settled[core.parents[vertex]] |= vertex > 0;
            }
        }
        if let Some(root) = settled.first_mut() {
            *root |= core.optional;
        }
        let mut covered: Vec<bool> = core.covers.iter().map(|&cover| cover == 0).collect();
        let mut base = 0;
        for vertex in (0..count).filter(|&vertex| settled[vertex]) {
            base += core.values[vertex];
            if let Some((_, cluster)) = core.leaves[vertex]
                && !std::mem::replace(&mut covered[cluster], true)
            {
                base += core.covers[cluster];
            }
        }
        let loose: Vec<usize> = (0..count)
            .filter(|&vertex| !settled[vertex] && at.fixes[vertex] != Fix::Out)
            .collect();
        let mut joined = Joined::new(count);
        let mut first = vec![None; core.covers.len()];
        for &vertex in &loose {
            if vertex > 0 && !settled[core.parents[vertex]] {
                joined.join(core.parents[vertex], vertex);
            }
            if let Some((_, cluster)) = core.leaves[vertex]
                && !covered[cluster]
            {
                joined.join(*first[cluster].get_or_insert(vertex), vertex);
            }
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut group_of = vec![None; count];
        for &vertex in &loose {
            let group = *group_of[joined.first(vertex)].get_or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(vertex);
        }
        if groups.len() == 1 && loose.len() * 4 > count * 3 {
            return None;
        }
        let mut places = vec![0; count];
        let mut clusters = vec![None; core.covers.len()];
        let parts = groups
            .into_iter()
            .map(|members| {
                let mut covers = Vec::new();
                clusters.fill(None);
                let mut growth = Growth {
                    parents: vec![None],
                    values: vec![0],
                    leaves: vec![None],
                    forced: vec![true],
                    alive: vec![true; members.len() + 1],
                    optional: true,
                };
                for (place, &vertex) in members.iter().enumerate() {
                    places[vertex] = place + 1;
                    let parent = core.parents[vertex];
                    let below_root = vertex == 0 || settled[parent];
                    growth
                        .parents
                        .push(Some(if below_root { 0 } else { places[parent] }));
                    growth.values.push(core.values[vertex]);
                    growth.forced.push(at.fixes[vertex] == Fix::In);
                    growth
                        .leaves
                        .push(core.leaves[vertex].map(|(leaf, cluster)| {
                            if covered[cluster] {
                                return (leaf, usize::MAX);
                            }
                            let cluster = *clusters[cluster].get_or_insert_with(|| {
                                covers.push(core.covers[cluster]);
                                covers.len() - 1
                            });
                            (leaf, cluster)
                        }));
                }
                // Leaves whose cluster is covered have the last one.
                for (_, cluster) in growth.leaves.iter_mut().flatten() {
                    *cluster = (*cluster).min(covers.len());
                }
                covers.push(0);
                let (part, names) = growth.reduce(covers, core.scale);
                let names = names
                    .iter()
                    .map(|&name| name.checked_sub(1).map_or(0, |member| members[member]))
                    .collect();
                (part, names)
            })
            .collect();
        Some(Parts {
            taken: settled,
            base,
            parts,
        })
    }

    /// All that can be earned.
    fn upper_bound(&self) -> i64 {
        let earned: i64 = self.core.values.iter().map(|&value| value.max(0)).sum();
        earned + self.core.covers.iter().sum::<i64>()
    }

    /// Makes the best set the one with the smallest leaves of all that are worth as much. False if the effort ended.
    fn first_of_equals(&mut self, mut at: Branch, tally: &mut Tally, depth: u32) -> bool {
        let worth = self.worth;
        let mut leaves: Vec<(usize, usize)> = (0..self.core.len())
            .filter_map(|vertex| self.core.leaves[vertex].map(|(leaf, _)| (leaf, vertex)))
            .collect();
        leaves.sort_unstable();
        let mut stale = true;
        for (_, vertex) in leaves {
            if stale {
                self.tighten(&mut at, worth, tally);
                stale = false;
            }
            if at.fixes[vertex] != Fix::Free {
                continue;
            }
            if !self.best[vertex] {
                let mut with = at.clone();
                with.fixes[vertex] = Fix::In;
                if !self.branch(with, None, Goal::Equal(worth), tally, depth) {
                    return false;
                }
            }
            at.fixes[vertex] = if self.best[vertex] { Fix::In } else { Fix::Out };
            stale = true;
        }
        true
    }

    /// Branch and bound below a node, which may have been explored already. False if the effort ended.
    fn branch(
        &mut self,
        root: Branch,
        open: Option<(usize, bool)>,
        goal: Goal,
        tally: &mut Tally,
        depth: u32,
    ) -> bool {
        let mut stack = Vec::new();
        match open {
            Some((vertex, keep)) => split(&mut stack, root, vertex, keep),
            None => stack.push(root),
        }
        while let Some(mut at) = stack.pop() {
            if tally.nodes >= tally.effort.nodes {
                return false;
            }
            let mut bound = i64::MAX;
            match self.explore(&mut at, goal, PASSES, &mut bound, tally, depth) {
                Outcome::Closed => {}
                Outcome::Found => break,
                Outcome::Open(vertex, keep) => split(&mut stack, at, vertex, keep),
            }
        }
        tally.nodes < tally.effort.nodes
    }

    /// Bounds a node, fixes what can be fixed, and looks for sets. `bound` is lowered.
    fn explore(
        &mut self,
        at: &mut Branch,
        goal: Goal,
        passes: u32,
        bound: &mut i64,
        tally: &mut Tally,
        depth: u32,
    ) -> Outcome {
        tally.nodes += 1;
        if !self.propagate(at) {
            return Outcome::Closed;
        }
        let mut multipliers = at.multipliers.clone();
        let mut lowest = i64::MAX;
        let mut frequency = vec![0u32; self.core.len()];
        let (mut step, mut stalled) = (1.0, 0);
        for pass in 0..passes {
            let found = self.relax(at, tally);
            if let Some(outcome) = self.offer(goal, found) {
                *bound = (*bound).min(found);
                return outcome;
            }
            if goal == Goal::Better && pass % 8 == 0 {
                let mut set = self.selected.clone();
                self.core.improve(&mut set);
                self.take(set);
            }
            let target = match goal {
                Goal::Better => self.worth,
                Goal::Equal(worth) => worth - 1,
            };
            if found <= target {
                *bound = (*bound).min(found);
                return Outcome::Closed;
            }
            if found < lowest {
                lowest = found;
                *bound = (*bound).min(found);
                multipliers.clone_from(&at.multipliers);
                stalled = 0;
                let changed = self.fix(at, target + 1);
                if changed && !self.propagate(at) {
                    return Outcome::Closed;
                }
            } else {
                stalled += 1;
                if stalled == PATIENCE {
                    step *= 0.5;
                    stalled = 0;
                    at.multipliers.clone_from(&multipliers);
                    self.pin(at);
                    self.relax(at, tally);
                }
            }
            if pass * 2 >= passes {
                for (frequency, &selected) in frequency.iter_mut().zip(&self.selected) {
                    *frequency += u32::from(selected);
                }
            }
            self.descend(at, step * (lowest - target) as f64);
        }
        at.multipliers = multipliers;
        self.pin(at);
        if depth > 0
            && let Some(parts) = self.split(at)
        {
            let found = self.by_parts(parts, tally, depth - 1, false);
            return match goal {
                Goal::Equal(worth) if self.core.worth(&found.set) >= worth => {
                    self.best = found.set;
                    Outcome::Found
                }
                Goal::Equal(_) => Outcome::Closed,
                Goal::Better => {
                    self.take(found.set);
                    Outcome::Closed
                }
            };
        }
        let half = passes - passes.div_ceil(2);
        // A vertex that the passes didn't agree about, and that has much below it.
        let open = (0..self.core.len())
            .filter(|&vertex| at.fixes[vertex] == Fix::Free)
            .max_by_key(|&vertex| {
                let kept = u64::from(frequency[vertex].min(half));
                let doubt = kept.min(u64::from(half) - kept);
                let below = self.core.ends[vertex] - vertex;
                ((doubt + 1) * below as u64, std::cmp::Reverse(vertex))
            });
        open.map_or(Outcome::Closed, |vertex| {
            Outcome::Open(vertex, frequency[vertex] * 2 >= half)
        })
    }

    /// Takes the relaxed set if it serves, and closes a node that nothing below can serve for.
    fn offer(&mut self, goal: Goal, bound: i64) -> Option<Outcome> {
        if bound < IMPOSSIBLE {
            return Some(Outcome::Closed);
        }
        match goal {
            Goal::Better => {
                self.take(self.selected.clone());
                (bound <= self.worth).then_some(Outcome::Closed)
            }
            Goal::Equal(worth) => {
                if bound < worth {
                    return Some(Outcome::Closed);
                }
                if self.core.worth(&self.selected) < worth {
                    return None;
                }
                self.best.clone_from(&self.selected);
                Some(Outcome::Found)
            }
        }
    }

    /// Keeps a set if it is better than the best known.
    fn take(&mut self, set: Vec<bool>) {
        let worth = self.core.worth(&set);
        if worth > self.worth {
            (self.best, self.worth) = (set, worth);
        }
    }

    /// Follows what is fixed up and down the tree. False if nothing is left.
    fn propagate(&self, at: &mut Branch) -> bool {
        let core = self.core;
        let fixes = &mut at.fixes;
        let count = core.len();
        if count == 0 || fixes[0] == Fix::Out {
            return false;
        }
        fixes[0] = Fix::In;
        for vertex in 1..count {
            if fixes[core.parents[vertex]] == Fix::Out {
                if fixes[vertex] == Fix::In {
                    return false;
                }
                fixes[vertex] = Fix::Out;
            }
        }
        // Children that aren't out.
        let mut open = vec![0u32; count];
        for vertex in (0..count).rev() {
            if core.leaves[vertex].is_none() && open[vertex] == 0 && !(vertex == 0 && core.optional)
            {
                if fixes[vertex] == Fix::In {
                    return false;
                }
                fixes[vertex] = Fix::Out;
            }
            if vertex > 0 {
                let parent = core.parents[vertex];
                open[parent] += u32::from(fixes[vertex] != Fix::Out);
                if fixes[vertex] == Fix::In {
                    if fixes[parent] == Fix::Out {
                        return false;
                    }
                    fixes[parent] = Fix::In;
                }
            }
        }
        for vertex in 1..count {
            let parent = core.parents[vertex];
            let needed = parent > 0 || !core.optional;
            if needed && fixes[parent] == Fix::In && open[parent] == 1 && fixes[vertex] == Fix::Free
            {
                fixes[vertex] = Fix::In;
            }
        }
        self.pin(at);
        true
    }

    /// Sets the multipliers that are exact.
    fn pin(&self, at: &mut Branch) {
        let mut left = vec![0u32; self.core.covers.len()];
        let mut kept = vec![false; self.core.covers.len()];
        for (leaf, &fix) in self.core.leaves.iter().zip(&at.fixes) {
            if let Some((_, cluster)) = *leaf {
                left[cluster] += u32::from(fix != Fix::Out);
                kept[cluster] |= fix == Fix::In;
            }
        }
        for (cluster, &cover) in self.core.covers.iter().enumerate() {
            at.exact[cluster] = kept[cluster] || left[cluster] < 2;
            if kept[cluster] {
                at.multipliers[cluster] = 0;
            } else if left[cluster] < 2 {
                at.multipliers[cluster] = cover;
            }
        }
    }

    /// The best set of the relaxed problem; its worth is a bound.
    fn relax(&mut self, at: &Branch, tally: &mut Tally) -> i64 {
        tally.relaxations += 1;
        let core = self.core;
        let count = core.len();
        self.gains.copy_from_slice(&core.values);
        self.contributing.fill(0);
        self.others.fill([NEVER; 2]);
        for vertex in (0..count).rev() {
            let gain = if at.fixes[vertex] == Fix::Out {
                NEVER
            } else if let Some((_, cluster)) = core.leaves[vertex] {
                self.gains[vertex] + at.multipliers[cluster]
            } else if self.gains[vertex] < IMPOSSIBLE {
                NEVER
            } else if self.contributing[vertex] == 0 && !(vertex == 0 && core.optional) {
                let best = self.others[vertex][0];
                if best < IMPOSSIBLE {
                    NEVER
                } else {
                    self.gains[vertex] + best
                }
            } else {
                self.gains[vertex]
            };
            self.gains[vertex] = gain;
            if vertex == 0 {
                break;
            }
            let parent = core.parents[vertex];
            if gain < IMPOSSIBLE {
                if at.fixes[vertex] == Fix::In {
                    self.gains[parent] = NEVER;
                }
            } else if gain > 0 || at.fixes[vertex] == Fix::In {
                self.contributing[parent] += 1;
                if self.gains[parent] >= IMPOSSIBLE {
                    self.gains[parent] += gain;
                }
            } else if gain > self.others[parent][0] {
                self.others[parent] = [gain, self.others[parent][0]];
                self.leading[parent] = vertex;
            } else if gain > self.others[parent][1] {
                self.others[parent][1] = gain;
            }
        }
        let Some(&root) = self.gains.first() else {
            return NEVER;
        };
        if root < IMPOSSIBLE {
            return NEVER;
        }
        self.counts.fill(0);
        self.selected[0] = true;
        for vertex in 0..count {
            if vertex > 0 {
                let parent = core.parents[vertex];
                self.selected[vertex] = self.selected[parent] && self.contributes(at, vertex);
            }
            if let (Some((_, cluster)), true) = (core.leaves[vertex], self.selected[vertex]) {
                self.counts[cluster] += 1;
            }
        }
        let certain = core.certain(&at.multipliers);
        root + certain
    }

    /// Whether a vertex is kept if its parent is.
    fn contributes(&self, at: &Branch, vertex: usize) -> bool {
        let parent = self.core.parents[vertex];
        self.gains[vertex] >= IMPOSSIBLE
            && (self.gains[vertex] > 0
                || at.fixes[vertex] == Fix::In
                || self.contributing[parent] == 0
                    && self.leading[parent] == vertex
                    && !(parent == 0 && self.core.optional))
    }

    /// Fixes what can't be otherwise in a set worth `wanted`, by the last pass. True if anything was.
    fn fix(&mut self, at: &mut Branch, wanted: i64) -> bool {
        let core = self.core;
        let Some(&root) = self.gains.first() else {
            return false;
        };
        let certain = core.certain(&at.multipliers);
        let slack = root + certain - wanted;
        let far = -IMPOSSIBLE;
        let mut changed = false;
        if let Some(first) = self.losses.first_mut() {
            *first = [0, far];
        }
        for vertex in 1..core.len() {
            let parent = core.parents[vertex];
            let gain = self.gains[vertex];
            let [kept_above, dropped_above] = self.losses[parent];
            let [first, second] = self.others[parent];
            let free_root = parent == 0 && core.optional;
            let kept = if gain < IMPOSSIBLE {
                far
            } else if self.contributes(at, vertex) {
                kept_above
            } else if self.contributing[parent] > 0 || free_root {
                kept_above.saturating_add(-gain)
            } else {
                kept_above.saturating_add(first - gain)
            };
            let dropped = if at.fixes[vertex] == Fix::In {
                far
            } else if !self.selected[vertex] {
                0
            } else {
                let stays = match self.contributing[parent] {
                    _ if free_root => gain,
                    // Without it the best of the others would be needed.
                    0 => gain.saturating_sub(second),
                    1 => gain.saturating_sub(first),
                    _ => gain,
                };
                stays.min(dropped_above)
            };
            self.losses[vertex] = [kept.min(far), dropped.min(far)];
            if at.fixes[vertex] == Fix::Free {
                if kept > slack {
                    at.fixes[vertex] = Fix::Out;
                    changed = true;
                } else if dropped > slack {
                    at.fixes[vertex] = Fix::In;
                    changed = true;
                }
            }
        }
        changed
    }

    /// Moves the multipliers against the subgradient of the last pass, by a length whose square is `fall`² over its own.
    fn descend(&self, at: &mut Branch, fall: f64) {
        let covers = &self.core.covers;
        let slope = |at: &Branch, cluster: usize| {
            let slope = self.counts[cluster] - 1;
            let multiplier = at.multipliers[cluster];
            let stuck = slope > 0 && multiplier == 0 || slope < 0 && multiplier == covers[cluster];
            if stuck || at.exact[cluster] { 0 } else { slope }
        };
        let square: i64 = (0..self.core.covers.len())
            .map(|cluster| slope(at, cluster).pow(2))
            .sum();
        if square == 0 {
            return;
        }
        let length = (fall / square as f64).max(1.0);
        for (cluster, &cover) in covers.iter().enumerate() {
            let slope = slope(at, cluster);
            if slope != 0 {
                let moved = at.multipliers[cluster] as f64 - length * slope as f64;
                at.multipliers[cluster] = (moved as i64).clamp(0, cover);
            }
        }
    }
}

/// Both sides of a decision; the likelier one is next.
fn split(stack: &mut Vec<Branch>, at: Branch, vertex: usize, keep: bool) {
    let mut other = at.clone();
    let mut likely = at;
    (likely.fixes[vertex], other.fixes[vertex]) = if keep {
        (Fix::In, Fix::Out)
    } else {
        (Fix::Out, Fix::In)
    };
    stack.extend([other, likely]);
}
