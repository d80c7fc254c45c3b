// SPDX-License-Identifier: Apache-2.0
//! Cairn, a distributed key-value store that speaks the etcd v3 API.
//!
//! Owns      the daemon: a member that runs, and what serves it to clients.
//! Holds     what each room states at the top of its file.
//! Never     decides what a request means: that is `cairn-core`.

pub mod config;
pub mod exit;
pub mod log;
pub mod member;

/// The version of etcd whose API a member speaks, as `Status` and `/version` tell it.
pub const ETCD_VERSION: &str = "3.7.1";
