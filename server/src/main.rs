// SPDX-License-Identifier: Apache-2.0
//! The program `cairn`.
//!
//! Owns      the allocator, and the way from arguments to an exit status.
//! Never     decides what a flag means.

use cairn::{
    cert,
    config::{
        Config,
        given::{Asked, Given, GivenError},
        help,
    },
    daemon::{self, End},
    exit::ExitStatus,
    failed::{failed, not_configured},
    log::Log,
};
use std::{io::Write as _, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    if let Some(("cert", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        std::process::exit(certificates(rest) as i32);
    }
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    let end = match Given::read(&arguments, environment) {
        Ok(Asked::Help) => print(&help::help()),
        Ok(Asked::Version) => print(&help::version()),
        Ok(Asked::Serve(given)) => serve(&given),
        Err(GivenError::Syntax(text)) => {
            eprintln!("{text}\nUsage: cairn [flags]; cairn --help lists them");
            End::Status(ExitStatus::Usage)
        }
        Err(GivenError::Refused(text)) => failed(&Log::fallback(), ExitStatus::Refused, &text),
    };
    match end {
        End::Status(status) => std::process::exit(status as i32),
        End::Signal(signal) => signal.end_process(),
        End::Again => again(),
    }
}

/// The same program with the same arguments, in the same process: nothing of this run is left.
fn again() -> ! {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    let start = |program: PathBuf| Command::new(program).arg0(&name).args(&arguments).exec();
    // A file that was replaced meanwhile is not found under its name; the other one is the program that runs.
    drop(std::env::current_exe().map(start));
    let error = start("/proc/self/exe".into());
    eprintln!("cannot start anew: {error}: start the member again");
    std::process::exit(ExitStatus::Failed as i32)
}

fn certificates(arguments: &[String]) -> ExitStatus {
    match cert::run(arguments) {
        cert::Outcome::Done(text) => {
            print(&text);
            ExitStatus::Done
        }
        cert::Outcome::Failed(text) => {
            eprintln!("{text}");
            ExitStatus::Refused
        }
        cert::Outcome::Usage(text) => {
            eprint!("{text}");
            ExitStatus::Usage
        }
    }
}

/// A reader that has gone away is no failure.
fn print(text: &str) -> End {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    End::Status(ExitStatus::Done)
}

fn serve(given: &Given) -> End {
    #[cfg(feature = "failpoints")]
    if let Err(text) = cairn::failpoints::begin() {
        return not_configured(&Log::fallback(), &text);
    }
    let (config, remarks) = match Config::new(given) {
        Ok(judged) => judged,
        Err(error) => return not_configured(&Log::fallback(), &error.to_string()),
    };
    match Log::open(&config.log) {
        Ok(log) => daemon::run(config, &remarks, log),
        Err(text) => not_configured(&Log::fallback(), &text),
    }
}
