// SPDX-License-Identifier: Apache-2.0
//! A follower that missed much comes back under load: how long it takes, what it costs the leader, and what writers
//! notice.
//!
//! Owns      the order of these measurements and the goal for the leader's memory.
//! Holds     1. the follower is behind until it has answered a linearizable read, and all of that time counts;
//!           2. memory and latency are those beside the same load before, with the follower down.
//! Never     compares servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::compare::{cpus, goals_json, warning};
use crate::load::{self, Failures, Load, Measured, Span};
use crate::members::Members;
use crate::process;
use crate::progress::Progress;
use crate::request::{Operation, Shape};
use crate::server::Spec;
use crate::single::{Others, print_failures};
use crate::table::{Goal, Table, Target, ms, or_dash, short, whole};

const MEMBERS: usize = 3;
const TARGET_MIB: Target = Target::AtMost(64.0);
/// Of the values that the follower misses: large, so that the time goes into bytes.
const FILL_VALUE_BYTES: usize = 16 << 10;
const SAMPLE: Duration = Duration::from_millis(20);
const PAGE_BYTES: u64 = 4096;

pub struct Plan {
    pub server: Spec,
    /// What the follower misses, keys and values.
    pub missed_bytes: u64,
    /// Of the load beside it.
    pub shape: Shape,
    pub in_flight: usize,
    pub connections: usize,
    pub warmup: Duration,
    pub length: Duration,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

/// One of the two windows.
struct Side {
    puts: Measured,
    /// Of the leader, at most: what no file stands behind.
    anonymous: u64,
}

impl Side {
    fn quantile_ms(&self, q: f64) -> Option<f64> {
        Some(ms(self.puts.series.get(&Operation::Put)?.quantile(q)))
    }

    fn anonymous_mib(&self) -> f64 {
        mib(self.anonymous)
    }
}

/// What is shown of a window.
type Figure = fn(&Side) -> Option<f64>;

const FIGURES: [(&str, Figure); 5] = [
    ("puts/s", |side| Some(side.puts.per_second())),
    ("p50 ms", |side| side.quantile_ms(0.5)),
    ("p99 ms", |side| side.quantile_ms(0.99)),
    ("longest ms", |side| side.quantile_ms(1.0)),
    ("leader's anonymous memory, MiB", |side| Some(side.anonymous_mib())),
];

/// Measures and prints; true if all requests were answered, the leader stayed, and the goal has a figure.
///
/// # Errors
/// A member cannot be started or reached, the cluster stalls, or the follower does not come back.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let mut progress = Progress::new();
    let (mut failures, mut others) = (Failures::default(), Others::default());
    progress.stage("start");
    // What is missed and what is put beside it must fit.
    let quota = [format!("--quota-backend-bytes={}", (plan.missed_bytes * 4).max(8 << 30))];
    let mut members = Members::start(&plan.server, &plan.dir, MEMBERS, &quota, cpus).await?;
    let leader = members.leader().await?;
    let follower = (leader + 1) % MEMBERS;
    members.kill(follower)?;
    let leader_pid = members.pid(leader).ok_or("the leader is down")?;

    let mut endpoints = members.endpoints();
    endpoints.remove(follower);
    let before = Load {
        endpoints,
        connections: plan.connections,
        in_flight: plan.in_flight,
        mix: vec![(Operation::Put, 1)],
        shape: plan.shape,
        span: Span::Window { warmup: plan.warmup, length: plan.length },
        rate: None,
        pids: members.pids(),
    };
    let entry_bytes = (plan.shape.key_bytes + FILL_VALUE_BYTES) as u64;
    let fill =
        Shape { keys: plan.missed_bytes.div_ceil(entry_bytes), value_bytes: FILL_VALUE_BYTES, ..plan.shape };
    let fill = Load { shape: fill, span: Span::EachKeyOnce, ..before.clone() };
    progress.stage("fill: ");
    failures.merge(&load::run(&fill, &mut progress).await?.failures);

    progress.stage("before: ");
    let (measured, anonymous) = beside(leader_pid, load::run(&before, &mut progress)).await?;
    let before_side = Side { puts: measured?, anonymous };

    progress.stage("during: ");
    let done = Arc::new(AtomicBool::new(false));
    let during = Load { span: Span::Until(Arc::clone(&done)), ..before };
    let come_back = async {
        let begin = Instant::now();
        let came = match members.start_again(follower) {
            Ok(server) => server.ready().await.map(|_| begin.elapsed()),
            Err(error) => Err(error),
        };
        done.store(true, Ordering::Relaxed);
        came
    };
    let both = async { tokio::join!(load::run(&during, &mut progress), come_back) };
    let ((measured, took), anonymous) = beside(leader_pid, both).await?;
    let took = took?;
    let sides = [before_side, Side { puts: measured?, anonymous }];
    for side in &sides {
        failures.merge(&side.puts.failures);
        others.note(&side.puts);
    }
    progress.stage("end");
    let stayed = members.leader().await? == leader;
    members.end()?;
    progress.clear();
    let goals = [goal(&sides)];
    if plan.json {
        println!("{:#}", json(plan, &sides, took, &goals, &failures, others));
    } else {
        println!(
            "{MEMBERS} members, one misses {} MiB, {} puts in flight, {} keys, values of {} bytes{}",
            whole(mib(plan.missed_bytes)),
            plan.in_flight,
            whole(plan.shape.keys as f64),
            plan.shape.value_bytes,
            warning(&plan.dir)
        );
        let rate = mib(plan.missed_bytes) / took.as_secs_f64();
        println!("caught up after {:.1} s, {} MiB/s", took.as_secs_f64(), short(rate));
        if !stayed {
            println!("WARNING: the leader changed: its memory is that of a follower");
        }
        print!("{others}{}", table(&sides));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && stayed && goals.iter().all(|goal| goal.met().is_some()))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Carries out a work, and tells the most anonymous memory that a process had meanwhile.
async fn beside<T>(pid: u32, work: impl Future<Output = T>) -> Result<(T, u64), String> {
    tokio::pin!(work);
    let mut most = 0;
    loop {
        most = most.max(process::memory(pid)?.anonymous);
        tokio::select! {
            done = &mut work => return Ok((done, most)),
            () = tokio::time::sleep(SAMPLE) => {}
        }
    }
}

/// How much more memory the leader had with a follower to bring up to date. Less than a page is told as a page: none
/// at all would look like no figure.
fn goal(sides: &[Side; 2]) -> Goal {
    let grown = sides[1].anonymous.saturating_sub(sides[0].anonymous).max(PAGE_BYTES);
    Goal { name: "catch-up.memory-mib".to_owned(), value: Some(mib(grown)), target: TARGET_MIB }
}

fn table(sides: &[Side; 2]) -> String {
    let mut table = Table::new(1, &["figure", "before", "during", "ratio"]);
    for (name, figure) in FIGURES {
        let [before, during] = [figure(&sides[0]), figure(&sides[1])];
        let ratio = before.zip(during).map(|(before, during)| during / before).filter(|r| r.is_finite());
        table.row(vec![name.to_owned(), or_dash(before), or_dash(during), or_dash(ratio)]);
    }
    table.to_string()
}

fn json(
    plan: &Plan,
    sides: &[Side; 2],
    took: Duration,
    goals: &[Goal],
    failures: &Failures,
    others: Others,
) -> Value {
    let side = |side: &Side| {
        json!({
            "puts_per_second": side.puts.per_second(),
            "p50_ms": side.quantile_ms(0.5),
            "p99_ms": side.quantile_ms(0.99),
            "longest_ms": side.quantile_ms(1.0),
            "leader_anonymous_mib": side.anonymous_mib(),
        })
    };
    json!({
        "server": plan.server.name,
        "members": MEMBERS,
        "missed_bytes": plan.missed_bytes,
        "in_flight": plan.in_flight,
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "pinned": plan.pinned,
        "caught_up_s": took.as_secs_f64(),
        "before": side(&sides[0]),
        "during": side(&sides[1]),
        "goals": goals_json(goals),
        "others_busy": others.most,
        "failed": failures.count,
        "failures": failures.reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use expect_test::expect;
    use std::collections::BTreeMap;

    fn side(puts_ms: &[u64], anonymous: u64) -> Side {
        let mut puts = Histogram::default();
        puts_ms.iter().for_each(|ms| puts.record(Duration::from_millis(*ms)));
        let puts = Measured {
            series: BTreeMap::from([(Operation::Put, puts)]),
            elapsed: Duration::from_secs(1),
            server_cpu: None,
            client_cpu: Duration::ZERO,
            failures: Failures::default(),
            unsent: 0,
            others: None,
        };
        Side { puts, anonymous }
    }

    #[test]
    fn the_leaders_memory_is_judged_by_what_it_had_more_than_before() {
        let said = |before, during| goal(&[side(&[1], before), side(&[1], during)]).to_string();
        expect!["catch-up.memory-mib 60.0 <=64 ok"].assert_eq(&said(100 << 20, 160 << 20));
        expect!["catch-up.memory-mib 65.0 <=64 miss"].assert_eq(&said(100 << 20, 165 << 20));
        expect!["catch-up.memory-mib 0.00391 <=64 ok"].assert_eq(&said(100 << 20, 90 << 20));
    }

    #[test]
    fn the_table_has_both_windows_and_their_ratio() {
        expect![[r#"
            figure                          before  during  ratio
            puts/s                            2.00    4.00   2.00
            p50 ms                            2.02    4.03   2.00
            p99 ms                            3.00    9.00   3.00
            longest ms                        3.00    9.00   3.00
            leader's anonymous memory, MiB     100     150   1.50
        "#]]
        .assert_eq(&table(&[side(&[2, 3], 100 << 20), side(&[4, 4, 4, 9], 150 << 20)]));
    }

    #[tokio::test]
    async fn memory_is_looked_at_while_a_work_goes_on() {
        let (done, most) = beside(std::process::id(), async { 7 }).await.expect("this process runs");
        assert!(done == 7 && most > 0);
        assert!(beside(u32::MAX, std::future::pending::<()>()).await.is_err(), "there is no such process");
    }
}
