// SPDX-License-Identifier: Apache-2.0
//! The bytes of a snapshot stream: header, frames, trailer.
//!
//! Owns      the layout of the three, their checksums, and the digest that chains the frames.
//! Holds     1. magic, format and checksum of the header are where they are in every format to come, so that an
//!              older build refuses a newer stream by name and not as damage;
//!           2. all integers are little-endian, and decoding is total: a value or a refusal;
//!           3. header and trailer have one size each, and a frame says its own under a checksum, so a reader needs
//!              no more memory than the largest frame, whatever the bytes say.
//! Never     reads a page, or knows what is in one.
//!
//! ```text
//! header   0 magic 8 | 8 format 4 | 12 page bytes 4 | 16 required flags 8 | 24 uuid 8 | 32 seq 8 | 40 applied index 8
//!          48 applied term 8 | 56 stamp 8 | 64 high water 8 | 72 pages 8 | 80 owner's length 4 | 128 owner 512
//!          1020 checksum 4
//! frame    0 magic 4 | 4 npages 2 | 8 number 8 | 16 page 8 | 24 checksum of the pages 4 | 28 checksum of these 28 4
//!          32 pages
//! trailer  0 magic 8 | 8 uuid 8 | 16 seq 8 | 24 frames 8 | 32 pages 8 | 40 digest 4 | 44 trees 4
//!          64 roots, 56 each | 2044 checksum 4
//! ```
//! What is not named is zero.

use std::path::Path;

use bytes::Bytes;
use crc32fast::Hasher;

use crate::error::{Corruption, Error, FormatMismatch};
use crate::format::Fault;
use crate::format::header::EXTENT_PAGES_MAX;
use crate::page::{PAGE_BYTES, PageId, TREE_ROOT_BYTES, TreeRoot};
use crate::schema::TREES_MAX;
use crate::space::FIRST_DATA;
use crate::view::{CommitMeta, OWNER_META_BYTES_MAX};

/// The format that this build writes and reads.
pub const FORMAT: u32 = 1;

pub const HEADER_BYTES: usize = 1024;
pub const FRAME_HEADER_BYTES: usize = 32;
pub const TRAILER_BYTES: usize = 2048;

/// The most bytes of one frame: one extent of the largest size.
pub const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + EXTENT_PAGES_MAX as usize * PAGE_BYTES;

/// How the two things that follow the header begin.
pub const FRAME_MAGIC: &[u8; 4] = b"CFRM";
pub const TRAILER_MAGIC: &[u8; 8] = b"CAIRNEND";

const HEADER_MAGIC: &[u8; 8] = b"CAIRNSNP";
const OWNER_AT: usize = 128;
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const FRAME_CRC_AT: usize = FRAME_HEADER_BYTES - 4;
const ROOTS_AT: usize = 64;
/// Tree id, seven zeros, root.
const ROOT_STRIDE: usize = 8 + TREE_ROOT_BYTES;
const TRAILER_CRC_AT: usize = TRAILER_BYTES - 4;

const _: () = assert!(OWNER_AT + OWNER_META_BYTES_MAX <= HEADER_CRC_AT, "the owner's part fits the header");
const _: () = assert!(ROOTS_AT + TREES_MAX * ROOT_STRIDE <= TRAILER_CRC_AT, "all roots fit the trailer");

/// Why a header cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not what was sent.
    Broken(Fault),
    /// Whole, and not for this build.
    Other { what: &'static str, found: u64, supported: u64 },
}

impl Refused {
    /// As the error of a header that was found in `file`.
    pub(super) fn in_file(self, file: &Path) -> Error {
        match self {
            Refused::Broken(fault) => {
                let damage = Corruption::new(file, fault.what);
                let (expected, found) = (fault.expected, fault.found);
                damage.mismatch(format_args!("{expected:#x}"), format_args!("{found:#x}")).into()
            }
            Refused::Other { what, found, supported } => {
                let (found, supported) = (found.to_string(), supported.to_string());
                FormatMismatch { file: file.to_path_buf(), what: what.into(), found, supported }.into()
            }
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Broken(fault)
    }
}

/// Which checkpoint a stream is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Of the file that the pages are from; their checksums are salted with it.
    pub uuid: u64,
    /// Number of the checkpoint.
    pub seq: u64,
    pub meta: CommitMeta,
    pub stamp: u64,
    /// Pages of the file up to the last in use.
    pub high_water: u64,
    /// Pages that all frames together hold.
    pub pages: u64,
}

impl Header {
    /// # Panics
    /// If the owner's part is larger than a commit can have.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.meta.owner.len() <= OWNER_META_BYTES_MAX);
        let mut out = vec![0; HEADER_BYTES];
        out[0..8].copy_from_slice(HEADER_MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        let fields = [
            self.uuid,
            self.seq,
            self.meta.applied_index,
            self.meta.applied_term,
            self.stamp,
            self.high_water,
            self.pages,
            self.meta.owner.len() as u64,
        ];
        for (i, field) in fields.into_iter().enumerate() {
            put64(&mut out, 24 + i * 8, field);
        }
        out[OWNER_AT..OWNER_AT + self.meta.owner.len()].copy_from_slice(&self.meta.owner);
        let crc = crc32fast::hash(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// [`Refused`], which tells a newer format from damage.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Refused> {
        if &bytes[0..8] != HEADER_MAGIC {
            let [want, found] = [u64_at(HEADER_MAGIC, 0), u64_at(bytes, 0)];
            return Err(Fault::new("magic of a snapshot", 0, want, found).into());
        }
        check_crc("checksum of a snapshot's header", bytes, HEADER_CRC_AT)?;
        for (what, found, supported) in [
            ("format of a snapshot", u32_at(bytes, 8).into(), u64::from(FORMAT)),
            ("page size of a snapshot", u32_at(bytes, 12).into(), PAGE_BYTES as u64),
            ("required flags of a snapshot", u64_at(bytes, 16), 0),
        ] {
            if found != supported {
                return Err(Refused::Other { what, found, supported });
            }
        }
        let field = |i: usize| u64_at(bytes, 24 + i * 8);
        let (seq, high_water, pages, owner_len) = (field(1), field(5), field(6), field(7));
        let span = FIRST_DATA..=PageId::MAX.get();
        if seq == 0 {
            return Err(Fault::new("number of a checkpoint", 32, 1, 0).into());
        }
        if !span.contains(&high_water) {
            return Err(Fault::new("high water of a snapshot", 64, *span.end(), high_water).into());
        }
        if pages > high_water - FIRST_DATA {
            return Err(Fault::new("pages of a snapshot", 72, high_water - FIRST_DATA, pages).into());
        }
        if owner_len > OWNER_META_BYTES_MAX as u64 {
            return Err(Fault::new("length of owner meta", 80, OWNER_META_BYTES_MAX as u64, owner_len).into());
        }
        let owner = Bytes::copy_from_slice(&bytes[OWNER_AT..OWNER_AT + owner_len as usize]);
        let meta = CommitMeta { applied_index: field(2), applied_term: field(3), owner };
        Ok(Header { uuid: field(0), seq, meta, stamp: field(4), high_water, pages })
    }
}

/// What comes before the pages of a frame: neighbours in the file, and whole extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// From 0.
    pub number: u64,
    pub page: PageId,
    pub npages: u16,
    /// Of the pages.
    pub crc: u32,
}

impl FrameHeader {
    /// The header of frame `number` of the snapshot `of`, whose pages are `bytes`.
    ///
    /// # Panics
    /// If they are no pages, or more than a frame holds.
    pub fn new(of: &Header, number: u64, page: PageId, bytes: &[u8]) -> FrameHeader {
        assert!(bytes.len().is_multiple_of(PAGE_BYTES) && !bytes.is_empty(), "a frame is whole pages");
        let npages = u16::try_from(bytes.len() / PAGE_BYTES).expect("a frame's pages are counted in 16 bits");
        assert!(npages <= EXTENT_PAGES_MAX, "a frame of {npages} pages");
        FrameHeader { number, page, npages, crc: salted(of, bytes) }
    }

    pub fn encode(&self, of: &Header) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(FRAME_MAGIC);
        out[4..6].copy_from_slice(&self.npages.to_le_bytes());
        put64(&mut out, 8, self.number);
        put64(&mut out, 16, self.page.get());
        out[24..28].copy_from_slice(&self.crc.to_le_bytes());
        let crc = salted(of, &out[..FRAME_CRC_AT]);
        out[FRAME_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// A [`Fault`], also for the frame of another snapshot and for pages outside this one's file.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES], of: &Header) -> Result<FrameHeader, Fault> {
        if &bytes[0..4] != FRAME_MAGIC {
            let [want, found] = [u32_at(FRAME_MAGIC, 0), u32_at(bytes, 0)];
            return Err(Fault::new("magic of a frame", 0, want.into(), found.into()));
        }
        let (stated, found) = (u32_at(bytes, FRAME_CRC_AT), salted(of, &bytes[..FRAME_CRC_AT]));
        if stated != found {
            return Err(Fault::new(
                "checksum of a frame's header",
                FRAME_CRC_AT,
                stated.into(),
                found.into(),
            ));
        }
        let npages = u16::from_le_bytes([bytes[4], bytes[5]]);
        if npages == 0 || npages > EXTENT_PAGES_MAX {
            return Err(Fault::new("pages of a frame", 4, EXTENT_PAGES_MAX.into(), npages.into()));
        }
        let page = u64_at(bytes, 16);
        let end = page.saturating_add(npages.into());
        let inside = page >= FIRST_DATA && end <= of.high_water;
        let Some(page) = PageId::checked(page).filter(|_| inside) else {
            return Err(Fault::new("place of a frame", 16, of.high_water, end));
        };
        Ok(FrameHeader { number: u64_at(bytes, 8), page, npages, crc: u32_at(bytes, 24) })
    }

    /// Compares the pages with what the header says of them.
    ///
    /// # Errors
    /// A [`Fault`].
    pub fn check(&self, of: &Header, pages: &[u8]) -> Result<(), Fault> {
        match salted(of, pages) {
            found if found == self.crc => Ok(()),
            found => {
                Err(Fault::new("checksum of a frame", FRAME_HEADER_BYTES, self.crc.into(), found.into()))
            }
        }
    }

    /// Bytes of the pages.
    pub fn bytes(&self) -> usize {
        usize::from(self.npages) * PAGE_BYTES
    }
}

/// The digest after a frame, given the one before it; that before the first is 0.
pub fn digest(before: u32, of: &Header, frame: &FrameHeader) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&frame.encode(of));
    hasher.finalize()
}

/// What a stream ends with: how much there was, and the roots, from which every page can be checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trailer {
    pub frames: u64,
    pub pages: u64,
    pub digest: u32,
    /// Tree id and root.
    pub roots: Vec<(u8, TreeRoot)>,
}

impl Trailer {
    /// # Panics
    /// If there are more trees than a store can have.
    pub fn encode(&self, of: &Header) -> Vec<u8> {
        assert!(self.roots.len() <= TREES_MAX);
        let mut out = vec![0; TRAILER_BYTES];
        out[0..8].copy_from_slice(TRAILER_MAGIC);
        for (i, field) in [of.uuid, of.seq, self.frames, self.pages].into_iter().enumerate() {
            put64(&mut out, 8 + i * 8, field);
        }
        out[40..44].copy_from_slice(&self.digest.to_le_bytes());
        out[44..48].copy_from_slice(&(self.roots.len() as u32).to_le_bytes());
        for (i, (id, root)) in self.roots.iter().enumerate() {
            let at = ROOTS_AT + i * ROOT_STRIDE;
            out[at] = *id;
            out[at + 8..at + ROOT_STRIDE].copy_from_slice(&root.encode());
        }
        let crc = crc32fast::hash(&out[..TRAILER_CRC_AT]);
        out[TRAILER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// # Errors
    /// A [`Fault`], also for the trailer of another snapshot.
    pub fn decode(bytes: &[u8; TRAILER_BYTES], of: &Header) -> Result<Trailer, Fault> {
        if &bytes[0..8] != TRAILER_MAGIC {
            return Err(Fault::new("magic of a trailer", 0, u64_at(TRAILER_MAGIC, 0), u64_at(bytes, 0)));
        }
        check_crc("checksum of a trailer", bytes, TRAILER_CRC_AT)?;
        let (uuid, seq, trees) = (u64_at(bytes, 8), u64_at(bytes, 16), u32_at(bytes, 44));
        for (what, at, expected, found) in
            [("uuid in a trailer", 8, of.uuid, uuid), ("checkpoint in a trailer", 16, of.seq, seq)]
        {
            if expected != found {
                return Err(Fault::new(what, at, expected, found));
            }
        }
        if trees as usize > TREES_MAX {
            return Err(Fault::new("trees of a trailer", 44, TREES_MAX as u64, trees.into()));
        }
        let mut roots: Vec<(u8, TreeRoot)> = Vec::with_capacity(trees as usize);
        for i in 0..trees as usize {
            let at = ROOTS_AT + i * ROOT_STRIDE;
            let root = bytes[at + 8..at + ROOT_STRIDE].first_chunk().and_then(TreeRoot::decode);
            let twice = roots.iter().any(|(id, _)| *id == bytes[at]);
            let Some(root) = root.filter(|_| !twice) else {
                return Err(Fault::new("root in a trailer", at, i as u64, bytes[at].into()));
            };
            roots.push((bytes[at], root));
        }
        Ok(Trailer { frames: u64_at(bytes, 24), pages: u64_at(bytes, 32), digest: u32_at(bytes, 40), roots })
    }
}

/// A checksum under which the bytes of one snapshot are never taken for those of another.
fn salted(of: &Header, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&of.uuid.to_le_bytes());
    hasher.update(&of.seq.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn check_crc(what: &'static str, bytes: &[u8], at: usize) -> Result<(), Fault> {
    let (stated, found) = (u32_at(bytes, at), crc32fast::hash(&bytes[..at]));
    if stated == found { Ok(()) } else { Err(Fault::new(what, at, stated.into(), found.into())) }
}

fn put64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("inside what has a fixed size"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("inside what has a fixed size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::NodePtr;

    fn header() -> Header {
        let meta = CommitMeta { applied_index: 42, applied_term: 3, owner: Bytes::from_static(b"owner") };
        Header { uuid: 0x1122_3344_5566_7788, seq: 6, meta, stamp: 99, high_water: 85, pages: 2 }
    }

    fn stream() -> Vec<u8> {
        let header = header();
        let frame = FrameHeader::new(&header, 0, PageId::new(77), &[0xa5; 2 * PAGE_BYTES]);
        let ptr = NodePtr { page: PageId::new(77), npages: 2, crc: 0xdead_beef, birth: 5, weight: 1000 };
        let trailer = Trailer {
            frames: 1,
            pages: 2,
            digest: digest(0, &header, &frame),
            roots: vec![
                (1, TreeRoot { ptr: Some(ptr), height: 2, entries: 1000, bytes: 64_000 }),
                (2, TreeRoot::EMPTY),
            ],
        };
        [header.encode(), frame.encode(&header).to_vec(), trailer.encode(&header)].concat()
    }

    #[test]
    fn format_1_is_these_bytes_for_ever() {
        let golden = include_bytes!("../../tests/golden/snapshot-1.bin");
        assert!(stream()[..] == golden[..], "the layout of format 1 changed");
        let (head, rest) = golden.split_first_chunk().expect("a header");
        assert_eq!(Header::decode(head), Ok(header()));
        let (frame, rest) = rest.split_first_chunk().expect("a frame");
        let frame = FrameHeader::decode(frame, &header()).expect("a frame");
        assert_eq!((frame.page, frame.npages, frame.number), (PageId::new(77), 2, 0));
        let trailer = Trailer::decode(rest.first_chunk().expect("a trailer"), &header()).expect("a trailer");
        assert_eq!((trailer.digest, trailer.roots.len()), (digest(0, &header(), &frame), 2));
    }

    #[test]
    fn a_newer_format_and_an_unknown_flag_are_refused_by_name() {
        for (at, what, found, supported) in [
            (8, "format of a snapshot", 0x41, 1),
            (17, "required flags of a snapshot", 0x4000, 0),
            (13, "page size of a snapshot", 0x5000, 4096),
        ] {
            let mut bytes: [u8; HEADER_BYTES] = header().encode().try_into().expect("a header");
            bytes[at] ^= 0x40;
            let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
            bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Header::decode(&bytes), Err(Refused::Other { what, found, supported }));
        }
    }
}
