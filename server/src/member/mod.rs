// SPDX-License-Identifier: Apache-2.0
//! One running member: the threads that drive the core, and the handle through which services use it.
//!
//! Owns      the order of start and stop, and the queues between the threads.
//! Holds     1. an answer is given after its write is durable and applied, never before;
//!           2. what a handle reads without [`Member::linearize`] may be old, and is never inconsistent;
//!           3. a member that fails says why once, and answers nothing as done after that.
//! Never     decides what a request means: that is `cairn-core`.

mod admission;
mod auth;
mod cluster;
mod compare;
mod config;
mod datadir;
mod kv;
mod late;
mod lease;
mod logwrite;
mod membership;
mod passwords;
pub mod peers;
mod queue;
mod removed;
mod shared;
mod threads;
mod ticks;
mod version;
mod watch;

pub use auth::{AuthConfig, Caller, TokenKind};
pub use cairn_core::{
    AutoCompaction, ClusterId, MemberId, Refusal, boot::Start, command::CommandKind, state::LeaseChanges,
};
pub use compare::{AtStart, CompareConfig};
pub use config::{
    Ended, Failure, FailureKind, Level, MemberConfig, MemberStatus, Observer, RequestKind, StartError,
};
pub use kv::RangeChunks;
pub use logwrite::HungWrite;
pub use peers::PeerFigures;
pub use watch::WatchStream;

use crate::{failpoints::pass, jwt::Jwt};
use cairn_core::{
    boot::{BootConfig, BootError, Booted, boot, draw},
    ids::RequestIds,
    repair,
    watch::{Hub, HubOptions},
};
use cairn_engine::{InstallId, Options, Stopwatch, failpoints::reach, wal::WalOptions};
use cairn_proto::{errors, etcdserverpb as pb};
use datadir::DataDir;
use passwords::Passwords;
use peers::Peers;
use shared::{Answer, RaftFigures, ReadWaiter, ReplicaMessage, Shared, spawn};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot, watch as watch_channel},
};

/// How long a stop waits for requests under way (SD rules bound it together with the rest).
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A data directory and the machines of the member in it.
struct Opened {
    config: MemberConfig,
    dir: DataDir,
    overlay_bytes: u64,
    booted: Booted<Answer, ReadWaiter>,
    jwt: Option<Jwt>,
}

/// With what the engine measures holds of its locks.
#[derive(Debug)]
struct Clock(Instant);

impl Stopwatch for Clock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn open(config: MemberConfig) -> Result<Opened, StartError> {
    let jwt = match &config.auth.tokens {
        TokenKind::Jwt(keys) => Some(Jwt::open(keys.clone())?),
        TokenKind::Simple | TokenKind::None => None,
    };
    let dir = DataDir::take(&config)?;
    let mut options = Options::default();
    options.vfs = config.vfs.clone();
    options.stopwatch = Some(Arc::new(Clock(Instant::now())));
    options.lazy_space_map = true;
    let overlay_bytes = options.overlay_bytes;
    let mut wal_options = WalOptions::new(config.vfs.clone(), 0, 0);
    wal_options.entries_kept = config.catch_up_entries;
    let booted = boot(BootConfig {
        dir: dir.member.clone(),
        wal_dir: dir.wal.clone(),
        peer_urls: config.peer_urls.clone(),
        cluster_token: config.cluster_token.clone(),
        start: config.start.clone(),
        force_new_cluster: config.force_new_cluster,
        heartbeat_ms: config.heartbeat_ms,
        election_ms: config.election_ms,
        pre_vote: config.pre_vote,
        lease_checkpoints: config.lease_checkpoints,
        seed: config.seed,
        options,
        wal_options,
    })?;
    Ok(Opened { config, dir, overlay_bytes, booted, jwt })
}

/// A member that runs. Clones share it.
#[derive(Clone)]
pub struct Member {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// For whom this handle is used.
    caller: Caller,
}

impl Member {
    /// Opens or makes the data directory, and returns when the member is ready to serve.
    ///
    /// # Errors
    /// One line that says what, where, and what to do; nothing was overwritten.
    pub async fn start(config: MemberConfig, observer: Arc<dyn Observer>) -> Result<Member, StartError> {
        let member = Member::open(config, observer).await?;
        member.publish_itself().await?;
        Ok(member)
    }

    /// Opens or makes the data directory, and returns when the member runs: it talks to its peers, and may not
    /// have a leader yet.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub async fn open(config: MemberConfig, observer: Arc<dyn Observer>) -> Result<Member, StartError> {
        let task = tokio::task::spawn_blocking(move || open(config));
        let opened = match task.await {
            Ok(opened) => opened?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let about_to_start = compare::AboutToStart::new(&opened);
        if let Some(about_to_start) = about_to_start {
            about_to_start.check(&*observer).await?;
        }
        Member::run(opened, observer, Handle::current())
    }

    /// Returns when the member has a leader, has applied its log and has published its name (CL-13): it is
    /// ready to serve.
    ///
    /// # Errors
    /// Why it ended meanwhile.
    pub async fn publish_itself(&self) -> Result<(), StartError> {
        let ended = async |why: Ended| {
            self.join().await;
            StartError::Ended(match why {
                Ended::Failed(why) => why,
                why => return StartError::Again(why),
            })
        };
        let mut led = self.shared.led.subscribe();
        tokio::select! {
            // The sender lives as long as the member.
            _ = led.wait_for(|led| *led) => {}
            why = self.shared.wait_ended() => return Err(ended(why).await),
        }
        pass!("beforePublishing");
        while let Err(refusal) = self.publish().await {
            if let Some(why) = self.shared.ended.get() {
                return Err(ended(why.clone()).await);
            }
            let fields = [("error", refusal.text.to_owned())];
            self.shared.log(Level::Warn, "failed to publish local member to cluster through raft", &fields);
        }
        Ok(())
    }

    fn run(opened: Opened, observer: Arc<dyn Observer>, runtime: Handle) -> Result<Member, StartError> {
        let Opened { config, dir, overlay_bytes, booted, jwt } = opened;
        let Booted { member_id, cluster_id, forced, db, wal, state, lessor, replica } = booted;
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let reader = state.reader();
        let hub_options = HubOptions {
            progress_interval_ms: config.watch_progress_interval_ms,
            seed: draw(config.seed, 4),
            ..HubOptions::default()
        };
        let revision = reader.revision().map_err(|e| BootError::State(e.into()))?;
        let (applied_index, applied_term) = state.applied();
        let passwords = Passwords::new(config.auth.bcrypt_cost)
            .map_err(|e| StartError::Ended(Failure::other(format!("cannot draw random bytes: {e}"))))?;
        let figures = RaftFigures::default();
        figures.applied_index.store(applied_index, Ordering::Relaxed);
        figures.applied_term.store(applied_term, Ordering::Relaxed);
        let peers = Peers::new(runtime, config.known_peers.clone(), config.named_peers.clone());
        let shared = Arc::new(Shared {
            config,
            observer,
            member_id,
            cluster_id,
            started: Instant::now(),
            db,
            wal,
            reader,
            replica: Default::default(),
            state: Default::default(),
            log: Default::default(),
            log_write: Default::default(),
            checkpointer: Default::default(),
            catchup: Default::default(),
            overlay_room: Default::default(),
            overlay_bytes,
            hub: Mutex::new(Hub::new(revision, hub_options)),
            lessor,
            auth: state.auth_cell(),
            passwords,
            jwt,
            cluster: Mutex::default(),
            versions: Default::default(),
            raft: figures,
            removals: Default::default(),
            peers,
            received_store: Mutex::default(),
            admission: Default::default(),
            ids: RequestIds::new(member_id, wall_ms),
            revoked: Notify::new(),
            purged: watch_channel::Sender::new(-1),
            disk_full: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            ended: OnceLock::new(),
            ended_notify: Notify::new(),
            ready: watch_channel::Sender::new(false),
            led: watch_channel::Sender::new(false),
            dir,
        });
        if let Some(commit) = forced {
            let fields = [
                ("cluster-id", cluster_id.to_string()),
                ("local-member-id", member_id.to_string()),
                ("commit-index", commit.to_string()),
            ];
            shared.log(Level::Info, "forcing restart member", &fields);
        }
        shared.note_cluster(state.cluster());
        let is_removed = state.cluster().members.is_removed(member_id.0);
        let mut threads = Vec::new();
        let mut start = |thread: std::io::Result<JoinHandle<()>>| match thread {
            Ok(handle) => {
                threads.push(handle);
                Ok(())
            }
            Err(e) => Err(StartError::Ended(Failure::other(format!("cannot start a thread: {e}")))),
        };
        start(spawn(&shared, "log", threads::log::run))?;
        start(spawn(&shared, "checkpointer", threads::checkpointer::run))?;
        start(spawn(&shared, "catchup", threads::catchup::run))?;
        start(spawn(&shared, "state", |shared| threads::state::run(shared, state)))?;
        start(spawn(&shared, "replica", |shared| threads::replica::run(shared, replica)))?;
        if is_removed {
            // It heard of that before it ended (CL-4).
            shared.end(Ended::Removed);
        }
        Ok(Member { shared, threads: Arc::new(Mutex::new(threads)), caller: Caller::Nobody })
    }

    /// Puts the snapshot that was received in the place of the store, after [`Ended::Replaced`]. The member has
    /// ended; one that is opened now begins where the snapshot ends.
    ///
    /// # Errors
    /// What was not done; the old store is still there.
    pub async fn install(self) -> Result<(), Failure> {
        self.join().await;
        let received = self.shared.received_store.lock().expect("nothing fails under this lock").take();
        let Some(mut receiver) = received else {
            return Err(Failure::other("there is no snapshot to install"));
        };
        let store = self.shared.dir.member.join("engine.db");
        let id = InstallId(draw(self.shared.config.seed, self.shared.now_ms()));
        let installing = move || {
            let received = receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ())?;
            reach("applyBeforeOpenSnapshot");
            received.install(&store, id)?;
            reach("applyAfterOpenSnapshot");
            Ok::<_, cairn_engine::Error>(())
        };
        let installed = tokio::task::spawn_blocking(installing).await;
        installed.map_err(|e| Failure::other(e.to_string()))?.map_err(Failure::from)
    }

    /// Puts the store aside, after [`Ended::Damaged`]. Gives the file.
    ///
    /// # Errors
    /// That it cannot be renamed.
    pub async fn set_own_aside(self) -> Result<PathBuf, Failure> {
        self.join().await;
        repair::set_aside(&*self.shared.config.vfs, &self.shared.dir.member).map_err(Failure::from)
    }

    /// Hands leadership to the voter that has been connected for the longest time, if this member leads (SD-6).
    /// Says in a sentence why not.
    pub async fn hand_over(&self) -> Result<(), &'static str> {
        let shared = &self.shared;
        if !shared.raft.leads.load(Ordering::Acquire) {
            return Err("skipped leadership transfer; local server is not leader");
        }
        let voters = shared.cluster().members.voters_and_learners().0;
        let connected = voters.iter().filter_map(|id| Some((shared.peers.connected_since(*id)?, *id)));
        let Some((_, to)) = connected.min() else {
            return Err("skipped leadership transfer for single voting member cluster");
        };
        self.move_leader(to).await.map_err(|_| "leadership transfer failed")
    }

    /// Refuses a data directory that etcd made, before anyone writes into it.
    ///
    /// # Errors
    /// [`StartError::MadeByEtcd`], or that it cannot be looked at.
    pub fn check_owner(config: &MemberConfig) -> Result<(), StartError> {
        DataDir::check_owner(config)
    }

    /// Ends the member: no new request is taken, those under way are answered as far as they can be within
    /// a few seconds, the log is sealed.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let started = Instant::now();
        while self.shared.raft.proposals.load(Ordering::Relaxed) > 0 || self.shared.applying() {
            if started.elapsed() > STOP_PATIENCE || self.shared.is_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.end(Ended::Stopped);
        self.join().await;
    }

    /// Resolves when the member has ended, by [`Member::stop`] or by a failure.
    pub async fn ended(&self) -> Ended {
        self.shared.wait_ended().await
    }

    /// A write of the log that waits for longer than an election timeout, now and at each change. A member
    /// alone goes on answering reads, and is not ready meanwhile.
    pub fn hung_write(&self) -> watch_channel::Receiver<Option<HungWrite>> {
        self.shared.log_write.hung()
    }

    async fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("nothing fails under this lock"));
        let join = move || threads.into_iter().for_each(|t| t.join().expect("a thread catches its panics"));
        tokio::task::spawn_blocking(join).await.expect("joining does not panic");
    }

    /// Waits until everything that was answered before this call is visible here (KV-24).
    ///
    /// # Errors
    /// When there is no leader to ask, or it changed meanwhile (KV-25).
    pub async fn linearize(&self) -> Result<(), Refusal> {
        let shared = &self.shared;
        // Alone, what this member has applied is all that anyone was ever told.
        if shared.raft.reads_alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let (waiter, answer) = oneshot::channel();
        if shared.replica.push(ReplicaMessage::Read(waiter)).is_err() {
            return Err(errors::STOPPED);
        }
        let patience = Duration::from_millis(shared.config.request_timeout_ms());
        let answered = match tokio::time::timeout(patience, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(errors::STOPPED),
            Err(_) => Err(errors::TIMEOUT),
        };
        if answered.is_err() {
            shared.raft.failed_read_indexes.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    /// The full header of an answer given now (HDR-3).
    pub fn header(&self) -> pb::ResponseHeader {
        self.header_at(self.shared.reader.revision().unwrap_or_default())
    }

    fn header_at(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.shared.cluster_id.0,
            member_id: self.shared.member_id.0,
            revision,
            raft_term: self.shared.raft.term.load(Ordering::Relaxed),
        }
    }

    /// Whether this member is a learner, which serves next to nothing (LR-2).
    pub fn is_learner(&self) -> bool {
        self.shared.raft.learns.load(Ordering::Acquire)
    }

    pub fn has_leader(&self) -> bool {
        self.shared.raft.leader.load(Ordering::Relaxed) != 0
    }

    /// As if there were none: a member alone never loses its leader.
    #[cfg(test)]
    pub fn forget_leader(&self) {
        self.shared.raft.leader.store(0, Ordering::Relaxed);
    }
}
