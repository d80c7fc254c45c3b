// SPDX-License-Identifier: Apache-2.0
//! A store is looked at while it is written: no false damage, and not a byte of it changed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use cairn_engine::{Growth, Options};

use crate::world::{World, engine, json, state_of};

const LOOKS: usize = 50;
/// Looks that may be given up besides: on a disk without delay a writer can be faster than any look.
const GIVEN_UP_MAX: usize = 200;
/// Overtaken each time, or compacted away before the end.
const GIVEN_UP: [&str; 4] = [
    "was written again while it was read",
    "was written faster than it could be copied",
    "cannot be read: the store has revision",
    "the store was compacted meanwhile",
];
/// The writer stands still, with everything open and locked, during one look in so many.
const STILL_ONE_IN: usize = 5;

/// Puts of one checkpoint.
const PUTS: u64 = 40;

fn small_steps() -> Options {
    let mut options = Options::default();
    options.growth = Growth { first_bytes: 1 << 16, step_bytes: 1 << 17, step_bytes_max: 1 << 18 };
    options
}

/// Puts, checkpoints and releases without a pause, but for the barrier.
fn write(
    mut world: World,
    stop: &AtomicBool,
    still: &AtomicBool,
    barrier: &Barrier,
    checkpoints: &AtomicU64,
) {
    let mut n = 0u64;
    while !stop.load(Ordering::Acquire) {
        for _ in 0..PUTS {
            n += 1;
            let key = format!("registry/pods/item-{:03}", n * 7919 % 300);
            world.put(&key, &vec![b'x'; (n % 700) as usize], 0);
        }
        world.compact(i64::try_from(n - PUTS).expect("a small number"));
        world.purge();
        world.checkpoint();
        world.wal.release(world.db.log_floor()).expect("releases");
        checkpoints.fetch_add(1, Ordering::Relaxed);
        if still.swap(false, Ordering::AcqRel) {
            barrier.wait();
            barrier.wait();
        }
    }
    world.stop();
}

/// Each put is of the key that was put the longest time ago, so that the keys at any revision were modified by an
/// unbroken run of revisions.
fn is_of_one_revision(out: &str) {
    let mut modified: Vec<i64> =
        json(out).iter().map(|pair| pair["mod_revision"].as_i64().expect("a number")).collect();
    modified.sort_unstable();
    assert!(!modified.is_empty() && modified.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{modified:?}");
}

/// A backup of a store that is written is as sound as the store, and its log goes on where its checkpoint ends.
fn comes_back_whole(backup: &str) {
    let copy = format!("{backup}-copy");
    engine(Path::new("."), &["restore", backup, &copy]).with(0);
    let check = engine(Path::new("."), &["check", "--deep", "--json", &copy]).with(0);
    assert_eq!(json(&check)[0]["log_state"], "sound", "{check}");
}

#[test]
fn fifty_looks_beside_a_writer_find_no_damage_and_change_no_byte() {
    let world = World::in_memory(small_steps());
    let dir = world.temp.path().to_path_buf();
    let backups = tempfile::tempdir().expect("a temporary directory");
    let (stop, still) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (barrier, checkpoints) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU64::new(0)));
    std::thread::scope(|scope| {
        let writer = {
            let (stop, still) = (Arc::clone(&stop), Arc::clone(&still));
            let (barrier, checkpoints) = (Arc::clone(&barrier), Arc::clone(&checkpoints));
            scope.spawn(move || write(world, &stop, &still, &barrier, &checkpoints))
        };
        let commands = [
            &["check"][..],
            &["check", "--deep"],
            &["dump", "--json"],
            &["info"],
            &["stats"],
            &["wal", "verify"],
            &["wal", "dump"],
            &["dump", "--changes"],
            &["backup"],
            &["scrub"],
            &["export"],
            &["export", "--history"],
        ];
        let looks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut whole, mut given_up) = (0, 0);
            while whole < LOOKS {
                let command = commands[whole % commands.len()];
                let backup = backups.path().join(format!("{whole}-{given_up}"));
                let backup = backup.to_str().expect("a path is text");
                let file = if command[0] == "backup" { &[backup][..] } else { &[] };
                let args = [command, &["store"], file].concat();
                if (whole + given_up) % STILL_ONE_IN > 0 {
                    let ran = engine(&dir, &args);
                    if ran.code == 2 && GIVEN_UP.iter().any(|why| ran.err.contains(why)) {
                        given_up += 1;
                        assert!(given_up <= GIVEN_UP_MAX, "{whole} of {LOOKS} looks were whole");
                    } else {
                        let out = ran.with(0);
                        if command[0] == "backup" {
                            comes_back_whole(backup);
                        }
                        if command[0] == "dump" && command[1] == "--json" {
                            is_of_one_revision(&out);
                        }
                        whole += 1;
                    }
                    continue;
                }
                still.store(true, Ordering::Release);
                barrier.wait();
                let before = state_of(&dir);
                let ran = engine(&dir, &args);
                let after = state_of(&dir);
                barrier.wait();
                ran.with(0);
                whole += 1;
                assert_eq!(before, after, "{command:?}");
            }
            println!("{whole} looks were whole, {given_up} given up");
        }));
        stop.store(true, Ordering::Release);
        writer.join().expect("the writer ends in good order");
        if let Err(panic) = looks {
            std::panic::resume_unwind(panic);
        }
    });
    let checkpoints = checkpoints.load(Ordering::Relaxed);
    println!("{checkpoints} checkpoints beside them");
    assert!(checkpoints > LOOKS as u64, "{checkpoints}");
}
