// SPDX-License-Identifier: Apache-2.0
//! The daemon as clients and operators meet it: a process, its ports, its signals.

mod auth;
mod cluster;
mod election;
mod http;
mod large;
mod lifecycle;
mod lock;
mod members;
mod membership;
mod metrics;
mod rpc;
mod streams;
mod support;
