// SPDX-License-Identifier: Apache-2.0
//! Clients that go on to another member when one does not answer, and how long no write was acknowledged.
//!
//! Owns      the clients, each with one put under way, and the clock of their acknowledgements.
//! Holds     1. how long a client waits before it goes on is drawn for each put, so that over all clients someone
//!              asks every few milliseconds, and no gap is made of a client's patience;
//!           2. an answer that came after its client went on counts for nothing.
//! Never     touches a member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Caller, Connection, Endpoint};
use crate::reply;
use crate::request::{Operation, Shape, Template, scatter};

/// How long a client waits for an answer, at least and at most.
const PATIENCE_MIN_MS: u64 = 200;
const PATIENCE_MAX_MS: u64 = 600;
/// After a refusal, so that no client spins.
const PAUSE: Duration = Duration::from_millis(5);

/// When writes were acknowledged.
struct Clock {
    start: Instant,
    /// Nanoseconds from the start to the last acknowledged write.
    last_ns: AtomicU64,
    /// The longest time between two of them since [`Crowd::strike`].
    longest_ns: AtomicU64,
    acknowledged: AtomicU64,
}

impl Clock {
    fn new() -> Clock {
        let zero = AtomicU64::default;
        Clock { start: Instant::now(), last_ns: zero(), longest_ns: zero(), acknowledged: zero() }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn acknowledge(&self) {
        let now = self.now_ns();
        let before = self.last_ns.swap(now, Ordering::Relaxed);
        self.longest_ns.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Clients at work until the value is dropped.
pub struct Crowd {
    clock: Arc<Clock>,
    /// Dropped, they end.
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Each client begins at another member.
    pub fn start(endpoints: &[Endpoint], clients: usize, shape: &Shape) -> Crowd {
        let clock = Arc::new(Clock::new());
        let template = Arc::new(Template::new(Operation::Put, shape));
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let client = Client {
                endpoints: endpoints.to_vec(),
                member: number % endpoints.len(),
                template: Arc::clone(&template),
                keys: shape.keys,
                random: (number as u64 + 1) << 40,
                clock: Arc::clone(&clock),
            };
            tasks.spawn(client.run());
        }
        Crowd { clock, _clients: tasks }
    }

    pub fn acknowledged(&self) -> u64 {
        self.clock.acknowledged.load(Ordering::Relaxed)
    }

    /// From now on gaps are looked for.
    pub fn strike(&self) {
        self.clock.longest_ns.store(0, Ordering::Relaxed);
    }

    /// The time since the last acknowledged write.
    pub fn silence(&self) -> Duration {
        let last = self.clock.last_ns.load(Ordering::Relaxed);
        Duration::from_nanos(self.clock.now_ns().saturating_sub(last))
    }

    /// The longest time without an acknowledged write since the strike, the one that goes on included.
    pub fn gap(&self) -> Duration {
        self.silence().max(Duration::from_nanos(self.clock.longest_ns.load(Ordering::Relaxed)))
    }
}

struct Client {
    endpoints: Vec<Endpoint>,
    member: usize,
    template: Arc<Template>,
    keys: u64,
    /// The state of the random numbers.
    random: u64,
    clock: Arc<Clock>,
}

impl Client {
    async fn run(mut self) {
        let mut open = None;
        loop {
            let patience = PATIENCE_MIN_MS + self.number() % (PATIENCE_MAX_MS - PATIENCE_MIN_MS);
            let key = self.number() % self.keys;
            let put = self.put(&mut open, key);
            if let Ok(Some(())) = tokio::time::timeout(Duration::from_millis(patience), put).await {
                self.clock.acknowledge();
                continue;
            }
            open = None;
            self.member = (self.member + 1) % self.endpoints.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// None if it was refused or lost.
    async fn put(&self, open: &mut Option<(Connection, Caller)>, key: u64) -> Option<()> {
        if open.is_none() {
            let connection = Connection::open(&self.endpoints[self.member]).await.ok()?;
            let caller = connection.caller(Operation::Put.path());
            *open = Some((connection, caller));
        }
        let (_, caller) = open.as_mut()?;
        let answer = caller.call(self.template.frame(key)).await.ok()?;
        reply::check(Operation::Put, &answer).ok().map(drop)
    }

    fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        scatter(self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_silence_since_the_strike() {
        let crowd = Crowd { clock: Arc::new(Clock::new()), _clients: JoinSet::new() };
        crowd.clock.acknowledge();
        let wait = Duration::from_millis(20);
        std::thread::sleep(wait);
        crowd.clock.acknowledge();
        assert!(crowd.gap() >= wait, "{:?}", crowd.gap());
        crowd.strike();
        let fresh = crowd.gap();
        std::thread::sleep(wait);
        assert!(crowd.gap() >= fresh + wait, "the silence that goes on counts");
        crowd.clock.acknowledge();
        assert!(crowd.gap() >= wait && crowd.acknowledged() == 3);
    }
}
