// SPDX-License-Identifier: Apache-2.0
//! Snapshots on their way from one member to another.
//!
//! Owns      the two ends of each transfer.
//! Holds     1. a transfer breaks off and goes on from where it was;
//!           2. the install is cut by crashes at each of its steps;
//!           3. what was sent once may come again, when its receiver is further on than that.
//! Never     decides whether a snapshot is wanted or taken: replicas do.

use super::{Ended, World, members::DIR};
use cairn_core::replica::Input;
use cairn_engine::{
    Error, InstallId,
    sim::Fault,
    snapshot::{Receiver, Snapshot},
};
use std::{path::PathBuf, sync::Arc};

/// Frames of a snapshot, small enough that a transfer takes many steps.
const FRAME_BYTES: u64 = 16 << 10;

pub(super) struct Transfer {
    from: usize,
    to: usize,
    /// The id of the one that it goes to.
    peer: u64,
    snapshot: Snapshot,
    receiver: Receiver,
}

/// A whole snapshot that comes again later.
pub(super) struct Late {
    to: usize,
    /// Its last entry.
    index: u64,
    pieces: Vec<Vec<u8>>,
}

/// What became of a piece.
enum Piece {
    More,
    Whole,
    Failed(Error),
}

impl Transfer {
    fn piece(&mut self, pieces: u64) -> Piece {
        self.receiver.broken_off();
        let mut stream = self.snapshot.resume(self.receiver.position());
        // The first piece says whose the others are.
        for _ in 0..=pieces {
            match stream.next() {
                Ok(None) => return Piece::Whole,
                Ok(Some(bytes)) => {
                    if let Err(error) = self.receiver.push(bytes) {
                        return Piece::Failed(error);
                    }
                }
                Err(error) => return Piece::Failed(error),
            }
        }
        if self.receiver.is_complete() { Piece::Whole } else { Piece::More }
    }
}

impl World {
    pub(super) fn begin_transfer(&mut self, from: usize, peer: u64) -> Result<(), Ended> {
        let Some(to) = self.place_of(peer).filter(|to| !self.transfers.iter().any(|t| t.to == *to)) else {
            self.node(from).tell(Input::SnapshotEnded { peer, installed: false });
            return Ok(());
        };
        let snapshot = self.node(from).db.snapshot()?.in_frames_of(FRAME_BYTES);
        let options = self.swarm.options(Arc::new(self.hosts[to].vfs.clone()));
        let receiver = match Receiver::new(&PathBuf::from(DIR).join("incoming.tmp"), options) {
            Ok(receiver) => receiver,
            Err(error) => {
                self.node(from).tell(Input::SnapshotEnded { peer, installed: false });
                self.note(format_args!("member {to} cannot receive: {error}"));
                return Ok(());
            }
        };
        self.stats.snapshots += 1;
        let meta = &snapshot.header().meta;
        self.note(format_args!("member {from} sends {to} its state of {}", meta.applied_index));
        self.transfers.push(Transfer { from, to, peer, snapshot, receiver });
        Ok(())
    }

    /// The log of a sender keeps what comes after the snapshots that it sends.
    pub(super) fn held_by_transfers(&self, at: usize) -> u64 {
        let sent = self.transfers.iter().filter(|transfer| transfer.from == at);
        sent.map(|transfer| transfer.snapshot.header().meta.applied_index).min().unwrap_or(u64::MAX)
    }

    /// One of the ends went down.
    pub(super) fn drop_transfers(&mut self, at: usize) {
        for transfer in self.transfers.extract_if(.., |t| t.from == at || t.to == at) {
            if let Some(node) = &mut self.hosts[transfer.from].node {
                node.tell(Input::SnapshotEnded { peer: transfer.peer, installed: false });
            }
        }
    }

    /// The transfer to this member goes on by some frames.
    pub(super) fn transfer(&mut self, to: usize) -> Result<(), Ended> {
        let Some(at) = self.transfers.iter().position(|transfer| transfer.to == to) else {
            return self.bring_late(to);
        };
        let Transfer { from, .. } = self.transfers[at];
        if self.network.is_cut(from, to) || self.is_paused(from) {
            return Ok(());
        }
        let pieces = [1, 4, 1000][self.rng.index(3)];
        let piece = self.transfers[at].piece(pieces);
        let frames = self.transfers[at].receiver.position().frames;
        self.note(format_args!("member {to} has {frames} frames of the snapshot"));
        match piece {
            Piece::More => Ok(()),
            Piece::Failed(error) => {
                let transfer = self.transfers.remove(at);
                self.end_transfer(&transfer, false);
                self.note(format_args!("the snapshot for member {to} broke off: {error}"));
                Ok(())
            }
            Piece::Whole => {
                let mut transfer = self.transfers.remove(at);
                self.keep_for_later(&transfer);
                let installed = self.install(to, &mut transfer.receiver);
                self.end_transfer(&transfer, matches!(installed, Ok(true)));
                installed.map(drop)
            }
        }
    }

    fn end_transfer(&mut self, transfer: &Transfer, installed: bool) {
        if let Some(node) = &mut self.hosts[transfer.from].node {
            node.tell(Input::SnapshotEnded { peer: transfer.peer, installed });
        }
    }

    /// A sender that was cut off may send all of it again.
    fn keep_for_later(&mut self, transfer: &Transfer) {
        if !self.faults || self.late.is_some() || self.rng.one_in(2) {
            return;
        }
        let (mut stream, mut pieces) = (transfer.snapshot.stream(), Vec::new());
        let whole = loop {
            match stream.next() {
                Ok(Some(bytes)) => pieces.push(bytes.to_vec()),
                ended => break ended.is_ok(),
            }
        };
        let index = transfer.snapshot.header().meta.applied_index;
        self.late = whole.then_some(Late { to: transfer.to, index, pieces });
    }

    /// A snapshot comes that ends before the log of its receiver begins.
    fn bring_late(&mut self, to: usize) -> Result<(), Ended> {
        let begins = self.node(to).wal.first_index();
        let Some(late) = self.late.take_if(|late| late.to == to && late.index + 1 < begins) else {
            return Ok(());
        };
        let options = self.swarm.options(Arc::new(self.hosts[to].vfs.clone()));
        let received =
            Receiver::new(&PathBuf::from(DIR).join("incoming.tmp"), options).and_then(|mut receiver| {
                late.pieces.iter().try_for_each(|piece| receiver.push(piece)).map(|()| receiver)
            });
        self.note(format_args!("member {to} is sent the state of {} again", late.index));
        match received {
            Ok(mut receiver) => {
                self.stats.snapshots_late += 1;
                self.install(to, &mut receiver).map(drop)
            }
            Err(error) => {
                self.note(format_args!("member {to} cannot receive: {error}"));
                Ok(())
            }
        }
    }

    /// Verify, sync, rename, sync the directory; then the member starts over the new store, as after a crash.
    fn install(&mut self, to: usize, receiver: &mut Receiver) -> Result<bool, Ended> {
        // A call of the install fails, and with it the member.
        if self.faults && self.rng.one_in(4) {
            let fault =
                [Fault::Name, Fault::SyncOnce, Fault::SyncRevertsCache, Fault::Write][self.rng.index(4)];
            let nth = 1 + self.rng.below(4);
            self.hosts[to].faulty |= self.hosts[to].vfs.fault_fired();
            self.hosts[to].vfs.arm(fault, nth);
            self.note(format_args!("member {to}: {fault:?} at call {nth} of the install"));
        }
        let received = receiver.verify(cairn_mvcc::SCHEMA, &mut |_| ())?;
        let (index, term) = (received.meta().applied_index, received.meta().applied_term);
        let now_ms = self.clock(to);
        if !self.node(to).snapshot_received(now_ms, index, term)? {
            self.note(format_args!("member {to} has no need of the state of {index}"));
            return Ok(true);
        }
        self.stop(to);
        self.forget_size(to);
        let id = InstallId(self.rng.next_u64());
        let path = PathBuf::from(DIR).join("engine.db");
        let installed = received.install(&path, id);
        let fired = self.hosts[to].vfs.fault_fired();
        if self.rng.one_in(4) {
            self.crash(to);
        }
        self.hosts[to].faulty |= fired;
        self.stats.installs_cut += u64::from(installed.is_err());
        installed?;
        self.stats.installs += 1;
        self.note(format_args!("member {to} installed the state of {index}"));
        Ok(true)
    }
}
