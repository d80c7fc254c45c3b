// SPDX-License-Identifier: Apache-2.0
//! `engine map`: the file as a picture.
//!
//! Owns      what each page of the file is to the newest checkpoint and to the two before.
//! Holds     every page is exactly one thing, so the figures add up to the file.
//! Never     draws: `picture` does.

use std::fs;
use std::path::Path;

use cairn_engine::Error;
use cairn_engine::inspect::{Findings, Store, look};
use cairn_mvcc::SCHEMA;
use serde::Serialize;

use super::{PAGE, damage, pages, picture, vfs};
use crate::bytes::{grouped, percent, size};
use crate::cli;
use crate::outcome::{Failure, Outcome, Verdict};
use crate::output::{Column, Output, Paint, Table, left, right};
use crate::place::Place;

/// What a run of pages is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Superblocks, slots, space maps.
    System,
    /// Of the tree at this place of the schema.
    Live(usize),
    /// Needed by one of the two checkpoints before alone.
    Pending,
    Free,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::System => "system",
            State::Live(_) => "live",
            State::Pending => "pending",
            State::Free => "free",
        }
    }

    pub fn tree(self) -> Option<&'static str> {
        match self {
            State::Live(place) => Some(SCHEMA[place].name),
            _ => None,
        }
    }

    /// Every state there is, in the order of the legend.
    pub fn all() -> impl Iterator<Item = State> {
        let trees = (0..SCHEMA.len()).map(State::Live);
        [State::System].into_iter().chain(trees).chain([State::Pending, State::Free])
    }
}

/// Pages in a row that are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub page: u64,
    pub pages: u64,
    pub state: State,
}

#[derive(Serialize)]
struct Report {
    file: String,
    checkpoint: u64,
    file_pages: u64,
    sums: Vec<Sum>,
    runs: Vec<RunReport>,
}

#[derive(Serialize)]
struct Sum {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<&'static str>,
    pages: u64,
}

#[derive(Serialize)]
struct RunReport {
    page: u64,
    pages: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<&'static str>,
}

/// A file and its runs.
pub struct FileMap {
    pub file: String,
    pub checkpoint: u64,
    pub file_pages: u64,
    pub runs: Vec<Run>,
}

const LEGEND_COLUMNS: &[Column] = &[left(""), right("PAGES"), right("SIZE"), right("SHARE"), left("WHAT")];

pub fn run(args: &cli::Map, output: &mut Output) -> Outcome {
    let dir = Place::find_store(&args.store)?;
    let (map, findings) = look(&vfs(), &dir, SCHEMA, |store| {
        let mut findings = Findings::default();
        Ok((FileMap::read(store, &mut findings)?, findings))
    })?;
    match &args.svg {
        Some(path) if path == Path::new("-") => output.raw(picture::svg(&map).as_bytes())?,
        Some(path) => write_picture(path, &dir, &picture::svg(&map))?,
        None if output.json => output.json(&map.report())?,
        None => draw(&map, args, output)?,
    }
    damage::tell(&findings);
    Ok(Verdict::of(findings.count))
}

/// Writes a picture anywhere but into the directory that is looked at.
fn write_picture(path: &Path, dir: &Path, svg: &str) -> Outcome<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| fs::canonicalize(path).map_err(|e| Failure::io("find", path, &e));
    if real(parent)?.starts_with(real(dir)?) {
        let dir = dir.display();
        return Err(Failure::Usage(format!("{} is in {dir}, where nothing is written", path.display())));
    }
    fs::write(path, svg).map_err(|e| Failure::io("write", path, &e))
}

fn draw(map: &FileMap, args: &cli::Map, output: &mut Output) -> Outcome<()> {
    let width = u64::from(args.width);
    let (cells, pages_a_cell) = picture::cells(map, width, picture::TERMINAL_LINES);
    for line in cells.chunks(width as usize) {
        let line: String = line.iter().map(|state| painted(*state, output)).collect();
        output.line(&line)?;
    }
    output.line("")?;
    let mut table = Table::new(LEGEND_COLUMNS);
    for (state, pages) in map.sums() {
        let cells = vec![
            picture::glyph(state).to_string(),
            grouped(pages),
            size(pages * PAGE),
            percent(pages, map.file_pages),
            state.tree().map_or(state.word().to_owned(), |tree| format!("tree {tree}")),
        ];
        table.row(output, cells)?;
    }
    table.end(output)?;
    output.line("")?;
    output.line(&format!(
        "{} at checkpoint {}: {}, {} a cell",
        map.file,
        map.checkpoint,
        size(map.file_pages * PAGE),
        size(pages_a_cell * PAGE)
    ))
}

fn painted(state: State, output: &Output) -> String {
    output.paint(Paint::Palette(picture::palette(state)), &picture::glyph(state).to_string())
}

impl FileMap {
    fn read(store: &Store, findings: &mut Findings) -> Result<FileMap, Error> {
        let extents = pages::extents(store, None, findings)?;
        let place = |name: &str| SCHEMA.iter().position(|tree| tree.name == name).unwrap_or(0);
        let live = extents.iter().map(|row| (row.page, row.pages, State::Live(place(row.tree))));
        let system = store.system_runs().into_iter().map(|(page, n)| (page, n, State::System));
        let mut known: Vec<(u64, u64, State)> = live.chain(system).collect();
        known.sort_unstable_by_key(|(page, ..)| *page);
        let mut before: Vec<(u64, u64)> = Vec::new();
        for seq in store.seqs_before() {
            // One that the writer has let go of meanwhile needs no pages any more.
            let runs = store.before(seq)?.map(|older| older.used_runs()).transpose()?.flatten();
            before.extend(runs.into_iter().flatten());
        }
        before.sort_unstable();
        Ok(FileMap {
            file: store.path().display().to_string(),
            checkpoint: store.slot().seq,
            file_pages: store.file_pages(),
            runs: runs(store.file_pages(), &known, &before),
        })
    }

    /// Pages of each state that there is.
    pub fn sums(&self) -> Vec<(State, u64)> {
        let pages =
            |state: State| self.runs.iter().filter(move |run| run.state == state).map(|run| run.pages);
        State::all().map(|state| (state, pages(state).sum())).filter(|(_, pages)| *pages > 0).collect()
    }

    fn report(&self) -> Report {
        let runs = self.runs.iter().map(|run| {
            let Run { page, pages, state } = *run;
            RunReport { page, pages, state: state.word(), tree: state.tree() }
        });
        let sums = self.sums().into_iter();
        Report {
            file: self.file.clone(),
            checkpoint: self.checkpoint,
            file_pages: self.file_pages,
            sums: sums.map(|(state, pages)| Sum { state: state.word(), tree: state.tree(), pages }).collect(),
            runs: runs.collect(),
        }
    }
}

/// The whole file as runs. `known` are the pages whose state is certain, and `before` those that the older checkpoints
/// use; both in order, and the latter may overlap anything.
fn runs(file_pages: u64, known: &[(u64, u64, State)], before: &[(u64, u64)]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut before = before.iter().copied().peekable();
    let mut at = 0;
    for (page, n, state) in known.iter().copied().chain([(file_pages, 0, State::Free)]) {
        let start = page.clamp(at, file_pages);
        while at < start {
            while before.next_if(|(start, n)| start + n <= at).is_some() {}
            let (end, state) = match before.peek() {
                Some((older, n)) if *older <= at => (older + n, State::Pending),
                Some((older, _)) => (*older, State::Free),
                None => (start, State::Free),
            };
            push(&mut runs, at, end.min(start), state);
            at = end.min(start);
        }
        let end = (page + n).clamp(at, file_pages);
        push(&mut runs, at, end, state);
        at = end;
    }
    runs
}

fn push(runs: &mut Vec<Run>, page: u64, end: u64, state: State) {
    match runs.last_mut() {
        _ if page == end => {}
        Some(last) if last.state == state => last.pages += end - page,
        _ => runs.push(Run { page, pages: end - page, state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_one_thing() {
        let known = [
            (0, 16, State::System),
            (20, 4, State::Live(0)),
            (24, 2, State::Live(2)),
            (40, 1, State::Live(0)),
        ];
        let before = [(18, 8), (30, 5), (33, 4)];
        let found: Vec<_> =
            runs(50, &known, &before).iter().map(|run| (run.page, run.pages, run.state)).collect();
        assert_eq!(
            found,
            [
                (0, 16, State::System),
                (16, 2, State::Free),
                (18, 2, State::Pending),
                (20, 4, State::Live(0)),
                (24, 2, State::Live(2)),
                (26, 4, State::Free),
                (30, 7, State::Pending),
                (37, 3, State::Free),
                (40, 1, State::Live(0)),
                (41, 9, State::Free),
            ]
        );
        assert_eq!(runs(4, &[], &[]), [Run { page: 0, pages: 4, state: State::Free }]);
    }
}
