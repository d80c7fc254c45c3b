// SPDX-License-Identifier: Apache-2.0
//! The thread that reads the history for watchers that lag, so that neither writers nor the network wait
//! for it.
//!
//! Owns      the steps of catching up: plan, read, deliver.
//! Holds     the hub's lock is not held while the history is read.
//! Never     decides who is owed what: the hub does.

use super::super::shared::{IDLE, Shared, wake_all};
use cairn_core::watch::{HistoryError, ReaderHistory, Step};
use std::sync::Arc;

pub(in super::super) fn run(shared: &Arc<Shared>) {
    let history = ReaderHistory::new(shared.reader.clone());
    let mut wakes = Vec::new();
    while shared.catchup.drain(&mut wakes, IDLE) && !shared.is_ended() {
        wakes.clear();
        if let Err(error) = catch_up(shared, &history) {
            shared.fail(error);
        }
    }
}

fn catch_up(shared: &Shared, history: &ReaderHistory) -> Result<(), HistoryError> {
    while !shared.is_ended() {
        let (step, wakers) = {
            let mut hub = shared.hub();
            (hub.plan(history)?, hub.take_wakers())
        };
        wake_all(wakers);
        let plan = match step {
            Step::Read(plan) => plan,
            Step::Again => continue,
            Step::Idle => break,
        };
        let caught = plan.read(history)?;
        let wakers = {
            let mut hub = shared.hub();
            hub.deliver(caught, history)?;
            hub.take_wakers()
        };
        wake_all(wakers);
    }
    Ok(())
}
