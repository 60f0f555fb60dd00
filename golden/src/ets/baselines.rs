//! The selection rules of other searches, as in the code that ETS is published with. REBASE's is [`allocate`](super::allocate()) without a selection, the majority's [`vote`](super::vote()).

use super::Scores;

/// The least whole number whose square is at least `width`.
fn root_up(width: u32) -> u32 {
    let root = width.isqrt();
    root + u32::from(root * root < width)
}

/// Beam search: the best `beams` leaves get ⌈width / beams⌉ continuations each, of equal scores the first leaves. Without a number of beams it is ⌈√width⌉.
///
/// As published, the root alone gets the whole width, and the total may be above it. Leaves without a score are taken last.
pub fn beam(scores: &Scores, width: u32, beams: Option<u32>) -> Vec<u32> {
    let leaves = scores.fixed().len();
    let mut counts = vec![0; leaves];
    if width == 0 {
        return counts;
    }
    let beams = beams.filter(|&beams| beams > 0).unwrap_or(root_up(width));
    let each = width.div_ceil(beams);
    for leaf in scores.order().into_iter().take(beams as usize) {
        counts[leaf] = each;
    }
    counts
}

/// The best leaf, of equals the first; none if no leaf has a score. Of completed trajectories it is what best-of-N answers with.
pub fn best(scores: &Scores) -> Option<usize> {
    let first = *scores.order().first()?;
    scores.fixed()[first].map(|_| first)
}

/// DVTS, diverse verifier tree search: several subtrees, of each of which only the best leaf goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dvts {
    /// Continuations that each subtree may still ask for.
    budgets: Vec<u32>,
}

impl Dvts {
    /// As many subtrees, each with an equal share of the width, rounded down. Without a number it is ⌈√width⌉; more than the width are none but the width.
    pub fn new(width: u32, subtrees: Option<u32>) -> Self {
        let subtrees = subtrees
            .filter(|&subtrees| subtrees > 0)
            .unwrap_or(root_up(width))
            .min(width);
        let each = width.checked_div(subtrees).unwrap_or(0);
        Self {
            budgets: vec![each; subtrees as usize],
        }
    }

    /// What each subtree may still ask for.
    pub fn budgets(&self) -> &[u32] {
        &self.budgets
    }

    /// A trajectory of a subtree ended. False if there is no such subtree, or its budget was used up.
    pub fn ended(&mut self, subtree: usize) -> bool {
        match self.budgets.get_mut(subtree) {
            Some(budget) if *budget > 0 => {
                *budget -= 1;
                true
            }
            _ => false,
        }
    }

    /// The root's children in as many slices as there are subtrees, one behind the other; if there are too few they are gone through again. Of each slice the best goes on.
    pub fn first(&self, scores: &Scores) -> Vec<Option<usize>> {
        let (leaves, subtrees) = (scores.fixed().len(), self.budgets.len());
        if leaves == 0 || subtrees == 0 {
            return vec![None; subtrees];
        }
        let all = leaves.max(subtrees);
        let each = all / subtrees;
        (0..subtrees)
            .map(|subtree| {
                let members: Vec<usize> = (subtree * each..(subtree + 1) * each)
                    .map(|place| place % leaves)
                    .collect();
                best_of(scores, &members)
            })
            .collect()
    }

    /// The best of each subtree's leaves, and how often it is continued. Nothing for a subtree without leaves or without a budget.
    pub fn next(&self, scores: &Scores, leaves: &[Vec<usize>]) -> Vec<Option<(usize, u32)>> {
        (0..self.budgets.len())
            .map(|subtree| {
                let budget = Some(self.budgets[subtree]).filter(|&budget| budget > 0)?;
                let best = best_of(scores, leaves.get(subtree)?)?;
                Some((best, budget))
            })
            .collect()
    }
}

/// The best of some leaves, of equals the first; one without a score only if no other has one.
fn best_of(scores: &Scores, members: &[usize]) -> Option<usize> {
    let mut best: Option<(usize, Option<i32>)> = None;
    for &member in members {
        if let Some(&score) = scores.fixed().get(member)
            && best.is_none_or(|(_, other)| score > other)
        {
            best = Some((member, score));
        }
    }
    best.map(|(member, _)| member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beams() {
        let scores = Scores::new(&[0.1, 0.9, f32::NAN, 0.9, 0.5]);
        assert_eq!(beam(&scores, 16, None), [4, 4, 0, 4, 4]);
        assert_eq!(beam(&scores, 16, Some(2)), [0, 8, 0, 8, 0]);
        assert_eq!(beam(&scores, 5, None), [0, 2, 0, 2, 2]);
        assert_eq!(beam(&scores, 1, None), [0, 1, 0, 0, 0]);
        assert_eq!(beam(&scores, 0, Some(3)), [0; 5]);
        assert_eq!(beam(&Scores::new(&[]), 4, None), [0u32; 0]);
        assert_eq!(beam(&Scores::new(&[f32::NAN]), 4, Some(1)), [4]);
    }

    #[test]
    fn best_of_n() {
        assert_eq!(best(&Scores::new(&[0.1, 0.7, 0.7])), Some(1));
        assert_eq!(best(&Scores::new(&[f32::NAN, -1.0])), Some(1));
        assert_eq!(best(&Scores::new(&[f32::NAN])), None);
        assert_eq!(best(&Scores::new(&[])), None);
    }

    #[test]
    fn subtrees() {
        let mut dvts = Dvts::new(16, None);
        assert_eq!(dvts.budgets(), [4; 4]);
        let scores = Scores::new(&[
            0.1, 0.2, 0.2, 0.0, 0.9, 0.3, 0.3, 0.3, 0.5, 0.5, 0.5, 0.6, 0.4, 0.3, 0.2, 0.1,
        ]);
        assert_eq!(dvts.first(&scores), [Some(1), Some(4), Some(11), Some(12)]);
        // Too few children are gone through again.
        let few = Scores::new(&[0.1, 0.2, 0.3]);
        assert_eq!(dvts.first(&few), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(dvts.first(&Scores::new(&[])), [None; 4]);
        for _ in 0..4 {
            assert!(dvts.ended(1));
        }
        assert!(!dvts.ended(1) && !dvts.ended(9));
        let leaves = [vec![0, 1], vec![2], vec![], vec![1, 2, 7]];
        assert_eq!(
            dvts.next(&few, &leaves),
            [Some((1, 4)), None, None, Some((2, 4))]
        );
        assert!(Dvts::new(0, None).budgets().is_empty());
        assert_eq!(Dvts::new(3, Some(8)).budgets(), [1; 3]);
    }
}
