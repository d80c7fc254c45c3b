// SPDX-License-Identifier: Apache-2.0
//! Who calls, from the metadata of a call, and logins.
//!
//! Owns      where a token is looked for (AU-23), that it wins over a certificate (AU-31), the audit line of a failed
//!           login, and that it waits where one address has too many.
//! Holds     no password and no token is written down.
//! Never     compares a password: the member does.

use super::{Call, status::Status};
use crate::member::Caller;
use cairn_proto::{errors, etcdserverpb as pb};
use http::HeaderMap;
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

/// Failed logins of one address that are answered without delay.
pub const FAILURES_BURST: u32 = 50;

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
}
