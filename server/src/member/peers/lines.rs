// SPDX-License-Identifier: Apache-2.0
//! The connections over which others talk to this member.
//!
//! Owns      how many of one there are, and their end.
//! Holds     of one there are never more than [`LINES_MAX`]: the newest stay, because one that was given up at its
//!           other end may look alive here for long.
//! Never     reads from one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// Two ways, and those that they take the place of. What is read of a frame waits in memory for the rest of it.
pub const LINES_MAX: usize = 4;

/// See the module.
#[derive(Default)]
pub struct Lines {
    open: Mutex<BTreeMap<u64, VecDeque<Arc<Notify>>>>,
}

/// One of them, as long as it is there.
pub struct OpenLine<'a> {
    lines: &'a Lines,
    from: u64,
    end: Arc<Notify>,
}

impl Lines {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, VecDeque<Arc<Notify>>>> {
        self.open.lock().expect("nothing fails under this lock")
    }

    /// One more of this caller. Its oldest ends if there are too many.
    pub fn open(&self, from: u64) -> OpenLine<'_> {
        let end = Arc::new(Notify::new());
        let mut all = self.all();
        let of_caller = all.entry(from).or_default();
        of_caller.push_back(end.clone());
        if of_caller.len() > LINES_MAX
            && let Some(oldest) = of_caller.pop_front()
        {
            oldest.notify_one();
        }
        OpenLine { lines: self, from, end }
    }

    /// Ends all of a caller.
    pub fn cut(&self, from: u64) {
        for end in self.all().remove(&from).into_iter().flatten() {
            end.notify_one();
        }
    }
}

impl OpenLine<'_> {
    /// Resolves when it is to end.
    pub async fn is_cut(&self) {
        self.end.notified().await;
    }
}

impl Drop for OpenLine<'_> {
    fn drop(&mut self) {
        let mut all = self.lines.all();
        if let Some(of_caller) = all.get_mut(&self.from) {
            of_caller.retain(|end| !Arc::ptr_eq(end, &self.end));
            if of_caller.is_empty() {
                all.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn the_newest_lines_of_a_caller_stay_and_all_end_when_it_is_cut() {
        let lines = Lines::default();
        let other = lines.open(7);
        let of_one: Vec<_> = (0..LINES_MAX + 2).map(|_| lines.open(1)).collect();
        let ended = |line: &OpenLine<'_>| line.is_cut().now_or_never().is_some();
        let ends: Vec<bool> = of_one.iter().map(ended).collect();
        assert_eq!(ends, [true, true, false, false, false, false]);
        lines.cut(1);
        assert!(of_one[2..].iter().all(ended), "also of those that nobody waited for yet");
        assert!(!ended(&other));
        drop((of_one, other));
        assert!(lines.all().is_empty(), "what has ended is forgotten");
    }
}
