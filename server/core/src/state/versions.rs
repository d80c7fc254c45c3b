// SPDX-License-Identifier: Apache-2.0
//! What requests do to the version of the cluster.
//!
//! Owns      the version that is agreed on, and the downgrade that is under way.
//! Holds     1. a version that was decided for another state than the one it meets changes nothing: it goes up while no
//!              downgrade is under way, and down to where that leads;
//!           2. a member that is older than the cluster ends before it applies more (VE-3).
//! Never     decides which version it is to be: the leader did, from what members told.

use super::{
    Applied, CLUSTER_VERSION, DOWNGRADE, Fatal,
    applying::{Applying, Failure},
};
use crate::version::Version;
use bytes::Bytes;
use cairn_mvcc::SmallTree;
use cairn_proto::{errors, membershippb};

/// A version of what the tree of single values holds.
///
/// # Errors
/// [`Fatal::Stored`].
pub(super) fn stored(what: &'static str, value: &[u8]) -> Result<Version, Fatal> {
    let text = String::from_utf8_lossy(value);
    Version::parse(&text).ok_or_else(|| Fatal::Stored { what, why: format!("{text:?} is no version") })
}

/// # Errors
/// [`Fatal::NewerCluster`], if this member is older than the cluster.
pub(super) fn check(cluster: Option<Version>) -> Result<(), Fatal> {
    match cluster {
        Some(cluster) if cluster > Version::OWN => Err(Fatal::NewerCluster { cluster }),
        _ => Ok(()),
    }
}

impl Applying<'_, '_> {
    pub(super) fn cluster_version(
        &mut self,
        r: &membershippb::ClusterVersionSetRequest,
    ) -> Result<Applied, Failure> {
        let wanted = Version::parse(&r.ver).ok_or(errors::WRONG_DOWNGRADE_VERSION_FORMAT)?;
        if self.cluster.version == Some(wanted) {
            return Ok(Applied::Done);
        }
        let fits = match (self.cluster.version, self.cluster.downgrade) {
            (None, _) => true,
            (Some(now), None) => wanted > now,
            (Some(now), Some(target)) => wanted == target && now.below() == Some(target),
        };
        if !fits {
            return Err(errors::INVALID_DOWNGRADE_TARGET_VERSION.into());
        }
        check(Some(wanted)).map_err(Failure::Fatal)?;
        self.batch.small_put(SmallTree::Meta, CLUSTER_VERSION, Bytes::from(wanted.to_string()))?;
        self.cluster.version = Some(wanted);
        self.outcome_flags.cluster_changed = true;
        Ok(Applied::Done)
    }

    /// Judged here too: two that were asked for at once must not both begin.
    pub(super) fn downgrade(
        &mut self,
        r: &membershippb::DowngradeInfoSetRequest,
    ) -> Result<Applied, Failure> {
        if r.enabled {
            let target = Version::parse(&r.ver).ok_or(errors::WRONG_DOWNGRADE_VERSION_FORMAT)?;
            self.cluster.admits_downgrade(target)?;
            self.batch.small_put(SmallTree::Meta, DOWNGRADE, Bytes::from(target.to_string()))?;
            self.cluster.downgrade = Some(target);
        } else {
            self.cluster.downgrade.take().ok_or(errors::NO_INFLIGHT_DOWNGRADE)?;
            self.batch.small_delete(SmallTree::Meta, DOWNGRADE)?;
        }
        self.outcome_flags.cluster_changed = true;
        Ok(Applied::Done)
    }

    /// Who knows the request refuses it as long as the cluster is not of its version, and no cluster of that version
    /// has a member that does not know it: so all members pass over the same.
    pub(super) fn later(&mut self, since: Version) -> Result<Applied, Failure> {
        if self.cluster.version.is_some_and(|version| version >= since) {
            let why = format!("a request that members of version {} know", since.short());
            return Err(Failure::Fatal(Fatal::Entry { index: self.index, why }));
        }
        Err(errors::NOT_CAPABLE.into())
    }
}

#[cfg(feature = "next")]
pub(super) const NEXT_NUMBER: &[u8] = b"next_number";

#[cfg(feature = "next")]
pub(super) fn stored_number(value: &[u8]) -> Result<u64, Fatal> {
    let text = String::from_utf8_lossy(value);
    text.parse().map_err(|_| Fatal::Stored { what: "number", why: format!("{text:?} is none") })
}

#[cfg(feature = "next")]
impl Applying<'_, '_> {
    pub(super) fn next(&mut self, number: u64) -> Result<Applied, Failure> {
        if self.cluster.version.is_none_or(|version| version < crate::next::SINCE) {
            return Err(errors::NOT_CAPABLE.into());
        }
        self.batch.small_put(SmallTree::Meta, NEXT_NUMBER, Bytes::from(number.to_string()))?;
        self.cluster.next_number = number;
        self.outcome_flags.cluster_changed = true;
        Ok(Applied::Done)
    }
}

impl super::ClusterView {
    /// VE-5: whether a downgrade to this version may begin.
    ///
    /// # Errors
    /// The refusal, in etcd's order.
    pub fn admits_downgrade(&self, target: Version) -> Result<(), crate::Refusal> {
        let version = self.version.ok_or(errors::CLUSTER_VERSION_UNAVAILABLE)?;
        if version.below() != Some(target) {
            return Err(errors::INVALID_DOWNGRADE_TARGET_VERSION);
        }
        if self.downgrade.is_some() {
            return Err(errors::DOWNGRADE_IN_PROCESS);
        }
        Ok(())
    }
}
