// SPDX-License-Identifier: Apache-2.0
//! Requests as they go on the wire, encoded once and patched in place.
//!
//! Owns      the keys (which index is which key) and a gRPC frame for each operation.
//! Holds     1. a key is `/bench/`, zeros up to its length, and 16 to 24 hexadecimal digits that scatter the
//!              index: keys share a beginning, as real ones do, and are loaded in no order;
//!           2. two indexes never give the same key (the scattering is a bijection);
//!           3. patching changes the bytes of the key and nothing else.
//! Never     sends anything.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    CompactionRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use prost::Message;

pub const KEY_PREFIX: &[u8] = b"/bench/";
/// The first key past all those that begin with [`KEY_PREFIX`].
pub const KEY_PREFIX_END: &[u8] = b"/bench0";
const DIGITS_MIN: usize = 16;
const DIGITS_MAX: usize = 24;
pub const KEY_BYTES_MIN: usize = KEY_PREFIX.len() + DIGITS_MIN;
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// Compressed flag and length before each message of gRPC.
pub const GRPC_HEAD_BYTES: usize = 5;

pub const COMPACT_PATH: &str = "/etcdserverpb.KV/Compact";

/// What one request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    Put,
    Get,
    GetSerializable,
    /// If the key exists (its mod revision is above zero), put it; else get it.
    Txn,
    /// The pairs from a key on, up to the limit.
    Range,
    /// The pairs of all keys.
    List,
    /// How many keys there are.
    Count,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::GetSerializable => "get-serializable",
            Operation::Txn => "txn",
            Operation::Range => "range",
            Operation::List => "list",
            Operation::Count => "count",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Operation::Put => "/etcdserverpb.KV/Put",
            Operation::Txn => "/etcdserverpb.KV/Txn",
            Operation::Get
            | Operation::GetSerializable
            | Operation::Range
            | Operation::List
            | Operation::Count => "/etcdserverpb.KV/Range",
        }
    }

    fn encode(self, key: Bytes, shape: &Shape) -> Vec<u8> {
        let put = || PutRequest { key: key.clone(), value: value(shape.value_bytes), ..Default::default() };
        let get = || RangeRequest { key: key.clone(), ..Default::default() };
        let all = || RangeRequest {
            key: Bytes::from_static(KEY_PREFIX),
            range_end: Bytes::from_static(KEY_PREFIX_END),
            ..Default::default()
        };
        match self {
            Operation::Put => put().encode_to_vec(),
            Operation::Get => get().encode_to_vec(),
            Operation::GetSerializable => RangeRequest { serializable: true, ..get() }.encode_to_vec(),
            Operation::Txn => TxnRequest {
                compare: vec![Compare {
                    result: compare::CompareResult::Greater.into(),
                    target: compare::CompareTarget::Mod.into(),
                    key: key.clone(),
                    target_union: Some(compare::TargetUnion::ModRevision(0)),
                    ..Default::default()
                }],
                success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put())) }],
                failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get())) }],
            }
            .encode_to_vec(),
            Operation::Range => {
                RangeRequest { range_end: Bytes::from_static(KEY_PREFIX_END), limit: shape.limit, ..get() }
                    .encode_to_vec()
            }
            Operation::List => all().encode_to_vec(),
            Operation::Count => RangeRequest { count_only: true, ..all() }.encode_to_vec(),
        }
    }

    /// How often the key stands in the request.
    fn keys(self) -> usize {
        match self {
            Operation::Put | Operation::Get | Operation::GetSerializable | Operation::Range => 1,
            Operation::Txn => 3,
            Operation::List | Operation::Count => 0,
        }
    }
}

/// The sizes that requests are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many keys there are.
    pub keys: u64,
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Of [`Operation::Range`]: pairs in an answer at most.
    pub limit: i64,
}

/// The frame of one operation, where the key is patched in.
pub struct Template {
    operation: Operation,
    frame: Vec<u8>,
    key_bytes: usize,
    key_at: Vec<usize>,
}

impl Template {
    pub fn new(operation: Operation, shape: &Shape) -> Template {
        // No message holds a run of 0xff but where this key stands: values are printable, tags are small.
        let placeholder = vec![0xff; shape.key_bytes];
        let frame = framed(&operation.encode(Bytes::from(placeholder.clone()), shape));
        let mut key_at = Vec::new();
        let mut at = GRPC_HEAD_BYTES;
        while at + placeholder.len() <= frame.len() {
            if frame[at..].starts_with(&placeholder) {
                key_at.push(at);
                at += placeholder.len();
            } else {
                at += 1;
            }
        }
        assert_eq!(key_at.len(), operation.keys(), "keys found in a {} request", operation.name());
        Template { operation, frame, key_bytes: shape.key_bytes, key_at }
    }

    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The frame for the key of this index.
    pub fn frame(&self, index: u64) -> Bytes {
        let mut frame = self.frame.clone();
        if let Some((&first, others)) = self.key_at.split_first() {
            write_key(index, &mut frame[first..first + self.key_bytes]);
            for &at in others {
                frame.copy_within(first..first + self.key_bytes, at);
            }
        }
        Bytes::from(frame)
    }
}

/// The frame that asks for a compaction and is answered once all that it made unreadable is purged.
pub fn compaction(revision: u64) -> Bytes {
    let revision = i64::try_from(revision).expect("revisions are below 2^63");
    frame_of(&CompactionRequest { revision, physical: true })
}

/// The frame of a message.
pub fn frame_of(message: &impl Message) -> Bytes {
    framed(&message.encode_to_vec()).into()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(GRPC_HEAD_BYTES + message.len());
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(message.len()).expect("a request fits in 4 GiB").to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Writes the key of this index over all of `key`.
fn write_key(index: u64, key: &mut [u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (key.len() - KEY_PREFIX.len()).min(DIGITS_MAX);
    let (head, tail) = key.split_at_mut(key.len() - digits);
    head.fill(b'0');
    head[..KEY_PREFIX.len()].copy_from_slice(KEY_PREFIX);
    let mut bits = scatter(index);
    for (at, digit) in tail.iter_mut().enumerate() {
        if at == DIGITS_MIN {
            bits = scatter(!index);
        }
        *digit = HEX[(bits >> 60) as usize];
        bits <<= 4;
    }
}

/// The finalizer of splitmix64: a bijection of 64 bits.
pub fn scatter(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Printable bytes without a pattern that a disk or a tree could fold.
fn value(bytes: usize) -> Bytes {
    let mut value = Vec::with_capacity(bytes + 8);
    let mut block = 0;
    while value.len() < bytes {
        value.extend(scatter(block).to_le_bytes().map(|b| b'!' + b % 94));
        block += 1;
    }
    value.truncate(bytes);
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::HashSet;

    const SHAPE: Shape = Shape { keys: 10, key_bytes: 24, value_bytes: 4, limit: 500 };

    fn dump(operation: Operation) -> String {
        let frame = Template::new(operation, &SHAPE).frame(1);
        frame.escape_ascii().to_string()
    }

    #[test]
    fn frames_are_the_bytes_of_etcds_messages() {
        let all = [
            Operation::Put,
            Operation::Get,
            Operation::GetSerializable,
            Operation::Txn,
            Operation::Range,
            Operation::List,
            Operation::Count,
        ]
        .map(|operation| format!("{}: {}", operation.name(), dump(operation)))
        .join("\n");
        expect![[r#"
            put: \x00\x00\x00\x00 \n\x18/bench/910a2dec89025cc1f\x12\x04r2>>
            get: \x00\x00\x00\x00\x1a\n\x18/bench/910a2dec89025cc1f
            get-serializable: \x00\x00\x00\x00\x1c\n\x18/bench/910a2dec89025cc1f8\x01
            txn: \x00\x00\x00\x00d\n \x08\x01\x10\x02\x1a\x18/bench/910a2dec89025cc1f0\x00\x12\"\x12 \n\x18/bench/910a2dec89025cc1f\x12\x04r2>>\x1a\x1c\n\x1a\n\x18/bench/910a2dec89025cc1f
            range: \x00\x00\x00\x00&\n\x18/bench/910a2dec89025cc1f\x12\x07/bench0\x18\xf4\x03
            list: \x00\x00\x00\x00\x12\n\x07/bench/\x12\x07/bench0
            count: \x00\x00\x00\x00\x14\n\x07/bench/\x12\x07/bench0H\x01"#]].assert_eq(&all);
    }

    #[test]
    fn a_patched_frame_decodes_to_the_request_for_that_key() {
        for (index, key_bytes) in [(0, 23), (7, 32), (u64::MAX, 300)] {
            let shape = Shape { key_bytes, value_bytes: 256, ..SHAPE };
            let frame = Template::new(Operation::Txn, &shape).frame(index);
            let txn = TxnRequest::decode(&frame[GRPC_HEAD_BYTES..]).expect("it was encoded here");
            let mut key = vec![0; key_bytes];
            write_key(index, &mut key);
            assert_eq!(txn.compare[0].key, key);
            assert_eq!(txn.encoded_len(), frame.len() - GRPC_HEAD_BYTES);
            let Some(request_op::Request::RequestPut(put)) = &txn.success[0].request else {
                panic!("the success branch is a put: {txn:?}");
            };
            assert_eq!((put.key.as_ref(), put.value.len()), (key.as_slice(), 256));
        }
    }

    #[test]
    fn keys_are_distinct_lie_under_the_prefix_and_have_their_length() {
        for key_bytes in [KEY_BYTES_MIN, 31, 64] {
            let mut seen = HashSet::new();
            for index in 0..10_000 {
                let mut key = vec![0; key_bytes];
                write_key(index, &mut key);
                assert!(key.as_slice() >= KEY_PREFIX && key.as_slice() < KEY_PREFIX_END);
                assert!(seen.insert(key), "index {index} at {key_bytes} bytes");
            }
        }
    }
}
