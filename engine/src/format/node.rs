// SPDX-License-Identifier: Apache-2.0
//! Nodes: the layout of leaves and branches behind their header.
//!
//! Owns      the arrays and cells of a node.
//! Holds     offsets are read through bounds checks only: no bytes make a reader panic or look outside.
//! Never     reads a page, or compares keys.
//!
//! ```text
//! header 64 | checksums 4 * (npages - 1) | [long-key bits] [blob bits] | key ends | value ends or pointers
//!           | prefix | key cells | value cells | zeros
//! ```
//! Keys stand together and before the values, so that a search touches few pages, and most often only the first.
//! Ends are 2 bytes wide, or 4 in a node of more than 65 535 bytes. A cell begins where the one before it ends. A key
//! cell is the key without the node's prefix; of a key longer than [`KEY_INLINE_MAX`] only the first
//! [`KEY_HEAD_BYTES`] are kept, and a [`BlobRef`] to the rest follows. A value cell is the value, or a [`BlobRef`].
//! The first separator of a branch is never stored: it stands for every key below the second.

use super::Fault;
use super::blob::{BLOB_REF_BYTES, BlobRef};
use super::header::{
    FLAG_BLOBS, FLAG_LONG_KEYS, FLAG_WIDE, HEADER_BYTES, Header, Kind, NODE_PAGES_MAX, body_at, pages_for,
    put_header,
};
use crate::page::{NODE_PTR_BYTES, NodePtr, PAGE_BYTES};

/// The longest key that is kept whole in its node.
pub const KEY_INLINE_MAX: usize = 1024;
/// What a node keeps of a longer key.
pub const KEY_HEAD_BYTES: usize = 512;
/// The largest value that is kept in its leaf.
pub const VALUE_INLINE_MAX: usize = 16 * 1024;

/// A key as a node keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyCell<'a> {
    /// What follows the node's prefix: of a long key up to [`KEY_HEAD_BYTES`], else all of it.
    pub suffix: &'a [u8],
    /// The rest of a long key.
    pub tail: Option<BlobRef>,
}

/// The keys of one node.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    ends: &'a [u8],
    /// The cells, and what follows them in the extent.
    cells: &'a [u8],
    /// Bytes of the cells alone.
    len: usize,
    /// One bit a key where the node has long ones, else nothing.
    long: &'a [u8],
    wide: bool,
    ends_at: usize,
    /// Bytes of the node's prefix.
    prefix: usize,
}

impl<'a> Keys<'a> {
    /// Key `index`; the first of a branch is empty, and not to be taken for a key.
    ///
    /// # Errors
    /// If there is no such key, or its cell is not inside the keys.
    #[inline]
    pub fn get(&self, index: usize) -> Result<KeyCell<'a>, Fault> {
        let (from, to) = self.span(index)?;
        let cell = &self.cells[from..to];
        if self.long.get(index / 8).is_none_or(|byte| byte >> (index % 8) & 1 == 0) {
            return Ok(KeyCell { suffix: cell, tail: None });
        }
        self.long_key(index, cell)
    }

    /// The first eight bytes of what key `index` keeps behind the prefix, zeros for those that it lacks: where two
    /// heads differ, the keys differ the same way. `None` wherever only [`Keys::get`] can tell.
    #[inline]
    pub fn head(&self, index: usize) -> Option<u64> {
        let (from, to) = if self.wide || index == 0 {
            self.span(index).ok()?
        } else {
            let both = u32::from_le_bytes(*self.ends.get(2 * index - 2..)?.first_chunk()?) as usize;
            (both & 0xffff, both >> 16)
        };
        let head = u64::from_be_bytes(*self.cells.get(from..)?.first_chunk()?);
        if from > to || to > self.len || !self.long.is_empty() {
            return None;
        }
        // Of a shorter cell only its own bytes count, and those behind it are another's.
        Some(if to - from >= 8 { head } else { head & !(u64::MAX >> (8 * (to - from))) })
    }

    /// Where cell `index` lies, inside the cells.
    #[inline]
    fn span(&self, index: usize) -> Result<(usize, usize), Fault> {
        let from = if index == 0 { Some(0) } else { end_at(self.ends, self.wide, index - 1) };
        match (from, end_at(self.ends, self.wide, index)) {
            (Some(from), Some(to)) if from <= to && to <= self.len && to <= self.cells.len() => {
                Ok((from, to))
            }
            (_, found) => Err(self.fault("key end", index, found.unwrap_or(0))),
        }
    }

    fn long_key(&self, index: usize, cell: &'a [u8]) -> Result<KeyCell<'a>, Fault> {
        let Some((suffix, tail)) = cell.split_last_chunk::<BLOB_REF_BYTES>() else {
            return Err(self.fault("long key's cell", index, cell.len()));
        };
        if suffix.len() + self.prefix != KEY_HEAD_BYTES {
            return Err(self.fault("long key's head", index, suffix.len()));
        }
        Ok(KeyCell { suffix, tail: Some(BlobRef::decode(tail)) })
    }

    #[cold]
    fn fault(&self, what: &'static str, index: usize, found: usize) -> Fault {
        let width = if self.wide { 4 } else { 2 };
        Fault::new(what, self.ends_at + width * index, self.len as u64, found as u64)
    }
}

/// The first eight bytes of a key, zeros for those that it lacks.
#[inline]
pub fn key_head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let kept = key.len().min(8);
    head[..kept].copy_from_slice(&key[..kept]);
    u64::from_be_bytes(head)
}

/// Entry `index` of an array of ends.
#[inline]
fn end_at(ends: &[u8], wide: bool, index: usize) -> Option<usize> {
    if wide {
        ends.get(4 * index..)?.first_chunk().map(|end| u32::from_le_bytes(*end) as usize)
    } else {
        ends.get(2 * index..)?.first_chunk().map(|end| u16::from_le_bytes(*end).into())
    }
}

/// A value as a leaf keeps it: where it lies in the extent, or the blob that holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ValueCell {
    Inline(std::ops::Range<usize>),
    Blob(BlobRef),
}

/// Where the parts of one node lie. Made from a header, and valid for that node's bytes alone.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    count: usize,
    wide: bool,
    leaf: bool,
    long_keys_at: Option<usize>,
    blobs_at: Option<usize>,
    key_ends_at: usize,
    /// Value ends of a leaf, pointers of a branch.
    seconds_at: usize,
    prefix_at: usize,
    keys_at: usize,
    used: usize,
    /// Set by [`Layout::close`].
    values_at: usize,
}

impl Layout {
    /// Computes from the header where the arrays lie. All that needs is arithmetic: the content is not looked at.
    ///
    /// # Errors
    /// If the arrays pass the end of the content.
    #[inline]
    pub fn open(header: &Header) -> Result<Layout, Fault> {
        let count = header.count as usize;
        let used = header.used as usize;
        // Each entry has its ends, so a count beyond `used` cannot be, and the sums below cannot overflow.
        if count > used || header.kind == Kind::Blob {
            return Err(Fault::new("count", 8, used as u64, count as u64));
        }
        let leaf = header.kind == Kind::Leaf;
        let width = if header.flags & FLAG_WIDE != 0 { 4 } else { 2 };
        let mut at = header.body_at();
        let bits_at = |flag: u8, at: &mut usize| {
            let here = *at;
            (header.flags & flag != 0).then(|| {
                *at += count.div_ceil(8);
                here
            })
        };
        let long_keys_at = bits_at(FLAG_LONG_KEYS, &mut at);
        let blobs_at = bits_at(FLAG_BLOBS, &mut at);
        let key_ends_at = at;
        let seconds_at = key_ends_at + width * count;
        let prefix_at = seconds_at + if leaf { width } else { NODE_PTR_BYTES } * count;
        let keys_at = prefix_at + usize::from(header.prefix);
        if keys_at > used || (blobs_at.is_some() && !leaf) {
            return Err(Fault::new("arrays pass the used bytes", 12, keys_at as u64, used as u64));
        }
        let wide = width == 4;
        Ok(Layout {
            count,
            wide,
            leaf,
            long_keys_at,
            blobs_at,
            key_ends_at,
            seconds_at,
            prefix_at,
            keys_at,
            used,
            values_at: used,
        })
    }

    /// Bytes from the start of the extent that hold all but the cells.
    pub fn arrays_end(&self) -> usize {
        self.keys_at
    }

    /// Finds where the key cells end. `bytes` are the extent, good up to [`Layout::arrays_end`].
    ///
    /// # Errors
    /// If the key cells pass the end of the content, or a branch has bytes behind them.
    #[inline]
    pub fn close(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let keys = self.end(bytes, self.key_ends_at, self.count - 1)?;
        let values_at = self.keys_at + keys;
        if values_at > self.used || (!self.leaf && values_at != self.used) {
            return Err(Fault::new("end of the keys", self.key_ends_at, self.used as u64, values_at as u64));
        }
        self.values_at = values_at;
        Ok(())
    }

    /// Bytes from the start of the extent that hold all but the values.
    pub fn keys_end(&self) -> usize {
        self.values_at
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// What all keys of the node begin with.
    #[inline]
    pub fn prefix<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        bytes.get(self.prefix_at..self.keys_at).ok_or(Fault::new("prefix", 18, 0, 0))
    }

    /// All keys of the node, for a search.
    ///
    /// # Errors
    /// If `bytes` are not the extent that the layout was made for.
    #[inline]
    pub fn keys<'a>(&self, bytes: &'a [u8]) -> Result<Keys<'a>, Fault> {
        let part = |from: usize, to: usize| bytes.get(from..to);
        let long = match self.long_keys_at {
            Some(at) => part(at, at + self.count.div_ceil(8)),
            None => Some(&[][..]),
        };
        let parts = (part(self.key_ends_at, self.seconds_at), bytes.get(self.keys_at..), long);
        let (Some(ends), Some(cells), Some(long)) = parts else {
            return Err(Fault::new("keys", self.key_ends_at, self.values_at as u64, bytes.len() as u64));
        };
        let len = self.values_at - self.keys_at;
        let prefix = self.keys_at - self.prefix_at;
        Ok(Keys { ends, cells, len, long, wide: self.wide, ends_at: self.key_ends_at, prefix })
    }

    /// Key `index`; the first of a branch is empty, and not to be taken for a key.
    pub fn key<'a>(&self, bytes: &'a [u8], index: usize) -> Result<KeyCell<'a>, Fault> {
        self.keys(bytes)?.get(index)
    }

    /// Whether some values of the leaf are blobs.
    #[inline]
    pub(crate) fn has_blobs(&self) -> bool {
        self.blobs_at.is_some()
    }

    /// Value `index` of a leaf. A blob's reference lies in the extent at [`Layout::value_span`].
    #[inline]
    pub fn value(&self, bytes: &[u8], index: usize) -> Result<ValueCell, Fault> {
        self.value_at(bytes, index, self.value_span(bytes, index)?)
    }

    /// The same, of a value whose span is known.
    #[inline]
    pub(crate) fn value_at(
        &self,
        bytes: &[u8],
        index: usize,
        span: std::ops::Range<usize>,
    ) -> Result<ValueCell, Fault> {
        if !self.bit(bytes, self.blobs_at, index) {
            return Ok(ValueCell::Inline(span));
        }
        match bytes.get(span.clone()).and_then(|cell| cell.try_into().ok()) {
            Some(cell) => Ok(ValueCell::Blob(BlobRef::decode(cell))),
            None => Err(self.bad_end("blob's cell", self.seconds_at, index, span.end - self.values_at)),
        }
    }

    /// Where value cell `index` of a leaf lies in the extent; found without a look at the cell.
    #[inline]
    pub fn value_span(&self, bytes: &[u8], index: usize) -> Result<std::ops::Range<usize>, Fault> {
        let (from, to) = self.span(bytes, self.seconds_at, index)?;
        if !self.leaf || from > to || self.values_at + to > self.used {
            return Err(self.bad_end("value end", self.seconds_at, index, to));
        }
        Ok(self.values_at + from..self.values_at + to)
    }

    /// Where pointer `index` of a branch lies in the extent.
    #[inline]
    pub(crate) fn child_at(&self, index: usize) -> usize {
        self.seconds_at + NODE_PTR_BYTES * index
    }

    /// Pointer `index` of a branch.
    #[inline]
    pub fn child(&self, bytes: &[u8], index: usize) -> Result<NodePtr, Fault> {
        let at = self.child_at(index);
        let cell = bytes.get(at..at + NODE_PTR_BYTES).and_then(|cell| cell.try_into().ok());
        match cell {
            Some(cell) if !self.leaf && index < self.count => Ok(NodePtr::decode(cell)),
            _ => Err(Fault::new("pointer", at, self.count as u64, index as u64)),
        }
    }

    /// Whether the cells fill the content without a gap, which lets nothing hide behind the last.
    pub fn check_end(&self, bytes: &[u8]) -> Result<(), Fault> {
        let end = if self.leaf {
            self.values_at + self.end(bytes, self.seconds_at, self.count - 1)?
        } else {
            self.values_at
        };
        if end != self.used {
            return Err(Fault::new("end of the cells", 12, self.used as u64, end as u64));
        }
        Ok(())
    }

    #[inline]
    fn span(&self, bytes: &[u8], array: usize, index: usize) -> Result<(usize, usize), Fault> {
        let from = if index == 0 { 0 } else { self.end(bytes, array, index - 1)? };
        Ok((from, self.end(bytes, array, index)?))
    }

    #[inline]
    fn end(&self, bytes: &[u8], array: usize, index: usize) -> Result<usize, Fault> {
        if index < self.count
            && let Some(end) = bytes.get(array..).and_then(|ends| end_at(ends, self.wide, index))
        {
            return Ok(end);
        }
        Err(Fault::new("index", array, self.count as u64, index as u64))
    }

    #[inline]
    fn bit(&self, bytes: &[u8], bits_at: Option<usize>, index: usize) -> bool {
        bits_at.is_some_and(|at| bytes.get(at + index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1))
    }

    fn bad_end(&self, what: &'static str, array: usize, index: usize, found: usize) -> Fault {
        let width = if self.wide { 4 } else { 2 };
        Fault::new(what, array + width * index, (self.used - self.keys_at) as u64, found as u64)
    }
}

/// One entry on its way into a node.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The key, or its first [`KEY_HEAD_BYTES`] where `tail` holds the rest.
    pub key: &'a [u8],
    pub tail: Option<BlobRef>,
    /// The value of a leaf's entry; the encoded pointer of a branch's.
    pub value: &'a [u8],
    /// `value` is an encoded [`BlobRef`].
    pub blob: bool,
}

/// Sums over the entries of a node, from which its size follows.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums {
    pub count: usize,
    pub long_keys: usize,
    pub blobs: usize,
    /// Key bytes kept in the node, prefix and references to tails included.
    pub keys: usize,
    pub values: usize,
}

/// Bytes that a node needs, with the checksums of its pages: what `used` will say.
pub(crate) fn node_bytes(leaf: bool, sums: &Sums, prefix: usize) -> usize {
    let with_width = |width: usize| {
        let bits = |some: usize| if some > 0 { sums.count.div_ceil(8) } else { 0 };
        // The first separator of a branch is not stored, so it has no prefix to save.
        let prefixed = if leaf { sums.count } else { sums.count.saturating_sub(1) };
        let seconds = if leaf { width * sums.count + sums.values } else { NODE_PTR_BYTES * sums.count };
        let end = HEADER_BYTES
            + bits(sums.long_keys)
            + bits(sums.blobs)
            + width * sums.count
            + seconds
            + prefix
            + (sums.keys - prefix * prefixed);
        end + 4 * (pages_for(end) - 1)
    };
    let narrow = with_width(2);
    if narrow <= usize::from(u16::MAX) { narrow } else { with_width(4) }
}

/// Encodes a node of `count` entries that share `prefix` bytes. [`seal`](super::header::seal) then says where it lies.
///
/// # Panics
/// If the entries do not fit one node; [`node_bytes`] tells beforehand.
pub(crate) fn encode<'a>(
    tree: u8,
    level: u8,
    prefix: &[u8],
    count: usize,
    cell: impl Fn(usize) -> Cell<'a>,
) -> Vec<u8> {
    let leaf = level == 0;
    let first = usize::from(!leaf);
    let mut sums = Sums { count, ..Sums::default() };
    for index in 0..count {
        let cell = cell(index);
        if index >= first {
            sums.long_keys += usize::from(cell.tail.is_some());
            sums.keys += cell.key.len() + if cell.tail.is_some() { BLOB_REF_BYTES } else { 0 };
        }
        sums.blobs += usize::from(cell.blob);
        sums.values += cell.value.len();
    }
    let used = node_bytes(leaf, &sums, prefix.len());
    let npages = u16::try_from(used.div_ceil(PAGE_BYTES)).expect("a node's pages fit its header");
    assert!(count > 0 && npages <= NODE_PAGES_MAX, "a node of {count} entries and {npages} pages");
    let wide = used > usize::from(u16::MAX);

    let mut out = vec![0; body_at(npages)];
    out.reserve_exact(usize::from(npages) * PAGE_BYTES - out.len());
    put_header(&mut out, if leaf { Kind::Leaf } else { Kind::Branch }, level, tree, npages);
    for (flag, set) in [(FLAG_WIDE, wide), (FLAG_LONG_KEYS, sums.long_keys > 0), (FLAG_BLOBS, sums.blobs > 0)]
    {
        out[7] |= if set { flag } else { 0 };
    }
    out[8..12].copy_from_slice(&u32::try_from(count).expect("a node's entries fit its header").to_le_bytes());
    out[12..16].copy_from_slice(&u32::try_from(used).expect("a node's bytes fit its header").to_le_bytes());
    out[18..20].copy_from_slice(&u16::try_from(prefix.len()).expect("a prefix fits its field").to_le_bytes());

    if sums.long_keys > 0 {
        put_bits(&mut out, count, |index| index >= first && cell(index).tail.is_some());
    }
    if sums.blobs > 0 {
        put_bits(&mut out, count, |index| cell(index).blob);
    }
    let put_end = |out: &mut Vec<u8>, end: usize| {
        let end = u32::try_from(end).expect("an end is within the node").to_le_bytes();
        out.extend_from_slice(if wide { &end } else { &end[..2] });
    };
    let mut end = 0;
    for index in 0..count {
        if index >= first {
            let cell = cell(index);
            end += cell.key.len() - prefix.len() + if cell.tail.is_some() { BLOB_REF_BYTES } else { 0 };
        }
        put_end(&mut out, end);
    }
    let mut end = 0;
    for index in 0..count {
        let value = cell(index).value;
        if leaf {
            end += value.len();
            put_end(&mut out, end);
        } else {
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(prefix);
    for index in first..count {
        let cell = cell(index);
        debug_assert!(cell.key.starts_with(prefix), "a key lacks the prefix of its node");
        out.extend_from_slice(&cell.key[prefix.len()..]);
        if let Some(tail) = cell.tail {
            out.extend_from_slice(&tail.encode());
        }
    }
    if leaf {
        for index in 0..count {
            out.extend_from_slice(cell(index).value);
        }
    }
    assert_eq!(out.len(), used, "a node came out at another size than computed");
    out.resize(usize::from(npages) * PAGE_BYTES, 0);
    out
}

fn put_bits(out: &mut Vec<u8>, count: usize, bit: impl Fn(usize) -> bool) {
    let at = out.len();
    out.resize(at + count.div_ceil(8), 0);
    for index in (0..count).filter(|&index| bit(index)) {
        out[at + index / 8] |= 1 << (index % 8);
    }
}
