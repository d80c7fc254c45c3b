// SPDX-License-Identifier: Apache-2.0
//! The rules' pages, and the compiled files, as plain sets to compare.
//!
//! Owns      the reading of `wire.md`, `wire.tsv` and the descriptor set.
//! Holds     nothing between tests.
//! Never     compares: what must be equal is said by the tests.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

pub const WIRE_MD: &str = include_str!("../../../tests/rules/wire.md");
pub const WIRE_TSV: &str = include_str!("../../../tests/rules/wire.tsv");

pub fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(cairn_proto::DESCRIPTOR_SET).expect("the build wrote this set")
}

/// The rows of a page with tabs, without its head.
pub fn tsv(page: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    page.lines().skip(1).map(|line| line.split('\t').collect())
}

/// The lines of `wire.md` below a heading that starts so, up to the next one of that level or above.
pub fn section(heading: &str) -> impl Iterator<Item = &'static str> + use<> {
    let level = heading.bytes().take_while(|b| *b == b'#').count();
    let start = WIRE_MD.lines().position(|l| l.starts_with(heading)).expect("the page has this heading");
    WIRE_MD.lines().skip(start + 1).take_while(move |l| {
        let marks = l.bytes().take_while(|b| *b == b'#').count();
        marks == 0 || marks > level
    })
}

/// `package.Message.field number type label oneof` for every field of the compiled files.
pub fn compiled_fields() -> BTreeSet<String> {
    let set = descriptors();
    let messages = set.file.iter().flat_map(|f| f.message_type.iter().map(|m| (f.package(), m)));
    messages.flat_map(|(package, m)| m.field.iter().map(move |f| describe(package, m, f))).collect()
}

/// `package.Message` for every message of the compiled files.
pub fn compiled_messages() -> BTreeSet<String> {
    let set = descriptors();
    let names =
        set.file.iter().flat_map(|f| f.message_type.iter().map(|m| format!("{}.{}", f.package(), m.name())));
    names.collect()
}

/// `package.Enum NAME=number` for every enum value of the compiled files.
pub fn compiled_enum_values() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in &descriptors().file {
        for e in &file.enum_type {
            found.extend(enum_values(file.package(), "", e));
        }
        for m in &file.message_type {
            let prefix = format!("{}.", m.name());
            for e in &m.enum_type {
                found.extend(enum_values(file.package(), &prefix, e));
            }
        }
    }
    found
}

fn enum_values(package: &str, prefix: &str, e: &EnumDescriptorProto) -> Vec<String> {
    e.value.iter().map(|v| format!("{package}.{prefix}{} {}={}", e.name(), v.name(), v.number())).collect()
}

/// One field in the words of `wire.tsv`.
fn describe(package: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|n| {
        n.options.as_ref().is_some_and(|o| o.map_entry())
            && field.type_name().ends_with(&format!(".{}", n.name()))
    });
    let (ty, label) = match entry {
        Some(entry) => {
            let [key, value] = entry.field.as_slice() else { panic!("a map entry has a key and a value") };
            (format!("map<{},{}>", type_name(package, key), type_name(package, value)), "map")
        }
        None if field.label() == Label::Repeated => (type_name(package, field), "repeated"),
        None => (type_name(package, field), "singular"),
    };
    let oneof = field.oneof_index.map_or("", |i| message.oneof_decl[i as usize].name());
    format!("{package}.{}.{} {} {ty} {label} {oneof}", message.name(), field.name(), field.number())
}

fn type_name(package: &str, field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => {
            let full = field.type_name().trim_start_matches('.');
            full.strip_prefix(&format!("{package}.")).unwrap_or(full).to_owned()
        }
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
    }
}
