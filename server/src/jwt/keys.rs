// SPDX-License-Identifier: Apache-2.0
//! The keys of JSON web tokens.
//!
//! Owns      etcd's sign methods, and the reading of keys from PEM: private ones as PKCS#8, PKCS#1 or SEC 1, public
//!           ones as a key or a certificate (AU-26, AU-28).
//! Holds     a private and a public key that are both given belong together.
//! Never     decides what is signed.

use super::JwtConfig;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, ED25519,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
        RsaSignatureEncoding, VerificationAlgorithm,
    },
};
use rustls::pki_types::pem::{PemObject, SectionKind};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// How tokens are signed: the name that stands in their headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Method(&'static str);

/// A method with what carries it out.
enum Algorithm {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaSignatureEncoding, &'static dyn VerificationAlgorithm),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed25519,
}

impl Method {
    pub const NAMES: [&'static str; 13] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256",
        "HS384", "HS512",
    ];

    pub fn named(name: &str) -> Option<Method> {
        Self::NAMES.into_iter().find(|known| *known == name).map(Method)
    }

    pub fn name(self) -> &'static str {
        self.0
    }

    fn algorithm(self) -> Algorithm {
        match self.0 {
            "RS256" => Algorithm::Rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Algorithm::Rsa(&RSA_PKCS1_SHA384, &RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Algorithm::Rsa(&RSA_PKCS1_SHA512, &RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Algorithm::Rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            "PS384" => Algorithm::Rsa(&RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
            "PS512" => Algorithm::Rsa(&RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
            "ES256" => Algorithm::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED),
            "ES384" => Algorithm::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED),
            "ES512" => Algorithm::Ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED),
            "EdDSA" => Algorithm::Ed25519,
            "HS256" => Algorithm::Hmac(hmac::HMAC_SHA256),
            "HS384" => Algorithm::Hmac(hmac::HMAC_SHA384),
            "HS512" => Algorithm::Hmac(hmac::HMAC_SHA512),
            other => unreachable!("{other} is no method"),
        }
    }
}

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("auth: missing key data")]
    Missing,
    #[error("auth: public and private keys don't match")]
    Mismatch,
    #[error("cannot read {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: no {what} key for {method} in PEM", file.display())]
    Content { file: PathBuf, what: &'static str, method: &'static str },
}

/// See the module.
pub struct Keys {
    signer: Option<Signer>,
    verifier: Verifier,
}

enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static RsaSignatureEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Keys {
    pub fn load(config: &JwtConfig) -> Result<Keys, KeyError> {
        let algorithm = config.method.algorithm();
        if let Algorithm::Hmac(algorithm) = algorithm {
            // The bytes of the file are the key, whatever they are.
            let secret = config.private.as_deref().map(read).transpose()?.unwrap_or_default();
            if secret.is_empty() {
                return Err(KeyError::Missing);
            }
            let key = Box::new(hmac::Key::new(algorithm, &secret));
            return Ok(Keys { signer: Some(Signer::Hmac(key.clone())), verifier: Verifier::Hmac(key) });
        }
        let content = |file: &Path, what| KeyError::Content {
            file: file.to_path_buf(),
            what,
            method: config.method.name(),
        };
        let signer = match &config.private {
            None => None,
            Some(file) => Some(private(&algorithm, &read(file)?).ok_or_else(|| content(file, "private"))?),
        };
        let given = match &config.public {
            None => None,
            Some(file) => Some(
                spki(&read(file)?)
                    .and_then(|spki| ParsedPublicKey::new(algorithm.verification(), spki).ok())
                    .ok_or_else(|| content(file, "public"))?,
            ),
        };
        let own = signer.as_ref().and_then(|signer| signer.public(&algorithm));
        let verifier = match (own, given) {
            (None, None) => return Err(KeyError::Missing),
            (Some(own), Some(given)) if !same(&own, &given) => return Err(KeyError::Mismatch),
            (Some(own), _) => own,
            (None, Some(given)) => given,
        };
        Ok(Keys { signer, verifier: Verifier::Public(verifier) })
    }

    pub fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// `None` without a private key.
    pub fn sign(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match self.signer.as_ref()? {
            Signer::Hmac(key) => hmac::sign(key, bytes).as_ref().to_vec(),
            Signer::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, bytes, &mut signature).ok()?;
                signature
            }
            Signer::Ecdsa(key) => key.sign(&random, bytes).ok()?.as_ref().to_vec(),
            Signer::Ed25519(key) => key.sign(bytes).as_ref().to_vec(),
        })
    }

    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, bytes, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(bytes, signature).is_ok(),
        }
    }
}

impl Algorithm {
    fn verification(&self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::Rsa(_, verification) | Algorithm::Ecdsa(_, verification) => *verification,
            Algorithm::Ed25519 => &ED25519,
            Algorithm::Hmac(_) => unreachable!("an HMAC has no public key"),
        }
    }
}

impl Signer {
    fn public(&self, algorithm: &Algorithm) -> Option<ParsedPublicKey> {
        let bytes = match self {
            Signer::Hmac(_) => return None,
            Signer::Rsa(key, _) => key.public_key().as_ref(),
            Signer::Ecdsa(key) => key.public_key().as_ref(),
            Signer::Ed25519(key) => key.public_key().as_ref(),
        };
        ParsedPublicKey::new(algorithm.verification(), bytes).ok()
    }
}

fn same(a: &ParsedPublicKey, b: &ParsedPublicKey) -> bool {
    let der = |key: &ParsedPublicKey| -> Option<PublicKeyX509Der<'static>> { key.as_der().ok() };
    match (der(a), der(b)) {
        (Some(a), Some(b)) => a.as_ref() == b.as_ref(),
        _ => false,
    }
}

fn private(algorithm: &Algorithm, pem: &[u8]) -> Option<Signer> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.ok()?;
        let der = Zeroizing::new(der);
        let found = match algorithm {
            Algorithm::Rsa(encoding, _) => match kind {
                SectionKind::PrivateKey => RsaKeyPair::from_pkcs8(&der).ok(),
                SectionKind::RsaPrivateKey => RsaKeyPair::from_der(&der).ok(),
                _ => None,
            }
            .map(|key| Signer::Rsa(key, encoding)),
            Algorithm::Ecdsa(signing, _) => match kind {
                SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                    EcdsaKeyPair::from_private_key_der(signing, &der).ok()
                }
                _ => None,
            }
            .map(Signer::Ecdsa),
            Algorithm::Ed25519 => match kind {
                SectionKind::PrivateKey => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok(),
                _ => None,
            }
            .map(Signer::Ed25519),
            Algorithm::Hmac(_) => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The public key of a PEM file in its outer form.
fn spki(pem: &[u8]) -> Option<Vec<u8>> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, der) = section.ok()?;
        match kind {
            SectionKind::PublicKey => return Some(der),
            SectionKind::Certificate => {
                let (_, certificate) = X509Certificate::from_der(&der).ok()?;
                return Some(certificate.public_key().raw.to_vec());
            }
            _ => {}
        }
    }
    None
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    match fs::read(file) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(source) => Err(KeyError::Read { file: file.to_path_buf(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
        PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
    };

    /// A fresh key for a method; `None` for an HMAC.
    fn key(method: &str) -> Option<KeyPair> {
        let algorithm = match method {
            "ES256" => &PKCS_ECDSA_P256_SHA256,
            "ES384" => &PKCS_ECDSA_P384_SHA384,
            "ES512" => &PKCS_ECDSA_P521_SHA512,
            "EdDSA" => &PKCS_ED25519,
            _ if method.starts_with("HS") => return None,
            _ => return KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).ok(),
        };
        Some(KeyPair::generate_for(algorithm).expect("a key"))
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).expect("written");
            path
        }
    }

    fn load(method: &str, public: Option<&PathBuf>, private: Option<&PathBuf>) -> Result<Keys, KeyError> {
        let method = Method::named(method).expect("a method");
        Keys::load(&JwtConfig { method, public: public.cloned(), private: private.cloned(), ttl_s: 1 })
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    // rule: AU-26
    // rule: AU-27
    // rule: AU-28
    #[test]
    fn every_method_signs_what_it_verifies_and_nothing_else() {
        for method in Method::NAMES {
            let files = Files(tempfile::tempdir().expect("a directory"));
            let (Some(own), Some(other)) = (key(method), key(method)) else {
                let secret = files.put("secret", "bytes");
                let keys = load(method, None, Some(&secret)).expect("loaded");
                let signature = keys.sign(b"message").expect("signed");
                assert!(keys.verify(b"message", &signature) && !keys.verify(b"massage", &signature));
                assert!(matches!(load(method, Some(&secret), None), Err(KeyError::Missing)), "{method}");
                continue;
            };
            let private = files.put("private", own.serialize_pem());
            let public = files.put("public", own.public_key_pem());
            let foreign = files.put("foreign", other.public_key_pem());
            let both = load(method, Some(&public), Some(&private)).expect(method);
            let alone = load(method, None, Some(&private)).expect(method);
            let verifier = load(method, Some(&public), None).expect(method);
            let stranger = load(method, Some(&foreign), None).expect(method);
            assert!(both.signs() && alone.signs() && !verifier.signs(), "{method}");
            assert_eq!(verifier.sign(b"message"), None, "{method}");
            let signature = both.sign(b"message").expect(method);
            for keys in [&both, &alone, &verifier] {
                assert!(keys.verify(b"message", &signature), "{method}");
                assert!(!keys.verify(b"massage", &signature), "{method}");
                assert!(!keys.verify(b"message", b""), "{method}");
            }
            assert!(!stranger.verify(b"message", &signature), "{method}");
            let told = |public, private| load(method, public, private).err().expect(method).to_string();
            assert_eq!(told(Some(&foreign), Some(&private)), "auth: public and private keys don't match");
            assert_eq!(told(None, None), "auth: missing key data");
            assert!(told(Some(&private), None).ends_with(&format!("no public key for {method} in PEM")));
            assert!(told(None, Some(&public)).ends_with(&format!("no private key for {method} in PEM")));
        }
    }

    // rule: AU-26
    #[test]
    fn keys_come_in_the_forms_that_openssl_writes() {
        let files = Files(tempfile::tempdir().expect("a directory"));
        let rsa = key("RS256").expect("a key");
        // The PKCS#1 form is what a PKCS#8 one of this size has after its head.
        let private = files.put("pkcs1", pem("RSA PRIVATE KEY", &rsa.serialize_der()[26..]));
        let cert = CertificateParams::default().self_signed(&rsa).expect("signed");
        let public = files.put("cert", cert.pem());
        load("RS256", Some(&public), Some(&private)).expect("PKCS#1 and a certificate");

        let ec = key("ES512").expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &ec.serialize_der());
        let pair = pair.expect("a key");
        let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> =
            pair.private_key().as_der().expect("encoded");
        let private = files.put("sec1", pem("EC PRIVATE KEY", sec1.as_ref()));
        let public = files.put("public", ec.public_key_pem());
        load("ES512", Some(&public), Some(&private)).expect("SEC 1");
        assert!(load("ES256", None, Some(&private)).is_err(), "another curve");
    }
}
