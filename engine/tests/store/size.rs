// SPDX-License-Identifier: Apache-2.0
//! The size of a store is a high-water mark: it stays over restarts and crashes, until it is lowered.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::sim::SimVfs;
use cairn_engine::{Db, PurgeRequest};

use crate::model::{Commit, LOG, SCHEMA, create, key, tiny};

const SEED: u64 = 8;
const DIR: &str = "/member";

fn open(disk: &SimVfs) -> Db {
    Db::open(Path::new(DIR), SCHEMA, tiny(Arc::new(disk.clone()))).expect("opens").0
}

/// What the store needs now.
fn needed(db: &Db) -> u64 {
    let stats = db.stats();
    stats.used_bytes + stats.pending_bytes + stats.overlay_bytes
}

/// A store that needs much less than it did, and the most that it needed.
fn emptied(disk: &SimVfs) -> (Db, u64) {
    let db = create(Arc::new(disk.clone()), Path::new(DIR)).expect("a new store");
    let mut most = 0;
    for index in 1..=60 {
        Commit::new(SEED, index, true).run(&db, true).expect("commits");
        assert!(db.raise_size() >= most, "it never falls");
        most = db.size();
        if index % 6 == 0 {
            db.checkpoint().expect("makes a checkpoint");
        }
    }
    db.purge(&LOG, PurgeRequest::Below(key(u64::MAX, 0)), db.view().seq());
    for index in 61..=80 {
        Commit::new(SEED, index, false).run(&db, true).expect("commits");
        db.checkpoint().expect("makes a checkpoint");
        assert!(db.raise_size() >= most, "it never falls");
        most = db.size();
    }
    assert!(needed(&db) < most / 2, "{} of {most} bytes", needed(&db));
    (db, most)
}

#[test]
fn what_a_store_needed_at_most_is_known_after_a_restart_and_a_power_loss() {
    let disk = SimVfs::new();
    let (db, most) = emptied(&disk);
    drop(db);
    assert_eq!(open(&disk.restarted()).size(), most);
    // The newest slot may be lost, and with it what rose in that checkpoint alone.
    assert_eq!(open(&disk.after_power_loss()).size(), most);
}

#[test]
fn a_mark_that_was_lowered_stays_low_after_a_restart() {
    let disk = SimVfs::new();
    let (db, most) = emptied(&disk);
    db.lower_size();
    let low = db.size();
    assert!(low < most / 2, "{low} of {most} bytes");
    assert!(db.checkpoint().expect("makes a checkpoint"), "of nothing, to write it down");
    assert!(!db.checkpoint().expect("looks"), "it is written down");
    db.confirm().expect("syncs");
    let kept = db.size();
    assert!(kept < most / 2);
    drop(db);
    assert_eq!(open(&disk.restarted()).size(), kept);
    assert_eq!(open(&disk.after_power_loss()).size(), kept);
}
