// SPDX-License-Identifier: Apache-2.0
//! What a member is told before it starts, and what it tells the daemon.
//!
//! Owns      the configuration, the reasons not to start, the observer.
//! Holds     each reason is one line: what, where, and what to do.
//! Never     reads a flag or a file: the daemon did.

use super::{
    auth::AuthConfig,
    compare::CompareConfig,
    peers::{PeerFigures, reach::Reach},
};
use crate::jwt::KeyError;
use cairn_core::{
    AutoCompaction, ClusterId, MemberId, Version,
    boot::{BootError, Start, election_ticks, request_timeout_ms},
    command::CommandKind,
    repair::is_of_store,
    replica::{Stopped, log::LogError},
    state::{Fatal, LeaseChanges},
    watch::HistoryError,
};
use cairn_engine::{Error as EngineError, Scrubbed, Stats, io::Vfs};
use cairn_mvcc::{Counts, OpError};
use cairn_proto::etcdserverpb as pb;
use std::{collections::BTreeMap, panic::Location, path::PathBuf, sync::Arc, time::Duration};

/// Everything a member needs to know before it starts.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    pub name: String,
    /// The data directory; the member's own files are below `member/` in it.
    pub data_dir: PathBuf,
    /// `--wal-dir`: the log elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// `--initial-advertise-peer-urls`: with the token they give the member its id.
    pub peer_urls: Vec<String>,
    /// `--advertise-client-urls`.
    pub client_urls: Vec<String>,
    /// `--initial-cluster-token`.
    pub cluster_token: String,
    /// How a member without a log becomes one of its cluster.
    pub start: Start,
    /// `--force-new-cluster`: one that has a log is to be the only member of its cluster.
    pub force_new_cluster: bool,
    /// Where others are, by id, until this member has heard of itself.
    pub known_peers: BTreeMap<u64, Vec<String>>,
    /// `--initial-cluster`: the URLs of the others in it. They may vouch for members of which this one has not heard.
    pub named_peers: Vec<String>,
    /// How others are reached.
    pub reach: Reach,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub pre_vote: bool,
    /// `--quota-backend-bytes` as given: 0 is 2 GiB, negative is no quota.
    pub quota_bytes: i64,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    /// `--scrub-rate`: bytes a second that the scrub reads; 0 does not scrub.
    pub scrub_bytes_s: u64,
    pub compare: CompareConfig,
    /// `--snapshot-catchup-entries`: kept in the log behind what is applied, for followers that are a little behind.
    pub catch_up_entries: u64,
    pub auto_compaction: AutoCompaction,
    pub watch_progress_interval_ms: u64,
    pub auth: AuthConfig,
    /// `--strict-reconfig-check`: no change of the membership that would endanger the quorum.
    pub strict_reconfig: bool,
    /// `--downgrade-check-time`; `None` leaves it to the operator to say that a downgrade is over.
    pub downgrade_check: Option<Duration>,
    /// `--max-learners`.
    pub learners_max: u32,
    /// Remaining times of leases are recorded through the log (LEASE-26).
    pub lease_checkpoints: bool,
    /// What the draws of this member start from: election timeouts, lease ids, timers, the log's salt.
    pub seed: u64,
    /// Where the files are: the system's, but in tests.
    pub vfs: Arc<dyn Vfs>,
}

impl MemberConfig {
    /// What etcd's defaults are, for a member whose files are in `data_dir`. `seed` is fresh for each start.
    pub fn new(data_dir: PathBuf, seed: u64) -> MemberConfig {
        MemberConfig {
            name: "default".to_owned(),
            data_dir,
            wal_dir: None,
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: vec!["http://localhost:2379".to_owned()],
            cluster_token: "etcd-cluster".to_owned(),
            start: Start::New { others: Vec::new() },
            force_new_cluster: false,
            known_peers: BTreeMap::new(),
            named_peers: Vec::new(),
            reach: Reach::default(),
            heartbeat_ms: 100,
            election_ms: 1000,
            pre_vote: true,
            quota_bytes: 0,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            scrub_bytes_s: 10_000_000,
            compare: CompareConfig::default(),
            catch_up_entries: 5000,
            downgrade_check: Some(Duration::from_secs(5)),
            auto_compaction: AutoCompaction::Off,
            watch_progress_interval_ms: 600_000,
            auth: AuthConfig::default(),
            strict_reconfig: true,
            learners_max: 1,
            lease_checkpoints: true,
            seed,
            vfs: Arc::new(cairn_engine::io::StdVfs),
        }
    }

    /// The quota in bytes; `None` if there is none (QU-1).
    pub(super) fn quota(&self) -> Option<u64> {
        match self.quota_bytes {
            0 => Some(2 << 30),
            n => u64::try_from(n).ok(),
        }
    }

    /// An election timeout in heartbeats.
    pub(super) fn election_ticks(&self) -> u64 {
        election_ticks(self.heartbeat_ms, self.election_ms)
    }

    /// How long a request may take (LIMIT-5).
    pub(super) fn request_timeout_ms(&self) -> u64 {
        request_timeout_ms(self.heartbeat_ms, self.election_ms)
    }

    /// From this size on a watch response is cut, if the client asked for it (WATCH-32).
    pub(super) fn fragment_bytes(&self) -> usize {
        self.max_request_bytes + (512 << 10)
    }
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{} was made by etcd and is left untouched: choose another --data-dir", .0.display())]
    MadeByEtcd(PathBuf),
    #[error("data directory {} is in use by another process: stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    #[error("cannot access data directory {}: {source}", dir.display())]
    Access { dir: PathBuf, source: std::io::Error },
    /// Of tokens.
    #[error("--auth-token: {0}")]
    Keys(#[from] KeyError),
    #[error("{0}")]
    Boot(#[from] BootError),
    /// CO-1.
    #[error(
        "checkInitialHashKV failed: {member_id} found data inconsistency with peers: at revision {revision} it holds \
         other data than {differs_from}: remove the member and add it anew with an empty data directory"
    )]
    Diverged { member_id: MemberId, differs_from: String, revision: i64 },
    /// It ended while it was starting.
    #[error("{}", .0.text)]
    Ended(Failure),
    /// It ended while it was starting, and not by a failure.
    #[error("the member ended while it was starting")]
    Again(Ended),
}

/// Why a member ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By [`super::Member::stop`].
    Stopped,
    /// It is not one of its cluster any more (CL-4).
    Removed,
    /// A snapshot is to take the place of its store: [`super::Member::install`], and then it starts anew.
    Replaced,
    /// Its store is damaged, and the others go on: it is to be set aside, and a start then gets one from a peer.
    Damaged(Failure),
    Failed(Failure),
}

/// What made a member end by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// One line: what, where, and what to do.
    pub text: String,
}

/// What its operator has to see to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// There was no room for a write.
    DiskFull,
    /// A file is damaged.
    Damaged,
    /// The store is, and the log is not known to be.
    StoreDamaged,
    Other,
}

impl Failure {
    pub(super) fn other(text: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Other, text: text.into() }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        let kind = match &error {
            full if full.is_full() => FailureKind::DiskFull,
            damaged if is_of_store(damaged) => FailureKind::StoreDamaged,
            damaged if damaged.is_corrupt() => FailureKind::Damaged,
            _ => FailureKind::Other,
        };
        Failure { kind, text: error.to_string() }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        match error {
            LogError::Engine(error) => error.into(),
            other => Failure::other(other.to_string()),
        }
    }
}

impl From<Stopped> for Failure {
    fn from(why: Stopped) -> Failure {
        match why {
            Stopped::Log(error) => error.into(),
            lost @ Stopped::EntriesLost { .. } => {
                Failure { kind: FailureKind::Damaged, text: lost.to_string() }
            }
        }
    }
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Failure {
        match fatal {
            Fatal::Engine(error) => error.into(),
            other => Failure::other(other.to_string()),
        }
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Failure {
        match error {
            HistoryError::Failed(OpError::Engine(error)) => error.into(),
            other => Failure::other(format!("the watch history cannot be read: {other}")),
        }
    }
}

/// What the threads tell the daemon: log lines and figures.
pub trait Observer: Send + Sync + 'static {
    /// A line for the log, and where it was said.
    fn log(&self, place: &Location<'_>, level: Level, message: &str, fields: &[(&'static str, String)]);
    /// One group commit of the log took so long.
    fn wal_synced(&self, _seconds: f64) {}
    /// One committed batch was applied.
    fn applied(&self, _entries: usize, _seconds: f64) {}
    /// One request was applied, as a part of its batch.
    fn request_applied(&self, _kind: CommandKind, _succeeded: bool, _seconds: f64) {}
    /// A client's request, or the member's own, was answered.
    fn answered(&self, _kind: RequestKind, _succeeded: bool, _seconds: f64) {}
    /// A range was read.
    fn ranged(&self, _succeeded: bool, _seconds: f64) {}
    /// These became of leases.
    fn leases_changed(&self, _changes: &LeaseChanges) {}
    /// A lease was renewed.
    fn lease_renewed(&self) {}
    /// One checkpoint of the tree file took so long.
    fn checkpointed(&self, _seconds: f64) {}
    /// One step of the scrub was done.
    fn scrubbed(&self, _step: &Scrubbed) {}
    /// This member's data were compared with its peers'.
    fn compared(&self, _differ: bool) {}
    /// The state was held up by a slice of a purge.
    fn purge_slice(&self, _seconds: f64) {}
    /// What a compaction left behind is purged, so long after it was applied.
    fn compacted(&self, _seconds: f64) {}
}

/// What a request is, for the time that it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    Range,
    ReadonlyTxn,
    Proposal(CommandKind),
}

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A view of the member for Status, health and metrics. Costs a few loads and locks.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub cluster_id: ClusterId,
    pub member_id: MemberId,
    /// 0 when none is known.
    pub leader: u64,
    pub is_leader: bool,
    pub is_learner: bool,
    pub revision: i64,
    pub compact_revision: i64,
    pub raft_term: u64,
    /// Term of the last applied entry.
    pub applied_term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub db_size: i64,
    pub db_size_in_use: i64,
    /// Effective; `None` when there is none.
    pub quota_bytes: Option<u64>,
    /// `None` until it is decided.
    pub cluster_version: Option<Version>,
    /// The version that the store is ready for; `None` where that is not told yet.
    pub storage_version: Option<Version>,
    /// The version that the cluster is on its way down to.
    pub downgrade: Option<Version>,
    pub alarms: Vec<pb::AlarmMember>,
    pub leases: usize,
    pub watchers: usize,
    pub watch_streams: usize,
    pub slow_watchers: usize,
    pub events_delivered: u64,
    pub pending_events: usize,
    pub pending_proposals: usize,
    /// Proposals that Raft refused, or that were not applied in time.
    pub failed_proposals: u64,
    /// Reads that no leader answered, and rounds for reads that were asked again.
    pub failed_read_indexes: u64,
    pub slow_read_indexes: u64,
    pub leader_changes: u64,
    pub auth_revision: u64,
    pub peers: Vec<PeerFigures>,
    /// Of the port for peers: callers that were refused, and messages of members that no member sends.
    pub peer_callers_refused: u64,
    pub peer_messages_refused: u64,
    pub learners_promoted: u64,
    /// By the text of the refusal.
    pub promotions_refused: Vec<(&'static str, u64)>,
    /// Live keys.
    pub keys: i64,
    pub counts: Counts,
    /// Bytes written to the log since the start.
    pub wal_written_bytes: u64,
    /// The storage engine's figures.
    pub store: Stats,
}
