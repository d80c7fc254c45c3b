// SPDX-License-Identifier: Apache-2.0
//! What keeps strangers out of a server: a certificate of its own, and users with rights.
//!
//! Owns      the certificate, in files of a directory of its own, and the calls that make users and turn
//!           authentication on.
//! Holds     the user that measures may read and write what lies under the bench's prefix, and nothing else, so
//!           each of its requests is checked against a range.
//! Never     measures, and never verifies less than a client would.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use cairn_proto::authpb::{Permission, permission};
use cairn_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, AuthenticateRequest, AuthenticateResponse,
};
use prost::Message;
use rcgen::CertifiedKey;
use rustls::pki_types::CertificateDer;

use crate::client::{Connection, Endpoint};
use crate::reply;
use crate::request::{KEY_PREFIX, KEY_PREFIX_END, frame_of};

const USER: &str = "bench";
const ROLE: &str = "bench";
const ROOT: &str = "root";
/// Nobody but this machine can reach the server, and it ends with the measurement.
const PASSWORD: &str = "of-the-bench-alone";

/// A certificate for 127.0.0.1 that vouches for itself.
pub struct Certificate {
    dir: tempfile::TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// # Errors
    /// It cannot be made, or not be written.
    pub fn new() -> Result<Certificate, String> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
        let CertifiedKey { cert, signing_key } = made.map_err(|e| format!("a certificate: {e}"))?;
        let dir = tempfile::tempdir().map_err(|e| format!("a directory for a certificate: {e}"))?;
        let certificate = Certificate { dir, der: cert.der().clone() };
        let files = [(certificate.path(), cert.pem()), (certificate.key_path(), signing_key.serialize_pem())];
        for (path, pem) in files {
            fs::write(&path, pem).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(certificate)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }

    /// For a server that shows it.
    pub fn flags(&self) -> [String; 2] {
        [
            format!("--cert-file={}", self.path().display()),
            format!("--key-file={}", self.key_path().display()),
        ]
    }

    /// For a client that trusts it.
    pub fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }
}

/// Turns authentication on, and logs in as the user that measures.
///
/// # Errors
/// The server cannot be reached, or refuses.
pub async fn log_in(endpoint: Endpoint) -> Result<Endpoint, String> {
    let connection = Connection::open(&endpoint).await?;
    let call = async |method: &'static str, frame: Bytes| {
        let answer = connection.caller(method).call(frame).await;
        answer.map_err(|e| format!("{endpoint}{method}: {e}"))
    };
    let user = |name: &str| {
        frame_of(&AuthUserAddRequest { name: name.into(), password: PASSWORD.into(), ..Default::default() })
    };
    let grant =
        |user: &str, role: &str| frame_of(&AuthUserGrantRoleRequest { user: user.into(), role: role.into() });
    let permission = Permission {
        perm_type: permission::Type::Readwrite.into(),
        key: Bytes::from_static(KEY_PREFIX),
        range_end: Bytes::from_static(KEY_PREFIX_END),
    };
    let allow = AuthRoleGrantPermissionRequest { name: ROLE.into(), perm: Some(permission) };
    call("/etcdserverpb.Auth/UserAdd", user(ROOT)).await?;
    call("/etcdserverpb.Auth/UserGrantRole", grant(ROOT, ROOT)).await?;
    call("/etcdserverpb.Auth/RoleAdd", frame_of(&AuthRoleAddRequest { name: ROLE.into() })).await?;
    call("/etcdserverpb.Auth/RoleGrantPermission", frame_of(&allow)).await?;
    call("/etcdserverpb.Auth/UserAdd", user(USER)).await?;
    call("/etcdserverpb.Auth/UserGrantRole", grant(USER, ROLE)).await?;
    call("/etcdserverpb.Auth/AuthEnable", frame_of(&AuthEnableRequest {})).await?;
    let log_in = AuthenticateRequest { name: USER.into(), password: PASSWORD.into() };
    let answer = call("/etcdserverpb.Auth/Authenticate", frame_of(&log_in)).await?;
    let message = reply::message(&answer).map_err(|e| format!("{endpoint}: log in: {}", e.0))?;
    let answer = AuthenticateResponse::decode(message).map_err(|e| format!("{endpoint}: log in: {e}"))?;
    drop(connection);
    endpoint.with_token(&answer.token)
}
