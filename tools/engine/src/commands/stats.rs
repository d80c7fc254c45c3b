// SPDX-License-Identifier: Apache-2.0
//! `engine stats`: what takes how much room.
//!
//! Owns      the figures by tree, and the sums by prefix.
//! Holds     memory is bounded: beyond so many prefixes the rest is summed as one.
//! Never     calls anything damage but what a walk finds.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use cairn_engine::inspect::{Findings, Store, look};
use cairn_engine::tree::TreeStats;
use cairn_engine::{Error, Schema};
use cairn_mvcc::SCHEMA;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::damage::{self, Damage};
use super::dump::{each_change, each_key};
use super::pair::typed;
use super::{PAGE, vfs};
use crate::bytes::{escaped, grouped, percent, put, size};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Output, Table, left, right};
use crate::place::Place;
use crate::progress::{Progress, Unit};

/// Prefixes that are told apart.
const PREFIXES_MAX: usize = 1 << 16;

const TREE_COLUMNS: &[Column] = &[
    left("TREE"),
    right("HEIGHT"),
    right("ENTRIES"),
    right("BYTES"),
    right("LEAVES"),
    right("BRANCHES"),
    right("BLOBS"),
    right("SIZE"),
    right("FILL"),
];
const PREFIX_COLUMNS: &[Column] =
    &[right("KEYS"), right("LIVE"), right("CHANGES"), right("STORED"), right("SHARE"), left("PREFIX")];

#[derive(Serialize)]
struct Report {
    file: String,
    checkpoint: u64,
    trees: Vec<Tree>,
    prefixes: Vec<Prefix>,
    damage: Vec<Damage>,
    damages: u64,
}

#[derive(Serialize)]
struct Tree {
    name: &'static str,
    height: u8,
    entries: u64,
    bytes: u64,
    leaves: u64,
    branches: u64,
    blobs: u64,
    pages: u64,
    used_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Sums {
    keys: u64,
    live_bytes: u64,
    changes: u64,
    stored_bytes: u64,
}

struct Prefix {
    /// `None` is the sum of all that are not listed.
    prefix: Option<Vec<u8>>,
    sums: Sums,
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(prefix) = &self.prefix {
            put(&mut map, "prefix", prefix)?;
        }
        map.serialize_entry("keys", &self.sums.keys)?;
        map.serialize_entry("live_bytes", &self.sums.live_bytes)?;
        map.serialize_entry("changes", &self.sums.changes)?;
        map.serialize_entry("stored_bytes", &self.sums.stored_bytes)?;
        map.end()
    }
}

pub fn run(args: &cli::Stats, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let prefix = typed(&args.prefix, &args.typed)?;
    let mut report = look(&vfs(), &dir, SCHEMA, walk)?;
    if report.damages == 0 {
        report.prefixes = prefixes(args, &dir, &prefix)?;
    }
    if output.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    Ok(Verdict::of(report.damages))
}

fn walk(store: &Store) -> Result<Report, Error> {
    let mut findings = Findings::default();
    let total: u64 = store.used_runs()?.map_or(0, |runs| runs.iter().map(|(_, n)| n).sum());
    let mut progress = Progress::new("walking the trees", Unit::Bytes, total * PAGE);
    let mut trees = Vec::new();
    let schema: Schema = store.schema();
    for tree in schema {
        let stats = store.check_tree(tree, &mut findings, &mut |extent| {
            progress.tick(u64::from(extent.npages) * PAGE);
            Ok(())
        })?;
        let TreeStats { height, entries, bytes, leaves, branches, blobs, pages, used, .. } = stats;
        let name = tree.name;
        trees.push(Tree { name, height, entries, bytes, leaves, branches, blobs, pages, used_bytes: used });
    }
    Ok(Report {
        file: store.path().display().to_string(),
        checkpoint: store.slot().seq,
        trees,
        prefixes: Vec::new(),
        damage: damage::list(&findings, schema),
        damages: findings.count,
    })
}

/// The prefixes with the most stored bytes, and the sum of the others.
fn prefixes(args: &cli::Stats, dir: &Path, prefix: &[u8]) -> Outcome<Vec<Prefix>> {
    let mut sums: HashMap<Vec<u8>, Sums> = HashMap::new();
    let mut others = Sums::default();
    let mut progress = Progress::new("reading keys and changes", Unit::Things("entries"), 0);
    let mut add = |key: &[u8], change: &dyn Fn(&mut Sums)| {
        progress.tick(1);
        let group = args.levels.ends(key).last().map_or(&key[..0], |end| &key[..*end]);
        if let Some(known) = sums.get_mut(group) {
            change(known);
        } else if sums.len() < PREFIXES_MAX {
            change(sums.entry(group.to_vec()).or_default());
        } else {
            change(&mut others);
        }
    };
    each_key(dir, None, prefix, |kv| {
        add(kv.key, &|sums| {
            sums.keys += 1;
            sums.live_bytes += (kv.key.len() + kv.value.len()) as u64;
        });
        Ok(ControlFlow::Continue(()))
    })?;
    each_change(dir, 0, |change| {
        let kv = change.kv;
        if kv.key.starts_with(prefix) {
            add(kv.key, &|sums| {
                sums.changes += 1;
                sums.stored_bytes += (kv.key.len() + kv.value.len()) as u64;
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut sorted: Vec<(Vec<u8>, Sums)> = sums.into_iter().collect();
    sorted.sort_unstable_by(|(a, one), (b, other)| other.stored_bytes.cmp(&one.stored_bytes).then(a.cmp(b)));
    for (_, rest) in sorted.drain(args.top.min(sorted.len())..) {
        others.keys += rest.keys;
        others.live_bytes += rest.live_bytes;
        others.changes += rest.changes;
        others.stored_bytes += rest.stored_bytes;
    }
    let mut listed: Vec<Prefix> =
        sorted.into_iter().map(|(prefix, sums)| Prefix { prefix: Some(prefix), sums }).collect();
    if others != Sums::default() {
        listed.push(Prefix { prefix: None, sums: others });
    }
    Ok(listed)
}

fn print(report: &Report, output: &mut Output) -> Outcome<()> {
    let mut table = Table::new(TREE_COLUMNS);
    for tree in &report.trees {
        let cells = vec![
            tree.name.into(),
            tree.height.to_string(),
            grouped(tree.entries),
            size(tree.bytes),
            grouped(tree.leaves),
            grouped(tree.branches),
            grouped(tree.blobs),
            size(tree.pages * PAGE),
            percent(tree.used_bytes, tree.pages * PAGE),
        ];
        table.row(output, cells)?;
    }
    table.end(output)?;
    output.line("")?;
    if report.damages > 0 {
        return damage::print(output, &report.damage, report.damages);
    }
    let all: u64 = report.prefixes.iter().map(|prefix| prefix.sums.stored_bytes).sum();
    let mut table = Table::new(PREFIX_COLUMNS);
    for Prefix { prefix, sums } in &report.prefixes {
        let name = match prefix.as_deref() {
            None => "all others".to_owned(),
            Some([]) => "no prefix".to_owned(),
            Some(prefix) => escaped(prefix),
        };
        let cells = vec![
            grouped(sums.keys),
            size(sums.live_bytes),
            grouped(sums.changes),
            size(sums.stored_bytes),
            percent(sums.stored_bytes, all),
            name,
        ];
        table.row(output, cells)?;
    }
    table.end(output)
}
