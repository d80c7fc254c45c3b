// SPDX-License-Identifier: Apache-2.0
//! What addresses did too often: failed logins, connections that were ended for what came over them.
//!
//! Owns      a bucket for each address, which takes a burst and empties by so many a second.
//! Holds     no more addresses than a bound, whoever comes.
//! Never     reads a clock, or waits.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Addresses that are counted.
const ADDRESSES_MAX: usize = 4096;

/// See the module.
pub struct Buckets {
    /// What has no consequence.
    burst: u32,
    /// A second; 0 sets no bound.
    rate: u32,
    by_address: Mutex<HashMap<Box<str>, Bucket>>,
}

struct Bucket {
    held: f64,
    since: Instant,
}

impl Bucket {
    fn left(&self, now: Instant, rate: u32) -> f64 {
        (self.held - now.saturating_duration_since(self.since).as_secs_f64() * f64::from(rate)).max(0.0)
    }
}

impl Buckets {
    pub fn new(burst: u32, rate: u32) -> Buckets {
        Buckets { burst, rate, by_address: Mutex::default() }
    }

    /// Counts one more, and says how long it is until the bucket holds no more than its burst.
    pub fn count(&self, remote: &str, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let address = address(remote);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(address) {
            by_address.retain(|_, bucket| bucket.left(now, self.rate) > 0.0);
            if by_address.len() >= ADDRESSES_MAX {
                // So many come at once that one is as good as another.
                by_address.clear();
            }
        }
        let bucket = by_address.entry(address.into()).or_insert(Bucket { held: 0.0, since: now });
        bucket.held = bucket.left(now, self.rate) + 1.0;
        bucket.since = now;
        self.until_burst(bucket.held)
    }

    /// The same without counting.
    pub fn owed(&self, remote: &str, now: Instant) -> Duration {
        let by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = by_address.get(address(remote));
        bucket.map_or(Duration::ZERO, |bucket| self.until_burst(bucket.left(now, self.rate)))
    }

    fn until_burst(&self, held: f64) -> Duration {
        let over = held - f64::from(self.burst);
        if over > 0.0 { Duration::from_secs_f64(over / f64::from(self.rate)) } else { Duration::ZERO }
    }
}

/// Ports change with each connection.
fn address(remote: &str) -> &str {
    remote.rsplit_once(':').map_or(remote, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s08_failures_beyond_a_burst_wait_for_their_turn() {
        let failures = Buckets::new(50, 10);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..70).map(|_| failures.count("10.0.0.1:1", now)).collect();
        assert!(waits[..50].iter().all(Duration::is_zero));
        assert_eq!(waits[59], Duration::from_secs(1));
        assert_eq!(failures.count("10.0.0.1:2", now), Duration::from_millis(2100), "another port");
        assert_eq!(failures.owed("10.0.0.1:3", now), Duration::from_millis(2100));
        assert_eq!(failures.owed("10.0.0.1:3", now), Duration::from_millis(2100), "asking counts nothing");
        assert!(failures.count("10.0.0.2:1", now).is_zero(), "another address");
        assert!(failures.count("10.0.0.1:1", now + Duration::from_secs(60)).is_zero(), "later");
        assert!(failures.owed("10.0.0.3:1", now).is_zero(), "nothing is known of it");
        assert!((0..1000).all(|_| Buckets::new(50, 0).count("a:1", now).is_zero()), "no bound");
    }

    #[test]
    fn addresses_beyond_a_bound_are_not_remembered() {
        let failures = Buckets::new(50, 10);
        let now = Instant::now();
        for address in 0..2 * ADDRESSES_MAX {
            failures.count(&format!("h{address}:1"), now);
        }
        assert!(failures.by_address.lock().expect("one thread").len() <= ADDRESSES_MAX);
    }
}
