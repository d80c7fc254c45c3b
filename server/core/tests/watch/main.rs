// SPDX-License-Identifier: Apache-2.0
//! The rules of Watch, by script.

mod past;
mod script;
mod watchers;
