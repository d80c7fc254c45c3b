// SPDX-License-Identifier: Apache-2.0
//! Standard output: lines, tables that line up, JSON, and colour where a person looks.
//!
//! Owns      the one buffered writer, the widths of columns, the choice of colour.
//! Holds     1. colour is for a terminal alone, and not where NO_COLOR is set;
//!           2. a table of any length is printed with the memory of its first rows;
//!           3. the last column is never padded, so what is long belongs there.
//! Never     writes to standard error.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::outcome::{Failure, Outcome};

/// Rows by which the widths of a table are set.
const MEASURED_ROWS: usize = 512;

/// How something is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    Good,
    Bad,
    Head,
    /// A number of the 256-colour palette.
    Palette(u8),
}

impl Paint {
    fn code(self) -> String {
        match self {
            Paint::Good => "32".into(),
            Paint::Bad => "1;31".into(),
            Paint::Head => "1".into(),
            Paint::Palette(n) => format!("38;5;{n}"),
        }
    }
}

pub struct Output {
    to: BufWriter<Stdout>,
    pub json: bool,
    colour: bool,
}

impl Output {
    pub fn new(json: bool) -> Output {
        let stdout = io::stdout();
        let colour =
            stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { to: BufWriter::with_capacity(1 << 16, stdout), json, colour }
    }

    /// The text in a colour, if there is any colour.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
    }

    pub fn line(&mut self, text: &str) -> Outcome<()> {
        self.raw(text.as_bytes())?;
        self.raw(b"\n")
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.to.write_all(bytes).map_err(|e| closed(&e))
    }

    /// One JSON value on a line of its own.
    pub fn json(&mut self, value: &impl Serialize) -> Outcome<()> {
        let text = serde_json::to_string(value).expect("keys are strings and numbers are finite");
        self.line(&text)
    }

    pub fn flush(&mut self) -> Outcome<()> {
        self.to.flush().map_err(|e| closed(&e))
    }
}

fn closed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Unable(format!("cannot write the output: {error}")),
    }
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
}

pub const fn left(name: &'static str) -> Column {
    Column { name, right: false }
}

pub const fn right(name: &'static str) -> Column {
    Column { name, right: true }
}

/// A table that is printed as it comes.
pub struct Table {
    columns: &'static [Column],
    waiting: Vec<Vec<String>>,
    /// Set once the head is printed.
    widths: Option<Vec<usize>>,
}

impl Table {
    pub fn new(columns: &'static [Column]) -> Table {
        Table { columns, waiting: Vec::new(), widths: None }
    }

    pub fn row(&mut self, output: &mut Output, cells: Vec<String>) -> Outcome<()> {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        if let Some(widths) = &self.widths {
            return output.line(&laid_out(self.columns, widths, &cells));
        }
        self.waiting.push(cells);
        if self.waiting.len() == MEASURED_ROWS { self.begin(output) } else { Ok(()) }
    }

    /// Whether there was no row so far.
    pub fn is_empty(&self) -> bool {
        self.widths.is_none() && self.waiting.is_empty()
    }

    pub fn end(&mut self, output: &mut Output) -> Outcome<()> {
        if self.widths.is_none() { self.begin(output) } else { Ok(()) }
    }

    fn begin(&mut self, output: &mut Output) -> Outcome<()> {
        let head: Vec<String> = self.columns.iter().map(|column| column.name.to_owned()).collect();
        let width = |at: usize| {
            let cells = self.waiting.iter().chain([&head]);
            cells.map(|row| row[at].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let head = output.paint(Paint::Head, &laid_out(self.columns, &widths, &head));
        output.line(&head)?;
        for row in std::mem::take(&mut self.waiting) {
            output.line(&laid_out(self.columns, &widths, &row))?;
        }
        self.widths = Some(widths);
        Ok(())
    }
}

fn laid_out(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let mut line = String::new();
    for (i, ((column, width), cell)) in columns.iter().zip(widths).zip(cells).enumerate() {
        if i > 0 {
            line.push_str("  ");
        }
        if column.right {
            line.push_str(&format!("{cell:>width$}"));
        } else if i + 1 == columns.len() {
            line.push_str(cell);
        } else {
            line.push_str(&format!("{cell:<width$}"));
        }
    }
    if cells.last().is_some_and(String::is_empty) {
        line.truncate(line.trim_end().len());
    }
    line
}

/// Lines of `name   value`, lined up.
#[derive(Default)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    pub fn print(self, output: &mut Output) -> Outcome<()> {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in self.0 {
            output.line(&format!("{name:<width$}  {value}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_line_up_and_the_last_one_is_not_padded() {
        let columns = &[left("TREE"), right("PAGES"), left("KEY")];
        let rows = [["rev", "1,234", "a"], ["attach", "7", "a longer key"], ["idx", "12", ""]];
        let widths = [6, 5, 12];
        let head = columns.map(|column| column.name.to_owned());
        let mut lines = vec![laid_out(columns, &widths, &head)];
        lines.extend(rows.map(|row| laid_out(columns, &widths, &row.map(str::to_owned))));
        expect![[r#"
            TREE    PAGES  KEY
            rev     1,234  a
            attach      7  a longer key
            idx        12"#]]
        .assert_eq(&lines.join("\n"));
    }
}
