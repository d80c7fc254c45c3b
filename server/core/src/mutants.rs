// SPDX-License-Identifier: Apache-2.0
//! Planted mistakes of this crate, with which the simulator is tested: see `cairn_engine::mutants`.
//!
//! Owns      the list of them by name.
//! Holds     without the feature `mutants`, `planted` is a constant and the mistakes do not exist.
//! Never     is part of a release.

/// Every mistake that the code can be asked to make, with what it sabotages.
#[cfg(feature = "mutants")]
pub const ALL: &[(&str, &str)] = &[
    ("messages-before-their-term-is-durable", "a new term is told to others before it is synced"),
    (
        "messages-sent-with-the-write-before-theirs",
        "what waits for a write leaves when the one before it is synced",
    ),
    ("campaign-during-a-write-of-the-log", "a candidate asks for votes while its log is being written"),
    ("acknowledged-before-the-sync", "entries and votes are acknowledged before they are synced"),
    ("vote-forgotten", "the vote is not recorded"),
    (
        "commit-behind-applied-at-open",
        "the log is opened with the commit that it recorded, whatever is applied",
    ),
    ("kept-request-found-by-index-alone", "what was kept with a proposal goes to whatever has its index"),
    ("proposed-again-to-the-next-leader", "a proposal that got no answer goes to the next leader too"),
    (
        "read-answered-by-a-new-leader",
        "a leader answers reads with what it knows to be committed, without asking",
    ),
    ("read-context-reused", "two rounds of reads have one context"),
    ("read-context-of-another-boot", "the answer to a read of an earlier boot is taken"),
    ("promotion-not-told-to-raft", "a promoted learner is a voter in the records alone"),
    ("learner-counted", "a learner is a voter to Raft"),
    ("removed-id-forgotten", "a restart forgets which ids were removed"),
    ("old-snapshot-installed", "a snapshot is installed over a store that is further on"),
    ("announced-what-is-not-durable", "a follower says that it has what it did not sync"),
    ("deposed-leader-ends-leases", "a leader that was deposed still has leases ended"),
    ("lease-not-extended-by-a-new-leader", "a new leader gives leases no new time"),
    ("end-of-any-lease-of-that-id", "the end of a lease hits a later one of the same id"),
    ("ended-lease-kept-alive", "a keep-alive of a lease that ended is answered as if it lived"),
    ("repair-drops-the-log", "a store from a peer takes the log's place too, with all that was acknowledged"),
    (
        "repair-keeps-an-old-term",
        "a member goes on in a term before that of the last entry in its peer's store",
    ),
    ("repair-takes-an-old-store", "a store from a peer is taken that ends before the log begins"),
    ("revoke-leaves-a-key", "the end of a lease leaves one of its keys"),
    ("alarm-not-stored", "an alarm is forgotten by a restart"),
    ("change-of-users-not-stored", "a role that is granted or revoked is forgotten by a restart"),
    ("watch-compaction-passed-over", "a watcher that a compaction cut off goes on behind it"),
    ("watch-progress-while-lagging", "a progress is told of revisions that were not sent"),
    ("watch-begins-one-revision-late", "after a restart the hub takes the first new revision for sent"),
    ("watch-future-start-ignored", "a watcher is sent events from before its start"),
    ("watch-lagging-dropped", "what a full stream has no room for is dropped"),
    ("watch-revision-in-two-responses", "the events of one revision come in several responses"),
];

/// True if the mistake `name` is planted on this thread.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn planted(_name: &'static str) -> bool {
    false
}

/// True if the mistake `name` is planted on this thread.
#[cfg(feature = "mutants")]
pub(crate) fn planted(name: &'static str) -> bool {
    cairn_engine::mutants::is_planted(ALL, name)
}
