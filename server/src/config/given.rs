// SPDX-License-Identifier: Apache-2.0
//! What the operator gave: command line, environment, or a config file instead of both.
//!
//! Owns      Go's command line syntax (FL-1), the precedence of the sources (FL-2, FL-3), and the check
//!           that each value has the form of its flag.
//! Holds     every value in [`Given`] belongs to a flag of the table and parses as its kind.
//! Never     judges what a value means.

use super::{
    file,
    flags::{self, FLAGS, Flag, Kind},
    value,
};
use std::collections::BTreeMap;

/// Where a value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    CommandLine,
    Environment,
    File,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    Serve(Given),
    Help,
    Version,
}

/// The values given, by flag name, and what is to be said about them once there is a log.
#[derive(Clone, Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, (String, Source)>,
    pub remarks: Vec<Remark>,
}

/// A line for the log about a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    pub warning: bool,
    pub message: &'static str,
    pub field: &'static str,
    pub value: String,
}

/// Why the command line, the environment or the file cannot be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GivenError {
    /// Go's flag package would end with status 2 and the usage.
    #[error("{0}")]
    Syntax(String),
    /// Well formed, and yet refused: status 1.
    #[error("{0}")]
    Refused(String),
}

impl Given {
    /// Reads the arguments after the program's name, then the environment or the config file.
    pub fn read(
        arguments: &[String],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Asked, GivenError> {
        let mut given = match Self::from_arguments(arguments)? {
            Asked::Serve(given) => given,
            other => return Ok(other),
        };
        let environment: BTreeMap<String, String> =
            environment.filter(|(name, _)| name.starts_with("ETCD_")).collect();
        let path = match given.text("config-file") {
            Some(path) => Some(path.to_owned()),
            None => environment.get("ETCD_CONFIG_FILE").filter(|path| !path.is_empty()).cloned(),
        };
        match path {
            Some(path) => given.replace_by_file(&path)?,
            None => given.add_environment(environment)?,
        }
        Ok(Asked::Serve(given))
    }

    fn from_arguments(arguments: &[String]) -> Result<Asked, GivenError> {
        let mut given = Given::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                return Err(stray(argument));
            };
            if body.is_empty() {
                // "--" ends the flags; a lone "-" is an argument of its own.
                let stray_argument = if argument == "-" { Some(argument) } else { rest.next() };
                match stray_argument {
                    Some(argument) => return Err(stray(argument)),
                    None => break,
                }
            }
            if body.starts_with('-') || body.starts_with('=') {
                return Err(GivenError::Syntax(format!("bad flag syntax: {argument}")));
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            if name == "h" || name == "help" {
                return Ok(Asked::Help);
            }
            let flag = flags::find(name).ok_or_else(|| undefined(name))?;
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".into(),
                (None, _) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| GivenError::Syntax(format!("flag needs an argument: -{name}")))?,
            };
            well_formed(flag, &value).map_err(|why| {
                GivenError::Syntax(match flag.kind {
                    Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {why}"),
                    _ => format!("invalid value {value:?} for flag -{name}: {why}"),
                })
            })?;
            given.values.insert(flag.name, (value, Source::CommandLine));
        }
        Ok(if given.is_true("version") { Asked::Version } else { Asked::Serve(given) })
    }

    /// FL-2 and FL-9.
    fn add_environment(&mut self, mut environment: BTreeMap<String, String>) -> Result<(), GivenError> {
        if let Some(value) = environment.remove("ETCD_VERSION") {
            self.remark(true, "cannot set special environment variable", format!("ETCD_VERSION={value}"));
        }
        for flag in FLAGS {
            let Some((variable, value)) = flag.variable().and_then(|name| environment.remove_entry(&name))
            else {
                continue;
            };
            if self.values.contains_key(flag.name) {
                return Err(GivenError::Refused(format!(
                    "conflicting environment variable is shadowed by corresponding command-line flag (either \
                     unset environment variable or disable flag)): {variable}"
                )));
            }
            if value.is_empty() {
                continue; // as good as unset
            }
            well_formed(flag, &value).map_err(|why| {
                GivenError::Refused(format!("invalid value {value:?} for {variable}: {why}"))
            })?;
            self.values.insert(flag.name, (value, Source::Environment));
            self.remark(false, "recognized and used environment variable", variable);
        }
        for variable in environment.into_keys() {
            match variable.as_str() {
                "ETCD_UNSUPPORTED_ARCH" | "ETCD_VERIFY" => {
                    self.remark(true, "environment variable has no effect", variable);
                }
                _ => self.remark(true, "unrecognized environment variable", variable),
            }
        }
        Ok(())
    }

    /// FL-3: the file is all there is.
    fn replace_by_file(&mut self, path: &str) -> Result<(), GivenError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| GivenError::Refused(format!("cannot read config file {path}: {error}")))?;
        let entries = file::read(&text)
            .map_err(|why| GivenError::Refused(format!("cannot use config file {path}: {why}")))?;
        let ignored: Vec<&str> = self.values.keys().copied().filter(|name| *name != "config-file").collect();
        for name in ignored {
            self.remark(true, "flag is ignored because a config file is given", format!("--{name}"));
            self.values.remove(name);
        }
        for (flag, value) in entries {
            well_formed(flag, &value).map_err(|why| {
                GivenError::Refused(format!(
                    "cannot use config file {path}: invalid value {value:?} for {}: {why}",
                    flag.key
                ))
            })?;
            self.values.insert(flag.name, (value, Source::File));
        }
        Ok(())
    }

    fn remark(&mut self, warning: bool, message: &'static str, value: String) {
        let field = if message.contains("flag is") { "flag" } else { "environment-variable" };
        self.remarks.push(Remark { warning, message, field, value });
    }

    /// The value given for a flag.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Whether a boolean flag was given as true.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name).and_then(value::parse_bool) == Some(true)
    }

    /// All flags given, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        self.values
            .iter()
            .map(|(name, (value, _))| (flags::find(name).expect("only flags are inserted"), value.as_str()))
    }
}

/// Flags of the discovery service that was a web page (DI-7).
const GONE: [&str; 2] = ["discovery", "discovery-proxy"];

fn undefined(name: &str) -> GivenError {
    if GONE.contains(&name) {
        return GivenError::Syntax(format!(
            "flag provided but not defined: -{name} (discovery of version 2 is gone: use --discovery-token and \
             --discovery-endpoints)"
        ));
    }
    let hint = value::nearest(name, FLAGS.iter().map(|flag| flag.name));
    let hint = hint.map(|near| format!(" (did you mean --{near}?)")).unwrap_or_default();
    GivenError::Syntax(format!("flag provided but not defined: -{name}{hint}"))
}

/// `--f false` leaves its value behind; `gateway` and `grpc-proxy` are commands of etcd (SD-12).
fn stray(argument: &str) -> GivenError {
    GivenError::Refused(match argument {
        "gateway" | "grpc-proxy" => {
            format!("the command {argument} is not there yet: start cairn with flags only")
        }
        _ => format!("{argument:?} is not a valid flag"),
    })
}

/// Whether a value parses as its flag's kind; why not otherwise, in Go's words.
fn well_formed(flag: &Flag, text: &str) -> Result<(), &'static str> {
    let good = match flag.kind {
        Kind::Text | Kind::Urls | Kind::List | Kind::Gates => true,
        Kind::Bool => value::parse_bool(text).is_some(),
        Kind::Uint => value::parse_uint(text).is_some(),
        Kind::Uint32 => value::parse_uint(text).is_some_and(|n| u32::try_from(n).is_ok()),
        Kind::Int => value::parse_int(text).is_some(),
        Kind::Duration => value::parse_duration_ns(text).is_some(),
    };
    if good { Ok(()) } else { Err("parse error") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str, environment: &[(&str, &str)]) -> Result<Asked, GivenError> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Given::read(&arguments, environment)
    }

    fn served(line: &str, environment: &[(&str, &str)]) -> Given {
        match given(line, environment) {
            Ok(Asked::Serve(given)) => given,
            other => panic!("{line}: {other:?}"),
        }
    }

    // rule: FL-1
    #[test]
    fn the_syntax_is_that_of_go_and_the_last_one_wins() {
        let given = served("-name a --name=b --name c --pre-vote --pre-vote=false -data-dir=x=y", &[]);
        assert_eq!(given.text("name"), Some("c"));
        assert_eq!(given.text("pre-vote"), Some("false"));
        assert_eq!(given.text("data-dir"), Some("x=y"));
        assert!(matches!(super::Given::read(&["-h".into()], [].into_iter()), Ok(Asked::Help)));
    }

    // rule: FL-1
    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        for (line, text) in [
            ("--frob", "flag provided but not defined: -frob"),
            (
                "--discovery=https://d",
                "flag provided but not defined: -discovery (discovery of version 2 is gone: use --discovery-token and \
                 --discovery-endpoints)",
            ),
            ("-data-dri=x", "flag provided but not defined: -data-dri (did you mean --data-dir?)"),
            ("--name", "flag needs an argument: -name"),
            ("--=x", "bad flag syntax: --=x"),
            ("---name", "bad flag syntax: ---name"),
            ("--pre-vote=yes", "invalid boolean value \"yes\" for -pre-vote: parse error"),
            ("--max-txn-ops=-1", "invalid value \"-1\" for flag -max-txn-ops: parse error"),
            ("--corrupt-check-time 5", "invalid value \"5\" for flag -corrupt-check-time: parse error"),
            (
                "--max-concurrent-streams=4294967296",
                "invalid value \"4294967296\" for flag -max-concurrent-streams: parse error",
            ),
        ] {
            match given(line, &[]) {
                Err(GivenError::Syntax(found)) => assert_eq!(found, text, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        for (line, text) in [
            ("--pre-vote false", "\"false\" is not a valid flag"),
            ("--name a -- b", "\"b\" is not a valid flag"),
            ("gateway start", "the command gateway is not there yet: start cairn with flags only"),
        ] {
            match given(line, &[]) {
                Err(GivenError::Refused(found)) => assert_eq!(found, text, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    // rule: FL-2
    // rule: FL-9
    #[test]
    fn the_environment_fills_in_and_never_overrides() {
        let environment =
            [("ETCD_NAME", "n"), ("ETCD_WAL_DIR", ""), ("ETCD_FROB", "1"), ("ETCD_VERSION", "3")];
        let given = served("--data-dir d", &environment);
        assert_eq!(given.text("name"), Some("n"));
        assert_eq!(given.text("wal-dir"), None);
        let said: Vec<(bool, &str, &str)> =
            given.remarks.iter().map(|r| (r.warning, r.message, r.value.as_str())).collect();
        assert_eq!(
            said,
            [
                (true, "cannot set special environment variable", "ETCD_VERSION=3"),
                (false, "recognized and used environment variable", "ETCD_NAME"),
                (true, "unrecognized environment variable", "ETCD_FROB"),
            ]
        );
        for (line, variable, value, text) in [
            (
                "--name a",
                "ETCD_NAME",
                "a",
                "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                 environment variable or disable flag)): ETCD_NAME",
            ),
            ("", "ETCD_MAX_WALS", "x", "invalid value \"x\" for ETCD_MAX_WALS: parse error"),
        ] {
            match super::tests::given(line, &[(variable, value)]) {
                Err(GivenError::Refused(found)) => assert_eq!(found, text),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    // rule: FL-3
    #[test]
    fn a_config_file_replaces_all_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cairn.yaml");
        std::fs::write(&path, "name: filed\nwatch-progress-notify-interval: 1000000000\n").expect("written");
        let line = format!("--name a --config-file {}", path.display());
        let given = served(&line, &[("ETCD_WAL_DIR", "w")]);
        assert_eq!(given.text("name"), Some("filed"));
        assert_eq!(given.text("watch-progress-notify-interval"), Some("1000000000ns"));
        assert_eq!(given.text("wal-dir"), None);
        assert_eq!(given.remarks.len(), 1);
        assert_eq!(given.remarks[0].value, "--name");
    }
}
