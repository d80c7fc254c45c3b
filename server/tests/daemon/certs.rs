// SPDX-License-Identifier: Apache-2.0
//! Certificates of a test's own, and a client that shows them.
//!
//! Owns      authorities, what they issue and revoke, and connections under TLS.
//! Never     uses the daemon's code: what it accepts is judged from outside.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is asked of an authority.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub name: &'a str,
    pub hosts: &'a [&'a str],
    pub serial: u64,
    pub days: u32,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Ask { name: "test", hosts: &["localhost", "127.0.0.1"], serial: 1, days: 100 }
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn issue(&self, ask: Ask<'_>) -> Issued {
        let hosts: Vec<String> = ask.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name = Default::default();
        if !ask.name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, ask.name);
        }
        params.serial_number = Some(SerialNumber::from(ask.serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - 2 * DAY).into();
        params.not_after = if ask.days == 0 { now - DAY } else { now + ask.days * DAY }.into();
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A list of revoked certificates, in DER.
    pub fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("signed").der().to_vec()
    }
}

/// Files of a directory, written whole.
pub struct Files(pub PathBuf);

impl Files {
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let (path, fresh) = (self.0.join(name), self.0.join(format!("{name}.new")));
        fs::write(&fresh, bytes).expect("written");
        fs::rename(&fresh, &path).expect("renamed");
        path.display().to_string()
    }

    /// The flags for what is shown.
    pub fn show(&self, issued: &Issued) -> [String; 2] {
        let (cert, key) = (self.put("server.pem", &issued.cert), self.put("server.key", &issued.key));
        [format!("--cert-file={cert}"), format!("--key-file={key}")]
    }
}

/// A client under TLS.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// One that trusts an authority, and shows a certificate if it has one.
    pub fn new(trusts: &Authority, shows: Option<&Issued>) -> Client {
        Self::of_version(trusts, shows, None, None)
    }

    /// One of a version, and of a suite.
    pub fn of_version(
        trusts: &Authority,
        shows: Option<&Issued>,
        version: Option<ProtocolVersion>,
        suite: Option<CipherSuite>,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).expect("PEM")).expect("an authority");
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|known| suite.is_none_or(|suite| known.suite() == suite));
        let versions = match version {
            Some(ProtocolVersion::TLSv1_2) => vec![&TLS12],
            Some(_) => vec![&TLS13],
            None => vec![&TLS12, &TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        };
        Client { config }
    }

    /// Shakes hands, and offers these protocols. Whether the server lets this client in is known once it answers.
    pub async fn connect(&self, address: &str, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// For a handshake over another kind of socket.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::new(self.config.clone()))
    }

    /// A channel for calls.
    pub async fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let (client, address) = (self.clone(), address.to_owned());
        let connector = tower::service_fn(move |_| {
            let (client, address) = (client.clone(), address.clone());
            async move { client.connect(&address, &["h2"]).await.map(hyper_util::rt::TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await
    }

    /// What a path answers over HTTP/1.1.
    pub async fn get(&self, address: &str, path: &str, protocols: &[&str]) -> io::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = self.connect(address, protocols).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match read {
            Err(error) if answer.is_empty() => Err(error),
            _ if answer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    }
}

/// What is shown to a client that trusts no one: the handshake fails, and the certificate was seen.
pub async fn shown_by(stream: TcpStream) -> CertificateDer<'static> {
    let seen = Arc::new(Seen { provider: aws_lc_rs::default_provider(), shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it shakes hands");
    seen.shown.lock().expect("one thread").take().expect("it was shown")
}

/// Takes any certificate, and remembers it.
#[derive(Debug)]
struct Seen {
    provider: CryptoProvider,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.shown.lock().expect("one thread") = Some(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A directory for files.
pub fn files(dir: &Path) -> Files {
    Files(dir.to_path_buf())
}
