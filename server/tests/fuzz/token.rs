// SPDX-License-Identifier: Apache-2.0
//! JSON web tokens: any text, and any header and claims with a good signature.
//!
//! Holds     1. a text is never taken whose signature is not that of the key;
//!           2. what is taken is good now, and names the user of its claims.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn::jwt::{Jwt, JwtConfig, Method};
use cairn_engine::fuzz::Target;
use std::sync::LazyLock;

pub const JWT: Target = Target { name: "jwt", run, fix: |_| {}, samples, anchors: |_| vec![0, 30] };

const SECRET: &[u8] = b"an HMAC key of a test, that is long enough";
const NOW_S: u64 = 1_000;
/// How an input begins that is signed here; others are tokens as they stand.
const SIGNED: u8 = b'+';

static KEYS: LazyLock<Jwt> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let private = dir.path().join("secret");
    std::fs::write(&private, SECRET).expect("written");
    let method = Method::named("HS256").expect("a method");
    Jwt::open(JwtConfig { method, public: None, private: Some(private), ttl_s: 300 }).expect("opened")
});

fn sign(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// A line is the header, the rest the claims.
fn signed(input: &[u8]) -> String {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = input.split_at(end);
    let claims = claims.get(1..).unwrap_or_default();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(&signed);
    format!("{signed}.{signature}")
}

fn run(input: &[u8]) -> bool {
    let (ours, token) = match input.split_first() {
        Some((&SIGNED, rest)) => (true, signed(rest)),
        _ => match std::str::from_utf8(input) {
            Ok(text) => (false, text.to_owned()),
            Err(_) => return false,
        },
    };
    let Some(claims) = KEYS.verify(&token, NOW_S) else { return false };
    let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
    assert!(ours || sign(signed) == signature, "a signature that is not ours: {token}");
    assert_eq!(KEYS.verify(&token, NOW_S).as_ref(), Some(&claims), "it is remembered as it was");
    let part = signed.split_once('.').expect("a token has three parts").1;
    let part = URL_SAFE_NO_PAD.decode(part).expect("it was read");
    let value: serde_json::Value = serde_json::from_slice(&part).expect("it was read");
    assert_eq!(value["username"], *claims.user);
    assert!(value["exp"].is_null() || value["exp"].as_f64().is_some_and(|exp| exp > NOW_S as f64));
    true
}

fn samples() -> Vec<Vec<u8>> {
    let signed =
        |header: &str, claims: &str| [&[SIGNED], header.as_bytes(), b"\n", claims.as_bytes()].concat();
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let long = format!(r#"{{"username":"{}","revision":18446744073709551615}}"#, "ü".repeat(50));
    vec![
        KEYS.sign("alice", 7, NOW_S).expect("signed").into_bytes(),
        signed(header, r#"{"username":"alice","revision":7,"exp":2000,"iat":1000,"nbf":999}"#),
        signed(header, r#"{"username":"","revision":1e3,"exp":1.5e9,"aud":["x",{"y":[null]}]}"#),
        signed(r#"{"kid":"k","alg":"HS256"}"#, &long),
    ]
}
