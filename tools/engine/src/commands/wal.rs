// SPDX-License-Identifier: Apache-2.0
//! `engine wal`: the records of a log, and whether it is whole.
//!
//! Owns      how a record is shown.
//! Holds     of a damaged log everything before the damage is shown, and then the damage.
//! Never     says what an entry's data means.

use cairn_engine::Error;
use cairn_engine::wal::{Base, BatchLook, Carry, Entry, HardState, LogLook, LogRecord};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::damage::{self, Damage};
use super::{log, vfs};
use crate::bytes::{escaped, put};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Column, Facts, Output, Paint, Table, left, right};
use crate::place::Place;

/// Characters of an entry's data in a table, unless all of it is wanted.
const DATA_SHOWN: usize = 60;

const COLUMNS: &[Column] = &[
    right("SEGMENT"),
    right("OFFSET"),
    right("BATCH"),
    right("INDEX"),
    right("TERM"),
    left("RECORD"),
    right("BYTES"),
    left("DATA"),
];

/// One record and where it stands.
struct Row<'r> {
    segment: u64,
    batch: &'r BatchLook,
    /// `None` for the seal that a batch without records is.
    record: Option<&'r LogRecord>,
    data: bool,
}

pub fn dump(args: &cli::WalDump, output: &mut Output) -> Outcome {
    let (dir, store) = Place::find_log(&args.place)?;
    let mut shown = Shown { args, table: Table::new(COLUMNS), output };
    let damage = match log::look_at(&dir, store.as_deref()) {
        Ok((look, _)) => {
            look.batches(|segment, batch| shown.batch(segment.seq, batch))?;
            None
        }
        Err(Error::Corrupt(damage)) => {
            LogLook::whole_batches(&*vfs(), &dir, |segment, batch| shown.batch(segment, batch))?;
            Some(damage)
        }
        Err(other) => return Err(other.into()),
    };
    if !shown.output.json {
        shown.table.end(shown.output)?;
    }
    damage.map_or(Ok(Verdict::Sound), |damage| Err(Error::Corrupt(damage).into()))
}

struct Shown<'s> {
    args: &'s cli::WalDump,
    table: Table,
    output: &'s mut Output,
}

impl Shown<'_> {
    fn batch(&mut self, segment: u64, batch: &BatchLook) -> Outcome<()> {
        let row = |record| Row { segment, batch, record, data: self.args.data };
        let rows: Vec<Row<'_>> = match &batch.records[..] {
            [] => vec![row(None)],
            records => records.iter().map(|record| row(Some(record))).collect(),
        };
        for row in rows {
            match (self.wanted(&row), self.output.json) {
                (false, _) => {}
                (true, true) => self.output.json(&row)?,
                (true, false) => self.table.row(self.output, row.cells())?,
            }
        }
        Ok(())
    }

    fn wanted(&self, row: &Row<'_>) -> bool {
        let cli::WalDump { from, to, .. } = self.args;
        match row.record {
            Some(LogRecord::Entry(entry)) => {
                from.is_none_or(|from| entry.index >= from) && to.is_none_or(|to| entry.index < to)
            }
            _ => from.is_none() && to.is_none(),
        }
    }
}

impl Row<'_> {
    fn cells(&self) -> Vec<String> {
        let install = |base: &Base| format!("install {:016x}", base.install.0);
        let state = |state: &HardState| format!("vote {:x}, commit {}", state.vote, state.commit);
        let (index, term, record, bytes, data) = match self.record {
            None => (None, None, "seal", 0, format!("batch {} is durable", self.batch.durable_no)),
            Some(LogRecord::Entry(entry)) => {
                let mut data = escaped(&entry.data);
                if !self.data && data.chars().count() > DATA_SHOWN {
                    data = data.chars().take(DATA_SHOWN - 1).chain(['…']).collect();
                }
                (Some(entry.index), Some(entry.term), kind_name(entry.kind), entry.data.len(), data)
            }
            Some(LogRecord::HardState(it)) => (None, Some(it.term), "hard state", 0, state(it)),
            Some(LogRecord::Base(base)) => (Some(base.index), Some(base.term), "base", 0, install(base)),
            Some(LogRecord::Carry(carry)) => {
                let Carry { base, hard_state, last_index, last_term } = carry;
                let data = format!("base {}, {}, {}", base.index, install(base), state(hard_state));
                (Some(*last_index), Some(*last_term), "carried", 0, data)
            }
        };
        let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        let bytes = if bytes == 0 { String::new() } else { bytes.to_string() };
        vec![
            self.segment.to_string(),
            self.batch.offset.to_string(),
            self.batch.batch_no.to_string(),
            number(index),
            number(term),
            record.to_owned(),
            bytes,
            data,
        ]
    }
}

/// What the owner of the log takes an entry for: Raft's kinds.
fn kind_name(kind: u8) -> &'static str {
    match kind {
        0 => "entry",
        1 => "members",
        2 => "members v2",
        _ => "entry ?",
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("segment", &self.segment)?;
        map.serialize_entry("offset", &self.batch.offset)?;
        map.serialize_entry("batch", &self.batch.batch_no)?;
        map.serialize_entry("durable", &self.batch.durable_no)?;
        let state = |map: &mut S::SerializeMap, state: &HardState| {
            map.serialize_entry("vote", &format!("{:x}", state.vote))?;
            map.serialize_entry("commit", &state.commit)
        };
        match self.record {
            None => map.serialize_entry("record", "seal")?,
            Some(LogRecord::Entry(Entry { index, term, kind, data })) => {
                map.serialize_entry("record", "entry")?;
                map.serialize_entry("index", index)?;
                map.serialize_entry("term", term)?;
                map.serialize_entry("kind", kind)?;
                map.serialize_entry("bytes", &data.len())?;
                if self.data {
                    put(&mut map, "data", data)?;
                }
            }
            Some(LogRecord::HardState(it)) => {
                map.serialize_entry("record", "hard_state")?;
                map.serialize_entry("term", &it.term)?;
                state(&mut map, it)?;
            }
            Some(LogRecord::Base(base)) => {
                map.serialize_entry("record", "base")?;
                map.serialize_entry("index", &base.index)?;
                map.serialize_entry("term", &base.term)?;
                map.serialize_entry("install", &format!("{:016x}", base.install.0))?;
            }
            Some(LogRecord::Carry(Carry { base, hard_state, last_index, last_term })) => {
                map.serialize_entry("record", "carried")?;
                map.serialize_entry("index", last_index)?;
                map.serialize_entry("term", last_term)?;
                map.serialize_entry("base", &base.index)?;
                map.serialize_entry("install", &format!("{:016x}", base.install.0))?;
                state(&mut map, hard_state)?;
            }
        }
        map.end()
    }
}

pub fn verify(args: &cli::Place, output: &mut Output) -> Outcome {
    let (dir, store) = Place::find_log(args)?;
    let (report, damage) = match log::look(&dir, store.as_deref()) {
        Ok(report) => (Some(report), None),
        Err(error @ Error::Corrupt(_)) => (None, Some(Damage::new(&error, None, &[]))),
        Err(other) => return Err(other.into()),
    };
    let verdict = Verdict::of(u64::from(damage.is_some()));
    let damage: Vec<Damage> = damage.into_iter().collect();
    if output.json {
        output.json(&Verified { log: report, damage, verdict: verdict.word() })?;
        return Ok(verdict);
    }
    if let Some(report) = report {
        let mut facts = Facts::default();
        report.facts(&mut facts);
        facts.print(output)?;
        let against = if store.is_some() { "itself and the store" } else { "itself" };
        output.line(&output.paint(Paint::Good, &format!("sound: held against {against}")))?;
    }
    damage::print(output, &damage, damage.len() as u64)?;
    Ok(verdict)
}

#[derive(Serialize)]
struct Verified {
    log: Option<log::LogReport>,
    damage: Vec<Damage>,
    verdict: &'static str,
}
