// SPDX-License-Identifier: Apache-2.0
//! One line on a terminal that says what goes on.
//!
//! Owns      the last line of stderr while something runs; without a terminal, nothing.
//! Holds     the line is gone before anything else is printed (when dropped, at the latest).

use std::io::{IsTerminal, Write, stderr};

pub struct Progress {
    terminal: bool,
    prefix: String,
    shown: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { terminal: stderr().is_terminal(), prefix: String::new(), shown: false }
    }

    /// What goes before each note from now on.
    pub fn stage(&mut self, prefix: impl Into<String>) {
        self.prefix = prefix.into();
        self.note("");
    }

    pub fn note(&mut self, text: &str) {
        if self.terminal {
            // A line that cannot be shown is no reason to end a measurement.
            drop(write!(stderr(), "\r\x1b[K{}{text}", self.prefix));
            self.shown = true;
        }
    }

    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            drop(write!(stderr(), "\r\x1b[K"));
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
