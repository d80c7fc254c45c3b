// SPDX-License-Identifier: Apache-2.0
//! A member that is made the only one of its cluster, on a disk that loses power at any moment.
//!
//! Holds     a crash leaves the member as it was, or alone; and another start makes it alone in any case.
//! Never     needs a second thread.

use cairn_core::{
    boot::{BootConfig, Booted, Start, boot},
    replica::{
        Effects, Input,
        conf::{ConfChange, Kind},
        log::{EntryKind, Log, LogEntry, Promise},
    },
    state::Outcome,
};
use cairn_engine::{
    Options,
    io::Vfs,
    sim::{Explorer, Limits, SimVfs},
    wal::WalOptions,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const DIR: &str = "m";
const FOUNDERS: u64 = 3;
/// Entries that this member has beside those of the founding, and does not know to be committed.
const TAIL: u64 = 2;

fn urls(member: u64) -> Vec<String> {
    vec![format!("http://m{member}:2380")]
}

fn start(disk: &SimVfs, force_new_cluster: bool) -> Result<Booted<(), ()>, String> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    vfs.create_dir(Path::new(DIR)).map_err(|error| error.to_string())?;
    let mut options = Options::default();
    options.vfs = vfs.clone();
    let mut wal_options = WalOptions::new(vfs, 0, 0);
    wal_options.first_segment_bytes = 64 << 10;
    let config = BootConfig {
        dir: PathBuf::from(DIR),
        wal_dir: Path::new(DIR).join("wal"),
        peer_urls: urls(0),
        cluster_token: "t".to_owned(),
        start: Start::New { others: (1..FOUNDERS).map(urls).collect() },
        force_new_cluster,
        heartbeat_ms: 100,
        election_ms: 1000,
        pre_vote: true,
        lease_checkpoints: true,
        seed: 7,
        options,
        wal_options,
    };
    boot(config).map_err(|error| error.to_string())
}

/// One of three members that ran, and has entries of which it was not told that they are committed.
fn run_before(disk: &SimVfs) {
    let member = start(disk, false).expect("a new member");
    let entry = |index| LogEntry { index, term: 2, kind: EntryKind::Normal, data: Default::default() };
    let tail: Vec<LogEntry> = (FOUNDERS + 1..=FOUNDERS + TAIL).map(entry).collect();
    let promise = Promise { term: 2, vote: member.member_id.0, commit: FOUNDERS };
    Log::append(&*member.wal, &tail, Some(promise)).expect("there is room");
    member.wal.sync().expect("a sync");
}

/// Applies what is committed, and does what the replica asks for, until it rests.
fn settle(member: &mut Booted<(), ()>) -> Result<(), String> {
    let mut effects = Effects::default();
    member.replica.step(0, Input::Applied { index: 0 }, &mut effects);
    for _ in 0..20 {
        if let Some(why) = effects.failed.take() {
            return Err(why.to_string());
        }
        if std::mem::take(&mut effects.sync) {
            let batch = member.wal.sync().map_err(|error| error.to_string())?.batch_no.0;
            member.replica.step(0, Input::Durable { batch }, &mut effects);
        }
        let committed = std::mem::take(&mut effects.committed);
        let Some(last) = committed.last().map(|committed| committed.entry.index) else {
            continue;
        };
        let mut outcome = Outcome::default();
        member.state.apply(0, committed, &mut outcome, |_, _| ()).map_err(|error| error.to_string())?;
        for (index, change) in outcome.conf {
            member.replica.step(0, Input::ConfApplied { index, change }, &mut effects);
        }
        member.replica.step(0, Input::Applied { index: last }, &mut effects);
    }
    Ok(())
}

/// What the log ends with: the changes behind the tail.
fn removals(member: &Booted<(), ()>) -> Vec<Kind> {
    let (low, high) = (FOUNDERS + TAIL + 1, member.wal.last_index() + 1);
    if low >= high {
        return Vec::new();
    }
    let entries = Log::entries(&*member.wal, low, high, usize::MAX).expect("readable");
    let changes = entries.iter().filter(|entry| entry.kind != EntryKind::Normal);
    changes.map(|entry| ConfChange::decode(&entry.data).expect("a change").kind).collect()
}

fn check(image: &SimVfs, acked: u64, submitted: u64) -> Result<(), String> {
    if acked == 0 {
        return Ok(());
    }
    let before = start(image, false)?;
    let (ids, alone) = ((before.member_id, before.cluster_id), removals(&before));
    match alone.len() as u64 {
        0 if acked == 1 => {}
        2 if submitted == 2 => {}
        count => return Err(format!("{count} removals, and {acked} of {submitted} steps")),
    }
    drop(before);
    image.stop_recording();
    let forced = start(image, true)?;
    if forced.forced.is_some() == (alone.len() == 2) {
        return Err(format!("forced to {:?}, with {alone:?} in the log", forced.forced));
    }
    drop(forced);
    let mut member = start(image, true)?;
    if let Some(again) = member.forced {
        return Err(format!("forced again, to {again}"));
    }
    settle(&mut member)?;
    if removals(&member) != [Kind::Remove, Kind::Remove] {
        return Err(format!("the log has {:?}", removals(&member)));
    }
    let members = member.state.cluster().members.voters_and_learners();
    if members != (vec![member.member_id.0], vec![]) || !member.replica.leadership().leads {
        return Err(format!("it has {members:?}, and {:?}", member.replica.leadership()));
    }
    let applied = member.state.applied().0;
    if applied < FOUNDERS + TAIL + 2 || ids != (member.member_id, member.cluster_id) {
        return Err(format!("applied {applied}, ids {ids:?}"));
    }
    Ok(())
}

// rule: FN-1, FN-2, FN-3, FN-5
#[test]
fn a_power_loss_while_a_member_is_made_the_only_one_leaves_all_of_that_or_nothing() {
    let limits =
        Limits { images_per_point: 40, subsets_up_to: 5, recovery_one_in: 0, images_per_recovery_point: 0 };
    let mut explorer = Explorer::new(5, limits);
    let workload = |disk: &SimVfs| {
        disk.submit(1);
        run_before(disk);
        disk.ack(1);
        disk.submit(2);
        let member = start(disk, true).expect("it is forced");
        assert_eq!(member.forced, Some(FOUNDERS + TAIL + 2));
        disk.ack(2);
    };
    explorer.run(workload, check).unwrap_or_else(|failure| panic!("{failure}"));
    let checks = explorer.report().checks;
    println!("{}", explorer.report());
    assert!(checks > 10, "only {checks} images");
}
