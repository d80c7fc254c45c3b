// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets of snapshots: the parts of a stream, and the receiver that makes a store of one.

use std::path::Path;

use super::store::{SCHEMA, judge, options, store};
use super::{Target, fix_last, padded, start};
use crate::db::Db;
use crate::format::header::{Header as ExtentHeader, seal};
use crate::page::{PAGE_BYTES, PageId};
use crate::schema::InstallId;
use crate::sim::SimVfs;
use crate::snapshot::format::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, HEADER_BYTES, Header, TRAILER_BYTES,
    TRAILER_MAGIC, Trailer,
};
use crate::snapshot::{Position, Receiver};

pub(super) const HEADER: Target = Target {
    name: "snapshot-header",
    run: |input| {
        Header::decode(&padded(input)).is_ok_and(|header| header.encode() == padded::<HEADER_BYTES>(input))
    },
    fix: |input| fix_last(input, HEADER_BYTES),
    samples: || pieces(3).into_iter().take(1).collect(),
    anchors: |_| vec![0, 64],
};

pub(super) const FRAME: Target = Target {
    name: "snapshot-frame",
    run: |input| {
        let header = known();
        let Ok(frame) = FrameHeader::decode(&padded(input), &header) else { return false };
        assert!(frame.bytes() <= FRAME_BYTES_MAX);
        let pages = input.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        frame.check(&header, pages).is_ok()
    },
    fix: |input| {
        fix_frame(input, &known());
    },
    samples: || {
        pieces(3).into_iter().skip(1).filter(|piece| piece.starts_with(FRAME_MAGIC)).take(3).collect()
    },
    anchors: start,
};

pub(super) const TRAILER: Target = Target {
    name: "snapshot-trailer",
    run: |input| {
        let trailer = Trailer::decode(&padded(input), &known());
        trailer.is_ok_and(|trailer| {
            let again = padded(&trailer.encode(&known()));
            assert_eq!(Trailer::decode(&again, &known()), Ok(trailer));
            true
        })
    },
    fix: |input| fix_last(input, TRAILER_BYTES),
    samples: || pieces(3).into_iter().rev().take(1).collect(),
    anchors: |_| vec![0, 64],
};

pub(super) const RECEIVER: Target = Target {
    name: "snapshot-receiver",
    run: receive,
    fix: |input| fix_stream(input),
    samples: || vec![pieces(1).concat(), pieces(3).concat()],
    anchors: |input| {
        items(input).into_iter().flat_map(|(from, _)| [from, from + FRAME_HEADER_BYTES]).collect()
    },
};

/// A stream of so many checkpoints' store, piece by piece.
fn pieces(checkpoints: u64) -> Vec<Vec<u8>> {
    let disk = SimVfs::new();
    let snapshot = store(&disk, checkpoints).snapshot().expect("a snapshot").in_frames_of(1);
    let mut stream = snapshot.stream();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next().expect("a sound store") {
        pieces.push(piece.to_vec());
    }
    pieces
}

/// The header of the snapshot whose parts the samples are.
fn known() -> Header {
    thread_local! {
        static KNOWN: Header = Header::decode(&padded(&pieces(3)[0])).expect("a header");
    }
    KNOWN.with(Header::clone)
}

/// Receives the bytes, installs what came, and opens it. True if that went through.
fn receive(input: &[u8]) -> bool {
    let disk = SimVfs::new();
    disk.stop_recording();
    let (dir, temp) = (Path::new("/copy"), Path::new("/copy/incoming.tmp"));
    crate::io::Vfs::create_dir(&disk, dir).expect("a directory");
    let mut receiver = Receiver::new(temp, options(&disk)).expect("a file");
    let before = receiver.position();
    assert_eq!(before, Position::default());
    for chunk in input.chunks(3000) {
        let at = receiver.position();
        if judge(receiver.push(chunk)).is_none() {
            assert!(receiver.position().frames >= at.frames, "what was taken stays taken");
            return false;
        }
    }
    let Some(received) = judge(receiver.verify(SCHEMA, &mut |_| {})) else { return false };
    judge(received.install(&dir.join("engine.db"), InstallId(9))).expect("what was verified is installed");
    let (db, _) = Db::open(dir, SCHEMA, options(&disk)).expect("what was installed opens");
    db.verify().expect("and is whole");
    true
}

/// Where the items of a stream begin and end, as far as they say.
fn items(input: &[u8]) -> Vec<(usize, usize)> {
    let mut items = vec![(0, HEADER_BYTES.min(input.len()))];
    let mut at = HEADER_BYTES;
    while at < input.len() {
        let len = if input[at..].starts_with(TRAILER_MAGIC) {
            TRAILER_BYTES
        } else {
            let head: [u8; FRAME_HEADER_BYTES] = padded(&input[at..]);
            FRAME_HEADER_BYTES + usize::from(u16::from_le_bytes([head[4], head[5]])) * PAGE_BYTES
        };
        items.push((at, (at + len).min(input.len())));
        at += len;
    }
    items
}

/// Makes the checksums of a stream right: those of its extents, frames and ends, the counts and the digest.
fn fix_stream(input: &mut [u8]) {
    let mut header = input[..input.len().min(HEADER_BYTES)].to_vec();
    fix_last(&mut header, HEADER_BYTES);
    let Ok(known) = Header::decode(&padded(&header)) else { return };
    let len = input.len().min(HEADER_BYTES);
    input[..len].copy_from_slice(&header[..len]);
    let mut at = Position::default();
    for (from, to) in items(input).into_iter().skip(1) {
        let mut item = input[from..to].to_vec();
        if item.starts_with(TRAILER_MAGIC) && item.len() == TRAILER_BYTES {
            for (place, field) in [(24, at.frames), (32, at.pages), (40, u64::from(at.digest))] {
                let len = if place == 40 { 4 } else { 8 };
                item[place..place + len].copy_from_slice(&field.to_le_bytes()[..len]);
            }
            fix_last(&mut item, TRAILER_BYTES);
        } else if let Some(frame) = fix_frame(&mut item, &known) {
            at = at.after(&known, &frame);
        }
        input[from..to].copy_from_slice(&item);
    }
}

/// Makes the checksums of a frame right, as far as it is whole.
fn fix_frame(item: &mut [u8], of: &Header) -> Option<FrameHeader> {
    let (head, pages) = item.split_first_chunk_mut::<FRAME_HEADER_BYTES>()?;
    let [number, first] = [8, 16].map(|at| u64::from_le_bytes(padded(&head[at..at + 8])));
    let page = PageId::checked(first)?;
    let whole = pages.len() / PAGE_BYTES * PAGE_BYTES;
    let pages = pages.get_mut(..whole).filter(|pages| !pages.is_empty() && pages.len() < FRAME_BYTES_MAX)?;
    let mut at = 0;
    while let Ok(extent) = ExtentHeader::decode(&pages[at..]) {
        let end = (at + extent.extent_bytes()).min(pages.len());
        let page = PageId::checked(first + (at / PAGE_BYTES) as u64)?;
        seal(&mut pages[at..end], of.uuid, page, extent.birth);
        at = end;
    }
    let frame = FrameHeader::new(of, number, page, pages);
    *head = frame.encode(of);
    Some(frame)
}
