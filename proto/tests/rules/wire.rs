// SPDX-License-Identifier: Apache-2.0
//! The compiled files are those of the rules' pages: no message, field, number or enum value more or less.

use std::collections::BTreeSet;

use crate::support::{self, compiled_enum_values, compiled_fields, compiled_messages, section, tsv};

/// The packages whose messages `wire.tsv` lists; the rest stands in the page's appendix.
fn appendix() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut messages, mut fields) = (BTreeSet::new(), BTreeSet::new());
    for line in section("## Appendix").filter(|l| l.starts_with("- ")) {
        let (head, body) = line[2..].split_once(": ").expect("a message and its fields");
        let message = head.split(' ').next().expect("a name");
        messages.insert(message.to_owned());
        for part in body.split("; ").filter(|p| !p.starts_with("reserved ")) {
            let words: Vec<&str> = part.split(' ').collect();
            let (label, ty) =
                if words[2] == "repeated" { ("repeated", words[3]) } else { ("singular", words[2]) };
            fields.insert(format!("{message}.{} {} {ty} {label} ", words[1], words[0]));
        }
    }
    (messages, fields)
}

#[test]
fn every_field_is_that_of_the_table_and_no_other() {
    let mut expected = appendix().1;
    let rows = tsv(support::WIRE_TSV);
    expected.extend(rows.map(|r| format!("{}.{}.{} {} {} {} {}", r[0], r[1], r[2], r[3], r[4], r[5], r[6])));
    assert!(expected.len() > 300, "the pages list {} fields", expected.len());
    assert_eq!(difference(&compiled_fields(), &expected), NONE);
}

#[test]
fn every_message_is_that_of_the_page_and_no_other() {
    let mut expected = appendix().0;
    expected.extend(tsv(support::WIRE_TSV).map(|r| format!("{}.{}", r[0], r[1])));
    for package in ["etcdserverpb", "grpc.health.v1"] {
        let mut lines = section(&format!("## Messages of {package}"));
        let empty =
            lines.find_map(|l| l.strip_prefix("No fields: ")).expect("a line of messages without fields");
        let names = empty.trim_end_matches('.').split(", ").filter_map(|m| m.split(' ').next());
        expected.extend(names.map(|m| format!("{package}.{m}")));
    }
    assert!(expected.len() > 130, "the pages list {} messages", expected.len());
    assert_eq!(difference(&compiled_messages(), &expected), NONE);
}

#[test]
fn every_enum_value_is_that_of_the_page_and_no_other() {
    let mut expected = BTreeSet::new();
    for package in ["etcdserverpb", "mvccpb", "authpb", "grpc.health.v1"] {
        for line in section(&format!("### Enums of {package}")) {
            let Some((head, values)) = line.strip_prefix("- ").and_then(|l| l.split_once(": ")) else {
                continue;
            };
            let name = head.split(' ').next().expect("a name");
            for value in values.split(", ") {
                let value = value.split(' ').next().expect("NAME=number");
                expected.insert(format!("{package}.{name} {value}"));
            }
        }
    }
    assert!(expected.len() > 30, "the pages list {} enum values", expected.len());
    assert_eq!(difference(&compiled_enum_values(), &expected), NONE);
}

const NONE: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

/// (compiled and not in the rules, in the rules and not compiled)
fn difference(compiled: &BTreeSet<String>, rules: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    (compiled.difference(rules).cloned().collect(), rules.difference(compiled).cloned().collect())
}
