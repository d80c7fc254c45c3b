// SPDX-License-Identifier: Apache-2.0
//! What a worker is asked and what it answers: one line each way.
//!
//! Owns      the lines. `bbolt/main.go` speaks them too.
//! Holds     what is written is read back as the same.
//! Never     carries a key or a value: each side makes them from the revision.

use std::fmt;
use std::time::Instant;

use crate::store::{Answer, Size};

/// Work for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Open, and read revision `newest` unless that is 0.
    Open {
        newest: u64,
    },
    /// Insert so many revisions, so many a commit.
    Insert {
        first: u64,
        count: u64,
        batch: u64,
    },
    /// Delete the revisions from `lo` to `hi`, which is not among them, and end what that put off.
    Delete {
        lo: u64,
        hi: u64,
        batch: u64,
    },
    Settle,
    /// Read all entries, of which there are `count`.
    Scan {
        count: u64,
    },
    /// Read `count` revisions from `lo` to `hi` by chance.
    Read {
        lo: u64,
        hi: u64,
        count: u64,
        seed: u64,
    },
    Size,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Open { newest } => write!(f, "open {newest}"),
            Request::Insert { first, count, batch } => write!(f, "insert {first} {count} {batch}"),
            Request::Delete { lo, hi, batch } => write!(f, "delete {lo} {hi} {batch}"),
            Request::Settle => write!(f, "settle"),
            Request::Scan { count } => write!(f, "scan {count}"),
            Request::Read { lo, hi, count, seed } => write!(f, "read {lo} {hi} {count} {seed}"),
            Request::Size => write!(f, "size"),
        }
    }
}

impl Request {
    pub fn parse(line: &str) -> Answer<Request> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let numbers = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        Ok(match (verb, &numbers[..]) {
            ("open", &[newest]) => Request::Open { newest },
            ("insert", &[first, count, batch]) => Request::Insert { first, count, batch },
            ("delete", &[lo, hi, batch]) => Request::Delete { lo, hi, batch },
            ("settle", []) => Request::Settle,
            ("scan", &[count]) => Request::Scan { count },
            ("read", &[lo, hi, count, seed]) => Request::Read { lo, hi, count, seed },
            ("size", []) => Request::Size,
            _ => return Err(format!("no request {line:?}").into()),
        })
    }
}

/// How long a piece of work took, and the commits in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    pub ns: u64,
    pub commit_p50_ns: u64,
    pub commit_p99_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Took(Took),
    Size(Size),
    Failed(String),
}

impl Reply {
    /// The time since `begin`.
    pub fn timed(begin: Instant) -> Reply {
        Reply::Took(Took { ns: begin.elapsed().as_nanos() as u64, ..Took::default() })
    }

    /// The same, with the time since `begin` as what all of it took.
    pub fn taking(self, begin: Instant) -> Reply {
        match self {
            Reply::Took(took) => Reply::Took(Took { ns: begin.elapsed().as_nanos() as u64, ..took }),
            other => other,
        }
    }

    pub fn with_commits(self, mut commits_ns: Vec<u64>) -> Reply {
        commits_ns.sort_unstable();
        let part = |percent: usize| {
            let at = (commits_ns.len() * percent / 100).min(commits_ns.len().saturating_sub(1));
            commits_ns.get(at).copied().unwrap_or_default()
        };
        match self {
            Reply::Took(took) => {
                Reply::Took(Took { commit_p50_ns: part(50), commit_p99_ns: part(99), ..took })
            }
            other => other,
        }
    }

    pub fn parse(line: &str) -> Answer<Reply> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == "failed" {
            return Ok(Reply::Failed(rest.to_owned()));
        }
        let numbers = rest.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        Ok(match (verb, &numbers[..]) {
            ("took", &[ns, commit_p50_ns, commit_p99_ns]) => {
                Reply::Took(Took { ns, commit_p50_ns, commit_p99_ns })
            }
            ("size", &[data, log]) => Reply::Size(Size { data, log }),
            _ => return Err(format!("no answer {line:?}").into()),
        })
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Took(Took { ns, commit_p50_ns, commit_p99_ns }) => {
                write!(f, "took {ns} {commit_p50_ns} {commit_p99_ns}")
            }
            Reply::Size(Size { data, log }) => write!(f, "size {data} {log}"),
            Reply::Failed(error) => write!(f, "failed {}", error.replace('\n', "; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let requests = [
            Request::Open { newest: 7 },
            Request::Insert { first: 1, count: 2, batch: 3 },
            Request::Delete { lo: 1, hi: 2, batch: 3 },
            Request::Settle,
            Request::Scan { count: 5 },
            Request::Read { lo: 1, hi: 2, count: 3, seed: 4 },
            Request::Size,
        ];
        for request in requests {
            assert_eq!(Request::parse(&request.to_string()).ok(), Some(request));
        }
        let took = Took { ns: 1, commit_p50_ns: 2, commit_p99_ns: 3 };
        for reply in [Reply::Took(took), Reply::Size(Size { data: 1, log: 2 }), Reply::Failed("a b".into())] {
            assert_eq!(Reply::parse(&reply.to_string()).ok(), Some(reply));
        }
        assert!(Request::parse("insert 1").is_err() && Reply::parse("took 1").is_err());
    }

    #[test]
    fn commits_are_told_by_their_middle_and_their_slowest_hundredth() {
        let reply = Reply::Took(Took::default()).with_commits((1..=200).rev().collect());
        assert_eq!(reply, Reply::Took(Took { ns: 0, commit_p50_ns: 101, commit_p99_ns: 199 }));
    }
}
