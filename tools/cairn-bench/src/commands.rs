// SPDX-License-Identifier: Apache-2.0
//! The commands and their flags, and how a command line becomes a run.
//!
//! Owns      every flag and default of the tool, and the exit codes.
//! Holds     the exit codes are stable: scripts go by them.
//! Never     measures.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Command, Flag, Usage};
use crate::{catch_up, cluster, compaction, compare, guards, plans, scale, single};

/// All requests were answered, and every goal has a figure (met or missed).
pub const EXIT_OK: u8 = 0;
/// A request failed, or a goal's figure could not be measured.
pub const EXIT_FAILED: u8 = 1;
/// The measurement could not be made.
pub const EXIT_COULD_NOT_RUN: u8 = 2;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 64;

const KEYS: Flag =
    Flag { name: "keys", value: "N", default: "100000", help: "how many keys requests choose from, evenly" };
const KEY_BYTES: Flag = Flag { name: "key-bytes", value: "N", default: "32", help: "length of a key" };
const VALUE_BYTES: Flag = Flag { name: "value-bytes", value: "N", default: "256", help: "length of a value" };
const SECONDS: Flag = Flag { name: "seconds", value: "S", default: "10", help: "how long to measure" };
const WARMUP: Flag =
    Flag { name: "warmup", value: "S", default: "1", help: "how long to run before the measurement" };
const CONNECTIONS: Flag = Flag {
    name: "connections",
    value: "N",
    default: "8",
    help: "HTTP/2 connections, at most one a request in flight",
};
const JSON: Flag = Flag { name: "json", value: "", default: "", help: "print one JSON object" };
const LEFT: Flag = Flag {
    name: "left",
    value: "CMD",
    default: "etcd",
    help: "the server to compare with, [NAME=]PROGRAM ARGUMENTS",
};
const RIGHT: Flag =
    Flag { name: "right", value: "CMD", default: "cairn", help: "the server to be judged, likewise" };
const SERVER: Flag = Flag {
    name: "server",
    value: "CMD",
    default: "cairn",
    help: "the server to be judged, [NAME=]PROGRAM ARGUMENTS",
};
const ROUNDS: Flag = Flag {
    name: "rounds",
    value: "N",
    default: "5",
    help: "how often each server is started and measured, in turn",
};
const IN_FLIGHT: Flag =
    Flag { name: "in-flight", value: "N", default: "64", help: "requests at once, over all connections" };
const DIR: Flag = Flag {
    name: "dir",
    value: "DIR",
    default: "",
    help: "where both keep their data, each in a new directory [the temporary directory]",
};
const PINNED: Flag = Flag {
    name: "pinned",
    value: "",
    default: "",
    help: "server on one CPU, client on another; else both share all",
};

const LOAD_FLAGS: &[Flag] = &[
    Flag {
        name: "endpoint",
        value: "URL[,URL…]",
        default: "http://127.0.0.1:2379",
        help: "servers; connections go to them in turn",
    },
    CONNECTIONS,
    IN_FLIGHT,
    KEYS,
    KEY_BYTES,
    VALUE_BYTES,
    SECONDS,
    WARMUP,
    Flag { name: "rate", value: "N", default: "", help: "requests a second [as many as are answered]" },
    Flag { name: "load", value: "", default: "", help: "put each key once before" },
    Flag {
        name: "pid",
        value: "PID",
        default: "",
        help: "the server's process [who listens on the endpoint's port]",
    },
    JSON,
];
const RANGE_FLAGS: &[Flag] =
    &[Flag { name: "limit", value: "N", default: "500", help: "pairs in an answer at most" }];
const MIXED_FLAGS: &[Flag] =
    &[Flag { name: "reads-per-write", value: "N", default: "8", help: "gets for each put" }];

const LOAD_NOTES: &str = "\
A key is /bench/, zeros, and up to 24 random hexadecimal digits. Server and client µs are CPU time for one
request. With --rate a request is timed from when it was due, so a stall counts for all that it delayed.";

const COMPARE_FLAGS: &[Flag] = &[
    LEFT,
    RIGHT,
    ROUNDS,
    Flag {
        name: "in-flight",
        value: "N[,N…]",
        default: "64,1000",
        help: "requests at once, over all connections",
    },
    CONNECTIONS,
    KEYS,
    KEY_BYTES,
    VALUE_BYTES,
    Flag {
        name: "seconds",
        value: "S",
        default: "5",
        help: "how long to measure each workload in each round",
    },
    WARMUP,
    PINNED,
    DIR,
    JSON,
];
const COMPARE_NOTES: &str = "\
A round starts one server in an empty directory, puts each key once, measures get, get-serializable, put and
txn, and stops it; then the other has its turn. The two never run at once. Figures are medians over rounds,
± the farthest round. The ratio is right to left. Goals: put at least twice the throughput and at most half
the server CPU, get at most 0.7 of it. Where client % is near 100, the client's CPU is full, and throughput is
only a lower bound for the faster server: judge by CPU there.";

const SCALE_FLAGS: &[Flag] = &[
    LEFT,
    RIGHT,
    Flag { name: "keys", value: "N", default: "1000000", help: "how many keys to load" },
    Flag { name: "key-bytes", value: "N", default: "64", help: "length of a key" },
    Flag { name: "value-bytes", value: "N", default: "64", help: "length of a value" },
    Flag {
        name: "idle",
        value: "S",
        default: "120",
        help: "how long the server is left alone before its memory is read",
    },
    Flag { name: "restarts", value: "N", default: "3", help: "kill -9 under light load, and start again" },
    Flag { name: "seconds", value: "S", default: "5", help: "how long to measure count and page, each" },
    CONNECTIONS,
    PINNED,
    DIR,
    JSON,
];
const SCALE_NOTES: &str = "\
For each server in turn, from an empty directory: load, idle, memory (RssAnon), data file (bytes on disk of
member/snap/db or member/engine.db), count of all keys, page of 500, then kill -9 under 500 puts a second and
the time from restart to the first linearizable get. Goals: memory at most a quarter, restart a tenth, file
1.4 times, count a hundredth, page a tenth of the left server's.";

const COMPACTION_FLAGS: &[Flag] = &[
    SERVER,
    Flag {
        name: "revisions",
        value: "N",
        default: "1000000",
        help: "how many revisions each compaction makes unreadable, at least",
    },
    Flag { name: "in-flight", value: "N", default: "64", help: "puts at once, over all connections" },
    Flag { name: "rounds", value: "N", default: "3", help: "windows without and with a compaction, in turn" },
    CONNECTIONS,
    KEYS,
    KEY_BYTES,
    VALUE_BYTES,
    Flag { name: "seconds", value: "S", default: "20", help: "how long each window is" },
    WARMUP,
    PINNED,
    DIR,
    JSON,
];
const COMPACTION_NOTES: &str = "\
Starts the server in an empty directory. A round puts each key until the wanted number of revisions is
superseded, then measures puts of random keys, and then the same while a compaction at the current revision is
asked for with `physical`, which is answered when it is purged. Goals: p99 and the longest put at most 1.5
times those without.";

const GUARDS_FLAGS: &[Flag] = &[
    LEFT,
    RIGHT,
    ROUNDS,
    IN_FLIGHT,
    CONNECTIONS,
    Flag { name: "pairs", value: "N", default: "500", help: "how many pairs a list has" },
    Flag { name: "keys", value: "N", default: "10000", help: "how many keys puts choose from, evenly" },
    KEY_BYTES,
    VALUE_BYTES,
    Flag {
        name: "seconds",
        value: "S",
        default: "3",
        help: "how long to measure each workload in each round",
    },
    WARMUP,
    PINNED,
    DIR,
    JSON,
];
const GUARDS_NOTES: &str = "\
A round starts each server three times in an empty directory: plain, with a certificate and all clients
under TLS, and with authentication on and all requests of a user that may read and write the keys' prefix.
Each time it measures lists of all pairs, and then puts. Loss is against the same server's plain median: of
requests a second, and of those that one CPU could answer. Goals, of the right server: at least 0.85 is kept
of both. The client pays for TLS too: where it shares the CPUs or fills its own (client % near 100), judge
by CPU.";

const CLUSTER_FLAGS: &[Flag] = &[
    LEFT,
    RIGHT,
    Flag {
        name: "rounds",
        value: "N",
        default: "3",
        help: "how often each cluster is started and measured, in turn",
    },
    Flag {
        name: "strikes",
        value: "N",
        default: "2",
        help: "how often its leader is killed, and stopped, in each round",
    },
    Flag {
        name: "clients",
        value: "N",
        default: "64",
        help: "how many clients put, one request each at a time",
    },
    Flag {
        name: "connections",
        value: "N",
        default: "64",
        help: "HTTP/2 connections, to all members in turn",
    },
    Flag { name: "keys", value: "N", default: "10000", help: "how many keys requests choose from, evenly" },
    KEY_BYTES,
    VALUE_BYTES,
    Flag { name: "seconds", value: "S", default: "10", help: "how long to measure puts in each round" },
    Flag {
        name: "after",
        value: "S",
        default: "5",
        help: "how long to look for a gap after the leader is lost",
    },
    WARMUP,
    PINNED,
    DIR,
    JSON,
];
const CLUSTER_NOTES: &str = "\
A round starts three members on loopback in empty directories (election 1000 ms, heartbeat 100 ms), measures
puts, and takes the leader away under them: by kill -9, and by SIGSTOP, which leaves its connections open. A
client that is refused, or waits for 200 to 600 ms, goes on to the next member. A gap is the longest time
without an acknowledged write over all clients. Goals: three times the throughput and a third of the p99 of
the left server, and gaps no longer than its. CPU is that of all members.";

const CATCH_UP_FLAGS: &[Flag] = &[
    SERVER,
    Flag { name: "mib", value: "N", default: "2048", help: "how much the follower misses" },
    IN_FLIGHT,
    CONNECTIONS,
    Flag {
        name: "keys",
        value: "N",
        default: "10000",
        help: "how many keys the load beside it chooses from, evenly",
    },
    KEY_BYTES,
    Flag { name: "value-bytes", value: "N", default: "256", help: "length of a value of the load beside it" },
    Flag {
        name: "seconds",
        value: "S",
        default: "20",
        help: "how long to measure before the follower is back",
    },
    WARMUP,
    PINNED,
    DIR,
    JSON,
];
const CATCH_UP_NOTES: &str = "\
Starts three members, kills a follower, puts values of 16 KiB until it has missed enough, measures puts to
the other two, starts it again, and measures the same puts until it answers a linearizable read, for which
it needs all that was written. Goal: the leader's anonymous memory (RssAnon) is at most 64 MiB above its
highest before.";

macro_rules! load_command {
    ($name:literal, $about:literal $(, $more:expr)?) => {
        Command { name: $name, about: $about, flags: &[LOAD_FLAGS $(, $more)?], notes: LOAD_NOTES }
    };
}

pub static COMMANDS: &[Command] = &[
    load_command!("put", "Puts of random keys."),
    load_command!("get", "Linearizable gets of random keys."),
    load_command!("get-serializable", "Serializable gets of random keys."),
    load_command!("txn", "Transactions: if the key exists (mod revision above 0), put it, else get it."),
    load_command!("range", "Pages: the pairs from a random key on.", RANGE_FLAGS),
    load_command!("mixed", "Linearizable gets and puts, mixed.", MIXED_FLAGS),
    Command {
        name: "compare",
        about: "Measures two servers in turn: put, get, serializable get and txn.",
        flags: &[COMPARE_FLAGS],
        notes: COMPARE_NOTES,
    },
    Command {
        name: "scale",
        about: "Loads many keys into two servers in turn: memory, restart, file, count and page.",
        flags: &[SCALE_FLAGS],
        notes: SCALE_NOTES,
    },
    Command {
        name: "compaction",
        about: "Puts with a large compaction beside them and without, in turn.",
        flags: &[COMPACTION_FLAGS],
        notes: COMPACTION_NOTES,
    },
    Command {
        name: "guards",
        about: "Puts and lists of two servers in turn: plain, under TLS, with authentication.",
        flags: &[GUARDS_FLAGS],
        notes: GUARDS_NOTES,
    },
    Command {
        name: "cluster",
        about: "Three members of two servers in turn: puts, and gaps in them when the leader is lost.",
        flags: &[CLUSTER_FLAGS],
        notes: CLUSTER_NOTES,
    },
    Command {
        name: "catch-up",
        about: "A follower that missed much comes back under load.",
        flags: &[CATCH_UP_FLAGS],
        notes: CATCH_UP_NOTES,
    },
];

fn overview() -> String {
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or_default();
    let lines: Vec<String> =
        COMMANDS.iter().map(|command| format!("  {:<width$}  {}", command.name, command.about)).collect();
    format!(
        "A load generator for any etcd v3 server.\n\n\
         Usage: cairn-bench COMMAND [flags]\n\n\
         Commands:\n{}\n\n\
         cairn-bench COMMAND --help lists the flags of a command.\n\
         Exit codes: {EXIT_OK} all went well, {EXIT_FAILED} a request failed or a goal has no figure, \
         {EXIT_COULD_NOT_RUN} could not run, {EXIT_USAGE} wrong usage.\n",
        lines.join("\n")
    )
}

/// What a command line asks for.
enum Wanted {
    Text(String),
    Single(single::Plan),
    Compare(compare::Plan),
    Scale(scale::Plan),
    Compaction(compaction::Plan),
    Guards(guards::Plan),
    Cluster(cluster::Plan),
    CatchUp(catch_up::Plan),
}

/// Runs the tool with these words after its name.
pub fn run(words: &[String]) -> ExitCode {
    let code = match wanted(words) {
        Ok(Wanted::Text(text)) => {
            print!("{text}");
            EXIT_OK
        }
        Ok(wanted) => match measure(wanted) {
            Ok(true) => EXIT_OK,
            Ok(false) => EXIT_FAILED,
            Err(reason) => {
                eprintln!("cairn-bench: {reason}");
                EXIT_COULD_NOT_RUN
            }
        },
        Err(Usage(what)) => {
            eprintln!("cairn-bench: {what}");
            EXIT_USAGE
        }
    };
    ExitCode::from(code)
}

/// True if every request was answered and every goal has a figure.
fn measure(wanted: Wanted) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| format!("the runtime: {e}"))?.block_on(async {
        let stop = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        let (mut interrupt, mut terminate) = (stop(SignalKind::interrupt())?, stop(SignalKind::terminate())?);
        let work = async {
            match wanted {
                Wanted::Text(_) => Ok(true),
                Wanted::Single(plan) => single::run(&plan).await,
                Wanted::Compare(plan) => compare::run(&plan).await,
                Wanted::Scale(plan) => scale::run(&plan).await,
                Wanted::Compaction(plan) => compaction::run(&plan).await,
                Wanted::Guards(plan) => guards::run(&plan).await,
                Wanted::Cluster(plan) => cluster::run(&plan).await,
                Wanted::CatchUp(plan) => catch_up::run(&plan).await,
            }
        };
        // A server that was started ends with the work that is dropped here.
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => Err("interrupted".to_owned()),
            _ = terminate.recv() => Err("terminated".to_owned()),
        }
    })
}

fn wanted(words: &[String]) -> Result<Wanted, Usage> {
    let unknown = |what: String| Usage(format!("{what}; see cairn-bench --help"));
    let (first, rest) = words.split_first().ok_or_else(|| unknown("a command is needed".to_owned()))?;
    match first.as_str() {
        "help" | "--help" | "-h" => return Ok(Wanted::Text(overview())),
        "--version" => return Ok(Wanted::Text(format!("cairn-bench {}\n", env!("CARGO_PKG_VERSION")))),
        _ => {}
    }
    let command = COMMANDS
        .iter()
        .find(|command| command.name == first)
        .ok_or_else(|| unknown(format!("no command {first:?}")))?;
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Wanted::Text(command.help()));
    }
    let args = Args::parse(command, rest)?;
    match command.name {
        "compare" => Ok(Wanted::Compare(plans::compare(&args)?)),
        "scale" => Ok(Wanted::Scale(plans::scale(&args)?)),
        "compaction" => Ok(Wanted::Compaction(plans::compaction(&args)?)),
        "guards" => Ok(Wanted::Guards(plans::guards(&args)?)),
        "cluster" => Ok(Wanted::Cluster(plans::cluster(&args)?)),
        "catch-up" => Ok(Wanted::CatchUp(plans::catch_up(&args)?)),
        name => Ok(Wanted::Single(plans::single(name, &args)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn said(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match wanted(&words) {
            Ok(Wanted::Text(text)) => text,
            Ok(_) => "runs".to_owned(),
            Err(Usage(what)) => what,
        }
    }

    #[test]
    fn mistakes_on_the_command_line_are_told_before_anything_runs() {
        let lines = [
            "",
            "putt",
            "put --limit 5",
            "put --endpoint https://a:1",
            "put --key-bytes 22",
            "put --seconds 0",
            "put --seconds NaN",
            "put --rate 0",
            "range --limit 0",
            "mixed --reads-per-write 0",
            "get --pid x",
            "compare --rounds 0",
            "compare --left '",
            "compare --in-flight 64,0",
            "scale --restarts many",
            "compaction --rounds 0",
            "guards --in-flight 64,1000",
            "cluster --strikes 0",
            "catch-up --mib 0",
        ];
        let table: Vec<String> = lines.iter().map(|line| format!("{line:<27} {}", said(line))).collect();
        expect![[r#"
                                        a command is needed; see cairn-bench --help
            putt                        no command "putt"; see cairn-bench --help
            put --limit 5               no flag --limit; see cairn-bench put --help
            put --endpoint https://a:1  endpoint https://a:1: TLS is not spoken here; give an http:// one
            put --key-bytes 22          --key-bytes is 22, and must be 23 to 65536; see cairn-bench put --help
            put --seconds 0             --seconds is 0, and must be 0.1 to 86400; see cairn-bench put --help
            put --seconds NaN           --seconds is NaN, and must be 0.1 to 86400; see cairn-bench put --help
            put --rate 0                --rate is 0, and must be 0.01 to 10000000
            range --limit 0             --limit is 0, and must be 1 to 1000000; see cairn-bench range --help
            mixed --reads-per-write 0   --reads-per-write is 0, and must be 1 to 1000000; see cairn-bench mixed --help
            get --pid x                 --pid "x": invalid digit found in string; see cairn-bench get --help
            compare --rounds 0          --rounds is 0, and must be 1 to 1000; see cairn-bench compare --help
            compare --left '            --left: a quote is open in "'"
            compare --in-flight 64,0    --in-flight is 0, and must be 1 to 100000; see cairn-bench compare --help
            scale --restarts many       --restarts "many": invalid digit found in string; see cairn-bench scale --help
            compaction --rounds 0       --rounds is 0, and must be 1 to 1000; see cairn-bench compaction --help
            guards --in-flight 64,1000  --in-flight "64,1000": invalid digit found in string; see cairn-bench guards --help
            cluster --strikes 0         --strikes is 0, and must be 1 to 1000; see cairn-bench cluster --help
            catch-up --mib 0            --mib is 0, and must be 1 to 1048576; see cairn-bench catch-up --help"#]].assert_eq(&table.join("\n"));
    }

    #[test]
    fn every_command_runs_with_its_defaults_and_explains_itself_within_a_screens_width() {
        for command in COMMANDS {
            assert_eq!(said(command.name), "runs", "{}", command.name);
            let help = said(&format!("{} --help", command.name));
            assert!(help.contains(command.about) && said("--help").contains(command.about));
            for line in help.lines() {
                assert!(line.chars().count() <= 110, "{}: {line}", command.name);
            }
        }
    }

    #[test]
    fn two_servers_of_one_name_are_told_apart() {
        let words = ["--left".to_owned(), "/a/etcd".into(), "--right".into(), "/b/etcd --x".into()];
        let command = COMMANDS.iter().find(|c| c.name == "compare").expect("it is a command");
        let [left, right] =
            plans::sides(&Args::parse(command, &words).expect("flags of compare")).expect("two programs");
        assert_eq!((left.name.as_str(), right.name.as_str()), ("etcd (left)", "etcd (right)"));
    }
}
