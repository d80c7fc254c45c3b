// SPDX-License-Identifier: Apache-2.0
//! Merging sorted changes into a tree, and deleting sorted keys from one.
//!
//! Owns      which leaves are rewritten, and which neighbours are drawn in.
//! Holds     1. a leaf that no change falls into stays as it is, unless a neighbour grew too small;
//!           2. a run of rewritten nodes has one separator at its start, the one that was there; those inside it
//!              are cut anew.
//! Never     trusts the order of its input.
//!
//! A branch is rewritten child by child: the content of those that change goes into one [`Pack`], which writes full
//! nodes as it goes and is closed once it is large enough and the next child does not change. So at most a few leaves
//! and one branch of each level are in memory.

use super::build::{Pack, Separator, Writer};
use super::items::{Items, Payload};
use super::read::Node;
use super::{Ctx, read};
use crate::error::Error;
use crate::format::Fault;
use crate::format::blob::BlobRef;
use crate::format::node::ValueCell;
use crate::page::{NodePtr, PAGE_BYTES, PageSink, PageSource, TreeRoot};

/// Puts and deletes, in order of key, each key at most once. `None` deletes. Untouched leaves are kept, touched runs
/// are rewritten at the fill that the tree's shape asks for.
///
/// # Errors
/// [`Error::OutOfOrder`] where a key is not above the one before it; [`Error::TooLarge`]; [`Error::Corrupt`]; and what
/// source and sink answer. After an error nothing that was written counts.
pub fn merge<S, K, I, Key, Value>(
    src: &S,
    sink: &mut K,
    ctx: &Ctx,
    root: &TreeRoot,
    changes: I,
) -> Result<TreeRoot, Error>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
    I: IntoIterator<Item = (Key, Option<Value>)>,
    Key: AsRef<[u8]>,
    Value: AsRef<[u8]>,
{
    let mut changes = Changes { iter: changes.into_iter(), next: None, tree: ctx.tree };
    changes.advance()?;
    if changes.next.is_none() {
        return Ok(*root);
    }
    Merge { writer: Writer::new(src, sink, ctx), changes, entries: root.entries, bytes: root.bytes }.run(root)
}

/// Deletes keys given in order; keys that are not there are passed over. Leaves that are left with less than the
/// shape's share are joined with their neighbours.
///
/// # Errors
/// As [`merge`].
pub fn delete_sorted<S, K, I, Key>(
    src: &S,
    sink: &mut K,
    ctx: &Ctx,
    root: &TreeRoot,
    keys: I,
) -> Result<TreeRoot, Error>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
    I: IntoIterator<Item = Key>,
    Key: AsRef<[u8]>,
{
    merge(src, sink, ctx, root, keys.into_iter().map(|key| (key, None::<&[u8]>)))
}

/// The input, one change ahead.
struct Changes<I, Key, Value> {
    iter: I,
    next: Option<(Key, Option<Value>)>,
    tree: u8,
}

impl<I, Key, Value> Changes<I, Key, Value>
where
    I: Iterator<Item = (Key, Option<Value>)>,
    Key: AsRef<[u8]>,
    Value: AsRef<[u8]>,
{
    fn advance(&mut self) -> Result<Option<(Key, Option<Value>)>, Error> {
        let after = self.iter.next();
        if let (Some((last, _)), Some((key, _))) = (&self.next, &after)
            && last.as_ref() >= key.as_ref()
        {
            return Err(Error::OutOfOrder { tree: self.tree });
        }
        Ok(std::mem::replace(&mut self.next, after))
    }

    fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _)| key.as_ref())
    }

    /// Whether the next change falls below `upper`; `None` is above all keys.
    fn falls_below(&self, upper: Option<&[u8]>) -> bool {
        self.key().is_some_and(|key| upper.is_none_or(|upper| key < upper))
    }
}

struct Merge<'w, S: ?Sized, K: ?Sized, I, Key, Value> {
    writer: Writer<'w, S, K>,
    changes: Changes<I, Key, Value>,
    entries: u64,
    bytes: u64,
}

impl<S, K, I, Key, Value> Merge<'_, S, K, I, Key, Value>
where
    S: PageSource + ?Sized,
    K: PageSink + ?Sized,
    I: Iterator<Item = (Key, Option<Value>)>,
    Key: AsRef<[u8]>,
    Value: AsRef<[u8]>,
{
    fn run(mut self, root: &TreeRoot) -> Result<TreeRoot, Error> {
        let mut level = root.height.saturating_sub(1);
        let mut pack = Pack::new(level);
        let mut nodes = Items::new(level + 1);
        match &root.ptr {
            Some(ptr) => {
                self.absorb(&mut pack, &mut nodes, Separator::default(), ptr, self.writer.ctx.seq, None)?;
            }
            None => {
                pack.separator = Some(Separator::default());
                while self.changes.next.is_some() {
                    self.put_next(&mut pack.items, None)?;
                    pack.write_full(&mut self.writer, &mut nodes)?;
                }
            }
        }
        pack.finish(&mut self.writer, &mut nodes)?;
        if let Some(separator) = pack.separator.take() {
            self.release_separator(&separator)?;
        }
        while nodes.len() > 1 {
            level = level.checked_add(1).ok_or(Error::TooLarge {
                what: "height of a tree",
                bytes: 256,
                bytes_max: 255,
            })?;
            let mut pack = Pack::new(level);
            pack.items = nodes;
            nodes = Items::new(1);
            pack.finish(&mut self.writer, &mut nodes)?;
        }
        let Some((key, tail, mut ptr)) = nodes.pop() else { return Ok(TreeRoot::EMPTY) };
        self.release_separator(&Separator { key, tail })?;
        while level > 0
            && let Some(child) = self.only_child(&ptr, level)?
        {
            self.writer.release_node(&ptr);
            ptr = child;
            level -= 1;
        }
        Ok(TreeRoot { ptr: Some(ptr), height: level + 1, entries: self.entries, bytes: self.bytes })
    }

    /// The child of a branch that has one only.
    fn only_child(&self, ptr: &NodePtr, level: u8) -> Result<Option<NodePtr>, Error> {
        let Writer { src, ctx, .. } = &self.writer;
        if ptr.birth == ctx.seq {
            return Ok(self.writer.only_child(ptr));
        }
        let node = Node::open(*src, ctx, ptr, level, ctx.seq)?;
        if node.count() == 1 { node.child(ctx, 0).map(Some) } else { Ok(None) }
    }

    /// Takes the content of the node at `ptr`, changed as the input says, into `pack`. The node is released.
    fn absorb(
        &mut self,
        pack: &mut Pack,
        out: &mut Items,
        own: Separator,
        ptr: &NodePtr,
        parent_birth: u64,
        upper: Option<&[u8]>,
    ) -> Result<(), Error> {
        let node = Node::open(self.writer.src, self.writer.ctx, ptr, pack.level, parent_birth)?;
        if pack.level == 0 {
            if pack.separator.is_none() {
                pack.separator = Some(own);
            } else {
                self.release_separator(&own)?;
            }
            self.merge_leaf(&node, pack, out, upper)?;
        } else {
            let children = self.merge_branch(&node, own, upper)?;
            pack.items.append(children);
            pack.write_full(&mut self.writer, out)?;
        }
        self.writer.release_node(ptr);
        Ok(())
    }

    /// The children of a branch after the changes below it.
    fn merge_branch(
        &mut self,
        node: &Node,
        own: Separator,
        branch_upper: Option<&[u8]>,
    ) -> Result<Items, Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let mut out = Items::new(node.level());
        let mut run = Pack::new(node.level() - 1);
        let mut open = false;
        // Old nodes of which the run holds what is left.
        let mut taken = 0;
        let mut next = own;
        for index in 0..node.count() {
            let ptr = node.child(ctx, index)?;
            let own = std::mem::take(&mut next);
            let last = index + 1 == node.count();
            if !last {
                next.tail = node.full_key(src, ctx, index + 1, &mut next.key)?;
                if next.key <= own.key {
                    return Err(node
                        .extent()
                        .fault(ctx, Fault::new("order of separators", 0, 0, index as u64)));
                }
            }
            let upper = if last { branch_upper } else { Some(&next.key[..]) };
            if !open && !self.changes.falls_below(upper) {
                out.push_child(&own.key, own.tail, &ptr);
                continue;
            }
            open = true;
            self.absorb(&mut run, &mut out, own, &ptr, node.birth(), upper)?;
            taken = if run.nodes == 0 && run.items.is_empty() { 0 } else { taken + 1 };
            let next_changes = !last && {
                let after = self.upper_of(node, index + 1)?;
                self.changes.falls_below(after.as_deref().or(branch_upper))
            };
            let wants_more = !run.items.is_empty()
                && self.too_small(&run)
                && (last || self.draws_in(&run, taken, &node.child(ctx, index + 1)?));
            if !next_changes && !wants_more {
                self.close(&mut run, &mut out)?;
                (open, taken) = (false, 0);
            }
        }
        if open {
            // The last children came out too small: the node before them takes them in, if it is an old one.
            if run.nodes == 0
                && let Some((key, tail, ptr)) = out.pop()
            {
                let rest = std::mem::replace(&mut run, Pack::new(node.level() - 1));
                let upper =
                    rest.separator.as_ref().map_or_else(|| rest.items.key(0), |separator| &separator.key);
                self.absorb(&mut run, &mut out, Separator { key, tail }, &ptr, node.birth(), Some(upper))?;
                if let Some(separator) = rest.separator {
                    self.release_separator(&separator)?;
                }
                run.items.append(rest.items);
            }
            self.close(&mut run, &mut out)?;
        }
        Ok(out)
    }

    fn close(&mut self, run: &mut Pack, out: &mut Items) -> Result<(), Error> {
        run.finish(&mut self.writer, out)?;
        match run.separator.take() {
            Some(separator) => self.release_separator(&separator),
            None => Ok(()),
        }
    }

    /// The key below which child `index` ends, where the branch itself says it.
    fn upper_of(&self, node: &Node, index: usize) -> Result<Option<Vec<u8>>, Error> {
        if index + 1 >= node.count() {
            return Ok(None);
        }
        let mut key = Vec::new();
        node.full_key(self.writer.src, self.writer.ctx, index + 1, &mut key)?;
        Ok(Some(key))
    }

    fn too_small(&self, run: &Pack) -> bool {
        let shape = &self.writer.ctx.shape;
        run.bytes() < shape.node_bytes(run.level) * usize::from(shape.join) / 100
    }

    /// Whether a run that is too small takes in the next node, in which nothing changes. Where nodes are filled to
    /// the byte, as much is left over after a full one as before it, and the run would go on through all that follow:
    /// there both must fit one node, or the run be sparse as a whole.
    fn draws_in(&self, run: &Pack, taken: usize, next: &NodePtr) -> bool {
        let shape = &self.writer.ctx.shape;
        if shape.fill < 100 {
            return true;
        }
        let node_max = shape.node_bytes(run.level);
        let next = (usize::from(next.npages) * PAGE_BYTES).min(node_max);
        let all = run.nodes * node_max + run.bytes() + next;
        run.bytes() + next <= node_max || all < (taken + 1) * node_max * usize::from(shape.join) / 100
    }

    fn merge_leaf(
        &mut self,
        node: &Node,
        pack: &mut Pack,
        out: &mut Items,
        upper: Option<&[u8]>,
    ) -> Result<(), Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        let mut key = Vec::new();
        for index in 0..node.count() {
            let tail = node.full_key(src, ctx, index, &mut key)?;
            while self.changes.falls_below(Some(&key)) {
                self.put_next(&mut pack.items, None)?;
                pack.write_full(&mut self.writer, out)?;
            }
            if !pack.items.ends_below(&key) || upper.is_some_and(|upper| &key[..] >= upper) {
                return Err(node.extent().fault(ctx, Fault::new("order of keys", 0, 0, index as u64)));
            }
            if self.changes.key() == Some(&key) {
                self.drop_entry(node, index, &key)?;
                if let Some(unused) = self.put_next(&mut pack.items, tail)? {
                    self.writer.release_blob(&unused, node.birth())?;
                }
            } else {
                self.keep_entry(node, index, &key, tail, &mut pack.items)?;
            }
            pack.write_full(&mut self.writer, out)?;
        }
        while self.changes.falls_below(upper) {
            self.put_next(&mut pack.items, None)?;
            pack.write_full(&mut self.writer, out)?;
        }
        Ok(())
    }

    /// Copies an entry of an old leaf, the blob of a large value excepted.
    fn keep_entry(
        &mut self,
        node: &Node,
        index: usize,
        key: &[u8],
        tail: Option<BlobRef>,
        items: &mut Items,
    ) -> Result<(), Error> {
        let (src, ctx) = (self.writer.src, self.writer.ctx);
        match node.value_cell(src, ctx, index)? {
            ValueCell::Inline(span) => {
                let bytes = &node.extent().bytes()[span];
                items.push(key, tail, Payload { bytes, blob: false, weight: ctx.weigh(key, bytes) });
            }
            ValueCell::Blob(blob) => {
                let weight = match ctx.weight {
                    super::Weight::One => 1,
                    super::Weight::Of(weight) => {
                        weight(key, &read::read_blob(src, ctx, &blob, node.birth())?)
                    }
                };
                items.push(key, tail, Payload { bytes: &blob.encode(), blob: true, weight });
            }
        }
        Ok(())
    }

    /// Uncounts an entry of an old leaf and releases the blob of its value; the tail of its key is the caller's.
    fn drop_entry(&mut self, node: &Node, index: usize, key: &[u8]) -> Result<(), Error> {
        let value_bytes = match node.value_cell(self.writer.src, self.writer.ctx, index)? {
            ValueCell::Inline(span) => span.len() as u64,
            ValueCell::Blob(blob) => {
                self.writer.release_blob(&blob, node.birth())?;
                blob.len.into()
            }
        };
        let gone = (key.len() as u64).saturating_add(value_bytes);
        let counts = (self.entries.checked_sub(1), self.bytes.checked_sub(gone));
        let (Some(entries), Some(bytes)) = counts else {
            let fault = Fault::new("entries and bytes of the root", 0, self.entries, self.bytes);
            return Err(node.extent().fault(self.writer.ctx, fault));
        };
        (self.entries, self.bytes) = (entries, bytes);
        Ok(())
    }

    /// Adds the next change if it is a put. Answers `tail` where it deletes, because nothing holds it then.
    fn put_next(&mut self, items: &mut Items, tail: Option<BlobRef>) -> Result<Option<BlobRef>, Error> {
        let Some((key, value)) = self.changes.advance()? else { return Ok(tail) };
        let Some(value) = value else { return Ok(tail) };
        let (key, value) = (key.as_ref(), value.as_ref());
        self.writer.push_entry(items, key, tail, value)?;
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Ok(None)
    }

    fn release_separator(&mut self, separator: &Separator) -> Result<(), Error> {
        match &separator.tail {
            // The branch that holds it may lie further up, and be younger than the one at hand.
            Some(tail) => self.writer.release_blob(tail, self.writer.ctx.seq),
            None => Ok(()),
        }
    }
}
