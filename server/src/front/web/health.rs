// SPDX-License-Identifier: Apache-2.0
//! `/health`, `/livez` and `/readyz`.
//!
//! Owns      the checks, and the words in which they fail.
//! Holds     they answer also while the member is starting: failing.
//! Never     is refused for want of a permission: they run with root's rights (HT-4).

use super::{NOSNIFF, TEXT, answer, error};
use crate::{
    front::{Front, body::Body},
    member::{Caller, Member},
};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{AlarmType, RangeRequest};
use http::{Response, StatusCode, header};
use std::time::Duration;
use tokio::time::timeout;

/// One check of `/livez` or `/readyz`.
pub struct Check {
    /// `livez` or `readyz`.
    pub kind: &'static str,
    pub name: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy)]
enum Probe {
    Corruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

pub const CHECKS: [Check; 5] = [
    Check { kind: "livez", name: "serializable_read", probe: Probe::SerializableRead },
    Check { kind: "readyz", name: "data_corruption", probe: Probe::Corruption },
    Check { kind: "readyz", name: "serializable_read", probe: Probe::SerializableRead },
    Check { kind: "readyz", name: "linearizable_read", probe: Probe::LinearizableRead },
    Check { kind: "readyz", name: "non_learner", probe: Probe::NonLearner },
];

pub const STARTING: &str = "the member is starting";

/// HT-2.
pub async fn health(front: &Front, query: Option<&str>) -> Response<Body> {
    let reason = match front.member() {
        None => Some("RAFT NO LEADER".to_owned()),
        Some(member) => health_reason(front, member, query.unwrap_or("")).await,
    };
    match reason {
        None => {
            front.metrics.health_good.add(1);
            answer(StatusCode::OK, TEXT, "{\"health\":\"true\",\"reason\":\"\"}")
        }
        Some(reason) => {
            front.metrics.health_bad.add(1);
            front.log.warn("serving /health false", &[("reason", reason.as_str().into())]);
            let reason = serde_json::Value::from(reason);
            error(StatusCode::SERVICE_UNAVAILABLE, &format!("{{\"health\":\"false\",\"reason\":{reason}}}"))
        }
    }
}

async fn health_reason(front: &Front, member: &Member, query: &str) -> Option<String> {
    let serializable = values(query, "serializable").next().as_deref() == Some("true");
    let excluded: Vec<String> = values(query, "exclude").collect();
    let status = member.status();
    for alarm in &status.alarms {
        let name = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE",
            AlarmType::Corrupt => "CORRUPT",
            AlarmType::None => "UNKNOWN",
        };
        if !excluded.iter().any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && status.leader == 0 {
        return Some("RAFT NO LEADER".into());
    }
    let limit = Duration::from_millis(5_000 + 2 * front.config.election_ms);
    match timeout(limit, read(member, serializable)).await {
        Ok(Ok(())) => None,
        Ok(Err(text)) => Some(format!("RANGE ERROR:{text}")),
        Err(_) => Some("RANGE ERROR:context deadline exceeded".into()),
    }
}

/// One key, no value.
async fn read(member: &Member, serializable: bool) -> Result<(), String> {
    let zero = Bytes::from_static(b"\0");
    let request = RangeRequest {
        key: zero.clone(),
        range_end: zero,
        limit: 1,
        keys_only: true,
        serializable,
        ..RangeRequest::default()
    };
    // AU-22: nobody needs to say who it is to be told that the member is well.
    let itself = member.called_by(Caller::Itself);
    itself.range(request).await.map(drop).map_err(|refusal| refusal.text.to_owned())
}

/// Whether the path is `/livez`, `/readyz`, or one check of theirs.
pub fn is_check(path: &str) -> bool {
    path == "/livez" || path == "/readyz" || CHECKS.iter().any(|check| path_of(check) == path)
}

fn path_of(check: &Check) -> String {
    format!("/{}/{}", check.kind, check.name)
}

/// HT-3.
pub async fn checks(front: &Front, path: &str, query: Option<&str>) -> Response<Body> {
    let query = query.unwrap_or("");
    let verbose = values(query, "verbose").next().is_some();
    let kind = &path[1..];
    let root = !kind.contains('/');
    let excluded: Vec<String> = if root { values(query, "exclude").collect() } else { Vec::new() };
    let mut lines = String::new();
    let mut failed = false;
    for (check, metrics) in CHECKS.iter().zip(&front.metrics.checks) {
        let asked = if root { check.kind == kind } else { path_of(check) == path };
        if !asked || excluded.iter().any(|excluded| excluded == check.name) {
            continue;
        }
        let result = match front.member() {
            Some(member) => probe(member, check.probe).await,
            None => Err(STARTING.into()),
        };
        metrics.ran(result.is_ok());
        match result {
            Ok(()) => lines += &format!("[+]{} ok\n", check.name),
            Err(reason) => {
                failed = true;
                lines += &format!("[-]{} failed: {reason}\n", check.name);
            }
        }
    }
    if failed {
        return error(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    let body = if verbose { lines + "ok\n" } else { "ok\n".into() };
    let mut response = answer(StatusCode::OK, TEXT, body);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

async fn probe(member: &Member, probe: Probe) -> Result<(), String> {
    match probe {
        Probe::SerializableRead => read(member, true).await,
        Probe::LinearizableRead => {
            // With one member such a read needs no disk; what the next write needs hangs.
            let hung = member.hung_write().borrow().as_ref().map(ToString::to_string);
            if let Some(hung) = hung { Err(hung) } else { read(member, false).await }
        }
        Probe::NonLearner if member.status().is_learner => Err("not supported for learner".into()),
        Probe::Corruption if member.status().alarms.iter().any(|a| a.alarm() == AlarmType::Corrupt) => {
            Err("alarm activated: CORRUPT".into())
        }
        Probe::NonLearner | Probe::Corruption => Ok(()),
    }
}

/// The values of a query parameter, in their order; an empty one where it stands alone.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: HT-3
    #[test]
    fn checks_have_paths_of_their_own() {
        for path in ["/livez", "/readyz", "/readyz/linearizable_read", "/livez/serializable_read"] {
            assert!(is_check(path), "{path}");
        }
        for path in ["/livez/", "/livez/linearizable_read", "/readyz/frob", "/healthz"] {
            assert!(!is_check(path), "{path}");
        }
        assert_eq!(values("exclude=a&verbose&exclude=b", "exclude").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(values("exclude=a&verbose", "verbose").collect::<Vec<_>>(), [""]);
    }
}
