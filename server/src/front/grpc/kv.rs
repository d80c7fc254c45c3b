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
/// One piece. With the nine bytes of its frame's head it fills one record of TLS: a longer frame would take a second
/// record for nine bytes.
const PIECE_BYTES: usize = 16 * 1024 - 9;
/// What is made at a time.
const MADE_BYTES: usize = 4 * PIECE_BYTES;
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
    /// Made, and given out piece by piece.
    made: Bytes,
    /// Written, and followed by more in the same piece.
    ready: BytesMut,
    /// A pair that goes out unshared after `ready`.
    shared: Option<Bytes>,
    kvs: std::vec::IntoIter<Bytes>,
    tail: Option<Bytes>,
}

impl RangePieces {
    fn new(response: RangeResponse, len: usize) -> RangePieces {
        let RangeResponse { header, kvs, more, count } = response;
        let mut ready = BytesMut::with_capacity(MADE_BYTES + PAIR_BYTES_SHARED_MIN);
        ready.put_u8(0);
        ready.put_u32(u32::try_from(len).expect("the member bounds an answer below 4 GiB"));
        let head = RangeResponse { header, ..RangeResponse::default() };
        head.encode(&mut ready).expect("the buffer grows");
        let tail = RangeResponse { more, count, ..RangeResponse::default() }.encode_to_vec();
        RangePieces { made: Bytes::new(), ready, shared: None, kvs: kvs.into_iter(), tail: Some(tail.into()) }
    }
}

impl Iterator for RangePieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.made.is_empty() {
            self.made = self.make()?;
        }
        Some(self.made.split_to(self.made.len().min(PIECE_BYTES)))
    }
}

impl RangePieces {
    fn make(&mut self) -> Option<Bytes> {
        if let Some(shared) = self.shared.take() {
            return Some(shared);
        }
        while self.ready.len() < MADE_BYTES {
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
        let mut next = BytesMut::with_capacity(MADE_BYTES + PAIR_BYTES_SHARED_MIN);
        // The shared pair comes right after its key.
        if self.shared.is_none() && self.ready.len() >= MADE_BYTES {
            next.extend_from_slice(&self.ready.split_off(MADE_BYTES));
        }
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

    /// The pieces of an answer with pairs of these lengths, once they are seen to be right.
    fn pieces_of(lengths: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
        let response = RangeResponse {
            header: Some(ResponseHeader { revision: 7, ..ResponseHeader::default() }),
            kvs: lengths.into_iter().enumerate().map(|(i, len)| Bytes::from(vec![i as u8; len])).collect(),
            more: true,
            count: 1 << 40,
        };
        let whole = response.encode_to_vec();
        let Ok(Answer::Pieces(pieces, len)) = range(Ok(response), Encoding::Identity) else {
            panic!("{} bytes: not in pieces", whole.len());
        };
        let pieces: Vec<Bytes> = pieces.collect();
        let joined = pieces.concat();
        assert_eq!((joined[0], &joined[1..5]), (0, &(len as u32).to_be_bytes()[..]));
        assert!(joined[5..] == whole, "{} bytes", whole.len());
        pieces
    }

    // rule: LIMIT-3
    #[test]
    fn pieces_join_to_the_message_that_prost_writes() {
        for pair_bytes in [0, 1, 200, PAIR_BYTES_SHARED_MIN - 1, PAIR_BYTES_SHARED_MIN, 300_000] {
            pieces_of(vec![pair_bytes; 3 * PIECES_BYTES_MIN / (pair_bytes + 2) + 1]);
        }
        // A large pair wherever what is made at a time may end.
        for len in 0..1_100 {
            pieces_of([vec![1_000; MADE_BYTES / 1_002], vec![len, PAIR_BYTES_SHARED_MIN, 5]].concat());
        }
    }

    #[test]
    fn all_pieces_of_a_list_but_the_last_fill_a_record() {
        for pair_bytes in [1, 300, 5_000] {
            let pieces = pieces_of(vec![pair_bytes; 400_000 / pair_bytes]);
            let (last, others) = pieces.split_last().expect("some");
            assert!(others.iter().all(|piece| piece.len() == PIECE_BYTES), "{pair_bytes}");
            assert!(last.len() <= PIECE_BYTES, "{pair_bytes}");
        }
    }
}
