// SPDX-License-Identifier: Apache-2.0
//! The storage engine's figures that a dashboard wants: who keeps space from being used again, and how long locks were
//! held.
//!
//! Owns      the families `cairn_store_*`.
//! Never     reads the engine: the member's status brings its figures.

use super::text::Text;
use cairn_engine::{Lock, Stats};

pub fn render(text: &mut Text, stats: &Stats) {
    for (name, help, bytes) in [
        ("cairn_store_file_bytes", "Length of the tree file.", stats.file_bytes),
        ("cairn_store_used_bytes", "What the newest checkpoint needs of it.", stats.used_bytes),
        ("cairn_store_pending_bytes", "What later checkpoints and readers hold back.", stats.pending_bytes),
        ("cairn_store_pinned_bytes", "What readers alone hold back.", stats.pinned_bytes),
        ("cairn_store_hole_bytes", "What the file system has back of it.", stats.hole_bytes),
    ] {
        text.gauge(name, help, bytes);
    }
    text.gauge(
        "cairn_store_oldest_reader_seconds",
        "For how long the oldest reader has held a checkpoint that was replaced.",
        seconds(stats.oldest_reader_ms as f64 / 1e3),
    );
    text.gauge("cairn_store_snapshots", "Snapshots that hold a checkpoint.", stats.snapshots);
    let each = || Lock::ALL.map(|lock| (lock.name(), stats.locks.of(lock)));
    let name = "cairn_store_lock_holds_total";
    text.family(name, "counter", "Holds of locks that readers or the writer wait for.");
    each().iter().for_each(|(lock, held)| text.sample(name, &[("lock", lock)], held.holds));
    let name = "cairn_store_long_lock_holds_total";
    text.family(name, "counter", "Those of more than 5 ms.");
    each().iter().for_each(|(lock, held)| text.sample(name, &[("lock", lock)], held.long));
    let name = "cairn_store_longest_lock_hold_seconds";
    text.family(name, "gauge", "The longest of them since the start.");
    for (lock, held) in each() {
        text.sample(name, &[("lock", lock)], seconds(held.longest_ns as f64 / 1e9));
    }
}

/// As the page has its other seconds: no more digits than a clock gives.
fn seconds(seconds: f64) -> String {
    format!("{seconds:.6}")
}
