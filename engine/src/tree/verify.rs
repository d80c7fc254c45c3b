// SPDX-License-Identifier: Apache-2.0
//! Verifying: a walk over all of a tree that checks whatever can be checked.
//!
//! Owns      what a sound tree is.
//! Holds     1. every page is summed anew, whatever the source remembers;
//!           2. every extent is shown to the visitor once, so that it can be compared with the space map;
//!           3. damage is shown with the range of keys that it hides, and what lies beside it is still walked.
//! Never     repairs.

use super::read::{ExtentBuf, Node, open_root, read_blob, walk_blob};
use super::{Ctx, Weight};
use crate::error::Error;
use crate::format::Fault;
use crate::format::blob::BlobRef;
use crate::format::node::ValueCell;
use crate::page::{PageBuf, PageId, PageSource, TreeRoot};

/// What an extent is to its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    Leaf,
    Branch,
    Blob,
}

/// One extent that a tree reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    pub kind: ExtentKind,
    pub page: PageId,
    pub npages: u16,
    pub birth: u64,
    /// 0 in leaves and blobs.
    pub level: u8,
    /// Entries of a leaf, children of a branch, 0 in a blob.
    pub entries: u32,
    /// Bytes of content; the rest of the pages is zeros.
    pub used: u32,
}

/// What a walk found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TreeStats {
    pub height: u8,
    pub entries: u64,
    /// Keys and values.
    pub bytes: u64,
    pub weight: u64,
    pub leaves: u64,
    pub branches: u64,
    /// Segments of blobs.
    pub blobs: u64,
    pub pages: u64,
    /// Bytes of content in those pages.
    pub used: u64,
}

/// Who is shown what a walk finds.
pub trait Visitor {
    /// An extent whose pages are all whole.
    ///
    /// # Errors
    /// Ends the walk.
    fn extent(&mut self, extent: &Extent) -> Result<(), Error>;

    /// Damage, or a page that cannot be read. The keys from `low` up to `high`, which is `None` for no bound, are
    /// not walked any further.
    ///
    /// # Errors
    /// Ends the walk.
    fn damage(&mut self, error: Error, low: &[u8], high: Option<&[u8]>) -> Result<(), Error>;
}

/// A visitor for whom the first damage is the last.
struct Strict<'v, V>(&'v mut V);

impl<V: FnMut(&Extent)> Visitor for Strict<'_, V> {
    fn extent(&mut self, extent: &Extent) -> Result<(), Error> {
        (self.0)(extent);
        Ok(())
    }

    fn damage(&mut self, error: Error, _: &[u8], _: Option<&[u8]>) -> Result<(), Error> {
        Err(error)
    }
}

/// Walks the whole tree: structure, checksums of all pages, births, order of keys, separators, weights, and the counts
/// of the root. Memory follows the height.
///
/// # Errors
/// The first [`Error::Corrupt`] in order of keys; what the source answers.
pub fn verify<S>(
    src: &S,
    ctx: &Ctx,
    root: &TreeRoot,
    visitor: &mut impl FnMut(&Extent),
) -> Result<TreeStats, Error>
where
    S: PageSource + ?Sized,
{
    survey(src, ctx, root, &mut Strict(visitor))
}

/// The walk of [`verify`], which goes on beside damage: the figures are then of what was walked.
///
/// # Errors
/// What the visitor answers.
pub fn survey<S>(src: &S, ctx: &Ctx, root: &TreeRoot, visitor: &mut impl Visitor) -> Result<TreeStats, Error>
where
    S: PageSource + ?Sized,
{
    let src = Doubting(src);
    let stats = TreeStats::default();
    let mut walk = Walk { src: &src, ctx, visitor, stats, last: None, damages: 0, ended: false };
    let (node, weight) = match open_root(&src, ctx, root) {
        Ok(None) => return Ok(walk.stats),
        Ok(Some((node, _))) => {
            let weight = walk.node(&node, &[], None);
            let weight = walk.settle(weight, &[], None)?;
            (node, weight.unwrap_or(0))
        }
        Err(error) => {
            walk.settle(Err(error), &[], None)?;
            return Ok(walk.stats);
        }
    };
    walk.stats.height = root.height;
    walk.stats.weight = weight;
    let stated = root.ptr.map_or(0, |ptr| ptr.weight);
    for (what, expected, found) in [
        ("weight of the root", stated, weight),
        ("entries of the root", root.entries, walk.stats.entries),
        ("bytes of the root", root.bytes, walk.stats.bytes),
    ] {
        if walk.damages == 0 && expected != found {
            let fault = node.extent().fault(ctx, Fault::new(what, 0, expected, found));
            walk.settle(Err(fault), &[], None)?;
        }
    }
    Ok(walk.stats)
}

/// A source that remembers no verification.
struct Doubting<'s, S: ?Sized>(&'s S);

impl<S: PageSource + ?Sized> PageSource for Doubting<'_, S> {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        self.0.extent(first, npages)
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        self.0.probe(first, npages)
    }

    fn is_verified(&self, _: PageId) -> bool {
        false
    }

    fn set_verified(&self, page: PageId) {
        self.0.set_verified(page);
    }
}

struct Walk<'w, S: ?Sized, V> {
    src: &'w Doubting<'w, S>,
    ctx: &'w Ctx,
    visitor: &'w mut V,
    stats: TreeStats,
    /// The largest key so far.
    last: Option<Vec<u8>>,
    /// How often the visitor was shown damage, and whether that ended the walk.
    damages: u64,
    ended: bool,
}

impl<S: PageSource + ?Sized, V: Visitor> Walk<'_, S, V> {
    /// Shows the visitor what went wrong between two keys. `None` if the walk goes on beside it.
    fn settle(
        &mut self,
        weight: Result<u64, Error>,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<Option<u64>, Error> {
        match weight {
            Ok(weight) => Ok(Some(weight)),
            Err(error) if self.ended => Err(error),
            Err(error) => {
                self.damages += 1;
                let told = self.visitor.damage(error, low, high);
                self.ended = told.is_err();
                told.map(|()| None)
            }
        }
    }

    /// Checks a node and all below it, whose keys are from `lower` to below `upper`. Answers the weight.
    fn node(&mut self, node: &Node, lower: &[u8], upper: Option<&[u8]>) -> Result<u64, Error> {
        self.extent(node.extent(), if node.level() == 0 { ExtentKind::Leaf } else { ExtentKind::Branch })?;
        let check = node.layout().check_end(node.extent().bytes());
        check.map_err(|fault| node.extent().fault(self.ctx, fault))?;
        if node.level() == 0 { self.leaf(node, upper) } else { self.branch(node, lower, upper) }
    }

    fn branch(&mut self, node: &Node, lower: &[u8], upper: Option<&[u8]>) -> Result<u64, Error> {
        let fault =
            |what, expected, found| node.extent().fault(self.ctx, Fault::new(what, 0, expected, found));
        let (mut next, mut sum) = (Vec::new(), 0u64);
        for index in 0..node.count() {
            let ptr = node.child(self.ctx, index)?;
            if index > 0 && self.last.as_deref().is_some_and(|last| last >= &next[..]) {
                return Err(fault("separator below a key before it", index as u64, 0));
            }
            let last = index + 1 == node.count();
            let mut separator = Vec::new();
            if !last {
                let tail = node.full_key(self.src, self.ctx, index + 1, &mut separator)?;
                if upper.is_some_and(|upper| &separator[..] >= upper) || (index > 0 && separator <= next) {
                    return Err(fault("order of separators", index as u64, 0));
                }
                if let Some(tail) = &tail {
                    self.blob(tail, node.birth())?;
                }
            }
            let (low, high) =
                (if index == 0 { lower } else { &next }, if last { upper } else { Some(&separator[..]) });
            let damages = self.damages;
            let child = Node::open(self.src, self.ctx, &ptr, node.level() - 1, node.birth());
            let weight = child.and_then(|child| self.node(&child, low, high));
            let weight = self.settle(weight, low, high)?.unwrap_or(ptr.weight);
            if damages == self.damages && weight != ptr.weight {
                let fault = Fault::new("weight of a child", 0, ptr.weight, weight);
                return Err(node.extent().fault(self.ctx, fault));
            }
            sum = sum.saturating_add(weight);
            next = separator;
        }
        Ok(sum)
    }

    fn leaf(&mut self, node: &Node, upper: Option<&[u8]>) -> Result<u64, Error> {
        let (mut key, mut sum) = (Vec::new(), 0u64);
        for index in 0..node.count() {
            let tail = node.full_key(self.src, self.ctx, index, &mut key)?;
            let in_order = self.last.as_ref().is_none_or(|last| *last < key);
            if !in_order || upper.is_some_and(|upper| &key[..] >= upper) {
                return Err(node.extent().fault(self.ctx, Fault::new("order of keys", 0, 0, index as u64)));
            }
            if let Some(tail) = &tail {
                self.blob(tail, node.birth())?;
            }
            let (len, weight) = match node.value_cell(self.src, self.ctx, index)? {
                ValueCell::Inline(span) => (span.len(), self.ctx.weigh(&key, &node.extent().bytes()[span])),
                ValueCell::Blob(blob) => {
                    self.blob(&blob, node.birth())?;
                    let weight = match self.ctx.weight {
                        Weight::One => 1,
                        Weight::Of(weight) => {
                            weight(&key, &read_blob(self.src, self.ctx, &blob, node.birth())?)
                        }
                    };
                    (blob.len as usize, weight)
                }
            };
            self.stats.entries += 1;
            self.stats.bytes = self.stats.bytes.saturating_add((key.len() + len) as u64);
            sum = sum.saturating_add(weight);
            std::mem::swap(self.last.get_or_insert_default(), &mut key);
        }
        Ok(sum)
    }

    fn blob(&mut self, blob: &BlobRef, parent_birth: u64) -> Result<(), Error> {
        let (src, ctx) = (self.src, self.ctx);
        walk_blob(src, ctx, blob, parent_birth, |extent, _| self.extent(extent, ExtentKind::Blob))
    }

    /// Sums all pages of an extent and shows it to the visitor.
    fn extent(&mut self, extent: &ExtentBuf, kind: ExtentKind) -> Result<(), Error> {
        let head = &extent.head;
        extent.touch(self.src, self.ctx, 0..head.extent_bytes())?;
        if let Some(at) = extent.bytes()[head.used as usize..].iter().position(|byte| *byte != 0) {
            return Err(
                extent.fault(self.ctx, Fault::new("bytes behind the content", head.used as usize + at, 0, 1))
            );
        }
        match kind {
            ExtentKind::Leaf => self.stats.leaves += 1,
            ExtentKind::Branch => self.stats.branches += 1,
            ExtentKind::Blob => self.stats.blobs += 1,
        }
        self.stats.pages += u64::from(head.npages);
        self.stats.used += u64::from(head.used);
        let shown = self.visitor.extent(&extent.shown(kind));
        self.ended |= shown.is_err();
        shown
    }
}

impl ExtentBuf {
    /// The extent as a visitor sees it.
    pub(super) fn shown(&self, kind: ExtentKind) -> Extent {
        let head = &self.head;
        Extent {
            kind,
            page: head.page,
            npages: head.npages,
            birth: head.birth,
            level: head.level,
            entries: head.count,
            used: head.used,
        }
    }
}
