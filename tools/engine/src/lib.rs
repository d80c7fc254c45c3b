// SPDX-License-Identifier: Apache-2.0
//! The tool `engine`, as a library: a command line in, an exit status out.
//!
//! Owns      the way from words to a command, and from what came of it to an exit status.
//! Holds     1. 0 is sound, 1 is damage found, 2 is could not look, 64 is a wrong command line, and nothing else is
//!              answered;
//!           2. results go to standard output, all else to standard error.
//! Never     writes below a directory that it was asked to look at.

pub mod bytes;
pub mod cli;
mod commands;
mod copy;
mod load;
mod outcome;
mod output;
mod place;
mod progress;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command, Surgery, Wal};
use outcome::{Failure, Outcome};
use output::Output;

/// Runs the command that `words` name, the program's own name first.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(refused) => return refuse(&refused),
    };
    let mut output = Output::new(cli.json);
    let done = command(&cli.command, &mut output);
    let done = done.and_then(|verdict| output.flush().map(|()| verdict));
    match done {
        Ok(verdict) => verdict.exit_code(),
        Err(failure) => {
            // What was printed before belongs before the reason why there is no more. If the output is what failed,
            // the reason says so.
            let flushed = output.flush();
            let failure = if flushed.is_err() { Failure::OutputClosed } else { failure };
            failure.tell();
            failure.exit_code()
        }
    }
}

fn command(command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::Info(place) => commands::info::run(place, output),
        Command::Check(args) => commands::check::run(args, output),
        Command::Dump(args) => commands::dump::run(args, output),
        Command::Get(args) => commands::get::run(args, output),
        Command::Stats(args) => commands::stats::run(args, output),
        Command::Pages(args) => commands::pages::run(args, output),
        Command::Page(args) => commands::page::run(args, output),
        Command::Map(args) => commands::map::run(args, output),
        Command::Wal(Wal::Dump(args)) => commands::wal::dump(args, output),
        Command::Wal(Wal::Verify(place)) => commands::wal::verify(place, output),
        Command::Backup(args) => commands::backup::run(args, output),
        Command::Restore(args) => commands::backup::run_restore(args, output),
        Command::Scrub(args) => commands::scrub::run(args, output),
        Command::Defrag(args) => commands::defrag::run(args, output),
        Command::Export(args) => commands::export::run(args, output),
        Command::Import(args) => commands::import::run(args, output),
        Command::Bench(args) => commands::bench::run(args, output),
        Command::Surgery(Surgery::PreviousSlot(args)) => commands::surgery::previous_slot(args, output),
        Command::Surgery(Surgery::RebuildSpaceMap(args)) => commands::surgery::rebuild_map(args, output),
        Command::Surgery(Surgery::CutWal(args)) => commands::surgery::cut_wal(args, output),
    }
}

/// Help and version are asked for; all else is a mistake.
fn refuse(refused: &clap::Error) -> ExitCode {
    let asked = matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let printed = refused.print();
    match (asked, printed) {
        (true, Ok(())) => ExitCode::SUCCESS,
        (true, Err(_)) => ExitCode::from(outcome::COULD_NOT_LOOK),
        (false, _) => ExitCode::from(outcome::WRONG_USAGE),
    }
}
