// SPDX-License-Identifier: Apache-2.0
//! A daemon of a test's own: the built program on free ports of the loopback, in a new directory.
//!
//! Owns      the process, its directory and its log.
//! Holds     1. it is ready when [`Daemon::start`] returns;
//!           2. it ends with the test, and in any case after [`LIFE_S`] seconds;
//!           3. its log is read as it is written: a daemon whose pipe is full would stand still.
//! Never     kills a process that it did not start.

use cairn_proto::{
    etcdserverpb::{
        cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
        maintenance_client::MaintenanceClient, watch_client::WatchClient,
    },
    health::health_client::HealthClient,
    v3electionpb::election_client::ElectionClient,
    v3lockpb::lock_client::LockClient,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    future::Future,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_cairn");
const LIFE_S: u32 = 300;
/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

pub struct Daemon {
    dir: TempDir,
    /// `timeout`, whose child is the daemon.
    keeper: Child,
    /// The lines that nobody has looked at.
    lines: Receiver<String>,
    /// Every line that was looked at.
    pub log: Vec<serde_json::Value>,
    /// Address of each client listener, in the order of the flags.
    pub clients: Vec<String>,
    /// Of each listener for peers, and for metrics.
    pub peers: Vec<String>,
    pub metrics: Vec<String>,
}

impl Daemon {
    /// Starts it with these flags beside those for its directory and its ports.
    pub fn start(flags: &[&str]) -> Daemon {
        Self::start_in(tempfile::tempdir().expect("a directory"), flags)
    }

    /// The same on a directory that may hold data.
    pub fn start_in(dir: TempDir, flags: &[&str]) -> Daemon {
        Self::spawn(dir, flags).ready()
    }

    /// Starts it with these variables beside the flags.
    pub fn start_with_env(env: &[(&str, &str)]) -> Daemon {
        Self::spawn_with_env(tempfile::tempdir().expect("a directory"), &[], env).ready()
    }

    /// Waits until it serves clients.
    pub fn ready(self) -> Daemon {
        let mut daemon = self;
        while !daemon.has_said("successfully notified") && !daemon.has_said("notifying init daemon") {
            assert!(daemon.read_line(), "it ended before it was ready: {:#?}", daemon.log);
        }
        daemon.clients = daemon.addresses("serving client traffic");
        daemon.peers = daemon.addresses("serving peer traffic");
        daemon.metrics = daemon.addresses("serving metrics");
        daemon
    }

    /// The addresses in the lines that begin so, each once.
    fn addresses(&self, message: &str) -> Vec<String> {
        let lines = self.log.iter().filter(|l| l["msg"].as_str().is_some_and(|m| m.starts_with(message)));
        let mut addresses: Vec<String> =
            lines.map(|line| line["address"].as_str().expect("an address").to_owned()).collect();
        addresses.dedup();
        addresses
    }

    /// Starts it without waiting.
    pub fn spawn(dir: TempDir, flags: &[&str]) -> Daemon {
        Self::spawn_with_env(dir, flags, &[])
    }

    fn spawn_with_env(dir: TempDir, flags: &[&str], env: &[(&str, &str)]) -> Daemon {
        let mut keeper = Command::new("timeout")
            .args(["--foreground", "--signal=KILL", &LIFE_S.to_string()])
            .arg(PROGRAM)
            .args(arguments(dir.path()))
            .args(flags)
            .current_dir(dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`timeout` of coreutils runs");
        let lines = lines_of(keeper.stderr.take().expect("piped"));
        Daemon {
            dir,
            keeper,
            lines,
            log: Vec::new(),
            clients: Vec::new(),
            peers: Vec::new(),
            metrics: Vec::new(),
        }
    }

    /// Reads one line of the log; false at its end.
    ///
    /// # Panics
    /// If a line is not an object with etcd's keys (LG-5).
    pub fn read_line(&mut self) -> bool {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => self.keep(&line),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("it said nothing for {PATIENCE:?}"),
        }
        true
    }

    fn keep(&mut self, line: &str) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        for key in ["level", "ts", "caller", "msg"] {
            let text = value.get(key).and_then(|text| text.as_str());
            assert!(text.is_some_and(|text| !text.is_empty()), "{key} is missing: {line}");
        }
        self.log.push(value);
    }

    /// Whether a line, or the cause that it gives, has this.
    pub fn has_said(&self, message: &str) -> bool {
        let says = |value: &serde_json::Value| value.as_str().is_some_and(|text| text.contains(message));
        self.log.iter().any(|line| says(&line["msg"]) || says(&line["error"]))
    }

    /// Waits for a line with this message.
    pub fn wait_for(&mut self, message: &str) {
        while !self.has_said(message) {
            assert!(self.read_line(), "it ended and never said {message:?}: {:#?}", self.log);
        }
    }

    /// Waits for a line of which this is true.
    pub fn wait_for_line(&mut self, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
        let begin = Instant::now();
        while !self.log.iter().any(&is) {
            assert!(self.read_line(), "it ended and never said {what}: {:#?}", self.log);
            assert!(begin.elapsed() < PATIENCE, "it never said {what}: {:#?}", self.log);
        }
    }

    /// Reads what it has said so far.
    pub fn read_all(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(&line);
        }
    }

    /// Waits for a line that was not read before, with this message and this field.
    pub fn wait_for_new(&mut self, message: &str, field: &str, value: &str) {
        loop {
            assert!(self.read_line(), "it ended and never said {message:?} anew: {:#?}", self.log);
            let line = self.log.last().expect("just read");
            if line["msg"] == message && line[field] == value {
                return;
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What it has said, what it has written, and what of it others can look at.
    pub fn everything(&self, pages: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut all = vec![("the log".to_owned(), format!("{:?}", self.log).into_bytes())];
        all.extend(pages.iter().map(|page| ("a page".to_owned(), page.as_bytes().to_vec())));
        let mut open = vec![self.data_dir()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(path).expect("a directory");
                open.extend(entries.map(|entry| entry.expect("an entry").path()));
            } else {
                all.push((path.display().to_string(), fs::read(&path).expect("a file")));
            }
        }
        all
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.clients[0])
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url()).expect("a URL");
        endpoint.connect().await.expect("a ready daemon takes connections")
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub async fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel().await)
    }

    pub async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel().await)
    }

    pub async fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.channel().await)
    }

    pub async fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel().await)
    }

    pub async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    pub async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    pub async fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel().await)
    }

    /// Sends a signal to the daemon itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("it runs"), signal).expect("it is ours");
    }

    /// The daemon's own process id.
    pub fn pid_number(&self) -> u32 {
        self.pid().expect("it runs").as_raw_nonzero().get().cast_unsigned()
    }

    fn pid(&self) -> Option<Pid> {
        let keeper = self.keeper.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    /// Waits for its end, reading the rest of the log.
    pub fn wait(&mut self) -> ExitStatus {
        while self.read_line() {}
        self.keeper.wait().expect("our child")
    }

    /// The same for one that may end in the middle of everything: what it still says need not be lines of a log.
    pub fn wait_for_any_end(&mut self) -> (ExitStatus, String) {
        let rest = self.lines.iter().map(|line| line + "\n").collect();
        (self.keeper.wait().expect("our child"), rest)
    }

    /// Ends it by `SIGTERM` and gives its directory back.
    pub fn stop(mut self) -> TempDir {
        self.signal(Signal::TERM);
        self.wait();
        self.stop_ended()
    }

    /// The directory of one that has ended.
    pub fn stop_ended(mut self) -> TempDir {
        std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a directory"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // Gone in this moment, or ended by this.
            let _gone = kill_process(pid, Signal::KILL);
        }
        self.keeper.wait().expect("our child");
        if std::thread::panicking() {
            eprintln!("the log: {:#?}", self.log);
        }
    }
}

/// What it says, line by line, until it ends.
fn lines_of(stderr: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    let mut said = BufReader::new(stderr).lines().map(|line| line.expect("a pipe of ours has text"));
    std::thread::spawn(move || said.try_for_each(|line| sender.send(line)));
    lines
}

fn arguments(dir: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", dir.join("data").display()),
        "--listen-client-urls=http://127.0.0.1:0".into(),
        "--advertise-client-urls=http://127.0.0.1:1".into(),
        "--listen-peer-urls=http://127.0.0.1:0".into(),
    ]
}

/// Runs the program to its end.
pub fn run_to_end(arguments: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let mut child = Command::new("timeout")
        .args(["--signal=KILL", "60", PROGRAM])
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`timeout` of coreutils runs");
    let (mut out, mut err) = (String::new(), String::new());
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    (child.wait().expect("our child").code(), out, err)
}

/// Runs a test against servers, bounded.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await }).expect("the test ends in time")
}

/// Asks again until the answer is there, within a bound.
pub async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "it never came");
        tokio::time::sleep(POLL).await;
    }
}

/// Sends one message by hand, with these headers beside gRPC's own, and half-closes; the status it ends with.
pub async fn raw_call(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    message: &impl prost::Message,
) -> (u32, String) {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut bytes).expect("room");
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    raw_body(address, path, &headers, http_body_util::Full::new(bytes::Bytes::from(bytes))).await
}

/// Sends a body by hand, whatever is in it; the status it ends with.
pub async fn raw_body<B>(address: &str, path: &str, headers: &[(&str, &[u8])], body: B) -> (u32, String)
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (code, text, _) = raw_answer(address, path, headers, body).await;
    (code, text)
}

/// The same, and the bytes that came before the status.
pub async fn raw_answer<B>(
    address: &str,
    path: &str,
    headers: &[(&str, &[u8])],
    body: B,
) -> (u32, String, bytes::Bytes)
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    use http_body_util::BodyExt as _;
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(body).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("answered").into_parts();
    let collected = body.collect().await.expect("whole");
    let ended = collected.trailers().unwrap_or(&head.headers);
    let status = tonic::Status::from_header_map(ended).expect("a status");
    (status.code() as u32, status.message().to_owned(), collected.to_bytes())
}

/// Ends a daemon, which must not have said that anything panicked.
pub fn quiet_end(daemon: Daemon) {
    let mut daemon = daemon;
    daemon.signal(Signal::TERM);
    daemon.wait();
    let panic = daemon.log.iter().find(|line| line["level"] == "panic" || line["level"] == "fatal");
    assert!(panic.is_none(), "{panic:?}");
}

/// S11: none of these letters is in any of that.
pub fn assert_hidden(everything: &[(String, Vec<u8>)], secrets: &[&str]) {
    assert!(everything.len() > 3, "the data directory was read");
    assert!(secrets.iter().all(|secret| secret.len() >= 8), "shorter letters are found by accident");
    for (name, bytes) in everything {
        // A search in text skips ahead; files are large.
        let text = String::from_utf8_lossy(bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "{name} has a secret of {} bytes", secret.len());
        }
    }
}
