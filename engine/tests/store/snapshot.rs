// SPDX-License-Identifier: Apache-2.0
//! Snapshots: a copy is the original, whatever happens to the transfer, and what is no copy is refused by name.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::inspect::Store;
use cairn_engine::io::Vfs;
use cairn_engine::page::PAGE_BYTES;
use cairn_engine::sim::{Explorer, Limits, SimVfs, SplitMix};
use cairn_engine::snapshot::format::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, HEADER_BYTES};
use cairn_engine::snapshot::{
    Position, Receiver, RestoreLog, RestoreTo, Snapshot, SnapshotLimits, backup, clone_store, read_head,
    restore,
};
use cairn_engine::wal::{Base, Entry, Evidence, HardState, LogPart, Wal, WalOptions};
use cairn_engine::{Db, Error, InstallId, Options};

use crate::model::{Commit, Model, SCHEMA, create, tiny};

const DIR: &str = "/member";
const COPY: &str = "/copy";
const BACKUP: &str = "/backups/one";
const TEMP: &str = "/copy/incoming.tmp";
const INSTALL: InstallId = InstallId(0xc0b1);
const MEMBER_ID: u64 = 9;
const SEED: u64 = 23;

const FRAME_BYTES: u64 = 4 * PAGE_BYTES as u64;

fn options(disk: &SimVfs) -> Options {
    tiny(Arc::new(disk.clone()))
}

/// A store whose file has been written over for a while, and what is in its newest checkpoint.
struct Original {
    disk: SimVfs,
    db: Db,
    model: Model,
}

impl Original {
    fn new(seed: u64, commits: u64) -> Original {
        let disk = SimVfs::new();
        disk.stop_recording();
        disk.create_dir(Path::new("/backups")).expect("a directory");
        let db = create(Arc::new(disk.clone()), Path::new(DIR)).expect("a new store");
        let mut original = Original { disk, db, model: Model::default() };
        original.write(seed, commits);
        original
    }

    fn write(&mut self, seed: u64, commits: u64) {
        for n in 1..=commits {
            let commit = Commit::new(seed, self.model.applied + 1, true);
            commit.run(&self.db, true).expect("commits");
            self.model.apply(&commit);
            if n % 7 == 0 || n == commits {
                self.db.checkpoint().expect("makes a checkpoint");
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.db.snapshot().expect("a snapshot").in_frames_of(FRAME_BYTES)
    }

    /// The newest checkpoint as another process sees it.
    fn looked(&self) -> Snapshot {
        let vfs: Arc<dyn Vfs> = Arc::new(self.disk.clone());
        let store = Store::open(&vfs, Path::new(DIR), SCHEMA).expect("a checkpoint");
        Snapshot::of_store(store).expect("a space map").in_frames_of(FRAME_BYTES)
    }

    /// A log that goes on after the newest checkpoint.
    fn log(&self) -> LogPart {
        let meta = self.db.view().meta().clone();
        let base = Base { index: meta.applied_index, term: meta.applied_term, install: InstallId(4) };
        let entry = |n: u64| Entry {
            index: base.index + n,
            term: base.term + n,
            kind: 0,
            data: vec![n as u8; 9].into(),
        };
        let entries: Vec<Entry> = (1..=3).map(entry).collect();
        let term = entries[2].term;
        LogPart {
            member_id: MEMBER_ID,
            base,
            hard_state: HardState { term, vote: MEMBER_ID, commit: base.index + 2 },
            entries,
        }
    }

    fn to(&self, dir: &str) -> RestoreTo {
        let (dir, options) = (Path::new(dir).to_path_buf(), options(&self.disk));
        RestoreTo { dir, schema: SCHEMA, options, install: INSTALL, log: None }
    }
}

fn all(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    let mut stream = snapshot.stream();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.next().expect("a sound store") {
        assert!(piece.len() <= FRAME_BYTES_MAX);
        pieces.push(piece.to_vec());
    }
    pieces
}

fn receiver(disk: &SimVfs) -> Receiver {
    disk.create_dir(Path::new(COPY)).expect("a directory");
    Receiver::new(Path::new(TEMP), options(disk)).expect("a file")
}

fn install(receiver: &mut Receiver) -> Result<(), Error> {
    let received = receiver.verify(SCHEMA, &mut |_| {})?;
    received.install(&Path::new(COPY).join("engine.db"), INSTALL).map(drop)
}

/// Opens a copy, compares it with the model, and goes on for longer than it takes to write all free space anew.
fn goes_on(disk: &SimVfs, dir: &str, model: &Model) {
    let (db, recovered) = Db::open(Path::new(dir), SCHEMA, options(disk)).expect("opens");
    assert!(!recovered.fell_back && !recovered.space_map_rebuilt, "{recovered:?}");
    assert_eq!((recovered.meta.applied_index, recovered.install_id), (model.applied, INSTALL));
    assert_eq!(db.stats().pending_bytes, 0, "what is free in a copy is free at once");
    let mut model = model.clone();
    for _ in 0..6 {
        db.verify().expect("whole");
        model.check(&db.view(), &mut SplitMix::new(3)).expect("equal");
        let commit = Commit::new(SEED, model.applied + 1, true);
        commit.run(&db, true).expect("commits");
        model.apply(&commit);
        db.checkpoint().expect("makes a checkpoint");
    }
}

/// The pages that a snapshot has are in both files, and at the same places.
fn same_pages(disk: &SimVfs, snapshot: &Snapshot, pieces: &[Vec<u8>]) {
    let copy = disk.contents(&Path::new(COPY).join("engine.db")).expect("is there");
    let original = disk.contents(&Path::new(DIR).join("engine.db")).expect("is there");
    let mut pages = 0;
    for piece in &pieces[1..pieces.len() - 1] {
        let page = u64::from_le_bytes(piece[16..24].try_into().expect("8 bytes"));
        let range = page as usize * PAGE_BYTES..page as usize * PAGE_BYTES + piece.len() - FRAME_HEADER_BYTES;
        assert!(copy[range.clone()] == original[range.clone()] && copy[range] == piece[FRAME_HEADER_BYTES..]);
        pages += (piece.len() - FRAME_HEADER_BYTES) / PAGE_BYTES;
    }
    assert_eq!(pages as u64, snapshot.header().pages);
}

#[test]
fn a_transfer_broken_at_every_tenth_frame_gives_a_copy_equal_to_the_original() {
    let original = Original::new(SEED, 120);
    let snapshot = original.snapshot();
    let pieces = all(&snapshot);
    let mut receiver = receiver(&original.disk);
    let (mut breaks, mut sent) = (0u64, 0u64);
    while !receiver.is_complete() {
        let from = receiver.position();
        let mut stream = snapshot.resume(from);
        while let Some(piece) = stream.next().expect("a sound store") {
            let piece = piece.to_vec();
            sent += 1;
            if stream.position().frames == from.frames + 10 {
                // The tenth frame ends early, or its last byte is another.
                let cut = if breaks % 2 == 0 { piece.len() / 3 } else { piece.len() - 1 };
                receiver.push(&piece[..cut]).expect("no item is whole");
                if breaks % 2 == 1 {
                    let wrong = [piece[cut] ^ 1];
                    let error = receiver.push(&wrong).expect_err("another byte");
                    assert!(matches!(error, Error::Transfer(_)), "{error}");
                } else {
                    receiver.broken_off();
                }
                breaks += 1;
                break;
            }
            for part in piece.chunks(1500) {
                receiver.push(part).expect("as it was sent");
            }
        }
    }
    let frames = receiver.position().frames;
    println!("{frames} frames, broken {breaks} times, {sent} pieces sent for {}", pieces.len());
    assert!(frames >= 200 && breaks >= frames / 10 - 1, "{frames} frames, {breaks} breaks");
    assert!(sent <= pieces.len() as u64 + 2 * breaks, "what was taken is not sent again");
    install(&mut receiver).expect("whole");
    same_pages(&original.disk, &snapshot, &pieces);
    goes_on(&original.disk, COPY, &original.model);
}

#[test]
fn what_was_found_right_is_not_read_again() {
    let original = Original::new(SEED, 20);
    let mut receiver = receiver(&original.disk);
    let early = receiver.verify(SCHEMA, &mut |_| {}).expect_err("nothing has come");
    assert!(matches!(early, Error::Transfer(_)), "{early}");
    for piece in all(&original.snapshot()) {
        receiver.push(&piece).expect("as it was sent");
    }
    let mut walks = [0, 0];
    for walked in &mut walks {
        receiver.verify(SCHEMA, &mut |_| *walked += 1).expect("whole");
    }
    assert!(walks[0] > 0 && walks[1] == 0, "{walks:?} extents");
    install(&mut receiver).expect("whole");
    goes_on(&original.disk, COPY, &original.model);
}

#[test]
fn a_snapshot_is_its_checkpoint_while_the_store_goes_on() {
    let mut original = Original::new(SEED + 1, 60);
    let then = original.model.clone();
    let snapshot = original.snapshot();
    let pieces = all(&snapshot);
    original.write(SEED + 1, 200);
    assert!(all(&snapshot) == pieces, "the same bytes after 200 commits more");
    let installed = clone_store(&snapshot, &original.to(COPY), &mut |_| {}).expect("copied");
    assert_eq!(installed.meta.applied_index, then.applied);
    goes_on(&original.disk, COPY, &then);
}

#[test]
fn what_a_snapshot_pins_is_given_back_when_it_ends_or_stalls() {
    const STALL: SnapshotLimits = SnapshotLimits { stall_ms: 60_000, pinned_bytes: u64::MAX };
    let mut original = Original::new(SEED + 2, 60);
    let snapshot = original.snapshot();
    let mut stream = snapshot.stream();
    stream.next().expect("the header");
    original.write(SEED + 2, 100);
    let pinned = original.db.stats();
    assert_eq!((pinned.snapshots, pinned.oldest_reader_seq), (1, snapshot.header().seq));
    assert!(pinned.pinned_bytes > 0, "{pinned:?}");
    assert!(pinned.pinned_bytes <= snapshot.header().pages * PAGE_BYTES as u64, "no more than it can see");

    // One that moves stays, however slowly.
    for minute in 0..5u64 {
        stream.next().expect("a frame");
        assert_eq!(original.db.limit_snapshots(minute * 59_000, STALL), 0);
    }
    let still = original.db.limit_snapshots(4 * 59_000 + 59_999, STALL);
    assert_eq!((still, original.db.stats().snapshots), (0, 1));
    assert_eq!(original.db.limit_snapshots(4 * 59_000 + 60_000, STALL), 1);
    let error = stream.next().expect_err("it ended");
    assert!(matches!(error, Error::SnapshotEnded { .. }), "{error}");
    original.write(SEED + 2, 30);
    let after = original.db.stats();
    assert_eq!((after.snapshots, after.pinned_bytes), (0, 0), "{after:?}");
    println!("pinned {} bytes for {} commits, then none", pinned.pinned_bytes, 100);

    // The bound on bytes ends the oldest one alone.
    let first = original.snapshot();
    original.write(SEED + 2, 60);
    let second = original.snapshot();
    let tight = SnapshotLimits { stall_ms: u64::MAX, pinned_bytes: original.db.stats().pinned_bytes - 1 };
    assert_eq!(original.db.limit_snapshots(0, tight), 1);
    assert!(matches!(first.stream().nth_frame(), Err(Error::SnapshotEnded { .. })));
    assert!(second.stream().nth_frame().is_ok());
    drop((first, second));
    original.write(SEED + 2, 30);
    assert_eq!(original.db.stats().snapshots, 0);
}

trait Nth {
    fn nth_frame(self) -> Result<(), Error>;
}

impl Nth for cairn_engine::snapshot::Stream<'_> {
    /// Reads the header and the first frame.
    fn nth_frame(mut self) -> Result<(), Error> {
        self.next()?;
        self.next().map(drop)
    }
}

#[test]
fn any_other_byte_of_a_stream_is_an_error_with_a_type_and_the_transfer_goes_on() {
    let original = Original::new(SEED + 3, 30);
    let snapshot = original.snapshot();
    let pieces = all(&snapshot);
    let mut rng = SplitMix::new(SEED);
    let (mut refused, mut places) = (0, 0);
    for nth in 0..pieces.len() {
        let len = pieces[nth].len();
        let mut ats: Vec<usize> = (0..FRAME_HEADER_BYTES).collect();
        if nth == 0 || nth + 1 == pieces.len() {
            ats = (0..len).collect();
        } else {
            ats.extend((0..3).map(|_| rng.index(len)));
        }
        for at in ats {
            if nth > 4 && nth + 1 < pieces.len() && !rng.one_in(40) {
                continue;
            }
            let mut receiver = receiver(&original.disk);
            for piece in &pieces[..nth] {
                receiver.push(piece).expect("as it was sent");
            }
            let mut rotten = pieces[nth].clone();
            rotten[at] ^= 1 << rng.below(8);
            let before = receiver.position();
            let outcome = receiver.push(&rotten);
            assert_eq!(receiver.position(), before, "piece {nth}, byte {at}");
            match outcome {
                Err(Error::Transfer(_)) => refused += 1,
                other => panic!("piece {nth}, byte {at}: {other:?}"),
            }
            places += 1;
            if places % 20 == 0 {
                let mut stream = snapshot.resume(receiver.position());
                while let Some(piece) = stream.next().expect("a sound store") {
                    receiver.push(piece).expect("as it was sent");
                }
                install(&mut receiver).expect("whole");
            }
        }
    }
    println!("{refused} of {places} bytes refused");
    assert!(places >= 2500 && refused == places);
}

#[test]
fn a_stream_of_another_checkpoint_and_frames_out_of_order_are_refused() {
    let mut original = Original::new(SEED + 4, 30);
    let one = all(&original.snapshot());
    original.write(SEED + 4, 30);
    let other = all(&original.snapshot());
    let refused = |pieces: &[&Vec<u8>], what: &str| {
        let mut receiver = receiver(&original.disk);
        let outcome = pieces.iter().try_for_each(|piece| receiver.push(piece));
        match outcome.and_then(|()| install(&mut receiver)) {
            Err(Error::Transfer(broken)) => assert_eq!(broken.what, what),
            outcome => panic!("{what}: {outcome:?}"),
        }
    };
    refused(&[&one[0], &one[2]], "number of a frame");
    refused(&[&one[0], &one[1], &one[1]], "number of a frame");
    refused(&[&one[0], &other[1]], "checksum of a frame's header");
    refused(&[&one[0], &one[1], other.last().expect("a trailer")], "checkpoint in a trailer");
    refused(&[&one[0], &one[1], one.last().expect("a trailer")], "frames of a snapshot");
    refused(&[&one[0], &one[1]], "trailer of a snapshot");
    refused(&[&one[1]], "magic of a snapshot");
    let mut whole: Vec<&Vec<u8>> = one.iter().collect();
    whole.push(&one[0]);
    refused(&whole, "bytes behind the trailer");
    let mut receiver = receiver(&original.disk);
    receiver.push(&one[0]).expect("as it was sent");
    receiver.broken_off();
    let error = receiver.push(&other[0]).expect_err("another checkpoint");
    assert!(error.to_string().contains("checkpoint of a resumed stream"), "{error}");
}

#[test]
fn a_damaged_page_is_named_by_the_sender_and_by_the_receiver() {
    let original = Original::new(SEED + 5, 30);
    let snapshot = original.snapshot();
    let pieces = all(&snapshot);
    let path = Path::new(DIR).join("engine.db");
    for piece in pieces[1..pieces.len() - 1].iter().step_by(7) {
        let page = u64::from_le_bytes(piece[16..24].try_into().expect("8 bytes"));
        let at = page * PAGE_BYTES as u64 + 200;
        original.disk.flip(&path, at, 4);
        let mut stream = snapshot.stream();
        let error = loop {
            match stream.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the damage of page {page} was sent"),
                Err(error) => break error,
            }
        };
        let Error::Corrupt(place) = &error else { panic!("{error}") };
        assert_eq!((place.page, place.file.as_path()), (Some(page), path.as_path()), "{error}");
        original.disk.flip(&path, at, 4);
        stream.next().expect("asked again, the sound page is sent");
    }
    assert!(all(&snapshot) == pieces);
}

#[test]
fn a_backup_restores_with_a_log_and_a_directory_in_use_is_refused() {
    let original = Original::new(SEED + 6, 90);
    let disk = &original.disk;
    let snapshot = original.snapshot();
    let mut steps = 0;
    let log = original.log();
    let copied =
        backup(&snapshot, Some(&log), disk, Path::new(BACKUP), &mut |_| steps += 1).expect("a backup");
    let head = read_head(disk, Path::new(BACKUP)).expect("whole");
    assert_eq!((&head.checkpoint, head.log.as_ref()), (snapshot.header(), Some(&log)));
    assert_eq!(copied.bytes, disk.contents(Path::new(BACKUP)).expect("is there").len() as u64);
    assert_eq!((copied.applied_index, copied.pages), (original.model.applied, snapshot.header().pages));
    assert!(steps as u64 > copied.frames);
    let again = backup(&snapshot, None, disk, Path::new(BACKUP), &mut |_| {}).expect_err("there is one");
    assert!(matches!(&again, Error::Io(io) if io.source.kind() == std::io::ErrorKind::AlreadyExists));

    let mut to = original.to(COPY);
    let log_dir = Path::new(COPY).join("wal");
    let log_options = |salt| WalOptions::new(Arc::new(disk.clone()), MEMBER_ID, salt);
    to.log = Some(RestoreLog { dir: log_dir.clone(), options: log_options(1), then: None });
    let installed = restore(Path::new(BACKUP), &to, &mut |_| {}).expect("restored");
    let evidence = Evidence {
        applied_index: installed.meta.applied_index,
        applied_term: installed.meta.applied_term,
        install: INSTALL,
    };
    let (wal, replay) = Wal::open(&log_dir, log_options(2), evidence).expect("the log fits the store");
    assert_eq!((wal.first_index(), wal.last_index()), (copied.applied_index + 1, copied.applied_index + 3));
    assert_eq!(wal.last_index(), copied.last_index);
    assert_eq!(wal.term(copied.applied_index), Some(copied.applied_term));
    let entries = wal.read(wal.first_index(), wal.last_index() + 1, usize::MAX).expect("reads");
    assert_eq!(entries, log.entries);
    assert_eq!(replay.hard_state, log.hard_state);
    drop(wal);
    goes_on(disk, COPY, &original.model);

    let taken = restore(Path::new(BACKUP), &to, &mut |_| {}).expect_err("there is a store");
    assert!(
        matches!(&taken, Error::Io(io) if io.source.kind() == std::io::ErrorKind::AlreadyExists),
        "{taken}"
    );
    let locked = restore(Path::new(BACKUP), &original.to(DIR), &mut |_| {}).expect_err("a store runs there");
    assert!(matches!(locked, Error::Locked { .. }), "{locked}");
}

#[test]
fn a_copy_falls_back_to_the_same_state_from_each_of_its_slots() {
    let original = Original::new(SEED + 13, 40);
    let disk = &original.disk;
    let installed = clone_store(&original.snapshot(), &original.to(COPY), &mut |_| {}).expect("copied");
    let path = Path::new(COPY).join("engine.db");
    let bytes = disk.contents(&path).expect("is there");
    let slot = |seq: u64| (2 + seq % 4) as usize * PAGE_BYTES;
    for broken in [&[][..], &[installed.seq], &[installed.seq, installed.seq - 1]] {
        let mut rotten = bytes.clone();
        broken.iter().for_each(|seq| rotten[slot(*seq) + 20] ^= 1);
        disk.plant(&path, &rotten);
        let (db, recovered) = Db::open(Path::new(COPY), SCHEMA, options(disk)).expect("opens");
        assert_eq!(recovered.slot_seq, installed.seq - broken.len() as u64);
        assert!(!recovered.space_map_rebuilt, "{recovered:?}");
        db.verify().expect("whole");
        original.model.check(&db.view(), &mut SplitMix::new(3)).expect("equal");
    }
}

#[test]
fn a_backup_that_is_cut_or_damaged_is_named_and_leaves_nothing() {
    let original = Original::new(SEED + 7, 30);
    let disk = &original.disk;
    let snapshot = original.snapshot();
    backup(&snapshot, Some(&original.log()), disk, Path::new(BACKUP), &mut |_| {}).expect("a backup");
    let bytes = disk.contents(Path::new(BACKUP)).expect("is there");
    let mut rng = SplitMix::new(SEED);
    // The padding behind the batches of the log's part is not read.
    let padding = [4096 + 120..8192, 8192 + 3 * 48 + 40..12288];
    for case in 0..60 {
        let mut rotten = bytes.clone();
        if case % 2 == 0 {
            rotten.truncate(rng.index(bytes.len()));
        } else {
            let at = rng.index(bytes.len());
            if padding.iter().any(|range| range.contains(&at)) {
                continue;
            }
            rotten[at] ^= 0x40;
        }
        disk.plant(Path::new("/backups/rotten"), &rotten);
        let error = restore(Path::new("/backups/rotten"), &original.to(COPY), &mut |_| {});
        let Err(Error::Corrupt(place)) = error else { panic!("case {case}: {error:?}") };
        assert_eq!(place.file, Path::new("/backups/rotten"));
        let left = disk.list(Path::new(COPY)).expect("a directory");
        assert!(left.iter().all(|path| path.ends_with("LOCK")), "{left:?}");
    }
}

#[test]
fn a_newer_stream_is_refused_by_name() {
    let original = Original::new(SEED + 8, 8);
    let mut header = all(&original.snapshot()).swap_remove(0);
    header[8] = 2;
    let crc = crc32fast::hash(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let error = receiver(&original.disk).push(&header).expect_err("a newer format");
    assert!(matches!(&error, Error::Format(_)) && error.to_string().contains("format of a snapshot is 2"));
}

#[test]
fn a_store_that_another_process_runs_is_copied_until_it_has_gone_too_far() {
    let mut original = Original::new(SEED + 9, 60);
    let then = original.model.clone();
    let found = original.looked();
    let pieces = all(&found);
    // Up to two checkpoints later its pages are still its own; then they may be written again.
    let mut later = 0;
    loop {
        original.write(SEED + 9, 1);
        later += 1;
        let mut stream = found.stream();
        let mut got = Vec::new();
        let ended = loop {
            match stream.next() {
                Ok(Some(piece)) => got.push(piece.to_vec()),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert!(got[..] == pieces[..got.len()], "no other bytes, whenever it ends");
        match ended {
            None => assert!(later <= 2, "{later} checkpoints later it was not noticed"),
            Some(Error::Overtaken { .. }) => {
                assert_eq!(later, 3);
                break;
            }
            Some(error) => panic!("{error}"),
        }
    }
    let from_db = original.snapshot();
    let from_dir = original.looked();
    assert!(all(&from_db) == all(&from_dir), "the same checkpoint is the same bytes");
    assert_ne!(then.applied, from_dir.header().meta.applied_index);
    clone_store(&from_dir, &original.to(COPY), &mut |_| {}).expect("copied");
    goes_on(&original.disk, COPY, &original.model);
}

#[test]
fn an_empty_store_and_a_young_one_are_copied_too() {
    for commits in 0..6 {
        let mut original = Original::new(SEED + 10, 0);
        for _ in 0..commits {
            original.write(SEED + 10, 1);
        }
        let snapshot = original.snapshot();
        clone_store(&snapshot, &original.to(COPY), &mut |_| {}).expect("copied");
        goes_on(&original.disk, COPY, &original.model);
    }
}

#[test]
fn a_power_loss_during_a_restore_leaves_no_store_or_the_whole_one() {
    let original = Original::new(SEED + 11, 30);
    let snapshot = original.snapshot();
    backup(&snapshot, None, &original.disk, Path::new(BACKUP), &mut |_| {}).expect("a backup");
    let bytes = original.disk.contents(Path::new(BACKUP)).expect("is there");
    let limits = Limits { images_per_point: 12, subsets_up_to: 3, recovery_one_in: 0, ..Limits::default() };
    let mut explorer = Explorer::new(9, limits);
    let to = |disk: &SimVfs| RestoreTo { options: options(disk), ..original.to(COPY) };
    let run = explorer.run(
        |disk| {
            disk.plant(Path::new(BACKUP), &bytes);
            disk.submit(1);
            restore(Path::new(BACKUP), &to(disk), &mut |_| {}).expect("restored");
            disk.ack(1);
        },
        |disk, acked, _| {
            if !disk.exists(&Path::new(COPY).join("engine.db")).map_err(|e| e.to_string())? {
                if acked == 1 {
                    return Err("the store is gone".into());
                }
                // What was cut short is begun anew.
                return restore(Path::new(BACKUP), &to(disk), &mut |_| {})
                    .map(drop)
                    .map_err(|e| e.to_string());
            }
            let (db, _) = Db::open(Path::new(COPY), SCHEMA, options(disk)).map_err(|e| e.to_string())?;
            db.verify().map_err(|e| e.to_string())?;
            original.model.check(&db.view(), &mut SplitMix::new(1))
        },
    );
    run.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{}", explorer.report());
    assert!(explorer.report().distinct >= 300, "{}", explorer.report());
}

#[test]
fn a_position_is_where_the_next_frame_begins() {
    let original = Original::new(SEED + 12, 30);
    let snapshot = original.snapshot();
    let pieces = all(&snapshot);
    let mut stream = snapshot.stream();
    assert_eq!(stream.position(), Position::default());
    for nth in 0..pieces.len() - 2 {
        stream.next().expect("a sound store");
        let mut resumed = snapshot.resume(stream.position());
        let mut tail = Vec::new();
        while let Some(piece) = resumed.next().expect("a sound store") {
            tail.push(piece.to_vec());
        }
        assert!(tail[0] == pieces[0] && tail[1..] == pieces[nth + 1..], "resumed after {nth} frames");
    }
}
