// SPDX-License-Identifier: Apache-2.0
//! Pages: what a tree is made of, where it reads them and where it writes them.
//!
//! Owns      page numbers, pointers to nodes, the root of a tree, and the two traits between trees and files.
//! Holds     1. a page number fits 48 bits, and page 0 is never part of a tree;
//!           2. a pointer and a root have one encoding, of a fixed size.
//! Never     opens a file or looks inside a node.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::io::MapBytes;

/// Unit of allocation and of checksums, and the page of most kernels.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a [`NodePtr`] on disk.
pub const NODE_PTR_BYTES: usize = 28;

/// Bytes of a [`TreeRoot`] on disk.
pub const TREE_ROOT_BYTES: usize = 48;

/// Page number in the data file, not a byte offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId(u64);

impl PageId {
    /// The largest page number: 2^48 pages of 4 KiB are 1 EiB.
    pub const MAX: PageId = PageId((1 << 48) - 1);

    /// A page number that our own arithmetic gave.
    ///
    /// # Panics
    /// If it does not fit 48 bits.
    pub const fn new(number: u64) -> PageId {
        assert!(number <= PageId::MAX.0, "a page number has 48 bits");
        PageId(number)
    }

    /// A page number that comes from disk or from a caller outside.
    #[inline]
    pub const fn checked(number: u64) -> Option<PageId> {
        if number <= PageId::MAX.0 { Some(PageId(number)) } else { None }
    }

    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where the page begins in its file.
    #[inline]
    pub const fn byte_offset(self) -> u64 {
        self.0 * PAGE_BYTES as u64
    }

    /// The page `pages` further on; the largest page number where that would be beyond it, which no file holds.
    #[inline]
    pub(crate) fn plus(self, pages: u64) -> PageId {
        PageId(self.0.saturating_add(pages).min(PageId::MAX.0))
    }
}

impl std::fmt::Display for PageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a parent knows of a child: where it is, and enough to tell it from any page that was ever there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodePtr {
    pub page: PageId,
    pub npages: u16,
    /// The checksum that the child's header page states of itself.
    pub crc: u32,
    /// Checkpoint that wrote the child.
    pub birth: u64,
    /// Sum of the weights of all entries below.
    pub weight: u64,
}

impl NodePtr {
    pub fn encode(&self) -> [u8; NODE_PTR_BYTES] {
        let mut out = [0; NODE_PTR_BYTES];
        out[0..6].copy_from_slice(&self.page.0.to_le_bytes()[..6]);
        out[6..8].copy_from_slice(&self.npages.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out[12..20].copy_from_slice(&self.birth.to_le_bytes());
        out[20..28].copy_from_slice(&self.weight.to_le_bytes());
        out
    }

    /// Any 28 bytes are a pointer; whether it leads anywhere shows when it is followed.
    #[inline]
    pub fn decode(bytes: &[u8; NODE_PTR_BYTES]) -> NodePtr {
        NodePtr {
            page: PageId(le48(bytes, 0)),
            npages: le16(bytes, 6),
            crc: le32(bytes, 8),
            birth: le64(bytes, 12),
            weight: le64(bytes, 20),
        }
    }
}

/// A whole tree, as a checkpoint's directory keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreeRoot {
    /// `None` is the empty tree.
    pub ptr: Option<NodePtr>,
    /// Levels of nodes: 0 in an empty tree, 1 where the root is a leaf.
    pub height: u8,
    pub entries: u64,
    /// Keys and values as the caller gave them.
    pub bytes: u64,
}

impl TreeRoot {
    pub const EMPTY: TreeRoot = TreeRoot { ptr: None, height: 0, entries: 0, bytes: 0 };

    pub fn encode(&self) -> [u8; TREE_ROOT_BYTES] {
        let mut out = [0; TREE_ROOT_BYTES];
        if let Some(ptr) = &self.ptr {
            out[..NODE_PTR_BYTES].copy_from_slice(&ptr.encode());
        }
        out[28] = self.height;
        out[32..40].copy_from_slice(&self.entries.to_le_bytes());
        out[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        out
    }

    /// The root that `bytes` say, or `None` where they contradict themselves.
    pub fn decode(bytes: &[u8; TREE_ROOT_BYTES]) -> Option<TreeRoot> {
        let ptr_bytes = bytes[..NODE_PTR_BYTES].first_chunk().expect("the slice has 28 bytes");
        let (height, entries, logical) = (bytes[28], le64(bytes, 32), le64(bytes, 40));
        if bytes[29..32] != [0; 3] {
            return None;
        }
        if height == 0 {
            let empty = ptr_bytes == &[0; NODE_PTR_BYTES] && entries == 0 && logical == 0;
            return empty.then_some(TreeRoot::EMPTY);
        }
        let ptr = NodePtr::decode(ptr_bytes);
        let sound = ptr.page.0 != 0 && ptr.npages != 0 && entries != 0;
        sound.then_some(TreeRoot { ptr: Some(ptr), height, entries, bytes: logical })
    }
}

/// The bytes of an extent or a part of one, cheap to hold and to clone: owned, or a piece of a mapping that is kept.
#[derive(Clone, Debug)]
pub struct PageBuf {
    held: Held,
    from: usize,
    to: usize,
}

#[derive(Clone, Debug)]
enum Held {
    Memory(Bytes),
    Map(MapBytes),
}

impl Held {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Held::Memory(bytes) => bytes,
            Held::Map(bytes) => bytes,
        }
    }
}

impl PageBuf {
    /// A part of these bytes that holds on to the same memory.
    ///
    /// # Panics
    /// If the range is outside.
    #[inline]
    pub fn slice(self, range: Range<usize>) -> PageBuf {
        assert!(range.start <= range.end && range.end <= self.to - self.from, "a slice outside its bytes");
        PageBuf { from: self.from + range.start, to: self.from + range.end, held: self.held }
    }

    /// Becomes a part of `whole`. From one part to another of the same memory nothing is counted up or down.
    ///
    /// # Panics
    /// If the range is outside.
    #[inline]
    pub(crate) fn set_slice(&mut self, whole: &PageBuf, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= whole.to - whole.from, "a slice outside its bytes");
        // Both are held, so what lies at the same place is the same.
        if !std::ptr::eq(self.held.bytes(), whole.held.bytes()) {
            self.held = whole.held.clone();
        }
        self.from = whole.from + range.start;
        self.to = whole.from + range.end;
    }

    /// The bytes on their own: as they are if they are in memory, else a copy, so that what is kept for long does not
    /// hold a mapping.
    pub fn into_bytes(self) -> Bytes {
        match self.held {
            Held::Memory(bytes) => bytes.slice(self.from..self.to),
            Held::Map(bytes) => Bytes::copy_from_slice(&bytes[self.from..self.to]),
        }
    }
}

impl From<Bytes> for PageBuf {
    fn from(bytes: Bytes) -> PageBuf {
        PageBuf { from: 0, to: bytes.len(), held: Held::Memory(bytes) }
    }
}

impl From<Vec<u8>> for PageBuf {
    fn from(bytes: Vec<u8>) -> PageBuf {
        Bytes::from(bytes).into()
    }
}

impl From<MapBytes> for PageBuf {
    #[inline]
    fn from(bytes: MapBytes) -> PageBuf {
        PageBuf { from: 0, to: bytes.len(), held: Held::Map(bytes) }
    }
}

impl Deref for PageBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.held.bytes()[self.from..self.to]
    }
}

/// Where a tree reads from: a mapped file, `pread`, or a test's vector. It verifies nothing itself.
pub trait PageSource {
    /// The bytes of `npages` pages from `first`, exactly.
    ///
    /// # Errors
    /// Where the source does not have them all, or the read fails.
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error>;

    /// Called before the first look at pages that [`is_verified`](PageSource::is_verified) denies, so that a mapped
    /// source can turn a fault that would kill the process into an error.
    ///
    /// # Errors
    /// Where the pages cannot be read.
    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        let _ = (first, npages);
        Ok(())
    }

    /// Whether the page passed its checksum since it was last written. A source that reads anew each time says no.
    fn is_verified(&self, page: PageId) -> bool;

    /// The page passed its checksum.
    fn set_verified(&self, page: PageId);
}

impl<S: PageSource + ?Sized> PageSource for &S {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        (**self).extent(first, npages)
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        (**self).probe(first, npages)
    }

    fn is_verified(&self, page: PageId) -> bool {
        (**self).is_verified(page)
    }

    fn set_verified(&self, page: PageId) {
        (**self).set_verified(page);
    }
}

impl<S: PageSource + ?Sized> PageSource for Arc<S> {
    fn extent(&self, first: PageId, npages: u32) -> Result<PageBuf, Error> {
        (**self).extent(first, npages)
    }

    fn probe(&self, first: PageId, npages: u32) -> Result<(), Error> {
        (**self).probe(first, npages)
    }

    fn is_verified(&self, page: PageId) -> bool {
        (**self).is_verified(page)
    }

    fn set_verified(&self, page: PageId) {
        (**self).set_verified(page);
    }
}

/// What a build of a tree writes through. After an error the whole build is void, its allocations too.
pub trait PageSink {
    /// Free pages in a row that nothing reachable uses.
    ///
    /// # Errors
    /// Where there is no room.
    fn allocate(&mut self, npages: u32) -> Result<PageId, Error>;

    /// The content of an extent that [`allocate`](PageSink::allocate) gave: whole pages.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn write(&mut self, first: PageId, bytes: Vec<u8>) -> Result<(), Error>;

    /// The new tree no longer reaches this extent, which checkpoint `birth` wrote.
    fn release(&mut self, first: PageId, npages: u32, birth: u64);
}

#[inline]
fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

#[inline]
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
fn le48(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(&bytes[at..at + 6]);
    u64::from_le_bytes(wide)
}

#[inline]
fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
