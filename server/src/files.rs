// SPDX-License-Identifier: Apache-2.0
//! Whether files that were read have changed since.
//!
//! Owns      what is compared: which file a path leads to, its size, and when it was changed.
//! Never     reads a file.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Of some files at one time, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamps(Vec<Option<Stamp>>);

/// What changes when a file does, also by a link that is turned to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamps {
    /// To be taken before the files are read: a change in between is then seen by the next look.
    pub fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Stamps {
        Stamps(files.map(stamp).collect())
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let found = fs::metadata(file).ok()?;
    Some(Stamp {
        file: (found.dev(), found.ino()),
        bytes: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_change_is_seen_whichever_way_it_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two, link) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("link"));
        let seen = || Stamps::of([one.as_path(), link.as_path()].into_iter());
        let mut all = vec![seen()];
        fs::write(&one, "a").expect("written");
        all.push(seen());
        fs::write(&one, "bc").expect("written");
        all.push(seen());
        fs::write(&two, "bc").expect("written");
        fs::rename(&two, &one).expect("renamed");
        all.push(seen());
        symlink("1", &link).expect("linked");
        all.push(seen());
        fs::write(&two, "bc").expect("written");
        fs::remove_file(&link).expect("removed");
        symlink("2", &link).expect("linked");
        all.push(seen());
        assert_eq!(all[5], seen(), "nothing was changed");
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "step {i}");
        }
    }
}
