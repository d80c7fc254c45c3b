// SPDX-License-Identifier: Apache-2.0
//! Looking at a store from outside: what a look sees, what it calls damage, and what it does when its store is
//! written under it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_engine::inspect::{Findings, Store, look};
use cairn_engine::io::{Budget, Progress, Vfs};
use cairn_engine::sim::{Beside, SimVfs, SplitMix};
use cairn_engine::{Db, Error};

use crate::model::{Commit, MAP, Model, SCHEMA, create, read, seeds, tiny};

const DIR: &str = "/member";
const FILE: &str = "/member/engine.db";
const PAGE: usize = 4096;

/// A store, its disk, and what its newest checkpoint holds.
struct World {
    seed: u64,
    disk: SimVfs,
    vfs: Arc<dyn Vfs>,
    db: Db,
    /// What is committed.
    model: Model,
    /// What was committed when the overlay was frozen.
    frozen: Model,
    checkpointed: Model,
}

impl World {
    fn new(seed: u64, checkpoints: u64) -> World {
        let disk = SimVfs::new();
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let db = create(Arc::clone(&vfs), Path::new(DIR)).expect("a new store");
        let (model, frozen, checkpointed) = Default::default();
        let mut world = World { seed, disk, vfs, db, model, frozen, checkpointed };
        for _ in 0..checkpoints {
            world.commit(10);
            while !world.step(u64::MAX) {}
        }
        world
    }

    fn commit(&mut self, commits: u64) {
        for _ in 0..commits {
            let commit = Commit::new(self.seed, self.model.applied + 1, true);
            commit.run(&self.db, true).expect("commits");
            self.model.apply(&commit);
        }
    }

    /// A part of a checkpoint; true if that was the last one.
    fn step(&mut self, bytes: u64) -> bool {
        if self.db.freeze().expect("freezes") {
            self.frozen = self.model.clone();
        }
        let done = self.db.checkpoint_step(Budget::bytes(bytes)).expect("builds") == Progress::Done;
        if done {
            self.checkpointed = self.frozen.clone();
        }
        done
    }

    fn open(&self) -> Store {
        Store::open(&self.vfs, Path::new(DIR), SCHEMA).expect("opens beside the writer")
    }
}

/// Everything that a check does. `beside` is called for each extent.
fn check(store: &Store, beside: &mut dyn FnMut()) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let mut extents = Vec::new();
    store.check_head(&mut findings);
    for tree in store.schema() {
        store.check_tree(tree, &mut findings, &mut |extent| {
            extents.push((extent.page.get(), u64::from(extent.npages)));
            beside();
            Ok(())
        })?;
    }
    let whole = findings.count == 0;
    store.check_space(extents, whole, &mut findings)?;
    Ok(findings)
}

fn texts(findings: &Findings) -> Vec<String> {
    findings.damage.iter().map(|(error, _)| error.to_string()).collect()
}

fn found(disk: &SimVfs) -> Vec<String> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let store = Store::open(&vfs, Path::new(DIR), SCHEMA).expect("opens");
    texts(&check(&store, &mut || ()).expect("nobody writes"))
}

fn on_disk(bytes: &[u8]) -> SimVfs {
    let disk = SimVfs::new();
    disk.plant(Path::new(FILE), bytes);
    disk
}

#[test]
fn a_look_sees_the_newest_checkpoint_beside_its_writer_and_writes_nothing() {
    let mut world = World::new(3, 6);
    world.commit(5);
    let before = world.disk.counters();
    let store = world.open();
    assert_eq!(texts(&check(&store, &mut || ()).expect("reads")), [""; 0]);
    world.checkpointed.check(&store.view(), &mut SplitMix::new(1)).expect("equal");
    assert_eq!(store.seqs_before().collect::<Vec<_>>(), [6, 5]);
    for seq in store.seqs_before() {
        let older = store.before(seq).expect("reads").expect("its slot is whole");
        assert_eq!(texts(&check(&older, &mut || ()).expect("reads")), [""; 0], "checkpoint {seq}");
    }
    let after = world.disk.counters();
    assert_eq!((after.writes, after.syncs, after.dir_syncs), (before.writes, before.syncs, before.dir_syncs));
    assert!(
        world.open().before(4).expect("reads").is_some() && world.open().before(8).expect("reads").is_none()
    );
}

#[test]
fn a_look_whose_pages_are_written_again_is_overtaken_and_begins_anew() {
    let mut world = World::new(4, 6);
    let store = world.open();
    for _ in 0..8 {
        world.commit(10);
        while !world.step(u64::MAX) {}
    }
    let error = check(&store, &mut || ()).expect_err("its pages are another checkpoint's");
    assert!(matches!(error, Error::Overtaken { .. }), "{error}");
    let read = read(&store.view(), &MAP).expect_err("as for a reader");
    assert!(read.contains("damaged"), "{read}");

    let vfs = Arc::clone(&world.vfs);
    let mut looks = 0;
    let (seq, findings) = look(&vfs, Path::new(DIR), SCHEMA, |store| {
        looks += 1;
        let mut first = looks == 1;
        let findings = check(store, &mut || {
            for _ in 0..if std::mem::take(&mut first) { 8 } else { 0 } {
                world.commit(10);
                while !world.step(u64::MAX) {}
            }
        })?;
        Ok((store.slot().seq, findings))
    })
    .expect("the second look is left alone");
    assert_eq!((looks, seq, findings.count), (2, 23, 0));
}

#[test]
fn a_store_that_is_written_between_its_slots_and_its_roots_is_opened_anew() {
    /// The last of the four positions of the ring, which are read in order and followed by the roots.
    const LAST_SLOT_AT: u64 = 5 * PAGE as u64;
    let mut world = World::new(7, 8);
    let (disk, mut before) = (world.disk.clone(), 0);
    let (made, mut left) = (Arc::new(AtomicU64::new(0)), 8);
    let counted = Arc::clone(&made);
    let beside = Beside::new(disk, move |at| {
        if std::mem::replace(&mut before, at) == LAST_SLOT_AT {
            // Every slot is another after that, and pages of the ones before are written again.
            for _ in 0..std::mem::take(&mut left) {
                world.commit(10);
                while !world.step(u64::MAX) {}
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let vfs: Arc<dyn Vfs> = Arc::new(beside);
    let store = Store::open(&vfs, Path::new(DIR), SCHEMA).expect("nothing is damaged");
    assert_eq!(made.load(Ordering::Relaxed), 8, "made while the store was opened");
    assert!(store.slot().seq > 15, "the store as it is now: {}", store.slot().seq);
    assert!(store.refused().is_none());
}

/// The writer makes a part of a checkpoint, or starts anew, between any two extents that are looked at.
#[test]
fn whatever_is_written_beside_a_look_is_never_called_damage() {
    let (mut whole, mut overtaken, mut restarts) = (0, 0, 0);
    for seed in seeds(60, 4000) {
        let mut rng = SplitMix::new(seed);
        let mut world = World::new(seed, 3 + rng.below(6));
        let pace = 1 + rng.below(60);
        for _ in 0..4 {
            let store = world.open();
            let looked = check(&store, &mut || match rng.below(200) {
                0 => {
                    world.db.confirm().expect("syncs");
                    world.model = world.checkpointed.clone();
                    let options = tiny(Arc::clone(&world.vfs));
                    let db = Db::open(Path::new(DIR), SCHEMA, options);
                    assert!(matches!(db, Err(Error::Locked { .. })), "the writer has the lock all the time");
                    // The one before has to let go of the directory first.
                    world.db = create(Arc::new(SimVfs::new()), Path::new(DIR)).expect("a stand-in");
                    world.db =
                        Db::open(Path::new(DIR), SCHEMA, tiny(Arc::clone(&world.vfs))).expect("opens").0;
                    restarts += 1;
                }
                n if n < pace => {
                    world.commit(rng.below(3));
                    world.step(rng.below(3) * 8192);
                }
                _ => {}
            });
            match looked {
                Ok(findings) => {
                    assert_eq!(texts(&findings), [""; 0], "seed {seed}");
                    whole += 1;
                }
                Err(Error::Overtaken { .. }) => overtaken += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    println!("{whole} looks were whole, {overtaken} overtaken, {restarts} restarts beside them");
    assert!(whole > 100 && overtaken > 20 && restarts > 20, "{whole} {overtaken} {restarts}");
}

#[test]
fn damage_is_named_with_page_tree_and_keys_and_what_lies_beside_it_is_walked_too() {
    let world = World::new(5, 6);
    let bytes = world.disk.contents(Path::new(FILE)).expect("is there");
    let store = world.open();
    let mut leaves = Vec::new();
    let mut findings = Findings::default();
    let sound = store
        .check_tree(&MAP, &mut findings, &mut |extent| {
            if extent.level == 0 && extent.entries > 0 {
                leaves.push(extent.page.get());
            }
            Ok(())
        })
        .expect("reads");
    assert!(leaves.len() > 4, "{leaves:?}");
    let (one, other) = (leaves[1], leaves[3]);
    let mut rotten = bytes;
    rotten[one as usize * PAGE + 100] ^= 1;
    rotten[other as usize * PAGE + 200] ^= 0x40;
    let disk = on_disk(&rotten);
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let store = Store::open(&vfs, Path::new(DIR), SCHEMA).expect("opens");
    let mut findings = Findings::default();
    let walked = store.check_tree(&MAP, &mut findings, &mut |_| Ok(())).expect("walks on");
    assert_eq!((findings.count, walked.leaves), (2, sound.leaves - 2));
    for ((error, keys), page) in findings.damage.iter().zip([one, other]) {
        let Error::Corrupt(damage) = error else { panic!("{error}") };
        assert_eq!((damage.page, damage.tree.as_deref()), (Some(page), Some("map")));
        assert_eq!(damage.what, "checksum of a header page");
        let keys = keys.as_ref().expect("a leaf has a range of keys");
        assert!(keys.high.as_ref().is_some_and(|high| keys.low < *high), "{keys:?}");
    }
    let low = |nth: usize| findings.damage[nth].1.as_ref().map(|keys| keys.low.clone());
    assert!(low(0) < low(1));
    // The pages below a damaged node may belong to anyone, so the map is not called wrong for them.
    assert_eq!(found(&disk).len(), 2);
}

#[test]
fn every_flipped_byte_that_a_checkpoint_needs_is_found() {
    let world = World::new(6, 6);
    let bytes = world.disk.contents(Path::new(FILE)).expect("is there");
    let used: Vec<(u64, u64)> = world.open().used_runs().expect("reads").expect("whole");
    let mut rng = SplitMix::new(9);
    let pages: Vec<u64> = used.iter().flat_map(|(start, n)| *start..start + n).collect();
    let mut flips = 0;
    for page in pages {
        let mut rotten = bytes.clone();
        rotten[page as usize * PAGE + rng.index(PAGE)] ^= 1 << rng.below(8);
        // A root that does not verify is a reason to look at the checkpoint before.
        assert!(!found(&on_disk(&rotten)).is_empty(), "page {page}");
        flips += 1;
    }
    println!("{flips} bytes flipped");
    assert!(flips > 100);
    for page in [0, 1] {
        let mut rotten = bytes.clone();
        rotten[page * PAGE + 33] ^= 4;
        assert_eq!(
            found(&on_disk(&rotten)),
            [format!(
                "{FILE} is damaged, page {page}: one of the two superblocks; the next start heals it; \
                 keep the file for inspection and restore this member from a peer or a backup"
            )]
        );
    }
}

#[test]
fn an_unfinished_slot_is_no_damage_and_a_broken_older_one_is() {
    let world = World::new(7, 6);
    let bytes = world.disk.contents(Path::new(FILE)).expect("is there");
    for (seq, expected) in [(8, 0), (6, 1), (5, 1)] {
        let mut rotten = bytes.clone();
        rotten[(2 + seq % 4) * PAGE + 20] ^= 1;
        assert_eq!(found(&on_disk(&rotten)).len(), expected, "slot {seq}");
    }
    // The newest one looks unfinished, and the one before it is looked at.
    let mut rotten = bytes.clone();
    rotten[(2 + 7 % 4) * PAGE + 20] ^= 1;
    assert_eq!(found(&on_disk(&rotten)), [""; 0]);
    rotten[(2 + 7 % 4) * PAGE..][..PAGE].fill(0);
    assert_eq!(found(&on_disk(&rotten)), [""; 0], "wiped by a start that went back");
}

/// Changes the newest bitmap, and what sums it up.
fn with_map(bytes: &[u8], seq: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let seq_of = |page: &[u8]| u64::from_le_bytes(page[8..16].try_into().expect("8 bytes"));
    let newest = (6..10).map(|page| page * PAGE).max_by_key(|at| seq_of(&bytes[*at..])).expect("four");
    let map = &mut bytes[newest..newest + PAGE];
    change(&mut map[64..]);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&map[..4]);
    crc.update(&map[8..]);
    let crc = crc.finalize().to_le_bytes();
    map[4..8].copy_from_slice(&crc);
    let digest = crc32fast::hash(&[&map[8..16], &crc].concat());
    let slot = &mut bytes[(2 + seq as usize % 4) * PAGE..][..PAGE];
    slot[56..60].copy_from_slice(&digest.to_le_bytes());
    let crc = crc32fast::hash(&slot[..PAGE - 4]);
    slot[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_space_map_that_differs_from_the_trees_is_found_page_by_page() {
    let world = World::new(8, 6);
    let bytes = world.disk.contents(Path::new(FILE)).expect("is there");
    let store = world.open();
    let used = store.used_runs().expect("reads").expect("whole");
    let (first, n) = used[0];
    let free = first + n;
    let flip = |page: u64| move |bits: &mut [u8]| bits[page as usize / 8] ^= 1 << (page % 8);
    assert_eq!(found(&on_disk(&with_map(&bytes, 7, |_| ()))), [""; 0], "the test sums it up right");
    let leaked = found(&on_disk(&with_map(&bytes, 7, flip(free))));
    assert_eq!(leaked.len(), 1);
    assert!(
        leaked[0].contains(&format!("page {free}: pages that the space map has as used and no tree reaches")),
        "{leaked:?}"
    );
    let missing = found(&on_disk(&with_map(&bytes, 7, flip(first))));
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].contains(&format!("page {first}: pages of a node that the space map has as free")),
        "{missing:?}"
    );
    let mut rotten = bytes;
    rotten[6 * PAGE..10 * PAGE].fill(0);
    let lost = found(&on_disk(&rotten));
    assert!(lost.len() == 1 && lost[0].contains("the space map is not the one"), "{lost:?}");
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let disk = SimVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let open = || Store::open(&vfs, Path::new(DIR), SCHEMA).map(drop);
    assert!(matches!(open(), Err(Error::Io(_))));
    disk.plant(Path::new(FILE), &[0; 100]);
    assert!(matches!(open(), Err(Error::Corrupt(_))));
    disk.plant(Path::new(FILE), &[7; 64 * PAGE]);
    assert!(matches!(open(), Err(Error::Corrupt(_))));
    let bytes = World::new(1, 5).disk.contents(Path::new(FILE)).expect("is there");
    disk.plant(Path::new(FILE), &bytes[..20 * PAGE]);
    assert!(matches!(open(), Err(Error::Corrupt(_))), "cut short");
}
