// SPDX-License-Identifier: Apache-2.0
//! Which pages passed their checksum since they were last written.
//!
//! Owns      one bit a page, in chunks that are made when the first page of one is found right.
//! Holds     1. a bit is cleared before its page is written, and by then nobody reads the page as it was: so a bit
//!              that a reader of the new page finds set was set for the new page;
//!           2. the bits order nothing: who may read a page is told by the checkpoint that reaches it.
//! Never     reads a page.

use std::sync::atomic::Ordering;

use crate::page::PageId;
use crate::sync::{AtomicU64, OnceLock};

/// One bit a page: it passed its checksum since it was last written. Grows with the file, never moves.
pub(crate) struct VerifiedBits(Box<[OnceLock<Hall>]>);

/// 128 MiB of file.
type Chunk = Box<[AtomicU64]>;
type Shelf = Box<[OnceLock<Chunk>]>;
type Hall = Box<[OnceLock<Shelf>]>;

const CHUNK_WORDS: u64 = if cfg!(all(test, loom)) { 1 } else { 512 };
const CHUNK_PAGES: u64 = CHUNK_WORDS * 64;
/// Chunks of a shelf, shelves of a hall, and halls.
const WIDTH: u64 = if cfg!(all(test, loom)) { 1 } else { 2048 };

const _: () = assert!(
    cfg!(all(test, loom)) || CHUNK_PAGES * WIDTH * WIDTH * WIDTH > PageId::MAX.get(),
    "there is a bit for every page"
);

fn row<T>() -> Box<[OnceLock<T>]> {
    (0..WIDTH).map(|_| OnceLock::new()).collect()
}

impl VerifiedBits {
    pub(crate) fn new() -> Self {
        Self(row())
    }

    /// Places of the chunk of `page`: in its shelf, of that in its hall, of that among the halls.
    fn places(page: u64) -> [usize; 3] {
        let chunk = page / CHUNK_PAGES;
        [chunk % WIDTH, chunk / WIDTH % WIDTH, chunk / WIDTH / WIDTH].map(|place| place as usize)
    }

    fn chunk(&self, page: u64) -> Option<&Chunk> {
        let [chunk, shelf, hall] = Self::places(page);
        self.0[hall].get()?[shelf].get()?[chunk].get()
    }

    fn word_and_bit(page: u64) -> (usize, u64) {
        ((page / 64 % CHUNK_WORDS) as usize, 1 << (page % 64))
    }

    pub(crate) fn get(&self, page: u64) -> bool {
        let (word, bit) = Self::word_and_bit(page);
        self.chunk(page).is_some_and(|chunk| chunk[word].load(Ordering::Relaxed) & bit != 0)
    }

    pub(crate) fn set(&self, page: u64) {
        let [chunk, shelf, hall] = Self::places(page);
        let shelf = self.0[hall].get_or_init(row)[shelf].get_or_init(row);
        let chunk = shelf[chunk].get_or_init(|| (0..CHUNK_WORDS).map(|_| AtomicU64::new(0)).collect());
        let (word, bit) = Self::word_and_bit(page);
        chunk[word].fetch_or(bit, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self, page: u64) {
        let (word, bit) = Self::word_and_bit(page);
        if let Some(chunk) = self.chunk(page) {
            chunk[word].fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for VerifiedBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedBits")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn verified_bits_reach_to_the_last_page_there_can_be() {
        let bits = VerifiedBits::new();
        for page in
            [0, 63, 64, CHUNK_PAGES, CHUNK_PAGES * WIDTH, CHUNK_PAGES * WIDTH * WIDTH, PageId::MAX.get()]
        {
            assert!(!bits.get(page));
            bits.clear(page);
            bits.set(page);
            assert!(bits.get(page) && !bits.get(page ^ 1));
            bits.clear(page);
            assert!(!bits.get(page));
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicU64 as Bytes;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;

    const PAGE: u64 = 3;

    /// A checkpoint, and what it wrote to the page if it reaches it.
    struct Checkpoint {
        seq: u64,
        page: Option<u64>,
    }

    struct World {
        bits: VerifiedBits,
        /// What is in the page.
        bytes: Bytes,
        published: Mutex<Arc<Checkpoint>>,
    }

    impl World {
        fn new() -> World {
            let first = Checkpoint { seq: 1, page: Some(10) };
            World { bits: VerifiedBits::new(), bytes: Bytes::new(10), published: Mutex::new(Arc::new(first)) }
        }

        fn view(&self) -> Arc<Checkpoint> {
            Arc::clone(&self.published.lock().expect("no panic"))
        }

        /// Answers the checkpoint that was there before.
        fn publish(&self, next: Checkpoint) -> Arc<Checkpoint> {
            std::mem::replace(&mut self.published.lock().expect("no panic"), Arc::new(next))
        }

        /// Reads the page as a reader does. Answers the checkpoint for which it was found right here.
        fn read(&self) -> Option<u64> {
            let view = self.view();
            let page = view.page?;
            let was_set = self.bits.get(PAGE);
            assert_eq!(self.bytes.load(Ordering::Relaxed), page, "a page was written under its reader");
            if was_set {
                return None;
            }
            self.bits.set(PAGE);
            Some(view.seq)
        }

        /// Two checkpoints more: the first lets go of the page, the second writes it anew if `may` says so of the
        /// list of readers, and clears its bit before.
        fn reuse(&self, may: impl FnOnce(&mut Vec<Arc<Checkpoint>>) -> bool, clears: bool) -> bool {
            let mut retained = vec![self.publish(Checkpoint { seq: 2, page: None })];
            if !may(&mut retained) {
                return false;
            }
            if clears {
                self.bits.clear(PAGE);
            }
            self.bytes.store(30, Ordering::Relaxed);
            drop(self.publish(Checkpoint { seq: 3, page: Some(30) }));
            true
        }
    }

    /// As the checkpointer asks: whoever is alone with a checkpoint can let go of it.
    fn nobody_left(retained: &mut Vec<Arc<Checkpoint>>) -> bool {
        retained.retain_mut(|checkpoint| Arc::get_mut(checkpoint).is_none());
        retained.is_empty()
    }

    /// A reader beside the reuse of its page. A bit that is set after it was set for the new page.
    fn reader_beside_reuse(may: fn(&mut Vec<Arc<Checkpoint>>) -> bool, clears: bool) {
        loom::model(move || {
            let world = Arc::new(World::new());
            let reader = thread::spawn({
                let world = Arc::clone(&world);
                move || world.read()
            });
            let reused = world.reuse(may, clears);
            let set = reused && world.bits.get(PAGE);
            let found_right = reader.join().expect("no panic");
            assert!(!set || found_right == Some(3), "the bit of checkpoint {found_right:?} was left");
        });
    }

    #[test]
    fn a_bit_is_never_left_from_before_its_page_was_written() {
        reader_beside_reuse(nobody_left, true);
    }

    #[test]
    #[should_panic(expected = "the bit of checkpoint Some(1) was left")]
    fn a_page_that_is_reused_without_a_look_at_the_readers_is_noticed() {
        reader_beside_reuse(|_| true, true);
    }

    #[test]
    #[should_panic(expected = "the bit of checkpoint Some(1) was left")]
    fn a_bit_that_is_not_cleared_is_noticed() {
        reader_beside_reuse(nobody_left, false);
    }

    #[test]
    fn two_readers_that_find_the_same_page_right_leave_one_bit() {
        loom::model(|| {
            let world = Arc::new(World::new());
            let other = thread::spawn({
                let world = Arc::clone(&world);
                move || world.read()
            });
            let found_right = [world.read(), other.join().expect("no panic")];
            assert!(found_right.contains(&Some(1)) && world.bits.get(PAGE) && !world.bits.get(PAGE + 1));
        });
    }
}
