// SPDX-License-Identifier: Apache-2.0
//! A handshake that failed, in the words of Go's TLS, and what to do about it.
//!
//! Owns      the texts: operators and test suites look for Go's in the log (TL-7).
//! Never     tells the other end more than the alert that it was sent.

use super::{judge::NotAllowed, x509::Facts};
use crate::log::Log;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use std::{io, net::IpAddr};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    pub error: String,
    why: Why,
    /// The host that the client asked for.
    server_name: String,
    /// The other end went away: no more than a line for who debugs.
    pub quiet: bool,
    /// Of a certificate whose addresses were looked at.
    facts: Option<Facts>,
}

/// This end of the handshake, whose flags can be named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A listener for clients or for metrics.
    Clients,
    /// A listener for peers.
    Peers,
    /// A connection to another member.
    Dialled,
}

/// What an operator can do something about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Why {
    #[default]
    Other,
    NoCertificate,
    UnknownAuthority,
    SelfMade,
    NotInForce,
    Purpose,
    Revoked,
    NotAllowed,
    /// The certificate does not name the host that was dialled.
    OtherHost,
    /// It does not name the address that it comes from.
    OtherAddress,
    NoTls,
    /// The other end refuses the certificate that is shown here.
    Shown,
    /// It asks for one, and none is shown here.
    Asked,
    NothingInCommon,
}

impl Refused {
    pub fn new(error: impl Into<String>) -> Refused {
        Refused { error: error.into(), ..Refused::default() }
    }

    /// Of a certificate that does not name the address that it comes from (TL-5).
    pub fn of_address(error: String, facts: Facts) -> Refused {
        Refused { why: Why::OtherAddress, facts: Some(facts), ..Refused::new(error) }
    }

    pub fn of(error: &io::Error) -> Refused {
        match of_tls(error) {
            Some(error) => Refused { why: why(error), ..Refused::new(text(error)) },
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Refused { quiet: true, ..Refused::new("EOF") }
            }
            None => Refused::new(error.to_string()),
        }
    }

    /// Of a client that asked for this host.
    #[must_use]
    pub fn asked_for(self, server_name: &str) -> Refused {
        Refused { server_name: server_name.to_owned(), ..self }
    }

    /// TL-7.
    pub fn log(&self, log: &Log, by_peer: bool, remote: &str) {
        let (end, message) = if by_peer {
            (End::Peers, "rejected connection on peer endpoint")
        } else {
            (End::Clients, "rejected connection on client endpoint")
        };
        let mut fields =
            vec![("remote-addr", remote.into()), ("server-name", self.server_name.as_str().into())];
        if let Some(facts) = &self.facts {
            let addresses: Vec<String> = facts.ip_addresses.iter().map(ToString::to_string).collect();
            fields.push(("ip-addresses", addresses.into()));
            fields.push(("dns-names", facts.dns_names.clone().into()));
        }
        fields.push(("error", self.error.as_str().into()));
        let advice = advice(self.why, end);
        if !advice.is_empty() {
            fields.push(("advice", advice.into()));
        }
        if self.quiet { log.debug(message, &fields) } else { log.warn(message, &fields) }
    }

    /// Whether an operator can do something about it, and has to.
    pub fn has_advice(&self) -> bool {
        self.why != Why::Other
    }

    /// One line: what, and what to do.
    pub fn line(&self, end: End) -> String {
        match advice(self.why, end) {
            "" => self.error.clone(),
            advice => format!("{}: {advice}", self.error),
        }
    }
}

/// What TLS says of an error of a connection, if it is TLS that failed.
pub fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn advice(why: Why, end: End) -> &'static str {
    match (why, end) {
        (Why::Other, _) => "",
        (Why::NoCertificate, End::Clients) => "show a certificate of an authority in --trusted-ca-file",
        (Why::NoCertificate, _) => "start the other member with --peer-cert-file or --peer-client-cert-file",
        (Why::UnknownAuthority, End::Clients) => "add its authority to --trusted-ca-file, if it may enter",
        (Why::UnknownAuthority, _) => "add its authority to --peer-trusted-ca-file, if it is a member",
        (Why::SelfMade, _) => "give --peer-auto-tls to all members, or better to none",
        (Why::NotInForce, _) => "look at the clocks, and issue it anew: cairn cert rotate",
        (Why::Purpose, End::Clients) => "issue it for a client: cairn cert issue client",
        (Why::Purpose, _) => {
            "issue it for both ends, cairn cert issue peer, or give --peer-client-cert-file too"
        }
        (Why::Revoked, End::Clients) => "it is in --client-crl-file",
        (Why::Revoked, _) => "it is in --peer-crl-file: issue another one, if its holder is a member",
        (Why::NotAllowed, End::Clients) => "it is for no host of --client-cert-allowed-hostname",
        (Why::NotAllowed, _) => {
            "neither --peer-cert-allowed-cn nor --peer-cert-allowed-hostname names its holder"
        }
        (Why::OtherHost, _) => "issue it for the host of its peer URL, or announce a host that it names",
        (Why::OtherAddress, End::Clients) => "issue it for the address that it comes from",
        (Why::OtherAddress, _) => {
            "issue it for the address that it comes from, or give --peer-skip-client-san-verification"
        }
        (Why::NoTls, End::Dialled) => "have it listen on an https URL, or announce an http one",
        (Why::NoTls, _) => "have it call an https URL",
        (Why::Shown, _) => "it does not take the certificate that is shown here: its log says why",
        (Why::Asked, End::Dialled) => "give --peer-cert-file or --peer-client-cert-file",
        (Why::Asked, _) => "",
        (Why::NothingInCommon, _) => "compare --tls-min-version, --tls-max-version and --cipher-suites",
    }
}

fn why(error: &Error) -> Why {
    use AlertDescription as Alert;
    match error {
        Error::NoCertificatesPresented => Why::NoCertificate,
        Error::InvalidCertificate(error) => match error {
            CertificateError::Other(why) => match why.0.downcast_ref() {
                Some(NotAllowed::Revoked(_)) => Why::Revoked,
                Some(NotAllowed::Name) => Why::NotAllowed,
                None if is_authority(error) => Why::SelfMade,
                None => Why::Other,
            },
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Why::UnknownAuthority,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Why::NotInForce,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Why::Purpose,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Why::OtherHost
            }
            _ => Why::Other,
        },
        Error::InvalidMessage(_) => Why::NoTls,
        Error::PeerIncompatible(_)
        | Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure) => Why::NothingInCommon,
        Error::AlertReceived(Alert::CertificateRequired) => Why::Asked,
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied,
        ) => Why::Shown,
        _ => Why::Other,
    }
}

/// Whether it is said of a certificate that is its own authority: the verifier has no public name for that.
fn is_authority(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(why) if why.to_string() == "CaUsedAsEndEntity")
}

fn text(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", of_alert(*alert)),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".into(),
        Error::InvalidCertificate(CertificateError::Other(why)) if why.0.is::<NotAllowed>() => {
            why.to_string()
        }
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
        CertificateError::BadSignature => {
            "certificate signed by unknown authority (one of its name is trusted, and has another key)".into()
        }
        authority if is_authority(authority) => "certificate signed by unknown authority".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            of_host(&expected.to_str(), presented)
        }
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

/// Of a certificate for other hosts, each of which comes as its kind and, in brackets, its name.
fn of_host(expected: &str, presented: &[String]) -> String {
    let is_address = expected.parse::<IpAddr>().is_ok();
    let name = |text: &String| {
        let (kind, name) = text.strip_suffix(')')?.split_once('(')?;
        ((kind == "IpAddress") == is_address).then(|| name.trim_matches('"').to_owned())
    };
    let names: Vec<String> = presented.iter().filter_map(name).collect();
    match (names.is_empty(), is_address) {
        (false, _) => format!("certificate is valid for {}, not {expected}", names.join(", ")),
        (true, true) => {
            format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs")
        }
        (true, false) => format!("certificate is not valid for any names, but wanted to match {expected}"),
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

    fn refused(error: Error) -> Refused {
        Refused::of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

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
            (NotAllowed::Name.into(), "client certificate authentication failed"),
        ] {
            let refused = refused(error);
            assert_eq!((refused.error.as_str(), refused.quiet), (expected, false));
        }
        let gone = Refused::of(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!((gone.error.as_str(), gone.quiet), ("EOF", true));
    }

    #[test]
    fn a_certificate_for_other_hosts_is_told_with_those_that_it_names() {
        let presented = ["DnsName(\"a.example\")", "DnsName(\"*.b.example\")", "IpAddress(10.0.0.1)"];
        let all: Vec<String> = presented.iter().map(|name| (*name).to_owned()).collect();
        for (expected, presented, text) in [
            ("c.example", &all[..], "certificate is valid for a.example, *.b.example, not c.example"),
            ("127.0.0.1", &all, "certificate is valid for 10.0.0.1, not 127.0.0.1"),
            ("::1", &all[..2], "cannot validate certificate for ::1 because it doesn't contain any IP SANs"),
            ("c.example", &[], "certificate is not valid for any names, but wanted to match c.example"),
        ] {
            assert_eq!(of_host(expected, presented), text);
        }
    }

    #[test]
    fn a_line_says_what_to_do_by_the_flags_of_its_end() {
        let line = |error: Error, end| refused(error).line(end);
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let said = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        assert_eq!(
            line(unknown(), End::Dialled),
            format!("{said}: add its authority to --peer-trusted-ca-file, if it is a member")
        );
        assert_eq!(
            line(unknown(), End::Clients),
            format!("{said}: add its authority to --trusted-ca-file, if it may enter")
        );
        let revoked = || NotAllowed::Revoked("ab".into()).into();
        assert_eq!(
            line(revoked(), End::Peers),
            "transport: certificate serial ab revoked: it is in --peer-crl-file: issue another one, if its holder is a \
             member"
        );
        let other = Error::General("odd".into());
        assert_eq!(line(other, End::Dialled), "tls: unexpected error: odd");
        assert!(refused(revoked()).has_advice() && !Refused::new("EOF").has_advice());
    }
}
