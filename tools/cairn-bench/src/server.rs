// SPDX-License-Identifier: Apache-2.0
//! Starts and ends a server to be measured.
//!
//! Owns      the child process, its ports on loopback, its place on disk, and its place in a cluster.
//! Holds     1. whatever happens, the child is ended and reaped when its value is dropped, and its place is
//!              removed with it;
//!           2. every wait has an end.
//! Never     has two servers of one place.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::access::Certificate;
use crate::client::{Connection, Endpoint};
use crate::process;
use crate::reply;
use crate::request::{Operation, Shape, Template, scatter};

/// For an answer, from when it is waited for.
const READY_MAX: Duration = Duration::from_secs(300);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);
/// How much of a server's log is shown when it fails.
const LOG_TAIL_BYTES: u64 = 2000;

/// A server as the command line names it: a program with arguments, to which the place is added as etcd's flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    pub name: String,
    words: Vec<String>,
}

impl Spec {
    /// Splits `[NAME=]PROGRAM ARGUMENTS…` at spaces; quotes keep spaces in a word.
    ///
    /// # Errors
    /// Says so if there is no program or a quote is open.
    pub fn parse(text: &str) -> Result<Spec, String> {
        let mut words = split(text)?;
        let program = words.first_mut().ok_or("no program is named")?;
        let named = program.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        let name = match named.map(|(name, rest)| (name.to_owned(), rest.to_owned())) {
            Some((name, rest)) => {
                *program = rest;
                name
            }
            None => Path::new(program.as_str())
                .file_name()
                .ok_or_else(|| format!("no program in {text:?}"))?
                .to_string_lossy()
                .into_owned(),
        };
        if words[0].is_empty() {
            return Err(format!("no program in {text:?}"));
        }
        Ok(Spec { name, words })
    }
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is open in {text:?}"));
    }
    words.extend(word);
    Ok(words)
}

/// A directory, two ports and a name in a cluster, kept over restarts.
pub struct Place {
    dir: tempfile::TempDir,
    name: String,
    peer_port: u16,
    /// As `--initial-cluster` wants it.
    cluster: String,
    /// Beside those for the place.
    flags: Vec<String>,
    endpoint: Endpoint,
}

impl Place {
    /// For a server that is alone.
    ///
    /// # Errors
    /// Says so if the directory cannot be made or no port is free.
    pub fn new(parent: &Path) -> Result<Place, String> {
        let mut places = Place::of_members(parent, 1)?;
        Ok(places.remove(0))
    }

    /// For the members of one cluster.
    ///
    /// # Errors
    /// Says so if a directory cannot be made or too few ports are free.
    pub fn of_members(parent: &Path, count: usize) -> Result<Vec<Place>, String> {
        let ports = free_ports(2 * count)?;
        let name = |at: usize| format!("bench{at}");
        let peer = |port: u16| format!("http://127.0.0.1:{port}");
        let member = |(at, ports): (usize, &[u16])| format!("{}={}", name(at), peer(ports[1]));
        let cluster: Vec<String> = ports.chunks(2).enumerate().map(member).collect();
        let cluster = cluster.join(",");
        let place = |(at, ports): (usize, &[u16])| {
            let dir = tempfile::Builder::new()
                .prefix("cairn-bench-")
                .tempdir_in(parent)
                .map_err(|e| format!("a directory in {}: {e}", parent.display()))?;
            Ok(Place {
                dir,
                name: name(at),
                peer_port: ports[1],
                cluster: cluster.clone(),
                flags: Vec::new(),
                endpoint: Endpoint::local(ports[0]),
            })
        };
        ports.chunks(2).enumerate().map(place).collect()
    }

    /// More flags for each start.
    pub fn give(&mut self, flags: impl IntoIterator<Item = String>) {
        self.flags.extend(flags);
    }

    /// Clients are served under TLS alone, from the next start on.
    ///
    /// # Errors
    /// The certificate is none to be trusted.
    pub fn secure(&mut self, certificate: &Certificate) -> Result<(), String> {
        self.give(certificate.flags());
        self.endpoint = Endpoint::local(self.endpoint.port()).trusting(certificate.der())?;
        Ok(())
    }

    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Bytes on disk of the data file: etcd's bbolt file or Cairn's tree file.
    ///
    /// # Errors
    /// Says so if there is neither.
    pub fn data_file_bytes(&self) -> Result<u64, String> {
        const BLOCK_BYTES: u64 = 512; // the unit of st_blocks
        let files = ["member/snap/db", "member/engine.db"];
        files
            .iter()
            .find_map(|file| fs::metadata(self.data().join(file)).ok())
            .map(|metadata| metadata.blocks() * BLOCK_BYTES)
            .ok_or_else(|| format!("none of {} in {}", files.join(", "), self.data().display()))
    }
}

/// Ports of loopback that nobody has now. They are below those that the system gives to outgoing connections, so
/// that a server that was ended finds its own free again.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    const PORTS: Range<u16> = 10_000..32_000;
    const ATTEMPTS: u64 = 10_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32);
    // They are held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for attempt in 0..ATTEMPTS {
        let drawn = scatter(seed.wrapping_add(attempt)) % PORTS.len() as u64;
        let port = PORTS.start + drawn as u16;
        if let Ok(socket) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, socket));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    Err(format!("no {count} free ports on 127.0.0.1"))
}

/// On which CPUs a server and this process run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpus {
    Shared,
    Pinned { server: usize, client: usize },
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cpus::Shared => f.write_str("server and client share all CPUs"),
            Cpus::Pinned { server, client } => write!(f, "server on CPU {server}, client on CPU {client}"),
        }
    }
}

pub struct Server {
    child: Child,
    started: Instant,
    log: PathBuf,
    name: String,
    endpoint: Endpoint,
}

impl Server {
    /// # Errors
    /// Says so if the program cannot be started.
    pub fn start(spec: &Spec, place: &Place, cpus: Cpus) -> Result<Server, String> {
        let log = place.log();
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        let client = place.endpoint.to_string();
        let peer = format!("http://127.0.0.1:{}", place.peer_port);
        let mut command = Command::new(&spec.words[0]);
        command
            .args(&spec.words[1..])
            .args(["--name", &place.name, "--data-dir"])
            .arg(place.data())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &place.cluster])
            .args(&place.flags)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        // A child runs where the thread that starts it runs.
        if let Cpus::Pinned { server, .. } = cpus {
            process::pin(server)?;
        }
        let started = Instant::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", spec.words[0]));
        if let Cpus::Pinned { client, .. } = cpus {
            process::pin(client)?;
        }
        Ok(Server { child: child?, started, log, name: spec.name.clone(), endpoint: place.endpoint() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a linearizable read, and tells how long after the start it was answered.
    ///
    /// # Errors
    /// Says so, with the end of its log, if the server ends or does not answer in time.
    pub async fn ready(&mut self) -> Result<Duration, String> {
        let shape = Shape { keys: 1, key_bytes: 32, value_bytes: 0, limit: 0 };
        let frame = Template::new(Operation::Get, &shape).frame(0);
        let begin = Instant::now();
        loop {
            if let Ok(connection) = Connection::open(&self.endpoint).await {
                let mut caller = connection.caller(Operation::Get.path());
                let answer = tokio::time::timeout(Duration::from_secs(1), caller.call(frame.clone())).await;
                if let Ok(Ok(body)) = answer
                    && reply::read_range(&body).is_ok()
                {
                    return Ok(self.started.elapsed());
                }
            }
            if let Some(status) = self.exited()? {
                return Err(format!("{} ended before it was ready ({status}){}", self.name, self.log_tail()));
            }
            if begin.elapsed() > READY_MAX {
                let waited = READY_MAX.as_secs();
                return Err(format!("{} is not ready after {waited} s{}", self.name, self.log_tail()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the server to end, and ends it if it does not.
    ///
    /// # Errors
    /// Says so if it had to be killed, or ended by itself before.
    pub async fn stop(mut self) -> Result<(), String> {
        if let Some(status) = self.exited()? {
            return Err(format!("{} ended while it was measured ({status}){}", self.name, self.log_tail()));
        }
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if self.exited()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("{} did not end in {} s after SIGTERM", self.name, STOP_MAX.as_secs()))
    }

    /// Ends the server as a crash would.
    ///
    /// # Errors
    /// Says so if it ended by itself before.
    pub fn kill(mut self) -> Result<(), String> {
        if let Some(status) = self.exited()? {
            return Err(format!("{} ended while it was measured ({status}){}", self.name, self.log_tail()));
        }
        self.signal(Signal::KILL)?;
        self.child.wait().map(drop).map_err(|e| format!("{}: {e}", self.name))
    }

    /// Stops it as it stands: it keeps its connections, and does nothing.
    ///
    /// # Errors
    /// Says so if it has ended.
    pub fn pause(&self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// Says so if it has ended.
    pub fn resume(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    /// None while it runs. The child is not reaped before, so its id is its own.
    fn exited(&mut self) -> Result<Option<std::process::ExitStatus>, String> {
        self.child.try_wait().map_err(|e| format!("{}: {e}", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, signal).map_err(|e| format!("{}: {e}", self.name))
    }

    fn log_tail(&self) -> String {
        let mut tail = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            let len = log.metadata()?.len();
            log.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
            log.read_to_end(&mut tail)
        });
        match read {
            Ok(0) => ", and wrote no log".to_owned(),
            Ok(_) => format!("; the end of its log:\n{}", String::from_utf8_lossy(&tail).trim_end()),
            Err(error) => format!("; its log {} cannot be read: {error}", self.log.display()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the child has ended and is reaped.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_program_with_arguments_and_perhaps_a_name() {
        let spec = |text: &str| Spec::parse(text).map(|s| (s.name, s.words.join("|")));
        let ok = |name: &str, words: &str| Ok((name.to_owned(), words.to_owned()));
        assert_eq!(spec("/usr/bin/etcd --a 1"), ok("etcd", "/usr/bin/etcd|--a|1"));
        assert_eq!(spec("old='/a b/etcd' --x=y"), ok("old", "/a b/etcd|--x=y"));
        assert_eq!(spec("etcd  \"--a b\" ''"), ok("etcd", "etcd|--a b|"));
        for wrong in ["", "  ", "'etcd", "name=", "''"] {
            assert!(spec(wrong).is_err(), "{wrong:?}");
        }
    }

    fn place() -> Place {
        Place::new(&std::env::temp_dir()).expect("the temporary directory can be written")
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_told_with_its_log() {
        let place = place();
        let spec = Spec::parse("broken=sh -c 'echo no such option; exit 3'").expect("it is well formed");
        let mut server = Server::start(&spec, &place, Cpus::Shared).expect("sh runs");
        let error = server.ready().await.expect_err("it never listens");
        assert!(
            error.contains("broken ended before it was ready") && error.contains("no such option"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_server_is_ended_and_its_place_removed() {
        let place = place();
        let spec = Spec::parse("sh -c 'exec sleep 600'").expect("it is well formed");
        let server = Server::start(&spec, &place, Cpus::Shared).expect("sh runs");
        let (pid, dir) = (server.pid(), place.dir.path().to_owned());
        assert!(process::cpu_time(pid).is_ok());
        drop(server);
        assert!(process::cpu_time(pid).is_err(), "process {pid} is gone");
        assert!(place.data_file_bytes().is_err());
        drop(place);
        assert!(!dir.exists());
    }

    #[test]
    fn a_missing_program_is_named() {
        let spec = Spec::parse("/nonexistent/etcd").expect("it is well formed");
        let error = Server::start(&spec, &place(), Cpus::Shared).err().expect("there is no such program");
        assert!(error.contains("/nonexistent/etcd"), "{error}");
    }
}
