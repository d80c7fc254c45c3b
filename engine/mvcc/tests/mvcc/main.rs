// SPDX-License-Identifier: Apache-2.0
//! Tests of the data model through the public API: by script, by model, and by repetition.

mod compact;
mod cost;
mod hash;
mod history;
mod inspect;
mod kv;
mod large;
mod model;
mod random;
mod script;
mod threads;
mod txn;
mod world;
