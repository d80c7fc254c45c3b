// SPDX-License-Identifier: Apache-2.0
//! What a run came to: a table on the terminal, plots, and the table of the repository.
//!
//! Owns      the tables that all of them show, and how a figure is written.
//! Holds     each figure is shown with how many samples count, and how many were discarded.
//! Never     measures or judges.

mod html;
mod markdown;
mod table;

use std::fs;
use std::path::Path;

use crate::entrants::{BBOLT, CAIRN, Entrant, LMDB};
use crate::figures::{Measure, median};
use crate::goals::Verdict;
use crate::journal::Results;
use crate::settings::Settings;
use crate::store::Answer;

use self::table::Table;

/// The run that results are of.
pub struct About<'a> {
    pub settings: &'a Settings,
    pub entrants: &'a [Entrant],
    pub machine: String,
    pub date: String,
    pub commit: String,
    pub minutes: f64,
}

/// Writes all reports.
pub fn write(about: &About<'_>, results: &Results, target: &Path) -> Answer<()> {
    let tables = tables(about, results);
    println!();
    for (title, table) in &tables {
        println!("{title}\n{}", table.aligned());
    }
    let goals = goals(about, results);
    if let Some((title, table)) = &goals {
        println!("{title}\n{}", table.aligned());
    }
    let quick = if about.settings.quick { "-quick" } else { "" };
    let plots = target.join(format!("report-{}{quick}.html", about.settings.value_bytes));
    fs::write(&plots, html::page(about, results, &tables, goals.as_ref()))?;
    println!("plots: {}", plots.canonicalize()?.display());
    if about.settings.readme {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, markdown::replace(&text, &markdown::section(about, &tables, goals.as_ref()))?)?;
        println!("table: {}", path.canonicalize()?.display());
    }
    Ok(())
}

type Titled = (String, Table);

fn tables(about: &About<'_>, results: &Results) -> Vec<Titled> {
    let mut tables: Vec<Titled> = Measure::ALL
        .iter()
        .map(|measure| (measure.title().to_owned(), timed(about, results, *measure)))
        .collect();
    tables.push((
        format!(
            "Files after the churn and {} s of idleness; {} live",
            about.settings.idle_s(),
            bytes(about.settings.live_bytes())
        ),
        sizes(about, results),
    ));
    tables
        .push(("Open after kill -9, until the newest revision is read".to_owned(), reopens(about, results)));
    tables
}

fn timed(about: &About<'_>, results: &Results, measure: Measure) -> Table {
    let mut table = Table::new(&["store", "per second", "of the floor", "spread", "against cairn", "count"]);
    if measure.is_write() {
        table.columns(&["commit p50", "p99"]);
    }
    let own = results.figure(CAIRN, measure);
    for entrant in about.entrants {
        let Some(figure) = results.figure(entrant.name, measure) else {
            let samples = results.samples.get(&(entrant.name.to_owned(), measure));
            let discarded = samples.map_or(0, Vec::len);
            table.row(&[entrant.name, "-", "-", "-", "-", &format!("0 (-{discarded})")]);
            continue;
        };
        let against = own.map_or("-".to_owned(), |own| format!("{:.2}", figure.speed_against(&own)));
        let mut cells = vec![
            entrant.name.to_owned(),
            rate(figure.per_second()),
            ratio(1.0 / figure.floors),
            format!("±{:.0} %", figure.spread_percent()),
            against,
            match figure.discarded {
                0 => figure.counted.to_string(),
                discarded => format!("{} (-{discarded})", figure.counted),
            },
        ];
        if measure.is_write() {
            cells.push(format!("{:.0} us", figure.commit_p50_us));
            cells.push(format!("{:.0} us", figure.commit_p99_us));
        }
        table.row(&cells);
    }
    if let Some(own) = own {
        table.row(&["floor", &rate(1e9 / own.floor_ns), "1.00"]);
    }
    table
}

fn sizes(about: &About<'_>, results: &Results) -> Table {
    let mut table = Table::new(&["store", "data", "of the live bytes", "log", "all", "of the live bytes"]);
    let live = about.settings.live_bytes() as f64;
    for entrant in about.entrants {
        let Some(size) = results.sizes.get(entrant.name) else { continue };
        let all = size.data + size.log;
        table.row(&[
            entrant.name,
            &bytes(size.data),
            &format!("{:.2}", size.data as f64 / live),
            &bytes(size.log),
            &bytes(all),
            &format!("{:.2}", all as f64 / live),
        ]);
    }
    table
}

fn reopens(about: &About<'_>, results: &Results) -> Table {
    let mut table =
        Table::new(&["store", "after churn", "when large", "min", "max", "revisions", "filled in"]);
    for entrant in about.entrants {
        let times =
            |large| results.reopens_ms.get(&(entrant.name.to_owned(), large)).cloned().unwrap_or_default();
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let large = results.large.get(entrant.name);
        table.row(&[
            entrant.name.to_owned(),
            ms(median(times(false))),
            ms(median(times(true))),
            ms(times(true).into_iter().reduce(f64::min)),
            ms(times(true).into_iter().reduce(f64::max)),
            large.map_or("-".to_owned(), |large| large.revisions.to_string()),
            large.map_or("-".to_owned(), |large| format!("{:.0} s", large.fill_s)),
        ]);
    }
    table
}

/// Goals beside what was found; `None` where they do not apply.
fn goals(about: &About<'_>, results: &Results) -> Option<Titled> {
    if about.settings.value_bytes != 512 {
        return None;
    }
    let mut table = Table::new(&["goal", "wanted", "found", "verdict", "why"]);
    for verdict in Verdict::all(results, about.settings) {
        table.row(&[
            verdict.goal.what,
            &verdict.wanted(),
            &verdict.found(),
            verdict.word(),
            verdict.reason().unwrap_or_default(),
        ]);
    }
    let quick = if about.settings.quick { ", of a quick run: no verdict" } else { "" };
    Some((format!("Goals{quick}"), table))
}

/// What a run is of, as sentences.
fn about_lines(about: &About<'_>) -> Vec<String> {
    let settings = about.settings;
    let mut lines = vec![
        format!("{}; {}; commit {}; {:.0} minutes.", about.date, about.machine, about.commit, about.minutes),
        format!(
            "{} revisions a round, values of {} that do not compress, {} rounds that count.",
            settings.keys(),
            bytes(settings.value_bytes),
            settings.rounds()
        ),
    ];
    lines.extend(about.entrants.iter().map(|entrant| format!("{}: {}.", entrant.name, entrant.what)));
    lines
}

/// The stores that the goals name.
const NAMED: [&str; 3] = [CAIRN, LMDB, BBOLT];

/// A ratio to two digits that say something.
fn ratio(x: f64) -> String {
    if x < 0.1 { format!("{x:.3}") } else { format!("{x:.2}") }
}

pub fn rate(per_second: f64) -> String {
    match per_second {
        x if x >= 10e6 => format!("{:.1} M", x / 1e6),
        x if x >= 1e6 => format!("{:.2} M", x / 1e6),
        x if x >= 10e3 => format!("{:.0} k", x / 1e3),
        x if x >= 1e3 => format!("{:.1} k", x / 1e3),
        x => format!("{x:.0}"),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 10 << 20 => format!("{:.0} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 10 << 10 => format!("{:.0} KiB", b as f64 / 1024.0),
        b => format!("{b} bytes"),
    }
}
