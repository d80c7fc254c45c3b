// SPDX-License-Identifier: Apache-2.0
//! A load generator for any etcd v3 server.

fn main() {}
