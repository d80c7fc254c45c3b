// SPDX-License-Identifier: Apache-2.0
//! `engine backup`, `engine restore`: a store and its log to a file, and a data directory from it.
//!
//! Owns      the pairing of a checkpoint with what the log has after it.
//! Holds     1. a backup has all that was durable when it began: the log is read after the checkpoint was chosen, and
//!              before any of its pages;
//!           2. a copy that is overtaken begins anew, and leaves nothing.
//! Never     waits for the member, or keeps it from anything.

use std::num::NonZeroU64;
use std::path::Path;

use cairn_core::Command;
use cairn_engine::inspect::Store;
use cairn_engine::snapshot::{
    Copied, Phase, RestoreLog, RestoreTo, Snapshot, Step, backup, read_head, restore,
};
use cairn_engine::wal::{Base, LogPart};
use cairn_engine::{Error, Options};
use cairn_mvcc::{SCHEMA, Stored};
use serde::Serialize;

use super::{CheckpointReport, PAGE, log, members_of, refuse_one_of_several, vfs};
use crate::bytes::{grouped, size};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Facts, Output};
use crate::place::Place;
use crate::progress::{Progress, Unit};
use crate::target::{self, Target};

/// How often a copy is begun before it is given up.
const COPIES_MAX: u32 = 5;

/// The kind of an entry that is a request.
const REQUEST: u8 = 0;

/// What a backup holds.
#[derive(Serialize)]
struct Report {
    /// The backup.
    file: String,
    file_bytes: u64,
    member_id: String,
    checkpoint: CheckpointReport,
    /// Of the checkpoint.
    pages: u64,
    /// What of the log is with it.
    entries: u64,
    last_index: u64,
    /// Revisions that the restored member passes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    bump_revision: Option<NonZeroU64>,
}

pub fn run(args: &cli::Backup, output: &mut Output) -> Outcome {
    let place = Place::find(&args.place)?;
    let Some(log_dir) = &place.log else {
        let beside = place.store.join("wal");
        let beside = beside.display();
        return Err(Failure::Unable(format!("there is no log in {beside}: say where it is with --wal-dir")));
    };
    if args.file.exists() {
        return Err(Failure::Unable(format!("{} is there already: name a new file", args.file.display())));
    }
    let mut copies = 1;
    loop {
        match copy(&place.store, log_dir, &args.file) {
            Ok(report) => return done("backed up", &report, None, output),
            Err(Error::Overtaken { .. }) if copies < COPIES_MAX => copies += 1,
            Err(Error::Overtaken { file }) => {
                return Err(Failure::Unable(format!(
                    "{} was written faster than it could be copied, {COPIES_MAX} times: copy it when less is \
                     written, or to a faster disk",
                    file.display()
                )));
            }
            Err(other) => return Err(other.into()),
        }
    }
}

fn copy(dir: &Path, log_dir: &Path, to: &Path) -> Result<Report, Error> {
    let vfs = vfs();
    let store = Store::open(&vfs, dir, SCHEMA)?;
    let (look, _) = log::look_at(log_dir, Some(dir))?;
    let meta = &store.slot().meta;
    let install = store.superblock().install;
    let part = LogPart::behind(&look, Base { index: meta.applied_index, term: meta.applied_term, install })?;
    let stored = Stored::new(store.view()).map_err(|error| store.judge(error))?;
    let snapshot = Snapshot::of_store(store)?;
    let mut shown = Shown::new("copying", snapshot.header().pages);
    let copied = backup(&snapshot, Some(&part), &*vfs, to, &mut |step| shown.step(step))?;
    Ok(Report::new(to, &copied, &part, &stored))
}

impl Report {
    fn new(file: &Path, copied: &Copied, part: &LogPart, stored: &Stored) -> Report {
        Report {
            file: file.display().to_string(),
            file_bytes: copied.bytes,
            member_id: format!("{:x}", part.member_id),
            checkpoint: CheckpointReport {
                seq: copied.seq,
                applied_index: copied.applied_index,
                applied_term: copied.applied_term,
                revision: stored.revision(),
                compact_revision: stored.compact_revision(),
            },
            pages: copied.pages,
            entries: copied.last_index - copied.applied_index,
            last_index: copied.last_index,
            bump_revision: None,
        }
    }
}

fn done(what: &str, report: &Report, to: Option<&Path>, output: &mut Output) -> Outcome {
    if output.json {
        output.json(report)?;
        return Ok(Verdict::Sound);
    }
    let mut facts = Facts::default();
    facts.add("backup", format!("{}, {}", report.file, size(report.file_bytes)));
    let CheckpointReport { seq, applied_index, revision, .. } = report.checkpoint;
    let pages = size(report.pages * PAGE);
    facts.add("checkpoint", format!("{seq}, at index {applied_index} and revision {revision}, {pages}"));
    let log = match report.entries {
        0 => "nothing after the checkpoint".to_owned(),
        n => format!("{} after the checkpoint, to index {}", entries(n), grouped(report.last_index)),
    };
    facts.add("log", log);
    facts.add("member", &report.member_id);
    if let Some(by) = report.bump_revision {
        facts.add("revisions", format!("{} are passed over, and compacted", grouped(by.get())));
    }
    facts.print(output)?;
    output.line("")?;
    match to {
        None => output.line(what)?,
        Some(dir) => output.line(&format!("{what} {}: start the member on it", dir.display()))?,
    }
    Ok(Verdict::Sound)
}

fn entries(n: u64) -> String {
    if n == 1 { "1 entry".into() } else { format!("{} entries", grouped(n)) }
}

pub fn run_restore(args: &cli::Restore, output: &mut Output) -> Outcome {
    if !args.file.is_file() {
        return Err(Failure::Unable(format!("{} is no file", args.file.display())));
    }
    let vfs = vfs();
    let head = read_head(&*vfs, &args.file)?;
    let Some(part) = &head.log else {
        let file = args.file.display();
        return Err(Failure::Unable(format!("{file} has no log with it: it was not made by engine backup")));
    };
    // The member does it after all that its log has, and revisions are its own to give.
    let then = args.bump_revision.map(|by| (REQUEST, Command::Skip { by: by.get() }.encode(0)));
    let target = Target::begin(&args.dir)?;
    let to = RestoreTo {
        dir: target.store().to_path_buf(),
        schema: SCHEMA,
        options: Options::default(),
        install: target::install()?,
        log: Some(RestoreLog { dir: target.log(), options: target::wal_options(part.member_id)?, then }),
    };
    let mut shown = Shown::new("restoring", head.checkpoint.pages);
    let installed = restore(&args.file, &to, &mut |step| shown.step(step))?;
    drop(shown);
    let store = Store::open(&vfs, target.store(), SCHEMA)?;
    let stored = Stored::new(store.view())?;
    let metadata = std::fs::metadata(&args.file).map_err(|e| Failure::io("measure", &args.file, &e))?;
    let copied = Copied {
        seq: head.checkpoint.seq,
        applied_index: installed.meta.applied_index,
        applied_term: installed.meta.applied_term,
        last_index: part.last_index(),
        frames: installed.frames,
        pages: installed.pages,
        bytes: metadata.len(),
    };
    let mut report = Report::new(&args.file, &copied, part, &stored);
    report.bump_revision = args.bump_revision;
    // Before the first checkpoint the log alone knows of them.
    let changes = part.entries.iter().filter(|entry| entry.kind != 0).count();
    let known = members_of(&store)?.len();
    refuse_one_of_several(if known == 0 { changes } else { known }, "restore it")?;
    drop(store);
    target.finish()?;
    done("restored to", &report, Some(&args.dir), output)
}

/// The progress of a copy, which is told in steps from its start.
struct Shown {
    total: u64,
    at: (Phase, u64),
    progress: Progress,
}

impl Shown {
    fn new(what: &'static str, pages: u64) -> Shown {
        let total = pages * PAGE;
        Shown { total, at: (Phase::Copy, 0), progress: Progress::new(what, Unit::Bytes, total) }
    }

    fn step(&mut self, step: Step) {
        if step.phase != self.at.0 {
            self.at = (step.phase, 0);
            self.progress = Progress::new("checking", Unit::Bytes, self.total);
        }
        self.progress.tick((step.pages - self.at.1) * PAGE);
        self.at.1 = step.pages;
    }
}
