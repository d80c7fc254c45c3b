// SPDX-License-Identifier: Apache-2.0
//! What goes between members: the handshake, batches of messages, and the framing of both.
//!
//! Owns      the paths of the peer service, its messages, and the head before each: gRPC's five bytes and a checksum.
//! Holds     1. a frame is never larger than its reader allows, whatever its head says;
//!           2. nothing is taken in that changed on its way: what a link or a proxy does must not become an entry;
//!           3. what is in a frame is counted before it is decoded: two bytes of it can become two hundred in memory.
//! Never     decides who may talk.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_core::replica::peer::PeerMessage;
use cairn_engine::snapshot::Position;
use futures_util::stream;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use tokio::sync::mpsc;

/// Streams of messages.
pub const TALK: &str = "/cairn.peer.v1.Peers/Talk";
/// Snapshots.
pub const SNAPSHOT: &str = "/cairn.peer.v1.Peers/Snapshot";
/// A member that has no store asks to be sent one.
pub const RESEND: &str = "/cairn.peer.v1.Peers/Resend";
/// Versions of this protocol that are spoken here.
pub const PROTOCOLS: std::ops::RangeInclusive<u32> = 1..=if cfg!(feature = "next") { 2 } else { 1 };
const HEAD_BYTES: usize = SUM_AT + size_of::<u32>();
/// Where the head has the checksum of what follows it.
const SUM_AT: usize = 5;

/// The first frame of a request: who speaks, to whom, and how.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub from: u64,
    #[prost(uint64, tag = "3")]
    pub to: u64,
    #[prost(uint32, tag = "4")]
    pub protocol_min: u32,
    #[prost(uint32, tag = "5")]
    pub protocol_max: u32,
    #[prost(string, tag = "6")]
    pub version: String,
    /// Of a snapshot: which transfer this is, so that one that broke off can go on.
    #[prost(uint64, tag = "7")]
    pub transfer: u64,
    /// Where the speaker listens, for one that has not heard of it.
    #[prost(string, repeated, tag = "8")]
    pub peer_urls: Vec<String>,
    /// Of a store that is asked for: the entry that it is to hold at least.
    #[prost(uint64, tag = "9")]
    pub wanted: u64,
}

impl Hello {
    /// Of a member to another of its cluster, with what this build speaks.
    pub fn new(cluster_id: u64, from: u64, to: u64) -> Hello {
        Hello {
            cluster_id,
            from,
            to,
            protocol_min: *PROTOCOLS.start(),
            protocol_max: *PROTOCOLS.end(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }
    }

    /// The newest version that both ends speak.
    pub fn protocol(&self) -> u32 {
        self.protocol_max.min(*PROTOCOLS.end())
    }
}

/// The first frame of an answer.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    #[prost(uint32, tag = "3")]
    pub protocol: u32,
    /// Of a snapshot: where the receiver is.
    #[prost(message, optional, tag = "4")]
    pub position: Option<At>,
}

/// A place in a snapshot.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct At {
    #[prost(uint64, tag = "1")]
    pub frames: u64,
    #[prost(uint64, tag = "2")]
    pub pages: u64,
    #[prost(uint64, tag = "3")]
    pub page: u64,
    #[prost(uint32, tag = "4")]
    pub digest: u32,
}

impl From<Position> for At {
    fn from(Position { frames, pages, page, digest }: Position) -> At {
        At { frames, pages, page, digest }
    }
}

impl From<At> for Position {
    fn from(At { frames, pages, page, digest }: At) -> Position {
        Position { frames, pages, page, digest }
    }
}

/// Messages that leave together.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<PeerMessage>,
}

/// Messages in one frame.
pub const MESSAGES_MAX: usize = 4096;
/// Entries in all messages of a frame: a mebibyte of them, and none is smaller than four bytes.
const ENTRIES_MAX: usize = 256 << 10;
/// Where a batch has its messages, and a message its entries.
const MESSAGES_TAG: u64 = 1;
const ENTRIES_TAG: u64 = 7;

impl Batch {
    /// The messages of a frame.
    ///
    /// # Errors
    /// If it holds something else, or more than any member sends at once.
    pub fn read(bytes: Bytes) -> Result<Batch, FrameError> {
        let (mut messages, mut entries) = (0, 0);
        each(&bytes, MESSAGES_TAG, |message| {
            messages += 1;
            each(message, ENTRIES_TAG, |_| {
                entries += 1;
                Ok(())
            })?;
            if messages > MESSAGES_MAX || entries > ENTRIES_MAX {
                return Err(FrameError::TooMany);
            }
            Ok(())
        })?;
        Ok(Batch::decode(bytes)?)
    }
}

/// Does this with each part of a message that has this tag. Only what our messages are made of is passed over.
fn each<'a>(
    mut bytes: &'a [u8],
    wanted: u64,
    mut take: impl FnMut(&'a [u8]) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let len = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX),
            5 => 4,
            _ => return Err(FrameError::Broken),
        };
        let part = bytes.split_off(..len).ok_or(FrameError::Broken)?;
        if key >> 3 == wanted {
            take(part)?;
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, FrameError> {
    prost::encoding::decode_varint(bytes).map_err(FrameError::Decode)
}

/// A message with its head.
pub fn frame(message: &impl Message) -> Bytes {
    let mut out = headed(message.encoded_len());
    message.encode_raw(&mut out);
    summed(out)
}

/// Bytes of another form with the same head: a piece of a snapshot.
pub fn raw_frame(piece: &[u8]) -> Bytes {
    let mut out = headed(piece.len());
    out.extend_from_slice(piece);
    summed(out)
}

/// Puts the sum of what follows the head into it.
fn summed(mut frame: BytesMut) -> Bytes {
    let sum = crc32fast::hash(&frame[HEAD_BYTES..]);
    frame[SUM_AT..HEAD_BYTES].copy_from_slice(&sum.to_be_bytes());
    frame.freeze()
}

fn headed(bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + bytes);
    out.put_u8(0);
    out.put_u32(u32::try_from(bytes).expect("messages and pieces are bounded far below"));
    out.put_u32(0);
    out
}

/// A body whose frames come out of `frames`, and that ends with its sender.
pub fn body<E>(frames: mpsc::Receiver<Bytes>) -> impl Body<Data = Bytes, Error = E> {
    let next = |mut frames: mpsc::Receiver<Bytes>| async {
        frames.recv().await.map(|bytes| (Ok(Frame::data(bytes)), frames))
    };
    StreamBody::new(stream::unfold(frames, next))
}

/// Why a stream of frames ended early.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("{0}")]
    Body(String),
    #[error("a frame of {found} bytes, more than {max}")]
    TooLarge { found: usize, max: usize },
    #[error("a frame that was cut, or is packed")]
    Broken,
    #[error("a frame of more than {MESSAGES_MAX} messages or {ENTRIES_MAX} entries")]
    TooMany,
    #[error("a message from {from:x} to {to:x} over the connection of another")]
    OfAnother { from: u64, to: u64 },
    #[error("a frame that changed on its way: its checksum is {found:#010x}, and was {stated:#010x}")]
    Changed { stated: u32, found: u32 },
    #[error("a frame that is not what was to come: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// The frames of a body.
pub struct Frames<B> {
    body: B,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Frames<B>
where
    B::Error: std::fmt::Display,
{
    /// Frames may be as large as this from now on.
    pub fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub fn new(body: B, bytes_max: usize) -> Frames<B> {
        Frames { body, buffer: BytesMut::new(), bytes_max }
    }

    /// The next frame's content; `None` at the end. May be dropped while it waits, and asked again.
    ///
    /// # Errors
    /// If the stream broke off, or is not one of frames.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(whole) = self.take()? {
                return Ok(Some(whole));
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Ok(data) = part.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(FrameError::Body(error.to_string())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Broken),
            }
        }
    }

    /// The same, decoded; a stream that ended is an error.
    ///
    /// # Errors
    /// As [`Frames::next`], and if the frame holds something else.
    pub async fn expect<M: Message + Default>(&mut self) -> Result<M, FrameError> {
        let frame = self.next().await?.ok_or(FrameError::Broken)?;
        Ok(M::decode(frame)?)
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((&[packed, a, b, c, d, sum @ ..], _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        if packed != 0 {
            return Err(FrameError::Broken);
        }
        if bytes > self.bytes_max {
            return Err(FrameError::TooLarge { found: bytes, max: self.bytes_max });
        }
        if self.buffer.len() < HEAD_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let content = self.buffer.split_to(bytes).freeze();
        let (stated, found) = (u32::from_be_bytes(sum), crc32fast::hash(&content));
        if stated != found {
            return Err(FrameError::Changed { stated, found });
        }
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_core::replica::peer::PeerEntry;
    use http_body_util::{Full, StreamBody};

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let hello = Hello { cluster_id: 7, from: 1, to: 2, ..Default::default() };
        let whole = [frame(&hello), frame(&Batch::default())].concat();
        let pieces =
            whole.iter().map(|b| Ok::<_, String>(http_body::Frame::data(Bytes::copy_from_slice(&[*b]))));
        let mut frames = Frames::new(StreamBody::new(futures_util::stream::iter(pieces)), 100);
        assert_eq!(frames.expect::<Hello>().await.expect("whole"), hello);
        assert_eq!(frames.expect::<Batch>().await.expect("whole"), Batch::default());
        assert!(frames.next().await.expect("the end").is_none());
    }

    #[test]
    fn what_is_in_a_frame_is_counted_before_it_is_decoded() {
        let of = |messages: usize, entries: usize| {
            let message = PeerMessage { entries: vec![PeerEntry::default(); entries], ..Default::default() };
            Bytes::from(Batch { messages: vec![message; messages] }.encode_to_vec())
        };
        assert_eq!(
            Batch::read(of(MESSAGES_MAX, 3)).expect("so many there may be").messages.len(),
            MESSAGES_MAX
        );
        assert_eq!(Batch::read(of(1, ENTRIES_MAX)).expect("so many, too").messages.len(), 1);
        for (messages, entries) in [(MESSAGES_MAX + 1, 0), (1, ENTRIES_MAX + 1), (2, ENTRIES_MAX / 2 + 1)] {
            let read = Batch::read(of(messages, entries));
            assert!(matches!(read, Err(FrameError::TooMany)), "{messages} messages of {entries} entries");
        }
        // A group could hide what is counted.
        for bytes in [&b"\x0b\x0c"[..], b"\x0a\x05", b"\x0a", b"\x0a\x02\x3a\x01", b"\x80"] {
            assert!(Batch::read(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_frame_of_which_any_bit_changed_is_an_error() {
        let hello = Hello { cluster_id: 7, from: 1, to: 2, ..Default::default() };
        for whole in [frame(&hello), raw_frame(b"a piece")] {
            for bit in 0..8 * whole.len() {
                let mut changed = whole.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                let mut frames = Frames::new(Full::new(Bytes::from(changed)), 100);
                assert!(frames.next().await.is_err(), "bit {bit}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_too_large_cut_or_packed_is_an_error() {
        for bytes in [
            &b"\0\xff\xff\xff\xff\0\0\0\0"[..],
            b"\0\0\0\0\x65\0\0\0\0",
            b"\0\0\0\0\x02\0\0\0\0x",
            b"\x01\0\0\0\0\0\0\0\0",
            b"\0\0",
        ] {
            let mut frames = Frames::new(Full::new(Bytes::copy_from_slice(bytes)), 100);
            assert!(frames.next().await.is_err(), "{bytes:?}");
        }
    }
}
