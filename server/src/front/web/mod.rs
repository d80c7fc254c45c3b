// SPDX-License-Identifier: Apache-2.0
//! The plain HTTP paths of the client, metrics and peer listeners.
//!
//! Owns      which listener answers which path (`tests/rules/http.md`), the host check, CORS, and the form
//!           of errors.
//! Holds     paths are exact; the checks in front of the client's paths cover all of them.
//! Never     reads a request's body.

pub mod health;

use super::{Front, Role, body::Body};
use crate::{
    ETCD_VERSION,
    member::peers::members::{CLUSTER_ID, MEMBERS, records},
};
use cairn_core::Version;
use cairn_proto::etcdserverpb::MemberListRequest;
use health::STARTING;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::json;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JSON_UTF8: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const METRICS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// gRPC's code Unimplemented in the form of the gateway's errors.
const GATEWAY_MISSING: &str = "{\"code\":12,\"message\":\"the JSON gateway is not there yet: use gRPC\"}";

/// Serves one request.
pub async fn serve<B>(front: &Front, role: Role, request: Request<B>) -> Response<Body> {
    if !role.serves_client_http() {
        return route(front, role, &request).await;
    }
    if let Some(refused) = check_host(front, &request) {
        return refused;
    }
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::empty())
    } else {
        route(front, role, &request).await
    };
    add_cors(front, &request, &mut response);
    response
}

async fn route<B>(front: &Front, role: Role, request: &Request<B>) -> Response<Body> {
    let client = role.serves_client_http();
    let (health, version, peer) =
        (client || role == Role::Metrics, client || role == Role::Peer, role == Role::Peer);
    let path = request.uri().path();
    match path {
        "/health" if health => match only_get(request) {
            Some(refused) => refused,
            None => health::health(front, request.uri().query()).await,
        },
        _ if health && health::is_check(path) => match only_get(request) {
            Some(refused) => refused,
            None => health::checks(front, path, request.uri().query()).await,
        },
        "/metrics" if health => {
            let status = front.member().map(|member| member.status());
            answer(StatusCode::OK, METRICS, front.metrics.render(&front.config, status.as_ref()))
        }
        "/version" if version => only_get(request).unwrap_or_else(|| version_of(front)),
        "/debug/vars" if client => only_get(request).unwrap_or_else(|| variables(front)),
        MEMBERS if peer => match only_get(request) {
            Some(refused) => refused,
            None => members(front).await,
        },
        "/downgrade/enabled" if peer => match only_get(request) {
            Some(refused) => refused,
            None => downgrade_enabled(front).await,
        },
        _ if client && front.config.gateway && (path.starts_with("/v3/") || path.starts_with("/v3beta/")) => {
            answer(StatusCode::NOT_IMPLEMENTED, JSON, GATEWAY_MISSING)
        }
        _ => not_found(),
    }
}

/// The answer to a wrong method, if it is one.
fn only_get<B>(request: &Request<B>) -> Option<Response<Body>> {
    (request.method() != Method::GET).then(|| {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        response
    })
}

/// VE-1, HT-7.
fn version_of(front: &Front) -> Response<Body> {
    let status = front.running().map(|member| member.status());
    let told = |version: Option<Version>, none: &str| version.map_or(none.to_owned(), |v| v.to_string());
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{}\",\"storage\":\"{}\"}}",
        told(status.as_ref().and_then(|status| status.cluster_version), "not_decided"),
        told(status.as_ref().and_then(|status| status.storage_version), "unknown"),
    );
    answer(StatusCode::OK, JSON, body)
}

/// What of etcd's variables has a counterpart.
fn variables(front: &Front) -> Response<Body> {
    let mut variables = json!({
        "cmdline": [std::env::args().next().unwrap_or_default()],
        "file_descriptor_limit": crate::metrics::descriptor_limit(),
    });
    if let Some(member) = front.member() {
        let status = member.status();
        variables["raft.status"] = json!({
            "id": status.member_id.to_string(),
            "term": status.raft_term,
            "vote": status.member_id.to_string(),
            "commit": status.committed_index,
            "lead": format!("{:x}", status.leader),
            "raftState": if status.is_leader { "StateLeader" } else { "StateFollower" },
            "applied": status.applied_index,
            "progress": {},
            "leadtransferee": "0",
        });
    }
    answer(StatusCode::OK, JSON_UTF8, format!("{variables:#}\n"))
}

/// What a member that does not run yet answers its peers.
pub fn starting() -> Response<Body> {
    error(StatusCode::SERVICE_UNAVAILABLE, STARTING)
}

/// CL-15: what the cluster knows of its members, in the order of their ids.
async fn members(front: &Front) -> Response<Body> {
    let Some(member) = front.running() else { return starting() };
    let list = match member.member_list(MemberListRequest { linearizable: false }).await {
        Ok(list) => list.members,
        Err(refusal) => return error(StatusCode::INTERNAL_SERVER_ERROR, refusal.text),
    };
    let mut response = answer(StatusCode::OK, JSON, format!("{}\n", records(list)));
    add_cluster_id(&mut response, member.cluster_id());
    response
}

async fn downgrade_enabled(front: &Front) -> Response<Body> {
    let Some(member) = front.running() else { return starting() };
    let mut response = match member.linearize().await {
        Ok(()) => {
            let enabled = if member.is_downgraded() { "true" } else { "false" };
            answer(StatusCode::OK, HeaderValue::from_static("text/plain"), enabled)
        }
        Err(refusal) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed linearized read: {refusal}"))
        }
    };
    add_cluster_id(&mut response, member.cluster_id());
    response
}

fn add_cluster_id(response: &mut Response<Body>, id: cairn_core::ClusterId) {
    let value = HeaderValue::from_str(&id.to_string()).expect("hex digits");
    response.headers_mut().insert(CLUSTER_ID, value);
}

/// HT-6: the `Host` of a plain request, without its port, must be listed.
fn check_host<B>(front: &Front, request: &Request<B>) -> Option<Response<Body>> {
    let host = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().unwrap_or(""),
        None => request.uri().authority().map_or("", |authority| authority.as_str()),
    };
    let bare = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(bare, _)| bare),
    };
    (!front.config.hosts.allows(bare)).then(|| {
        front.log.warn("rejecting HTTP request from untrusted host", &[("host", host.into())]);
        let text = format!(
            "\netcd received your request, but the Host header was unrecognized.\n\nTo fix this, choose one of \
             the following options:\n- Enable TLS, then any HTTPS request will be allowed.\n- Add the hostname \
             you want to use to the whitelist in settings.\n  - e.g. etcd --host-whitelist {bare:?}\n"
        );
        error(StatusCode::MISDIRECTED_REQUEST, &text)
    })
}

fn add_cors<B>(front: &Front, request: &Request<B>, response: &mut Response<Body>) {
    let origin = match &front.config.cors {
        crate::config::AllowList::Any => HeaderValue::from_static("*"),
        list => match request.headers().get(header::ORIGIN) {
            Some(origin) if origin.to_str().is_ok_and(|origin| list.allows(origin)) => origin.clone(),
            _ => return,
        },
    };
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    );
}

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::plain(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// As Go's `http.Error`: the text and a newline.
fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = answer(status, TEXT, format!("{text}\n"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}
