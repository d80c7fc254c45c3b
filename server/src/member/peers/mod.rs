// SPDX-License-Identifier: Apache-2.0
//! The other members of the cluster, and the ways to them.
//!
//! Owns      which members there are to talk to, a queue of bounded size for each way, and the tasks that send.
//! Holds     1. heartbeats and votes have a connection of their own, so that they never queue behind data;
//!           2. a message is sent once at most: what a broken connection took is lost, and Raft sends anew;
//!           3. what arrives and is not taken in yet is bounded, by not reading on;
//!           4. who may call is who is called.
//! Never     looks into a message further than to whom it goes.

mod accept;
mod dial;
mod figures;
pub mod hashes;
pub mod http;
mod kept;
pub mod leases;
mod lines;
pub mod members;
pub mod reach;
pub mod repair;
mod snapshot;
pub mod versions;
mod vouch;
pub mod wire;

use super::{Member, shared::Shared};
use crate::front::body::Body;
use ::http::{Request, Response};
use cairn_core::replica::peer::{MessageKind, PeerMessage};
pub use figures::PeerFigures;
use figures::{Figures, Refusals};
use hyper::body::Incoming;
use kept::KeptLine;
use lines::Lines;
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, RwLock, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use vouch::{Places, Told};

/// Whether a path of the peer port is served here.
pub fn is_ours(path: &str) -> bool {
    accept::is_ours(path) || leases::is_ours(path) || members::is_ours(path)
}

/// Serves a request of a peer.
pub async fn serve(member: &Member, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if leases::is_ours(path) {
        leases::serve(member, request).await
    } else if members::is_ours(path) {
        members::serve(member, request).await
    } else {
        accept::serve(member, request).await
    }
}

/// Bytes that wait for one connection; what is more is dropped.
const OUTBOX_BYTES_MAX: usize = 32 << 20;
/// Bytes of one frame of messages, one message at least.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of messages that arrived and are not taken in yet.
const RECEIVED_BYTES_MAX: usize = 64 << 20;
/// A member that was removed has this long to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The two ways to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Data,
    Urgent,
}

/// Messages that wait for a connection.
#[derive(Default)]
struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<PeerMessage>,
    bytes: usize,
    /// Since when there is a connection.
    open: Option<Instant>,
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing fails under this lock")
    }

    /// False if it cannot be sent now.
    fn push(&self, message: PeerMessage) -> bool {
        let bytes = message.encoded_len();
        let mut queue = self.queue();
        if queue.open.is_none() || queue.bytes + bytes > OUTBOX_BYTES_MAX {
            return false;
        }
        queue.bytes += bytes;
        queue.messages.push_back(message);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Opens or closes it; what it holds is lost with its connection.
    fn set_open(&self, open: bool) {
        *self.queue() = Queue { open: open.then(Instant::now), ..Queue::default() };
    }

    /// What leaves next. May be dropped while it waits.
    async fn next(&self) -> Vec<PeerMessage> {
        loop {
            let filled = self.filled.notified();
            let mut batch = Vec::new();
            {
                let mut queue = self.queue();
                let mut left = BATCH_BYTES;
                while batch.len() < wire::MESSAGES_MAX
                    && let Some(message) = queue.messages.pop_front()
                {
                    let bytes = message.encoded_len();
                    if bytes > left && !batch.is_empty() {
                        queue.messages.push_front(message);
                        break;
                    }
                    queue.bytes -= bytes;
                    left = left.saturating_sub(bytes);
                    batch.push(message);
                }
            }
            if !batch.is_empty() {
                return batch;
            }
            filled.await;
        }
    }
}

/// One other member.
struct Peer {
    id: u64,
    urls: Mutex<Vec<String>>,
    data: Outbox,
    urgent: Outbox,
    figures: Arc<Figures>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Peer {
    fn outbox(&self, way: Way) -> &Outbox {
        match way {
            Way::Data => &self.data,
            Way::Urgent => &self.urgent,
        }
    }

    fn urls(&self) -> Vec<String> {
        self.urls.lock().expect("nothing fails under this lock").clone()
    }

    fn hang_up(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("nothing fails under this lock"));
        tasks.into_iter().for_each(|task| task.abort());
    }
}

/// See the module.
pub struct Peers {
    runtime: Handle,
    told: Told,
    table: RwLock<BTreeMap<u64, Arc<Peer>>>,
    /// Of all that were ever in the table.
    figures: Mutex<BTreeMap<u64, Arc<Figures>>>,
    /// What the leader is asked goes this way.
    to_leader: KeptLine,
    refused_handshakes: Refusals,
    refused_messages: Refusals,
    lines: Lines,
    received: Arc<Semaphore>,
    /// Locked while a snapshot comes in: one at a time.
    incoming: Arc<tokio::sync::Mutex<Option<snapshot::Incoming>>>,
    /// The log keeps what comes after these, for peers that are sent a snapshot: index, and until when.
    holds: Mutex<BTreeMap<u64, (u64, Option<Instant>)>>,
    /// Those that asked for a store and are being sent one.
    asked: Mutex<BTreeSet<u64>>,
}

impl Peers {
    /// `known` are told from the start, and the members at the URLs `named` may vouch for others.
    pub fn new(runtime: Handle, known: Places, named: Vec<String>) -> Peers {
        Peers {
            runtime,
            told: Told::new(known, named),
            table: RwLock::default(),
            figures: Mutex::default(),
            to_leader: KeptLine::default(),
            refused_handshakes: Refusals::default(),
            refused_messages: Refusals::default(),
            lines: Lines::default(),
            received: Arc::new(Semaphore::new(RECEIVED_BYTES_MAX)),
            incoming: Arc::default(),
            holds: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Talks to those who are members now, and to those it was told of, and to nobody else.
    pub(super) fn follow(&self, shared: &Arc<Shared>) {
        // Whoever comes last sees the newest members.
        let mut table = self.table.write().expect("nothing fails under this lock");
        let cluster = shared.cluster();
        let members = &cluster.members;
        let urls = |m: &cairn_proto::membershippb::Member| {
            m.raft_attributes.as_ref().map(|attributes| attributes.peer_urls.clone()).unwrap_or_default()
        };
        let mut wanted: Places = members.iter().map(|m| (m.id, urls(m))).collect();
        wanted.append(&mut self.told.others(members, shared.member_id.0));
        wanted.remove(&shared.member_id.0);
        for (id, peer) in table.extract_if(.., |id, _| !wanted.contains_key(id)) {
            shared.log(super::Level::Info, "removed remote peer", &[("remote-peer-id", format!("{id:x}"))]);
            self.runtime.spawn(async move {
                tokio::time::sleep(FAREWELL).await;
                peer.hang_up();
            });
        }
        for (id, urls) in wanted {
            match table.get(&id) {
                Some(peer) => *peer.urls.lock().expect("nothing fails under this lock") = urls,
                None => drop(table.insert(id, self.start(shared, id, urls))),
            }
        }
    }

    fn start(&self, shared: &Arc<Shared>, id: u64, urls: Vec<String>) -> Arc<Peer> {
        let figures =
            self.figures.lock().expect("nothing fails under this lock").entry(id).or_default().clone();
        let peer = Arc::new(Peer {
            id,
            urls: Mutex::new(urls),
            data: Outbox::default(),
            urgent: Outbox::default(),
            figures,
            tasks: Mutex::default(),
        });
        let tasks = [Way::Data, Way::Urgent]
            .map(|way| self.runtime.spawn(dial::run(shared.clone(), peer.clone(), way)));
        peer.tasks.lock().expect("nothing fails under this lock").extend(tasks);
        peer
    }

    fn get(&self, id: u64) -> Option<Arc<Peer>> {
        self.table.read().expect("nothing fails under this lock").get(&id).cloned()
    }

    /// Sends each, or drops it; names the peers that entries could not be sent to.
    pub fn send(&self, messages: impl Iterator<Item = PeerMessage>) -> Vec<u64> {
        let table = self.table.read().expect("nothing fails under this lock");
        let mut unreachable = Vec::new();
        for message in messages {
            let (to, is_append) = (message.to, message.kind() == Some(MessageKind::Append));
            let way = if message.is_urgent() { Way::Urgent } else { Way::Data };
            let peer = table.get(&to);
            let sent = peer.is_some_and(|peer| peer.outbox(way).push(message));
            if let Some(peer) = peer.filter(|_| !sent) {
                peer.figures.sent_failures.fetch_add(1, Relaxed);
            }
            if !sent && is_append && !unreachable.contains(&to) {
                unreachable.push(to);
            }
        }
        unreachable
    }

    /// Where a peer is asked by plain HTTP.
    pub fn urls_of(&self, id: u64) -> Vec<String> {
        self.get(id).map(|peer| peer.urls()).unwrap_or_default()
    }

    /// Since when there has been a connection to a peer (SR-2).
    pub fn connected_since(&self, id: u64) -> Option<Instant> {
        self.get(id)?.urgent.queue().open
    }

    /// The peers that there are, and those that are connected.
    pub fn counts(&self) -> (usize, usize) {
        let table = self.table.read().expect("nothing fails under this lock");
        (table.len(), table.values().filter(|peer| peer.urgent.queue().open.is_some()).count())
    }

    /// What is counted of each peer, and of those that were one.
    pub fn figures(&self) -> Vec<PeerFigures> {
        let all = self.figures.lock().expect("nothing fails under this lock").clone();
        let now = |(id, figures): (u64, Arc<Figures>)| {
            let peer = self.get(id);
            let active = peer.as_ref().is_some_and(|peer| peer.urgent.queue().open.is_some());
            figures.now(id, peer.is_some(), active)
        };
        all.into_iter().map(now).collect()
    }

    /// Counts a caller that is refused, and tells of some.
    fn refuse_caller(&self, shared: &Shared, from: Option<u64>, why: &str) {
        tell(shared, &self.refused_handshakes, "refused a caller at the port for peers", from, why);
    }

    /// Ends the connections of one that sent what no member sends.
    pub(super) fn accuse(&self, shared: &Shared, from: u64, why: &str) {
        self.lines.cut(from);
        tell(shared, &self.refused_messages, "refused a message of a peer", Some(from), why);
    }

    /// Callers that were refused, and messages.
    pub fn refused(&self) -> (u64, u64) {
        (self.refused_handshakes.count(), self.refused_messages.count())
    }

    fn figures_of(&self, id: u64) -> Arc<Figures> {
        let known = self.figures.lock().expect("nothing fails under this lock").get(&id).cloned();
        known.unwrap_or_default()
    }

    /// Ends all that it does.
    pub fn hang_up(&self) {
        let table = std::mem::take(&mut *self.table.write().expect("nothing fails under this lock"));
        table.into_values().for_each(|peer| peer.hang_up());
    }

    /// What the log must keep: everything after this.
    pub fn log_floor(&self) -> u64 {
        let mut holds = self.holds.lock().expect("nothing fails under this lock");
        let now = Instant::now();
        holds.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        holds.values().map(|(index, _)| *index).min().unwrap_or(u64::MAX)
    }

    fn hold_log(&self, peer: u64, index: u64, until: Option<Instant>) {
        self.holds.lock().expect("nothing fails under this lock").insert(peer, (index, until));
    }

    /// Sends a peer the newest checkpoint.
    pub(super) fn send_snapshot(&self, shared: &Arc<Shared>, peer: u64) {
        self.runtime.spawn(snapshot::send(shared.clone(), peer));
    }
}

fn tell(shared: &Shared, refusals: &Refusals, message: &str, from: Option<u64>, why: &str) {
    if let Some(count) = refusals.add(Instant::now()) {
        let from = from.map_or_else(|| "unknown".to_owned(), |from| format!("{from:x}"));
        let fields = [("remote-peer-id", from), ("error", why.to_owned()), ("refused", count.to_string())];
        shared.log(super::Level::Warn, message, &fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> PeerMessage {
        PeerMessage { context: vec![1; bytes].into(), ..Default::default() }
    }

    #[tokio::test]
    async fn what_waits_leaves_in_frames_of_bounded_size_and_in_order() {
        let outbox = Outbox::default();
        assert!(!outbox.push(message(1)), "nobody is connected");
        outbox.set_open(true);
        for bytes in [BATCH_BYTES / 2, BATCH_BYTES / 4, BATCH_BYTES / 2, 2 * BATCH_BYTES, 1] {
            assert!(outbox.push(message(bytes)));
        }
        // Many small ones are no frame that its reader takes.
        for _ in 0..wire::MESSAGES_MAX {
            assert!(outbox.push(message(1)));
        }
        let mut batches = Vec::new();
        while !outbox.queue().messages.is_empty() {
            batches.push(outbox.next().await.len());
        }
        assert_eq!(batches, [2, 1, 1, wire::MESSAGES_MAX, 1]);
        assert_eq!(outbox.queue().bytes, 0);
    }

    #[test]
    fn a_connection_that_does_not_take_its_messages_gets_no_more() {
        let outbox = Outbox::default();
        outbox.set_open(true);
        let pushed = (0..100).take_while(|_| outbox.push(message(1 << 20))).count();
        assert!((30..=32).contains(&pushed), "{pushed}");
        outbox.set_open(false);
        assert!(outbox.queue().messages.is_empty(), "they are lost with it");
    }
}
