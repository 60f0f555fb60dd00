//! Pages of keys and values for branches that share their beginnings.

use serde::Serialize;

/// Where a branch's first token goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Layout {
    /// Into the page that its parent left partly filled: the first branch that writes goes on in place, others copy the page.
    CopyOnWrite,
    /// Into a page of its own. Nothing is ever copied; less than a page is lost for each segment.
    NodeAligned,
}

/// A segment of a pool: the tokens of one step. It stays another than all later ones in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SegmentId {
    index: u32,
    generation: u32,
}

impl SegmentId {
    /// A handle as it is written down; a pool knows whether there is such a segment.
    pub const fn from_parts(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The segment's place, and how often the place has been used before.
    pub const fn parts(self) -> (u32, u32) {
        (self.index, self.generation)
    }
}

/// Where a token's keys and values go.
#[derive(Debug)]
pub struct Slot<'a, P> {
    /// The page's number.
    pub page: usize,
    /// Its payload. What an earlier owner wrote behind `place` may still be there.
    pub payload: &'a mut P,
    /// The token's place in the page.
    pub place: usize,
}

/// Tokens of a page that lie one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Run {
    /// The page's number.
    pub page: usize,
    /// Place of the first token.
    pub first: usize,
    /// How many.
    pub tokens: usize,
}

/// What a pool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Usage {
    /// Pages in use.
    pub pages: usize,
    /// Most pages that were in use at once.
    pub most_pages: usize,
    /// Segments alive.
    pub segments: usize,
    /// Tokens of all segments, shared ones once.
    pub tokens: usize,
    /// Pages copied so far.
    pub copies: u64,
}

/// What can't be done with a pool. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// A page holds at least one token.
    #[error("a page must hold at least one token")]
    PageTokens,
    /// All pages are in use.
    #[error("all {capacity} pages are in use")]
    Full {
        /// Pages of the pool.
        capacity: usize,
    },
    /// The segment was freed.
    #[error("the segment has been freed")]
    Freed,
    /// The segment lives on for its descendants alone.
    #[error("the segment has been released; it is only kept for those behind it")]
    Released,
    /// What others build upon can't grow.
    #[error("the segment has descendants and can't grow")]
    Frozen,
    /// More segments than can be numbered.
    #[error("too many segments")]
    Segments,
}

#[derive(Clone, Debug)]
struct Page<P> {
    payload: P,
    references: u32,
    /// Places written by those that refer to it.
    filled: usize,
}

#[derive(Clone, Debug)]
struct Segment {
    generation: u32,
    alive: bool,
    held: bool,
    parent: Option<u32>,
    children: Vec<u32>,
    /// Tokens before it.
    start: usize,
    tokens: usize,
    pages: Vec<usize>,
}

/// A pool of pages with a limit, reference-counted.
///
/// A branch is a chain of segments up to a root. [`PagePool::fork`] begins a segment behind another; a segment lives as long as somebody holds it or one behind it lives, and its pages as long as a segment has tokens in them.
/// `P` is a page's payload: keys and values of [`PagePool::page_tokens`] tokens, in whatever form.
#[derive(Clone, Debug)]
pub struct PagePool<P> {
    page_tokens: usize,
    layout: Layout,
    capacity: usize,
    pages: Vec<Page<P>>,
    free_pages: Vec<usize>,
    segments: Vec<Segment>,
    free_segments: Vec<u32>,
    usage: Usage,
}

impl<P: Clone + Default> PagePool<P> {
    /// A pool of at most `capacity` pages of `page_tokens` tokens; payloads are made when they are first needed.
    ///
    /// # Errors
    /// A page holds no token.
    pub fn new(capacity: usize, page_tokens: usize, layout: Layout) -> Result<Self, PoolError> {
        if page_tokens == 0 {
            return Err(PoolError::PageTokens);
        }
        Ok(Self {
            page_tokens,
            layout,
            capacity,
            pages: Vec::new(),
            free_pages: Vec::new(),
            segments: Vec::new(),
            free_segments: Vec::new(),
            usage: Usage::default(),
        })
    }

    /// Tokens of a page.
    pub const fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Pages of the pool.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// What it holds.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Begins a branch of its own; the caller holds it.
    ///
    /// # Errors
    /// There are too many segments.
    pub fn root(&mut self) -> Result<SegmentId, PoolError> {
        self.begin(None, 0)
    }

    /// Begins a segment behind another, which can't grow as long as it has one behind it. The caller holds both.
    ///
    /// # Errors
    /// The segment was freed or released, or there are too many.
    pub fn fork(&mut self, id: SegmentId) -> Result<SegmentId, PoolError> {
        let parent = self.held(id)?;
        let start = self.segments[parent].start + self.segments[parent].tokens;
        let child = self.begin(Some(id.index), start)?;
        self.segments[parent].children.push(child.index);
        Ok(child)
    }

    /// Makes room for one more token of a segment.
    ///
    /// # Errors
    /// The segment was freed or released, or has descendants; or a page is needed and none is free.
    pub fn append(&mut self, id: SegmentId) -> Result<Slot<'_, P>, PoolError> {
        let index = self.held(id)?;
        let segment = &self.segments[index];
        if !segment.children.is_empty() {
            return Err(PoolError::Frozen);
        }
        let offset = self.offset(segment) + segment.tokens;
        let place = offset % self.page_tokens;
        let page = match segment.pages.get(offset / self.page_tokens) {
            Some(&page) => page,
            None => {
                let page = match self.left_over(segment) {
                    Some(page) if place > 0 => self.go_on(page, place)?,
                    _ => self.take()?,
                };
                self.segments[index].pages.push(page);
                page
            }
        };
        self.segments[index].tokens += 1;
        self.usage.tokens += 1;
        let held = &mut self.pages[page];
        held.filled = place + 1;
        Ok(Slot {
            page,
            payload: &mut held.payload,
            place,
        })
    }

    /// Gives a segment up. It and those above it that nobody holds or builds upon are freed.
    ///
    /// # Errors
    /// It was freed or released already.
    pub fn release(&mut self, id: SegmentId) -> Result<(), PoolError> {
        let index = self.held(id)?;
        self.segments[index].held = false;
        self.collect(index);
        Ok(())
    }

    /// Frees a segment and all behind it, whoever holds them, and those above it that nobody holds or builds upon.
    ///
    /// # Errors
    /// It was freed already.
    pub fn prune(&mut self, id: SegmentId) -> Result<(), PoolError> {
        let index = self.alive(id)?;
        let mut subtree = vec![index];
        let mut next = 0;
        while let Some(&segment) = subtree.get(next) {
            let children = &self.segments[segment].children;
            subtree.extend(children.iter().map(|&child| child as usize));
            next += 1;
        }
        // The last ones first, so that each has none behind it; the first takes those above along.
        for segment in subtree.into_iter().rev() {
            self.segments[segment].held = false;
            if segment == index {
                self.collect(segment);
            } else {
                self.free(segment);
            }
        }
        Ok(())
    }

    /// Tokens of a branch, from its root on.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn tokens(&self, id: SegmentId) -> Result<usize, PoolError> {
        let segment = &self.segments[self.alive(id)?];
        Ok(segment.start + segment.tokens)
    }

    /// The segments of a branch, from the given one up to its root.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn walk(&self, id: SegmentId) -> Result<Vec<SegmentId>, PoolError> {
        self.alive(id)?;
        let up = std::iter::successors(Some(id.index), |&index| {
            self.segments[index as usize].parent
        });
        Ok(up
            .map(|index| SegmentId {
                index,
                generation: self.segments[index as usize].generation,
            })
            .collect())
    }

    /// Where a branch's tokens are, from the root's first to its own last. A page that goes on in place, or was copied, is one run.
    ///
    /// # Errors
    /// The segment was freed.
    pub fn table(&self, id: SegmentId) -> Result<Vec<Run>, PoolError> {
        let mut table: Vec<Run> = Vec::new();
        for segment in self.walk(id)?.iter().rev() {
            let segment = &self.segments[segment.index as usize];
            let (mut place, mut left) = (self.offset(segment), segment.tokens);
            for &page in &segment.pages {
                let tokens = left.min(self.page_tokens - place);
                // What is before it in the page is the branch's own, in place or copied.
                let before = if place > 0 {
                    table.pop().map_or(0, |run| run.tokens)
                } else {
                    0
                };
                table.push(Run {
                    page,
                    first: place - before,
                    tokens: before + tokens,
                });
                (place, left) = (0, left - tokens);
            }
        }
        Ok(table)
    }

    /// A page in use.
    pub fn page(&self, page: usize) -> Option<&P> {
        self.pages
            .get(page)
            .filter(|page| page.references > 0)
            .map(|page| &page.payload)
    }

    /// A page in use, to be written.
    pub fn page_mut(&mut self, page: usize) -> Option<&mut P> {
        self.pages
            .get_mut(page)
            .filter(|page| page.references > 0)
            .map(|page| &mut page.payload)
    }

    /// Segments that have tokens in a page; 0 for one that is free.
    pub fn references(&self, page: usize) -> u32 {
        self.pages.get(page).map_or(0, |page| page.references)
    }

    fn alive(&self, id: SegmentId) -> Result<usize, PoolError> {
        let index = id.index as usize;
        match self.segments.get(index) {
            Some(segment) if segment.alive && segment.generation == id.generation => Ok(index),
            _ => Err(PoolError::Freed),
        }
    }

    fn held(&self, id: SegmentId) -> Result<usize, PoolError> {
        let index = self.alive(id)?;
        if self.segments[index].held {
            Ok(index)
        } else {
            Err(PoolError::Released)
        }
    }

    /// Places of a segment's first page that are not its own.
    fn offset(&self, segment: &Segment) -> usize {
        match self.layout {
            Layout::CopyOnWrite => segment.start % self.page_tokens,
            Layout::NodeAligned => 0,
        }
    }

    fn begin(&mut self, parent: Option<u32>, start: usize) -> Result<SegmentId, PoolError> {
        let fresh = Segment {
            generation: 0,
            alive: true,
            held: true,
            parent,
            children: Vec::new(),
            start,
            tokens: 0,
            pages: Vec::new(),
        };
        let id = if let Some(index) = self.free_segments.pop() {
            let segment = &mut self.segments[index as usize];
            let generation = segment.generation.wrapping_add(1);
            *segment = Segment {
                generation,
                ..fresh
            };
            SegmentId { index, generation }
        } else {
            let index = u32::try_from(self.segments.len()).map_err(|_| PoolError::Segments)?;
            self.segments.push(fresh);
            SegmentId {
                index,
                generation: 0,
            }
        };
        self.usage.segments += 1;
        Ok(id)
    }

    /// The page that holds the token before a segment that has none yet.
    fn left_over(&self, segment: &Segment) -> Option<usize> {
        if self.layout == Layout::NodeAligned || segment.tokens > 0 {
            return None;
        }
        let mut above = segment.parent;
        while let Some(index) = above {
            let parent = &self.segments[index as usize];
            if parent.tokens > 0 {
                return parent.pages.last().copied();
            }
            above = parent.parent;
        }
        None
    }

    /// Goes on in a page of which the first `filled` places are a branch's: in place if nobody else did, otherwise in a copy.
    fn go_on(&mut self, page: usize, filled: usize) -> Result<usize, PoolError> {
        if self.pages[page].filled == filled {
            self.pages[page].references += 1;
            return Ok(page);
        }
        let copy = self.take()?;
        self.pages[copy].payload = self.pages[page].payload.clone();
        self.usage.copies += 1;
        Ok(copy)
    }

    fn take(&mut self) -> Result<usize, PoolError> {
        let page = if let Some(page) = self.free_pages.pop() {
            self.pages[page].references = 1;
            page
        } else if self.pages.len() < self.capacity {
            self.pages.push(Page {
                payload: P::default(),
                references: 1,
                filled: 0,
            });
            self.pages.len() - 1
        } else {
            let capacity = self.capacity;
            return Err(PoolError::Full { capacity });
        };
        self.usage.pages += 1;
        self.usage.most_pages = self.usage.most_pages.max(self.usage.pages);
        Ok(page)
    }

    /// Frees a segment that nobody holds or builds upon, and so on upwards.
    fn collect(&mut self, mut index: usize) {
        while !self.segments[index].held && self.segments[index].children.is_empty() {
            match self.free(index) {
                Some(parent) => index = parent as usize,
                None => break,
            }
        }
    }

    /// Frees a segment that has none behind it; its parent is returned.
    fn free(&mut self, index: usize) -> Option<u32> {
        let offset = self.offset(&self.segments[index]);
        let segment = &mut self.segments[index];
        segment.alive = false;
        let parent = segment.parent.take();
        self.usage.segments -= 1;
        self.usage.tokens -= segment.tokens;
        let pages = std::mem::take(&mut segment.pages);
        // A segment is an index of 32 bits since it was begun.
        let index = index as u32;
        if let Some(parent) = parent {
            self.segments[parent as usize]
                .children
                .retain(|&child| child != index);
        }
        self.free_segments.push(index);
        for page in pages {
            let held = &mut self.pages[page];
            held.references -= 1;
            if held.references == 0 {
                held.filled = 0;
                self.free_pages.push(page);
                self.usage.pages -= 1;
            } else {
                // It went on in place, and nobody behind it is left: the next one may.
                held.filled = offset;
            }
        }
        parent
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Pool = PagePool<Vec<u32>>;

    fn write(pool: &mut Pool, id: SegmentId, token: u32) -> Result<(), PoolError> {
        let size = pool.page_tokens();
        let slot = pool.append(id)?;
        slot.payload.resize(size, 0);
        slot.payload[slot.place] = token;
        Ok(())
    }

    fn read(pool: &Pool, id: SegmentId) -> Vec<u32> {
        pool.table(id)
            .unwrap()
            .iter()
            .flat_map(|run| &pool.page(run.page).unwrap()[run.first..run.first + run.tokens])
            .copied()
            .collect()
    }

    /// Counts everything again.
    fn audit(pool: &Pool) {
        let mut references = vec![0; pool.pages.len()];
        let mut filled = vec![0; pool.pages.len()];
        let (mut tokens, mut alive) = (0, 0);
        for (index, segment) in pool.segments.iter().enumerate() {
            let listed = pool
                .free_segments
                .iter()
                .filter(|&&free| free as usize == index);
            assert_eq!(listed.count(), usize::from(!segment.alive));
            if !segment.alive {
                assert!(segment.pages.is_empty());
                continue;
            }
            assert!(segment.held || !segment.children.is_empty());
            (tokens, alive) = (tokens + segment.tokens, alive + 1);
            let mut end = pool.offset(segment) + segment.tokens;
            for &page in &segment.pages {
                references[page] += 1;
                filled[page] = end.min(pool.page_tokens).max(filled[page]);
                end = end.saturating_sub(pool.page_tokens);
            }
            for &child in &segment.children {
                assert_eq!(pool.segments[child as usize].parent, Some(index as u32));
            }
            if let Some(parent) = segment.parent {
                assert!(pool.segments[parent as usize].alive);
                let children = &pool.segments[parent as usize].children;
                assert!(children.contains(&(index as u32)));
            }
        }
        for (number, page) in pool.pages.iter().enumerate() {
            assert_eq!(page.references, references[number]);
            assert_eq!(page.filled, filled[number]);
            let listed = pool.free_pages.iter().filter(|&&free| free == number);
            assert_eq!(listed.count(), usize::from(page.references == 0));
        }
        let used = references.iter().filter(|&&count| count > 0).count();
        assert!(used <= pool.capacity);
        assert_eq!(
            (pool.usage.pages, pool.usage.tokens, pool.usage.segments),
            (used, tokens, alive)
        );
    }

    #[test]
    fn first_goes_on_in_place_and_others_copy() {
        let mut pool = Pool::new(8, 4, Layout::CopyOnWrite).unwrap();
        let root = pool.root().unwrap();
        for token in 0..6 {
            write(&mut pool, root, token).unwrap();
        }
        let [a, b] = [(); 2].map(|()| pool.fork(root).unwrap());
        write(&mut pool, a, 10).unwrap();
        assert_eq!((pool.usage().pages, pool.usage().copies), (2, 0));
        write(&mut pool, b, 20).unwrap();
        assert_eq!((pool.usage().pages, pool.usage().copies), (3, 1));
        assert_eq!(read(&pool, a), [0, 1, 2, 3, 4, 5, 10]);
        assert_eq!(read(&pool, b), [0, 1, 2, 3, 4, 5, 20]);
        assert_eq!(read(&pool, root), [0, 1, 2, 3, 4, 5]);
        assert_eq!(pool.append(root).unwrap_err(), PoolError::Frozen);
        pool.release(root).unwrap();
        assert_eq!(pool.release(root), Err(PoolError::Released));
        assert_eq!(pool.walk(b).unwrap(), [b, root]);
        pool.release(a).unwrap();
        assert_eq!(pool.release(a), Err(PoolError::Freed));
        audit(&pool);
        pool.release(b).unwrap();
        assert_eq!(pool.usage().pages, 0);
        assert_eq!(pool.tokens(root), Err(PoolError::Freed));
        audit(&pool);
    }

    #[test]
    fn place_is_free_again_when_its_writer_is() {
        let mut pool = Pool::new(8, 4, Layout::CopyOnWrite).unwrap();
        let root = pool.root().unwrap();
        write(&mut pool, root, 1).unwrap();
        let a = pool.fork(root).unwrap();
        write(&mut pool, a, 2).unwrap();
        pool.prune(a).unwrap();
        let b = pool.fork(root).unwrap();
        write(&mut pool, b, 3).unwrap();
        assert_eq!((pool.usage().pages, pool.usage().copies), (1, 0));
        assert_eq!(read(&pool, b), [1, 3]);
    }

    #[test]
    fn full() {
        let mut pool = Pool::new(2, 2, Layout::NodeAligned).unwrap();
        let root = pool.root().unwrap();
        write(&mut pool, root, 1).unwrap();
        let a = pool.fork(root).unwrap();
        write(&mut pool, a, 2).unwrap();
        write(&mut pool, a, 3).unwrap();
        assert_eq!(pool.append(a).unwrap_err(), PoolError::Full { capacity: 2 });
        assert_eq!(read(&pool, a), [1, 2, 3]);
        let b = pool.fork(root).unwrap();
        assert!(pool.append(b).is_err());
        pool.prune(a).unwrap();
        write(&mut pool, b, 4).unwrap();
        assert_eq!(read(&pool, b), [1, 4]);
        pool.prune(root).unwrap();
        assert_eq!(pool.usage().pages, 0);
        for id in [root, a, b] {
            assert_eq!(pool.prune(id), Err(PoolError::Freed));
            assert_eq!(pool.fork(id), Err(PoolError::Freed));
        }
        audit(&pool);
        assert_eq!(
            Pool::new(0, 2, Layout::CopyOnWrite).map(|mut pool| {
                let root = pool.root().unwrap();
                pool.append(root).map(|slot| slot.place)
            }),
            Ok(Err(PoolError::Full { capacity: 0 }))
        );
        assert_eq!(
            Pool::new(1, 0, Layout::CopyOnWrite).err(),
            Some(PoolError::PageTokens)
        );
    }

    /// A branch as nobody would store it: all of its tokens.
    struct Plain {
        tokens: Vec<u32>,
        parent: Option<SegmentId>,
        held: bool,
    }

    proptest! {
        #[test]
        fn pages_hold_what_plain_lists_hold(
            operations in prop::collection::vec((0u8..12, any::<prop::sample::Index>(), any::<u32>()), 1..160),
            page_tokens in 1usize..6,
            capacity in 0usize..30,
            copy in any::<bool>(),
        ) {
            let layout = if copy { Layout::CopyOnWrite } else { Layout::NodeAligned };
            let mut pool = Pool::new(capacity, page_tokens, layout).unwrap();
            let mut plain: BTreeMap<SegmentId, Plain> = BTreeMap::new();
            let mut dead: Vec<SegmentId> = Vec::new();
            for (operation, which, token) in operations {
                let ids: Vec<SegmentId> = plain.keys().copied().collect();
                if ids.is_empty() || operation == 0 {
                    let id = pool.root().unwrap();
                    plain.insert(id, Plain { tokens: Vec::new(), parent: None, held: true });
                    continue;
                }
                let id = ids[which.index(ids.len())];
                let held = plain[&id].held;
                let inner = plain.values().any(|other| other.parent == Some(id));
                match operation {
                    1..=6 => match write(&mut pool, id, token) {
                        Ok(()) => {
                            prop_assert!(held && !inner);
                            plain.get_mut(&id).unwrap().tokens.push(token);
                        }
                        Err(PoolError::Released) => prop_assert!(!held),
                        Err(PoolError::Frozen) => prop_assert!(held && inner),
                        Err(error) => {
                            prop_assert_eq!(error, PoolError::Full { capacity });
                            prop_assert_eq!(pool.usage().pages, capacity);
                        }
                    },
                    7..=9 => match pool.fork(id) {
                        Ok(child) => {
                            prop_assert!(held);
                            let tokens = plain[&id].tokens.clone();
                            plain.insert(child, Plain { tokens, parent: Some(id), held: true });
                        }
                        Err(error) => prop_assert!(!held && error == PoolError::Released),
                    },
                    10 => {
                        prop_assert_eq!(pool.release(id).is_ok(), held);
                        plain.get_mut(&id).unwrap().held = false;
                    }
                    _ => {
                        pool.prune(id).unwrap();
                        let mut gone = vec![id];
                        while let Some(next) = gone.pop() {
                            plain.remove(&next);
                            dead.push(next);
                            gone.extend(plain.iter().filter(|(_, p)| p.parent == Some(next)).map(|(&id, _)| id));
                        }
                    }
                }
                // Those that nobody holds or builds upon are gone.
                while let Some(&gone) = plain
                    .iter()
                    .find(|(id, p)| !p.held && !plain.values().any(|other| other.parent == Some(**id)))
                    .map(|(id, _)| id)
                {
                    plain.remove(&gone);
                    dead.push(gone);
                }
                audit(&pool);
                prop_assert_eq!(pool.usage().segments, plain.len());
                for (&id, branch) in &plain {
                    prop_assert_eq!(&read(&pool, id), &branch.tokens);
                    prop_assert_eq!(pool.tokens(id).unwrap(), branch.tokens.len());
                }
                for &id in &dead {
                    prop_assert_eq!(pool.walk(id), Err(PoolError::Freed));
                }
            }
            for id in plain.keys() {
                // Freed along with another, or now.
                let _ = pool.prune(*id);
            }
            audit(&pool);
            prop_assert_eq!(pool.usage().pages, 0);
            prop_assert_eq!(pool.usage().tokens, 0);
        }
    }
}
