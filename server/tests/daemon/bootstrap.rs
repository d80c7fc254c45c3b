// SPDX-License-Identifier: Apache-2.0
//! How a member begins: with what it has, with what it is told, and with what others say.
//!
//! Owns      a stand-in for a member of a cluster, which answers its peers' questions as a test wants it to.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    members::{Place, run},
    support::{Daemon, run_to_end},
};
use cairn::member::MemberId;
use cairn_proto::etcdserverpb as pb;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

/// What it is asked for, and what it answers; other paths are not found. Of several answers to one question each is
/// given once, and the last one from then on.
type Answers = Arc<Mutex<Vec<(&'static str, String)>>>;

/// A member of another cluster, as far as plain HTTP goes; gives back its URL.
fn stand_in(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Who asks may have gone away.
            let Ok(mut stream) = stream else { continue };
            let head = BufReader::new(stream.try_clone().expect("a handle"));
            // All of it: what is not read would take the answer along.
            let lines = head.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let Some(request) = lines.collect::<Vec<_>>().into_iter().next() else { continue };
            let path = request.split(' ').nth(1).unwrap_or_default();
            let mut answers = answers.lock().expect("no panic");
            let mut known = (0..answers.len()).filter(|at| answers[*at].0 == path);
            let answer = match (known.next(), known.next()) {
                (Some(first), Some(_)) => Some(answers.remove(first).1),
                (only, _) => only.map(|at| answers[at].1.clone()),
            };
            drop(answers);
            let (status, body) = answer.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
            let text = format!(
                "HTTP/1.1 {status}\r\nX-Etcd-Cluster-ID: abc\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(text.as_bytes()).ok();
        }
    });
    url
}

// rule: BO-6
#[test]
fn a_member_joins_only_a_cluster_whose_version_it_can_serve() {
    let answers = Answers::default();
    let url = stand_in(answers.clone());
    let place = Place::new("new");
    let members = format!(
        "[{{\"id\":1,\"peerURLs\":[\"{url}\"],\"name\":\"old\",\"clientURLs\":[\"http://127.0.0.1:1\"]}},\
         {{\"id\":2,\"peerURLs\":[\"{}\"]}}]",
        place.peer
    );
    let cluster = format!("--initial-cluster=old={url},new={}", place.peer);
    let peer = [
        format!("--listen-peer-urls={}", place.peer),
        format!("--initial-advertise-peer-urls={}", place.peer),
    ];
    let flags = ["--name=new", "--initial-cluster-state=existing", &cluster, &peer[0], &peer[1]];
    for (version, downgrade, joins) in [
        ("3.7.0", "false", true),
        ("3.0.0", "false", true),
        ("2.3.0", "false", false),
        ("3.8.0", "false", false),
        ("4.0.0", "false", false),
        ("not_decided", "false", false),
        ("", "false", false),
        ("3.8.0", "true", true),
        ("3.7.0", "true", false),
    ] {
        let mut told = vec![("/members", members.clone()), ("/downgrade/enabled", downgrade.to_owned())];
        if !version.is_empty() {
            let body = format!("{{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"{version}\"}}");
            told.push(("/version", body));
        }
        *answers.lock().expect("no panic") = told;
        let mut daemon = Daemon::spawn(tempfile::tempdir().expect("a directory"), &flags);
        if joins {
            daemon.wait_for("serving peer traffic");
        } else {
            assert_eq!(daemon.wait().code(), Some(1), "{version} {downgrade}");
            assert!(daemon.has_said("incompatible with current running cluster"), "{:#?}", daemon.log);
        }
    }
}

// rule: BO-5
#[test]
fn a_member_joins_when_one_that_it_may_ask_has_applied_its_addition() {
    let (behind, ahead) = (Answers::default(), Answers::default());
    let urls = [stand_in(behind.clone()), stand_in(ahead.clone())];
    let place = Place::new("new");
    let of = |id: u64, url: &str, name: &str| {
        format!("{{\"id\":{id},\"peerURLs\":[\"{url}\"],\"name\":\"{name}\",\"clientURLs\":[]}}")
    };
    let old = format!("{},{}", of(1, &urls[0], "a"), of(2, &urls[1], "b"));
    let (before, after) = (format!("[{old}]"), format!("[{old},{}]", of(3, &place.peer, "")));
    let version = ("/version", "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\"}".to_owned());
    let tells = |answers: &Answers, members: &str| {
        *answers.lock().expect("no panic") = vec![("/members", members.to_owned()), version.clone()];
    };
    let cluster = format!("--initial-cluster=a={},b={},new={}", urls[0], urls[1], place.peer);
    let peer = [
        format!("--listen-peer-urls={}", place.peer),
        format!("--initial-advertise-peer-urls={}", place.peer),
    ];
    let flags = ["--name=new", "--initial-cluster-state=existing", &cluster, &peer[0], &peer[1]];
    let joins = || {
        let mut daemon = Daemon::spawn(tempfile::tempdir().expect("a directory"), &flags);
        daemon.wait_for("serving peer traffic");
    };
    // Whoever is asked first, one of the two orders has the one behind before the other.
    for ahead_at in [0, 1] {
        for (at, answers) in [&behind, &ahead].into_iter().enumerate() {
            tells(answers, if at == ahead_at { &after } else { &before });
        }
        joins();
    }
    // It is asked again while nobody has.
    tells(&behind, &before);
    tells(&ahead, &after);
    ahead.lock().expect("no panic").insert(0, ("/members", before.clone()));
    joins();
    assert_eq!(ahead.lock().expect("no panic").len(), 2, "it was asked twice");
}

async fn ids(daemon: &Daemon) -> (u64, u64) {
    let status = daemon.maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
    let header = status.into_inner().header.expect("a header");
    (header.cluster_id, header.member_id)
}

// rule: BO-1, BO-8
#[test]
fn a_member_that_has_data_is_who_it_was_whatever_it_is_told() {
    run(async {
        let url = "http://127.0.0.1:7380";
        let (urls, cluster) =
            (format!("--initial-advertise-peer-urls={url}"), format!("--initial-cluster=first={url}"));
        let daemon = Daemon::start(&["--name=first", "--initial-cluster-token=one", &urls, &cluster]);
        let (cluster_id, member_id) = ids(&daemon).await;
        assert_eq!(MemberId(member_id), MemberId::at_bootstrap(&[url], "one"));
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        daemon.kv().await.put(put).await.expect("written");

        // Each would be refused, or be another, without data.
        let mut dir = daemon.stop();
        for flags in [
            &["--initial-cluster-token=two"][..],
            &["--initial-cluster-state=existing"],
            &["--name=second", "--initial-cluster=third=http://10.0.0.1:1"],
            &["--initial-cluster=first=ftp://nowhere"],
            &["--initial-advertise-peer-urls=http://10.0.0.1:1"],
        ] {
            let daemon = Daemon::start_in(dir, flags);
            assert_eq!(ids(&daemon).await, (cluster_id, member_id), "{flags:?}");
            let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
            let read = daemon.kv().await.range(get).await.expect("read").into_inner();
            assert_eq!(read.count, 1, "{flags:?}");
            let list = daemon.cluster().await.member_list(pb::MemberListRequest::default()).await;
            let list = list.expect("a list").into_inner().members;
            assert_eq!(list[0].peer_urls, [url], "{flags:?}");
            dir = daemon.stop();
        }
    });
}

// rule: BO-1
#[test]
fn a_member_without_data_is_who_it_is_told_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    for (flags, cause) in [
        (
            &["--name=second", "--initial-cluster=third=http://10.0.0.1:1"][..],
            "couldn't find local name \"second\"",
        ),
        (&["--initial-cluster=default=ftp://nowhere"], "URL scheme must be http, https, unix, or unixs"),
        (&["--initial-cluster-state=existing"], "cannot fetch cluster info from peer urls"),
    ] {
        let (code, _, err) = run_to_end(flags, dir.path());
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(&cause.replace('"', "\\\"")), "{err}");
    }
}
