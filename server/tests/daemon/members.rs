// SPDX-License-Identifier: Apache-2.0
//! Several members of a cluster, each a process on ports and in a directory that it keeps.
//!
//! Owns      who there is, and with which flags each is started.
//! Holds     a member that ended starts again where it was, under the same addresses.
//! Never     waits for a time: it waits for what is to happen.

use crate::support::{Daemon, PATIENCE, until};
use cairn_proto::etcdserverpb::{
    self as pb, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use rustix::process::Signal;
use std::{collections::BTreeSet, future::Future, net::TcpListener, sync::Mutex};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Where a member is to be found.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub peer: String,
    pub client: String,
}

impl Place {
    pub fn new(name: impl Into<String>) -> Place {
        Place { name: name.into(), peer: free_url("http"), client: free_url("http") }
    }

    /// One that its peers reach under TLS.
    pub fn secure(name: impl Into<String>) -> Place {
        Place { peer: free_url("https"), ..Place::new(name) }
    }

    fn named(&self) -> String {
        format!("{}={}", self.name, self.peer)
    }

    fn flags(&self, cluster: &[String]) -> Vec<String> {
        let cluster = cluster.join(",");
        vec![
            format!("--name={}", self.name),
            format!("--initial-cluster={cluster}"),
            format!("--listen-peer-urls={}", self.peer),
            format!("--initial-advertise-peer-urls={}", self.peer),
            format!("--listen-client-urls={}", self.client),
            format!("--advertise-client-urls={}", self.client),
        ]
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.client.clone()).expect("a URL");
        until(|| async { endpoint.connect().await.ok() }).await
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub async fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel().await)
    }

    pub async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel().await)
    }

    pub async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    pub async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    pub async fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel().await)
    }
}

/// A port that nobody has, that is given once, and that no outgoing connection gets: who dials a member that is down
/// must not take its port.
fn free_url(scheme: &str) -> String {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).expect("the system draws");
        let port = PORTS.start + u16::from_be_bytes(bytes) % (PORTS.end - PORTS.start);
        let is_new = GIVEN.lock().expect("no panic").insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("{scheme}://127.0.0.1:{port}");
        }
    }
}

pub struct Members {
    places: Vec<Place>,
    flags: Vec<Vec<String>>,
    running: Vec<Option<Daemon>>,
}

impl Members {
    /// Starts a cluster of so many, all there from its beginning, with these flags beside those of their places.
    pub fn start(count: usize, more: &[&str]) -> Members {
        Self::start_each(count, |_| more)
    }

    /// The same, where each has flags of its own.
    pub fn start_each<'a>(count: usize, more: impl Fn(usize) -> &'a [&'a str]) -> Members {
        let places = (0..count).map(|i| Place::new(format!("m{i}"))).collect();
        Self::start_at(places, |i, _| more(i).iter().map(|flag| (*flag).to_owned()).collect())
    }

    /// The same at these places.
    pub fn start_at(places: Vec<Place>, more: impl Fn(usize, &Place) -> Vec<String>) -> Members {
        let named: Vec<String> = places.iter().map(Place::named).collect();
        let mut members = Members { places: Vec::new(), flags: Vec::new(), running: Vec::new() };
        let mut spawned = Vec::new();
        for place in places {
            let own = more(spawned.len(), &place);
            members.flags.push([place.flags(&named), own].concat());
            members.places.push(place);
            spawned.push(members.spawn(spawned.len(), tempfile::tempdir().expect("a directory")));
        }
        members.running = spawned.into_iter().map(|daemon| Some(daemon.ready())).collect();
        members
    }

    /// A place for one that is added: it is to join those that run now, with these flags beside those of its place.
    pub fn join(&mut self, place: Place, more: &[String]) -> usize {
        let named: Vec<String> = self.live().into_iter().map(|i| self.places[i].named()).collect();
        let mut flags = place.flags(&[named, vec![place.named()]].concat());
        flags.push("--initial-cluster-state=existing".to_owned());
        flags.extend_from_slice(more);
        self.places.push(place);
        self.flags.push(flags);
        self.running.push(None);
        self.len() - 1
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn place(&self, i: usize) -> Place {
        self.places[i].clone()
    }

    /// Those that run.
    pub fn live(&self) -> Vec<usize> {
        (0..self.len()).filter(|i| self.running[*i].is_some()).collect()
    }

    pub fn spawn(&self, i: usize, dir: TempDir) -> Daemon {
        self.spawn_with(i, dir, &[])
    }

    /// The same with these flags, too.
    pub fn spawn_with(&self, i: usize, dir: TempDir, more: &[&str]) -> Daemon {
        let flags = self.flags[i].iter().map(String::as_str).chain(more.iter().copied());
        Daemon::spawn(dir, &flags.collect::<Vec<_>>())
    }

    pub fn member(&mut self, i: usize) -> &mut Daemon {
        self.running[i].as_mut().expect("it runs")
    }

    /// Takes it out, to be ended or looked at by itself.
    pub fn take(&mut self, i: usize) -> Daemon {
        self.running[i].take().expect("it runs")
    }

    /// Puts one that was started by itself in its place.
    pub fn put_back(&mut self, i: usize, daemon: Daemon) {
        self.running[i] = Some(daemon);
    }

    /// kill -9.
    pub fn kill(&mut self, i: usize) -> TempDir {
        let mut daemon = self.take(i);
        daemon.signal(Signal::KILL);
        daemon.wait_for_any_end();
        daemon.stop_ended()
    }

    pub fn restart(&mut self, i: usize, dir: TempDir) {
        self.running[i] = Some(self.spawn(i, dir).ready());
    }

    /// The members as this one has applied them.
    pub async fn list(&self, i: usize) -> Vec<pb::Member> {
        let mut cluster = self.places[i].cluster().await;
        cluster
            .member_list(pb::MemberListRequest { linearizable: true })
            .await
            .expect("a list")
            .into_inner()
            .members
    }

    pub async fn id(&self, i: usize) -> u64 {
        let status = self.places[i].maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
        status.into_inner().header.expect("a header").member_id
    }

    /// Which member leads, as all that run agree.
    pub async fn leader(&self) -> usize {
        let mut clients = Vec::new();
        for i in self.live() {
            clients.push((i, self.places[i].maintenance().await));
        }
        until(|| async {
            let mut told = Vec::new();
            for (i, mut client) in clients.clone() {
                let status = client.status(pb::StatusRequest {}).await.ok()?.into_inner();
                told.push((i, status.header?.member_id, status.leader));
            }
            let leader = told[0].2;
            let agreed = leader != 0 && told.iter().all(|(.., known)| *known == leader);
            told.iter().find(|(_, id, _)| agreed && *id == leader).map(|(i, ..)| *i)
        })
        .await
    }

    /// The hashes of all that run, with the revision that they are of.
    pub async fn hashes(&self) -> BTreeSet<(u32, i64)> {
        let mut hashes = BTreeSet::new();
        for i in self.live() {
            // What is read through consensus is applied here.
            let all = pb::RangeRequest { key: "x".into(), ..Default::default() };
            self.places[i].kv().await.range(all).await.expect("read");
            let of_now = pb::HashKvRequest { revision: 0 };
            let hash = self.places[i].maintenance().await.hash_kv(of_now).await.expect("a hash").into_inner();
            hashes.insert((hash.hash, hash.hash_revision));
        }
        hashes
    }
}

/// Runs a test of several processes, bounded.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let bounded = async { tokio::time::timeout(4 * PATIENCE, test).await };
    runtime.expect("a runtime").block_on(bounded).expect("the test ends in time");
}
