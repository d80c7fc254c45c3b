// SPDX-License-Identifier: Apache-2.0
//! JSON web tokens, as etcd gives and takes them (AU-26).
//!
//! Owns      the form of a token, its claims, and the tokens that were found good.
//! Holds     1. a token says nothing about how it is to be checked: the method is that of the configuration, and
//!              one that names another is refused (S21);
//!           2. what is remembered of a token is good for the keys it was checked with, and until it ends.
//! Never     writes a token or a key down.

mod keys;

pub use keys::{KeyError, Method};

use crate::files::Stamps;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use keys::Keys;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Tokens of good users are a few hundred bytes.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Good tokens that are remembered, so that their signatures are checked once.
const REMEMBERED_MAX: usize = 8192;

/// What `--auth-token=jwt,…` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtConfig {
    pub method: Method,
    pub public: Option<PathBuf>,
    pub private: Option<PathBuf>,
    pub ttl_s: u64,
}

impl JwtConfig {
    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.public, &self.private].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// Whom a token stands for, and the auth revision that it was given at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    pub user: Arc<str>,
    pub revision: u64,
    /// Unix time at which it ends; `None` if it does not.
    ends_s: Option<u64>,
}

/// A token cannot be made: there is no private key (AU-27).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerifyOnly;

/// See the module.
pub struct Jwt {
    config: JwtConfig,
    state: Mutex<State>,
}

struct State {
    keys: Arc<Keys>,
    /// Of the files, before they were read.
    stamps: Stamps,
    /// By the digest of the token.
    good: HashMap<[u8; 32], Claims>,
}

impl Jwt {
    /// Loads the keys.
    pub fn open(config: JwtConfig) -> Result<Jwt, KeyError> {
        let stamps = Stamps::of(config.files());
        let keys = Arc::new(Keys::load(&config)?);
        let state = State { keys, stamps, good: HashMap::new() };
        Ok(Jwt { config, state: Mutex::new(state) })
    }

    pub fn signs(&self) -> bool {
        self.lock().keys.signs()
    }

    /// Loads the keys anew if their files have changed, and tells whether it did. Those that cannot be used leave
    /// the ones before in force, and are told once. It waits for the disk.
    pub fn look(&self) -> Result<bool, KeyError> {
        let stamps = Stamps::of(self.config.files());
        if std::mem::replace(&mut self.lock().stamps, stamps.clone()) == stamps {
            return Ok(false);
        }
        let keys = Arc::new(Keys::load(&self.config)?);
        let mut state = self.lock();
        state.keys = keys;
        state.good.clear();
        Ok(true)
    }

    /// A token for a user, from now on.
    pub fn sign(&self, user: &str, revision: u64, now_s: u64) -> Result<String, VerifyOnly> {
        let keys = self.lock().keys.clone();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": self.config.method.name(), "typ": "JWT" }));
        let ends_s = now_s.saturating_add(self.config.ttl_s);
        let claims = part(json!({ "username": user, "revision": revision, "exp": ends_s }));
        let signed = format!("{header}.{claims}");
        let signature = keys.sign(signed.as_bytes()).ok_or(VerifyOnly)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if it is good now.
    pub fn verify(&self, token: &str, now_s: u64) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let (keys, known) = {
            let state = self.lock();
            (state.keys.clone(), state.good.get(&digest).cloned())
        };
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = check(token, self.config.method, &keys, now_s)?;
                let mut state = self.lock();
                if Arc::ptr_eq(&state.keys, &keys) {
                    if state.good.len() >= REMEMBERED_MAX {
                        state.good.retain(|_, claims| claims.lives(now_s));
                    }
                    if state.good.len() >= REMEMBERED_MAX {
                        state.good.clear();
                    }
                    state.good.insert(digest, claims.clone());
                }
                claims
            }
        };
        claims.lives(now_s).then_some(claims)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claims {
    fn lives(&self, now_s: u64) -> bool {
        self.ends_s.is_none_or(|ends_s| now_s < ends_s)
    }
}

fn check(token: &str, method: Method, keys: &Keys, now_s: u64) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header = object(header)?;
    if header.get("alg")?.as_str()? != method.name() || header.contains_key("crit") {
        return None;
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if !keys.verify(signed.as_bytes(), &signature) {
        return None;
    }
    let claims = object(claims)?;
    for from in ["nbf", "iat"] {
        if claims.get(from).map(seconds).is_some_and(|from| from.is_none_or(|from_s| now_s < from_s)) {
            return None;
        }
    }
    Some(Claims {
        user: claims.get("username")?.as_str()?.into(),
        revision: seconds(claims.get("revision")?)?,
        ends_s: match claims.get("exp") {
            None => None,
            Some(exp) => Some(seconds(exp)?),
        },
    })
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// A number that is not negative; Go writes large ones with an exponent.
fn seconds(value: &Value) -> Option<u64> {
    match value.as_u64() {
        Some(whole) => Some(whole),
        None => value.as_f64().filter(|n| (0.0..9.0e15).contains(n)).map(|n| n as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SECRET: &[u8] = b"an HMAC key of a test, that is long enough";

    fn hmac(dir: &Path, method: &str) -> Jwt {
        let private = dir.join("secret");
        fs::write(&private, SECRET).expect("written");
        let method = Method::named(method).expect("a method");
        Jwt::open(JwtConfig { method, public: None, private: Some(private), ttl_s: 300 }).expect("opened")
    }

    fn token(method: &str, header: Value, claims: Value) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let jwt = hmac(dir.path(), method);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = jwt.lock().keys.sign(signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    // rule: AU-26
    #[test]
    fn a_token_says_who_and_since_when_until_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        for method in ["HS256", "HS384", "HS512"] {
            let jwt = hmac(dir.path(), method);
            let token = jwt.sign("alice", 7, 1_000).expect("signed");
            for _ in 0..2 {
                let claims = jwt.verify(&token, 1_299).expect("good");
                assert_eq!((&*claims.user, claims.revision), ("alice", 7));
                assert_eq!(jwt.verify(&token, 1_300), None, "it has ended");
            }
        }
    }

    #[test]
    fn s21_no_other_token_is_good() {
        let dir = tempfile::tempdir().expect("a directory");
        let jwt = hmac(dir.path(), "HS256");
        let header = json!({ "alg": "HS256", "typ": "JWT" });
        let claims = json!({ "username": "alice", "revision": 7, "exp": 2_000 });
        let good = token("HS256", header.clone(), claims.clone());
        assert!(jwt.verify(&good, 1_000).is_some());
        let with = |name: &str, value: Value| {
            let mut changed = claims.clone();
            changed[name] = value;
            token("HS256", header.clone(), changed)
        };
        let without = |name: &str| {
            let mut changed = claims.clone();
            changed.as_object_mut().expect("an object").remove(name);
            token("HS256", header.clone(), changed)
        };
        let unsigned = {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims))
        };
        let mut flipped = good.clone().into_bytes();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        for (token, why) in [
            (with("exp", json!(1_000)), "ended"),
            (with("exp", json!("2000")), "an end that is no number"),
            (with("nbf", json!(1_001)), "of the future"),
            (with("iat", json!(1_001)), "given in the future"),
            (with("username", json!(7)), "a user that is no text"),
            (with("revision", json!(-1)), "a revision below zero"),
            (with("revision", json!("7")), "a revision that is no number"),
            (without("username"), "no user"),
            (without("revision"), "no revision"),
            (token("HS512", json!({ "alg": "HS512" }), claims.clone()), "another method"),
            (token("HS256", json!({ "alg": "HS512" }), claims.clone()), "another name"),
            (token("HS256", json!({ "typ": "JWT" }), claims.clone()), "no method"),
            (token("HS256", json!({ "alg": "HS256", "crit": ["b64"] }), claims.clone()), "critical fields"),
            (token("HS256", header.clone(), json!([1])), "claims that are no object"),
            (unsigned, "no signature"),
            (String::from_utf8(flipped).expect("text"), "a changed byte"),
            (String::new(), "nothing"),
            ("..".into(), "empty parts"),
            ("a.b".into(), "two parts"),
            (format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), "too long"),
        ] {
            assert_eq!(jwt.verify(&token, 1_000), None, "{why}");
        }
        let endless = jwt.verify(&without("exp"), 1_000).expect("as etcd takes it");
        assert!(endless.lives(u64::MAX));
        let large = jwt.verify(&with("revision", json!(1.0e6)), 1_000).expect("good");
        assert_eq!(large.revision, 1_000_000);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_keys() {
        let dir = tempfile::tempdir().expect("a directory");
        let jwt = hmac(dir.path(), "HS256");
        let first = jwt.sign("alice", 1, 1_000).expect("signed");
        for revision in 0..=REMEMBERED_MAX as u64 {
            let token = jwt.sign("bob", revision, 1_000).expect("signed");
            assert!(jwt.verify(&token, 1_000).is_some());
        }
        assert!(jwt.lock().good.len() <= REMEMBERED_MAX);
        assert!(jwt.verify(&first, 1_000).is_some());
        assert_eq!(jwt.look().ok(), Some(false), "nothing has changed");
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, b"another key").expect("written");
        fs::rename(&fresh, dir.path().join("secret")).expect("renamed");
        assert_eq!(jwt.look().ok(), Some(true));
        assert_eq!(jwt.verify(&first, 1_001), None);
        fs::write(dir.path().join("secret"), b"").expect("written");
        assert!(jwt.look().is_err());
        assert_eq!(jwt.look().ok(), Some(false), "said once");
        assert!(jwt.sign("alice", 1, 1_003).is_ok(), "the keys before stay in force");
    }
}
