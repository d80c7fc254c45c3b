// SPDX-License-Identifier: Apache-2.0
//! The client's half of a handshake: another member is dialled.
//!
//! Owns      what is asked of the other end: a protocol, and a certificate for the host that was dialled.
//! Holds     a changed file counts from the next handshake on.
//! Never     bounds the time: who dials does.

use super::{Dial, refused::Refused};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Shakes hands with the member at `host`. Whether it takes what is shown here, it may say later: with TLS 1.3 the
/// first read tells.
///
/// # Errors
/// Why there is no connection.
pub async fn dial<S>(tls: &Arc<Dial>, stream: S, host: &str, protocol: &str) -> Result<TlsStream<S>, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Refused::new(format!("x509: {host:?} is no host that a certificate can name")))?;
    let files = tls.clone();
    let loaded = spawn_blocking(move || files.now()).await.expect("loading does not panic");
    let connector = TlsConnector::from(loaded.config.clone());
    let connecting = connector.with_alpn(vec![protocol.into()]).connect(name, stream);
    connecting.await.map_err(|error| Refused::of(&error))
}
