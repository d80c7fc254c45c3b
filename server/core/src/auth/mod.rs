// SPDX-License-Identifier: Apache-2.0
//! Users, roles and what they may do.
//!
//! Owns      the records of users and roles, whether authentication is on, and the auth revision.
//! Holds     1. a change that is refused changes nothing; one that is made says what is to be stored, in the
//!              transaction of its entry;
//!           2. the auth revision only grows, by one for each change of AU-4;
//!           3. rights are derived from the records alone, so all members agree on them.
//! Never     hashes or compares a password: the proposer did, and a hash is bytes here.

pub mod cell;
pub mod command;
pub mod needs;
pub mod rights;
pub mod tokens;

use crate::Refusal;
use bytes::Bytes;
use cairn_proto::{
    authpb::{Permission, Role, User, UserAddOptions, permission::Type},
    errors, etcdserverpb as pb,
};
use command::AuthCommand;
use needs::Grants;
use prost::Message;
use rights::Rights;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";

/// Who sent a request, and the auth revision when that was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub user: Arc<str>,
    pub revision: u64,
}

/// See the module. Clones share the records.
#[derive(Clone, Debug)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Arc<Account>>,
    roles: BTreeMap<String, Arc<Role>>,
}

/// A user with what follows from the records.
#[derive(Debug)]
struct Account {
    user: User,
    /// Computed when they are first asked for.
    rights: OnceLock<Rights>,
}

impl Account {
    fn new(user: User) -> Arc<Account> {
        Arc::new(Account { user, rights: OnceLock::new() })
    }
}

/// What is to be written to the tree of auth records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub key: Vec<u8>,
    /// `None` deletes.
    pub value: Option<Bytes>,
}

/// What a change came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    pub writes: Vec<Write>,
    /// Tokens that end with it (AU-25).
    pub tokens: EndedTokens,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum EndedTokens {
    #[default]
    None,
    Of(String),
    All,
}

/// How the state as a whole is stored.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    revision: u64,
}

const STATE_KEY: &[u8] = b"state";
const USER_PREFIX: &[u8] = b"user/";
const ROLE_PREFIX: &[u8] = b"role/";

/// What is stored and cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRecord(String);

impl Default for Auth {
    /// As of a fresh store (AU-4).
    fn default() -> Auth {
        Auth { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl Auth {
    /// Takes back one stored record.
    ///
    /// # Errors
    /// If it is none of this version.
    pub fn restore(&mut self, key: &[u8], value: &Bytes) -> Result<(), BadRecord> {
        let bad = |e: prost::DecodeError| BadRecord(e.to_string());
        let name = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| BadRecord("a name is not UTF-8".into()))
        };
        if key == STATE_KEY {
            let Record { enabled, revision } = Record::decode(value.clone()).map_err(bad)?;
            (self.enabled, self.revision) = (enabled, revision);
        } else if let Some(user) = key.strip_prefix(USER_PREFIX) {
            let record = User::decode(value.clone()).map_err(bad)?;
            self.users.insert(name(user)?, Account::new(record));
        } else if let Some(role) = key.strip_prefix(ROLE_PREFIX) {
            let record = Role::decode(value.clone()).map_err(bad)?;
            self.roles.insert(name(role)?, Arc::new(record));
        } else {
            return Err(BadRecord(format!("key {:?}", key.escape_ascii().to_string())));
        }
        Ok(())
    }

    pub fn enabled(&self) -> bool {
        self.enabled
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    // ---- checks ----

    /// What a sender may do with data (AU-20).
    pub fn grants(&self, by: Option<&Identity>) -> Grants<'_> {
        if !self.enabled {
            return Grants::Everything;
        }
        match by {
            None => Grants::Nothing(errors::USER_EMPTY),
            Some(by) if by.revision < self.revision => Grants::Nothing(errors::AUTH_OLD_REVISION),
            Some(by) => {
                self.rights_of(&by.user).map_or(Grants::Nothing(errors::PERMISSION_DENIED), Grants::Only)
            }
        }
    }

    /// What a user may do now, however long ago it showed who it is.
    pub fn grants_now(&self, user: Option<&str>) -> Grants<'_> {
        if !self.enabled {
            return Grants::Everything;
        }
        match user {
            None => Grants::Nothing(errors::USER_EMPTY),
            Some(user) => {
                self.rights_of(user).map_or(Grants::Nothing(errors::PERMISSION_DENIED), Grants::Only)
            }
        }
    }

    fn rights_of(&self, user: &str) -> Option<&Rights> {
        let account = self.users.get(user)?;
        Some(account.rights.get_or_init(|| {
            let roles = &account.user.roles;
            let held = roles.iter().filter_map(|role| self.roles.get(role));
            let root = roles.iter().any(|role| role == ROOT);
            Rights::of(root, held.flat_map(|role| &role.key_permission))
        }))
    }

    /// What every sender with an identity may do.
    pub fn check_known(&self, by: Option<&Identity>) -> Result<(), Refusal> {
        if self.enabled && by.is_none() { Err(errors::USER_EMPTY) } else { Ok(()) }
    }

    /// What needs role root (AU-19).
    pub fn check_root(&self, by: Option<&Identity>) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        let Some(by) = by.filter(|by| !by.user.is_empty()) else { return Err(errors::USER_EMPTY) };
        let account = self.users.get(&*by.user).ok_or(errors::USER_NOT_FOUND)?;
        if account.user.roles.iter().any(|role| role == ROOT) {
            Ok(())
        } else {
            Err(errors::PERMISSION_DENIED)
        }
    }

    /// Of which user the hash is to be compared with a password (AU-24); `None` if there is no such user.
    pub fn password_hash(&self, user: &str) -> Result<Option<Bytes>, Refusal> {
        if !self.enabled {
            return Err(errors::AUTH_NOT_ENABLED);
        }
        match self.users.get(user) {
            None => Ok(None),
            Some(account) if has_no_password(&account.user) => Err(errors::NO_PASSWORD_USER),
            Some(account) => Ok(Some(account.user.password.clone())),
        }
    }

    /// Whether an entry may issue a token for this user: the password was compared before it was proposed.
    pub fn check_issue(&self, user: &str) -> Result<(), Refusal> {
        match self.password_hash(user) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(errors::NO_PASSWORD_USER) => Err(errors::AUTH_FAILED),
            Err(off) => Err(off),
        }
    }

    // ---- what is asked for ----

    /// The roles of a user, sorted (AU-11); also for that user itself.
    pub fn user_get(&self, by: Option<&Identity>, name: &str) -> Result<Vec<String>, Refusal> {
        let own = by.map_or("", |by| &*by.user) == name;
        self.check_root(by).or_else(|refusal| if own { Ok(()) } else { Err(refusal) })?;
        Ok(self.user(name)?.user.roles.clone())
    }

    pub fn user_list(&self, by: Option<&Identity>) -> Result<Vec<String>, Refusal> {
        self.check_root(by)?;
        Ok(self.users.keys().cloned().collect())
    }

    /// The permissions of a role (AU-14); also for those who hold it.
    pub fn role_get(&self, by: Option<&Identity>, name: &str) -> Result<Vec<Permission>, Refusal> {
        let holds = || {
            let account = by.and_then(|by| self.users.get(&*by.user));
            account.is_some_and(|account| account.user.roles.iter().any(|role| role == name))
        };
        self.check_root(by).or_else(|refusal| if holds() { Ok(()) } else { Err(refusal) })?;
        let role = self.role(name)?;
        if name == ROOT {
            let everything = Permission {
                perm_type: Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(rights::OPEN),
            };
            return Ok(vec![everything]);
        }
        Ok(role.key_permission.clone())
    }

    pub fn role_list(&self, by: Option<&Identity>) -> Result<Vec<String>, Refusal> {
        self.check_root(by)?;
        Ok(self.roles.keys().cloned().collect())
    }

    // ---- changes ----

    /// Makes a change that was committed, for whom it was asked by.
    ///
    /// # Errors
    /// The refusal that its sender is told; nothing is changed then.
    pub fn apply(&mut self, by: Option<&Identity>, command: &AuthCommand) -> Result<Change, Refusal> {
        if let AuthCommand::Authenticate(r) = command {
            return self.check_issue(&r.name).map(|()| Change::default());
        }
        self.check_root(by)?;
        match command {
            AuthCommand::Enable(_) => self.enable(),
            AuthCommand::Disable(_) => Ok(self.disable()),
            AuthCommand::Authenticate(_) => unreachable!("answered above"),
            AuthCommand::UserAdd(r) => self.user_add(r),
            AuthCommand::UserDelete(r) => self.user_delete(&r.name),
            AuthCommand::UserChangePassword(r) => self.user_change_password(r),
            AuthCommand::UserGrantRole(r) => self.user_grant_role(r),
            AuthCommand::UserRevokeRole(r) => self.user_revoke_role(r),
            AuthCommand::RoleAdd(r) => self.role_add(&r.name),
            AuthCommand::RoleDelete(r) => self.role_delete(&r.role),
            AuthCommand::RoleGrantPermission(r) => self.role_grant_permission(r),
            AuthCommand::RoleRevokePermission(r) => self.role_revoke_permission(r),
        }
    }

    /// AU-1.
    fn enable(&mut self) -> Result<Change, Refusal> {
        if self.enabled {
            return Ok(Change::default());
        }
        let root = self.users.get(ROOT).ok_or(errors::ROOT_USER_NOT_EXIST)?;
        if !root.user.roles.iter().any(|role| role == ROOT) {
            return Err(errors::ROOT_ROLE_NOT_EXIST);
        }
        self.enabled = true;
        Ok(Change { writes: vec![self.state_write()], tokens: EndedTokens::None })
    }

    /// AU-2.
    fn disable(&mut self) -> Change {
        if !self.enabled {
            return Change::default();
        }
        self.enabled = false;
        let change = self.bumped(Vec::new());
        Change { tokens: EndedTokens::All, ..change }
    }

    /// AU-6.
    fn user_add(&mut self, r: &pb::AuthUserAddRequest) -> Result<Change, Refusal> {
        if r.name.is_empty() {
            return Err(errors::USER_EMPTY);
        }
        if self.users.contains_key(&r.name) {
            return Err(errors::USER_ALREADY_EXIST);
        }
        let no_password = r.options.as_ref().is_some_and(|options| options.no_password);
        let password = if no_password { Bytes::new() } else { hash_of(&r.hashed_password)? };
        let user = User {
            name: r.name.clone().into(),
            password,
            roles: Vec::new(),
            options: Some(UserAddOptions { no_password }),
        };
        let write = self.put_user(user);
        Ok(self.bumped(vec![write]))
    }

    /// AU-8.
    fn user_delete(&mut self, name: &str) -> Result<Change, Refusal> {
        if self.enabled && name == ROOT {
            return Err(errors::INVALID_AUTH_MGMT);
        }
        self.users.remove(name).ok_or(errors::USER_NOT_FOUND)?;
        let change = self.bumped(vec![Write { key: user_key(name), value: None }]);
        Ok(Change { tokens: EndedTokens::Of(name.to_owned()), ..change })
    }

    /// AU-7.
    fn user_change_password(&mut self, r: &pb::AuthUserChangePasswordRequest) -> Result<Change, Refusal> {
        let mut user = self.user(&r.name)?.user.clone();
        user.password = if has_no_password(&user) { Bytes::new() } else { hash_of(&r.hashed_password)? };
        let write = self.put_user(user);
        let change = self.bumped(vec![write]);
        Ok(Change { tokens: EndedTokens::Of(r.name.clone()), ..change })
    }

    /// AU-9.
    fn user_grant_role(&mut self, r: &pb::AuthUserGrantRoleRequest) -> Result<Change, Refusal> {
        let mut user = self.user(&r.user)?.user.clone();
        if r.role != ROOT && !self.roles.contains_key(&r.role) {
            return Err(errors::ROLE_NOT_FOUND);
        }
        match user.roles.binary_search(&r.role) {
            Ok(_) => return Ok(Change::default()),
            Err(at) => user.roles.insert(at, r.role.clone()),
        }
        let write = self.put_user(user);
        Ok(self.bumped(vec![write]))
    }

    /// AU-10.
    fn user_revoke_role(&mut self, r: &pb::AuthUserRevokeRoleRequest) -> Result<Change, Refusal> {
        if self.enabled && r.name == ROOT && r.role == ROOT {
            return Err(errors::INVALID_AUTH_MGMT);
        }
        let mut user = self.user(&r.name)?.user.clone();
        let at = user.roles.binary_search(&r.role).map_err(|_| errors::ROLE_NOT_GRANTED)?;
        user.roles.remove(at);
        let write = self.put_user(user);
        Ok(self.bumped(vec![write]))
    }

    /// AU-12.
    fn role_add(&mut self, name: &str) -> Result<Change, Refusal> {
        if name.is_empty() {
            return Err(errors::ROLE_EMPTY);
        }
        if self.roles.contains_key(name) {
            return Err(errors::ROLE_ALREADY_EXIST);
        }
        let write = self.put_role(Role { name: name.to_owned().into(), key_permission: Vec::new() });
        Ok(self.bumped(vec![write]))
    }

    /// AU-13.
    fn role_delete(&mut self, name: &str) -> Result<Change, Refusal> {
        if self.enabled && name == ROOT {
            return Err(errors::INVALID_AUTH_MGMT);
        }
        self.roles.remove(name).ok_or(errors::ROLE_NOT_FOUND)?;
        let mut writes = vec![Write { key: role_key(name), value: None }];
        for mut user in self.holders(name) {
            user.roles.retain(|role| role != name);
            writes.push(self.put_user(user));
        }
        Ok(self.bumped(writes))
    }

    /// AU-15.
    fn role_grant_permission(&mut self, r: &pb::AuthRoleGrantPermissionRequest) -> Result<Change, Refusal> {
        let granted = r.perm.as_ref().ok_or(errors::PERMISSION_NOT_GIVEN)?;
        if !rights::is_grantable(&granted.key, &granted.range_end) {
            return Err(errors::INVALID_AUTH_MGMT);
        }
        let mut role = self.role(&r.name)?.clone();
        let same = |held: &&mut Permission| held.key == granted.key && held.range_end == granted.range_end;
        match role.key_permission.iter_mut().find(same) {
            Some(held) => held.perm_type = granted.perm_type,
            None => {
                role.key_permission.push(granted.clone());
                role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        let write = self.put_role(role);
        self.forget_rights(&r.name);
        Ok(self.bumped(vec![write]))
    }

    /// AU-16.
    fn role_revoke_permission(&mut self, r: &pb::AuthRoleRevokePermissionRequest) -> Result<Change, Refusal> {
        let mut role = self.role(&r.role)?.clone();
        let before = role.key_permission.len();
        role.key_permission.retain(|held| held.key != r.key || held.range_end != r.range_end);
        if role.key_permission.len() == before {
            return Err(errors::PERMISSION_NOT_GRANTED);
        }
        let write = self.put_role(role);
        self.forget_rights(&r.role);
        Ok(self.bumped(vec![write]))
    }

    fn user(&self, name: &str) -> Result<&Account, Refusal> {
        self.users.get(name).map(|account| &**account).ok_or(errors::USER_NOT_FOUND)
    }

    fn role(&self, name: &str) -> Result<&Role, Refusal> {
        self.roles.get(name).map(|role| &**role).ok_or(errors::ROLE_NOT_FOUND)
    }

    /// The users who hold a role.
    fn holders(&self, role: &str) -> Vec<User> {
        let users = self.users.values().map(|account| &account.user);
        users.filter(|user| user.roles.iter().any(|held| held == role)).cloned().collect()
    }

    /// The rights of those who hold a role are to be derived anew.
    fn forget_rights(&mut self, role: &str) {
        for user in self.holders(role) {
            self.put_user(user);
        }
    }

    fn put_user(&mut self, user: User) -> Write {
        let name = String::from_utf8_lossy(&user.name).into_owned();
        let write = Write { key: user_key(&name), value: Some(user.encode_to_vec().into()) };
        self.users.insert(name, Account::new(user));
        write
    }

    fn put_role(&mut self, role: Role) -> Write {
        let name = String::from_utf8_lossy(&role.name).into_owned();
        let write = Write { key: role_key(&name), value: Some(role.encode_to_vec().into()) };
        self.roles.insert(name, Arc::new(role));
        write
    }

    fn bumped(&mut self, mut writes: Vec<Write>) -> Change {
        self.revision += 1;
        writes.push(self.state_write());
        Change { writes, tokens: EndedTokens::None }
    }

    fn state_write(&self) -> Write {
        let record = Record { enabled: self.enabled, revision: self.revision };
        Write { key: STATE_KEY.to_vec(), value: Some(record.encode_to_vec().into()) }
    }
}

fn has_no_password(user: &User) -> bool {
    user.options.as_ref().is_some_and(|options| options.no_password)
}

fn user_key(name: &str) -> Vec<u8> {
    [USER_PREFIX, name.as_bytes()].concat()
}

fn role_key(name: &str) -> Vec<u8> {
    [ROLE_PREFIX, name.as_bytes()].concat()
}

/// A hash as it is in a request: base64 with padding. etcd's word for one that is not.
fn hash_of(base64: &str) -> Result<Bytes, Refusal> {
    command::decode_base64(base64).map(Bytes::from).ok_or(errors::NO_PASSWORD_USER)
}
