//! Sets made better by dropping subtrees and adding leaves.

use super::core::Core;

/// Sweeps over all vertices; each but the last makes the set better, and the bound is for what is far from good.
const SWEEPS: usize = 16;

/// A set while it is made better.
struct Descent<'a> {
    core: &'a Core,
    selected: &'a mut [bool],
    /// Selected leaves of each cluster.
    counts: Vec<u32>,
    /// What a selected vertex and the selected ones below it add, clusters left out.
    sums: Vec<i64>,
    /// For counting clusters below a vertex; zeros otherwise.
    below: Vec<u32>,
}

impl Core {
    /// Drops subtrees and adds leaves as long as it pays. The set holds what must be kept, and each vertex's parent.
    pub(super) fn improve(&self, selected: &mut [bool]) {
        let count = self.len();
        // What must be kept, and what is above it.
        let mut firm = self.forced.clone();
        for vertex in (1..count).rev() {
            if firm[vertex] {
                firm[self.parents[vertex]] = true;
            }
        }
        let mut counts = vec![0; self.covers.len()];
        for (leaf, &selected) in self.leaves.iter().zip(&*selected) {
            if let (Some((_, cluster)), true) = (leaf, selected) {
                counts[*cluster] += 1;
            }
        }
        let mut descent = Descent {
            core: self,
            selected,
            counts,
            sums: vec![0; count],
            below: vec![0; self.covers.len()],
        };
        let mut moves: Vec<(i64, usize)> = Vec::new();
        for _ in 0..SWEEPS {
            descent.sum();
            moves.clear();
            for (vertex, &firm) in firm.iter().enumerate().skip(1) {
                let gain = if !descent.selected[vertex] {
                    descent.addition(vertex)
                } else if firm {
                    0
                } else {
                    descent.removal(vertex)
                };
                if gain > 0 {
                    moves.push((gain, vertex));
                }
            }
            if moves.is_empty() {
                break;
            }
            // The best first; each is looked at again, as those before it may have made it worse.
            moves.sort_unstable_by_key(|&(gain, vertex)| (std::cmp::Reverse(gain), vertex));
            for &(_, vertex) in &moves {
                if !descent.selected[vertex] {
                    if descent.addition(vertex) > 0 {
                        descent.add(vertex);
                    }
                } else if descent.removal(vertex) > 0 {
                    descent.remove(vertex);
                }
            }
        }
    }
}

impl Descent<'_> {
    fn sum(&mut self) {
        self.sums.copy_from_slice(&self.core.values);
        for vertex in (1..self.core.len()).rev() {
            if self.selected[vertex] {
                self.sums[self.core.parents[vertex]] += self.sums[vertex];
            }
        }
    }

    /// What it brings to add a leaf that isn't selected; 0 for another vertex.
    fn addition(&self, leaf: usize) -> i64 {
        let Some((_, cluster)) = self.core.leaves[leaf] else {
            return 0;
        };
        let mut gain = if self.counts[cluster] == 0 {
            self.core.covers[cluster]
        } else {
            0
        };
        let mut vertex = leaf;
        while !self.selected[vertex] {
            gain += self.core.values[vertex];
            vertex = self.core.parents[vertex];
        }
        gain
    }

    fn add(&mut self, leaf: usize) {
        if let Some((_, cluster)) = self.core.leaves[leaf] {
            self.counts[cluster] += 1;
        }
        let mut added = 0;
        let mut vertex = leaf;
        while !self.selected[vertex] {
            self.selected[vertex] = true;
            added += self.core.values[vertex];
            self.sums[vertex] = added;
            vertex = self.core.parents[vertex];
        }
        self.raise(vertex, added);
    }

    /// What it brings to drop a selected vertex and all below it; nothing for an only child, which takes its parent along: it is its parent's turn.
    fn removal(&mut self, vertex: usize) -> i64 {
        let mut gain = -self.sums[vertex];
        if gain <= 0 || self.is_only_child(vertex) {
            return 0;
        }
        let core = self.core;
        let range = vertex..core.ends[vertex];
        for vertex in range.clone().filter(|&vertex| self.selected[vertex]) {
            if let Some((_, cluster)) = core.leaves[vertex] {
                self.below[cluster] += 1;
                if self.below[cluster] == self.counts[cluster] {
                    gain -= core.covers[cluster];
                }
            }
        }
        for (_, cluster) in core.leaves[range].iter().flatten() {
            self.below[*cluster] = 0;
        }
        gain
    }

    fn remove(&mut self, vertex: usize) {
        let removed = self.sums[vertex];
        for below in vertex..self.core.ends[vertex] {
            if let (Some((_, cluster)), true) = (self.core.leaves[below], self.selected[below]) {
                self.counts[cluster] -= 1;
            }
            self.selected[below] = false;
        }
        self.raise(self.core.parents[vertex], -removed);
    }

    /// Adds to the sums of a vertex and all above it.
    fn raise(&mut self, mut vertex: usize, by: i64) {
        loop {
            self.sums[vertex] += by;
            if vertex == 0 {
                break;
            }
            vertex = self.core.parents[vertex];
        }
    }

    fn is_only_child(&self, vertex: usize) -> bool {
        let core = self.core;
        let parent = core.parents[vertex];
        if parent == 0 && core.optional {
            return false;
        }
        let mut child = parent + 1;
        while child < core.ends[parent] {
            if child != vertex && self.selected[child] {
                return false;
            }
            child = core.ends[child];
        }
        true
    }
}
