// SPDX-License-Identifier: Apache-2.0
//! What can be had of a damaged log, for a store that holds everything up to some index.
//!
//! Owns      the search for whole batches behind damaged ones, and the decision which entries still count.
//! Holds     1. an entry counts if everything between the store and it is there: what comes behind a gap counts only
//!              where it begins again at or below the store's own end, since what the gap hid may have voided all else;
//!           2. the term and the vote are the newest that can be read anywhere, so that a member never votes twice;
//!           3. every place that cannot be read is named.
//! Never     changes a file, and never says that nothing was lost where that cannot be known.

use std::path::{Path, PathBuf};

use super::batch::{self, Base, HardState};
use super::look::{LogRecord, batch_at};
use super::part::LogPart;
use super::segment::{BLOCK, BLOCK_BYTES, SegmentHeader, seq_of};
use crate::error::{Corruption, Error, Result};
use crate::io::{OpenHow, Vfs};
use crate::schema::InstallId;

/// What was found of a damaged log.
#[derive(Clone, Debug)]
pub struct Salvage {
    /// What counts. Its member id is 0 if no segment says whose log it is.
    pub part: LogPart,
    /// What cannot be read, oldest first.
    pub damage: Vec<Corruption>,
    /// The largest index that anything readable speaks of, whether its entry counts or not.
    pub known_index: u64,
    /// Everything up to the end of the log was read, but for what lies before the store's end.
    pub complete: bool,
}

struct Search {
    salvage: Salvage,
    /// Number and checksum of the batch before; `None` at the start and behind a gap.
    chain: Option<(u64, u32)>,
    /// The install that the log's entries are of, as its newest carry or base says.
    install: Option<InstallId>,
    /// No entry came since the last gap.
    fresh: bool,
    /// What comes now is behind a gap that nothing closes.
    beyond: bool,
}

/// Reads what is whole of the log in `dir`, for the store whose end `base` is.
///
/// # Errors
/// [`Error::Format`] for the log of a newer build; a directory or file that cannot be read at all.
pub fn salvage(vfs: &dyn Vfs, dir: &Path, base: Base) -> Result<Salvage> {
    let listed = vfs.list(dir).map_err(|e| Error::io("list", dir, None, e))?;
    let mut segments: Vec<(u64, PathBuf)> =
        listed.into_iter().filter_map(|path| Some((seq_of(&path)?, path))).collect();
    segments.sort_unstable();
    let part = LogPart { member_id: 0, base, hard_state: HardState::default(), entries: Vec::new() };
    let mut search = Search {
        salvage: Salvage { part, damage: Vec::new(), known_index: 0, complete: false },
        chain: None,
        install: None,
        fresh: true,
        beyond: false,
    };
    let newest = segments.last().map(|(seq, _)| *seq);
    let mut before = None;
    for (seq, path) in &segments {
        if before.is_some_and(|before| before + 1 != *seq) {
            search.gap(Corruption::new(path, "a segment before this one is missing").at(0));
        }
        before = Some(*seq);
        let file = vfs.open(path, OpenHow::Read).map_err(|e| Error::io("open", path, None, e))?;
        let size = file.size().map_err(|e| Error::io("measure", path, None, e))?;
        let mut bytes = vec![0; usize::try_from(size).expect("a segment fits the address space")];
        file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", path, Some(0), e))?;
        search.segment(path, &bytes, Some(*seq) == newest)?;
    }
    let Search { mut salvage, install, fresh, beyond, .. } = search;
    let gap_closed = salvage.damage.is_empty() || !fresh && !beyond;
    salvage.complete = gap_closed && salvage.known_index >= base.index;
    salvage.complete &= salvage.known_index <= salvage.part.last_index();
    if install.is_some_and(|install| install != base.install) {
        salvage.part.entries.clear();
    }
    if segments.is_empty() {
        salvage.damage.push(Corruption::new(dir, "there is no log segment"));
    }
    Ok(salvage)
}

impl Search {
    /// Something is missing here.
    fn gap(&mut self, damage: Corruption) {
        self.salvage.damage.push(damage);
        (self.chain, self.fresh) = (None, true);
    }

    fn segment(&mut self, path: &Path, bytes: &[u8], newest: bool) -> Result<()> {
        let salt = match SegmentHeader::decode(path, bytes) {
            Ok(header) => {
                self.salvage.part.member_id = header.member_id;
                header.salt
            }
            Err(Error::Corrupt(damage)) => {
                self.gap(*damage);
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        let mut offset = BLOCK;
        while (offset as usize) < bytes.len() {
            let found = match batch_at(path, bytes, salt, offset) {
                Ok(found) => found,
                Err(Error::Corrupt(_)) => None,
                Err(other) => return Err(other),
            };
            let header = batch::decode_header(&bytes[offset as usize..], salt, offset);
            let (Some((batch, next)), Some(header)) = (found, header) else {
                let Some(next) = self.next_batch(bytes, salt, offset, newest) else { break };
                self.gap(Corruption::new(path, "a batch that others follow cannot be read").at(offset));
                offset = next;
                continue;
            };
            let (no, chain) = (header.batch_no, header.chain);
            if self.chain.is_some_and(|before| before != (no.wrapping_sub(1), chain)) {
                if offset > BLOCK {
                    // A batch of an earlier life of the file: the log ended before it.
                    break;
                }
                self.gap(
                    Corruption::new(path, "the end of the segment before this one cannot be read").at(offset),
                );
            }
            self.chain = Some((no, header.crc));
            batch.records.iter().for_each(|record| self.record(record));
            offset = next;
        }
        Ok(())
    }

    /// Where a batch of this life of the segment begins behind `offset`. In the newest segment it has to prove that
    /// what lies before it was durable: otherwise that is what an ordinary crash leaves.
    fn next_batch(&self, bytes: &[u8], salt: u64, offset: u64, newest: bool) -> Option<u64> {
        let lost_no = self.chain.map(|(no, _)| no.wrapping_add(1));
        let places = (offset + BLOCK..bytes.len() as u64).step_by(BLOCK_BYTES);
        let mut later = places.filter_map(|at| {
            let header = batch::decode_header(&bytes[at as usize..], salt, at)?;
            Some((at, header))
        });
        let (first, header) = later.next()?;
        let proves = |durable_no: u64| lost_no.is_none_or(|lost| durable_no >= lost);
        let proven =
            !newest || proves(header.durable_no) || later.any(|(_, header)| proves(header.durable_no));
        (proven && lost_no.is_none_or(|lost| header.batch_no > lost)).then_some(first)
    }

    fn record(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Entry(entry) => {
                let part = &mut self.salvage.part;
                self.salvage.known_index = self.salvage.known_index.max(entry.index);
                if self.fresh {
                    self.fresh = false;
                    self.beyond = entry.index > part.base.index + 1;
                    if !self.beyond {
                        part.entries.clear();
                    }
                }
                if !self.beyond {
                    part.push(entry);
                }
            }
            LogRecord::HardState(state) => self.hard_state(*state),
            LogRecord::Base(base) => {
                self.install = Some(base.install);
                self.salvage.part.entries.clear();
                (self.fresh, self.beyond) = (true, false);
            }
            LogRecord::Carry(carry) => {
                self.install = Some(carry.base.install);
                self.hard_state(carry.hard_state);
            }
        }
    }

    fn hard_state(&mut self, state: HardState) {
        let known = &mut self.salvage.part.hard_state;
        if state.term >= known.term {
            *known = HardState { commit: known.commit.max(state.commit), ..state };
        }
        self.salvage.known_index = self.salvage.known_index.max(state.commit);
    }
}
