// SPDX-License-Identifier: Apache-2.0
//! The flags of TLS, judged.
//!
//! Owns      which of them belong together (TL-2, TL-6, TL-8, TL-9, TL-10, TL-12).
//! Holds     what is asked for is served or refused: a listener is never open without the certificates that its
//!           flags ask for, and no member is dialled under TLS without a word on whom to trust.
//! Never     reads a file.

use super::{ConfigError, Reader, given::Remark, refuse, urls::ListenUrl, value, warn};
use crate::tls::{
    made,
    settings::{Allowed, Dialled, Protocol, Settings, Suite, Trust, Version},
};
use std::path::{Path, PathBuf};

/// TLS of one kind of listeners.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    pub settings: Settings,
    /// To be made if it is not there: for which hosts, and for how many years (TL-8).
    pub make: Option<Make>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Make {
    pub dir: PathBuf,
    pub hosts: Vec<String>,
    pub years: u32,
}

/// The flags of one kind, by name.
struct Names {
    /// Of the listeners, in texts.
    kind: &'static str,
    cert: &'static str,
    key: &'static str,
    authorities: &'static str,
    client_auth: &'static str,
    revoked: &'static str,
    /// Empty where there is no such flag.
    common_names: &'static str,
    hosts: &'static str,
    auto: &'static str,
    ignoring_auto: &'static str,
}

const CLIENT: Names = Names {
    kind: "client",
    cert: "cert-file",
    key: "key-file",
    authorities: "trusted-ca-file",
    client_auth: "client-cert-auth",
    revoked: "client-crl-file",
    common_names: "",
    hosts: "client-cert-allowed-hostname",
    auto: "auto-tls",
    ignoring_auto: "ignoring client auto TLS since certs given",
};

const PEER: Names = Names {
    kind: "peer",
    cert: "peer-cert-file",
    key: "peer-key-file",
    authorities: "peer-trusted-ca-file",
    client_auth: "peer-client-cert-auth",
    revoked: "peer-crl-file",
    common_names: "peer-cert-allowed-cn",
    hosts: "peer-cert-allowed-hostname",
    auto: "peer-auto-tls",
    ignoring_auto: "ignoring peer auto TLS since certs given",
};

/// TLS for clients; listeners for metrics show the same certificate.
pub(super) fn client(
    read: &Reader<'_>,
    urls: &[&ListenUrl],
    metrics: &[ListenUrl],
    data_dir: &Path,
    remarks: &mut Vec<Remark>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let secure_metrics = metrics.iter().any(|url| url.secure);
    if secure_metrics && path(read, CLIENT.cert).is_none() && !read.bool(CLIENT.auto) {
        return refuse(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        );
    }
    of_kind(&CLIENT, read, urls, secure_metrics, data_dir, remarks)
}

/// TLS for peers: of those that call, and of those that are dialled.
pub(super) fn peer(
    read: &Reader<'_>,
    urls: &[&ListenUrl],
    data_dir: &Path,
    remarks: &mut Vec<Remark>,
) -> Result<(Option<TlsConfig>, Option<Dialled>), ConfigError> {
    let listening = of_kind(&PEER, read, urls, false, data_dir, remarks)?;
    Ok((listening, dialled(read, remarks)?))
}

const CLIENT_CERT: &str = "peer-client-cert-file";
const CLIENT_KEY: &str = "peer-client-key-file";
const VERIFIES_NOBODY: &str =
    "peer auto TLS encrypts and verifies nobody: whoever reaches a peer port can pose as a member";

/// TL-8, TL-12. `None` where nothing says whom to trust.
fn dialled(read: &Reader<'_>, remarks: &mut Vec<Remark>) -> Result<Option<Dialled>, ConfigError> {
    let pair = |cert, key| match (path(read, cert), path(read, key)) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        _ => refuse(format!("--{cert} and --{key} must both be present, or both absent")),
    };
    let (own, of_client) = (pair(PEER.cert, PEER.key)?, pair(CLIENT_CERT, CLIENT_KEY)?);
    let authorities = path(read, PEER.authorities);
    let makes_its_own = own.is_none() && read.bool(PEER.auto);
    if makes_its_own && authorities.is_some() && of_client.is_none() {
        return refuse(format!(
            "--{} with --{}: no authority has issued the certificate that a member makes for itself; give --{} and \
             --{} instead",
            PEER.auto, PEER.authorities, PEER.cert, PEER.key
        ));
    }
    if of_client.is_some() && authorities.is_none() && !makes_its_own {
        return refuse(format!(
            "--{CLIENT_CERT} needs --{}: the authorities of those that it is shown to",
            PEER.authorities
        ));
    }
    let trust = match authorities {
        _ if makes_its_own => {
            let advice = "give certificates of an authority: cairn cert makes both";
            remarks.push(warn(VERIFIES_NOBODY, "advice", advice));
            Trust::Anyone
        }
        Some(file) => {
            let (revoked, allowed) = (path(read, PEER.revoked), allowed(&PEER, read)?);
            Trust::Authorities { file, revoked, allowed }
        }
        None => return Ok(None),
    };
    // What is wrong with versions and suites was said of the listeners.
    let protocol = protocol(read, &mut Vec::new())?;
    Ok(Some(Dialled { shown: of_client.or(own), trust, protocol }))
}

fn of_kind(
    names: &Names,
    read: &Reader<'_>,
    urls: &[&ListenUrl],
    others: bool,
    data_dir: &Path,
    remarks: &mut Vec<Remark>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let (cert, key) = (path(read, names.cert), path(read, names.key));
    if cert.is_some() != key.is_some() {
        return refuse(format!("--{} and --{} must both be present, or both absent", names.cert, names.key));
    }
    let asks_for_certificates = read.bool(names.client_auth) || path(read, names.authorities).is_some();
    let given = cert.is_some() || read.bool(names.auto);
    for url in urls {
        if url.secure && !given {
            return refuse(format!(
                "TLS key/cert (--{}, --{}) must be provided for {} url {url} with HTTPS scheme",
                names.cert, names.key, names.kind
            ));
        }
        if !url.secure && cert.is_some() {
            remarks.push(warn(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files",
                "url",
                url,
            ));
        }
        if !url.secure && read.bool(names.client_auth) {
            remarks.push(warn(
                "scheme is http or unix while client certificates are required; this URL asks for none",
                "url",
                url,
            ));
        }
    }
    let protocol = protocol(read, remarks)?;
    if !given || !(others || urls.iter().any(|url| url.secure)) {
        return Ok(None);
    }
    let authorities = path(read, names.authorities);
    if asks_for_certificates && authorities.is_none() {
        return refuse(format!(
            "--{} needs --{}: the authorities whose certificates are let in",
            names.client_auth, names.authorities
        ));
    }
    let revoked = path(read, names.revoked);
    if revoked.is_some() && authorities.is_none() {
        return refuse(format!("--{} needs --{}", names.revoked, names.authorities));
    }
    let allowed = allowed(names, read)?;
    if allowed != Allowed::Any && authorities.is_none() {
        return refuse(format!("--{} needs --{}", names.hosts, names.authorities));
    }
    let make = match (&cert, read.bool(names.auto)) {
        (Some(_), true) => {
            remarks.push(Remark {
                warning: true,
                message: names.ignoring_auto,
                field: "flag",
                value: format!("--{}", names.auto),
            });
            None
        }
        (Some(_), false) => None,
        (None, _) => Some(Make {
            dir: data_dir.join("fixtures").join(names.kind),
            hosts: urls.iter().map(|url| url.host()).collect(),
            years: years(read)?,
        }),
    };
    let (cert, key) = match (cert, key, &make) {
        (Some(cert), Some(key), _) => (cert, key),
        (_, _, Some(make)) => made::paths(&make.dir),
        _ => unreachable!("certificates are given, or to be made"),
    };
    let names_users = read.bool(names.client_auth);
    let settings = Settings { cert, key, authorities, revoked, allowed, names_users, protocol };
    Ok(Some(TlsConfig { settings, make }))
}

fn path(read: &Reader<'_>, name: &str) -> Option<PathBuf> {
    Some(read.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// TL-6.
fn allowed(names: &Names, read: &Reader<'_>) -> Result<Allowed, ConfigError> {
    let list = |name: &str| if name.is_empty() { Vec::new() } else { value::parse_list(read.text(name)) };
    let (common_names, hosts) = (list(names.common_names), list(names.hosts));
    match (common_names.is_empty(), hosts.is_empty()) {
        (true, true) => Ok(Allowed::Any),
        (false, true) => Ok(Allowed::CommonNames(common_names)),
        (true, false) => Ok(Allowed::Hosts(hosts)),
        (false, false) => refuse(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
            common_names.join(" "),
            hosts.join(" ")
        )),
    }
}

/// TL-10.
fn protocol(read: &Reader<'_>, remarks: &mut Vec<Remark>) -> Result<Protocol, ConfigError> {
    let version = |name: &str, default: Version| match read.text(name) {
        "" => Ok(default),
        text => Version::named(text).ok_or_else(|| {
            ConfigError(format!("--{name}: unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)"))
        }),
    };
    let min = version("tls-min-version", Version::Tls12)?;
    let max = version("tls-max-version", Version::Tls13)?;
    if min > max {
        return refuse(format!(
            "min version ({}) is greater than max version ({})",
            read.text("tls-min-version"),
            read.text("tls-max-version")
        ));
    }
    let names = value::parse_list(read.text("cipher-suites"));
    if !names.is_empty() && min == Version::Tls13 {
        return refuse("cipher suites cannot be configured when only TLS1.3 is enabled");
    }
    let mut suites = Vec::new();
    for name in &names {
        match Suite::named(name) {
            Some(Suite::Offered(suite)) => suites.push(suite),
            Some(Suite::Tls13) => {}
            Some(Suite::Weak) => {
                let known = remarks.iter().any(|r| r.message == WEAK_SUITE && r.value == *name);
                if !known {
                    remarks.push(warn(WEAK_SUITE, "cipher-suite", name));
                }
            }
            None => return refuse(format!("unexpected TLS cipher suite {name:?}")),
        }
    }
    if !names.is_empty() && suites.is_empty() && max == Version::Tls12 {
        return refuse(format!(
            "--cipher-suites={} leaves no suite of TLS1.2 that is offered: name one with ECDHE and GCM or CHACHA20",
            names.join(",")
        ));
    }
    // TLS 1.3 alone, where what was named of TLS 1.2 is not offered.
    let min = if !names.is_empty() && suites.is_empty() { Version::Tls13 } else { min };
    Ok(Protocol { min, max, suites })
}

const WEAK_SUITE: &str = "cipher suite is not offered: it lacks forward secrecy or authenticated encryption";

fn years(read: &Reader<'_>) -> Result<u32, ConfigError> {
    match u32::try_from(read.uint("self-signed-cert-validity")) {
        Ok(years @ 1..=100) => Ok(years),
        _ => refuse(format!(
            "--self-signed-cert-validity={} must be from 1 to 100 years",
            read.text("self-signed-cert-validity")
        )),
    }
}
