// SPDX-License-Identifier: Apache-2.0
//! Members whose files rotted while they were down.
//!
//! Owns      the damage: bytes of a store, or of a log, of a member that has ended.
//! Holds     whoever has peers is whole again without an operator, or says that it must be added anew; nothing that was
//!           acknowledged is lost, and nothing damaged is served.
//! Never     waits for a time: it waits for what is to happen.

use crate::{
    cluster::{get, put},
    members::{Members, Place, run},
    membership::{add, remove},
    support::{Daemon, until},
};
use cairn_proto::etcdserverpb as pb;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

const MEMBERS: usize = 3;
const PAGE: usize = 4096;
/// Superblocks and slots are before it.
const FIRST_DATA: usize = 16;
const ASIDE: &str = "the store is damaged and set aside";

fn store(dir: &TempDir) -> PathBuf {
    dir.path().join("data/member/engine.db")
}

fn aside(dir: &Path) -> PathBuf {
    dir.join("data/member/engine.db.damaged")
}

/// Flips a bit in each of these pages.
fn flip(file: &Path, pages: impl IntoIterator<Item = usize>) {
    let mut bytes = fs::read(file).expect("a store");
    for page in pages {
        bytes[page * PAGE + 100] ^= 4;
    }
    fs::write(file, bytes).expect("written");
}

fn pages_in_use(file: &Path) -> Vec<usize> {
    let bytes = fs::read(file).expect("a store");
    let used = |page: &usize| bytes[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0);
    (FIRST_DATA..bytes.len() / PAGE).filter(used).collect()
}

/// Where these bytes are in a file, each time.
fn places_of(file: &Path, wanted: &[u8]) -> Vec<usize> {
    let bytes = fs::read(file).expect("a file");
    bytes.windows(wanted.len()).enumerate().filter(|(_, at)| *at == wanted).map(|(at, _)| at).collect()
}

/// A value that no other bytes are like.
fn value(i: usize) -> String {
    format!("<value {i:05}>").repeat(100)
}

async fn fill(trio: &Members, keys: usize) {
    let mut kv = trio.place(trio.leader().await).kv().await;
    for i in 0..keys {
        kv.put(put(format!("k{i:05}"), value(i))).await.expect("put");
    }
}

async fn fold(place: &Place) {
    place.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("folded");
}

/// What this member has of a key by itself.
async fn read_alone(place: &Place, key: &str) -> Option<String> {
    let answer = place.kv().await.range(get(key.to_owned(), true)).await.ok()?.into_inner();
    Some(String::from_utf8_lossy(&answer.kvs.first()?.value).into_owned())
}

/// Puts until it is told to stop; every key that was acknowledged.
async fn load(place: Place, stop: Arc<AtomicBool>, acknowledged: Arc<Mutex<Vec<String>>>) {
    let mut kv = place.kv().await;
    let mut i = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("load-{}-{i:06}", place.name);
        if kv.put(put(key.clone(), "v")).await.is_ok() {
            acknowledged.lock().expect("no panic").push(key);
        }
        i += 1;
    }
}

// R30 of the test plan.
#[test]
fn r30_a_follower_whose_store_rotted_is_whole_again_under_load_without_an_operator() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        let leader = trio.leader().await;
        let (odd, other) = ((leader + 1) % MEMBERS, (leader + 2) % MEMBERS);
        // So that no checkpoint of any member is from before there was anything in it.
        for _ in 0..5 {
            fill(&trio, 300).await;
            for i in 0..MEMBERS {
                fold(&trio.place(i)).await;
            }
        }
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let loads: Vec<_> = [leader, other]
            .map(|i| tokio::spawn(load(trio.place(i), stop.clone(), Arc::clone(&acknowledged))))
            .into();
        let dir = tokio::task::block_in_place(|| trio.kill(odd));
        flip(&store(&dir), pages_in_use(&store(&dir)));
        // It is ready when it has asked, received, started anew over what came, and caught up.
        tokio::task::block_in_place(|| trio.restart(odd, dir));
        for said in [ASIDE, "a peer's store takes the place of the damaged one", "the member starts anew"] {
            assert!(trio.member(odd).has_said(said), "{said:?}: {:#?}", trio.member(odd).log);
        }
        let before = acknowledged.lock().expect("no panic").len();
        until(|| async { (acknowledged.lock().expect("no panic").len() > before + 50).then_some(()) }).await;
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.await.expect("it ends");
        }
        assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");
        let place = trio.place(odd);
        let keys = acknowledged.lock().expect("no panic").clone();
        println!("{} puts were acknowledged meanwhile", keys.len());
        for key in keys.iter().step_by(7).chain(keys.last()) {
            assert_eq!(read_alone(&place, key).await.as_deref(), Some("v"), "{key}");
        }
        assert_eq!(read_alone(&place, "k00299").await, Some(value(299)));
        let alarms = place.maintenance().await.alarm(pb::AlarmRequest::default()).await.expect("a list");
        assert_eq!(alarms.into_inner().alarms, [], "nobody's writes were refused for it");
        assert!(aside(trio.member(odd).path()).exists(), "the damaged file is kept for inspection");
        // A second time, with the log as it is now: one damaged file is kept.
        let dir = tokio::task::block_in_place(|| trio.kill(odd));
        flip(&store(&dir), pages_in_use(&store(&dir)));
        tokio::task::block_in_place(|| trio.restart(odd, dir));
        assert!(trio.member(odd).has_said(ASIDE));
        assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");
    });
}

// R30 of the test plan.
#[test]
fn r30_a_member_that_meets_damage_while_it_runs_gets_another_store_and_goes_on() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        fill(&trio, 300).await;
        let leader = trio.leader().await;
        let odd = (leader + 1) % MEMBERS;
        fold(&trio.place(odd)).await;
        let dir = tokio::task::block_in_place(|| trio.kill(odd));
        let file = store(&dir);
        let leaves: Vec<usize> = places_of(&file, value(150).as_bytes()).iter().map(|at| at / PAGE).collect();
        assert!(!leaves.is_empty(), "the value is in the store");
        flip(&file, leaves);
        // It starts: what is damaged is far from the roots. Then its scrub, or a read, meets it.
        let mut daemon = trio.spawn(odd, dir);
        tokio::task::block_in_place(|| daemon.wait_for(ASIDE));
        let daemon = tokio::task::block_in_place(|| {
            daemon.wait_for("the member starts anew from the store of a peer");
            daemon.wait_for_new("ready to serve client requests", "level", "info");
            daemon.ready()
        });
        trio.put_back(odd, daemon);
        until(|| async {
            let value = read_alone(&trio.place(odd), "k00150").await;
            assert!(value.is_none() || value == Some(self::value(150)), "damage was served");
            value
        })
        .await;
        assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");
        let alarms = trio.place(leader).maintenance().await.alarm(pb::AlarmRequest::default()).await;
        assert_eq!(alarms.expect("a list").into_inner().alarms, []);
    });
}

#[test]
fn a_member_that_is_alone_stops_with_the_place_of_the_damage_and_leaves_the_file() {
    let daemon = Daemon::start(&[]);
    let dir = daemon.stop();
    let before = fs::read(store(&dir)).expect("a store");
    flip(&store(&dir), 0..FIRST_DATA);
    let mut daemon = Daemon::spawn(dir, &[]);
    let status = daemon.wait();
    assert_eq!(status.code(), Some(6), "{:#?}", daemon.log);
    assert!(daemon.has_said("engine.db is damaged") && !daemon.has_said(ASIDE), "{:#?}", daemon.log);
    let dir = daemon.stop_ended();
    assert_eq!(fs::read(store(&dir)).expect("still there").len(), before.len());
    assert!(!aside(dir.path()).exists());
}

#[test]
fn a_member_whose_log_lost_batches_stops_and_is_whole_again_under_a_new_id() {
    run(async {
        let mut trio = Members::start(MEMBERS, &[]);
        fill(&trio, 100).await;
        let leader = trio.leader().await;
        let odd = (leader + 1) % MEMBERS;
        let id = trio.id(odd).await;
        let dir = tokio::task::block_in_place(|| trio.kill(odd));
        let segments = fs::read_dir(dir.path().join("data/member/wal")).expect("a log");
        let mut damaged = 0;
        for file in segments.map(|entry| entry.expect("an entry").path()) {
            for at in places_of(&file, value(10).as_bytes()) {
                let mut bytes = fs::read(&file).expect("a segment");
                bytes[at] ^= 1;
                fs::write(&file, bytes).expect("written");
                damaged += 1;
            }
        }
        assert!(damaged > 0, "the entry is in the log");
        let mut daemon = trio.spawn(odd, dir);
        let status = tokio::task::block_in_place(|| daemon.wait());
        assert_eq!(status.code(), Some(6), "{:#?}", daemon.log);
        let what = "remove the member and add it anew with an empty data directory";
        assert!(daemon.has_said("was durable") && daemon.has_said(what), "{:#?}", daemon.log);

        // What that line says is what helps.
        let through = trio.place(leader);
        remove(&through, id).await;
        let place = Place::new("anew");
        let added = add(&through, &place, false).await.member.expect("the new one").id;
        assert_ne!(added, id);
        let at = trio.join(place, &[]);
        let dir = tempfile::tempdir().expect("a directory");
        tokio::task::block_in_place(|| trio.restart(at, dir));
        assert_eq!(trio.hashes().await.len(), 1, "the same everywhere");
        assert_eq!(read_alone(&trio.place(at), "k00010").await, Some(value(10)));
    });
}
