// SPDX-License-Identifier: Apache-2.0
//! Failing calls: whatever call fails in whatever way, nothing acknowledged is lost, no second sync is tried,
//! and what can go on does.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::io::{Budget, OpenHow, Progress, Vfs};
use cairn_engine::sim::{Explorer, Fault, Limits, SimVfs, SplitMix};
use cairn_engine::{Db, Error, PurgeRequest};

use crate::model::{Commit, LOG, Model, SCHEMA, create, key, runs, tiny};
use crate::pair::{History, Pair};

const SEED: u64 = 5;
/// Ways in which calls fail.
const RUNS_MIN: u64 = 300;
const SCRIPT: &str = "w3 c w2 c r w2 f s y w2 p r u2 w1 c";

#[test]
fn every_fault_at_every_call_of_a_short_life_loses_nothing() {
    let limits = Limits {
        images_per_point: runs(3, 12) as usize,
        subsets_up_to: 2,
        recovery_one_in: 0,
        images_per_recovery_point: 0,
    };
    let mut explorer = Explorer::new(0xfa11, limits);
    let history = History::new(SEED, 40);
    let life = |disk: &SimVfs| -> Result<(), Error> {
        Pair::create(disk, SEED)?.run(disk, SCRIPT)?;
        Ok(())
    };
    let runs = explorer.run_faults(
        // The life ends with its first error; the check says what must be left of it.
        |disk| life(disk).unwrap_or_default(),
        |disk, acked, submitted| history.check(disk, acked, submitted, true),
    );
    let runs = runs.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{runs} faults: {}", explorer.report());
    assert!(runs >= RUNS_MIN, "{runs} faults");
    println!("score: store-faults-at-every-call {runs} >={RUNS_MIN} ok");
}

fn store(disk: &SimVfs, commits: u64) -> (Db, Model) {
    let db = create(Arc::new(disk.clone()), Path::new("/member")).expect("a new store");
    let mut model = Model::default();
    for index in 1..=commits {
        let commit = Commit::new(SEED, index, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
    }
    (db, model)
}

#[test]
fn a_full_disk_ends_the_checkpoint_and_not_the_store() {
    // The call of the checkpoint that asks for room is the first that a full disk can hit.
    let disk = SimVfs::new();
    let (db, model) = store(&disk, 30);
    assert!(db.freeze().expect("freezes"));
    let before = db.stats();
    disk.arm(Fault::NoSpace, 1);
    // The first step asked for twice: what is wanted, and what is needed.
    let mut refused = 0;
    while let Err(error) = db.checkpoint() {
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        refused += 1;
        disk.arm(Fault::NoSpace, 1);
        assert_eq!(db.stats().pending_bytes, before.pending_bytes);
        if refused == 3 {
            disk.arm(Fault::NoSpace, u64::MAX);
        }
    }
    db.verify().expect("whole");
    model.check(&db.view(), &mut SplitMix::new(1)).expect("equal");
}

/// A store of which much is free and punched, and its commits.
fn punched(disk: &SimVfs) -> (Db, Model) {
    let (db, mut model) = store(disk, 40);
    let all = PurgeRequest::Below(key(u64::MAX, 0));
    model.maybe_gone = model.log.keys().cloned().collect();
    db.purge(&LOG, all, db.view().seq());
    for _ in 0..30 {
        db.checkpoint().expect("makes a checkpoint");
        let commit = Commit::new(SEED, model.applied + 1, false);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
    }
    for now_ms in 0..2 {
        assert_eq!(db.punch(now_ms, Budget::UNBOUNDED).expect("punches"), Progress::Done);
    }
    (db, model)
}

#[test]
pub fn a_full_disk_shows_before_a_hole_is_written() {
    let disk = SimVfs::new();
    let (db, mut model) = punched(&disk);
    let stats = db.stats();
    assert!(stats.hole_bytes > stats.file_bytes / 4 && stats.bytes_punched == stats.hole_bytes, "{stats:?}");
    for index in model.applied + 1..model.applied + 20 {
        let commit = Commit::new(SEED, index, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
    }
    disk.arm(Fault::NoSpace, 1);
    let error = db.checkpoint().expect_err("the disk is full");
    assert!(disk.fault_fired() && matches!(error, Error::NoSpace { .. }), "{error}");
    db.checkpoint().expect("there is room again");
    assert!(db.stats().hole_bytes < stats.hole_bytes, "some of it is in use again");
    db.verify().expect("whole");
    model.check(&db.view(), &mut SplitMix::new(1)).expect("equal");
}

#[test]
fn a_file_system_without_holes_is_left_alone() {
    let disk = SimVfs::new();
    disk.refuse_punch();
    let (db, model) = punched(&disk);
    assert_eq!((db.stats().hole_bytes, db.stats().bytes_punched), (0, 0));
    db.verify().expect("whole");
    model.check(&db.view(), &mut SplitMix::new(1)).expect("equal");
}

#[test]
pub fn after_a_failed_write_every_writing_call_is_refused_and_reading_goes_on() {
    for fault in
        [Fault::Write, Fault::ShortWrite, Fault::SyncKeepsCache, Fault::SyncRevertsCache, Fault::SyncOnce]
    {
        let disk = SimVfs::new();
        let (db, model) = store(&disk, 20);
        db.checkpoint().expect("makes a checkpoint");
        Commit::new(SEED, 21, true).run(&db, true).expect("commits");
        let writes = disk.calls_for(fault);
        disk.arm(fault, 1);
        let failed = db.checkpoint();
        if failed.is_ok() {
            panic!("{fault:?} hit nothing after {writes} calls");
        }
        let poisoned = |result: Result<(), Error>| matches!(result, Err(Error::Poisoned { .. }));
        let syncs = disk.counters().syncs;
        assert!(poisoned(db.begin().map(drop)) && poisoned(db.confirm()) && poisoned(db.freeze().map(drop)));
        assert!(poisoned(db.checkpoint().map(drop)) && poisoned(db.cut().map(drop)));
        assert_eq!(disk.counters().syncs, syncs, "no sync after a failed one");
        let mut model = model;
        model.apply(&Commit::new(SEED, 21, true));
        model.check(&db.view(), &mut SplitMix::new(1)).expect("what is in memory is still served");
    }
}

#[test]
fn a_second_process_is_told_at_once_that_the_directory_is_taken() {
    let disk = SimVfs::new();
    let (db, _) = store(&disk, 1);
    let again = || Db::open(Path::new("/member"), SCHEMA, tiny(Arc::new(disk.clone()))).map(drop);
    assert!(matches!(again(), Err(Error::Locked { .. })));
    drop(db);
    again().expect("free again");
}

#[test]
fn creation_keeps_what_is_there_and_opening_needs_it() {
    let disk = SimVfs::new();
    drop(store(&disk, 1));
    let dir = Path::new("/member");
    let there = disk.contents(&dir.join("engine.db")).expect("is there");
    assert!(matches!(create(Arc::new(disk.clone()), dir), Err(Error::Io(_))));
    assert!(there == disk.contents(&dir.join("engine.db")).expect("is there"));
    let empty = SimVfs::new();
    empty.create_dir(dir).expect("a directory");
    assert!(matches!(Db::open(dir, SCHEMA, tiny(Arc::new(empty.clone()))).map(drop), Err(Error::Io(_))));
    empty.open(&dir.join("engine.db.tmp"), OpenHow::CreateNew).expect("what a crash in creation left");
    create(Arc::new(empty), dir).expect("creation begins anew");
}

#[test]
fn what_a_lost_checkpoint_grew_the_file_by_is_given_back() {
    let disk = SimVfs::new();
    let (db, _) = store(&disk, 3);
    db.checkpoint().expect("makes a checkpoint");
    db.confirm().expect("syncs");
    let before = db.stats().file_bytes;
    for index in 4..60 {
        Commit::new(SEED, index, true).run(&db, true).expect("commits");
    }
    db.freeze().expect("freezes");
    assert_eq!(db.checkpoint_step(Budget::bytes(1)).expect("goes on"), Progress::More);
    assert!(db.stats().file_bytes > before);
    drop(db);
    let (db, _) = Db::open(Path::new("/member"), SCHEMA, tiny(Arc::new(disk.clone()))).expect("opens");
    let grown = db.stats().file_bytes;
    assert!(grown > before, "the file is as long as it was");
    let cut = db.cut().expect("cuts");
    let len = disk.contents(Path::new("/member/engine.db")).expect("is there").len() as u64;
    assert!(cut > 0 && db.stats().file_bytes == len && len == grown - cut);
    Commit::new(SEED, 4, true).run(&db, true).expect("commits");
    db.checkpoint().expect("makes a checkpoint");
    db.verify().expect("whole");
}
