// SPDX-License-Identifier: Apache-2.0
//! The watch hub: who watches what, and what each of them is still owed.
//!
//! A watcher is *synced* when everything up to the hub's revision is in its stream's outbox; then a new
//! revision finds it through [`ranges`]. Else it *lags*: it asked for the past, or its outbox was full. A
//! lagging watcher is served from the ring of recent revisions or, further back, from the history of the
//! store, and joins the synced ones under the hub's lock, so that no revision comes twice or never.
//!
//! | file | owns |
//! |---|---|
//! | [`hub`] | the watchers and their states; creation, cancel, progress, delivery of new revisions |
//! | [`catchup`] | what lagging watchers are owed: the ring, and the plan to read the history |
//! | [`history`] | the past, as the store's reader gives it |
//! | [`outbox`] | the queue of one stream |
//! | [`ranges`] | the watchers by key |
//! | [`response`] | from an outbox entry to messages: headers and fragments |

pub mod catchup;
pub mod history;
pub mod hub;
pub mod outbox;
pub mod ranges;
pub mod response;

pub use catchup::{Caught, Chunk, History, HistoryError, Plan, Step};
pub use history::ReaderHistory;
pub use hub::{Hub, HubOptions, HubStats, StreamId};
pub use outbox::{Out, Outbox};
