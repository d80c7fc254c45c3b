// SPDX-License-Identifier: Apache-2.0
//! From files to what handshakes are made with.
//!
//! Owns      the reading of certificates, keys, authorities and revocation lists, and the checks that they belong
//!           together.
//! Holds     what is loaded is whole: a file that does not fit the others leaves nothing behind.
//! Never     keeps a file open, or writes a key into an error.

use super::{
    Source,
    clients::Clients,
    judge::Judge,
    servers::{Anyone, Servers},
    settings::{self, Allowed, Dialled, Protocol, Settings, Trust},
    x509::{self, Facts},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
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

/// TLS that cannot be had with the files that are there.
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

/// What members are dialled with.
pub struct Dialling {
    pub config: Arc<ClientConfig>,
    /// Of the certificate that is shown, if one is.
    own: Option<Facts>,
}

/// What a listener shakes hands with.
pub struct Loaded {
    /// For clients that can speak HTTP/2.
    pub h2: Arc<ServerConfig>,
    /// For clients that offer HTTP/1.1 alone, or nothing (TL-4).
    pub bare: Arc<ServerConfig>,
    /// Of the certificate that is shown.
    pub own: Facts,
}

impl Source for Settings {
    type Loaded = Arc<Loaded>;

    fn own(loaded: &Arc<Loaded>) -> Option<&Facts> {
        Some(&loaded.own)
    }

    fn files(&self) -> Vec<&Path> {
        let optional = [&self.authorities, &self.revoked];
        [&self.cert, &self.key]
            .into_iter()
            .chain(optional.into_iter().flatten())
            .map(PathBuf::as_path)
            .collect()
    }

    fn load(&self) -> Result<Arc<Loaded>, TlsError> {
        let provider = Arc::new(provider(&self.protocol));
        let (shown, own) = shown(&self.cert, &self.key, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.protocol.versions())
            .map_err(impossible)?;
        let builder = match &self.authorities {
            Some(file) => builder.with_client_cert_verifier(clients(self, file, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut bare = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        // Nothing is resumed: each handshake asks anew whether a certificate is revoked (S17).
        bare.session_storage = Arc::new(NoServerSessionStorage {});
        bare.send_tls13_tickets = 0;
        bare.ignore_client_order = true;
        let mut h2 = bare.clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(Loaded { h2: Arc::new(h2), bare: Arc::new(bare), own }))
    }
}

impl Source for Dialled {
    type Loaded = Arc<Dialling>;

    fn own(loaded: &Arc<Dialling>) -> Option<&Facts> {
        loaded.own.as_ref()
    }

    fn files(&self) -> Vec<&Path> {
        let shown = self.shown.iter().flat_map(|(cert, key)| [cert, key]);
        let trusted = match &self.trust {
            Trust::Authorities { file, revoked, .. } => [Some(file), revoked.as_ref()],
            Trust::Anyone => [None, None],
        };
        shown.chain(trusted.into_iter().flatten()).map(PathBuf::as_path).collect()
    }

    fn load(&self) -> Result<Arc<Dialling>, TlsError> {
        let provider = Arc::new(provider(&self.protocol));
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.protocol.versions())
            .map_err(impossible)?
            .dangerous()
            .with_custom_certificate_verifier(servers(&self.trust, provider.clone())?);
        let (mut config, own) = match &self.shown {
            Some((cert, key)) => {
                let (shown, own) = shown(cert, key, &provider)?;
                let resolver = Arc::new(SingleCertAndKey::from(shown));
                (builder.with_client_cert_resolver(resolver), Some(own))
            }
            None => (builder.with_no_client_auth(), None),
        };
        config.resumption = Resumption::disabled();
        Ok(Arc::new(Dialling { config: Arc::new(config), own }))
    }
}

fn impossible(why: rustls::Error) -> TlsError {
    TlsError::Unusable(format!("no handshake is possible: {why}"))
}

fn provider(protocol: &Protocol) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| protocol.offers(suite.suite()));
    // As Go: the cheapest for whom AES is built into the CPU comes first.
    provider.cipher_suites.sort_by_key(|suite| !settings::is_aes128(suite.suite()));
    provider
}

/// A certificate with its key, and what it says.
fn shown(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<(CertifiedKey, Facts), TlsError> {
    let chain = certificates(cert)?;
    let pem = Zeroizing::new(read(key)?);
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|why| content(key, format!("no private key in PEM: {why}")))?;
    let private = provider.key_provider.load_private_key(private).map_err(|why| content(key, why))?;
    let shown = CertifiedKey::new(chain, private);
    shown.keys_match().map_err(|_| {
        TlsError::Unusable(format!(
            "tls: private key does not match public key: {} is not the key of {}",
            key.display(),
            cert.display()
        ))
    })?;
    let leaf = shown.end_entity_cert().map_err(|why| content(cert, why))?;
    let own = x509::read(leaf).ok_or_else(|| content(cert, "the certificate cannot be read"))?;
    Ok((shown, own))
}

fn clients(
    settings: &Settings,
    authorities: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let chain = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider)
        .build()
        .map_err(|why| content(authorities, why))?;
    Ok(Arc::new(Clients { chain, judge: judge(settings.revoked.as_deref(), &settings.allowed)? }))
}

fn servers(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(match trust {
        Trust::Anyone => Arc::new(Anyone(provider.signature_verification_algorithms)),
        Trust::Authorities { file, revoked, allowed } => {
            let chain = WebPkiServerVerifier::builder_with_provider(roots(file)?, provider)
                .build()
                .map_err(|why| content(file, why))?;
            Arc::new(Servers { chain, judge: judge(revoked.as_deref(), allowed)? })
        }
    })
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|why| content(file, why))?;
    }
    Ok(Arc::new(roots))
}

fn judge(revoked: Option<&Path>, allowed: &Allowed) -> Result<Judge, TlsError> {
    let revoked = match revoked {
        None => Default::default(),
        Some(file) => x509::revoked(&read(file)?)
            .ok_or_else(|| content(file, "not a list of revoked certificates in DER"))?,
    };
    Ok(Judge { revoked, allowed: allowed.clone() })
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
