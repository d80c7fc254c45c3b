// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets of the log: the header of a segment, a batch with its records, recovery from several segments, and the
//! part of a log that is in a backup.
//!
//! Owns      how several segments, and what the tree file proves, are one input.

use std::path::Path;

use bytes::Bytes;

use super::{Target, fix_last, pages, start};
use crate::io::Vfs;
use crate::page::PAGE_BYTES;
use crate::schema::InstallId;
use crate::sim::{SimVfs, SplitMix};
use crate::wal::fuzz::{self, Outcome, fix_checksums, recover_any};
use crate::wal::{Base, Entry, Evidence, HardState, LogPart, Record, Wal, WalOptions};

const INSTALL: InstallId = InstallId(0x5eed);

pub(super) const SEGMENT_HEADER: Target = Target {
    name: "log-segment-header",
    run: fuzz::segment_header,
    fix: |input| fix_last(input, PAGE_BYTES),
    samples: || segments(1).into_iter().map(|segment| segment[..PAGE_BYTES].to_vec()).take(1).collect(),
    anchors: start,
};

pub(super) const BATCH: Target = Target {
    name: "log-batch",
    run: fuzz::batch,
    fix: |input| fuzz::fix_batch(input),
    samples: || segments(2).iter().filter_map(|segment| fuzz::first_batch(segment)).collect(),
    anchors: |_| vec![0, 40, 80],
};

pub(super) const RECOVERY: Target = Target {
    name: "log-recovery",
    run: |input| {
        let (evidence, segments) = split(input);
        matches!(recover_any(&segments, &evidence), Outcome::Log(n) if n > 0)
    },
    fix: |input| {
        let (evidence, mut segments) = split(input);
        fix_checksums(&mut segments);
        *input = join(&evidence, &segments);
    },
    samples: || {
        let proves = |applied_index: u64| Evidence {
            applied_index,
            applied_term: applied_index.min(1),
            install: INSTALL,
        };
        vec![join(&proves(0), &segments(1)), join(&proves(3), &segments(3)), join(&proves(0), &segments(4))]
    },
    anchors: pages,
};

pub(super) const PART: Target = Target {
    name: "log-part",
    run: |input| {
        let Ok(part) = LogPart::decode(Path::new("/fuzz"), input) else { return false };
        assert_eq!(LogPart::decode(Path::new("/fuzz"), &part.encode()).ok().as_ref(), Some(&part));
        true
    },
    fix: |input| {
        input.resize(input.len().max(PAGE_BYTES), 0);
        let len = input.len() as u64;
        input[48..56].copy_from_slice(&len.to_le_bytes());
        let mut segments = [std::mem::take(input)];
        fix_checksums(&mut segments);
        [*input] = segments;
    },
    samples: || [0, 3].map(|entries| part(entries).encode()).into(),
    anchors: pages,
};

/// A part of so many entries.
fn part(entries: u64) -> LogPart {
    let base = Base { index: 7, term: 1, install: INSTALL };
    let entry = |n: u64| Entry { index: 7 + n, term: 1 + n / 2, kind: 0, data: vec![n as u8; 50].into() };
    let hard_state = HardState { term: 4, vote: fuzz::MEMBER_ID, commit: 7 };
    LogPart { member_id: fuzz::MEMBER_ID, base, hard_state, entries: (1..=entries).map(entry).collect() }
}

/// Most segments of an input.
const SEGMENTS_MAX: usize = 6;

/// The first page says what the tree file proves and how long each segment is; they follow.
fn split(input: &[u8]) -> (Evidence, Vec<Vec<u8>>) {
    let head: [u8; 32] = super::padded(input);
    let evidence = Evidence { applied_index: head[0].into(), applied_term: head[1].into(), install: INSTALL };
    let mut rest = input.get(PAGE_BYTES..).unwrap_or_default();
    let mut segments = Vec::new();
    for n in 0..usize::from(head[2]).min(SEGMENTS_MAX) {
        let len = u32::from_le_bytes(super::padded(&head[4 + 4 * n..])) as usize;
        let (segment, after) = rest.split_at(len.min(rest.len()));
        segments.push(segment.to_vec());
        rest = after;
    }
    (evidence, segments)
}

fn join(evidence: &Evidence, segments: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![0; PAGE_BYTES];
    out[..3].copy_from_slice(&[
        evidence.applied_index as u8,
        evidence.applied_term as u8,
        segments.len() as u8,
    ]);
    for (n, segment) in segments.iter().enumerate() {
        out[4 + 4 * n..8 + 4 * n].copy_from_slice(&(segment.len() as u32).to_le_bytes());
    }
    out.extend(segments.iter().flatten());
    out
}

/// A log of so many segments.
fn segments(count: usize) -> Vec<Vec<u8>> {
    let (disk, dir) = (SimVfs::new(), Path::new("/fuzz"));
    let mut options = WalOptions::new(std::sync::Arc::new(disk.clone()), fuzz::MEMBER_ID, 5);
    options.first_segment_bytes = 4 * PAGE_BYTES as u64;
    options.segment_bytes = 4 * PAGE_BYTES as u64;
    let base = Base { index: 0, term: 0, install: INSTALL };
    let wal = Wal::create(dir, options, base).expect("a new log");
    let mut rng = SplitMix::new(count as u64);
    let mut index = 0;
    while (wal.stats().segments as usize) < count || index < 3 {
        index += 1;
        let mut data = vec![0; 40 + rng.index(3000)];
        rng.fill(&mut data[..40]);
        let term = 1 + index / 4;
        let entry = Record::Entry(Entry { index, term, kind: 0, data: Bytes::from(data) });
        let state = Record::HardState(HardState { term, vote: 1, commit: index - 1 });
        wal.append(vec![entry, state]).expect("healthy");
        wal.sync().expect("healthy");
    }
    wal.seal().expect("healthy");
    let files = disk.list(dir).expect("the directory");
    let segments = files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "wal"));
    segments.map(|path| disk.contents(path).expect("a file")).collect()
}
