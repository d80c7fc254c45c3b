// SPDX-License-Identifier: Apache-2.0
//! What members send each other, and what of it Raft may be shown.
//!
//! Owns      the form of a message between members, its translation to raft-rs's, and the rules that a message
//!           must keep.
//! Holds     1. bytes of peers are read with our own messages, never with those of raft-rs;
//!           2. raft-rs ends the process for a message that cannot be: none of those passes [`judge`].
//! Never     decides what a message means: Raft does.

use super::{
    conf::ConfChange,
    log::{EntryKind, LogEntry, from_raft, to_raft},
};
use crate::Command;
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{self, MessageType};

/// Entries and their data in one message; a single entry may be larger.
pub const BYTES_PER_MESSAGE: usize = 1 << 20;
/// How often a proposal is handed on to another member.
pub(super) const HOPS_MAX: usize = 3;
/// The context of a read index: the boot nonce and a counter.
pub(super) const CONTEXT_BYTES: usize = 16;
/// The word by which raft-rs tells the vote of a transfer from others.
const TRANSFER: &[u8] = b"CampaignTransfer";
/// Terms above this are not those of elections: a member that counted one a millisecond would get there in
/// the year 2100.
const TERM_MAX: u64 = 1 << 42;
/// And no log gets to an index above this: at a million entries a second that takes two thousand years.
const INDEX_MAX: u64 = 1 << 56;

/// One entry in a message.
#[derive(Clone, PartialEq, Message)]
pub struct PeerEntry {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// A message from one member to another, under Raft's field numbers.
#[derive(Clone, PartialEq, Message)]
pub struct PeerMessage {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint64, tag = "2")]
    pub to: u64,
    #[prost(uint64, tag = "3")]
    pub from: u64,
    #[prost(uint64, tag = "4")]
    pub term: u64,
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    #[prost(uint64, tag = "6")]
    pub index: u64,
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<PeerEntry>,
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    #[prost(bool, tag = "10")]
    pub reject: bool,
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
}

/// The messages that members send each other, numbered as Raft does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    Propose = 2,
    Append = 3,
    AppendResponse = 4,
    Vote = 5,
    VoteResponse = 6,
    Heartbeat = 8,
    HeartbeatResponse = 9,
    TimeoutNow = 14,
    ReadIndex = 15,
    ReadIndexResponse = 16,
    PreVote = 17,
    PreVoteResponse = 18,
}

impl MessageKind {
    fn from_number(n: i32) -> Option<MessageKind> {
        use MessageKind::*;
        let all = [
            Propose,
            Append,
            AppendResponse,
            Vote,
            VoteResponse,
            Heartbeat,
            HeartbeatResponse,
            TimeoutNow,
            ReadIndex,
            ReadIndexResponse,
            PreVote,
            PreVoteResponse,
        ];
        all.into_iter().find(|kind| *kind as i32 == n)
    }

    fn to_raft(self) -> MessageType {
        match self {
            MessageKind::Propose => MessageType::MsgPropose,
            MessageKind::Append => MessageType::MsgAppend,
            MessageKind::AppendResponse => MessageType::MsgAppendResponse,
            MessageKind::Vote => MessageType::MsgRequestVote,
            MessageKind::VoteResponse => MessageType::MsgRequestVoteResponse,
            MessageKind::Heartbeat => MessageType::MsgHeartbeat,
            MessageKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
            MessageKind::TimeoutNow => MessageType::MsgTimeoutNow,
            MessageKind::ReadIndex => MessageType::MsgReadIndex,
            MessageKind::ReadIndexResponse => MessageType::MsgReadIndexResp,
            MessageKind::PreVote => MessageType::MsgRequestPreVote,
            MessageKind::PreVoteResponse => MessageType::MsgRequestPreVoteResponse,
        }
    }
}

impl PeerMessage {
    /// What it is; `None` if this version does not know it.
    pub fn kind(&self) -> Option<MessageKind> {
        MessageKind::from_number(self.kind)
    }

    /// Whether it must not queue behind data: heartbeats, votes and what they answer.
    pub fn is_urgent(&self) -> bool {
        !matches!(
            self.kind(),
            Some(MessageKind::Propose | MessageKind::Append | MessageKind::AppendResponse) | None
        )
    }

    pub(super) fn from_raft(message: eraftpb::Message) -> PeerMessage {
        let entry = |entry: eraftpb::Entry| {
            let LogEntry { index, term, kind, data } = from_raft(entry);
            PeerEntry { kind: kind as i32, term, index, data }
        };
        PeerMessage {
            kind: message.msg_type as i32,
            to: message.to,
            from: message.from,
            term: message.term,
            log_term: message.log_term,
            index: message.index,
            entries: message.entries.into_iter().map(entry).collect(),
            commit: message.commit,
            reject: message.reject,
            reject_hint: message.reject_hint,
            context: message.context,
            commit_term: message.commit_term,
        }
    }

    pub(super) fn into_raft(self, kind: MessageKind) -> eraftpb::Message {
        let mut message = eraftpb::Message {
            to: self.to,
            from: self.from,
            term: self.term,
            log_term: self.log_term,
            index: self.index,
            entries: self.entries.into_iter().map(|entry| to_raft(entry.into_log())).collect(),
            commit: self.commit,
            reject: self.reject,
            reject_hint: self.reject_hint,
            context: self.context,
            commit_term: self.commit_term,
            ..Default::default()
        };
        message.set_msg_type(kind.to_raft());
        message
    }
}

impl PeerEntry {
    fn log_kind(&self) -> Option<EntryKind> {
        u8::try_from(self.kind).ok().and_then(EntryKind::from_number)
    }

    /// The entry; its kind was judged.
    pub(super) fn into_log(self) -> LogEntry {
        let kind = self.log_kind().expect("a message that was judged has known kinds");
        LogEntry { index: self.index, term: self.term, kind, data: self.data }
    }
}

/// Makes one message of those to a peer of which the later goes on where the earlier ends: entries that follow
/// each other, and what was acknowledged up to there. So a turn that took in much says it to each peer at once.
pub(super) fn gather(messages: &mut Vec<PeerMessage>) {
    let mut last: Vec<(u64, usize)> = Vec::new();
    let mut kept: Vec<PeerMessage> = Vec::with_capacity(messages.len());
    for message in messages.drain(..) {
        if message.is_urgent() {
            kept.push(message);
            continue;
        }
        let place = last.iter_mut().find(|(to, _)| *to == message.to);
        let Some((_, at)) = place else {
            last.push((message.to, kept.len()));
            kept.push(message);
            continue;
        };
        if let Some(message) = kept[*at].absorb(message) {
            *at = kept.len();
            kept.push(message);
        }
    }
    *messages = kept;
}

impl PeerMessage {
    /// Takes the next message to the same peer into this one, or gives it back.
    fn absorb(&mut self, next: PeerMessage) -> Option<PeerMessage> {
        use MessageKind::{Append, AppendResponse};
        if (self.kind, self.term) != (next.kind, next.term) {
            return Some(next);
        }
        match self.kind() {
            Some(Append) if next.index == self.index + self.entries.len() as u64 => {
                let bytes = |m: &PeerMessage| m.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                if !next.entries.is_empty() && bytes(self) + bytes(&next) > BYTES_PER_MESSAGE {
                    return Some(next);
                }
                self.commit = self.commit.max(next.commit);
                self.entries.extend(next.entries);
                None
            }
            Some(AppendResponse) if !self.reject && !next.reject && self.index <= next.index => {
                *self = PeerMessage { commit: self.commit.max(next.commit), ..next };
                None
            }
            _ => Some(next),
        }
    }
}

/// What a member knows of itself when a message comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub id: u64,
    pub term: u64,
    pub leader: u64,
    pub leads: bool,
    pub last: u64,
    pub persisted: u64,
}

/// What to do with a message.
#[derive(PartialEq, Debug)]
pub(super) enum Verdict {
    Step(MessageKind),
    /// It is of no use any more, or not now.
    Drop,
    /// Nobody who follows the protocol sends it.
    Refuse(&'static str),
    /// The leader knows that this member had more entries than it has: its disk lost them.
    Lost {
        commit: u64,
    },
}

/// Holds a message against what Raft's rules allow, so that raft-rs sees no other.
pub(super) fn judge(m: &PeerMessage, known: &Known) -> Verdict {
    let Some(kind) = m.kind() else { return Verdict::Refuse("a kind of message that is not known") };
    match rules(m, kind, known) {
        Err(why) => Verdict::Refuse(why),
        Ok(()) => in_time(m, kind, known),
    }
}

/// Rules that hold at any time.
fn rules(m: &PeerMessage, kind: MessageKind, known: &Known) -> Result<(), &'static str> {
    use MessageKind::*;
    let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
    must(m.to == known.id, "a message for another member")?;
    must(m.from != 0 && m.from != known.id, "a message from nobody, or from ourselves")?;
    let termless = matches!(kind, Propose | ReadIndex);
    must(termless == (m.term == 0), "a term where none belongs, or none where one does")?;
    must(m.term <= TERM_MAX, "a term that no election leads to")?;
    must(m.log_term <= m.term || termless, "an entry from a later term than the message")?;
    let farthest = m.index.max(m.commit).max(m.reject_hint);
    must(farthest <= INDEX_MAX && m.commit_term <= TERM_MAX, "an index or a term that no log gets to")?;
    let with_entries = matches!(kind, Propose | Append | ReadIndex | ReadIndexResponse);
    must(with_entries || m.entries.is_empty(), "entries where none belong")?;
    must(m.entries.iter().all(|e| e.log_kind().is_some()), "an entry of unknown kind")?;
    must(matches!(kind, AppendResponse) || m.reject_hint == 0, "a hint where none belongs")?;
    match kind {
        Append => append(m),
        Propose => propose(m),
        Vote | PreVote => {
            must((m.index == 0) == (m.log_term == 0), "a last entry without its term")?;
            must(m.log_term < m.term, "a candidate whose last entry is of the term that it asks for")?;
            must(m.commit <= m.index, "more committed than there is")?;
            must(m.context.is_empty() || m.context == TRANSFER, "a context that votes do not have")
        }
        ReadIndex | ReadIndexResponse => must(
            m.entries.len() == 1 && m.entries[0].data.len() == CONTEXT_BYTES,
            "a read index without its context",
        ),
        Heartbeat | HeartbeatResponse => {
            must(m.context.is_empty() || m.context.len() == CONTEXT_BYTES, "a context of another length")
        }
        AppendResponse | VoteResponse | PreVoteResponse | TimeoutNow => {
            must(m.context.is_empty(), "a context where none belongs")
        }
    }
}

fn append(m: &PeerMessage) -> Result<(), &'static str> {
    let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
    must((m.index == 0) == (m.log_term == 0), "an entry before the first without its term")?;
    let mut term = m.log_term;
    for (entry, index) in m.entries.iter().zip(m.index + 1..) {
        must(entry.index == index, "entries that do not follow each other")?;
        must(entry.term >= term.max(1) && entry.term <= m.term, "an entry whose term cannot be")?;
        term = entry.term;
    }
    Ok(())
}

/// What is proposed through another member is held against the rules of the log here: an entry that cannot be
/// read would stop every member.
fn propose(m: &PeerMessage) -> Result<(), &'static str> {
    let must = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
    must(!m.entries.is_empty(), "a proposal of nothing")?;
    must(m.context.len() <= HOPS_MAX, "a proposal that went round")?;
    for entry in &m.entries {
        must(entry.index == 0 && entry.term == 0, "a proposal that knows its place")?;
        match entry.log_kind() {
            Some(EntryKind::Normal) => {
                must(Command::decode(entry.data.clone()).is_ok(), "a proposal that is no request")?;
            }
            Some(EntryKind::ConfChangeV2) => {
                let change = ConfChange::decode(&entry.data);
                let ours = change.is_ok_and(|change| change.encode() == entry.data);
                must(ours, "a proposal that is no change of the membership")?;
            }
            _ => return Err("a proposal of a kind that is never proposed"),
        }
    }
    Ok(())
}

/// Rules that hold for a message of the current term, and what is not worth a step now.
fn in_time(m: &PeerMessage, kind: MessageKind, known: &Known) -> Verdict {
    use MessageKind::*;
    let current = m.term == known.term;
    match kind {
        Append | Heartbeat if current && ![0, m.from].contains(&known.leader) => {
            Verdict::Refuse("a second leader of one term")
        }
        // A leader tells a member of no entry that the member did not acknowledge to it.
        Heartbeat if m.term >= known.term && m.commit > known.last => Verdict::Lost { commit: m.commit },
        AppendResponse if current && known.leads && m.index > known.last && !m.reject => {
            Verdict::Refuse("an entry acknowledged that was never sent")
        }
        // raft-rs asserts that who becomes leader has persisted its log.
        TimeoutNow if !current || m.from != known.leader || known.persisted < known.last => Verdict::Drop,
        ReadIndex if !known.leads => Verdict::Drop,
        _ => Verdict::Step(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Known = Known { id: 1, term: 5, leader: 2, leads: false, last: 9, persisted: 9 };

    fn message(kind: MessageKind) -> PeerMessage {
        PeerMessage { kind: kind as i32, to: 1, from: 2, term: 5, ..Default::default() }
    }

    fn entry(index: u64, term: u64) -> PeerEntry {
        PeerEntry { index, term, ..Default::default() }
    }

    fn refused(m: &PeerMessage) -> bool {
        matches!(judge(m, &US), Verdict::Refuse(_))
    }

    #[test]
    fn a_message_comes_back_from_its_bytes_and_from_raft() {
        use MessageKind::*;
        for kind in [Append, AppendResponse, Vote, Heartbeat, TimeoutNow] {
            let mut m = message(kind);
            m.context = Bytes::from_static(b"c");
            m.commit_term = 3;
            m.entries = vec![PeerEntry { kind: 2, data: Bytes::from_static(b"x"), ..entry(4, 2) }];
            assert_eq!(PeerMessage::decode(m.encode_to_vec().as_slice()).expect("its bytes"), m);
            assert_eq!(PeerMessage::from_raft(m.clone().into_raft(kind)), m);
        }
        assert!(message(Heartbeat).is_urgent() && message(PreVote).is_urgent());
        assert!(!message(Append).is_urgent() && !message(Propose).is_urgent());
    }

    #[test]
    fn messages_that_go_on_where_the_last_one_ends_are_sent_as_one() {
        use MessageKind::*;
        let to = |peer: u64, m: PeerMessage| PeerMessage { to: peer, ..m };
        let append = |index, commit, entries| PeerMessage { index, commit, entries, ..message(Append) };
        let acknowledged = |index, reject| PeerMessage { index, reject, ..message(AppendResponse) };
        let big = |index| PeerEntry { data: vec![0; BYTES_PER_MESSAGE / 2 + 1].into(), ..entry(index, 5) };
        let gathered = |mut messages: Vec<PeerMessage>| {
            gather(&mut messages);
            messages
        };
        let apart = [
            append(4, 3, vec![entry(5, 5)]),
            to(3, append(4, 3, vec![entry(5, 5)])),
            message(Heartbeat),
            append(5, 5, vec![]),
            append(5, 5, vec![entry(6, 5), entry(7, 5)]),
        ];
        let whole = append(4, 5, vec![entry(5, 5), entry(6, 5), entry(7, 5)]);
        assert_eq!(gathered(apart.to_vec()), [whole, apart[1].clone(), apart[2].clone()]);
        assert_eq!(gathered(vec![acknowledged(4, false), acknowledged(6, false)]), [acknowledged(6, false)]);
        for as_they_are in [
            vec![append(4, 3, vec![entry(5, 5)]), append(6, 3, vec![entry(7, 5)])],
            vec![append(4, 3, vec![]), PeerMessage { term: 6, ..append(4, 3, vec![]) }],
            vec![append(4, 3, vec![big(5), entry(6, 5)]), append(6, 3, vec![big(7), entry(8, 5)])],
            vec![acknowledged(4, false), acknowledged(3, false)],
            vec![acknowledged(4, true), acknowledged(5, false)],
            vec![acknowledged(4, false), acknowledged(5, true)],
            vec![append(4, 3, vec![]), acknowledged(4, false), append(4, 4, vec![])],
        ] {
            assert!(gathered(as_they_are.clone()) == as_they_are, "{} messages", as_they_are.len());
        }
    }

    #[test]
    fn nothing_that_would_end_the_process_passes() {
        use MessageKind::*;
        let append = |index, log_term, entries| PeerMessage { index, log_term, entries, ..message(Append) };
        assert_eq!(judge(&append(9, 5, vec![entry(10, 5)]), &US), Verdict::Step(Append));
        // An index behind our log with term 0 is what raft-rs takes for a match.
        assert!(refused(&append(20, 0, vec![])));
        assert!(refused(&append(0, 3, vec![])));
        assert!(refused(&append(9, 5, vec![entry(11, 5)])), "a gap");
        assert!(refused(&append(9, 5, vec![entry(10, 4)])), "a term that goes back");
        assert!(refused(&append(9, 5, vec![entry(10, 6)])), "a term of the future");
        assert!(refused(&append(u64::MAX, 5, vec![entry(0, 5)])));
        assert!(refused(&append(u64::MAX - 1, 5, vec![entry(u64::MAX, 5)])));
        for far in [
            PeerMessage { commit: INDEX_MAX + 1, ..message(Heartbeat) },
            PeerMessage { commit: u64::MAX, ..append(9, 5, vec![]) },
            PeerMessage { index: u64::MAX, ..message(AppendResponse) },
            PeerMessage { reject: true, reject_hint: u64::MAX, ..message(AppendResponse) },
            PeerMessage { commit_term: u64::MAX, ..message(Vote) },
        ] {
            assert!(refused(&far), "{far:?}");
        }
        for local in [0, 1, 10, 11, 12] {
            assert!(refused(&PeerMessage { kind: local, ..message(Heartbeat) }), "nobody sends kind {local}");
        }
        assert!(refused(&PeerMessage { term: 0, ..message(Heartbeat) }));
        assert!(refused(&PeerMessage { log_term: 5, index: 3, ..message(Vote) }));
        assert!(refused(&PeerMessage { kind: 7, ..message(Append) }), "snapshots have their own way");
        assert!(refused(&PeerMessage { kind: 13, ..message(Append) }), "transfers are local");
        assert!(refused(&PeerMessage { to: 3, ..message(Heartbeat) }));
        assert!(refused(&PeerMessage { from: 1, ..message(Heartbeat) }));
        assert!(refused(&PeerMessage { term: u64::MAX, ..message(Heartbeat) }));
        assert!(refused(&PeerMessage { term: 0, ..message(Propose) }), "of nothing");
        assert!(refused(&PeerMessage { term: 0, ..message(ReadIndex) }), "without a context");
        assert!(refused(&PeerMessage { context: Bytes::from_static(b"x"), ..message(Heartbeat) }));
    }

    #[test]
    fn a_proposal_of_another_member_is_read_before_it_is_in_the_log() {
        let propose = |kind: i32, data: &[u8]| PeerMessage {
            term: 0,
            entries: vec![PeerEntry { kind, data: Bytes::copy_from_slice(data), ..Default::default() }],
            ..message(MessageKind::Propose)
        };
        let compact = Command::Compact(cairn_proto::etcdserverpb::CompactionRequest::default()).encode(7);
        assert_eq!(judge(&propose(0, &compact), &US), Verdict::Step(MessageKind::Propose));
        assert!(refused(&propose(0, b"\xff\xff")));
        assert!(refused(&propose(1, &compact)));
        assert!(refused(&propose(2, &compact)));
        assert!(refused(&propose(9, &compact)));
    }

    #[test]
    fn what_comes_at_the_wrong_time_is_dropped_and_lost_entries_are_seen() {
        use MessageKind::*;
        assert_eq!(
            judge(&PeerMessage { commit: 10, ..message(Heartbeat) }, &US),
            Verdict::Lost { commit: 10 }
        );
        let old = PeerMessage { commit: 10, term: 4, ..message(Heartbeat) };
        assert_eq!(judge(&old, &US), Verdict::Step(Heartbeat), "an old leader knows nothing of now");
        assert_eq!(judge(&PeerMessage { from: 3, ..message(TimeoutNow) }, &US), Verdict::Drop);
        assert_eq!(judge(&message(TimeoutNow), &US), Verdict::Step(TimeoutNow));
        let writing = Known { persisted: 8, ..US };
        assert_eq!(judge(&message(TimeoutNow), &writing), Verdict::Drop, "nobody campaigns while it writes");
        for kind in [Append, Heartbeat] {
            let second = PeerMessage { from: 3, commit: 10, ..message(kind) };
            assert!(refused(&second), "member 2 leads in this term");
            assert!(!refused(&PeerMessage { term: 6, ..second }), "in another it may be this one");
        }
        let leading = Known { leads: true, leader: 1, ..US };
        let ack = PeerMessage { index: 10, ..message(AppendResponse) };
        assert!(matches!(judge(&ack, &leading), Verdict::Refuse(_)));
        assert!(matches!(judge(&message(Heartbeat), &leading), Verdict::Refuse(_)));
    }
}
