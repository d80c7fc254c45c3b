// SPDX-License-Identifier: Apache-2.0
//! `/metrics` against the rules' page.

use crate::{
    http,
    support::{Daemon, run},
};
use cairn_proto::etcdserverpb as pb;
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
        let daemon = Daemon::start(&["--metrics=extensive", "--quota-backend-bytes=4000"]);
        let mut kv = daemon.kv().await;
        let put = |key: &'static str| pb::PutRequest { key: key.into(), ..Default::default() };
        kv.put(put("k")).await.expect("put");
        // Something of each that appears on first use.
        kv.put(pb::PutRequest { value: vec![0; 4000].into(), ..put("k") }).await.expect_err("full");
        http::get(&daemon.clients[0], "/readyz").await;
        let found = families(&http::get(&daemon.clients[0], "/metrics").await.body);
        let mut lines = PAGE.lines();
        assert!(lines.next().is_some_and(|head| head.ends_with("\tcairn")), "the column is there");
        let mut served = BTreeMap::new();
        for line in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, kind, labels, .., cairn] = fields[..] else { panic!("{line}") };
            if cairn == "served" {
                let labels: BTreeSet<String> =
                    labels.split(',').filter(|label| *label != "-").map(str::to_owned).collect();
                served.insert(name.to_owned(), (kind.to_owned(), labels));
            } else {
                assert!(cairn.starts_with("not-yet: ") || cairn.starts_with("never: "), "{name}: {cairn}");
            }
        }
        assert_eq!(found, served);
        assert!(served.len() > 50, "only {} families", served.len());
    });
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
