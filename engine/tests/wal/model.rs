// SPDX-License-Identifier: Apache-2.0
//! What a log must hold, as plain maps, and the comparison with a real one.

use std::collections::BTreeMap;
use std::path::Path;

use cairn_engine::InstallId;
use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::wal::{Base, Evidence, HardState, Record, Wal};

use crate::script::{BASE, DIR, entry, reopening};

/// The log after one step.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub base: Base,
    pub hard: HardState,
    /// Live entries by index: the record itself.
    pub entries: BTreeMap<u64, Record>,
    /// What the tree file has.
    pub applied: (u64, u64),
    pub install: InstallId,
}

impl State {
    pub fn new() -> State {
        State {
            base: BASE,
            hard: HardState::default(),
            entries: BTreeMap::new(),
            applied: (BASE.index, BASE.term),
            install: BASE.install,
        }
    }

    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }

    pub fn term(&self, index: u64) -> u64 {
        match self.entries.get(&index) {
            Some(Record::Entry(entry)) => entry.term,
            _ => self.base.term,
        }
    }

    pub fn apply(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Entry(entry) => {
                    self.entries.retain(|index, _| *index < entry.index);
                    self.entries.insert(entry.index, record.clone());
                }
                Record::HardState(hard) => self.hard = *hard,
                Record::Base(base) => {
                    self.base = *base;
                    self.entries.clear();
                }
            }
        }
    }

    pub fn evidence(&self) -> Evidence {
        Evidence { applied_index: self.applied.0, applied_term: self.applied.1, install: self.install }
    }

    /// Says where `wal`, with the hard state that it was opened with, differs from this state.
    pub fn differs(&self, wal: &Wal, hard: HardState, evidence: &Evidence) -> Option<String> {
        let mut expected = self.hard;
        expected.commit = expected.commit.max(evidence.applied_index);
        let (first, last) = (wal.first_index(), wal.last_index());
        if hard != expected {
            return Some(format!("hard state {hard:?}, want {expected:?}"));
        }
        if wal.state().0 != self.base {
            return Some(format!("base {:?}, want {:?}", wal.state().0, self.base));
        }
        if last != self.last() {
            return Some(format!("last index {last}, want {}", self.last()));
        }
        if first <= last {
            let entries = match wal.read(first, last + 1, usize::MAX) {
                Ok(entries) => entries,
                Err(error) => return Some(error.to_string()),
            };
            for found in entries {
                let index = found.index;
                if self.entries.get(&index) != Some(&Record::Entry(found)) {
                    return Some(format!("entry {index} differs"));
                }
            }
        }
        None
    }
}

/// A run of a log by steps, each of which leads to a known state.
#[derive(Debug)]
pub struct History {
    /// The state after step n, from 0.
    pub states: Vec<State>,
    /// The records that led to it; empty for a step of another kind.
    pub steps: Vec<Vec<Record>>,
}

impl History {
    pub fn new() -> History {
        History { states: vec![State::new()], steps: vec![Vec::new()] }
    }

    pub fn now(&self) -> &State {
        self.states.last().expect("a history has a beginning")
    }

    pub fn step(&mut self, records: Vec<Record>) -> u64 {
        let mut state = self.now().clone();
        state.apply(&records);
        self.push(state, records)
    }

    pub fn push(&mut self, state: State, records: Vec<Record>) -> u64 {
        self.states.push(state);
        self.steps.push(records);
        self.states.len() as u64 - 1
    }

    /// Opens the log on `disk` and finds the step between the marks that it equals. Goes on with that
    /// step's follower as if a client tried again, so that a second crash finds new writes after a recovery.
    pub fn check(&self, disk: &SimVfs, acked: u64, submitted: u64) -> Result<(), String> {
        let evidence = self.states[acked as usize].evidence();
        if acked == 0 && !Wal::exists(disk, Path::new(DIR)).map_err(|e| e.to_string())? {
            return Ok(());
        }
        let (wal, replay) =
            Wal::open(Path::new(DIR), reopening(disk, 1000 + acked), evidence).map_err(|e| e.to_string())?;
        if wal.first_index() > evidence.applied_index + 1 {
            return Err(format!("the log begins at {}", wal.first_index()));
        }
        let mut why = String::new();
        let found = (acked..=submitted).rev().find(|n| {
            match self.states[*n as usize].differs(&wal, replay.hard_state, &evidence) {
                None => true,
                Some(difference) => {
                    why = format!("{why}\n  not step {n}: {difference}");
                    false
                }
            }
        });
        let n = found.ok_or(format!("the log equals no step:{why}"))?;
        disk.recovered(n);
        if n < submitted && !self.steps[n as usize + 1].is_empty() {
            disk.submit(n + 1);
            wal.append(self.steps[n as usize + 1].clone()).map_err(|e| e.to_string())?;
            wal.sync().map_err(|e| e.to_string())?;
            disk.ack(n + 1);
        }
        Ok(())
    }
}

/// A random step that appends: entries that go on, entries that replace, or a hard state.
pub fn random_records(state: &State, rng: &mut SplitMix) -> Vec<Record> {
    let last = state.last();
    let mut records = Vec::new();
    let mut term = state.term(last);
    let mut from = last + 1;
    let committed = state.hard.commit.max(state.applied.0);
    if last > committed && rng.one_in(5) {
        from = committed + 1 + rng.below(last - committed);
        term += 1;
    } else if rng.one_in(6) {
        term += 1;
    }
    for index in from..from + 1 + rng.below(3) {
        let bytes = match rng.below(8) {
            0 => 4000 + rng.below(6000),
            1 => 0,
            _ => rng.below(600),
        };
        records.push(entry(index, term, bytes as usize));
    }
    if rng.one_in(3) {
        let (first, last) = (committed.min(from - 1), from - 1);
        let commit = state.hard.commit.max(first + rng.below(last - first + 1));
        records.push(Record::HardState(HardState { term, vote: rng.below(3), commit }));
    }
    records
}
