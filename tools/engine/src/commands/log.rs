// SPDX-License-Identifier: Apache-2.0
//! The log as several commands tell it.
//!
//! Owns      the look at a log against its store, and the figures of it.
//! Never     reads a record.

use std::path::Path;

use cairn_engine::Error;
use cairn_engine::inspect::Store;
use cairn_engine::wal::{Evidence, LogLook, Tail};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::vfs;
use crate::bytes::{grouped, size};
use crate::output::Facts;

/// The figures of a log.
#[derive(Serialize, Debug)]
pub struct LogReport {
    pub dir: String,
    pub member_id: String,
    pub segments: u64,
    /// Of the segments' files.
    pub file_bytes: u64,
    /// Up to the end of the last batch of each.
    pub used_bytes: u64,
    /// Of spares and leftovers.
    pub other_bytes: u64,
    pub first_index: u64,
    pub last_index: u64,
    pub last_batch: u64,
    pub term: u64,
    pub vote: String,
    pub commit: u64,
    /// Entries that the newest checkpoint does not hold yet; `None` for a log alone.
    pub not_in_checkpoint: Option<u64>,
    /// The log belongs to another filling of the store: its entries count for nothing.
    pub void: bool,
    pub tail: &'static str,
    /// Where it is torn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_at: Option<TornAt>,
}

#[derive(Serialize, Debug)]
pub struct TornAt {
    pub file: String,
    pub offset: u64,
}

/// Reads the log, each time against what the newest checkpoint of the store beside it proves by then.
pub fn look(log: &Path, store: Option<&Path>) -> Result<LogReport, Error> {
    let (looked, applied) = look_at(log, store)?;
    Ok(report(log, &looked, applied))
}

/// The log whole, and the applied index that it was held against.
pub fn look_at(log: &Path, store: Option<&Path>) -> Result<(LogLook, Option<u64>), Error> {
    let vfs = vfs();
    let mut applied = None;
    let looked = LogLook::open(&*vfs, log, || {
        let Some(dir) = store else { return Ok(None) };
        let store = Store::open(&vfs, dir, SCHEMA)?;
        let meta = &store.slot().meta;
        applied = Some(meta.applied_index);
        let (applied_index, applied_term) = (meta.applied_index, meta.applied_term);
        Ok(Some(Evidence { applied_index, applied_term, install: store.superblock().install }))
    });
    Ok((looked?, applied))
}

fn report(dir: &Path, look: &LogLook, applied: Option<u64>) -> LogReport {
    let torn_at = match &look.tail {
        Tail::Clean => None,
        Tail::Torn { file, offset } => Some(TornAt { file: file.display().to_string(), offset: *offset }),
    };
    LogReport {
        dir: dir.display().to_string(),
        member_id: format!("{:x}", look.member_id),
        segments: look.segments.len() as u64,
        file_bytes: look.segments.iter().map(|segment| segment.file_bytes).sum(),
        used_bytes: look.segments.iter().map(|segment| segment.end).sum(),
        other_bytes: look.others.iter().map(|(_, bytes)| bytes).sum(),
        first_index: look.first_index,
        last_index: look.last_index,
        last_batch: look.last_batch,
        term: look.hard_state.term,
        vote: format!("{:x}", look.hard_state.vote),
        commit: look.hard_state.commit,
        not_in_checkpoint: applied.map(|applied| look.last_index.saturating_sub(applied)),
        void: look.void,
        tail: if torn_at.is_some() { "torn" } else { "clean" },
        torn_at,
    }
}

impl LogReport {
    pub fn facts(&self, facts: &mut Facts) {
        facts.add("log", &self.dir);
        facts.add("  member", &self.member_id);
        let used = format!("{}, {} used", size(self.file_bytes), size(self.used_bytes));
        facts.add("  segments", format!("{}: {used}; spare files {}", self.segments, size(self.other_bytes)));
        facts.add("  entries", self.entries());
        facts.add("  hard state", format!("term {}, vote {}, commit {}", self.term, self.vote, self.commit));
        let tail = match &self.torn_at {
            None => "clean".to_owned(),
            Some(TornAt { file, offset }) => {
                format!("torn at offset {offset} of {file}: an ordinary crash; the next start cuts it")
            }
        };
        facts.add("  tail", tail);
    }

    fn entries(&self) -> String {
        let count = self.last_index + 1 - self.first_index;
        let range = if count == 0 {
            format!("none, after index {}", self.last_index)
        } else {
            format!("{}, index {} to {}", grouped(count), self.first_index, self.last_index)
        };
        match (self.void, self.not_in_checkpoint) {
            (true, _) => format!("{range}; void, since the store was filled anew"),
            (false, None) => range,
            (false, Some(0)) => format!("{range}; all in the checkpoint"),
            (false, Some(n)) => format!("{range}; {n} not in the checkpoint yet"),
        }
    }
}
