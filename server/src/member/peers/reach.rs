// SPDX-License-Identifier: Apache-2.0
//! Connections to other members, by the URLs that they announce.
//!
//! Owns      the choice between a port and a file, in clear and under TLS; and what TLS says of a connection later.
//! Holds     who announces https is talked to under TLS, or not at all.
//! Never     looks into what is sent, or tries again.

use crate::{
    config::urls::{PeerUrl, parse_peer},
    stream::{Socket, Stream},
    tls::{
        Dial,
        dial::dial,
        gather::Gather,
        refused::{End, Refused, of_tls},
    },
};
use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// How other members are reached.
#[derive(Clone, Default)]
pub struct Reach {
    /// `None` where nothing says whom to trust.
    pub tls: Option<Arc<Dial>>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("tls", &self.tls.as_ref().map(|tls| tls.settings())).finish()
    }
}

/// Why a member is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Url(String),
    #[error("{0} needs --peer-trusted-ca-file, the authorities of the other members' certificates")]
    Untrusted(String),
    #[error("{}", .0.line(End::Dialled))]
    Tls(Refused),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Late,
}

impl Reach {
    /// Connects to a member that is to speak this protocol, by its name in a handshake.
    ///
    /// # Errors
    /// If nobody is there, or nobody who is trusted.
    pub async fn connect(&self, url: &str, protocol: &str) -> Result<Connection, ReachError> {
        let PeerUrl { authority, host, file, secure } = parse_peer(url).map_err(ReachError::Url)?;
        let socket = match file {
            Some(file) => Socket::Unix(UnixStream::connect(file).await?),
            None => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        };
        let stream = if secure {
            let tls = self.tls.as_ref().ok_or_else(|| ReachError::Untrusted(url.to_owned()))?;
            let stream = dial(tls, socket, host, protocol).await.map_err(ReachError::Tls)?;
            Stream::Tls(Box::new(Gather::new(stream.into())))
        } else {
            Stream::Plain(socket)
        };
        let said = Said::default();
        let stream = Heard { stream, said: said.clone() };
        Ok(Connection { stream, authority: authority.to_owned(), said })
    }
}

/// A connection, and how it is called.
pub struct Connection {
    pub stream: Heard,
    /// Host and port, as they stand in a request.
    pub authority: String,
    pub said: Said,
}

/// What TLS said when a connection failed: HTTP, which hears of it first, keeps no more than a word.
#[derive(Clone, Default)]
pub struct Said(Arc<OnceLock<Refused>>);

impl Said {
    /// The reason behind an error of the connection.
    pub fn explain(&self, error: ReachError) -> ReachError {
        self.0.get().map_or(error, |refused| ReachError::Tls(refused.clone()))
    }
}

/// A stream whose errors are remembered.
pub struct Heard {
    stream: Stream,
    said: Said,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read
            && of_tls(error).is_some()
        {
            // The first is the reason.
            self.said.0.get_or_init(|| Refused::of(error));
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
