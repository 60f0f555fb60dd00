//! Sizes of the selector and of the page table, validated.

use serde::{Deserialize, Serialize};

use super::NODE;

/// Leaves that a selector is built for; what is asked for is served by the next one up.
pub const LEAVES: [usize; 3] = [16, 64, 256];
/// Most nodes of a selector.
pub const MOST_NODES: usize = 1 << NODE;
/// Segments that a page table is built for, and powers of two for the numbers of its pages; what is asked for is served by the next one up.
pub const SEGMENTS: [usize; 4] = [64, 256, 1024, 4096];

/// Room of a [`super::TreeSelector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectorConfig {
    /// Live leaves, at least: [`LEAVES`] are built.
    pub leaves: usize,
    /// Nodes on their paths. A power of two.
    pub nodes: usize,
}

impl Default for SelectorConfig {
    fn default() -> Self {
        Self {
            leaves: 64,
            nodes: 1024,
        }
    }
}

/// Room of a [`super::PageTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageTableConfig {
    /// Segments, at least: [`SEGMENTS`] are built.
    pub segments: usize,
    /// Pages.
    pub pages: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
}

impl Default for PageTableConfig {
    fn default() -> Self {
        Self {
            segments: 256,
            pages: 1024,
            page_tokens: 16,
        }
    }
}

/// Why a size is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeConfigError {
    /// The selector's leaves.
    #[error(
        "leaves = {0}: a selector has room for 2 to 256 leaves, because their numbers have 8 bits"
    )]
    Leaves(usize),
    /// The selector's nodes.
    #[error(
        "nodes = {0}: a selector has room for a power of two of nodes from 16 to {MOST_NODES}, because their numbers have {NODE} bits"
    )]
    Nodes(usize),
    /// The page table's segments or pages.
    #[error(
        "{name} = {value}: a page table has 2 to 4096 of them, because their numbers have at most 12 bits"
    )]
    PageTable {
        /// Which of them.
        name: &'static str,
        /// What was asked for.
        value: usize,
    },
    /// Tokens of a page.
    #[error("page_tokens = {0}: a page holds 1 to 255 tokens, because places have 8 bits")]
    PageTokens(usize),
}

impl SelectorConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first size that is out of range, and why it is.
    pub fn validate(self) -> Result<Self, TreeConfigError> {
        if !(2..=256).contains(&self.leaves) {
            return Err(TreeConfigError::Leaves(self.leaves));
        }
        if !self.nodes.is_power_of_two() || !(16..=MOST_NODES).contains(&self.nodes) {
            return Err(TreeConfigError::Nodes(self.nodes));
        }
        Ok(self)
    }

    /// Leaves that there is room for as built.
    #[must_use]
    pub fn built_leaves(&self) -> usize {
        next_up(&LEAVES, self.leaves)
    }
}

impl PageTableConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first size that is out of range, and why it is.
    pub fn validate(self) -> Result<Self, TreeConfigError> {
        for (name, value) in [("segments", self.segments), ("pages", self.pages)] {
            if !(2..=4096).contains(&value) {
                return Err(TreeConfigError::PageTable { name, value });
            }
        }
        if !(1..=255).contains(&self.page_tokens) {
            return Err(TreeConfigError::PageTokens(self.page_tokens));
        }
        Ok(self)
    }

    /// Segments as built.
    #[must_use]
    pub fn built_segments(&self) -> usize {
        next_up(&SEGMENTS, self.segments)
    }

    /// Bits of a segment's number and of a page's, as built.
    #[must_use]
    pub fn number_bits(&self) -> (u32, u32) {
        let pages = next_up(&SEGMENTS, self.pages);
        (
            self.built_segments().trailing_zeros(),
            pages.trailing_zeros(),
        )
    }
}

/// The smallest of some sizes, in order, that is at least what is needed; the last if none is.
fn next_up(sizes: &[usize], needed: usize) -> usize {
    let mut built = 0;
    for &size in sizes {
        built = size;
        if size >= needed {
            break;
        }
    }
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_why() {
        let selector = |leaves, nodes| SelectorConfig { leaves, nodes }.validate();
        assert!(selector(2, 16).is_ok() && selector(256, 4096).is_ok());
        let refused = [
            selector(1, 16),
            selector(257, 16),
            selector(2, 100),
            selector(2, 8192),
        ];
        let expected = [
            "leaves = 1:",
            "leaves = 257:",
            "nodes = 100:",
            "nodes = 8192:",
        ];
        for (refused, expected) in refused.into_iter().zip(expected) {
            let text = refused.unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
        let table = |segments, pages, page_tokens| {
            PageTableConfig {
                segments,
                pages,
                page_tokens,
            }
            .validate()
        };
        assert!(table(2, 2, 1).is_ok() && table(4096, 4096, 255).is_ok());
        let refused = [
            table(1, 2, 1),
            table(2, 4097, 1),
            table(2, 2, 0),
            table(2, 2, 256),
        ];
        let expected = [
            "segments = 1:",
            "pages = 4097:",
            "page_tokens = 0:",
            "page_tokens = 256:",
        ];
        for (refused, expected) in refused.into_iter().zip(expected) {
            let text = refused.unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn rooms_are_never_smaller_than_asked_for() {
        for (leaves, built) in [(2, 16), (16, 16), (17, 64), (65, 256), (256, 256)] {
            let config = SelectorConfig { leaves, nodes: 16 };
            assert_eq!(config.built_leaves(), built);
        }
        let config = PageTableConfig {
            segments: 65,
            pages: 1025,
            page_tokens: 1,
        };
        assert_eq!(config.built_segments(), 256);
        assert_eq!(config.number_bits(), (8, 12));
    }
}
