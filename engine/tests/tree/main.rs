// SPDX-License-Identifier: Apache-2.0
//! Tests of pages and trees through their public functions.
//!
//! Owns      the list of what is tested; each file says what it shows.
//! Holds     every random run prints its seed and how much it did, and fails below a floor.
//! Never     touches a disk.

mod counters;
mod damage;
mod fuzz;
mod golden;
mod model;
mod mutants;
mod support;
