// SPDX-License-Identifier: Apache-2.0
//! Who calls, from the metadata of a call, and logins.
//!
//! Owns      where a token is looked for (AU-23), that it wins over a certificate (AU-31), the audit line of a failed login, and how many of those one
//!           address gets in a second.
//! Holds     no password and no token is written down.
//! Never     compares a password: the member does.

use super::{Call, status::Status};
use crate::member::Caller;
use cairn_proto::{errors, etcdserverpb as pb};
use http::HeaderMap;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

/// Failed logins of one address that are answered without delay.
const BURST: u32 = 50;
/// Addresses whose failures are counted.
const ADDRESSES_MAX: usize = 4096;

/// `token`, or `authorization` as gateways send it; `Bearer ` may stand before either. Without one, the user that
/// the certificate of the connection names.
pub fn caller(headers: &HeaderMap, by_certificate: Option<&Arc<str>>) -> Caller {
    let Some(value) = headers.get("token").or_else(|| headers.get("authorization")) else {
        return by_certificate.map_or(Caller::Nobody, |user| Caller::Certificate(user.clone()));
    };
    // What is no text is no token that was ever given.
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    Caller::with_token(text.strip_prefix("Bearer ").unwrap_or(text))
}

pub async fn authenticate(
    call: &Call,
    mut r: pb::AuthenticateRequest,
) -> Result<pb::AuthenticateResponse, Status> {
    let password = Zeroizing::new(std::mem::take(&mut r.password));
    let result = call.member.authenticate(r.name.clone(), password).await;
    if let Err(refusal @ (errors::AUTH_FAILED | errors::NO_PASSWORD_USER)) = &result {
        let name: String = r.name.chars().take(NAME_SHOWN).collect();
        let fields = [
            ("user", name.into()),
            ("remote", (*call.remote.address).into()),
            ("method", call.route.method.path.into()),
            ("error", refusal.text.into()),
        ];
        call.front.log.warn("invalid authentication was requested", &fields);
        let wait = call.front.failures.count(&call.remote.address, Instant::now());
        sleep(wait).await;
    }
    Ok(result?)
}

/// Characters of a name in an audit line.
const NAME_SHOWN: usize = 64;

/// Failed logins by address: a bucket each, which empties by so many a second.
pub struct Failures {
    /// A second; 0 sets no bound.
    rate: u32,
    by_address: Mutex<HashMap<Box<str>, Bucket>>,
}

struct Bucket {
    failures: f64,
    since: Instant,
}

impl Failures {
    pub fn new(rate: u32) -> Failures {
        Failures { rate, by_address: Mutex::default() }
    }

    /// Counts a failure, and says how long its answer is to wait.
    fn count(&self, remote: &str, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        // Ports change with each connection.
        let address = remote.rsplit_once(':').map_or(remote, |(address, _)| address);
        let rate = f64::from(self.rate);
        let left = |bucket: &Bucket| {
            (bucket.failures - now.saturating_duration_since(bucket.since).as_secs_f64() * rate).max(0.0)
        };
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(address) {
            by_address.retain(|_, bucket| left(bucket) > 0.0);
            if by_address.len() >= ADDRESSES_MAX {
                // So many fail at once that one is as good as another.
                by_address.clear();
            }
        }
        let bucket = by_address.entry(address.into()).or_insert(Bucket { failures: 0.0, since: now });
        bucket.failures = left(bucket) + 1.0;
        bucket.since = now;
        let over = bucket.failures - f64::from(BURST);
        if over > 0.0 { Duration::from_secs_f64(over / rate) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: AU-23
    #[test]
    fn a_token_comes_in_either_field_with_or_without_bearer() {
        let caller_of = |fields: &[(&'static str, &'static str)]| {
            let field = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            };
            caller(&HeaderMap::from_iter(fields.iter().map(field)), None)
        };
        let token = |caller: Caller| match caller {
            Caller::Token(token) => Some(token.as_str().to_owned()),
            _ => None,
        };
        for (fields, expected) in [
            (&[][..], None),
            (&[("token", "a.1")], Some("a.1")),
            (&[("token", "Bearer a.1")], Some("a.1")),
            (&[("authorization", "a.1")], Some("a.1")),
            (&[("authorization", "Bearer a.1")], Some("a.1")),
            (&[("authorization", "b.2"), ("token", "a.1")], Some("a.1")),
            (&[("token", ""), ("authorization", "b.2")], Some("")),
            (&[("authorization", "bearer a.1")], Some("bearer a.1")),
        ] {
            assert_eq!(token(caller_of(fields)).as_deref(), expected, "{fields:?}");
        }
        assert_eq!(format!("{:?}", caller_of(&[("token", "secret")])), "Token(a token)");
    }

    // rule: AU-31
    #[test]
    fn a_certificate_names_the_user_of_a_request_without_a_token() {
        let user: Arc<str> = "alice".into();
        let token = HeaderMap::from_iter([(
            http::HeaderName::from_static("token"),
            http::HeaderValue::from_static("a.1"),
        )]);
        assert!(matches!(caller(&HeaderMap::new(), Some(&user)), Caller::Certificate(by) if by == user));
        assert!(matches!(caller(&token, Some(&user)), Caller::Token(_)), "a token wins");
        assert!(matches!(caller(&HeaderMap::new(), None), Caller::Nobody));
    }

    #[test]
    fn s08_failures_beyond_a_burst_wait_for_their_turn() {
        let failures = Failures::new(10);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..BURST + 20).map(|_| failures.count("10.0.0.1:1", now)).collect();
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero));
        assert_eq!(waits[BURST as usize + 9], Duration::from_secs(1));
        assert_eq!(failures.count("10.0.0.1:2", now), Duration::from_millis(2100), "another port");
        assert!(failures.count("10.0.0.2:1", now).is_zero(), "another address");
        assert!(failures.count("10.0.0.1:1", now + Duration::from_secs(60)).is_zero(), "later");
        assert!((0..1000).all(|_| Failures::new(0).count("a:1", now).is_zero()), "no bound");
    }

    #[test]
    fn addresses_beyond_a_bound_are_not_remembered() {
        let failures = Failures::new(10);
        let now = Instant::now();
        for address in 0..2 * ADDRESSES_MAX {
            failures.count(&format!("h{address}:1"), now);
        }
        assert!(failures.by_address.lock().expect("one thread").len() <= ADDRESSES_MAX);
    }
}
