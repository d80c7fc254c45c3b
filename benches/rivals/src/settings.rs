// SPDX-License-Identifier: Apache-2.0
//! What the command line can set, and the sizes that follow.
//!
//! Owns      the options, the sizes of the full run and of the quick one.
//! Holds     a run is known by its settings: one that was cut short goes on only under the same.
//! Never     reads the environment.

use std::path::PathBuf;

use clap::Parser;

use crate::store::Answer;

/// Compares the engine with LMDB, redb, sled, fjall and bbolt, in turn, in one run.
///
/// Writes a table to the terminal and plots to target/rivals/report-VALUE_BYTES.html. A run that was cut short goes on
/// where it stopped when it is started again with the same settings.
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "cargo bench -p cairn-rivals --", version, about, long_about)]
pub struct Settings {
    /// Sizes for a minute: a look whether all runs, not a verdict
    #[arg(long)]
    pub quick: bool,
    /// Bytes of a value; goals are for 512
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub value_bytes: u64,
    /// Revisions inserted in each round [default: 500000 or 256 MiB of them; quick: 40000 or 32 MiB]
    #[arg(long)]
    pub keys: Option<u64>,
    /// Rounds that must count for each figure [default: 7; quick: 3]
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Rounds at most, the discarded ones included [default: twice the rounds]
    #[arg(long)]
    pub rounds_max: Option<usize>,
    /// Seconds of idleness before the files are measured [default: 125; quick: 5]
    #[arg(long)]
    pub idle_s: Option<u64>,
    /// Revisions of the large store that is reopened [default: 10000000; quick: 100000]
    #[arg(long)]
    pub large: Option<u64>,
    /// Seconds that a rival may take to fill its large store; it is reopened at what it has then
    #[arg(long, default_value_t = 90)]
    pub large_s: u64,
    /// Stores that take part besides the engine, separated by commas [default: all there are]
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where the stores are while they are measured; must be on a disk [default: stores in --out]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where plots go, and what is needed to go on [default: target/rivals]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Forget a run that was cut short
    #[arg(long)]
    pub fresh: bool,
    /// Write the table to benches/README.md too
    #[arg(long)]
    pub readme: bool,
}

/// Puts in a commit, and deletes in one.
pub const BATCH: u64 = 100;
pub const DELETE_BATCH: u64 = 1000;

/// However large values are.
const KEYS_MIN: u64 = 2000;

impl Settings {
    pub fn from_command_line() -> Answer<Settings> {
        let settings = Settings::parse();
        if settings.keys() < 20 || settings.keys() % 20 != 0 {
            return Err(
                "--keys must be a multiple of 20: nine tenths are deleted, half is inserted again".into()
            );
        }
        Ok(settings)
    }

    fn either<T>(&self, set: Option<T>, full: T, quick: T) -> T {
        set.unwrap_or(if self.quick { quick } else { full })
    }

    pub fn keys(&self) -> u64 {
        let (full, quick) = ((256 << 20) / self.value_bytes, (32 << 20) / self.value_bytes);
        let whole = |keys: u64| (keys / 1000 * 1000).max(KEYS_MIN);
        self.either(self.keys, whole(full.min(500_000)), whole(quick.min(40_000)))
    }

    pub fn rounds(&self) -> usize {
        self.either(self.rounds, 7, 3)
    }

    pub fn rounds_max(&self) -> usize {
        self.rounds_max.unwrap_or(2 * self.rounds()).max(self.rounds())
    }

    pub fn idle_s(&self) -> u64 {
        self.either(self.idle_s, 125, 5)
    }

    pub fn large(&self) -> u64 {
        self.either(self.large, 10_000_000, 100_000)
    }

    /// Random reads of one round.
    pub fn reads(&self) -> u64 {
        if self.quick { 50_000 } else { 300_000 }
    }

    /// Commits of one measurement of the floor.
    pub fn floor_commits(&self) -> u64 {
        if self.quick { (self.keys() / BATCH).min(200) } else { 500 }
    }

    /// Reads of memory of one measurement of the floor, and the memory: as large as what is stored.
    pub fn floor_reads(&self) -> (u64, u64) {
        let bytes = self.keys() * self.value_bytes;
        (if self.quick { 300_000 } else { 2_000_000 }, bytes.clamp(1 << 20, 256 << 20))
    }

    /// Revisions that are inserted before a store is killed.
    pub fn tail(&self) -> u64 {
        (self.keys() / 2).min(20_000)
    }

    pub fn values_live(&self) -> u64 {
        self.keys() / 10 + self.keys() / 2
    }

    /// Bytes of keys and values that are stored after the churn.
    pub fn live_bytes(&self) -> u64 {
        self.values_live() * (16 + self.value_bytes)
    }

    /// What figures depend on.
    pub fn id(&self) -> String {
        let only = self.only.join("+");
        format!(
            "keys {} value {} rounds {} idle {} large {} in {} s of {only:?} quick {}",
            self.keys(),
            self.value_bytes,
            self.rounds(),
            self.idle_s(),
            self.large(),
            self.large_s,
            self.quick
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_value_and_the_quick_switch() {
        let parse = |args: &[&str]| Settings::parse_from(std::iter::once(&"rivals").chain(args));
        let keys: Vec<u64> = ["64", "512", "4096", "65536"]
            .iter()
            .flat_map(|bytes| [parse(&["--value-bytes", bytes]), parse(&["--quick", "--value-bytes", bytes])])
            .map(|settings| settings.keys())
            .collect();
        assert_eq!(keys, [500_000, 40_000, 500_000, 40_000, 65_000, 8000, 4000, 2000]);
        assert_eq!(parse(&["--quick", "--rounds", "5"]).rounds_max(), 10);
        assert_eq!(parse(&["--keys", "1000"]).live_bytes(), 600 * 528);
    }
}
