// SPDX-License-Identifier: Apache-2.0
//! Reads that wait for an index.
//!
//! Owns      the rounds of read indexes that are under way, and their contexts.
//! Holds     1. every round has a context that was never used before, in any boot;
//!           2. what was asked under one leader is not answered under the next.
//! Never     knows whether an index is right: Raft does.

use super::peer::CONTEXT_BYTES;
use crate::mutants::planted;
use std::collections::VecDeque;

/// A read index that got no answer is asked for again after this: raft-rs drops some silently (RT-3).
const RETRY_MS: u64 = 500;
/// Rounds under way at once; whoever comes later shares the next one.
const ROUNDS_MAX: usize = 4;

/// See the module.
pub(super) struct Reads<R> {
    nonce: u64,
    contexts: u64,
    rounds: VecDeque<Round<R>>,
    /// Those of no round yet, and since when they wait.
    waiting: Vec<(u64, R)>,
}

struct Round<R> {
    context: u64,
    asked_ms: u64,
    waiting: Vec<(u64, R)>,
}

impl<R> Reads<R> {
    pub fn new(nonce: u64) -> Reads<R> {
        Reads { nonce, contexts: 0, rounds: VecDeque::new(), waiting: Vec::new() }
    }

    pub fn push(&mut self, now_ms: u64, reads: Vec<R>) {
        self.waiting.extend(reads.into_iter().map(|read| (now_ms, read)));
    }

    /// Begins a round for all that wait, if there is one to begin, and gives its context.
    pub fn begin(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if self.waiting.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        if !planted("read-context-reused") || self.contexts == 0 {
            self.contexts += 1;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { context: self.contexts, asked_ms: now_ms, waiting });
        let mut bytes = Vec::with_capacity(CONTEXT_BYTES);
        bytes.extend_from_slice(&self.nonce.to_be_bytes());
        bytes.extend_from_slice(&self.contexts.to_be_bytes());
        Some(bytes)
    }

    /// The reads of the round with this context, if it is one of this boot that is under way.
    pub fn answered(&mut self, context: &[u8]) -> Option<Vec<R>> {
        let (nonce, counter) = context.split_first_chunk::<8>()?;
        let counter = u64::from_be_bytes(counter.try_into().ok()?);
        if *nonce != self.nonce.to_be_bytes() && !planted("read-context-of-another-boot") {
            return None;
        }
        let at = self.rounds.iter().position(|round| round.context == counter)?;
        let round = self.rounds.remove(at).expect("just found");
        Some(round.waiting.into_iter().map(|(_, read)| read).collect())
    }

    /// Takes back rounds that got no answer, to be asked again, and answers how many; reads that wait for
    /// longer than `patience_ms` are put into `late`.
    pub fn tick(&mut self, now_ms: u64, patience_ms: u64, late: &mut Vec<R>) -> u64 {
        let stale = self.rounds.iter().filter(|round| now_ms >= round.asked_ms + RETRY_MS).count() as u64;
        if stale > 0 {
            let mut again: Vec<_> = self.rounds.drain(..).flat_map(|round| round.waiting).collect();
            again.append(&mut self.waiting);
            self.waiting = again;
        }
        let due = |(since_ms, _): &mut (u64, R)| now_ms >= since_ms.saturating_add(patience_ms);
        late.extend(self.waiting.extract_if(.., due).map(|(_, read)| read));
        stale
    }

    /// The reads of all rounds: the leader that was asked leads no more.
    pub fn abort(&mut self) -> impl Iterator<Item = R> {
        self.rounds.drain(..).flat_map(|round| round.waiting).map(|(_, read)| read)
    }

    /// Everything, when the member stops.
    pub fn drain(&mut self) -> Vec<R> {
        let mut all: Vec<R> = self.abort().collect();
        all.extend(self.waiting.drain(..).map(|(_, read)| read));
        all
    }
}
