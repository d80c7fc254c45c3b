// SPDX-License-Identifier: Apache-2.0
//! The budget of a connection: what it may make the server do beyond what it is answered for.
//!
//! Owns      the debt of one connection, in units of about ten microseconds of a CPU, the sum of what those of a listener
//!           owe, and the pauses that both lead to.
//! Holds     1. a connection whose requests are answered with messages is never slowed down;
//!           2. any other costs a share of one CPU that is named here, however much it sends, and never for long
//!              without a turn for others of the same thread.
//! Never     ends a connection, or knows what a frame means to a request.

use std::{
    future::Future as _,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::{
    task::yield_now,
    time::{Duration, Instant, Sleep, sleep},
};

/// Debt of which no notice is taken, and how much of it is forgotten in a second.
const UNNOTICED: f64 = 64.0;
const FORGOTTEN: f64 = 8.0;
/// Debt at which a connection is no longer read from until it is below.
const BURST: f64 = 512.0;
/// What is forgiven in a second.
const FORGIVEN: f64 = 4_000.0;
/// What all connections of a listener that owe may cost in a second together, and at once.
const FORGIVEN_ALL: f64 = 8_000.0;
const BURST_ALL: f64 = 512.0;
/// What answers pay in advance, at most.
const CREDIT_MAX: f64 = 4_096.0;
/// What one frame of an answer pays, and how many of its bytes pay one unit more. A client sends a few frames for
/// each that it gets, and messages that were answered together have many answers in one frame.
const ANSWER_PAYS: f64 = 32.0;
const ANSWER_BYTES: f64 = 16.0;
/// Headers cost by their length, and one unit.
const HEADER_BYTES: f64 = 512.0;
/// DATA from this length on costs nothing: windows bound it.
const DATA_BYTES_CHARGED: usize = 256;
/// A shorter pause is none.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// What is read in one turn from a connection that is watched.
const TURN_BYTES: usize = 2 << 10;

/// What came, as far as it costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// So many bytes of headers.
    Headers(usize),
    /// So many bytes, and whether they are the last of a request.
    Data(usize, bool),
    Other,
}

/// How much may be read now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    Whole,
    Bytes(usize),
}

/// What connections of one listener owe beyond what no notice is taken of. Many may come that owe a little each.
pub struct Shared(Mutex<Sum>);

struct Sum {
    debt: f64,
    since: Instant,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared(Mutex::new(Sum { debt: 0.0, since: Instant::now() }))
    }
}

impl Shared {
    /// Adds to the sum, and says how much it is over its burst.
    fn add(&self, units: f64, now: Instant) -> f64 {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgiven = now.saturating_duration_since(sum.since).as_secs_f64() * FORGIVEN_ALL;
        sum.debt = (sum.debt - forgiven).max(0.0) + units;
        sum.since = now;
        sum.debt - BURST_ALL
    }
}

/// See the module.
pub struct Budget {
    shared: Arc<Shared>,
    /// Negative where answers have paid in advance.
    debt: f64,
    /// The same, of which little is forgiven: a connection that owes again and again shares in the sum of all.
    noticed: f64,
    /// What came since it was added to the sum.
    unshared: f64,
    /// Until when the debt was forgiven.
    since: Instant,
    /// Whether anything was answered with a message.
    answered: bool,
    /// Something was read in this turn, and others are next.
    rests: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// Who waits for the pause.
    reader: Option<Waker>,
}

impl Budget {
    pub fn new(shared: Arc<Shared>) -> Budget {
        Budget {
            shared,
            debt: 0.0,
            noticed: 0.0,
            unshared: 0.0,
            since: Instant::now(),
            answered: false,
            rests: false,
            pause: None,
            reader: None,
        }
    }

    /// Charges for one frame.
    pub fn charge(&mut self, came: Came) {
        let units = match came {
            Came::Headers(len) => 1.0 + len as f64 / HEADER_BYTES,
            Came::Data(len, last) if last || len >= DATA_BYTES_CHARGED => 0.0,
            Came::Data(..) | Came::Other => 1.0,
        };
        self.debt += units;
        self.noticed += units;
        self.unshared += units;
    }

    /// A part of an answer's message was sent.
    pub fn pay(&mut self, len: usize) {
        self.answered = true;
        let paid = ANSWER_PAYS + len as f64 / ANSWER_BYTES;
        self.debt = (self.debt - paid).max(-CREDIT_MAX);
        self.noticed = (self.noticed - paid).max(0.0);
        if self.debt < BURST
            && let Some(reader) = self.reader.take()
        {
            self.pause = None;
            reader.wake();
        }
    }

    /// Whether the connection is read from now, and how much; if not, the task is woken when it may be.
    pub fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.answered && self.debt <= UNNOTICED {
            (self.rests, self.unshared) = (false, 0.0);
            return Poll::Ready(Turn::Whole);
        }
        if std::mem::take(&mut self.rests) {
            // Woken behind all others of this thread, and after their sockets were looked at.
            return pin!(yield_now()).poll(context).map(|()| Turn::Bytes(TURN_BYTES));
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(context).is_pending() {
                self.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            (self.pause, self.reader) = (None, None);
        }
        let over_s = self.over_s(Instant::now());
        if over_s > 0.0 {
            let pause = self.pause.insert(Box::pin(sleep(Duration::from_secs_f64(over_s).max(PAUSE_MIN))));
            // It is over at once if a clock was slow to tell the time.
            if pause.as_mut().poll(context).is_pending() {
                self.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            (self.pause, self.reader) = (None, None);
        }
        Poll::Ready(Turn::Bytes(TURN_BYTES))
    }

    /// Something was read in a turn of so many bytes: others are next.
    pub fn rest(&mut self) {
        self.rests = true;
    }

    /// For how many seconds nothing is to be read.
    fn over_s(&mut self, now: Instant) -> f64 {
        self.forgive(now);
        let new = std::mem::take(&mut self.unshared);
        if self.noticed <= UNNOTICED {
            return 0.0;
        }
        let over_all = self.shared.add(new, now);
        ((self.debt - BURST) / FORGIVEN).max(over_all / FORGIVEN_ALL)
    }

    fn forgive(&mut self, now: Instant) {
        let seconds = now.duration_since(self.since).as_secs_f64();
        if self.debt > 0.0 {
            self.debt = (self.debt - seconds * FORGIVEN).max(0.0);
        }
        self.noticed = (self.noticed - seconds * FORGOTTEN).max(0.0);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn turn(budget: &mut Budget) -> Turn {
        let turn = poll_fn(|context| budget.poll_turn(context)).await;
        if turn != Turn::Whole {
            budget.rest();
        }
        turn
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_answered_are_never_slowed_down() {
        let mut budget = Budget::new(Arc::default());
        budget.charge(Came::Headers(100));
        budget.pay(20);
        let begin = Instant::now();
        for _ in 0..100_000 {
            // Beside the request itself a ping, a window and what a client may send beside.
            for came in [Came::Headers(8 << 10), Came::Data(100, true), Came::Other, Came::Other] {
                budget.charge(came);
            }
            assert_eq!(turn(&mut budget).await, Turn::Whole);
            budget.pay(20);
        }
        assert!(begin.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_read_slowly_and_at_a_rate() {
        let mut budget = Budget::new(Arc::default());
        let begin = Instant::now();
        let mut read = 0.0;
        while begin.elapsed() < Duration::from_secs(10) {
            assert_eq!(turn(&mut budget).await, Turn::Bytes(TURN_BYTES));
            for _ in 0..100 {
                budget.charge(Came::Other);
                read += 1.0;
            }
        }
        assert!(read <= BURST + 10.0 * FORGIVEN + 200.0, "{read}");
        assert!(read >= 9.0 * FORGIVEN, "{read}: it is not held up for longer than it owes");
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_owe_share_what_is_forgiven_and_one_that_comes_anew_does_not_wait_for_them() {
        let shared = Arc::<Shared>::default();
        let mut budgets: Vec<Budget> = (0..100).map(|_| Budget::new(shared.clone())).collect();
        let begin = Instant::now();
        let mut read = 0.0;
        while begin.elapsed() < Duration::from_secs(5) {
            for budget in &mut budgets {
                turn(budget).await;
                (0..100).for_each(|_| budget.charge(Came::Other));
                read += 100.0;
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let unnoticed = 100.0 * (UNNOTICED + 100.0 + seconds * FORGOTTEN);
        assert!(read <= unnoticed + BURST_ALL + seconds * FORGIVEN_ALL, "{read}");
        assert!(read >= 4.0 * FORGIVEN_ALL, "{read}: what nobody owes is not waited for");
        let (mut new, begin) = (Budget::new(shared), Instant::now());
        new.charge(Came::Headers(300));
        turn(&mut new).await;
        turn(&mut new).await;
        assert!(begin.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_a_pause() {
        let mut budget = Budget::new(Arc::default());
        (0..2_000).for_each(|_| budget.charge(Came::Data(10, false)));
        let mut waiting = Box::pin(poll_fn(|context| budget.poll_turn(context)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(waiting);
        // As many small answers in one frame.
        budget.pay(32 << 10);
        assert_eq!(turn(&mut budget).await, Turn::Whole);
    }
}
