// SPDX-License-Identifier: Apache-2.0
//! Which client certificates are let in.
//!
//! Owns      what is asked beyond a chain to a trusted authority: that no certificate of it is revoked (TL-3), and
//!           that its holder is allowed (TL-6).
//! Holds     whatever is asked is asked in the handshake: nobody is served whose certificate is not let in.
//! Never     reads a file.

use super::{settings::Allowed, x509};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// See the module.
#[derive(Debug)]
pub struct Clients {
    pub chain: Arc<dyn ClientCertVerifier>,
    pub revoked: BTreeSet<Vec<u8>>,
    pub allowed: Allowed,
}

/// Why a certificate that could be verified is not let in, in etcd's words.
#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    #[error("transport: certificate serial {0} revoked")]
    Revoked(String),
    #[error("client certificate authentication failed")]
    Name,
}

impl From<NotAllowed> for Error {
    fn from(why: NotAllowed) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
    }
}

impl Clients {
    fn check_revoked(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        let facts = x509::read(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.revoked.contains(&facts.serial) {
            let serial = facts.serial.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(NotAllowed::Revoked(serial).into());
        }
        Ok(())
    }

    fn check_allowed(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let allowed = match &self.allowed {
            Allowed::Any => true,
            Allowed::CommonNames(names) => {
                let facts = x509::read(certificate).ok_or(CertificateError::BadEncoding)?;
                names.contains(&facts.common_name)
            }
            Allowed::Hosts(hosts) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                let valid_for = |host: &String| {
                    ServerName::try_from(host.as_str())
                        .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
                };
                hosts.iter().any(valid_for)
            }
        };
        if allowed { Ok(()) } else { Err(NotAllowed::Name.into()) }
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            self.check_revoked(certificate)?;
        }
        self.check_allowed(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
