// SPDX-License-Identifier: Apache-2.0
//! The Watch stream: requests go to the member's half, its answers to the client.
//!
//! Owns      the turn-taking between the two directions.
//! Holds     a half-close of the client leaves the watchers running (WATCH-6).
//! Never     orders, joins or drops an answer.

use super::{
    message::{Encoding, Messages, framed},
    status::Status,
};
use crate::{front::body::MessageStream, member::WatchStream};
use bytes::{Bytes, BytesMut};
use cairn_proto::{errors, etcdserverpb::WatchRequest, serve::WatchResponse};
use futures_util::{FutureExt as _, stream};

/// Answers that are ready together leave together, up to this size.
const BATCH_BYTES: usize = 32 * 1024;

struct Watching {
    watchers: WatchStream,
    /// `None` after the client's half-close.
    messages: Option<Messages>,
    /// Taken from the client, and not yet by the watchers: they wait while answers lie unread.
    request: Option<WatchRequest>,
    encoding: Encoding,
}

enum Turn {
    Received(Result<Option<WatchRequest>, Status>),
    Taken,
    Response(Option<WatchResponse>),
}

pub fn stream(watchers: WatchStream, messages: Messages, encoding: Encoding) -> MessageStream {
    let watching = Watching { watchers, messages: Some(messages), request: None, encoding };
    Box::pin(stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(watching))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Watching {
    /// Serves requests until there is something to send.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            match self.turn().await {
                Turn::Received(request) => match request? {
                    Some(request) => self.request = Some(request),
                    None => self.messages = None,
                },
                Turn::Taken => self.request = None,
                Turn::Response(response) => {
                    let first = framed(&response.ok_or(errors::STOPPED)?, self.encoding);
                    return Ok(self.joined(first));
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let request = async {
            match (&self.request, &mut self.messages) {
                // May be dropped while it waits: the watchers have not seen it then.
                (Some(request), _) => {
                    self.watchers.request(request.clone()).await;
                    Turn::Taken
                }
                (None, Some(messages)) => Turn::Received(messages.next().await),
                (None, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            response = self.watchers.next() => Turn::Response(response),
            turn = request => turn,
        }
    }

    /// `first`, and behind it what is ready too.
    fn joined(&self, first: Bytes) -> Bytes {
        let mut joined = BytesMut::new();
        while joined.len().max(first.len()) < BATCH_BYTES {
            // The end of the stream is seen again by the next call.
            let Some(Some(response)) = self.watchers.next().now_or_never() else {
                break;
            };
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&framed(&response, self.encoding));
        }
        if joined.is_empty() { first } else { joined.freeze() }
    }
}
