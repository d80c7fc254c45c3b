// SPDX-License-Identifier: Apache-2.0
//! What each request does to the state.
//!
//! Owns      the one place in which a committed request changes store, leases, alarms, members and users.
//! Holds     a request that is refused has changed nothing.
//! Never     commits: the batch is that of all entries which are applied together.

use super::{
    Applied, CLUSTER_ID, ClusterView, Fatal, LeaseChanges, alarms::Alarms, lease_entry, members::REMOVED,
};
use crate::{
    Command, Refusal,
    auth::{Auth, Identity, cell::AuthCell, command::AuthCommand, needs, needs::Grants, tokens},
    convert,
    ids::ClusterId,
    lessor::{Lessor, MAX_TTL_S, StoredLease},
    mutants::planted,
    replica::{
        conf::{ConfChange, Kind},
        log::LogEntry,
    },
};
use bytes::Bytes;
use cairn_engine::failpoints::reach;
use cairn_mvcc::{Batch, OpError, SmallTree};
use cairn_proto::{errors, etcdserverpb as pb, membershippb};
use prost::Message;

/// What a batch has changed beside the store.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) cluster_changed: bool,
    pub(super) leases: LeaseChanges,
    pub(super) compacted: Option<i64>,
    pub(super) skipped: Option<i64>,
    pub(super) auth_changed: bool,
}

/// One batch under way.
pub(super) struct Applying<'a, 'b> {
    pub(super) batch: &'a mut Batch<'b>,
    pub(super) lessor: &'a mut Lessor,
    pub(super) cluster: &'a mut ClusterView,
    pub(super) auth: &'a mut Auth,
    pub(super) auth_cell: &'a AuthCell,
    pub(super) token_index_min: u64,
    /// Who asks for what is being applied.
    pub(super) by: Option<Identity>,
    pub(super) now_ms: u64,
    /// The entry that is being applied.
    pub(super) index: u64,
    pub(super) outcome_flags: Flags,
}

/// A request's own failure, or the end.
pub(super) enum Failure {
    Refused(Refusal),
    Fatal(Fatal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<OpError> for Failure {
    fn from(error: OpError) -> Failure {
        match convert::refusal(error) {
            Ok(refusal) => Failure::Refused(refusal),
            Err(engine) => Failure::Fatal(Fatal::Engine(engine)),
        }
    }
}

impl From<cairn_engine::Error> for Failure {
    fn from(error: cairn_engine::Error) -> Failure {
        Failure::Fatal(Fatal::Engine(error))
    }
}

impl Applying<'_, '_> {
    /// Applies one request. Its own failure is an answer.
    pub(super) fn command(&mut self, command: Command) -> Result<Result<Applied, Refusal>, Fatal> {
        let done = match command {
            Command::Put(r) => self.put(r),
            Command::DeleteRange(r) => self.delete_range(r),
            Command::Txn(r) => self.txn(r),
            Command::Compact(r) => self.compact(&r),
            Command::Skip { by } => self.skip(by),
            Command::LeaseGrant(r) => self.lease_grant(&r),
            Command::LeaseRevoke(r) => self.lease_revoke_asked(r.id),
            Command::LeaseEnd { id, granted_index }
                if self.lessor.is_granted_by(id, granted_index) || planted("end-of-any-lease-of-that-id") =>
            {
                let revoked = self.lease_revoke(id);
                self.outcome_flags.leases.expired += usize::from(revoked.is_ok());
                revoked
            }
            Command::LeaseEnd { .. } => Err(errors::LEASE_NOT_FOUND.into()),
            Command::LeaseCheckpoint(r) => self.lease_checkpoint(&r),
            Command::Alarm(r) => self.alarm(&r),
            Command::ClusterVersion(r) => self.cluster_version(&r),
            Command::MemberAttributes(r) => self.member_attributes(r),
            Command::Downgrade(r) => self.downgrade(&r),
            Command::Later { since } => self.later(since),
            #[cfg(feature = "next")]
            Command::Next { number } => self.next(number),
            Command::Auth(command) => self.change_auth(&command),
        };
        match done {
            Ok(applied) => Ok(Ok(applied)),
            Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
            Err(Failure::Fatal(fatal)) => Err(fatal),
        }
    }

    fn put(&mut self, r: pb::PutRequest) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(true)?;
        let grants = self.auth.grants(self.by.as_ref());
        needs::put(&grants, &r, &mut |lease| self.batch.keys_of_lease(lease).map_err(Failure::from))?;
        let lessor = &*self.lessor;
        let done = self.batch.put(&convert::put_op(r), &|id| lessor.contains(id))?;
        Ok(Applied::Put { revision: done.revision, prev_kv: done.prev_kv })
    }

    fn delete_range(&mut self, r: pb::DeleteRangeRequest) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(false)?;
        needs::delete_range(&self.auth.grants(self.by.as_ref()), &r)?;
        let done = self.batch.delete_range(&convert::delete_op(r))?;
        Ok(Applied::DeleteRange { revision: done.revision, deleted: done.deleted, prev_kvs: done.prev_kvs })
    }

    fn txn(&mut self, r: pb::TxnRequest) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(crate::door::txn_cost(&r) > 0)?;
        let grants = self.auth.grants(self.by.as_ref());
        if !matches!(grants, Grants::Everything) {
            needs::txn(&grants, &r, &mut |lease| self.batch.keys_of_lease(lease).map_err(Failure::from))?;
        }
        let lessor = &*self.lessor;
        let done = self.batch.txn(&convert::txn_op(r), &|id| lessor.contains(id))?;
        Ok(Applied::Txn(done))
    }

    fn compact(&mut self, r: &pb::CompactionRequest) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(false)?;
        reach("compactBeforeCommitScheduledCompact");
        self.batch.compact(r.revision)?;
        self.outcome_flags.compacted = Some(r.revision);
        Ok(Applied::Compact { revision: self.batch.revision() })
    }

    /// No client asks for it, so no alarm refuses it.
    fn skip(&mut self, by: u64) -> Result<Applied, Failure> {
        self.batch.skip(by)?;
        let revision = self.batch.revision();
        self.outcome_flags.compacted = Some(revision);
        self.outcome_flags.skipped = Some(revision);
        Ok(Applied::Compact { revision })
    }

    fn lease_grant(&mut self, r: &pb::LeaseGrantRequest) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(true)?;
        if r.ttl > MAX_TTL_S {
            return Err(errors::LEASE_TTL_TOO_LARGE.into());
        }
        let granted = self.lessor.grant(self.now_ms, self.index, r.id, r.ttl);
        self.store_lease(granted.ok_or(errors::LEASE_EXIST)?)?;
        self.outcome_flags.leases.granted_ttls_s.push(r.ttl);
        Ok(Applied::LeaseGrant { revision: self.batch.revision(), id: r.id, ttl_s: r.ttl })
    }

    /// A client's revoke. The leader's own, of a lease that ran out, needs no rights.
    fn lease_revoke_asked(&mut self, id: i64) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(false)?;
        if self.auth.enabled() {
            let keys = self.batch.keys_of_lease(id)?;
            needs::write_all(&self.auth.grants(self.by.as_ref()), &keys)?;
        }
        self.lease_revoke(id)
    }

    fn lease_revoke(&mut self, id: i64) -> Result<Applied, Failure> {
        self.cluster.alarms.admit(false)?;
        if !self.lessor.revoke(id) {
            return Err(errors::LEASE_NOT_FOUND.into());
        }
        let mut keys = self.batch.keys_of_lease(id)?;
        keys.sort_unstable();
        if planted("revoke-leaves-a-key") {
            keys.pop();
        }
        self.batch.delete_keys(&keys)?;
        self.batch.small_delete(SmallTree::Lease, &id.to_be_bytes())?;
        self.outcome_flags.leases.revoked += 1;
        Ok(Applied::LeaseRevoke { revision: self.batch.revision() })
    }

    fn lease_checkpoint(&mut self, r: &pb::LeaseCheckpointRequest) -> Result<Applied, Failure> {
        for checkpoint in &r.checkpoints {
            // A lease that ended meanwhile needs none.
            if let Some(lease) = self.lessor.checkpoint(checkpoint.id, checkpoint.remaining_ttl) {
                self.store_lease(lease)?;
            }
        }
        Ok(Applied::Done)
    }

    fn store_lease(&mut self, lease: StoredLease) -> Result<(), Failure> {
        let (key, value) = lease_entry(lease);
        self.batch.small_put(SmallTree::Lease, &key, value)?;
        Ok(())
    }

    fn alarm(&mut self, r: &pb::AlarmRequest) -> Result<Applied, Failure> {
        use pb::alarm_request::AlarmAction;
        let one = || vec![pb::AlarmMember { member_id: r.member_id, alarm: r.alarm }];
        let key = Alarms::key(r.member_id, r.alarm);
        let alarms = match AlarmAction::try_from(r.action) {
            Ok(AlarmAction::Get) => self.cluster.alarms.list(r.alarm),
            Ok(AlarmAction::Activate) if r.alarm == pb::AlarmType::None as i32 => Vec::new(),
            Ok(AlarmAction::Activate) => {
                self.cluster.alarms.set(r.member_id, r.alarm);
                if !planted("alarm-not-stored") {
                    self.batch.small_put(SmallTree::Alarm, &key, Bytes::new())?;
                }
                self.outcome_flags.cluster_changed = true;
                one()
            }
            Ok(AlarmAction::Deactivate) => {
                if self.cluster.alarms.clear(r.member_id, r.alarm) {
                    self.batch.small_delete(SmallTree::Alarm, &key)?;
                    self.outcome_flags.cluster_changed = true;
                    one()
                } else {
                    Vec::new()
                }
            }
            Err(_) => return Err(errors::UNKNOWN_METHOD.into()),
        };
        Ok(Applied::Alarm { revision: self.batch.revision(), alarms })
    }

    fn member_attributes(
        &mut self,
        r: membershippb::ClusterMemberAttrSetRequest,
    ) -> Result<Applied, Failure> {
        let attributes = r.member_attributes.unwrap_or_default();
        if let Some(member) = self.cluster.members.set_attributes(r.member_id, attributes) {
            let value = member.encode_to_vec().into();
            self.batch.small_put(SmallTree::Member, &r.member_id.to_be_bytes(), value)?;
            self.outcome_flags.cluster_changed = true;
        }
        Ok(Applied::Done)
    }

    fn change_auth(&mut self, command: &AuthCommand) -> Result<Applied, Failure> {
        let change = self.auth.apply(self.by.as_ref(), command)?;
        let revision = self.batch.revision();
        if let AuthCommand::Authenticate(r) = command {
            return Ok(Applied::Authenticate { revision, token: self.issue_token(r) });
        }
        let moves_role = matches!(command, AuthCommand::UserGrantRole(_) | AuthCommand::UserRevokeRole(_));
        for write in change.writes {
            self.outcome_flags.auth_changed = true;
            if moves_role && planted("change-of-users-not-stored") {
                continue;
            }
            match write.value {
                Some(value) => self.batch.small_put(SmallTree::Auth, &write.key, value)?,
                None => self.batch.small_delete(SmallTree::Auth, &write.key)?,
            }
        }
        self.auth_cell.end_tokens(&change.tokens);
        Ok(Applied::Auth { revision })
    }

    /// The simple token of this entry; `None` if its proposer makes tokens of another kind.
    fn issue_token(&mut self, r: &pb::InternalAuthenticateRequest) -> Option<String> {
        if r.simple_token.is_empty() {
            return None;
        }
        let token = tokens::name(&r.simple_token, self.index);
        if self.index >= self.token_index_min {
            self.auth_cell.change_tokens(|tokens| tokens.add(&token, &r.name, self.now_ms));
        }
        Some(token)
    }

    /// Applies a change of the membership to the records, or refuses it.
    pub(super) fn conf_change(&mut self, entry: &LogEntry) -> Result<Result<ConfChange, Refusal>, Fatal> {
        let change = ConfChange::decode(&entry.data)
            .map_err(|why| Fatal::Entry { index: entry.index, why: why.to_string() })?;
        if let Err(refusal) = self.cluster.members.check(&change) {
            return Ok(Err(refusal));
        }
        if change.cluster_id != 0 && self.cluster.cluster_id.is_none() {
            self.cluster.cluster_id = Some(ClusterId(change.cluster_id));
            let id = Bytes::copy_from_slice(&change.cluster_id.to_be_bytes());
            self.batch.small_put(SmallTree::Meta, CLUSTER_ID, id)?;
        }
        let record = self.cluster.members.apply(&change).map(Message::encode_to_vec);
        let value = record.map_or(Bytes::from_static(REMOVED), Bytes::from);
        let id = change.member_id.to_be_bytes();
        if change.kind == Kind::Remove && planted("removed-id-forgotten") {
            self.batch.small_delete(SmallTree::Member, &id)?;
        } else {
            self.batch.small_put(SmallTree::Member, &id, value)?;
        }
        self.outcome_flags.cluster_changed = true;
        Ok(Ok(change))
    }
}
