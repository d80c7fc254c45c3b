// SPDX-License-Identifier: Apache-2.0
//! Which watchers a key concerns: an interval structure over the ranges that are watched.
//!
//! Owns      the keys and ranges with the watchers on each.
//! Holds     1. equal ranges share one node, so ten thousand watchers of one prefix cost one comparison;
//!           2. a node's `reach` is the furthest end in its subtree, so a look-up skips what ends before
//!              the key.
//! Never     draws from a random source: the shape follows from the order of insertions.

use bytes::Bytes;
use cairn_mvcc::{KeyRange, RangeEnd};
use std::{cmp::Ordering, collections::BTreeMap};

/// Where a range ends: before a key, or nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Before(Bytes),
    Open,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < &end[..],
            End::Open => true,
        }
    }
}

/// What a watcher watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    Key(Bytes),
    /// Half-open, never empty.
    Range(Bytes, End),
}

impl Watched {
    /// Key and end as a request would have them.
    pub fn on_wire(&self) -> (&[u8], &[u8]) {
        match self {
            Watched::Key(key) => (key, b""),
            Watched::Range(start, End::Open) => (start, b"\0"),
            Watched::Range(start, End::Before(end)) => (start, end),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Watched::Key(k) => k == key,
            Watched::Range(start, end) => &start[..] <= key && end.is_after(key),
        }
    }

    /// The same interval in the store's words.
    pub fn key_range(&self) -> KeyRange {
        let (key, end) = match self {
            Watched::Key(key) => (key, RangeEnd::Single),
            Watched::Range(key, End::Before(end)) => (key, RangeEnd::Until(end.clone())),
            Watched::Range(key, End::Open) => (key, RangeEnd::FromKey),
        };
        KeyRange { key: key.clone(), end }
    }
}

/// The watchers by what they watch.
#[derive(Debug)]
pub struct Ranges<W> {
    keys: BTreeMap<Bytes, Vec<W>>,
    root: Link<W>,
    inserted: u64,
}

type Link<W> = Option<Box<Node<W>>>;

#[derive(Debug)]
struct Node<W> {
    start: Bytes,
    end: End,
    reach: End,
    /// Heap order, largest on top: together with the search order it fixes the shape.
    priority: u64,
    watchers: Vec<W>,
    left: Link<W>,
    right: Link<W>,
}

impl<W: Copy + PartialEq> Default for Ranges<W> {
    fn default() -> Ranges<W> {
        Ranges { keys: BTreeMap::new(), root: None, inserted: 0 }
    }
}

impl<W: Copy + PartialEq> Ranges<W> {
    pub fn insert(&mut self, watched: &Watched, watcher: W) {
        match watched {
            Watched::Key(key) => self.keys.entry(key.clone()).or_default().push(watcher),
            Watched::Range(start, end) => {
                self.inserted += 1;
                let node = Node {
                    start: start.clone(),
                    end: end.clone(),
                    reach: end.clone(),
                    priority: scramble(self.inserted),
                    watchers: vec![watcher],
                    left: None,
                    right: None,
                };
                self.root = Some(insert(self.root.take(), Box::new(node)));
            }
        }
    }

    /// Takes a watcher out again; the caller names what it was inserted with.
    pub fn remove(&mut self, watched: &Watched, watcher: W) {
        match watched {
            Watched::Key(key) => {
                if let Some(watchers) = self.keys.get_mut(key) {
                    watchers.retain(|w| *w != watcher);
                    if watchers.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            Watched::Range(start, end) => {
                self.root = remove(self.root.take(), (start, end), watcher);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.root.is_none()
    }

    /// Calls `found` for every watcher that watches `key`.
    pub fn matching(&self, key: &[u8], mut found: impl FnMut(W)) {
        if let Some(watchers) = self.keys.get(key) {
            watchers.iter().for_each(|w| found(*w));
        }
        stab(&self.root, key, &mut found);
    }
}

/// splitmix64: spreads a counter over all 64 bits.
fn scramble(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<W> Node<W> {
    fn order(&self, start: &Bytes, end: &End) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn update(mut self: Box<Self>) -> Box<Self> {
        let reach = [&self.left, &self.right].into_iter().flatten().map(|child| &child.reach);
        let reach = reach.fold(&self.end, Ord::max).clone();
        self.reach = reach;
        self
    }

    fn rotate_right(mut self: Box<Self>) -> Box<Self> {
        let mut top = self.left.take().expect("the caller saw a left child");
        self.left = top.right.take();
        top.right = Some(self.update());
        top.update()
    }

    fn rotate_left(mut self: Box<Self>) -> Box<Self> {
        let mut top = self.right.take().expect("the caller saw a right child");
        self.right = top.left.take();
        top.left = Some(self.update());
        top.update()
    }
}

fn insert<W>(link: Link<W>, mut new: Box<Node<W>>) -> Box<Node<W>> {
    let Some(mut node) = link else { return new };
    match node.order(&new.start, &new.end) {
        Ordering::Equal => {
            node.watchers.append(&mut new.watchers);
            node
        }
        Ordering::Less => {
            let child = insert(node.left.take(), new);
            let up = child.priority > node.priority;
            node.left = Some(child);
            if up { node.rotate_right() } else { node.update() }
        }
        Ordering::Greater => {
            let child = insert(node.right.take(), new);
            let up = child.priority > node.priority;
            node.right = Some(child);
            if up { node.rotate_left() } else { node.update() }
        }
    }
}

fn remove<W: Copy + PartialEq>(link: Link<W>, range: (&Bytes, &End), watcher: W) -> Link<W> {
    let mut node = link?;
    match node.order(range.0, range.1) {
        Ordering::Less => node.left = remove(node.left.take(), range, watcher),
        Ordering::Greater => node.right = remove(node.right.take(), range, watcher),
        Ordering::Equal => {
            node.watchers.retain(|w| *w != watcher);
            if node.watchers.is_empty() {
                return merge(node.left.take(), node.right.take());
            }
        }
    }
    Some(node.update())
}

fn merge<W>(left: Link<W>, right: Link<W>) -> Link<W> {
    match (left, right) {
        (None, other) | (other, None) => other,
        (Some(mut l), Some(r)) if l.priority > r.priority => {
            l.right = merge(l.right.take(), Some(r));
            Some(l.update())
        }
        (left, Some(mut r)) => {
            r.left = merge(left, r.left.take());
            Some(r.update())
        }
    }
}

fn stab<W: Copy>(link: &Link<W>, key: &[u8], found: &mut impl FnMut(W)) {
    let Some(node) = link else { return };
    if !node.reach.is_after(key) {
        return;
    }
    stab(&node.left, key, found);
    if &node.start[..] <= key {
        if node.end.is_after(key) {
            node.watchers.iter().for_each(|w| found(*w));
        }
        stab(&node.right, key, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Bytes {
        Bytes::from(format!("{:02}", n % 100))
    }

    // rule: WATCH-4
    #[test]
    fn matches_are_those_of_a_list_of_all_watchers() {
        let mut ranges = Ranges::default();
        let mut list: Vec<(u64, Watched)> = Vec::new();
        let mut matched = 0;
        for step in 0..20_000u64 {
            let draw = scramble(step + 7);
            if draw.is_multiple_of(3) && !list.is_empty() {
                let (id, watched) = list.swap_remove((draw >> 8) as usize % list.len());
                ranges.remove(&watched, id);
            } else if list.len() < 60 {
                let (a, b) = (key(draw >> 16), key(draw >> 32));
                let watched = match draw % 5 {
                    0 => Watched::Key(a),
                    1 => Watched::Range(a, End::Open),
                    _ if a < b => Watched::Range(a, End::Before(b)),
                    _ => continue,
                };
                ranges.insert(&watched, step);
                list.push((step, watched));
            }
            let probe = key(draw >> 48);
            let mut found = Vec::new();
            ranges.matching(&probe, |w| found.push(w));
            found.sort_unstable();
            let mut expected: Vec<u64> =
                list.iter().filter(|(_, w)| w.contains(&probe)).map(|(id, _)| *id).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "step {step}");
            matched += found.len();
        }
        assert!(matched > 50_000, "only {matched} matches were compared");
        for (id, watched) in list {
            ranges.remove(&watched, id);
        }
        assert!(ranges.is_empty());
    }
}
