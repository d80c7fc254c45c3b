// SPDX-License-Identifier: Apache-2.0
//! Reads, writes and transactions of clients.
//!
//! Owns      the way of a KV request through the member: quota, door, log or view, response.
//! Holds     1. the checks come in etcd's order: quota, then shape (PUT-2, AUTH-10);
//!           2. a proposal is made at most once, and its caller's impatience does not take it back (LIMIT-8).
//! Never     blocks the runtime on a long walk: those go to the blocking pool.

use super::{
    Member, Refusal,
    auth::Standing,
    config::RequestKind,
    shared::{Answer, Kept, ReplicaMessage},
};
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::{Identity, needs},
    convert,
    door::{self, TxnPath},
    replica::{Proposal, log::EntryKind},
    state::{Applied, Carried},
};
use cairn_mvcc::{OpError, RangeDone, RangeEnd, RangeOp, RangeStream, Reader, TxnDone};
use cairn_proto::{errors, etcdserverpb as pb, serve};
use std::{
    future::Future,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot};

/// A range of at most this many pairs is answered on the spot.
const PAIRS_ON_THE_SPOT: i64 = 64;

impl Member {
    pub async fn range(&self, r: pb::RangeRequest) -> Result<serve::RangeResponse, Refusal> {
        door::check_range(&r)?;
        self.timed(RequestKind::Range, async {
            if !r.serializable {
                self.linearize().await?;
            }
            let read = |r| self.read_range(convert::range_op(r));
            let done = self.guarded(r, needs::range, read).await?;
            let header = self.header_at(done.revision);
            Ok(convert::range_response(done, header))
        })
        .await
    }

    /// Does the work, and tells how long it took.
    async fn timed<T>(
        &self,
        kind: RequestKind,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let since = Instant::now();
        let done = work.await;
        self.shared.observer.answered(kind, done.is_ok(), since.elapsed().as_secs_f64());
        done
    }

    /// The same in chunks, for answers of any size (KV-27).
    pub async fn range_stream(&self, r: pb::RangeRequest) -> Result<RangeChunks, Refusal> {
        door::check_range_stream(&r)?;
        if !r.serializable {
            self.linearize().await?;
        }
        let standing = self.standing().await?;
        if let Some(standing) = &standing {
            needs::range(&standing.grants(), &r)?;
        }
        let guard = standing.map(|standing| (standing, r.clone()));
        let count_only = r.count_only;
        let stream = self.shared.reader.range_stream(&convert::range_op(r));
        let stream = stream.map_err(|error| self.refusal(error))?;
        let stream = Some(stream);
        Ok(RangeChunks { member: self.clone(), guard, stream, keys: FIRST_CHUNK_KEYS, count_only })
    }

    pub async fn put(&self, r: pb::PutRequest) -> Result<serve::PutResponse, Refusal> {
        self.check_quota(door::put_cost(&r)).await?;
        door::check_put(&r)?;
        match self.propose(Command::Put(r)).await? {
            Applied::Put { revision, prev_kv } => {
                Ok(convert::put_response(prev_kv, self.header_at(revision)))
            }
            other => unreachable!("a put came to {other:?}"),
        }
    }

    pub async fn delete_range(
        &self,
        r: pb::DeleteRangeRequest,
    ) -> Result<serve::DeleteRangeResponse, Refusal> {
        door::check_delete_range(&r)?;
        match self.propose(Command::DeleteRange(r)).await? {
            Applied::DeleteRange { revision, deleted, prev_kvs } => {
                Ok(convert::delete_response(deleted, prev_kvs, self.header_at(revision)))
            }
            other => unreachable!("a delete came to {other:?}"),
        }
    }

    pub async fn txn(&self, r: pb::TxnRequest) -> Result<serve::TxnResponse, Refusal> {
        self.check_quota(door::txn_cost(&r)).await?;
        door::check_txn(&r, self.shared.config.max_txn_ops)?;
        let done = match door::txn_path(&r) {
            TxnPath::Propose => match self.propose(Command::Txn(r)).await? {
                Applied::Txn(done) => done,
                other => unreachable!("a transaction came to {other:?}"),
            },
            path => {
                self.timed(RequestKind::ReadonlyTxn, async {
                    if path == TxnPath::Linearizable {
                        self.linearize().await?;
                    }
                    let read = |r| {
                        let op = convert::txn_op(r);
                        self.read(false, move |reader| reader.txn(&op))
                    };
                    self.guarded(r, needs::read_only_txn, read).await
                })
                .await?
            }
        };
        self.txn_response(done).await
    }

    pub async fn compact(&self, r: pb::CompactionRequest) -> Result<pb::CompactionResponse, Refusal> {
        let applied = self.propose(Command::Compact(r)).await;
        let wait_for = match &applied {
            Ok(_) => Some(r.revision),
            // The compaction that is under way may be the one that was asked for (COMPACT-9).
            Err(errors::COMPACTED) => self.shared.reader.compact_revision().ok(),
            Err(_) => None,
        };
        if let Some(revision) = wait_for.filter(|_| r.physical) {
            self.wait_purged(revision).await?;
        }
        match applied? {
            Applied::Compact { revision } => {
                Ok(pb::CompactionResponse { header: Some(self.header_at(revision)) })
            }
            other => unreachable!("a compaction came to {other:?}"),
        }
    }

    async fn wait_purged(&self, revision: i64) -> Result<(), Refusal> {
        let mut purged = self.shared.purged.subscribe();
        tokio::select! {
            // The sender lives as long as the member.
            _ = purged.wait_for(|done| *done >= revision) => Ok(()),
            _ = self.shared.wait_ended() => Err(errors::STOPPED),
        }
    }

    async fn txn_response(&self, done: TxnDone) -> Result<serve::TxnResponse, Refusal> {
        let header = self.header_at(done.revision);
        let long = has_long_range(&done);
        self.read(long, move |reader| {
            convert::txn_response(done, header, &mut |deferred| reader.range_deferred(&deferred))
        })
        .await
    }

    async fn read_range(&self, op: RangeOp) -> Result<RangeDone, Refusal> {
        let (long, since) = (is_long(&op), Instant::now());
        let done = self.read(long, move |reader| reader.range(&op)).await;
        self.shared.observer.ranged(done.is_ok(), since.elapsed().as_secs_f64());
        done
    }

    /// Reads from a view, long walks beside the runtime.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        long: bool,
        walk: impl FnOnce(&Reader) -> Result<T, OpError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = if long {
            let reader = self.shared.reader.clone();
            let task = tokio::task::spawn_blocking(move || walk(&reader));
            match task.await {
                Ok(done) => done,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        } else {
            walk(&self.shared.reader)
        };
        done.map_err(|error| self.refusal(error))
    }

    /// The refusal for a failed read. Damage is never served: the member ends, with the place in its reason.
    pub(super) fn refusal(&self, error: OpError) -> Refusal {
        match convert::refusal(error) {
            Ok(refusal) => refusal,
            Err(engine) => {
                self.shared.fail(engine);
                errors::STOPPED
            }
        }
    }

    /// Sends a request through the log and waits until it is applied here.
    pub(super) async fn propose(&self, command: Command) -> Result<Applied, Refusal> {
        let by = self.identity().await?;
        let encoded = self.encoded(&command, by.as_ref())?;
        if self.shared.auth.enabled() {
            Box::pin(self.check_write(&command)).await?;
        }
        self.propose_encoded(command, by, encoded).await
    }

    /// As [`Member::propose`], for who was looked up before, or for the member itself.
    pub(super) async fn propose_by(
        &self,
        command: Command,
        by: Option<Identity>,
    ) -> Result<Applied, Refusal> {
        let encoded = self.encoded(&command, by.as_ref())?;
        self.propose_encoded(command, by, encoded).await
    }

    /// The id and the bytes of a request, if the member takes it.
    fn encoded(&self, command: &Command, by: Option<&Identity>) -> Result<(u64, Bytes), Refusal> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(errors::STOPPED);
        }
        let id = self.shared.ids.draw();
        let data = command.encode_by(id, by);
        if data.len() > self.shared.config.max_request_bytes {
            return Err(errors::REQUEST_TOO_LARGE);
        }
        Ok((id, data))
    }

    async fn propose_encoded(
        &self,
        command: Command,
        by: Option<Identity>,
        (id, data): (u64, Bytes),
    ) -> Result<Applied, Refusal> {
        let shared = &self.shared;
        let raft = &shared.raft;
        let committed = raft.committed.load(Ordering::Relaxed);
        let gap = committed.saturating_sub(raft.applied_index.load(Ordering::Relaxed));
        let units = shared.admission.enter(data.len(), gap).await?;
        let (kind, leader_only) = (RequestKind::Proposal(command.kind()), command.is_leaders());
        let (to, answer) = oneshot::channel();
        let answer_to = Answer::Client { to, units, runtime: Handle::current() };
        let carried = Carried { command: Some(command), by, answer: answer_to };
        let proposal = Proposal { id, kind: EntryKind::Normal, leader_only, data, carried };
        self.timed(kind, self.propose_admitted(proposal, answer)).await
    }

    async fn propose_admitted(
        &self,
        proposal: Proposal<Kept>,
        answer: oneshot::Receiver<Result<Applied, Refusal>>,
    ) -> Result<Applied, Refusal> {
        let shared = &self.shared;
        let started = Instant::now();
        let Ok(wake) = shared.replica.put(ReplicaMessage::Propose(proposal)) else {
            return Err(errors::STOPPED);
        };
        // Whatever else is ready on this thread proposes first: one wake-up and one sync serve it all.
        tokio::task::yield_now().await;
        drop(wake);
        let patience = Duration::from_millis(shared.config.request_timeout_ms());
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(Err(refusal))) if refusal == errors::TIMEOUT => Err(self.why_late(started)),
            Ok(Ok(result)) => result,
            // Dropped unanswered: the member ended.
            Ok(Err(_)) => Err(errors::STOPPED),
            Err(_) => {
                shared.raft.failed_proposals.fetch_add(1, Ordering::Relaxed);
                let leaderless = shared.raft.leader.load(Ordering::Relaxed) == 0;
                Err(if leaderless { errors::CONTEXT_DEADLINE_EXCEEDED } else { self.why_late(started) })
            }
        }
    }

    /// Refuses what would take the store past its quota, and raises the alarm (ALARM-1, ALARM-2). etcd asks
    /// once more when it applies, and may then do a write that it refuses (ALARM-3): this does not.
    pub(super) async fn check_quota(&self, cost: u64) -> Result<(), Refusal> {
        let shared = &self.shared;
        let Some(quota) = shared.config.quota().filter(|_| cost > 0) else { return Ok(()) };
        if shared.disk_full.load(Ordering::Relaxed) {
            return Err(errors::NO_SPACE);
        }
        if shared.db_size() + cost < quota {
            return Ok(());
        }
        // etcd raises it anew with each refusal; one entry in the log is enough.
        let raised = shared.cluster().alarms.is_on(shared.member_id.0, pb::AlarmType::Nospace);
        if raised {
            return Err(errors::NO_SPACE);
        }
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: shared.member_id.0,
            alarm: pb::AlarmType::Nospace as i32,
        };
        self.propose_by(Command::Alarm(alarm), None).await?;
        Err(errors::NO_SPACE)
    }
}

/// Whether a range may walk or copy a lot.
fn is_long(op: &RangeOp) -> bool {
    let one = op.keys.end == RangeEnd::Single;
    let page = op.limit > 0 && op.limit <= PAIRS_ON_THE_SPOT;
    !(one || page || op.count_only)
}

fn has_long_range(done: &TxnDone) -> bool {
    use cairn_mvcc::OpDone;
    done.responses.iter().any(|response| match response {
        OpDone::Range(deferred) => is_long(&deferred.op),
        OpDone::Txn(done) => has_long_range(done),
        OpDone::Put(_) | OpDone::Delete(_) => false,
    })
}

/// Pairs in the first chunk (KV-30).
const FIRST_CHUNK_KEYS: usize = 10;

/// A range that is sent in chunks at one revision (KV-27 to KV-31).
pub struct RangeChunks {
    member: Member,
    /// Who asked for what, where authentication is on.
    guard: Option<(Standing, pb::RangeRequest)>,
    stream: Option<RangeStream>,
    keys: usize,
    count_only: bool,
}

impl RangeChunks {
    /// The next message; `None` after the last, which alone has header, count and `more`.
    pub async fn next(&mut self) -> Option<Result<serve::RangeStreamResponse, Refusal>> {
        let mut stream = self.stream.take()?;
        let keys = self.keys;
        let chunk = self
            .member
            .read(keys > PAIRS_ON_THE_SPOT as usize, move |reader| {
                let chunk = reader.range_chunk(&mut stream, keys)?;
                Ok((chunk, stream))
            })
            .await;
        let (chunk, stream) = match chunk {
            Ok((Some(chunk), stream)) => (chunk, stream),
            Ok((None, _)) => return None,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Some((standing, r)) = &self.guard {
            // Rights that end while it is sent end it.
            let auth = self.member.shared.auth.auth();
            if !standing.is_of(&auth)
                && let Err(refusal) = needs::range(&standing.grants_in(&auth), r)
            {
                return Some(Err(refusal));
            }
        }
        self.adapt(chunk.kvs.iter().map(|kv| kv.len()).sum());
        let mut response = serve::RangeResponse { kvs: chunk.kvs, ..Default::default() };
        match chunk.totals {
            Some(totals) => {
                response.header = Some(self.member.header_at(totals.revision));
                response.count = totals.count;
                response.more = totals.more && !self.count_only;
            }
            None => self.stream = Some(stream),
        }
        Some(Ok(serve::RangeStreamResponse { range_response: Some(response) }))
    }

    /// Twice the keys while chunks are small, half of them after a large one (KV-30).
    fn adapt(&mut self, bytes: usize) {
        let max = self.member.shared.config.max_request_bytes;
        if bytes < max / 2 {
            self.keys = self.keys.saturating_mul(2);
        } else if bytes > max * 2 {
            self.keys = (self.keys / 2).max(1);
        }
    }
}
