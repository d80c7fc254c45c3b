// SPDX-License-Identifier: Apache-2.0
//! The life of the process: from the configuration to ready, and from a signal to the end.
//!
//! Owns      the order of start and stop (SD rules), and the runtimes.
//! Holds     1. nothing is written to a data directory before every address is bound;
//!           2. the end is reached within [`STOP_LIMIT`] of the signal.
//! Never     serves a request itself.

use crate::{
    ETCD_VERSION,
    bootstrap::{self, Beginning},
    config::{Config, given::Remark, help::go_arch, tls::TlsConfig, value::format_duration},
    discovery,
    exit::ExitStatus,
    failed::{failed, not_started, status_of, status_of_failure},
    front::{Front, Role, Secure, Unhealthy},
    listen::{self, Listener, Protection},
    log::{Log, Value},
    member::{
        Ended, Failure, FailureKind, HungWrite, Member, MemberConfig, StartError, TokenKind,
        peers::reach::Reach,
    },
    metrics::{self, Metrics, Shown},
    notify,
    observe::Watcher,
    signals::{self, Signal},
    tls::{Dial, Tls, expiry, load::TlsError, made, settings::Dialled},
};
use cairn_core::boot::BootError;
use cairn_engine::io::install_sigbus_handler;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    panic::Location,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

/// From a signal to the end of the process.
pub const STOP_LIMIT: Duration = Duration::from_secs(7);
/// What of it is kept for the member, which seals its log.
const SEAL_LIMIT: Duration = Duration::from_secs(2);
/// Connections of peers have this long to end.
const PEERS_LIMIT: Duration = Duration::from_secs(1);
/// Files that a member needs beside its connections (SD-9).
const DESCRIPTORS_RESERVED: u64 = 150;
/// How often the limit of open files is compared with their number.
const DESCRIPTORS_INTERVAL: Duration = Duration::from_secs(600);
/// How soon changed keys of tokens are seen.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);
/// Leaderless checks in a row before streams that asked for a leader end (LIMIT-12).
const LEADERLESS_CHECKS: u32 = 3;

/// How a run of the daemon ended.
pub enum End {
    /// By itself, with a line in the log.
    Status(ExitStatus),
    /// After a signal: the process should end by it.
    Signal(Signal),
    /// A snapshot took the place of the store: the process should start anew, with the same arguments.
    Again,
}

/// Runs a member until it ends.
pub fn run(config: Config, remarks: &[Remark], log: Log) -> End {
    install_panic_hook(log.clone());
    if let Err(error) = install_sigbus_handler() {
        return failed(&log, ExitStatus::Failed, &format!("cannot handle signals: {error}"));
    }
    for remark in remarks {
        let fields = [(remark.field, Value::from(remark.value.as_str()))];
        if remark.warning { log.warn(remark.message, &fields) } else { log.info(remark.message, &fields) }
    }
    let limit = metrics::descriptor_limit().unwrap_or(u64::MAX);
    if limit <= DESCRIPTORS_RESERVED {
        let text = format!(
            "file descriptor limit of etcd process is too low; please set higher: it is {limit}, and must be above \
             {DESCRIPTORS_RESERVED} (ulimit -n)"
        );
        return failed(&log, ExitStatus::Descriptors, &text);
    }
    let connections_max = usize::try_from(limit - DESCRIPTORS_RESERVED).unwrap_or(usize::MAX);
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&log, ExitStatus::Descriptors, &format!("cannot start: {error}")),
    };
    runtime.block_on(live(config, log, connections_max))
}

async fn live(config: Config, log: Log, connections_max: usize) -> End {
    say_configuration(&log, &config);
    let listeners = match listen::bind_all(&config) {
        Ok(listeners) => listeners,
        Err(error) => return not_started(&log, ExitStatus::Listen, &error.to_string()),
    };
    if let Err(end) = keep_to_owner(&config, &log) {
        return end;
    }
    let (secure, reach) = match open_tls(&config, &log) {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    let config = match discovery::complete(config, &log).await {
        Ok(config) => config,
        Err(error) => return not_started(&log, ExitStatus::Refused, &error.to_string()),
    };
    let beginning = match bootstrap::beginning(&config, &reach).await {
        Ok(beginning) => beginning,
        Err(text) => return not_started(&log, ExitStatus::Refused, &text),
    };
    let fresh = beginning.fresh;
    let metrics = Arc::new(Metrics::new(config.metrics_extensive));
    watch_certificates(&secure, &metrics, &log);
    if let Some(dial) = reach.tls.as_ref().filter(|_| config.dials_with_another()) {
        tokio::spawn(expiry::watch(dial.clone(), Shown::Dialled, metrics.clone(), log.clone()));
    }
    let front = Arc::new(Front::new(config, log.clone(), metrics.clone()).with_tls(secure));
    let serving = Serving::new(front.clone(), connections_max);
    let (early, clients): (Vec<_>, Vec<_>) =
        listeners.into_iter().partition(|listener| matches!(listener.role, Role::Peer | Role::Metrics));
    for listener in &early {
        let message = if listener.role == Role::Peer { "serving peer traffic" } else { "serving metrics" };
        log.info(message, &[("address", listener.address.as_str().into())]);
    }
    let mut tasks = Tasks::default();
    serving.start(early, &mut tasks);
    let observer = Watcher { log: log.clone(), metrics, warn_apply: front.config.warn_apply };
    if front.config.auth.tokens == TokenKind::Simple {
        log.warn("simple token is not cryptographically signed", &[]);
    }
    let member = match open(&front, beginning, reach, Arc::new(observer), &log).await {
        Ok(member) => member,
        Err(end) => return end,
    };
    front.admit_peers(member.clone());
    let (advanced, wanted) = (member.clone(), front.config.tick_advance);
    tokio::spawn(async move { advanced.advance_ticks(wanted, fresh).await });
    let versions = tokio::spawn(member.clone().watch_versions());
    match member.publish_itself().await {
        Ok(()) => {}
        Err(StartError::Again(why)) => return ended_by_itself(&log, member, &why).await,
        Err(error) => return not_started(&log, status_of(&error), &error.to_string()),
    }
    defragment_if_worth_it(&log, &front.config, &member).await;
    front.open(member.clone());
    let told = match signals::install() {
        Ok(told) => told,
        Err(error) => {
            member.stop().await;
            return failed(&log, ExitStatus::Failed, &format!("cannot handle signals: {error}"));
        }
    };
    for client in &clients {
        log.info("ready to serve client requests", &[]);
        let fields = [("traffic", client.role.traffic().into()), ("address", client.address.as_str().into())];
        if client.protection() != Protection::Plain {
            log.info("serving client traffic securely", &fields);
        }
        if client.protection() != Protection::Tls {
            log.info("serving client traffic insecurely; this is strongly discouraged!", &fields);
        }
    }
    serving.start(clients, &mut tasks);
    notify_init(&log);
    let has_leader = {
        let member = member.clone();
        move || member.has_leader()
    };
    let watch_leader = tokio::spawn(watch_leader(front.clone(), has_leader));
    let watch_descriptors = tokio::spawn(watch_descriptors(log.clone()));
    let watch_log = tokio::spawn(watch_log(front.clone(), member.hung_write()));
    let watch_keys = tokio::spawn(watch_keys(log.clone(), member.clone()));
    let compare = tokio::spawn(member.clone().compare_with_peers());
    let (signal, ended) = tokio::select! {
        Ok(signal) = told => (Some(signal), None),
        ended = member.ended() => (None, Some(ended)),
    };
    if let Some(signal) = &signal {
        log.info("received signal; shutting down", &[("signal", signal.name().into())]);
    }
    watch_leader.abort();
    watch_descriptors.abort();
    watch_log.abort();
    watch_keys.abort();
    compare.abort();
    versions.abort();
    stop(&log, &front, &member, &serving, tasks).await;
    match (signal, ended) {
        (Some(signal), _) => End::Signal(signal),
        (None, Some(ended)) => ended_by_itself(&log, member, &ended).await,
        (None, None) => End::Status(ExitStatus::Done),
    }
}

async fn open(
    front: &Front,
    beginning: Beginning,
    reach: Reach,
    observer: Arc<Watcher>,
    log: &Log,
) -> Result<Member, End> {
    let config = &front.config;
    let refused = |error: StartError| not_started(log, status_of(&error), &error.to_string());
    let member = member_config(config, beginning, reach.clone());
    match Member::open(member.clone(), observer.clone()).await {
        // It was to join a cluster, and ended before it heard anything of it.
        Err(StartError::Boot(BootError::FirstEntry(_))) if !config.found_cluster => {}
        Err(StartError::Boot(error)) if error.is_of_store() && !config.force_new_cluster => {
            return Err(repair(front, &member, &error, &observer, log).await);
        }
        opened => return opened.map_err(refused),
    }
    let beginning =
        bootstrap::join(config, &reach).await.map_err(|text| not_started(log, ExitStatus::Refused, &text))?;
    Member::open(member_config(config, beginning, reach), observer).await.map_err(refused)
}

/// The store is damaged: a peer's takes its place, and the process starts anew over it. A member that is alone has
/// nobody to ask.
async fn repair(
    front: &Front,
    member: &MemberConfig,
    error: &BootError,
    observer: &Watcher,
    log: &Log,
) -> End {
    let mut urls = member.named_peers.clone();
    urls.extend(Member::others_named(member));
    urls.sort_unstable();
    urls.dedup();
    let refused = |error: &StartError| not_started(log, status_of(error), &error.to_string());
    if urls.is_empty() {
        return not_started(log, ExitStatus::DataDamaged, &error.to_string());
    }
    match Member::set_aside(member) {
        Ok(aside) => say_aside(log, &aside, &error.to_string()),
        Err(error) => return refused(&error),
    }
    match Member::repair(member, &urls, observer, |taker| front.take_store(taker)).await {
        Ok(()) => {
            log.info("the member starts anew from the store of a peer", &[]);
            End::Again
        }
        Err(error) => refused(&error),
    }
}

fn say_aside(log: &Log, aside: &Path, error: &str) {
    let fields = [("file", aside.display().to_string().into()), ("error", error.into())];
    log.warn("the store is damaged and set aside; the member gets another one from a peer", &fields);
}

/// DD-1: what others may read is told, and closed where it is the member's own (S06).
fn keep_to_owner(config: &Config, log: &Log) -> Result<(), End> {
    let owned =
        MemberConfig { wal_dir: config.wal_dir.clone(), ..MemberConfig::new(config.data_dir.clone(), 0) };
    Member::check_owner(&owned).map_err(|error| not_started(log, status_of(&error), &error.to_string()))?;
    let wide = |dir: &Path| {
        fs::metadata(dir)
            .ok()
            .map(|found| found.permissions().mode() & 0o777)
            .filter(|mode| mode & 0o077 != 0)
    };
    let member = config.data_dir.join("member");
    let told = [Some(&config.data_dir), Some(&member), config.wal_dir.as_ref()];
    for dir in told.into_iter().flatten() {
        let Some(mode) = wide(dir) else { continue };
        log.warn(
            "check file permission",
            &[
                ("path", dir.display().to_string().into()),
                ("mode", format!("{mode:04o}").into()),
                ("expected", "0700".into()),
            ],
        );
    }
    if wide(&member).is_none() {
        return Ok(());
    }
    fs::set_permissions(&member, fs::Permissions::from_mode(0o700)).map_err(|error| {
        let text = format!(
            "{} can be read by others, and that cannot be changed: {error}: give it to the user that runs this member",
            member.display()
        );
        not_started(log, ExitStatus::DataUnreadable, &text)
    })
}

/// Loads what secure listeners show and members are dialled with, and makes what is to be made.
fn open_tls(config: &Config, log: &Log) -> Result<(Secure, Reach), End> {
    let open = |tls: &Option<TlsConfig>| tls.as_ref().map(|tls| open_one(tls, log)).transpose();
    let opened = open(&config.client_tls).and_then(|client| {
        let secure = Secure { client, peer: open(&config.peer_tls)? };
        let dial = |settings: &Dialled| Dial::open(settings.clone(), log.clone()).map(Arc::new);
        Ok((secure, Reach { tls: config.dialled_tls.as_ref().map(dial).transpose()? }))
    });
    opened.map_err(|error| not_started(log, ExitStatus::Refused, &error.to_string()))
}

fn open_one(config: &TlsConfig, log: &Log) -> Result<Arc<Tls>, TlsError> {
    if let Some(make) = &config.make {
        made::ensure(&make.dir, &make.hosts, make.years)?;
    }
    Ok(Arc::new(Tls::open(config.settings.clone(), log.clone())?))
}

fn watch_certificates(secure: &Secure, metrics: &Arc<Metrics>, log: &Log) {
    for (tls, shown) in [(&secure.client, Shown::Client), (&secure.peer, Shown::Peer)] {
        if let Some(tls) = tls {
            tokio::spawn(expiry::watch(tls.clone(), shown, metrics.clone(), log.clone()));
        }
    }
}

async fn ended_by_itself(log: &Log, member: Member, ended: &Ended) -> End {
    match ended {
        Ended::Stopped => End::Status(ExitStatus::Done),
        // CL-4.
        Ended::Removed => {
            let error = "the member has been permanently removed from the cluster";
            log.warn("server error", &[("error", error.into())]);
            log.warn("data-dir used by this member must be removed", &[]);
            End::Status(ExitStatus::Done)
        }
        Ended::Replaced => match member.install().await {
            Ok(()) => {
                log.info("applied snapshot; the member starts anew from it", &[]);
                End::Again
            }
            Err(Failure { kind, text }) => {
                failed(log, status_of_failure(kind), &format!("the snapshot cannot be installed: {text}"))
            }
        },
        Ended::Damaged(Failure { text, .. }) => match member.set_own_aside().await {
            Ok(aside) => {
                say_aside(log, &aside, text);
                End::Again
            }
            Err(Failure { kind, text }) => failed(
                log,
                status_of_failure(kind),
                &format!("the damaged store cannot be set aside: {text}"),
            ),
        },
        Ended::Failed(Failure { kind, text }) => {
            let advice = match kind {
                // The text says what to do.
                FailureKind::DiskFull | FailureKind::Damaged | FailureKind::StoreDamaged => "",
                FailureKind::Other => ": start it again to recover from its log",
            };
            failed(log, status_of_failure(*kind), &format!("the member stopped: {text}{advice}"))
        }
    }
}

/// SD-3: requests under way are answered, streams end, the log is sealed; all within the limit.
async fn stop(log: &Log, front: &Front, member: &Member, serving: &Serving, tasks: Tasks) {
    let deadline = Instant::now() + STOP_LIMIT;
    log.info("closing etcd server", &[("name", front.config.name.as_str().into())]);
    front.stop();
    match timeout_at(deadline - SEAL_LIMIT, member.hand_over()).await {
        // The member said how.
        Ok(Ok(())) => {}
        Ok(Err(why)) => log.info(why, &[]),
        Err(_) => log.warn("leadership transfer failed", &[("error", "it took too long".into())]),
    }
    serving.closing.send_replace(true);
    let ended = async |tasks: Vec<JoinHandle<()>>| {
        for task in tasks {
            // A listener that panicked has said so.
            drop(task.await);
        }
    };
    if timeout_at(deadline - SEAL_LIMIT, ended(tasks.others)).await.is_err() {
        log.warn("connections did not end in time and are closed", &[]);
    }
    if timeout_at(deadline, member.stop()).await.is_err() {
        log.warn("the log could not be sealed in time; the next start recovers from it", &[]);
    }
    // Peers are listened to until nothing is owed to them any more (SD-3).
    serving.closing_peers.send_replace(true);
    if timeout(PEERS_LIMIT, ended(tasks.peers)).await.is_err() {
        log.info("connections of peers are closed", &[]);
    }
    log.info("closed etcd server", &[("name", front.config.name.as_str().into())]);
}

/// The listeners' tasks and the threads that serve connections.
struct Serving {
    front: Arc<Front>,
    workers: Arc<[Handle]>,
    connections_max: usize,
    closing: watch::Sender<bool>,
    closing_peers: watch::Sender<bool>,
}

/// The tasks of the listeners.
#[derive(Default)]
struct Tasks {
    peers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Serving {
    /// A connection stays on one worker: its requests then never wait for another thread.
    fn new(front: Arc<Front>, connections_max: usize) -> Serving {
        let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = (0..workers).map(|i| start_worker(i, front.log.clone())).collect();
        let (closing, closing_peers) = (watch::Sender::new(false), watch::Sender::new(false));
        Serving { front, workers, connections_max, closing, closing_peers }
    }

    fn start(&self, listeners: Vec<Listener>, tasks: &mut Tasks) {
        for listener in listeners {
            let (front, workers) = (self.front.clone(), self.workers.clone());
            let (closing, of_role) = match listener.role {
                Role::Peer => (&self.closing_peers, &mut tasks.peers),
                _ => (&self.closing, &mut tasks.others),
            };
            let serving = listener.serve(front, workers, self.connections_max, closing.subscribe());
            of_role.push(tokio::spawn(serving));
        }
    }
}

/// A thread with a runtime of its own, which lives as long as the process.
fn start_worker(number: usize, log: Log) -> Handle {
    let runtime =
        Builder::new_current_thread().enable_all().build().expect("descriptors were counted at start");
    let handle = runtime.handle().clone();
    let spawned = thread::Builder::new()
        .name(format!("rpc-{number}"))
        .spawn(move || runtime.block_on(std::future::pending::<()>()));
    if let Err(error) = spawned {
        log.fatal("cannot start a thread", &[("error", error.to_string().into())]);
    }
    handle
}

/// DD-8.
async fn defragment_if_worth_it(log: &Log, config: &Config, member: &Member) {
    let status = member.status();
    let threshold = i64::try_from(config.defrag_threshold_mb.saturating_mul(1 << 20)).unwrap_or(i64::MAX);
    let free = status.db_size - status.db_size_in_use;
    if threshold == 0 {
        return;
    }
    let fields = [
        ("current-db-size-bytes", Value::from(status.db_size)),
        ("current-db-size-in-use-bytes", status.db_size_in_use.into()),
        ("bootstrap-defrag-threshold-bytes", threshold.into()),
    ];
    if free < threshold {
        return log.info("Skipping defragmentation", &fields);
    }
    log.info("starting defragment", &fields);
    match member.defragment().await {
        Ok(()) => log.info("finished defragment", &[]),
        Err(why) => log.warn("failed to defragment", &[("error", why.into())]),
    }
}

fn notify_init(log: &Log) {
    log.info("notifying init daemon", &[]);
    let Some(socket) = std::env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty()) else {
        return;
    };
    match notify::ready(&socket) {
        Ok(()) => log.info("successfully notified init daemon", &[]),
        Err(error) => log.warn("failed to notify init daemon", &[("error", error.to_string().into())]),
    }
}

/// LIMIT-12: counts the checks, one an election timeout, that find no leader.
pub(crate) async fn watch_leader(front: Arc<Front>, has_leader: impl Fn() -> bool) {
    let mut interval = tokio::time::interval(Duration::from_millis(front.config.election_ms));
    let mut leaderless = 0;
    loop {
        interval.tick().await;
        leaderless = if has_leader() { 0 } else { leaderless + 1 };
        front.set_leaderless(leaderless >= LEADERLESS_CHECKS);
    }
}

/// Tells the health service of a write of the log that hangs, until the member is gone.
pub async fn watch_log(front: Arc<Front>, mut hung: watch::Receiver<Option<HungWrite>>) {
    hung.mark_changed();
    while hung.changed().await.is_ok() {
        let hangs = hung.borrow_and_update().is_some();
        front.set_unhealthy(Unhealthy::HungWrite, hangs);
    }
}

/// Takes up keys of tokens that were changed.
async fn watch_keys(log: Log, member: Member) {
    let mut interval = tokio::time::interval(KEYS_INTERVAL);
    loop {
        interval.tick().await;
        let member = member.clone();
        match tokio::task::spawn_blocking(move || member.look_at_keys()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => log.info("loaded changed keys of tokens", &[]),
            Ok(Err(why)) => log.warn(
                "cannot load changed keys of tokens; those loaded before stay in force",
                &[("error", why.to_string().into())],
            ),
            Err(_) => return,
        }
    }
}

/// SD-9.
async fn watch_descriptors(log: Log) {
    let mut interval = tokio::time::interval(DESCRIPTORS_INTERVAL);
    loop {
        interval.tick().await;
        if let (Some(limit), Some(used)) = (metrics::descriptor_limit(), metrics::descriptors_used())
            && used > limit / 5 * 4
        {
            log.warn("80% of file descriptors are used", &[("used", used.into()), ("limit", limit.into())]);
        }
    }
}

fn member_config(config: &Config, beginning: Beginning, reach: Reach) -> MemberConfig {
    MemberConfig {
        start: beginning.start,
        force_new_cluster: config.force_new_cluster,
        known_peers: beginning.peers,
        named_peers: bootstrap::others(config).flatten().chain(&config.others_named).cloned().collect(),
        reach,
        name: config.name.clone(),
        wal_dir: config.wal_dir.clone(),
        peer_urls: bootstrap::founder_urls(config).to_vec(),
        client_urls: config.advertise_client.clone(),
        cluster_token: config.cluster_token.clone(),
        heartbeat_ms: config.heartbeat_ms,
        election_ms: config.election_ms,
        pre_vote: config.pre_vote,
        quota_bytes: config.quota_bytes,
        max_request_bytes: config.max_request_bytes,
        max_txn_ops: config.max_txn_ops,
        scrub_bytes_s: config.scrub_bytes_s,
        compare: config.compare.clone(),
        catch_up_entries: config.catch_up_entries,
        auto_compaction: config.auto_compaction,
        watch_progress_interval_ms: config.progress_interval.as_millis() as u64,
        auth: config.auth.clone(),
        strict_reconfig: config.strict_reconfig,
        learners_max: config.learners_max,
        downgrade_check: Some(config.downgrade_check).filter(|period| !period.is_zero()),
        lease_checkpoints: config.gates.lease_checkpoint,
        ..MemberConfig::new(config.data_dir.clone(), seed())
    }
}

/// The daemon's one draw; all others follow from it.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    RandomState::new().hash_one((now.as_nanos(), std::process::id()))
}

/// LG-5: a panic is a line of the log too.
fn install_panic_hook(log: Log) {
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        let place = info.location().unwrap_or_else(|| Location::caller());
        log.write(crate::log::Level::Panic, place, text, &[]);
    }));
}

/// LG-6: what tools look for at the start of a log.
fn say_configuration(log: &Log, config: &Config) {
    let urls = |urls: &[crate::config::urls::ListenUrl]| -> Value {
        urls.iter().map(|url| Value::from(url.text.as_str())).collect()
    };
    log.info(
        "starting an etcd server",
        &[
            ("etcd-version", ETCD_VERSION.into()),
            ("cairn-version", env!("CARGO_PKG_VERSION").into()),
            ("go-os", "linux".into()),
            ("go-arch", go_arch().into()),
            ("name", config.name.as_str().into()),
            ("data-dir", config.data_dir.display().to_string().into()),
            (
                "wal-dir",
                config.wal_dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default().into(),
            ),
            ("heartbeat-interval", format_duration(Duration::from_millis(config.heartbeat_ms)).into()),
            ("election-timeout", format_duration(Duration::from_millis(config.election_ms)).into()),
            ("listen-peer-urls", urls(&config.listen_peer)),
            ("listen-client-urls", urls(&config.listen_client)),
            ("listen-client-http-urls", urls(&config.listen_client_http)),
            ("listen-metrics-urls", urls(&config.listen_metrics)),
            ("initial-advertise-peer-urls", config.advertise_peer.clone().into()),
            ("advertise-client-urls", config.advertise_client.clone().into()),
            ("initial-cluster-token", config.cluster_token.as_str().into()),
            ("quota-backend-bytes", crate::front::grpc::effective_quota(config).into()),
            ("max-request-bytes", config.max_request_bytes.into()),
            ("max-txn-ops", config.max_txn_ops.into()),
            ("scrub-rate", config.scrub_bytes_s.into()),
            ("max-concurrent-streams", config.max_concurrent_streams.into()),
            ("lease-checkpoint", config.gates.lease_checkpoint.into()),
        ],
    );
}
