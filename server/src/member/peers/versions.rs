// SPDX-License-Identifier: Apache-2.0
//! The versions that other members tell of themselves and of their cluster.
//!
//! Owns      the question `/version`, and the reading of its answer (VE-1).
//! Never     decides what follows from it.

use super::{hashes::Asked, http, reach::Reach};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use cairn_core::Version;
use futures_util::future::join_all;
use std::time::Duration;

/// Where it is asked.
pub const VERSION: &str = "/version";

/// What a member tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Of the member's own build.
    pub server: Version,
    /// Of the cluster; `None` while it is not decided.
    pub cluster: Option<Version>,
}

/// What the member at `url` tells; `None` if it does not, within `patience`.
pub async fn ask(reach: &Reach, url: &str, patience: Duration) -> Option<Told> {
    let asked = http::ask(reach, url, Method::GET, VERSION, &[], Bytes::new(), patience).await;
    read(&asked.ok().filter(|answer| answer.status == StatusCode::OK)?.body)
}

/// The same of each of these at once, at the first of its URLs that answers.
pub async fn ask_all(reach: &Reach, peers: &[Asked], patience: Duration) -> Vec<(u64, Option<Told>)> {
    let one = async |peer: &Asked| {
        for url in &peer.urls {
            if let Some(told) = ask(reach, url, patience).await {
                return (peer.id, Some(told));
            }
        }
        (peer.id, None)
    };
    join_all(peers.iter().map(one)).await
}

fn read(body: &[u8]) -> Option<Told> {
    let told: serde_json::Value = serde_json::from_slice(body).ok()?;
    let of = |key: &str| Version::parse(told[key].as_str().unwrap_or_default());
    Some(Told { server: of("etcdserver")?, cluster: of("etcdcluster") })
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: VE-1
    #[test]
    fn versions_are_read_as_members_tell_them() {
        let new = |server: (u32, u32), cluster: Option<(u32, u32)>| {
            let of = |(major, minor)| Version::new(major, minor);
            Some(Told { server: of(server), cluster: cluster.map(of) })
        };
        for (body, told) in [
            (r#"{"etcdserver":"3.7.1","etcdcluster":"3.6.0","storage":"3.6.0"}"#, new((3, 7), Some((3, 6)))),
            (r#"{"etcdserver":"3.8.0-alpha.0","etcdcluster":"not_decided"}"#, new((3, 8), None)),
            (r#"{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}"#, new((3, 5), Some((3, 5)))),
            (r#"{"etcdcluster":"3.5.0"}"#, None),
            (r#"{"etcdserver":7}"#, None),
            ("etcdserver", None),
            ("", None),
        ] {
            assert_eq!(read(body.as_bytes()), told, "{body}");
        }
    }
}
