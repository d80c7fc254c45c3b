// SPDX-License-Identifier: Apache-2.0
//! The stream that a peer sends: a handshake, then batches of messages.
//!
//! Holds     no frame is larger than its reader allows, and what decodes has the form in which it is sent.

use bytes::Bytes;
use cairn::member::peers::wire::{Batch, Frames, Hello, frame};
use cairn_core::replica::peer::{MessageKind, PeerEntry, PeerMessage};
use cairn_engine::fuzz::Target;
use futures_util::FutureExt as _;
use http_body_util::Full;
use prost::Message as _;

pub const FRAMES: Target = Target { name: "peer-frames", run, fix, samples, anchors: super::spread };

const HELLO_BYTES_MAX: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A byte, the length, and the checksum of what follows.
const HEAD_BYTES: usize = 9;
const SUM_AT: usize = 5;

fn run(input: &[u8]) -> bool {
    let read = async {
        let mut frames = Frames::new(Full::new(Bytes::copy_from_slice(input)), HELLO_BYTES_MAX);
        let hello: Hello = frames.expect().await.ok()?;
        assert!(hello.encoded_len() <= HELLO_BYTES_MAX);
        frames.allow(BATCH_BYTES_MAX);
        let mut messages = 0;
        while let Some(bytes) = frames.next().await.ok()? {
            assert!(bytes.len() <= BATCH_BYTES_MAX);
            let batch = Batch::read(bytes).ok()?;
            assert_eq!(Batch::decode(batch.encode_to_vec().as_slice()).as_ref(), Ok(&batch));
            messages += batch.messages.iter().filter(|message| message.kind().is_some()).count();
        }
        Some(messages)
    };
    read.now_or_never().expect("a body that is there is not waited for").is_some_and(|messages| messages > 0)
}

/// Makes lengths and checksums right again: each frame has the length that it states, or reaches to the end.
fn fix(input: &mut Vec<u8>) {
    let mut at = 0;
    while at + HEAD_BYTES <= input.len() {
        let left = input.len() - at - HEAD_BYTES;
        let len = u32::from_be_bytes(input[at + 1..at + SUM_AT].try_into().expect("four bytes")) as usize;
        let len = len.min(left);
        input[at] = 0;
        input[at + 1..at + SUM_AT].copy_from_slice(&(len as u32).to_be_bytes());
        let end = at + HEAD_BYTES + len;
        let sum = crc32fast::hash(&input[at + HEAD_BYTES..end]);
        input[at + SUM_AT..at + HEAD_BYTES].copy_from_slice(&sum.to_be_bytes());
        at = end;
    }
    input.truncate(at);
}

fn samples() -> Vec<Vec<u8>> {
    let hello = Hello {
        cluster_id: 7,
        from: 1,
        to: 2,
        protocol_min: 1,
        protocol_max: 1,
        version: "0.1.0".into(),
        transfer: 0,
        peer_urls: vec!["http://a:1".into()],
        wanted: 3,
    };
    let message =
        |kind: MessageKind| PeerMessage { kind: kind as i32, to: 2, from: 1, term: 3, ..Default::default() };
    let entry = |index| PeerEntry { kind: 0, term: 3, index, data: Bytes::from_static(b"\x22\x03\x0a\x01k") };
    let append = PeerMessage {
        index: 4,
        log_term: 2,
        commit: 4,
        entries: (5..9).map(entry).collect(),
        ..message(MessageKind::Append)
    };
    let beat = PeerMessage { context: Bytes::from_static(&[7; 16]), ..message(MessageKind::Heartbeat) };
    let batch =
        |messages: &[&PeerMessage]| Batch { messages: messages.iter().map(|m| (*m).clone()).collect() };
    [vec![batch(&[&append])], vec![batch(&[&beat]), batch(&[&append, &beat]), batch(&[])]]
        .iter()
        .map(|batches| {
            let frames = batches.iter().map(frame);
            std::iter::once(frame(&hello)).chain(frames).flatten().collect()
        })
        .collect()
}
