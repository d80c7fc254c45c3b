// SPDX-License-Identifier: Apache-2.0
//! One server, and the commands of a script on it.
//!
//! Owns      the streams that are open, and the calls that wait in the background.
//! Holds     a command's answer is all that it has to say: nothing is left out because it is inconvenient.
//! Never     waits without an end: [`PATIENCE`].

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, MemberListRequest, RangeRequest, StatusRequest, WatchCancelRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use cairn_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use cairn_proto::v3lockpb::{LockRequest, UnlockRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::parse::{self, Words};
use super::show;
use crate::client::Client;
use crate::server::Server;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a command is tried that should be refused at last.
const REPEATS_MAX: usize = 1_000;

type Lines = Result<Vec<String>, Status>;

pub struct Session {
    server: Server,
    client: Client,
    watches: BTreeMap<String, Stream<WatchRequest, WatchResponse>>,
    keepalives: BTreeMap<String, Stream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>>,
    observers: BTreeMap<String, Streaming<LeaderResponse>>,
    background: BTreeMap<String, JoinHandle<Vec<String>>>,
}

/// Both directions of a stream; the first is gone after a half-close. A task opens it and takes what comes,
/// because etcd answers a call only with its first message.
struct Stream<Q, R> {
    requests: Option<mpsc::UnboundedSender<Q>>,
    responses: mpsc::UnboundedReceiver<Result<R, Status>>,
}

impl Session {
    pub async fn new(server: Server) -> Session {
        let client = server.client().await;
        Session {
            server,
            client,
            watches: BTreeMap::new(),
            keepalives: BTreeMap::new(),
            observers: BTreeMap::new(),
            background: BTreeMap::new(),
        }
    }

    /// The answer to one command; of `COUNT times COMMAND` the last, of `refused COMMAND` the first that is a
    /// refusal.
    pub async fn run(&mut self, line: &str) -> Vec<String> {
        if let Some((times, command)) = line.split_once(" times ")
            && let Ok(times) = times.parse::<usize>()
        {
            let mut last = Vec::new();
            for _ in 0..times {
                last = self.once(command).await.unwrap_or_else(|status| vec![show::status(&status)]);
            }
            return last;
        }
        if let Some(command) = line.strip_prefix("refused ") {
            for _ in 0..REPEATS_MAX {
                if let Err(status) = self.once(command).await {
                    return vec![show::status(&status)];
                }
            }
            return vec![format!("answered {REPEATS_MAX} times")];
        }
        self.once(line).await.unwrap_or_else(|status| vec![show::status(&status)])
    }

    async fn once(&mut self, line: &str) -> Lines {
        let mut words = Words::of(line);
        let outcome = timeout(PATIENCE, self.command(&mut words)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{line:?}: no answer in {PATIENCE:?}"));
        words.end();
        outcome
    }

    async fn command(&mut self, words: &mut Words) -> Lines {
        let name = words.text();
        match name.as_str() {
            "watch" | "cancel" | "progress" | "recv" | "halfclose" => self.watch(&name, words).await,
            "keepalive" => self.keepalive(words).await,
            "observe" => self.observe(words).await,
            "restart" => self.restart(words).await,
            "bg" => {
                let (id, mut rest, client) = (words.text(), words.clone(), self.client.clone());
                *words = Words::of("");
                let call = async move {
                    let command = rest.text();
                    let answer = unary(&client, &command, &mut rest).await;
                    rest.end();
                    answer.unwrap_or_else(|status| vec![show::status(&status)])
                };
                self.background.insert(id, tokio::spawn(call));
                Ok(vec!["started".into()])
            }
            // A waiter is seen by the key it has put: that it waits is then no matter of time.
            "waits" => Ok(vec![if self.task(words).is_finished() { "finished" } else { "waiting" }.into()]),
            "join" => {
                let id = words.text();
                let task =
                    self.background.remove(&id).unwrap_or_else(|| panic!("no call {id} in the background"));
                Ok(task.await.expect("a call in the background does not panic"))
            }
            "abort" => {
                self.task(words).abort();
                Ok(vec!["aborted".into()])
            }
            "until" => self.until(words).await,
            _ => unary(&self.client, &name, words).await,
        }
    }

    fn task(&mut self, words: &mut Words) -> &JoinHandle<Vec<String>> {
        let id = words.text();
        self.background.get(&id).unwrap_or_else(|| panic!("no call {id} in the background"))
    }

    /// `until COUNT KEY [end=]`: polls until so many keys exist, and prints them as `get` does, keys only.
    async fn until(&mut self, words: &mut Words) -> Lines {
        let count = words.number();
        let range = parse::range(words);
        loop {
            let got = self.client.kv.range(range.clone()).await?.into_inner();
            if got.count == count {
                return Ok(got
                    .kvs
                    .iter()
                    .map(|kv| format!("  {}", show::bytes(&kv.key)))
                    .collect::<Vec<_>>())
                .map(|keys| [vec![format!("count {count}")], keys].concat());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `restart` ends the server and starts it again; `restart kill` ends it by kill -9.
    async fn restart(&mut self, words: &mut Words) -> Lines {
        if words.flag("kill") {
            self.server.kill();
        } else {
            self.server.stop().await;
        }
        self.server.restart().await;
        self.client = self.server.client().await;
        Ok(vec!["ready".into()])
    }

    /// `watch …`, `cancel ID`, `progress`, `recv`, `halfclose`, each with `[on=STREAM]`.
    async fn watch(&mut self, command: &str, words: &mut Words) -> Lines {
        let on = words.option("on").map_or("0".to_owned(), |w| String::from_utf8_lossy(&w).into_owned());
        if !self.watches.contains_key(&on) {
            let mut client = self.client.watch.clone();
            self.watches.insert(on.clone(), Stream::open(async move |requests| client.watch(requests).await));
        }
        let stream = self.watches.get_mut(&on).expect("it is there or was just made");
        let request = match command {
            "watch" => RequestUnion::CreateRequest(parse::watch(words)),
            "cancel" => RequestUnion::CancelRequest(WatchCancelRequest { watch_id: words.number() }),
            "progress" => RequestUnion::ProgressRequest(WatchProgressRequest {}),
            "halfclose" => {
                stream.requests = None;
                return Ok(vec![]);
            }
            _ => return stream.receive().await.map(|r| r.map_or(vec!["end".into()], |r| show::watch(&r))),
        };
        stream.send(WatchRequest { request_union: Some(request) });
        Ok(vec![])
    }

    /// `keepalive ID [on=STREAM]` sends and receives; `keepalive halfclose [on=STREAM]` ends the requests.
    async fn keepalive(&mut self, words: &mut Words) -> Lines {
        let on = words.option("on").map_or("0".to_owned(), |w| String::from_utf8_lossy(&w).into_owned());
        let half_close = words.flag("halfclose");
        if !self.keepalives.contains_key(&on) {
            let mut client = self.client.lease.clone();
            self.keepalives.insert(
                on.clone(),
                Stream::open(async move |requests| client.lease_keep_alive(requests).await),
            );
        }
        if half_close {
            self.keepalives.get_mut(&on).expect("it is there").requests = None;
        } else {
            self.keepalives[&on].send(LeaseKeepAliveRequest { id: words.number() });
        }
        let response = self.keepalives.get_mut(&on).expect("it is there").receive().await?;
        Ok(vec![match response {
            None => "end".to_owned(),
            Some(r) => format!("{} lease {} ttl {}", show::header(&r.header), r.id, r.ttl),
        }])
    }

    /// `observe NAME` opens a stream, `observe next NAME` gives its next answer.
    async fn observe(&mut self, words: &mut Words) -> Lines {
        let next = words.flag("next");
        let name = words.text();
        if !next {
            let request = LeaderRequest { name: name.clone().into() };
            let stream = self.client.election.observe(request).await?.into_inner();
            self.observers.insert(name, stream);
            return Ok(vec![]);
        }
        let response = self.observers.get_mut(&name).expect("it is observed").message().await?;
        Ok(response.map_or(vec!["end".into()], |r| leader(&r)))
    }
}

impl<Q: Send + 'static, R: Send + 'static> Stream<Q, R> {
    fn open<F>(call: F) -> Stream<Q, R>
    where
        F: AsyncFnOnce(UnboundedReceiverStream<Q>) -> Result<Response<Streaming<R>>, Status> + 'static,
    {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (sender, responses) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut stream = match call(UnboundedReceiverStream::new(receiver)).await {
                Ok(response) => response.into_inner(),
                Err(status) => return sender.send(Err(status)).unwrap_or(()),
            };
            while let Some(next) = stream.message().await.transpose() {
                if sender.send(next).is_err() {
                    return;
                }
            }
        });
        Stream { requests: Some(requests), responses }
    }

    fn send(&self, request: Q) {
        let requests = self.requests.as_ref().expect("the stream was not half-closed");
        assert!(requests.send(request).is_ok(), "the server ended the stream");
    }

    /// The next response; `None` at the end of the stream.
    async fn receive(&mut self) -> Result<Option<R>, Status> {
        self.responses.recv().await.transpose()
    }
}

/// A command of one request and one answer.
async fn unary(client: &Client, name: &str, words: &mut Words) -> Lines {
    let mut client = client.clone();
    Ok(match name {
        "get" => show::range(&client.kv.range(parse::range(words)).await?.into_inner()),
        "put" => show::put(&client.kv.put(parse::put(words)).await?.into_inner()),
        "del" => show::delete(&client.kv.delete_range(parse::delete(words)).await?.into_inner()),
        "txn" => show::txn(&client.kv.txn(parse::txn(words)).await?.into_inner()),
        "stream" => return range_stream(&mut client, words).await,
        "compact" => {
            let physical = words.flag("physical");
            let revision = if words.flag("now") { now(&mut client).await? } else { words.number() };
            let r = client.kv.compact(CompactionRequest { revision, physical }).await?.into_inner();
            vec![show::header(&r.header)]
        }
        "hash" => {
            let revision = words.number();
            let r = client.maintenance.hash_kv(HashKvRequest { revision }).await?.into_inner();
            vec![format!("{} hash {} compacted {}", show::header(&r.header), r.hash, r.compact_revision)]
        }
        "grant" => {
            let (id, ttl) = (words.number(), words.number());
            let r = client.lease.lease_grant(LeaseGrantRequest { ttl, id }).await?.into_inner();
            let id = if id == 0 {
                if r.id > 0 { "some".into() } else { format!("bad {}", r.id) }
            } else {
                r.id.to_string()
            };
            vec![format!("{} lease {id} ttl {}{}", show::header(&r.header), r.ttl, r.error)]
        }
        "revoke" => {
            let r = client.lease.lease_revoke(LeaseRevokeRequest { id: words.number() }).await?.into_inner();
            vec![show::header(&r.header)]
        }
        "ttl" => {
            let keys = words.flag("keys");
            let r =
                client.lease.lease_time_to_live(LeaseTimeToLiveRequest { id: words.number(), keys }).await?;
            let mut r = r.into_inner();
            r.keys.sort_unstable();
            let keys = r.keys.iter().map(|k| format!("  {}", show::bytes(k)));
            let left = time_left(r.ttl, r.granted_ttl);
            let head = format!("{} lease {} {left} of {}", show::header(&r.header), r.id, r.granted_ttl);
            std::iter::once(head).chain(keys).collect()
        }
        "leases" => {
            let r = client.lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
            let ids: Vec<String> = r.leases.iter().map(|l| l.id.to_string()).collect();
            vec![format!("{} leases {}", show::header(&r.header), ids.join(" "))]
        }
        "members" => {
            let r = client.cluster.member_list(MemberListRequest { linearizable: true }).await?.into_inner();
            let members = r.members.iter().map(|m| format!("{} learner {}", m.name, m.is_learner));
            vec![format!("{} members {:?}", show::header(&r.header), members.collect::<Vec<_>>())]
        }
        "defragment" => {
            let r = client.maintenance.defragment(DefragmentRequest {}).await?.into_inner();
            vec![show::header(&r.header)]
        }
        "version-of-client" => {
            let version = words.bytes();
            let mut request = Request::new(parse::range(words));
            let value = AsciiMetadataValue::try_from(version).map_err(|e| Status::internal(e.to_string()))?;
            request.metadata_mut().insert("client-api-version", value);
            show::range(&client.kv.range(request).await?.into_inner())
        }
        "alarm" => return alarm(&mut client, words).await,
        "errors" => {
            let status = client.maintenance.status(StatusRequest {}).await?.into_inner();
            let error = |e: &String| e.rsplit(':').next().unwrap_or_default().trim().to_owned();
            vec![format!("errors {:?}", status.errors.iter().map(error).collect::<Vec<_>>())]
        }
        "lock" => return lock(&mut client, words).await,
        "unlock" => {
            let r = client.lock.unlock(UnlockRequest { key: words.bytes() }).await?.into_inner();
            vec![show::header(&r.header)]
        }
        "campaign" | "proclaim" | "resign" | "leader" => return election(&mut client, name, words).await,
        other => panic!("no command {other:?}"),
    })
}

/// The present revision.
async fn now(client: &mut Client) -> Result<i64, Status> {
    let read = RangeRequest { key: "now".into(), ..RangeRequest::default() };
    Ok(client.kv.range(read).await?.into_inner().header.unwrap_or_default().revision)
}

/// Remaining seconds are a matter of time: whether they are there is told, and that they are not too many.
fn time_left(ttl: i64, granted: i64) -> String {
    match ttl {
        -1 => "ttl -1".to_owned(),
        ttl if (0..granted).contains(&ttl) || granted > 0 && ttl == granted => "ttl left".to_owned(),
        ttl => format!("ttl {ttl}"),
    }
}

/// `stream …` as `get`: the chunks are joined, because their sizes are no contract (KV-30).
async fn range_stream(client: &mut Client, words: &mut Words) -> Lines {
    let mut stream = client.kv.range_stream(parse::range(words)).await?.into_inner();
    let (mut kvs, mut last) = (Vec::new(), None);
    while let Some(chunk) = stream.message().await? {
        let response = chunk.range_response.ok_or_else(|| Status::internal("a chunk without a response"))?;
        if let Some(before) = last.replace(response.clone())
            && (before.header.is_some() || before.more || before.count != 0)
        {
            return Ok(vec![format!("a chunk before the last has more than pairs: {before:?}")]);
        }
        kvs.extend(response.kvs);
    }
    let mut whole = last.ok_or_else(|| Status::internal("no chunk"))?;
    whole.kvs = kvs;
    Ok(show::range(&whole))
}

/// `lock NAME [lease=]`; of a lease that the server granted its seconds are told, and not its id.
async fn lock(client: &mut Client, words: &mut Words) -> Lines {
    let lease = words.option_number("lease").unwrap_or(0);
    let r = client.lock.lock(LockRequest { name: words.bytes(), lease }).await?.into_inner();
    if lease != 0 {
        return Ok(vec![format!("{} {}", show::header(&r.header), show::bytes(&r.key))]);
    }
    let key = String::from_utf8(r.key.to_vec()).map_err(|e| Status::internal(e.to_string()))?;
    let (name, hex) = key.rsplit_once('/').ok_or_else(|| Status::internal(format!("a lock key {key}")))?;
    let id = i64::from_str_radix(hex, 16).map_err(|e| Status::internal(format!("{key}: {e}")))?;
    let granted = client.lease.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: false }).await?;
    let seconds = granted.into_inner().granted_ttl;
    Ok(vec![format!("{} {name}/ and a lease of {seconds} s", show::header(&r.header))])
}

/// `alarm get|activate|deactivate nospace|corrupt|none`, for the member itself.
async fn alarm(client: &mut Client, words: &mut Words) -> Lines {
    let member =
        client.maintenance.status(StatusRequest {}).await?.into_inner().header.unwrap_or_default().member_id;
    let action = match words.text().as_str() {
        "get" => 0,
        "activate" => 1,
        "deactivate" => 2,
        other => panic!("no alarm action {other}"),
    };
    let alarm = match words.text().as_str() {
        "none" => AlarmType::None,
        "nospace" => AlarmType::Nospace,
        "corrupt" => AlarmType::Corrupt,
        other => panic!("no alarm {other}"),
    };
    let request = AlarmRequest { action, member_id: member, alarm: alarm as i32 };
    let r = client.maintenance.alarm(request).await?.into_inner();
    let names = r.alarms.iter().map(|a| {
        let whose = if a.member_id == member { "own" } else { "another's" };
        format!("{whose} {}", a.alarm().as_str_name())
    });
    Ok(vec![format!("{} alarms {:?}", show::header(&r.header), names.collect::<Vec<_>>())])
}

/// `campaign NAME VALUE [lease=]`, `leader NAME`, and with the parts of a leader key
/// `proclaim NAME KEY REV LEASE VALUE` and `resign NAME KEY REV LEASE`, or the word `nobody`.
async fn election(client: &mut Client, command: &str, words: &mut Words) -> Lines {
    let lease = words.option_number("lease").unwrap_or(0);
    let key = |words: &mut Words| {
        let nobody = words.flag("nobody");
        (!nobody).then(|| LeaderKey {
            name: words.bytes(),
            key: words.bytes(),
            rev: words.number(),
            lease: words.number(),
        })
    };
    Ok(match command {
        "campaign" => {
            let request = CampaignRequest { name: words.bytes(), lease, value: words.bytes() };
            let r = client.election.campaign(request).await?.into_inner();
            let l = r.leader.unwrap_or_default();
            let (name, key) = (show::bytes(&l.name), show::bytes(&l.key));
            vec![format!("{} {name} {key} {} {}", show::header(&r.header), l.rev, l.lease)]
        }
        "proclaim" => {
            let request = ProclaimRequest { leader: key(words), value: words.bytes() };
            vec![show::header(&client.election.proclaim(request).await?.into_inner().header)]
        }
        "resign" => {
            let request = ResignRequest { leader: key(words) };
            vec![show::header(&client.election.resign(request).await?.into_inner().header)]
        }
        _ => leader(
            &client.election.leader(Request::new(LeaderRequest { name: words.bytes() })).await?.into_inner(),
        ),
    })
}

fn leader(r: &LeaderResponse) -> Vec<String> {
    let kv = r.kv.as_ref().map_or_else(|| "no pair".to_owned(), show::pair);
    vec![format!("{} {kv}", show::header(&r.header))]
}
