// SPDX-License-Identifier: Apache-2.0
//! One member of Cairn as pure machines: no socket, file, thread, clock or unseeded draw.
//!
//! Owns      what a member decides: the order of writes, what a request may do, which leases end, who is
//!           told of what.
//! Holds     the same inputs give the same effects, so a simulated run replays from its seed.
//! Never     waits. The daemon's threads and the simulator drive the same machines.

pub mod auth;
pub mod boot;
pub mod command;
pub mod compactor;
pub mod convert;
pub mod divergence;
pub mod door;
pub mod force;
pub mod ids;
pub mod lessor;
#[cfg(not(feature = "mutants"))]
mod marks;
#[cfg(feature = "mutants")]
pub mod marks;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
#[cfg(feature = "next")]
pub mod next;
pub mod repair;
pub mod replica;
pub mod state;
pub mod version;
pub mod watch;

/// Why a request got no result: one row of the table of texts and codes.
pub use cairn_proto::errors::WireError as Refusal;
pub use command::Command;
pub use compactor::AutoCompaction;
pub use ids::{ClusterId, MemberId};
pub use version::Version;
