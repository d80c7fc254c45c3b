// SPDX-License-Identifier: Apache-2.0
//! What `etcdctl` 3.5.1 prints against Cairn is what it prints against etcd 3.5.1.
//!
//! Owns      the telling of `tests/data/etcdctl.script`, and of the one about users, to both servers, and the
//!           table of masks.
//! Holds     1. both servers are fresh, and get the same commands in the same order;
//!           2. a command whose outputs differ after the masks fails the test, unless the script names the
//!              rule under which it may; and a rule so named must be needed.
//! Never     waits for a time: it waits for lines, and a command that hangs is ended and fails.

mod cluster;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cairn_tests::scale::score;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools::{self, Etcd};
use regex::Regex;

/// A command that has not ended by then hangs. Ten times what the slowest (a lease that expires) takes.
const HUNG: Duration = Duration::from_secs(60);

/// What differs between any two servers, or between any two runs of one: the pattern, what stands for it,
/// and why. Applied in order to each line of output.
const MASKS: &[(&str, &str, &str)] = &[
    (r"127\.0\.0\.1:\d+", "HOST", "each server has its own port"),
    (r#""(cluster_id|member_id|leader|ID|memberID)":\d+"#, r#""$1":ID"#, "ids come from peer URLs"),
    (r#""(ClusterID|MemberID|Leader)" : \d+"#, r#""$1" : ID"#, "ids come from peer URLs"),
    (r"memberID:\d+", "memberID:ID", "ids come from peer URLs"),
    (r#""(raft_term|raftTerm|RaftTerm)":\d+"#, r#""$1":TERM"#, "elections differ"),
    (r#""RaftTerm" : \d+"#, r#""RaftTerm" : TERM"#, "elections differ"),
    (r#""(raftIndex|raftAppliedIndex)":\d+"#, r#""$1":INDEX"#, "each keeps its own records in the log"),
    (r#""(dbSize|dbSizeInUse|dbSizeQuota)":\d+"#, r#""$1":BYTES"#, "another file format"),
    (r#","(storageVersion|dbSizeQuota|downgradeInfo)":("[^"]*"|[A-Z]+|\{\})"#, "", "fields that 3.5.1 lacks"),
    (r#""version":"3\.\d+\.\d+""#, r#""version":"VERSION""#, "3.5.1 beside 3.7.1"),
    (r"took = [0-9.]+[mµn]?s", "took = TIME", "a time"),
    (r#""took":"[^"]*""#, r#""took":"TIME""#, "a time"),
    (r"took [0-9.]+[mµn]?s", "took TIME", "a time"),
    (r"remaining\(\d+s\)", "remaining(LEFT)", "a time"),
    (r#""ttl":\d+"#, r#""ttl":LEFT"#, "a time"),
    (r#"^\{"level":.*\}$"#, "LOG", "the client's own log line: it names times and addresses"),
    (r"^http://HOST, \d+$", "http://HOST, HASH", "hashes cover leases, which the server picks"),
    (r#""hash":\d+"#, r#""hash":HASH"#, "hashes cover leases, which the server picks"),
    (r#","hash_revision":\d+"#, "", "a field that 3.5.1 lacks"),
    (r"/[0-9a-f]{12,16}\b", "/LEASE", "a lease of a session, picked by the server"),
];

/// Whole commands whose answers name the server itself: what is masked in them beyond the lines above.
const STATUS: &[(&str, &str, &str)] = &[
    (
        r"HOST, [0-9a-f]+, 3\.\d+\.\d+, [0-9.]+ [kM]?B, (true|false), (true|false), \d+, \d+, \d+,",
        "HOST, STATUS, $1, $2,",
        "status",
    ),
    (r"\|\s+http://HOST \| +[0-9a-f]+ \|.*", "| HOST | STATUS |", "status as a table"),
    (r"^\+[-+]+\+$", "+--+", "column widths follow sizes"),
    (r"^\|\s+ENDPOINT.*", "| HEADER |", "column widths follow sizes"),
    (r"\b[0-9a-f]{12,16}, started", "ID, started", "ids come from peer URLs"),
    (
        r"^\| +[0-9a-f]{12,16} \| +(un)?started.*",
        "| ID | ${1}MEMBER |",
        "ids come from peer URLs: some are short",
    ),
    (r"^\|\s+ID\s+\| STATUS.*", "| HEADER |", "column widths follow ids"),
];

enum Step {
    Run { keep: Option<String>, args: String, input: String },
    Start { name: String, args: String, input: String },
    End { name: String, lines: usize },
}

/// The script as steps, each with its line number and the rule under which it may differ.
fn parse(script: &str) -> Vec<(usize, Step, Option<String>)> {
    let mut steps: Vec<(usize, Step, Option<String>)> = Vec::new();
    for (number, line) in script.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        let Some(mark) = line.chars().next() else { continue };
        let rest = &line[mark.len_utf8()..];
        let (name, args) = rest.split_once(' ').unwrap_or((rest, ""));
        match mark {
            '#' => {}
            '<' => match &mut steps.last_mut().expect("input follows a command").1 {
                Step::Run { input, .. } | Step::Start { input, .. } => {
                    input.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                    input.push('\n');
                }
                Step::End { .. } => panic!("line {number}: input for a command that is ended"),
            },
            '$' => {
                let keep = (!name.is_empty()).then(|| name.to_owned());
                steps.push((number, Step::Run { keep, args: args.to_owned(), input: String::new() }, None));
            }
            '&' => steps.push((
                number,
                Step::Start { name: name.to_owned(), args: args.to_owned(), input: String::new() },
                None,
            )),
            '.' => {
                let lines = args.parse().unwrap_or_else(|_| panic!("line {number}: a count of lines"));
                steps.push((number, Step::End { name: name.to_owned(), lines }, None));
            }
            '~' => steps.last_mut().expect("a rule follows a command").2 = Some(rest.trim().to_owned()),
            _ => panic!("line {number}: `{mark}` is none of # $ & . < ~"),
        }
    }
    steps
}

/// Words as a shell splits them, with `"…"` and nothing else.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

struct Running {
    child: Child,
    lines: Receiver<String>,
    /// Open for as long as the command runs: `watch -i` ends with its input.
    _input: ChildStdin,
}

/// One server and what the story has told it so far.
struct Teller {
    etcdctl: std::path::PathBuf,
    /// It runs as long as it is here.
    _server: Server,
    kept: BTreeMap<String, String>,
    running: BTreeMap<String, Running>,
    endpoint: String,
    /// Where the certificates are.
    certs: String,
    masks: Vec<(Regex, &'static str)>,
}

impl Teller {
    async fn new(etcd: &Etcd, program: Program, certs: &str) -> Self {
        let masks = MASKS.iter().chain(STATUS);
        let masks = masks.map(|(pattern, by, _)| (Regex::new(pattern).expect("a mask is a pattern"), *by));
        let secure = program.secure;
        let server = Server::start(program).await;
        Teller {
            etcdctl: etcd.etcdctl.clone(),
            endpoint: if secure { server.secure_url() } else { server.url() },
            certs: certs.to_owned(),
            _server: server,
            kept: BTreeMap::new(),
            running: BTreeMap::new(),
            masks: masks.collect(),
        }
    }

    fn command(&self, args: &str) -> Command {
        let mut filled = args.replace("{certs}", &self.certs);
        for (name, value) in &self.kept {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        let mut command = Command::new(&self.etcdctl);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg(format!("--endpoints={}", self.endpoint)).args(words(&filled));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn mask(&self, text: &str) -> String {
        let mut masked = String::new();
        for line in text.lines() {
            let mut line = line.to_owned();
            for (name, hex) in &self.kept {
                let decimal = i64::from_str_radix(hex, 16).expect("a lease is hexadecimal").to_string();
                line = line.replace(hex, &format!("{{{name}}}")).replace(&decimal, &format!("{{{name}}}"));
            }
            for (pattern, by) in &self.masks {
                line = pattern.replace_all(&line, *by).into_owned();
            }
            masked.push_str(&line);
            masked.push('\n');
        }
        masked
    }

    /// Tells one step and gives what it showed, masked.
    fn tell(&mut self, step: &Step) -> String {
        match step {
            Step::Run { keep, args, input } => {
                let (code, out, err) = run(self.command(args), input);
                if let Some(name) = keep {
                    let hex = Regex::new("[0-9a-f]{16}").expect("a pattern").find(&out);
                    let hex = hex.unwrap_or_else(|| panic!("`{args}` printed no lease: {out}{err}")).as_str();
                    self.kept.insert(name.clone(), hex.to_owned());
                }
                format!("exit {code}\n{}{}", self.mask(&out), self.mask(&err))
            }
            Step::Start { name, args, input } => {
                let mut child = self.command(args).spawn().expect("etcdctl starts");
                let mut stdin = child.stdin.take().expect("piped");
                stdin.write_all(input.as_bytes()).expect("etcdctl reads its input");
                let (sender, lines) = channel();
                let out = BufReader::new(child.stdout.take().expect("piped"));
                std::thread::spawn(move || {
                    out.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
                });
                self.running.insert(name.clone(), Running { child, lines, _input: stdin });
                String::new()
            }
            Step::End { name, lines } => {
                let mut running = self.running.remove(name).expect("it was started");
                let (mut shown, deadline) = (String::new(), Instant::now() + HUNG);
                for _ in 0..*lines {
                    match running.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                        Ok(line) => shown.push_str(&format!("{line}\n")),
                        Err(RecvTimeoutError::Timeout) => shown.push_str("(hung)\n"),
                        Err(RecvTimeoutError::Disconnected) => shown.push_str("(ended)\n"),
                    }
                }
                running.child.kill().expect("it can be ended");
                running.child.wait().expect("it ends");
                self.mask(&shown)
            }
        }
    }
}

fn run(mut command: Command, input: &str) -> (i32, String, String) {
    let mut child = command.spawn().expect("etcdctl starts");
    // A command that fails early closes its input before it is written: that is its answer, not ours.
    let written = child.stdin.take().expect("piped").write_all(input.as_bytes());
    if let Err(error) = written {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "writing the input of etcdctl: {error}");
    }
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let (sender, done) = channel();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let read = err.read_to_string(&mut text).map(|_| text);
        sender.send(()).ok();
        read
    });
    if done.recv_timeout(HUNG).is_err() {
        child.kill().expect("it can be ended");
    }
    let code = child.wait().expect("it ends").code().unwrap_or(-1);
    (code, reader.join().expect("read").expect("text"), errors.join().expect("read").expect("text"))
}

#[tokio::test]
async fn etcdctl_prints_the_same_against_both_servers() {
    let told = tell_both(include_str!("../../data/etcdctl.script"), "", &[], &[]).await;
    assert!(told.is_none_or(|told| score("etcdctl outputs compared", told, 140)), "the script lost some");
}

#[tokio::test]
async fn etcdctl_prints_the_same_about_users_and_roles() {
    let flags = ["--bcrypt-cost=4"];
    let told =
        tell_both(include_str!("../../data/etcdctl-auth.script"), "", &flags, &["--auth-failure-rate=0"])
            .await;
    assert!(
        told.is_none_or(|told| score("etcdctl auth outputs compared", told, 120)),
        "the script lost some"
    );
}

#[tokio::test]
async fn etcdctl_prints_the_same_with_client_certificates() {
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().display().to_string();
    let stranger = format!("{certs}/stranger");
    cert(&["init"], &certs);
    cert(&["issue", "server", "server", "--hosts=127.0.0.1,localhost"], &certs);
    for name in ["root", "writer", "reader", "nobody"] {
        cert(&["issue", "client", name], &certs);
    }
    cert(&["init", "--name=A stranger"], &stranger);
    cert(&["issue", "client", "root"], &stranger);
    let flags = [
        format!("--cert-file={certs}/server.pem"),
        format!("--key-file={certs}/server.key"),
        format!("--trusted-ca-file={certs}/ca.pem"),
        "--client-cert-auth".into(),
        "--bcrypt-cost=4".into(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let told = tell_both(include_str!("../../data/etcdctl-tls.script"), &certs, &flags, &[]).await;
    assert!(told.is_none_or(|told| score("etcdctl TLS outputs compared", told, 40)), "the script lost some");
}

/// Runs `cairn cert` on a directory.
fn cert(arguments: &[&str], dir: &str) {
    let output =
        Command::new(tools::cairn()).arg("cert").args(arguments).arg(format!("--dir={dir}")).output();
    let output = output.expect("cairn runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Tells a script to both servers; the number of outputs compared, or `None` without the reference.
async fn tell_both(script: &str, certs: &str, flags: &[&str], of_cairn: &[&str]) -> Option<usize> {
    let reference = tools::etcd()?;
    let with = |program: Program, flags: &[&str]| {
        let program = flags.iter().fold(program, |program, flag| program.arg(*flag));
        if certs.is_empty() { program } else { program.secure() }
    };
    let steps = parse(script);
    let mut etcd = Teller::new(&reference, with(Program::etcd(&reference), flags), certs).await;
    let mut cairn = Teller::new(&reference, with(with(Program::cairn(), flags), of_cairn), certs).await;
    let mut differences = Vec::new();
    let mut told = 0;
    for (number, step, rule) in &steps {
        let (expected, got) = (etcd.tell(step), cairn.tell(step));
        told += usize::from(!matches!(step, Step::Start { .. }));
        let text = match step {
            Step::Run { args, .. } | Step::Start { args, .. } => args,
            Step::End { name, .. } => name,
        };
        match (expected == got, rule) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(rule)) => {
                differences.push(format!("line {number}: `{text}` no longer differs: {rule}"))
            }
            (false, None) => {
                differences.push(format!("line {number}: `{text}`\n--- etcd\n{expected}--- cairn\n{got}"))
            }
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
    Some(told)
}
