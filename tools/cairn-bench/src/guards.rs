// SPDX-License-Identifier: Apache-2.0
//! What a server loses by keeping strangers out: puts and lists plain, under TLS and with authentication, on two
//! servers in turn.
//!
//! Owns      the order of these measurements, what is lost against a server's own plain figures, and the goals.
//! Holds     1. one server runs at a time, each window from an empty directory;
//!           2. in each round every server meets every guard, so that what changes on the machine meets all alike;
//!           3. a server is compared with itself alone: the other shows what is usual.
//! Never     sets a goal for the left server.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::access::{self, Certificate};
use crate::compare::{cpus, goals_json, warning};
use crate::load::{self, Failures, Load, Span};
use crate::progress::Progress;
use crate::request::{Operation, Shape};
use crate::round::{PER_SECOND, Round, Rounds, SERVER_US};
use crate::server::{Cpus, Place, Server, Spec};
use crate::single::{Others, print_failures};
use crate::table::{Goal, Table, Target};

/// A loss of at most 15 %.
const TARGET: Target = Target::AtLeast(0.85);

pub struct Plan {
    pub sides: [Spec; 2],
    pub rounds: usize,
    pub in_flight: usize,
    pub connections: usize,
    /// Of puts. A list has the first [`Plan::pairs`] of its keys.
    pub shape: Shape,
    pub pairs: u64,
    pub warmup: Duration,
    pub length: Duration,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guard {
    Plain,
    Tls,
    Auth,
}

impl Guard {
    fn name(self) -> &'static str {
        match self {
            Guard::Plain => "plain",
            Guard::Tls => "tls",
            Guard::Auth => "auth",
        }
    }
}

const GUARDS: [Guard; 3] = [Guard::Plain, Guard::Tls, Guard::Auth];
/// Lists come first: the puts add keys.
const WORKLOADS: [Operation; 2] = [Operation::List, Operation::Put];

/// One workload on one server: its rounds behind each guard, as [`GUARDS`] has them.
struct Cell {
    operation: Operation,
    side: usize,
    rounds: [Rounds; 3],
}

impl Cell {
    /// What is kept behind a guard: of the requests a second, and of those that one CPU could answer.
    fn kept(&self, guard: usize) -> [(&'static str, Option<f64>); 2] {
        let [plain, guarded] = [&self.rounds[0], &self.rounds[guard]];
        [("throughput", guarded.ratio_to(plain, PER_SECOND)), ("cpu", plain.ratio_to(guarded, SERVER_US))]
    }
}

/// Measures both servers and prints; true if all requests were answered and each goal has a figure.
///
/// # Errors
/// A server cannot be started, reached or stopped, it stalls, or it refuses to make users.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let certificate = Certificate::new()?;
    let cell = |operation| [0, 1].map(|side| Cell { operation, side, rounds: Default::default() });
    let mut cells: Vec<Cell> = WORKLOADS.into_iter().flat_map(cell).collect();
    let mut tally =
        Tally { progress: Progress::new(), failures: Failures::default(), others: Others::default() };
    for round in 1..=plan.rounds {
        for (side, spec) in plan.sides.iter().enumerate() {
            for (at, guard) in GUARDS.into_iter().enumerate() {
                let stage = format!("round {round} of {}, {} {}", plan.rounds, spec.name, guard.name());
                let windows = measure(plan, spec, guard, &certificate, cpus, &stage, &mut tally).await?;
                for (operation, round) in windows {
                    let cell = cells.iter_mut().find(|cell| (cell.operation, cell.side) == (operation, side));
                    cell.expect("each workload has a cell for each side").rounds[at].push(round);
                }
            }
        }
    }
    let Tally { mut progress, failures, others } = tally;
    progress.clear();
    let goals = goals(&cells);
    if plan.json {
        println!("{:#}", json(plan, &cells, &goals, &failures, others));
    } else {
        println!(
            "rounds: {}, {} s a window, {} in flight over {} connections, lists of {} pairs, {} keys of {} bytes, \
             values of {} bytes; {cpus}{}",
            plan.rounds,
            plan.length.as_secs_f64(),
            plan.in_flight,
            plan.connections,
            plan.pairs,
            plan.shape.keys,
            plan.shape.key_bytes,
            plan.shape.value_bytes,
            warning(&plan.dir)
        );
        print!("{others}{}", table(plan, &cells));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && goals.iter().all(|goal| goal.met().is_some()))
}

/// What is noted along the way.
struct Tally {
    progress: Progress,
    failures: Failures,
    others: Others,
}

impl Tally {
    async fn load(&mut self, stage: String, load: &Load) -> Result<load::Measured, String> {
        self.progress.stage(stage);
        let measured = load::run(load, &mut self.progress).await?;
        self.failures.merge(&measured.failures);
        self.others.note(&measured);
        Ok(measured)
    }
}

/// One server behind one guard, from its start to its end: a round of each workload.
async fn measure(
    plan: &Plan,
    spec: &Spec,
    guard: Guard,
    certificate: &Certificate,
    cpus: Cpus,
    stage: &str,
    tally: &mut Tally,
) -> Result<Vec<(Operation, Round)>, String> {
    tally.progress.stage(format!("{stage}, start"));
    let mut place = Place::new(&plan.dir)?;
    if guard == Guard::Tls {
        place.secure(certificate)?;
    }
    let mut server = Server::start(spec, &place, cpus)?;
    server.ready().await?;
    let endpoint = match guard {
        Guard::Plain | Guard::Tls => place.endpoint(),
        Guard::Auth => access::log_in(place.endpoint()).await?,
    };
    let mut windows = Vec::new();
    for operation in WORKLOADS {
        let keys = if operation == Operation::List { plan.pairs } else { plan.shape.keys };
        let each = Load {
            endpoints: vec![endpoint.clone()],
            connections: plan.connections,
            in_flight: plan.in_flight,
            mix: vec![(Operation::Put, 1)],
            shape: Shape { keys, ..plan.shape },
            span: Span::EachKeyOnce,
            rate: None,
            pids: vec![server.pid()],
        };
        tally.load(format!("{stage}, load: "), &each).await?;
        let window = Load {
            mix: vec![(operation, 1)],
            span: Span::Window { warmup: plan.warmup, length: plan.length },
            ..each
        };
        let measured = tally.load(format!("{stage}, {}: ", operation.name()), &window).await?;
        windows.push((operation, Round::of(operation, &measured)));
    }
    tally.progress.stage(format!("{stage}, stop"));
    server.stop().await?;
    Ok(windows)
}

/// Of the right server alone.
fn goals(cells: &[Cell]) -> Vec<Goal> {
    let judged = cells.iter().filter(|cell| cell.side == 1);
    let of_cell = |cell: &Cell| {
        let guarded = GUARDS.into_iter().enumerate().skip(1);
        let goals = guarded.flat_map(|(at, guard)| {
            cell.kept(at).map(|(what, value)| Goal {
                name: format!("{}.{}.{what}", cell.operation.name(), guard.name()),
                value,
                target: TARGET,
            })
        });
        goals.collect::<Vec<_>>()
    };
    judged.flat_map(of_cell).collect()
}

fn table(plan: &Plan, cells: &[Cell]) -> String {
    let head = [
        "workload",
        "server",
        "guard",
        "req/s",
        "p50 ms",
        "p99 ms",
        "server µs",
        "client µs",
        "client %",
        "loss %",
        "CPU loss %",
    ];
    let mut table = Table::new(3, &head);
    for cell in cells {
        for (at, guard) in GUARDS.into_iter().enumerate() {
            let names = [cell.operation.name(), &plan.sides[cell.side].name, guard.name()];
            let mut row: Vec<String> = names.map(str::to_owned).into();
            row.extend(cell.rounds[at].cells());
            row.extend(cell.kept(at).map(|(_, kept)| match kept {
                Some(kept) if at > 0 => format!("{:.1}", (1.0 - kept) * 100.0),
                _ => "-".to_owned(),
            }));
            table.row(row);
        }
    }
    table.to_string()
}

fn json(plan: &Plan, cells: &[Cell], goals: &[Goal], failures: &Failures, others: Others) -> Value {
    let cell = |cell: &Cell| {
        let guards = GUARDS.into_iter().enumerate().map(|(at, guard)| {
            let kept = cell.kept(at).map(|(what, kept)| (what.to_owned(), json!(kept)));
            let value = json!({ "rounds": cell.rounds[at].json(), "kept": Map::from_iter(kept) });
            (guard.name().to_owned(), value)
        });
        json!({
            "workload": cell.operation.name(),
            "server": plan.sides[cell.side].name,
            "guards": guards.collect::<Map<_, _>>(),
        })
    };
    json!({
        "left": plan.sides[0].name,
        "right": plan.sides[1].name,
        "rounds": plan.rounds,
        "seconds": plan.length.as_secs_f64(),
        "in_flight": plan.in_flight,
        "connections": plan.connections,
        "pairs": plan.pairs,
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "pinned": plan.pinned,
        "cells": cells.iter().map(cell).collect::<Vec<_>>(),
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

    fn cells() -> Vec<Cell> {
        let rounds = |per_second, server_us| {
            Rounds::from(vec![Round {
                per_second,
                p50_ms: Some(1.5),
                p99_ms: Some(4.0),
                server_us,
                client_us: Some(9.0),
                client_busy: 0.5,
            }])
        };
        let cell = |side, plain, tls, tls_us| Cell {
            operation: Operation::Put,
            side,
            rounds: [rounds(plain, Some(20.0)), rounds(tls, tls_us), rounds(plain, Some(19.0))],
        };
        vec![cell(0, 10_000.0, 4_000.0, Some(60.0)), cell(1, 20_000.0, 18_000.0, Some(25.0))]
    }

    #[test]
    fn the_right_server_is_judged_by_what_it_keeps_of_its_own_plain_figures() {
        let lines: Vec<String> = goals(&cells()).iter().map(ToString::to_string).collect();
        expect![[r#"
            put.tls.throughput 0.900 >=0.85 ok
            put.tls.cpu 0.800 >=0.85 miss
            put.auth.throughput 1.00 >=0.85 ok
            put.auth.cpu 1.05 >=0.85 ok"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn the_table_shows_what_each_server_loses_behind_each_guard() {
        let spec = |name: &str| Spec::parse(name).expect("it is one word");
        let plan = Plan {
            sides: [spec("etcd"), spec("cairn")],
            rounds: 1,
            in_flight: 64,
            connections: 8,
            shape: Shape { keys: 1000, key_bytes: 32, value_bytes: 256, limit: 0 },
            pairs: 500,
            warmup: Duration::ZERO,
            length: Duration::from_secs(5),
            pinned: false,
            dir: PathBuf::from("/nonexistent"),
            json: false,
        };
        expect![[r#"
            workload  server  guard   req/s  p50 ms  p99 ms  server µs  client µs  client %  loss %  CPU loss %
            put       etcd    plain  10,000    1.50    4.00       20.0       9.00      50.0       -           -
            put       etcd    tls     4,000    1.50    4.00       60.0       9.00      50.0    60.0        66.7
            put       etcd    auth   10,000    1.50    4.00       19.0       9.00      50.0     0.0        -5.3
            put       cairn   plain  20,000    1.50    4.00       20.0       9.00      50.0       -           -
            put       cairn   tls    18,000    1.50    4.00       25.0       9.00      50.0    10.0        20.0
            put       cairn   auth   20,000    1.50    4.00       19.0       9.00      50.0     0.0        -5.3
        "#]]
        .assert_eq(&table(&plan, &cells()));
    }
}
