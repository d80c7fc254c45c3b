// SPDX-License-Identifier: Apache-2.0
//! Three members of etcd 3.5.1 and three of Cairn are told the same about members, and a learner joins both.
//!
//! Owns      the story, and what is masked beside the tables of the one-member stories.
//! Holds     lines are compared in order of their text: members are listed by id, and ids differ.
//! Never     waits for a time: what is refused because the cluster is young is asked for again.

use super::{MASKS, STATUS, run, words};
use cairn_tests::scale::score;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;
use regex::Regex;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names of members within JSON are in the order of ids.
const ORDERED: &[(&str, &str, &str)] = &[
    (r#""name":"[a-z0-9]+""#, r#""name":"NAME""#, "the order is that of ids"),
    (r#"ETCD_INITIAL_CLUSTER=".*""#, "ETCD_INITIAL_CLUSTER=ALL", "the order is that of ids"),
    (r"(Member|cluster) +([0-9a-f])", "$1 $2", "an id of fewer digits is padded"),
    (r#"(cluster version |"version":")3\.\d+"#, "${1}VERSION", "3.5 beside 3.7"),
    (r"\b[0-9a-f]{12,16}\b", "ID", "ids come from peer URLs and, of those that are added, from the clock"),
];

/// What is told, in order. `{NAME}` is the id of a member, `{NAME url}` its peer URL; names are those of the
/// servers, and `leader` and `follower` whoever that is. `{below}` is the version that the cluster can go down to.
enum Step {
    /// etcdctl with these arguments, against all members that run.
    Tell(&'static str),
    /// The same against one.
    TellOne(&'static str, &'static str),
    /// The same as the first, until the members have been connected for long enough (SR-2).
    Healthy(&'static str),
    /// The same as the first, until it succeeds: the learner has caught up.
    Done(&'static str),
    /// Starts the server of this name, which was added.
    Join(&'static str),
    /// kill -9.
    Kill(&'static str),
    /// It is not a member any more, and ends by itself.
    Ends(&'static str),
}

const STORY: &[Step] = &[
    Step::Tell("put foo bar"),
    Step::Tell("member list"),
    Step::Tell("member list -w json"),
    Step::Tell("member list -w table"),
    Step::Tell("endpoint health --cluster"),
    Step::Tell("endpoint status --cluster"),
    Step::Tell("endpoint status --cluster -w json"),
    Step::Tell("endpoint hashkv --cluster"),
    Step::Tell("endpoint hashkv --cluster -w json"),
    Step::Tell("move-leader {follower}"),
    Step::Tell("move-leader 7b"),
    Step::Tell("move-leader"),
    Step::Tell("move-leader x"),
    Step::TellOne("follower", "move-leader {leader}"),
    Step::Tell("get foo"),
    Step::Tell("downgrade validate {below}"),
    Step::Tell("downgrade validate {below} -w json"),
    Step::Tell("downgrade validate 2.0"),
    Step::TellOne("follower", "downgrade enable {below}"),
    Step::Tell("downgrade cancel"),
    Step::Tell("downgrade enable 3.99"),
    Step::Tell("member remove 7b"),
    Step::Tell("member remove x"),
    Step::Tell("member remove"),
    Step::Tell("member update 7b --peer-urls=http://127.0.0.1:1"),
    Step::Tell("member promote 7b"),
    Step::Tell("member promote {m0}"),
    Step::Healthy("member add new --peer-urls=http://127.0.0.1:1/path"),
    Step::Healthy("member add new --peer-urls={m1 url}"),
    Step::Tell("member add new"),
    Step::Tell("member add --peer-urls={new url}"),
    Step::Healthy("member add new --peer-urls={new url} --learner"),
    Step::Healthy("member add other --peer-urls=http://127.0.0.1:1 --learner"),
    Step::Tell("member list"),
    Step::Tell("member promote {new}"),
    Step::Join("new"),
    Step::Tell("member list"),
    Step::TellOne("new", "get foo --consistency=s"),
    Step::TellOne("new", "get foo"),
    Step::TellOne("new", "put foo bar"),
    Step::TellOne("new", "member list"),
    Step::TellOne("new", "endpoint status"),
    Step::Tell("move-leader {new}"),
    Step::Done("member promote {new}"),
    Step::Tell("member promote {new}"),
    Step::Tell("member list"),
    Step::TellOne("new", "get foo"),
    Step::Tell("member update {new} --peer-urls={new url}"),
    Step::Tell("member update {new} --peer-urls={m1 url}"),
    Step::Tell("endpoint status --cluster"),
    Step::Healthy("member remove {new}"),
    Step::Ends("new"),
    Step::Tell("member list"),
    Step::Kill("m2"),
    Step::Done("member remove {m2}"),
    Step::Tell("member list"),
    Step::Tell("put foo baz"),
    Step::Tell("get foo"),
    Step::Tell("endpoint hashkv --cluster"),
];

/// A step that is tried again has succeeded by then.
const PATIENCE: Duration = Duration::from_secs(60);

type Masks = Vec<(Regex, &'static str)>;

fn masks() -> Masks {
    let masks = MASKS.iter().chain(STATUS).chain(ORDERED);
    masks.map(|(pattern, by, _)| (Regex::new(pattern).expect("a mask is a pattern"), *by)).collect()
}

fn masked(masks: &Masks, line: &str) -> String {
    masks.iter().fold(line.to_owned(), |line, (pattern, by)| pattern.replace_all(&line, *by).into_owned())
}

struct Cluster {
    etcdctl: PathBuf,
    servers: Vec<(String, Server)>,
    masks: Masks,
}

impl Cluster {
    async fn new(etcdctl: PathBuf, program: &Program) -> Cluster {
        let mut servers = Server::start_cluster(program, 3).await;
        servers.push(("new".to_owned(), Server::idle(program.clone())));
        Cluster { etcdctl, servers, masks: masks() }
    }

    fn server(&self, name: &str) -> &Server {
        &self.servers.iter().find(|(known, _)| known == name).expect("a server of the story").1
    }

    fn live(&self) -> impl Iterator<Item = &(String, Server)> {
        self.servers.iter().filter(|(_, server)| server.is_running())
    }

    fn ask(&self, endpoints: &[String], args: &str) -> (i32, String, String) {
        let mut command = Command::new(&self.etcdctl);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg(format!("--endpoints={}", endpoints.join(","))).args(words(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(command, "")
    }

    /// Ids by name, of those that have not started by peer URL; and the leader's.
    fn ids(&self) -> (Vec<(String, String)>, String) {
        let one = [self.live().next().expect("one runs").1.url()];
        let (_, listed, _) = self.ask(&one, "member list");
        let mut ids = Vec::new();
        for line in listed.lines() {
            let fields: Vec<&str> = line.split(", ").collect();
            let by_url = self.servers.iter().find(|(_, server)| server.peer_url() == fields[3]);
            let name = by_url.map_or(fields[2], |(name, _)| name);
            ids.push((name.to_owned(), fields[0].to_owned()));
        }
        let (_, status, _) = self.ask(&one, "endpoint status -w json");
        let leader = Regex::new(r#""leader":(\d+)"#).expect("a pattern").captures(&status).expect("a leader");
        (ids, format!("{:x}", leader[1].parse::<u64>().expect("a number")))
    }

    fn below(&self) -> String {
        let (_, status, _) = self.ask(&[self.live().next().expect("one runs").1.url()], "endpoint status");
        let version =
            Regex::new(r", 3\.(\d+)\.\d+,").expect("a pattern").captures(&status).expect("a version");
        format!("3.{}", version[1].parse::<u32>().expect("a number") - 1)
    }

    /// The name of the server that `leader`, `follower` or a name stands for.
    fn named(&self, name: &str) -> String {
        let (ids, leader) = self.ids();
        let leads = |name: &String| ids.iter().any(|(known, id)| known == name && *id == leader);
        let found = match name {
            "leader" => self.live().find(|(name, _)| leads(name)),
            "follower" => self.live().find(|(name, _)| !leads(name)),
            name => self.servers.iter().find(|(known, _)| known == name),
        };
        found.expect("a server of the story").0.clone()
    }

    fn fill(&self, args: &str) -> String {
        let braces = Regex::new(r"\{(\w+)( url)?\}").expect("a pattern");
        let filled = braces.replace_all(args, |found: &regex::Captures<'_>| {
            if &found[1] == "below" {
                return self.below();
            }
            let name = self.named(&found[1]);
            if found.get(2).is_some() {
                return self.server(&name).peer_url();
            }
            let (ids, _) = self.ids();
            ids.into_iter().find(|(known, _)| *known == name).map_or("7b".to_owned(), |(_, id)| id)
        });
        filled.into_owned()
    }

    fn mask(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(|line| masked(&self.masks, line)).collect();
        lines.sort_unstable();
        // A learner of 3.5.1 says Unavailable, after which its client tries again: a line for each time (LR-2).
        lines.dedup_by(|line, before| line == "LOG" && before == "LOG");
        lines.join("\n") + "\n"
    }

    fn told(&self, endpoints: &[String], args: &str) -> (i32, String) {
        let (code, out, err) = self.ask(endpoints, &self.fill(args));
        (code, format!("exit {code}\n{}{}", self.mask(&out), self.mask(&err)))
    }

    fn all(&self) -> Vec<String> {
        self.live().filter(|(name, _)| name != "new").map(|(_, server)| server.url()).collect()
    }

    /// Asks again while `again` says so.
    fn told_until(&self, args: &str, again: impl Fn(i32, &str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let (code, told) = self.told(&self.all(), args);
            if !again(code, &told) || begin.elapsed() > PATIENCE {
                return told;
            }
        }
    }

    async fn tell(&mut self, step: &Step) -> String {
        match step {
            Step::Tell(args) => self.told(&self.all(), args).1,
            Step::TellOne(name, args) => self.told(&[self.server(&self.named(name)).url()], args).1,
            Step::Healthy(args) => self.told_until(args, |_, told| told.contains("unhealthy cluster")),
            Step::Done(args) => self.told_until(args, |code, _| code != 0),
            Step::Join(name) => {
                let named = |(name, server): &(String, Server)| format!("{name}={}", server.peer_url());
                let cluster = self.servers.iter().map(named).collect::<Vec<_>>().join(",");
                let server = self.servers.iter_mut().find(|(known, _)| known == name);
                let server = &mut server.expect("a server of the story").1;
                let flags = [format!("--name={name}"), format!("--initial-cluster={cluster}")];
                server.give(flags.into_iter().chain(["--initial-cluster-state=existing".to_owned()]));
                server.start_learner().await;
                String::new()
            }
            Step::Kill(name) => {
                let server = self.servers.iter_mut().find(|(known, _)| known == name);
                server.expect("a server of the story").1.kill();
                String::new()
            }
            Step::Ends(name) => {
                let server = self.servers.iter_mut().find(|(known, _)| known == name);
                format!("{}\n", server.expect("a server of the story").1.ended().await)
            }
        }
    }
}

#[test]
fn an_id_of_fewer_digits_is_masked_as_any_other() {
    let rows = |id: &str| {
        [
            format!("| {id:>16} | started | m0 | http://127.0.0.1:1 | http://127.0.0.1:2 |      false |"),
            format!("| {id:>16} | unstarted |    | http://127.0.0.1:1 |                    |       true |"),
            format!("| http://127.0.0.1:1 | {id:>16} |  3.5.1 |   20 kB |     false |      false |"),
            format!("{id}, started, m0, http://127.0.0.1:1, http://127.0.0.1:2, false"),
            format!("Member {id:>16} removed from cluster {id:>16}"),
        ]
    };
    let masks = masks();
    for (short, long) in rows("38789a874c66").iter().zip(rows("da6baa20993bcd82")) {
        assert_eq!(masked(&masks, short), masked(&masks, &long));
    }
}

#[tokio::test]
async fn etcdctl_prints_the_same_about_three_members() {
    let Some(reference) = tools::etcd() else { return };
    let mut etcd = Cluster::new(reference.etcdctl.clone(), &Program::etcd(&reference)).await;
    let mut cairn = Cluster::new(reference.etcdctl.clone(), &Program::cairn()).await;
    let mut differences = Vec::new();
    for (number, step) in STORY.iter().enumerate() {
        let (expected, got) = (etcd.tell(step).await, cairn.tell(step).await);
        let text = match step {
            Step::Tell(args) | Step::TellOne(_, args) | Step::Healthy(args) | Step::Done(args) => args,
            Step::Join(name) | Step::Kill(name) | Step::Ends(name) => name,
        };
        if expected != got {
            differences.push(format!("step {number}: `{text}`\n--- etcd\n{expected}--- cairn\n{got}"));
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
    assert!(score("etcdctl outputs about members compared", STORY.len(), 56), "the story lost some");
}
