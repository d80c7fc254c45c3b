// SPDX-License-Identifier: Apache-2.0
//! Members, alarms, hashes and figures.
//!
//! Owns      the answers about the member and its cluster.
//! Holds     Cluster answers have no revision (HDR-7); figures are of one moment each, not of one together.
//! Never     changes a membership.

use super::{
    Member, Refusal,
    config::{Level, MemberStatus},
    peers::hashes::Which,
    shared::{CheckpointMessage, ReplicaMessage},
};
use cairn_core::{ClusterId, Command, MemberId, state::Applied};
use cairn_mvcc::HashDone;
use cairn_proto::{errors, etcdserverpb as pb, membershippb};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::sync::oneshot;

/// How often it is looked whether leadership has moved.
const TRANSFER_POLL: Duration = Duration::from_millis(10);

impl Member {
    pub async fn member_list(&self, r: pb::MemberListRequest) -> Result<pb::MemberListResponse, Refusal> {
        if r.linearizable {
            self.linearize().await?;
        }
        let members = self.shared.cluster().members.iter().map(record).collect();
        Ok(pb::MemberListResponse { header: Some(self.cluster_header()), members })
    }

    pub async fn alarm(&self, r: pb::AlarmRequest) -> Result<pb::AlarmResponse, Refusal> {
        if r.action == pb::alarm_request::AlarmAction::Get as i32 {
            self.check_known().await?;
        } else {
            self.check_root().await?;
        }
        match self.propose(Command::Alarm(r)).await? {
            Applied::Alarm { revision, alarms } => {
                Ok(pb::AlarmResponse { header: Some(self.header_at(revision)), alarms })
            }
            other => unreachable!("an alarm came to {other:?}"),
        }
    }

    /// etcd hashes its whole file here, for its own tests; this is the hash of the current revision.
    pub async fn hash(&self) -> Result<pb::HashResponse, Refusal> {
        let done = self.read(true, |reader| reader.hash_kv(0)).await?;
        Ok(pb::HashResponse { header: Some(self.header_at(done.revision)), hash: done.hash })
    }

    pub async fn hash_kv(&self, r: pb::HashKvRequest) -> Result<pb::HashKvResponse, Refusal> {
        let done = self.read(true, move |reader| reader.hash_kv(r.revision)).await?;
        Ok(pb::HashKvResponse {
            header: Some(self.header_at(done.revision)),
            hash: done.hash,
            compact_revision: done.compact_revision,
            hash_revision: done.hash_revision,
        })
    }

    /// The hash that a peer asks for, which may ask for a certain one.
    pub(super) async fn hash_for_peer(
        &self,
        revision: i64,
        which: Option<Which>,
    ) -> Result<HashDone, Refusal> {
        match which {
            None => self.read(true, move |reader| reader.hash_kv(revision)).await,
            Some(Which::Anew) => self.read(true, move |reader| reader.hash_kv_anew(revision)).await,
            Some(Which::Remembered) => {
                let hashes = self.shared.reader.compaction_hashes();
                let done = hashes.into_iter().find(|done| done.hash_revision == revision);
                done.ok_or(errors::COMPACTED)
            }
        }
    }

    /// Folds what is in memory into the tree file and gives its free tail back, beside readers and writers.
    ///
    /// # Errors
    /// The engine's words, for a status of code Unknown (MT-3).
    pub async fn defragment(&self) -> Result<(), String> {
        let (to, done) = oneshot::channel();
        if self.shared.checkpointer.push(CheckpointMessage::Defragment(to)).is_err() {
            return Err(errors::STOPPED.text.to_owned());
        }
        done.await.unwrap_or_else(|_| Err(errors::STOPPED.text.to_owned()))
    }

    /// Has another voter lead (MT-8).
    ///
    /// # Errors
    /// If this member does not lead, the other cannot, or it takes too long.
    pub async fn move_leader(&self, to: u64) -> Result<(), Refusal> {
        let shared = &self.shared;
        if !self.leads() {
            return Err(errors::NOT_LEADER);
        }
        if !shared.cluster().members.voters_and_learners().0.contains(&to) {
            return Err(errors::BAD_LEADER_TRANSFEREE);
        }
        let fields = [("transferee-member-id", format!("{to:x}"))];
        shared.log(Level::Info, "leadership transfer starting", &fields);
        if shared.replica.push(ReplicaMessage::Transfer { to }).is_err() {
            return Err(errors::STOPPED);
        }
        let moved = async {
            while shared.raft.leader.load(Ordering::Acquire) != to {
                tokio::time::sleep(TRANSFER_POLL).await;
            }
        };
        let patience = Duration::from_millis(shared.config.request_timeout_ms());
        tokio::select! {
            moved = tokio::time::timeout(patience, moved) => moved.map_err(|_| errors::TIMEOUT_LEADER_TRANSFER)?,
            _ = shared.wait_ended() => return Err(errors::STOPPED),
        }
        shared.log(Level::Info, "leadership transfer finished", &fields);
        Ok(())
    }

    /// The header of Cluster answers: without a revision (HDR-7).
    pub fn cluster_header(&self) -> pb::ResponseHeader {
        self.header_at(0)
    }

    pub fn status(&self) -> MemberStatus {
        let shared = &self.shared;
        let raft = &shared.raft;
        let cluster = shared.cluster();
        let hub = shared.hub().stats();
        let leases = shared.lessor().len();
        let member_id = shared.member_id;
        let record = cluster.members.get(member_id.0);
        let (peer_callers_refused, peer_messages_refused) = shared.peers.refused();
        MemberStatus {
            cluster_id: shared.cluster_id,
            member_id,
            leader: raft.leader.load(Ordering::Relaxed),
            is_leader: raft.leads.load(Ordering::Relaxed),
            is_learner: record.and_then(|m| m.raft_attributes.as_ref()).is_some_and(|r| r.is_learner),
            revision: shared.reader.revision().unwrap_or_default(),
            compact_revision: shared.reader.compact_revision().unwrap_or_default(),
            raft_term: raft.term.load(Ordering::Relaxed),
            applied_term: raft.applied_term.load(Ordering::Relaxed),
            committed_index: raft.committed.load(Ordering::Relaxed),
            applied_index: raft.applied_index.load(Ordering::Relaxed),
            db_size: shared.db_size() as i64,
            db_size_in_use: shared.reader.live_bytes().unwrap_or_default(),
            quota_bytes: shared.config.quota(),
            cluster_version: cluster.version,
            storage_version: shared.versions.storage(),
            downgrade: cluster.downgrade,
            alarms: cluster.alarms.list(pb::AlarmType::None as i32),
            leases,
            watchers: hub.watchers,
            watch_streams: hub.streams,
            slow_watchers: hub.slow,
            events_delivered: hub.events_delivered,
            pending_events: hub.pending_events,
            pending_proposals: raft.proposals.load(Ordering::Relaxed) as usize,
            failed_proposals: raft.failed_proposals.load(Ordering::Relaxed),
            failed_read_indexes: raft.failed_read_indexes.load(Ordering::Relaxed),
            auth_revision: shared.auth.auth().revision(),
            slow_read_indexes: raft.slow_read_indexes.load(Ordering::Relaxed),
            leader_changes: raft.leader_changes.load(Ordering::Relaxed),
            peers: shared.peers.figures(),
            peer_callers_refused,
            peer_messages_refused,
            learners_promoted: raft.learners_promoted.load(Ordering::Relaxed),
            promotions_refused: self.promotions_refused(),
            keys: shared.reader.keys().unwrap_or_default(),
            counts: shared.reader.counts(),
            wal_written_bytes: shared.wal.stats().written_bytes,
            store: shared.db.stats(),
        }
    }

    pub fn member_id(&self) -> MemberId {
        self.shared.member_id
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster_id
    }

    /// Publishes name and client URLs through the log (CL-13); one that leads decides the version of a new cluster
    /// before it serves anybody.
    pub(super) async fn publish(&self) -> Result<(), Refusal> {
        let config = &self.shared.config;
        let attributes =
            membershippb::Attributes { name: config.name.clone(), client_urls: config.client_urls.clone() };
        let set = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.shared.member_id.0,
            member_attributes: Some(attributes),
        };
        self.propose_by(Command::MemberAttributes(set), None).await?;
        if self.leads() && self.shared.cluster().version.is_none() {
            self.decide_version().await;
        }
        Ok(())
    }
}

/// A member as clients are told of it.
pub(super) fn record(m: &membershippb::Member) -> pb::Member {
    let raft = m.raft_attributes.clone().unwrap_or_default();
    let attributes = m.member_attributes.clone().unwrap_or_default();
    pb::Member {
        id: m.id,
        name: attributes.name,
        peer_urls: raft.peer_urls,
        client_urls: attributes.client_urls,
        is_learner: raft.is_learner,
    }
}
