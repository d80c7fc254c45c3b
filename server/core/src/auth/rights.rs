// SPDX-License-Identifier: Apache-2.0
//! What a user may read and write, as two sets of keys.
//!
//! Owns      the merging of granted ranges, and whether a set covers what is asked for (AU-17).
//! Holds     1. the intervals of a set are sorted, and between two of them lies at least one key;
//!           2. what is asked for is judged as it stands on the wire: an open end is covered by an open end
//!              alone.
//! Never     knows a user or a role.

use bytes::Bytes;
use cairn_proto::authpb::{Permission, permission::Type};

/// The end of a range that has none, on the wire.
pub const OPEN: &[u8] = b"\0";

/// Where an interval ends: before a key, or nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Before(Bytes),
    Open,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Interval {
    start: Bytes,
    end: End,
}

impl Interval {
    fn granted(key: &Bytes, range_end: &Bytes) -> Interval {
        let end = match &range_end[..] {
            [] => End::Before([&key[..], b"\0"].concat().into()),
            OPEN => End::Open,
            _ => End::Before(range_end.clone()),
        };
        Interval { start: key.clone(), end }
    }
}

/// A set of keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    fn of(mut intervals: Vec<Interval>) -> Intervals {
        intervals.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Interval> = Vec::new();
        for next in intervals {
            match merged.last_mut() {
                // Neighbours too: together they cover what neither does alone.
                Some(last) if last.end >= End::Before(next.start.clone()) => {
                    last.end = std::mem::replace(&mut last.end, End::Open).max(next.end);
                }
                _ => merged.push(next),
            }
        }
        Intervals(merged)
    }

    /// Whether every key of a range is in the set. An inverted range holds none, and is judged by its key.
    pub fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let at = self.0.partition_point(|interval| interval.start[..] <= *key);
        let Some(interval) = at.checked_sub(1).map(|at| &self.0[at]) else { return false };
        match &interval.end {
            End::Open => true,
            End::Before(_) if range_end == OPEN => false,
            End::Before(end) if range_end > key => *range_end <= end[..],
            End::Before(end) => *key < end[..],
        }
    }
}

/// What one user may do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Role root: everything (AU-18).
    pub root: bool,
    read: Intervals,
    write: Intervals,
}

impl Rights {
    /// The union of what is granted.
    pub fn of<'a>(root: bool, permissions: impl Iterator<Item = &'a Permission>) -> Rights {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let interval = Interval::granted(&permission.key, &permission.range_end);
            // A type that no version knows grants nothing.
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(interval),
                Ok(Type::Write) => write.push(interval),
                Ok(Type::Readwrite) => {
                    read.push(interval.clone());
                    write.push(interval);
                }
                Err(_) => {}
            }
        }
        Rights { root, read: Intervals::of(read), write: Intervals::of(write) }
    }

    pub fn may_read(&self, key: &[u8], range_end: &[u8]) -> bool {
        self.root || self.read.cover(key, range_end)
    }

    pub fn may_write(&self, key: &[u8], range_end: &[u8]) -> bool {
        self.root || self.write.cover(key, range_end)
    }
}

/// Whether a permission may be granted on that range (AU-15).
pub fn is_grantable(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == OPEN || key < range_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ranges: &[(&'static str, &'static str)]) -> Rights {
        let permissions: Vec<Permission> = ranges
            .iter()
            .map(|(key, end)| Permission {
                perm_type: Type::Read as i32,
                key: Bytes::from_static(key.as_bytes()),
                range_end: Bytes::from_static(end.as_bytes()),
            })
            .collect();
        Rights::of(false, permissions.iter())
    }

    // rule: AU-17
    // rule: AUTH-2
    #[test]
    fn neighbours_and_overlaps_cover_together() {
        let rights = read(&[("c", "e"), ("a", "b"), ("b", "c"), ("d", "g"), ("x", ""), ("p", "q")]);
        for (key, end, covered) in [
            ("a", "g", true),
            ("a", "h", false),
            ("a", "", true),
            ("g", "", false),
            ("fz", "", true),
            ("x", "", true),
            ("x\0", "", false),
            ("x", "x\0", true),
            ("x", "x\0\0", false),
            ("o", "q", false),
            ("a", "\0", false),
            ("p", "o", true),
            ("q", "o", false),
        ] {
            assert_eq!(rights.may_read(key.as_bytes(), end.as_bytes()), covered, "[{key:?}, {end:?})");
            assert!(!rights.may_write(key.as_bytes(), end.as_bytes()), "reading is not writing");
        }
    }

    // rule: AU-17
    #[test]
    fn s16_only_an_open_end_covers_an_open_end() {
        for ranges in [&[("a", "")][..], &[("a", "\u{7f}")], &[("\0", ""), ("a", "z")]] {
            assert!(!read(ranges).may_read(b"a", b"\0"), "{ranges:?}");
        }
        let open = read(&[("a", "c"), ("c", "\0"), ("x", "")]);
        for (key, end) in [("a", "\0"), ("zz", "\0"), ("a", "zz"), ("zz", "")] {
            assert!(open.may_read(key.as_bytes(), end.as_bytes()), "[{key:?}, {end:?})");
        }
        assert!(!open.may_read(b"\0", b"\0"));
    }

    // rule: AU-15
    #[test]
    fn s22_an_empty_range_cannot_be_granted() {
        for (key, end, can) in [
            ("", "", false),
            ("", "\0", false),
            ("", "a", false),
            ("a", "", true),
            ("a", "\0", true),
            ("a", "b", true),
            ("a", "a", false),
            ("b", "a", false),
            ("\0", "\0", true),
            ("\0", "\0\0", true),
        ] {
            assert_eq!(is_grantable(key.as_bytes(), end.as_bytes()), can, "[{key:?}, {end:?})");
        }
    }

    #[test]
    fn an_unknown_type_grants_nothing() {
        let permission = Permission { perm_type: 7, key: Bytes::from_static(b"a"), range_end: Bytes::new() };
        assert_eq!(Rights::of(false, std::iter::once(&permission)), Rights::default());
    }
}
