// SPDX-License-Identifier: Apache-2.0
//! What a release holds, and what it must not.

use cairn_tests::{failpoints, tools};

/// A text of the engine that every build has: without it the search below would prove nothing.
const OF_THE_ENGINE: &str = "writes stopped because an earlier write or sync of";

fn holds(bytes: &[u8], text: &str) -> bool {
    let mut at = bytes;
    while let Some(next) = at.iter().position(|byte| *byte == text.as_bytes()[0]) {
        if at[next..].starts_with(text.as_bytes()) {
            return true;
        }
        at = &at[next + 1..];
    }
    false
}

/// What only a build with the feature `next` says.
const OF_THE_NEXT: &str = "applied a request of the next version";

#[test]
fn the_daemon_as_released_knows_nothing_of_the_next_version() {
    let released = std::fs::read(tools::cairn()).expect("the daemon is a file");
    assert!(!holds(&released, OF_THE_NEXT));
    let next = std::fs::read(tools::cairn_next()).expect("the daemon is a file");
    assert!(holds(&next, OF_THE_NEXT), "the search proves nothing");
}

#[test]
fn the_daemon_as_released_has_no_failpoint() {
    let released = std::fs::read(tools::cairn()).expect("the daemon is a file");
    let next = std::fs::read(tools::cairn_next()).expect("the daemon is a file");
    for name in ["GOFAIL_HTTP", "GOFAIL_FAILPOINTS"] {
        assert!(holds(&next, name), "the search for {name} proves nothing");
        assert!(!holds(&released, name), "a release reads {name}");
    }
    for row in failpoints::table() {
        assert_eq!(holds(&next, &row.name), row.is_there, "{}", row.name);
        assert!(!holds(&released, &row.name), "a release has {}", row.name);
    }
}

#[test]
fn the_daemon_as_released_knows_no_planted_mistake() {
    let path = tools::cairn();
    let bytes = std::fs::read(&path).expect("the daemon is a file");
    assert!(holds(&bytes, OF_THE_ENGINE), "{} has no text of the engine", path.display());
    let names = xtask::sabotage::names(&xtask::root()).expect("the list of mistakes is read");
    let known: Vec<&String> = names.iter().filter(|name| holds(&bytes, name)).collect();
    assert!(known.is_empty(), "{} knows {known:?}", path.display());
}
