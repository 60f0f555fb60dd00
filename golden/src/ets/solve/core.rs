//! The tree that is searched: without chains, and without leaves that others serve as well for.

use super::super::Programme;

/// The tree after reduction. A parent stands before its children, and what is below a vertex directly behind it.
pub(super) struct Core {
    pub(super) parents: Vec<usize>,
    /// One behind the last vertex below each.
    pub(super) ends: Vec<usize>,
    /// What a vertex adds itself, the tie rule included.
    pub(super) values: Vec<i64>,
    /// A leaf's place in the programme and its cluster.
    pub(super) leaves: Vec<Option<(usize, usize)>>,
    /// What must be kept.
    pub(super) forced: Vec<bool>,
    /// What each cluster is worth; the last is that of leaves whose cluster is covered already, worth nothing.
    pub(super) covers: Vec<i64>,
    /// The root stands for what is kept already: it needs no child.
    pub(super) optional: bool,
    /// One unit of the objective.
    pub(super) scale: i64,
}

impl Core {
    pub(super) fn new(programme: &Programme) -> Self {
        let scale = programme.node_count() as i64 + 1;
        let ancestors = programme.ancestors.len();
        let count = programme.node_count();
        let mut covers = vec![programme.cover * scale; programme.cluster_count];
        covers.push(0);
        let growth = Growth {
            parents: programme
                .ancestors
                .iter()
                .chain(&programme.leaves)
                .map(|v| v.parent)
                .collect(),
            values: programme
                .ancestors
                .iter()
                .map(|vertex| -vertex.cost * scale - 1)
                .chain(
                    programme
                        .leaves
                        .iter()
                        .zip(&programme.gains)
                        .map(|(vertex, gain)| (gain - vertex.cost) * scale - 1),
                )
                .collect(),
            leaves: (0..count)
                .map(|place| {
                    let leaf = place.checked_sub(ancestors)?;
                    Some((leaf, programme.clusters[leaf]))
                })
                .collect(),
            forced: vec![false; count],
            alive: vec![true; count],
            optional: false,
        };
        growth.reduce(covers, scale).0
    }

    pub(super) fn len(&self) -> usize {
        self.parents.len()
    }

    pub(super) fn leaves_of(&self, selected: &[bool], count: usize) -> Vec<bool> {
        let mut kept = vec![false; count];
        for (leaf, &selected) in self.leaves.iter().zip(selected) {
            if let (Some((leaf, _)), true) = (leaf, selected) {
                kept[*leaf] = true;
            }
        }
        kept
    }

    /// What is earned whatever is kept.
    pub(super) fn certain(&self, multipliers: &[i64]) -> i64 {
        self.covers
            .iter()
            .zip(multipliers)
            .map(|(cover, multiplier)| cover - multiplier)
            .sum()
    }

    /// What a selection, whose vertices hold their parents, is worth.
    pub(super) fn worth(&self, selected: &[bool]) -> i64 {
        let mut covered = vec![false; self.covers.len()];
        let mut sum = 0;
        for vertex in (0..self.len()).filter(|&vertex| selected[vertex]) {
            sum += self.values[vertex];
            if let Some((_, cluster)) = self.leaves[vertex]
                && !std::mem::replace(&mut covered[cluster], true)
            {
                sum += self.covers[cluster];
            }
        }
        sum
    }
}

/// The tree while it is reduced.
pub(super) struct Growth {
    pub(super) parents: Vec<Option<usize>>,
    pub(super) values: Vec<i64>,
    pub(super) leaves: Vec<Option<(usize, usize)>>,
    pub(super) forced: Vec<bool>,
    pub(super) alive: Vec<bool>,
    /// Vertex 0 is a root that needs no child.
    pub(super) optional: bool,
}

impl Growth {
    /// Shrinks the tree as far as it goes. With it, the vertex that each of the core's was, the last of a chain.
    pub(super) fn reduce(mut self, covers: Vec<i64>, scale: i64) -> (Core, Vec<usize>) {
        let mut order = self.order();
        loop {
            self.contract(&order);
            order = self.order();
            if !self.strike(&order, covers.len()) {
                break;
            }
        }
        let mut places = vec![0; self.parents.len()];
        for (place, &(vertex, _)) in order.iter().enumerate() {
            places[vertex] = place;
        }
        let names: Vec<usize> = order.iter().map(|&(vertex, _)| vertex).collect();
        let core = Core {
            parents: names
                .iter()
                .map(|&vertex| self.parents[vertex].map_or(0, |parent| places[parent]))
                .collect(),
            ends: order.iter().map(|&(_, end)| end).collect(),
            values: names.iter().map(|&vertex| self.values[vertex]).collect(),
            leaves: names.iter().map(|&vertex| self.leaves[vertex]).collect(),
            forced: names.iter().map(|&vertex| self.forced[vertex]).collect(),
            covers,
            optional: self.optional,
            scale,
        };
        (core, names)
    }

    /// Living vertices that have a leaf below them, parents first and subtrees together, each with one behind its last descendant's place.
    fn order(&mut self) -> Vec<(usize, usize)> {
        let count = self.parents.len();
        let mut has_leaf: Vec<bool> = (0..count)
            .map(|vertex| self.alive[vertex] && self.leaves[vertex].is_some())
            .collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut roots = Vec::new();
        // Ancestors stand before their descendants, leaves behind all ancestors, and contraction only shortens paths.
        for vertex in (0..count).rev() {
            self.alive[vertex] &= has_leaf[vertex];
            if !self.alive[vertex] {
                continue;
            }
            match self.parents[vertex] {
                Some(parent) => {
                    has_leaf[parent] = true;
                    children[parent].push(vertex);
                }
                None => roots.push(vertex),
            }
        }
        let mut order: Vec<(usize, usize)> = Vec::new();
        let mut stack: Vec<(usize, Option<usize>)> =
            roots.iter().map(|&root| (root, None)).collect();
        while let Some((vertex, place)) = stack.pop() {
            if let Some(place) = place {
                order[place].1 = order.len();
            } else {
                stack.push((vertex, Some(order.len())));
                order.push((vertex, 0));
                stack.extend(children[vertex].iter().map(|&child| (child, None)));
            }
        }
        order
    }

    /// Merges every vertex that has one child with this child.
    fn contract(&mut self, order: &[(usize, usize)]) {
        let mut children = vec![0u32; self.parents.len()];
        for &(vertex, _) in order {
            if let Some(parent) = self.parents[vertex] {
                children[parent] += 1;
            }
        }
        for &(vertex, _) in order {
            if let Some(parent) = self.parents[vertex]
                && children[parent] == 1
                && !(self.optional && parent == 0)
            {
                self.forced[vertex] |= self.forced[parent];
                self.values[vertex] += self.values[parent];
                self.parents[vertex] = self.parents[parent];
                self.alive[parent] = false;
            }
        }
    }

    /// Strikes out leaves that another serves as well for; true if there were any.
    fn strike(&mut self, order: &[(usize, usize)], clusters: usize) -> bool {
        let mut ranges = vec![(0, 0); self.parents.len()];
        for (place, &(vertex, end)) in order.iter().enumerate() {
            ranges[vertex] = (place, end);
        }
        let mut members: Vec<Vec<(i64, usize, usize)>> = vec![Vec::new(); clusters];
        for &(vertex, _) in order {
            if let Some((leaf, cluster)) = self.leaves[vertex] {
                members[cluster].push((self.values[vertex], leaf, vertex));
            }
        }
        let mut struck = false;
        for members in &mut members {
            // The best first; of equals the smaller leaf.
            members.sort_by_key(|&(value, leaf, _)| (std::cmp::Reverse(value), leaf));
            let mut standing: Vec<usize> = Vec::new();
            for &(value, _, vertex) in members.iter() {
                let place = ranges[vertex].0;
                let served = value < 0
                    && !self.forced[vertex]
                    && standing.iter().any(|&other| {
                        self.parents[other].is_none_or(|parent| {
                            let (start, end) = ranges[parent];
                            (start..end).contains(&place)
                        })
                    });
                if served {
                    self.alive[vertex] = false;
                    struck = true;
                } else {
                    standing.push(vertex);
                }
            }
        }
        struck
    }
}
