// SPDX-License-Identifier: Apache-2.0
//! A store on a simulated disk, with what stands around it: granted leases, a log index, checkpoints.
//!
//! Owns      the disk, the store and the options under which few entries make many nodes.
//! Holds     each request is a batch of its own, and its place in the log is its number; requests that
//!           are logged are applied again after a power loss, as a log would have them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::io::Vfs;
use cairn_engine::sim::SimVfs;
use cairn_engine::{Db, InstallId, Options, inspect};
use cairn_mvcc::{
    Batch, OpDone, OpError, PurgeBudget, PurgeProgress, Reader, RevisionEvents, SCHEMA, Store, Stored,
};

const DIR: &str = "/member";

/// A request that can be applied again.
pub type Request = Arc<dyn Fn(&mut Batch<'_>, &dyn Fn(i64) -> bool) -> Result<OpDone, OpError>>;

pub struct World {
    disk: SimVfs,
    /// By log index less one, with the leases of the time.
    log: Vec<(Request, BTreeSet<i64>)>,
    db: Option<Db>,
    store: Option<Store>,
    pub leases: BTreeSet<i64>,
    applied: u64,
}

/// Options under which a few hundred keys split and merge nodes.
pub fn tiny(disk: &SimVfs) -> Options {
    let mut options = Options::default();
    options.vfs = Arc::new(disk.clone());
    options.map_reserve = 1 << 20;
    options.node_bytes_max = 900;
    // A purge of more than a few nodes takes several checkpoints.
    options.purge_bytes = 1 << 13;
    options
}

impl World {
    pub fn new() -> World {
        let disk = SimVfs::new();
        let db = Db::create(Path::new(DIR), SCHEMA, InstallId(7), tiny(&disk)).expect("a new store");
        let store = Store::open(db.clone()).expect("opens");
        World { disk, log: Vec::new(), db: Some(db), store: Some(store), leases: BTreeSet::new(), applied: 0 }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("open between steps")
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("open between steps")
    }

    /// The state that the newest checkpoint has, as one sees it who only reads the disk.
    pub fn stored(&self) -> Stored {
        let vfs: Arc<dyn Vfs> = Arc::new(self.disk.clone());
        let looked = inspect::Store::open(&vfs, Path::new(DIR), SCHEMA).expect("opens beside the writer");
        Stored::new(looked.view()).expect("reads")
    }

    pub fn reader(&self) -> Reader {
        self.store().reader()
    }

    /// Applies one batch. A refused request in it does not keep the rest from being committed.
    pub fn apply<T>(
        &mut self,
        requests: impl FnOnce(&mut Batch<'_>, &dyn Fn(i64) -> bool) -> Result<T, OpError>,
    ) -> (Result<T, OpError>, Vec<Arc<RevisionEvents>>) {
        let leases = &self.leases;
        let mut batch = self.store.as_mut().expect("open between steps").batch().expect("begins");
        let done = requests(&mut batch, &|lease| leases.contains(&lease));
        self.applied += 1;
        let events = batch.commit(self.applied, 1).expect("commits");
        (done, events)
    }

    /// Applies a request and keeps it, so that [`lose_power`](World::lose_power) can be survived.
    pub fn log(&mut self, request: &Request) -> (Result<OpDone, OpError>, Vec<Arc<RevisionEvents>>) {
        self.log.push((Arc::clone(request), self.leases.clone()));
        self.apply(|batch, leases| request(batch, leases))
    }

    /// Loses what the disk had not synced, opens what is left, and applies the log after it. All requests
    /// so far came by [`log`](World::log). Gives how many were applied again.
    pub fn lose_power(&mut self) -> usize {
        assert_eq!(self.log.len() as u64, self.applied, "every request was logged");
        self.store = None;
        self.db = None;
        self.disk = self.disk.after_power_loss();
        let (db, recovered) = Db::open(Path::new(DIR), SCHEMA, tiny(&self.disk)).expect("opens");
        self.store = Some(Store::open(db.clone()).expect("opens"));
        self.db = Some(db);
        self.applied = recovered.meta.applied_index;
        let again = self.log.split_off(self.applied as usize);
        let now = std::mem::take(&mut self.leases);
        for (request, leases) in &again {
            self.leases.clone_from(leases);
            // Answers and events were compared when they were first given.
            let (_answer, _events) = self.log(request);
        }
        self.leases = now;
        again.len()
    }

    pub fn checkpoint(&self) {
        self.db().checkpoint().expect("makes a checkpoint");
    }

    /// One step of the purge.
    pub fn purge_step(&mut self, entries: usize, break_holds: bool) -> PurgeProgress {
        let store = self.store.as_mut().expect("open between steps");
        store.purge_step(PurgeBudget { entries, break_holds }).expect("purges")
    }

    /// Purges all that can be, with the checkpoints that it takes.
    pub fn purge(&mut self) -> PurgeProgress {
        let mut last = PurgeProgress::Idle;
        loop {
            match self.purge_step(100, false) {
                PurgeProgress::More => {}
                held @ PurgeProgress::Held(_) => return held,
                done @ PurgeProgress::Done(_) => last = done,
                PurgeProgress::AwaitsCheckpoint => self.checkpoint(),
                PurgeProgress::Idle if self.db().purges_waiting() > 0 => self.checkpoint(),
                PurgeProgress::Idle => return last,
            }
        }
    }

    /// Ends the process in good order, all in the tree file, and starts another.
    pub fn reopen(&mut self) {
        self.checkpoint();
        self.db().confirm().expect("syncs");
        self.store = None;
        self.db = None;
        let (db, _) = Db::open(Path::new(DIR), SCHEMA, tiny(&self.disk)).expect("opens");
        self.store = Some(Store::open(db.clone()).expect("opens"));
        self.db = Some(db);
    }
}
