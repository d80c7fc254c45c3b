// SPDX-License-Identifier: Apache-2.0
//! Sampling: of one message in one second the first 100 are written, then every 100th (LG-4).
//!
//! Owns      a fixed table of counters; two messages that fall on one counter share it.
//! Never     grows.

use super::Level;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

const COUNTERS: usize = 1024;
const FIRST: u64 = 100;
const THEREAFTER: u64 = 100;

pub struct Sampler {
    counters: Box<[Counter]>,
}

#[derive(Clone, Copy, Default)]
struct Counter {
    second: u64,
    count: u64,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler { counters: vec![Counter::default(); COUNTERS].into() }
    }
}

impl Sampler {
    /// Counts this message, and says whether it is to be written.
    pub fn admits(&mut self, level: Level, message: &str, now: SystemTime) -> bool {
        let mut hasher = DefaultHasher::new();
        (level as u8, message).hash(&mut hasher);
        let counter = &mut self.counters[hasher.finish() as usize % COUNTERS];
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if counter.second != second {
            *counter = Counter { second, count: 0 };
        }
        counter.count += 1;
        counter.count <= FIRST || (counter.count - FIRST).is_multiple_of(THEREAFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // rule: LG-4
    #[test]
    fn a_hundred_pass_and_then_one_of_a_hundred() {
        let mut sampler = Sampler::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let passed = (0..500).filter(|_| sampler.admits(Level::Info, "again", now)).count();
        assert_eq!(passed, 104);
        assert!(sampler.admits(Level::Warn, "again", now), "another level has its own count");
        assert!(sampler.admits(Level::Info, "again", now + Duration::from_secs(1)), "a new second");
    }
}
