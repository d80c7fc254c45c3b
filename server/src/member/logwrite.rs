// SPDX-License-Identifier: Apache-2.0
//! The write of the log that is under way, and whether it hangs.
//!
//! Owns      since when the log's thread waits for the disk.
//! Holds     a write that waits longer than it may is told once, with its file, and so is its end.
//! Never     ends the member: reads are answered meanwhile, and a disk that comes back has lost nothing.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A write of the log that waits for longer than an election timeout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HungWrite {
    /// The segment that is written, or that the one being made follows.
    pub file: PathBuf,
    pub since: Instant,
}

impl fmt::Display for HungWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = self.since.elapsed().as_secs_f64();
        write!(f, "a write to {} has been waiting for {waited:.1}s: check the disk", self.file.display())
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct LogWrite {
    since: Mutex<Option<Instant>>,
    hung: watch::Sender<Option<HungWrite>>,
}

impl LogWrite {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().expect("nothing fails under this lock")
    }

    pub fn begin(&self, now: Instant) {
        *self.since() = Some(now);
    }

    /// The write ended; gives it back if it was told as hanging.
    pub fn end(&self) -> Option<HungWrite> {
        let mut since = self.since();
        *since = None;
        if self.hung.borrow().is_none() { None } else { self.hung.send_replace(None) }
    }

    /// Gives back a write that waits for more than `limit`, the first time that it does.
    pub fn judge(&self, now: Instant, limit: Duration, file: impl FnOnce() -> PathBuf) -> Option<HungWrite> {
        let since = self.since();
        let late = since.filter(|since| now.duration_since(*since) > limit);
        let since = late.filter(|_| self.hung.borrow().is_none())?;
        let hung = HungWrite { file: file(), since };
        self.hung.send_replace(Some(hung.clone()));
        Some(hung)
    }

    /// The hanging write, now and at each change.
    pub fn hung(&self) -> watch::Receiver<Option<HungWrite>> {
        self.hung.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_hangs_after_its_limit_and_until_its_end() {
        const LIMIT: Duration = Duration::from_millis(1000);
        let begin = Instant::now();
        let write = LogWrite::default();
        let judge = |ms| write.judge(begin + Duration::from_millis(ms), LIMIT, || "f".into());
        assert_eq!(judge(5000), None, "nothing is written");
        write.begin(begin);
        assert_eq!(judge(1000), None, "not yet");
        let hung = judge(1001).expect("late");
        assert_eq!((&hung.file, hung.since), (&PathBuf::from("f"), begin));
        assert_eq!(judge(1002), None, "told once");
        assert_eq!(write.hung().borrow().as_ref(), Some(&hung));
        assert_eq!(write.end(), Some(hung));
        assert_eq!(*write.hung().borrow(), None);
        assert_eq!(judge(9000), None);
        write.begin(begin);
        assert_eq!(write.end(), None, "it never hung");
    }
}
