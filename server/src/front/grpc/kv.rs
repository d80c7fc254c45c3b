// SPDX-License-Identifier: Apache-2.0
//! Answers of KV that are more than one small message.
//!
//! Owns      the encoding of large range answers in pieces, and the chunks of `RangeStream`.
//! Holds     the pieces of an answer, joined, are the bytes that prost would write.
//! Never     reads the store.

use super::{
    Answer,
    message::{Encoding, Messages},
    status::Status,
};
use crate::member::{Member, RangeChunks, Refusal};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use cairn_proto::{
    etcdserverpb::RangeRequest,
    serve::{RangeResponse, RangeStreamResponse},
};
use futures_util::{Stream, stream};
use prost::{Message as _, encoding};

/// Answers above this go out in pieces, so that a large list is in memory once.
const PIECES_BYTES_MIN: usize = 64 * 1024;
/// One piece, which is one DATA frame or more.
const PIECE_BYTES: usize = 64 * 1024;
/// Pairs above this are pieces of their own, not copied.
const PAIR_BYTES_SHARED_MIN: usize = 16 * 1024;
/// The field `kvs` as a length-delimited key.
const KVS_KEY: u8 = 2 << 3 | 2;

/// The answer to a Range.
pub fn range(
    result: Result<RangeResponse, Refusal>,
    encoding: Encoding,
) -> Result<Answer<RangeResponse>, Status> {
    let response = result?;
    let len = response.encoded_len();
    if len < PIECES_BYTES_MIN || encoding == Encoding::Gzip {
        return Ok(Answer::Whole(response));
    }
    Ok(Answer::Pieces(RangePieces::new(response, len), len))
}

/// A `RangeResponse` with its head, made piece by piece.
pub struct RangePieces {
    /// Written and not yet given out.
    ready: BytesMut,
    /// A pair that goes out unshared after `ready`.
    shared: Option<Bytes>,
    kvs: std::vec::IntoIter<Bytes>,
    tail: Option<Bytes>,
}

impl RangePieces {
    fn new(response: RangeResponse, len: usize) -> RangePieces {
        let RangeResponse { header, kvs, more, count } = response;
        let mut ready = BytesMut::with_capacity(PIECE_BYTES + PAIR_BYTES_SHARED_MIN);
        ready.put_u8(0);
        ready.put_u32(u32::try_from(len).expect("the member bounds an answer below 4 GiB"));
        let head = RangeResponse { header, ..RangeResponse::default() };
        head.encode(&mut ready).expect("the buffer grows");
        let tail = RangeResponse { more, count, ..RangeResponse::default() }.encode_to_vec();
        RangePieces { ready, shared: None, kvs: kvs.into_iter(), tail: Some(tail.into()) }
    }
}

impl Iterator for RangePieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(shared) = self.shared.take() {
            return Some(shared);
        }
        while self.ready.len() < PIECE_BYTES {
            let Some(kv) = self.kvs.next() else {
                self.ready.extend_from_slice(&self.tail.take().unwrap_or_default());
                break;
            };
            self.ready.put_u8(KVS_KEY);
            encoding::encode_varint(kv.len() as u64, &mut self.ready);
            if kv.len() >= PAIR_BYTES_SHARED_MIN {
                self.shared = Some(kv);
                break;
            }
            self.ready.extend_from_slice(&kv);
        }
        if !self.ready.has_remaining() {
            return None;
        }
        let next = BytesMut::with_capacity(PIECE_BYTES + PAIR_BYTES_SHARED_MIN);
        Some(std::mem::replace(&mut self.ready, next).freeze())
    }
}

/// KV-27 to KV-31: the member cuts the chunks.
pub async fn range_stream(
    member: &Member,
    mut messages: Messages<RangeRequest>,
) -> Result<impl Stream<Item = Result<RangeStreamResponse, Status>> + use<>, Status> {
    let chunks = member.range_stream(messages.only().await?).await?;
    Ok(stream::unfold(Some(chunks), |chunks: Option<RangeChunks>| async move {
        let mut chunks = chunks?;
        match chunks.next().await? {
            Ok(chunk) => Some((Ok(chunk), Some(chunks))),
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::etcdserverpb::ResponseHeader;

    // rule: LIMIT-3
    #[test]
    fn pieces_join_to_the_message_that_prost_writes() {
        for pair_bytes in [0, 1, 200, PAIR_BYTES_SHARED_MIN - 1, PAIR_BYTES_SHARED_MIN, 300_000] {
            let pairs = 3 * PIECES_BYTES_MIN / (pair_bytes + 2) + 1;
            let response = RangeResponse {
                header: Some(ResponseHeader { revision: 7, ..ResponseHeader::default() }),
                kvs: (0..pairs).map(|i| Bytes::from(vec![i as u8; pair_bytes])).collect(),
                more: true,
                count: 1 << 40,
            };
            let whole = response.encode_to_vec();
            let Ok(Answer::Pieces(pieces, len)) = range(Ok(response), Encoding::Identity) else {
                panic!("{pair_bytes}: not in pieces");
            };
            let joined: Vec<u8> = pieces.flatten().collect();
            assert_eq!((joined[0], &joined[1..5]), (0, &(len as u32).to_be_bytes()[..]));
            assert!(joined[5..] == whole, "{pair_bytes}");
        }
    }
}
