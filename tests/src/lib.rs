// SPDX-License-Identifier: Apache-2.0
//! Conformance, client, crash and process tests of Cairn: what they share.
//!
//! Owns      the reference etcd and the binary under test, servers with a bounded life, typed clients, the
//!           differential test, the making of bad requests, and what hurts a cluster under load and judges what its
//!           clients were told.
//! Holds     a test that cannot have its tools is counted as skipped, and fails under `CI=true`.
//! Never     names a crate of the server: tests see what a client sees.

pub mod answers;
pub mod auth;
pub mod client;
pub mod cluster;
pub mod failpoints;
pub mod history;
pub mod hostile;
pub mod load;
pub mod namespaces;
pub mod proxy;
pub mod scale;
pub mod script;
pub mod server;
pub mod tools;
