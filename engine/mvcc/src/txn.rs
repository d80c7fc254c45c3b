// SPDX-License-Identifier: Apache-2.0
//! Transactions: compares, the choice of branches, the checks, the execution.
//!
//! Owns      what a compare means, and the order of things: all levels choose their branch from the
//!           state before the transaction, then the chosen path is checked, then it runs.
//! Holds     a transaction that fails a check has written nothing, and once the checks have passed only
//!           an engine error can stop it.
//! Never     looks at the branch that does not run.

use std::cmp::Ordering;

use cairn_engine::{Error, Result};

use crate::batch::{Batch, NEWEST, lease_is_granted};
use crate::index::{Found, Trees, Walk, find, record_at};
use crate::kv::{KvRef, Record};
use crate::mutants::planted;
use crate::ops::{Compare, CompareResult, CompareTarget, KeyRange, Op, PutOp, RangeEnd, TxnOp};
use crate::outcome::{OpDone, OpError, Revision, TxnDone};
use crate::store::damaged;

/// The chosen branch of a transaction, and those of the transactions in it, in order.
pub(crate) struct Branch<'t> {
    pub(crate) succeeded: bool,
    pub(crate) ops: &'t [Op],
    nested: Vec<Branch<'t>>,
    /// Compares that were looked at for it.
    compared: u64,
}

impl Branch<'_> {
    /// Compares that were looked at on all levels.
    pub(crate) fn compared(&self) -> u64 {
        self.compared + self.nested.iter().map(Branch::compared).sum::<u64>()
    }
}

/// Chooses the branches of all levels from the state at `at`.
pub(crate) fn choose<'t, T: Trees>(trees: &T, txn: &'t TxnOp, at: Revision) -> Result<Branch<'t>> {
    let (mut succeeded, mut compared) = (true, 0);
    for compare in &txn.compares {
        compared += 1;
        if !holds(trees, compare, at)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let mut nested = Vec::new();
    for op in ops {
        if let Op::Txn(txn) = op {
            nested.push(choose(trees, txn, at)?);
        }
    }
    Ok(Branch { succeeded, ops, nested, compared })
}

/// Whether every key of the compare's interval satisfies it. Without a key there, a value satisfies
/// nothing and anything else is zero.
fn holds<T: Trees>(trees: &T, compare: &Compare, at: Revision) -> Result<bool> {
    if compare.keys.end == RangeEnd::Single {
        return match find(trees, &compare.keys.key, at)? {
            None => Ok(holds_without_key(compare)),
            Some(found) => holds_for(trees, compare, found),
        };
    }
    let mut walk = Walk::forward(trees, &compare.keys, at);
    let mut any = false;
    while let Some((_, found)) = walk.next()? {
        if !holds_for(trees, compare, found)? {
            return Ok(false);
        }
        any = true;
    }
    Ok(any || holds_without_key(compare))
}

const NOTHING: KvRef<'static> = KvRef { key: &[], create: 0, modified: 0, version: 0, value: &[], lease: 0 };

fn holds_without_key(compare: &Compare) -> bool {
    !matches!(compare.target, CompareTarget::Value(_)) && compare_pair(compare, NOTHING)
}

fn holds_for<T: Trees>(trees: &T, compare: &Compare, found: Found) -> Result<bool> {
    let modified = found.revision.main;
    match found.life {
        Some(life) if !matches!(compare.target, CompareTarget::Value(_)) => {
            let (create, version, lease) = (life.create, life.version, life.lease);
            Ok(compare_pair(compare, KvRef { create, modified, version, lease, ..NOTHING }))
        }
        _ => {
            let record = record_at(trees, found.revision)?;
            Ok(compare_pair(compare, pair_of(&record)?))
        }
    }
}

/// The fields of a record that is a pair.
pub(crate) fn pair_of(record: &Record) -> Result<KvRef<'_>> {
    record.kv().ok_or_else(|| Error::from(damaged("rev", "record of a pair")))
}

fn compare_pair(compare: &Compare, kv: KvRef<'_>) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(n) => kv.version.cmp(n),
        CompareTarget::Create(n) => kv.create.cmp(n),
        CompareTarget::Mod(n) => kv.modified.cmp(n),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(n) => kv.lease.cmp(n),
        CompareTarget::Unknown => Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown => true,
    }
}

/// Checks a range's explicit revision against the state before the transaction.
pub(crate) fn check_revision(revision: i64, current: i64, compact: i64) -> Result<(), OpError> {
    match revision {
        0 => Ok(()),
        n if n > current => Err(OpError::FutureRevision),
        n if n < compact => Err(OpError::Compacted),
        _ => Ok(()),
    }
}

/// The checks of a chosen path.
struct Checks<'a> {
    leases: &'a dyn Fn(i64) -> bool,
    /// Intervals that the path deletes before the op that is being checked.
    deleted: Vec<&'a KeyRange>,
}

impl Batch<'_> {
    /// Applies a transaction, nested ones included, in one revision.
    ///
    /// # Errors
    /// Of the first op of the chosen path that fails its check: [`OpError::FutureRevision`] or
    /// [`OpError::Compacted`] for a range, [`OpError::KeyNotFound`] or [`OpError::LeaseNotFound`] for a put.
    pub fn txn(&mut self, op: &TxnOp, leases: &dyn Fn(i64) -> bool) -> Result<TxnDone, OpError> {
        let done = self.keeping_failure(|batch| {
            let path = choose(batch.trees(), op, NEWEST)?;
            batch.end_compares(path.compared());
            batch.check(&path, &mut Checks { leases, deleted: Vec::new() })?;
            batch.run(&path)
        });
        self.end_request();
        done
    }

    fn check<'t>(&self, path: &Branch<'t>, checks: &mut Checks<'t>) -> Result<(), OpError> {
        let mut nested = path.nested.iter();
        for op in path.ops {
            match op {
                Op::Range(_) if planted("txn-range-not-checked") => {}
                Op::Range(op) => check_revision(op.revision, self.revision(), self.compact_revision())?,
                Op::Put(op) => self.check_put(op, checks)?,
                Op::Delete(op) => checks.deleted.push(&op.keys),
                Op::Txn(_) => self.check(next_branch(&mut nested), checks)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, op: &PutOp, checks: &Checks<'_>) -> Result<(), OpError> {
        if op.value.is_none() || op.lease.is_none() {
            let exists = find(self.trees(), &op.key, NEWEST)?.is_some();
            if !exists || checks.deleted.iter().any(|keys| keys.contains(&op.key)) {
                return Err(OpError::KeyNotFound);
            }
        }
        if lease_is_granted(op, checks.leases) { Ok(()) } else { Err(OpError::LeaseNotFound) }
    }

    fn run(&mut self, path: &Branch<'_>) -> Result<TxnDone, OpError> {
        let mut nested = path.nested.iter();
        let mut responses = Vec::with_capacity(path.ops.len());
        for op in path.ops {
            responses.push(match op {
                Op::Range(op) => OpDone::Range(self.defer(op)?),
                Op::Put(op) => OpDone::Put(self.write_put(op)?),
                Op::Delete(op) => OpDone::Delete(self.write_delete(op)?),
                Op::Txn(_) => OpDone::Txn(self.run(next_branch(&mut nested))?),
            });
        }
        Ok(TxnDone { revision: self.revision_under_way(), succeeded: path.succeeded, responses })
    }
}

fn next_branch<'p, 't>(nested: &mut std::slice::Iter<'p, Branch<'t>>) -> &'p Branch<'t> {
    nested.next().expect("a branch was chosen for each transaction of the path")
}
