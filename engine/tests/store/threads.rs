// SPDX-License-Identifier: Apache-2.0
//! Readers beside a writer and a checkpointer: what a view says is true at the stamp it names.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cairn_engine::io::{Budget, Progress, StdVfs};
use cairn_engine::{
    CommitMeta, Db, InstallId, PageSourceKind, PurgeRequest, Schema, TreeDef, TreeKind, View,
};

use crate::model::{key, runs, tiny};

fn one(_: &[u8], _: &[u8]) -> u64 {
    1
}

const LOG: TreeDef = TreeDef { id: 1, name: "log", kind: TreeKind::Append, leaf_pages: 1, weight: one };
const MAP: TreeDef = TreeDef { id: 2, name: "map", kind: TreeKind::Ordered, leaf_pages: 1, weight: one };
const SCHEMA: Schema = &[LOG, MAP];

/// Purges and deletes leave the newest so many.
const KEPT: u64 = 64;

/// The writer goes on until there were so many.
const CHECKPOINTS_MIN: u64 = 20;

const OVERLAYS_BYTES_MAX: u64 = 256 << 10;

/// Commit `n` appends entry `n`, puts map key `n`, and deletes map key `n - KEPT`: so at stamp `n`
/// the map has the last `KEPT` keys up to `n`, each of weight one.
fn commit(db: &Db, n: u64) {
    let mut txn = db.begin().expect("healthy");
    let value = Bytes::from(n.to_le_bytes().repeat(30));
    txn.append(&LOG, key(n, 0), value.clone());
    txn.put(&MAP, &n.to_be_bytes(), value, 1);
    if n > KEPT {
        txn.delete(&MAP, &(n - KEPT).to_be_bytes(), -1);
    }
    let meta = CommitMeta { applied_index: n, applied_term: 1, owner: Bytes::new() };
    txn.commit(meta, n).expect("commits");
}

fn look(view: &View) -> u64 {
    let now = view.stamp();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let (weight, at) = view.weight(&MAP, all.0, all.1).expect("weighs");
    assert!(at >= now, "stamp {at} before the view's {now}");
    assert_eq!(weight, at.min(KEPT), "the whole map at {at}");
    // Many commits may lie between one look at the active overlay and the next.
    let from = at.saturating_sub(KEPT / 2);
    let range = (Bound::Excluded(&from.to_be_bytes()[..]), Bound::Unbounded);
    let (weight, at) = view.weight(&MAP, range.0, range.1).expect("weighs");
    assert_eq!(weight, at - from.max(at.saturating_sub(KEPT)), "the part after {from} at {at}");
    let mut cursor = view.cursor(&LOG);
    cursor.seek_end();
    for n in (now.saturating_sub(KEPT / 2)..now).rev() {
        let (found, value) = cursor.prev().expect("walks").expect("the newest are never purged");
        assert_eq!(found, key(n + 1, 0), "entry {} at {now}", n + 1);
        assert_eq!(value[..], (n + 1).to_le_bytes().repeat(30), "its value");
    }
    assert!(view.get(&LOG, &key(now + 1, 0)).expect("reads").is_none(), "a later commit");
    now
}

#[test]
fn readers_see_one_stamp_while_commits_and_checkpoints_go_on() {
    for source in [PageSourceKind::Map, PageSourceKind::Pread] {
        readers_beside_a_writer(source);
    }
}

fn readers_beside_a_writer(source: PageSourceKind) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut options = tiny(Arc::new(StdVfs));
    options.page_source = source;
    let db = Db::create(&dir.path().join("member"), SCHEMA, InstallId(9), options).expect("a new store");
    let commits = runs(2000, 50_000);
    let ended = AtomicBool::new(false);
    let (views, checkpoints) = std::thread::scope(|scope| {
        let checkpointer = scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                let newest = db.view();
                let below = key(newest.stamp().saturating_sub(KEPT), 0);
                db.purge(&LOG, PurgeRequest::Below(below), newest.seq());
                db.freeze().expect("freezes");
                while db.checkpoint_step(Budget::bytes(4096)).expect("goes on") == Progress::More {}
            }
            db.verify().expect("whole");
            db.stats().checkpoints
        });
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut views = 0;
                let mut newest = 0;
                let mut kept = db.view();
                while !ended.load(Ordering::Acquire) {
                    let view = db.view();
                    let stamp = look(&view);
                    assert!(stamp >= newest, "views go forward");
                    newest = stamp;
                    views += 1;
                    // An old view keeps what it saw, whatever was purged and written since.
                    assert!(
                        kept.get(&LOG, &key(kept.stamp(), 0)).expect("reads").is_some() || kept.stamp() == 0
                    );
                    if views % 20 == 0 {
                        kept = view;
                    }
                }
                views
            })
        });
        let mut n = 0;
        while n < commits || db.stats().checkpoints < CHECKPOINTS_MIN {
            n += 1;
            commit(&db, n);
            // An owner slows down as the overlays fill, and so does this one.
            while db.overlay_bytes() > OVERLAYS_BYTES_MAX {
                std::thread::yield_now();
            }
        }
        ended.store(true, Ordering::Release);
        let views: u64 = readers.map(|reader| reader.join().expect("a reader")).into_iter().sum();
        (views, checkpointer.join().expect("the checkpointer"))
    });
    println!("{source:?}: {} commits, {views} views, {checkpoints} checkpoints", db.view().stamp());
    assert!(views > 50 && checkpoints >= CHECKPOINTS_MIN);
}
