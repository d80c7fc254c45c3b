// SPDX-License-Identifier: Apache-2.0
//! Requests at a fixed rate, whatever the server does.
//!
//! Owns      the schedule: request `k` is due `k / rate` after the start.
//! Holds     1. no request is let go before it is due, and each exactly once, in order;
//!           2. a late server does not slow the schedule: what it owes waits, and is timed from when it was
//!              due, so that a stall is seen by every request it held up.
//! Never     sends a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

const TICK_MIN: Duration = Duration::from_micros(200);
const TICK_MAX: Duration = Duration::from_millis(50);

pub struct Pace(Arc<Schedule>);

struct Schedule {
    per_second: f64,
    start: Instant,
    due: Semaphore,
    taken: AtomicU64,
    released: AtomicU64,
}

impl Pace {
    /// Starts the schedule, in a thread of its own that ends with this value: the runtime's timers round up
    /// to a millisecond.
    ///
    /// # Errors
    /// Says so if there can be no thread.
    pub fn start(per_second: f64) -> Result<Pace, String> {
        let schedule = Arc::new(Schedule::new(per_second));
        let tick = Duration::from_secs_f64(1.0 / per_second).clamp(TICK_MIN, TICK_MAX);
        let clock = Arc::clone(&schedule);
        let run = move || {
            while !clock.due.is_closed() {
                clock.release(clock.start.elapsed());
                thread::sleep(tick);
            }
        };
        thread::Builder::new()
            .name("pace".into())
            .spawn(run)
            .map_err(|e| format!("the clock of --rate: {e}"))?;
        Ok(Pace(schedule))
    }

    /// Waits until the next request is due, and tells since when; None after [`Pace::end`].
    pub async fn next(&self) -> Option<Instant> {
        self.0.next().await
    }

    /// Ends every wait; gives the number of requests that were due and not taken.
    pub fn end(&self) -> u64 {
        self.0.end()
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.end();
    }
}

impl Schedule {
    fn new(per_second: f64) -> Schedule {
        Schedule {
            per_second,
            start: Instant::now(),
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
            released: AtomicU64::new(0),
        }
    }

    async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let turn = self.taken.fetch_add(1, Ordering::Relaxed);
        Some(self.start + Duration::from_secs_f64(turn as f64 / self.per_second))
    }

    fn release(&self, elapsed: Duration) {
        let due = (elapsed.as_secs_f64() * self.per_second) as u64 + 1;
        let released = self.released.fetch_max(due, Ordering::Relaxed);
        self.due.add_permits(due.saturating_sub(released) as usize);
    }

    fn end(&self) -> u64 {
        self.due.close();
        self.released.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_in_order_and_what_is_late_is_timed_from_when_it_was_due() {
        let pace = Schedule::new(1000.0);
        pace.release(Duration::from_micros(2_500));
        for turn in 0..3 {
            let due = pace.next().await.expect("three are due: at 0, 1 and 2 ms");
            assert_eq!(due, pace.start + Duration::from_millis(turn));
        }
        pace.release(Duration::from_micros(2_900));
        assert_eq!(pace.due.available_permits(), 0, "none is let go twice");
        pace.release(Duration::from_millis(10));
        assert_eq!(pace.end(), 8);
        assert_eq!(pace.next().await, None);
    }
}
