// SPDX-License-Identifier: Apache-2.0
//! Tests of the write-ahead log, through its public face and a simulated disk.

mod basics;
mod script;
