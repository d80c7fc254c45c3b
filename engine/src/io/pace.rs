// SPDX-License-Identifier: Apache-2.0
//! Pacing of background work: how much a step may do, and how long to wait before the next.
//!
//! Owns      the budget of one step and a token bucket over bytes.
//! Holds     1. over any window the bucket grants at most `burst_bytes + rate * window`;
//!           2. a request larger than the burst is granted and paid back afterwards, so it cannot starve.
//! Never     reads a clock or sleeps: time comes in as milliseconds, the wait goes out.

/// What one step of background work may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes to read or write before the step ends. A step that has begun a unit of work may finish it.
    pub bytes: u64,
}

impl Budget {
    /// No bound: the step runs to the end of the work.
    pub const UNBOUNDED: Budget = Budget { bytes: u64::MAX };

    /// A budget of `bytes`.
    pub const fn bytes(bytes: u64) -> Budget {
        Budget { bytes }
    }
}

/// Whether a step of background work left something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing is left.
    Done,
    /// The budget ran out first: call again.
    More,
}

/// A token bucket over bytes.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate_bytes_s: u64,
    burst_bytes: u64,
    /// May be negative: what a large request took in advance.
    tokens: i64,
    filled_ms: u64,
}

impl Pacer {
    /// A full bucket at time `now_ms`. `rate_bytes_s` must not be zero.
    pub fn new(rate_bytes_s: u64, burst_bytes: u64, now_ms: u64) -> Pacer {
        assert!(rate_bytes_s > 0, "a rate of zero never grants");
        let burst_bytes = burst_bytes.min(i64::MAX as u64);
        Pacer { rate_bytes_s, burst_bytes, tokens: burst_bytes as i64, filled_ms: now_ms }
    }

    /// Takes `bytes`, and answers how many milliseconds to wait before doing that work.
    pub fn take(&mut self, bytes: u64, now_ms: u64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        let earned = (self.rate_bytes_s as u128 * elapsed_ms as u128 / 1000).min(i64::MAX as u128) as i64;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.burst_bytes as i64);
            self.filled_ms = now_ms;
        }
        self.tokens = self.tokens.saturating_sub(bytes.min(i64::MAX as u64) as i64);
        if self.tokens >= 0 {
            return 0;
        }
        let owed = self.tokens.unsigned_abs() as u128;
        (owed * 1000).div_ceil(self.rate_bytes_s as u128).min(u64::MAX as u128) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_free_and_the_rest_waits_for_its_share() {
        let mut pacer = Pacer::new(1000, 500, 0);
        assert_eq!(pacer.take(500, 0), 0);
        assert_eq!(pacer.take(100, 0), 100, "100 bytes at 1000 B/s");
        assert_eq!(pacer.take(0, 100), 0, "paid back");
        assert_eq!(pacer.take(2000, 100), 2000, "larger than the burst: granted late, not never");
    }

    #[test]
    fn time_that_stands_or_goes_back_earns_nothing() {
        let mut pacer = Pacer::new(1000, 10, 50);
        assert_eq!(pacer.take(10, 50), 0);
        assert_eq!(pacer.take(10, 40), 10);
        assert_eq!(pacer.take(0, 60), 0);
    }
}
