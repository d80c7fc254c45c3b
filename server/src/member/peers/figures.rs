// SPDX-License-Identifier: Apache-2.0
//! What is counted of each peer.
//!
//! Owns      the counts, which outlive connections, and the peer's membership too.
//! Never     knows the name of a metric.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
