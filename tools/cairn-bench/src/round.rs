// SPDX-License-Identifier: Apache-2.0
//! What is kept of a measured window, and the medians over all rounds of it.
//!
//! Owns      which figures a window has, and their names in JSON.
//! Holds     a figure that one round lacks has no median: fewer rounds are never passed off as all.
//! Never     measures, and knows no goal.

use serde_json::{Map, Value, json};

use crate::load::Measured;
use crate::request::Operation;
use crate::table::{Median, ms};

pub struct Round {
    pub per_second: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub server_us: Option<f64>,
    pub client_us: Option<f64>,
    pub client_busy: f64,
}

impl Round {
    pub fn of(operation: Operation, measured: &Measured) -> Round {
        let quantile = |q| Some(ms(measured.series.get(&operation)?.quantile(q)));
        Round {
            per_second: measured.per_second(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            server_us: measured.server_cpu_us(),
            client_us: measured.client_cpu_us(),
            client_busy: measured.client_busy(),
        }
    }
}

/// A figure of a round; None where the round has none.
pub type Figure = fn(&Round) -> Option<f64>;

pub const PER_SECOND: Figure = |round| Some(round.per_second);
pub const P99_MS: Figure = |round| round.p99_ms;
pub const SERVER_US: Figure = |round| round.server_us;
pub const FIGURES: [(&str, Figure); 6] = [
    ("requests_per_second", PER_SECOND),
    ("p50_ms", |round| round.p50_ms),
    ("p99_ms", P99_MS),
    ("server_cpu_us", SERVER_US),
    ("client_cpu_us", |round| round.client_us),
    ("client_busy_percent", |round| Some(round.client_busy * 100.0)),
];

/// All rounds of one window.
#[derive(Default)]
pub struct Rounds(Vec<Round>);

impl Rounds {
    pub fn push(&mut self, round: Round) {
        self.0.push(round);
    }

    /// None if a round has no such figure, or there is no round.
    pub fn median(&self, figure: Figure) -> Option<Median> {
        let figures: Option<Vec<f64>> = self.0.iter().map(figure).collect();
        Median::of(&figures?)
    }

    /// The median to another's.
    pub fn ratio_to(&self, other: &Rounds, figure: Figure) -> Option<f64> {
        let ratio = self.median(figure)?.median / other.median(figure)?.median;
        ratio.is_finite().then_some(ratio)
    }

    /// The median of each figure, with its spread, as a row has them.
    pub fn cells(&self) -> [String; FIGURES.len()] {
        FIGURES.map(|(_, figure)| self.median(figure).map_or_else(|| "-".to_owned(), Median::with_spread))
    }

    pub fn json(&self) -> Value {
        let figures = FIGURES.iter().map(|(name, figure)| {
            let median = self.median(*figure);
            let rounds: Vec<Option<f64>> = self.0.iter().map(figure).collect();
            let value = json!({
                "median": median.map(|m| m.median),
                "min": median.map(|m| m.min),
                "max": median.map(|m| m.max),
                "rounds": rounds,
            });
            ((*name).to_owned(), value)
        });
        Value::Object(figures.collect::<Map<_, _>>())
    }
}

impl From<Vec<Round>> for Rounds {
    fn from(rounds: Vec<Round>) -> Rounds {
        Rounds(rounds)
    }
}
