// SPDX-License-Identifier: Apache-2.0
//! The fold: a frozen overlay and the purges that are due become nodes of a new checkpoint.
//!
//! Owns      how far the fold has come: which tree, from which entry on, which purges are left.
//! Holds     1. work is cut into slices by what they write, so that one never holds more than a few MiB;
//!           2. a purge follows the fold of its tree, so that it finds what it is to delete; what is moved comes
//!              last.
//! Never     writes to the file itself, publishes, or says that anything is durable.

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::options::Growth;
use crate::page::TreeRoot;
use crate::schema::{AppendKey, TreeKind, Trees};
use crate::shrink::Relocation;
use crate::space::Space;
use crate::tree::{self, Ctx};
use crate::treefile::Source;
use crate::view::{Captured, CommitMeta, Seq};
use crate::writequeue::{BuildSource, Sink, WriteQueue};

/// A slice of the fold ends once it has written this much.
pub(crate) const SLICE_BYTES: u64 = 8 << 20;

/// A slice of a purge ends after this many keys, most of which may write nothing.
const SLICE_KEYS: usize = 1 << 16;

/// Deletes from an append tree that bypass the overlay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PurgeRequest {
    /// All keys below this one.
    Below(AppendKey),
    /// These keys; those that are not there are passed over.
    Keys(Vec<AppendKey>),
}

/// A purge that waits for the checkpoint that contains commit `after`.
#[derive(Clone, Debug)]
pub(crate) struct Purge {
    pub(crate) place: usize,
    /// Shared, so that a list of purges is copied fast.
    pub(crate) request: Arc<PurgeRequest>,
    pub(crate) after: Seq,
}

/// A checkpoint while it is built.
pub(crate) struct Building {
    pub(crate) frozen: Captured,
    pub(crate) seq: Seq,
    pub(crate) stamp: u64,
    pub(crate) meta: CommitMeta,
    pub(crate) roots: Vec<TreeRoot>,
    /// Those that are left to do, in this checkpoint or in the next; the last one first.
    pub(crate) purges: Vec<Purge>,
    /// How many of the store's purges those were made from.
    pub(crate) purges_taken: usize,
    /// By place, with this checkpoint as the birth of what is written.
    pub(crate) ctxs: Vec<Ctx>,
    pub(crate) source: Source,
    pub(crate) queue: RefCell<WriteQueue>,
    pub(crate) at: FoldAt,
    pub(crate) purge_bytes_left: u64,
    /// What is to be moved out of the tail of the file, and how far that has come.
    pub(crate) relocation: Option<Relocation>,
}

/// Where the fold stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FoldAt {
    /// In the append tree at a place, at an entry of its log.
    Append(usize, usize),
    /// In the ordered tree at a place, after a key.
    Ordered(usize, Option<Bytes>),
    Purges,
    Relocation,
    Done,
}

impl FoldAt {
    /// The start of the tree at `place`, or what follows the last tree.
    pub(crate) fn tree(trees: &Trees, place: usize) -> Self {
        match trees.schema().get(place).map(|tree| tree.kind) {
            Some(TreeKind::Append) => FoldAt::Append(place, 0),
            Some(TreeKind::Ordered) => FoldAt::Ordered(place, None),
            None => FoldAt::Purges,
        }
    }
}

/// What a slice writes with.
pub(crate) struct Tools<'b> {
    pub(crate) trees: &'b Trees,
    pub(crate) space: &'b mut Space,
    pub(crate) growth: Growth,
}

impl Building {
    pub(crate) fn is_folded(&self) -> bool {
        self.at == FoldAt::Done
    }

    /// Does the next slice. What it builds is queued.
    pub(crate) fn slice(&mut self, tools: Tools<'_>) -> Result<()> {
        match self.at.clone() {
            FoldAt::Append(place, from) => self.fold_append(tools, place, from),
            FoldAt::Ordered(place, after) => self.fold_ordered(tools, place, after),
            FoldAt::Purges => self.purge(tools),
            FoldAt::Relocation => self.relocate(tools),
            FoldAt::Done => Ok(()),
        }
    }

    fn fold_append(&mut self, tools: Tools<'_>, place: usize, from: usize) -> Result<()> {
        let len = self.frozen.append_lens[place];
        let (output, next) = (Cell::new(0), Cell::new(from));
        let log = self.frozen.overlay.append_log(place);
        let entries = (from..len).map_while(|i| {
            if output.get() >= SLICE_BYTES {
                return None;
            }
            next.set(i + 1);
            let entry = log.entry(i);
            Some((&entry.key, &entry.value))
        });
        let source = BuildSource { source: &self.source, queue: &self.queue };
        let mut sink = sink(tools.space, &self.source, &self.queue, tools.growth, &output);
        self.roots[place] = tree::append(&source, &mut sink, &self.ctxs[place], &self.roots[place], entries)?;
        self.at = if next.get() < len {
            FoldAt::Append(place, next.get())
        } else {
            FoldAt::tree(tools.trees, place + 1)
        };
        Ok(())
    }

    fn fold_ordered(&mut self, tools: Tools<'_>, place: usize, after: Option<Bytes>) -> Result<()> {
        let output = Cell::new(0);
        let last = RefCell::new(None);
        let ended = Cell::new(true);
        // Frozen: nobody waits to write to it.
        let half = self.frozen.overlay.ordered();
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let changes = half.map(place).from(from).map_while(|(key, cell)| {
            if output.get() >= SLICE_BYTES {
                ended.set(false);
                return None;
            }
            last.replace(Some(key.clone()));
            Some((key, cell.value.as_ref()))
        });
        let source = BuildSource { source: &self.source, queue: &self.queue };
        let mut sink = sink(tools.space, &self.source, &self.queue, tools.growth, &output);
        self.roots[place] = tree::merge(&source, &mut sink, &self.ctxs[place], &self.roots[place], changes)?;
        self.at = if ended.get() {
            FoldAt::tree(tools.trees, place + 1)
        } else {
            FoldAt::Ordered(place, last.into_inner())
        };
        Ok(())
    }

    /// A slice of the last purge of the list.
    fn purge(&mut self, tools: Tools<'_>) -> Result<()> {
        let due = self.purges.iter().rposition(|purge| purge.after <= self.seq);
        let (Some(due), true) = (due, self.purge_bytes_left > 0) else {
            self.at = FoldAt::Relocation;
            return Ok(());
        };
        let Purge { place, request, .. } = &self.purges[due];
        let (place, root) = (*place, self.roots[*place]);
        // The keys are read before the first node is replaced: what this build wrote and lets go of is
        // written again at once.
        let keys = match &**request {
            PurgeRequest::Keys(keys) => keys[..keys.len().min(SLICE_KEYS)].to_vec(),
            PurgeRequest::Below(bound) => self.first_keys(place, bound)?,
        };
        let (output, done) = (Cell::new(0), Cell::new(0));
        let stop = self.purge_bytes_left.min(SLICE_BYTES);
        let some = keys.iter().map_while(|key| {
            let more = output.get() < stop;
            done.set(done.get() + usize::from(more));
            more.then_some(key)
        });
        let source = BuildSource { source: &self.source, queue: &self.queue };
        let mut sink = sink(tools.space, &self.source, &self.queue, tools.growth, &output);
        self.roots[place] = tree::delete_sorted(&source, &mut sink, &self.ctxs[place], &root, some)?;
        self.purge_bytes_left = self.purge_bytes_left.saturating_sub(output.get());
        let ended = match Arc::make_mut(&mut self.purges[due].request) {
            PurgeRequest::Keys(keys) => {
                keys.drain(..done.get());
                keys.is_empty()
            }
            PurgeRequest::Below(_) => done.get() == keys.len() && keys.len() < SLICE_KEYS,
        };
        if ended {
            self.purges.remove(due);
        }
        Ok(())
    }

    /// The first keys of the append tree at `place` that are below `bound`.
    fn first_keys(&self, place: usize, bound: &AppendKey) -> Result<Vec<AppendKey>> {
        let source = BuildSource { source: &self.source, queue: &self.queue };
        let mut cursor = tree::Cursor::new(source, &self.ctxs[place], &self.roots[place]);
        let mut keys = Vec::new();
        while keys.len() < SLICE_KEYS
            && let Some(entry) = cursor.next()?
            && entry.key() < &bound[..]
        {
            keys.push(*entry.key().first_chunk().expect("an append tree has keys of 16 bytes"));
        }
        Ok(keys)
    }
}

pub(crate) fn sink<'b>(
    space: &'b mut Space,
    source: &'b Source,
    queue: &'b RefCell<WriteQueue>,
    growth: Growth,
    output: &'b Cell<u64>,
) -> Sink<'b> {
    Sink { space, file: source.file(), queue, growth, output, spilled: None }
}

/// Puts purges of one tree together: the highest bound, and all keys at or above it, sorted.
pub(crate) fn join(purges: Vec<Purge>, ready: Seq) -> Vec<Purge> {
    let (due, mut out): (Vec<Purge>, Vec<Purge>) = purges.into_iter().partition(|purge| purge.after <= ready);
    let mut places: Vec<usize> = due.iter().map(|purge| purge.place).collect();
    places.sort_unstable();
    places.dedup();
    for place in places {
        let mut below: Option<AppendKey> = None;
        let mut keys = Vec::new();
        for purge in due.iter().filter(|purge| purge.place == place) {
            match &*purge.request {
                PurgeRequest::Below(bound) => below = below.max(Some(*bound)),
                PurgeRequest::Keys(list) => keys.extend_from_slice(list),
            }
        }
        keys.retain(|key| below.is_none_or(|below| *key >= below));
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            let request = Arc::new(PurgeRequest::Keys(keys));
            out.push(Purge { place, request, after: ready });
        }
        out.extend(below.map(|below| {
            let request = Arc::new(PurgeRequest::Below(below));
            Purge { place, request, after: ready }
        }));
    }
    out
}
