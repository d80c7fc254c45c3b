// SPDX-License-Identifier: Apache-2.0
//! From an entry of an outbox to the messages on the wire.
//!
//! Owns      the header rules of Watch and the cutting into fragments.
//! Holds     fragments of one response leave back to back, and only the last says that it is the last
//!           (WATCH-33).
//! Never     decides what is sent: the hub did.

use super::outbox::Out;
use cairn_proto::{etcdserverpb::ResponseHeader, serve::WatchResponse};
use prost::Message;

/// The watch id of answers that belong to no watcher (WATCH-8, WATCH-37).
const NO_WATCHER: i64 = -1;

impl Out {
    /// The messages for this entry, usually one. `header` comes without a revision; `fragment_bytes` is the
    /// size from which a response is cut (WATCH-32).
    pub fn into_responses(self, header: ResponseHeader, fragment_bytes: usize) -> Vec<WatchResponse> {
        let header_at = |revision| Some(ResponseHeader { revision, ..header });
        let response = match self {
            Out::Created { watch_id, revision } => {
                WatchResponse { header: header_at(revision), watch_id, created: true, ..Default::default() }
            }
            Out::Refused { reason, revision } => WatchResponse {
                header: header_at(revision),
                watch_id: NO_WATCHER,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..Default::default()
            },
            Out::Canceled { watch_id, revision } => {
                WatchResponse { header: header_at(revision), watch_id, canceled: true, ..Default::default() }
            }
            Out::Revoked { watch_id, reason, revision } => WatchResponse {
                header: header_at(revision),
                watch_id,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..Default::default()
            },
            Out::Compacted { watch_id, compact_revision } => WatchResponse {
                header: header_at(0),
                watch_id,
                canceled: true,
                compact_revision,
                ..Default::default()
            },
            Out::Progress { watch_id, revision } => {
                WatchResponse { header: header_at(revision), watch_id, ..Default::default() }
            }
            Out::Events { watch_id, revision, fragment, events } => {
                let whole =
                    WatchResponse { header: header_at(revision), watch_id, events, ..Default::default() };
                if fragment && whole.events.len() > 1 && whole.encoded_len() >= fragment_bytes {
                    return fragments(whole, fragment_bytes);
                }
                whole
            }
        };
        vec![response]
    }
}

fn fragments(whole: WatchResponse, fragment_bytes: usize) -> Vec<WatchResponse> {
    let WatchResponse { header, watch_id, events, .. } = whole;
    let empty = WatchResponse { header, watch_id, fragment: true, ..Default::default() };
    let overhead = empty.encoded_len();
    let mut out = Vec::new();
    let (mut current, mut len) = (empty.clone(), overhead);
    for event in events {
        let more = 1 + prost::encoding::encoded_len_varint(event.len() as u64) + event.len();
        if !current.events.is_empty() && len + more >= fragment_bytes {
            out.push(std::mem::replace(&mut current, empty.clone()));
            len = overhead;
        }
        current.events.push(event);
        len += more;
    }
    current.fragment = false;
    out.push(current);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn sizes(event_bytes: &[usize], fragment: bool, limit: usize) -> Vec<(usize, bool)> {
        let events = event_bytes.iter().map(|n| Bytes::from(vec![0; *n])).collect();
        let out = Out::Events { watch_id: 3, revision: 9, fragment, events };
        let responses = out.into_responses(ResponseHeader::default(), limit);
        for response in &responses {
            assert_eq!(response.watch_id, 3);
            assert_eq!(response.header.as_ref().map(|h| h.revision), Some(9));
            assert!(!fragment || response.events.len() == 1 || response.encoded_len() < limit);
        }
        responses.iter().map(|r| (r.events.len(), r.fragment)).collect()
    }

    // rule: WATCH-32, WATCH-33
    #[test]
    fn a_large_response_is_cut_into_whole_events_if_the_client_asked() {
        const LIMIT: usize = 2_097_152;
        let four = [1_000_000; 4];
        assert_eq!(sizes(&four, true, LIMIT), [(2, true), (2, false)]);
        assert_eq!(sizes(&four, false, LIMIT), [(4, false)]);
        assert_eq!(sizes(&[500_000; 4], true, LIMIT), [(4, false)], "2 MB is below the limit");
        assert_eq!(sizes(&[3_000_000], true, LIMIT), [(1, false)], "one event is never cut");
        assert_eq!(sizes(&[3_000_000, 10, 3_000_000], true, LIMIT), [(1, true), (1, true), (1, false)]);
    }

    // rule: WATCH-8, WATCH-20, WATCH-31, WATCH-37
    #[test]
    fn every_kind_of_answer_has_its_header_and_flags() {
        let header = ResponseHeader { cluster_id: 1, member_id: 2, raft_term: 3, revision: 0 };
        let one = |out: Out| {
            let r = out.into_responses(header, 100).remove(0);
            (r.header.map_or(-9, |h| h.revision), r.watch_id, r.created, r.canceled, r.compact_revision)
        };
        assert_eq!(one(Out::Created { watch_id: 4, revision: 7 }), (7, 4, true, false, 0));
        assert_eq!(one(Out::Refused { reason: "no".into(), revision: 7 }), (7, -1, true, true, 0));
        assert_eq!(one(Out::Canceled { watch_id: 4, revision: 7 }), (7, 4, false, true, 0));
        let revoked = Out::Revoked { watch_id: 4, reason: "no", revision: 7 };
        assert_eq!(one(revoked), (7, 4, false, true, 0));
        assert_eq!(one(Out::Compacted { watch_id: 4, compact_revision: 5 }), (0, 4, false, true, 5));
        assert_eq!(one(Out::Progress { watch_id: -1, revision: 7 }), (7, -1, false, false, 0));
    }
}
