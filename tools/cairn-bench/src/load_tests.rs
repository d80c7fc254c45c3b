// SPDX-License-Identifier: Apache-2.0
//! Loads against a small server in this process, which answers as each test wants.

use super::*;
use bytes::Bytes;
use cairn_proto::etcdserverpb::{PutResponse, ResponseHeader};
use prost::Message;
use tokio::net::TcpListener;

/// What the server does with its `n`th request, from 0.
#[derive(Clone, Copy)]
enum Conduct {
    /// Answers, in two pieces.
    Answer,
    /// Answers every fourth with a status in the head alone.
    RefuseEachFourth,
    /// Closes the connection instead of answering its 100th request.
    CloseAtHundred,
}

async fn serve(conduct: Conduct) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection(socket, conduct));
        }
    });
    Endpoint::local(port)
}

async fn connection(socket: tokio::net::TcpStream, conduct: Conduct) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(socket).await?;
    let mut seen = 0;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        match conduct {
            Conduct::CloseAtHundred if seen == 100 => return Ok(()),
            Conduct::RefuseEachFourth if seen % 4 == 3 => {
                let head = http::Response::builder()
                    .header("grpc-status", "8")
                    .header("grpc-message", "etcdserver: too many requests");
                respond.send_response(head.body(()).expect("the head is well formed"), true)?;
            }
            _ => {
                let mut body = respond.send_response(http::Response::new(()), false)?;
                let frame = put_answer();
                body.send_data(frame.slice(..7), false)?;
                body.send_data(frame.slice(7..), false)?;
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                body.send_trailers(trailers)?;
            }
        }
        seen += 1;
    }
    Ok(())
}

fn put_answer() -> Bytes {
    let header = ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    let message = PutResponse { header: Some(header), prev_kv: None }.encode_to_vec();
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).expect("it is short")];
    frame.extend(message);
    Bytes::from(frame)
}

async fn put_each_key_once(conduct: Conduct, connections: usize) -> Measured {
    let load = Load {
        endpoints: vec![serve(conduct).await],
        connections,
        in_flight: 8,
        mix: vec![(Operation::Put, 1)],
        shape: Shape { keys: 1000, key_bytes: 32, value_bytes: 256, limit: 0 },
        span: Span::EachKeyOnce,
        rate: None,
        pids: vec![std::process::id()],
    };
    run(&load, &mut Progress::new()).await.expect("the server listens")
}

#[tokio::test]
async fn each_key_is_put_once_and_each_answer_is_counted() {
    let measured = put_each_key_once(Conduct::Answer, 2).await;
    assert_eq!((measured.answered(), measured.failures), (1000, Failures::default()));
    assert!(measured.series[&Operation::Put].quantile(0.5) > Duration::ZERO);
    assert!(measured.server_cpu.is_some());
}

#[tokio::test]
async fn a_refused_request_is_counted_with_the_servers_words_and_has_no_latency() {
    let measured = put_each_key_once(Conduct::RefuseEachFourth, 1).await;
    assert_eq!(measured.failures.reasons["grpc-status 8: etcdserver: too many requests"], 250);
    assert_eq!((measured.answered(), measured.failures.count), (750, 250));
}

#[tokio::test]
async fn a_lost_connection_ends_its_workers_and_each_request_under_way_is_a_failure() {
    let measured = put_each_key_once(Conduct::CloseAtHundred, 2).await;
    // Each of two connections answers a hundred, and may lose those that it had not written out.
    assert!((184..=200).contains(&measured.answered()), "{} answers", measured.answered());
    assert_eq!(measured.failures.count, 8, "one for each request in flight: {:?}", measured.failures);
}

#[tokio::test]
async fn a_rate_is_kept_and_a_mix_is_drawn_by_weight() {
    let load = Load {
        endpoints: vec![serve(Conduct::Answer).await],
        connections: 1,
        in_flight: 4,
        // Counts want no pair, so the one answer of this server is right for both.
        mix: vec![(Operation::Count, 3), (Operation::Put, 1)],
        shape: Shape { keys: 10, key_bytes: 32, value_bytes: 1, limit: 0 },
        span: Span::Window { warmup: Duration::ZERO, length: Duration::from_millis(500) },
        rate: Some(1000.0),
        pids: Vec::new(),
    };
    let measured = run(&load, &mut Progress::new()).await.expect("the server listens");
    let due = (measured.elapsed.as_secs_f64() * 1000.0) as u64 + 1;
    assert!(measured.answered() + measured.unsent <= due, "{} of {due}", measured.answered());
    assert!(measured.answered() > 0 && measured.failures.count == 0);
    let counts = measured.series[&Operation::Count].count();
    assert!(counts > measured.series[&Operation::Put].count(), "{counts} of {}", measured.answered());
}

#[tokio::test]
async fn a_load_that_ends_at_a_sign_counts_until_then() {
    let done = Arc::new(AtomicBool::new(false));
    let load = Load {
        endpoints: vec![serve(Conduct::Answer).await],
        connections: 1,
        in_flight: 2,
        mix: vec![(Operation::Put, 1)],
        shape: Shape { keys: 10, key_bytes: 32, value_bytes: 1, limit: 0 },
        span: Span::Until(Arc::clone(&done)),
        rate: None,
        // One process that counts twice, as two members would.
        pids: vec![std::process::id(); 2],
    };
    let mut progress = Progress::new();
    let sign = async {
        tokio::time::sleep(2 * TICK).await;
        done.store(true, Ordering::Relaxed);
    };
    let (measured, ()) = tokio::join!(run(&load, &mut progress), sign);
    let measured = measured.expect("the server listens");
    assert!(measured.elapsed >= 2 * TICK && measured.answered() > 0, "{measured:?}");
    assert_eq!(measured.failures, Failures::default());
    let (server, client) = (measured.server_cpu.expect("its processes are known"), measured.client_cpu);
    assert!(server > client, "{server:?} of two is more than {client:?} of one");
}
