// SPDX-License-Identifier: Apache-2.0
//! The checkpointer's thread: folds the overlay into the tree file, and keeps the log's files in order.
//!
//! Owns      when a checkpoint begins, and the release of log segments after it.
//! Holds     the log keeps what the tree file says it needs (`Db::log_floor`), and what Raft would read
//!           for a follower that is a little behind.
//! Never     holds up a writer: it works in steps, beside them.

use super::super::shared::{CheckpointMessage, Shared, StateMessage};
use super::scrubber::Scrubber;
use cairn_engine::{
    Error,
    io::{Budget, Progress},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How often it looks whether something is due.
const LOOK: Duration = Duration::from_millis(100);
/// Work of one step.
const STEP: Budget = Budget::bytes(4 << 20);
/// Entries kept for followers that are a little behind.
const ENTRIES_KEPT: u64 = 5000;

pub(in super::super) fn run(shared: &Arc<Shared>) {
    let mut messages = Vec::new();
    let mut scrubber = Scrubber::new(shared.config.scrub_bytes_s, shared.now_ms());
    loop {
        let open = shared.checkpointer.drain(&mut messages, LOOK);
        if !open || shared.failed() {
            break;
        }
        let (mut defragment, mut wanted) = (Vec::new(), false);
        for message in messages.drain(..) {
            match message {
                CheckpointMessage::Defragment(to) => defragment.push(to),
                CheckpointMessage::Checkpoint => wanted = true,
                CheckpointMessage::Look => {}
            }
        }
        judge(shared, work(shared, wanted));
        if let Some(scrubber) = &mut scrubber {
            scrubber.work(shared);
        }
        if !defragment.is_empty() {
            let result = give_back(shared);
            for to in defragment {
                // The caller may have gone away.
                to.send(result.clone().map_err(|e| e.to_string())).ok();
            }
            judge(shared, result);
        }
    }
    shared.checkpointer.abandon();
}

/// A failed write or sync ends the member.
fn judge(shared: &Shared, result: Result<(), Error>) {
    match result {
        // Nothing was written; what is free now may suffice later.
        Ok(()) | Err(Error::NoSpace { .. }) => {}
        Err(error) => shared.fail(error),
    }
}

fn work(shared: &Shared, wanted: bool) -> Result<(), Error> {
    let spare = shared.wal.prepare_spare(STEP);
    // Also when there was no room for a spare: a checkpoint lets segments of the log go.
    if wanted || shared.db.checkpoint_due(shared.now_ms()).is_some() || shared.db.tidy_due() {
        checkpoint(shared)?;
    }
    let holes = shared.db.punch(shared.now_ms(), STEP)?;
    if spare? == Progress::More || holes == Progress::More {
        shared.checkpointer.extend([CheckpointMessage::Look]);
    }
    Ok(())
}

/// One whole checkpoint, in steps.
fn checkpoint(shared: &Shared) -> Result<(), Error> {
    let started = Instant::now();
    shared.db.log_durable(shared.wal.durable().last_index);
    // One that a full disk cut short is still frozen, and goes on.
    shared.db.freeze()?;
    while let Progress::More = shared.db.checkpoint_step(STEP)? {}
    shared.observer.checkpointed(started.elapsed().as_secs_f64());
    release(shared)?;
    shared.update_db_size();
    // A state that slowed down for the overlay, or whose purge waits for this, looks again.
    shared.overlay_room.extend([()]);
    shared.state.extend([StateMessage::Wake]);
    Ok(())
}

fn release(shared: &Shared) -> Result<(), Error> {
    let applied = shared.raft.applied_index.load(Ordering::Acquire);
    shared.wal.release(shared.db.log_floor().min(applied.saturating_sub(ENTRIES_KEPT)))
}

/// Folds everything, makes it certain, and gives the free tail of the file back.
fn give_back(shared: &Shared) -> Result<(), Error> {
    // Space is given back only by later checkpoints (engine.md 2.4): the third one frees what the first
    // replaced.
    for _ in 0..3 {
        checkpoint(shared)?;
        shared.db.confirm()?;
    }
    shared.db.shrink()?;
    shared.lower_db_size();
    Ok(())
}
