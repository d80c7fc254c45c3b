// SPDX-License-Identifier: Apache-2.0
//! The etcd v3 wire: messages, services, error texts, the table of methods.
//!
//! Owns      the types of every message a client or a peer may send, under the names and numbers of
//!           `tests/rules/wire.md`; every text and code of `tests/rules/errors.tsv`; the list of all RPCs.
//! Holds     1. [`serve`] and the plain modules put the same bytes on the wire;
//!           2. every `bytes` field is a [`bytes::Bytes`], so a request's keys and values are slices of
//!              the buffer it was read into.
//! Never     opens a socket, and never decides what an answer should be.

pub mod errors;
pub mod methods;

/// Generated code answers to its generator, not to this repository's lints.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(clippy::all, clippy::pedantic, rust_2018_idioms, rustdoc::all)]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }
    };
}

generated!(
    /// KV, Watch, Lease, Cluster, Maintenance and Auth, and the requests that travel in the log.
    etcdserverpb, "plain/etcdserverpb.rs"
);
generated!(
    /// Stored pairs and events.
    mvccpb, "plain/mvccpb.rs"
);
generated!(
    /// Users, roles and permissions as they are stored.
    authpb, "plain/authpb.rs"
);
generated!(
    /// The lock service.
    v3lockpb, "plain/v3lockpb.rs"
);
generated!(
    /// The election service.
    v3electionpb, "plain/v3electionpb.rs"
);
generated!(
    /// Changes of the membership as they travel in the log.
    membershippb, "plain/membershippb.rs"
);
generated!(
    /// Leases as they are stored and asked about between members.
    leasepb, "plain/leasepb.rs"
);
generated!(
    /// The gRPC health service, `grpc.health.v1`.
    health, "plain/grpc.health.v1.rs"
);

/// The server's side: stored messages ride as the bytes they were stored in.
///
/// `RangeResponse.kvs`, `PutResponse.prev_kv`, `DeleteRangeResponse.prev_kvs`, `WatchResponse.events` and
/// `LeaderResponse.kv` hold encoded `mvccpb` messages. An empty `prev_kv` or `kv` is absent on the wire. The
/// types and services that do not contain one of these are those of the plain modules.
pub mod serve {
    generated!(
        /// The answers of KV and Watch, and these two services.
        etcdserverpb, "serve/etcdserverpb.rs"
    );
    generated!(
        /// The answers of Election, and that service.
        v3electionpb, "serve/v3electionpb.rs"
    );
    pub use etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, RangeStreamResponse, ResponseOp, TxnResponse,
        WatchResponse, kv_server, response_op, watch_server,
    };
    pub use v3electionpb::{LeaderResponse, election_server};
}

/// The encoded `google.protobuf.FileDescriptorSet` of all files under `proto/`, names as on the wire.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
