// SPDX-License-Identifier: Apache-2.0
//! Three members of each server on loopback, in turn: what a replicated put costs, and how long nobody can write
//! when the leader dies or hangs.
//!
//! Owns      the order of these measurements, their ratios and goals.
//! Holds     1. one cluster runs at a time, each round from empty directories;
//!           2. both servers have the same timeouts, and lose their leader under the same load;
//!           3. a leader is lost only while all members run and agree on it.
//! Never     compares gaps by one strike: medians and maxima are of all rounds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::compare::{cpus, goals_json, warning};
use crate::load::{self, Failures, Load, Span};
use crate::members::{ELECTION, HEARTBEAT, Members};
use crate::outage::Crowd;
use crate::progress::Progress;
use crate::request::{Operation, Shape};
use crate::round::{FIGURES, Figure, P99_MS, PER_SECOND, Round, Rounds};
use crate::server::{Cpus, Spec};
use crate::single::{Others, print_failures};
use crate::table::{Goal, Median, Table, Target, ms, or_dash, short};

const MEMBERS: usize = 3;
/// Clients write for so long before the leader is lost.
const SETTLE: Duration = Duration::from_secs(1);
/// A cluster that takes no write for so long after it lost its leader has failed.
const GAP_MAX: Duration = Duration::from_secs(60);
/// Writes go on if the last was acknowledged so shortly ago.
const GOES_ON: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(20);

pub struct Plan {
    pub sides: [Spec; 2],
    pub rounds: usize,
    pub strikes: usize,
    pub clients: usize,
    pub connections: usize,
    pub shape: Shape,
    pub warmup: Duration,
    pub length: Duration,
    /// How long is looked for a gap after a strike.
    pub after: Duration,
    pub pinned: bool,
    pub dir: PathBuf,
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Strike {
    Kill,
    Stop,
}

impl Strike {
    fn name(self) -> &'static str {
        match self {
            Strike::Kill => "kill",
            Strike::Stop => "stop",
        }
    }
}

const STRIKES: [Strike; 2] = [Strike::Kill, Strike::Stop];

/// What was measured of one server.
#[derive(Default)]
struct Side {
    puts: Rounds,
    /// Gaps in ms, by [`STRIKES`].
    gaps: [Vec<f64>; 2],
}

impl Side {
    fn gap(&self, strike: usize) -> Option<Median> {
        Median::of(&self.gaps[strike])
    }
}

/// Measures both servers and prints; true if all requests were answered while nothing was lost, and each goal has a
/// figure.
///
/// # Errors
/// A member cannot be started or reached, a cluster stalls, or it does not recover from the loss of its leader.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let cpus = cpus(plan.pinned)?;
    let mut sides = [Side::default(), Side::default()];
    let mut progress = Progress::new();
    let (mut failures, mut others) = (Failures::default(), Others::default());
    for round in 1..=plan.rounds {
        for (side, spec) in sides.iter_mut().zip(&plan.sides) {
            let stage = format!("round {round} of {}, {}", plan.rounds, spec.name);
            progress.stage(format!("{stage}, start"));
            let mut members = Members::start(spec, &plan.dir, MEMBERS, &[], cpus).await?;
            progress.stage(format!("{stage}, put: "));
            let measured = load::run(&puts(plan, &members), &mut progress).await?;
            failures.merge(&measured.failures);
            others.note(&measured);
            side.puts.push(Round::of(Operation::Put, &measured));
            for number in 1..=plan.strikes {
                for (at, strike) in STRIKES.into_iter().enumerate() {
                    progress.stage(format!("{stage}, {} {number} of {}", strike.name(), plan.strikes));
                    side.gaps[at].push(ms(gap(plan, &mut members, strike).await?));
                }
            }
            members.end()?;
        }
    }
    progress.clear();
    let goals = goals(&sides);
    if plan.json {
        println!("{:#}", json(plan, &sides, &goals, &failures, others));
    } else {
        println!("{}", setting(plan, cpus));
        print!("{others}{}", table(plan, &sides));
        print_failures(&failures);
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(failures.count == 0 && goals.iter().all(|goal| goal.met().is_some()))
}

fn puts(plan: &Plan, members: &Members) -> Load {
    Load {
        endpoints: members.endpoints(),
        connections: plan.connections,
        in_flight: plan.clients,
        mix: vec![(Operation::Put, 1)],
        shape: plan.shape,
        span: Span::Window { warmup: plan.warmup, length: plan.length },
        rate: None,
        pids: members.pids(),
    }
}

/// Takes the leader away while clients write, gives it back, and tells how long nobody could write.
async fn gap(plan: &Plan, members: &mut Members, strike: Strike) -> Result<Duration, String> {
    members.ready().await?;
    let leader = members.leader().await?;
    let crowd = Crowd::start(&members.endpoints(), plan.clients, &plan.shape);
    tokio::time::sleep(SETTLE).await;
    if crowd.acknowledged() == 0 {
        return Err(format!(
            "no write was acknowledged in {} s before the leader was lost",
            SETTLE.as_secs()
        ));
    }
    crowd.strike();
    match strike {
        Strike::Kill => members.kill(leader)?,
        Strike::Stop => members.pause(leader)?,
    }
    let begin = Instant::now();
    while begin.elapsed() < plan.after || crowd.silence() > GOES_ON {
        if crowd.silence() > GAP_MAX {
            return Err(format!(
                "no write was acknowledged {} s after the leader was lost",
                GAP_MAX.as_secs()
            ));
        }
        tokio::time::sleep(TICK).await;
    }
    let gap = crowd.gap();
    drop(crowd);
    match strike {
        Strike::Kill => {
            members.start_again(leader)?.ready().await?;
        }
        Strike::Stop => members.resume(leader)?,
    }
    Ok(gap)
}

fn setting(plan: &Plan, cpus: Cpus) -> String {
    format!(
        "rounds: {}, {MEMBERS} members, election {} ms, heartbeat {} ms, {} clients over {} connections, {} s of puts, \
         {} keys of {} bytes, values of {} bytes, {} of each strike a round; {cpus}{}",
        plan.rounds,
        ELECTION.as_millis(),
        HEARTBEAT.as_millis(),
        plan.clients,
        plan.connections,
        plan.length.as_secs_f64(),
        plan.shape.keys,
        plan.shape.key_bytes,
        plan.shape.value_bytes,
        plan.strikes,
        warning(&plan.dir)
    )
}

/// What of a side is shown, in its order.
fn figures(side: &Side) -> Vec<Option<f64>> {
    let puts = FIGURES.iter().map(|(_, figure)| Some(side.puts.median(*figure)?.median));
    let gaps = (0..STRIKES.len()).flat_map(|at| {
        let gap = side.gap(at);
        [gap.map(|gap| gap.median), gap.map(|gap| gap.max)]
    });
    puts.chain(gaps).collect()
}

const NAMES: [&str; FIGURES.len() + 4] = [
    "puts/s",
    "p50 ms",
    "p99 ms",
    "CPU µs a put, all members",
    "client µs",
    "client %",
    "gap after kill -9, median ms",
    "gap after kill -9, max ms",
    "gap after SIGSTOP, median ms",
    "gap after SIGSTOP, max ms",
];

fn table(plan: &Plan, sides: &[Side; 2]) -> String {
    let [left, right] = &plan.sides;
    let mut table = Table::new(1, &["figure", &left.name, &right.name, "ratio"]);
    for (name, (left, right)) in NAMES.iter().zip(figures(&sides[0]).into_iter().zip(figures(&sides[1]))) {
        let ratio = left.zip(right).map(|(left, right)| right / left).filter(|ratio| ratio.is_finite());
        let ratio = ratio.map_or_else(|| "-".to_owned(), short);
        table.row(vec![(*name).to_owned(), or_dash(left), or_dash(right), ratio]);
    }
    table.to_string()
}

fn goals(sides: &[Side; 2]) -> Vec<Goal> {
    let [left, right] = sides;
    let of_puts = |name: &str, figure: Figure, target| Goal {
        name: format!("cluster.{name}"),
        value: right.puts.ratio_to(&left.puts, figure),
        target,
    };
    let of_gaps = |(at, strike): (usize, Strike)| {
        let gaps = right.gap(at).zip(left.gap(at));
        let goal = |name: &str, of: fn(Median) -> f64| Goal {
            name: format!("cluster.{}.{name}", strike.name()),
            value: gaps.map(|(right, left)| of(right) / of(left)),
            target: Target::AtMost(1.0),
        };
        [goal("gap", |gap| gap.median), goal("gap-max", |gap| gap.max)]
    };
    let mut goals = vec![
        of_puts("throughput", PER_SECOND, Target::AtLeast(3.0)),
        of_puts("p99", P99_MS, Target::AtMost(0.333)),
    ];
    goals.extend(STRIKES.into_iter().enumerate().flat_map(of_gaps));
    goals
}

fn json(plan: &Plan, sides: &[Side; 2], goals: &[Goal], failures: &Failures, others: Others) -> Value {
    let side = |spec: &Spec, side: &Side| {
        json!({
            "server": spec.name,
            "put": side.puts.json(),
            "kill_gap_ms": side.gaps[0],
            "stop_gap_ms": side.gaps[1],
        })
    };
    json!({
        "members": MEMBERS,
        "rounds": plan.rounds,
        "strikes": plan.strikes,
        "clients": plan.clients,
        "connections": plan.connections,
        "seconds": plan.length.as_secs_f64(),
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
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

    fn side(per_second: f64, p99_ms: f64, gaps: [&[f64]; 2]) -> Side {
        let round = Round {
            per_second,
            p50_ms: Some(2.0),
            p99_ms: Some(p99_ms),
            server_us: Some(100.0),
            client_us: Some(9.0),
            client_busy: 0.5,
        };
        Side { puts: Rounds::from(vec![round]), gaps: gaps.map(<[f64]>::to_vec) }
    }

    fn sides() -> [Side; 2] {
        [
            side(2000.0, 90.0, [&[1500.0, 1600.0, 2000.0], &[1700.0]]),
            side(8000.0, 40.0, [&[1400.0, 1500.0, 2100.0], &[]]),
        ]
    }

    #[test]
    fn throughput_p99_and_gaps_are_judged_by_their_ratios() {
        let lines: Vec<String> = goals(&sides()).iter().map(ToString::to_string).collect();
        expect![[r#"
            cluster.throughput 4.00 >=3 ok
            cluster.p99 0.444 <=0.333 miss
            cluster.kill.gap 0.938 <=1 ok
            cluster.kill.gap-max 1.05 <=1 miss
            cluster.stop.gap unknown <=1 miss
            cluster.stop.gap-max unknown <=1 miss"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn the_table_has_each_figure_of_both_servers() {
        let spec = |name: &str| Spec::parse(name).expect("it is one word");
        let plan = Plan {
            sides: [spec("etcd"), spec("cairn")],
            rounds: 1,
            strikes: 3,
            clients: 64,
            connections: 64,
            shape: Shape { keys: 1000, key_bytes: 32, value_bytes: 256, limit: 0 },
            warmup: Duration::ZERO,
            length: Duration::from_secs(5),
            after: Duration::from_secs(5),
            pinned: false,
            dir: PathBuf::from("/nonexistent"),
            json: false,
        };
        expect![[r#"
            figure                         etcd  cairn  ratio
            puts/s                        2,000  8,000   4.00
            p50 ms                         2.00   2.00   1.00
            p99 ms                         90.0   40.0  0.444
            CPU µs a put, all members       100    100   1.00
            client µs                      9.00   9.00   1.00
            client %                       50.0   50.0   1.00
            gap after kill -9, median ms  1,600  1,500  0.938
            gap after kill -9, max ms     2,000  2,100   1.05
            gap after SIGSTOP, median ms  1,700      -      -
            gap after SIGSTOP, max ms     1,700      -      -
        "#]]
        .assert_eq(&table(&plan, &sides()));
    }
}
