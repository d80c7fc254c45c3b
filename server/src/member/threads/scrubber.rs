// SPDX-License-Identifier: Apache-2.0
//! The scrub of a member's store: how fast it goes, and what follows when it finds damage.
//!
//! Owns      where the scrub is, its pace, and the order to raise the alarm.
//! Holds     1. over any second no more is read than the rate and one step;
//!           2. damage is logged and counted; where the others go on without this member it ends, to get another store
//!              from a peer; where they cannot, it raises CORRUPT for this member, again with each pass that finds it.
//! Never     ends a member that is alone: what it found may never be asked for.

use super::super::{
    config::{Ended, Level},
    shared::{Answer, Shared},
};
use cairn_core::{Command, repair};
use cairn_engine::{
    Damage, Scrub,
    io::{Budget, Pacer},
};
use cairn_proto::etcdserverpb as pb;

/// A pass begins at least this long after the one before it did.
const PASS_EVERY_MS: u64 = 3_600_000;
/// Steps a second, as far as the thread looks so often.
const STEPS_S: u64 = 10;
const STEP_BYTES_MAX: u64 = 16 << 20;
/// While an alarm that was asked for is not on, it is asked for again after this time.
const ALARM_EVERY_MS: u64 = 5_000;
/// Bytes of a key that are told.
const KEY_BYTES_TOLD: usize = 128;

pub(super) struct Scrubber {
    pacer: Pacer,
    step: Budget,
    scrub: Scrub,
    /// When the next step is due, and when the pass began.
    due_ms: u64,
    began_ms: u64,
    alarm_wanted: bool,
    alarm_asked_ms: Option<u64>,
}

impl Scrubber {
    /// `None` at a rate of 0.
    pub(super) fn new(bytes_s: u64, now_ms: u64) -> Option<Scrubber> {
        (bytes_s > 0).then(|| {
            let step = (bytes_s / STEPS_S).clamp(1, STEP_BYTES_MAX);
            Scrubber {
                pacer: Pacer::new(bytes_s, step, now_ms),
                step: Budget::bytes(step),
                scrub: Scrub::default(),
                due_ms: now_ms,
                began_ms: now_ms,
                alarm_wanted: false,
                alarm_asked_ms: None,
            }
        })
    }

    /// One step, if it is due.
    pub(super) fn work(&mut self, shared: &Shared) {
        let now_ms = shared.now_ms();
        if now_ms >= self.due_ms {
            self.step(shared, now_ms);
        }
        self.raise(shared, now_ms);
    }

    fn step(&mut self, shared: &Shared, now_ms: u64) {
        let step = shared.db.scrub(&mut self.scrub, self.step);
        self.due_ms = now_ms + self.pacer.take(step.bytes, now_ms);
        if step.pass_ended {
            self.began_ms = self.due_ms.max(self.began_ms + PASS_EVERY_MS);
            self.due_ms = self.began_ms;
        }
        for damage in &step.damage {
            tell(shared, damage);
            if repair::is_of_store(&damage.error) && shared.others_go_on() {
                shared.end(Ended::Damaged(damage.error.clone().into()));
            } else {
                self.alarm_wanted = true;
            }
        }
        shared.observer.scrubbed(&step);
    }

    /// Asks for the alarm until it is on: a proposal may get lost.
    fn raise(&mut self, shared: &Shared, now_ms: u64) {
        if !self.alarm_wanted {
            return;
        }
        if shared.cluster().alarms.is_on(shared.member_id.0, pb::AlarmType::Corrupt) {
            (self.alarm_wanted, self.alarm_asked_ms) = (false, None);
        } else if self.alarm_asked_ms.is_none_or(|asked_ms| now_ms >= asked_ms + ALARM_EVERY_MS) {
            self.alarm_asked_ms = Some(now_ms);
            let alarm = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate as i32,
                member_id: shared.member_id.0,
                alarm: pb::AlarmType::Corrupt as i32,
            };
            shared.propose_own(Command::Alarm(alarm), Answer::Nobody);
        }
    }
}

fn tell(shared: &Shared, damage: &Damage) {
    let mut fields = vec![("error", damage.error.to_string())];
    if let Some((tree, keys)) = &damage.keys {
        let told = |key: &[u8]| key[..key.len().min(KEY_BYTES_TOLD)].escape_ascii().to_string();
        fields.push(("tree", (*tree).to_owned()));
        fields.push(("from-key", told(&keys.low)));
        fields.push(("to-key", keys.high.as_deref().map_or_else(String::new, told)));
    }
    shared.log(Level::Error, "the scrub found damage", &fields);
}
