// SPDX-License-Identifier: Apache-2.0
//! Users and roles in a run: what clients ask of them, and what every member must hold of them.
//!
//! Owns      the draw of changes of users and of senders, the record of users that the log makes, and all that a member
//!           shows of its own.
//! Holds     the record is never restarted, sent or read back: what a member has is compared with it at each start, so
//!           whatever a snapshot or a restart loses is seen there.
//! Never     says which rights are right: `core/tests/auth` does, and the record is of the same rules.

use crate::{model::Outcome, node::Node};
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::{
        Auth, Identity, ROOT,
        command::{AuthCommand, encode_base64},
        needs,
    },
};
use cairn_engine::sim::SplitMix;
use cairn_mvcc::SmallTree;
use cairn_proto::{
    authpb::{Permission, permission::Type},
    errors, etcdserverpb as pb,
};
use std::collections::BTreeMap;

const USERS: [&str; 4] = [ROOT, "alice", "bob", "carol"];
const ROLES: [&str; 4] = [ROOT, "reader", "writer", "keeper"];

/// All that a member holds of users: what it judges by, and what it would come back with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    enabled: bool,
    revision: u64,
    /// Each with its roles and, while authentication is on, the hash of its password.
    users: BTreeMap<String, (Vec<String>, Option<Bytes>)>,
    roles: BTreeMap<String, Vec<(i32, Bytes, Bytes)>>,
    stored: BTreeMap<Bytes, Bytes>,
}

/// The record: see the module.
#[derive(Default)]
pub struct Users {
    auth: Auth,
    stored: BTreeMap<Bytes, Bytes>,
    /// What was to be held from each entry on that changed it.
    past: Vec<(u64, Shown)>,
}

impl Users {
    pub fn enabled(&self) -> bool {
        self.auth.enabled()
    }

    /// Makes a change that was committed as the entry `index`; `revision` is that of the store.
    pub fn apply(
        &mut self,
        index: u64,
        revision: i64,
        by: Option<&Identity>,
        command: &AuthCommand,
    ) -> Outcome {
        let change = match self.auth.apply(by, command) {
            Ok(change) => change,
            Err(refusal) => return Outcome::Refused(refusal.text),
        };
        for write in change.writes {
            match write.value {
                Some(value) => self.stored.insert(write.key.into(), value),
                None => self.stored.remove(&write.key[..]),
            };
        }
        self.past.push((index, shown(&self.auth, self.stored.clone())));
        Outcome::Revision(revision)
    }

    /// Why rights forbid a request (AUTH-3 to AUTH-5, AUTH-7).
    pub fn forbid(
        &self,
        by: Option<&Identity>,
        command: &Command,
        keys_of: &dyn Fn(i64) -> Vec<Bytes>,
    ) -> Option<&'static str> {
        let grants = self.auth.grants(by);
        let mut attached = |lease| Ok::<_, cairn_core::Refusal>(keys_of(lease));
        let judged = match command {
            Command::Put(r) => needs::put(&grants, r, &mut attached),
            Command::DeleteRange(r) => needs::delete_range(&grants, r),
            Command::Txn(r) => needs::txn(&grants, r, &mut attached),
            Command::LeaseRevoke(r) => needs::write_all(&grants, &keys_of(r.id)),
            _ => Ok(()),
        };
        judged.err().map(|refusal| refusal.text)
    }

    /// What a member must hold that has applied the entry `index`.
    pub fn after(&self, index: u64) -> Shown {
        let newer = self.past.partition_point(|(changed, _)| *changed <= index);
        let of_none = || shown(&Auth::default(), BTreeMap::new());
        newer.checked_sub(1).map_or_else(of_none, |at| self.past[at].1.clone())
    }

    /// Who sends the next request: mostly root, while that is asked for.
    pub fn sender(&self, rng: &mut SplitMix) -> Option<Identity> {
        let user = match rng.below(16) {
            0 if self.enabled() => return None,
            1..4 => USERS[rng.index(USERS.len())],
            _ if self.enabled() => ROOT,
            _ => return None,
        };
        Some(Identity { user: user.into(), revision: self.auth.revision() })
    }
}

/// What a member holds.
pub fn held(node: &Node) -> Result<Shown, String> {
    let stored = node.reader.small_scan(SmallTree::Auth).map_err(|e| e.to_string())?;
    Ok(shown(&node.state.auth_cell().auth(), stored.into_iter().collect()))
}

fn shown(auth: &Auth, stored: BTreeMap<Bytes, Bytes>) -> Shown {
    let root = Identity { user: ROOT.into(), revision: auth.revision() };
    let by = auth.enabled().then_some(&root);
    let told = "root may ask for everything";
    let user = |name: String| {
        let hash = auth.password_hash(&name).ok().flatten();
        let roles = auth.user_get(by, &name).expect(told);
        (name, (roles, hash))
    };
    let role = |name: String| {
        let permissions = auth.role_get(by, &name).expect(told);
        (name, permissions.into_iter().map(|p| (p.perm_type, p.key, p.range_end)).collect())
    };
    Shown {
        enabled: auth.enabled(),
        revision: auth.revision(),
        users: auth.user_list(by).expect(told).into_iter().map(user).collect(),
        roles: auth.role_list(by).expect(told).into_iter().map(role).collect(),
        stored,
    }
}

/// A change of users or roles, or a login. Those without which nothing can be switched on come more often.
pub fn change(rng: &mut SplitMix, interval: (Bytes, Bytes)) -> AuthCommand {
    let user = USERS[rng.index(USERS.len())].to_owned();
    let role = ROLES[rng.index(ROLES.len())].to_owned();
    let (key, range_end) = interval;
    let hash = encode_base64(&rng.below(1 << 30).to_be_bytes());
    match rng.below(24) {
        0..4 => AuthCommand::UserAdd(pb::AuthUserAddRequest {
            name: if rng.one_in(2) { ROOT.to_owned() } else { user },
            hashed_password: hash,
            ..Default::default()
        }),
        4..7 => AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: role }),
        7..10 => {
            let user = if rng.one_in(2) { ROOT.to_owned() } else { user };
            let role = if user == ROOT { ROOT.to_owned() } else { role };
            AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
        }
        10..13 => {
            let kinds = [Type::Read, Type::Write, Type::Readwrite];
            let perm_type = kinds[rng.index(kinds.len())] as i32;
            let perm = Some(Permission { perm_type, key, range_end });
            AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: role, perm })
        }
        13..17 => AuthCommand::Enable(pb::AuthEnableRequest {}),
        17 => AuthCommand::Disable(pb::AuthDisableRequest {}),
        18 => AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: user }),
        19 => AuthCommand::UserChangePassword(pb::AuthUserChangePasswordRequest {
            name: user,
            hashed_password: hash,
            ..Default::default()
        }),
        20 => AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: user, role }),
        21 => AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role }),
        22 => AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end }),
        _ => AuthCommand::Authenticate(pb::InternalAuthenticateRequest {
            name: user,
            simple_token: "token".to_owned(),
            ..Default::default()
        }),
    }
}

/// The refusals that rights give, so that they can be counted.
pub fn is_of_rights(text: &str) -> bool {
    [errors::PERMISSION_DENIED.text, errors::USER_EMPTY.text, errors::AUTH_OLD_REVISION.text].contains(&text)
}
