// SPDX-License-Identifier: Apache-2.0
//! What is counted, under etcd's names where etcd has them, so that its dashboards and alerts work unmodified.
//!
//! Owns      every counter and histogram of the daemon, and the text that `/metrics` answers.
//! Holds     a family is there only if what it says is measured; the column `cairn` of
//!           `tests/rules/metrics.tsv` lists those that are not.
//! Never     takes a lock on the way of a request, but for a client's version that it sees first.

mod grpc;
mod peers;
mod process;
mod store;
mod text;
mod values;

pub use grpc::GrpcMetrics;
pub use process::{descriptor_limit, descriptors_used};
pub use values::{Counter, Gauge, Histogram, Outcomes};

use crate::{
    ETCD_VERSION,
    config::{Config, flags::GATES},
    front::web::health::CHECKS,
    member::{AtStart, CommandKind, MemberStatus, RequestKind},
};
use std::sync::atomic::{AtomicU8, Ordering};
use text::Text;

/// Of the disk, of checkpoints and of requests: 1 ms doubling to 8.192 s.
const SYNC_SECONDS: (f64, usize) = (0.001, 14);
const REQUEST_SECONDS: (f64, usize) = SYNC_SECONDS;
const APPLY_SECONDS: (f64, usize) = (0.0001, 20);
const LEASE_TTLS_S: (f64, usize) = (1.0, 24);
const PURGE_SLICE_MS: (f64, usize) = (1.0, 13);
const COMPACTION_MS: (f64, usize) = (100.0, 14);
const DEFRAG_SECONDS: (f64, usize) = (0.1, 13);
const HASH_SECONDS: (f64, usize) = (0.01, 15);

pub struct Metrics {
    pub grpc: GrpcMetrics,
    pub client_received_bytes: Counter,
    pub client_sent_bytes: Counter,
    pub health_good: Counter,
    pub health_bad: Counter,
    /// In the order of [`CHECKS`].
    pub checks: Vec<CheckMetrics>,
    pub wal_sync_seconds: Histogram,
    pub checkpoint_seconds: Histogram,
    pub slow_applies: Counter,
    pub scrub_read_bytes: Counter,
    pub scrub_passes: Counter,
    pub scrub_reread: Counter,
    pub scrub_damage: Counter,
    pub comparisons: Counter,
    pub differences: Counter,
    /// By [`Shown`]: whole days until the end of a certificate.
    pub certificate_days: [Gauge; 3],
    /// By [`CommandKind`].
    pub apply_seconds: Outcomes,
    /// By [`request_row`].
    pub request_seconds: Outcomes,
    pub range_seconds: Outcomes,
    pub leases_granted: Counter,
    pub leases_renewed: Counter,
    pub leases_revoked: Counter,
    pub leases_expired: Counter,
    pub lease_ttls_s: Histogram,
    pub purge_slice_ms: Histogram,
    pub compaction_ms: Histogram,
    /// Unix time of the last compaction; 0 if there was none.
    pub compacted_last_s: Gauge,
    pub defrag_inflight: Gauge,
    pub defrag_seconds: Histogram,
    pub hash_seconds: Histogram,
    pub hash_rev_seconds: Histogram,
    scrapes: Counter,
    scrapes_inflight: Gauge,
}

/// Where a certificate is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Client,
    Peer,
    /// To members that are dialled, where it is not that of the listeners.
    Dialled,
}

impl Shown {
    pub const ALL: [Shown; 3] = [Shown::Client, Shown::Peer, Shown::Dialled];

    pub fn name(self) -> &'static str {
        match self {
            Shown::Client => "client",
            Shown::Peer => "peer",
            Shown::Dialled => "dialled",
        }
    }
}

/// One check of `/livez` or `/readyz`.
#[derive(Default)]
pub struct CheckMetrics {
    good: Counter,
    bad: Counter,
    /// 0: never ran, 1: bad, 2: good.
    last: AtomicU8,
}

impl CheckMetrics {
    pub fn ran(&self, good: bool) {
        if good {
            self.good.add(1)
        } else {
            self.bad.add(1)
        }
        self.last.store(if good { 2 } else { 1 }, Ordering::Relaxed);
    }
}

impl Metrics {
    /// `extensive` adds the time of each gRPC call.
    pub fn new(extensive: bool) -> Metrics {
        Metrics {
            grpc: GrpcMetrics::new(extensive),
            client_received_bytes: Counter::default(),
            client_sent_bytes: Counter::default(),
            health_good: Counter::default(),
            health_bad: Counter::default(),
            checks: CHECKS.iter().map(|_| CheckMetrics::default()).collect(),
            wal_sync_seconds: Histogram::doubling(SYNC_SECONDS),
            checkpoint_seconds: Histogram::doubling(SYNC_SECONDS),
            slow_applies: Counter::default(),
            scrub_read_bytes: Counter::default(),
            scrub_passes: Counter::default(),
            scrub_reread: Counter::default(),
            scrub_damage: Counter::default(),
            comparisons: Counter::default(),
            differences: Counter::default(),
            certificate_days: Default::default(),
            apply_seconds: Outcomes::new(CommandKind::ALL.len(), APPLY_SECONDS),
            request_seconds: Outcomes::new(2 + CommandKind::ALL.len(), REQUEST_SECONDS),
            range_seconds: Outcomes::new(1, APPLY_SECONDS),
            leases_granted: Counter::default(),
            leases_renewed: Counter::default(),
            leases_revoked: Counter::default(),
            leases_expired: Counter::default(),
            lease_ttls_s: Histogram::doubling(LEASE_TTLS_S),
            purge_slice_ms: Histogram::doubling(PURGE_SLICE_MS),
            compaction_ms: Histogram::doubling(COMPACTION_MS),
            compacted_last_s: Gauge::default(),
            defrag_inflight: Gauge::default(),
            defrag_seconds: Histogram::doubling(DEFRAG_SECONDS),
            hash_seconds: Histogram::doubling(HASH_SECONDS),
            hash_rev_seconds: Histogram::doubling(HASH_SECONDS),
            scrapes: Counter::default(),
            scrapes_inflight: Gauge::default(),
        }
    }

    /// The answer of `/metrics`; what comes from the member is left out until it is ready.
    pub fn render(&self, config: &Config, status: Option<&MemberStatus>) -> String {
        self.scrapes_inflight.add(1);
        let mut text = Text::default();
        if let Some(status) = status {
            render_member(&mut text, config, status);
            store::render(&mut text, &status.store);
            peers::render(&mut text, status);
        }
        self.render_own(&mut text);
        self.render_certificates(&mut text, config);
        self.render_work(&mut text);
        render_fixed(&mut text, config);
        self.grpc.render(&mut text);
        process::render(&mut text);
        text.gauge(
            "promhttp_metric_handler_requests_in_flight",
            "Scrapes being served.",
            self.scrapes_inflight.get(),
        );
        text.family("promhttp_metric_handler_requests_total", "counter", "Scrapes served by status.");
        for code in ["200", "500", "503"] {
            let count = if code == "200" { self.scrapes.get() } else { 0 };
            text.sample("promhttp_metric_handler_requests_total", &[("code", code)], count);
        }
        self.scrapes.add(1);
        self.scrapes_inflight.add(-1);
        text.into_string()
    }

    fn render_own(&self, text: &mut Text) {
        text.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "Message bytes from gRPC clients.",
            self.client_received_bytes.get(),
        );
        text.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "Message bytes to gRPC clients.",
            self.client_sent_bytes.get(),
        );
        text.counter("etcd_server_health_success", "GET /health answered healthy.", self.health_good.get());
        text.counter("etcd_server_health_failures", "GET /health answered unhealthy.", self.health_bad.get());
        self.render_checks(text);
        text.histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "Syncs of the log, one for all writes that wait for it.",
            &[],
            &self.wal_sync_seconds,
        );
        text.histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "Checkpoints of the tree file.",
            &[],
            &self.checkpoint_seconds,
        );
        text.histogram(
            "etcd_disk_backend_defrag_duration_seconds",
            "Defragmentations.",
            &[],
            &self.defrag_seconds,
        );
        text.gauge("etcd_disk_defrag_inflight", "1 during a defragmentation.", self.defrag_inflight.get());
        text.counter("etcd_server_slow_apply_total", "Batches applied slowly.", self.slow_applies.get());
        for (name, help, counter) in [
            ("cairn_scrub_read_bytes_total", "Bytes that the scrub read.", &self.scrub_read_bytes),
            ("cairn_scrub_passes_total", "Passes of the scrub over the whole store.", &self.scrub_passes),
            ("cairn_scrub_reread_total", "Extents that read well the second time.", &self.scrub_reread),
            ("cairn_scrub_damage_total", "Damage found, counted in each pass.", &self.scrub_damage),
            ("cairn_compare_total", "Comparisons of members' data, as their leader.", &self.comparisons),
            ("cairn_compare_different_total", "Comparisons that found members to differ.", &self.differences),
        ] {
            text.counter(name, help, counter.get());
        }
        text.histogram("etcd_mvcc_hash_duration_seconds", "Time of Hash.", &[], &self.hash_seconds);
        text.histogram("etcd_mvcc_hash_rev_duration_seconds", "Time of HashKV.", &[], &self.hash_rev_seconds);
    }

    /// What the member's threads tell as it happens.
    fn render_work(&self, text: &mut Text) {
        self.apply_seconds.render(
            text,
            "etcd_server_apply_duration_seconds",
            "Time to apply a request.",
            |row, success| {
                vec![("version", "v3"), ("op", CommandKind::ALL[row].name()), ("success", success)]
            },
        );
        self.request_seconds.render(
            text,
            "etcd_server_request_duration_seconds",
            "Time from a request to its answer, on the server.",
            |row, success| vec![("type", request_name(row)), ("success", success)],
        );
        self.range_seconds.render(
            text,
            "etcd_server_range_duration_seconds",
            "Time to read a range.",
            |_, success| vec![("success", success)],
        );
        for (name, help, counter) in [
            ("etcd_debugging_lease_granted_total", "Leases granted.", &self.leases_granted),
            ("etcd_debugging_lease_renewed_total", "Renewals on this leader.", &self.leases_renewed),
            ("etcd_debugging_lease_revoked_total", "Leases revoked.", &self.leases_revoked),
            ("etcd_debugging_server_lease_expired_total", "Leases that ran out.", &self.leases_expired),
        ] {
            text.counter(name, help, counter.get());
        }
        for (name, help, histogram) in [
            ("etcd_debugging_lease_ttl_total", "Granted TTLs in seconds.", &self.lease_ttls_s),
            (
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Time that one slice of a purge held up the state.",
                &self.purge_slice_ms,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Time from a compaction to the end of its purge.",
                &self.compaction_ms,
            ),
        ] {
            text.histogram(name, help, &[], histogram);
        }
        text.gauge(
            "etcd_debugging_mvcc_db_compaction_last",
            "Unix time of the last compaction.",
            self.compacted_last_s.get(),
        );
    }

    fn render_certificates(&self, text: &mut Text, config: &Config) {
        let name = "cairn_tls_certificate_expiry_days";
        let shown = |shown: &Shown| match shown {
            Shown::Client => config.client_tls.is_some(),
            Shown::Peer => config.peer_tls.is_some(),
            Shown::Dialled => config.dials_with_another(),
        };
        let mut all = Shown::ALL.into_iter().filter(shown).peekable();
        if all.peek().is_some() {
            text.family(name, "gauge", "Whole days until the certificate that is shown there ends.");
        }
        for shown in all {
            text.sample(name, &[("listeners", shown.name())], self.certificate_days[shown as usize].get());
        }
    }

    fn render_checks(&self, text: &mut Text) {
        let all = || CHECKS.iter().zip(&self.checks).filter(|(_, m)| m.last.load(Ordering::Relaxed) != 0);
        if all().next().is_none() {
            return;
        }
        text.family("etcd_server_healthcheck", "gauge", "Last outcome of a check, 1 good, 0 bad.");
        for (check, metrics) in all() {
            let good = u8::from(metrics.last.load(Ordering::Relaxed) == 2);
            text.sample("etcd_server_healthcheck", &[("type", check.kind), ("name", check.name)], good);
        }
        text.family("etcd_server_healthchecks_total", "counter", "Runs of checks.");
        for (check, metrics) in all() {
            for (status, counter) in [("success", &metrics.good), ("error", &metrics.bad)] {
                let labels = [("type", check.kind), ("name", check.name), ("status", status)];
                text.sample("etcd_server_healthchecks_total", &labels, counter.get());
            }
        }
    }
}

/// The row of a kind of request among the times of requests.
pub fn request_row(kind: RequestKind) -> usize {
    match kind {
        RequestKind::Range => 0,
        RequestKind::ReadonlyTxn => 1,
        RequestKind::Proposal(kind) => 2 + kind as usize,
    }
}

fn request_name(row: usize) -> &'static str {
    match row {
        0 => "Range",
        1 => "ReadonlyTxn",
        proposal => CommandKind::ALL[proposal - 2].name(),
    }
}

/// What the member tells of itself.
fn render_member(text: &mut Text, config: &Config, status: &MemberStatus) {
    if let Some(version) = status.cluster_version {
        text.family("etcd_cluster_version", "gauge", "The version that the cluster agreed on.");
        text.sample("etcd_cluster_version", &[("cluster_version", &version.short())], 1);
    }
    text.family("etcd_server_id", "gauge", "The id of this member.");
    text.sample("etcd_server_id", &[("server_id", &status.member_id.to_string())], 1);
    for (name, help, value) in [
        ("etcd_server_has_leader", "1 while a leader is known.", i64::from(status.leader != 0)),
        ("etcd_server_is_leader", "1 while this member leads.", i64::from(status.is_leader)),
        ("etcd_server_is_learner", "1 while this member is a learner.", i64::from(status.is_learner)),
        ("etcd_server_proposals_committed_total", "Committed index.", status.committed_index as i64),
        ("etcd_server_proposals_applied_total", "Applied index.", status.applied_index as i64),
        ("etcd_server_proposals_pending", "Proposals that wait.", status.pending_proposals as i64),
        ("etcd_server_quota_backend_bytes", "Effective quota.", crate::front::grpc::effective_quota(config)),
        ("etcd_mvcc_db_total_size_in_bytes", "What Status.dbSize tells.", status.db_size),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "What Status.dbSizeInUse tells.", status.db_size_in_use),
        ("etcd_debugging_mvcc_keys_total", "Live keys.", status.keys),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Keys and values of all puts since the start.",
            status.counts.put_bytes as i64,
        ),
        ("etcd_debugging_mvcc_pending_events_total", "Events not sent yet.", status.pending_events as i64),
        ("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", status.wal_written_bytes as i64),
        ("etcd_debugging_auth_revision", "Revision of users and roles.", status.auth_revision as i64),
        ("etcd_debugging_mvcc_current_revision", "Current revision.", status.revision),
        ("etcd_debugging_mvcc_compact_revision", "Last compacted revision.", status.compact_revision),
        ("etcd_debugging_mvcc_watch_stream_total", "Open watch streams.", status.watch_streams as i64),
        ("etcd_debugging_mvcc_watcher_total", "Open watchers.", status.watchers as i64),
        ("etcd_debugging_mvcc_slow_watcher_total", "Watchers that catch up.", status.slow_watchers as i64),
    ] {
        text.gauge(name, help, value);
    }
    for (name, help, value) in [
        ("etcd_debugging_mvcc_events_total", "Watch events delivered.", status.events_delivered),
        ("etcd_mvcc_range_total", "Ranges, those of transactions and compares too.", status.counts.ranges),
        ("etcd_mvcc_put_total", "Puts.", status.counts.puts),
        ("etcd_mvcc_delete_total", "Deletes, whatever they find.", status.counts.deletes),
        ("etcd_mvcc_txn_total", "Requests that do several things.", status.counts.txns),
        (
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "Revisions that compactions took out.",
            status.counts.purged,
        ),
        ("etcd_server_proposals_failed_total", "Proposals that failed.", status.failed_proposals),
        ("etcd_server_read_indexes_failed_total", "Reads not confirmed.", status.failed_read_indexes),
        ("etcd_server_slow_read_indexes_total", "Reads confirmed late.", status.slow_read_indexes),
    ] {
        text.counter(name, help, value);
    }
    text.counter("etcd_server_leader_changes_seen_total", "Leader changes noticed.", status.leader_changes);
    if !status.alarms.is_empty() {
        text.family("etcd_debugging_server_alarms", "gauge", "1 for each raised alarm.");
        for alarm in &status.alarms {
            let labels = [
                ("server_id", &*format!("{:x}", alarm.member_id)),
                ("alarm_type", alarm.alarm().as_str_name()),
            ];
            text.sample("etcd_debugging_server_alarms", &labels, 1);
        }
    }
}

/// What does not change while the process runs.
fn render_fixed(text: &mut Text, config: &Config) {
    text.family("etcd_server_version", "gauge", "The version of etcd whose API is spoken.");
    text.sample("etcd_server_version", &[("server_version", ETCD_VERSION)], 1);
    text.family("etcd_server_feature_enabled", "gauge", "1 for each feature gate that is on.");
    for gate in GATES.iter().filter(|gate| !gate.name.starts_with("All")) {
        let on = match gate.name {
            "StopGRPCServiceOnDefrag" => config.gates.stop_grpc_on_defrag,
            "InitialCorruptCheck" => config.compare.at_start != AtStart::Never,
            "CompactHashCheck" => config.compare.compactions_every.is_some(),
            "LeaseCheckpoint" | "LeaseCheckpointPersist" => config.gates.lease_checkpoint,
            _ => gate.default,
        };
        let stage = gate.stage.to_ascii_uppercase();
        text.sample("etcd_server_feature_enabled", &[("name", gate.name), ("stage", &stage)], u8::from(on));
    }
}
