// SPDX-License-Identifier: Apache-2.0
//! Text that people read: tables that line up, numbers, and goals.
//!
//! Owns      how a number, a table and a goal look.
//! Never     measures, and never decides what a goal is.

use std::fmt;
use std::time::Duration;

/// A table whose first columns are words, to the left, and whose others are numbers, to the right.
pub struct Table {
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(words: usize, head: &[&str]) -> Table {
        Table { words, rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "cells of a row: {cells:?}");
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                line += &if column < self.words {
                    format!("{gap}{cell:<width$}")
                } else {
                    format!("{gap}{cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A whole number with commas: `1,234,567`.
pub fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that count, none of them lost to an exponent.
pub fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1000.0 => whole(number),
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        n if n >= 1.0 => format!("{number:.2}"),
        n if n >= 0.1 || n == 0.0 => format!("{number:.3}"),
        _ => format!("{number:.5}"),
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub fn or_dash(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), short)
}

/// The middle of some numbers, and the lowest and highest.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Median {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Median {
    /// None of no numbers.
    pub fn of(numbers: &[f64]) -> Option<Median> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[half - 1] + sorted[half]) / 2.0
        } else {
            sorted[half]
        };
        Some(Median { median, min, max })
    }

    /// The median, and how far the farthest lies from it, if they differ: `18,234 ±3%`.
    pub fn with_spread(self) -> String {
        if self.min == self.max || self.median <= 0.0 {
            return short(self.median);
        }
        let spread = (self.max - self.median).max(self.median - self.min) / self.median * 100.0;
        format!("{} ±{spread:.0}%", short(self.median))
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure that should reach a target: printed as `name value target ok|miss`.
#[derive(Clone, PartialEq, Debug)]
pub struct Goal {
    pub name: String,
    /// None if it could not be measured.
    pub value: Option<f64>,
    pub target: Target,
}

impl Goal {
    /// None if there is no figure to judge.
    pub fn met(&self) -> Option<bool> {
        let value = self.value.filter(|v| v.is_finite() && *v > 0.0)?;
        Some(match self.target {
            Target::AtLeast(least) => value >= least,
            Target::AtMost(most) => value <= most,
        })
    }

    pub fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "ok",
            Some(false) | None => "miss",
        }
    }

    pub fn target(&self) -> String {
        match self.target {
            Target::AtLeast(least) => format!(">={least}"),
            Target::AtMost(most) => format!("<={most}"),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or_else(|| "unknown".to_owned(), short);
        write!(f, "{} {value} {} {}", self.name, self.target(), self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new(1, &["work", "req/s", "p50 ms"]);
        table.row(vec!["put".into(), whole(18_234.4), short(0.4821)]);
        table.row(vec!["get-serializable".into(), whole(1_000_000.0), short(12.349)]);
        table.row(vec!["µ".into(), whole(7.0), or_dash(None)]);
        expect![[r#"
            work                  req/s  p50 ms
            put                  18,234   0.482
            get-serializable  1,000,000    12.3
            µ                         7       -
        "#]]
        .assert_eq(&table.to_string());
    }

    #[test]
    fn a_median_is_the_middle_and_knows_its_spread() {
        assert_eq!(Median::of(&[]), None);
        assert_eq!(Median::of(&[3.0, 1.0, 2.0]), Some(Median { median: 2.0, min: 1.0, max: 3.0 }));
        let four = Median::of(&[4.0, 1.0, 2.0, 3.0]).expect("there are four");
        assert_eq!(four.median, 2.5);
        assert_eq!(four.with_spread(), "2.50 ±60%");
        assert_eq!(Median::of(&[7.0]).map(Median::with_spread).as_deref(), Some("7.00"));
    }

    #[test]
    fn a_goal_is_met_missed_or_without_a_figure() {
        let goal = |value, target| Goal { name: "put.cpu".into(), value, target }.to_string();
        let lines = [
            goal(Some(2.0), Target::AtLeast(2.0)),
            goal(Some(0.51), Target::AtMost(0.5)),
            goal(Some(0.0012), Target::AtMost(0.01)),
            goal(None, Target::AtMost(0.5)),
            goal(Some(f64::NAN), Target::AtMost(0.5)),
        ];
        expect![[r#"
            put.cpu 2.00 >=2 ok
            put.cpu 0.510 <=0.5 miss
            put.cpu 0.00120 <=0.01 ok
            put.cpu unknown <=0.5 miss
            put.cpu NaN <=0.5 miss"#]]
        .assert_eq(&lines.join("\n"));
    }
}
