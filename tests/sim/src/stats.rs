// SPDX-License-Identifier: Apache-2.0
//! How much a run did.
//!
//! Owns      the counts, for floors.
//! Never     says whether that is enough: the tests do.

use crate::swarm::Moment;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How much was done, for floors.
        #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Crashes at a chosen state, by [`Moment`].
            pub crashes_at: [u64; Moment::ALL.len()],
            /// How late a lease ended at most, of those that were timed.
            pub lease_late_ms: u64,
        }

        impl Stats {
            pub fn add(&mut self, other: &Stats) {
                $(self.$name += other.$name;)*
                self.lease_late_ms = self.lease_late_ms.max(other.lease_late_ms);
                for (sum, one) in self.crashes_at.iter_mut().zip(other.crashes_at) {
                    *sum += one;
                }
            }
        }
    };
}

counts! {
    steps,
    /// Time that passed for the members.
    simulated_ms,
    /// Seeds that were run again, and the same came of it.
    repeated,
    entries,
    acked,
    unknown,
    refused,
    reads,
    events,
    resumed,
    cut_off,
    crashes,
    failures,
    checkpoints,
    compactions,
    purges,
    expired,
    /// Leases that ended in the quiet, with their time taken.
    leases_timed,
    hashes,
    /// Leases that were revoked and granted anew while their end was under way.
    leases_anew,
    /// Changes of users and logins that were made, requests that rights forbade, and looks at what a member holds of
    /// users while authentication is on.
    users_changed,
    without_rights,
    users_held,
    /// Alarms that were switched on, requests that they forbade, requests that the quota refused.
    alarms,
    forbidden,
    over_quota,
    defragmentations,
    /// Ranges with an order or a filter, and responses of watchers that came in pieces.
    sorted,
    fragmented,
    elections,
    partitions,
    pauses,
    delivered,
    answered_by_followers,
    snapshots,
    /// Snapshots that came when their receiver was further on.
    snapshots_late,
    installs,
    /// Installs in which a call of the disk failed.
    installs_cut,
    /// Times that entries gave way to those of another leader.
    truncations,
    /// Entries of logs that were held against those of other members.
    matched,
    /// Members that joined, became voters, were removed, lost their disks; changes that were refused.
    joined,
    promoted,
    removed,
    lost,
    changes_refused,
    /// Stores that rotted; those of which no read of the newest checkpoint met that; those that were found damaged,
    /// and those that a peer's took the place of.
    rotted,
    rot_unmet,
    rot_found,
    repaired,
    /// Logs in which bytes changed, by where that was; those that were of no more use there; members that did not start
    /// over theirs, and those in whose place another one votes at the end.
    logs_rotted,
    logs_rotted_sealed,
    logs_rotted_newest,
    logs_rotted_last,
    logs_unharmed,
    logs_lost,
    logs_replaced,
}
