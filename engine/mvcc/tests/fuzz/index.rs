// SPDX-License-Identifier: Apache-2.0
//! Long histories of two keys: more revisions than a cell of the index holds, deletes, compactions and purges.
//!
//! Holds     each key at each revision that can be read is what was written last before it.

use bytes::Bytes;
use cairn_engine::fuzz::Target;
use cairn_mvcc::{DeleteOp, KeyRange, PutOp, RangeEnd, Revision};

use crate::model::Model;
use crate::program::Program;
use crate::world::World;

pub const MODEL: Target = Target {
    name: "index-model",
    run,
    fix: |_| {},
    samples: || crate::random_samples(run, 32),
    anchors: crate::spread,
};

const STEPS_MAX: usize = 7;
/// Writes of one step; a cell holds 64 revisions.
const BURST_MAX: usize = 80;
const KEYS: [&str; 2] =
    ["a", "a key that does not fit the short form of the history's records, and then some"];

fn burst(key: &Bytes, count: usize, world: &mut World, model: &mut Model) {
    let op = PutOp { key: key.clone(), value: Some("v".into()), lease: Some(0), prev_kv: false };
    let (done, _) =
        world.apply(|batch, leases| (0..count).try_for_each(|_| batch.put(&op, leases).map(drop)));
    done.expect("a plain put");
    (0..count).for_each(|_| drop(model.put(&op)));
}

fn delete(key: &Bytes, world: &mut World, model: &mut Model) {
    let op = DeleteOp { keys: KeyRange { key: key.clone(), end: RangeEnd::Single }, prev_kv: false };
    let (done, _) = world.apply(|batch, _| batch.delete_range(&op));
    model.delete(&op);
    assert_eq!(done.expect("a plain delete").revision, model.revision);
}

/// Compares both keys at one revision.
fn look(revision: i64, world: &World, model: &Model) {
    for key in KEYS {
        let at = Revision { main: revision, sub: i64::MAX };
        let last = model.changes.iter().rev().find(|change| change.at <= at && change.key == key);
        let want = last.and_then(|change| change.pair.as_ref()).map(|pair| pair.message());
        let got = world.reader().get_at(key.as_bytes(), revision).expect("it can be read");
        assert_eq!(got, want, "{key:.3} at {revision} of {}", model.revision);
    }
}

fn run(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let (mut world, mut model) = (World::new(), Model::new());
    for _ in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        let key = Bytes::from_static(KEYS[usize::from(op >> 4) % 2].as_bytes());
        let oldest = model.compact.max(1);
        let between = |program: &mut Program<'_>| {
            let draw =
                i64::from(u16::from_le_bytes([program.next().unwrap_or(0), program.next().unwrap_or(0)]));
            oldest + draw % (model.revision - oldest + 1)
        };
        match op % 8 {
            0 | 1 => burst(&key, 1 + program.below(BURST_MAX), &mut world, &mut model),
            2 | 3 => delete(&key, &mut world, &mut model),
            4 => {
                let revision = between(&mut program);
                let (done, _) = world.apply(|batch, _| batch.compact(revision));
                assert_eq!(done.is_ok(), model.compact(revision).is_ok());
            }
            5 => {
                world.purge();
            }
            6 => world.checkpoint(),
            _ => {
                let revision = between(&mut program);
                look(revision, &world, &model);
            }
        }
    }
    let oldest = model.compact.max(1);
    let step = ((model.revision - oldest) / 5).max(1);
    let mut revision = oldest;
    while revision <= model.revision {
        look(revision, &world, &model);
        revision += step;
    }
    model.revision - oldest > 64
}
