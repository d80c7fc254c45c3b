// SPDX-License-Identifier: Apache-2.0
//! Clients that watch, each over one stream to one member at a time.
//!
//! Owns      the streams and the watchers on them.
//! Holds     a watcher whose stream is lost goes on where it was, at any member.
//! Never     decides what a watcher is owed: [`crate::watcher::Watcher`] does.

use super::{Ended, World, broken};
use crate::digest;
use crate::watcher::{Watcher, fragments_of};
use cairn_core::watch::{Out, Outbox, StreamId};
use cairn_proto::etcdserverpb as pb;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct WatchClient {
    pub stream: Option<Stream>,
    pub watchers: Vec<Watcher>,
}

pub(super) struct Stream {
    /// The member that it goes to.
    at: usize,
    id: StreamId,
    outbox: Arc<Outbox>,
}

impl World {
    /// A member went down, and its streams with it.
    pub(super) fn close_streams(&mut self, at: usize) {
        for client in &mut self.watch_clients {
            client.stream.take_if(|stream| stream.at == at);
        }
    }

    /// A client opens a stream to this member if it has none, and resumes or adds a watcher, cancels one, or asks
    /// for progress.
    pub(super) fn watch(&mut self, at: usize) -> Result<(), Ended> {
        if !self.node(at).is_voter() {
            return Ok(());
        }
        let client = self.rng.index(self.watch_clients.len());
        let now_ms = self.clock(at);
        let Some(stream) = &self.watch_clients[client].stream else {
            let (id, outbox) = self.node(at).hub.open_stream(now_ms, Arc::new(|| ()));
            let opened = &mut self.watch_clients[client];
            opened.stream = Some(Stream { at, id, outbox });
            opened.watchers.retain(|watcher| !watcher.ended);
            for number in 0..opened.watchers.len() {
                // Ids are the client's from here on, so that they are known before the answer.
                self.watch_clients[client].watchers[number].resume(number as i64 + 1);
                self.stats.resumed += 1;
                self.create(client, number)?;
            }
            return Ok(());
        };
        let (at, id) = (stream.at, stream.id);
        let now = self.node(at).reader.revision().map_err(|e| e.to_string())?;
        let watchers = &self.watch_clients[client].watchers;
        match self.rng.below(8) {
            0 => self.node(at).hub.progress(id),
            1 if !watchers.is_empty() => {
                let watch_id = watchers[self.rng.index(watchers.len())].watch_id;
                self.note(format_args!("cancel watcher {watch_id}"));
                self.node(at).hub.cancel(id, watch_id, now);
            }
            _ if watchers.iter().filter(|w| !w.ended).count() < self.swarm.watchers => {
                let number = watchers.len();
                let request = self.traffic.watch(&mut self.rng, self.model.revision());
                self.watch_clients[client].watchers.push(Watcher::new(request, number as i64 + 1));
                self.create(client, number)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, client: usize, number: usize) -> Result<(), Ended> {
        let WatchClient { stream, watchers } = &self.watch_clients[client];
        let Stream { at, id, .. } = *stream.as_ref().expect("it is open");
        let watcher = &watchers[number];
        let request = pb::WatchCreateRequest { watch_id: watcher.watch_id, ..watcher.request.clone() };
        let now = self.node(at).reader.revision().map_err(|e| e.to_string())?;
        self.note(format_args!("client {client} of member {at} watches {request:?}"));
        self.node(at).hub.create(id, &request, now);
        Ok(())
    }

    /// A client of this member reads some of what its stream has.
    pub(super) fn drain(&mut self, at: usize) -> Result<(), Ended> {
        let of = |stream: &Option<Stream>| stream.as_ref().is_some_and(|stream| stream.at == at);
        let clients: Vec<usize> =
            (0..self.watch_clients.len()).filter(|c| of(&self.watch_clients[*c].stream)).collect();
        if clients.is_empty() {
            return Ok(());
        }
        let client = clients[self.rng.index(clients.len())];
        let outbox = self.watch_clients[client].stream.as_ref().expect("it is open").outbox.clone();
        for _ in 0..[1, 5, 100][self.rng.index(3)] {
            let Some(out) = outbox.pop() else { break };
            self.take_response(client, &out)?;
        }
        Ok(())
    }

    fn take_response(&mut self, client: usize, out: &Out) -> Result<(), Ended> {
        match out {
            Out::Events { watch_id, events, .. } => {
                let number = digest::of(|digest| {
                    digest.number(*watch_id as u64);
                    events.iter().for_each(|event| digest.bytes(event));
                });
                self.note_long(number, format_args!("client {client} is told {out:?}"));
            }
            _ => self.note(format_args!("client {client} is told {out:?}")),
        }
        let watch_id = match out {
            Out::Created { watch_id, .. }
            | Out::Canceled { watch_id, .. }
            | Out::Compacted { watch_id, .. }
            | Out::Revoked { watch_id, .. }
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
        for watcher in self.watch_clients[client].watchers.iter_mut().filter(meant) {
            // A second cancel follows the end by compaction (WATCH-22).
            if watcher.ended && matches!(out, Out::Canceled { .. }) {
                continue;
            }
            let before = watcher.events;
            let taken = watcher.take(out, &self.model, compacted);
            taken.map_err(|what| Ended::Broken(format!("watcher {watch_id} of client {client}: {what}")))?;
            told += watcher.events - before;
        }
        self.stats.events += told;
        self.stats.cut_off += u64::from(matches!(out, Out::Compacted { .. }));
        Ok(())
    }
}
