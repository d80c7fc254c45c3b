// SPDX-License-Identifier: Apache-2.0
//! One HTTP/2 connection on which any bytes are sent as a gRPC call.
//!
//! Owns      the connection, and the reading of a call's end.
//! Holds     1. all calls share the connection: one that ends it ends those beside it, and is noticed;
//!           2. a call that gets no answer within [`PATIENCE`] panics.
//! Never     repeats a call.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long an answer may take, whatever deadline the call has.
pub const PATIENCE: Duration = Duration::from_secs(30);

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub code: u32,
    pub text: String,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    address: String,
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// # Panics
    /// If nobody listens there.
    pub async fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket takes its option");
        let mut builder = client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(stream).await.expect("it speaks HTTP/2");
        Connection { address: address.to_owned(), sender, driver: tokio::spawn(connection) }
    }

    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Sends a body as one call, half-closes, and waits for its end.
    ///
    /// # Panics
    /// If there is no answer, or none that a gRPC client could read.
    pub async fn call(&self, path: &str, headers: &[(&'static str, Vec<u8>)], body: Vec<u8>) -> Answer {
        let answered = tokio::time::timeout(PATIENCE, self.ask(path, headers, body)).await;
        let answered = answered.unwrap_or_else(|_| panic!("{path}: no answer in {PATIENCE:?}"));
        answered.unwrap_or_else(|error| panic!("{path}: the stream broke off: {error}"))
    }

    async fn ask(
        &self,
        path: &str,
        headers: &[(&'static str, Vec<u8>)],
        body: Vec<u8>,
    ) -> Result<Answer, h2::Error> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(Method::POST).uri(uri).body(()).expect("a request");
        let own: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
        let given = headers.iter().map(|(name, value)| (*name, value.as_slice()));
        for (name, value) in own.into_iter().chain(given) {
            let value = HeaderValue::from_bytes(value).expect("bytes that a header may have");
            request.headers_mut().insert(http::HeaderName::from_static(name), value);
        }
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut out) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            out.send_data(body.into(), true)?;
        }
        let (head, mut answer) = response.await?.into_parts();
        while let Some(piece) = answer.data().await {
            let piece = piece?;
            answer.flow_control().release_capacity(piece.len())?;
        }
        let trailers = answer.trailers().await?;
        Ok(status(path, trailers.as_ref().unwrap_or(&head.headers)))
    }
}

fn status(path: &str, headers: &HeaderMap) -> Answer {
    let status = tonic::Status::from_header_map(headers);
    let status = status.unwrap_or_else(|| panic!("{path}: an end without a status: {headers:?}"));
    Answer { code: status.code() as u32, text: status.message().to_owned() }
}
