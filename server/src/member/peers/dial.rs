// SPDX-License-Identifier: Apache-2.0
//! The sending end of a way to a peer.
//!
//! Owns      the connection, the handshake, and when to try again.
//! Holds     a connection is used only after the peer said that it is who was meant, of our cluster.
//! Never     keeps a message of a connection that broke.

use super::{
    super::{
        Level,
        config::Ended,
        shared::{ReplicaMessage, Shared},
    },
    Peer, Way,
    accept::REMOVED,
    http::Answer,
    reach::{Connection, Reach, ReachError, Said},
    wire::{Batch, FrameError, Frames, Hello, PROTOCOLS, TALK, Welcome, body, frame},
};
use ::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use cairn_core::ClusterId;
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Between two tries.
const RETRY: Duration = Duration::from_millis(100);
/// The same where certificates, or the other end's opinion of them, have to change first.
const RETRY_LASTING: Duration = Duration::from_secs(1);
/// A connection and its handshake take no longer.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A peer that answers no ping for as long is gone.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_PATIENCE: Duration = Duration::from_secs(3);
const WINDOW_BYTES: u32 = 8 << 20;
/// Frames between the queue and the connection.
const FRAMES_AHEAD: usize = 2;
/// The text of a refusal, and the frames of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 10;

pub(super) type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("no answer in time")]
    Late,
    #[error("it refused: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("it is member {member_id:x} of cluster {cluster_id:x}")]
    Other { cluster_id: u64, member_id: u64 },
    #[error("it answers in version {0} of the peer protocol, which is not spoken here")]
    Protocol(u32),
    #[error("the connection ended")]
    Ended,
}

impl DialError {
    /// The peer knows that this member was removed (CL-5).
    fn is_removal(&self) -> bool {
        matches!(self, DialError::Refused { status: StatusCode::FORBIDDEN, text } if text == REMOVED)
    }

    /// Somebody has to do something before it can be otherwise: a try costs both ends more than it is worth.
    fn is_lasting(&self) -> bool {
        match self {
            DialError::Reach(ReachError::Tls(refused)) => refused.has_advice(),
            DialError::Reach(ReachError::Untrusted(_) | ReachError::Url(_)) => true,
            DialError::Refused { status, .. } => {
                matches!(*status, StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND)
            }
            _ => false,
        }
    }
}

/// A connection that a request can be sent on; it ends with this.
pub(super) struct Line {
    send: SendRequest<RequestBody>,
    authority: String,
    said: Said,
    driver: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Line {
    pub async fn open(reach: &Reach, url: &str) -> Result<Line, ReachError> {
        let Connection { stream, authority, said } = reach.connect(url, "h2").await?;
        let (send, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| said.explain(ReachError::Http(error)))?;
        // Requests see its error as their own.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Line { send, authority, said, driver })
    }

    /// Whether the other end is still there, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.send.is_closed()
    }

    /// Sends a message and gives what answers it, beside any number of others.
    pub async fn ask(&self, path: &str, body: Bytes) -> Result<Answer, ReachError> {
        let request = Request::post(format!("http://{}{path}", self.authority))
            .header(header::CONTENT_TYPE, "application/protobuf")
            .body(Full::new(body).boxed_unsync())
            .map_err(io::Error::other)?;
        let answered = async {
            let mut send = self.send.clone();
            send.ready().await?;
            Answer::read(send.send_request(request).await?).await
        };
        answered.await.map_err(|error| self.said.explain(error))
    }

    /// Sends a request whose frames come out of `frames`, and gives what answers it.
    pub async fn request(
        &mut self,
        path: &str,
        frames: mpsc::Receiver<Bytes>,
    ) -> Result<Response<Incoming>, DialError> {
        let request = Request::post(format!("http://{}{path}", self.authority))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(body(frames).boxed_unsync())
            .map_err(|error| ReachError::Io(io::Error::other(error)))?;
        let response = self.send.send_request(request).await;
        let response = response.map_err(|error| self.said.explain(ReachError::Http(error)))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        Err(DialError::Refused { status, text: text.unwrap_or_default() })
    }
}

pub(super) fn hello(shared: &Shared, to: u64, transfer: u64) -> Hello {
    let peer_urls = shared.own_peer_urls();
    Hello { transfer, peer_urls, ..Hello::new(shared.cluster_id.0, shared.member_id.0, to) }
}

/// The first frame of the answer, which has to be of member `to` of this cluster.
pub(super) async fn welcome(
    cluster: ClusterId,
    to: u64,
    response: Response<Incoming>,
) -> Result<(Welcome, Frames<Incoming>), DialError> {
    let mut answers = Frames::new(response.into_body(), ANSWER_BYTES_MAX);
    let welcome: Welcome = answers.expect().await?;
    let Welcome { cluster_id, member_id, protocol, .. } = welcome;
    if (cluster_id, member_id) != (cluster.0, to) {
        return Err(DialError::Other { cluster_id, member_id });
    }
    if !PROTOCOLS.contains(&protocol) {
        return Err(DialError::Protocol(protocol));
    }
    Ok((welcome, answers))
}

/// Keeps one way to a peer open, until the member ends.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, way: Way) {
    let mut turn = 0;
    let mut told = None;
    while !shared.is_ended() {
        let urls = peer.urls();
        let Some(url) = urls.get(turn % urls.len().max(1)) else {
            // An update of the member may give it some (CL-6).
            tokio::time::sleep(RETRY).await;
            continue;
        };
        turn += 1;
        let error = match talk(&shared, &peer, way, url).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if peer.outbox(way).queue().open.is_some() {
            peer.outbox(way).set_open(false);
            peer.figures.disconnects.fetch_add(1, Relaxed);
            // A closed queue means that the member ends.
            shared.replica.push(ReplicaMessage::Unreachable(peer.id)).ok();
            told = None;
        }
        if error.is_removal() {
            shared.end(Ended::Removed);
            return;
        }
        let text = error.to_string();
        if way == Way::Urgent && told.as_ref() != Some(&text) {
            let fields =
                [("remote-peer-id", format!("{:x}", peer.id)), ("url", url.clone()), ("error", text.clone())];
            shared.log(Level::Warn, "no connection to a peer", &fields);
            told = Some(text);
        }
        tokio::time::sleep(if error.is_lasting() { RETRY_LASTING } else { RETRY }).await;
    }
}

async fn talk(shared: &Shared, peer: &Peer, way: Way, url: &str) -> Result<Infallible, DialError> {
    let (frames, out) = mpsc::channel(FRAMES_AHEAD);
    let opening = async {
        let mut line = Line::open(&shared.config.reach, url).await?;
        // There is room: it is the first.
        frames.send(frame(&hello(shared, peer.id, 0))).await.ok();
        let response = line.request(TALK, out).await?;
        let (welcome, answers) = welcome(shared.cluster_id, peer.id, response).await?;
        Ok::<_, DialError>((line, answers, welcome.protocol))
    };
    let (_line, mut answers, protocol) = timeout(HANDSHAKE, opening).await.unwrap_or(Err(DialError::Late))?;
    let outbox = peer.outbox(way);
    outbox.set_open(true);
    if way == Way::Urgent {
        let fields = [
            ("remote-peer-id", format!("{:x}", peer.id)),
            ("url", url.to_owned()),
            ("protocol", protocol.to_string()),
        ];
        shared.log(Level::Info, "established connection to a peer", &fields);
    }
    loop {
        tokio::select! {
            messages = outbox.next() => {
                let batch = frame(&Batch { messages });
                peer.figures.sent_bytes.fetch_add(batch.len() as u64, Relaxed);
                frames.send(batch).await.map_err(|_| DialError::Ended)?;
            }
            answer = answers.next() => {
                answer?;
                return Err(DialError::Ended);
            }
        }
    }
}
