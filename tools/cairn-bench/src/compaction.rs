// SPDX-License-Identifier: Apache-2.0
//! What writers notice of a compaction: the same puts with one beside them and without, in turn.
//!
//! Owns      the order of these measurements, their ratios and goals.
//! Holds     1. a window without and one with a compaction are equally long, and follow each other in each round;
//!           2. each compaction makes the same number of revisions unreadable, and is asked for once all of them are
//!              there;
//!           3. a compaction that is not done when its window ends is told, and its round still counts.
//! Never     compares servers: both sides are one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{CallError, Connection};
use crate::compare::{cpus, goals_json, warning};
use crate::histogram::Histogram;
use crate::load::{self, Failures, Load, Measured, Span};
use crate::progress::Progress;
use crate::reply;
use crate::request::{COMPACT_PATH, Operation, Shape, Template, compaction};
use crate::server::{Place, Server, Spec};
use crate::single::{Others, print_failures};
use crate::table::{Goal, Median, Table, Target, ms, short, whole};

/// At most so many times the figure without a compaction.
const TARGET: Target = Target::AtMost(1.5);

pub struct Plan {
    pub server: Spec,
    pub shape: Shape,
    /// Superseded by later puts when the compaction is asked for.
    pub revisions: u64,
    pub in_flight: usize,
    pub connections: usize,
    pub rounds: usize,
    pub warmup: Duration,
    pub length: Duration,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

/// One kind of window, over all rounds.
#[derive(Default)]
struct Side {
    puts: Histogram,
    per_second: Vec<f64>,
}

impl Side {
    fn add(&mut self, measured: &Measured) {
        measured.series.values().for_each(|series| self.puts.merge(series));
        self.per_second.push(measured.per_second());
    }

    fn per_second(&self) -> f64 {
        Median::of(&self.per_second).map_or(f64::NAN, |median| median.median)
    }
}

/// What of a side is shown, and judged if it has a name as a goal.
struct Row {
    name: &'static str,
    figure: fn(&Side) -> f64,
    goal: Option<&'static str>,
}

const ROWS: [Row; 5] = [
    Row { name: "puts/s", figure: Side::per_second, goal: None },
    Row { name: "p50 ms", figure: |side| ms(side.puts.quantile(0.5)), goal: None },
    Row { name: "p99 ms", figure: |side| ms(side.puts.quantile(0.99)), goal: Some("compaction.p99") },
    Row { name: "p99.9 ms", figure: |side| ms(side.puts.quantile(0.999)), goal: None },
    Row { name: "longest ms", figure: |side| ms(side.puts.max()), goal: Some("compaction.longest") },
];

/// Measures and prints; true if all requests were answered, each compaction was done in its window, and each goal
/// has a figure.
///
/// # Errors
/// The server cannot be started, reached or stopped, it stalls, or it refuses to compact.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let mut progress = Progress::new();
    let mut failures = Failures::default();
    let mut others = Others::default();
    let place = Place::new(&plan.dir)?;
    progress.stage("start");
    let mut server = Server::start(&plan.server, &place, cpus)?;
    server.ready().await?;
    let window = Load {
        endpoints: vec![place.endpoint()],
        connections: plan.connections,
        in_flight: plan.in_flight,
        mix: vec![(Operation::Put, 1)],
        shape: plan.shape,
        span: Span::Window { warmup: plan.warmup, length: plan.length },
        rate: None,
        pids: vec![server.pid()],
    };
    let mut sides = [Side::default(), Side::default()];
    let mut took = Vec::new();
    for round in 1..=plan.rounds {
        let stage = format!("round {round} of {}", plan.rounds);
        fill(plan, &window, &stage, &mut progress, &mut failures).await?;
        progress.stage(format!("{stage}, without: "));
        let without = load::run(&window, &mut progress).await?;
        progress.stage(format!("{stage}, with: "));
        let compaction = compact(plan, &place);
        let (with, compacted) = tokio::join!(load::run(&window, &mut progress), compaction);
        took.push(compacted?);
        for (side, measured) in sides.iter_mut().zip([without, with?]) {
            failures.merge(&measured.failures);
            others.note(&measured);
            side.add(&measured);
        }
    }
    progress.stage("stop");
    server.stop().await?;
    progress.clear();
    let goals = goals(&sides);
    let in_time = took.iter().all(|took| *took <= plan.length);
    if plan.json {
        println!("{:#}", json(plan, &sides, &took, &goals, &failures, others));
    } else {
        println!(
            "{} revisions superseded, {} puts in flight, {} keys, values of {} bytes, {} rounds of two windows of {} s{}",
            whole(plan.revisions as f64),
            plan.in_flight,
            whole(plan.shape.keys as f64),
            plan.shape.value_bytes,
            plan.rounds,
            plan.length.as_secs_f64(),
            warning(&plan.dir)
        );
        let longest = took.iter().max().copied().unwrap_or_default();
        println!("compaction: purged after {:.1} s at most", longest.as_secs_f64());
        if !in_time {
            println!("WARNING: a compaction went on after its window: give more --seconds");
        }
        print!("{others}{}", table(&sides));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && in_time && goals.iter().all(|goal| goal.met().is_some()))
}

/// Puts each key until as many revisions are superseded as a round wants.
async fn fill(
    plan: &Plan,
    window: &Load,
    stage: &str,
    progress: &mut Progress,
    failures: &mut Failures,
) -> Result<(), String> {
    let passes = plan.revisions.div_ceil(plan.shape.keys) + 1;
    for pass in 1..=passes {
        progress.stage(format!("{stage}, fill {pass} of {passes}: "));
        let each = Load { span: Span::EachKeyOnce, ..window.clone() };
        failures.merge(&load::run(&each, progress).await?.failures);
    }
    Ok(())
}

/// Asks for a compaction at the current revision once the window has begun. Answers how long the server took to
/// purge what it made unreadable.
async fn compact(plan: &Plan, place: &Place) -> Result<Duration, String> {
    tokio::time::sleep(plan.warmup).await;
    let connection = Connection::open(&place.endpoint()).await?;
    let said = |error: CallError| format!("compaction: {error}");
    let wrong = |wrong: reply::Wrong| format!("compaction: {}", wrong.0);
    let count = Template::new(Operation::Count, &plan.shape).frame(0);
    let body = connection.caller(Operation::Count.path()).call(count).await.map_err(said)?;
    let revision = reply::read_range(&body).map_err(wrong)?.revision;
    let begin = Instant::now();
    let body = connection.caller(COMPACT_PATH).call(compaction(revision)).await.map_err(said)?;
    // It has a header and nothing else, as the answer to a put without a pair.
    reply::check(Operation::Put, &body).map_err(wrong)?;
    Ok(begin.elapsed())
}

fn ratio(row: &Row, sides: &[Side; 2]) -> Option<f64> {
    let ratio = (row.figure)(&sides[1]) / (row.figure)(&sides[0]);
    ratio.is_finite().then_some(ratio)
}

fn goals(sides: &[Side; 2]) -> Vec<Goal> {
    let goal = |row: &Row| {
        let name = row.goal?.to_owned();
        Some(Goal { name, value: ratio(row, sides), target: TARGET })
    };
    ROWS.iter().filter_map(goal).collect()
}

fn table(sides: &[Side; 2]) -> String {
    let mut table = Table::new(1, &["figure", "without", "with", "ratio"]);
    for row in &ROWS {
        let cell = |side: &Side| short((row.figure)(side));
        let ratio = ratio(row, sides).map_or_else(|| "-".to_owned(), short);
        table.row(vec![row.name.to_owned(), cell(&sides[0]), cell(&sides[1]), ratio]);
    }
    table.to_string()
}

fn json(
    plan: &Plan,
    sides: &[Side; 2],
    took: &[Duration],
    goals: &[Goal],
    failures: &Failures,
    others: Others,
) -> Value {
    let side = |side: &Side| {
        json!({
            "puts_per_second": side.per_second(),
            "p50_ms": ms(side.puts.quantile(0.5)),
            "p99_ms": ms(side.puts.quantile(0.99)),
            "p999_ms": ms(side.puts.quantile(0.999)),
            "longest_ms": ms(side.puts.max()),
            "puts": side.puts.count(),
        })
    };
    json!({
        "server": plan.server.name,
        "revisions": plan.revisions,
        "in_flight": plan.in_flight,
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "rounds": plan.rounds,
        "seconds": plan.length.as_secs_f64(),
        "pinned": plan.pinned,
        "compaction_ms": took.iter().map(|took| ms(*took)).collect::<Vec<_>>(),
        "without": side(&sides[0]),
        "with": side(&sides[1]),
        "goals": goals_json(goals),
        "others_busy": others.most,
        "failed": failures.count,
        "failures": failures.reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn side(puts_ms: &[u64]) -> Side {
        let mut side = Side { per_second: vec![puts_ms.len() as f64], ..Side::default() };
        puts_ms.iter().for_each(|ms| side.puts.record(Duration::from_millis(*ms)));
        side
    }

    #[test]
    fn what_a_compaction_adds_is_judged_by_p99_and_the_longest() {
        let without: Vec<u64> = (1..=1000).map(|n| n / 100).collect();
        let with: Vec<u64> = (1..=1000).map(|n| if n == 1000 { 40 } else { n / 80 }).collect();
        let sides = [side(&without), side(&with)];
        let lines: Vec<String> = goals(&sides).iter().map(ToString::to_string).collect();
        expect![[r#"
            compaction.p99 1.33 <=1.5 ok
            compaction.longest 4.00 <=1.5 miss"#]]
        .assert_eq(&lines.join("\n"));
        expect![[r#"
            figure      without   with  ratio
            puts/s        1,000  1,000   1.00
            p50 ms         5.05   6.03   1.19
            p99 ms         9.04   12.1   1.33
            p99.9 ms       9.04   12.1   1.33
            longest ms     10.0   40.0   4.00
        "#]]
        .assert_eq(&table(&sides));
        let none = [Side::default(), Side::default()];
        assert!(goals(&none).iter().all(|goal| goal.met().is_none()));
    }
}
