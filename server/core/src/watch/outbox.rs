// SPDX-License-Identifier: Apache-2.0
//! The outbox of one Watch stream: what the hub has for the client, in the order in which it is to be sent.
//!
//! Owns      the queue, its bounds, and the wake-up of the task that drains it.
//! Holds     1. what goes in first comes out first, so progress never overtakes an event (WATCH-39);
//!           2. at most [`RESPONSES_MAX`] responses or [`BYTES_MAX`] bytes of events wait; the hub stops
//!              before, and lets the watcher fall behind instead (WATCH-42).
//! Never     holds the hub's lock: a stream is drained beside the writers.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Responses that wait in one stream at most (WATCH-42).
pub const RESPONSES_MAX: usize = 128;
/// Bytes of events that wait in one stream at most; one response may pass it alone.
pub const BYTES_MAX: usize = 8 << 20;
/// Answers to requests of the client that wait at most; then its requests are no longer read.
pub const ANSWERS_MAX: usize = 128;

/// One response before its header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Out {
    Created {
        watch_id: i64,
        revision: i64,
    },
    /// A create that failed (WATCH-8).
    Refused {
        reason: String,
        revision: i64,
    },
    Canceled {
        watch_id: i64,
        revision: i64,
    },
    /// Its owner may not see its keys any more.
    Revoked {
        watch_id: i64,
        reason: &'static str,
        revision: i64,
    },
    /// The history that the watcher needs is gone (WATCH-20): the header's revision is 0.
    Compacted {
        watch_id: i64,
        compact_revision: i64,
    },
    Events {
        watch_id: i64,
        revision: i64,
        fragment: bool,
        events: Vec<Bytes>,
    },
    /// `watch_id` -1 answers a request of the client (WATCH-37).
    Progress {
        watch_id: i64,
        revision: i64,
    },
}

impl Out {
    fn is_events(&self) -> bool {
        matches!(self, Out::Events { .. })
    }

    fn event_count(&self) -> usize {
        match self {
            Out::Events { events, .. } => events.len(),
            _ => 0,
        }
    }

    fn event_bytes(&self) -> usize {
        match self {
            Out::Events { events, .. } => events.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }
}

/// See the module. Shared by the hub and the task of the stream.
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Called when a stream that had no room has some again.
    room: Arc<dyn Fn() + Send + Sync>,
    /// Events that wait in all outboxes of the hub.
    pending: Arc<AtomicUsize>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let left = self.lock().queue.iter().map(Out::event_count).sum();
        self.pending.fetch_sub(left, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Out>,
    events: usize,
    bytes: usize,
    answers: usize,
    /// A watcher waits for room.
    parked: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Outbox {
    pub fn new(room: Arc<dyn Fn() + Send + Sync>, pending: Arc<AtomicUsize>) -> Outbox {
        Outbox { inner: Mutex::default(), room, pending }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics while holding an outbox")
    }

    /// Takes the oldest response; `Ready(None)` once the outbox is closed and empty.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Out>> {
        let mut inner = self.lock();
        match inner.take() {
            (Some(out), signals) => {
                drop(inner);
                self.pending.fetch_sub(out.event_count(), Ordering::Relaxed);
                signals.send(&self.room);
                Poll::Ready(Some(out))
            }
            (None, _) if inner.closed => Poll::Ready(None),
            (None, _) => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes the oldest response if there is one.
    pub fn pop(&self) -> Option<Out> {
        let (out, signals) = self.lock().take();
        self.pending.fetch_sub(out.as_ref().map_or(0, Out::event_count), Ordering::Relaxed);
        signals.send(&self.room);
        out
    }

    /// Waits until a request of the client may be answered.
    pub fn poll_answerable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.closed || inner.answers < ANSWERS_MAX {
            return Poll::Ready(());
        }
        inner.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether events may be put in. If not, the hub is told through the `room` call once there is some.
    pub(super) fn has_room(&self) -> bool {
        let mut inner = self.lock();
        let room = inner.has_room();
        inner.parked |= !room;
        room
    }

    /// Puts a response in and gives back who is to be woken for it.
    pub(super) fn push(&self, out: Out) -> Option<Waker> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        if out.is_events() {
            inner.events += 1;
            inner.bytes += out.event_bytes();
            self.pending.fetch_add(out.event_count(), Ordering::Relaxed);
        } else {
            inner.answers += 1;
        }
        inner.queue.push_back(out);
        inner.reader.take()
    }

    /// Ends the stream: what is queued still comes out.
    pub fn close(&self) {
        let (reader, writer) = {
            let mut inner = self.lock();
            inner.closed = true;
            (inner.reader.take(), inner.writer.take())
        };
        [reader, writer].into_iter().flatten().for_each(Waker::wake);
    }

    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who is to be told after a response was taken, outside the lock.
struct Signals {
    writer: Option<Waker>,
    room: bool,
}

impl Signals {
    fn send(self, room: &Arc<dyn Fn() + Send + Sync>) {
        if let Some(writer) = self.writer {
            writer.wake();
        }
        if self.room {
            room();
        }
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        self.events == 0 || (self.events < RESPONSES_MAX && self.bytes < BYTES_MAX)
    }

    /// Half-way down is enough room: a wake-up a response would cost more than it brings.
    fn has_drained(&self) -> bool {
        self.events <= RESPONSES_MAX / 2 && self.bytes <= BYTES_MAX / 2
    }

    fn take(&mut self) -> (Option<Out>, Signals) {
        let out = self.queue.pop_front();
        match &out {
            Some(out) if out.is_events() => {
                self.events -= 1;
                self.bytes -= out.event_bytes();
            }
            Some(_) => self.answers -= 1,
            None => {}
        }
        let room = self.parked && self.has_drained();
        self.parked &= !room;
        let writer = if self.answers < ANSWERS_MAX { self.writer.take() } else { None };
        (out, Signals { writer, room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_until_they_are_taken_or_their_stream_is_gone() {
        let pending = Arc::<AtomicUsize>::default();
        let outbox = Outbox::new(Arc::new(|| {}), pending.clone());
        let other = Outbox::new(Arc::new(|| {}), pending.clone());
        let out = |events| Out::Events { watch_id: 1, revision: 2, fragment: false, events };
        let waiting = || pending.load(Ordering::Relaxed);
        outbox.push(out(vec![Bytes::new(); 2]));
        outbox.push(Out::Progress { watch_id: 1, revision: 2 });
        other.push(out(vec![Bytes::new(); 3]));
        assert_eq!(waiting(), 5);
        assert!(outbox.pop().is_some_and(|out| out.is_events()));
        assert_eq!(waiting(), 3);
        assert!(outbox.pop().is_some() && outbox.pop().is_none());
        drop(other);
        assert_eq!(waiting(), 0);
        outbox.close();
        outbox.push(out(vec![Bytes::new()]));
        assert_eq!(waiting(), 0);
    }
}
