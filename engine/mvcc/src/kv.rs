// SPDX-License-Identifier: Apache-2.0
//! The stored form of a pair: the protobuf message `mvccpb.KeyValue`, written and read field by field.
//!
//! Owns      the six fields in number order, zeros and empty strings left out, as etcd writes them; and
//!           the byte before them that tells a pair from a tombstone.
//! Holds     1. a pair's bytes are sent to clients as they are stored;
//!           2. a tombstone is stored with key and mod revision, which is the form of a delete event;
//!              hashes take its key field alone.
//! Never     accepts fields out of order: nobody but this file writes them.

use bytes::Bytes;
use cairn_engine::Value;

use crate::varint;

const KEY: u8 = 0x0a;
const CREATE: u8 = 0x10;
const MOD: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;

const PAIR: u8 = 0;
const TOMBSTONE: u8 = 1;

/// A pair's fields, borrowed from its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvRef<'a> {
    pub key: &'a [u8],
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

fn field(out: &mut Vec<u8>, tag: u8, n: i64) {
    if n != 0 {
        out.push(tag);
        varint::put(out, n as u64);
    }
}

fn bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Bytes before the key inside its field.
fn key_offset(key: &[u8]) -> usize {
    1 + varint::len(key.len() as u64)
}

impl<'a> KvRef<'a> {
    fn encode_into(self, out: &mut Vec<u8>) {
        bytes_field(out, KEY, self.key);
        field(out, CREATE, self.create);
        field(out, MOD, self.modified);
        field(out, VERSION, self.version);
        bytes_field(out, VALUE, self.value);
        field(out, LEASE, self.lease);
    }

    /// The fields of `message`; `None` if it is not one that this file wrote.
    pub fn decode(message: &'a [u8]) -> Option<KvRef<'a>> {
        let mut rest = message;
        let key = take_bytes(&mut rest, KEY)?;
        let create = take_number(&mut rest, CREATE)?;
        let modified = take_number(&mut rest, MOD)?;
        let version = take_number(&mut rest, VERSION)?;
        let value = take_bytes(&mut rest, VALUE)?;
        let lease = take_number(&mut rest, LEASE)?;
        rest.is_empty().then_some(KvRef { key, create, modified, version, value, lease })
    }

    /// The message without the value, and without the lease unless `with_lease`.
    pub(crate) fn without_value(self, with_lease: bool) -> Bytes {
        let lease = if with_lease { self.lease } else { 0 };
        let mut out = Vec::with_capacity(self.key.len() + 48);
        KvRef { value: &[], lease, ..self }.encode_into(&mut out);
        out.into()
    }
}

fn take_number(rest: &mut &[u8], tag: u8) -> Option<i64> {
    match rest.split_first() {
        Some((&found, after)) if found == tag => {
            *rest = after;
            Some(varint::take(rest)? as i64)
        }
        _ => Some(0),
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    match rest.split_first() {
        Some((&found, after)) if found == tag => {
            *rest = after;
            let len = usize::try_from(varint::take(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(len)?;
            *rest = after;
            Some(bytes)
        }
        _ => Some(&[]),
    }
}

/// A value of the tree `rev`, and slices of it that share its memory.
pub(crate) struct Stored {
    pub(crate) record: Bytes,
    pub(crate) key: Bytes,
    pub(crate) message: Bytes,
}

impl Stored {
    fn new(record: Vec<u8>, key_len: usize, key_offset: usize) -> Stored {
        let record = Bytes::from(record);
        let message = record.slice(1..);
        let key = message.slice(key_offset..key_offset + key_len);
        Stored { record, key, message }
    }

    /// The record of a pair.
    pub(crate) fn pair(kv: KvRef<'_>) -> Stored {
        let mut record = Vec::with_capacity(kv.key.len() + kv.value.len() + 64);
        record.push(PAIR);
        kv.encode_into(&mut record);
        Stored::new(record, kv.key.len(), key_offset(kv.key))
    }

    /// The record of a tombstone.
    pub(crate) fn tombstone(key: &[u8], modified: i64) -> Stored {
        let mut record = Vec::with_capacity(key.len() + 24);
        record.push(TOMBSTONE);
        let kv = KvRef { key, create: 0, modified, version: 0, value: &[], lease: 0 };
        kv.encode_into(&mut record);
        Stored::new(record, key.len(), key_offset(key))
    }
}

/// The record of a revision as it lies in the tree.
pub(crate) struct Record(Value);

impl Record {
    pub(crate) fn new(value: Value) -> Option<Record> {
        matches!(value.first(), Some(&(PAIR | TOMBSTONE))).then_some(Record(value))
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.0[0] == TOMBSTONE
    }

    /// The fields; `None` if the record is damaged.
    pub(crate) fn kv(&self) -> Option<KvRef<'_>> {
        KvRef::decode(&self.0[1..])
    }

    /// The message, on its own memory or shared with the overlay.
    pub(crate) fn into_message(self) -> Bytes {
        self.0.into_bytes().slice(1..)
    }

    /// What a hash takes of the record: the message, of a tombstone its key field.
    pub(crate) fn hashed(&self) -> Option<&[u8]> {
        let message = &self.0[1..];
        if !self.is_tombstone() {
            return Some(message);
        }
        let key = KvRef::decode(message)?.key;
        message.get(..key_offset(key) + key.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    // rule: HASH-5, HASH-8
    #[test]
    fn a_pair_is_the_bytes_that_etcd_stores() {
        let kv = KvRef { key: b"t1", create: 2, modified: 2, version: 1, value: b"a", lease: 7 };
        assert_eq!(hex(&Stored::pair(kv).message), "0a0274311002180220012a01613007");
        let kv = KvRef { value: b"", lease: -1, ..kv };
        assert_eq!(hex(&Stored::pair(kv).message), "0a02743110021802200130ffffffffffffffffff01");
        let tombstone = Stored::tombstone(b"t1", 300);
        assert_eq!((hex(&tombstone.message), &tombstone.key[..]), ("0a02743118ac02".into(), &b"t1"[..]));
        let record = Record::new(tombstone.record.into()).expect("a record");
        assert_eq!(record.hashed().map(hex), Some("0a027431".into()));
    }

    #[test]
    fn fields_come_back_and_cut_or_shuffled_messages_do_not() {
        let key = vec![b'k'; 300];
        for (value, lease) in [(&b""[..], 0), (b"v", i64::MIN), (&[7; 200], 1)] {
            let kv = KvRef { key: &key, create: 5, modified: i64::MAX, version: 128, value, lease };
            let stored = Stored::pair(kv);
            assert_eq!(KvRef::decode(&stored.message), Some(kv));
            assert_eq!(&stored.key[..], &key[..]);
            let bare = kv.without_value(true);
            assert_eq!(KvRef::decode(&bare), Some(KvRef { value: b"", ..kv }));
            let bare = kv.without_value(false);
            assert_eq!(KvRef::decode(&bare), Some(KvRef { value: b"", lease: 0, ..kv }));
        }
        assert_eq!(KvRef::decode(&[MOD, 1, CREATE, 1]), None, "fields out of order");
        assert_eq!(KvRef::decode(&[KEY, 5, b'k']), None, "a length beyond the end");
        assert!(Record::new(Bytes::from_static(&[9, KEY, 1, b'k']).into()).is_none());
        assert!(Record::new(Bytes::new().into()).is_none());
    }
}
