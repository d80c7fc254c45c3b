// SPDX-License-Identifier: Apache-2.0
//! A whole store of format 1: it opens for ever, and the same input makes the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::sim::{SimVfs, SplitMix};
use cairn_engine::{Db, PurgeRequest};

use crate::model::{Commit, LOG, Model, SCHEMA, create, key, tiny};

/// Set to write the file anew; to be done only before the first release of its format.
const WRITE: &str = "CAIRN_WRITE_GOLDEN";
const DIR: &str = "/member";
const FILE: &str = "/member/engine.db";
const SEED: u64 = 14;
const COMMITS: u64 = 12;
const PAGE: usize = 4096;
/// Of the file, of which pages of zeros are not stored.
const BYTES: usize = 256 << 10;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-1.bin")
}

/// A store with every kind of tree, long keys, blobs, pages that wait to be written again, and four slots.
fn build() -> (Vec<u8>, Model) {
    let disk = SimVfs::new();
    let db = create(Arc::new(disk.clone()), Path::new(DIR)).expect("a new store");
    let mut model = Model::default();
    for index in 1..=COMMITS {
        let commit = Commit::new(SEED, index, false);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
        if index % 3 == 0 {
            db.checkpoint().expect("makes a checkpoint");
        }
        if index == 6 {
            db.purge(&LOG, PurgeRequest::Below(key(3, 0)), db.view().seq());
            model.log.retain(|k, _| k[..] >= key(3, 0)[..]);
        }
    }
    db.checkpoint().expect("makes a checkpoint");
    db.confirm().expect("syncs");
    (disk.contents(Path::new(FILE)).expect("is there"), model)
}

/// Each page that is not all zeros, after its number.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let pages = bytes.chunks(PAGE).zip(0_u32..).filter(|(page, _)| page.iter().any(|byte| *byte != 0));
    pages.flat_map(|(page, number)| [&number.to_le_bytes()[..], page].concat()).collect()
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    for page in packed.chunks(4 + PAGE) {
        let number = u32::from_le_bytes(page[..4].try_into().expect("four bytes")) as usize;
        bytes[number * PAGE..][..PAGE].copy_from_slice(&page[4..]);
    }
    bytes
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let (bytes, model) = build();
    assert!(bytes == build().0, "two stores of one history differ");
    let (values, keys) = (model.map.values().chain(model.log.values()), model.map.keys());
    assert!(values.map(Vec::len).max() > Some(16 << 10), "no value in a blob");
    assert!(keys.chain(model.wide.keys()).map(Vec::len).max() > Some(1 << 10), "no key in a blob");
    assert!(unpacked(&packed(&bytes)) == bytes);
    if std::env::var_os(WRITE).is_some() {
        fs::write(golden(), packed(&bytes)).expect("written");
    }
    assert_eq!(bytes.len(), BYTES);
}

#[test]
fn a_store_of_format_1_opens_as_what_was_put_in_and_goes_on() {
    let bytes = unpacked(&fs::read(golden()).expect("the golden file is there"));
    let disk = SimVfs::new();
    disk.plant(Path::new(FILE), &bytes);
    let (db, recovered) =
        Db::open(Path::new(DIR), SCHEMA, tiny(Arc::new(disk.clone()))).expect("it opens for ever");
    assert!(!recovered.fell_back && !recovered.space_map_rebuilt, "{recovered:?}");
    let mut model = build().1;
    for index in COMMITS + 1..COMMITS + 6 {
        db.verify().expect("whole");
        model.check(&db.view(), &mut SplitMix::new(1)).expect("the store is the model");
        let commit = Commit::new(SEED, index, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
        db.checkpoint().expect("makes a checkpoint");
    }
}
