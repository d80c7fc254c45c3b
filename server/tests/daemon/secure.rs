// SPDX-License-Identifier: Apache-2.0
//! Members that reach each other under TLS, as operators set them up and see them fail.
//!
//! Owns      which member is talked to, by which certificate, and what both ends say of one that is not.
//! Holds     files are changed below members that run: none is started again to see them.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    certs::{Ask, Authority, Files, Issued, files, shown_by},
    cluster::{
        CATCH_UP, PASSWORD, by, check_follows, close_to_strangers, get, log_in, put, write_past_the_log,
    },
    members::{Members, Place, run},
    support::{Daemon, assert_hidden, run_to_end, until},
};
use cairn_proto::etcdserverpb as pb;
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{fs, path::Path};
use tempfile::TempDir;
use tokio::task::block_in_place;
use tonic::Code;

const MEMBERS: usize = 3;

fn places() -> Vec<Place> {
    (0..MEMBERS).map(|i| Place::secure(format!("m{i}"))).collect()
}

/// Puts through each member, and reads all of it from each.
async fn check_one_store(members: &Members) {
    for i in members.live() {
        let done = members.place(i).kv().await.put(put(format!("k{i}"), "v")).await;
        done.expect("any member takes writes");
    }
    for i in members.live() {
        let all = pb::RangeRequest { range_end: "l".into(), ..get("k", false) };
        let found = members.place(i).kv().await.range(all).await.expect("read").into_inner();
        assert_eq!(found.count as usize, members.live().len(), "through member {i}");
    }
    assert_eq!(members.hashes().await.len(), 1, "the same everywhere");
}

/// The term, and who leads in it, as a member sees it.
async fn term(members: &Members, i: usize) -> (u64, u64) {
    let mut maintenance = members.place(i).maintenance().await;
    let status = maintenance.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    (status.raft_term, status.leader)
}

/// How often it was connected to a peer, once it has been to each.
fn connections(daemon: &mut Daemon) -> usize {
    loop {
        daemon.read_all();
        let said = daemon.log.iter().filter(|line| line["msg"] == "established connection to a peer").count();
        if said >= MEMBERS - 1 {
            return said;
        }
        assert!(daemon.read_line(), "it ended: {:#?}", daemon.log);
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

async fn shown_at(place: &Place) -> CertificateDer<'static> {
    let address = place.peer.strip_prefix("https://").expect("a URL");
    shown_by(tokio::net::TcpStream::connect(address).await.expect("it listens")).await
}

/// Runs a line of `cairn cert` in a directory.
fn cert(dir: &Path, line: &str) {
    let words: Vec<&str> = std::iter::once("cert").chain(line.split_whitespace()).collect();
    let (status, _, said) = run_to_end(&words, dir);
    assert_eq!(status, Some(0), "{line}: {said}");
}

/// The flags of a member whose certificates `cairn cert` made in `dir`.
fn from_cairn_cert(dir: &Path, name: &str) -> Vec<String> {
    let file = |file: String| dir.join("certs").join(file).display().to_string();
    let mut flags = vec![
        format!("--peer-cert-file={}", file(format!("{name}.pem"))),
        format!("--peer-key-file={}", file(format!("{name}.key"))),
        format!("--peer-trusted-ca-file={}", file("ca.pem".into())),
        "--peer-client-cert-auth".into(),
    ];
    // One whose certificate is for servers alone shows another when it dials.
    if name == "m2" {
        flags.push(format!("--peer-client-cert-file={}", file("m2-dials.pem".into())));
        flags.push(format!("--peer-client-key-file={}", file("m2-dials.key".into())));
    }
    flags.extend(CATCH_UP.map(str::to_owned));
    flags
}

// rule: TL-3, TL-12
#[test]
fn s11_members_with_certificates_of_cairn_cert_elect_replicate_grow_and_rotate_and_tell_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    for line in [
        "init",
        "issue peer m0 --hosts=127.0.0.1",
        "issue peer m1 --hosts=127.0.0.1",
        "issue server m2 --hosts=127.0.0.1",
        "issue client m2-dials",
        "issue peer m3 --hosts=127.0.0.1",
    ] {
        cert(dir.path(), line);
    }
    run(async {
        let mut members = Members::start_at(places(), |_, place| from_cairn_cert(dir.path(), &place.name));
        check_one_store(&members).await;
        // What only a leader knows is asked of it, by plain HTTP, under TLS.
        let leader = members.leader().await;
        let follower = (leader + 1) % MEMBERS;
        let mut lease = members.place(follower).lease().await;
        let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted");
        let left = pb::LeaseTimeToLiveRequest { id: granted.into_inner().id, keys: false };
        let left = lease.lease_time_to_live(left).await.expect("an answer").into_inner();
        assert!((58..=60).contains(&left.ttl), "{left:?}");

        // Every certificate is made anew below members that run.
        let before = term(&members, leader).await;
        let connected: Vec<usize> =
            block_in_place(|| (0..MEMBERS).map(|i| connections(members.member(i))).collect());
        cert(dir.path(), "rotate --within=400");
        for i in 0..MEMBERS {
            let fresh = fs::read_to_string(dir.path().join(format!("certs/m{i}.pem"))).expect("it is there");
            assert_eq!(shown_at(&members.place(i)).await, der(&fresh), "member {i} shows the new one");
        }
        check_one_store(&members).await;
        for (i, connected) in connected.into_iter().enumerate() {
            assert_eq!(term(&members, i).await, before, "nobody was elected");
            let now = block_in_place(|| connections(members.member(i)));
            assert_eq!(now, connected, "a connection that stands is not touched");
        }
        // A connection that is made now is made with the new ones, at both ends.
        let back = block_in_place(|| members.kill(follower));
        block_in_place(|| members.restart(follower, back));
        check_one_store(&members).await;

        // One that joins is sent a snapshot.
        let leader = members.leader().await;
        let others: Vec<usize> = (0..MEMBERS).collect();
        close_to_strangers(&members.place(leader)).await;
        let token = log_in(&members.place(follower)).await;
        let last = write_past_the_log(&members, &others).await;
        let place = Place::secure("m3");
        let wanted = pb::MemberAddRequest { peer_urls: vec![place.peer.clone()], is_learner: false };
        let mut cluster = members.place(leader).cluster().await;
        let refused = cluster.member_add(wanted.clone()).await.expect_err("of nobody");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::InvalidArgument, "etcdserver: user name is empty")
        );
        until(|| {
            let (mut cluster, wanted) = (cluster.clone(), by(wanted.clone(), &token));
            async move { cluster.member_add(wanted).await.ok() }
        })
        .await;
        let joined = members.join(place, &from_cairn_cert(dir.path(), "m3"));
        block_in_place(|| members.restart(joined, tempfile::tempdir().expect("a directory")));
        check_follows(&mut members, joined, last).await;

        let mut secrets = vec![PASSWORD.to_owned(), token[..16].to_owned()];
        for name in ["m0", "m1", "m2", "m2-dials", "m3", "ca"] {
            let key = fs::read_to_string(dir.path().join(format!("certs/{name}.key"))).expect("it is there");
            secrets.extend(key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
        }
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).filter(|line| line.len() >= 8).collect();
        assert!(secrets.len() >= 2 + 6 * 2, "keys have lines");
        for i in members.live() {
            let address = members.place(i).client.replace("http://", "");
            let metrics = crate::http::get(&address, "/metrics").await.body;
            let mut daemon = members.take(i);
            daemon.signal(Signal::KILL);
            block_in_place(|| daemon.wait());
            assert_hidden(&daemon.everything(&[&metrics]), &secrets);
        }
    });
}

/// Three members with certificates of an authority of the test's own.
struct Trio {
    authority: Authority,
    dir: TempDir,
    members: Members,
}

/// What changes in a test.
const LIST: &str = "list.crl";

impl Trio {
    fn start() -> Trio {
        let (authority, dir) = (Authority::new("the authority"), tempfile::tempdir().expect("a directory"));
        let files = files(dir.path());
        let ca = files.put("ca.pem", authority.pem());
        let list = files.put(LIST, authority.revoke(&[]));
        let members = Members::start_at(places(), |_, place| {
            let serial = place.name[1..].parse::<u64>().expect("a number") + 0xA0;
            let [cert, key] = show(&files, &place.name, &issue(&authority, &place.name, serial));
            vec![
                format!("--peer-cert-file={cert}"),
                format!("--peer-key-file={key}"),
                format!("--peer-trusted-ca-file={ca}"),
                format!("--peer-crl-file={list}"),
                "--peer-client-cert-auth".into(),
                "--peer-cert-allowed-cn=m0,m1,m2".into(),
            ]
        });
        Trio { authority, dir, members }
    }

    fn files(&self) -> Files {
        files(self.dir.path())
    }

    /// Ends the last member by force, starts it again, and waits until the first has refused it, each way, and it has
    /// said so itself; then makes good what was wrong, and waits until it is one of them again.
    fn refuse_the_last(&mut self, refused: &Refusal, mend: impl Fn(&Trio)) {
        let last = MEMBERS - 1;
        let url = self.members.place(last).peer;
        let dir = self.members.kill(last);
        let mut daemon = self.members.spawn(last, dir);
        let first = self.members.member(0);
        let dialled = |line: &serde_json::Value| {
            line["msg"] == "no connection to a peer"
                && line["url"] == url
                && line["error"] == refused.dialling
        };
        first.wait_for_line(refused.dialling, dialled);
        let listened = |line: &serde_json::Value| {
            line["msg"] == "rejected connection on peer endpoint" && line["error"] == refused.listening
        };
        first.wait_for_line(refused.listening, listened);
        let said = |line: &serde_json::Value| {
            line["msg"] == "no connection to a peer"
                && line["error"].as_str().is_some_and(|error| error.contains(refused.told))
        };
        daemon.wait_for_line(refused.told, said);
        daemon.read_all();
        assert!(!daemon.has_said("established connection to a peer"), "{:#?}", daemon.log);
        mend(self);
        self.members.put_back(last, daemon.ready());
    }
}

fn issue(authority: &Authority, name: &str, serial: u64) -> Issued {
    authority.issue(Ask { name, serial, hosts: &["127.0.0.1"], ..Ask::default() })
}

fn show(files: &Files, name: &str, issued: &Issued) -> [String; 2] {
    [files.put(&format!("{name}.pem"), &issued.cert), files.put(&format!("{name}.key"), &issued.key)]
}

/// What is said of a member that is refused.
struct Refusal {
    /// By a member that dials it.
    dialling: &'static str,
    /// By a member that it dials.
    listening: &'static str,
    /// By itself, in part.
    told: &'static str,
}

// rule: TL-6, TL-7
#[test]
fn a_member_that_cannot_be_verified_is_refused_at_both_ends_until_its_files_are_mended() {
    run(async {
        let mut trio = Trio::start();
        let good = issue(&trio.authority, "m2", 0xB0);
        let elsewhere = Ask { name: "m2", hosts: &["10.9.9.9"], ..Ask::default() };
        let cases = [
            (
                issue(&Authority::new("a stranger"), "m2", 1),
                Refusal {
                    dialling: "tls: failed to verify certificate: x509: certificate signed by unknown authority: add its \
                               authority to --peer-trusted-ca-file, if it is a member",
                    listening: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                    told: "remote error: tls: unknown certificate authority: it does not take the certificate",
                },
            ),
            (
                issue(&trio.authority, "other", 2),
                Refusal {
                    dialling: "client certificate authentication failed: neither --peer-cert-allowed-cn nor \
                               --peer-cert-allowed-hostname names its holder",
                    listening: "client certificate authentication failed",
                    told: "remote error: tls: unknown certificate: it does not take the certificate",
                },
            ),
            (
                trio.authority.issue(elsewhere),
                Refusal {
                    dialling: "tls: failed to verify certificate: x509: certificate is valid for 10.9.9.9, not \
                               127.0.0.1: issue it for the host of its peer URL, or announce a host that it names",
                    listening: "x509: certificate is valid for 10.9.9.9, not 127.0.0.1",
                    told: "",
                },
            ),
        ];
        for (bad, refused) in cases {
            show(&trio.files(), "m2", &bad);
            let mend = |trio: &Trio| drop(show(&trio.files(), "m2", &good));
            block_in_place(|| trio.refuse_the_last(&refused, mend));
            check_one_store(&trio.members).await;
        }
    });
}

// rule: TL-3
#[test]
fn s17_a_revoked_member_is_refused_by_those_that_it_dials_and_those_that_dial_it() {
    run(async {
        let mut trio = Trio::start();
        check_one_store(&trio.members).await;
        let before = term(&trio.members, 0).await;
        trio.files().put(LIST, trio.authority.revoke(&[0xA2]));
        check_one_store(&trio.members).await;
        assert_eq!(term(&trio.members, 0).await, before, "connections that stand are not touched");
        let refused = Refusal {
            dialling: "transport: certificate serial a2 revoked: it is in --peer-crl-file: issue another one, if its \
                       holder is a member",
            listening: "transport: certificate serial a2 revoked",
            told: "remote error: tls: unknown certificate: it does not take the certificate",
        };
        let fresh = issue(&trio.authority, "m2", 0xB2);
        let mend = |trio: &Trio| drop(show(&trio.files(), "m2", &fresh));
        block_in_place(|| trio.refuse_the_last(&refused, mend));
        check_one_store(&trio.members).await;
    });
}

// rule: TL-8
#[test]
fn members_that_make_their_own_certificates_talk_under_tls_and_verify_nobody() {
    run(async {
        let mut members = Members::start_at(places(), |_, _| vec!["--peer-auto-tls".into()]);
        check_one_store(&members).await;
        for i in 0..MEMBERS {
            let daemon = members.member(i);
            assert!(daemon.has_said("peer auto TLS encrypts and verifies nobody"), "{:#?}", daemon.log);
            let made = daemon.data_dir().join("fixtures/peer/cert.pem");
            let made = fs::read_to_string(made).expect("it was made");
            assert_eq!(shown_at(&members.place(i)).await, der(&made));
        }
    });
}
