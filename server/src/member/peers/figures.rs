// SPDX-License-Identifier: Apache-2.0
//! What is counted of each peer, and of what was refused of anybody.
//!
//! Owns      the counts, which outlive connections, and the peer's membership too; and how often a refusal is told.
//! Never     knows the name of a metric.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Of refusals of one kind a line is written once in this time: who is refused may try again at once.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts of one peer.
#[derive(Default, Debug)]
pub(super) struct Figures {
    pub sent_bytes: AtomicU64,
    pub sent_failures: AtomicU64,
    pub received_bytes: AtomicU64,
    pub received_failures: AtomicU64,
    pub disconnects: AtomicU64,
    pub snapshots_sending: AtomicU64,
    pub snapshots_sent: AtomicU64,
    pub snapshot_send_failures: AtomicU64,
    pub snapshots_receiving: AtomicU64,
    pub snapshots_received: AtomicU64,
    pub snapshot_receive_failures: AtomicU64,
}

/// The counts of one peer as of now.
#[derive(Clone, Debug, Default)]
pub struct PeerFigures {
    pub id: u64,
    /// It is a member.
    pub known: bool,
    /// There is a connection to it.
    pub active: bool,
    pub sent_bytes: u64,
    pub sent_failures: u64,
    pub received_bytes: u64,
    pub received_failures: u64,
    pub disconnects: u64,
    pub snapshots_sending: u64,
    pub snapshots_sent: u64,
    pub snapshot_send_failures: u64,
    pub snapshots_receiving: u64,
    pub snapshots_received: u64,
    pub snapshot_receive_failures: u64,
}

impl Figures {
    pub fn now(&self, id: u64, known: bool, active: bool) -> PeerFigures {
        let of = |count: &AtomicU64| count.load(Relaxed);
        PeerFigures {
            id,
            known,
            active,
            sent_bytes: of(&self.sent_bytes),
            sent_failures: of(&self.sent_failures),
            received_bytes: of(&self.received_bytes),
            received_failures: of(&self.received_failures),
            disconnects: of(&self.disconnects),
            snapshots_sending: of(&self.snapshots_sending),
            snapshots_sent: of(&self.snapshots_sent),
            snapshot_send_failures: of(&self.snapshot_send_failures),
            snapshots_receiving: of(&self.snapshots_receiving),
            snapshots_received: of(&self.snapshots_received),
            snapshot_receive_failures: of(&self.snapshot_receive_failures),
        }
    }
}

/// Refusals of one kind: all of them are counted, and some are told.
#[derive(Default)]
pub(super) struct Refusals {
    count: AtomicU64,
    /// When the last line was written, and how many came before it.
    told: Mutex<Option<(Instant, u64)>>,
}

impl Refusals {
    /// Counts one; how many there were since the last line, with this one, if a line is due.
    pub fn add(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let mut told = self.told.lock().expect("nothing fails under this lock");
        let (last, before) = told.unzip();
        if last.is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            return None;
        }
        *told = Some((now, count));
        Some(count - before.unwrap_or_default())
    }

    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

/// Counts something as under way until it is dropped.
pub(super) struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    pub fn begin(count: &'a AtomicU64) -> UnderWay<'a> {
        count.fetch_add(1, Relaxed);
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_and_one_in_ten_seconds_is_told() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let told: Vec<Option<u64>> =
            [0, 1, 9, 10, 11, 30].map(|s| refusals.add(begin + Duration::from_secs(s))).into();
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
        assert_eq!(refusals.count(), 6);
    }
}
