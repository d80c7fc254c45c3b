// SPDX-License-Identifier: Apache-2.0
//! redb.
//!
//! Owns      one database with one table.
//! Holds     each commit is durable when it returns, as redb has it unless told otherwise.
//! Never     turns a sync off.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_rivals::{Answer, Key, Size, Store, disk_bytes};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

pub struct Redb {
    path: PathBuf,
    db: Database,
}

impl Store for Redb {
    fn open(dir: &Path) -> Answer<Redb> {
        let path = dir.join("db");
        Ok(Redb { db: Database::create(&path)?, path })
    }

    fn insert(&mut self, entries: &[(Key, &[u8])]) -> Answer<()> {
        let txn = self.db.begin_write()?;
        let mut table = txn.open_table(TABLE)?;
        for (key, value) in entries {
            table.insert(&key[..], *value)?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn delete(&mut self, revisions: Range<u64>) -> Answer<()> {
        let txn = self.db.begin_write()?;
        let mut table = txn.open_table(TABLE)?;
        for revision in revisions {
            table.remove(&cairn_rivals::key(revision)[..])?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn read<R>(&self, key: &Key, see: impl FnOnce(&[u8]) -> R) -> Answer<Option<R>> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(table.get(&key[..])?.map(|value| see(value.value())))
    }

    fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Answer<()> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            see(key.value(), value.value());
        }
        Ok(())
    }

    fn size(&self) -> Answer<Size> {
        Ok(Size { data: disk_bytes(&self.path)?, log: 0 })
    }
}
