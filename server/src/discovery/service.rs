// SPDX-License-Identifier: Apache-2.0
//! The members of a cluster by a register that another cluster keeps: etcd's discovery protocol of version 3.
//!
//! Owns      the keys of the register, and the way of this member into it (DI-2, DI-3).
//! Holds     1. nobody is registered whom the cluster has no place for;
//!           2. the members are the first that were registered, and all of them read the same ones;
//!           3. what is registered by anybody is taken for a list of URLs, and for nothing else.
//! Never     takes an entry of the register back: a token is good for one cluster.

use crate::{
    config::Config,
    log::Log,
    member::{MemberId, peers::reach::Reach},
    tls::{Dial, load::TlsError, settings::Dialled},
};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    self as pb, auth_client::AuthClient, kv_client::KvClient, watch_client::WatchClient,
};
use hyper_util::rt::TokioIo;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// What the flags `--discovery-*` say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub token: String,
    /// URLs of the cluster that keeps the register.
    pub endpoints: Vec<String>,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    /// `None` talks in clear.
    pub tls: Option<Dialled>,
    /// Name and password.
    pub user: Option<(String, Password)>,
}

/// A password, which is never written down.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a password")
    }
}

/// Why this member is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("discovery: size key not found: put the number of members at {0}")]
    SizeNotFound(String),
    #[error("discovery: size key is bad: {value:?} at {key} is no number of members")]
    SizeBad { key: String, value: String },
    #[error(
        "discovery: cluster is full: {0} members are registered under this token; begin another with a new one"
    )]
    Full(usize),
    #[error("discovery: invalid peer URL: {0:?} is registered")]
    Url(String),
    #[error("discovery: {0:?} is registered by two members: give each a --name of its own")]
    NameTwice(String),
    #[error("discovery: {0}")]
    Tls(#[from] TlsError),
    /// Of an attempt; the next one may succeed.
    #[error("{0}")]
    Asked(String),
}

impl From<Status> for ServiceError {
    fn from(status: Status) -> ServiceError {
        ServiceError::Asked(status.message().to_owned())
    }
}

/// A failed attempt is followed by another after 2 to the power of its number, in seconds, up to this power.
const BACKOFF_POWER_MAX: u32 = 8;
const REGISTRY: &str = "/_etcd/registry";
/// A cluster has no more members.
const SIZE_MAX: usize = 1 << 10;

/// Where a member's entry is, and what it has to be read by.
struct Keys {
    size: String,
    /// With a slash at its end.
    members: String,
    own: String,
}

impl Keys {
    fn new(token: &str, own: MemberId) -> Keys {
        let members = format!("{REGISTRY}/{token}/members/");
        Keys { size: format!("{REGISTRY}/{token}/_config/size"), own: format!("{members}{own}"), members }
    }
}

/// An entry of the register.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    create_revision: i64,
    key: String,
    /// `NAME=URL`, one or several.
    value: String,
}

/// Registers this member and waits for the others; gives them as `--initial-cluster` would list them.
///
/// # Errors
/// If there is no place for it. What may pass is tried again, for as long as it takes.
pub async fn join(config: &Config, service: &Service, log: &Log) -> Result<String, ServiceError> {
    let tls =
        service.tls.clone().map(|dialled| Dial::open(dialled, log.clone()).map(Arc::new)).transpose()?;
    let reach = Reach { tls };
    let own = MemberId::at_bootstrap(&config.advertise_peer, &service.token);
    let keys = Keys::new(&service.token, own);
    let value: Vec<String> =
        config.advertise_peer.iter().map(|url| format!("{}={url}", config.name)).collect();
    let value = value.join(",");
    let mut failures = 0;
    loop {
        let endpoint = &service.endpoints[failures as usize % service.endpoints.len()];
        let error = match attempt(service, &reach, endpoint, &keys, &value, log).await {
            Err(ServiceError::Asked(error)) => error,
            done => return done,
        };
        let pause = Duration::from_secs(1 << failures.min(BACKOFF_POWER_MAX));
        let fields = [
            ("endpoint", endpoint.as_str().into()),
            ("error", error.into()),
            ("backoff", format!("{pause:?}").into()),
        ];
        log.warn("failed to talk to the discovery service", &fields);
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(
    service: &Service,
    reach: &Reach,
    endpoint: &str,
    keys: &Keys,
    value: &str,
    log: &Log,
) -> Result<String, ServiceError> {
    let register = Register::open(service, reach, endpoint).await?;
    let size = register.size(&keys.size).await?;
    let (entries, _) = register.entries(&keys.members).await?;
    place(&entries, size, &keys.own)?;
    register.put(&keys.own, value).await?;
    let (mut entries, revision) = register.entries(&keys.members).await?;
    place(&entries, size, &keys.own)?;
    if entries.len() < size {
        let found = [("found", entries.len().into()), ("needed", size.into())];
        log.info("waiting for other members of the cluster at the discovery service", &found);
        register.wait(&keys.members, revision + 1, size, &mut entries).await?;
    }
    let members = members(&entries, size)?;
    log.info("found all members at the discovery service", &[("members", members.as_str().into())]);
    Ok(members)
}

/// Whether this member is, or would be, one of the first.
fn place(entries: &[Entry], size: usize, own: &str) -> Result<(), ServiceError> {
    let ahead = entries.iter().position(|entry| entry.key == own).unwrap_or(entries.len());
    if ahead < size { Ok(()) } else { Err(ServiceError::Full(size)) }
}

/// The first of them. Each has a name of its own: by one name two members would be one.
fn members(entries: &[Entry], size: usize) -> Result<String, ServiceError> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut listed = Vec::new();
    for entry in entries.iter().take(size) {
        for part in entry.value.split(',') {
            let (name, _) = part.split_once('=').ok_or_else(|| ServiceError::Url(entry.value.clone()))?;
            if owners.insert(name, &entry.key).is_some_and(|owner| owner != entry.key) {
                return Err(ServiceError::NameTwice(name.to_owned()));
            }
        }
        listed.push(entry.value.as_str());
    }
    Ok(listed.join(","))
}

/// A connection to the cluster that keeps the register.
struct Register {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Register {
    async fn open(service: &Service, reach: &Reach, url: &str) -> Result<Register, ServiceError> {
        let asked = |error: String| ServiceError::Asked(error);
        let (reach, url) = (reach.clone(), url.to_owned());
        let connect = service_fn(move |_: Uri| {
            let (reach, url) = (reach.clone(), url.clone());
            async move { reach.connect(&url, "h2").await.map(|connection| TokioIo::new(connection.stream)) }
        });
        // The connector knows where it goes.
        let endpoint = Endpoint::from_static("http://discovery")
            .timeout(service.request_timeout)
            .http2_keep_alive_interval(service.keepalive_time)
            .keep_alive_timeout(service.keepalive_timeout);
        let connecting = endpoint.connect_with_connector(connect);
        let channel = tokio::time::timeout(service.dial_timeout, connecting).await;
        let channel = channel.map_err(|_| asked("no connection in time".to_owned()))?;
        let channel = channel.map_err(|error| asked(causes(&error)))?;
        let mut register = Register { channel, token: None };
        if let Some((name, Password(password))) = &service.user {
            let login = pb::AuthenticateRequest { name: name.clone(), password: password.clone() };
            let token =
                AuthClient::new(register.channel.clone()).authenticate(login).await?.into_inner().token;
            register.token =
                Some(token.parse().map_err(|_| asked("a token that cannot be sent".to_owned()))?);
        }
        Ok(register)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn size(&self, key: &str) -> Result<usize, ServiceError> {
        let range = pb::RangeRequest { key: Bytes::from(key.to_owned()), ..Default::default() };
        let answer = self.kv().range(self.request(range)).await?.into_inner();
        let Some(pair) = answer.kvs.first() else { return Err(ServiceError::SizeNotFound(key.to_owned())) };
        let value = String::from_utf8_lossy(&pair.value).into_owned();
        let size = value.parse().ok().filter(|size| (1..=SIZE_MAX).contains(size));
        size.ok_or_else(|| ServiceError::SizeBad { key: key.to_owned(), value })
    }

    /// All that are registered, the first one first, and the revision of the answer.
    async fn entries(&self, prefix: &str) -> Result<(Vec<Entry>, i64), ServiceError> {
        let (key, range_end) = interval(prefix);
        let range = pb::RangeRequest { key, range_end, ..Default::default() };
        let answer = self.kv().range(self.request(range)).await?.into_inner();
        let mut entries: Vec<Entry> = answer.kvs.iter().filter_map(entry).collect();
        entries.sort_unstable();
        Ok((entries, answer.header.unwrap_or_default().revision))
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), ServiceError> {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        let put = pb::PutRequest { key, value, ..Default::default() };
        self.kv().put(self.request(put)).await?;
        Ok(())
    }

    /// Adds those that are registered from `revision` on, until there are `size`.
    async fn wait(
        &self,
        prefix: &str,
        revision: i64,
        size: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), ServiceError> {
        let (key, range_end) = interval(prefix);
        let create =
            pb::WatchCreateRequest { key, range_end, start_revision: revision, ..Default::default() };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let create = pb::WatchRequest { request_union: Some(create) };
        // The stream stays open as long as its requests do not end.
        let requests = futures_util::stream::iter([create]);
        let requests = futures_util::StreamExt::chain(requests, futures_util::stream::pending());
        let mut watch =
            WatchClient::new(self.channel.clone()).watch(self.request(requests)).await?.into_inner();
        while entries.len() < size {
            let told = watch.message().await?;
            let told = told.filter(|told| !told.canceled);
            let told = told.ok_or_else(|| ServiceError::Asked("the watch ended".to_owned()))?;
            for pair in told.events.iter().filter_map(|event| event.kv.as_ref()) {
                let Some(new) = entry(pair) else { continue };
                if entries.iter().all(|known| known.key != new.key) {
                    entries.push(new);
                }
            }
        }
        entries.sort_unstable();
        Ok(())
    }
}

/// All keys under a prefix.
fn interval(prefix: &str) -> (Bytes, Bytes) {
    let mut end = prefix.as_bytes().to_vec();
    // It ends with a slash.
    *end.last_mut().expect("a prefix") += 1;
    (Bytes::from(prefix.to_owned()), end.into())
}

/// `None` of what nobody registers.
fn entry(pair: &cairn_proto::mvccpb::KeyValue) -> Option<Entry> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.trim().is_empty());
    Some(Entry { create_revision: pair.create_revision, key: text(&pair.key)?, value: text(&pair.value)? })
}

/// An error and what is behind it: tonic's own words are "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(values: &[&str]) -> Vec<Entry> {
        let entry = |(i, value): (usize, &&str)| Entry {
            create_revision: i as i64,
            key: format!("/k/{i}"),
            value: (*value).to_owned(),
        };
        values.iter().enumerate().map(entry).collect()
    }

    // rule: DI-2
    #[test]
    fn the_keys_are_those_of_etcd() {
        let keys = Keys::new("tkn", MemberId(0xab));
        assert_eq!(keys.size, "/_etcd/registry/tkn/_config/size");
        assert_eq!(keys.own, "/_etcd/registry/tkn/members/ab");
        let (from, to) = interval(&keys.members);
        assert!(from < keys.own && keys.own < to);
        assert!(Bytes::from_static(b"/_etcd/registry/tkn/memberships") > to);
    }

    // rule: DI-3
    #[test]
    fn only_the_first_have_a_place() {
        let entries = registered(&["a=u", "b=u", "c=u"]);
        for (size, own, fits) in
            [(3, "/k/2", true), (2, "/k/2", false), (2, "/k/1", true), (3, "/new", false), (4, "/new", true)]
        {
            assert_eq!(place(&entries, size, own).is_ok(), fits, "{size} {own}");
        }
        assert_eq!(members(&entries, 2).expect("a list"), "a=u,b=u");
    }

    #[test]
    fn what_is_registered_badly_is_named() {
        let why = |values: &[&str]| members(&registered(values), 3).expect_err("refused").to_string();
        assert_eq!(why(&["a=u", "nonsense"]), "discovery: invalid peer URL: \"nonsense\" is registered");
        assert!(why(&["a=u", "b=u", "a=v"]).contains("\"a\" is registered by two members"));
        assert_eq!(members(&registered(&["a=u,a=v", "b=u"]), 3).expect("a list"), "a=u,a=v,b=u");
    }

    #[test]
    fn a_password_is_not_written_down() {
        let service = Password("very secret".to_owned());
        assert!(!format!("{service:?}").contains("secret"));
    }
}
