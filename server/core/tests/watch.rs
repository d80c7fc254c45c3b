// SPDX-License-Identifier: Apache-2.0
//! The rules of Watch, as scripts over the hub and a store kept in a list.
//!
//! Owns      the little language of the scripts, and a model of the history.
//! Holds     what a stream is sent is printed in full, in order, once.
//! Never     looks inside the hub.

use bytes::Bytes;
use cairn_core::watch::{Chunk, History, HistoryError, Hub, HubOptions, Outbox, Step, StreamId};
use cairn_mvcc::{Event, EventKind, KeyRange, Revision, RevisionEvents};
use cairn_proto::{
    etcdserverpb::{ResponseHeader, WatchCreateRequest},
    mvccpb,
};
use expect_test::{Expect, expect};
use prost::Message;
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// A store that never forgets, and a compact revision.
struct Store {
    revisions: Vec<Arc<RevisionEvents>>,
    compacted: i64,
    live: BTreeMap<Bytes, mvccpb::KeyValue>,
}

impl Store {
    fn now(&self) -> i64 {
        self.revisions.last().map_or(1, |r| r.main)
    }

    /// Applies `put k v` and `del k` words as one revision.
    fn apply(&mut self, words: &[&str]) -> Arc<RevisionEvents> {
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

struct World {
    store: Store,
    hub: Hub,
    streams: BTreeMap<String, (StreamId, Arc<Outbox>)>,
    now_ms: u64,
    /// Small enough a ring makes lagging watchers read the history.
    options: HubOptions,
}

impl World {
    fn new(options: HubOptions) -> World {
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

    fn run(&mut self, line: &str, out: &mut String) {
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

fn check_with(options: HubOptions, script: &str, expected: Expect) {
    let mut world = World::new(options);
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.run(line, &mut out);
    }
    expected.assert_eq(&out);
}

fn check(script: &str, expected: Expect) {
    check_with(HubOptions::default(), script, expected);
}

// rule: WATCH-2, WATCH-5
#[test]
fn ids_count_from_zero_skip_what_is_in_use_and_are_not_reused() {
    check(
        "create s a
         create s b id=5
         create s c
         create s d id=-4
         cancel s 1
         create s e
         create s f id=5
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #5 @1 created
            s: #1 @1 created
            s: #-4 @1 created
            s: #1 @1 canceled
            s: #2 @1 created
            s: #-1 @1 created canceled "mvcc: duplicate watch ID provided on the WatchStream"
        "#]],
    );
}

// rule: WATCH-3, WATCH-4, WATCH-8, WATCH-9, WATCH-10, WATCH-12
#[test]
fn what_is_watched_and_what_cannot_be() {
    check(
        "create s EMPTY..0
         create s b..d
         create s c
         create s b..b
         create s b..a
         create s a start=-1
         put a 1
         put b 2
         put c 3
         put d 4
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #-1 @1 created canceled "mvcc: watcher range is empty"
            s: #-1 @1 created canceled "mvcc: watcher range is empty"
            s: #-1 @1 created canceled "etcdserver: mvcc: required revision has been compacted"
            s: #0 @2 a=1@2
            s: #0 @3 b=2@3
            s: #1 @3 b=2@3
            s: #2 @4 c=3@4
            s: #0 @4 c=3@4
            s: #1 @4 c=3@4
            s: #0 @5 d=4@5
        "#]],
    );
}

// rule: WATCH-7, WATCH-16
#[test]
fn what_the_hub_learns_late_is_still_before_the_creation() {
    check(
        "put a 1
         late s put z 2
         put z 3
         read s",
        expect![[r#"
            s: #0 @3 created
            s: #0 @4 z=3@4
        "#]],
    );
}

// rule: WATCH-11
#[test]
fn a_refusal_leaves_the_stream_usable() {
    check(
        "refuse s rpc error: code = PermissionDenied desc = etcdserver: permission denied
         create s a
         put a 1
         read s",
        expect![[r#"
            s: #-1 @1 created canceled "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
            s: #0 @1 created
            s: #0 @2 a=1@2
        "#]],
    );
}

// rule: WATCH-14
#[test]
fn filters_drop_events_and_an_empty_response_is_not_sent() {
    check(
        "create s a filter=0
         create s a filter=1
         create s a filter=0 filter=1
         create s a filter=77
         put a 1
         del a
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #3 @1 created
            s: #1 @2 a=1@2
            s: #3 @2 a=1@2
            s: #0 @3 -a@3
            s: #3 @3 -a@3
        "#]],
    );
}

// rule: WATCH-17, WATCH-18, WATCH-25
#[test]
fn the_past_comes_first_and_the_future_waits() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "put a 1
             put a 2
             put b 3
             create s a start=3
             create s a start=6
             put a 4
             catchup
             put a 5
             put a 6
             read s",
            expect![[r#"
                s: #0 @4 created
                s: #1 @4 created
                s: #0 @5 a=2@3 a=4@5
                s: #1 @6 a=5@6
                s: #0 @6 a=5@6
                s: #1 @7 a=6@7
                s: #0 @7 a=6@7
            "#]],
        );
    }
}

// rule: WATCH-19, WATCH-20, WATCH-22
#[test]
fn the_compact_revision_is_still_watched_and_the_one_before_is_cut_off() {
    check(
        "puts a 5
         compact 4
         create s a start=4
         create s a start=3
         read s
         catchup
         read s
         progress s
         create s a id=1
         cancel s 1
         create s a id=1
         progress s
         read s",
        expect![[r#"
            s: #0 @6 created
            s: #1 @6 created
            s: #1 @0 canceled compact_revision=4
            s: #0 @6 a=2@4 a=3@5 a=4@6
            s: #-1 @6 created canceled "mvcc: duplicate watch ID provided on the WatchStream"
            s: #1 @6 canceled
            s: #1 @6 created
            s: #-1 @6
        "#]],
    );
}

// rule: WATCH-21, WATCH-42
#[test]
fn a_slow_watcher_gets_what_is_queued_and_is_then_cut_off_by_compaction() {
    check(
        "create s a
         puts a 200
         compact 180
         catchup
         skip s 127
         catchup
         read s",
        expect![[r#"
            s: #0 @128 a=126@128
            s: #0 @129 a=127@129
            s: #0 @0 canceled compact_revision=180
        "#]],
    );
}

// rule: WATCH-23, WATCH-28
#[test]
fn one_revision_is_one_response_in_the_order_of_its_changes() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "create s a..c
             create s a
             put a 1 put b 2 del a
             put x 1 put b 3
             create s a..c start=2
             put q 1
             catchup
             read s",
            expect![[r#"
                s: #0 @1 created
                s: #1 @1 created
                s: #0 @2 a=1@2 b=2@2 -a@2
                s: #1 @2 a=1@2 -a@2
                s: #0 @3 b=3@3
                s: #2 @3 created
                s: #2 @4 a=1@2 b=2@2 -a@2 b=3@3
            "#]],
        );
    }
}

// rule: WATCH-24, WATCH-25
#[test]
fn catching_up_takes_a_thousand_revisions_a_response() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "puts a 2300
             create s a start=1
             catchup
             read s",
            expect![[r#"
                s: #0 @2301 created
                s: #0 @2301 a=0@2 .. a=999@1001 (1000 events)
                s: #0 @2301 a=1000@1002 .. a=1999@2001 (1000 events)
                s: #0 @2301 a=2000@2002 .. a=2299@2301 (300 events)
            "#]],
        );
    }
}

// rule: WATCH-26, WATCH-29
#[test]
fn the_pair_before_comes_with_updates_and_deletes() {
    for options in [HubOptions::default(), HubOptions { ring_revisions_max: 1, ..HubOptions::default() }] {
        check_with(
            options,
            "create s a prev
             put a 1
             put a 2
             del a
             put a 3 del a
             create t a prev start=2
             put q 1
             catchup
             read s
             read t",
            expect![[r#"
                s: #0 @1 created
                s: #0 @2 a=1@2
                s: #0 @3 a=2@3(was 1@2)
                s: #0 @4 -a@4(was 2@3)
                s: #0 @5 a=3@5 -a@5
                t: #0 @5 created
                t: #0 @6 a=1@2 .. -a@5 (5 events)
            "#]],
        );
    }
}

// rule: WATCH-29
#[test]
fn a_compacted_pair_before_is_left_out() {
    check(
        "put a 1
         put a 2
         put a 3
         compact 3
         create s a prev start=3
         catchup
         read s",
        expect![[r#"
            s: #0 @4 created
            s: #0 @4 a=2@3 a=3@4(was 2@3)
        "#]],
    );
}

// rule: WATCH-27, WATCH-31
#[test]
fn a_cancel_ends_one_watcher_and_an_unknown_one_gets_no_answer() {
    check(
        "create s a
         create s a
         put a 1
         cancel s 0
         cancel s 9
         put a 2
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #0 @2 a=1@2
            s: #1 @2 a=1@2
            s: #0 @2 canceled
            s: #1 @3 a=2@3
        "#]],
    );
}

// rule: WATCH-30
#[test]
fn the_end_of_a_lease_is_one_response_in_key_order() {
    check(
        "put a 1 put b 1 put c 1
         create s a..0
         del a del b del c
         read s",
        expect![[r#"
            s: #0 @2 created
            s: #0 @3 -a@3 -b@3 -c@3
        "#]],
    );
}

// rule: WATCH-35, WATCH-36, WATCH-40
#[test]
fn progress_is_sent_to_quiet_synced_watchers_that_asked() {
    check(
        "create s a notify
         create s b
         create s c notify start=9
         put x 1
         tick 600000
         read s
         tick 60000
         read s
         put a 1
         tick 660000
         read s
         tick 660000
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #1 @1 created
            s: #2 @1 created
            s: #0 @2
            s: #0 @3 a=1@3
            s: #0 @3
        "#]],
    );
}

// rule: WATCH-35
#[test]
fn a_progress_interval_below_a_tenth_of_a_second_is_raised() {
    check_with(
        HubOptions { progress_interval_ms: 1, ..HubOptions::default() },
        "create s a notify
         tick 99
         read s
         tick 11
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #0 @1
        "#]],
    );
}

// rule: WATCH-37, WATCH-38, WATCH-39
#[test]
fn a_progress_request_is_answered_only_when_all_watchers_have_everything() {
    check(
        "progress s
         create s a
         progress s
         put a 1
         create s a start=2
         progress s
         catchup
         progress s
         create s a start=5
         progress s
         put x 1
         put x 2
         put x 3
         progress s
         read s",
        expect![[r#"
            s: #0 @1 created
            s: #-1 @1
            s: #0 @2 a=1@2
            s: #1 @2 created
            s: #1 @2 a=1@2
            s: #-1 @2
            s: #2 @2 created
            s: #-1 @5
        "#]],
    );
}

// rule: WATCH-41, WATCH-42
#[test]
fn a_slow_stream_loses_nothing_and_holds_up_nobody() {
    let script = "create s a
         create t a
         puts a 128
         read t
         puts a 2000
         catchup
         read t
         read s 100
         catchup
         read s";
    for ring_revisions_max in [1, 8192] {
        let mut world = World::new(HubOptions { ring_revisions_max, ..HubOptions::default() });
        let mut out = String::new();
        for line in script.lines().map(str::trim) {
            world.run(line, &mut out);
            world.run("catchup", &mut out);
        }
        for name in ["s", "t"] {
            for _ in 0..100 {
                world.run("catchup", &mut out);
                world.run(&format!("read {name}"), &mut out);
            }
            let events: usize = out
                .lines()
                .filter(|line| line.starts_with(name))
                .map(|line| match line.split_once('(') {
                    Some((_, count)) => {
                        count.split(' ').next().expect("a word").parse::<usize>().expect("a count")
                    }
                    None => line.split(' ').filter(|word| word.contains('=')).count(),
                })
                .sum();
            assert_eq!(events, 2128, "stream {name} with a ring of {ring_revisions_max}:\n{out}");
        }
        assert_eq!(world.hub.stats().slow, 0);
    }
}

// rule: WATCH-43
#[test]
fn after_a_reset_watchers_go_on_where_they_were() {
    let mut world = World::new(HubOptions::default());
    let mut out = String::new();
    for line in ["create s a", "create s a start=9", "put a 1"] {
        world.run(line, &mut out);
    }
    // Two revisions arrive by a snapshot: the hub never saw them.
    world.store.apply(&["put", "a", "2"]);
    world.store.apply(&["put", "a", "3"]);
    for line in ["reset", "catchup", "put a 4", "read s"] {
        world.run(line, &mut out);
    }
    expect![[r#"
        s: #0 @1 created
        s: #1 @1 created
        s: #0 @2 a=1@2
        s: #0 @4 a=2@3 a=3@4
        s: #0 @5 a=4@5
    "#]]
    .assert_eq(&out);
}

// rule: WATCH-6, WATCH-15
#[test]
fn a_closed_stream_takes_its_watchers_along() {
    let mut world = World::new(HubOptions::default());
    let mut out = String::new();
    for line in ["create s a", "create s b start=1", "create t a", "close s", "put a 1", "catchup", "read t"]
    {
        world.run(line, &mut out);
    }
    assert_eq!((world.hub.stats().streams, world.hub.stats().watchers, world.hub.stats().slow), (1, 1, 0));
    expect![[r#"
        t: #0 @1 created
        t: #0 @2 a=1@2
    "#]]
    .assert_eq(&out);
}

// rule: WATCH-34
#[test]
fn created_comes_before_the_events_of_its_watcher() {
    check(
        "put a 1
         create s a start=2 fragment
         catchup
         read s",
        expect![[r#"
            s: #0 @2 created
            s: #0 @2 a=1@2
        "#]],
    );
}

// R38: a right that ends takes its watchers along, whatever they are doing, and no others.
// rule: WATCH-13
#[test]
fn watchers_end_with_the_right_of_their_user() {
    check(
        "put b 1
         as alice create s b
         as alice create s c
         as alice create s a..0
         as alice create s a..c start=1
         as bob create s b
         create s b
         as alice create t b start=2
         as alice create t a..b
         forbid alice b
         put b 2
         catchup
         forbid alice b
         as alice create s c
         put c 3
         read s
         read t",
        expect![[r#"
            s: #0 @2 created
            s: #1 @2 created
            s: #2 @2 created
            s: #3 @2 created
            s: #4 @2 created
            s: #5 @2 created
            s: #0 @2 canceled "no right"
            s: #2 @2 canceled "no right"
            s: #3 @2 canceled "no right"
            s: #4 @3 b=2@3
            s: #5 @3 b=2@3
            s: #6 @3 created
            s: #1 @4 c=3@4
            s: #6 @4 c=3@4
            t: #0 @2 created
            t: #1 @2 created
            t: #0 @2 canceled "no right"
        "#]],
    );
}
