// SPDX-License-Identifier: Apache-2.0
//! Inputs for one RPC, drawn: messages that are well formed and absurd, messages that are not well formed, frames
//! that are none, and metadata that says nothing.
//!
//! Owns      the kinds of inputs, and which answers each may get.
//! Holds     an answer is one of gRPC's own for what cannot be read, or a code and a text of the table of errors.
//! Never     expects a success or a failure of a message that is well formed: that is for its own tests.

use cairn_proto::errors::{self, Kind, NO_STATUS};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::describe::{Descriptors, Rpc, Wire, push_bytes, push_number, push_varint};
use super::wire::Answer;

const UNKNOWN: u32 = 2;
const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

/// Levels beyond what any decoder follows.
const TOO_DEEP: usize = 150;
/// A field that no message has.
const NO_FIELD: u32 = 9_999;
/// Every call ends by then, those that would wait for ever too.
const TIMEOUT: &[u8] = b"200m";

/// The kinds, each drawn as often as any other.
pub const KINDS: [&str; 15] = [
    "absurd values",
    "a length beyond the end",
    "a length of two gigabytes and more",
    "a number without an end",
    "another wire type",
    "text that is not UTF-8",
    "groups inside one another",
    "noise",
    "a message with bytes changed",
    "a frame of an unknown flag",
    "a frame that is packed and does not say how",
    "a frame cut short",
    "a frame of two gigabytes and more",
    "no frame",
    "metadata that says nothing",
];

/// Which answers an input may get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// It cannot be read.
    Unreadable,
    /// Either that, or whatever its message came to, if it is one.
    Any,
    /// This code.
    Code(u32),
    /// A code and a text of the table, or success.
    Listed,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Input {
    pub kind: usize,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
    allowed: Allowed,
}

impl Input {
    /// Whether the call may end so.
    pub fn allows(&self, answer: &Answer) -> bool {
        // Of an RPC that is not there nothing is read.
        if answer.code == UNIMPLEMENTED && answer.text.contains(" not there yet") {
            return true;
        }
        let unreadable =
            answer.code == INTERNAL && answer.text.starts_with("grpc: error unmarshalling request");
        match self.allowed {
            Allowed::Unreadable => unreadable,
            Allowed::Any => unreadable || is_listed(answer),
            Allowed::Code(code) => answer.code == code,
            Allowed::Listed => is_listed(answer),
        }
    }

    /// For the report of a failure.
    pub fn describe(&self) -> String {
        let hex: String = self.body.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
        format!("{} ({:?}), {:?}, body {hex}", KINDS[self.kind], self.allowed, self.headers)
    }
}

/// Whether a code and a text are those of the table. Lock and election lose the codes of others (LOCK-11).
fn is_listed(answer: &Answer) -> bool {
    let Answer { code, text } = answer;
    let listed = |(kind, error): &(Kind, errors::WireError)| {
        let sent =
            !matches!(kind, Kind::CancelReason | Kind::StatusErrors | Kind::ClientOnly | Kind::ClientRetry);
        let codes = [error.code, UNKNOWN];
        sent && error.code != NO_STATUS && codes.contains(code) && error.text == text
    };
    *code == 0
        || errors::ALL.iter().any(listed)
        || *code == RESOURCE_EXHAUSTED && text.starts_with("grpc: received message larger than max")
}

/// A frame around a message: gRPC's five bytes before it.
fn frame(message: &[u8]) -> Vec<u8> {
    headed(0, message.len() as u32, message)
}

fn headed(flag: u8, len: u32, message: &[u8]) -> Vec<u8> {
    [&[flag], &len.to_be_bytes()[..], message].concat()
}

/// An input of one kind.
pub fn draw(kind: usize, descriptors: &Descriptors, rpc: &Rpc, rng: &mut ChaCha8Rng) -> Input {
    let mut headers = vec![("grpc-timeout", TIMEOUT.to_vec())];
    let message = descriptors.message(&rpc.request, &mut |below| rng.random_range(0..below));
    let (body, allowed) = match kind {
        0 => (frame(&message), Allowed::Listed),
        1 => {
            let mut bytes = message;
            push_varint(&mut bytes, u64::from(NO_FIELD) << 3 | 2);
            push_varint(&mut bytes, rng.random_range(4..100));
            bytes.extend_from_slice(b"abc");
            (frame(&bytes), Allowed::Unreadable)
        }
        2 => {
            let mut bytes = message;
            let known = descriptors.fields(&rpc.request).into_iter().find(|(_, wire)| *wire == Wire::Bytes);
            push_varint(&mut bytes, u64::from(known.map_or(NO_FIELD, |(field, _)| field)) << 3 | 2);
            push_varint(&mut bytes, [1 << 31, (1 << 31) - 1, u64::MAX, 1 << 40][rng.random_range(0..4)]);
            (frame(&bytes), Allowed::Unreadable)
        }
        3 => {
            let mut bytes = message;
            bytes.extend_from_slice(&[0xff; 11]);
            (frame(&bytes), Allowed::Unreadable)
        }
        4 => {
            let mut bytes = message;
            match descriptors.fields(&rpc.request).first() {
                Some((field, Wire::Varint)) => push_bytes(&mut bytes, *field, b"x"),
                Some((field, Wire::Bytes)) => push_number(&mut bytes, *field, 7),
                // The end of a group that was not begun.
                None => push_varint(&mut bytes, u64::from(NO_FIELD) << 3 | 4),
            }
            (frame(&bytes), Allowed::Unreadable)
        }
        5 => match descriptors.texts(&rpc.request).first() {
            Some(field) => {
                let mut bytes = message;
                push_bytes(&mut bytes, *field, &[b'a', 0xff, 0xc0, b'b']);
                (frame(&bytes), Allowed::Unreadable)
            }
            // It has no text: the bytes of a reserved wire type.
            None => (frame(&[message.as_slice(), &[0x0f]].concat()), Allowed::Unreadable),
        },
        6 => {
            let mut bytes = message;
            (0..TOO_DEEP).for_each(|_| push_varint(&mut bytes, u64::from(NO_FIELD) << 3 | 3));
            (0..TOO_DEEP).for_each(|_| push_varint(&mut bytes, u64::from(NO_FIELD) << 3 | 4));
            (frame(&bytes), Allowed::Unreadable)
        }
        7 => {
            let noise: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
            (frame(&noise), Allowed::Any)
        }
        8 => {
            let mut bytes = message;
            for _ in 0..rng.random_range(1..4) {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }
            }
            (frame(&bytes), Allowed::Any)
        }
        9 => (headed(rng.random_range(2..=255), message.len() as u32, &message), Allowed::Code(INTERNAL)),
        10 => {
            if rng.random() {
                headers.push(("grpc-encoding", b"gzip".to_vec()));
            }
            // Nothing that begins as gzip does.
            let packed = [&[0x1e], message.as_slice()].concat();
            (headed(1, packed.len() as u32, &packed), Allowed::Code(INTERNAL))
        }
        11 => {
            let begun = [message.as_slice(), &[8]].concat();
            let whole = headed(0, begun.len() as u32 + rng.random_range(1..1000), &begun);
            let cut = if rng.random() { whole.len() } else { rng.random_range(1..5) };
            (whole[..cut].to_vec(), Allowed::Code(INTERNAL))
        }
        12 => {
            let len = [1 << 31, (1 << 31) - 1, u32::MAX, 3 << 20][rng.random_range(0..4)];
            (headed(0, len, &message), Allowed::Code(RESOURCE_EXHAUSTED))
        }
        // A stream of no requests is one that has nothing to say yet.
        13 => (Vec::new(), if rpc.takes_many { Allowed::Listed } else { Allowed::Code(INTERNAL) }),
        _ => {
            let (name, value, allowed): (_, &[u8], _) = match rng.random_range(0..4) {
                0 => ("grpc-timeout", b"soon", Allowed::Code(INTERNAL)),
                1 => ("grpc-encoding", b"br", Allowed::Code(UNIMPLEMENTED)),
                2 => ("client-api-version", b"3.\xff\xfe", Allowed::Code(INVALID_ARGUMENT)),
                _ => ("token", b"\xff\x80 no token", Allowed::Any),
            };
            headers.retain(|(other, _)| *other != name);
            headers.push((name, value.to_vec()));
            (frame(&message), allowed)
        }
    };
    Input { kind, headers, body, allowed }
}
