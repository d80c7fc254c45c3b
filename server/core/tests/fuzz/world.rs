// SPDX-License-Identifier: Apache-2.0
//! A state over a small store on a simulated disk, to which entries are applied as they stand in a log.
//!
//! Owns      the store of one input.
//! Holds     a failure of the engine is never taken for one of the input.
//! Never     goes through Raft.

use bytes::Bytes;
use cairn_core::{
    lessor::Lessor,
    replica::{
        Committed,
        log::{EntryKind, LogEntry},
    },
    state::{ClusterView, Fatal, Outcome, State},
};
use cairn_engine::{Db, InstallId, Options, sim::SimVfs};
use cairn_mvcc::{KeyRange, RangeOp, SCHEMA, SmallTree, Store};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

const MIN_TTL_S: i64 = 2;

pub struct World {
    db: Db,
    state: State,
    /// Requests that were applied and not refused.
    pub done: usize,
}

/// Everything that entries decide.
#[derive(PartialEq, Debug)]
pub struct Whole {
    applied: (u64, u64),
    cluster: ClusterView,
    revision: i64,
    pairs: Vec<Bytes>,
    small: Vec<Vec<(Bytes, Bytes)>>,
}

impl World {
    pub fn new() -> World {
        let mut options = Options::default();
        options.vfs = Arc::new(SimVfs::new());
        options.map_reserve = 1 << 20;
        let db = Db::create(Path::new("/d"), SCHEMA, InstallId(1), options).expect("a new store");
        let state = open(&db, (0, 0));
        World { db, state, done: 0 }
    }

    /// Applies entries in one batch; false if one is of no version.
    pub fn apply(&mut self, entries: &[(EntryKind, Bytes)]) -> bool {
        let first = self.state.applied().0 + 1;
        let entry = |(index, (kind, data)): (u64, &(EntryKind, Bytes))| Committed {
            entry: LogEntry { index, term: 1, kind: *kind, data: data.clone() },
            carried: None,
        };
        let entries = (first..).zip(entries).map(entry).collect();
        let mut outcome: Outcome<()> = Outcome::default();
        match self.state.apply(5_000, entries, &mut outcome, |_, good| self.done += usize::from(good)) {
            Ok(()) => true,
            Err(Fatal::Entry { .. } | Fatal::NewerCluster { .. }) => false,
            Err(other) => panic!("the engine failed: {other}"),
        }
    }

    pub fn whole(&self) -> Whole {
        let reader = self.state.reader();
        let all = reader.range(&RangeOp::new(KeyRange::all())).expect("it is read");
        let trees = [SmallTree::Lease, SmallTree::Alarm, SmallTree::Member, SmallTree::Auth, SmallTree::Meta];
        Whole {
            applied: self.state.applied(),
            cluster: self.state.cluster().clone(),
            revision: all.revision,
            pairs: all.kvs,
            small: trees.map(|tree| reader.small_scan(tree).expect("it is read")).into(),
        }
    }

    /// The same as another run finds it.
    pub fn reopened(self) -> World {
        let applied = self.state.applied();
        drop(self.state);
        let state = open(&self.db, applied);
        World { db: self.db, state, done: self.done }
    }
}

fn open(db: &Db, applied: (u64, u64)) -> State {
    let store = Store::open(db.clone()).expect("it opens");
    let lessor = Arc::new(Mutex::new(Lessor::new(MIN_TTL_S, true)));
    State::open(store, lessor, applied).expect("what entries left can be read again")
}
