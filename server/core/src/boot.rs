// SPDX-License-Identifier: Apache-2.0
//! From a member's files to its machines.
//!
//! Owns      the order in which log and store are made and opened, and the first entries of a cluster.
//! Holds     1. the log is made, and its first entries are durable, before the store is (engine.md 2.2);
//!           2. a crash anywhere in between is gone on from at the next start;
//!           3. a member keeps the id that its log has, whatever it is told later.
//! Never     starts a thread, or touches a file but through the engine.

use crate::{
    force::{ForceRefused, Forcing, forcing},
    ids::{ClusterId, MemberId},
    lessor::{Lessor, min_ttl_s},
    marks::reach,
    mutants::planted,
    repair::{self, KnownLog},
    replica::{
        Replica, ReplicaConfig, StartRefused, bootstrap_entries,
        conf::{ConfChange, Kind},
        log::{Log, LogError, Promise},
    },
    state::{Carried, Fatal, State},
};
use cairn_engine::{
    Db, Error as EngineError, InstallId, Options,
    wal::{Base, Evidence, HardState, Wal, WalOptions},
};
use cairn_mvcc::{SCHEMA, Store};
use cairn_proto::membershippb::{Member as MemberRecord, RaftAttributes};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// What a member is made or opened with.
#[derive(Clone, Debug)]
pub struct BootConfig {
    /// Where the store is.
    pub dir: PathBuf,
    /// Where the log is.
    pub wal_dir: PathBuf,
    pub peer_urls: Vec<String>,
    pub cluster_token: String,
    /// How a member without a log becomes one of its cluster.
    pub start: Start,
    /// The others are gone for ever: this one is to be the only member of its cluster.
    pub force_new_cluster: bool,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub pre_vote: bool,
    pub lease_checkpoints: bool,
    /// A fresh one for each start: election timeouts, read contexts and the log's salt come from it.
    pub seed: u64,
    pub options: Options,
    /// Sizes of the log; the member's id and the salt are put in here.
    pub wal_options: WalOptions,
}

/// How a member becomes one of its cluster. One that has a log is one already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// It begins a new cluster together with these others, each by its peer URLs. Every one of them makes the
    /// same first entries.
    New { others: Vec<Vec<String>> },
    /// It was added to a cluster that runs, which told it who it is; everything else comes from the leader.
    Join { member_id: MemberId, cluster_id: ClusterId },
}

/// Why a member cannot be made or opened. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("cannot use 0 as member id: change a peer URL")]
    IdZero,
    #[error("member exists with identical ID {0}: two initial members have the same peer URLs")]
    IdTwice(MemberId),
    #[error(
        "{} has a store and there is no log in {}: bring the log back, or restore from a backup",
        dir.display(),
        wal_dir.display()
    )]
    LogMissing { dir: PathBuf, wal_dir: PathBuf },
    #[error(
        "the store in {} was damaged and is {} now: this member gets another one from a peer, or is restored from a backup",
        dir.display(),
        aside.display()
    )]
    StoreAside { dir: PathBuf, aside: PathBuf },
    /// The newest checkpoints are damaged, and the older one that is whole is of no use.
    #[error(
        "the store in {} is damaged: what is whole of it ends at index {applied}, and its log begins at {first}: bring it \
         back, or restore from a backup",
        dir.display()
    )]
    StoreBehind { dir: PathBuf, applied: u64, first: u64 },
    /// Batches that were durable are lost.
    #[error(
        "{0}; what this member promised may be lost with it, so it does not go on under its id: remove the member and \
         add it anew with an empty data directory; one that is alone is restored from a backup"
    )]
    LogDamaged(EngineError),
    #[error(
        "the store in {} is missing, but the log in {} has a history: bring it back, or restore from a backup",
        dir.display(),
        wal_dir.display()
    )]
    StoreMissing { dir: PathBuf, wal_dir: PathBuf },
    /// The engine's own words name file and place.
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Replica(#[from] StartRefused),
    #[error("{0}")]
    State(#[from] Fatal),
    #[error("{0}")]
    Force(#[from] ForceRefused),
    #[error("the first entry of the log: {0}")]
    FirstEntry(String),
}

impl BootError {
    /// Whether it is the store alone that is damaged or gone aside, so that one of a peer can take its place.
    pub fn is_of_store(&self) -> bool {
        match self {
            BootError::StoreAside { .. } | BootError::StoreBehind { .. } => true,
            BootError::Engine(error) | BootError::State(Fatal::Engine(error)) => repair::is_of_store(error),
            _ => false,
        }
    }
}

/// A member that is ready to run.
pub struct Booted<A, R> {
    pub member_id: MemberId,
    pub cluster_id: ClusterId,
    /// It was made the only member of its cluster, by entries that are committed up to here.
    pub forced: Option<u64>,
    pub db: Db,
    pub wal: Arc<Wal>,
    pub state: State,
    pub lessor: Arc<Mutex<Lessor>>,
    pub replica: Replica<Carried<A>, R>,
}

struct Files {
    db: Db,
    wal: Wal,
    applied: (u64, u64),
}

/// Opens the files of a member, or makes a new one.
///
/// # Errors
/// See [`BootError`].
pub fn boot<A, R>(config: BootConfig) -> Result<Booted<A, R>, BootError> {
    let vfs = config.options.vfs.clone();
    let told = match &config.start {
        Start::New { .. } => MemberId::at_bootstrap(&config.peer_urls, &config.cluster_token),
        Start::Join { member_id, .. } => *member_id,
    };
    let owner = Wal::owner(&*vfs, &config.wal_dir)
        .map_err(|error| if error.is_corrupt() { BootError::LogDamaged(error) } else { error.into() })?;
    let member_id = owner.map_or(told, MemberId);
    if member_id.0 == 0 {
        return Err(BootError::IdZero);
    }
    let mut wal_options = config.wal_options.clone();
    wal_options.member_id = member_id.0;
    wal_options.salt_seed = draw(config.seed, 1);
    let store = repair::store_file(&config.dir);
    let has_store = vfs.exists(&store).map_err(|e| EngineError::io("look for", &store, None, e))?;
    let has_log = Wal::exists(&*vfs, &config.wal_dir)?;
    let Files { db, wal, applied } = match (has_store, has_log) {
        (true, true) => open_both(&config, wal_options)?,
        (false, true) if repair::is_aside(&*vfs, &config.dir)? => {
            let aside = repair::aside_file(&config.dir);
            return Err(BootError::StoreAside { dir: config.dir, aside });
        }
        (false, false) if repair::is_aside(&*vfs, &config.dir)? => {
            return Err(BootError::LogMissing { dir: config.dir, wal_dir: config.wal_dir });
        }
        (true, false) => {
            return Err(BootError::LogMissing { dir: config.dir, wal_dir: config.wal_dir });
        }
        (false, _) => make(&config, wal_options, has_log)?,
    };
    let wal = Arc::new(wal);
    let lessor = Lessor::new(min_ttl_s(config.heartbeat_ms, config.election_ms), config.lease_checkpoints);
    let lessor = Arc::new(Mutex::new(lessor));
    let mut state = State::open(Store::open(db.clone())?, lessor.clone(), applied)?;
    state.issue_tokens_after(wal.last_index());
    let cluster_id = match (state.cluster().cluster_id, &config.start) {
        (Some(id), _) => id,
        // Nothing came from the leader yet.
        (None, Start::Join { cluster_id, .. }) if wal.last_index() == 0 => *cluster_id,
        (None, _) => cluster_in_log(&*wal)?,
    };
    let forced = if config.force_new_cluster { force(&config, &wal, &state, member_id)? } else { None };
    let (mut voters, learners) = state.cluster().members.voters_and_learners();
    if state.cluster().members.is_removed(member_id.0) {
        reach("removed-member-starts");
        // Until its peers say so it helps them as before: they may not know yet.
        voters.push(member_id.0);
    }
    let replica_config = ReplicaConfig {
        id: member_id.0,
        election_ticks: election_ticks(config.heartbeat_ms, config.election_ms) as usize,
        heartbeat_ticks: 1,
        pre_vote: config.pre_vote,
        staggered: true,
        seed: draw(config.seed, 2),
        boot_nonce: draw(config.seed, 3),
        patience_ms: request_timeout_ms(config.heartbeat_ms, config.election_ms),
        applied: applied.0,
        voters,
        learners,
        promise: promise_of(&wal),
    };
    let log: Arc<dyn Log> = wal.clone();
    let replica = Replica::new(replica_config, log)?;
    Ok(Booted { member_id, cluster_id, forced, db, wal, state, lessor, replica })
}

/// What this member promised. The store of a peer may end in a term that it never heard of: it voted in none of those.
fn promise_of(wal: &Wal) -> Promise {
    let (_, HardState { term, vote, commit }) = wal.state();
    match wal.term(wal.last_index()) {
        Some(newer) if newer > term && !planted("repair-keeps-an-old-term") => {
            reach("term-of-a-peers-store");
            Promise { term: newer, vote: 0, commit }
        }
        _ => Promise { term, vote, commit },
    }
}

/// Appends what makes this member the only one, if there are others; up to where it is committed.
fn force(
    config: &BootConfig,
    wal: &Wal,
    state: &State,
    member_id: MemberId,
) -> Result<Option<u64>, BootError> {
    let promise = promise_of(wal);
    let members = state.cluster().members.clone();
    let (applied, _) = state.applied();
    let forcing = forcing(wal, members, member_id, &config.peer_urls, applied, promise)?;
    let Some(Forcing { entries, promise }) = forcing else { return Ok(None) };
    Log::append(wal, &entries, Some(promise))?;
    wal.sync()?;
    Ok(Some(promise.commit))
}

fn open_both(config: &BootConfig, wal_options: WalOptions) -> Result<Files, BootError> {
    let (db, recovered) = Db::open(&config.dir, SCHEMA, config.options.clone())?;
    let (applied_index, applied_term) = (recovered.meta.applied_index, recovered.meta.applied_term);
    let evidence = Evidence { applied_index, applied_term, install: recovered.install_id };
    let (wal, _) = Wal::open(&config.wal_dir, wal_options, evidence).map_err(|error| {
        if error.is_corrupt() { judge(config, applied_index, error) } else { error.into() }
    })?;
    Ok(Files { db, wal, applied: (applied_index, applied_term) })
}

/// What it is that does not fit: a log that is whole by itself lost nothing.
fn judge(config: &BootConfig, applied: u64, damage: EngineError) -> BootError {
    match KnownLog::read(&*config.options.vfs, &config.wal_dir) {
        Ok(log) if applied < log.wanted() => {
            BootError::StoreBehind { dir: config.dir.clone(), applied, first: log.wanted() + 1 }
        }
        _ => BootError::LogDamaged(damage),
    }
}

/// Makes a member, or goes on with the making that a crash cut short.
fn make(config: &BootConfig, wal_options: WalOptions, has_log: bool) -> Result<Files, BootError> {
    let member_id = MemberId(wal_options.member_id);
    // The first filling of a directory; one that comes by a snapshot has a number of its own.
    let install = InstallId(member_id.0);
    let wal = if has_log {
        let evidence = Evidence { applied_index: 0, applied_term: 0, install };
        Wal::open(&config.wal_dir, wal_options, evidence)?.0
    } else {
        Wal::create(&config.wal_dir, wal_options, Base { index: 0, term: 0, install })?
    };
    let (entries, promise) = match &config.start {
        Start::New { others } => {
            bootstrap_entries(&founders(&config.peer_urls, &config.cluster_token, others)?)
        }
        Start::Join { .. } => (Vec::new(), Promise::default()),
    };
    if wal.last_index() > entries.len() as u64 {
        let (dir, wal_dir) = (config.dir.clone(), config.wal_dir.clone());
        return Err(BootError::StoreMissing { dir, wal_dir });
    }
    if wal.last_index() == 0 && !entries.is_empty() {
        Log::append(&wal, &entries, Some(promise))?;
        wal.sync()?;
    }
    let db = Db::create(&config.dir, SCHEMA, install, config.options.clone())?;
    Ok(Files { db, wal, applied: (0, 0) })
}

/// Makes the log of a member that is a cluster of its own and has applied nothing, for a store that was filled by
/// other means and has the number `install`.
///
/// # Errors
/// If there is a log, or it cannot be written.
pub fn first_log(
    wal_dir: &Path,
    mut wal_options: WalOptions,
    peer_urls: &[String],
    cluster_token: &str,
    install: InstallId,
) -> Result<MemberId, BootError> {
    let (entries, promise) = bootstrap_entries(&founders(peer_urls, cluster_token, &[])?);
    let member_id = MemberId::at_bootstrap(peer_urls, cluster_token);
    wal_options.member_id = member_id.0;
    let wal = Wal::create(wal_dir, wal_options, Base { index: 0, term: 0, install })?;
    Log::append(&wal, &entries, Some(promise))?;
    wal.sync()?;
    Ok(member_id)
}

/// The changes with which a cluster begins: its members in the order of their ids (BO-4).
fn founders(
    peer_urls: &[String],
    cluster_token: &str,
    others: &[Vec<String>],
) -> Result<Vec<ConfChange>, BootError> {
    let all = others.iter().map(Vec::as_slice).chain([peer_urls]);
    let mut members: Vec<(MemberId, &[String])> =
        all.map(|urls| (MemberId::at_bootstrap(urls, cluster_token), urls)).collect();
    members.sort_unstable();
    let ids: Vec<MemberId> = members.iter().map(|(id, _)| *id).collect();
    check_ids(&ids)?;
    let cluster_id = ClusterId::of_initial(&ids);
    let change = |(id, urls): (MemberId, &[String])| {
        let raft_attributes = RaftAttributes { peer_urls: urls.to_vec(), is_learner: false };
        // Name and client URLs are published once the member runs (CL-13): what they are is for each member
        // to say, and the first entries are the same on all.
        let member =
            MemberRecord { id: id.0, raft_attributes: Some(raft_attributes), member_attributes: None };
        ConfChange {
            request_id: 0,
            kind: Kind::AddVoter,
            member_id: id.0,
            cluster_id: cluster_id.0,
            member: Some(member),
            learners_max: 0,
        }
    };
    Ok(members.into_iter().map(change).collect())
}

/// ID-4, of ids in their order.
fn check_ids(ids: &[MemberId]) -> Result<(), BootError> {
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(BootError::IdTwice(twice[0]));
    }
    if ids.first() == Some(&MemberId(0)) {
        return Err(BootError::IdZero);
    }
    Ok(())
}

/// The cluster's id from the first entry, which is not applied yet.
fn cluster_in_log(log: &dyn Log) -> Result<ClusterId, BootError> {
    let missing = || BootError::FirstEntry("missing".to_owned());
    if log.last_index() == 0 {
        return Err(missing());
    }
    let entries = log.entries(1, 2, usize::MAX)?;
    let first = entries.first().ok_or_else(missing)?;
    let change = ConfChange::decode(&first.data).map_err(|e| BootError::FirstEntry(e.to_string()))?;
    Ok(ClusterId(change.cluster_id))
}

/// An election timeout in heartbeats, of which it has whole ones alone.
pub fn election_ticks(heartbeat_ms: u64, election_ms: u64) -> u64 {
    (election_ms / heartbeat_ms.max(1)).max(1)
}

/// How long a request waits for its outcome: five seconds and two election timeouts (RT-5).
pub fn request_timeout_ms(heartbeat_ms: u64, election_ms: u64) -> u64 {
    5_000 + 2 * election_ticks(heartbeat_ms, election_ms) * heartbeat_ms
}

/// One of several draws from the seed of a start.
pub fn draw(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: ID-4
    #[test]
    fn initial_members_have_ids_of_their_own_and_none_is_zero() {
        let told = |ids: &[u64]| {
            let ids: Vec<MemberId> = ids.iter().copied().map(MemberId).collect();
            check_ids(&ids).map_err(|refused| refused.to_string())
        };
        assert_eq!(told(&[1, 2, 3]), Ok(()));
        assert_eq!(told(&[0, 2]), Err("cannot use 0 as member id: change a peer URL".to_owned()));
        let twice = "member exists with identical ID 2: two initial members have the same peer URLs";
        assert_eq!(told(&[1, 2, 2]), Err(twice.to_owned()));
        let urls = |host: &str| vec![format!("http://{host}:2380")];
        assert!(founders(&urls("a"), "t", &[urls("b")]).is_ok());
        assert!(matches!(founders(&urls("a"), "t", &[urls("a")]), Err(BootError::IdTwice(_))));
    }
}
