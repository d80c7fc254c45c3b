// SPDX-License-Identifier: Apache-2.0
//! What the member's threads tell, on its way to the log and the metrics.
//!
//! Owns      the warning for an apply that took too long (LG-7).
//! Never     holds up the thread that tells it.

use crate::{
    config::value::format_duration,
    log::{self, Log, Value},
    member::{CommandKind, LeaseChanges, Level, Observer, RequestKind},
    metrics::{self, Metrics},
};
use cairn_engine::Scrubbed;
use std::{
    panic::Location,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub struct Watcher {
    pub log: Log,
    pub metrics: Arc<Metrics>,
    pub warn_apply: Duration,
}

impl Observer for Watcher {
    fn log(&self, place: &Location<'_>, level: Level, message: &str, fields: &[(&'static str, String)]) {
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let fields: Vec<_> = fields.iter().map(|(key, value)| (*key, Value::from(value.as_str()))).collect();
        self.log.write(level, place, message, &fields);
    }

    fn wal_synced(&self, seconds: f64) {
        self.metrics.wal_sync_seconds.observe(seconds);
    }

    fn applied(&self, entries: usize, seconds: f64) {
        let took = Duration::from_secs_f64(seconds);
        if took > self.warn_apply {
            self.metrics.slow_applies.add(1);
            self.log.warn(
                "apply request took too long",
                &[
                    ("took", format_duration(took).into()),
                    ("expected-duration", format_duration(self.warn_apply).into()),
                    ("entries", entries.into()),
                ],
            );
        }
    }

    fn compared(&self, differ: bool) {
        self.metrics.comparisons.add(1);
        self.metrics.differences.add(differ.into());
    }

    fn scrubbed(&self, step: &Scrubbed) {
        self.metrics.scrub_read_bytes.add(step.bytes);
        self.metrics.scrub_passes.add(step.pass_ended.into());
        self.metrics.scrub_reread.add(step.reread);
        self.metrics.scrub_damage.add(step.damage.len() as u64);
    }

    fn request_applied(&self, kind: CommandKind, succeeded: bool, seconds: f64) {
        self.metrics.apply_seconds.observe(kind as usize, succeeded, seconds);
    }

    fn answered(&self, kind: RequestKind, succeeded: bool, seconds: f64) {
        self.metrics.request_seconds.observe(metrics::request_row(kind), succeeded, seconds);
    }

    fn ranged(&self, succeeded: bool, seconds: f64) {
        self.metrics.range_seconds.observe(0, succeeded, seconds);
    }

    fn leases_changed(&self, changes: &LeaseChanges) {
        for ttl_s in &changes.granted_ttls_s {
            self.metrics.lease_ttls_s.observe(*ttl_s as f64);
        }
        self.metrics.leases_granted.add(changes.granted_ttls_s.len() as u64);
        self.metrics.leases_revoked.add(changes.revoked as u64);
        self.metrics.leases_expired.add(changes.expired as u64);
    }

    fn lease_renewed(&self) {
        self.metrics.leases_renewed.add(1);
    }

    fn checkpointed(&self, seconds: f64) {
        self.metrics.checkpoint_seconds.observe(seconds);
    }

    fn purge_slice(&self, seconds: f64) {
        self.metrics.purge_slice_ms.observe(seconds * 1000.0);
    }

    fn compacted(&self, seconds: f64) {
        self.metrics.compaction_ms.observe(seconds * 1000.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.compacted_last_s.set(now.as_secs() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogConfig, LogOutput};

    // rule: LG-1
    #[test]
    fn a_line_of_the_member_says_where_it_was_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let outputs = vec![LogOutput::File(path.clone())];
        let log = Log::open(&LogConfig { level: log::Level::Info, console: false, outputs });
        let metrics = Arc::new(Metrics::new(false));
        let watcher = Watcher { log: log.expect("open"), metrics, warn_apply: Duration::ZERO };
        watcher.log(Location::caller(), Level::Warn, "m", &[("file", "f".to_owned())]);
        let text = std::fs::read_to_string(path).expect("read");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let caller = line["caller"].as_str().expect("text");
        assert!(caller.starts_with("src/observe.rs:"), "{caller}");
        assert_eq!((&line["level"], &line["msg"], &line["file"]), (&"warn".into(), &"m".into(), &"f".into()));
    }
}
