//! The answer of a search.

use serde::Serialize;

/// Which answers count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum VoteRule {
    /// Trajectories without an answer don't vote.
    #[default]
    Answers,
    /// As published: those without an answer are an answer of their own, which may win, and a vote counts for every class that it equals.
    Published,
}

/// What was elected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Vote {
    /// The trajectory whose answer is given: the one that brought its class to the largest weight.
    pub trajectory: usize,
    /// Weight of its class.
    pub weight: u64,
    /// Classes of equal answers.
    pub classes: usize,
}

/// The answer with the largest weight, of equals the one that had it first.
///
/// `answers` are those of the completed trajectories in the order in which they ended, each with its weight: its last score in any integers (say 16 fractional bits) for a weighted vote, or 1 for that of the
/// majority. `equal` says which answers are the same. Nothing is elected if nobody votes, or all weights are 0.
pub fn vote<A>(
    answers: &[(Option<A>, u32)],
    rule: VoteRule,
    equal: impl Fn(&A, &A) -> bool,
) -> Option<Vote> {
    let mut classes: Vec<(Option<&A>, u64)> = Vec::new();
    let mut best: Option<(usize, u64)> = None;
    for (trajectory, (answer, weight)) in answers.iter().enumerate() {
        let answer = answer.as_ref();
        if answer.is_none() && rule == VoteRule::Answers {
            continue;
        }
        let weight = u64::from(*weight);
        let mut known = false;
        for (class, sum) in &mut classes {
            let same = match (*class, answer) {
                (Some(class), Some(answer)) => equal(class, answer),
                (None, None) => true,
                _ => false,
            };
            if !same {
                continue;
            }
            known = true;
            *sum += weight;
            if *sum > best.map_or(0, |(_, weight)| weight) {
                best = Some((trajectory, *sum));
            }
            if rule == VoteRule::Answers {
                break;
            }
        }
        if !known {
            classes.push((answer, weight));
            if weight > best.map_or(0, |(_, weight)| weight) {
                best = Some((trajectory, weight));
            }
        }
    }
    best.map(|(trajectory, weight)| Vote {
        trajectory,
        weight,
        classes: classes.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elect(answers: &[(Option<&str>, u32)], rule: VoteRule) -> Option<(usize, u64)> {
        vote(answers, rule, |a, b| a == b).map(|vote| (vote.trajectory, vote.weight))
    }

    #[test]
    fn weights_and_majority() {
        let weighted = [(Some("3"), 10), (Some("4"), 15), (Some("3"), 6)];
        assert_eq!(elect(&weighted, VoteRule::Answers), Some((2, 16)));
        let majority = [
            (Some("a"), 1),
            (Some("b"), 1),
            (Some("b"), 1),
            (Some("a"), 1),
        ];
        assert_eq!(elect(&majority, VoteRule::Answers), Some((2, 2)));
        assert_eq!(elect(&[], VoteRule::Answers), None);
        assert_eq!(elect(&[(Some("a"), 0)], VoteRule::Answers), None);
    }

    #[test]
    fn without_an_answer() {
        let answers = [(None, 9), (Some("a"), 5), (None, 9)];
        assert_eq!(elect(&answers, VoteRule::Answers), Some((1, 5)));
        assert_eq!(elect(&answers, VoteRule::Published), Some((2, 18)));
        assert_eq!(elect(&[(None, 9)], VoteRule::Answers), None);
    }

    #[test]
    fn equality_that_is_not_transitive() {
        // 2 equals 1 and 3, which differ.
        let near = |a: &i32, b: &i32| (a - b).abs() <= 1;
        let answers = [(Some(1), 2), (Some(3), 4), (Some(2), 3)];
        let found = vote(&answers, VoteRule::Published, near).map(|v| (v.trajectory, v.weight));
        assert_eq!(found, Some((2, 7)));
        let found = vote(&answers, VoteRule::Answers, near).map(|v| (v.trajectory, v.weight));
        assert_eq!(found, Some((2, 5)));
    }
}
