// SPDX-License-Identifier: Apache-2.0
//! The goals, as ratios, and whether they are met.
//!
//! Owns      the list of goals and the text of why one is missed.
//! Holds     a goal is for values of 512 bytes, and a run that is not quick.
//! Never     hides a goal that was not measured: it says so.

use crate::entrants::{BBOLT, CAIRN, LMDB};
use crate::figures::{Figure, Measure, median};
use crate::journal::Results;
use crate::settings::Settings;

/// Why goals are missed, by id: looked at by a person, one line each.
const REASONS: &str = include_str!("../reasons.tsv");

pub struct Goal {
    pub id: &'static str,
    pub what: &'static str,
    at_least: bool,
    bound: f64,
    unit: &'static str,
    value: fn(&Results, &Settings) -> Option<f64>,
}

pub const GOALS: &[Goal] = &[
    Goal {
        id: "insert-floor",
        what: "insert, speed against the floor",
        at_least: true,
        bound: 0.75,
        unit: "x",
        value: |results, _| Some(1.0 / results.figure(CAIRN, Measure::Insert)?.floors),
    },
    Goal {
        id: "insert-lmdb",
        what: "insert, speed against LMDB",
        at_least: true,
        bound: 1.3,
        unit: "x",
        value: |results, _| pair(results, Measure::Insert, LMDB),
    },
    Goal {
        id: "read-lmdb",
        what: "point read, time against LMDB",
        at_least: false,
        bound: 1.2,
        unit: "x",
        value: |results, _| Some(1.0 / pair(results, Measure::Read, LMDB)?),
    },
    Goal {
        id: "read-bbolt",
        what: "point read, time against bbolt",
        at_least: false,
        bound: 0.5,
        unit: "x",
        value: |results, _| Some(1.0 / pair(results, Measure::Read, BBOLT)?),
    },
    Goal {
        id: "scan-lmdb",
        what: "revision scan, speed against LMDB",
        at_least: true,
        bound: 0.8,
        unit: "x",
        value: |results, _| pair(results, Measure::Scan, LMDB),
    },
    Goal {
        id: "file-live",
        what: "file after churn and two idle minutes, against the live bytes",
        at_least: false,
        bound: 1.25,
        unit: "x",
        value: |results, settings| Some(results.sizes.get(CAIRN)?.data as f64 / settings.live_bytes() as f64),
    },
    Goal {
        id: "reopen-large",
        what: "reopen after kill -9 at 10 million revisions",
        at_least: false,
        bound: 1.0,
        unit: "s",
        value: |results, _| {
            Some(median(results.reopens_ms.get(&(CAIRN.to_owned(), true))?.clone())? / 1000.0)
        },
    },
];

/// How many times faster the engine is than `rival`.
fn pair(results: &Results, measure: Measure, rival: &str) -> Option<f64> {
    let (own, other): (Figure, Figure) = (results.figure(CAIRN, measure)?, results.figure(rival, measure)?);
    Some(own.speed_against(&other))
}

/// A goal beside what was measured.
pub struct Verdict {
    pub goal: &'static Goal,
    /// `None` if there is nothing to judge.
    pub value: Option<f64>,
}

impl Verdict {
    pub fn all(results: &Results, settings: &Settings) -> Vec<Verdict> {
        GOALS.iter().map(|goal| Verdict { goal, value: (goal.value)(results, settings) }).collect()
    }

    pub fn is_met(&self) -> Option<bool> {
        let Goal { at_least, bound, .. } = *self.goal;
        self.value.map(|value| if at_least { value >= bound } else { value <= bound })
    }

    pub fn word(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "ok",
            Some(false) => "miss",
            None => "not measured",
        }
    }

    pub fn wanted(&self) -> String {
        let Goal { at_least, bound, unit, .. } = *self.goal;
        format!("{} {bound:.2} {unit}", if at_least { "at least" } else { "at most" })
    }

    pub fn found(&self) -> String {
        self.value.map_or("-".to_owned(), |value| format!("{value:.2} {}", self.goal.unit))
    }

    /// Why a goal that is missed is missed.
    pub fn reason(&self) -> Option<&'static str> {
        if self.is_met() != Some(false) {
            return None;
        }
        let reason =
            REASONS.lines().filter_map(|line| line.split_once('\t')).find(|(id, _)| *id == self.goal.id);
        Some(reason.map_or("not looked into yet", |(_, why)| why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_bound_and_missed_beyond() {
        let at = |goal: &'static Goal, value| Verdict { goal, value: Some(value) }.word();
        for goal in GOALS {
            let (within, beyond) = if goal.at_least { (1.001, 0.999) } else { (0.999, 1.001) };
            assert_eq!(at(goal, goal.bound), "ok", "{}", goal.id);
            assert_eq!(at(goal, goal.bound * within), "ok", "{}", goal.id);
            assert_eq!(at(goal, goal.bound * beyond), "miss", "{}", goal.id);
        }
    }

    #[test]
    fn each_reason_is_of_a_goal() {
        for line in REASONS.lines() {
            let (id, why) = line.split_once('\t').expect("an id and a reason");
            assert!(GOALS.iter().any(|goal| goal.id == id), "{id}: there is no such goal");
            assert!(!why.is_empty());
        }
    }
}
