// SPDX-License-Identifier: Apache-2.0
//! The front door: what all listeners share, and which of the two protocols a request speaks.
//!
//! Owns      [`Front`], the state that requests are served from, and the split between gRPC and plain HTTP.
//! Holds     until the member is ready no request reaches it; liveness and metrics answer before.
//! Never     binds a socket.

pub mod body;
pub mod buckets;
pub mod connection;
pub mod grpc;
pub mod web;

use crate::{
    config::Config,
    log::Log,
    member::{
        Member,
        peers::{self, repair::Taker},
    },
    metrics::Metrics,
    tls::Tls,
};
use body::Body;
use buckets::Buckets;
use connection::Connection;
use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use hyper::body::Incoming;
use std::{
    future::{Future, ready},
    sync::{Arc, Mutex, OnceLock},
};
use tokio::sync::watch;

/// Connections of one address that are ended for what came over them, before others of it have to wait; and how many
/// of them are forgiven in a second.
const ABUSES_BURST: u32 = 8;
const ABUSES_FORGIVEN_S: u32 = 4;

/// What one listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// gRPC and plain HTTP on one port.
    Client,
    /// gRPC alone: the plain paths are on listeners of their own.
    ClientGrpc,
    ClientHttp,
    Metrics,
    Peer,
}

impl Role {
    pub fn serves_grpc(self) -> bool {
        matches!(self, Role::Client | Role::ClientGrpc)
    }

    pub fn serves_client_http(self) -> bool {
        matches!(self, Role::Client | Role::ClientHttp)
    }

    /// As the line `serving client traffic` tells it.
    pub fn traffic(self) -> &'static str {
        match self {
            Role::Client => "grpc+http",
            Role::ClientGrpc => "grpc",
            Role::ClientHttp | Role::Metrics | Role::Peer => "http",
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Remote {
    pub address: Arc<str>,
    /// By its certificate (AU-31).
    pub user: Option<Arc<str>>,
}

/// What secure listeners show.
#[derive(Default)]
pub struct Secure {
    pub client: Option<Arc<Tls>>,
    pub peer: Option<Arc<Tls>>,
}

/// What requests are served from.
pub struct Front {
    pub config: Config,
    secure: Secure,
    pub log: Log,
    pub metrics: Arc<Metrics>,
    /// Failed logins.
    pub failures: Buckets,
    /// Connections that were ended for what came over them.
    pub abuses: Buckets,
    /// The member, from when it talks to its peers on.
    running: OnceLock<Member>,
    member: OnceLock<Member>,
    /// What answers peers while the member gets another store.
    taker: OnceLock<Arc<Taker>>,
    /// True once the process is to end: streams end, waiting calls give up.
    stopping: watch::Sender<bool>,
    /// True while no leader has been known for three election timeouts (LIMIT-12).
    leaderless: watch::Sender<bool>,
    /// Why the gRPC health service says that the empty name is not served: bits of [`Unhealthy`].
    unhealthy: Mutex<u8>,
    healthy: watch::Sender<bool>,
}

/// A reason not to be sent requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Unhealthy {
    Starting = 1,
    Defragmenting = 2,
    /// A write of the log hangs.
    HungWrite = 4,
    Stopping = 8,
}

impl Front {
    pub fn new(config: Config, log: Log, metrics: Arc<Metrics>) -> Front {
        Front {
            failures: Buckets::new(grpc::auth::FAILURES_BURST, config.auth_failures_s),
            abuses: Buckets::new(ABUSES_BURST, ABUSES_FORGIVEN_S),
            config,
            secure: Secure::default(),
            log,
            metrics,
            running: OnceLock::new(),
            member: OnceLock::new(),
            taker: OnceLock::new(),
            stopping: watch::Sender::new(false),
            leaderless: watch::Sender::new(false),
            unhealthy: Mutex::new(Unhealthy::Starting as u8),
            healthy: watch::Sender::new(false),
        }
    }

    /// The member runs: its peers may talk to it.
    pub fn admit_peers(&self, member: Member) {
        assert!(self.running.set(member).is_ok(), "a member begins to run once");
    }

    /// The member gets another store before it runs.
    pub fn take_store(&self, taker: Arc<Taker>) {
        assert!(self.taker.set(taker).is_ok(), "a process gets one store at most");
    }

    /// The member, once it runs.
    pub fn running(&self) -> Option<&Member> {
        self.running.get()
    }

    /// With what secure listeners show.
    #[must_use]
    pub fn with_tls(self, secure: Secure) -> Front {
        Front { secure, ..self }
    }

    /// What a secure listener shows.
    pub fn tls_of(&self, role: Role) -> Option<&Arc<Tls>> {
        if role == Role::Peer { self.secure.peer.as_ref() } else { self.secure.client.as_ref() }
    }

    /// The member is ready: requests may reach it.
    pub fn open(&self, member: Member) {
        assert!(self.member.set(member).is_ok(), "a member becomes ready once");
        self.set_unhealthy(Unhealthy::Starting, false);
    }

    /// The member, once it is ready.
    pub fn member(&self) -> Option<&Member> {
        self.member.get()
    }

    /// Ends all streams and everything that waits without a bound.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.set_unhealthy(Unhealthy::Stopping, true);
    }

    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub fn leaderless(&self) -> watch::Receiver<bool> {
        self.leaderless.subscribe()
    }

    pub fn set_leaderless(&self, leaderless: bool) {
        self.leaderless.send_if_modified(|now| std::mem::replace(now, leaderless) != leaderless);
    }

    pub fn healthy(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    /// Whether this is a reason not to be sent requests now; one is enough.
    pub fn set_unhealthy(&self, why: Unhealthy, is: bool) {
        let mut reasons = self.unhealthy.lock().expect("nothing fails under this lock");
        *reasons = if is { *reasons | why as u8 } else { *reasons & !(why as u8) };
        let healthy = *reasons == 0;
        self.healthy.send_if_modified(|now| std::mem::replace(now, healthy) != healthy);
    }
}

/// Waits for a switch to be on, or to be gone.
pub async fn until_true(switch: &mut watch::Receiver<bool>) {
    // The borrow in a good answer must not live across an await of the caller.
    drop(switch.wait_for(|on| *on).await);
}

/// Bound on the future of a request, all that it waits for being elsewhere on the heap.
const SERVED_BYTES_MAX: usize = 64;

/// Serves one request of a connection. The future is small, whatever it waits for: hyper moves it several
/// times before it runs, and again when it has ended.
pub fn serve(
    front: Arc<Front>,
    role: Role,
    remote: Remote,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send + use<> {
    let active = connection.begin();
    let answer = answer(front, role, remote, request);
    let served = async move {
        let response = answer.await;
        active.answering();
        response.map(|body| body.counted(active))
    };
    assert!(size_of_val(&served) <= SERVED_BYTES_MAX);
    served
}

fn answer(
    front: Arc<Front>,
    role: Role,
    remote: Remote,
    request: Request<Incoming>,
) -> BoxFuture<'static, Response<Body>> {
    let path = request.uri().path();
    if role == Role::Peer && peers::is_ours(path) {
        Box::pin(async move { answer_peer(&front, request).await })
    } else if role.serves_grpc() && is_grpc(&request) {
        grpc::serve(front, remote, request)
    } else if role == Role::ClientGrpc {
        Box::pin(ready(grpc::not_grpc(&request)))
    } else {
        Box::pin(async move { web::serve(&front, role, request).await })
    }
}

async fn answer_peer(front: &Front, request: Request<Incoming>) -> Response<Body> {
    match (front.running(), front.taker.get()) {
        (Some(member), _) => peers::serve(member, request).await,
        (None, Some(taker)) => taker.serve(request).await,
        (None, None) => web::starting(),
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| match value.strip_prefix(b"application/grpc") {
        Some([]) => true,
        Some([next, ..]) => matches!(next, b'+' | b';'),
        None => false,
    })
}
