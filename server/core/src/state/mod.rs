// SPDX-License-Identifier: Apache-2.0
//! The state: what committed entries do to the store, the leases, the alarms and the members.
//!
//! Owns      the store's one writer, and everything that only applied entries change.
//! Holds     1. entries are applied in order, each once; a batch of them is one write transaction, and its
//!              applied index is part of it;
//!           2. a request that fails advances the applied index like any other, and changes nothing;
//!           3. the same entries give the same state on every member: what is given to `apply` besides
//!              them moves deadlines of leases alone.
//! Never     answers: it gives the outcomes back, to be told once the transaction is committed and published.

pub mod alarms;
mod applying;
pub mod members;
pub mod reconfig;
mod versions;

use crate::{
    Command, Refusal,
    auth::{Auth, Identity, cell::AuthCell},
    command::CommandKind,
    ids::ClusterId,
    lessor::{Lessor, StoredLease},
    replica::{
        Committed,
        conf::ConfChange,
        log::{EntryKind, LogEntry},
    },
    version::Version,
};
use alarms::Alarms;
use applying::{Applying, Flags};
use bytes::Bytes;
use cairn_engine::failpoints::reach;
use cairn_mvcc::{OpError, Reader, RevisionEvents, SmallTree, Store, TxnDone};
use cairn_proto::{etcdserverpb as pb, membershippb};
use members::{Members, REMOVED};
use prost::Message;
use std::sync::{Arc, Mutex};

/// What a proposer keeps of a request until it is applied: the decoded form, who asks, and where the answer
/// goes.
pub struct Carried<A> {
    /// `None` of a change of the membership: its entry is read on every member alike.
    pub command: Option<Command>,
    /// As in the header of the entry.
    pub by: Option<Identity>,
    pub answer: A,
}

/// The state ended: what is applied is in doubt, so the member stops.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("{0}")]
    Engine(#[from] cairn_engine::Error),
    #[error("{0}")]
    Store(OpError),
    #[error("entry {index} of the log: {why}")]
    Entry { index: u64, why: String },
    #[error("stored {what} cannot be read: {why}")]
    Stored { what: &'static str, why: String },
    /// VE-3.
    #[error(
        "invalid downgrade; server version is lower than determined cluster version: this member speaks {own}, and the \
         cluster {cluster}: start the version that ran before, and downgrade the cluster first",
        own = Version::OWN
    )]
    NewerCluster { cluster: Version },
}

impl From<OpError> for Fatal {
    fn from(error: OpError) -> Fatal {
        match error {
            OpError::Engine(error) => Fatal::Engine(error),
            other => Fatal::Store(other),
        }
    }
}

/// What a request came to, before it becomes a message with a header.
#[derive(Debug)]
pub enum Applied {
    Put {
        revision: i64,
        prev_kv: Option<Bytes>,
    },
    DeleteRange {
        revision: i64,
        deleted: i64,
        prev_kvs: Vec<Bytes>,
    },
    Txn(TxnDone),
    Compact {
        revision: i64,
    },
    LeaseGrant {
        revision: i64,
        id: i64,
        ttl_s: i64,
    },
    LeaseRevoke {
        revision: i64,
    },
    Alarm {
        revision: i64,
        alarms: Vec<pb::AlarmMember>,
    },
    /// The members after a change of the membership, by id.
    Members(Vec<membershippb::Member>),
    /// A user is to get a token: this one, or one that the proposer makes itself.
    Authenticate {
        revision: i64,
        token: Option<String>,
    },
    /// Users, roles or their permissions were changed.
    Auth {
        revision: i64,
    },
    /// Requests of members, not of clients.
    Done,
}

/// What a batch of entries came to.
pub struct Outcome<A> {
    pub answers: Vec<(A, Result<Applied, Refusal>)>,
    pub events: Vec<Arc<RevisionEvents>>,
    /// Changes of the membership by index; `None` where one was refused.
    pub conf: Vec<(u64, Option<ConfChange>)>,
    /// Members, alarms or the cluster version changed.
    pub cluster_changed: bool,
    /// If a lease was revoked, keep-alives that wait for that may look again.
    pub leases: LeaseChanges,
    /// The history was cut: there is something to purge.
    pub compacted: Option<i64>,
    /// Revisions were passed over, up to this one.
    pub skipped: Option<i64>,
    /// Rights changed: what was begun under the old ones is to be looked at again.
    pub auth_changed: bool,
}

/// What became of leases in a batch of entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaseChanges {
    /// The TTL of each that was granted.
    pub granted_ttls_s: Vec<i64>,
    pub revoked: usize,
    /// Those of the revoked ones that had run out.
    pub expired: usize,
}

impl<A> Default for Outcome<A> {
    fn default() -> Self {
        Outcome {
            answers: Vec::new(),
            events: Vec::new(),
            conf: Vec::new(),
            cluster_changed: false,
            leases: LeaseChanges::default(),
            compacted: None,
            skipped: None,
            auth_changed: false,
        }
    }
}

/// The part of the state that others look at: replaced as a whole when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    pub cluster_id: Option<ClusterId>,
    pub version: Option<Version>,
    /// The version that the cluster is on its way down to.
    pub downgrade: Option<Version>,
    /// Of the last request that came with the next version.
    #[cfg(feature = "next")]
    pub next_number: u64,
    pub members: Members,
    pub alarms: Alarms,
}

/// See the module.
pub struct State {
    store: Store,
    lessor: Arc<Mutex<Lessor>>,
    cluster: ClusterView,
    auth: Auth,
    auth_cell: Arc<AuthCell>,
    /// Tokens of entries up to here are of an earlier run, which ended with it.
    token_index_min: u64,
    applied_index: u64,
    applied_term: u64,
}

/// A lease as it is stored: etcd's `leasepb.Lease`, and the entry that granted it.
#[derive(Clone, PartialEq, Message)]
struct LeaseRecord {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl_s: i64,
    #[prost(int64, tag = "3")]
    remaining_s: i64,
    #[prost(uint64, tag = "15")]
    granted_index: u64,
}

/// A lease of what the tree of leases holds.
///
/// # Errors
/// [`Fatal::Stored`].
pub fn stored_lease(value: &Bytes) -> Result<StoredLease, Fatal> {
    let LeaseRecord { id, ttl_s, remaining_s, granted_index } = decode("lease", value)?;
    Ok(StoredLease { id, ttl_s, remaining_s, granted_index })
}

/// Key and value of a lease in the tree of leases.
pub fn lease_entry(lease: StoredLease) -> ([u8; 8], Bytes) {
    let StoredLease { id, ttl_s, remaining_s, granted_index } = lease;
    let value = LeaseRecord { id, ttl_s, remaining_s, granted_index }.encode_to_vec();
    (id.to_be_bytes(), value.into())
}

const CLUSTER_ID: &[u8] = b"cluster_id";
const CLUSTER_VERSION: &[u8] = b"cluster_version";
const DOWNGRADE: &[u8] = b"downgrade";

impl State {
    /// Takes the store as the last run left it. `applied` is the index and term of its last commit.
    ///
    /// # Errors
    /// If what is stored cannot be read.
    pub fn open(store: Store, lessor: Arc<Mutex<Lessor>>, applied: (u64, u64)) -> Result<State, Fatal> {
        let reader = store.reader();
        let mut cluster = ClusterView::default();
        let mut leases = lessor.lock().expect("no one panics while holding the lessor");
        for (_, value) in reader.small_scan(SmallTree::Lease)? {
            leases.restore(stored_lease(&value)?);
        }
        drop(leases);
        for (key, _) in reader.small_scan(SmallTree::Alarm)? {
            if !cluster.alarms.restore(&key) {
                return Err(Fatal::Stored { what: "alarm", why: format!("a key of {} bytes", key.len()) });
            }
        }
        for (key, value) in reader.small_scan(SmallTree::Member)? {
            match <[u8; 8]>::try_from(&key[..]) {
                Ok(id) if &value[..] == REMOVED => cluster.members.restore_removed(u64::from_be_bytes(id)),
                _ => cluster.members.restore(decode("member", &value)?),
            }
        }
        if let Some(value) = reader.small_get(SmallTree::Meta, CLUSTER_ID)? {
            let id = <[u8; 8]>::try_from(&value[..]);
            let id = id.map_err(|e| Fatal::Stored { what: "cluster id", why: e.to_string() })?;
            cluster.cluster_id = Some(ClusterId(u64::from_be_bytes(id)));
        }
        if let Some(value) = reader.small_get(SmallTree::Meta, CLUSTER_VERSION)? {
            cluster.version = Some(versions::stored("cluster version", &value)?);
        }
        if let Some(value) = reader.small_get(SmallTree::Meta, DOWNGRADE)? {
            cluster.downgrade = Some(versions::stored("downgrade", &value)?);
        }
        #[cfg(feature = "next")]
        if let Some(value) = reader.small_get(SmallTree::Meta, versions::NEXT_NUMBER)? {
            cluster.next_number = versions::stored_number(&value)?;
        }
        versions::check(cluster.version)?;
        let mut auth = Auth::default();
        for (key, value) in reader.small_scan(SmallTree::Auth)? {
            auth.restore(&key, &value)
                .map_err(|why| Fatal::Stored { what: "user or role", why: why.to_string() })?;
        }
        let auth_cell = Arc::new(AuthCell::default());
        auth_cell.publish(auth.clone());
        let (applied_index, applied_term) = applied;
        Ok(State { store, lessor, cluster, auth, auth_cell, token_index_min: 0, applied_index, applied_term })
    }

    /// Users, roles and tokens, for those who take requests in.
    pub fn auth_cell(&self) -> Arc<AuthCell> {
        self.auth_cell.clone()
    }

    /// Entries up to `index` were there before this run: when they are replayed, the tokens in them stay ended
    /// (AU-25).
    pub fn issue_tokens_after(&mut self, index: u64) {
        self.token_index_min = index + 1;
    }

    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    pub fn cluster(&self) -> &ClusterView {
        &self.cluster
    }

    /// Index and term of the last applied entry.
    pub fn applied(&self) -> (u64, u64) {
        (self.applied_index, self.applied_term)
    }

    /// Applies entries as one transaction. `done` is told after each request what it was and whether it
    /// succeeded, so that who has a clock can look at it.
    ///
    /// # Errors
    /// If the engine failed or an entry is not of this version; nothing of the batch is to be answered.
    pub fn apply<A>(
        &mut self,
        now_ms: u64,
        entries: Vec<Committed<Carried<A>>>,
        outcome: &mut Outcome<A>,
        mut done: impl FnMut(CommandKind, bool),
    ) -> Result<(), Fatal> {
        let Some(last) = entries.last() else { return Ok(()) };
        let (index, term) = (last.entry.index, last.entry.term);
        let mut batch = self.store.batch()?;
        let mut applying = Applying {
            batch: &mut batch,
            lessor: &mut self.lessor.lock().expect("no one panics while holding the lessor"),
            cluster: &mut self.cluster,
            auth: &mut self.auth,
            auth_cell: &self.auth_cell,
            token_index_min: self.token_index_min,
            by: None,
            now_ms,
            index: 0,
            outcome_flags: Flags::default(),
        };
        for Committed { entry, carried } in entries {
            self.applied_index += 1;
            assert_eq!(entry.index, self.applied_index, "entries are applied in order, each once");
            applying.index = entry.index;
            match entry.kind {
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => {
                    reach("beforeApplyOneEntryNormal");
                    let (command, by, answer) = match carried {
                        Some(Carried { command: Some(command), by, answer }) => (command, by, Some(answer)),
                        other => {
                            let (command, by) = decode_command(&entry)?;
                            (command, by, other.map(|carried| carried.answer))
                        }
                    };
                    applying.by = by;
                    let kind = command.kind();
                    let result = applying.command(command)?;
                    done(kind, result.is_ok());
                    outcome.answers.extend(answer.map(|answer| (answer, result)));
                }
                EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
                    reach("beforeApplyOneConfChange");
                    let change = applying.conf_change(&entry)?;
                    if let Some(Carried { answer, .. }) = carried {
                        let members = || applying.cluster.members.iter().cloned().collect();
                        let result = change.as_ref().map(|_| Applied::Members(members()));
                        outcome.answers.push((answer, result.map_err(|refusal| *refusal)));
                    }
                    outcome.conf.push((entry.index, change.ok()));
                }
            }
        }
        let Flags { cluster_changed, leases, compacted, skipped, auth_changed } = applying.outcome_flags;
        if auth_changed {
            outcome.auth_changed = true;
            self.auth_cell.publish(self.auth.clone());
        }
        outcome.cluster_changed |= cluster_changed;
        outcome.leases.granted_ttls_s.extend(leases.granted_ttls_s);
        outcome.leases.revoked += leases.revoked;
        outcome.leases.expired += leases.expired;
        outcome.compacted = compacted.or(outcome.compacted);
        outcome.skipped = skipped.or(outcome.skipped);
        outcome.events.append(&mut batch.commit(index, term)?);
        if compacted.is_some() {
            reach("compactAfterCommitScheduledCompact");
        }
        self.applied_term = term;
        Ok(())
    }
}

fn decode<M: Message + Default>(what: &'static str, bytes: &Bytes) -> Result<M, Fatal> {
    M::decode(bytes.clone()).map_err(|e| Fatal::Stored { what, why: e.to_string() })
}

fn decode_command(entry: &LogEntry) -> Result<(Command, Option<Identity>), Fatal> {
    Command::decode_by(entry.data.clone())
        .map_err(|why| Fatal::Entry { index: entry.index, why: why.to_string() })
}
