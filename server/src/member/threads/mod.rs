// SPDX-License-Identifier: Apache-2.0
//! The threads of a member. Each drives a machine of the core or of the engine, and decides nothing.
//!
//! | thread | does | never |
//! |---|---|---|
//! | replica | Raft, ticks, the append to the log | applies, or waits for a disk |
//! | state | applies committed entries, revokes leases, purges | holds Raft back |
//! | log | writes and syncs what is appended | delays a batch: the next forms while it syncs |
//! | checkpointer | folds the overlay, prepares and releases log segments, scrubs | holds what others wait for |
//! | catchup | reads the history for watchers that lag | holds the hub's lock while it reads |

pub(super) mod catchup;
pub(super) mod checkpointer;
pub(super) mod log;
pub(super) mod replica;
mod scrubber;
pub(super) mod state;
