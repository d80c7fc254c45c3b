// SPDX-License-Identifier: Apache-2.0
//! sled.
//!
//! Owns      one tree.
//! Holds     each batch is flushed before it counts.
//! Never     turns a sync off.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_rivals::{Answer, Key, Size, Store, disk_bytes};
use sled::{Batch, Config, Db};

/// Entries of a leaf, as sled's examples have it.
const FANOUT: usize = 1024;

pub struct Sled {
    dir: PathBuf,
    db: Db<FANOUT>,
}

impl Sled {
    fn apply(&self, batch: Batch) -> Answer<()> {
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(())
    }
}

impl Store for Sled {
    fn open(dir: &Path) -> Answer<Sled> {
        Ok(Sled { db: Config::new().path(dir).open()?, dir: dir.to_owned() })
    }

    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(&key[..], *value);
        }
        self.apply(batch)
    }

    fn delete(&mut self, revisions: Range<u64>) -> Answer<()> {
        let mut batch = Batch::default();
        for revision in revisions {
            batch.remove(&cairn_rivals::key(revision)[..]);
        }
        self.apply(batch)
    }

    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>> {
        Ok(self.db.get(key)?.map(|value| see(&value)))
    }

    fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Answer<()> {
        for entry in self.db.iter() {
            let (key, value) = entry?;
            see(&key, &value);
        }
        Ok(())
    }

    fn size(&self) -> Answer<Size> {
        Ok(Size { data: disk_bytes(&self.dir)?, log: 0 })
    }
}
