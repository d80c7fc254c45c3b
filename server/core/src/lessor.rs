// SPDX-License-Identifier: Apache-2.0
//! The lessor: which leases exist, and, on the leader, when each of them ends.
//!
//! Owns      the leases and their deadlines. Which keys hang on a lease is the store's to know.
//! Holds     1. deadlines exist on the leader alone (LEASE-5), and a lease that is past its deadline
//!              never gets a new one by a keep-alive (LEASE-13);
//!           2. a change of leader never makes a lease end earlier (LEASE-8);
//!           3. what `grant`, `revoke` and `checkpoint` change is the same on every member, whatever the
//!              clock says: the clock moves deadlines only.
//! Never     proposes: it says which leases have expired, and the member proposes to revoke them.

use crate::mutants::planted;
use std::collections::{BTreeMap, BTreeSet};

/// The longest TTL that can be asked for (LEASE-3).
pub const MAX_TTL_S: i64 = 9_000_000_000;
/// How often the leader looks for expired leases (LEASE-6).
pub const SCAN_INTERVAL_MS: u64 = 500;
/// Leases that one scan gives up at most (LEASE-6).
pub const REVOKES_PER_SCAN: usize = 500;
/// Leases that may end in one second after a change of leader (LEASE-9).
const EXPIRIES_PER_SECOND: usize = 750;
/// A lease with no more than this left is not checkpointed, and this is the time between two (LEASE-26).
const CHECKPOINT_INTERVAL_MS: u64 = 300_000;
/// Leases in one checkpoint entry (LEASE-26).
pub const CHECKPOINTS_PER_ENTRY: usize = 1000;

/// A lease as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredLease {
    pub id: i64,
    pub ttl_s: i64,
    /// What was left at the last checkpoint; 0 if there is none.
    pub remaining_s: i64,
    /// The entry that granted it. The end of a lease names it, so that it can never hit a later lease that
    /// was given the same id meanwhile.
    pub granted_index: u64,
}

/// What a keep-alive came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAlive {
    Renewed {
        ttl_s: i64,
    },
    NotFound,
    /// Past its deadline and not yet revoked: ask again once a revoke was applied (LEASE-13).
    Expiring,
    /// A checkpoint is to be cleared through consensus first (LEASE-27); then ask again.
    ClearCheckpoint,
    /// This member is not the leader, or is not sure of it (LEASE-25).
    NotPrimary,
}

/// What is left of a lease (LEASE-19).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeLeft {
    pub ttl_s: i64,
    pub granted_ttl_s: i64,
}

#[derive(Debug)]
struct Lease {
    ttl_s: i64,
    remaining_s: i64,
    granted_index: u64,
    /// Grants and renewals are numbered, so that leases that end together are listed in that order.
    order: u64,
    deadline_ms: Option<u64>,
    checkpoint_ms: Option<u64>,
    /// A revoke is on its way until then.
    revoking_until_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Lessor {
    min_ttl_s: i64,
    checkpoints: bool,
    primary: bool,
    orders: u64,
    leases: BTreeMap<i64, Lease>,
    by_deadline: BTreeSet<(u64, u64, i64)>,
    by_checkpoint: BTreeSet<(u64, i64)>,
}

/// The shortest TTL: one and a half election timeouts, in whole seconds (LEASE-4).
pub fn min_ttl_s(heartbeat_ms: u64, election_ms: u64) -> i64 {
    let ticks = election_ms / heartbeat_ms.max(1);
    let ms = (3 * ticks / 2) * heartbeat_ms;
    i64::try_from(ms.div_ceil(1000)).unwrap_or(MAX_TTL_S)
}

fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

impl Lessor {
    pub fn new(min_ttl_s: i64, checkpoints: bool) -> Lessor {
        Lessor {
            min_ttl_s,
            checkpoints,
            primary: false,
            orders: 0,
            leases: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            by_checkpoint: BTreeSet::new(),
        }
    }

    /// The TTL that a grant will get, or `None` if it is too large (LEASE-3, LEASE-4). The proposer asks,
    /// so that every member stores the same one.
    pub fn effective_ttl_s(&self, asked_s: i64) -> Option<i64> {
        (asked_s <= MAX_TTL_S).then(|| asked_s.max(self.min_ttl_s))
    }

    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// Takes back what was stored, at open: TTLs below the minimum are raised (LEASE-10).
    pub fn restore(&mut self, stored: StoredLease) {
        self.insert(StoredLease { ttl_s: stored.ttl_s.max(self.min_ttl_s), ..stored });
    }

    /// Adds a lease, granted by the entry `index`, and says what is to be stored; `None` if the id is taken
    /// (LEASE-2).
    pub fn grant(&mut self, now_ms: u64, index: u64, id: i64, ttl_s: i64) -> Option<StoredLease> {
        if self.leases.contains_key(&id) {
            return None;
        }
        let lease = StoredLease { id, ttl_s, remaining_s: 0, granted_index: index };
        self.insert(lease);
        if self.primary {
            self.set_deadline(id, now_ms.saturating_add(ms(ttl_s)));
            self.schedule_checkpoint(now_ms, id);
        }
        Some(lease)
    }

    /// Whether the lease is the one that this entry granted.
    pub fn is_granted_by(&self, id: i64, index: u64) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.granted_index == index)
    }

    /// Removes a lease; false if it is unknown (LEASE-16).
    pub fn revoke(&mut self, id: i64) -> bool {
        self.clear_times(id);
        self.leases.remove(&id).is_some()
    }

    /// Sets what is left according to a checkpoint entry, and says what is to be stored (LEASE-27).
    pub fn checkpoint(&mut self, id: i64, remaining_s: i64) -> Option<StoredLease> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining_s = remaining_s;
        Some(StoredLease { id, ttl_s: lease.ttl_s, remaining_s, granted_index: lease.granted_index })
    }

    /// Renews a lease to its whole TTL (LEASE-11).
    pub fn keep_alive(&mut self, now_ms: u64, id: i64) -> KeepAlive {
        if !self.primary {
            return KeepAlive::NotPrimary;
        }
        let Some(lease) = self.leases.get(&id) else {
            if planted("ended-lease-kept-alive") {
                return KeepAlive::Renewed { ttl_s: self.min_ttl_s };
            }
            return KeepAlive::NotFound;
        };
        if lease.deadline_ms.is_some_and(|d| d <= now_ms) {
            return KeepAlive::Expiring;
        }
        if lease.remaining_s > 0 {
            return KeepAlive::ClearCheckpoint;
        }
        let ttl_s = lease.ttl_s;
        self.set_deadline(id, now_ms.saturating_add(ms(ttl_s)));
        self.schedule_checkpoint(now_ms, id);
        KeepAlive::Renewed { ttl_s }
    }

    /// What is left of a lease, in whole seconds rounded down; `None` if it is unknown (LEASE-20).
    pub fn time_left(&self, now_ms: u64, id: i64) -> Option<TimeLeft> {
        let lease = self.leases.get(&id)?;
        let left_ms = lease.deadline_ms.map_or(0, |d| d.saturating_sub(now_ms));
        let ttl_s = i64::try_from(left_ms / 1000).unwrap_or(i64::MAX);
        Some(TimeLeft { ttl_s, granted_ttl_s: lease.ttl_s })
    }

    /// All ids: on the leader the soonest end first, equal ones in the order of their grants and renewals (LEASE-24).
    pub fn ids(&self) -> Vec<i64> {
        if self.primary {
            self.by_deadline.iter().map(|&(_, _, id)| id).collect()
        } else {
            self.leases.keys().copied().collect()
        }
    }

    /// This member leads now: every lease gets its remaining time and `extend_ms` on top (LEASE-8), and
    /// no more than a few hundred end within one second (LEASE-9).
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.primary = true;
        let mut ends: Vec<(u64, u64, i64)> = self
            .leases
            .iter()
            .map(|(&id, lease)| {
                if planted("lease-not-extended-by-a-new-leader") {
                    return (now_ms.saturating_add(extend_ms), lease.order, id);
                }
                let left_s = if lease.remaining_s > 0 { lease.remaining_s } else { lease.ttl_s };
                (now_ms.saturating_add(extend_ms).saturating_add(ms(left_s)), lease.order, id)
            })
            .collect();
        ends.sort_unstable();
        for i in EXPIRIES_PER_SECOND..ends.len() {
            ends[i].0 = ends[i].0.max(ends[i - EXPIRIES_PER_SECOND].0.saturating_add(1000));
        }
        for (deadline_ms, _, id) in ends {
            self.set_deadline(id, deadline_ms);
            self.schedule_checkpoint(now_ms, id);
            self.leases.get_mut(&id).expect("listed above").revoking_until_ms = 0;
        }
    }

    /// This member leads no more: it keeps the leases and forgets their ends.
    pub fn demote(&mut self) {
        if planted("deposed-leader-ends-leases") {
            return;
        }
        self.primary = false;
        self.by_deadline.clear();
        self.by_checkpoint.clear();
        for lease in self.leases.values_mut() {
            lease.deadline_ms = None;
            lease.checkpoint_ms = None;
        }
    }

    /// Leases past their deadline with the entries that granted them, at most [`REVOKES_PER_SCAN`], for which
    /// no revoke is on its way. One that is still there after `retry_ms` is named again (LEASE-6).
    pub fn expired(&mut self, now_ms: u64, retry_ms: u64) -> Vec<(i64, u64)> {
        let mut ids = Vec::new();
        for &(deadline_ms, _, id) in &self.by_deadline {
            if deadline_ms > now_ms || ids.len() == REVOKES_PER_SCAN {
                break;
            }
            let lease = self.leases.get_mut(&id).expect("every deadline has its lease");
            if lease.revoking_until_ms <= now_ms {
                lease.revoking_until_ms = now_ms + retry_ms;
                ids.push((id, lease.granted_index));
            }
        }
        ids
    }

    /// Remaining times that are due to be recorded, rounded up, at most `max` (LEASE-26).
    pub fn checkpoints_due(&mut self, now_ms: u64, max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        while due.len() < max {
            let Some(&(when_ms, id)) = self.by_checkpoint.first() else { break };
            if when_ms > now_ms {
                break;
            }
            let lease = self.leases.get(&id).expect("every checkpoint has its lease");
            let left_ms = lease.deadline_ms.map_or(0, |d| d.saturating_sub(now_ms));
            let remaining_s = i64::try_from(left_ms.div_ceil(1000)).unwrap_or(i64::MAX);
            if left_ms > 0 && remaining_s < lease.ttl_s {
                due.push((id, remaining_s));
            }
            self.schedule_checkpoint(now_ms, id);
        }
        due
    }

    fn insert(&mut self, stored: StoredLease) {
        let lease = Lease {
            ttl_s: stored.ttl_s,
            remaining_s: stored.remaining_s,
            granted_index: stored.granted_index,
            order: self.next_order(),
            deadline_ms: None,
            checkpoint_ms: None,
            revoking_until_ms: 0,
        };
        self.leases.insert(stored.id, lease);
    }

    fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    fn set_deadline(&mut self, id: i64, deadline_ms: u64) {
        let order = self.next_order();
        let lease = self.leases.get_mut(&id).expect("the caller found it");
        if let Some(old) = lease.deadline_ms.replace(deadline_ms) {
            self.by_deadline.remove(&(old, lease.order, id));
        }
        lease.order = order;
        self.by_deadline.insert((deadline_ms, order, id));
    }

    fn schedule_checkpoint(&mut self, now_ms: u64, id: i64) {
        let lease = self.leases.get_mut(&id).expect("the caller found it");
        if let Some(old) = lease.checkpoint_ms.take() {
            self.by_checkpoint.remove(&(old, id));
        }
        let left_ms = lease.deadline_ms.map_or(0, |d| d.saturating_sub(now_ms));
        if self.checkpoints && left_ms > CHECKPOINT_INTERVAL_MS {
            let when_ms = now_ms + CHECKPOINT_INTERVAL_MS;
            lease.checkpoint_ms = Some(when_ms);
            self.by_checkpoint.insert((when_ms, id));
        }
    }

    fn clear_times(&mut self, id: i64) {
        let Some(lease) = self.leases.get(&id) else { return };
        if let Some(deadline_ms) = lease.deadline_ms {
            self.by_deadline.remove(&(deadline_ms, lease.order, id));
        }
        if let Some(when_ms) = lease.checkpoint_ms {
            self.by_checkpoint.remove(&(when_ms, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading() -> Lessor {
        let mut lessor = Lessor::new(2, true);
        lessor.promote(0, 0);
        lessor
    }

    fn grant(lessor: &mut Lessor, now_ms: u64, id: i64, ttl_s: i64) -> bool {
        lessor.grant(now_ms, 9, id, ttl_s).is_some()
    }

    fn expired(lessor: &mut Lessor, now_ms: u64, retry_ms: u64) -> Vec<i64> {
        lessor.expired(now_ms, retry_ms).into_iter().map(|(id, _)| id).collect()
    }

    // rule: LEASE-4
    #[test]
    fn the_shortest_ttl_follows_the_election_timeout() {
        assert_eq!(min_ttl_s(100, 1000), 2);
        assert_eq!(min_ttl_s(500, 5000), 8);
        assert_eq!(min_ttl_s(100, 1050), 2, "ticks are whole");
        assert_eq!(min_ttl_s(1, 10), 1);
    }

    // rule: LEASE-3, LEASE-4
    #[test]
    fn a_ttl_is_raised_to_the_minimum_and_refused_above_the_maximum() {
        let lessor = leading();
        for (asked, effective) in [(-5, Some(2)), (0, Some(2)), (1, Some(2)), (3, Some(3))] {
            assert_eq!(lessor.effective_ttl_s(asked), effective, "asked {asked}");
        }
        assert_eq!(lessor.effective_ttl_s(MAX_TTL_S), Some(MAX_TTL_S));
        assert_eq!(lessor.effective_ttl_s(MAX_TTL_S + 1), None);
    }

    // rule: LEASE-2, LEASE-6
    #[test]
    fn an_id_is_taken_until_its_revoke_is_applied() {
        let mut lessor = leading();
        assert!(grant(&mut lessor, 0, -7, 2));
        assert!(!grant(&mut lessor, 0, -7, 5));
        assert_eq!(expired(&mut lessor, 1_999, 7_000), []);
        assert_eq!(expired(&mut lessor, 2_000, 7_000), [-7]);
        assert!(!grant(&mut lessor, 2_000, -7, 5), "still being revoked");
        assert_eq!(expired(&mut lessor, 2_500, 7_000), [], "its revoke is on its way");
        assert_eq!(expired(&mut lessor, 9_000, 7_000), [-7], "and is tried again");
        assert!(lessor.revoke(-7));
        assert!(!lessor.revoke(-7));
        assert!(lessor.grant(9_000, 12, -7, 5).is_some());
        assert!(lessor.is_granted_by(-7, 12) && !lessor.is_granted_by(-7, 9), "an old end cannot hit it");
    }

    // rule: LEASE-11, LEASE-12, LEASE-13
    #[test]
    fn a_keep_alive_resets_the_deadline_and_never_revives() {
        let mut lessor = leading();
        assert_eq!(lessor.keep_alive(0, 1), KeepAlive::NotFound);
        assert!(grant(&mut lessor, 0, 1, 10));
        assert_eq!(lessor.keep_alive(9_999, 1), KeepAlive::Renewed { ttl_s: 10 });
        assert_eq!(expired(&mut lessor, 19_998, 7_000), []);
        assert_eq!(lessor.keep_alive(19_999, 1), KeepAlive::Expiring);
        assert_eq!(expired(&mut lessor, 19_999, 7_000), [1]);
        assert_eq!(lessor.keep_alive(20_000, 1), KeepAlive::Expiring);
        assert!(lessor.revoke(1));
        assert_eq!(lessor.keep_alive(20_001, 1), KeepAlive::NotFound);
    }

    // rule: LEASE-19, LEASE-20
    #[test]
    fn time_left_is_rounded_down_and_never_negative() {
        let mut lessor = leading();
        assert!(grant(&mut lessor, 0, 1, 10));
        assert_eq!(lessor.time_left(1, 1), Some(TimeLeft { ttl_s: 9, granted_ttl_s: 10 }));
        assert_eq!(lessor.time_left(12_000, 1), Some(TimeLeft { ttl_s: 0, granted_ttl_s: 10 }));
        assert_eq!(lessor.time_left(0, 2), None);
    }

    // rule: LEASE-24
    #[test]
    fn the_leader_lists_the_soonest_end_first_and_equal_ones_as_granted_or_renewed() {
        let mut lessor = leading();
        for (id, ttl) in [(9, 30), (3, 10), (5, 20), (4, 10)] {
            assert!(grant(&mut lessor, 0, id, ttl));
        }
        assert_eq!(lessor.ids(), [3, 4, 5, 9]);
        assert_eq!(lessor.keep_alive(0, 3), KeepAlive::Renewed { ttl_s: 10 });
        assert_eq!(lessor.ids(), [4, 3, 5, 9], "renewed within the same millisecond");
        assert_eq!(lessor.keep_alive(5_000, 3), KeepAlive::Renewed { ttl_s: 10 });
        assert_eq!(lessor.ids(), [4, 3, 5, 9]);
    }

    // rule: LEASE-5, LEASE-8, LEASE-25
    #[test]
    fn a_change_of_leader_gives_the_whole_time_again_and_the_election_timeout_on_top() {
        let mut lessor = leading();
        assert!(grant(&mut lessor, 0, 1, 10));
        lessor.demote();
        assert_eq!(lessor.keep_alive(1_000, 1), KeepAlive::NotPrimary);
        assert_eq!(expired(&mut lessor, 60_000, 7_000), [], "only a leader lets leases expire");
        lessor.promote(60_000, 1_000);
        assert_eq!(expired(&mut lessor, 70_999, 7_000), []);
        assert_eq!(expired(&mut lessor, 71_000, 7_000), [1]);
    }

    // rule: LEASE-9
    #[test]
    fn many_leases_do_not_end_together_after_a_change_of_leader() {
        let mut lessor = Lessor::new(2, true);
        for id in 1..=3_000 {
            lessor.restore(StoredLease { id, ttl_s: 10, remaining_s: 0, granted_index: 1 });
        }
        lessor.promote(0, 1_000);
        let mut left = 3_000;
        for second in 11..15 {
            let mut ended = 0;
            loop {
                let batch = expired(&mut lessor, second * 1_000, 1_000_000);
                if batch.is_empty() {
                    break;
                }
                ended += batch.len();
            }
            assert!(ended <= EXPIRIES_PER_SECOND, "{ended} in second {second}");
            left -= ended;
        }
        assert_eq!(left, 0);
    }

    // rule: LEASE-6
    #[test]
    fn one_scan_gives_up_at_most_five_hundred() {
        let mut lessor = leading();
        for id in 1..=1_200 {
            assert!(grant(&mut lessor, 0, id, 2));
        }
        let scans: Vec<usize> = (0..4).map(|i| expired(&mut lessor, 2_000 + i * 500, 7_000).len()).collect();
        assert_eq!(scans, [500, 500, 200, 0]);
    }

    // rule: LEASE-10
    #[test]
    fn stored_ttls_below_the_minimum_are_raised() {
        let mut lessor = Lessor::new(5, true);
        lessor.restore(StoredLease { id: 1, ttl_s: 2, remaining_s: 0, granted_index: 1 });
        lessor.promote(0, 0);
        assert_eq!(lessor.time_left(0, 1), Some(TimeLeft { ttl_s: 5, granted_ttl_s: 5 }));
    }

    // rule: LEASE-26, LEASE-27
    #[test]
    fn remaining_times_are_recorded_every_five_minutes_and_used_by_the_next_leader() {
        let mut lessor = leading();
        assert!(grant(&mut lessor, 0, 1, 1_000));
        assert!(grant(&mut lessor, 0, 2, 300));
        assert_eq!(lessor.checkpoints_due(299_999, 10), []);
        assert_eq!(lessor.checkpoints_due(300_001, 10), [(1, 700)], "rounded up; 300 s is too short");
        let stored = lessor.checkpoint(1, 700).expect("it is there");
        assert_eq!(stored, StoredLease { id: 1, ttl_s: 1_000, remaining_s: 700, granted_index: 9 });
        assert_eq!(lessor.checkpoint(3, 1), None);

        let mut next = Lessor::new(2, true);
        next.restore(stored);
        next.promote(0, 1_000);
        assert_eq!(next.time_left(0, 1), Some(TimeLeft { ttl_s: 701, granted_ttl_s: 1_000 }));
        assert_eq!(next.keep_alive(0, 1), KeepAlive::ClearCheckpoint);
        assert!(next.checkpoint(1, 0).is_some());
        assert_eq!(next.keep_alive(0, 1), KeepAlive::Renewed { ttl_s: 1_000 });
    }
}
