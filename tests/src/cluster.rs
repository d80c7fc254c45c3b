// SPDX-License-Identifier: Apache-2.0
//! A cluster that is hurt under load: who leads it, and the verdict on what its clients were told.
//!
//! Owns      the questions of a test to members that may not answer.
//! Holds     a verdict is on all there was: the history is strictly serializable, every watcher saw all of it once and in
//!           order, locks excluded each other, and all members hold the same.
//! Never     hurts anybody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    HashKvRequest, RangeRequest, StatusRequest, WatchCreateRequest, WatchRequest,
};
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::history::{Checked, Event, check, check_locks, check_watch};
use crate::load::{GUARDED, LOCK, Load, PREFIX};
use crate::server::Server;

/// What has not happened by then hangs.
pub const HUNG: Duration = Duration::from_secs(60);
/// How long a member may take to answer a question of the test.
const ANSWER: Duration = Duration::from_millis(500);
pub const RETRY: Duration = Duration::from_millis(20);

/// What came of all that clients were told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    pub checked: Checked,
    /// Events that watchers saw.
    pub watched: usize,
    /// Changes under the lock.
    pub guarded: usize,
}

/// Whether a member leads, and its id; `None` if it does not answer.
pub async fn status(member: &Server) -> Option<(bool, u64)> {
    let asked = async {
        let mut client = Client::connect(&member.url()).await.ok()?;
        let status = client.maintenance.status(StatusRequest {}).await.ok()?.into_inner();
        let id = status.header.as_ref()?.member_id;
        Some((status.leader == id, id))
    };
    tokio::time::timeout(ANSWER, asked).await.ok().flatten()
}

/// The place of one that says that it leads.
///
/// # Panics
/// If none does.
pub async fn leader(members: &[Server]) -> usize {
    let begin = Instant::now();
    while begin.elapsed() < HUNG {
        for (place, member) in members.iter().enumerate() {
            if status(member).await.is_some_and(|(leads, _)| leads) {
                return place;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    panic!("nobody leads for {HUNG:?}");
}

/// Asks until it is not refused any longer.
///
/// # Panics
/// If it always is.
pub async fn accepted<T>(ask: impl AsyncFn() -> Result<T, tonic::Status>) -> T {
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(refused) => assert!(begin.elapsed() < HUNG, "refused for {HUNG:?}: {refused}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits for so many acknowledgements.
///
/// # Panics
/// If they do not come.
pub async fn goes_on(load: &Load, acknowledgements: u64, when: &str) {
    let goes_on = load.more(acknowledgements, HUNG).await;
    assert!(goes_on, "no {acknowledgements} writes in {HUNG:?} {when}");
}

/// Ends the load, and judges all that was seen. `before` is what there was before it, from revision 2 on.
///
/// # Panics
/// With the first thing that cannot be.
pub async fn judge(mut load: Load, members: &[Server], before: Vec<Event>) -> Judged {
    let ops = load.end_writes().await;
    let mut events = before;
    let next = events.last().map_or(2, |last| last.revision + 1);
    events.extend(everything(&members[0].client().await, next).await);
    let last = events.iter().rev().find(|event| event.key.starts_with(PREFIX));
    let last = last.expect("something was written").revision;
    let seen = load.end(last, HUNG).await;
    let mut judged = Judged {
        checked: check(&ops, &events).unwrap_or_else(|what| panic!("not serializable: {what}")),
        ..Judged::default()
    };
    for (number, seen) in seen.iter().enumerate() {
        // What has no answer may land as late as this, and be seen.
        let known = seen.partition_point(|event| event.revision <= last);
        let whole = check_watch(PREFIX, &seen[..known], &events);
        judged.watched += whole.unwrap_or_else(|what| panic!("watcher {number}: {what}"));
    }
    let guarded = check_locks(LOCK, GUARDED, &events);
    judged.guarded = guarded.unwrap_or_else(|what| panic!("two held the lock: {what}"));

    let revision = events.last().expect("something was written").revision;
    let mut hashes = BTreeSet::new();
    for member in members {
        let client = member.client().await;
        // What a member answers a linearizable read from has everything.
        read(&client).await;
        let hash = client.maintenance.clone().hash_kv(HashKvRequest { revision }).await.expect("a hash");
        hashes.insert(hash.into_inner().hash);
    }
    assert_eq!(hashes.len(), 1, "members hold different things at revision {revision}");
    judged
}

/// The revision of a linearizable read. One during a change of leaders is refused.
async fn read(client: &Client) -> i64 {
    let read = RangeRequest { key: "k".into(), ..Default::default() };
    let answer = accepted(async || client.kv.clone().range(read.clone()).await).await;
    answer.into_inner().header.expect("a header").revision
}

/// All changes from a revision on, by a watcher, up to the newest of a linearizable read.
///
/// # Panics
/// If they do not come.
pub async fn everything(client: &Client, start_revision: i64) -> Vec<Event> {
    let newest = read(client).await;
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let mut answers = client.watch.clone().watch(requests).await.expect("a stream").into_inner();
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.revision < newest) {
        let answer = tokio::time::timeout(HUNG, answers.next()).await;
        let answer = answer.expect("the history comes").expect("the stream goes on").expect("an answer");
        events.extend(answer.events.iter().map(Event::of));
    }
    events
}
