// SPDX-License-Identifier: Apache-2.0
//! Calls of many messages: watches, renewals, large ranges.

use crate::support::{Daemon, run};
use cairn_proto::{etcdserverpb as pb, mvccpb};
use futures_util::stream;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

fn put(key: String, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn create(key: &'static str, end: &'static str) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// A watch stream and the client's end of its requests.
async fn open(daemon: &Daemon) -> (mpsc::UnboundedSender<pb::WatchRequest>, Streaming<pb::WatchResponse>) {
    let (send, receive) = mpsc::unbounded_channel();
    let requests = stream::unfold(receive, |mut receive: mpsc::UnboundedReceiver<_>| async move {
        receive.recv().await.map(|request| (request, receive))
    });
    let responses = daemon.watch().await.watch(requests).await.expect("open").into_inner();
    (send, responses)
}

async fn next(responses: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    responses.message().await.expect("no failure").expect("no end")
}

// rule: WATCH-1
// rule: WATCH-2
// rule: WATCH-6
// rule: WATCH-7
#[test]
fn a_watch_goes_on_after_the_clients_half_close() {
    run(async {
        let daemon = Daemon::start(&[]);
        let (requests, mut responses) = open(&daemon).await;
        requests.send(pb::WatchRequest { request_union: None }).expect("open");
        for key in ["a", "b", "c"] {
            requests.send(create(key, "")).expect("open");
        }
        drop(requests);
        for id in 0..3 {
            let created = next(&mut responses).await;
            assert_eq!((created.watch_id, created.created, created.canceled), (id, true, false));
        }
        let mut kv = daemon.kv().await;
        for round in 2..5 {
            kv.put(put("b".into(), "v")).await.expect("put");
            let event = next(&mut responses).await;
            assert_eq!((event.watch_id, event.events.len()), (1, 1));
            assert_eq!(event.header.expect("a header").revision, round);
            let kv = event.events[0].kv.clone().expect("a pair");
            assert_eq!((kv.mod_revision, event.events[0].r#type()), (round, mvccpb::event::EventType::Put));
        }
    });
}

// rule: WATCH-42
#[test]
fn a_client_that_does_not_read_neither_loses_events_nor_holds_up_others() {
    const PUTS: i64 = 400;
    run(async {
        let daemon = Daemon::start(&[]);
        let (requests, mut slow) = open(&daemon).await;
        for _ in 0..300 {
            requests.send(create("k", "l")).expect("open");
        }
        let mut kv = daemon.kv().await;
        for i in 0..PUTS {
            kv.put(put(format!("k{}", i % 7), "some value")).await.expect("others are served");
        }
        let mut created = 0;
        let mut last = vec![1; 300];
        let mut done = 0;
        while done < 300 {
            let response = next(&mut slow).await;
            created += usize::from(response.created);
            let last = &mut last[response.watch_id as usize];
            for event in &response.events {
                let revision = event.kv.as_ref().expect("a pair").mod_revision;
                // Watchers that began late have no events from before.
                assert!(*last == 1 || revision == *last + 1, "after {last} came {revision}");
                *last = revision;
            }
            done += usize::from(!response.events.is_empty() && *last == PUTS + 1);
        }
        assert_eq!(created, 300);
    });
}

// rule: WATCH-15
#[test]
fn a_cancelled_call_is_counted_as_cancelled() {
    run(async {
        let daemon = Daemon::start(&[]);
        let (requests, mut responses) = open(&daemon).await;
        requests.send(create("a", "")).expect("open");
        next(&mut responses).await;
        drop((requests, responses));
        let row = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
                   grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 1";
        crate::support::until(|| async {
            let body = crate::http::get(&daemon.clients[0], "/metrics").await.body;
            body.lines().any(|line| line == row).then_some(())
        })
        .await;
    });
}

// rule: LEASE-11
// rule: LEASE-12
// rule: LEASE-14
#[test]
fn renewals_are_answered_one_by_one_and_end_with_the_client() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut lease = daemon.lease().await;
        let id = lease
            .lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 })
            .await
            .expect("granted")
            .into_inner()
            .id;
        let ids = [id, 12345, 0, id];
        let requests = stream::iter(ids.map(|id| pb::LeaseKeepAliveRequest { id }));
        let mut responses = lease.lease_keep_alive(requests).await.expect("open").into_inner();
        for (id, ttl) in ids.into_iter().zip([60, 0, 0, 60]) {
            let response = responses.message().await.expect("no failure").expect("no end");
            assert_eq!((response.id, response.ttl), (id, ttl));
        }
        assert_eq!(responses.message().await.expect("it ends well"), None);
    });
}

// rule: LEASE-13
#[test]
fn a_lease_past_its_deadline_is_not_revived() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut lease = daemon.lease().await;
        let granted =
            lease.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 7 }).await.expect("granted").into_inner();
        assert_eq!(granted.ttl, 2, "the least there is");
        let (requests, mut responses) = open(&daemon).await;
        let mut kv = daemon.kv().await;
        kv.put(pb::PutRequest { key: "l".into(), lease: 7, ..Default::default() }).await.expect("put");
        requests.send(create("l", "")).expect("open");
        next(&mut responses).await;
        let deleted = next(&mut responses).await;
        assert_eq!(deleted.events[0].r#type(), mvccpb::event::EventType::Delete);
        let requests = stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
        let mut renewed = lease.lease_keep_alive(requests).await.expect("open").into_inner();
        assert_eq!(renewed.message().await.expect("no failure").expect("no end").ttl, 0);
    });
}

// rule: KV-27
// rule: KV-28
// rule: KV-29
// rule: KV-30
// rule: KV-31
// rule: RT-13
#[test]
fn a_range_in_chunks_joins_to_the_whole() {
    const KEYS: usize = 500;
    run(async {
        let daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        for i in 0..KEYS {
            kv.put(put(format!("k{i:05}"), "value")).await.expect("put");
        }
        let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
        let whole = kv.range(all.clone()).await.expect("read").into_inner();
        let mut stream = kv.range_stream(all.clone()).await.expect("open").into_inner();
        let mut joined = pb::RangeResponse::default();
        let mut sizes = Vec::new();
        while let Some(chunk) = stream.message().await.expect("no failure") {
            let part = chunk.range_response.expect("a part");
            sizes.push(part.kvs.len());
            joined.kvs.extend(part.kvs);
            assert!(joined.header.is_none(), "only the last chunk has a header");
            (joined.header, joined.count, joined.more) = (part.header, part.count, part.more);
        }
        assert!(sizes[0] <= 10 && sizes.len() > 2, "{sizes:?}");
        assert_eq!(joined, whole);
        let limited = pb::RangeRequest { limit: 2, ..all.clone() };
        let mut stream = kv.range_stream(limited).await.expect("open").into_inner();
        let only =
            stream.message().await.expect("no failure").expect("a chunk").range_response.expect("a part");
        assert_eq!((only.kvs.len(), only.count, only.more), (2, KEYS as i64, true));
        assert_eq!(stream.message().await.expect("no failure"), None);
        let counted = pb::RangeRequest { count_only: true, ..all.clone() };
        let mut stream = kv.range_stream(counted).await.expect("open").into_inner();
        let only =
            stream.message().await.expect("no failure").expect("a chunk").range_response.expect("a part");
        assert_eq!((only.kvs.len(), only.count), (0, KEYS as i64));
        for (request, code, text) in [
            (
                pb::RangeRequest { sort_order: 2, ..all.clone() },
                Code::Unimplemented,
                "RangeStream does not support custom sort orders",
            ),
            (
                pb::RangeRequest { min_mod_revision: 1, ..all.clone() },
                Code::Unimplemented,
                "RangeStream does not support revision filters",
            ),
            (
                pb::RangeRequest { revision: 1 << 40, ..all },
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
        ] {
            let error = match kv.range_stream(request).await {
                Err(error) => error,
                Ok(stream) => stream.into_inner().message().await.expect_err(text),
            };
            assert_eq!((error.code(), error.message()), (code, text));
        }
    });
}
