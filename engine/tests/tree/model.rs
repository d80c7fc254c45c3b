// SPDX-License-Identifier: Apache-2.0
//! Trees against a `BTreeMap`, with tiny nodes, so that short runs split, merge, grow and fall.
//!
//! Owns      the random histories and what is compared after each step.
//! Holds     every step's old root still reads as before, until the step after it.
//! Never     looks inside a page.

use std::ops::Bound;

use cairn_engine::Error;
use cairn_engine::page::{PageId, TreeRoot};
use cairn_engine::tree::{self, Ctx, Shape, Weight};

use crate::support::*;

/// Histories of this run, and the steps of each.
const HISTORIES: u64 = 150;
const HISTORIES_FULL: u64 = 5_000;
const STEPS: u64 = 14;

struct Run {
    file: MemFile,
    ctx: Ctx,
    root: TreeRoot,
    model: Model,
    rng: Rng,
    long: bool,
    most_height: u8,
    blobs: u64,
    moved: u64,
}

#[test]
fn trees_are_as_the_model_says_after_every_step() {
    let seed = seed("tree model", 20_260_711);
    let histories = if full() { HISTORIES_FULL } else { HISTORIES };
    let (mut steps, mut heights, mut blobs, mut falls, mut moved) = (0, 0u64, 0u64, 0u64, 0u64);
    for history in 0..histories {
        let mut rng = Rng(seed ^ history.wrapping_mul(0x1000_0000_01b3));
        let leaf_bytes = *rng.pick(&[200, 300, 600, 1500, 4096, 8192, 32768]);
        let branch_bytes = *rng.pick(&[160, 300, 700, 4096]);
        let (fill, join) = *rng.pick(&[(85, 50), (100, 60)]);
        let shape = Shape { leaf_bytes, branch_bytes, fill, join };
        let weight = if rng.one_in(3) { Weight::One } else { Weight::Of(by_first_byte) };
        let long = rng.one_in(3);
        let mut run = Run {
            file: match history % 3 {
                0 => MemFile::new(),
                of_three => MemFile::on_disk(of_three == 1),
            },
            ctx: ctx(shape, weight),
            root: TreeRoot::EMPTY,
            model: Model::new(),
            rng,
            long,
            most_height: 0,
            blobs: 0,
            moved: 0,
        };
        for step in 0..STEPS {
            let before = run.most_height;
            run.step(step + 1)
                .unwrap_or_else(|error| panic!("history {history} of seed {seed}, step {step}: {error}"));
            falls += u64::from(run.root.height < before.min(3));
            steps += 1;
        }
        heights += u64::from(run.most_height >= 3);
        blobs += run.blobs;
        moved += run.moved;
    }
    println!(
        "tree model: {histories} histories, {steps} steps, {heights} of height 3 and more, {falls} low after high, {blobs} blobs seen, {moved} extents moved"
    );
    assert!(steps >= histories * STEPS && heights * 4 >= histories && falls > 0 && blobs > histories);
    assert!(moved > histories * 10);
}

impl Run {
    fn step(&mut self, seq: u64) -> Result<(), Error> {
        self.ctx.seq = seq;
        self.file.begin(seq);
        self.file.remember(self.rng.one_in(2));
        let (old_root, old_model) = (self.root, self.model.clone());
        match self.rng.below(12) {
            0..4 => self.merge(false)?,
            4 | 5 => self.merge(true)?,
            6 | 7 => self.append()?,
            8 | 9 => self.relocate(seq)?,
            _ => self.delete()?,
        }
        self.most_height = self.most_height.max(self.root.height);
        let mut old_ctx = self.ctx.clone();
        old_ctx.seq = seq - 1;
        assert!(read_all(&self.file, &old_ctx, &old_root)? == old_model, "the old root reads otherwise");
        self.blobs += check_whole(&self.file, &self.ctx, &self.root, &self.model).blobs;
        self.compare()?;
        self.file.settle();
        assert!(read_all(&self.file, &self.ctx, &self.root)? == self.model, "a released extent was in use");
        Ok(())
    }

    fn key(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let len = if rng.one_in(40) { 0 } else { 1 + rng.below(12) as usize };
        let mut key: Vec<u8> = (0..len).map(|_| *rng.pick(b"abc\x00\xff")).collect();
        if self.long && rng.one_in(3) {
            // Around each limit: what a node keeps, and what makes a key long.
            let len = *rng.pick(&[400, 511, 512, 513, 700, 1023, 1024, 1025, 1500, 5000]);
            let mut long = vec![b'b'; len];
            long.append(&mut key);
            return long;
        }
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let len = match rng.below(60) {
            0 => 16 * 1024,
            1 => 16 * 1024 + 1 + rng.below(40_000),
            2 if rng.one_in(12) => 4_200_000 + rng.below(100_000),
            2..10 => 100 + rng.below(2000),
            10..15 => 0,
            _ => rng.below(40),
        };
        let (fill, first) = (rng.next() as u8, rng.next() as u8);
        let mut value = vec![fill; len as usize];
        if let Some(byte) = value.first_mut() {
            *byte = first;
        }
        value
    }

    fn merge(&mut self, large: bool) -> Result<(), Error> {
        let count = if large { 200 } else { 1 + self.rng.below(20) };
        let mut changes = std::collections::BTreeMap::new();
        for _ in 0..count {
            let key = self.some_key();
            let change = if self.rng.one_in(4) { None } else { Some(self.value()) };
            changes.insert(key, change);
        }
        self.root =
            tree::merge(&self.file, &mut self.file.clone(), &self.ctx, &self.root, changes_of(&changes))?;
        for (key, change) in changes {
            match change {
                Some(value) => self.model.insert(key, value),
                None => self.model.remove(&key),
            };
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), Error> {
        let mut key = self.model.last_key_value().map(|(key, _)| key.clone()).unwrap_or_default();
        let mut entries = Vec::new();
        for _ in 0..self.rng.below(150) {
            if self.rng.one_in(10) || key.len() > 6000 {
                // A new, higher, and shorter key, where one of that kind is left.
                let cut = self.rng.below(8) as usize;
                if let Some(at) = key.iter().take(cut).rposition(|byte| *byte < 250) {
                    key.truncate(at + 1);
                    key[at] += 1;
                    entries.push((key.clone(), self.value()));
                    continue;
                }
            }
            let more = if self.long && self.rng.one_in(20) { 1100 } else { 1 };
            key.extend(vec![1; more]);
            entries.push((key.clone(), self.value()));
        }
        self.root = tree::append(&self.file, &mut self.file.clone(), &self.ctx, &self.root, entries.clone())?;
        self.model.extend(entries);
        Ok(())
    }

    fn delete(&mut self) -> Result<(), Error> {
        let share = *self.rng.pick(&[2, 3, 10, 1000]);
        let (skip, take) = (self.rng.below(self.model.len() as u64 + 1), 1 + self.rng.below(400));
        let range: Vec<Vec<u8>> =
            self.model.keys().skip(skip as usize).take(take as usize).cloned().collect();
        let mut keys: std::collections::BTreeSet<Vec<u8>> =
            range.into_iter().filter(|_| share == 1000 || !self.rng.one_in(share)).collect();
        keys.insert(self.key());
        if self.rng.one_in(5) {
            keys = self.model.keys().cloned().collect();
            if let Some(stays) = self.model.keys().nth(self.rng.below(self.model.len() as u64 * 2) as usize) {
                keys.remove(stays);
            }
        }
        self.root = tree::delete_sorted(&self.file, &mut self.file.clone(), &self.ctx, &self.root, &keys)?;
        self.model.retain(|key, _| !keys.contains(key));
        Ok(())
    }

    /// Moves everything from some page on, in a few walks that each begin where the one before was stopped.
    fn relocate(&mut self, seq: u64) -> Result<(), Error> {
        let floor = 16 + self.rng.below(self.file.pages() - 15);
        let before = self.file.live();
        let blobs = !self.rng.one_in(4);
        let mut from = Some(Vec::new());
        while let Some(key) = from {
            let tail = tree::Tail { floor: PageId::new(floor), blobs, from: &key };
            let mut rng = self.rng.clone();
            let mut more = |_| !rng.one_in(3);
            let moved =
                tree::relocate(&self.file, &mut self.file.clone(), &self.ctx, &self.root, tail, &mut more)?;
            assert!(moved.next.as_ref().is_none_or(|next| *next > key), "a walk goes forward");
            self.rng.next();
            (self.root, from) = (moved.root, moved.next);
        }
        let after = self.file.live();
        self.moved += before.keys().filter(|page| !after.contains_key(page)).count() as u64;
        if blobs {
            let left = after.iter().find(|(page, (n, birth))| **page + u64::from(*n) > floor && *birth < seq);
            assert_eq!(left, None, "an old extent is left from page {floor} on");
        }
        Ok(())
    }

    fn some_key(&mut self) -> Vec<u8> {
        if self.rng.one_in(3) && !self.model.is_empty() {
            let at = self.rng.below(self.model.len() as u64) as usize;
            return self.model.keys().nth(at).cloned().unwrap_or_default();
        }
        self.key()
    }

    /// Point reads, both directions from a random place, and weights, each against the model.
    fn compare(&mut self) -> Result<(), Error> {
        for _ in 0..20 {
            let key = self.some_key();
            let found = tree::get(&self.file, &self.ctx, &self.root, &key)?;
            assert_eq!(found.as_deref(), self.model.get(&key).map(Vec::as_slice), "get {key:?}");
        }
        for _ in 0..6 {
            self.compare_cursor()?;
            self.compare_weight()?;
        }
        Ok(())
    }

    fn compare_cursor(&mut self) -> Result<(), Error> {
        let file = self.file.clone();
        let mut cursor = tree::Cursor::new(&file, &self.ctx, &self.root);
        let keys: Vec<&Vec<u8>> = self.model.keys().collect();
        let mut place = match self.rng.below(6) {
            0 => 0,
            1 => {
                cursor.seek_first()?;
                0
            }
            2 => {
                cursor.seek_last()?;
                keys.len()
            }
            _ => {
                let mut rng = self.rng.clone();
                let key = if rng.one_in(2) && !keys.is_empty() {
                    (*rng.pick(&keys)).clone()
                } else {
                    vec![b'a' + rng.below(4) as u8; rng.below(9) as usize]
                };
                self.rng = rng;
                cursor.seek(&key)?;
                keys.partition_point(|other| **other < key)
            }
        };
        for _ in 0..40 {
            let forward = self.rng.one_in(2);
            for _ in 0..self.rng.below(8) {
                let (found, want) = if forward {
                    let want = keys.get(place);
                    place += usize::from(want.is_some());
                    (cursor.next()?, want)
                } else {
                    let want = place.checked_sub(1).map(|at| &keys[at]);
                    place -= usize::from(want.is_some());
                    (cursor.prev()?, want)
                };
                assert_eq!(found.as_ref().map(|entry| entry.key()), want.map(|key| key.as_slice()));
                if let (Some(entry), Some(key)) = (found, want) {
                    let value = &self.model[*key];
                    assert_eq!(entry.value_len()?, value.len());
                    assert!(entry.inline()?.is_none_or(|bytes| bytes == &value[..]));
                    assert!(entry.value()?[..] == value[..], "value of {key:?}");
                }
            }
        }
        Ok(())
    }

    fn compare_weight(&mut self) -> Result<(), Error> {
        let (low, high) = (self.bound(), self.bound());
        let as_slice = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Included(key) => Bound::Included(key.clone()),
            Bound::Excluded(key) => Bound::Excluded(key.clone()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let found = tree::weight(
            &self.file,
            &self.ctx,
            &self.root,
            low.as_ref().map(|key| &key[..]),
            high.as_ref().map(|key| &key[..]),
        )?;
        let above = |key: &Vec<u8>| match as_slice(&low) {
            Bound::Included(low) => *key >= low,
            Bound::Excluded(low) => *key > low,
            Bound::Unbounded => true,
        };
        let below = |key: &Vec<u8>| match as_slice(&high) {
            Bound::Included(high) => *key <= high,
            Bound::Excluded(high) => *key < high,
            Bound::Unbounded => true,
        };
        let want: u64 = self
            .model
            .iter()
            .filter(|(key, _)| above(key) && below(key))
            .map(|(key, value)| weigh(&self.ctx, key, value))
            .sum();
        assert_eq!(found, want, "weight of {low:?}..{high:?}");
        Ok(())
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        match self.rng.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(self.some_key()),
            _ => Bound::Excluded(self.some_key()),
        }
    }
}

fn changes_of(changes: &std::collections::BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Vec<(&[u8], Option<&[u8]>)> {
    changes.iter().map(|(key, change)| (&key[..], change.as_deref())).collect()
}
