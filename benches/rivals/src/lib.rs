// SPDX-License-Identifier: Apache-2.0
//! The engine beside other stores: the same work, in turn, in one run, held against floors.
//!
//! Owns      the workload, the rounds, what a figure is, the goals, and the report.
//! Holds     1. each store runs in a process of its own, which is killed where a crash is wanted;
//!           2. stores take turns, and each piece of work stands between two measurements of a floor; one whose
//!              floors differ by more than a fifth is discarded, and counted;
//!           3. a value that is read is compared with what was written.
//! Never     depends on another store: those are in `peers`, with a lock file of their own, and in `bbolt`.

mod cairn;
mod contest;
mod entrants;
mod figures;
mod floor;
mod goals;
mod journal;
mod machine;
mod protocol;
mod report;
mod settings;
mod store;
mod work;
mod worker;

use std::process::ExitCode;

pub use entrants::Entrant;
pub use store::{Answer, Key, Size, Store, disk_bytes};
pub use work::key;

/// Runs a comparison of the engine with `rivals`, or one of their workers, as the command line has it.
pub fn main(rivals: &[Entrant]) -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        Some(store::WORKER) => store::work(&entrants::all(rivals), args),
        _ => settings::Settings::from_command_line().and_then(|settings| contest::run(&settings, rivals)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivals: {error}");
            ExitCode::FAILURE
        }
    }
}
