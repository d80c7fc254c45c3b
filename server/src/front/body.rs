// SPDX-License-Identifier: Apache-2.0
//! Bodies of answers, plain and gRPC.
//!
//! Owns      the one type of all of them, and the large answer that is made as the peer takes it.
//! Holds     a gRPC body ends with exactly one block of trailers, and counts how its call ended even when
//!           the client goes away first.
//! Never     knows what it carries.

use super::{connection::Active, grpc::ended::Ended};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// The body of every answer.
pub struct Body {
    inner: tonic::body::Body,
    /// Counts the request until its answer is gone.
    active: Option<Active>,
}

impl Body {
    pub fn empty() -> Body {
        tonic::body::Body::empty().into()
    }

    pub fn plain(bytes: impl Into<Bytes>) -> Body {
        tonic::body::Body::new(Full::new(bytes.into())).into()
    }

    /// The same, holding its request's place in the connection's count.
    pub fn counted(mut self, active: Active) -> Body {
        self.active = Some(active);
        self
    }
}

impl From<tonic::body::Body> for Body {
    fn from(inner: tonic::body::Body) -> Body {
        Body { inner, active: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Some(active) = &self.active {
            active.answering();
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A large message with its head, made piece by piece as it is taken, then the trailers of a good end.
pub struct Pieces<I> {
    pieces: I,
    /// `None` once the trailers are out.
    ended: Option<Ended>,
}

impl<I> Pieces<I> {
    pub fn new(pieces: I, ended: Ended) -> Pieces<I> {
        Pieces { pieces, ended: Some(ended) }
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(self.ended.take().map(|ended| {
            ended.with(0);
            let mut trailers = HeaderMap::with_capacity(1);
            tonic::Status::ok("").add_header(&mut trailers).expect("a status without a text is a header");
            Ok(Frame::trailers(trailers))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none()
    }
}
