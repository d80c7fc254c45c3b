// SPDX-License-Identifier: Apache-2.0
//! LMDB, through heed.
//!
//! Owns      one environment with one database.
//! Holds     puts say that they append, which LMDB then does without a search.
//! Never     turns a sync off.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_rivals::{Answer, Key, Size, Store, disk_bytes};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags};

/// Addresses; the file is as long as what is in it.
const MAP_BYTES: usize = 64 << 30;

pub struct Lmdb {
    dir: PathBuf,
    /// Never closed: the database borrows it, and a worker opens one store in its life.
    env: &'static Env,
    entries: Database<'static, Bytes, Bytes>,
}

impl Store for Lmdb {
    #[expect(unsafe_code, reason = "heed has no other way to open a file that is mapped")]
    fn open(dir: &Path) -> Answer<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: the directory is this worker's alone; nothing else changes the file while it is mapped.
        let env = Box::leak(Box::new(unsafe { options.open(dir)? }));
        let txn = env.write_txn()?;
        let entries = env
            .create_databases_and_commit(txn, |databases, txn| {
                databases.create_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Lmdb { dir: dir.to_owned(), env, entries })
    }

    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in entries {
            self.entries.put_with_flags(&mut txn, PutFlags::APPEND, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn delete(&mut self, revisions: Range<u64>) -> Answer<()> {
        let mut txn = self.env.write_txn()?;
        for revision in revisions {
            self.entries.delete(&mut txn, &cairn_rivals::key(revision))?;
        }
        Ok(txn.commit()?)
    }

    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>> {
        let txn = self.env.read_txn()?;
        Ok(self.entries.get(&txn, key)?.map(see))
    }

    fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Answer<()> {
        let txn = self.env.read_txn()?;
        for entry in self.entries.iter(&txn)? {
            let (key, value) = entry?;
            see(key, value);
        }
        Ok(())
    }

    fn size(&self) -> Answer<Size> {
        Ok(Size { data: disk_bytes(&self.dir)?, log: 0 })
    }
}
