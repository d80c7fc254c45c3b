// SPDX-License-Identifier: Apache-2.0
//! Tests of the program `engine` over stores made with the public API.

mod backup;
mod bench;
mod contents;
mod damage;
mod export;
mod info;
mod layout;
mod live;
mod log;
mod scrub;
mod surgery;
mod usage;
mod world;
