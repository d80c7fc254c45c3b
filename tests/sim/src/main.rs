// SPDX-License-Identifier: Apache-2.0
//! `cairn-sim --seeds N [--first S]` runs many seeds, and shrinks the first that fails; `cairn-sim --seed S [--trace]`
//! runs one. `--members` says how many there are at the beginning; without it each seed draws that too. `--raft` runs
//! replicas alone, without stores and disks.

use cairn_sim::{
    bare, run, run_seeds, shrink, shrunk,
    swarm::Founders,
    world::{Violation, World},
};
use std::process::ExitCode;

const USAGE: &str =
    "usage: cairn-sim [--members N] (--seeds N [--first S] | --seed S [--steps LIST] [--trace])
       cairn-sim --raft (--seeds N [--first S] | --seed S)";
/// Members of a cluster that is simulated: so many make a difference, and each costs time.
const MEMBERS_MAX: u64 = 7;

struct Arguments {
    founders: Founders,
    raft: bool,
    seeds: Option<u64>,
    first: u64,
    seed: Option<u64>,
    steps: Option<Vec<u64>>,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        founders: Founders::Drawn,
        raft: false,
        seeds: None,
        first: 1,
        seed: None,
        steps: None,
        trace: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut text = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let mut number = || text().and_then(|t| t.parse::<u64>().map_err(|e| format!("{word} {t}: {e}")));
        match word.as_str() {
            "--members" => match number()? {
                members @ 1..=MEMBERS_MAX => parsed.founders = Founders::Of(members as usize),
                other => return Err(format!("--members {other}: from 1 to {MEMBERS_MAX}")),
            },
            "--raft" => parsed.raft = true,
            "--seeds" => parsed.seeds = Some(number()?),
            "--first" => parsed.first = number()?,
            "--seed" => parsed.seed = Some(number()?),
            "--steps" => parsed.steps = Some(shrink::read(&text()?)?),
            "--trace" => parsed.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let one = parsed.seed.is_some();
    match (one, parsed.seeds.is_some()) {
        (true, false) | (false, true) if one || parsed.steps.is_none() => Ok(parsed),
        _ => Err("either one seed, or a number of seeds".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Arguments { founders, raft, seeds, first, seed, steps, trace } = arguments;
    let done = match (raft, seed) {
        (true, Some(seed)) => bare::run(seed).map(|(stats, _)| println!("{stats:?}")),
        (true, None) => bare::run_seeds(first, seeds.unwrap_or_default()).map(|stats| println!("{stats:?}")),
        (false, Some(seed)) => {
            let world = World::new(seed, founders, trace);
            let world = match steps {
                Some(steps) => world.with_steps(steps),
                None => world,
            };
            run(world).map(|(stats, _)| println!("{stats:?}")).map_err(|violation| violation.to_string())
        }
        (false, None) => run_seeds(first, seeds.unwrap_or_default(), founders)
            .map(|stats| println!("{stats:?}"))
            .map_err(|violation| told_and_shrunk(&violation)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn told_and_shrunk(violation: &Violation) -> String {
    eprintln!("{violation}");
    // Panics on the way are the failure that is looked for.
    std::panic::set_hook(Box::new(|_| ()));
    match shrunk(violation) {
        Some(Violation { taken: Some(taken), what, step, seed, founders }) => {
            let count = taken.len();
            let small = Violation { taken: Some(taken), what, step, seed, founders };
            format!("in {count} steps:\n{small}")
        }
        _ => "it does not fail again".to_owned(),
    }
}
