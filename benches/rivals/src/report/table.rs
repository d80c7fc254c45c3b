// SPDX-License-Identifier: Apache-2.0
//! A table of text, as columns on a terminal, as Markdown, or as HTML.
//!
//! Owns      alignment.
//! Holds     the first column is text, and so is a last one of sentences; figures between them end in line.
//! Never     knows what a cell means.

#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Table {
        Table { head: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds columns at the right.
    pub fn columns(&mut self, more: &[&str]) {
        self.head.extend(more.iter().map(|&column| column.to_owned()));
    }

    /// Adds a row. Cells that are missing are empty.
    pub fn row<C: AsRef<str>>(&mut self, cells: &[C]) {
        let mut row: Vec<String> = cells.iter().map(|cell| cell.as_ref().to_owned()).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    fn is_text(&self, column: usize) -> bool {
        column == 0 || self.head[column] == "why"
    }

    /// Lines of aligned columns.
    pub fn aligned(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells =
                row.iter().enumerate().map(|(column, cell)| match (self.is_text(column), widths[column]) {
                    (true, width) => format!("{cell:<width$}"),
                    (false, width) => format!("{cell:>width$}"),
                });
            format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        all().map(line).collect()
    }

    pub fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let rule = (0..self.head.len()).map(|column| if self.is_text(column) { "---" } else { "--:" });
        let rule = line(&rule.map(str::to_owned).collect());
        line(&self.head) + &rule + &self.rows.iter().map(line).collect::<String>()
    }

    pub fn html(&self) -> String {
        let line = |row: &Vec<String>, tag: &str| {
            let cell = |(column, cell): (usize, &String)| {
                let class = if self.is_text(column) { "" } else { " class=n" };
                format!("<{tag}{class}>{}</{tag}>", escape(cell))
            };
            format!("<tr>{}</tr>\n", row.iter().enumerate().map(cell).collect::<String>())
        };
        let rows = self.rows.iter().map(|row| line(row, "td")).collect::<String>();
        format!("<table>\n{}{rows}</table>\n", line(&self.head, "th"))
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn table() -> Table {
        let mut table = Table::new(&["store", "ns", "why"]);
        table.row(&["lmdb", "7", "a < b"]);
        table.row(&["x", "1234"]);
        table
    }

    #[test]
    fn figures_end_in_line() {
        let lines = "  store    ns  why\n  lmdb      7  a < b\n  x      1234\n";
        assert_eq!(table().aligned(), lines);
    }

    #[test]
    fn the_same_as_markdown_and_html() {
        expect![[r#"
            | store | ns | why |
            | --- | --: | --- |
            | lmdb | 7 | a < b |
            | x | 1234 |  |
        "#]]
        .assert_eq(&table().markdown());
        expect![[r#"
            <table>
            <tr><th>store</th><th class=n>ns</th><th>why</th></tr>
            <tr><td>lmdb</td><td class=n>7</td><td>a &lt; b</td></tr>
            <tr><td>x</td><td class=n>1234</td><td></td></tr>
            </table>
        "#]]
        .assert_eq(&table().html());
    }
}
