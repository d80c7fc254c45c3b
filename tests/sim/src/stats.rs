// SPDX-License-Identifier: Apache-2.0
//! How much a run did.
//!
//! Owns      the counts, for floors.
//! Never     says whether that is enough: the tests do.

use crate::swarm::Moment;

/// How much was done, for floors.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    pub steps: u64,
    pub entries: u64,
    pub acked: u64,
    pub unknown: u64,
    pub refused: u64,
    pub reads: u64,
    pub events: u64,
    pub resumed: u64,
    pub cut_off: u64,
    pub crashes: u64,
    pub failures: u64,
    pub checkpoints: u64,
    pub compactions: u64,
    pub purges: u64,
    pub expired: u64,
    pub hashes: u64,
    /// Alarms that were switched on, requests that they forbade, requests that the quota refused.
    pub alarms: u64,
    pub forbidden: u64,
    pub over_quota: u64,
    pub defragmentations: u64,
    /// Ranges with an order or a filter, and responses of watchers that came in pieces.
    pub sorted: u64,
    pub fragmented: u64,
    pub elections: u64,
    pub partitions: u64,
    pub delivered: u64,
    pub answered_by_followers: u64,
    pub snapshots: u64,
    pub installs: u64,
    /// Times that entries gave way to those of another leader.
    pub truncations: u64,
    /// Crashes at a chosen state, by [`Moment`].
    pub crashes_at: [u64; Moment::ALL.len()],
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        let Stats {
            steps,
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
            hashes,
            alarms,
            forbidden,
            over_quota,
            defragmentations,
            sorted,
            fragmented,
            elections,
            partitions,
            delivered,
            answered_by_followers,
            snapshots,
            installs,
            truncations,
            crashes_at,
        } = other;
        self.steps += steps;
        self.entries += entries;
        self.acked += acked;
        self.unknown += unknown;
        self.refused += refused;
        self.reads += reads;
        self.events += events;
        self.resumed += resumed;
        self.cut_off += cut_off;
        self.crashes += crashes;
        self.failures += failures;
        self.checkpoints += checkpoints;
        self.compactions += compactions;
        self.purges += purges;
        self.expired += expired;
        self.hashes += hashes;
        self.alarms += alarms;
        self.forbidden += forbidden;
        self.over_quota += over_quota;
        self.defragmentations += defragmentations;
        self.sorted += sorted;
        self.fragmented += fragmented;
        self.elections += elections;
        self.partitions += partitions;
        self.delivered += delivered;
        self.answered_by_followers += answered_by_followers;
        self.snapshots += snapshots;
        self.installs += installs;
        self.truncations += truncations;
        for (sum, one) in self.crashes_at.iter_mut().zip(crashes_at) {
            *sum += one;
        }
    }
}
