// SPDX-License-Identifier: Apache-2.0
//! An authority of an operator's own: a certificate and a key in a directory, and what it has issued beside them.
//!
//! Owns      `ca.pem` and `ca.key`, and for each name `NAME.pem` and `NAME.key`.
//! Holds     1. nothing is written over but by a rotation;
//!           2. files are replaced whole, the key first: who reads a pair that does not match keeps the one before.
//! Never     prints.

use crate::tls::{
    load::TlsError,
    made::put,
    x509::{self, DAY_S, Facts, Uses},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// A clock that is behind ours takes what is made now, too, and one before ours what ends.
const BEHIND: Duration = Duration::from_secs(60 * 60);
const NAME: &str = "ca";

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A member's, for its clients.
    Server,
    /// A member's, for other members: both ends show one.
    Peer,
    /// A user's.
    Client,
}

impl Purpose {
    pub const ALL: [Purpose; 3] = [Purpose::Server, Purpose::Peer, Purpose::Client];

    pub fn name(self) -> &'static str {
        match self {
            Purpose::Server => "server",
            Purpose::Peer => "peer",
            Purpose::Client => "client",
        }
    }

    pub fn named(name: &str) -> Option<Purpose> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    fn uses(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    fn of(uses: Uses) -> Option<Purpose> {
        match (uses.server, uses.client) {
            (true, true) => Some(Purpose::Peer),
            (true, false) => Some(Purpose::Server),
            (false, true) => Some(Purpose::Client),
            (false, false) => None,
        }
    }
}

/// A certificate in the directory.
pub struct Found {
    /// Of its files.
    pub name: String,
    pub facts: Facts,
    pub purpose: Option<Purpose>,
    /// Whether this authority issued it.
    pub ours: bool,
}

impl Found {
    pub fn hosts(&self) -> Vec<String> {
        let addresses = self.facts.ip_addresses.iter().map(ToString::to_string);
        self.facts.dns_names.iter().cloned().chain(addresses).collect()
    }

    /// Whole days until it ends; negative after that.
    pub fn days(&self) -> i64 {
        self.facts.days_left(SystemTime::now())
    }
}

/// See the module.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    subject: Vec<u8>,
}

/// Certificate and key of a name.
pub fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

impl Authority {
    /// Makes an authority in a directory that has none.
    pub fn init(dir: &Path, common_name: &str, days: u32) -> Result<Authority, TlsError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| TlsError::Write { file: dir.to_path_buf(), source })?;
        refuse_existing(dir, NAME)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, days);
        let key = KeyPair::generate().map_err(unusable)?;
        let cert = params.self_signed(&key).map_err(unusable)?;
        store(dir, NAME, &cert.pem(), &key)?;
        Self::open(dir)
    }

    /// The authority of a directory.
    pub fn open(dir: &Path) -> Result<Authority, TlsError> {
        let (cert, key) = paths(dir, NAME);
        let pem = read(&cert)?;
        let pair = KeyPair::from_pem(&read(&key)?)
            .map_err(|why| TlsError::Content { file: key.clone(), why: why.to_string() })?;
        let issuer = Issuer::from_ca_cert_pem(&pem, pair)
            .map_err(|why| TlsError::Content { file: cert.clone(), why: why.to_string() })?;
        let subject = facts_of(&cert)?.subject;
        Ok(Authority { dir: dir.to_path_buf(), issuer, subject })
    }

    /// Issues a certificate for a name that has none.
    pub fn issue(&self, name: &str, purpose: Purpose, hosts: &[String], days: u32) -> Result<(), TlsError> {
        refuse_existing(&self.dir, name)?;
        self.put(name, name, purpose, hosts, days)
    }

    /// Issues it anew, with a key of its own.
    pub fn rotate(&self, found: &Found, purpose: Purpose, days: u32) -> Result<(), TlsError> {
        self.put(&found.name, &found.facts.common_name, purpose, &found.hosts(), days)
    }

    fn put(
        &self,
        name: &str,
        common_name: &str,
        purpose: Purpose,
        hosts: &[String],
        days: u32,
    ) -> Result<(), TlsError> {
        let mut params = CertificateParams::new(hosts).map_err(unusable)?;
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purpose.uses();
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, days);
        let key = KeyPair::generate().map_err(unusable)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(unusable)?;
        store(&self.dir, name, &cert.pem(), &key)
    }

    /// The certificates of the directory in the order of their names, the authority's own last.
    pub fn list(&self) -> Result<Vec<Found>, TlsError> {
        let unreadable = |source| TlsError::Read { file: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".pem"));
            names.extend(name.filter(|name| *name != NAME).map(str::to_owned));
        }
        names.sort();
        names.push(NAME.into());
        names.into_iter().map(|name| self.found(name)).collect()
    }

    fn found(&self, name: String) -> Result<Found, TlsError> {
        let facts = facts_of(&paths(&self.dir, &name).0)?;
        let (purpose, ours) = (Purpose::of(facts.uses), name != NAME && facts.issuer == self.subject);
        Ok(Found { name, facts, purpose, ours })
    }
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BEHIND).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * DAY_S) + BEHIND).into();
}

fn store(dir: &Path, name: &str, cert: &str, key: &KeyPair) -> Result<(), TlsError> {
    let (cert_file, key_file) = paths(dir, name);
    let key = Zeroizing::new(key.serialize_pem());
    for (file, text) in [(key_file, key.as_str()), (cert_file, cert)] {
        put(&file, text.as_bytes()).map_err(|source| TlsError::Write { file, source })?;
    }
    Ok(())
}

fn refuse_existing(dir: &Path, name: &str) -> Result<(), TlsError> {
    let (cert, key) = paths(dir, name);
    match [cert, key].into_iter().find(|file| file.exists()) {
        None => Ok(()),
        Some(file) => {
            Err(TlsError::Unusable(format!("{} is there already and is left alone", file.display())))
        }
    }
}

fn facts_of(file: &Path) -> Result<Facts, TlsError> {
    let bad = |why: &str| TlsError::Content { file: file.to_path_buf(), why: why.into() };
    let pem = read(file)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad("no certificate in PEM"))?;
    x509::read(&der).ok_or_else(|| bad("the certificate cannot be read"))
}

fn read(file: &Path) -> Result<Zeroizing<String>, TlsError> {
    let read = fs::read_to_string(file).map(Zeroizing::new);
    read.map_err(|source| TlsError::Read { file: file.to_path_buf(), source })
}

fn unusable(why: rcgen::Error) -> TlsError {
    TlsError::Unusable(format!("cannot make a certificate: {why}"))
}
