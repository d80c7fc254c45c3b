// SPDX-License-Identifier: Apache-2.0
//! Members of a cluster as members tell each other over plain HTTP, and as a new one asks for them.
//!
//! Owns      the form of their records (CL-15), and the paths of the peer port for promotions and hashes.
//! Holds     bodies are bounded; what cannot be read is no answer.
//! Never     decides about a membership.

use super::{
    super::{Caller, Member},
    hashes::Which,
    http::{self, Answer, reply},
    reach::{Reach, ReachError},
};
use crate::front::body::Body;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use cairn_mvcc::HashDone;
use cairn_proto::{errors, etcdserverpb as pb};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{io, time::Duration};

/// Where the records are.
pub const MEMBERS: &str = "/members";
const PROMOTE: &str = "/members/promote";
pub(super) const HASH_KV: &str = "/members/hashkv";
pub const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// A promotion goes through the log of the leader.
const PROMOTE_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a path is one of these, but for the records themselves.
pub fn is_ours(path: &str) -> bool {
    path == HASH_KV || path == PROMOTE || path.strip_prefix(PROMOTE).is_some_and(|id| id.starts_with('/'))
}

/// Serves a request of a peer.
pub async fn serve(member: &Member, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let mut response = match path.strip_prefix(PROMOTE) {
        Some("") => {
            let mut response = reply(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/members/promote/"));
            response
        }
        Some(id) if request.method() == Method::POST => promote(member, &id[1..], request.headers()).await,
        None if request.method() == Method::GET => hash_kv(member, request).await,
        promote => {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            let allowed = HeaderValue::from_static(if promote.is_some() { "POST" } else { "GET" });
            response.headers_mut().insert(header::ALLOW, allowed);
            response
        }
    };
    let id = HeaderValue::from_str(&member.cluster_id().to_string()).expect("hex digits");
    response.headers_mut().insert(CLUSTER_ID, id);
    response
}

async fn promote(member: &Member, id: &str, headers: &HeaderMap) -> Response<Body> {
    let Ok(id) = id.parse() else {
        return reply(StatusCode::NOT_FOUND, format!("member {id} not found in cluster\n"));
    };
    let token = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let member = member.called_by(token.map_or(Caller::Nobody, Caller::with_token));
    let promoted = async {
        member.check_root().await?;
        member.promote_here(id).await
    };
    match promoted.await {
        Ok(members) => json_reply(format!("{}\n", records(members))),
        Err(errors::MEMBER_NOT_FOUND) => reply(StatusCode::NOT_FOUND, "membership: ID not found\n"),
        Err(errors::MEMBER_NOT_LEARNER) => {
            let text = "membership: can only promote a learner member\n";
            reply(StatusCode::PRECONDITION_FAILED, text)
        }
        Err(errors::LEARNER_NOT_READY) => {
            let text = format!("{}\n", errors::LEARNER_NOT_READY.text);
            reply(StatusCode::PRECONDITION_FAILED, text)
        }
        Err(_) => {
            let mut response = json_reply("{\"message\":\"Internal Server Error\"}");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// CO-2.
async fn hash_kv(member: &Member, request: Request<Incoming>) -> Response<Body> {
    let given = request.headers().get(CLUSTER_ID).map(|id| id.as_bytes().to_vec());
    if given.is_some_and(|id| !id.is_empty() && id != member.cluster_id().to_string().as_bytes()) {
        return reply(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    let Ok(body) = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await else {
        return reply(StatusCode::BAD_REQUEST, "error reading body\n");
    };
    let body: Option<Value> = serde_json::from_slice(&body.to_bytes()).ok().filter(Value::is_object);
    let Some(body) = body else {
        return reply(StatusCode::BAD_REQUEST, "error unmarshalling request\n");
    };
    let revision = body["revision"].as_i64().unwrap_or_default();
    // etcd's members have no choice (HASH-10).
    let which = match body["remembered"].as_bool() {
        Some(true) => Some(Which::Remembered),
        Some(false) => Some(Which::Anew),
        None => None,
    };
    match member.hash_for_peer(revision, which).await {
        Ok(done) => json_reply(hash_json(&done).to_string()),
        Err(refusal) => {
            let text = refusal.text.strip_prefix("etcdserver: ").unwrap_or(refusal.text);
            reply(StatusCode::BAD_REQUEST, format!("{text}\n"))
        }
    }
}

fn hash_json(done: &HashDone) -> Value {
    json!({
        "header": { "revision": done.revision },
        "hash": done.hash,
        "compact_revision": done.compact_revision,
        "hash_revision": done.hash_revision,
    })
}

fn json_reply(body: impl Into<Bytes>) -> Response<Body> {
    let mut response = reply(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Records with etcd's keys in etcd's order; what is empty is left out.
pub fn records(members: Vec<pb::Member>) -> String {
    let records: Vec<String> = members.into_iter().map(record).collect();
    format!("[{}]", records.join(","))
}

fn record(member: pb::Member) -> String {
    let mut record = format!("{{\"id\":{},\"peerURLs\":{}", member.id, Value::from(member.peer_urls));
    if member.is_learner {
        record += ",\"isLearner\":true";
    }
    if !member.name.is_empty() {
        record += &format!(",\"name\":{}", Value::from(member.name));
    }
    if !member.client_urls.is_empty() {
        record += &format!(",\"clientURLs\":{}", Value::from(member.client_urls));
    }
    record + "}"
}

/// Records as [`records`] writes them; `None` for anything else.
pub fn parse(text: &[u8]) -> Option<Vec<pb::Member>> {
    let urls = |value: &Value| -> Vec<String> {
        let urls = value.as_array().map(Vec::as_slice).unwrap_or_default();
        urls.iter().filter_map(|url| Some(url.as_str()?.to_owned())).collect()
    };
    let member = |value: &Value| {
        Some(pb::Member {
            id: value["id"].as_u64()?,
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            peer_urls: urls(&value["peerURLs"]),
            client_urls: urls(&value["clientURLs"]),
            is_learner: value["isLearner"].as_bool().unwrap_or_default(),
        })
    };
    serde_json::from_slice::<Value>(text).ok()?.as_array()?.iter().map(member).collect()
}

/// The records that the member at `url` has, and the id of its cluster.
///
/// # Errors
/// If it does not answer, or something else.
pub async fn ask_for_members(
    reach: &Reach,
    url: &str,
    patience: Duration,
) -> Result<(Vec<pb::Member>, u64), ReachError> {
    let answer = http::ask(reach, url, Method::GET, MEMBERS, &[], Bytes::new(), patience).await?;
    let cluster = answer.headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok());
    let cluster = cluster.and_then(|id| u64::from_str_radix(id, 16).ok());
    let members = parse(&answer.body).filter(|_| answer.status == StatusCode::OK);
    members.zip(cluster).ok_or_else(|| {
        ReachError::Io(io::Error::other(format!("{} to {MEMBERS}: it is no member that runs", answer.status)))
    })
}

/// Has the leader at `url` promote a learner.
///
/// # Errors
/// If it does not answer.
pub async fn ask_to_promote(
    reach: &Reach,
    url: &str,
    id: u64,
    token: Option<&str>,
) -> Result<Answer, ReachError> {
    let headers: Vec<_> = token.map(|token| ("authorization", token.to_owned())).into_iter().collect();
    let path = format!("{PROMOTE}/{id}");
    http::ask(reach, url, Method::POST, &path, &headers, Bytes::new(), PROMOTE_PATIENCE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: CL-15
    #[test]
    fn records_have_etcds_keys_and_come_back() {
        let members = vec![
            pb::Member { id: u64::MAX, peer_urls: vec!["http://a:1".into()], ..Default::default() },
            pb::Member {
                id: 2,
                name: "n\"2".into(),
                peer_urls: vec!["http://b:1".into(), "http://b:2".into()],
                client_urls: vec!["http://b:3".into()],
                is_learner: true,
            },
        ];
        let text = records(members.clone());
        let expected = concat!(
            "[{\"id\":18446744073709551615,\"peerURLs\":[\"http://a:1\"]},",
            "{\"id\":2,\"peerURLs\":[\"http://b:1\",\"http://b:2\"],\"isLearner\":true,\"name\":\"n\\\"2\",",
            "\"clientURLs\":[\"http://b:3\"]}]"
        );
        assert_eq!(text, expected);
        assert_eq!(parse(text.as_bytes()), Some(members));
        for other in ["", "{}", "[{}]", "[1]", "null"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
