// SPDX-License-Identifier: Apache-2.0
//! fjall, a log-structured merge tree.
//!
//! Owns      one database with one keyspace.
//! Holds     each batch is synced before it counts.
//! Never     turns a sync off, or asks for a compaction: those go on by themselves.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_rivals::{Answer, Key, Size, Store, disk_bytes};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

pub struct Fjall {
    dir: PathBuf,
    db: Database,
    entries: Keyspace,
}

impl Store for Fjall {
    fn open(dir: &Path) -> Answer<Fjall> {
        let db = Database::builder(dir).open()?;
        let entries = db.keyspace("entries", KeyspaceCreateOptions::default)?;
        Ok(Fjall { dir: dir.to_owned(), db, entries })
    }

    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in entries {
            batch.insert(&self.entries, &key[..], *value);
        }
        Ok(batch.commit()?)
    }

    fn delete(&mut self, revisions: Range<u64>) -> Answer<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for revision in revisions {
            batch.remove(&self.entries, &cairn_rivals::key(revision)[..]);
        }
        Ok(batch.commit()?)
    }

    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>> {
        Ok(self.db.snapshot().get(&self.entries, key)?.map(|value| see(&value)))
    }

    fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Answer<()> {
        for entry in self.db.snapshot().iter(&self.entries) {
            let (key, value) = entry.into_inner()?;
            see(&key, &value);
        }
        Ok(())
    }

    fn size(&self) -> Answer<Size> {
        let log = self.db.journal_disk_space()?;
        Ok(Size { data: disk_bytes(&self.dir)?.saturating_sub(log), log })
    }
}
