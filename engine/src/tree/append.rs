// SPDX-License-Identifier: Apache-2.0
//! Appending at the right edge: the tail leaf is filled to the byte, closed, and the next one opened.
//!
//! Owns      the right spine while it grows.
//! Holds     of an old tree only the last node of each level is read and rewritten; an append moves nothing.
//! Never     puts an entry between others: a key that is not above all before it is refused.

use super::Ctx;
use super::build::{Separator, Writer};
use super::items::{Items, Payload, separator};
use super::read::open_root;
use crate::error::Error;
use crate::format::Fault;
use crate::format::node::ValueCell;
use crate::page::{NodePtr, PageSink, PageSource, TreeRoot};

/// Adds entries in order of key, all above those that are there. On an empty tree this is the bulk build.
///
/// # Errors
/// [`Error::OutOfOrder`] where a key is not above all before it; [`Error::TooLarge`]; [`Error::Corrupt`]; and what
/// source and sink answer. After an error nothing that was written counts.
pub fn append<S, K, I, Key, Value>(
    src: &S,
    sink: &mut K,
    ctx: &Ctx,
    root: &TreeRoot,
    entries: I,
) -> Result<TreeRoot, Error>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
    I: IntoIterator<Item = (Key, Value)>,
    Key: AsRef<[u8]>,
    Value: AsRef<[u8]>,
{
    let mut entries = entries.into_iter().peekable();
    if entries.peek().is_none() {
        return Ok(*root);
    }
    let mut spine = Spine { writer: Writer::new(src, sink, ctx), levels: Vec::new(), last: None };
    spine.load(root)?;
    let mut grown = *root;
    for (key, value) in entries {
        let (key, value) = (key.as_ref(), value.as_ref());
        spine.push(key, value)?;
        grown.entries += 1;
        grown.bytes += (key.len() + value.len()) as u64;
    }
    let (ptr, height) = spine.finish()?;
    Ok(TreeRoot { ptr: Some(ptr), height, ..grown })
}

/// The last node of one level.
struct Edge {
    items: Items,
    separator: Separator,
    /// The node on disk that the first items come from, and how many those are.
    old: Option<(NodePtr, usize)>,
}

struct Spine<'w, S: ?Sized, K: ?Sized> {
    writer: Writer<'w, S, K>,
    /// From the leaf up.
    levels: Vec<Edge>,
    /// The largest key so far.
    last: Option<Vec<u8>>,
}

impl<S, K> Spine<'_, S, K>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
{
    fn load(&mut self, root: &TreeRoot) -> Result<(), Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let (Some((mut node, mut level)), Some(mut ptr)) = (open_root(src, ctx, root)?, root.ptr) else {
            self.levels.push(Edge { items: Items::new(0), separator: Separator::default(), old: None });
            return Ok(());
        };
        let mut separator = Separator::default();
        while level > 0 {
            // All children but the last, which is the next node of the spine and comes back when it is closed.
            let mut items = Items::new(level);
            let mut own = Separator::default();
            for index in 0..node.count() {
                own.tail = node.full_key(src, ctx, index, &mut own.key)?;
                if index == 0 {
                    own = separator.clone();
                }
                if !items.ends_below(&own.key) {
                    return Err(node
                        .extent()
                        .fault(ctx, Fault::new("order of separators", 0, 0, index as u64)));
                }
                if index + 1 < node.count() {
                    items.push_child(&own.key, own.tail, &node.child(ctx, index)?);
                }
            }
            let count = node.count();
            self.levels.push(Edge { items, separator, old: Some((ptr, count)) });
            separator = own;
            level -= 1;
            ptr = node.child(ctx, count - 1)?;
            node = super::read::Node::open(src, ctx, &ptr, level, node.birth())?;
        }
        let mut items = Items::new(0);
        let mut key = Vec::new();
        for index in 0..node.count() {
            let tail = node.full_key(src, ctx, index, &mut key)?;
            if !items.ends_below(&key) {
                return Err(node.extent().fault(ctx, Fault::new("order of keys", 0, 0, index as u64)));
            }
            // The leaf's weight is known as a whole, and its entries stay together.
            let weight = if index == 0 { ptr.weight } else { 0 };
            match node.value_cell(src, ctx, index)? {
                ValueCell::Inline(span) => {
                    let bytes = &node.extent().bytes()[span];
                    items.push(&key, tail, Payload { bytes, blob: false, weight });
                }
                ValueCell::Blob(blob) => {
                    items.push(&key, tail, Payload { bytes: &blob.encode(), blob: true, weight });
                }
            }
        }
        self.last = Some(key);
        self.levels.push(Edge { items, separator, old: Some((ptr, node.count())) });
        self.levels.reverse();
        Ok(())
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::OutOfOrder { tree: self.writer.ctx.tree });
        }
        let leaf = &mut self.levels[0];
        self.writer.push_entry(&mut leaf.items, key, None, value)?;
        let before = leaf.items.len() - 1;
        if before > 0 && leaf.items.node_bytes(before + 1) > self.writer.ctx.shape.leaf_bytes {
            let last = self.last.as_deref().expect("a leaf with entries has a last key");
            let next = separator(last, key).to_vec();
            self.close(0, before, Separator { key: next, tail: None })?;
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        Ok(())
    }

    /// Writes the first `count` items of the edge at `level` as a closed node; the rest begin the next one.
    fn close(&mut self, level: usize, count: usize, next: Separator) -> Result<(), Error> {
        let (own, ptr) = self.write(level, count, next)?;
        self.push_child(level + 1, own, &ptr)
    }

    fn write(&mut self, level: usize, count: usize, next: Separator) -> Result<(Separator, NodePtr), Error> {
        let edge = &mut self.levels[level];
        let own = std::mem::replace(&mut edge.separator, next);
        let ptr = match edge.old.take() {
            // A leaf into which the first new entry did not fit stays where it is.
            Some((old, loaded)) if level == 0 && count == loaded => {
                edge.items.drop_front(count);
                old
            }
            old => {
                if let Some((old, _)) = &old {
                    self.writer.release_node(old);
                }
                self.writer.node(level_number(level)?, &mut edge.items, count)?
            }
        };
        Ok((own, ptr))
    }

    fn push_child(&mut self, level: usize, own: Separator, ptr: &NodePtr) -> Result<(), Error> {
        if level == self.levels.len() {
            self.levels.push(Edge {
                items: Items::new(level_number(level)?),
                separator: Separator::default(),
                old: None,
            });
        }
        let edge = &mut self.levels[level];
        edge.items.push_child(&own.key, own.tail, ptr);
        let before = edge.items.len() - 1;
        if before > 1 && edge.items.node_bytes(before + 1) > self.writer.ctx.shape.branch_bytes {
            self.close(level, before, own)?;
        }
        Ok(())
    }

    /// Closes what is open on each level, from the leaf up, and answers the root and the height.
    fn finish(mut self) -> Result<(NodePtr, u8), Error> {
        let mut level = 0;
        loop {
            let count = self.levels[level].items.len();
            let (own, ptr) = self.write(level, count, Separator::default())?;
            level += 1;
            if level == self.levels.len() {
                return Ok((ptr, level_number(level)?));
            }
            self.push_child(level, own, &ptr)?;
        }
    }
}

fn level_number(level: usize) -> Result<u8, Error> {
    let too_large =
        Error::TooLarge { what: "height of a tree", bytes: level as u64, bytes_max: u8::MAX.into() };
    u8::try_from(level).map_err(|_| too_large)
}
