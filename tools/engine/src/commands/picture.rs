// SPDX-License-Identifier: Apache-2.0
//! Pictures of a file: characters for a terminal, SVG for everything else.
//!
//! Owns      cells, letters and colours.
//! Holds     a cell shows what most of its pages are.
//! Never     reads a store.

use std::fmt::Write as _;

use cairn_mvcc::SCHEMA;

use super::PAGE;
use super::map::{FileMap, State};
use crate::bytes::{percent, size};

/// Lines of a picture on a terminal, at most.
pub const TERMINAL_LINES: u64 = 32;

const SVG_CELLS: u64 = 128;
const SVG_CELL: u64 = 6;
const LEGEND_LINE: u64 = 18;

/// Colours of trees, the largest first as stores usually are; enough apart to be told from each other.
const TREE_COLOURS: [(u8, &str); 9] = [
    (39, "#1f77b4"),
    (208, "#ff7f0e"),
    (34, "#2ca02c"),
    (129, "#9467bd"),
    (160, "#d62728"),
    (94, "#8c564b"),
    (205, "#e377c2"),
    (142, "#bcbd22"),
    (44, "#17becf"),
];

fn colours(state: State) -> (u8, &'static str) {
    match state {
        State::System => (240, "#444444"),
        State::Live(place) => TREE_COLOURS[place % TREE_COLOURS.len()],
        State::Pending => (250, "#b5b5b5"),
        State::Free => (254, "#eeeeee"),
    }
}

pub fn palette(state: State) -> u8 {
    colours(state).0
}

/// The letter of a state: of a tree the first of its name that no tree before it has.
pub fn glyph(state: State) -> char {
    match state {
        State::System => '#',
        State::Pending => '~',
        State::Free => '.',
        State::Live(place) => letters()[place],
    }
}

fn letters() -> Vec<char> {
    let mut letters: Vec<char> = Vec::new();
    for tree in SCHEMA {
        let free = tree.name.chars().find(|letter| !letters.contains(letter));
        letters.push(free.unwrap_or('?'));
    }
    letters
}

/// The file as cells, row by row, at most `lines` rows of `width`; and how many pages a cell stands for.
pub fn cells(map: &FileMap, width: u64, lines: u64) -> (Vec<State>, u64) {
    let pages_a_cell = map.file_pages.div_ceil(width * lines).max(1);
    let count = map.file_pages.div_ceil(pages_a_cell);
    let mut cells = Vec::new();
    let mut runs = map.runs.iter().peekable();
    for cell in 0..count {
        let (from, to) = (cell * pages_a_cell, ((cell + 1) * pages_a_cell).min(map.file_pages));
        let mut most: Vec<(u64, State)> = Vec::new();
        while let Some(run) = runs.peek() {
            let end = run.page + run.pages;
            let pages = end.min(to) - run.page.max(from);
            match most.iter_mut().find(|(_, state)| *state == run.state) {
                Some((sum, _)) => *sum += pages,
                None => most.push((pages, run.state)),
            }
            if end > to {
                break;
            }
            runs.next();
        }
        // The first of equals, so that the picture does not depend on chance.
        let best = most.iter().rev().max_by_key(|(pages, _)| *pages);
        cells.push(best.map_or(State::Free, |(_, state)| *state));
    }
    (cells, pages_a_cell)
}

/// The file as an SVG picture with a legend.
pub fn svg(map: &FileMap) -> String {
    let (cells, pages_a_cell) = cells(map, SVG_CELLS, SVG_CELLS);
    let rows = (cells.len() as u64).div_ceil(SVG_CELLS);
    let sums = map.sums();
    let (width, top) = (SVG_CELLS * SVG_CELL, 2 * LEGEND_LINE);
    let legend = top + rows * SVG_CELL + LEGEND_LINE;
    let height = legend + sums.len() as u64 * LEGEND_LINE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    let title = format!(
        "{} at checkpoint {}: {}, {} a cell",
        text(&map.file),
        map.checkpoint,
        size(map.file_pages * PAGE),
        size(pages_a_cell * PAGE)
    );
    let mut add = |line: std::fmt::Arguments<'_>| writeln!(out, "{line}").expect("a string takes all");
    add(format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"));
    add(format_args!("<text x=\"4\" y=\"{LEGEND_LINE}\">{title}</text>"));
    for (row, line) in cells.chunks(SVG_CELLS as usize).enumerate() {
        let mut at = 0;
        while at < line.len() {
            let state = line[at];
            let same = line[at..].iter().take_while(|other| **other == state).count();
            let (x, y) = (at as u64 * SVG_CELL, top + row as u64 * SVG_CELL);
            let first = (row as u64 * SVG_CELLS + at as u64) * pages_a_cell;
            let last = (first + same as u64 * pages_a_cell).min(map.file_pages) - 1;
            let (colour, name, wide) = (colours(state).1, name(state), same as u64 * SVG_CELL);
            add(format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{wide}\" height=\"{SVG_CELL}\" fill=\"{colour}\">\
                 <title>pages {first} to {last}: {name}</title></rect>"
            ));
            at += same;
        }
    }
    for (line, (state, pages)) in sums.iter().enumerate() {
        let y = legend + line as u64 * LEGEND_LINE;
        let (colour, name) = (colours(*state).1, name(*state));
        add(format_args!("<rect x=\"4\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>", y - 10));
        let (bytes, share) = (size(pages * PAGE), percent(*pages, map.file_pages));
        add(format_args!("<text x=\"22\" y=\"{y}\">{name}: {bytes}, {share}</text>"));
    }
    out.push_str("</svg>\n");
    out
}

fn name(state: State) -> String {
    state.tree().map_or(state.word().to_owned(), |tree| format!("tree {tree}"))
}

fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::map::Run;
    use super::*;

    fn map(runs: &[(u64, State)]) -> FileMap {
        let mut page = 0;
        let runs = runs.iter().map(|(pages, state)| {
            let run = Run { page, pages: *pages, state: *state };
            page += pages;
            run
        });
        let runs: Vec<Run> = runs.collect();
        FileMap { file: "a<b>/engine.db".into(), checkpoint: 3, file_pages: page, runs }
    }

    #[test]
    fn a_cell_shows_what_most_of_its_pages_are() {
        let map = map(&[(16, State::System), (20, State::Live(0)), (3, State::Pending), (25, State::Free)]);
        let drawn = |width, lines| {
            let (cells, pages) = cells(&map, width, lines);
            (cells.into_iter().map(glyph).collect::<String>(), pages)
        };
        assert_eq!(drawn(8, 1), ("##rrr...".into(), 8));
        assert_eq!(drawn(64, 4), (format!("{}{}~~~{}", "#".repeat(16), "r".repeat(20), ".".repeat(25)), 1));
        assert_eq!(drawn(3, 1), ("#r.".into(), 22));
    }

    #[test]
    fn every_tree_has_a_letter_of_its_own() {
        let mut letters = letters();
        assert_eq!(letters.iter().collect::<String>(), "rhialmeut");
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), SCHEMA.len());
    }

    #[test]
    fn a_picture_is_whole_and_its_text_is_escaped() {
        let svg = svg(&map(&[(16, State::System), (100_000, State::Live(2)), (9, State::Free)]));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b>/engine.db at checkpoint 3"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), svg.matches("/>").count() + svg.matches("</rect>").count());
        assert!(svg.contains("<title>pages 0 to "), "{svg}");
        assert!(svg.contains(">tree idx: 390.6 MiB, 100.0 %</text>"), "{svg}");
    }
}
