//! Which leaves are continued, and how often.

use super::super::{NodeId, Scores, Selection, allocate, baselines, select};
use super::{Method, Search, SearchError, nanoseconds};

type Plan = Vec<(NodeId, u32)>;

impl Search<'_> {
    /// Leaves with at least one continuation, in the order of their addition.
    pub(super) fn plan(
        &mut self,
        depth: u32,
        frontier: &[NodeId],
    ) -> Result<(Plan, Option<Selection>), SearchError> {
        let width = self.tree.remaining();
        // All methods begin alike: the question gets the whole width.
        if depth == 0 {
            return Ok((vec![(0, width)], None));
        }
        let scores: Vec<f32> = frontier
            .iter()
            .map(|&leaf| self.tree.score(leaf))
            .collect::<Result<_, _>>()?;
        let scores = Scores::new(&scores);
        let mut selection = None;
        let counts: Vec<u32> = match self.settings.method {
            Method::Ets(rule) => {
                self.find_clusters(frontier)?;
                let begun = std::time::Instant::now();
                selection = select(&self.tree, rule)?;
                let cost = &mut self.cost;
                cost.longest_selection_ns = cost.longest_selection_ns.max(nanoseconds(begun));
                selection.as_ref().map_or_else(Vec::new, |selection| {
                    cost.unproved += u64::from(!selection.solution.proved);
                    selection.allocation.counts.clone()
                })
            }
            Method::Rebase(temperature) => allocate(&scores, None, temperature, width).counts,
            Method::Beam(beams) => baselines::beam(&scores, width, beams),
            Method::Dvts(_) => self.plan_dvts(depth, frontier, &scores),
            Method::Samples => vec![1; frontier.len()],
        };
        let plan = frontier
            .iter()
            .zip(counts)
            .filter(|&(_, count)| count > 0)
            .map(|(&leaf, count)| (leaf, count))
            .collect();
        Ok((plan, selection))
    }

    /// Of each subtree the best leaf. What leaves carry on is noted, so that their children are known.
    fn plan_dvts(&mut self, depth: u32, frontier: &[NodeId], scores: &Scores) -> Vec<u32> {
        let Some(dvts) = &self.dvts else {
            return vec![0; frontier.len()];
        };
        let chosen: Vec<Option<(usize, u32)>> = if depth == 1 {
            let budgets = dvts.budgets();
            dvts.first(scores)
                .into_iter()
                .zip(budgets)
                .map(|(leaf, &budget)| Some((leaf?, budget)))
                .collect()
        } else {
            let mut leaves = vec![Vec::new(); dvts.budgets().len()];
            for (place, leaf) in frontier.iter().enumerate() {
                for &(subtree, _) in self.subtrees.get(leaf).into_iter().flatten() {
                    leaves[subtree].push(place);
                }
            }
            dvts.next(scores, &leaves)
        };
        self.subtrees.clear();
        let mut counts = vec![0; frontier.len()];
        for (subtree, chosen) in chosen.into_iter().enumerate() {
            if let Some((place, budget)) = chosen
                && budget > 0
            {
                counts[place] += budget;
                self.subtrees
                    .entry(frontier[place])
                    .or_default()
                    .push((subtree, budget));
            }
        }
        counts
    }

    /// The subtree that a leaf's continuation belongs to: they are dealt out in order.
    pub(super) fn subtree_of(&self, leaf: NodeId, continuation: u32) -> Option<usize> {
        let mut before = 0;
        for &(subtree, budget) in self.subtrees.get(&leaf)? {
            before += budget;
            if continuation < before {
                return Some(subtree);
            }
        }
        None
    }
}
