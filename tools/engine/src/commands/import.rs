// SPDX-License-Identifier: Apache-2.0
//! `engine import`: a data directory of what `export` wrote.
//!
//! Offline, and not through a running server: a server draws revisions, versions and leases of its own, so that what
//! it was told would be another store with the same values.
//!
//! Owns      the lines as they are read, and the member that is made: a cluster of its own, as one that starts on an
//!           empty directory.
//! Holds     1. revisions, versions and leases are those of the export;
//!           2. an export that was cut short makes no member.
//! Never     takes a line that it does not understand for nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use cairn_core::boot::first_log;
use cairn_core::lessor::StoredLease;
use cairn_core::state::lease_entry;
use cairn_engine::inspect::Store;
use cairn_engine::{Db, Options};
use cairn_mvcc::{Change, KvRef, LoadError, Loader, Revision, SCHEMA, SmallTree};
use serde::Serialize;
use serde_json::{Map, Value};

use super::export::{End, EndLine, FORMAT, Head, Lease};
use super::{CheckpointReport, vfs};
use crate::bytes::{counted, grouped, unbase64};
use crate::cli;
use crate::load;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Facts, Output};
use crate::progress::{Progress, Unit};
use crate::target::{self, Target};

/// Keys and values of one transaction, and one change more.
const TXN_BYTES: usize = 4 << 20;

/// Leases of one transaction.
const TXN_LEASES: usize = 10_000;

/// Since a lease of an import was granted by no entry, it names the first one, which grants none.
const GRANTED_INDEX: u64 = 1;

#[derive(Serialize)]
struct Report {
    to: String,
    member_id: String,
    #[serde(flatten)]
    head: Head,
    leases: u64,
    changes: u64,
    /// Keys whose lease the export does not have: it ended since that revision.
    keys_without_their_lease: u64,
    checkpoint: CheckpointReport,
}

/// A change, with its own memory.
struct Loaded {
    revision: Revision,
    delete: bool,
    key: Vec<u8>,
    value: Vec<u8>,
    create: i64,
    version: i64,
    lease: i64,
}

struct Import {
    loader: Loader,
    db: Db,
    leases: BTreeSet<i64>,
    /// Read and not loaded yet.
    granted: Vec<(Vec<u8>, bytes::Bytes)>,
    waiting: Vec<Loaded>,
    waiting_bytes: usize,
    read: End,
    without_lease: u64,
}

pub fn run(args: &cli::Import, output: &mut Output) -> Outcome {
    let stdin = args.file == Path::new("-");
    let input: Box<dyn BufRead> = if stdin {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&args.file).map_err(|e| Failure::io("open", &args.file, &e))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let total = if stdin { 0 } else { std::fs::metadata(&args.file).map_or(0, |metadata| metadata.len()) };
    let mut lines = Lines { input, line: 0, text: String::new(), name: args.file.display().to_string() };
    let head = lines.next()?.ok_or_else(|| lines.wrong("it is empty"))?;
    let head: Head = serde_json::from_value(Value::Object(head))
        .map_err(|_| lines.wrong("an export begins with its revision: this is none"))?;
    if head.cairn_export != FORMAT {
        let found = head.cairn_export;
        return Err(Failure::Unable(format!(
            "{}: the form of the export is {found}, this build reads {FORMAT}",
            lines.name
        )));
    }
    let target = Target::begin(&args.dir)?;
    let install = target::install()?;
    let urls: Vec<String> = args.peer_urls.split(',').map(str::to_owned).collect();
    let member_id = first_log(&target.log(), target::wal_options(0)?, &urls, &args.cluster_token, install)
        .map_err(|e| Failure::Unable(e.to_string()))?;
    let db = Db::create(target.store(), SCHEMA, install, Options::default())?;
    let mut import = Import {
        loader: Loader::new(db.clone(), head.compact_revision)?,
        db: db.clone(),
        leases: BTreeSet::new(),
        granted: Vec::new(),
        waiting: Vec::new(),
        waiting_bytes: 0,
        read: End::default(),
        without_lease: 0,
    };
    import.all(&mut lines, total)?;
    let Import { loader, read, without_lease, .. } = import;
    loader.finish(head.revision).map_err(|e| lines.refused(e))?;
    load::finish(&db)?;
    drop(db);
    let made = Store::open(&vfs(), target.store(), SCHEMA)?;
    let report = Report {
        to: args.dir.display().to_string(),
        member_id: member_id.to_string(),
        head,
        leases: read.leases,
        changes: read.changes,
        keys_without_their_lease: without_lease,
        checkpoint: CheckpointReport::of(&made)?,
    };
    drop(made);
    target.finish()?;
    if output.json {
        output.json(&report)?;
        return Ok(Verdict::Sound);
    }
    let mut facts = Facts::default();
    facts.add("revision", head.revision.to_string());
    facts.add(if head.history { "changes" } else { "keys" }, grouped(read.changes));
    facts.add("leases", grouped(read.leases));
    if without_lease > 0 {
        facts.add("no lease", format!("{} whose lease has ended since", counted(without_lease, "key")));
    }
    facts.add("member", &report.member_id);
    facts.print(output)?;
    output.line("")?;
    output.line(&format!("imported into {}: start a member on it", report.to))?;
    Ok(Verdict::Sound)
}

impl Import {
    fn all(&mut self, lines: &mut Lines, total: u64) -> Outcome<()> {
        let mut progress = Progress::new("importing", Unit::Bytes, total);
        let mut ended = false;
        while let Some(line) = lines.next()? {
            progress.tick(lines.text.len() as u64);
            if ended {
                return Err(lines.wrong("nothing follows the last line of an export"));
            }
            if line.contains_key("end") {
                self.flush(lines)?;
                let EndLine { end } = serde_json::from_value(Value::Object(line))
                    .map_err(|_| lines.wrong("the last line says how many leases and changes there were"))?;
                if end != self.read {
                    return Err(
                        lines.wrong("there are other numbers of leases and changes than this line says")
                    );
                }
                ended = true;
            } else if line.contains_key("ttl_s") {
                self.lease(lines, line)?;
            } else {
                self.change(lines, &line)?;
            }
        }
        if ended { Ok(()) } else { Err(lines.wrong("the export was cut short: its last line is missing")) }
    }

    fn lease(&mut self, lines: &Lines, line: Map<String, Value>) -> Outcome<()> {
        let lease: Lease = serde_json::from_value(Value::Object(line))
            .map_err(|_| lines.wrong("a lease has lease, ttl_s and remaining_s"))?;
        let Lease { lease: id, ttl_s, remaining_s } = lease;
        if !self.leases.insert(id) || id == 0 || ttl_s <= 0 {
            return Err(lines.wrong("a lease has an id of its own and a time to live"));
        }
        let (key, value) = lease_entry(StoredLease { id, ttl_s, remaining_s, granted_index: GRANTED_INDEX });
        self.granted.push((key.to_vec(), value));
        self.read.leases += 1;
        if self.granted.len() == TXN_LEASES { self.flush(lines) } else { Ok(()) }
    }

    fn change(&mut self, lines: &Lines, line: &Map<String, Value>) -> Outcome<()> {
        let mut change = lines.change(line)?;
        if change.lease != 0 && !self.leases.contains(&change.lease) {
            change.lease = 0;
            self.without_lease += 1;
        }
        self.waiting_bytes += change.key.len() + change.value.len();
        self.waiting.push(change);
        self.read.changes += 1;
        if self.waiting_bytes >= TXN_BYTES { self.flush(lines) } else { Ok(()) }
    }

    fn flush(&mut self, lines: &Lines) -> Outcome<()> {
        let granted = std::mem::take(&mut self.granted);
        self.loader.small_put(SmallTree::Lease, granted).map_err(|e| lines.refused(e))?;
        let changes = self.waiting.iter().map(|loaded| {
            let Loaded { revision, delete, key, value, create, version, lease } = loaded;
            let modified = revision.main;
            let kv = KvRef { key, create: *create, modified, version: *version, value, lease: *lease };
            Change { revision: *revision, delete: *delete, kv }
        });
        self.loader.load(changes).map_err(|e| lines.refused(e))?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(load::fold(&self.db)?)
    }
}

/// The lines of an export, and where they are.
struct Lines {
    input: Box<dyn BufRead>,
    line: u64,
    text: String,
    name: String,
}

impl Lines {
    /// The next one, as an object.
    fn next(&mut self) -> Outcome<Option<Map<String, Value>>> {
        self.text.clear();
        self.line += 1;
        let read = self.input.read_line(&mut self.text);
        if read.map_err(|e| self.wrong(&format!("it cannot be read: {e}")))? == 0 {
            return Ok(None);
        }
        match serde_json::from_str(&self.text) {
            Ok(Value::Object(line)) => Ok(Some(line)),
            _ => Err(self.wrong("a line of an export is an object")),
        }
    }

    /// What an export is not.
    fn wrong(&self, what: &str) -> Failure {
        Failure::Damage(format!("{}, line {}: {what}", self.name, self.line))
    }

    fn refused(&self, error: LoadError) -> Failure {
        match error {
            LoadError::Refused { revision, why } => {
                Failure::Damage(format!("{}, revision {revision}: {why}", self.name))
            }
            LoadError::Engine(error) => error.into(),
        }
    }

    fn change(&self, line: &Map<String, Value>) -> Outcome<Loaded> {
        let number = |field: &str| line.get(field).and_then(Value::as_i64);
        let missing = |field: &str| self.wrong(&format!("a change has {field}"));
        let revision = line.get("revision").and_then(Value::as_str).and_then(|text| {
            let (main, sub) = text.split_once('.')?;
            Some(Revision::new(main.parse().ok()?, sub.parse().ok()?))
        });
        let revision = revision.ok_or_else(|| missing("a revision"))?;
        let key = self.bytes(line, "key")?.ok_or_else(|| missing("a key"))?;
        match line.get("change").and_then(Value::as_str) {
            Some("delete") => {
                let value = Vec::new();
                Ok(Loaded { revision, delete: true, key, value, create: 0, version: 0, lease: 0 })
            }
            Some("put") => Ok(Loaded {
                revision,
                delete: false,
                key,
                value: self.bytes(line, "value")?.ok_or_else(|| missing("a value"))?,
                create: number("create_revision").ok_or_else(|| missing("a create revision"))?,
                version: number("version").ok_or_else(|| missing("a version"))?,
                lease: number("lease").ok_or_else(|| missing("a lease, 0 for none"))?,
            }),
            _ => Err(self.wrong("a change is a put or a delete")),
        }
    }

    /// Bytes under `field`, as text or as base64.
    fn bytes(&self, line: &Map<String, Value>, field: &str) -> Outcome<Option<Vec<u8>>> {
        let coded = line.get(&format!("{field}_base64")).and_then(Value::as_str);
        match (line.get(field).and_then(Value::as_str), coded) {
            (Some(text), _) => Ok(Some(text.as_bytes().to_vec())),
            (None, Some(coded)) => {
                unbase64(coded).map(Some).ok_or_else(|| self.wrong(&format!("{field}_base64 is no base64")))
            }
            (None, None) => Ok(None),
        }
    }
}
