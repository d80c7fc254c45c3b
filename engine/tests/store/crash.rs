// SPDX-License-Identifier: Apache-2.0
//! Power losses: every image that one could leave, at every moment of a member's life, opens and holds at
//! least what was acknowledged.

use cairn_engine::sim::{Explorer, Failure, Limits};

use crate::model::runs;
use crate::pair::{History, Pair};

/// Lives of a member, by what they exercise.
pub const SCRIPTS: &[&str] = &[
    "w3 c w2 c w2 c w2 c w2 c r",
    "w4 c r w4 c r w4 c r w3 y r w2 c r w1 c r w2",
    "w6 f s w4 f w2 s r w3 f s w3 f s y r w2 f s",
    "w5 c w5 p r w3 c p w2 c c t h w3 p w2",
    "b1 w1 b1 c r b2 w1 c r b2 c r b1 w1 c y r b3",
    "w6 c p w4 c p w4 f s p w3 c p w3 c p",
    "w8 f s w6 f s w6 f s w6 f s",
    "b6 c r b6 c r b4",
    "w4 c o w3 c o w2 f s o w2 c r o w1 c c",
    "w8 c h w2 c t h w3 c w2 t h w4 c",
    "w9 c w5 p w2 c c u2 w3 c u2 w3 c u2 w2 c u2 w1 c",
    "w9 c w9 c p w2 c d4 w2 d4 w2 c d6 w1 c",
    "w9 c w9 c w9 p d2 o d3 f s d9 w2 c d2 u2 w2 c r",
    "w6 c w3 c w3 c w3 c u2 o u2 w2 c u2 f w2 s u2 w1 c",
];

/// Runs one script and checks all its images.
pub fn explore(explorer: &mut Explorer, seed: u64, script: &str) -> Result<(), Failure> {
    let history = History::new(seed, 60);
    let purges = script.contains('p');
    explorer.run(
        |disk| {
            disk.phase("create");
            let pair = Pair::create(disk, seed).expect("a new pair");
            pair.run(disk, script).expect("nothing fails");
        },
        |disk, acked, submitted| history.check(disk, acked, submitted, purges),
    )
}

/// Runs one script; in each of its images the newest slot is rotten too.
pub fn explore_with_a_bad_slot(explorer: &mut Explorer, seed: u64, script: &str) -> Result<(), Failure> {
    let history = History::new(seed, 60);
    explorer.run(
        |disk| {
            let pair = Pair::create(disk, seed).expect("a new pair");
            pair.run(disk, script).expect("nothing fails");
        },
        |disk, acked, submitted| history.check_with_a_bad_slot(disk, acked, submitted),
    )
}

pub fn limits() -> Limits {
    Limits {
        images_per_point: runs(24, 200) as usize,
        subsets_up_to: 5,
        recovery_one_in: runs(60, 24),
        images_per_recovery_point: runs(4, 24) as usize,
    }
}

#[test]
fn no_power_loss_loses_an_acknowledged_commit_or_the_store() {
    let mut explorer = Explorer::new(0xca11, limits());
    for seed in 1..=runs(2, 20) {
        for script in SCRIPTS {
            explore(&mut explorer, seed, script)
                .unwrap_or_else(|failure| panic!("script {script:?}, history {seed}: {failure}"));
        }
    }
    let report = explorer.report();
    println!("{report}");
    assert!(report.distinct >= 10_000, "{report}");
    let floors = [
        ("torn", 300),
        ("dropped", 300),
        ("reordered", 300),
        ("in-recovery", 300),
        ("checkpoint", 300),
        ("fold", 300),
        ("compaction", 300),
        ("segment-change", 300),
        ("punch", 100),
        ("shrink", 300),
    ];
    for (cause, least) in floors {
        assert!(report.of(cause) >= least, "{cause}: {report}");
    }
    println!("score: store-crash-images {} >=10000 ok", report.distinct);
}

#[test]
fn a_power_loss_and_a_rotten_slot_together_cost_a_longer_replay_and_nothing_else() {
    let limits = Limits { images_per_point: runs(8, 100) as usize, recovery_one_in: 0, ..limits() };
    let mut explorer = Explorer::new(0xbad5, limits);
    for script in SCRIPTS {
        explore_with_a_bad_slot(&mut explorer, 2, script)
            .unwrap_or_else(|failure| panic!("script {script:?}: {failure}"));
    }
    println!("{}", explorer.report());
    assert!(explorer.report().distinct >= 1500, "{}", explorer.report());
}
