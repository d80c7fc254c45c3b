// SPDX-License-Identifier: Apache-2.0
//! Members that find each other by DNS, or by the register of another cluster.
//!
//! Owns      a DNS server that knows the records of a test and nothing else.
//! Never     asks the system's DNS: every name but `localhost` is the test's own.

use crate::{
    members::{Place, run},
    support::{Daemon, until},
};
use cairn_proto::etcdserverpb::{self as pb, auth_client::AuthClient};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const SRV: u16 = 33;

/// Ports at `localhost` by the name of a service.
type Zone = BTreeMap<String, Vec<u16>>;

/// Answers until it is dropped.
struct Dns {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    fn start(zone: Zone) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
                if let Some(answer) = answer(&packet[..len], &zone) {
                    socket.send_to(&answer, from).expect("the loopback takes it");
                }
            }
        });
        Dns { address, stop, thread: Some(thread) }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

/// The answer to a packet with one question.
fn answer(packet: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    const HEAD: usize = 12;
    let (mut name, mut at) = (String::new(), HEAD);
    while let len @ 1.. = usize::from(*packet.get(at)?) {
        name += &String::from_utf8_lossy(packet.get(at + 1..=at + len)?).to_lowercase();
        name.push('.');
        at += len + 1;
    }
    let question = packet.get(HEAD..at + 5)?;
    let kind = u16::from_be_bytes([packet[at + 1], packet[at + 2]]);
    let ports = zone.get(&name).filter(|_| kind == SRV);
    let (found, code) = ports.map_or((&[][..], 3), |ports| (&ports[..], 0));
    // Recursion was asked for, and is available.
    let mut out =
        [&packet[..2], &[0x81, 0x80 | code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0], question].concat();
    for port in found {
        // The name of the question; a minute; priority, weight, port, target.
        out.extend([0xc0, HEAD as u8, 0, SRV as u8, 0, 1, 0, 0, 0, 60, 0, 17, 0, 0, 0, 1]);
        out.extend(port.to_be_bytes());
        out.extend(b"\x09localhost\0");
    }
    Some(out)
}

fn port(place: &Place) -> u16 {
    place.peer.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn flags(place: &Place, more: &[String]) -> Vec<String> {
    let mut flags = vec![
        format!("--name={}", place.name),
        format!("--listen-peer-urls={}", place.peer),
        format!("--initial-advertise-peer-urls={}", place.peer),
        format!("--listen-client-urls={}", place.client),
        format!("--advertise-client-urls={}", place.client),
    ];
    flags.extend_from_slice(more);
    flags
}

fn spawn_in(dir: tempfile::TempDir, place: &Place, more: &[String]) -> Daemon {
    let flags = flags(place, more);
    Daemon::spawn(dir, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

fn spawn(place: &Place, more: &[String]) -> Daemon {
    spawn_in(tempfile::tempdir().expect("a directory"), place, more)
}

/// Waits for the end of one that cannot start, and for why.
fn refused(place: &Place, more: &[String], why: &str) {
    let mut daemon = spawn(place, more);
    assert_eq!(daemon.wait().code(), Some(1), "{:#?}", daemon.log);
    assert!(daemon.has_said(why), "{why}: {:#?}", daemon.log);
}

/// These are members of one cluster: what is put by one is read by all, who all know the same members.
async fn are_one(places: &[Place], named: &[&str]) {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    places[0].kv().await.put(put).await.expect("put");
    for place in places {
        let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(place.kv().await.range(get).await.expect("read").into_inner().count, 1);
        let names = || async {
            let list = place.cluster().await.member_list(pb::MemberListRequest { linearizable: true }).await;
            let list = list.expect("a list").into_inner().members;
            let mut names: Vec<String> = list.into_iter().map(|member| member.name).collect();
            names.sort();
            (names == named).then_some(())
        };
        until(names).await;
    }
}

// rule: DI-5, BO-1
#[test]
fn members_find_each_other_by_dns() {
    run(async {
        let places: Vec<Place> = ["a", "b", "c"].map(Place::new).into();
        let stranger = Place::new("stranger");
        let zone = Zone::from([
            ("_etcd-server-eu._tcp.cairn.test.".to_owned(), places.iter().map(port).collect()),
            ("_etcd-server-ssl._tcp.other.test.".to_owned(), vec![port(&stranger)]),
        ]);
        let dns = Dns::start(zone);
        let server = format!("--discovery-srv-server={}", dns.address);
        let of = |domain: &str| vec![format!("--discovery-srv={domain}"), server.clone()];
        let more = [of("cairn.test"), vec!["--discovery-srv-name=eu".to_owned()]].concat();
        let spawned: Vec<Daemon> = places.iter().map(|place| spawn(place, &more)).collect();
        let mut daemons: Vec<Daemon> = spawned.into_iter().map(Daemon::ready).collect();
        are_one(&places, &["a", "b", "c"]).await;
        let found = format!("a=http://localhost:{}", port(&places[0]));
        assert!(daemons[0].log.iter().any(|line| line["node"] == found.as_str()), "{:#?}", daemons[0].log);

        refused(&stranger, &more, "cannot find local etcd member \"stranger\" in SRV records");
        refused(&stranger, &of("nowhere.test"), "DNS must have SRV records for the members' peer URLs");
        refused(&stranger, &of("other.test"), "has scheme mismatch with expected peer http://127.0.0.1:");

        // Who has its data asks nobody.
        drop(dns);
        let dir = daemons.remove(2).stop();
        let mut again = spawn_in(dir, &places[2], &more).ready();
        again.wait_for("discovery token is ignored since cluster already initialized; valid logs are found");
        are_one(&places, &["a", "b", "c"]).await;
    });
}

async fn register(registry: &Daemon, token: &str, size: &str) {
    let key = format!("/_etcd/registry/{token}/_config/size");
    let put = pb::PutRequest { key: key.into(), value: size.to_owned().into(), ..Default::default() };
    registry.kv().await.put(put).await.expect("put");
}

// rule: DI-1, DI-2, DI-3
#[test]
fn members_find_each_other_by_a_register() {
    run(async {
        let registry = Daemon::start(&[]);
        register(&registry, "one", "3").await;
        register(&registry, "none", "0").await;
        // The first endpoint is nobody's: it is passed over.
        let nobody = Place::new("nobody").client;
        let endpoints = format!("--discovery-endpoints={nobody},{}", registry.url());
        let of = |token: &str| vec![endpoints.clone(), format!("--discovery-token={token}")];
        let places: Vec<Place> = ["a", "b", "c"].map(Place::new).into();
        let mut waiting: Vec<Daemon> = places[..2].iter().map(|place| spawn(place, &of("one"))).collect();
        for daemon in &mut waiting {
            daemon.wait_for("failed to talk to the discovery service");
            daemon.wait_for("waiting for other members of the cluster at the discovery service");
        }
        let last = spawn(&places[2], &of("one"));
        waiting.push(last);
        let mut daemons: Vec<Daemon> = waiting.into_iter().map(Daemon::ready).collect();
        are_one(&places, &["a", "b", "c"]).await;
        let range = pb::RangeRequest {
            key: "/_etcd/registry/one/members/".into(),
            range_end: "/_etcd/registry/one/members0".into(),
            ..Default::default()
        };
        let entries = registry.kv().await.range(range).await.expect("read").into_inner().kvs;
        let mut values: Vec<String> =
            entries.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect();
        values.sort();
        let expected: Vec<String> =
            places.iter().map(|place| format!("{}={}", place.name, place.peer)).collect();
        assert_eq!(values, expected);

        let late = Place::new("late");
        refused(&late, &of("one"), "discovery: cluster is full");
        refused(&late, &of("unknown"), "discovery: size key not found");
        refused(&late, &of("none"), "discovery: size key is bad");

        drop(registry);
        let dir = daemons.remove(0).stop();
        let _again = spawn_in(dir, &places[0], &of("one")).ready();
        are_one(&places, &["a", "b", "c"]).await;
    });
}

// rule: DI-4
#[test]
fn a_register_may_want_to_know_who_asks() {
    run(async {
        let registry = Daemon::start(&["--bcrypt-cost=4"]);
        register(&registry, "t", "1").await;
        let mut auth = AuthClient::new(registry.channel().await);
        let user = pb::AuthUserAddRequest {
            name: "root".into(),
            password: "a long password".into(),
            ..Default::default()
        };
        auth.user_add(user).await.expect("added");
        auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.expect("added");
        let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        auth.user_grant_role(grant).await.expect("granted");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");
        let place = Place::new("a");
        let of = |user: &str| {
            vec![
                format!("--discovery-endpoints={}", registry.url()),
                "--discovery-token=t".to_owned(),
                format!("--discovery-user={user}"),
            ]
        };
        let mut wrong = spawn(&place, &of("root:another one"));
        wrong.wait_for("authentication failed, invalid user ID or password");
        drop(wrong);
        let daemon = spawn(&place, &of("root:a long password")).ready();
        are_one(std::slice::from_ref(&place), &["a"]).await;
        let everything = daemon.everything(&[]);
        crate::support::assert_hidden(&everything, &["a long password"]);
    });
}
