// SPDX-License-Identifier: Apache-2.0
//! How long the certificates that are shown are valid.
//!
//! Owns      the days that are left of each, and the lines that warn of an end: 30, 7 and 1 days before, and after.
//! Holds     each line is said once for a certificate.
//! Never     changes what is shown.

use super::{Kept, Source};
use crate::{
    log::Log,
    metrics::{Metrics, Shown},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::spawn_blocking;

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

/// Looks after the certificate of one kind of connection, as long as it is polled.
pub async fn watch<S>(tls: Arc<Kept<S>>, shown: Shown, metrics: Arc<Metrics>, log: Log)
where
    S: Source<Loaded: Send> + Send + Sync + 'static,
{
    let mut interval = tokio::time::interval(INTERVAL);
    let mut said = Said::default();
    loop {
        interval.tick().await;
        let files = tls.clone();
        let Ok(loaded) = spawn_blocking(move || files.now()).await else { return };
        let Some(own) = S::own(&loaded) else { return };
        let days = own.days_left(SystemTime::now());
        metrics.certificate_days[shown as usize].set(days);
        if said.due(own.not_after_s, days) {
            let message =
                if days < 0 { "a certificate is not valid any more" } else { "a certificate ends soon" };
            let file = tls.settings().files().first().map(|file| file.display().to_string());
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
}
