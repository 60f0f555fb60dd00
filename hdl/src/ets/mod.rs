//! Hardware for efficient tree search: what of `golden::ets` decides something, in integers bit for bit. `docs/tree-search-hardware.md` describes it.
//!
//! * [`PruningEngine`] chooses the leaves to keep; its twin is `golden::ets::prune`. It is made of [`PruneLoader`], [`UpPass`], [`DownPass`] and [`ClusterTable`].
//! * [`Allocator`] shares the width; its twin is `golden::ets::allocate`. It is made of [`LeafSorter`], [`WeightPipe`] with its [`PowerTable`], and [`ShareServer`].
//! * [`TreeWalker`] goes through the nodes on the paths of some leaves, depth first; its twin is `golden::ets::depth_first`.
//! * [`PageTable`] keeps segments and pages with reference counts; its twin is `golden::ets::PageTable`.
//! * [`TreeSelector`] makes a whole selection with these.

mod allocator;
mod clusters;
mod config;
mod down;
mod engine;
mod loader;
pub mod pages;
mod selector;
mod share;
mod sort;
mod up;
mod walker;
mod weights;

pub use allocator::Allocator;
pub use clusters::ClusterTable;
pub use config::{LEAVES, MOST_NODES, PageTableConfig, SEGMENTS, SelectorConfig, TreeConfigError};
pub use down::DownPass;
pub use engine::PruningEngine;
pub use loader::PruneLoader;
pub use pages::PageTable;
pub use selector::TreeSelector;
pub use share::ShareServer;
pub use sort::{ENTRY, KEY, LeafSorter};
pub use up::UpPass;
pub use walker::{NODE, TreeWalker};
pub use weights::{PowerTable, SHARE, WeightPipe};

/// Bits of what a set of leaves is worth, two's complement. A job's sums need at most one bit less, so that a difference of two never wraps.
pub const VALUE: usize = 56;
/// The sign.
const SIGN: usize = VALUE - 1;
/// Bits of a weight, and of what a node costs.
pub const WEIGHT: usize = 16;
/// Bits of a leaf's number, a cluster's and a depth: at most 256 leaves.
pub const NUMBER: usize = 8;
/// Bits of the word that says what a vertex is: a leaf, its depth, its number and its cluster.
pub const SHAPE: usize = 3 * NUMBER + 1;
/// Where they are.
const SHAPE_NUMBER: usize = NUMBER;
const SHAPE_DEPTH: usize = 2 * NUMBER;
const SHAPE_LEAF: usize = 3 * NUMBER;
