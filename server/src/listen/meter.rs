// SPDX-License-Identifier: Apache-2.0
//! The frame meter: what a client sends beside its requests is counted, and too much of it ends the
//! connection.
//!
//! Owns      the heads of the frames of one HTTP/2 connection, both ways; the policy for pings, which is
//!           grpc-go's for clients (LIMIT-15); bounds on frames that cost the server and not the client (S23); what
//!           of them goes on a client's budget, and is paid by answers.
//! Holds     1. bytes pass through unchanged;
//!           2. a GOAWAY of the meter's own is only ever written between two frames;
//!           3. a connection that does not say in time which protocol it speaks ends (S18).
//! Never     holds a byte of payload, or meters what is not HTTP/2.

use super::budget::{Budget, Came, Shared, Turn};
use crate::front::connection::Connection;
use cairn_proto::errors;
use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, Sleep, sleep},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A connection's first bytes must be there by then.
const PREFACE_LIMIT: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 9;
/// Pings that come too early and are let pass, as in grpc-go.
const STRIKES_MAX: u32 = 2;
/// How often a client without requests may ping.
const IDLE_PING_MIN: Duration = Duration::from_secs(2 * 60 * 60);
/// Over this time the frames below are counted.
const WINDOW: Duration = Duration::from_secs(10);
const SETTINGS_MAX: u32 = 100;
/// Of streams, beyond one for each frame of an answer's message.
const RESETS_MAX: u32 = 2_000;
const EMPTY_DATA_MAX: u32 = 1_000;

/// How often the other end may ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pings {
    /// No sooner than this after the one before: sooner ones are strikes, as in grpc-go.
    Apart(Duration),
    /// As often as this in [`WINDOW`]. Peers find out by pings whether a connection still lives, and a busy
    /// machine may let several through at once.
    Counted(u32),
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
/// END_STREAM of DATA, ACK of SETTINGS and PING.
const FLAG_ONE: u8 = 1;

/// A stream with a meter in it.
pub struct Meter<S> {
    stream: S,
    policy: Policy,
    incoming: Frames,
    outgoing: Frames,
    budget: Option<Budget>,
    /// Until the preface is there, or something else.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> Meter<S> {
    /// What it reads goes on a budget, if it shares in one: what members send each other is mostly not answered.
    pub fn new(
        stream: S,
        connection: Arc<Connection>,
        pings: Pings,
        shared: Option<Arc<Shared>>,
    ) -> Meter<S> {
        Meter {
            stream,
            policy: Policy::new(connection, pings),
            incoming: Frames::new(PREFACE.len()),
            outgoing: Frames::new(0),
            budget: shared.map(Budget::new),
            late: Some(Box::pin(sleep(PREFACE_LIMIT))),
        }
    }
}

impl<S: AsyncRead + Unpin> Meter<S> {
    /// Reads as much as the budget allows.
    fn poll_within_budget(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let budget = self.budget.as_mut().filter(|_| self.incoming.metered);
        let turn = match budget {
            None => Turn::Whole,
            Some(budget) => std::task::ready!(budget.poll_turn(context)),
        };
        let Turn::Bytes(len) = turn else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(len.min(buffer.remaining())));
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut part);
        let len = part.filled().len();
        buffer.advance(len);
        if len > 0
            && let Some(budget) = &mut self.budget
        {
            budget.rest();
        }
        polled
    }
}

impl<S> Meter<S> {
    /// Goes over bytes that were sent.
    fn has_sent(&mut self, bytes: &[u8]) {
        let Meter { outgoing, policy, budget, incoming, .. } = self;
        if !incoming.metered {
            return policy.connection.answered_with_message();
        }
        outgoing.pass(bytes, |head| {
            if head.kind == DATA && head.len > 0 {
                policy.answered();
                if let Some(budget) = budget {
                    budget.pay(head.len);
                }
            }
        });
    }
}

/// Where one direction is: the position inside the preface, a head, or a payload.
struct Frames {
    preface_left: usize,
    /// False once the bytes are seen not to be HTTP/2.
    metered: bool,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    payload_left: usize,
}

/// One frame's head.
#[derive(Clone, Copy)]
struct Head {
    len: usize,
    kind: u8,
    flags: u8,
}

impl Head {
    fn came(self) -> Came {
        match self.kind {
            HEADERS | CONTINUATION => Came::Headers(self.len),
            DATA => Came::Data(self.len, self.flags & FLAG_ONE != 0),
            _ => Came::Other,
        }
    }
}

impl Frames {
    fn new(preface_left: usize) -> Frames {
        Frames { preface_left, metered: true, head: [0; HEAD_BYTES], head_len: 0, payload_left: 0 }
    }

    fn at_boundary(&self) -> bool {
        self.metered && self.head_len == 0 && self.payload_left == 0
    }

    /// Goes over bytes, and hands out each head in them.
    fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Head)) {
        if self.preface_left > 0 && self.metered {
            let len = self.preface_left.min(bytes.len());
            let (preface, rest) = bytes.split_at(len);
            let from = PREFACE.len() - self.preface_left;
            self.metered = PREFACE[from..from + len] == *preface;
            self.preface_left -= len;
            bytes = rest;
        }
        while self.metered && !bytes.is_empty() {
            if self.payload_left > 0 {
                let len = self.payload_left.min(bytes.len());
                self.payload_left -= len;
                bytes = &bytes[len..];
                continue;
            }
            let len = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + len].copy_from_slice(&bytes[..len]);
            self.head_len += len;
            bytes = &bytes[len..];
            if self.head_len == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                let len = u32::from_be_bytes([0, a, b, c]) as usize;
                (self.head_len, self.payload_left) = (0, len);
                seen(Head { len, kind, flags });
            }
        }
    }
}

/// What of a client's frames is too much.
struct Policy {
    connection: Arc<Connection>,
    pings: Pings,
    last_ping: Option<Instant>,
    strikes: u32,
    window_began: Instant,
    pings_seen: u32,
    settings: u32,
    resets: u32,
    empty_data: u32,
    /// Why the connection is to end.
    broken: Option<&'static str>,
}

impl Policy {
    fn new(connection: Arc<Connection>, pings: Pings) -> Policy {
        Policy {
            connection,
            pings,
            last_ping: None,
            strikes: 0,
            window_began: Instant::now(),
            pings_seen: 0,
            settings: 0,
            resets: 0,
            empty_data: 0,
            broken: None,
        }
    }

    /// A part of an answer's message was sent.
    fn answered(&mut self) {
        self.resets = self.resets.saturating_sub(1);
        self.connection.answered_with_message();
    }

    fn seen(&mut self, head: Head) {
        match (head.kind, head.flags & FLAG_ONE) {
            (PING, 0) => match self.pings {
                Pings::Apart(min) => self.ping(Instant::now(), min),
                Pings::Counted(max) => {
                    self.count(|policy| (&mut policy.pings_seen, max, errors::TOO_MANY_PINGS.text));
                }
            },
            (SETTINGS, 0) => self.count(|policy| (&mut policy.settings, SETTINGS_MAX, "too_many_settings")),
            (RST_STREAM, _) => self.count(|policy| (&mut policy.resets, RESETS_MAX, "too_many_resets")),
            (DATA, 0) if head.len == 0 => {
                self.count(|policy| (&mut policy.empty_data, EMPTY_DATA_MAX, "too_much_empty_data"));
            }
            _ => {}
        }
    }

    /// As grpc-go's server: early pings are strikes, and an answer in between forgives them.
    fn ping(&mut self, now: Instant, min: Duration) {
        let last = self.last_ping.replace(now);
        if self.connection.take_answered() {
            self.strikes = 0;
            return;
        }
        let min = if self.connection.is_idle() { IDLE_PING_MIN } else { min };
        if last.is_some_and(|last| now.duration_since(last) < min) {
            self.strikes += 1;
        }
        if self.strikes > STRIKES_MAX {
            self.broken = Some(errors::TOO_MANY_PINGS.text);
        }
    }

    fn count(&mut self, place: impl FnOnce(&mut Policy) -> (&mut u32, u32, &'static str)) {
        let now = Instant::now();
        if now.duration_since(self.window_began) >= WINDOW {
            self.window_began = now;
            (self.pings_seen, self.settings, self.resets, self.empty_data) = (0, 0, 0, 0);
        }
        let (count, max, why) = place(self);
        *count += 1;
        if *count > max {
            self.broken = Some(why);
        }
    }
}

/// The frame that tells a client why its connection ends.
fn goaway(why: &str) -> Vec<u8> {
    let len = u32::try_from(8 + why.len()).expect("a short text").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], GOAWAY, 0, 0, 0, 0, 0];
    // As grpc-go: no stream is said to be unserved.
    frame.extend_from_slice(&(u32::MAX >> 1).to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(why.as_bytes());
    frame
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Meter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let meter = &mut *self;
        let before = buffer.filled().len();
        let polled = meter.poll_within_budget(context, buffer);
        if let (Poll::Pending, Some(late)) = (&polled, &mut meter.late)
            && late.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no protocol was begun in time",
            )));
        }
        if !matches!(polled, Poll::Ready(Ok(()))) {
            return polled;
        }
        let Meter { incoming, policy, budget, .. } = meter;
        incoming.pass(&buffer.filled()[before..], |head| {
            policy.seen(head);
            if let Some(budget) = budget {
                budget.charge(head.came());
            }
        });
        if incoming.preface_left == 0 || !incoming.metered {
            meter.late = None;
        }
        let Some(why) = policy.broken else {
            return polled;
        };
        policy.connection.condemn();
        if meter.outgoing.at_boundary() {
            // One attempt: a client that does not read is not told.
            let told = Pin::new(&mut meter.stream).poll_write(context, &goaway(why));
            drop(told);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let meter = &mut *self;
        let polled = Pin::new(&mut meter.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(len)) = polled {
            meter.has_sent(&bytes[..len]);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let meter = &mut *self;
        let polled = Pin::new(&mut meter.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(mut left)) = polled {
            for slice in slices {
                let len = left.min(slice.len());
                meter.has_sent(&slice[..len]);
                left -= len;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        let head = [len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        [&head[..], payload].concat()
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let bytes = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, &[7; 12]),
            frame(PING, 0, &[1; 8]),
            frame(DATA, 0, b""),
            frame(DATA, 1, &[9; 300]),
        ]
        .concat();
        for cut in 1..bytes.len() {
            let mut frames = Frames::new(PREFACE.len());
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.pass(piece, |head| found.push((head.kind, head.len)));
            }
            assert_eq!(found, [(SETTINGS, 12), (PING, 8), (DATA, 0), (DATA, 300)], "cut {cut}");
            assert!(frames.at_boundary());
        }
        let mut frames = Frames::new(PREFACE.len());
        frames.pass(b"GET / HTTP/1.1\r\n\r\n", |_| panic!("no HTTP/2"));
        assert!(!frames.metered);
    }

    // rule: LIMIT-15
    #[tokio::test(start_paused = true)]
    async fn early_pings_are_strikes_and_answers_forgive_them() {
        let connection = Arc::new(Connection::default());
        let active = connection.begin();
        let mut policy = Policy::new(connection.clone(), Pings::Apart(Duration::from_secs(5)));
        let ping = Head { len: 8, kind: PING, flags: 0 };
        for _ in 0..3 {
            policy.seen(ping);
        }
        assert_eq!((policy.strikes, policy.broken), (2, None));
        active.answering();
        policy.seen(ping);
        assert_eq!(policy.strikes, 0);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(5)).await;
            policy.seen(ping);
        }
        assert_eq!(policy.strikes, 0, "a ping each five seconds is allowed");
        drop(active);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(5)).await;
            policy.seen(ping);
        }
        assert_eq!(policy.broken, Some("too_many_pings"), "without a request two hours are the least");
        policy.seen(Head { flags: FLAG_ONE, ..ping });
    }

    #[tokio::test(start_paused = true)]
    async fn floods_of_cheap_frames_are_bounded_in_a_window() {
        let mut policy = Policy::new(Arc::default(), Pings::Apart(Duration::ZERO));
        let empty = Head { len: 0, kind: DATA, flags: 0 };
        for _ in 0..EMPTY_DATA_MAX {
            policy.seen(empty);
        }
        policy.seen(Head { flags: FLAG_ONE, ..empty });
        assert_eq!(policy.broken, None);
        tokio::time::advance(WINDOW).await;
        for _ in 0..=EMPTY_DATA_MAX {
            policy.seen(empty);
        }
        assert_eq!(policy.broken, Some("too_much_empty_data"));
    }

    #[tokio::test(start_paused = true)]
    async fn s23_resets_are_bounded_beyond_those_of_streams_that_were_answered() {
        let reset = Head { len: 4, kind: RST_STREAM, flags: 0 };
        let mut policy = Policy::new(Arc::default(), Pings::Apart(Duration::ZERO));
        for _ in 0..10 * RESETS_MAX {
            policy.answered();
            policy.seen(reset);
        }
        assert_eq!(policy.broken, None, "a watch that is cancelled is no attack");
        for _ in 0..RESETS_MAX {
            policy.seen(reset);
        }
        assert_eq!(policy.broken, Some("too_many_resets"));
        assert!(!policy.connection.was_abused(true), "it was served");
    }

    #[tokio::test(start_paused = true)]
    async fn s23_a_connection_that_was_not_answered_is_read_in_small_turns_and_a_member_is_not() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let windows: Vec<u8> = (0..2_000).flat_map(|_| frame(8, 0, &1u32.to_be_bytes())).collect();
        for shared in [Some(Arc::default()), None] {
            let in_turns = shared.is_some();
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let mut meter = Meter::new(server, Arc::default(), Pings::Counted(10), shared);
            client.write_all(&[PREFACE, &windows].concat()).await.expect("room");
            let (begin, mut read, mut longest) = (Instant::now(), 0, 0);
            while read < PREFACE.len() + windows.len() {
                let len = meter.read(&mut [0; 1 << 16]).await.expect("bytes");
                (read, longest) = (read + len, longest.max(len));
            }
            assert_eq!((longest <= 2048, !begin.elapsed().is_zero()), (in_turns, in_turns), "{longest}");

            // An answer is sent: it is read as anybody's.
            meter.write_all(&frame(DATA, 0, &[0; 1 << 15])).await.expect("room");
            client.write_all(&windows[..1_300]).await.expect("room");
            client.write_all(&[frame(DATA, 0, &[1; 4_000])].concat()).await.expect("room");
            assert_eq!(meter.read(&mut [0; 1 << 16]).await.expect("bytes"), 5_309);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_a_peer_may_come_in_heaps_and_are_bounded_all_the_same() {
        let mut policy = Policy::new(Arc::default(), Pings::Counted(10));
        let ping = Head { len: 8, kind: PING, flags: 0 };
        for _ in 0..10 {
            for _ in 0..10 {
                policy.seen(ping);
            }
            assert_eq!(policy.broken, None);
            tokio::time::advance(WINDOW).await;
        }
        for _ in 0..11 {
            policy.seen(ping);
        }
        assert_eq!(policy.broken, Some("too_many_pings"));
    }

    #[tokio::test(start_paused = true)]
    async fn s19_a_preface_that_does_not_come_to_its_end_is_waited_for_ten_seconds() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(4096);
        let mut meter = Meter::new(server, Arc::default(), Pings::Apart(Duration::ZERO), None);
        client.write_all(&PREFACE[..7]).await.expect("room");
        assert_eq!(meter.read(&mut [0; 64]).await.expect("seven bytes"), 7);
        let begin = Instant::now();
        let error = meter.read(&mut [0; 64]).await.expect_err("the rest never comes");
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, PREFACE_LIMIT));

        let (mut client, server) = tokio::io::duplex(4096);
        let mut meter = Meter::new(server, Arc::default(), Pings::Apart(Duration::ZERO), None);
        client.write_all(PREFACE).await.expect("room");
        assert_eq!(meter.read(&mut [0; 64]).await.expect("the preface"), PREFACE.len());
        let idle = tokio::time::timeout(10 * PREFACE_LIMIT, meter.read(&mut [0; 64])).await;
        assert!(idle.is_err(), "afterwards a connection may be idle");
    }

    // rule: LIMIT-15
    #[tokio::test(start_paused = true)]
    async fn a_client_that_pings_too_much_is_told_so() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(4096);
        let connection = Arc::<Connection>::default();
        let mut meter = Meter::new(server, connection.clone(), Pings::Apart(Duration::from_secs(5)), None);
        let pings: Vec<u8> = (0..5).flat_map(|_| frame(PING, 0, &[0; 8])).collect();
        client.write_all(&[PREFACE, &pings].concat()).await.expect("room");
        let error = meter.read(&mut [0; 4096]).await.expect_err("the connection ends");
        assert_eq!(error.to_string(), "too_many_pings");
        assert!(connection.was_abused(false), "its address is remembered");
        drop(meter);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.expect("the end");
        assert_eq!(told[3], GOAWAY);
        assert_eq!(told[13..17], ENHANCE_YOUR_CALM.to_be_bytes());
        assert_eq!(&told[17..], b"too_many_pings");
    }
}
