// SPDX-License-Identifier: Apache-2.0
//! `cairn-sim --seeds N [--first S]` runs many seeds; `cairn-sim --seed S [--trace]` runs one.

use std::process::ExitCode;

const USAGE: &str = "usage: cairn-sim --seeds N [--first S] | --seed S [--trace]";

struct Arguments {
    seeds: Option<u64>,
    first: u64,
    seed: Option<u64>,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { seeds: None, first: 1, seed: None, trace: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|e| format!("{word} {text}: {e}"))
        };
        match word.as_str() {
            "--seeds" => parsed.seeds = Some(number()?),
            "--first" => parsed.first = number()?,
            "--seed" => parsed.seed = Some(number()?),
            "--trace" => parsed.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
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
    let result = match (arguments.seed, arguments.seeds) {
        (Some(seed), None) => cairn_sim::run(seed, arguments.trace).map(|(stats, _)| stats),
        (None, Some(seeds)) => cairn_sim::run_seeds(arguments.first, seeds),
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
            eprintln!("{violation}\nrepeat with: cairn-sim --seed {} --trace", violation.seed);
            ExitCode::FAILURE
        }
    }
}
