// SPDX-License-Identifier: Apache-2.0
//! Where lines go: standard streams, files, the systemd journal (LG-3).
//!
//! Owns      the open outputs.
//! Holds     files are appended to, never truncated.
//! Never     reports its own failures: there is nowhere left to report them.

use super::Level;
use crate::config::LogOutput;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::net::UnixDatagram,
};

const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

pub enum Sink {
    Stderr,
    Stdout,
    File(File),
    Journal(UnixDatagram),
}

impl Sink {
    pub fn open(output: &LogOutput) -> Result<Sink, String> {
        match output {
            LogOutput::Stderr => Ok(Sink::Stderr),
            LogOutput::Stdout => Ok(Sink::Stdout),
            LogOutput::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map(Sink::File)
                .map_err(|error| format!("cannot open log file {}: {error}", path.display())),
            LogOutput::Journal => journal(JOURNAL_SOCKET)
                .map(Sink::Journal)
                .map_err(|error| format!("cannot reach the systemd journal at {JOURNAL_SOCKET}: {error}")),
        }
    }

    pub fn write(&mut self, level: Level, line: &str) {
        // A line that cannot be written is lost; see the module of the log.
        let _lost = match self {
            Sink::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Sink::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Sink::File(file) => file.write_all(line.as_bytes()),
            Sink::Journal(socket) => socket.send(&journal_entry(level, line)).map(drop),
        };
    }
}

fn journal(path: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// One entry in the journal's own protocol: `NAME=value` lines. A log line holds no newline but its last.
fn journal_entry(level: Level, line: &str) -> Vec<u8> {
    let priority = match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::Panic => 1,
        Level::Fatal => 0,
    };
    format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=cairn\nMESSAGE={}\n", line.trim_end()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: LG-3
    #[test]
    fn the_journal_gets_one_datagram_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let server = UnixDatagram::bind(&path).expect("a socket");
        let client = journal(path.to_str().expect("text")).expect("connected");
        Sink::Journal(client).write(Level::Warn, "{\"level\":\"warn\"}\n");
        let mut bytes = [0; 256];
        let len = server.recv(&mut bytes).expect("an entry");
        assert_eq!(
            std::str::from_utf8(&bytes[..len]),
            Ok("PRIORITY=4\nSYSLOG_IDENTIFIER=cairn\nMESSAGE={\"level\":\"warn\"}\n")
        );
    }

    // rule: LG-3
    #[test]
    fn files_are_appended_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, "old\n").expect("written");
        Sink::open(&LogOutput::File(path.clone())).expect("open").write(Level::Info, "new\n");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "old\nnew\n");
        let missing = dir.path().join("no/such/log");
        assert!(Sink::open(&LogOutput::File(missing)).is_err_and(|text| text.contains("no/such/log")));
    }
}
