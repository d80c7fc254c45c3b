// SPDX-License-Identifier: Apache-2.0
//! Users and roles, as clients use them, and who a caller is.
//!
//! Owns      the way from a token to an identity, the checks before a request is proposed or read, and the way
//!           of an Auth request through the member.
//! Holds     1. with authentication off a check costs one load;
//!           2. nobody is refused for what this member has not heard of yet: before a refusal that a newer
//!              state could lift, it catches up;
//!           3. a password is hashed or compared here, and goes no further; of a token the log and the other
//!              members get a fingerprint.
//! Never     decides what a user may do: the core does, again when a write is applied.

use super::{
    Member, Refusal,
    passwords::{fingerprint, letters},
};
use crate::jwt::{Jwt, JwtConfig, KeyError};
use bytes::Bytes;
use cairn_core::{
    Command,
    auth::{
        Auth, Identity,
        command::{AuthCommand, encode_base64},
        needs::{self, Grants},
        tokens,
    },
    state::Applied,
};
use cairn_proto::{errors, etcdserverpb as pb, methods::Permission};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Who a request says that it is from.
#[derive(Clone, Debug, Default)]
pub enum Caller {
    /// It says nothing.
    #[default]
    Nobody,
    /// The member's own look at itself.
    Itself,
    /// By a token of its metadata.
    Token(Token),
    /// By the common name of a certificate that was verified (AU-31).
    Certificate(Arc<str>),
}

/// A token as it came. It is never written down.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a token")
    }
}

impl Token {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Caller {
    pub fn with_token(token: &str) -> Caller {
        Caller::Token(Token(token.into()))
    }
}

/// How the member makes tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Random letters that the members remember (AU-25).
    Simple,
    /// Signed, and remembered by nobody (AU-26).
    Jwt(JwtConfig),
    /// None are given (AU-29).
    None,
}

/// What is configured of authentication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthConfig {
    pub tokens: TokenKind,
    pub token_ttl_ms: u64,
    pub bcrypt_cost: u32,
    /// Watchers and keep-alives end with the right that they were begun under (WATCH-13).
    pub revoke_watches: bool,
}

impl Default for AuthConfig {
    /// etcd's, but for the watches.
    fn default() -> AuthConfig {
        AuthConfig { tokens: TokenKind::Simple, token_ttl_ms: 300_000, bcrypt_cost: 10, revoke_watches: true }
    }
}

/// Who a caller is, by a state of the users.
pub(super) struct Standing {
    auth: Arc<Auth>,
    by: Option<Identity>,
}

impl Standing {
    pub fn grants(&self) -> Grants<'_> {
        self.auth.grants(self.by.as_ref())
    }

    /// The same user by a newer state.
    pub fn grants_in<'a>(&self, newer: &'a Auth) -> Grants<'a> {
        newer.grants_now(self.by.as_ref().map(|by| &*by.user))
    }

    pub fn is_of(&self, auth: &Auth) -> bool {
        (self.auth.revision(), self.auth.enabled()) == (auth.revision(), auth.enabled())
    }
}

/// How often a read is done again because rights changed meanwhile (AU-20).
const READ_ATTEMPTS: usize = 4;
/// How often a password is compared again because users changed meanwhile (AU-24).
const LOGIN_ATTEMPTS: usize = 8;
/// The longest password that bcrypt takes whole.
const PASSWORD_BYTES_MAX: usize = 72;

impl Member {
    /// The same member, used for someone else.
    pub fn called_by(&self, caller: Caller) -> Member {
        Member { shared: self.shared.clone(), threads: self.threads.clone(), caller }
    }

    pub fn auth_enabled(&self) -> bool {
        self.shared.auth.enabled()
    }

    /// Who calls; `None` while authentication is off, and for who says nothing.
    pub(super) async fn identity(&self) -> Result<Option<Identity>, Refusal> {
        if !self.shared.auth.enabled() {
            return Ok(None);
        }
        match &self.caller {
            Caller::Nobody | Caller::Itself => Ok(None),
            Caller::Certificate(user) => {
                Ok(Some(Identity { user: user.clone(), revision: self.shared.auth.auth().revision() }))
            }
            Caller::Token(Token(token)) => {
                if let Some(jwt) = &self.shared.jwt {
                    let claims = jwt.verify(token, wall_s()).ok_or(errors::INVALID_AUTH_TOKEN)?;
                    return Ok(Some(Identity { user: claims.user, revision: claims.revision }));
                }
                let user = match self.user_of(token) {
                    Some(user) => user,
                    None => Box::pin(self.late_user_of(token)).await?,
                };
                // AU-25: what changed since the token was given is no matter.
                Ok(Some(Identity { user, revision: self.shared.auth.auth().revision() }))
            }
        }
    }

    /// The user of a token that is not known here: it may be of an entry that others have applied, and is known
    /// once this member has too (AU-25).
    async fn late_user_of(&self, token: &str) -> Result<Arc<str>, Refusal> {
        let index = tokens::index_of(token).ok_or(errors::INVALID_AUTH_TOKEN)?;
        if index > self.shared.raft.applied_index.load(Ordering::Acquire) {
            self.linearize().await?;
        }
        self.user_of(token).ok_or(errors::INVALID_AUTH_TOKEN)
    }

    fn user_of(&self, token: &str) -> Option<Arc<str>> {
        let (letters, _) = token.split_once('.')?;
        let known = tokens::name(&fingerprint(letters), tokens::index_of(token)?);
        let ttl_ms = self.shared.config.auth.token_ttl_ms;
        self.shared.auth.with_tokens(|tokens| tokens.user_of(&known, self.shared.now_ms(), ttl_ms))
    }

    /// Who calls, and what that may now; `None` where nobody asks.
    pub(super) async fn standing(&self) -> Result<Option<Standing>, Refusal> {
        if !self.shared.auth.enabled() || matches!(self.caller, Caller::Itself) {
            return Ok(None);
        }
        // First the state: an identity that is found after it is never older.
        let auth = self.shared.auth.auth();
        let by = self.identity().await?;
        Ok(Some(Standing { auth, by }))
    }

    /// Asks a state, and a newer one before it refuses.
    async fn judged(
        &self,
        judge: impl Fn(&Auth, Option<&Identity>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Some(standing) = self.standing().await? else { return Ok(()) };
        if judge(&standing.auth, standing.by.as_ref()).is_ok() {
            return Ok(());
        }
        self.linearize().await?;
        let Some(standing) = self.standing().await? else { return Ok(()) };
        judge(&standing.auth, standing.by.as_ref())
    }

    /// What every caller with an identity may do.
    pub(super) async fn check_known(&self) -> Result<(), Refusal> {
        if !self.shared.auth.enabled() {
            return Ok(());
        }
        Box::pin(self.judged(|auth, by| auth.check_known(by))).await
    }

    /// What needs role root.
    pub(super) async fn check_root(&self) -> Result<(), Refusal> {
        if !self.shared.auth.enabled() {
            return Ok(());
        }
        Box::pin(self.judged(|auth, by| auth.check_root(by))).await
    }

    /// What a call needs by its row in the table of methods alone. The others ask where they have the request.
    ///
    /// # Errors
    /// The refusal of a caller that has not what is needed.
    pub async fn check_method(&self, permission: Permission) -> Result<(), Refusal> {
        match permission {
            Permission::Root => self.check_root().await,
            Permission::AnyUser => self.check_known().await,
            // Judged with the request.
            Permission::None
            | Permission::RootOrSelf
            | Permission::RootOrHolder
            | Permission::AnyUserGetElseRoot
            | Permission::ReadInterval
            | Permission::PutKey
            | Permission::DeleteInterval
            | Permission::EachOp
            | Permission::ReadEachWatcher
            | Permission::WriteAttached
            | Permission::AnyUserReadAttached
            | Permission::ReadAllAttached
            | Permission::AsInnerCalls => Ok(()),
        }
    }

    /// Refuses a write that its sender may not make before it goes into the log. What depends on leases, and
    /// everything while an alarm is on, whose refusal comes first (AL-7), is left to apply.
    pub(super) async fn check_write(&self, command: &Command) -> Result<(), Refusal> {
        if !self.shared.cluster().alarms.is_empty() {
            return Ok(());
        }
        match command {
            Command::Put(r) => self.judged(|auth, by| needs::put(&auth.grants(by), r, &mut later)).await,
            Command::DeleteRange(r) => self.judged(|auth, by| needs::delete_range(&auth.grants(by), r)).await,
            Command::Txn(r) => self.judged(|auth, by| needs::txn(&auth.grants(by), r, &mut later)).await,
            _ => Ok(()),
        }
    }

    /// Reads what `check` allows: rights that change meanwhile are asked for again (AU-20).
    pub(super) async fn guarded<R: Clone, T, F>(
        &self,
        request: R,
        check: impl Fn(&Grants<'_>, &R) -> Result<(), Refusal>,
        read: impl Fn(R) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        for _ in 0..READ_ATTEMPTS {
            let Some(standing) = self.standing().await? else { return read(request).await };
            check(&standing.grants(), &request)?;
            let done = read(request.clone()).await?;
            if standing.is_of(&self.shared.auth.auth()) {
                return Ok(done);
            }
        }
        Err(errors::AUTH_OLD_REVISION)
    }

    // ---- the Auth service ----

    pub async fn auth_status(&self) -> Result<pb::AuthStatusResponse, Refusal> {
        self.identity().await?;
        self.linearize().await?;
        let auth = self.shared.auth.auth();
        Ok(pb::AuthStatusResponse {
            header: Some(self.header()),
            enabled: auth.enabled(),
            auth_revision: auth.revision(),
        })
    }

    /// AU-24. What is wrong with name and password is told after the time that comparing them takes.
    pub async fn authenticate(
        &self,
        name: String,
        password: Zeroizing<String>,
    ) -> Result<pb::AuthenticateResponse, Refusal> {
        self.linearize().await?;
        for _ in 0..LOGIN_ATTEMPTS {
            let auth = self.shared.auth.auth();
            let hash = auth.password_hash(&name)?;
            self.shared.passwords.compare(&auth, &name, hash, password.clone()).await?;
            let letters = match &self.shared.config.auth.tokens {
                TokenKind::Simple => letters(tokens::LETTERS)?,
                TokenKind::Jwt(_) => String::new(),
                TokenKind::None => return Err(errors::AUTH_FAILED),
            };
            let signed = self.signed_token(&name, auth.revision()).await?;
            let request = pb::InternalAuthenticateRequest {
                name: name.clone(),
                password: String::new(),
                simple_token: if signed.is_some() { String::new() } else { fingerprint(&letters) },
            };
            let command = Command::Auth(Box::new(AuthCommand::Authenticate(request)));
            let Applied::Authenticate { revision, token } = self.propose_by(command, None).await? else {
                unreachable!("a login comes to a token");
            };
            if self.shared.auth.auth().revision() == auth.revision() {
                let index = token.and_then(|token| tokens::index_of(&token)).unwrap_or_default();
                let token = signed.unwrap_or_else(|| tokens::name(&letters, index));
                return Ok(pb::AuthenticateResponse { header: Some(self.header_at(revision)), token });
            }
        }
        Err(errors::AUTH_OLD_REVISION)
    }

    /// A JSON web token, where those are given (AU-27).
    async fn signed_token(&self, name: &str, revision: u64) -> Result<Option<String>, Refusal> {
        if self.shared.jwt.is_none() {
            return Ok(None);
        }
        let (shared, name) = (self.shared.clone(), name.to_owned());
        let sign = move || shared.jwt.as_ref().map(|jwt| jwt.sign(&name, revision, wall_s())).transpose();
        let signed = tokio::task::spawn_blocking(sign).await.map_err(|_| errors::STOPPED)?;
        signed.map_err(|_| errors::VERIFY_ONLY)
    }

    /// Loads the keys of tokens anew if their files have changed, and tells whether it did. It waits for the disk.
    ///
    /// # Errors
    /// Why keys that were changed cannot be used; those before stay in force.
    pub fn look_at_keys(&self) -> Result<bool, KeyError> {
        self.shared.jwt.as_ref().map_or(Ok(false), Jwt::look)
    }

    /// Proposes a change of users or roles; gives the header of its answer.
    async fn change_auth(&self, command: AuthCommand) -> Result<Option<pb::ResponseHeader>, Refusal> {
        match self.propose(Command::Auth(Box::new(command))).await? {
            Applied::Auth { revision } => Ok(Some(self.header_at(revision))),
            other => unreachable!("a change of users came to {other:?}"),
        }
    }

    pub async fn auth_enable(&self, r: pb::AuthEnableRequest) -> Result<pb::AuthEnableResponse, Refusal> {
        let header = self.change_auth(AuthCommand::Enable(r)).await?;
        Ok(pb::AuthEnableResponse { header })
    }

    pub async fn auth_disable(&self, r: pb::AuthDisableRequest) -> Result<pb::AuthDisableResponse, Refusal> {
        let header = self.change_auth(AuthCommand::Disable(r)).await?;
        Ok(pb::AuthDisableResponse { header })
    }

    /// AU-6: the hash takes the place of the password before anything is proposed.
    pub async fn user_add(&self, mut r: pb::AuthUserAddRequest) -> Result<pb::AuthUserAddResponse, Refusal> {
        let password = Zeroizing::new(std::mem::take(&mut r.password));
        if !r.options.as_ref().is_some_and(|options| options.no_password) {
            r.hashed_password = self.hashed(password).await?;
        }
        let header = self.change_auth(AuthCommand::UserAdd(r)).await?;
        Ok(pb::AuthUserAddResponse { header })
    }

    /// AU-7. Without a password the hash is taken as it came.
    pub async fn user_change_password(
        &self,
        mut r: pb::AuthUserChangePasswordRequest,
    ) -> Result<pb::AuthUserChangePasswordResponse, Refusal> {
        let password = Zeroizing::new(std::mem::take(&mut r.password));
        if !password.is_empty() {
            r.hashed_password = self.hashed(password).await?;
        }
        let header = self.change_auth(AuthCommand::UserChangePassword(r)).await?;
        Ok(pb::AuthUserChangePasswordResponse { header })
    }

    async fn hashed(&self, password: Zeroizing<String>) -> Result<String, Refusal> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(errors::PASSWORD_TOO_LONG);
        }
        let hash = self.shared.passwords.hash(password).await?;
        Ok(encode_base64(hash.as_bytes()))
    }

    pub async fn user_delete(
        &self,
        r: pb::AuthUserDeleteRequest,
    ) -> Result<pb::AuthUserDeleteResponse, Refusal> {
        let header = self.change_auth(AuthCommand::UserDelete(r)).await?;
        Ok(pb::AuthUserDeleteResponse { header })
    }

    pub async fn user_grant_role(
        &self,
        r: pb::AuthUserGrantRoleRequest,
    ) -> Result<pb::AuthUserGrantRoleResponse, Refusal> {
        let header = self.change_auth(AuthCommand::UserGrantRole(r)).await?;
        Ok(pb::AuthUserGrantRoleResponse { header })
    }

    pub async fn user_revoke_role(
        &self,
        r: pb::AuthUserRevokeRoleRequest,
    ) -> Result<pb::AuthUserRevokeRoleResponse, Refusal> {
        let header = self.change_auth(AuthCommand::UserRevokeRole(r)).await?;
        Ok(pb::AuthUserRevokeRoleResponse { header })
    }

    pub async fn role_add(&self, r: pb::AuthRoleAddRequest) -> Result<pb::AuthRoleAddResponse, Refusal> {
        let header = self.change_auth(AuthCommand::RoleAdd(r)).await?;
        Ok(pb::AuthRoleAddResponse { header })
    }

    pub async fn role_delete(
        &self,
        r: pb::AuthRoleDeleteRequest,
    ) -> Result<pb::AuthRoleDeleteResponse, Refusal> {
        let header = self.change_auth(AuthCommand::RoleDelete(r)).await?;
        Ok(pb::AuthRoleDeleteResponse { header })
    }

    pub async fn role_grant_permission(
        &self,
        r: pb::AuthRoleGrantPermissionRequest,
    ) -> Result<pb::AuthRoleGrantPermissionResponse, Refusal> {
        let header = self.change_auth(AuthCommand::RoleGrantPermission(r)).await?;
        Ok(pb::AuthRoleGrantPermissionResponse { header })
    }

    pub async fn role_revoke_permission(
        &self,
        r: pb::AuthRoleRevokePermissionRequest,
    ) -> Result<pb::AuthRoleRevokePermissionResponse, Refusal> {
        let header = self.change_auth(AuthCommand::RoleRevokePermission(r)).await?;
        Ok(pb::AuthRoleRevokePermissionResponse { header })
    }

    /// Asks the newest state for users or roles.
    async fn ask_auth<T>(
        &self,
        ask: impl FnOnce(&Auth, Option<&Identity>) -> Result<T, Refusal>,
    ) -> Result<(Option<pb::ResponseHeader>, T), Refusal> {
        let by = self.identity().await?;
        self.linearize().await?;
        let told = ask(&self.shared.auth.auth(), by.as_ref())?;
        Ok((Some(self.header()), told))
    }

    pub async fn user_get(&self, r: pb::AuthUserGetRequest) -> Result<pb::AuthUserGetResponse, Refusal> {
        let (header, roles) = self.ask_auth(|auth, by| auth.user_get(by, &r.name)).await?;
        Ok(pb::AuthUserGetResponse { header, roles })
    }

    pub async fn user_list(&self) -> Result<pb::AuthUserListResponse, Refusal> {
        let (header, users) = self.ask_auth(Auth::user_list).await?;
        Ok(pb::AuthUserListResponse { header, users })
    }

    pub async fn role_get(&self, r: pb::AuthRoleGetRequest) -> Result<pb::AuthRoleGetResponse, Refusal> {
        let (header, perm) = self.ask_auth(|auth, by| auth.role_get(by, &r.role)).await?;
        Ok(pb::AuthRoleGetResponse { header, perm })
    }

    pub async fn role_list(&self) -> Result<pb::AuthRoleListResponse, Refusal> {
        let (header, roles) = self.ask_auth(Auth::role_list).await?;
        Ok(pb::AuthRoleListResponse { header, roles })
    }
}

/// Unix time.
pub(super) fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The keys of leases are looked at when a write is applied.
fn later(_: i64) -> Result<Vec<Bytes>, Refusal> {
    Ok(Vec::new())
}

/// What a watch that is refused is told (WATCH-11).
pub(super) fn cancel_reason(refusal: Refusal) -> &'static str {
    match refusal {
        errors::PERMISSION_DENIED => errors::CANCEL_PERMISSION_DENIED.text,
        errors::USER_EMPTY => errors::CANCEL_USER_EMPTY.text,
        errors::AUTH_OLD_REVISION => errors::CANCEL_AUTH_OLD_REVISION.text,
        // Also where the token could not be looked up now.
        _ => errors::CANCEL_INVALID_AUTH_TOKEN.text,
    }
}
