// SPDX-License-Identifier: Apache-2.0
//! Calls by method: begun, ended by code, messages in and out.
//!
//! Owns      a row of counters for each method of the table.
//! Holds     the labels stand in the order in which go-grpc-prometheus writes them.
//! Never     grows with what clients send, but for a bounded number of client versions.

use super::{Counter, Histogram, text::Text};
use crate::front::grpc::status::CODES;
use cairn_proto::methods::{self, Kind, Method};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Client versions that are told apart; a client sends what it likes.
const CLIENT_VERSIONS_MAX: usize = 64;
const UNKNOWN_VERSION: &str = "unknown";
const HANDLING_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub struct GrpcMetrics {
    /// In the order of `methods::ALL`.
    rows: Vec<Row>,
    /// Unary and streaming calls of clients that tell no version.
    unversioned: [Counter; 2],
    versioned: RwLock<BTreeMap<Box<str>, Arc<[Counter; 2]>>>,
}

#[derive(Default)]
struct Row {
    started: Counter,
    handled: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
    seconds: Option<Histogram>,
}

impl GrpcMetrics {
    pub fn new(extensive: bool) -> GrpcMetrics {
        let row = |_| Row { seconds: extensive.then(|| Histogram::new(HANDLING_SECONDS)), ..Row::default() };
        GrpcMetrics {
            rows: methods::ALL.iter().map(row).collect(),
            unversioned: Default::default(),
            versioned: RwLock::default(),
        }
    }

    pub fn started(&self, method: usize) {
        self.rows[method].started.add(1);
    }

    pub fn handled(&self, method: usize, code: u32, took: Duration) {
        let row = &self.rows[method];
        row.handled[code as usize].add(1);
        if let Some(seconds) = &row.seconds {
            seconds.observe(took.as_secs_f64());
        }
    }

    pub fn received(&self, method: usize) {
        self.rows[method].received.add(1);
    }

    pub fn sent(&self, method: usize) {
        self.rows[method].sent.add(1);
    }

    /// One call of a client that told this version.
    pub fn client_request(&self, unary: bool, version: Option<&str>) {
        let place = usize::from(!unary);
        let Some(version) = version else {
            return self.unversioned[place].add(1);
        };
        if let Some(counters) = self.versioned.read().unwrap_or_else(PoisonError::into_inner).get(version) {
            return counters[place].add(1);
        }
        let mut versioned = self.versioned.write().unwrap_or_else(PoisonError::into_inner);
        if versioned.len() >= CLIENT_VERSIONS_MAX && !versioned.contains_key(version) {
            return self.unversioned[place].add(1);
        }
        versioned.entry(version.into()).or_default()[place].add(1);
    }

    pub fn render(&self, text: &mut Text) {
        self.render_clients(text);
        let rows = || methods::ALL.iter().zip(&self.rows).filter(|(method, row)| is_shown(method, row));
        text.family("grpc_server_started_total", "counter", "Calls begun.");
        for (method, row) in rows() {
            text.sample("grpc_server_started_total", &labels(method), row.started.get());
        }
        text.family("grpc_server_handled_total", "counter", "Calls ended, by code.");
        for (method, row) in rows() {
            for (code, counter) in CODES.iter().zip(&row.handled) {
                let [kind, service, name] = labels(method);
                let labels = [("grpc_code", *code), name, service, kind];
                text.sample("grpc_server_handled_total", &labels, counter.get());
            }
        }
        text.family("grpc_server_msg_received_total", "counter", "Messages received.");
        for (method, row) in rows() {
            text.sample("grpc_server_msg_received_total", &labels(method), row.received.get());
        }
        text.family("grpc_server_msg_sent_total", "counter", "Messages sent.");
        for (method, row) in rows() {
            text.sample("grpc_server_msg_sent_total", &labels(method), row.sent.get());
        }
        if self.rows.iter().any(|row| row.seconds.is_some()) {
            text.family("grpc_server_handling_seconds", "histogram", "Time of calls.");
            for (method, row) in rows() {
                let seconds = row.seconds.as_ref().expect("all rows have one or none has");
                text.buckets("grpc_server_handling_seconds", &labels(method), seconds);
            }
        }
    }

    fn render_clients(&self, text: &mut Text) {
        let versioned = self.versioned.read().unwrap_or_else(PoisonError::into_inner);
        let known = versioned.iter().map(|(version, counters)| (&**version, &**counters));
        let mut samples = Vec::new();
        for (version, counters) in known.chain([(UNKNOWN_VERSION, &self.unversioned)]) {
            for (kind, counter) in ["unary", "stream"].into_iter().zip(counters) {
                if counter.get() > 0 {
                    samples.push((kind, version, counter.get()));
                }
            }
        }
        if samples.is_empty() {
            return;
        }
        text.family("etcd_server_client_requests_total", "counter", "Calls by the client's version.");
        for (kind, version, count) in samples {
            let labels = [("type", kind), ("client_api_version", version)];
            text.sample("etcd_server_client_requests_total", &labels, count);
        }
    }
}

/// Those of Lock and Election appear on first use.
fn is_shown(method: &Method, row: &Row) -> bool {
    !matches!(method.service(), "v3lockpb.Lock" | "v3electionpb.Election") || row.started.get() > 0
}

fn labels(method: &Method) -> [(&'static str, &'static str); 3] {
    let kind = match method.kind {
        Kind::Unary => "unary",
        Kind::ServerStream => "server_stream",
        Kind::BidiStream => "bidi_stream",
    };
    [("grpc_type", kind), ("grpc_service", method.service()), ("grpc_method", method.name())]
}
