// SPDX-License-Identifier: Apache-2.0
//! Auth in the log, as scripts: one line is one entry.
//!
//! `alice: put k` is asked by alice at the auth revision of that moment, `alice@3: put k` at revision 3, and a
//! line without a name by nobody.
//!
//! Owns      the little language of the scripts, over a store in a simulated disk.
//! Holds     every line prints what its proposer is told, and the auth revision where it moved.
//! Never     goes through Raft.

use cairn_core::{
    Command,
    auth::{
        Identity,
        command::{AuthCommand, encode_base64},
    },
    lessor::Lessor,
    replica::{
        Committed,
        log::{EntryKind, LogEntry},
    },
    state::{Applied, Outcome, State},
};
use cairn_engine::{Db, InstallId, Options, sim::SimVfs};
use cairn_mvcc::{SCHEMA, Store};
use cairn_proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb as pb,
};
use expect_test::{Expect, expect};
use pb::request_op::Request;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

struct World {
    db: Db,
    state: State,
    index: u64,
}

fn open(db: &Db, applied: (u64, u64)) -> State {
    let lessor = Arc::new(Mutex::new(Lessor::new(2, true)));
    let store = Store::open(db.clone()).expect("it opens");
    State::open(store, lessor, applied).expect("it opens")
}

/// `""` is empty, `\0` a zero byte.
fn unquoted(word: &str) -> String {
    word.replace("\"\"", "").replace("\\0", "\0")
}

fn bytes(words: &[&str], at: usize) -> bytes::Bytes {
    words.get(at).map(|word| unquoted(word)).unwrap_or_default().into()
}

fn name(words: &[&str], at: usize) -> String {
    words.get(at).map(|word| unquoted(word)).unwrap_or_default()
}

fn put(words: &[&str]) -> pb::PutRequest {
    let lease = words.iter().find_map(|word| word.strip_prefix("lease="));
    pb::PutRequest {
        key: bytes(words, 1),
        prev_kv: words.contains(&"prev"),
        lease: lease.map_or(0, |id| id.parse().expect("a number")),
        ..Default::default()
    }
}

impl World {
    fn new() -> World {
        let mut options = Options::default();
        options.vfs = Arc::new(SimVfs::new());
        let db = Db::create(Path::new("/d"), SCHEMA, InstallId(1), options).expect("a new store");
        let state = open(&db, (0, 0));
        World { db, state, index: 0 }
    }

    fn command(words: &[&str]) -> Command {
        let auth = |command: AuthCommand| Command::Auth(Box::new(command));
        match words[0] {
            "put" => Command::Put(put(words)),
            "del" => Command::DeleteRange(pb::DeleteRangeRequest {
                key: bytes(words, 1),
                range_end: bytes(words, 2),
                prev_kv: words.contains(&"prev"),
            }),
            // `txn-put K`: in the failure branch of a transaction in the success branch of one.
            "txn-put" => {
                let op = |request| vec![pb::RequestOp { request: Some(request) }];
                let inner =
                    pb::TxnRequest { failure: op(Request::RequestPut(put(words))), ..Default::default() };
                let outer = pb::TxnRequest { success: op(Request::RequestTxn(inner)), ..Default::default() };
                Command::Txn(outer)
            }
            "txn-empty" => Command::Txn(pb::TxnRequest::default()),
            "grant-lease" => Command::LeaseGrant(pb::LeaseGrantRequest {
                id: words[1].parse().expect("a number"),
                ttl: 100,
            }),
            "revoke-lease" => {
                Command::LeaseRevoke(pb::LeaseRevokeRequest { id: words[1].parse().expect("a number") })
            }
            "end-lease" => Command::LeaseEnd {
                id: words[1].parse().expect("a number"),
                granted_index: words[2].parse().expect("a number"),
            },
            "enable" => auth(AuthCommand::Enable(pb::AuthEnableRequest {})),
            "disable" => auth(AuthCommand::Disable(pb::AuthDisableRequest {})),
            "login" => auth(AuthCommand::Authenticate(pb::InternalAuthenticateRequest {
                name: name(words, 1),
                password: String::new(),
                simple_token: name(words, 2),
            })),
            "user-add" => auth(AuthCommand::UserAdd(pb::AuthUserAddRequest {
                name: name(words, 1),
                password: String::new(),
                options: words.contains(&"no-password").then_some(UserAddOptions { no_password: true }),
                hashed_password: encode_base64(b"hash"),
            })),
            "user-add-badly" => auth(AuthCommand::UserAdd(pb::AuthUserAddRequest {
                name: name(words, 1),
                hashed_password: "no base64".into(),
                ..Default::default()
            })),
            "user-delete" => {
                auth(AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: name(words, 1) }))
            }
            "passwd" => auth(AuthCommand::UserChangePassword(pb::AuthUserChangePasswordRequest {
                name: name(words, 1),
                password: String::new(),
                hashed_password: encode_base64(b"other"),
            })),
            "grant" => auth(AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest {
                user: name(words, 1),
                role: name(words, 2),
            })),
            "revoke" => auth(AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest {
                name: name(words, 1),
                role: name(words, 2),
            })),
            "role-add" => auth(AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: name(words, 1) })),
            "role-delete" => {
                auth(AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role: name(words, 1) }))
            }
            "perm" => auth(AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                name: name(words, 1),
                perm: words.get(2).map(|kind| Permission {
                    perm_type: match *kind {
                        "r" => Type::Read as i32,
                        "w" => Type::Write as i32,
                        "rw" => Type::Readwrite as i32,
                        other => panic!("no permission {other}"),
                    },
                    key: bytes(words, 3),
                    range_end: bytes(words, 4),
                }),
            })),
            "unperm" => auth(AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                role: name(words, 1),
                key: bytes(words, 2),
                range_end: bytes(words, 3),
            })),
            other => panic!("no such line: {other}"),
        }
    }

    fn run(&mut self, line: &str) -> String {
        let (by, rest) = match line.split_once(": ") {
            None => (None, line),
            Some((by, rest)) => {
                let (user, revision) = match by.split_once('@') {
                    Some((user, revision)) => (user, revision.parse().expect("a number")),
                    None => (by, self.state.auth_cell().auth().revision()),
                };
                (Some(Identity { user: unquoted(user).into(), revision }), rest)
            }
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let auth = self.state.auth_cell().auth();
        match words[0] {
            "restart" => {
                let applied = self.state.applied();
                self.state = open(&self.db, applied);
                return format!("revision {}", self.state.auth_cell().auth().revision());
            }
            "user-get" => return told(auth.user_get(by.as_ref(), &name(&words, 1))),
            "user-list" => return told(auth.user_list(by.as_ref())),
            "role-list" => return told(auth.role_list(by.as_ref())),
            "role-get" => {
                let permissions = auth.role_get(by.as_ref(), &name(&words, 1));
                return told(permissions.map(|permissions| {
                    let text = |p: Permission| {
                        let (key, end) =
                            (p.key.escape_ascii().to_string(), p.range_end.escape_ascii().to_string());
                        format!("{} [{key:?}, {end:?})", p.perm_type().as_str_name())
                    };
                    permissions.into_iter().map(text).collect()
                }));
            }
            "token" => {
                let user = self.state.auth_cell().with_tokens(|tokens| tokens.user_of(words[1], 0, 1));
                return user.map_or("nobody".to_owned(), |user| user.to_string());
            }
            _ => {}
        }
        self.index += 1;
        let data = World::command(&words).encode_by(self.index, by.as_ref());
        let entry = LogEntry { index: self.index, term: 1, kind: EntryKind::Normal, data };
        // As a follower applies it: from its bytes.
        let mut outcome: Outcome<()> = Outcome::default();
        let mut succeeded = None;
        let (command, by) = Command::decode_by(entry.data.clone()).expect("it is one");
        let carried = cairn_core::state::Carried { command: Some(command), by, answer: () };
        let entries = vec![Committed { entry, carried: Some(carried) }];
        self.state.apply(0, entries, &mut outcome, |_, ok| succeeded = Some(ok)).expect("it applies");
        let result = outcome.answers.pop().expect("one answer").1;
        assert_eq!(succeeded, Some(result.is_ok()));
        let after = self.state.auth_cell().auth();
        assert!(
            outcome.auth_changed || (after.revision(), after.enabled()) == (auth.revision(), auth.enabled()),
            "a change that nobody is told of"
        );
        let moved = if after.revision() == auth.revision() {
            String::new()
        } else {
            format!(", revision {}", after.revision())
        };
        match result {
            Err(refusal) => format!("error: {}", refusal.text),
            Ok(Applied::Authenticate { token, .. }) => format!("token {token:?}"),
            Ok(_) => format!("ok{moved}"),
        }
    }
}

fn told(result: Result<Vec<String>, cairn_core::Refusal>) -> String {
    match result {
        Ok(names) => names.join(" "),
        Err(refusal) => format!("error: {}", refusal.text),
    }
}

fn check(script: &str, expected: Expect) {
    let mut world = World::new();
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        out += &format!("{line} -> {}\n", world.run(line));
    }
    expected.assert_eq(&out);
}

// rule: AU-1
// rule: AU-2
// rule: AU-4
// rule: AU-5
#[test]
fn authentication_goes_on_with_a_root_who_is_root_and_stays_on() {
    check(
        "enable
        user-add root
        enable
        grant root root
        grant root root
        enable
        root: enable
        enable
        restart
        disable
        root: user-list
        root: disable
        disable
        restart
        user-list",
        expect![[r#"
            enable -> error: etcdserver: root user does not exist
            user-add root -> ok, revision 2
            enable -> error: etcdserver: root user does not have root role
            grant root root -> ok, revision 3
            grant root root -> ok
            enable -> ok
            root: enable -> ok
            enable -> error: etcdserver: user name is empty
            restart -> revision 3
            disable -> error: etcdserver: user name is empty
            root: user-list -> root
            root: disable -> ok, revision 4
            disable -> ok
            restart -> revision 4
            user-list -> root
        "#]],
    );
}

// rule: AU-6
// rule: AU-7
// rule: AU-8
// rule: AU-9
// rule: AU-10
// rule: AU-11
#[test]
fn users_are_kept_with_their_roles_in_order() {
    check(
        r#"user-add ""
        user-add alice
        user-add alice
        user-add-badly bob
        user-add bob no-password
        passwd bob
        passwd carol
        role-add z
        role-add a
        role-add ""
        role-add a
        grant alice z
        grant alice a
        grant alice root
        grant alice a
        grant alice none
        grant carol a
        user-get alice
        user-get carol
        revoke alice none
        revoke alice z
        revoke carol z
        user-get alice
        restart
        user-get alice
        user-list
        role-list
        role-delete a
        role-delete a
        user-get alice
        user-delete carol
        user-delete alice
        user-list"#,
        expect![[r#"
            user-add "" -> error: etcdserver: user name is empty
            user-add alice -> ok, revision 2
            user-add alice -> error: etcdserver: user name already exists
            user-add-badly bob -> error: auth: authentication failed, password was given for no password user
            user-add bob no-password -> ok, revision 3
            passwd bob -> ok, revision 4
            passwd carol -> error: etcdserver: user name not found
            role-add z -> ok, revision 5
            role-add a -> ok, revision 6
            role-add "" -> error: etcdserver: role name is empty
            role-add a -> error: etcdserver: role name already exists
            grant alice z -> ok, revision 7
            grant alice a -> ok, revision 8
            grant alice root -> ok, revision 9
            grant alice a -> ok
            grant alice none -> error: etcdserver: role name not found
            grant carol a -> error: etcdserver: user name not found
            user-get alice -> a root z
            user-get carol -> error: etcdserver: user name not found
            revoke alice none -> error: etcdserver: role is not granted to the user
            revoke alice z -> ok, revision 10
            revoke carol z -> error: etcdserver: user name not found
            user-get alice -> a root
            restart -> revision 10
            user-get alice -> a root
            user-list -> alice bob
            role-list -> a z
            role-delete a -> ok, revision 11
            role-delete a -> error: etcdserver: role name not found
            user-get alice -> root
            user-delete carol -> error: etcdserver: user name not found
            user-delete alice -> ok, revision 12
            user-list -> bob
        "#]],
    );
}

// rule: AU-12
// rule: AU-13
// rule: AU-14
// rule: AU-15
// rule: AU-16
#[test]
fn roles_are_kept_with_their_permissions_in_order() {
    check(
        r#"role-get r
        role-get root
        perm r
        perm r r ""
        perm r r b a
        perm r r k
        role-add r
        perm r r k
        perm r w k
        perm r rw a c
        perm r r k l
        perm r r z \0
        role-get r
        restart
        role-get r
        unperm r k m
        unperm r k l
        unperm none k l
        role-get r
        role-add root
        perm root r k
        role-get root"#,
        expect![[r#"
            role-get r -> error: etcdserver: role name not found
            role-get root -> error: etcdserver: role name not found
            perm r -> error: etcdserver: permission not given
            perm r r "" -> error: etcdserver: invalid auth management
            perm r r b a -> error: etcdserver: invalid auth management
            perm r r k -> error: etcdserver: role name not found
            role-add r -> ok, revision 2
            perm r r k -> ok, revision 3
            perm r w k -> ok, revision 4
            perm r rw a c -> ok, revision 5
            perm r r k l -> ok, revision 6
            perm r r z \0 -> ok, revision 7
            role-get r -> READWRITE ["a", "c") WRITE ["k", "") READ ["k", "l") READ ["z", "\\x00")
            restart -> revision 7
            role-get r -> READWRITE ["a", "c") WRITE ["k", "") READ ["k", "l") READ ["z", "\\x00")
            unperm r k m -> error: etcdserver: permission is not granted to the role
            unperm r k l -> ok, revision 8
            unperm none k l -> error: etcdserver: role name not found
            role-get r -> READWRITE ["a", "c") WRITE ["k", "") READ ["z", "\\x00")
            role-add root -> ok, revision 9
            perm root r k -> ok, revision 10
            role-get root -> READWRITE ["", "\\x00")
        "#]],
    );
}

// rule: AU-13
// rule: AU-19
// rule: AU-21
#[test]
fn management_needs_role_root_and_root_stays_root() {
    check(
        r#"user-add root
        grant root root
        user-add alice
        role-add r
        role-add root
        grant alice r
        enable
        user-add bob
        alice: user-add bob
        carol: user-add bob
        "": user-add bob
        alice@1: user-add bob
        root@1: user-add bob
        alice: user-get alice
        alice: user-get root
        alice: role-get r
        alice: role-get root
        user-get ""
        alice: user-list
        alice: role-list
        root: user-delete root
        root: revoke root root
        root: role-delete root
        root: revoke alice root
        alice: enable
        alice: disable
        root: user-delete alice
        alice: user-list
        root: disable
        user-delete root"#,
        expect![[r#"
            user-add root -> ok, revision 2
            grant root root -> ok, revision 3
            user-add alice -> ok, revision 4
            role-add r -> ok, revision 5
            role-add root -> ok, revision 6
            grant alice r -> ok, revision 7
            enable -> ok
            user-add bob -> error: etcdserver: user name is empty
            alice: user-add bob -> error: etcdserver: permission denied
            carol: user-add bob -> error: etcdserver: user name not found
            "": user-add bob -> error: etcdserver: user name is empty
            alice@1: user-add bob -> error: etcdserver: permission denied
            root@1: user-add bob -> ok, revision 8
            alice: user-get alice -> r
            alice: user-get root -> error: etcdserver: permission denied
            alice: role-get r -> 
            alice: role-get root -> error: etcdserver: permission denied
            user-get "" -> error: etcdserver: user name not found
            alice: user-list -> error: etcdserver: permission denied
            alice: role-list -> error: etcdserver: permission denied
            root: user-delete root -> error: etcdserver: invalid auth management
            root: revoke root root -> error: etcdserver: invalid auth management
            root: role-delete root -> error: etcdserver: invalid auth management
            root: revoke alice root -> error: etcdserver: role is not granted to the user
            alice: enable -> error: etcdserver: permission denied
            alice: disable -> error: etcdserver: permission denied
            root: user-delete alice -> ok, revision 9
            alice: user-list -> error: etcdserver: user name not found
            root: disable -> ok, revision 10
            user-delete root -> ok, revision 11
        "#]],
    );
}

// rule: AU-18
// rule: AU-20
// rule: AU-21
// rule: AUTH-1
// rule: AUTH-11
#[test]
fn what_is_written_is_judged_when_it_is_applied() {
    check(
        r#"put before
        user-add root
        grant root root
        user-add alice
        role-add r
        perm r rw k
        perm r w w
        grant alice r
        enable
        put k
        txn-empty
        alice: put k
        alice: put k prev
        alice: put w prev
        alice: put x
        root: put x
        carol: put k
        "": put k
        alice@1: put k
        alice: del k
        alice: del k l
        alice: del w "" prev
        alice: txn-put w
        alice: txn-put x
        txn-put w
        root: unperm r k
        alice@9: put k
        alice: put k
        root: revoke root root"#,
        expect![[r#"
            put before -> ok
            user-add root -> ok, revision 2
            grant root root -> ok, revision 3
            user-add alice -> ok, revision 4
            role-add r -> ok, revision 5
            perm r rw k -> ok, revision 6
            perm r w w -> ok, revision 7
            grant alice r -> ok, revision 8
            enable -> ok
            put k -> error: etcdserver: user name is empty
            txn-empty -> ok
            alice: put k -> ok
            alice: put k prev -> ok
            alice: put w prev -> error: etcdserver: permission denied
            alice: put x -> error: etcdserver: permission denied
            root: put x -> ok
            carol: put k -> error: etcdserver: permission denied
            "": put k -> error: etcdserver: permission denied
            alice@1: put k -> error: etcdserver: revision of auth store is old
            alice: del k -> ok
            alice: del k l -> error: etcdserver: permission denied
            alice: del w "" prev -> error: etcdserver: permission denied
            alice: txn-put w -> ok
            alice: txn-put x -> error: etcdserver: permission denied
            txn-put w -> error: etcdserver: user name is empty
            root: unperm r k -> ok, revision 9
            alice@9: put k -> error: etcdserver: permission denied
            alice: put k -> error: etcdserver: permission denied
            root: revoke root root -> error: etcdserver: invalid auth management
        "#]],
    );
}

// rule: AUTH-3
// rule: AUTH-7
#[test]
fn s15_a_lease_belongs_to_those_who_may_write_its_keys() {
    check(
        r#"user-add root
        grant root root
        user-add alice
        role-add r
        perm r w a b
        grant alice r
        enable
        alice: grant-lease 7
        alice: put a lease=7
        alice: put ab lease=7
        root: put z lease=7
        alice: put a lease=7
        alice: txn-put a lease=7
        alice: put a
        alice: revoke-lease 7
        revoke-lease 9
        revoke-lease 7
        alice: grant-lease 8
        revoke-lease 8
        end-lease 7 8"#,
        expect![[r#"
            user-add root -> ok, revision 2
            grant root root -> ok, revision 3
            user-add alice -> ok, revision 4
            role-add r -> ok, revision 5
            perm r w a b -> ok, revision 6
            grant alice r -> ok, revision 7
            enable -> ok
            alice: grant-lease 7 -> ok
            alice: put a lease=7 -> ok
            alice: put ab lease=7 -> ok
            root: put z lease=7 -> ok
            alice: put a lease=7 -> error: etcdserver: permission denied
            alice: txn-put a lease=7 -> error: etcdserver: permission denied
            alice: put a -> ok
            alice: revoke-lease 7 -> error: etcdserver: permission denied
            revoke-lease 9 -> error: etcdserver: requested lease not found
            revoke-lease 7 -> error: etcdserver: user name is empty
            alice: grant-lease 8 -> ok
            revoke-lease 8 -> ok
            end-lease 7 8 -> ok
        "#]],
    );
}

// rule: AU-24
// rule: AU-25
#[test]
fn tokens_come_from_entries_and_go_with_passwords() {
    check(
        r#"login root a
        user-add root
        grant root root
        user-add alice
        user-add bob no-password
        login alice a
        enable
        login alice a
        login alice ""
        login bob b
        login carol c
        login "" c
        login root r
        token a.8
        token r.13
        root: grant alice root
        token a.8
        root: passwd alice
        token a.8
        login alice a
        token a.16
        root: user-delete alice
        token a.16
        token r.13
        restart
        token r.13
        login root r
        token r.18
        root: disable
        token r.18"#,
        expect![[r#"
            login root a -> error: etcdserver: authentication is not enabled
            user-add root -> ok, revision 2
            grant root root -> ok, revision 3
            user-add alice -> ok, revision 4
            user-add bob no-password -> ok, revision 5
            login alice a -> error: etcdserver: authentication is not enabled
            enable -> ok
            login alice a -> token Some("a.8")
            login alice "" -> token None
            login bob b -> error: etcdserver: authentication failed, invalid user ID or password
            login carol c -> error: etcdserver: authentication failed, invalid user ID or password
            login "" c -> error: etcdserver: authentication failed, invalid user ID or password
            login root r -> token Some("r.13")
            token a.8 -> alice
            token r.13 -> root
            root: grant alice root -> ok, revision 6
            token a.8 -> alice
            root: passwd alice -> ok, revision 7
            token a.8 -> nobody
            login alice a -> token Some("a.16")
            token a.16 -> alice
            root: user-delete alice -> ok, revision 8
            token a.16 -> nobody
            token r.13 -> root
            restart -> revision 8
            token r.13 -> nobody
            login root r -> token Some("r.18")
            token r.18 -> root
            root: disable -> ok, revision 9
            token r.18 -> nobody
        "#]],
    );
}

// rule: AU-25
#[test]
fn an_entry_of_an_earlier_run_gives_no_token_again() {
    let mut world = World::new();
    for line in ["user-add root", "grant root root", "enable"] {
        world.run(line);
    }
    world.state.issue_tokens_after(4);
    assert_eq!(world.run("login root a"), "token Some(\"a.4\")");
    assert_eq!(world.run("token a.4"), "nobody");
    assert_eq!(world.run("login root a"), "token Some(\"a.5\")");
    assert_eq!(world.run("token a.5"), "root");
}
