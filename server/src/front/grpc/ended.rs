// SPDX-License-Identifier: Apache-2.0
//! How calls are counted, also those that nobody waits for any more.
//!
//! Owns      the end of one call in the metrics.
//! Holds     each call is counted once: with its code, or as Canceled when its body is dropped.

use super::status::CANCELED;
use crate::metrics::Metrics;
use std::{sync::Arc, time::Instant};

/// Counts the end of one call.
pub struct Ended {
    metrics: Arc<Metrics>,
    /// Which of `cairn_proto::methods::ALL`.
    method: usize,
    since: Instant,
    counted: bool,
}

impl Ended {
    /// Counts the beginning.
    pub fn begin(metrics: Arc<Metrics>, method: usize) -> Ended {
        metrics.grpc.started(method);
        Ended { metrics, method, since: Instant::now(), counted: false }
    }

    /// The call ended with this code.
    pub fn with(mut self, code: u32) {
        self.count(code);
    }

    fn count(&mut self, code: u32) {
        self.counted = true;
        self.metrics.grpc.handled(self.method, code, self.since.elapsed());
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.counted {
            self.count(CANCELED);
        }
    }
}
