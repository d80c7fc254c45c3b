// SPDX-License-Identifier: Apache-2.0
//! The etcd v3 wire: messages, services, error texts, the table of methods.
