// SPDX-License-Identifier: Apache-2.0
//! Tests of the whole store: against a model, over crashes, failures and rot.

mod crash;
mod faults;
mod golden;
mod holds;
mod inspect;
mod limits;
mod model;
mod mutants;
mod online;
mod pair;
mod process;
mod random;
mod readers;
mod rot;
mod scrub;
mod shrink;
mod size;
mod snapshot;
mod threads;
