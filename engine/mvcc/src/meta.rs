// SPDX-License-Identifier: Apache-2.0
//! What the store says of itself with every commit: the owner meta of a commit slot.
//!
//! Owns      the current and the compact revision and the count of live bytes, and their encoding.
//! Holds     a store without a commit is at revision 1 and was never compacted.
//! Never     derives the revision from the keys: compaction may remove the newest one.

use bytes::Bytes;
use cairn_engine::{Error, Result, View};

use crate::store::damaged;
use crate::varint;

/// Before the first compaction.
pub(crate) const NEVER_COMPACTED: i64 = -1;

const FORMAT: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) revision: i64,
    /// Reads below it are refused.
    pub(crate) compact: i64,
    /// Stored bytes, keys included, of the newest revision of each live key.
    pub(crate) live_bytes: i64,
}

impl Default for Meta {
    fn default() -> Self {
        Meta { revision: 1, compact: NEVER_COMPACTED, live_bytes: 0 }
    }
}

impl Meta {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(32);
        out.push(FORMAT);
        for n in [self.revision, self.compact, self.live_bytes] {
            varint::put(&mut out, varint::zigzag(n));
        }
        out.into()
    }

    pub(crate) fn of(view: &View) -> Result<Meta> {
        let owner = &view.meta().owner[..];
        if owner.is_empty() {
            return Ok(Meta::default());
        }
        Meta::decode(owner).ok_or_else(|| Error::from(damaged("owner meta", "revisions of the store")))
    }

    fn decode(owner: &[u8]) -> Option<Meta> {
        let (&format, mut rest) = owner.split_first()?;
        let mut number = || varint::take(&mut rest).map(varint::unzigzag);
        let meta = Meta { revision: number()?, compact: number()?, live_bytes: number()? };
        (format == FORMAT && rest.is_empty() && meta.compact <= meta.revision).then_some(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_a_damaged_one_does_not() {
        for meta in [Meta::default(), Meta { revision: i64::MAX, compact: 0, live_bytes: 1 << 40 }] {
            let bytes = meta.encode();
            assert_eq!(Meta::decode(&bytes), Some(meta));
            assert_eq!(Meta::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Meta::decode(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(Meta::decode(&Meta { revision: 1, compact: 2, live_bytes: 0 }.encode()), None);
    }
}
