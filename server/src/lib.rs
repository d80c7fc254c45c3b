// SPDX-License-Identifier: Apache-2.0
//! Cairn, a distributed key-value store that speaks the etcd v3 API.
