// SPDX-License-Identifier: Apache-2.0
//! Scrubbing: every page of a tree is summed from what the source gives, a few at a time.
//!
//! Owns      the walk from a key on, which reads what is wrong again before it counts as damage.
//! Holds     1. an extent is compared with whatever points at it, so a page that is whole and of another time shows;
//!           2. damage is shown with the range of keys that it hides, and the walk goes on beside it;
//!           3. the walk goes on from a key, not from a page: the tree may be another one by then;
//!           4. each call gets on by at least one leaf, or one blob.
//! Never     looks at what keys and values mean; `verify` does.

use super::Ctx;
use super::read::{Node, walk_blob};
use super::verify::{ExtentKind, Visitor};
use crate::error::Error;
use crate::format::Fault;
use crate::format::blob::BlobRef;
use crate::format::node::ValueCell;
use crate::page::{NodePtr, PageSource, TreeRoot};

/// How often an extent that is wrong is read again.
const REREADS_MAX: u32 = 3;

/// What a call did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scrubbed {
    /// Pages read, those read again not counted.
    pub pages: u64,
    /// Extents that were wrong, and right when they were read again.
    pub reread: u64,
    /// Where to go on; `None` at the end of the tree.
    pub next: Option<Vec<u8>>,
}

/// What a call is to do.
#[derive(Clone, Copy, Debug)]
pub struct Part<'p> {
    /// The key to begin with.
    pub from: &'p [u8],
    /// It ends once so many pages are read.
    pub pages_max: u64,
    /// Leaves that a later checkpoint wrote are passed over: a tree that grows at its right edge would never end
    /// otherwise.
    pub newest: u64,
}

/// Checks the nodes and blobs of a part of the tree. `src` must read anew each time and remember nothing.
///
/// # Errors
/// What the visitor answers.
pub fn scrub<S>(
    src: &S,
    ctx: &Ctx,
    root: &TreeRoot,
    part: Part<'_>,
    visitor: &mut impl Visitor,
) -> Result<Scrubbed, Error>
where
    S: PageSource + ?Sized,
{
    let Some(ptr) = &root.ptr else { return Ok(Scrubbed::default()) };
    let mut walk = Walk { src, ctx, visitor, part, done: Scrubbed::default() };
    let Some(level) = root.height.checked_sub(1) else {
        let fault = ctx.corrupt(ptr.page, Fault::new("height of a tree with a root", 0, 1, 0));
        walk.visitor.damage(fault, &[], None)?;
        return Ok(walk.done);
    };
    let next = walk.node(ptr, level, ctx.seq, &[], None)?;
    Ok(Scrubbed { next, ..walk.done })
}

struct Walk<'w, S: ?Sized, V> {
    src: &'w S,
    ctx: &'w Ctx,
    visitor: &'w mut V,
    part: Part<'w>,
    done: Scrubbed,
}

/// Where a call stops; `None` to go on.
type Stop = Option<Vec<u8>>;

impl<S: PageSource + ?Sized, V: Visitor> Walk<'_, S, V> {
    /// Checks the node that `ptr` leads to and what is below it, whose keys are from `low` to below `high`.
    fn node(
        &mut self,
        ptr: &NodePtr,
        level: u8,
        parent_birth: u64,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<Stop, Error> {
        let (src, ctx) = (self.src, self.ctx);
        self.done.pages += u64::from(ptr.npages);
        let opened = self.again(|| {
            let node = Node::open(src, ctx, ptr, level, parent_birth)?;
            node.extent().touch(src, ctx, 0..node.extent().head.extent_bytes())?;
            let end = node.layout().check_end(node.extent().bytes());
            end.map_err(|fault| node.extent().fault(ctx, fault))?;
            Ok(node)
        });
        let stop = opened.map(|node| {
            let extent = node.extent().shown(if level == 0 { ExtentKind::Leaf } else { ExtentKind::Branch });
            self.visitor.extent(&extent)?;
            if level == 0 { self.leaf(&node, low, high) } else { self.branch(&node, low, high) }
        });
        match stop {
            Ok(stop) => stop,
            Err(damage) => self.damage(damage, low, high),
        }
    }

    /// Tells the damage of what has the keys from `low` to `high`, and stops if there was enough to do.
    fn damage(&mut self, error: Error, low: &[u8], high: Option<&[u8]>) -> Result<Stop, Error> {
        self.visitor.damage(error, low, high)?;
        Ok(self.stop(high))
    }

    fn stop(&self, high: Option<&[u8]>) -> Stop {
        high.filter(|_| self.done.pages >= self.part.pages_max).map(<[u8]>::to_vec)
    }

    fn branch(&mut self, node: &Node, low: &[u8], high: Option<&[u8]>) -> Result<Stop, Error> {
        let first =
            if low < self.part.from { node.child_index(self.src, self.ctx, self.part.from) } else { Ok(0) };
        let first = match first {
            Ok(first) => first,
            Err(damage) => return self.damage(damage, low, high),
        };
        let mut lower = low.to_vec();
        for index in first..node.count() {
            let bounds = node.child(self.ctx, index).and_then(|ptr| {
                if index == first && index > 0 {
                    node.full_key(self.src, self.ctx, index, &mut lower)?;
                }
                let mut upper = Vec::new();
                let more = index + 1 < node.count();
                let tail =
                    if more { node.full_key(self.src, self.ctx, index + 1, &mut upper)? } else { None };
                Ok((ptr, if more { Some(upper) } else { None }, tail))
            });
            let (ptr, upper, tail) = match bounds {
                Ok(bounds) => bounds,
                Err(damage) => return self.damage(damage, &lower, high),
            };
            if let Some(tail) = &tail {
                self.blob(tail, node.birth(), &lower, high)?;
            }
            let upper = upper.as_deref().or(high);
            let passed_over = node.level() == 1 && ptr.birth > self.part.newest;
            if passed_over {
                lower = upper.unwrap_or_default().to_vec();
                continue;
            }
            let stop = self.node(&ptr, node.level() - 1, node.birth(), &lower, upper)?;
            if stop.is_some() {
                return Ok(stop);
            }
            lower = upper.unwrap_or_default().to_vec();
        }
        Ok(None)
    }

    fn leaf(&mut self, node: &Node, low: &[u8], high: Option<&[u8]>) -> Result<Stop, Error> {
        let (mut key, mut got_on) = (Vec::new(), false);
        for index in 0..node.count() {
            let (src, ctx) = (self.src, self.ctx);
            let cells = self.again(|| {
                let tail = node.full_key(src, ctx, index, &mut key)?;
                Ok((tail, node.value_cell(src, ctx, index)?))
            });
            let (tail, value) = match cells {
                Ok(cells) => cells,
                Err(damage) => {
                    self.visitor.damage(damage, low, high)?;
                    continue;
                }
            };
            if key[..] < *self.part.from {
                continue;
            }
            let blobs = [tail, if let ValueCell::Blob(blob) = value { Some(blob) } else { None }];
            for blob in blobs.iter().flatten() {
                if got_on && self.done.pages >= self.part.pages_max {
                    return Ok(Some(key));
                }
                let mut end = key.clone();
                end.push(0);
                self.blob(blob, node.birth(), &key, Some(&end))?;
            }
            got_on |= blobs.iter().any(Option::is_some);
        }
        Ok(self.stop(high))
    }

    /// Checks all segments of a blob, which only the keys from `low` to `high` need.
    fn blob(
        &mut self,
        blob: &BlobRef,
        parent_birth: u64,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<(), Error> {
        let (src, ctx) = (self.src, self.ctx);
        let read = self.again(|| {
            let mut shown = Vec::new();
            walk_blob(src, ctx, blob, parent_birth, |extent, _| {
                extent.touch(src, ctx, 0..extent.head.extent_bytes())?;
                shown.push(extent.shown(ExtentKind::Blob));
                Ok(())
            })?;
            Ok(shown)
        });
        match read {
            Ok(shown) => shown.iter().try_for_each(|extent| {
                self.done.pages += u64::from(extent.npages);
                self.visitor.extent(extent)
            }),
            Err(damage) => {
                self.done.pages += u64::from(blob.npages);
                self.visitor.damage(damage, low, high)
            }
        }
    }

    /// What `read` answers, tried again where that is an error.
    fn again<T>(&mut self, mut read: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut rereads = 0;
        loop {
            match read() {
                Ok(whole) => {
                    self.done.reread += u64::from(rereads > 0);
                    return Ok(whole);
                }
                Err(error) if rereads == REREADS_MAX => return Err(error),
                Err(_) => rereads += 1,
            }
        }
    }
}
