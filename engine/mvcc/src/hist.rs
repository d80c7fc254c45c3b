// SPDX-License-Identifier: Apache-2.0
//! Entries of the tree `hist`: which key a revision changed, and where the change before it is.
//!
//! Owns      the packing: flags, previous revision, create revision, version, then the key to the end; and which
//!           entries have one.
//! Holds     1. an entry is enough to know the event but for its value, and where the record of a put is short,
//!              but for its key, which is read there at hardly more cost than here;
//!           2. a delete has its key: its record is taken out before it is;
//!           3. a creating put leads to the tombstone before it, if that was still known when it was made.
//! Never     says whether that tombstone was known: two stores may differ in it, so no answer depends on it.

use crate::outcome::Revision;
use crate::varint;

const DELETE: u8 = 1;
const PREV: u8 = 2;
const CREATE: u8 = 4;
const KEY_IN_RECORD: u8 = 8;

/// The largest record that is read for its key: a walk over the history reads about as much as if the keys
/// stood in it, and a store of small pairs has each key once less.
pub(crate) const SHORT_RECORD_BYTES: usize = 256;

/// One change of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    /// `None` if it is to be read in the record of the same revision.
    pub(crate) key: Option<&'a [u8]>,
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
        assert!(self.key.is_some() || !self.delete, "a delete has its key");
        let key = self.key.unwrap_or_default();
        let mut out = Vec::with_capacity(key.len() + 20);
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let kind = flag(self.delete, DELETE) | flag(self.creates(), CREATE);
        out.push(kind | flag(self.prev.is_some(), PREV) | flag(self.key.is_none(), KEY_IN_RECORD));
        if let Some(prev) = self.prev {
            varint::put(&mut out, at.main.abs_diff(prev.main));
            varint::put(&mut out, prev.sub as u64);
        }
        if !self.creates() {
            varint::put(&mut out, at.main.abs_diff(self.create));
            varint::put(&mut out, self.version as u64);
        }
        out.extend_from_slice(key);
        out
    }

    /// `None` if the bytes are not an entry of revision `at`.
    pub(crate) fn decode(at: Revision, bytes: &'a [u8]) -> Option<Entry<'a>> {
        let (&flags, mut rest) = bytes.split_first()?;
        let known = flags & !(DELETE | PREV | CREATE | KEY_IN_RECORD) == 0;
        if !known || flags & DELETE != 0 && flags & (CREATE | KEY_IN_RECORD) != 0 {
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
        let key = match flags & KEY_IN_RECORD {
            0 => Some(rest),
            _ if rest.is_empty() => None,
            _ => return None,
        };
        Some(Entry { key, delete: flags & DELETE != 0, prev, create, version })
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
            for key in [Some(&b"some key"[..]), None].into_iter().filter(|key| key.is_some() || !delete) {
                let entry = Entry { key, delete, prev, create, version };
                let bytes = entry.encode(at);
                assert_eq!(Entry::decode(at, &bytes), Some(entry));
            }
        }
        assert_eq!(Entry::decode(at, &[]), None);
        assert_eq!(Entry::decode(at, &[DELETE | CREATE, b'k']), None);
        assert_eq!(Entry::decode(at, &[DELETE | KEY_IN_RECORD, 0, 1]), None, "a delete without its key");
        assert_eq!(Entry::decode(at, &[CREATE | KEY_IN_RECORD, b'k']), None, "a key that is not to be here");
        assert_eq!(Entry::decode(at, &[PREV | CREATE, 0, 5, b'k']), None, "a link to itself");
        assert_eq!(Entry::decode(at, &[PREV | CREATE, 0x80]), None, "cut short");
    }
}
