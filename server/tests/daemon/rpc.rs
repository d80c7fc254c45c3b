// SPDX-License-Identifier: Apache-2.0
//! What is common to all calls: metadata, sizes, deadlines, and what is not served.

use crate::support::{Daemon, raw_call, run};
use bytes::Bytes;
use cairn_proto::{etcdserverpb as pb, health, methods};
use http::uri::PathAndQuery;
use std::time::Duration;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{AsciiMetadataValue, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

fn put(key: &'static str, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

/// Calls any path with an empty message.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path: PathAndQuery = path.parse().expect("a path");
    let codec: ProstCodec<pb::StatusRequest, pb::StatusResponse> = ProstCodec::default();
    grpc.unary(Request::new(pb::StatusRequest {}), path, codec).await.map(|_| ())
}

fn told(error: &Status) -> (Code, &str) {
    (error.code(), error.message())
}

#[test]
fn unknown_paths_are_unimplemented_and_no_unary_method_is() {
    run(async {
        let daemon = Daemon::start(&[]);
        let channel = daemon.channel().await;
        for (path, text) in [
            ("/x.Y/Z", "unknown service x.Y"),
            ("/etcdserverpb.KV/Frob", "unknown method Frob for service etcdserverpb.KV"),
            ("//etcdserverpb.KV/Put", "unknown service /etcdserverpb.KV"),
            ("/etcdserverpb.kv/Put", "unknown service etcdserverpb.kv"),
        ] {
            let error = call(&channel, path).await.expect_err(path);
            assert_eq!(told(&error), (Code::Unimplemented, text), "{path}");
        }
        // A Lock and a Campaign of nobody would wait for each other.
        let waits = |method: &&methods::Method| method.route == methods::Route::Composed;
        let unary = methods::ALL.iter().filter(|method| method.kind == methods::Kind::Unary);
        for method in unary.filter(|method| !waits(method)) {
            if let Err(error) = call(&channel, method.path).await {
                assert_ne!(error.code(), Code::Unimplemented, "{}: {}", method.path, error.message());
            }
        }
    });
}

// rule: RT-7
// rule: LIMIT-1
// rule: LIMIT-2
// rule: LIMIT-3
#[test]
fn a_message_above_the_limit_is_refused_in_etcds_words() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        let error = kv.put(put("k", vec![0; 1_572_864])).await.expect_err("too large for the log");
        assert_eq!(told(&error), (Code::InvalidArgument, "etcdserver: request is too large"));
        // Key and value have three and five bytes of head.
        let error = kv.put(put("k", vec![0; 3_000_000])).await.expect_err("too large for the transport");
        assert_eq!(
            told(&error),
            (Code::ResourceExhausted, "grpc: received message larger than max (3000008 vs. 2097152)")
        );
        for i in 0..3 {
            let key = ["a", "b", "c"][i];
            kv.put(put(key, vec![i as u8; 1_000_000])).await.expect("below the limit");
        }
        let all = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
        let response = kv.range(all).await.expect("answers have no limit").into_inner();
        let values: Vec<(usize, u8)> = response.kvs.iter().map(|kv| (kv.value.len(), kv.value[7])).collect();
        assert_eq!(values, [(1_000_000, 0), (1_000_000, 1), (1_000_000, 2)]);
        let daemon = Daemon::start(&["--max-request-bytes=1000"]);
        let error = daemon.kv().await.put(put("k", vec![0; 600_000])).await.expect_err("too large");
        assert_eq!(
            told(&error),
            (Code::ResourceExhausted, "grpc: received message larger than max (600007 vs. 525288)")
        );
    });
}

// rule: LIMIT-13
#[test]
fn metadata_is_read() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        let with = |name: &'static str, value: AsciiMetadataValue| {
            let mut request = Request::new(get("k"));
            request.metadata_mut().insert(name, value);
            request
        };
        let latin: AsciiMetadataValue = MetadataValue::try_from(&b"3.\xff"[..]).expect("a header");
        let error = kv.range(with("client-api-version", latin)).await.expect_err("not UTF-8");
        assert_eq!(told(&error), (Code::InvalidArgument, "etcdserver: invalid client api version"));
        kv.range(with("client-api-version", "3.7".parse().expect("a value"))).await.expect("a version");
        kv.range(with("hasleader", "true".parse().expect("a value"))).await.expect("there is a leader");
        let error =
            kv.range(with("grpc-encoding", "br".parse().expect("a value"))).await.expect_err("unknown");
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().contains("Decompressor is not installed for grpc-encoding \"br\""));
    });
}

#[test]
fn packed_messages_are_taken_and_answered_alike() {
    use tonic::codec::CompressionEncoding::Gzip;
    run(async {
        let daemon = Daemon::start(&[]);
        let mut packed = daemon.kv().await.send_compressed(Gzip).accept_compressed(Gzip);
        packed.put(put("k", vec![7; 100_000])).await.expect("put");
        let value = packed.range(get("k")).await.expect("read").into_inner().kvs.remove(0).value;
        assert_eq!(value, vec![7; 100_000]);
        let plain = daemon.kv().await.range(get("k")).await.expect("read").into_inner();
        assert_eq!(plain.kvs[0].value, value);
        // It unfolds to more than the limit.
        let error = packed.put(put("k", vec![7; 3_000_000])).await.expect_err("too large");
        assert_eq!(
            told(&error),
            (Code::ResourceExhausted, "grpc: received message after decompression larger than max 2097152")
        );
    });
}

// rule: LIMIT-5
#[test]
fn the_callers_deadline_ends_a_wait() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut lock = daemon.lock().await;
        let held = cairn_proto::v3lockpb::LockRequest { name: "l".into(), lease: 0 };
        lock.lock(held.clone()).await.expect("free");
        let address = &daemon.clients[0];
        let timeout = [("grpc-timeout", "200m")];
        let late = (4, "context deadline exceeded".to_owned());
        assert_eq!(raw_call(address, "/v3lockpb.Lock/Lock", &timeout, &held).await, late);
        let watch = pb::WatchRequest::default();
        assert_eq!(raw_call(address, "/etcdserverpb.Watch/Watch", &timeout, &watch).await, late);
        let malformed = [("grpc-timeout", "soon")];
        let put = put("k", "v");
        let (code, _) = raw_call(address, "/etcdserverpb.KV/Put", &malformed, &put).await;
        assert_eq!(code, 13);
    });
}

// rule: LIMIT-8
#[test]
fn a_late_write_says_so_and_may_yet_be_done() {
    const ATTEMPTS: usize = 500;
    run(async {
        let daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        let (mut late, mut done) = (0, 0);
        for attempt in 0..ATTEMPTS {
            let key = format!("k{attempt}");
            let put = pb::PutRequest { key: key.clone().into(), ..Default::default() };
            let timeout = format!("{}u", 20 + attempt);
            let headers = [("grpc-timeout", timeout.as_str())];
            match raw_call(&daemon.clients[0], "/etcdserverpb.KV/Put", &headers, &put).await {
                (0, _) => continue,
                (14, text) => assert_eq!(text, "etcdserver: request timed out"),
                other => panic!("{other:?}"),
            }
            late += 1;
            let range = pb::RangeRequest { key: key.into(), ..Default::default() };
            done += kv.range(range).await.expect("read").into_inner().count;
            if done > 0 {
                break;
            }
        }
        assert!(done > 0, "of {late} late writes none was done");
    });
}

// rule: LIMIT-14
#[test]
fn a_connection_carries_many_streams_and_a_bound_that_is_set() {
    run(async {
        let daemon = Daemon::start(&[]);
        let client = daemon.watch().await;
        let mut open = Vec::new();
        for _ in 0..300 {
            let requests = futures_util::stream::pending::<pb::WatchRequest>();
            open.push(client.clone().watch(requests).await.expect("a stream"));
        }
        daemon.kv().await.put(put("k", "v")).await.expect("others are served");
        let daemon = Daemon::start(&["--max-concurrent-streams=2"]);
        let client = daemon.watch().await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let requests = futures_util::stream::pending::<pb::WatchRequest>();
            open.push(client.clone().watch(requests).await.expect("a stream"));
        }
        let mut third = client.clone();
        let waits = third.watch(futures_util::stream::pending::<pb::WatchRequest>());
        assert!(
            tokio::time::timeout(Duration::from_millis(200), waits).await.is_err(),
            "a third stream opened"
        );
    });
}

#[test]
fn authentication_is_off() {
    run(async {
        let daemon = Daemon::start(&[]);
        let channel = daemon.channel().await;
        let mut auth = pb::auth_client::AuthClient::new(channel);
        // rule: AU-3
        let status = auth.auth_status(pb::AuthStatusRequest {}).await.expect("open to all").into_inner();
        assert_eq!((status.enabled, status.auth_revision), (false, 1));
        let error = auth.authenticate(pb::AuthenticateRequest::default()).await.expect_err("off");
        assert_eq!(told(&error), (Code::FailedPrecondition, "etcdserver: authentication is not enabled"));
    });
}

#[test]
fn the_health_service_knows_the_empty_name() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut client = daemon.health().await;
        let name = |service: &str| health::HealthCheckRequest { service: service.into() };
        let serving = health::health_check_response::ServingStatus::Serving as i32;
        let unknown = health::health_check_response::ServingStatus::ServiceUnknown as i32;
        assert_eq!(client.check(name("")).await.expect("known").into_inner().status, serving);
        let error = client.check(name("etcdserverpb.KV")).await.expect_err("unknown");
        assert_eq!(told(&error), (Code::NotFound, "unknown service"));
        let list = client.list(health::HealthListRequest {}).await.expect("a list").into_inner();
        assert_eq!(list.statuses.keys().collect::<Vec<_>>(), [""]);
        let mut known = client.watch(name("")).await.expect("open").into_inner();
        assert_eq!(known.message().await.expect("no failure").expect("no end").status, serving);
        let mut other = client.watch(name("x")).await.expect("open").into_inner();
        assert_eq!(other.message().await.expect("no failure").expect("no end").status, unknown);
    });
}

#[test]
fn the_member_tells_of_itself() {
    run(async {
        let daemon = Daemon::start(&["--name=m1", "--quota-backend-bytes=123456789"]);
        let put =
            daemon.kv().await.put(put("k", "v")).await.expect("put").into_inner().header.expect("a header");
        let mut maintenance = daemon.maintenance().await;
        let status = maintenance.status(pb::StatusRequest {}).await.expect("status").into_inner();
        assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.7.1", "3.7.0"));
        assert_eq!((status.leader, status.db_size_quota), (put.member_id, 123_456_789));
        assert_eq!(status.header.expect("a header").revision, 2);
        assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
        assert!(status.errors.is_empty() && status.raft_index >= status.raft_applied_index);
        let list = daemon.cluster().await.member_list(pb::MemberListRequest { linearizable: true }).await;
        let list = list.expect("a list").into_inner();
        // rule: HDR-7
        assert_eq!(list.header.expect("a header").revision, 0);
        assert_eq!(list.members.len(), 1);
        assert_eq!((list.members[0].name.as_str(), list.members[0].id), ("m1", put.member_id));
        let defragment = maintenance.defragment(pb::DefragmentRequest {}).await.expect("done").into_inner();
        assert_eq!(defragment.header, None);
        let hash = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("a hash").into_inner();
        assert_eq!(hash.hash_revision, 2);
        // rule: HASH-18
        // Here `Hash` is the hash of the current revision: there are no buckets.
        let whole = maintenance.hash(pb::HashRequest {}).await.expect("a hash").into_inner();
        assert_eq!(whole.hash, hash.hash);
        // rule: LIMIT-16
        let odd = pb::AlarmRequest { action: 99, ..Default::default() };
        let error = maintenance.alarm(odd).await.expect_err("no such action");
        assert_eq!(told(&error), (Code::Unknown, "etcdserver: unknown method"));
    });
}

// rule: ALARM-2
// rule: ALARM-3
// rule: ALARM-7
#[test]
fn a_full_store_says_so_until_it_is_disarmed() {
    run(async {
        let daemon = Daemon::start(&["--quota-backend-bytes=2000"]);
        let mut kv = daemon.kv().await;
        let error = kv.put(put("k", vec![0; 2_000])).await.expect_err("full");
        assert_eq!(told(&error), (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"));
        let found = kv.range(get("k")).await.expect("read").into_inner();
        assert_eq!(found.count, 0, "what is refused is not done");
        let mut maintenance = daemon.maintenance().await;
        let status = maintenance.status(pb::StatusRequest {}).await.expect("status").into_inner();
        let member = status.header.expect("a header").member_id;
        assert_eq!(status.errors.len(), 1);
        assert_eq!(status.errors[0].trim_end(), format!("memberID:{member} alarm:NOSPACE"));
        let disarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate as i32,
            member_id: member,
            alarm: pb::AlarmType::Nospace as i32,
        };
        let alarms = maintenance.alarm(disarm).await.expect("disarmed").into_inner().alarms;
        assert_eq!(alarms.len(), 1);
        kv.put(put("k", "small")).await.expect("room again");
    });
}
