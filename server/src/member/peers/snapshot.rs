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
    wire::{At, FrameError, Frames, Hello, SNAPSHOT, Welcome, frame, raw_frame},
};
use crate::front::body::Body;
use ::http::{Response, StatusCode};
use cairn_core::boot::draw;
use cairn_engine::{
    Error as EngineError, Options,
    failpoints::reach,
    snapshot::{Receiver, Snapshot},
};
use hyper::body::Incoming as RequestBody;
use std::{
    path::Path,
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

impl Incoming {
    /// Goes on with a transfer that broke off, or begins this one in the place of another.
    pub fn of(
        before: Option<Incoming>,
        transfer: u64,
        file: &Path,
        options: impl FnOnce() -> Options,
    ) -> Result<Incoming, EngineError> {
        match before {
            Some(incoming) if incoming.transfer == transfer => Ok(incoming),
            // The file of another transfer is replaced.
            _ => Receiver::new(file, options()).map(|receiver| Incoming { transfer, receiver }),
        }
    }

    /// What its sender goes on from.
    pub fn position(&self) -> At {
        self.receiver.position().into()
    }

    /// Takes in what comes, until all is here. What broke off goes into `slot`, for another connection.
    pub async fn fill(
        mut self,
        slot: &mut Option<Incoming>,
        frames: &mut Frames<RequestBody>,
    ) -> Result<Receiver, String> {
        self.receiver.broken_off();
        while !self.receiver.is_complete() {
            let next = timeout(STALL, frames.next()).await.unwrap_or(Err(FrameError::Broken));
            let piece = match next {
                Ok(Some(piece)) => piece,
                ended => {
                    *slot = Some(self);
                    return Err(ended.err().map_or("it broke off".to_owned(), |e| e.to_string()));
                }
            };
            let pushing = move || {
                let pushed = self.receiver.push(&piece);
                (self, pushed)
            };
            let (back, pushed) = tokio::task::spawn_blocking(pushing).await.map_err(|e| e.to_string())?;
            self = back;
            pushed.map_err(|e| e.to_string())?;
        }
        Ok(self.receiver)
    }
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
        let (Welcome { position, .. }, answers) = welcome(shared.cluster_id, peer, response).await?;
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
    let (file, options) = (shared.snapshot_file(), || shared.engine_options());
    let incoming = match Incoming::of(slot.take(), hello.transfer, &file, options) {
        Ok(incoming) => incoming,
        Err(error) => return Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into(),
    };
    let (answers, body) = mpsc::channel(2);
    let position = Some(incoming.position());
    // There is room: it is the first.
    answers.send(frame(&Welcome { position, ..greeting(shared, hello) })).await.ok();
    let made_up = frame(&greeting(shared, hello));
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
                answers.send(made_up).await.ok();
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
    incoming: Incoming,
    mut frames: Frames<RequestBody>,
) -> Result<Option<Receiver>, String> {
    let mut receiver = incoming.fill(slot, &mut frames).await?;
    let verifying = move || {
        reach("raftBeforeSaveSnap");
        let meta = receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ()).map(|received| {
            let meta = received.meta();
            (meta.applied_index, meta.applied_term)
        });
        reach("raftAfterSaveSnap");
        (receiver, meta)
    };
    let (receiver, meta) = tokio::task::spawn_blocking(verifying).await.map_err(|e| e.to_string())?;
    let (index, term) = meta.map_err(|e| e.to_string())?;
    let (to, answer) = oneshot::channel();
    if shared.replica.push(ReplicaMessage::SnapshotReceived { index, term, to }).is_err() {
        return Err("the member ends".to_owned());
    }
    match answer.await {
        Ok(true) => {
            let fields = [("applied-index", index.to_string())];
            shared.log(Level::Info, "a snapshot takes the place of the store", &fields);
            Ok(Some(receiver))
        }
        Ok(false) => receiver.abandon().map(|()| None).map_err(|e| e.to_string()),
        Err(_) => Err("the member ends".to_owned()),
    }
}
