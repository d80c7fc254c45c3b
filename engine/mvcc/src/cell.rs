// SPDX-License-Identifier: Apache-2.0
//! The cell of a key in the index: its newest revisions, and what a write must know of the newest one.
//!
//! Owns      the packing: flags; the newest revision; of a live key create revision, version, size and
//!           lease; then up to 63 older revisions, newest first, as differences.
//! Holds     1. the first byte alone says whether the key lives, which is its weight;
//!           2. a cell that misses older revisions says so, and the oldest it has leads to them in `hist`;
//!           3. a write drops what no read may ask for: below `floor` all but the newest revision.
//! Never     reads another tree.

use crate::outcome::Revision;
use crate::varint;

/// Revisions of a key that its cell keeps; older ones hang on the links of `hist`.
pub(crate) const REVISIONS_MAX: usize = 64;

const OLDER_MAX: usize = REVISIONS_MAX - 1;
const _: () = assert!(OLDER_MAX < 0x80, "the count of older revisions is one byte");

const LIVE: u8 = 1;
const MORE: u8 = 2;

/// What the newest revision of a live key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub(crate) create: i64,
    pub(crate) version: i64,
    /// Bytes of its record in the tree `rev`.
    pub(crate) size: u64,
    pub(crate) lease: i64,
}

/// A cell, its older revisions still packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) newest: Revision,
    /// `None` if the newest revision is a tombstone.
    pub(crate) life: Option<Life>,
    more: bool,
    older: &'a [u8],
}

/// Which revision of a key a reader at some revision sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// None: the key is not there.
    Absent,
    Newest(Life),
    Older(Revision),
    /// One before this, the oldest revision in the cell.
    Before(Revision),
}

/// One revision of a key other than the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Past {
    revision: Revision,
    tombstone: bool,
}

/// What an entry of the index weighs: live keys are counted.
pub(crate) fn weight(_: &[u8], cell: &[u8]) -> u64 {
    u64::from(cell.first().is_some_and(|flags| flags & LIVE != 0))
}

impl<'a> Cell<'a> {
    /// `None` if the bytes are not a cell. The older revisions are checked when they are read.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Cell<'a>> {
        let (&flags, mut rest) = bytes.split_first()?;
        let mut number = || varint::take(&mut rest);
        let newest = revision(number()?, number()?)?;
        let life = if flags & LIVE != 0 {
            let create = newest.main.checked_sub_unsigned(number()?).filter(|&c| c > 0)?;
            let version = i64::try_from(number()?).ok()?;
            Some(Life { create, version, size: number()?, lease: varint::unzigzag(number()?) })
        } else {
            None
        };
        (flags & !(LIVE | MORE) == 0).then_some(Cell { newest, life, more: flags & MORE != 0, older: rest })
    }

    fn pasts(&self) -> Option<Pasts<'a>> {
        let (&left, rest) = self.older.split_first()?;
        Some(Pasts { rest, left, newer: self.newest.main })
    }

    /// What a reader at `at` sees; `None` if the cell is damaged.
    pub(crate) fn seen(&self, at: Revision) -> Option<Seen> {
        if self.newest <= at {
            return Some(self.life.map_or(Seen::Absent, Seen::Newest));
        }
        let mut pasts = self.pasts()?;
        let mut oldest = self.newest;
        while pasts.left > 0 {
            let past = pasts.next()?;
            if past.revision <= at {
                return Some(if past.tombstone { Seen::Absent } else { Seen::Older(past.revision) });
            }
            oldest = past.revision;
        }
        Some(if self.more { Seen::Before(oldest) } else { Seen::Absent })
    }
}

fn revision(main: u64, sub: u64) -> Option<Revision> {
    Some(Revision { main: i64::try_from(main).ok()?, sub: i64::try_from(sub).ok()? })
}

/// The older revisions, newest first.
struct Pasts<'a> {
    rest: &'a [u8],
    left: u8,
    newer: i64,
}

impl Pasts<'_> {
    /// The next one; `None` if there is none or the cell is damaged.
    fn next(&mut self) -> Option<Past> {
        self.left = self.left.checked_sub(1)?;
        let word = varint::take(&mut self.rest)?;
        let sub = if word & 2 != 0 { varint::take(&mut self.rest)? } else { 0 };
        self.newer = self.newer.checked_sub_unsigned(word >> 2)?;
        let revision = revision(u64::try_from(self.newer).ok()?, sub)?;
        Some(Past { revision, tombstone: word & 1 != 0 })
    }
}

/// The cell of a key after a change at `newest`; `life` is `None` if the change is a delete. `floor` is
/// the lowest revision that anyone may still read at. `None` if the cell before is damaged.
pub(crate) fn after(
    before: Option<&Cell<'_>>,
    newest: Revision,
    life: Option<Life>,
    floor: i64,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(24 + before.map_or(0, |cell| cell.older.len() + 8));
    out.push(if life.is_some() { LIVE } else { 0 });
    varint::put(&mut out, newest.main as u64);
    varint::put(&mut out, newest.sub as u64);
    if let Some(life) = life {
        varint::put(&mut out, newest.main.abs_diff(life.create));
        varint::put(&mut out, life.version as u64);
        varint::put(&mut out, life.size);
        varint::put(&mut out, varint::zigzag(life.lease));
    }
    let count_at = out.len();
    out.push(0);
    let Some(cell) = before else { return Some(out) };

    let mut pasts = cell.pasts()?;
    let mut past = Past { revision: cell.newest, tombstone: cell.life.is_none() };
    let mut newer = newest.main;
    let mut count = 0;
    let more = loop {
        let unread = past.revision.main <= floor;
        if unread && past.tombstone {
            break false;
        }
        if count == OLDER_MAX {
            break true;
        }
        let sub = past.revision.sub;
        varint::put(
            &mut out,
            newer.abs_diff(past.revision.main) << 2 | u64::from(sub != 0) << 1 | u64::from(past.tombstone),
        );
        if sub != 0 {
            varint::put(&mut out, sub as u64);
        }
        newer = past.revision.main;
        count += 1;
        if unread {
            break false;
        }
        if pasts.left == 0 {
            break cell.more;
        }
        past = pasts.next()?;
    };
    out[count_at] = count as u8;
    out[0] |= if more { MORE } else { 0 };
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(create: i64, version: i64) -> Option<Life> {
        Some(Life { create, version, size: 200, lease: -7 })
    }

    /// Cells of a key that is put at each revision of `2..=last`, but deleted at each multiple of ten.
    fn history(last: i64, floor: i64) -> Vec<u8> {
        let mut bytes: Option<Vec<u8>> = None;
        for main in 2..=last {
            let before = bytes.as_deref().map(|b| Cell::decode(b).expect("a cell"));
            let life = if main % 10 == 0 { None } else { life(main / 10 * 10 + 1, main % 10) };
            let floor = floor.min(main - 1);
            bytes = after(before.as_ref(), Revision::new(main, main % 3), life, floor);
        }
        bytes.expect("no cell is damaged")
    }

    #[test]
    fn each_revision_in_the_cell_is_seen_from_it_to_the_next() {
        let bytes = history(65, -1);
        let cell = Cell::decode(&bytes).expect("a cell");
        assert_eq!((cell.newest, cell.life), (Revision::new(65, 2), life(61, 5)));
        for main in 2..65 {
            let want = match main % 10 {
                0 => Seen::Absent,
                _ => Seen::Older(Revision::new(main, main % 3)),
            };
            assert_eq!(cell.seen(Revision::end_of(main)), Some(want), "at {main}");
        }
        assert_eq!(cell.seen(Revision::end_of(1)), Some(Seen::Absent), "nothing is missing");
        assert_eq!(cell.seen(Revision::new(65, 1)), Some(Seen::Older(Revision::new(64, 1))), "between subs");
        assert_eq!(cell.seen(Revision::end_of(65)), Some(Seen::Newest(life(61, 5).expect("alive"))));
        assert_eq!(weight(b"", &bytes), 1);
        assert_eq!(weight(b"", &history(60, -1)), 0);
    }

    #[test]
    fn a_full_cell_leads_on_from_its_oldest_revision() {
        let bytes = history(200, -1);
        let cell = Cell::decode(&bytes).expect("a cell");
        assert!(bytes.len() < 200, "{} bytes", bytes.len());
        let oldest = 200 - OLDER_MAX as i64;
        assert_eq!(cell.seen(Revision::end_of(oldest)), Some(Seen::Older(Revision::new(oldest, oldest % 3))));
        let before = Seen::Before(Revision::new(oldest, oldest % 3));
        assert_eq!(cell.seen(Revision::end_of(oldest - 1)), Some(before));
    }

    #[test]
    fn below_the_floor_only_the_newest_revision_stays_and_no_tombstone() {
        let bytes = history(39, 33);
        let cell = Cell::decode(&bytes).expect("a cell");
        assert_eq!(cell.seen(Revision::end_of(33)), Some(Seen::Older(Revision::new(33, 0))));
        assert_eq!(cell.seen(Revision::end_of(32)), Some(Seen::Absent));
        assert!(bytes.len() < history(39, -1).len());
        let bytes = history(39, 30);
        let cell = Cell::decode(&bytes).expect("a cell");
        assert_eq!(cell.seen(Revision::end_of(31)), Some(Seen::Older(Revision::new(31, 1))));
        assert_eq!(cell.seen(Revision::end_of(30)), Some(Seen::Absent));
        assert_eq!(cell.pasts().map(|p| p.left), Some(8));
    }

    #[test]
    fn damaged_cells_are_noticed() {
        let bytes = history(39, -1);
        for cut in 0..bytes.len() {
            let seen = Cell::decode(&bytes[..cut]).and_then(|cell| cell.seen(Revision::end_of(1)));
            assert_eq!(seen, None, "cut at {cut}");
        }
        assert!(Cell::decode(&[0x80, 2, 0, 0]).is_none(), "an unknown flag");
    }
}
