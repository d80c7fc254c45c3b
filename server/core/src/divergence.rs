// SPDX-License-Identifier: Apache-2.0
//! Whether members hold the same, judged by what they say of their stores, and who is to blame if not.
//!
//! Owns      the rules by which hashes are compared: those that a compaction left, those of whole stores, and those
//!           that a member compares before it starts (CO-1, CO-3, CO-4).
//! Holds     1. hashes are compared only if they are of one revision, above one compact revision (HASH-17);
//!           2. who did not answer, or cannot be compared, is not blamed, and is no part of a majority;
//!           3. who belongs to a majority of all members is not blamed, and neither is a single member without one.
//! Never     asks a member, or reads a store.

use cairn_mvcc::HashDone;
use std::collections::BTreeMap;

/// What is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All members hold the same.
    Equal,
    /// So do those that could be compared, and others could not.
    Open,
    /// These do not hold what a majority of all members holds.
    Odd(Vec<u64>),
    /// Some differ, and no majority tells who is right.
    Divided,
}

/// The member of an alarm that does not say which one is corrupt (AL-1).
pub const NOBODY: u64 = 0;

impl Verdict {
    /// For which members the alarm is to be raised.
    pub fn blamed(&self) -> &[u64] {
        match self {
            Verdict::Equal | Verdict::Open => &[],
            Verdict::Odd(members) => members,
            Verdict::Divided => &[NOBODY],
        }
    }
}

/// What a member holds, as far as others can be compared with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Hash(u32),
    /// It has applied what its leader, which commits, does not know.
    Ahead,
}

/// Judges the hashes that one compaction left: this member's own, and those of all its peers, `None` for one that gave
/// none (CO-4).
pub fn judge_compaction(own: (u64, HashDone), peers: &[(u64, Option<HashDone>)]) -> Verdict {
    let claim = |told: &HashDone| comparable(&own.1, told).then_some(Claim::Hash(told.hash));
    by_majority(own, peers, claim)
}

/// Judges the hashes of whole stores at one revision. The leader hashes its own before it asks its peers, and once more
/// after it made sure that it leads; `second` is that, of what was its newest revision then (CO-3).
pub fn judge_stores(
    (id, first): (u64, HashDone),
    second: HashDone,
    peers: &[(u64, Option<HashDone>)],
) -> Verdict {
    if comparable(&first, &second) && first.hash != second.hash {
        return Verdict::Odd(vec![id]);
    }
    let claim = |told: &HashDone| {
        let ahead = told.revision > second.revision || told.compact_revision > second.compact_revision;
        if ahead {
            return Some(Claim::Ahead);
        }
        comparable(&first, told).then_some(Claim::Hash(told.hash))
    };
    by_majority((id, first), peers, claim)
}

/// What a member that starts finds of its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartVerdict {
    /// These hold something else.
    pub differs_from: Vec<u64>,
    /// It must not start.
    pub refuses: bool,
}

/// Judges what a member that is about to start has, by what its peers have at the same revision. It is refused if a
/// majority of all members holds one other thing; or, if `strict`, as soon as one does (CO-1).
pub fn judge_start(own: &HashDone, peers: &[(u64, Option<HashDone>)], strict: bool) -> StartVerdict {
    let mut others: BTreeMap<u32, usize> = BTreeMap::new();
    let mut differs_from = Vec::new();
    for (id, told) in peers {
        let Some(told) = told.filter(|told| comparable(own, told) && told.hash != own.hash) else { continue };
        *others.entry(told.hash).or_default() += 1;
        differs_from.push(*id);
    }
    let most = others.into_values().max().unwrap_or_default();
    let refuses = if strict { most > 0 } else { is_majority(most, peers.len() + 1) };
    StartVerdict { differs_from, refuses }
}

/// Whether equal stores have equal hashes there.
fn comparable(a: &HashDone, b: &HashDone) -> bool {
    (a.hash_revision, a.compact_revision) == (b.hash_revision, b.compact_revision)
}

fn is_majority(count: usize, members: usize) -> bool {
    count > members / 2
}

fn by_majority(
    (id, own): (u64, HashDone),
    peers: &[(u64, Option<HashDone>)],
    claim: impl Fn(&HashDone) -> Option<Claim>,
) -> Verdict {
    let claims = peers.iter().filter_map(|(id, told)| Some((*id, claim(told.as_ref()?)?)));
    let claims: Vec<(u64, Claim)> = [(id, Claim::Hash(own.hash))].into_iter().chain(claims).collect();
    let mut groups: BTreeMap<Claim, usize> = BTreeMap::new();
    for (_, claim) in &claims {
        *groups.entry(*claim).or_default() += 1;
    }
    if groups.len() == 1 {
        return if claims.len() == peers.len() + 1 { Verdict::Equal } else { Verdict::Open };
    }
    let right = groups.into_iter().find(|(_, count)| is_majority(*count, peers.len() + 1));
    let Some((right, _)) = right else { return Verdict::Divided };
    Verdict::Odd(claims.into_iter().filter(|(_, claim)| *claim != right).map(|(id, _)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write as _;

    /// `hash@revision/compact`, and `!now` behind it where the newest revision is not the hashed one; `-` for none.
    fn told(text: &str) -> Option<HashDone> {
        let (hash, rest) = text.split_once('@')?;
        let (revision, rest) = rest.split_once('/').expect("a compact revision");
        let (compact, now) = rest.split_once('!').unwrap_or((rest, revision));
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("a number, not {text:?}"));
        Some(HashDone {
            revision: number(now),
            hash: u32::from_str_radix(hash, 16).expect("a hash"),
            compact_revision: number(compact),
            hash_revision: number(revision),
        })
    }

    /// The members of a row, counted from 1: the first is the one that judges.
    fn members(row: &str) -> (HashDone, Vec<(u64, Option<HashDone>)>) {
        let mut all = row.split_whitespace().zip(1..).map(|(text, id)| (id, told(text)));
        let own = all.next().and_then(|(_, own)| own).expect("a hash of its own");
        (own, all.collect())
    }

    fn check(rows: &str, judge: impl Fn(&str) -> String, expected: Expect) {
        let mut table = String::new();
        for row in rows.lines().map(str::trim) {
            writeln!(table, "{row} -> {}", judge(row)).expect("a string takes all");
        }
        expected.assert_eq(&table);
    }

    // rule: HASH-17
    #[test]
    fn a_majority_of_all_members_tells_who_is_odd_at_a_compaction() {
        check(
            "a@9/2
             a@9/2 a@9/2 a@9/2
             a@9/2 a@9/2 -
             a@9/2 - -
             a@9/2 a@9/2 b@9/2
             b@9/2 a@9/2 a@9/2
             a@9/2 b@9/2 -
             b@9/2 a@9/2
             a@9/2 b@9/2 c@9/2
             a@9/2 a@9/2 b@9/9
             a@9/2 b@9/9 b@9/9
             a@9/2 a@9/2 b@9/-1
             a@9/2 a@9/2 b@8/2
             a@9/2 b@9/2 a@9/4
             a@9/2 a@9/2 a@9/2 b@9/2 c@9/2
             a@9/2 a@9/2 b@9/2 b@9/2 -
             a@9/2 a@9/2 b@9/2 b@9/2",
            |row| {
                let (own, peers) = members(row);
                format!("{:?}", judge_compaction((1, own), &peers))
            },
            expect![[r#"
                a@9/2 -> Equal
                a@9/2 a@9/2 a@9/2 -> Equal
                a@9/2 a@9/2 - -> Open
                a@9/2 - - -> Open
                a@9/2 a@9/2 b@9/2 -> Odd([3])
                b@9/2 a@9/2 a@9/2 -> Odd([1])
                a@9/2 b@9/2 - -> Divided
                b@9/2 a@9/2 -> Divided
                a@9/2 b@9/2 c@9/2 -> Divided
                a@9/2 a@9/2 b@9/9 -> Open
                a@9/2 b@9/9 b@9/9 -> Open
                a@9/2 a@9/2 b@9/-1 -> Open
                a@9/2 a@9/2 b@8/2 -> Open
                a@9/2 b@9/2 a@9/4 -> Divided
                a@9/2 a@9/2 a@9/2 b@9/2 c@9/2 -> Odd([4, 5])
                a@9/2 a@9/2 b@9/2 b@9/2 - -> Divided
                a@9/2 a@9/2 b@9/2 b@9/2 -> Divided
            "#]],
        );
    }

    // The first column is the own hash before the peers are asked, the second the own one after.
    #[test]
    fn who_has_what_its_leader_does_not_know_is_odd_and_who_lags_is_not() {
        check(
            "a@9/2 a@9/2 a@9/2 a@9/2
             a@9/2 c@9/2 a@9/2 a@9/2
             a@9/2 c@9/4 a@9/2 a@9/2
             a@9/2 c@12/4 a@9/2!12 a@9/2!11
             a@9/2 c@12/4 a@9/2 b@9/4
             a@9/2 c@12/4 a@9/2 b@9/9
             a@9/2 c@12/4 a@9/2 b@9/2!13
             a@9/2 c@12/4 b@9/2!13 b@9/2!13
             a@9/2 c@12/4 a@9/2 b@9/2
             a@9/2 c@12/4 b@9/2 b@9/2
             a@9/2 c@12/4 - b@9/2
             a@9/2 c@12/4 - -",
            |row| {
                let (first, mut others) = members(row);
                let (_, second) = others.remove(0);
                let verdict = judge_stores((1, first), second.expect("a hash of its own"), &others);
                format!("{verdict:?}")
            },
            expect![[r#"
                a@9/2 a@9/2 a@9/2 a@9/2 -> Equal
                a@9/2 c@9/2 a@9/2 a@9/2 -> Odd([1])
                a@9/2 c@9/4 a@9/2 a@9/2 -> Equal
                a@9/2 c@12/4 a@9/2!12 a@9/2!11 -> Equal
                a@9/2 c@12/4 a@9/2 b@9/4 -> Open
                a@9/2 c@12/4 a@9/2 b@9/9 -> Odd([4])
                a@9/2 c@12/4 a@9/2 b@9/2!13 -> Odd([4])
                a@9/2 c@12/4 b@9/2!13 b@9/2!13 -> Odd([1])
                a@9/2 c@12/4 a@9/2 b@9/2 -> Odd([4])
                a@9/2 c@12/4 b@9/2 b@9/2 -> Odd([1])
                a@9/2 c@12/4 - b@9/2 -> Divided
                a@9/2 c@12/4 - - -> Open
            "#]],
        );
    }

    #[test]
    fn a_member_starts_unless_most_others_agree_on_something_else() {
        check(
            "a@9/2 a@9/2 a@9/2
             a@9/2 - -
             a@9/2 b@9/2 b@9/2
             a@9/2 a@9/2 b@9/2
             a@9/2 - b@9/2
             a@9/2 b@9/2 c@9/2
             a@9/2 b@9/4 b@9/4
             a@9/2 b@8/2 b@8/2
             a@9/2 b@9/2
             a@9/2 b@9/2 b@9/2 b@9/2 -
             a@9/2 b@9/2 b@9/2 - -",
            |row| {
                let (own, peers) = members(row);
                let [lenient, strict] = [false, true].map(|strict| judge_start(&own, &peers, strict));
                assert_eq!(lenient.differs_from, strict.differs_from);
                let refuses = (lenient.refuses, strict.refuses);
                format!("{:?} refused {refuses:?}", lenient.differs_from)
            },
            expect![[r#"
                a@9/2 a@9/2 a@9/2 -> [] refused (false, false)
                a@9/2 - - -> [] refused (false, false)
                a@9/2 b@9/2 b@9/2 -> [2, 3] refused (true, true)
                a@9/2 a@9/2 b@9/2 -> [3] refused (false, true)
                a@9/2 - b@9/2 -> [3] refused (false, true)
                a@9/2 b@9/2 c@9/2 -> [2, 3] refused (false, true)
                a@9/2 b@9/4 b@9/4 -> [] refused (false, false)
                a@9/2 b@8/2 b@8/2 -> [] refused (false, false)
                a@9/2 b@9/2 -> [2] refused (false, true)
                a@9/2 b@9/2 b@9/2 b@9/2 - -> [2, 3, 4] refused (true, true)
                a@9/2 b@9/2 b@9/2 - - -> [2, 3] refused (false, true)
            "#]],
        );
    }

    #[test]
    fn an_alarm_names_the_odd_ones_or_nobody() {
        for (verdict, blamed) in [
            (Verdict::Equal, vec![]),
            (Verdict::Open, vec![]),
            (Verdict::Odd(vec![3, 4]), vec![3, 4]),
            (Verdict::Divided, vec![NOBODY]),
        ] {
            assert_eq!(verdict.blamed(), blamed);
        }
    }
}
