// SPDX-License-Identifier: Apache-2.0
//! Who is let in at the port for peers, and what comes of the rest.
//!
//! Holds     nobody who is no member is listened to, and nothing that arrives stops a member.
//! Never     waits for a time, but to see that something does not happen.

use crate::{
    http::get,
    members::{Members, Place, run},
    membership::{add, ask, remove},
    support::{PATIENCE, until},
};
use bytes::Bytes;
use cairn::member::peers::wire::{Batch, Hello, MESSAGES_MAX, SNAPSHOT, TALK, body, frame, raw_frame};
use cairn_core::replica::peer::{MessageKind, PeerEntry, PeerMessage};
use cairn_proto::etcdserverpb as pb;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

/// A call at the port for peers.
struct Call {
    status: u16,
    answer: Incoming,
    frames: mpsc::Sender<Bytes>,
    /// It ends with this.
    _line: Box<dyn std::any::Any>,
}

impl Call {
    async fn open(url: &str, path: &str, frames: Vec<Bytes>) -> Call {
        let address = url.strip_prefix("http://").expect("a URL");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut line, connection) = opened.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let (sender, sent) = mpsc::channel(8);
        for frame in frames {
            sender.send(frame).await.expect("there is room");
        }
        let request =
            http::Request::post(format!("{url}{path}")).body(body::<Infallible>(sent).boxed_unsync());
        let response = line.send_request(request.expect("a request")).await.expect("answered");
        let status = response.status().as_u16();
        Call { status, answer: response.into_body(), frames: sender, _line: Box::new(line) }
    }

    /// All of the answer, to its end.
    async fn end(self) -> String {
        let collected = timeout(PATIENCE, self.answer.collect()).await.expect("it ends");
        let bytes = collected.map(|answer| answer.to_bytes()).unwrap_or_default();
        drop(self.frames);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

async fn status(place: &Place) -> pb::StatusResponse {
    place.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner()
}

/// What a member has counted.
async fn counted(place: &Place, name: &str) -> u64 {
    let address = place.client.strip_prefix("http://").expect("a URL");
    let page = get(address, "/metrics").await.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("the family is there");
    line.trim().parse().expect("a number")
}

/// A greeting of `from` that means this member.
async fn hello(place: &Place, from: u64) -> Hello {
    let header = status(place).await.header.expect("a header");
    let peer_urls = vec!["http://127.0.0.1:1".to_owned()];
    let (protocol_min, protocol_max) = (1, 1);
    let (cluster_id, to) = (header.cluster_id, header.member_id);
    Hello { cluster_id, from, to, protocol_min, protocol_max, peer_urls, ..Default::default() }
}

const STRANGER: u64 = 77;

// rule: CL-5
#[test]
fn s20_who_is_no_member_is_refused_before_a_message_is_read() {
    run(async {
        let mut members = Members::start(3, &[]);
        let target = (members.leader().await + 1) % 3;
        let place = members.place(target);
        let other = members.id((target + 1) % 3).await;
        let before = status(&place).await;
        let stranger = hello(&place, STRANGER).await;
        // Would anybody read it, the member would stop, or have a new term.
        let beat = PeerMessage {
            kind: MessageKind::Heartbeat as i32,
            to: stranger.to,
            from: STRANGER,
            term: 1 << 40,
            commit: 1 << 40,
            ..Default::default()
        };
        let beat = frame(&Batch { messages: vec![beat] });
        let member = Hello { from: other, ..stranger.clone() };
        let wide = Hello { peer_urls: vec!["x".repeat(70 << 10)], ..member.clone() };
        let unknown = "error sender not found: neither ";
        let mut refused = 0;
        for (path, hello, code, text) in [
            (TALK, stranger.clone(), 404, unknown),
            (SNAPSHOT, stranger.clone(), 404, unknown),
            (TALK, Hello { from: 0, ..stranger.clone() }, 404, unknown),
            (TALK, Hello { cluster_id: 7, ..member.clone() }, 412, "cluster ID mismatch: this is "),
            (SNAPSHOT, Hello { cluster_id: 7, ..member.clone() }, 412, "cluster ID mismatch: this is "),
            (TALK, Hello { to: other, ..member.clone() }, 403, "cannot process message to mismatch member: "),
            (TALK, Hello { from: stranger.to, ..member.clone() }, 403, "cannot process message to mismatch "),
            (TALK, wide, 400, "a frame of "),
        ] {
            let call = Call::open(&place.peer, path, vec![frame(&hello), beat.clone()]).await;
            let status = call.status;
            let told = call.end().await;
            assert!(status == code && told.starts_with(text), "{status} {told}");
            refused += 1;
        }
        assert_eq!(counted(&place, "cairn_peer_callers_refused_total").await, refused);
        members.member(target).wait_for("refused a caller at the port for peers");

        // Other paths bound what they read, too.
        let much = "x".repeat(70 << 10);
        assert_eq!(ask(&place.peer, "POST", "/leases", &much).await.0, 413);
        assert_eq!(ask(&place.peer, "GET", "/members/hashkv", &much).await.0, 400);

        place.kv().await.put(put("k")).await.expect("it goes on");
        let after = status(&place).await;
        assert_eq!((after.raft_term, after.leader), (before.raft_term, before.leader), "nothing was read");

        // One that nobody can vouch for is told that, and a member alone knows who there is.
        for i in [(target + 1) % 3, (target + 2) % 3] {
            drop(members.kill(i));
        }
        // That nobody knew the first is remembered for a while.
        let second = Hello { from: STRANGER + 1, ..stranger };
        let call = Call::open(&place.peer, TALK, vec![frame(&second), beat.clone()]).await;
        assert_eq!(call.status, 404);
        let told = call.end().await;
        assert!(told.contains("no member that could vouch for it answers"), "{told}");
        let alone = Members::start(1, &[]);
        let sole = alone.place(0);
        let call = Call::open(&sole.peer, TALK, vec![frame(&hello(&sole, STRANGER).await), beat]).await;
        assert_eq!(call.status, 404);
        assert!(call.end().await.starts_with(unknown));
    });
}

#[test]
fn s20_what_no_member_sends_ends_its_connection_and_nothing_else() {
    run(async {
        let mut members = Members::start(3, &[]);
        let gone = members.id(2).await;
        drop(members.kill(2));
        let leader = members.leader().await;
        let target = 1 - leader;
        let place = members.place(target);
        let hello = hello(&place, gone).await;
        let term = status(&place).await.raft_term;
        let of = |kind: i32| PeerMessage { kind, to: hello.to, from: gone, term, ..Default::default() };
        let (beat, append) = (of(MessageKind::Heartbeat as i32), of(MessageKind::Append as i32));
        let entry = |index, term| PeerEntry { index, term, ..Default::default() };
        let message = |message: PeerMessage| frame(&Batch { messages: vec![message] });
        let nonsense = [
            ("a campaign of one's own", message(of(0))),
            ("a beat of one's own", message(of(1))),
            ("a transfer", message(of(13))),
            ("a kind that is not known", message(of(99))),
            ("another's", message(PeerMessage { from: members.id(leader).await, ..beat.clone() })),
            ("for another", message(PeerMessage { to: gone, ..beat.clone() })),
            ("no term", message(PeerMessage { term: 0, ..beat.clone() })),
            ("a term of no election", message(PeerMessage { term: u64::MAX, ..beat.clone() })),
            ("more than a log can have", message(PeerMessage { commit: u64::MAX, ..beat.clone() })),
            ("more than there is, of no leader", message(PeerMessage { commit: 1 << 40, ..beat })),
            (
                "a gap",
                message(PeerMessage {
                    index: 3,
                    log_term: 1,
                    entries: vec![entry(5, term)],
                    ..append.clone()
                }),
            ),
            (
                "a term of the future",
                message(PeerMessage { index: 3, log_term: 1, entries: vec![entry(4, term + 1)], ..append }),
            ),
            ("no batch", raw_frame(&[0xff; 9])),
            ("too many", frame(&Batch { messages: vec![PeerMessage::default(); MESSAGES_MAX + 1] })),
            ("too large", Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
            ("packed", Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("a wrong checksum", Bytes::from_static(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 7])),
        ];
        for (at, (what, bytes)) in nonsense.iter().enumerate() {
            let call = Call::open(&place.peer, TALK, vec![frame(&hello)]).await;
            assert_eq!(call.status, 200, "{what}: it is one of them");
            call.frames.send(bytes.clone()).await.expect("there is room");
            // The body stays open at this end: what ends is ended by the other.
            let frames = call.frames.clone();
            call.end().await;
            drop(frames);
            let refused = until(|| async {
                Some(counted(&place, "cairn_peer_messages_refused_total").await).filter(|n| *n > at as u64)
            });
            assert_eq!(refused.await, at as u64 + 1, "{what}");
        }
        let daemon = members.member(target);
        daemon.wait_for("refused a message of a peer");
        daemon.read_all();
        let told = daemon.log.iter().filter(|line| line["msg"] == "refused a message of a peer").count();
        assert!(told < nonsense.len(), "{told} lines");
        place.kv().await.put(put("k")).await.expect("it goes on");
        assert_eq!(status(&place).await.raft_term, term);
        assert_eq!(members.hashes().await.len(), 1);
    });
}

// rule: CL-5
#[test]
fn s20_one_member_has_few_connections_to_another() {
    run(async {
        let mut members = Members::start(3, &[]);
        let gone = members.id(2).await;
        drop(members.kill(2));
        let place = members.place(0);
        let hello = frame(&hello(&place, gone).await);
        let mut calls = Vec::new();
        for _ in 0..6 {
            calls.push(Call::open(&place.peer, TALK, vec![hello.clone()]).await);
        }
        let newest = calls.split_off(2);
        for call in calls {
            assert_eq!(call.status, 200);
            call.end().await;
        }
        for call in newest {
            let ended = timeout(Duration::from_millis(50), call.end()).await;
            assert!(ended.is_err(), "the newest stay");
        }
    });
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

// rule: BO-7, RT-5
#[test]
fn a_member_that_was_away_follows_a_leader_that_it_never_heard_of() {
    run(async {
        // One of four that are not all there is replaced: that is not healthy.
        let mut members = Members::start(3, &["--strict-reconfig-check=false"]);
        let away = (members.leader().await + 1) % 3;
        let (stays, goes) = ((away + 1) % 3, (away + 2) % 3);
        let new = members.join(Place::new("new"), &["--strict-reconfig-check=false".to_owned()]);
        let dir = members.kill(away);
        let through = members.place(stays);
        let id = add(&through, &members.place(new), false).await.member.expect("the new one").id;
        members.restart(new, tempfile::tempdir().expect("a directory"));
        let gone = members.id(goes).await;
        remove(&through, gone).await;
        let mut ended = members.take(goes);
        assert_eq!(ended.wait().code(), Some(0));
        drop(ended.stop_ended());
        let leader = members.leader().await;
        if leader != new {
            let to = pb::MoveLeaderRequest { target_id: id };
            members.place(leader).maintenance().await.move_leader(to).await.expect("it moves");
        }
        assert_eq!(members.leader().await, new);

        members.restart(away, dir);
        assert_eq!(members.leader().await, new, "it is followed");
        members.place(new).kv().await.put(put("k")).await.expect("written");
        assert_eq!(members.hashes().await.len(), 1, "it has what the others have");
        // And it is counted: without it there is no quorum.
        drop(members.kill(stays));
        until(|| async { members.place(new).kv().await.put(put("l")).await.ok() }).await;
        assert_eq!(members.hashes().await.len(), 1);
    });
}
