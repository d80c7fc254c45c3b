// SPDX-License-Identifier: Apache-2.0
//! The table of methods is whole: against the compiled services, and against the tables of `wire.md`.

use std::collections::BTreeSet;

use crate::support;
use cairn_proto::methods::{self, Kind, Method, Permission, Route};

#[test]
fn every_rpc_of_the_compiled_services_has_its_row_and_every_row_its_rpc() {
    let set = support::descriptors();
    let mut compiled = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for m in &service.method {
                let local = |name: &str| {
                    let full = name.trim_start_matches('.').to_owned();
                    full.strip_prefix(&format!("{}.", file.package())).map_or(full.clone(), str::to_owned)
                };
                let kind = match (m.client_streaming(), m.server_streaming()) {
                    (false, false) => Kind::Unary,
                    (false, true) => Kind::ServerStream,
                    (true, true) => Kind::BidiStream,
                    (true, false) => panic!("{} streams to the server alone", m.name()),
                };
                let path = format!("/{}.{}/{}", file.package(), service.name(), m.name());
                compiled.insert(format!(
                    "{path} {kind:?} {} {}",
                    local(m.input_type()),
                    local(m.output_type())
                ));
            }
        }
    }
    let table: BTreeSet<String> = methods::ALL
        .iter()
        .map(|m| format!("{} {:?} {} {}", m.path, m.kind, m.request, m.response))
        .collect();
    assert_eq!(table.len(), methods::ALL.len(), "a row stands twice");
    assert!(compiled.len() > 50, "{} methods are compiled", compiled.len());
    assert_eq!(compiled, table);
}

#[test]
fn every_row_is_that_of_the_rules_page() {
    let page: Vec<Method> = support::section("## Services").filter_map(parse).collect();
    assert_eq!(page, methods::ALL);
}

#[test]
fn a_method_is_found_by_its_path_alone() {
    let range = methods::find("/etcdserverpb.KV/Range").expect("Range is a method");
    assert_eq!((range.service(), range.name()), ("etcdserverpb.KV", "Range"));
    for wrong in [
        "etcdserverpb.KV/Range",
        "/etcdserverpb.KV/range",
        "//etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Range/",
        "",
    ] {
        assert_eq!(methods::find(wrong), None, "{wrong}");
    }
}

/// One line of a service's table.
fn parse(line: &'static str) -> Option<Method> {
    let cells: Vec<&'static str> = line.strip_prefix("| ")?.split(" | ").collect();
    let [_, path, request, response, kind, since, route, permission, ..] = cells.as_slice() else {
        return None;
    };
    if !path.starts_with('/') {
        return None;
    }
    Some(Method {
        path,
        kind: match *kind {
            "unary" => Kind::Unary,
            "server-stream" => Kind::ServerStream,
            "bidi-stream" => Kind::BidiStream,
            other => panic!("{path}: kind {other}"),
        },
        request,
        response,
        since: if *since == "-" { "" } else { since },
        route: route_of(route),
        permission: permission_of(permission),
    })
}

fn route_of(words: &str) -> Route {
    match words {
        "read-index, or local if serializable" => Route::ReadIndexOrLocal,
        "raft" => Route::Raft,
        "raft; read-only: read-index, or local if every op is a serializable range" => Route::RaftOrReadIndex,
        "local" => Route::Local,
        "leader, forwarded over peer HTTP" => Route::Leader,
        "raft conf change" => Route::ConfChange,
        "local, read-index if linearizable" => Route::LocalOrReadIndex,
        "leader, forwarded over peer HTTP, then raft conf change" => Route::LeaderThenConfChange,
        "raft, GET included" => Route::Raft,
        "must be called on the leader" => Route::LeaderOnly,
        "read-index, ENABLE and CANCEL then raft" => Route::ReadIndexThenRaft,
        "read-index, then raft" => Route::ReadIndexThenRaft,
        "lease grant + txn + watch" => Route::Composed,
        "raft delete" => Route::Raft,
        "raft txn" => Route::Raft,
        "read-index" => Route::ReadIndex,
        "read-index + watch" => Route::Composed,
        other => panic!("no route for {other}"),
    }
}

fn permission_of(words: &str) -> Permission {
    match words {
        "READ on interval" => Permission::ReadInterval,
        "WRITE on key (+READ with prev_kv, +WRITE on all keys of the lease)" => Permission::PutKey,
        "WRITE on interval (+READ with prev_kv)" => Permission::DeleteInterval,
        "per op on both branches; compares need READ" => Permission::EachOp,
        "root" => Permission::Root,
        "READ per watcher, refused in-band" => Permission::ReadEachWatcher,
        "any user" => Permission::AnyUser,
        "WRITE on all attached keys" => Permission::WriteAttached,
        "any user; READ on attached keys if keys=true" => Permission::AnyUserReadAttached,
        "READ on attached keys of every lease" => Permission::ReadAllAttached,
        "any user for GET, else root" => Permission::AnyUserGetElseRoot,
        "none" => Permission::None,
        "root or oneself" => Permission::RootOrSelf,
        "root or a holder of the role" => Permission::RootOrHolder,
        "as those calls" => Permission::AsInnerCalls,
        "as DeleteRange" => Permission::AsInnerCalls,
        "as Txn" => Permission::AsInnerCalls,
        "as Range" => Permission::AsInnerCalls,
        "as Range and Watch" => Permission::AsInnerCalls,
        other => panic!("no permission for {other}"),
    }
}
