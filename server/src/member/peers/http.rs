// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP between peers.
//!
//! Owns      one request on a connection of its own, and the form of an answer.
//! Holds     an answer is bounded in size and time.
//! Never     tries again.

use crate::front::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::net::TcpStream;

/// The largest answer that is read: the keys of a lease are many.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The host and port of a peer URL.
///
/// # Errors
/// If it is of a kind that is not spoken yet.
pub fn authority(url: &str) -> io::Result<&str> {
    let other = || io::Error::new(io::ErrorKind::Unsupported, format!("{url}: only http:// is spoken"));
    Ok(url.strip_prefix("http://").ok_or_else(other)?.trim_end_matches('/'))
}

/// # Errors
/// If nobody answers there.
pub async fn connect(url: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority(url)?).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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
    url: &str,
    method: Method,
    path: &str,
    headers: &[(&'static str, String)],
    body: Bytes,
    patience: Duration,
) -> io::Result<Answer> {
    let asking = async {
        let stream = connect(url).await?;
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority(url)?);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let response = send.send_request(request).await.map_err(io::Error::other)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
        driver.abort();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
