// SPDX-License-Identifier: Apache-2.0
//! TLS as clients and operators meet it.
//!
//! Owns      who is let in on a secure listener, by which protocol, and as whom.
//! Holds     certificates are made in the test, by authorities of its own.
//! Never     waits for a time, but to see that a silent connection is ended.

use crate::{
    certs::{Ask, Authority, Client, Issued, files},
    support::{Daemon, PATIENCE, run, run_to_end, until},
};
use cairn_proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_client::AuthClient, kv_client::KvClient},
};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};
use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};
use tonic::transport::Channel;

const HTTPS: &str = "--listen-client-urls=https://127.0.0.1:0";

/// A daemon, who issued its certificate, and where its files are.
struct Secured {
    authority: Authority,
    dir: tempfile::TempDir,
    daemon: Daemon,
}

impl Secured {
    fn start(flags: &[&str]) -> Secured {
        Self::start_showing(Ask::default(), |_, _| Vec::new(), flags)
    }

    /// `more` writes files and names the flags for them.
    fn start_showing(
        ask: Ask<'_>,
        more: impl FnOnce(&Authority, &crate::certs::Files) -> Vec<String>,
        flags: &[&str],
    ) -> Secured {
        let (authority, dir) = (Authority::new("the authority"), tempfile::tempdir().expect("a directory"));
        let files = files(dir.path());
        let mut all: Vec<String> = vec![HTTPS.into()];
        all.extend(files.show(&authority.issue(ask)));
        all.extend(more(&authority, &files));
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&all);
        Secured { authority, dir, daemon }
    }

    fn address(&self) -> &str {
        &self.daemon.clients[0]
    }

    fn issue(&self, name: &str, serial: u64) -> Issued {
        self.authority.issue(Ask { name, serial, ..Ask::default() })
    }

    fn client(&self, shows: Option<&Issued>) -> Client {
        Client::new(&self.authority, shows)
    }
}

/// The flags with which clients must show certificates of the authority.
fn trusting(authority: &Authority, files: &crate::certs::Files) -> Vec<String> {
    vec!["--client-cert-auth".into(), format!("--trusted-ca-file={}", files.put("ca.pem", authority.pem()))]
}

async fn put(channel: Channel, key: &str) -> Result<i64, tonic::Status> {
    let put = pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    let answer = KvClient::new(channel).put(put).await?.into_inner();
    Ok(answer.header.expect("a header").revision)
}

/// Whether a client is let in.
async fn enters(client: &Client, address: &str) -> bool {
    match client.channel(address).await {
        Ok(channel) => put(channel, "enters").await.is_ok(),
        Err(_) => false,
    }
}

// rule: TL-4
#[test]
fn one_secure_port_serves_grpc_and_http_1_to_clients_that_offer_it_or_nothing() {
    let secured = Secured::start(&[]);
    assert!(secured.daemon.has_said("serving client traffic securely"));
    assert!(!secured.daemon.has_said("insecurely"));
    run(async {
        let (client, address) = (secured.client(None), secured.address());
        let channel = client.channel(address).await.expect("it shakes hands");
        assert_eq!(put(channel, "k").await.expect("put"), 2);
        for protocols in [&[][..], &["http/1.1"]] {
            let answer = client.get(address, "/version", protocols).await.expect("an answer");
            assert!(answer.contains("\"etcdserver\":\"3.7.1\""), "{protocols:?}: {answer}");
        }
        for (protocols, chosen) in [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], None)] {
            let stream = client.connect(address, protocols).await.expect("it shakes hands");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{protocols:?}");
        }
        let plain = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        let refused = match plain.connect().await {
            Ok(channel) => put(channel, "k").await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "nothing is served without TLS");
        assert!(client.connect(address, &["spdy/1"]).await.is_err());
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("rejected connection on client endpoint");
}

// rule: TL-4
#[test]
fn http_and_https_urls_of_one_address_are_told_apart_by_the_first_byte() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let both = format!("--listen-client-urls=http://127.0.0.1:{port},https://127.0.0.1:{port}");
    let secured = Secured::start(&[&both]);
    assert!(secured.daemon.has_said("serving client traffic securely"));
    assert!(secured.daemon.has_said("insecurely"));
    run(async {
        assert!(enters(&secured.client(None), secured.address()).await);
        assert_eq!(put(secured.daemon.channel().await, "plain").await.expect("put"), 3);
    });
}

// rule: TL-13
#[test]
fn a_socket_of_a_file_can_be_secure() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s:1");
    let url = format!("--listen-client-urls=unixs://{}", path.display());
    let secured = Secured::start(&[&url]);
    run(async {
        let stream = tokio::net::UnixStream::connect(&path).await.expect("it listens");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = secured.client(None).connector();
        connector.connect(name, stream).await.expect("it shakes hands");
    });
}

// rule: TL-2
// rule: TL-7
#[test]
fn client_certificates_are_asked_for_and_verified_where_authorities_are_named() {
    let authorities = |authority: &Authority, files: &crate::certs::Files| {
        vec![format!("--trusted-ca-file={}", files.put("ca.pem", authority.pem()))]
    };
    let secured = Secured::start_showing(Ask::default(), authorities, &[]);
    let stranger = Authority::new("a stranger").issue(Ask::default());
    let late = secured.authority.issue(Ask { days: 0, ..Ask::default() });
    run(async {
        let address = secured.address();
        assert!(enters(&secured.client(Some(&secured.issue("alice", 7))), address).await);
        for (shows, why) in [(None, "none"), (Some(&stranger), "a stranger's"), (Some(&late), "expired")] {
            assert!(!enters(&secured.client(shows), address).await, "{why}");
        }
    });
    let mut daemon = secured.daemon;
    let errors = |daemon: &Daemon| -> Vec<String> {
        let lines = daemon.log.iter().filter(|line| line["msg"] == "rejected connection on client endpoint");
        lines.map(|line| line["error"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for expected in [
        "tls: client didn't provide a certificate",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
    ] {
        while !errors(&daemon).iter().any(|error| error == expected) {
            assert!(daemon.read_line(), "never {expected:?}: {:#?}", daemon.log);
        }
    }
    let line = daemon.log.iter().find(|line| line["msg"] == "rejected connection on client endpoint");
    let line = line.expect("it was said");
    assert!(line["remote-addr"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{line}");
    assert_eq!(line["server-name"], "localhost");
}

// rule: TL-6
#[test]
fn a_certificate_must_be_valid_for_an_allowed_host() {
    let secured = Secured::start_showing(
        Ask::default(),
        trusting,
        &["--client-cert-allowed-hostname=a.example.org,b.example.org"],
    );
    run(async {
        for (hosts, expected) in [
            (&["a.example.org"][..], true),
            (&["c.example.org", "b.example.org"], true),
            (&["*.example.org"], true),
            (&["c.example.org"], false),
            (&[], false),
        ] {
            let shows = secured.authority.issue(Ask { name: "a.example.org", hosts, ..Ask::default() });
            let client = secured.client(Some(&shows));
            assert_eq!(enters(&client, secured.address()).await, expected, "{hosts:?}");
        }
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("rejected connection on client endpoint");
    let failed = |line: &serde_json::Value| line["error"] == "client certificate authentication failed";
    assert!(daemon.log.iter().any(failed), "{:#?}", daemon.log);
}

// rule: TL-6
#[test]
fn a_peer_must_have_an_allowed_common_name() {
    let peers = |authority: &Authority, files: &crate::certs::Files| {
        let issued = authority.issue(Ask::default());
        vec![
            "--listen-peer-urls=https://127.0.0.1:0".into(),
            format!("--peer-cert-file={}", files.put("peer.pem", issued.cert)),
            format!("--peer-key-file={}", files.put("peer.key", issued.key)),
            format!("--peer-trusted-ca-file={}", files.put("ca.pem", authority.pem())),
            "--peer-cert-allowed-cn=m1,m2".into(),
        ]
    };
    let secured = Secured::start_showing(Ask::default(), peers, &["--log-level=debug"]);
    let peer = secured.daemon.peers[0].clone();
    run(async {
        for (name, expected) in [("m1", true), ("m2", true), ("m3", false), ("", false)] {
            let client = secured.client(Some(&secured.issue(name, 9)));
            assert_eq!(client.get(&peer, "/version", &[]).await.is_ok(), expected, "{name}");
        }
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("rejected connection on peer endpoint");
}

/// A name of a certificate, and what a put, a read and the list of users answer to it.
const BY_NAME: [(&str, [Option<&str>; 3]); 4] = [
    ("writer", [None, None, Some("etcdserver: permission denied")]),
    ("root", [None, None, None]),
    (
        "nobody",
        [
            Some("etcdserver: permission denied"),
            Some("etcdserver: permission denied"),
            Some("etcdserver: user name not found"),
        ],
    ),
    (
        "",
        [
            Some("etcdserver: permission denied"),
            Some("etcdserver: permission denied"),
            Some("etcdserver: user name is empty"),
        ],
    ),
];

// rule: AU-31
#[test]
fn the_common_name_of_a_certificate_is_a_user() {
    let secured = Secured::start_showing(Ask::default(), trusting, &["--bcrypt-cost=4"]);
    run(async {
        let address = secured.address();
        let channel = secured.client(Some(&secured.issue("root", 2))).channel(address).await.expect("let in");
        let mut auth = AuthClient::new(channel);
        for (name, no_password) in [("root", false), ("writer", true)] {
            let add = pb::AuthUserAddRequest {
                name: name.into(),
                password: if no_password { String::new() } else { "secret".into() },
                options: Some(UserAddOptions { no_password }),
                ..Default::default()
            };
            auth.user_add(add).await.expect("added");
            auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await.expect("added");
            auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.into(), role: name.into() })
                .await
                .expect("granted");
        }
        let perm = Permission { perm_type: Type::Readwrite as i32, key: "k".into(), range_end: "".into() };
        let grant = pb::AuthRoleGrantPermissionRequest { name: "writer".into(), perm: Some(perm) };
        auth.role_grant_permission(grant).await.expect("granted");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");

        for (serial, (name, expected)) in BY_NAME.into_iter().enumerate() {
            let issued = secured.issue(name, 10 + serial as u64);
            let channel = secured.client(Some(&issued)).channel(address).await.expect("let in");
            let read = pb::RangeRequest { key: "k".into(), ..Default::default() };
            let told = [
                put(channel.clone(), "k").await.err(),
                KvClient::new(channel.clone()).range(read).await.err(),
                AuthClient::new(channel).user_list(pb::AuthUserListRequest {}).await.err(),
            ];
            let told = told.each_ref().map(|status| status.as_ref().map(|status| status.message()));
            assert_eq!(told, expected, "{name:?}");
        }

        // A token wins, a false one too.
        let login = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
        let token = auth.authenticate(login).await.expect("logged in").into_inner().token;
        let channel =
            secured.client(Some(&secured.issue("nobody", 20))).channel(address).await.expect("let in");
        for (token, expected) in [(token.as_str(), None), ("false.1", Some("etcdserver: invalid auth token"))]
        {
            let mut list = tonic::Request::new(pb::AuthUserListRequest {});
            list.metadata_mut().insert("token", token.parse().expect("a header"));
            let told = AuthClient::new(channel.clone()).user_list(list).await.err();
            assert_eq!(told.as_ref().map(|status| status.message()), expected);
        }
    });
}

// rule: AU-31
#[test]
fn authorities_alone_make_no_user_of_a_certificate() {
    let authorities = |authority: &Authority, files: &crate::certs::Files| {
        vec![format!("--trusted-ca-file={}", files.put("ca.pem", authority.pem()))]
    };
    let secured = Secured::start_showing(Ask::default(), authorities, &["--bcrypt-cost=4"]);
    run(async {
        let channel =
            secured.client(Some(&secured.issue("root", 2))).channel(secured.address()).await.expect("let in");
        let mut auth = AuthClient::new(channel);
        let add = pb::AuthUserAddRequest { name: "root".into(), password: "p".into(), ..Default::default() };
        auth.user_add(add).await.expect("added");
        auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.expect("added");
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() })
            .await
            .expect("granted");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");
        let told = auth.user_list(pb::AuthUserListRequest {}).await.expect_err("nobody asks");
        assert_eq!(told.message(), "etcdserver: user name is empty");
    });
}

// rule: TL-3
#[test]
fn s17_a_revoked_certificate_is_refused_on_every_listener_from_the_change_of_the_list_on() {
    let revoking = |authority: &Authority, files: &crate::certs::Files| {
        let peer = authority.issue(Ask::default());
        let ca = files.put("ca.pem", authority.pem());
        let list = files.put("list.crl", authority.revoke(&[]));
        vec![
            "--client-cert-auth".into(),
            format!("--trusted-ca-file={ca}"),
            format!("--client-crl-file={list}"),
            "--listen-client-http-urls=https://127.0.0.1:0".into(),
            "--listen-peer-urls=https://127.0.0.1:0".into(),
            format!("--peer-cert-file={}", files.put("peer.pem", peer.cert)),
            format!("--peer-key-file={}", files.put("peer.key", peer.key)),
            format!("--peer-trusted-ca-file={ca}"),
            format!("--peer-crl-file={list}"),
        ]
    };
    let secured = Secured::start_showing(Ask::default(), revoking, &[]);
    let (grpc, http) = (secured.daemon.clients[0].clone(), secured.daemon.clients[1].clone());
    let peer = secured.daemon.peers[0].clone();
    let (good, bad) = (secured.issue("good", 0x1234), secured.issue("bad", 0xABCD));
    let (good, bad) = (secured.client(Some(&good)), secured.client(Some(&bad)));
    run(async {
        let stands = bad.channel(&grpc).await.expect("not revoked yet");
        put(stands.clone(), "k").await.expect("put");
        files(secured.dir.path()).put("list.crl", secured.authority.revoke(&[0x7777, 0xABCD]));
        for client in [&good, &bad] {
            let expected = std::ptr::eq(client, &good);
            assert_eq!(enters(client, &grpc).await, expected, "gRPC");
            assert_eq!(client.get(&http, "/version", &[]).await.is_ok(), expected, "HTTP/1.1");
            assert_eq!(client.get(&http, "/health", &["http/1.1"]).await.is_ok(), expected, "ALPN http/1.1");
            assert_eq!(client.get(&peer, "/version", &[]).await.is_ok(), expected, "peers");
        }
        put(stands, "k").await.expect("a connection that stands is not touched");
        files(secured.dir.path()).put("list.crl", "not a list");
        assert!(!enters(&bad, &grpc).await, "the list that could be read stays in force");
        assert!(enters(&good, &grpc).await);
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("cannot load changed TLS files");
    let revoked = "transport: certificate serial abcd revoked";
    for endpoint in ["client", "peer"] {
        let message = format!("rejected connection on {endpoint} endpoint");
        let said = |line: &serde_json::Value| line["msg"] == message && line["error"] == revoked;
        assert!(daemon.log.iter().any(said), "{endpoint}: {:#?}", daemon.log);
    }
}

// rule: TL-3
#[test]
fn changed_files_are_shown_to_new_connections_and_do_not_touch_old_ones() {
    let secured = Secured::start_showing(Ask { serial: 1, ..Ask::default() }, trusting, &[]);
    let shown = async |client: &Client| -> Vec<u8> {
        let stream = client.connect(secured.address(), &["h2"]).await.expect("it shakes hands");
        stream.get_ref().1.peer_certificates().expect("it shows one")[0].to_vec()
    };
    let der = |issued: &Issued| {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("PEM").to_vec()
    };
    let other = Authority::new("another authority");
    run(async {
        let user = secured.issue("user", 5);
        let client = secured.client(Some(&user));
        let stands = client.channel(secured.address()).await.expect("let in");
        let before = shown(&client).await;

        let files = files(secured.dir.path());
        let fresh = secured.issue("fresh", 2);
        files.put("server.pem", &fresh.cert);
        assert_eq!(shown(&client).await, before, "a certificate without its key is not shown");
        files.put("server.key", &fresh.key);
        assert_eq!(shown(&client).await, der(&fresh));

        let others = Client::new(&secured.authority, Some(&other.issue(Ask::default())));
        assert!(!enters(&others, secured.address()).await);
        files.put("ca.pem", format!("{}{}", secured.authority.pem(), other.pem()));
        assert!(enters(&others, secured.address()).await, "a new authority");
        files.put("ca.pem", other.pem());
        assert!(!enters(&client, secured.address()).await, "one that is gone");
        put(stands, "k").await.expect("a connection that stands is not touched");
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("loaded changed TLS files");
    assert!(daemon.has_said("cannot load changed TLS files; those loaded before stay in force"));
}

#[test]
fn s17_no_handshake_is_resumed() {
    let secured = Secured::start_showing(Ask::default(), trusting, &[]);
    run(async {
        for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
            let user = secured.issue("user", 5);
            let client = Client::of_version(&secured.authority, Some(&user), Some(version), None);
            for _ in 0..2 {
                // What would let it resume comes with the answer.
                client.get(secured.address(), "/version", &[]).await.expect("an answer");
                let stream = client.connect(secured.address(), &[]).await.expect("it shakes hands");
                let kind = stream.get_ref().1.handshake_kind();
                assert!(!matches!(kind, Some(HandshakeKind::Resumed)), "{version:?}: {kind:?}");
            }
        }
    });
}

// rule: TL-8
#[test]
fn a_certificate_of_its_own_is_made_once_for_its_owner_alone() {
    let daemon = Daemon::start(&[HTTPS, "--auto-tls"]);
    let fixtures = daemon.data_dir().join("fixtures/client");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(
        [mode(&fixtures), mode(&fixtures.join("cert.pem")), mode(&fixtures.join("key.pem"))],
        [0o700, 0o600, 0o600]
    );
    let made = fs::read_to_string(fixtures.join("cert.pem")).expect("it is there");
    assert!(!daemon.data_dir().join("fixtures/peer").exists());
    let daemon = Daemon::start_in(daemon.stop(), &[HTTPS, "--auto-tls"]);
    assert_eq!(fs::read_to_string(fixtures.join("cert.pem")).ok(), Some(made.clone()));
    run(async {
        let stream = tokio::net::TcpStream::connect(&daemon.clients[0]).await.expect("it listens");
        let shown = crate::certs::shown_by(stream).await;
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        assert_eq!(shown, CertificateDer::from_pem_slice(made.as_bytes()).expect("PEM"));
    });
}

// rule: TL-8
#[test]
fn files_win_over_a_certificate_to_be_made() {
    let secured = Secured::start(&["--auto-tls"]);
    assert!(secured.daemon.has_said("ignoring client auto TLS since certs given"));
    assert!(!secured.daemon.data_dir().join("fixtures").exists());
}

// rule: TL-10
#[test]
fn versions_and_suites_are_those_of_the_flags() {
    const SUITE: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let secured = Secured::start(&[
        "--tls-max-version=TLS1.2",
        "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_RSA_WITH_AES_128_CBC_SHA",
    ]);
    assert!(secured.daemon.has_said("cipher suite is not offered"));
    run(async {
        let stream = secured.client(None).connect(secured.address(), &["h2"]).await.expect("it shakes hands");
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        assert_eq!(session.negotiated_cipher_suite().map(|suite| suite.suite()), Some(SUITE));
        for (version, suite) in [
            (ProtocolVersion::TLSv1_3, None),
            (ProtocolVersion::TLSv1_2, Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
        ] {
            let client = Client::of_version(&secured.authority, None, Some(version), suite);
            assert!(client.connect(secured.address(), &["h2"]).await.is_err(), "{version:?} {suite:?}");
        }
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("rejected connection on client endpoint");
    let secured = Secured::start(&["--tls-min-version=TLS1.3"]);
    run(async {
        let old = Client::of_version(&secured.authority, None, Some(ProtocolVersion::TLSv1_2), None);
        assert!(old.connect(secured.address(), &["h2"]).await.is_err());
        assert!(enters(&secured.client(None), secured.address()).await);
    });
}

// rule: TL-5
#[test]
fn metrics_are_told_to_certificates_that_name_where_they_come_from() {
    let secured =
        Secured::start_showing(Ask::default(), trusting, &["--listen-metrics-urls=https://127.0.0.1:0"]);
    let metrics = secured.daemon.metrics[0].clone();
    run(async {
        for (hosts, expected) in [
            (&["127.0.0.1"][..], true),
            (&["localhost"], true),
            (&[], true),
            (&["10.1.2.3"], false),
            (&["elsewhere.invalid"], false),
        ] {
            let issued = secured.authority.issue(Ask { hosts, ..Ask::default() });
            let client = secured.client(Some(&issued));
            let told = client.get(&metrics, "/metrics", &[]).await;
            assert_eq!(told.is_ok_and(|page| page.contains("etcd_server_id")), expected, "{hosts:?}");
            assert!(enters(&client, secured.address()).await, "clients may come from anywhere");
        }
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("rejected connection on client endpoint");
    let line = daemon.log.iter().find(|line| line["msg"] == "rejected connection on client endpoint");
    assert_eq!(line.expect("it was said")["ip-addresses"], serde_json::json!(["10.1.2.3"]));
}

#[test]
fn the_days_that_a_certificate_is_valid_are_told_and_warned_about() {
    let secured = Secured::start_showing(Ask { days: 6, ..Ask::default() }, |_, _| Vec::new(), &[]);
    run(async {
        let client = secured.client(None);
        let page = until(async || {
            let page = client.get(secured.address(), "/metrics", &[]).await.ok()?;
            let told = |days| {
                page.contains(&format!("cairn_tls_certificate_expiry_days{{listeners=\"client\"}} {days}\n"))
            };
            (told(5) || told(6)).then_some(page)
        })
        .await;
        assert!(!page.contains("listeners=\"peer\""), "{page}");
    });
    let mut daemon = secured.daemon;
    daemon.wait_for("a certificate ends soon");
    let line = daemon.log.iter().find(|line| line["msg"] == "a certificate ends soon").expect("it was said");
    assert!(line["days"] == 5 || line["days"] == 6, "{line}");
    assert_eq!(line["listeners"], "client");
    let long = Secured::start(&[]);
    assert!(!long.daemon.has_said("a certificate ends soon"), "a hundred days are left");
}

#[test]
fn files_that_cannot_be_used_stop_the_start_with_their_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = files(dir.path());
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let (one, two) = (authority.issue(Ask::default()), other.issue(Ask::default()));
    let (cert, key) = (files.put("1.pem", &one.cert), files.put("1.key", &one.key));
    let other_key = files.put("2.key", &two.key);
    let (empty, absent) = (files.put("empty", ""), dir.path().join("absent").display().to_string());
    let ca = files.put("ca.pem", authority.pem());
    for (flags, why) in [
        (vec![("cert-file", &cert), ("key-file", &other_key)], "private key does not match public key"),
        (vec![("cert-file", &empty), ("key-file", &key)], "empty: no certificate in PEM"),
        (vec![("cert-file", &cert), ("key-file", &empty)], "empty: no private key in PEM"),
        (vec![("cert-file", &cert), ("key-file", &absent)], "absent: No such file"),
        (
            vec![("cert-file", &cert), ("key-file", &key), ("trusted-ca-file", &key)],
            "1.key: no certificate in PEM",
        ),
        (
            vec![
                ("cert-file", &cert),
                ("key-file", &key),
                ("trusted-ca-file", &ca),
                ("client-crl-file", &cert),
            ],
            "1.pem: not a list of revoked certificates in DER",
        ),
    ] {
        let flags = flags.iter().map(|(name, file)| format!("--{name}={file}"));
        let mut all: Vec<String> = vec![HTTPS.into(), "--advertise-client-urls=http://127.0.0.1:1".into()];
        all.push("--listen-peer-urls=http://127.0.0.1:0".into());
        all.extend(flags);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (status, _, said) = run_to_end(&all, dir.path());
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
    }
}

// rule: TL-11
#[test]
fn s18_connections_that_never_shake_hands_end_in_ten_seconds_and_hold_up_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const SILENT: usize = 500;
    let secured = Secured::start(&["--listen-client-http-urls=http://127.0.0.1:0"]);
    let plain = secured.daemon.clients[1].clone();
    run(async {
        let begin = Instant::now();
        let mut silent = Vec::new();
        for n in 0..SILENT {
            // Silent under TLS, slow in the middle of a ClientHello, silent on a plain port, and slow there.
            let address = if n % 4 < 2 { secured.address() } else { plain.as_str() };
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            match n % 4 {
                1 => stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("written"),
                3 => stream.write_all(b"PRI * HTTP/2").await.expect("written"),
                _ => {}
            }
            silent.push(stream);
        }
        assert!(enters(&secured.client(None), secured.address()).await, "nobody waits for the silent");
        for (n, mut stream) in silent.into_iter().enumerate() {
            let mut rest = Vec::new();
            // Reset or closed, it is the end.
            let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "connection {n} was never ended");
        }
        let took = begin.elapsed().as_secs();
        assert!((9..20).contains(&took), "{took} s");
    });
}
