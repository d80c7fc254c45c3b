// SPDX-License-Identifier: Apache-2.0
//! The first bytes of a connection and all that follow: HTTP/2 frames, HTTP/1.1, or neither.
//!
//! Owns      a connection in memory, served as a listener serves it: the frame meter, then hyper with the daemon's
//!           settings.
//! Holds     a connection ends once its client has said all it has to say, whatever that was.
//! Never     reaches a method: each request is answered with its path's length.

use bytes::Bytes;
use cairn::{
    config::{Config, given::Given},
    front::Role,
    listen::{
        builder,
        meter::{Meter, Pings},
    },
};
use cairn_engine::fuzz::Target;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub const CONNECTION: Target = Target { name: "http2-preface", run, fix: |_| {}, samples, anchors: starts };

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// Of a clock that runs ahead while nobody has anything to do; longer than any limit of a connection.
const END: Duration = Duration::from_secs(300);

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| Config::new(&Given::default()).expect("flags by default are good").0);

fn run(input: &[u8]) -> bool {
    let answered = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (client, server) = tokio::io::duplex(1 << 16);
        let metered =
            Meter::new(server, Arc::default(), Pings::Apart(Duration::from_secs(5)), Some(Arc::default()));
        let service = service_fn(|request: Request<Incoming>| {
            let answered = answered.clone();
            async move {
                let len = request.uri().path().len();
                // A body that breaks off is the client's own end.
                request.into_body().collect().await.ok();
                answered.fetch_add(1, Relaxed);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(len.to_string()))))
            }
        });
        let builder = builder(&CONFIG, Role::Client);
        let connection = builder.serve_connection(TokioIo::new(metered), service);
        let (mut answers, mut out) = tokio::io::split(client);
        let talk = async {
            let read = async {
                let mut rest = [0; 4096];
                while answers.read(&mut rest).await.is_ok_and(|len| len > 0) {}
            };
            let write = async {
                // The server may be tired of it before its end.
                out.write_all(input).await.ok();
                // The clock stands until nobody has anything to do: then all that can be answered is.
                tokio::time::sleep(Duration::from_secs(1)).await;
                out.shutdown().await.ok();
            };
            tokio::join!(read, write);
        };
        // How it ends is the client's to choose; that it does is not.
        let both = tokio::time::timeout(END, async { tokio::join!(connection, talk) }).await;
        assert!(both.is_ok(), "a connection that never ends");
    });
    answered.load(Relaxed) > 0
}

/// Where frames begin.
fn starts(input: &[u8]) -> Vec<usize> {
    let mut found = vec![0];
    let mut at = PREFACE.len();
    while at + HEAD_BYTES <= input.len() && found.len() < 20 {
        found.push(at);
        at += HEAD_BYTES + u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]) as usize;
    }
    found
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [&head[..], payload].concat()
}

fn samples() -> Vec<Vec<u8>> {
    let field = |name: &str, value: &str| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    // 0x83 and 0x86 stand for `:method: POST` and `:scheme: http`, 4 for the name `:path`.
    let path = [&[4, 20][..], b"/etcdserverpb.KV/Put"].concat();
    let fields =
        [field(":authority", "a"), field("content-type", "application/grpc"), field("te", "trailers")];
    let call = [&[0x83, 0x86][..], &path, &fields.concat()].concat();
    let (data, headers, priority, reset, settings, ping, window) = (0, 1, 2, 3, 4, 6, 8);
    let begin = [PREFACE, &frame(settings, 0, 0, &[])].concat();
    let put = frame(data, 1, 1, &[0, 0, 0, 0, 3, 0x0a, 1, b'k']);
    let simple = [begin.clone(), frame(headers, 4, 1, &call), put.clone()].concat();
    let busy = [
        begin,
        frame(settings, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 1, 0, 0, 16, 0]),
        frame(settings, 1, 0, &[]),
        frame(window, 0, 0, &1000u32.to_be_bytes()),
        frame(ping, 0, 0, &[1; 8]),
        frame(headers, 0, 1, &call[..20]),
        frame(9, 4, 1, &call[20..]),
        put,
        frame(headers, 4, 3, &call),
        frame(priority, 0, 3, &[0, 0, 0, 1, 7]),
        frame(data, 8, 3, &[2, 0, 0, 0, 0]),
        frame(reset, 0, 3, &8u32.to_be_bytes()),
        frame(headers, 5, 5, &call),
    ]
    .concat();
    let plain =
        b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
        GET /version HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    vec![simple, busy, plain.to_vec()]
}
