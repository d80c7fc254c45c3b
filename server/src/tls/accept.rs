// SPDX-License-Identifier: Apache-2.0
//! The server's half of a handshake.
//!
//! Owns      its time limit (TL-11), the choice of a protocol (TL-4), and what a listener asks of the address that
//!           a certificate comes from (TL-5).
//! Holds     one handshake that is slow delays no other: each runs on its connection's own task.
//! Never     serves a request.

use super::{Tls, refused::Refused, settings, x509, x509::Facts};
use rustls::{pki_types::CertificateDer, server::Acceptor};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

/// From the accepted connection to the end of the handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A connection whose handshake went well.
pub struct Accepted<S> {
    pub stream: TlsStream<S>,
    /// Of the client's certificate, if one was verified and names a user (AU-31).
    pub user: Option<Arc<str>>,
}

/// Shakes hands. The certificate of the client must be of `address`, if that is given.
pub async fn accept<S>(tls: &Arc<Tls>, stream: S, address: Option<IpAddr>) -> Result<Accepted<S>, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(HANDSHAKE_LIMIT, shake_hands(tls, stream, address)).await {
        Ok(result) => result,
        Err(_) => Err(Refused::new("i/o timeout")),
    }
}

async fn shake_hands<S>(tls: &Arc<Tls>, stream: S, address: Option<IpAddr>) -> Result<Accepted<S>, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start =
        LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|error| Refused::of(&error))?;
    let hello = start.client_hello();
    let server_name = hello.server_name().unwrap_or_default().to_owned();
    let speaks_http1_alone = hello.alpn().is_some_and(|protocols| {
        let offered: Vec<&[u8]> = protocols.collect();
        offered.contains(&b"http/1.1".as_slice()) && !offered.contains(&b"h2".as_slice())
    });
    let prefers_chacha = settings::prefers_chacha(hello.cipher_suites());
    let files = tls.clone();
    let loaded = spawn_blocking(move || files.now()).await.expect("loading does not panic");
    let mut config = if speaks_http1_alone { loaded.bare.clone() } else { loaded.h2.clone() };
    if prefers_chacha {
        Arc::make_mut(&mut config).ignore_client_order = false;
    }
    let refused = |refused: Refused| refused.asked_for(&server_name);
    let stream = start.into_stream(config).await.map_err(|error| refused(Refused::of(&error)))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some(facts) = shown.and_then(|leaf: &CertificateDer<'_>| x509::read(leaf)) else {
        return Ok(Accepted { stream, user: None });
    };
    if let Some(address) = address
        && let Err(error) = check_address(&facts, address).await
    {
        return Err(refused(Refused::of_address(error, facts)));
    }
    let user = tls.settings.names_users.then(|| facts.common_name.into());
    Ok(Accepted { stream, user })
}

/// TL-5: a certificate that names addresses or hosts must name the one it comes from. Names with a wildcard are
/// not looked up.
async fn check_address(facts: &Facts, address: IpAddr) -> Result<(), String> {
    if (facts.ip_addresses.is_empty() && facts.dns_names.is_empty()) || facts.ip_addresses.contains(&address)
    {
        return Ok(());
    }
    if facts.dns_names.is_empty() {
        let named: Vec<String> = facts.ip_addresses.iter().map(IpAddr::to_string).collect();
        return Err(format!("x509: certificate is valid for {}, not {address}", named.join(", ")));
    }
    for name in facts.dns_names.iter().filter(|name| !name.starts_with('*')) {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        if found.is_ok_and(|mut found| found.any(|found| found.ip().to_canonical() == address)) {
            return Ok(());
        }
    }
    Err(format!("tls: {:?} does not match any of DNSNames {:?}", address.to_string(), facts.dns_names))
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: TL-5
    #[tokio::test]
    async fn a_certificate_comes_from_an_address_that_it_names() {
        let facts = |ips: &[&str], names: &[&str]| Facts {
            ip_addresses: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Facts::default()
        };
        let from = |text: &str| text.parse::<IpAddr>().expect("an address");
        let local = from("127.0.0.1");
        assert_eq!(check_address(&facts(&[], &[]), local).await, Ok(()), "it names nothing");
        assert_eq!(check_address(&facts(&["10.0.0.1", "127.0.0.1"], &[]), local).await, Ok(()));
        assert_eq!(
            check_address(&facts(&["10.0.0.1"], &[]), local).await,
            Err("x509: certificate is valid for 10.0.0.1, not 127.0.0.1".into())
        );
        assert_eq!(check_address(&facts(&["10.0.0.1"], &["localhost"]), local).await, Ok(()));
        assert_eq!(
            check_address(&facts(&[], &["*.example.com"]), local).await,
            Err("tls: \"127.0.0.1\" does not match any of DNSNames [\"*.example.com\"]".into())
        );
    }
}
