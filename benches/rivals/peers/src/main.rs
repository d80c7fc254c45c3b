// SPDX-License-Identifier: Apache-2.0
//! The comparison with all rivals built in; `cargo bench -p cairn-rivals` starts it.
//!
//! Owns      the list of rivals, and how each is set: durable at each commit, otherwise as it comes.
//! Holds     memory comes from the allocator that the daemon uses, for all of them.
//! Never     times anything.

mod fjall;
mod lmdb;
mod redb;
mod sled;

use std::process::ExitCode;

use cairn_rivals::Entrant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn_rivals::main(&[
        Entrant::new::<lmdb::Lmdb>(
            "lmdb",
            "LMDB through heed 0.23.1, defaults (fdatasync each commit), puts with APPEND",
        ),
        Entrant::new::<redb::Redb>("redb", "redb 4.6.0, defaults (durability immediate, one-phase commit)"),
        Entrant::new::<sled::Sled>("sled", "sled 1.0.0-alpha.124, defaults (zstd), flush after each batch"),
        Entrant::new::<fjall::Fjall>("fjall", "fjall 3.1.13, defaults (lz4), each batch with SyncData"),
    ])
}
