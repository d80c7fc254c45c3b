// SPDX-License-Identifier: Apache-2.0
//! The stream of lease renewals.
//!
//! Owns      the order: one renewal after the other (LEASE-11).
//! Never     decides whether a lease lives.

use super::{message::Messages, status::Status};
use crate::member::Member;
use cairn_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use futures_util::{Stream, stream};

/// Ends well when the client has sent its last renewal (LEASE-14).
pub fn keep_alive(
    member: Member,
    messages: Messages<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> {
    stream::unfold(Some(messages), move |messages| {
        let member = member.clone();
        async move {
            let mut messages = messages?;
            let request = match messages.next().await.transpose()? {
                Ok(request) => request,
                Err(status) => return Some((Err(status), None)),
            };
            match member.lease_keep_alive(request.id).await {
                Ok(response) => Some((Ok(response), Some(messages))),
                Err(refusal) => Some((Err(refusal.into()), None)),
            }
        }
    })
}
