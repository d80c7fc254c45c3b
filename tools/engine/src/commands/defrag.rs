// SPDX-License-Identifier: Apache-2.0
//! `engine defrag`: a store loaded anew into another directory, entry by entry.
//!
//! Owns      the load of all trees in their order, so that leaves are full and neighbours lie together.
//! Holds     1. what is read is a member at rest, and is only read;
//!           2. the new store has the same entries, revisions and applied index, and the log what comes after it.
//! Never     leaves anything out: what waits to be purged still does.

use cairn_engine::inspect::Store;
use cairn_engine::wal::{Base, LogPart};
use cairn_engine::{Db, Error, Options, TreeKind};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::{CheckpointReport, PAGE, log, vfs};
use crate::bytes::{percent, size};
use crate::cli;
use crate::copy::AtRest;
use crate::load;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Facts, Output};
use crate::place::Place;
use crate::progress::{Progress, Unit};
use crate::target::{self, Target};

/// Bytes of one transaction, and one entry more.
const TXN_BYTES: usize = 4 << 20;

#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    checkpoint: CheckpointReport,
    entries: u64,
    before: Sizes,
    after: Sizes,
}

#[derive(Serialize)]
struct Sizes {
    file_bytes: u64,
    used_pages: u64,
}

impl Sizes {
    fn of(store: &Store) -> Result<Sizes, Error> {
        let used = store.used_runs()?.map_or(0, |runs| runs.iter().map(|(_, n)| n).sum());
        Ok(Sizes { file_bytes: store.file_pages() * PAGE, used_pages: used })
    }

    fn shown(&self) -> String {
        let used = self.used_pages * PAGE;
        format!("{}, {} of it in use", size(self.file_bytes), percent(used, self.file_bytes))
    }
}

pub fn run(args: &cli::Defrag, output: &mut Output) -> Outcome {
    let place = Place::find(&args.place)?;
    let Some(log_dir) = &place.log else {
        let beside = place.store.join("wal");
        let beside = beside.display();
        return Err(Failure::Unable(format!("there is no log in {beside}: say where it is with --wal-dir")));
    };
    let _at_rest = AtRest::of(&place.store)?;
    let target = Target::begin(&args.to)?;
    let store = Store::open(&vfs(), &place.store, SCHEMA)?;
    let (look, _) = log::look_at(log_dir, Some(&place.store))?;
    let meta = store.slot().meta.clone();
    let install = target::install()?;
    let part = LogPart::behind(&look, Base { index: meta.applied_index, term: meta.applied_term, install })?;
    let db = Db::create(target.store(), SCHEMA, install, Options::default())?;
    let entries = load_all(&store, &db)?;
    load::finish(&db)?;
    drop(db);
    part.make_log(&target.log(), target::wal_options(part.member_id)?, install)?;
    let made = Store::open(&vfs(), target.store(), SCHEMA)?;
    let report = Report {
        from: args.place.dir.display().to_string(),
        to: args.to.display().to_string(),
        checkpoint: CheckpointReport::of(&made)?,
        entries,
        before: Sizes::of(&store)?,
        after: Sizes::of(&made)?,
    };
    drop(made);
    target.finish()?;
    if output.json {
        output.json(&report)?;
        return Ok(Verdict::Sound);
    }
    let mut facts = Facts::default();
    facts.add("before", report.before.shown());
    facts.add("after", report.after.shown());
    facts.add("revision", report.checkpoint.revision.to_string());
    facts.print(output)?;
    output.line("")?;
    output.line(&format!("loaded into {}: start the member on it", report.to))?;
    Ok(Verdict::Sound)
}

/// Loads all trees of `store` into `db`. Answers the entries.
fn load_all(store: &Store, db: &Db) -> Result<u64, Error> {
    let slot = store.slot();
    let view = store.view();
    let total: u64 = slot.roots.iter().map(|(_, root)| root.bytes).sum();
    let mut progress = Progress::new("loading", Unit::Bytes, total);
    let mut entries = 0;
    for tree in SCHEMA {
        let mut cursor = view.cursor(tree);
        let mut more = true;
        while more {
            let mut txn = db.begin()?;
            let mut bytes = 0;
            while bytes < TXN_BYTES {
                let Some((key, value)) = cursor.next()? else {
                    more = false;
                    break;
                };
                bytes += key.len() + value.len();
                match (tree.kind, <[u8; 16]>::try_from(key)) {
                    (TreeKind::Append, Ok(revision)) => {
                        txn.append(tree, revision, value.clone().into_bytes())
                    }
                    _ => {
                        let weight = (tree.weight)(key, value) as i64;
                        txn.put(tree, key, value.clone().into_bytes(), weight);
                    }
                }
                entries += 1;
            }
            txn.commit(slot.meta.clone(), slot.stamp)?;
            load::fold(db)?;
            progress.tick(bytes as u64);
        }
    }
    Ok(entries)
}
