// SPDX-License-Identifier: Apache-2.0
//! The command line: flags with values, from one table that also writes the help.
//!
//! Written by hand: a table of twenty flags does not earn a crate that weighs more than all the rest of this
//! tool's code.
//!
//! Owns      the reading of flags, their defaults, and the layout of help.
//! Holds     1. a flag that is not in the command's table is an error, and none is ignored;
//!           2. the default that help shows is the one that is used.
//! Never     runs a command.

use std::fmt::{Display, Write as _};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// One flag: `--name VALUE`, or a switch if `value` is empty.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub value: &'static str,
    /// Empty: the flag may be absent.
    pub default: &'static str,
    pub help: &'static str,
}

/// A command, and what its help says.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub name: &'static str,
    pub about: &'static str,
    pub flags: &'static [&'static [Flag]],
    /// What a reader must know to judge the figures.
    pub notes: &'static str,
}

impl Command {
    fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().copied().flatten()
    }

    fn flag(&self, name: &str) -> Option<&'static Flag> {
        self.flags().find(|flag| flag.name == name)
    }

    pub fn help(&self) -> String {
        let left = |flag: &Flag| format!("--{} {}", flag.name, flag.value).trim_end().to_owned();
        let width = self.flags().map(|flag| left(flag).len()).max().unwrap_or_default();
        let mut text = format!("{}\n\nUsage: cairn-bench {} [flags]\n\nFlags:\n", self.about, self.name);
        for flag in self.flags() {
            let default = match flag.default {
                "" => String::new(),
                default => format!(" [{default}]"),
            };
            writeln!(text, "  {:<width$}  {}{default}", left(flag), flag.help).expect("a string takes all");
        }
        if !self.notes.is_empty() {
            write!(text, "\n{}\n", self.notes).expect("a string takes all");
        }
        text
    }
}

/// What was wrong with the command line, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage(pub String);

/// The flags that were given.
#[derive(Debug)]
pub struct Args {
    command: &'static Command,
    given: Vec<(&'static Flag, String)>,
}

impl Args {
    /// Reads `--name value`, `--name=value` and switches.
    ///
    /// # Errors
    /// A word that is no flag of this command, a value that is missing, a flag that is given twice.
    pub fn parse(command: &'static Command, words: &[String]) -> Result<Args, Usage> {
        let mut args = Args { command, given: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let body = word.strip_prefix("--").ok_or_else(|| args.usage(&format!("unexpected {word:?}")))?;
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let flag = command.flag(name).ok_or_else(|| args.usage(&format!("no flag --{name}")))?;
            if args.is_given(name) {
                return Err(args.usage(&format!("--{name} is given twice")));
            }
            let value = match (flag.value.is_empty(), inline) {
                (true, Some(_)) => return Err(args.usage(&format!("--{name} takes no value"))),
                (true, None) => "",
                (false, Some(value)) => value,
                (false, None) => {
                    words.next().ok_or_else(|| args.usage(&format!("--{name} needs {}", flag.value)))?
                }
            };
            args.given.push((flag, value.to_owned()));
        }
        Ok(args)
    }

    fn usage(&self, what: &str) -> Usage {
        Usage(format!("{what}; see cairn-bench {} --help", self.command.name))
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(flag, _)| flag.name == name)
    }

    /// The value given, or the default; None if there is neither.
    pub fn text(&self, name: &str) -> Option<&str> {
        let flag = self.command.flag(name).expect("the command has this flag");
        let given = self.given.iter().find(|(flag, _)| flag.name == name).map(|(_, value)| value.as_str());
        given.or(Some(flag.default).filter(|default| !default.is_empty()))
    }

    /// # Errors
    /// The flag is absent and has no default.
    pub fn required(&self, name: &str) -> Result<&str, Usage> {
        self.text(name).ok_or_else(|| self.usage(&format!("--{name} is needed")))
    }

    /// A value that its type understands.
    ///
    /// # Errors
    /// It does not.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Usage> {
        let parse =
            |text: &str| text.parse().map_err(|e: T::Err| self.usage(&format!("--{name} {text:?}: {e}")));
        self.text(name).map(parse).transpose()
    }

    /// A number within bounds; the flag has a default.
    ///
    /// # Errors
    /// It is no number, or out of bounds.
    pub fn number<T>(&self, name: &str, bounds: RangeInclusive<T>) -> Result<T, Usage>
    where
        T: FromStr<Err: Display> + PartialOrd + Display,
    {
        let number = self.parsed(name)?.expect("a number has a default");
        self.within(name, number, &bounds)
    }

    fn within<T: PartialOrd + Display>(
        &self,
        name: &str,
        number: T,
        bounds: &RangeInclusive<T>,
    ) -> Result<T, Usage> {
        if bounds.contains(&number) {
            return Ok(number);
        }
        let (low, high) = (bounds.start(), bounds.end());
        Err(self.usage(&format!("--{name} is {number}, and must be {low} to {high}")))
    }

    /// Numbers with commas between, each within bounds; the flag has a default.
    ///
    /// # Errors
    /// One is no number, or out of bounds.
    pub fn numbers(&self, name: &str, bounds: RangeInclusive<usize>) -> Result<Vec<usize>, Usage> {
        let text = self.text(name).expect("a list of numbers has a default");
        text.split(',')
            .map(|part| {
                let number =
                    part.trim().parse().map_err(|e| self.usage(&format!("--{name} {part:?}: {e}")))?;
                self.within(name, number, &bounds)
            })
            .collect()
    }

    /// Seconds, perhaps with a fraction; the flag has a default.
    ///
    /// # Errors
    /// It is no number, or out of bounds.
    pub fn seconds(&self, name: &str, bounds: RangeInclusive<f64>) -> Result<Duration, Usage> {
        Ok(Duration::from_secs_f64(self.number(name, bounds)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    static COMMAND: Command = Command {
        name: "put",
        about: "Puts.",
        flags: &[
            &[
                Flag { name: "keys", value: "N", default: "10", help: "how many keys" },
                Flag { name: "rate", value: "N", default: "", help: "requests a second" },
            ],
            &[
                Flag { name: "in-flight", value: "N[,N…]", default: "64,1000", help: "requests at once" },
                Flag { name: "json", value: "", default: "", help: "print JSON" },
            ],
        ],
        notes: "Note well.",
    };

    fn parse(line: &str) -> Result<Args, Usage> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(&COMMAND, &words)
    }

    #[test]
    fn flags_have_values_and_defaults() {
        let args = parse("--rate=2.5 --json --keys 7").expect("all are flags of the command");
        assert_eq!(args.number("keys", 1..=100u64), Ok(7));
        assert_eq!(args.parsed("rate"), Ok(Some(2.5)));
        assert!(args.is_given("json"));
        assert_eq!(args.numbers("in-flight", 1..=1000), Ok(vec![64, 1000]));
        let none = parse("").expect("all flags have defaults or may be absent");
        assert_eq!(none.parsed::<f64>("rate"), Ok(None));
        assert!(!none.is_given("json"));
        assert_eq!(none.seconds("keys", 0.0..=10.0), Ok(Duration::from_secs(10)));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let said = |line: &str| {
            let judged = parse(line).and_then(|args| {
                args.number("keys", 1..=100u64)?;
                args.numbers("in-flight", 1..=1000)?;
                args.parsed::<f64>("rate")?;
                args.required("rate").map(drop)
            });
            format!("{line:<20} {}", judged.expect_err("each line has a mistake").0)
        };
        let lines = [
            "",
            "put",
            "-k",
            "--kyes 3",
            "--keys",
            "--keys x",
            "--keys 0",
            "--keys 1 --keys 2",
            "--json=1",
            "--in-flight 1,,2",
            "--in-flight 2000",
            "--rate fast",
        ];
        expect![[r#"
                                 --rate is needed; see cairn-bench put --help
            put                  unexpected "put"; see cairn-bench put --help
            -k                   unexpected "-k"; see cairn-bench put --help
            --kyes 3             no flag --kyes; see cairn-bench put --help
            --keys               --keys needs N; see cairn-bench put --help
            --keys x             --keys "x": invalid digit found in string; see cairn-bench put --help
            --keys 0             --keys is 0, and must be 1 to 100; see cairn-bench put --help
            --keys 1 --keys 2    --keys is given twice; see cairn-bench put --help
            --json=1             --json takes no value; see cairn-bench put --help
            --in-flight 1,,2     --in-flight "": cannot parse integer from empty string; see cairn-bench put --help
            --in-flight 2000     --in-flight is 2000, and must be 1 to 1000; see cairn-bench put --help
            --rate fast          --rate "fast": invalid float literal; see cairn-bench put --help"#]].assert_eq(&lines.map(said).join("\n"));
    }

    #[test]
    fn help_lines_up() {
        expect![[r#"
            Puts.

            Usage: cairn-bench put [flags]

            Flags:
              --keys N              how many keys [10]
              --rate N              requests a second
              --in-flight N[,N…]    requests at once [64,1000]
              --json                print JSON

            Note well.
        "#]]
        .assert_eq(&COMMAND.help());
    }
}
