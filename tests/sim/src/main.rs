// SPDX-License-Identifier: Apache-2.0
//! `cairn-sim --seeds N [--first S]` runs many seeds; `cairn-sim --seed S [--trace]` runs one; `--members` says
//! how many there are, 3 unless said otherwise.

use std::process::ExitCode;

const USAGE: &str = "usage: cairn-sim [--members N] (--seeds N [--first S] | --seed S [--trace])";
/// Members of a cluster that is simulated: so many make a difference, and each costs time.
const MEMBERS_MAX: u64 = 7;

struct Arguments {
    members: u64,
    seeds: Option<u64>,
    first: u64,
    seed: Option<u64>,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { members: 3, seeds: None, first: 1, seed: None, trace: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|e| format!("{word} {text}: {e}"))
        };
        match word.as_str() {
            "--members" => parsed.members = number()?,
            "--seeds" => parsed.seeds = Some(number()?),
            "--first" => parsed.first = number()?,
            "--seed" => parsed.seed = Some(number()?),
            "--trace" => parsed.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if !(1..=MEMBERS_MAX).contains(&parsed.members) {
        return Err(format!("--members {}: from 1 to {MEMBERS_MAX}", parsed.members));
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let members = arguments.members as usize;
    let result = match (arguments.seed, arguments.seeds) {
        (Some(seed), None) => cairn_sim::run(seed, members, arguments.trace).map(|(stats, _)| stats),
        (None, Some(seeds)) => cairn_sim::run_seeds(arguments.first, seeds, members),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(stats) => {
            println!("{stats:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}
