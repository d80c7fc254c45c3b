// SPDX-License-Identifier: Apache-2.0
//! How a member without a store becomes one of a cluster: with others that begin it, or joining those that run.
//!
//! Owns      what others are asked before the data directory is touched.
//! Holds     1. who others know to have run already does not begin with an empty disk (R27): it would not know what
//!              it promised;
//!           2. a member that joins takes its id and its cluster's from those that run (BO-5);
//!           3. nothing new is begun where a member was to go on with what it has (FN-1).
//! Never     is asked again by a member that has its store: its log says who it is (BO-1).

use crate::{
    config::{Config, same_url},
    member::{
        ClusterId, MemberId, Start,
        peers::{http, members::ask_for_members, reach::Reach, versions},
    },
};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use cairn_core::Version;
use cairn_proto::etcdserverpb::Member;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Each other founder is asked for as long whether the cluster is there already.
const FOUNDER_PATIENCE: Duration = Duration::from_secs(1);
/// Each member of a cluster that is joined is asked for as long.
const MEMBER_PATIENCE: Duration = Duration::from_secs(10);
/// For so long those that do not know the new member, or the ones that are named beside it, are asked again: they may
/// not have applied that yet.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);
const APPLY_POLL: Duration = Duration::from_millis(100);
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

/// What a member begins with.
pub struct Beginning {
    pub start: Start,
    /// Whether it begins a cluster, and has no store yet.
    pub fresh: bool,
    /// Where others are, by id, until it knows of itself.
    pub peers: BTreeMap<u64, Vec<String>>,
}

/// How this member begins.
///
/// # Errors
/// One line: why it cannot, and what to do.
pub async fn beginning(config: &Config, reach: &Reach) -> Result<Beginning, String> {
    if config.has_member() {
        let mut beginning = Beginning { fresh: false, ..founding(config) };
        if !config.found_cluster {
            // The ids of those who were added later are not made of their URLs; they call this member.
            beginning.peers.clear();
        }
        return Ok(beginning);
    }
    if config.force_new_cluster {
        return Err(format!(
            "--force-new-cluster needs the data of a member, and there is none in {}: name the data directory of one, \
             or begin without the flag",
            config.data_dir.display()
        ));
    }
    if !config.found_cluster {
        return join(config, reach).await;
    }
    let own = MemberId::at_bootstrap(founder_urls(config), &config.cluster_token);
    for url in others(config).flatten() {
        // Who does not answer has not begun either, or is told later why they cannot talk.
        let Ok((members, _)) = ask_for_members(reach, url, FOUNDER_PATIENCE).await else { continue };
        if members.iter().any(|member| member.id == own.0 && !member.client_urls.is_empty()) {
            return Err(has_run(config, own, url));
        }
    }
    Ok(founding(config))
}

/// The URLs that a founder's id is made of.
pub fn founder_urls(config: &Config) -> &[String] {
    config.initial_cluster.get(&config.name).map_or(&config.advertise_peer[..], |urls| urls)
}

/// The members that are named beside this one, each by its peer URLs.
pub fn others(config: &Config) -> impl Iterator<Item = &Vec<String>> {
    config.initial_cluster.iter().filter(|(name, _)| **name != config.name).map(|(_, urls)| urls)
}

fn founding(config: &Config) -> Beginning {
    let id_of = |urls: &Vec<String>| MemberId::at_bootstrap(urls, &config.cluster_token).0;
    Beginning {
        start: Start::New { others: others(config).cloned().collect() },
        fresh: true,
        peers: others(config).map(|urls| (id_of(urls), urls.clone())).collect(),
    }
}

fn has_run(config: &Config, own: MemberId, url: &str) -> String {
    format!(
        "member {own} has already been bootstrapped: {} has no store and {url} knows this member; bring its data back, \
         or remove the member and add it anew",
        config.data_dir.display()
    )
}

/// How this member joins a cluster that runs (BO-5, BO-6).
///
/// # Errors
/// As [`beginning`].
pub async fn join(config: &Config, reach: &Reach) -> Result<Beginning, String> {
    let mut urls: Vec<&String> = others(config).flatten().collect();
    urls.sort_unstable();
    let begun = Instant::now();
    let (members, cluster, own) = loop {
        match find_cluster(config, reach, &urls).await {
            Ok(found) => break found,
            // The addition may just not be applied where it was asked.
            Err(NotFound::Other(why)) if begun.elapsed() >= APPLY_PATIENCE => return Err(why),
            Err(NotFound::Other(_)) => tokio::time::sleep(APPLY_POLL).await,
            Err(NotFound::Final(why)) => return Err(why),
        }
    };
    let learners = members.iter().filter(|member| member.is_learner).count() as u64;
    if learners > u64::from(config.learners_max) {
        return Err(format!(
            "membership: too many learner members in cluster: it has {learners}, and --max-learners is {}",
            config.learners_max
        ));
    }
    check_versions(reach, own, &members).await?;
    Ok(Beginning {
        start: Start::Join { member_id: MemberId(own), cluster_id: ClusterId(cluster) },
        fresh: false,
        peers: members.iter().filter(|m| m.id != own).map(|m| (m.id, m.peer_urls.clone())).collect(),
    })
}

/// Why no cluster was found to join.
enum NotFound {
    /// Those who answered know other members than are named.
    Other(String),
    Final(String),
}

/// What the first member tells that knows the members that are named, and which of them this one is: the records, the
/// cluster's id, and its own.
async fn find_cluster(
    config: &Config,
    reach: &Reach,
    urls: &[&String],
) -> Result<(Vec<Member>, u64, u64), NotFound> {
    let (mut other, mut failed) = (None, Vec::new());
    for url in urls {
        let (members, cluster) = match ask_for_members(reach, url, MEMBER_PATIENCE).await {
            Ok(answer) => answer,
            Err(why) => {
                failed.push(format!("{url}: {why}"));
                continue;
            }
        };
        match recognise(config, &members) {
            Ok(own) if own.name.is_empty() => {
                let own = own.id;
                return Ok((members, cluster, own));
            }
            Ok(own) => return Err(NotFound::Final(has_run(config, MemberId(own.id), url))),
            Err(why) => {
                other.get_or_insert(why);
            }
        }
    }
    Err(other.map_or_else(
        || {
            NotFound::Final(format!(
                "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given \
                 URLs: --initial-cluster must name members that run ({})",
                failed.join("; ")
            ))
        },
        NotFound::Other,
    ))
}

/// Which of the members this one is; each must be one of those that are named.
fn recognise<'a>(config: &Config, members: &'a [Member]) -> Result<&'a Member, String> {
    let named = &config.initial_cluster;
    let wrong = |why: String| {
        Err(format!(
            "error validating peerURLs: {why}: --initial-cluster must name all members of the cluster, and this one as \
             it was added"
        ))
    };
    if members.len() != named.len() {
        return wrong(format!("member count is unequal ({} and {})", named.len(), members.len()));
    }
    let same = |a: &[String], b: &[String]| {
        a.len() == b.len() && a.iter().all(|url| b.iter().any(|other| same_url(url, other)))
    };
    let mut own = None;
    for member in members {
        match named.iter().find(|(_, urls)| same(urls, &member.peer_urls)) {
            Some((name, _)) if *name == config.name => own = Some(member),
            Some(_) => {}
            None => {
                let (id, urls) = (MemberId(member.id), member.peer_urls.join(","));
                return wrong(format!("PeerURLs: no match found for existing member ({id}, {urls})"));
            }
        }
    }
    own.map_or_else(|| wrong(format!("no member has the peer URLs of {}", config.name)), Ok)
}

/// BO-6: those that do not answer are passed over, and one has to.
async fn check_versions(reach: &Reach, own: u64, members: &[Member]) -> Result<(), String> {
    let mut answered = false;
    // One that is on its way down to our version is above it; any other is not.
    let above = Version::new(Version::OWN.major, Version::OWN.minor + 1);
    let versions =
        if is_downgraded(reach, own, members).await { above..=above } else { Version::LEAST..=Version::OWN };
    for member in members.iter().filter(|member| member.id != own) {
        for url in &member.peer_urls {
            let Some(told) = versions::ask(reach, url, VERSION_PATIENCE).await else { continue };
            let Some(version) = told.cluster else { continue };
            if !versions.contains(&version) {
                return Err(format!(
                    "incompatible with current running cluster: {url} says that its version is {version}"
                ));
            }
            answered = true;
            break;
        }
    }
    if answered {
        return Ok(());
    }
    Err("incompatible with current running cluster: no member told its version".to_owned())
}

/// Whether a member says that the cluster is on its way to a lower version.
async fn is_downgraded(reach: &Reach, own: u64, members: &[Member]) -> bool {
    let others = members.iter().filter(|member| member.id != own);
    for url in others.flat_map(|member| &member.peer_urls) {
        if let Some(answer) = ask(reach, url, "/downgrade/enabled").await {
            return &answer.body[..] == b"true";
        }
    }
    false
}

async fn ask(reach: &Reach, url: &str, path: &str) -> Option<http::Answer> {
    let asked = http::ask(reach, url, Method::GET, path, &[], Bytes::new(), VERSION_PATIENCE).await;
    asked.ok().filter(|answer| answer.status == StatusCode::OK)
}
