// SPDX-License-Identifier: Apache-2.0
//! What a store must be able to do, and the worker that does it and holds the clock.
//!
//! Owns      the trait that each store is brought under, and the timing of its work.
//! Holds     1. `insert` and `delete` return once what they did is durable: it survives a loss of power;
//!           2. only the store's own work, and a look at what it gives, is under the clock.
//! Never     knows which store it is.

use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::entrants::Entrant;
use crate::protocol::{Reply, Request};
use crate::work::{Rng, Values, key, revision};

pub type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A revision as a key.
pub type Key = [u8; 16];

/// The first argument of a process that is a worker.
pub const WORKER: &str = "worker";

/// A store of revisions.
pub trait Store: Sized {
    /// Opens the store in `dir`, or makes one there.
    fn open(dir: &Path) -> Answer<Self>;

    /// Adds entries, the keys of which only grow. Durable when it returns.
    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()>;

    /// Deletes the oldest entries, all those of these revisions. Durable when it returns.
    fn delete(&mut self, revisions: Range<u64>) -> Answer<()>;

    /// The value of `key`, read in a transaction of its own.
    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>>;

    /// All entries in order, in one transaction.
    fn scan(&self, see: impl FnMut(&[u8], &[u8])) -> Answer<()>;

    /// Ends the work that was put off, as far as the store can be asked to.
    fn settle(&mut self) -> Answer<()> {
        Ok(())
    }

    /// What it has on the disk.
    fn size(&self) -> Answer<Size>;
}

/// Bytes on the disk, holes not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub data: u64,
    /// Logs that are cut again, whatever is stored: they do not grow with it.
    pub log: u64,
}

/// Bytes that `path` takes on the disk, with all that is in it.
pub fn disk_bytes(path: &Path) -> Answer<u64> {
    let meta = match std::fs::symlink_metadata(path) {
        // Files come and go while a store tidies up.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}

/// The work of a worker: answers requests from standard input until that ends.
pub fn work(entrants: &[Entrant], mut args: impl Iterator<Item = String>) -> Answer<()> {
    let (Some(name), Some(dir), Some(bytes)) = (args.next(), args.next(), args.next()) else {
        return Err("a worker needs the name of a store, a directory, and the size of values".into());
    };
    let entrant = entrants.iter().find(|e| e.name == name).ok_or_else(|| format!("no store {name:?}"))?;
    (entrant.serve)(PathBuf::from(dir), bytes.parse()?)
}

/// Serves requests for a store of type `S`.
pub(crate) fn serve<S: Store>(dir: PathBuf, value_bytes: usize) -> Answer<()> {
    let values = Values::new(value_bytes);
    let mut store: Option<S> = None;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let reply = line
            .map_err(Into::into)
            .and_then(|line| Request::parse(&line))
            .and_then(|request| answer(&mut store, &dir, &values, request));
        let reply = reply.unwrap_or_else(|error| Reply::Failed(error.to_string()));
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer<S: Store>(slot: &mut Option<S>, dir: &Path, values: &Values, request: Request) -> Answer<Reply> {
    if let Request::Open { newest } = request {
        let begin = Instant::now();
        let store = slot.insert(S::open(dir)?);
        if newest > 0 {
            expect_value(store, values, newest)?;
        }
        return Ok(Reply::timed(begin));
    }
    let store = slot.as_mut().ok_or("the store is not open")?;
    match request {
        Request::Open { .. } => unreachable!("answered above"),
        Request::Insert { first, count, batch } => {
            let mut entries = Vec::with_capacity(batch as usize);
            in_batches(first..first + count, batch, |revisions| {
                entries.clear();
                entries.extend(revisions.map(|revision| (key(revision), values.of(revision))));
                store.insert(&entries)
            })
        }
        Request::Delete { lo, hi, batch } => {
            let begin = Instant::now();
            let reply = in_batches(lo..hi, batch, |revisions| store.delete(revisions))?;
            store.settle()?;
            Ok(reply.taking(begin))
        }
        Request::Settle => {
            let begin = Instant::now();
            store.settle()?;
            Ok(Reply::timed(begin))
        }
        Request::Scan { count } => {
            let begin = Instant::now();
            let (mut seen, mut sum) = (0, 0_u64);
            store.scan(|key, value| {
                seen += 1;
                sum = sum.wrapping_add(u64::from(value[0]) + u64::from(key[7]));
            })?;
            let reply = Reply::timed(begin);
            std::hint::black_box(sum);
            if seen != count {
                return Err(format!("a scan found {seen} entries where there are {count}").into());
            }
            let mut last = None;
            let mut wrong = 0;
            store.scan(|key, value| {
                let at = revision(key);
                wrong += u64::from(at <= last || !at.is_some_and(|at| values.matches(at, value)));
                last = at;
            })?;
            if wrong > 0 {
                return Err(format!("a scan found {wrong} wrong values").into());
            }
            Ok(reply)
        }
        Request::Read { lo, hi, count, seed } => {
            let mut rng = Rng(seed);
            let begin = Instant::now();
            for _ in 0..count {
                expect_value(store, values, lo + rng.below(hi - lo))?;
            }
            Ok(Reply::timed(begin))
        }
        Request::Size => Ok(Reply::Size(store.size()?)),
    }
}

/// Looks whether `revision` is there, with its value.
fn expect_value<S: Store>(store: &S, values: &Values, revision: u64) -> Answer<()> {
    match store.read(&key(revision), |value| values.matches(revision, value))? {
        Some(true) => Ok(()),
        Some(false) => Err(format!("revision {revision} has another value").into()),
        None => Err(format!("revision {revision} is missing").into()),
    }
}

/// Does `one` for each batch of `revisions`, each under the clock.
fn in_batches(
    revisions: Range<u64>,
    batch: u64,
    mut one: impl FnMut(Range<u64>) -> Answer<()>,
) -> Answer<Reply> {
    let mut took = Vec::with_capacity((revisions.end - revisions.start).div_ceil(batch) as usize);
    let begin = Instant::now();
    let mut last = begin;
    for first in revisions.clone().step_by(batch as usize) {
        one(first..revisions.end.min(first + batch))?;
        let now = Instant::now();
        took.push((now - last).as_nanos() as u64);
        last = now;
    }
    Ok(Reply::timed(begin).with_commits(took))
}
