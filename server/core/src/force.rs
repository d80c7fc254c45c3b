// SPDX-License-Identifier: Apache-2.0
//! A member that goes on alone with what it has, because the others are gone for ever (`--force-new-cluster`).
//!
//! Owns      which entries make a member the only one of its cluster.
//! Holds     1. the ids of member and cluster stay (FN-3), and so does all that the log holds: what is committed is not
//!              recorded by itself, so who is gone may have acknowledged any of it;
//!           2. what is appended is one batch with the promise that it is committed: a crash leaves all of it or nothing,
//!              and a member that is alone is left as it is (FN-5).
//! Never     touches the store: the entries are applied as all others are.

use crate::{
    Refusal,
    ids::MemberId,
    replica::{
        conf::{ConfChange, Kind},
        log::{EntryKind, Log, LogEntry, LogError, Promise},
    },
    state::members::{Members, is_learner},
};
use cairn_proto::membershippb::{Member as MemberRecord, RaftAttributes};

/// Bytes of entries that are looked at in one go.
const LOOK_BYTES: usize = 4 << 20;

/// Why a member cannot be all of its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ForceRefused {
    #[error(
        "member {0} was removed from its cluster, and cannot go on as all of it: force another of its members, or \
         restore from a backup"
    )]
    Removed(MemberId),
    #[error("member {own} cannot go on alone: {why}")]
    Change { own: MemberId, why: &'static str },
    #[error("entry {index} of the log: {why}")]
    Entry { index: u64, why: String },
    #[error("{0}")]
    Log(#[from] LogError),
}

/// What makes the member the only one.
#[derive(Debug)]
pub(crate) struct Forcing {
    pub entries: Vec<LogEntry>,
    /// With it they are committed.
    pub promise: Promise,
}

/// What is to be appended to the log so that `own` is the only member once it is applied; `None` if it is already, or
/// if the log does not fit what is applied: then the replica says so.
///
/// `members` are those as of entry `applied`.
///
/// # Errors
/// If it was removed, or the log cannot be read.
pub(crate) fn forcing(
    log: &dyn Log,
    mut members: Members,
    own: MemberId,
    peer_urls: &[String],
    applied: u64,
    promise: Promise,
) -> Result<Option<Forcing>, ForceRefused> {
    let last = log.last_index();
    if applied + 1 < log.first_index() || promise.commit.max(applied) > last || last == 0 {
        return Ok(None);
    }
    catch_up(log, &mut members, applied + 1, last + 1)?;
    if members.is_removed(own.0) {
        return Err(ForceRefused::Removed(own));
    }
    let changes = changes(&members, own.0, peer_urls);
    if changes.is_empty() {
        return Ok(None);
    }
    let term = promise.term.max(log.term(last).unwrap_or(0));
    let mut entries = Vec::with_capacity(changes.len());
    for (change, index) in changes.into_iter().zip(last + 1..) {
        let refused = |refusal: Refusal| ForceRefused::Change { own, why: refusal.text };
        members.check(&change).map_err(refused)?;
        members.apply(&change);
        entries.push(LogEntry { index, term, kind: EntryKind::ConfChangeV2, data: change.encode() });
    }
    let commit = last + entries.len() as u64;
    Ok(Some(Forcing { entries, promise: Promise { term, commit, ..promise } }))
}

/// Takes the changes of the log from `low` on into account, as applying them will.
fn catch_up(log: &dyn Log, members: &mut Members, low: u64, high: u64) -> Result<(), ForceRefused> {
    let mut next = low;
    while next < high {
        let entries = log.entries(next, high, LOOK_BYTES)?;
        for entry in &entries {
            if entry.kind == EntryKind::Normal {
                continue;
            }
            let change = ConfChange::decode(&entry.data)
                .map_err(|why| ForceRefused::Entry { index: entry.index, why: why.to_string() })?;
            if members.check(&change).is_ok() {
                members.apply(&change);
            }
        }
        next += entries.len() as u64;
    }
    Ok(())
}

/// FN-2: first this member is a voter, then the others go.
fn changes(members: &Members, own: u64, peer_urls: &[String]) -> Vec<ConfChange> {
    let change = |kind, member_id, member| ConfChange {
        request_id: 0,
        kind,
        member_id,
        cluster_id: 0,
        member,
        learners_max: 0,
    };
    let mut changes = Vec::new();
    match members.get(own) {
        None => {
            let attributes = RaftAttributes { peer_urls: peer_urls.to_vec(), is_learner: false };
            let member = MemberRecord { id: own, raft_attributes: Some(attributes), member_attributes: None };
            changes.push(change(Kind::AddVoter, own, Some(member)));
        }
        Some(member) if is_learner(member) => changes.push(change(Kind::Promote, own, None)),
        Some(_) => {}
    }
    let others = members.iter().map(|member| member.id).filter(|id| *id != own);
    changes.extend(others.map(|id| change(Kind::Remove, id, None)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Entries(Mutex<Vec<LogEntry>>);

    impl Log for Entries {
        fn append(&self, entries: &[LogEntry], _promise: Option<Promise>) -> Result<u64, LogError> {
            self.0.lock().expect("one thread").extend_from_slice(entries);
            Ok(1)
        }
        fn entries(&self, low: u64, high: u64, _bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
            // One at a time is what a log may give, too.
            assert!(low < high);
            Ok(vec![self.0.lock().expect("one thread")[low as usize - 1].clone()])
        }
        fn term(&self, index: u64) -> Option<u64> {
            let at = index.checked_sub(1)?;
            self.0.lock().expect("one thread").get(at as usize).map(|entry| entry.term)
        }
        fn first_index(&self) -> u64 {
            1
        }
        fn last_index(&self) -> u64 {
            self.0.lock().expect("one thread").len() as u64
        }
    }

    const OWN: MemberId = MemberId(1);

    type Changes = [(Kind, u64)];

    fn change(kind: Kind, id: u64) -> ConfChange {
        let raft_attributes =
            RaftAttributes { peer_urls: vec![format!("http://m{id}:1")], is_learner: false };
        let member = MemberRecord { id, raft_attributes: Some(raft_attributes), member_attributes: None };
        ConfChange {
            request_id: 0,
            kind,
            member_id: id,
            cluster_id: 0,
            member: Some(member),
            learners_max: 0,
        }
    }

    /// A log of these changes, of which the first `applied` are applied and the first `commit` are known to be
    /// committed: what is appended, and once more on top of it.
    fn force(changes: &Changes, applied: usize, commit: u64) -> Result<Vec<(Kind, u64)>, ForceRefused> {
        let mut members = Members::default();
        let mut entries = Vec::new();
        for (index, (kind, id)) in (1..).zip(changes) {
            let change = change(*kind, *id);
            entries.push(LogEntry { index, term: 3, kind: EntryKind::ConfChangeV2, data: change.encode() });
            if index <= applied as u64 && members.check(&change).is_ok() {
                members.apply(&change);
            }
        }
        let log = Entries(Mutex::new(entries));
        let promise = Promise { term: 4, vote: 9, commit };
        let again = |promise| {
            forcing(&log, members.clone(), OWN, &["http://own:1".to_owned()], applied as u64, promise)
        };
        let Some(Forcing { entries, promise }) = again(promise)? else { return Ok(Vec::new()) };
        log.append(&entries, Some(promise)).expect("memory");
        assert_eq!((promise.term, promise.vote, promise.commit), (4, 9, log.last_index()));
        assert!(entries.iter().all(|entry| entry.term == 4), "at the term of the promise (FN-2)");
        assert!(again(promise).expect("it fits").is_none(), "who is alone stays as it is (FN-5)");
        let read = |entry: &LogEntry| ConfChange::decode(&entry.data).expect("a change");
        Ok(entries.iter().map(read).map(|change| (change.kind, change.member_id)).collect())
    }

    #[test]
    fn who_is_left_becomes_a_voter_and_all_others_go() {
        use Kind::*;
        let three = [(AddVoter, 1), (AddVoter, 2), (AddVoter, 3)];
        let both = vec![(Remove, 2), (Remove, 3)];
        for (applied, commit) in [(0, 0), (0, 3), (2, 2), (3, 3)] {
            assert_eq!(force(&three, applied, commit).expect("it fits"), both, "{applied} {commit}");
        }
        let more: &[(&Changes, &Changes)] = &[
            (&[(AddVoter, 1)], &[]),
            (&[(AddVoter, 1), (AddVoter, 2), (Remove, 2)], &[]),
            // What is in the log may be committed: a removal, an addition that comes back, learners too.
            (&[(AddVoter, 1), (AddVoter, 2), (Remove, 2), (AddVoter, 3)], &[(Remove, 3)]),
            (&[(AddVoter, 1), (AddLearner, 5), (AddVoter, 2)], &[(Remove, 2), (Remove, 5)]),
            (&[(AddVoter, 2), (AddLearner, 1)], &[(Promote, 1), (Remove, 2)]),
            (&[(AddVoter, 2), (AddVoter, 3)], &[(AddVoter, 1), (Remove, 2), (Remove, 3)]),
        ];
        for (changes, expected) in more {
            for applied in [0, changes.len()] {
                let found = force(changes, applied, applied as u64).expect("it fits");
                assert_eq!(found, *expected, "{changes:?}");
            }
        }
    }

    #[test]
    fn who_was_removed_is_refused_and_a_log_that_lost_entries_is_left_alone() {
        use Kind::*;
        let removed = [(AddVoter, 1), (AddVoter, 2), (Remove, 1)];
        for applied in [0, 3] {
            assert!(matches!(force(&removed, applied, 3), Err(ForceRefused::Removed(OWN))), "{applied}");
        }
        assert!(force(&[(AddVoter, 1), (AddVoter, 2)], 2, 7).expect("left alone").is_empty());
        assert!(force(&[], 0, 0).expect("left alone").is_empty());
    }
}
