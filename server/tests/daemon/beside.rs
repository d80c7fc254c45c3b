// SPDX-License-Identifier: Apache-2.0
//! What an attack costs somebody else: a client that puts one key after the other, alone, beside the attack, and
//! beside the same attack on a sink.
//!
//! Owns      the client, the sink, the windows in which each is watched, and their figures.
//! Holds     1. client, attacker and sink have a thread each, so none waits for another's turn on it;
//!           2. the attacker has the lowest priority: where there is no CPU over, it sends less rather than take that of
//!              the server, as an attacker on a machine of its own could not take it;
//!           3. in each round all three windows come in turn, so that what changes on the machine meets all alike;
//!           4. a window's figure is the p99 of its puts, and that of its kind the median of all rounds: what the machine
//!              does to one window decides nothing;
//!           5. the sink is sent as much as the daemon was, in the same time: what is slower beside it is slower because
//!              somebody sends so much on the same CPUs, and no server could mend it.
//! Never     fails for a time.

use crate::{
    frames::{DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, field, frame},
    support::{Daemon, run},
};
use cairn_proto::etcdserverpb::{self as pb, kv_client::KvClient};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tonic::transport::Endpoint;

/// What the client is beside.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Window {
    Alone,
    Attack,
    Sink,
    /// Between two windows: not counted.
    Between,
    Over,
}

const WINDOWS: usize = 3;
/// Puts until caches and connections are warm.
const WARM_UP: usize = 50;
/// What an attack left under way ends by then.
const SETTLE: Duration = Duration::from_millis(50);

/// How long others are watched: rounds, and the least length of a window.
#[derive(Clone, Copy)]
pub struct Span {
    rounds: usize,
    window: Duration,
}

impl Span {
    /// CI's, or the long one under `CAIRN_FULL=1`.
    pub fn of_run() -> Span {
        let full = std::env::var_os("CAIRN_FULL").is_some_and(|v| v == "1");
        let (rounds, ms) = if full { (5, 1_000) } else { (1, 300) };
        Span { rounds, window: Duration::from_millis(ms) }
    }
}

/// What was seen of one attack.
pub struct Beside<T> {
    /// p99 of a put in a window of each kind, the median of all rounds.
    pub alone: Duration,
    pub attack: Duration,
    pub sink: Duration,
    /// CPUs that were used during the attack.
    pub server_cpus: f64,
    pub attacker_cpus: f64,
    /// What came of each run of the attack on the daemon.
    pub runs: Vec<T>,
}

/// Watches the client through all windows. An attack is run again and again until its window is over, `runs_min` times
/// at least; `closes_after` says how many bytes of one run the sink takes, from those of the daemon.
pub fn watch<T: Send>(
    daemon: &Daemon,
    span: Span,
    runs_min: usize,
    grpc_code: u32,
    attack: impl AsyncFn(&str) -> T + Sync,
    closes_after: impl Fn(&T) -> usize,
) -> Beside<T> {
    let sink = Sink::start(grpc_code);
    let client = Client::start(daemon.url());
    let mut runs = Vec::new();
    let (mut lengths, mut server, mut attacker) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..span.rounds {
        client.enter(Window::Alone);
        thread::sleep(span.window);
        let before = cpu_of_process(daemon.pid_number());
        client.enter(Window::Attack);
        let address = &daemon.clients[0];
        let (new, length, cpu) = in_thread(async || {
            let (begin, mut runs) = (Instant::now(), Vec::new());
            while runs.len() < runs_min || begin.elapsed() < span.window {
                runs.push(attack(address).await);
            }
            (runs, begin.elapsed())
        });
        client.enter(Window::Between);
        server += cpu_of_process(daemon.pid_number()).saturating_sub(before);
        (lengths, attacker) = (lengths + length, attacker + cpu);
        thread::sleep(SETTLE);
        let bytes = new.iter().map(&closes_after).max().expect("it was run");
        sink.closes_after.store(bytes, SeqCst);
        client.enter(Window::Sink);
        let address = &sink.address;
        let count = u32::try_from(new.len()).expect("few runs");
        in_thread(async || {
            let begin = Instant::now();
            for run in 1..=count {
                attack(address).await;
                let due = length * run / count;
                tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
            }
            ((), length)
        });
        client.enter(Window::Between);
        thread::sleep(SETTLE);
        runs.extend(new);
    }
    let [alone, attack, beside_sink] = client.end().map(median_of_p99s);
    Beside {
        alone,
        attack,
        sink: beside_sink,
        server_cpus: server.as_secs_f64() / lengths.as_secs_f64(),
        attacker_cpus: attacker.as_secs_f64() / lengths.as_secs_f64(),
        runs,
    }
}

/// The least that a thread may ask of the scheduler.
const LOWEST: i32 = 19;

/// Attacks in a thread of its own: what came of it, how long it took, and how much of a CPU.
fn in_thread<T: Send>(doing: impl AsyncFn() -> (T, Duration) + Send) -> (T, Duration, Duration) {
    let thread = move || {
        rustix::process::nice(LOWEST).expect("a thread may always ask for less");
        let (done, length) = run(doing());
        (done, length, cpu_of("/proc/thread-self/schedstat"))
    };
    thread::scope(|scope| scope.spawn(thread).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The time that a thread was on a CPU.
fn cpu_of(schedstat: &str) -> Duration {
    // A thread may be gone since it was listed.
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

fn cpu_of_process(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks.map(|task| cpu_of(&task.expect("an entry").path().join("schedstat").to_string_lossy())).sum()
}

/// The times of one window.
type Times = Vec<Duration>;

fn p99(mut times: Times) -> Duration {
    assert!(!times.is_empty(), "nobody else was served");
    times.sort();
    times[times.len() * 99 / 100]
}

fn median_of_p99s(windows: Vec<Times>) -> Duration {
    let mut all: Vec<_> = windows.into_iter().map(p99).collect();
    all.sort();
    all[all.len() / 2]
}

/// The client that is beside everything.
struct Client {
    window: Arc<AtomicU8>,
    thread: JoinHandle<[Vec<Times>; WINDOWS]>,
}

impl Client {
    fn start(url: String) -> Client {
        let window = Arc::new(AtomicU8::new(Window::Between as u8));
        let (warm, is_warm) = std::sync::mpsc::channel();
        let seen = window.clone();
        let thread = thread::spawn(move || {
            run(async {
                let endpoint = Endpoint::from_shared(url).expect("a URL");
                let mut kv = KvClient::new(endpoint.connect().await.expect("it listens"));
                let mut times = [const { Vec::new() }; WINDOWS];
                let mut last = Window::Between as u8;
                for n in 0.. {
                    if n == WARM_UP {
                        warm.send(()).expect("it waits");
                    }
                    let window = seen.load(SeqCst);
                    if window == Window::Over as u8 {
                        break;
                    }
                    let begin = Instant::now();
                    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
                    kv.put(put).await.expect("others are served");
                    if let Some(windows) = times.get_mut(usize::from(window)) {
                        if window != last {
                            windows.push(Times::new());
                        }
                        windows.last_mut().expect("just begun").push(begin.elapsed());
                    }
                    last = window;
                }
                times
            })
        });
        is_warm.recv().expect("others are served");
        Client { window, thread }
    }

    fn enter(&self, window: Window) {
        self.window.store(window as u8, SeqCst);
    }

    fn end(self) -> [Vec<Times>; WINDOWS] {
        self.enter(Window::Over);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Somebody who takes what is sent and makes nothing of it: a call is answered by bytes that are always the same.
struct Sink {
    address: String,
    closes_after: Arc<AtomicUsize>,
    /// Ends it when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Sink {
    fn start(grpc_code: u32) -> Sink {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound").to_string();
        let closes_after = Arc::new(AtomicUsize::new(usize::MAX));
        let (end, ended) = oneshot::channel();
        let bytes_max = closes_after.clone();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let accept = async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                while let Ok((stream, _)) = listener.accept().await {
                    // As the daemon's: else it waits for what the other end's system does not acknowledge at once.
                    stream.set_nodelay(true).expect("a socket");
                    tokio::spawn(swallow(stream, grpc_code, bytes_max.load(SeqCst)));
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = accept => {}
                    _ = ended => {}
                }
            });
        });
        Sink { address, closes_after, _end: end }
    }
}

/// One connection to the sink. What ends it is the other end's affair.
async fn swallow(mut stream: TcpStream, grpc_code: u32, bytes_max: usize) {
    const HEAD_BYTES: usize = 9;
    const END_STREAM: u8 = 1;
    let head = [
        &[0x88][..],
        &field("content-type", "application/grpc"),
        &field("grpc-status", &grpc_code.to_string()),
    ]
    .concat();
    let window = frame(WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes());
    let begin = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, END_STREAM, 0, &[]), window].concat();
    let (mut buffer, mut taken, mut http2) = (Vec::new(), 0, false);
    let (mut left, mut answers) = (0, Vec::new());
    while taken < bytes_max {
        let Ok(1..) = stream.read_buf(&mut buffer).await.inspect(|len| taken += len) else { return };
        if !http2 {
            if buffer.len() < PREFACE.len() {
                continue;
            }
            http2 = buffer.starts_with(PREFACE);
            buffer.drain(..if http2 { PREFACE.len() } else { buffer.len() });
            if http2 && stream.write_all(&begin).await.is_err() {
                return;
            }
        }
        let mut at = 0;
        while http2 && at < buffer.len() {
            let skipped = left.min(buffer.len() - at);
            (left, at) = (left - skipped, at + skipped);
            let Some([a, b, c, kind, flags, stream @ ..]) = buffer.get(at..at + HEAD_BYTES) else { break };
            if matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                let number = u32::from_be_bytes(stream.try_into().expect("four bytes"));
                answers.extend(frame(HEADERS, END_HEADERS | END_STREAM, number, &head));
            }
            left = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            at += HEAD_BYTES;
        }
        buffer.drain(..if http2 { at } else { buffer.len() });
        if !answers.is_empty() && stream.write_all(&std::mem::take(&mut answers)).await.is_err() {
            return;
        }
    }
}
