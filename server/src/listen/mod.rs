// SPDX-License-Identifier: Apache-2.0
//! Listeners: sockets bound before the member starts, connections served after.
//!
//! Owns      the sockets, the bound on connections, the choice between plain and TLS, and what tonic and hyper
//!           leave open of HTTP/2.
//! Holds     1. an address in use is found before the data directory is touched;
//!           2. a socket file that someone still answers on is never removed.
//! Never     looks into a request.

pub mod budget;
pub mod meter;

use crate::{
    config::{
        Config,
        urls::{Host, ListenUrl, Place},
    },
    front::{self, Front, Remote, Role, connection::Connection as Traffic, until_true},
    stream::{Socket as Wire, Stream},
    tls::{
        accept::{self, HANDSHAKE_LIMIT},
        gather::Gather,
    },
};
use budget::Shared;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use meter::{Meter, Pings};
use rustix::net::sockopt;
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{fs::FileTypeExt as _, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// As Go's listeners.
const BACKLOG: u32 = 4096;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Headers of an HTTP/1 request must be there by then (S19).
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole request of the default size travels without waiting for a window.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams that the peer made us reset: beyond this the connection ends (CVE-2025-8671).
const LOCAL_ERROR_RESETS_MAX: usize = 1024;
/// Streams that the peer reset before they were served (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 64;
/// Pings of a peer in ten seconds: it sends one every two, and on a connection of its own for a snapshot.
const PEER_PINGS_MAX: u32 = 100;
/// What a new connection waits at most for those of its address that were ended for what came over them.
const ABUSE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 22;
/// Wait after a failed accept, which is out of descriptors as a rule.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// One bound socket.
pub struct Listener {
    pub role: Role,
    /// As it is told in the log: host and port, or the file.
    pub address: String,
    socket: Socket,
    protection: Protection,
    /// What its connections owe together.
    shared: Arc<Shared>,
}

/// How connections of a listener begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    Plain,
    Tls,
    /// As the first byte says: `http` and `https` URLs of one address (TL-4).
    Either,
}

enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: UnixFile },
}

/// The file of a socket, removed with it.
struct UnixFile(PathBuf);

impl Drop for UnixFile {
    fn drop(&mut self) {
        // Gone already, or not ours to remove any more: nothing is lost either way.
        drop(fs::remove_file(&self.0));
    }
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// Binds every listener of the configuration, peers first.
pub fn bind_all(config: &Config) -> Result<Vec<Listener>, ListenError> {
    let client = if config.listen_client_http.is_empty() { Role::Client } else { Role::ClientGrpc };
    let groups = [
        (Role::Peer, &config.listen_peer),
        (Role::Metrics, &config.listen_metrics),
        (client, &config.listen_client),
        (Role::ClientHttp, &config.listen_client_http),
    ];
    let mut listeners = Vec::new();
    for (role, urls) in groups {
        let mut bound: Vec<(&ListenUrl, usize)> = Vec::new();
        for url in urls {
            let fixed = |place: &Place| matches!(place, Place::Tcp { port, .. } if *port != 0);
            let same = |(other, _): &&(&ListenUrl, usize)| fixed(&url.place) && other.place == url.place;
            match bound.iter().find(same) {
                Some((other, at)) if other.secure != url.secure => {
                    let listener: &mut Listener = &mut listeners[*at];
                    listener.protection = Protection::Either;
                }
                _ => {
                    listeners.push(bind(role, url, config.reuse_port)?);
                    bound.push((url, listeners.len() - 1));
                }
            }
        }
    }
    Ok(listeners)
}

fn bind(role: Role, url: &ListenUrl, reuse_port: bool) -> Result<Listener, ListenError> {
    let protection = if url.secure { Protection::Tls } else { Protection::Plain };
    match &url.place {
        Place::Tcp { host, port } => {
            let address = match host {
                Host::Address(ip) => *ip,
                Host::Localhost => localhost(),
            };
            let address = SocketAddr::new(address, *port);
            let listener = bind_tcp(address, reuse_port).map_err(|error| {
                let why = match error.kind() {
                    io::ErrorKind::AddrInUse => "address already in use".to_owned(),
                    _ => error.to_string(),
                };
                ListenError(format!(
                    "listen tcp {address}: bind: {why}: stop what listens there or choose another URL than {url}"
                ))
            })?;
            let address = listener.local_addr().unwrap_or(address).to_string();
            Ok(Listener { role, address, socket: Socket::Tcp(listener), protection, shared: Arc::default() })
        }
        Place::Unix(path) => {
            let listener = bind_unix(path)
                .map_err(|error| ListenError(format!("listen unix {}: bind: {error}", path.display())))?;
            let file = UnixFile(path.clone());
            Ok(Listener {
                role,
                address: path.display().to_string(),
                socket: Socket::Unix { listener, _file: file },
                protection,
                shared: Arc::default(),
            })
        }
    }
}

/// `localhost` as Go takes it: the IPv4 loopback, where there is one.
fn localhost() -> IpAddr {
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let usable = std::net::UdpSocket::bind((v4, 0)).is_ok();
    if usable { v4 } else { IpAddr::V6(Ipv6Addr::LOCALHOST) }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket file that a killed process left, and no other file.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in its place",
            ));
        }
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "address already in use"));
        }
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

impl Listener {
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Accepts until `closing`, then lets the connections end by themselves until `closed`, and ends the rest.
    pub async fn serve(
        self,
        front: Arc<Front>,
        workers: Arc<[Handle]>,
        connections_max: usize,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut connections = JoinSet::new();
        let mut turn = 0;
        loop {
            // Finished connections leave first, so that the count is that of live ones.
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = until_true(&mut closing) => break,
                Some(_) = connections.join_next(), if connections.len() >= connections_max => continue,
                accepted = self.accept(), if connections.len() < connections_max => accepted,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    front.log.warn(
                        "cannot accept a connection",
                        &[("address", self.address.as_str().into()), ("error", error.to_string().into())],
                    );
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let worker = &workers[turn % workers.len()];
            turn += 1;
            let (front, closing, begins) = (front.clone(), closing.clone(), (self.role, self.protection));
            let shared = (self.role != Role::Peer).then(|| self.shared.clone());
            connections
                .spawn_on(async move { connection.serve(front, begins, shared, closing).await }, worker);
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    async fn accept(&self) -> io::Result<Connection> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Connection::Tcp(stream.into_std()?, remote.to_string().into()))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok(Connection::Unix(stream.into_std()?, "@".into()))
            }
        }
    }
}

/// A connection on its way to the worker that will serve it.
enum Connection {
    Tcp(std::net::TcpStream, Arc<str>),
    Unix(StdUnixStream, Arc<str>),
}

impl Connection {
    async fn serve(
        self,
        front: Arc<Front>,
        (role, protection): (Role, Protection),
        shared: Option<Arc<Shared>>,
        mut closing: watch::Receiver<bool>,
    ) {
        let prepared = match self {
            Connection::Tcp(stream, remote) => prepare_tcp(&stream)
                .and_then(|()| TcpStream::from_std(stream))
                .map(|stream| (Wire::Tcp(stream), remote)),
            Connection::Unix(stream, remote) => {
                UnixStream::from_std(stream).map(|stream| (Wire::Unix(stream), remote))
            }
        };
        let (socket, address) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                return front.log.debug("cannot serve a connection", &[("error", error.to_string().into())]);
            }
        };
        let wait =
            if role == Role::Peer { Duration::ZERO } else { front.abuses.owed(&address, Instant::now()) };
        let begun = async {
            sleep(wait.min(ABUSE_WAIT_MAX)).await;
            begin(socket, address, &front, role, protection).await
        };
        let begun = tokio::select! {
            begun = begun => begun,
            () = until_true(&mut closing) => return,
        };
        if let Some((stream, remote)) = begun {
            serve_stream(stream, remote, front, role, shared, closing).await;
        }
    }
}

/// Brings a connection to where requests can be read from it, within a time; `None` after a line in the log.
async fn begin(
    socket: Wire,
    address: Arc<str>,
    front: &Front,
    role: Role,
    protection: Protection,
) -> Option<(Stream, Remote)> {
    let Ok(first) = timeout(HANDSHAKE_LIMIT, socket.first_byte()).await else {
        front.log.debug("a connection said nothing in time", &[("remote", (*address).into())]);
        return None;
    };
    let first = first.ok().flatten()?;
    let plain = match protection {
        Protection::Plain => true,
        Protection::Tls => false,
        Protection::Either => first != TLS_HANDSHAKE,
    };
    if plain {
        return Some((Stream::Plain(socket), Remote { address, user: None }));
    }
    let tls = front.tls_of(role).expect("a secure listener has what it shows");
    let checked = match role {
        Role::Metrics => socket.peer_address(),
        Role::Peer if !front.config.peer_skip_address => socket.peer_address(),
        _ => None,
    };
    match accept::accept(tls, socket, checked).await {
        Ok(accepted) => Some((
            Stream::Tls(Box::new(Gather::new(accepted.stream.into()))),
            Remote { address, user: accepted.user },
        )),
        Err(refused) => {
            refused.log(&front.log, role == Role::Peer, &address);
            None
        }
    }
}

fn prepare_tcp(stream: &std::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    Ok(())
}

async fn serve_stream(
    stream: Stream,
    remote: Remote,
    front: Arc<Front>,
    role: Role,
    shared: Option<Arc<Shared>>,
    mut closing: watch::Receiver<bool>,
) {
    let builder = builder(&front.config, role);
    let traffic = Arc::new(Traffic::default());
    let pings = match role {
        Role::Peer => Pings::Counted(PEER_PINGS_MAX),
        _ => Pings::Apart(front.config.ping_min),
    };
    let metered = Meter::new(stream, traffic.clone(), pings, shared);
    let service = service_fn(|request| {
        let answer = front::serve(front.clone(), role, remote.clone(), &traffic, request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(metered), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = until_true(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if role != Role::Peer && traffic.was_abused(result.is_err()) {
        let now = Instant::now();
        // No address waits for longer, so none is to be forgiven for longer.
        if front.abuses.owed(&remote.address, now) < ABUSE_WAIT_MAX {
            front.abuses.count(&remote.address, now);
        }
    }
    if let Err(error) = result {
        front.log.debug(
            "a connection ended early",
            &[("remote", (*remote.address).into()), ("error", error.to_string().into())],
        );
    }
}

/// How connections of a listener are served: with what tonic and hyper leave open.
pub fn builder(config: &Config, role: Role) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if role == Role::ClientGrpc {
        builder = builder.http2_only();
    }
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s:1");
        // A closed listener leaves its file, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let live = bind_unix(&path).expect("the stale file is replaced");
        assert_eq!(bind_unix(&path).expect_err("someone answers").kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let file = dir.path().join("f");
        fs::write(&file, "data").expect("written");
        assert!(bind_unix(&file).is_err());
        assert_eq!(fs::read(&file).expect("still there"), b"data");
    }

    // rule: SD-11
    #[tokio::test]
    async fn a_port_in_use_is_told_with_its_address() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let url = crate::config::urls::parse_listen(&format!("http://127.0.0.1:{port}")).expect("a URL");
        let error = bind(Role::Client, &url, false).err().expect("in use").to_string();
        assert!(
            error.contains(&format!("listen tcp 127.0.0.1:{port}: bind: address already in use")),
            "{error}"
        );
    }
}
