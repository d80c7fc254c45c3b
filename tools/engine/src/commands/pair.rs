// SPDX-License-Identifier: Apache-2.0
//! Pairs and changes as they are shown, and keys as they are typed.
//!
//! Owns      the fields of a pair, the levels of a key, the interval of a prefix.
//! Never     reads a store.

use bytes::Bytes;
use cairn_mvcc::{Change, KeyRange, KvRef, RangeEnd};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::bytes::{escaped, put, unescaped};
use crate::cli::{Levels, Typed};
use crate::outcome::{Failure, Outcome};

/// Characters of a value in a table.
const VALUE_SHOWN: usize = 60;

/// The bytes of a key on the command line.
pub fn typed(text: &str, how: &Typed) -> Outcome<Vec<u8>> {
    if how.escaped { unescaped(text).map_err(Failure::Usage) } else { Ok(text.as_bytes().to_vec()) }
}

/// All keys that begin with `prefix`, from `from` on.
pub fn range(prefix: &[u8], from: Vec<u8>) -> KeyRange {
    let mut end = prefix.to_vec();
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    let end = match end.last_mut() {
        None => RangeEnd::FromKey,
        Some(last) => {
            *last += 1;
            RangeEnd::Until(end.into())
        }
    };
    KeyRange { key: Bytes::from(from.max(prefix.to_vec())), end }
}

/// The smallest key above `key`.
pub fn after(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

impl Levels {
    /// Ends of the prefixes of `key`, the shortest first. Delimiters at its start belong to the first level.
    pub fn ends(&self, key: &[u8]) -> Vec<usize> {
        let mut utf8 = [0; 4];
        let delimiter = self.delimiter.encode_utf8(&mut utf8).as_bytes();
        let mut at = 0;
        while key[at..].starts_with(delimiter) {
            at += delimiter.len();
        }
        let mut ends = Vec::new();
        while ends.len() < self.depth {
            let Some(found) = key[at..].windows(delimiter.len()).position(|window| window == delimiter)
            else {
                break;
            };
            at += found + delimiter.len();
            ends.push(at);
        }
        ends
    }
}

/// A value for a table: one line, and not too long.
pub fn value_shown(value: &[u8]) -> String {
    let shown = escaped(&value[..value.len().min(4 * VALUE_SHOWN)]);
    if shown.chars().count() <= VALUE_SHOWN && value.len() <= 4 * VALUE_SHOWN {
        return shown;
    }
    shown.chars().take(VALUE_SHOWN - 1).chain(['…']).collect()
}

/// A lease as etcd's tools show it; nothing if there is none.
pub fn lease_shown(lease: i64) -> String {
    if lease == 0 { String::new() } else { format!("{lease:x}") }
}

/// A pair for JSON, with its value or without.
pub struct PairJson<'p> {
    pub kv: KvRef<'p>,
    pub value: bool,
}

fn pair<M: SerializeMap>(map: &mut M, kv: &KvRef<'_>, value: bool) -> Result<(), M::Error> {
    put(map, "key", kv.key)?;
    map.serialize_entry("create_revision", &kv.create)?;
    map.serialize_entry("mod_revision", &kv.modified)?;
    map.serialize_entry("version", &kv.version)?;
    map.serialize_entry("lease", &kv.lease)?;
    map.serialize_entry("value_bytes", &kv.value.len())?;
    if value { put(map, "value", kv.value) } else { Ok(()) }
}

impl Serialize for PairJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        pair(&mut map, &self.kv, self.value)?;
        map.end()
    }
}

/// A change for JSON.
pub struct ChangeJson<'c> {
    pub change: Change<'c>,
    pub value: bool,
}

impl Serialize for ChangeJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("revision", &self.change.revision.to_string())?;
        if self.change.delete {
            map.serialize_entry("change", "delete")?;
            put(&mut map, "key", self.change.kv.key)?;
        } else {
            map.serialize_entry("change", "put")?;
            pair(&mut map, &self.change.kv, self.value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_begin_with_it() {
        let until = |prefix: &[u8]| match range(prefix, Vec::new()).end {
            RangeEnd::Until(end) => Some(end.to_vec()),
            _ => None,
        };
        assert_eq!(until(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(until(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!((until(b""), until(b"\xff")), (None, None));
        assert_eq!(&range(b"b", b"ba".to_vec()).key[..], b"ba");
        assert_eq!(&range(b"b", Vec::new()).key[..], b"b");
    }

    #[test]
    fn levels_end_behind_their_delimiter() {
        let ends = |key: &str, depth| {
            let levels = Levels { delimiter: '/', depth };
            levels.ends(key.as_bytes()).into_iter().map(|end| key[..end].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ends("/registry/pods/a/b", 2), ["/registry/", "/registry/pods/"]);
        assert_eq!(ends("registry/pods", 2), ["registry/"]);
        assert_eq!(ends("a//b", 3), ["a/", "a//"]);
        assert!(ends("plain", 2).is_empty() && ends("/", 2).is_empty() && ends("a/b", 0).is_empty());
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(value_shown(b"short\n"), "short\\x0a");
        let long = value_shown(&[b'x'; 1000]);
        assert_eq!((long.chars().count(), long.ends_with('…')), (60, true));
        assert_eq!(value_shown(&[0xff; 16]).chars().count(), 60);
    }
}
