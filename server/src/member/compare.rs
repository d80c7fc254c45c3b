// SPDX-License-Identifier: Apache-2.0
//! The comparison of a member's data with its peers': before it starts, after compactions, and on a schedule.
//!
//! Owns      when peers are asked, and what follows when they hold something else: the alarm CORRUPT, or no start.
//! Holds     1. only a leader that has applied everything before its term compares while it runs (CO-3, CO-4);
//!           2. a verdict is acted on once: an alarm that an operator ended is not raised again for what was found before;
//!           3. who starts waits for its peers for a bounded time, and without an answer it starts.
//! Never     judges: `cairn_core::divergence` does; nor repairs.

use super::{
    Member, Opened,
    config::{Level, Observer, StartError},
    peers::{
        hashes::{Asked, Question, Which, others},
        reach::Reach,
    },
};
use cairn_core::{
    ClusterId, Command, MemberId, Refusal,
    boot::request_timeout_ms,
    divergence::{Verdict, judge_compaction, judge_start, judge_stores},
};
use cairn_mvcc::{HASHED_STORE_BYTES_MAX, HashDone, OpError, Reader};
use cairn_proto::etcdserverpb as pb;
use std::{panic::Location, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

/// What is compared, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompareConfig {
    /// Hashes that compactions left are compared after each, and again as often: `--compact-hash-check-time`. `None`
    /// without the gate `CompactHashCheck`.
    pub compactions_every: Option<Duration>,
    /// Whole stores are: `--corrupt-check-time`.
    pub stores_every: Option<Duration>,
    /// The gate `InitialCorruptCheck`.
    pub at_start: AtStart,
}

/// Whether a member compares its store with its peers' before it starts, and what keeps it from that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtStart {
    Never,
    /// A store below 256 MiB is compared; a majority of the members that holds something else.
    Majority,
    /// A store of any size is; one that holds something else.
    Anyone,
}

impl Default for CompareConfig {
    fn default() -> CompareConfig {
        CompareConfig {
            compactions_every: Some(Duration::from_secs(60)),
            stores_every: None,
            at_start: AtStart::Majority,
        }
    }
}

/// Members purge what was compacted, and so have its hash, at about the same time.
const SETTLE: Duration = Duration::from_secs(1);
/// What is remembered is told at once.
const REMEMBERED_PATIENCE: Duration = Duration::from_secs(5);
/// A peer reads its whole store.
const STORE_PATIENCE: Duration = Duration::from_secs(600);
/// One that starts waits for as long for peers to hash stores below 256 MiB.
const START_PATIENCE: Duration = Duration::from_secs(2);

impl Member {
    /// Compares this member's data with its peers' whenever it leads, until the caller lets go of it.
    pub async fn compare_with_peers(self) {
        // A peer that hashes its whole store takes its time.
        tokio::join!(self.watch_compactions(), self.watch_stores());
    }

    async fn watch_compactions(&self) {
        let Some(period) = self.shared.config.compare.compactions_every else { return };
        let mut due = every(period);
        let mut purged = self.shared.purged.subscribe();
        let mut checked = 0;
        loop {
            tokio::select! {
                // The sender is this member's own.
                _ = purged.changed() => sleep(SETTLE).await,
                _ = due.tick() => {}
            }
            purged.mark_unchanged();
            if *self.shared.ready.borrow() {
                checked = self.compare_compactions(checked).await;
            }
        }
    }

    async fn watch_stores(&self) {
        let Some(period) = self.shared.config.compare.stores_every else { return };
        let mut due = every(period);
        loop {
            due.tick().await;
            if *self.shared.ready.borrow() {
                self.compare_stores().await;
            }
        }
    }

    /// Compares what compactions above `checked` left, the newest first. Gives the revision up to which that is done:
    /// of a compaction at which all members are equal, or were found not to be (CO-4).
    async fn compare_compactions(&self, checked: i64) -> i64 {
        let peers = self.peers_to_compare();
        let hashes = self.shared.reader.compaction_hashes();
        let unchecked = hashes.into_iter().rev().filter(|own| own.hash_revision > checked);
        for own in unchecked.take_while(|_| !peers.is_empty()) {
            let answers = self.ask(own.hash_revision, Which::Remembered, REMEMBERED_PATIENCE, &peers).await;
            let verdict = judge_compaction((self.member_id().0, own), &answers);
            if verdict == Verdict::Open {
                continue;
            }
            self.tell("finished compaction hash check", &own, &verdict);
            return if self.blame(&verdict, &own, &answers).await { own.hash_revision } else { checked };
        }
        checked
    }

    /// Compares whole stores (CO-3).
    async fn compare_stores(&self) {
        let peers = self.peers_to_compare();
        if peers.is_empty() {
            return;
        }
        let compared = async {
            let first = self.read(true, |reader| reader.hash_kv_anew(0)).await?;
            let answers = self.ask(first.hash_revision, Which::Anew, STORE_PATIENCE, &peers).await;
            // Whoever is ahead of what is applied here after this is ahead of what was committed.
            self.linearize().await?;
            let second = self.read(true, |reader| reader.hash_kv_anew(0)).await?;
            Ok::<_, Refusal>((first, second, answers))
        };
        match compared.await {
            Ok((first, second, answers)) => {
                let verdict = judge_stores((self.member_id().0, first), second, &answers);
                self.tell("finished peer corruption check", &first, &verdict);
                self.blame(&verdict, &first, &answers).await;
            }
            Err(refusal) => {
                let fields = [("error", refusal.text.to_owned())];
                self.shared.log(Level::Warn, "failed to check hash KV", &fields);
            }
        }
    }

    fn peers_to_compare(&self) -> Vec<Asked> {
        others(&self.shared.cluster(), self.member_id().0)
    }

    async fn ask(
        &self,
        revision: i64,
        which: Which,
        patience: Duration,
        peers: &[Asked],
    ) -> Vec<(u64, Option<HashDone>)> {
        let reach = self.shared.config.reach.clone();
        let question = Question { reach, cluster: self.cluster_id(), revision, which, patience };
        let answers = question.ask(peers).await.into_iter().map(|(id, answer)| {
            let answer = answer.inspect_err(|error| {
                let fields = [("remote-peer-id", format!("{id:x}")), ("error", error.clone())];
                self.shared.log(Level::Debug, "a peer told no hash to compare with", &fields);
            });
            (id, answer.ok())
        });
        answers.collect()
    }

    fn tell(&self, message: &str, own: &HashDone, verdict: &Verdict) {
        let fields = [
            ("revision", own.hash_revision.to_string()),
            ("compact-revision", own.compact_revision.to_string()),
            ("hash", own.hash.to_string()),
            ("equal", matches!(verdict, Verdict::Equal | Verdict::Open).to_string()),
        ];
        self.shared.log(Level::Info, message, &fields);
        self.shared.observer.compared(!verdict.blamed().is_empty());
    }

    /// Raises the alarm for those who are to blame; false if that is to be tried again.
    async fn blame(&self, verdict: &Verdict, own: &HashDone, answers: &[(u64, Option<HashDone>)]) -> bool {
        let blamed = verdict.blamed();
        if blamed.is_empty() {
            return true;
        }
        let hex = |id: &u64| format!("{id:x}");
        let hashes = [(self.member_id().0, Some(*own))].into_iter().chain(answers.iter().copied());
        let hashes = hashes.map(|(id, told)| {
            let told = told.map_or("none".to_owned(), |told| {
                format!("{} of {} above {}", told.hash, told.hash_revision, told.compact_revision)
            });
            format!("{id:x}={told}")
        });
        let fields = [
            ("corrupt-member-ids", blamed.iter().map(hex).collect::<Vec<_>>().join(",")),
            ("hashes", hashes.collect::<Vec<_>>().join(", ")),
        ];
        self.shared.log(Level::Error, "members hold different data", &fields);
        for &member_id in blamed {
            if self.shared.cluster().alarms.is_on(member_id, pb::AlarmType::Corrupt) {
                continue;
            }
            let alarm = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate as i32,
                member_id,
                alarm: pb::AlarmType::Corrupt as i32,
            };
            if let Err(refusal) = self.propose_by(Command::Alarm(alarm), None).await {
                let fields = [("error", refusal.text.to_owned())];
                self.shared.log(Level::Warn, "failed to raise the alarm CORRUPT", &fields);
                return false;
            }
        }
        true
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What a member that is about to start compares.
pub(super) struct AboutToStart {
    member_id: MemberId,
    cluster_id: ClusterId,
    at_start: AtStart,
    patience: Duration,
    reader: Reader,
    reach: Reach,
    peers: Vec<Asked>,
}

impl AboutToStart {
    /// `None` if there is nothing to compare: it is alone, or has applied nothing yet.
    pub(super) fn new(opened: &Opened) -> Option<AboutToStart> {
        let (config, booted) = (&opened.config, &opened.booted);
        let at_start = config.compare.at_start;
        let patience = match at_start {
            AtStart::Never => return None,
            AtStart::Majority => START_PATIENCE,
            AtStart::Anyone => {
                Duration::from_millis(request_timeout_ms(config.heartbeat_ms, config.election_ms))
            }
        };
        let (member_id, cluster_id) = (booted.member_id, booted.cluster_id);
        let cluster = booted.state.cluster();
        let peers = others(cluster, member_id.0);
        let is_member = cluster.members.get(member_id.0).is_some();
        let reader = booted.state.reader();
        (is_member && !peers.is_empty()).then_some(AboutToStart {
            member_id,
            cluster_id,
            at_start,
            patience,
            reader,
            reach: config.reach.clone(),
            peers,
        })
    }

    /// CO-1.
    ///
    /// # Errors
    /// [`StartError::Diverged`], if this is not to start.
    pub(super) async fn check(self, observer: &dyn Observer) -> Result<(), StartError> {
        let (reader, strict) = (self.reader.clone(), self.at_start == AtStart::Anyone);
        let hashing = move || -> Result<Option<HashDone>, OpError> {
            let wanted = strict || reader.live_bytes()? < HASHED_STORE_BYTES_MAX;
            wanted.then(|| reader.hash_kv_anew(0)).transpose()
        };
        let log = |level: Level, message: &str, fields: &[(&'static str, String)]| {
            observer.log(Location::caller(), level, message, fields);
        };
        let own = match tokio::task::spawn_blocking(hashing).await {
            Ok(Ok(Some(own))) => own,
            Ok(Ok(None)) => return Ok(()),
            // Whoever needs what cannot be read meets it again, and the member then ends for it.
            Ok(Err(error)) => {
                log(
                    Level::Warn,
                    "failed to hash the store before the start",
                    &[("error", error.to_string())],
                );
                return Ok(());
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let question = Question {
            reach: self.reach,
            cluster: self.cluster_id,
            revision: own.hash_revision,
            which: Which::Anew,
            patience: self.patience,
        };
        let mut answers = Vec::new();
        for (id, answer) in question.ask(&self.peers).await {
            if let Err(error) = &answer {
                let fields = [("remote-peer-id", format!("{id:x}")), ("error", error.clone())];
                log(Level::Warn, "a peer told no hash to compare with", &fields);
            }
            answers.push((id, answer.ok()));
        }
        let verdict = judge_start(&own, &answers, strict);
        let differs_from: Vec<String> = verdict.differs_from.iter().map(|id| format!("{id:x}")).collect();
        let differs_from = differs_from.join(", ");
        if verdict.refuses {
            return Err(StartError::Diverged {
                member_id: self.member_id,
                differs_from,
                revision: own.hash_revision,
            });
        }
        if verdict.differs_from.is_empty() {
            log(Level::Info, "initial corruption checking passed; no corruption", &[]);
        } else {
            let fields = [("peers", differs_from), ("revision", own.hash_revision.to_string())];
            log(Level::Error, "members hold different data; this one is not known to be wrong", &fields);
        }
        Ok(())
    }
}
