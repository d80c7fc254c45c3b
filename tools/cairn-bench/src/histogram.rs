// SPDX-License-Identifier: Apache-2.0
//! Latencies, counted in buckets that grow with the value.
//!
//! Owns      the counts. 64 buckets for each doubling, so a value read back is at most 1/64 too high.
//! Holds     1. the count is the number of values recorded, and the maximum is exact;
//!           2. a quantile is never below the value it stands for, and never above the maximum.
//! Never     reads a clock.

use std::time::Duration;

/// Buckets for each doubling of the value, as a power of two.
const PRECISION_BITS: u32 = 6;
const PER_DOUBLING: u64 = 1 << PRECISION_BITS;
/// 2^40 ns are 18 minutes; longer values are counted in the last bucket, and seen in the maximum.
const VALUE_BITS: u32 = 40;
const BUCKETS: usize = ((VALUE_BITS - PRECISION_BITS + 1) as usize) << PRECISION_BITS;

#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, max_ns: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The value that a share `q` of all values does not exceed; zero if there are none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(highest(index).min(self.max_ns));
            }
        }
        self.max()
    }
}

/// Values below `PER_DOUBLING` have a bucket each; above, the top `PRECISION_BITS + 1` bits choose it.
fn bucket(ns: u64) -> usize {
    if ns < PER_DOUBLING {
        return ns as usize;
    }
    let doubling = 63 - ns.leading_zeros() - PRECISION_BITS;
    let index = (u64::from(doubling) << PRECISION_BITS) + (ns >> doubling);
    (index as usize).min(BUCKETS - 1)
}

/// The highest value that falls into a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < PER_DOUBLING {
        return index;
    }
    let doubling = (index >> PRECISION_BITS) - 1;
    let top = index - (doubling << PRECISION_BITS);
    ((top + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for ns in values {
            histogram.record(Duration::from_nanos(ns));
        }
        histogram
    }

    #[test]
    fn buckets_follow_each_other_and_hold_what_falls_into_them() {
        let mut previous = None;
        for index in 0..BUCKETS {
            let top = highest(index);
            assert_eq!(bucket(top), index, "the top of bucket {index}");
            if let Some(previous) = previous {
                assert_eq!(bucket(previous + 1), index, "the bottom of bucket {index}");
            }
            previous = Some(top);
        }
    }

    #[test]
    fn a_quantile_is_at_most_one_part_in_64_too_high() {
        let histogram = of((1..=1000).map(|n| n * 1_000));
        for (q, exact) in [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000), (0.999, 999_000)] {
            let told = histogram.quantile(q).as_nanos() as u64;
            assert!((exact..=exact + exact / 64).contains(&told), "{q}: {told} for {exact}");
        }
        assert_eq!(histogram.quantile(1.0), histogram.max());
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn no_values_and_one_value_have_quantiles() {
        assert_eq!(of([]).quantile(0.99), Duration::ZERO);
        assert_eq!(of([7]).quantile(0.0), Duration::from_nanos(7));
        assert_eq!(of([7]).quantile(1.0), Duration::from_nanos(7));
    }

    #[test]
    fn a_value_past_the_last_bucket_is_counted_and_kept_as_maximum() {
        let histogram = of([5, u64::MAX]);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.max(), Duration::from_nanos(u64::MAX));
    }
}
