// SPDX-License-Identifier: Apache-2.0
//! What `--help` and `--version` print.
//!
//! Owns      the layout; the words of each flag are in the table.
//! Holds     every flag of the table is listed, with what it does here if that differs from etcd.
//! Never     writes to a stream.

use super::flags::{Class, FLAGS, Flag, Group, Kind};
use crate::exit::ExitStatus;

/// Columns of a line of text.
const WIDTH: usize = 100;
const INDENT: usize = 8;

/// The whole help text.
pub fn help() -> String {
    let mut out = String::from(
        "cairn: a key-value store that speaks the etcd v3 API\n\n\
         Usage: cairn [flags]\n       cairn cert init|issue|rotate    certificates, see cairn cert --help\n\n\
         Alone it keeps its data in ./default.etcd and listens on localhost:2379 for clients. Flags are those\n\
         of etcd: -name value, --name=value, booleans as --flag or --flag=false, the last one wins. Each can\n\
         also be given as a variable, ETCD_ and its name in capitals: ETCD_DATA_DIR.\n",
    );
    for group in Group::ALL {
        out.push_str(&format!("\n{}\n", group.title()));
        if group == Group::Old {
            let names: Vec<String> = flags_of(group).map(|flag| format!("--{}", flag.name)).collect();
            wrap(&mut out, &names.join(", "), 2);
            continue;
        }
        for flag in flags_of(group) {
            describe(&mut out, flag);
        }
    }
    out.push_str("\nExit status\n");
    for status in ExitStatus::ALL {
        out.push_str(&format!("  {}  {}\n", status as u8, status.meaning()));
    }
    out.push_str(
        "  A stop by a signal ends with that signal, as the shell's 143 (SIGTERM) or 130 (SIGINT).\n",
    );
    out
}

fn flags_of(group: Group) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |flag| flag.group == group)
}

fn describe(out: &mut String, flag: &Flag) {
    let default = match (flag.kind, flag.default) {
        (_, "") => String::new(),
        (Kind::Bool, "false") => String::new(),
        (_, default) => format!(" ({default})"),
    };
    let word = if flag.kind.word().is_empty() { String::new() } else { format!(" {}", flag.kind.word()) };
    out.push_str(&format!("  --{}{word}{default}\n", flag.name));
    wrap(out, flag.help, INDENT);
    match flag.class {
        Class::Maps(how) => wrap(out, &format!("Here: {how}."), INDENT),
        Class::Part(which) => wrap(out, &format!("Here: {which}."), INDENT),
        Class::NoEffect(why) => wrap(out, &format!("No effect here: {why}."), INDENT),
        Class::Refused(why) => wrap(out, &format!("Refused here: {why}."), INDENT),
        Class::AsEtcd | Class::Ignored | Class::Own => {}
    }
}

fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

/// FL-8: the line `etcd Version:` is what harnesses look for.
pub fn version() -> String {
    format!(
        "Cairn Version: {}\netcd Version: {}\nGit SHA: {}\nGo Version: none, Cairn is written in Rust\nGo OS/Arch: linux/{}\n",
        env!("CARGO_PKG_VERSION"),
        crate::ETCD_VERSION,
        option_env!("CAIRN_GIT_SHA").unwrap_or("not recorded"),
        go_arch(),
    )
}

/// The architecture as Go names it.
pub const fn go_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_flag_in_narrow_lines() {
        let text = help();
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}", flag.name)), "{}", flag.name);
        }
        // A default that is one long word stands on its flag's line.
        let wraps = |line: &&str| !line.starts_with("  --");
        let longest = text.lines().filter(wraps).max_by_key(|line| line.len()).expect("lines");
        assert!(longest.len() <= WIDTH + INDENT, "{longest}");
    }

    // rule: FL-8
    #[test]
    fn the_version_is_told_as_harnesses_read_it() {
        assert!(version().lines().any(|line| line == "etcd Version: 3.7.1"), "{}", version());
        assert!(version().starts_with("Cairn Version: "));
    }
}
