// SPDX-License-Identifier: Apache-2.0
//! The checkpointer's thread: folds the overlay into the tree file, and keeps the log's files in order.
//!
//! Owns      when a checkpoint begins, the release of log segments after it, and the pace at which the tree file
//!           gets smaller.
//! Holds     the log keeps what the tree file says it needs (`Db::log_floor`), and what Raft would read
//!           for a follower that is a little behind.
//! Never     holds up a writer: it works in short steps beside them, and rests between two while nobody waits for it.

use super::super::{
    config::Level,
    shared::{CheckpointMessage, Shared, StateMessage},
};
use super::scrubber::Scrubber;
use cairn_engine::{
    Aim, Error, Shrinking,
    failpoints::{reach, returned},
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
/// Work of one step: about a millisecond, after which a sync of the log finds the disk free.
const STEP: Budget = Budget::bytes(512 << 10);
/// A rest is so many times as long as the step before it.
const REST_TIMES: u32 = 7;
/// A disk that takes long for a step does not need longer rests.
const REST_MAX: Duration = Duration::from_millis(50);
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
    let mut patience = LOOK;
    loop {
        let open = shared.checkpointer.drain(&mut messages, patience);
        if !open || shared.failed() {
            break;
        }
        let (mut wanted, mut for_good) = (false, Vec::new());
        for message in messages.drain(..) {
            match message {
                CheckpointMessage::Defragment(to) => defragmentation.ask(to),
                CheckpointMessage::Checkpoint => wanted = true,
                CheckpointMessage::CheckpointForGood(to) => for_good.push(to),
            }
        }
        let rest = work(shared, wanted, &mut last);
        patience = rest.as_ref().map_or(LOOK, |rest| rest.unwrap_or(LOOK));
        judge(shared, rest.map(drop));
        judge(shared, checkpoint_for_good(shared, for_good));
        if let Some(scrubber) = &mut scrubber {
            scrubber.work(shared);
        }
        let progress = defragmentation.step(shared);
        if let Ok(Progress::More) = progress {
            patience = Duration::ZERO;
        }
        judge(shared, progress.map(drop));
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

/// What is due. Gives back how long to rest before it goes on, if it is not done.
fn work(shared: &Shared, wanted: bool, last: &mut Instant) -> Result<Option<Duration>, Error> {
    let db = &shared.db;
    let mut step = Step::begin();
    let spare = shared.wal.prepare_spare(STEP);
    let mut rest = step.rest();
    // Also when there was no room for a spare: a checkpoint lets segments of the log go.
    let shrinks = db.shrink(shared.now_ms(), Aim::Background)? == Shrinking::Checkpoint;
    let tidies = if shrinks { last.elapsed() >= SHRINK_EVERY } else { db.tidy_due() };
    if wanted || tidies || db.checkpoint_due(shared.now_ms()).is_some() {
        checkpoint(shared, if wanted { Pace::Hurried } else { Pace::Rested })?;
        *last = Instant::now();
    }
    db.note_readers(shared.now_ms());
    let ended = db.limit_snapshots(shared.now_ms(), SNAPSHOTS);
    if ended > 0 {
        let fields = [("snapshots", ended.to_string())];
        shared.log(Level::Warn, "a snapshot held space for too long and was ended", &fields);
    }
    step = Step::begin();
    let holes = db.punch(shared.now_ms(), STEP)?;
    rest += step.rest();
    Ok((spare? == Progress::More || holes == Progress::More).then_some(rest))
}

/// Whether somebody waits for a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Hurried,
    /// It rests after each step. Whoever wants something meanwhile ends the rests.
    Rested,
}

/// Since when one works without a rest.
struct Step(Instant);

impl Step {
    fn begin() -> Step {
        Step(Instant::now())
    }

    fn rest(&self) -> Duration {
        (self.0.elapsed() * REST_TIMES).min(REST_MAX)
    }
}

/// One whole checkpoint, in steps.
fn checkpoint(shared: &Shared, pace: Pace) -> Result<(), Error> {
    let begin = Instant::now();
    let mut rested = Duration::ZERO;
    shared.db.log_durable(shared.wal.durable().last_index);
    // One that a full disk cut short is still frozen, and goes on.
    shared.db.freeze()?;
    loop {
        let step = Step::begin();
        if shared.db.checkpoint_step(STEP)? == Progress::Done {
            break;
        }
        if pace == Pace::Rested {
            // The log goes on meanwhile, and needs its next segment.
            match shared.wal.prepare_spare(STEP) {
                Ok(_) | Err(Error::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
            let rest = Instant::now();
            shared.checkpointer.wait(step.rest());
            rested += rest.elapsed();
        }
    }
    // What it took of the disk and the processors: alerts are made of it.
    shared.observer.checkpointed((begin.elapsed() - rested).as_secs_f64());
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
    checkpoint(shared, Pace::Hurried)?;
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
    shared.wal.release(shared.db.log_floor().min(kept))?;
    reach("raftAfterWALRelease");
    Ok(())
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
    fn step(&mut self, shared: &Shared) -> Result<Progress, Error> {
        if self.waiters.is_empty() {
            return Ok(Progress::Done);
        }
        if let Some(why) = self.planted() {
            self.answer(&Err(why));
            return Ok(Progress::Done);
        }
        let result = self.checkpoint(shared);
        if let Ok(Progress::More) = result {
            return result;
        }
        self.answer(&result.clone().map(drop).map_err(|e| e.to_string()));
        result
    }

    /// What a test has it fail with.
    fn planted(&self) -> Option<String> {
        if self.folds_left == FOLDS {
            reach("defragBeforeCopy");
            return returned("defragOpenFileError");
        }
        returned("defragdbFail")
    }

    fn answer(&mut self, result: &Result<(), String>) {
        for to in self.waiters.drain(..) {
            // The caller may have gone away.
            to.send(result.clone()).ok();
        }
    }

    fn checkpoint(&mut self, shared: &Shared) -> Result<Progress, Error> {
        if self.folds_left > 0 {
            self.folds_left -= 1;
            checkpoint(shared, Pace::Hurried)?;
            return Ok(Progress::More);
        }
        if shared.db.shrink(shared.now_ms(), Aim::Goal)? == Shrinking::Checkpoint {
            checkpoint(shared, Pace::Hurried)?;
            return Ok(Progress::More);
        }
        // Nothing is left to be reused. One more checkpoint writes that down, so that a restart knows it.
        reach("defragBeforeRename");
        shared.db.lower_size();
        checkpoint(shared, Pace::Hurried)?;
        shared.db.confirm()?;
        Ok(Progress::Done)
    }
}
