// SPDX-License-Identifier: Apache-2.0
//! The plain HTTP paths, answer by answer.

use crate::support::{Daemon, run};
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// One HTTP/1.1 request with these header lines.
pub async fn ask(address: &str, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "host: localhost\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("answered");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().expect("a status line").split(' ').nth(1).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.parse().expect("a number"),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

pub async fn get(address: &str, path: &str) -> Answer {
    ask(address, "GET", path, "").await
}

const TEXT: &str = "text/plain; charset=utf-8";

// rule: HT-1
// rule: HT-2
// rule: HT-3
// rule: HT-7
#[test]
fn the_client_port_answers_as_etcds_does() {
    run(async {
        let daemon = Daemon::start(&[]);
        let address = &daemon.clients[0];
        for (path, status, content_type, body) in [
            ("/health", 200, TEXT, "{\"health\":\"true\",\"reason\":\"\"}"),
            ("/health?serializable=true&exclude=NOSPACE", 200, TEXT, "{\"health\":\"true\",\"reason\":\"\"}"),
            ("/livez", 200, TEXT, "ok\n"),
            ("/livez?verbose", 200, TEXT, "[+]serializable_read ok\nok\n"),
            ("/livez/serializable_read", 200, TEXT, "ok\n"),
            ("/readyz/linearizable_read?verbose", 200, TEXT, "[+]linearizable_read ok\nok\n"),
            (
                "/readyz?verbose&exclude=non_learner&exclude=frob",
                200,
                TEXT,
                "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
            ),
            (
                "/version",
                200,
                "application/json",
                "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}",
            ),
            ("/", 404, TEXT, "404 page not found\n"),
            ("/health/", 404, TEXT, "404 page not found\n"),
            ("/readyz/frob", 404, TEXT, "404 page not found\n"),
            ("/members", 404, TEXT, "404 page not found\n"),
            ("/debug/pprof/", 404, TEXT, "404 page not found\n"),
            (
                "/v3/kv/range",
                501,
                "application/json",
                "{\"code\":12,\"message\":\"the JSON gateway is not there yet: use gRPC\"}",
            ),
        ] {
            let answer = get(address, path).await;
            assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
            assert_eq!(answer.headers["content-type"], content_type, "{path}");
            assert_eq!(answer.headers["access-control-allow-origin"], "*", "{path}");
        }
        for path in ["/health", "/version", "/livez", "/debug/vars"] {
            for method in ["POST", "HEAD"] {
                let answer = ask(address, method, path, "content-length: 0\r\n").await;
                assert_eq!(
                    (answer.status, answer.headers["allow"].as_str()),
                    (405, "GET"),
                    "{method} {path}"
                );
            }
        }
        let variables: serde_json::Value =
            serde_json::from_str(&get(address, "/debug/vars").await.body).expect("JSON");
        assert_eq!(variables["raft.status"]["raftState"], "StateLeader");
    });
}

// rule: HT-2
// rule: HT-3
#[test]
fn an_alarm_is_unhealthy_and_ready() {
    run(async {
        let daemon = Daemon::start(&["--quota-backend-bytes=1"]);
        let put = cairn_proto::etcdserverpb::PutRequest { key: "k".into(), ..Default::default() };
        daemon.kv().await.put(put).await.expect_err("full");
        let address = &daemon.clients[0];
        let answer = get(address, "/health").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n")
        );
        assert_eq!(get(address, "/health?exclude=NOSPACE").await.status, 200);
        assert_eq!(get(address, "/readyz").await.status, 200);
        let metrics = get(address, "/metrics").await.body;
        for line in ["etcd_server_health_failures 1", "etcd_server_health_success 1"] {
            assert!(metrics.lines().any(|found| found == line), "{line}");
        }
        assert!(metrics.contains("alarm_type=\"NOSPACE\"} 1"));
    });
}

// rule: HT-6
#[test]
fn hosts_and_origins_are_checked_when_they_are_listed() {
    run(async {
        let flags = ["--host-whitelist=good.example,127.0.0.1", "--cors=http://good.example:80"];
        let daemon = Daemon::start(&flags);
        let address = &daemon.clients[0];
        let answer = ask(address, "GET", "/version", "host: evil.example:2379\r\n").await;
        assert_eq!(answer.status, 421);
        assert!(
            answer.body.starts_with("\netcd received your request, but the Host header was unrecognized.")
        );
        assert!(answer.body.contains("evil.example"));
        let answer =
            ask(address, "GET", "/version", "host: good.example:2379\r\norigin: http://good.example:80\r\n")
                .await;
        assert_eq!(
            (answer.status, answer.headers["access-control-allow-origin"].as_str()),
            (200, "http://good.example:80")
        );
        let answer =
            ask(address, "GET", "/version", "host: good.example\r\norigin: http://evil.example:80\r\n").await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let answer = ask(address, "OPTIONS", "/v3/kv/range", "host: good.example\r\n").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    });
}

// rule: CL-15
// rule: HT-9
#[test]
fn the_peer_port_answers_what_one_member_has() {
    run(async {
        let socket = tempfile::tempdir().expect("a directory");
        let path = socket.path().join("peer.sock");
        let url = format!("--listen-peer-urls=unix://{}", path.display());
        let daemon = Daemon::start(&[&url, "--name=m1", "--initial-cluster=m1=http://localhost:2380"]);
        let answer = |request: &'static str| {
            let path = path.clone();
            async move {
                let mut stream = tokio::net::UnixStream::connect(path).await.expect("it listens");
                let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                stream.write_all(text.as_bytes()).await.expect("sent");
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.expect("answered");
                String::from_utf8(bytes).expect("text")
            }
        };
        let members = answer("GET /members").await;
        assert!(members.contains("x-etcd-cluster-id: cdf818194e3a8c32\r\n"), "{members}");
        assert!(
            members.ends_with(
                "[{\"id\":10276657743932975437,\"peerURLs\":[\"http://localhost:2380\"],\"name\":\"m1\",\
                 \"clientURLs\":[\"http://127.0.0.1:1\"]}]\n"
            ),
            "{members}"
        );
        assert!(answer("GET /version").await.contains("\"etcdserver\":\"3.7.1\""));
        assert!(answer("GET /downgrade/enabled").await.ends_with("\r\n\r\nfalse"));
        for path in ["GET /health", "GET /metrics", "GET /", "POST /raft"] {
            assert!(answer(path).await.starts_with("HTTP/1.1 404"), "{path}");
        }
        drop(daemon);
    });
}

// rule: HT-1
// rule: HT-5
// rule: E2-13
#[test]
fn plain_paths_can_have_listeners_of_their_own() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let metrics = dir.path().join("metrics.sock");
        let metrics_url = format!("--listen-metrics-urls=unix://{}", metrics.display());
        let daemon = Daemon::start(&["--listen-client-http-urls=http://127.0.0.1:0", &metrics_url]);
        let [grpc, http] = &daemon.clients[..] else { panic!("{:?}", daemon.clients) };
        assert_eq!(get(http, "/health").await.status, 200);
        let put = cairn_proto::etcdserverpb::PutRequest { key: "k".into(), ..Default::default() };
        daemon.kv().await.put(put).await.expect("gRPC on its own port");
        let mut plain = TcpStream::connect(grpc).await.expect("it listens");
        plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut bytes = Vec::new();
        // The end of the connection, with or without a reset.
        let _closed = plain.read_to_end(&mut bytes).await;
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "HTTP/1 is answered on the port for gRPC");
        let mut stream = tokio::net::UnixStream::connect(&metrics).await.expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
    });
}
