// SPDX-License-Identifier: Apache-2.0
//! A watcher as a client sees it, and what it may be sent.
//!
//! Owns      how far one watcher has been told, over all its streams and all crashes.
//! Holds     ordered, whole, once, nothing left out, nothing early: each response is compared with the
//!           model's changes since the last one (WATCH-17, 18, 23, 26, 29, 36, 39).
//! Never     asks the member anything.

use crate::model::{Change, Model};
use bytes::Bytes;
use cairn_core::watch::Out;
use cairn_proto::{
    etcdserverpb::{ResponseHeader, WatchCreateRequest},
    mvccpb, serve,
};
use prost::Message;

#[derive(Debug)]
pub struct Watcher {
    pub request: WatchCreateRequest,
    pub watch_id: i64,
    pub created: bool,
    /// The first revision that it was not told of yet; `None` until it is known.
    pub next: Option<i64>,
    pub ended: bool,
    pub events: u64,
}

fn wants(request: &WatchCreateRequest, change: &Change) -> bool {
    let (key, end) = (&request.key[..], &request.range_end[..]);
    let inside = match end {
        [] => change.key == key,
        [0] => &change.key[..] >= key,
        end => &change.key[..] >= key && &change.key[..] < end,
    };
    let filtered = request.filters.contains(&i32::from(change.kv.is_none()));
    inside && !filtered
}

impl Watcher {
    pub fn new(request: WatchCreateRequest, watch_id: i64) -> Watcher {
        let next = (request.start_revision > 0).then_some(request.start_revision);
        Watcher { request, watch_id, created: false, next, ended: false, events: 0 }
    }

    /// After a crash: the same watcher goes on where it was, on a new stream.
    pub fn resume(&mut self, watch_id: i64) {
        self.created = false;
        self.watch_id = watch_id;
        self.request.start_revision = self.next.unwrap_or(0);
    }

    /// Whether nothing that it wants lies between what it was told and `to`.
    pub fn is_told(&self, model: &Model, to: i64) -> bool {
        let next = self.next.unwrap_or(i64::MAX);
        self.ended || owed(&self.request, model, next, to).next().is_none()
    }

    /// Takes one response that names it, or a progress of the whole stream.
    ///
    /// # Errors
    /// What rule was broken.
    pub fn take(&mut self, out: &Out, model: &Model, compacted: i64) -> Result<(), String> {
        if self.ended {
            return Err(format!("an ended watcher is sent {out:?}"));
        }
        match out {
            Out::Created { revision, .. } => {
                if std::mem::replace(&mut self.created, true) {
                    return Err("created twice".to_owned());
                }
                self.next.get_or_insert(revision + 1);
                return Ok(());
            }
            _ if !self.created => return Err(format!("before it was created: {out:?}")),
            _ => {}
        }
        let next = self.next.expect("known since it was created");
        match out {
            Out::Events { events, .. } => self.take_events(events, model, next, compacted),
            Out::Progress { revision, .. } => {
                let mut owed = owed(&self.request, model, next, *revision);
                if let Some((main, change)) = owed.find(|one| !may_be_gone(model, one, compacted)) {
                    return Err(format!("progress to {revision}, but {:?}@{main} was not sent", change.key));
                }
                self.next = Some(next.max(revision + 1));
                Ok(())
            }
            Out::Compacted { compact_revision, .. } => {
                self.ended = true;
                if next < *compact_revision && *compact_revision <= compacted {
                    Ok(())
                } else {
                    Err(format!("cut off at {compact_revision} while it needs {next}"))
                }
            }
            Out::Canceled { .. } => {
                self.ended = true;
                Ok(())
            }
            Out::Created { .. } | Out::Refused { .. } | Out::Revoked { .. } => {
                Err(format!("unexpected: {out:?}"))
            }
        }
    }

    fn take_events(
        &mut self,
        events: &[Bytes],
        model: &Model,
        next: i64,
        compacted: i64,
    ) -> Result<(), String> {
        let events: Vec<mvccpb::Event> =
            events.iter().map(|e| mvccpb::Event::decode(&e[..]).expect("events are messages")).collect();
        let last = events.last().and_then(|e| e.kv.as_ref()).map(|kv| kv.mod_revision);
        let to = last.ok_or("a response without events")?;
        let mut expected = owed(&self.request, model, next, to);
        for event in &events {
            let kv = event.kv.as_ref().expect("every event has its pair");
            let (main, change) = loop {
                let Some((main, change)) = expected.next() else {
                    return Err(format!("{:?}@{} was not owed", kv.key, kv.mod_revision));
                };
                let wanted = change.kv.clone().unwrap_or_else(|| mvccpb::KeyValue {
                    key: change.key.clone(),
                    mod_revision: main,
                    ..Default::default()
                });
                if *kv == wanted && event.r#type == i32::from(change.kv.is_none()) {
                    break (main, change);
                }
                if !may_be_gone(model, &(main, change), compacted) {
                    return Err(format!("{event:?} in place of {change:?}@{main}"));
                }
            };
            let before = self.request.prev_kv.then(|| model.at(&change.key, main - 1)).flatten();
            let creates = change.kv.as_ref().is_some_and(|kv| kv.create_revision == main);
            let prev = before.filter(|_| !creates);
            // A pair before that is compacted may be left out (WATCH-29).
            let left_out = event.prev_kv.is_none() && main - 1 < compacted;
            if event.prev_kv.as_ref() != prev && !left_out {
                return Err(format!("prev_kv {:?} in place of {prev:?}", event.prev_kv));
            }
        }
        if let Some((main, change)) = expected.find(|one| !may_be_gone(model, one, compacted)) {
            return Err(format!("{:?}@{main} is missing", change.key));
        }
        self.events += events.len() as u64;
        self.next = Some(to + 1);
        Ok(())
    }
}

/// How many messages a response becomes. All but the last say that there is more, each holds whole events and stays
/// below the limit unless it has one alone, and together they are the response (WATCH-32, WATCH-33).
///
/// # Errors
/// Which of that is not so.
pub fn fragments_of(out: &Out, limit: usize) -> Result<usize, String> {
    let Out::Events { revision, fragment, events, .. } = out else {
        return Err(format!("not events: {out:?}"));
    };
    let messages = out.clone().into_responses(ResponseHeader::default(), limit);
    let joined: Vec<&Bytes> = messages.iter().flat_map(|m| &m.events).collect();
    let at = |m: &serve::WatchResponse| m.header.as_ref().map(|header| header.revision);
    let flags_right = messages.iter().enumerate().all(|(i, m)| m.fragment == (i + 1 < messages.len()));
    let sizes_right = messages.iter().all(|m| m.events.len() == 1 || m.encoded_len() < limit);
    let whole = !fragment && messages.len() == 1;
    let right =
        joined.into_iter().eq(events) && messages.iter().all(|m| at(m) == Some(*revision)) && flags_right;
    if right && (whole || *fragment && sizes_right) {
        Ok(messages.len())
    } else {
        Err(format!("{out:?} in pieces of {limit} bytes: {messages:?}"))
    }
}

/// A change that another of the same key follows within its revision is nobody's newest: a compaction at that
/// revision drops it (COMPACT-5), and whoever begins there does not see it.
fn may_be_gone(model: &Model, (main, change): &(i64, &Change), compacted: i64) -> bool {
    let later = model.changes(*main).iter().skip_while(|other| !std::ptr::eq(*other, *change)).skip(1);
    *main <= compacted && later.into_iter().any(|other| other.key == change.key)
}

/// What a watcher is owed of revisions `from` to `to`, both included.
fn owed<'a>(
    request: &'a WatchCreateRequest,
    model: &'a Model,
    from: i64,
    to: i64,
) -> impl Iterator<Item = (i64, &'a Change)> {
    let revisions = from.max(2)..=to.min(model.revision());
    let changes = revisions.flat_map(|main| model.changes(main).iter().map(move |change| (main, change)));
    changes.filter(|(_, change)| wants(request, change))
}
