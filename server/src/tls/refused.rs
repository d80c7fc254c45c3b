// SPDX-License-Identifier: Apache-2.0
//! A handshake that failed, in the words of Go's TLS.
//!
//! Owns      the texts: operators and test suites look for Go's in the log (TL-7).
//! Never     tells a client more than the alert that it was sent.

use super::x509::Facts;
use crate::log::Log;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::io;

/// See the module.
#[derive(Debug, Default)]
pub struct Refused {
    pub error: String,
    /// The host that the client asked for.
    pub server_name: String,
    /// The other end went away: no more than a line for who debugs.
    pub quiet: bool,
    /// Of a certificate whose addresses were looked at.
    pub facts: Option<Facts>,
}

impl Refused {
    pub fn new(error: impl Into<String>) -> Refused {
        Refused { error: error.into(), ..Refused::default() }
    }

    pub fn of(error: &io::Error) -> Refused {
        let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match of_tls {
            Some(error) => Refused::new(text(error)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Refused { quiet: true, ..Refused::new("EOF") }
            }
            None => Refused::new(error.to_string()),
        }
    }
}

impl Refused {
    /// TL-7.
    pub fn log(&self, log: &Log, by_peer: bool, remote: &str) {
        let message = if by_peer {
            "rejected connection on peer endpoint"
        } else {
            "rejected connection on client endpoint"
        };
        let mut fields =
            vec![("remote-addr", remote.into()), ("server-name", self.server_name.as_str().into())];
        if let Some(facts) = &self.facts {
            let addresses: Vec<String> = facts.ip_addresses.iter().map(ToString::to_string).collect();
            fields.push(("ip-addresses", addresses.into()));
            fields.push(("dns-names", facts.dns_names.clone().into()));
        }
        fields.push(("error", self.error.as_str().into()));
        if self.quiet { log.debug(message, &fields) } else { log.warn(message, &fields) }
    }
}

fn text(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", of_alert(*alert)),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".into(),
        Error::InvalidCertificate(CertificateError::Other(why)) => why.to_string(),
        Error::InvalidCertificate(why) => {
            format!("tls: failed to verify certificate: x509: {}", of_certificate(why))
        }
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".into(),
        Error::NoApplicationProtocol => "tls: client requested unsupported application protocols".into(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "tls: client offered only unsupported versions".into(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".into()
        }
        other => format!("tls: {other}"),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "certificate has expired or is not yet valid".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".into()
        }
        CertificateError::BadEncoding => "malformed certificate".into(),
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: TL-7
    #[test]
    fn failures_are_told_in_the_words_of_go() {
        for (error, expected) in [
            (Error::AlertReceived(AlertDescription::BadCertificate), "remote error: tls: bad certificate"),
            (Error::NoCertificatesPresented, "tls: client didn't provide a certificate"),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "tls: no cipher suite supported by both client and server",
            ),
        ] {
            let refused = Refused::of(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert_eq!((refused.error.as_str(), refused.quiet), (expected, false));
        }
        let gone = Refused::of(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!((gone.error.as_str(), gone.quiet), ("EOF", true));
    }
}
