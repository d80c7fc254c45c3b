// SPDX-License-Identifier: Apache-2.0
//! `engine get`: one key.
//!
//! Owns      how a pair is shown alone.
//! Holds     a key that is not there is an answer, said on standard error, and no failure.
//! Never     lists more than one key.

use std::cell::Cell;

use cairn_mvcc::{KvRef, Stored};

use super::follow::{Stop, follow, readable};
use super::pair::{ChangeJson, PairJson, lease_shown, typed, value_shown};
use crate::bytes::{escaped, size};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Column, Facts, Output, Table, left, right};
use crate::place::Place;

const COLUMNS: &[Column] =
    &[right("REVISION"), left("CHANGE"), right("VERSION"), left("LEASE"), right("BYTES"), left("VALUE")];

pub fn run(args: &cli::Get, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let key = typed(&args.key, &args.typed)?;
    if args.history {
        return history(&dir, &key, output);
    }
    let (message, at, newest) = follow(&dir, &Cell::new(0), |stored: &Stored| {
        let newest = stored.revision();
        let at = args.at.unwrap_or(newest);
        readable(stored, at)?;
        Ok((stored.get(&key, at)?, at, newest))
    })?;
    let Some(message) = message else {
        // Whoever put it a moment ago has to look for it in the log.
        let newest = if at == newest { ", that of the newest checkpoint" } else { "" };
        eprintln!("engine: there is no key {} at revision {at}{newest}", escaped(&key));
        return Ok(Verdict::Sound);
    };
    let damaged = || Failure::Damage(format!("the pair of key {} is no pair", escaped(&key)));
    let kv = KvRef::decode(&message).ok_or_else(damaged)?;
    if args.raw {
        output.raw(kv.value)?;
    } else if output.json {
        output.json(&PairJson { kv, value: true })?;
    } else {
        let mut facts = Facts::default();
        facts.add("key", escaped(kv.key));
        facts.add("created", kv.create.to_string());
        facts.add("modified", kv.modified.to_string());
        facts.add("version", kv.version.to_string());
        let lease = lease_shown(kv.lease);
        facts.add("lease", if lease.is_empty() { "none".to_owned() } else { lease });
        facts.add(
            "bytes",
            format!("{} of the key, {} of the value", kv.key.len(), size(kv.value.len() as u64)),
        );
        facts.add("value", escaped(kv.value));
        facts.print(output)?;
    }
    Ok(Verdict::Sound)
}

fn history(dir: &std::path::Path, key: &[u8], output: &mut Output) -> Outcome {
    // A key has few changes, so a look that is overtaken begins anew.
    let rows = follow(dir, &Cell::new(0), |stored: &Stored| {
        let mut rows = Vec::new();
        stored.changes_of::<Stop>(key, |change| {
            let kv = change.kv;
            rows.push(if output.json {
                vec![serde_json::to_string(&ChangeJson { change, value: true }).expect("fields have names")]
            } else if change.delete {
                let blank = String::new;
                vec![change.revision.to_string(), "delete".into(), blank(), blank(), blank(), blank()]
            } else {
                vec![
                    change.revision.to_string(),
                    "put".into(),
                    kv.version.to_string(),
                    lease_shown(kv.lease),
                    kv.value.len().to_string(),
                    value_shown(kv.value),
                ]
            });
            Ok(())
        })?;
        Ok(rows)
    })?;
    if rows.is_empty() {
        eprintln!("engine: there is no key {}", escaped(key));
        return Ok(Verdict::Sound);
    }
    let mut table = Table::new(COLUMNS);
    for row in rows {
        if output.json { output.line(&row[0])? } else { table.row(output, row)? }
    }
    if !output.json {
        table.end(output)?;
    }
    Ok(Verdict::Sound)
}
