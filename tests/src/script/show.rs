// SPDX-License-Identifier: Apache-2.0
//! Answers as lines of text, every field that is not zero among them.
//!
//! Owns      the notation: `@5` is a full header of revision 5, `~5` one with only a revision, `~0` an empty
//!           one, `no header` none; a pair is `key = value (create 2 mod 3 version 2 lease 7)`.
//! Holds     two different answers give different text, but for the ids and the term of a full header, and
//!           values longer than
//!           [`SHOWN`], of which the length is told, and batches of more than [`EVENTS_SHOWN`] events.

use cairn_proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse, response_op,
};
use cairn_proto::mvccpb::{Event, KeyValue, event::EventType};
use tonic::Status;

const SHOWN: usize = 64;

/// Of more events only their number and revisions are told.
const EVENTS_SHOWN: usize = 20;

pub fn header(header: &Option<ResponseHeader>) -> String {
    match header {
        None => "no header".to_owned(),
        Some(h) => match [h.cluster_id, h.member_id, h.raft_term].map(|id| id != 0) {
            [true, true, true] => format!("@{}", h.revision),
            [false, false, false] => format!("~{}", h.revision),
            _ => format!("half a header: {h:?}"),
        },
    }
}

pub fn bytes(bytes: &[u8]) -> String {
    let plain =
        !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_graphic() && !b"\"\\()=;*~@".contains(b));
    match (bytes.len() > SHOWN, plain) {
        (true, _) => format!("{} bytes", bytes.len()),
        (false, true) => String::from_utf8_lossy(bytes).into_owned(),
        (false, false) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

pub fn pair(kv: &KeyValue) -> String {
    let KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    let lease = if *lease == 0 { String::new() } else { format!(" lease {lease}") };
    format!(
        "{} = {} (create {create_revision} mod {mod_revision} version {version}{lease})",
        bytes(key),
        bytes(value)
    )
}

fn pairs(kvs: &[KeyValue]) -> impl Iterator<Item = String> {
    kvs.iter().map(|kv| format!("  {}", pair(kv)))
}

pub fn range(r: &RangeResponse) -> Vec<String> {
    let more = if r.more { " more" } else { "" };
    let head = format!("{} count {}{more}", header(&r.header), r.count);
    std::iter::once(head).chain(pairs(&r.kvs)).collect()
}

pub fn put(r: &PutResponse) -> Vec<String> {
    std::iter::once(header(&r.header))
        .chain(r.prev_kv.iter().map(|kv| format!("  was {}", pair(kv))))
        .collect()
}

pub fn delete(r: &DeleteRangeResponse) -> Vec<String> {
    let head = format!("{} deleted {}", header(&r.header), r.deleted);
    std::iter::once(head).chain(pairs(&r.prev_kvs)).collect()
}

pub fn txn(r: &TxnResponse) -> Vec<String> {
    let mut lines = vec![format!("{} {}", header(&r.header), if r.succeeded { "then" } else { "else" })];
    let answers: Vec<Vec<String>> = r.responses.iter().map(|op| response(&op.response)).collect();
    for run in answers.chunk_by(|a, b| a == b) {
        let times = if run.len() > 2 { format!("{} times ", run.len()) } else { String::new() };
        let shown = if run.len() > 2 { 1 } else { run.len() };
        for answer in &run[..shown] {
            let lead = |i| if i == 0 { times.as_str() } else { "" };
            lines.extend(answer.iter().enumerate().map(|(i, line)| format!("  {}{line}", lead(i))));
        }
    }
    lines
}

fn response(response: &Option<response_op::Response>) -> Vec<String> {
    let (name, mut lines) = match response {
        Some(response_op::Response::ResponseRange(r)) => ("get", range(r)),
        Some(response_op::Response::ResponsePut(r)) => ("put", put(r)),
        Some(response_op::Response::ResponseDeleteRange(r)) => ("del", delete(r)),
        Some(response_op::Response::ResponseTxn(r)) => ("txn", txn(r)),
        None => ("unset", vec![String::new()]),
    };
    lines[0] = format!("{name} {}", lines[0]);
    lines
}

pub fn watch(r: &WatchResponse) -> Vec<String> {
    let mut head = format!("{} watch {}", header(&r.header), r.watch_id);
    for (is, word) in [(r.created, " created"), (r.canceled, " canceled"), (r.fragment, " fragment")] {
        if is {
            head.push_str(word);
        }
    }
    if r.compact_revision != 0 {
        head.push_str(&format!(" compacted {}", r.compact_revision));
    }
    if !r.cancel_reason.is_empty() {
        head.push_str(&format!(": {}", r.cancel_reason));
    }
    if r.events.len() > EVENTS_SHOWN {
        let revisions: Vec<i64> =
            r.events.iter().filter_map(|e| e.kv.as_ref()).map(|kv| kv.mod_revision).collect();
        let in_order = revisions.is_sorted() && revisions.len() == r.events.len();
        let [first, .., last] = revisions.as_slice() else {
            return vec![head, "  events without pairs".into()];
        };
        let order = if in_order { "in order" } else { "out of order" };
        return vec![head, format!("  {} events of revisions {first} to {last} {order}", revisions.len())];
    }
    std::iter::once(head).chain(r.events.iter().map(event)).collect()
}

fn event(e: &Event) -> String {
    let kind = match EventType::try_from(e.r#type) {
        Ok(EventType::Put) => "PUT".to_owned(),
        Ok(EventType::Delete) => "DELETE".to_owned(),
        Err(_) => format!("event {}", e.r#type),
    };
    let kv = e.kv.as_ref().map_or_else(|| "no pair".to_owned(), pair);
    let was = e.prev_kv.as_ref().map(|kv| format!(" was {}", pair(kv))).unwrap_or_default();
    format!("  {kind} {kv}{was}")
}

pub fn status(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
