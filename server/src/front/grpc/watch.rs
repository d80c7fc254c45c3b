// SPDX-License-Identifier: Apache-2.0
//! The Watch stream: requests go to the member's half, its answers to the client.
//!
//! Owns      the turn-taking between the two directions.
//! Holds     a half-close of the client leaves the watchers running (WATCH-6).
//! Never     orders, joins or drops an answer.

use super::{message::Messages, status::Status};
use crate::{failpoints::pass, member::WatchStream};
use cairn_proto::{errors, etcdserverpb::WatchRequest, serve::WatchResponse};
use futures_util::{Stream, stream};

struct Watching {
    watchers: WatchStream,
    /// `None` after the client's half-close.
    messages: Option<Messages<WatchRequest>>,
    /// Taken from the client, and not yet by the watchers: they wait while answers lie unread.
    request: Option<WatchRequest>,
}

enum Turn {
    Received(Result<Option<WatchRequest>, Status>),
    Taken,
    Response(Option<WatchResponse>),
}

pub fn stream(
    watchers: WatchStream,
    messages: Messages<WatchRequest>,
) -> impl Stream<Item = Result<WatchResponse, Status>> {
    let watching = Watching { watchers, messages: Some(messages), request: None };
    stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(response) => Some((Ok(response), Some(watching))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl Watching {
    /// Serves requests until there is something to send.
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            match self.turn().await {
                Turn::Received(request) => match request? {
                    Some(request) => self.request = Some(request),
                    None => self.messages = None,
                },
                Turn::Taken => self.request = None,
                Turn::Response(response) => {
                    pass!("beforeSendWatchResponse");
                    return Ok(response.ok_or(errors::STOPPED)?);
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
}
