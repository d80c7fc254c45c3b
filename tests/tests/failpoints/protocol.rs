// SPDX-License-Identifier: Apache-2.0
//! What is answered to those who set failpoints, and what their terms do.

use std::time::{Duration, Instant};

use cairn_proto::etcdserverpb::{DefragmentRequest, PutRequest};
use cairn_tests::failpoints::{Failpoints, PANICKED, Told, table};
use cairn_tests::server::{Program, Server};

/// Reached once by each put.
const EACH_PUT: &str = "beforeApplyOneEntryNormal";

async fn started() -> (Server, Failpoints) {
    let mut server = Server::idle(Program::cairn_next());
    let points = server.serve_failpoints();
    Server::found_cluster(std::slice::from_mut(&mut server)).await;
    (server, points)
}

async fn put(server: &Server) {
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    server.client().await.kv.put(put).await.expect("written");
}

async fn told(points: &Failpoints, method: &str, path: &str, body: &str) -> Told {
    points.ask(method, path, body).await.expect("an answer")
}

// rule: E2-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoints_are_listed_set_and_cleared_as_those_of_etcd() {
    let (server, points) = started().await;
    let all = |set: (&str, &str)| {
        let rows = table().into_iter().filter(|row| row.is_there);
        let line = |name: &str| format!("{name}={}\n", if name == set.0 { set.1 } else { "" });
        rows.map(|row| line(&row.name)).collect::<String>()
    };
    let list = told(&points, "GET", "/", "").await;
    assert_eq!((list.status, list.body), (200, all(("", ""))));

    let none = "failpoint: failpoint does not exist";
    let off = "failpoint: failpoint is disabled";
    let terms = |why: &str| format!("fail to set failpoint: failpoint: could not parse terms: {why}\n");
    for (method, path, body, status, text) in [
        ("GET", "/walBeforeSync", "", 404, format!("failed to GET: {off}\n\n")),
        ("GET", "/walBeforeSync/count", "", 500, format!("failed to GET: {off}\n")),
        ("DELETE", "/walBeforeSync", "", 400, format!("failed to delete failpoint {off}\n")),
        ("PUT", "/walBeforeSync", "sleep(1)", 204, String::new()),
        ("GET", "/walBeforeSync", "", 200, "sleep(1)\n".to_owned()),
        ("PUT", "/walBeforeSync", "5*off->sleep(\"1ms\")", 204, String::new()),
        ("GET", "/walBeforeSync", "", 200, "5*off->sleep(\"1ms\")\n".to_owned()),
        // What is refused changes nothing.
        (
            "PUT",
            "/walBeforeSync",
            "",
            400,
            terms("\"\" begins with none of off, return, sleep, panic, print"),
        ),
        ("GET", "/walBeforeSync", "", 200, "5*off->sleep(\"1ms\")\n".to_owned()),
        ("DELETE", "/walBeforeSync", "", 204, String::new()),
        ("GET", "/nothing", "", 404, format!("failed to GET: {none}\n\n")),
        ("GET", "/nothing/count", "", 404, format!("failed to GET: {none}\n")),
        ("PUT", "/nothing", "off", 400, format!("fail to set failpoint: {none}\n")),
        ("PUT", "/commitBeforePreCommitHook", "off", 400, format!("fail to set failpoint: {none}\n")),
        ("DELETE", "/nothing", "", 400, format!("failed to delete failpoint {none}\n")),
        ("PUT", "/failpoints", "walAfterSync=off;walBeforeSync=1*off", 204, String::new()),
        ("GET", "/walAfterSync", "", 200, "off\n".to_owned()),
        ("GET", "/walBeforeSync", "", 200, "1*off\n".to_owned()),
        ("DELETE", "/walAfterSync", "", 204, String::new()),
        ("PUT", "/failpoints", "a=b=c", 400, "fail to parse failpoint: bad failpoint \"a=b=c\"\n".to_owned()),
        ("POST", "/walBeforeSync", "off", 405, "Method not allowed\n".to_owned()),
    ] {
        let told = told(&points, method, path, body).await;
        assert_eq!((told.status, told.body), (status, text), "{method} {path} {body:?}");
        assert_eq!(told.head.contains("allow: delete, get, put"), status == 405, "{}", told.head);
    }
    let list = told(&points, "GET", "/", "").await;
    assert_eq!(list.body, all(("walBeforeSync", "1*off")));
    drop(server);
}

// rule: E2-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_of_a_failpoint_do_what_gofail_has_them_do_or_are_refused() {
    let (mut server, points) = started().await;
    for good in [
        "off",
        "return",
        "return()",
        "return(7)",
        "return(-7)",
        "return(true)",
        "return(\"a)->\\\"b\\\\\")",
        "sleep(7)",
        "sleep(\"1m0.5s\")",
        "panic",
        "panic(\"now\")",
        "print",
        "7*print",
        "50%print",
        "0.5%7*sleep(1)",
        "1*off->0.0%panic->2*print",
    ] {
        // A point that this member does not come to.
        assert_eq!(told(&points, "PUT", "/raftAfterSaveSnap", good).await.status, 204, "{good}");
        assert_eq!(told(&points, "GET", "/raftAfterSaveSnap", "").await.body, format!("{good}\n"));
    }
    for bad in [
        "frob",
        "off->",
        "->off",
        "off off",
        " off",
        "sleep",
        "sleep()",
        "sleep(true)",
        "sleep(\"long\")",
        "sleep(-1)",
        "return(a)",
        "return(\"a",
        "return(\"a\"",
        "return(\"\\x\")",
        "7",
        "7*",
        "%off",
        "1.5*off",
        "2*50%off",
        "1*2*off",
        "1%2%off",
        "break",
    ] {
        let told = told(&points, "PUT", "/raftAfterSaveSnap", bad).await;
        let refused = told.body.starts_with("fail to set failpoint: failpoint: could not parse terms: ");
        assert!(told.status == 400 && refused, "{bad}: {told:?}");
    }

    // A count, a chance that never comes, and what is behind both.
    points.set(EACH_PUT, "0.0%panic->2*print->off").await;
    for _ in 0..4 {
        put(&server).await;
    }
    // A member has requests of its own, too.
    assert!(points.count(EACH_PUT).await >= 4);
    assert_eq!(server.log().matches(&format!("failpoint print: {EACH_PUT}")).count(), 2);
    let pause = Duration::from_millis(300);
    for terms in ["sleep(300)", "sleep(\"0.3s\")"] {
        points.set(EACH_PUT, terms).await;
        let begin = Instant::now();
        put(&server).await;
        assert!(begin.elapsed() >= pause, "{terms}");
        points.clear(EACH_PUT).await;
    }

    for point in ["defragOpenFileError", "defragdbFail"] {
        points.set(point, "1*return(\"no space left in this test\")").await;
        let mut maintenance = server.client().await.maintenance;
        let failed = maintenance.defragment(DefragmentRequest {}).await.expect_err("it is to fail");
        assert!(failed.message().contains("no space left in this test"), "{point}: {failed}");
        maintenance.defragment(DefragmentRequest {}).await.expect("once");
    }

    // Who set it has an answer, though the point is reached all the time.
    points.set("raftBeforeAdvance", "panic(\"that will do\")").await;
    let status = server.ended().await;
    assert_eq!(status.code(), Some(PANICKED));
    assert!(server.log().contains("failpoint panic: that will do"), "{}", server.log());
}

// rule: E2-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoints_of_the_environment_are_set_from_the_start_or_refused_in_a_line() {
    let (mut server, points) = started().await;
    server.stop().await;
    server.set_env("GOFAIL_FAILPOINTS", Some("beforePublishing=print;walBeforeSync=1*off;"));
    server.restart().await;
    assert!(server.log().contains("failpoint print: beforePublishing"), "{}", server.log());
    assert_eq!(told(&points, "GET", "/walBeforeSync", "").await.body, "1*off\n");
    server.stop().await;
    for (wrong, why) in [
        ("nothing=off", "fail to set failpoint: failpoint: failpoint does not exist"),
        ("walBeforeSync=of", "fail to set failpoint: failpoint: could not parse terms: "),
        ("walBeforeSync", "fail to parse failpoint: bad failpoint"),
    ] {
        let said = server.log().len();
        server.set_env("GOFAIL_FAILPOINTS", Some(wrong));
        server.begin();
        assert!(!server.ended().await.success(), "{wrong}");
        assert!(server.log()[said..].contains(why), "{wrong}: {}", server.log());
    }
}
