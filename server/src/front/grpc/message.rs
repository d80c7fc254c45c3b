// SPDX-License-Identifier: Apache-2.0
//! Messages on the wire: tonic frames, packs and bounds them, this says how they are coded and counted.
//!
//! Owns      the codec of all calls, and grpc-go's texts for what tonic refuses.
//! Holds     1. a message's `Bytes` fields are slices of the buffer it was received into;
//!           2. an oversize message is refused from its head, before it is received or unpacked;
//!           3. [`Messages::next`] may be dropped at any await and called again.
//! Never     knows a service.

use super::status::{INTERNAL, RESOURCE_EXHAUSTED, Status, UNIMPLEMENTED};
use crate::metrics::Metrics;
use cairn_proto::errors;
use http::HeaderMap;
use prost::Message;
use std::{marker::PhantomData, sync::Arc};
use tonic::{
    Code, Streaming,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// What a call's buffers begin with: enough for most requests and answers.
const BUFFER_BYTES: usize = 1024;
/// Answers that are ready together leave together, up to about this size.
const BATCH_BYTES: usize = 32 * 1024;

/// How messages are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// What the client packs with, by its `grpc-encoding`. Answers are packed alike, as grpc-go does.
    pub fn of_request(headers: &HeaderMap) -> Result<Encoding, Status> {
        match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
            None | Some(b"identity") => Ok(Encoding::Identity),
            Some(b"gzip") => Ok(Encoding::Gzip),
            Some(other) => Err(Status::new(
                UNIMPLEMENTED,
                format!(
                    "grpc: Decompressor is not installed for grpc-encoding {:?}",
                    String::from_utf8_lossy(other)
                ),
            )),
        }
    }
}

/// Decodes requests `Q` and encodes answers `M`, and counts both.
pub struct Wire<Q, M> {
    metrics: Arc<Metrics>,
    /// Which of `cairn_proto::methods::ALL`.
    method: usize,
    messages: PhantomData<fn(Q) -> M>,
}

impl<Q, M> Wire<Q, M> {
    pub fn new(metrics: Arc<Metrics>, method: usize) -> Wire<Q, M> {
        Wire { metrics, method, messages: PhantomData }
    }
}

impl<Q, M> Clone for Wire<Q, M> {
    fn clone(&self) -> Wire<Q, M> {
        Wire::new(self.metrics.clone(), self.method)
    }
}

impl<Q: Message + Default + 'static, M: Message + 'static> Codec for Wire<Q, M> {
    type Encode = M;
    type Decode = Q;
    type Encoder = Wire<Q, M>;
    type Decoder = Wire<Q, M>;

    fn encoder(&mut self) -> Wire<Q, M> {
        self.clone()
    }

    fn decoder(&mut self) -> Wire<Q, M> {
        self.clone()
    }
}

impl<Q, M: Message> Encoder for Wire<Q, M> {
    type Item = M;
    type Error = tonic::Status;

    fn encode(&mut self, message: M, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        let bytes = message.encoded_len();
        to.reserve(bytes);
        message.encode_raw(to);
        self.metrics.grpc.sent(self.method);
        self.metrics.client_sent_bytes.add(bytes as u64);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BATCH_BYTES)
    }
}

impl<Q: Message + Default, M> Decoder for Wire<Q, M> {
    type Item = Q;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Q>, tonic::Status> {
        self.metrics.grpc.received(self.method);
        self.metrics.client_received_bytes.add(bytes::Buf::remaining(from) as u64);
        match Q::decode(from) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(tonic::Status::internal(format!("grpc: error unmarshalling request: {error}"))),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BATCH_BYTES)
    }
}

/// The messages of a request's body.
pub struct Messages<Q> {
    stream: Streaming<Q>,
    message_bytes_max: usize,
}

impl<Q> Messages<Q> {
    pub fn new(stream: Streaming<Q>, message_bytes_max: usize) -> Messages<Q> {
        Messages { stream, message_bytes_max }
    }

    /// The next message; `None` once the client has sent its last.
    pub async fn next(&mut self) -> Result<Option<Q>, Status> {
        self.stream.message().await.map_err(|status| refusal(&status, self.message_bytes_max))
    }

    /// The only message of a unary call.
    pub async fn only(&mut self) -> Result<Q, Status> {
        self.next().await?.ok_or_else(|| Status::new(INTERNAL, "grpc: the call carried no message"))
    }
}

/// What tonic refused, in grpc-go's code and words (LIMIT-2). Tonic tells the cause in its text alone.
fn refusal(status: &tonic::Status, bytes_max: usize) -> Status {
    let found = status.message().split_once("too large: found ").map(|(_, rest)| rest);
    match (status.code(), found.and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse().ok())) {
        (Code::OutOfRange, Some(len)) => {
            Status::new(errors::MESSAGE_TOO_LARGE.code, errors::message_too_large(len, bytes_max))
        }
        (Code::ResourceExhausted, _) => Status::new(
            RESOURCE_EXHAUSTED,
            format!("grpc: received message after decompression larger than max {bytes_max}"),
        ),
        (code, _) => Status::new(code as u32, status.message().to_owned()),
    }
}
