// SPDX-License-Identifier: Apache-2.0
//! Reading: opening extents with every check, point reads, and the weight of a range.
//!
//! Owns      the only place where bytes of a source become a node.
//! Holds     1. no byte of a page is used before the page's checksum was found right, by this reader or, where the
//!              source remembers, by one before it;
//!           2. the header of an extent is compared with whatever pointed at it, each time.
//! Never     writes.

use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::{Bound, Deref, Range};

use bytes::Bytes;

use super::{Ctx, Weight};
use crate::error::Error;
use crate::format::blob::{BLOB_REF_BYTES, BlobRef, Segment};
use crate::format::header::{EXTENT_PAGES_MAX, Header, Kind, NODE_PAGES_MAX, page_crc};
use crate::format::node::{KEY_HEAD_BYTES, KeyCell, Layout, ValueCell, key_head};
use crate::format::{Fault, crc};
use crate::mutants::planted;
use crate::page::{NodePtr, PAGE_BYTES, PageBuf, PageId, PageSource, TreeRoot};

/// A value, and what keeps its bytes in memory.
#[derive(Clone, Debug)]
pub struct ValueRef(PageBuf);

impl ValueRef {
    /// The bytes on their own, copied where they lie in a mapping.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl Deref for ValueRef {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The value of `key`, if it is there. Costs one node a level; of the leaf only the pages with keys and with the
/// value are verified.
///
/// # Errors
/// [`Error::Corrupt`] with file and offset; whatever the source answers.
pub fn get<S>(src: &S, ctx: &Ctx, root: &TreeRoot, key: &[u8]) -> Result<Option<ValueRef>, Error>
where
    S: PageSource + ?Sized,
{
    let Some((mut node, mut level)) = open_root(src, ctx, root)? else { return Ok(None) };
    while level > 0 {
        level -= 1;
        let index = node.child_index(src, ctx, key)?;
        node = Node::open(src, ctx, &node.child(ctx, index)?, level, node.birth())?;
    }
    match node.search(src, ctx, key, 0)? {
        Ok(index) => node.into_value(src, ctx, index).map(Some),
        Err(_) => Ok(None),
    }
}

/// The weight of all entries between two keys. Costs one node a level for each bound, and the values of two leaves.
///
/// # Errors
/// As [`get`].
pub fn weight<S>(
    src: &S,
    ctx: &Ctx,
    root: &TreeRoot,
    low: Bound<&[u8]>,
    high: Bound<&[u8]>,
) -> Result<u64, Error>
where
    S: PageSource + ?Sized,
{
    let Some(ptr) = &root.ptr else { return Ok(0) };
    let below_high = match high {
        Bound::Unbounded => ptr.weight,
        Bound::Included(key) => weight_before(src, ctx, root, key, true)?,
        Bound::Excluded(key) => weight_before(src, ctx, root, key, false)?,
    };
    let below_low = match low {
        Bound::Unbounded => 0,
        Bound::Included(key) => weight_before(src, ctx, root, key, false)?,
        Bound::Excluded(key) => weight_before(src, ctx, root, key, true)?,
    };
    // Bounds the wrong way round are an empty range.
    Ok(below_high.saturating_sub(below_low))
}

fn weight_before<S>(src: &S, ctx: &Ctx, root: &TreeRoot, key: &[u8], with: bool) -> Result<u64, Error>
where
    S: PageSource + ?Sized,
{
    let Some((mut node, mut level)) = open_root(src, ctx, root)? else { return Ok(0) };
    let mut sum = 0u64;
    while level > 0 {
        level -= 1;
        let index = node.child_index(src, ctx, key)?;
        for before in 0..index {
            sum = sum.saturating_add(node.child(ctx, before)?.weight);
        }
        node = Node::open(src, ctx, &node.child(ctx, index)?, level, node.birth())?;
    }
    let end = match node.search(src, ctx, key, 0)? {
        Ok(index) => index + usize::from(with),
        Err(index) => index,
    };
    if let Weight::One = ctx.weight {
        return Ok(sum.saturating_add(end as u64));
    }
    let mut full_key = Vec::new();
    for index in 0..end {
        node.full_key(src, ctx, index, &mut full_key)?;
        sum = sum.saturating_add(ctx.weigh(&full_key, &node.value(src, ctx, index)?));
    }
    Ok(sum)
}

/// The root node and its level.
pub(super) fn open_root<S>(src: &S, ctx: &Ctx, root: &TreeRoot) -> Result<Option<(Node, u8)>, Error>
where
    S: PageSource + ?Sized,
{
    let Some(ptr) = &root.ptr else { return Ok(None) };
    let Some(level) = root.height.checked_sub(1) else {
        return Err(ctx.corrupt(ptr.page, Fault::new("height of a tree with a root", 0, 1, 0)));
    };
    Ok(Some((Node::open(src, ctx, ptr, level, ctx.seq)?, level)))
}

/// What a pointer or a reference to a blob says of the extent it leads to.
pub(super) struct Expect {
    pub page: PageId,
    pub npages: u16,
    pub crc: u32,
    pub birth: u64,
    pub blob: bool,
    pub level: u8,
}

impl Expect {
    /// Checksum and birth that the extent in `buf` must have.
    #[inline]
    fn sum_and_birth(&self, buf: &[u8]) -> (u32, u64) {
        if planted("tree-stale-node-taken")
            && let Ok(own) = Header::decode(buf)
        {
            return (own.crc, own.birth);
        }
        (self.crc, self.birth)
    }

    /// Names the first field in which a header differs.
    #[cold]
    fn mismatch(&self, ctx: &Ctx, head: &Header) -> Error {
        let blob = head.kind == Kind::Blob;
        let fields = [
            ("checksum in a header", self.crc.into(), head.crc.into(), crc::HEADER_CRC_AT),
            ("page number in a header", self.page.get(), head.page.get(), 24),
            ("birth in a header", self.birth, head.birth, 32),
            ("uuid in a header", ctx.uuid, head.uuid, 40),
            ("tree in a header", ctx.tree.into(), head.tree.into(), 6),
            ("page count in a header", self.npages.into(), head.npages.into(), 16),
            ("level in a header", self.level.into(), head.level.into(), 5),
        ];
        let differs = fields.into_iter().find(|(_, expected, found, _)| expected != found);
        let (what, expected, found, at) =
            differs.unwrap_or(("kind of an extent", self.blob.into(), blob.into(), 4));
        ctx.corrupt(self.page, Fault::new(what, at, expected, found))
    }
}

/// Reads a byte of each of the first lines of a node, which has its arrays and keys there: what of them is not in the
/// processor's cache comes together, and not one line after the other as the search asks for them.
#[inline]
fn look_ahead(header_page: &[u8]) {
    const LINE_BYTES: usize = 64;
    const LINES: usize = 10;
    let Some(lines) = header_page.first_chunk::<{ LINE_BYTES * LINES }>() else { return };
    let any = (1..LINES).fold(0, |any, line| any | lines[line * LINE_BYTES]);
    std::hint::black_box(any);
}

/// The bytes of an extent, of which the header is right and the touched pages are verified.
pub(super) struct ExtentBuf {
    buf: PageBuf,
    pub head: Header,
    /// Pages found right, of the first 64.
    touched: Cell<u64>,
    /// All pages were found readable.
    probed: Cell<bool>,
}

impl ExtentBuf {
    /// Opens an extent and looks at its header page alone.
    pub fn open<S>(src: &S, ctx: &Ctx, want: &Expect, parent_birth: u64) -> Result<ExtentBuf, Error>
    where
        S: PageSource + ?Sized,
    {
        let pages_max = if want.blob { EXTENT_PAGES_MAX } else { NODE_PAGES_MAX };
        let bad =
            |what, expected: u64, found: u64| ctx.corrupt(want.page, Fault::new(what, 0, expected, found));
        if want.npages == 0 || want.npages > pages_max || want.page.get() == 0 {
            return Err(bad("pages of a pointer's target", pages_max.into(), want.npages.into()));
        }
        if want.birth > parent_birth {
            return Err(bad("birth of a pointer's target", parent_birth, want.birth));
        }
        let buf = src.extent(want.page, want.npages.into())?;
        if buf.len() != usize::from(want.npages) * PAGE_BYTES {
            return Err(bad(
                "bytes of an extent",
                u64::from(want.npages) * PAGE_BYTES as u64,
                buf.len() as u64,
            ));
        }
        let (crc, birth) = want.sum_and_birth(&buf);
        let verified = src.is_verified(want.page);
        if !verified {
            src.probe(want.page, 1)?;
            let sum = crc::header_page(crc::salt(ctx.uuid, want.page, birth), &buf[..PAGE_BYTES]);
            if sum != crc && !planted("tree-parent-checksum-ignored") {
                return Err(bad("checksum of a header page", crc.into(), sum.into()));
            }
        }
        if !want.blob {
            look_ahead(&buf);
        }
        let head = Header::decode(&buf).map_err(|fault| ctx.corrupt(want.page, fault))?;
        let blob = head.kind == Kind::Blob;
        let same = (head.crc == crc && head.page == want.page && head.birth == birth)
            && (head.npages == want.npages && head.level == want.level && blob == want.blob)
            && (head.uuid == ctx.uuid && head.tree == ctx.tree);
        if !same {
            return Err(want.mismatch(ctx, &head));
        }
        if !verified {
            src.set_verified(want.page);
        }
        Ok(ExtentBuf { buf, head, touched: Cell::new(1), probed: Cell::new(false) })
    }

    /// Finds out with one call whether all pages can be read, for whoever is going to read them all. If not, the page
    /// that cannot be read is found when it is touched.
    pub fn probe<S>(&self, src: &S)
    where
        S: PageSource + ?Sized,
    {
        let npages = u32::from(self.head.npages);
        let unverified = |page: &u32| !src.is_verified(self.head.page.plus((*page).into()));
        if let Some(first) = (1..npages).find(unverified) {
            let found = src.probe(self.head.page.plus(first.into()), npages - first);
            self.probed.set(found.is_ok());
        }
    }

    /// Verifies the pages of a part of the extent, those that were not yet.
    #[inline]
    pub fn touch<S>(&self, src: &S, ctx: &Ctx, range: Range<usize>) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
    {
        if range.is_empty() {
            return Ok(());
        }
        let (first, last) = (range.start / PAGE_BYTES, (range.end - 1) / PAGE_BYTES);
        if last < 64 {
            let wanted = (u64::MAX >> (63 - last)) & (u64::MAX << first);
            let mut missing = wanted & !self.touched.get();
            while missing != 0 {
                self.touch_page(src, ctx, missing.trailing_zeros() as usize)?;
                missing &= missing - 1;
            }
            return Ok(());
        }
        (first..=last).try_for_each(|page| self.touch_page(src, ctx, page))
    }

    fn touch_page<S>(&self, src: &S, ctx: &Ctx, page: usize) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
    {
        let id = self.head.page.plus(page as u64);
        if page > 0 && !src.is_verified(id) {
            let at = page * PAGE_BYTES;
            let stated = page_crc(&self.buf[..PAGE_BYTES], page);
            let (Some(bytes), Some(stated)) = (self.buf.get(at..at + PAGE_BYTES), stated) else {
                return Err(self
                    .fault(ctx, Fault::new("page of an extent", 16, self.head.npages.into(), page as u64)));
            };
            if !self.probed.get() {
                src.probe(id, 1)?;
            }
            let sum = crc::page(crc::salt(ctx.uuid, id, self.head.birth), bytes);
            if sum != stated && !planted("tree-page-checksum-ignored") {
                return Err(self.fault(ctx, Fault::new("checksum of a page", at, stated.into(), sum.into())));
            }
            src.set_verified(id);
        }
        if page < 64 {
            self.touched.set(self.touched.get() | 1 << page);
        }
        Ok(())
    }

    pub fn fault(&self, ctx: &Ctx, fault: Fault) -> Error {
        ctx.corrupt(self.head.page, fault)
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }
}

/// A leaf or branch whose header, arrays and keys are verified.
pub(super) struct Node {
    extent: ExtentBuf,
    layout: Layout,
}

impl Node {
    pub fn open<S>(src: &S, ctx: &Ctx, ptr: &NodePtr, level: u8, parent_birth: u64) -> Result<Node, Error>
    where
        S: PageSource + ?Sized,
    {
        let NodePtr { page, npages, crc, birth, weight: _ } = *ptr;
        let want = Expect { page, npages, crc, birth, blob: false, level };
        let extent = ExtentBuf::open(src, ctx, &want, parent_birth)?;
        let mut layout = Layout::open(&extent.head).map_err(|fault| extent.fault(ctx, fault))?;
        extent.touch(src, ctx, 0..layout.arrays_end())?;
        layout.close(extent.bytes()).map_err(|fault| extent.fault(ctx, fault))?;
        extent.touch(src, ctx, 0..layout.keys_end())?;
        Ok(Node { extent, layout })
    }

    #[inline]
    pub fn count(&self) -> usize {
        self.layout.count()
    }

    pub fn level(&self) -> u8 {
        self.extent.head.level
    }

    pub fn birth(&self) -> u64 {
        self.extent.head.birth
    }

    pub fn extent(&self) -> &ExtentBuf {
        &self.extent
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub fn child(&self, ctx: &Ctx, index: usize) -> Result<NodePtr, Error> {
        self.layout.child(self.extent.bytes(), index).map_err(|fault| self.extent.fault(ctx, fault))
    }

    /// What the node says of the value, without a look at it.
    pub fn value_cell<S>(&self, src: &S, ctx: &Ctx, index: usize) -> Result<ValueCell, Error>
    where
        S: PageSource + ?Sized,
    {
        let fault = |fault| self.extent.fault(ctx, fault);
        let span = self.layout.value_span(self.extent.bytes(), index).map_err(fault)?;
        self.extent.touch(src, ctx, span.clone())?;
        self.layout.value_at(self.extent.bytes(), index, span).map_err(fault)
    }

    pub fn value<S>(&self, src: &S, ctx: &Ctx, index: usize) -> Result<ValueRef, Error>
    where
        S: PageSource + ?Sized,
    {
        match self.value_cell(src, ctx, index)? {
            ValueCell::Inline(span) => Ok(ValueRef(self.extent.buf.clone().slice(span))),
            ValueCell::Blob(blob) => read_blob(src, ctx, &blob, self.birth()).map(ValueRef),
        }
    }

    /// As [`Node::value`], for whoever needs the node no more.
    #[inline]
    fn into_value<S>(self, src: &S, ctx: &Ctx, index: usize) -> Result<ValueRef, Error>
    where
        S: PageSource + ?Sized,
    {
        match self.value_cell(src, ctx, index)? {
            ValueCell::Inline(span) => Ok(ValueRef(self.extent.buf.slice(span))),
            ValueCell::Blob(blob) => read_blob(src, ctx, &blob, self.birth()).map(ValueRef),
        }
    }

    /// As [`Node::value`], into `out`: at little cost if that was a value of this node.
    pub fn value_into<S>(&self, src: &S, ctx: &Ctx, index: usize, out: &mut ValueRef) -> Result<(), Error>
    where
        S: PageSource + ?Sized,
    {
        if self.layout.has_blobs() {
            *out = self.value(src, ctx, index)?;
            return Ok(());
        }
        let bytes = self.extent.bytes();
        let span = self.layout.value_span(bytes, index).map_err(|fault| self.extent.fault(ctx, fault))?;
        self.extent.touch(src, ctx, span.clone())?;
        out.0.set_slice(&self.extent.buf, span);
        Ok(())
    }

    /// Writes the whole of key `index` into `out`. The first key of a branch comes out empty.
    pub fn full_key<S>(
        &self,
        src: &S,
        ctx: &Ctx,
        index: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<BlobRef>, Error>
    where
        S: PageSource + ?Sized,
    {
        if index == 0 && self.level() > 0 {
            out.clear();
            return Ok(None);
        }
        let fault = |fault| self.extent.fault(ctx, fault);
        let bytes = self.extent.bytes();
        let cell = self.layout.key(bytes, index).map_err(fault)?;
        join_into(out, self.layout.prefix(bytes).map_err(fault)?, cell.suffix);
        if let Some(tail) = &cell.tail {
            out.extend_from_slice(&read_blob(src, ctx, tail, self.birth())?);
        }
        Ok(cell.tail)
    }

    /// Where the rest of key `index` lies, if the key is long.
    pub fn key_tail(&self, ctx: &Ctx, index: usize) -> Result<Option<BlobRef>, Error> {
        let cell = self.layout.key(self.extent.bytes(), index);
        cell.map(|cell| cell.tail).map_err(|fault| self.extent.fault(ctx, fault))
    }

    /// The child below which `key` belongs.
    pub fn child_index<S>(&self, src: &S, ctx: &Ctx, key: &[u8]) -> Result<usize, Error>
    where
        S: PageSource + ?Sized,
    {
        match self.search(src, ctx, key, 1)? {
            Ok(index) => Ok(index),
            Err(index) => Ok(index - 1),
        }
    }

    /// Finds `key` from entry `first` on: where it is, or where it would be.
    pub fn search<S>(
        &self,
        src: &S,
        ctx: &Ctx,
        key: &[u8],
        first: usize,
    ) -> Result<Result<usize, usize>, Error>
    where
        S: PageSource + ?Sized,
    {
        let bytes = self.extent.bytes();
        let fault = |fault| self.extent.fault(ctx, fault);
        let (mut low, mut high) = (first, self.count());
        let prefix = self.layout.prefix(bytes).map_err(fault)?;
        let shared = key.len().min(prefix.len());
        match prefix[..shared].cmp(&key[..shared]) {
            Ordering::Less => return Ok(Err(high.max(first))),
            Ordering::Greater => return Ok(Err(first)),
            Ordering::Equal if shared < prefix.len() => return Ok(Err(first)),
            Ordering::Equal => {}
        }
        let rest = &key[shared..];
        let keys = self.layout.keys(bytes).map_err(fault)?;
        let head = key_head(rest);
        while low < high {
            let middle = low + (high - low) / 2;
            let order = match keys.head(middle) {
                Some(other) if other != head => other.cmp(&head),
                // Up to eight bytes they are equal, or one ends and the other goes on with zeros.
                _ => self.compare(src, ctx, &keys.get(middle).map_err(fault)?, key, rest)?,
            };
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// The order of a stored key and `key`, of which `rest` follows the node's prefix.
    fn compare<S>(
        &self,
        src: &S,
        ctx: &Ctx,
        cell: &KeyCell<'_>,
        key: &[u8],
        rest: &[u8],
    ) -> Result<Ordering, Error>
    where
        S: PageSource + ?Sized,
    {
        let Some(tail) = &cell.tail else { return Ok(cell.suffix.cmp(rest)) };
        match cell.suffix.cmp(&rest[..rest.len().min(cell.suffix.len())]) {
            // As far as the node keeps them they are equal, and the stored key goes on.
            Ordering::Equal => {
                let stored = read_blob(src, ctx, tail, self.birth())?;
                Ok(stored[..].cmp(key.get(KEY_HEAD_BYTES..).unwrap_or(&[])))
            }
            unequal => Ok(unequal),
        }
    }
}

/// Makes `out` the bytes of `head` and `tail`. Where they are as many as before, only bytes are written: whoever reads
/// the length next does not wait for it.
#[inline]
pub(crate) fn join_into(out: &mut Vec<u8>, head: &[u8], tail: &[u8]) {
    if out.len() == head.len() + tail.len() {
        out[..head.len()].copy_from_slice(head);
        out[head.len()..].copy_from_slice(tail);
    } else {
        out.clear();
        out.extend_from_slice(head);
        out.extend_from_slice(tail);
    }
}

/// Walks the segments of a blob; `each` gets the extent and what it holds.
pub(super) fn walk_blob<S>(
    src: &S,
    ctx: &Ctx,
    blob: &BlobRef,
    parent_birth: u64,
    mut each: impl FnMut(&ExtentBuf, &Segment) -> Result<(), Error>,
) -> Result<(), Error>
where
    S: PageSource + ?Sized,
{
    let mut next = Some(*blob);
    let mut parent_birth = parent_birth;
    while let Some(BlobRef { len, page, npages, crc, birth }) = next {
        let want = Expect { page, npages, crc, birth, blob: true, level: 0 };
        let extent = ExtentBuf::open(src, ctx, &want, parent_birth)?;
        extent.touch(src, ctx, 0..extent.head.body_at() + BLOB_REF_BYTES)?;
        let segment =
            Segment::decode(&extent.head, extent.bytes(), len).map_err(|fault| extent.fault(ctx, fault))?;
        each(&extent, &segment)?;
        parent_birth = birth;
        next = segment.next;
    }
    Ok(())
}

/// The bytes of a blob: in place where it has one segment, else put together. A stated length earns no memory
/// before the bytes are there.
pub(super) fn read_blob<S>(src: &S, ctx: &Ctx, blob: &BlobRef, parent_birth: u64) -> Result<PageBuf, Error>
where
    S: PageSource + ?Sized,
{
    let mut whole = None;
    let mut parts = Vec::new();
    walk_blob(src, ctx, blob, parent_birth, |extent, segment| {
        extent.touch(src, ctx, segment.bytes.clone())?;
        if segment.next.is_none() && parts.is_empty() {
            whole = Some(extent.buf.clone().slice(segment.bytes.clone()));
        } else {
            parts.extend_from_slice(&extent.bytes()[segment.bytes.clone()]);
        }
        Ok(())
    })?;
    Ok(whole.unwrap_or_else(|| parts.into()))
}
