//! Generating continuations: many branches in one pass, in as much memory as there is.
//!
//! A *job* is a leaf with some of its continuations, a *group* those of them that have begun alike: one row in a pass. Jobs are begun in order while pages are left. If one more page is needed and there is
//! none, these give way, each only as far as necessary:
//!
//! 1. nodes that wait, the last ones first, since they are needed last: their keys and values are computed again when their turn comes;
//! 2. the job begun last, if another goes on meanwhile: it begins again later, with the same noise and so with the same tokens;
//! 3. half of the continuations of the only job, which then come later;
//! 4. a continuation that doesn't fit by itself: it is given up, and counted.
//!
//! Each of these makes the rest smaller or lets something end, so that growing always ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{NodeId, SegmentId, State};
use super::reward::log_probability;
use super::{Ending, Grown, KnownChild, Search, SearchError, Sharing};
use crate::model::{BranchRow, Reserved};
use crate::speed::{Choice, mix};

/// Pages that a row takes for its step, as a guess by which jobs are begun.
const PAGES_OF_A_ROW: usize = 2;

/// Rows up to which waiting nodes give way so that more can go on at once: beyond it larger passes are hardly faster.
const ROWS_WORTH_MEMORY: usize = 32;

/// A continuation that is complete.
pub(super) struct Child {
    parent: NodeId,
    /// Which of its parent's continuations.
    number: u32,
    grown: Grown,
    ending: Ending,
    score: f32,
    /// Without a step's end, and too long for more.
    over_long: bool,
}

#[derive(Clone)]
struct Job {
    leaf: NodeId,
    numbers: Vec<u32>,
}

struct Group {
    job: usize,
    /// Where the next token goes, or behind which, if it isn't the group's own.
    segment: SegmentId,
    own: bool,
    tokens: Vec<u32>,
    numbers: Vec<u32>,
    logits: Vec<f32>,
    judged: Vec<f32>,
    likelihood: f64,
    /// Of the leaf; with a continuation's number it makes that one's noise.
    stream: u64,
}

/// What a pass left behind its rows.
struct Behind {
    /// The policy's logits.
    logits: Vec<f32>,
    /// The reward model's, if it judges tokens.
    judged: Vec<f32>,
    /// Tokens of the vocabularies.
    vocabularies: [usize; 2],
}

impl Behind {
    fn logits(&self, row: usize) -> Vec<f32> {
        row_of(&self.logits, self.vocabularies[0], row)
    }

    fn judged(&self, row: usize) -> Vec<f32> {
        row_of(&self.judged, self.vocabularies[1], row)
    }
}

fn row_of(rows: &[f32], width: usize, row: usize) -> Vec<f32> {
    rows.get(row * width..(row + 1) * width)
        .map_or_else(Vec::new, <[f32]>::to_vec)
}

/// What grows.
#[derive(Default)]
struct Growth {
    pending: VecDeque<Job>,
    /// Begun and not done, by the number in which they began.
    active: BTreeMap<usize, Job>,
    begun: usize,
    groups: Vec<Group>,
    done: Vec<Child>,
}

impl Growth {
    fn rows(&self) -> usize {
        self.groups.iter().map(|group| group.numbers.len()).sum()
    }
}

impl Search<'_> {
    /// Keys and values of the prompt, and what comes behind it.
    pub(super) fn read_prompt(&mut self) -> Result<(), SearchError> {
        let memory = SearchError::Memory {
            pages: self.settings.pages,
            tokens: self.nodes[0].tokens.len(),
        };
        let segment = self.branches.root()?;
        let rows = self.nodes[0].tokens.clone();
        let Some(reserved) = self.reserve_all(segment, &rows)? else {
            return Err(memory);
        };
        let streams = self.branches.pass(&reserved)?;
        let behind = self.behind(&streams);
        let last = reserved.len().saturating_sub(1);
        let root = &mut self.nodes[0];
        root.segment = Some(segment);
        root.logits = behind.logits(last);
        root.judged = behind.judged(last);
        Ok(())
    }

    /// Logits of a pass's rows.
    fn behind(&self, streams: &[Vec<f32>]) -> Behind {
        let stream = |model: usize| streams.get(model).map_or(&[][..], Vec::as_slice);
        let policy = self.cast.policy.trunk();
        let reward = self.cast.reward.model().trunk();
        Behind {
            logits: policy.logits(stream(0)),
            judged: if self.cast.reward.judges_tokens() {
                reward.logits(stream(1))
            } else {
                Vec::new()
            },
            vocabularies: [policy.config().vocabulary, reward.config().vocabulary],
        }
    }

    /// Room for tokens of one segment; `None` if it isn't there for all, and then the segment holds what fitted.
    fn reserve_all(
        &mut self,
        segment: SegmentId,
        tokens: &[u32],
    ) -> Result<Option<Vec<Reserved>>, SearchError> {
        let mut rows = Vec::with_capacity(tokens.len());
        for &token in tokens {
            match self.branches.reserve(BranchRow { segment, token })? {
                Some(row) => rows.push(row),
                None => return Ok(None),
            }
        }
        Ok(Some(rows))
    }

    /// Generates the continuations that are asked for, in the order of leaves and numbers.
    pub(super) fn grow(&mut self, plan: &[(NodeId, u32)]) -> Result<Vec<Child>, SearchError> {
        let mut growth = Growth {
            pending: plan
                .iter()
                .map(|&(leaf, count)| Job {
                    leaf,
                    numbers: (0..count).collect(),
                })
                .collect(),
            ..Growth::default()
        };
        loop {
            self.begin_jobs(&mut growth)?;
            if growth.groups.is_empty() && growth.pending.is_empty() {
                break;
            }
            self.step(&mut growth)?;
        }
        growth
            .done
            .sort_by_key(|child| (child.parent, child.number));
        Ok(growth.done)
    }

    /// Begins jobs while memory seems to be left for all that go on; one in any case.
    fn begin_jobs(&mut self, growth: &mut Growth) -> Result<(), SearchError> {
        while let Some(job) = growth.pending.front() {
            let rows = growth.rows();
            let wanted = PAGES_OF_A_ROW * (rows + job.numbers.len());
            while !growth.groups.is_empty() && self.branches.free_pages() < wanted {
                if rows >= ROWS_WORTH_MEMORY || !self.give_way(growth)? {
                    return Ok(());
                }
            }
            let Some(mut job) = growth.pending.pop_front() else {
                return Ok(());
            };
            self.recall(&mut job, growth)?;
            if job.numbers.is_empty() {
                continue;
            }
            if !self.restore(job.leaf, growth)? {
                if growth.groups.is_empty() {
                    // Nothing is left that could make room: the path itself doesn't fit.
                    self.cost.starved += job.numbers.len() as u64;
                    continue;
                }
                growth.pending.push_front(job);
                return Ok(());
            }
            let leaf = &self.nodes[job.leaf];
            let Some(segment) = leaf.segment else {
                continue;
            };
            let group = |numbers: Vec<u32>| Group {
                job: growth.begun,
                segment,
                own: false,
                tokens: Vec::new(),
                numbers,
                logits: leaf.logits.clone(),
                judged: leaf.judged.clone(),
                likelihood: 0.0,
                stream: leaf.stream,
            };
            match self.settings.sharing {
                Sharing::Tokens => growth.groups.push(group(job.numbers.clone())),
                Sharing::Steps => {
                    let all = job.numbers.iter().map(|&number| group(vec![number]));
                    let all: Vec<Group> = all.collect();
                    growth.groups.extend(all);
                }
            }
            growth.active.insert(growth.begun, job);
            growth.begun += 1;
        }
        Ok(())
    }

    /// Takes continuations that another search generated.
    fn recall(&mut self, job: &mut Job, growth: &mut Growth) -> Result<(), SearchError> {
        let Some((known, _)) = &self.known else {
            return Ok(());
        };
        let stream = self.nodes[job.leaf].stream;
        let mut unknown = Vec::new();
        for &number in &job.numbers {
            let Some(child) = known.get(&stream_of(stream, number)) else {
                unknown.push(number);
                continue;
            };
            let mut grown = child.grown.clone();
            grown.segment = grown
                .segment
                .map(|segment| self.branches.fork(segment))
                .transpose()?;
            growth.done.push(Child {
                parent: job.leaf,
                number,
                grown,
                ending: child.ending,
                score: child.score,
                over_long: child.over_long,
            });
        }
        job.numbers = unknown;
        Ok(())
    }

    /// Gives up what is held of a node that waits. False if there is none.
    fn give_way(&mut self, growth: &mut Growth) -> Result<bool, SearchError> {
        if let Some(child) = growth
            .done
            .iter_mut()
            .rev()
            .find(|child| child.grown.segment.is_some())
        {
            if let Some(segment) = child.grown.segment.take() {
                self.branches.release(segment)?;
            }
            return Ok(true);
        }
        // Of nodes, those without a held one behind them: a node comes before all behind it.
        let leaves: Vec<NodeId> = growth.active.values().map(|job| job.leaf).collect();
        let pinned = self.tree.union(&leaves)?;
        let waiting = (0..self.nodes.len())
            .rev()
            .find(|node| self.nodes[*node].segment.is_some() && !pinned.contains(node));
        let Some(segment) = waiting.and_then(|node| self.nodes[node].segment.take()) else {
            return Ok(false);
        };
        self.branches.release(segment)?;
        Ok(true)
    }

    /// Computes a leaf's keys and values again, if they had to give way. False if there is no room.
    fn restore(&mut self, leaf: NodeId, growth: &mut Growth) -> Result<bool, SearchError> {
        let path = self.tree.path(leaf)?;
        let held = path
            .iter()
            .position(|&node| self.nodes[node].segment.is_some());
        let missing: Vec<NodeId> = path[..held.unwrap_or(path.len())]
            .iter()
            .rev()
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }
        // What the path builds upon must not give way to it.
        let above = held.map(|place| path[place]);
        growth.active.insert(
            usize::MAX,
            Job {
                leaf: above.unwrap_or(0),
                numbers: Vec::new(),
            },
        );
        let restored = self.restore_path(above, &missing, growth);
        growth.active.remove(&usize::MAX);
        restored
    }

    fn restore_path(
        &mut self,
        above: Option<NodeId>,
        missing: &[NodeId],
        growth: &mut Growth,
    ) -> Result<bool, SearchError> {
        let mut behind = above.and_then(|node| self.nodes[node].segment);
        let mut rows = Vec::new();
        let mut segments = Vec::new();
        let mut fits = true;
        'path: for &node in missing {
            let segment = match behind {
                Some(segment) => self.branches.fork(segment)?,
                None => self.branches.root()?,
            };
            segments.push(segment);
            behind = Some(segment);
            for token in self.nodes[node].tokens.clone() {
                let row = loop {
                    if let Some(row) = self.branches.reserve(BranchRow { segment, token })? {
                        break row;
                    }
                    if !self.give_way(growth)? {
                        fits = false;
                        break 'path;
                    }
                };
                rows.push(row);
            }
        }
        if !fits {
            for segment in segments.into_iter().rev() {
                self.branches.release(segment)?;
            }
            return Ok(false);
        }
        self.branches.pass(&rows)?;
        self.cost.page_passes += self.branches.usage().pages as u64;
        self.cost.recomputed += rows.len() as u64;
        for (&node, segment) in missing.iter().zip(segments) {
            self.nodes[node].segment = Some(segment);
        }
        Ok(true)
    }

    /// A token for every group.
    fn step(&mut self, growth: &mut Growth) -> Result<(), SearchError> {
        let mut next: Vec<Group> = Vec::new();
        let mut rows: Vec<Reserved> = Vec::new();
        let mut waiting: VecDeque<Group> = std::mem::take(&mut growth.groups).into();
        while let Some(group) = waiting.pop_front() {
            let mut splits: VecDeque<(u32, Vec<u32>)> = self.draw(&group).into();
            let several = splits.len() > 1 || !group.own;
            let mut given_up = false;
            while let Some((token, numbers)) = splits.pop_front() {
                let segment = if several {
                    self.branches.fork(group.segment)?
                } else {
                    group.segment
                };
                let reserved = loop {
                    if let Some(row) = self.branches.reserve(BranchRow { segment, token })? {
                        break Some(row);
                    }
                    if self.give_way(growth)? {
                        continue;
                    }
                    let last = growth.active.last_key_value().map(|(&job, _)| job);
                    let Some(last) = last else {
                        break None;
                    };
                    if last == group.job {
                        break None;
                    }
                    self.suspend(last, growth, &mut next, &mut rows, &mut waiting)?;
                };
                let likelihood = if self.cast.reward.judges_tokens() {
                    group.likelihood + log_probability(&group.judged, token)
                } else {
                    0.0
                };
                let mut tokens = group.tokens.clone();
                tokens.push(token);
                next.push(Group {
                    job: group.job,
                    segment,
                    own: true,
                    tokens,
                    numbers,
                    logits: Vec::new(),
                    judged: Vec::new(),
                    likelihood,
                    stream: group.stream,
                });
                let Some(reserved) = reserved else {
                    given_up = true;
                    break;
                };
                rows.push(reserved);
            }
            if several && group.own {
                self.branches.release(group.segment)?;
            }
            if given_up {
                self.suspend(group.job, growth, &mut next, &mut rows, &mut waiting)?;
            }
        }
        growth.groups = next;
        if rows.is_empty() {
            return Ok(());
        }
        let streams = self.branches.pass(&rows)?;
        self.cost.page_passes += self.branches.usage().pages as u64;
        let behind = self.behind(&streams);
        let hidden = self.cast.reward.model().trunk().config().hidden;
        let mut going = Vec::with_capacity(growth.groups.len());
        for (row, mut group) in std::mem::take(&mut growth.groups).into_iter().enumerate() {
            let length = self.branches.tokens(group.segment)?;
            let ends = self.cast.task.ends_step(&group.tokens);
            let full = length >= self.longest();
            group.logits = behind.logits(row);
            group.judged = behind.judged(row);
            if ends || full || group.tokens.len() >= self.settings.step_tokens {
                let stream = streams.get(1).map_or(&[][..], Vec::as_slice);
                let stream = row_of(stream, hidden, row);
                self.complete(group, &stream, full && !ends, growth)?;
            } else {
                going.push(group);
            }
        }
        growth.groups = going;
        let busy: Vec<usize> = growth.groups.iter().map(|group| group.job).collect();
        growth.active.retain(|job, _| busy.contains(job));
        Ok(())
    }

    /// The tokens that a group's continuations go on with, and which of them with each: in the order of their first.
    fn draw(&self, group: &Group) -> Vec<(u32, Vec<u32>)> {
        let mut splits: Vec<(u32, Vec<u32>)> = Vec::new();
        for &number in &group.numbers {
            let choice = match self.settings.temperature {
                None => Choice::Greedy,
                Some(temperature) => Choice::Sampled {
                    temperature,
                    seed: stream_of(group.stream, number),
                },
            };
            let token = choice.token(&group.logits, 0, group.tokens.len());
            match splits.iter_mut().find(|(other, _)| *other == token) {
                Some((_, numbers)) => numbers.push(number),
                None => splits.push((token, vec![number])),
            }
        }
        splits
    }

    /// Takes a job out of the pass that is being made. It begins again later; by itself with half of its continuations at a time, and one that is alone is given up.
    fn suspend(
        &mut self,
        job: usize,
        growth: &mut Growth,
        next: &mut Vec<Group>,
        rows: &mut Vec<Reserved>,
        waiting: &mut VecDeque<Group>,
    ) -> Result<(), SearchError> {
        let mut reserved = std::mem::take(rows).into_iter();
        for group in std::mem::take(next) {
            // The last group may be without a row: it is the one that there was no room for.
            let row = reserved.next();
            if group.job == job {
                self.branches.release(group.segment)?;
            } else {
                next.push(group);
                rows.extend(row);
            }
        }
        for group in std::mem::take(waiting) {
            if group.job != job {
                waiting.push_back(group);
            } else if group.own {
                self.branches.release(group.segment)?;
            }
        }
        let Some(mut suspended) = growth.active.remove(&job) else {
            return Ok(());
        };
        let leaf = suspended.leaf;
        suspended.numbers.retain(|&number| {
            let mut done = growth.done.iter();
            !done.any(|child| child.parent == leaf && child.number == number)
        });
        self.cost.preempted += 1;
        if !growth.active.is_empty() {
            growth.pending.push_front(suspended);
        } else if suspended.numbers.len() > 1 {
            let half = suspended.numbers.len().div_ceil(2);
            let rest = suspended.numbers.split_off(half);
            growth.pending.push_front(Job {
                leaf,
                numbers: rest,
            });
            growth.pending.push_front(suspended);
        } else {
            self.cost.starved += suspended.numbers.len() as u64;
        }
        Ok(())
    }

    /// A group's step is complete: all its continuations have it.
    fn complete(
        &mut self,
        group: Group,
        stream: &[f32],
        full: bool,
        growth: &mut Growth,
    ) -> Result<(), SearchError> {
        let normed = self.cast.reward.model().trunk().normed(stream);
        let Some(parent) = growth.active.get(&group.job).map(|job| job.leaf) else {
            return Ok(());
        };
        let task = self.cast.task;
        let follows = !self.settings.check_steps || {
            let before = task.text(&self.nodes[parent].tokens);
            task.follows(&before, &task.text(&group.tokens))
        };
        let score = if follows {
            let tokens = group.tokens.len();
            self.cast.reward.score(&normed, group.likelihood, tokens)
        } else {
            0.0
        };
        let ending = task.ending(&group.tokens);
        for (place, &number) in group.numbers.iter().enumerate() {
            // Each holds the step by itself, so that it can be given up by itself.
            let segment = if place == 0 {
                group.segment
            } else {
                self.branches.fork(group.segment)?
            };
            let grown = Grown {
                tokens: group.tokens.clone(),
                segment: Some(segment),
                logits: group.logits.clone(),
                judged: group.judged.clone(),
                stream: stream_of(group.stream, number),
                embedding: normed.clone(),
                answers: false,
            };
            if let Some((known, _)) = &mut self.known {
                let mut grown = grown.clone();
                // What ended is never continued.
                grown.segment = match ending {
                    Ending::Continues => Some(self.branches.fork(segment)?),
                    _ => None,
                };
                let child = KnownChild {
                    grown,
                    ending,
                    score,
                    over_long: full,
                };
                known.insert(stream_of(group.stream, number), child);
            }
            growth.done.push(Child {
                parent,
                number,
                grown,
                ending,
                score,
                over_long: full,
            });
        }
        Ok(())
    }

    /// Puts children of the planned leaves into the tree. What ended needs no keys and values any more.
    pub(super) fn insert(
        &mut self,
        plan: &[(NodeId, u32)],
        children: Vec<Child>,
    ) -> Result<(), SearchError> {
        // A leaf whose continuations were all given up would have the same ones in each step to come.
        let parents: BTreeSet<NodeId> = children.iter().map(|child| child.parent).collect();
        for (leaf, _) in plan {
            if !parents.contains(leaf) {
                self.tree.decide(*leaf, State::Pruned)?;
            }
        }
        for child in children {
            let Child {
                parent,
                number,
                mut grown,
                ending,
                score,
                over_long,
            } = child;
            let tokens = u32::try_from(grown.tokens.len()).unwrap_or(u32::MAX);
            self.cost.tokens += u64::from(tokens);
            let node = self.tree.add(parent, tokens, score)?;
            let subtree = self.subtree_of(parent, number);
            // All children of a step of the search are as deep as it.
            let complete = self.cast.task.complete_at();
            let ending = match ending {
                Ending::Continues if complete.is_some_and(|steps| self.cost.depth >= steps) => {
                    Ending::Answers
                }
                other => other,
            };
            let state = match ending {
                Ending::Answers => {
                    grown.answers = true;
                    State::Completed
                }
                Ending::GivesUp => State::Completed,
                Ending::Continues if over_long => State::OverLong,
                Ending::Continues => State::Live,
            };
            self.tree.decide(node, state)?;
            if state == State::Live {
                self.subtrees
                    .extend(subtree.map(|subtree| (node, vec![(subtree, 0)])));
            } else {
                if let Some(segment) = grown.segment.take() {
                    self.branches.release(segment)?;
                }
                if let (Some(dvts), Some(subtree)) = (&mut self.dvts, subtree) {
                    dvts.ended(subtree);
                }
            }
            if state == State::Completed {
                self.ended.push(node);
            }
            self.nodes.push(grown);
        }
        Ok(())
    }
}

/// The noise of a leaf's continuation.
fn stream_of(leaf: u64, number: u32) -> u64 {
    mix(leaf, u64::from(number) + 1)
}
