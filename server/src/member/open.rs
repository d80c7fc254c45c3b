// SPDX-License-Identifier: Apache-2.0
//! From a data directory to the machines of a member.
//!
//! Owns      the order in which log and store are made and opened, and the first entries of a cluster.
//! Holds     1. the log is made, and its first entries are durable, before the store is (engine.md 2.2);
//!           2. a crash anywhere in between is gone on from at the next start;
//!           3. a member keeps the id that its log has, whatever the flags say later.
//! Never     starts a thread.

use super::{
    config::{MemberConfig, StartError},
    datadir::DataDir,
    shared::{Kept, ReadWaiter},
};
use cairn_core::{
    ClusterId, MemberId,
    lessor::{Lessor, min_ttl_s},
    replica::{
        Replica, ReplicaConfig, bootstrap_entries,
        conf::{ConfChange, Kind},
        log::{Log, Promise},
    },
    state::State,
};
use cairn_engine::{
    Db, InstallId, Options,
    wal::{Base, Evidence, Wal, WalOptions},
};
use cairn_mvcc::{SCHEMA, Store};
use cairn_proto::membershippb::{Member as MemberRecord, RaftAttributes};
use std::sync::{Arc, Mutex};

/// A member that is ready to run.
pub(super) struct Opened {
    pub dir: DataDir,
    pub member_id: MemberId,
    pub cluster_id: ClusterId,
    pub db: Db,
    pub wal: Arc<Wal>,
    pub state: State,
    pub lessor: Arc<Mutex<Lessor>>,
    pub replica: Replica<Kept, ReadWaiter>,
    pub overlay_bytes: u64,
}

/// Opens the directory, or makes a new member in it.
pub(super) fn open(config: &MemberConfig) -> Result<Opened, StartError> {
    let dir = DataDir::take(config)?;
    let vfs = &config.vfs;
    let access = |source| StartError::Access { dir: dir.member.clone(), source };
    let derived = MemberId::at_bootstrap(&config.peer_urls, &config.cluster_token);
    let member_id = Wal::owner(&**vfs, &dir.wal)?.map_or(derived, MemberId);
    if member_id.0 == 0 {
        return Err(StartError::Recovery("cannot use 0 as member id: change a peer URL".to_owned()));
    }
    let wal_options = WalOptions::new(vfs.clone(), member_id.0, draw(config.seed, 1));
    let mut options = Options::default();
    options.vfs = vfs.clone();
    let overlay_bytes = options.overlay_bytes;
    let has_store = vfs.exists(&dir.member.join("engine.db")).map_err(access)?;
    let has_log = Wal::exists(&**vfs, &dir.wal)?;
    let (db, wal, applied) = match (has_store, has_log) {
        (true, true) => open_both(&dir, options, wal_options)?,
        (true, false) => {
            return Err(StartError::Incomplete(format!(
                "{} has a store and no log in {}: bring the log back, or restore from a backup",
                dir.member.display(),
                dir.wal.display()
            )));
        }
        (false, _) => make(config, &dir, options, wal_options, has_log)?,
    };
    let wal = Arc::new(wal);
    let lessor = Lessor::new(min_ttl_s(config.heartbeat_ms, config.election_ms), config.lease_checkpoints);
    let lessor = Arc::new(Mutex::new(lessor));
    let state = State::open(Store::open(db.clone())?, lessor.clone(), applied)
        .map_err(|fatal| StartError::Recovery(fatal.to_string()))?;
    let cluster_id = match state.cluster().cluster_id {
        Some(id) => id,
        None => cluster_in_log(&*wal)?,
    };
    let (voters, learners) = state.cluster().members.voters_and_learners();
    let (_, hard_state) = wal.state();
    let replica_config = ReplicaConfig {
        id: member_id.0,
        election_ticks: config.election_ticks(),
        heartbeat_ticks: 1,
        pre_vote: config.pre_vote,
        seed: draw(config.seed, 2),
        boot_nonce: draw(config.seed, 3),
        applied: applied.0,
        voters,
        learners,
        promise: Promise { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit },
    };
    let log: Arc<dyn Log> = wal.clone();
    let replica =
        Replica::new(replica_config, log).map_err(|refused| StartError::Recovery(refused.to_string()))?;
    Ok(Opened { dir, member_id, cluster_id, db, wal, state, lessor, replica, overlay_bytes })
}

fn open_both(
    dir: &DataDir,
    options: Options,
    wal_options: WalOptions,
) -> Result<(Db, Wal, (u64, u64)), StartError> {
    let (db, recovered) = Db::open(&dir.member, SCHEMA, options)?;
    let (applied_index, applied_term) = (recovered.meta.applied_index, recovered.meta.applied_term);
    let evidence = Evidence { applied_index, applied_term, install: recovered.install_id };
    let (wal, _replay) = Wal::open(&dir.wal, wal_options, evidence)?;
    Ok((db, wal, (applied_index, applied_term)))
}

/// Makes a member, or goes on with the making that a crash cut short.
fn make(
    config: &MemberConfig,
    dir: &DataDir,
    options: Options,
    wal_options: WalOptions,
    has_log: bool,
) -> Result<(Db, Wal, (u64, u64)), StartError> {
    let member_id = MemberId(wal_options.member_id);
    // The first filling of a directory; one that came by a snapshot has a number of its own.
    let install = InstallId(member_id.0);
    let wal = if has_log {
        let evidence = Evidence { applied_index: 0, applied_term: 0, install };
        Wal::open(&dir.wal, wal_options, evidence)?.0
    } else {
        Wal::create(&dir.wal, wal_options, Base { index: 0, term: 0, install })?
    };
    let (entries, promise) = bootstrap_entries(&[bootstrap_change(config, member_id)]);
    if Log::last_index(&wal) > entries.len() as u64 {
        return Err(StartError::Incomplete(format!(
            "{} is missing, but the log in {} has a history: bring it back, or restore from a backup",
            dir.member.join("engine.db").display(),
            dir.wal.display()
        )));
    }
    if Log::last_index(&wal) == 0 {
        Log::append(&wal, &entries, Some(promise)).map_err(|e| StartError::Recovery(e.to_string()))?;
        wal.sync()?;
    }
    let db = Db::create(&dir.member, SCHEMA, install, options)?;
    Ok((db, wal, (0, 0)))
}

/// The change with which a cluster of this one member begins.
fn bootstrap_change(config: &MemberConfig, member_id: MemberId) -> ConfChange {
    let raft_attributes = RaftAttributes { peer_urls: config.peer_urls.clone(), is_learner: false };
    let member = MemberRecord {
        id: member_id.0,
        raft_attributes: Some(raft_attributes),
        // Name and client URLs are published once the member runs (CL-13).
        member_attributes: None,
    };
    ConfChange {
        kind: Kind::AddVoter,
        member_id: member_id.0,
        cluster_id: ClusterId::of_initial(&[member_id]).0,
        member: Some(member),
    }
}

/// The cluster's id from the first entry, which is not applied yet.
fn cluster_in_log(log: &dyn Log) -> Result<ClusterId, StartError> {
    let unreadable = |why: String| StartError::Recovery(format!("the first entry of the log: {why}"));
    let entries = log.entries(1, 2, usize::MAX).map_err(|e| unreadable(e.to_string()))?;
    let first = entries.first().ok_or_else(|| unreadable("missing".to_owned()))?;
    let change = ConfChange::decode(&first.data).map_err(|e| unreadable(e.to_string()))?;
    Ok(ClusterId(change.cluster_id))
}

/// One of several draws from the seed of this start.
pub(super) fn draw(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
