// SPDX-License-Identifier: Apache-2.0
//! Who this member is to others, and with whom it begins.
//!
//! Owns      the defaults of names and URLs (BO-9), and what `--initial-cluster` may say (BO-2, BO-3).
//! Holds     a member that has data is not asked whom it began with (BO-1).
//! Never     asks another member.

use super::{Config, ConfigError, refuse, urls, urls::ListenUrl, value};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket},
};

pub const DEFAULT_NAME: &str = "default";
/// What is announced to peers where nothing is said.
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
/// BO-15.
pub const NAME_ADVICE: &str = "it isn't recommended to use default name, please set a value for --name. Note that \
                               etcd might run into issue when multiple members have the same default name";

/// The address from which this machine reaches others; no packet is sent.
pub fn default_host() -> Option<IpAddr> {
    // The route is looked up when a socket is connected. This address is nobody's.
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// Who listens everywhere, and says nothing of where it is, is announced under the machine's address; which is given
/// back.
pub fn announce_host(
    announced: &mut [String],
    listen: &[ListenUrl],
    address: impl FnOnce() -> Option<IpAddr>,
) -> Option<IpAddr> {
    let [announced] = announced else { return None };
    let first = listen.first()?;
    let urls::Place::Tcp { host: urls::Host::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port } = first.place
    else {
        return None;
    };
    if announced != DEFAULT_PEER_URL {
        return None;
    }
    let ip = address()?;
    let scheme = if first.secure { "https" } else { "http" };
    *announced = format!("{scheme}://{}", SocketAddr::new(ip, port));
    Some(ip)
}

/// BO-2, BO-3: the members that a cluster begins with, by name, each with its peer URLs; this one alone if
/// nothing was given.
pub fn initial_cluster(
    config: &Config,
    given: Option<&str>,
) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let given = given.filter(|text| !text.is_empty() && !config.has_member() && config.discovery.is_none());
    match given {
        Some(text) => check_members(config, text),
        None => Ok(BTreeMap::from([(config.name.clone(), config.advertise_peer.clone())])),
    }
}

/// BO-2, BO-3, of a list that is there.
pub fn check_members(config: &Config, text: &str) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut urls = BTreeSet::new();
    for entry in value::parse_list(text) {
        let (name, url) = entry.split_once('=').unwrap_or((entry.as_str(), ""));
        urls::check_announced(url)
            .map_err(|why| ConfigError(format!("error setting up initial cluster: {why}")))?;
        if !urls.insert(url.to_owned()) {
            return refuse(format!("--initial-cluster {text} has duplicate url {url}"));
        }
        members.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    let Some(own) = members.get(&config.name) else {
        return refuse(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ));
    };
    // Whoever joins was announced when it was added.
    if !config.found_cluster {
        return check_reach(config, members);
    }
    let (listed, announced) = (own.join(","), config.advertise_peer.join(","));
    for (urls, others, text) in [
        (own, &config.advertise_peer, "has {} but missing from --initial-advertise-peer-urls"),
        (&config.advertise_peer, own, "lacks {} of --initial-advertise-peer-urls"),
    ] {
        if let Some(url) = urls.iter().find(|url| !others.iter().any(|other| same_url(url, other))) {
            let text = text.replace("{}", url);
            return refuse(format!(
                "--initial-cluster {text} (--initial-cluster {listed}, announced {announced})"
            ));
        }
    }
    check_reach(config, members)
}

/// The peer URLs in `--initial-cluster` that are not this member's own, as far as they can be read.
pub fn others_named(config: &Config, text: &str) -> Vec<String> {
    let entries = value::parse_list(text);
    let others = entries.iter().filter_map(|entry| entry.split_once('=')).filter(|(name, url)| {
        *name != config.name
            && urls::parse_peer(url).is_ok()
            && !config.advertise_peer.iter().any(|own| own == url)
    });
    others.map(|(_, url)| url.to_owned()).collect()
}

/// Whether the other members can be dialled, by what is known of TLS.
fn check_reach(
    config: &Config,
    members: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Vec<String>>, ConfigError> {
    let others = members.iter().filter(|(name, _)| **name != config.name).flat_map(|(_, urls)| urls);
    let secure = |url: &&String| urls::parse_peer(url).is_ok_and(|url| url.secure);
    match others.filter(|_| config.dialled_tls.is_none()).find(secure) {
        Some(url) => refuse(format!(
            "--initial-cluster: {url} needs --peer-trusted-ca-file, the authorities of the other members' certificates \
             (or --peer-auto-tls, which verifies nobody)"
        )),
        None => Ok(members),
    }
}

/// Equal as texts, or one after names are resolved.
pub fn same_url(a: &str, b: &str) -> bool {
    let resolved = |url: &str| -> Option<(String, BTreeSet<SocketAddr>)> {
        let (scheme, authority) = url.split_once("://")?;
        Some((scheme.to_owned(), authority.to_socket_addrs().ok()?.collect()))
    };
    a == b
        || matches!((resolved(a), resolved(b)), (Some((sa, a)), Some((sb, b))) if sa == sb && !a.is_disjoint(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::given::{Asked, Given};
    use std::path::PathBuf;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    fn judge(line: &str) -> (Config, Vec<&'static str>) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match Given::read(&arguments, std::iter::empty()) {
            Ok(Asked::Serve(given)) => {
                let (config, remarks) = Config::on_host(&given, || Some(ADDRESS)).expect("it can be served");
                (config, remarks.iter().map(|remark| remark.message).collect())
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    // rule: BO-9, BO-15
    #[test]
    fn names_and_urls_follow_from_each_other_where_they_are_not_given() {
        let detected = "detected default host for advertise";
        for (line, name, urls, remark) in [
            ("", "default", DEFAULT_PEER_URL, Some(NAME_ADVICE)),
            ("--name=a", "a", DEFAULT_PEER_URL, None),
            ("--name=a --listen-peer-urls=http://0.0.0.0:7380", "a", "http://10.1.2.3:7380", Some(detected)),
            ("--name=a --listen-peer-urls=http://127.0.0.1:7380", "a", DEFAULT_PEER_URL, None),
            (
                "--name=a --listen-peer-urls=http://0.0.0.0:1 --initial-advertise-peer-urls=http://h.example:1",
                "a",
                "http://h.example:1",
                None,
            ),
        ] {
            let (config, remarks) = judge(line);
            assert_eq!(config.advertise_peer, [urls], "{line}");
            let members = BTreeMap::from([(name.to_owned(), vec![urls.to_owned()])]);
            assert_eq!(config.initial_cluster, members, "{line}");
            assert_eq!(config.data_dir, PathBuf::from(format!("{name}.etcd")), "{line}");
            assert_eq!(config.advertise_client, ["http://localhost:2379"], "{line}");
            assert_eq!(remarks, Vec::from_iter(remark), "{line}");
        }
    }
}
