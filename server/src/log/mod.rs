// SPDX-License-Identifier: Apache-2.0
//! The log: one line an event, with etcd's keys, so that what reads etcd's logs reads these.
//!
//! Owns      levels, the two formats (LG-1, LG-2), sampling (LG-4), and where lines go (LG-3).
//! Holds     1. a line is written whole, in one write, or not at all;
//!           2. a log that cannot be written stops nothing: the line is lost, the member goes on.
//! Never     formats a key's value or a password: callers pass fields that may be seen.

mod line;
mod sampler;
mod sink;

pub use line::timestamp;
pub use serde_json::Value;

use crate::config::LogConfig;
use sampler::Sampler;
use sink::Sink;
use std::{
    panic::Location,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl Level {
    const NAMES: [(&'static str, Level); 6] = [
        ("debug", Level::Debug),
        ("info", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
        ("panic", Level::Panic),
        ("fatal", Level::Fatal),
    ];

    pub fn named(name: &str) -> Option<Level> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// A key and what stands under it.
pub type Field<'a> = (&'a str, Value);

/// A handle to the log. Clones write to the same place.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    level: Level,
    console: bool,
    outputs: Mutex<Outputs>,
}

struct Outputs {
    sinks: Vec<Sink>,
    sampler: Sampler,
}

impl Log {
    /// Opens every output; the text of a failure names the one that cannot be opened.
    pub fn open(config: &LogConfig) -> Result<Log, String> {
        let sinks = config.outputs.iter().map(Sink::open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::with(config.level, config.console, sinks))
    }

    /// A log on standard error, for what happens before the configuration is known.
    pub fn fallback() -> Log {
        Self::with(Level::Info, false, vec![Sink::Stderr])
    }

    fn with(level: Level, console: bool, sinks: Vec<Sink>) -> Log {
        let outputs = Mutex::new(Outputs { sinks, sampler: Sampler::default() });
        Log { shared: Arc::new(Shared { level, console, outputs }) }
    }

    /// Whether lines of this level are written at all: ask before building costly fields.
    pub fn enabled(&self, level: Level) -> bool {
        level >= self.shared.level
    }

    #[track_caller]
    pub fn debug(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Debug, Location::caller(), message, fields);
    }

    #[track_caller]
    pub fn info(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Info, Location::caller(), message, fields);
    }

    #[track_caller]
    pub fn warn(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Warn, Location::caller(), message, fields);
    }

    #[track_caller]
    pub fn error(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Error, Location::caller(), message, fields);
    }

    /// The last line of a process that cannot go on. The caller ends it.
    #[track_caller]
    pub fn fatal(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Fatal, Location::caller(), message, fields);
    }

    /// A line whose place is told by the caller.
    pub fn write(&self, level: Level, place: &Location<'_>, message: &str, fields: &[Field<'_>]) {
        if !self.enabled(level) {
            return;
        }
        let caller = &line::caller(place);
        let now = SystemTime::now();
        let text = if self.shared.console {
            line::console(now, level, caller, message, fields)
        } else {
            line::json(now, level, caller, message, fields)
        };
        let mut outputs = self.shared.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if outputs.sampler.admits(level, message, now) {
            for sink in &mut outputs.sinks {
                sink.write(level, &text);
            }
        }
    }
}
