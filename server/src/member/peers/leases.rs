// SPDX-License-Identifier: Apache-2.0
//! Leases that a member asks its leader about: only a leader knows when they end (RT-11).
//!
//! Owns      the two paths of the peer port for that, and the asking.
//! Holds     a leader answers only after it made sure that it leads.
//! Never     keeps a time.

use super::{
    super::{Caller, Member, Refusal},
    http,
};
use crate::front::body::Body;
use ::http::{Method, Request, Response, StatusCode};
use cairn_proto::{errors, etcdserverpb as pb, leasepb};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use prost::Message;
use std::{sync::atomic::Ordering, time::Duration};

const RENEW: &str = "/leases";
const TIME_LEFT: &str = "/leases/internal";
const REQUEST_BYTES_MAX: usize = 4 << 10;
/// One try; there may be another leader by then.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);

/// Whether a path is one of these.
pub fn is_ours(path: &str) -> bool {
    path == RENEW || path == TIME_LEFT
}

/// Serves a request of a peer.
pub async fn serve(member: &Member, request: Request<Incoming>) -> Response<Body> {
    let answer = |status: StatusCode, body: Vec<u8>| {
        let mut response = Response::new(Body::plain(body));
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED, b"Method Not Allowed\n".to_vec());
    }
    let renews = request.uri().path() == RENEW;
    let Ok(body) = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await else {
        return answer(StatusCode::BAD_REQUEST, b"error reading body\n".to_vec());
    };
    let body = body.to_bytes();
    let result = if renews { renew(member, &body).await } else { time_left(member, &body).await };
    match result {
        Ok(Some(bytes)) => answer(StatusCode::OK, bytes),
        Ok(None) => answer(StatusCode::NOT_FOUND, b"lease not found\n".to_vec()),
        Err(refusal) => answer(StatusCode::BAD_REQUEST, format!("{}\n", refusal.text).into_bytes()),
    }
}

/// `None` if the lease is not there.
async fn renew(member: &Member, body: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let Ok(pb::LeaseKeepAliveRequest { id }) = Message::decode(body) else {
        return Err(errors::UNKNOWN_METHOD);
    };
    let ttl = member.renew_here(id).await?;
    Ok((ttl > 0).then(|| pb::LeaseKeepAliveResponse { id, ttl, ..Default::default() }.encode_to_vec()))
}

async fn time_left(member: &Member, body: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let request: Option<leasepb::LeaseInternalRequest> = Message::decode(body).ok();
    let Some(asked) = request.and_then(|r| r.lease_time_to_live_request) else {
        return Err(errors::UNKNOWN_METHOD);
    };
    if !member.leads() {
        return Err(errors::NOT_LEADER);
    }
    // Whose rights count is known to the member that was asked, which looks at what comes back (AUTH-8).
    let response = member.called_by(Caller::Itself).time_to_live_here(asked).await?;
    let found = response.ttl >= 0;
    let response = leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(response) };
    Ok(found.then(|| response.encode_to_vec()))
}

impl Member {
    pub(in super::super) fn leads(&self) -> bool {
        self.shared.raft.leads.load(Ordering::Acquire)
    }

    /// Whether there are others of which one may lead.
    pub(in super::super) fn has_peers(&self) -> bool {
        self.shared.peers.counts().0 > 0
    }

    /// The TTL of a lease that the leader renewed, 0 if it does not know it; `None` if there is no answer, and
    /// another leader may give one soon.
    pub(in super::super) async fn renew_at_leader(&self, id: i64) -> Option<i64> {
        let body = pb::LeaseKeepAliveRequest { id }.encode_to_vec();
        match self.ask_leader(RENEW, body).await? {
            None => Some(0),
            Some(answer) => Some(pb::LeaseKeepAliveResponse::decode(&answer[..]).ok()?.ttl),
        }
    }

    /// What the leader says of a lease: `Some(None)` if it does not know it.
    pub(in super::super) async fn time_left_at_leader(
        &self,
        asked: pb::LeaseTimeToLiveRequest,
    ) -> Option<Option<pb::LeaseTimeToLiveResponse>> {
        let request = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(asked) };
        match self.ask_leader(TIME_LEFT, request.encode_to_vec()).await? {
            None => Some(None),
            Some(answer) => {
                let answer = leasepb::LeaseInternalResponse::decode(&answer[..]).ok()?;
                Some(Some(answer.lease_time_to_live_response?))
            }
        }
    }

    async fn ask_leader(&self, path: &str, body: Vec<u8>) -> Option<Option<bytes::Bytes>> {
        let leader = self.shared.raft.leader.load(Ordering::Acquire);
        let body = bytes::Bytes::from(body);
        for url in self.shared.peers.urls_of(leader) {
            let headers = [("content-type", "application/protobuf".to_owned())];
            let answer = http::ask(&url, Method::POST, path, &headers, body.clone(), PATIENCE).await;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK => return Some(Some(answer.body)),
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Some(None),
                Ok(_) | Err(_) => {}
            }
        }
        tokio::time::sleep(RETRY).await;
        None
    }
}
