// SPDX-License-Identifier: Apache-2.0
//! What clients of a cluster asked and were told, and what in the end turned out to have happened.
//!
//! Owns      the record of a request, and of a change as a watcher sees it.
//! Holds     each value is written by one request alone, so that what is found names who wrote it.
//! Never     asks a server.

mod check;

use std::collections::BTreeMap;

use cairn_proto::mvccpb;

pub use check::{Checked, check, check_locks, check_watch};

/// A live key as an answer or an event has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub value: String,
    pub created: i64,
    pub modified: i64,
    pub version: i64,
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub revision: i64,
    pub key: String,
    /// `None` for a delete.
    pub put: Option<Found>,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    /// A put if the key was last changed at `seen`.
    Swap {
        key: String,
        seen: i64,
        value: String,
    },
    /// Puts of the same value to both keys, in one transaction.
    Pair {
        keys: [String; 2],
        value: String,
    },
    Get {
        key: String,
    },
    /// A serializable read.
    Stale {
        key: String,
    },
}

/// What was answered, with the revision of the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Changed(i64),
    /// A delete of nothing, or a swap that was too late.
    Unchanged(i64),
    Read(i64, Option<Found>),
}

impl Answer {
    fn revision(&self) -> i64 {
        match self {
            Answer::Changed(revision) | Answer::Unchanged(revision) | Answer::Read(revision, _) => *revision,
        }
    }
}

/// One request. Times are nanoseconds of one clock.
#[derive(Clone, Debug)]
pub struct Op {
    pub begin: u64,
    pub end: u64,
    pub request: Request,
    /// `None` if there was no answer that tells what happened.
    pub answer: Option<Answer>,
}

impl Found {
    /// # Panics
    /// If the value is not text, which no client here writes.
    pub fn of(kv: &mvccpb::KeyValue) -> Found {
        Found {
            value: text(&kv.value),
            created: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
        }
    }
}

impl Event {
    /// # Panics
    /// If it has no pair, or the pair is not text.
    pub fn of(event: &mvccpb::Event) -> Event {
        let kv = event.kv.as_ref().expect("an event has its pair");
        let put = (event.r#type() == mvccpb::event::EventType::Put).then(|| Found::of(kv));
        Event { revision: kv.mod_revision, key: text(&kv.key), put }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the tests write text")
}

/// All states of all keys, replayed from the events.
struct Past {
    /// By key: what it was from each revision on.
    states: BTreeMap<String, Vec<(i64, Option<Found>)>>,
    last: i64,
}

impl Past {
    /// # Errors
    /// If events are out of order, a revision is missing, or an event does not follow from those before it.
    fn replay(events: &[Event]) -> Result<Past, String> {
        let mut past = Past { states: BTreeMap::new(), last: 1 };
        for event in events {
            if event.revision != past.last && event.revision != past.last + 1 {
                return Err(format!("{event:?} follows revision {}", past.last));
            }
            past.last = event.revision;
            let before = past.at(&event.key, event.revision);
            if let Some(put) = &event.put {
                let (created, version) = match before {
                    Some(before) => (before.created, before.version + 1),
                    None => (event.revision, 1),
                };
                if (put.created, put.modified, put.version) != (created, event.revision, version) {
                    return Err(format!("{event:?} follows {before:?}"));
                }
            } else if before.is_none() {
                return Err(format!("{event:?} deletes nothing"));
            }
            past.states.entry(event.key.clone()).or_default().push((event.revision, event.put.clone()));
        }
        Ok(past)
    }

    /// The key as it stood at a revision.
    fn at(&self, key: &str, revision: i64) -> Option<&Found> {
        let states = self.states.get(key)?;
        let after = states.partition_point(|(from, _)| *from <= revision);
        states[..after].last()?.1.as_ref()
    }
}
