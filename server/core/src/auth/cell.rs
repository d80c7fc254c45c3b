// SPDX-License-Identifier: Apache-2.0
//! What the state knows of users, where those who take requests in can see it.
//!
//! Owns      the newest [`Auth`], and the simple tokens.
//! Holds     a change is here before what is applied with it can be read, so nothing is read under rights
//!           that had ended when it was written.
//! Never     makes a change: the state does, and puts it here.

use super::{Auth, EndedTokens, tokens::Tokens};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

/// See the module.
#[derive(Debug, Default)]
pub struct AuthCell {
    /// As in `auth`, for who finds it off and has no more to ask.
    enabled: AtomicBool,
    auth: RwLock<Arc<Auth>>,
    tokens: RwLock<Tokens>,
}

impl AuthCell {
    /// Whether authentication is on. Costs one load.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn auth(&self) -> Arc<Auth> {
        self.auth.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a newer state in.
    pub fn publish(&self, auth: Auth) {
        let enabled = auth.enabled();
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(auth);
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Looks at the tokens.
    pub fn with_tokens<T>(&self, look: impl FnOnce(&Tokens) -> T) -> T {
        look(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change_tokens<T>(&self, change: impl FnOnce(&mut Tokens) -> T) -> T {
        change(&mut self.tokens.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn end_tokens(&self, ended: &EndedTokens) {
        match ended {
            EndedTokens::None => {}
            EndedTokens::Of(user) => self.change_tokens(|tokens| tokens.end_of(user)),
            EndedTokens::All => self.change_tokens(Tokens::end_all),
        }
    }
}
