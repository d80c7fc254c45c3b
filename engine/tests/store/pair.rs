// SPDX-License-Identifier: Apache-2.0
//! A store and its log as a member keeps them: an entry is made durable in the log, applied to the store,
//! and then acknowledged.
//!
//! Owns      the order of those calls, the script that drives them, and the check of a crash image.
//! Holds     step 1 of the simulated disk is the creation; step `i + 1` is commit `i`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::format::slot::{self, Slot};
use cairn_engine::format::superblock::Superblock;
use cairn_engine::io::{Budget, Progress, Vfs};
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::wal::{Base, Entry, Evidence, Record, Wal, WalOptions};
use cairn_engine::{Aim, Db, Error, PurgeRequest, Shrinking};

use crate::model::{Commit, INSTALL, LOG, Model, SCHEMA, key, tiny};

const DIR: &str = "/member";
const LOG_DIR: &str = "/member/wal";

/// Commits with a large entry fill a segment of the log each.
const PADDING_BYTES: usize = 5000;

pub struct Pair {
    pub db: Db,
    pub wal: Wal,
    seed: u64,
    last: u64,
    /// Keys below this may be purged.
    purged_below: u64,
    now_ms: u64,
}

fn wal_options(disk: &SimVfs, salt_seed: u64) -> WalOptions {
    let mut options = WalOptions::new(Arc::new(disk.clone()), 1, salt_seed);
    options.first_segment_bytes = 8192;
    options.segment_bytes = 8192;
    options.cache_bytes = 64 << 10;
    options
}

impl Pair {
    /// The log first, the store last: a store without a log is refused.
    pub fn create(disk: &SimVfs, seed: u64) -> Result<Pair, Error> {
        disk.submit(1);
        let base = Base { index: 0, term: 0, install: INSTALL };
        let wal = if Wal::exists(disk, Path::new(LOG_DIR))? {
            let evidence = Evidence { applied_index: 0, applied_term: 0, install: INSTALL };
            Wal::open(Path::new(LOG_DIR), wal_options(disk, 3), evidence)?.0
        } else {
            Wal::create(Path::new(LOG_DIR), wal_options(disk, 1), base)?
        };
        let db = Db::create(Path::new(DIR), SCHEMA, INSTALL, tiny(Arc::new(disk.clone())))?;
        db.log_durable(0);
        disk.ack(1);
        Ok(Pair { db, wal, seed, last: 0, purged_below: 0, now_ms: 0 })
    }

    /// Opens both and replays what the log has beyond the store.
    pub fn open(disk: &SimVfs, seed: u64, salt_seed: u64) -> Result<Pair, String> {
        let text = |error: Error| error.to_string();
        let mut options = tiny(Arc::new(disk.clone()));
        options.lazy_space_map = salt_seed % 2 == 1;
        let (db, recovered) = Db::open(Path::new(DIR), SCHEMA, options).map_err(text)?;
        if recovered.fell_back || recovered.space_map_rebuilt {
            return Err(format!("a crash alone led to {recovered:?}"));
        }
        let applied = recovered.meta.applied_index;
        let evidence = Evidence {
            applied_index: applied,
            applied_term: recovered.meta.applied_term,
            install: recovered.install_id,
        };
        let (wal, replay) =
            Wal::open(Path::new(LOG_DIR), wal_options(disk, salt_seed), evidence).map_err(text)?;
        if replay.first_index > applied + 1 {
            return Err(format!("the log begins at {}, the store ends at {applied}", replay.first_index));
        }
        db.log_durable(replay.last_index);
        for entry in wal.read(applied + 1, replay.last_index + 1, usize::MAX).map_err(text)? {
            if entry.data[..8] != entry.index.to_le_bytes() {
                return Err(format!("entry {} is another", entry.index));
            }
            Commit::new(seed, entry.index, false).run(&db, true).map_err(text)?;
        }
        let last = db.view().meta().applied_index;
        if last != replay.last_index.max(applied) {
            return Err(format!("replay ended at {last}, the log at {}", replay.last_index));
        }
        Ok(Pair { db, wal, seed, last, purged_below: 0, now_ms: 0 })
    }

    /// One commit, acknowledged.
    pub fn write(&mut self, disk: &SimVfs, padding: usize) -> Result<(), Error> {
        let index = self.last + 1;
        disk.submit(index + 1);
        let mut data = index.to_le_bytes().to_vec();
        data.resize(8 + padding, 0x5a);
        let entry = Entry { index, term: 1 + index / 10, kind: 0, data: Bytes::from(data) };
        self.wal.append(vec![Record::Entry(entry)])?;
        self.wal.sync()?;
        self.db.log_durable(index);
        Commit::new(self.seed, index, false).run(&self.db, true)?;
        self.last = index;
        disk.ack(index + 1);
        Ok(())
    }

    fn steps(&self, budget: u64) -> Result<(), Error> {
        while self.db.checkpoint_step(Budget::bytes(budget))? == Progress::More {}
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        self.wal.release(self.db.log_floor())?;
        while self.wal.prepare_spare(Budget::UNBOUNDED)? == Progress::More {}
        Ok(())
    }

    /// Runs a script of words: `w` commits once (`w5` five times), `b` commits with a large entry, `c` makes
    /// a checkpoint at once, `f` freezes, `s` goes on step by step, `y` confirms, `p` purges half of the log
    /// tree, `t` tidies, `h` cuts the free tail, `d` goes a step
    /// on towards a smaller file, `u` punches what is free, `r` releases the log, `o` opens anew.
    pub fn run(mut self, disk: &SimVfs, script: &str) -> Result<Pair, Error> {
        for (nth, word) in script.split_whitespace().enumerate() {
            let (what, times) = word.split_at(1);
            for _ in 0..times.parse().unwrap_or(1) {
                match what {
                    "w" => {
                        disk.phase("write");
                        self.write(disk, 0)?;
                    }
                    "b" => {
                        disk.phase("segment-change");
                        self.write(disk, PADDING_BYTES)?;
                    }
                    "c" => {
                        disk.phase("checkpoint");
                        self.db.checkpoint()?;
                    }
                    "f" => {
                        self.db.freeze()?;
                    }
                    "s" => {
                        disk.phase("fold");
                        self.steps(1)?;
                    }
                    "y" => {
                        disk.phase("confirm");
                        self.db.confirm()?;
                    }
                    "p" => {
                        disk.phase("compaction");
                        self.purged_below = self.last / 2 + 1;
                        let below = PurgeRequest::Below(key(self.purged_below, 0));
                        self.db.purge(&LOG, below, self.db.view().seq());
                        self.db.checkpoint()?;
                        self.db.checkpoint()?;
                    }
                    "t" => {
                        disk.phase("checkpoint");
                        while self.db.tidy_due() {
                            self.db.checkpoint()?;
                        }
                    }
                    "h" => {
                        disk.phase("cut");
                        self.db.cut()?;
                    }
                    "d" => {
                        disk.phase("shrink");
                        if self.db.shrink(self.now_ms, Aim::Goal)? == Shrinking::Checkpoint {
                            self.db.checkpoint()?;
                        }
                    }
                    "u" => {
                        disk.phase("punch");
                        self.now_ms += 1;
                        while self.db.punch(self.now_ms, Budget::bytes(1))? == Progress::More {}
                    }
                    "r" => {
                        disk.phase("release");
                        self.release()?;
                    }
                    "o" => {
                        disk.phase("reopen");
                        let (seed, purged_below) = (self.seed, self.purged_below);
                        drop(self);
                        self = Pair::open(disk, seed, 100 + nth as u64).expect("opens after a clean end");
                        self.purged_below = purged_below;
                    }
                    other => panic!("no word of the script: {other}"),
                }
            }
        }
        Ok(self)
    }
}

/// The histories that a check needs: the model after each commit.
pub struct History {
    pub seed: u64,
    models: Vec<Model>,
}

impl History {
    pub fn new(seed: u64, commits: u64) -> History {
        let mut model = Model::default();
        let mut models = vec![model.clone()];
        for index in 1..=commits {
            model.apply(&Commit::new(seed, index, false));
            models.push(model.clone());
        }
        History { seed, models }
    }

    /// Opens a crash image and compares it with the model; then goes on as a member would, so that a second
    /// crash can hit that too.
    pub fn check(&self, disk: &SimVfs, acked: u64, submitted: u64, purges: bool) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        if !disk.exists(&Path::new(DIR).join("engine.db")).map_err(|e| e.to_string())? {
            if acked > 0 {
                return Err("the store is gone".into());
            }
            Pair::create(disk, self.seed).map_err(text)?;
            return Ok(());
        }
        let mut pair = Pair::open(disk, self.seed, 1000 + disk.counters().reads)?;
        let (least, most) = (acked.saturating_sub(1), submitted.saturating_sub(1));
        if !(least..=most).contains(&pair.last) {
            return Err(format!("the store is at {}, not in {least}..={most}", pair.last));
        }
        self.compare(&pair, purges)?;
        disk.ack(pair.last + 1);
        // What follows is the next hour of the member's life.
        pair.write(disk, 0).map_err(text)?;
        pair.db.checkpoint().map_err(text)?;
        pair.release().map_err(text)?;
        disk.stop_recording();
        for _ in 0..3 {
            pair.write(disk, 0).map_err(text)?;
            pair.db.checkpoint().map_err(text)?;
        }
        self.compare(&pair, purges)
    }

    /// As [`check`](History::check), after the newest slot of the image was damaged.
    pub fn check_with_a_bad_slot(&self, disk: &SimVfs, acked: u64, submitted: u64) -> Result<(), String> {
        let path = Path::new(DIR).join("engine.db");
        let Ok(mut bytes) = disk.contents(&path) else { return Ok(()) };
        let newest = slot::positions()
            .filter_map(|at| {
                let page = bytes.get(at.byte_offset() as usize..)?.first_chunk()?;
                Slot::decode(page, Superblock::decode(bytes.first_chunk()?).ok()?.uuid, at)
            })
            .max_by_key(|slot| slot.seq);
        // The first checkpoint has none before it.
        let Some(seq) = newest.map(|slot| slot.seq).filter(|seq| *seq > 1) else { return Ok(()) };
        bytes[slot::position(seq).byte_offset() as usize + 100] ^= 1;
        disk.plant(&path, &bytes);
        self.check(disk, acked, submitted, true)
    }

    fn compare(&self, pair: &Pair, purges: bool) -> Result<(), String> {
        pair.db.verify().map_err(|error| error.to_string())?;
        let mut model = self.models[pair.last as usize].clone();
        if purges {
            model.maybe_gone = model.log.keys().cloned().collect();
        }
        model.check(&pair.db.view(), &mut SplitMix::new(pair.last))
    }
}
