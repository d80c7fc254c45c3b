// SPDX-License-Identifier: Apache-2.0
//! Snapshots between members: a pinned checkpoint, in pieces, to whom the log does not reach back far enough.
//!
//! Owns      the two ends of a transfer, and how often it is tried again.
//! Holds     1. a transfer that breaks off goes on from where the receiver is;
//!           2. the sender reads beside its writers, at a bounded rate, with a few frames in memory;
//!           3. what was received takes the store's place only after the replica agreed, and after every
//!              thread of the member has ended: verify, sync, rename, sync the directory. Then the member
//!              starts anew, as after a crash.
//! Never     patches a file that is in use.

use super::{
    super::{
        Level,
        shared::{ReplicaMessage, Shared},
    },
    accept::{Refusal, answer, greeting},
    dial::{DialError, Line, hello, welcome},
    figures::UnderWay,
    reach::ReachError,
    wire::{FrameError, Frames, Hello, SNAPSHOT, Welcome, frame, raw_frame},
};
use crate::front::body::Body;
use ::http::{Response, StatusCode};
use cairn_core::boot::draw;
use cairn_engine::{
    Error as EngineError,
    snapshot::{Receiver, Snapshot},
};
use hyper::body::Incoming as RequestBody;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How often one transfer is tried.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_millis(500);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After its last byte a snapshot is verified and installed within this.
const INSTALL: Duration = Duration::from_secs(600);
/// A receiver that takes no frame for as long is gone.
const STALL: Duration = Duration::from_secs(30);
/// Bytes a second that a sender reads at most.
const BYTES_A_SECOND: u64 = 100 << 20;
const FRAMES_AHEAD: usize = 2;
/// The log is kept for a peer that has its snapshot for as long.
const CATCH_UP: Duration = Duration::from_secs(60);
/// The last answer has this long to leave.
const FAREWELL: Duration = Duration::from_millis(100);

/// A store on its way in, also between two connections.
pub(super) struct Incoming {
    transfer: u64,
    receiver: Receiver,
}

/// Sends a peer the newest checkpoint, and tells the replica how that ended.
pub(super) async fn send(shared: Arc<Shared>, peer: u64) {
    let figures = shared.peers.figures_of(peer);
    let under_way = UnderWay::begin(&figures.snapshots_sending);
    let sent = transfer(&shared, peer).await;
    drop(under_way);
    let installed = match sent {
        Ok(()) => {
            figures.snapshots_sent.fetch_add(1, Relaxed);
            true
        }
        Err(error) => {
            figures.snapshot_send_failures.fetch_add(1, Relaxed);
            let fields = [("to", format!("{peer:x}")), ("error", error)];
            shared.log(Level::Warn, "failed to send database snapshot", &fields);
            false
        }
    };
    // A closed queue means that the member ends.
    shared.replica.push(ReplicaMessage::SnapshotEnded { peer, installed }).ok();
}

async fn transfer(shared: &Arc<Shared>, peer: u64) -> Result<(), String> {
    let pinning = {
        let db = shared.db.clone();
        move || db.snapshot()
    };
    let snapshot = tokio::task::spawn_blocking(pinning).await.map_err(|e| e.to_string())?;
    let snapshot = Arc::new(snapshot.map_err(|e| e.to_string())?);
    let index = snapshot.header().meta.applied_index;
    shared.peers.hold_log(peer, index, None);
    let fields = [("to", format!("{peer:x}")), ("applied-index", index.to_string())];
    shared.log(Level::Info, "sending database snapshot", &fields);
    let number = draw(shared.config.seed, shared.now_ms() ^ peer);
    let mut result = Err("it has no address".to_owned());
    for attempt in 0..TRIES {
        let urls = shared.peers.urls_of(peer);
        let Some(url) = urls.get(attempt as usize % urls.len().max(1)) else { break };
        result = pour(shared, peer, url, &snapshot, number).await.map_err(|e| e.to_string());
        if result.is_ok() || shared.is_ended() {
            break;
        }
        tokio::time::sleep(RETRY).await;
    }
    shared.peers.hold_log(peer, index, Some(Instant::now() + CATCH_UP));
    if result.is_ok() {
        shared.log(Level::Info, "sent database snapshot", &fields);
    }
    result
}

/// One connection's part of a transfer: all that the receiver does not have.
async fn pour(
    shared: &Shared,
    peer: u64,
    url: &str,
    snapshot: &Arc<Snapshot>,
    number: u64,
) -> Result<(), DialError> {
    let (frames, body) = mpsc::channel(FRAMES_AHEAD);
    let opening = async {
        let mut line = Line::open(&shared.config.reach, url).await?;
        // There is room: it is the first.
        frames.send(frame(&hello(shared, peer, number))).await.ok();
        let response = line.request(SNAPSHOT, body).await?;
        let (Welcome { position, .. }, answers) = welcome(shared, peer, response).await?;
        Ok::<_, DialError>((line, position.unwrap_or_default(), answers))
    };
    let (line, position, mut answers) = timeout(HANDSHAKE, opening).await.unwrap_or(Err(DialError::Late))?;
    let reading = {
        let snapshot = snapshot.clone();
        move || -> Result<(), EngineError> {
            let mut stream = snapshot.resume(position.into());
            let (began, mut sent) = (Instant::now(), 0);
            while let Some(piece) = stream.next()? {
                if frames.blocking_send(raw_frame(piece)).is_err() {
                    break;
                }
                sent += piece.len() as u64;
                let due = Duration::from_secs_f64(sent as f64 / BYTES_A_SECOND as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            Ok(())
        }
    };
    let read = tokio::task::spawn_blocking(reading);
    // The peer answers once more, when it has made up its mind.
    let ended = timeout(INSTALL, answers.next()).await;
    // Who still reads for it has nobody to read for.
    drop(line);
    match read.await {
        Ok(Err(error)) => return Err(ReachError::Io(std::io::Error::other(error.to_string())).into()),
        Ok(Ok(())) => {}
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
    match ended {
        Ok(Ok(Some(_))) => Ok(()),
        Ok(Ok(None)) => Err(DialError::Ended),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DialError::Late),
    }
}

/// Takes a snapshot in.
pub(super) async fn receive(
    shared: &Arc<Shared>,
    hello: &Hello,
    frames: Frames<RequestBody>,
) -> Response<Body> {
    // One at a time.
    let Ok(mut slot) = shared.peers.incoming.clone().try_lock_owned() else {
        return Refusal(StatusCode::CONFLICT, "another snapshot is coming in".to_owned()).into();
    };
    let incoming = match slot.take() {
        Some(incoming) if incoming.transfer == hello.transfer => Ok(incoming),
        // The file of another transfer is replaced.
        _ => Receiver::new(&shared.snapshot_file(), shared.engine_options())
            .map(|receiver| Incoming { transfer: hello.transfer, receiver }),
    };
    let incoming = match incoming {
        Ok(incoming) => incoming,
        Err(error) => return Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into(),
    };
    let (answers, body) = mpsc::channel(2);
    let position = Some(incoming.receiver.position().into());
    // There is room: it is the first.
    answers.send(frame(&Welcome { position, ..greeting(shared) })).await.ok();
    let (shared, from) = (shared.clone(), hello.from);
    tokio::spawn(async move {
        let fields = [("from", format!("{from:x}"))];
        shared.log(Level::Info, "receiving database snapshot", &fields);
        let figures = shared.peers.figures_of(from);
        let under_way = UnderWay::begin(&figures.snapshots_receiving);
        let taken = take(&shared, &mut slot, incoming, frames).await;
        drop(under_way);
        match taken {
            Ok(taken) => {
                figures.snapshots_received.fetch_add(1, Relaxed);
                // The sender may have gone away; if not, it hears of it before this member ends.
                answers.send(frame(&greeting(&shared))).await.ok();
                tokio::time::sleep(FAREWELL).await;
                if let Some(receiver) = taken {
                    shared.replace_store(receiver);
                }
            }
            Err(error) => {
                figures.snapshot_receive_failures.fetch_add(1, Relaxed);
                let fields = [("from", format!("{from:x}")), ("error", error)];
                shared.log(Level::Warn, "failed to receive database snapshot", &fields);
            }
        }
    });
    answer(body)
}

async fn take(
    shared: &Arc<Shared>,
    slot: &mut Option<Incoming>,
    mut incoming: Incoming,
    mut frames: Frames<RequestBody>,
) -> Result<Option<Receiver>, String> {
    incoming.receiver.broken_off();
    while !incoming.receiver.is_complete() {
        let next = timeout(STALL, frames.next()).await.unwrap_or(Err(FrameError::Broken));
        let piece = match next {
            Ok(Some(piece)) => piece,
            ended => {
                // It may go on over another connection.
                *slot = Some(incoming);
                return Err(ended.err().map_or("it broke off".to_owned(), |e| e.to_string()));
            }
        };
        let pushing = move || {
            let pushed = incoming.receiver.push(&piece);
            (incoming, pushed)
        };
        let (back, pushed) = tokio::task::spawn_blocking(pushing).await.map_err(|e| e.to_string())?;
        incoming = back;
        pushed.map_err(|e| e.to_string())?;
    }
    let verifying = move || {
        let meta = incoming.receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ()).map(|received| {
            let meta = received.meta();
            (meta.applied_index, meta.applied_term)
        });
        (incoming, meta)
    };
    let (incoming, meta) = tokio::task::spawn_blocking(verifying).await.map_err(|e| e.to_string())?;
    let (index, term) = meta.map_err(|e| e.to_string())?;
    let (to, answer) = oneshot::channel();
    if shared.replica.push(ReplicaMessage::SnapshotReceived { index, term, to }).is_err() {
        return Err("the member ends".to_owned());
    }
    match answer.await {
        Ok(true) => {
            let fields = [("applied-index", index.to_string())];
            shared.log(Level::Info, "a snapshot takes the place of the store", &fields);
            Ok(Some(incoming.receiver))
        }
        Ok(false) => incoming.receiver.abandon().map(|()| None).map_err(|e| e.to_string()),
        Err(_) => Err("the member ends".to_owned()),
    }
}
