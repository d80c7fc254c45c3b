// SPDX-License-Identifier: Apache-2.0
//! How long the certificates that are shown are valid.
//!
//! Owns      the days that are left of each, and the lines that warn of an end: 30, 7 and 1 days before, and after.
//! Holds     each line is said once for a certificate.
//! Never     changes what is shown.

use super::Tls;
use crate::{
    log::Log,
    metrics::{Metrics, Shown},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::task::spawn_blocking;

const DAY_S: i64 = 24 * 60 * 60;
/// Days before the end at which a line is due.
const WARNINGS: [i64; 4] = [30, 7, 1, 0];
/// How often they are looked at. It bounds how old the figure is.
const INTERVAL: Duration = Duration::from_secs(600);

/// What was said of one certificate.
#[derive(Default)]
struct Said {
    not_after_s: i64,
    /// Of [`WARNINGS`].
    count: usize,
}

impl Said {
    /// Whether a line is due, with so many days left.
    fn due(&mut self, not_after_s: i64, days: i64) -> bool {
        if self.not_after_s != not_after_s {
            *self = Said { not_after_s, count: 0 };
        }
        let passed = WARNINGS.iter().filter(|warning| days < **warning).count();
        let before = self.count;
        self.count = passed.max(before);
        passed > before
    }
}

/// Whole days until a time; negative after it.
fn days_until(not_after_s: i64, now_s: i64) -> i64 {
    (not_after_s - now_s).div_euclid(DAY_S)
}

/// Looks after the certificate of one kind of listener, as long as it is polled.
pub async fn watch(tls: Arc<Tls>, shown: Shown, metrics: Arc<Metrics>, log: Log) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut said = Said::default();
    loop {
        interval.tick().await;
        let files = tls.clone();
        let Ok(loaded) = spawn_blocking(move || files.now()).await else { return };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let days = days_until(loaded.own.not_after_s, now_s);
        metrics.certificate_days[shown as usize].set(days);
        if said.due(loaded.own.not_after_s, days) {
            let message =
                if days < 0 { "a certificate is not valid any more" } else { "a certificate ends soon" };
            let file = tls.settings().cert.display().to_string();
            log.warn(
                message,
                &[("listeners", shown.name().into()), ("days", days.into()), ("cert", file.into())],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_due_once_for_a_certificate() {
        let mut said = Said::default();
        let due: Vec<i64> = (-3..40).rev().filter(|days| said.due(1, *days)).collect();
        assert_eq!(due, [29, 6, 0, -1]);
        assert!(said.due(2, 3), "another certificate");
        assert!(!said.due(2, 3));
    }

    #[test]
    fn days_are_whole_and_negative_after_the_end() {
        let days = |seconds| days_until(1_000_000 + seconds, 1_000_000);
        assert_eq!([days(DAY_S), days(DAY_S - 1), days(0), days(-1)], [1, 0, 0, -1]);
    }
}
