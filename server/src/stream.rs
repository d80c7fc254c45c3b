// SPDX-License-Identifier: Apache-2.0
//! A connection's bytes, whichever socket they come over, plain or under TLS.
//!
//! Owns      one type for all of them, dialled or accepted, so that what serves requests is compiled once.
//! Never     looks at the bytes.

use crate::tls::gather::Gather;
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// See the module.
pub enum Stream {
    Plain(Socket),
    Tls(Box<Gather<Socket>>),
}

impl Socket {
    /// The first byte, which stays there to be read; `None` at the end of what there is. Of a file's socket it
    /// cannot be had, and none is needed: there is one URL to each.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        match self {
            Socket::Tcp(stream) => {
                let mut first = [0];
                let len = stream.peek(&mut first).await?;
                Ok((len > 0).then_some(first[0]))
            }
            Socket::Unix(stream) => {
                stream.readable().await?;
                Ok(Some(0))
            }
        }
    }

    pub fn peer_address(&self) -> Option<IpAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Unix(_) => None,
        }
    }
}

/// Calls the same function of whichever stream it is.
macro_rules! forward {
    ($of:ident, $self:ident, $first:ident | $second:ident, $function:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            $of::$first(stream) => Pin::new(stream).$function($($argument),*),
            $of::$second(stream) => Pin::new(stream).$function($($argument),*),
        }
    };
}

/// Both traits, forwarded.
macro_rules! stream {
    ($of:ident, $first:ident | $second:ident) => {
        impl AsyncRead for $of {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                forward!($of, self, $first | $second, poll_read(context, buffer))
            }
        }

        impl AsyncWrite for $of {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                forward!($of, self, $first | $second, poll_write(context, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                forward!($of, self, $first | $second, poll_write_vectored(context, slices))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $of::$first(stream) => stream.is_write_vectored(),
                    $of::$second(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                forward!($of, self, $first | $second, poll_flush(context))
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                forward!($of, self, $first | $second, poll_shutdown(context))
            }
        }
    };
}

stream!(Socket, Tcp | Unix);
stream!(Stream, Plain | Tls);
