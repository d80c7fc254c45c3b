// SPDX-License-Identifier: Apache-2.0
//! Filling a new store with much at once.
//!
//! Owns      when a load is folded into the file, and the checkpoints with which it ends.
//! Holds     1. memory is bounded: what is loaded is folded whenever it has become much;
//!           2. a loaded file has room for what is in it and little more, and three checkpoints that a start could go
//!              back to are the same.
//! Never     knows what is loaded.

use cairn_engine::{Aim, Db, Error, Shrinking};

/// Loaded and not folded yet, at most.
pub const FOLD_BYTES: u64 = 64 << 20;

/// Checkpoints after which nothing of what was written over is waited for.
const CHECKPOINTS: u32 = 3;

/// Folds what is loaded once it has become much.
pub fn fold(db: &Db) -> Result<(), Error> {
    if db.overlay_bytes() >= FOLD_BYTES { db.checkpoint().map(drop) } else { Ok(()) }
}

/// Makes all that was loaded durable, and the file as small as it can be.
pub fn finish(db: &Db) -> Result<(), Error> {
    db.checkpoint()?;
    for _ in 0..CHECKPOINTS {
        empty(db)?;
    }
    // Each answer that asks for a checkpoint has moved something; the engine gives up on what it cannot move.
    while db.shrink(0, Aim::Goal)? == Shrinking::Checkpoint {
        empty(db)?;
    }
    db.cut()?;
    db.confirm()
}

/// A checkpoint of nothing new.
fn empty(db: &Db) -> Result<(), Error> {
    let (meta, stamp) = (db.view().meta().clone(), db.view().stamp());
    db.begin()?.commit(meta, stamp)?;
    db.checkpoint().map(drop)
}
