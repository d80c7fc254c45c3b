// SPDX-License-Identifier: Apache-2.0
//! Scrub: what is sound is left in peace, whatever goes on beside it, and what is not is named.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::inspect::Store;
use cairn_engine::io::{Budget, Progress, StdVfs, Vfs};
use cairn_engine::page::PAGE_BYTES;
use cairn_engine::sim::{Fault, SimVfs, SplitMix};
use cairn_engine::{Damage, Db, Error, PageSourceKind, Scrub, Scrubbed, TreeDef, View};

use crate::model::{Commit, INSTALL, LOG, MAP, Model, SCHEMA, WIDE, create, runs, seeds, tiny};

const DIR: &str = "/member";
const FILE: &str = "/member/engine.db";
const SEED: u64 = 41;

struct World {
    disk: SimVfs,
    db: Db,
    model: Model,
    /// What the newest checkpoint has.
    checkpointed: Model,
}

fn world(seed: u64, checkpoints: u64) -> World {
    let disk = SimVfs::new();
    disk.stop_recording();
    let db = create(Arc::new(disk.clone()), Path::new(DIR)).expect("a new store");
    let mut world = World { disk, db, model: Model::default(), checkpointed: Model::default() };
    for _ in 0..checkpoints {
        world.commit(seed, 10);
        world.checkpoint();
    }
    world
}

impl World {
    fn commit(&mut self, seed: u64, commits: u64) {
        for _ in 0..commits {
            let commit = Commit::new(seed, self.model.applied + 1, true);
            commit.run(&self.db, true).expect("commits");
            self.model.apply(&commit);
        }
    }

    fn checkpoint(&mut self) {
        self.db.checkpoint().expect("makes a checkpoint");
        self.checkpointed = self.model.clone();
    }

    /// The pages that the newest checkpoint needs: superblocks, its slot, its bitmap, and its trees'.
    fn needed(&self) -> Vec<u64> {
        let vfs: Arc<dyn Vfs> = Arc::new(self.disk.clone());
        let store = Store::open(&vfs, Path::new(DIR), SCHEMA).expect("a checkpoint");
        let runs = store.used_runs().expect("reads").expect("a map");
        let slot = 2 + store.slot().seq % 4;
        [0, 1, slot].into_iter().chain(runs.iter().flat_map(|(start, n)| *start..start + n)).collect()
    }
}

/// One pass in steps of `budget`. `beside` is called between them.
fn pass(db: &Db, budget: u64, mut beside: impl FnMut()) -> Scrubbed {
    let (mut scrub, mut all) = (Scrub::default(), Scrubbed::default());
    for _ in 0..100_000 {
        let Scrubbed { bytes, reread, damage, pass_ended } = db.scrub(&mut scrub, Budget::bytes(budget));
        all.bytes += bytes;
        all.reread += reread;
        all.damage.extend(damage);
        if pass_ended {
            assert_eq!(scrub, Scrub::default(), "the next pass begins with the first page");
            return all;
        }
        beside();
    }
    panic!("a pass that does not end");
}

fn place(damage: &Damage) -> (u64, Option<&'static str>) {
    let Error::Corrupt(place) = &damage.error else { panic!("{:?}", damage.error) };
    assert_eq!(place.file, Path::new(FILE));
    let tree = damage.keys.as_ref().map(|(tree, _)| *tree);
    assert_eq!(place.tree.as_deref(), tree);
    (place.page.expect("a page"), tree)
}

#[test]
fn a_sound_store_passes_in_steps_of_any_size() {
    let world = world(SEED, 8);
    let needed = world.needed().len() as u64 * PAGE_BYTES as u64;
    for budget in [1, 10_000, 100_000, u64::MAX] {
        let all = pass(&world.db, budget, || {});
        assert!(all.damage.is_empty() && all.reread == 0, "{all:?}");
        assert!(all.bytes >= needed, "{} of {needed} bytes in steps of {budget}", all.bytes);
        if budget == u64::MAX {
            assert_eq!(all.bytes, needed + PAGE_BYTES as u64, "each page once, and the bitmap");
        }
    }
}

#[test]
fn whatever_is_written_beside_a_pass_is_never_called_damage() {
    let mut steps = 0;
    for seed in seeds(6, 60) {
        let mut world = world(seed, 3);
        let mut rng = SplitMix::new(seed);
        let db = world.db.clone();
        let mut checkpoints = 0;
        while checkpoints < runs(30, 200) {
            let all = pass(&db, 1 + rng.below(60_000), || {
                steps += 1;
                match rng.below(4) {
                    0 => world.commit(seed, 3),
                    1 => {
                        db.freeze().expect("freezes");
                    }
                    2 => {
                        let budget = Budget::bytes(rng.below(20_000));
                        let done = db.checkpoint_step(budget).expect("goes on") == Progress::Done;
                        checkpoints += u64::from(done);
                    }
                    _ => {}
                }
            });
            assert!(all.damage.is_empty(), "seed {seed}: {:?}", all.damage);
        }
        db.verify().expect("whole");
        world.model.check(&db.view(), &mut rng).expect("the model");
    }
    println!("{steps} steps");
    assert!(std::env::var_os("CAIRN_SEED").is_some() || steps >= 800, "{steps} steps");
}

/// The keys that cannot be read.
fn unreadable(db: &Db, tree: &TreeDef, keys: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let view = db.view();
    keys.filter(|key| view.get(tree, key).is_err()).collect()
}

#[test]
fn a_flipped_byte_in_any_page_is_named_with_the_keys_that_it_hides() {
    let mut rng = SplitMix::new(SEED);
    let (mut hidden, mut named) = (0, 0);
    for page in world(SEED + 1, 6).needed() {
        if page > 100 && !rng.one_in(runs(3, 1)) {
            continue;
        }
        // Each in a store of its own, whose readers have not seen the page.
        let world = world(SEED + 1, 6);
        let at = page * PAGE_BYTES as u64 + rng.below(PAGE_BYTES as u64);
        world.disk.flip(Path::new(FILE), at, 1 << rng.below(8));
        let all = pass(&world.db, 1 + rng.below(100_000), || {});
        let places: BTreeSet<_> = all.damage.iter().map(place).collect();
        let pages: Vec<u64> = places.iter().map(|(page, _)| *page).collect();
        assert!(pages.contains(&page) || header_of(&pages, page), "page {page}: {places:?}");
        named += 1;
        for (tree, keys) in [
            (&LOG, world.checkpointed.log.keys().cloned().collect::<Vec<_>>()),
            (&MAP, world.checkpointed.map.keys().cloned().collect()),
            (&WIDE, world.checkpointed.wide.keys().cloned().collect()),
        ] {
            for key in unreadable(&world.db, tree, keys.into_iter()) {
                let told = all.damage.iter().filter_map(|damage| damage.keys.as_ref()).any(|(name, keys)| {
                    *name == tree.name && keys.low <= key && keys.high.as_ref().is_none_or(|high| key < *high)
                });
                assert!(told, "page {page}: key {key:?} of {} cannot be read: {:?}", tree.name, all.damage);
                hidden += 1;
            }
        }
    }
    println!("{named} pages damaged, {hidden} keys hidden");
    assert!(named >= 40 && hidden >= 100, "{named} pages, {hidden} keys");
}

/// A wrong byte in a table of checksums shows in the header page, whose own checksum is wrong then.
fn header_of(pages: &[u64], page: u64) -> bool {
    pages.iter().any(|header| *header < page && page < header + 64)
}

#[test]
fn a_page_from_an_older_checkpoint_is_found_by_the_pointer_to_it() {
    let mut found = 0;
    for seed in 1..=8 {
        let mut world = world(SEED + seed, 4);
        let before = world.disk.contents(Path::new(FILE)).expect("is there");
        world.commit(SEED + seed, 40);
        for _ in 0..6 {
            world.commit(SEED + seed, 2);
            world.checkpoint();
        }
        let now = world.disk.contents(Path::new(FILE)).expect("is there");
        // A write that was lost: the page is as it was when another node was there, and whole.
        let lost = world.needed().into_iter().skip(3).find(|page| {
            let range = *page as usize * PAGE_BYTES..(*page as usize + 1) * PAGE_BYTES;
            let node = |file: &[u8]| file.get(range.clone()).is_some_and(|bytes| bytes.starts_with(b"CrnT"));
            node(&before) && node(&now) && before[range.clone()] != now[range.clone()]
        });
        let Some(page) = lost else { continue };
        for at in page as usize * PAGE_BYTES..(page as usize + 1) * PAGE_BYTES {
            if before[at] != now[at] {
                world.disk.flip(Path::new(FILE), at as u64, before[at] ^ now[at]);
            }
        }
        let all = pass(&world.db, u64::MAX, || {});
        assert!(all.damage.iter().any(|damage| place(damage).0 == page), "page {page}: {:?}", all.damage);
        found += 1;
    }
    assert!(found >= 4, "{found} lost writes found");
}

#[test]
fn a_page_that_reads_well_the_second_time_is_no_damage() {
    let world = world(SEED + 2, 6);
    let before = world.disk.calls_for(Fault::Read);
    pass(&world.db, u64::MAX, || {});
    let reads = world.disk.calls_for(Fault::Read) - before;
    for nth in 1..=reads {
        world.disk.arm(Fault::Read, nth);
        let all = pass(&world.db, u64::MAX, || {});
        assert!(world.disk.fault_fired());
        assert!(all.damage.is_empty() && all.reread == 1, "read {nth}: {all:?}");
    }
    assert!(reads >= 40, "{reads} reads");
}

/// A store on real files, read through `source`, whose map was read once; then one bit is flipped in each node of
/// the map, as if the disk gave back something else from now on.
fn read_and_rotten(dir: &Path, source: PageSourceKind) -> (Db, View, Vec<Vec<u8>>) {
    let mut options = tiny(Arc::new(StdVfs));
    options.page_source = source;
    let db = Db::create(dir, SCHEMA, INSTALL, options).expect("a new store");
    let mut model = Model::default();
    for index in 1..=40 {
        let commit = Commit::new(SEED, index, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
    }
    db.checkpoint().expect("makes a checkpoint");
    let view = db.view();
    let keys: Vec<Vec<u8>> = model.map.keys().cloned().collect();
    assert!(unreadable(&db, &MAP, keys.iter().cloned()).is_empty(), "every page passes once");
    let path = dir.join("engine.db");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let mut flipped = 0;
    let pages = file.metadata().expect("a length").len() / PAGE_BYTES as u64;
    for page in 16..pages {
        let (mut head, at) = ([0; 8], page * PAGE_BYTES as u64);
        file.read_exact_at(&mut head, at).expect("read");
        if head.starts_with(b"CrnT") && head[6] == MAP.id {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at + 300).expect("read");
            file.write_all_at(&[byte[0] ^ 1], at + 300).expect("write");
            flipped += 1;
        }
    }
    assert!(flipped >= 3, "{flipped} nodes");
    (db, view, keys)
}

fn all_are_noticed(view: &View, keys: &[Vec<u8>]) {
    let errors = keys.iter().filter_map(|key| view.get(&MAP, key).err());
    assert!(errors.clone().all(|error| error.is_corrupt()));
    assert_eq!(errors.count(), keys.len(), "nothing that passed before is believed");
}

#[test]
fn after_a_pass_a_reader_of_the_map_sums_the_page_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, view, keys) = read_and_rotten(dir.path(), PageSourceKind::Map);
    assert!(!pass(&db, u64::MAX, || {}).damage.is_empty());
    all_are_noticed(&view, &keys);
}

#[test]
fn a_reader_by_pread_sums_each_page_each_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_db, view, keys) = read_and_rotten(dir.path(), PageSourceKind::Pread);
    all_are_noticed(&view, &keys);
}
