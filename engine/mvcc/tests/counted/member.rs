// SPDX-License-Identifier: Apache-2.0
//! A store with its log, as a member runs them: a group of puts is one batch of the log and one of the store.
//!
//! Owns      the order of those calls, and when a checkpoint is made.
//! Holds     keys and values have one size each, as in the design's figures.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::{Budget, Progress, Vfs};
use cairn_engine::wal::{Base, Entry, Record, Wal, WalOptions};
use cairn_engine::{Db, InstallId, Options};
use cairn_mvcc::{KeyRange, PurgeBudget, PurgeProgress, PutOp, RangeEnd, RangeOp, SCHEMA, Store};

pub const KEY_BYTES: usize = 32;
pub const VALUE_BYTES: usize = 512;
/// Puts that share a sync.
pub const GROUP: u64 = 100;
/// What a put's entry of the log has beside key and value.
const ENVELOPE_BYTES: usize = 24;

const INSTALL: InstallId = InstallId(5);

pub struct Member {
    pub db: Db,
    pub store: Store,
    wal: Wal,
    applied: u64,
    now_ms: u64,
}

pub fn key(n: u64) -> Bytes {
    let mut key = format!("/registry/{n:0width$x}", width = KEY_BYTES - 10).into_bytes();
    key.truncate(KEY_BYTES);
    key.into()
}

/// The `n`th of numbers that look drawn by chance.
pub fn scatter(n: u64) -> u64 {
    let z = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

pub fn options(vfs: &Arc<dyn Vfs>) -> Options {
    let mut options = Options::default();
    // As many addresses as valgrind gives.
    options.map_reserve = 1 << 32;
    options.vfs = Arc::clone(vfs);
    options.overlay_bytes = 4 << 20;
    options
}

impl Member {
    pub fn new(vfs: &Arc<dyn Vfs>, dir: &Path) -> Member {
        let mut log = WalOptions::new(Arc::clone(vfs), 1, 7);
        (log.first_segment_bytes, log.segment_bytes) = (1 << 20, 1 << 20);
        let base = Base { index: 0, term: 0, install: INSTALL };
        let wal = Wal::create(&dir.join("wal"), log, base).expect("a new log");
        let db = Db::create(dir, SCHEMA, INSTALL, options(vfs)).expect("a new store");
        let store = Store::open(db.clone()).expect("opens");
        Member { db, store, wal, applied: 0, now_ms: 0 }
    }

    /// Puts these keys as one group: durable in the log, then applied.
    pub fn put(&mut self, keys: impl Iterator<Item = u64>) {
        let puts: Vec<PutOp> = keys
            .map(|n| {
                let value = Bytes::from(vec![n as u8; VALUE_BYTES]);
                PutOp { key: key(n), value: Some(value), lease: Some(0), prev_kv: false }
            })
            .collect();
        let mut records = Vec::new();
        for put in &puts {
            self.applied += 1;
            let bytes = put.key.len() + put.value.as_ref().map_or(0, Bytes::len) + ENVELOPE_BYTES;
            let data = Bytes::from(vec![1; bytes]);
            records.push(Record::Entry(Entry { index: self.applied, term: 1, kind: 0, data }));
        }
        self.wal.append(records).expect("appends");
        self.wal.sync().expect("syncs");
        self.db.log_durable(self.applied);
        self.apply(&puts);
    }

    /// Applies puts that the log has.
    pub fn apply(&mut self, puts: &[PutOp]) {
        let mut batch = self.store.batch().expect("begins");
        for put in puts {
            batch.put(put, &|_| true).expect("applies");
        }
        batch.commit(self.applied, 1).expect("commits");
    }

    /// What is due: a checkpoint, and then the log's files.
    pub fn upkeep(&mut self) {
        if self.db.checkpoint_due(self.now_ms).is_some() {
            self.checkpoint();
        }
    }

    pub fn checkpoint(&self) {
        self.db.checkpoint().expect("makes a checkpoint");
        self.wal.release(self.db.log_floor()).expect("lets segments go");
        while self.wal.prepare_spare(Budget::UNBOUNDED).expect("prepares") == Progress::More {}
    }

    /// Compacts at the current revision and purges all of what that makes unreadable.
    pub fn compact(&mut self) {
        let mut batch = self.store.batch().expect("begins");
        batch.compact(batch.revision()).expect("is new");
        batch.commit(self.applied, 1).expect("commits");
        let budget = PurgeBudget { entries: 1000, break_holds: false };
        loop {
            match self.store.purge_step(budget).expect("purges") {
                PurgeProgress::More | PurgeProgress::Done(_) => {}
                PurgeProgress::Held(revision) => panic!("nobody reads at {revision}"),
                PurgeProgress::AwaitsCheckpoint => self.checkpoint(),
                PurgeProgress::Idle if self.db.purges_waiting() > 0 => self.checkpoint(),
                PurgeProgress::Idle => return,
            }
        }
    }
}

/// A read of one key.
pub fn get(n: u64) -> RangeOp {
    RangeOp::new(KeyRange { key: key(n), end: RangeEnd::Single })
}
