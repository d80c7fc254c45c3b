// SPDX-License-Identifier: Apache-2.0
//! The one Watch stream of a run, and its watchers.
//!
//! Owns      when watchers come, go and resume, and when the client reads.
//! Holds     every response is taken by the watcher that it names, and judged there.
//! Never     judges one itself.

use super::{Ended, Stream, World, broken};
use crate::watcher::{Watcher, fragments_of};
use cairn_core::watch::Out;
use cairn_proto::etcdserverpb as pb;
use std::sync::Arc;

impl World {
    /// Opens the stream if there is none, and resumes or adds a watcher, cancels one, or asks for progress.
    pub(super) fn watch(&mut self) -> Result<(), Ended> {
        let now_ms = self.now_ms;
        if self.stream.is_none() {
            let (id, outbox) = self.node().hub.open_stream(now_ms, Arc::new(|| ()));
            self.stream = Some(Stream { id, outbox });
            self.watchers.retain(|watcher| !watcher.ended);
            for at in 0..self.watchers.len() {
                // Ids are the client's from here on, so that they are known before the answer.
                self.watchers[at].resume(at as i64 + 1);
                self.stats.resumed += 1;
                self.create(at)?;
            }
            return Ok(());
        }
        let id = self.stream.as_ref().expect("it is open").id;
        let now = self.node().reader.revision().map_err(|e| e.to_string())?;
        match self.rng.below(8) {
            0 => self.node().hub.progress(id),
            1 if !self.watchers.is_empty() => {
                let at = self.rng.index(self.watchers.len());
                let watch_id = self.watchers[at].watch_id;
                self.note(format_args!("cancel watcher {watch_id}"));
                self.node().hub.cancel(id, watch_id, now);
            }
            _ if self.watchers.iter().filter(|w| !w.ended).count() < self.swarm.watchers => {
                let request = self.traffic.watch(&mut self.rng, self.model.revision());
                self.watchers.push(Watcher::new(request, self.watchers.len() as i64 + 1));
                self.create(self.watchers.len() - 1)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, at: usize) -> Result<(), Ended> {
        let id = self.stream.as_ref().expect("it is open").id;
        let now = self.node().reader.revision().map_err(|e| e.to_string())?;
        let watcher = &self.watchers[at];
        let request = pb::WatchCreateRequest { watch_id: watcher.watch_id, ..watcher.request.clone() };
        self.note(format_args!("watch {request:?}"));
        self.node().hub.create(id, &request, now);
        Ok(())
    }

    /// The client reads some of what its stream has.
    pub(super) fn drain(&mut self) -> Result<(), Ended> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let outbox = stream.outbox.clone();
        for _ in 0..[1, 5, 100][self.rng.index(3)] {
            let Some(out) = outbox.pop() else { break };
            self.take_response(&out)?;
        }
        Ok(())
    }

    fn take_response(&mut self, out: &Out) -> Result<(), Ended> {
        self.note(format_args!("response {out:?}"));
        let watch_id = match out {
            Out::Created { watch_id, .. }
            | Out::Canceled { watch_id, .. }
            | Out::Compacted { watch_id, .. }
            | Out::Events { watch_id, .. }
            | Out::Progress { watch_id, .. } => *watch_id,
            Out::Refused { reason, .. } => return broken(format!("a create was refused: {reason}")),
        };
        if let Out::Events { .. } = out {
            let pieces = fragments_of(out, self.swarm.fragment_bytes);
            self.stats.fragmented += u64::from(pieces.map_err(Ended::Broken)? > 1);
        }
        let compacted = self.model.compacted;
        let all = watch_id == -1;
        let mut told = 0;
        // A progress of the stream is about the watchers that were there when it was asked for.
        let meant = |w: &&mut Watcher| w.watch_id == watch_id || (all && w.created && !w.ended);
        for watcher in self.watchers.iter_mut().filter(meant) {
            // A second cancel follows the end by compaction (WATCH-22).
            if watcher.ended && matches!(out, Out::Canceled { .. }) {
                continue;
            }
            let before = watcher.events;
            let taken = watcher.take(out, &self.model, compacted);
            taken.map_err(|what| Ended::Broken(format!("watcher {watch_id}: {what}")))?;
            told += watcher.events - before;
        }
        self.stats.events += told;
        self.stats.cut_off += u64::from(matches!(out, Out::Compacted { .. }));
        Ok(())
    }
}
