// SPDX-License-Identifier: Apache-2.0
//! The engine as its owner, the daemon, runs it: log, then apply, with a thread for checkpoints and upkeep.
//!
//! Owns      one append tree by revision, the log before it, and the thread beside it.
//! Holds     1. an insert returns after its log entries are synced and applied;
//!           2. a delete is a log entry too: after a crash it is asked for again;
//!           3. a writer waits while two overlays are full, as the daemon has its proposers wait.
//! Never     sets an option that the daemon does not.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_engine::io::{Budget, Progress, StdVfs};
use cairn_engine::wal::{Base, Entry, Evidence, Record, Wal, WalOptions};
use cairn_engine::{
    Aim, CommitMeta, Db, InstallId, Options, PurgeRequest, Schema, Seq, Shrinking, TreeDef, TreeKind,
};

use crate::store::{Answer, Key, Size, Store, disk_bytes};
use crate::work;

const TREE: TreeDef = TreeDef { id: 1, name: "rev", kind: TreeKind::Append, leaf_pages: 8, weight: |_, _| 1 };
const SCHEMA: Schema = &[TREE];
const INSTALL: InstallId = InstallId(1);
const MEMBER: u64 = 1;
const TERM: u64 = 1;

/// Kinds of log entries: a key and its value; a revision below which all is deleted.
const PUT: u8 = 0;
const DELETE_BELOW: u8 = 1;

/// As the daemon's checkpointer has them.
const LOOK: Duration = Duration::from_millis(100);
const STEP: Budget = Budget::bytes(4 << 20);
const SHRINK_EVERY: Duration = Duration::from_secs(2);
const ENTRIES_KEPT: u64 = 5000;

/// Log bytes that a replay reads at a time.
const REPLAY_BYTES: usize = 8 << 20;

pub struct Cairn {
    shared: Arc<Shared>,
    upkeep: Option<JoinHandle<()>>,
    index: u64,
    /// All revisions below this one are deleted.
    floor: u64,
}

struct Shared {
    dir: PathBuf,
    db: Db,
    wal: Wal,
    begin: Instant,
    overlay_bytes_max: u64,
    applied: AtomicU64,
    asked: Mutex<Asked>,
    /// Something is asked of the upkeep thread.
    work: Condvar,
    /// It has made a checkpoint, or has failed.
    progress: Condvar,
}

#[derive(Default)]
struct Asked {
    checkpoint: bool,
    /// There is more to do than one step did.
    look: bool,
    stop: bool,
    failed: Option<String>,
}

impl Store for Cairn {
    fn open(dir: &Path) -> Answer<Cairn> {
        let wal_dir = dir.join("wal");
        let fresh = !Wal::exists(&StdVfs, &wal_dir)?;
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
        let wal_options = WalOptions::new(Arc::new(StdVfs), MEMBER, seed);
        let options = Options::default();
        let overlay_bytes_max = 2 * options.overlay_bytes;
        let (db, wal, applied, floor) = if fresh {
            let wal = Wal::create(&wal_dir, wal_options, Base { index: 0, term: 0, install: INSTALL })?;
            (Db::create(dir, SCHEMA, INSTALL, options)?, wal, 0, 0)
        } else {
            let (db, recovered) = Db::open(dir, SCHEMA, options)?;
            let CommitMeta { applied_index, applied_term, owner } = recovered.meta;
            let evidence = Evidence { applied_index, applied_term, install: INSTALL };
            let (wal, _) = Wal::open(&wal_dir, wal_options, evidence)?;
            (db, wal, applied_index, work::revision(&owner).unwrap_or(0))
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            db,
            wal,
            begin: Instant::now(),
            overlay_bytes_max,
            applied: AtomicU64::new(applied),
            asked: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let beside = Arc::clone(&shared);
        let upkeep = std::thread::spawn(move || beside.keep_up());
        let mut cairn = Cairn { shared, upkeep: Some(upkeep), index: applied, floor };
        cairn.replay()?;
        Ok(cairn)
    }

    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()> {
        // One allocation, as a client's request is one.
        let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        let mut request = BytesMut::with_capacity(bytes);
        for (key, value) in entries {
            request.put_slice(key);
            request.put_slice(value);
        }
        let mut request = request.freeze();
        let mut puts = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            puts.push(request.split_to(key.len() + value.len()));
        }
        let index = self.index;
        let records = puts
            .iter()
            .zip(index + 1..)
            .map(|(data, index)| Record::Entry(Entry { index, term: TERM, kind: PUT, data: data.clone() }));
        self.log(records.collect())?;
        self.apply(puts.iter().map(|data| (PUT, data)))
    }

    fn delete(&mut self, revisions: Range<u64>) -> Answer<()> {
        let data = Bytes::copy_from_slice(&revisions.end.to_be_bytes());
        let entry = Entry { index: self.index + 1, term: TERM, kind: DELETE_BELOW, data: data.clone() };
        self.log(vec![Record::Entry(entry)])?;
        self.apply([(DELETE_BELOW, &data)].into_iter())
    }

    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>> {
        Ok(self.shared.db.view().get(&TREE, key)?.map(|value| see(&value)))
    }

    fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Answer<()> {
        let mut cursor = self.shared.db.view().cursor(&TREE);
        while let Some((key, value)) = cursor.next()? {
            see(key, value);
        }
        Ok(())
    }

    fn settle(&mut self) -> Answer<()> {
        self.wait_until(|db| db.stats().overlay_entries == 0 && db.purges_waiting() == 0)
    }

    fn size(&self) -> Answer<Size> {
        let log = disk_bytes(&self.shared.dir.join("wal"))?;
        Ok(Size { data: disk_bytes(&self.shared.dir)? - log, log })
    }
}

impl Cairn {
    fn log(&self, records: Vec<Record>) -> Answer<()> {
        self.shared.wal.append(records)?;
        let durable = self.shared.wal.sync()?;
        self.shared.db.log_durable(durable.last_index);
        Ok(())
    }

    /// Applies log entries, all of them with one commit.
    fn apply<'a>(&mut self, entries: impl Iterator<Item = (u8, &'a Bytes)>) -> Answer<()> {
        let db = &self.shared.db;
        let mut txn = db.begin()?;
        let floor = self.floor;
        for (kind, data) in entries {
            self.index += 1;
            match kind {
                PUT => txn.append(&TREE, *data.first_chunk().ok_or("a put without a key")?, data.slice(16..)),
                _ => self.floor = work::revision(data).ok_or("a delete without a revision")?,
            }
        }
        let owner = Bytes::copy_from_slice(&self.floor.to_be_bytes());
        let meta = CommitMeta { applied_index: self.index, applied_term: TERM, owner };
        let seq = txn.commit(meta, self.index)?;
        if self.floor > floor {
            self.purge(seq);
        }
        self.shared.applied.store(self.index, Ordering::Release);
        if db.checkpoint_due(self.shared.now_ms()).is_some() {
            drop(self.shared.ask(false));
            if db.overlay_bytes() >= self.shared.overlay_bytes_max {
                let max = self.shared.overlay_bytes_max;
                self.wait_until(|db| db.overlay_bytes() < max)?;
            }
        }
        Ok(())
    }

    fn purge(&self, after: Seq) {
        self.shared.db.purge(&TREE, PurgeRequest::Below(work::key(self.floor)), after);
    }

    /// Applies what the log has beyond the tree file.
    fn replay(&mut self) -> Answer<()> {
        if self.floor > 0 {
            self.purge(Seq(0));
        }
        let last = self.shared.wal.last_index();
        self.shared.db.log_durable(last);
        while self.index < last {
            let entries = self.shared.wal.read(self.index + 1, last + 1, REPLAY_BYTES)?;
            if entries.is_empty() {
                return Err(format!("the log has no entry {}", self.index + 1).into());
            }
            self.apply(entries.iter().map(|entry| (entry.kind, &entry.data)))?;
        }
        Ok(())
    }

    /// Has checkpoints made until `done`.
    fn wait_until(&self, done: impl Fn(&Db) -> bool) -> Answer<()> {
        while !done(&self.shared.db) {
            let mut asked = self.shared.ask(true);
            while asked.checkpoint && asked.failed.is_none() {
                asked = self.shared.progress.wait(asked).expect("no one panics with a request");
            }
            if let Some(failed) = &asked.failed {
                return Err(failed.clone().into());
            }
        }
        Ok(())
    }
}

impl Drop for Cairn {
    fn drop(&mut self) {
        self.shared.asked().stop = true;
        self.shared.work.notify_one();
        if let Some(upkeep) = self.upkeep.take() {
            upkeep.join().expect("upkeep does not panic");
        }
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no one panics with a request")
    }

    /// Wakes the upkeep thread, and has it make a checkpoint if that is wanted whether it is due or not.
    fn ask(&self, checkpoint: bool) -> MutexGuard<'_, Asked> {
        let mut asked = self.asked();
        asked.checkpoint |= checkpoint;
        asked.look = true;
        self.work.notify_one();
        asked
    }

    fn keep_up(&self) {
        let mut last = Instant::now();
        loop {
            let wanted = {
                let idle = |asked: &mut Asked| !(asked.checkpoint || asked.look || asked.stop);
                let waited = self.work.wait_timeout_while(self.asked(), LOOK, idle);
                let (mut asked, _) = waited.expect("no one panics with a request");
                if asked.stop || asked.failed.is_some() {
                    return;
                }
                asked.look = false;
                asked.checkpoint
            };
            let done = self.upkeep(wanted, &mut last);
            let mut asked = self.asked();
            asked.checkpoint &= !wanted;
            match done {
                Ok(Progress::Done) => {}
                Ok(Progress::More) => asked.look = true,
                Err(error) => asked.failed = Some(error.to_string()),
            }
            self.progress.notify_all();
        }
    }

    /// One round of what the daemon's checkpointer does.
    fn upkeep(&self, wanted: bool, last: &mut Instant) -> Answer<Progress> {
        let spare = self.wal.prepare_spare(STEP)?;
        let shrinks = self.db.shrink(self.now_ms(), Aim::Background)? == Shrinking::Checkpoint;
        let tidies = if shrinks { last.elapsed() >= SHRINK_EVERY } else { self.db.tidy_due() };
        if wanted || tidies || self.db.checkpoint_due(self.now_ms()).is_some() {
            self.db.log_durable(self.wal.durable().last_index);
            self.db.freeze()?;
            while let Progress::More = self.db.checkpoint_step(STEP)? {}
            let kept = self.applied.load(Ordering::Acquire).saturating_sub(ENTRIES_KEPT);
            self.wal.release(self.db.log_floor().min(kept))?;
            *last = Instant::now();
        }
        let holes = self.db.punch(self.now_ms(), STEP)?;
        let more = spare == Progress::More || holes == Progress::More;
        Ok(if more { Progress::More } else { Progress::Done })
    }
}
