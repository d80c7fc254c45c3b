// SPDX-License-Identifier: Apache-2.0
//! The support library against the reference: it starts, answers, survives a restart, and ends.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use cairn_proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use cairn_tests::server::{Program, Server, anonymous_memory};
use cairn_tests::tools;

#[tokio::test]
async fn the_reference_is_etcd_3_5_1_and_keeps_its_data_over_a_restart() {
    let Some(etcd) = tools::etcd() else { return };
    let mut server = Server::start(Program::etcd(&etcd)).await;
    let mut client = server.client().await;
    let status = client.maintenance.status(StatusRequest {}).await.expect("status").into_inner();
    assert_eq!(status.version, "3.5.1");
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    client.kv.put(put).await.expect("put");
    assert!(anonymous_memory(server.pid()) > 1 << 20);

    let ended = server.stop().await;
    assert_eq!(ended.signal(), Some(15), "etcd ends by the signal it was sent");
    server.restart().await;
    let mut client = server.client().await;
    let get = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let got = client.kv.range(get).await.expect("get").into_inner();
    assert_eq!(got.kvs[0].value, "v");
    server.kill();
}

#[tokio::test]
async fn a_server_whose_port_is_held_for_a_moment_starts_again() {
    let mut server = Server::start(Program::cairn()).await;
    let address = server.url().strip_prefix("http://").expect("a plain URL").to_owned();
    let log = server.data_dir().with_file_name("log");
    server.kill();
    let held = TcpListener::bind(address).expect("nobody listens any more");
    let refused = async {
        while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("address already in use")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(held);
    };
    tokio::join!(server.restart(), refused);
    server.client().await;
    server.kill();
}
