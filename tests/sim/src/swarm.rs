// SPDX-License-Identifier: Apache-2.0
//! What one seed is like: sizes, traffic, faults.
//!
//! Owns      the draw of a configuration, wide enough that every part of the store is met small and often.
//! Holds     the same seed gives the same configuration.
//! Never     takes a setting from anywhere else.

use cairn_core::watch::HubOptions;
use cairn_engine::{Options, io::Vfs, sim::SplitMix, wal::WalOptions};
use std::sync::Arc;

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Write,
    Read,
    Replica,
    Sync,
    State,
    Time,
    Checkpoint,
    Purge,
    Watch,
    Drain,
    CatchUp,
    Answer,
    KeepAlive,
    Hash,
    Fault,
    Crash,
    /// The next crash comes at a chosen state.
    CrashAt,
    Defragment,
    /// A message between members arrives.
    Deliver,
    /// Nothing goes wrong for a moment: every thread of every member has a turn, and messages arrive.
    Calm,
    /// Links are cut or healed.
    Partition,
    /// A piece of a snapshot is sent.
    Transfer,
    /// A voter is asked to lead.
    Lead,
    /// A write of the log is said to hang.
    Hang,
    /// A member is added, promoted, moved or removed.
    Change,
    /// A member does nothing for a while.
    Pause,
    /// A member's machine is lost for ever.
    Lose,
    /// A log is held against those of the others.
    Inspect,
    /// A byte of a member's store changes on its disk.
    Rot,
    /// A member reads its store from the medium.
    Scrub,
    /// Bytes of a member's log change on its disk.
    RotLog,
    /// An operator takes the next step to replace a member whose log is damaged.
    Replace,
}

/// How many members a cluster begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Founders {
    Of(usize),
    /// Mostly three; sometimes five or seven, or one that others join.
    Drawn,
}

impl Founders {
    fn draw(self, rng: &mut SplitMix) -> usize {
        match self {
            Founders::Of(members) => members,
            Founders::Drawn => one_of(rng, &[3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 5, 5, 7]),
        }
    }
}

/// States of a member in which chance alone seldom kills it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A checkpoint was begun and has not ended.
    InCheckpoint,
    /// A compaction is applied, and what it made garbage is not all gone.
    InCompaction,
    /// Entries are durable and not applied.
    DurableNotApplied,
    /// Entries are applied, and nobody was told.
    AppliedNotAnswered,
}

impl Moment {
    pub const ALL: [Moment; 4] =
        [Moment::InCheckpoint, Moment::InCompaction, Moment::DurableNotApplied, Moment::AppliedNotAnswered];
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub founders: usize,
    pub steps: u64,
    pub keys: u64,
    pub clients: u64,
    pub watchers: usize,
    pub value_bytes: u64,
    pub quota_bytes: u64,
    /// From this size on a response is cut, if its watcher asked for that.
    pub fragment_bytes: usize,
    /// Each action with how often it is drawn.
    pub weights: Vec<(Action, u64)>,
    pub hub: HubOptions,
    pub network: NetworkOptions,
    /// Entries that logs keep for followers that are a little behind.
    pub log_kept: u64,
    /// How far time goes in one step.
    pub times_ms: Vec<u64>,
    /// What clocks show when a hundred milliseconds have passed: each member has one of these.
    pub rates: Vec<u64>,
    /// How many learners there may be; 0 is no limit.
    pub learners_max: u32,
    /// Clients are users, and change users.
    pub users: bool,
    overlay_entries: u64,
    overlay_bytes: u64,
    node_bytes: usize,
    segment_bytes: u64,
    batch_bytes: usize,
    cache_bytes: usize,
}

/// How the network behaves between members that are not cut off.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// One message in so many is lost; 0 is none.
    pub lost: u64,
    /// One in so many comes twice.
    pub doubled: u64,
    /// Messages overtake each other on one link.
    pub reordered: bool,
    /// Who sends over a cut link is told.
    pub tells: bool,
}

/// Makes a draw of whether logs rot that is no other's.
const LOGS_ROT: u64 = 0x6c6f_6773;

fn one_of<T: Copy>(rng: &mut SplitMix, choices: &[T]) -> T {
    choices[rng.index(choices.len())]
}

impl Swarm {
    pub fn draw(rng: &mut SplitMix, founders: Founders) -> Swarm {
        use Action::*;
        let cluster = founders != Founders::Of(1);
        let founders = founders.draw(rng);
        let mut weights = vec![
            (Write, one_of(rng, if cluster { &[100, 200, 400] } else { &[40, 100, 200] })),
            (Read, one_of(rng, &[10, 40, 80])),
            (Replica, one_of(rng, &[40, 100])),
            (Sync, one_of(rng, &[20, 60, 120])),
            (State, one_of(rng, &[20, 60, 120])),
            (Time, one_of(rng, if cluster { &[40, 120] } else { &[10, 40] })),
            (Answer, one_of(rng, &[10, 60])),
            (Hash, 3),
        ];
        // Each of the rest is off in some seeds, so that others are met without it.
        for (action, weight) in
            [(Checkpoint, 30), (Purge, 30), (Watch, 15), (Drain, 60), (CatchUp, 40), (KeepAlive, 10)]
        {
            if !rng.one_in(5) {
                weights.push((action, weight));
            }
        }
        for action in [Fault, Crash, CrashAt, Defragment] {
            if !rng.one_in(4) {
                weights.push((action, one_of(rng, &[1, 3])));
            }
        }
        if cluster {
            weights.extend([
                (Deliver, one_of(rng, &[100, 400])),
                (Calm, one_of(rng, &[40, 200])),
                (Transfer, 40),
                (Replica, 100),
                (Sync, 60),
                (Inspect, 2),
            ]);
            for (action, weight) in [(Partition, 2), (Lead, 1), (Hang, 1), (Pause, 1)] {
                if !rng.one_in(3) {
                    weights.push((action, weight));
                }
            }
            // Who begins alone is joined by others.
            if founders == 1 || rng.one_in(3) {
                weights.push((Change, one_of(rng, &[4, 20])));
            }
            if rng.one_in(4) {
                weights.push((Lose, 1));
            }
            // A draw of its own: the seeds without are what they were.
            if rng.clone().one_in(5) {
                weights.extend([(Rot, 2), (Scrub, 2)]);
            }
            if SplitMix::new(rng.clone().next_u64() ^ LOGS_ROT).one_in(6) {
                weights.extend([(RotLog, 6), (Replace, 20)]);
            }
        }
        let rates = match rng.below(4) {
            1 if cluster => vec![90, 100, 110],
            2 if cluster => vec![50, 100, 150],
            _ => vec![100],
        };
        let network = NetworkOptions {
            lost: one_of(rng, &[0, 0, 100, 10]),
            doubled: one_of(rng, &[0, 50]),
            reordered: rng.one_in(2),
            tells: rng.one_in(2),
        };
        let hub = HubOptions {
            progress_interval_ms: one_of(rng, &[200, 5_000]),
            ring_bytes_max: one_of(rng, &[1 << 10, 1 << 20]),
            ring_revisions_max: one_of(rng, &[1, 16, 1024]),
            seed: rng.next_u64(),
        };
        Swarm {
            founders,
            rates,
            learners_max: one_of(rng, &[0, 1, 1, 2]),
            // A draw of its own: the seeds without are what they were.
            users: rng.clone().one_in(3),
            steps: if cluster { 10_000 } else { 3_000 },
            network,
            log_kept: one_of(rng, &[0, 0, 5, 200]),
            times_ms: if cluster { vec![1, 10, 50, 100, 300] } else { vec![1, 30, 100, 700, 3_000] },
            keys: one_of(rng, &[3, 20, 200]),
            clients: one_of(rng, &[1, 4, 16]),
            watchers: one_of(rng, &[1, 4, 12]),
            value_bytes: one_of(rng, if cluster { &[8, 1_000, 5_000] } else { &[8, 200, 5_000] }),
            quota_bytes: one_of(rng, &[u64::MAX, 64 << 10, 512 << 10]),
            fragment_bytes: one_of(rng, &[200, 2 << 10]),
            weights,
            hub,
            overlay_entries: one_of(rng, &[4, 40, 100_000]),
            overlay_bytes: one_of(rng, &[4 << 10, 64 << 10, 64 << 20]),
            node_bytes: one_of(rng, &[512, 4 << 10, usize::MAX]),
            segment_bytes: one_of(rng, if cluster { &[8 << 10, 32 << 10] } else { &[32 << 10, 256 << 10] }),
            batch_bytes: one_of(rng, &[4 << 10, 8 << 20]),
            cache_bytes: one_of(rng, &[0, 4 << 10, 16 << 20]),
        }
    }

    /// Whether stores rot.
    pub fn rots(&self) -> bool {
        self.weights.iter().any(|(action, _)| *action == Action::Rot)
    }

    /// Whether logs rot.
    pub fn rots_logs(&self) -> bool {
        self.weights.iter().any(|(action, _)| *action == Action::RotLog)
    }

    pub fn options(&self, vfs: Arc<dyn Vfs>) -> Options {
        let mut options = Options::default();
        options.vfs = vfs;
        options.overlay_entries = self.overlay_entries;
        options.overlay_bytes = self.overlay_bytes;
        options.node_bytes_max = self.node_bytes;
        options.checkpoint_every_ms = 5_000;
        options
    }

    pub fn wal_options(&self, vfs: Arc<dyn Vfs>) -> WalOptions {
        let mut options = WalOptions::new(vfs, 0, 0);
        options.first_segment_bytes = self.segment_bytes;
        options.segment_bytes = self.segment_bytes * 4;
        options.batch_bytes_max = self.batch_bytes;
        options.cache_bytes = self.cache_bytes;
        options
    }

    pub fn action(&self, rng: &mut SplitMix) -> Action {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(total);
        for (action, weight) in &self.weights {
            if at < *weight {
                return *action;
            }
            at -= weight;
        }
        unreachable!("the weights add up")
    }
}
