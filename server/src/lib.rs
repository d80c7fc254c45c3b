// SPDX-License-Identifier: Apache-2.0
//! Cairn, a distributed key-value store that speaks the etcd v3 API.
//!
//! Owns      the daemon: a member that runs, and what serves it to clients.
//! Holds     what each room states at the top of its file.
//! Never     decides what a request means: that is `cairn-core`.

mod bootstrap;
pub mod cert;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod exit;
pub mod failed;
pub mod failpoints;
mod files;
pub mod front;
pub mod jwt;
pub mod listen;
pub mod log;
pub mod member;
pub mod metrics;
mod notify;
mod observe;
mod signals;
pub mod stream;
pub mod tls;

/// The version of etcd whose API a member speaks, as `Status` and `/version` tell it.
pub const ETCD_VERSION: &str = if cfg!(feature = "next") { "3.8.0" } else { "3.7.1" };

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("Cairn runs on Linux, on x86_64 and aarch64");
