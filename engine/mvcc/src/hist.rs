// SPDX-License-Identifier: Apache-2.0
//! Entries of the tree `hist`: which key a revision changed, and where the change before it is.
//!
//! Owns      the packing: flags, previous revision, create revision, version, then the key to the end.
//! Holds     1. an entry is enough to know the event but for its value;
//!           2. a creating put leads to the tombstone before it, if that was still known when it was made.
//! Never     says whether that tombstone was known: two stores may differ in it, so no answer depends on it.

use crate::outcome::Revision;
use crate::varint;

const DELETE: u8 = 1;
const PREV: u8 = 2;
const CREATE: u8 = 4;

/// One change of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) delete: bool,
    /// The change of this key before; of a creating put a tombstone.
    pub(crate) prev: Option<Revision>,
    pub(crate) create: i64,
    pub(crate) version: i64,
}

impl<'a> Entry<'a> {
    /// Whether the change made a key that was not there.
    pub(crate) fn creates(&self) -> bool {
        !self.delete && self.version == 1
    }

    pub(crate) fn encode(&self, at: Revision) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + 20);
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        out.push(flag(self.delete, DELETE) | flag(self.prev.is_some(), PREV) | flag(self.creates(), CREATE));
        if let Some(prev) = self.prev {
            varint::put(&mut out, at.main.abs_diff(prev.main));
            varint::put(&mut out, prev.sub as u64);
        }
        if !self.creates() {
            varint::put(&mut out, at.main.abs_diff(self.create));
            varint::put(&mut out, self.version as u64);
        }
        out.extend_from_slice(self.key);
        out
    }

    /// `None` if the bytes are not an entry of revision `at`.
    pub(crate) fn decode(at: Revision, bytes: &'a [u8]) -> Option<Entry<'a>> {
        let (&flags, mut rest) = bytes.split_first()?;
        if flags & !(DELETE | PREV | CREATE) != 0 || flags & (DELETE | CREATE) == DELETE | CREATE {
            return None;
        }
        let mut number = || varint::take(&mut rest);
        let prev = if flags & PREV != 0 {
            let main = at.main.checked_sub_unsigned(number()?)?;
            let prev = Revision { main, sub: i64::try_from(number()?).ok()? };
            Some(prev).filter(|&prev| prev < at && prev.main > 0)?.into()
        } else {
            None
        };
        let (create, version) = if flags & CREATE != 0 {
            (at.main, 1)
        } else {
            (at.main.checked_sub_unsigned(number()?)?, i64::try_from(number()?).ok()?)
        };
        Some(Entry { key: rest, delete: flags & DELETE != 0, prev, create, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_damaged_ones_do_not() {
        let at = Revision::new(300, 5);
        let prev = Some(Revision::new(300, 4));
        for (delete, prev, create, version) in [
            (false, None, 300, 1),
            (false, prev, 300, 1),
            (false, prev, 2, 200),
            (true, prev, 2, 200),
            (true, Some(Revision::new(2, 1 << 40)), 2, 1),
        ] {
            let entry = Entry { key: b"some key", delete, prev, create, version };
            let bytes = entry.encode(at);
            assert_eq!(Entry::decode(at, &bytes), Some(entry));
        }
        assert_eq!(Entry::decode(at, &[]), None);
        assert_eq!(Entry::decode(at, &[DELETE | CREATE, b'k']), None);
        assert_eq!(Entry::decode(at, &[PREV | CREATE, 0, 5, b'k']), None, "a link to itself");
        assert_eq!(Entry::decode(at, &[PREV | CREATE, 0x80]), None, "cut short");
    }
}
