// SPDX-License-Identifier: Apache-2.0
//! Intervals of keys, granted to users and watched, against a look at one key after the other.
//!
//! Holds     1. what a user may read and write is the union of what was granted, key by key;
//!           2. the watchers of a key are those whose range holds it, whatever came and went before.

use super::program::{Program, push_piece};
use bytes::Bytes;
use cairn_core::{
    auth::rights::{OPEN, Rights, is_grantable},
    watch::ranges::{End, Ranges, Watched},
};
use cairn_engine::{fuzz::Target, sim::SplitMix};
use cairn_proto::authpb::{Permission, permission::Type};

pub const GRANTED: Target = Target {
    name: "granted-ranges",
    run: granted,
    fix: |_| {},
    samples: || samples(granted, 21),
    anchors: super::spread,
};

pub const WATCHED: Target = Target {
    name: "watched-ranges",
    run: watched,
    fix: |_| {},
    samples: || samples(watched, 22),
    anchors: super::spread,
};

const PERMISSIONS_MAX: usize = 12;
const STEPS_MAX: usize = 60;

/// A key out of few short ones, so that ranges meet; or any.
fn key(program: &mut Program<'_>) -> Bytes {
    let letters = [b'a', b'b', b'c', 0, 0xff];
    match program.below(16) {
        0 => Bytes::new(),
        1 => Bytes::from_static(OPEN),
        2 => Bytes::copy_from_slice(program.piece()),
        n => (0..1 + n % 2).map(|_| letters[program.below(letters.len())]).collect(),
    }
}

fn holds(permission: &Permission, key: &[u8]) -> bool {
    let start = &permission.key[..];
    match &permission.range_end[..] {
        [] => key == start,
        OPEN => key >= start,
        end => start <= key && key < end,
    }
}

fn granted(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let mut permissions = Vec::new();
    for _ in 0..1 + program.below(PERMISSIONS_MAX) {
        let perm_type = program.below(4) as i32;
        let permission = Permission { perm_type, key: key(&mut program), range_end: key(&mut program) };
        if is_grantable(&permission.key, &permission.range_end) {
            permissions.push(permission);
        }
    }
    let rights = Rights::of(false, permissions.iter());
    let mut allowed = 0;
    for _ in 0..20 {
        let (start, end) = (key(&mut program), key(&mut program));
        for (kind, may) in
            [(Type::Read, rights.may_read(&start, b"")), (Type::Write, rights.may_write(&start, b""))]
        {
            let grants = |p: &Permission| {
                [kind as i32, Type::Readwrite as i32].contains(&p.perm_type) && holds(p, &start)
            };
            assert_eq!(may, permissions.iter().any(grants), "{start:?} in {permissions:?}");
        }
        // Whoever may a range may each key in it; those at its ends and near its start are looked at.
        if rights.may_read(&start, &end) {
            allowed += 1;
            let next = Bytes::from([&start[..], b"\0"].concat());
            let inside = |key: &Bytes| *key >= start && (&end[..] == OPEN || *key < end);
            for key in [&start, &next].into_iter().filter(|key| *key == &start || inside(key)) {
                assert!(rights.may_read(key, b""), "{key:?} of [{start:?}, {end:?})");
            }
            if &end[..] == OPEN {
                assert!(rights.may_read(&[0xff; 40], b""));
            }
        }
    }
    allowed > 3
}

fn watched(input: &[u8]) -> bool {
    let mut program = Program::new(input);
    let (mut ranges, mut list) = (Ranges::default(), Vec::<(usize, Watched)>::new());
    let mut found_all = 0;
    for step in 0..STEPS_MAX {
        let Some(op) = program.next() else { break };
        match op % 4 {
            0 if !list.is_empty() => {
                let (watcher, watched) = list.swap_remove(program.below(list.len()));
                ranges.remove(&watched, watcher);
            }
            _ => {
                let (start, end) = (key(&mut program), key(&mut program));
                let watched = match &end[..] {
                    [] => Watched::Key(start),
                    OPEN => Watched::Range(start, End::Open),
                    _ if start < end => Watched::Range(start, End::Before(end)),
                    _ => continue,
                };
                ranges.insert(&watched, step);
                list.push((step, watched));
            }
        }
        let probe = key(&mut program);
        let mut found = Vec::new();
        ranges.matching(&probe, |watcher| found.push(watcher));
        found.sort_unstable();
        let mut expected: Vec<usize> = list
            .iter()
            .filter(|(_, watched)| watched.contains(&probe))
            .map(|(watcher, _)| *watcher)
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{probe:?} in {list:?}");
        found_all += found.len();
    }
    for (watcher, watched) in list {
        ranges.remove(&watched, watcher);
    }
    assert!(ranges.is_empty());
    found_all > 10
}

/// Random programs that get far enough, and one with a long key in it.
fn samples(run: fn(&[u8]) -> bool, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = SplitMix::new(seed);
    let mut random = || {
        let mut bytes = vec![0; 300];
        rng.fill(&mut bytes);
        let at = rng.index(200);
        let mut long = Vec::new();
        push_piece(&mut long, b"a long key that no other is like");
        bytes.splice(at..at, [vec![2], long].concat());
        bytes
    };
    std::iter::repeat_with(&mut random).filter(|sample| run(sample)).take(4).collect()
}
