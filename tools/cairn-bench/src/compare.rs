// SPDX-License-Identifier: Apache-2.0
//! Two servers, measured in turn, cell by cell.
//!
//! Owns      the order of a comparison, its medians, ratios and goals.
//! Holds     1. one server runs at a time, each round from an empty directory, so neither meets what the other
//!              or an earlier round left behind;
//!           2. reads come before writes in a round, so both servers read the same data;
//!           3. a figure that cannot be had is shown as `-` or `unknown`, never as a number.
//! Never     sets a goal for a workload that the project has none for.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::statfs;
use serde_json::{Value, json};

use crate::load::{self, Failures, Load, Span};
use crate::process;
use crate::progress::Progress;
use crate::request::{Operation, Shape};
use crate::round::{FIGURES, Figure, PER_SECOND, Round, Rounds, SERVER_US};
use crate::server::{Cpus, Place, Server, Spec};
use crate::single::{Others, print_failures};
use crate::table::{Goal, Table, Target, or_dash};

pub struct Plan {
    pub sides: [Spec; 2],
    pub rounds: usize,
    pub in_flight: Vec<usize>,
    pub connections: usize,
    pub shape: Shape,
    pub warmup: Duration,
    pub length: Duration,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

const WORKLOADS: [Operation; 4] =
    [Operation::Get, Operation::GetSerializable, Operation::Put, Operation::Txn];

/// For each workload with a goal: the figure and the target of right to left.
const GOALS: [(Operation, &str, Target); 3] = [
    (Operation::Put, "throughput", Target::AtLeast(2.0)),
    (Operation::Put, "cpu", Target::AtMost(0.5)),
    (Operation::Get, "cpu", Target::AtMost(0.7)),
];

/// One workload at one number of requests in flight: the rounds of either side.
struct Cell {
    operation: Operation,
    in_flight: usize,
    rounds: [Rounds; 2],
}

impl Cell {
    /// The right side's median to the left's.
    fn ratio(&self, figure: Figure) -> Option<f64> {
        self.rounds[1].ratio_to(&self.rounds[0], figure)
    }
}

/// Measures both servers and prints; true if all requests were answered and each goal has a figure.
///
/// # Errors
/// A server cannot be started, reached or stopped, or it stalls.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let mut progress = Progress::new();
    let mut cells: Vec<Cell> = WORKLOADS
        .iter()
        .flat_map(|&operation| {
            plan.in_flight.iter().map(move |&in_flight| Cell {
                operation,
                in_flight,
                rounds: Default::default(),
            })
        })
        .collect();
    let mut failures = Failures::default();
    let mut others = Others::default();
    for round in 0..plan.rounds {
        for (side, spec) in plan.sides.iter().enumerate() {
            let stage = format!("round {} of {}, {}", round + 1, plan.rounds, spec.name);
            progress.stage(format!("{stage}, start"));
            let place = Place::new(&plan.dir)?;
            let mut server = Server::start(spec, &place, cpus)?;
            server.ready().await?;
            let base = Load {
                endpoints: vec![place.endpoint()],
                connections: plan.connections,
                in_flight: plan.in_flight.iter().copied().max().unwrap_or(1),
                mix: vec![(Operation::Put, 1)],
                shape: plan.shape,
                span: Span::EachKeyOnce,
                rate: None,
                pids: vec![server.pid()],
            };
            progress.stage(format!("{stage}, load: "));
            failures.merge(&load::run(&base, &mut progress).await?.failures);
            for cell in &mut cells {
                progress.stage(format!("{stage}, {} {} in flight: ", cell.operation.name(), cell.in_flight));
                let load = Load {
                    in_flight: cell.in_flight,
                    mix: vec![(cell.operation, 1)],
                    span: Span::Window { warmup: plan.warmup, length: plan.length },
                    ..base.clone()
                };
                let measured = load::run(&load, &mut progress).await?;
                failures.merge(&measured.failures);
                others.note(&measured);
                cell.rounds[side].push(Round::of(cell.operation, &measured));
            }
            progress.stage(format!("{stage}, stop"));
            server.stop().await?;
        }
    }
    progress.clear();
    let goals = goals(&cells);
    if plan.json {
        println!("{:#}", json(plan, &cells, &goals, &failures, others));
    } else {
        println!("{}", setting(plan, cpus));
        print!("{others}");
        print!("{}", table(plan, &cells));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && goals.iter().all(|goal| goal.met().is_some()))
}

/// Where server and client run.
///
/// # Errors
/// `--pinned` on a machine with one CPU.
pub fn cpus(pinned: bool) -> Result<Cpus, String> {
    if !pinned {
        return Ok(Cpus::Shared);
    }
    let (server, client) = process::two_cpus()?;
    process::pin(client)?;
    Ok(Cpus::Pinned { server, client })
}

fn goals(cells: &[Cell]) -> Vec<Goal> {
    let of_cell = |cell: &Cell| {
        let wanted = GOALS.iter().filter(|(operation, ..)| *operation == cell.operation);
        wanted
            .map(|(operation, what, target)| Goal {
                name: format!("{}.{}.{what}", operation.name(), cell.in_flight),
                value: cell.ratio(if *what == "cpu" { SERVER_US } else { PER_SECOND }),
                target: *target,
            })
            .collect::<Vec<_>>()
    };
    cells.iter().flat_map(of_cell).collect()
}

/// What the figures were measured on.
fn setting(plan: &Plan, cpus: Cpus) -> String {
    format!(
        "rounds: {}, {} s a workload each, {} keys of {} bytes, values of {} bytes, {} connections; {cpus}{}",
        plan.rounds,
        plan.length.as_secs_f64(),
        plan.shape.keys,
        plan.shape.key_bytes,
        plan.shape.value_bytes,
        plan.connections,
        warning(&plan.dir)
    )
}

/// On a file system in memory a sync costs nothing, and no put can be judged.
pub fn warning(dir: &std::path::Path) -> &'static str {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    match statfs(dir) {
        Ok(stat) if stat.f_type == TMPFS_MAGIC => {
            "\nWARNING: the data lies in memory (tmpfs), where a sync is free; give --dir on a disk"
        }
        _ => "",
    }
}

fn table(plan: &Plan, cells: &[Cell]) -> String {
    let head = [
        "workload",
        "server",
        "in flight",
        "req/s",
        "p50 ms",
        "p99 ms",
        "server µs",
        "client µs",
        "client %",
    ];
    let mut table = Table::new(2, &head);
    for cell in cells {
        for (side, spec) in plan.sides.iter().enumerate() {
            let mut row =
                vec![cell.operation.name().to_owned(), spec.name.clone(), cell.in_flight.to_string()];
            row.extend(cell.rounds[side].cells());
            table.row(row);
        }
        let mut row = vec![String::new(), "ratio".to_owned(), String::new()];
        row.extend(FIGURES.map(|(_, figure)| or_dash(cell.ratio(figure))));
        table.row(row);
    }
    table.to_string()
}

fn json(plan: &Plan, cells: &[Cell], goals: &[Goal], failures: &Failures, others: Others) -> Value {
    let cell = |cell: &Cell| {
        let ratios = FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), json!(cell.ratio(*figure))));
        json!({
            "workload": cell.operation.name(),
            "in_flight": cell.in_flight,
            "left": cell.rounds[0].json(),
            "right": cell.rounds[1].json(),
            "ratio": ratios.collect::<serde_json::Map<_, _>>(),
        })
    };
    json!({
        "left": plan.sides[0].name,
        "right": plan.sides[1].name,
        "rounds": plan.rounds,
        "seconds": plan.length.as_secs_f64(),
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "connections": plan.connections,
        "pinned": plan.pinned,
        "cells": cells.iter().map(cell).collect::<Vec<_>>(),
        "goals": goals_json(goals),
        "others_busy": others.most,
        "failed": failures.count,
        "failures": failures.reasons,
    })
}

pub fn goals_json(goals: &[Goal]) -> Vec<Value> {
    let goal = |goal: &Goal| {
        json!({
            "name": goal.name,
            "value": goal.value,
            "target": goal.target(),
            "verdict": goal.verdict(),
        })
    };
    goals.iter().map(goal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn round(per_second: f64, server_us: Option<f64>, client_busy: f64) -> Round {
        Round {
            per_second,
            p50_ms: Some(1.5),
            p99_ms: Some(4.0),
            server_us,
            client_us: Some(9.0),
            client_busy,
        }
    }

    fn cells(right_us: Option<f64>) -> Vec<Cell> {
        let rounds =
            |rates: [f64; 3], us, busy| Rounds::from(Vec::from(rates.map(|rate| round(rate, us, busy))));
        let left = || rounds([10_000.0, 11_000.0, 9_500.0], Some(60.0), 0.3);
        let right = || rounds([25_000.0, 24_000.0, 26_000.0], right_us, 0.95);
        let cell = |operation| Cell { operation, in_flight: 64, rounds: [left(), right()] };
        WORKLOADS.map(cell).into()
    }

    fn plan() -> Plan {
        let spec = |name: &str| Spec::parse(name).expect("it is one word");
        Plan {
            sides: [spec("etcd"), spec("cairn")],
            rounds: 3,
            in_flight: vec![64],
            connections: 8,
            shape: Shape { keys: 1000, key_bytes: 32, value_bytes: 256, limit: 0 },
            warmup: Duration::ZERO,
            length: Duration::from_secs(5),
            pinned: false,
            dir: PathBuf::from("/nonexistent"),
            json: false,
        }
    }

    #[test]
    fn the_table_has_both_sides_and_their_ratio() {
        expect![[r#"
            workload          server  in flight        req/s  p50 ms  p99 ms  server µs  client µs  client %
            get               etcd           64  10,000 ±10%    1.50    4.00       60.0       9.00      30.0
            get               cairn          64   25,000 ±4%    1.50    4.00       20.0       9.00      95.0
                              ratio                     2.50    1.00    1.00      0.333       1.00      3.17
            get-serializable  etcd           64  10,000 ±10%    1.50    4.00       60.0       9.00      30.0
            get-serializable  cairn          64   25,000 ±4%    1.50    4.00       20.0       9.00      95.0
                              ratio                     2.50    1.00    1.00      0.333       1.00      3.17
        "#]]
        .assert_eq(&table(&plan(), &cells(Some(20.0))[..2]));
    }

    #[test]
    fn goals_are_judged_by_the_ratio_of_medians() {
        let lines = |us| goals(&cells(us)).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        expect![[r#"
            get.64.cpu 0.667 <=0.7 ok
            put.64.throughput 2.50 >=2 ok
            put.64.cpu 0.667 <=0.5 miss"#]]
        .assert_eq(&lines(Some(40.0)));
        expect![[r#"
            get.64.cpu unknown <=0.7 miss
            put.64.throughput 2.50 >=2 ok
            put.64.cpu unknown <=0.5 miss"#]]
        .assert_eq(&lines(None));
    }

    #[test]
    fn json_holds_every_round() {
        let cells = cells(Some(20.0));
        let value = json(&plan(), &cells, &goals(&cells), &Failures::default(), Others::default());
        assert_eq!(
            value["cells"][0]["left"]["requests_per_second"]["rounds"].as_array().map(Vec::len),
            Some(3)
        );
        assert_eq!(value["cells"][2]["ratio"]["requests_per_second"], 2.5);
        assert_eq!(value["goals"][1]["verdict"], "ok");
    }
}
