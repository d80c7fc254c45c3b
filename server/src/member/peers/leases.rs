// SPDX-License-Identifier: Apache-2.0
//! Leases that a member asks its leader about: only a leader knows when they end (RT-11).
//!
//! Owns      the two paths of the peer port for that, and the asking.
//! Holds     a leader answers only after it made sure that it leads.
//! Never     keeps a time.

use super::{
    super::{Caller, Member, Refusal},
    http::reply,
};
use crate::{failpoints::pass, front::body::Body};
use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use cairn_proto::{errors, etcdserverpb as pb, leasepb};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::Message;
use std::{sync::atomic::Ordering, time::Duration};

const RENEW: &str = "/leases";
const TIME_LEFT: &str = "/leases/internal";
const REQUEST_BYTES_MAX: usize = 64 << 10;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
/// One try; there may be another leader by then.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);

/// Whether a path is one of these.
pub fn is_ours(path: &str) -> bool {
    path == RENEW || path == TIME_LEFT
}

/// Serves a request of a peer.
pub async fn serve(member: &Member, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let renews = request.uri().path() == RENEW;
    let body = match Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return reply(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n");
        }
        Err(_) => return reply(StatusCode::BAD_REQUEST, "error reading body\n"),
    };
    let answered = if renews { renew(member, &body).await } else { time_left(member, &body).await };
    match answered {
        Ok(bytes) => {
            let mut response = reply(StatusCode::OK, bytes);
            response.headers_mut().insert(header::CONTENT_TYPE, PROTOBUF);
            response
        }
        Err((status, text)) => reply(status, format!("{text}\n")),
    }
}

/// What is told of a lease, or why not.
type Told = Result<Vec<u8>, (StatusCode, &'static str)>;

const NO_REQUEST: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "error unmarshalling request");
const NO_LEASE: (StatusCode, &str) = (StatusCode::NOT_FOUND, "lease not found");

/// Why a lease is not told of, by `/leases`, whose refusals are the caller's fault, or by the other path.
fn refused(refusal: Refusal, status: StatusCode) -> (StatusCode, &'static str) {
    match refusal {
        errors::TIMEOUT => {
            (StatusCode::REQUEST_TIMEOUT, "waiting for node to catch up its applied index has timed out")
        }
        other => (status, other.text),
    }
}

async fn renew(member: &Member, body: &[u8]) -> Told {
    let pb::LeaseKeepAliveRequest { id } = Message::decode(body).map_err(|_| NO_REQUEST)?;
    let ttl = member.renew_here(id).await.map_err(|refusal| refused(refusal, StatusCode::BAD_REQUEST))?;
    if ttl == 0 {
        return Err(NO_LEASE);
    }
    Ok(pb::LeaseKeepAliveResponse { id, ttl, ..Default::default() }.encode_to_vec())
}

async fn time_left(member: &Member, body: &[u8]) -> Told {
    let request: leasepb::LeaseInternalRequest = Message::decode(body).map_err(|_| NO_REQUEST)?;
    let asked = request.lease_time_to_live_request.ok_or(NO_REQUEST)?;
    let failed = |refusal| refused(refusal, StatusCode::INTERNAL_SERVER_ERROR);
    if !member.leads() {
        return Err(failed(errors::NOT_PRIMARY));
    }
    // Only one that leads knows when a lease ends (R18).
    member.linearize().await.map_err(failed)?;
    pass!("beforeLookupWhenForwardLeaseTimeToLive");
    // Whose rights count is known to the member that was asked, which looks at what comes back (AUTH-8).
    let response = member.called_by(Caller::Itself).time_to_live_here(asked).await.map_err(failed)?;
    if response.ttl < 0 {
        return Err(NO_LEASE);
    }
    Ok(leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(response) }.encode_to_vec())
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
            let (reach, kept) = (&self.shared.config.reach, &self.shared.peers.to_leader);
            match kept.ask(reach, &url, path, body.clone(), PATIENCE).await {
                Ok(answer) if answer.status == StatusCode::OK => return Some(Some(answer.body)),
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Some(None),
                Ok(_) | Err(_) => {}
            }
        }
        tokio::time::sleep(RETRY).await;
        None
    }
}
