// SPDX-License-Identifier: Apache-2.0
//! `engine surgery`: a damaged store's copy is repaired, and what that costs is said.
//!
//! Owns      the copy, the operations' reports, and the check of what came of them.
//! Holds     1. what is damaged is only read, and no member runs on it;
//!           2. what is made is checked like any other store, and its verdict is the command's.
//! Never     calls something saved that the check of the copy did not see.

use cairn_engine::inspect::Store;
use cairn_engine::wal::{Base, HardState, LogPart, Salvage, salvage};
use cairn_engine::{Error, Options, surgery};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::damage::{self, Damage};
use super::{CheckpointReport, PAGE, check, log, members_of, refuse_one_of_several, vfs};
use crate::bytes::{counted, grouped, size};
use crate::cli;
use crate::copy::{self, AtRest};
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Facts, Output, Paint};
use crate::place::{Place, STORE_FILE};
use crate::target::{self, Target};

#[derive(Serialize)]
struct Report {
    operation: &'static str,
    from: String,
    to: String,
    /// The newest checkpoint of what was made.
    checkpoint: CheckpointReport,
    /// The checkpoint that was gone back from.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<CheckpointReport>,
    /// By the map before, if its slot confirmed it, and by the one that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_pages_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_pages: Option<u64>,
    /// Entries behind the checkpoint that the log still has.
    kept_entries: u64,
    /// The entries that are lost, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
    /// In words.
    what_is_lost: String,
    has_log: bool,
    /// What the log was cut for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repaired: Vec<Damage>,
    /// What is wrong with what was made.
    damage: Vec<Damage>,
    damages: u64,
    verdict: &'static str,
}

/// Entries of the log from one index on.
#[derive(Serialize, Clone, Copy)]
struct Lost {
    from_index: u64,
    /// The last that is known of.
    to_index: Option<u64>,
}

/// What is operated on, and where.
struct Case<'c> {
    args: &'c cli::Operation,
    place: Place,
    target: Target,
    _at_rest: AtRest,
}

/// What an operation has to say besides.
#[derive(Default)]
struct Done {
    left: Option<CheckpointReport>,
    used_pages_before: Option<u64>,
    used_pages: Option<u64>,
    lost: Option<Lost>,
    repaired: Vec<Damage>,
}

impl Case<'_> {
    fn begin(args: &cli::Operation) -> Outcome<Case<'_>> {
        let place = Place::find(&args.place)?;
        let at_rest = AtRest::of(&place.store)?;
        Ok(Case { args, target: Target::begin(&args.to)?, place, _at_rest: at_rest })
    }

    fn copy_store(&self) -> Outcome<()> {
        copy::file(&self.place.store_file(), &self.target.store().join(STORE_FILE))
    }

    fn copy_log(&self) -> Outcome<()> {
        let Some(log) = &self.place.log else { return Ok(()) };
        let to = self.target.log();
        vfs().create_dir(&to).map_err(|e| Failure::io("make", &to, &e))?;
        let files = vfs().list(log).map_err(|e| Failure::io("list", log, &e))?;
        for file in files.iter().filter(|path| path.extension().is_some_and(|end| end == "wal")) {
            copy::file(file, &to.join(file.file_name().expect("a file that is listed has a name")))?;
        }
        vfs().sync_dir(&to).map_err(|e| Failure::io("sync", &to, &e))
    }

    /// Checks what was made, names it, and tells.
    fn finish(self, operation: &'static str, done: Done, output: &mut Output) -> Outcome {
        let log = Some(self.target.log()).filter(|log| log.is_dir());
        let made = Place { store: self.target.store().to_path_buf(), log };
        let store = Store::open(&vfs(), &made.store, SCHEMA)?;
        let checkpoint = CheckpointReport::of(&store)?;
        drop(store);
        let found = check::examine(&made, false)?;
        let log = found.log.as_ref().filter(|log| !log.void);
        let kept_entries = log.map_or(0, |log| log.last_index.saturating_sub(checkpoint.applied_index));
        let report = Report {
            operation,
            from: self.args.place.dir.display().to_string(),
            to: self.args.to.display().to_string(),
            what_is_lost: what_is_lost(&done, kept_entries, &checkpoint, log.is_some()),
            has_log: made.log.is_some(),
            checkpoint,
            left: done.left,
            used_pages_before: done.used_pages_before,
            used_pages: done.used_pages,
            kept_entries,
            lost: done.lost,
            repaired: done.repaired,
            damage: found.damage,
            damages: found.damages,
            verdict: found.verdict,
        };
        self.target.finish()?;
        if output.json {
            output.json(&report)?;
        } else {
            print(&report, output)?;
        }
        Ok(Verdict::of(report.damages))
    }
}

fn what_is_lost(done: &Done, kept: u64, now: &CheckpointReport, has_log: bool) -> String {
    if let Some(Lost { from_index, to_index }) = done.lost {
        return match to_index {
            Some(to) if to == from_index => format!("entry {to} of the log, and any behind it"),
            Some(to) => format!("entries {from_index} to {to} of the log, and any behind them"),
            None => format!("any entry of the log from {from_index} on: whether there was one is not known"),
        };
    }
    match &done.left {
        None => "nothing".to_owned(),
        Some(left) if now.applied_index + kept >= left.applied_index && has_log => {
            let between = left.applied_index - now.applied_index;
            if between == 0 {
                return "nothing: both checkpoints are of the same state".to_owned();
            }
            format!("nothing: the log has the {} between the two checkpoints", entries(between))
        }
        Some(left) => format!(
            "revisions {} to {}, as the log does not bring them back",
            now.revision + 1,
            left.revision
        ),
    }
}

fn entries(n: u64) -> String {
    if n == 1 { "1 entry".into() } else { format!("{} entries", grouped(n)) }
}

pub fn previous_slot(args: &cli::Operation, output: &mut Output) -> Outcome {
    let case = Case::begin(args)?;
    let left = CheckpointReport::of(&Store::open(&vfs(), &case.place.store, SCHEMA)?)?;
    case.copy_store()?;
    case.copy_log()?;
    surgery::previous_slot(case.target.store(), &Options::default())?;
    case.finish("previous-slot", Done { left: Some(left), ..Done::default() }, output)
}

pub fn rebuild_map(args: &cli::Operation, output: &mut Output) -> Outcome {
    let case = Case::begin(args)?;
    case.copy_store()?;
    case.copy_log()?;
    let rebuilt = surgery::rebuild_space_map(case.target.store(), SCHEMA, &Options::default());
    let rebuilt = rebuilt.map_err(|error| match error {
        Error::Corrupt(damage) => Failure::Damage(format!(
            "the space map can only be made of whole trees: {damage}; go back with surgery previous-slot, or to a backup"
        )),
        other => other.into(),
    })?;
    let (used_pages_before, used_pages) = (rebuilt.used_before, Some(rebuilt.used));
    case.finish("rebuild-space-map", Done { used_pages_before, used_pages, ..Done::default() }, output)
}

pub fn cut_wal(args: &cli::Operation, output: &mut Output) -> Outcome {
    let case = Case::begin(args)?;
    let store = Store::open(&vfs(), &case.place.store, SCHEMA)?;
    let meta = store.slot().meta.clone();
    let install = store.superblock().install;
    let base = Base { index: meta.applied_index, term: meta.applied_term, install };
    let members = members_of(&store)?;
    refuse_one_of_several(members.len(), "cut its log")?;
    drop(store);
    let (mut salvaged, reason) = match &case.place.log {
        None => (None, None),
        Some(dir) => {
            let reason = match log::look(dir, Some(&case.place.store)) {
                Ok(_) => {
                    let dir = dir.display();
                    return Err(Failure::Unable(format!(
                        "the log in {dir} is sound: there is nothing to cut"
                    )));
                }
                Err(error @ Error::Corrupt(_)) => Damage::new(&error, None, SCHEMA),
                Err(other) => return Err(other.into()),
            };
            (Some(salvage(&*vfs(), dir, base)?), Some(reason))
        }
    };
    let mut repaired: Vec<Damage> = reason.into_iter().collect();
    for damage in salvaged.iter_mut().flat_map(|salvage| salvage.damage.drain(..)) {
        let damage = Damage::new(&damage.into(), None, SCHEMA);
        if !repaired.iter().any(|known| (known.offset, &known.file) == (damage.offset, &damage.file)) {
            repaired.push(damage);
        }
    }
    let nothing = || LogPart { member_id: 0, base, hard_state: HardState::default(), entries: Vec::new() };
    let (mut part, known, complete) = match salvaged {
        Some(Salvage { part, known_index, complete, .. }) => (part, Some(known_index), complete),
        None => (nothing(), None, false),
    };
    if part.member_id == 0 {
        part.member_id = members.first().copied().ok_or_else(|| {
            let why = "nothing of the log says whose it was, and the store has no member: restore a backup";
            Failure::Unable(why.into())
        })?;
    }
    case.copy_store()?;
    part.make_log(&case.target.log(), target::wal_options(part.member_id)?, install)?;
    let from_index = part.last_index() + 1;
    let to_index = known.filter(|known| *known >= from_index);
    let lost = (!complete).then_some(Lost { from_index, to_index });
    case.finish("cut-wal", Done { lost, repaired, ..Done::default() }, output)
}

fn print(report: &Report, output: &mut Output) -> Outcome<()> {
    let mut facts = Facts::default();
    facts.add("operation", format!("{} of {}", report.operation, report.from));
    let shown = |checkpoint: &CheckpointReport| {
        let CheckpointReport { seq, applied_index, revision, .. } = checkpoint;
        format!("{seq}, at index {applied_index} and revision {revision}")
    };
    if let Some(left) = &report.left {
        facts.add("went back from", shown(left));
    }
    facts.add("checkpoint", shown(&report.checkpoint));
    if let Some(used) = report.used_pages {
        let before = match report.used_pages_before {
            None => "no map that its slot confirms".to_owned(),
            Some(before) => size(before * PAGE),
        };
        facts.add("pages in use", format!("{}, before {before}", size(used * PAGE)));
    }
    let log = match report.has_log {
        true => format!("{} behind the checkpoint", entries(report.kept_entries)),
        false => "none".to_owned(),
    };
    facts.add("log", log);
    facts.add("lost", &report.what_is_lost);
    facts.print(output)?;
    output.line("")?;
    damage::print(output, &report.repaired, report.repaired.len() as u64)?;
    if !report.repaired.is_empty() {
        output.line("")?;
    }
    damage::print(output, &report.damage, report.damages)?;
    let verdict = match report.damages {
        0 if report.has_log => {
            output.paint(Paint::Good, &format!("sound: {}; start the member on it", report.to))
        }
        0 => output.paint(Paint::Good, &format!("sound: {}; surgery cut-wal begins a log for it", report.to)),
        n => output.paint(Paint::Bad, &format!("still damaged: {} in {}", counted(n, "damage"), report.to)),
    };
    output.line(&verdict)
}
