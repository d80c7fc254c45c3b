// SPDX-License-Identifier: Apache-2.0
//! Members that come, learn, move and go while the cluster runs.
//!
//! Holds     every refusal has etcd's code and text; who is not a member any more says so and ends.
//! Never     waits for a time: a change that is refused because the cluster is young is asked for again.

use crate::{
    http::get,
    members::{Members, Place, run},
    support::until,
};
use cairn_proto::etcdserverpb as pb;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full};
use std::future::Future;
use tonic::{Code, Response, Status};

fn told<T: std::fmt::Debug>(refused: Result<Response<T>, Status>) -> (Code, String) {
    let status = refused.expect_err("a refusal");
    (status.code(), status.message().to_owned())
}

/// Asks until the members have been connected for long enough (SR-2), and have a leader.
async fn healthy<T, F: Future<Output = Result<Response<T>, Status>>>(ask: impl Fn() -> F) -> T {
    until(|| async {
        match ask().await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) if status.message() == "etcdserver: unhealthy cluster" => None,
            Err(status) if status.message().starts_with("etcdserver: request timed out") => None,
            Err(status) => panic!("{status}"),
        }
    })
    .await
}

/// Adds a member. One that is there was added by a leader that was lost before it could say so.
pub async fn add(through: &Place, place: &Place, is_learner: bool) -> pb::MemberAddResponse {
    let cluster = through.cluster().await;
    healthy(|| async {
        let mut cluster = cluster.clone();
        let wanted = pb::MemberAddRequest { peer_urls: vec![place.peer.clone()], is_learner };
        let refused = match cluster.member_add(wanted).await {
            Err(status) if status.message() == "etcdserver: Peer URLs already exists" => status,
            answer => return answer,
        };
        let list = cluster.member_list(pb::MemberListRequest { linearizable: true }).await?.into_inner();
        let there = list.members.iter().find(|m| m.peer_urls == [&place.peer[..]]).cloned();
        let member = Some(there.ok_or(refused)?);
        Ok(Response::new(pb::MemberAddResponse { header: list.header, member, members: list.members }))
    })
    .await
}

/// Removes a member. One that is gone was removed by a leader that was lost before it could say so.
pub async fn remove(through: &Place, id: u64) -> pb::MemberRemoveResponse {
    let cluster = through.cluster().await;
    healthy(|| async {
        let mut cluster = cluster.clone();
        match cluster.member_remove(pb::MemberRemoveRequest { id }).await {
            Err(status) if status.code() == Code::NotFound => (),
            answer => return answer,
        }
        let list = cluster.member_list(pb::MemberListRequest { linearizable: true }).await?.into_inner();
        Ok(Response::new(pb::MemberRemoveResponse { header: list.header, members: list.members }))
    })
    .await
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

// rule: BO-5, BO-7, CL-1, CL-2, CL-4, CL-11, ID-5, SD-13, SR-4, SR-7
#[test]
fn a_member_that_is_lost_is_replaced_by_another() {
    run(async {
        let mut members = Members::start(3, &[]);
        let through = members.place(0);
        for i in 0..20 {
            through.kv().await.put(put(&format!("k{i}"))).await.expect("written");
        }
        let lost = members.id(2).await;
        let dir = members.kill(2);
        let left = remove(&through, lost).await;
        assert_eq!(left.members.len(), 2);
        assert_eq!(left.header.expect("a header").revision, 0, "HDR-7");

        let place = Place::new("m3");
        let added = add(&through, &place, false).await;
        let member = added.member.expect("the new one");
        assert_eq!((member.peer_urls, &member.name[..]), (vec![place.peer.clone()], ""));
        assert!(member.id != lost && added.members.windows(2).all(|pair| pair[0].id < pair[1].id));
        let again = pb::MemberAddRequest { peer_urls: vec![place.peer.clone()], is_learner: false };
        let refused = told(through.cluster().await.member_add(again).await);
        let few = "etcdserver: re-configuration failed due to not enough started members";
        assert_eq!(refused, (Code::Unknown, few.to_owned()), "one that has not started is one too many");

        let new = members.join(place, &[]);
        members.restart(new, tempfile::tempdir().expect("a directory"));
        let names: Vec<String> = members.list(new).await.into_iter().map(|member| member.name).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| ["m0", "m1", "m3"].contains(&&name[..])), "{names:?}");
        members.place(new).kv().await.put(put("new")).await.expect("it takes writes");
        assert_eq!(members.hashes().await.len(), 1, "it has what the others have");
        let taken = pb::MemberAddRequest { peer_urls: vec![members.place(1).peer], is_learner: false };
        let refused = healthy_refusal(&through, taken).await;
        assert_eq!(refused, (Code::FailedPrecondition, "etcdserver: Peer URLs already exists".to_owned()));

        // The one that was lost comes back, and is told.
        let mut back = members.spawn(2, dir);
        assert_eq!(back.wait().code(), Some(0));
        assert!(back.has_said("data-dir used by this member must be removed"), "{:#?}", back.log);
        drop(back.stop_ended());
    });
}

/// What an addition is refused for once the cluster is healthy.
async fn healthy_refusal(through: &Place, wanted: pb::MemberAddRequest) -> (Code, String) {
    let cluster = through.cluster().await;
    until(|| {
        let (mut cluster, wanted) = (cluster.clone(), wanted.clone());
        async move {
            let refused = told(cluster.member_add(wanted).await);
            (refused.1 != "etcdserver: unhealthy cluster").then_some(refused)
        }
    })
    .await
}

// rule: CL-6, CL-7, CL-8, KV-26, LR-1, LR-2, LR-3, LR-5, LR-6
#[test]
fn a_learner_serves_little_and_is_promoted_once_it_is_in_sync() {
    run(async {
        let mut members = Members::start(3, &[]);
        let leader = members.leader().await;
        let follower = (leader + 1) % 3;
        let through = members.place(follower);
        let place = Place::new("learner");
        let id = add(&through, &place, true).await.member.expect("the new one").id;
        let mut cluster = through.cluster().await;
        let promote = |id| pb::MemberPromoteRequest { id };
        let early = told(cluster.member_promote(promote(id)).await);
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!(early, (Code::FailedPrecondition, behind.to_owned()), "through a follower");
        let second = pb::MemberAddRequest { peer_urls: vec!["http://127.0.0.1:1".into()], is_learner: true };
        let many = "etcdserver: too many learner members in cluster";
        assert_eq!(healthy_refusal(&through, second).await, (Code::FailedPrecondition, many.to_owned()));
        let nobody = told(cluster.member_promote(promote(77)).await);
        assert_eq!(nobody, (Code::NotFound, "etcdserver: member not found".to_owned()));
        let voter = told(cluster.member_promote(promote(members.id(leader).await)).await);
        let once = "etcdserver: can only promote a learner member";
        assert_eq!(voter, (Code::FailedPrecondition, once.to_owned()));

        let new = members.join(place, &[]);
        members.restart(new, tempfile::tempdir().expect("a directory"));
        let learner = members.place(new);
        let status = learner.maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
        assert!(status.into_inner().is_learner);
        let no = (Code::FailedPrecondition, "etcdserver: rpc not supported for learner".to_owned());
        let mut kv = learner.kv().await;
        assert_eq!(told(kv.put(put("k")).await), no);
        let all = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(told(kv.range(all.clone()).await), no);
        kv.range(pb::RangeRequest { serializable: true, ..all }).await.expect("this it may");
        let watch = learner.watch().await.watch(stream::empty::<pb::WatchRequest>()).await;
        let watch = match watch {
            Ok(opened) => opened.into_inner().message().await.map(Response::new),
            Err(refused) => Err(refused),
        };
        assert_eq!(told(watch), no, "nor a stream");
        let list = pb::MemberListRequest { linearizable: false };
        assert_eq!(told(learner.cluster().await.member_list(list).await), no);
        let address = learner.client.strip_prefix("http://").expect("a URL");
        let (live, ready) = (get(address, "/livez").await, get(address, "/readyz").await);
        assert_eq!((live.status, ready.status), (200, 503), "{}", ready.body);
        assert!(ready.body.contains("[-]non_learner failed: not supported for learner\n"), "{}", ready.body);

        let to = pb::MoveLeaderRequest { target_id: id };
        let bad = "etcdserver: bad leader transferee".to_owned();
        let mut maintenance = members.place(leader).maintenance().await;
        assert_eq!(told(maintenance.move_leader(to).await), (Code::FailedPrecondition, bad));

        let promoted = until(|| {
            let mut cluster = cluster.clone();
            async move { cluster.member_promote(promote(id)).await.ok() }
        });
        let promoted = promoted.await.into_inner().members;
        assert!(promoted.len() == 4 && promoted.iter().all(|member| !member.is_learner));
        until(|| async { learner.kv().await.put(put("k")).await.ok() }).await;
        assert_eq!(get(address, "/readyz").await.status, 200);
        assert_eq!(members.hashes().await.len(), 1);

        // Other URLs are taken as they come.
        let moved = pb::MemberUpdateRequest { id, peer_urls: vec!["http://127.0.0.1:2".into()] };
        let moved = cluster.member_update(moved).await.expect("moved").into_inner().members;
        let moved = moved.iter().find(|member| member.id == id).expect("listed");
        assert_eq!(
            (&moved.peer_urls[..], &moved.name[..]),
            (&["http://127.0.0.1:2".to_owned()][..], "learner")
        );
    });
}

// rule: CL-4, SD-13
#[test]
fn a_member_that_is_removed_says_so_and_ends_also_if_it_leads() {
    run(async {
        let mut members = Members::start(3, &[]);
        let leader = members.leader().await;
        let id = members.id(leader).await;
        // Through another: a member that goes may not live to answer.
        remove(&members.place((leader + 1) % 3), id).await;
        let mut gone = members.take(leader);
        assert_eq!(gone.wait().code(), Some(0));
        assert!(
            gone.has_said("server error") && gone.has_said("data-dir used by this member must be removed")
        );
        drop(gone.stop_ended());
        let next = members.leader().await;
        members.place(next).kv().await.put(put("k")).await.expect("two go on");
        let of_one =
            told(members.place(next).cluster().await.member_remove(pb::MemberRemoveRequest { id }).await);
        assert_eq!(
            of_one,
            (Code::NotFound, "etcdserver: member not found".to_owned()),
            "it is gone for ever"
        );
    });
}

// rule: SR-6, SR-8
#[test]
fn whether_a_change_endangers_the_quorum_is_for_the_member_to_say_that_is_asked() {
    run(async {
        let lax: &[&str] = &["--strict-reconfig-check=false"];
        let mut members = Members::start_each(3, |i| if i == 0 { lax } else { &[] });
        drop(members.kill(2));
        members.leader().await;
        let wanted = |n: u16| pb::MemberAddRequest {
            peer_urls: vec![format!("http://127.0.0.1:{n}")],
            is_learner: true,
        };
        let refused = told(members.place(1).cluster().await.member_add(wanted(1)).await);
        assert_eq!(refused, (Code::Unavailable, "etcdserver: unhealthy cluster".to_owned()));
        let added = members.place(0).cluster().await.member_add(wanted(1)).await.expect("it does not ask");
        assert_eq!(added.into_inner().members.len(), 4);
    });
}

// rule: R27 of the test plan, CL-1
#[test]
fn a_joined_member_that_lost_its_disk_is_refused_and_so_is_a_cluster_named_wrongly() {
    run(async {
        let mut members = Members::start(1, &[]);
        let through = members.place(0);
        for urls in [&[][..], &["localhost:1"][..], &["http://a:1/x"][..], &["http://a"][..]] {
            let peer_urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let wanted = pb::MemberAddRequest { peer_urls, is_learner: false };
            let refused = told(through.cluster().await.member_add(wanted).await);
            let bad = "etcdserver: given member URLs are invalid".to_owned();
            assert_eq!(refused, (Code::InvalidArgument, bad), "{urls:?}");
        }
        let early = members.join(Place::new("early"), &[]);
        let mut uninvited = members.spawn(early, tempfile::tempdir().expect("a directory"));
        assert_eq!(uninvited.wait().code(), Some(1));
        assert!(uninvited.has_said("member count is unequal"), "{:#?}", uninvited.log);
        drop(uninvited.stop_ended());

        let place = Place::new("second");
        add(&through, &place, false).await;
        let second = members.join(place, &[]);
        members.restart(second, tempfile::tempdir().expect("a directory"));
        drop(members.kill(second));
        let mut again = members.spawn(second, tempfile::tempdir().expect("a directory"));
        assert_eq!(again.wait().code(), Some(1));
        assert!(again.has_said("has already been bootstrapped"), "{:#?}", again.log);
        drop(again.stop_ended());
    });
}

/// One request to a peer's port: status and body.
pub async fn ask(url: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    ask_of(url, method, path, body.as_bytes(), None).await
}

/// The same, of a member of the cluster with this id.
pub async fn ask_of(
    url: &str,
    method: &str,
    path: &str,
    body: &[u8],
    cluster: Option<&str>,
) -> (u16, String) {
    let address = url.strip_prefix("http://").expect("a URL");
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("it speaks HTTP");
    tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(path).header("host", address);
    let request = match cluster {
        Some(id) => request.header("x-etcd-cluster-id", id),
        None => request,
    };
    let request = request.body(Full::new(bytes::Bytes::copy_from_slice(body))).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("answered").into_parts();
    let body = body.collect().await.expect("whole").to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

/// What a member says first to another: who it is, and whom it means.
#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(uint64, tag = "2")]
    from: u64,
    #[prost(uint64, tag = "3")]
    to: u64,
    #[prost(uint32, tag = "4")]
    protocol_min: u32,
    #[prost(uint32, tag = "5")]
    protocol_max: u32,
}

// rule: CL-5
#[test]
fn a_peer_refuses_who_was_removed_and_who_means_another() {
    run(async {
        let mut members = Members::start(3, &[]);
        let (own, gone) = (members.id(0).await, members.id(2).await);
        let status =
            members.place(0).maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
        let cluster_id = status.into_inner().header.expect("a header").cluster_id;
        drop(members.kill(2));
        let url = members.place(0).peer;
        let greet = async |hello: Hello| {
            let message = prost::Message::encode_to_vec(&hello);
            let sum = crc32fast::hash(&message);
            let head = [&[0][..], &(message.len() as u32).to_be_bytes(), &sum.to_be_bytes()].concat();
            ask_of(&url, "POST", "/cairn.peer.v1.Peers/Talk", &[head, message].concat(), None).await
        };
        let hello = Hello { cluster_id, from: gone, to: own, protocol_min: 1, protocol_max: 1 };
        assert_eq!(greet(hello.clone()).await.0, 200, "it is one of them");
        for (hello, status, text) in [
            (Hello { to: 77, ..hello.clone() }, 403, "cannot process message to mismatch member: this is"),
            (Hello { cluster_id: 7, ..hello.clone() }, 412, "cluster ID mismatch: this is"),
            (Hello { protocol_min: 9, protocol_max: 9, ..hello.clone() }, 412, "incompatible peer:"),
        ] {
            let told = greet(hello).await;
            assert!(told.0 == status && told.1.starts_with(text), "{told:?}");
        }
        remove(&members.place(1), gone).await;
        let told = until(|| async { Some(greet(hello.clone()).await).filter(|told| told.0 != 200) }).await;
        assert_eq!(told, (403, "cannot process message from removed member\n".to_owned()));
    });
}

// rule: HT-9, CL-7, CL-15, CO-2, HASH-20, RT-15
#[test]
fn the_peer_port_answers_as_etcds_does() {
    run(async {
        let members = Members::start(1, &[]);
        let url = members.place(0).peer;
        let id = members.id(0).await;
        let (status, list) = ask(&url, "GET", "/members", "").await;
        assert_eq!(status, 200);
        assert!(
            list.starts_with(&format!("[{{\"id\":{id},\"peerURLs\":[\"{url}\"],\"name\":\"m0\"")),
            "{list}"
        );
        let version = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}";
        let voter = format!("/members/promote/{id}");
        for (method, path, body, expected) in [
            ("GET", "/version", "", (200, version)),
            ("POST", "/members/promote/x", "", (404, "member x not found in cluster\n")),
            ("POST", "/members/promote/77", "", (404, "membership: ID not found\n")),
            ("POST", &voter, "", (412, "membership: can only promote a learner member\n")),
            ("POST", "/members/promote", "", (307, "")),
            ("GET", &voter, "", (405, "Method Not Allowed\n")),
            ("GET", "/members/hashkv", "x", (400, "error unmarshalling request\n")),
            (
                "GET",
                "/members/hashkv",
                "{\"revision\":9}",
                (400, "mvcc: required revision is a future revision\n"),
            ),
            ("POST", "/members/hashkv", "{}", (405, "Method Not Allowed\n")),
            ("GET", "/downgrade/enabled", "", (200, "false")),
            ("POST", "/leases", "\u{7f}", (400, "error unmarshalling request\n")),
            ("POST", "/leases", "\u{8}\u{7}", (404, "lease not found\n")),
            ("GET", "/leases", "", (405, "Method Not Allowed\n")),
            ("GET", "/health", "", (404, "404 page not found\n")),
            ("GET", "/metrics", "", (404, "404 page not found\n")),
            ("GET", "/", "", (404, "404 page not found\n")),
            // Members talk in another way, at other paths.
            ("POST", "/raft", "", (404, "404 page not found\n")),
            ("POST", "/raft/snapshot", "", (404, "404 page not found\n")),
            ("GET", "/raft/stream/msgapp/1", "", (404, "404 page not found\n")),
        ] {
            let (status, text) = ask(&url, method, path, body).await;
            assert_eq!((status, &text[..]), expected, "{method} {path} {body:?}");
        }
        let (status, hash) = ask(&url, "GET", "/members/hashkv", "{\"revision\":0}").await;
        let hash: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
        assert_eq!(
            (status, &hash["header"]["revision"], &hash["hash_revision"]),
            (200, &1.into(), &1.into())
        );
        assert!(hash["hash"].is_u64() && hash["compact_revision"].is_i64(), "{hash}");
        let other = ask_of(&url, "GET", "/members/hashkv", b"{\"revision\":0}", Some("77")).await;
        assert_eq!(other, (412, "cluster ID mismatch\n".to_owned()));
        let mut kv = members.place(0).kv().await;
        for _ in 0..3 {
            kv.put(put("k")).await.expect("put");
        }
        kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.expect("compacted");
        let gone = ask(&url, "GET", "/members/hashkv", "{\"revision\":2}").await;
        assert_eq!(gone, (400, "mvcc: required revision has been compacted\n".to_owned()));
    });
}
