// SPDX-License-Identifier: Apache-2.0
//! gRPC calls, served by tonic: their metadata and their deadlines.
//!
//! Owns      what is common to all calls: routing, `grpc-timeout`, `hasleader`, `client-api-version`, what
//!           tonic is told of each, and the record of a slow call. Routing is by hand, and not by tonic's
//!           generated servers, for the texts of paths, versions and deadlines that etcd's clients compare.
//! Holds     1. a call that is refused never reaches the member;
//!           2. a stream ends when the process stops, when its deadline passes, and, if it asked for a
//!              leader, when there has been none for long.
//! Never     holds a lock across an await, or more of an answer than the client takes.

pub mod auth;
mod dispatch;
mod election;
pub mod ended;
mod health;
mod kv;
#[cfg(test)]
mod leader;
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
    Front, Remote,
    body::{Body, Pieces},
    until_true,
};
use crate::{config::MESSAGE_OVERHEAD_BYTES, member::Member};
use cairn_proto::{
    errors,
    methods::{Kind, Route as AnswerRoute},
};
use ended::Ended;
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kv::RangePieces;
use message::{Encoding, Messages, Wire};
use prost::Message;
use routes::{Route, Rpc};
use slow::Subject;
use status::{INTERNAL, Status, UNIMPLEMENTED};
use std::{
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tonic::{
    Streaming,
    codec::CompressionEncoding,
    server::{Grpc, StreamingService},
};

/// How long a call that is refused may take to send what it begins with.
const FIRST_FRAME: Duration = Duration::from_millis(50);

/// A message that answers a call.
pub enum Answer<M> {
    Whole(M),
    /// A large one, made in pieces as the client takes them, and its length.
    Pieces(RangePieces, usize),
}

/// One call under way.
pub struct Call {
    front: Arc<Front>,
    member: Member,
    route: &'static Route,
    encoding: Encoding,
    deadline: Option<Instant>,
    requires_leader: bool,
    remote: Remote,
}

/// Serves one call.
pub fn serve(
    front: Arc<Front>,
    remote: Remote,
    request: Request<Incoming>,
) -> BoxFuture<'static, Response<Body>> {
    if request.method() != Method::POST {
        return Box::pin(ready(not_post(request.method())));
    }
    let path = request.uri().path();
    let route = routes::find(path).ok_or_else(|| unknown(path));
    match route.and_then(|route| Call::begin(front, remote, route, request.headers())) {
        Ok(call) => Box::pin(async move { call.answer(request).await }),
        Err(status) => Box::pin(refuse(request, status)),
    }
}

/// Refuses a call of which nothing was read. What it sent with its head is read first: a message that comes for a
/// stream which has ended counts against its connection, and too many of those end that (CVE-2025-8671).
async fn refuse(request: Request<Incoming>, status: Status) -> Response<Body> {
    let mut body = request.into_body();
    if !body.is_end_stream() {
        // It may send none, and then is told after this.
        drop(timeout(FIRST_FRAME, body.frame()).await);
    }
    status.response()
}

fn not_post(method: &Method) -> Response<Body> {
    let text = format!("Received a HEADERS frame with :method {:?} which should be POST", method.as_str());
    let mut response = Status::new(INTERNAL, text).response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
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
        remote: Remote,
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
        let member =
            front.member().ok_or(errors::STOPPED)?.called_by(auth::caller(headers, remote.user.as_ref()));
        // LR-2. Of ranges a learner serves those that need no quorum.
        if member.is_learner() && !matches!(route.rpc, Rpc::Status | Rpc::Range) {
            return Err(errors::NOT_SUPPORTED_FOR_LEARNER.into());
        }
        let requires_leader = headers.get("hasleader").is_some_and(|value| value.as_bytes() == b"true");
        if requires_leader && !member.has_leader() {
            return Err(errors::NO_LEADER.into());
        }
        Ok(Call { front, member, route, encoding, deadline, requires_leader, remote })
    }

    /// What the table of methods asks of a caller whatever its request says; only where authentication is on.
    async fn admit(&self) -> Result<(), Status> {
        if !self.member.auth_enabled() {
            return Ok(());
        }
        Ok(Box::pin(self.member.check_method(self.route.method.permission)).await?)
    }

    /// Tonic's half of a call: `handler` is given the request's messages, and gives the answer's.
    async fn serve<Q, M, S, F>(
        &self,
        request: Request<Incoming>,
        handler: impl FnOnce(Messages<Q>) -> F + Send,
    ) -> Response<Body>
    where
        Q: Message + Default + 'static,
        M: Message + 'static,
        S: Stream<Item = Result<M, tonic::Status>> + Send + 'static,
        F: Future<Output = Result<S, Status>>,
    {
        let bytes_max = self.front.config.max_request_bytes + MESSAGE_OVERHEAD_BYTES;
        let mut grpc = Grpc::new(Wire::<Q, M>::new(self.front.metrics.clone(), self.route.index))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(usize::MAX);
        if self.encoding == Encoding::Gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        let handler = async |messages| match handler(Messages::new(messages, bytes_max)).await {
            Ok(stream) => Ok(tonic::Response::new(stream)),
            Err(status) => Err(status.into()),
        };
        grpc.streaming(Handler(Some(handler)), request).await.map(Body::from)
    }

    /// One request, one answer, within the caller's deadline.
    fn unary<'a, Q, M, F>(
        &'a self,
        request: Request<Incoming>,
        handler: impl FnOnce(Q) -> F + Send + 'a,
    ) -> BoxFuture<'a, Response<Body>>
    where
        Q: Message + Default + slow::Describe + 'static,
        M: Message + 'static,
        F: Future<Output = Result<Answer<M>, Status>> + Send + 'a,
    {
        Box::pin(async move {
            let mut pieces = None;
            let response = self
                .serve(request, async |messages| {
                    let ended = Ended::begin(self.front.metrics.clone(), self.route.index);
                    match self.only(messages, handler).await {
                        Ok(Answer::Whole(message)) => Ok(Once { message: Some(message), ended: Some(ended) }),
                        Ok(Answer::Pieces(iter, len)) => {
                            self.front.metrics.grpc.sent(self.route.index);
                            self.front.metrics.client_sent_bytes.add(len as u64);
                            pieces = Some(Pieces::new(iter, ended));
                            Ok(Once { message: None, ended: None })
                        }
                        Err(status) => {
                            ended.with(status.code);
                            Err(status)
                        }
                    }
                })
                .await;
            match pieces {
                None => response,
                Some(pieces) => response.map(|_| tonic::body::Body::new(pieces).into()),
            }
        })
    }

    /// The answer to the only message of a request, or that it is late.
    async fn only<Q, M, F>(
        &self,
        mut messages: Messages<Q>,
        handler: impl FnOnce(Q) -> F,
    ) -> Result<Answer<M>, Status>
    where
        Q: slow::Describe,
        M: Message,
        F: Future<Output = Result<Answer<M>, Status>>,
    {
        let since = Instant::now();
        let mut subject = Subject::default();
        let work = async {
            let request = messages.only().await?;
            subject = request.subject();
            self.admit().await?;
            handler(request).await
        };
        let result = match self.deadline {
            None => work.await,
            Some(deadline) => match timeout_at(deadline, work).await {
                Ok(result) => result,
                Err(_) => Err(self.late(since)),
            },
        };
        slow::record(self, since, &subject, || match &result {
            Ok(Answer::Whole(message)) => message.encoded_len(),
            Ok(Answer::Pieces(_, len)) => *len,
            Err(_) => 0,
        });
        result
    }

    /// As [`Call::unary`], for calls that may wait without a bound: they give up when the process stops.
    fn waiting<'a, Q, M, F>(
        &'a self,
        request: Request<Incoming>,
        handler: impl FnOnce(Q) -> F + Send + 'a,
    ) -> BoxFuture<'a, Response<Body>>
    where
        Q: Message + Default + slow::Describe + 'static,
        M: Message + 'static,
        F: Future<Output = Result<Answer<M>, Status>> + Send + 'a,
    {
        Box::pin(async move {
            let mut stopping = self.front.stopping();
            self.unary(request, async |request| {
                tokio::select! {
                    answer = handler(request) => answer,
                    () = until_true(&mut stopping) => Err(errors::STOPPED.into()),
                }
            })
            .await
        })
    }

    /// An answer of many messages.
    fn stream<'a, Q, M, S, F>(
        &'a self,
        request: Request<Incoming>,
        open: impl FnOnce(Messages<Q>) -> F + Send + 'a,
    ) -> BoxFuture<'a, Response<Body>>
    where
        Q: Message + Default + 'static,
        M: Message + 'static,
        S: Stream<Item = Result<M, Status>> + Send + 'static,
        F: Future<Output = Result<S, Status>> + Send + 'a,
    {
        Box::pin(async move {
            self.serve(request, async |messages| {
                let ended = Ended::begin(self.front.metrics.clone(), self.route.index);
                let mut end = StreamEnd {
                    stopping: self.front.stopping(),
                    leaderless: self.requires_leader.then(|| self.front.leaderless()),
                    deadline: self.deadline,
                };
                let opened = async {
                    self.admit().await?;
                    open(messages).await
                };
                // Its request may never come to its end.
                let opened = tokio::select! {
                    opened = opened => opened,
                    status = end.reached() => Err(status),
                };
                match opened {
                    Ok(inner) => Ok(bounded(inner, end, ended)),
                    Err(status) => {
                        ended.with(status.code);
                        Err(status)
                    }
                }
            })
            .await
        })
    }

    /// RT-9: a proposal that is late may yet happen, and says so in its own words.
    fn late(&self, since: Instant) -> Status {
        match self.route.method.route {
            AnswerRoute::Raft | AnswerRoute::ConfChange => self.member.why_late(since.into_std()).into(),
            _ => errors::CONTEXT_DEADLINE_EXCEEDED.into(),
        }
    }
}

/// The answer of one whole message.
fn whole<M, E: Into<Status>>(result: Result<M, E>) -> Result<Answer<M>, Status> {
    result.map(Answer::Whole).map_err(Into::into)
}

/// What tonic calls, once, with the messages of a request.
struct Handler<H>(Option<H>);

impl<H, F, S, Q, M> StreamingService<Q> for Handler<H>
where
    H: FnOnce(Streaming<Q>) -> F,
    F: Future<Output = Result<tonic::Response<S>, tonic::Status>>,
    S: Stream<Item = Result<M, tonic::Status>>,
{
    type Response = M;
    type ResponseStream = S;
    type Future = F;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> F {
        (self.0.take().expect("tonic calls a handler once"))(request.into_inner())
    }
}

/// The answer of a unary call as tonic takes it; at its end it counts the call.
struct Once<M> {
    message: Option<M>,
    ended: Option<Ended>,
}

/// Nothing in it is pinned.
impl<M> Unpin for Once<M> {}

impl<M> Stream for Once<M> {
    type Item = Result<M, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = self.message.take();
        if message.is_none()
            && let Some(ended) = self.ended.take()
        {
            ended.with(0);
        }
        Poll::Ready(message.map(Ok))
    }
}

/// The stream until it or `end` ends it; then it is counted.
fn bounded<M>(
    inner: impl Stream<Item = Result<M, Status>>,
    end: StreamEnd,
    ended: Ended,
) -> impl Stream<Item = Result<M, tonic::Status>> {
    stream::unfold(Some((Box::pin(inner), end, ended)), |state| async move {
        let (mut inner, mut end, ended) = state?;
        let item = tokio::select! {
            biased;
            status = end.reached() => Some(Err(status)),
            item = inner.next() => item,
        };
        match item {
            Some(Ok(message)) => Some((Ok(message), Some((inner, end, ended)))),
            Some(Err(status)) => {
                ended.with(status.code);
                Some((Err(status.into()), None))
            }
            None => {
                ended.with(0);
                None
            }
        }
    })
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
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_str(text).expect("a value"),
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
