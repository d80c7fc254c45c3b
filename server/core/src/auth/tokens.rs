// SPDX-License-Identifier: Apache-2.0
//! Simple tokens: who they stand for, and since when they were not used (AU-25).
//!
//! Owns      the tokens that this member knows. They are in memory alone, and a restart forgets them.
//! Holds     1. a token that was not used for its time to live is not taken any more, swept or not;
//!           2. each use begins that time anew;
//!           3. the number of tokens is bounded: past it the one that was not used for longest goes.
//! Never     makes a token up: the proposer drew its letters, its entry gave the number.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Letters before the point of a token.
pub const LETTERS: usize = 16;
/// Tokens that a member keeps. At etcd's 300 seconds of life this is 3,000 logins a second.
const TOKENS_MAX: usize = 1 << 20;

struct Token {
    user: Arc<str>,
    used_ms: AtomicU64,
}

/// See the module.
#[derive(Default)]
pub struct Tokens {
    known: HashMap<Box<str>, Token>,
}

impl fmt::Debug for Tokens {
    /// Their number: who can read them can be who they stand for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.known.len())
    }
}

/// The token of an entry.
pub fn name(letters: &str, index: u64) -> String {
    format!("{letters}.{index}")
}

/// The entry that a token says it is of; `None` if it is no simple token.
pub fn index_of(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    // Go's parser takes no sign, and neither does this.
    if index.starts_with('+') { None } else { index.parse().ok() }
}

impl Tokens {
    pub fn add(&mut self, token: &str, user: &str, now_ms: u64) {
        if self.known.len() >= TOKENS_MAX {
            let used = |token: &Token| token.used_ms.load(Ordering::Relaxed);
            let oldest = self.known.iter().min_by_key(|(_, token)| used(token)).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(token.into(), Token { user: user.into(), used_ms: AtomicU64::new(now_ms) });
    }

    /// Uses a token.
    pub fn user_of(&self, token: &str, now_ms: u64, ttl_ms: u64) -> Option<Arc<str>> {
        let token = self.known.get(token)?;
        let idle_ms = now_ms.saturating_sub(token.used_ms.load(Ordering::Relaxed));
        if idle_ms >= ttl_ms {
            return None;
        }
        token.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        Some(token.user.clone())
    }

    pub fn end_all(&mut self) {
        self.known.clear();
    }

    pub fn end_of(&mut self, user: &str) {
        self.known.retain(|_, token| &*token.user != user);
    }

    /// Forgets those that are not taken any more.
    pub fn sweep(&mut self, now_ms: u64, ttl_ms: u64) {
        self.known.retain(|_, token| now_ms.saturating_sub(token.used_ms.load(Ordering::Relaxed)) < ttl_ms);
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: AU-25
    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let mut tokens = Tokens::default();
        tokens.add("a.1", "alice", 0);
        tokens.add("b.2", "bob", 0);
        assert_eq!(tokens.user_of("a.1", 250, 300).as_deref(), Some("alice"));
        assert_eq!(tokens.user_of("a.1", 549, 300).as_deref(), Some("alice"));
        assert_eq!(tokens.user_of("b.2", 300, 300), None, "not swept yet, and over");
        tokens.sweep(549, 300);
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens.user_of("a.1", 849, 300), None);
        assert_eq!(tokens.user_of("c.3", 0, 300), None);
    }

    // rule: AU-25
    #[test]
    fn tokens_end_with_their_user_or_all_at_once() {
        let mut tokens = Tokens::default();
        for (token, user) in [("a.1", "alice"), ("a.2", "alice"), ("b.3", "bob")] {
            tokens.add(token, user, 0);
        }
        tokens.end_of("alice");
        assert_eq!((tokens.user_of("a.2", 1, 9), tokens.len()), (None, 1));
        tokens.end_all();
        assert!(tokens.is_empty());
    }

    #[test]
    fn a_token_tells_its_entry_and_nothing_when_it_is_printed() {
        assert_eq!(index_of(&name("abcdefghijklmnop", 17)), Some(17));
        for token in ["", "abc", "abc.", "abc.x", "abc.-1", "abc.+1", "a.1.2", "abc.99999999999999999999"] {
            assert_eq!(index_of(token), None, "{token}");
        }
        let mut tokens = Tokens::default();
        tokens.add("secret.1", "alice", 0);
        assert_eq!(format!("{tokens:?}"), "1 tokens");
    }
}
