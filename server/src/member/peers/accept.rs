// SPDX-License-Identifier: Apache-2.0
//! The receiving end of what peers send.
//!
//! Owns      the judgement of a handshake, and the reading of messages.
//! Holds     1. nothing is read before the peer said who it is, and that it means this member of this cluster, and
//!              was found to be a member of it;
//!           2. every message is from the member whose connection it came over;
//!           3. reading stops while what arrived is not taken in;
//!           4. what no member sends ends its connection, and nothing else.
//! Never     looks into a message: the replica judges it.

use super::{
    super::{
        Member,
        config::MemberConfig,
        removed::Standing,
        shared::{ReplicaMessage, Shared},
    },
    figures::Figures,
    repair, snapshot, vouch,
    wire::{Batch, FrameError, Frames, Hello, PROTOCOLS, RESEND, SNAPSHOT, TALK, Welcome, body, frame},
};
use crate::front::body::Body;
use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use cairn_core::{ClusterId, MemberId};
use hyper::body::Incoming;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

/// The first frame comes within this.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(2);
/// And is no larger than this.
pub(super) const HELLO_BYTES_MAX: usize = 64 << 10;

/// What a member is told that was removed, in etcd's words.
pub(super) const REMOVED: &str = "cannot process message from removed member";

/// Why a peer is not listened to.
pub(super) struct Refusal(pub StatusCode, pub String);

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<Refusal> for Response<Body> {
    fn from(Refusal(status, text): Refusal) -> Response<Body> {
        let mut response = Response::new(Body::plain(format!("{text}\n")));
        *response.status_mut() = status;
        response
    }
}

/// Whether a path is one of the peer service.
pub fn is_ours(path: &str) -> bool {
    path == TALK || path == SNAPSHOT || path == RESEND
}

/// Serves a request of a peer.
pub async fn serve(member: &Member, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return Refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned()).into();
    }
    let shared = &member.shared;
    let path = request.uri().path().to_owned();
    let mut frames = Frames::new(request.into_body(), HELLO_BYTES_MAX);
    let mut from = None;
    let greeted = async {
        let hello = hear(&mut frames).await?;
        from = Some(hello.from);
        admit(shared, &hello).await?;
        Ok::<_, Refusal>(hello)
    };
    let hello = match greeted.await {
        Ok(hello) => hello,
        Err(refusal) => {
            shared.peers.refuse_caller(shared, from, &refusal.1);
            return refusal.into();
        }
    };
    frames.allow(frame_bytes_max(&shared.config));
    match &path[..] {
        TALK => talk(shared, hello, frames),
        RESEND => repair::asked(shared, &hello).await,
        _ => snapshot::receive(shared, &hello, frames).await,
    }
}

/// Bytes of a frame after the handshake.
pub(super) fn frame_bytes_max(config: &MemberConfig) -> usize {
    2 * config.max_request_bytes + (16 << 20)
}

/// Waits for the handshake.
pub(super) async fn hear(frames: &mut Frames<Incoming>) -> Result<Hello, Refusal> {
    let hello = timeout(HANDSHAKE, frames.expect::<Hello>()).await;
    Ok(hello.map_err(|_| Refusal(StatusCode::REQUEST_TIMEOUT, "no handshake".to_owned()))??)
}

/// CL-5, and what a cluster must not be told by another, nor by those who are none of it.
async fn admit(shared: &Arc<Shared>, hello: &Hello) -> Result<(), Refusal> {
    check_addressed(hello, shared.cluster_id, shared.member_id)?;
    match shared.standing_of(hello.from) {
        Standing::Member => Ok(()),
        Standing::Removed => Err(Refusal(StatusCode::FORBIDDEN, REMOVED.to_owned())),
        Standing::Unknown => vouch::admit(shared, hello).await,
    }
}

/// Whether a caller means this member of this cluster, and speaks as it does.
pub(super) fn check_addressed(hello: &Hello, cluster: ClusterId, own: MemberId) -> Result<(), Refusal> {
    if hello.cluster_id != cluster.0 {
        let text = format!("cluster ID mismatch: this is {cluster}, not {:x}", hello.cluster_id);
        return Err(Refusal(StatusCode::PRECONDITION_FAILED, text));
    }
    if hello.to != own.0 || hello.from == hello.to {
        let text = format!("cannot process message to mismatch member: this is {own}");
        return Err(Refusal(StatusCode::FORBIDDEN, text));
    }
    if hello.protocol_min > *PROTOCOLS.end() || hello.protocol_max < *PROTOCOLS.start() {
        let text = format!(
            "incompatible peer: it speaks versions {} to {} of the peer protocol, this member {PROTOCOLS:?}",
            hello.protocol_min, hello.protocol_max
        );
        return Err(Refusal(StatusCode::PRECONDITION_FAILED, text));
    }
    Ok(())
}

pub(super) fn greeting(shared: &Shared, hello: &Hello) -> Welcome {
    let (cluster_id, member_id) = (shared.cluster_id.0, shared.member_id.0);
    Welcome { cluster_id, member_id, protocol: hello.protocol(), position: None }
}

/// An answer whose frames come out of `frames`.
pub(super) fn answer(frames: mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(tonic::body::Body::new(body::<tonic::Status>(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn talk(shared: &Arc<Shared>, hello: Hello, mut frames: Frames<Incoming>) -> Response<Body> {
    let (answers, out) = mpsc::channel(1);
    let shared = shared.clone();
    tokio::spawn(async move {
        if answers.send(frame(&greeting(&shared, &hello))).await.is_err() {
            return;
        }
        let line = shared.peers.lines.open(hello.from);
        tokio::select! {
            () = read(&shared, &hello, &mut frames) => {}
            () = line.is_cut() => {}
            _ = shared.wait_ended() => {}
        }
        // The answer ends with its sender.
        drop(answers);
    });
    answer(out)
}

/// Reads until the end, or until something comes that no member sends.
async fn read(shared: &Shared, hello: &Hello, frames: &mut Frames<Incoming>) {
    let figures = shared.peers.figures_of(hello.from);
    if let Err(error) = take_in(shared, hello, frames, &figures).await {
        figures.received_failures.fetch_add(1, Relaxed);
        // A connection may break at any time.
        if !matches!(error, FrameError::Body(_)) {
            shared.peers.accuse(shared, hello.from, &error.to_string());
        }
    }
}

async fn take_in(
    shared: &Shared,
    hello: &Hello,
    frames: &mut Frames<Incoming>,
    figures: &Figures,
) -> Result<(), FrameError> {
    while let Some(bytes) = frames.next().await? {
        figures.received_bytes.fetch_add(bytes.len() as u64, Relaxed);
        // A frame is never larger than all that may wait, but for one huge request, which then waits alone.
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(super::RECEIVED_BYTES_MAX as u32);
        let Ok(room) = shared.peers.received.clone().acquire_many_owned(size).await else {
            return Ok(());
        };
        let Batch { messages } = Batch::read(bytes)?;
        #[cfg(feature = "failpoints")]
        let messages = crate::failpoints::without_heartbeats(messages);
        if let Some(m) = messages.iter().find(|m| m.from != hello.from || m.to != hello.to) {
            return Err(FrameError::OfAnother { from: m.from, to: m.to });
        }
        // What it is may have changed, as when it was removed: a new handshake tells it (CL-5).
        let goes_on = match shared.standing_of(hello.from) {
            Standing::Member => true,
            Standing::Removed => false,
            Standing::Unknown => shared.peers.get(hello.from).is_some(),
        };
        if !goes_on {
            return Ok(());
        }
        if shared.replica.push(ReplicaMessage::Received { messages, _room: room }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
