// SPDX-License-Identifier: Apache-2.0
//! Any sequence of changes of users and roles, by anyone.
//!
//! Holds     1. a change that is refused leaves everything as it was;
//!           2. what is said to be stored gives the same users and roles again;
//!           3. once authentication is on, only role root changes anything;
//!           4. stored bytes of any kind are records or refused.

use super::program::Program;
use bytes::Bytes;
use cairn_core::auth::{Auth, Identity, command::AuthCommand};
use cairn_engine::{fuzz::Target, sim::SplitMix};
use cairn_proto::{
    authpb::{Permission, UserAddOptions},
    etcdserverpb as pb,
};
use std::collections::BTreeMap;

pub const STORE: Target = Target { name: "auth-store", run, fix: |_| {}, samples, anchors: super::spread };

const STEPS_MAX: usize = 60;
/// The choice of stored bytes instead of a change.
const FROM_DISK: u8 = 255;
const USERS: [&str; 4] = ["root", "alice", "", "b\u{0}b"];
const ROLES: [&str; 4] = ["root", "r", "", "s/t"];
const KEYS: [&[u8]; 6] = [b"", b"\0", b"a", b"a\0", b"k", b"\xff"];

fn name(of: &[&str; 4], program: &mut Program<'_>) -> String {
    of[program.below(4)].to_owned()
}

fn key(program: &mut Program<'_>) -> Bytes {
    match program.below(8) {
        7 => Bytes::copy_from_slice(program.piece()),
        n => Bytes::from_static(KEYS[n % KEYS.len()]),
    }
}

fn command(op: u8, program: &mut Program<'_>) -> AuthCommand {
    let hashed_password = || if op & 0x40 == 0 { "aGFzaA==".to_owned() } else { "no base64".to_owned() };
    match op % 12 {
        0 => AuthCommand::Enable(pb::AuthEnableRequest {}),
        1 => AuthCommand::Disable(pb::AuthDisableRequest {}),
        2 | 3 => AuthCommand::UserAdd(pb::AuthUserAddRequest {
            name: name(&USERS, program),
            hashed_password: hashed_password(),
            options: (op & 0x20 != 0).then_some(UserAddOptions { no_password: op & 0x10 != 0 }),
            ..Default::default()
        }),
        4 => AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: name(&USERS, program) }),
        5 => AuthCommand::UserChangePassword(pb::AuthUserChangePasswordRequest {
            name: name(&USERS, program),
            hashed_password: hashed_password(),
            ..Default::default()
        }),
        6 => AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest {
            user: name(&USERS, program),
            role: name(&ROLES, program),
        }),
        7 => AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest {
            name: name(&USERS, program),
            role: name(&ROLES, program),
        }),
        8 => AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: name(&ROLES, program) }),
        9 => AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role: name(&ROLES, program) }),
        10 => AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name: name(&ROLES, program),
            perm: (op & 0x40 == 0).then(|| Permission {
                perm_type: i32::from(op >> 4) - 1,
                key: key(program),
                range_end: key(program),
            }),
        }),
        _ => AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
            role: name(&ROLES, program),
            key: key(program),
            range_end: key(program),
        }),
    }
}

/// Everything that can be asked, by root itself.
fn told(auth: &Auth) -> String {
    let root = Identity { user: "root".into(), revision: u64::MAX };
    let by = Some(&root);
    let users: Vec<_> =
        USERS.iter().map(|user| (auth.user_get(by, user), auth.password_hash(user))).collect();
    let roles: Vec<_> = ROLES.iter().map(|role| auth.role_get(by, role)).collect();
    let lists = (auth.user_list(by), auth.role_list(by));
    format!("{} {} {users:?} {roles:?} {lists:?}", auth.enabled(), auth.revision())
}

/// Whether somebody may change users and roles.
fn is_admin(auth: &Auth, by: Option<&Identity>) -> bool {
    let roles = by.map(|by| auth.user_get(Some(by), &by.user));
    !auth.enabled() || matches!(roles, Some(Ok(roles)) if roles.iter().any(|role| role == "root"))
}

fn run(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let (mut auth, mut stored) = (Auth::default(), BTreeMap::<Vec<u8>, Bytes>::new());
    let mut enabled = 0;
    for _ in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        if op == FROM_DISK {
            // Into a copy, which nobody asks.
            let (key, value) = (program.piece(), Bytes::copy_from_slice(program.piece()));
            auth.clone().restore(key, &value).ok();
            continue;
        }
        let by = Identity { user: USERS[program.below(4)].into(), revision: auth.revision() };
        let by = (program.below(8) != 0).then_some(by);
        let (was_on, revision, admin) = (auth.enabled(), auth.revision(), is_admin(&auth, by.as_ref()));
        let before = auth.clone();
        let command = command(op, &mut program);
        match auth.apply(by.as_ref(), &command) {
            Err(_) => assert_eq!(told(&auth), told(&before), "{command:?} was refused"),
            Ok(change) => {
                assert!(admin, "{command:?} by {by:?}");
                for write in change.writes {
                    match write.value {
                        Some(value) => stored.insert(write.key, value),
                        None => stored.remove(&write.key),
                    };
                }
                assert!(auth.revision() >= revision && auth.revision() <= revision + 1);
                enabled += usize::from(auth.enabled() && !was_on);
            }
        }
    }
    let mut again = Auth::default();
    for (key, value) in &stored {
        again.restore(key, value).expect("what was stored is read again");
    }
    assert_eq!(told(&again), told(&auth), "after a restart");
    enabled > 0
}

/// Programs that switch authentication on, and go on at random.
fn samples() -> Vec<Vec<u8>> {
    let mut rng = SplitMix::new(9);
    // Users root and alice, roles root and r, a permission, grants, and the switch; by user and role 0 or 1.
    let begin = [
        &[2, 0, 1, 0][..],
        &[2, 0, 1, 1],
        &[8, 0, 1, 0],
        &[8, 0, 1, 1],
        &[22, 0, 1, 1, 2, 4],
        &[6, 0, 1, 0, 0],
        &[6, 0, 1, 1, 1],
        &[0, 0, 1],
    ]
    .concat();
    let mut random = |len: usize| {
        let mut bytes = begin.clone();
        bytes.resize(begin.len() + len, 0);
        rng.fill(&mut bytes[begin.len()..]);
        bytes
    };
    vec![random(0), random(40), random(120), random(120)]
}
