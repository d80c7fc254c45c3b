// SPDX-License-Identifier: Apache-2.0
//! What the threads of a member and its handles share.
//!
//! Owns      the queues, the figures that are read without a queue, the clock, and the way to an end.
//! Holds     1. `applied_index` moves only after the view with that index is published, so who sees it
//!              reads at least that;
//!           2. the first failure is the reason; nothing is answered as done after it.
//! Never     holds one of its locks while taking another, but for the lessor's under the state's turn, and
//!           those of `auth`, under which nothing else is done.

use super::{
    admission::Admission,
    config::{Ended, Failure, FailureKind, Level, MemberConfig, Observer},
    datadir::DataDir,
    logwrite::{HungWrite, LogWrite},
    passwords::Passwords,
    peers::Peers,
    queue::Inbox,
    removed::Removals,
    version::Versions,
};
use crate::jwt::Jwt;
use cairn_core::{
    ClusterId, Command, MemberId, Refusal,
    auth::cell::AuthCell,
    ids::RequestIds,
    lessor::Lessor,
    replica::{Committed, Leadership, Proposal, conf::ConfChange, log::EntryKind, peer::PeerMessage},
    state::{Applied, Carried, ClusterView, members::is_learner},
    watch::Hub,
};
use cairn_engine::{Db, Options, snapshot::Receiver, wal::Wal};
use cairn_mvcc::Reader;
use std::{
    collections::BTreeMap,
    mem,
    panic::Location,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, oneshot, watch},
};

/// Where the outcome of a request goes.
pub(super) enum Answer {
    Client {
        to: oneshot::Sender<Result<Applied, Refusal>>,
        units: u32,
        /// Where the client's task runs.
        runtime: Handle,
    },
    /// The member's own; auto-compaction learns from it whether it succeeded.
    Compaction(i64),
    /// The member's own, tried again by itself.
    Nobody,
}

pub(super) type Kept = Carried<Answer>;
pub(super) type ReadWaiter = oneshot::Sender<Result<(), Refusal>>;

/// What the replica's thread is told.
pub(super) enum ReplicaMessage {
    Propose(Proposal<Kept>),
    Read(ReadWaiter),
    Durable(u64),
    ConfApplied {
        index: u64,
        change: Option<ConfChange>,
    },
    /// Of a peer; the room that they take is free once they are taken in.
    Received {
        messages: Vec<PeerMessage>,
        _room: OwnedSemaphorePermit,
    },
    Unreachable(u64),
    SnapshotEnded {
        peer: u64,
        installed: bool,
    },
    /// Whether this is to be installed is answered.
    SnapshotReceived {
        index: u64,
        term: u64,
        to: oneshot::Sender<bool>,
    },
    Transfer {
        to: u64,
    },
    /// So many ticks of the first wait for a leader are passed over.
    FastForward(usize),
    /// What each member is known to have of the log, if this one leads.
    Progress(oneshot::Sender<Vec<(u64, u64)>>),
}

/// What the state's thread is told.
pub(super) enum StateMessage {
    Committed(Vec<Committed<Kept>>),
    /// Answer these once the index is applied.
    Reads(u64, Vec<ReadWaiter>),
    Leadership(Leadership),
    /// A checkpoint was made: a purge may go on.
    Wake,
}

/// What the checkpointer is told.
pub(super) enum CheckpointMessage {
    /// Somebody waits for a checkpoint.
    Checkpoint,
    /// The same, so that a crash does not undo it.
    CheckpointForGood(oneshot::Sender<()>),
    /// Fold everything and give back what is free.
    Defragment(oneshot::Sender<Result<(), String>>),
}

/// A wake-up without a message.
pub(super) type Signal = Inbox<()>;

/// Raft as others see it. Written by the replica's and the state's threads.
#[derive(Default)]
pub(super) struct RaftFigures {
    pub term: AtomicU64,
    pub leader: AtomicU64,
    /// When this member heard of the leader that it knows, or knew last.
    pub elected: Mutex<Option<Instant>>,
    pub leads: AtomicBool,
    /// This member is a learner.
    pub learns: AtomicBool,
    pub committed: AtomicU64,
    pub applied_index: AtomicU64,
    pub applied_term: AtomicU64,
    /// This member leads alone and has applied the first entry of its term: what it has applied is all
    /// there is, so a linearizable read needs no round.
    pub reads_alone: AtomicBool,
    pub leader_changes: AtomicU64,
    pub proposals: AtomicU64,
    pub failed_proposals: AtomicU64,
    pub failed_read_indexes: AtomicU64,
    pub slow_read_indexes: AtomicU64,
    pub learners_promoted: AtomicU64,
    /// By the text of the refusal: there are a handful.
    pub promotions_refused: Mutex<BTreeMap<&'static str, u64>>,
}

pub(super) struct Shared {
    pub config: MemberConfig,
    pub observer: Arc<dyn Observer>,
    pub member_id: MemberId,
    pub cluster_id: ClusterId,
    pub started: Instant,
    pub db: Db,
    pub wal: Arc<Wal>,
    pub reader: Reader,
    pub replica: Inbox<ReplicaMessage>,
    pub state: Inbox<StateMessage>,
    pub log: Signal,
    pub log_write: LogWrite,
    pub checkpointer: Inbox<CheckpointMessage>,
    pub catchup: Arc<Signal>,
    /// Told after each checkpoint.
    pub overlay_room: Signal,
    /// The overlay's size at which a checkpoint is due.
    pub overlay_bytes: u64,
    pub hub: Mutex<Hub>,
    pub lessor: Arc<Mutex<Lessor>>,
    /// Users and roles as applied here, and the tokens.
    pub auth: Arc<AuthCell>,
    pub passwords: Passwords,
    /// Where tokens are JSON web tokens.
    pub jwt: Option<Jwt>,
    pub cluster: Mutex<Arc<ClusterView>>,
    pub versions: Versions,
    pub raft: RaftFigures,
    pub removals: Removals,
    pub peers: Peers,
    /// What is to become the store once everything of the member has ended.
    pub received_store: Mutex<Option<Receiver>>,
    pub admission: Admission,
    pub ids: RequestIds,
    /// Told each time that a revoke was applied.
    pub revoked: Notify,
    /// Everything up to this compact revision is purged.
    pub purged: watch::Sender<i64>,
    /// The log has no room: what would make it grow is refused.
    pub disk_full: AtomicBool,
    /// The member is stopping: no request is taken any more.
    pub stopping: AtomicBool,
    pub ended: OnceLock<Ended>,
    pub ended_notify: Notify,
    /// The member leads and has applied everything before its term.
    pub ready: watch::Sender<bool>,
    /// A leader is known.
    pub led: watch::Sender<bool>,
    /// Locked as long as anything of the member is in use.
    pub dir: DataDir,
}

impl Shared {
    /// Milliseconds since the member started: the only clock of the core.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    #[track_caller]
    pub fn log(&self, level: Level, message: &str, fields: &[(&'static str, String)]) {
        self.observer.log(Location::caller(), level, message, fields);
    }

    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().expect("a failure under the hub's lock ends the member")
    }

    pub fn lessor(&self) -> MutexGuard<'_, Lessor> {
        self.lessor.lock().expect("a failure under the lessor's lock ends the member")
    }

    pub fn cluster(&self) -> Arc<ClusterView> {
        self.cluster.lock().expect("nothing fails under this lock").clone()
    }

    /// Where this member listens for its peers.
    pub fn own_peer_urls(&self) -> Vec<String> {
        let cluster = self.cluster();
        let record = cluster.members.get(self.member_id.0).and_then(|member| member.raft_attributes.as_ref());
        record.map_or_else(|| self.config.peer_urls.clone(), |attributes| attributes.peer_urls.clone())
    }

    /// Follows what was applied of the cluster.
    pub fn note_cluster(self: &Arc<Self>, cluster: &ClusterView) {
        let own = cluster.members.get(self.member_id.0);
        self.raft.learns.store(own.is_some_and(is_learner), Ordering::Release);
        let known = Arc::new(cluster.clone());
        let before = mem::replace(&mut *self.cluster.lock().expect("nothing fails under this lock"), known);
        self.note_version(&before, cluster);
        self.peers.follow(self);
    }

    pub fn is_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Whether it ended for a failure: then nothing is written any more.
    pub fn failed(&self) -> bool {
        matches!(self.ended.get(), Some(Ended::Failed(_) | Ended::Damaged(_)))
    }

    /// Whether something committed is not applied yet.
    pub fn applying(&self) -> bool {
        self.raft.committed.load(Ordering::Acquire) > self.raft.applied_index.load(Ordering::Acquire)
    }

    /// The size that the quota counts: a high-water mark (QU-5, QU-6). What became reusable below it still counts,
    /// after a restart too, and only a defragmentation lowers it.
    pub fn db_size(&self) -> u64 {
        self.db.size()
    }

    /// Tells of a write of the log that hangs (server.md section 7), and whether one began to.
    pub fn judge_log_write(&self) -> bool {
        let limit = Duration::from_millis(self.config.election_ms);
        if let Some(hung) = self.log_write.judge(Instant::now(), limit, || self.wal.segment_path()) {
            self.log(Level::Warn, "a write of the log hangs", &[("file", hung.file.display().to_string())]);
            return true;
        }
        false
    }

    /// Options of a store beside this one, as the member's own.
    pub fn engine_options(&self) -> Options {
        let mut options = Options::default();
        options.vfs = self.config.vfs.clone();
        options
    }

    /// Where a snapshot comes in.
    pub fn snapshot_file(&self) -> PathBuf {
        self.dir.member.join("incoming.tmp")
    }

    /// Ends the member, for a snapshot that takes the place of its store.
    pub fn replace_store(&self, received: Receiver) {
        *self.received_store.lock().expect("nothing fails under this lock") = Some(received);
        self.end(Ended::Replaced);
    }

    /// Does what waits for the disk under the log.
    pub fn writing_log<T>(&self, write: impl FnOnce(&Wal) -> T) -> T {
        self.log_write.begin(Instant::now());
        let done = write(&self.wal);
        if let Some(HungWrite { file, since }) = self.log_write.end() {
            let took = format!("{:?}", since.elapsed());
            let fields = [("file", file.display().to_string()), ("took", took)];
            self.log(Level::Warn, "a write of the log ended late", &fields);
        }
        done
    }

    /// Sends a request of the member itself through the log.
    pub fn propose_own(&self, command: Command, answer: Answer) {
        let id = self.ids.draw();
        let data = command.encode(id);
        let leader_only = command.is_leaders();
        let carried = Carried { command: Some(command), by: None, answer };
        let proposal = Proposal { id, kind: EntryKind::Normal, leader_only, data, carried };
        // A closed queue means that the member ends.
        self.replica.push(ReplicaMessage::Propose(proposal)).ok();
    }

    /// Ends the member: the first reason stays.
    pub fn end(&self, why: Ended) {
        self.stopping.store(true, Ordering::Release);
        if self.ended.set(why).is_ok() {
            self.raft.reads_alone.store(false, Ordering::Release);
            self.peers.hang_up();
            self.ended_notify.notify_waiters();
            self.admission.close();
        }
        self.replica.close();
    }

    /// Ends the member for a failure: nothing is answered as done any more.
    pub fn fail(&self, why: impl Into<Failure>) {
        let why = why.into();
        let replaced = why.kind == FailureKind::StoreDamaged && self.others_go_on();
        self.end(if replaced { Ended::Damaged(why) } else { Ended::Failed(why) });
    }

    /// Whether the other voters that are connected are enough without this member: then it may leave them for a while.
    /// So no more than a minority is ever without a store.
    pub fn others_go_on(&self) -> bool {
        let voters = self.cluster().members.voters_and_learners().0;
        let others = voters.iter().filter(|id| **id != self.member_id.0);
        others.filter(|id| self.peers.connected_since(**id).is_some()).count() > voters.len() / 2
    }

    /// Resolves once the member has ended.
    pub async fn wait_ended(&self) -> Ended {
        loop {
            let notified = self.ended_notify.notified();
            if let Some(ended) = self.ended.get() {
                return ended.clone();
            }
            notified.await;
        }
    }
}

/// Wakes tasks, outside all locks.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// Runs one thread of the member; a panic in it ends the member, because its state is in doubt.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    name: &'static str,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let shared = shared.clone();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&shared)));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            shared.fail(Failure::other(format!("the {name} thread panicked: {text}; this is a bug")));
        }
    })
}

/// How long a thread waits when nothing is due.
pub(super) const IDLE: Duration = Duration::from_secs(1);
