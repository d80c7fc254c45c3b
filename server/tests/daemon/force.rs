// SPDX-License-Identifier: Apache-2.0
//! `--force-new-cluster`: what is left of a cluster goes on without those that are gone for ever.
//!
//! Holds     what was acknowledged is there after; ids stay, and those that are gone are told so if they come back.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    members::{Members, Place, run},
    membership::add,
    support::{Daemon, run_to_end},
};
use cairn_proto::etcdserverpb as pb;

fn put(key: String) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

async fn count(place: &Place) -> i64 {
    let all =
        pb::RangeRequest { key: "k".into(), range_end: "l".into(), count_only: true, ..Default::default() };
    place.kv().await.range(all).await.expect("read").into_inner().count
}

/// Ids of cluster and member.
async fn ids(place: &Place) -> (u64, u64) {
    let status = place.maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
    let header = status.into_inner().header.expect("a header");
    (header.cluster_id, header.member_id)
}

const FORCED: &[&str] = &["--force-new-cluster"];

// rule: FN-1, FN-3, FN-4, FN-5, ID-3, ID-6
#[test]
fn a_member_whose_cluster_is_gone_goes_on_with_all_data_and_others_are_added_anew() {
    run(async {
        let mut members = Members::start(3, &[]);
        // A learner that never starts goes too.
        let learner = Place::new("learner");
        add(&members.place(0), &learner, true).await;
        for i in 0..30 {
            members.place(i % 3).kv().await.put(put(format!("k{i:02}"))).await.expect("written");
        }
        let left = members.place(1);
        let before = ids(&left).await;
        let lost: Vec<u64> = [members.id(0).await, members.id(2).await].into();
        let dirs = [0, 1, 2].map(|i| members.kill(i));
        let [of_first, of_left, of_third] = dirs;
        drop(of_third);

        let forced = members.spawn_with(1, of_left, FORCED).ready();
        let said =
            forced.log.iter().find(|line| line["msg"] == "forcing restart member").expect("it says so");
        assert_eq!(said["local-member-id"], format!("{:x}", before.1));
        members.put_back(1, forced);
        assert_eq!(ids(&left).await, before);
        assert_eq!(count(&left).await, 30, "what was acknowledged last, too");
        let list = members.list(1).await;
        assert_eq!(
            list.iter().map(|member| (member.id, &member.name[..])).collect::<Vec<_>>(),
            [(before.1, "m1")]
        );
        left.kv().await.put(put("k30".to_owned())).await.expect("it is its own quorum");

        // The flag stays where it is.
        let dir = members.kill(1);
        let again = members.spawn_with(1, dir, FORCED).ready();
        assert!(!again.has_said("forcing restart member"), "{:#?}", again.log);
        members.put_back(1, again);
        assert_eq!((ids(&left).await, count(&left).await), (before, 31));

        for name in ["m3", "m4"] {
            let place = Place::new(name);
            let added = add(&left, &place, false).await.member.expect("the new one").id;
            assert!(!lost.contains(&added) && added != before.1);
            let new = members.join(place, &[]);
            members.restart(new, tempfile::tempdir().expect("a directory"));
        }
        let leader = members.leader().await;
        members.place(leader).kv().await.put(put("k31".to_owned())).await.expect("three are one store");
        assert_eq!(members.hashes().await.len(), 1, "they have what the first has");
        assert_eq!(members.list(1).await.len(), 3);

        // One that was given up comes back, and is told.
        let mut back = members.spawn(0, of_first);
        assert_eq!(back.wait().code(), Some(0));
        assert!(back.has_said("data-dir used by this member must be removed"), "{:#?}", back.log);
        drop(back.stop_ended());
    });
}

// rule: FN-1
#[test]
fn without_the_data_of_a_member_nothing_is_forced_and_nothing_is_begun() {
    let dir = tempfile::tempdir().expect("a directory");
    let flags = [
        "--force-new-cluster",
        "--data-dir=data",
        "--listen-client-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:1",
        "--listen-peer-urls=http://127.0.0.1:0",
    ];
    let (code, _, err) = run_to_end(&flags, dir.path());
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("--force-new-cluster needs the data of a member, and there is none in data"),
        "{err}"
    );
    assert!(!dir.path().join("data").exists());

    // With data it is one member as before.
    let daemon = Daemon::start(&[]);
    let alone = Daemon::start_in(daemon.stop(), FORCED);
    assert!(!alone.has_said("forcing restart member"), "{:#?}", alone.log);
}
