// SPDX-License-Identifier: Apache-2.0
//! gofail's HTTP: `GET /` lists `name=terms`, `GET /name` and `GET /name/count` tell of one point, `PUT /name` sets what its body
//! says, `PUT /failpoints` several at once, `DELETE /name` clears.
//!
//! Owns      the listener, and a thread of its own: it answers whatever the others wait for.
//! Holds     1. statuses and texts are gofail's;
//!           2. a term that ends the process does so after the answer to whoever set it has left.
//! Never     keeps a connection: each has one request.

use super::{set, set_all};
use cairn_engine::failpoints::{self, Missing};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, io, time::Duration};
use tokio::{net::TcpListener, runtime::Builder, time::timeout};

const TERMS_BYTES_MAX: usize = 64 << 10;
/// For one request and its answer: the next one waits, and so does a term that ends the process.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;

/// Listens at `address`, from now on until the process ends.
///
/// # Errors
/// If it cannot.
pub fn serve(address: &str) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _guard = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serving = move || runtime.block_on(answer_all(listener));
    std::thread::Builder::new().name("failpoints".to_owned()).spawn(serving).map(drop)
}

async fn answer_all(listener: TcpListener) {
    loop {
        // One that has gone again is no failure.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = service_fn(async |request| Ok::<_, Infallible>(answer(request).await));
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        let held = failpoints::ends_wait();
        // Who is late or breaks off has no answer.
        timeout(PATIENCE, connection).await.ok();
        drop(held);
    }
}

async fn answer(request: Request<Incoming>) -> Answer {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let Some(name) = path.strip_prefix('/').map(str::to_owned) else {
        return error(StatusCode::BAD_REQUEST, "malformed request URI");
    };
    match *request.method() {
        Method::PUT => match Limited::new(request.into_body(), TERMS_BYTES_MAX).collect().await {
            Ok(body) => put(&name, &String::from_utf8_lossy(&body.to_bytes())),
            Err(_) => error(StatusCode::BAD_REQUEST, "failed ReadAll in PUT"),
        },
        Method::GET if name.is_empty() => ok(list()),
        Method::GET => match name.strip_suffix("/count") {
            Some(name) => count(name),
            None => terms(&name),
        },
        Method::DELETE => match failpoints::clear(&name) {
            Ok(()) => no_content(),
            Err(missing) => error(StatusCode::BAD_REQUEST, &format!("failed to delete failpoint {missing}")),
        },
        _ => {
            let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
            let methods = header::HeaderValue::from_static("DELETE, GET, PUT");
            refused.headers_mut().insert(header::ALLOW, methods);
            refused
        }
    }
}

fn put(name: &str, body: &str) -> Answer {
    let done = if name.eq_ignore_ascii_case("failpoints") {
        set_all(body)
    } else {
        set(name, body).map_err(|refused| format!("fail to set failpoint: {refused}"))
    };
    done.map_or_else(|text| error(StatusCode::BAD_REQUEST, &text), |()| no_content())
}

fn list() -> String {
    let line = |name: &&str| format!("{name}={}\n", failpoints::terms(name).unwrap_or_default().0);
    failpoints::ALL.iter().map(line).collect()
}

fn terms(name: &str) -> Answer {
    match failpoints::terms(name) {
        Ok((terms, _)) => ok(format!("{terms}\n")),
        // And the terms that it does not have, on a line of their own.
        Err(missing) => error(StatusCode::NOT_FOUND, &format!("failed to GET: {missing}\n")),
    }
}

fn count(name: &str) -> Answer {
    match failpoints::terms(name) {
        Ok((_, count)) => ok(count.to_string()),
        Err(missing) => {
            let unknown = missing == Missing::Point;
            let status = if unknown { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
            error(status, &format!("failed to GET: {missing}"))
        }
    }
}

fn ok(text: String) -> Answer {
    Response::new(Full::from(text))
}

fn no_content() -> Answer {
    let mut answer = ok(String::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn error(status: StatusCode, text: &str) -> Answer {
    let mut answer = ok(format!("{text}\n"));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}
