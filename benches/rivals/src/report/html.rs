// SPDX-License-Identifier: Apache-2.0
//! Plots: one page with nothing outside it.
//!
//! Owns      the bars, with a dot for each sample that counts.
//! Holds     each plot begins at zero and names its unit; the engine's bar is the dark one.
//! Never     needs a script, a font or a network.

use super::table::escape;
use super::{About, NAMED, Titled, about_lines, rate, ratio};
use crate::figures::Measure;
use crate::journal::Results;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1c2330;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2.2rem}table{border-collapse:collapse;\
margin:.6rem 0}th,td{padding:.15rem .7rem;border-bottom:1px solid #d9dde4;text-align:left}.n{text-align:right;\
font-variant-numeric:tabular-nums}svg{display:block;margin:.6rem 0}text{font:13px system-ui,sans-serif;fill:#1c2330}\
.own{fill:#1f4e8c}.named{fill:#7d9cc4}.other{fill:#c3cfdf}.dot{fill:#d9480f;fill-opacity:.75}.bound{stroke:#2b8a3e;\
stroke-width:2;stroke-dasharray:5 3}";

const LEFT: f64 = 70.0;
const WIDTH: f64 = 640.0;
const BAR: f64 = 22.0;
const ROW: f64 = 30.0;

pub fn page(about: &About<'_>, results: &Results, tables: &[Titled], goals: Option<&Titled>) -> String {
    let mut body = format!(
        "<h1>Cairn's engine beside other stores, values of {} bytes</h1>\n<ul>\n",
        about.settings.value_bytes
    );
    for line in about_lines(about) {
        body += &format!("<li>{}</li>\n", escape(&line));
    }
    body += "</ul>\n";
    if let Some((title, table)) = goals {
        body += &format!("<h2>{}</h2>\n{}", escape(title), table.html());
    }
    for (at, (title, table)) in tables.iter().enumerate() {
        let plot = match Measure::ALL.get(at) {
            Some(measure) => timed(about, results, *measure),
            None if at == Measure::ALL.len() => sizes(about, results),
            None => reopens(about, results),
        };
        body += &format!("<h2>{}</h2>\n{plot}{}", escape(title), table.html());
    }
    format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Rivals</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )
}

/// A bar, what stands beside it, and a dot for each sample.
struct Bar {
    name: &'static str,
    value: f64,
    label: String,
    dots: Vec<f64>,
}

/// Speed in floors: the longer the better.
fn timed(about: &About<'_>, results: &Results, measure: Measure) -> String {
    let bars = about.entrants.iter().filter_map(|entrant| {
        let figure = results.figure(entrant.name, measure)?;
        let samples = results.samples.get(&(entrant.name.to_owned(), measure))?;
        let dots =
            samples.iter().filter(|sample| sample.counts()).map(|sample| 1.0 / sample.floors()).collect();
        let value = 1.0 / figure.floors;
        let label = format!("{} of the floor, {}/s", ratio(value), rate(figure.per_second()));
        Some(Bar { name: entrant.name, value, label, dots })
    });
    let goal = (measure == Measure::Insert && about.settings.value_bytes == 512).then_some(0.75);
    svg("speed, floor = 1", &bars.collect::<Vec<_>>(), goal)
}

/// Data files in live bytes: the shorter the better.
fn sizes(about: &About<'_>, results: &Results) -> String {
    let live = about.settings.live_bytes() as f64;
    let bars = about.entrants.iter().filter_map(|entrant| {
        let value = results.sizes.get(entrant.name)?.data as f64 / live;
        Some(Bar { name: entrant.name, value, label: format!("{value:.2} x live"), dots: Vec::new() })
    });
    let goal = (about.settings.value_bytes == 512).then_some(1.25);
    svg("data on the disk, live bytes = 1", &bars.collect::<Vec<_>>(), goal)
}

/// Seconds until a large store answers: the shorter the better.
fn reopens(about: &About<'_>, results: &Results) -> String {
    let bars = about.entrants.iter().filter_map(|entrant| {
        let dots = results.reopens_ms.get(&(entrant.name.to_owned(), true))?.clone();
        let value = crate::figures::median(dots.clone())?;
        let revisions = results.large.get(entrant.name).map_or(0, |large| large.revisions);
        let label = format!("{value:.0} ms at {} revisions", rate(revisions as f64));
        Some(Bar { name: entrant.name, value, label, dots })
    });
    svg("milliseconds, when large", &bars.collect::<Vec<_>>(), None)
}

fn svg(unit: &str, bars: &[Bar], bound: Option<f64>) -> String {
    let values = bars.iter().flat_map(|bar| bar.dots.iter().copied().chain([bar.value])).chain(bound);
    let Some(most) = values.reduce(f64::max).filter(|most| *most > 0.0) else { return String::new() };
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT);
    let height = ROW * bars.len() as f64 + 22.0;
    let mut out = format!(
        "<svg viewBox=\"0 0 900 {height}\" width=900 height={height} role=img>\n<title>{unit}</title>\n"
    );
    for (at, bar) in bars.iter().enumerate() {
        let y = ROW * at as f64;
        let class = match bar.name {
            name if name == NAMED[0] => "own",
            name if NAMED.contains(&name) => "named",
            _ => "other",
        };
        let (middle, end) = (y + BAR / 2.0, x(bar.value));
        out += &format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=end>{}</text>\
             <rect class={class} x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            LEFT - 8.0,
            middle + 5.0,
            escape(bar.name),
            end - LEFT,
        );
        for dot in &bar.dots {
            out += &format!("<circle class=dot cx=\"{:.1}\" cy=\"{middle}\" r=3 />", x(*dot));
        }
        let beside = bar.dots.iter().map(|dot| x(*dot)).fold(end, f64::max) + 10.0;
        out += &format!("<text x=\"{beside:.1}\" y=\"{}\">{}</text>\n", middle + 5.0, escape(&bar.label));
    }
    if let Some(bound) = bound {
        let bottom = height - 20.0;
        out += &format!("<line class=bound x1=\"{0:.1}\" x2=\"{0:.1}\" y1=0 y2=\"{bottom}\"/>", x(bound));
    }
    out += &format!(
        "<text x=\"{LEFT}\" y=\"{}\">{unit}{}</text>\n</svg>\n",
        height - 4.0,
        if bound.is_some() { "; dashed: the goal" } else { "" }
    );
    out
}
