// SPDX-License-Identifier: Apache-2.0
//! gRPC over HTTP/2: calls, their metadata and their deadlines.
//!
//! Owns      what is common to all calls: routing, `grpc-timeout`, `hasleader`, `client-api-version`, how a
//!           request is read and an answer written, and the record of a slow call.
//! Holds     1. a call that is refused never reaches the member;
//!           2. a stream ends when the process stops, when its deadline passes, and, if it asked for a
//!              leader, when there has been none for long.
//! Never     holds a lock across an await, or more of an answer than the client takes.

mod election;
pub mod ended;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
pub use maintenance::effective_quota;
pub mod message;
mod routes;
mod session;
mod slow;
pub mod status;
mod watch;

use super::{
    Front,
    body::{Body, MessageStream, Pieces},
    until_true,
};
use crate::{config::MESSAGE_OVERHEAD_BYTES, member::Member};
use bytes::Bytes;
use cairn_proto::{
    errors, etcdserverpb as pb,
    methods::{Kind, Route as AnswerRoute},
};
use ended::Ended;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use message::{Encoding, Messages, framed};
use routes::{Route, Rpc};
use slow::Subject;
use status::{GRPC_CONTENT_TYPE, INTERNAL, Status, UNIMPLEMENTED};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep_until, timeout_at},
};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// A message that answers a call.
pub enum Answer {
    Whole(Bytes),
    /// A large one, made in pieces as the client takes them, and its length.
    Pieces(Pieces, usize),
}

/// One call under way.
pub struct Call {
    front: Arc<Front>,
    member: Member,
    route: &'static Route,
    encoding: Encoding,
    deadline: Option<Instant>,
    requires_leader: bool,
    remote: Arc<str>,
}

/// Serves one call.
pub async fn serve(front: Arc<Front>, remote: Arc<str>, request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    if head.method != Method::POST {
        let text =
            format!("Received a HEADERS frame with :method {:?} which should be POST", head.method.as_str());
        let mut response = Status::new(INTERNAL, text).response();
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let Some(route) = routes::find(head.uri.path()) else {
        return unknown(head.uri.path()).response();
    };
    match Call::begin(front, remote, route, &head.headers) {
        Ok(call) => call.answer(incoming).await,
        Err(status) => status.response(),
    }
}

/// The answer to what is not gRPC on a listener that serves nothing else.
pub fn not_grpc(request: &Request<Incoming>) -> Response<Body> {
    let given = request.headers().get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let mut response =
        Status::new(INTERNAL, format!("invalid gRPC request content-type {given:?}")).response();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// A path without a method: grpc-go's three texts.
fn unknown(path: &str) -> Status {
    let parts = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    let text = match parts {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if routes::service_exists(service) => errors::unknown_method(method, service),
        Some((service, _)) => errors::unknown_service(service),
    };
    Status::new(UNIMPLEMENTED, text)
}

impl Call {
    fn begin(
        front: Arc<Front>,
        remote: Arc<str>,
        route: &'static Route,
        headers: &HeaderMap,
    ) -> Result<Call, Status> {
        let client_version = match headers.get("client-api-version") {
            None => None,
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| Status::from(errors::INVALID_CLIENT_API_VERSION))?,
            ),
        };
        front.metrics.grpc.client_request(route.method.kind == Kind::Unary, client_version);
        let encoding = Encoding::of_request(headers)?;
        let deadline = timeout_of(headers)?.map(|timeout| Instant::now() + timeout);
        let member = front.member().cloned().ok_or(errors::STOPPED)?;
        let requires_leader = headers.get("hasleader").is_some_and(|value| value.as_bytes() == b"true");
        if requires_leader && !member.has_leader() {
            return Err(errors::NO_LEADER.into());
        }
        Ok(Call { front, member, route, encoding, deadline, requires_leader, remote })
    }

    async fn answer(&self, incoming: Incoming) -> Response<Body> {
        let member = &self.member;
        match self.route.rpc {
            Rpc::Put => self.unary(incoming, |r| async move { self.whole(member.put(r).await) }).await,
            Rpc::Range => {
                self.unary(incoming, |r| async move { kv::range(member.range(r).await, self.encoding) }).await
            }
            Rpc::Txn => self.unary(incoming, |r| async move { self.whole(member.txn(r).await) }).await,
            Rpc::DeleteRange => {
                self.unary(incoming, |r| async move { self.whole(member.delete_range(r).await) }).await
            }
            Rpc::Compact => {
                self.unary(incoming, |r| async move { self.whole(member.compact(r).await) }).await
            }
            Rpc::LeaseGrant => {
                self.unary(incoming, |r| async move { self.whole(member.lease_grant(r).await) }).await
            }
            Rpc::LeaseRevoke => {
                self.unary(incoming, |r| async move { self.whole(member.lease_revoke(r).await) }).await
            }
            Rpc::LeaseTimeToLive => {
                self.unary(incoming, |r| async move { self.whole(member.lease_time_to_live(r).await) }).await
            }
            Rpc::LeaseLeases => {
                self.unary(
                    incoming,
                    |_: pb::LeaseLeasesRequest| async move { self.whole(member.leases().await) },
                )
                .await
            }
            Rpc::MemberList => {
                self.unary(incoming, |r| async move { self.whole(member.member_list(r).await) }).await
            }
            Rpc::Alarm => self.unary(incoming, |r| async move { self.whole(member.alarm(r).await) }).await,
            Rpc::HashKv => {
                let seconds = &self.front.metrics.hash_rev_seconds;
                self.unary(incoming, |r| async move { self.whole(seconds.time(member.hash_kv(r)).await) })
                    .await
            }
            Rpc::Hash => {
                let seconds = &self.front.metrics.hash_seconds;
                self.unary(incoming, |_: pb::HashRequest| async move {
                    self.whole(seconds.time(member.hash()).await)
                })
                .await
            }
            Rpc::Status => {
                self.unary(incoming, |_: pb::StatusRequest| async move {
                    self.whole::<_, Status>(Ok(maintenance::status(
                        &self.front.config,
                        &member.status(),
                        member.header(),
                    )))
                })
                .await
            }
            Rpc::Defragment => {
                self.unary(incoming, |_: pb::DefragmentRequest| async move {
                    self.whole(maintenance::defragment(&self.front, member).await)
                })
                .await
            }
            Rpc::AuthStatus => {
                self.unary(incoming, |_: pb::AuthStatusRequest| async move {
                    self.whole::<_, Status>(Ok(maintenance::auth_status(member.header())))
                })
                .await
            }
            Rpc::Authenticate => {
                self.unary(incoming, |_: pb::AuthenticateRequest| async move {
                    Err(errors::AUTH_NOT_ENABLED.into())
                })
                .await
            }
            Rpc::Lock => {
                self.waiting(incoming, |r| async move { self.whole(lock::lock(member, r).await) }).await
            }
            Rpc::Unlock => {
                self.unary(incoming, |r| async move { self.whole(lock::unlock(member, r).await) }).await
            }
            Rpc::Campaign => {
                self.waiting(incoming, |r| async move { self.whole(election::campaign(member, r).await) })
                    .await
            }
            Rpc::Proclaim => {
                self.unary(incoming, |r| async move { self.whole(election::proclaim(member, r).await) }).await
            }
            Rpc::Leader => {
                self.unary(incoming, |r| async move { self.whole(election::leader(member, r).await) }).await
            }
            Rpc::Resign => {
                self.unary(incoming, |r| async move { self.whole(election::resign(member, r).await) }).await
            }
            Rpc::HealthCheck => {
                self.unary(incoming, |r| async move { self.whole(health::check(&self.front, r)) }).await
            }
            Rpc::HealthList => {
                self.unary(incoming, |_: cairn_proto::health::HealthListRequest| async move {
                    self.whole(Ok::<_, Status>(health::list(&self.front)))
                })
                .await
            }
            Rpc::Missing(sentence) => Status::new(UNIMPLEMENTED, sentence).response(),
            Rpc::Watch => self.stream(|call| {
                Ok(watch::stream(call.member.watch_stream(), call.messages(incoming), call.encoding))
            }),
            Rpc::LeaseKeepAlive => self.stream(|call| {
                Ok(lease::keep_alive(call.member.clone(), call.messages(incoming), call.encoding))
            }),
            Rpc::RangeStream => {
                let messages = self.messages(incoming);
                match kv::range_stream(member, messages, self.encoding).await {
                    Ok(stream) => self.stream(|_| Ok(stream)),
                    Err(status) => self.stream(|_| Err(status)),
                }
            }
            Rpc::Observe => {
                let messages = self.messages(incoming);
                match election::observe(member, messages, self.encoding).await {
                    Ok(stream) => self.stream(|_| Ok(stream)),
                    Err(status) => self.stream(|_| Err(status)),
                }
            }
            Rpc::HealthWatch => {
                let messages = self.messages(incoming);
                match health::watch(&self.front, messages, self.encoding).await {
                    Ok(stream) => self.stream(|_| Ok(stream)),
                    Err(status) => self.stream(|_| Err(status)),
                }
            }
        }
    }

    fn messages(&self, incoming: Incoming) -> Messages {
        let bytes_max = self.front.config.max_request_bytes + MESSAGE_OVERHEAD_BYTES;
        Messages::new(incoming, self.encoding, bytes_max, self.front.metrics.clone(), self.route.index)
    }

    fn whole<M: prost::Message, E: Into<Status>>(&self, result: Result<M, E>) -> Result<Answer, Status> {
        result.map(|message| Answer::Whole(framed(&message, self.encoding))).map_err(Into::into)
    }

    /// One request, one answer, within the caller's deadline.
    async fn unary<Q, F>(&self, incoming: Incoming, handler: impl FnOnce(Q) -> F) -> Response<Body>
    where
        Q: prost::Message + Default + slow::Describe,
        F: Future<Output = Result<Answer, Status>>,
    {
        let ended = Ended::begin(self.front.metrics.clone(), self.route.index);
        let since = Instant::now();
        let mut subject = Subject::default();
        let work = async {
            let request: Q = self.messages(incoming).only().await?;
            subject = request.subject();
            handler(request).await
        };
        let result = match self.deadline {
            None => work.await,
            Some(deadline) => match timeout_at(deadline, work).await {
                Ok(result) => result,
                Err(_) => Err(self.late()),
            },
        };
        let response_bytes = match &result {
            Ok(Answer::Whole(bytes)) => bytes.len(),
            Ok(Answer::Pieces(_, len)) => *len,
            Err(_) => 0,
        };
        slow::record(self, since, &subject, response_bytes);
        match result {
            Ok(answer) => {
                self.front.metrics.grpc.sent(self.route.index);
                self.front.metrics.client_sent_bytes.add(response_bytes as u64);
                self.response(match answer {
                    Answer::Whole(bytes) => Body::unary(bytes, ended),
                    Answer::Pieces(pieces, _) => Body::pieces(pieces, ended),
                })
            }
            Err(status) => {
                ended.with(status.code);
                status.response()
            }
        }
    }

    /// As [`Call::unary`], for calls that may wait without a bound: they give up when the process stops.
    async fn waiting<Q, F>(&self, incoming: Incoming, handler: impl FnOnce(Q) -> F) -> Response<Body>
    where
        Q: prost::Message + Default + slow::Describe,
        F: Future<Output = Result<Answer, Status>>,
    {
        let mut stopping = self.front.stopping();
        self.unary(incoming, |request| async move {
            tokio::select! {
                answer = handler(request) => answer,
                () = until_true(&mut stopping) => Err(errors::STOPPED.into()),
            }
        })
        .await
    }

    /// An answer of many messages.
    fn stream(&self, open: impl FnOnce(&Call) -> Result<MessageStream, Status>) -> Response<Body> {
        let ended = Ended::begin(self.front.metrics.clone(), self.route.index);
        let inner = match open(self) {
            Ok(inner) => inner,
            Err(status) => {
                ended.with(status.code);
                return status.response();
            }
        };
        let end = StreamEnd {
            stopping: self.front.stopping(),
            leaderless: self.requires_leader.then(|| self.front.leaderless()),
            deadline: self.deadline,
        };
        let (metrics, method) = (self.front.metrics.clone(), self.route.index);
        let counted = inner.inspect(move |item| {
            if let Ok(bytes) = item {
                metrics.grpc.sent(method);
                metrics.client_sent_bytes.add(bytes.len() as u64);
            }
        });
        let bounded = stream::unfold(Some((counted, end)), |state| async move {
            let (mut inner, mut end) = state?;
            tokio::select! {
                biased;
                status = end.reached() => Some((Err(status), None)),
                item = inner.next() => item.map(|item| (item, Some((inner, end)))),
            }
        });
        self.response(Body::stream(Box::pin(bounded), ended))
    }

    fn response(&self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        if self.encoding == Encoding::Gzip {
            headers.insert(GRPC_ENCODING, GZIP);
            headers.insert(GRPC_ACCEPT_ENCODING, GZIP);
        }
        response
    }

    /// RT-9: a proposal that is late may yet happen, and says so in its own words.
    fn late(&self) -> Status {
        match self.route.method.route {
            AnswerRoute::Raft | AnswerRoute::ConfChange => errors::TIMEOUT.into(),
            _ => errors::CONTEXT_DEADLINE_EXCEEDED.into(),
        }
    }
}

/// What ends a stream from outside.
struct StreamEnd {
    stopping: channel::Receiver<bool>,
    leaderless: Option<channel::Receiver<bool>>,
    deadline: Option<Instant>,
}

impl StreamEnd {
    async fn reached(&mut self) -> Status {
        let leaderless = async {
            match &mut self.leaderless {
                Some(leaderless) => until_true(leaderless).await,
                None => std::future::pending().await,
            }
        };
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until_true(&mut self.stopping) => errors::STOPPED.into(),
            () = leaderless => errors::NO_LEADER.into(),
            () = deadline => errors::CONTEXT_DEADLINE_EXCEEDED.into(),
        }
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let malformed = || Status::new(INTERNAL, "malformed grpc-timeout");
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(malformed()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let timeout = |text: &str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-timeout"),
                HeaderValue::from_str(text).expect("a value"),
            )]);
            timeout_of(&headers)
        };
        assert_eq!(timeout_of(&HeaderMap::new()), Ok(None));
        assert_eq!(timeout("7S"), Ok(Some(Duration::from_secs(7))));
        assert_eq!(timeout("99999999m"), Ok(Some(Duration::from_millis(99_999_999))));
        for text in ["", "S", "1", "1x", "-1S", "123456789n"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_paths_are_told_as_grpc_go_tells_them() {
        for (path, text) in [
            ("/x.Y/Z", "unknown service x.Y"),
            ("/etcdserverpb.KV/Frob", "unknown method Frob for service etcdserverpb.KV"),
            ("//etcdserverpb.KV/Range", "unknown service /etcdserverpb.KV"),
            ("/Range", "malformed method name: \"/Range\""),
        ] {
            assert_eq!(unknown(path), Status::new(UNIMPLEMENTED, text), "{path}");
        }
    }
}
