// SPDX-License-Identifier: Apache-2.0
//! What came of a command, and the exit status that says so.
//!
//! Owns      the four statuses, and which failure is which.
//! Holds     damage is never answered for what could not be read, nor the other way round.
//! Never     prints a result.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use cairn_engine::Error;

pub const DAMAGED: u8 = 1;
pub const COULD_NOT_LOOK: u8 = 2;
pub const WRONG_USAGE: u8 = 64;

/// What a command that ran to its end has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Sound,
    /// Damage was found, and told.
    Damaged,
}

/// Why a command did not run to its end.
#[derive(Debug)]
pub enum Failure {
    /// Damage that ends the command.
    Damage(String),
    Unable(String),
    Usage(String),
    /// Whoever read the output stopped.
    OutputClosed,
}

pub type Outcome<T = Verdict> = Result<T, Failure>;

impl Verdict {
    pub fn exit_code(self) -> ExitCode {
        match self {
            Verdict::Sound => ExitCode::SUCCESS,
            Verdict::Damaged => ExitCode::from(DAMAGED),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Damaged => "damaged",
        }
    }

    pub fn of(damages: u64) -> Verdict {
        if damages == 0 { Verdict::Sound } else { Verdict::Damaged }
    }
}

impl Failure {
    /// A system call on `path` that failed.
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::Unable(format!("cannot {what} {}: {error}", path.display()))
    }

    /// The reason, on standard error.
    pub fn tell(&self) {
        match self {
            Failure::Damage(text) | Failure::Unable(text) => eprintln!("engine: {text}"),
            Failure::Usage(text) => eprintln!("engine: {text}; see engine --help"),
            Failure::OutputClosed => {}
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Damage(_) => DAMAGED,
            Failure::Unable(_) | Failure::OutputClosed => COULD_NOT_LOOK,
            Failure::Usage(_) => WRONG_USAGE,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        if error.is_corrupt() {
            Failure::Damage(error.to_string())
        } else {
            Failure::Unable(error.to_string())
        }
    }
}
