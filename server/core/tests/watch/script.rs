// SPDX-License-Identifier: Apache-2.0
//! The language in which the rules of Watch are tested: scripts over the hub and a store kept in a list.
//!
//! Owns      the words of the scripts, and a model of the history.
//! Holds     what a stream is sent is printed in full, in order, once.
//! Never     looks inside the hub.

use bytes::Bytes;
use cairn_core::watch::{Chunk, History, HistoryError, Hub, HubOptions, Outbox, Step, StreamId};
use cairn_mvcc::{Event, EventKind, KeyRange, Revision, RevisionEvents};
use cairn_proto::{
    etcdserverpb::{ResponseHeader, WatchCreateRequest},
    mvccpb,
};
use expect_test::Expect;
use prost::Message;
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// A store that never forgets, and a compact revision.
pub struct Store {
    revisions: Vec<Arc<RevisionEvents>>,
    compacted: i64,
    live: BTreeMap<Bytes, mvccpb::KeyValue>,
}

impl Store {
    fn now(&self) -> i64 {
        self.revisions.last().map_or(1, |r| r.main)
    }

    /// Applies `put k v` and `del k` words as one revision.
    pub fn apply(&mut self, words: &[&str]) -> Arc<RevisionEvents> {
        let main = self.now() + 1;
        let mut events = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let key = Bytes::from(words.next().expect("a key").to_string());
            let sub = events.len() as i64;
            let before = self.live.get(&key).cloned();
            let prev = before.as_ref().map(|kv| Revision { main: kv.mod_revision, sub: 0 });
            if *word == "put" {
                let value = Bytes::from(words.next().expect("a value").to_string());
                let kv = mvccpb::KeyValue {
                    key: key.clone(),
                    value,
                    create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
                    mod_revision: main,
                    version: before.as_ref().map_or(1, |kv| kv.version + 1),
                    lease: 0,
                };
                let (create, version) = (kv.create_revision, kv.version);
                let bytes = Bytes::from(kv.encode_to_vec());
                self.live.insert(key.clone(), kv);
                events.push(Event { kind: EventKind::Put, key, kv: bytes, create, version, sub, prev });
            } else if self.live.remove(&key).is_some() {
                let kv = mvccpb::KeyValue { key: key.clone(), mod_revision: main, ..Default::default() };
                let bytes = Bytes::from(kv.encode_to_vec());
                events.push(Event {
                    kind: EventKind::Delete,
                    key,
                    kv: bytes,
                    create: 0,
                    version: 0,
                    sub,
                    prev,
                });
            }
        }
        let revision = Arc::new(RevisionEvents { main, events });
        self.revisions.push(revision.clone());
        revision
    }
}

impl History for Store {
    fn compact_revision(&self) -> Result<i64, HistoryError> {
        Ok(self.compacted)
    }

    fn events(
        &self,
        ranges: &[KeyRange],
        from: i64,
        to: i64,
        bytes_max: usize,
    ) -> Result<Chunk, HistoryError> {
        let wants = |key: &[u8]| ranges.iter().any(|range| range.contains(key));
        if from < self.compacted {
            return Err(HistoryError::Compacted);
        }
        let mut chunk = Chunk { revisions: Vec::new(), covered: to };
        let mut bytes = 0;
        for revision in self.revisions.iter().filter(|r| (from..=to).contains(&r.main)) {
            let events: Vec<Event> = revision.events.iter().filter(|e| wants(&e.key)).cloned().collect();
            bytes += events.iter().map(|e| e.kv.len()).sum::<usize>();
            chunk.revisions.push(Arc::new(RevisionEvents { main: revision.main, events }));
            if bytes >= bytes_max {
                chunk.covered = revision.main;
                break;
            }
        }
        Ok(chunk)
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError> {
        if revision < self.compacted {
            return Ok(None);
        }
        let past = self.revisions.iter().filter(|r| r.main <= revision).flat_map(|r| &r.events);
        let last = past.filter(|e| e.key == key).last();
        Ok(last.filter(|e| e.kind == EventKind::Put).map(|e| e.kv.clone()))
    }
}

pub struct World {
    pub store: Store,
    pub hub: Hub,
    streams: BTreeMap<String, (StreamId, Arc<Outbox>)>,
    now_ms: u64,
    /// Small enough a ring makes lagging watchers read the history.
    options: HubOptions,
}

impl World {
    pub fn new(options: HubOptions) -> World {
        let store = Store { revisions: Vec::new(), compacted: -1, live: BTreeMap::new() };
        let hub = Hub::new(store.now(), options.clone());
        World { store, hub, streams: BTreeMap::new(), now_ms: 0, options }
    }

    fn stream(&mut self, name: &str) -> (StreamId, Arc<Outbox>) {
        if let Some((id, outbox)) = self.streams.get(name) {
            return (*id, outbox.clone());
        }
        let opened = self.hub.open_stream(self.now_ms, Arc::new(|| ()));
        self.streams.insert(name.to_owned(), opened.clone());
        opened
    }

    pub fn run(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["put" | "del", ..] => {
                let revision = self.store.apply(&words);
                self.hub.publish(&[revision], &self.store).expect("the model never fails");
            }
            ["puts", key, count] => {
                for n in 0..count.parse().expect("a count") {
                    self.run(&format!("put {key} {n}"), out);
                }
            }
            // The hub learns of it after the watcher was made.
            ["late", ref rest @ ..] => {
                let (split, publish) = (rest.len(), self.store.apply(&rest[1..]));
                assert!(split > 1);
                self.run_create(&format!("create {} z..0", rest[0]), None);
                self.hub.publish(&[publish], &self.store).expect("the model never fails");
            }
            ["compact", revision] => self.store.compacted = revision.parse().expect("a revision"),
            ["create", ..] => self.run_create(line, None),
            ["as", user, "create", ref rest @ ..] => {
                self.run_create(&format!("create {}", rest.join(" ")), Some(user.into()));
            }
            // The user may not see that key any more; everyone else may.
            ["forbid", user, forbidden] => {
                let may = |owner: Option<&str>, key: &[u8], end: &[u8]| {
                    let holds = key == forbidden.as_bytes()
                        || key < forbidden.as_bytes() && (end == b"\0" || forbidden.as_bytes() < end);
                    if owner == Some(user) && holds { Err("no right") } else { Ok(()) }
                };
                let mut from = Some(0);
                while let Some(place) = from {
                    from = self.hub.recheck(place, 2, &may);
                }
            }
            ["cancel", stream, id] => {
                let (stream, _) = self.stream(stream);
                self.hub.cancel(stream, id.parse().expect("an id"), self.store.now());
            }
            ["refuse", stream, ref reason @ ..] => {
                let (stream, _) = self.stream(stream);
                self.hub.refuse(stream, &reason.join(" "), self.store.now());
            }
            ["progress", stream] => {
                let (stream, _) = self.stream(stream);
                self.hub.progress(stream);
            }
            ["close", stream] => {
                let (stream, _) = self.streams.remove(stream).expect("it is open");
                self.hub.close_stream(stream);
            }
            ["tick", ms] => {
                self.now_ms += ms.parse::<u64>().expect("milliseconds");
                self.hub.tick(self.now_ms);
            }
            ["catchup"] => loop {
                match self.hub.plan(&self.store).expect("the model never fails") {
                    Step::Read(plan) => {
                        let caught = plan.read(&self.store).expect("the model never fails");
                        self.hub.deliver(caught, &self.store).expect("the model never fails");
                    }
                    Step::Again => {}
                    Step::Idle => break,
                }
            },
            ["restart"] => {
                self.hub = Hub::new(self.store.now(), self.options.clone());
                self.streams.clear();
            }
            ["reset"] => self.hub.reset(self.store.now()),
            ["skip", stream, count] => {
                let (_, outbox) = self.stream(stream);
                for _ in 0..count.parse().expect("a count") {
                    outbox.pop().expect("that many are queued");
                }
            }
            ["read", stream] => self.read(stream, usize::MAX, out),
            ["read", stream, count] => self.read(stream, count.parse().expect("a count"), out),
            _ => panic!("no such line: {line}"),
        }
    }

    fn run_create(&mut self, line: &str, owner: Option<Arc<str>>) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (stream, _) = self.stream(words[1]);
        let mut request = WatchCreateRequest::default();
        let (key, end) = match words[2].split_once("..") {
            Some((key, "0")) => (key, Bytes::from_static(b"\0")),
            Some((key, end)) => (key, Bytes::from(end.to_owned())),
            None => (words[2], Bytes::new()),
        };
        request.key = Bytes::from(key.replace("EMPTY", ""));
        request.range_end = end;
        for option in &words[3..] {
            match option.split_once('=') {
                Some(("start", n)) => request.start_revision = n.parse().expect("a revision"),
                Some(("id", n)) => request.watch_id = n.parse().expect("an id"),
                Some(("filter", n)) => request.filters.push(n.parse().expect("a filter")),
                None if *option == "prev" => request.prev_kv = true,
                None if *option == "notify" => request.progress_notify = true,
                None if *option == "fragment" => request.fragment = true,
                _ => panic!("no such option: {option}"),
            }
        }
        match owner {
            None => self.hub.create(stream, &request, self.store.now()),
            owner => self.hub.create_for(owner, stream, &request, self.store.now()),
        }
    }

    fn read(&mut self, name: &str, count: usize, out: &mut String) {
        let (_, outbox) = self.stream(name);
        for _ in 0..count {
            let Some(entry) = outbox.pop() else { break };
            for r in entry.into_responses(ResponseHeader::default(), 2_097_152) {
                let revision = r.header.as_ref().map_or(-1, |h| h.revision);
                write!(out, "{name}: #{} @{revision}", r.watch_id).expect("a string takes all");
                for (set, word) in
                    [(r.created, "created"), (r.canceled, "canceled"), (r.fragment, "fragment")]
                {
                    if set {
                        write!(out, " {word}").expect("a string takes all");
                    }
                }
                if r.compact_revision != 0 {
                    write!(out, " compact_revision={}", r.compact_revision).expect("a string takes all");
                }
                if !r.cancel_reason.is_empty() {
                    write!(out, " \"{}\"", r.cancel_reason).expect("a string takes all");
                }
                let events: Vec<String> = r.events.iter().map(print_event).collect();
                if events.len() > 4 {
                    let last = events.last().expect("more than four");
                    write!(out, " {} .. {last} ({} events)", events[0], events.len())
                        .expect("a string takes all");
                } else {
                    events.iter().for_each(|e| write!(out, " {e}").expect("a string takes all"));
                }
                out.push('\n');
            }
        }
    }
}

fn print_event(bytes: &Bytes) -> String {
    let event = mvccpb::Event::decode(&bytes[..]).expect("the hub encodes events");
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let kv = event.kv.expect("every event has its pair");
    let mut out = match event.r#type {
        0 => format!("{}={}", text(&kv.key), text(&kv.value)),
        _ => {
            assert_eq!((kv.version, kv.create_revision, kv.value.len()), (0, 0, 0), "WATCH-26");
            format!("-{}", text(&kv.key))
        }
    };
    write!(out, "@{}", kv.mod_revision).expect("a string takes all");
    if let Some(prev) = event.prev_kv {
        write!(out, "(was {}@{})", text(&prev.value), prev.mod_revision).expect("a string takes all");
    }
    out
}

pub fn check_with(options: HubOptions, script: &str, expected: Expect) {
    let mut world = World::new(options);
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.run(line, &mut out);
    }
    expected.assert_eq(&out);
}

pub fn check(script: &str, expected: Expect) {
    check_with(HubOptions::default(), script, expected);
}
