// SPDX-License-Identifier: Apache-2.0
//! A server process of a test: etcd or Cairn, on free ports of the loopback, with its own directory.
//!
//! Owns      the process, its directory and its log.
//! Holds     1. it is ready when `start` returns: it has answered;
//!           2. it ends with the test, and at the latest after [`LIFE_S`] seconds, also if the test is killed.
//! Never     kills a process that it did not start.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, kill_process_group, pidfd_open, prlimit,
};
use tempfile::TempDir;

use cairn_proto::etcdserverpb::RangeRequest;

use crate::client::Client;
use crate::failpoints::Failpoints;
use crate::proxy::Net;
use crate::tools::Etcd;

/// The longest life of a server.
const LIFE_S: u32 = 1_800;

/// How long a server may take to answer for the first time.
const READY: Duration = Duration::from_secs(60);

/// How long a server may take to end when asked.
const STOP: Duration = Duration::from_secs(20);

/// Ports are found by asking for free ones, which others may take meanwhile.
const START_ATTEMPTS: u32 = 3;

/// The ports of a server that is down may be held by someone who looks for a free one.
const RESTART_ATTEMPTS: u32 = 20;

const POLL: Duration = Duration::from_millis(10);

/// Of a store of Cairn.
const PAGE_BYTES: usize = 4096;

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Whether it listens for clients under TLS too, with what `args` say of certificates.
    pub secure: bool,
}

impl Program {
    /// The reference, without its syncs: it is asked for answers, never after a crash.
    pub fn etcd(etcd: &Etcd) -> Program {
        Program {
            path: etcd.etcd.clone(),
            args: vec!["--unsafe-no-fsync".into()],
            env: Vec::new(),
            secure: false,
        }
    }

    /// The daemon under test, as it is released.
    pub fn cairn() -> Program {
        Program::at(crate::tools::cairn())
    }

    /// The daemon under test with what no release has: failpoints, and the version after this one.
    pub fn cairn_next() -> Program {
        Program::at(crate::tools::cairn_next())
    }

    fn at(path: PathBuf) -> Program {
        Program { path, args: Vec::new(), env: Vec::new(), secure: false }
    }

    #[must_use]
    pub fn secure(mut self) -> Program {
        self.secure = true;
        self
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Program {
        self.args.push(arg.into());
        self
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    program: Program,
    dir: TempDir,
    /// Its address.
    host: String,
    /// What runs its program, in front of it.
    within: Vec<String>,
    client_port: u16,
    peer_port: u16,
    secure_port: u16,
    /// The network that its peers see it through, and its number there.
    net: Option<(Net, usize)>,
    /// Where its peers dial.
    advertised_port: u16,
    /// `timeout`, which leads the process group; the server is its child. `None` once it has ended.
    keeper: Option<Child>,
}

impl Server {
    /// One that is not started yet, with its ports and its directory.
    pub fn idle(program: Program) -> Server {
        let dir =
            tempfile::Builder::new().prefix("cairn-test-").tempdir().expect("a directory for the server");
        let (client_port, peer_port) = free_ports();
        Server {
            program,
            dir,
            host: "127.0.0.1".to_owned(),
            within: Vec::new(),
            client_port,
            peer_port,
            secure_port: 0,
            net: None,
            advertised_port: peer_port,
            keeper: None,
        }
    }

    /// Starts as many as members of one cluster, `m0`, `m1` and so on, and waits until all answer.
    ///
    /// # Panics
    /// If one ends or stays silent.
    pub async fn start_cluster(program: &Program, count: usize) -> Vec<(String, Server)> {
        let mut servers: Vec<Server> = (0..count).map(|_| Server::idle(program.clone())).collect();
        Server::found_cluster(&mut servers).await;
        servers.into_iter().enumerate().map(|(i, server)| (format!("m{i}"), server)).collect()
    }

    /// Starts these as the members of one cluster, `m0`, `m1` and so on, and waits until all answer.
    ///
    /// # Panics
    /// If one ends or stays silent.
    pub async fn found_cluster(servers: &mut [Server]) {
        let named = |(i, server): (usize, &Server)| format!("m{i}={}", server.peer_url());
        let cluster = servers.iter().enumerate().map(named).collect::<Vec<_>>().join(",");
        for (i, server) in servers.iter_mut().enumerate() {
            server.give([format!("--name=m{i}"), format!("--initial-cluster={cluster}")]);
            server.begin();
        }
        for server in servers {
            server.begun().await;
        }
    }

    /// One that is not started yet and that its peers reach as member `number` of a network.
    ///
    /// # Panics
    /// If the loopback has no port.
    pub async fn idle_behind(program: Program, net: &Net, number: usize) -> Server {
        let mut server = Server::idle(program);
        let port = net.expose(number, server.peer_port).await.expect("the loopback has ports");
        server.advertised_port = port;
        server.net = Some((net.clone(), number));
        server
    }

    /// One that is not started yet, at another address than that of the loopback, and run by `within`.
    pub fn idle_within(program: Program, host: String, within: Vec<String>) -> Server {
        let mut server = Server::idle(program);
        (server.host, server.within) = (host, within);
        server
    }

    /// Starts it without waiting for its answer.
    pub fn begin(&mut self) {
        assert!(self.keeper.is_none(), "it runs already");
        self.spawn();
    }

    /// Waits until one that was begun answers.
    ///
    /// # Panics
    /// If it ends or stays silent.
    pub async fn begun(&mut self) {
        if let Err(reason) = self.ready(false).await {
            panic!("{reason}\n{}", self.log());
        }
    }

    /// More flags for its next start; later ones win.
    pub fn give(&mut self, flags: impl IntoIterator<Item = String>) {
        self.program.args.extend(flags);
    }

    /// A variable of its next start, or none of that name.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.program.env.retain(|(known, _)| known != name);
        self.program.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Has its failpoints served, from its next start on.
    pub fn serve_failpoints(&mut self) -> Failpoints {
        let (port, _) = free_ports();
        self.set_env("GOFAIL_HTTP", Some(&format!("127.0.0.1:{port}")));
        Failpoints { port }
    }

    /// Starts one that joins as a learner, which answers serializable reads alone.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn start_learner(&mut self) {
        self.spawn();
        if let Err(reason) = self.ready(true).await {
            panic!("{reason}\n{}", self.log());
        }
    }

    /// Another program, for its next start.
    pub fn become_another(&mut self, path: &Path) {
        self.program.path = path.to_owned();
    }

    pub fn is_running(&self) -> bool {
        self.keeper.is_some()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut keeper = self.keeper.take().expect("it was started");
        let begin = Instant::now();
        while begin.elapsed() < STOP {
            if let Some(status) = keeper.try_wait().expect("the keeper is our child") {
                return status;
            }
            tokio::time::sleep(POLL).await;
        }
        self.keeper = Some(keeper);
        panic!("not ended {STOP:?} after it was to\n{}", self.log());
    }

    /// Starts the program on a new directory and waits until it answers.
    ///
    /// # Panics
    /// If it ends or stays silent; its log is part of the message.
    pub async fn start(program: Program) -> Server {
        let mut server = Server::idle(program);
        for attempt in 1..=START_ATTEMPTS {
            (server.client_port, server.peer_port) = free_ports();
            server.advertised_port = server.peer_port;
            server.secure_port = free_ports().0;
            server.spawn();
            match server.ready(false).await {
                Ok(()) => return server,
                Err(reason) => {
                    let in_use = says_in_use(&server.log());
                    assert!(in_use && attempt < START_ATTEMPTS, "{reason}\n{}", server.log());
                    server.kill();
                }
            }
        }
        unreachable!("the last attempt returns or panics");
    }

    /// Starts it again on the same directory and ports, after [`Server::kill`] or [`Server::stop`].
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn restart(&mut self) {
        assert!(self.keeper.is_none(), "it still runs");
        for attempt in 1..=RESTART_ATTEMPTS {
            let said = self.log().len();
            self.spawn();
            let Err(reason) = self.ready(false).await else { return };
            let in_use = says_in_use(&self.log()[said..]);
            assert!(in_use && attempt < RESTART_ATTEMPTS, "{reason}\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
        unreachable!("the last attempt returns or panics");
    }

    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.client_port)
    }

    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// Where it listens under TLS.
    pub fn secure_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.secure_port)
    }

    /// Where its peers reach it.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.advertised_port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All it has printed so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// A new connection to it.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await.expect("a ready server takes connections")
    }

    /// The server's own process id.
    pub fn pid(&self) -> Pid {
        self.find_pid().expect("a ready server runs")
    }

    /// kill -9, and waits until it is gone: the server too, which is not our child and holds ports and files
    /// for as long as it takes to end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn kill(&mut self) {
        let server = self.find_pid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(mut keeper) = self.keeper.take() else { return };
        match kill_process_group(group(&keeper), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => panic!("the server's group is ours: {e}"),
        }
        keeper.wait().expect("the keeper is our child");
        if let Some(server) = server {
            let patience = Timespec { tv_sec: STOP.as_secs().cast_signed(), tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience));
            assert_eq!(ended, Ok(1), "not ended {STOP:?} after SIGKILL");
        }
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn stop(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("the server is ours");
        self.ended().await
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let (mut client, peer) = (self.url(), self.peer_url());
        let listen = format!("http://{}:{}", self.host, self.peer_port);
        if self.program.secure {
            client = format!("{client},{}", self.secure_url());
        }
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", &LIFE_S.to_string()])
            .args(&self.within)
            .arg(&self.program.path)
            .args(["--name=test", &format!("--initial-cluster=test={peer}")])
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={listen}"), format!("--initial-advertise-peer-urls={peer}")])
            .args(&self.program.args)
            .envs(self.program.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a second handle of the log"))
            .stdout(log)
            .process_group(0);
        self.keeper = Some(command.spawn().expect("`timeout` of coreutils runs"));
        if let Some((net, number)) = &self.net {
            let begin = Instant::now();
            while begin.elapsed() < STOP {
                if let Some(pid) = self.find_pid() {
                    net.runs(*number, pid);
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("`timeout` started nothing");
        }
    }

    /// Sends it a signal that does not end it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server is ours");
    }

    /// From now on its disk takes nothing: every write to a file fails.
    ///
    /// # Panics
    /// If it does not run.
    pub fn refuse_writes(&self) {
        let nothing = Rlimit { current: Some(0), maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, nothing).expect("the server is ours");
    }

    /// Changes one bit in each page of the store of a member that does not run, but for pages without anything.
    ///
    /// # Panics
    /// If it runs, or has no store.
    pub fn rot_store(&self) {
        assert!(!self.is_running(), "it has its store open");
        let path = self.data_dir().join("member/engine.db");
        let mut bytes = fs::read(&path).expect("a member that ran has a store");
        let used = bytes.chunks_mut(PAGE_BYTES).filter(|page| page.iter().any(|byte| *byte != 0));
        used.for_each(|page| page[PAGE_BYTES / 2] ^= 1);
        fs::write(&path, bytes).expect("the store is the test's own");
    }

    /// Waits until it has answered a read.
    async fn ready(&mut self, serializable: bool) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < READY {
            let keeper = self.keeper.as_mut().expect("it was spawned");
            if let Some(status) = keeper.try_wait().map_err(|e| e.to_string())? {
                self.keeper = None;
                return Err(format!("{} ended: {status}", self.program.path.display()));
            }
            if let Ok(mut client) = Client::connect(&self.url()).await {
                let read = RangeRequest { key: "ready".into(), serializable, ..Default::default() };
                if client.kv.range(read).await.is_ok() {
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("{} gave no answer in {READY:?}", self.program.path.display()))
    }

    fn find_pid(&self) -> Option<Pid> {
        let keeper = self.keeper.as_ref()?.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the end of the log of {}:\n{}", self.program.path.display(), tail(&self.log()));
        }
    }
}

fn says_in_use(log: &str) -> bool {
    log.contains("address already in use")
}

fn tail(log: &str) -> &str {
    const LINES: usize = 20;
    let start = log.rmatch_indices('\n').nth(LINES).map_or(0, |(at, _)| at + 1);
    &log[start..]
}

fn group(keeper: &Child) -> Pid {
    Pid::from_child(keeper)
}

/// Two ports that are free now. They are below those that the system gives to outgoing connections, so that a server
/// that was killed finds its own free again.
pub fn free_ports() -> (u16, u16) {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    // Members of one cluster get theirs before any of them runs.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut rng = rand::rng();
    let mut free = || {
        let is_new = |port: &u16| GIVEN.lock().expect("no panic").insert(*port);
        let is_free = |port: &u16| is_new(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
        std::iter::repeat_with(|| rng.random_range(PORTS)).find(is_free).expect("an endless iterator")
    };
    (free(), free())
}

/// The resident memory of a process that no file backs, in bytes.
pub fn anonymous_memory(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(Path::new(&path)).expect("the process runs");
    let kib =
        status.lines().find_map(|l| l.strip_prefix("RssAnon:")).and_then(|l| l.split_whitespace().next());
    kib.and_then(|n| n.parse::<u64>().ok()).expect("Linux tells RssAnon") * 1024
}
