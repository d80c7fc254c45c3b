// SPDX-License-Identifier: Apache-2.0
//! The log under a clock: durable appends of one entry and of a hundred, beside a bare write and sync of as much.
//!
//! Owns      the sizes: entries of 300 bytes, as a small put makes them.
//! Holds     segments are zero-filled before the clock starts, as a server's log thread does it.
//! Never     decides whether a figure is good: the disk sets most of it, so read the ratio to the floor.

use std::sync::Arc;

use bytes::Bytes;
use cairn_engine::InstallId;
use cairn_engine::io::{Budget, OpenHow, Progress, StdVfs, Vfs};
use cairn_engine::wal::{Base, Entry, Record, Wal, WalOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ENTRY_BYTES: usize = 300;
const BATCHES: [usize; 2] = [1, 100];

/// A log with spares ready, and the index of its newest entry.
struct Log {
    wal: Wal,
    index: u64,
    data: Bytes,
}

impl Log {
    fn new(dir: &tempfile::TempDir) -> Log {
        let mut options = WalOptions::new(Arc::new(StdVfs), 1, 7);
        options.first_segment_bytes = options.segment_bytes;
        let base = Base { index: 0, term: 1, install: InstallId(1) };
        let wal = Wal::create(&dir.path().join("wal"), options, base).expect("a new log");
        let mut log = Log { wal, index: 0, data: Bytes::from(vec![7; ENTRY_BYTES]) };
        log.fill_spares();
        log
    }

    fn fill_spares(&mut self) {
        while self.wal.prepare_spare(Budget::UNBOUNDED).expect("a spare segment") != Progress::Done {}
    }

    /// Appends and syncs `count` entries, and lets go of what is far behind.
    fn append(&mut self, count: usize) {
        let entries = (0..count).map(|_| {
            self.index += 1;
            Record::Entry(Entry { index: self.index, term: 1, kind: 0, data: self.data.clone() })
        });
        let batch = entries.collect();
        self.wal.append(batch).expect("an append");
        self.wal.sync().expect("a sync");
        if self.index % 100_000 < count as u64 {
            self.wal.release(self.index.saturating_sub(1000)).expect("a release");
            self.fill_spares();
        }
    }
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("durable append of {batch}"), |bencher| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut log = Log::new(&dir);
            bencher.iter(|| log.append(batch));
        });
        group.bench_function(format!("floor of {batch}: write and sync over zeros"), |bencher| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let file = StdVfs.open(&dir.path().join("floor"), OpenHow::Create).expect("a new file");
            let bytes = vec![7; (batch * ENTRY_BYTES).next_multiple_of(4096)];
            let len = 64 << 20;
            (0..len)
                .step_by(1 << 20)
                .for_each(|at| file.write_all_at(&vec![0; 1 << 20], at).expect("a write"));
            file.sync_data().expect("a sync");
            let mut at = 0;
            bencher.iter(|| {
                file.write_all_at(&bytes, at).expect("a write");
                file.sync_data().expect("a sync");
                at = (at + bytes.len() as u64) % (len - (1 << 20));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, appends);
criterion_main!(benches);
