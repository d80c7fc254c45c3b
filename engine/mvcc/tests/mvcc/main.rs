// SPDX-License-Identifier: Apache-2.0
//! Tests of the data model through the public API: by script, by model, and by repetition.

mod hash;
mod kv;
mod script;
mod world;
