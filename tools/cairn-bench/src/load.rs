// SPDX-License-Identifier: Apache-2.0
//! One measurement: connections, requests in flight, and what came of them.
//!
//! Owns      the workers (one a request in flight), the counts and latencies of a window of time.
//! Holds     1. throughput counts what was answered inside the window, whenever it was sent;
//!           2. server and client CPU time are taken over the same window;
//!           3. a request that failed has no latency: it is counted with its reason.
//! Never     starts a server, and never tries a request again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{CallError, Caller, Connection, Endpoint};
use crate::histogram::Histogram;
use crate::pace::Pace;
use crate::process::{self, Machine};
use crate::progress::Progress;
use crate::reply;
use crate::request::{Operation, Shape, Template, scatter};
use crate::table::whole;

/// A server that answers nothing for so long has stalled.
const STALL_MAX: Duration = Duration::from_secs(60);
/// For the requests under way when the window ends.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(200);
/// Distinct reasons kept; more are counted together.
const REASONS_MAX: usize = 8;

/// When a load begins to count, and when it ends.
#[derive(Clone, Debug)]
pub enum Span {
    /// Random keys; counts for `length` after `warmup`.
    Window { warmup: Duration, length: Duration },
    /// Random keys; counts from the start until this is true, which is looked at five times a second.
    Until(Arc<AtomicBool>),
    /// Each key once, in order of index.
    EachKeyOnce,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub endpoints: Vec<Endpoint>,
    pub connections: usize,
    pub in_flight: usize,
    /// What a request does, drawn by weight.
    pub mix: Vec<(Operation, u32)>,
    pub shape: Shape,
    pub span: Span,
    /// Requests a second; None for as many as are answered.
    pub rate: Option<f64>,
    /// The server's processes: one for each member. None if they are not known.
    pub pids: Vec<u32>,
}

#[derive(Debug)]
pub struct Measured {
    pub series: BTreeMap<Operation, Histogram>,
    pub elapsed: Duration,
    pub server_cpu: Option<Duration>,
    pub client_cpu: Duration,
    pub failures: Failures,
    /// Due by the rate, and not sent when the window ended.
    pub unsent: u64,
    /// The share of the machine's CPUs that neither server nor client used; None if the server's part of it is
    /// not known.
    pub others: Option<f64>,
}

impl Measured {
    pub fn answered(&self) -> u64 {
        self.series.values().map(Histogram::count).sum()
    }

    pub fn per_second(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64()
    }

    /// Server CPU time of one request; None if it is not known or nothing was answered.
    pub fn server_cpu_us(&self) -> Option<f64> {
        Some(self.server_cpu?.as_secs_f64() * 1e6 / self.answered() as f64).filter(|us| us.is_finite())
    }

    pub fn client_cpu_us(&self) -> Option<f64> {
        Some(self.client_cpu.as_secs_f64() * 1e6 / self.answered() as f64).filter(|us| us.is_finite())
    }

    /// The share of one CPU that the client used: near 1, it hides what the server could do.
    pub fn client_busy(&self) -> f64 {
        self.client_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Requests that failed, by reason.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Failures {
    pub count: u64,
    pub reasons: BTreeMap<String, u64>,
}

impl Failures {
    fn add(&mut self, reason: String) {
        self.count += 1;
        let full = self.reasons.len() >= REASONS_MAX && !self.reasons.contains_key(&reason);
        *self.reasons.entry(if full { "other reasons".to_owned() } else { reason }).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Failures) {
        self.count += other.count;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }
}

#[derive(Default)]
struct Recorder {
    series: BTreeMap<Operation, Histogram>,
    failures: Failures,
}

/// What workers share. They run in one thread, so no lock is ever waited for.
struct Shared {
    recorder: Mutex<Recorder>,
    ended: AtomicBool,
    /// Answers and failures since the start.
    done: AtomicU64,
    /// Of [`Span::EachKeyOnce`]: the next key.
    sequence: Option<AtomicU64>,
    keys: u64,
    pace: Option<Pace>,
}

impl Shared {
    fn record(&self, operation: Operation, latency: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut recorder = self.recorder.lock().expect("no worker panics while it records");
        recorder.series.entry(operation).or_default().record(latency);
    }

    fn fail(&self, reason: String) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.recorder.lock().expect("no worker panics while it records").failures.add(reason);
    }

    fn take(&self) -> Recorder {
        std::mem::take(&mut *self.recorder.lock().expect("no worker panics while it records"))
    }

    fn end(&self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.pace.as_ref().map_or(0, Pace::end)
    }
}

struct Worker {
    callers: Vec<(Caller, u32)>,
    templates: Arc<Vec<Template>>,
    weights: u32,
    /// The state of the random numbers.
    random: u64,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(mut self) {
        let mut begin = Instant::now();
        while !self.shared.ended.load(Ordering::Relaxed) {
            if let Some(pace) = &self.shared.pace {
                let Some(due) = pace.next().await else { return };
                begin = due;
            }
            let Some(index) = self.key() else { return };
            let which = self.draw();
            let template = &self.templates[which];
            let operation = template.operation();
            let frame = template.frame(index);
            let answer = self.callers[which].0.call(frame).await;
            let now = Instant::now();
            match answer {
                Ok(body) => match reply::check(operation, &body) {
                    Ok(_) => self.shared.record(operation, now - begin),
                    Err(wrong) => self.shared.fail(wrong.0.to_owned()),
                },
                Err(error) => {
                    self.shared.fail(error.to_string());
                    if let CallError::Lost(_) = error {
                        return;
                    }
                }
            }
            begin = now;
        }
    }

    fn key(&mut self) -> Option<u64> {
        match &self.shared.sequence {
            Some(next) => Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&key| key < self.shared.keys),
            None => Some(self.number() % self.shared.keys),
        }
    }

    fn draw(&mut self) -> usize {
        if self.callers.len() == 1 {
            return 0;
        }
        let mut drawn = (self.number() % u64::from(self.weights)) as u32;
        for (which, (_, weight)) in self.callers.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return which,
            }
        }
        unreachable!("a number below the sum of the weights falls on one of them")
    }

    fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        scatter(self.random)
    }
}

/// Runs one load to its end.
///
/// # Errors
/// Says so if there is no connection, the server's CPU time cannot be read, or the server stalls. Requests
/// that fail are no error: they are counted.
pub async fn run(load: &Load, progress: &mut Progress) -> Result<Measured, String> {
    let mut connections = Vec::new();
    for endpoint in load.endpoints.iter().cycle().take(load.connections.min(load.in_flight)) {
        connections.push(Connection::open(endpoint).await?);
    }
    let templates: Vec<Template> =
        load.mix.iter().map(|(operation, _)| Template::new(*operation, &load.shape)).collect();
    let templates = Arc::new(templates);
    let shared = Arc::new(Shared {
        recorder: Mutex::default(),
        ended: AtomicBool::new(false),
        done: AtomicU64::new(0),
        sequence: matches!(load.span, Span::EachKeyOnce).then(AtomicU64::default),
        keys: load.shape.keys,
        pace: load.rate.map(Pace::start).transpose()?,
    });
    let mut workers = JoinSet::new();
    for (number, connection) in (0..load.in_flight).zip(connections.iter().cycle()) {
        let callers =
            load.mix.iter().map(|(operation, weight)| (connection.caller(operation.path()), *weight));
        let worker = Worker {
            callers: callers.collect(),
            templates: Arc::clone(&templates),
            weights: load.mix.iter().map(|(_, weight)| weight).sum(),
            random: (number as u64 + 1) << 40,
            shared: Arc::clone(&shared),
        };
        workers.spawn(worker.run());
    }
    Control { load, shared: &shared, workers: &mut workers, progress }.run().await
}

struct Control<'a> {
    load: &'a Load,
    shared: &'a Shared,
    workers: &'a mut JoinSet<()>,
    progress: &'a mut Progress,
}

impl Control<'_> {
    async fn run(&mut self) -> Result<Measured, String> {
        let load = self.load;
        match &load.span {
            Span::EachKeyOnce => {
                let counters = Counters::read(&load.pids)?;
                self.watch(counters.at, &End::Workers).await?;
                Ok(self.measured(counters, 0))
            }
            Span::Window { warmup, length } => {
                let mut early = Failures::default();
                if !warmup.is_zero() {
                    self.watch(Instant::now(), &End::After(*warmup)).await?;
                    early = self.shared.take().failures;
                }
                let mut measured = self.count(&End::After(*length)).await?;
                measured.failures.merge(&early);
                Ok(measured)
            }
            Span::Until(done) => self.count(&End::Once(Arc::clone(done))).await,
        }
    }

    /// Counts from now to the end, and ends the workers.
    async fn count(&mut self, end: &End) -> Result<Measured, String> {
        let counters = Counters::read(&self.load.pids)?;
        self.watch(counters.at, end).await?;
        let unsent = self.shared.end();
        let mut measured = self.measured(counters, unsent);
        self.drain().await;
        measured.failures.merge(&self.shared.take().failures);
        Ok(measured)
    }

    fn measured(&self, begin: Counters, unsent: u64) -> Measured {
        // A server that has ended has no CPU time to tell; its requests say so as failures.
        let end = Counters {
            server: servers_cpu_time(&self.load.pids).ok().flatten(),
            ..Counters::read_without_server()
        };
        let server_cpu = end.server.zip(begin.server).map(|(end, begin)| end.saturating_sub(begin));
        let client_cpu = end.client - begin.client;
        let others = end.machine.zip(begin.machine).zip(server_cpu);
        let recorder = self.shared.take();
        Measured {
            series: recorder.series,
            elapsed: end.at - begin.at,
            server_cpu,
            client_cpu,
            failures: recorder.failures,
            unsent,
            others: others.map(|((end, begin), server)| end.others_since(begin, server + client_cpu)),
        }
    }

    /// Waits for an end, or until no worker is left.
    async fn watch(&mut self, begin: Instant, end: &End) -> Result<(), String> {
        let length = match end {
            End::After(length) => Some(*length),
            End::Once(_) | End::Workers => None,
        };
        let mut done_before = self.shared.done.load(Ordering::Relaxed);
        let (mut last, mut alive) = (begin, begin);
        loop {
            let until = length.map_or(last + TICK, |length| (begin + length).min(last + TICK));
            let tick = tokio::time::sleep_until(until.into());
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    () = &mut tick => break,
                    worker = self.workers.join_next() => match worker {
                        Some(ended) => ended.map_err(|e| format!("a worker ended: {e}"))?,
                        None => return Ok(()),
                    },
                }
            }
            let now = Instant::now();
            let done = self.shared.done.load(Ordering::Relaxed);
            if done > done_before {
                alive = now;
            }
            let rate = (done - done_before) as f64 / (now - last).as_secs_f64();
            let passed = now - begin;
            let over = match end {
                End::After(length) => passed >= *length,
                End::Once(done) => done.load(Ordering::Relaxed),
                End::Workers => false,
            };
            if over {
                return Ok(());
            }
            // At a low rate, silence is as asked for.
            if now - alive > STALL_MAX && self.load.rate.is_none_or(|rate| rate > 1.0) {
                return Err(format!("the server answered nothing for {} s", STALL_MAX.as_secs()));
            }
            self.progress.note(&match end {
                End::After(length) => {
                    let (passed, length) = (passed.as_secs_f64(), length.as_secs_f64());
                    format!("{passed:.0} of {length:.0} s, {} req/s", whole(rate))
                }
                End::Once(_) => format!("{:.0} s, {} req/s", passed.as_secs_f64(), whole(rate)),
                End::Workers => {
                    format!(
                        "{} of {}, {} req/s",
                        whole(done as f64),
                        whole(self.shared.keys as f64),
                        whole(rate)
                    )
                }
            });
            (done_before, last) = (done, now);
        }
    }

    /// Waits for the requests under way; those that are not answered in time are failures.
    async fn drain(&mut self) {
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
            for _ in 0..self.workers.len() {
                self.shared.fail(format!("no answer {} s after the end", DRAIN_MAX.as_secs()));
            }
            self.workers.abort_all();
        }
    }
}

/// What a wait ends with.
enum End {
    After(Duration),
    Once(Arc<AtomicBool>),
    /// With the last of the workers.
    Workers,
}

/// CPU time of all processes of a server; None if they are not known.
fn servers_cpu_time(pids: &[u32]) -> Result<Option<Duration>, String> {
    let times = pids.iter().map(|pid| process::cpu_time(*pid)).collect::<Result<Vec<_>, _>>()?;
    Ok((!times.is_empty()).then(|| times.iter().sum()))
}

/// What is counted elsewhere, read at one moment.
struct Counters {
    at: Instant,
    server: Option<Duration>,
    client: Duration,
    machine: Option<Machine>,
}

impl Counters {
    fn read(pids: &[u32]) -> Result<Counters, String> {
        Ok(Counters { server: servers_cpu_time(pids)?, ..Counters::read_without_server() })
    }

    fn read_without_server() -> Counters {
        let (client, machine) = (process::own_cpu_time(), Machine::read());
        Counters { server: None, client, machine, at: Instant::now() }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod served;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_and_the_reasons_are_bounded() {
        let mut failures = Failures::default();
        for n in 0..20 {
            failures.add(format!("reason {}", n % 12));
        }
        assert_eq!(failures.count, 20);
        assert_eq!(failures.reasons.len(), REASONS_MAX + 1);
        assert_eq!(failures.reasons.values().sum::<u64>(), 20);
        assert_eq!(failures.reasons["reason 0"], 2);
        assert_eq!(failures.reasons["other reasons"], 4);
    }
}
