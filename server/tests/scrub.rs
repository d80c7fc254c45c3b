// SPDX-License-Identifier: Apache-2.0
//! The scrub of a member: a sound store is read once an hour, and damage raises the alarm and ends nothing.
//!
//! Owns      a member whose store was damaged while it was stopped.
//! Never     sleeps: it waits for what the member tells, within a bound.

use bytes::Bytes;
use cairn::member::{Level, Member, MemberConfig, Observer};
use cairn_engine::Scrubbed;
use cairn_proto::{errors, etcdserverpb as pb};
use std::{
    fs::OpenOptions,
    future::Future,
    os::unix::fs::FileExt,
    panic::Location,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

const PAGE: u64 = 4096;
const KEYS: usize = 400;

/// Keeps the steps and the lines of errors, and says when a pass ended.
struct Told {
    steps: Mutex<Scrubbed>,
    errors: Mutex<Vec<String>>,
    passes: mpsc::UnboundedSender<()>,
}

impl Observer for Told {
    fn log(&self, _: &Location<'_>, level: Level, message: &str, fields: &[(&'static str, String)]) {
        if level == Level::Error {
            self.errors.lock().expect("no panic").push(format!("{message} {fields:?}"));
        }
    }

    fn scrubbed(&self, step: &Scrubbed) {
        let mut steps = self.steps.lock().expect("no panic");
        steps.bytes += step.bytes;
        steps.damage.extend(step.damage.iter().cloned());
        if step.pass_ended {
            // The test may have ended.
            self.passes.send(()).ok();
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.expect("a runtime").block_on(bounded).expect("the test ends in time")
}

async fn start(dir: &Path, bytes_s: u64) -> (Member, Arc<Told>, mpsc::UnboundedReceiver<()>) {
    let (passes, ended) = mpsc::unbounded_channel();
    let told = Arc::new(Told { steps: Mutex::default(), errors: Mutex::default(), passes });
    let config = MemberConfig { scrub_bytes_s: bytes_s, ..MemberConfig::new(dir.to_path_buf(), 7) };
    let member = Member::start(config, told.clone()).await.expect("it starts");
    (member, told, ended)
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("key/{n:04}"))
}

fn put(n: usize) -> pb::PutRequest {
    pb::PutRequest { key: key(n), value: vec![n as u8; 1000].into(), ..Default::default() }
}

fn get(n: usize) -> pb::RangeRequest {
    pb::RangeRequest { key: key(n), ..Default::default() }
}

/// A directory with a store that has all keys in its tree file.
async fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let (member, _, _) = start(dir.path(), 0).await;
    for n in 0..KEYS {
        member.put(put(n)).await.expect("put");
    }
    member.defragment().await.expect("a checkpoint");
    member.stop().await;
    dir
}

/// Changes one byte of a leaf of `rev` with values in it, neither the first nor the last one.
fn damage_a_leaf(dir: &Path) -> u64 {
    let path = dir.join("member").join("engine.db");
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the store");
    let mut leaves = Vec::new();
    for page in 16..file.metadata().expect("a length").len() / PAGE {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, page * PAGE).expect("read");
        // Magic, a leaf, at level 0, of tree 1.
        if head[..7] == *b"CrnT\x01\x00\x01" {
            leaves.push(page);
        }
    }
    let leaf = leaves[leaves.len() / 2];
    let (mut byte, at) = ([0], leaf * PAGE + 3 * PAGE + 77);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 8], at).expect("write");
    assert!(leaves.len() > 8, "{} leaves", leaves.len());
    leaf + 3
}

#[test]
fn a_sound_store_is_read_whole_and_then_left_in_peace() {
    run(async {
        let dir = filled().await;
        let (member, told, mut passes) = start(dir.path(), 100_000_000).await;
        passes.recv().await.expect("a pass");
        let steps = told.steps.lock().expect("no panic").clone();
        assert!(steps.bytes > KEYS as u64 * 1000 && steps.damage.is_empty(), "{} bytes", steps.bytes);
        assert!(member.status().alarms.is_empty());
        // A defragmentation is done by the thread that scrubs: after it the next step would have been.
        member.defragment().await.expect("done");
        assert!(passes.try_recv().is_err(), "the next pass is an hour away");
        member.stop().await;
    });
}

#[test]
fn damage_is_logged_with_its_place_raises_the_alarm_and_ends_nothing() {
    run(async {
        let dir = filled().await;
        let page = damage_a_leaf(dir.path());
        let (member, told, mut passes) = start(dir.path(), 100_000_000).await;
        passes.recv().await.expect("a pass");
        let refused = loop {
            match member.put(put(KEYS)).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refused, errors::CORRUPT);
        let alarms = member.status().alarms;
        let raised: Vec<_> = alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect();
        assert_eq!(raised, [(member.status().member_id.0, pb::AlarmType::Corrupt)]);
        let damage = told.steps.lock().expect("no panic").damage.clone();
        assert_eq!(damage.len(), 1, "{damage:?}");
        let errors = told.errors.lock().expect("no panic").clone();
        assert_eq!(errors.len(), 1, "{errors:?}");
        for part in ["the scrub found damage", &format!("page {page}, tree rev"), "from-key", "to-key"] {
            assert!(errors[0].contains(part), "{}", errors[0]);
        }
        // What is not in that leaf is still served.
        for n in [0, 1, KEYS - 1] {
            assert_eq!(member.range(get(n)).await.expect("served").count, 1);
        }
        member.stop().await;
    });
}
