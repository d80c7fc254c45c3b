// SPDX-License-Identifier: Apache-2.0
//! The hashes of their stores that a member asks its peers for.
//!
//! Owns      the question, and what is an answer to it (CO-2, HASH-20).
//! Holds     1. all peers are asked at once, and each has the same bounded time;
//!           2. what is of another cluster or another revision, or cannot be read, is no answer.
//! Never     compares: `cairn_core::divergence` does.

use super::{
    http::{self, Answer},
    members::{CLUSTER_ID, HASH_KV},
    reach::Reach,
};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use cairn_core::{ClusterId, state::ClusterView};
use cairn_mvcc::HashDone;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

/// A peer, and where it is to be asked.
pub struct Asked {
    pub id: u64,
    pub urls: Vec<String>,
}

/// All members but this one.
pub fn others(cluster: &ClusterView, own: u64) -> Vec<Asked> {
    let others = cluster.members.iter().filter(|member| member.id != own);
    let asked = others.map(|member| {
        let urls = member.raft_attributes.as_ref().map(|attributes| attributes.peer_urls.clone());
        Asked { id: member.id, urls: urls.unwrap_or_default() }
    });
    asked.collect()
}

/// Which hash is asked for. A peer that may take its choice may take the one that a compaction left, which is not
/// always the one that it comes to without (HASH-9, HASH-10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// What a compaction left, or none.
    Remembered,
    /// What the store gives now.
    Anew,
}

/// What peers are asked.
pub struct Question {
    pub reach: Reach,
    pub cluster: ClusterId,
    pub revision: i64,
    pub which: Which,
    pub patience: Duration,
}

impl Question {
    /// What each of them answers; or why there is no answer, in a few words.
    pub async fn ask(&self, peers: &[Asked]) -> Vec<(u64, Result<HashDone, String>)> {
        join_all(peers.iter().map(|peer| async move { (peer.id, self.ask_one(peer).await) })).await
    }

    async fn ask_one(&self, peer: &Asked) -> Result<HashDone, String> {
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("x-etcd-cluster-id", self.cluster.to_string()),
        ];
        let body = json!({ "revision": self.revision, "remembered": self.which == Which::Remembered });
        let body = Bytes::from(body.to_string());
        let mut why = "it has no address".to_owned();
        for url in &peer.urls {
            let (reach, body) = (&self.reach, body.clone());
            let asked = http::ask(reach, url, Method::GET, HASH_KV, &headers, body, self.patience);
            match asked.await.map_err(|error| error.to_string()).and_then(|answer| self.read(&answer)) {
                Ok(done) => return Ok(done),
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Err(why)
    }

    fn read(&self, answer: &Answer) -> Result<HashDone, String> {
        if answer.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(TOLD_BYTES)]);
            return Err(format!("{} {}", answer.status.as_u16(), text.trim_end()));
        }
        let of = answer.headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok());
        if of != Some(&self.cluster.to_string()) {
            return Err(format!("it is of cluster {}", of.unwrap_or("unknown")));
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let done = || {
            Some(HashDone {
                revision: body["header"]["revision"].as_i64()?,
                hash: u32::try_from(body["hash"].as_u64()?).ok()?,
                compact_revision: body["compact_revision"].as_i64()?,
                hash_revision: body["hash_revision"].as_i64()?,
            })
        };
        let done = done().ok_or("the answer cannot be read")?;
        if done.hash_revision != self.revision {
            return Err(format!("it answers for revision {}", done.hash_revision));
        }
        Ok(done)
    }
}

/// Of a refusal this much is told.
const TOLD_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{HeaderMap, HeaderValue};

    // rule: CO-2, HASH-20
    // R31: a foreign cluster is no answer, whatever it says.
    #[test]
    fn only_a_hash_of_this_cluster_at_this_revision_is_an_answer() {
        let cluster = ClusterId(0xab);
        let (reach, patience) = (Reach::default(), Duration::from_secs(1));
        let question = Question { reach, cluster, revision: 7, which: Which::Anew, patience };
        let read = |status: u16, id: Option<&'static str>, body: &str| {
            let mut headers = HeaderMap::new();
            if let Some(id) = id {
                headers.insert(CLUSTER_ID, HeaderValue::from_static(id));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            question.read(&Answer { status, headers, body: Bytes::from(body.to_owned()) })
        };
        let sound =
            "{\"header\":{\"revision\":9},\"hash\":4294967295,\"compact_revision\":-1,\"hash_revision\":7}";
        let done = HashDone { revision: 9, hash: u32::MAX, compact_revision: -1, hash_revision: 7 };
        assert_eq!(read(200, Some("ab"), sound), Ok(done));
        for (status, id, body, why) in [
            (412, Some("cd"), "cluster ID mismatch\n", "412 cluster ID mismatch"),
            (200, Some("cd"), sound, "it is of cluster cd"),
            (200, None, sound, "it is of cluster unknown"),
            (
                400,
                Some("ab"),
                "mvcc: required revision has been compacted\n",
                "400 mvcc: required revision has been compacted",
            ),
            (200, Some("ab"), "{\"hash\":1}", "the answer cannot be read"),
            (200, Some("ab"), &sound.replace("4294967295", "4294967296"), "the answer cannot be read"),
            (200, Some("ab"), "", "the answer cannot be read"),
            (
                200,
                Some("ab"),
                &sound.replace("hash_revision\":7", "hash_revision\":8"),
                "it answers for revision 8",
            ),
        ] {
            assert_eq!(read(status, id, body), Err(why.to_owned()), "{status} {id:?} {body}");
        }
    }
}
