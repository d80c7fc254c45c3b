// SPDX-License-Identifier: Apache-2.0
//! Requests, in the store's own words. Whoever takes in a wire request turns it into one of these.
//!
//! Owns      the shapes of range, put, delete and transaction, and what an interval of keys is.
//! Holds     zeros and empty strings of the wire that mean "absent" are `None` here, but for limits,
//!           revisions and filters, whose zero and negative values have a meaning of their own.
//! Never     validates what a client may ask: an empty key or a duplicate put is refused at the door.

use std::ops::Bound;

use bytes::Bytes;

/// Where an interval of keys that begins at a key ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RangeEnd {
    /// It is the one key.
    Single,
    /// Before this key; the interval is empty if this is not above its start.
    Until(Bytes),
    /// It has no end.
    FromKey,
}

impl RangeEnd {
    /// The end that a wire `range_end` states: empty is a single key, one zero byte is no end.
    pub fn from_wire(range_end: Bytes) -> RangeEnd {
        match &range_end[..] {
            [] => RangeEnd::Single,
            [0] => RangeEnd::FromKey,
            _ => RangeEnd::Until(range_end),
        }
    }
}

/// An interval of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub key: Bytes,
    pub end: RangeEnd,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange { key: Bytes::new(), end: RangeEnd::FromKey }
    }

    /// Whether `key` lies in the interval.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == &self.key[..],
            RangeEnd::Until(end) => key >= &self.key[..] && key < &end[..],
            RangeEnd::FromKey => key >= &self.key[..],
        }
    }

    /// Whether `key` lies at or after the interval's end.
    pub(crate) fn is_past(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key > &self.key[..],
            RangeEnd::Until(end) => key >= &end[..],
            RangeEnd::FromKey => false,
        }
    }

    /// The interval's end as a bound.
    pub(crate) fn upper(&self) -> Bound<&[u8]> {
        match &self.end {
            RangeEnd::Single => Bound::Included(&self.key),
            RangeEnd::Until(end) => Bound::Excluded(end),
            RangeEnd::FromKey => Bound::Unbounded,
        }
    }
}

/// The order of a range's pairs. Without one they are ascending by the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SortOrder {
    #[default]
    None,
    Ascend,
    Descend,
}

/// What a range's pairs are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// A range of keys at a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeOp {
    pub keys: KeyRange,
    /// Most pairs to answer with; zero and below mean all.
    pub limit: i64,
    /// Zero and below mean the current one, but see TXN-17 for below zero inside a transaction.
    pub revision: i64,
    pub sort_order: SortOrder,
    pub sort_target: SortTarget,
    pub keys_only: bool,
    pub count_only: bool,
    /// Inclusive bounds; zero is none.
    pub min_mod: i64,
    pub max_mod: i64,
    pub min_create: i64,
    pub max_create: i64,
}

impl RangeOp {
    /// All pairs of `keys` at the current revision, by key.
    pub fn new(keys: KeyRange) -> RangeOp {
        RangeOp {
            keys,
            limit: 0,
            revision: 0,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }

    pub(crate) fn has_filter(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] != [0; 4]
    }

    pub(crate) fn keeps(&self, created: i64, modified: i64) -> bool {
        let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        within(modified, self.min_mod, self.max_mod) && within(created, self.min_create, self.max_create)
    }

    /// The limit, if it is one.
    pub(crate) fn limit(&self) -> Option<usize> {
        usize::try_from(self.limit).ok().filter(|&n| n > 0)
    }
}

/// A write of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutOp {
    pub key: Bytes,
    /// `None` keeps the value that the key has.
    pub value: Option<Bytes>,
    /// `None` keeps the lease that the key has; `Some(0)` is no lease.
    pub lease: Option<i64>,
    /// Answer with the pair as it was before.
    pub prev_kv: bool,
}

/// A delete of all keys in an interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOp {
    pub keys: KeyRange,
    /// Answer with the pairs as they were before.
    pub prev_kv: bool,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Range(RangeOp),
    Put(PutOp),
    Delete(DeleteOp),
    Txn(TxnOp),
}

/// What a compare looks at, with what it compares that to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CompareTarget {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Bytes),
    Lease(i64),
    /// A number that is none of these: compares as equal.
    Unknown,
}

/// Which outcome of a comparison holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
    /// A number that is none of these: always holds.
    Unknown,
}

/// A condition on every key of an interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    pub keys: KeyRange,
    pub target: CompareTarget,
    pub result: CompareResult,
}

/// A transaction: `success` if all compares hold, else `failure`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TxnOp {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl TxnOp {
    /// Whether both lists hold plain ranges and nothing else, so that no view of the store can change.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }
}
