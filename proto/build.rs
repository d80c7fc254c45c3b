// SPDX-License-Identifier: Apache-2.0
//! Generates the Rust side of `proto/*.proto`, twice.
//!
//! Owns      the two sets of generated code and the encoded descriptor set they come from.
//! Holds     1. `plain` has every message and service as the files say;
//!           2. `serve` differs only in the fields of [`RAW_FIELDS`], which are `bytes` there, and in the
//!              messages that contain them. All other types are those of `plain`. A message field and a
//!              bytes field with the encoded message look alike on the wire.
//! Never     runs `protoc`: the files are compiled by `protox`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const FILES: &[&str] = &[
    "mvccpb.proto",
    "authpb.proto",
    "etcdserverpb.proto",
    "membershippb.proto",
    "raft_internal.proto",
    "leasepb.proto",
    "v3lockpb.proto",
    "v3electionpb.proto",
    "health.proto",
];

/// Stored messages that the server hands on without looking inside: (message, field).
const RAW_FIELDS: &[(&str, &str)] = &[
    (".etcdserverpb.RangeResponse", "kvs"),
    (".etcdserverpb.PutResponse", "prev_kv"),
    (".etcdserverpb.DeleteRangeResponse", "prev_kvs"),
    (".etcdserverpb.WatchResponse", "events"),
    (".v3electionpb.LeaderResponse", "kv"),
];

/// Field names that snake case would tear apart (`peer_ur_ls`). Names are not on the wire.
const RUST_NAMES: &[(&str, &str)] = &[("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let set = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;

    let mut plain = set;
    rename_fields(&mut plain);
    let mut serve = plain.clone();
    generate(&out.join("plain"), plain, &[], true)?;

    make_raw(&mut serve)?;
    let differing = messages_that_contain_raw(&serve);
    let shared =
        type_names(&serve).into_iter().filter(|(name, _)| !differing.contains(name)).collect::<Vec<_>>();
    keep_services_that_answer(&mut serve, &differing);
    generate(&out.join("serve"), serve, &shared, false)
}

fn generate(dir: &Path, set: FileDescriptorSet, shared: &[(String, String)], clients: bool) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(dir)
        .build_client(clients)
        .bytes(".")
        .btree_map(".")
        .emit_rerun_if_changed(false);
    for (name, path) in shared {
        builder = builder.extern_path(name, path);
    }
    builder.compile_fds(set)?;
    Ok(())
}

fn rename_fields(set: &mut FileDescriptorSet) {
    for field in set.file.iter_mut().flat_map(|f| &mut f.message_type).flat_map(|m| &mut m.field) {
        if let Some((_, rust)) = RUST_NAMES.iter().find(|(wire, _)| *wire == field.name()) {
            field.name = Some((*rust).to_owned());
        }
    }
}

/// Turns the [`RAW_FIELDS`] into `bytes`; each of them must be there.
fn make_raw(set: &mut FileDescriptorSet) -> Outcome<()> {
    for (message_name, field_name) in RAW_FIELDS {
        let field = set
            .file
            .iter_mut()
            .flat_map(|f| {
                let package = f.package().to_owned();
                f.message_type.iter_mut().map(move |m| (format!(".{package}.{}", m.name()), m))
            })
            .filter(|(name, _)| name == message_name)
            .flat_map(|(_, m)| &mut m.field)
            .find(|f| f.name() == *field_name)
            .ok_or_else(|| format!("{message_name} has no field {field_name}"))?;
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
    Ok(())
}

/// The messages that have a raw field, and those that contain such messages at any depth.
fn messages_that_contain_raw(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = RAW_FIELDS.iter().map(|(message, _)| (*message).to_owned()).collect();
    loop {
        let before = found.len();
        for file in &set.file {
            for message in &file.message_type {
                if message.field.iter().any(|f| found.contains(f.type_name())) {
                    found.insert(format!(".{}.{}", file.package(), message.name()));
                }
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Every message and enum, nested ones too, with its path in this crate.
fn type_names(set: &FileDescriptorSet) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for file in &set.file {
        let package = file.package();
        let module = if package == "grpc.health.v1" { "health" } else { package };
        names.extend(file.enum_type.iter().map(|e| pair(package, module, e.name())));
        for message in &file.message_type {
            names.push(pair(package, module, message.name()));
            names.extend(nested_names(message).map(|nested| {
                let (name, _) = pair(package, module, message.name());
                (format!("{name}.{nested}"), format!("crate::{module}::{}::{nested}", snake(message.name())))
            }));
        }
    }
    names
}

fn nested_names(message: &DescriptorProto) -> impl Iterator<Item = &str> {
    message.enum_type.iter().map(|e| e.name()).chain(message.nested_type.iter().map(|m| m.name()))
}

fn pair(package: &str, module: &str, name: &str) -> (String, String) {
    (format!(".{package}.{name}"), format!("crate::{module}::{name}"))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Drops the services that answer with shared types alone: those of `plain` serve as well.
fn keep_services_that_answer(set: &mut FileDescriptorSet, differing: &BTreeSet<String>) {
    for file in &mut set.file {
        file.service.retain(|s| s.method.iter().any(|m| differing.contains(m.output_type())));
    }
}
