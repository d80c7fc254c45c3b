// SPDX-License-Identifier: Apache-2.0
//! Callers that this member has not applied as members: they may have come while it was away.
//!
//! Owns      whom this member was told of, and the questions about others.
//! Holds     1. who calls and is not known is let in only if a member that this one knows, or that its operator
//!              named, has applied the caller as one of this cluster. Where the caller is to be found is that one's
//!              word, too, and not the caller's;
//!           2. a member that has joined, has applied nothing and was told of nobody has nobody to ask, and nothing
//!              to lose: it takes those who call it by its cluster and its id;
//!           3. questions, and what is kept of their answers, are bounded.
//! Never     makes anyone a member: to Raft and to clients nothing changes by what is here.

use super::{
    super::{Level, shared::Shared},
    accept::Refusal,
    members::ask_for_members,
    wire::Hello,
};
use ::http::StatusCode;
use cairn_core::state::members::Members;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, time::timeout};

/// Callers of each kind that are remembered.
const CALLERS_MAX: usize = 64;
/// Callers that members are asked about at a time.
const QUESTIONS_MAX: usize = 4;
/// A member answers within this.
const ANSWER: Duration = Duration::from_secs(1);
/// And all of it takes no longer than a caller waits.
const QUESTION: Duration = Duration::from_millis(1500);
/// One that nobody vouched for is not asked about again for as long: it may just not be applied there yet.
const DENIED: Duration = Duration::from_millis(300);

/// Where others are, by id.
pub type Places = BTreeMap<u64, Vec<String>>;

/// See the module.
pub struct Told {
    /// Told at the start, for as long as this member has not applied itself.
    known: Places,
    /// URLs that the operator named.
    named: Vec<String>,
    heard: Mutex<Heard>,
    questions: Semaphore,
}

#[derive(Default)]
struct Heard {
    /// A member vouched for them.
    vouched: Places,
    /// Taken at their word, for as long as this member has not applied itself.
    guests: Places,
    /// Nobody vouched for them, a short time ago.
    denied: BTreeMap<u64, Instant>,
}

/// What comes of a question.
enum Word {
    /// It is a member, and is to be found there.
    Member(Vec<String>),
    Stranger,
    /// Nobody answered.
    Silence,
}

impl Told {
    pub fn new(known: Places, named: Vec<String>) -> Told {
        Told { known, named, heard: Mutex::default(), questions: Semaphore::new(QUESTIONS_MAX) }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("nothing fails under this lock")
    }

    /// Whom to talk to beside those who are applied as members here.
    pub fn others(&self, members: &Members, own: u64) -> Places {
        let heard = self.heard();
        let is_new = |id: u64| members.get(id).is_none() && !members.is_removed(id);
        let mut others = self.trusted(&heard, members, own);
        if members.get(own).is_none() {
            for (id, urls) in heard.guests.iter().filter(|(id, _)| is_new(**id)) {
                others.entry(*id).or_insert_with(|| urls.clone());
            }
        }
        others
    }

    /// Those of them who are not here by their own word alone.
    fn trusted(&self, heard: &Heard, members: &Members, own: u64) -> Places {
        // Until this member knows of itself, it has not heard of the others either.
        let early = self.known.iter().filter(|_| members.get(own).is_none());
        let all = early.chain(&heard.vouched);
        let new = all.filter(|(id, _)| members.get(**id).is_none() && !members.is_removed(**id));
        new.map(|(id, urls)| (*id, urls.clone())).collect()
    }

    /// Who is asked about a caller.
    fn voices(&self, members: &Members, own: u64) -> BTreeSet<String> {
        let others = members.iter().filter(|member| member.id != own);
        let urls =
            others.filter_map(|member| member.raft_attributes.as_ref()).flat_map(|r| r.peer_urls.clone());
        let told = self.trusted(&self.heard(), members, own).into_values().flatten();
        urls.chain(told).chain(self.named.iter().cloned()).collect()
    }

    fn welcome(&self, hello: &Hello) {
        let guests = &mut self.heard().guests;
        if guests.len() < CALLERS_MAX && !hello.peer_urls.is_empty() {
            guests.insert(hello.from, hello.peer_urls.clone());
        }
    }

    /// False if there are too many already.
    fn vouch(&self, id: u64, urls: Vec<String>) -> bool {
        let vouched = &mut self.heard().vouched;
        let room = vouched.len() < CALLERS_MAX || vouched.contains_key(&id);
        if room {
            vouched.insert(id, urls);
        }
        room
    }

    /// One that calls again meanwhile is not denied for longer.
    fn deny(&self, id: u64, now: Instant) {
        let denied = &mut self.heard().denied;
        denied.retain(|_, until| *until > now);
        if denied.len() < CALLERS_MAX {
            denied.entry(id).or_insert(now + DENIED);
        }
    }

    fn is_denied(&self, id: u64, now: Instant) -> bool {
        self.heard().denied.get(&id).is_some_and(|until| *until > now)
    }
}

/// Judges one that is neither a member nor a removed one, as far as this member has applied.
pub async fn admit(shared: &Arc<Shared>, hello: &Hello) -> Result<(), Refusal> {
    let (peers, own, from) = (&shared.peers, shared.member_id.0, hello.from);
    if peers.get(from).is_some() {
        return Ok(());
    }
    let cluster = shared.cluster();
    let voices = peers.told.voices(&cluster.members, own);
    if voices.is_empty() && cluster.members.get(own).is_none() {
        peers.told.welcome(hello);
        peers.follow(shared);
        return Ok(());
    }
    let word = if peers.told.is_denied(from, Instant::now()) {
        Word::Stranger
    } else {
        let question = async {
            let _turn = peers.told.questions.acquire().await.expect("it is never closed");
            ask(shared, &voices, from).await
        };
        timeout(QUESTION, question).await.unwrap_or(Word::Silence)
    };
    match word {
        Word::Member(urls) => {
            if !peers.told.vouch(from, urls.clone()) {
                let text =
                    format!("{} was told of too many members that it has not applied", shared.member_id);
                return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text));
            }
            let fields = [("remote-peer-id", format!("{from:x}")), ("urls", urls.join(","))];
            shared.log(Level::Info, "heard of a member that is not applied here yet", &fields);
            peers.follow(shared);
            Ok(())
        }
        Word::Stranger => {
            peers.told.deny(from, Instant::now());
            Err(not_found(format!(
                "neither {} nor a member that it knows has applied {from:x} as a member of this cluster; add it with \
                 `etcdctl member add` if it is to be one",
                shared.member_id
            )))
        }
        Word::Silence => Err(not_found(format!(
            "{0} has not applied {from:x} as a member of this cluster, and no member that could vouch for it answers; \
             bring one back, or start {0} with an --initial-cluster that names one that runs",
            shared.member_id
        ))),
    }
}

/// In etcd's words.
fn not_found(why: String) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("error sender not found: {why}"))
}

async fn ask(shared: &Shared, voices: &BTreeSet<String>, about: u64) -> Word {
    let reach = &shared.config.reach;
    let mut answers: FuturesUnordered<_> =
        voices.iter().map(|url| ask_for_members(reach, url, ANSWER)).collect();
    let mut word = if voices.is_empty() { Word::Stranger } else { Word::Silence };
    while let Some(answer) = answers.next().await {
        // One of another cluster knows nothing of this one.
        let Some((members, _)) = answer.ok().filter(|(_, cluster)| *cluster == shared.cluster_id.0) else {
            continue;
        };
        if let Some(member) = members.into_iter().find(|member| member.id == about) {
            return Word::Member(member.peer_urls);
        }
        word = Word::Stranger;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_core::replica::conf::{ConfChange, Kind};
    use cairn_proto::membershippb::{Member, RaftAttributes};

    const OWN: u64 = 1;

    fn places(ids: &[u64]) -> Places {
        ids.iter().map(|id| (*id, vec![format!("http://told{id}")])).collect()
    }

    fn members(changes: &[(Kind, u64)]) -> Members {
        let mut members = Members::default();
        for (kind, id) in changes {
            let raft_attributes =
                Some(RaftAttributes { peer_urls: vec![format!("http://applied{id}")], is_learner: false });
            let member = Some(Member { id: *id, raft_attributes, member_attributes: None });
            let (request_id, cluster_id, learners_max) = (0, 0, 0);
            members.apply(&ConfChange {
                request_id,
                kind: *kind,
                member_id: *id,
                cluster_id,
                member,
                learners_max,
            });
        }
        members
    }

    #[test]
    fn who_is_talked_to_and_who_is_asked_follows_what_is_applied() {
        use Kind::*;
        let told = Told::new(places(&[2, 3]), vec!["http://named".into()]);
        let hello =
            |from| Hello { from, peer_urls: vec![format!("http://guest{from}")], ..Default::default() };
        told.welcome(&hello(4));
        assert!(told.vouch(5, vec!["http://told5".into()]));
        let ids = |members: &Members| told.others(members, OWN).into_keys().collect::<Vec<_>>();
        let voices = |members: &Members| told.voices(members, OWN).into_iter().collect::<Vec<_>>().join(" ");

        let new = Members::default();
        assert_eq!(ids(&new), [2, 3, 4, 5], "it has applied nothing");
        assert_eq!(
            voices(&new),
            "http://named http://told2 http://told3 http://told5",
            "guests have no voice"
        );

        let founders = members(&[(AddVoter, 2), (AddVoter, 3), (Remove, 3)]);
        assert_eq!(ids(&founders), [4, 5], "one is a member, one is none any more");
        assert_eq!(voices(&founders), "http://applied2 http://named http://told5");

        let itself = members(&[(AddVoter, 2), (AddVoter, OWN)]);
        assert_eq!(ids(&itself), [5], "what was told at the start is over");
        assert_eq!(voices(&itself), "http://applied2 http://named http://told5");
        let all = members(&[(AddVoter, 2), (AddVoter, OWN), (AddVoter, 5)]);
        assert_eq!(
            (ids(&all), voices(&all)),
            (vec![], "http://applied2 http://applied5 http://named".into())
        );
        let gone = members(&[(AddVoter, 2), (AddVoter, OWN), (AddVoter, 5), (Remove, 5)]);
        assert_eq!((ids(&gone), voices(&gone)), (vec![], "http://applied2 http://named".into()));
    }

    #[test]
    fn what_is_kept_of_callers_is_bounded_and_a_refusal_is_forgotten_soon() {
        let told = Told::new(Places::new(), Vec::new());
        let now = Instant::now();
        for id in 0..2 * CALLERS_MAX as u64 {
            told.deny(id, now);
            let hello = Hello { from: id, peer_urls: vec!["http://a:1".into()], ..Default::default() };
            told.welcome(&hello);
            assert_eq!(told.vouch(id, Vec::new()), id < CALLERS_MAX as u64);
        }
        assert!(told.vouch(0, Vec::new()), "one that is there may move");
        let heard = told.heard();
        assert_eq!((heard.guests.len(), heard.denied.len()), (CALLERS_MAX, CALLERS_MAX));
        drop(heard);
        told.deny(0, now + DENIED / 2);
        assert!(told.is_denied(0, now) && !told.is_denied(0, now + DENIED), "also if it calls all the time");
        told.deny(7777, now + DENIED);
        assert_eq!(told.heard().denied.len(), 1);
    }
}
