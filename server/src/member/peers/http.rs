// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP between peers.
//!
//! Owns      one request on a connection of its own, and the form of an answer.
//! Holds     an answer is bounded in size and time.
//! Never     tries again.

use super::reach::{Connection, Reach, ReachError};
use crate::front::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};

/// The largest answer that is read: the keys of a lease are many.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// All of it.
    ///
    /// # Errors
    /// If it is too large, or ends before it is whole.
    pub(super) async fn read(response: Response<Incoming>) -> Result<Answer, ReachError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// An answer of plain text.
pub fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::plain(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Asks the peer at `url`.
///
/// # Errors
/// If it does not answer within `patience`.
pub async fn ask(
    reach: &Reach,
    url: &str,
    method: Method,
    path: &str,
    headers: &[(&'static str, String)],
    body: Bytes,
    patience: Duration,
) -> Result<Answer, ReachError> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    tokio::time::timeout(patience, send(reach, url, request)).await.unwrap_or(Err(ReachError::Late))
}

async fn send(reach: &Reach, url: &str, mut request: Request<Full<Bytes>>) -> Result<Answer, ReachError> {
    let Connection { stream, authority, said } = reach.connect(url, "http/1.1").await?;
    let host = HeaderValue::try_from(authority).map_err(io::Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    let answered = async {
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let answer = Answer::read(send.send_request(request).await?).await;
        driver.abort();
        answer
    };
    answered.await.map_err(|error| said.explain(error))
}
