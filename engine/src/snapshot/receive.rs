// SPDX-License-Identifier: Apache-2.0
//! The receiving end: a file that becomes a store once all of it is there and right.
//!
//! Owns      a temporary file, where the transfer is, and what is missing of the item that is coming in.
//! Holds     1. frames are taken in order, each whole and checked before it is written;
//!           2. after an error of the stream the receiver is where its last frame ended, and takes a stream that is
//!              resumed from there;
//!           3. the file has a store's name only after the walk from the roots reached exactly what was received,
//!              and all of it is durable; pages that are not in use are holes;
//!           4. memory is one frame, and one bit for each page up to the last in use; a file that is emptier than what
//!              came can pay for is refused, so a few bytes cannot ask for much.
//! Never     touches a file that is in use.
//!
//! The three newest slots of the new store are one checkpoint under its own and the next two numbers: so its free pages
//! are free at once, a rotten slot falls back to the same state, and no page is younger than a slot that leads to it.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::sync_parent;
use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Header, Refused, TRAILER_BYTES, TRAILER_MAGIC, Trailer,
};
use super::send::{Extents, Position, whole_extents};
use crate::checkpoint::contexts;
use crate::error::{BrokenTransfer, Corruption, Error, FormatMismatch, Result};
use crate::format::Fault;
use crate::format::slot::{self, Slot};
use crate::format::superblock::{SUPERBLOCKS, Superblock};
use crate::io::{OpenHow, Vfs};
use crate::options::Options;
use crate::page::{PAGE_BYTES, PageId};
use crate::schema::{InstallId, Schema, Trees};
use crate::space::{FIRST_DATA, LivePages, REUSE_AFTER};
use crate::tree;
use crate::treefile::{Source, TreeFile};
use crate::view::CommitMeta;

/// Memory for the map of a file from which nothing came yet: 32 GiB of it may be empty. Beyond that, each byte of
/// map wants one of pages that came, so a file may be 32,768 times as large as what is in it.
const EMPTY_MAP_BYTES: u64 = 1 << 20;

/// A store on its way in.
#[derive(Debug)]
pub struct Receiver {
    temp: PathBuf,
    options: Options,
    file: Arc<TreeFile>,
    /// Of the snapshot, from the first header on.
    header: Option<Header>,
    /// This stream has said whose it is.
    greeted: bool,
    live: LivePages,
    at: Position,
    trailer: Option<Trailer>,
    /// What was received has been walked, and is right.
    verified: bool,
    /// The item that is coming in, as far as it is there.
    item: Vec<u8>,
}

/// A store that was received and has its name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Installed {
    /// The checkpoint that the store goes on from.
    pub seq: u64,
    pub meta: CommitMeta,
    pub install_id: InstallId,
    /// Pages of the trees, each of them checked.
    pub pages: u64,
    pub frames: u64,
}

impl Receiver {
    /// Begins to receive into the file `temp`, which is made; one that an earlier transfer left is removed.
    ///
    /// # Errors
    /// A file that cannot be removed or made.
    pub fn new(temp: &Path, options: Options) -> Result<Receiver> {
        let vfs = &options.vfs;
        if vfs.exists(temp).map_err(|e| Error::io("look for", temp, None, e))? {
            vfs.remove(temp).map_err(|e| Error::io("remove", temp, None, e))?;
        }
        let handle = vfs.open(temp, OpenHow::CreateNew).map_err(|e| Error::io("create", temp, None, e))?;
        Ok(Receiver {
            temp: temp.to_path_buf(),
            file: Arc::new(TreeFile::new(handle, temp)),
            options,
            header: None,
            greeted: false,
            live: LivePages::default(),
            at: Position::default(),
            trailer: None,
            verified: false,
            item: Vec::new(),
        })
    }

    pub(super) fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::clone(&self.options.vfs)
    }

    /// Where the transfer is: what a sender resumes from.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The header, once it has come.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// All is there, and can be installed.
    pub fn is_complete(&self) -> bool {
        self.trailer.is_some()
    }

    /// The stream broke off: the next bytes are the beginning of a resumed one.
    pub fn broken_off(&mut self) {
        self.greeted = false;
        self.item.clear();
    }

    /// Takes the next bytes of the stream, however they are cut.
    ///
    /// # Errors
    /// [`Error::Transfer`] if they are not what was sent: the stream is to be resumed from
    /// [`position`](Receiver::position). [`Error::Corrupt`] if they are, and the sender's pages are damaged;
    /// [`Error::Format`] for the stream of a newer build; a full disk. A failed write is final.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let taken = self.take_items(bytes);
        if taken.is_err() {
            self.broken_off();
        }
        taken
    }

    fn take_items(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.trailer.is_some() {
                return Err(self.broken(Fault::new("bytes behind the trailer", 0, 0, bytes.len() as u64)));
            }
            let missing = self.item_bytes()? - self.item.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.item.extend_from_slice(now);
            bytes = later;
            if self.item.len() == self.item_bytes()? {
                self.take_item()?;
                self.item.clear();
            }
        }
        Ok(())
    }

    /// Bytes of the item that is coming in, as far as its own first bytes tell.
    fn item_bytes(&self) -> Result<usize> {
        let Some(header) = self.header.as_ref().filter(|_| self.greeted) else { return Ok(HEADER_BYTES) };
        if self.item.len() >= TRAILER_MAGIC.len() && self.item.starts_with(TRAILER_MAGIC) {
            return Ok(TRAILER_BYTES);
        }
        match self.item.first_chunk::<FRAME_HEADER_BYTES>() {
            None => Ok(FRAME_HEADER_BYTES),
            Some(head) => {
                let frame = FrameHeader::decode(head, header).map_err(|fault| self.broken(fault))?;
                Ok(FRAME_HEADER_BYTES + frame.bytes())
            }
        }
    }

    fn take_item(&mut self) -> Result<()> {
        if !self.greeted {
            return self.take_header();
        }
        let header = self.header.clone().expect("a stream that greeted has a header");
        if let Some(trailer) =
            self.item.first_chunk::<TRAILER_BYTES>().filter(|_| self.item.starts_with(TRAILER_MAGIC))
        {
            let trailer = Trailer::decode(trailer, &header).map_err(|fault| self.broken(fault))?;
            return self.take_trailer(&header, trailer);
        }
        let (head, pages) = self.item.split_first_chunk().expect("an item has a header");
        let frame = FrameHeader::decode(head, &header).map_err(|fault| self.broken(fault))?;
        self.check_frame(&header, &frame, pages)?;
        let (first, npages) = (frame.page.get(), u64::from(frame.npages));
        self.file.reserve(first, first + npages)?;
        self.file.write(frame.page, &[IoSlice::new(pages)])?;
        assert!(self.live.add(first, npages), "a frame that was checked comes behind the others");
        self.at = self.at.after(&header, &frame);
        Ok(())
    }

    fn take_header(&mut self) -> Result<()> {
        let bytes = self.item.first_chunk().expect("the item is a header");
        let header = Header::decode(bytes).map_err(|refused| match refused {
            Refused::Broken(fault) => self.broken(fault),
            other @ Refused::Other { .. } => other.in_file(&self.temp),
        })?;
        if let Some(known) = self.header.as_ref().filter(|known| **known != header) {
            let fault = Fault::new("checkpoint of a resumed stream", 0, known.seq, header.seq);
            return Err(self.broken(fault));
        }
        self.header = Some(header);
        self.greeted = true;
        Ok(())
    }

    fn check_frame(&self, header: &Header, frame: &FrameHeader, pages: &[u8]) -> Result<()> {
        let (first, npages) = (frame.page.get(), usize::from(frame.npages));
        let end_max = (EMPTY_MAP_BYTES + self.at.pages * PAGE_BYTES as u64) * 8;
        for (what, expected, found) in [
            ("number of a frame", self.at.frames, frame.number),
            ("order of frames", self.at.page.max(first), first),
            ("end of a frame in a file that is nearly empty", end_max.min(first), first),
            ("pages among the bitmaps", 1, LivePages::may_have(first, npages as u64).into()),
        ] {
            if expected != found {
                return Err(self.broken(Fault::new(what, 0, expected, found)));
            }
        }
        frame.check(header, pages).map_err(|fault| self.broken(fault))?;
        // From here on the bytes are what was sent.
        let damage = |fault: Fault, tree: Option<u8>| {
            let page = first + (fault.at / PAGE_BYTES) as u64;
            let damage = Corruption::new(&self.temp, fault.what).page(page);
            let damage = damage.mismatch(fault.expected, fault.found);
            Error::from(tree.map_or(damage.clone(), |tree| damage.tree(tree)))
        };
        match whole_extents(pages, header, first) {
            Ok(Extents::Whole(whole)) if whole == npages => Ok(()),
            Ok(_) => Err(damage(Fault::new("end of the last extent of a frame", 0, 0, 1), None)),
            Err((fault, tree)) => Err(damage(fault, tree)),
        }
    }

    fn take_trailer(&mut self, header: &Header, trailer: Trailer) -> Result<()> {
        let end = self.live.end().unwrap_or(FIRST_DATA);
        for (what, expected, found) in [
            ("frames of a snapshot", trailer.frames, self.at.frames),
            ("pages of a snapshot", trailer.pages, self.at.pages),
            ("pages of a snapshot", header.pages, self.at.pages),
            ("digest of a snapshot", trailer.digest.into(), self.at.digest.into()),
            ("high water of a snapshot", header.high_water, end),
        ] {
            if expected != found {
                return Err(self.broken(Fault::new(what, 0, expected, found)));
            }
        }
        self.trailer = Some(trailer);
        Ok(())
    }

    fn broken(&self, fault: Fault) -> Error {
        let Fault { what, expected, found, .. } = fault;
        BrokenTransfer { frames: self.at.frames, what, expected, found }.into()
    }

    /// Ends a transfer that will not be gone on with, and removes its file.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn abandon(self) -> Result<()> {
        self.options.vfs.remove(&self.temp).map_err(|e| Error::io("remove", &self.temp, None, e))
    }

    /// Checks everything that was received, from the roots. `seen` is told the pages checked so far. Reads all of it
    /// once: what was found right is not read again by a later call.
    ///
    /// # Errors
    /// [`Error::Transfer`] if the trailer has not come; [`Error::Corrupt`] if the trees do not reach exactly what was
    /// received; [`Error::Format`] for a tree that the schema does not have.
    pub fn verify(&mut self, schema: Schema, seen: &mut dyn FnMut(u64)) -> Result<Received<'_>> {
        if !self.verified {
            self.walk(schema, seen)?;
            self.verified = true;
        }
        let (header, trailer) = self.whole()?;
        Ok(Received { receiver: self, header, trailer })
    }

    fn whole(&self) -> Result<(&Header, &Trailer)> {
        match (&self.header, &self.trailer) {
            (Some(header), Some(trailer)) => Ok((header, trailer)),
            _ => Err(self.broken(Fault::new("trailer of a snapshot", 0, 1, 0))),
        }
    }

    /// Walks every tree from its root, and compares what they reach with what was received.
    fn walk(&self, schema: Schema, seen: &mut dyn FnMut(u64)) -> Result<()> {
        let (header, trailer) = self.whole()?;
        let trees = Trees::new(schema);
        let ctxs = contexts(&trees, &self.options, &self.file, header.uuid, header.seq);
        let source = Source::new(Arc::clone(&self.file), None);
        let mut left = self.live.clone();
        let (mut stray, mut pages) = (None, 0);
        for (id, root) in &trailer.roots {
            let Some(ctx) = ctxs.iter().find(|ctx| ctx.tree == *id) else {
                let ids: Vec<String> = schema.iter().map(|tree| tree.id.to_string()).collect();
                let (file, supported) = (self.temp.clone(), ids.join(", "));
                return Err(
                    FormatMismatch { file, what: "tree".into(), found: id.to_string(), supported }.into()
                );
            };
            tree::verify(&source, ctx, root, &mut |extent| {
                if !left.take(extent.page.get(), extent.npages.into()) {
                    stray = stray.or(Some(extent.page.get()));
                }
                pages += u64::from(extent.npages);
                seen(pages);
            })?;
        }
        let wrong = |what: &str, page: u64| Err(Corruption::new(&self.temp, what).page(page).into());
        match (stray, left.next_run(0)) {
            (Some(page), _) => wrong("a page that was not received, or is part of two nodes", page),
            (None, Some((page, _))) => wrong("a page that no tree reaches", page),
            (None, None) => Ok(()),
        }
    }
}

/// A snapshot that is whole and right, in a file that is not a store yet.
#[derive(Debug)]
pub struct Received<'r> {
    receiver: &'r Receiver,
    header: &'r Header,
    trailer: &'r Trailer,
}

impl Received<'_> {
    /// What the newest commit in it said about itself.
    pub fn meta(&self) -> &CommitMeta {
        &self.header.meta
    }

    /// Completes the file, makes it durable, and gives it the name `path`, replacing what had it.
    ///
    /// # Errors
    /// A full disk, or a failed write, sync or rename: what had the name still has it.
    pub fn install(self, path: &Path, install: InstallId) -> Result<Installed> {
        self.complete(install)?;
        let Receiver { temp, options, .. } = self.receiver;
        options.vfs.rename(temp, path).map_err(|e| Error::io("rename", temp, None, e))?;
        sync_parent(&*options.vfs, path)?;
        Ok(Installed {
            seq: self.newest_seq(),
            meta: self.header.meta.clone(),
            install_id: install,
            pages: self.header.pages,
            frames: self.receiver.at.frames,
        })
    }

    /// Number of the newest slot.
    fn newest_seq(&self) -> u64 {
        self.header.seq + REUSE_AFTER - 1
    }

    /// Makes the received pages a whole and durable tree file under its temporary name.
    fn complete(&self, install: InstallId) -> Result<()> {
        let (file, header) = (&self.receiver.file, self.header);
        let put = |page: PageId, bytes: &[u8]| {
            file.reserve(page.get(), page.get() + 1)?;
            file.write(page, &[IoSlice::new(bytes)])
        };
        // What is not written here stays as it is, and reads as blank slots and bitmaps.
        file.reserve(0, FIRST_DATA)?;
        let superblock = Superblock { uuid: header.uuid, install };
        for copy in 0..SUPERBLOCKS {
            put(PageId::new(copy), &superblock.encode())?;
        }
        let (pages, map_digest) = self.receiver.live.map(header.uuid, header.seq, header.high_water);
        for page in pages {
            put(page.page, &page.bytes)?;
        }
        let mut previous_crc = 0;
        for seq in header.seq..=self.newest_seq() {
            let slot = Slot {
                seq,
                meta: header.meta.clone(),
                stamp: header.stamp,
                roots: self.trailer.roots.clone(),
                high_water: header.high_water,
                map_digest,
                previous_crc,
                // The new store is as large as it is.
                size_mark: 0,
            };
            let bytes = slot.encode(header.uuid);
            put(slot::position(seq), &bytes)?;
            previous_crc = slot::crc(&bytes);
        }
        file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimVfs;
    use bytes::Bytes;

    #[test]
    fn a_frame_far_behind_all_that_came_asks_for_no_memory() {
        let mut options = Options::default();
        let disk = SimVfs::new();
        disk.create_dir(Path::new("/copy")).expect("a directory");
        options.vfs = Arc::new(disk);
        let mut receiver = Receiver::new(Path::new("/copy/incoming.tmp"), options).expect("a file");
        let far = 1 << 36;
        let meta = CommitMeta { applied_index: 1, applied_term: 1, owner: Bytes::new() };
        let header = Header { uuid: 7, seq: 1, meta, stamp: 0, high_water: far + 1000, pages: 1 };
        receiver.push(&header.encode()).expect("a header is taken as it is");
        let page = [0; PAGE_BYTES];
        let frame = FrameHeader::new(&header, 0, PageId::new(far + 10), &page);
        let refused = receiver.push(&[&frame.encode(&header)[..], &page].concat());
        let Err(Error::Transfer(why)) = refused else { panic!("{refused:?}") };
        assert_eq!(why.what, "end of a frame in a file that is nearly empty");
        assert_eq!(receiver.live, LivePages::default());
    }
}
