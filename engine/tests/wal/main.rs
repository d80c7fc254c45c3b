// SPDX-License-Identifier: Apache-2.0
//! Tests of the write-ahead log, through its public face and a simulated disk.

mod basics;
mod crash;
mod damage;
mod fuzz;
mod golden;
mod look;
mod matrix;
mod model;
mod mutants;
mod reopen;
mod script;
mod threads;
