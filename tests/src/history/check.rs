// SPDX-License-Identifier: Apache-2.0
//! Whether a history is strictly serializable: replayed in the order of revisions, and held against real time.
//!
//! Owns      the verdict.
//! Holds     every answer has a revision, so one replay and one sweep decide; nothing is searched for.
//! Never     takes a request without an answer for one that did nothing: it may have landed, once, at any time after
//!           it began.

use std::collections::{BTreeMap, HashMap};

use super::{Answer, Event, Op, Past, Request};

/// How much was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Answered changes.
    pub writes: usize,
    /// Answered reads, and changes that were refused for what they compared.
    pub reads: usize,
    /// Changes without an answer that are in the history.
    pub landed: usize,
    /// Changes without an answer that are not.
    pub lost: usize,
}

/// Holds what clients were told against all changes there were, from revision 2 on. Keys that no request names are
/// replayed and otherwise left alone.
///
/// # Errors
/// With the first thing that cannot be.
pub fn check(ops: &[Op], events: &[Event]) -> Result<Checked, String> {
    let past = Past::replay(events)?;
    let index = Index::of(events);
    let mut checked = Checked::default();
    // Operations that can be placed in the order of revisions: when, at which one, and whether they made it.
    let mut placed = Vec::new();
    let mut issued: HashMap<&str, &Op> = HashMap::new();
    for op in ops {
        if let Some(value) = op.request.value()
            && issued.insert(value, op).is_some()
        {
            return Err(format!("{value} was written by two requests: the load is wrong"));
        }
        match &op.answer {
            Some(answer) => {
                explain(op, answer, &past, &index).map_err(|what| format!("{what}: {op:?}"))?;
                let changed = matches!(answer, Answer::Changed(_));
                if changed {
                    checked.writes += 1
                } else {
                    checked.reads += 1
                }
                if !matches!(op.request, Request::Stale { .. }) {
                    placed.push(Placed { op, revision: answer.revision(), changed });
                }
            }
            None => match op.request.value().and_then(|value| index.by_value.get(value)) {
                Some(&revision) => {
                    index.is_whole(op, revision).map_err(|what| format!("{what}: {op:?}"))?;
                    checked.landed += 1;
                    placed.push(Placed { op, revision, changed: true });
                }
                None => checked.lost += 1,
            },
        }
    }
    every_event_was_asked_for(ops, events, &issued)?;
    real_time(&placed)?;
    Ok(checked)
}

struct Placed<'o> {
    op: &'o Op,
    revision: i64,
    changed: bool,
}

/// The events, by what a request is looked up with.
struct Index<'e> {
    by_revision: HashMap<i64, Vec<&'e Event>>,
    by_value: HashMap<&'e str, i64>,
}

impl<'e> Index<'e> {
    fn of(events: &'e [Event]) -> Index<'e> {
        let mut index = Index { by_revision: HashMap::new(), by_value: HashMap::new() };
        for event in events {
            index.by_revision.entry(event.revision).or_default().push(event);
            if let Some(put) = &event.put {
                // The first of two: the second is then found to be no request's.
                index.by_value.entry(&put.value).or_insert(event.revision);
            }
        }
        index
    }

    /// A revision has exactly the changes of a request.
    fn is_whole(&self, op: &Op, revision: i64) -> Result<(), String> {
        let found = self.by_revision.get(&revision).map_or(&[][..], |events| &events[..]);
        let keys = op.request.keys();
        let same = found.len() == keys.len()
            && found.iter().all(|event| {
                let value = event.put.as_ref().map(|put| &put.value[..]);
                keys.contains(&&event.key[..]) && value == op.request.value()
            });
        if same { Ok(()) } else { Err(format!("revision {revision} has {found:?}")) }
    }
}

impl Request {
    /// What it writes.
    fn value(&self) -> Option<&str> {
        match self {
            Request::Put { value, .. } | Request::Swap { value, .. } | Request::Pair { value, .. } => {
                Some(value)
            }
            Request::Delete { .. } | Request::Get { .. } | Request::Stale { .. } => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        match self {
            Request::Pair { keys, .. } => keys.iter().map(|key| &key[..]).collect(),
            Request::Put { key, .. }
            | Request::Delete { key }
            | Request::Swap { key, .. }
            | Request::Get { key }
            | Request::Stale { key } => vec![key],
        }
    }
}

/// An answer is what the state at its revision makes of the request.
fn explain(op: &Op, answer: &Answer, past: &Past, index: &Index<'_>) -> Result<(), String> {
    let revision = answer.revision();
    if revision > past.last {
        return Err(format!("there is no revision {revision}, but {} is the last", past.last));
    }
    let before = |key| past.at(key, revision - 1);
    let now = |key| past.at(key, revision);
    let seen_before = |key| before(key).map_or(0, |found| found.modified);
    match (&op.request, answer) {
        (Request::Get { key } | Request::Stale { key }, Answer::Read(_, found)) => match now(key) {
            state if state == found.as_ref() => Ok(()),
            state => Err(format!("{key} was {state:?}")),
        },
        (Request::Put { .. } | Request::Pair { .. } | Request::Delete { .. }, Answer::Changed(_)) => {
            index.is_whole(op, revision)
        }
        (Request::Delete { key }, Answer::Unchanged(_)) => match now(key) {
            None => Ok(()),
            state => Err(format!("{key} was there: {state:?}")),
        },
        (Request::Swap { key, seen, .. }, Answer::Changed(_)) => {
            if seen_before(key) != *seen {
                return Err(format!("{key} was {:?}", before(key)));
            }
            index.is_whole(op, revision)
        }
        (Request::Swap { key, seen, .. }, Answer::Unchanged(_)) => {
            if now(key).map_or(0, |found| found.modified) == *seen {
                return Err(format!("{key} was {:?}", now(key)));
            }
            Ok(())
        }
        _ => Err("the answer is to another request".to_owned()),
    }
}

/// No change comes from nowhere, and none is made twice.
fn every_event_was_asked_for(
    ops: &[Op],
    events: &[Event],
    issued: &HashMap<&str, &Op>,
) -> Result<(), String> {
    let named: std::collections::BTreeSet<&str> = ops.iter().flat_map(|op| op.request.keys()).collect();
    let mut written: HashMap<&str, i64> = HashMap::new();
    // Deletes without an answer, by key: each may account for one.
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut answered = HashMap::new();
    for op in ops {
        match (&op.request, &op.answer) {
            (Request::Delete { key }, None) => *open.entry(key).or_default() += 1,
            (Request::Delete { key }, Some(Answer::Changed(revision))) => {
                answered.insert(*revision, &key[..]);
            }
            _ => {}
        }
    }
    for event in events.iter().filter(|event| named.contains(&event.key[..])) {
        let Some(put) = &event.put else {
            if answered.get(&event.revision) == Some(&&event.key[..]) {
                continue;
            }
            match open.get_mut(&event.key[..]) {
                Some(left @ 1..) => *left -= 1,
                _ => return Err(format!("nobody asked for {event:?}")),
            }
            continue;
        };
        if !issued.contains_key(&put.value[..]) {
            return Err(format!("nobody asked for {event:?}"));
        }
        let first = *written.entry(&put.value).or_insert(event.revision);
        if first != event.revision {
            return Err(format!("{event:?} was written at {first} already"));
        }
    }
    Ok(())
}

/// What began after something had ended is not before it in the order of revisions.
fn real_time(placed: &[Placed<'_>]) -> Result<(), String> {
    let mut begins: Vec<&Placed<'_>> = placed.iter().collect();
    let mut ends: Vec<&Placed<'_>> = placed.iter().filter(|placed| placed.op.answer.is_some()).collect();
    begins.sort_by_key(|placed| placed.op.begin);
    ends.sort_by_key(|placed| placed.op.end);
    let mut ended = ends.into_iter().peekable();
    let mut floor: Option<&Placed<'_>> = None;
    for placed in begins {
        while let Some(done) = ended.next_if(|done| done.op.end < placed.op.begin) {
            if floor.is_none_or(|floor| floor.revision < done.revision) {
                floor = Some(done);
            }
        }
        let Some(floor) = floor else { continue };
        let least = floor.revision + i64::from(placed.changed);
        if placed.revision < least {
            return Err(format!(
                "at revision {}: {:?} began after the end, at revision {}, of {:?}",
                placed.revision, placed.op, floor.revision, floor.op
            ));
        }
    }
    Ok(())
}

/// What one watcher of a prefix saw, over all its streams: everything from its first revision on, once and in order.
/// Answers how many events.
///
/// # Errors
/// With the first event that differs.
pub fn check_watch(prefix: &str, seen: &[Event], events: &[Event]) -> Result<usize, String> {
    let all = events.iter().filter(|event| event.key.starts_with(prefix));
    if let Some((place, (seen, there))) =
        seen.iter().zip(all.clone()).enumerate().find(|(_, (seen, there))| seen != there)
    {
        return Err(format!("event {place} was {seen:?}, and is {there:?}"));
    }
    let there = all.count();
    if seen.len() == there { Ok(there) } else { Err(format!("{} events were seen of {there}", seen.len())) }
}

/// Each change of the key `guarded` has as its value the key of the lock under `lock/` that was held then: the one
/// that was created first of those there are. Answers how many changes.
///
/// # Errors
/// With the first change by somebody who did not hold the lock.
pub fn check_locks(lock: &str, guarded: &str, events: &[Event]) -> Result<usize, String> {
    let waiting_under = format!("{lock}/");
    let mut waiting: BTreeMap<i64, &str> = BTreeMap::new();
    let mut changes = 0;
    for event in events {
        if event.key.starts_with(&waiting_under) {
            match &event.put {
                Some(put) => {
                    waiting.insert(put.created, &event.key);
                }
                None => waiting.retain(|_, key| *key != event.key),
            }
        } else if event.key == guarded {
            let holder = waiting.first_key_value().map(|(_, key)| *key);
            let by = event.put.as_ref().map(|put| &put.value[..]);
            // The value is the lock's key, and behind it a number of the change.
            if holder.is_none() || by.and_then(|by| by.split_once('#')).map(|(key, _)| key) != holder {
                return Err(format!("{event:?} while {holder:?} held the lock"));
            }
            changes += 1;
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;

    fn found(value: &str, created: i64, modified: i64, version: i64) -> Found {
        Found { value: value.into(), created, modified, version }
    }

    fn put(revision: i64, key: &str, value: &str, created: i64, version: i64) -> Event {
        Event { revision, key: key.into(), put: Some(found(value, created, revision, version)) }
    }

    fn gone(revision: i64, key: &str) -> Event {
        Event { revision, key: key.into(), put: None }
    }

    fn op(begin: u64, end: u64, request: Request, answer: Option<Answer>) -> Op {
        Op { begin, end, request, answer }
    }

    fn events() -> Vec<Event> {
        vec![
            put(2, "a", "v1", 2, 1),
            put(3, "b", "v2", 3, 1),
            put(4, "a", "v3", 2, 2),
            put(5, "a", "v4", 2, 3),
            put(5, "b", "v4", 3, 2),
            gone(6, "b"),
            put(7, "b", "v5", 7, 1),
        ]
    }

    fn ops() -> Vec<Op> {
        use Request::{Delete, Get, Pair, Put, Stale, Swap};
        let [a, b] = ["a", "b"].map(str::to_owned);
        let value = |n: u64| format!("v{n}");
        vec![
            op(10, 20, Put { key: a.clone(), value: value(1) }, Some(Answer::Changed(2))),
            op(21, 30, Put { key: b.clone(), value: value(2) }, Some(Answer::Changed(3))),
            op(22, 40, Swap { key: a.clone(), seen: 2, value: value(3) }, Some(Answer::Changed(4))),
            op(41, 44, Swap { key: a.clone(), seen: 2, value: value(9) }, Some(Answer::Unchanged(4))),
            op(45, 50, Pair { keys: [a.clone(), b.clone()], value: value(4) }, Some(Answer::Changed(5))),
            op(51, 60, Get { key: a.clone() }, Some(Answer::Read(5, Some(found("v4", 2, 5, 3))))),
            op(61, 70, Delete { key: b.clone() }, Some(Answer::Changed(6))),
            op(71, 75, Delete { key: b.clone() }, Some(Answer::Unchanged(6))),
            op(71, 90, Put { key: b.clone(), value: value(5) }, None),
            op(71, 90, Put { key: b.clone(), value: value(6) }, None),
            op(91, 95, Stale { key: b.clone() }, Some(Answer::Read(2, None))),
            op(96, 99, Get { key: b }, Some(Answer::Read(7, Some(found("v5", 7, 7, 1))))),
        ]
    }

    #[test]
    fn a_history_that_can_be_is_counted() {
        let checked = check(&ops(), &events()).expect("it can be");
        assert_eq!(checked, Checked { writes: 5, reads: 5, landed: 1, lost: 1 });
    }

    /// Each changes one thing about the history, and is found by what it says.
    #[test]
    fn what_cannot_be_is_found() {
        type Change = fn(&mut Vec<Op>, &mut Vec<Event>);
        let table: &[(&str, Change)] = &[
            ("follows revision 3", |_, events| drop(events.remove(2))),
            ("follows revision 3", |_, events| events.swap(2, 3)),
            ("follows Some", |_, events| events[2] = put(4, "a", "v3", 2, 1)),
            ("deletes nothing", |_, events| events[5] = gone(6, "c")),
            ("revision 3 has", |ops, _| ops[1].answer = None),
            ("revision 2 has", |ops, _| ops[1].answer = Some(Answer::Changed(2))),
            ("revision 4 has", |_, events| events[2] = put(4, "a", "v7", 2, 2)),
            ("there is no revision 8", |ops, _| ops[6].answer = Some(Answer::Changed(8))),
            ("a was Some", |ops, _| ops[5].answer = Some(Answer::Read(5, None))),
            ("a was Some", |ops, _| ops[3].answer = Some(Answer::Unchanged(2))),
            ("a was Some", |ops, _| {
                ops[2].request = Request::Swap { key: "a".into(), seen: 3, value: "v3".into() }
            }),
            ("b was there", |ops, _| ops[7].answer = Some(Answer::Unchanged(5))),
            ("began after the end", |ops, _| {
                ops[5].answer = Some(Answer::Read(4, Some(found("v3", 2, 4, 2))))
            }),
            ("began after the end", |ops, _| ops[8].begin = 100),
            ("nobody asked for", |ops, _| drop(ops.remove(8))),
            ("nobody asked for", |ops, _| drop(ops.remove(6))),
            ("was written at 7 already", |_, events| events.push(put(8, "b", "v5", 7, 2))),
            ("to another request", |ops, _| ops[0].answer = Some(Answer::Read(2, None))),
            ("by two requests", |ops, _| {
                let again = ops[0].clone();
                ops.push(again);
            }),
        ];
        for (line, (what, change)) in table.iter().enumerate() {
            let (mut ops, mut events) = (ops(), events());
            change(&mut ops, &mut events);
            // An unanswered request whose change is there must be whole too.
            if *what == "revision 3 has" {
                events.insert(2, put(3, "c", "v8", 3, 1));
            }
            let said = check(&ops, &events).expect_err(what);
            assert!(said.contains(what), "line {line}: {said}, and not {what}");
        }
    }

    #[test]
    fn a_watcher_has_everything_once_and_in_order() {
        let events = events();
        let of_b: Vec<Event> = events.iter().filter(|event| event.key == "b").cloned().collect();
        assert_eq!(check_watch("b", &of_b, &events), Ok(4));
        let mut skipped = of_b.clone();
        skipped.remove(1);
        let mut twice = of_b.clone();
        twice.insert(1, of_b[1].clone());
        let late = &of_b[..3];
        for wrong in [&skipped[..], &twice, late] {
            check_watch("b", wrong, &events).expect_err("it is not what there was");
        }
    }

    #[test]
    fn only_the_holder_of_a_lock_changes_what_it_guards() {
        let held = [
            put(2, "l/x", "", 2, 1),
            put(3, "l/y", "", 3, 1),
            put(4, "g", "l/x#1", 4, 1),
            gone(5, "l/x"),
            put(6, "g", "l/y#2", 4, 2),
        ];
        assert_eq!(check_locks("l", "g", &held), Ok(2));
        let mut stolen = held.clone();
        stolen[2] = put(4, "g", "l/y#1", 4, 1);
        check_locks("l", "g", &stolen).expect_err("x held it");
        let mut late = held;
        late[4] = put(6, "g", "l/x#2", 4, 2);
        check_locks("l", "g", &late).expect_err("x had given it up");
    }
}
