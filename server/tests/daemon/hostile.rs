// SPDX-License-Identifier: Apache-2.0
//! What must not stop a member: floods of frames, slow headers, odd paths, wide permissions.
//!
//! Owns      frames written by hand, and what is sent in them.
//! Holds     1. beside every attack someone else is served;
//!           2. after every attack the same daemon is there, has said nothing of a panic, and is not larger than a
//!              bound.
//! Never     uses a client that refuses to send what is wrong.

use crate::support::{Daemon, PATIENCE, raw_call, run, until};
use cairn_proto::etcdserverpb as pb;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// An attack is ended by then, or never.
const ATTACK_BYTES_MAX: usize = 64 << 20;
/// What a daemon may grow by, whatever it is sent.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// After an attack others are served as before.
const RECOVERY: Duration = Duration::from_secs(5);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [&head[..], payload].concat()
}

/// A literal field that is not put into the table, with a name of its own.
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The head of a call. 0x83 and 0x86 stand for `:method: POST` and `:scheme: http`.
fn call(path: &str) -> Vec<u8> {
    let path = [&[4, path.len() as u8], path.as_bytes()].concat();
    let fields = [field("content-type", "application/grpc"), field("te", "trailers")].concat();
    [&[0x83, 0x86][..], &path, &field(":authority", "localhost"), &fields].concat()
}

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
        let connection = TcpStream::connect(address).await.expect("it listens");
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
        let over = ended || tokio::time::timeout(RECOVERY, drain).await.is_ok();
        over.then_some(sent)
    }
}

/// The resident memory of a daemon that no file backs.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid_number())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Puts one after the other until it is told to stop; the times that they took.
async fn bystander(daemon: &Daemon, mut stop: tokio::sync::watch::Receiver<bool>) -> Vec<Duration> {
    let mut kv = daemon.kv().await;
    let mut times = Vec::new();
    while !*stop.borrow_and_update() {
        let begin = Instant::now();
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        kv.put(put).await.expect("others are served");
        times.push(begin.elapsed());
    }
    times
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

#[test]
fn s23_floods_of_frames_end_their_connection_and_nobody_elses() {
    let daemon = Daemon::start(&[]);
    run(async {
        let address = &daemon.clients[0];
        let before = memory(&daemon);
        for attack in ATTACKS {
            let (stop, stopped) = tokio::sync::watch::channel(false);
            let ((mut times, ended), alone) = {
                let quiet = {
                    let (stop, stopped) = tokio::sync::watch::channel(false);
                    let (times, ()) = tokio::join!(bystander(&daemon, stopped), async {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        stop.send_replace(true);
                    });
                    times
                };
                let both = tokio::join!(bystander(&daemon, stopped), async {
                    let mut ended = Vec::new();
                    for _ in 0..3 {
                        ended.push(attack.run(address, if attack.ends { 200_000 } else { 200 }).await);
                    }
                    stop.send_replace(true);
                    ended
                });
                (both, quiet)
            };
            let mut alone = alone;
            println!(
                "{}: ended after {ended:?} bytes; a put took {:?} alone and {:?} beside it (p99)",
                attack.name,
                p99(&mut alone),
                p99(&mut times)
            );
            assert!(!attack.ends || ended.iter().all(Option::is_some), "{} goes on for ever", attack.name);
            assert!(!times.is_empty());
            let begin = Instant::now();
            let put = pb::PutRequest { key: "after".into(), ..Default::default() };
            daemon.kv().await.put(put).await.expect("it recovers");
            assert!(begin.elapsed() < RECOVERY, "{}", attack.name);
        }
        let grown = until(async || {
            let grown = memory(&daemon).saturating_sub(before);
            (grown <= GROWTH_BYTES_MAX).then_some(grown)
        })
        .await;
        println!("the daemon grew by {grown} bytes");
    });
    quiet_end(daemon);
}

/// Ends a daemon, which must not have said that anything panicked.
fn quiet_end(daemon: Daemon) {
    let mut daemon = daemon;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait();
    let panic = daemon.log.iter().find(|line| line["level"] == "panic" || line["level"] == "fatal");
    assert!(panic.is_none(), "{panic:?}");
}

#[test]
fn s19_headers_that_do_not_come_to_their_end_are_not_waited_for() {
    let daemon = Daemon::start(&[]);
    run(async {
        let begin = Instant::now();
        let mut slow = TcpStream::connect(&daemon.clients[0]).await.expect("it listens");
        slow.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n").await.expect("written");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "it waits for ever");
        let took = begin.elapsed().as_secs();
        assert!((9..20).contains(&took), "{took} s");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn s24_odd_paths_reach_no_method() {
    use cairn_proto::etcdserverpb::auth_client::AuthClient;
    let daemon = Daemon::start(&["--bcrypt-cost=4"]);
    run(async {
        let mut auth = AuthClient::new(daemon.channel().await);
        let add = pb::AuthUserAddRequest { name: "root".into(), password: "p".into(), ..Default::default() };
        auth.user_add(add).await.expect("added");
        auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.expect("added");
        let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        auth.user_grant_role(grant).await.expect("granted");
        for enabled in [false, true] {
            if enabled {
                auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");
            }
            for path in [
                "//etcdserverpb.KV/Put",
                "/etcdserverpb.KV//Put",
                "/etcdserverpb.KV/Put/",
                "/etcdserverpb.kv/put",
                "/ETCDSERVERPB.KV/PUT",
                "/etcdserverpb.KV%2fPut",
                "/%65tcdserverpb.KV/Put",
                "/etcdserverpb.KV/../etcdserverpb.KV/Put",
                "/./etcdserverpb.KV/Put",
                "/etcdserverpb.KV/Put%00",
                "/etcdserverpb/KV/Put",
                "/etcdserverpb.KV.Put",
                "/",
            ] {
                let put = pb::PutRequest { key: "k".into(), ..Default::default() };
                let (code, text) = raw_call(&daemon.clients[0], path, &[], &put).await;
                assert_eq!(code, 12, "{path}: {text}");
            }
        }
        // Without a slash in front no client of HTTP/2 sends it: by hand, and nothing is served.
        for path in ["etcdserverpb.KV/Put", "*", "http://localhost/etcdserverpb.KV/Put"] {
            let mut connection = TcpStream::connect(&daemon.clients[0]).await.expect("it listens");
            let put = frame(DATA, 1, 1, &[0, 0, 0, 0, 3, 0x0a, 1, b'k']);
            let head = frame(HEADERS, END_HEADERS, 1, &call(path));
            let settings = frame(SETTINGS, 0, 0, &[]);
            connection.write_all(&[PREFACE, &settings, &head, &put].concat()).await.expect("written");
            let mut answer = Vec::new();
            let patience = Duration::from_millis(500);
            while let Ok(Ok(1..)) = tokio::time::timeout(patience, connection.read_buf(&mut answer)).await {}
        }
        let read = pb::RangeRequest { key: "k".into(), ..Default::default() };
        let login = pb::AuthenticateRequest { name: "root".into(), password: "p".into() };
        let token = auth.authenticate(login).await.expect("logged in").into_inner().token;
        let mut read = tonic::Request::new(read);
        read.metadata_mut().insert("token", token.parse().expect("a header"));
        let found = daemon.kv().await.range(read).await.expect("read").into_inner();
        assert_eq!((found.count, found.header.expect("a header").revision), (0, 1), "nothing was written");
    });
    quiet_end(daemon);
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Every file and directory below one.
fn below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            below(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn s28_what_a_member_writes_is_its_owners_alone() {
    let daemon = Daemon::start(&[]);
    run(async {
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        daemon.kv().await.put(put).await.expect("put");
        daemon.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("a checkpoint");
    });
    let data = daemon.data_dir();
    let mut all = vec![data.clone()];
    below(&data, &mut all);
    assert!(all.len() >= 5, "{all:?}");
    for path in all {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

// rule: DD-1
#[test]
fn s06_a_data_directory_that_others_can_read_is_told_and_what_is_in_it_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    for made in [&data, &data.join("member")] {
        std::fs::create_dir(made).expect("made");
        std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o777)).expect("opened");
    }
    let daemon = Daemon::start_in(dir, &[]);
    assert!(daemon.has_said("check file permission"));
    assert_eq!((mode(&data), mode(&data.join("member"))), (0o777, 0o700));
    let line = daemon.log.iter().find(|line| line["msg"] == "check file permission").expect("it was said");
    assert_eq!(line["path"], data.display().to_string());
}
