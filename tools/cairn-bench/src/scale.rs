// SPDX-License-Identifier: Apache-2.0
//! Many keys in two servers, in turn: what they cost at rest, and how fast they come back.
//!
//! Owns      the order of these measurements, their ratios and goals.
//! Holds     1. memory is read before anything but the load has run;
//!           2. after each kill all loaded keys are counted: a restart that lost some is a failure.
//! Never     has both servers running.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Connection;
use crate::compare::{cpus, goals_json, warning};
use crate::load::{self, Failures, Load, Span};
use crate::process;
use crate::progress::Progress;
use crate::reply;
use crate::request::{Operation, Shape, Template};
use crate::server::{Cpus, Place, Server, Spec};
use crate::single::{Others, print_failures};
use crate::table::{Goal, Median, Table, Target, ms, short};

/// Pairs in a page.
pub const PAGE_PAIRS: i64 = 500;
/// Requests in flight while the keys are loaded.
const LOAD_IN_FLIGHT: usize = 256;
/// A median is of so many answers at least; for a slow server the time is doubled, up to so many times of it.
const ANSWERS_MIN: u64 = 5;
const LENGTHS_MAX: u32 = 16;
/// The load under which a server is killed.
const LIGHT_RATE: f64 = 500.0;
const LIGHT_LENGTH: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(200);

pub struct Plan {
    pub sides: [Spec; 2],
    pub shape: Shape,
    pub idle: Duration,
    pub restarts: usize,
    pub length: Duration,
    pub connections: usize,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

/// What was measured of one server.
struct Figures {
    load_per_second: f64,
    anonymous_mib: f64,
    resident_mib: f64,
    file_mib: f64,
    count_ms: f64,
    page_ms: f64,
    restart_ms: Median,
}

/// A figure, its name, and the goal for its ratio of right to left.
struct Row {
    name: &'static str,
    figure: fn(&Figures) -> f64,
    goal: Option<(&'static str, Target)>,
}

const ROWS: [Row; 7] = [
    Row { name: "load, puts/s", figure: |f| f.load_per_second, goal: None },
    Row {
        name: "anonymous memory, MiB",
        figure: |f| f.anonymous_mib,
        goal: Some(("memory", Target::AtMost(0.25))),
    },
    Row { name: "resident memory, MiB", figure: |f| f.resident_mib, goal: None },
    Row { name: "data file, MiB", figure: |f| f.file_mib, goal: Some(("file", Target::AtMost(1.4))) },
    Row {
        name: "count of all keys, p50 ms",
        figure: |f| f.count_ms,
        goal: Some(("count", Target::AtMost(0.01))),
    },
    Row {
        name: "page of 500 keys, p50 ms",
        figure: |f| f.page_ms,
        goal: Some(("page", Target::AtMost(0.1))),
    },
    Row {
        name: "restart after kill -9, ms",
        figure: |f| f.restart_ms.median,
        goal: Some(("restart", Target::AtMost(0.1))),
    },
];

/// Measures both servers and prints; true if all requests were answered and each goal has a figure.
///
/// # Errors
/// A server cannot be started, reached or stopped, it stalls, or it lost keys.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let mut progress = Progress::new();
    let mut failures = Failures::default();
    let mut others = Others::default();
    let [left, right] = &plan.sides;
    let sides = [
        measure(plan, left, cpus, &mut progress, &mut failures, &mut others).await?,
        measure(plan, right, cpus, &mut progress, &mut failures, &mut others).await?,
    ];
    progress.clear();
    let goals = goals(&sides);
    if plan.json {
        println!("{:#}", json(plan, &sides, &goals, &failures, others));
    } else {
        println!(
            "{} keys of {} bytes, values of {} bytes, memory after {} s idle, {} restarts{}",
            plan.shape.keys,
            plan.shape.key_bytes,
            plan.shape.value_bytes,
            plan.idle.as_secs_f64(),
            plan.restarts,
            warning(&plan.dir)
        );
        print!("{others}{}", table(plan, &sides));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && goals.iter().all(|goal| goal.met().is_some()))
}

async fn measure(
    plan: &Plan,
    spec: &Spec,
    cpus: Cpus,
    progress: &mut Progress,
    failures: &mut Failures,
    others: &mut Others,
) -> Result<Figures, String> {
    let name = &spec.name;
    progress.stage(format!("{name}, start"));
    let place = Place::new(&plan.dir)?;
    let mut server = Server::start(spec, &place, cpus)?;
    server.ready().await?;
    let load = Load {
        endpoints: vec![place.endpoint()],
        connections: plan.connections,
        in_flight: LOAD_IN_FLIGHT,
        mix: vec![(Operation::Put, 1)],
        shape: plan.shape,
        span: Span::EachKeyOnce,
        rate: None,
        pids: vec![server.pid()],
    };
    progress.stage(format!("{name}, load: "));
    let loaded = load::run(&load, progress).await?;
    failures.merge(&loaded.failures);
    others.note(&loaded);

    progress.stage(format!("{name}, idle: "));
    idle(plan.idle, progress).await;
    let memory = process::memory(server.pid())?;
    let file_bytes = place.data_file_bytes()?;

    let mut alone = async |operation: Operation| {
        progress.stage(format!("{name}, {}: ", operation.name()));
        let mut length = plan.length;
        loop {
            let load = Load {
                in_flight: 1,
                mix: vec![(operation, 1)],
                span: Span::Window { warmup: plan.length / 5, length },
                ..load.clone()
            };
            let measured = load::run(&load, progress).await?;
            failures.merge(&measured.failures);
            others.note(&measured);
            let series = measured.series.get(&operation).filter(|series| series.count() >= ANSWERS_MIN);
            if let Some(series) = series {
                return Ok::<f64, String>(ms(series.quantile(0.5)));
            }
            length *= 2;
            if length > plan.length * LENGTHS_MAX {
                return Ok(f64::NAN);
            }
        }
    };
    let count_ms = alone(Operation::Count).await?;
    let page_ms = alone(Operation::Range).await?;

    let mut restarts = Vec::new();
    for restart in 1..=plan.restarts {
        progress.stage(format!("{name}, restart {restart} of {}: ", plan.restarts));
        kill_under_load(server, &load, progress).await?;
        server = Server::start(spec, &place, cpus)?;
        restarts.push(ms(server.ready().await?));
        let count = count(&place, &plan.shape).await?;
        if count != plan.shape.keys {
            return Err(format!("{name} holds {count} of {} keys after kill -9", plan.shape.keys));
        }
    }
    progress.stage(format!("{name}, stop"));
    server.stop().await?;
    Ok(Figures {
        load_per_second: loaded.per_second(),
        anonymous_mib: mib(memory.anonymous),
        resident_mib: mib(memory.resident),
        file_mib: mib(file_bytes),
        count_ms,
        page_ms,
        restart_ms: Median::of(&restarts).expect("there is at least one restart"),
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn idle(length: Duration, progress: &mut Progress) {
    let begin = Instant::now();
    while begin.elapsed() < length {
        progress.note(&format!("{} of {} s", begin.elapsed().as_secs(), length.as_secs()));
        tokio::time::sleep(TICK.min(length - begin.elapsed().min(length))).await;
    }
}

/// Kills the server while puts are under way. What they get for an answer does not matter.
async fn kill_under_load(server: Server, load: &Load, progress: &mut Progress) -> Result<(), String> {
    let light = Load {
        in_flight: 16,
        span: Span::Window { warmup: Duration::ZERO, length: LIGHT_LENGTH * 2 },
        rate: Some(LIGHT_RATE),
        pids: Vec::new(),
        ..load.clone()
    };
    let kill = async {
        tokio::time::sleep(LIGHT_LENGTH).await;
        server.kill()
    };
    let (lost, killed) = tokio::join!(load::run(&light, progress), kill);
    killed?;
    let lost = lost?;
    if lost.answered() == 0 || lost.failures.count == 0 {
        return Err("the server was not killed under load".to_owned());
    }
    Ok(())
}

/// How many keys a server holds.
async fn count(place: &Place, shape: &Shape) -> Result<u64, String> {
    let connection = Connection::open(&place.endpoint()).await?;
    let frame = Template::new(Operation::Count, shape).frame(0);
    let answer = connection.caller(Operation::Count.path()).call(frame).await;
    let body = answer.map_err(|e| format!("count after a restart: {e}"))?;
    reply::read_range(&body).map(|answer| answer.count).map_err(|e| format!("count after a restart: {}", e.0))
}

fn ratio(row: &Row, sides: &[Figures; 2]) -> Option<f64> {
    let ratio = (row.figure)(&sides[1]) / (row.figure)(&sides[0]);
    ratio.is_finite().then_some(ratio)
}

fn goals(sides: &[Figures; 2]) -> Vec<Goal> {
    let goal = |row: &Row| {
        let (name, target) = row.goal?;
        Some(Goal { name: name.to_owned(), value: ratio(row, sides), target })
    };
    ROWS.iter().filter_map(goal).collect()
}

fn table(plan: &Plan, sides: &[Figures; 2]) -> String {
    let [left, right] = &plan.sides;
    let mut table = Table::new(1, &["figure", &left.name, &right.name, "ratio"]);
    for row in &ROWS {
        let cell = |side: &Figures| short((row.figure)(side));
        let ratio = ratio(row, sides).map_or_else(|| "-".to_owned(), short);
        table.row(vec![row.name.to_owned(), cell(&sides[0]), cell(&sides[1]), ratio]);
    }
    table.to_string()
}

fn json(plan: &Plan, sides: &[Figures; 2], goals: &[Goal], failures: &Failures, others: Others) -> Value {
    let side = |spec: &Spec, f: &Figures| {
        json!({
            "server": spec.name,
            "load_per_second": f.load_per_second,
            "anonymous_mib": f.anonymous_mib,
            "resident_mib": f.resident_mib,
            "file_mib": f.file_mib,
            "count_p50_ms": f.count_ms,
            "page_p50_ms": f.page_ms,
            "restart_ms": { "median": f.restart_ms.median, "min": f.restart_ms.min, "max": f.restart_ms.max },
        })
    };
    json!({
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "idle_s": plan.idle.as_secs_f64(),
        "restarts": plan.restarts,
        "pinned": plan.pinned,
        "left": side(&plan.sides[0], &sides[0]),
        "right": side(&plan.sides[1], &sides[1]),
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

    fn figures(factor: f64) -> Figures {
        Figures {
            load_per_second: 15_000.0 / factor,
            anonymous_mib: 400.0 * factor,
            resident_mib: 900.0 * factor,
            file_mib: 250.0 * factor,
            count_ms: 120.0 * factor,
            page_ms: 100.0 * factor,
            restart_ms: Median { median: 2500.0 * factor, min: 1.0, max: 3000.0 },
        }
    }

    #[test]
    fn each_goal_is_judged_by_its_ratio() {
        let lines = |factor| {
            let sides = [figures(1.0), figures(factor)];
            goals(&sides).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        expect![[r#"
            memory 0.100 <=0.25 ok
            file 0.100 <=1.4 ok
            count 0.100 <=0.01 miss
            page 0.100 <=0.1 ok
            restart 0.100 <=0.1 ok"#]]
        .assert_eq(&lines(0.1));
        let unknown = goals(&[figures(f64::NAN), figures(1.0)]);
        assert!(unknown.iter().all(|goal| goal.met().is_none() && goal.verdict() == "miss"));
    }

    #[test]
    fn the_table_has_both_servers_and_their_ratio() {
        let spec = |name: &str| Spec::parse(name).expect("it is one word");
        let plan = Plan {
            sides: [spec("etcd"), spec("cairn")],
            shape: Shape { keys: 1, key_bytes: 64, value_bytes: 64, limit: PAGE_PAIRS },
            idle: Duration::ZERO,
            restarts: 3,
            length: Duration::ZERO,
            connections: 8,
            pinned: false,
            dir: PathBuf::new(),
            json: false,
        };
        expect![[r#"
            figure                       etcd   cairn  ratio
            load, puts/s               15,000  60,000   4.00
            anonymous memory, MiB         400     100  0.250
            resident memory, MiB          900     225  0.250
            data file, MiB                250    62.5  0.250
            count of all keys, p50 ms     120    30.0  0.250
            page of 500 keys, p50 ms      100    25.0  0.250
            restart after kill -9, ms   2,500     625  0.250
        "#]]
        .assert_eq(&table(&plan, &[figures(1.0), figures(0.25)]));
    }
}
