// SPDX-License-Identifier: Apache-2.0
//! Puts, deletes, transactions, compactions and reads of a few keys, with upkeep between them.
//!
//! Holds     each answer, and in the end each pair at the newest revisions that can be read, is the model's.

use bytes::Bytes;
use cairn_engine::fuzz::Target;
use cairn_mvcc::{
    Compare, CompareResult, CompareTarget, DeleteOp, KeyRange, Op, OpDone, PutOp, RangeEnd, RangeOp,
    SortOrder, SortTarget, TxnOp,
};

use crate::model::{Answer, Model, name, ranged};
use crate::program::Program;
use crate::world::World;

pub const MODEL: Target = Target {
    name: "mvcc-model",
    run,
    fix: |_| {},
    samples: || crate::random_samples(run, 31),
    anchors: crate::spread,
};

const STEPS_MAX: usize = 12;
const OPS_MAX: usize = 3;
const DEPTH_MAX: usize = 2;
const LEASE: i64 = 7;

fn key(program: &mut Program<'_>) -> Bytes {
    match program.below(8) {
        0 => Bytes::copy_from_slice(program.piece()),
        n => Bytes::from(format!("k{}", n % 4)),
    }
}

fn keys(program: &mut Program<'_>) -> KeyRange {
    let end = match program.below(4) {
        0 | 1 => RangeEnd::Single,
        2 => RangeEnd::Until(key(program)),
        _ => RangeEnd::FromKey,
    };
    KeyRange { key: key(program), end }
}

fn put(program: &mut Program<'_>) -> PutOp {
    let how = program.next().unwrap_or(0);
    PutOp {
        key: key(program),
        value: (how & 3 != 3).then(|| Bytes::from(vec![how; usize::from(how >> 2)])),
        lease: [Some(0), Some(LEASE), Some(99), None][program.below(4)],
        prev_kv: how & 4 != 0,
    }
}

fn delete(program: &mut Program<'_>) -> DeleteOp {
    DeleteOp { prev_kv: program.below(2) == 0, keys: keys(program) }
}

/// A small number more often than any.
fn number(program: &mut Program<'_>) -> i64 {
    match program.next().unwrap_or(0) {
        255 => program.number(),
        n => i64::from(n % 40) - 2,
    }
}

fn range(program: &mut Program<'_>) -> RangeOp {
    let how = program.next().unwrap_or(0);
    let mut op = RangeOp::new(keys(program));
    op.revision = number(program);
    op.limit = if how & 1 == 0 { 0 } else { number(program) };
    op.sort_order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][usize::from(how >> 1) % 3];
    op.sort_target =
        [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
            [usize::from(how >> 3) % 5];
    (op.keys_only, op.count_only) = (how & 0x40 != 0, how & 0x80 != 0);
    if how == 77 {
        (op.min_mod, op.max_mod) = (number(program), number(program));
        (op.min_create, op.max_create) = (number(program), number(program));
    }
    op
}

fn txn(program: &mut Program<'_>, depth: usize) -> TxnOp {
    let compare = |program: &mut Program<'_>| {
        let n = number(program);
        let target = match program.below(6) {
            0 => CompareTarget::Version(n),
            1 => CompareTarget::Create(n),
            2 => CompareTarget::Mod(n),
            3 => CompareTarget::Value(Bytes::from(vec![n as u8; n.clamp(0, 9) as usize])),
            4 => CompareTarget::Lease(n),
            _ => CompareTarget::Unknown,
        };
        let results = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::Unknown,
        ];
        Compare { keys: keys(program), target, result: results[program.below(5)] }
    };
    let ops = |program: &mut Program<'_>| -> Vec<Op> {
        (0..program.below(OPS_MAX + 1))
            .map(|_| match program.below(5) {
                0 => Op::Range(range(program)),
                1 => Op::Delete(delete(program)),
                2 if depth > 0 => Op::Txn(txn(program, depth - 1)),
                _ => Op::Put(put(program)),
            })
            .collect()
    };
    let compares = (0..program.below(3)).map(|_| compare(program)).collect();
    TxnOp { compares, success: ops(program), failure: ops(program) }
}

fn answered(world: &World, done: OpDone) -> Answer {
    match done {
        OpDone::Range(deferred) => {
            Answer::Range(ranged(world.reader().range_deferred(&deferred).expect("held")))
        }
        OpDone::Put(done) => Answer::Put { revision: done.revision, prev: done.prev_kv },
        OpDone::Delete(done) => {
            Answer::Delete { revision: done.revision, deleted: done.deleted, prev: done.prev_kvs }
        }
        OpDone::Txn(done) => Answer::Txn {
            revision: done.revision,
            succeeded: done.succeeded,
            responses: done.responses.into_iter().map(|done| answered(world, done)).collect(),
        },
    }
}

/// One step; true if it was a request that was carried out.
fn step(op: u8, program: &mut Program<'_>, world: &mut World, model: &mut Model) -> bool {
    let (got, want) = match op % 16 {
        0..=4 => {
            let op = put(program);
            let (done, _) = world.apply(|batch, leases| batch.put(&op, leases).map(OpDone::Put));
            (done, model.put(&op))
        }
        5 | 6 => {
            let op = delete(program);
            let (done, _) = world.apply(|batch, _| batch.delete_range(&op).map(OpDone::Delete));
            (done, Ok(model.delete(&op)))
        }
        7..=9 => {
            let op = txn(program, DEPTH_MAX);
            let (done, _) = world.apply(|batch, leases| batch.txn(&op, leases).map(OpDone::Txn));
            (done, model.txn(&op))
        }
        10 | 11 => {
            let op = range(program);
            let got = world.reader().range(&op).map(ranged);
            assert_eq!(got.map_err(|error| name(&error)), model.range(&op), "{op:?}");
            return false;
        }
        12 => {
            let revision = number(program);
            let (done, _) = world.apply(|batch, _| batch.compact(revision));
            assert_eq!(done.map_err(|error| name(&error)), model.compact(revision), "compact {revision}");
            return false;
        }
        13 => {
            world.leases.insert(LEASE);
            model.leases.insert(LEASE);
            return false;
        }
        14 => {
            world.purge();
            return false;
        }
        _ => {
            if program.below(4) == 0 {
                world.reopen();
            } else {
                world.checkpoint();
            }
            return false;
        }
    };
    let good = got.is_ok();
    assert_eq!(got.map(|done| answered(world, done)).map_err(|error| name(&error)), want);
    good
}

fn run(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let (mut world, mut model) = (World::new(), Model::new());
    let mut done = 0;
    for _ in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        done += usize::from(step(op, &mut program, &mut world, &mut model));
    }
    let reader = world.reader();
    let oldest = model.compact.max(1).max(model.revision - 4);
    for revision in oldest..=model.revision {
        let all = RangeOp { revision, ..RangeOp::new(KeyRange::all()) };
        let got = reader.range(&all).map(ranged).map_err(|error| name(&error));
        assert_eq!(got, model.range(&all), "at {revision}");
    }
    done > 2
}
