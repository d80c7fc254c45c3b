// SPDX-License-Identifier: Apache-2.0
//! What must reach nothing, and stop nothing: headers without an end, odd paths, messages that cannot be read, wide
//! permissions.
//!
//! Owns      the exact answer to each.
//! Holds     the same daemon is there afterwards, and has said nothing of a panic.
//! Never     uses a client that refuses to send what is wrong.

use crate::{
    frames::{DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, call, frame},
    support::{Daemon, PATIENCE, quiet_end, raw_body, raw_call, run},
};
use bytes::Bytes;
use cairn_proto::{errors, etcdserverpb as pb, v3electionpb};
use http_body_util::Full;
use prost::Message;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

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

/// A message in gRPC's five bytes.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A transaction whose one operation is so many transactions deep.
fn nested(depth: usize) -> Vec<u8> {
    let op = |request| pb::RequestOp { request: Some(request) };
    let inner = (0..depth).fold(pb::TxnRequest::default(), |inner, _| pb::TxnRequest {
        success: vec![op(pb::request_op::Request::RequestTxn(inner))],
        ..Default::default()
    });
    framed(&inner.encode_to_vec())
}

/// What it is, the path, the body, metadata, and the code and the beginning of the text that come of it.
type Case<'a> = (&'a str, &'a str, Vec<u8>, &'a [(&'a str, &'a [u8])], u32, &'a str);

#[test]
fn s25_what_cannot_be_read_and_what_no_enum_has_is_refused_in_grpcs_and_etcds_words() {
    const RANGE: &str = "/etcdserverpb.KV/Range";
    const TXN: &str = "/etcdserverpb.KV/Txn";
    const UNREADABLE: &str = "grpc: error unmarshalling request";
    fn of(message: &impl Message) -> Vec<u8> {
        framed(&message.encode_to_vec())
    }
    let get = |sort_order, sort_target| pb::RangeRequest {
        key: "k".into(),
        sort_order,
        sort_target,
        ..Default::default()
    };
    let groups = [vec![0x7b; 150], vec![0x7c; 150]].concat();
    let op = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
    let compare = pb::Compare { key: "k".into(), result: 99, target: 99, ..Default::default() };
    let compare = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    let alarm = pb::AlarmRequest { action: 99, ..Default::default() };
    let (name, proclaim) = ("\u{fffd}", v3electionpb::ProclaimRequest::default());
    let cases: &[Case<'_>] = &[
        ("groups inside one another", RANGE, framed(&groups), &[], 13, UNREADABLE),
        ("transactions beyond what is decoded", TXN, nested(60), &[], 13, UNREADABLE),
        ("transactions beyond what is allowed", TXN, nested(33), &[], 3, errors::TOO_MANY_OPS.text),
        ("a key of two gigabytes", RANGE, framed(b"\x0a\x80\x80\x80\x80\x08k"), &[], 13, UNREADABLE),
        (
            "a key longer than any number",
            RANGE,
            framed(&[&[0x0a][..], &[0xff; 11]].concat()),
            &[],
            13,
            UNREADABLE,
        ),
        ("a key that is a number", RANGE, framed(b"\x08\x01"), &[], 13, UNREADABLE),
        (
            "a name that is no text",
            "/etcdserverpb.Auth/RoleAdd",
            framed(b"\x0a\x02\xff\xfe"),
            &[],
            13,
            UNREADABLE,
        ),
        (
            "a name of the mark for no text",
            "/etcdserverpb.Auth/RoleGet",
            framed(&[&[0x0a, 3], name.as_bytes()].concat()),
            &[],
            9,
            errors::ROLE_NOT_FOUND.text,
        ),
        (
            "a frame of two gigabytes",
            RANGE,
            vec![0, 0x80, 0, 0, 0],
            &[],
            8,
            "grpc: received message larger than max (2147483648 vs. 2097152)",
        ),
        (
            "a frame of all bits",
            RANGE,
            vec![0, 0xff, 0xff, 0xff, 0xff, 1],
            &[],
            8,
            "grpc: received message larger than max (4294967295 vs. 2097152)",
        ),
        ("a frame cut in its message", RANGE, vec![0, 0, 0, 0, 100, 0x0a], &[], 13, ""),
        ("a frame cut in its head", RANGE, vec![0, 0, 0], &[], 13, ""),
        ("a flag that is none", RANGE, vec![9, 0, 0, 0, 0], &[], 13, ""),
        ("packed, and not said how", RANGE, vec![1, 0, 0, 0, 1, 7], &[], 13, ""),
        (
            "packed, and nothing that unpacks",
            RANGE,
            vec![1, 0, 0, 0, 1, 7],
            &[("grpc-encoding", b"gzip")],
            13,
            "",
        ),
        ("no frame", RANGE, vec![], &[], 13, ""),
        (
            "a version that is no text",
            RANGE,
            of(&get(0, 0)),
            &[("client-api-version", b"3.\xff")],
            3,
            errors::INVALID_CLIENT_API_VERSION.text,
        ),
        (
            "a token that is no text, where none is asked for",
            RANGE,
            of(&get(0, 0)),
            &[("token", b"\xff\xfe")],
            0,
            "",
        ),
        ("metadata of nobody that is no text", RANGE, of(&get(0, 0)), &[("x-odd", b"\xff\xfe")], 0, ""),
        ("an order that is none", RANGE, of(&get(99, 0)), &[], 3, errors::INVALID_SORT_OPTION.text),
        ("a target that is none", RANGE, of(&get(0, -1)), &[], 3, errors::INVALID_SORT_OPTION.text),
        (
            "an action that is none",
            "/etcdserverpb.Maintenance/Alarm",
            of(&alarm),
            &[],
            2,
            errors::UNKNOWN_METHOD.text,
        ),
        ("a compare of nothing by nothing", TXN, of(&compare), &[], 0, ""),
        ("an operation that is none", TXN, of(&op), &[], 3, errors::KEY_NOT_FOUND.text),
        (
            "a proclamation of nobody",
            "/v3electionpb.Election/Proclaim",
            of(&proclaim),
            &[],
            2,
            errors::MISSING_LEADER_KEY.text,
        ),
        (
            "a watch request of no kind",
            "/etcdserverpb.Watch/Watch",
            framed(&[]),
            &[("grpc-timeout", b"200m")],
            4,
            "context deadline exceeded",
        ),
        (
            "a watch request that cannot be read",
            "/etcdserverpb.Watch/Watch",
            framed(&groups),
            &[],
            13,
            UNREADABLE,
        ),
        (
            "a renewal that cannot be read",
            "/etcdserverpb.Lease/LeaseKeepAlive",
            framed(&groups),
            &[],
            13,
            UNREADABLE,
        ),
    ];
    let daemon = Daemon::start(&[]);
    run(async {
        for (what, path, body, headers, code, text) in cases {
            let begin = Instant::now();
            let body = Full::new(Bytes::from(body.clone()));
            let answer = raw_body(&daemon.clients[0], path, headers, body).await;
            assert!(answer.0 == *code && answer.1.starts_with(text), "{what}: {answer:?}");
            assert!(begin.elapsed() < PATIENCE / 6, "{what}: {:?}", begin.elapsed());
        }
    });
    quiet_end(daemon);
}

/// A body of these bytes that never ends.
fn endless(
    bytes: &'static [u8],
) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin + Send {
    use futures_util::{StreamExt as _, stream};
    let first = stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(bytes)))]);
    http_body_util::StreamBody::new(first.chain(stream::pending()))
}

/// LIMIT-5, whatever it is that the caller does not send.
#[test]
fn s25_a_deadline_ends_a_call_whose_message_never_comes_to_its_end() {
    let daemon = Daemon::start(&[]);
    let late: (&[(&str, &[u8])], _) =
        (&[("grpc-timeout", b"200m")], (4, "context deadline exceeded".to_owned()));
    run(async {
        for begun in [&b""[..], b"\0", b"\0\0\0\0\x64", b"\0\0\0\0\x64\x0a"] {
            for path in
                ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream", "/etcdserverpb.Watch/Watch"]
            {
                let begin = Instant::now();
                let answer = raw_body(&daemon.clients[0], path, late.0, endless(begun)).await;
                assert_eq!(answer, late.1, "{path} after {begun:?}");
                assert!(begin.elapsed() < PATIENCE / 6, "{path} after {begun:?}: {:?}", begin.elapsed());
            }
        }
        // What is seen to be wrong is not waited for.
        let wrong: [(&'static [u8], u32); 3] =
            [(b"\x09\0\0\0\0", 13), (b"\0\x80\0\0\0", 8), (b"\0\0\0\0\x02\x0a\xff", 13)];
        for (begun, code) in wrong {
            let (found, text) =
                raw_body(&daemon.clients[0], "/etcdserverpb.KV/Range", &[], endless(begun)).await;
            assert_eq!(found, code, "{begun:?}: {text}");
        }
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
