// SPDX-License-Identifier: Apache-2.0
//! `engine pages`: every extent that the trees reach.
//!
//! Owns      one line an extent.
//! Never     shows what is in one: `page` does.

use cairn_engine::Error;
use cairn_engine::inspect::{Findings, Store, look};
use cairn_engine::tree::Extent;
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::{PAGE, damage, extent_kind, tree_named, vfs};
use crate::bytes::percent;
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Output, Table, left, right};
use crate::place::Place;
use crate::progress::{Progress, Unit};

const COLUMNS: &[Column] = &[
    right("PAGE"),
    right("PAGES"),
    left("TREE"),
    left("KIND"),
    right("LEVEL"),
    right("ENTRIES"),
    right("BIRTH"),
    right("BYTES"),
    right("FILL"),
];

/// An extent and whose it is.
#[derive(Serialize, Clone, Copy)]
pub struct Row {
    pub page: u64,
    pub pages: u64,
    pub tree: &'static str,
    kind: &'static str,
    level: u8,
    entries: u32,
    birth: u64,
    used_bytes: u32,
}

impl Row {
    fn new(tree: &'static str, extent: &Extent) -> Row {
        Row {
            page: extent.page.get(),
            pages: extent.npages.into(),
            tree,
            kind: extent_kind(extent.kind),
            level: extent.level,
            entries: extent.entries,
            birth: extent.birth,
            used_bytes: extent.used,
        }
    }
}

pub fn run(args: &cli::Pages, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let only = args.tree.as_deref().map(tree_named).transpose()?;
    let (rows, findings) = look(&vfs(), &dir, SCHEMA, |store| {
        let mut findings = Findings::default();
        let rows = extents(store, only.map(|tree| tree.name), &mut findings)?;
        Ok((rows, findings))
    })?;
    let mut table = Table::new(COLUMNS);
    for row in &rows {
        if output.json {
            output.json(row)?;
            continue;
        }
        let cells = vec![
            row.page.to_string(),
            row.pages.to_string(),
            row.tree.to_owned(),
            row.kind.to_owned(),
            row.level.to_string(),
            row.entries.to_string(),
            row.birth.to_string(),
            row.used_bytes.to_string(),
            percent(row.used_bytes.into(), row.pages * PAGE),
        ];
        table.row(output, cells)?;
    }
    if !output.json {
        table.end(output)?;
    }
    damage::tell(&findings);
    Ok(Verdict::of(findings.count))
}

/// All extents of one tree or of all, in the order of the file.
pub fn extents(store: &Store, only: Option<&str>, findings: &mut Findings) -> Result<Vec<Row>, Error> {
    let total: u64 = store.used_runs()?.map_or(0, |runs| runs.iter().map(|(_, n)| n).sum());
    let mut progress = Progress::new("walking the trees", Unit::Bytes, total * PAGE);
    let mut rows = Vec::new();
    for tree in store.schema().iter().filter(|tree| only.is_none_or(|only| tree.name == only)) {
        store.check_tree(tree, findings, &mut |extent| {
            progress.tick(u64::from(extent.npages) * PAGE);
            rows.push(Row::new(tree.name, extent));
            Ok(())
        })?;
    }
    rows.sort_unstable_by_key(|row| row.page);
    Ok(rows)
}
