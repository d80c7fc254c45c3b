// SPDX-License-Identifier: Apache-2.0
//! `engine export`: a store as lines of JSON, from which another can be made.
//!
//! Owns      the lines: a first one that says what follows, leases, changes in the order of revisions, a last one that
//!           says how many there were.
//! Holds     1. an export is of one revision, fixed before its first line, at however many checkpoints it is read;
//!           2. a file has its name only once all of it is there.
//! Never     says who the members are, or what users may: an import makes a member of its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cairn_core::lessor::StoredLease;
use cairn_core::state::stored_lease;
use cairn_mvcc::{Revision, SmallTree, Stored};
use serde::{Deserialize, Serialize};

use super::follow::{Stop, follow, readable};
use super::pair::ChangeJson;
use super::vfs;
use crate::bytes::{grouped, size};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Facts, Output};
use crate::place::Place;
use crate::progress::{Progress, Unit};

/// The form that this build writes and reads.
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The form of the lines.
    pub cairn_export: u32,
    /// All stored changes, and not only the newest of each key.
    pub history: bool,
    pub revision: i64,
    /// -1 if the store was never compacted, which it then is not in an import either.
    pub compact_revision: i64,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    pub lease: i64,
    pub ttl_s: i64,
    /// What was left when the member noted it last; 0 if it did not.
    pub remaining_s: i64,
}

/// The last line.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct End {
    pub leases: u64,
    pub changes: u64,
}

#[derive(Serialize, Deserialize)]
pub struct EndLine {
    pub end: End,
}

#[derive(Serialize)]
struct Report {
    file: String,
    file_bytes: u64,
    #[serde(flatten)]
    head: Head,
    leases: u64,
    changes: u64,
}

pub fn run(args: &cli::Export, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let path = args.file.as_deref().filter(|path| *path != Path::new("-"));
    let Some(path) = path else {
        lines(args, &dir, &mut |line| output.line(line))?;
        return Ok(Verdict::Sound);
    };
    if path.exists() {
        return Err(Failure::Unable(format!("{} is there already: name a new file", path.display())));
    }
    let mut temp = path.as_os_str().to_owned();
    temp.push(".tmp");
    let temp = PathBuf::from(temp);
    let made = to_file(args, &dir, &temp);
    let named = made.and_then(|made| {
        fs::rename(&temp, path).map_err(|e| Failure::io("name", path, &e))?;
        Ok(made)
    });
    let (head, end, file_bytes) = named.inspect_err(|_| {
        // The failure says more than one to tidy up behind it.
        fs::remove_file(&temp).ok();
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    vfs().sync_dir(parent).map_err(|e| Failure::io("sync", parent, &e))?;
    let End { leases, changes } = end;
    let report = Report { file: path.display().to_string(), file_bytes, head, leases, changes };
    if output.json {
        output.json(&report)?;
        return Ok(Verdict::Sound);
    }
    let mut facts = Facts::default();
    facts.add("export", format!("{}, {}", report.file, size(file_bytes)));
    facts.add("revision", head.revision.to_string());
    facts.add(if head.history { "changes" } else { "keys" }, grouped(changes));
    facts.add("leases", grouped(leases));
    facts.print(output)?;
    Ok(Verdict::Sound)
}

fn to_file(args: &cli::Export, dir: &Path, temp: &Path) -> Outcome<(Head, End, u64)> {
    let failed = |e: std::io::Error| Failure::io("write", temp, &e);
    let mut file = BufWriter::with_capacity(1 << 16, File::create(temp).map_err(failed)?);
    let mut bytes = 0;
    let (head, end) = lines(args, dir, &mut |line| {
        bytes += line.len() as u64 + 1;
        file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)
    })?;
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    Ok((head, end, bytes))
}

/// All lines, one after the other.
fn lines(args: &cli::Export, dir: &Path, line: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<(Head, End)> {
    let moved = Cell::new(0);
    let mut head: Option<Head> = None;
    let mut end = End::default();
    let mut from = Revision::default();
    let mut progress = Progress::new("exporting", Unit::Things("changes"), 0);
    follow(dir, &moved, |stored: &Stored| {
        let head = match head {
            Some(head) => head,
            None => {
                let begun = begin(args, stored)?;
                line(&json(&begun))?;
                end.leases = leases(stored, line)?;
                *head.insert(begun)
            }
        };
        // What was compacted meanwhile is missing from here on.
        if stored.compact_revision() > head.compact_revision.max(0) && head.history {
            let text = "the store was compacted meanwhile: begin again";
            return Err(Stop::Failure(Failure::Unable(text.into())));
        }
        let at = if head.history { head.compact_revision } else { head.revision };
        if at > 0 {
            readable(stored, at)?;
        }
        stored.changes_at::<Stop>(at, head.history, from, |change| {
            if change.revision.main > head.revision {
                return Ok(ControlFlow::Break(()));
            }
            line(&json(&ChangeJson { change, value: true }))?;
            end.changes += 1;
            progress.tick(1);
            from = Revision::new(change.revision.main, change.revision.sub + 1);
            moved.set(moved.get() + 1);
            Ok(ControlFlow::Continue(()))
        })
    })?;
    line(&json(&EndLine { end }))?;
    Ok((head.expect("the first look sets it"), end))
}

fn begin(args: &cli::Export, stored: &Stored) -> Result<Head, Stop> {
    let revision = args.at.unwrap_or(stored.revision());
    readable(stored, revision)?;
    // Of a state at one revision nothing before it is there.
    let compact_revision = if args.history { stored.compact_revision() } else { revision };
    Ok(Head { cairn_export: FORMAT, history: args.history, revision, compact_revision })
}

fn leases(stored: &Stored, line: &mut dyn FnMut(&str) -> Outcome<()>) -> Result<u64, Stop> {
    let mut leases = 0;
    for (_, value) in stored.small_scan(SmallTree::Lease)? {
        let lease = stored_lease(&value).map_err(|e| Stop::Failure(Failure::Damage(e.to_string())))?;
        let StoredLease { id, ttl_s, remaining_s, .. } = lease;
        line(&json(&Lease { lease: id, ttl_s, remaining_s }))?;
        leases += 1;
    }
    Ok(leases)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys are strings and numbers are finite")
}
