// SPDX-License-Identifier: Apache-2.0
//! Files of released formats: they open for ever, and the same input makes the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_engine::InstallId;
use cairn_engine::io::Vfs;
use cairn_engine::sim::SimVfs;
use cairn_engine::wal::{Base, HardState, Record, Wal};

use crate::model::State;
use crate::script::{BASE, DIR, entry, options};

/// Set to write the files of the present format anew; to be done only before its first release.
const WRITE: &str = "CAIRN_WRITE_GOLDEN";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A log with each kind of record, a conflict, a segment change, a restart and a seal.
fn build() -> (SimVfs, State) {
    let disk = SimVfs::new();
    let mut state = State::new();
    let wal = Wal::create(Path::new(DIR), options(&disk, 1), BASE).expect("a new log");
    let base = Base { index: 10, term: 2, install: InstallId(9) };
    let steps: [Vec<Record>; 4] = [
        vec![entry(1, 1, 100), entry(2, 1, 0)],
        vec![entry(2, 2, 50), Record::HardState(HardState { term: 2, vote: 3, commit: 1 })],
        vec![Record::Base(base)],
        vec![entry(11, 2, 3000), entry(12, 3, 17000)],
    ];
    for records in steps {
        state.apply(&records);
        wal.append(records).expect("healthy");
        wal.sync().expect("healthy");
    }
    drop(wal);
    state.applied = (10, 2);
    state.install = InstallId(9);
    let (wal, _) = Wal::open(Path::new(DIR), options(&disk, 2), state.evidence()).expect("whole");
    let records = vec![entry(13, 3, 10), Record::HardState(HardState { term: 3, vote: 1, commit: 12 })];
    state.apply(&records);
    wal.append(records).expect("healthy");
    wal.sync().expect("healthy");
    wal.seal().expect("healthy");
    drop(wal);
    (disk, state)
}

#[test]
fn the_files_of_format_1_are_the_same_bytes_and_open() {
    let (disk, state) = build();
    let files = disk.list(Path::new(DIR)).expect("the directory");
    assert_eq!(files.len(), 3, "{files:?}");
    let stored = SimVfs::new();
    stored.create_dir(Path::new(DIR)).expect("directory");
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // The zeros at the end are not stored, but for what the length says.
        let bytes = disk.contents(&path).expect("a file");
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let stored_as = golden(&format!("log-1-{name}-{}", bytes.len()));
        if std::env::var_os(WRITE).is_some() {
            fs::write(&stored_as, &bytes[..used]).expect("written");
        }
        let mut kept = fs::read(&stored_as).unwrap_or_else(|e| panic!("{}: {e}", stored_as.display()));
        kept.resize(bytes.len(), 0);
        assert!(kept == bytes, "{name} differs from its golden file");
        stored.plant(&path, &kept);
    }
    let evidence = state.evidence();
    let (wal, replay) = Wal::open(Path::new(DIR), options(&stored, 3), evidence).expect("opens");
    assert_eq!(state.differs(&wal, replay.hard_state, &evidence), None);
    assert_eq!((replay.first_index, replay.last_index), (11, 13));
}
