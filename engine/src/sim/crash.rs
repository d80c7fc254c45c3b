// SPDX-License-Identifier: Apache-2.0
//! What a power loss at one moment may leave on the disk.
//!
//! Owns      the crash point, and the list of selections of its pending changes.
//! Holds     1. every selection applies some of the pending changes, in their order, to what is durable;
//!           2. the cheap and telling ones come first: nothing, all, each prefix, each change alone, each
//!              change missing, the newest write torn; subsets and samples fill the rest of the bound.
//! Never     opens an image.

use std::sync::Arc;

use super::disk::{Change, Disk, SECTOR_BYTES, Sector};
use super::rng::SplitMix;

/// One moment at which the power may fail.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) durable: Disk,
    pub(super) pending: Vec<Arc<Change>>,
    pub(super) stale: Vec<Arc<[u8]>>,
    pub(super) phase: &'static str,
    pub(super) acked: u64,
    pub(super) submitted: u64,
}

/// What became of one pending change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Dropped,
    Torn(Vec<Sector>),
}

/// One possible outcome of a crash: a fate for each pending change.
pub(super) type Selection = Vec<Fate>;

/// The cause that a selection counts under.
pub(super) fn cause(selection: &[Fate]) -> &'static str {
    let first_dropped = selection.iter().position(|fate| *fate == Fate::Dropped);
    if selection.iter().any(|fate| matches!(fate, Fate::Torn(_))) {
        "torn"
    } else {
        match first_dropped {
            None => "whole",
            Some(at) if selection[at..].contains(&Fate::Kept) => "reordered",
            Some(_) => "dropped",
        }
    }
}

impl Point {
    /// The disk after `selection`.
    pub(super) fn image(&self, selection: &[Fate]) -> Disk {
        let mut disk = self.durable.clone();
        for (change, fate) in self.pending.iter().zip(selection) {
            match fate {
                Fate::Kept => disk.apply(change),
                Fate::Dropped => {}
                Fate::Torn(sectors) => disk.apply_torn(change, sectors),
            }
        }
        disk
    }

    /// At most `max` outcomes. All subsets are among them if there are at most `subsets_up_to` pending
    /// changes and `max` allows; random ones otherwise.
    pub(super) fn selections(&self, rng: &mut SplitMix, max: usize, subsets_up_to: usize) -> Vec<Selection> {
        let n = self.pending.len();
        let mut out: Vec<Selection> = vec![vec![Fate::Dropped; n]];
        if n == 0 {
            return out;
        }
        out.push(vec![Fate::Kept; n]);
        self.push_torn(rng, &mut out);
        for at in (0..n).rev() {
            out.push(pick(n, |i| i < at));
            out.push(pick(n, |i| i != at));
            out.push(pick(n, |i| i == at));
        }
        if n <= subsets_up_to && (1 << n) + out.len() <= max {
            out.extend((0..1_u64 << n).map(|mask| pick(n, |i| mask >> i & 1 == 1)));
        }
        while out.len() < max {
            let selection = if rng.one_in(3) {
                self.random_torn(rng)
            } else if n > subsets_up_to || (1 << n) > max {
                // Three in four of each, or one in four: even odds would hardly ever keep a long run.
                let keep = 1 + 2 * rng.below(2);
                (0..n).map(|_| if rng.below(4) < keep { Fate::Kept } else { Fate::Dropped }).collect()
            } else {
                break;
            };
            out.push(selection);
        }
        out.truncate(max);
        out
    }

    /// The newest write, torn in each style, with all that came before and with nothing else.
    fn push_torn(&self, rng: &mut SplitMix, out: &mut Vec<Selection>) {
        let Some(at) = self.pending.iter().rposition(|change| change.sectors().len() > 1) else { return };
        let sectors = self.pending[at].sectors().len();
        let cut = 1 + rng.index(sectors - 1);
        let mut styles: Vec<Vec<Sector>> = vec![
            fates(sectors, |i| if i < cut { Sector::New } else { Sector::Old }),
            fates(sectors, |i| if i < cut { Sector::Old } else { Sector::New }),
            fates(sectors, |i| if i < cut { Sector::New } else { Sector::Zeros }),
            fates(sectors, |_| Sector::Zeros),
        ];
        let one = rng.index(sectors);
        styles.push(fates(sectors, |i| if i == one { Sector::Old } else { Sector::New }));
        let stale = self.stale_sector(rng);
        styles.push(fates(sectors, |i| if i == one { stale.clone() } else { Sector::New }));
        for style in styles {
            let torn = |others: Fate| {
                let mut selection = vec![others; at];
                selection.push(Fate::Torn(style.clone()));
                selection.resize(self.pending.len(), Fate::Dropped);
                selection
            };
            out.push(torn(Fate::Kept));
            out.push(torn(Fate::Dropped));
        }
    }

    /// A random subset in which one write, at least, is torn.
    fn random_torn(&self, rng: &mut SplitMix) -> Selection {
        let victim = rng.index(self.pending.len());
        let mut selection = Vec::with_capacity(self.pending.len());
        for (i, change) in self.pending.iter().enumerate() {
            let sectors = change.sectors().len();
            if sectors > 0 && (i == victim || rng.one_in(4)) {
                let mut torn = Vec::with_capacity(sectors);
                for _ in 0..sectors {
                    torn.push(match rng.below(8) {
                        0..4 => Sector::New,
                        4 | 5 => Sector::Old,
                        6 => Sector::Zeros,
                        _ => self.stale_sector(rng),
                    });
                }
                selection.push(Fate::Torn(torn));
            } else {
                selection.push(if rng.one_in(3) { Fate::Dropped } else { Fate::Kept });
            }
        }
        selection
    }

    /// One sector's worth of what was written before, at a sector boundary of that write.
    fn stale_sector(&self, rng: &mut SplitMix) -> Sector {
        if self.stale.is_empty() {
            return Sector::Zeros;
        }
        let bytes = &self.stale[rng.index(self.stale.len())];
        let from = rng.index(bytes.len() / SECTOR_BYTES as usize + 1) * SECTOR_BYTES as usize;
        let piece = &bytes[from..bytes.len().min(from + SECTOR_BYTES as usize)];
        if piece.is_empty() { Sector::Zeros } else { Sector::Stale(piece.into()) }
    }
}

fn pick(n: usize, kept: impl Fn(usize) -> bool) -> Selection {
    (0..n).map(|i| if kept(i) { Fate::Kept } else { Fate::Dropped }).collect()
}

fn fates(n: usize, fate: impl Fn(usize) -> Sector) -> Vec<Sector> {
    (0..n).map(fate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_from_the_fates() {
        use Fate::{Dropped, Kept, Torn};
        assert_eq!(cause(&[]), "whole");
        assert_eq!(cause(&[Kept, Kept]), "whole");
        assert_eq!(cause(&[Kept, Dropped]), "dropped");
        assert_eq!(cause(&[Dropped, Kept]), "reordered");
        assert_eq!(cause(&[Kept, Torn(vec![])]), "torn");
    }

    #[test]
    fn few_changes_get_every_subset_and_many_get_samples_up_to_the_bound() {
        let change = |i: u64| Arc::new(Change::Write { ino: 0, offset: i * 512, bytes: [1; 512].into() });
        let point = |n| Point {
            durable: Disk::default(),
            pending: (0..n).map(change).collect(),
            stale: vec![],
            phase: "",
            acked: 0,
            submitted: 0,
        };
        let mut rng = SplitMix::new(1);
        let four = point(4).selections(&mut rng, 200, 10);
        for mask in 0..16 {
            assert!(four.contains(&pick(4, |i| mask >> i & 1 == 1)), "{mask:b}");
        }
        assert_eq!(point(40).selections(&mut rng, 200, 10).len(), 200);
        assert_eq!(point(0).selections(&mut rng, 200, 10).len(), 1);
    }
}
