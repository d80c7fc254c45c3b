// SPDX-License-Identifier: Apache-2.0
//! `cairn cert`: certificates for those who have no authority.
//!
//! Owns      the command line of `init`, `issue` and `rotate`, and what they print.
//! Holds     a command that fails says what, where and what to do, on standard error, with status 1; one that
//!           cannot be read has status 2.
//! Never     talks to a member: one that runs sees by itself that its files have changed.

mod authority;

use crate::tls::load::TlsError;
use authority::{Authority, Found, Purpose, paths};
use serde_json::json;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

const USAGE: &str = "\
Usage: cairn cert init   [--dir=certs] [--name=NAME] [--days=3650]
       cairn cert issue  server|peer|client NAME [--hosts=LIST] [--dir=certs] [--days=365]
       cairn cert rotate [--within=30] [--dir=certs] [--days=365]

init    makes an authority: ca.pem, which everyone trusts, and ca.key, which stays where it is
issue   makes NAME.pem and NAME.key. server and peer need the hosts that they are called by, names and
        addresses; the NAME of a client is that of its user (--client-cert-auth)
rotate  makes every certificate anew that ends within so many days, under its name and for its hosts;
        members that run take it up by themselves
--json  prints lines of JSON instead of a table

Start a member with --cert-file=certs/NAME.pem --key-file=certs/NAME.key --trusted-ca-file=certs/ca.pem, and one of a
cluster with --peer-cert-file, --peer-key-file and --peer-trusted-ca-file too, of a certificate for peers.
";

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// With what is to be printed.
    Done(String),
    /// It could not be done.
    Failed(String),
    Usage(String),
}

/// Runs the command of these arguments, which stand after `cert`.
pub fn run(arguments: &[String]) -> Outcome {
    match Options::read(arguments) {
        Ok(None) => Outcome::Done(USAGE.into()),
        Ok(Some(options)) => match carry_out(&options) {
            Ok(text) => Outcome::Done(text),
            Err(error) => Outcome::Failed(format!("cairn cert: {error}")),
        },
        Err(why) => Outcome::Usage(format!("cairn cert: {why}\n{USAGE}")),
    }
}

enum Command {
    Init { name: String },
    Issue { purpose: Purpose, name: String, hosts: Vec<String> },
    Rotate { within: u32 },
}

struct Options {
    command: Command,
    dir: PathBuf,
    days: u32,
    json: bool,
}

impl Options {
    /// `None` asks for help.
    fn read(arguments: &[String]) -> Result<Option<Options>, String> {
        let (mut words, mut given) = (Vec::new(), Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(flag) = argument.strip_prefix("--") else {
                words.push(argument.as_str());
                continue;
            };
            match (flag, flag.split_once('=')) {
                ("help", _) => return Ok(None),
                ("json", _) => given.push(("json", "")),
                (_, Some((name, value))) => given.push((name, value)),
                (name, None) => given.push((name, rest.next().ok_or(format!("--{name} needs a value"))?)),
            }
        }
        let mut take = |name: &str| {
            let at = given.iter().rposition(|(known, _)| *known == name)?;
            let value = given[at].1.to_owned();
            given.retain(|(known, _)| *known != name);
            Some(value)
        };
        let days = |value: Option<String>, name: &str, default: u32| match value {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(days @ 1..=36_500) => Ok(days),
                _ => Err(format!("--{name} must be days from 1 to 36500, not {text:?}")),
            },
        };
        let dir = take("dir").unwrap_or_else(|| "certs".into()).into();
        let json = take("json").is_some();
        let (command, days) = match words.as_slice() {
            [] | ["help"] => return Ok(None),
            ["init"] => {
                let name = take("name").unwrap_or_else(|| "Cairn authority".into());
                (Command::Init { name }, days(take("days"), "days", 3650)?)
            }
            ["issue", purpose, name] => {
                let purpose = Purpose::named(purpose)
                    .ok_or(format!("a certificate is for a server, a peer or a client, not {purpose:?}"))?;
                let hosts = crate::config::value::parse_list(&take("hosts").unwrap_or_default());
                if purpose != Purpose::Client && hosts.is_empty() {
                    return Err(format!("a {} needs --hosts: what it is called by", purpose.name()));
                }
                if name.is_empty() || *name == "ca" || name.contains(['/', '\0']) {
                    return Err(format!("{name:?} cannot be the name of a certificate and its files"));
                }
                let command = Command::Issue { purpose, name: (*name).to_owned(), hosts };
                (command, days(take("days"), "days", 365)?)
            }
            ["rotate"] => {
                let within = days(take("within"), "within", 30)?;
                (Command::Rotate { within }, days(take("days"), "days", 365)?)
            }
            other => return Err(format!("{:?} is no command", other.join(" "))),
        };
        match given.first() {
            Some((name, _)) => Err(format!("--{name} is no flag of this command")),
            None => Ok(Some(Options { command, dir, days, json })),
        }
    }
}

fn carry_out(options: &Options) -> Result<String, TlsError> {
    let Options { command, dir, days, json } = options;
    match command {
        Command::Init { name } => {
            let authority = Authority::init(dir, name, *days)?;
            print(dir, authority.list()?, |_| "made", *json)
        }
        Command::Issue { purpose, name, hosts } => {
            let authority = Authority::open(dir)?;
            authority.issue(name, *purpose, hosts, *days)?;
            let mut made = authority.list()?;
            made.retain(|found| found.name == *name);
            print(dir, made, |_| "made", *json)
        }
        Command::Rotate { within } => {
            let authority = Authority::open(dir)?;
            let mut fresh = Vec::new();
            for found in authority.list()? {
                if let Some(purpose) =
                    found.purpose.filter(|_| found.ours && found.days() < i64::from(*within))
                {
                    authority.rotate(&found, purpose, *days)?;
                    fresh.push(found.name);
                }
            }
            let done = |found: &Found| match found {
                _ if fresh.contains(&found.name) => "made anew",
                _ if found.name != "ca" && !found.ours => "left: of another authority",
                _ if found.days() < i64::from(*within) => "ends soon: cairn cert init in another directory",
                _ => "left",
            };
            print(dir, authority.list()?, done, *json)
        }
    }
}

/// A line for each certificate.
fn print(
    dir: &Path,
    all: Vec<Found>,
    done: impl Fn(&Found) -> &'static str,
    as_json: bool,
) -> Result<String, TlsError> {
    let purpose = |found: &Found| found.purpose.map_or("authority", Purpose::name);
    let mut out = String::new();
    if as_json {
        for found in &all {
            let (cert, key) = paths(dir, &found.name);
            let line = json!({
                "name": found.name, "for": purpose(found), "common_name": found.facts.common_name,
                "hosts": found.hosts(), "days": found.days(), "cert": cert.display().to_string(),
                "key": key.display().to_string(), "done": done(found),
            });
            out.push_str(&format!("{line}\n"));
        }
        return Ok(out);
    }
    let rows: Vec<[String; 5]> = std::iter::once(["FILE", "FOR", "DAYS", "DONE", "HOSTS"].map(str::to_owned))
        .chain(all.iter().map(|found| {
            let file = paths(dir, &found.name).0.display().to_string();
            let hosts = found.hosts().join(",");
            [file, purpose(found).into(), found.days().to_string(), done(found).into(), hosts]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    for [file, purpose, days, done, hosts] in &rows {
        let line = format!(
            "{file:<0$}  {purpose:<1$}  {days:>2$}  {done:<3$}  {hosts}",
            width(0),
            width(1),
            width(2),
            width(3)
        );
        writeln!(out, "{}", line.trim_end()).expect("a string takes all");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn cert(line: &str) -> Outcome {
        run(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn check(line: &str, dir: &Path, expected: Expect) {
        let Outcome::Done(text) = cert(&format!("{line} --dir={}", dir.display())) else {
            panic!("{line} is not done")
        };
        // How wide a column is depends on where the directory is.
        let text = text.replace(&dir.display().to_string(), "certs");
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n");
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn an_authority_issues_and_rotates() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("certs");
        check(
            "init",
            &dir,
            expect![[r#"
                FILE FOR DAYS DONE HOSTS
                certs/ca.pem authority 3650 made
            "#]],
        );
        check(
            "issue server m1 --hosts=localhost,127.0.0.1 --days=10",
            &dir,
            expect![[r#"
                FILE FOR DAYS DONE HOSTS
                certs/m1.pem server 10 made localhost,127.0.0.1
            "#]],
        );
        check(
            "issue client alice",
            &dir,
            expect![[r#"
                FILE FOR DAYS DONE HOSTS
                certs/alice.pem client 365 made
            "#]],
        );
        let before = fs::read(dir.join("m1.pem")).expect("there");
        check(
            "rotate",
            &dir,
            expect![[r#"
                FILE FOR DAYS DONE HOSTS
                certs/alice.pem client 365 left
                certs/m1.pem server 365 made anew localhost,127.0.0.1
                certs/ca.pem authority 3650 left
            "#]],
        );
        assert_ne!(fs::read(dir.join("m1.pem")).expect("there"), before);
        for name in ["ca", "m1", "alice"] {
            let mode = fs::metadata(dir.join(format!("{name}.key"))).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::metadata(&dir).expect("there").permissions().mode() & 0o777, 0o700);
        let Outcome::Done(lines) = cert(&format!("rotate --json --dir={}", dir.display())) else {
            panic!("rotated")
        };
        let first: serde_json::Value =
            serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["name"], &first["done"]), (&"alice".into(), &"left".into()));
    }

    #[test]
    fn nothing_is_written_over_and_what_is_wrong_is_said() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().display().to_string();
        let failed = |line: &str| match cert(&format!("{line} --dir={dir}")) {
            Outcome::Failed(why) => why,
            other => panic!("{line}: {other:?}"),
        };
        assert!(failed("issue client alice").contains("ca.pem: No such file"));
        assert!(matches!(cert(&format!("init --dir={dir}")), Outcome::Done(_)));
        assert!(failed("init").contains("ca.pem is there already and is left alone"));
        assert!(matches!(cert(&format!("issue client alice --dir={dir}")), Outcome::Done(_)));
        assert!(failed("issue server alice --hosts=a").contains("alice.pem is there already"));
        for (line, why) in [
            ("frob", "\"frob\" is no command"),
            ("issue", "\"issue\" is no command"),
            ("issue gateway x", "not \"gateway\""),
            ("issue server x", "a server needs --hosts"),
            ("issue client ca", "\"ca\" cannot be the name"),
            ("issue client a/b", "\"a/b\" cannot be the name"),
            ("init --days=0", "--days must be days from 1 to 36500, not \"0\""),
            ("init --hosts=a", "--hosts is no flag of this command"),
            ("init --days", "--days needs a value"),
        ] {
            match cert(line) {
                Outcome::Usage(text) => assert!(text.contains(why), "{line}: {text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        for line in ["", "help", "rotate --help"] {
            assert!(matches!(cert(line), Outcome::Done(text) if text == USAGE), "{line}");
        }
    }
}
