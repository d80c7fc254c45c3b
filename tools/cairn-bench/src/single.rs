// SPDX-License-Identifier: Apache-2.0
//! One workload against a server that runs already.
//!
//! Owns      the commands put, get, get-serializable, txn, range and mixed.
//! Never     starts or ends a server.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Endpoint;
use crate::histogram::Histogram;
use crate::load::{self, Failures, Load, Measured, Span};
use crate::process;
use crate::progress::Progress;
use crate::request::{Operation, Shape};
use crate::table::{Table, ms, or_dash, short, whole};

pub struct Plan {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub connections: usize,
    pub in_flight: usize,
    pub mix: Vec<(Operation, u32)>,
    pub shape: Shape,
    pub warmup: Duration,
    pub length: Duration,
    pub rate: Option<f64>,
    pub load: bool,
    pub pid: Option<u32>,
    pub json: bool,
}

/// Measures and prints; true if every request was answered.
///
/// # Errors
/// The server cannot be reached, or stalls.
pub async fn run(plan: &Plan) -> Result<bool, String> {
    let mut progress = Progress::new();
    let load = Load {
        endpoints: plan.endpoints.clone(),
        connections: plan.connections,
        in_flight: plan.in_flight,
        mix: plan.mix.clone(),
        shape: plan.shape,
        span: Span::Window { warmup: plan.warmup, length: plan.length },
        rate: plan.rate,
        pids: plan.pid.or_else(|| process::listener(plan.endpoints.first()?.port())).into_iter().collect(),
    };
    let mut failures = Failures::default();
    if plan.load {
        progress.stage("load: ");
        let each =
            Load { mix: vec![(Operation::Put, 1)], span: Span::EachKeyOnce, rate: None, ..load.clone() };
        failures.merge(&load::run(&each, &mut progress).await?.failures);
    }
    progress.stage(format!("{}: ", plan.name));
    let measured = load::run(&load, &mut progress).await?;
    progress.clear();
    failures.merge(&measured.failures);
    if plan.json {
        println!("{:#}", json(plan, &load, &measured, &failures));
    } else {
        let mut others = Others::default();
        others.note(&measured);
        print!("{others}{}", text(plan, &measured));
        print_failures(&failures);
    }
    Ok(failures.count == 0)
}

/// Why requests failed, one reason a line.
pub fn print_failures(failures: &Failures) {
    for (reason, count) in &failures.reasons {
        println!("failed {}: {reason}", whole(*count as f64));
    }
}

/// How much of the machine's CPUs went to other work while this ran, at most.
#[derive(Clone, Copy, Default, Debug)]
pub struct Others {
    /// A share; None before the first measurement.
    pub most: Option<f64>,
}

impl Others {
    /// From here on figures in wall-clock time are not to be trusted.
    const DISTURB: f64 = 0.1;

    pub fn note(&mut self, measured: &Measured) {
        self.most = [self.most, measured.others].into_iter().flatten().reduce(f64::max);
    }
}

/// A warning line, or nothing.
impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.most {
            Some(share) if share > Others::DISTURB => writeln!(
                f,
                "WARNING: other work took up to {:.0} % of the CPUs: trust CPU time, not throughput and latency",
                share * 100.0
            ),
            _ => Ok(()),
        }
    }
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

fn text(plan: &Plan, measured: &Measured) -> String {
    let mut head = vec!["workload", "in flight", "req/s"];
    head.extend(["p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "server µs", "client µs", "failed"]);
    let mut table = Table::new(1, &head);
    let mut row = |name: &str, histogram: &Histogram, all: Option<&Measured>| {
        let per_second = histogram.count() as f64 / measured.elapsed.as_secs_f64();
        let mut cells = vec![name.to_owned(), plan.in_flight.to_string(), whole(per_second)];
        cells.extend(QUANTILES.map(|(_, q)| short(ms(histogram.quantile(q)))));
        cells.push(short(ms(histogram.max())));
        cells.push(or_dash(all.and_then(Measured::server_cpu_us)));
        cells.push(or_dash(all.and_then(Measured::client_cpu_us)));
        cells.push(all.map_or_else(|| "-".to_owned(), |all| whole(all.failures.count as f64)));
        table.row(cells);
    };
    match measured.series.iter().collect::<Vec<_>>().as_slice() {
        [] => row(&plan.name, &Histogram::default(), Some(measured)),
        [(_, only)] => row(&plan.name, only, Some(measured)),
        // CPU time and failures are known for all together.
        several => {
            for (operation, histogram) in several {
                row(operation.name(), histogram, None);
            }
            let mut all = Histogram::default();
            several.iter().for_each(|(_, histogram)| all.merge(histogram));
            row(&plan.name, &all, Some(measured));
        }
    }
    let mut text = table.to_string();
    if measured.unsent > 0 {
        text += &format!("{} requests were due by --rate and not sent\n", whole(measured.unsent as f64));
    }
    text
}

fn json(plan: &Plan, load: &Load, measured: &Measured, failures: &Failures) -> Value {
    let seconds = measured.elapsed.as_secs_f64();
    let series: serde_json::Map<String, Value> = measured
        .series
        .iter()
        .map(|(operation, histogram)| (operation.name().to_owned(), series_json(histogram, seconds)))
        .collect();
    json!({
        "workload": plan.name,
        "endpoints": plan.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "connections": plan.connections.min(plan.in_flight),
        "in_flight": plan.in_flight,
        "keys": plan.shape.keys,
        "key_bytes": plan.shape.key_bytes,
        "value_bytes": plan.shape.value_bytes,
        "rate": plan.rate,
        "seconds": seconds,
        "answered": measured.answered(),
        "requests_per_second": measured.per_second(),
        "operations": series,
        "server_pid": load.pids.first(),
        "server_cpu_us": measured.server_cpu_us(),
        "client_cpu_us": measured.client_cpu_us(),
        "unsent": measured.unsent,
        "others_busy": measured.others,
        "failed": failures.count,
        "failures": failures.reasons,
    })
}

fn series_json(histogram: &Histogram, seconds: f64) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("answered".into(), histogram.count().into());
    object.insert("requests_per_second".into(), (histogram.count() as f64 / seconds).into());
    for (name, q) in QUANTILES {
        object.insert(format!("{name}_ms"), ms(histogram.quantile(q)).into());
    }
    object.insert("max_ms".into(), ms(histogram.max()).into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeMap;

    fn measured(operations: &[Operation]) -> (Plan, Measured) {
        let mut histogram = Histogram::default();
        for n in 1..=1000 {
            histogram.record(Duration::from_micros(n));
        }
        let plan = Plan {
            name: "mixed".into(),
            endpoints: vec![Endpoint::local(1)],
            connections: 8,
            in_flight: 64,
            mix: vec![],
            shape: Shape { keys: 1, key_bytes: 32, value_bytes: 256, limit: 0 },
            warmup: Duration::ZERO,
            length: Duration::ZERO,
            rate: None,
            load: false,
            pid: None,
            json: false,
        };
        let measured = Measured {
            series: operations
                .iter()
                .map(|&operation| (operation, histogram.clone()))
                .collect::<BTreeMap<_, _>>(),
            elapsed: Duration::from_secs(2),
            server_cpu: Some(Duration::from_millis(40)),
            client_cpu: Duration::from_millis(10),
            failures: Failures { count: 3, reasons: BTreeMap::new() },
            unsent: 1234,
            others: Some(0.5),
        };
        (plan, measured)
    }

    #[test]
    fn a_mixed_load_has_a_row_for_each_operation_and_one_for_all() {
        let (plan, measured) = measured(&[Operation::Put, Operation::Get]);
        expect![[r#"
            workload  in flight  req/s  p50 ms  p90 ms  p99 ms  p99.9 ms  max ms  server µs  client µs  failed
            put              64    500   0.504   0.901   0.991     0.999    1.00          -          -       -
            get              64    500   0.504   0.901   0.991     0.999    1.00          -          -       -
            mixed            64  1,000   0.504   0.901   0.991     0.999    1.00       20.0       5.00       3
            1,234 requests were due by --rate and not sent
        "#]]
        .assert_eq(&text(&plan, &measured));
    }

    #[test]
    fn other_work_on_the_machine_is_told_once_it_disturbs() {
        let (_, mut measured) = measured(&[]);
        let mut others = Others::default();
        measured.others = None;
        others.note(&measured);
        assert_eq!(others.to_string(), "");
        measured.others = Some(0.07);
        others.note(&measured);
        assert_eq!(others.to_string(), "");
        measured.others = Some(0.61);
        others.note(&measured);
        measured.others = Some(0.2);
        others.note(&measured);
        assert!(others.to_string().starts_with("WARNING: other work took up to 61 % of the CPUs"));
    }

    #[test]
    fn a_load_without_answers_still_has_a_row() {
        let (plan, measured) = measured(&[]);
        expect![[r#"
            workload  in flight  req/s  p50 ms  p90 ms  p99 ms  p99.9 ms  max ms  server µs  client µs  failed
            mixed            64      0   0.000   0.000   0.000     0.000   0.000          -          -       3
            1,234 requests were due by --rate and not sent
        "#]]
        .assert_eq(&text(&plan, &measured));
    }
}
