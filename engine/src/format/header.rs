// SPDX-License-Identifier: Apache-2.0
//! The header that every extent of a tree begins with.
//!
//! Owns      the 64 bytes of the header, and the table of page checksums behind it.
//! Holds     a header page carries its own checksum and those of all further pages of its extent, so that any page
//!           can be verified from the header page alone.
//! Never     reads a page, or knows what a node holds.
//!
//! ```text
//! 0 magic 4 | 4 kind | 5 level | 6 tree | 7 flags | 8 count 4 | 12 used 4 | 16 npages 2 | 18 prefix 2
//! 20 checksum of this page 4 | 24 page 8 | 32 birth 8 | 40 uuid 8 | 48 zeros 16 | 64 checksums 4 * (npages - 1)
//! ```

use super::{Fault, crc};
use crate::page::{PAGE_BYTES, PageId};

/// Bytes before the table of page checksums.
pub const HEADER_BYTES: usize = 64;
/// The most pages of one extent: the table of their checksums still fits its first page.
pub const EXTENT_PAGES_MAX: u16 = 1000;
/// The most pages of a leaf or branch; a blob's segment may have [`EXTENT_PAGES_MAX`].
pub const NODE_PAGES_MAX: u16 = 64;

const MAGIC: [u8; 4] = *b"CrnT";
/// Ends of cells are 4 bytes wide.
pub(super) const FLAG_WIDE: u8 = 1;
/// Some keys are long, and bits say which.
pub(super) const FLAG_LONG_KEYS: u8 = 2;
/// Some values are blobs, and bits say which.
pub(super) const FLAG_BLOBS: u8 = 4;
const FLAGS: u8 = FLAG_WIDE | FLAG_LONG_KEYS | FLAG_BLOBS;

const _: () = assert!(HEADER_BYTES + 4 * (EXTENT_PAGES_MAX as usize - 1) <= PAGE_BYTES);
const _: () = assert!(crc::HEADER_CRC_AT + 4 <= HEADER_BYTES);

/// What an extent holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Leaf,
    Branch,
    /// A segment of a blob.
    Blob,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Leaf => 1,
            Kind::Branch => 2,
            Kind::Blob => 3,
        }
    }
}

/// The fields of a header that say what follows; those that say where it lies are checked by [`Header::decode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// 0 in leaves and blobs.
    pub level: u8,
    pub tree: u8,
    pub(super) flags: u8,
    /// Entries of a leaf, children of a branch, 0 in a blob.
    pub count: u32,
    /// Bytes from the start of the extent to the end of its content; zeros follow.
    pub used: u32,
    pub npages: u16,
    /// Bytes that all keys of a node share.
    pub(super) prefix: u16,
    /// The header page's own checksum, as stated.
    pub crc: u32,
    pub page: PageId,
    pub birth: u64,
    /// Low bits of the file's uuid.
    pub uuid: u64,
}

impl Header {
    /// Reads a header and checks what can be checked without knowing who asks.
    ///
    /// # Errors
    /// A [`Fault`] that names the field.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Header, Fault> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Fault::new(
                "extent is shorter than a header",
                0,
                HEADER_BYTES as u64,
                bytes.len() as u64,
            ));
        };
        if head[..4] != MAGIC {
            let [want, got] = [u32_at(&MAGIC, 0), u32_at(head, 0)];
            return Err(Fault::new("magic", 0, want.into(), got.into()));
        }
        let kind = match head[4] {
            1 => Kind::Leaf,
            2 => Kind::Branch,
            3 => Kind::Blob,
            other => return Err(Fault::new("kind", 4, 1, other.into())),
        };
        let header = Header {
            kind,
            level: head[5],
            tree: head[6],
            flags: head[7],
            count: u32_at(head, 8),
            used: u32_at(head, 12),
            npages: u16_at(head, 16),
            prefix: u16_at(head, 18),
            crc: u32_at(head, 20),
            page: PageId::checked(u64_at(head, 24)).ok_or(Fault::new(
                "page number",
                24,
                PageId::MAX.get(),
                u64_at(head, 24),
            ))?,
            birth: u64_at(head, 32),
            uuid: u64_at(head, 40),
        };
        if header.flags & !FLAGS != 0 {
            return Err(Fault::new("flags", 7, FLAGS.into(), header.flags.into()));
        }
        let pages_max = if kind == Kind::Blob { EXTENT_PAGES_MAX } else { NODE_PAGES_MAX };
        if header.npages == 0 || header.npages > pages_max {
            return Err(Fault::new("page count", 16, pages_max.into(), header.npages.into()));
        }
        if header.used as usize > usize::from(header.npages) * PAGE_BYTES {
            let room = usize::from(header.npages) * PAGE_BYTES;
            return Err(Fault::new("used bytes", 12, room as u64, header.used.into()));
        }
        if (kind == Kind::Branch) != (header.level > 0) {
            return Err(Fault::new("level", 5, (kind == Kind::Branch).into(), header.level.into()));
        }
        if (kind == Kind::Blob) != (header.count == 0) {
            return Err(Fault::new("count", 8, (kind != Kind::Blob).into(), header.count.into()));
        }
        if head[48..] != [0; HEADER_BYTES - 48] {
            return Err(Fault::new("reserved bytes", 48, 0, 1));
        }
        Ok(header)
    }

    /// Whether a node refers to any blob, as a value or as the rest of a key.
    pub fn has_blobs(&self) -> bool {
        self.flags & (FLAG_LONG_KEYS | FLAG_BLOBS) != 0
    }

    /// Bytes of the extent.
    pub fn extent_bytes(&self) -> usize {
        usize::from(self.npages) * PAGE_BYTES
    }

    /// Where the content begins: behind the table of checksums.
    #[inline]
    pub fn body_at(&self) -> usize {
        body_at(self.npages)
    }
}

/// The checksum that the header page states for page `index` of its extent, counted from 0, which is not in the table.
pub fn page_crc(first_page: &[u8], index: usize) -> Option<u32> {
    let at = HEADER_BYTES + 4 * index.checked_sub(1)?;
    let bytes = first_page.get(at..at + 4)?;
    Some(u32_at(bytes, 0))
}

/// Checks every page of the extent that `bytes` begin with from what it says of itself: that it lies at `page` of the
/// file of `uuid`, and was written by checkpoint `birth_max` or one before it. `bytes` may be its header page alone,
/// or all of it and more; pages that are not there are not checked.
///
/// # Errors
/// A [`Fault`] that counts from the start of the extent.
pub fn check_extent(bytes: &[u8], uuid: u64, page: PageId, birth_max: u64) -> Result<Header, Fault> {
    let header = Header::decode(bytes)?;
    let Some(first) = bytes.get(..PAGE_BYTES) else {
        return Err(Fault::new("bytes of a header page", 0, PAGE_BYTES as u64, bytes.len() as u64));
    };
    for (what, at, expected, found) in [
        ("page number in a header", 24, page.get(), header.page.get()),
        ("uuid in a header", 40, uuid, header.uuid),
    ] {
        if expected != found {
            return Err(Fault::new(what, at, expected, found));
        }
    }
    if header.birth > birth_max {
        return Err(Fault::new("birth in a header", 32, birth_max, header.birth));
    }
    let sum = crc::header_page(crc::salt(uuid, page, header.birth), first);
    if sum != header.crc {
        return Err(Fault::new(
            "checksum of a header page",
            crc::HEADER_CRC_AT,
            header.crc.into(),
            sum.into(),
        ));
    }
    let pages = bytes.chunks_exact(PAGE_BYTES).enumerate().take(header.npages.into()).skip(1);
    for (index, bytes) in pages {
        let sum = crc::page(crc::salt(uuid, page.plus(index as u64), header.birth), bytes);
        let stated = page_crc(first, index).expect("the table of an extent is in its first page");
        if sum != stated {
            return Err(Fault::new("checksum of a page", index * PAGE_BYTES, stated.into(), sum.into()));
        }
    }
    Ok(header)
}

#[inline]
pub(super) fn body_at(npages: u16) -> usize {
    HEADER_BYTES + 4 * (usize::from(npages).saturating_sub(1))
}

/// How many pages an extent needs whose content, without the table of checksums, ends at `end`.
pub(crate) fn pages_for(end: usize) -> usize {
    (end.max(HEADER_BYTES) - 4).div_ceil(PAGE_BYTES - 4)
}

/// Writes the fields that `encode` and the blob's encoder share; those that say where it lies come with [`seal`].
pub(super) fn put_header(out: &mut [u8], kind: Kind, level: u8, tree: u8, npages: u16) {
    out[..4].copy_from_slice(&MAGIC);
    out[4] = kind.byte();
    out[5] = level;
    out[6] = tree;
    out[16..18].copy_from_slice(&npages.to_le_bytes());
}

/// Says in an encoded extent where it lies and sums its pages. Answers the checksum of the header page, which goes
/// into whatever points here.
///
/// # Panics
/// If `bytes` are not the whole pages that an encoder gave.
pub fn seal(bytes: &mut [u8], uuid: u64, page: PageId, birth: u64) -> u32 {
    assert!(!bytes.is_empty() && bytes.len().is_multiple_of(PAGE_BYTES), "an extent is whole pages");
    bytes[24..32].copy_from_slice(&page.get().to_le_bytes());
    bytes[32..40].copy_from_slice(&birth.to_le_bytes());
    bytes[40..48].copy_from_slice(&uuid.to_le_bytes());
    for index in 1..bytes.len() / PAGE_BYTES {
        let salt = crc::salt(uuid, page.plus(index as u64), birth);
        let sum = crc::page(salt, &bytes[index * PAGE_BYTES..][..PAGE_BYTES]);
        bytes[HEADER_BYTES + 4 * (index - 1)..][..4].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc::header_page(crc::salt(uuid, page, birth), &bytes[..PAGE_BYTES]);
    bytes[crc::HEADER_CRC_AT..crc::HEADER_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
    sum
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
