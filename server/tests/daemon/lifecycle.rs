// SPDX-License-Identifier: Apache-2.0
//! Start and end of the process: what it says, and with which status it ends.

use crate::{
    http,
    support::{Daemon, PATIENCE, run, run_to_end},
};
use cairn_proto::etcdserverpb as pb;
use futures_util::stream;
use rustix::process::Signal;
use std::{os::unix::process::ExitStatusExt as _, time::Instant};
use tonic::Code;

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

/// Level, message and cause of the last line.
fn last(err: &str) -> [String; 3] {
    let last = err.lines().last().expect("a line");
    let line: serde_json::Value = serde_json::from_str(last).expect("JSON");
    ["level", "msg", "error"].map(|key| line[key].as_str().unwrap_or_default().to_owned())
}

// rule: SD-3
// rule: SD-5
// rule: LIMIT-10
#[test]
fn a_signal_ends_streams_answers_requests_and_loses_nothing() {
    run(async {
        let mut daemon = Daemon::start(&[]);
        daemon.kv().await.put(put("k")).await.expect("put");
        let requests = stream::pending::<pb::WatchRequest>();
        let mut watch = daemon.watch().await.watch(requests).await.expect("open").into_inner();
        let mut lock = daemon.lock().await;
        let held = cairn_proto::v3lockpb::LockRequest { name: "l".into(), lease: 0 };
        lock.lock(held.clone()).await.expect("free");
        let waiting = tokio::spawn(async move { lock.lock(held).await });
        let begin = Instant::now();
        daemon.signal(Signal::TERM);
        let error = watch.message().await.expect_err("ended");
        assert_eq!((error.code(), error.message()), (Code::Unavailable, "etcdserver: server stopped"));
        drop(watch);
        assert_eq!(waiting.await.expect("no panic").expect_err("given up").code(), Code::Unavailable);
        let status = tokio::task::spawn_blocking(move || {
            let status = daemon.wait();
            (status, daemon)
        });
        let (status, daemon) = status.await.expect("no panic");
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status:?}");
        assert!(begin.elapsed() < cairn::daemon::STOP_LIMIT, "{:?}", begin.elapsed());
        for line in ["received signal; shutting down", "closing etcd server", "closed etcd server"] {
            assert!(daemon.has_said(line), "{line}");
        }
        let again = Daemon::start_in(daemon.stop_ended(), &[]);
        let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(again.kv().await.range(get).await.expect("read").into_inner().kvs[0].value, "v");
    });
}

// rule: SD-3
#[test]
fn a_second_signal_ends_it_at_once() {
    run(async {
        let mut daemon = Daemon::start(&[]);
        // A stream whose client never lets go of it holds the first signal's end back.
        let mut held = tokio::net::TcpStream::connect(&daemon.clients[0]).await.expect("it listens");
        tokio::io::AsyncWriteExt::write_all(&mut held, b"GET /health HTTP/1.1\r\n").await.expect("sent");
        http::get(&daemon.clients[0], "/health").await;
        daemon.signal(Signal::INT);
        daemon.wait_for("closing etcd server");
        daemon.signal(Signal::INT);
        let status = tokio::task::spawn_blocking(move || daemon.wait()).await.expect("no panic");
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");
        drop(held);
    });
}

// rule: SD-1
// rule: LG-6
#[test]
fn it_says_what_it_is_and_when_it_is_ready() {
    run(async {
        let daemon = Daemon::start(&["--snapshot-count=7", "--log-level=debug"]);
        let said = |message: &str| daemon.log.iter().position(|line| line["msg"] == message).expect(message);
        assert!(said("flag has no effect") < said("starting an etcd server"));
        assert!(said("starting an etcd server") < said("ready to serve client requests"));
        let configuration = &daemon.log[said("starting an etcd server")];
        assert_eq!(configuration["etcd-version"], "3.7.1");
        assert_eq!(configuration["quota-backend-bytes"], 2_147_483_648u64);
        assert_eq!(daemon.log[said("flag has no effect")]["level"], "warn");
        // rule: AU-30
        assert_eq!(daemon.log[said("simple token is not cryptographically signed")]["level"], "warn");
    });
}

// rule: BO-14, SD-8
#[test]
fn mistakes_end_with_their_status_and_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, _) = run_to_end(&["--version"], dir.path());
    assert_eq!(code, Some(0));
    assert!(out.lines().any(|line| line == "etcd Version: 3.7.1"));
    let (code, out, _) = run_to_end(&["-h"], dir.path());
    assert_eq!(code, Some(0));
    assert!(out.contains("--listen-client-urls") && out.contains("Exit status"));
    let (code, out, err) = run_to_end(&["--frob"], dir.path());
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("flag provided but not defined: -frob\nUsage: cairn [flags]"), "{err}");
    // What is wrong with the flags, and what is wrong where they lead.
    let (flags, start) = (["warn", "failed to verify flags"], ["fatal", "discovery failed"]);
    for (arguments, [level, message], cause) in [
        (&["--cert-file=x"][..], flags, "--cert-file and --key-file must both be present, or both absent"),
        (&["--election-timeout=60000"], flags, "--election-timeout[60000ms] is too long"),
        (&["--initial-cluster=a=http://a:1"], flags, "couldn't find local name \"default\""),
        (&["--log-outputs=/no/such/dir/log"], flags, "/no/such/dir/log"),
        (
            &["--initial-cluster-state=existing"],
            start,
            "could not retrieve cluster information from the given URLs",
        ),
        (&["--force-new-cluster"], start, "--force-new-cluster needs the data of a member"),
    ] {
        let (code, _, err) = run_to_end(arguments, dir.path());
        let told = last(&err);
        assert_eq!((code, [&told[0][..], &told[1][..]]), (Some(1), [level, message]), "{arguments:?}");
        assert!(told[2].contains(cause), "{told:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing was made");
}

// rule: DD-4
#[test]
fn a_directory_in_use_is_refused_at_once() {
    run(async {
        let daemon = Daemon::start(&[]);
        let begin = Instant::now();
        let data = format!("--data-dir={}", daemon.data_dir().display());
        let flags = [
            data.as_str(),
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--listen-peer-urls=http://127.0.0.1:0",
        ];
        let (code, _, err) = run_to_end(&flags, daemon.path());
        assert_eq!(code, Some(3), "{err}");
        let [level, message, cause] = last(&err);
        assert_eq!((&level[..], &message[..]), ("fatal", "discovery failed"));
        assert!(cause.contains("in use by another process"), "{err}");
        assert!(begin.elapsed() < PATIENCE / 2);
        daemon.kv().await.put(put("k")).await.expect("the first one is unharmed");
    });
}

// rule: DD-3
#[test]
fn a_directory_of_etcd_is_refused_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data/member/snap");
    std::fs::create_dir_all(&data).expect("made");
    std::fs::write(data.join("db"), b"of etcd").expect("written");
    let wal = dir.path().join("data/member/wal");
    std::fs::create_dir_all(&wal).expect("made");
    std::fs::write(wal.join("0000000000000000-0000000000000000.wal"), b"of etcd").expect("written");
    let mut daemon = Daemon::spawn(dir, &[]);
    assert_eq!(daemon.wait().code(), Some(5), "{:#?}", daemon.log);
    assert!(daemon.has_said("made by etcd"));
    assert_eq!(std::fs::read(data.join("db")).expect("still there"), b"of etcd");
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("data"), b"a file").expect("written");
    let mut daemon = Daemon::spawn(dir, &[]);
    assert_eq!(daemon.wait().code(), Some(4), "{:#?}", daemon.log);
    assert!(daemon.has_said("cannot access data directory"));
}

#[test]
fn a_damaged_file_is_told_by_name() {
    run(async {
        let daemon = Daemon::start(&[]);
        daemon.kv().await.put(put("k")).await.expect("put");
        daemon.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("a checkpoint");
        let dir = daemon.stop();
        let mut files = Vec::new();
        let mut left = vec![dir.path().join("data/member")];
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(path).expect("readable") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { left.push(path) } else { files.push(path) }
            }
        }
        for file in &files {
            let len = std::fs::metadata(file).expect("there").len() as usize;
            std::fs::write(file, vec![0x5a; len]).expect("written");
        }
        let mut daemon = Daemon::spawn(dir, &[]);
        let code = daemon.wait().code();
        assert!(code == Some(6) || code == Some(5), "{code:?} {:#?}", daemon.log);
        let last = daemon.log.last().expect("a line")["error"].as_str().expect("text").to_owned();
        assert!(files.iter().any(|file| last.contains(&*file.to_string_lossy())), "{last}");
    });
}

#[test]
fn a_store_cut_from_outside_ends_the_process_with_one_line_that_names_it() {
    run(async {
        let mut daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        kv.put(put("k")).await.expect("put");
        daemon.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("a checkpoint");
        let get = || pb::RangeRequest { key: "k".into(), ..Default::default() };
        // The first read finds its pages right; those after it take them as they are.
        for _ in 0..2 {
            assert_eq!(kv.range(get()).await.expect("read").into_inner().kvs.len(), 1);
        }
        let path = daemon.data_dir().join("member/engine.db");
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("ours");
        file.set_len(16 << 12).expect("cut");
        kv.range(get()).await.expect_err("its pages are gone");
        let (status, rest) = daemon.wait_for_any_end();
        assert_eq!(status.code(), Some(74), "{rest}");
        let said: Vec<&str> = rest.lines().filter(|line| !line.starts_with('{')).collect();
        let [line] = said[..] else { panic!("one line, not {rest}") };
        assert!(line.starts_with("cairn: cannot read page "), "{line}");
        assert!(line.contains(&*path.to_string_lossy()) && line.contains("cut from outside"), "{line}");
    });
}

// rule: SD-11
#[test]
fn a_port_in_use_is_told_with_its_address_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let mut daemon = Daemon::spawn(dir, &[&format!("--listen-client-urls=http://{address}")]);
    assert_eq!(daemon.wait().code(), Some(8));
    assert!(daemon.has_said(&format!("listen tcp {address}: bind: address already in use")));
    assert!(!daemon.data_dir().exists());
}

// rule: SD-9
#[test]
fn too_few_descriptors_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = format!("ulimit -n 150; exec {} --data-dir=data", crate::support::PROGRAM);
    let output = std::process::Command::new("timeout")
        .args(["--signal=KILL", "60", "sh", "-c", &script])
        .current_dir(dir.path())
        .output()
        .expect("sh runs");
    assert_eq!(output.status.code(), Some(9));
    let [_, text, _] = last(&String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("file descriptor limit of etcd process is too low; please set higher"), "{text}");
    assert!(!dir.path().join("data").exists());
}

// rule: E2-13
#[test]
fn unix_sockets_serve_clients_and_go_with_the_process() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let mut daemon = Daemon::start_in(dir, &["--listen-client-urls=unix://localhost:12379"]);
        let path = daemon.path().join("localhost:12379");
        assert_eq!(daemon.clients, ["localhost:12379"]);
        let endpoint = tonic::transport::Endpoint::from_static("http://unused");
        let connect = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = connect.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.expect("it listens");
        pb::kv_client::KvClient::new(channel).put(put("k")).await.expect("put");
        daemon.signal(Signal::TERM);
        daemon.wait();
        assert!(!path.exists());
    });
}

#[test]
fn readiness_is_told_to_the_supervisor() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let daemon = Daemon::start_with_env(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
    let mut bytes = [0; 16];
    let len = socket.recv(&mut bytes).expect("told");
    assert_eq!(&bytes[..len], b"READY=1");
    drop(daemon);
}
