// SPDX-License-Identifier: Apache-2.0
//! `engine check`: everything that can be held against something else.
//!
//! Owns      the order of the checks, and their report.
//! Holds     1. nothing is printed before a pass is over, since one that is overtaken begins anew;
//!           2. a store is called sound only if every check that was asked for was made.
//! Never     repairs.

use cairn_engine::inspect::{Findings, Store, look};
use cairn_engine::{Corruption, Error};
use cairn_mvcc::{ContentCheck, SCHEMA, Stored};
use serde::Serialize;

use super::damage::{self, Damage};
use super::log::{self, LogReport};
use super::{PAGE, vfs};
use crate::bytes::{counted, grouped, percent, size};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Facts, Output, Paint, Table, left, right};
use crate::place::Place;
use crate::progress::{Progress, Unit};

#[derive(Serialize)]
pub struct Report {
    file: String,
    checkpoint: u64,
    trees: Vec<Tree>,
    /// Pages that the trees reach.
    pages: u64,
    space_map: &'static str,
    /// With `--deep`; `None` too where damage kept the trees from being read.
    content: Option<Content>,
    /// With `--deep`: the checkpoints that a start could go back to.
    older: Vec<Older>,
    /// `sound`, `damaged`, or `none` where there is no log beside the store.
    log_state: &'static str,
    pub log: Option<LogReport>,
    /// At most 1000; `damages` counts all.
    pub damage: Vec<Damage>,
    pub damages: u64,
    pub verdict: &'static str,
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
    damages: u64,
}

#[derive(Serialize)]
struct Content {
    records: u64,
    changes: u64,
    keys: u64,
    live_keys: u64,
    attachments: u64,
}

#[derive(Serialize)]
struct Older {
    seq: u64,
    /// `sound`, `damaged`, or `let go` if the store's writer did not need it any more.
    state: &'static str,
}

const TREE_COLUMNS: &[Column] =
    &[left("TREE"), right("ENTRIES"), right("PAGES"), right("FILL"), left("STATE")];

pub fn run(args: &cli::Check, output: &mut Output) -> Outcome {
    let report = examine(&Place::find(&args.place)?, args.deep)?;
    if output.json {
        output.json(&report)?;
    } else {
        print(&report, args, output)?;
    }
    Ok(Verdict::of(report.damages))
}

/// Everything that is wrong with a store and its log.
pub fn examine(place: &Place, deep: bool) -> Outcome<Report> {
    let mut report = look(&vfs(), &place.store, SCHEMA, |store| pass(store, deep))?;
    if let Some(dir) = &place.log {
        match log::look(dir, Some(&place.store)) {
            Ok(log) => {
                report.log_state = "sound";
                report.log = Some(log);
            }
            Err(error @ Error::Corrupt(_)) => {
                report.log_state = "damaged";
                report.damage.push(Damage::new(&error, None, SCHEMA));
                report.damages += 1;
            }
            Err(other) => return Err(other.into()),
        }
    }
    report.verdict = Verdict::of(report.damages).word();
    Ok(report)
}

fn pass(store: &Store, deep: bool) -> Result<Report, Error> {
    let mut findings = Findings::default();
    store.check_head(&mut findings);
    let used = store.used_runs()?;
    let total = used.map_or(0, |runs| runs.iter().map(|(_, n)| n).sum::<u64>());
    let mut progress = Progress::new("checking", Unit::Bytes, total * PAGE);
    let (trees, extents) = walk(store, &mut findings, &mut progress)?;
    drop(progress);
    let whole = trees.iter().all(|tree| tree.damages == 0);
    let before = findings.count;
    let pages = store.check_space(extents, whole, &mut findings)?;
    let space_map = match findings.count - before {
        0 if whole => "sound",
        0 => "unknown",
        _ => "damaged",
    };
    let mut content = None;
    let mut older = Vec::new();
    if deep {
        if whole {
            content = Some(check_content(store, &mut findings)?);
        }
        for seq in store.seqs_before() {
            older.push(Older { seq, state: check_older(store, seq, &mut findings)? });
        }
    }
    Ok(Report {
        file: store.path().display().to_string(),
        checkpoint: store.slot().seq,
        trees,
        pages,
        space_map,
        content,
        older,
        log_state: "none",
        log: None,
        damage: damage::list(&findings, store.schema()),
        damages: findings.count,
        verdict: "",
    })
}

type Extents = Vec<(u64, u64)>;

fn walk(
    store: &Store,
    findings: &mut Findings,
    progress: &mut Progress,
) -> Result<(Vec<Tree>, Extents), Error> {
    let mut extents = Vec::new();
    let mut trees = Vec::new();
    for tree in store.schema() {
        let before = findings.count;
        let stats = store.check_tree(tree, findings, &mut |extent| {
            extents.push((extent.page.get(), u64::from(extent.npages)));
            progress.tick(u64::from(extent.npages) * PAGE);
            Ok(())
        })?;
        trees.push(Tree {
            name: tree.name,
            height: stats.height,
            entries: stats.entries,
            bytes: stats.bytes,
            leaves: stats.leaves,
            branches: stats.branches,
            blobs: stats.blobs,
            pages: stats.pages,
            used_bytes: stats.used,
            damages: findings.count - before,
        });
    }
    Ok((trees, extents))
}

fn check_content(store: &Store, findings: &mut Findings) -> Result<Content, Error> {
    let stored = Stored::new(store.view())?;
    let entries: u64 = store.slot().roots.iter().map(|(_, root)| root.entries).sum();
    let mut progress = Progress::new("comparing the trees", Unit::Things("entries"), entries);
    let mut found = |damage: Corruption| {
        let file = store.path().to_path_buf();
        findings.add(Corruption { file, ..damage }.into(), None);
    };
    let mut tick = || {
        progress.tick(1);
        Ok(())
    };
    let done = stored.check(&mut tick, &mut found);
    let ContentCheck { records, changes, keys, live_keys, attachments } = done?;
    Ok(Content { records, changes, keys, live_keys, attachments })
}

fn check_older(newest: &Store, seq: u64, findings: &mut Findings) -> Result<&'static str, Error> {
    let Some(store) = newest.before(seq)? else { return Ok("let go") };
    let mut its = Findings::default();
    let pages: u64 = store.file_pages();
    let mut progress = Progress::new("checking an older checkpoint", Unit::Bytes, pages * PAGE);
    match walk(&store, &mut its, &mut progress) {
        Ok(_) => {}
        // It is not needed any more: the newest one decides.
        Err(Error::Overtaken { .. }) => return Ok("let go"),
        Err(other) => return Err(other),
    }
    let state = if its.count == 0 { "sound" } else { "damaged" };
    for (error, keys) in its.damage {
        let known = |(other, _): &(Error, _)| other.to_string() == error.to_string();
        if !findings.damage.iter().any(known) {
            findings.add(error, keys);
        }
    }
    Ok(state)
}

fn print(report: &Report, args: &cli::Check, output: &mut Output) -> Outcome<()> {
    let mut table = Table::new(TREE_COLUMNS);
    for tree in &report.trees {
        let state = if tree.damages == 0 { "sound".to_owned() } else { counted(tree.damages, "damage") };
        let fill = percent(tree.used_bytes, tree.pages * PAGE);
        table.row(output, vec![tree.name.into(), grouped(tree.entries), grouped(tree.pages), fill, state])?;
    }
    table.end(output)?;
    output.line("")?;
    let mut facts = Facts::default();
    let space_map = match report.space_map {
        "unknown" => "agrees as far as the trees could be walked",
        state => state,
    };
    facts.add("space map", space_map);
    if args.deep {
        facts.add(
            "content",
            match &report.content {
                None => "not compared, since not all of it could be read".to_owned(),
                Some(content) => format!(
                    "{}, {} of {} keys live, {}",
                    counted(content.records, "record"),
                    grouped(content.live_keys),
                    grouped(content.keys),
                    counted(content.attachments, "attachment")
                ),
            },
        );
        let older = report.older.iter().map(|older| format!("{} {}", older.seq, older.state));
        let older = older.collect::<Vec<_>>().join(", ");
        facts.add("older checkpoints", if older.is_empty() { "none".to_owned() } else { older });
    }
    match (report.log_state, &report.log) {
        (_, Some(log)) => log.facts(&mut facts),
        ("none", None) => facts.add("log", "none found: say where it is with --wal-dir"),
        (state, None) => facts.add("log", state),
    }
    facts.print(output)?;
    output.line("")?;
    damage::print(output, &report.damage, report.damages)?;
    let about = format!("checkpoint {} of {}, {}", report.checkpoint, report.file, size(report.pages * PAGE));
    let (paint, verdict) = match report.damages {
        0 => (Paint::Good, format!("sound: {about}")),
        n => (Paint::Bad, format!("damaged: {} in {about}", counted(n, "damage"))),
    };
    output.line(&output.paint(paint, &verdict))
}
