// SPDX-License-Identifier: Apache-2.0
//! `engine dump`: keys, changes, or a tree of prefixes.
//!
//! Owns      where a listing is, so that it goes on at a newer checkpoint.
//! Holds     1. a listing of keys is of one revision, fixed before its first line;
//!           2. memory does not grow with the listing; that of a tree follows the prefixes in it.
//! Never     reads a value that is not printed but for its length.

use std::cell::Cell;
use std::ops::ControlFlow;

use cairn_mvcc::{Change, KvRef, Revision, Stored};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::follow::{Stop, follow, readable};
use super::pair::{ChangeJson, PairJson, after, lease_shown, range, typed, value_shown};
use crate::bytes::{escaped, grouped, put, size};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Output, Table, left, right};
use crate::place::Place;
use crate::progress::{Progress, Unit};

const KEY_COLUMNS: &[Column] =
    &[right("MODIFIED"), right("CREATED"), right("VERSION"), left("LEASE"), right("BYTES"), left("KEY")];
const KEY_VALUE_COLUMNS: &[Column] = &[
    right("MODIFIED"),
    right("CREATED"),
    right("VERSION"),
    left("LEASE"),
    right("BYTES"),
    left("KEY"),
    left("VALUE"),
];
const CHANGE_COLUMNS: &[Column] =
    &[right("REVISION"), left("CHANGE"), right("VERSION"), right("BYTES"), left("KEY")];
const CHANGE_VALUE_COLUMNS: &[Column] =
    &[right("REVISION"), left("CHANGE"), right("VERSION"), right("BYTES"), left("KEY"), left("VALUE")];
const TREE_COLUMNS: &[Column] = &[right("KEYS"), right("BYTES"), left("PREFIX")];

pub fn run(args: &cli::Dump, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let prefix = typed(&args.prefix, &args.typed)?;
    match (args.changes, args.tree) {
        (true, _) => changes(args, &dir, &prefix, output)?,
        (_, true) => tree(args, &dir, &prefix, output)?,
        _ => keys(args, &dir, &prefix, output)?,
    }
    Ok(Verdict::Sound)
}

/// Shows `each` the keys at one revision, over as many checkpoints as it takes.
pub fn each_key(
    dir: &std::path::Path,
    at: Option<i64>,
    prefix: &[u8],
    mut each: impl FnMut(KvRef<'_>) -> Outcome<ControlFlow<()>>,
) -> Outcome<()> {
    let moved = Cell::new(0);
    let mut revision = at;
    let mut from = Vec::new();
    follow(dir, &moved, |stored: &Stored| {
        let revision = *revision.get_or_insert(stored.revision());
        readable(stored, revision)?;
        stored.keys::<Stop>(&range(prefix, from.clone()), revision, |kv| {
            let flow = each(kv)?;
            from = after(kv.key);
            moved.set(moved.get() + 1);
            Ok(flow)
        })
    })
}

/// Shows `each` the stored changes, over as many checkpoints as it takes.
pub fn each_change(
    dir: &std::path::Path,
    since: i64,
    mut each: impl FnMut(Change<'_>) -> Outcome<ControlFlow<()>>,
) -> Outcome<()> {
    let moved = Cell::new(0);
    let mut from = Revision::new(since.max(0), 0);
    follow(dir, &moved, |stored: &Stored| {
        stored.changes::<Stop>(from, |change| {
            let flow = each(change)?;
            from = Revision::new(change.revision.main, change.revision.sub + 1);
            moved.set(moved.get() + 1);
            Ok(flow)
        })
    })
}

/// Whether a line more may follow the `n`th.
fn limited(args: &cli::Dump, n: u64) -> ControlFlow<()> {
    if args.limit.is_some_and(|limit| n >= limit) {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn keys(args: &cli::Dump, dir: &std::path::Path, prefix: &[u8], output: &mut Output) -> Outcome<()> {
    let mut table = Table::new(if args.values { KEY_VALUE_COLUMNS } else { KEY_COLUMNS });
    let mut lines = 0;
    if limited(args, lines).is_continue() {
        let listed = each_key(dir, args.at, prefix, |kv| {
            if output.json {
                output.json(&PairJson { kv, value: args.values })?;
            } else {
                let mut cells = vec![
                    kv.modified.to_string(),
                    kv.create.to_string(),
                    kv.version.to_string(),
                    lease_shown(kv.lease),
                    (kv.key.len() + kv.value.len()).to_string(),
                    escaped(kv.key),
                ];
                cells.extend(args.values.then(|| value_shown(kv.value)));
                table.row(output, cells)?;
            }
            lines += 1;
            Ok(limited(args, lines))
        });
        end(listed, &mut table, output)?;
    }
    Ok(())
}

fn changes(args: &cli::Dump, dir: &std::path::Path, prefix: &[u8], output: &mut Output) -> Outcome<()> {
    let mut table = Table::new(if args.values { CHANGE_VALUE_COLUMNS } else { CHANGE_COLUMNS });
    let mut lines = 0;
    if limited(args, lines).is_continue() {
        let listed = each_change(dir, args.since.unwrap_or(0), |change| {
            let kv = change.kv;
            if !kv.key.starts_with(prefix) {
                return Ok(ControlFlow::Continue(()));
            }
            if output.json {
                output.json(&ChangeJson { change, value: args.values })?;
            } else {
                let name = if change.delete { "delete" } else { "put" };
                let version = if change.delete { String::new() } else { kv.version.to_string() };
                let bytes = (kv.key.len() + kv.value.len()).to_string();
                let mut cells =
                    vec![change.revision.to_string(), name.to_owned(), version, bytes, escaped(kv.key)];
                cells.extend(args.values.then(|| value_shown(kv.value)));
                table.row(output, cells)?;
            }
            lines += 1;
            Ok(limited(args, lines))
        });
        end(listed, &mut table, output)?;
    }
    Ok(())
}

/// What was listed before a failure is printed, too.
fn end(listed: Outcome<()>, table: &mut Table, output: &mut Output) -> Outcome<()> {
    let nothing = listed.is_err() && table.is_empty();
    if !output.json && !nothing {
        table.end(output)?;
    }
    listed
}

/// A prefix, and what lies below it.
struct Branch {
    depth: usize,
    prefix: Vec<u8>,
    keys: u64,
    bytes: u64,
}

fn tree(args: &cli::Dump, dir: &std::path::Path, prefix: &[u8], output: &mut Output) -> Outcome<()> {
    let mut branches = vec![Branch { depth: 0, prefix: prefix.to_vec(), keys: 0, bytes: 0 }];
    // Places in `branches` of the prefixes that the last key had.
    let mut open = vec![0];
    let mut progress = Progress::new("counting", Unit::Things("keys"), 0);
    let counted = each_key(dir, args.at, prefix, |kv| {
        let ends: Vec<usize> =
            args.levels.ends(kv.key).into_iter().filter(|end| *end > prefix.len()).collect();
        let same =
            open[1..].iter().zip(&ends).take_while(|(at, end)| branches[**at].prefix == kv.key[..**end]);
        let same = same.count();
        open.truncate(1 + same);
        for end in &ends[same..] {
            open.push(branches.len());
            branches.push(Branch {
                depth: open.len() - 1,
                prefix: kv.key[..*end].to_vec(),
                keys: 0,
                bytes: 0,
            });
        }
        for at in &open {
            branches[*at].keys += 1;
            branches[*at].bytes += (kv.key.len() + kv.value.len()) as u64;
        }
        progress.tick(1);
        Ok(ControlFlow::Continue(()))
    });
    drop(progress);
    counted?;
    let mut table = Table::new(TREE_COLUMNS);
    for (at, branch) in branches.iter().enumerate() {
        if output.json {
            output.json(branch)?;
            continue;
        }
        let name = match branches[..at].iter().rev().find(|above| above.depth < branch.depth) {
            Some(above) if above.depth > 0 => &branch.prefix[above.prefix.len()..],
            _ => &branch.prefix[..],
        };
        let name = if at == 0 && name.is_empty() { "all".to_owned() } else { escaped(name) };
        let name = format!("{}{name}", "  ".repeat(branch.depth));
        table.row(output, vec![grouped(branch.keys), size(branch.bytes), name])?;
    }
    end(Ok(()), &mut table, output)
}

impl Serialize for Branch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        put(&mut map, "prefix", &self.prefix)?;
        map.serialize_entry("depth", &self.depth)?;
        map.serialize_entry("keys", &self.keys)?;
        map.serialize_entry("bytes", &self.bytes)?;
        map.end()
    }
}
