// SPDX-License-Identifier: Apache-2.0
//! Answering a range: which pairs, in what order, and how many there are.
//!
//! Owns      filters, orders and the limit, and when a walk may stop early.
//! Holds     1. pairs of equal rank stay in key order, in both directions (KV-19);
//!           2. `count` is of the interval, whatever limit and filters say (KV-11);
//!           3. a record is read only for a pair that is answered with, or where an order or a filter
//!              needs what the index does not say.
//! Never     decides which revision a range reads: its caller holds that.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;
use cairn_engine::Result;

use crate::index::{self, Found, Snapshot, Walk, record_at};
use crate::kv::KvRef;
use crate::ops::{RangeEnd, RangeOp, SortOrder, SortTarget};
use crate::outcome::{RangeDone, Revision};
use crate::txn::pair_of;

/// A pair that may be answered with.
pub(crate) struct Candidate {
    /// Kept only where the pair is built from the index.
    key: Bytes,
    found: Found,
    /// The pair's message, once it was needed.
    message: Option<Bytes>,
}

impl Candidate {
    pub(crate) fn new(key: &[u8], found: Found, op: &RangeOp) -> Candidate {
        let from_index = op.keys_only && found.life.is_some();
        let key = if from_index { Bytes::copy_from_slice(key) } else { Bytes::new() };
        Candidate { key, found, message: None }
    }

    fn message(&mut self, snapshot: &Snapshot<'_>) -> Result<Bytes> {
        match &self.message {
            Some(message) => Ok(message.clone()),
            None => {
                let message = record_at(snapshot, self.found.revision)?.into_message();
                self.message = Some(message.clone());
                Ok(message)
            }
        }
    }

    /// Create revision and version, from the record where the index has only the revision.
    fn figures(&self, snapshot: &Snapshot<'_>) -> Result<(i64, i64)> {
        match self.found.life {
            Some(life) => Ok((life.create, life.version)),
            None => {
                let record = record_at(snapshot, self.found.revision)?;
                let kv = pair_of(&record)?;
                Ok((kv.create, kv.version))
            }
        }
    }

    /// What is sent of the pair.
    pub(crate) fn answer(mut self, snapshot: &Snapshot<'_>, op: &RangeOp) -> Result<Bytes> {
        if !op.keys_only {
            return self.message(snapshot);
        }
        let with_lease = op.sort_target == SortTarget::Value;
        match self.found.life {
            Some(life) => {
                let modified = self.found.revision.main;
                let (create, version, lease) = (life.create, life.version, life.lease);
                let kv = KvRef { key: &self.key, create, modified, version, value: &[], lease };
                Ok(kv.without_value(with_lease))
            }
            None => {
                let record = record_at(snapshot, self.found.revision)?;
                Ok(pair_of(&record)?.without_value(with_lease))
            }
        }
    }
}

/// What a pair is sorted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    Bytes(Bytes),
}

fn rank(candidate: &mut Candidate, snapshot: &Snapshot<'_>, target: SortTarget) -> Result<Rank> {
    Ok(match target {
        // Candidates come in key order: all are equal, and a reversal is a reversal of the walk.
        SortTarget::Key => Rank::Number(0),
        SortTarget::Mod => Rank::Number(candidate.found.revision.main),
        SortTarget::Create => Rank::Number(candidate.figures(snapshot)?.0),
        SortTarget::Version => Rank::Number(candidate.figures(snapshot)?.1),
        SortTarget::Value => {
            let message = candidate.message(snapshot)?;
            let value = KvRef::decode(&message).map_or(&[][..], |kv| kv.value);
            Rank::Bytes(message.slice_ref(value))
        }
    })
}

/// Answers `op` from what is seen at `at`. `revision` goes into the answer.
pub(crate) fn answer(
    snapshot: &Snapshot<'_>,
    op: &RangeOp,
    at: Revision,
    revision: i64,
) -> Result<RangeDone> {
    let chosen = if op.count_only {
        let count = count_of(snapshot, op, at)?;
        Chosen { candidates: Vec::new(), count, more: false }
    } else {
        choose(snapshot, op, at)?
    };
    let answers = chosen.candidates.into_iter().map(|candidate| candidate.answer(snapshot, op));
    let kvs = answers.collect::<Result<Vec<_>>>()?;
    Ok(RangeDone { revision, kvs, count: chosen.count, more: chosen.more })
}

fn count_of(snapshot: &Snapshot<'_>, op: &RangeOp, at: Revision) -> Result<i64> {
    match op.keys.end {
        RangeEnd::Single => Ok(i64::from(index::find(snapshot, &op.keys.key, at)?.is_some())),
        _ => index::count(snapshot, &op.keys, Bound::Included(&op.keys.key), at),
    }
}

struct Chosen {
    candidates: Vec<Candidate>,
    count: i64,
    more: bool,
}

impl Chosen {
    fn cut(mut candidates: Vec<Candidate>, count: i64, limit: Option<usize>) -> Chosen {
        let more = limit.is_some_and(|n| candidates.len() > n);
        candidates.truncate(limit.unwrap_or(usize::MAX));
        Chosen { candidates, count, more }
    }
}

fn choose(snapshot: &Snapshot<'_>, op: &RangeOp, at: Revision) -> Result<Chosen> {
    let by_key = op.sort_target == SortTarget::Key;
    let limit = op.limit();
    match op.sort_order {
        SortOrder::Descend if by_key => {
            let (candidates, count) = gather(snapshot, op, at, limit, true)?;
            Ok(Chosen::cut(candidates, count, limit))
        }
        SortOrder::None | SortOrder::Ascend if by_key => {
            let (candidates, count) = gather(snapshot, op, at, limit, false)?;
            Ok(Chosen::cut(candidates, count, limit))
        }
        order => {
            // KV-18: without an order and without filters the limit cuts before the sort.
            let cut_first = order == SortOrder::None && !op.has_filter();
            let (candidates, count) = gather(snapshot, op, at, limit.filter(|_| cut_first), false)?;
            let candidates = sorted(candidates, snapshot, op.sort_target, order)?;
            Ok(Chosen::cut(candidates, count, limit))
        }
    }
}

/// The candidates that pass the filters, one more than `limit` at most, in the order of the walk; and
/// the count of the whole interval.
fn gather(
    snapshot: &Snapshot<'_>,
    op: &RangeOp,
    at: Revision,
    limit: Option<usize>,
    back: bool,
) -> Result<(Vec<Candidate>, i64)> {
    let mut candidates = Vec::new();
    let mut take = |key: &[u8], found: Found| -> Result<bool> {
        let candidate = Candidate::new(key, found, op);
        let kept = !op.has_filter() || op.keeps(candidate.figures(snapshot)?.0, found.revision.main);
        if kept {
            candidates.push(candidate);
        }
        Ok(limit.is_some_and(|n| candidates.len() > n))
    };
    if op.keys.end == RangeEnd::Single {
        let found = index::find(snapshot, &op.keys.key, at)?;
        if let Some(found) = found {
            take(&op.keys.key, found)?;
        }
        return Ok((candidates, i64::from(found.is_some())));
    }
    let mut walked = 0;
    let mut walk =
        if back { Walk::back(snapshot, &op.keys, at) } else { Walk::forward(snapshot, &op.keys, at) };
    while let Some((key, found)) = if back { walk.prev()? } else { walk.next()? } {
        walked += 1;
        if take(key, found)? {
            let count = if back {
                count_of(snapshot, op, at)?
            } else {
                walked + index::count(snapshot, &op.keys, Bound::Excluded(key), at)?
            };
            return Ok((candidates, count));
        }
    }
    Ok((candidates, walked))
}

fn sorted(
    candidates: Vec<Candidate>,
    snapshot: &Snapshot<'_>,
    target: SortTarget,
    order: SortOrder,
) -> Result<Vec<Candidate>> {
    let ranked = candidates.into_iter().map(|mut candidate| {
        let rank = rank(&mut candidate, snapshot, target)?;
        Ok((rank, candidate))
    });
    let mut ranked = ranked.collect::<Result<Vec<_>>>()?;
    let compare =
        |a: &Rank, b: &Rank| -> Ordering { if order == SortOrder::Descend { b.cmp(a) } else { a.cmp(b) } };
    ranked.sort_by(|(a, _), (b, _)| compare(a, b));
    Ok(ranked.into_iter().map(|(_, candidate)| candidate).collect())
}
