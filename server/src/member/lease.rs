// SPDX-License-Identifier: Apache-2.0
//! Leases, as clients use them.
//!
//! Owns      the way of a Lease request through the member.
//! Holds     a lease that has run out is answered for only after its end was applied (LEASE-13).
//! Never     keeps a time: the lessor does.

use super::{Member, Refusal};
use crate::failpoints::pass;
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::needs,
    door,
    lessor::{KeepAlive, TimeLeft},
    state::Applied,
};
use cairn_proto::{errors, etcdserverpb as pb};
use std::time::Duration;

/// Until a leader is asked again.
const RETRY: Duration = Duration::from_millis(50);

impl Member {
    pub async fn lease_grant(&self, mut r: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Refusal> {
        self.check_quota(door::lease_grant_cost()).await?;
        self.check_known().await?;
        if r.id == 0 {
            r.id = self.shared.ids.draw_lease();
        }
        // One that is too large goes as it is: it is refused after the alarms, when it is applied.
        r.ttl = self.shared.lessor().effective_ttl_s(r.ttl).unwrap_or(r.ttl);
        match self.propose(Command::LeaseGrant(r)).await? {
            Applied::LeaseGrant { revision, id, ttl_s } => Ok(pb::LeaseGrantResponse {
                header: Some(self.header_at(revision)),
                id,
                ttl: ttl_s,
                error: String::new(),
            }),
            other => unreachable!("a grant came to {other:?}"),
        }
    }

    pub async fn lease_revoke(&self, r: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Refusal> {
        self.check_known().await?;
        match self.propose(Command::LeaseRevoke(r)).await? {
            Applied::LeaseRevoke { revision } => {
                Ok(pb::LeaseRevokeResponse { header: Some(self.header_at(revision)) })
            }
            other => unreachable!("a revoke came to {other:?}"),
        }
    }

    /// Renews one lease. The header is taken before the renewal (HDR-6); an unknown lease has TTL 0.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Refusal> {
        let header = self.header();
        self.check_attached(id).await?;
        let patience = Duration::from_millis(self.shared.config.request_timeout_ms());
        let ttl = tokio::select! {
            ttl = tokio::time::timeout(patience, self.renew(id)) => ttl.unwrap_or(Err(errors::TIMEOUT))?,
            _ = self.shared.wait_ended() => return Err(errors::STOPPED),
        };
        Ok(pb::LeaseKeepAliveResponse { header: Some(header), id, ttl })
    }

    /// AUTH-7: who keeps a lease keeps its keys.
    async fn check_attached(&self, id: i64) -> Result<(), Refusal> {
        let Some(standing) = self.standing().await? else { return Ok(()) };
        self.check_known().await?;
        let keys = self.read(true, move |reader| reader.keys_of_lease(id)).await?;
        needs::write_all(&standing.grants(), &keys)
    }

    async fn renew(&self, id: i64) -> Result<i64, Refusal> {
        loop {
            if self.leads() || !self.has_peers() {
                match self.renew_here(id).await {
                    // Another may lead by now.
                    Err(errors::NOT_PRIMARY) if self.has_peers() => tokio::time::sleep(RETRY).await,
                    result => return result,
                }
            } else if let Some(ttl) = self.renew_at_leader(id).await {
                return Ok(ttl);
            }
        }
    }

    /// Renews a lease on the leader: the TTL, or 0 if there is no such lease.
    pub(super) async fn renew_here(&self, id: i64) -> Result<i64, Refusal> {
        loop {
            if self.leads() {
                // A deposed leader that does not know it yet must not promise anything (R18).
                self.linearize().await?;
            }
            pass!("beforeCheckpointInLeaseRenew");
            let revoked = self.shared.revoked.notified();
            tokio::pin!(revoked);
            revoked.as_mut().enable();
            let now_ms = self.shared.now_ms();
            let kept = self.shared.lessor().keep_alive(now_ms, id);
            match kept {
                KeepAlive::Renewed { ttl_s } => {
                    self.shared.observer.lease_renewed();
                    return Ok(ttl_s);
                }
                KeepAlive::NotFound => return Ok(0),
                KeepAlive::NotPrimary => return Err(errors::NOT_PRIMARY),
                KeepAlive::Expiring => revoked.await,
                KeepAlive::ClearCheckpoint => {
                    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl: 0 }];
                    let clear = pb::LeaseCheckpointRequest { checkpoints };
                    self.propose_by(Command::LeaseCheckpoint(clear), None).await?;
                }
            }
        }
    }

    pub async fn lease_time_to_live(
        &self,
        r: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        self.check_known().await?;
        self.linearize().await?;
        if self.leads() || !self.has_peers() {
            pass!("beforeLookupWhenLeaseTimeToLive");
            return self.time_to_live_here(r).await;
        }
        let patience = Duration::from_millis(self.shared.config.request_timeout_ms());
        let asking = async {
            loop {
                if let Some(answer) = self.time_left_at_leader(r).await {
                    return answer;
                }
            }
        };
        let answer = tokio::time::timeout(patience, asking).await.map_err(|_| errors::TIMEOUT)?;
        let none = || pb::LeaseTimeToLiveResponse { id: r.id, ttl: -1, ..Default::default() };
        let answer = answer.unwrap_or_else(none);
        // The leader does not know who asks.
        if let Some(standing) = self.standing().await? {
            needs::read_all(&standing.grants(), &answer.keys)?;
        }
        Ok(pb::LeaseTimeToLiveResponse { header: Some(self.header()), ..answer })
    }

    /// What is left of a lease, as the leader knows it.
    pub(super) async fn time_to_live_here(
        &self,
        r: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        let left = self.shared.lessor().time_left(self.shared.now_ms(), r.id);
        let mut response =
            pb::LeaseTimeToLiveResponse { header: Some(self.header()), id: r.id, ..Default::default() };
        match left {
            None => response.ttl = -1,
            Some(TimeLeft { ttl_s, granted_ttl_s }) => {
                response.ttl = ttl_s;
                response.granted_ttl = granted_ttl_s;
                if r.keys {
                    response.keys = self.attached_keys(r.id).await?;
                }
            }
        }
        Ok(response)
    }

    /// The keys on a lease, of whom each may be read (AUTH-8).
    async fn attached_keys(&self, id: i64) -> Result<Vec<Bytes>, Refusal> {
        let standing = self.standing().await?;
        let keys = self.read(true, move |reader| reader.keys_of_lease(id)).await?;
        if let Some(standing) = standing {
            needs::read_all(&standing.grants(), &keys)?;
            // Rights that ended since are not good for what was read since.
            let auth = self.shared.auth.auth();
            needs::read_all(&standing.grants_in(&auth), &keys)?;
        }
        Ok(keys)
    }

    pub async fn leases(&self) -> Result<pb::LeaseLeasesResponse, Refusal> {
        let ids = self.shared.lessor().ids();
        if self.standing().await?.is_some() {
            for id in &ids {
                self.attached_keys(*id).await?;
            }
        }
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(self.header()), leases })
    }
}
