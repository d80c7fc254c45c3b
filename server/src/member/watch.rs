// SPDX-License-Identifier: Apache-2.0
//! One Watch stream, as the gRPC service uses it.
//!
//! Owns      the stream's place in the hub, and the fragments that are still to be sent.
//! Holds     1. requests are answered in their order (WATCH-2), and are read no further while the client
//!              leaves too many answers unread;
//!           2. a stream that is dropped takes its watchers along.
//! Never     holds the hub's lock while it waits.

use super::{
    Member,
    auth::cancel_reason,
    shared::{Shared, wake_all},
};
use cairn_core::{
    auth::needs,
    watch::{Hub, Outbox, StreamId},
};
use cairn_proto::{etcdserverpb as pb, serve};
use pb::watch_request::RequestUnion;
use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
};

/// The server's half of one Watch stream. Its two ends may be used by two tasks.
pub struct WatchStream {
    member: Member,
    id: StreamId,
    outbox: Arc<Outbox>,
    fragments: Mutex<VecDeque<serve::WatchResponse>>,
}

impl Member {
    /// Opens a stream without watchers.
    pub fn watch_stream(&self) -> WatchStream {
        let catchup = self.shared.catchup.clone();
        let room = Arc::new(move || catchup.extend([()]));
        let (id, outbox) = self.shared.hub().open_stream(self.shared.now_ms(), room);
        if self.shared.is_ended() {
            outbox.close();
        }
        WatchStream { member: self.clone(), id, outbox, fragments: Mutex::default() }
    }
}

impl WatchStream {
    /// Handles one request of the client. What it is answered comes out of [`WatchStream::next`].
    pub async fn request(&self, r: pb::WatchRequest) {
        poll_fn(|cx| self.outbox.poll_answerable(cx)).await;
        // An unset union, or one that is not known, is ignored (WATCH-1).
        match r.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.with_hub(|hub, now| hub.cancel(self.id, cancel.watch_id, now));
            }
            Some(RequestUnion::ProgressRequest(_)) => self.with_hub(|hub, _| hub.progress(self.id)),
            None => {}
        }
    }

    /// Creates a watcher, if the caller may read what it watches (WATCH-11, WATCH-12). That is judged under the
    /// hub's lock: rights that end later find the watcher there.
    async fn create(&self, create: &pb::WatchCreateRequest) {
        let auth = &self.shared().auth;
        let by = if create.start_revision < 0 { Ok(None) } else { self.member.identity().await };
        self.with_hub(|hub, now| {
            let judged = by.and_then(|by| {
                if auth.enabled() && create.start_revision >= 0 {
                    needs::watch(&auth.auth().grants(by.as_ref()), create)?;
                }
                Ok(by.map(|by| by.user))
            });
            match judged {
                Ok(owner) => hub.create_for(owner, self.id, create, now),
                Err(refusal) => hub.refuse(self.id, cancel_reason(refusal), now),
            }
        });
    }

    /// The next response. May be dropped while it waits; `None` once the member has stopped.
    pub async fn next(&self) -> Option<serve::WatchResponse> {
        if let Some(fragment) = self.fragments().pop_front() {
            return Some(fragment);
        }
        let out = poll_fn(|cx| self.outbox.poll_pop(cx)).await?;
        let fragment_bytes = self.shared().config.fragment_bytes();
        let mut responses = out.into_responses(self.member.header_at(0), fragment_bytes).into_iter();
        let first = responses.next();
        self.fragments().extend(responses);
        first
    }

    fn fragments(&self) -> MutexGuard<'_, VecDeque<serve::WatchResponse>> {
        self.fragments.lock().expect("nothing fails under this lock")
    }

    fn shared(&self) -> &Shared {
        &self.member.shared
    }

    /// Runs a change of the hub; `now` is the store's revision, taken under the hub's lock so that no
    /// revision falls between it and the change (WATCH-7).
    fn with_hub(&self, change: impl FnOnce(&mut Hub, i64)) {
        let (wakers, lagging) = {
            let mut hub = self.shared().hub();
            let now = self.shared().reader.revision().unwrap_or(hub.revision()).max(hub.revision());
            change(&mut hub, now);
            (hub.take_wakers(), hub.wants_plan())
        };
        wake_all(wakers);
        if lagging {
            self.shared().catchup.extend([()]);
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        // The hub's lock is only poisoned once the member has failed.
        if let Ok(mut hub) = self.member.shared.hub.lock() {
            hub.close_stream(self.id);
        }
    }
}
