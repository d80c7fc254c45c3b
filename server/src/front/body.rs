// SPDX-License-Identifier: Apache-2.0
//! Bodies of answers, plain and gRPC.
//!
//! Owns      how an answer becomes frames: whole, in chunks as the peer takes them, or as a stream.
//! Holds     a gRPC body ends with exactly one block of trailers, and counts how its call ended even when
//!           the client goes away first.
//! Never     knows what it carries.

use super::{
    connection::Active,
    grpc::{ended::Ended, status::Status},
};
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// Framed messages of a stream, or its end with a failure.
pub type MessageStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// A large message in pieces, made as they are taken.
pub type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// The body of every answer.
pub struct Body {
    kind: Kind,
    /// Counts the request until its answer is gone.
    active: Option<Active>,
}

enum Kind {
    /// Nothing, or nothing more.
    Empty,
    /// Plain HTTP.
    Plain(Bytes),
    /// One framed message, then trailers.
    Unary(Bytes, Ended),
    Pieces(Pieces, Ended),
    Stream(MessageStream, Ended),
    /// The trailers are what is left.
    Trailers(http::HeaderMap),
}

impl Body {
    pub fn empty() -> Body {
        Body { kind: Kind::Empty, active: None }
    }

    pub fn plain(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Body { kind: Kind::Plain(bytes), active: None } }
    }

    pub fn unary(message: Bytes, ended: Ended) -> Body {
        Body { kind: Kind::Unary(message, ended), active: None }
    }

    pub fn pieces(pieces: Pieces, ended: Ended) -> Body {
        Body { kind: Kind::Pieces(pieces, ended), active: None }
    }

    pub fn stream(stream: MessageStream, ended: Ended) -> Body {
        Body { kind: Kind::Stream(stream, ended), active: None }
    }

    /// The same, holding its request's place in the connection's count.
    pub fn counted(mut self, active: Active) -> Body {
        self.active = Some(active);
        self
    }

    /// Leaves the trailers as the next and last frame.
    fn end(&mut self, status: Status, ended: Ended) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ended.with(status.code);
        self.kind = Kind::Empty;
        Poll::Ready(Some(Ok(Frame::trailers(status.trailers()))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(active) = &self.active {
            active.answering();
        }
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Empty => Poll::Ready(None),
            Kind::Plain(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Kind::Unary(message, ended) => {
                ended.with(0);
                self.kind = Kind::Trailers(Status::OK.trailers());
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Kind::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Kind::Pieces(mut pieces, ended) => match pieces.next() {
                Some(piece) => {
                    self.kind = Kind::Pieces(pieces, ended);
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                None => self.end(Status::OK, ended),
            },
            Kind::Stream(mut stream, ended) => match stream.as_mut().poll_next(context) {
                Poll::Pending => {
                    self.kind = Kind::Stream(stream, ended);
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(message))) => {
                    self.kind = Kind::Stream(stream, ended);
                    Poll::Ready(Some(Ok(Frame::data(message))))
                }
                Poll::Ready(Some(Err(status))) => self.end(status, ended),
                Poll::Ready(None) => self.end(Status::OK, ended),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Plain(bytes) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
