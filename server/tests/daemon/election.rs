// SPDX-License-Identifier: Apache-2.0
//! The election service.

use crate::support::{Daemon, run, until};
use cairn_proto::{
    etcdserverpb as pb,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
        ResignRequest,
    },
};
use tonic::{Code, Streaming};

async fn grant(daemon: &Daemon, id: i64) -> i64 {
    let request = pb::LeaseGrantRequest { ttl: 60, id };
    daemon.lease().await.lease_grant(request).await.expect("granted").into_inner().id
}

fn candidate(lease: i64, value: &'static str) -> CampaignRequest {
    CampaignRequest { name: "e".into(), lease, value: value.into() }
}

async fn elected(daemon: &Daemon, lease: i64, value: &'static str) -> CampaignResponse {
    daemon.election().await.campaign(candidate(lease, value)).await.expect("elected").into_inner()
}

async fn key_exists(daemon: &Daemon, key: &'static str) -> bool {
    let range = pb::RangeRequest { key: key.into(), count_only: true, ..Default::default() };
    daemon.kv().await.range(range).await.expect("read").into_inner().count == 1
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

async fn observed(stream: &mut Streaming<LeaderResponse>) -> (String, i64) {
    let response = stream.message().await.expect("no failure").expect("no end");
    let kv = response.kv.expect("a pair");
    (String::from_utf8_lossy(&kv.value).into_owned(), revision(response.header))
}

// rule: ELECT-1
// rule: ELECT-2
// rule: ELECT-3
#[test]
fn a_candidate_leads_when_all_older_keys_are_gone() {
    run(async {
        let daemon = Daemon::start(&[]);
        let first = elected(&daemon, grant(&daemon, 1).await, "one").await;
        let leader = first.leader.clone().expect("a key");
        assert_eq!((leader.name.clone(), leader.key.clone(), leader.lease), ("e".into(), "e/1".into(), 1));
        assert_eq!(leader.rev, revision(first.header));
        // Again by the same lease: no new key, the new value is proclaimed, the header is the first one's.
        let again = elected(&daemon, 1, "uno").await;
        assert_eq!(again.leader.expect("a key").rev, leader.rev);
        assert_eq!(revision(again.header), leader.rev);
        let lease = grant(&daemon, 2).await;
        let mut client = daemon.election().await;
        let second = tokio::spawn(async move { client.campaign(candidate(lease, "two")).await });
        until(|| async { key_exists(&daemon, "e/2").await.then_some(()) }).await;
        assert!(!second.is_finished());
        let mut election = daemon.election().await;
        let found = election.leader(LeaderRequest { name: "e".into() }).await.expect("a leader").into_inner();
        assert_eq!(found.kv.expect("a pair").value, "uno");
        election.resign(ResignRequest { leader: Some(leader) }).await.expect("resigned");
        let second = second.await.expect("no panic").expect("elected").into_inner();
        assert_eq!(
            second.leader.expect("a key").rev,
            revision(second.header),
            "the header of the first moment"
        );
    });
}

// rule: ELECT-4
#[test]
fn a_candidate_that_goes_away_leaves_no_key() {
    run(async {
        let daemon = Daemon::start(&[]);
        elected(&daemon, grant(&daemon, 1).await, "one").await;
        let lease = grant(&daemon, 2).await;
        let mut client = daemon.election().await;
        let gone = tokio::spawn(async move { client.campaign(candidate(lease, "two")).await });
        until(|| async { key_exists(&daemon, "e/2").await.then_some(()) }).await;
        gone.abort();
        until(|| async { (!key_exists(&daemon, "e/2").await).then_some(()) }).await;
        assert!(key_exists(&daemon, "e/1").await);
    });
}

#[test]
fn a_candidate_whose_key_went_is_not_told_that_it_leads() {
    run(async {
        let daemon = Daemon::start(&[]);
        let first = elected(&daemon, grant(&daemon, 1).await, "one").await;
        let lease = grant(&daemon, 2).await;
        let mut client = daemon.election().await;
        let second = tokio::spawn(async move { client.campaign(candidate(lease, "two")).await });
        until(|| async { key_exists(&daemon, "e/2").await.then_some(()) }).await;
        daemon.lease().await.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoked");
        daemon.election().await.resign(ResignRequest { leader: first.leader }).await.expect("resigned");
        let error = second.await.expect("no panic").expect_err("its key is gone");
        assert_eq!((error.code(), error.message()), (Code::Unknown, "mutex: session is expired"));
    });
}

// rule: ELECT-5
// rule: ELECT-6
// rule: ELECT-7
// rule: ELECT-8
// rule: ELECT-12
#[test]
fn only_the_leader_proclaims_and_anyone_may_resign_in_vain() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut election = daemon.election().await;
        let texts = |error: tonic::Status| (error.code(), error.message().to_owned());
        let unknown = |text: &str| (Code::Unknown, text.to_owned());
        let nobody = election.leader(LeaderRequest { name: "e".into() }).await.expect_err("nobody");
        assert_eq!(texts(nobody), unknown("election: no leader"));
        let missing = election.proclaim(ProclaimRequest::default()).await.expect_err("no leader");
        assert_eq!(texts(missing), unknown("\"leader\" field must be provided"));
        let missing = election.resign(ResignRequest::default()).await.expect_err("no leader");
        assert_eq!(texts(missing), unknown("\"leader\" field must be provided"));
        let leader = elected(&daemon, grant(&daemon, 1).await, "one").await.leader.expect("a key");
        let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
            leader: Some(leader.clone()),
            value: value.into(),
        };
        let done = election.proclaim(proclaim(&leader, "uno")).await.expect("it leads").into_inner();
        let found = election.leader(LeaderRequest { name: "e".into() }).await.expect("a leader").into_inner();
        let kv = found.kv.expect("a pair");
        assert_eq!((kv.value, kv.lease), ("uno".into(), 1));
        assert_eq!(kv.mod_revision, revision(done.header));
        let old = LeaderKey { rev: leader.rev - 1, ..leader.clone() };
        let error = election.proclaim(proclaim(&old, "x")).await.expect_err("another revision");
        assert_eq!(texts(error), unknown("election: not leader"));
        election.resign(ResignRequest { leader: Some(old) }).await.expect("in vain");
        assert!(key_exists(&daemon, "e/1").await);
        election.resign(ResignRequest { leader: Some(leader.clone()) }).await.expect("resigned");
        assert!(!key_exists(&daemon, "e/1").await);
        let error = election.proclaim(proclaim(&leader, "x")).await.expect_err("resigned");
        assert_eq!(texts(error), unknown("election: not leader"));
        let error = election.campaign(candidate(99, "x")).await.expect_err("an unknown lease");
        assert_eq!(texts(error), unknown("etcdserver: requested lease not found"));
    });
}

// rule: ELECT-9
// rule: ELECT-10
// rule: ELECT-11
#[test]
fn observers_are_told_every_leader_and_every_value() {
    run(async {
        let daemon = Daemon::start(&[]);
        let mut election = daemon.election().await;
        let name = || LeaderRequest { name: "e".into() };
        let mut early = election.observe(name()).await.expect("nobody yet").into_inner();
        let leader = elected(&daemon, grant(&daemon, 1).await, "one").await.leader.expect("a key");
        assert_eq!(observed(&mut early).await, ("one".into(), leader.rev));
        let mut late = election.observe(name()).await.expect("observed").into_inner();
        assert_eq!(observed(&mut late).await.0, "one");
        let proclaim = ProclaimRequest { leader: Some(leader.clone()), value: "uno".into() };
        let changed = revision(election.proclaim(proclaim).await.expect("it leads").into_inner().header);
        for stream in [&mut early, &mut late] {
            assert_eq!(observed(stream).await, ("uno".into(), changed));
        }
        election.resign(ResignRequest { leader: Some(leader) }).await.expect("resigned");
        let next = elected(&daemon, grant(&daemon, 2).await, "two").await.leader.expect("a key");
        for stream in [&mut early, &mut late] {
            assert_eq!(observed(stream).await.0, "two", "the deletion itself tells nothing");
        }
        assert_eq!(next.key, "e/2");
    });
}
