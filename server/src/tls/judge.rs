// SPDX-License-Identifier: Apache-2.0
//! What is asked of a certificate beyond a chain to a trusted authority.
//!
//! Owns      whether a certificate of the chain is revoked (TL-3), and whether its holder is allowed (TL-6).
//! Holds     it is asked in the handshake: nobody is talked to whose certificate is not let in.
//! Never     reads a file.

use super::{settings::Allowed, x509};
use rustls::{
    CertificateError, Error, OtherError,
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use std::{collections::BTreeSet, sync::Arc};

/// See the module.
#[derive(Debug)]
pub struct Judge {
    /// Serial numbers.
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

impl Judge {
    /// Judges a certificate that was verified, with the others of its chain.
    pub fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            self.check_revoked(certificate)?;
        }
        self.check_allowed(end_entity)
    }

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
