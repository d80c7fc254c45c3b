// SPDX-License-Identifier: Apache-2.0
//! From samples to figures: which count, and what their middle is.
//!
//! Owns      the measures, the rule by which a sample is discarded, medians and spreads.
//! Holds     1. a sample whose two floors differ by more than a fifth does not count, and is counted as discarded;
//!           2. stores are compared by the medians of their ratios to the floor, never by times of two moments.
//! Never     rounds.

/// A piece of work that is timed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Measure {
    Insert,
    FirstScan,
    Scan,
    Read,
    Delete,
    Reinsert,
}

impl Measure {
    pub const ALL: [Measure; 6] = [
        Measure::Insert,
        Measure::FirstScan,
        Measure::Scan,
        Measure::Read,
        Measure::Delete,
        Measure::Reinsert,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Measure::Insert => "insert",
            Measure::FirstScan => "first-scan",
            Measure::Scan => "scan",
            Measure::Read => "read",
            Measure::Delete => "delete",
            Measure::Reinsert => "reinsert",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Measure::Insert => "Insert, 100 a durable commit",
            Measure::FirstScan => "Scan by revision, the first after the inserts",
            Measure::Scan => "Scan by revision, warm",
            Measure::Read => "Point read by chance, each in its own transaction, warm",
            Measure::Delete => "Delete the oldest 90 %, 1000 a durable commit",
            Measure::Reinsert => "Insert half again, 100 a durable commit",
        }
    }

    pub fn parse(name: &str) -> Option<Measure> {
        Measure::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Whether its floor is the durable commit; else it is the read of memory.
    pub fn is_write(self) -> bool {
        matches!(self, Measure::Insert | Measure::Delete | Measure::Reinsert)
    }
}

/// One measurement, per operation, between its two floors.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    pub ns: f64,
    pub floor_before_ns: f64,
    pub floor_after_ns: f64,
    pub commit_p50_us: f64,
    pub commit_p99_us: f64,
}

/// How far the floors of one sample may be apart.
const FLOORS_APART_MAX: f64 = 0.2;

impl Sample {
    fn floor_ns(&self) -> f64 {
        (self.floor_before_ns + self.floor_after_ns) / 2.0
    }

    pub fn counts(&self) -> bool {
        let (low, high) = if self.floor_before_ns < self.floor_after_ns {
            (self.floor_before_ns, self.floor_after_ns)
        } else {
            (self.floor_after_ns, self.floor_before_ns)
        };
        high - low <= low * FLOORS_APART_MAX
    }

    /// Time in floors.
    pub fn floors(&self) -> f64 {
        self.ns / self.floor_ns()
    }
}

/// What the samples of one store and measure come to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    pub counted: usize,
    pub discarded: usize,
    pub ns: f64,
    pub floor_ns: f64,
    /// The median of times in floors, the least, and the most.
    pub floors: f64,
    pub floors_min: f64,
    pub floors_max: f64,
    pub commit_p50_us: f64,
    pub commit_p99_us: f64,
}

impl Figure {
    /// `None` if no sample counts.
    pub fn of(samples: &[Sample]) -> Option<Figure> {
        let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.counts()).collect();
        let all = |of: fn(&Sample) -> f64| counted.iter().map(|sample| of(sample)).collect::<Vec<f64>>();
        let floors = all(Sample::floors);
        Some(Figure {
            counted: counted.len(),
            discarded: samples.len() - counted.len(),
            ns: median(all(|sample| sample.ns))?,
            floor_ns: median(all(Sample::floor_ns))?,
            floors_min: floors.iter().copied().reduce(f64::min)?,
            floors_max: floors.iter().copied().reduce(f64::max)?,
            floors: median(floors)?,
            commit_p50_us: median(all(|sample| sample.commit_p50_us))?,
            commit_p99_us: median(all(|sample| sample.commit_p99_us))?,
        })
    }

    pub fn per_second(&self) -> f64 {
        1e9 / self.ns
    }

    /// How many times faster this is than `other`.
    pub fn speed_against(&self, other: &Figure) -> f64 {
        other.floors / self.floors
    }

    /// Half the distance between the fastest and the slowest, in percent of the middle.
    pub fn spread_percent(&self) -> f64 {
        (self.floors_max - self.floors_min) / 2.0 / self.floors * 100.0
    }
}

/// How many of `samples` count.
pub fn counted(samples: &[Sample]) -> usize {
    samples.iter().filter(|sample| sample.counts()).count()
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let high = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { high } else { (values[middle - 1] + high) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ns: f64, before: f64, after: f64) -> Sample {
        let (commit_p50_us, commit_p99_us) = (1.0, 2.0);
        Sample { ns, floor_before_ns: before, floor_after_ns: after, commit_p50_us, commit_p99_us }
    }

    #[test]
    fn a_sample_between_floors_a_fifth_apart_counts_and_one_beyond_does_not() {
        let samples = [sample(10.0, 5.0, 6.0), sample(10.0, 5.0, 6.01), sample(10.0, 6.01, 5.0)];
        assert_eq!(counted(&samples), 1);
        let figure = Figure::of(&samples).expect("one counts");
        assert_eq!((figure.counted, figure.discarded), (1, 2));
        assert_eq!(Figure::of(&samples[1..]), None);
    }

    #[test]
    fn stores_are_compared_by_the_middle_of_their_ratios_to_the_floor() {
        // The second store had the slower machine: as fast in floors, half as fast by the clock.
        let fast = Figure::of(&[sample(10.0, 5.0, 5.0), sample(12.0, 5.0, 5.0), sample(90.0, 5.0, 5.0)]);
        let slow = Figure::of(&[sample(24.0, 10.0, 10.0)]);
        let (fast, slow) = (fast.expect("they count"), slow.expect("it counts"));
        assert_eq!((fast.floors, slow.floors), (2.4, 2.4));
        assert_eq!(fast.speed_against(&slow), 1.0);
        assert_eq!((fast.floors_min, fast.floors_max), (2.0, 18.0));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
