// SPDX-License-Identifier: Apache-2.0
//! `engine info`: what a store is, without a walk.
//!
//! Owns      the figures that the head of the file, the space map and the log tell.
//! Never     reads a tree beyond its root.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cairn_engine::Error;
use cairn_engine::format::superblock::FORMAT;
use cairn_engine::inspect::{Findings, Position, Store, look};
use cairn_mvcc::{SCHEMA, Stored};
use serde::Serialize;

use super::damage::{self, Damage};
use super::log::{self, LogReport};
use super::{PAGE, kind, vfs};
use crate::bytes::{grouped, percent, size};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Facts, Output, Table, left, right};
use crate::place::Place;

#[derive(Serialize)]
struct Report {
    file: String,
    format: u32,
    page_bytes: u64,
    uuid: String,
    install: String,
    file_bytes: u64,
    /// What the file system keeps for it: holes count nothing.
    disk_bytes: u64,
    checkpoint: Checkpoint,
    slots: Vec<SlotReport>,
    /// `None` where the space map is damaged.
    space: Option<Space>,
    trees: Vec<Tree>,
    log: Option<LogReport>,
    damage: Vec<Damage>,
}

#[derive(Serialize)]
struct Checkpoint {
    seq: u64,
    applied_index: u64,
    applied_term: u64,
    revision: i64,
    compact_revision: i64,
    live_bytes: i64,
}

#[derive(Serialize)]
struct SlotReport {
    page: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

#[derive(Serialize)]
struct Space {
    file_pages: u64,
    used_pages: u64,
    /// End of the last page in use.
    high_water: u64,
}

#[derive(Serialize)]
struct Tree {
    id: u8,
    name: &'static str,
    kind: &'static str,
    height: u8,
    entries: u64,
    bytes: u64,
    root_page: Option<u64>,
}

const TREE_COLUMNS: &[Column] =
    &[right("ID"), left("TREE"), left("KIND"), right("HEIGHT"), right("ENTRIES"), right("BYTES")];

pub fn run(args: &cli::Place, output: &mut Output) -> Outcome {
    let place = Place::find(args)?;
    let (mut report, mut damages) = look(&vfs(), &place.store, SCHEMA, read)?;
    if let Some(dir) = &place.log {
        match log::look(dir, Some(&place.store)) {
            Ok(log) => report.log = Some(log),
            Err(error @ Error::Corrupt(_)) => {
                report.damage.push(Damage::new(&error, None, SCHEMA));
                damages += 1;
            }
            Err(other) => return Err(other.into()),
        }
    }
    let metadata = fs::metadata(place.store_file());
    let metadata = metadata.map_err(|e| crate::outcome::Failure::io("measure", &place.store_file(), &e))?;
    report.disk_bytes = metadata.blocks() * 512;
    if output.json {
        output.json(&report)?;
    } else {
        print(&report, damages, output)?;
    }
    Ok(Verdict::of(damages))
}

fn read(store: &Store) -> Result<(Report, u64), Error> {
    let mut findings = Findings::default();
    store.check_head(&mut findings);
    let used = store.used_runs()?;
    if used.is_none() {
        store.check_space(Vec::new(), false, &mut findings)?;
    }
    let slot = store.slot();
    let stored = Stored::new(store.view())?;
    let trees = slot.roots.iter().filter_map(|(id, root)| {
        let tree = store.schema().iter().find(|tree| tree.id == *id)?;
        Some(Tree {
            id: *id,
            name: tree.name,
            kind: kind(tree.kind),
            height: root.height,
            entries: root.entries,
            bytes: root.bytes,
            root_page: root.ptr.map(|ptr| ptr.page.get()),
        })
    });
    let slots = store.ring().map(|(page, position)| {
        let (state, seq) = match position {
            Position::Whole(slot) => ("whole", Some(slot.seq)),
            Position::Blank => ("blank", None),
            Position::Broken => ("broken", None),
        };
        SlotReport { page: page.get(), state, seq }
    });
    let report = Report {
        file: store.path().display().to_string(),
        format: FORMAT,
        page_bytes: PAGE,
        uuid: format!("{:016x}", store.superblock().uuid),
        install: format!("{:016x}", store.superblock().install.0),
        file_bytes: store.file_pages() * PAGE,
        disk_bytes: 0,
        checkpoint: Checkpoint {
            seq: slot.seq,
            applied_index: slot.meta.applied_index,
            applied_term: slot.meta.applied_term,
            revision: stored.revision(),
            compact_revision: stored.compact_revision(),
            live_bytes: stored.live_bytes(),
        },
        slots: slots.collect(),
        space: used.map(|used| Space {
            file_pages: store.file_pages(),
            used_pages: used.iter().map(|(_, n)| n).sum(),
            high_water: slot.high_water,
        }),
        trees: trees.collect(),
        log: None,
        damage: damage::list(&findings, store.schema()),
    };
    Ok((report, findings.count))
}

fn print(report: &Report, damages: u64, output: &mut Output) -> Outcome<()> {
    let mut facts = Facts::default();
    facts.add("store", &report.file);
    facts.add("format", format!("{}, pages of {}", report.format, size(report.page_bytes)));
    facts.add("file id", format!("{}, install {}", report.uuid, report.install));
    facts.add("size", format!("{}, {} on disk", size(report.file_bytes), size(report.disk_bytes)));
    facts.add(
        "space",
        match &report.space {
            None => "the space map is damaged".to_owned(),
            Some(space) => format!(
                "{} of {} pages used, {}; the last is {}",
                grouped(space.used_pages),
                grouped(space.file_pages),
                percent(space.used_pages, space.file_pages),
                grouped(space.high_water - 1),
            ),
        },
    );
    let at = &report.checkpoint;
    facts.add("checkpoint", format!("{}, at index {}, term {}", at.seq, at.applied_index, at.applied_term));
    let compacted = match at.compact_revision {
        ..0 => "never compacted".to_owned(),
        revision => format!("compacted at {revision}"),
    };
    facts.add("revision", format!("{}, {compacted}", at.revision));
    facts.add("live", size(u64::try_from(at.live_bytes).unwrap_or(0)));
    let slots = report.slots.iter().map(|slot| match slot.seq {
        Some(seq) => seq.to_string(),
        None => slot.state.to_owned(),
    });
    facts.add("slots", slots.collect::<Vec<_>>().join(", "));
    if let Some(log) = &report.log {
        log.facts(&mut facts);
    }
    facts.print(output)?;
    output.line("")?;
    let mut table = Table::new(TREE_COLUMNS);
    for tree in &report.trees {
        let cells = vec![
            tree.id.to_string(),
            tree.name.into(),
            tree.kind.into(),
            tree.height.to_string(),
            grouped(tree.entries),
            size(tree.bytes),
        ];
        table.row(output, cells)?;
    }
    table.end(output)?;
    if damages > 0 {
        output.line("")?;
    }
    damage::print(output, &report.damage, damages)
}
