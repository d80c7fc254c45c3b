// SPDX-License-Identifier: Apache-2.0
//! The version of the cluster, its downgrade, and the store's readiness for it.
//!
//! Owns      when a leader looks at the versions of all members (VE-2, VE-8), and what operators ask of a downgrade.
//! Holds     1. a version is told as the store's own only once a restart by a build of that version finds nothing that
//!              it does not know (VE-4, VE-6);
//!           2. a member that did not tell its version holds the cluster's where it is.
//! Never     decides by itself: `cairn_core::version` does, and what is applied is judged again.

use super::{
    Member, Refusal,
    config::Level,
    peers::{
        hashes::others,
        versions::{Told, ask_all},
    },
    shared::{CheckpointMessage, Shared},
};
use cairn_core::{Command, Version, state::ClusterView, version::decide};
use cairn_proto::{errors, etcdserverpb as pb, membershippb};
use pb::downgrade_request::DowngradeAction;
use std::{
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Interval, MissedTickBehavior, interval},
};

/// How often a leader looks at the members' versions (VE-2).
const LOOK: Duration = Duration::from_secs(4);
/// A member has this long to tell its version.
const PATIENCE: Duration = Duration::from_secs(1);
/// Stores of earlier versions do not say which one they are of (VE-4).
const TOLD_SINCE: Version = Version::new(3, 6);

/// What a member knows of versions beside what is applied.
#[derive(Default)]
pub(super) struct Versions {
    storage: Mutex<Option<Version>>,
    /// The cluster's version or its downgrade changed.
    changed: Notify,
}

impl Versions {
    /// The version that the store is ready for.
    pub fn storage(&self) -> Option<Version> {
        *self.storage.lock().expect("nothing fails under this lock")
    }

    fn set_storage(&self, version: Version) {
        *self.storage.lock().expect("nothing fails under this lock") = Some(version);
    }
}

impl Shared {
    /// Follows what was applied of versions. Going up needs nothing of the store.
    pub(super) fn note_version(&self, before: &ClusterView, now: &ClusterView) {
        #[cfg(feature = "next")]
        if before.next_number != now.next_number {
            let fields = [("number", now.next_number.to_string())];
            self.log(Level::Info, "applied a request of the next version", &fields);
        }
        if (before.version, before.downgrade) == (now.version, now.downgrade) {
            return;
        }
        if let Some(version) = now.version.filter(|version| before.version != Some(*version)) {
            let mut fields = vec![
                ("cluster-id", self.cluster_id.to_string()),
                ("local-member-id", self.member_id.to_string()),
            ];
            if let Some(from) = before.version {
                fields.extend([("from", from.short()), ("to", version.short())]);
                self.log(Level::Info, "updated cluster version", &fields);
            } else {
                fields.push(("cluster-version", version.short()));
                self.log(Level::Info, "set initial cluster version", &fields);
            }
            if version >= TOLD_SINCE && self.versions.storage().is_none_or(|storage| storage < version) {
                self.versions.set_storage(version);
            }
        }
        self.versions.changed.notify_one();
    }
}

impl Member {
    /// Whether the cluster is on its way down to a lower version.
    pub fn is_downgraded(&self) -> bool {
        self.shared.cluster().downgrade.is_some()
    }

    /// VE-5, VE-6, VE-7.
    ///
    /// # Errors
    /// If the version is none, or not the one below the cluster's, or a downgrade is under way.
    pub async fn downgrade(&self, r: pb::DowngradeRequest) -> Result<pb::DowngradeResponse, Refusal> {
        let action = DowngradeAction::try_from(r.action).map_err(|_| errors::UNKNOWN_METHOD)?;
        match action {
            DowngradeAction::Validate => self.admit_downgrade(&r.version).await.map(drop)?,
            DowngradeAction::Enable => {
                let target = self.admit_downgrade(&r.version).await.inspect_err(|refusal| {
                    let fields = [("error", refusal.text.to_owned())];
                    self.shared.log(Level::Warn, "reject downgrade request", &fields);
                })?;
                self.set_downgrade(Some(target)).await?;
            }
            DowngradeAction::Cancel => {
                // What is under way is judged in the order of the log.
                if let Err(refusal) = self.set_downgrade(None).await {
                    let fields = [("error", refusal.text.to_owned())];
                    self.shared.log(Level::Error, "failed to cancel downgrade", &fields);
                }
            }
        }
        let version = self.shared.cluster().version.map(Version::short).unwrap_or_default();
        Ok(pb::DowngradeResponse { header: Some(self.header()), version })
    }

    async fn admit_downgrade(&self, text: &str) -> Result<Version, Refusal> {
        let target = Version::parse(text).ok_or(errors::WRONG_DOWNGRADE_VERSION_FORMAT)?;
        if self.shared.cluster().version.is_none() {
            return Err(errors::CLUSTER_VERSION_UNAVAILABLE);
        }
        self.linearize().await?;
        self.shared.cluster().admits_downgrade(target)?;
        Ok(target)
    }

    async fn set_downgrade(&self, target: Option<Version>) -> Result<(), Refusal> {
        let ver = target.map(|target| target.to_string()).unwrap_or_default();
        let set = membershippb::DowngradeInfoSetRequest { enabled: target.is_some(), ver };
        self.propose_by(Command::Downgrade(set), None).await.map(drop)
    }

    /// Looks after versions until the caller lets go of it.
    pub async fn watch_versions(self) {
        tokio::join!(self.keep_version(), self.end_downgrades());
    }

    async fn keep_version(&self) {
        let shared = &self.shared;
        let mut due = every(LOOK);
        let mut led = shared.ready.subscribe();
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = shared.versions.changed.notified() => {}
                // The sender is this member's own.
                _ = led.changed() => {}
                _ = shared.wait_ended() => return,
            }
            let leads = *led.borrow_and_update();
            self.follow_down().await;
            if leads {
                self.decide_version().await;
                #[cfg(feature = "next")]
                self.use_next().await;
            }
        }
    }

    /// Uses what came with the next version, once the cluster is of it.
    #[cfg(feature = "next")]
    async fn use_next(&self) {
        let cluster = self.shared.cluster();
        if cluster.version.is_some_and(|version| version >= cairn_core::next::SINCE) {
            let number = cluster.next_number + 1;
            // It is used again after a while.
            self.propose_by(Command::Next { number }, None).await.ok();
        }
    }

    /// Has what an older build might not know folded into the store, once the cluster has gone down (VE-6).
    async fn follow_down(&self) {
        let shared = &self.shared;
        let (Some(storage), Some(version)) = (shared.versions.storage(), shared.cluster().version) else {
            return;
        };
        if version >= storage {
            return;
        }
        let (to, done) = oneshot::channel();
        if shared.checkpointer.push(CheckpointMessage::CheckpointForGood(to)).is_ok() && done.await.is_ok() {
            shared.versions.set_storage(version);
            let fields = [("cluster-version", version.short())];
            shared.log(Level::Info, "The server is ready to downgrade", &fields);
        }
    }

    /// Has the version of the cluster set, if it is to be another.
    pub(super) async fn decide_version(&self) {
        let cluster = self.shared.cluster();
        let told = self.versions_of_all().await;
        let least = told.iter().copied().min().flatten();
        let Some(version) = decide(cluster.version, cluster.downgrade, least) else { return };
        let set = membershippb::ClusterVersionSetRequest { ver: version.to_string() };
        // Another leader may have decided meanwhile.
        if let Err(refusal) = self.propose_by(Command::ClusterVersion(set), None).await {
            let fields = [("version", version.short()), ("error", refusal.text.to_owned())];
            self.shared.log(Level::Warn, "failed to update cluster version", &fields);
        }
    }

    /// The version of each member's build, this one's first; `None` of those that did not tell.
    async fn versions_of_all(&self) -> Vec<Option<Version>> {
        let shared = &self.shared;
        let peers = others(&shared.cluster(), shared.member_id.0);
        let told = ask_all(&shared.config.reach, &peers, PATIENCE).await;
        let of = |(id, told): (u64, Option<Told>)| {
            if told.is_none() {
                let fields = [("remote-member-id", format!("{id:x}"))];
                shared.log(Level::Debug, "failed to get version", &fields);
            }
            told.map(|told| told.server)
        };
        std::iter::once(Some(Version::OWN)).chain(told.into_iter().map(of)).collect()
    }

    /// VE-8.
    async fn end_downgrades(&self) {
        let Some(period) = self.shared.config.downgrade_check else { return };
        let mut due = every(period);
        loop {
            due.tick().await;
            let Some(target) = self.shared.cluster().downgrade else { continue };
            if !self.shared.raft.leads.load(Ordering::Acquire) {
                continue;
            }
            if self.versions_of_all().await.iter().all(|version| *version == Some(target)) {
                let fields = [("cluster-version", target.short())];
                self.shared.log(Level::Info, "the cluster has been downgraded", &fields);
                if let Err(refusal) = self.set_downgrade(None).await {
                    let fields = [("error", refusal.text.to_owned())];
                    self.shared.log(Level::Warn, "failed to cancel downgrade", &fields);
                }
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
