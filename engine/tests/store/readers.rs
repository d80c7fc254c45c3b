// SPDX-License-Identifier: Apache-2.0
//! A reader that is an hour old, and a snapshot that stalls: what they pin, what is given back, and what the figures say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::sim::SimVfs;
use cairn_engine::snapshot::SnapshotLimits;
use cairn_engine::{Db, Error, PurgeRequest, View};

use crate::model::{Commit, INSTALL, LOG, Model, SCHEMA, key, read, tiny};

const SEED: u64 = 41;
const MINUTE_MS: u64 = 60_000;
/// Commits of a minute.
const COMMITS: u64 = 6;
/// The log keeps the entries of so many commits.
const KEPT: u64 = 60;
const LIMITS: SnapshotLimits = SnapshotLimits { stall_ms: 30 * MINUTE_MS, pinned_bytes: u64::MAX };

struct Store {
    db: Db,
    model: Model,
    minute: u64,
}

impl Store {
    /// A minute of a member's life: commits, purges of what is old, a checkpoint, a look at who reads.
    fn minute(&mut self) -> u64 {
        self.minute += 1;
        for _ in 0..COMMITS {
            let commit = Commit::new(SEED, self.model.applied + 1, true);
            commit.run(&self.db, true).expect("commits");
            self.model.apply(&commit);
        }
        let below = key(self.model.applied.saturating_sub(KEPT), 0);
        self.model.log.retain(|key, _| key[..] >= below[..]);
        self.db.purge(&LOG, PurgeRequest::Below(below), self.db.view().seq());
        self.db.checkpoint().expect("makes a checkpoint");
        let now_ms = self.minute * MINUTE_MS;
        self.db.note_readers(now_ms);
        self.db.limit_snapshots(now_ms, LIMITS)
    }

    /// Bytes of all pages that the newest checkpoint needs.
    fn used_bytes(&self) -> u64 {
        self.db.stats().used_bytes
    }
}

fn all_of(view: &View) -> Vec<BTreeMap<Vec<u8>, Vec<u8>>> {
    SCHEMA.iter().map(|tree| read(view, tree).expect("reads")).collect()
}

#[test]
fn a_reader_an_hour_old_and_a_snapshot_that_stalls_pin_what_they_see_and_give_it_back() {
    let mut options = tiny(Arc::new(SimVfs::new()));
    options.purge_bytes = u64::MAX;
    let db = Db::create(Path::new("/member"), SCHEMA, INSTALL, options).expect("a new store");
    let mut store = Store { db, model: Model::default(), minute: 0 };
    for _ in 0..30 {
        store.minute();
    }
    let stats = store.db.stats();
    assert_eq!((stats.oldest_reader_ms, stats.pinned_bytes), (0, 0), "nobody reads");

    let (view, sees_bytes) = (store.db.view(), store.used_bytes());
    let mut seen = Vec::new();
    let (mut reader_alone, mut both, mut after_snapshot) = (0, 0, 0);
    let (mut snapshot, mut snapshot_bytes) = (None, 0);
    for minute in 1..=61 {
        if minute == 11 {
            snapshot = Some(store.db.snapshot().expect("pins"));
            snapshot_bytes = store.used_bytes();
        }
        let ended = store.minute();
        // It was first seen to move when the limits were looked at for the first time.
        assert_eq!(ended, u64::from(minute == 41), "minute {minute}");
        let stats = store.db.stats();
        assert_eq!(stats.oldest_reader_ms, (minute - 1) * MINUTE_MS, "seen since the first look");
        let most = sees_bytes + if (11..=41).contains(&minute) { snapshot_bytes } else { 0 };
        assert!(stats.pinned_bytes <= most, "minute {minute}: {} pinned of {most}", stats.pinned_bytes);
        match minute {
            // Of an ordered tree a view sees what is newest until its overlay is frozen.
            1 => seen = all_of(&view),
            10 => reader_alone = stats.pinned_bytes,
            40 => both = stats.pinned_bytes,
            61 => after_snapshot = stats.pinned_bytes,
            _ => {}
        }
    }
    println!(
        "the reader sees {sees_bytes} bytes: {reader_alone} pinned after ten minutes, {both} with the snapshot, \
         {after_snapshot} after an hour"
    );
    assert!(both > reader_alone, "the snapshot pins more");
    assert!(after_snapshot < both, "what the snapshot alone could see was given back");
    assert!(after_snapshot > 0);
    let snapshot = snapshot.expect("was taken");
    let mut stream = snapshot.stream();
    stream.next().expect("the header needs no page");
    let error = stream.next().expect_err("it was let go of");
    assert!(matches!(error, Error::SnapshotEnded { .. }), "{error}");
    assert_eq!(store.db.stats().snapshots, 0);
    let again = all_of(&view);
    assert!(seen == again, "an hour later each byte is as it was seen first");

    let file_bytes = store.db.stats().file_bytes;
    drop(view);
    for _ in 0..6 {
        store.minute();
    }
    let stats = store.db.stats();
    assert_eq!((stats.oldest_reader_ms, stats.pinned_bytes), (0, 0), "{stats:?}");
    for _ in 0..30 {
        store.minute();
    }
    assert!(store.db.stats().file_bytes <= file_bytes, "what was given back is used again");
    store.db.verify().expect("whole");
}
