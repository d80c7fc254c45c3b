// SPDX-License-Identifier: Apache-2.0
//! The members of a cluster by DNS: SRV records of the services `etcd-server-ssl` and `etcd-server` (DI-5).
//!
//! Owns      the names that are looked up, and which of the records is this member's.
//! Holds     the URLs are made of the records' own texts: all members read the same, and so agree on their ids (ID-1).
//! Never     takes an answer for the address of a member: the names are resolved again whenever one is dialled.

use crate::{
    config::{Config, urls::parse_peer},
    log::Log,
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tokio::net::lookup_host;

/// What `--discovery-srv` and the flags beside it say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    pub name: String,
    /// `--discovery-srv-name`: what follows the names of the services.
    pub suffix: String,
    /// `--discovery-srv-server`; the system's otherwise.
    pub server: Option<SocketAddr>,
}

/// Why there is no list of members.
#[derive(Debug, thiserror::Error)]
pub enum SrvError {
    #[error("--discovery-srv={domain}: {why}: DNS must have SRV records for the members' peer URLs")]
    Lookup { domain: String, why: String },
    #[error("bootstrap at {found} from DNS for {service} has scheme mismatch with expected peer {announced}")]
    Scheme { found: String, service: String, announced: String },
    #[error(
        "cannot find local etcd member {0:?} in SRV records: one of them must have the address of \
         --initial-advertise-peer-urls"
    )]
    NotAmong(String),
}

/// The services, each with the scheme of its URLs.
const SERVICES: [(&str, &str); 2] = [("https", "etcd-server-ssl"), ("http", "etcd-server")];
/// A server has this long to answer, each of two times.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records of one service that are looked at: no cluster has as many members.
const RECORDS_MAX: usize = 64;

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    target: String,
    port: u16,
}

/// The members that DNS names, as `--initial-cluster` would list them.
///
/// # Errors
/// If there are none, or this one is not among them.
pub async fn find(config: &Config, domain: &Domain, log: &Log) -> Result<String, SrvError> {
    let lookup = |why: String| SrvError::Lookup { domain: domain.name.clone(), why };
    let resolver = resolver(domain).map_err(|error| lookup(error.to_string()))?;
    let own = addresses_of(&config.advertise_peer).await;
    let (mut members, mut failed) = (Members::new(&config.name), Vec::new());
    for (scheme, service) in SERVICES {
        let name = service_name(service, domain);
        let records = match records(&resolver, &name).await {
            Ok(records) => records,
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        for record in records.iter().take(RECORDS_MAX) {
            let at = match lookup_host((record.target.as_str(), record.port)).await {
                Ok(at) => at,
                Err(error) => {
                    failed.push(format!("{}: {error}", record.target));
                    continue;
                }
            };
            let announced = at.into_iter().find_map(|address| own.get(&address));
            members.add(scheme, &name, record, announced.map(String::as_str))?;
        }
    }
    if !failed.is_empty() {
        log.warn("failed to resolve during SRV discovery", &[("error", failed.join("; ").into())]);
    }
    if members.listed.is_empty() {
        return Err(lookup(if failed.is_empty() { "no records".to_owned() } else { failed.join("; ") }));
    }
    for member in &members.listed {
        log.info("got bootstrap from DNS for etcd-server", &[("node", member.as_str().into())]);
    }
    if members.found_own {
        Ok(members.listed.join(","))
    } else {
        Err(SrvError::NotAmong(config.name.clone()))
    }
}

fn resolver(domain: &Domain) -> Result<TokioResolver, NetError> {
    let mut builder = match domain.server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let at = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let ways = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            let servers = vec![NameServerConfig::new(server.ip(), true, ways)];
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    builder.options_mut().timeout = PATIENCE;
    builder.options_mut().attempts = 2;
    builder.build()
}

/// `_SERVICE[-SUFFIX]._tcp.DOMAIN`.
fn service_name(service: &str, domain: &Domain) -> String {
    let dash = if domain.suffix.is_empty() { "" } else { "-" };
    // With a dot at its end no search list is tried.
    format!("_{service}{dash}{}._tcp.{}.", domain.suffix, domain.name.trim_end_matches('.'))
}

async fn records(resolver: &TokioResolver, name: &str) -> Result<Vec<Record>, NetError> {
    let answer = resolver.srv_lookup(name).await?;
    let records = answer.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(((srv.priority, srv.target.to_utf8(), srv.port), srv)),
        _ => None,
    });
    // Servers answer in any order, and members are named by theirs.
    let records: BTreeMap<_, _> = records.collect();
    let record = |srv: &hickory_resolver::proto::rr::rdata::SRV| Record {
        target: srv.target.to_utf8().trim_end_matches('.').to_owned(),
        port: srv.port,
    };
    Ok(records.into_values().map(record).collect())
}

/// The addresses that this member announces, each with its URL.
async fn addresses_of(urls: &[String]) -> BTreeMap<SocketAddr, String> {
    let mut addresses = BTreeMap::new();
    for url in urls {
        let Ok(peer) = parse_peer(url) else { continue };
        // One that cannot be resolved is none of the records'.
        if let Ok(found) = lookup_host(peer.authority).await {
            addresses.extend(found.map(|address| (address, url.clone())));
        }
    }
    addresses
}

/// What was found so far.
struct Members<'a> {
    name: &'a str,
    listed: Vec<String>,
    others: usize,
    found_own: bool,
}

impl Members<'_> {
    fn new(name: &str) -> Members<'_> {
        Members { name, listed: Vec::new(), others: 0, found_own: false }
    }

    /// Takes a record in; `announced` is the URL of this member at that address.
    fn add(
        &mut self,
        scheme: &str,
        service: &str,
        record: &Record,
        announced: Option<&str>,
    ) -> Result<(), SrvError> {
        let host =
            if record.target.contains(':') { format!("[{}]", record.target) } else { record.target.clone() };
        let found = format!("{scheme}://{host}:{}", record.port);
        let Some(announced) = announced else {
            self.listed.push(format!("{}={found}", self.others));
            self.others += 1;
            return Ok(());
        };
        if announced.split("://").next() != Some(scheme) {
            let (service, announced) = (service.to_owned(), announced.to_owned());
            return Err(SrvError::Scheme { found, service, announced });
        }
        self.listed.push(format!("{}={found}", self.name));
        self.found_own = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: DI-5
    #[test]
    fn services_are_named_with_and_without_a_suffix() {
        let domain =
            |suffix: &str| Domain { name: "example.com.".into(), suffix: suffix.into(), server: None };
        assert_eq!(service_name("etcd-server", &domain("")), "_etcd-server._tcp.example.com.");
        assert_eq!(service_name("etcd-server-ssl", &domain("eu")), "_etcd-server-ssl-eu._tcp.example.com.");
    }

    // rule: DI-5
    #[test]
    fn this_member_has_its_name_and_others_have_numbers() {
        let record = |target: &str, port| Record { target: target.into(), port };
        let mut members = Members::new("me");
        let own = Some("http://10.0.0.1:2");
        for (scheme, record, announced) in [
            ("https", record("a.example", 1), None),
            ("http", record("b.example", 2), own),
            ("http", record("c.example", 3), None),
        ] {
            members.add(scheme, "s", &record, announced).expect("it fits");
        }
        let listed = ["0=https://a.example:1", "me=http://b.example:2", "1=http://c.example:3"];
        assert_eq!((&members.listed[..], members.found_own), (&listed.map(str::to_owned)[..], true));
        let refused = members.add("https", "_etcd-server-ssl", &record("b.example", 2), own);
        let why = "bootstrap at https://b.example:2 from DNS for _etcd-server-ssl has scheme mismatch with expected \
                   peer http://10.0.0.1:2";
        assert_eq!(refused.expect_err("another scheme").to_string(), why);
    }
}
