// SPDX-License-Identifier: Apache-2.0
//! The checkpointer's thread: folds the overlay into the tree file, and keeps the log's files in order.
//!
//! Owns      when a checkpoint begins, the release of log segments after it, and the pace at which the tree file
//!           gets smaller.
//! Holds     the log keeps what the tree file says it needs (`Db::log_floor`), and what Raft would read
//!           for a follower that is a little behind.
//! Never     holds up a writer: it works in steps, beside them.

use super::super::{
    config::Level,
    shared::{CheckpointMessage, Shared, StateMessage},
};
use super::scrubber::Scrubber;
use cairn_engine::{
    Aim, Error, Shrinking,
    io::{Budget, Progress},
    snapshot::SnapshotLimits,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How often it looks whether something is due.
const LOOK: Duration = Duration::from_millis(100);
/// Work of one step.
const STEP: Budget = Budget::bytes(4 << 20);
/// Between two checkpoints that are made for a smaller file alone, and that nobody waits for.
const SHRINK_EVERY: Duration = Duration::from_secs(2);
/// A snapshot that nobody reads on ends after a minute, and the oldest one while more than this waits for readers.
const SNAPSHOTS: SnapshotLimits = SnapshotLimits { stall_ms: 60_000, pinned_bytes: 4 << 30 };
/// Space is given back only by later checkpoints (engine.md 2.4): the third one frees what the first replaced.
const FOLDS: u32 = 3;

pub(in super::super) fn run(shared: &Arc<Shared>) {
    let mut messages = Vec::new();
    let mut scrubber = Scrubber::new(shared.config.scrub_bytes_s, shared.now_ms());
    let mut last = Instant::now();
    let mut defragmentation = Defragmentation::default();
    // Put off at open. It is tried again where that fails, by the first who needs it.
    judge(shared, shared.db.read_space_map().map(drop));
    loop {
        let open = shared.checkpointer.drain(&mut messages, LOOK);
        if !open || shared.failed() {
            break;
        }
        let (mut wanted, mut for_good) = (false, Vec::new());
        for message in messages.drain(..) {
            match message {
                CheckpointMessage::Defragment(to) => defragmentation.ask(to),
                CheckpointMessage::Checkpoint => wanted = true,
                CheckpointMessage::CheckpointForGood(to) => for_good.push(to),
                CheckpointMessage::Look => {}
            }
        }
        judge(shared, work(shared, wanted, &mut last));
        judge(shared, checkpoint_for_good(shared, for_good));
        if let Some(scrubber) = &mut scrubber {
            scrubber.work(shared);
        }
        judge(shared, defragmentation.step(shared));
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

fn work(shared: &Shared, wanted: bool, last: &mut Instant) -> Result<(), Error> {
    let db = &shared.db;
    let spare = shared.wal.prepare_spare(STEP);
    // Also when there was no room for a spare: a checkpoint lets segments of the log go.
    let shrinks = db.shrink(shared.now_ms(), Aim::Background)? == Shrinking::Checkpoint;
    let tidies = if shrinks { last.elapsed() >= SHRINK_EVERY } else { db.tidy_due() };
    if wanted || tidies || db.checkpoint_due(shared.now_ms()).is_some() {
        checkpoint(shared)?;
        *last = Instant::now();
    }
    db.note_readers(shared.now_ms());
    let ended = db.limit_snapshots(shared.now_ms(), SNAPSHOTS);
    if ended > 0 {
        let fields = [("snapshots", ended.to_string())];
        shared.log(Level::Warn, "a snapshot held space for too long and was ended", &fields);
    }
    let holes = db.punch(shared.now_ms(), STEP)?;
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
    shared.db.raise_size();
    // A state that slowed down for the overlay, or whose purge waits for this, looks again.
    shared.overlay_room.extend([()]);
    shared.state.extend([StateMessage::Wake]);
    Ok(())
}

/// Tells those who wait for it, unless there was no room: they ask again.
fn checkpoint_for_good(shared: &Shared, waiters: Vec<oneshot::Sender<()>>) -> Result<(), Error> {
    if waiters.is_empty() {
        return Ok(());
    }
    checkpoint(shared)?;
    shared.db.confirm()?;
    for to in waiters {
        // The member may be ending.
        to.send(()).ok();
    }
    Ok(())
}

fn release(shared: &Shared) -> Result<(), Error> {
    let applied = shared.raft.applied_index.load(Ordering::Acquire);
    let kept = applied.saturating_sub(shared.config.catch_up_entries).min(shared.peers.log_floor());
    shared.wal.release(shared.db.log_floor().min(kept))
}

/// Folds everything, and makes the file as small as its goal has it, or as whoever reads allows. Writers and
/// readers go on beside it: it is made of ordinary checkpoints, and other work comes between them.
#[derive(Default)]
struct Defragmentation {
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    folds_left: u32,
}

impl Defragmentation {
    fn ask(&mut self, to: oneshot::Sender<Result<(), String>>) {
        self.waiters.push(to);
        self.folds_left = FOLDS;
    }

    /// One checkpoint towards the end, if anybody asked for it.
    fn step(&mut self, shared: &Shared) -> Result<(), Error> {
        if self.waiters.is_empty() {
            return Ok(());
        }
        let progress = self.checkpoint(shared);
        if let Ok(Progress::More) = progress {
            shared.checkpointer.extend([CheckpointMessage::Look]);
            return Ok(());
        }
        let result = progress.map(drop);
        for to in self.waiters.drain(..) {
            // The caller may have gone away.
            to.send(result.clone().map_err(|e| e.to_string())).ok();
        }
        result
    }

    fn checkpoint(&mut self, shared: &Shared) -> Result<Progress, Error> {
        if self.folds_left > 0 {
            self.folds_left -= 1;
            checkpoint(shared)?;
            return Ok(Progress::More);
        }
        if shared.db.shrink(shared.now_ms(), Aim::Goal)? == Shrinking::Checkpoint {
            checkpoint(shared)?;
            return Ok(Progress::More);
        }
        // Nothing is left to be reused. One more checkpoint writes that down, so that a restart knows it.
        shared.db.lower_size();
        checkpoint(shared)?;
        shared.db.confirm()?;
        Ok(Progress::Done)
    }
}
