// SPDX-License-Identifier: Apache-2.0
//! Blobs: values and tails of keys that are too large for their node.
//!
//! Owns      the reference to a blob and the layout of its segments.
//! Holds     a blob is a chain of extents, each of which holds at least one byte and says how many follow it, so
//!           that the rest gets shorter with each step and no chain can loop.
//! Never     reads a page.
//!
//! ```text
//! header 64 | checksums 4 * (npages - 1) | reference to the next segment 24, or zeros | bytes | zeros
//! ```
//! A segment is at most [`EXTENT_PAGES_MAX`] pages, so that no blob needs 4 GiB of file in a row.

use super::Fault;
use super::header::{EXTENT_PAGES_MAX, HEADER_BYTES, Header, Kind, pages_for, put_header};
use crate::page::{PAGE_BYTES, PageId};

/// Bytes of a [`BlobRef`] on disk.
pub const BLOB_REF_BYTES: usize = 24;

/// The most bytes that one segment holds.
pub const SEGMENT_BYTES_MAX: usize = EXTENT_PAGES_MAX as usize * PAGE_BYTES
    - (HEADER_BYTES + 4 * (EXTENT_PAGES_MAX as usize - 1))
    - BLOB_REF_BYTES;

/// Where a blob begins, and how much of it there is from there on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobRef {
    pub len: u32,
    pub page: PageId,
    pub npages: u16,
    /// The checksum that the segment's header page states of itself.
    pub crc: u32,
    pub birth: u64,
}

impl BlobRef {
    pub fn encode(&self) -> [u8; BLOB_REF_BYTES] {
        let mut out = [0; BLOB_REF_BYTES];
        out[0..4].copy_from_slice(&self.len.to_le_bytes());
        out[4..10].copy_from_slice(&self.page.get().to_le_bytes()[..6]);
        out[10..12].copy_from_slice(&self.npages.to_le_bytes());
        out[12..16].copy_from_slice(&self.crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.birth.to_le_bytes());
        out
    }

    /// Any 24 bytes are a reference; whether it leads anywhere shows when it is followed.
    pub fn decode(bytes: &[u8; BLOB_REF_BYTES]) -> BlobRef {
        let [l0, l1, l2, l3, p0, p1, p2, p3, p4, p5, n0, n1, c0, c1, c2, c3, birth @ ..] = *bytes;
        BlobRef {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            page: PageId::new(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, 0, 0])),
            npages: u16::from_le_bytes([n0, n1]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            birth: u64::from_le_bytes(birth),
        }
    }
}

/// The content of one segment: where its bytes lie in the extent, and what follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub bytes: std::ops::Range<usize>,
    pub next: Option<BlobRef>,
}

impl Segment {
    /// How many bytes of a blob a segment and those after it hold, as the segment itself says.
    ///
    /// # Errors
    /// A [`Fault`] where it holds none.
    pub fn stated_len(header: &Header, extent: &[u8]) -> Result<u32, Fault> {
        let at = header.body_at();
        let from = at + BLOB_REF_BYTES;
        let used = header.used as usize;
        let cell = extent.get(at..from).and_then(|cell| cell.try_into().ok());
        let Some(cell) = cell.filter(|_| header.kind == Kind::Blob && used > from) else {
            return Err(Fault::new("bytes of a blob", 12, from as u64 + 1, used as u64));
        };
        let held = u32::try_from(used - from).expect("the content of an extent is less than 4 GiB");
        Ok(held.saturating_add(BlobRef::decode(cell).len))
    }

    /// Reads a segment that shall hold the next of `len` bytes; `extent` is good up to the end of the reference.
    ///
    /// # Errors
    /// A [`Fault`] where it holds none, or more, or where what follows does not add up to `len`.
    pub fn decode(header: &Header, extent: &[u8], len: u32) -> Result<Segment, Fault> {
        let at = header.body_at();
        let Some(cell) = extent.get(at..at + BLOB_REF_BYTES).and_then(|cell| cell.try_into().ok()) else {
            return Err(Fault::new("blob reference", at, BLOB_REF_BYTES as u64, extent.len() as u64));
        };
        let from = at + BLOB_REF_BYTES;
        let used = header.used as usize;
        if header.kind != Kind::Blob || used <= from || used > extent.len() {
            return Err(Fault::new("bytes of a blob", 12, from as u64 + 1, used as u64));
        }
        let next = (cell != [0; BLOB_REF_BYTES]).then(|| BlobRef::decode(&cell));
        let held = (used - from) as u64 + next.map_or(0, |next| next.len.into());
        if held != u64::from(len) || next.is_some_and(|next| next.len == 0) {
            return Err(Fault::new("length of a blob", at, len.into(), held));
        }
        Ok(Segment { bytes: from..used, next })
    }
}

/// Where the bytes of a segment of `npages` pages begin.
pub fn segment_bytes_at(npages: u16) -> usize {
    HEADER_BYTES + 4 * (usize::from(npages).saturating_sub(1)) + BLOB_REF_BYTES
}

/// Encodes one segment; [`seal`](super::header::seal) then says where it lies.
///
/// # Panics
/// If `bytes` are empty or more than [`SEGMENT_BYTES_MAX`].
pub(crate) fn encode_segment(tree: u8, bytes: &[u8], next: Option<&BlobRef>) -> Vec<u8> {
    assert!(!bytes.is_empty() && bytes.len() <= SEGMENT_BYTES_MAX, "a segment of {} bytes", bytes.len());
    let npages = pages_for(HEADER_BYTES + BLOB_REF_BYTES + bytes.len());
    let npages = u16::try_from(npages).expect("a segment's pages fit its header");
    let from = segment_bytes_at(npages);
    let used = from + bytes.len();
    let mut out = vec![0; usize::from(npages) * PAGE_BYTES];
    put_header(&mut out, Kind::Blob, 0, tree, npages);
    out[12..16].copy_from_slice(&u32::try_from(used).expect("a segment is at most 4 MB").to_le_bytes());
    if let Some(next) = next {
        out[from - BLOB_REF_BYTES..from].copy_from_slice(&next.encode());
    }
    out[from..used].copy_from_slice(bytes);
    out
}
