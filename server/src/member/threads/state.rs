// SPDX-License-Identifier: Apache-2.0
//! The state's thread: applies what is committed, tells the watchers, answers; and in between revokes
//! leases, compacts and purges.
//!
//! Owns      the state, and the timers of leases and auto-compaction.
//! Holds     the order after a batch: published, then the applied index, then the watchers, then the
//!           answers. Who got an answer finds its write wherever it looks.
//! Never     holds Raft back: its queue takes what is committed, and admission bounds that.

use super::super::{
    auth::cancel_reason,
    config::Level,
    shared::{
        Answer, CheckpointMessage, IDLE, Kept, ReadWaiter, ReplicaMessage, Shared, StateMessage, wake_all,
    },
};
use cairn_core::{
    Command, Refusal,
    compactor::Compactor,
    lessor::{CHECKPOINTS_PER_ENTRY, SCAN_INTERVAL_MS},
    replica::{
        Committed, Leadership,
        conf::{ConfChange, Kind},
    },
    state::{Applied, Fatal, Outcome, State},
    watch::{HistoryError, ReaderHistory},
};
use cairn_mvcc::{PurgeBudget, PurgeProgress, RevisionEvents};
use cairn_proto::{errors, etcdserverpb as pb};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// Entries that are applied as one transaction; what is more waits for the next.
const ENTRIES_PER_BATCH: usize = 4096;
/// The overlay may grow to this many times the size at which a checkpoint is due; then apply waits.
const OVERLAY_TIMES_MAX: u64 = 2;
/// How long apply waits for the checkpointer before it asks again.
const OVERLAY_PATIENCE: Duration = Duration::from_millis(100);
/// What one slice of a purge is to take: the requests that come meanwhile wait for so long.
const PURGE_SLICE: Duration = Duration::from_micros(200);
/// Entries that one slice looks at, at least and at most.
const ENTRIES_PER_PURGE: (usize, usize) = (50, 2000);
/// Watchers that are looked at again under one hold of the hub's lock.
const WATCHERS_PER_RECHECK: usize = 1000;
/// A purge that is held up by a reader breaks its hold after this long.
const HOLD_PATIENCE_MS: u64 = 30_000;

struct Running<'a> {
    shared: &'a Arc<Shared>,
    state: State,
    history: ReaderHistory,
    compactor: Compactor,
    leadership: Leadership,
    /// Reads that wait until an index is applied.
    reads: BTreeMap<u64, Vec<ReadWaiter>>,
    next_scan_ms: u64,
    purge: Purge,
    /// How many entries the next slice of it looks at.
    purge_entries: usize,
    /// Compactions that are not purged yet, and since when.
    compactions: VecDeque<(i64, Instant)>,
    /// Since when a purge waits for a reader.
    held_since_ms: Option<u64>,
}

/// Where the purge of compacted revisions stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purge {
    Idle,
    /// There is a slice to do.
    Ready,
    /// For a reader or a checkpoint: it is looked at again after a message or a while.
    Waiting,
}

pub(in super::super) fn run(shared: &Arc<Shared>, state: State) {
    let compactor = Compactor::new(shared.config.auto_compaction, shared.now_ms(), revision(shared));
    let history = ReaderHistory::new(shared.reader.clone());
    let mut running = Running {
        shared,
        state,
        history,
        compactor,
        leadership: Leadership::default(),
        reads: BTreeMap::new(),
        next_scan_ms: 0,
        // A purge that an earlier run did not finish goes on.
        purge: Purge::Ready,
        purge_entries: ENTRIES_PER_PURGE.0,
        compactions: VecDeque::new(),
        held_since_ms: None,
    };
    let mut messages = Vec::new();
    loop {
        let open = shared.state.drain(&mut messages, running.patience());
        if let Err(fatal) = running.turn(&mut messages) {
            shared.fail(fatal);
        }
        if !open || shared.failed() {
            break;
        }
    }
    shared.checkpointer.close();
    shared.catchup.close();
    let wakers = {
        let mut hub = shared.hub();
        hub.close();
        hub.take_wakers()
    };
    wake_all(wakers);
}

/// How many entries a slice is to look at after one of `entries` that took so long: more or fewer step by step, since
/// one that was interrupted says little.
fn next_slice(entries: usize, took: Duration) -> usize {
    let (min, max) = ENTRIES_PER_PURGE;
    let next = if took > PURGE_SLICE { entries / 2 } else { entries + entries / 4 };
    next.clamp(min, max)
}

fn revision(shared: &Shared) -> i64 {
    shared.reader.revision().unwrap_or_default()
}

impl Running<'_> {
    /// How long there is nothing to do without a message.
    fn patience(&self) -> Duration {
        if self.purge == Purge::Ready {
            return Duration::ZERO;
        }
        let now_ms = self.shared.now_ms();
        let timers = [Some(self.next_scan_ms), self.compactor.next_ms(), self.shared.hub().next_tick_ms()];
        let due_ms = timers.into_iter().flatten().min().unwrap_or(u64::MAX);
        Duration::from_millis(due_ms.saturating_sub(now_ms)).min(IDLE)
    }

    fn turn(&mut self, messages: &mut Vec<StateMessage>) -> Result<(), Fatal> {
        let mut entries: Vec<Committed<Kept>> = Vec::new();
        for message in messages.drain(..) {
            match message {
                StateMessage::Committed(mut more) if entries.is_empty() => entries.append(&mut more),
                StateMessage::Committed(more) => entries.extend(more),
                StateMessage::Reads(index, waiting) => self.reads.entry(index).or_default().extend(waiting),
                StateMessage::Leadership(leadership) => self.follow(leadership),
                StateMessage::Wake => {}
            }
            if self.purge == Purge::Waiting {
                self.purge = Purge::Ready;
            }
        }
        let mut rest = entries.into_iter();
        loop {
            let batch: Vec<_> = rest.by_ref().take(ENTRIES_PER_BATCH).collect();
            if batch.is_empty() {
                break;
            }
            self.apply(batch)?;
            self.wait_for_overlay();
        }
        self.answer_reads();
        self.timers();
        self.purge()
    }

    fn apply(&mut self, batch: Vec<Committed<Kept>>) -> Result<(), Fatal> {
        let started = Instant::now();
        let entries = batch.len();
        let mut outcome = Outcome::default();
        let mut since = started;
        self.state.apply(self.shared.now_ms(), batch, &mut outcome, |kind, succeeded| {
            let now = Instant::now();
            let took = now.duration_since(std::mem::replace(&mut since, now));
            self.shared.observer.request_applied(kind, succeeded, took.as_secs_f64());
        })?;
        let (index, term) = self.state.applied();
        // Before anybody can see that they are gone.
        for (index, change) in &outcome.conf {
            if let Some(ConfChange { kind: Kind::Remove, member_id, .. }) = change {
                self.shared.removals.applied(*member_id, *index);
            }
        }
        if outcome.cluster_changed {
            self.shared.note_cluster(self.state.cluster());
        }
        if outcome.auth_changed {
            self.end_watchers_without_rights();
        }
        self.shared.raft.applied_term.store(term, Ordering::Release);
        self.shared.raft.applied_index.store(index, Ordering::Release);
        self.shared.db.raise_size();
        self.publish(&outcome.events, outcome.skipped)?;
        self.lead_if_due();
        if outcome.leases.revoked > 0 {
            self.shared.revoked.notify_waiters();
        }
        self.shared.observer.leases_changed(&outcome.leases);
        if let Some(revision) = outcome.compacted {
            self.purge = Purge::Ready;
            self.compactions.push_back((revision, started));
        }
        self.answer(outcome.answers);
        for change in outcome.conf.iter().filter_map(|(_, change)| change.as_ref()) {
            self.say_change(change);
        }
        let conf = outcome.conf.into_iter();
        self.shared.replica.extend(conf.map(|(index, change)| ReplicaMessage::ConfApplied { index, change }));
        self.shared.observer.applied(entries, started.elapsed().as_secs_f64());
        Ok(())
    }

    fn say_change(&self, change: &ConfChange) {
        let said = match change.kind {
            Kind::AddVoter | Kind::AddLearner => "added member",
            Kind::Remove => "removed member",
            Kind::Update => "updated member",
            Kind::Promote => "promote member",
        };
        let urls = change.member.as_ref().and_then(|member| member.raft_attributes.as_ref());
        let fields = [
            ("cluster-id", self.shared.cluster_id.to_string()),
            ("local-member-id", self.shared.member_id.to_string()),
            ("peer-id", format!("{:x}", change.member_id)),
            ("peer-urls", urls.map(|attributes| attributes.peer_urls.join(",")).unwrap_or_default()),
            ("is-learner", (change.kind == Kind::AddLearner).to_string()),
        ];
        self.shared.log(Level::Info, said, &fields);
    }

    /// Before the events of the same batch are given out: what was written after a right had ended is not
    /// told to who had it.
    fn end_watchers_without_rights(&self) {
        if !self.shared.config.auth.revoke_watches {
            return;
        }
        let auth = self.shared.auth.auth();
        let may = |owner: Option<&str>, key: &[u8], end: &[u8]| {
            auth.grants_now(owner).read(key, end).map_err(cancel_reason)
        };
        let mut from = Some(0);
        while let Some(place) = from {
            let wakers = {
                let mut hub = self.shared.hub();
                from = hub.recheck(place, WATCHERS_PER_RECHECK, &may);
                hub.take_wakers()
            };
            wake_all(wakers);
        }
    }

    /// Tells the hub of new revisions; of those up to `skipped` no event does.
    fn publish(&mut self, events: &[Arc<RevisionEvents>], skipped: Option<i64>) -> Result<(), Fatal> {
        if events.is_empty() && skipped.is_none() {
            return Ok(());
        }
        let (wakers, lagging) = {
            let mut hub = self.shared.hub();
            hub.publish(events, &self.history).map_err(|error| match error {
                HistoryError::Failed(error) => error.into(),
                other => Fatal::Stored { what: "pair before an event", why: other.to_string() },
            })?;
            if let Some(revision) = skipped {
                hub.reset(revision);
            }
            (hub.take_wakers(), hub.wants_plan())
        };
        wake_all(wakers);
        if lagging {
            self.shared.catchup.extend([()]);
        }
        Ok(())
    }

    fn answer(&mut self, answers: Vec<(Answer, Result<Applied, Refusal>)>) {
        let mut units_left = 0;
        let mut clients: Vec<(Handle, Vec<_>)> = Vec::new();
        for (answer, result) in answers {
            match answer {
                Answer::Client { to, units, runtime } => {
                    units_left += units;
                    match clients.iter_mut().find(|(known, _)| known.id() == runtime.id()) {
                        Some((_, results)) => results.push((to, result)),
                        None => clients.push((runtime, vec![(to, result)])),
                    }
                }
                Answer::Compaction(revision) => {
                    if result.is_ok() || result.as_ref().err() == Some(&errors::COMPACTED) {
                        self.compactor.succeeded(self.shared.now_ms(), revision);
                        let fields = [("revision", revision.to_string())];
                        self.shared.log(Level::Info, "completed auto compaction", &fields);
                    }
                }
                Answer::Nobody => {}
            }
        }
        self.shared.admission.leave(units_left);
        // Each thread that serves clients is woken once, and does the rest by itself.
        for (runtime, results) in clients {
            runtime.spawn(async move {
                for (to, result) in results {
                    // The caller may have gone away.
                    to.send(result).ok();
                }
            });
        }
    }

    fn answer_reads(&mut self) {
        let (index, _) = self.state.applied();
        while let Some(first) = self.reads.first_entry() {
            if *first.key() > index {
                break;
            }
            for waiter in first.remove() {
                waiter.send(Ok(())).ok();
            }
        }
    }

    fn follow(&mut self, leadership: Leadership) {
        let led = std::mem::replace(&mut self.leadership, leadership).leads;
        if led && !leadership.leads {
            self.shared.lessor().demote();
            self.shared.ready.send_replace(false);
        }
    }

    /// A new leader takes the leases over once it has applied everything before its term (LEASE-8); from
    /// then on, if it is alone, what it has applied is all there is.
    fn lead_if_due(&mut self) {
        let (_, term) = self.state.applied();
        if !self.leadership.leads || term != self.leadership.term || *self.shared.ready.borrow() {
            return;
        }
        self.shared.lessor().promote(self.shared.now_ms(), self.shared.config.election_ms);
        self.shared.raft.reads_alone.store(self.leadership.alone, Ordering::Release);
        self.shared.ready.send_replace(true);
    }

    fn timers(&mut self) {
        let now_ms = self.shared.now_ms();
        if now_ms >= self.next_scan_ms {
            self.next_scan_ms = now_ms + SCAN_INTERVAL_MS;
            self.scan_leases(now_ms);
        }
        if self.compactor.next_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let leads = self.leadership.leads;
            if let Some(revision) = self.compactor.tick(now_ms, revision(self.shared), leads) {
                let command = Command::Compact(pb::CompactionRequest { revision, physical: false });
                self.shared.propose_own(command, Answer::Compaction(revision));
            }
        }
        let wakers = {
            let mut hub = self.shared.hub();
            hub.tick(now_ms);
            hub.take_wakers()
        };
        wake_all(wakers);
    }

    fn scan_leases(&mut self, now_ms: u64) {
        if self.shared.auth.enabled() {
            let ttl_ms = self.shared.config.auth.token_ttl_ms;
            self.shared.auth.change_tokens(|tokens| tokens.sweep(now_ms, ttl_ms));
        }
        let (expired, checkpoints) = {
            let mut lessor = self.shared.lessor();
            let expired = lessor.expired(now_ms, self.shared.config.request_timeout_ms());
            (expired, lessor.checkpoints_due(now_ms, CHECKPOINTS_PER_ENTRY))
        };
        for (id, granted_index) in expired {
            self.shared.propose_own(Command::LeaseEnd { id, granted_index }, Answer::Nobody);
        }
        if !checkpoints.is_empty() {
            let one = |(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = checkpoints.into_iter().map(one).collect();
            let command = Command::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints });
            self.shared.propose_own(command, Answer::Nobody);
        }
    }

    /// One slice of what compactions left behind.
    fn purge(&mut self) -> Result<(), Fatal> {
        if self.purge == Purge::Idle {
            return Ok(());
        }
        let now_ms = self.shared.now_ms();
        let break_holds = self.held_since_ms.is_some_and(|since_ms| now_ms >= since_ms + HOLD_PATIENCE_MS);
        let budget = PurgeBudget { entries: self.purge_entries, break_holds };
        let started = Instant::now();
        let progress = self.state.store_mut().purge_step(budget)?;
        if !matches!(progress, PurgeProgress::Held(_)) {
            self.held_since_ms = None;
        }
        self.purge = match progress {
            PurgeProgress::Idle => Purge::Idle,
            PurgeProgress::More => {
                let took = started.elapsed();
                self.purge_entries = next_slice(self.purge_entries, took);
                self.shared.observer.purge_slice(took.as_secs_f64());
                Purge::Ready
            }
            PurgeProgress::Done(revision) => {
                self.shared.observer.purge_slice(started.elapsed().as_secs_f64());
                self.shared.purged.send_replace(revision);
                while let Some((_, since)) = self.compactions.pop_front_if(|(done, _)| *done <= revision) {
                    self.shared.observer.compacted(since.elapsed().as_secs_f64());
                }
                Purge::Ready
            }
            PurgeProgress::Held(_) => {
                self.held_since_ms.get_or_insert(now_ms);
                Purge::Waiting
            }
            PurgeProgress::AwaitsCheckpoint => {
                self.shared.checkpointer.extend([CheckpointMessage::Checkpoint]);
                Purge::Waiting
            }
        };
        Ok(())
    }

    /// Apply waits while two overlays are full: the checkpointer is behind, and memory is bounded.
    fn wait_for_overlay(&mut self) {
        let max = self.shared.overlay_bytes * OVERLAY_TIMES_MAX;
        let mut wakes = Vec::new();
        while self.shared.db.overlay_bytes() > max && !self.shared.failed() {
            self.shared.checkpointer.extend([CheckpointMessage::Checkpoint]);
            self.shared.overlay_room.drain(&mut wakes, OVERLAY_PATIENCE);
            wakes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_purge_settles_at_what_its_time_allows() {
        for (each_ns, least, most) in [(100, 1000, 2000), (1_000, 90, 250), (100_000, 50, 50)] {
            let mut entries = 1000;
            for round in 0..100 {
                entries = next_slice(entries, Duration::from_nanos(each_ns * entries as u64));
                assert!(round < 20 || (least..=most).contains(&entries), "{entries} at {each_ns} ns each");
            }
        }
    }
}
