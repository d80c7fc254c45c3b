// SPDX-License-Identifier: Apache-2.0
//! A member on a disk that has no room, or that does not answer.
//!
//! Owns      real files behind two switches.
//! Holds     what was acknowledged before is there after, in every case.
//! Never     sleeps: it waits for what it expects, within a bound.

use cairn::{
    config::{
        Config,
        given::{Asked, Given},
    },
    daemon,
    front::{Front, Role, web},
    log::Log,
    member::{Ended, FailureKind, Level, Member, MemberConfig, Observer},
    metrics::Metrics,
};
use cairn_engine::io::{FileLock, MapView, OpenHow, StdVfs, VFile, Vfs};
use cairn_proto::etcdserverpb as pb;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    panic::Location,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
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

/// The system's files; whether they have room, and whether a sync of the log ends, is said by the test.
#[derive(Clone, Debug)]
struct Disk {
    full: Arc<Mutex<Full>>,
    hangs: Arc<(Mutex<bool>, Condvar)>,
}

#[derive(Debug)]
struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: Arc<dyn VFile>,
}

impl Disk {
    fn new() -> Disk {
        Disk { full: Arc::new(Mutex::new(Full::Nowhere)), hangs: Arc::default() }
    }

    fn set(&self, full: Full) {
        *self.full.lock().expect("no panic") = full;
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.0.lock().expect("no panic") = hangs;
        self.hangs.1.notify_all();
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
        if self.path.to_string_lossy().contains("/wal/") {
            let (hangs, changed) = &*self.disk.hangs;
            let held = hangs.lock().expect("no panic");
            drop(changed.wait_while(held, |hangs| *hangs).expect("no panic"));
        }
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
    fn log(&self, place: &Location<'_>, _: Level, message: &str, _: &[(&'static str, String)]) {
        assert!(place.file().contains("src/member/"), "{message} was said in {place}");
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
        let mut config = MemberConfig::new(dir.to_path_buf(), 7);
        config.vfs = Arc::new(disk.clone());
        (config.heartbeat_ms, config.election_ms) = (10, 100);
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

/// `/readyz` as the daemon answers it.
async fn ready(front: &Front) -> (StatusCode, String) {
    let request = Request::get("/readyz").header("host", "x").body(()).expect("a request");
    let (head, body) = web::serve(front, Role::ClientHttp, request).await.into_parts();
    let bytes = body.collect().await.expect("whole").to_bytes();
    (head.status, String::from_utf8(bytes.to_vec()).expect("text"))
}

// rule: HT-3
#[test]
fn a_hung_disk_fails_readiness_with_the_name_of_the_file_until_it_answers_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::new();
    run(async {
        let mut running = Running::start(dir.path(), &disk).await;
        let member = running.member.clone();
        let Ok(Asked::Serve(given)) = Given::read(&[], std::iter::empty()) else { panic!("no flags") };
        let (config, _) = Config::new(&given).expect("the defaults are served");
        let front = Arc::new(Front::new(config, Log::fallback(), Arc::new(Metrics::new(false))));
        front.open(member.clone());
        let mut healthy = front.healthy();
        tokio::spawn(daemon::watch_log(front.clone(), member.hung_write()));
        assert_eq!(ready(&front).await, (StatusCode::OK, "ok\n".to_owned()));

        disk.hang(true);
        let put_task = tokio::spawn({
            let member = member.clone();
            async move { member.put(put("k", 1)).await }
        });
        healthy.wait_for(|healthy| !healthy).await.expect("the front is there");
        running.wait_for("a write of the log hangs").await;
        let (status, text) = ready(&front).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let line = text.lines().find(|line| line.starts_with("[-]linearizable_read failed: a write to "));
        assert!(line.is_some_and(|line| line.contains("/wal/") && line.contains(".wal has been")), "{text}");
        assert!(!put_task.is_finished(), "it is not durable");
        assert_eq!(member.range(get("k")).await.expect("reads go on").kvs.len(), 0);

        disk.hang(false);
        healthy.wait_for(|healthy| *healthy).await.expect("the front is there");
        running.wait_for("a write of the log ended late").await;
        assert_eq!(ready(&front).await, (StatusCode::OK, "ok\n".to_owned()));
        put_task.await.expect("no panic").expect("put");
        member.stop().await;
    });
}
