// SPDX-License-Identifier: Apache-2.0
//! Relocating: what a tree has in the tail of its file is written again where there is room.
//!
//! Owns      which extents are moved, and where a walk that was stopped goes on.
//! Holds     1. entries, separators and the shape of the tree stay as they are: a node is copied, with the branches
//!              above it, and nothing else;
//!           2. a walk that was stopped goes on at a key, so that whatever changes the tree in between does no harm.
//! Never     decides where the copy goes: that is the sink's.
//!
//! Branches are read; a leaf below the floor is only looked at where blobs are wanted, and then its header alone,
//! unless that says that the leaf holds any.

use super::Ctx;
use super::build::Writer;
use super::items::{Items, Payload};
use super::read::{Expect, ExtentBuf, Node, read_blob, walk_blob};
use crate::error::Error;
use crate::format::blob::{BlobRef, SEGMENT_BYTES_MAX};
use crate::format::node::ValueCell;
use crate::page::{NodePtr, PAGE_BYTES, PageId, PageSink, PageSource, TreeRoot};

/// What is to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'k> {
    /// Extents that reach to this page or beyond.
    pub floor: PageId,
    /// Blobs too, at the price of a look at each leaf.
    pub blobs: bool,
    /// Where the walk begins; the empty key is before all others.
    pub from: &'k [u8],
}

/// How far a walk came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relocated {
    pub root: TreeRoot,
    /// Where to go on; `None` once the whole tree was walked.
    pub next: Option<Vec<u8>>,
}

/// Writes nodes of the tail anew, and blobs where those are wanted, in order of key, for as long as `more` says so:
/// it is asked after each leaf, with the pages read since it was asked before.
///
/// # Errors
/// [`Error::Corrupt`], and what source and sink answer. After an error nothing that was written counts.
pub fn relocate<S, K>(
    src: &S,
    sink: &mut K,
    ctx: &Ctx,
    root: &TreeRoot,
    tail: Tail<'_>,
    more: &mut dyn FnMut(u64) -> bool,
) -> Result<Relocated, Error>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
{
    let (Some(ptr), Some(level)) = (&root.ptr, root.height.checked_sub(1)) else {
        return Ok(Relocated { root: *root, next: None });
    };
    let writer = Writer::new(src, sink, ctx);
    let mut walk = Walk { writer, tail, more, read: 0, stopped: false, next: None };
    let moved = walk.node(ptr, level, ctx.seq, None)?;
    let next = walk.next;
    Ok(Relocated { root: TreeRoot { ptr: moved.or(root.ptr), ..*root }, next })
}

struct Walk<'w, 'k, S: ?Sized, K: ?Sized> {
    writer: Writer<'w, S, K>,
    tail: Tail<'k>,
    more: &'w mut dyn FnMut(u64) -> bool,
    /// Pages read since `more` was asked.
    read: u64,
    stopped: bool,
    next: Option<Vec<u8>>,
}

impl<S: PageSource + ?Sized, K: PageSink + ?Sized> Walk<'_, '_, S, K> {
    /// Moves what is to be moved of a node and of all below it, whose keys are below `upper`. Answers where the
    /// node is now, if that changed.
    fn node(
        &mut self,
        ptr: &NodePtr,
        level: u8,
        parent_birth: u64,
        upper: Option<&[u8]>,
    ) -> Result<Option<NodePtr>, Error> {
        if level == 0 {
            return self.leaf(ptr, parent_birth);
        }
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        self.read += u64::from(ptr.npages);
        let node = Node::open(src, ctx, ptr, level, parent_birth)?;
        let mut changed: Vec<(usize, NodePtr)> = Vec::new();
        let mut separator = Vec::new();
        for index in node.child_index(src, ctx, self.tail.from)?..node.count() {
            let last = index + 1 == node.count();
            if !last {
                node.full_key(src, ctx, index + 1, &mut separator)?;
            }
            let upper = if last { upper } else { Some(&separator[..]) };
            let child = self.node(&node.child(ctx, index)?, level - 1, node.birth(), upper)?;
            changed.extend(child.map(|child| (index, child)));
            if !self.stopped && level == 1 && !(self.more)(std::mem::take(&mut self.read)) {
                self.stopped = true;
                self.next = upper.map(<[u8]>::to_vec);
            }
            if self.stopped {
                break;
            }
        }
        if changed.is_empty() && !self.is_high(ptr.page, ptr.npages) && !self.has_high_separator(&node)? {
            return Ok(None);
        }
        self.copy_branch(ptr, &node, &changed).map(Some)
    }

    fn leaf(&mut self, ptr: &NodePtr, parent_birth: u64) -> Result<Option<NodePtr>, Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let high = self.is_high(ptr.page, ptr.npages);
        if !high {
            if !self.tail.blobs {
                return Ok(None);
            }
            let NodePtr { page, npages, crc, birth, .. } = *ptr;
            let want = Expect { page, npages, crc, birth, blob: false, level: 0 };
            self.read += 1;
            if !ExtentBuf::open(src, ctx, &want, parent_birth)?.head.has_blobs() {
                return Ok(None);
            }
        }
        self.read += u64::from(ptr.npages);
        let node = Node::open(src, ctx, ptr, 0, parent_birth)?;
        if !high && !self.has_high_blob(&node)? {
            return Ok(None);
        }
        self.copy_leaf(ptr, &node).map(Some)
    }

    fn copy_branch(
        &mut self,
        ptr: &NodePtr,
        node: &Node,
        changed: &[(usize, NodePtr)],
    ) -> Result<NodePtr, Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let mut items = Items::new(node.level());
        let mut key = Vec::new();
        for index in 0..node.count() {
            let tail = node.full_key(src, ctx, index, &mut key)?;
            let tail = self.keep_tail(tail, node.birth())?;
            let child = changed.iter().find(|(at, _)| *at == index).map(|(_, child)| *child);
            let child = child.map_or_else(|| node.child(ctx, index), Ok)?;
            items.push_child(&key, tail, &child);
        }
        self.replace(ptr, items)
    }

    fn copy_leaf(&mut self, ptr: &NodePtr, node: &Node) -> Result<NodePtr, Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let mut items = Items::new(0);
        let mut key = Vec::new();
        for index in 0..node.count() {
            let tail = node.full_key(src, ctx, index, &mut key)?;
            let tail = self.keep_tail(tail, node.birth())?;
            // The leaf's weight is known as a whole, and its entries stay together.
            let weight = if index == 0 { ptr.weight } else { 0 };
            match node.value_cell(src, ctx, index)? {
                ValueCell::Inline(span) => {
                    let bytes = &node.extent().bytes()[span];
                    items.push(&key, tail, Payload { bytes, blob: false, weight });
                }
                ValueCell::Blob(blob) => {
                    let blob = self.move_blob(blob, node.birth())?;
                    items.push(&key, tail, Payload { bytes: &blob.encode(), blob: true, weight });
                }
            }
        }
        self.replace(ptr, items)
    }

    fn replace(&mut self, ptr: &NodePtr, mut items: Items) -> Result<NodePtr, Error> {
        if !crate::mutants::planted("relocated-not-released") {
            self.writer.release_node(ptr);
        }
        let count = items.len();
        let level = items.level();
        self.writer.node(level, &mut items, count)
    }

    /// The tail of a key, if it may stay where it is; else its node writes another.
    fn keep_tail(&mut self, tail: Option<BlobRef>, parent_birth: u64) -> Result<Option<BlobRef>, Error> {
        match tail {
            Some(tail) if self.is_high_blob(&tail, parent_birth)? => {
                self.writer.release_blob(&tail, parent_birth)?;
                Ok(None)
            }
            kept => Ok(kept),
        }
    }

    fn move_blob(&mut self, blob: BlobRef, parent_birth: u64) -> Result<BlobRef, Error> {
        if !self.is_high_blob(&blob, parent_birth)? {
            return Ok(blob);
        }
        let bytes = read_blob(self.writer.src, self.writer.ctx, &blob, parent_birth)?;
        self.read += bytes.len().div_ceil(PAGE_BYTES) as u64;
        self.writer.release_blob(&blob, parent_birth)?;
        self.writer.blob(&bytes)
    }

    fn is_high(&self, page: PageId, npages: u16) -> bool {
        page.plus(npages.into()) > self.tail.floor
    }

    /// Whether any segment of a blob is in the tail.
    fn is_high_blob(&self, blob: &BlobRef, parent_birth: u64) -> Result<bool, Error> {
        let mut high = self.is_high(blob.page, blob.npages);
        if !high && blob.len as usize > SEGMENT_BYTES_MAX {
            walk_blob(self.writer.src, self.writer.ctx, blob, parent_birth, |extent, _| {
                high |= self.is_high(extent.head.page, extent.head.npages);
                Ok(())
            })?;
        }
        Ok(high)
    }

    fn has_high_blob(&self, node: &Node) -> Result<bool, Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        for index in 0..node.count() {
            let value = match node.value_cell(src, ctx, index)? {
                ValueCell::Inline(_) => None,
                ValueCell::Blob(blob) => Some(blob),
            };
            for blob in node.key_tail(ctx, index)?.iter().chain(&value) {
                if self.is_high_blob(blob, node.birth())? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn has_high_separator(&self, node: &Node) -> Result<bool, Error> {
        for index in 1..node.count() {
            if let Some(tail) = node.key_tail(self.writer.ctx, index)?
                && self.is_high_blob(&tail, node.birth())?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
