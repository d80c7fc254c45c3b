// SPDX-License-Identifier: Apache-2.0
//! `/metrics` against the rules' page.

use crate::{
    http,
    members::{self, Members},
    support::{Daemon, run, until},
};
use cairn_proto::etcdserverpb as pb;
use futures_util::stream;
use pb::request_op::Request;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../../../tests/rules/metrics.tsv");

/// Families by name: their type and the names of their labels.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type");
        let old = families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        assert!(old.is_none(), "{name} stands twice");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|base| families.get(*base).is_some_and(|(kind, _)| kind == "histogram"));
        let (_, known) =
            families.get_mut(base.unwrap_or(name)).unwrap_or_else(|| panic!("no family: {line}"));
        let keys = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(key, _)| key);
        known.extend(keys.filter(|key| *key != "le").map(str::to_owned));
    }
    families
}

// rule: HT-8
// rule: HT-10
#[test]
fn every_family_is_on_the_page_and_every_row_is_served_or_says_why_not() {
    run(async {
        let daemon = Daemon::start(&[
            "--metrics=extensive",
            "--quota-backend-bytes=4000",
            "--auto-tls",
            "--listen-metrics-urls=https://127.0.0.1:0",
        ]);
        let mut kv = daemon.kv().await;
        let put = |key: &'static str| pb::PutRequest { key: key.into(), ..Default::default() };
        kv.put(put("k")).await.expect("put");
        // Something of each that appears on first use.
        kv.put(pb::PutRequest { value: vec![0; 4000].into(), ..put("k") }).await.expect_err("full");
        http::get(&daemon.clients[0], "/readyz").await;
        let found = families(&http::get(&daemon.clients[0], "/metrics").await.body);
        let served = rows("served");
        assert_eq!(found, served);
        assert!(served.len() > 50, "only {} families", served.len());
    });
}

// rule: HT-8
// rule: HT-10
#[test]
fn a_member_of_a_cluster_tells_of_its_peers() {
    members::run(async {
        let cluster = Members::start(3, &[]);
        let leader = cluster.place(cluster.leader().await);
        leader.kv().await.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.expect("put");
        let nobody = pb::MemberPromoteRequest { id: 7 };
        leader.cluster().await.member_promote(nobody).await.expect_err("nobody");
        let address = leader.client.strip_prefix("http://").expect("a URL");
        let text = http::get(address, "/metrics").await.body;
        let found = families(&text);
        for (name, family) in rows("served of peers") {
            assert_eq!(found.get(&name), Some(&family), "{name}");
        }
        let positive = |start: &str| {
            let lines = text.lines().filter(|line| line.starts_with(start));
            lines.filter(|line| !line.ends_with(" 0")).count()
        };
        for family in
            ["known_peers{", "active_peers{", "peer_sent_bytes_total{", "peer_received_bytes_total{"]
        {
            assert_eq!(positive(&format!("etcd_network_{family}")), 2, "{family} of two peers\n{text}");
        }
        assert_eq!(
            positive("etcd_server_learner_promote_failures{Reason=\"etcdserver: member not found\"}"),
            1
        );
    });
}

/// The families that the page says are served so.
fn rows(wanted: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut lines = PAGE.lines();
    assert!(lines.next().is_some_and(|head| head.ends_with("\tcairn")), "the column is there");
    let mut served = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, labels, .., cairn] = fields[..] else { panic!("{line}") };
        let known = ["served", "served of peers"].contains(&cairn);
        assert!(known || cairn.starts_with("not-yet: ") || cairn.starts_with("never: "), "{name}: {cairn}");
        if cairn == wanted {
            let labels = labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect();
            served.insert(name.to_owned(), (kind.to_owned(), labels));
        }
    }
    served
}

#[test]
fn calls_are_counted_exactly() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut kv = daemon.kv().await;
        for _ in 0..3 {
            kv.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.expect("put");
        }
        kv.put(pb::PutRequest::default()).await.expect_err("no key");
        let text = http::get(&daemon.clients[0], "/metrics").await.body;
        for line in [
            "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 4",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 3",
            "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_msg_received_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 4",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "etcd_debugging_mvcc_current_revision 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    });
}

/// The figures of the kinds of calls are those of etcd 3.5.1.
// rule: HT-10
#[test]
fn what_requests_did_is_counted_as_etcd_counts_it() {
    run(async {
        let daemon = Daemon::start(&["--heartbeat-interval=10", "--election-timeout=100"]);
        let (mut kv, mut lease) = (daemon.kv().await, daemon.lease().await);
        let put =
            |key: &'static str| pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        let op = |request| pb::RequestOp { request: Some(request) };
        let compare = |key: &'static str| pb::Compare { key: key.into(), ..Default::default() };
        let all = || pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv: false };
        let get = |revision| pb::RangeRequest { key: "k".into(), revision, ..Default::default() };

        for key in ["k", "k2", "k3"] {
            kv.put(put(key)).await.expect("put");
        }
        kv.put(pb::PutRequest { value: "".into(), ignore_value: true, ..put("k") }).await.expect("put");
        kv.put(pb::PutRequest { lease: 99, ..put("k") }).await.expect_err("no such lease");
        kv.range(get(0)).await.expect("range");
        kv.range(get(77)).await.expect_err("a revision to come");
        let one = pb::TxnRequest {
            compare: vec![compare("k")],
            success: vec![op(Request::RequestPut(put("k")))],
            failure: vec![op(Request::RequestPut(put("k")))],
        };
        kv.txn(one).await.expect("txn");
        let several = pb::TxnRequest {
            compare: vec![
                pb::Compare { result: 3, ..compare("k") },
                pb::Compare { result: 3, ..compare("k") },
            ],
            success: vec![op(Request::RequestRange(get(0))), op(Request::RequestPut(put("k2")))],
            failure: vec![],
        };
        kv.txn(several).await.expect("txn");
        let read_only = pb::TxnRequest {
            compare: vec![compare("k")],
            failure: vec![op(Request::RequestRange(get(0)))],
            ..Default::default()
        };
        kv.txn(read_only).await.expect("txn");
        kv.delete_range(all()).await.expect("delete");
        kv.delete_range(all()).await.expect("delete");
        kv.put(put("k")).await.expect("put");

        let grant = |ttl| pb::LeaseGrantRequest { ttl, id: 0 };
        let long = lease.lease_grant(grant(100)).await.expect("grant").into_inner().id;
        kv.put(pb::PutRequest { lease: long, ..put("l") }).await.expect("put");
        lease.lease_revoke(pb::LeaseRevokeRequest { id: long }).await.expect("revoke");
        let short = lease.lease_grant(grant(1)).await.expect("grant").into_inner().id;
        let kept = lease.lease_keep_alive(stream::iter([pb::LeaseKeepAliveRequest { id: short }])).await;
        kept.expect("open").into_inner().message().await.expect("answered");
        let compact = pb::CompactionRequest { revision: 8, physical: true };
        kv.compact(compact).await.expect("compact");

        let text = until(async || {
            let text = http::get(&daemon.clients[0], "/metrics").await.body;
            text.contains("etcd_debugging_server_lease_expired_total 1\n").then_some(text)
        })
        .await;
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().expect("a number")
        };
        for (name, expected) in [
            ("etcd_mvcc_put_total", 8.0),
            // Keys and values: seven of a short key and "v", one of "k" again.
            ("etcd_debugging_mvcc_total_put_size_in_bytes", 19.0),
            ("etcd_mvcc_range_total", 1.0 + 2.0 + 1.0 + 3.0 + 2.0),
            ("etcd_mvcc_delete_total", 3.0),
            ("etcd_mvcc_txn_total", 4.0),
            ("etcd_debugging_mvcc_keys_total", 1.0),
            // The tombstones of revision 8 stay for watchers until the next one.
            ("etcd_debugging_mvcc_db_compaction_keys_total", 6.0),
            ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
            ("etcd_debugging_lease_granted_total", 2.0),
            ("etcd_debugging_lease_ttl_total_sum", 101.0),
            ("etcd_debugging_lease_revoked_total", 2.0),
            ("etcd_debugging_lease_renewed_total", 1.0),
            ("etcd_server_proposals_failed_total", 0.0),
            ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}", 6.0),
            ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"false\"}", 1.0),
            ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Txn\",success=\"true\"}", 2.0),
            ("etcd_server_request_duration_seconds_count{type=\"ReadonlyTxn\",success=\"true\"}", 1.0),
            ("etcd_server_request_duration_seconds_count{type=\"Range\",success=\"false\"}", 1.0),
            ("etcd_server_range_duration_seconds_count{success=\"true\"}", 1.0),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert!(value("etcd_debugging_mvcc_db_compaction_last") > 1.7e9);
        assert!(value("etcd_disk_wal_write_bytes_total") >= 4096.0);
    });
}
