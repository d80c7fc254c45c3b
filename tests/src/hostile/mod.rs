// SPDX-License-Identifier: Apache-2.0
//! Bad requests: what no client would send, made for every RPC of the descriptor set and sent as it is.
//!
//! Owns      the connection that refuses to send nothing, the making of inputs, and what an answer to one may be.
//! Holds     an RPC that is added to the set is tried without anything being written here.
//! Never     knows a method by name.

pub mod describe;
pub mod inputs;
pub mod wire;
