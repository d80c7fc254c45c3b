// SPDX-License-Identifier: Apache-2.0
//! The table of flags: every flag and feature gate of etcd, and what it does here.
//!
//! Owns      names, defaults, config file keys, help lines, and the class of each.
//! Holds     a row for every row of `tests/rules/flags.tsv`, with the same class (`tests/flags.rs`).
//! Never     parses a value.

use self::{Class::*, Group::*, Kind::*};

/// What a flag does in Cairn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// What it does in etcd.
    AsEtcd,
    /// The same purpose by other means, or with another default: how.
    Maps(&'static str),
    /// Some values work, others are refused: which.
    Part(&'static str),
    /// Accepted, without effect, and a warning at start says so: why.
    NoEffect(&'static str),
    /// Any value but the default is refused at start: why.
    Refused(&'static str),
    /// Without effect in etcd too (FL-7).
    Ignored,
    /// etcd has no such flag.
    Own,
}

impl Class {
    /// As in the column `cairn` of the rules.
    pub fn describe(self) -> String {
        match self {
            AsEtcd => "as-etcd".into(),
            Maps(how) => format!("maps: {how}"),
            Part(which) => format!("part: {which}"),
            NoEffect(why) => format!("no-effect: {why}"),
            Refused(why) => format!("refused: {why}"),
            Ignored => "ignored".into(),
            Own => "own".into(),
        }
    }
}

/// A paragraph of `--help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Member,
    Listeners,
    Clustering,
    History,
    Security,
    Observing,
    Other,
    Old,
}

impl Group {
    pub const ALL: [Group; 8] = [Member, Listeners, Clustering, History, Security, Observing, Other, Old];

    pub const fn title(self) -> &'static str {
        match self {
            Member => "Member",
            Listeners => "Listeners",
            Clustering => "Clustering",
            History => "History",
            Security => "Security",
            Observing => "Logs, metrics, traces",
            Other => "Other",
            Old => "Accepted for old scripts, without effect",
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Bool,
    Uint,
    Uint32,
    Int,
    Duration,
    /// Comma list of URLs.
    Urls,
    /// Comma list.
    List,
    /// Comma list of `NAME=BOOL`.
    Gates,
}

impl Kind {
    /// The word that stands for the value in `--help`.
    pub const fn word(self) -> &'static str {
        match self {
            Text => "text",
            Bool => "",
            Uint | Uint32 | Int => "n",
            Duration => "duration",
            Urls => "urls",
            List => "list",
            Gates => "gates",
        }
    }
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    /// As it would be written on the command line.
    pub default: &'static str,
    /// The key in the config file, dots between the levels; empty where there is none.
    pub key: &'static str,
    pub class: Class,
    pub help: &'static str,
}

impl Flag {
    /// Its environment variable, if it has one.
    pub fn variable(&self) -> Option<String> {
        let none = self.name == "version" || self.name.starts_with("test.");
        (!none).then(|| format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_")))
    }
}

/// One feature gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub name: &'static str,
    /// In etcd.
    pub default: bool,
    /// `alpha` or `beta`.
    pub stage: &'static str,
    pub class: Class,
}

/// The flag of that name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn flag(
    name: &'static str,
    group: Group,
    kind: Kind,
    default: &'static str,
    key: &'static str,
    class: Class,
    help: &'static str,
) -> Flag {
    Flag { name, group, kind, default, key, class, help }
}

const fn gate(name: &'static str, default: bool, stage: &'static str, class: Class) -> Gate {
    Gate { name, default, stage, class }
}

/// Keys of etcd's config file without a flag, and why they are refused.
pub const FILE_ONLY: &[(&str, &str)] = &[
    ("client-transport-security.allowed-cn", "no flag sets it, use allowed-hostname"),
    ("client-transport-security.skip-client-san-verification", "no flag sets it"),
    ("discovery-config.client.max-request-bytes", "no flag sets it"),
    ("discovery-config.client.max-recv-bytes", "no flag sets it"),
];

#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag("name", Member, Text, "default", "name", AsEtcd,
        "label of this member; must equal its entry in initial-cluster"),
    flag("data-dir", Member, Text, "", "data-dir", AsEtcd,
        "directory holding snapshots, database and, unless wal-dir is set, the log"),
    flag("wal-dir", Member, Text, "", "wal-dir", AsEtcd,
        "separate directory for the write-ahead log"),
    flag("snapshot-count", Member, Uint, "10000", "snapshot-count", NoEffect("state is checkpointed by bytes and age, and there are no snapshot files"),
        "applied entries between two on-disk raft snapshots (100000 up to 3.5)"),
    flag("snapshot-catchup-entries", Member, Uint, "5000", "snapshot-catchup-entries", Maps("how many entries the log keeps on disk behind what is applied, and what a snapshot on its way needs"),
        "raft entries kept in memory after log compaction so that a slow follower can catch up without a snapshot"),
    flag("heartbeat-interval", Member, Uint, "100", "heartbeat-interval", AsEtcd,
        "leader heartbeat period in milliseconds, also the raft tick; plain milliseconds in YAML as well"),
    flag("election-timeout", Member, Uint, "1000", "election-timeout", AsEtcd,
        "milliseconds without leader before an election; at least 5 heartbeats, at most 50000; plain milliseconds in YAML as well"),
    flag("initial-election-tick-advance", Member, Bool, "true", "initial-election-tick-advance", AsEtcd,
        "skip most of the first election wait at boot"),
    flag("pre-vote", Member, Bool, "true", "pre-vote", AsEtcd,
        "raft pre-vote round before a real election"),
    flag("max-wals", Member, Uint, "5", "max-wals", NoEffect("a log segment is released as soon as nothing needs it"),
        "log segments kept by purging; 0 = all"),
    flag("memory-mlock", Member, Bool, "false", "memory-mlock", Refused("locking memory is not there yet"),
        "lock process memory (the mapped database above all) into RAM"),
    flag("quota-backend-bytes", Member, Int, "0", "quota-backend-bytes", AsEtcd,
        "database size that triggers NOSPACE; negative switches the quota off"),
    flag("backend-batch-interval", Member, Duration, "0s", "backend-batch-interval", NoEffect("writes reach the log at once, and the tree file by checkpoints"),
        "longest time before buffered database writes are committed"),
    flag("backend-batch-limit", Member, Int, "0", "backend-batch-limit", NoEffect("writes reach the log at once, and the tree file by checkpoints"),
        "most operations before buffered database writes are committed"),
    flag("backend-bbolt-freelist-type", Member, Text, "", "backend-bbolt-freelist-type", NoEffect("the storage engine is not bbolt"),
        "array or map; any other text acts as map"),
    flag("max-txn-ops", Member, Uint, "128", "max-txn-ops", AsEtcd,
        "largest length of each list of a transaction"),
    flag("max-request-bytes", Member, Uint, "1572864", "max-request-bytes", AsEtcd,
        "largest encoded proposal; the transport accepts 512 KiB more; above 10 MiB a warning"),
    flag("feature-gates", Member, Gates, "", "feature-gates", AsEtcd,
        "NAME=BOOL list, also AllAlpha and AllBeta; gates are the rows of kind gate"),
    flag("scrub-rate", Member, Uint, "10000000", "scrub-rate", Own,
        "bytes a second at which the store is read from the disk and its checksums verified, in passes an hour apart; damage raises the CORRUPT alarm; 0 = off"),
    flag("bootstrap-defrag-threshold-megabytes", Member, Uint, "0", "bootstrap-defrag-threshold-megabytes", AsEtcd,
        "defragment at boot if that frees at least this many MB; 0 = never"),
    flag("listen-peer-urls", Listeners, Urls, "http://localhost:2380", "listen-peer-urls", AsEtcd,
        "addresses bound for member-to-member traffic; host must be an IP or localhost"),
    flag("listen-client-urls", Listeners, Urls, "http://localhost:2379", "listen-client-urls", AsEtcd,
        "addresses bound for clients: gRPC, plus HTTP unless listen-client-http-urls is set; http, https, unix or unixs"),
    flag("listen-client-http-urls", Listeners, Urls, "", "listen-client-http-urls", AsEtcd,
        "addresses for HTTP only (gateway, health, metrics, debug); once set, listen-client-urls speak gRPC only"),
    flag("listen-metrics-urls", Listeners, Urls, "", "listen-metrics-urls", AsEtcd,
        "extra addresses serving only metrics and health paths; https uses the client certificates"),
    flag("max-concurrent-streams", Listeners, Uint32, "4294967295", "max-concurrent-streams", Maps("a value given is taken as it is, the default is 32768"),
        "HTTP/2 streams per client connection"),
    flag("grpc-keepalive-min-time", Listeners, Duration, "5s", "grpc-keepalive-min-time", AsEtcd,
        "shortest ping period allowed to clients before the connection is cut"),
    flag("grpc-keepalive-interval", Listeners, Duration, "2h0m0s", "grpc-keepalive-interval", AsEtcd,
        "idle time before the server pings a client; 0 = never"),
    flag("grpc-keepalive-timeout", Listeners, Duration, "20s", "grpc-keepalive-timeout", AsEtcd,
        "wait for the ping answer before closing; 0 disables server pings"),
    flag("socket-reuse-port", Listeners, Bool, "false", "socket-options.reuse-port", AsEtcd,
        "SO_REUSEPORT on listeners"),
    flag("socket-reuse-address", Listeners, Bool, "false", "socket-options.reuse-address", NoEffect("listeners always set SO_REUSEADDR"),
        "SO_REUSEADDR on listeners"),
    flag("enable-grpc-gateway", Listeners, Bool, "true", "enable-grpc-gateway", Part("the gateway is not there yet, its routes answer 501, or 404 when switched off"),
        "serve the JSON routes under /v3/"),
    flag("raft-read-timeout", Listeners, Duration, "5s", "", NoEffect("connections of peers are watched by pings"),
        "read timeout on peer connections; raised to 5s if lower; command line and environment only"),
    flag("raft-write-timeout", Listeners, Duration, "5s", "", NoEffect("connections of peers are watched by pings"),
        "write timeout on peer connections; raised to 5s if lower; command line and environment only"),
    flag("cors", Listeners, Urls, "*", "cors", AsEtcd,
        "allowed origins as scheme://host:port, or *"),
    flag("host-whitelist", Listeners, List, "*", "host-whitelist", AsEtcd,
        "Host names accepted on HTTP requests without TLS, or *"),
    flag("initial-advertise-peer-urls", Clustering, Urls, "http://localhost:2380", "initial-advertise-peer-urls", AsEtcd,
        "peer URLs announced to the other members"),
    flag("advertise-client-urls", Clustering, Urls, "http://localhost:2379", "advertise-client-urls", AsEtcd,
        "client URLs announced in the member list; mandatory when listen-client-urls is given"),
    flag("initial-cluster", Clustering, Text, "default=http://localhost:2380", "initial-cluster", Part("https URLs of other members need --peer-trusted-ca-file or --peer-auto-tls, authorities of the system are not taken"),
        "NAME=PEERURL list used for the first boot; default is derived from name and advertised peer URLs"),
    flag("initial-cluster-state", Clustering, Text, "new", "initial-cluster-state", AsEtcd,
        "new or existing; read on first boot only"),
    flag("initial-cluster-token", Clustering, Text, "etcd-cluster", "initial-cluster-token", AsEtcd,
        "mixed into cluster and member ids to keep clusters apart"),
    flag("strict-reconfig-check", Clustering, Bool, "true", "strict-reconfig-check", AsEtcd,
        "refuse membership changes that would endanger the quorum"),
    flag("discovery-token", Clustering, Text, "", "discovery-config.token", AsEtcd,
        "cluster token for v3 discovery; needs discovery-endpoints"),
    flag("discovery-endpoints", Clustering, List, "", "discovery-config.client.endpoints", Part("https URLs need --discovery-cacert, authorities of the system are not taken"),
        "etcd endpoints used for v3 discovery; excludes initial-cluster and discovery-srv"),
    flag("discovery-dial-timeout", Clustering, Duration, "2s", "discovery-config.client.dial-timeout", AsEtcd,
        "v3 discovery: connect timeout"),
    flag("discovery-request-timeout", Clustering, Duration, "5s", "discovery-config.client.request-timeout", AsEtcd,
        "v3 discovery: per-request timeout"),
    flag("discovery-keepalive-time", Clustering, Duration, "2s", "discovery-config.client.keepalive-time", AsEtcd,
        "v3 discovery: ping period"),
    flag("discovery-keepalive-timeout", Clustering, Duration, "6s", "discovery-config.client.keepalive-timeout", AsEtcd,
        "v3 discovery: ping answer timeout"),
    flag("discovery-insecure-transport", Clustering, Bool, "true", "discovery-config.client.secure.insecure-transport", AsEtcd,
        "v3 discovery: plain connection"),
    flag("discovery-insecure-skip-tls-verify", Clustering, Bool, "false", "discovery-config.client.secure.insecure-skip-tls-verify", AsEtcd,
        "v3 discovery: accept any server certificate (tests only)"),
    flag("discovery-cert", Clustering, Text, "", "discovery-config.client.secure.cert", AsEtcd,
        "v3 discovery: client certificate file"),
    flag("discovery-key", Clustering, Text, "", "discovery-config.client.secure.key", AsEtcd,
        "v3 discovery: client key file"),
    flag("discovery-cacert", Clustering, Text, "", "discovery-config.client.secure.cacert", AsEtcd,
        "v3 discovery: CA bundle for the server certificate"),
    flag("discovery-user", Clustering, Text, "", "discovery-config.client.auth.username", AsEtcd,
        "v3 discovery: user, or user:password"),
    flag("discovery-password", Clustering, Text, "", "discovery-config.client.auth.password", AsEtcd,
        "v3 discovery: password when not part of discovery-user"),
    flag("discovery-fallback", Clustering, Text, "exit", "", Refused("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""),
        "only exit is useful; proxy is accepted by the parser, then refused"),
    flag("discovery-srv", Clustering, Text, "", "discovery-srv", AsEtcd,
        "DNS domain whose SRV records list the first members"),
    flag("discovery-srv-name", Clustering, Text, "", "discovery-srv-name", AsEtcd,
        "suffix for the SRV service names etcd-server-ssl and etcd-server"),
    flag("discovery-srv-server", Clustering, Text, "", "discovery-srv-server", Own,
        "ADDRESS:PORT of the DNS server that is asked for the SRV records; the system's otherwise"),
    flag("corrupt-check-time", Clustering, Duration, "0s", "corrupt-check-time", AsEtcd,
        "period of the leader comparing KV hashes of all members; 0 = off"),
    flag("compact-hash-check-time", Clustering, Duration, "1m0s", "compact-hash-check-time", Maps("members are compared after each compaction, too"),
        "period of the compaction hash comparison (gate CompactHashCheck); must be positive"),
    flag("downgrade-check-time", Clustering, Duration, "5s", "downgrade-check-time", AsEtcd,
        "period of the check that ends a finished downgrade; 0 = off"),
    flag("max-learners", Clustering, Int, "1", "max-learners", AsEtcd,
        "learners allowed in the cluster; must agree between members"),
    flag("auto-compaction-mode", History, Text, "periodic", "auto-compaction-mode", AsEtcd,
        "periodic (retention is a time) or revision (retention is a count)"),
    flag("auto-compaction-retention", History, Text, "0", "auto-compaction-retention", AsEtcd,
        "how much history to keep; a bare number means hours in periodic mode; 0 = off"),
    flag("compaction-batch-limit", History, Int, "0", "compaction-batch-limit", NoEffect("old revisions are dropped in slices beside the writers"),
        "revisions removed per compaction batch"),
    flag("compaction-sleep-interval", History, Duration, "0s", "compaction-sleep-interval", NoEffect("old revisions are dropped in slices beside the writers"),
        "pause between compaction batches"),
    flag("watch-progress-notify-interval", History, Duration, "0s", "watch-progress-notify-interval", AsEtcd,
        "period of progress replies to watchers that asked; at least 100ms"),
    flag("cert-file", Security, Text, "", "client-transport-security.cert-file", AsEtcd,
        "server certificate of client listeners"),
    flag("key-file", Security, Text, "", "client-transport-security.key-file", AsEtcd,
        "server key of client listeners"),
    flag("client-cert-file", Security, Text, "", "client-transport-security.client-cert-file", NoEffect("the member never calls its own client port"),
        "certificate the member uses when it calls its own client port with client auth on; default cert-file"),
    flag("client-key-file", Security, Text, "", "client-transport-security.client-key-file", NoEffect("the member never calls its own client port"),
        "key belonging to client-cert-file; default key-file"),
    flag("client-cert-auth", Security, Bool, "false", "client-transport-security.client-cert-auth", Maps("needs a file of trusted authorities, those of the system are not taken"),
        "require and verify client certificates; with auth on the CommonName acts as user name"),
    flag("client-crl-file", Security, Text, "", "ClientTLSInfo.CRLFile", AsEtcd,
        "revocation list for client certificates; no key of its own in YAML, only the raw struct path works"),
    flag("client-cert-allowed-hostname", Security, List, "", "client-transport-security.allowed-hostname", AsEtcd,
        "SAN host names accepted in client certificates"),
    flag("trusted-ca-file", Security, Text, "", "client-transport-security.trusted-ca-file", AsEtcd,
        "CA bundle for client certificates"),
    flag("auto-tls", Security, Bool, "false", "client-transport-security.auto-tls", AsEtcd,
        "client listeners use a self-signed certificate made at start"),
    flag("peer-cert-file", Security, Text, "", "peer-transport-security.cert-file", AsEtcd,
        "certificate for peer traffic"),
    flag("peer-key-file", Security, Text, "", "peer-transport-security.key-file", AsEtcd,
        "key for peer traffic"),
    flag("peer-client-cert-auth", Security, Bool, "false", "peer-transport-security.client-cert-auth", Maps("needs a file of trusted authorities, those of the system are not taken"),
        "require and verify certificates of peers"),
    flag("peer-client-cert-file", Security, Text, "", "peer-transport-security.client-cert-file", AsEtcd,
        "certificate for outgoing peer calls; default peer-cert-file"),
    flag("peer-client-key-file", Security, Text, "", "peer-transport-security.client-key-file", AsEtcd,
        "key for outgoing peer calls; default peer-key-file"),
    flag("peer-trusted-ca-file", Security, Text, "", "peer-transport-security.trusted-ca-file", AsEtcd,
        "CA bundle for peer certificates"),
    flag("peer-cert-allowed-cn", Security, List, "", "peer-transport-security.allowed-cn", AsEtcd,
        "CommonNames accepted from peers"),
    flag("peer-cert-allowed-hostname", Security, List, "", "peer-transport-security.allowed-hostname", AsEtcd,
        "SAN host names accepted from peers"),
    flag("peer-auto-tls", Security, Bool, "false", "peer-transport-security.auto-tls", AsEtcd,
        "peer traffic uses a self-signed certificate made at start"),
    flag("peer-crl-file", Security, Text, "", "PeerTLSInfo.CRLFile", AsEtcd,
        "revocation list for peer certificates; no key of its own in YAML, only the raw struct path works"),
    flag("peer-skip-client-san-verification", Security, Bool, "false", "peer-transport-security.skip-client-san-verification", AsEtcd,
        "do not compare the SAN of peer client certificates with the remote address"),
    flag("self-signed-cert-validity", Security, Uint, "1", "self-signed-cert-validity", AsEtcd,
        "years of validity for the self-signed certificates"),
    flag("cipher-suites", Security, List, "", "cipher-suites", Maps("suites without forward secrecy or authenticated encryption are warned about and not offered"),
        "TLS 1.2 suites by standard name (the two ChaCha20 suites also without _SHA256), in order of preference; not allowed with tls-min-version TLS1.3"),
    flag("tls-min-version", Security, Text, "TLS1.2", "tls-min-version", AsEtcd,
        "TLS1.2 or TLS1.3"),
    flag("tls-max-version", Security, Text, "", "tls-max-version", AsEtcd,
        "TLS1.2, TLS1.3 or empty for no cap"),
    flag("auth-token", Security, Text, "simple", "auth-token", AsEtcd,
        "simple, or jwt with options pub-key, priv-key, sign-method, ttl"),
    flag("bcrypt-cost", Security, Uint, "10", "bcrypt-cost", AsEtcd,
        "bcrypt cost for new passwords, 4 to 31; out of range falls back to 10"),
    flag("auth-token-ttl", Security, Uint, "300", "auth-token-ttl", AsEtcd,
        "seconds a simple token lives after its last use"),
    flag("auth-failure-rate", Security, Uint32, "10", "auth-failure-rate", Own,
        "failed logins of one address that are answered in a second, after a burst of 50; more wait; 0 = no bound"),
    flag("auth-revoke-watches", Security, Bool, "true", "auth-revoke-watches", Own,
        "end a watch when its user may no longer read what it watches; false is etcd's way"),
    flag("enable-pprof", Observing, Bool, "false", "enable-pprof", Refused("profiles in Go's format have no counterpart here"),
        "serve /debug/pprof on client HTTP listeners"),
    flag("metrics", Observing, Text, "basic", "metrics", AsEtcd,
        "basic, or extensive (adds gRPC latency histograms and, in 3.8, all Go runtime metrics)"),
    flag("logger", Observing, Text, "zap", "logger", AsEtcd,
        "only zap"),
    flag("log-outputs", Observing, List, "default", "log-outputs", AsEtcd,
        "default, stderr, stdout, systemd/journal or file paths"),
    flag("log-level", Observing, Text, "info", "log-level", AsEtcd,
        "debug, info, warn, error, panic or fatal; debug also opens /debug/pprof, /debug/requests and /debug/events"),
    flag("log-format", Observing, Text, "json", "log-format", AsEtcd,
        "json or console"),
    flag("enable-log-rotation", Observing, Bool, "false", "enable-log-rotation", Refused("log rotation is not there yet"),
        "rotate the single log file"),
    flag("log-rotation-config-json", Observing, Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "log-rotation-config-json", Refused("log rotation is not there yet"),
        "rotation limits: size in MB, age in days, number of backups, local time, compression"),
    flag("warning-apply-duration", Observing, Duration, "100ms", "warning-apply-duration", Maps("the time of a whole applied batch is compared"),
        "log requests whose apply takes longer"),
    flag("warning-unary-request-duration", Observing, Duration, "300ms", "warning-unary-request-duration", AsEtcd,
        "log unary calls that take longer"),
    flag("enable-distributed-tracing", Observing, Bool, "false", "enable-distributed-tracing", Refused("traces are not there yet"),
        "export OpenTelemetry spans"),
    flag("distributed-tracing-address", Observing, Text, "localhost:4317", "distributed-tracing-address", Refused("traces are not there yet"),
        "OTLP gRPC collector"),
    flag("distributed-tracing-service-name", Observing, Text, "etcd", "distributed-tracing-service-name", Refused("traces are not there yet"),
        "service name put on spans; equal on all members"),
    flag("distributed-tracing-instance-id", Observing, Text, "", "distributed-tracing-instance-id", Refused("traces are not there yet"),
        "instance id put on spans; unique per member"),
    flag("distributed-tracing-sampling-rate", Observing, Int, "0", "distributed-tracing-sampling-rate", Refused("traces are not there yet"),
        "sampled spans per million, on top of sampled parents"),
    flag("force-new-cluster", Other, Bool, "false", "force-new-cluster", Maps("without the data of a member the start is refused, and what the log holds is kept"),
        "restart as a one-member cluster keeping the data; disaster recovery only"),
    flag("unsafe-no-fsync", Other, Bool, "false", "unsafe-no-fsync", Refused("no write is acknowledged before it is on disk"),
        "skip fsync; loses data on a crash"),
    flag("config-file", Other, Text, "", "", Maps("unknown keys are refused with the nearest name"),
        "YAML or JSON file; when given, every other flag and variable is ignored. Durations in it are integer nanoseconds"),
    flag("version", Other, Bool, "false", "", Maps("Cairn's own version stands above etcd's"),
        "print versions and exit"),
    flag("cluster-active-size", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("cluster-remove-delay", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("cluster-sync-interval", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("config", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("force", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("max-result-buffer", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("max-retry-attempts", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("peer-election-timeout", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("peer-heartbeat-interval", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("retry-interval", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("snapshot", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("test.coverprofile", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("test.outputdir", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("v", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
    flag("vv", Old, Bool, "", "", Ignored,
        "accepted for old scripts"),
];

#[rustfmt::skip]
pub const GATES: &[Gate] = &[
    gate("StopGRPCServiceOnDefrag", false, "alpha", AsEtcd),
    gate("InitialCorruptCheck", false, "alpha", Maps("without it stores below 256 MiB are compared, and a majority of other data is needed to refuse a start")),
    gate("CompactHashCheck", false, "alpha", Maps("on by default")),
    gate("TxnModeWriteWithSharedBuffer", true, "beta", NoEffect("the storage engine has no such buffer")),
    gate("LeaseCheckpoint", false, "alpha", Maps("on by default")),
    gate("LeaseCheckpointPersist", false, "alpha", NoEffect("checkpoints are always stored")),
    gate("SetMemberLocalAddr", false, "alpha", NoEffect("peers are dialled from whatever address the system takes")),
    gate("FastLeaseKeepAlive", true, "beta", NoEffect("renewals never wait for pending applies")),
    gate("PriorityRequest", false, "alpha", NoEffect("revokes are never refused for load that others made")),
    gate("AllAlpha", false, "alpha", AsEtcd),
    gate("AllBeta", false, "beta", AsEtcd),
];
