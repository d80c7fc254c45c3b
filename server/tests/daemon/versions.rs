// SPDX-License-Identifier: Apache-2.0
//! The version of a cluster: decided by its members', lowered by its operator.
//!
//! Owns      what clients, peers and logs are told of it.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    members::{Members, Place, run},
    support::{Daemon, until},
};
use cairn_proto::etcdserverpb::{self as pb, downgrade_request::DowngradeAction};
use std::collections::BTreeSet;
use tonic::Code;

/// What a member tells: the versions of its build, of the cluster and of its store, and the target of a downgrade.
/// Clients and peers are asked one after the other, and again if something changed in between.
async fn told(place: &Place) -> [String; 4] {
    until(|| async {
        let status =
            place.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
        let peers = crate::membership::ask(&place.peer, "GET", "/version", "").await.1;
        let peers: serde_json::Value = serde_json::from_str(&peers).expect("JSON");
        let text = |key: &str| peers[key].as_str().expect("a text").to_owned();
        assert_eq!(text("etcdserver"), status.version);
        let info = status.downgrade_info.expect("always there");
        assert_eq!(info.enabled, !info.target_version.is_empty());
        let storage = Some(text("storage")).filter(|told| told != "unknown").unwrap_or_default();
        let same = storage == status.storage_version;
        same.then(|| [status.version, text("etcdcluster"), storage, info.target_version])
    })
    .await
}

/// Waits until all members tell this.
async fn all_tell(members: &Members, cluster: &str, storage: &str, target: &str) {
    for i in members.live() {
        let place = members.place(i);
        until(|| async {
            let [_, told_cluster, told_storage, told_target] = told(&place).await;
            (told_cluster == cluster && told_storage == storage && told_target == target).then_some(())
        })
        .await;
    }
}

async fn downgrade(place: &Place, action: DowngradeAction, version: &str) -> Result<String, (Code, String)> {
    let r = pb::DowngradeRequest { action: action as i32, version: version.to_owned() };
    let answer = place.maintenance().await.downgrade(r).await;
    let answer = answer.map_err(|status| (status.code(), status.message().to_owned()))?.into_inner();
    assert!(answer.header.expect("a header").revision > 0);
    Ok(answer.version)
}

// rule: VE-1, VE-2, VE-4, VE-5, VE-6, VE-7, VE-9
#[test]
fn a_downgrade_is_enabled_lowers_the_cluster_on_all_members_and_is_given_up() {
    run(async {
        use DowngradeAction::{Cancel, Enable, Validate};
        let mut members = Members::start(3, &[]);
        all_tell(&members, "3.7.0", "3.7.0", "").await;
        let leader = members.leader().await;
        let follower = members.place((leader + 1) % 3);
        let ok = Ok("3.7".to_owned());
        let refused = |code, text: &str| Err((code, format!("etcdserver: {text}")));
        let invalid = refused(Code::InvalidArgument, "invalid downgrade target version");
        let format = refused(Code::InvalidArgument, "wrong downgrade target version format");
        for place in [&follower, &members.place(leader)] {
            assert_eq!(downgrade(place, Validate, "3.6").await, ok);
            assert_eq!(downgrade(place, Validate, "3.6.5").await, ok);
            for action in [Validate, Enable] {
                for version in ["3.5", "3.7", "3.8.0", "4.6"] {
                    assert_eq!(downgrade(place, action, version).await, invalid, "{version}");
                }
                for version in ["", "3", "x.y", "3.6.0.0"] {
                    assert_eq!(downgrade(place, action, version).await, format, "{version:?}");
                }
            }
            // Nothing is under way, and nothing is said of that.
            assert_eq!(downgrade(place, Cancel, "").await, ok);
        }
        let odd = pb::DowngradeRequest { action: 9, version: "3.6".to_owned() };
        let odd = follower.maintenance().await.downgrade(odd).await.expect_err("no such action");
        assert_eq!((odd.code(), odd.message()), (Code::Unknown, "etcdserver: unknown method"));

        assert_eq!(downgrade(&follower, Enable, "3.6").await, ok);
        all_tell(&members, "3.6.0", "3.6.0", "3.6.0").await;
        for i in 0..3 {
            let peer = members.place(i).peer;
            let enabled = crate::membership::ask(&peer, "GET", "/downgrade/enabled", "").await;
            assert_eq!(enabled, (200, "true".to_owned()));
            let member = members.member(i);
            member.wait_for("The server is ready to downgrade");
            member.wait_for_line("that it went down", |line| {
                line["msg"] == "updated cluster version" && line["from"] == "3.7" && line["to"] == "3.6"
            });
        }
        let running = refused(Code::FailedPrecondition, "cluster has a downgrade job in progress");
        assert_eq!(downgrade(&follower, Enable, "3.5").await, running);
        assert_eq!(downgrade(&follower, Validate, "3.6").await, invalid);

        // It is there after a crash, and is given up by a member that was not there when it began.
        let killed = (leader + 2) % 3;
        let dir = members.kill(killed);
        members.restart(killed, dir);
        all_tell(&members, "3.6.0", "3.6.0", "3.6.0").await;
        assert_eq!(downgrade(&members.place(killed), Cancel, "").await, Ok("3.6".to_owned()));
        all_tell(&members, "3.7.0", "3.7.0", "").await;
        assert_eq!(members.hashes().await.len(), 1);
    });
}

// rule: VE-2
#[test]
fn a_cluster_is_of_the_least_version_until_all_members_have_told_theirs() {
    run(async {
        let places: Vec<Place> = ["a", "b", "c"].map(Place::new).into();
        let named: Vec<String> =
            places.iter().map(|place| format!("{}={}", place.name, place.peer)).collect();
        let cluster = format!("--initial-cluster={}", named.join(","));
        let spawn = |place: &Place| {
            let flags = [
                format!("--name={}", place.name),
                format!("--listen-peer-urls={}", place.peer),
                format!("--initial-advertise-peer-urls={}", place.peer),
                format!("--listen-client-urls={}", place.client),
                format!("--advertise-client-urls={}", place.client),
                cluster.clone(),
            ];
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            Daemon::spawn(tempfile::tempdir().expect("a directory"), &flags)
        };
        let first: Vec<Daemon> = places[..2].iter().map(spawn).collect();
        let mut first: Vec<Daemon> = first.into_iter().map(Daemon::ready).collect();
        let cluster_of = async |place: &Place| told(place).await[1].clone();
        for place in &places[..2] {
            until(|| async { (cluster_of(place).await == "3.0.0").then_some(()) }).await;
            // A store of that age does not know.
            assert_eq!(told(place).await, ["3.7.1", "3.0.0", "", ""]);
        }
        let _last = spawn(&places[2]).ready();
        for place in &places {
            until(|| async { (cluster_of(place).await == "3.7.0").then_some(()) }).await;
        }
        let lines: BTreeSet<String> = first
            .iter_mut()
            .flat_map(|daemon| {
                daemon.wait_for("updated cluster version");
                daemon.log.iter().map(|line| line["msg"].to_string())
            })
            .collect();
        assert!(lines.contains("\"set initial cluster version\""), "{lines:?}");
    });
}
