// SPDX-License-Identifier: Apache-2.0
//! Building: where nodes and blobs are written and released, and items are packed into nodes.
//!
//! Owns      the one place that copies on write.
//! Holds     1. children are written before their parents, which keep their checksums;
//!           2. a separator's tail belongs to the one branch that stores the separator; where the separator of a
//!              branch's first child is wanted, it is the branch's own, stored above.
//! Never     decides which entries there are.

use std::collections::HashMap;

use super::Ctx;
use super::items::{Items, separator};
use super::read::walk_blob;
use crate::error::Error;
use crate::format::blob::{BlobRef, SEGMENT_BYTES_MAX, encode_segment};
use crate::format::header::seal;
use crate::format::node::{KEY_HEAD_BYTES, VALUE_INLINE_MAX};
use crate::page::{NodePtr, PAGE_BYTES, PageId, PageSink, PageSource};

/// The lower bound of a node, as its parent knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Separator {
    pub key: Vec<u8>,
    pub tail: Option<BlobRef>,
}

/// A source, a sink, and what all nodes written have in common.
pub(super) struct Writer<'w, S: ?Sized, K: ?Sized> {
    pub src: &'w S,
    pub sink: &'w mut K,
    pub ctx: &'w Ctx,
    /// Branches just written that have one child: they make no root.
    single: HashMap<PageId, NodePtr>,
}

impl<'w, S: PageSource + ?Sized, K: PageSink + ?Sized> Writer<'w, S, K> {
    pub fn new(src: &'w S, sink: &'w mut K, ctx: &'w Ctx) -> Self {
        Writer { src, sink, ctx, single: HashMap::new() }
    }

    /// Writes the first `count` items as a node and takes them away.
    pub fn node(&mut self, level: u8, items: &mut Items, count: usize) -> Result<NodePtr, Error> {
        for index in usize::from(level > 0)..count {
            if items.is_long(index) && items.tail(index).is_none() {
                let tail = self.blob(&items.key(index)[KEY_HEAD_BYTES..])?;
                items.set_tail(index, tail);
            }
        }
        let weight = items.weight(count);
        let bytes = items.encode(self.ctx.tree, level, count);
        let (page, npages, crc) = self.place(bytes)?;
        let ptr = NodePtr { page, npages, crc, birth: self.ctx.seq, weight };
        if level > 0 && count == 1 {
            self.single.insert(page, items.child(0));
        }
        items.drop_front(count);
        Ok(ptr)
    }

    /// Writes a value or the tail of a key.
    pub fn blob(&mut self, bytes: &[u8]) -> Result<BlobRef, Error> {
        let too_large = || Error::TooLarge {
            what: "a key or value",
            bytes: bytes.len() as u64,
            bytes_max: u32::MAX.into(),
        };
        u32::try_from(bytes.len()).map_err(|_| too_large())?;
        // From the last segment to the first, because each keeps the checksum of the next.
        let mut next: Option<BlobRef> = None;
        let segments = bytes.chunks(SEGMENT_BYTES_MAX).rev();
        for segment in segments {
            let image = encode_segment(self.ctx.tree, segment, next.as_ref());
            let (page, npages, crc) = self.place(image)?;
            let rest = next.map_or(0, |next| next.len);
            let len = rest + u32::try_from(segment.len()).expect("a segment is at most 4 MB");
            next = Some(BlobRef { len, page, npages, crc, birth: self.ctx.seq });
        }
        Ok(next.expect("a blob has bytes"))
    }

    /// Adds an entry of a leaf, its value as a blob where it is large.
    pub fn push_entry(
        &mut self,
        items: &mut Items,
        key: &[u8],
        tail: Option<BlobRef>,
        value: &[u8],
    ) -> Result<(), Error> {
        if u32::try_from(key.len()).is_err() {
            return Err(Error::TooLarge {
                what: "a key",
                bytes: key.len() as u64,
                bytes_max: u32::MAX.into(),
            });
        }
        let weight = self.ctx.weigh(key, value);
        if value.len() > VALUE_INLINE_MAX {
            let blob = self.blob(value)?.encode();
            items.push(key, tail, super::items::Payload { bytes: &blob, blob: true, weight });
        } else {
            items.push(key, tail, super::items::Payload { bytes: value, blob: false, weight });
        }
        Ok(())
    }

    pub fn release_node(&mut self, ptr: &NodePtr) {
        self.single.remove(&ptr.page);
        self.sink.release(ptr.page, ptr.npages.into(), ptr.birth);
    }

    /// Releases a blob that a node of `parent_birth` held.
    pub fn release_blob(&mut self, blob: &BlobRef, parent_birth: u64) -> Result<(), Error> {
        let sink = &mut *self.sink;
        walk_blob(self.src, self.ctx, blob, parent_birth, |extent, _| {
            sink.release(extent.head.page, extent.head.npages.into(), extent.head.birth);
            Ok(())
        })
    }

    /// The only child of a branch that was just written.
    pub fn only_child(&self, branch: &NodePtr) -> Option<NodePtr> {
        self.single.get(&branch.page).copied()
    }

    fn place(&mut self, mut bytes: Vec<u8>) -> Result<(PageId, u16, u32), Error> {
        let npages = u16::try_from(bytes.len() / PAGE_BYTES).expect("an extent's pages fit its header");
        let page = self.sink.allocate(npages.into())?;
        let crc = seal(&mut bytes, self.ctx.uuid, page, self.ctx.seq);
        self.sink.write(page, bytes)?;
        Ok((page, npages, crc))
    }
}

/// Items of one level that become a run of neighbouring nodes.
pub(super) struct Pack {
    pub level: u8,
    pub items: Items,
    /// Lower bound of the next leaf of the run. A branch's lies in its first item.
    pub separator: Option<Separator>,
    /// Nodes of the run that have been written.
    pub nodes: usize,
}

impl Pack {
    pub fn new(level: u8) -> Pack {
        Pack { level, items: Items::new(level), separator: None, nodes: 0 }
    }

    /// Bytes that a single node of all items would have.
    pub fn bytes(&self) -> usize {
        self.items.node_bytes(self.items.len())
    }

    /// Writes full nodes while so much is left behind each that the rest makes good nodes too.
    pub fn write_full<S, K>(&mut self, writer: &mut Writer<'_, S, K>, out: &mut Items) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
        K: PageSink + ?Sized,
    {
        let shape = &writer.ctx.shape;
        let node_max = shape.node_bytes(self.level);
        let target = node_max * usize::from(shape.fill) / 100;
        // Where nodes are filled to the byte, whatever is left over goes into the next.
        let keep = if shape.fill == 100 { 0 } else { node_max };
        while self.bytes() > target + keep {
            let count = self.items.fitting(target, self.least());
            if count == self.items.len() {
                break;
            }
            self.write_front(writer, count, out)?;
        }
        Ok(())
    }

    /// Writes all that is left, as nodes of like size, and ends the run.
    pub fn finish<S, K>(&mut self, writer: &mut Writer<'_, S, K>, out: &mut Items) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
        K: PageSink + ?Sized,
    {
        let shape = writer.ctx.shape;
        let node_max = shape.node_bytes(self.level);
        let target = node_max * usize::from(shape.fill) / 100;
        self.write_full(writer, out)?;
        while !self.items.is_empty() {
            let bytes = self.bytes();
            let count = if bytes <= node_max {
                self.items.len()
            } else {
                let even = bytes.div_ceil(bytes.div_ceil(target.max(1)).max(2));
                // Whole pages, because a page costs the same whether it is full or not.
                let whole = (even + PAGE_BYTES / 2) / PAGE_BYTES * PAGE_BYTES;
                let piece = if (1..=node_max).contains(&whole) { whole } else { even.min(node_max) };
                self.items.fitting(piece, self.least())
            };
            self.write_front(writer, count, out)?;
        }
        self.nodes = 0;
        Ok(())
    }

    fn write_front<S, K>(
        &mut self,
        writer: &mut Writer<'_, S, K>,
        count: usize,
        out: &mut Items,
    ) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
        K: PageSink + ?Sized,
    {
        let own = if self.level == 0 {
            self.separator.take().expect("a leaf has a lower bound")
        } else {
            Separator { key: self.items.key(0).to_vec(), tail: self.items.tail(0) }
        };
        if self.level == 0 && count < self.items.len() {
            let key = separator(self.items.key(count - 1), self.items.key(count)).to_vec();
            self.separator = Some(Separator { key, tail: None });
        }
        let ptr = writer.node(self.level, &mut self.items, count)?;
        out.push_child(&own.key, own.tail, &ptr);
        self.nodes += 1;
        Ok(())
    }

    /// A branch of one child would only make the tree higher.
    fn least(&self) -> usize {
        if self.level == 0 { 1 } else { 2 }
    }
}
