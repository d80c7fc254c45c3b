// SPDX-License-Identifier: Apache-2.0
//! The log's thread: one write and one sync for everything that was appended meanwhile.
//!
//! Owns      the calls of `Wal::sync` and `Wal::seal`.
//! Holds     durability is told only after a sync that covers it.
//! Never     goes on after a failed write: the member ends, and recovers from the log.

use super::super::{
    config::Level,
    shared::{IDLE, ReplicaMessage, Shared},
};
use cairn_engine::{Error, wal::Wal};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// After this long without an append the newest batch is sealed, so that damage to it can be proven.
const QUIET: Duration = Duration::from_millis(100);
/// A full disk is asked again after this.
const FULL_RETRY: Duration = Duration::from_millis(200);

pub(in super::super) fn run(shared: &Arc<Shared>) {
    let mut wakes = Vec::new();
    let mut sealed = true;
    loop {
        wakes.clear();
        let patience = if sealed { IDLE } else { QUIET };
        let open = shared.log.drain(&mut wakes, patience);
        if !wakes.is_empty() {
            sealed = false;
            sync(shared);
        } else if !sealed {
            sealed = true;
            seal(shared);
        }
        if !open || shared.failed() {
            break;
        }
    }
    if !shared.failed() {
        sync(shared);
        seal(shared);
    }
}

fn sync(shared: &Shared) {
    let started = Instant::now();
    loop {
        match shared.writing_log(Wal::sync) {
            Ok(point) => {
                if shared.disk_full.swap(false, Ordering::AcqRel) {
                    shared.log(Level::Info, "the log is written again", &[]);
                }
                shared.observer.wal_synced(started.elapsed().as_secs_f64());
                shared.db.log_durable(point.last_index);
                // A closed queue means that the member ends: nobody waits for this.
                shared.replica.push(ReplicaMessage::Durable(point.batch_no.0)).ok();
                return;
            }
            // Nothing is lost: what was appended stays queued. Until there is room, the log grows no more.
            Err(error @ Error::NoSpace { .. }) => {
                if !shared.disk_full.swap(true, Ordering::AcqRel) {
                    shared.log(Level::Error, "no space for the log", &[("error", error.to_string())]);
                }
                if shared.is_ended() {
                    return shared.fail(error);
                }
                std::thread::sleep(FULL_RETRY);
            }
            Err(error) => return shared.fail(error),
        }
    }
}

fn seal(shared: &Shared) {
    match shared.writing_log(Wal::seal) {
        Ok(()) => {}
        Err(Error::NoSpace { .. }) => {}
        Err(error) => shared.fail(error),
    }
}
