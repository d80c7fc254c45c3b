// SPDX-License-Identifier: Apache-2.0
//! Cursors: entries in order of key, both ways.
//!
//! Owns      the path from the root to one leaf, and the key of the entry that was last given out.
//! Holds     1. a cursor stands between two entries: `next` gives the one behind it and steps over it, `prev` the one
//!              before it; so `prev` right after `next` gives the same entry again;
//!           2. after an error every further call answers that error: nothing is skipped in silence.
//! Never     copies a value; allocates once its key buffer has the size of the longest key.

use super::Ctx;
use super::read::{Node, ValueRef, open_root};
use crate::error::Error;
use crate::format::Fault;
use crate::format::node::ValueCell;
use crate::page::{PageSource, TreeRoot};

/// A place in a tree. It begins before the first entry.
pub struct Cursor<S> {
    src: S,
    ctx: Ctx,
    root: TreeRoot,
    /// From the root to a leaf; empty until the first step, and in an empty tree.
    path: Vec<Step>,
    key: Vec<u8>,
    /// The entry of the last leaf in `path` that was given out last.
    current: Option<usize>,
    failed: Option<Error>,
}

struct Step {
    node: Node,
    /// In a branch the child that the path goes on with; in a leaf how many entries are before the cursor.
    index: usize,
}

/// The entry that a cursor gave out last.
pub struct Entry<'c, S> {
    cursor: &'c Cursor<S>,
    index: usize,
}

impl<'c, S: PageSource> Entry<'c, S> {
    pub fn key(&self) -> &'c [u8] {
        &self.cursor.key
    }

    /// The value; a large one is read from its blob now.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn value(&self) -> Result<ValueRef, Error> {
        self.cursor.leaf()?.value(&self.cursor.src, &self.cursor.ctx, self.index)
    }

    /// As [`Entry::value`], into `out`: at little cost if that was a value of the same leaf.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn value_into(&self, out: &mut ValueRef) -> Result<(), Error> {
        self.cursor.leaf()?.value_into(&self.cursor.src, &self.cursor.ctx, self.index, out)
    }

    /// The value where the leaf holds it, `None` where a blob does.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn inline(&self) -> Result<Option<&'c [u8]>, Error> {
        let node = self.cursor.leaf()?;
        match node.value_cell(&self.cursor.src, &self.cursor.ctx, self.index)? {
            ValueCell::Inline(span) => Ok(Some(&node.extent().bytes()[span])),
            ValueCell::Blob(_) => Ok(None),
        }
    }

    /// Bytes of the value, for which no blob is read.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn value_len(&self) -> Result<usize, Error> {
        match self.cursor.leaf()?.value_cell(&self.cursor.src, &self.cursor.ctx, self.index)? {
            ValueCell::Inline(span) => Ok(span.len()),
            ValueCell::Blob(blob) => Ok(blob.len as usize),
        }
    }
}

impl<S: PageSource> Cursor<S> {
    pub fn new(src: S, ctx: &Ctx, root: &TreeRoot) -> Cursor<S> {
        let ctx = ctx.clone();
        Cursor { src, ctx, root: *root, path: Vec::new(), key: Vec::new(), current: None, failed: None }
    }

    /// Goes to just before the first entry that is not below `key`.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn seek(&mut self, key: &[u8]) -> Result<(), Error> {
        self.guarded(|cursor| {
            cursor.descend(
                |node, src, ctx| node.child_index(src, ctx, key),
                |node, src, ctx| Ok(node.search(src, ctx, key, 0)?.unwrap_or_else(|index| index)),
            )
        })
    }

    /// Goes to before the first entry.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn seek_first(&mut self) -> Result<(), Error> {
        self.guarded(|cursor| cursor.descend(|_, _, _| Ok(0), |_, _, _| Ok(0)))
    }

    /// Goes to behind the last entry.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn seek_last(&mut self) -> Result<(), Error> {
        self.guarded(|cursor| {
            cursor.descend(|node, _, _| Ok(node.count() - 1), |node, _, _| Ok(node.count()))
        })
    }

    /// The entry behind the cursor, and the cursor goes behind it. `None` at the end.
    ///
    /// # Errors
    /// As [`get`](super::get).
    #[expect(clippy::should_implement_trait, reason = "it lends, and it can fail")]
    pub fn next(&mut self) -> Result<Option<Entry<'_, S>>, Error> {
        self.guarded(Cursor::step_forward)?;
        Ok(self.current())
    }

    /// The entry before the cursor, and the cursor goes before it. `None` at the start.
    ///
    /// # Errors
    /// As [`get`](super::get).
    pub fn prev(&mut self) -> Result<Option<Entry<'_, S>>, Error> {
        self.guarded(Cursor::step_back)?;
        Ok(self.current())
    }

    /// What the last `next` or `prev` gave, until the cursor moves again.
    pub fn current(&self) -> Option<Entry<'_, S>> {
        self.current.map(|index| Entry { cursor: self, index })
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.current = None;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        step(self).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn leaf(&self) -> Result<&Node, Error> {
        match self.path.last() {
            Some(step) => Ok(&step.node),
            None => Err(self
                .ctx
                .corrupt(crate::page::PageId::new(0), Fault::new("cursor without a path", 0, 1, 0))),
        }
    }

    fn descend(
        &mut self,
        child: impl Fn(&Node, &S, &Ctx) -> Result<usize, Error>,
        place: impl Fn(&Node, &S, &Ctx) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        self.path.clear();
        let Some((mut node, mut level)) = open_root(&self.src, &self.ctx, &self.root)? else { return Ok(()) };
        while level > 0 {
            level -= 1;
            let index = child(&node, &self.src, &self.ctx)?;
            let ptr = node.child(&self.ctx, index)?;
            let below = Node::open(&self.src, &self.ctx, &ptr, level, node.birth())?;
            self.path.push(Step { node, index });
            node = below;
        }
        let index = place(&node, &self.src, &self.ctx)?;
        self.path.push(Step { node, index });
        Ok(())
    }

    fn step_forward(&mut self) -> Result<(), Error> {
        if self.path.is_empty() {
            self.descend(|_, _, _| Ok(0), |_, _, _| Ok(0))?;
        }
        if self.path.last().is_some_and(|leaf| leaf.index == leaf.node.count())
            && !self
                .next_leaf(|step| (step.index + 1 < step.node.count()).then_some(step.index + 1), |_| 0)?
        {
            return Ok(());
        }
        let Some(leaf) = self.path.last_mut() else { return Ok(()) };
        leaf.node.full_key(&self.src, &self.ctx, leaf.index, &mut self.key)?;
        self.current = Some(leaf.index);
        leaf.index += 1;
        Ok(())
    }

    fn step_back(&mut self) -> Result<(), Error> {
        if self.path.last().is_none_or(|leaf| leaf.index == 0)
            && !self.next_leaf(|step| step.index.checked_sub(1), |node| node.count())?
        {
            return Ok(());
        }
        let Some(leaf) = self.path.last_mut() else { return Ok(()) };
        let Some(index) = leaf.index.checked_sub(1) else { return Ok(()) };
        leaf.node.full_key(&self.src, &self.ctx, index, &mut self.key)?;
        self.current = Some(index);
        leaf.index = index;
        Ok(())
    }

    /// Goes to the neighbouring leaf; `false`, and nothing moves, where there is none.
    fn next_leaf(
        &mut self,
        sideways: impl Fn(&Step) -> Option<usize>,
        enter: impl Fn(&Node) -> usize,
    ) -> Result<bool, Error> {
        let Some(above) = self.path.len().checked_sub(1) else { return Ok(false) };
        let turn = (0..above).rev().find_map(|depth| sideways(&self.path[depth]).map(|index| (depth, index)));
        let Some((depth, index)) = turn else { return Ok(false) };
        self.path.truncate(depth + 1);
        self.path[depth].index = index;
        loop {
            let Some(step) = self.path.last() else { return Ok(false) };
            let Some(level) = step.node.level().checked_sub(1) else { return Ok(true) };
            let ptr = step.node.child(&self.ctx, step.index)?;
            let node = Node::open(&self.src, &self.ctx, &ptr, level, step.node.birth())?;
            if level == 0 {
                node.extent().probe(&self.src);
            }
            // In a branch the last child is the one to enter from behind; a leaf is entered behind its last entry.
            let index = if level > 0 { enter(&node).min(node.count() - 1) } else { enter(&node) };
            self.path.push(Step { node, index });
        }
    }
}
