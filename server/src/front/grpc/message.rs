// SPDX-License-Identifier: Apache-2.0
//! Messages on the wire: five bytes of head, then the message.
//!
//! Owns      taking them out of a request's frames, and putting them into an answer's.
//! Holds     1. a message that lies in one frame is not copied: its `Bytes` fields are slices of the frame;
//!           2. an oversize message is refused from its head, before it is received or unpacked;
//!           3. [`Messages::next`] may be dropped at any await and called again.
//! Never     knows a service.

use super::status::{INTERNAL, RESOURCE_EXHAUSTED, Status, UNIMPLEMENTED};
use crate::metrics::Metrics;
use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::errors;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use prost::Message;
use std::{future::poll_fn, io::Read as _, pin::Pin, sync::Arc};

const HEAD_BYTES: usize = 5;
/// Below this a compressed message is larger than a plain one.
const COMPRESS_BYTES_MIN: usize = 128;

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

/// The messages of a request's body.
pub struct Messages {
    incoming: Incoming,
    encoding: Encoding,
    message_bytes_max: usize,
    metrics: Arc<Metrics>,
    method: usize,
    /// Received and not yet taken. At most one of the two holds bytes.
    whole: Bytes,
    joining: BytesMut,
}

impl Messages {
    pub fn new(
        incoming: Incoming,
        encoding: Encoding,
        message_bytes_max: usize,
        metrics: Arc<Metrics>,
        method: usize,
    ) -> Messages {
        let (whole, joining) = (Bytes::new(), BytesMut::new());
        Messages { incoming, encoding, message_bytes_max, metrics, method, whole, joining }
    }

    /// The next message; `None` once the client has sent its last.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if !self.fill(HEAD_BYTES).await? {
            return if self.whole.is_empty() && self.joining.is_empty() {
                Ok(None)
            } else {
                Err(unexpected_end())
            };
        }
        let head: [u8; HEAD_BYTES] = self.whole[..HEAD_BYTES].try_into().expect("filled");
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > self.message_bytes_max {
            let text = errors::message_too_large(len, self.message_bytes_max);
            return Err(Status::new(errors::MESSAGE_TOO_LARGE.code, text));
        }
        if !self.fill(HEAD_BYTES + len).await? {
            return Err(unexpected_end());
        }
        let mut message = self.whole.split_to(HEAD_BYTES + len).split_off(HEAD_BYTES);
        match (head[0], self.encoding) {
            (0, _) => {}
            (1, Encoding::Gzip) => message = unpacked(&message, self.message_bytes_max)?,
            (1, Encoding::Identity) => {
                return Err(Status::new(
                    INTERNAL,
                    "grpc: compressed flag set with identity or empty encoding",
                ));
            }
            (flag, _) => {
                return Err(Status::new(
                    INTERNAL,
                    format!("grpc: received unexpected payload format {flag}"),
                ));
            }
        }
        self.metrics.grpc.received(self.method);
        self.metrics.client_received_bytes.add(message.len() as u64);
        let message = M::decode(message)
            .map_err(|error| Status::new(INTERNAL, format!("grpc: error unmarshalling request: {error}")))?;
        Ok(Some(message))
    }

    /// The only message of a unary call.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        self.next().await?.ok_or_else(|| Status::new(INTERNAL, "grpc: the call carried no message"))
    }

    /// Receives until `whole` has `need` bytes; false if the client ended before.
    async fn fill(&mut self, need: usize) -> Result<bool, Status> {
        loop {
            if !self.joining.is_empty() && self.joining.len() >= need {
                self.whole = std::mem::take(&mut self.joining).freeze();
            }
            if self.whole.len() >= need {
                return Ok(true);
            }
            let Some(chunk) = self.chunk().await? else {
                return Ok(false);
            };
            if self.whole.is_empty() && self.joining.is_empty() {
                self.whole = chunk;
                continue;
            }
            if self.joining.is_empty() {
                self.joining.reserve(need.max(self.whole.len() + chunk.len()));
                self.joining.extend_from_slice(&std::mem::take(&mut self.whole));
            }
            self.joining.extend_from_slice(&chunk);
        }
    }

    /// The data of the next frame that has some.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match poll_fn(|context| Pin::new(&mut self.incoming).poll_frame(context)).await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                // The connection or the stream is gone, and so is whoever could read the status.
                Some(Err(_)) => return Err(errors::CONTEXT_CANCELED.into()),
            }
        }
    }
}

fn unexpected_end() -> Status {
    Status::new(INTERNAL, "unexpected EOF")
}

/// Unpacks at most `bytes_max` bytes: a small message can unfold without end.
fn unpacked(message: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity(message.len().saturating_mul(2).min(bytes_max));
    let read = flate2::read::GzDecoder::new(message).take(bytes_max as u64 + 1).read_to_end(&mut out);
    match read {
        Err(error) => {
            Err(Status::new(INTERNAL, format!("grpc: failed to decompress the received message: {error}")))
        }
        Ok(len) if len > bytes_max => Err(Status::new(
            RESOURCE_EXHAUSTED,
            format!("grpc: received message after decompression larger than max {bytes_max}"),
        )),
        Ok(_) => Ok(out.into()),
    }
}

/// One message with its head.
pub fn framed<M: Message>(message: &M, encoding: Encoding) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + len);
    put_head(&mut out, 0, len);
    message.encode(&mut out).expect("the buffer grows");
    match encoding {
        Encoding::Gzip if len >= COMPRESS_BYTES_MIN => packed(&out[HEAD_BYTES..]),
        _ => out.freeze(),
    }
}

/// The head of a message of `len` bytes.
pub fn put_head(out: &mut impl BufMut, flag: u8, len: usize) {
    out.put_u8(flag);
    out.put_u32(u32::try_from(len).expect("a message is below 4 GiB"));
}

fn packed(message: &[u8]) -> Bytes {
    let mut encoder = flate2::bufread::GzEncoder::new(message, flate2::Compression::fast());
    let mut out = vec![0; HEAD_BYTES];
    encoder.read_to_end(&mut out).expect("reads from memory do not fail");
    let len = out.len() - HEAD_BYTES;
    put_head(&mut &mut out[..HEAD_BYTES], 1, len);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::etcdserverpb::PutRequest;

    #[test]
    fn a_packed_message_is_bounded_when_it_unfolds() {
        let put = PutRequest { value: Bytes::from(vec![7; 100_000]), ..PutRequest::default() };
        let frame = framed(&put, Encoding::Gzip);
        assert_eq!(frame[0], 1);
        assert!(frame.len() < 1_000, "{}", frame.len());
        let message = unpacked(&frame[HEAD_BYTES..], 200_000).expect("within the bound");
        assert_eq!(PutRequest::decode(message), Ok(put));
        let refused = unpacked(&frame[HEAD_BYTES..], 99_999).expect_err("beyond the bound");
        assert_eq!(refused.code, RESOURCE_EXHAUSTED);
        assert_eq!(unpacked(b"no gzip", 100).expect_err("no gzip").code, INTERNAL);
    }

    #[test]
    fn a_small_message_is_not_packed() {
        assert_eq!(framed(&PutRequest::default(), Encoding::Gzip), [0u8, 0, 0, 0, 0].as_slice());
    }
}
