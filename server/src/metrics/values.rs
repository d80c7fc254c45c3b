// SPDX-License-Identifier: Apache-2.0
//! Numbers that many threads change.
//!
//! Never     knows the name of a metric.

use super::text::Text;
use std::{
    future::Future,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counts by upper bound.
pub struct Histogram {
    bounds: Box<[f64]>,
    /// One for each bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Histogram {
        let bounds: Box<[f64]> = bounds.into_iter().collect();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// A first bound, and how many there are, each twice the one before.
    pub fn doubling((first, count): (f64, usize)) -> Histogram {
        Self::new((0..count).map(|i| first * f64::from(1u32 << i)))
    }

    pub fn observe(&self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        self.sum.fetch_update(Relaxed, Relaxed, add).expect("the update always gives a value");
    }

    /// Does the work, and observes how many seconds it took.
    pub async fn time<T>(&self, work: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let done = work.await;
        self.observe(since.elapsed().as_secs_f64());
        done
    }

    /// Each bound with the count of what is at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).map(move |(bound, count)| {
            below += count.load(Relaxed);
            (bound, below)
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Relaxed))
    }
}

/// Histograms by what was done and whether it succeeded. One that has nothing in it is not told.
pub struct Outcomes {
    rows: Box<[[Histogram; 2]]>,
}

impl Outcomes {
    pub fn new(rows: usize, bounds: (f64, usize)) -> Outcomes {
        let row = |_| [Histogram::doubling(bounds), Histogram::doubling(bounds)];
        Outcomes { rows: (0..rows).map(row).collect() }
    }

    pub fn observe(&self, row: usize, succeeded: bool, value: f64) {
        self.rows[row][usize::from(succeeded)].observe(value);
    }

    pub fn render<'a>(
        &self,
        text: &mut Text,
        name: &str,
        help: &str,
        labels: impl Fn(usize, &'a str) -> Vec<(&'a str, &'a str)>,
    ) {
        let rows = self.rows.iter().enumerate();
        let all = rows.flat_map(|(row, [failed, done])| [(row, "false", failed), (row, "true", done)]);
        let mut used = all.filter(|(_, _, histogram)| histogram.count() > 0).peekable();
        if used.peek().is_some() {
            text.family(name, "histogram", help);
        }
        for (row, succeeded, histogram) in used {
            text.buckets(name, &labels(row, succeeded), histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bound_at_or_above_it() {
        let histogram = Histogram::doubling((1.0, 3));
        for value in [0.5, 1.0, 1.5, 100.0] {
            histogram.observe(value);
        }
        let counts: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(counts, [(1.0, 2), (2.0, 3), (4.0, 3), (f64::INFINITY, 4)]);
        assert_eq!(histogram.sum(), 103.0);
    }
}
