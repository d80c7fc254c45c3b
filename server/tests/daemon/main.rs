// SPDX-License-Identifier: Apache-2.0
//! The daemon as clients and operators meet it: a process, its ports, its signals.

mod auth;
mod beside;
mod bootstrap;
mod certs;
mod cluster;
mod discovery;
mod divergence;
mod dos;
mod election;
mod force;
mod frames;
mod hostile;
mod http;
mod jwt;
mod large;
mod lifecycle;
mod lock;
mod members;
mod membership;
mod metrics;
mod peers;
mod repair;
mod rpc;
mod secure;
mod streams;
mod support;
mod tls;
mod versions;
