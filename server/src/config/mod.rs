// SPDX-License-Identifier: Apache-2.0
//! The configuration: what was given, judged and typed.
//!
//! Owns      [`Config`], the only form in which the rest of the daemon sees flags.
//! Holds     every flag is in force, or maps, or warned about, or refused by name: the classes of
//!           [`flags`] are carried out here, so no flag is accepted and then ignored in silence.
//! Never     opens a socket or makes a directory.

mod cluster;
mod discovery;
pub mod file;
pub mod flags;
mod gates;
pub mod given;
pub mod help;
pub mod tls;
pub mod urls;
pub mod value;

pub use cluster::{check_members, same_url};
pub use gates::Gates;

use crate::{
    discovery::Discovery,
    jwt::{JwtConfig, Method},
    member::{AuthConfig, CompareConfig, TokenKind},
    tls::settings::Dialled,
};
use cairn_core::{AutoCompaction, repair};
use flags::{Class, FLAGS};
use given::{Given, Remark};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};
use tls::TlsConfig;
use urls::ListenUrl;

/// Streams of one connection where the flag says nothing: API servers open thousands. etcd's default,
/// 2^32-1, is no bound at all.
pub const CONCURRENT_STREAMS_DEFAULT: u32 = 32768;
/// What the transport takes above `--max-request-bytes` (LIMIT-2).
pub const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// etcd warns above this (RT-7).
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;
/// etcd warns above this (QU-1).
const QUOTA_RECOMMENDED: i64 = 8 << 30;
const ELECTION_MS_MAX: u64 = 50_000;
const PROGRESS_MIN: Duration = Duration::from_millis(100);
const PROGRESS_DEFAULT: Duration = Duration::from_secs(600);

#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub pre_vote: bool,
    /// Whether most of the first wait for a leader is passed over.
    pub tick_advance: bool,
    /// As given: 0 is the default of 2 GiB, negative is no quota.
    pub quota_bytes: i64,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    /// Bytes a second; 0 does not scrub.
    pub scrub_bytes_s: u64,
    pub compare: CompareConfig,
    pub catch_up_entries: u64,
    pub strict_reconfig: bool,
    pub learners_max: u32,
    /// Defragment at start if that frees as much; 0 never does.
    pub defrag_threshold_mb: u64,
    pub gates: Gates,
    pub listen_peer: Vec<ListenUrl>,
    pub listen_client: Vec<ListenUrl>,
    pub listen_client_http: Vec<ListenUrl>,
    pub listen_metrics: Vec<ListenUrl>,
    /// Of the listeners for clients and for metrics, if one of them is secure.
    pub client_tls: Option<TlsConfig>,
    pub peer_tls: Option<TlsConfig>,
    /// Of connections to other members, where it is said whom to trust.
    pub dialled_tls: Option<Dialled>,
    /// Whether a certificate of a peer may come from an address that it does not name.
    pub peer_skip_address: bool,
    pub reuse_port: bool,
    pub max_concurrent_streams: u32,
    pub ping_min: Duration,
    /// `None`: the server sends no pings.
    pub ping_interval: Option<Duration>,
    pub ping_timeout: Duration,
    pub gateway: bool,
    pub cors: AllowList,
    pub hosts: AllowList,
    pub advertise_peer: Vec<String>,
    pub advertise_client: Vec<String>,
    pub cluster_token: String,
    /// Whether the first boot may found a cluster.
    pub found_cluster: bool,
    pub downgrade_check: Duration,
    /// Whether a member that has data goes on without all others.
    pub force_new_cluster: bool,
    /// How the members are found that the cluster begins with, if they are not named.
    pub discovery: Option<Discovery>,
    /// `--initial-cluster`: the members that the cluster begins with, by name.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// Peer URLs of others in it, also where a member with data passes over it: whom it asks about callers that it
    /// does not know, and for a store if it loses its own.
    pub others_named: Vec<String>,
    pub auto_compaction: AutoCompaction,
    pub progress_interval: Duration,
    pub auth: AuthConfig,
    /// Failed logins of one address a second; 0 sets no bound.
    pub auth_failures_s: u32,
    pub metrics_extensive: bool,
    pub log: LogConfig,
    pub warn_apply: Duration,
    pub warn_unary: Duration,
}

/// `*`, or these and no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowList {
    Any,
    Only(BTreeSet<String>),
}

impl AllowList {
    fn new(text: &str) -> AllowList {
        let items: BTreeSet<String> = value::parse_list(text).into_iter().collect();
        if items.is_empty() || items.contains("*") { AllowList::Any } else { AllowList::Only(items) }
    }

    pub fn allows(&self, item: &str) -> bool {
        match self {
            AllowList::Any => true,
            AllowList::Only(items) => items.contains(item),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    pub level: crate::log::Level,
    pub console: bool,
    pub outputs: Vec<LogOutput>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogOutput {
    Stderr,
    Stdout,
    Journal,
    File(PathBuf),
}

/// A configuration that cannot be served: one sentence that names the flag.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn refuse<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}

impl Config {
    /// Judges what was given, and says what is to be warned about.
    pub fn new(given: &Given) -> Result<(Config, Vec<Remark>), ConfigError> {
        Config::on_host(given, cluster::default_host)
    }

    /// The same on a machine whose address towards others is this.
    pub fn on_host(
        given: &Given,
        address: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(Config, Vec<Remark>), ConfigError> {
        let mut remarks = carry_out_classes(given)?;
        let read = Reader { given };
        let heartbeat_ms = read.uint("heartbeat-interval");
        let election_ms = read.uint("election-timeout");
        check_times(heartbeat_ms, election_ms)?;
        let name = read.text("name").to_owned();
        let data_dir = match read.text("data-dir") {
            "" => PathBuf::from(format!("{name}.etcd")),
            dir => PathBuf::from(dir),
        };
        let (gates, gate_remarks) = Gates::new(read.text("feature-gates"))?;
        remarks.extend(gate_remarks);
        if name == cluster::DEFAULT_NAME {
            remarks.push(warn(cluster::NAME_ADVICE, "name", &name));
        }
        let max_request_bytes = read.uint("max-request-bytes");
        if max_request_bytes > REQUEST_BYTES_RECOMMENDED {
            remarks.push(warn("exceeded recommended request limit", "max-request-bytes", max_request_bytes));
        }
        let quota_bytes = read.int("quota-backend-bytes");
        if quota_bytes > QUOTA_RECOMMENDED {
            remarks.push(warn("quota exceeds the maximum value", "quota-backend-bytes", quota_bytes));
        }
        let ping_interval = read.duration("grpc-keepalive-interval")?;
        let ping_timeout = read.duration("grpc-keepalive-timeout")?;
        let (listen_client, listen_peer) =
            (read.listeners("listen-client-urls")?, read.listeners("listen-peer-urls")?);
        let mut advertise_peer = read.announced("initial-advertise-peer-urls")?;
        if let Some(host) = cluster::announce_host(&mut advertise_peer, &listen_peer, address) {
            let message = "detected default host for advertise";
            remarks.push(Remark { warning: false, message, field: "host", value: host.to_string() });
        }
        let listen_client_http = read.listeners("listen-client-http-urls")?;
        let listen_metrics = read.listeners("listen-metrics-urls")?;
        let of_clients: Vec<&ListenUrl> = listen_client.iter().chain(&listen_client_http).collect();
        let client_tls = tls::client(&read, &of_clients, &listen_metrics, &data_dir, &mut remarks)?;
        let of_peers: Vec<&ListenUrl> = listen_peer.iter().collect();
        let (peer_tls, dialled_tls) = tls::peer(&read, &of_peers, &data_dir, &mut remarks)?;
        let found_cluster = found_cluster(&read)?;
        let config = Config {
            wal_dir: Some(PathBuf::from(read.text("wal-dir"))).filter(|dir| !dir.as_os_str().is_empty()),
            heartbeat_ms,
            election_ms,
            pre_vote: read.bool("pre-vote"),
            tick_advance: read.bool("initial-election-tick-advance"),
            quota_bytes,
            max_txn_ops: usize_of("max-txn-ops", read.uint("max-txn-ops"))?,
            max_request_bytes: usize_of("max-request-bytes", max_request_bytes)?,
            scrub_bytes_s: read.uint("scrub-rate"),
            compare: compare_config(&read, gates)?,
            catch_up_entries: read.uint("snapshot-catchup-entries"),
            strict_reconfig: read.bool("strict-reconfig-check"),
            learners_max: u32::try_from(read.int("max-learners"))
                .map_err(|_| ConfigError("--max-learners must not be negative, nor above 2^32".to_owned()))?,
            defrag_threshold_mb: read.uint("bootstrap-defrag-threshold-megabytes"),
            gates,
            listen_peer,
            listen_client,
            listen_client_http,
            listen_metrics,
            client_tls,
            peer_tls,
            dialled_tls,
            peer_skip_address: read.bool("peer-skip-client-san-verification"),
            reuse_port: read.bool("socket-reuse-port"),
            max_concurrent_streams: match given.text("max-concurrent-streams") {
                Some(_) => u32::try_from(read.uint("max-concurrent-streams")).expect("checked as given"),
                None => CONCURRENT_STREAMS_DEFAULT,
            },
            ping_min: read.duration("grpc-keepalive-min-time")?,
            ping_interval: Some(ping_interval)
                .filter(|_| !ping_interval.is_zero() && !ping_timeout.is_zero()),
            ping_timeout,
            gateway: read.bool("enable-grpc-gateway"),
            cors: cors(read.text("cors"))?,
            hosts: AllowList::new(read.text("host-whitelist")),
            advertise_client: read.announced("advertise-client-urls")?,
            cluster_token: read.text("initial-cluster-token").to_owned(),
            found_cluster,
            discovery: discovery::discovery(&read, found_cluster)?,
            downgrade_check: read.duration("downgrade-check-time")?,
            force_new_cluster: read.bool("force-new-cluster"),
            initial_cluster: BTreeMap::new(),
            others_named: Vec::new(),
            auto_compaction: auto_compaction(&read)?,
            progress_interval: match read.duration("watch-progress-notify-interval")? {
                Duration::ZERO => PROGRESS_DEFAULT,
                interval => interval.max(PROGRESS_MIN),
            },
            auth: auth_config(&read, &mut remarks)?,
            auth_failures_s: u32::try_from(read.uint("auth-failure-rate")).expect("checked as given"),
            metrics_extensive: match read.text("metrics") {
                "basic" | "" => false,
                "extensive" => true,
                other => return refuse(format!("--metrics must be basic or extensive, not {other:?}")),
            },
            log: log_config(&read)?,
            warn_apply: read.duration("warning-apply-duration")?,
            warn_unary: read.duration("warning-unary-request-duration")?,
            name,
            data_dir,
            advertise_peer,
        };
        if given.text("listen-client-urls").is_some() && given.text("advertise-client-urls").is_none() {
            return refuse("--advertise-client-urls is required when --listen-client-urls is set explicitly");
        }
        if config.listen_client.is_empty() || config.listen_peer.is_empty() {
            return refuse("--listen-client-urls and --listen-peer-urls need at least one URL each");
        }
        let initial_cluster = cluster::initial_cluster(&config, given.text("initial-cluster"))?;
        let others_named = cluster::others_named(&config, given.text("initial-cluster").unwrap_or_default());
        Ok((Config { initial_cluster, others_named, ..config }, remarks))
    }

    /// Whether the data directory is that of a member: it knows who it is, whatever it is told (BO-1).
    pub fn has_member(&self) -> bool {
        let dir = self.data_dir.join("member");
        repair::store_file(&dir).exists() || repair::aside_file(&dir).exists()
    }
}

impl Config {
    /// Whether members are dialled with a certificate that no listener shows.
    pub fn dials_with_another(&self) -> bool {
        let listening = self.peer_tls.as_ref().map(|tls| (&tls.settings.cert, &tls.settings.key));
        let dialling = self.dialled_tls.as_ref().and_then(|dialled| dialled.shown.as_ref());
        dialling.is_some_and(|(cert, key)| listening != Some((cert, key)))
    }
}

/// The warnings and refusals that follow from a flag's class alone.
fn carry_out_classes(given: &Given) -> Result<Vec<Remark>, ConfigError> {
    let mut remarks = given.remarks.clone();
    for (flag, value) in given.iter() {
        match flag.class {
            Class::Refused(why) if !same_value(flag.kind, value, flag.default) => {
                return refuse(format!("--{}={value} is refused: {why}", flag.name));
            }
            Class::NoEffect(why) => {
                remarks.push(Remark {
                    warning: true,
                    message: "flag has no effect",
                    field: "flag",
                    value: format!("--{}: {why}", flag.name),
                });
            }
            Class::Ignored => {
                remarks.push(warn(
                    "flag is no longer supported and is ignored",
                    "flag",
                    format!("--{}", flag.name),
                ));
            }
            _ => {}
        }
    }
    Ok(remarks)
}

/// Whether two well-formed values of a kind mean the same.
fn same_value(kind: flags::Kind, a: &str, b: &str) -> bool {
    use flags::Kind;
    match kind {
        Kind::Bool => value::parse_bool(a) == value::parse_bool(b),
        Kind::Uint | Kind::Uint32 => value::parse_uint(a) == value::parse_uint(b),
        Kind::Int => value::parse_int(a) == value::parse_int(b),
        Kind::Duration => value::parse_duration_ns(a) == value::parse_duration_ns(b),
        Kind::Text | Kind::Urls | Kind::List | Kind::Gates => a == b,
    }
}

fn warn(message: &'static str, field: &'static str, value: impl ToString) -> Remark {
    Remark { warning: true, message, field, value: value.to_string() }
}

fn usize_of(name: &str, value: u64) -> Result<usize, ConfigError> {
    match usize::try_from(value) {
        Ok(value) if value <= i32::MAX as usize - MESSAGE_OVERHEAD_BYTES => Ok(value),
        _ => refuse(format!("--{name}={value} is more than a message can hold")),
    }
}

fn check_times(heartbeat_ms: u64, election_ms: u64) -> Result<(), ConfigError> {
    if heartbeat_ms == 0 {
        return refuse("--heartbeat-interval must be >0 (set to 0ms)");
    }
    if election_ms == 0 {
        return refuse("--election-timeout must be >0 (set to 0ms)");
    }
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return refuse(format!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
        ));
    }
    if election_ms > ELECTION_MS_MAX {
        return refuse(format!(
            "--election-timeout[{election_ms}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    Ok(())
}

/// CO-1, CO-3, CO-4.
fn compare_config(read: &Reader<'_>, gates: Gates) -> Result<CompareConfig, ConfigError> {
    let compactions_every = read.duration("compact-hash-check-time")?;
    if compactions_every.is_zero() {
        return refuse("--compact-hash-check-time must be >0 (set to 0s)");
    }
    Ok(CompareConfig {
        compactions_every: gates.compare_compactions.then_some(compactions_every),
        stores_every: Some(read.duration("corrupt-check-time")?).filter(|period| !period.is_zero()),
        at_start: gates.compare_at_start,
    })
}

/// AU-6, AU-25, AU-28, AU-29.
fn auth_config(read: &Reader<'_>, remarks: &mut Vec<Remark>) -> Result<AuthConfig, ConfigError> {
    let defaults = AuthConfig::default();
    let text = read.text("auth-token");
    let mut parts = text.split(',');
    let tokens = match parts.next().unwrap_or_default() {
        "" if text.is_empty() => TokenKind::None,
        "simple" if parts.all(|option| option.contains('=')) => TokenKind::Simple,
        "jwt" => TokenKind::Jwt(jwt_config(text, parts, remarks)?),
        _ => return refuse(format!("--auth-token={text}: auth: invalid auth options")),
    };
    let cost = read.uint("bcrypt-cost");
    let bcrypt_cost = match u32::try_from(cost) {
        Ok(cost @ 4..=31) => cost,
        _ => {
            remarks.push(warn(
                "use default bcrypt cost instead of the invalid given cost",
                "given-cost",
                cost,
            ));
            defaults.bcrypt_cost
        }
    };
    let token_ttl_ms = match read.uint("auth-token-ttl") {
        0 => defaults.token_ttl_ms,
        seconds => seconds.saturating_mul(1000),
    };
    Ok(AuthConfig { tokens, token_ttl_ms, bcrypt_cost, revoke_watches: read.bool("auth-revoke-watches") })
}

/// AU-26, AU-28.
fn jwt_config<'a>(
    text: &str,
    options: impl Iterator<Item = &'a str>,
    remarks: &mut Vec<Remark>,
) -> Result<JwtConfig, ConfigError> {
    let refused = |why: &str| ConfigError(format!("--auth-token={text}: {why}"));
    let mut given = BTreeMap::new();
    for option in options {
        let (name, value) = option.split_once('=').ok_or_else(|| refused("auth: invalid auth options"))?;
        if given.insert(name, value).is_some() {
            return Err(refused("auth: invalid auth options"));
        }
    }
    let mut take = |name: &str| given.remove(name).filter(|value| !value.is_empty());
    let ttl = take("ttl").unwrap_or("5m");
    let ttl_s = value::parse_duration_ns(ttl)
        .and_then(|ns| u64::try_from(ns).ok())
        .map(|ns| ns.div_ceil(1_000_000_000))
        .ok_or_else(|| refused("ttl is no duration that is not negative"))?;
    let config = JwtConfig {
        public: take("pub-key").map(PathBuf::from),
        private: take("priv-key").map(PathBuf::from),
        method: take("sign-method")
            .and_then(Method::named)
            .ok_or_else(|| refused("auth: invalid auth signature method"))?,
        ttl_s,
    };
    if !given.is_empty() {
        let names = given.into_keys().collect::<Vec<_>>().join(",");
        remarks.push(warn("unknown JWT options", "keys", names));
    }
    Ok(config)
}

fn found_cluster(read: &Reader<'_>) -> Result<bool, ConfigError> {
    match read.text("initial-cluster-state") {
        "new" => Ok(true),
        "existing" => Ok(false),
        other => refuse(format!("--initial-cluster-state must be new or existing, not {other:?}")),
    }
}

/// AUTOC-1, AUTOC-2, FL-10.
fn auto_compaction(read: &Reader<'_>) -> Result<AutoCompaction, ConfigError> {
    let retention = read.text("auto-compaction-retention");
    let bad =
        || ConfigError(format!("--auto-compaction-retention={retention} cannot be read: error parsing it"));
    match read.text("auto-compaction-mode") {
        // A duration is taken too, as in etcd: its nanoseconds are the count.
        "revision" => match value::parse_int(retention)
            .or_else(|| value::parse_duration_ns(retention))
            .ok_or_else(bad)?
        {
            0 => Ok(AutoCompaction::Off),
            n if n < 0 => refuse(format!("--auto-compaction-retention={retention} must not be negative")),
            retention => Ok(AutoCompaction::Revision { retention }),
        },
        "periodic" => {
            let ns = match value::parse_int(retention) {
                Some(hours) => hours.checked_mul(3_600_000_000_000).ok_or_else(bad)?,
                None if retention.is_empty() => 0,
                None => value::parse_duration_ns(retention).ok_or_else(bad)?,
            };
            match ns {
                0 => Ok(AutoCompaction::Off),
                ns if ns < 0 => {
                    refuse(format!("--auto-compaction-retention={retention} must not be negative"))
                }
                ns => Ok(AutoCompaction::Periodic { period_ms: (ns as u64).div_ceil(1_000_000) }),
            }
        }
        other => refuse(format!("--auto-compaction-mode must be periodic or revision, not {other:?}")),
    }
}

fn cors(text: &str) -> Result<AllowList, ConfigError> {
    let list = AllowList::new(text);
    if let AllowList::Only(origins) = &list {
        for origin in origins {
            urls::check_announced(origin).map_err(|why| ConfigError(format!("--cors: {why}")))?;
        }
    }
    Ok(list)
}

fn log_config(read: &Reader<'_>) -> Result<LogConfig, ConfigError> {
    if read.text("logger") != "zap" {
        return refuse(format!("--logger must be zap, not {:?}", read.text("logger")));
    }
    let level = read.text("log-level");
    let level = crate::log::Level::named(level).ok_or_else(|| {
        ConfigError(format!("--log-level must be debug, info, warn, error, panic or fatal, not {level:?}"))
    })?;
    let console = match read.text("log-format") {
        "json" | "" => false,
        "console" => true,
        other => return refuse(format!("--log-format must be json or console, not {other:?}")),
    };
    let names = value::parse_list(read.text("log-outputs"));
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return refuse("--log-outputs: default cannot stand beside other outputs");
    }
    let outputs = names
        .iter()
        .map(|name| match name.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            path => LogOutput::File(PathBuf::from(path)),
        })
        .collect::<Vec<_>>();
    if outputs.is_empty() {
        return refuse("--log-outputs must not be empty");
    }
    Ok(LogConfig { level, console, outputs })
}

/// Reads values by flag name; what is not given has its default.
struct Reader<'a> {
    given: &'a Given,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> &'a str {
        self.given.text(name).unwrap_or_else(|| {
            FLAGS.iter().find(|flag| flag.name == name).expect("a flag of the table").default
        })
    }

    fn bool(&self, name: &str) -> bool {
        value::parse_bool(self.text(name)).expect("checked as given")
    }

    fn uint(&self, name: &str) -> u64 {
        value::parse_uint(self.text(name)).expect("checked as given")
    }

    fn int(&self, name: &str) -> i64 {
        value::parse_int(self.text(name)).expect("checked as given")
    }

    fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        let ns = value::parse_duration_ns(self.text(name)).expect("checked as given");
        u64::try_from(ns)
            .map(Duration::from_nanos)
            .map_err(|_| ConfigError(format!("--{name}={} must not be negative", self.text(name))))
    }

    fn listeners(&self, name: &str) -> Result<Vec<ListenUrl>, ConfigError> {
        value::parse_list(self.text(name))
            .iter()
            .map(|url| urls::parse_listen(url).map_err(|why| ConfigError(format!("--{name}: {why}"))))
            .collect()
    }

    fn announced(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let urls = value::parse_list(self.text(name));
        for url in &urls {
            urls::check_announced(url).map_err(|why| ConfigError(format!("--{name}: {why}")))?;
        }
        Ok(urls)
    }
}
