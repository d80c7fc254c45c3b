// SPDX-License-Identifier: Apache-2.0
//! Rot: damage to superblocks, slots and bitmaps is noticed; the store falls back, repairs, or refuses with a
//! name, and never serves it.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::sim::{Explorer, Failure, Limits, SimVfs, SplitMix};
use cairn_engine::{Db, Error, InstallId, Recovered};

use crate::model::{Commit, INSTALL, Model, SCHEMA, tiny};

const DIR: &str = "/member";
const FILE: &str = "/member/engine.db";
const SEED: u64 = 11;
const PAGE: usize = 4096;
const CHECKPOINTS: u64 = 6;

/// The bytes of a store with a few checkpoints, each of ten commits, and the models at those.
fn rotten_base() -> (Vec<u8>, Vec<Model>) {
    base_of(INSTALL)
}

/// The same for another filling of the directory: the same history in another file.
fn base_of(install: InstallId) -> (Vec<u8>, Vec<Model>) {
    let disk = SimVfs::new();
    let options = tiny(Arc::new(disk.clone()));
    let db = Db::create(Path::new(DIR), SCHEMA, install, options).expect("a new store");
    let mut model = Model::default();
    let mut models = vec![Model::default(), Model::default()];
    while (models.len() as u64) <= CHECKPOINTS {
        for _ in 0..10 {
            let commit = Commit::new(SEED, model.applied + 1, true);
            commit.run(&db, true).expect("commits");
            model.apply(&commit);
        }
        db.checkpoint().expect("makes a checkpoint");
        models.push(model.clone());
    }
    db.confirm().expect("syncs");
    (disk.contents(Path::new(FILE)).expect("is there"), models)
}

fn on_disk(bytes: &[u8]) -> SimVfs {
    let disk = SimVfs::new();
    disk.plant(Path::new(FILE), bytes);
    disk
}

fn open(disk: &SimVfs) -> Result<(Db, Recovered), Error> {
    Db::open(Path::new(DIR), SCHEMA, tiny(Arc::new(disk.clone())))
}

/// Opens, compares with the model of the checkpoint it opened at, and goes on for a few checkpoints.
fn opens_at(disk: &SimVfs, models: &[Model], seq: u64) -> Recovered {
    let (db, recovered) = open(disk).expect("opens");
    assert_eq!(recovered.slot_seq, seq, "{recovered:?}");
    let mut model = models[seq as usize].clone();
    for _ in 0..5 {
        db.verify().expect("whole");
        model.check(&db.view(), &mut SplitMix::new(3)).expect("equal");
        let commit = Commit::new(SEED, model.applied + 1, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
        db.checkpoint().expect("makes a checkpoint");
    }
    recovered
}

fn slot_at(seq: u64) -> usize {
    (2 + seq as usize % 4) * PAGE
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Where a checkpoint's root of the `nth` tree is: the slot keeps it at a fixed place.
fn root_of(bytes: &[u8], seq: u64, nth: usize) -> usize {
    let ptr = u64_at(bytes, slot_at(seq) + 640 + 8 + nth * 56);
    (ptr & 0xffff_ffff_ffff) as usize * PAGE
}

#[test]
fn damage_to_the_newest_slot_falls_back_to_the_one_before() {
    let (bytes, models) = rotten_base();
    opens_at(&on_disk(&bytes), &models, CHECKPOINTS);
    for at in [0, 9, 17, 30, 57, 60, 66, 130, 650, 4093] {
        let mut rotten = bytes.clone();
        rotten[slot_at(CHECKPOINTS) + at] ^= 0x10;
        opens_at(&on_disk(&rotten), &models, CHECKPOINTS - 1);
    }
    let mut rotten = bytes.clone();
    rotten[slot_at(CHECKPOINTS)..][..PAGE].fill(0);
    rotten[slot_at(CHECKPOINTS - 1)..][..PAGE].fill(0);
    opens_at(&on_disk(&rotten), &models, CHECKPOINTS - 2);
}

#[test]
fn a_root_that_does_not_verify_is_a_reason_to_fall_back_and_said() {
    let (bytes, models) = rotten_base();
    let mut rotten = bytes.clone();
    rotten[root_of(&bytes, CHECKPOINTS, 0) + 100] ^= 1;
    let recovered = opens_at(&on_disk(&rotten), &models, CHECKPOINTS - 1);
    assert!(recovered.fell_back);
}

#[test]
fn a_slot_in_the_place_of_another_and_one_of_another_history_are_none() {
    let (bytes, models) = rotten_base();
    let mut copied = bytes.clone();
    copied.copy_within(slot_at(CHECKPOINTS)..slot_at(CHECKPOINTS) + PAGE, slot_at(CHECKPOINTS - 3));
    opens_at(&on_disk(&copied), &models, CHECKPOINTS);
    // The newest slot follows a slot that is not the one that is there.
    let mut other = bytes.clone();
    let before = slot_at(CHECKPOINTS - 1);
    other[before + 40] ^= 1;
    let crc = crc32fast::hash(&other[before..before + PAGE - 4]);
    other[before + PAGE - 4..before + PAGE].copy_from_slice(&crc.to_le_bytes());
    let (_, recovered) = open(&on_disk(&other)).expect("opens");
    assert!(recovered.fell_back && recovered.slot_seq == CHECKPOINTS - 1, "{recovered:?}");
}

#[test]
fn without_any_slot_the_store_is_refused() {
    let (bytes, _) = rotten_base();
    let mut rotten = bytes;
    rotten[2 * PAGE..6 * PAGE].fill(0xee);
    assert!(matches!(open(&on_disk(&rotten)).map(drop), Err(Error::Corrupt(_))));
}

#[test]
fn one_superblock_stands_in_for_the_other_and_heals_it() {
    let (bytes, models) = rotten_base();
    for twin in 0..2 {
        let mut rotten = bytes.clone();
        rotten[twin * PAGE + 33] ^= 4;
        let disk = on_disk(&rotten);
        drop(open(&disk).expect("opens"));
        let healed = disk.contents(Path::new(FILE)).expect("is there");
        assert!(healed[..2 * PAGE] == bytes[..2 * PAGE]);
        opens_at(&disk, &models, CHECKPOINTS);
    }
    let mut rotten = bytes.clone();
    rotten[40] ^= 1;
    rotten[PAGE + 40] ^= 1;
    assert!(matches!(open(&on_disk(&rotten)).map(drop), Err(Error::Corrupt(_))));
}

#[test]
fn a_newer_format_is_refused_by_name_and_left_alone() {
    let (bytes, _) = rotten_base();
    let mut newer = bytes;
    for twin in 0..2 {
        newer[twin * PAGE + 8] = 9;
        let crc = crc32fast::hash(&newer[twin * PAGE..twin * PAGE + PAGE - 4]);
        newer[twin * PAGE + PAGE - 4..(twin + 1) * PAGE].copy_from_slice(&crc.to_le_bytes());
    }
    let disk = on_disk(&newer);
    let error = open(&disk).map(drop).expect_err("a newer format");
    assert!(matches!(&error, Error::Format(_)) && error.to_string().contains("format is 9"), "{error}");
    assert!(disk.contents(Path::new(FILE)).expect("is there") == newer);
}

#[test]
fn a_damaged_bitmap_is_made_anew_from_a_walk() {
    let (bytes, models) = rotten_base();
    let mut rebuilt = 0;
    for turn in 0..4 {
        let mut rotten = bytes.clone();
        rotten[(6 + turn) * PAGE + 70] ^= 1;
        rebuilt += u64::from(opens_at(&on_disk(&rotten), &models, CHECKPOINTS).space_map_rebuilt);
    }
    assert_eq!(rebuilt, 1, "the others are versions of checkpoints before");
    let mut rotten = bytes;
    rotten[6 * PAGE..10 * PAGE].fill(0);
    assert!(opens_at(&on_disk(&rotten), &models, CHECKPOINTS).space_map_rebuilt);
}

#[test]
fn an_older_bitmap_in_the_place_of_the_newest_is_made_anew_from_a_walk() {
    let (bytes, models) = rotten_base();
    let page = |turn: usize| (6 + turn) * PAGE..(7 + turn) * PAGE;
    let mut rebuilt = [0; 4];
    for (place, rebuilt) in rebuilt.iter_mut().enumerate() {
        for older in (0..4).filter(|other| *other != place) {
            let mut rotten = bytes.clone();
            rotten.copy_within(page(older), page(place).start);
            *rebuilt += u64::from(opens_at(&on_disk(&rotten), &models, CHECKPOINTS).space_map_rebuilt);
        }
    }
    rebuilt.sort_unstable();
    assert_eq!(rebuilt, [0, 0, 0, 3], "whatever took its place, and in no other one");
}

#[test]
fn a_page_of_another_file_is_taken_nowhere() {
    let (bytes, models) = rotten_base();
    let (foreign, _) = base_of(InstallId(INSTALL.0 + 1));
    let with = |pages: std::ops::Range<usize>| {
        let mut rotten = bytes.clone();
        let bytes = pages.start * PAGE..pages.end * PAGE;
        assert!(rotten[bytes.clone()] != foreign[bytes.clone()], "pages {pages:?} are the same in both");
        rotten[bytes.clone()].copy_from_slice(&foreign[bytes]);
        on_disk(&rotten)
    };
    let slot = slot_at(CHECKPOINTS) / PAGE;
    opens_at(&with(slot..slot + 1), &models, CHECKPOINTS - 1);
    assert!(opens_at(&with(6..10), &models, CHECKPOINTS).space_map_rebuilt);
    let root = root_of(&bytes, CHECKPOINTS, 0) / PAGE;
    assert!(opens_at(&with(root..root + 1), &models, CHECKPOINTS - 1).fell_back);
    // A superblock says whose the file is: with that of another file nothing in it is right.
    for twins in [0..1, 0..2] {
        assert!(matches!(open(&with(twins)).map(drop), Err(Error::Corrupt(_))));
    }
}

/// A root of the newest checkpoint was misread once: that one is refused, and must stay so when the power fails
/// before the next checkpoint is there and the root reads well again.
pub fn a_refused_slot_stays_refused(explorer: &mut Explorer) -> Result<(), Failure> {
    let (bytes, models) = rotten_base();
    let root = root_of(&bytes, CHECKPOINTS, 1);
    let mut misread = bytes.clone();
    misread[root + 100] ^= 1;
    explorer.run(
        |disk| {
            disk.plant(Path::new(FILE), &misread);
            let (db, recovered) = open(disk).expect("opens");
            assert!(recovered.fell_back && recovered.slot_seq == CHECKPOINTS - 1, "{recovered:?}");
            let from = recovered.meta.applied_index;
            disk.submit(recovered.slot_seq);
            disk.ack(recovered.slot_seq);
            for index in from + 1..from + 20 {
                Commit::new(SEED, index, true).run(&db, true).expect("commits");
            }
            disk.submit(recovered.slot_seq + 1);
            db.checkpoint().expect("makes a checkpoint");
        },
        |disk, acked, _| {
            if acked == 0 {
                return Ok(());
            }
            let mut image = disk.contents(Path::new(FILE)).map_err(|error| error.to_string())?;
            if image[root..root + PAGE] == misread[root..root + PAGE] {
                image[root..root + PAGE].copy_from_slice(&bytes[root..root + PAGE]);
                disk.plant(Path::new(FILE), &image);
            }
            let (db, recovered) = open(disk).map_err(|error| error.to_string())?;
            db.verify().map_err(|error| error.to_string())?;
            let applied = recovered.meta.applied_index;
            let mut model = models[acked as usize].clone();
            for index in model.applied + 1..=applied {
                model.apply(&Commit::new(SEED, index, true));
            }
            model.check(&db.view(), &mut SplitMix::new(1))
        },
    )
}

#[test]
fn a_refused_slot_does_not_come_back() {
    let limits = Limits { images_per_point: 40, recovery_one_in: 0, ..Limits::default() };
    let mut explorer = Explorer::new(5, limits);
    a_refused_slot_stays_refused(&mut explorer).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{}", explorer.report());
    assert!(explorer.report().distinct > 100, "{}", explorer.report());
}
