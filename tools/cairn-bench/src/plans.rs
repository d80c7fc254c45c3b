// SPDX-License-Identifier: Apache-2.0
//! How the arguments of a command become the plan of a run.
//!
//! Owns      the bounds of every flag's value.
//! Holds     a plan that is made can be run: what is out of bounds is told before anything starts.
//! Never     knows a default: those stand with the flags.

use std::path::PathBuf;

use crate::args::{Args, Usage};
use crate::client::Endpoint;
use crate::request::{KEY_BYTES_MAX, KEY_BYTES_MIN, Operation, Shape};
use crate::server::Spec;
use crate::{catch_up, cluster, compaction, compare, guards, scale, single};

const CONNECTIONS_MAX: usize = 10_000;
const IN_FLIGHT_MAX: usize = 100_000;
const SECONDS_MAX: f64 = 24.0 * 3600.0;
const SECONDS_MIN: f64 = 0.1;

fn shape(args: &Args, limit: i64) -> Result<Shape, Usage> {
    Ok(Shape {
        keys: args.number("keys", 1..=1 << 40)?,
        key_bytes: args.number("key-bytes", KEY_BYTES_MIN..=KEY_BYTES_MAX)?,
        value_bytes: args.number("value-bytes", 0..=64 << 20)?,
        limit,
    })
}

pub fn single(name: &str, args: &Args) -> Result<single::Plan, Usage> {
    let mix = match name {
        "put" => vec![(Operation::Put, 1)],
        "get" => vec![(Operation::Get, 1)],
        "get-serializable" => vec![(Operation::GetSerializable, 1)],
        "txn" => vec![(Operation::Txn, 1)],
        "range" => vec![(Operation::Range, 1)],
        "mixed" => {
            vec![(Operation::Get, args.number("reads-per-write", 1..=1_000_000)?), (Operation::Put, 1)]
        }
        _ => unreachable!("{name} is a command, and each has its plan"),
    };
    let limit = if name == "range" { args.number("limit", 1..=1_000_000)? } else { 0 };
    let endpoints = args.required("endpoint")?.split(',').map(|text| text.trim().parse::<Endpoint>());
    let rate = args.parsed("rate")?;
    if let Some(rate) = rate
        && !(0.01..=10_000_000.0).contains(&rate)
    {
        return Err(Usage(format!("--rate is {rate}, and must be 0.01 to 10000000")));
    }
    Ok(single::Plan {
        name: name.to_owned(),
        endpoints: endpoints.collect::<Result<_, _>>().map_err(Usage)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        in_flight: args.number("in-flight", 1..=IN_FLIGHT_MAX)?,
        mix,
        shape: shape(args, limit)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        rate,
        load: args.is_given("load"),
        pid: args.parsed("pid")?,
        json: args.is_given("json"),
    })
}

fn spec(args: &Args, name: &str) -> Result<Spec, Usage> {
    Spec::parse(args.required(name)?).map_err(|e| Usage(format!("--{name}: {e}")))
}

/// Both servers, with names that tell them apart.
pub fn sides(args: &Args) -> Result<[Spec; 2], Usage> {
    let (mut left, mut right) = (spec(args, "left")?, spec(args, "right")?);
    if left.name == right.name {
        left.name += " (left)";
        right.name += " (right)";
    }
    Ok([left, right])
}

fn dir(args: &Args) -> PathBuf {
    args.text("dir").map_or_else(std::env::temp_dir, PathBuf::from)
}

pub fn compare(args: &Args) -> Result<compare::Plan, Usage> {
    Ok(compare::Plan {
        sides: sides(args)?,
        rounds: args.number("rounds", 1..=1000)?,
        in_flight: args.numbers("in-flight", 1..=IN_FLIGHT_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        shape: shape(args, 0)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}

pub fn scale(args: &Args) -> Result<scale::Plan, Usage> {
    Ok(scale::Plan {
        sides: sides(args)?,
        shape: shape(args, scale::PAGE_PAIRS)?,
        idle: args.seconds("idle", 0.0..=SECONDS_MAX)?,
        restarts: args.number("restarts", 1..=100)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}

pub fn compaction(args: &Args) -> Result<compaction::Plan, Usage> {
    Ok(compaction::Plan {
        server: spec(args, "server")?,
        shape: shape(args, 0)?,
        revisions: args.number("revisions", 1..=1 << 40)?,
        in_flight: args.number("in-flight", 1..=IN_FLIGHT_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        rounds: args.number("rounds", 1..=1000)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}

pub fn guards(args: &Args) -> Result<guards::Plan, Usage> {
    Ok(guards::Plan {
        sides: sides(args)?,
        rounds: args.number("rounds", 1..=1000)?,
        in_flight: args.number("in-flight", 1..=IN_FLIGHT_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        shape: shape(args, 0)?,
        pairs: args.number("pairs", 1..=1_000_000)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}

pub fn cluster(args: &Args) -> Result<cluster::Plan, Usage> {
    Ok(cluster::Plan {
        sides: sides(args)?,
        rounds: args.number("rounds", 1..=1000)?,
        strikes: args.number("strikes", 1..=1000)?,
        clients: args.number("clients", 1..=IN_FLIGHT_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        shape: shape(args, 0)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        after: args.seconds("after", SECONDS_MIN..=SECONDS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}

pub fn catch_up(args: &Args) -> Result<catch_up::Plan, Usage> {
    Ok(catch_up::Plan {
        server: spec(args, "server")?,
        missed_bytes: args.number("mib", 1..=1_u64 << 20)? << 20,
        shape: shape(args, 0)?,
        in_flight: args.number("in-flight", 1..=IN_FLIGHT_MAX)?,
        connections: args.number("connections", 1..=CONNECTIONS_MAX)?,
        warmup: args.seconds("warmup", 0.0..=SECONDS_MAX)?,
        length: args.seconds("seconds", SECONDS_MIN..=SECONDS_MAX)?,
        pinned: args.is_given("pinned"),
        dir: dir(args),
        json: args.is_given("json"),
    })
}
