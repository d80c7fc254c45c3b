// SPDX-License-Identifier: Apache-2.0
//! What the member's threads tell, on its way to the log and the metrics.
//!
//! Owns      the warning for an apply that took too long (LG-7).
//! Never     holds up the thread that tells it.

use crate::{
    config::value::format_duration,
    log::{self, Log, Value},
    member::{Level, Observer},
    metrics::Metrics,
};
use std::{sync::Arc, time::Duration};

pub struct Watcher {
    pub log: Log,
    pub metrics: Arc<Metrics>,
    pub warn_apply: Duration,
}

impl Observer for Watcher {
    fn log(&self, level: Level, message: &str, fields: &[(&'static str, String)]) {
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let fields: Vec<_> = fields.iter().map(|(key, value)| (*key, Value::from(value.as_str()))).collect();
        self.log.write(level, "member", message, &fields);
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

    fn checkpointed(&self, seconds: f64) {
        self.metrics.checkpoint_seconds.observe(seconds);
    }
}
