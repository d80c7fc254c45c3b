// SPDX-License-Identifier: Apache-2.0
//! The model: what a store must hold after each commit, and the comparison of a store with it.
//!
//! Owns      three trees as plain maps, the commits that made them, and the check of a view.
//! Holds     a commit is a function of its index and seed, so that replaying it gives the same changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::io::Vfs;
use cairn_engine::sim::SplitMix;
use cairn_engine::{
    AppendKey, CommitMeta, Db, Growth, InstallId, Options, PageSourceKind, Schema, TreeDef, TreeKind, View,
};

fn of_value(_: &[u8], value: &[u8]) -> u64 {
    value.len() as u64 % 5
}

fn odd(_: &[u8], value: &[u8]) -> u64 {
    u64::from(value.first().copied().unwrap_or_default() & 1)
}

pub const LOG: TreeDef =
    TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 2, weight: of_value };
pub const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 1, weight: odd };
pub const WIDE: TreeDef =
    TreeDef { id: 7, name: "wide", kind: TreeKind::Ordered, leaf_pages: 2, weight: of_value };
pub const SCHEMA: Schema = &[LOG, MAP, WIDE];
pub const INSTALL: InstallId = InstallId(0x5eed);

/// Options under which a few hundred entries split, merge, grow and tidy.
pub fn tiny(vfs: Arc<dyn Vfs>) -> Options {
    let mut options = Options::default();
    options.vfs = vfs;
    options.map_reserve = 1 << 20;
    options.page_source = PageSourceKind::Map;
    options.overlay_entries = 60;
    options.growth = Growth { first_bytes: 1 << 16, step_bytes: 1 << 17, step_bytes_max: 1 << 18 };
    options.tidy_bytes = 1 << 14;
    options.purge_bytes = 1 << 13;
    options.relocate_bytes = 1 << 10;
    options.shrink_after_ms = 2;
    options.punch_bytes = 1 << 13;
    options.punch_after_ms = 1;
    options.node_bytes_max = 900;
    options
}

pub fn key(index: u64, sub: u64) -> AppendKey {
    (u128::from(index) << 64 | u128::from(sub)).to_be_bytes()
}

/// One change of an ordered tree.
#[derive(Clone, Debug)]
struct Change {
    wide: bool,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// What commit `index` does.
#[derive(Clone, Debug)]
pub struct Commit {
    pub index: u64,
    appends: Vec<(AppendKey, Vec<u8>)>,
    changes: Vec<Change>,
}

fn value(rng: &mut SplitMix) -> Vec<u8> {
    let len = match rng.below(40) {
        0 => 17_000 + rng.below(9000),
        1..4 => 300 + rng.below(2500),
        _ => rng.below(60),
    };
    let mut value = vec![0; len as usize];
    rng.fill(&mut value);
    value
}

fn map_key(rng: &mut SplitMix) -> Vec<u8> {
    let mut key = format!("registry/{}/{:03}", rng.below(4), rng.below(120)).into_bytes();
    match rng.below(60) {
        0 => key.resize(1100 + rng.index(900), b'x'),
        1 => key.clear(),
        _ => {}
    }
    key
}

impl Commit {
    /// The commit of `index` in the history that `seed` makes.
    pub fn new(seed: u64, index: u64, large: bool) -> Commit {
        let mut rng = SplitMix::new(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let n = if large { rng.below(30) } else { rng.below(5) };
        let appends = (0..n).map(|sub| (key(index, sub), value(&mut rng))).collect();
        let m = if large { rng.below(20) } else { rng.below(4) };
        let changes = (0..m).map(|_| Change {
            wide: rng.one_in(4),
            key: map_key(&mut rng),
            value: (!rng.one_in(3)).then(|| value(&mut rng)),
        });
        Commit { index, appends, changes: changes.collect() }
    }

    fn meta(&self) -> CommitMeta {
        CommitMeta {
            applied_index: self.index,
            applied_term: 1 + self.index / 10,
            owner: Bytes::from(format!("owner of {}", self.index)),
        }
    }

    /// Does the commit on a store; `false` rolls it back instead.
    pub fn run(&self, db: &Db, keep: bool) -> Result<(), cairn_engine::Error> {
        let mut txn = db.begin()?;
        for (key, value) in &self.appends {
            txn.append(&LOG, *key, Bytes::copy_from_slice(value));
        }
        for change in &self.changes {
            let tree = if change.wide { &WIDE } else { &MAP };
            let weigh = |value: &[u8]| (tree.weight)(&change.key, value) as i64;
            let was = txn.get(tree, &change.key)?.map_or(0, |value| weigh(&value));
            match &change.value {
                Some(value) => txn.put(tree, &change.key, Bytes::copy_from_slice(value), weigh(value) - was),
                None => txn.delete(tree, &change.key, -was),
            }
        }
        if keep {
            txn.commit(self.meta(), self.index * 2)?;
        }
        Ok(())
    }
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store must hold.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub applied: u64,
    pub log: Map,
    pub map: Map,
    pub wide: Map,
    /// Keys of the log that a purge may have taken already.
    pub maybe_gone: BTreeSet<Vec<u8>>,
    /// What purges took, and the checkpoint that did: before it is durable, a crash brings them back.
    gone: Vec<(u64, Map)>,
}

impl Model {
    pub fn apply(&mut self, commit: &Commit) {
        self.applied = commit.index;
        self.log.extend(commit.appends.iter().map(|(key, value)| (key.to_vec(), value.clone())));
        for change in &commit.changes {
            let map = if change.wide { &mut self.wide } else { &mut self.map };
            match &change.value {
                Some(value) => map.insert(change.key.clone(), value.clone()),
                None => map.remove(&change.key),
            };
        }
    }

    /// Checkpoint `seq` did the purges that waited: their keys must be gone from now on.
    pub fn purged(&mut self, seq: u64) {
        let keys = std::mem::take(&mut self.maybe_gone);
        let taken = keys.into_iter().filter_map(|key| self.log.remove_entry(&key)).collect();
        self.gone.push((seq, taken));
    }

    /// The store was opened at checkpoint `seq`: purges of later ones are undone, until they are asked for
    /// again.
    pub fn reopened_at(&mut self, seq: u64) {
        for (by, entries) in std::mem::take(&mut self.gone) {
            if by > seq {
                self.maybe_gone.extend(entries.keys().cloned());
                self.log.extend(entries);
            }
        }
    }

    /// Compares all of a view with the model: both ways, by key, by weight, by meta.
    pub fn check(&self, view: &View, rng: &mut SplitMix) -> Result<(), String> {
        let expected = (self.applied, self.applied * 2);
        if (view.meta().applied_index, view.stamp()) != expected {
            return Err(format!(
                "the view is at {:?}, not at {expected:?}",
                (view.meta().applied_index, view.stamp())
            ));
        }
        let log = read(view, &LOG)?;
        for key in log.keys().chain(self.log.keys()) {
            let same = log.get(key) == self.log.get(key);
            let gone = !log.contains_key(key) && self.maybe_gone.contains(key);
            if !same && !gone {
                return Err(format!("log {}: differs from the model", hex(key)));
            }
        }
        for (tree, model, found) in [
            (&LOG, &log, &log),
            (&MAP, &self.map, &read(view, &MAP)?),
            (&WIDE, &self.wide, &read(view, &WIDE)?),
        ] {
            if let Some(key) = model.keys().chain(found.keys()).find(|key| model.get(*key) != found.get(*key))
            {
                return Err(format!(
                    "{} {}: {:?} and not {:?}",
                    tree.name,
                    hex(key),
                    found.get(key).map(Vec::len),
                    model.get(key).map(Vec::len)
                ));
            }
            check_weights(view, tree, model, rng)?;
            check_keys(view, tree, model, rng)?;
        }
        Ok(())
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().take(24).map(|byte| format!("{byte:02x}")).collect()
}

fn text(error: cairn_engine::Error) -> String {
    error.to_string()
}

/// All of a tree, read both ways.
pub fn read(view: &View, tree: &TreeDef) -> Result<Map, String> {
    let mut cursor = view.cursor(tree);
    let mut forward = Vec::new();
    while let Some((key, value)) = cursor.next().map_err(text)? {
        forward.push((key.to_vec(), value.to_vec()));
    }
    let mut back = Vec::new();
    while let Some((key, value)) = cursor.prev().map_err(text)? {
        back.push((key.to_vec(), value.to_vec()));
    }
    back.reverse();
    if forward != back {
        return Err(format!("{}: {} entries forward, {} back", tree.name, forward.len(), back.len()));
    }
    if let Some(pair) = forward.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(format!("{}: {} is out of order", tree.name, hex(&pair[1].0)));
    }
    Ok(forward.into_iter().collect())
}

fn some_key(model: &Map, rng: &mut SplitMix) -> Vec<u8> {
    if !model.is_empty() && !rng.one_in(4) {
        return model.keys().nth(rng.index(model.len())).expect("inside").clone();
    }
    map_key(rng)
}

fn check_weights(view: &View, tree: &TreeDef, model: &Map, rng: &mut SplitMix) -> Result<(), String> {
    let all = view.weight(tree, Bound::Unbounded, Bound::Unbounded).map_err(text)?.0;
    let expected = model.iter().map(|(key, value)| (tree.weight)(key, value)).sum::<u64>();
    if all != expected {
        return Err(format!("{} weighs {all}, not {expected}", tree.name));
    }
    for _ in 0..4 {
        let (lo, hi) = (some_key(model, rng), some_key(model, rng));
        let lo = if rng.one_in(2) { Bound::Included(&lo[..]) } else { Bound::Excluded(&lo[..]) };
        let hi = if rng.one_in(2) { Bound::Included(&hi[..]) } else { Bound::Excluded(&hi[..]) };
        let found = view.weight(tree, lo, hi).map_err(text)?.0;
        let inside = model.iter().filter(|(key, _)| {
            let above = match lo {
                Bound::Included(lo) => &key[..] >= lo,
                Bound::Excluded(lo) => &key[..] > lo,
                Bound::Unbounded => true,
            };
            let below = match hi {
                Bound::Included(hi) => &key[..] <= hi,
                Bound::Excluded(hi) => &key[..] < hi,
                Bound::Unbounded => true,
            };
            above && below
        });
        let expected = inside.map(|(key, value)| (tree.weight)(key, value)).sum::<u64>();
        if found != expected {
            return Err(format!("{} {lo:?}..{hi:?} weighs {found}, not {expected}", tree.name));
        }
    }
    Ok(())
}

fn check_keys(view: &View, tree: &TreeDef, model: &Map, rng: &mut SplitMix) -> Result<(), String> {
    let mut cursor = view.cursor(tree);
    for _ in 0..6 {
        let key = some_key(model, rng);
        let found = view.get(tree, &key).map_err(text)?;
        if found.as_deref() != model.get(&key).map(|value| &value[..]) {
            return Err(format!("{}: get {} differs", tree.name, hex(&key)));
        }
        cursor.seek(&key);
        let next = cursor.next().map_err(text)?.map(|(key, _)| key.to_vec());
        let expected = model.range(key.clone()..).next().map(|(key, _)| key.clone());
        if next != expected {
            return Err(format!("{}: the entry from {} on differs", tree.name, hex(&key)));
        }
        cursor.seek(&key);
        let before = cursor.prev().map_err(text)?.map(|(key, _)| key.to_vec());
        let expected = model.range(..key.clone()).next_back().map(|(key, _)| key.clone());
        if before != expected {
            return Err(format!("{}: the entry before {} differs", tree.name, hex(&key)));
        }
    }
    Ok(())
}

pub fn create(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Db, cairn_engine::Error> {
    Db::create(dir, SCHEMA, INSTALL, tiny(vfs))
}

/// A number of runs that the environment may raise, and the large one of `CAIRN_FULL=1`.
pub fn runs(few: u64, many: u64) -> u64 {
    if std::env::var_os("CAIRN_FULL").is_some_and(|v| v == "1") { many } else { few }
}

/// The first seed of a random test; `CAIRN_SEED` repeats one.
pub fn seeds(few: u64, many: u64) -> std::ops::Range<u64> {
    match std::env::var("CAIRN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..1 + runs(few, many),
    }
}
