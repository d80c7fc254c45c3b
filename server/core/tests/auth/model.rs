// SPDX-License-Identifier: Apache-2.0
//! Random users, roles, grants and checks, against a model that looks at one key after the other.
//!
//! Owns      the model: plain lists, and a line of sample keys that tells any two ranges of the test apart.
//! Holds     the same seed gives the same run; every outcome and every kind of check comes up.
//! Never     uses what it tests.

use cairn_core::{
    auth::{Auth, Identity, ROOT, command::AuthCommand, needs::Grants, rights::OPEN},
    boot::draw,
};
use cairn_proto::{
    authpb::{Permission, permission::Type},
    errors::{self, WireError},
    etcdserverpb as pb,
};
use std::collections::{BTreeMap, BTreeSet};

const STEPS: usize = 6_000;
const CHECKS_PER_STEP: usize = 20;

/// Draws of one seed.
struct Draws {
    seed: u64,
    drawn: u64,
}

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        (draw(self.seed, self.drawn) % n as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

const USERS: [&str; 5] = ["root", "alice", "bob", "carol", ""];
const ROLES: [&str; 5] = ["root", "r", "s", "t", ""];
const BOUNDS: [&str; 7] = ["a", "b", "b\0", "c", "d", "e", "f"];

/// One key of every stretch that the bounds cut the keys into; `"zz"` stands for all that have no end.
const SAMPLES: [&str; 16] =
    ["\0", "a", "a\0", "a\0\0", "b", "b\0", "b\0\0", "c", "c\0", "d", "d\0", "e", "e\0", "f", "f\0", "zz"];

fn holds(key: &str, range: (&str, &str)) -> bool {
    match range {
        (start, "") => key == start,
        (start, "\0") => key >= start,
        (start, end) if end <= start => key == start,
        (start, end) => start <= key && key < end,
    }
}

type Range = (&'static str, &'static str);

#[derive(Default)]
struct Model {
    enabled: bool,
    revision: u64,
    users: BTreeMap<&'static str, BTreeSet<&'static str>>,
    roles: BTreeMap<&'static str, Vec<(Range, Type)>>,
}

impl Model {
    fn admin(&self, by: Option<&str>) -> Result<(), WireError> {
        match by {
            _ if !self.enabled => Ok(()),
            None | Some("") => Err(errors::USER_EMPTY),
            Some(user) => match self.users.get(user) {
                None => Err(errors::USER_NOT_FOUND),
                Some(roles) if roles.contains(ROOT) => Ok(()),
                Some(_) => Err(errors::PERMISSION_DENIED),
            },
        }
    }

    fn apply(&mut self, by: Option<&str>, step: &Step) -> Result<(), WireError> {
        self.admin(by)?;
        match *step {
            Step::Enable if self.enabled => return Ok(()),
            Step::Enable => {
                let root = self.users.get(ROOT).ok_or(errors::ROOT_USER_NOT_EXIST)?;
                if !root.contains(ROOT) {
                    return Err(errors::ROOT_ROLE_NOT_EXIST);
                }
                self.enabled = true;
                return Ok(());
            }
            Step::Disable if !self.enabled => return Ok(()),
            Step::Disable => self.enabled = false,
            Step::UserAdd("") => return Err(errors::USER_EMPTY),
            Step::UserAdd(user) if self.users.contains_key(user) => return Err(errors::USER_ALREADY_EXIST),
            Step::UserAdd(user) => {
                self.users.insert(user, BTreeSet::new());
            }
            Step::UserDelete(ROOT) if self.enabled => return Err(errors::INVALID_AUTH_MGMT),
            Step::UserDelete(user) => {
                self.users.remove(user).ok_or(errors::USER_NOT_FOUND)?;
            }
            Step::Grant(user, role) => {
                let known = role == ROOT || self.roles.contains_key(role);
                let roles = self.users.get_mut(user).ok_or(errors::USER_NOT_FOUND)?;
                if !known {
                    return Err(errors::ROLE_NOT_FOUND);
                }
                if !roles.insert(role) {
                    return Ok(());
                }
            }
            Step::Revoke(ROOT, ROOT) if self.enabled => return Err(errors::INVALID_AUTH_MGMT),
            Step::Revoke(user, role) => {
                let roles = self.users.get_mut(user).ok_or(errors::USER_NOT_FOUND)?;
                if !roles.remove(role) {
                    return Err(errors::ROLE_NOT_GRANTED);
                }
            }
            Step::RoleAdd("") => return Err(errors::ROLE_EMPTY),
            Step::RoleAdd(role) if self.roles.contains_key(role) => return Err(errors::ROLE_ALREADY_EXIST),
            Step::RoleAdd(role) => {
                self.roles.insert(role, Vec::new());
            }
            Step::RoleDelete(ROOT) if self.enabled => return Err(errors::INVALID_AUTH_MGMT),
            Step::RoleDelete(role) => {
                self.roles.remove(role).ok_or(errors::ROLE_NOT_FOUND)?;
                self.users.values_mut().for_each(|roles| {
                    roles.remove(role);
                });
            }
            Step::Permit(role, range, kind) => {
                if !range.1.is_empty() && range.1 != "\0" && range.1 <= range.0 {
                    return Err(errors::INVALID_AUTH_MGMT);
                }
                let permissions = self.roles.get_mut(role).ok_or(errors::ROLE_NOT_FOUND)?;
                permissions.retain(|(held, _)| *held != range);
                permissions.push((range, kind));
            }
            Step::Forbid(role, range) => {
                let permissions = self.roles.get_mut(role).ok_or(errors::ROLE_NOT_FOUND)?;
                let before = permissions.len();
                permissions.retain(|(held, _)| *held != range);
                if permissions.len() == before {
                    return Err(errors::PERMISSION_NOT_GRANTED);
                }
            }
        }
        self.revision += 1;
        Ok(())
    }

    /// Whether a user may read, or write, every sample of a range.
    fn may(&self, user: &str, range: Range, write: bool) -> bool {
        let Some(roles) = self.users.get(user) else { return false };
        let permitted = |key: &str| {
            let held = roles.iter().filter_map(|role| self.roles.get(role)).flatten();
            let other = if write { Type::Read } else { Type::Write };
            held.filter(|(_, kind)| *kind != other).any(|(held, _)| holds(key, *held))
        };
        roles.contains(ROOT) || SAMPLES.iter().filter(|key| holds(key, range)).all(|key| permitted(key))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enable,
    Disable,
    UserAdd(&'static str),
    UserDelete(&'static str),
    Grant(&'static str, &'static str),
    Revoke(&'static str, &'static str),
    RoleAdd(&'static str),
    RoleDelete(&'static str),
    Permit(&'static str, Range, Type),
    Forbid(&'static str, Range),
}

impl Step {
    fn draw(draws: &mut Draws) -> Step {
        let (user, role) = (draws.of(&USERS), draws.of(&ROLES));
        match draws.below(40) {
            0 => Step::Enable,
            1 => Step::Disable,
            2..6 => Step::UserAdd(user),
            6 => Step::UserDelete(user),
            7..14 => Step::Grant(user, role),
            14..16 => Step::Revoke(user, role),
            16..20 => Step::RoleAdd(role),
            20 => Step::RoleDelete(role),
            21..36 => {
                Step::Permit(role, range(draws), [Type::Read, Type::Write, Type::Readwrite][draws.below(3)])
            }
            _ => Step::Forbid(role, range(draws)),
        }
    }

    fn command(&self) -> AuthCommand {
        match *self {
            Step::Enable => AuthCommand::Enable(pb::AuthEnableRequest {}),
            Step::Disable => AuthCommand::Disable(pb::AuthDisableRequest {}),
            Step::UserAdd(name) => {
                AuthCommand::UserAdd(pb::AuthUserAddRequest { name: name.into(), ..Default::default() })
            }
            Step::UserDelete(name) => {
                AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: name.into() })
            }
            Step::Grant(user, role) => AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest {
                user: user.into(),
                role: role.into(),
            }),
            Step::Revoke(name, role) => AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest {
                name: name.into(),
                role: role.into(),
            }),
            Step::RoleAdd(name) => AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: name.into() }),
            Step::RoleDelete(role) => {
                AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role: role.into() })
            }
            Step::Permit(name, (key, end), kind) => {
                AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                    name: name.into(),
                    perm: Some(Permission { perm_type: kind as i32, key: key.into(), range_end: end.into() }),
                })
            }
            Step::Forbid(role, (key, end)) => {
                AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                    role: role.into(),
                    key: key.into(),
                    range_end: end.into(),
                })
            }
        }
    }
}

fn range(draws: &mut Draws) -> Range {
    let start = draws.of(&BOUNDS);
    match draws.below(4) {
        0 => (start, ""),
        1 => (start, "\0"),
        _ => (start, draws.of(&BOUNDS)),
    }
}

// rule: AU-4
// rule: AU-17
// rule: AU-18
// rule: AU-20
// rule: AUTH-2
#[test]
fn rights_are_those_of_a_model_that_looks_at_every_key() {
    const OPEN_END: &str = "\0";
    assert_eq!(OPEN_END.as_bytes(), OPEN);
    let seed = std::env::var("CAIRN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("CAIRN_SEED={seed}");
    let mut draws = Draws { seed, drawn: 0 };
    let (mut auth, mut model) = (Auth::default(), Model { revision: 1, ..Model::default() });
    let mut stored: BTreeMap<Vec<u8>, bytes::Bytes> = BTreeMap::new();
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut allowed, mut denied) = (0, 0);
    for number in 0..STEPS {
        let step = Step::draw(&mut draws);
        // Mostly root, or nothing would change once it is on.
        let by = [Some(ROOT), Some(ROOT), Some(ROOT), Some("alice"), Some("nobody"), None][draws.below(6)];
        let identity = by.map(|user| Identity { user: user.into(), revision: auth.revision() });
        let (ours, theirs) = (auth.apply(identity.as_ref(), &step.command()), model.apply(by, &step));
        let outcome = ours.as_ref().err().map_or("ok", |refusal| refusal.text);
        assert_eq!(ours.as_ref().err(), theirs.as_ref().err(), "step {number}: {step:?} by {by:?}");
        *met.entry(outcome).or_default() += 1;
        for write in ours.into_iter().flat_map(|change| change.writes) {
            match write.value {
                Some(value) => stored.insert(write.key, value),
                None => stored.remove(&write.key),
            };
        }
        assert_eq!((auth.enabled(), auth.revision()), (model.enabled, model.revision), "step {number}");
        if number % 50 == 0 {
            // What was to be stored makes the same state again.
            auth = Auth::default();
            stored.iter().for_each(|(key, value)| auth.restore(key, value).expect("it was stored"));
        }
        for _ in 0..CHECKS_PER_STEP {
            let (user, range, write) = (draws.of(&USERS), range(&mut draws), draws.below(2) == 0);
            let identity = Identity { user: user.into(), revision: auth.revision() };
            let grants = auth.grants(Some(&identity));
            let (key, end) = (range.0.as_bytes(), range.1.as_bytes());
            let ours = if write { grants.write(key, end) } else { grants.read(key, end) };
            let theirs = !model.enabled || model.may(user, range, write);
            assert_eq!(ours.is_ok(), theirs, "step {number}: {user} {range:?} write {write}");
            if model.enabled {
                *(if theirs { &mut allowed } else { &mut denied }) += 1;
            }
        }
        if model.enabled {
            let old = Identity { user: ROOT.into(), revision: auth.revision() - 1 };
            assert!(matches!(auth.grants(Some(&old)), Grants::Nothing(errors::AUTH_OLD_REVISION)));
            assert!(matches!(auth.grants(None), Grants::Nothing(errors::USER_EMPTY)));
        }
    }
    println!("{allowed} allowed, {denied} denied, {met:?}");
    assert!(allowed > 2_000 && denied > 2_000, "{allowed} allowed, {denied} denied");
    for outcome in [
        "ok",
        errors::ROOT_USER_NOT_EXIST.text,
        errors::ROOT_ROLE_NOT_EXIST.text,
        errors::USER_EMPTY.text,
        errors::USER_NOT_FOUND.text,
        errors::USER_ALREADY_EXIST.text,
        errors::ROLE_EMPTY.text,
        errors::ROLE_NOT_FOUND.text,
        errors::ROLE_ALREADY_EXIST.text,
        errors::ROLE_NOT_GRANTED.text,
        errors::PERMISSION_DENIED.text,
        errors::PERMISSION_NOT_GRANTED.text,
        errors::INVALID_AUTH_MGMT.text,
    ] {
        assert!(met.get(outcome).is_some_and(|times| *times > 3), "{outcome}: {met:?}");
    }
}
