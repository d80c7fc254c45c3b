// SPDX-License-Identifier: Apache-2.0
//! Another store for a member whose own is damaged: how it asks for one, and how it is asked.
//!
//! Owns      the turns in which peers are asked, and the taking in while the member does not run.
//! Holds     1. a store goes to where the cluster knows the member to be, never to whoever asks, and not to one that runs;
//!           2. until one is whole and has its place, nothing runs here that could vote, acknowledge or serve;
//!           3. a transfer that breaks off goes on from where the receiver is.
//! Never     gives up while there is a peer that may answer, or decides which store fits: the core does.

use super::{
    super::{
        Level, Member,
        config::{MemberConfig, Observer, StartError},
        datadir::DataDir,
        shared::{CheckpointMessage, Shared},
    },
    accept::{HELLO_BYTES_MAX, Refusal, answer, check_addressed, frame_bytes_max, greeting, hear},
    dial::{DialError, Line, welcome},
    members::ask_for_members,
    snapshot::{self, Incoming},
    wire::{Frames, Hello, RESEND, SNAPSHOT, Welcome, frame},
};
use crate::front::body::Body;
use ::http::{Request, Response, StatusCode};
use cairn_core::{
    ClusterId, MemberId,
    boot::{BootError, draw},
    repair::{self, Fit, KnownLog},
};
use cairn_engine::{InstallId, Options, snapshot::Receiver};
use cairn_proto::etcdserverpb as pb;
use hyper::body::Incoming as RequestBody;
use std::{
    collections::BTreeSet,
    panic::Location,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

/// A peer is asked within this, and begins to send within the other.
const ASK: Duration = Duration::from_secs(5);
const BEGIN: Duration = Duration::from_secs(15);
/// Between two rounds over all peers.
const ROUND: Duration = Duration::from_secs(1);
/// In every so many rounds it is said what is waited for.
const ROUNDS_SILENT: u32 = 10;
/// How often it is looked whether a checkpoint reaches what is wanted, and how many times.
const CHECKPOINT: Duration = Duration::from_millis(200);
const CHECKPOINTS_AWAITED: u32 = 50;

// ---- the peer that is asked ----

/// A member of the cluster has no store and asks for one.
pub(super) async fn asked(shared: &Arc<Shared>, hello: &Hello) -> Response<Body> {
    let (peer, wanted) = (hello.from, hello.wanted);
    if shared.cluster().members.get(peer).is_none() {
        let text = format!("{} is no member of this cluster", MemberId(peer));
        return Refusal(StatusCode::FORBIDDEN, text).into();
    }
    // One that runs has a store; nobody is to have it sent another in its name.
    if shared.peers.connected_since(peer).is_some() {
        let text = format!("member {} runs", MemberId(peer));
        return Refusal(StatusCode::CONFLICT, text).into();
    }
    if let Some(sending) = Sending::begin(shared, peer) {
        tokio::spawn(async move {
            await_checkpoint(&sending.shared, wanted).await;
            snapshot::send(sending.shared.clone(), peer).await;
        });
    }
    let (answers, body) = mpsc::channel(1);
    // There is room: it is the first.
    answers.send(frame(&greeting(shared, hello))).await.ok();
    answer(body)
}

/// A peer is being sent a store, until this is dropped, however that ends.
struct Sending {
    shared: Arc<Shared>,
    peer: u64,
}

impl Sending {
    /// `None` if it is already being sent one.
    fn begin(shared: &Arc<Shared>, peer: u64) -> Option<Sending> {
        let begins = shared.peers.asked.lock().expect("nothing fails under this lock").insert(peer);
        begins.then(|| Sending { shared: shared.clone(), peer })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.shared.peers.asked.lock().expect("nothing fails under this lock").remove(&self.peer);
    }
}

/// Waits for a while until the newest checkpoint holds the entry `wanted`.
async fn await_checkpoint(shared: &Arc<Shared>, wanted: u64) {
    for _ in 0..CHECKPOINTS_AWAITED {
        let db = shared.db.clone();
        let newest = move || db.snapshot().map(|snapshot| snapshot.header().meta.applied_index);
        match tokio::task::spawn_blocking(newest).await {
            Ok(Ok(index)) if index < wanted && !shared.is_ended() => {
                shared.checkpointer.extend([CheckpointMessage::Checkpoint]);
                sleep(CHECKPOINT).await;
            }
            // Whoever sends it is told what is wrong.
            _ => return,
        }
    }
}

// ---- the member that asks ----

/// What answers peers meanwhile: the store that comes in is taken, everything else refused.
pub struct Taker {
    cluster_id: ClusterId,
    member_id: MemberId,
    file: PathBuf,
    options: Options,
    frame_bytes_max: usize,
    /// Locked while a store comes in: one at a time.
    slot: Arc<Mutex<Option<Incoming>>>,
    taken: mpsc::Sender<Receiver>,
    /// Who was asked: a store of nobody else is taken.
    asked: std::sync::Mutex<BTreeSet<u64>>,
}

impl Taker {
    fn welcome(&self, protocol: u32) -> Welcome {
        let (cluster_id, member_id) = (self.cluster_id.0, self.member_id.0);
        Welcome { cluster_id, member_id, protocol, position: None }
    }

    fn is_busy(&self) -> bool {
        self.slot.try_lock().is_err()
    }

    /// Serves a request of a peer.
    pub async fn serve(self: &Arc<Taker>, request: Request<RequestBody>) -> Response<Body> {
        if request.uri().path() != SNAPSHOT {
            let text = "this member has no store yet".to_owned();
            return Refusal(StatusCode::SERVICE_UNAVAILABLE, text).into();
        }
        let mut frames = Frames::new(request.into_body(), HELLO_BYTES_MAX);
        match self.take(&mut frames).await {
            Ok((slot, incoming, protocol)) => self.receive(slot, incoming, frames, protocol).await,
            Err(refusal) => refusal.into(),
        }
    }

    async fn take(
        &self,
        frames: &mut Frames<RequestBody>,
    ) -> Result<(tokio::sync::OwnedMutexGuard<Option<Incoming>>, Incoming, u32), Refusal> {
        let hello = hear(frames).await?;
        check_addressed(&hello, self.cluster_id, self.member_id)?;
        if !self.asked.lock().expect("nothing fails under this lock").contains(&hello.from) {
            let text = format!("{} was not asked for a store", MemberId(hello.from));
            return Err(Refusal(StatusCode::FORBIDDEN, text));
        }
        frames.allow(self.frame_bytes_max);
        let busy = |_| Refusal(StatusCode::CONFLICT, "another snapshot is coming in".to_owned());
        let mut slot = self.slot.clone().try_lock_owned().map_err(busy)?;
        let incoming = Incoming::of(slot.take(), hello.transfer, &self.file, || self.options.clone());
        let failed = |e: cairn_engine::Error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
        Ok((slot, incoming.map_err(failed)?, hello.protocol()))
    }

    async fn receive(
        self: &Arc<Taker>,
        mut slot: tokio::sync::OwnedMutexGuard<Option<Incoming>>,
        incoming: Incoming,
        mut frames: Frames<RequestBody>,
        protocol: u32,
    ) -> Response<Body> {
        let (answers, body) = mpsc::channel(2);
        let welcome = Welcome { position: Some(incoming.position()), ..self.welcome(protocol) };
        // There is room: it is the first.
        answers.send(frame(&welcome)).await.ok();
        let taker = self.clone();
        tokio::spawn(async move {
            // One that broke off is in the slot; its sender knows.
            if let Ok(receiver) = incoming.fill(&mut slot, &mut frames).await {
                answers.send(frame(&taker.welcome(protocol))).await.ok();
                // Nobody waits for it any more if the process ends.
                taker.taken.send(receiver).await.ok();
            }
        });
        answer(body)
    }
}

/// One repair under way.
struct Repair<'a> {
    config: &'a MemberConfig,
    observer: &'a dyn Observer,
    dir: &'a DataDir,
    log: KnownLog,
    taker: Arc<Taker>,
    stores: mpsc::Receiver<Receiver>,
    wanted: u64,
}

impl Member {
    /// Puts the store of a member that does not run aside, unless it is already, so that [`Member::repair`] is due.
    ///
    /// # Errors
    /// That it cannot be renamed.
    pub fn set_aside(config: &MemberConfig) -> Result<PathBuf, StartError> {
        let dir = DataDir::take(config)?;
        let set_aside = || {
            if repair::is_aside(&*config.vfs, &dir.member)? {
                return Ok(repair::aside_file(&dir.member));
            }
            repair::set_aside(&*config.vfs, &dir.member)
        };
        set_aside().map_err(|error| StartError::Boot(error.into()))
    }

    /// Where the other members of a damaged store can be asked, as far as that store can still tell.
    pub fn others_named(config: &MemberConfig) -> Vec<String> {
        let members = repair::members_named(&config.vfs, &config.data_dir.join("member"));
        let urls = |member: cairn_proto::membershippb::Member| {
            member.raft_attributes.map(|raft| raft.peer_urls).unwrap_or_default()
        };
        let own = |url: &String| config.peer_urls.contains(url);
        members.into_iter().flat_map(urls).filter(|url| !own(url)).collect()
    }

    /// Asks the members at `urls`, and those that they name, for a store in the place of the one that was set aside, and
    /// installs it. `open_door` is given what is to answer peers meanwhile.
    ///
    /// # Errors
    /// What is wrong with this member's log or disk. That no peer answers is none: it waits.
    pub async fn repair(
        config: &MemberConfig,
        urls: &[String],
        observer: &dyn Observer,
        open_door: impl FnOnce(Arc<Taker>),
    ) -> Result<(), StartError> {
        let dir = DataDir::take(config)?;
        let reading = {
            let (vfs, wal) = (config.vfs.clone(), dir.wal.clone());
            move || KnownLog::read(&*vfs, &wal)
        };
        let log = tokio::task::spawn_blocking(reading).await.expect("reading a log does not panic");
        let log = log.map_err(|error| match error {
            damaged if damaged.is_corrupt() => BootError::LogDamaged(damaged),
            other => other.into(),
        })?;
        let say = |level, text: &str, fields: &[(&'static str, String)]| {
            observer.log(Location::caller(), level, text, fields);
        };
        let (member_id, mut rounds) = (MemberId(log.member_id), 0);
        let cluster_id = loop {
            if let Some((cluster_id, _)) = ask_all(config, urls, member_id).await {
                break cluster_id;
            }
            if rounds % ROUNDS_SILENT == 0 {
                let fields = [("urls", urls.join(","))];
                say(
                    Level::Warn,
                    "waiting for a peer that knows this member and can send it a store",
                    &fields,
                );
            }
            rounds += 1;
            sleep(ROUND).await;
        };
        let mut options = Options::default();
        options.vfs = config.vfs.clone();
        let (taken, stores) = mpsc::channel(1);
        let file = dir.member.join("incoming.tmp");
        let taker = Arc::new(Taker {
            cluster_id,
            member_id,
            file,
            options,
            frame_bytes_max: frame_bytes_max(config),
            slot: Arc::default(),
            taken,
            asked: Default::default(),
        });
        open_door(taker.clone());
        let wanted = log.wanted();
        Repair { config, observer, dir: &dir, log, taker, stores, wanted }.run(urls).await
    }
}

/// The cluster of the first that answers and knows this member, and its other members.
async fn ask_all(
    config: &MemberConfig,
    urls: &[String],
    own: MemberId,
) -> Option<(ClusterId, Vec<pb::Member>)> {
    for url in urls {
        let Ok((members, cluster)) = ask_for_members(&config.reach, url, ASK).await else { continue };
        if members.iter().any(|member| member.id == own.0) {
            let others = members.into_iter().filter(|member| member.id != own.0).collect();
            return Some((ClusterId(cluster), others));
        }
    }
    None
}

impl Repair<'_> {
    #[track_caller]
    fn say(&self, level: Level, text: &str, fields: &[(&'static str, String)]) {
        self.observer.log(Location::caller(), level, text, fields);
    }

    async fn run(mut self, urls: &[String]) -> Result<(), StartError> {
        let mut urls = urls.to_vec();
        loop {
            let found = ask_all(self.config, &urls, self.taker.member_id).await;
            for member in found.filter(|(id, _)| *id == self.taker.cluster_id).map_or(Vec::new(), |f| f.1) {
                urls.extend(
                    member.peer_urls.iter().filter(|url| !urls.contains(url)).cloned().collect::<Vec<_>>(),
                );
                if self.ask(&member).await && self.take(member.id).await? {
                    return Ok(());
                }
            }
            sleep(ROUND).await;
        }
    }

    /// Whether this peer will send its store.
    async fn ask(&self, peer: &pb::Member) -> bool {
        let fields = |error: String| [("remote-peer-id", format!("{:x}", peer.id)), ("error", error)];
        for url in &peer.peer_urls {
            match timeout(ASK, self.ask_at(peer.id, url)).await.unwrap_or(Err(DialError::Late)) {
                Ok(()) => {
                    let wanted =
                        [("remote-peer-id", format!("{:x}", peer.id)), ("wanted", self.wanted.to_string())];
                    self.say(Level::Info, "asked a peer for a store", &wanted);
                    return true;
                }
                Err(error) => {
                    self.say(Level::Warn, "a peer does not send its store", &fields(error.to_string()));
                }
            }
        }
        false
    }

    async fn ask_at(&self, peer: u64, url: &str) -> Result<(), DialError> {
        let taker = &self.taker;
        let hello = Hello { wanted: self.wanted, ..Hello::new(taker.cluster_id.0, taker.member_id.0, peer) };
        self.taker.asked.lock().expect("nothing fails under this lock").insert(peer);
        let (frames, body) = mpsc::channel(1);
        let mut line = Line::open(&self.config.reach, url).await?;
        // There is room: it is the first.
        frames.send(frame(&hello)).await.ok();
        let response = line.request(RESEND, body).await?;
        welcome(self.taker.cluster_id, peer, response).await.map(drop)
    }

    /// Waits for the store of a peer that was asked, and puts it in its place if it fits.
    async fn take(&mut self, peer: u64) -> Result<bool, StartError> {
        let receiver = loop {
            match timeout(BEGIN, self.stores.recv()).await {
                Ok(receiver) => break receiver.expect("the sender lives as long as the taker"),
                Err(_) if self.taker.is_busy() => {}
                Err(_) => return Ok(false),
            }
        };
        let (log, path) = (self.log.clone(), repair::store_file(&self.dir.member));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let other = InstallId(draw(self.config.seed, now));
        let installing = move || {
            let mut receiver = receiver;
            let received = receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ())?;
            let (index, term) = (received.meta().applied_index, received.meta().applied_term);
            let fit = log.fit(index, term, other);
            if let Fit::Install(install) = fit {
                received.install(&path, install)?;
            }
            Ok::<_, cairn_engine::Error>((index, fit))
        };
        let fields = |error: String| [("remote-peer-id", format!("{peer:x}")), ("error", error)];
        match tokio::task::spawn_blocking(installing).await.expect("a store that is installed does not panic")
        {
            Ok((index, Fit::Install(_))) => {
                let fields = [("remote-peer-id", format!("{peer:x}")), ("applied-index", index.to_string())];
                self.say(Level::Info, "a peer's store takes the place of the damaged one", &fields);
                Ok(true)
            }
            Ok((index, Fit::TooOld { wanted })) => {
                self.wanted = wanted;
                let why = format!("it ends at {index}, and the log begins behind {wanted}");
                self.say(Level::Info, "the store of a peer is too old", &fields(why));
                Ok(false)
            }
            Ok((index, Fit::Foreign)) => {
                let why = format!("entry {index} is another one than this member knows to be committed");
                self.say(Level::Error, "the store of a peer is of another history", &fields(why));
                Ok(false)
            }
            // What came is damaged as its sender has it: another may be whole.
            Err(error) if error.is_corrupt() => {
                self.say(Level::Error, "the store of a peer is damaged", &fields(error.to_string()));
                Ok(false)
            }
            Err(error) => Err(StartError::Boot(error.into())),
        }
    }
}
