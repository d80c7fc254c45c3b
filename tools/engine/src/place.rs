// SPDX-License-Identifier: Apache-2.0
//! Where the files of a member are.
//!
//! Owns      the way from what was typed to the directories of store and log.
//! Never     opens a file of them.

use std::path::{Path, PathBuf};

use crate::cli;
use crate::outcome::{Failure, Outcome};

/// The directories that were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where `engine.db` is.
    pub store: PathBuf,
    /// Where the log is, if there is one.
    pub log: Option<PathBuf>,
}

pub const STORE_FILE: &str = "engine.db";

impl Place {
    pub fn find(args: &cli::Place) -> Outcome<Place> {
        let dir = &args.dir;
        if args.wal_dir.as_ref().is_some_and(|log| !log.is_dir()) {
            let log = args.wal_dir.as_deref().unwrap_or(dir);
            return Err(Failure::Unable(format!("{} is no directory", log.display())));
        }
        let candidates = [dir.clone(), dir.join("member")];
        let Some(store) = candidates.into_iter().find(|dir| dir.join(STORE_FILE).is_file()) else {
            return Err(Failure::Unable(missing(dir)));
        };
        let log = args.wal_dir.clone().or_else(|| Some(store.join("wal")).filter(|log| log.is_dir()));
        Ok(Place { store, log })
    }

    /// The directory of the store, for a command that needs no log.
    pub fn find_store(args: &cli::StoreDir) -> Outcome<PathBuf> {
        Ok(Place::find(&cli::Place { dir: args.dir.clone(), wal_dir: None })?.store)
    }

    /// The log's directory, and the store's if there is one: a log may lie alone.
    pub fn find_log(args: &cli::Place) -> Outcome<(PathBuf, Option<PathBuf>)> {
        let alone = args.wal_dir.as_ref().unwrap_or(&args.dir);
        match Place::find(args) {
            Ok(Place { store, log: Some(log) }) => Ok((log, Some(store))),
            Ok(Place { store, log: None }) => {
                let beside = store.join("wal");
                let beside = beside.display();
                Err(Failure::Unable(format!("there is no log in {beside}: say where it is with --wal-dir")))
            }
            Err(_) if has_segments(alone) => Ok((alone.clone(), None)),
            Err(missing) => Err(missing),
        }
    }

    pub fn store_file(&self) -> PathBuf {
        self.store.join(STORE_FILE)
    }
}

fn has_segments(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|end| end == "wal"))
}

fn missing(dir: &Path) -> String {
    let dir_shown = dir.display();
    if dir.join("member/snap/db").exists() {
        return format!("{dir_shown} is etcd's: look at it with etcdutl");
    }
    if dir.is_file() {
        return format!("{dir_shown} is a file: name the directory that it is in");
    }
    if !dir.exists() {
        return format!("{dir_shown} does not exist");
    }
    format!("there is no store in {dir_shown}: neither {STORE_FILE} nor member/{STORE_FILE} is there")
}
