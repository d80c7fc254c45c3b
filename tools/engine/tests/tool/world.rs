// SPDX-License-Identifier: Apache-2.0
//! A member's files, made as a member makes them, and the program run over them.
//!
//! Owns      a temporary directory with a store in `store/member` and its log.
//! Holds     the same calls make the same store: ids and salts are fixed.
//! Never     runs a server.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::inspect;
use cairn_engine::io::{StdVfs, Vfs};
use cairn_engine::wal::{Base, Entry, HardState, Record, Wal, WalOptions};
use cairn_engine::{Db, InstallId, Options, TreeDef};
use cairn_mvcc::{DeleteOp, KeyRange, PurgeBudget, PurgeProgress, PutOp, RangeEnd, SCHEMA, SmallTree, Store};
use serde_json::Value;
use tempfile::TempDir;

pub const INSTALL: InstallId = InstallId(0x1257);
pub const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;

/// Entries of one batch of the log, at most.
const SYNC_EVERY: u64 = 25;

pub struct World {
    pub temp: TempDir,
    pub db: Db,
    store: Store,
    pub wal: Wal,
    applied: u64,
}

fn vfs() -> Arc<dyn Vfs> {
    Arc::new(StdVfs)
}

impl World {
    pub fn new() -> World {
        World::with(Options::default(), tempfile::tempdir().expect("a temporary directory"))
    }

    /// In memory, where there is such a directory: a sync costs nothing there, so that a writer is fast.
    pub fn in_memory(options: Options) -> World {
        let memory = Path::new("/dev/shm");
        let temp = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        World::with(options, temp.expect("a temporary directory"))
    }

    fn with(options: Options, temp: TempDir) -> World {
        let member = temp.path().join("store/member");
        let mut wal_options = WalOptions::new(vfs(), MEMBER_ID, 7);
        wal_options.first_segment_bytes = 64 << 10;
        wal_options.segment_bytes = 128 << 10;
        let base = Base { index: 0, term: 0, install: INSTALL };
        let wal = Wal::create(&member.join("wal"), wal_options, base).expect("a new log");
        let db = Db::create(&member, SCHEMA, INSTALL, options).expect("a new store");
        let store = Store::open(db.clone()).expect("opens");
        World { temp, db, store, wal, applied: 0 }
    }

    /// Puts one key, as one entry of the log.
    pub fn put(&mut self, key: &str, value: &[u8], lease: i64) {
        let index = self.log(format!("put {key}").into_bytes());
        let mut batch = self.store.batch().expect("begins");
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value));
        let op = PutOp { key, value: Some(value), lease: Some(lease), prev_kv: false };
        batch.put(&op, &|_| true).expect("puts");
        batch.commit(index, 1).expect("commits");
    }

    pub fn delete(&mut self, key: &str) {
        let index = self.log(format!("delete {key}").into_bytes());
        let mut batch = self.store.batch().expect("begins");
        let keys = KeyRange { key: Bytes::copy_from_slice(key.as_bytes()), end: RangeEnd::Single };
        let deleted = batch.delete_range(&DeleteOp { keys, prev_kv: false }).expect("deletes").deleted;
        assert_eq!(deleted, 1, "{key}");
        batch.commit(index, 1).expect("commits");
    }

    /// Takes down a member, by its id alone: what else is known of it the tool does not look at.
    pub fn member(&mut self, id: u64) {
        let index = self.log(format!("member {id}").into_bytes());
        let mut batch = self.store.batch().expect("begins");
        batch.small_put(SmallTree::Member, &id.to_be_bytes(), Bytes::from_static(b"a member")).expect("puts");
        batch.commit(index, 1).expect("commits");
    }

    pub fn compact(&mut self, revision: i64) {
        let index = self.log(format!("compact {revision}").into_bytes());
        let mut batch = self.store.batch().expect("begins");
        batch.compact(revision).expect("compacts");
        batch.commit(index, 1).expect("commits");
    }

    /// Hands over to the next checkpoint all that the compaction made unreadable.
    pub fn purge(&mut self) {
        let budget = PurgeBudget { entries: 1000, break_holds: false };
        while let PurgeProgress::More | PurgeProgress::Done(_) =
            self.store.purge_step(budget).expect("purges")
        {}
    }

    fn log(&mut self, data: Vec<u8>) -> u64 {
        self.applied += 1;
        let entry = Entry { index: self.applied, term: 1, kind: 0, data: data.into() };
        let state = HardState { term: 1, vote: MEMBER_ID, commit: self.applied };
        self.wal.append(vec![Record::Entry(entry), Record::HardState(state)]).expect("appends");
        if self.applied.is_multiple_of(SYNC_EVERY) {
            self.wal.sync().expect("syncs");
        }
        self.applied
    }

    pub fn checkpoint(&self) {
        let durable = self.wal.sync().expect("syncs").last_index;
        self.db.log_durable(durable);
        self.db.checkpoint().expect("makes a checkpoint");
    }

    /// A small store with a bit of everything, two entries of whose log are not in its newest checkpoint.
    pub fn sample() -> World {
        let mut world = World::new();
        for n in 0..1000 {
            let key = format!("registry/{}/item-{n:03}", ["pods", "leases", "nodes"][n % 3]);
            world.put(&key, format!("value of {n}, {}", "x".repeat(n % 97)).as_bytes(), 0);
            if n % 250 == 249 {
                world.checkpoint();
            }
        }
        for n in 0..40 {
            world.put("counter", n.to_string().as_bytes(), 0);
        }
        world.put("large", &vec![b'z'; 40_000], 0);
        world.put("leased", b"for a while", 0x2a);
        world.put("bin\u{1}ary\\", b"\xff\x00\xfe", 0);
        world.put("gr\u{fc}n", "gr\u{fc}n".as_bytes(), 0);
        world.delete("registry/pods/item-000");
        world.checkpoint();
        world.compact(200);
        world.checkpoint();
        world.db.confirm().expect("syncs");
        world.put("late", b"in the log alone", 0);
        world.delete("late");
        world.wal.sync().expect("syncs");
        world.wal.seal().expect("seals");
        world
    }

    /// Ends the process; the files stay.
    pub fn stop(self) -> TempDir {
        let World { temp, wal, .. } = self;
        wal.sync().expect("syncs");
        temp
    }
}

/// What the program did.
pub struct Ran {
    /// What was asked of it.
    pub asked: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `engine` in `dir`.
pub fn engine(dir: &Path, args: &[&str]) -> Ran {
    let output: Output =
        Command::new(env!("CARGO_BIN_EXE_engine")).args(args).current_dir(dir).output().expect("it runs");
    Ran {
        asked: args.join(" "),
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).expect("the output is text"),
        err: String::from_utf8(output.stderr).expect("the errors are text"),
    }
}

impl Ran {
    /// The output, if the exit status is `code`.
    pub fn with(self, code: i32) -> String {
        assert_eq!(self.code, code, "engine {}\nstdout:\n{}\nstderr:\n{}", self.asked, self.out, self.err);
        self.out
    }
}

/// What `--json` printed, line by line; every field has to be described in `JSON.md`.
pub fn json(out: &str) -> Vec<Value> {
    let values: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    values.iter().for_each(described);
    values
}

fn described(value: &Value) {
    const FIELDS: &str = include_str!("../../JSON.md");
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.strip_suffix("_base64").unwrap_or(name);
                assert!(FIELDS.contains(&format!("`{name}`")), "JSON.md does not describe {name}");
                described(value);
            }
        }
        Value::Array(values) => values.iter().for_each(described),
        _ => {}
    }
}

/// The output with the digits of some lines taken out, because they depend on where pages happen to lie.
pub fn masked(out: &str, heads: &[&str]) -> String {
    let mask = |line: &str| {
        let mut masked = String::new();
        let mut digits = false;
        for c in line.chars() {
            let digit = c.is_ascii_digit() || (digits && matches!(c, ',' | '.'));
            if !digit {
                masked.push(c);
            } else if !digits {
                masked.push('#');
            }
            digits = digit;
        }
        masked
    };
    let line = |line: &str| match heads.iter().any(|head| line.starts_with(head)) {
        true => mask(line),
        false => line.to_owned(),
    };
    out.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Lengths, times of change and sums of the contents of files.
pub type State = BTreeMap<PathBuf, (u64, i64, i64, u32)>;

/// The state of all that is below `dir`.
pub fn state_of(dir: &Path) -> State {
    let mut state = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("is there");
        if metadata.is_dir() {
            state.extend(state_of(&path));
        }
        let crc = if metadata.is_file() { crc32fast::hash(&fs::read(&path).expect("reads")) } else { 0 };
        state.insert(path, (metadata.len(), metadata.ctime(), metadata.ctime_nsec(), crc));
    }
    state
}

/// First pages of the leaves of a tree, in order of key.
pub fn leaves(dir: &Path, tree: &TreeDef) -> Vec<u64> {
    let store = inspect::Store::open(&vfs(), &dir.join("store/member"), SCHEMA).expect("opens");
    let mut pages = Vec::new();
    let mut findings = inspect::Findings::default();
    store
        .check_tree(tree, &mut findings, &mut |extent| {
            if extent.level == 0 && extent.entries > 0 {
                pages.push(extent.page.get());
            }
            Ok(())
        })
        .expect("walks");
    pages
}

/// Flips a byte of a file.
pub fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at as usize] ^= 0x20;
    fs::write(path, bytes).expect("writes");
}
