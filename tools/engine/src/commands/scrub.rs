// SPDX-License-Identifier: Apache-2.0
//! `engine scrub`: everything that the newest checkpoint needs, read from the medium.
//!
//! Owns      where the pass is, the rate, and the report.
//! Holds     1. each part is of the checkpoint that is the newest when it is read, so a pass of any length keeps up with
//!              a member that writes;
//!           2. a part that is overtaken is read again, and counted once.
//! Never     reads what no checkpoint needs, or the log: `check` and `wal verify` do.

use std::path::Path;
use std::time::{Duration, Instant};

use cairn_engine::Error;
use cairn_engine::inspect::{Findings, Store};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::damage::{self, Damage};
use super::{PAGE, vfs};
use crate::bytes::{counted, grouped, size};
use crate::cli;
use crate::outcome::{Outcome, Verdict};
use crate::output::{Facts, Output, Paint};
use crate::place::{Place, STORE_FILE};
use crate::progress::{Progress, Unit};

/// Pages of a step.
const STEP_PAGES: u64 = 256;

/// How often one step may be overtaken.
const TRIES_MAX: u32 = 20;

#[derive(Serialize)]
struct Report {
    file: String,
    /// The checkpoint with which the pass began, and the one with which it ended.
    began: u64,
    checkpoint: u64,
    pages: u64,
    seconds: f64,
    /// Extents that were wrong, and right when they were read again.
    reread: u64,
    damage: Vec<Damage>,
    damages: u64,
    verdict: &'static str,
}

struct Pass<'p> {
    dir: &'p Path,
    rate: Option<u64>,
    start: Instant,
    progress: Progress,
    findings: Findings,
    began: u64,
    newest: u64,
    pages: u64,
    reread: u64,
}

pub fn run(args: &cli::Scrub, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let store = Store::open(&vfs(), &dir, SCHEMA)?;
    let total: u64 = store.used_runs()?.map_or(0, |runs| runs.iter().map(|(_, n)| n).sum());
    let began = store.slot().seq;
    let mut pass = Pass {
        dir: &dir,
        rate: args.rate,
        start: Instant::now(),
        progress: Progress::new("scrubbing", Unit::Bytes, total * PAGE),
        findings: Findings::default(),
        began,
        newest: began,
        pages: 0,
        reread: 0,
    };
    pass.all()?;
    let report = Report {
        file: dir.join(STORE_FILE).display().to_string(),
        began,
        checkpoint: pass.newest,
        pages: pass.pages,
        seconds: pass.start.elapsed().as_secs_f64(),
        reread: pass.reread,
        damage: damage::list(&pass.findings, SCHEMA),
        damages: pass.findings.count,
        verdict: Verdict::of(pass.findings.count).word(),
    };
    drop(pass);
    if output.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    Ok(Verdict::of(report.damages))
}

impl Pass<'_> {
    fn all(&mut self) -> Outcome<()> {
        let pages = self.step(|store, findings, _| store.scrub_head(findings))?;
        self.done(pages);
        for tree in SCHEMA {
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                let scrubbed = self.step(|store, findings, began| {
                    store.scrub_tree(tree, &key, STEP_PAGES, began, findings)
                })?;
                self.reread += scrubbed.reread;
                self.done(scrubbed.pages);
                from = scrubbed.next;
            }
        }
        Ok(())
    }

    /// One step at the newest checkpoint, again if it is overtaken.
    fn step<T>(&mut self, step: impl Fn(&Store, &mut Findings, u64) -> Result<T, Error>) -> Outcome<T> {
        let mut tries = 1;
        loop {
            let store = Store::open(&vfs(), self.dir, SCHEMA)?;
            match step(&store, &mut self.findings, self.began) {
                Err(Error::Overtaken { .. }) if tries < TRIES_MAX => tries += 1,
                done => {
                    self.newest = store.slot().seq;
                    return Ok(done?);
                }
            }
        }
    }

    fn done(&mut self, pages: u64) {
        self.pages += pages;
        self.progress.tick(pages * PAGE);
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64((self.pages * PAGE) as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(self.start.elapsed()));
    }
}

fn print(report: &Report, output: &mut Output) -> Outcome<()> {
    let bytes = report.pages * PAGE;
    let mut facts = Facts::default();
    let rate = size((bytes as f64 / report.seconds.max(1e-9)) as u64);
    facts.add("read", format!("{}, {rate}/s", size(bytes)));
    facts.add("read again", format!("{} that came back right", counted(report.reread, "extent")));
    let checkpoints = match report.checkpoint - report.began {
        0 => report.checkpoint.to_string(),
        _ => format!("{} to {}", grouped(report.began), grouped(report.checkpoint)),
    };
    facts.add("checkpoint", checkpoints);
    facts.print(output)?;
    output.line("")?;
    damage::print(output, &report.damage, report.damages)?;
    let verdict = match report.damages {
        0 => output.paint(Paint::Good, &format!("sound: {}", report.file)),
        n => output.paint(Paint::Bad, &format!("damaged: {} in {}", counted(n, "damage"), report.file)),
    };
    output.line(&verdict)
}
