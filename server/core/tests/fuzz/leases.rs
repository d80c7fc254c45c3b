// SPDX-License-Identifier: Apache-2.0
//! Any sequence of grants, renewals, checkpoints and changes of leader, against a model of what was promised.
//!
//! Holds     1. no lease is named as expired before the time that its holder was told;
//!           2. a lease that ended is never renewed, and one that was not granted never found.

use super::program::Program;
use cairn_core::lessor::{KeepAlive, Lessor, MAX_TTL_S, StoredLease};
use cairn_engine::fuzz::Target;
use std::collections::BTreeMap;

pub const LESSOR: Target = Target { name: "lessor-model", run, fix: |_| {}, samples, anchors: super::spread };

const STEPS_MAX: usize = 300;
const MIN_TTL_S: i64 = 2;
const EXTEND_MS: u64 = 1_000;
const RETRY_MS: u64 = 3_000;
/// No host counts further: three thousand years.
const NOW_MS_MAX: u64 = 1 << 46;

/// What is promised of a lease.
#[derive(Clone, Copy)]
struct Promised {
    granted_index: u64,
    ttl_s: i64,
    remaining_s: i64,
    /// It does not end before; only where this member leads.
    until_ms: Option<u64>,
}

struct Run {
    lessor: Lessor,
    model: BTreeMap<i64, Promised>,
    now_ms: u64,
    index: u64,
    primary: bool,
    ended: usize,
}

fn after(now_ms: u64, seconds: i64) -> u64 {
    now_ms.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

impl Run {
    fn id(program: &mut Program<'_>) -> i64 {
        [1, 2, 3, 4, 5, i64::MAX, i64::MIN, -1][program.below(8)]
    }

    fn grant(&mut self, id: i64, asked_s: i64) {
        let effective = self.lessor.effective_ttl_s(asked_s);
        assert_eq!(effective.is_none(), asked_s > MAX_TTL_S);
        let Some(ttl_s) = effective else { return };
        self.index += 1;
        let granted = self.lessor.grant(self.now_ms, self.index, id, ttl_s);
        assert_eq!(granted.is_none(), self.model.contains_key(&id), "an id is given once at a time");
        if granted.is_some() {
            let until_ms = self.primary.then(|| after(self.now_ms, ttl_s));
            let promised = Promised { granted_index: self.index, ttl_s, remaining_s: 0, until_ms };
            self.model.insert(id, promised);
        }
    }

    fn keep_alive(&mut self, id: i64) {
        let renewed = self.lessor.keep_alive(self.now_ms, id);
        let known = self.model.get_mut(&id);
        match renewed {
            KeepAlive::NotPrimary => assert!(!self.primary),
            KeepAlive::NotFound => assert!(known.is_none()),
            KeepAlive::Expiring => {
                let until_ms = known.and_then(|lease| lease.until_ms).expect("a lease with an end");
                assert!(until_ms <= self.now_ms, "it is not over yet");
            }
            KeepAlive::ClearCheckpoint => assert!(known.is_some_and(|lease| lease.remaining_s > 0)),
            KeepAlive::Renewed { ttl_s } => {
                let lease = known.expect("only what was granted is renewed");
                assert_eq!(ttl_s, lease.ttl_s);
                lease.until_ms = Some(after(self.now_ms, ttl_s));
            }
        }
    }

    fn promote(&mut self) {
        self.lessor.promote(self.now_ms, EXTEND_MS);
        self.primary = true;
        for lease in self.model.values_mut() {
            let left_s = if lease.remaining_s > 0 { lease.remaining_s } else { lease.ttl_s };
            lease.until_ms = Some(after(self.now_ms.saturating_add(EXTEND_MS), left_s));
        }
    }

    fn expire(&mut self) {
        for (id, granted_index) in self.lessor.expired(self.now_ms, RETRY_MS) {
            let lease = self.model[&id];
            assert_eq!(lease.granted_index, granted_index);
            let until_ms = lease.until_ms.expect("only a leader ends leases");
            assert!(until_ms <= self.now_ms, "lease {id} ends {} ms early", until_ms - self.now_ms);
            assert!(self.lessor.is_granted_by(id, granted_index) && self.lessor.revoke(id));
            self.model.remove(&id);
            self.ended += 1;
        }
    }

    /// A new run of the member: it has what was stored, and leads nobody.
    fn restart(&mut self) {
        self.lessor = Lessor::new(MIN_TTL_S, true);
        self.primary = false;
        for (id, lease) in &mut self.model {
            let Promised { granted_index, ttl_s, remaining_s, .. } = *lease;
            self.lessor.restore(StoredLease { id: *id, ttl_s, remaining_s, granted_index });
            lease.until_ms = None;
        }
    }

    fn step(&mut self, op: u8, program: &mut Program<'_>) {
        match op % 12 {
            0 => {
                let id = Self::id(program);
                self.grant(id, i64::from(program.next().unwrap_or(0)));
            }
            1 => {
                let id = Self::id(program);
                self.grant(id, program.number());
            }
            2 | 3 => {
                let id = Self::id(program);
                self.keep_alive(id);
            }
            4 => {
                let id = Self::id(program);
                assert_eq!(self.lessor.revoke(id), self.model.remove(&id).is_some());
            }
            5 => {
                let (id, remaining_s) = (Self::id(program), program.number());
                let stored = self.lessor.checkpoint(id, remaining_s);
                assert_eq!(stored.is_some(), self.model.contains_key(&id));
                if let Some(lease) = self.model.get_mut(&id) {
                    lease.remaining_s = remaining_s;
                }
            }
            6 => self.promote(),
            7 => {
                self.lessor.demote();
                self.primary = false;
                self.model.values_mut().for_each(|lease| lease.until_ms = None);
            }
            8 => self.expire(),
            9 => {
                for (id, remaining_s) in self.lessor.checkpoints_due(self.now_ms, 3) {
                    assert!(remaining_s < self.model[&id].ttl_s);
                }
            }
            10 => self.restart(),
            _ => {
                let by_ms = u64::from(program.next().unwrap_or(0)) << (op >> 4);
                self.now_ms = (self.now_ms + by_ms * 100).min(NOW_MS_MAX);
            }
        }
        let mut ids = self.lessor.ids();
        ids.sort_unstable();
        assert!(ids.iter().eq(self.model.keys()), "{ids:?}");
        for (id, lease) in &self.model {
            let left = self.lessor.time_left(self.now_ms, *id).expect("it is known");
            assert_eq!(left.granted_ttl_s, lease.ttl_s);
        }
    }
}

fn run(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let mut run = Run {
        lessor: Lessor::new(MIN_TTL_S, true),
        model: BTreeMap::new(),
        now_ms: 0,
        index: 0,
        primary: false,
        ended: 0,
    };
    for _ in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        run.step(op, &mut program);
    }
    run.ended > 0
}

/// Programs of random steps, most of them with an end of some lease.
fn samples() -> Vec<Vec<u8>> {
    let mut rng = cairn_engine::sim::SplitMix::new(5);
    let mut random = || {
        let mut bytes = vec![6];
        bytes.resize(200 + rng.index(200), 0);
        rng.fill(&mut bytes[1..]);
        bytes
    };
    std::iter::repeat_with(&mut random).filter(|sample| run(sample)).take(4).collect()
}
