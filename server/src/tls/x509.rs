// SPDX-License-Identifier: Apache-2.0
//! What of a certificate the daemon itself looks at, and of a list of revoked ones.
//!
//! Owns      the reading of names, serial numbers and dates.
//! Never     verifies anything: the certificate was verified, or is our own.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{CertificateRevocationList, FromDer, X509Certificate},
};

pub const DAY_S: u64 = 24 * 60 * 60;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Of its subject; empty if there is none.
    pub common_name: String,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    /// Its bytes, without zeros in front.
    pub serial: Vec<u8>,
    /// The names of its holder and of who issued it, as they are encoded.
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
    pub uses: Uses,
    /// Unix time of the last second in which it is valid.
    pub not_after_s: i64,
}

impl Facts {
    /// Whole days until it ends; negative after that.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        (self.not_after_s - now_s).div_euclid(DAY_S as i64)
    }
}

/// Which end of a connection may show a certificate, where it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uses {
    pub server: bool,
    pub client: bool,
}

/// What a certificate says; `None` if it cannot be read.
pub fn read(der: &[u8]) -> Option<Facts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut facts = Facts {
        // The last one counts, as in Go.
        common_name: certificate
            .subject()
            .iter_common_name()
            .last()
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        serial: certificate.tbs_certificate.serial.to_bytes_be(),
        subject: certificate.subject().as_raw().to_vec(),
        issuer: certificate.issuer().as_raw().to_vec(),
        uses: certificate
            .extended_key_usage()
            .ok()
            .flatten()
            .map(|uses| Uses { server: uses.value.server_auth, client: uses.value.client_auth })
            .unwrap_or_default(),
        not_after_s: certificate.validity().not_after.timestamp(),
        ..Facts::default()
    };
    if let Some(names) = certificate.subject_alternative_name().ok()? {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => facts.ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    Some(facts)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The serial numbers in a list of revoked certificates; `None` if it cannot be read.
pub fn revoked(der: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    Some(list.iter_revoked_certificates().map(|revoked| revoked.serial().to_bytes_be()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_whole_and_negative_after_the_end() {
        let facts = Facts { not_after_s: 1_000_000, ..Facts::default() };
        let days =
            |before_s| facts.days_left(UNIX_EPOCH + Duration::from_secs((1_000_000 - before_s) as u64));
        let day_s = DAY_S as i64;
        assert_eq!([days(day_s), days(day_s - 1), days(0), days(-1)], [1, 0, 0, -1]);
    }
}
