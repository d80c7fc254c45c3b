// SPDX-License-Identifier: Apache-2.0
//! A store in a process of its own: beside another one, on a disk without room, on one that may not be written, and
//! with little address space.
//!
//! Owns      the children: this test binary again, told by a variable which part to play.
//! Holds     a child plays its part to the end and says so; one that cannot be had here is told, and what stands in
//!           for it.
//! Never     changes what this process, or any other, has mounted: a child has a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use cairn_engine::inspect::{Store, look};
use cairn_engine::io::{StdVfs, Vfs};
use cairn_engine::sim::SplitMix;
use cairn_engine::{Db, Error, PurgeRequest};

use crate::model::{Commit, INSTALL, LOG, Model, SCHEMA, key, tiny};

/// Where a child has its store; set for children alone.
const DIR: &str = "CAIRN_TEST_STORE_DIR";
/// The last line of a child that did all it was to do.
const DONE: &str = "the part is played";
const SEED: u64 = 31;
/// Of the small file system.
const DISK_BYTES: u64 = 4 << 20;
/// Addresses of the child that has few.
const ADDRESS_KIB: u64 = 1 << 20;

/// The directory of a child; `None` in the test itself.
fn part() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

/// Runs test `name` of this file again as a child, by way of a shell that first does `setup`.
fn play(name: &str, dir: &Path, setup: &str) -> Output {
    let own = std::env::current_exe().expect("own path");
    Command::new("sh")
        .args(["-c", &format!("{setup} exec \"$@\""), "sh"])
        .arg(own)
        .args(["--exact", &format!("process::{name}"), "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .output()
        .expect("sh runs")
}

fn assert_played(child: &Output) {
    let text =
        format!("{}\n{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && text.contains(DONE), "{text}");
}

/// The same in a mount namespace of its own, after `mount` in it. `false` where the system has none for us.
fn play_mounted(name: &str, dir: &Path, mount: &str) -> bool {
    let may = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(dir).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("no file system may be mounted here: see the tests `faults` and of the daemon's `disk`");
        return false;
    }
    let own = std::env::current_exe().expect("own path");
    let child = Command::new("unshare")
        .args(["-rm", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"])
        .arg(own)
        .args(["--exact", &format!("process::{name}"), "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .output()
        .expect("unshare runs");
    assert_played(&child);
    true
}

fn open(dir: &Path) -> Result<Db, Error> {
    Db::open(&dir.join("member"), SCHEMA, tiny(Arc::new(StdVfs))).map(|(db, _)| db)
}

fn write(db: &Db, model: &mut Model) {
    let commit = Commit::new(SEED, model.applied + 1, true);
    commit.run(db, true).expect("commits");
    model.apply(&commit);
}

/// A store with a few checkpoints.
fn made(dir: &Path) -> (Db, Model) {
    let db = Db::create(&dir.join("member"), SCHEMA, INSTALL, tiny(Arc::new(StdVfs))).expect("a new store");
    let mut model = Model::default();
    for _ in 0..5 {
        write(&db, &mut model);
        write(&db, &mut model);
        db.checkpoint().expect("makes a checkpoint");
    }
    db.confirm().expect("syncs");
    (db, model)
}

fn check(db: &Db, model: &Model) {
    db.verify().expect("whole");
    model.check(&db.view(), &mut SplitMix::new(2)).expect("the store is the model");
}

#[test]
fn a_store_is_open_in_one_process_at_a_time() {
    const NAME: &str = "a_store_is_open_in_one_process_at_a_time";
    if let Some(dir) = part() {
        match open(&dir) {
            Ok(db) => drop(db),
            Err(Error::Locked { file }) => println!("locked: {}", file.display()),
            Err(other) => panic!("{other}"),
        }
        println!("{DONE}");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, model) = made(dir.path());
    let child = play(NAME, dir.path(), "");
    assert_played(&child);
    assert!(String::from_utf8_lossy(&child.stdout).contains("locked: "), "{child:?}");
    check(&db, &model);
    drop(db);
    let child = play(NAME, dir.path(), "");
    assert_played(&child);
    assert!(!String::from_utf8_lossy(&child.stdout).contains("locked: "), "{child:?}");
}

#[test]
fn on_a_full_file_system_a_checkpoint_is_put_off_and_nothing_is_lost() {
    const NAME: &str = "on_a_full_file_system_a_checkpoint_is_put_off_and_nothing_is_lost";
    let Some(dir) = part() else {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display();
        play_mounted(NAME, dir.path(), &format!("mount -t tmpfs -o size={DISK_BYTES} none {at}"));
        return;
    };
    // Room that can be given up, as the reserve of a member is.
    let reserve = dir.join("reserve");
    std::fs::write(&reserve, vec![1; DISK_BYTES as usize / 3]).expect("written");
    let (db, mut model) = made(&dir);
    let refused = loop {
        assert!(model.applied < 10_000, "the disk does not fill");
        write(&db, &mut model);
        write(&db, &mut model);
        if let Err(error) = db.checkpoint() {
            break error;
        }
    };
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    // Reads and commits go on, and there is as little room as before.
    write(&db, &mut model);
    check(&db, &model);
    let again = db.checkpoint().expect_err("still full");
    assert!(matches!(again, Error::NoSpace { .. }), "{again}");
    std::fs::remove_file(&reserve).expect("removed");
    db.checkpoint().expect("there is room again");
    check(&db, &model);
    model.maybe_gone = model.log.keys().cloned().collect();
    db.purge(&LOG, PurgeRequest::Below(key(model.applied + 1, 0)), db.view().seq());
    for _ in 0..20 {
        let commit = Commit::new(SEED, model.applied + 1, false);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
        db.checkpoint().expect("what the purge freed is enough");
    }
    check(&db, &model);
    db.confirm().expect("syncs");
    drop(db);
    check(&open(&dir).expect("opens"), &model);
    println!("{DONE}");
}

#[test]
fn a_file_system_that_may_not_be_written_is_told_and_can_be_looked_at() {
    const NAME: &str = "a_file_system_that_may_not_be_written_is_told_and_can_be_looked_at";
    let Some(dir) = part() else {
        let dir = tempfile::tempdir().expect("a temporary directory");
        play_mounted(NAME, dir.path(), &format!("mount -t tmpfs none {}", dir.path().display()));
        return;
    };
    let (db, model) = made(&dir);
    drop(db);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&dir).status();
    assert!(remounted.is_ok_and(|status| status.success()), "its own namespace is its own");
    let error = open(&dir).map(drop).expect_err("nothing can be written");
    let text = error.to_string();
    assert!(matches!(error, Error::Io(_)) && text.contains("mount the file system writable"), "{text}");
    let vfs: Arc<dyn Vfs> = Arc::new(StdVfs);
    let seen = look(&vfs, &dir.join("member"), SCHEMA, |store: &Store| {
        model.check(&store.view(), &mut SplitMix::new(2)).expect("the store is the model");
        Ok(())
    });
    seen.expect("who only looks needs to write nothing");
    println!("{DONE}");
}

#[test]
fn with_few_addresses_a_smaller_map_is_made_and_the_store_works() {
    const NAME: &str = "with_few_addresses_a_smaller_map_is_made_and_the_store_works";
    let Some(dir) = part() else {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_played(&play(NAME, dir.path(), &format!("ulimit -v {ADDRESS_KIB};")));
        return;
    };
    let mut options = tiny(Arc::new(StdVfs));
    options.map_reserve = 1 << 40;
    let db = Db::create(&dir.join("member"), SCHEMA, INSTALL, options.clone()).expect("a new store");
    let mut model = Model::default();
    for _ in 0..20 {
        write(&db, &mut model);
        db.checkpoint().expect("makes a checkpoint");
    }
    check(&db, &model);
    db.confirm().expect("syncs");
    drop(db);
    let (db, _) = Db::open(&dir.join("member"), SCHEMA, options).expect("opens");
    check(&db, &model);
    println!("{DONE}");
}
