// SPDX-License-Identifier: Apache-2.0
//! A load generator for any etcd v3 server.
//!
//! Owns      the command line `cairn-bench`, its client, and the figures it prints.
//! Holds     1. the client is cheap enough not to hide the server (its own CPU time is printed beside);
//!           2. both servers of a comparison are measured by the same code, in turn, never at once.
//! Never     uses anything of a server but its API, its process and the size of its data file.

pub mod commands;

mod access;
mod args;
mod catch_up;
mod client;
mod cluster;
mod compaction;
mod compare;
mod guards;
mod histogram;
mod load;
mod members;
mod outage;
mod pace;
mod plans;
mod process;
mod progress;
mod reply;
mod request;
mod round;
mod scale;
mod server;
mod single;
mod table;
