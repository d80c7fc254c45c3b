// SPDX-License-Identifier: Apache-2.0
//! Answers, checked without building messages.
//!
//! Owns      what a right answer to each operation looks like.
//! Holds     decoding is total: any bytes give an answer or a reason.
//! Never     copies a key or a value.

use crate::request::{GRPC_HEAD_BYTES, Operation};

/// Why a body is not the answer it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong(pub &'static str);

/// The revision in the header of an answer of KV, and the pairs and the count that came with it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Answer {
    pub revision: u64,
    pub pairs: u64,
    pub count: u64,
}

/// Checks the body of an answer: one whole message with what the operation must bring.
pub fn check(operation: Operation, body: &[u8]) -> Result<Answer, Wrong> {
    let answer = read(operation, message(body)?)?;
    match operation {
        Operation::Get | Operation::GetSerializable if answer.pairs != 1 => {
            Err(Wrong("a get found no pair: load the keys first"))
        }
        Operation::Range | Operation::List if answer.pairs == 0 => {
            Err(Wrong("a range found no pair: load the keys first"))
        }
        Operation::Txn if answer.count == 0 => Err(Wrong("a txn found no key: load the keys first")),
        _ => Ok(answer),
    }
}

/// As [`check`], but nothing need be found.
pub fn read_range(body: &[u8]) -> Result<Answer, Wrong> {
    read(Operation::Range, message(body)?)
}

/// The message of an answer, without its head.
pub fn message(body: &[u8]) -> Result<&[u8], Wrong> {
    let (head, message) = body.split_at_checked(GRPC_HEAD_BYTES).ok_or(Wrong("the answer has no message"))?;
    if head[0] != 0 {
        return Err(Wrong("the answer is compressed, which was not asked for"));
    }
    if u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize != message.len() {
        return Err(Wrong("the answer is not one whole message"));
    }
    Ok(message)
}

/// Reads the fields that PutResponse, RangeResponse and TxnResponse share or have under one number: 1 the
/// header, 2 a pair of a range or `succeeded` of a txn, 4 the count of a range.
fn read(operation: Operation, message: &[u8]) -> Result<Answer, Wrong> {
    let mut answer = Answer::default();
    let mut header = None;
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        match (field, operation) {
            ((1, Value::Bytes(bytes)), _) => header = Some(bytes),
            ((2, Value::Varint(succeeded)), Operation::Txn) => answer.count = succeeded,
            ((2, Value::Bytes(_)), _) => answer.pairs += 1,
            ((4, Value::Varint(count)), _) => answer.count = count,
            _ => {}
        }
    }
    let mut header = Fields(header.ok_or(Wrong("the answer has no header"))?);
    while let Some(field) = header.next()? {
        if let (3, Value::Varint(revision)) = field {
            answer.revision = revision;
        }
    }
    if answer.revision == 0 {
        return Err(Wrong("the answer has no revision"));
    }
    Ok(answer)
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The top level of an encoded message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Wrong> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| CUT)?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Wrong("the answer has a field of an unknown wire type")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Wrong("the answer has a number of more than ten bytes"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Wrong> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }
}

const CUT: Wrong = Wrong("the answer ends inside a field");

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proto::etcdserverpb::{RangeResponse, ResponseHeader, TxnResponse};
    use cairn_proto::mvccpb::KeyValue;
    use prost::Message;

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend((bytes.len() as u32).to_be_bytes());
        frame.extend(bytes);
        frame
    }

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision, raft_term: 4 })
    }

    fn range(pairs: usize) -> RangeResponse {
        let pair = KeyValue { key: "k".into(), value: vec![7; 300].into(), ..Default::default() };
        RangeResponse { header: header(9), kvs: vec![pair; pairs], more: true, count: 1_000_000 }
    }

    #[test]
    fn a_range_tells_its_pairs_and_its_count() {
        let answer = check(Operation::Range, &framed(&range(3)));
        assert_eq!(answer, Ok(Answer { revision: 9, pairs: 3, count: 1_000_000 }));
        assert_eq!(read_range(&framed(&range(0))).map(|a| a.pairs), Ok(0));
    }

    #[test]
    fn an_answer_without_what_was_asked_for_is_wrong() {
        assert!(check(Operation::Get, &framed(&range(0))).is_err());
        assert!(check(Operation::Get, &framed(&range(1))).is_ok());
        assert!(check(Operation::Count, &framed(&RangeResponse { header: None, ..range(0) })).is_err());
        let txn = |succeeded| framed(&TxnResponse { header: header(5), succeeded, responses: vec![] });
        assert!(check(Operation::Txn, &txn(true)).is_ok());
        assert!(check(Operation::Txn, &txn(false)).is_err());
    }

    #[test]
    fn every_cut_and_every_flipped_byte_gives_an_answer_or_a_reason() {
        let whole = framed(&range(2));
        for len in 0..whole.len() {
            assert!(check(Operation::Range, &whole[..len]).is_err(), "cut to {len}");
        }
        let mut wrong = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            wrong += usize::from(check(Operation::Range, &bytes).is_err());
        }
        assert!(wrong > 10, "flipped lengths and tags are noticed: {wrong} of {}", whole.len());
    }
}
