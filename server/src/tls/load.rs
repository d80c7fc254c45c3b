// SPDX-License-Identifier: Apache-2.0
//! From files to what handshakes are made with.
//!
//! Owns      the reading of certificates, keys, authorities and revocation lists, and the checks that they belong
//!           together.
//! Holds     what is loaded is whole: a file that does not fit the others leaves nothing behind.
//! Never     keeps a file open, or writes a key into an error.

use super::{
    clients::Clients,
    settings::Settings,
    x509::{self, Facts},
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// TLS that cannot be served with the files that are there.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: {why}", file.display())]
    Content { file: PathBuf, why: String },
    #[error("cannot write {}: {source}", file.display())]
    Write { file: PathBuf, source: io::Error },
    #[error("{0}")]
    Unusable(String),
}

/// What handshakes are made with.
pub struct Loaded {
    /// For clients that can speak HTTP/2.
    pub h2: Arc<ServerConfig>,
    /// For clients that offer HTTP/1.1 alone, or nothing (TL-4).
    pub bare: Arc<ServerConfig>,
    /// Of the certificate that is shown.
    pub own: Facts,
}

/// Reads what the settings name.
pub fn load(settings: &Settings) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(settings));
    let shown = shown(settings, &provider)?;
    let leaf = shown.end_entity_cert().map_err(|why| content(&settings.cert, why))?;
    let own = x509::read(leaf).ok_or_else(|| content(&settings.cert, "the certificate cannot be read"))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&settings.protocol.versions())
        .map_err(|why| TlsError::Unusable(format!("no handshake is possible: {why}")))?;
    let builder = match clients(settings, provider)? {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut bare = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    // Nothing is resumed: each handshake asks anew whether a certificate is revoked (S17).
    bare.session_storage = Arc::new(NoServerSessionStorage {});
    bare.send_tls13_tickets = 0;
    let mut h2 = bare.clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded { h2: Arc::new(h2), bare: Arc::new(bare), own })
}

/// The files whose change is a reason to load anew.
pub fn files(settings: &Settings) -> impl Iterator<Item = &Path> {
    let optional = [&settings.authorities, &settings.revoked];
    [&settings.cert, &settings.key].into_iter().chain(optional.into_iter().flatten()).map(PathBuf::as_path)
}

fn provider(settings: &Settings) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| settings.protocol.offers(suite.suite()));
    provider
}

fn shown(settings: &Settings, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&settings.cert)?;
    let pem = Zeroizing::new(read(&settings.key)?);
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|why| content(&settings.key, format!("no private key in PEM: {why}")))?;
    let key = provider.key_provider.load_private_key(key).map_err(|why| content(&settings.key, why))?;
    let shown = CertifiedKey::new(chain, key);
    shown.keys_match().map_err(|_| {
        TlsError::Unusable(format!(
            "tls: private key does not match public key: {} is not the key of {}",
            settings.key.display(),
            settings.cert.display()
        ))
    })?;
    Ok(shown)
}

fn clients(
    settings: &Settings,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(file) = &settings.authorities else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|why| content(file, why))?;
    }
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|why| content(file, why))?;
    let revoked = match &settings.revoked {
        None => Default::default(),
        Some(file) => x509::revoked(&read(file)?)
            .ok_or_else(|| content(file, "not a list of revoked certificates in DER"))?,
    };
    Ok(Some(Arc::new(Clients { chain, revoked, allowed: settings.allowed.clone() })))
}

/// The certificates of a PEM file, at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|why| content(file, format!("not PEM: {why}")))?;
    if found.is_empty() {
        return Err(content(file, "no certificate in PEM"));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_path_buf(), source })
}

fn content(file: &Path, why: impl ToString) -> TlsError {
    TlsError::Content { file: file.to_path_buf(), why: why.to_string() }
}
