// SPDX-License-Identifier: Apache-2.0
//! The flags of discovery, judged.
//!
//! Owns      which of them belong together (BO-11, DI-1, DI-4).
//! Holds     a register that is named under https is talked to under TLS, by somebody's authority, or not at all.
//! Never     asks anybody.

use super::{ConfigError, Reader, refuse, urls, value};
use crate::{
    discovery::{
        Discovery,
        service::{Password, Service},
        srv::Domain,
    },
    tls::settings::{Allowed, Dialled, Protocol, Trust},
};
use std::path::PathBuf;

const CONFLICT: &str = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                        \"discovery-endpoints\" or \"discovery-srv\"";
const INCOMPLETE: &str = "both --discovery-token and --discovery-endpoints must be set";

/// How others are found, where that is asked for. `founds` is whether the member may begin a cluster.
pub(super) fn discovery(read: &Reader<'_>, founds: bool) -> Result<Option<Discovery>, ConfigError> {
    let given = |name: &str| !read.text(name).is_empty();
    let listed = read.given.text("initial-cluster").is_some_and(|text| !text.is_empty());
    let ways = [listed, given("discovery-srv"), given("discovery-endpoints")];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return refuse(CONFLICT);
    }
    if given("discovery-token") || given("discovery-endpoints") {
        return service(read, founds).map(|service| Some(Discovery::Service(Box::new(service))));
    }
    if given("discovery-srv") {
        return domain(read).map(|domain| Some(Discovery::Srv(domain)));
    }
    for name in ["discovery-srv-name", "discovery-srv-server"] {
        if given(name) {
            return refuse(format!("--{name} needs --discovery-srv, the domain that is asked about"));
        }
    }
    Ok(None)
}

fn domain(read: &Reader<'_>) -> Result<Domain, ConfigError> {
    let server = read.text("discovery-srv-server");
    let server = Some(server).filter(|text| !text.is_empty()).map(|text| {
        text.parse()
            .map_err(|_| ConfigError(format!("--discovery-srv-server must be ADDRESS:PORT, not {text:?}")))
    });
    Ok(Domain {
        name: read.text("discovery-srv").to_owned(),
        suffix: read.text("discovery-srv-name").to_owned(),
        server: server.transpose()?,
    })
}

fn service(read: &Reader<'_>, founds: bool) -> Result<Service, ConfigError> {
    let token = read.text("discovery-token").to_owned();
    let endpoints = value::parse_list(read.text("discovery-endpoints"));
    if token.is_empty() || read.text("discovery-endpoints").is_empty() {
        return refuse(INCOMPLETE);
    }
    if token.contains('/') {
        return refuse(format!("--discovery-token must be one name, without a slash, not {token:?}"));
    }
    if !founds {
        return refuse("discovery URL should not be set when joining existing initial cluster");
    }
    let file = |name: &str| Some(PathBuf::from(read.text(name))).filter(|path| !path.as_os_str().is_empty());
    let authorities = file("discovery-cacert");
    let verifies_nobody = read.bool("discovery-insecure-skip-tls-verify");
    let wants_tls = authorities.is_some() || !read.bool("discovery-insecure-transport");
    let mut urls = Vec::new();
    for endpoint in endpoints {
        if endpoint.trim().is_empty() {
            return refuse("--discovery-endpoints must not contain empty endpoints");
        }
        let scheme = if wants_tls { "https" } else { "http" };
        let url = if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") };
        let secure = urls::parse_peer(&url)
            .map_err(|why| ConfigError(format!("--discovery-endpoints: {why}")))?
            .secure;
        if secure && authorities.is_none() && !verifies_nobody {
            return refuse(format!(
                "--discovery-endpoints: {url} needs --discovery-cacert, the authorities of its certificate"
            ));
        }
        if !secure && !read.bool("discovery-insecure-transport") {
            return refuse(format!(
                "--discovery-endpoints: {url} is not under TLS, as --discovery-insecure-transport=false asks for"
            ));
        }
        urls.push(url);
    }
    let shown = match (file("discovery-cert"), file("discovery-key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return refuse("--discovery-cert and --discovery-key must both be present, or both absent"),
    };
    let trust = match authorities {
        _ if verifies_nobody => Some(Trust::Anyone),
        Some(file) => Some(Trust::Authorities { file, revoked: None, allowed: Allowed::Any }),
        None => None,
    };
    let tls = trust.map(|trust| Dialled { shown, trust, protocol: Protocol::default() });
    Ok(Service {
        token,
        endpoints: urls,
        dial_timeout: read.duration("discovery-dial-timeout")?,
        request_timeout: read.duration("discovery-request-timeout")?,
        keepalive_time: read.duration("discovery-keepalive-time")?,
        keepalive_timeout: read.duration("discovery-keepalive-timeout")?,
        tls,
        user: user(read)?,
    })
}

/// `--discovery-user` may have the password, after a colon.
fn user(read: &Reader<'_>) -> Result<Option<(String, Password)>, ConfigError> {
    let (user, password) = (read.text("discovery-user"), read.text("discovery-password"));
    if user.is_empty() {
        return if password.is_empty() {
            Ok(None)
        } else {
            refuse("--discovery-password needs --discovery-user")
        };
    }
    let (name, password) = match user.split_once(':') {
        Some((name, own)) if password.is_empty() => (name, own),
        _ => (user, password),
    };
    if password.is_empty() {
        return refuse("--discovery-user needs a password: --discovery-password, or NAME:PASSWORD");
    }
    Ok(Some((name.to_owned(), Password(password.to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Config,
        given::{Asked, Given},
    };

    fn judge(line: &str) -> Result<Option<Discovery>, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match Given::read(&arguments, std::iter::empty()) {
            Ok(Asked::Serve(given)) => {
                Config::new(&given).map(|(config, _)| config.discovery).map_err(|error| error.0)
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    // rule: BO-11, DI-1
    #[test]
    fn one_way_of_finding_others_is_taken_and_a_whole_one() {
        for (line, why) in [
            ("--initial-cluster=default=http://localhost:2380 --discovery-srv=example.com", CONFLICT),
            ("--discovery-srv=example.com --discovery-token=t --discovery-endpoints=http://a:1", CONFLICT),
            ("--initial-cluster=default=http://localhost:2380 --discovery-endpoints=http://a:1", CONFLICT),
            ("--discovery-token=t", INCOMPLETE),
            ("--discovery-endpoints=http://a:1", INCOMPLETE),
            (
                "--discovery-token=t --discovery-endpoints=http://a:1,,http://b:1",
                "--discovery-endpoints must not contain empty endpoints",
            ),
            (
                "--discovery-token=a/b --discovery-endpoints=http://a:1",
                "--discovery-token must be one name, without a slash, not \"a/b\"",
            ),
            (
                "--discovery-token=t --discovery-endpoints=http://a:1 --initial-cluster-state=existing",
                "discovery URL should not be set when joining existing initial cluster",
            ),
            (
                "--discovery-srv-name=x",
                "--discovery-srv-name needs --discovery-srv, the domain that is asked about",
            ),
            (
                "--discovery-srv=a --discovery-srv-server=b",
                "--discovery-srv-server must be ADDRESS:PORT, not \"b\"",
            ),
        ] {
            assert_eq!(judge(line), Err(why.to_owned()), "{line}");
        }
        // An empty list is none, and so is the one that there is without any.
        assert!(matches!(
            judge("--initial-cluster= --discovery-srv=example.com"),
            Ok(Some(Discovery::Srv(_)))
        ));
        assert_eq!(judge(""), Ok(None));
    }

    // rule: DI-4
    #[test]
    fn a_register_is_talked_to_as_its_urls_and_flags_say() {
        let service = |more: &str| match judge(&format!("--discovery-token=t {more}")) {
            Ok(Some(Discovery::Service(service))) => Ok(*service),
            Ok(other) => panic!("{other:?}"),
            Err(why) => Err(why),
        };
        let plain = service("--discovery-endpoints=a:1,http://b:2").expect("it can be asked");
        assert_eq!(plain.endpoints, ["http://a:1", "http://b:2"]);
        assert_eq!((plain.tls, plain.user), (None, None));
        let times =
            [plain.dial_timeout, plain.request_timeout, plain.keepalive_time, plain.keepalive_timeout];
        assert_eq!(times.map(|time| time.as_secs()), [2, 5, 2, 6]);
        let secure =
            service("--discovery-endpoints=a:1 --discovery-cacert=ca --discovery-user=u:p:q").expect("asked");
        assert_eq!(secure.endpoints, ["https://a:1"]);
        assert_eq!(secure.user, Some(("u".to_owned(), Password("p:q".to_owned()))));
        let apart =
            service("--discovery-endpoints=a:1 --discovery-user=u:v --discovery-password=p").expect("asked");
        assert_eq!(apart.user, Some(("u:v".to_owned(), Password("p".to_owned()))));
        let anyone = service("--discovery-endpoints=https://a:1 --discovery-insecure-skip-tls-verify");
        assert_eq!(anyone.expect("asked").tls.expect("under TLS").trust, Trust::Anyone);
        for (more, why) in [
            ("--discovery-endpoints=https://a:1", "needs --discovery-cacert"),
            ("--discovery-endpoints=http://a:1 --discovery-insecure-transport=false", "is not under TLS"),
            ("--discovery-endpoints=a", "does not have the form \"host:port\""),
            ("--discovery-endpoints=http://a:1 --discovery-cert=c", "must both be present"),
            ("--discovery-endpoints=http://a:1 --discovery-user=u", "needs a password"),
            ("--discovery-endpoints=http://a:1 --discovery-password=p", "needs --discovery-user"),
        ] {
            let refused = service(more).expect_err(more);
            assert!(refused.contains(why), "{more}: {refused}");
        }
    }
}
