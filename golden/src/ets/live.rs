//! A search with models: trajectories are generated, scored, selected, and voted on.
//!
//! After each step of all trajectories the method shares the width ([`Method`]), what isn't continued is pruned, and each continuation is generated: its noise depends on the seed and on its place in the tree
//! alone, so that a search gives the same tree however its rows are batched, whatever its keys and values share, and whether or not memory made it compute some of them twice.

mod grow;
mod plan;
mod reward;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

pub use self::reward::{Reward, RewardError, ScoreHead};
use super::{
    ClusterError, Dvts, Layout, NodeId, PoolError, Rule, Scores, SearchTree, Selection, State,
    TreeError, Vote, VoteRule, cluster, vote, worth_clustering,
};
use super::{ProgrammeError, Temperature};
use crate::model::{Branches, LanguageModel, ModelError, PassCounters, PassError, Tally};
use crate::speed::mix;

/// What may come of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// More steps.
    Continues,
    /// It has an answer.
    Answers,
    /// It ends without one.
    GivesUp,
}

/// What a search searches for.
pub trait Task: Sync {
    /// Whether a step ends with its last token.
    fn ends_step(&self, step: &[u32]) -> bool;

    /// What comes of a step, from its tokens.
    fn ending(&self, step: &[u32]) -> Ending;

    /// Whether a step follows from the one before it (or from the prompt) by rules that need no model. Where there are none, every step does.
    fn follows(&self, before: &str, step: &str) -> bool {
        let _ = (before, step);
        true
    }

    /// Steps with which a trajectory has its answer, if it hasn't ended before; none if only [`Task::ending`] says so.
    fn complete_at(&self) -> Option<u32> {
        None
    }

    /// What a trajectory answers, from its steps' texts: equal answers are equal texts.
    fn answer(&self, steps: &[String]) -> String;

    /// The text of tokens.
    fn text(&self, tokens: &[u32]) -> String;
}

/// How the width is shared among leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The cost model chooses leaves; among those, by score.
    Ets(Rule),
    /// By score.
    Rebase(Temperature),
    /// The best ⌈√width⌉ leaves, or so many, equally often.
    Beam(Option<u32>),
    /// ⌈√width⌉ subtrees, or so many; of each the best leaf.
    Dvts(Option<u32>),
    /// Every trajectory once: independent samples.
    Samples,
}

/// Which answer is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Election {
    /// That with the largest sum of scores.
    Weighted,
    /// That of the trajectory with the best score.
    Best,
    /// The most frequent.
    Majority,
}

/// What a trajectory's steps' scores come to when it is voted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// The last step's score, as in the published runs.
    #[default]
    Last,
    /// The smallest: a trajectory is as good as its worst step.
    Least,
    /// Their product.
    Product,
    /// Their mean.
    Mean,
}

impl Aggregate {
    /// Of the scores of a trajectory's steps. NaN if one is.
    pub fn of(self, scores: &[f32]) -> f32 {
        let mut exact = scores.iter().map(|&score| f64::from(score));
        let found = match self {
            Self::Last => exact.next_back().unwrap_or(0.0),
            Self::Least => exact.fold(f64::INFINITY, |least, score| {
                if score.is_nan() || least.is_nan() {
                    f64::NAN
                } else {
                    least.min(score)
                }
            }),
            Self::Product => exact.product(),
            Self::Mean => exact.sum::<f64>() / scores.len().max(1) as f64,
        };
        found as f32
    }
}

/// What equal beginnings of siblings share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Whole steps: siblings share what is before them.
    Steps,
    /// Tokens: siblings that begin alike are one row, until they differ.
    Tokens,
}

/// Limits and rules of a search.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Settings {
    /// How the width is shared.
    pub method: Method,
    /// Trajectories.
    pub width: u32,
    /// Of the policy; the largest logit if absent.
    pub temperature: Option<f32>,
    /// Of the noise.
    pub seed: u64,
    /// Most tokens of a step.
    pub step_tokens: usize,
    /// Most tokens of a trajectory, prompt included; the models' context bounds it, too.
    pub trajectory_tokens: usize,
    /// Most steps of a trajectory.
    pub depth: u32,
    /// Pages of keys and values.
    pub pages: usize,
    /// Where branches begin in them.
    #[serde(skip)]
    pub layout: Layout,
    /// What siblings share.
    pub sharing: Sharing,
    /// Distance up to which steps say the same.
    pub cut: f64,
    /// Whether a step that doesn't follow ([`Task::follows`]) scores 0, whatever the reward model says: a calculator at its side.
    pub check_steps: bool,
}

impl Settings {
    /// A method at a width, as published: temperature 1, 25 steps. Pages for everything.
    pub const fn new(method: Method, width: u32) -> Self {
        Self {
            method,
            width,
            temperature: Some(1.0),
            seed: 0,
            step_tokens: 256,
            trajectory_tokens: 1024,
            depth: 25,
            pages: 1 << 20,
            layout: Layout::CopyOnWrite,
            sharing: Sharing::Tokens,
            cut: super::CUT,
            check_steps: false,
        }
    }
}

/// Vectors of texts, for clustering.
pub type Embedder<'a> = dyn Fn(&[String]) -> Result<Vec<Vec<f32>>, String> + 'a;

/// Who says which steps say the same.
#[derive(Clone, Copy)]
pub enum Embedding<'a> {
    /// The reward model: its last residual stream behind the step, normed.
    Reward,
    /// A model of sentences, given the steps' texts.
    Text(&'a Embedder<'a>),
}

/// What takes part in a search.
#[derive(Clone, Copy)]
pub struct Cast<'a> {
    /// Writes steps.
    pub policy: &'a dyn LanguageModel,
    /// Scores them.
    pub reward: &'a Reward<'a>,
    /// Compares them.
    pub embedding: Embedding<'a>,
    /// Knows what a step is.
    pub task: &'a dyn Task,
}

/// A step of a search, for those who watch.
pub struct Event<'a> {
    /// Steps before.
    pub depth: u32,
    /// The tree before leaves are chosen.
    pub tree: &'a SearchTree,
    /// What the cost model chose; none for methods without one.
    pub selection: Option<&'a Selection>,
    /// How often leaves will be continued.
    pub plan: &'a [(NodeId, u32)],
}

/// What a search took.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Cost {
    /// Steps of the search.
    pub depth: u32,
    /// Continuations asked for.
    pub calls: u64,
    /// Tokens of all steps, each trajectory's own.
    pub tokens: u64,
    /// Unique tokens of all candidates' paths before pruning, summed over the steps: the published measure.
    pub kv_tokens: u64,
    /// Its largest term.
    pub kv_peak: u64,
    /// The same with tokens that siblings have in common from their beginning on counted once: what [`Sharing::Tokens`] holds.
    pub held_tokens: u64,
    /// Its largest term.
    pub held_peak: u64,
    /// Pages of keys and values in use, summed over the passes.
    pub page_passes: u64,
    /// Most pages in use.
    pub pages_peak: u64,
    /// What passes took.
    pub passes: PassCounters,
    /// Rows that were computed again, since their keys and values had to make room.
    pub recomputed: u64,
    /// Times that memory made a continuation wait and begin again.
    pub preempted: u64,
    /// Continuations given up: no page was left for them even by themselves.
    pub starved: u64,
    /// Selections without clusters, since an embedding was not finite.
    pub unclustered: u64,
    /// Selections whose optimum was not proved.
    pub unproved: u64,
    /// Nanoseconds of clustering and selection.
    pub selection_ns: u64,
    /// Largest time of one selection, of the cost model alone.
    pub longest_selection_ns: u64,
}

impl Cost {
    /// Adds another search's; peaks are the larger.
    pub fn add(&mut self, other: &Self) {
        self.depth += other.depth;
        self.calls += other.calls;
        self.tokens += other.tokens;
        self.kv_tokens += other.kv_tokens;
        self.kv_peak = self.kv_peak.max(other.kv_peak);
        self.held_tokens += other.held_tokens;
        self.held_peak = self.held_peak.max(other.held_peak);
        self.page_passes += other.page_passes;
        self.pages_peak = self.pages_peak.max(other.pages_peak);
        self.passes.add(&other.passes);
        self.recomputed += other.recomputed;
        self.preempted += other.preempted;
        self.starved += other.starved;
        self.unclustered += other.unclustered;
        self.unproved += other.unproved;
        self.selection_ns += other.selection_ns;
        self.longest_selection_ns = self.longest_selection_ns.max(other.longest_selection_ns);
    }
}

/// A trajectory that ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trajectory {
    /// Its last node.
    pub node: NodeId,
    /// Texts of its steps.
    pub steps: Vec<String>,
    /// What it answers.
    pub answer: Option<String>,
    /// The reward model's scores of its steps.
    pub scores: Vec<f32>,
}

/// What a search gave.
#[derive(Clone, Debug)]
pub struct Found {
    /// The tree.
    pub tree: SearchTree,
    /// Texts of its nodes' steps.
    pub texts: Vec<String>,
    /// Trajectories that completed, in the order in which they did.
    pub trajectories: Vec<Trajectory>,
    /// What it took.
    pub cost: Cost,
}

impl Found {
    /// The trajectory whose answer is given: of those that answer like the one that is elected the best, of equals the first; the majority's is the first.
    pub fn elect(&self, election: Election, aggregate: Aggregate) -> Option<&Trajectory> {
        let scores: Vec<f32> = self
            .trajectories
            .iter()
            .map(|it| aggregate.of(&it.scores))
            .collect();
        let scores = Scores::new(&scores);
        let answered = |place: &usize| self.trajectories[*place].answer.is_some();
        let best = |places: &mut dyn Iterator<Item = usize>| -> Option<&Trajectory> {
            let mut best: Option<(usize, Option<i32>)> = None;
            for place in places {
                let score = scores.fixed()[place];
                if best.is_none_or(|(_, other)| score > other) {
                    best = Some((place, score));
                }
            }
            best.map(|(place, _)| &self.trajectories[place])
        };
        let all = 0..self.trajectories.len();
        if election == Election::Best {
            return best(&mut all.filter(answered));
        }
        // The majority knows nothing of scores.
        let first = |places: &mut dyn Iterator<Item = usize>| -> Option<&Trajectory> {
            places.next().map(|place| &self.trajectories[place])
        };
        let ballots: Vec<(Option<&str>, u32)> = self
            .trajectories
            .iter()
            .zip(scores.fixed())
            .map(|(it, score)| {
                let weight = match election {
                    Election::Majority => 1,
                    // Scores below 0, or none at all, weigh nothing.
                    _ => u32::try_from(score.unwrap_or(0)).unwrap_or(0),
                };
                (it.answer.as_deref(), weight)
            })
            .collect();
        let elected: Option<Vote> = vote(&ballots, VoteRule::Answers, |a, b| a == b);
        // If nobody's vote weighs anything, the first of the best is as good as any.
        let Some(elected) = elected else {
            return best(&mut all.filter(answered));
        };
        let answer = &self.trajectories[elected.trajectory].answer;
        let mut alike = all.filter(|&place| self.trajectories[place].answer == *answer);
        match election {
            Election::Majority => first(&mut alike),
            _ => best(&mut alike),
        }
    }
}

/// Why a search can't be done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The prompt.
    #[error("the prompt: {0}")]
    Prompt(&'static str),
    /// The pool is too small for the prompt.
    #[error("a pool of {pages} page{} doesn't hold the prompt of {tokens} tokens", if *.pages == 1 { "" } else { "s" })]
    Memory {
        /// Pages.
        pages: usize,
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The selection.
    #[error(transparent)]
    Programme(#[from] ProgrammeError),
    /// Clustering.
    #[error("embeddings: {0}")]
    Cluster(#[from] ClusterError),
    /// The model of sentences.
    #[error("embeddings: {0}")]
    Embedding(String),
    /// Models or memory.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl From<PoolError> for SearchError {
    fn from(error: PoolError) -> Self {
        Self::Pass(error.into())
    }
}

impl From<ModelError> for SearchError {
    fn from(error: ModelError) -> Self {
        Self::Pass(error.into())
    }
}

/// Continues `prompt`; `watch` sees each step before it is taken.
///
/// # Errors
/// The prompt is empty or too long, memory doesn't hold even the prompt, or a model fails. Too little memory for the rest is no error: parts are computed again, and [`Cost`] says so.
pub fn search(
    cast: Cast<'_>,
    settings: &Settings,
    prompt: &[u32],
    watch: impl FnMut(&Event<'_>),
) -> Result<(Found, Vec<Tally>), SearchError> {
    let mut search = Search::new(cast, *settings, prompt, None)?;
    search.run(watch)?;
    let tallies = (0..2)
        .filter_map(|model| search.branches.tally(model).cloned())
        .collect();
    Ok((search.finish()?.0, tallies))
}

/// Searches of one prompt that know each other's continuations.
///
/// A continuation depends on its place in the tree alone, so what one method's search generated needn't be generated for another's. Trees and answers are those of [`search`]; what passes and pages took is
/// not any search's own, and is left out of [`Cost`].
pub struct Searches<'a> {
    cast: Cast<'a>,
    prompt: Vec<u32>,
    known: Option<Known<'a>>,
    /// Temperature, seed and limits: what a continuation depends on.
    fixed: Option<(Option<u32>, u64, usize, usize, bool)>,
}

/// What was generated, by the noise that it was generated with, and where its keys and values are.
struct Known<'a> {
    branches: Branches<'a>,
    children: HashMap<u64, KnownChild>,
    root: Grown,
}

struct KnownChild {
    grown: Grown,
    ending: Ending,
    score: f32,
    over_long: bool,
}

impl<'a> Searches<'a> {
    /// Nothing known yet.
    pub fn new(cast: Cast<'a>, prompt: &[u32]) -> Self {
        Self {
            cast,
            prompt: prompt.to_vec(),
            known: None,
            fixed: None,
        }
    }

    /// As [`search`], with what earlier ones generated. If temperature, seed or limits are others than theirs, nothing of it is used. Pages are never scarce.
    ///
    /// # Errors
    /// As [`search`].
    pub fn search(
        &mut self,
        settings: &Settings,
        watch: impl FnMut(&Event<'_>),
    ) -> Result<Found, SearchError> {
        let fixed = (
            settings.temperature.map(f32::to_bits),
            settings.seed,
            settings.step_tokens,
            settings.trajectory_tokens,
            settings.check_steps,
        );
        if self.fixed.replace(fixed) != Some(fixed) {
            self.known = None;
        }
        let settings = Settings {
            pages: usize::MAX,
            ..*settings
        };
        let known = self.known.take();
        let first = known.is_none();
        let mut search = Search::new(self.cast, settings, &self.prompt, known)?;
        if first {
            search.remember_root()?;
        }
        search.run(watch)?;
        let (mut found, known) = search.finish()?;
        found.cost.passes = PassCounters::default();
        (found.cost.page_passes, found.cost.pages_peak) = (0, 0);
        self.known = known;
        Ok(found)
    }
}

/// What is known of a node besides its place in the tree.
#[derive(Clone, Debug, Default)]
struct Grown {
    /// Of its own step; the root's are the prompt.
    tokens: Vec<u32>,
    /// Its branch, while its keys and values are held.
    segment: Option<super::SegmentId>,
    /// The policy's logits behind it.
    logits: Vec<f32>,
    /// The reward model's, if it needs them.
    judged: Vec<f32>,
    /// Of its continuations' noise.
    stream: u64,
    /// For clustering.
    embedding: Vec<f32>,
    /// Whether it ends with an answer.
    answers: bool,
}

struct Search<'a> {
    cast: Cast<'a>,
    settings: Settings,
    branches: Branches<'a>,
    tree: SearchTree,
    nodes: Vec<Grown>,
    /// Completed ones, in order.
    ended: Vec<NodeId>,
    cost: Cost,
    dvts: Option<Dvts>,
    /// Subtrees of nodes, for DVTS; a node may carry on several.
    subtrees: BTreeMap<NodeId, Vec<(usize, u32)>>,
    /// What other searches generated, if there are others.
    known: Option<(HashMap<u64, KnownChild>, Grown)>,
}

impl<'a> Search<'a> {
    fn new(
        cast: Cast<'a>,
        settings: Settings,
        prompt: &[u32],
        known: Option<Known<'a>>,
    ) -> Result<Self, SearchError> {
        let models = [cast.policy, cast.reward.model()];
        let (branches, known) = match known {
            Some(Known {
                branches,
                children,
                root,
            }) => (branches, Some((children, root))),
            None => (
                Branches::new(&models, settings.pages, settings.layout)?,
                None,
            ),
        };
        let tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        if prompt.is_empty() {
            return Err(SearchError::Prompt("it is empty"));
        }
        if prompt.len() >= branches.context().min(settings.trajectory_tokens) {
            return Err(SearchError::Prompt(
                "it leaves no room for a step in the context",
            ));
        }
        let dvts = match settings.method {
            Method::Dvts(subtrees) => Some(Dvts::new(settings.width, subtrees)),
            _ => None,
        };
        let mut search = Self {
            cast,
            settings,
            branches,
            tree: SearchTree::new(settings.width, tokens),
            nodes: vec![Grown {
                tokens: prompt.to_vec(),
                // Mixed first: of neighbouring seeds the continuations' numbers would make the same streams.
                stream: mix(settings.seed, 0),
                ..Grown::default()
            }],
            ended: Vec::new(),
            cost: Cost::default(),
            dvts,
            subtrees: BTreeMap::new(),
            known,
        };
        match &search.known {
            Some((_, root)) => {
                let segment = root.segment.map(|segment| search.branches.fork(segment));
                let mut root = root.clone();
                root.segment = segment.transpose()?;
                search.nodes[0] = root;
            }
            None => search.read_prompt()?,
        }
        Ok(search)
    }

    /// Keeps the prompt's keys and values for other searches.
    fn remember_root(&mut self) -> Result<(), SearchError> {
        let mut root = self.nodes[0].clone();
        root.segment = root
            .segment
            .map(|segment| self.branches.fork(segment))
            .transpose()?;
        self.known = Some((HashMap::new(), root));
        Ok(())
    }

    /// Tokens of the paths of leaves, those that siblings have in common from their beginning on once.
    fn held_tokens(&self, leaves: &[NodeId]) -> Result<u64, TreeError> {
        let mut steps: Vec<(Option<NodeId>, &[u32])> = self
            .tree
            .union(leaves)?
            .into_iter()
            .map(|node| Ok((self.tree.parent(node)?, self.nodes[node].tokens.as_slice())))
            .collect::<Result<_, TreeError>>()?;
        steps.sort_unstable();
        let mut held = 0;
        for (place, (parent, tokens)) in steps.iter().enumerate() {
            let common = match place.checked_sub(1).map(|before| steps[before]) {
                Some((other, before)) if other == *parent => tokens
                    .iter()
                    .zip(before)
                    .take_while(|(a, b)| a == b)
                    .count(),
                _ => 0,
            };
            held += (tokens.len() - common) as u64;
        }
        Ok(held)
    }

    /// Most tokens of a trajectory.
    fn longest(&self) -> usize {
        self.settings.trajectory_tokens.min(self.branches.context())
    }

    fn run(&mut self, mut watch: impl FnMut(&Event<'_>)) -> Result<(), SearchError> {
        for depth in 0..self.settings.depth {
            let frontier = self.tree.frontier();
            if frontier.is_empty() || self.tree.remaining() == 0 {
                break;
            }
            let kv = self.tree.unique_tokens(&frontier)?;
            self.cost.kv_tokens += kv;
            self.cost.kv_peak = self.cost.kv_peak.max(kv);
            let held = self.held_tokens(&frontier)?;
            self.cost.held_tokens += held;
            self.cost.held_peak = self.cost.held_peak.max(held);
            let begun = std::time::Instant::now();
            let (plan, selection) = self.plan(depth, &frontier)?;
            if depth > 0 {
                self.cost.selection_ns += nanoseconds(begun);
            }
            watch(&Event {
                depth,
                tree: &self.tree,
                selection: selection.as_ref(),
                plan: &plan,
            });
            self.prune(&frontier, &plan)?;
            if plan.is_empty() {
                break;
            }
            self.cost.depth += 1;
            self.cost.calls += plan.iter().map(|&(_, count)| u64::from(count)).sum::<u64>();
            let children = self.grow(&plan)?;
            self.insert(&plan, children)?;
        }
        for node in &mut self.nodes {
            if let Some(segment) = node.segment.take() {
                self.branches.release(segment)?;
            }
        }
        Ok(())
    }

    /// Gives up leaves that aren't continued, with what nobody else needs.
    fn prune(&mut self, frontier: &[NodeId], plan: &[(NodeId, u32)]) -> Result<(), SearchError> {
        for &leaf in frontier {
            if !plan.iter().any(|&(kept, _)| kept == leaf) {
                self.tree.decide(leaf, State::Pruned)?;
            }
        }
        let needed: Vec<NodeId> = plan.iter().map(|&(leaf, _)| leaf).collect();
        let mut kept = self.tree.union(&needed)?.into_iter().peekable();
        for node in 0..self.nodes.len() {
            if kept.next_if_eq(&node).is_none()
                && let Some(segment) = self.nodes[node].segment.take()
            {
                self.branches.release(segment)?;
            }
        }
        Ok(())
    }

    /// Which steps say the same.
    fn find_clusters(&mut self, frontier: &[NodeId]) -> Result<(), SearchError> {
        let texts: Vec<String> = frontier
            .iter()
            .map(|&leaf| self.cast.task.text(&self.nodes[leaf].tokens))
            .collect();
        let references: Vec<&str> = texts.iter().map(String::as_str).collect();
        let clusters = if !worth_clustering(&references) {
            None
        } else {
            Some(match self.cast.embedding {
                Embedding::Reward => {
                    let embeddings: Vec<&[f32]> = frontier
                        .iter()
                        .map(|&leaf| self.nodes[leaf].embedding.as_slice())
                        .collect();
                    cluster(&embeddings, self.settings.cut)
                }
                Embedding::Text(embed) => {
                    let embeddings = embed(&texts).map_err(SearchError::Embedding)?;
                    cluster(&embeddings, self.settings.cut)
                }
            })
        };
        let clusters = match clusters {
            // A model that fails takes its clusters with it, not the search.
            Some(Err(ClusterError::NotFinite(_))) => {
                self.cost.unclustered += 1;
                None
            }
            other => other.transpose()?,
        };
        for (place, &leaf) in frontier.iter().enumerate() {
            let cluster = clusters.as_ref().and_then(|all| all.get(place)).copied();
            self.tree.set_cluster(leaf, cluster)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(Found, Option<Known<'a>>), SearchError> {
        let texts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| self.cast.task.text(&node.tokens))
            .collect();
        let trajectories = self
            .ended
            .iter()
            .map(|&node| {
                let mut path = self.tree.path(node)?;
                path.reverse();
                let steps: Vec<String> = path.iter().skip(1).map(|&id| texts[id].clone()).collect();
                let answers = self.nodes[node].answers;
                Ok(Trajectory {
                    node,
                    answer: answers.then(|| self.cast.task.answer(&steps)),
                    steps,
                    scores: path
                        .iter()
                        .skip(1)
                        .map(|&id| self.tree.score(id))
                        .collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, TreeError>>()?;
        let mut cost = self.cost;
        cost.passes = self.branches.counters();
        cost.pages_peak = self.branches.usage().most_pages as u64;
        let known = self.known.map(|(children, root)| Known {
            branches: self.branches,
            children,
            root,
        });
        Ok((
            Found {
                tree: self.tree,
                texts,
                trajectories,
                cost,
            },
            known,
        ))
    }
}

fn nanoseconds(since: std::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
