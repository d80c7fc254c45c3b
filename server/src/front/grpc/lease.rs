// SPDX-License-Identifier: Apache-2.0
//! The stream of lease renewals.
//!
//! Owns      the order: one renewal after the other (LEASE-11).
//! Never     decides whether a lease lives.

use super::message::{Encoding, Messages, framed};
use crate::{front::body::MessageStream, member::Member};
use cairn_proto::etcdserverpb::LeaseKeepAliveRequest;
use futures_util::stream;

/// Ends well when the client has sent its last renewal (LEASE-14).
pub fn keep_alive(member: Member, messages: Messages, encoding: Encoding) -> MessageStream {
    Box::pin(stream::unfold(Some(messages), move |messages| {
        let member = member.clone();
        async move {
            let mut messages = messages?;
            let request: LeaseKeepAliveRequest = match messages.next().await.transpose()? {
                Ok(request) => request,
                Err(status) => return Some((Err(status), None)),
            };
            match member.lease_keep_alive(request.id).await {
                Ok(response) => Some((Ok(framed(&response, encoding)), Some(messages))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        }
    }))
}
