// SPDX-License-Identifier: Apache-2.0
//! The words in which tests of this crate are written, and the one place that calls its API for them.
//!
//! Owns      the parser of requests and the printer of answers.
//!
//! One request a line:
//!   put K V [lease=N] [prev]       V or N may be `~`: keep what the key has; V may be `""`
//!   del RANGE [prev]               RANGE is `a`, `a..c`, `a..` or `..`
//!   get RANGE [@REV] [limit=N] [asc:TARGET | desc:TARGET | by:TARGET] [keys] [count] [min_mod=N] …
//!   txn [? COMPARE {& COMPARE}] : [OP {; OP}] [| OP {; OP}]     an OP may be `txn ( … )`
//!   COMPARE is TARGET(RANGE) = | != | > | < | ~ VALUE, without spaces
//!   read TXN                       the same beside the apply path
//!   stream RANGE N …               a range in chunks of N
//!   history RANGE{,RANGE} FROM     what watchers are told
//!   compact N, hash N, anew N (a hash that is not remembered), lease N, revoke N, keys N, revision, live, purge, checkpoint, reopen

use std::fmt::Write as _;

use bytes::Bytes;
use cairn_mvcc::{
    Compare, CompareResult, CompareTarget, DeleteDone, DeleteOp, EventKind, HistoryBudget, KeyRange, KvRef,
    Op, OpDone, OpError, PutDone, PutOp, RangeDone, RangeEnd, RangeOp, Reader, SortOrder, SortTarget,
    TxnDone, TxnOp,
};
use expect_test::Expect;

use crate::world::World;

/// Runs a script on a fresh store and compares all answers.
pub fn check(script: &str, want: Expect) {
    want.assert_eq(&run(&mut World::new(), script));
}

/// Runs a script; one line of output a request.
pub fn run(world: &mut World, script: &str) -> String {
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let answer = one(world, line).unwrap_or_else(|error| format!("error: {error}"));
        writeln!(out, "{line} -> {answer}").expect("a string takes all that is written");
    }
    out
}

fn one(world: &mut World, line: &str) -> Result<String, OpError> {
    let mut words = Words::new(line);
    let word = words.next();
    if word == "reopen" {
        world.reopen();
        return Ok("ok".into());
    }
    let reader = world.reader();
    Ok(match word {
        "put" | "del" | "txn" => {
            let op = words.back().op();
            let (done, _) = world.apply(|batch, leases| match &op {
                Op::Put(op) => batch.put(op, leases).map(OpDone::Put),
                Op::Delete(op) => batch.delete_range(op).map(OpDone::Delete),
                Op::Txn(op) => batch.txn(op, leases).map(OpDone::Txn),
                Op::Range(_) => unreachable!("ranges are read"),
            });
            shown(&reader, &done?)?
        }
        "get" => {
            let Op::Range(op) = words.back().op() else { unreachable!("the word is get") };
            show_range(&reader.range(&op)?)
        }
        "read" => {
            let op = words.txn();
            shown(&reader, &OpDone::Txn(reader.txn(&op)?))?
        }
        "stream" => stream(&reader, &mut words)?,
        "history" => history(&reader, &mut words)?,
        "compact" => {
            let revision = words.number();
            let (done, _) = world.apply(|batch, _| batch.compact(revision));
            done.map(|()| "ok".into())?
        }
        "skip" => {
            let by = words.number();
            let (done, _) = world.apply(|batch, _| batch.skip(by as u64));
            done.map(|()| "ok".into())?
        }
        "hash" | "anew" => {
            let revision = words.number();
            let done = if word == "hash" { reader.hash_kv(revision) } else { reader.hash_kv_anew(revision) }?;
            let (at, compact) = (done.hash_revision, done.compact_revision);
            format!("rev {}: {} at {at} compact {compact}", done.revision, done.hash)
        }
        "lease" => {
            world.leases.insert(words.number());
            "ok".into()
        }
        "revoke" => {
            let lease = words.number();
            world.leases.remove(&lease);
            let (done, _) = world.apply(|batch, _| {
                let keys = batch.keys_of_lease(lease)?;
                batch.delete_keys(&keys)
            });
            show_delete(&done?)
        }
        "keys" => {
            let keys = reader.keys_of_lease(words.number())?;
            let keys: Vec<String> = keys.iter().map(|key| text(key)).collect();
            if keys.is_empty() { "none".into() } else { keys.join(" ") }
        }
        "revision" => format!("{} compact {}", reader.revision()?, reader.compact_revision()?),
        "live" => reader.live_bytes()?.to_string(),
        "purge" => format!("{:?}", world.purge()),
        "checkpoint" => {
            world.checkpoint();
            "ok".into()
        }
        _ => panic!("not a request: {line}"),
    })
}

fn stream(reader: &Reader, words: &mut Words<'_>) -> Result<String, OpError> {
    let keys = words.range();
    let chunk = words.number() as usize;
    let op = words.options(RangeOp::new(keys));
    let mut stream = reader.range_stream(&op)?;
    let mut out = Vec::new();
    while let Some(chunk) = reader.range_chunk(&mut stream, chunk)? {
        let kvs: Vec<String> = chunk.kvs.iter().map(|kv| show_kv(kv)).collect();
        out.push(format!("[{}]", kvs.join(" ")));
        if let Some(totals) = chunk.totals {
            let more = if totals.more { " more" } else { "" };
            out.push(format!("rev {} count {}{more}", totals.revision, totals.count));
        }
    }
    Ok(out.join(" "))
}

fn history(reader: &Reader, words: &mut Words<'_>) -> Result<String, OpError> {
    let ranges: Vec<KeyRange> = words.next().split(',').map(range).collect();
    let from = words.number();
    let budget = HistoryBudget { entries: 1000, revisions: 1000, bytes: 1 << 20 };
    let done = reader.history(&ranges, from, i64::MAX, budget)?;
    let mut out = Vec::new();
    for revision in &done.revisions {
        let events = revision.events.iter().map(|event| {
            let kind = if event.kind == EventKind::Put { "PUT" } else { "DELETE" };
            let prev = event.prev.map_or(String::new(), |prev| format!(" after {prev}"));
            format!("{kind} {}.{} {}{prev}", revision.main, event.sub, show_kv(&event.kv))
        });
        out.extend(events);
    }
    out.push(format!("next {}", done.next));
    Ok(out.join("; "))
}

/// The words of a line, each looked at once.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Words { words: line.split_whitespace().collect(), at: 0 }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek().unwrap_or_else(|| panic!("a word is missing: {:?}", self.words));
        self.at += 1;
        word
    }

    fn back(&mut self) -> &mut Self {
        self.at -= 1;
        self
    }

    fn skip(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    fn number(&mut self) -> i64 {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
    }

    fn range(&mut self) -> KeyRange {
        range(self.next())
    }

    /// Whether the op under way goes on.
    fn in_op(&self) -> bool {
        self.peek().is_some_and(|word| !matches!(word, ";" | "|" | ")"))
    }

    fn op(&mut self) -> Op {
        match self.next() {
            "put" => Op::Put(self.put()),
            "del" => {
                let keys = self.range();
                Op::Delete(DeleteOp { keys, prev_kv: self.skip("prev") })
            }
            "get" => {
                let keys = self.range();
                Op::Range(self.options(RangeOp::new(keys)))
            }
            "txn" => {
                let nested = self.skip("(");
                let txn = self.txn();
                assert!(!nested || self.skip(")"), "no ) where it belongs: {:?}", self.words);
                Op::Txn(txn)
            }
            word => panic!("not an op: {word}"),
        }
    }

    fn put(&mut self) -> PutOp {
        let key = bytes(self.next());
        let value = match self.next() {
            "~" => None,
            word => Some(bytes(word)),
        };
        let mut op = PutOp { key, value, lease: Some(0), prev_kv: false };
        while self.in_op() {
            match self.next() {
                "prev" => op.prev_kv = true,
                "lease=~" => op.lease = None,
                word => match word.strip_prefix("lease=").map(str::parse) {
                    Some(Ok(lease)) => op.lease = Some(lease),
                    _ => panic!("not an option of put: {word}"),
                },
            }
        }
        op
    }

    fn options(&mut self, mut op: RangeOp) -> RangeOp {
        while self.in_op() {
            let word = self.next();
            let value = || word.split(['=', ':']).nth(1).unwrap_or_default();
            let number = || value().parse().unwrap_or_else(|_| panic!("not a number: {word}"));
            match word.split(['=', ':']).next().unwrap_or_default() {
                "limit" => op.limit = number(),
                "asc" => (op.sort_order, op.sort_target) = (SortOrder::Ascend, target(value())),
                "desc" => (op.sort_order, op.sort_target) = (SortOrder::Descend, target(value())),
                "by" => (op.sort_order, op.sort_target) = (SortOrder::None, target(value())),
                "keys" => op.keys_only = true,
                "count" => op.count_only = true,
                "min_mod" => op.min_mod = number(),
                "max_mod" => op.max_mod = number(),
                "min_create" => op.min_create = number(),
                "max_create" => op.max_create = number(),
                _ => match word.strip_prefix('@').map(str::parse) {
                    Some(Ok(revision)) => op.revision = revision,
                    _ => panic!("not an option of get: {word}"),
                },
            }
        }
        op
    }

    fn txn(&mut self) -> TxnOp {
        let mut txn = TxnOp::default();
        if self.skip("?") {
            loop {
                txn.compares.push(compare(self.next()));
                if !self.skip("&") {
                    break;
                }
            }
        }
        assert!(self.skip(":"), "no : where it belongs: {:?}", self.words);
        txn.success = self.ops();
        if self.skip("|") {
            txn.failure = self.ops();
        }
        txn
    }

    fn ops(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        while self.in_op() {
            ops.push(self.op());
            self.skip(";");
        }
        ops
    }
}

fn bytes(word: &str) -> Bytes {
    if word == "\"\"" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}

fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() { "\"\"".into() } else { String::from_utf8_lossy(bytes).into_owned() }
}

fn range(word: &str) -> KeyRange {
    match word.split_once("..") {
        None => KeyRange { key: bytes(word), end: RangeEnd::Single },
        Some((key, "")) => KeyRange { key: bytes(key), end: RangeEnd::FromKey },
        Some((key, end)) => KeyRange { key: bytes(key), end: RangeEnd::Until(bytes(end)) },
    }
}

fn target(word: &str) -> SortTarget {
    match word {
        "key" => SortTarget::Key,
        "version" => SortTarget::Version,
        "create" => SortTarget::Create,
        "mod" => SortTarget::Mod,
        "value" => SortTarget::Value,
        _ => panic!("not a target: {word}"),
    }
}

fn compare(word: &str) -> Compare {
    let parse = || {
        let (target, rest) = word.split_once('(')?;
        let (keys, rest) = rest.split_once(')')?;
        let split = rest.find(|c| !"!=<>~".contains(c)).unwrap_or(rest.len());
        let (relation, operand) = rest.split_at(split);
        let number = operand.parse().unwrap_or_default();
        let target = match target {
            "ver" => CompareTarget::Version(number),
            "create" => CompareTarget::Create(number),
            "mod" => CompareTarget::Mod(number),
            "lease" => CompareTarget::Lease(number),
            "val" => CompareTarget::Value(bytes(operand)),
            "unknown" => CompareTarget::Unknown,
            _ => return None,
        };
        let result = match relation {
            "=" => CompareResult::Equal,
            "!=" => CompareResult::NotEqual,
            ">" => CompareResult::Greater,
            "<" => CompareResult::Less,
            "~" => CompareResult::Unknown,
            _ => return None,
        };
        Some(Compare { keys: range(keys), target, result })
    };
    parse().unwrap_or_else(|| panic!("not a compare: {word}"))
}

/// An answer; ranges of transactions are answered now.
fn shown(reader: &Reader, done: &OpDone) -> Result<String, OpError> {
    Ok(match done {
        OpDone::Put(done) => show_put(done),
        OpDone::Delete(done) => show_delete(done),
        OpDone::Range(deferred) => show_range(&reader.range_deferred(deferred)?),
        OpDone::Txn(done) => show_txn(reader, done)?,
    })
}

fn show_txn(reader: &Reader, done: &TxnDone) -> Result<String, OpError> {
    let parts = done.responses.iter().map(|done| shown(reader, done));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let branch = if done.succeeded { "then" } else { "else" };
    Ok(format!("rev {} {branch} ({})", done.revision, parts.join("; ")))
}

fn show_put(done: &PutDone) -> String {
    let prev = done.prev_kv.as_ref().map_or(String::new(), |kv| format!(" prev {}", show_kv(kv)));
    format!("rev {}{prev}", done.revision)
}

fn show_delete(done: &DeleteDone) -> String {
    let prev: String = done.prev_kvs.iter().map(|kv| format!(" {}", show_kv(kv))).collect();
    format!("rev {} deleted {}{prev}", done.revision, done.deleted)
}

fn show_range(done: &RangeDone) -> String {
    let kvs: Vec<String> = done.kvs.iter().map(|kv| show_kv(kv)).collect();
    let more = if done.more { " more" } else { "" };
    format!("rev {} [{}] count {}{more}", done.revision, kvs.join(" "), done.count)
}

/// `key=value(create,mod,version)`, and the lease if there is one.
pub fn show_kv(message: &[u8]) -> String {
    let kv = KvRef::decode(message).expect("a pair of the store");
    let lease = if kv.lease == 0 { String::new() } else { format!(",l{}", kv.lease) };
    let figures = format!("{},{},{}{lease}", kv.create, kv.modified, kv.version);
    format!("{}={}({figures})", text(kv.key), text(kv.value))
}
