// SPDX-License-Identifier: Apache-2.0
//! The queues between the threads of a member: many put in, one takes everything out at once.
//!
//! Owns      the waiting of one consumer, and how many wake-ups it costs.
//! Holds     1. what goes in first comes out first;
//!           2. a consumer that is busy is not woken: it finds the rest when it looks again, so a batch
//!              costs one wake-up however many put into it.
//! Never     bounds what it holds: who puts in is admitted before (see `admission`), or is bounded by the
//!           number of those.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

/// See the module.
pub struct Inbox<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

struct Inner<T> {
    items: Vec<T>,
    waiting: bool,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        Inbox {
            inner: Mutex::new(Inner { items: Vec::new(), waiting: false, closed: false }),
            filled: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("no one panics while holding a queue")
    }

    /// Puts one in; gives it back if the queue is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        self.wake(inner);
        Ok(())
    }

    /// Puts one in, and wakes the consumer only when what this returns is dropped, so that one wake-up can
    /// serve many. Gives it back if the queue is closed.
    pub fn put(&self, item: T) -> Result<LateWake<'_, T>, T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        Ok(LateWake(self))
    }

    /// Puts several in with at most one wake-up. What a closed queue is given is dropped: its consumer has
    /// ended, and with it everyone who could use an answer.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.items.extend(items);
            self.wake(inner);
        }
    }

    /// Wakes the consumer if it waits and there is something for it. One that is woken for nothing would
    /// sleep on with nobody knowing that it waits.
    fn wake(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        let waiting = !inner.items.is_empty() && std::mem::take(&mut inner.waiting);
        drop(inner);
        if waiting {
            self.filled.notify_one();
        }
    }

    /// Takes everything out, after waiting up to `patience` for something. False once the queue is closed
    /// and empty.
    pub fn drain(&self, into: &mut Vec<T>, patience: Duration) -> bool {
        let mut inner = self.filled(patience);
        into.append(&mut inner.items);
        !(inner.closed && into.is_empty())
    }

    /// Waits up to `patience` for something, and leaves it in.
    pub fn wait(&self, patience: Duration) {
        drop(self.filled(patience));
    }

    fn filled(&self, patience: Duration) -> MutexGuard<'_, Inner<T>> {
        let mut inner = self.lock();
        if inner.items.is_empty() && !inner.closed && !patience.is_zero() {
            inner.waiting = true;
            let idle = |inner: &mut Inner<T>| inner.items.is_empty() && !inner.closed;
            inner = self
                .filled
                .wait_timeout_while(inner, patience, idle)
                .expect("no one panics while holding a queue")
                .0;
            inner.waiting = false;
        }
        inner
    }

    /// The consumer ends: no more goes in, and what is in is dropped, so that nobody waits for its answer.
    pub fn abandon(&self) {
        self.close();
        drop(std::mem::take(&mut self.lock().items));
    }

    /// No more goes in; what is in comes out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

/// Owes the consumer a wake-up, unless another gives it before.
pub struct LateWake<'a, T>(&'a Inbox<T>);

impl<T> Drop for LateWake<'_, T> {
    fn drop(&mut self) {
        self.0.wake(self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn everything_comes_out_once_and_in_order() {
        const EACH: usize = 20_000;
        let inbox = Arc::new(Inbox::default());
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let inbox = inbox.clone();
                thread::spawn(move || (0..EACH).for_each(|n| inbox.push((sender, n)).expect("it is open")))
            })
            .collect();
        let consumer = thread::spawn({
            let inbox = inbox.clone();
            move || {
                let (mut all, mut batch) = (Vec::new(), Vec::new());
                while inbox.drain(&mut batch, Duration::from_secs(60)) {
                    all.append(&mut batch);
                }
                all
            }
        });
        senders.into_iter().for_each(|s| s.join().expect("no panic"));
        inbox.close();
        let all = consumer.join().expect("no panic");
        assert_eq!(all.len(), 4 * EACH);
        for sender in 0..4 {
            let of_one: Vec<usize> = all.iter().filter(|(s, _)| *s == sender).map(|(_, n)| *n).collect();
            assert!(of_one.iter().copied().eq(0..EACH));
        }
        assert_eq!(inbox.push((9, 9)), Err((9, 9)));
    }

    #[test]
    fn who_waits_for_an_answer_of_a_consumer_that_ended_is_told() {
        let inbox = Inbox::default();
        let (to, answer) = std::sync::mpsc::channel::<()>();
        inbox.push(to).expect("it is open");
        inbox.abandon();
        assert!(answer.recv().is_err(), "nobody answers");
        assert!(inbox.push(std::sync::mpsc::channel().0).is_err(), "and nobody else can ask");
    }

    #[test]
    fn a_late_wake_wakes_once_whoever_gives_it() {
        let inbox = Arc::new(Inbox::default());
        let consumer = thread::spawn({
            let inbox = inbox.clone();
            move || {
                let mut batch = Vec::new();
                let open = inbox.drain(&mut batch, Duration::from_secs(600));
                (open, batch)
            }
        });
        while !inbox.lock().waiting {
            thread::yield_now();
        }
        let first = inbox.put(1).expect("it is open");
        let second = inbox.put(2).expect("it is open");
        assert!(inbox.lock().waiting, "woken before anything was dropped");
        drop(second);
        assert_eq!(consumer.join().expect("no panic"), (true, vec![1, 2]));
        drop(first);
        inbox.close();
        assert_eq!(inbox.put(3).err(), Some(3));
    }

    #[test]
    fn waiting_ends_with_the_first_that_comes_and_takes_nothing_out() {
        let inbox = Arc::new(Inbox::default());
        let consumer = thread::spawn({
            let inbox = inbox.clone();
            move || {
                let mut batch = Vec::new();
                inbox.wait(Duration::from_secs(600));
                // What is there is there at once, however long one would wait.
                inbox.wait(Duration::from_secs(600));
                let open = inbox.drain(&mut batch, Duration::ZERO);
                (open, batch)
            }
        });
        while !inbox.lock().waiting {
            thread::yield_now();
        }
        inbox.push(7).expect("it is open");
        assert_eq!(consumer.join().expect("no panic"), (true, vec![7]));
        inbox.close();
        inbox.wait(Duration::from_secs(600));
        Inbox::<()>::default().wait(Duration::from_millis(1));
    }

    #[test]
    fn putting_in_nothing_leaves_the_consumer_waiting_for_the_next_thing() {
        let inbox = Arc::new(Inbox::default());
        let consumer = thread::spawn({
            let inbox = inbox.clone();
            move || {
                let mut batch = Vec::new();
                let open = inbox.drain(&mut batch, Duration::from_secs(600));
                (open, batch)
            }
        });
        while !inbox.lock().waiting {
            thread::yield_now();
        }
        inbox.extend([]);
        assert!(inbox.lock().waiting, "nobody would wake it");
        inbox.push(7).expect("it is open");
        assert_eq!(consumer.join().expect("no panic"), (true, vec![7]));
    }
}
