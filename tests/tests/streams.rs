// SPDX-License-Identifier: Apache-2.0
//! Many streams, many watchers, and readers that are slow.

use cairn_proto::etcdserverpb::watch_request::RequestUnion;
use cairn_proto::etcdserverpb::{
    CompactionRequest, PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use cairn_tests::client::Client;
use cairn_tests::server::{Program, Server};
use cairn_tests::tools;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

/// Streams on one connection, and watchers on one stream.
const MANY: usize = 2_000;

/// rule: LIMIT-14
#[tokio::test]
async fn a_connection_takes_many_streams_and_a_stream_many_watchers() {
    each(async |client| {
        let mut streams = Vec::new();
        for n in 0..MANY {
            let mut stream = Watch::open(&client).await;
            stream.create(WatchCreateRequest { key: format!("k{n}").into(), ..Default::default() }).await;
            streams.push(stream);
        }
        let mut crowded = Watch::open(&client).await;
        for n in 0..MANY {
            crowded.create(WatchCreateRequest { key: format!("k{n}").into(), ..Default::default() }).await;
        }
        for n in [0, MANY / 2, MANY - 1] {
            put(&client, format!("k{n}"), 1).await;
            assert_eq!(streams[n].next().await.events.len(), 1);
            assert_eq!(crowded.next().await.watch_id, n as i64);
        }
    })
    .await;
}

/// Puts that a reader is behind; with their values more than any buffer on the way holds.
const BEHIND: usize = 3_000;
const VALUE: usize = 20_000;

/// rule: WATCH-21, WATCH-42
#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    each(async |client| {
        let mut slow = Watch::open(&client).await;
        slow.create(WatchCreateRequest { key: "k".into(), ..Default::default() }).await;
        for _ in 0..BEHIND {
            put(&client, "k".to_owned(), VALUE).await;
        }
        let mut next = 2;
        while next < 2 + BEHIND as i64 {
            for event in slow.next().await.events {
                assert_eq!(event.kv.expect("an event has its pair").mod_revision, next);
                next += 1;
            }
        }
    })
    .await;
}

/// What was not yet sent when the compaction came is told as a cancel, and nothing is skipped before it.
///
/// rule: WATCH-21, WATCH-42
#[tokio::test]
async fn a_slow_reader_overtaken_by_a_compaction_is_told() {
    each(async |client| {
        let mut slow = Watch::open(&client).await;
        slow.create(WatchCreateRequest { key: "k".into(), ..Default::default() }).await;
        for _ in 0..BEHIND {
            put(&client, "k".to_owned(), VALUE).await;
        }
        let compacted = 1 + BEHIND as i64;
        let compact = CompactionRequest { revision: compacted, physical: true };
        client.clone().kv.compact(compact).await.expect("a compaction of what is there");
        put(&client, "k".to_owned(), 1).await;
        let mut next = 2;
        loop {
            let response = slow.next().await;
            if response.canceled {
                assert_eq!((response.compact_revision, response.events.len()), (compacted, 0));
                assert!(next < compacted, "it had everything up to {next}");
                break;
            }
            for event in response.events {
                assert_eq!(event.kv.expect("an event has its pair").mod_revision, next);
                next += 1;
            }
            assert!(next <= compacted, "all was delivered: the reader was not behind");
        }
    })
    .await;
}

/// Runs the same against Cairn, and against the reference where it can be had.
async fn each(test: impl AsyncFn(Client)) {
    if let Some(etcd) = tools::etcd() {
        let server = Server::start(Program::etcd(&etcd)).await;
        test(server.client().await).await;
    }
    let server = Server::start(Program::cairn()).await;
    test(server.client().await).await;
}

async fn put(client: &Client, key: String, bytes: usize) {
    let put = PutRequest { key: key.into(), value: vec![b'x'; bytes].into(), ..PutRequest::default() };
    client.clone().kv.put(put).await.expect("a put");
}

struct Watch {
    requests: mpsc::UnboundedSender<WatchRequest>,
    client: Client,
    /// Opened with the first creation: etcd answers a call only with its first message.
    opened: Option<Streaming<WatchResponse>>,
    receiver: Option<mpsc::UnboundedReceiver<WatchRequest>>,
}

impl Watch {
    async fn open(client: &Client) -> Watch {
        let (requests, receiver) = mpsc::unbounded_channel();
        Watch { requests, client: client.clone(), opened: None, receiver: Some(receiver) }
    }

    async fn create(&mut self, create: WatchCreateRequest) {
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        self.requests.send(request).expect("the stream is open");
        if let Some(receiver) = self.receiver.take() {
            let call = self.client.watch.watch(UnboundedReceiverStream::new(receiver)).await;
            self.opened = Some(call.expect("a stream").into_inner());
        }
        assert!(self.next().await.created);
    }

    async fn next(&mut self) -> WatchResponse {
        let stream = self.opened.as_mut().expect("a watcher was created");
        stream.message().await.expect("the stream goes on").expect("the stream goes on")
    }
}
