// SPDX-License-Identifier: Apache-2.0
//! A member on a disk that has no room.
//!
//! Owns      real files behind a switch.
//! Holds     what was acknowledged before is there after, in every case.
//! Never     sleeps: it waits for what it expects, within a bound.

use cairn::member::{Ended, FailureKind, Level, Member, MemberConfig, Observer};
use cairn_engine::io::{FileLock, MapView, OpenHow, StdVfs, VFile, Vfs};
use cairn_proto::etcdserverpb as pb;
use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

/// Where there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Full {
    Nowhere,
    /// For files that would grow: what was reserved can be written.
    Growth,
    /// Not even for bytes that the file has, as where each write takes new space. In files whose path has this in it.
    Writes(&'static str),
}

/// The system's files; whether they have room is said by the test.
#[derive(Clone, Debug)]
struct Disk {
    full: Arc<Mutex<Full>>,
}

#[derive(Debug)]
struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: Arc<dyn VFile>,
}

impl Disk {
    fn new() -> Disk {
        Disk { full: Arc::new(Mutex::new(Full::Nowhere)) }
    }

    fn set(&self, full: Full) {
        *self.full.lock().expect("no panic") = full;
    }
}

impl Vfs for Disk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn VFile>> {
        let file = StdVfs.open(path, how)?;
        Ok(Arc::new(DiskFile { disk: self.clone(), path: path.to_path_buf(), file }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdVfs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        StdVfs.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdVfs.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        StdVfs.list(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        StdVfs.create_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        StdVfs.exists(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        StdVfs.lock(path)
    }
}

impl DiskFile {
    /// What a write, or a reservation, up to `end` meets.
    fn room(&self, end: u64, writes: bool) -> io::Result<()> {
        let refused = match *self.disk.full.lock().expect("no panic") {
            Full::Nowhere => false,
            Full::Growth => end > self.file.size()?,
            Full::Writes(name) => writes && self.path.to_string_lossy().contains(name),
        };
        if refused { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl VFile for DiskFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }
    fn write_at(&self, bytes: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.room(offset + bytes.iter().map(|slice| slice.len() as u64).sum::<u64>(), true)?;
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room(len, false)?;
        self.file.set_len(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.room(offset + bytes, false)?;
        self.file.allocate(offset, bytes)
    }
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.punch(offset, bytes)
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
    fn map(&self, reserve: u64) -> io::Result<Option<MapView>> {
        self.file.map(reserve)
    }
}

/// Passes the messages of the log on.
struct Said(mpsc::UnboundedSender<String>);

impl Observer for Said {
    fn log(&self, _level: Level, message: &str, _fields: &[(&'static str, String)]) {
        // A test that has seen enough no longer listens.
        self.0.send(message.to_owned()).ok();
    }
}

struct Running {
    member: Member,
    said: mpsc::UnboundedReceiver<String>,
}

impl Running {
    async fn start(dir: &Path, disk: &Disk) -> Running {
        let config = MemberConfig { vfs: Arc::new(disk.clone()), ..MemberConfig::new(dir.to_path_buf(), 7) };
        let (to, said) = mpsc::unbounded_channel();
        Running { member: Member::start(config, Arc::new(Said(to))).await.expect("it starts"), said }
    }

    async fn wait_for(&mut self, message: &str) {
        while self.said.recv().await.expect("the member runs") != message {}
    }

    /// Its end, after which it starts again with everything that it acknowledged.
    async fn ends_and_starts_again(self, dir: &Path, disk: &Disk, kind: FailureKind) {
        let Ended::Failed(failure) = self.member.ended().await else { panic!("it was not stopped") };
        assert_eq!(failure.kind, kind, "{}", failure.text);
        assert!(failure.text.contains("free some"), "{}", failure.text);
        self.member.stop().await;
        drop(self);
        disk.set(Full::Nowhere);
        let again = Running::start(dir, disk).await;
        assert_eq!(again.member.range(get("k")).await.expect("read").kvs.len(), 1);
        again.member.stop().await;
    }
}

fn put(key: &'static str, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![7; bytes].into(), ..Default::default() }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.expect("a runtime").block_on(bounded).expect("the test ends in time")
}

#[test]
fn a_log_without_room_to_grow_refuses_writes_answers_reads_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new();
    run(async {
        let mut running = Running::start(dir.path(), &disk).await;
        let member = running.member.clone();
        member.put(put("k", 1)).await.expect("put");
        disk.set(Full::Growth);
        // What is reserved takes some; the one that it does not hold waits.
        let filling = tokio::spawn({
            let member = member.clone();
            async move { while member.put(put("big", 1 << 20)).await.is_ok() {} }
        });
        running.wait_for("no space for the log").await;
        let refused = member.put(put("k", 2)).await.expect_err("no room");
        assert_eq!(refused.text, "etcdserver: mvcc: database space exceeded");
        assert_eq!(member.range(get("k")).await.expect("read").kvs.len(), 1);
        disk.set(Full::Nowhere);
        running.wait_for("the log is written again").await;
        member.put(put("k", 3)).await.expect("there is room");
        member.stop().await;
        filling.await.expect("no panic");
    });
}

#[test]
fn a_write_of_the_log_that_finds_no_room_ends_the_member_as_full() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new();
    run(async {
        let running = Running::start(dir.path(), &disk).await;
        running.member.put(put("k", 1)).await.expect("put");
        disk.set(Full::Writes("/wal/"));
        running.member.put(put("k", 2)).await.expect_err("it ends");
        running.ends_and_starts_again(dir.path(), &disk, FailureKind::DiskFull).await;
    });
}

#[test]
fn a_write_of_the_tree_file_that_finds_no_room_ends_the_member_as_full() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new();
    run(async {
        let running = Running::start(dir.path(), &disk).await;
        running.member.put(put("k", 1)).await.expect("put");
        disk.set(Full::Writes("engine.db"));
        running.member.defragment().await.expect_err("no checkpoint");
        running.ends_and_starts_again(dir.path(), &disk, FailureKind::DiskFull).await;
    });
}
