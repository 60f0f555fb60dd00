//! ETS: efficient tree search for inference-time scaling (arXiv 2502.13575).
//!
//! A search grows a tree of reasoning steps. After each step a reward model scores the leaves, a budget of continuations (the width) is shared among them by score, and leaves that
//! are not worth the keys and values of their paths are pruned, unless they say something that no other leaf says. What is kept and how the width is shared is decided here in
//! integers, so that hardware can do the same bit for bit; `docs/tree-search.md` has the definitions.
//!
//! * [`SearchTree`] holds the trajectories and counts their keys and values by unique tokens.
//! * [`Scores`], [`Temperature`] and [`allocate()`] share the width exactly; [`published`] is the float32 rule of the published code.
//! * [`Programme`] is the choice of leaves as an integer programme, [`Programme::solve`] the exact method, [`Programme::enumerate`] the plain one.
//! * [`select()`] does one step of a search with them.
//! * [`cluster()`] finds which steps say the same, from their embeddings.
//! * [`prune()`] chooses as hardware does, by a fixed number of passes; [`depth_first`] is the order in which it goes through the tree.
//! * [`vote()`] makes the answer; [`baselines`] has the selection rules of other searches.
//! * [`PagePool`] keeps pages of keys and values for branches that share their beginnings; [`PageTable`] is one with as many segments as hardware has.
//! * [`live`] searches with models, [`countdown`] is a task that it searches.

pub mod allocate;
pub mod baselines;
mod cluster;
pub mod countdown;
pub mod live;
mod pages;
mod pool;
mod programme;
mod prune;
pub mod published;
pub mod samples;
mod select;
mod solve;
mod tree;
mod vote;
mod walk;

pub use allocate::{Allocation, Scores, Temperature, TemperatureError, allocate};
pub use baselines::Dvts;
pub use cluster::{CUT, ClusterError, cluster, worth_clustering};
pub use pages::{Handle, PageTable};
pub use pool::{Layout, PagePool, PoolError, Run, SegmentId, Slot, Usage};
pub use programme::{
    Evaluation, LAMBDA_RESOLUTION, Lambda, LambdaError, MOST_ENUMERATED, NodePrice, Parts, Prices,
    Programme, ProgrammeError,
};
pub use prune::{
    EngineSelection, PruneJob, PruneLeaf, PruneStep, Pruned, ROUNDS, TableLeaf, TableNode,
    TableRead, Tables, prune, select_by_engine,
};
pub use select::{Rule, Selection, select};
pub use solve::{Effort, Solution};
pub use tree::{NodeId, SearchTree, State, TreeError};
pub use vote::{Vote, VoteRule, vote};
pub use walk::{Visit, depth_first};
