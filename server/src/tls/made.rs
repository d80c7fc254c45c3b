// SPDX-License-Identifier: Apache-2.0
//! Certificates that the daemon makes for itself (TL-8).
//!
//! Owns      `fixtures/client` and `fixtures/peer` of the data directory.
//! Holds     a certificate and a key that are there are used again, and never written over.
//! Never     makes anything without being asked by `--auto-tls` or `--peer-auto-tls`.

use super::load::TlsError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P521_SHA512,
};
use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Certificate and key of a directory.
pub fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("cert.pem"), dir.join("key.pem"))
}

/// Makes the certificate of a directory, unless it is there.
pub fn ensure(dir: &Path, hosts: &[String], years: u32) -> Result<(), TlsError> {
    let (cert, key) = paths(dir);
    if cert.exists() && key.exists() {
        return Ok(());
    }
    let write = |file: &Path, source| TlsError::Write { file: file.to_path_buf(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| write(dir, source))?;
    let (cert_pem, key_pem) =
        make(hosts, years).map_err(|why| TlsError::Unusable(format!("cannot make a certificate: {why}")))?;
    put(&key, key_pem.as_bytes()).map_err(|source| write(&key, source))?;
    put(&cert, cert_pem.as_bytes()).map_err(|source| write(&cert, source))
}

fn make(hosts: &[String], years: u32) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + YEAR * years).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512)?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn put(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = file.with_extension("pem.new");
    let mut out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)
}
