// SPDX-License-Identifier: Apache-2.0
//! The replica's thread: everything that came meanwhile is one turn, and so one append and one message a peer.
//!
//! Owns      the replica and its ticks.
//! Holds     effects are performed in the order in which the replica gave them.
//! Never     waits for anything but its queue, its next tick and what the replica keeps back.

use super::super::{
    config::Ended,
    shared::{Answer, Kept, ReadWaiter, ReplicaMessage, Shared, StateMessage},
};
use cairn_core::replica::{Effects, Input, Proposal, Replica, conf::ConfChange};
use cairn_engine::failpoints::{self, reach};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

type Machine = Replica<Kept, ReadWaiter>;

/// Messages of one look at the queue, by kind.
#[derive(Default)]
struct Sorted {
    proposals: Vec<Proposal<Kept>>,
    reads: Vec<ReadWaiter>,
    durable: Option<u64>,
    conf: Vec<(u64, Option<ConfChange>)>,
    /// Of peers, and about them.
    inputs: Vec<Input<Kept, ReadWaiter>>,
    /// The room that messages took in the queue: it is free once they are taken in.
    rooms: Vec<OwnedSemaphorePermit>,
    snapshots: Vec<(u64, u64, oneshot::Sender<bool>)>,
    progress: Vec<oneshot::Sender<Vec<(u64, u64)>>>,
}

/// A member that was removed goes on for as long, so that its peers hear what it knows (CL-4).
const FAREWELL: Duration = Duration::from_secs(1);

pub(in super::super) fn run(shared: &Arc<Shared>, mut replica: Machine) {
    let tick = Duration::from_millis(shared.config.heartbeat_ms);
    let mut next_tick = Instant::now() + tick;
    let mut messages = Vec::new();
    let mut effects = Effects::default();
    let mut applied = 0;
    let mut removed = None;
    loop {
        let due = replica.due_ms().map(|ms| shared.started + Duration::from_millis(ms));
        let wakes = due.map_or(next_tick, |due| due.min(next_tick));
        let patience = wakes.saturating_duration_since(Instant::now());
        let open = shared.replica.drain(&mut messages, patience);
        let mut sorted = sort(&mut messages);
        let now_ms = shared.now_ms();
        let mut step = |input| replica.take_in(now_ms, input, &mut effects);
        if let Some(batch) = sorted.durable {
            reach("raftAfterSave");
            step(Input::Durable { batch });
        }
        let index = shared.raft.applied_index.load(Ordering::Acquire);
        if index > applied && sorted.conf.is_empty() {
            applied = index;
            step(Input::Applied { index });
        }
        for (index, change) in sorted.conf.drain(..) {
            step(Input::ConfApplied { index, change });
        }
        for input in sorted.inputs.drain(..) {
            step(input);
        }
        sorted.rooms.clear();
        if !sorted.reads.is_empty() {
            step(Input::Read(std::mem::take(&mut sorted.reads)));
        }
        if !sorted.proposals.is_empty() {
            step(Input::Propose(std::mem::take(&mut sorted.proposals)));
        }
        if Instant::now() >= next_tick {
            step(Input::Tick);
            if shared.judge_log_write() {
                step(Input::LogHangs);
            }
            next_tick = (next_tick + tick).max(Instant::now());
        }
        replica.settle(now_ms, &mut effects);
        for (index, term, to) in sorted.snapshots {
            reach("raftBeforeApplySnap");
            replica.step(now_ms, Input::SnapshotReceived { index, term }, &mut effects);
            reach("raftAfterApplySnap");
            // Nobody waits if the member ends.
            to.send(std::mem::take(&mut effects.install)).ok();
        }
        for to in sorted.progress {
            // The caller may have gone away.
            to.send(replica.progress().collect()).ok();
        }
        if std::mem::take(&mut effects.removed) {
            removed = Some(Instant::now() + FAREWELL);
        }
        if removed.is_some_and(|due| Instant::now() >= due) {
            shared.end(Ended::Removed);
        }
        shared.raft.committed.store(replica.committed(), Ordering::Release);
        shared.removals.durable(replica.durable_commit());
        shared.raft.proposals.store(replica.proposals() as u64, Ordering::Relaxed);
        perform(shared, &mut effects);
        reach("raftBeforeAdvance");
        if !open || shared.is_ended() {
            break;
        }
    }
    shared.replica.abandon();
    replica.drain(&mut effects);
    perform(shared, &mut effects);
    shared.state.close();
    shared.log.close();
}

fn sort(messages: &mut Vec<ReplicaMessage>) -> Sorted {
    let mut sorted = Sorted::default();
    for message in messages.drain(..) {
        match message {
            ReplicaMessage::Propose(proposal) => sorted.proposals.push(proposal),
            ReplicaMessage::Read(waiter) => sorted.reads.push(waiter),
            ReplicaMessage::Durable(batch) => sorted.durable = sorted.durable.max(Some(batch)),
            ReplicaMessage::ConfApplied { index, change } => sorted.conf.push((index, change)),
            ReplicaMessage::Received { messages, _room } => {
                sorted.inputs.extend(messages.into_iter().map(|m| Input::Received(Box::new(m))));
                sorted.rooms.push(_room);
            }
            ReplicaMessage::Unreachable(peer) => sorted.inputs.push(Input::Unreachable { peer }),
            ReplicaMessage::SnapshotEnded { peer, installed } => {
                sorted.inputs.push(Input::SnapshotEnded { peer, installed });
            }
            ReplicaMessage::SnapshotReceived { index, term, to } => sorted.snapshots.push((index, term, to)),
            ReplicaMessage::Transfer { to } => sorted.inputs.push(Input::Transfer { to }),
            ReplicaMessage::FastForward(ticks) => sorted.inputs.push(Input::FastForward { ticks }),
            ReplicaMessage::Progress(to) => sorted.progress.push(to),
        }
    }
    sorted
}

fn perform(shared: &Arc<Shared>, effects: &mut Effects<Kept, ReadWaiter>) {
    if let Some(why) = effects.failed.take() {
        shared.fail(why);
    }
    if std::mem::take(&mut effects.sync) {
        reach("raftBeforeSave");
        shared.log.extend([()]);
    }
    if !effects.messages.is_empty() {
        if failpoints::ON {
            let leads = shared.raft.leads.load(Ordering::Acquire);
            reach(if leads { "raftBeforeLeaderSend" } else { "raftBeforeFollowerSend" });
        }
        let unreachable = shared.peers.send(effects.messages.drain(..));
        shared.replica.extend(unreachable.into_iter().map(ReplicaMessage::Unreachable));
    }
    for peer in effects.snapshots.drain(..) {
        shared.peers.send_snapshot(shared, peer);
    }
    for (from, why) in effects.misbehaved.drain(..) {
        shared.peers.accuse(shared, from, why);
    }
    let mut messages = Vec::new();
    if let Some(leadership) = effects.leadership.take() {
        shared.raft.term.store(leadership.term, Ordering::Release);
        let before = shared.raft.leader.swap(leadership.leader, Ordering::AcqRel);
        if leadership.leader != 0 && leadership.leader != before {
            *shared.raft.elected.lock().expect("nothing fails under this lock") = Some(Instant::now());
            shared.raft.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        shared.led.send_if_modified(|led| !std::mem::replace(led, *led || leadership.leader != 0) && *led);
        shared.raft.leads.store(leadership.leads, Ordering::Release);
        if !(leadership.leads && leadership.alone) {
            shared.raft.reads_alone.store(false, Ordering::Release);
        }
        messages.push(StateMessage::Leadership(leadership));
    }
    if !effects.committed.is_empty() {
        messages.push(StateMessage::Committed(std::mem::take(&mut effects.committed)));
    }
    messages.extend(effects.reads.drain(..).map(|(index, waiting)| StateMessage::Reads(index, waiting)));
    if !messages.is_empty() {
        shared.state.extend(messages);
    }
    let (failed, slow) = (effects.refused.len() as u64, std::mem::take(&mut effects.slow_reads));
    shared.raft.failed_proposals.fetch_add(failed, Ordering::Relaxed);
    shared.raft.slow_read_indexes.fetch_add(slow, Ordering::Relaxed);
    for (kept, refusal) in effects.refused.drain(..) {
        if let Answer::Client { to, units, .. } = kept.answer {
            shared.admission.leave(units);
            // The caller may have gone away.
            to.send(Err(refusal)).ok();
        }
    }
    for (waiter, refusal) in effects.refused_reads.drain(..) {
        waiter.send(Err(refusal)).ok();
    }
}
