//! A page pool as hardware has it: node-aligned, with a fixed number of segments and short generations.

use serde::Serialize;

use super::{Layout, PagePool, PoolError, SegmentId, Usage};

/// A segment as hardware names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Handle {
    /// Its place.
    pub segment: u32,
    /// How often the place has been used before, modulo 256. A handle that is older than that is not told from a new one.
    pub generation: u8,
}

/// Segments and the numbers of their pages; what a page holds is not kept.
#[derive(Clone, Debug)]
pub struct PageTable {
    pool: PagePool<()>,
    segments: usize,
    /// Of each place that has been used, how often before.
    generations: Vec<u32>,
}

impl PageTable {
    /// A table of at most so many segments, and pages of so many tokens.
    ///
    /// # Errors
    /// A page holds no token.
    pub fn new(segments: usize, pages: usize, page_tokens: usize) -> Result<Self, PoolError> {
        Ok(Self {
            pool: PagePool::new(pages, page_tokens, Layout::NodeAligned)?,
            segments,
            generations: Vec::new(),
        })
    }

    fn id(&self, handle: Handle) -> SegmentId {
        // A place that was never used, or is of another generation, holds no such segment.
        let generation = match self.generations.get(handle.segment as usize) {
            Some(&generation) if generation as u8 == handle.generation => generation,
            Some(&generation) => generation.wrapping_add(1),
            None => 0,
        };
        SegmentId::from_parts(handle.segment, generation)
    }

    fn room(&self) -> Result<(), PoolError> {
        if self.pool.usage().segments >= self.segments {
            return Err(PoolError::Segments);
        }
        Ok(())
    }

    fn begun(&mut self, id: SegmentId) -> Handle {
        let (segment, generation) = id.parts();
        let place = segment as usize;
        if place >= self.generations.len() {
            self.generations.resize(place + 1, 0);
        }
        self.generations[place] = generation;
        Handle {
            segment,
            generation: generation as u8,
        }
    }

    /// As [`PagePool::root`].
    ///
    /// # Errors
    /// All segments are in use.
    pub fn root(&mut self) -> Result<Handle, PoolError> {
        self.room()?;
        let id = self.pool.root()?;
        Ok(self.begun(id))
    }

    /// As [`PagePool::fork`].
    ///
    /// # Errors
    /// All segments are in use, or those of [`PagePool::fork`].
    pub fn fork(&mut self, handle: Handle) -> Result<Handle, PoolError> {
        self.room()?;
        let id = self.pool.fork(self.id(handle))?;
        Ok(self.begun(id))
    }

    /// As [`PagePool::append`]: the token's page and its place there.
    ///
    /// # Errors
    /// Those of [`PagePool::append`].
    pub fn append(&mut self, handle: Handle) -> Result<(usize, usize), PoolError> {
        let id = self.id(handle);
        self.pool.append(id).map(|slot| (slot.page, slot.place))
    }

    /// As [`PagePool::release`].
    ///
    /// # Errors
    /// Those of [`PagePool::release`].
    pub fn release(&mut self, handle: Handle) -> Result<(), PoolError> {
        self.pool.release(self.id(handle))
    }

    /// As [`PagePool::prune`].
    ///
    /// # Errors
    /// Those of [`PagePool::prune`].
    pub fn prune(&mut self, handle: Handle) -> Result<(), PoolError> {
        self.pool.prune(self.id(handle))
    }

    /// The segments from one up to its root.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn walk(&self, handle: Handle) -> Result<Vec<u32>, PoolError> {
        let walk = self.pool.walk(self.id(handle))?;
        Ok(walk.into_iter().map(|id| id.parts().0).collect())
    }

    /// The pages of one segment, in the order of its tokens.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn pages(&self, handle: Handle) -> Result<Vec<usize>, PoolError> {
        let id = self.id(handle);
        // Segments begin pages, so that each run is one page of one segment.
        let above = match self.pool.walk(id)?.get(1) {
            Some(&parent) => self.pool.table(parent)?.len(),
            None => 0,
        };
        let table = self.pool.table(id)?;
        Ok(table.into_iter().skip(above).map(|run| run.page).collect())
    }

    /// What it holds.
    pub const fn usage(&self) -> Usage {
        self.pool.usage()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn segments_and_pages_run_out_and_come_back() {
        let mut table = PageTable::new(2, 2, 2).unwrap();
        let root = table.root().unwrap();
        assert_eq!(table.append(root), Ok((0, 0)));
        let child = table.fork(root).unwrap();
        assert_eq!(table.fork(root), Err(PoolError::Segments));
        assert_eq!(table.root(), Err(PoolError::Segments));
        for expected in [(1, 0), (1, 1)] {
            assert_eq!(table.append(child), Ok(expected));
        }
        assert_eq!(table.append(child), Err(PoolError::Full { capacity: 2 }));
        assert_eq!(table.walk(child), Ok(vec![1, 0]));
        assert_eq!(
            (table.pages(root), table.pages(child)),
            (Ok(vec![0]), Ok(vec![1]))
        );
        table.prune(child).unwrap();
        let again = table.fork(root).unwrap();
        assert_eq!((again.segment, again.generation), (1, 1));
        assert_eq!(table.release(child), Err(PoolError::Freed));
        assert_eq!(table.pages(again), Ok(vec![]));
        assert_eq!(table.append(again), Ok((1, 0)));
        assert_eq!(table.usage().pages, 2);
        let nobody = Handle {
            segment: 7,
            generation: 0,
        };
        assert_eq!(table.prune(nobody), Err(PoolError::Freed));
    }
}
