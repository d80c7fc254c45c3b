// SPDX-License-Identifier: Apache-2.0
//! Tests of calls that ask for a leader, on a member that knows of none.
//!
//! Owns      a member of its own that forgot its leader: alone it cannot lose one.
//! Holds     what such a call is answered, and how long a stream that is open goes on.
//! Never     opens a socket: a call is begun from its headers, and a stream is bounded as calls bound theirs.

use super::{Call, Ended, StreamEnd, bounded, routes, status::Status};
use crate::{
    config::{
        Config,
        given::{Asked, Given},
    },
    daemon,
    front::{Front, Remote},
    log::Log,
    member::{Level, Member, MemberConfig, Observer},
    metrics::Metrics,
};
use cairn_proto::errors;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

struct Quiet;

impl Observer for Quiet {
    fn log(&self, _: &Location<'_>, _: Level, _: &str, _: &[(&'static str, String)]) {}
}

fn front() -> Arc<Front> {
    let Ok(Asked::Serve(given)) = Given::read(&[], std::iter::empty()) else { panic!("no flags") };
    let (config, _) = Config::new(&given).expect("the defaults are served");
    Arc::new(Front::new(config, Log::fallback(), Arc::new(Metrics::new(false))))
}

/// `hasleader` as a client sent it.
fn headers(hasleader: Option<&'static str>) -> HeaderMap {
    let value = hasleader.map(HeaderValue::from_static);
    value.into_iter().map(|value| (HeaderName::from_static("hasleader"), value)).collect()
}

fn begin(front: &Arc<Front>, path: &str, hasleader: Option<&'static str>) -> Result<(), Status> {
    let route = routes::find(path).expect("a method");
    let remote = Remote { address: "a client".into(), user: None };
    Call::begin(front.clone(), remote, route, &headers(hasleader)).map(drop)
}

// rule: LIMIT-11, LIMIT-12
// rule: RT-8
#[tokio::test]
async fn without_a_leader_a_call_that_asks_for_one_is_refused_at_once_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = MemberConfig::new(dir.path().to_path_buf(), 7);
    let member = Member::start(config, Arc::new(Quiet)).await.expect("it starts");
    let front = front();
    front.open(member.clone());
    let paths = [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.Watch/Watch",
        "/v3lockpb.Lock/Lock",
    ];
    for path in paths {
        assert_eq!(begin(&front, path, Some("true")), Ok(()), "{path}");
    }
    member.forget_leader();
    for path in paths {
        let refused = begin(&front, path, Some("true")).expect_err("there is no leader");
        assert_eq!((refused.code, &refused.message[..]), (14, "etcdserver: no leader"), "{path}");
        for other in [None, Some("false"), Some("TRUE"), Some("")] {
            assert_eq!(begin(&front, path, other), Ok(()), "{path} with {other:?}");
        }
    }
    member.stop().await;
}

/// A stream that has nothing to say, and that asked for a leader or did not.
fn silent(front: &Arc<Front>, asks: bool) -> impl Stream<Item = Result<(), tonic::Status>> {
    let watch = routes::find("/etcdserverpb.Watch/Watch").expect("a method");
    let end = StreamEnd {
        stopping: front.stopping(),
        leaderless: asks.then(|| front.leaderless()),
        deadline: None,
    };
    bounded(stream::pending(), end, Ended::begin(front.metrics.clone(), watch.index))
}

// rule: LIMIT-12
// rule: RT-8
#[tokio::test(start_paused = true)]
async fn an_open_stream_that_asked_for_a_leader_ends_after_three_checks_without_one() {
    let front = front();
    let election = Duration::from_millis(front.config.election_ms);
    let leads = Arc::new(AtomicBool::new(true));
    let known = leads.clone();
    tokio::spawn(daemon::watch_leader(front.clone(), move || known.load(Ordering::Relaxed)));
    let mut asked = Box::pin(silent(&front, true));
    let mut plain = Box::pin(silent(&front, false));
    // Between two checks, so that each election timeout has one in its middle.
    tokio::time::sleep(election / 2).await;
    let goes_on = async |stream: &mut (dyn Stream<Item = Result<(), tonic::Status>> + Unpin + Send)| {
        tokio::time::timeout(Duration::ZERO, stream.next()).await.is_err()
    };
    // Two checks without a leader, and one with it again, begin the count anew.
    for (checks, led) in [(5, true), (2, false), (1, true), (2, false)] {
        leads.store(led, Ordering::Relaxed);
        tokio::time::sleep(election * checks).await;
        assert!(goes_on(&mut asked).await && goes_on(&mut plain).await, "after {checks} checks");
    }
    tokio::time::sleep(election).await;
    let status = asked.next().await.expect("a last word").expect_err("it ends");
    assert_eq!((status.code() as u32, status.message()), (errors::NO_LEADER.code, "etcdserver: no leader"));
    assert!(asked.next().await.is_none());
    assert!(goes_on(&mut plain).await, "it is left alone");
    // Once there is a leader again, so are new ones.
    leads.store(true, Ordering::Relaxed);
    tokio::time::sleep(election).await;
    assert!(goes_on(&mut Box::pin(silent(&front, true))).await);
}
