// SPDX-License-Identifier: Apache-2.0
//! A file that is larger than it should be gets smaller, beside whoever reads and writes, and never below what
//! anybody can reach.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::io::Vfs;
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::{Aim, Db, PurgeRequest, Shrinking};

use crate::model::{Commit, LOG, Model, SCHEMA, key, read, tiny};

const SEED: u64 = 21;

/// Bytes to which the size of the file is rounded up.
const CUT_BYTES: u64 = 1 << 16;

struct Store {
    db: Db,
    model: Model,
    now_ms: u64,
}

impl Store {
    /// A store of which the older half of the log was purged, so that its live half is the upper one.
    fn half_empty(vfs: Arc<dyn Vfs>, dir: &Path) -> Store {
        let mut options = tiny(vfs);
        options.relocate_bytes = 1 << 14;
        options.purge_bytes = 1 << 22;
        let db = Db::create(dir, SCHEMA, crate::model::INSTALL, options).expect("a new store");
        let mut store = Store { db, model: Model::default(), now_ms: 0 };
        for n in 0..200 {
            store.write();
            if n % 4 == 0 {
                store.db.checkpoint().expect("makes a checkpoint");
            }
        }
        let half = key(100, 0);
        store.model.log.retain(|key, _| key[..] >= half[..]);
        store.db.purge(&LOG, PurgeRequest::Below(half), store.db.view().seq());
        for _ in 0..2 {
            store.write();
            store.db.checkpoint().expect("makes a checkpoint");
        }
        assert_eq!(store.db.purges_waiting(), 0);
        store
    }

    fn write(&mut self) {
        let commit = Commit::new(SEED, self.model.applied + 1, true);
        commit.run(&self.db, true).expect("commits");
        self.model.apply(&commit);
    }

    fn is_at_goal(&self) -> bool {
        let stats = self.db.stats();
        stats.file_bytes <= (stats.used_bytes * 5 / 4).next_multiple_of(CUT_BYTES)
    }

    /// Makes checkpoints for as long as they help. Answers how many, and what the end of it was.
    fn shrink(&mut self, aim: Aim, mut beside: impl FnMut(&mut Store)) -> (u64, Shrinking) {
        for made in 0..200 {
            self.now_ms += 1;
            match self.db.shrink(self.now_ms, aim).expect("goes on") {
                Shrinking::Checkpoint => {
                    assert!(self.db.checkpoint().expect("makes a checkpoint"), "it was asked for");
                }
                end => return (made, end),
            }
            beside(self);
            self.db.verify().expect("whole");
        }
        panic!("no end to it: {:?}", self.db.stats());
    }

    fn check(&self) {
        self.db.verify().expect("whole");
        self.model.check(&self.db.view(), &mut SplitMix::new(4)).expect("the store is the model");
    }
}

fn half_empty() -> Store {
    Store::half_empty(Arc::new(SimVfs::new()), Path::new("/member"))
}

#[test]
fn a_half_empty_file_shrinks_to_its_goal_beside_a_writer() {
    let mut store = half_empty();
    let before = store.db.stats();
    assert!(before.file_bytes > before.used_bytes * 3 / 2, "{before:?}");
    let mut writes = 0;
    let (checkpoints, end) = store.shrink(Aim::Goal, |store| {
        if writes < 10 {
            store.write();
            writes += 1;
        }
    });
    let after = store.db.stats();
    println!(
        "{} KiB with {} in use, then {} with {}, by {checkpoints} checkpoints",
        before.file_bytes >> 10,
        before.used_bytes >> 10,
        after.file_bytes >> 10,
        after.used_bytes >> 10
    );
    assert!(
        end == Shrinking::Done && store.is_at_goal() && checkpoints > 4 && writes > 2,
        "{end:?} {after:?}"
    );
    store.check();
}

#[test]
fn a_reader_in_the_tail_ends_the_attempt_and_is_served_on() {
    let mut store = half_empty();
    let view = store.db.view();
    let log = read(&view, &LOG).expect("reads");
    let (_, end) = store.shrink(Aim::Goal, |_| {});
    assert!(end == Shrinking::Readers && !store.is_at_goal(), "{end:?}");
    assert!(store.db.stats().pinned_bytes > 0);
    assert!(!store.db.tidy_due(), "no checkpoint would help");
    assert_eq!(read(&view, &LOG).expect("reads"), log);
    drop(view);
    // The reader's space comes back with a checkpoint.
    store.write();
    store.db.checkpoint().expect("makes a checkpoint");
    let (_, end) = store.shrink(Aim::Goal, |_| {});
    assert!(end == Shrinking::Done && store.is_at_goal(), "{end:?} {:?}", store.db.stats());
    store.check();
}

#[test]
fn the_background_waits_and_gives_up_a_part_at_a_time() {
    let mut store = half_empty();
    let before = store.db.stats().file_bytes;
    assert_eq!(
        store.db.shrink(1, Aim::Background).expect("looks"),
        Shrinking::Done,
        "seen for the first time"
    );
    assert_eq!(store.db.shrink(2, Aim::Background).expect("looks"), Shrinking::Done, "not for long enough");
    store.now_ms = 2;
    let mut rounds = 0;
    while !store.is_at_goal() {
        let size = store.db.stats().file_bytes;
        let (_, end) = store.shrink(Aim::Background, |_| {});
        assert_eq!(end, Shrinking::Done);
        rounds += u64::from(store.db.stats().file_bytes < size);
        assert!(store.now_ms < 1000, "{:?}", store.db.stats());
    }
    assert!(rounds >= 2, "{rounds} rounds from {before}");
    store.check();
}

#[test]
fn a_store_that_is_written_keeps_the_room_that_it_needs() {
    let mut store = half_empty();
    let mut sizes = Vec::new();
    for _ in 0..60 {
        store.write();
        store.now_ms += 1;
        store.db.shrink(store.now_ms, Aim::Background).expect("looks");
        store.db.checkpoint().expect("makes a checkpoint");
        sizes.push(store.db.stats().file_bytes);
    }
    let turns = sizes.windows(3).filter(|w| w[0] > w[1] && w[1] < w[2]).count();
    assert!(turns <= 2, "cut and grown by turns: {sizes:?}");
    store.check();
}

#[test]
fn real_files_lose_blocks_and_length() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::half_empty(Arc::new(cairn_engine::io::StdVfs), &dir.path().join("member"));
    let path = dir.path().join("member/engine.db");
    let size = || std::fs::metadata(&path).expect("is there").len();
    let before = size();
    let (_, end) = store.shrink(Aim::Goal, |_| {});
    assert_eq!(end, Shrinking::Done);
    assert!(size() == store.db.stats().file_bytes && size() < before * 3 / 4, "{before} to {}", size());
    store.check();
}
