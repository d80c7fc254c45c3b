// SPDX-License-Identifier: Apache-2.0
//! What is sent to keep others from being served: floods of frames, connections that say nothing, requests that are
//! refused as fast as they can be sent.
//!
//! Owns      the attacks, and the bounds that are held against the daemon after each. [`beside`](super::beside) has the
//!           client beside them.
//! Holds     1. beside every attack someone else is served, and after it at once again;
//!           2. after every attack the same daemon is there, has said nothing of a panic, and is not larger than a
//!              bound.
//! Never     fails for a time that only a quiet machine can promise: those are printed, and what hangs fails.

use crate::{
    beside::{self, Span},
    frames::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, call,
        field, frame,
    },
    support::{Daemon, quiet_end, run, until},
};
use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use prost::Message as _;
use std::{
    io::Write as _,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// An attack is ended by then, or never.
const ATTACK_BYTES_MAX: usize = 64 << 20;
/// What the attacker's own system takes before the daemon does: the more it is, the more is made, copied and thrown away
/// on this machine for connections that the daemon has long ended.
const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// What a daemon that serves somebody may grow by, whatever else it is sent.
const GROWTH_BYTES_MAX: u64 = 40 << 20;
/// After an attack others are served as before.
const RECOVERY: Duration = Duration::from_secs(5);
/// What is no longer slow, but hangs.
const HANGS: Duration = Duration::from_secs(50);
/// How much longer others may wait beside an attack.
const SLOWER_MAX: f64 = 2.0;
/// Runs of an attack that is to end its connection, in one window at least.
const ENDED_MIN: usize = 3;
/// How long connections that say nothing are watched.
const SILENCE: Duration = Duration::from_millis(300);
/// A checkpoint of what a client put meanwhile takes less.
const CHECKPOINT: Duration = Duration::from_secs(1);
const PUT: &str = "/etcdserverpb.KV/Put";

/// How an attack goes: what is sent first, and then again and again.
struct Attack {
    name: &'static str,
    first: fn() -> Vec<u8>,
    /// The n-th step.
    step: fn(u32) -> Vec<u8>,
    /// Whether the server is to end the connection, and not only what is wrong in it.
    ends: bool,
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

/// The n-th stream that a client opens.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

const ATTACKS: &[Attack] = &[
    // CVE-2023-44487
    Attack {
        name: "rapid reset",
        first: nothing,
        step: |n| {
            let head = frame(HEADERS, END_HEADERS, stream(n), &call(PUT));
            [head, frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()
        },
        ends: true,
    },
    // CVE-2025-8671: a window of a stream that grows by nothing makes the server reset it.
    Attack {
        name: "made you reset",
        first: nothing,
        step: |n| {
            let head = frame(HEADERS, END_HEADERS, stream(n), &call(PUT));
            [head, frame(WINDOW_UPDATE, 0, stream(n), &0u32.to_be_bytes())].concat()
        },
        ends: true,
    },
    // RUSTSEC-2024-0332
    Attack {
        name: "continuation flood",
        first: || frame(HEADERS, 0, 1, &call(PUT)),
        step: |n| frame(CONTINUATION, 0, 1, &field(&format!("x-{n}"), &"v".repeat(100)).repeat(100)),
        ends: true,
    },
    Attack { name: "ping flood", first: nothing, step: |_| frame(PING, 0, 0, &[7; 8]), ends: true },
    Attack {
        name: "settings flood",
        first: nothing,
        step: |n| frame(SETTINGS, 0, 0, &[&[0, 4][..], &(1 + n % 1000).to_be_bytes()].concat()),
        ends: true,
    },
    Attack {
        name: "empty data",
        first: || frame(HEADERS, END_HEADERS, 1, &call(PUT)),
        step: |_| frame(DATA, 0, 1, &[]),
        ends: true,
    },
    // One large field put into the table (0x40), then named four thousand times (0xbe).
    Attack {
        name: "header bomb",
        first: || {
            let large = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1d], &[b'v'; 3872][..]].concat();
            frame(HEADERS, END_HEADERS, 1, &[call(PUT), large].concat())
        },
        step: |n| frame(HEADERS, END_HEADERS, stream(n + 1), &[call(PUT), vec![0xbe; 4000]].concat()),
        ends: false,
    },
];

impl Attack {
    /// Carries it out; how many bytes were sent before the connection was ended, or `None` if it was not.
    async fn run(&self, address: &str, steps: u32) -> Option<usize> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(SEND_BUFFER_BYTES).expect("a size");
        let connection = socket.connect(address.parse().expect("an address")).await.expect("it listens");
        let (mut answers, mut out) = connection.into_split();
        // What is answered is read, so that nobody waits for room.
        let drain = tokio::spawn(async move {
            let mut rest = vec![0; 1 << 16];
            while answers.read(&mut rest).await.is_ok_and(|len| len > 0) {}
        });
        let begin = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), (self.first)()].concat();
        let mut sent = begin.len();
        let mut ended = out.write_all(&begin).await.is_err();
        for n in 0..steps {
            if ended || drain.is_finished() || sent > ATTACK_BYTES_MAX {
                break;
            }
            let step = (self.step)(n);
            sent += step.len();
            ended = out.write_all(&step).await.is_err();
        }
        if !self.ends {
            return None;
        }
        let over = ended || tokio::time::timeout(RECOVERY, drain).await.is_ok();
        over.then_some(sent)
    }
}

/// The resident memory of a daemon that no file backs, without what puts hold until the next checkpoint: they come from
/// the client beside the attacks.
async fn memory(daemon: &Daemon) -> u64 {
    // Its first checkpoint is what is wanted: of a member at rest the later ones may come with their age alone.
    let mut maintenance = daemon.maintenance().await;
    let defragmented = maintenance.defragment(pb::DefragmentRequest {});
    if let Ok(answer) = tokio::time::timeout(CHECKPOINT, defragmented).await {
        answer.expect("it makes a checkpoint");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid_number())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// What a daemon takes that serves the client alone, for as long as beside an attack.
fn memory_of_calm(daemon: &Daemon) -> u64 {
    let nothing = async |_: &str| tokio::time::sleep(SILENCE).await;
    beside::watch(daemon, Span::of_run(), 1, 0, nothing, |()| usize::MAX);
    run(memory(daemon))
}

/// A figure of the scorecard that fails nothing here: a machine with others on it keeps no such time.
fn figure(name: &str, value: f64, most: f64) {
    let met = if value <= most { "ok" } else { "miss" };
    println!("score: {name} {value:.2} <={most} {met}");
}

/// Carries out one attack beside a client, and holds what became of the daemon against the bounds.
fn attack<T: Send>(
    daemon: &Daemon,
    name: &str,
    before: u64,
    runs_min: usize,
    grpc_code: u32,
    attack: impl AsyncFn(&str) -> T + Sync,
    closes_after: impl Fn(&T) -> usize,
) -> Vec<T> {
    let seen = beside::watch(daemon, Span::of_run(), runs_min, grpc_code, attack, closes_after);
    let begin = Instant::now();
    run(async {
        let put = pb::PutRequest { key: "after".into(), ..Default::default() };
        daemon.kv().await.put(put).await.expect("it recovers");
    });
    let recovery = begin.elapsed();
    assert!(recovery < HANGS, "{name}: {recovery:?} until others were served again");
    let grown = run(until(async || {
        let grown = memory(daemon).await.saturating_sub(before);
        (grown <= GROWTH_BYTES_MAX).then_some(grown)
    }));
    let name = name.replace(' ', "-");
    println!(
        "{name}: a put took {:?} alone, {:?} beside it and {:?} beside a sink (p99); {} runs took {:.2} CPUs of the \
         server and {:.2} of the attacker; {} KiB larger",
        seen.alone,
        seen.attack,
        seen.sink,
        seen.runs.len(),
        seen.server_cpus,
        seen.attacker_cpus,
        grown >> 10
    );
    let ratio = |to: Duration| seen.attack.as_secs_f64() / to.as_secs_f64();
    figure(&format!("dos-{name}-p99-ratio"), ratio(seen.alone), SLOWER_MAX);
    figure(&format!("dos-{name}-p99-to-sink-ratio"), ratio(seen.sink), SLOWER_MAX);
    figure(&format!("dos-{name}-recovery-s"), recovery.as_secs_f64(), RECOVERY.as_secs_f64());
    seen.runs
}

#[test]
fn s23_dos_floods_of_frames_end_their_connection_and_nobody_elses() {
    let daemon = Daemon::start(&[]);
    let before = memory_of_calm(&daemon);
    for flood in ATTACKS {
        let steps = if flood.ends { 200_000 } else { 200 };
        let runs = async |address: &str| flood.run(address, steps).await;
        // A connection that nobody ends is not ended by the sink either.
        let bytes = |sent: &Option<usize>| sent.unwrap_or(usize::MAX);
        let ended = attack(&daemon, flood.name, before, ENDED_MIN, 0, runs, bytes);
        println!("{}: ended after {ended:?} bytes", flood.name);
        assert!(!flood.ends || ended.iter().all(Option::is_some), "{} goes on for ever", flood.name);
    }
    println!("score: dos-floods {} >=7 ok", ATTACKS.len());
    assert!(ATTACKS.len() >= 7);
    quiet_end(daemon);
}

/// Connections of one kind that are held open.
const SILENT: usize = 150;

#[test]
fn s18_s19_dos_connections_that_say_little_hold_up_nobody() {
    // Nothing, a preface and a head that do not come to their end, and a stream that is begun and never ended.
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, &call(PUT))].concat();
    let kinds: [(&str, &[u8]); 4] = [
        ("silence", b""),
        ("slow preface", &PREFACE[..12]),
        ("slow head", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "),
        ("slow body", &begun),
    ];
    let daemon = Daemon::start(&[]);
    let before = memory_of_calm(&daemon);
    let mut open = Vec::new();
    for (name, said) in kinds {
        let held = Mutex::new(Vec::new());
        let many = async |address: &str| {
            let connections = (0..SILENT).map(|_| {
                let mut stream = std::net::TcpStream::connect(address).expect("it listens");
                stream.write_all(said).expect("written");
                stream
            });
            let connections: Vec<_> = connections.collect();
            tokio::time::sleep(SILENCE).await;
            if address == daemon.clients[0] {
                // Those of the run before are closed.
                *held.lock().expect("one thread") = connections;
            }
        };
        attack(&daemon, name, before, 1, 0, many, |()| usize::MAX);
        open.extend(held.into_inner().expect("one thread"));
    }
    println!("score: dos-silent-connections {} >=600 ok", open.len());
    assert!(open.len() >= 600);
    quiet_end(daemon);
}

/// Refused requests of one kind, at least; and of those that are refused before they are read, more than the streams
/// that a client may have reset.
const REFUSED_MIN: usize = 200;
const UNREAD_MIN: usize = 2_000;
const UNIMPLEMENTED: u32 = 12;
/// Calls under way at once.
const AT_ONCE: usize = 16;

/// One connection on which calls are made as fast as they are answered; how many.
async fn flood(address: &str, path: &str, token: &str, body: &[u8], code: u32) -> usize {
    let stream = TcpStream::connect(address).await.expect("it listens");
    // Else it waits until the other end's system acknowledges, and floods nobody.
    stream.set_nodelay(true).expect("a socket");
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("it speaks HTTP/2");
    let driver = tokio::spawn(connection);
    let (least, mut count) = (if code == UNIMPLEMENTED { UNREAD_MIN } else { REFUSED_MIN }, 0);
    while count < least {
        let one = |mut sender: SendRequest<Full<Bytes>>| async move {
            let request = http::Request::post(format!("http://{address}{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("token", token)
                .body(Full::new(Bytes::copy_from_slice(body)))
                .expect("a request");
            let (head, body) = sender.send_request(request).await?.into_parts();
            let trailers = body.collect().await?.trailers().cloned();
            let status = tonic::Status::from_header_map(&trailers.unwrap_or(head.headers));
            assert_eq!(status.expect("a status").code() as u32, code, "{path}");
            Ok::<_, hyper::Error>(())
        };
        let calls = (0..AT_ONCE).map(|_| one(sender.clone()));
        if let Some(error) = futures_util::future::join_all(calls).await.into_iter().find_map(Result::err) {
            panic!("{path}: after {count} calls {error:?}; the connection: {:?}", driver.await);
        }
        count += AT_ONCE;
    }
    assert!(!driver.is_finished(), "{path}: the connection was ended");
    count
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

#[test]
fn s21_s22_s24_s25_dos_requests_that_are_refused_hold_up_nobody() {
    let daemon = Daemon::start(&["--bcrypt-cost=4"]);
    let put = pb::PutRequest { key: "k".into(), ..Default::default() }.encode_to_vec();
    let empty = pb::AuthRoleGrantPermissionRequest {
        name: "r".into(),
        perm: Some(cairn_proto::authpb::Permission { key: "b".into(), range_end: "a".into(), perm_type: 0 }),
    };
    // A group inside a group, a hundred and fifty times.
    let deep = [vec![0x7b; 150], vec![0x7c; 150]].concat();
    let noise = vec![0xff; 4096];
    // A token that is as long as a token may be, and more.
    let (long, grant) = ("x".repeat(20_000), "/etcdserverpb.Auth/RoleGrantPermission");
    let kinds: [(&str, &str, &str, Vec<u8>, u32); 6] = [
        ("odd paths", "/etcdserverpb.KV//Put", "", framed(&put), UNIMPLEMENTED),
        ("deep messages", "/etcdserverpb.KV/Txn", "", framed(&deep), 13),
        ("noise", PUT, "", framed(&noise), 13),
        ("huge lengths", PUT, "", vec![0, 0x80, 0, 0, 0], 8),
        ("empty ranges", grant, "", framed(&empty.encode_to_vec()), 3),
        ("long tokens", "/etcdserverpb.KV/Range", &long, framed(&[]), 3),
    ];
    let before = memory_of_calm(&daemon);
    let mut refused = 0;
    for (name, path, token, body, code) in &kinds {
        let calls = async |address: &str| flood(address, path, token, body, *code).await;
        let counts = attack(&daemon, name, before, 1, *code, calls, |_| usize::MAX);
        refused += counts.iter().sum::<usize>();
    }
    println!("score: dos-refused-requests {refused} >={} ok", REFUSED_MIN * kinds.len());
    assert!(refused >= REFUSED_MIN * kinds.len());
    quiet_end(daemon);
}
