// SPDX-License-Identifier: Apache-2.0
//! What is configured of TLS, in the form in which the rest of the daemon sees it.
//!
//! Owns      the names of versions and cipher suites (TL-10), and which of Go's suites are offered.
//! Holds     only suites with forward secrecy and authenticated encryption can be named here (S10).
//! Never     reads a file.

use rustls::{CipherSuite, SupportedProtocolVersion, version};
use std::path::PathBuf;

/// TLS of the listeners of one kind: of clients, or of peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Client certificates are required, and must come from one of these authorities (TL-2).
    pub authorities: Option<PathBuf>,
    pub revoked: Option<PathBuf>,
    pub allowed: Allowed,
    /// The common name of a client's certificate is a user's (AU-31).
    pub names_users: bool,
    pub protocol: Protocol,
}

/// TLS of connections that are made to other members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialled {
    /// Certificate and key that are shown to who asks for them (TL-12).
    pub shown: Option<(PathBuf, PathBuf)>,
    pub trust: Trust,
    pub protocol: Protocol,
}

/// Who is taken for a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Whoever has a certificate of one of these authorities, for the host that was dialled.
    Authorities { file: PathBuf, revoked: Option<PathBuf>, allowed: Allowed },
    /// Whoever answers: certificates that members made for themselves say nothing (TL-8).
    Anyone,
}

/// Which certificates are let in, of those that can be verified (TL-6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Allowed {
    Any,
    CommonNames(Vec<String>),
    /// Valid for one of these hosts.
    Hosts(Vec<String>),
}

/// Versions and suites, for all connections alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    pub min: Version,
    pub max: Version,
    /// Of TLS 1.2; empty for all. TLS 1.3 has all of its own, as in Go.
    pub suites: Vec<CipherSuite>,
}

impl Default for Protocol {
    fn default() -> Protocol {
        Protocol { min: Version::Tls12, max: Version::Tls13, suites: Vec::new() }
    }
}

impl Protocol {
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)]
            .into_iter()
            .filter(|(version, _)| (self.min..=self.max).contains(version))
            .map(|(_, version)| version)
            .collect()
    }

    pub fn offers(&self, suite: CipherSuite) -> bool {
        let of_tls12 = OFFERED.iter().any(|(_, known)| *known == suite);
        !of_tls12 || self.suites.is_empty() || self.suites.contains(&suite)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub fn named(name: &str) -> Option<Version> {
        match name {
            "TLS1.2" => Some(Version::Tls12),
            "TLS1.3" => Some(Version::Tls13),
            _ => None,
        }
    }
}

/// A name of a cipher suite, judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    Offered(CipherSuite),
    /// Of TLS 1.3: always on.
    Tls13,
    /// Go has it, and it is not offered here.
    Weak,
}

const OFFERED: [(&str, CipherSuite); 6] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

pub fn is_aes128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// Whether ChaCha20 is the first cipher in a list: of a client that has no AES in its CPU.
pub fn prefers_chacha(suites: &[CipherSuite]) -> bool {
    use CipherSuite as S;
    let of_ours = suites.iter().find(|suite| {
        matches!(suite, S::TLS13_AES_128_GCM_SHA256 | S::TLS13_AES_256_GCM_SHA384)
            || **suite == S::TLS13_CHACHA20_POLY1305_SHA256
            || OFFERED.iter().any(|(_, known)| known == *suite)
    });
    let name = of_ours.and_then(CipherSuite::as_str);
    name.is_some_and(|name| name.contains("CHACHA20"))
}

const TLS13: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Suites of Go without forward secrecy, or without authenticated encryption.
const WEAK: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

impl Suite {
    /// The suite of a name; the two with ChaCha20 also go without their hash, as in etcd.
    pub fn named(name: &str) -> Option<Suite> {
        let whole = if name.ends_with("_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.into() };
        if let Some((_, suite)) = OFFERED.iter().find(|(known, _)| *known == whole) {
            return Some(Suite::Offered(*suite));
        }
        if TLS13.contains(&name) {
            return Some(Suite::Tls13);
        }
        WEAK.contains(&name).then_some(Suite::Weak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: TL-10
    #[test]
    fn suites_have_the_names_of_go() {
        let suite = CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256;
        for name in ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"] {
            assert_eq!(Suite::named(name), Some(Suite::Offered(suite)), "{name}");
        }
        assert_eq!(Suite::named("TLS_AES_128_GCM_SHA256"), Some(Suite::Tls13));
        assert_eq!(Suite::named("TLS_CHACHA20_POLY1305"), None);
        assert_eq!(Suite::named("tls_aes_128_gcm_sha256"), None);
    }

    #[test]
    fn s10_suites_without_forward_secrecy_or_authentication_are_known_and_not_offered() {
        for name in WEAK {
            assert_eq!(Suite::named(name), Some(Suite::Weak), "{name}");
        }
        for (name, suite) in OFFERED {
            assert!(name.contains("_ECDHE_") && !name.contains("_CBC_"), "{name}");
            assert_eq!(suite.as_str(), Some(name));
        }
        let one = Protocol { suites: vec![OFFERED[0].1], ..Protocol::default() };
        assert_eq!(OFFERED.iter().filter(|(_, suite)| one.offers(*suite)).count(), 1);
        assert!(one.offers(CipherSuite::TLS13_AES_128_GCM_SHA256));
    }

    #[test]
    fn a_client_without_aes_in_its_cpu_is_known_by_what_it_offers_first() {
        use CipherSuite as S;
        let unknown = S::Unknown(0x1a1a);
        assert!(prefers_chacha(&[unknown, S::TLS13_CHACHA20_POLY1305_SHA256, S::TLS13_AES_128_GCM_SHA256]));
        assert!(prefers_chacha(&[S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]));
        assert!(!prefers_chacha(&[unknown, S::TLS13_AES_256_GCM_SHA384, S::TLS13_CHACHA20_POLY1305_SHA256]));
        assert!(!prefers_chacha(&[]));
    }

    #[test]
    fn versions_are_those_between_the_bounds() {
        let count = |min, max| Protocol { min, max, suites: Vec::new() }.versions().len();
        assert_eq!(count(Version::Tls12, Version::Tls13), 2);
        assert_eq!(count(Version::Tls13, Version::Tls13), 1);
        assert_eq!(Protocol { max: Version::Tls12, ..Protocol::default() }.versions(), [&version::TLS12]);
    }
}
