// SPDX-License-Identifier: Apache-2.0
//! Changes of the membership, as operators ask for them.
//!
//! Owns      the checks before a change is proposed, and the way to the leader of what only it can judge.
//! Holds     1. a change is answered when it is applied here, and Raft takes the next one after it (CL-11);
//!           2. whether a change fits the records is judged at apply, on every member alike (CL-2).
//! Never     takes a member in or out by itself.

use super::{
    Caller, Member, Refusal,
    auth::wall_s,
    cluster::record,
    config::Level,
    peers::members,
    shared::{Answer, ReplicaMessage},
};
use crate::config::urls::check_announced;
use ::http::StatusCode;
use cairn_core::{
    MemberId,
    replica::{
        Proposal,
        conf::{ConfChange, Kind},
        log::EntryKind,
    },
    state::{Applied, Carried, reconfig::Seen},
};
use cairn_proto::{
    errors, etcdserverpb as pb,
    membershippb::{Member as Record, RaftAttributes},
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

/// Until a leader is asked again.
const RETRY: Duration = Duration::from_millis(50);
/// The leader applies what it knows to be committed before it judges a learner, within this (CL-8).
const APPLY_PATIENCE: Duration = Duration::from_secs(1);
const APPLY_POLL: Duration = Duration::from_millis(5);
/// A learner that has less than this share of the leader's log is not in sync (CL-8).
const READY_PERCENT: u64 = 90;

impl Member {
    pub async fn member_add(&self, r: pb::MemberAddRequest) -> Result<pb::MemberAddResponse, Refusal> {
        let mut urls: Vec<String> = r.peer_urls.iter().map(|url| url.trim().to_owned()).collect();
        if urls.is_empty() || urls.iter().any(|url| check_announced(url).is_err()) {
            return Err(errors::MEMBER_BAD_URLS);
        }
        // One that allows none says so at once: in the log, 0 is no limit.
        if r.is_learner && self.shared.config.learners_max == 0 {
            return Err(errors::TOO_MANY_LEARNERS);
        }
        urls.sort_unstable();
        let id = MemberId::when_added(&urls, wall_s()).0;
        let kind = if r.is_learner { Kind::AddLearner } else { Kind::AddVoter };
        self.check_quorum("add", kind, id)?;
        let members = self.change(kind, id, Some(urls)).await?;
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(pb::MemberAddResponse { header: Some(self.cluster_header()), member, members })
    }

    pub async fn member_remove(
        &self,
        r: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, Refusal> {
        self.check_quorum("remove", Kind::Remove, r.id)?;
        let members = self.change(Kind::Remove, r.id, None).await?;
        Ok(pb::MemberRemoveResponse { header: Some(self.cluster_header()), members })
    }

    /// CL-6: what is no URL is taken too.
    pub async fn member_update(
        &self,
        r: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, Refusal> {
        let members = self.change(Kind::Update, r.id, Some(r.peer_urls)).await?;
        Ok(pb::MemberUpdateResponse { header: Some(self.cluster_header()), members })
    }

    /// CL-7: the leader judges whether the learner is in sync.
    pub async fn member_promote(
        &self,
        r: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, Refusal> {
        let promoting = async {
            loop {
                let alone = !self.has_peers();
                let promoted = if self.leads() || alone {
                    Some(self.promote_here(r.id).await)
                        .filter(|done| alone || *done != Err(errors::NOT_LEADER))
                } else {
                    self.promote_at_leader(r.id).await
                };
                if let Some(done) = promoted {
                    return done;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let patience = Duration::from_millis(self.shared.config.request_timeout_ms());
        let members = tokio::select! {
            members = timeout(patience, promoting) => members.unwrap_or(Err(errors::TIMEOUT))?,
            _ = self.shared.wait_ended() => return Err(errors::STOPPED),
        };
        Ok(pb::MemberPromoteResponse { header: Some(self.cluster_header()), members })
    }

    /// CL-8, on the leader.
    pub(super) async fn promote_here(&self, id: u64) -> Result<Vec<pb::Member>, Refusal> {
        let done = self.promote_if_ready(id).await;
        let raft = &self.shared.raft;
        match &done {
            Ok(_) => drop(raft.learners_promoted.fetch_add(1, Ordering::Relaxed)),
            Err(refusal) => {
                let mut refused = raft.promotions_refused.lock().expect("nothing fails under this lock");
                *refused.entry(refusal.text).or_default() += 1;
            }
        }
        done
    }

    /// How often a promotion was refused, by its text.
    pub(super) fn promotions_refused(&self) -> Vec<(&'static str, u64)> {
        let refused = self.shared.raft.promotions_refused.lock().expect("nothing fails under this lock");
        refused.iter().map(|(text, count)| (*text, *count)).collect()
    }

    async fn promote_if_ready(&self, id: u64) -> Result<Vec<pb::Member>, Refusal> {
        self.wait_applied().await?;
        let progress = self.progress().await?;
        let matched = |id: u64| progress.iter().find(|(peer, _)| *peer == id).map(|(_, matched)| *matched);
        let Some(of_leader) = matched(self.shared.member_id.0) else { return Err(errors::NOT_LEADER) };
        let Some(of_learner) = matched(id) else { return Err(errors::MEMBER_NOT_FOUND) };
        if u128::from(of_learner) * 100 < u128::from(of_leader) * u128::from(READY_PERCENT) {
            let fields = [("learner-id", format!("{id:x}"))];
            self.shared.log(Level::Error, "rejecting promote learner: learner is not ready", &fields);
            return Err(errors::LEARNER_NOT_READY);
        }
        self.check_quorum("promote", Kind::Promote, id)?;
        self.change(Kind::Promote, id, None).await
    }

    /// `None` if another leader may give an answer soon.
    async fn promote_at_leader(&self, id: u64) -> Option<Result<Vec<pb::Member>, Refusal>> {
        let token = match &self.caller {
            Caller::Token(token) => Some(token.as_str()),
            // Nobody takes another's word for a certificate: its user asks the leader itself.
            Caller::Nobody | Caller::Itself | Caller::Certificate(_) => None,
        };
        let leader = self.shared.raft.leader.load(Ordering::Acquire);
        for url in self.shared.peers.urls_of(leader) {
            let reach = &self.shared.config.reach;
            let Ok(answer) = members::ask_to_promote(reach, &url, id, token).await else { continue };
            let text = String::from_utf8_lossy(&answer.body);
            match answer.status {
                StatusCode::OK => {
                    if let Some(members) = members::parse(&answer.body) {
                        return Some(Ok(members));
                    }
                }
                StatusCode::NOT_FOUND => return Some(Err(errors::MEMBER_NOT_FOUND)),
                StatusCode::PRECONDITION_FAILED if text.contains(errors::LEARNER_NOT_READY.text) => {
                    return Some(Err(errors::LEARNER_NOT_READY));
                }
                StatusCode::PRECONDITION_FAILED => return Some(Err(errors::MEMBER_NOT_LEARNER)),
                _ => {}
            }
        }
        None
    }

    async fn wait_applied(&self) -> Result<(), Refusal> {
        let raft = &self.shared.raft;
        let committed = raft.committed.load(Ordering::Acquire);
        let applied = async {
            while raft.applied_index.load(Ordering::Acquire) < committed {
                tokio::time::sleep(APPLY_POLL).await;
            }
        };
        timeout(APPLY_PATIENCE, applied).await.map_err(|_| errors::TIMEOUT_WAIT_APPLIED_INDEX)
    }

    /// What each member is known to have of the log; nothing of nobody where this member does not lead.
    async fn progress(&self) -> Result<Vec<(u64, u64)>, Refusal> {
        let (to, answer) = oneshot::channel();
        if self.shared.replica.push(ReplicaMessage::Progress(to)).is_err() {
            return Err(errors::STOPPED);
        }
        answer.await.map_err(|_| errors::STOPPED)
    }

    fn check_quorum(&self, what: &str, kind: Kind, id: u64) -> Result<(), Refusal> {
        let shared = &self.shared;
        if !shared.config.strict_reconfig {
            return Ok(());
        }
        let now = Instant::now();
        let connected_ms = |id| {
            let since = shared.peers.connected_since(id)?;
            Some(now.saturating_duration_since(since).as_millis() as u64)
        };
        let cluster = shared.cluster();
        let seen = Seen { members: &cluster.members, own: shared.member_id.0, connected_ms: &connected_ms };
        seen.check(kind, id).inspect_err(|refusal| {
            let text = format!("rejecting member {what} request; not enough healthy members");
            let fields = [("member-id", format!("{id:x}")), ("error", refusal.text.to_owned())];
            shared.log(Level::Warn, &text, &fields);
        })
    }

    /// Has a change made, and gives the members after it. Who asks decides how long that may take (CL-12).
    async fn change(
        &self,
        kind: Kind,
        member_id: u64,
        urls: Option<Vec<String>>,
    ) -> Result<Vec<pb::Member>, Refusal> {
        let shared = &self.shared;
        if shared.stopping.load(Ordering::Acquire) {
            return Err(errors::STOPPED);
        }
        let member = urls.map(|peer_urls| {
            let attributes = RaftAttributes { peer_urls, is_learner: kind == Kind::AddLearner };
            Record { id: member_id, raft_attributes: Some(attributes), member_attributes: None }
        });
        let request_id = shared.ids.draw();
        let learners_max = shared.config.learners_max;
        let change = ConfChange { request_id, kind, member_id, cluster_id: 0, member, learners_max };
        let data = change.encode();
        if data.len() > shared.config.max_request_bytes {
            return Err(errors::REQUEST_TOO_LARGE);
        }
        let units = shared.admission.enter(data.len(), 0).await?;
        let (to, answer) = oneshot::channel();
        let answer_to = Answer::Client { to, units, runtime: Handle::current() };
        let carried = Carried { command: None, by: None, answer: answer_to };
        let kind = EntryKind::ConfChangeV2;
        let proposal = Proposal { id: request_id, kind, leader_only: false, data, carried };
        if shared.replica.push(ReplicaMessage::Propose(proposal)).is_err() {
            return Err(errors::STOPPED);
        }
        let started = Instant::now();
        // Dropped unanswered: the member ended.
        let answered = answer.await.unwrap_or(Err(errors::STOPPED));
        let why =
            |refusal: Refusal| if refusal == errors::TIMEOUT { self.why_late(started) } else { refusal };
        match answered.map_err(why)? {
            Applied::Members(members) => Ok(members.iter().map(record).collect()),
            other => unreachable!("a change of the membership came to {other:?}"),
        }
    }
}
