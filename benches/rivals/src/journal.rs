// SPDX-License-Identifier: Apache-2.0
//! What a run has measured so far, kept in a file: a run that was cut short goes on.
//!
//! Owns      the results of one run, and the lines that they are kept as.
//! Holds     1. a line is written once its work is done;
//!           2. results of other settings, or of another build of this program, are not gone on with.
//! Never     judges.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use crate::figures::{Figure, Measure, Sample, counted};
use crate::store::{Answer, Size};

/// What the large store of one entrant came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Large {
    pub revisions: u64,
    pub fill_s: f64,
}

/// Everything measured, by name of the store.
#[derive(Default)]
pub struct Results {
    pub samples: BTreeMap<(String, Measure), Vec<Sample>>,
    pub sizes: BTreeMap<String, Size>,
    /// Milliseconds until a store answered again after kill -9: after the churn, and when large.
    pub reopens_ms: BTreeMap<(String, bool), Vec<f64>>,
    pub large: BTreeMap<String, Large>,
    pub rounds: usize,
}

impl Results {
    pub fn figure(&self, name: &str, measure: Measure) -> Option<Figure> {
        Figure::of(self.samples.get(&(name.to_owned(), measure))?)
    }

    pub fn counted(&self, name: &str, measure: Measure) -> usize {
        self.samples.get(&(name.to_owned(), measure)).map_or(0, |samples| counted(samples))
    }
}

pub struct Journal {
    file: File,
    pub results: Results,
}

impl Journal {
    /// Goes on with the run of these settings, or begins one.
    pub fn open(path: &Path, id: &str, fresh: bool) -> Answer<Journal> {
        let text = match fs::read_to_string(path) {
            Ok(text) if !fresh => text,
            _ => String::new(),
        };
        // The last line may have been cut short.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut results = Results::default();
        let mut lines = whole.lines();
        let goes_on = lines.next() == Some(id);
        for line in lines.filter(|_| goes_on) {
            let cells: Vec<&str> = line.split('\t').collect();
            let bad = || format!("{}: no result {line:?}: start with --fresh", path.display());
            results.take(&cells).ok_or_else(bad)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(if goes_on { whole.len() as u64 } else { 0 })?;
        if !goes_on {
            writeln!(file, "{id}")?;
        }
        Ok(Journal { file, results })
    }

    pub fn sample(&mut self, name: &str, measure: Measure, sample: Sample) -> Answer<()> {
        let Sample { ns, floor_before_ns, floor_after_ns, commit_p50_us, commit_p99_us } = sample;
        let times =
            [ns, floor_before_ns, floor_after_ns, commit_p50_us, commit_p99_us].map(|x| x.to_string());
        self.put(&["sample", name, measure.name(), &times.join("\t")])
    }

    /// Every store has had its turn.
    pub fn round(&mut self) -> Answer<()> {
        self.put(&["round"])
    }

    pub fn size(&mut self, name: &str, size: Size) -> Answer<()> {
        self.put(&["size", name, &size.data.to_string(), &size.log.to_string()])
    }

    pub fn reopen(&mut self, name: &str, large: bool, ms: f64) -> Answer<()> {
        self.put(&["reopen", name, if large { "large" } else { "churned" }, &ms.to_string()])
    }

    pub fn large(&mut self, name: &str, large: Large) -> Answer<()> {
        self.put(&["large", name, &large.revisions.to_string(), &large.fill_s.to_string()])
    }

    fn put(&mut self, cells: &[&str]) -> Answer<()> {
        let line = cells.join("\t");
        let cells: Vec<&str> = line.split('\t').collect();
        self.results.take(&cells).ok_or_else(|| format!("no result {line:?}"))?;
        writeln!(self.file, "{line}")?;
        Ok(())
    }
}

impl Results {
    /// Adds the result of one line.
    fn take(&mut self, cells: &[&str]) -> Option<()> {
        match *cells {
            ["sample", name, measure, ns, before, after, p50, p99] => {
                let sample = Sample {
                    ns: ns.parse().ok()?,
                    floor_before_ns: before.parse().ok()?,
                    floor_after_ns: after.parse().ok()?,
                    commit_p50_us: p50.parse().ok()?,
                    commit_p99_us: p99.parse().ok()?,
                };
                let of = (name.to_owned(), Measure::parse(measure)?);
                self.samples.entry(of).or_default().push(sample);
            }
            ["round"] => self.rounds += 1,
            ["size", name, data, log] => {
                let size = Size { data: data.parse().ok()?, log: log.parse().ok()? };
                self.sizes.insert(name.to_owned(), size);
            }
            ["reopen", name, which, ms] => {
                let of = (name.to_owned(), which == "large");
                self.reopens_ms.entry(of).or_default().push(ms.parse().ok()?);
            }
            ["large", name, revisions, fill_s] => {
                let large = Large { revisions: revisions.parse().ok()?, fill_s: fill_s.parse().ok()? };
                self.large.insert(name.to_owned(), large);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(journal: &mut Journal) -> Answer<()> {
        let (commit_p50_us, commit_p99_us) = (260.5, 529.0);
        let sample = Sample {
            ns: 3100.25,
            floor_before_ns: 3000.0,
            floor_after_ns: 3100.0,
            commit_p50_us,
            commit_p99_us,
        };
        journal.sample("cairn", Measure::Insert, sample)?;
        journal.round()?;
        journal.size("cairn", Size { data: 7, log: 9 })?;
        journal.reopen("cairn", true, 1.5)?;
        journal.large("cairn", Large { revisions: 100, fill_s: 0.5 })
    }

    #[test]
    fn a_run_goes_on_where_it_was_cut_short_and_only_under_the_same_settings() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("journal.tsv");
        write(&mut Journal::open(&path, "seven", false).expect("a new run")).expect("results are kept");
        let mut text = fs::read_to_string(&path).expect("a journal");
        text.push_str("sample\tcai");
        fs::write(&path, text).expect("a journal that was cut short");

        let again = Journal::open(&path, "seven", false).expect("the same run");
        assert_eq!(again.results.samples.len(), 1);
        assert_eq!(again.results.rounds, 1);
        assert_eq!(again.results.sizes["cairn"], Size { data: 7, log: 9 });
        assert_eq!(again.results.reopens_ms[&("cairn".to_owned(), true)], [1.5]);
        assert_eq!(again.results.large["cairn"], Large { revisions: 100, fill_s: 0.5 });
        drop(again);

        let other = Journal::open(&path, "eight", false).expect("another run");
        assert_eq!((other.results.rounds, other.results.samples.len()), (0, 0));
    }
}
