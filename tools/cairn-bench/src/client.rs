// SPDX-License-Identifier: Apache-2.0
//! A gRPC client that costs as little as it can: unary calls over the `h2` crate, plain or under TLS.
//!
//! Owns      connections, what they show of a certificate or a token, and the head that all requests of a method
//!           share.
//! Holds     a call gives the body of an answer whose grpc-status is 0, or says why not.
//! Never     encodes a message, measures, or tries again.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WINDOW_BYTES: u32 = 16 << 20;
/// Lets an answer of many pairs come in few frames.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Where a server listens, `http://HOST:PORT` or `HOST:PORT`, and how a client gets in.
#[derive(Clone, Debug)]
pub struct Endpoint {
    authority: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
}

impl Endpoint {
    pub fn local(port: u16) -> Endpoint {
        Endpoint { authority: format!("127.0.0.1:{port}"), port, tls: None, token: None }
    }

    /// The same under TLS, where who answers must show this certificate for 127.0.0.1. Suites are offered as clients in
    /// Go do, those with short keys first; TLS 1.2 too, since etcd 3.5 goes no further.
    ///
    /// # Errors
    /// The certificate is none to be trusted.
    pub fn trusting(self, certificate: CertificateDer<'static>) -> Result<Endpoint, String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|e| format!("{self}: {e}"))?;
        let suites = [
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ];
        let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() };
        let versions =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let builder = versions.map_err(|e| format!("{self}: {e}"))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Endpoint { tls: Some(Arc::new(config)), ..self })
    }

    /// The same with a token in each request.
    ///
    /// # Errors
    /// The token can be in no header.
    pub fn with_token(self, token: &str) -> Result<Endpoint, String> {
        let token = HeaderValue::from_str(token).map_err(|e| format!("{self}: its token: {e}"))?;
        Ok(Endpoint { token: Some(token), ..self })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn uri(&self, path: &'static str) -> Uri {
        Uri::builder()
            .scheme(self.scheme())
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .expect("the authority was parsed as one, and the path is ours")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        if text.starts_with("https://") {
            return Err(format!("endpoint {text}: TLS is not spoken here; give an http:// one"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority = rest.parse::<http::uri::Authority>().map_err(|e| format!("endpoint {text}: {e}"))?;
        let port = authority.port_u16().ok_or_else(|| format!("endpoint {text}: HOST:PORT is needed"))?;
        Ok(Endpoint { authority: authority.to_string(), port, tls: None, token: None })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The server answered, and not with success.
    Status { code: String, message: String },
    /// The connection is of no more use.
    Lost(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Status { code, message } => write!(f, "grpc-status {code}: {message}"),
            CallError::Lost(why) => write!(f, "connection lost: {why}"),
        }
    }
}

/// One HTTP/2 connection, driven by a task of its own until it is dropped.
pub struct Connection {
    endpoint: Endpoint,
    send: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Connection {
    pub async fn open(endpoint: &Endpoint) -> Result<Connection, String> {
        let connect = async {
            let stream = TcpStream::connect(&endpoint.authority).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &endpoint.tls else { return driven(stream).await };
            let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
            driven(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?).await
        };
        let (send, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| format!("{endpoint}: no answer in {} s", CONNECT_TIMEOUT.as_secs()))?
            .map_err(|e| format!("{endpoint}: {e}"))?;
        Ok(Connection { endpoint: endpoint.clone(), send, driver })
    }

    /// A caller of the method at `path`; any number may call at once.
    pub fn caller(&self, path: &'static str) -> Caller {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.extend(self.endpoint.token.clone().map(|token| (AUTHORIZATION, token)));
        Caller { send: self.send.clone(), uri: self.endpoint.uri(path), headers }
    }
}

/// Greets over a stream, and drives the connection in a task of its own.
async fn driven<S>(stream: S) -> io::Result<(SendRequest<Bytes>, JoinHandle<()>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .enable_push(false)
        .handshake::<_, Bytes>(Wire(stream))
        .await
        .map_err(io::Error::other)?;
    // Calls see its error as their own.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((send, driver))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub struct Caller {
    send: SendRequest<Bytes>,
    uri: Uri,
    headers: HeaderMap,
}

impl Caller {
    /// Sends one frame and waits for the whole answer.
    pub async fn call(&mut self, frame: Bytes) -> Result<Bytes, CallError> {
        poll_fn(|cx| self.send.poll_ready(cx)).await.map_err(lost)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let (response, mut body) = self.send.send_request(request, false).map_err(lost)?;
        body.send_data(frame, true).map_err(lost)?;
        let (head, mut body) = response.await.map_err(lost)?.into_parts();
        if head.headers.contains_key("grpc-status") || !head.status.is_success() {
            return Err(status(&head.headers, head.status));
        }
        let mut answer = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(lost)?;
            body.flow_control().release_capacity(chunk.len()).map_err(lost)?;
            answer = if answer.is_empty() { chunk } else { join(answer, &chunk) };
        }
        let trailers = body.trailers().await.map_err(lost)?.unwrap_or_default();
        match trailers.get("grpc-status") {
            Some(code) if code == "0" => Ok(answer),
            _ => Err(status(&trailers, head.status)),
        }
    }
}

fn join(begin: Bytes, more: &[u8]) -> Bytes {
    let mut whole = begin.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    whole.extend_from_slice(more);
    whole.freeze()
}

fn lost(error: h2::Error) -> CallError {
    CallError::Lost(error.to_string())
}

fn status(headers: &HeaderMap, http: http::StatusCode) -> CallError {
    match tonic::Status::from_header_map(headers) {
        Some(status) => CallError::Status {
            code: (status.code() as i32).to_string(),
            message: status.message().to_owned(),
        },
        None => {
            CallError::Status { code: format!("missing (HTTP {})", http.as_u16()), message: String::new() }
        }
    }
}

/// A stream that does not tell `h2` of vectored writes. With them `h2` sends each message of 256 bytes or
/// more in a system call of its own; without, messages up to 1 KiB are gathered, as etcd's own client does.
struct Wire<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port_with_or_without_http() {
        for text in ["127.0.0.1:2379", "http://127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            let endpoint: Endpoint = text.parse().expect("it is well formed");
            assert_eq!(endpoint.to_string(), Endpoint::local(2379).to_string(), "{text}");
        }
        assert_eq!("http://[::1]:1".parse::<Endpoint>().map(|e| e.port()), Ok(1));
        for text in ["https://h:1", "localhost", "", "http://a b:1", "h:x"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_in_many_pieces_is_joined() {
        let whole = join(join(Bytes::from_static(b"ab"), b"c"), b"de");
        assert_eq!(whole, "abcde");
    }
}
